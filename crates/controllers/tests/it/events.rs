//! Events: how long they stay.

use crate::Cluster;
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

const EVENTS: &str = "/api/v1/namespaces/default/events";
const MINUTE: Duration = Duration::from_secs(60);

async fn names(cluster: &Cluster) -> Vec<String> {
    let found = cluster.get(EVENTS).await.unwrap();
    let items = found["items"].as_array().unwrap().iter();
    let ours = items.filter(|e| e["reason"] == "Tested");
    ours.map(|e| e["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn events_go_an_hour_after_they_were_last_seen() {
    // EVT-1
    let cluster = Cluster::new().await;
    let event = |name: &str| {
        json!({
            "metadata": {"name": name}, "involvedObject": {"kind": "Pod", "name": "p"},
            "reason": "Tested", "message": "m", "type": "Normal", "count": 1,
        })
    };
    cluster.post(EVENTS, event("once")).await;
    cluster.post(EVENTS, event("again")).await;
    sleep(30 * MINUTE).await;
    let mut seen = cluster.get(&format!("{EVENTS}/again")).await.unwrap();
    let first = seen["lastTimestamp"].clone();
    seen["count"] = json!(2);
    seen["lastTimestamp"] = Value::Null;
    let seen = cluster.call(Method::PUT, &format!("{EVENTS}/again"), seen).await.unwrap();
    assert_ne!(seen["lastTimestamp"], first, "the server says when");
    cluster.store.expire_leases();
    sleep(29 * MINUTE).await;
    cluster.store.expire_leases();
    assert_eq!(names(&cluster).await, ["again", "once"]);
    sleep(7 * MINUTE).await;
    cluster.store.expire_leases();
    assert_eq!(names(&cluster).await, ["again"]);
    sleep(30 * MINUTE).await;
    cluster.store.expire_leases();
    assert_eq!(names(&cluster).await, [""; 0]);
}
