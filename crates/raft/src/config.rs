//! What a replica is started with.

use crate::types::Member;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use store::Timestamp;

/// Reads the wall clock; the caller's.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A replica.
#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// Member id, above 0; never used again for another disk.
    pub id: u64,
    /// Log, snapshots, identity. One process at a time.
    pub data_dir: PathBuf,
    /// Every member of the first start, this one included.
    pub members: BTreeMap<u64, Member>,
    /// How fast a silent leader is replaced.
    pub timers: Timers,
    /// Entries after which a snapshot is written and the log behind it dropped.
    pub snapshot_entries: u64,
    /// Bytes of one log segment; at least 16 MiB.
    pub segment_bytes: u64,
    /// TLS towards peers.
    pub client_tls: Option<tonic::transport::ClientTlsConfig>,
    /// TLS for peers.
    pub server_tls: Option<tonic::transport::ServerTlsConfig>,
}

/// Silence is measured in these.
///
/// A follower campaigns when it has heard nothing for `election_max` (the lease it gave its leader)
/// plus a random time between `election_min` and `election_max`: openraft adds the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// Least random wait.
    pub election_min: Duration,
    /// Most random wait, and the lease.
    pub election_max: Duration,
}

impl Timers {
    /// For one machine room: a dead leader is replaced 250 to 300 ms after its last heartbeat.
    #[must_use]
    pub const fn lan() -> Self {
        Self {
            heartbeat: Duration::from_millis(30),
            election_min: Duration::from_millis(100),
            election_max: Duration::from_millis(150),
        }
    }

    /// For round trips of up to 300 ms: 3 to 4 s.
    #[must_use]
    pub const fn wan() -> Self {
        Self {
            heartbeat: Duration::from_millis(300),
            election_min: Duration::from_millis(1000),
            election_max: Duration::from_millis(2000),
        }
    }
}
