//! Custom resources through the door: every verb, as for a built-in kind.

use super::Api;
use futures::StreamExt as _;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use std::time::Duration;
use tower::ServiceExt as _;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["color"], "properties": {
            "color": {"type": "string", "enum": ["red", "blue"]},
            "replicas": {"type": "integer", "default": 1, "minimum": 0},
            "ports": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "port": {"type": "integer", "default": 80},
                }},
            },
        }},
        "status": {"type": "object", "properties": {
            "replicas": {"type": "integer"}, "phase": {"type": "string"},
        }},
    }});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [
                {
                    "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}, "scale": {
                        "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                    "selectableFields": [{"jsonPath": ".spec.color"}],
                    "additionalPrinterColumns": [
                        {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
                    ],
                },
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                 "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                     "spec": {"type": "object", "properties": {"color": {"type": "string"}}},
                     "status": {"type": "object", "properties": {"phase": {"type": "string"}}}}}},
                 "subresources": {"status": {}}},
                {"name": "v1alpha1", "served": false, "storage": false,
                 "schema": {"openAPIV3Schema": schema}},
            ],
        },
    })
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

/// What the controller would do.
async fn establish(api: &Api, name: &str) {
    let (_, found) = api.json(Method::GET, &format!("{DEFINITIONS}/{name}"), Value::Null).await;
    let status = json!({"status": {
        "acceptedNames": found["spec"]["names"],
        "conditions": [{"type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": ""}],
    }});
    let path = format!("{DEFINITIONS}/{name}/status");
    let (code, said) = api.send(Method::PATCH, &path, MERGE, &status.to_string()).await;
    assert_eq!(code, 200, "{said}");
}

async fn with_widgets() -> Api {
    let api = Api::new().await;
    let (code, said) = api.json(Method::POST, DEFINITIONS, definition()).await;
    assert_eq!(code, 201, "{said}");
    establish(&api, "widgets.example.com").await;
    api
}

async fn raw(api: &Api, path: &str, accept: &str) -> (u16, http::HeaderMap, Value) {
    let body: apiserver::Body = Full::default().map_err(|n| match n {}).boxed_unsync();
    let request = Request::builder().uri(path).header("accept", accept).body(body).unwrap();
    let answer = api.server.door().oneshot(request).await.unwrap();
    let headers = answer.headers().clone();
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (code, headers, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn a_kind_is_served_from_the_moment_that_its_definition_is_established() {
    let api = Api::new().await;
    assert_eq!(api.json(Method::GET, WIDGETS, Value::Null).await.0, 404);
    api.json(Method::POST, DEFINITIONS, definition()).await;
    assert_eq!(api.json(Method::GET, WIDGETS, Value::Null).await.0, 404, "not established");
    let all = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (_, before, _) = raw(&api, "/apis", all).await;
    establish(&api, "widgets.example.com").await;
    let (code, list) = api.json(Method::GET, WIDGETS, Value::Null).await;
    assert_eq!((code, &list["kind"]), (200, &json!("WidgetList")));

    let (_, after, found) = raw(&api, "/apis", all).await;
    assert_ne!(before.get("etag").unwrap(), after.get("etag").unwrap(), "another tag");
    let items = found["items"].as_array().unwrap();
    let group = items.iter().find(|g| g["metadata"]["name"] == "example.com").unwrap();
    let versions: Vec<_> =
        group["versions"].as_array().unwrap().iter().map(|v| &v["version"]).collect();
    assert_eq!(versions, ["v1", "v1beta1"], "the one that is not served is not found");
    let resource = &group["versions"][0]["resources"][0];
    assert_eq!(
        (&resource["shortNames"], &resource["categories"]),
        (&json!(["wd"]), &json!(["all"]))
    );
    let (code, plain) = api.json(Method::GET, "/apis/example.com/v1", Value::Null).await;
    assert_eq!((code, &plain["resources"][1]["name"]), (200, &json!("widgets/status")));
    let (_, group) = api.json(Method::GET, "/apis/example.com", Value::Null).await;
    assert_eq!(group["preferredVersion"]["version"], "v1");
    assert_eq!(api.json(Method::GET, "/apis/example.com/v1alpha1", Value::Null).await.0, 404);

    let (_, index) = api.json(Method::GET, "/openapi/v3", Value::Null).await;
    let place = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().unwrap();
    let (code, document) = api.json(Method::GET, place, Value::Null).await;
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!((code, &schema["properties"]["spec"]["type"]), (200, &json!("object")));
    assert!(index["paths"].get("apis/apps/v1").is_some());
}

#[tokio::test]
async fn every_verb_works_as_for_a_built_in_kind() {
    let api = with_widgets().await;
    let (code, created) = api
        .json(Method::POST, WIDGETS, widget("w", json!({"color": "red", "ports": [{"name": "a"}]})))
        .await;
    assert_eq!(code, 201, "{created}");
    assert_eq!(created["spec"]["replicas"], 1, "defaulted");
    assert_eq!(created["spec"]["ports"][0]["port"], 80);
    assert_eq!(created["metadata"]["generation"], 1);
    let path = format!("{WIDGETS}/w");

    let (code, patched) = api
        .send(Method::PATCH, &path, MERGE, r#"{"spec":{"color":"blue"},"status":{"phase":"x"}}"#)
        .await;
    assert_eq!((code, &patched["metadata"]["generation"]), (200, &json!(2)));
    assert_eq!(patched.get("status"), None, "only through its door");
    let json_patch = r#"[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]"#;
    let (code, labelled) =
        api.send(Method::PATCH, &path, "application/json-patch+json", json_patch).await;
    assert_eq!(
        (code, &labelled["metadata"]["generation"]),
        (200, &json!(2)),
        "no change of the spec"
    );
    let strategic = "application/strategic-merge-patch+json";
    let (code, said) = api.send(Method::PATCH, &path, strategic, "{}").await;
    assert_eq!(code, 415, "PAT-1: {said}");

    let (code, said) = api
        .send(
            Method::PATCH,
            &format!("{path}/status"),
            MERGE,
            r#"{"status":{"phase":"Up","replicas":4,"typo":1},"spec":{"color":"red"}}"#,
        )
        .await;
    assert_eq!((code, &said["status"]), (200, &json!({"phase": "Up", "replicas": 4})));
    assert_eq!(
        (&said["spec"]["color"], &said["metadata"]["generation"]),
        (&json!("blue"), &json!(2))
    );

    let (code, scale) = api.json(Method::GET, &format!("{path}/scale"), Value::Null).await;
    assert_eq!(
        (code, &scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (200, &json!(1), &json!(4))
    );
    let (code, _) = api
        .send(Method::PATCH, &format!("{path}/scale"), MERGE, r#"{"spec":{"replicas":3}}"#)
        .await;
    assert_eq!(code, 200);
    let (_, now) = api.json(Method::GET, &path, Value::Null).await;
    assert_eq!((&now["spec"]["replicas"], &now["metadata"]["generation"]), (&json!(3), &json!(3)));

    let mut stale = created.clone();
    stale["spec"]["color"] = json!("red");
    assert_eq!(api.json(Method::PUT, &path, stale).await.0, 409);
    let mut fresh = now.clone();
    fresh["spec"]["color"] = json!("red");
    assert_eq!(api.json(Method::PUT, &path, fresh).await.0, 200);
    let mut unversioned = now;
    unversioned["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(api.json(Method::PUT, &path, unversioned).await.0, 422, "CC-2");

    let (_, red) = api
        .json(Method::GET, &format!("{WIDGETS}?fieldSelector=spec.color=red"), Value::Null)
        .await;
    let (_, blue) = api
        .json(Method::GET, &format!("{WIDGETS}?fieldSelector=spec.color=blue"), Value::Null)
        .await;
    let count = |list: &Value| list["items"].as_array().unwrap().len();
    assert_eq!((count(&red), count(&blue)), (1, 0));
    assert_eq!(
        api.json(Method::GET, &format!("{WIDGETS}?fieldSelector=spec.size=1"), Value::Null).await.0,
        400
    );

    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let (_, _, table) = raw(&api, &path, table).await;
    assert_eq!(table["columnDefinitions"][1]["name"], "Color");
    assert_eq!(table["rows"][0]["cells"], json!(["w", "red"]));

    let (code, gone) = api.json(Method::DELETE, &path, Value::Null).await;
    assert_eq!((code, &gone["status"]), (200, &json!("Success")));
    assert_eq!(api.json(Method::GET, &path, Value::Null).await.0, 404);
}

#[tokio::test]
async fn wrong_objects_are_refused_and_unknown_fields_reported() {
    // HTTP-2, VAL-5
    let api = with_widgets().await;
    let (code, said) = api
        .json(Method::POST, WIDGETS, widget("w", json!({"color": "green", "replicas": -1})))
        .await;
    assert_eq!(code, 422);
    assert_eq!(
        said["message"],
        "Widget.example.com \"w\" is invalid: [spec.color: Unsupported value: \"green\": supported values: \
         \"red\", \"blue\", spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or \
         equal to 0]"
    );
    let typo = widget("w", json!({"color": "red", "colour": 1}));
    let (code, said) =
        api.json(Method::POST, &format!("{WIDGETS}?fieldValidation=Strict"), typo.clone()).await;
    assert_eq!(
        (code, &said["message"]),
        (400, &json!("strict decoding error: unknown field \"spec.colour\""))
    );
    let (code, created) = api.json(Method::POST, WIDGETS, typo).await;
    assert_eq!(code, 201);
    assert_eq!(created["spec"], json!({"color": "red", "replicas": 1}), "pruned");
    let labels = json!({"metadata": {"name": "x", "labels": {"a": 1}}, "spec": {"color": "red"}});
    assert_eq!(api.json(Method::POST, WIDGETS, labels).await.0, 400);
    assert_eq!(api.json(Method::POST, WIDGETS, json!([])).await.0, 400);
}

#[tokio::test]
async fn objects_are_the_same_in_every_version_and_stored_in_one() {
    let api = with_widgets().await;
    let beta = WIDGETS.replace("/v1/", "/v1beta1/");
    let mut object = widget("w", json!({"color": "red"}));
    object["apiVersion"] = json!("example.com/v1beta1");
    let (code, created) = api.json(Method::POST, &beta, object).await;
    assert_eq!((code, &created["apiVersion"]), (201, &json!("example.com/v1beta1")));
    let (_, read) = api.json(Method::GET, &format!("{WIDGETS}/w"), Value::Null).await;
    assert_eq!(
        (&read["apiVersion"], &read["spec"]["color"]),
        (&json!("example.com/v1"), &json!("red"))
    );
    let stored = || {
        let key = b"/registry/example.com/widgets/default/w";
        let kv = store::Store::view(&*api.store).get(key).unwrap();
        serde_json::from_slice::<Value>(&kv.value).unwrap()["apiVersion"].clone()
    };
    assert_eq!(stored(), "example.com/v1");
    // A status in a version that knows less of the spec takes nothing away from it.
    api.send(Method::PATCH, &format!("{WIDGETS}/w"), MERGE, r#"{"spec":{"replicas":7}}"#).await;
    let status = r#"{"status":{"phase":"Up"}}"#;
    let (code, said) = api.send(Method::PATCH, &format!("{beta}/w/status"), MERGE, status).await;
    assert_eq!((code, &said["status"]["phase"]), (200, &json!("Up")), "{said}");
    let (_, read) = api.json(Method::GET, &format!("{WIDGETS}/w"), Value::Null).await;
    assert_eq!((&read["spec"]["replicas"], &read["status"]["phase"]), (&json!(7), &json!("Up")));
    let (_, less) = api.json(Method::GET, &format!("{beta}/w"), Value::Null).await;
    assert_eq!(less["apiVersion"], "example.com/v1beta1");
    for (path, one) in [(WIDGETS, &read), (beta.as_str(), &less)] {
        let (_, list) = api.json(Method::GET, path, Value::Null).await;
        assert_eq!(list["items"], json!([one]), "{path}");
    }

    // Whoever asks in a deprecated version is told.
    let warning = |headers: &http::HeaderMap| headers.get("warning").cloned();
    let (_, headers, _) = raw(&api, &format!("{beta}/w"), "*/*").await;
    assert_eq!(warning(&headers).unwrap(), "299 - \"example.com/v1beta1 Widget is deprecated\"");
    let (_, headers, _) = raw(&api, &format!("{WIDGETS}/w"), "*/*").await;
    assert_eq!(warning(&headers), None);

    // Another version is stored from the next write on, even if that changes nothing else.
    let mut versions = definition()["spec"]["versions"].clone();
    versions[0]["storage"] = json!(false);
    versions[2]["storage"] = json!(true);
    let patch = json!({"spec": {"versions": versions}}).to_string();
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let (code, changed) = api.send(Method::PATCH, &path, MERGE, &patch).await;
    assert_eq!(code, 200, "{changed}");
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v1alpha1"]));
    assert_eq!(stored(), "example.com/v1");
    let (_, same) = api.json(Method::GET, &format!("{WIDGETS}/w"), Value::Null).await;
    assert_eq!(api.json(Method::PUT, &format!("{WIDGETS}/w"), same).await.0, 200);
    assert_eq!(stored(), "example.com/v1alpha1");
    let (code, _) = api.json(Method::POST, WIDGETS, json!({"apiVersion": "example.com/v1beta1", "metadata": {"name": "x"}, "spec": {"color": "red"}})).await;
    assert_eq!(code, 400, "of another version than the URL's");
}

#[tokio::test]
async fn appliers_share_an_object_by_its_schema() {
    // PAT-3
    let api = with_widgets().await;
    let path =
        |manager: &str, force: bool| format!("{WIDGETS}/w?fieldManager={manager}&force={force}");
    let of = |port: &str, number: u64| {
        widget("w", json!({"color": "red", "ports": [{"name": port, "port": number}]})).to_string()
    };
    let (code, said) = api.send(Method::PATCH, &path("one", false), APPLY, &of("a", 1)).await;
    assert_eq!(code, 201, "{said}");
    let (code, both) = api.send(Method::PATCH, &path("two", false), APPLY, &of("b", 2)).await;
    assert_eq!(code, 200, "{both}");
    let ports: Vec<_> =
        both["spec"]["ports"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
    assert_eq!(ports, ["a", "b"], "items are told apart by their key");
    let blue = widget("w", json!({"color": "blue"})).to_string();
    let (code, said) = api.send(Method::PATCH, &path("two", false), APPLY, &blue).await;
    assert_eq!(code, 409);
    assert_eq!(said["message"], "Apply failed with 1 conflict: conflict with \"one\": .spec.color");
    let (code, forced) = api.send(Method::PATCH, &path("two", true), APPLY, &blue).await;
    assert_eq!((code, &forced["spec"]["color"]), (200, &json!("blue")));
    let ports: Vec<_> =
        forced["spec"]["ports"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
    assert_eq!(ports, ["a"], "what two applied no longer is gone");
    let typo = widget("w", json!({"color": "red", "typo": 1})).to_string();
    let (code, said) = api.send(Method::PATCH, &path("one", true), APPLY, &typo).await;
    assert_eq!(code, 400);
    assert!(said["message"].as_str().unwrap().contains(".spec.typo: field not declared in schema"));
}

#[tokio::test]
async fn a_watch_follows_objects_and_ends_with_the_definition() {
    let api = with_widgets().await;
    let client = api.client(None);
    let path = format!("{WIDGETS}?watch=1");
    let request = Request::builder().uri(&path).body(bytes::Bytes::new()).unwrap();
    let answer = client.request(request).await.unwrap();
    let mut lines = answer.into_body().into_data_stream();
    api.json(Method::POST, WIDGETS, widget("w", json!({"color": "red"}))).await;
    let first = lines.next().await.unwrap().unwrap();
    let event: Value = serde_json::from_slice(&first).unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["metadata"]["name"]),
        (&json!("ADDED"), &json!("w"))
    );
    // A change of conditions is none of the kind.
    establish(&api, "widgets.example.com").await;
    let (_, mut found) =
        api.json(Method::GET, &format!("{DEFINITIONS}/widgets.example.com"), Value::Null).await;
    api.json(Method::DELETE, &format!("{WIDGETS}/w"), Value::Null).await;
    found["spec"]["versions"][0]["additionalPrinterColumns"] = json!([]);
    found["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let columns = json!({"spec": {"versions": found["spec"]["versions"]}}).to_string();
    let (code, said) = api
        .send(Method::PATCH, &format!("{DEFINITIONS}/widgets.example.com"), MERGE, &columns)
        .await;
    assert_eq!(code, 200, "{said}");
    let rest = tokio::time::timeout(Duration::from_secs(5), async {
        let mut rest = Vec::new();
        while let Some(Ok(bytes)) = lines.next().await {
            rest.extend_from_slice(&bytes);
        }
        rest
    });
    let rest = String::from_utf8(rest.await.expect("it ends")).unwrap();
    assert!(rest.contains("\"DELETED\""), "what came before is told: {rest:?}");
}

#[tokio::test]
async fn nothing_is_written_under_a_definition_that_is_another_by_then() {
    let api = with_widgets().await;
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let (code, marked) = api.json(Method::DELETE, &path, Value::Null).await;
    assert_eq!(code, 200);
    assert_eq!(
        marked["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"])
    );
    let (code, said) = api.json(Method::POST, WIDGETS, widget("w", json!({"color": "red"}))).await;
    assert_eq!(code, 405, "{said}");
    assert_eq!(api.json(Method::GET, WIDGETS, Value::Null).await.0, 200, "the rest goes on");
    let (code, _) =
        api.send(Method::PATCH, &path, MERGE, r#"{"metadata":{"finalizers":null}}"#).await;
    assert_eq!(code, 200);
    assert_eq!(api.json(Method::GET, WIDGETS, Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_built_in_name_in_another_group_is_no_built_in_kind() {
    let api = Api::new().await;
    let mut services = definition();
    services["metadata"]["name"] = json!("services.example.com");
    services["spec"]["names"] = json!({"plural": "services", "kind": "Service"});
    assert_eq!(api.json(Method::POST, DEFINITIONS, services).await.0, 201);
    establish(&api, "services.example.com").await;
    let path = WIDGETS.replace("widgets", "services");
    let object = json!({"metadata": {"name": "s"}, "spec": {"color": "red"}});
    let (code, created) = api.json(Method::POST, &path, object).await;
    assert_eq!((code, &created["spec"]), (201, &json!({"color": "red", "replicas": 1})));
}
