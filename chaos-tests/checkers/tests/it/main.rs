//! The checkers as others use them: whole histories, right and wrong, and large ones.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic in a test is its failure"
)]
#![allow(clippy::wildcard_enum_match_arm, reason = "what is changed is one variant among many")]

mod changes;
mod lines;
mod model;
mod mutated;
mod plane;
mod speed;
mod table;
