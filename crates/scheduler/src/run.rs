//! The shell around [`schedule`]: informers in, bindings out.

use crate::{Cache, Queue, schedule};
use api::core::{Node, Pod};
use client::{
    Client, ClientError, Patch, WriteOptions,
    copies::Copies,
    events::Recorder,
    informer::{Change, Informer, Key},
};
use serde_json::json;
use std::sync::Arc;
use tokio::{
    sync::broadcast::{
        Receiver,
        error::{RecvError, TryRecvError},
    },
    task::{JoinSet, yield_now},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Bindings under way at once: they share log entries.
const BINDINGS_MAX: usize = 256;
const NAME: &str = "default-scheduler";

/// Schedules until `shutdown`, as long as its client's epoch lasts; `copies` are kept up to date by who gives them.
pub async fn run(client: Client, copies: Copies, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    let Copies { pods, nodes } = copies;
    let mut pod_changes = pods.subscribe();
    let mut node_changes = nodes.subscribe();
    let (events, record) = Recorder::new(client.clone(), NAME, shutdown.child_token());
    tasks.spawn(record);
    let mut scheduler = Scheduler {
        client,
        events,
        pods,
        cache: Cache::default(),
        queue: Queue::default(),
        bindings: JoinSet::new(),
    };
    tokio::select! {
        () = async { nodes.synced().await; scheduler.pods.synced().await } => {}
        () = shutdown.cancelled() => return,
    }
    scheduler.relist(&nodes);
    loop {
        scheduler.schedule_all().await;
        let wake = scheduler.queue.next_wake();
        tokio::select! {
            change = next(&mut pod_changes) => match change {
                Some(change) => scheduler.pod_changed(&change),
                None => scheduler.relist(&nodes),
            },
            change = next(&mut node_changes) => match change {
                Some(change) => scheduler.node_changed(&change),
                None => scheduler.relist(&nodes),
            },
            done = scheduler.bindings.join_next(), if !scheduler.bindings.is_empty() => {
                if let Some(Ok(done)) = done {
                    scheduler.bound(done);
                }
            }
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            () = shutdown.cancelled() => break,
        }
        // Everything that is there already, before the next round of decisions.
        loop {
            match pod_changes.try_recv() {
                Ok(change) => scheduler.pod_changed(&change),
                // Some were missed: what is there now says it all (SCH-4).
                Err(TryRecvError::Lagged(_)) => scheduler.relist(&nodes),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
    }
    tasks.shutdown().await;
    scheduler.bindings.shutdown().await;
}

/// `None` when changes were missed.
async fn next<K>(changes: &mut Receiver<Change<K>>) -> Option<Change<K>> {
    match changes.recv().await {
        Ok(change) => Some(change),
        Err(RecvError::Lagged(_)) => None,
        // The informer ends with the shutdown, which is seen beside this.
        Err(RecvError::Closed) => std::future::pending().await,
    }
}

struct Scheduler {
    client: Client,
    events: Recorder,
    pods: Informer<Pod>,
    cache: Cache,
    queue: Queue,
    bindings: JoinSet<Done>,
}

/// How one binding ended.
struct Done {
    key: Key,
    uid: String,
    result: Result<(), ClientError>,
}

/// Whether the Pod waits for this scheduler: bound to no node, held back by no gate, nobody else's, and not on
/// its way out.
#[must_use]
pub fn is_mine(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.node_name.as_deref().unwrap_or_default().is_empty()
        && spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME
        && spec.scheduling_gates.as_deref().unwrap_or_default().is_empty()
        && pod.metadata.deletion_timestamp.is_none()
}

impl Scheduler {
    fn relist(&mut self, nodes: &Informer<Node>) {
        let (nodes, pods) = (nodes.list(), self.pods.list());
        let names = nodes.iter().filter_map(|node| node.metadata.name.clone()).collect();
        let uids = pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        self.cache.keep(&names, &uids);
        for node in nodes {
            self.cache.set_node(node);
        }
        for pod in pods {
            self.cache.set_pod(&pod);
            if is_mine(&pod) {
                self.queue.add(&Key::of(&*pod), priority(&pod));
            }
        }
        self.queue.wake(Instant::now());
    }

    fn pod_changed(&mut self, change: &Change<Pod>) {
        match &change.new {
            Some(pod) => {
                self.cache.set_pod(pod);
                if is_mine(pod) {
                    self.queue.add(&change.key, priority(pod));
                } else {
                    self.queue.remove(&change.key);
                }
            }
            None => {
                self.queue.remove(&change.key);
                if let Some(uid) = change.old.as_ref().and_then(|p| p.metadata.uid.as_deref()) {
                    self.cache.remove_pod(uid);
                }
            }
        }
        let on_node = |pod: &Option<Arc<Pod>>| {
            pod.as_ref().is_some_and(|p| {
                !is_mine(p)
                    && p.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Succeeded")
                    && p.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Failed")
            })
        };
        if on_node(&change.old) && !on_node(&change.new) {
            // A Pod has left its node: there may be room.
            self.queue.wake(Instant::now());
        }
    }

    fn node_changed(&mut self, change: &Change<Node>) {
        match &change.new {
            Some(node) => {
                let relevant = |n: &Node| {
                    let allocatable = n.status.as_ref().and_then(|s| s.allocatable.clone());
                    (n.spec.clone(), n.metadata.labels.clone(), allocatable)
                };
                let changed = change.old.as_ref().is_none_or(|old| relevant(old) != relevant(node));
                self.cache.set_node(Arc::clone(node));
                if changed {
                    self.queue.wake(Instant::now());
                }
            }
            None => self.cache.remove_node(&change.key.name),
        }
    }

    async fn schedule_all(&mut self) {
        while self.bindings.len() < BINDINGS_MAX {
            let Some(key) = self.queue.pop(Instant::now()) else { return };
            // A crowd of Pods must not keep a thread from those who keep the lead.
            yield_now().await;
            let Some(pod) = self.pods.get(&key).filter(|pod| is_mine(pod)) else {
                self.queue.remove(&key);
                continue;
            };
            match schedule(&self.cache, &pod) {
                Ok(node) => {
                    self.cache.assume(&pod, &node);
                    let (client, events) = (self.client.clone(), self.events.clone());
                    self.bindings.spawn(bind(client, events, key, pod, node));
                }
                Err(error) => {
                    self.queue.unschedulable(&key, Instant::now());
                    let (client, events) = (self.client.clone(), self.events.clone());
                    self.bindings.spawn(refuse(client, events, key, pod, error.message()));
                }
            }
        }
    }

    fn bound(&mut self, done: Done) {
        let now = Instant::now();
        if let Err(error) = &done.result {
            tracing::debug!(pod = %done.key.name, %error, "not bound: it is tried again");
        }
        match done.result {
            Ok(()) => {}
            // It may have been bound: the assumption stays until the API shows it (FEN-32).
            Err(ClientError::Unknown { .. }) => self.queue.interrupted(&done.key, now),
            Err(ClientError::Api(status)) if status.code == 504 => {
                self.queue.interrupted(&done.key, now);
            }
            Err(error) => {
                self.cache.forget(&done.uid);
                if matches!(&error, ClientError::Api(status) if status.code == 503) {
                    self.queue.interrupted(&done.key, now);
                } else {
                    self.queue.failed(&done.key, now);
                }
            }
        }
    }
}

fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|s| s.priority).unwrap_or_default()
}

async fn bind(client: Client, events: Recorder, key: Key, pod: Arc<Pod>, node: String) -> Done {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let version = pod.metadata.resource_version.as_deref();
    let result = client.bind(&key.namespace, &key.name, &uid, version, &node).await;
    if result.is_ok() {
        let message = format!("Successfully assigned {}/{} to {node}", key.namespace, key.name);
        events.normal(&*pod, "Scheduled", &message);
    }
    Done { key, uid, result }
}

/// Says on the Pod why it waits: only on this version of it, so that it never overwrites a binding
/// (FEN-12).
async fn refuse(
    client: Client,
    events: Recorder,
    key: Key,
    pod: Arc<Pod>,
    message: String,
) -> Done {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let said = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten())
        .any(|c| c.type_ == "PodScheduled" && c.message.as_deref() == Some(message.as_str()));
    if !said {
        let condition = json!([{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": message,
        }]);
        let patch = Patch::Merge(json!({
            "metadata": {"uid": uid, "resourceVersion": pod.metadata.resource_version},
            "status": {"conditions": condition},
        }));
        let options = WriteOptions { subresource: "status".to_owned(), ..WriteOptions::default() };
        let patched = client.patch::<Pod>(Some(&key.namespace), &key.name, &patch, &options).await;
        if patched.is_ok() {
            events.warning(&*pod, "FailedScheduling", &message);
        }
    }
    Done { key, uid, result: Ok(()) }
}
