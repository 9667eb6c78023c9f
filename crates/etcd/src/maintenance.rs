//! What operators ask of one member: how it is, what it holds, who should lead.

use crate::{
    auth::Credentials,
    convert::number,
    core::{Core, patience},
    error,
    proto::etcdserverpb::{
        AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
        DowngradeInfo, DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse,
        HashRequest, HashResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest,
        SnapshotResponse, StatusRequest, StatusResponse, alarm_request::AlarmAction,
        downgrade_request::DowngradeAction, maintenance_server::Maintenance,
    },
};
use futures::{Stream, StreamExt as _};
use std::{pin::Pin, sync::Arc};
use store::{Alarm, AlarmKind, MemberRole, Op, Outcome, Revision, StoreError};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// The etcd whose API this is. Kubernetes asks for progress on watches only of 3.5.13 and later.
pub const ETCD_VERSION: &str = "3.6.14";
/// etcd's name for the layout of what is stored.
pub(crate) const STORAGE_VERSION: &str = "3.6.0";

pub(crate) struct MaintenanceService(pub(crate) Arc<Core>);

fn listed(Alarm { kind, member }: Alarm) -> AlarmMember {
    let alarm = match kind {
        AlarmKind::NoSpace => AlarmType::Nospace,
        AlarmKind::Corrupt => AlarmType::Corrupt,
    };
    AlarmMember { member_id: member, alarm: alarm.into() }
}

/// In the words of etcd's status: its message as text, with a blank at the end.
fn said(Alarm { kind, member }: Alarm) -> String {
    let member = if member == 0 { String::new() } else { format!("memberID:{member} ") };
    let alarm = match kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
    };
    format!("{member}alarm:{alarm} ")
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        self.0.check_known(&who, patience).await?;
        let AlarmRequest { action, member_id: member, alarm } = request.into_inner();
        let asked = AlarmType::try_from(alarm);
        let kind = match asked {
            Ok(AlarmType::Nospace) => Some(AlarmKind::NoSpace),
            Ok(AlarmType::Corrupt) => Some(AlarmKind::Corrupt),
            Ok(AlarmType::None) | Err(_) => None,
        };
        let active = match AlarmAction::try_from(action) {
            Ok(AlarmAction::Get) | Err(_) => {
                let (view, _) = self.0.read(&who, false, patience).await?;
                let alarms = view.alarms().into_iter();
                let all = asked == Ok(AlarmType::None);
                let alarms = alarms.filter(|alarm| all || Some(alarm.kind) == kind).map(listed);
                let header = self.0.header(view.revision());
                return Ok(Response::new(AlarmResponse { header, alarms: alarms.collect() }));
            }
            Ok(AlarmAction::Activate) => true,
            Ok(AlarmAction::Deactivate) => false,
        };
        let Some(kind) = kind else {
            // None in particular: as in etcd, nothing happens.
            return Ok(Response::new(AlarmResponse {
                header: self.0.header_now(),
                alarms: vec![],
            }));
        };
        let alarm = Alarm { kind, member };
        let op = Op::Alarm { alarm, active };
        let (revision, outcome) = self.0.carry_out(&who, op, patience).await?;
        let changed = matches!(outcome, Outcome::Alarm { changed: true });
        // One that is raised already is answered, too; one that is not cannot be taken back.
        let alarms = if active || changed { vec![listed(alarm)] } else { vec![] };
        Ok(Response::new(AlarmResponse { header: self.0.header(revision), alarms }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let local = self.0.cluster.local();
        let view = self.0.store.view();
        let leader = local.leader.unwrap_or_default();
        let mut errors = Vec::new();
        if leader == 0 {
            errors.push("etcdserver: no leader".to_owned());
        }
        errors.extend(view.alarms().into_iter().map(said));
        Ok(Response::new(StatusResponse {
            header: self.0.header(view.revision()),
            version: ETCD_VERSION.to_owned(),
            db_size: number(view.kept_bytes()),
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
        // As etcd's: over everything that there is now.
        let view = self.0.store.view();
        let (whole, half) = (view.hash(), u64::from(u32::MAX));
        let hash = u32::try_from((whole ^ (whole >> 32)) & half).unwrap_or_default();
        Ok(Response::new(HashResponse { header: self.0.header(view.revision()), hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        self.0.check_root(&Credentials::of(&request), patience(&request)).await?;
        let view = self.0.store.view();
        let asked = u64::try_from(request.into_inner().revision).unwrap_or_default();
        let revision = if asked == 0 { view.revision() } else { Revision::new(asked) };
        let now = view.revision();
        let hashed = world::blocking(move || view.hash_kv(revision)).await;
        let hashed = hashed.map_err(|error| Status::internal(error.to_string()))?;
        let (hash, compacted) = hashed.map_err(|rejection| error::of_rejection(&rejection))?;
        Ok(Response::new(HashKvResponse {
            header: self.0.header(now),
            hash,
            compact_revision: number(compacted.get()),
            hash_revision: number(revision.get()),
        }))
    }

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let patience = patience(&request);
        self.0.check_root(&Credentials::of(&request), patience).await?;
        let backup = self.0.cluster.backup(patience).await.map_err(error::of_store)?;
        let header = self.0.header(backup.revision);
        let pieces = ReceiverStream::new(backup.pieces);
        let pieces = pieces.scan(backup.bytes, move |left, piece| {
            let piece = piece.map_err(Status::internal).map(|blob| {
                *left = left.saturating_sub(blob.len() as u64);
                let version = STORAGE_VERSION.to_owned();
                SnapshotResponse { header, remaining_bytes: *left, blob, version }
            });
            std::future::ready(Some(piece))
        });
        Ok(Response::new(Box::pin(pieces)))
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
