//! Events in both of their forms.

use super::Api;
use http::Method;
use serde_json::{Value, json};

const OLDER: &str = "/api/v1/namespaces/default/events";
const NEWER: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

#[tokio::test]
async fn an_event_is_written_in_one_form_and_read_in_the_other() {
    // EVT-1
    let api = Api::new().await;
    let newer = json!({
        "metadata": {"name": "newer"}, "eventTime": "2026-11-28T12:00:00.000000Z",
        "reportingController": "example.com/c", "reportingInstance": "c-1", "action": "Looking",
        "reason": "Looked", "note": "all is well", "type": "Normal",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
    });
    let (code, made) = api.json(Method::POST, NEWER, newer).await;
    assert_eq!((code, &made["apiVersion"]), (201, &json!("events.k8s.io/v1")), "{made}");
    let older = json!({
        "metadata": {"name": "older"}, "reason": "Seen", "message": "in words", "type": "Warning",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "source": {"component": "kubelet"},
    });
    assert_eq!(api.json(Method::POST, OLDER, older).await.0, 201);

    let (_, event) = api.json(Method::GET, &format!("{OLDER}/newer"), Value::Null).await;
    assert_eq!(event["apiVersion"], "v1");
    assert_eq!((&event["message"], &event["note"]), (&json!("all is well"), &Value::Null));
    assert_eq!(event["involvedObject"]["name"], "p");
    assert_eq!(event["reportingComponent"], "example.com/c");
    assert_eq!(event["metadata"]["uid"], made["metadata"]["uid"]);
    let (_, event) = api.json(Method::GET, &format!("{NEWER}/older"), Value::Null).await;
    assert_eq!((&event["note"], &event["message"]), (&json!("in words"), &Value::Null));
    assert_eq!(event["deprecatedSource"]["component"], "kubelet");

    // A recorder counts what it says again.
    let series = json!({"series": {
        "count": 2, "lastObservedTime": "2026-11-28T12:00:09.000000Z"}});
    let merge = "application/merge-patch+json";
    let path = format!("{NEWER}/newer");
    let (code, event) = api.send(Method::PATCH, &path, merge, &series.to_string()).await;
    assert_eq!((code, &event["series"]["count"]), (200, &json!(2)), "{event}");
    assert_eq!(event["regarding"]["name"], "p");

    for (path, want) in [
        (format!("{OLDER}?fieldSelector=involvedObject.name=p"), 2),
        (format!("{OLDER}?fieldSelector=reason=Looked"), 1),
        (format!("{NEWER}?fieldSelector=regarding.name=p,reportingController=example.com/c"), 1),
        (NEWER.to_owned(), 2),
    ] {
        let (code, list) = api.json(Method::GET, &path, Value::Null).await;
        assert_eq!((code, list["items"].as_array().map(Vec::len)), (200, Some(want)), "{path}");
    }
    let (code, said) = api.json(Method::POST, NEWER, json!({"metadata": {"name": "less"}})).await;
    assert_eq!(code, 422);
    let message = said["message"].as_str().unwrap();
    assert!(
        message.starts_with("Event.events.k8s.io \"less\" is invalid: [eventTime"),
        "{message}"
    );
    assert_eq!(api.json(Method::DELETE, &format!("{NEWER}/older"), Value::Null).await.0, 200);
    assert_eq!(api.json(Method::GET, &format!("{OLDER}/older"), Value::Null).await.0, 404);
}
