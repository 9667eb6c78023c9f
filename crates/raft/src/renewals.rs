//! What the leader alone knows of leases: renewed there, and asked about.
//!
//! A replica asks for all renewals that wait in one message. The leader answers only while it is sure
//! to lead: another one might have begun the leases at an earlier time.

use crate::{
    core::{Attempt, Core},
    leases::Renewed,
    peer::{LeaseLeftRequest, RenewLeasesRequest},
    store::RaftStore,
};
use futures::future::join_all;
use openraft::ReadPolicy;
use std::{
    collections::BTreeMap,
    sync::{Weak, atomic::Ordering},
    time::Duration,
};
use store::{LeaseId, Op, Origin, Proposal, RequestId, StoreError};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};

/// A lease, and who waits to hear of it.
pub(crate) type Renewal = (LeaseId, oneshot::Sender<Result<Option<i64>, String>>);

/// What only the leader can answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Question {
    /// Seconds to live, after a renewal.
    Renew,
    /// Seconds until it ends.
    Left,
}

/// Renewals in one message.
const ROUND: usize = 8192;
/// For the leader to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries of a caller.
const RETRY: Duration = Duration::from_millis(20);

impl Core {
    /// Renews leases here: seconds to live of each, `None` of those that are gone.
    pub(crate) async fn renew_leases_here(
        &self,
        ids: &[LeaseId],
    ) -> Result<Vec<Option<i64>>, String> {
        let first = self.renew_all(ids)?;
        let checkpointed: Vec<LeaseId> = first
            .iter()
            .filter(|(_, r)| **r == Renewed::AfterCheckpoint)
            .map(|(id, _)| *id)
            .collect();
        let mut renewed = first;
        if !checkpointed.is_empty() {
            join_all(checkpointed.iter().map(|id| self.take_checkpoint_back(*id))).await;
            renewed.extend(self.renew_all(&checkpointed)?);
        }
        // After the last renewal, so that nobody else led when it was made.
        self.surely_leads().await?;
        ids.iter()
            .map(|id| match renewed.get(id) {
                Some(Renewed::For(ttl_seconds)) => Ok(Some(*ttl_seconds)),
                Some(Renewed::Gone) | None => Ok(None),
                Some(Renewed::AfterCheckpoint) => {
                    Err("the checkpoint of a lease could not be taken back".to_owned())
                }
            })
            .collect()
    }

    fn renew_all(&self, ids: &[LeaseId]) -> Result<BTreeMap<LeaseId, Renewed>, String> {
        let now = Instant::now();
        let renew = |id: &LeaseId| Some((*id, self.leases.renew(*id, now)?));
        ids.iter().map(renew).collect::<Option<_>>().ok_or_else(not_leading)
    }

    async fn take_checkpoint_back(&self, id: LeaseId) {
        let sequence = self.lease_sequence.fetch_add(1, Ordering::Relaxed);
        let proposal = Proposal {
            request: RequestId { client: self.lease_client, sequence },
            origin: Origin::Client,
            op: Op::LeaseCheckpoint { id, remaining_seconds: 0 },
        };
        if let Attempt::Unknown(detail) = self.propose_here(proposal, PATIENCE).await {
            tracing::debug!(?id, detail, "checkpoint not taken back");
        }
    }

    /// Seconds that a lease has left here.
    pub(crate) async fn lease_left_here(&self, id: LeaseId) -> Result<Option<i64>, String> {
        let left = self.leases.left(id, Instant::now()).ok_or_else(not_leading)?;
        self.surely_leads().await?;
        Ok(left)
    }

    /// # Errors
    /// Another replica may lead.
    pub(crate) async fn surely_leads(&self) -> Result<(), String> {
        // Without a message while the followers' promise not to elect another holds.
        if self.raft.get_read_linearizer(ReadPolicy::LeaseRead).await.is_ok() {
            return Ok(());
        }
        let asked = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        asked.map(drop).map_err(|error| error.to_string())
    }
}

fn not_leading() -> String {
    "this replica does not lead".to_owned()
}

impl RaftStore {
    /// Asks until there is an answer.
    pub(crate) async fn ask_about_lease(
        &self,
        question: Question,
        id: LeaseId,
        deadline: Duration,
    ) -> Result<Option<i64>, StoreError> {
        let until = Instant::now() + deadline;
        let mut detail = format!("no answer within {deadline:?}");
        loop {
            let asked = async {
                match question {
                    Question::Renew => self.renew_in_a_round(id).await,
                    Question::Left => self.lease_left_at_leader(id).await,
                }
            };
            match timeout_at(until, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => detail = error,
                Err(_) => return Err(StoreError::NoLeader { detail }),
            }
            if Instant::now() + RETRY >= until {
                return Err(StoreError::NoLeader { detail });
            }
            sleep(RETRY).await;
        }
    }

    async fn renew_in_a_round(&self, id: LeaseId) -> Result<Option<i64>, String> {
        let (answer, answered) = oneshot::channel();
        let stopping = || "the replica is stopping".to_owned();
        self.renewals.send((id, answer)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    async fn lease_left_at_leader(&self, id: LeaseId) -> Result<Option<i64>, String> {
        let leader = self.core.leader().ok_or("no leader is known")?;
        if leader == self.core.id {
            return self.core.lease_left_here(id).await;
        }
        let mut client = self.core.peers.client(leader).map_err(|e| e.to_string())?;
        let asked = client.lease_left(LeaseLeftRequest { id: id.0 });
        let answer = self.while_it_leads(leader, asked).await?;
        Ok(answer.left_seconds)
    }

    async fn renew_at_leader(&self, ids: &[LeaseId]) -> Result<Vec<Option<i64>>, String> {
        let leader = self.core.leader().ok_or("no leader is known")?;
        if leader == self.core.id {
            return self.core.renew_leases_here(ids).await;
        }
        let mut client = self.core.peers.client(leader).map_err(|e| e.to_string())?;
        let request = RenewLeasesRequest { ids: ids.iter().map(|id| id.0).collect() };
        let answer = self.while_it_leads(leader, client.renew_leases(request)).await?;
        Ok(answer.ttl_seconds.into_iter().map(|ttl| (ttl > 0).then_some(ttl)).collect())
    }

    async fn while_it_leads<T>(
        &self,
        leader: u64,
        asked: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, String> {
        tokio::select! {
            answer = timeout(PATIENCE, asked) => match answer {
                Ok(Ok(answer)) => Ok(answer.into_inner()),
                Ok(Err(status)) => Err(status.message().to_owned()),
                Err(_) => Err(format!("the leader did not answer within {PATIENCE:?}")),
            },
            _ = self.core.until(|now| now.current_leader != Some(leader)) => {
                Err("the leader changed".to_owned())
            }
        }
    }
}

/// One message at a time takes along everything that waited when it was sent.
pub(crate) async fn renewal_rounds(store: Weak<RaftStore>, mut waiting: mpsc::Receiver<Renewal>) {
    let mut round = Vec::new();
    while waiting.recv_many(&mut round, ROUND).await > 0 {
        let Some(store) = store.upgrade() else { return };
        let ids: Vec<LeaseId> = round.iter().map(|(id, _)| *id).collect();
        let renewed = store.renew_at_leader(&ids).await;
        for (index, (_, answer)) in round.drain(..).enumerate() {
            let _ = answer.send(match &renewed {
                Ok(ttls) => {
                    ttls.get(index).copied().ok_or_else(|| "an answer is missing".to_owned())
                }
                Err(error) => Err(error.clone()),
            });
        }
    }
}
