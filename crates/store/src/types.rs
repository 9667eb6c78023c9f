//! The values that commands, results and events are made of.

use crate::auth::{AuthOp, AuthRejection, Identity};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// The store's logical clock: one tick for every command that changes a key.
///
/// As in etcd the empty store is at revision 1, so that the first change takes 2. Revision 0 is never
/// reached: it stands for "none", "newest" or "next", as each use says. On the etcd wire it is an `i64`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Revision(u64);

impl Revision {
    /// Below every revision: "none", "newest" or "next", as each use says.
    pub const ZERO: Self = Self(0);

    /// The empty store.
    pub const EMPTY: Self = Self(1);

    /// A revision read from a wire or a log.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number behind it.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The revision that the next change gets.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The leader's fence: the raft term whose `BeginEpoch` has been applied. Epoch 0 is before any leader.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease. 0 means "none", as on the etcd wire.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// Not attached to a lease.
    pub const NONE: Self = Self(0);
}

/// No lease may be granted for longer: etcd's limit, and far from the end of any clock.
pub const LEASE_TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// Microseconds since the Unix epoch, chosen by the proposer and carried in the command.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// So much later; a negative number of seconds is none.
    #[must_use]
    pub fn after_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000)))
    }
}

/// Names one request for ever, so that a retry of it is answered with its first result (FEN-33).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// Random, drawn once by each proposing process (or client session).
    pub client: u64,
    /// Counts that client's requests from 1.
    pub sequence: u64,
}

/// Who decided on a command (FEN-5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A replica itself, or an API that has its own users, or a kubelet: not fenced, may be forwarded
    /// to the leader.
    Client,
    /// The scheduler or a controller that decided under `epoch`: never forwarded, refused at
    /// apply when another epoch has begun (FEN-6).
    Controller {
        /// The epoch whose applied state the decision was taken from.
        epoch: Epoch,
    },
    /// Somebody who asks through the etcd API, whose permissions apply checks: forwarded, not fenced.
    User(Identity),
}

/// One command of the log: everything that apply needs, nothing that it may look up elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The leader's wall clock at proposal. Apply uses the larger of this and the last one applied.
    pub at: Timestamp,
    /// For the table of answered requests.
    pub request: RequestId,
    /// For the fence.
    pub origin: Origin,
    /// What to do.
    pub op: Op,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// An etcd transaction: all of its changes share one revision.
    Txn(Txn),
    /// All or nothing, yet each transaction takes a revision of its own, so that two objects never
    /// share one (FEN-38). The compares of each see the effects of those before it; the first whose
    /// compares fail undoes all. `failure` branches must be empty.
    Atomic(Vec<Txn>),
    /// Creates a lease. The id is chosen by the proposer.
    LeaseGrant {
        /// Must not exist.
        id: LeaseId,
        /// Time to live in seconds.
        ttl_seconds: i64,
    },
    /// Ends a lease and deletes its keys in one revision. Also how a lease expires.
    LeaseRevoke {
        /// Must exist.
        id: LeaseId,
    },
    /// Records how much of a lease was left, so that a new leader does not start it anew.
    LeaseCheckpoint {
        /// Must exist.
        id: LeaseId,
        /// Seconds left at the leader.
        remaining_seconds: i64,
    },
    /// Forgets versions that were replaced at or before `revision`.
    Compact {
        /// Must be above the last compacted and at most the current revision.
        revision: Revision,
    },
    /// The first command of a new leader (FEN-6).
    BeginEpoch {
        /// The leader's term. Refused unless above the current epoch.
        epoch: Epoch,
        /// The leader's member id.
        leader: u64,
    },
    /// Turns on a feature once every member supports it. Never lowers.
    RaiseFeatureLevel {
        /// The new level.
        level: u32,
    },
    /// Changes users and roles.
    Auth(AuthOp),
    /// Raises an alarm or takes it back.
    Alarm {
        /// Which, and whose.
        alarm: Alarm,
        /// Whether it is raised.
        active: bool,
    },
    /// From now on creates are refused beyond another size.
    Quota {
        /// Of live keys and values.
        bytes: u64,
    },
}

/// If every compare holds, `success`, else `failure`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Txn {
    /// All must hold.
    pub compare: Vec<Compare>,
    /// Done in order when they do.
    pub success: Vec<TxnOp>,
    /// Done in order when they do not.
    pub failure: Vec<TxnOp>,
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnOp {
    /// Reads, seeing the steps before it.
    Range(RangeRequest),
    /// Writes one key.
    Put(Put),
    /// Deletes keys.
    DeleteRange(DeleteRange),
    /// A nested transaction.
    Txn(Txn),
}

/// Which keys: one, or all from `start` up to `end`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KeyRange {
    /// Exactly this key.
    One(Bytes),
    /// `start <= key < end`. Empty when `end <= start`.
    Between {
        /// First key.
        start: Bytes,
        /// First key past the range.
        end: Bytes,
    },
    /// `key >= start`.
    From(Bytes),
}

/// How a value is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// Not empty.
    pub key: Bytes,
    /// Ignored under `ignore_value`.
    pub value: Bytes,
    /// [`LeaseId::NONE`] detaches.
    pub lease: LeaseId,
    /// Return the replaced pair.
    pub prev_kv: bool,
    /// Keep the value; the key must exist.
    pub ignore_value: bool,
    /// Keep the lease; the key must exist.
    pub ignore_lease: bool,
}

/// Which keys to delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRange {
    /// The keys.
    pub range: KeyRange,
    /// Return the deleted pairs.
    pub prev_kv: bool,
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeRequest {
    /// The keys.
    pub range: KeyRange,
    /// The state to read; [`Revision::ZERO`] is the newest.
    pub revision: Revision,
    /// At most this many pairs; 0 is no limit.
    pub limit: u64,
    /// Order of the answer. `None` is by key, ascending.
    pub sort: Option<Sort>,
    /// Leave the values out.
    pub keys_only: bool,
    /// Only the count.
    pub count_only: bool,
    /// Bounds on `mod_revision`, both inclusive; ZERO is no bound.
    pub mod_revision: (Revision, Revision),
    /// Bounds on `create_revision`, both inclusive; ZERO is no bound.
    pub create_revision: (Revision, Revision),
}

/// An order for [`RangeRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sort {
    /// By what.
    pub target: SortTarget,
    /// Largest first.
    pub descending: bool,
}

/// What to sort by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SortTarget {
    /// The key's bytes.
    Key,
    /// Number of writes since creation.
    Version,
    /// Revision of creation.
    CreateRevision,
    /// Revision of the last write.
    ModRevision,
    /// The value's bytes.
    Value,
}

/// A condition on every key of a range. On no key at all it compares with an absent key, whose
/// versions, revisions and lease are 0 and which has no value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The keys.
    pub range: KeyRange,
    /// How.
    pub operator: CompareOperator,
    /// With what.
    pub target: CompareTarget,
}

/// How two values are compared, the stored one on the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareOperator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `<`
    Less,
}

/// What of a key is compared, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareTarget {
    /// Number of writes since creation.
    Version(u64),
    /// Revision of creation.
    CreateRevision(Revision),
    /// Revision of the last write.
    ModRevision(Revision),
    /// The bytes; false on an absent key.
    Value(Bytes),
    /// The lease.
    Lease(LeaseId),
}

/// A pair as it stands at some revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value, shared from log to watcher.
    pub value: Bytes,
    /// Revision at which the key came to be (again).
    pub create_revision: Revision,
    /// Revision of this write.
    pub mod_revision: Revision,
    /// 1 at creation, +1 with every write.
    pub version: u64,
    /// [`LeaseId::NONE`] without one.
    pub lease: LeaseId,
}

/// The result of a range.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RangeResult {
    /// The pairs, at most `limit`.
    pub kvs: Vec<KeyValue>,
    /// `limit` cut the answer.
    pub more: bool,
    /// Keys in the range, whatever the limit and the revision bounds.
    pub count: u64,
}

/// The result of one step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnOpResult {
    /// Of a range.
    Range(RangeResult),
    /// Of a put: the replaced pair, if asked for and there.
    Put(Option<KeyValue>),
    /// Of a delete: how many, and the pairs if asked for.
    DeleteRange {
        /// Keys deleted.
        deleted: u64,
        /// In key order.
        prev_kvs: Vec<KeyValue>,
    },
    /// Of a nested transaction.
    Txn(TxnResult),
}

/// The result of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TxnResult {
    /// Whether the compares held.
    pub succeeded: bool,
    /// One for each step that was done.
    pub results: Vec<TxnOpResult>,
}

/// What a command that was carried out answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Of [`Op::Txn`].
    Txn(TxnResult),
    /// Of [`Op::Atomic`]: each with the revision it took.
    Atomic(Vec<(Revision, TxnResult)>),
    /// Of [`Op::LeaseRevoke`].
    LeaseRevoked {
        /// Keys deleted with it.
        deleted: u64,
    },
    /// Of everything that has no more to say.
    Done,
    /// Of [`Op::Alarm`].
    Alarm {
        /// Whether it was the other way before.
        changed: bool,
    },
}

/// A command's answer, equal on every member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The store's revision after the command (the command's own, if it changed a key).
    pub revision: Revision,
    /// A [`Rejection`] changed nothing and took no revision.
    pub outcome: Result<Outcome, Rejection>,
}

/// Why a command was refused. A result like any other: the log goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// The deciding leader has been replaced (FEN-6).
    #[error("decided in epoch {decided}, but epoch {current} has begun")]
    Fenced {
        /// Of the command.
        decided: Epoch,
        /// Of the state.
        current: Epoch,
    },
    /// An [`Op::Atomic`] whose transaction `index` found its compares false.
    #[error("precondition of step {index} does not hold")]
    Precondition {
        /// Position in the list.
        index: usize,
    },
    /// A put that keeps value or lease of a key that is not there.
    #[error("key not found")]
    KeyNotFound,
    /// A key of no bytes.
    #[error("key is not provided")]
    EmptyKey,
    /// A transaction that would write one key twice.
    #[error("duplicate key given in txn request")]
    DuplicateKey,
    /// Transactions within transactions, beyond [`crate::state::TXN_DEPTH_MAX`].
    #[error("transactions are nested deeper than {depth_max}")]
    TooDeep {
        /// The limit.
        depth_max: usize,
    },
    /// No such lease.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// That lease is there already.
    #[error("lease already exists")]
    LeaseExists,
    /// It would live longer than [`LEASE_TTL_SECONDS_MAX`].
    #[error("too large lease TTL")]
    LeaseTtlTooLarge,
    /// At or below what is compacted already.
    #[error("revision {requested} has been compacted, {compacted} is the last compacted")]
    Compacted {
        /// By the command.
        requested: Revision,
        /// By the state.
        compacted: Revision,
    },
    /// Above the current revision.
    #[error("revision {requested} is in the future, the current one is {current}")]
    FutureRevision {
        /// By the command.
        requested: Revision,
        /// Of the state.
        current: Revision,
    },
    /// A `BeginEpoch` that is not above the current one.
    #[error("epoch {requested} is not above {current}")]
    StaleEpoch {
        /// By the command.
        requested: Epoch,
        /// Of the state.
        current: Epoch,
    },
    /// The size quota is used up, so that nothing new may come, or [`AlarmKind::NoSpace`] was raised,
    /// so that nothing may be put at all. Deletes, leases and compaction go on.
    #[error("database space exceeded")]
    NoSpace,
    /// [`AlarmKind::Corrupt`] was raised: nothing may be changed.
    #[error("corrupt cluster")]
    Corrupt,
    /// Of a change of users, or of a command of a user who may not do that.
    #[error(transparent)]
    Auth(#[from] AuthRejection),
    /// A repeat of a request so old that its first result is forgotten: its outcome is unknown.
    #[error("request {sequence} was answered too long ago to repeat its result")]
    Forgotten {
        /// Of the request.
        sequence: u64,
    },
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// Written.
    Put,
    /// Deleted: the pair has the key, the revision of the deletion, and no value.
    Delete,
}

/// One change, as watchers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Put or delete.
    pub kind: EventKind,
    /// The pair after the change.
    pub kv: Arc<KeyValue>,
    /// The pair before it, unless the key was new. `None` at the compacted revision itself.
    pub prev: Option<Arc<KeyValue>>,
}

/// What may be wrong with a member, so that all of them refuse some writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AlarmKind {
    /// It has no room left: nothing may be put.
    NoSpace,
    /// Its state differs from that of the others: nothing may be changed.
    Corrupt,
}

/// Something that is wrong with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Alarm {
    /// What.
    pub kind: AlarmKind,
    /// Raft member id; 0 if it is nobody's in particular.
    pub member: u64,
}

/// A lease as it stands in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// As granted.
    pub ttl_seconds: i64,
    /// As last checkpointed; 0 without a checkpoint.
    pub remaining_seconds: i64,
}
