//! What every namespace that is to stay has: looked at when a namespace changes, and when what it was given does.

use crate::{caches::Caches, queue::Queue};
use api::core::{Namespace, ObjectMeta};
use client::{
    ClientError,
    informer::{Change, Informer, Key},
};

const WORKERS: usize = 2;

/// Whether it is there and not about to go.
pub(crate) fn stays(namespace: Option<&Namespace>) -> bool {
    namespace.is_some_and(|ns| ns.metadata.deletion_timestamp.is_none())
}

/// Brings one namespace after the other up to date with `sync`, by their keys; again when `concerns` says so of a
/// change of what they were given.
pub(crate) async fn keep<K, F>(
    caches: &Caches,
    given: &Informer<K>,
    concerns: impl Fn(&Change<K>) -> bool,
    sync: impl Fn(Key) -> F,
) where
    K: api::k8s_openapi::Resource
        + api::k8s_openapi::Metadata<Ty = ObjectMeta>
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
    F: Future<Output = Result<(), ClientError>>,
{
    let queue = Queue::default();
    let all = || caches.namespaces.list().iter().map(|ns| Key::of(&**ns)).collect();
    let of = |name: &str| Key { namespace: String::new(), name: name.to_owned() };
    let concerned = |change: &Change<K>| {
        concerns(change).then(|| of(&change.key.namespace)).into_iter().collect()
    };
    tokio::join!(
        queue.feed(&caches.namespaces, |change| vec![change.key.clone()], all),
        queue.feed(given, concerned, all),
        async {
            caches.synced().await;
            queue.work(WORKERS, sync).await;
        },
    );
}

/// How a write into a namespace went: nothing is to be done again where what is written is there already, or the
/// namespace is not or not for long.
pub(crate) fn unless_moot<T>(written: Result<T, ClientError>) -> Result<(), ClientError> {
    match written {
        Err(ClientError::Api(status))
            if status.is_already_exists()
                || status.is_not_found()
                || status.has_cause("NamespaceTerminating") =>
        {
            Ok(())
        }
        written => written.map(drop),
    }
}
