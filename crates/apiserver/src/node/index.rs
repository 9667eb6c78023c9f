//! Which changes of Pods concern which node: one watch for all sessions of a replica (SEL-3).

use crate::registry::{Known, NODE_NAME, Registry, prefix};
use api::kinds::{self, Kind};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use store::{
    Event, EventKind, KeyRange, KeyValue, Revision,
    watch::{WatchError, WatchMessage, WatchRequest, Watcher},
};
use tokio::sync::mpsc;

/// A Pod of a node has changed.
#[derive(Debug, Clone)]
pub(super) struct PodEvent {
    pub(super) pod: Arc<[u8]>,
    pub(super) removed: bool,
    pub(super) revision: u64,
}

/// Changes on their way to one session; one that falls behind is ended and lists again.
const QUEUE: usize = 4096;

type Subscribers = BTreeMap<String, Vec<mpsc::Sender<PodEvent>>>;

/// The watch and who follows it. It runs while there are sessions.
pub(super) struct PodIndex {
    registry: Registry,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    subscribers: Subscribers,
    running: bool,
}

/// What a session begins with.
pub(super) struct Followed {
    /// Everything up to here is in `pods`, or was known before.
    pub(super) revision: Revision,
    /// All Pods of the node, or those that have changed since.
    pub(super) pods: Vec<PodEvent>,
    /// `pods` is only what the node has missed.
    pub(super) resumed: bool,
    /// Every later change.
    pub(super) changes: mpsc::Receiver<PodEvent>,
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn pod_kind() -> &'static Kind {
    kinds::by_alias("pods").expect("Pod is served")
}

fn pod_range() -> KeyRange {
    KeyRange::prefix(prefix(pod_kind(), ""))
}

/// The node that a stored Pod is on.
fn node_of(pod: &KeyValue) -> Option<String> {
    match NODE_NAME.read(&pod.value).ok()?.pointer_mut("/spec/nodeName").map(Value::take) {
        Some(Value::String(name)) if !name.is_empty() => Some(name),
        _ => None,
    }
}

impl PodIndex {
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, inner: Arc::default() }
    }

    /// The Pods of a node as they are at a revision, and every later change. A node that knows
    /// everything up to `known`, if it is not [`Revision::ZERO`] and still kept, is told the rest only.
    ///
    /// # Errors
    /// The store has stopped.
    pub(super) fn follow(&self, node: &str, known: Revision) -> Result<Followed, WatchError> {
        let (sender, changes) = mpsc::channel(QUEUE);
        {
            let mut inner = lock(&self.inner);
            if !inner.running {
                let watcher = begin(&self.registry)?;
                inner.running = true;
                let (registry, shared) = (self.registry.clone(), Arc::clone(&self.inner));
                #[expect(clippy::disallowed_methods, reason = "ends with the last session")]
                tokio::spawn(async move { watch(&registry, &shared, watcher).await });
            }
            inner.subscribers.entry(node.to_owned()).or_default().push(sender);
        }
        // The watch began and this node subscribed before the state is read: nothing falls between.
        let view = self.registry.store().view();
        let range = pod_range();
        let missed = (known > Revision::ZERO).then(|| view.changes_after(&range, known));
        let known_versions = self.registry.known();
        let of_node = |found: Option<(String, PodEvent)>| {
            found.filter(|(of, _)| of == node).map(|(_, event)| event)
        };
        let (pods, resumed) = if let Some(Ok(missed)) = missed {
            (missed.filter_map(|change| of_node(changed(known_versions, change))).collect(), true)
        } else {
            let live = view.live(&range);
            // Every node of a crowd that comes back asks for this: only what names it is decoded.
            let named = format!("\"{node}\"");
            let own = live.filter(|kv| {
                std::str::from_utf8(&kv.value).is_ok_and(|text| text.contains(&named))
            });
            let own = own.filter_map(|kv| of_node(event(known_versions, kv, false)));
            (own.collect(), false)
        };
        Ok(Followed { revision: view.revision(), pods, resumed, changes })
    }
}

fn begin(registry: &Registry) -> Result<Watcher, WatchError> {
    registry.store().watch(WatchRequest { range: pod_range(), start: Revision::ZERO })
}

/// What a change means to the node that the Pod is, or was, on.
fn changed(known: &Known, change: &Event) -> Option<(String, PodEvent)> {
    match change.kind {
        EventKind::Put => event(known, &change.kv, false),
        EventKind::Delete => {
            let (node, mut event) = event(known, change.prev.as_ref()?, true)?;
            event.revision = change.kv.mod_revision.get();
            Some((node, event))
        }
    }
}

fn event(known: &Known, kv: &Arc<KeyValue>, removed: bool) -> Option<(String, PodEvent)> {
    let node = node_of(kv)?;
    let kind = pod_kind();
    let stored = known.examine(kind, Arc::clone(kv)).ok()?;
    let mut pod = Vec::with_capacity(stored.len());
    stored.write(kind, &mut pod).ok()?;
    Some((node, PodEvent { pod: pod.into(), removed, revision: kv.mod_revision.get() }))
}

async fn watch(registry: &Registry, inner: &Mutex<Inner>, mut watcher: Watcher) {
    loop {
        match watcher.next().await {
            Some(WatchMessage::Events(batch)) => {
                for (node, event) in
                    batch.events.iter().filter_map(|change| changed(registry.known(), change))
                {
                    deliver(inner, &node, &event);
                }
            }
            Some(WatchMessage::Canceled { .. }) | None => {
                // Something may have been missed: every session must begin again.
                let mut inner = lock(inner);
                inner.subscribers.clear();
                match begin(registry) {
                    Ok(next) => watcher = next,
                    Err(_) => {
                        inner.running = false;
                        return;
                    }
                }
            }
        }
        let mut inner = lock(inner);
        if inner.subscribers.values().flatten().all(mpsc::Sender::is_closed) {
            inner.running = false;
            inner.subscribers.clear();
            return;
        }
    }
}

fn deliver(inner: &Mutex<Inner>, node: &str, event: &PodEvent) {
    let mut inner = lock(inner);
    if let Some(list) = inner.subscribers.get_mut(node) {
        list.retain(|subscriber| subscriber.try_send(event.clone()).is_ok());
    }
}
