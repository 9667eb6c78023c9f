//! How the group is, and handing over the lead.

use crate::proto::cluster::{
    Member, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
    TransferLeaderRequest, TransferLeaderResponse, admin_service_server::AdminService,
};
use std::{sync::Arc, time::Duration};
use store::{Cluster, StoreError};
use tonic::{Request, Response, Status};

/// For a member that may not answer.
const MEMBER_DEADLINE: Duration = Duration::from_millis(500);
const TRANSFER_DEADLINE: Duration = Duration::from_secs(5);

pub(crate) struct Admin {
    pub(crate) cluster: Arc<dyn Cluster>,
}

fn refused(error: StoreError) -> Status {
    match error {
        StoreError::NotLeader => Status::failed_precondition("this replica does not lead"),
        StoreError::NoLeader { .. }
        | StoreError::Unknown { .. }
        | StoreError::Busy
        | StoreError::TooLarge { .. }
        | StoreError::NotYet { .. }
        | StoreError::Stopped { .. } => Status::unavailable(error.to_string()),
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let status = self.cluster.status(MEMBER_DEADLINE).await;
        let members = status.members.into_iter().map(|m| Member {
            id: m.id,
            name: m.name,
            peer_url: m.peer_url,
            client_url: m.client_url,
            role: m.role.to_string(),
            term: m.term,
            applied_index: m.applied_index,
            revision: m.revision.get(),
            state_hash: m.state_hash,
            sync_p99_us: m.sync_p99_us,
            syncs: m.syncs,
            appended: m.appended,
            rss_bytes: m.rss_bytes,
            reachable: m.reachable,
        });
        Ok(Response::new(StatusResponse {
            cluster_id: status.cluster_id,
            member_id: status.member_id,
            leader: status.leader.unwrap_or_default(),
            epoch: status.epoch.0,
            members: members.collect(),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let to = Some(request.into_inner().to).filter(|to| *to != 0);
        let leader = self.cluster.transfer_leader(to, TRANSFER_DEADLINE).await.map_err(refused)?;
        Ok(Response::new(TransferLeaderResponse { leader }))
    }

    async fn snapshot(
        &self,
        _: Request<SnapshotRequest>,
    ) -> Result<Response<SnapshotResponse>, Status> {
        self.cluster.snapshot().await.map_err(refused)?;
        Ok(Response::new(SnapshotResponse {}))
    }
}
