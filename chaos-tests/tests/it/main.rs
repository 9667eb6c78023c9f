//! What must hold of the whole workspace.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic in a test is its failure"
)]

mod architecture;
mod claims;
mod configs;
mod mutations;
