//! Where everything that is seen is written down, in the terms of package `checkers`.

use crate::trace::Trace;
use checkers::history::{
    Answer, Body, Call, Mark, Object, ObjectCall, Operation, Outcome, Record, RuntimeFact,
    RuntimeSeen, Watch, WatchStep,
};
use kubelet::runtime::{Container, PodRef, fake::Fact};
use serde_json::Value;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Nanoseconds of simulated time, the same for all hosts.
pub(crate) type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Takes down what is seen, in the order in which it is.
#[derive(Clone)]
pub(crate) struct Recorder {
    seen: Arc<Mutex<Seen>>,
    now: Now,
    trace: Trace,
}

#[derive(Default)]
struct Seen {
    records: Vec<Record>,
    streams: u64,
}

impl Recorder {
    pub(crate) fn new(now: Now, trace: Trace) -> Self {
        Self { seen: Arc::default(), now, trace }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now_ns(&self) -> u64 {
        (self.now)()
    }

    pub(crate) fn note(&self, record: Record) {
        self.seen().records.push(record);
    }

    pub(crate) fn mark(&self, mark: Mark) {
        self.note(mark.into());
    }

    /// Everything, so far.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.seen().records.clone()
    }

    /// A request that was sent at `invoked_ns` has come to this.
    pub(crate) fn answered(
        &self,
        client: u64,
        replica: u64,
        invoked_ns: u64,
        call: ObjectCall,
        outcome: Outcome,
    ) {
        let answered_ns = self.now_ns();
        let who = format!("client-{client}");
        self.trace.event(answered_ns / 1_000_000, &who, format_args!("{}", Told(&call, &outcome)));
        let call = Call::Object(call);
        let operation = Operation { client, replica, invoked_ns, answered_ns, call, outcome };
        self.note(operation.into());
    }

    /// A name for a watch.
    pub(crate) fn stream(&self) -> Stream {
        let mut seen = self.seen();
        seen.streams += 1;
        Stream { recorder: self.clone(), stream: seen.streams, sequence: 0 }
    }

    /// What a runtime on `node` tells of its containers.
    pub(crate) fn runtime(&self, node: &str) -> impl Fn(&PodRef, &Container, Fact) + use<> {
        let (recorder, node) = (self.clone(), node.to_owned());
        move |pod, container, fact| {
            let at_ns = recorder.now_ns();
            let PodRef { namespace, name, uid } = pod;
            let what = &container.config.name;
            let text = format_args!("{fact:?} {namespace}/{name}/{what} ({uid})");
            recorder.trace.event(at_ns / 1_000_000, &node, text);
            recorder.note(Record::Runtime(RuntimeSeen {
                at_ns,
                node: node.clone(),
                pod_uid: pod.uid.clone(),
                namespace: pod.namespace.clone(),
                pod: pod.name.clone(),
                container: container.config.name.clone(),
                fact: match fact {
                    Fact::Started => RuntimeFact::Started,
                    Fact::Asked => RuntimeFact::Asked,
                    Fact::Stopped => RuntimeFact::Stopped,
                },
            }));
        }
    }
}

/// A request and its outcome, for people.
struct Told<'a>(&'a ObjectCall, &'a Outcome);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ObjectCall { verb, kind, namespace, name, .. } = self.0;
        write!(f, "{verb:?} {kind} {namespace}/{name}: ")?;
        match self.1 {
            Outcome::Ok(Answer { revision, body: Body::Object(Some(object)) }) => {
                write!(f, "{} at {revision}", object.uid)
            }
            Outcome::Ok(Answer { revision, body: Body::Objects(all) }) => {
                write!(f, "{} at {revision}", all.len())
            }
            Outcome::Ok(Answer { revision, .. }) => write!(f, "done at {revision}"),
            Outcome::Failed { reason } => write!(f, "refused: {reason}"),
            Outcome::Unknown { reason } => write!(f, "unknown: {reason}"),
        }
    }
}

/// One watch's records.
pub(crate) struct Stream {
    recorder: Recorder,
    pub(crate) stream: u64,
    sequence: u64,
}

impl Stream {
    pub(crate) fn note(&mut self, step: WatchStep) {
        let (at_ns, sequence) = (self.recorder.now_ns(), self.sequence);
        self.sequence += 1;
        self.recorder.note(Record::Watch(Watch { at_ns, stream: self.stream, sequence, step }));
    }
}

/// A change, or a look at one object.
///
/// Whoever takes the last finalizer off what is being deleted is answered with what was never stored: the object is
/// gone at that revision, and watches tell of it as it was before.
pub(crate) fn one(object: Option<&Object>) -> Outcome {
    let revision = object.map_or(0, |object| object.resource_version);
    let is_stored = |object: &&Object| {
        let has =
            |pointer: &str| object.json.pointer(pointer).is_some_and(|found| !found.is_null());
        let grace = object.json.pointer("/metadata/deletionGracePeriodSeconds");
        !has("/metadata/deletionTimestamp")
            || has("/metadata/finalizers/0")
            || grace.and_then(Value::as_u64).is_some_and(|seconds| seconds > 0)
    };
    let stored = object.filter(is_stored).cloned();
    Outcome::Ok(Answer { revision, body: Body::Object(stored) })
}

/// A list.
pub(crate) fn many(revision: u64, objects: Vec<Object>) -> Outcome {
    Outcome::Ok(Answer { revision, body: Body::Objects(objects) })
}
