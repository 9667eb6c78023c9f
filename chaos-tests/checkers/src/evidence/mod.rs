//! A history put in order: what several properties need, worked out once.

mod keys;
mod objects;
mod streams;

pub(crate) use keys::{Effect, effects, pairs, steps};
pub use keys::{Fact, KeyFacts, Knowledge, Seen};
pub use objects::{Life, Objects, Version};
pub use streams::Stream;

use crate::history::{
    Call, History, Mark, Operation, Outcome, Record, ReplicaFact, ReplicaSeen, RuntimeSeen,
};

/// Everything that was seen, in order.
pub struct Evidence<'h> {
    /// As it was recorded.
    pub history: &'h History,
    /// By when they were sent.
    pub operations: Vec<&'h Operation>,
    /// Watches, by their numbers.
    pub streams: Vec<Stream<'h>>,
    /// What became of each key, as far as anybody saw.
    pub keys: KeyFacts<'h>,
    /// Versions of objects that anybody saw.
    pub objects: Objects<'h>,
    /// By time.
    pub replicas: Vec<&'h ReplicaSeen>,
    /// By time.
    pub runtime: Vec<&'h RuntimeSeen>,
    /// In the order in which they were recorded.
    pub marks: Vec<&'h Mark>,
}

impl<'h> Evidence<'h> {
    /// Puts a history in order.
    #[must_use]
    pub fn of(history: &'h History) -> Self {
        let mut operations = Vec::new();
        let (mut replicas, mut runtime, mut marks) = (Vec::new(), Vec::new(), Vec::new());
        for record in &history.records {
            match record {
                Record::Operation(operation) => operations.push(&**operation),
                Record::Watch(_) => {}
                Record::Replica(seen) => replicas.push(seen),
                Record::Runtime(seen) => runtime.push(seen),
                Record::Mark(mark) => marks.push(&**mark),
            }
        }
        operations.sort_by_key(|operation| (operation.invoked_ns, operation.answered_ns));
        replicas.sort_by_key(|seen| seen.at_ns);
        runtime.sort_by_key(|seen| seen.at_ns);
        let streams = streams::streams(history);
        let keys = KeyFacts::gather(&operations, &streams, &marks);
        let objects = Objects::gather(&operations, &streams, &marks);
        Self { history, operations, streams, keys, objects, replicas, runtime, marks }
    }

    /// Whether watches have told of every change of such objects from after one revision up to another.
    #[must_use]
    pub fn saw_all(&self, kind: &str, namespace: &str, after: u64, until: u64) -> bool {
        let watches = self.streams.iter().filter(|stream| stream.covers_object(kind, namespace));
        let mut spans: Vec<(u64, u64)> =
            watches.filter_map(|stream| Some((stream.from()?, stream.delivered()?))).collect();
        spans.sort_unstable();
        let seen =
            spans.iter().fold(
                after,
                |seen, (from, delivered)| {
                    if *from <= seen + 1 { seen.max(*delivered) } else { seen }
                },
            );
        seen >= until
    }

    /// When the cluster was last healed for good: no fault begins later. None if it never was.
    #[must_use]
    pub fn healed_ns(&self) -> Option<u64> {
        let mut healed = None;
        let mut faults = 0;
        for mark in &self.marks {
            match mark {
                Mark::Healed { at_ns } => healed = healed.max(Some(*at_ns)),
                Mark::Fault { at_ns, .. } => faults = faults.max(*at_ns),
                Mark::Awaited { .. } | Mark::FinalKeys { .. } | Mark::FinalObjects { .. } => {}
            }
        }
        healed.filter(|healed| *healed >= faults)
    }

    /// When a replica was first seen to lead in each term, by time.
    #[must_use]
    pub fn leaders(&self) -> Vec<(u64, u64, u64)> {
        let mut leaders: Vec<(u64, u64, u64)> = Vec::new();
        for seen in &self.replicas {
            if let ReplicaFact::Leads { term } = seen.fact
                && !leaders.iter().any(|(_, known, _)| *known == term)
            {
                leaders.push((seen.at_ns, term, seen.replica));
            }
        }
        leaders
    }

    /// Requests that were carried out, with the revision and body of the answer.
    pub fn answered(&self) -> impl Iterator<Item = Answered<'h>> {
        self.operations.iter().filter_map(|operation| match &operation.outcome {
            Outcome::Ok(answer) => Some(Answered {
                operation,
                call: &operation.call,
                answer,
                revision: answer.revision,
            }),
            Outcome::Failed { .. } | Outcome::Unknown { .. } => None,
        })
    }
}

/// A request with its answer.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'h> {
    /// The whole.
    pub operation: &'h Operation,
    /// What was asked.
    pub call: &'h Call,
    /// What was answered.
    pub answer: &'h crate::history::Answer,
    /// Of the answer's header.
    pub revision: u64,
}
