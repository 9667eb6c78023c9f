//! Real etcd clients against a group of ours in etcd's place, and against etcd itself where it is
//! installed: every command of `etcdctl`, every call of the crate `etcd-client`, with and without TLS.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic in a test is its failure"
)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::large_futures,
    reason = "a test says what it skips and what differs, and holds many calls in one future"
)]

#[cfg(feature = "etcd-client")]
mod calls;
mod commands;
mod dropin;
mod group;
#[cfg(feature = "etcd-client")]
mod kubernetes;
mod normal;
#[path = "../readme.rs"]
mod readme;
mod table;
mod tls;
