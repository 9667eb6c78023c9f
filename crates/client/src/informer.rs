//! A copy of a kind that follows the API: list once, then watch (CTL-1, FEN-37).
//!
//! Who manages which field is not kept: it takes more memory than the rest of most objects, and whoever writes
//! an object back without it leaves it as it is.

use crate::{Client, ClientError, ListOptions, WatchEvent, WatchOptions};
use api::k8s_openapi::{Metadata, Resource, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use futures::StreamExt as _;
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{broadcast, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// Changes that a subscriber may be behind; then it must list again.
const CHANGES: usize = 4096;
/// Objects of one page of a list: of what a kind takes as text and before it is cut down to what is kept, no
/// more is in memory at once.
const PAGE: u32 = 500;
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// `namespace/name`, or `name` of what has no namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
}

impl Key {
    /// Of an object.
    #[must_use]
    pub fn of<K: Metadata<Ty = ObjectMeta>>(object: &K) -> Self {
        let metadata = object.metadata();
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

/// Something changed in the copy.
#[derive(Debug)]
pub struct Change<K> {
    /// Of the object.
    pub key: Key,
    /// `None` when it is new.
    pub old: Option<Arc<K>>,
    /// `None` when it is gone.
    pub new: Option<Arc<K>>,
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), old: self.old.clone(), new: self.new.clone() }
    }
}

/// The reading half: cheap to clone, never waits for the network.
#[derive(Debug)]
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

#[derive(Debug)]
struct Shared<K> {
    objects: RwLock<BTreeMap<Key, Arc<K>>>,
    /// 0 before the first list.
    revision: watch::Sender<u64>,
    lists: AtomicU64,
    changes: broadcast::Sender<Change<K>>,
}

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
        Self::keeping(|object: K| object, client, namespace, options, shutdown)
    }

    /// The same, of objects of which only what `R` reads is read, and kept as `keep` makes it: there may be many,
    /// and few of their fields are used. It must leave what [`Key::of`] reads, and the version.
    pub fn keeping<R: DeserializeOwned + Send + 'static>(
        keep: fn(R) -> K,
        client: Client,
        namespace: Option<String>,
        options: ListOptions,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::new(Shared {
            objects: RwLock::default(),
            revision: watch::Sender::new(0),
            lists: AtomicU64::new(0),
            changes: broadcast::Sender::new(CHANGES),
        });
        let informer = Self { shared: Arc::clone(&shared) };
        let follow = async move {
            tokio::select! {
                () = follow(&client, namespace.as_deref(), &options, &shared, keep) => {}
                () = shutdown.cancelled() => {}
            }
        };
        (informer, follow)
    }

    /// Returns once the first complete list is in (NOD-20).
    pub async fn synced(&self) {
        self.reached(1).await;
    }

    /// One object, as last seen.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.shared.objects.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// All objects, in key order, in O(n).
    #[must_use]
    pub fn list(&self) -> Vec<Arc<K>> {
        let objects = self.shared.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.values().cloned().collect()
    }

    /// All objects of a namespace, in order of their names.
    #[must_use]
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = self.shared.objects.read().unwrap_or_else(PoisonError::into_inner);
        let first = Key { namespace: namespace.to_owned(), name: String::new() };
        let rest = objects.range(first..);
        rest.take_while(|(key, _)| key.namespace == namespace).map(|(_, o)| Arc::clone(o)).collect()
    }

    /// Everything up to this revision is in the copy (CTL-3).
    #[must_use]
    pub fn revision(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    /// How often everything was listed: more than once where a watch could not go on from what was seen, so that
    /// versions in between may have been passed over.
    #[must_use]
    pub fn lists(&self) -> u64 {
        self.shared.lists.load(Ordering::Acquire)
    }

    /// Returns once [`Informer::revision`] is at least `revision`.
    pub async fn reached(&self, revision: u64) {
        let mut now = self.shared.revision.subscribe();
        // The sender lives in `self`.
        let _ = now.wait_for(|now| *now >= revision).await;
    }

    /// Every change from now on. A receiver that lags must list again.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Change<K>> {
        self.shared.changes.subscribe()
    }
}

async fn follow<K, R>(
    client: &Client,
    namespace: Option<&str>,
    options: &ListOptions,
    shared: &Shared<K>,
    keep: fn(R) -> K,
) where
    K: Resource + Metadata<Ty = ObjectMeta> + Send + Sync + 'static,
    R: DeserializeOwned + Send + 'static,
{
    let mut backoff = BACKOFF_MIN;
    loop {
        match shared.list(client, namespace, options, keep).await {
            Ok((objects, mut revision)) => {
                backoff = BACKOFF_MIN;
                shared.replace(objects, revision);
                let error = shared.watch(client, namespace, options, &mut revision, keep).await;
                tracing::debug!(kind = K::KIND, %error, "lists again");
            }
            Err(error) => tracing::debug!(kind = K::KIND, %error, "list"),
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

impl<K> Shared<K>
where
    K: Resource + Metadata<Ty = ObjectMeta> + Send + Sync + 'static,
{
    /// All objects at one revision, page by page.
    async fn list<R: DeserializeOwned>(
        &self,
        client: &Client,
        namespace: Option<&str>,
        options: &ListOptions,
        keep: fn(R) -> K,
    ) -> Result<(BTreeMap<Key, Arc<K>>, u64), ClientError> {
        let mut objects = BTreeMap::new();
        // The first page is linearizable: a copy must never begin behind what somebody has seen (FEN-37).
        let mut page = ListOptions { limit: PAGE, ..options.clone() };
        loop {
            let list = client.list_as::<K, R>(namespace, &page).await?;
            let items = list.items.into_iter().map(|object| kept(keep(object)));
            objects.extend(items.map(|object| (Key::of(&*object), object)));
            if list.continue_token.is_empty() {
                return Ok((objects, list.resource_version.parse().unwrap_or_default()));
            }
            page.continue_token = list.continue_token;
            page.resource_version.clear();
        }
    }

    fn replace(&self, new: BTreeMap<Key, Arc<K>>, revision: u64) {
        self.lists.fetch_add(1, Ordering::AcqRel);
        let old = {
            let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *objects, new.clone())
        };
        self.revision.send_replace(revision.max(1));
        for (key, object) in &old {
            if !new.contains_key(key) {
                self.tell(Change { key: key.clone(), old: Some(Arc::clone(object)), new: None });
            }
        }
        for (key, object) in new {
            let before = old.get(&key).cloned();
            let same = before.as_ref().is_some_and(|b| {
                b.metadata().resource_version == object.metadata().resource_version
            });
            if !same {
                self.tell(Change { key, old: before, new: Some(object) });
            }
        }
    }

    fn set(&self, object: K, gone: bool) {
        let key = Key::of(&object);
        let revision = revision_of(&object);
        let new = (!gone).then(|| kept(object));
        let old = {
            let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
            match &new {
                Some(new) => objects.insert(key.clone(), Arc::clone(new)),
                None => objects.remove(&key),
            }
        };
        self.tell(Change { key, old, new });
        self.revision.send_if_modified(|now| std::mem::replace(now, revision.max(*now)) < revision);
    }

    fn tell(&self, change: Change<K>) {
        // Nobody listening is no error.
        let _ = self.changes.send(change);
    }

    /// Follows from `revision` over as many streams as it takes; the error that needs a new list.
    async fn watch<R: DeserializeOwned + Send + 'static>(
        &self,
        client: &Client,
        namespace: Option<&str>,
        options: &ListOptions,
        revision: &mut u64,
        keep: fn(R) -> K,
    ) -> ClientError {
        let mut backoff = BACKOFF_MIN;
        loop {
            let watch = WatchOptions {
                label_selector: options.label_selector.clone(),
                field_selector: options.field_selector.clone(),
                resource_version: revision.to_string(),
                timeout_seconds: 0,
            };
            match client.watch_unmanaged::<K, R>(namespace, &watch).await {
                Ok(mut events) => {
                    while let Some(event) = events.next().await {
                        backoff = BACKOFF_MIN;
                        match event {
                            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                                let object = keep(object);
                                *revision = revision_of(&object).max(*revision);
                                self.set(object, false);
                            }
                            Ok(WatchEvent::Deleted(object)) => {
                                let object = keep(object);
                                *revision = revision_of(&object).max(*revision);
                                self.set(object, true);
                            }
                            Ok(WatchEvent::Bookmark(at)) => {
                                *revision = at.parse().unwrap_or(*revision);
                                self.revision.send_replace(*revision);
                            }
                            Err(error @ ClientError::Api(_)) => return error,
                            Err(error) => {
                                tracing::debug!(kind = K::KIND, %error, "watch");
                                break;
                            }
                        }
                    }
                }
                Err(error @ ClientError::Api(_)) => return error,
                Err(error) => tracing::debug!(kind = K::KIND, %error, "watch"),
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

fn kept<K: Metadata<Ty = ObjectMeta>>(mut object: K) -> Arc<K> {
    object.metadata_mut().managed_fields = None;
    Arc::new(object)
}

fn revision_of<K: Metadata<Ty = ObjectMeta>>(object: &K) -> u64 {
    object.metadata().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default()
}
