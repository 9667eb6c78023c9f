//! Definitions of custom resources: their names, what is served, and their end.

use crate::Cluster;
use futures::StreamExt as _;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn definition(plural: &str, kind: &str) -> Value {
    json!({
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    })
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let list = object["status"]["conditions"].as_array().unwrap();
    list.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

async fn established(cluster: &Cluster, name: &str) {
    let path = format!("{DEFINITIONS}/{name}");
    cluster
        .until("established", SECOND, async |c: &Cluster| {
            condition(&c.get(&path).await.unwrap(), "Established")["status"] == "True"
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_definition_is_established_and_two_never_share_a_name() {
    let cluster = Cluster::new().await;
    cluster.post(DEFINITIONS, definition("widgets", "Widget")).await;
    established(&cluster, "widgets.example.com").await;
    let found = cluster.get(&format!("{DEFINITIONS}/widgets.example.com")).await.unwrap();
    let names = json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"});
    assert_eq!(found["status"]["acceptedNames"], names);
    assert_eq!(condition(&found, "NamesAccepted")["reason"], "NoConflicts");
    assert!(condition(&found, "Established")["lastTransitionTime"].is_string());
    assert!(cluster.get(WIDGETS).await.is_some());

    cluster.post(DEFINITIONS, definition("gadgets", "Widget")).await;
    let path = format!("{DEFINITIONS}/gadgets.example.com");
    cluster
        .until("refused", SECOND, async |c: &Cluster| {
            let found = c.get(&path).await.unwrap();
            found["status"]["conditions"].as_array().is_some_and(|list| !list.is_empty())
        })
        .await;
    let found = cluster.get(&path).await.unwrap();
    assert_eq!(condition(&found, "NamesAccepted")["status"], "False");
    assert_eq!(condition(&found, "NamesAccepted")["message"], "\"WidgetList\" is already in use");
    assert_eq!(condition(&found, "Established")["status"], "False");
    assert!(cluster.get(&WIDGETS.replace("widgets", "gadgets")).await.is_none(), "not served");

    // The name is free again as soon as the first has gone.
    let first = format!("{DEFINITIONS}/widgets.example.com");
    cluster.call(Method::DELETE, &first, Value::Null).await.unwrap();
    established(&cluster, "gadgets.example.com").await;
}

#[tokio::test(start_paused = true)]
async fn objects_go_before_their_definition() {
    let mut cluster = Cluster::new().await;
    cluster.post(DEFINITIONS, definition("widgets", "Widget")).await;
    established(&cluster, "widgets.example.com").await;
    for name in ["a", "b"] {
        cluster.post(WIDGETS, json!({"metadata": {"name": name}, "spec": {"x": 1}})).await;
    }
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/wait"]}});
    let held = cluster.post(WIDGETS, held).await;
    let path = format!("{DEFINITIONS}/widgets.example.com");
    cluster.call(Method::DELETE, &path, Value::Null).await.unwrap();
    cluster
        .until("only one is left", SECOND, async |c: &Cluster| {
            let list = c.get(WIDGETS).await.unwrap();
            list["items"].as_array().unwrap().len() == 1
        })
        .await;
    cluster
        .until("the definition says so", 2 * SECOND, async |c: &Cluster| {
            let found = c.get(&path).await.unwrap();
            condition(&found, "Terminating")["reason"] == "InstanceDeletionInProgress"
        })
        .await;
    // Another leader goes on with it.
    cluster.lead().await;
    let mut free = held;
    free["metadata"] = json!({"name": "held", "finalizers": null});
    let now = cluster.get(&format!("{WIDGETS}/held")).await.unwrap();
    free["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
    cluster.call(Method::PUT, &format!("{WIDGETS}/held"), free).await.unwrap();
    cluster.until("it is gone", 5 * SECOND, async |c: &Cluster| c.get(&path).await.is_none()).await;
    assert!(cluster.get(WIDGETS).await.is_none(), "and served no more");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_takes_its_custom_resources_along() {
    // NS-3
    let cluster = Cluster::new().await;
    cluster.post(DEFINITIONS, definition("widgets", "Widget")).await;
    established(&cluster, "widgets.example.com").await;
    cluster.post("/api/v1/namespaces", json!({"metadata": {"name": "team"}})).await;
    let inside = WIDGETS.replace("/default/", "/team/");
    cluster.post(&inside, json!({"metadata": {"name": "w"}})).await;
    cluster.post(WIDGETS, json!({"metadata": {"name": "w"}})).await;
    cluster.call(Method::DELETE, "/api/v1/namespaces/team", Value::Null).await.unwrap();
    cluster
        .until("gone", 5 * SECOND, async |c: &Cluster| {
            c.get("/api/v1/namespaces/team").await.is_none()
        })
        .await;
    assert_eq!(cluster.get(&inside).await.unwrap()["items"], json!([]));
    assert!(cluster.get(&format!("{WIDGETS}/w")).await.is_some(), "another namespace's stays");
}

#[tokio::test(start_paused = true)]
async fn objects_outlive_a_leader_and_are_watched_without_a_gap_until_the_definition_goes() {
    let mut cluster = Cluster::new().await;
    cluster.post(DEFINITIONS, definition("widgets", "Widget")).await;
    established(&cluster, "widgets.example.com").await;
    let first = cluster.post(WIDGETS, json!({"metadata": {"name": "w-0"}})).await;
    let from = first["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{WIDGETS}?watch=1&resourceVersion={from}");
    let request = http::Request::builder().uri(path).body(bytes::Bytes::new()).unwrap();
    let mut lines = cluster.client.request(request).await.unwrap().into_body().into_data_stream();
    for n in 1..10 {
        if n % 3 == 0 {
            cluster.lead().await;
        }
        cluster.post(WIDGETS, json!({"metadata": {"name": format!("w-{n}")}})).await;
    }
    let path = format!("{DEFINITIONS}/widgets.example.com");
    cluster.call(Method::DELETE, &path, Value::Null).await.unwrap();
    let mut seen = Vec::new();
    while let Some(bytes) = lines.next().await {
        let text = String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        for line in text.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let name = event["object"]["metadata"]["name"].as_str().unwrap().to_owned();
            seen.push((event["type"].as_str().unwrap().to_owned(), name));
        }
    }
    let of = |kind: &str| -> Vec<&str> {
        seen.iter().filter(|(k, _)| k == kind).map(|(_, name)| name.as_str()).collect()
    };
    let new: Vec<String> = (1..10).map(|n| format!("w-{n}")).collect();
    assert_eq!(of("ADDED"), new, "each once, in order");
    assert_eq!(of("DELETED").len(), 10, "and all of their ends, before the watch's own");
}
