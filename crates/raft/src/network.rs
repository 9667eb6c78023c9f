//! The sending half of the consensus.

use crate::{
    log_store::durable,
    peer::Message,
    peers::{PeerClient, Peers},
    snapshot::SnapshotFile,
    state_machine::CurrentSnapshot,
    types::{Member, TypeConfig, Vote, decode, encode},
    wal::Wal,
};
use futures::{Stream, StreamExt as _};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use std::{io, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Pieces in which a snapshot travels.
const SNAPSHOT_PIECE: usize = 1 << 20;

/// Makes openraft's connections.
pub(crate) struct Factory {
    pub(crate) peers: Peers,
    pub(crate) wal: Arc<Wal>,
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &Member) -> Connection {
        self.peers.add(target, node);
        Connection { peers: self.peers.clone(), target, wal: Arc::clone(&self.wal) }
    }
}

/// To one peer, wherever it is now.
pub(crate) struct Connection {
    peers: Peers,
    target: u64,
    wal: Arc<Wal>,
}

type RpcError = RPCError<TypeConfig>;

fn message<T: Serialize>(value: &T) -> Message {
    Message { payload: encode(value).into() }
}

fn network(error: impl std::error::Error + 'static) -> RpcError {
    RPCError::Network(NetworkError::new(&error))
}

impl Connection {
    fn client(&self) -> Result<PeerClient, RpcError> {
        self.peers.client(self.target).map_err(network)
    }

    fn refused(&self, status: tonic::Status) -> RpcError {
        self.peers.note(self.target, &status);
        // Nobody listens there, or not to this one: wait a little before the next try.
        if matches!(status.code(), tonic::Code::Unavailable | tonic::Code::FailedPrecondition) {
            return RPCError::Unreachable(Unreachable::new(&status));
        }
        network(status)
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        request: Q,
        option: &RPCOption,
        method: impl AsyncFnOnce(PeerClient, Message) -> Result<tonic::Response<Message>, tonic::Status>,
    ) -> Result<A, RpcError> {
        let client = self.client()?;
        let answer = tokio::time::timeout(option.hard_ttl(), method(client, message(&request)));
        match answer.await {
            Ok(Ok(answer)) => decode(&answer.into_inner().payload).map_err(network),
            Ok(Err(status)) => Err(self.refused(status)),
            Err(elapsed) => Err(network(elapsed)),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let last = rpc.entries.last().map(openraft::entry::RaftEntry::log_id).or(rpc.prev_log_id);
        let mut answers =
            RaftNetworkV2::stream_append(self, futures::stream::iter([rpc]), option).await?;
        let Some(answer) = answers.next().await else {
            return Err(network(io::Error::other("the peer gave no answer")));
        };
        Ok(match answer? {
            Ok(matching) if matching == last => AppendEntriesResponse::Success,
            Ok(matching) => AppendEntriesResponse::PartialSuccess(matching),
            Err(openraft::raft::StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(openraft::raft::StreamAppendError::HigherVote(vote)) => {
                AppendEntriesResponse::HigherVote(vote)
            }
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let mut client = self.client()?;
            let requests = input.map(|request| message(&request));
            let answers = client.append(requests).await.map_err(|s| self.refused(s))?.into_inner();
            let this = &*self;
            let answers = answers.map(|answer| match answer {
                Ok(answer) => decode(&answer.payload).map_err(network),
                Err(status) => Err(this.refused(status)),
            });
            let answers: BoxStream<'s, _> = Box::pin(answers);
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        // Who asks for votes has given its own: first it must be on disk.
        durable(&self.wal).await.map_err(network)?;
        self.call(rpc, &option, async |mut client, request| client.vote(request).await).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.call(rpc, &option, async |mut client, request| client.pre_vote(request).await).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: CurrentSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let broken = |error: io::Error| StreamingError::Network(NetworkError::new(&error));
        let mut client = self.peers.client(self.target).map_err(broken)?;
        let (sender, pieces) = mpsc::channel(4);
        let file = snapshot.snapshot.clone();
        let head = message(&(vote, snapshot.meta));
        let send = async {
            let closed = || io::Error::other("the peer has closed the stream");
            sender.send(head).await.map_err(|_| closed())?;
            let mut offset = 0;
            loop {
                let file = file.clone();
                let read = move || file.piece(offset, SNAPSHOT_PIECE);
                let piece = world::blocking(read).await.map_err(io::Error::other)??;
                if piece.is_empty() {
                    drop(sender);
                    return Ok(());
                }
                offset += piece.len() as u64;
                sender.send(Message { payload: piece.into() }).await.map_err(|_| closed())?;
            }
        };
        let receive = async {
            let answer = client.snapshot(ReceiverStream::new(pieces)).await;
            answer.map_err(|status| {
                self.peers.note(self.target, &status);
                io::Error::other(status.to_string())
            })
        };
        let both = async { tokio::try_join!(send, receive) };
        tokio::select! {
            sent = both => {
                let ((), answer) = sent.map_err(broken)?;
                decode(&answer.into_inner().payload).map_err(broken)
            }
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        self.call(rpc, &option, async |mut client, request| client.transfer_leader(request).await)
            .await
    }

    fn backoff(&self) -> Option<Backoff> {
        // A peer that comes back is wanted at once, and on a LAN a refused connection costs nothing.
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(50))))
    }
}
