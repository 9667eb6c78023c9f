//! What was seen from outside, and nothing else: what clients asked and were answered, what watches
//! delivered, what replicas and nodes said of themselves.
//!
//! All times are nanoseconds of one clock, the observer's, which nobody jumps: simulated time, or the
//! monotonic clock of whoever drives the load. Records may come in any order.

mod kv;
mod lines;
mod object;
mod watch;

pub use kv::{
    Answer, Body, Call, Compare, CompareOperator, CompareTarget, Kv, Operation, Outcome, Put,
    Range, RangeRequest, Step, StepAnswer, Txn,
};
pub use lines::{LineError, read_lines, write_lines};
pub use object::{Object, ObjectCall, ObjectVerb};
pub use watch::{Change, Closed, Event, ObjectEvent, Opened, Scope, Watch, WatchStep};

use serde::{Deserialize, Serialize};

/// A run, from its first request to the last look at what is left.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct History {
    /// What may be expected of the machines and the load.
    pub settings: Settings,
    /// In any order.
    pub records: Vec<Record>,
}

/// What the checks must know of how it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// How much faster or slower any machine's monotonic clock runs than the observer's, in parts per
    /// million.
    pub clock_drift_ppm: u64,
    /// How much later than due a healthy cluster may do what a timer asks of it.
    pub lateness_ns: u64,
    /// Silence after which a node counts as lost (NOD-10).
    pub node_grace_ns: u64,
    /// Nodes that were never cut off, stopped or crashed: nothing may happen to their Pods (INV-11).
    pub steady_nodes: Vec<String>,
    /// Whether node-side observations (`Runtime`) are complete.
    pub runtime_is_complete: bool,
    /// Members that vote, if none came or went during the run; 0 if some did, or it is not known.
    pub voters: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            clock_drift_ppm: 1_000,
            lateness_ns: 5_000_000_000,
            node_grace_ns: 40_000_000_000,
            steady_nodes: Vec::new(),
            runtime_is_complete: true,
            voters: 0,
        }
    }
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Record {
    /// A request and what came of it.
    Operation(Box<Operation>),
    /// Something that a watch did.
    Watch(Watch),
    /// What a replica said of itself, or what its log and state were seen to do.
    Replica(ReplicaSeen),
    /// What a node's runtime was seen to do.
    Runtime(RuntimeSeen),
    /// What the observer did, or found in the end.
    Mark(Box<Mark>),
}

impl From<Operation> for Record {
    fn from(operation: Operation) -> Self {
        Self::Operation(Box::new(operation))
    }
}

impl From<Watch> for Record {
    fn from(watch: Watch) -> Self {
        Self::Watch(watch)
    }
}

impl From<ReplicaSeen> for Record {
    fn from(seen: ReplicaSeen) -> Self {
        Self::Replica(seen)
    }
}

impl From<RuntimeSeen> for Record {
    fn from(seen: RuntimeSeen) -> Self {
        Self::Runtime(seen)
    }
}

impl From<Mark> for Record {
    fn from(mark: Mark) -> Self {
        Self::Mark(Box::new(mark))
    }
}

/// A look at one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSeen {
    /// When.
    pub at_ns: u64,
    /// Its member id.
    pub replica: u64,
    /// What.
    pub fact: ReplicaFact,
}

/// What was seen of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReplicaFact {
    /// It leads in a term; also any status in which it says so of itself.
    Leads {
        /// Raft's.
        term: u64,
    },
    /// Its state after an entry.
    Applied {
        /// Of the last applied entry.
        index: u64,
        /// Term of that entry; 0 if unknown.
        term: u64,
        /// Rolling hash over commands and results.
        state_hash: u64,
        /// The store's revision.
        revision: u64,
        /// Of the state: the last `BeginEpoch`.
        epoch: u64,
    },
    /// An entry that it took for committed.
    Committed {
        /// Position in the log.
        index: u64,
        /// Term in which it was proposed.
        term: u64,
        /// Of the entry's bytes.
        digest: u64,
    },
    /// It applied a command that was refused.
    Refused {
        /// Position in the log.
        index: u64,
        /// The refusal, in words.
        reason: String,
        /// State before the command.
        hash_before: u64,
        /// State after it.
        hash_after: u64,
        /// Revision before it.
        revision_before: u64,
        /// Revision after it.
        revision_after: u64,
    },
    /// A command of a controller, which had been decided under an epoch, came to be applied.
    Decided {
        /// Position in the log.
        index: u64,
        /// Under which it was decided.
        epoch: u64,
        /// Of the state that it met.
        current: u64,
        /// It was not refused.
        carried_out: bool,
    },
    /// The term that it knows of.
    Term {
        /// Raft's.
        term: u64,
    },
    /// A leader took it to have the log up to here on its disk, since it said so.
    Acknowledged {
        /// Term of that leader.
        leader_term: u64,
        /// Of the last entry.
        term: u64,
        /// Of the last entry.
        index: u64,
    },
    /// What it found on its disk when its process began, before anybody told it more.
    Recovered {
        /// The last that it knew of.
        term: u64,
        /// Of the last entry in its log; 0 if there is none.
        last_term: u64,
        /// Of the last entry in its log; 0 if there is none.
        last_index: u64,
    },
    /// Its process began.
    Started,
    /// Its process ended, or was ended.
    Stopped,
}

/// A look at what a node really runs, by the runtime itself or by whoever watches it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeSeen {
    /// When.
    pub at_ns: u64,
    /// The node's name.
    pub node: String,
    /// Whose container.
    pub pod_uid: String,
    /// The Pod's namespace.
    pub namespace: String,
    /// The Pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// What happened to it.
    pub fact: RuntimeFact,
}

/// What happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RuntimeFact {
    /// Its process began.
    Started,
    /// Its process was asked to end.
    Asked,
    /// Its process has ended, by itself or by force; also when the whole node lost power.
    Stopped,
}

/// What the observer did or found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mark {
    /// A fault began, or was injected.
    Fault {
        /// When.
        at_ns: u64,
        /// For people: what, to whom.
        what: String,
    },
    /// All faults are over, all processes run, and the cluster must work from now on.
    Healed {
        /// When.
        at_ns: u64,
    },
    /// Liveness was demanded after healing: something that must come to be.
    Awaited {
        /// When it was demanded.
        since_ns: u64,
        /// When it was so; none if it never was.
        until_ns: Option<u64>,
        /// How long it may take.
        limit_ns: u64,
        /// For people: what.
        what: String,
    },
    /// Everything under the keys of the load, as one replica had it in the end.
    FinalKeys {
        /// When.
        at_ns: u64,
        /// Who was asked; serializable, so that each answers for itself.
        replica: u64,
        /// Which keys.
        range: Range,
        /// Of the answer.
        revision: u64,
        /// In key order.
        kvs: Vec<Kv>,
    },
    /// All objects of a kind, as one replica had them in the end.
    FinalObjects {
        /// When.
        at_ns: u64,
        /// Who was asked.
        replica: u64,
        /// `Pod`, `Node`, …
        kind: String,
        /// Of the list.
        resource_version: u64,
        /// In any order.
        items: Vec<Object>,
    },
}
