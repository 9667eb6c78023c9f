//! The simulation itself: what its network and disks do, that a seed gives the same to the last byte, and that
//! seeds which have failed once hold.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic in a test is its failure"
)]

mod determinism;
mod network;
mod plane;
mod seeds;
