//! [`Cluster`]: the group as this replica knows it.

use crate::{
    core::role,
    membership::{Change, info},
    peer::{StatusRequest, StatusResponse},
    store::RaftStore,
};
use async_trait::async_trait;
use openraft::async_runtime::watch::WatchReceiver as _;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{
    Backup, Cluster, ClusterStatus, Leadership, LocalStatus, MemberChange, MemberError, MemberInfo,
    MemberRole, MemberStatus, ProposalTimes, Revision, Store as _, StoreError, SyncTimes,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

/// Between two requests for a snapshot, while an earlier one is being written.
const SNAPSHOT_RETRY: Duration = Duration::from_millis(100);

#[async_trait]
impl Cluster for RaftStore {
    fn local(&self) -> LocalStatus {
        let metrics = self.core.raft.metrics();
        let now = metrics.borrow_watched();
        LocalStatus {
            cluster_id: self.core.identity.cluster(),
            member_id: self.core.id,
            term: now.current_term,
            leader: self.core.heard_leader(&now),
            role: role(now.state),
            last_index: now.last_log_index.unwrap_or_default(),
            applied_index: *self.core.applied.borrow(),
        }
    }

    fn members(&self) -> Vec<MemberInfo> {
        self.core.members().into_iter().map(info).collect()
    }

    async fn change_members(
        &self,
        change: MemberChange,
        deadline: Duration,
    ) -> Result<Vec<MemberInfo>, MemberError> {
        let until = Instant::now() + deadline;
        let changed = self.core.change(&Change::new(change), until).await?;
        if changed.members.iter().any(|(id, _, _)| *id == self.core.id) {
            // Whoever asks here next sees what was answered.
            self.core.reached(changed.index, until).await;
        }
        Ok(changed.members.into_iter().map(info).collect())
    }

    async fn status(&self, deadline: Duration) -> ClusterStatus {
        let members = self.core.members();
        let mut asked = JoinSet::new();
        for (id, _, _) in &members {
            let (id, core) = (*id, Arc::clone(&self.core));
            asked.spawn(async move {
                if id == core.id {
                    return (id, Some(core.own_status()));
                }
                let Ok(mut client) = core.peers.client(id) else { return (id, None) };
                let answer = timeout(deadline, client.status(StatusRequest {})).await;
                (id, answer.ok().and_then(Result::ok).map(tonic::Response::into_inner))
            });
        }
        let answers: BTreeMap<u64, Option<StatusResponse>> =
            asked.join_all().await.into_iter().collect();
        let members = members.into_iter().map(|(id, member, _)| {
            let answer = answers.get(&id).cloned().flatten();
            let reachable = answer.is_some();
            let answer = answer.unwrap_or_default();
            MemberStatus {
                id,
                name: member.name,
                peer_url: member.peer_urls.into_iter().next().unwrap_or_default(),
                client_url: member.api_url,
                role: answer.role.parse().unwrap_or(MemberRole::Unknown),
                term: answer.term,
                applied_index: answer.applied_index,
                revision: Revision::new(answer.revision),
                state_hash: answer.state_hash,
                sync_p99_us: answer.sync_p99_us,
                syncs: answer.syncs,
                appended: answer.appended,
                rss_bytes: answer.rss_bytes,
                disk: answer.disk.parse().unwrap_or_default(),
                disk_stalls: answer.disk_stalls,
                reachable,
            }
        });
        ClusterStatus {
            cluster_id: self.core.identity.cluster(),
            member_id: self.core.id,
            leader: self.core.heard_leader(&self.core.metrics()),
            epoch: self.view().epoch(),
            members: members.collect(),
        }
    }

    async fn transfer_leader(
        &self,
        to: Option<u64>,
        deadline: Duration,
    ) -> Result<u64, StoreError> {
        self.core.hand_over(to, Instant::now() + deadline).await
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    async fn snapshot(&self) -> Result<(), StoreError> {
        let stopped = |e: &dyn std::fmt::Display| StoreError::Stopped { detail: e.to_string() };
        let index = *self.core.applied.borrow();
        let reached =
            || self.core.until(|now| now.snapshot.as_ref().is_some_and(|id| id.index >= index));
        loop {
            // While one is being written that began earlier, this does nothing: it is asked again.
            self.core.raft.trigger().snapshot().await.map_err(|e| stopped(&e))?;
            if let Ok(done) = timeout(SNAPSHOT_RETRY, reached()).await {
                return done.map(|_| ()).ok_or_else(|| stopped(&"raft has ended"));
            }
        }
    }

    async fn backup(&self, deadline: Duration) -> Result<Backup, StoreError> {
        self.back_up(deadline).await
    }

    fn syncs(&self) -> Option<SyncTimes> {
        Some(self.core.wal.counters().sync_times())
    }

    fn proposal_times(&self) -> Option<ProposalTimes> {
        Some(self.core.stages.times())
    }
}
