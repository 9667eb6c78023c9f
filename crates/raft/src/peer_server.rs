//! The receiving half: what peers ask of this replica.

use crate::{
    core::{BACKLOG_BYTES, Core},
    disk::Disk,
    log_store::durable,
    peer::{
        ChangeMembersRequest, ChangeMembersResponse, ForwardRequest, ForwardResponse,
        IntroduceRequest, IntroduceResponse, LeaseLeftRequest, LeaseLeftResponse, MembersRequest,
        MembersResponse, Message, ReadIndexRequest, ReadIndexResponse, RenewLeasesRequest,
        RenewLeasesResponse, StatusRequest, StatusResponse, peer_service_server::PeerService,
    },
    snapshot::{self, SnapshotFile},
    state_machine::CurrentSnapshot,
    types::{SnapshotMeta, TypeConfig, Vote, decode, encode},
};
use futures::{Stream, StreamExt as _};
use openraft::{
    Snapshot,
    raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest},
};
use serde::Serialize;
use std::{
    io,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{LeaseId, Proposal};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

/// Between two looks whether the disk has caught up.
const CATCH_UP: Duration = Duration::from_millis(10);
/// Batches of one replica that are carried out at once; it sends fewer.
const FORWARDS: usize = 64;

/// Answers peers.
pub(crate) struct PeerServer {
    pub(crate) core: Arc<Core>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) snapshot_dir: PathBuf,
}

type Answer<T> = Result<Response<T>, Status>;

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

fn bad(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

fn message<T: Serialize>(value: &T) -> Response<Message> {
    Response::new(Message { payload: encode(value).into() })
}

fn stalled() -> Status {
    Status::unavailable("the disk of this replica has stalled")
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    world::blocking(work).await.map_err(io::Error::other)?
}

impl PeerServer {
    async fn receive(&self, path: PathBuf, pieces: &mut Streaming<Message>) -> Result<(), Status> {
        let disk = Arc::clone(&self.disk);
        let created = blocking(move || disk.create(&path)).await.map_err(internal)?;
        let file: Arc<dyn crate::disk::DiskFile> = created.into();
        let mut offset = 0;
        while let Some(piece) = pieces.message().await? {
            let (file, len) = (Arc::clone(&file), piece.payload.len() as u64);
            blocking(move || file.write_at(&piece.payload, offset)).await.map_err(internal)?;
            offset += len;
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl PeerService for PeerServer {
    type AppendStream = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;
    type ForwardStream = Pin<Box<dyn Stream<Item = Result<ForwardResponse, Status>> + Send>>;

    async fn append(&self, request: Request<Streaming<Message>>) -> Answer<Self::AppendStream> {
        self.core.admit(request.metadata())?;
        let core = Arc::clone(&self.core);
        let broken = Arc::clone(&core);
        let leader_term = Arc::new(AtomicU64::new(0));
        let asks_in = Arc::clone(&leader_term);
        let requests = request.into_inner().filter_map(move |piece| {
            let decoded = match piece {
                Ok(piece) => decode::<AppendEntriesRequest<TypeConfig>>(&piece.payload)
                    .inspect_err(|error| tracing::debug!(%error, "append stream"))
                    .inspect(|request| {
                        asks_in.fetch_max(request.vote.leader_id.term, Ordering::Relaxed);
                    })
                    .ok(),
                Err(status) => {
                    tracing::debug!(%status, "append stream");
                    broken.leader_hung_up.notify_one();
                    None
                }
            };
            let behind = Arc::clone(&broken);
            async move {
                // Entries wait on the wire, not in memory, while the disk is far behind. Heartbeats
                // come on streams of their own.
                while behind.wal.backlog_bytes() > BACKLOG_BYTES
                    && decoded.as_ref().is_some_and(|request| !request.entries.is_empty())
                {
                    tokio::time::sleep(CATCH_UP).await;
                }
                decoded
            }
        });
        let wal = Arc::clone(&core.wal);
        let answers = core.raft.stream_append(Box::pin(requests)).then(move |answer| {
            let (wal, leader_term) = (Arc::clone(&wal), Arc::clone(&leader_term));
            async move {
                let answer = answer.map_err(internal)?;
                // Raft waits for what it writes for this leader. That this replica has what an earlier one has
                // sent may be said, too, only when that is on disk, and with it this leader's vote.
                let has = answer.as_ref().ok().and_then(Option::as_ref);
                let earlier = has.filter(|id| {
                    id.committed_leader_id().term < leader_term.load(Ordering::Relaxed)
                });
                if earlier.is_some() {
                    durable(&wal).await.map_err(internal)?;
                }
                Ok(Message { payload: encode(&answer).into() })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn members(&self, _: Request<MembersRequest>) -> Answer<MembersResponse> {
        Ok(Response::new(self.core.acquaintances()))
    }

    async fn vote(&self, request: Request<Message>) -> Answer<Message> {
        self.core.admit(request.metadata())?;
        let request: VoteRequest<TypeConfig> =
            decode(&request.into_inner().payload).map_err(bad)?;
        let answer = self.core.raft.vote(request).await.map_err(internal)?;
        if answer.vote_granted {
            // A vote counts from here on: first it must be on disk.
            durable(&self.core.wal).await.map_err(internal)?;
        }
        Ok(message(&answer))
    }

    async fn pre_vote(&self, request: Request<Message>) -> Answer<Message> {
        self.core.admit(request.metadata())?;
        if self.core.disk.is_stalled() {
            return Err(stalled());
        }
        let request: VoteRequest<TypeConfig> =
            decode(&request.into_inner().payload).map_err(bad)?;
        self.core.raft.pre_vote(request).await.map(|answer| message(&answer)).map_err(internal)
    }

    async fn transfer_leader(&self, request: Request<Message>) -> Answer<Message> {
        self.core.admit(request.metadata())?;
        let request: TransferLeaderRequest<TypeConfig> =
            decode(&request.into_inner().payload).map_err(bad)?;
        if *request.to_node_id() == self.core.id && self.core.disk.is_stalled() {
            return Err(stalled());
        }
        let answer = self.core.raft.handle_transfer_leader(request).await;
        answer.map(|answer| message(&answer)).map_err(internal)
    }

    async fn snapshot(&self, request: Request<Streaming<Message>>) -> Answer<Message> {
        self.core.admit(request.metadata())?;
        let mut pieces = request.into_inner();
        let head = pieces.message().await?.ok_or_else(|| bad("a snapshot without a head"))?;
        let (vote, meta): (Vote, SnapshotMeta) = decode(&head.payload).map_err(bad)?;
        let name = format!("received-{:016x}", rand::random::<u64>());
        let path = self.snapshot_dir.join(name);
        let received = self.receive(path.clone(), &mut pieces).await;
        if received.is_err() {
            let disk = Arc::clone(&self.disk);
            let _ = blocking(move || disk.remove(&path)).await;
            received?;
            return Err(internal("the snapshot was not received"));
        }
        // Nothing is replaced by a snapshot that is damaged, cut or another one.
        let (disk, of) = (Arc::clone(&self.disk), meta.clone());
        let snapshot: SnapshotFile =
            blocking(move || snapshot::verify(&*disk, path, &of)).await.map_err(internal)?;
        let snapshot: CurrentSnapshot = Snapshot { meta, snapshot };
        let answer = self.core.raft.install_full_snapshot(vote, snapshot).await;
        answer.map(|answer| message(&answer)).map_err(internal)
    }

    async fn forward(
        &self,
        request: Request<Streaming<ForwardRequest>>,
    ) -> Answer<Self::ForwardStream> {
        self.core.greet(request.metadata())?;
        let core = Arc::clone(&self.core);
        let answers = request.into_inner().map(move |request| {
            let core = Arc::clone(&core);
            async move {
                let ForwardRequest { id, proposals, deadline_ms } = request?;
                let proposals: Vec<ProposalWire> = decode(&proposals).map_err(bad)?;
                let proposals = proposals.into_iter().map(Into::into).collect();
                let deadline = Duration::from_millis(deadline_ms);
                let attempts = core.propose_all_here(proposals, deadline).await;
                Ok(ForwardResponse { id, attempts: encode(&attempts).into() })
            }
        });
        Ok(Response::new(Box::pin(answers.buffer_unordered(FORWARDS))))
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Answer<ReadIndexResponse> {
        self.core.greet(request.metadata())?;
        let index = self.core.read_index_here().await.map_err(Status::unavailable)?;
        Ok(Response::new(ReadIndexResponse { index }))
    }

    async fn renew_leases(
        &self,
        request: Request<RenewLeasesRequest>,
    ) -> Answer<RenewLeasesResponse> {
        self.core.greet(request.metadata())?;
        let ids: Vec<LeaseId> = request.into_inner().ids.into_iter().map(LeaseId).collect();
        let renewed = self.core.renew_leases_here(&ids).await.map_err(Status::unavailable)?;
        let ttl_seconds = renewed.into_iter().map(Option::unwrap_or_default).collect();
        Ok(Response::new(RenewLeasesResponse { ttl_seconds }))
    }

    async fn lease_left(&self, request: Request<LeaseLeftRequest>) -> Answer<LeaseLeftResponse> {
        self.core.greet(request.metadata())?;
        let id = LeaseId(request.into_inner().id);
        let left_seconds = self.core.lease_left_here(id).await.map_err(Status::unavailable)?;
        Ok(Response::new(LeaseLeftResponse { left_seconds }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        self.core.greet(request.metadata())?;
        Ok(Response::new(self.core.own_status()))
    }

    async fn introduce(&self, request: Request<IntroduceRequest>) -> Answer<IntroduceResponse> {
        self.core.greet(request.metadata())?;
        Ok(Response::new(self.core.introduction()))
    }

    async fn change_members(
        &self,
        request: Request<ChangeMembersRequest>,
    ) -> Answer<ChangeMembersResponse> {
        self.core.greet(request.metadata())?;
        let request = request.into_inner();
        let change = decode(&request.change).map_err(bad)?;
        let until = Instant::now() + Duration::from_millis(request.deadline_ms);
        let outcome = self.core.change_here(&change, request.again, until).await;
        Ok(Response::new(ChangeMembersResponse { outcome: encode(&outcome).into() }))
    }
}

/// A [`Proposal`] as it travels.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct ProposalWire(store::RequestId, store::Origin, store::Op);

impl From<&Proposal> for ProposalWire {
    fn from(p: &Proposal) -> Self {
        Self(p.request, p.origin.clone(), p.op.clone())
    }
}

impl From<ProposalWire> for Proposal {
    fn from(ProposalWire(request, origin, op): ProposalWire) -> Self {
        Self { request, origin, op }
    }
}
