//! Which changes of Pods concern which node: one watch for all sessions of a replica (SEL-3).

use crate::registry::{Registry, decode, prefix};
use api::kinds::{self, Kind};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use store::{
    EventKind, KeyRange, Revision,
    watch::{WatchMessage, WatchRequest},
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

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn pod_kind() -> &'static Kind {
    kinds::by_alias("pods").expect("Pod is served")
}

fn node_of(pod: &Value) -> &str {
    pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default()
}

impl PodIndex {
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, inner: Arc::default() }
    }

    /// The Pods of a node as they are at a revision, and every later change.
    pub(super) fn follow(&self, node: &str) -> (Revision, Vec<PodEvent>, mpsc::Receiver<PodEvent>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        {
            let mut inner = lock(&self.inner);
            inner.subscribers.entry(node.to_owned()).or_default().push(sender);
            if !inner.running {
                inner.running = true;
                let (registry, shared) = (self.registry.clone(), Arc::clone(&self.inner));
                #[expect(clippy::disallowed_methods, reason = "ends with the last session")]
                tokio::spawn(async move { watch(&registry, &shared).await });
            }
        }
        // Subscribed before the state is read: nothing falls between the two.
        let view = self.registry.store().view();
        let kind = pod_kind();
        let pods = view
            .live(&KeyRange::prefix(prefix(kind, "")))
            .filter_map(|kv| event(kind, kv, false))
            .filter(|(of, _)| of == node)
            .map(|(_, event)| event)
            .collect();
        (view.revision(), pods, receiver)
    }
}

fn event(kind: &Kind, kv: &store::KeyValue, removed: bool) -> Option<(String, PodEvent)> {
    let pod = decode(kind, kv).ok()?;
    let node = node_of(&pod);
    if node.is_empty() {
        return None;
    }
    let event = PodEvent {
        pod: serde_json::to_vec(&pod).ok()?.into(),
        removed,
        revision: kv.mod_revision.get(),
    };
    Some((node.to_owned(), event))
}

async fn watch(registry: &Registry, inner: &Mutex<Inner>) {
    let kind = pod_kind();
    let range = KeyRange::prefix(prefix(kind, ""));
    'again: loop {
        let Ok(mut watcher) =
            registry.store().watch(WatchRequest { range: range.clone(), start: Revision::ZERO })
        else {
            break;
        };
        loop {
            match watcher.next().await {
                Some(WatchMessage::Events(batch)) => {
                    for change in batch.events.iter() {
                        let found = match change.kind {
                            EventKind::Put => event(kind, &change.kv, false),
                            EventKind::Delete => change.prev.as_ref().and_then(|prev| {
                                let (node, mut event) = event(kind, prev, true)?;
                                event.revision = change.kv.mod_revision.get();
                                Some((node, event))
                            }),
                        };
                        if let Some((node, event)) = found {
                            deliver(inner, &node, &event);
                        }
                    }
                }
                Some(WatchMessage::Canceled { .. }) | None => {
                    // Something may have been missed: every session must list again.
                    let mut inner = lock(inner);
                    inner.subscribers.clear();
                    continue 'again;
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
    let mut inner = lock(inner);
    inner.running = false;
    inner.subscribers.clear();
}

fn deliver(inner: &Mutex<Inner>, node: &str, event: &PodEvent) {
    let mut inner = lock(inner);
    if let Some(list) = inner.subscribers.get_mut(node) {
        list.retain(|subscriber| subscriber.try_send(event.clone()).is_ok());
    }
}
