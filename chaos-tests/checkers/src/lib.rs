//! Whether what was seen of a cluster is what Trireme promises: a history, and properties that it must have.
//!
//! Everything here is a function of a [`history::History`]: nothing asks a clock, a disk or a network, and
//! nothing knows whether a simulation or real processes were watched.

pub mod history;
