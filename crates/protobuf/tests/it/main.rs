//! What clients send, as JSON: by the rules, as kubectl was recorded, and as nobody should.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic in a test is its failure"
)]

mod fuzz;
mod recorded;
mod rules;
