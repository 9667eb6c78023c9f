//! Typed calls over any service that answers HTTP.

use crate::ClientError;
use api::{
    caller::{ControllerOrigin, Identity},
    k8s_openapi::{Metadata, Resource, apimachinery::pkg::apis::meta::v1::ObjectMeta},
};
use bytes::Bytes;
use futures::stream::BoxStream;
use http_body_util::combinators::UnsyncBoxBody;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::convert::Infallible;
use tower::util::BoxCloneSyncService;

/// The body of every request and answer.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A door to the API. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    // filled in by the client's owner
    _private: (),
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

/// How to delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds; the object's own when `None`.
    pub grace_period_seconds: Option<i64>,
    /// Only this incarnation.
    pub uid: Option<String>,
    /// Only this version.
    pub resource_version: Option<String>,
    /// Do everything but the write.
    pub dry_run: bool,
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

#[expect(
    clippy::unused_async,
    unused_variables,
    clippy::unimplemented,
    reason = "signatures first"
)]
impl Client {
    /// Over the API server's router in this process (FEN-5): every write carries `origin`.
    #[must_use]
    pub fn in_process(
        service: BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>,
        identity: Identity,
        origin: Option<ControllerOrigin>,
    ) -> Self {
        unimplemented!()
    }

    /// One object.
    ///
    /// # Errors
    /// 404 as [`ClientError::Api`].
    pub async fn get<K>(&self, namespace: Option<&str>, name: &str) -> Result<K, ClientError>
    where
        K: Resource + DeserializeOwned,
    {
        unimplemented!()
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
        unimplemented!()
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
        unimplemented!()
    }

    /// Creates `object` in its own namespace; what was stored.
    ///
    /// # Errors
    /// 409 and 422 as [`ClientError::Api`].
    pub async fn create<K>(&self, object: &K, options: &WriteOptions) -> Result<K, ClientError>
    where
        K: Resource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned,
    {
        unimplemented!()
    }

    /// Replaces the object; with a `resourceVersion` only that version.
    ///
    /// # Errors
    /// 409 as [`ClientError::Api`].
    pub async fn update<K>(&self, object: &K, options: &WriteOptions) -> Result<K, ClientError>
    where
        K: Resource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned,
    {
        unimplemented!()
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
        unimplemented!()
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
        unimplemented!()
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
        unimplemented!()
    }

    /// Any request; the path and query decide. Failover and retries as for typed calls.
    ///
    /// # Errors
    /// Only transport errors: a refusal is an answer.
    pub async fn request(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Body>, ClientError> {
        unimplemented!()
    }
}
