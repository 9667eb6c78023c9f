//! Requests of one client of the API, each with its record.

use super::recorder::{Recorder, many, one};
use bytes::Bytes;
use checkers::history::{Object, ObjectCall, ObjectVerb, Outcome};
use client::{Body, Client, ClientError, encode, refuse};
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

/// A kind of objects, as far as its URLs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    group: &'static str,
    plural: &'static str,
    pub(crate) namespaced: bool,
}

macro_rules! kinds {
    ($($constant:ident = $name:literal, $group:literal, $plural:literal, $namespaced:literal;)*) => {
        $(pub(crate) const $constant: Kind =
            Kind { name: $name, group: $group, plural: $plural, namespaced: $namespaced };)*
    };
}

kinds! {
    POD = "Pod", "/api/v1", "pods", true;
    NODE = "Node", "/api/v1", "nodes", false;
    NAMESPACE = "Namespace", "/api/v1", "namespaces", false;
    SERVICE = "Service", "/api/v1", "services", true;
    SLICE = "EndpointSlice", "/apis/discovery.k8s.io/v1", "endpointslices", true;
}

impl Kind {
    /// What the keys begin with under which they are stored.
    pub(crate) fn prefix(self) -> String {
        let group = self.group.strip_prefix("/apis/").and_then(|rest| rest.split('/').next());
        let group = group.map(|group| format!("{group}/")).unwrap_or_default();
        format!("/registry/{group}{}/", self.plural)
    }

    /// Of one object, or of all with an empty name; in all namespaces with an empty namespace.
    pub(crate) fn path(self, namespace: &str, name: &str, subresource: &str) -> String {
        let mut path = self.group.to_owned();
        let scope = if self.namespaced { namespace } else { "" };
        let parts = [if scope.is_empty() { "" } else { "namespaces" }, scope, self.plural, name];
        for part in parts.into_iter().chain([subresource]).filter(|part| !part.is_empty()) {
            path.push('/');
            path.push_str(part);
        }
        path
    }
}

/// A client, that has one request under way at a time.
pub(crate) struct Caller {
    pub(crate) id: u64,
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    /// The replica that it asks, if it asks no other; else 0.
    pub(crate) replica: u64,
}

/// A request that had no good answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was certainly not carried out: the status code, 0 where there was nobody to give one.
    Refused(u16),
    /// It may have been carried out.
    Unknown,
}

fn outcome(error: &ClientError) -> (Outcome, Failure) {
    let reason = error.to_string();
    match error {
        // What went wrong inside of a replica, or timed out, may have happened (FEN-31).
        ClientError::Api(status) if status.code >= 500 => {
            (Outcome::Unknown { reason }, Failure::Unknown)
        }
        ClientError::Api(status) => (Outcome::Failed { reason }, Failure::Refused(status.code)),
        ClientError::Unreachable { .. } => (Outcome::Failed { reason }, Failure::Refused(0)),
        ClientError::Unknown { .. } | ClientError::Decode { .. } => {
            (Outcome::Unknown { reason }, Failure::Unknown)
        }
    }
}

fn request(method: Method, path: &str, body: &Value) -> Request<Bytes> {
    let content_type = match method {
        Method::PATCH => "application/merge-patch+json",
        _ => "application/json",
    };
    let bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let mut request = Request::new(bytes);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("made of checked names and encoded queries");
    let json = http::HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::ACCEPT, json);
    if !body.is_null() {
        let content_type = http::HeaderValue::from_static(content_type);
        request.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    request
}

async fn read(response: http::Response<Body>) -> Result<Value, ClientError> {
    let unreadable = |error: String| ClientError::Decode { endpoint: "the API".to_owned(), error };
    let body = response.into_body().collect().await.map_err(|e| unreadable(e.to_string()))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|e| unreadable(e.to_string()))
}

/// An object of a list says nothing of its kind.
pub(crate) fn object(kind: Kind, mut json: Value) -> Option<Object> {
    if let Some(fields) = json.as_object_mut() {
        fields.entry("kind").or_insert_with(|| kind.name.into());
    }
    Object::from_json(json)
}

impl Caller {
    async fn ask(&self, request: Request<Bytes>) -> Result<Value, ClientError> {
        read(refuse(self.client.request(request).await?).await?).await
    }

    /// A request whose answer is an object, or about none.
    async fn single(
        &self,
        kind: Kind,
        call: ObjectCall,
        request: Request<Bytes>,
    ) -> Result<Option<Object>, Failure> {
        let invoked_ns = self.recorder.now_ns();
        let (outcome, result) = match self.ask(request).await {
            Ok(answer) => {
                let found = object(kind, answer).filter(|object| object.kind == kind.name);
                (one(found.as_ref()), Ok(found))
            }
            Err(error) => {
                let (outcome, failure) = outcome(&error);
                (outcome, Err(failure))
            }
        };
        self.recorder.answered(self.id, self.replica, invoked_ns, call, outcome);
        result
    }

    pub(crate) async fn create(&self, kind: Kind, body: Value) -> Result<Option<Object>, Failure> {
        let text = |pointer: &str| {
            body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let request = request(Method::POST, &kind.path(&namespace, "", ""), &body);
        let verb = ObjectVerb::Create;
        self.single(kind, call(verb, kind, &namespace, &name, body), request).await
    }

    /// Replaces the version that `object` was read at.
    pub(crate) async fn update(
        &self,
        kind: Kind,
        object: &Object,
        body: Value,
    ) -> Result<Option<Object>, Failure> {
        let path = kind.path(&object.namespace, &object.name, "");
        let request = request(Method::PUT, &path, &body);
        let call = ObjectCall {
            uid: Some(object.uid.clone()),
            resource_version: Some(object.resource_version),
            ..call(ObjectVerb::Update, kind, &object.namespace, &object.name, body)
        };
        self.single(kind, call, request).await
    }

    pub(crate) async fn patch(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        body: Value,
    ) -> Result<Option<Object>, Failure> {
        let request = request(Method::PATCH, &kind.path(namespace, name, ""), &body);
        self.single(kind, call(ObjectVerb::Patch, kind, namespace, name, body), request).await
    }

    /// Deletes, or begins to; with what `options` demand.
    pub(crate) async fn delete(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        options: Value,
    ) -> Result<Option<Object>, Failure> {
        let request = request(Method::DELETE, &kind.path(namespace, name, ""), &options);
        let demanded = |what: &str| {
            let pointer = format!("/preconditions/{what}");
            options.pointer(&pointer).and_then(Value::as_str).map(str::to_owned)
        };
        let call = ObjectCall {
            uid: demanded("uid"),
            resource_version: demanded("resourceVersion").and_then(|text| text.parse().ok()),
            ..call(ObjectVerb::Delete, kind, namespace, name, options)
        };
        self.single(kind, call, request).await
    }

    /// Gives exactly this Pod to a node.
    pub(crate) async fn bind(&self, pod: &Object, node: &str) -> Result<(), Failure> {
        let Object { namespace, name, uid, .. } = pod;
        let body = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let request = request(Method::POST, &POD.path(namespace, name, "binding"), &body);
        let call = ObjectCall {
            uid: Some(uid.clone()),
            ..call(ObjectVerb::Bind, POD, namespace, name, body)
        };
        self.single(POD, call, request).await.map(drop)
    }

    pub(crate) async fn evict(&self, namespace: &str, name: &str) -> Result<(), Failure> {
        let body = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
        });
        let request = request(Method::POST, &POD.path(namespace, name, "eviction"), &body);
        let call = call(ObjectVerb::Evict, POD, namespace, name, body);
        self.single(POD, call, request).await.map(drop)
    }

    /// One object: linearizable, or whatever the replica has.
    pub(crate) async fn get(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        cached: bool,
    ) -> Result<Option<Object>, Failure> {
        let version = if cached { "0" } else { "" };
        let query = encode(&[("resourceVersion", version)]);
        let path = kind.path(namespace, name, "") + &query;
        let verb = if cached { ObjectVerb::Cached } else { ObjectVerb::Get };
        let call = call(verb, kind, namespace, name, Value::Null);
        self.single(kind, call, request(Method::GET, &path, &Value::Null)).await
    }

    /// All objects of a kind, and the revision that they are of.
    pub(crate) async fn list(
        &self,
        kind: Kind,
        namespace: &str,
        cached: bool,
    ) -> Result<(u64, Vec<Object>), Failure> {
        let version = if cached { "0" } else { "" };
        let path = kind.path(namespace, "", "") + &encode(&[("resourceVersion", version)]);
        let verb = if cached { ObjectVerb::Cached } else { ObjectVerb::List };
        let call = call(verb, kind, namespace, "", Value::Null);
        let invoked_ns = self.recorder.now_ns();
        let (outcome, result) = match self.ask(request(Method::GET, &path, &Value::Null)).await {
            Ok(mut answer) => {
                let revision = api::meta::resource_version(&answer).parse().unwrap_or_default();
                let items = answer.get_mut("items").map(Value::take);
                let items = items.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
                let items: Vec<Object> =
                    items.into_iter().filter_map(|item| object(kind, item)).collect();
                (many(revision, items.clone()), Ok((revision, items)))
            }
            Err(error) => {
                let (outcome, failure) = outcome(&error);
                (outcome, Err(failure))
            }
        };
        self.recorder.answered(self.id, self.replica, invoked_ns, call, outcome);
        result
    }

    /// Opens a watch; its body, line by line, is the caller's to read.
    pub(crate) async fn watch(
        &self,
        kind: Kind,
        after: u64,
        seconds: u64,
    ) -> Result<Body, ClientError> {
        let query = encode(&[
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", &after.to_string()),
            ("timeoutSeconds", &seconds.to_string()),
        ]);
        let path = kind.path("", "", "") + &query;
        let response = self.client.request(request(Method::GET, &path, &Value::Null)).await?;
        Ok(refuse(response).await?.into_body())
    }
}

fn call(verb: ObjectVerb, kind: Kind, namespace: &str, name: &str, body: Value) -> ObjectCall {
    ObjectCall {
        verb,
        kind: kind.name.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: None,
        resource_version: None,
        body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        for (path, want) in [
            (POD.path("", "", ""), "/api/v1/pods"),
            (POD.path("a", "", ""), "/api/v1/namespaces/a/pods"),
            (POD.path("a", "b", "eviction"), "/api/v1/namespaces/a/pods/b/eviction"),
            (NODE.path("a", "b", ""), "/api/v1/nodes/b"),
            (NAMESPACE.path("", "b", ""), "/api/v1/namespaces/b"),
            (SLICE.path("a", "", ""), "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices"),
        ] {
            assert_eq!(path, want);
        }
    }
}
