//! What bodies may say: fields twice, another version of a kind, containers that are added to a Pod.

use crate::{Api, PODS, pod};
use http::Method;
use serde_json::{Value, json};

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";

#[tokio::test]
async fn fields_that_are_there_twice_are_refused_where_the_client_is_strict() {
    // HTTP-2
    let api = Api::new().await;
    let twice = r#"{"metadata": {"name": "c"}, "data": {"a": "1", "a": "2"}, "data": {"a": "3", "a": "4"}}"#;
    let (json, yaml) = ("application/json", "application/yaml");
    for kind in [json, yaml] {
        let path = format!("{CONFIG_MAPS}?fieldValidation=Strict");
        let (code, answer) = api.send(Method::POST, &path, kind, twice).await;
        let want = "strict decoding error: duplicate field \"data.a\", duplicate field \"data\"";
        assert_eq!((code, &answer["message"]), (400, &json!(want)), "{kind}");
        let path = format!("{CONFIG_MAPS}?dryRun=All");
        let (code, answer) = api.send(Method::POST, &path, kind, twice).await;
        assert_eq!((code, &answer["data"]), (201, &json!({"a": "4"})), "the last one counts");
    }
    assert_eq!(api.send(Method::POST, CONFIG_MAPS, json, twice).await.0, 201);
    let path = format!("{CONFIG_MAPS}/c?fieldValidation=Strict");
    let patch = r#"{"data": {"b": "1"}, "data": {"b": "2"}}"#;
    for kind in [MERGE, STRATEGIC] {
        let (code, answer) = api.send(Method::PATCH, &path, kind, patch).await;
        let want = "strict decoding error: duplicate field \"data\"";
        assert_eq!((code, &answer["message"]), (400, &json!(want)), "{kind}");
    }
}

#[tokio::test]
async fn an_autoscaler_is_one_object_in_two_versions() {
    let api = Api::new().await;
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let sent = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50},
    });
    let (code, created) = api.json(Method::POST, V1, sent.clone()).await;
    assert_eq!((code, &created["apiVersion"]), (201, &json!("autoscaling/v1")), "{created}");
    assert_eq!(created["spec"]["targetCPUUtilizationPercentage"], 50);
    let (_, other) = api.json(Method::GET, &format!("{V2}/h"), Value::Null).await;
    let cpu = &other["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"];
    assert_eq!((&other["apiVersion"], cpu), (&json!("autoscaling/v2"), &json!(50)));
    assert_eq!(other["metadata"]["uid"], created["metadata"]["uid"]);

    let patch = r#"{"spec": {"targetCPUUtilizationPercentage": 70, "maxReplicas": 5}}"#;
    let (code, patched) = api.send(Method::PATCH, &format!("{V1}/h"), MERGE, patch).await;
    assert_eq!((code, &patched["spec"]["maxReplicas"]), (200, &json!(5)), "{patched}");
    let (_, mut other) = api.json(Method::GET, &format!("{V2}/h"), Value::Null).await;
    assert_eq!(other["spec"]["metrics"].as_array().unwrap().len(), 1);
    other["spec"]["behavior"] = json!({"scaleDown": {"stabilizationWindowSeconds": 7}});
    assert_eq!(api.json(Method::PUT, &format!("{V2}/h"), other.clone()).await.0, 200);

    let (_, list) = api.json(Method::GET, V1, Value::Null).await;
    assert_eq!(list["apiVersion"], "autoscaling/v1");
    let mut shown = list["items"][0].clone();
    assert_eq!(shown["spec"]["targetCPUUtilizationPercentage"], 70);
    let behavior = "autoscaling.alpha.kubernetes.io/behavior";
    assert!(shown["metadata"]["annotations"][behavior].as_str().unwrap().contains(":7"));
    shown["spec"]["minReplicas"] = json!(2);
    let (code, written) = api.json(Method::PUT, &format!("{V1}/h"), shown).await;
    assert_eq!((code, &written["spec"]["minReplicas"]), (200, &json!(2)), "{written}");
    let (_, other) = api.json(Method::GET, &format!("{V2}/h"), Value::Null).await;
    assert_eq!(other["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"], 7);
    assert_eq!(other["metadata"].get("annotations"), None);

    let mut wrong = sent.clone();
    wrong["apiVersion"] = json!("autoscaling/v2");
    assert_eq!(api.json(Method::POST, V1, wrong).await.0, 400);
    let path = format!("{V1}?fieldValidation=Strict");
    let mut wrong = sent;
    wrong["spec"]["metrics"] = json!([]);
    let (code, answer) = api.json(Method::POST, &path, wrong).await;
    let want = "strict decoding error: unknown field \"spec.metrics\"";
    assert_eq!((code, &answer["message"]), (400, &json!(want)));
    assert_eq!(api.json(Method::DELETE, &format!("{V1}/h"), Value::Null).await.0, 200);
    assert_eq!(api.json(Method::GET, &format!("{V2}/h"), Value::Null).await.0, 404);
}

#[tokio::test]
async fn an_autoscaler_of_the_older_version_is_taken_in_protobuf() {
    let api = Api::new().await;
    // TypeMeta; then metadata, spec with target, maximum and utilization.
    let body = "k8s\0\n\x29\n\x0eautoscaling/v1\x12\x17HorizontalPodAutoscaler\
                \x12\x1c\n\x03\n\x01h\x12\x15\n\x0f\n\x0aDeployment\x12\x01d\x18\x03\x20\x32";
    let kind = "application/vnd.kubernetes.protobuf";
    let (code, created) = api.send(Method::POST, V1, kind, body).await;
    assert_eq!(
        (code, &created["spec"]["targetCPUUtilizationPercentage"]),
        (201, &json!(50)),
        "{created}"
    );
}

#[tokio::test]
async fn containers_are_added_to_a_pod_by_a_subresource_of_their_own() {
    // SUB-4
    let api = Api::new().await;
    assert_eq!(api.json(Method::POST, PODS, pod("p")).await.0, 201);
    let path = format!("{PODS}/p/ephemeralcontainers");
    let patch = r#"{"metadata": {"labels": {"x": "y"}}, "spec": {"nodeName": "n", "ephemeralContainers":
        [{"name": "d", "image": "i", "targetContainerName": "a", "resources": {}}]}}"#;
    let (code, patched) = api.send(Method::PATCH, &path, STRATEGIC, patch).await;
    assert_eq!(code, 200, "{patched}");
    let added = &patched["spec"]["ephemeralContainers"][0];
    assert_eq!((&added["name"], &added["imagePullPolicy"]), (&json!("d"), &json!("Always")));
    assert_eq!(
        (patched["spec"].get("nodeName"), &patched["metadata"]["generation"]),
        (None, &json!(2))
    );
    assert_eq!(patched["metadata"]["labels"], json!({"app": "p"}));
    let (_, mut read) = api.json(Method::GET, &path, Value::Null).await;
    assert_eq!(read["spec"], patched["spec"]);
    read["spec"]["ephemeralContainers"] = json!([]);
    let (code, answer) = api.json(Method::PUT, &path, read).await;
    let message = answer["message"].as_str().unwrap();
    assert_eq!(code, 422);
    assert!(
        message.contains("existing ephemeral containers \"d\" may not be removed"),
        "{message}"
    );
    let mut born = pod("q");
    born["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "i"}]);
    let (code, answer) = api.json(Method::POST, PODS, born).await;
    let want = "Pod \"q\" is invalid: spec.ephemeralContainers: Forbidden: cannot be set on create";
    assert_eq!((code, &answer["message"]), (422, &json!(want)));
}
