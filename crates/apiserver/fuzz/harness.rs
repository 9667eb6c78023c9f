//! One arbitrary request against a replica of its own: what the fuzz target and the tests do with bytes.
//!
//! The first byte names method and content type, the second what is accepted; then comes the target up to the
//! end of a line, then the body. A panic is a failure, and so is a 500, a refusal that has changed something, and
//! an object that was taken and cannot be listed.

use apiserver::{AccessConfig, ApiServer, Body, Config, Limits, Pki};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use store::{Epoch, Store as _, Timestamp, local::LocalStore};
use tower::ServiceExt as _;

/// Until an answer that goes on counts as one: of a clock that stands still while anything can be done.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const METHODS: [Method; 5] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

pub(crate) const TYPES: [&str; 8] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "text/plain",
];

pub(crate) const ACCEPTS: [&str; 4] = [
    "application/json",
    "application/yaml",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
];

/// Why there are no tokens here.
const NO_KEY: &str = "there is no key for service accounts";

/// What is listed after a write.
const LISTS: [&str; 7] = [
    "/api/v1/namespaces",
    "/api/v1/pods",
    "/api/v1/configmaps",
    "/api/v1/secrets",
    "/api/v1/services",
    "/apis/apps/v1/deployments",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
];

/// What is there before: one object of each.
const OBJECTS: [(&str, &str); 4] = [
    (
        "pods",
        r#"{"metadata":{"name":"p","labels":{"a":"b"}},"spec":{"containers":[{"name":"a","image":"i"}]}}"#,
    ),
    ("configmaps", r#"{"metadata":{"name":"m"},"data":{"k":"v"}}"#),
    ("secrets", r#"{"metadata":{"name":"s"},"data":{"k":"dg=="}}"#),
    (
        "services",
        r#"{"metadata":{"name":"s"},"spec":{"ports":[{"port":80}],"selector":{"a":"b"}}}"#,
    ),
];

struct Replica {
    store: Arc<LocalStore>,
    server: ApiServer,
}

impl Replica {
    async fn start() -> Self {
        let clock: apiserver::registry::Clock = Arc::new(|| Timestamp(1_700_000_000_000_000));
        let store = Arc::new(LocalStore::new(Arc::clone(&clock)));
        let _ = store.begin_epoch(Epoch(1));
        let config = Config {
            name: "fuzz".to_owned(),
            endpoints: Vec::new(),
            service_prefix: [10, 96],
            pod_prefix: [10, 244],
            node_silence: Duration::from_secs(50),
            access: AccessConfig::default(),
            pki: Pki::default(),
            limits: Limits::default(),
        };
        let server = ApiServer::new(store.clone(), store.clone(), config, clock);
        server.ensure_defaults().await.expect("what is always there can be made");
        let replica = Self { store, server };
        for (plural, object) in OBJECTS {
            let path = format!("/api/v1/namespaces/default/{plural}");
            let made = replica.ask(Method::POST, &path, ["application/json"; 2], object.into());
            let (status, body) = made.await.expect("an answer");
            assert_eq!(status, StatusCode::CREATED, "{plural}: {}", String::from_utf8_lossy(&body));
        }
        replica
    }

    /// Status and body, as far as it comes; `None` for what is no request.
    async fn ask(
        &self,
        method: Method,
        target: &str,
        [content_type, accept]: [&str; 2],
        body: Bytes,
    ) -> Option<(StatusCode, Vec<u8>)> {
        let uri: Uri = target.parse().ok()?;
        let body: Body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", content_type)
            .header("accept", accept)
            .body(body)
            .ok()?;
        let answer = tokio::time::timeout(PATIENCE, self.server.door().oneshot(request)).await;
        let answer = answer.expect("an answer in time").expect("a router always answers");
        let (parts, mut body) = answer.into_parts();
        let mut whole = Vec::new();
        let read = async {
            while let Some(Ok(frame)) = body.frame().await {
                whole.extend(frame.into_data().unwrap_or_default());
            }
        };
        // One that goes on is cut here; what it has sent is known.
        let _ = tokio::time::timeout(PATIENCE, read).await;
        Some((parts.status, whole))
    }

    async fn lists(&self) {
        for path in LISTS {
            let asked = self.ask(Method::GET, path, ["application/json"; 2], Bytes::new()).await;
            let (status, body) = asked.expect("a request");
            assert_eq!(status, StatusCode::OK, "{path}: {}", String::from_utf8_lossy(&body));
            let list = serde_json::from_slice::<Value>(&body);
            assert!(list.is_ok_and(|list| list.get("items").is_some()), "{path} is no list");
        }
    }
}

/// What came of a request: its method, and code, reason and kind of what was asked for.
pub(crate) type Outcome = (String, String);

/// `None` for what no HTTP library would pass on.
pub(crate) fn request(input: &[u8]) -> Option<Outcome> {
    let (&[first, second], rest) = input.split_first_chunk::<2>()?;
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (target, body) = rest.split_at(end);
    let target = std::str::from_utf8(target).ok()?.to_owned();
    let body = Bytes::copy_from_slice(body.get(1..).unwrap_or_default());
    let method = METHODS.get(usize::from(first) % METHODS.len())?.clone();
    let content_type = TYPES.get(usize::from(first) / METHODS.len() % TYPES.len())?;
    let accept = ACCEPTS.get(usize::from(second) % ACCEPTS.len())?;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let replica = Replica::start().await;
        let before = replica.store.view().hash();
        let asked = replica.ask(method.clone(), &target, [content_type, accept], body);
        let (status, answer) = asked.await?;
        let said: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let message = said.get("message").and_then(Value::as_str).unwrap_or_default();
        let is_fault = status.as_u16() >= 500 && !message.ends_with(NO_KEY);
        assert!(!is_fault, "{method} {target}: {status}: {said}");
        let changed = replica.store.view().hash() != before;
        if status.is_success() {
            if changed {
                replica.lists().await;
            }
        } else {
            // Of a collection, what came before the refusal is gone; an Event's lease may be there already.
            let may_change = method == Method::DELETE || target.contains("events");
            assert!(!changed || may_change, "{method} {target} was refused with {status}: {said}");
        }
        let reason = said.get("reason").and_then(Value::as_str).unwrap_or_default();
        let plural = target.split(['/', '?']).rfind(|part| part.ends_with('s'));
        let plural = plural.filter(|plural| plural.len() < 30).unwrap_or_default();
        Some((method.to_string(), format!("{}-{reason}-{plural}", status.as_u16())))
    })
}
