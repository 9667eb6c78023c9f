//! Typed calls over any service that answers HTTP.

use crate::{
    ClientError,
    endpoints::{Endpoints, Replicas, request},
    unmanaged::unmanaged,
};
use api::{
    caller::{ControllerOrigin, Identity},
    k8s_openapi::{
        Metadata, Resource,
        apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta},
    },
    status::Status,
};
use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use http::Method;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{convert::Infallible, sync::Arc};
use tower::{ServiceExt as _, util::BoxCloneSyncService};

pub use api::deletion::DeleteOptions;

/// The body of every request and answer.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A door to the API. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    door: Door,
}

#[derive(Clone)]
enum Door {
    InProcess {
        service: BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>,
        identity: Identity,
        origin: Option<ControllerOrigin>,
    },
    Http(Arc<Replicas>),
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// What to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// `k=v,k2 in (a,b)`
    pub label_selector: String,
    /// `spec.nodeName=n`
    pub field_selector: String,
    /// Empty is linearizable, `0` any state, `N` not older than N.
    pub resource_version: String,
    /// Page size; 0 is everything.
    pub limit: u32,
    /// Token of the next page.
    pub continue_token: String,
}

/// What to watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// As in [`ListOptions`].
    pub label_selector: String,
    /// As in [`ListOptions`].
    pub field_selector: String,
    /// Changes after this one.
    pub resource_version: String,
    /// Seconds after which the server ends the stream; 0 leaves it to the server.
    pub timeout_seconds: u32,
}

/// How to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Do everything but the write.
    pub dry_run: bool,
    /// `Strict`, `Warn` or `Ignore`; empty leaves it to the server.
    pub field_validation: String,
    /// Such as `status`; empty for the object itself.
    pub subresource: String,
}

/// A change of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Patch {
    /// RFC 7386
    Merge(Value),
    /// RFC 6902
    Json(Value),
    /// By the kind's merge keys (PAT-2).
    Strategic(Value),
}

/// A list and the revision it is consistent at.
#[derive(Debug, Clone, PartialEq)]
pub struct List<K> {
    /// In key order.
    pub items: Vec<K>,
    /// `metadata.resourceVersion` of the list.
    pub resource_version: String,
    /// Of the next page; empty at the end.
    pub continue_token: String,
}

/// One change seen by a watch.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent<K> {
    /// New, or entered the selection.
    Added(K),
    /// Changed.
    Modified(K),
    /// Gone, or left the selection: the last form, at the revision of the change.
    Deleted(K),
    /// Nothing else up to this revision.
    Bookmark(String),
}

impl Client {
    /// Over the API server's router in this process (FEN-5): every write carries `origin`.
    #[must_use]
    pub fn in_process(
        service: BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>,
        identity: Identity,
        origin: Option<ControllerOrigin>,
    ) -> Self {
        Self { door: Door::InProcess { service, identity, origin } }
    }

    /// One object.
    ///
    /// # Errors
    /// 404 as [`ClientError::Api`].
    pub async fn get<K>(&self, namespace: Option<&str>, name: &str) -> Result<K, ClientError>
    where
        K: Resource + DeserializeOwned,
    {
        self.call(Method::GET, &path::<K>(namespace, name, ""), None).await
    }

    /// All objects of a kind; in all namespaces when `namespace` is `None`.
    ///
    /// # Errors
    /// 410 as [`ClientError::Api`] when a page's snapshot is compacted.
    pub async fn list<K>(
        &self,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<List<K>, ClientError>
    where
        K: Resource + DeserializeOwned,
    {
        self.list_as::<K, K>(namespace, options).await
    }

    /// The same, of which only what `R` reads is read.
    pub(crate) async fn list_as<K, R>(
        &self,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<List<R>, ClientError>
    where
        K: Resource,
        R: DeserializeOwned,
    {
        let limit = if options.limit == 0 { String::new() } else { options.limit.to_string() };
        let query = encode(&[
            ("labelSelector", &options.label_selector),
            ("fieldSelector", &options.field_selector),
            ("resourceVersion", &options.resource_version),
            ("limit", &limit),
            ("continue", &options.continue_token),
        ]);
        let path = format!("{}{query}", path::<K>(namespace, "", ""));
        let list: WireList<R> = self.call(Method::GET, &path, None).await?;
        Ok(List {
            items: list.items,
            resource_version: list.metadata.resource_version.unwrap_or_default(),
            continue_token: list.metadata.continue_.unwrap_or_default(),
        })
    }

    /// Changes as they come. Ends when the server ends it; an `ERROR` event is the last item.
    ///
    /// # Errors
    /// As [`Client::list`].
    pub async fn watch<K>(
        &self,
        namespace: Option<&str>,
        options: &WatchOptions,
    ) -> Result<BoxStream<'static, Result<WatchEvent<K>, ClientError>>, ClientError>
    where
        K: Resource + DeserializeOwned + Send + 'static,
    {
        let lines = self.watch_lines::<K>(namespace, options).await?;
        Ok(lines.map(|line| line.and_then(|line| event(&line))).boxed())
    }

    /// The same, without who manages which field, and of which only what `R` reads is read.
    pub(crate) async fn watch_unmanaged<K, R>(
        &self,
        namespace: Option<&str>,
        options: &WatchOptions,
    ) -> Result<BoxStream<'static, Result<WatchEvent<R>, ClientError>>, ClientError>
    where
        K: Resource,
        R: DeserializeOwned + Send + 'static,
    {
        let lines = self.watch_lines::<K>(namespace, options).await?;
        Ok(lines.map(|line| line.and_then(|line| event(&unmanaged(&line)))).boxed())
    }

    async fn watch_lines<K: Resource>(
        &self,
        namespace: Option<&str>,
        options: &WatchOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, ClientError>>, ClientError> {
        let seconds = match options.timeout_seconds {
            0 => String::new(),
            seconds => seconds.to_string(),
        };
        let query = encode(&[
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("labelSelector", &options.label_selector),
            ("fieldSelector", &options.field_selector),
            ("resourceVersion", &options.resource_version),
            ("timeoutSeconds", &seconds),
        ]);
        let path = format!("{}{query}", path::<K>(namespace, "", ""));
        let response = self.request(request(Method::GET, &path, None)).await?;
        let response = refuse(response).await?;
        Ok(lines(response.into_body()))
    }

    /// Creates `object` in its own namespace; what was stored.
    ///
    /// # Errors
    /// 409 and 422 as [`ClientError::Api`].
    pub async fn create<K>(&self, object: &K, options: &WriteOptions) -> Result<K, ClientError>
    where
        K: Resource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned,
    {
        let namespace = object.metadata().namespace.as_deref();
        let path = format!("{}{}", path::<K>(namespace, "", ""), options.query());
        self.call(Method::POST, &path, Some(body(object)?)).await
    }

    /// Replaces the object; with a `resourceVersion` only that version.
    ///
    /// # Errors
    /// 409 as [`ClientError::Api`].
    pub async fn update<K>(&self, object: &K, options: &WriteOptions) -> Result<K, ClientError>
    where
        K: Resource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned,
    {
        let metadata = object.metadata();
        let name = metadata.name.as_deref().unwrap_or_default();
        let path = path::<K>(metadata.namespace.as_deref(), name, &options.subresource);
        let path = format!("{path}{}", options.query());
        self.call(Method::PUT, &path, Some(body(object)?)).await
    }

    /// Changes the object.
    ///
    /// # Errors
    /// 404, 409 and 422 as [`ClientError::Api`].
    pub async fn patch<K>(
        &self,
        namespace: Option<&str>,
        name: &str,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<K, ClientError>
    where
        K: Resource + DeserializeOwned,
    {
        let path = path::<K>(namespace, name, &options.subresource);
        let path = format!("{path}{}", options.query());
        let response = self.request(patch_request(&path, patch)?).await?;
        decode(refuse(response).await?).await
    }

    /// Deletes the object, or begins to. Its last form for Pods, else `None`.
    ///
    /// # Errors
    /// 404 and 409 as [`ClientError::Api`].
    pub async fn delete<K>(
        &self,
        namespace: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Option<K>, ClientError>
    where
        K: Resource + DeserializeOwned,
    {
        let path = path::<K>(namespace, name, "");
        let body = serde_json::to_vec(&options.to_json()).unwrap_or_default();
        let answer: Value = self.call(Method::DELETE, &path, Some(body)).await?;
        if answer.get("kind").and_then(Value::as_str) != Some(K::KIND) {
            return Ok(None);
        }
        K::deserialize(answer).map(Some).map_err(|e| unreadable(&path, e))
    }

    /// Binds a Pod to a node (SUB-2): only this UID, and only while it is unbound.
    ///
    /// # Errors
    /// 409 as [`ClientError::Api`] when a check fails.
    pub async fn bind(
        &self,
        namespace: &str,
        pod: &str,
        uid: &str,
        resource_version: Option<&str>,
        node: &str,
    ) -> Result<(), ClientError> {
        let binding = serde_json::json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": pod, "uid": uid, "resourceVersion": resource_version},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/binding");
        let body = serde_json::to_vec(&binding).unwrap_or_default();
        self.call::<Value>(Method::POST, &path, Some(body)).await.map(drop)
    }

    /// Any request; the path and query decide. Failover and retries as for typed calls.
    ///
    /// # Errors
    /// Only transport errors: a refusal is an answer.
    pub async fn request(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Body>, ClientError> {
        match &self.door {
            Door::Http(replicas) => replicas.send(request).await,
            Door::InProcess { service, identity, origin } => {
                let mut request: http::Request<Body> = request
                    .map(|bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
                request.extensions_mut().insert(identity.clone());
                if let Some(origin) = origin {
                    request.extensions_mut().insert(origin.clone());
                }
                // Named, because the compiler cannot see through the service's own future.
                let answer: BoxFuture<'static, Result<http::Response<Body>, Infallible>> =
                    Box::pin(service.clone().oneshot(request));
                match answer.await {
                    Ok(response) => Ok(response),
                    Err(never) => match never {},
                }
            }
        }
    }

    /// Over HTTP, to whichever replica answers.
    ///
    /// # Errors
    /// An endpoint is not a URL.
    pub fn connect(endpoints: Endpoints) -> Result<Self, ClientError> {
        Ok(Self { door: Door::Http(Arc::new(Replicas::new(endpoints)?)) })
    }

    /// A call with a JSON answer, whatever its type.
    ///
    /// # Errors
    /// A refusal as [`ClientError::Api`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        let response = self.request(request(method, path, body)).await?;
        decode(refuse(response).await?).await
    }
}

impl WriteOptions {
    fn query(&self) -> String {
        let dry_run = if self.dry_run { "All" } else { "" };
        encode(&[("dryRun", dry_run), ("fieldValidation", &self.field_validation)])
    }
}

#[derive(serde::Deserialize)]
#[serde(bound = "K: DeserializeOwned")]
struct WireList<K> {
    #[serde(default)]
    metadata: ListMeta,
    items: Vec<K>,
}

/// A PATCH of this content type.
///
/// # Errors
/// Never for a JSON value.
pub fn patch_request(path: &str, patch: &Patch) -> Result<http::Request<Bytes>, ClientError> {
    let (content_type, value) = match patch {
        Patch::Merge(value) => ("application/merge-patch+json", value),
        Patch::Json(value) => ("application/json-patch+json", value),
        Patch::Strategic(value) => ("application/strategic-merge-patch+json", value),
    };
    let mut request = request(Method::PATCH, path, Some(body(value)?));
    let content_type = http::HeaderValue::from_static(content_type);
    request.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    Ok(request)
}

/// The URL of an object, or of all of a kind.
fn path<K: Resource>(namespace: Option<&str>, name: &str, subresource: &str) -> String {
    let root = if K::GROUP.is_empty() { "/api" } else { "/apis" };
    let namespace = namespace.map_or_else(String::new, |ns| format!("/namespaces/{ns}"));
    let mut path = format!("{root}/{}{namespace}/{}", K::API_VERSION, K::URL_PATH_SEGMENT);
    for part in [name, subresource].into_iter().filter(|part| !part.is_empty()) {
        path.push('/');
        path.push_str(part);
    }
    path
}

/// A query of the pairs that have a value.
#[must_use]
pub fn encode(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("{key}={}", escape(value)))
        .collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

fn body(object: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(object).map_err(|e| unreadable("the request", e))
}

fn unreadable(endpoint: &str, error: impl std::fmt::Display) -> ClientError {
    ClientError::Decode { endpoint: endpoint.to_owned(), error: error.to_string() }
}

async fn whole(response: http::Response<Body>) -> Result<Bytes, ClientError> {
    let body = response.into_body().collect().await.map_err(|e| unreadable("the API", e))?;
    Ok(body.to_bytes())
}

/// A refusal as an error.
///
/// # Errors
/// [`ClientError::Api`] for anything but success.
pub async fn refuse(response: http::Response<Body>) -> Result<http::Response<Body>, ClientError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let code = response.status().as_u16();
    let bytes = whole(response).await?;
    let status = serde_json::from_slice(&bytes).ok().and_then(|value| Status::from_json(&value));
    Err(ClientError::Api(status.unwrap_or_else(|| {
        Status::new(code, "Unknown", String::from_utf8_lossy(&bytes).into_owned())
    })))
}

async fn decode<T: DeserializeOwned>(response: http::Response<Body>) -> Result<T, ClientError> {
    serde_json::from_slice(&whole(response).await?).map_err(|e| unreadable("the API", e))
}

/// A body line by line.
fn lines(body: Body) -> BoxStream<'static, Result<Bytes, ClientError>> {
    let state = (body.into_data_stream(), bytes::BytesMut::new(), false);
    futures::stream::unfold(state, async |(mut body, mut buffer, mut done)| {
        loop {
            if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line = buffer.split_to(end + 1).freeze();
                return Some((Ok(line), (body, buffer, done)));
            }
            if done {
                return None;
            }
            match body.next().await {
                Some(Ok(more)) => buffer.extend_from_slice(&more),
                Some(Err(error)) => {
                    done = true;
                    buffer.clear();
                    return Some((Err(unreadable("the watch", error)), (body, buffer, done)));
                }
                None => done = true,
            }
        }
    })
    .boxed()
}

fn event<K: DeserializeOwned>(line: &[u8]) -> Result<WatchEvent<K>, ClientError> {
    // As API servers write it; then the line need not be read twice.
    let stated =
        line.strip_prefix(b"{\"type\":\"").and_then(|rest| rest.split(|b| *b == b'"').next());
    let kind = match stated.and_then(|kind| std::str::from_utf8(kind).ok()) {
        Some(kind @ ("ADDED" | "MODIFIED" | "DELETED")) => kind.to_owned(),
        Some(_) | None => read::<WireEvent>(line)?.kind,
    };
    let object = || read::<Carried<K>>(line).map(|carried| carried.object);
    match kind.as_str() {
        "ADDED" => object().map(WatchEvent::Added),
        "MODIFIED" => object().map(WatchEvent::Modified),
        "DELETED" => object().map(WatchEvent::Deleted),
        kind => {
            let object = read::<Carried<Value>>(line)?.object;
            if kind == "BOOKMARK" {
                let version = api::meta::resource_version(&object).to_owned();
                return Ok(WatchEvent::Bookmark(version));
            }
            Err(match Status::from_json(&object) {
                Some(status) => ClientError::Api(status),
                None => unreadable("the watch", format!("event of type {kind}")),
            })
        }
    }
}

fn read<'de, T: serde::Deserialize<'de>>(line: &'de [u8]) -> Result<T, ClientError> {
    serde_json::from_slice(line).map_err(|e| unreadable("the watch", e))
}

/// An event without what it carries: that is read at once as what it is, and not as a value first.
#[derive(serde::Deserialize)]
struct WireEvent {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "object")]
    _object: serde::de::IgnoredAny,
}

#[derive(serde::Deserialize)]
struct Carried<T> {
    object: T,
}
