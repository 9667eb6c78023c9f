//! How the group is, who is in it, and handing over the lead.

use crate::proto::cluster::{
    AddMemberRequest, BackupRequest, BackupResponse, Member, MemberInfo, MembersRequest,
    MembersResponse, PromoteMemberRequest, RemoveMemberRequest, ReplaceMemberRequest,
    ReplaceMemberResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
    TransferLeaderRequest, TransferLeaderResponse, UpdateMemberRequest,
    admin_service_server::AdminService, replace_member_response::Step,
};
use futures::{Stream, StreamExt as _};
use std::{pin::Pin, sync::Arc, time::Duration};
use store::{Cluster, MemberChange, MemberError, Replaced, Store, StoreError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// For a member that may not answer.
const MEMBER_DEADLINE: Duration = Duration::from_millis(500);
const TRANSFER_DEADLINE: Duration = Duration::from_secs(5);

pub(crate) struct Admin {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cluster: Arc<dyn Cluster>,
}

/// More than a replacement takes, and its failure.
const STEPS: usize = 8;
/// For one change of the membership.
pub(crate) const CHANGE_DEADLINE: Duration = Duration::from_secs(9);
/// For a new member to be started and to catch up, if nothing else is said.
const REPLACE_DEADLINE: Duration = Duration::from_secs(600);

pub(crate) fn member_error(error: MemberError) -> Status {
    match error {
        MemberError::NotFound => Status::not_found(error.to_string()),
        MemberError::PeerUrlExists => Status::already_exists(error.to_string()),
        MemberError::NotLearner
        | MemberError::NotInSync
        | MemberError::TooManyLearners
        | MemberError::Unhealthy
        | MemberError::NotEnoughStarted => Status::failed_precondition(error.to_string()),
        MemberError::Store(StoreError::Unknown { detail }) => {
            Status::deadline_exceeded(format!("outcome unknown: {detail}"))
        }
        MemberError::Store(error) => refused(error),
    }
}

fn listed(members: Vec<store::MemberInfo>) -> Response<MembersResponse> {
    let members = members.into_iter().map(|m| MemberInfo {
        id: m.id,
        name: m.name,
        peer_urls: m.peer_urls,
        client_urls: m.client_urls,
        learner: m.learner,
    });
    Response::new(MembersResponse { members: members.collect() })
}

impl Admin {
    async fn change(&self, change: MemberChange) -> Result<Response<MembersResponse>, Status> {
        let members = self.cluster.change_members(change, CHANGE_DEADLINE).await;
        members.map(listed).map_err(member_error)
    }
}

/// At least one, and each a URL.
fn urls(peer_urls: Vec<String>) -> Result<Vec<String>, Status> {
    let wrong = peer_urls.iter().find(|url| {
        let uri: Option<http::Uri> = url.parse().ok();
        !uri.is_some_and(|uri| uri.scheme().is_some() && uri.port().is_some())
    });
    match wrong {
        Some(url) => {
            Err(Status::invalid_argument(format!("{url:?} must read http(s)://HOST:PORT")))
        }
        None if peer_urls.is_empty() => Err(Status::invalid_argument("a peer URL is needed")),
        None => Ok(peer_urls),
    }
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
            disk: m.disk.to_string(),
            disk_stalls: m.disk_stalls,
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

    async fn members(
        &self,
        _: Request<MembersRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        self.store.barrier(CHANGE_DEADLINE).await.map_err(refused)?;
        Ok(listed(self.cluster.members()))
    }

    async fn add_member(
        &self,
        request: Request<AddMemberRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        let AddMemberRequest { peer_urls, learner } = request.into_inner();
        self.change(MemberChange::Add { peer_urls: urls(peer_urls)?, learner }).await
    }

    async fn remove_member(
        &self,
        request: Request<RemoveMemberRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        self.change(MemberChange::Remove { id: request.into_inner().id }).await
    }

    async fn promote_member(
        &self,
        request: Request<PromoteMemberRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        self.change(MemberChange::Promote { id: request.into_inner().id }).await
    }

    async fn update_member(
        &self,
        request: Request<UpdateMemberRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        let UpdateMemberRequest { id, peer_urls } = request.into_inner();
        self.change(MemberChange::Update { id, peer_urls: urls(peer_urls)? }).await
    }

    type ReplaceMemberStream =
        Pin<Box<dyn Stream<Item = Result<ReplaceMemberResponse, Status>> + Send>>;

    async fn replace_member(
        &self,
        request: Request<ReplaceMemberRequest>,
    ) -> Result<Response<Self::ReplaceMemberStream>, Status> {
        let ReplaceMemberRequest { old, peer_urls, deadline_seconds } = request.into_inner();
        let peer_urls = urls(peer_urls)?;
        let deadline = match deadline_seconds {
            0 => REPLACE_DEADLINE,
            seconds => Duration::from_secs(seconds),
        };
        self.store.barrier(CHANGE_DEADLINE).await.map_err(refused)?;
        let cluster = Arc::clone(&self.cluster);
        let (steps, told) = mpsc::channel(STEPS);
        // As long as the answer is read: given up by whoever asked, it goes on when asked for again.
        let replacing = async move {
            let tell = |replaced| {
                let step = match replaced {
                    Replaced::Added(id) => Step::Added(id),
                    Replaced::Started(id) => Step::Started(id),
                    Replaced::Promoted(id) => Step::Promoted(id),
                    Replaced::Removed(id) => Step::Removed(id),
                };
                let _ = steps.try_send(Ok(ReplaceMemberResponse { step: Some(step) }));
            };
            let replaced = store::replace_member(&*cluster, old, peer_urls, deadline, tell).await;
            if let Err(error) = replaced {
                let _ = steps.try_send(Err(member_error(error)));
            }
            None
        };
        let replacing = futures::stream::once(replacing).filter_map(std::future::ready);
        let answers = futures::stream::select(ReceiverStream::new(told), replacing);
        Ok(Response::new(Box::pin(answers)))
    }

    type BackupStream = Pin<Box<dyn Stream<Item = Result<BackupResponse, Status>> + Send>>;

    async fn backup(
        &self,
        _: Request<BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let backup = self.cluster.backup(CHANGE_DEADLINE).await.map_err(refused)?;
        let pieces = ReceiverStream::new(backup.pieces).scan(backup.bytes, |left, piece| {
            let piece = piece.map_err(Status::internal).map(|piece| {
                *left = left.saturating_sub(piece.len() as u64);
                BackupResponse { piece: piece.into(), remaining_bytes: *left }
            });
            std::future::ready(Some(piece))
        });
        Ok(Response::new(Box::pin(pieces)))
    }

    async fn snapshot(
        &self,
        _: Request<SnapshotRequest>,
    ) -> Result<Response<SnapshotResponse>, Status> {
        self.cluster.snapshot().await.map_err(refused)?;
        Ok(Response::new(SnapshotResponse {}))
    }
}
