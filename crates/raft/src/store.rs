//! [`RaftStore`]: the replicated [`Store`].

use crate::{
    batch::proposal_bytes,
    core::{Attempt, Core},
    disk::DirLock,
    renewals::{Question, Renewal},
};
use async_trait::async_trait;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use store::{
    Applied, Cluster as _, Leadership, LeaseId, Origin, Proposal, Revision, Store, StoreError,
    state::View,
    watch::{WatchError, WatchRequest, WatchSet, Watcher},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// A command larger than this would not fit in a segment.
const COMMAND_BYTES_MAX: usize = 8 << 20;

/// A replica's store. Cheap to share; [`RaftStore::shutdown`] ends it.
pub struct RaftStore {
    pub(crate) core: Arc<Core>,
    /// Without a leader for so long, callers are told instead of kept waiting.
    pub(crate) leaderless_max: Duration,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) barriers: mpsc::Sender<oneshot::Sender<Result<u64, String>>>,
    /// Leases to renew, each with who waits for it.
    pub(crate) renewals: mpsc::Sender<Renewal>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: Mutex<Option<JoinSet<()>>>,
    pub(crate) failed: watch::Receiver<Option<String>>,
    pub(crate) _lock: DirLock,
}

impl std::fmt::Debug for RaftStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let metrics = self.core.metrics();
        f.debug_struct("RaftStore")
            .field("id", &self.core.id)
            .field("standing", &self.core.identity.standing())
            .field("disk", &self.core.disk.state())
            .field("backlog_bytes", &self.core.wal.backlog_bytes())
            .field("metrics", &metrics)
            .finish_non_exhaustive()
    }
}

impl RaftStore {
    /// Told when the log has failed: the process must end, the others go on.
    #[must_use]
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.clone()
    }

    /// Hands over the lead, if it has it, and ends all watches: who follows them does so elsewhere from now on, while
    /// what was asked already can still be answered.
    pub async fn retire(&self, deadline: Duration) {
        if self.core.leader() == Some(self.core.id)
            && let Err(error) = self.transfer_leader(None, deadline).await
        {
            tracing::warn!(%error, "no other member took the lead");
        }
        self.core.hub.close();
    }

    /// Retires, and ends.
    pub async fn shutdown(&self, deadline: Duration) {
        self.retire(deadline).await;
        self.end().await;
    }

    /// Ends at once, as if the process had died: nothing is handed over.
    pub async fn kill(&self) {
        self.end().await;
    }

    async fn end(&self) {
        self.stop.cancel();
        self.core.hub.close();
        if let Err(error) = self.core.raft.shutdown().await {
            tracing::warn!(%error, "raft did not end cleanly");
        }
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
    }
}

/// A linearizable read waits for so long before it asks whether the disk has stalled.
const STALLED_READ: Duration = Duration::from_millis(200);

#[async_trait]
impl Store for RaftStore {
    async fn propose(&self, proposal: Proposal, deadline: Duration) -> Result<Applied, StoreError> {
        let bytes = proposal_bytes(&proposal.op);
        if bytes > COMMAND_BYTES_MAX {
            return Err(StoreError::TooLarge { bytes, bytes_max: COMMAND_BYTES_MAX });
        }
        if matches!(proposal.origin, Origin::Controller { .. }) {
            // Never forwarded: a stale decision must not get a fresh term (FEN-2).
            return match self.core.propose_here(proposal, deadline).await {
                Attempt::Applied(applied) => Ok(applied),
                Attempt::NotLeader(_) => Err(StoreError::NotLeader),
                Attempt::Unknown(detail) => Err(StoreError::Unknown { detail }),
            };
        }
        let until = Instant::now() + deadline;
        let mut unknown = None;
        let give_up = Instant::now() + self.leaderless_max;
        let mut detail = String::new();
        loop {
            let leader = self.leader(until.min(give_up)).await;
            let left = until.saturating_duration_since(Instant::now());
            // While an outcome is unknown it is worth the whole time to learn it.
            let hopeless = unknown.is_none() && Instant::now() >= give_up;
            let (Some(leader), false, false) = (leader, left.is_zero(), hopeless) else {
                return Err(match unknown {
                    Some(detail) => StoreError::Unknown { detail },
                    None => StoreError::NoLeader { detail: self.leaderless() + &detail },
                });
            };
            let attempt = if leader == self.core.id {
                self.core.propose_here(proposal.clone(), left).await
            } else {
                self.forward(proposal.clone(), left).await
            };
            match attempt {
                Attempt::Applied(applied) => return Ok(applied),
                Attempt::NotLeader(other) => {
                    let other = other.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
                    detail =
                        format!("; replica {leader} leads no more, as far as it knows {other}");
                }
                // Asked again under the same request id, it is answered with its first result.
                Attempt::Unknown(why) => unknown = Some(why),
            }
            sleep_until((Instant::now() + Duration::from_millis(5)).min(until)).await;
        }
    }

    async fn barrier(&self, deadline: Duration) -> Result<Revision, StoreError> {
        let no_leader = |detail: String| StoreError::NoLeader { detail };
        let work = async {
            let (answer, answered) = oneshot::channel();
            self.barriers.send(answer).await.map_err(|_| no_leader("stopping".to_owned()))?;
            let index =
                answered.await.map_err(|_| no_leader("stopping".to_owned()))?.map_err(no_leader)?;
            let mut applied = self.core.applied.clone();
            loop {
                let reached = applied.wait_for(|now| *now >= index);
                match timeout(STALLED_READ, reached).await {
                    Ok(Ok(_)) => return Ok(self.view().revision()),
                    Ok(Err(_)) => return Err(no_leader("stopping".to_owned())),
                    // After a change of the lead, openraft applies here only what is on disk here:
                    // any other member has the answer sooner.
                    Err(_) if self.core.disk.is_stalled() => {
                        return Err(no_leader("the disk of this replica has stalled".to_owned()));
                    }
                    Err(_) => {}
                }
            }
        };
        timeout(deadline, work)
            .await
            .unwrap_or_else(|_| Err(no_leader(format!("no quorum answered within {deadline:?}"))))
    }

    async fn wait_for(&self, revision: Revision, deadline: Duration) -> Result<(), StoreError> {
        store::local::wait_for(&self.core.hub, revision, deadline).await
    }

    fn view(&self) -> View {
        self.core.hub.view()
    }

    async fn swept(&self, deadline: Duration) -> Result<(), StoreError> {
        store::local::swept(&self.core.hub, deadline).await
    }

    async fn renew_lease(
        &self,
        id: LeaseId,
        deadline: Duration,
    ) -> Result<Option<i64>, StoreError> {
        self.ask_about_lease(Question::Renew, id, deadline).await
    }

    async fn lease_left(&self, id: LeaseId, deadline: Duration) -> Result<Option<i64>, StoreError> {
        self.ask_about_lease(Question::Left, id, deadline).await
    }

    fn watch(&self, request: WatchRequest) -> Result<Watcher, WatchError> {
        self.core.hub.watch(request)
    }

    fn watch_set(&self) -> WatchSet {
        self.core.hub.watch_set()
    }
}
