//! Prepared situations, through the real API server, as golden text.

use super::*;
use crate::testing::Api;
use serde_json::json;

const PODS: &str = "/api/v1/namespaces/default/pods";
const EVENTS: &str = "/api/v1/namespaces/default/events";

fn asking(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}})
}

/// A Pod of one container `app`, with more in its spec.
fn pod(name: &str, more: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "app", "image": "shop:1", "resources": asking("500m", "256Mi")}]},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

/// The same with what its container asks for.
fn sized(name: &str, cpu: &str, memory: &str, more: Value) -> Value {
    let mut pod = pod(name, more);
    pod["spec"]["containers"][0]["resources"] = asking(cpu, memory);
    pod
}

fn on(node: &str) -> Value {
    json!({"nodeName": node})
}

async fn explained(api: &Api, name: &str) -> String {
    report_pending(&api.target("default"), name, api.now()).await.unwrap().text()
}

async fn why(api: &Api, namespace: &str, object: &str) -> String {
    let (kind, name) = target::named_or(object, "pods").unwrap();
    match report_terminating(&api.target(namespace), kind, name, api.now()).await {
        Ok(report) => report.text(),
        Err(failure) => failure.lines().join("\n"),
    }
}

async fn happened(api: &Api, about: &Value, reason: &str, message: &str, field: &str) {
    let event = json!({
        "metadata": {"name": format!("{}.{}", meta::name(about), reason.to_lowercase())},
        "type": "Warning", "reason": reason, "message": message,
        "involvedObject": {"kind": "Pod", "name": meta::name(about), "namespace": "default",
                           "uid": meta::uid(about), "fieldPath": field},
    });
    api.make(EVENTS, event).await;
}

fn time(seconds: i64) -> String {
    meta::time(crate::testing::START + seconds)
}

/// What a node says of a Pod that it has.
fn said(phase: &str, statuses: Value) -> Value {
    json!({
        "phase": phase, "qosClass": "Burstable", "containerStatuses": statuses,
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": time(0)}],
    })
}

fn status(name: &str, state: Value) -> Value {
    let running = state.get("running").is_some();
    json!({"name": name, "image": "shop:1", "imageID": "", "restartCount": 0, "state": state,
           "ready": running, "started": running})
}

fn runs(name: &str) -> Value {
    status(name, json!({"running": {"startedAt": time(5)}}))
}

#[tokio::test]
async fn each_node_says_all_that_it_has_against_the_pod() {
    let api = Api::new().await;
    api.node("node-1", "4", json!({"unschedulable": true}), "True").await;
    api.node("node-2", "2", json!({}), "True").await;
    let taints = json!({"taints": [{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]});
    api.node("node-3", "2", taints, "True").await;
    api.make(PODS, sized("busy", "1500m", "1Gi", on("node-2"))).await;
    api.make(PODS, sized("web", "1", "2Gi", json!({}))).await;
    api.at(300);
    insta::assert_snapshot!(explained(&api, "web").await);
}

#[tokio::test]
async fn too_large_for_every_node() {
    let api = Api::new().await;
    api.node("node-1", "2", json!({}), "True").await;
    api.node("node-2", "4", json!({}), "True").await;
    api.make(PODS, sized("giant", "16", "64Gi", json!({}))).await;
    insta::assert_snapshot!(explained(&api, "giant").await);
}

#[tokio::test]
async fn one_toleration_is_enough_for_all_nodes() {
    let api = Api::new().await;
    for node in ["node-1", "node-2", "node-3", "node-4"] {
        let taint = json!({"key": "pool", "value": "batch", "effect": "NoExecute"});
        api.node(node, "2", json!({"taints": [taint]}), "True").await;
    }
    api.make(PODS, pod("web", json!({}))).await;
    insta::assert_snapshot!(explained(&api, "web").await);
}

#[tokio::test]
async fn labels_that_no_node_has() {
    let api = Api::new().await;
    api.node("node-1", "2", json!({}), "True").await;
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [
            {"key": "zone", "operator": "In", "values": ["a", "b"]}]}]}}});
    let picky = json!({"nodeSelector": {"disk": "ssd"}, "affinity": affinity});
    api.make(PODS, pod("web", picky)).await;
    insta::assert_snapshot!(explained(&api, "web").await);
}

#[tokio::test]
async fn a_host_port_that_another_holds() {
    let api = Api::new().await;
    api.node("node-1", "2", json!({}), "True").await;
    let container = json!([{"name": "app", "image": "shop:1",
                            "ports": [{"containerPort": 80, "hostPort": 80}]}]);
    let holder = json!({"nodeName": "node-1", "containers": container});
    api.make(PODS, pod("gateway", holder)).await;
    api.make(PODS, pod("web", json!({"containers": container}))).await;
    insta::assert_snapshot!(explained(&api, "web").await);
}

#[tokio::test]
async fn as_many_pods_as_the_node_takes() {
    let api = Api::new().await;
    api.node("node-1", "4", json!({}), "True").await;
    for i in 0..4 {
        api.make(PODS, sized(&format!("p{i}"), "100m", "64Mi", on("node-1"))).await;
    }
    api.make(PODS, pod("web", json!({}))).await;
    insta::assert_snapshot!(explained(&api, "web").await);
}

#[tokio::test]
async fn there_is_no_node() {
    let api = Api::new().await;
    api.make(PODS, pod("web", json!({}))).await;
    insta::assert_snapshot!(explained(&api, "web").await);
}

#[tokio::test]
async fn held_back_by_gates() {
    let api = Api::new().await;
    api.node("node-1", "2", json!({}), "True").await;
    let gates = json!({"schedulingGates": [{"name": "shop.example/quota"}]});
    api.make(PODS, pod("web", gates)).await;
    insta::assert_snapshot!(explained(&api, "web").await);
}

#[tokio::test]
async fn somebody_elses_scheduler() {
    let api = Api::new().await;
    api.node("node-1", "2", json!({}), "True").await;
    api.make(PODS, pod("web", json!({"schedulerName": "binpacker"}))).await;
    insta::assert_snapshot!(explained(&api, "web").await);
}

#[tokio::test]
async fn a_node_would_take_it_and_something_it_needs_is_missing() {
    let api = Api::new().await;
    api.node("node-1", "2", json!({}), "True").await;
    let from = |kind: &str, name: &str, key: &str| json!({"name": key.to_uppercase(), "valueFrom": {kind: {"name": name, "key": key}}});
    let container = json!({"name": "app", "image": "shop:1",
        "env": [from("secretKeyRef", "db", "password"), from("configMapKeyRef", "site", "title")]});
    let map = json!({"metadata": {"name": "site"}, "data": {"colour": "red"}});
    api.make("/api/v1/namespaces/default/configmaps", map).await;
    let volumes = json!([{"name": "pages", "configMap": {"name": "pages"}},
                         {"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}},
                         {"name": "extra", "configMap": {"name": "extra", "optional": true}}]);
    api.make(PODS, pod("web", json!({"containers": [container], "volumes": volumes}))).await;
    api.at(60);
    insta::assert_snapshot!(explained(&api, "web").await);
}

#[tokio::test]
async fn the_only_node_is_not_heard() {
    let api = Api::new().await;
    let taints = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]);
    api.node("node-1", "2", json!({"taints": taints}), "Unknown").await;
    api.make(PODS, pod("web", json!({}))).await;
    api.at(720);
    insta::assert_snapshot!(explained(&api, "web").await);
}

async fn bound(statuses: Value, more: Value, events: &[(&str, &str)]) -> String {
    let api = Api::new().await;
    api.node("node-1", "2", json!({}), "True").await;
    let mut made = pod("web", more);
    made["spec"]["nodeName"] = json!("node-1");
    let all_run = statuses.as_array().unwrap().iter().all(|s| s["state"].get("running").is_some());
    made["status"] = said(if all_run { "Running" } else { "Pending" }, statuses);
    let made = api.make(PODS, made).await;
    for (reason, message) in events {
        happened(&api, &made, reason, message, "spec.containers{app}").await;
    }
    api.at(90);
    explained(&api, "web").await
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled() {
    let message = "Back-off pulling image \"shop:1\": ErrImagePull: manifest unknown";
    let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": message}});
    let events = [("Failed", "Failed to pull image \"shop:1\": manifest unknown")];
    let text = bound(json!([status("app", waiting)]), json!({}), &events).await;
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn a_container_that_ends_again_and_again() {
    let message = "back-off 1m20s restarting failed container=app pod=web_default(u)";
    let mut app =
        status("app", json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}}));
    app["restartCount"] = json!(4);
    app["lastState"] = json!({"terminated": {
        "exitCode": 127, "reason": "Error", "startedAt": time(59), "finishedAt": time(60)}});
    insta::assert_snapshot!(bound(json!([app]), json!({}), &[]).await);
}

#[tokio::test]
async fn an_init_container_at_work() {
    let api = Api::new().await;
    api.node("node-1", "2", json!({}), "True").await;
    let init = |name: &str| json!({"name": name, "image": "shop:1"});
    let mut made = pod("web", json!({"initContainers": [init("schema"), init("seed")]}));
    made["spec"]["nodeName"] = json!("node-1");
    let waits = json!({"waiting": {"reason": "PodInitializing"}});
    made["status"] = said("Pending", json!([status("app", waits)]));
    let done = json!({"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": time(4)}});
    let mut at_work = runs("seed");
    at_work["ready"] = json!(false);
    made["status"]["initContainerStatuses"] = json!([status("schema", done), at_work]);
    api.make(PODS, made).await;
    api.at(90);
    insta::assert_snapshot!(explained(&api, "web").await);
}

#[tokio::test]
async fn a_container_that_cannot_be_made_from_its_spec() {
    let waiting = json!({"waiting": {
        "reason": "CreateContainerConfigError", "message": "secret \"db\" not found"}});
    let container = json!([{"name": "app", "image": "shop:1",
        "envFrom": [{"secretRef": {"name": "db"}}]}]);
    let more = json!({"containers": container});
    insta::assert_snapshot!(bound(json!([status("app", waiting)]), more, &[]).await);
}

#[tokio::test]
async fn a_container_that_is_not_ready() {
    let mut app = runs("app");
    app["ready"] = json!(false);
    let probe = json!({"httpGet": {"path": "/", "port": 80}});
    let container = json!([{"name": "app", "image": "shop:1", "readinessProbe": probe}]);
    let events = [("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")];
    let more = json!({"containers": container});
    insta::assert_snapshot!(bound(json!([app]), more, &events).await);
}

#[tokio::test]
async fn a_readiness_gate_that_nobody_opens() {
    let more = json!({"readinessGates": [{"conditionType": "shop.example/in-rotation"}]});
    insta::assert_snapshot!(bound(json!([runs("app")]), more, &[]).await);
}

#[tokio::test]
async fn a_node_that_says_nothing_of_it() {
    insta::assert_snapshot!(bound(json!([]), json!({}), &[]).await);
}

#[tokio::test]
async fn nothing_is_wrong() {
    insta::assert_snapshot!(bound(json!([runs("app")]), json!({}), &[]).await);
}

#[tokio::test]
async fn its_node_is_silent_and_it_will_be_evicted() {
    let api = Api::new().await;
    let taint = |effect: &str| json!({"key": "node.kubernetes.io/unreachable", "effect": effect});
    let taints = json!([taint("NoSchedule"), taint("NoExecute")]);
    api.node("node-1", "2", json!({}), "True").await;
    let mut node = api.get("/api/v1/nodes/node-1").await;
    node["spec"]["taints"] = taints;
    api.at(20);
    api.put("/api/v1/nodes/node-1", node).await;
    let mut lost = api.get("/api/v1/nodes/node-1").await["status"].clone();
    lost["conditions"] = json!([{"type": "Ready", "status": "Unknown",
        "message": "Kubelet stopped posting node status."}]);
    api.say("/api/v1/nodes/node-1", lost).await;
    let mut made = pod("web", on("node-1"));
    made["status"] = said("Running", json!([runs("app")]));
    api.make(PODS, made).await;
    api.at(120);
    insta::assert_snapshot!(explained(&api, "web").await);
}

#[tokio::test]
async fn its_node_is_gone() {
    let api = Api::new().await;
    api.make(PODS, pod("web", on("node-9"))).await;
    insta::assert_snapshot!(explained(&api, "web").await);
}

#[tokio::test]
async fn the_node_refused_it() {
    let api = Api::new().await;
    api.node("node-1", "2", json!({}), "True").await;
    let mut made = pod("web", on("node-1"));
    made["status"] = json!({"phase": "Failed", "reason": "OutOfcpu", "message":
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 500, used: 1900, capacity: 2000"});
    api.make(PODS, made).await;
    insta::assert_snapshot!(explained(&api, "web").await);
}

#[tokio::test]
async fn it_was_deleted() {
    let api = Api::new().await;
    api.make(PODS, pod("web", json!({}))).await;
    api.at(60);
    api.delete(&format!("{PODS}/web"), json!({})).await;
    api.at(100);
    let text = explained(&api, "web").await;
    insta::assert_snapshot!(text);
    api.compact().await;
    insta::assert_snapshot!("it_was_deleted_long_ago", explained(&api, "web").await);
}

#[tokio::test]
async fn a_quota_keeps_it_from_being_made() {
    let api = Api::new().await;
    let labels = json!({"app": "web"});
    let message = "pods \"web-6d4-x\" is forbidden: exceeded quota: team, requested: pods=1, \
                   used: pods=2, limited: pods=2";
    let set = json!({
        "metadata": {"name": "web-6d4"},
        "spec": {"replicas": 3, "selector": {"matchLabels": labels},
                 "template": {"metadata": {"labels": labels}, "spec": pod("", json!({}))["spec"]}},
        "status": {"replicas": 2, "conditions": [
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}]},
    });
    api.make("/apis/apps/v1/namespaces/default/replicasets", set).await;
    for name in ["one", "two"] {
        api.make(PODS, pod(name, json!({}))).await;
    }
    // What is used, the server counts.
    let quota = json!({
        "metadata": {"name": "team"}, "spec": {"hard": {"pods": "2", "requests.cpu": "10"}},
        "status": {},
    });
    api.make("/api/v1/namespaces/default/resourcequotas", quota).await;
    insta::assert_snapshot!(explained(&api, "web-6d4-x2k9p").await);
}

#[tokio::test]
async fn a_pod_on_its_way_out_is_another_question() {
    let api = Api::new().await;
    api.node("node-1", "2", json!({}), "True").await;
    api.make(PODS, pod("web", on("node-1"))).await;
    api.delete(&format!("{PODS}/web"), json!({})).await;
    insta::assert_snapshot!(explained(&api, "web").await);
}

#[tokio::test]
async fn many_nodes_are_told_in_groups() {
    let api = Api::new().await;
    for i in 0..20 {
        let spec = json!({"unschedulable": i % 5 == 0});
        api.node(&format!("node-{i:02}"), "1", spec, "True").await;
    }
    api.make(PODS, sized("web", "2", "1Gi", json!({}))).await;
    insta::assert_snapshot!(explained(&api, "web").await);
}

#[tokio::test]
async fn programs_get_the_same_as_json() {
    let api = Api::new().await;
    api.node("node-1", "2", json!({"unschedulable": true}), "True").await;
    api.make(PODS, pod("web", json!({}))).await;
    let report = report_pending(&api.target("default"), "web", api.now()).await.unwrap();
    let text = serde_json::to_string_pretty(&report.to_json()).unwrap();
    insta::assert_snapshot!(text);
}

// Objects on their way out.

/// A Pod on a node that is asked to end when it has run for a minute.
async fn leaving(more: Value, statuses: Value) -> Api {
    let api = Api::new().await;
    api.node("node-1", "2", json!({}), "True").await;
    heard(&api, "node-1").await;
    let mut made = pod("web", more);
    made["spec"]["nodeName"] = json!("node-1");
    made["status"] = said("Running", statuses);
    api.make(PODS, made).await;
    api.at(60);
    api.delete(&format!("{PODS}/web"), json!({})).await;
    api
}

async fn heard(api: &Api, node: &str) {
    let lease = json!({"metadata": {"name": node}, "spec": {"holderIdentity": node}});
    api.make("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", lease).await;
}

#[tokio::test]
async fn its_grace_is_not_over() {
    let api = leaving(json!({}), json!([runs("app")])).await;
    api.at(72);
    insta::assert_snapshot!(why(&api, "default", "web").await);
}

#[tokio::test]
async fn a_pre_stop_hook_and_a_sidecar() {
    let hook = json!({"preStop": {"exec": {"command": ["drain"]}}});
    let more = json!({
        "containers": [{"name": "app", "image": "shop:1", "lifecycle": hook}],
        "initContainers": [{"name": "proxy", "image": "shop:1", "restartPolicy": "Always"}],
        "terminationGracePeriodSeconds": 120,
    });
    let api = leaving(more, json!([runs("app")])).await;
    let mut status = api.get(&format!("{PODS}/web")).await["status"].clone();
    status["initContainerStatuses"] = json!([runs("proxy")]);
    api.say(&format!("{PODS}/web"), status).await;
    api.at(80);
    insta::assert_snapshot!(why(&api, "default", "pod/web").await);
}

#[tokio::test]
async fn a_container_that_does_not_end() {
    let api = leaving(json!({}), json!([runs("app")])).await;
    api.at(400);
    insta::assert_snapshot!(why(&api, "default", "web").await);
}

#[tokio::test]
async fn its_containers_have_ended() {
    let end = json!({"terminated": {"exitCode": 143, "reason": "Error", "finishedAt": time(62)}});
    let api = leaving(json!({}), json!([status("app", end)])).await;
    api.at(64);
    insta::assert_snapshot!(why(&api, "default", "web").await);
    api.at(300);
    insta::assert_snapshot!(
        "its_containers_have_ended_long_ago",
        why(&api, "default", "web").await
    );
}

#[tokio::test]
async fn nobody_hears_its_node() {
    let api = leaving(json!({}), json!([runs("app")])).await;
    let mut lost = api.get("/api/v1/nodes/node-1").await["status"].clone();
    lost["conditions"] = json!([{"type": "Ready", "status": "Unknown",
        "message": "Kubelet stopped posting node status."}]);
    api.say("/api/v1/nodes/node-1", lost).await;
    api.at(500);
    insta::assert_snapshot!(why(&api, "default", "web").await);
}

#[tokio::test]
async fn its_node_has_no_lease_any_more() {
    let api = leaving(json!({}), json!([runs("app")])).await;
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1";
    api.delete(lease, json!({})).await;
    api.at(70);
    insta::assert_snapshot!(why(&api, "default", "web").await);
}

#[tokio::test]
async fn the_node_of_what_goes_is_gone() {
    let api = leaving(json!({}), json!([runs("app")])).await;
    api.delete("/api/v1/nodes/node-1", json!({})).await;
    insta::assert_snapshot!(why(&api, "default", "web").await);
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_finalizer_that_somebody_is_known_to_have_put_there() {
    let api = Api::new().await;
    let map = json!({"metadata": {"name": "site", "finalizers": ["shop.example/backup"]}});
    api.make(&format!("{MAPS}?fieldManager=backup-operator"), map).await;
    api.at(10);
    api.delete(&format!("{MAPS}/site"), json!({})).await;
    api.at(3600);
    insta::assert_snapshot!(why(&api, "default", "configmap/site").await);
}

#[tokio::test]
async fn a_pod_that_a_controller_has_not_counted() {
    let api = Api::new().await;
    api.node("node-1", "2", json!({}), "True").await;
    heard(&api, "node-1").await;
    let end = json!({"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": time(62)}});
    let mut made = pod("job-1", on("node-1"));
    made["metadata"]["finalizers"] = json!(["batch.kubernetes.io/job-tracking"]);
    made["status"] = said("Succeeded", json!([status("app", end)]));
    api.make(PODS, made).await;
    api.delete(&format!("{PODS}/job-1"), json!({})).await;
    api.at(30);
    insta::assert_snapshot!(why(&api, "default", "job-1").await);
}

/// A ReplicaSet with a Pod that holds it and one that does not.
async fn owner(propagation: &str) -> Api {
    let api = Api::new().await;
    api.node("node-1", "2", json!({}), "True").await;
    let labels = json!({"app": "web"});
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    let set = json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": labels},
                 "template": {"metadata": {"labels": labels}, "spec": pod("", json!({}))["spec"]}},
    });
    let uid = meta::uid(&api.make(sets, set).await).to_owned();
    for (name, blocks) in [("web-a", true), ("web-b", true), ("web-c", false)] {
        let mut made = pod(name, on("node-1"));
        made["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": uid,
            "blockOwnerDeletion": blocks}]);
        api.make(PODS, made).await;
    }
    api.delete(&format!("{sets}/web"), json!({"propagationPolicy": propagation})).await;
    api.delete(&format!("{PODS}/web-a"), json!({})).await;
    api.at(12);
    api
}

#[tokio::test]
async fn dependents_go_first() {
    let api = owner("Foreground").await;
    insta::assert_snapshot!(why(&api, "default", "rs/web").await);
}

#[tokio::test]
async fn dependents_are_let_go_first() {
    let api = owner("Orphan").await;
    insta::assert_snapshot!(why(&api, "default", "rs/web").await);
}

#[tokio::test]
async fn a_namespace_waits_for_what_is_in_it() {
    let api = Api::new().await;
    api.node("node-1", "2", json!({}), "True").await;
    api.make("/api/v1/namespaces", json!({"metadata": {"name": "shop"}})).await;
    let held = json!({"metadata": {"name": "site", "finalizers": ["shop.example/backup"]}});
    api.make("/api/v1/namespaces/shop/configmaps", held).await;
    for i in 0..8 {
        let name = format!("s{i}");
        api.make("/api/v1/namespaces/shop/secrets", json!({"metadata": {"name": name}})).await;
    }
    api.make("/api/v1/namespaces/shop/pods", pod("web", on("node-1"))).await;
    api.delete("/api/v1/namespaces/shop", json!({})).await;
    api.delete("/api/v1/namespaces/shop/configmaps/site", json!({})).await;
    api.delete("/api/v1/namespaces/shop/pods/web", json!({})).await;
    api.at(10);
    insta::assert_snapshot!(why(&api, "default", "ns/shop").await);
}

#[tokio::test]
async fn an_empty_namespace_waits_for_its_controller() {
    let api = Api::new().await;
    api.make("/api/v1/namespaces", json!({"metadata": {"name": "shop"}})).await;
    api.delete("/api/v1/namespaces/shop", json!({})).await;
    api.delete("/api/v1/namespaces/shop/serviceaccounts/default", json!({})).await;
    api.at(10);
    insta::assert_snapshot!(why(&api, "default", "ns/shop").await);
}

#[tokio::test]
async fn what_is_not_being_deleted_and_what_is_gone() {
    let api = Api::new().await;
    api.make(MAPS, json!({"metadata": {"name": "site"}})).await;
    let stays = why(&api, "default", "cm/site").await;
    assert_eq!(stays, "configmap/site is not being deleted");
    api.at(5);
    api.delete(&format!("{MAPS}/site"), json!({})).await;
    let gone =
        format!("configmap/site is gone: it went with revision {} at {}", api.revision(), time(5));
    assert_eq!(why(&api, "default", "cm/site").await, gone);
    api.make(MAPS, json!({"metadata": {"name": "other"}})).await;
    api.compact().await;
    let text = why(&api, "default", "cm/site").await;
    assert!(text.starts_with("configmaps \"site\" not found, nor any trace of it since"), "{text}");
}

#[tokio::test]
async fn all_that_wait_and_all_that_go_at_a_glance() {
    let api = Api::new().await;
    api.node("node-1", "1", json!({}), "True").await;
    heard(&api, "node-1").await;
    api.make(PODS, sized("large", "2", "1Gi", json!({}))).await;
    api.make(PODS, pod("gated", json!({"schedulingGates": [{"name": "shop.example/quota"}]})))
        .await;
    let mut well = pod("well", on("node-1"));
    well["status"] = said("Running", json!([runs("app")]));
    well["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    api.make(PODS, well).await;
    let held = json!({"metadata": {"name": "site", "finalizers": ["shop.example/backup"]}});
    api.make(MAPS, held).await;
    api.delete(&format!("{MAPS}/site"), json!({})).await;
    api.at(60);
    let target = api.target("default");
    let pending = reports_pending(&target, false, api.now()).await.unwrap();
    insta::assert_snapshot!(report::overview(&pending, "explain-pending"));
    let going = reports_terminating(&target, true, api.now()).await.unwrap();
    insta::assert_snapshot!("all_that_go_at_a_glance", report::overview(&going, "why-terminating"));
    assert_eq!(reports_pending(&api.target("kube-system"), false, api.now()).await.unwrap(), []);
}

#[tokio::test]
async fn of_a_workload_its_pods_are_told_or_why_there_are_none() {
    let api = Api::new().await;
    api.node("node-1", "1", json!({}), "True").await;
    let set = |name: &str| {
        let labels = json!({"app": name});
        let selector = json!({"matchLabels": labels, "matchExpressions": [
            {"key": "canary", "operator": "DoesNotExist"}]});
        json!({
            "metadata": {"name": name},
            "spec": {"replicas": 2, "selector": selector,
                     "template": {"metadata": {"labels": labels}, "spec": pod("", json!({}))["spec"]}},
        })
    };
    for name in ["web", "db"] {
        api.make("/apis/apps/v1/namespaces/default/replicasets", set(name)).await;
    }
    for (name, labels) in [
        ("web-a", json!({"app": "web"})),
        ("web-b", json!({"app": "web", "canary": "yes"})),
        ("other", json!({"app": "other"})),
    ] {
        let mut made = sized(name, "2", "1Gi", json!({}));
        made["metadata"]["labels"] = labels;
        api.make(PODS, made).await;
    }
    let target = api.target("default");
    let kind = kinds::by_alias("rs").unwrap();
    let reports = reports_of_workload(&target, kind, "web", api.now()).await.unwrap();
    let told: Vec<&str> = reports.iter().map(|report| report.object.as_str()).collect();
    assert_eq!(told, ["pod/web-a"]);
    let none = reports_of_workload(&target, kind, "db", api.now()).await.unwrap();
    assert_eq!(none[0].why[0].text, "wants 2 Pods and has 0");
    let map = json!({"metadata": {"name": "site"}});
    api.make(MAPS, map).await;
    let wrong = reports_of_workload(&target, served("configmaps"), "site", api.now()).await;
    assert!(matches!(wrong, Err(Failure::Input(text)) if text.contains("selects no Pods")));
}

#[tokio::test]
async fn what_may_not_be_looked_at_is_said_and_not_guessed() {
    use tower::{ServiceExt as _, util::BoxCloneSyncService};
    let api = Api::new().await;
    let secret = json!({"secret": {"secretName": "db"}, "name": "db"});
    api.make(PODS, pod("web", json!({"nodeName": "node-1", "volumes": [secret]}))).await;
    type Answer = Result<http::Response<client::Body>, std::convert::Infallible>;
    let door = api.server.door();
    let guarded = tower::service_fn(move |request: http::Request<client::Body>| {
        let path = request.uri().path().to_owned();
        if !["/secrets", "/events", "/nodes"].iter().any(|part| path.contains(part)) {
            let answer: futures::future::BoxFuture<'static, Answer> =
                Box::pin(door.clone().oneshot(request));
            return answer;
        }
        let status = api::status::Status::new(403, "Forbidden", format!("{path} is forbidden"));
        let body = http_body_util::Full::new(bytes::Bytes::from(status.to_json().to_string()));
        let body = http_body_util::BodyExt::map_err(body, |never| match never {});
        let body = http_body_util::BodyExt::boxed_unsync(body);
        let answer = http::Response::builder().status(403).body(body).unwrap();
        Box::pin(std::future::ready(Ok(answer)))
    });
    let identity = api::caller::Identity::new("test", &[]);
    let client = client::Client::in_process(BoxCloneSyncService::new(guarded), identity, None);
    let target = Target { client, ..api.target("default") };
    let text = report_pending(&target, "web", api.now()).await.unwrap().text();
    insta::assert_snapshot!(text);
}
