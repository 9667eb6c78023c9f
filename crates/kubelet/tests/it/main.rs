//! The kubelet over the fake runtime: nothing needs root, and time is tokio's.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a panic in a test is its failure"
)]

mod agent;
mod control_plane;
mod runtime;
mod serve;
mod volumes;
