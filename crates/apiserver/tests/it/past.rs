//! Reads of what was: `?at=` and `?history=true`.

use crate::{Api, PODS, pod};
use http::Method;
use serde_json::{Value, json};
use store::Store as _;

async fn get(api: &Api, path: &str) -> (u16, Value) {
    api.json(Method::GET, path, Value::Null).await
}

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["metadata"]["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_list_of_an_earlier_moment_comes_whole_in_pages_and_by_selector() {
    let api = Api::new().await;
    for name in ["a", "b", "c"] {
        api.json(Method::POST, PODS, pod(name)).await;
    }
    let then = api.store.view().revision();
    api.json(Method::DELETE, &format!("{PODS}/b"), Value::Null).await;
    api.json(Method::POST, PODS, pod("d")).await;
    let (code, list) = get(&api, &format!("{PODS}?at={then}")).await;
    assert_eq!((code, names(&list)), (200, vec!["a", "b", "c"]));
    assert_eq!(list["metadata"]["resourceVersion"], then.to_string());
    let (_, list) = get(&api, &format!("{PODS}?at={then}&labelSelector=app%3Db")).await;
    assert_eq!(names(&list), ["b"]);
    let (_, page) = get(&api, &format!("{PODS}?at={then}&limit=2")).await;
    let next = page["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = get(&api, &format!("{PODS}?at={then}&limit=2&continue={next}")).await;
    assert_eq!((names(&page), names(&rest)), (vec!["a", "b"], vec!["c"]));
    let (_, now) = get(&api, &format!("{PODS}?at=0s")).await;
    assert_eq!(names(&now), ["a", "c", "d"]);
    let (_, before) = get(&api, &format!("{PODS}?at=1")).await;
    assert_eq!(names(&before), Vec::<&str>::new());
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_in_words() {
    let api = Api::new().await;
    api.json(Method::POST, PODS, pod("a")).await;
    api.compact().await;
    let newest = api.store.view().revision();
    for (query, code, want) in [
        ("at=soon", 400, "at: \"soon\" is no revision (1234), no RFC 3339 time"),
        ("at=1&watch=true", 400, "at or history and watch exclude each other"),
        ("at=1&resourceVersion=1", 400, "at or history and resourceVersion exclude each other"),
        (
            "at=99999",
            400,
            &format!("revision 99999 has not come yet: the newest is revision {newest}"),
        ),
        (
            "at=1",
            410,
            &format!(
                "revision 1 is not kept any more: history begins with revision {newest}, made at"
            ),
        ),
        ("at=1h", 410, "what there was at 2023-11-14T21:13:20Z is not kept any more"),
        ("at=2099-01-01T00:00:00Z", 400, "2099-01-01T00:00:00Z has not come yet: it is"),
        ("history=true", 400, "history is of one object: name it"),
    ] {
        let (found, status) = get(&api, &format!("{PODS}?{query}")).await;
        let message = status["message"].as_str().unwrap_or_default();
        assert_eq!(found, code, "{query}: {status}");
        assert!(message.starts_with(want), "{query}: {message}");
    }
    let (_, gone) = get(&api, &format!("{PODS}?at=1")).await;
    assert_eq!(gone["details"]["oldestRevision"], newest.get(), "{gone}");
    let (code, _) = get(&api, &format!("{PODS}/a?at=1&history=true")).await;
    assert_eq!(code, 400);
    let (code, _) = get(&api, &format!("{PODS}/a/log?at=1")).await;
    assert_eq!(code, 400);
}

#[tokio::test]
async fn a_history_has_every_version_with_its_deletion() {
    let api = Api::new().await;
    api.json(Method::POST, PODS, pod("a")).await;
    let path = format!("{PODS}/a");
    let label = r#"{"metadata":{"labels":{"b":"c"}}}"#;
    api.send(Method::PATCH, &path, "application/merge-patch+json", label).await;
    api.json(Method::DELETE, &path, Value::Null).await;
    let newest = api.store.view().revision().get();
    let (code, history) = get(&api, &format!("{path}?history=true")).await;
    assert_eq!((code, &history["kind"]), (200, &json!("ObjectHistory")));
    let told: Vec<(Value, Value, Value)> = history["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| (v["revision"].clone(), v["created"].clone(), v["deleted"].clone()))
        .collect();
    let version = |back: u64, created: bool, deleted: bool| {
        (json!((newest - back).to_string()), json!(created), json!(deleted))
    };
    assert_eq!(told, [version(2, true, false), version(1, false, false), version(0, false, true)]);
    assert_eq!(history["versions"][1]["object"]["metadata"]["labels"]["b"], "c");
    assert_eq!(history["versions"][2]["object"], Value::Null);
    assert_eq!(history["versions"][2]["time"], "2023-11-14T22:13:20Z");
    let (_, last) = get(&api, &format!("{path}?history=true&limit=1")).await;
    assert_eq!((last["versions"].as_array().unwrap().len(), &last["leftOut"]), (1, &json!(2)));
    let (code, none) = get(&api, &format!("{PODS}/never?history=true")).await;
    assert_eq!(code, 404);
    let message = none["message"].as_str().unwrap();
    assert!(
        message.starts_with("pods \"never\" not found, nor any trace of it since"),
        "{message}"
    );
}
