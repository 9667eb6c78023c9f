//! Replicates the store: openraft over our own log, peers over gRPC.
//!
//! A write goes from [`RaftStore`] to the leader's batcher, into one log entry with whatever else
//! waits, to every member's [`wal`], and after a majority has synced it through the state machine and
//! back. Nothing outside this crate sees openraft.

pub mod disk;
#[doc(hidden)]
pub mod fuzzing;
pub mod wal;

mod admission;
mod backup;
mod batch;
mod campaign;
mod cluster;
mod config;
mod connection;
mod core;
mod disk_watch;
mod dump;
mod expiry;
mod forward;
mod handover;
mod heartbeat;
mod identity;
mod inspect;
mod lead;
mod leases;
mod log_store;
mod lookup;
mod membership;
mod network;
mod peer;
mod peer_server;
mod peers;
mod reads;
mod reconfigure;
mod renewals;
mod restore;
mod silence;
mod snapshot;
mod snapshots;
mod stages;
mod start;
mod state_machine;
mod store;
mod survivor;
mod tend;
mod types;

pub use backup::{BackupError, BackupWriter, Contents, verify_backup};
pub use config::{Clock, DiskConfig, PeerTls, RaftConfig, Timers};
pub use dump::{LogPart, read_log};
pub use identity::{Owner, cluster_id, member_id, owner};
pub use inspect::{AppliedEntry, LogEnd};
pub use lookup::look_up;
pub use restore::{Founded, REVISION_JUMP, RestoreError, restore};
pub use start::StartError;
pub use store::RaftStore;
pub use survivor::{Survivor, look, recover};
pub use types::Member;
