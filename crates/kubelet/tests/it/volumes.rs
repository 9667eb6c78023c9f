//! Volumes that are made from objects: when containers wait for them, and how they follow the objects.

use crate::control_plane::{Node, container_status};
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};
use tokio::time::{Instant, sleep};

fn spec(volumes: Value) -> Value {
    json!({
        "restartPolicy": "Always", "terminationGracePeriodSeconds": 1, "serviceAccountName": "robot",
        "containers": [{
            "name": "a", "image": "registry.example/a:1",
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        }],
        "volumes": volumes,
    })
}

fn map(text: &str) -> Value {
    json!({"kind": "ConfigMap", "data": {"key": text}})
}

fn runs(pod: Option<&Value>) -> bool {
    pod.is_some_and(|pod| container_status(pod, "a").pointer("/state/running").is_some())
}

async fn node() -> Node {
    let mut node = Node::new();
    node.runtime.read_volumes();
    node.start().await;
    node
}

/// Waits until a file says this; how long it took.
async fn until_file(path: &Path, want: &str, limit: Duration) -> Duration {
    let begun = Instant::now();
    loop {
        let found = fs::read_to_string(path).unwrap_or_default();
        if found == want {
            return begun.elapsed();
        }
        assert!(begun.elapsed() <= limit, "{}: {found:?}, not {want:?}", path.display());
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_starts_when_what_its_volumes_name_is_there() {
    // VOL-1
    let node = node().await;
    node.create("p", spec(json!([{"name": "v", "configMap": {"name": "m"}}]))).await;
    let begun = Instant::now();
    while node.told_of("FailedMount") == 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "nobody says why it waits");
        sleep(Duration::from_millis(10)).await;
    }
    // It goes on trying, says the same thing once, and nothing has started.
    sleep(Duration::from_secs(30)).await;
    assert_eq!(node.told_of("FailedMount"), 1);
    assert!(!runs(Some(&node.pod("p"))), "{:#}", node.pod("p"));
    let waiting = node.container("p", "a").pointer("/state/waiting/reason").cloned();
    assert_eq!(waiting, Some(json!("ContainerCreating")));
    node.put("configmaps", "m", map("one"));
    node.until("p", runs).await;
    let file = node.volume("p", "v").join("key");
    assert_eq!(fs::read_to_string(&file).unwrap(), "one");
    // A change comes within a minute and the time that asking takes.
    node.put("configmaps", "m", map("two"));
    until_file(&file, "two", Duration::from_secs(61)).await;
    // What is gone stays for who runs.
    node.delete("p", 1).await;
    node.until("p", |pod| pod.is_none()).await;
    let volume = node.volume("p", "v");
    assert!(!volume.exists(), "nothing of the Pod is left");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_the_pods_own_and_is_renewed_in_time() {
    // SA-2
    let node = node().await;
    let token = json!({"path": "token", "expirationSeconds": 1000, "audience": "vault"});
    let projected = json!({"sources": [{"serviceAccountToken": token}]});
    node.create("p", spec(json!([{"name": "v", "projected": projected}]))).await;
    node.until("p", runs).await;
    let file = node.volume("p", "v").join("token");
    assert_eq!(fs::read_to_string(&file).unwrap(), "token-1");
    let (asked, request) = node.tokens().remove(0);
    assert_eq!(request["spec"]["audiences"], json!(["vault"]));
    assert_eq!(request["spec"]["boundObjectRef"]["name"], "p");
    assert_eq!(request["spec"]["boundObjectRef"]["uid"], "p");
    until_file(&file, "token-2", Duration::from_secs(810)).await;
    let (renewed, _) = node.tokens().remove(1);
    assert_eq!((renewed - asked).as_secs(), 800, "four fifths of its time");
    assert_eq!(node.tokens().len(), 2, "and not before");
}

#[tokio::test(start_paused = true)]
async fn a_new_agent_goes_on_with_the_volumes_of_what_runs() {
    // VOL-1
    let mut node = node().await;
    node.put("configmaps", "m", map("one"));
    let fields =
        json!({"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]});
    let sources = json!([{"configMap": {"name": "m"}}, {"downwardAPI": fields}]);
    node.create("p", spec(json!([{"name": "v", "projected": {"sources": sources}}]))).await;
    node.until("p", runs).await;
    node.stop().await;
    node.put("configmaps", "m", map("two"));
    node.start().await;
    let volume = node.volume("p", "v");
    until_file(&volume.join("key"), "two", Duration::from_secs(5)).await;
    // What changes of the Pod itself is there at once.
    node.change("p", |pod| pod["metadata"]["labels"] = json!({"app": "x"})).await;
    until_file(&volume.join("labels"), "app=\"x\"", Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_starts_when_what_its_variables_name_is_there() {
    // ENV-1
    let node = node().await;
    let mut spec = spec(json!([{"name": "v", "emptyDir": {}}]));
    spec["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "m"}}]);
    node.create("p", spec).await;
    let waits = |pod: Option<&Value>| {
        let status = pod.map(|pod| container_status(pod, "a")).unwrap_or_default();
        status["state"]["waiting"]
            == json!({"reason": "CreateContainerConfigError", "message": "configmap \"m\" not found"})
    };
    node.until("p", waits).await;
    node.put("configmaps", "m", map("one"));
    node.until("p", runs).await;
}
