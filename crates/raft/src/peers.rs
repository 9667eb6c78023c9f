//! Who the peers are, one kept connection to each, and who speaks over it.

use crate::{
    config::PeerTls,
    connection::lazy,
    identity::Identity,
    peer::peer_service_client::PeerServiceClient,
    types::{Member, StoredMembership, decode, encode},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::Notify;
use tonic::{
    Request, Status,
    metadata::{MetadataMap, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

/// Larger than the largest entry, and than what a replication message carries.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Where a [`Hello`] travels.
const HELLO: &str = "trireme-hello-bin";
/// Where a [`Blame`] travels.
const REFUSED: &str = "trireme-refused";

pub(crate) type PeerClient = PeerServiceClient<InterceptedService<Channel, Speaker>>;

/// Begins every request between members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// 0 when the caller has yet to learn it.
    pub(crate) cluster: u64,
    pub(crate) from: u64,
    pub(crate) from_disk: u64,
    /// Up to here in the log the caller knows that it is a member; `None` when it has no log.
    pub(crate) as_of: Option<u64>,
    pub(crate) to: u64,
    /// 0 when the caller knows none.
    pub(crate) to_disk: u64,
}

impl Hello {
    /// # Errors
    /// There is none.
    pub(crate) fn read(metadata: &MetadataMap) -> Result<Self, Status> {
        let bytes = metadata.get_bin(HELLO).and_then(|value| value.to_bytes().ok());
        bytes
            .and_then(|bytes| decode(&bytes).ok())
            .ok_or_else(|| Status::unauthenticated("a peer must say who it is"))
    }
}

/// Adds a [`Hello`] to what is sent.
#[derive(Clone)]
pub(crate) struct Speaker(Hello);

impl Interceptor for Speaker {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = MetadataValue::from_bytes(&encode(&self.0));
        request.metadata_mut().insert_bin(HELLO, value);
        Ok(request)
    }
}

/// What a refused caller is to blame itself for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// It is of another cluster than the one that was asked.
    Foreign,
    /// Its member was removed.
    Removed,
    /// Its member has started with another disk.
    OtherDisk,
}

impl Blame {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Foreign, "foreign"), (Self::Removed, "removed"), (Self::OtherDisk, "disk")];

    /// A refusal that says so.
    pub(crate) fn status(self, message: String) -> Status {
        let name = Self::ALL.iter().find(|(blame, _)| *blame == self).map_or("", |(_, name)| *name);
        let mut metadata = MetadataMap::new();
        metadata.insert(REFUSED, MetadataValue::from_static(name));
        Status::with_metadata(tonic::Code::FailedPrecondition, message, metadata)
    }

    pub(crate) fn read(status: &Status) -> Option<Self> {
        let name = status.metadata().get(REFUSED)?.to_str().ok()?;
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(blame, _)| *blame)
    }
}

#[derive(Default)]
struct Book {
    as_of: Option<u64>,
    members: BTreeMap<u64, Entry>,
}

#[derive(Clone, Default)]
struct Entry {
    urls: Vec<String>,
    disk: u64,
    /// Counts what did not answer: the next URL is tried.
    turn: usize,
}

/// Connections by peer URL. They connect when first used and again when they break.
#[derive(Clone)]
pub(crate) struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    me: Arc<Identity>,
    book: RwLock<Book>,
    channels: Mutex<BTreeMap<String, Channel>>,
    /// Between two tries to connect.
    again: Duration,
    tls: Option<PeerTls>,
    doubt: Notify,
    stranger: Mutex<Option<String>>,
}

impl Peers {
    pub(crate) fn new(
        me: Arc<Identity>,
        members: &BTreeMap<u64, Member>,
        again: Duration,
        tls: Option<PeerTls>,
    ) -> Self {
        let inner = Inner {
            me,
            book: RwLock::default(),
            channels: Mutex::default(),
            again,
            tls,
            doubt: Notify::new(),
            stranger: Mutex::default(),
        };
        let peers = Self { inner: Arc::new(inner) };
        for (id, member) in members {
            peers.add(*id, member);
        }
        peers
    }

    pub(crate) fn add(&self, id: u64, member: &Member) {
        let mut book = self.inner.book.write().unwrap_or_else(PoisonError::into_inner);
        let entry = book.members.entry(id).or_default();
        entry.urls.clone_from(&member.peer_urls);
        entry.disk = member.disk;
    }

    /// Goes by this membership from now on.
    pub(crate) fn follow(&self, group: &StoredMembership) {
        let mut book = self.inner.book.write().unwrap_or_else(PoisonError::into_inner);
        book.as_of = group.log_id().as_ref().map(|id| id.index);
        let before = std::mem::take(&mut book.members);
        for (id, member) in group.nodes() {
            let turn = before.get(id).map_or(0, |entry| entry.turn);
            let entry = Entry { urls: member.peer_urls.clone(), disk: member.disk, turn };
            book.members.insert(*id, entry);
        }
    }

    /// All but this member.
    pub(crate) fn others(&self) -> Vec<u64> {
        let book = self.inner.book.read().unwrap_or_else(PoisonError::into_inner);
        book.members.keys().copied().filter(|id| *id != self.inner.me.member()).collect()
    }

    /// # Errors
    /// There is no such member, or its URL is none.
    pub(crate) fn client(&self, id: u64) -> io::Result<PeerClient> {
        let unknown = || io::Error::other(format!("member {id} is not known"));
        let (hello, url) = {
            let book = self.inner.book.read().unwrap_or_else(PoisonError::into_inner);
            let entry = book.members.get(&id).ok_or_else(unknown)?;
            let url = entry.urls.iter().cycle().nth(entry.turn).ok_or_else(unknown)?.clone();
            let hello = Hello {
                cluster: self.inner.me.cluster(),
                from: self.inner.me.member(),
                from_disk: self.inner.me.disk(),
                as_of: book.as_of.map(|index| index.max(self.inner.me.named_at())),
                to: id,
                to_disk: entry.disk,
            };
            (hello, url)
        };
        Ok(PeerServiceClient::with_interceptor(self.channel(url)?, Speaker(hello))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn channel(&self, url: String) -> io::Result<Channel> {
        let mut channels = self.inner.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&url) {
            return Ok(channel.clone());
        }
        let channel = lazy(&url, self.inner.tls.as_ref(), self.inner.again, |endpoint| {
            endpoint
                // A peer that hangs without closing its connection is given up within two seconds.
                .http2_keep_alive_interval(Duration::from_secs(1))
                .keep_alive_timeout(Duration::from_secs(1))
                .keep_alive_while_idle(true)
                // Room for a whole batch in flight: a window that fills costs a round trip.
                .initial_stream_window_size(4 << 20)
                .initial_connection_window_size(16 << 20)
        })?;
        channels.insert(url, channel.clone());
        Ok(channel)
    }

    /// What a peer answered instead: another of its URLs may do better, or this member is not what it
    /// takes itself for.
    pub(crate) fn note(&self, id: u64, status: &Status) {
        if status.code() == tonic::Code::Unavailable {
            let mut book = self.inner.book.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = book.members.get_mut(&id)
                && entry.urls.len() > 1
            {
                entry.turn = (entry.turn + 1) % entry.urls.len();
            }
        }
        if Blame::read(status).is_some() {
            self.doubt();
        }
    }

    /// Somebody of another cluster takes this member for one of theirs.
    pub(crate) fn met_stranger(&self, why: &str) {
        let mut stranger = self.inner.stranger.lock().unwrap_or_else(PoisonError::into_inner);
        *stranger = Some(why.to_owned());
    }

    /// Whoever was met last, if anybody was since this was asked.
    pub(crate) fn stranger(&self) -> Option<String> {
        self.inner.stranger.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// This member may not be what it takes itself for.
    pub(crate) fn doubt(&self) {
        self.inner.doubt.notify_one();
    }

    /// A peer has refused this member for what it is.
    pub(crate) async fn doubted(&self) {
        self.inner.doubt.notified().await;
    }
}
