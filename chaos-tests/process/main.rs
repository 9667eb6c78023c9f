//! The whole, with real processes and real containers: what the claims promise, seen from outside.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic in a test is its failure"
)]

mod bench;
mod certificates;
mod clients;
mod cluster;
mod create;
mod delete;
mod disk;
mod drill;
mod durable;
mod kubectl;
mod machine;
mod machines;
mod manifests;
mod observer;
mod past;
mod pod;
#[path = "../readme.rs"]
mod readme;
mod recovery;
mod replicas;
mod tokens;
mod verbs;
