//! The seams: what everything above expects of a replicated store.

use crate::{
    state::View,
    types::{Applied, Epoch, LeaseId, Op, Origin, RequestId, Revision},
    watch::{WatchError, WatchRequest, Watcher},
};
use async_trait::async_trait;
use std::time::Duration;
use tokio::sync::watch;

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

    /// Renews a lease in the leader's memory: no log entry. Seconds to live, or `None` when there is
    /// no such lease (any more). Expiry is the leader's, by its own monotonic clock; a new leader
    /// starts every lease at its full time to live.
    ///
    /// # Errors
    /// [`StoreError::NoLeader`] when the leader does not answer before `deadline`.
    async fn renew_lease(
        &self,
        id: LeaseId,
        deadline: Duration,
    ) -> Result<Option<i64>, StoreError> {
        let _ = (id, deadline);
        Err(StoreError::NoLeader { detail: "leases are not renewed here".to_owned() })
    }

    /// Follows this replica's changes.
    ///
    /// # Errors
    /// [`WatchError::Compacted`] when the start is no longer kept.
    fn watch(&self, request: WatchRequest) -> Result<Watcher, WatchError>;
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

/// The group behind a [`Store`].
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
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
}
