//! What openraft is told of us: types, and how they become bytes.

use bincode::Options as _;
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{fmt, io};
use store::{Applied, Command};

openraft::declare_raft_types!(
    /// One leader a term; entries are batches of commands.
    pub(crate) TypeConfig:
        D = Batch,
        R = Vec<Applied>,
        NodeId = u64,
        Node = Member,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, crate::state_machine::StateMachine>;
pub(crate) type Metrics = openraft::RaftMetrics<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Member>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// Where a member is, as the membership in the log says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// For people; empty until it has started.
    pub name: String,
    /// `http(s)://host:port` of its raft listener, at least one; several are tried in turn.
    pub peer_urls: Vec<String>,
    /// `http(s)://host:port` of its API listener; empty until it has started.
    pub api_url: String,
    /// Where it serves the etcd v3 API; empty until it has started.
    pub client_urls: Vec<String>,
    /// The disk that started under this id, by the number drawn when it was made; 0 before.
    pub disk: u64,
    /// It is to vote: from the start, or as soon as it holds the log.
    pub votes: bool,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.peer_urls.join(", "))
    }
}

/// Commands that share a log entry, encoded once: log, wire and apply use the same bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch(pub(crate) Bytes);

/// The version of the encoding of commands inside a [`Batch`].
const BATCH_VERSION: u8 = 2;

impl Batch {
    pub(crate) fn encode(commands: &[Command]) -> Self {
        let mut bytes = vec![BATCH_VERSION];
        bincode::serialize_into(&mut bytes, commands).expect("memory takes any command");
        Self(bytes.into())
    }

    pub(crate) fn decode(&self) -> io::Result<Vec<Command>> {
        match self.0.split_first() {
            Some((&BATCH_VERSION, rest)) => decode(rest),
            Some((version, _)) => Err(invalid(format!("commands of version {version}"))),
            None => Err(invalid("an entry without bytes".to_owned())),
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.0.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// bincode 1.3.3, inside a frame that has its own length and checksum.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serialize(value).expect("memory takes any value")
}

/// The reverse of [`encode`]. Any bytes give a value or an error, and take no more memory than a
/// multiple of their number.
///
/// # Errors
/// `InvalidData`, also for bytes that are left over, which bincode by itself accepts.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    // From a slice, not from a reader: a reader trusts a length before it has seen the bytes.
    let options = bincode::DefaultOptions::new().with_fixint_encoding().reject_trailing_bytes();
    options.deserialize(bytes).map_err(|e| invalid(e.to_string()))
}
