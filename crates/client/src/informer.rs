//! A copy of a kind that follows the API: list once, then watch (CTL-1, FEN-37).

use crate::{Client, ListOptions};
use api::k8s_openapi::{Metadata, Resource, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// `namespace/name`, or `name` of what has no namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
}

/// Something changed in the copy.
#[derive(Debug, Clone)]
pub struct Change<K> {
    /// Of the object.
    pub key: Key,
    /// `None` when it is new.
    pub old: Option<Arc<K>>,
    /// `None` when it is gone.
    pub new: Option<Arc<K>>,
}

/// The reading half: cheap to clone, never waits for the network.
#[derive(Debug, Clone)]
pub struct Informer<K> {
    // filled in by the client's owner
    _private: std::marker::PhantomData<K>,
}

#[expect(
    clippy::unimplemented,
    unused_variables,
    clippy::unused_async,
    reason = "signatures first"
)]
impl<K> Informer<K>
where
    K: Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static,
{
    /// The copy, and the future that keeps it up to date until `shutdown`: the owner spawns it.
    pub fn new(
        client: Client,
        namespace: Option<String>,
        options: ListOptions,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        (Self { _private: std::marker::PhantomData }, async { unimplemented!() })
    }

    /// Returns once the first complete list is in (NOD-20).
    pub async fn synced(&self) {}

    /// One object, as last seen.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        unimplemented!()
    }

    /// All objects, in key order, in O(n).
    #[must_use]
    pub fn list(&self) -> Vec<Arc<K>> {
        unimplemented!()
    }

    /// Everything up to this revision is in the copy (CTL-3).
    #[must_use]
    pub fn revision(&self) -> u64 {
        unimplemented!()
    }

    /// Returns once [`Informer::revision`] is at least `revision`.
    pub async fn reached(&self, revision: u64) {}

    /// Every change from now on. A receiver that lags must list again.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Change<K>> {
        unimplemented!()
    }
}
