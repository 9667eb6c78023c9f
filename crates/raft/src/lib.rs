//! Replicates the store: openraft over our own log, peers over gRPC.

pub mod disk;
pub mod wal;

mod log_store;
mod snapshot;
mod state_machine;
mod types;

pub use types::Member;
