//! The seams: what everything above expects of a replicated store.

use crate::{
    state::View,
    types::{Applied, Epoch, LeaseId, Op, Origin, RequestId, Revision},
    watch::{WatchError, WatchRequest, WatchSet, Watcher},
};
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A command before it has a time: [`Store::propose`] stamps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Propose again under the same id and the first result is answered again.
    pub request: RequestId,
    /// Who decided.
    pub origin: Origin,
    /// What.
    pub op: Op,
}

/// Why a store could not say what became of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing was proposed: there is no leader, or no quorum. Safe to try again.
    #[error("no leader: {detail}")]
    NoLeader {
        /// What was tried.
        detail: String,
    },
    /// A controller's command on a replica that does not lead (FEN-5). Nothing was proposed.
    #[error("this replica does not lead")]
    NotLeader,
    /// Proposed, and it may still commit (FEN-31). Repeat under the same [`RequestId`] to find out.
    #[error("outcome unknown: {detail}")]
    Unknown {
        /// What happened.
        detail: String,
    },
    /// Too many proposals are waiting. Nothing was proposed.
    #[error("too many requests")]
    Busy,
    /// The proposal is larger than one log entry may be. Nothing was proposed.
    #[error("request of {bytes} bytes is larger than {bytes_max}")]
    TooLarge {
        /// Of the request.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The state did not reach the asked revision in time.
    #[error("revision {requested} is not here yet, the current one is {current}")]
    NotYet {
        /// By the caller.
        requested: Revision,
        /// Of this replica.
        current: Revision,
    },
    /// This replica is shutting down or has failed.
    #[error("store stopped: {detail}")]
    Stopped {
        /// Why.
        detail: String,
    },
}

impl StoreError {
    /// Whether nothing was proposed, so that the caller may try again as if it had not asked.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoLeader { .. } | Self::NotLeader | Self::Busy | Self::NotYet { .. } => true,
            Self::Unknown { .. } | Self::TooLarge { .. } | Self::Stopped { .. } => false,
        }
    }
}

/// A replicated, linearizable, watchable store of bytes.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Replicates a command; answers once a majority has it on disk and the leader has applied it.
    ///
    /// A `Client` proposal may be made on any replica. Retries inside (a new leader, a lost
    /// connection) happen under the same request id until `deadline` has passed.
    ///
    /// # Errors
    /// Says whether the command may still take effect: see [`StoreError`].
    async fn propose(&self, proposal: Proposal, deadline: Duration) -> Result<Applied, StoreError>;

    /// Waits until this replica's state holds everything acknowledged before the call
    /// (ReadIndex, one quorum round shared by all that wait); the revision it then has.
    ///
    /// # Errors
    /// [`StoreError::NoLeader`] when no quorum answers before `deadline`.
    async fn barrier(&self, deadline: Duration) -> Result<Revision, StoreError>;

    /// Waits until this replica has applied `revision`.
    ///
    /// # Errors
    /// [`StoreError::NotYet`] at `deadline`.
    async fn wait_for(&self, revision: Revision, deadline: Duration) -> Result<(), StoreError>;

    /// This replica's applied state, in O(1). Linearizable only right after [`Store::barrier`].
    fn view(&self) -> View;

    /// Waits until this replica has freed the memory of everything compacted so far.
    ///
    /// # Errors
    /// [`StoreError::NotYet`] at `deadline`.
    async fn swept(&self, deadline: Duration) -> Result<(), StoreError>;

    /// Renews a lease in the leader's memory: no log entry. Seconds to live, or `None` when there is
    /// no such lease (any more). Expiry is the leader's, by its own monotonic clock; a new leader
    /// starts every lease at its full time to live, or at what was left at its last checkpoint if it
    /// has not been renewed since.
    ///
    /// # Errors
    /// [`StoreError::NoLeader`] when the leader does not answer before `deadline`.
    async fn renew_lease(&self, id: LeaseId, deadline: Duration)
    -> Result<Option<i64>, StoreError>;

    /// Seconds until a lease ends, rounded down, by the leader's clock; `None` when there is none (any
    /// more).
    ///
    /// # Errors
    /// [`StoreError::NoLeader`] when the leader does not answer before `deadline`.
    async fn lease_left(&self, id: LeaseId, deadline: Duration) -> Result<Option<i64>, StoreError>;

    /// Follows this replica's changes.
    ///
    /// # Errors
    /// [`WatchError::Compacted`] when the start is no longer kept.
    fn watch(&self, request: WatchRequest) -> Result<Watcher, WatchError>;

    /// An empty set of watches of this replica's changes, for a reader of many.
    fn watch_set(&self) -> WatchSet;
}

/// Whether this replica leads, as the leader scope needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Leadership {
    /// Another member leads, or none is known.
    #[default]
    Following,
    /// This replica leads and its own `BeginEpoch` is applied here (FEN-7).
    Leading {
        /// To be named in every controller's command.
        epoch: Epoch,
    },
}

/// What a member is in the raft group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberRole {
    /// Leads.
    Leader,
    /// Votes.
    Follower,
    /// Campaigns.
    Candidate,
    /// Receives the log, does not vote.
    Learner,
    /// Cannot be reached or asked.
    Unknown,
}

impl MemberRole {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Leader, "leader"),
        (Self::Follower, "follower"),
        (Self::Candidate, "candidate"),
        (Self::Learner, "learner"),
        (Self::Unknown, "unknown"),
    ];
}

impl std::fmt::Display for MemberRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = Self::ALL.iter().find(|(role, _)| role == self).map_or("", |(_, name)| *name);
        f.write_str(name)
    }
}

impl std::str::FromStr for MemberRole {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(role, _)| *role).ok_or(())
    }
}

/// How a member's disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskState {
    /// It takes what is written.
    #[default]
    Ok,
    /// What was written has been waiting for so long that the member must not lead.
    Stalled,
    /// There is less room than the member needs to go on for sure.
    Full,
}

impl DiskState {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Ok, "ok"), (Self::Stalled, "stalled"), (Self::Full, "full")];
}

impl std::fmt::Display for DiskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = Self::ALL.iter().find(|(state, _)| state == self).map_or("", |(_, name)| *name);
        f.write_str(name)
    }
}

impl std::str::FromStr for DiskState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(state, _)| *state).ok_or(())
    }
}

/// One member, as the asked replica knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberStatus {
    /// Raft member id.
    pub id: u64,
    /// Human name from the configuration.
    pub name: String,
    /// `http://host:port` of the raft listener.
    pub peer_url: String,
    /// `http(s)://host:port` of the API listener.
    pub client_url: String,
    /// Leader, follower, learner…
    pub role: MemberRole,
    /// Current raft term there.
    pub term: u64,
    /// Applied raft index there.
    pub applied_index: u64,
    /// Store revision there.
    pub revision: Revision,
    /// Rolling state hash at `applied_index`.
    pub state_hash: u64,
    /// Microseconds that 99 of 100 of the last log syncs took at most; 0 before the first.
    pub sync_p99_us: u64,
    /// Log syncs since start.
    pub syncs: u64,
    /// Log entries appended since start.
    pub appended: u64,
    /// Resident memory in bytes; 0 when unknown.
    pub rss_bytes: u64,
    /// How its disk is; `Ok` when unknown.
    pub disk: DiskState,
    /// How often its disk has stalled since start.
    pub disk_stalls: u64,
    /// Whether it answered.
    pub reachable: bool,
}

/// The whole group, as the asked replica knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterStatus {
    /// Names the cluster for ever; drawn at its first start.
    pub cluster_id: u64,
    /// The asked replica.
    pub member_id: u64,
    /// Who leads, if known.
    pub leader: Option<u64>,
    /// Current epoch of the state.
    pub epoch: Epoch,
    /// Every member, by id.
    pub members: Vec<MemberStatus>,
}

/// What a replica knows of itself and its group without asking anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalStatus {
    /// Names the cluster for ever.
    pub cluster_id: u64,
    /// This replica.
    pub member_id: u64,
    /// Its raft term.
    pub term: u64,
    /// Who leads, if known.
    pub leader: Option<u64>,
    /// Leads, votes, learns.
    pub role: MemberRole,
    /// Of the last entry in its log.
    pub last_index: u64,
    /// Of the last entry applied.
    pub applied_index: u64,
}

/// A member as the membership in the log says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberInfo {
    /// Raft member id.
    pub id: u64,
    /// Empty until it has started.
    pub name: String,
    /// `http(s)://host:port` of its raft listener, more than one if it has several addresses.
    pub peer_urls: Vec<String>,
    /// Where it serves the etcd v3 API; empty until it has started.
    pub client_urls: Vec<String>,
    /// `http(s)://host:port` of its Kubernetes API; empty until it has started.
    pub api_url: String,
    /// Receives the log, does not vote.
    pub learner: bool,
}

/// A change of the membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// A new member, which has not started yet. Its id is one that was never used before.
    Add {
        /// Of its raft listener; at least one.
        peer_urls: Vec<String>,
        /// Does not vote until it is promoted.
        learner: bool,
    },
    /// Takes a member out for ever. A leader that is removed hands over first.
    Remove {
        /// Which.
        id: u64,
    },
    /// A member has moved.
    Update {
        /// Which.
        id: u64,
        /// Of its raft listener; at least one.
        peer_urls: Vec<String>,
    },
    /// Lets a learner vote that has caught up.
    Promote {
        /// Which.
        id: u64,
    },
    /// What a member that has started says of itself.
    Publish {
        /// Which.
        id: u64,
        /// For people.
        name: String,
        /// Where it serves the etcd v3 API.
        client_urls: Vec<String>,
    },
}

/// Why a [`MemberChange`] was refused. Nothing has changed, unless `Store` says that it is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// There is none of that id.
    #[error("member not found")]
    NotFound,
    /// Another member has that peer URL.
    #[error("peer URL exists")]
    PeerUrlExists,
    /// It votes already.
    #[error("can only promote a learner member")]
    NotLearner,
    /// It is too far behind.
    #[error("can only promote a learner member which is in sync with leader")]
    NotInSync,
    /// As many as there may be at a time.
    #[error("too many learner members in cluster")]
    TooManyLearners,
    /// Too few voters would be reachable afterwards.
    #[error("unhealthy cluster")]
    Unhealthy,
    /// Too few of the voters have ever started.
    #[error("re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// As of any other write.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How long the syncs of a log took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyncTimes {
    /// For each of [`SyncTimes::BOUNDS_US`], syncs that took no longer than it and longer than the one
    /// before; the last: longer than all of them.
    pub counts: [u64; 15],
    /// Microseconds of all of them.
    pub sum_us: u64,
    /// Bytes that were written.
    pub bytes: u64,
}

impl SyncTimes {
    /// Microseconds: those that etcd counts by.
    pub const BOUNDS_US: [u64; 14] = [
        1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 1_024_000,
        2_048_000, 4_096_000, 8_192_000,
    ];

    /// The place in [`SyncTimes::counts`] of a sync that took so long.
    #[must_use]
    pub fn place(us: u64) -> usize {
        Self::BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(Self::BOUNDS_US.len())
    }
}

/// Where the time of proposals went at this replica while it led, by log entry: the commands of one
/// entry go together, and what is told of the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProposalTimes {
    /// Entries that were answered.
    pub entries: u64,
    /// Nanoseconds of all of them in each of [`ProposalTimes::STAGES`].
    pub sums_ns: [u64; 7],
}

impl ProposalTimes {
    /// In order: waiting for a place in an entry; encoding it; on the way through raft to the log;
    /// until it is on this disk; until a quorum has it and its turn to be applied has come; applying it;
    /// until those who wait are told.
    pub const STAGES: [&'static str; 7] =
        ["queue", "encode", "raft", "sync", "quorum", "apply", "answer"];
}

/// A replica's state on its way to somebody who keeps it.
#[derive(Debug)]
pub struct Backup {
    /// Of the state.
    pub revision: Revision,
    /// Of all pieces together.
    pub bytes: u64,
    /// One behind the other. It is whole when `bytes` have come; an error, or an end before that, means
    /// that it is of no use.
    pub pieces: mpsc::Receiver<Result<Bytes, String>>,
}

/// The group behind a [`Store`].
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// What this replica knows, now.
    fn local(&self) -> LocalStatus;

    /// The members, as of what this replica has applied: linearizable only right after
    /// [`Store::barrier`].
    fn members(&self) -> Vec<MemberInfo>;

    /// Changes the membership; the members afterwards. May be asked of any replica.
    ///
    /// # Errors
    /// See [`MemberError`].
    async fn change_members(
        &self,
        change: MemberChange,
        deadline: Duration,
    ) -> Result<Vec<MemberInfo>, MemberError>;

    /// Asks every member; those that do not answer within `deadline` are marked so.
    async fn status(&self, deadline: Duration) -> ClusterStatus;

    /// Hands leadership to `to` (or the best follower). Returns once another member leads.
    ///
    /// # Errors
    /// [`StoreError::NotLeader`] here, [`StoreError::NoLeader`] when nobody took over in time.
    async fn transfer_leader(&self, to: Option<u64>, deadline: Duration)
    -> Result<u64, StoreError>;

    /// Changes whenever this replica gains or loses leadership.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// Writes a snapshot now and purges the log behind it.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when the disk refuses.
    async fn snapshot(&self) -> Result<(), StoreError>;

    /// Everything that was acknowledged before, in the form that backups have; the pieces are made as
    /// they are taken.
    ///
    /// # Errors
    /// [`StoreError::NoLeader`] when no quorum answers before `deadline`; [`StoreError::Stopped`] where
    /// there is nothing that keeps a state.
    async fn backup(&self, deadline: Duration) -> Result<Backup, StoreError>;

    /// How long this replica's log took to sync, since it started; `None` without a disk.
    fn syncs(&self) -> Option<SyncTimes> {
        None
    }

    /// Where the time of proposals went here, since it started; `None` without a log.
    fn proposal_times(&self) -> Option<ProposalTimes> {
        None
    }
}
