//! The etcd API over a store without raft, through real sockets, as clients see it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a panic in a test is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test's runtime ends what it has started")]

mod auth;
mod door;
mod election;
mod fuzz;
mod gateway;
mod health;
mod jwt;
mod lock;
mod served;
mod support;
