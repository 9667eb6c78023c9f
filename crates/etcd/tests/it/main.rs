//! The etcd v3 API as a client sees it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a panic in a test is its failure"
)]

mod auth;
mod jwt;
mod served;
