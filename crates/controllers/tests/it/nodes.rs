//! Nodes that are lost, and what becomes of their Pods.

use crate::Cluster;
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

async fn taints(cluster: &Cluster, node: &str) -> Vec<String> {
    let node = cluster.get(&format!("/api/v1/nodes/{node}")).await.unwrap();
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let key = |t: &Value| text(&t["key"]).trim_start_matches("node.kubernetes.io/").to_owned();
    taints.iter().map(|t| format!("{}:{}", key(t), text(&t["effect"]))).collect()
}

async fn pod(cluster: &Cluster, name: &str) -> Option<Value> {
    cluster.get(&format!("/api/v1/namespaces/default/pods/{name}")).await
}

async fn is_ending(cluster: &Cluster, name: &str) -> bool {
    !pod(cluster, name).await.unwrap()["metadata"]["deletionTimestamp"].is_null()
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let mut list = object["status"]["conditions"].as_array().unwrap().iter();
    list.find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

async fn reasons(cluster: &Cluster, of: &str) -> Vec<String> {
    let events = cluster.get("/api/v1/namespaces/default/events").await.unwrap();
    let events = events["items"].as_array().unwrap().iter();
    let about = events.filter(|e| e["involvedObject"]["name"] == of);
    let mut reasons: Vec<String> = about
        .map(|e| format!("{}: {}", e["reason"].as_str().unwrap(), e["message"].as_str().unwrap()))
        .collect();
    reasons.sort();
    reasons
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_lost_node_leave_the_services_at_once_and_the_node_in_time() {
    // NOD-12, NOD-14, NOD-15, NLC-1, EPS test (d), §3.2
    let cluster = Cluster::new().await;
    cluster.node("m").await;
    cluster.running("p", json!({"app": "web"}), "m", "10.244.2.2").await;
    cluster.running("q", json!({"app": "web"}), "n", "10.244.1.2").await;
    let services = "/api/v1/namespaces/default/services";
    let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80}]});
    cluster.post(services, json!({"metadata": {"name": "web"}, "spec": spec})).await;
    sleep(60 * SECOND).await;
    cluster.silent("m").await;
    cluster
        .until("unreachable", 10 * SECOND, async |c: &Cluster| {
            taints(c, "m").await == ["unreachable:NoSchedule", "unreachable:NoExecute"]
        })
        .await;
    let node = cluster.get("/api/v1/nodes/m").await.unwrap();
    assert_eq!(condition(&node, "Ready")["reason"], "NodeStatusUnknown");
    assert_eq!(condition(&node, "PIDPressure")["status"], "Unknown");
    cluster
        .until("not ready, still listed", SECOND, async |c: &Cluster| {
            let ready =
                pod(c, "p").await.is_some_and(|p| condition(&p, "Ready")["status"] == "False");
            let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
            let slices = c.get(slices).await.unwrap();
            let mut found: Vec<String> = slices["items"][0]["endpoints"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|e| {
                    let c = &e["conditions"];
                    format!("{} {} {}", e["addresses"][0], c["ready"], c["serving"])
                })
                .collect();
            found.sort();
            ready && found == ["\"10.244.1.2\" true true", "\"10.244.2.2\" false false"]
        })
        .await;
    // 300 s are the default toleration (DEF-2).
    sleep(295 * SECOND).await;
    assert!(!is_ending(&cluster, "p").await);
    cluster.until("deleted", 10 * SECOND, async |c: &Cluster| is_ending(c, "p").await).await;
    let gone = pod(&cluster, "p").await.unwrap();
    let target = condition(&gone, "DisruptionTarget");
    assert_eq!(target["reason"], "DeletionByTaintManager");
    assert!(target["lastTransitionTime"].is_string());
    assert!(!is_ending(&cluster, "q").await);
    cluster
        .until("events", SECOND, async |c: &Cluster| {
            reasons(c, "p").await
                == [
                    "NodeNotReady: Node is not ready",
                    "TaintManagerEviction: Marking for deletion Pod default/p",
                ]
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_back_in_time_keeps_its_pods() {
    // NOD-12, NOD-14
    let cluster = Cluster::new().await;
    cluster.node("m").await;
    cluster.running("p", json!({}), "m", "10.244.2.2").await;
    sleep(60 * SECOND).await;
    cluster.silent("m").await;
    cluster.until("evicts", 10 * SECOND, async |c: &Cluster| taints(c, "m").await.len() == 2).await;
    sleep(200 * SECOND).await;
    cluster.heard("m").await;
    let mut node = cluster.get("/api/v1/nodes/m").await.unwrap();
    node["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    cluster.call(Method::PUT, "/api/v1/nodes/m/status", node).await.unwrap();
    cluster
        .until("no taints", 2 * SECOND, async |c: &Cluster| taints(c, "m").await.is_empty())
        .await;
    sleep(600 * SECOND).await;
    assert!(!is_ending(&cluster, "p").await);
    let told = reasons(&cluster, "p").await;
    let cancelled = "TaintManagerEviction: Cancelling deletion of Pod default/p";
    assert!(told.iter().any(|reason| reason == cancelled), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_evicts_nobody_before_every_node_could_speak() {
    // FEN-42, INV-11, A14
    let mut cluster = Cluster::new().await;
    cluster.node("m").await;
    cluster.running("p", json!({}), "m", "10.244.2.2").await;
    sleep(60 * SECOND).await;
    cluster.lead().await;
    cluster.silent("m").await;
    sleep(45 * SECOND).await;
    assert_eq!(taints(&cluster, "m").await, ["unreachable:NoSchedule"]);
    cluster
        .until("its turn", 10 * SECOND, async |c: &Cluster| taints(c, "m").await.len() == 2)
        .await;
}

#[tokio::test(start_paused = true)]
async fn when_every_node_is_silent_nobody_is_evicted() {
    // NOD-13, A13
    let cluster = Cluster::new().await;
    cluster.running("p", json!({}), "n", "10.244.1.2").await;
    sleep(60 * SECOND).await;
    cluster.silent("n").await;
    sleep(600 * SECOND).await;
    assert_eq!(taints(&cluster, "n").await, ["unreachable:NoSchedule"]);
    assert!(!is_ending(&cluster, "p").await);
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_node_that_was_removed_follow_it() {
    // DEL-52
    let cluster = Cluster::new().await;
    cluster.node("m").await;
    cluster.running("p", json!({}), "m", "10.244.2.2").await;
    cluster.running("q", json!({}), "n", "10.244.1.2").await;
    sleep(5 * SECOND).await;
    cluster.call(Method::DELETE, "/api/v1/nodes/m", Value::Null).await.unwrap();
    sleep(39 * SECOND).await;
    assert!(pod(&cluster, "p").await.is_some(), "in quarantine");
    cluster.until("removed", 45 * SECOND, async |c: &Cluster| pod(c, "p").await.is_none()).await;
    assert!(pod(&cluster, "q").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_without_a_node_fails_and_waits_for_its_finalizers_only() {
    // DEL-39, DEL-37
    let cluster = Cluster::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let object = json!({
        "metadata": {"name": "p", "finalizers": ["a.b/c"]},
        "spec": {"containers": [{"name": "a", "image": "toolbox"}]},
    });
    cluster.post(pods, object).await;
    cluster.call(Method::DELETE, &format!("{pods}/p"), Value::Null).await.unwrap();
    cluster
        .until("failed", 25 * SECOND, async |c: &Cluster| {
            pod(c, "p").await.unwrap()["status"]["phase"] == "Failed"
        })
        .await;
    let mut object = pod(&cluster, "p").await.unwrap();
    object["metadata"]["finalizers"] = json!([]);
    cluster.call(Method::PUT, &format!("{pods}/p"), object).await.unwrap();
    assert!(pod(&cluster, "p").await.is_none());
}
