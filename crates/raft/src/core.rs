//! What the peers' server, the batcher and the store share of a replica.

use crate::{
    config::Clock,
    disk_watch::DiskHealth,
    forward::Outgoing,
    identity::{Identity, Standing},
    leases::Leases,
    peer::StatusResponse,
    peers::{Blame, Hello, Peers},
    stages::Stages,
    state_machine::Shown,
    types::{Member, Metrics, Raft, StoredMembership},
    wal::Wal,
};
use openraft::{ReadPolicy, ServerState, async_runtime::watch::WatchReceiver as _};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use store::{Applied, Command, MemberRole, Proposal, watch::Hub};
use tokio::{
    sync::{Mutex, Notify, Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};
use tonic::{Status, metadata::MetadataMap};

/// Bytes of entries that may wait for the disk before no more are taken.
pub(crate) const BACKLOG_BYTES: usize = 64 << 20;

/// How one try to propose went.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Attempt {
    Applied(Applied),
    /// Nothing was proposed here.
    NotLeader(Option<u64>),
    /// Proposed; it may still commit.
    Unknown(String),
}

pub(crate) struct Waiting {
    pub(crate) command: Command,
    pub(crate) since: Instant,
    pub(crate) answer: oneshot::Sender<Attempt>,
}

/// What the peers' server, the batcher and the store share.
pub(crate) struct Core {
    pub(crate) id: u64,
    pub(crate) raft: Raft,
    pub(crate) leases: Arc<Leases>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) applied: watch::Receiver<u64>,
    pub(crate) shown: watch::Receiver<Shown>,
    pub(crate) wal: Arc<Wal>,
    pub(crate) stages: Arc<Stages>,
    pub(crate) disk: DiskHealth,
    /// Of the newest snapshot; 0 before the first.
    pub(crate) snapshot_bytes: Arc<AtomicU64>,
    /// The first index that was applied from the log and not by way of a snapshot.
    pub(crate) applies_from: Arc<AtomicU64>,
    pub(crate) clock: Clock,
    /// Names this replica's own requests about leases.
    pub(crate) lease_client: u64,
    /// Of its next request.
    pub(crate) lease_sequence: AtomicU64,
    pub(crate) proposals: mpsc::Sender<Waiting>,
    /// One permit for each entry that may be under way; who holds all of them stops proposals.
    pub(crate) entries: Arc<Semaphore>,
    /// For the leader, when another member leads.
    pub(crate) forwards: mpsc::Sender<Outgoing>,
    /// Who leads, if known: tells only when that changes, which raft's metrics do with every entry.
    pub(crate) leads: watch::Receiver<Option<u64>>,
    /// In which a leader has not been heard for long; 0 if it has.
    pub(crate) silent_term: AtomicU64,
    /// A stream of entries broke off: whoever sent them may have died.
    pub(crate) leader_hung_up: Notify,
    pub(crate) identity: Arc<Identity>,
    pub(crate) peers: Peers,
    /// What this member says of itself, and whom it was told of, until the log says more.
    pub(crate) told: BTreeMap<u64, Member>,
    pub(crate) join: bool,
    /// The membership as of what is applied here.
    pub(crate) group: watch::Receiver<StoredMembership>,
    /// Held by whoever changes the membership.
    pub(crate) changing: Mutex<()>,
    /// Why this replica must end.
    pub(crate) failure: Arc<watch::Sender<Option<String>>>,
    /// The longest silence of a peer that counts as its answer being on the way.
    pub(crate) patience: Duration,
}

impl Core {
    /// This replica must end.
    pub(crate) fn fail(&self, why: String) {
        tracing::error!(why, "this replica must end");
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert(why);
            first
        });
    }

    /// The membership that is applied here, or what this member was told when there is none yet.
    pub(crate) fn members(&self) -> Vec<(u64, Member, bool)> {
        let group = self.group.borrow();
        if group.nodes().next().is_none() {
            return self.told.iter().map(|(id, member)| (*id, member.clone(), false)).collect();
        }
        crate::membership::members(&group)
    }

    /// Lets nobody in who is not what it says, and tells an impostor what it is.
    ///
    /// # Errors
    /// A refusal by name.
    pub(crate) fn greet(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let hello = Hello::read(metadata)?;
        let (cluster, disk) = (self.identity.cluster(), self.identity.disk());
        if cluster != 0 && hello.cluster != 0 && hello.cluster != cluster {
            let why = format!(
                "member {} is of cluster {cluster:016x}, its caller {} of another cluster, {:016x}",
                self.id, hello.from, hello.cluster
            );
            self.peers.met_stranger(&why);
            return Err(Blame::Foreign.status(why));
        }
        if hello.to != self.id {
            let message = format!("this is member {}, not {}", self.id, hello.to);
            return Err(Status::failed_precondition(message));
        }
        if hello.to_disk != 0 && hello.to_disk != disk {
            // Not the caller's fault. Whether the caller is right, the committed membership says.
            self.peers.doubt();
            let message = format!("member {} runs on another disk than it started with", self.id);
            return Err(Status::failed_precondition(message));
        }
        let group = self.group.borrow();
        let from = group.nodes().find(|(id, _)| **id == hello.from);
        match from {
            Some((id, member)) if member.disk != 0 && member.disk != hello.from_disk => {
                Err(Blame::OtherDisk.status(format!(
                    "member {id} has started with another disk, and an emptied or foreign one must \
                     not vote in its place; remove member {id} and add a new one"
                )))
            }
            Some(_) => Ok(()),
            None => {
                let now = group.log_id().as_ref().map(|id| id.index);
                if hello.as_of.is_some() && now > hello.as_of {
                    let message = format!("member {} was removed from the cluster", hello.from);
                    return Err(Blame::Removed.status(message));
                }
                Ok(())
            }
        }
    }

    /// As [`Core::greet`]; and only a disk that is known to hold what its member promised takes part.
    ///
    /// # Errors
    /// A refusal by name.
    pub(crate) fn admit(&self, metadata: &MetadataMap) -> Result<(), Status> {
        self.greet(metadata)?;
        let takes_part = match self.identity.standing() {
            Standing::Founder | Standing::Named | Standing::Planted => {
                self.failure.borrow().is_none()
            }
            Standing::Blank | Standing::Removed => false,
        };
        if takes_part {
            Ok(())
        } else {
            Err(Status::unavailable(format!("member {} does not take part yet", self.id)))
        }
    }

    pub(crate) fn metrics(&self) -> Metrics {
        self.raft.metrics().borrow_watched().clone()
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        *self.leads.borrow()
    }

    /// Returns when somebody else or nobody leads.
    pub(crate) async fn until_leader_is_not(&self, leader: u64) {
        // An end of the channel is the end of the replica.
        let _ = self.leads.clone().wait_for(|now| *now != Some(leader)).await;
    }

    /// The first metrics for which `wanted` holds; `None` when raft has ended.
    pub(crate) async fn until(&self, mut wanted: impl FnMut(&Metrics) -> bool) -> Option<Metrics> {
        let mut metrics = self.raft.metrics();
        loop {
            {
                let now = metrics.borrow_and_update();
                if wanted(&now) {
                    return Some(now.clone());
                }
            }
            metrics.changed().await.ok()?;
        }
    }

    /// Waits until the log is applied here up to `index`; whether it was in time.
    pub(crate) async fn reached(&self, index: u64, until: Instant) -> bool {
        let mut applied = self.applied.clone();
        let reached = timeout_at(until, applied.wait_for(|now| *now >= index)).await;
        matches!(reached, Ok(Ok(_)))
    }

    /// Proposes on this replica, which must lead.
    pub(crate) async fn propose_here(&self, proposal: Proposal, deadline: Duration) -> Attempt {
        let until = Instant::now() + deadline;
        match self.submit(proposal) {
            Ok(answered) => self.outcome(answered, until).await,
            Err(attempt) => attempt,
        }
    }

    /// As [`Core::propose_here`], for several at once.
    pub(crate) async fn propose_all_here(
        &self,
        proposals: Vec<Proposal>,
        deadline: Duration,
    ) -> Vec<Attempt> {
        let until = Instant::now() + deadline;
        let submitted: Vec<_> = proposals.into_iter().map(|p| self.submit(p)).collect();
        let mut attempts = Vec::with_capacity(submitted.len());
        for answered in submitted {
            attempts.push(match answered {
                Ok(answered) => self.outcome(answered, until).await,
                Err(attempt) => attempt,
            });
        }
        attempts
    }

    fn submit(&self, proposal: Proposal) -> Result<oneshot::Receiver<Attempt>, Attempt> {
        if self.leader() != Some(self.id) {
            return Err(Attempt::NotLeader(self.leader()));
        }
        let Proposal { request, origin, op } = proposal;
        let command = Command { at: (self.clock)(), request, origin, op };
        let (answer, answered) = oneshot::channel();
        // Others are to lead until the disk has caught up: memory must not fill meanwhile.
        if self.wal.backlog_bytes() > BACKLOG_BYTES {
            return Err(Attempt::NotLeader(None));
        }
        self.proposals
            .try_send(Waiting { command, since: Instant::now(), answer })
            .map_err(|_| Attempt::NotLeader(None))?;
        Ok(answered)
    }

    async fn outcome(&self, answered: oneshot::Receiver<Attempt>, until: Instant) -> Attempt {
        match timeout_at(until, answered).await {
            Ok(Ok(attempt)) => attempt,
            Ok(Err(_)) => Attempt::Unknown("the replica is stopping".to_owned()),
            Err(_) => Attempt::Unknown("not committed in time".to_owned()),
        }
    }

    /// One quorum round: up to where a linearizable read must have applied the log.
    pub(crate) async fn read_index_here(&self) -> Result<u64, String> {
        let linearizer = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        linearizer.map(|l| l.read_log_id().index()).map_err(|e| e.to_string())
    }

    pub(crate) fn own_status(&self) -> StatusResponse {
        let metrics = self.metrics();
        let Shown { index, revision, hash } = *self.shown.borrow();
        let counters = self.wal.counters();
        StatusResponse {
            id: self.id,
            role: role(metrics.state).to_string(),
            term: metrics.current_term,
            applied_index: index,
            revision: revision.get(),
            state_hash: hash,
            sync_p99_us: counters.sync_p99_us(),
            syncs: counters.syncs(),
            appended: counters.entries(),
            rss_bytes: resident_bytes(),
            disk: self.disk.state().to_string(),
            disk_stalls: self.disk.stalls(),
        }
    }
}

pub(crate) fn role(state: ServerState) -> MemberRole {
    match state {
        ServerState::Leader => MemberRole::Leader,
        ServerState::Follower => MemberRole::Follower,
        ServerState::Candidate => MemberRole::Candidate,
        ServerState::Learner => MemberRole::Learner,
        ServerState::Shutdown => MemberRole::Unknown,
    }
}

/// Resident memory of this process; 0 when the kernel does not say.
fn resident_bytes() -> u64 {
    if world::simulated() {
        // One process is all of them.
        return 0;
    }
    let pages: u64 = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or_default();
    pages * 4096
}
