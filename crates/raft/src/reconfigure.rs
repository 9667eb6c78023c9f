//! Changes of the membership: on their way to the leader, and there into the log.

use crate::{
    core::Core,
    forward::is_refused,
    membership::{Change, Changed, Facts, Plan, Refusal, members, plan},
    peer::{ChangeMembersRequest, IntroduceRequest, IntroduceResponse},
    types::{TypeConfig, decode, encode},
};
use openraft::{
    ChangeMembers,
    errors::{ClientWriteError, RaftError},
    raft::Precondition,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tonic::Status;

/// Before a leader is asked again that did not know better.
const AGAIN: Duration = Duration::from_millis(10);

/// What the others say to an introduction.
pub(crate) type Answers = BTreeMap<u64, Result<IntroduceResponse, Status>>;

impl Core {
    /// What this replica says to an introduction.
    pub(crate) fn introduction(&self) -> IntroduceResponse {
        let metrics = self.metrics();
        IntroduceResponse {
            cluster: self.identity.cluster(),
            founder: self.identity.standing() == crate::identity::Standing::Founder,
            // The first membership alone is entry 0, which every founder writes by itself.
            established: metrics.last_log_index.is_some_and(|index| index > 0),
            leader: metrics.current_leader.unwrap_or_default(),
        }
    }

    /// Introduces this replica to all others.
    pub(crate) async fn ask_around(&self) -> Answers {
        let mut asked = JoinSet::new();
        for id in self.peers.others() {
            let (peers, patience) = (self.peers.clone(), self.patience);
            asked.spawn(async move {
                let mut client = match peers.client(id) {
                    Ok(client) => client,
                    Err(error) => return (id, Err(Status::unavailable(error.to_string()))),
                };
                let answer = match timeout(patience, client.introduce(IntroduceRequest {})).await {
                    Ok(answer) => answer.map(tonic::Response::into_inner),
                    Err(_) => Err(Status::deadline_exceeded(format!("silent for {patience:?}"))),
                };
                if let Err(status) = &answer
                    && status.code() == tonic::Code::Unavailable
                {
                    peers.note(id, status);
                }
                (id, answer)
            });
        }
        asked.join_all().await.into_iter().collect()
    }

    /// Those who answer, this replica included.
    pub(crate) async fn answering(&self) -> BTreeSet<u64> {
        let answers = self.ask_around().await.into_iter();
        answers.filter(|(_, answer)| answer.is_ok()).map(|(id, _)| id).chain([self.id]).collect()
    }

    /// Changes the membership through whoever leads.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub(crate) async fn change(&self, change: &Change, until: Instant) -> Result<Changed, Refusal> {
        let mut unknown = None;
        loop {
            let known = self.until(|now| now.current_leader.is_some());
            let leader = timeout_at(until, known).await.ok().flatten();
            let leader = leader.and_then(|now| now.current_leader);
            let left = !until.saturating_duration_since(Instant::now()).is_zero();
            let (Some(leader), true) = (leader, left) else {
                return Err(unknown.map_or(Refusal::NotLeader(None), Refusal::Unknown));
            };
            let again = unknown.is_some();
            let outcome = if leader == self.id {
                self.change_here(change, again, until).await
            } else {
                self.change_at(leader, change, again, until).await
            };
            match outcome {
                Err(Refusal::NotLeader(_)) => {}
                Err(Refusal::Unknown(why)) => unknown = Some(why),
                outcome => return outcome,
            }
            sleep(AGAIN).await;
        }
    }

    /// Asks one member, which may lead.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub(crate) async fn change_at(
        &self,
        leader: u64,
        change: &Change,
        again: bool,
        until: Instant,
    ) -> Result<Changed, Refusal> {
        let Ok(mut client) = self.peers.client(leader) else {
            return Err(Refusal::NotLeader(None));
        };
        let left = until.saturating_duration_since(Instant::now());
        let request = ChangeMembersRequest {
            change: encode(change).into(),
            again,
            deadline_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        };
        let known = self.leader();
        let changed = self.until(|now| now.current_leader != known);
        let answer = tokio::select! {
            answer = timeout_at(until, client.change_members(request)) => answer,
            _ = changed => return Err(Refusal::Unknown("the leader changed".to_owned())),
        };
        match answer {
            Ok(Ok(answer)) => decode(&answer.into_inner().outcome)
                .unwrap_or_else(|error| Err(Refusal::Unknown(error.to_string()))),
            Ok(Err(status)) => {
                self.peers.note(leader, &status);
                if is_refused(&status) || status.code() == tonic::Code::FailedPrecondition {
                    Err(Refusal::NotLeader(None))
                } else {
                    Err(Refusal::Unknown(status.message().to_owned()))
                }
            }
            Err(_) => Err(Refusal::Unknown(format!("no answer within {left:?}"))),
        }
    }

    /// Changes the membership here, where the leader is. One change at a time; each is decided on a
    /// membership that is known to be the last one.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub(crate) async fn change_here(
        &self,
        change: &Change,
        mut again: bool,
        until: Instant,
    ) -> Result<Changed, Refusal> {
        let away = || Refusal::NotLeader(self.leader());
        let one = timeout_at(until, self.changing.lock()).await.map_err(|_| away())?;
        loop {
            if self.leader() != Some(self.id) {
                return Err(away());
            }
            let index = timeout_at(until, self.read_index_here()).await;
            let index = index.map_err(|_| away())?.map_err(|_| away())?;
            if !self.reached(index, until).await {
                return Err(away());
            }
            let group = self.group.borrow().clone();
            let metrics = self.metrics();
            if metrics.membership_config.log_id() != group.log_id() {
                // An earlier change is under way.
                let mut changed = self.group.clone();
                let known = group.log_id();
                let settled = changed.wait_for(|now| now.log_id() != known);
                timeout_at(until, settled).await.map(|_| ()).map_err(|_| away())?;
                continue;
            }
            let step = if group.membership().get_joint_config().len() > 1 {
                // Begun by a leader that lost the lead halfway.
                Plan::Propose(ChangeMembers::AddVoterIds(BTreeSet::new()))
            } else {
                let matched = metrics.replication.unwrap_or_default().into_iter();
                let matched = matched.filter_map(|(id, log)| Some((id, log?.index)));
                let answering =
                    if change.needs_answers() { self.answering().await } else { BTreeSet::new() };
                let last = metrics.last_log_index.unwrap_or_default();
                let facts = Facts { me: self.id, answering, matched: matched.collect(), last };
                match plan(&group, change, &facts, again)? {
                    Plan::Done => {
                        let index = group.log_id().as_ref().map_or(0, |id| id.index);
                        let cluster = self.identity.cluster();
                        return Ok(Changed { cluster, index, members: members(&group) });
                    }
                    step @ (Plan::Propose(_) | Plan::HandOver) => step,
                }
            };
            let changes = match step {
                Plan::Propose(changes) => changes,
                Plan::HandOver | Plan::Done => {
                    drop(one);
                    let next = self.hand_over(None, until).await.ok();
                    return Err(Refusal::NotLeader(next));
                }
            };
            let last_membership_log_id = *group.log_id();
            let unchanged =
                [Precondition::<TypeConfig>::LastMembershipLogId { last_membership_log_id }];
            let written = self.raft.change_membership_if(changes, false, unchanged);
            match timeout_at(until, written).await {
                // Looked at again: what was asked for is there, or only what came before it.
                Ok(Ok(done)) => {
                    again = true;
                    let index = done.log_id.index;
                    self.reached(index, until).await;
                    let group = self.group.borrow().clone();
                    if group.log_id().as_ref().is_some_and(|id| id.index >= index)
                        && plan_is_done(&group, change)
                    {
                        let cluster = self.identity.cluster();
                        return Ok(Changed { cluster, index, members: members(&group) });
                    }
                }
                Ok(Err(RaftError::APIError(error))) => match error {
                    ClientWriteError::PreconditionFailed(_)
                    | ClientWriteError::ChangeMembershipError(_) => sleep(AGAIN).await,
                    ClientWriteError::ForwardToLeader(_)
                    | ClientWriteError::LogEntryDiscarded(_) => {
                        return Err(Refusal::Unknown("the lead was lost".to_owned()));
                    }
                },
                Ok(Err(RaftError::Fatal(error))) => {
                    return Err(Refusal::Unknown(error.to_string()));
                }
                Err(_) => return Err(Refusal::Unknown("not committed in time".to_owned())),
            }
            if Instant::now() >= until {
                return Err(Refusal::Unknown("not committed in time".to_owned()));
            }
        }
    }
}

/// Whether a change, once proposed, is in this membership.
fn plan_is_done(group: &crate::types::StoredMembership, change: &Change) -> bool {
    plan(group, change, &Facts::default(), true) == Ok(Plan::Done)
}
