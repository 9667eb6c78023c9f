//! [`Cluster`]: the group as this replica knows it.

use crate::{
    core::role,
    peer::{StatusRequest, StatusResponse},
    store::RaftStore,
};
use async_trait::async_trait;
use openraft::async_runtime::watch::WatchReceiver as _;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{
    Cluster, ClusterStatus, Leadership, LocalStatus, MemberChange, MemberError, MemberInfo,
    MemberRole, MemberStatus, Revision, Store as _, StoreError,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

#[async_trait]
impl Cluster for RaftStore {
    fn local(&self) -> LocalStatus {
        let metrics = self.core.raft.metrics();
        let now = metrics.borrow_watched();
        LocalStatus {
            cluster_id: self.cluster_id,
            member_id: self.core.id,
            term: now.current_term,
            leader: now.current_leader,
            role: role(now.state),
            last_index: now.last_log_index.unwrap_or_default(),
            applied_index: *self.core.applied.borrow(),
        }
    }

    fn members(&self) -> Vec<MemberInfo> {
        let info = |(id, member): (&u64, &crate::types::Member)| MemberInfo {
            id: *id,
            name: member.name.clone(),
            peer_urls: vec![member.peer_url.clone()],
            client_urls: vec![member.client_url.clone()],
            learner: false,
        };
        self.members.iter().map(info).collect()
    }

    async fn change_members(
        &self,
        _: MemberChange,
        _: Duration,
    ) -> Result<Vec<MemberInfo>, MemberError> {
        Err(MemberError::Unhealthy)
    }

    async fn status(&self, deadline: Duration) -> ClusterStatus {
        let mut asked = JoinSet::new();
        for (id, member) in &self.members {
            let (id, url) = (*id, member.peer_url.clone());
            let (core, peers) = (Arc::clone(&self.core), self.peers.clone());
            asked.spawn(async move {
                if id == core.id {
                    return (id, Some(core.own_status()));
                }
                let Ok(mut client) = peers.client(&url) else { return (id, None) };
                let answer = timeout(deadline, client.status(StatusRequest {})).await;
                (id, answer.ok().and_then(Result::ok).map(tonic::Response::into_inner))
            });
        }
        let answers: BTreeMap<u64, Option<StatusResponse>> =
            asked.join_all().await.into_iter().collect();
        let members = self.members.iter().map(|(id, member)| {
            let answer = answers.get(id).cloned().flatten();
            let reachable = answer.is_some();
            let answer = answer.unwrap_or_default();
            MemberStatus {
                id: *id,
                name: member.name.clone(),
                peer_url: member.peer_url.clone(),
                client_url: member.client_url.clone(),
                role: answer.role.parse().unwrap_or(MemberRole::Unknown),
                term: answer.term,
                applied_index: answer.applied_index,
                revision: Revision::new(answer.revision),
                state_hash: answer.state_hash,
                sync_p99_us: answer.sync_p99_us,
                syncs: answer.syncs,
                appended: answer.appended,
                rss_bytes: answer.rss_bytes,
                reachable,
            }
        });
        ClusterStatus {
            cluster_id: self.cluster_id,
            member_id: self.core.id,
            leader: self.core.leader(),
            epoch: self.view().epoch(),
            members: members.collect(),
        }
    }

    async fn transfer_leader(
        &self,
        to: Option<u64>,
        deadline: Duration,
    ) -> Result<u64, StoreError> {
        let id = self.core.id;
        if self.core.leader() != Some(id) {
            return Err(StoreError::NotLeader);
        }
        let until = Instant::now() + deadline;
        let furthest = || {
            let progress = self.core.metrics().replication.unwrap_or_default();
            let others = progress.into_iter().filter(|(other, _)| *other != id);
            others.max_by_key(|(_, log)| log.as_ref().map(|l| l.index)).map(|(other, _)| other)
        };
        while Instant::now() < until {
            let Some(to) = to.or_else(furthest) else { break };
            if let Err(error) = self.core.raft.trigger().transfer_leader(to).await {
                return Err(StoreError::Stopped { detail: error.to_string() });
            }
            let step = (Instant::now() + Duration::from_millis(500)).min(until);
            let other = |leader: Option<u64>| leader.is_some_and(|l| l != id);
            let taken = self.core.until(|now| other(now.current_leader));
            if let Ok(Some(now)) = timeout_at(step, taken).await
                && let Some(leader) = now.current_leader
            {
                return Ok(leader);
            }
        }
        Err(StoreError::NoLeader { detail: "no other member took the lead".to_owned() })
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    async fn snapshot(&self) -> Result<(), StoreError> {
        let stopped = |e: &dyn std::fmt::Display| StoreError::Stopped { detail: e.to_string() };
        let index = *self.core.applied.borrow();
        self.core.raft.trigger().snapshot().await.map_err(|e| stopped(&e))?;
        let done = self.core.until(|now| now.snapshot.as_ref().is_some_and(|id| id.index >= index));
        done.await.map(|_| ()).ok_or_else(|| stopped(&"raft has ended"))
    }
}
