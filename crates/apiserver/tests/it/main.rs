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
use store::{
    Alarm, AlarmKind, Epoch, Op, Origin, Proposal, RequestId, Store as _, Timestamp,
    local::LocalStore,
};
use tower::ServiceExt as _;

mod access;
mod admission;
mod audit;
mod bodies;
mod custom;
mod events;
mod flow;
mod fuzz;
mod kubectl;
mod lists;
mod node;
mod past;
mod pki;
mod relay;
mod sessions;
mod stale;
mod tls;
mod watches;
mod workloads;

struct Api {
    server: ApiServer,
    store: Arc<LocalStore>,
}

impl Api {
    async fn new() -> Self {
        Self::with(apiserver::AccessConfig::default(), apiserver::Pki::default()).await
    }

    async fn with(access: apiserver::AccessConfig, pki: apiserver::Pki) -> Self {
        Self::made(access, pki, apiserver::Limits::default()).await
    }

    async fn made(
        access: apiserver::AccessConfig,
        pki: apiserver::Pki,
        limits: apiserver::Limits,
    ) -> Self {
        let store = Arc::new(LocalStore::new(Self::clock()));
        store.begin_epoch(Epoch(1));
        let as_store = Arc::clone(&store) as Arc<dyn store::Store>;
        let api = Self::configured(as_store, store, access, pki, limits);
        api.server.ensure_defaults().await.unwrap();
        api
    }

    /// Another replica, as far as the API can tell.
    fn beside(&self) -> Self {
        Self::over(Arc::clone(&self.store) as Arc<dyn store::Store>, Arc::clone(&self.store))
    }

    fn clock() -> apiserver::registry::Clock {
        Arc::new(|| Timestamp(1_700_000_000_000_000))
    }

    /// Over what leads to `store`.
    fn over(as_store: Arc<dyn store::Store>, store: Arc<LocalStore>) -> Self {
        let (access, pki) = <(apiserver::AccessConfig, apiserver::Pki)>::default();
        Self::configured(as_store, store, access, pki, apiserver::Limits::default())
    }

    fn configured(
        as_store: Arc<dyn store::Store>,
        store: Arc<LocalStore>,
        access: apiserver::AccessConfig,
        pki: apiserver::Pki,
        limits: apiserver::Limits,
    ) -> Self {
        let config = Config {
            name: "test".to_owned(),
            endpoints: Vec::new(),
            service_prefix: [10, 96],
            pod_prefix: [10, 244],
            node_silence: Duration::from_secs(50),
            access,
            pki,
            limits,
        };
        let as_cluster = Arc::clone(&store) as Arc<dyn store::Cluster>;
        let server = ApiServer::new(as_store, as_cluster, config, Self::clock());
        Self { server, store }
    }

    /// Forgets every revision before the newest one.
    async fn compact(&self) {
        let revision = self.store.view().revision();
        self.propose(RequestId { client: 1, sequence: revision.get() }, Op::Compact { revision })
            .await;
    }

    /// As if a member's disk were full, or no longer so.
    async fn full(&self, active: bool) {
        let alarm = Alarm { kind: AlarmKind::NoSpace, member: 1 };
        let request = RequestId { client: 2, sequence: 1 + u64::from(!active) };
        self.propose(request, Op::Alarm { alarm, active }).await;
    }

    async fn propose(&self, request: RequestId, op: Op) {
        let proposal = Proposal { request, origin: Origin::Client, op };
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
        let identity = api::caller::Identity::new("test", &[]);
        let origin = epoch.map(|epoch| ControllerOrigin { epoch });
        Client::in_process(self.server.door(), identity, origin)
    }
}

fn json_body(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_default()
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

#[tokio::test]
async fn the_content_type_says_what_a_body_is_in() {
    const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    let in_protobuf =
        "k8s\0\n\x0f\n\x02v1\x12\x09ConfigMap\x12\x0d\n\x03\n\x01a\x12\x06\n\x01k\x12\x01v";
    let api = Api::new().await;
    let (code, created) = api.send(Method::POST, CONFIG_MAPS, PROTOBUF, in_protobuf).await;
    assert_eq!((code, &created["data"]), (201, &json!({"k": "v"})), "{created}");
    for (name, kind, path, body) in [
        ("a parameter", "application/json; charset=utf-8", "", r#"{"metadata":{"name":"b"}}"#),
        ("no type", "", "", r#"{"metadata":{"name":"c"}}"#),
        ("YAML", "application/yaml", "", "metadata:\n  name: d\n"),
        (
            "a dry run",
            PROTOBUF,
            "?dryRun=All&fieldValidation=Strict",
            &in_protobuf.replace("\x01a", "\x01e"),
        ),
    ] {
        let (code, answer) =
            api.send(Method::POST, &format!("{CONFIG_MAPS}{path}"), kind, body).await;
        assert_eq!(code, 201, "{name}: {answer}");
    }
    let options = "k8s\0\n\x13\n\x02v1\x12\x0dDeleteOptions\x12\x05\x2a\x03All";
    let (code, answer) =
        api.send(Method::DELETE, &format!("{CONFIG_MAPS}/a"), PROTOBUF, options).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(api.json(Method::GET, &format!("{CONFIG_MAPS}/a"), Value::Null).await.0, 200);

    for (kind, body, want, message) in [
        (
            "application/cbor",
            "x",
            (415, "UnsupportedMediaType"),
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
        (
            PROTOBUF,
            "{}",
            (400, "BadRequest"),
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ),
    ] {
        let (code, status) = api.send(Method::POST, CONFIG_MAPS, kind, body).await;
        assert_eq!((code, status["reason"].as_str().unwrap()), want);
        assert_eq!(status["message"], message);
    }
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
async fn a_list_that_is_too_old_to_go_on_offers_the_rest_as_it_is_now() {
    // LST-3
    let api = Api::new().await;
    for i in 0..6 {
        api.json(Method::POST, PODS, pod(&format!("p{i}"))).await;
    }
    let (_, page) = api.json(Method::GET, &format!("{PODS}?limit=2"), Value::Null).await;
    let next = page["metadata"]["continue"].as_str().unwrap();
    let old = page["metadata"]["resourceVersion"].as_str().unwrap();
    api.json(Method::DELETE, &format!("{PODS}/p3"), Value::Null).await;
    api.compact().await;
    let (code, gone) =
        api.json(Method::GET, &format!("{PODS}?limit=2&continue={next}"), Value::Null).await;
    assert_eq!((code, gone["reason"].as_str()), (410, Some("Expired")));
    let message = gone["message"].as_str().unwrap();
    assert!(message.starts_with("The provided continue parameter is too old to display"));
    let mut names = Vec::new();
    let mut rest = gone["metadata"]["continue"].as_str().map(str::to_owned);
    while let Some(token) = rest {
        let path = format!("{PODS}?limit=2&continue={token}");
        let (code, page) = api.json(Method::GET, &path, Value::Null).await;
        assert_eq!(code, 200, "{page}");
        let items = page["items"].as_array().unwrap();
        names.extend(items.iter().map(|p| p["metadata"]["name"].as_str().unwrap().to_owned()));
        rest = page["metadata"]["continue"].as_str().map(str::to_owned);
    }
    assert_eq!(names, ["p2", "p4", "p5"]);
    let exact = format!("{PODS}?resourceVersion={old}&resourceVersionMatch=Exact");
    let (code, gone) = api.json(Method::GET, &exact, Value::Null).await;
    assert_eq!(code, 410);
    assert_eq!(gone["message"], "The resourceVersion for the provided list is too old.");
    assert_eq!(gone["metadata"], json!({}));
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
async fn who_deletes_is_told_the_last_form_of_some_kinds() {
    // §2.3
    let api = Api::new().await;
    for (plural, object, want) in [
        ("services", json!({"spec": {"ports": [{"port": 80}]}}), "Service"),
        ("serviceaccounts", json!({}), "ServiceAccount"),
        ("resourcequotas", json!({}), "ResourceQuota"),
        ("pods", pod("gone"), "Pod"),
        ("configmaps", json!({}), "Status"),
    ] {
        let path = format!("/api/v1/namespaces/default/{plural}");
        let mut object = object;
        object["metadata"] = json!({"name": "gone"});
        let (code, made) = api.json(Method::POST, &path, object).await;
        assert_eq!(code, 201, "{made}");
        let (code, told) = api.json(Method::DELETE, &format!("{path}/gone"), Value::Null).await;
        assert_eq!((code, &told["kind"]), (200, &json!(want)), "{told}");
        let uid = if want == "Status" { &told["details"]["uid"] } else { &told["metadata"]["uid"] };
        assert_eq!(uid, &made["metadata"]["uid"]);
    }
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

#[tokio::test]
async fn discovery_of_everything_is_sent_once() {
    // §2.9
    let api = Api::new().await;
    let everything = "application/json;v=v2;g=apidiscovery.k8s.io;as=APIGroupDiscoveryList,\
                      application/json;v=v2beta1;g=apidiscovery.k8s.io;as=APIGroupDiscoveryList,\
                      application/json";
    for (path, group) in [("/api", None), ("/apis", Some("coordination.k8s.io"))] {
        let ask = async |accept: &str, tag: Option<&str>| {
            let request = Request::get(path).header("accept", accept);
            let request = match tag {
                Some(tag) => request.header("if-none-match", tag),
                None => request,
            };
            let body: Body = Full::new(Bytes::new()).map_err(|n| match n {}).boxed_unsync();
            let answer = api.server.door().oneshot(request.body(body).unwrap()).await.unwrap();
            let (head, body) = answer.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            (head, serde_json::from_slice::<Value>(&body).unwrap_or_default())
        };
        let (head, document) = ask(everything, None).await;
        assert_eq!(
            head.headers["content-type"],
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        );
        assert_eq!(document["kind"], "APIGroupDiscoveryList");
        let groups = document["items"].as_array().unwrap();
        assert!(groups.iter().any(|g| g["metadata"]["name"].as_str() == group));
        let tag = head.headers["etag"].to_str().unwrap();
        let (again, nothing) = ask(everything, Some(tag)).await;
        assert_eq!((again.status.as_u16(), nothing), (304, Value::Null));
        let (other, _) = ask(everything, Some("\"A\"")).await;
        assert_eq!(other.status, 200);
        let old = "application/json;v=v2beta1;g=apidiscovery.k8s.io;as=APIGroupDiscoveryList";
        assert_eq!(ask(old, None).await.1["apiVersion"], "apidiscovery.k8s.io/v2beta1");
        let (_, plain) = ask("application/json", None).await;
        assert!(["APIVersions", "APIGroupList"].contains(&plain["kind"].as_str().unwrap()));
    }
    let (code, group) = api.json(Method::GET, "/apis/coordination.k8s.io", Value::Null).await;
    assert_eq!((code, &group["kind"]), (200, &json!("APIGroup")));
    // As the Python client asks.
    for path in ["/api/", "/apis/", "/version/", "/api/v1/", "/apis/apps/", "/apis/apps/v1/"] {
        assert_eq!(api.json(Method::GET, path, Value::Null).await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn metadata_alone_and_yaml_are_shown_to_who_wants_them() {
    let api = Api::new().await;
    api.json(Method::POST, PODS, pod("p")).await;
    let ask = async |path: &str, accept: &str| {
        let request = Request::get(path).header("accept", accept);
        let body: Body = Full::new(Bytes::new()).map_err(|n| match n {}).boxed_unsync();
        let answer = api.server.door().oneshot(request.body(body).unwrap()).await.unwrap();
        let code = answer.status().as_u16();
        (code, answer.into_body().collect().await.unwrap().to_bytes())
    };
    let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let (_, body) = ask(&format!("{PODS}/p"), metadata).await;
    let object: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(object["kind"], "PartialObjectMetadata");
    assert_eq!((&object["metadata"]["name"], object.get("spec")), (&json!("p"), None));
    let (_, body) = ask(PODS, metadata).await;
    let list: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["labels"], json!({"app": "p"}));
    let (_, body) = ask(&format!("{PODS}/p"), "application/yaml").await;
    let object: Value = serde_yaml_ng::from_slice(&body).unwrap();
    assert_eq!((&object["kind"], &object["metadata"]["name"]), (&json!("Pod"), &json!("p")));
    assert_eq!(ask(PODS, "application/xml").await.0, 406);
}

#[tokio::test]
async fn a_pod_is_evicted_once_for_each_disruption_that_its_budget_allows() {
    // SUB-3
    let api = Api::new().await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({
        "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}},
    });
    assert_eq!(api.json(Method::POST, budgets, budget).await.0, 201);
    let merge = "application/merge-patch+json";
    let status = r#"{"status":{"observedGeneration":1,"disruptionsAllowed":1,"currentHealthy":2,
        "desiredHealthy":1,"expectedPods":2}}"#;
    let (code, _) = api.send(Method::PATCH, &format!("{budgets}/b/status"), merge, status).await;
    assert_eq!(code, 200);
    for name in ["one", "two"] {
        let mut pod = pod(name);
        pod["metadata"]["labels"] = json!({"app": "a"});
        pod["spec"]["nodeName"] = json!("n");
        assert_eq!(api.json(Method::POST, PODS, pod).await.0, 201);
        let ready =
            r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
        api.send(Method::PATCH, &format!("{PODS}/{name}/status"), merge, ready).await;
    }
    let evict = async |name: &str, query: &str| {
        let body =
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        api.json(Method::POST, &format!("{PODS}/{name}/eviction{query}"), body).await
    };
    assert_eq!(evict("one", "?dryRun=All").await.0, 201);
    let (code, status) = evict("one", "").await;
    assert_eq!((code, &status["status"]), (201, &json!("Success")));
    let (_, leaving) = api.json(Method::GET, &format!("{PODS}/one"), Value::Null).await;
    assert!(leaving["metadata"]["deletionTimestamp"].is_string());
    let why = leaving["status"]["conditions"].as_array().unwrap();
    assert!(why.iter().any(|c| c["type"] == "DisruptionTarget"));
    let (_, spent) = api.json(Method::GET, &format!("{budgets}/b"), Value::Null).await;
    assert_eq!(spent["status"]["disruptionsAllowed"], 0);
    assert!(spent["status"]["disruptedPods"]["one"].is_string());
    let before = api.store.view().hash();
    let (code, refused) = evict("two", "").await;
    assert_eq!((code, &refused["reason"]), (429, &json!("TooManyRequests")));
    assert_eq!(refused["details"]["causes"][0]["reason"], "DisruptionBudget");
    assert_eq!(api.store.view().hash(), before);
    // Whoever goes already needs no budget; another name than in the path is a mistake.
    assert_eq!(evict("one", "").await.0, 201);
    let body = json!({"metadata": {"name": "else"}});
    assert_eq!(api.json(Method::POST, &format!("{PODS}/two/eviction"), body).await.0, 400);
}

#[tokio::test]
async fn fields_are_applied_and_scaled_by_their_managers() {
    // PAT-3, PAT-1
    let api = Api::new().await;
    let apps = "/apis/apps/v1/namespaces/default/deployments";
    let apply = "application/apply-patch+yaml";
    let manifest = |replicas: u64| {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {{replicas: {replicas}, \
             selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}}, \
             spec: {{containers: [{{name: main, image: toolbox}}]}}}}}}}}"
        )
    };
    let put = async |query: &str, text: &str| {
        api.send(Method::PATCH, &format!("{apps}/web{query}"), apply, text).await
    };
    let (code, status) = put("", &manifest(1)).await;
    assert_eq!(code, 422, "{status}");
    assert!(status["message"].as_str().unwrap().contains("is required for apply patch"));
    let (code, made) = put("?fieldManager=a", &manifest(1)).await;
    assert_eq!((code, &made["spec"]["replicas"]), (201, &json!(1)), "{made}");
    let before = api.store.view().revision();
    assert_eq!(put("?fieldManager=a", &manifest(1)).await.0, 200);
    assert_eq!(api.store.view().revision(), before, "applied again, nothing changes");
    let (code, status) = put("?fieldManager=b", &manifest(2)).await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    assert_eq!(
        status["message"],
        "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas"
    );
    assert_eq!(status["details"]["causes"][0]["field"], ".spec.replicas");
    assert_eq!(put("?fieldManager=b&force=true", &manifest(2)).await.1["spec"]["replicas"], 2);

    let scale = format!("{apps}/web/scale");
    let (_, shown) = api.json(Method::GET, &scale, Value::Null).await;
    assert_eq!((&shown["kind"], &shown["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    assert_eq!(shown["status"]["selector"], "app=web");
    let merge = "application/merge-patch+json";
    let (code, shown) = api.send(Method::PATCH, &scale, merge, r#"{"spec":{"replicas":7}}"#).await;
    assert_eq!((code, &shown["spec"]["replicas"]), (200, &json!(7)));
    let (_, scaled) = api.json(Method::GET, &format!("{apps}/web"), Value::Null).await;
    assert_eq!(scaled["metadata"]["generation"], 3);
    let managers = scaled["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|m| m["subresource"] == "scale"), "{managers:?}");
    let mut old = shown;
    old["metadata"]["resourceVersion"] = json!("1");
    assert_eq!(api.json(Method::PUT, &scale, old).await.0, 409);
    let (code, _) = api.json(Method::GET, &format!("{PODS}/p/scale"), Value::Null).await;
    assert_eq!(code, 404);

    let strategic = "application/strategic-merge-patch+json";
    let patch = r#"{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"toolbox:2"},
        {"name":"more","image":"toolbox"}]}}}}"#;
    let (code, patched) = api.send(Method::PATCH, &format!("{apps}/web"), strategic, patch).await;
    let images: Vec<&str> = patched["spec"]["template"]["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["image"].as_str().unwrap())
        .collect();
    assert_eq!((code, images), (200, vec!["toolbox:2", "toolbox"]));
    let wrong = r#"{"spec":{"template":{"spec":{"containers":[{"image":"x"}]}}}}"#;
    assert_eq!(api.send(Method::PATCH, &format!("{apps}/web"), strategic, wrong).await.0, 500);
}

#[tokio::test]
async fn openapi_documents_are_kept_under_their_hash() {
    let api = Api::new().await;
    let (code, index) = api.json(Method::GET, "/openapi/v3", Value::Null).await;
    assert_eq!(code, 200);
    let place = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let (code, document) = api.json(Method::GET, &place, Value::Null).await;
    assert_eq!((code, &document["openapi"]), (200, &json!("3.0.0")));
    let other = place.split_once('=').unwrap().0.to_owned() + "=0";
    assert_eq!(api.json(Method::GET, &other, Value::Null).await.0, 301);
    assert_eq!(api.json(Method::GET, "/openapi/v3/apis/none/v1", Value::Null).await.0, 404);
}

#[tokio::test]
async fn subresources_are_only_those_that_a_kind_has() {
    // SUB-1
    let api = Api::new().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"metadata": {"name": "c"}, "immutable": true, "data": {"a": "1"}});
    let (_, made) = api.json(Method::POST, maps, map).await;
    let mut changed = made;
    changed["data"]["a"] = json!("2");
    for sub in ["status", "finalize", "scale", "eviction", "nothing"] {
        let path = format!("{maps}/c/{sub}");
        assert_eq!(api.json(Method::PUT, &path, changed.clone()).await.0, 404, "{sub}");
        assert_eq!(api.json(Method::POST, &path, json!({})).await.0, 404, "{sub}");
    }
    let (_, after) = api.json(Method::GET, &format!("{maps}/c"), Value::Null).await;
    assert_eq!(after["data"]["a"], "1");
}

#[tokio::test]
async fn what_is_asked_of_a_write_is_understood_or_refused() {
    // CC-2, CC-4, CC-5, HTTP-2, MET-3
    let api = Api::new().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let own = format!("{maps}/c");
    api.json(Method::POST, maps, json!({"metadata": {"name": "c"}, "data": {"a": "1"}})).await;
    let state = || (api.store.view().revision(), api.store.view().hash());
    let before = state();
    let json_patch = "application/json-patch+json";
    let merge = "application/merge-patch+json";
    let change = r#"{"data":{"a":"2"}}"#;
    for (query, method, kind, body, want) in [
        ("?dryRun=all", Method::PATCH, merge, change, 422),
        ("?dryRun=", Method::PATCH, merge, change, 422),
        ("?dryRun=true", Method::DELETE, "", "", 422),
        ("?propagationPolicy=Sideways", Method::DELETE, "", "", 422),
        ("?fieldValidation=strict", Method::PATCH, merge, change, 422),
        ("?fieldValidation=Strict", Method::PATCH, merge, r#"{"dat":{}}"#, 400),
        ("", Method::PATCH, merge, r#"{"metadata":{"name":"d"}}"#, 400),
        ("", Method::PATCH, merge, r#"{"kind":"Secret"}"#, 400),
        ("", Method::PATCH, json_patch, r#"[{"op":"replace","path":"","value":null}]"#, 400),
        (
            "",
            Method::PATCH,
            json_patch,
            r#"[{"op":"test","path":"/metadata/resourceVersion","value":"1"}]"#,
            422,
        ),
        ("", Method::PUT, merge, change, 415),
        ("?force=true", Method::PATCH, merge, change, 422),
    ] {
        let (code, status) = api.send(method, &format!("{own}{query}"), kind, body).await;
        assert_eq!(code, want, "{query} {body}: {status}");
        assert_eq!(state(), before, "{query} {body}");
    }
    let (_, now) = api.json(Method::GET, &own, Value::Null).await;
    let version = now["metadata"]["resourceVersion"].as_str().unwrap();
    let patch = format!(
        r#"[{{"op":"test","path":"/metadata/resourceVersion","value":"{version}"}},
            {{"op":"add","path":"/data/b","value":"2"}}]"#
    );
    assert_eq!(api.send(Method::PATCH, &own, json_patch, &patch).await.0, 200);

    // An empty map is none: nothing changes (CC-4).
    let before = state();
    let empty = r#"{"metadata":{"annotations":{},"finalizers":[]}}"#;
    let (_, same) = api.send(Method::PATCH, &own, merge, empty).await;
    assert_eq!((same["metadata"].get("annotations"), state()), (None, before));

    // What was let in once is nobody's mistake later.
    let (code, _) = api.send(Method::PATCH, &own, merge, r#"{"odd":1}"#).await;
    assert_eq!(code, 200);
    let strict = format!("{own}?fieldValidation=Strict");
    assert_eq!(api.send(Method::PATCH, &strict, merge, change).await.0, 200);

    // A kind whose writers must have read it.
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({
        "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}},
    });
    api.json(Method::POST, budgets, budget.clone()).await;
    assert_eq!(api.json(Method::PUT, &format!("{budgets}/b"), budget).await.0, 422);

    // Applied again with what is only written differently, it stays as it is.
    let apply = "application/apply-patch+yaml";
    let text = "{apiVersion: v1, kind: Secret, metadata: {name: s, creationTimestamp: null}, stringData: {a: b}}";
    let path = "/api/v1/namespaces/default/secrets/s?fieldManager=m";
    assert_eq!(api.send(Method::PATCH, path, apply, text).await.0, 201);
    let before = state();
    assert_eq!(api.send(Method::PATCH, path, apply, text).await.0, 200);
    assert_eq!(state(), before);
}

#[tokio::test]
async fn an_address_is_free_again_when_its_service_is_released() {
    let api = Api::new().await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str| {
        json!({
            "metadata": {"name": name, "finalizers": ["a/b"]},
            "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 80}]},
        })
    };
    assert_eq!(api.json(Method::POST, services, service("one")).await.0, 201);
    assert_eq!(api.json(Method::DELETE, &format!("{services}/one"), Value::Null).await.0, 200);
    assert_eq!(api.json(Method::POST, services, service("two")).await.0, 422);
    let merge = "application/merge-patch+json";
    let free = r#"{"metadata":{"finalizers":null}}"#;
    assert_eq!(api.send(Method::PATCH, &format!("{services}/one"), merge, free).await.0, 200);
    assert_eq!(api.json(Method::POST, services, service("two")).await.0, 201);
}
