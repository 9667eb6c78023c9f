//! What the control plane must be told: the end of a Pod is kept on disk until it is acknowledged (CRE-4, S28).
//!
//! One place sends again: the session, over as many streams as it takes. The outbox numbers, joins
//! what is about one Pod, remembers over a restart, and puts each message into the session once in the
//! life of the agent.
//!
//! What a Pod is like while it runs is not kept: an agent that starts says that anew, and what an earlier one had
//! not had acknowledged may be long past. After a power cut even what was acknowledged since may be forgotten.

use crate::journal::{Found, Journal};
use api::{core::Pod, status::Status};
use client::node::ToControlPlane;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, mpsc, oneshot};

const PREFIX: &str = "outbox/";

/// What is said of a Pod; the latest of each is what counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Topic {
    Status,
    Delete,
}

/// A message to the control plane about one Pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    topic: Topic,
    namespace: String,
    name: String,
    uid: String,
    /// JSON; empty for a deletion.
    status: String,
}

impl Message {
    fn new(pod: &Pod, topic: Topic, status: String) -> Self {
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        let metadata = &pod.metadata;
        let (namespace, name) = (of(&metadata.namespace), of(&metadata.name));
        Self { topic, namespace, name, uid: of(&metadata.uid), status }
    }

    /// The Pod's whole status.
    pub(crate) fn status(pod: &Pod, status: &Value) -> Self {
        Self::new(pod, Topic::Status, status.to_string())
    }

    /// The last step of its deletion (DEL-30).
    pub(crate) fn delete(pod: &Pod) -> Self {
        Self::new(pod, Topic::Delete, String::new())
    }

    fn key(&self) -> Key {
        (self.uid.clone(), self.topic)
    }

    /// Whether nobody knows it any more after a restart, unless it is on disk.
    fn is_last(&self) -> bool {
        let ended = || {
            let status: Option<Value> = serde_json::from_str(&self.status).ok();
            let phase = status.as_ref().and_then(|status| status.get("phase")?.as_str());
            matches!(phase, Some("Succeeded" | "Failed"))
        };
        self.topic == Topic::Delete || ended()
    }

    fn request(self, sequence: u64) -> ToControlPlane {
        let Self { topic, namespace, name, uid, status } = self;
        match topic {
            Topic::Status => {
                let status = serde_json::from_str(&status).unwrap_or_default();
                ToControlPlane::PodStatus { sequence, namespace, name, uid, status }
            }
            Topic::Delete => ToControlPlane::PodDelete { sequence, namespace, name, uid },
        }
    }
}

type Key = (String, Topic);
type Answer = Result<u64, Status>;

fn record_key((uid, topic): &Key) -> String {
    match topic {
        Topic::Status => format!("{PREFIX}{uid}/status"),
        Topic::Delete => format!("{PREFIX}{uid}/delete"),
    }
}

#[derive(Default)]
struct State {
    sequence: u64,
    /// Not given to the session yet.
    queue: BTreeMap<u64, Message>,
    /// Not acknowledged yet: the newest of each.
    latest: BTreeMap<Key, Latest>,
    /// Whoever waits for an acknowledgement.
    waiting: BTreeMap<u64, (Key, oneshot::Sender<Answer>)>,
}

#[derive(Clone, Copy)]
struct Latest {
    sequence: u64,
    on_disk: bool,
}

/// Messages that are not acknowledged.
pub(crate) struct Outbox {
    state: Mutex<State>,
    posted: Notify,
    journal: Arc<Journal>,
}

impl Outbox {
    /// With what an earlier agent could not get acknowledged.
    pub(crate) fn new(journal: Arc<Journal>, found: &Found) -> Self {
        let outbox = Self { state: Mutex::default(), posted: Notify::new(), journal };
        let mut left: Vec<Message> = found.below(PREFIX).into_values().collect();
        left.sort_by_key(Message::key);
        for message in left {
            if message.is_last() {
                outbox.post(message, None);
            } else {
                // Agents of earlier versions kept these, too.
                outbox.journal.remove(record_key(&message.key()));
            }
        }
        outbox
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, message: Message, answer: Option<oneshot::Sender<Answer>>) {
        let key = message.key();
        let on_disk = message.is_last();
        if on_disk {
            self.journal.put(record_key(&key), &message);
        }
        let mut state = self.state();
        state.sequence += 1;
        let sequence = state.sequence;
        if let Some(older) = state.latest.insert(key.clone(), Latest { sequence, on_disk }) {
            state.queue.remove(&older.sequence);
            if older.on_disk && !on_disk {
                self.journal.remove(record_key(&key));
            }
        }
        if let Some(answer) = answer {
            state.waiting.insert(sequence, (key, answer));
        }
        state.queue.insert(sequence, message);
        drop(state);
        self.posted.notify_one();
    }

    /// Sends a message that a newer one may replace. Never waits.
    pub(crate) fn send(&self, message: Message) {
        self.post(message, None);
    }

    /// Sends a message and waits, as long as it takes, for the revision at which it was committed, or
    /// why it was refused for good.
    pub(crate) async fn acknowledged(&self, message: Message) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.post(message, Some(answer));
        answered.await.unwrap_or_else(|_| Err(Status::unavailable("the agent is stopping")))
    }

    /// Takes up an acknowledgement. It holds for everything older that was said of the same, too: the
    /// session may have left that out.
    pub(crate) fn settle(&self, sequence: u64, result: &Answer) {
        let mut state = self.state();
        let newest = state.latest.iter().find(|(_, latest)| latest.sequence == sequence);
        if let Some((key, latest)) = newest.map(|(key, latest)| (key.clone(), *latest)) {
            state.latest.remove(&key);
            let older: Vec<u64> = state
                .waiting
                .range(..=sequence)
                .filter(|(_, (waiting, _))| *waiting == key)
                .map(|(older, _)| *older)
                .collect();
            for older in older {
                if let Some((_, answer)) = state.waiting.remove(&older) {
                    let _ = answer.send(result.clone());
                }
            }
            if latest.on_disk {
                self.journal.remove(record_key(&key));
            }
        } else if let Some((_, answer)) = state.waiting.remove(&sequence) {
            let _ = answer.send(result.clone());
        }
    }

    fn next(&self) -> Option<ToControlPlane> {
        let (sequence, message) = self.state().queue.pop_first()?;
        Some(message.request(sequence))
    }

    /// Gives everything to the session, oldest first, until that ends.
    pub(crate) async fn pump(self: Arc<Self>, requests: mpsc::Sender<ToControlPlane>) {
        loop {
            while let Ok(room) = requests.reserve().await {
                let Some(request) = self.next() else { break };
                room.send(request);
            }
            tokio::select! {
                () = self.posted.notified() => {}
                () = requests.closed() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        disk::{MemoryDisk, NodeDisk as _},
        testing::pod,
    };
    use serde_json::json;
    use std::{path::Path, time::Duration};
    use tokio_util::sync::CancellationToken;

    fn named(uid: &str) -> Pod {
        let mut pod = pod(json!({"containers": []}));
        pod.metadata.uid = Some(uid.to_owned());
        pod
    }

    fn status(uid: &str, phase: &str) -> Message {
        Message::status(&named(uid), &json!({"phase": phase}))
    }

    /// What is given to the session now: sequence, UID, phase or `delete`.
    fn given(outbox: &Outbox) -> Vec<(u64, String, String)> {
        std::iter::from_fn(|| outbox.next())
            .map(|request| match request {
                ToControlPlane::PodStatus { sequence, uid, status, .. } => {
                    (sequence, uid, status["phase"].as_str().unwrap().to_owned())
                }
                ToControlPlane::PodDelete { sequence, uid, .. } => {
                    (sequence, uid, "delete".to_owned())
                }
                other @ (ToControlPlane::NodeStatus { .. } | ToControlPlane::Event { .. }) => {
                    panic!("{other:?}")
                }
            })
            .collect()
    }

    fn texts(given: Vec<(u64, String, String)>) -> Vec<String> {
        given.into_iter().map(|(_, uid, what)| format!("{uid} {what}")).collect()
    }

    fn empty() -> Outbox {
        Outbox::new(Arc::default(), &Found::default())
    }

    #[test]
    fn only_the_latest_status_of_a_pod_is_sent_and_never_out_of_order() {
        // NOD-22
        let outbox = empty();
        outbox.send(status("a", "Pending"));
        outbox.send(status("b", "Pending"));
        outbox.send(status("a", "Running"));
        outbox.send(Message::delete(&named("a")));
        assert_eq!(texts(given(&outbox)), ["b Pending", "a Running", "a delete"]);
        assert_eq!(given(&outbox), [], "each once: the session sends again");
    }

    #[tokio::test]
    async fn an_acknowledgement_holds_for_what_was_left_out() {
        // CRE-4
        let outbox = Arc::new(empty());
        let waits = {
            let outbox = Arc::clone(&outbox);
            async move { outbox.acknowledged(status("a", "Failed")).await }
        };
        let answers = async {
            tokio::task::yield_now().await;
            outbox.send(status("a", "Failed"));
            let given = given(&outbox);
            assert_eq!(given.len(), 1);
            outbox.settle(given[0].0, &Ok(7));
        };
        let (answer, ()) = tokio::join!(waits, answers);
        assert_eq!(answer, Ok(7));
    }

    /// An agent's life: opens, does `work`, and is gone.
    async fn life(disk: &MemoryDisk, kept: bool, work: impl FnOnce(&Outbox)) {
        let (records, found) = disk.open(Path::new("/journal")).await;
        let journal = Arc::new(Journal::default());
        let outbox = Outbox::new(Arc::clone(&journal), &Found(found));
        work(&outbox);
        if kept {
            let shutdown = CancellationToken::new();
            shutdown.cancel();
            journal.write(records, shutdown).await;
        }
    }

    #[tokio::test]
    async fn what_was_not_acknowledged_is_sent_again_after_a_restart() {
        // S28: drop acknowledgements, kill between
        let disk = MemoryDisk::new(Duration::ZERO);
        life(&disk, true, |outbox| {
            for (uid, phase) in
                [("a", "Succeeded"), ("b", "Failed"), ("c", "Failed"), ("d", "Running")]
            {
                outbox.send(status(uid, phase));
            }
            outbox.send(Message::delete(&named("c")));
            let given = given(outbox);
            // Only b's acknowledgement arrives.
            outbox.settle(given[1].0, &Ok(5));
        })
        .await;
        // What d is like is said anew by whoever finds it running.
        let left = ["a Succeeded", "c Failed", "c delete"];
        // Killed before it could write anything.
        life(&disk, false, |outbox| assert_eq!(texts(given(outbox)), left)).await;
        life(&disk, true, |outbox| {
            let given = given(outbox);
            assert_eq!(texts(given.clone()), left, "once, a status before its delete");
            for (sequence, _, _) in given {
                outbox.settle(sequence, &Ok(6));
            }
        })
        .await;
        life(&disk, true, |outbox| assert_eq!(given(outbox), [])).await;
    }

    #[tokio::test]
    async fn an_acknowledgement_of_an_older_status_does_not_settle_the_newer() {
        // S28
        let disk = MemoryDisk::new(Duration::ZERO);
        life(&disk, true, |outbox| {
            outbox.send(status("a", "Pending"));
            let old = given(outbox)[0].0;
            outbox.send(status("a", "Failed"));
            outbox.settle(old, &Ok(5));
        })
        .await;
        life(&disk, true, |outbox| assert_eq!(texts(given(outbox)), ["a Failed"])).await;
        // One that goes on after all.
        life(&disk, true, |outbox| outbox.send(status("a", "Running"))).await;
        life(&disk, true, |outbox| assert_eq!(given(outbox), [])).await;
    }

    #[tokio::test]
    async fn what_an_earlier_version_has_kept_of_pods_that_run_is_forgotten() {
        let disk = MemoryDisk::new(Duration::ZERO);
        let (records, _) = disk.open(Path::new("/journal")).await;
        let journal = Arc::new(Journal::default());
        let old = status("a", "Running");
        journal.put(record_key(&old.key()), &old);
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        journal.write(records, shutdown).await;
        life(&disk, true, |outbox| assert_eq!(given(outbox), [])).await;
        let (_, found) = disk.open(Path::new("/journal")).await;
        assert_eq!(Found(found).below::<Message>(PREFIX), BTreeMap::new());
    }
}
