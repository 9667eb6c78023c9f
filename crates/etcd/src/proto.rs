//! Generated from `proto/etcd`: messages, servers, and the clients that benchmarks and tests use.
#![allow(
    clippy::all,
    clippy::indexing_slicing,
    clippy::str_to_string,
    clippy::wildcard_enum_match_arm,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    elided_lifetimes_in_paths,
    missing_docs,
    reason = "generated code"
)]

/// Users, roles and permissions.
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// Keys and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// The main services.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// gRPC's own question whether a server serves.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// What all of the above look like, as a `FileDescriptorSet`.
pub const DESCRIPTION: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/services.bin"));

/// Locks.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// Elections.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
