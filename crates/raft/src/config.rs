//! What a replica is started with.

use crate::{
    disk::{Disk, RealDisk},
    types::Member,
};
use rustls::{ClientConfig, ServerConfig};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use store::Timestamp;

/// Reads the wall clock; the caller's.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A replica.
#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// Member id, above 0; never used again for another disk.
    pub id: u64,
    /// The cluster exists and this member was added to it: start with an empty disk, found nothing,
    /// and be brought up by the others. Members of the first start say `false` for ever.
    pub join: bool,
    /// Tells clusters apart whose first members have the same ids and peer URLs; the same at all of
    /// them, may be empty.
    pub token: String,
    /// Log, snapshots, identity. One process at a time.
    pub data_dir: PathBuf,
    /// Every member of the first start, this one included; with `join`, this one and any that can
    /// be asked. Once there is a log, the membership in it counts.
    pub members: BTreeMap<u64, Member>,
    /// How fast a silent leader is replaced.
    pub timers: Timers,
    /// Entries after which a snapshot is written and the log behind it dropped.
    pub snapshot_entries: u64,
    /// Bytes of one log segment; at least 16 MiB.
    pub segment_bytes: u64,
    /// Peers prove who they are to each other. Without it, what they say is not encrypted either.
    pub tls: Option<PeerTls>,
    /// Where it is written, and when that counts as broken.
    pub disk: DiskConfig,
}

/// A replica's disk.
#[derive(Debug, Clone)]
pub struct DiskConfig {
    /// Log and snapshots go through it; a test may put another one in its place.
    pub disk: Arc<dyn Disk>,
    /// What was written may wait for the disk so long; then the replica hands over the lead, and does
    /// not lead before the disk proves good.
    pub stall: Duration,
    /// With fewer bytes free, writes that need room are refused everywhere. `None`: two segments and
    /// a snapshot.
    pub reserve_bytes: Option<u64>,
    /// Bytes of log after which a snapshot is written however few entries they are; more if the
    /// last snapshot is larger than twice that.
    pub snapshot_log_bytes: u64,
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self {
            disk: Arc::new(RealDisk),
            stall: Duration::from_millis(500),
            reserve_bytes: None,
            snapshot_log_bytes: 64 << 20,
        }
    }
}

/// What a replica shows its peers, and what it wants to see from them; both ways. Its certificate is valid for
/// the host of its peer URL.
///
/// Both are asked at each handshake, so that certificates may change while it runs.
#[derive(Clone)]
pub struct PeerTls {
    /// For connections to peers.
    pub client: Arc<ClientConfig>,
    /// For theirs; it must require a certificate.
    pub server: Arc<ServerConfig>,
}

impl std::fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerTls").finish_non_exhaustive()
    }
}

/// Silence is measured in these.
///
/// A follower campaigns when it has heard nothing for `election_max` (the lease it gave its leader)
/// plus a random time between `election_min` and `election_max`: openraft adds the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Between heartbeats. Their answers may take longer: up to four fifths of `election_min`.
    pub heartbeat: Duration,
    /// Least random wait.
    pub election_min: Duration,
    /// Most random wait, and the lease.
    pub election_max: Duration,
}

impl Timers {
    /// For one machine room, round trips of up to 80 ms: a dead leader is replaced 250 to 300 ms after
    /// its last heartbeat.
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
