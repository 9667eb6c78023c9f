//! What clients asked and were answered, what their watches were told, and what the world saw of replicas.

use crate::Millis;
use checkers::history::ReplicaSeen;

/// A request of one client and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: u64,
    /// The replica that was asked, from 0.
    pub replica: usize,
    /// When it was sent.
    pub invoked: Millis,
    /// When the client knew, or gave up.
    pub answered: Millis,
    /// What was asked.
    pub call: Call,
    /// What came of it.
    pub outcome: Outcome,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Writes a key.
    Put {
        /// Which.
        key: String,
        /// What.
        value: String,
        /// 0: none.
        lease: i64,
    },
    /// Deletes a key.
    Delete {
        /// Which.
        key: String,
    },
    /// Reads one key.
    Get {
        /// Which.
        key: String,
        /// Whatever the replica has.
        serializable: bool,
    },
    /// Reads all keys.
    Range {
        /// Whatever the replica has.
        serializable: bool,
    },
    /// Writes a key if it was last written at this revision, else reads it.
    Swap {
        /// Which.
        key: String,
        /// 0: it is not there.
        expected: i64,
        /// What.
        value: String,
    },
    /// Creates a lease.
    Grant {
        /// Its number.
        lease: i64,
        /// Seconds.
        ttl: i64,
    },
    /// Renews a lease.
    KeepAlive {
        /// Its number.
        lease: i64,
    },
    /// Ends a lease.
    Revoke {
        /// Its number.
        lease: i64,
    },
    /// Forgets what was before a revision.
    Compact {
        /// The last that is forgotten.
        revision: i64,
    },
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Ok(Answer),
    /// It was not, and never will be.
    Failed(String),
    /// It may have been, or may be yet.
    Unknown(String),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The header's.
    pub revision: i64,
    /// What was read, or would have been in the way of a swap.
    pub kvs: Vec<Kv>,
    /// Of a swap: whether it was written. Of a delete: whether there was a key.
    pub done: bool,
    /// Of a renewal: seconds left.
    pub ttl: i64,
}

/// A pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kv {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// Revision at which it came to be.
    pub create_revision: i64,
    /// Revision of the last write.
    pub mod_revision: i64,
    /// Writes since then.
    pub version: i64,
    /// 0: none.
    pub lease: i64,
}

/// A stream of changes of all keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// Whose.
    pub client: u64,
    /// Which replica, from 0.
    pub replica: usize,
    /// The stream that it goes on with: its place among all streams.
    pub resumes: Option<usize>,
    /// When it was accepted.
    pub opened: Millis,
    /// The first revision that it had to tell of.
    pub from: i64,
    /// Each answer: when it came, and what it told.
    pub answers: Vec<(Millis, Vec<Change>)>,
    /// How it ended, and when.
    pub ended: Option<(Millis, Ended)>,
}

/// How a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// What it would have had to tell next is forgotten.
    Compacted(i64),
    /// Its connection broke.
    Broken,
}

/// One change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its key; and what there is now, if it was not a deletion.
    pub kv: Kv,
    /// It is gone.
    pub deleted: bool,
}

/// Everything that clients saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// In the order of their answers.
    pub operations: Vec<Operation>,
    /// In the order in which they were opened.
    pub watches: Vec<Watched>,
}

/// What the world knows of a run beside what clients saw.
#[derive(Debug, Default)]
pub struct Record {
    /// What was seen of replicas.
    pub replicas: Vec<ReplicaSeen>,
    /// How many of them vote, if none comes or goes; else 0.
    pub voters: u64,
    /// When faults began, for people.
    pub faults: Vec<(Millis, String)>,
    /// When everything was healed.
    pub healed: Millis,
    /// When all had answered and were the same again.
    pub recovered: Millis,
    /// How long that may take.
    pub patience: Millis,
    /// How much faster or slower any clock goes, in millionths.
    pub drift_ppm: u64,
}
