//! Addresses of Services, through the API.

use crate::Cluster;
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);
const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

fn service(name: &str, selector: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selector": selector, "ports": [{"port": 80}]}})
}

/// `address ready/serving/terminating` of every endpoint of a Service.
async fn sliced(cluster: &Cluster, service: &str) -> Vec<String> {
    let all = cluster.get(SLICES).await.unwrap();
    let mut found = Vec::new();
    for slice in all["items"].as_array().unwrap() {
        if slice["metadata"]["labels"]["kubernetes.io/service-name"] != service {
            continue;
        }
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            let (address, c) = (&endpoint["addresses"][0], &endpoint["conditions"]);
            let (ready, serving, terminating) = (&c["ready"], &c["serving"], &c["terminating"]);
            let address = address.as_str().unwrap();
            found.push(format!("{address} {ready}/{serving}/{terminating}"));
        }
    }
    found.sort();
    found
}

/// Ready addresses of the older form.
async fn listed(cluster: &Cluster, service: &str) -> Vec<String> {
    let path = format!("/api/v1/namespaces/default/endpoints/{service}");
    let found = cluster.get(&path).await.unwrap_or_default();
    let addresses = found["subsets"][0]["addresses"].as_array().cloned().unwrap_or_default();
    addresses.iter().map(|a| a["ip"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn every_service_drops_an_address_when_the_deletion_begins_whatever_the_kubelet_does() {
    // S34, A15, DEL-40, EPS test (a): there is no kubelet here at all.
    let cluster = Cluster::new().await;
    cluster.post(SERVICES, service("front", &json!({"app": "web"}))).await;
    cluster.post(SERVICES, service("canary", &json!({"app": "web", "track": "new"}))).await;
    let labels = json!({"app": "web", "track": "new"});
    cluster.running("p", labels.clone(), "n", "10.244.1.2").await;
    cluster.running("q", labels, "n", "10.244.1.3").await;
    for name in ["front", "canary"] {
        cluster
            .until("both are served", SECOND, async |c: &Cluster| {
                sliced(c, name).await
                    == ["10.244.1.2 true/true/false", "10.244.1.3 true/true/false"]
                    && listed(c, name).await == ["10.244.1.2", "10.244.1.3"]
            })
            .await;
    }
    let pod = "/api/v1/namespaces/default/pods/p";
    cluster.call(Method::DELETE, pod, Value::Null).await.unwrap();
    for name in ["front", "canary"] {
        cluster
            .until("the address is dropped", SECOND, async |c: &Cluster| {
                sliced(c, name).await
                    == ["10.244.1.2 false/true/true", "10.244.1.3 true/true/false"]
                    && listed(c, name).await == ["10.244.1.3"]
            })
            .await;
    }
    // Its probe fails, then it is gone.
    let failing = json!({"conditions": [{"type": "Ready", "status": "False"}]});
    cluster.pod_status("p", failing).await;
    cluster
        .until("no longer serving", SECOND, async |c: &Cluster| {
            sliced(c, "front").await
                == ["10.244.1.2 false/false/true", "10.244.1.3 true/true/false"]
        })
        .await;
    cluster.call(Method::DELETE, pod, json!({"gracePeriodSeconds": 0})).await.unwrap();
    cluster
        .until("gone", SECOND, async |c: &Cluster| {
            sliced(c, "canary").await == ["10.244.1.3 true/true/false"]
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_service_had_goes_with_it() {
    let cluster = Cluster::new().await;
    cluster.post(SERVICES, service("web", &json!({"app": "web"}))).await;
    cluster.running("p", json!({"app": "web"}), "n", "10.244.1.2").await;
    cluster.until("served", SECOND, async |c: &Cluster| listed(c, "web").await.len() == 1).await;
    cluster.call(Method::DELETE, &format!("{SERVICES}/web"), Value::Null).await.unwrap();
    cluster
        .until("everything is gone", SECOND, async |c: &Cluster| {
            let slices = c.get(SLICES).await.unwrap();
            slices["items"].as_array().unwrap().is_empty()
                && c.get("/api/v1/namespaces/default/endpoints/web").await.is_none()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_pods_makes_as_many_slices_as_it_takes_and_no_more() {
    // EPS-4, EPS-7, CTL-3: the copy is behind the writes all the time.
    let mut cluster = Cluster::new().await;
    cluster.post(SERVICES, service("web", &json!({"app": "web"}))).await;
    for i in 0..120 {
        let ip = format!("10.244.1.{}", i + 2);
        cluster.running(&format!("p{i}"), json!({"app": "web"}), "n", &ip).await;
        if i == 60 {
            cluster.lead().await;
        }
    }
    cluster
        .until("all are served", 5 * SECOND, async |c: &Cluster| {
            sliced(c, "web").await.iter().filter(|e| e.ends_with(" true/true/false")).count() == 120
        })
        .await;
    let slices = cluster.get(SLICES).await.unwrap();
    assert_eq!(slices["items"].as_array().unwrap().len(), 2);
    let before = cluster.revision();
    sleep(60 * SECOND).await;
    assert_eq!(cluster.revision(), before, "nothing is written when nothing changes");
}
