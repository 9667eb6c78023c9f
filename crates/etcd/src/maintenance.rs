//! What operators ask of one member: how it is, what it holds, who should lead.

use crate::{
    auth::Credentials,
    convert::number,
    core::{Core, patience},
    error,
    proto::etcdserverpb::{
        AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeInfo,
        DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest,
        HashResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse,
        StatusRequest, StatusResponse, downgrade_request::DowngradeAction,
        maintenance_server::Maintenance,
    },
};
use futures::Stream;
use std::{pin::Pin, sync::Arc};
use store::{MemberRole, StoreError};
use tonic::{Request, Response, Status};

/// The etcd whose API this is. Kubernetes asks for progress on watches only of 3.5.13 and later.
pub const ETCD_VERSION: &str = "3.6.14";
/// etcd's name for the layout of what is stored.
pub(crate) const STORAGE_VERSION: &str = "3.6.0";

pub(crate) struct MaintenanceService(pub(crate) Arc<Core>);

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        self.0.check_known(&Credentials::of(&request), patience(&request)).await?;
        Err(Status::unimplemented("alarms"))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let local = self.0.cluster.local();
        let view = self.0.store.view();
        let leader = local.leader.unwrap_or_default();
        let errors = if leader == 0 { vec!["etcdserver: no leader".to_owned()] } else { vec![] };
        Ok(Response::new(StatusResponse {
            header: self.0.header(view.revision()),
            version: ETCD_VERSION.to_owned(),
            db_size: number(view.live_bytes()),
            leader,
            raft_index: local.last_index,
            raft_term: local.term,
            raft_applied_index: local.applied_index,
            errors,
            db_size_in_use: number(view.live_bytes()),
            is_learner: local.role == MemberRole::Learner,
            storage_version: STORAGE_VERSION.to_owned(),
            db_size_quota: number(view.quota_bytes()),
            downgrade_info: Some(DowngradeInfo::default()),
        }))
    }

    /// There is nothing to defragment: the state is in memory, and snapshots are written anew.
    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        self.0.check_root(&Credentials::of(&request), patience(&request)).await?;
        // As from etcd, without a header.
        Ok(Response::new(DefragmentResponse::default()))
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        self.0.check_root(&Credentials::of(&request), patience(&request)).await?;
        Err(Status::unimplemented("hash"))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        self.0.check_root(&Credentials::of(&request), patience(&request)).await?;
        Err(Status::unimplemented("hashes"))
    }

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.0.check_root(&Credentials::of(&request), patience(&request)).await?;
        Err(Status::unimplemented("snapshots"))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        self.0.check_root(&Credentials::of(&request), patience(&request)).await?;
        let patience = patience(&request);
        let to = request.into_inner().target_id;
        let local = self.0.cluster.local();
        if local.leader != Some(local.member_id) {
            return Err(error::not_leader());
        }
        let voter = self.0.cluster.members().iter().any(|m| m.id == to && !m.learner);
        if !voter {
            return Err(error::bad_transferee());
        }
        if to != local.member_id {
            match self.0.cluster.transfer_leader(Some(to), patience).await {
                Ok(_) => {}
                Err(StoreError::NotLeader) => return Err(error::not_leader()),
                Err(StoreError::NoLeader { .. }) => return Err(error::timed_out()),
                Err(error) => return Err(error::of_store(error)),
            }
        }
        Ok(Response::new(MoveLeaderResponse { header: self.0.header_now() }))
    }

    /// Every version of this program reads what an older one has written, and none writes for an older
    /// one: there is nothing that a downgrade could prepare.
    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        self.0.check_root(&Credentials::of(&request), patience(&request)).await?;
        let DowngradeRequest { action, version } = request.into_inner();
        if DowngradeAction::try_from(action) == Ok(DowngradeAction::Cancel) {
            return Err(error::no_downgrade());
        }
        let mut parts = version.trim_start_matches('v').split('.');
        let numbers = [parts.next(), parts.next()].map(|p| p.and_then(|p| p.parse::<u32>().ok()));
        let [Some(_), Some(_)] = numbers else { return Err(error::downgrade_version_format()) };
        Err(error::downgrade_version())
    }
}
