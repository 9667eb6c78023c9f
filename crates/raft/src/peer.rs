//! Generated from `peer.proto`.
#![allow(
    clippy::all,
    clippy::indexing_slicing,
    clippy::str_to_string,
    clippy::wildcard_enum_match_arm,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    elided_lifetimes_in_paths,
    reason = "generated code"
)]

tonic::include_proto!("trireme.raft.v1");
