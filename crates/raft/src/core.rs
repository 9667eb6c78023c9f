//! What the peers' server, the batcher and the store share of a replica.

use crate::{
    config::Clock,
    leases::Leases,
    peer::StatusResponse,
    types::{Metrics, Raft},
    wal::Wal,
};
use openraft::{ReadPolicy, ServerState, async_runtime::watch::WatchReceiver as _};
use std::{sync::Arc, time::Duration};
use store::{Applied, Command, MemberRole, Proposal, watch::Hub};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::timeout,
};

/// How one try to propose on this replica went.
pub(crate) enum Attempt {
    Applied(Applied),
    /// Nothing was proposed here.
    NotLeader(Option<u64>),
    /// Proposed; it may still commit.
    Unknown(String),
}

pub(crate) struct Waiting {
    pub(crate) command: Command,
    pub(crate) answer: oneshot::Sender<Attempt>,
}

/// What the peers' server, the batcher and the store share.
pub(crate) struct Core {
    pub(crate) id: u64,
    pub(crate) raft: Raft,
    pub(crate) leases: Arc<Leases>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) applied: watch::Receiver<u64>,
    pub(crate) wal: Arc<Wal>,
    pub(crate) clock: Clock,
    /// Names this replica's own requests about leases.
    pub(crate) lease_client: u64,
    pub(crate) proposals: mpsc::Sender<Waiting>,
    /// Term and last log index that this process began with.
    pub(crate) begun: (u64, u64),
    /// A stream of entries broke off: whoever sent them may have died.
    pub(crate) leader_hung_up: Notify,
}

impl Core {
    pub(crate) fn metrics(&self) -> Metrics {
        self.raft.metrics().borrow_watched().clone()
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().current_leader
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

    /// Proposes on this replica, which must lead.
    pub(crate) async fn propose_here(&self, proposal: Proposal, deadline: Duration) -> Attempt {
        if self.leader() != Some(self.id) {
            return Attempt::NotLeader(self.leader());
        }
        let Proposal { request, origin, op } = proposal;
        let command = Command { at: (self.clock)(), request, origin, op };
        let (answer, answered) = oneshot::channel();
        if self.proposals.try_send(Waiting { command, answer }).is_err() {
            return Attempt::NotLeader(None);
        }
        match timeout(deadline, answered).await {
            Ok(Ok(attempt)) => attempt,
            Ok(Err(_)) => Attempt::Unknown("the replica is stopping".to_owned()),
            Err(_) => Attempt::Unknown(format!("not committed within {deadline:?}")),
        }
    }

    /// One quorum round: up to where a linearizable read must have applied the log.
    pub(crate) async fn read_index_here(&self) -> Result<u64, String> {
        // openraft lets a leader that was restarted lead on in its old term, and then knows only what
        // it had noted as committed: less than it had answered for. All of its log may have been
        // committed, and will be, because the term is its own. Asked before, because a term only grows.
        let (term, last) = self.begun;
        let least = if self.metrics().current_term == term { last } else { 0 };
        let linearizer = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        linearizer.map(|l| l.read_log_id().index().max(least)).map_err(|e| e.to_string())
    }

    pub(crate) fn own_status(&self) -> StatusResponse {
        let metrics = self.metrics();
        let view = self.hub.view();
        let counters = self.wal.counters();
        StatusResponse {
            id: self.id,
            role: role(metrics.state).to_string(),
            term: metrics.current_term,
            applied_index: *self.applied.borrow(),
            revision: view.revision().get(),
            state_hash: view.hash(),
            sync_p99_us: counters.sync_p99_us(),
            syncs: counters.syncs(),
            appended: counters.entries(),
            rss_bytes: resident_bytes(),
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
    let pages: u64 = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or_default();
    pages * 4096
}
