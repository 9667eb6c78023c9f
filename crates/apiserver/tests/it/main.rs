//! The API over a store without raft, through the same door that the controllers use.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a panic in a test is its failure"
)]

use api::{caller::ControllerOrigin, core::Pod};
use apiserver::{ApiServer, Body, Config};
use bytes::Bytes;
use client::{Client, ClientError, ListOptions, WatchEvent, WatchOptions};
use futures::StreamExt as _;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use store::{Epoch, Op, Origin, Proposal, RequestId, Store as _, Timestamp, local::LocalStore};
use tower::ServiceExt as _;

mod node;
mod relay;

struct Api {
    server: ApiServer,
    store: Arc<LocalStore>,
}

impl Api {
    async fn new() -> Self {
        let clock = || Arc::new(|| Timestamp(1_700_000_000_000_000));
        let store = Arc::new(LocalStore::new(clock()));
        store.begin_epoch(Epoch(1));
        let config = Config {
            name: "test".to_owned(),
            endpoints: Vec::new(),
            service_prefix: [10, 96],
            pod_prefix: [10, 244],
            node_silence: Duration::from_secs(50),
        };
        let as_store = Arc::clone(&store) as Arc<dyn store::Store>;
        let as_cluster = Arc::clone(&store) as Arc<dyn store::Cluster>;
        let server = ApiServer::new(as_store, as_cluster, config, clock());
        server.ensure_defaults().await.unwrap();
        Self { server, store }
    }

    /// Forgets every revision before the newest one.
    async fn compact(&self) {
        let proposal = Proposal {
            request: RequestId { client: 1, sequence: self.store.view().revision().get() },
            origin: Origin::Client,
            op: Op::Compact { revision: self.store.view().revision() },
        };
        self.store.propose(proposal, Duration::from_secs(1)).await.unwrap().outcome.unwrap();
    }

    async fn send(&self, method: Method, path: &str, kind: &str, body: &str) -> (u16, Value) {
        let body: Body =
            Full::new(Bytes::from(body.to_owned())).map_err(|n| match n {}).boxed_unsync();
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let answer = self.server.door().oneshot(request.body(body).unwrap()).await.unwrap();
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn json(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        self.send(method, path, "application/json", &body.to_string()).await
    }

    fn client(&self, epoch: Option<u64>) -> Client {
        let identity = api::caller::Identity { user: "test".to_owned(), groups: Vec::new() };
        let origin = epoch.map(|epoch| ControllerOrigin { epoch });
        Client::in_process(self.server.door(), identity, origin)
    }
}

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "a", "image": "toolbox"}]},
    })
}

#[tokio::test]
async fn an_object_is_created_once_and_a_write_that_changes_nothing_is_none() {
    // CC-1, CC-4, MET-1
    let api = Api::new().await;
    let (code, created) = api.json(Method::POST, PODS, pod("p")).await;
    assert_eq!((code, &created["status"]["phase"]), (201, &json!("Pending")));
    assert_eq!(created["metadata"]["generation"], 1);
    let (code, status) = api.json(Method::POST, PODS, pod("p")).await;
    assert_eq!((code, &status["message"]), (409, &json!("pods \"p\" already exists")));

    let path = format!("{PODS}/p");
    let before = api.store.view().revision();
    let (code, same) = api.json(Method::PUT, &path, created.clone()).await;
    assert_eq!((code, &same["metadata"]), (200, &created["metadata"]));
    assert_eq!(api.store.view().revision(), before, "no revision, no event");

    let merge = "application/merge-patch+json";
    let (code, patched) =
        api.send(Method::PATCH, &path, merge, r#"{"metadata":{"labels":{"b":"c"}}}"#).await;
    assert_eq!((code, &patched["metadata"]["labels"]["b"]), (200, &json!("c")));
    let (code, status) = api.json(Method::PUT, &path, created).await;
    assert_eq!(code, 409);
    assert!(status["message"].as_str().unwrap().contains("the object has been modified"));
}

#[tokio::test]
async fn a_refused_request_leaves_no_trace() {
    // S17
    let api = Api::new().await;
    api.json(Method::POST, PODS, pod("p")).await;
    let before = (api.store.view().revision(), api.store.view().hash());
    let no_image = json!({"metadata": {"name": "q"}, "spec": {"containers": [{"name": "a"}]}});
    let typed = json!({"metadata": {"name": "q"}, "spec": {"containers": "x"}});
    for (method, path, body, want) in [
        (Method::POST, PODS.to_owned(), no_image, 422),
        (Method::POST, PODS.to_owned(), typed, 400),
        (Method::POST, PODS.to_owned(), pod("p"), 409),
        (Method::POST, PODS.to_owned(), json!([]), 400),
        (Method::POST, PODS.to_owned(), json!({"kind": "Node"}), 400),
        (Method::POST, "/api/v1/namespaces/none/pods".to_owned(), pod("q"), 404),
        (
            Method::POST,
            format!("{PODS}?fieldValidation=Strict"),
            json!({"metadata": {"name": "q"}, "spec": {"foo": 1, "containers": [{"name": "a", "image": "b"}]}}),
            400,
        ),
        (Method::POST, format!("{PODS}?dryRun=All"), pod("q"), 201),
        (Method::PUT, format!("{PODS}/q"), pod("q"), 404),
        (Method::PUT, format!("{PODS}/p"), pod("q"), 400),
        (Method::DELETE, format!("{PODS}/q"), Value::Null, 404),
        (Method::DELETE, format!("{PODS}/p"), json!({"preconditions": {"uid": "other"}}), 409),
        (Method::GET, format!("{PODS}?fieldSelector=spec.color=red"), Value::Null, 400),
        (Method::GET, format!("{PODS}?labelSelector=a%20b%20c"), Value::Null, 400),
        (Method::GET, format!("{PODS}?resourceVersionMatch=Exact"), Value::Null, 422),
        (Method::GET, "/api/v1/nothing".to_owned(), Value::Null, 404),
        (Method::POST, format!("{PODS}/p/binding"), json!({"target": {"name": "none"}}), 404),
        (Method::PATCH, format!("{PODS}/p"), json!({}), 415),
    ] {
        let (code, answer) = api.json(method.clone(), &path, body).await;
        assert_eq!(code, want, "{method} {path}: {answer}");
        let now = (api.store.view().revision(), api.store.view().hash());
        assert_eq!(now, before, "{method} {path}");
    }
    let (code, status) =
        api.send(Method::POST, PODS, "application/yaml", "metadata:\n  name: [\n").await;
    assert_eq!(code, 400);
    assert!(status["message"].as_str().unwrap().contains("line"), "{status}");
}

async fn with_node(api: &Api) {
    let node = json!({"metadata": {"name": "n"}});
    assert_eq!(api.json(Method::POST, "/api/v1/nodes", node).await.0, 201);
}

#[tokio::test]
async fn of_many_binders_one_wins() {
    // S23, FEN-11
    let api = Api::new().await;
    with_node(&api).await;
    let (_, created) = api.json(Method::POST, PODS, pod("p")).await;
    let uid = created["metadata"]["uid"].as_str().unwrap();
    let client = api.client(None);
    let tries = (0..50).map(|_| client.bind("default", "p", uid, None, "n"));
    let results = futures::future::join_all(tries).await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    let lost = results.into_iter().find_map(Result::err).unwrap();
    let ClientError::Api(status) = lost else { panic!("{lost}") };
    assert_eq!(status.code, 409);
    assert!(status.message.contains("pod p is already assigned to node \"n\""), "{status}");
    let bound: Pod = client.get(Some("default"), "p").await.unwrap();
    assert_eq!(bound.spec.unwrap().node_name.as_deref(), Some("n"));
    let other = client.bind("default", "p", "another-uid", None, "n").await.unwrap_err();
    assert!(other.to_string().contains("UID in precondition"), "{other}");
}

#[tokio::test]
async fn a_controller_of_an_earlier_epoch_changes_nothing() {
    // FEN-6
    let api = Api::new().await;
    with_node(&api).await;
    let (_, created) = api.json(Method::POST, PODS, pod("p")).await;
    let uid = created["metadata"]["uid"].as_str().unwrap();
    api.store.begin_epoch(Epoch(2));
    let stale = api.client(Some(1)).bind("default", "p", uid, None, "n").await;
    assert!(matches!(&stale, Err(ClientError::Api(s)) if s.code == 409), "{stale:?}");
    api.client(Some(2)).bind("default", "p", uid, None, "n").await.unwrap();
}

#[tokio::test]
async fn deletion_marks_a_bound_pod_and_removes_an_unbound_one() {
    // DELAPI-1, S30, DEL-1
    let api = Api::new().await;
    with_node(&api).await;
    let (_, created) = api.json(Method::POST, PODS, pod("p")).await;
    let uid = created["metadata"]["uid"].as_str().unwrap();
    api.client(None).bind("default", "p", uid, None, "n").await.unwrap();
    let path = format!("{PODS}/p");
    let (code, marked) = api.json(Method::DELETE, &path, Value::Null).await;
    assert_eq!((code, &marked["metadata"]["deletionGracePeriodSeconds"]), (200, &json!(30)));
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2023-11-14T22:13:50Z");
    let (code, shorter) = api.json(Method::DELETE, &path, json!({"gracePeriodSeconds": 0})).await;
    assert_eq!((code, &shorter["kind"]), (200, &json!("Pod")));
    assert_eq!(api.json(Method::GET, &path, Value::Null).await.0, 404);

    api.json(Method::POST, PODS, pod("q")).await;
    assert_eq!(api.json(Method::DELETE, &format!("{PODS}/q"), Value::Null).await.0, 200);
    assert_eq!(api.json(Method::GET, &format!("{PODS}/q"), Value::Null).await.0, 404);
}

#[tokio::test]
async fn pages_of_a_list_are_of_one_moment() {
    // LST-1, LST-2
    let api = Api::new().await;
    for i in 0..7 {
        api.json(Method::POST, PODS, pod(&format!("p{i}"))).await;
    }
    let client = api.client(None);
    let mut options = ListOptions { limit: 3, ..ListOptions::default() };
    let mut names = Vec::new();
    let mut revisions = Vec::new();
    loop {
        let page = client.list::<Pod>(Some("default"), &options).await.unwrap();
        names.extend(page.items.into_iter().filter_map(|p| p.metadata.name));
        revisions.push(page.resource_version);
        // Gone in between, and still of the moment of the first page.
        let _ = api.json(Method::DELETE, &format!("{PODS}/p6"), Value::Null).await;
        options.continue_token = page.continue_token;
        if options.continue_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["p0", "p1", "p2", "p3", "p4", "p5", "p6"]);
    revisions.dedup();
    assert_eq!(revisions.len(), 1);
}

#[tokio::test]
async fn a_watch_with_a_selector_sees_what_enters_and_what_leaves() {
    // WCH-3
    let api = Api::new().await;
    let client = api.client(None);
    let first = client.list::<Pod>(None, &ListOptions::default()).await.unwrap();
    let options = WatchOptions {
        label_selector: "on=yes".to_owned(),
        resource_version: first.resource_version,
        ..WatchOptions::default()
    };
    let mut events = client.watch::<Pod>(None, &options).await.unwrap();
    api.json(Method::POST, PODS, pod("p")).await;
    let path = format!("{PODS}/p");
    let label = async |text: &str| {
        let body = format!(r#"{{"metadata":{{"labels":{{{text}}}}}}}"#);
        api.send(Method::PATCH, &path, "application/merge-patch+json", &body).await
    };
    label(r#""on":"yes""#).await;
    label(r#""x":"y""#).await;
    let (_, last) = label(r#""on":"no""#).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = tokio::time::timeout(Duration::from_secs(5), events.next()).await;
        seen.push(match event.unwrap().unwrap().unwrap() {
            WatchEvent::Added(_) => "added".to_owned(),
            WatchEvent::Modified(_) => "modified".to_owned(),
            WatchEvent::Deleted(pod) => {
                // What was before, at the revision of the change.
                assert_eq!(pod.metadata.labels.unwrap()["on"], "yes");
                format!("deleted {}", pod.metadata.resource_version.unwrap())
            }
            WatchEvent::Bookmark(_) => "bookmark".to_owned(),
        });
    }
    let version = last["metadata"]["resourceVersion"].as_str().unwrap();
    assert_eq!(seen, ["added", "modified", &format!("deleted {version}")]);
}

#[tokio::test]
async fn two_services_never_share_an_address() {
    let api = Api::new().await;
    let path = "/api/v1/namespaces/default/services";
    let service =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    let (_, a) = api.json(Method::POST, path, service("a")).await;
    let ip = a["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(ip.starts_with("10.96."), "{ip}");
    let mut same = service("b");
    same["spec"]["clusterIP"] = json!(ip);
    assert_eq!(api.json(Method::POST, path, same.clone()).await.0, 422);
    assert_eq!(api.json(Method::DELETE, &format!("{path}/a"), Value::Null).await.0, 200);
    assert_eq!(api.json(Method::POST, path, same).await.0, 201, "free again");
}
