//! Replicas in one process, over real sockets and real disks.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::print_stderr,
    reason = "a panic in a test is its failure"
)]

mod bits;
mod cluster;
mod faults;
mod fuzz;
mod history;
mod leases;
mod members;
mod power;
mod replication;
mod tls;
mod wal;
