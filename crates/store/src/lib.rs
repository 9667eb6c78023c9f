//! The MVCC state machine behind the API: revisions, transactions, leases, compaction, watches.
//!
//! Pure: [`state::State::apply`] is a function of the log. No clock, no chance, no map order.
//! [`Store`] and [`Cluster`] are what the layers above see of it; `raft` replicates it,
//! [`local::LocalStore`] does not.

mod auth;
mod cluster;
mod key_range;
mod replace;
mod types;

pub mod conformance;
pub mod local;
pub mod state;
pub mod watch;

pub use auth::{
    Access, AuthOp, AuthRejection, Identity, PasswordHash, Permission, PermissionKind, ROOT,
    TokenKey,
};
pub use cluster::{
    Backup, Cluster, ClusterStatus, DiskState, Leadership, LocalStatus, MemberChange, MemberError,
    MemberInfo, MemberRole, MemberStatus, Proposal, ProposalTimes, Store, StoreError, SyncTimes,
};
pub use replace::{Replaced, replace_member};
pub use types::*;
