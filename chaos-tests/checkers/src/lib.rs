//! Whether what was seen of a cluster is what Trireme promises: a history, and properties that it must have.
//!
//! Everything here is a function of a [`history::History`]: nothing asks a clock, a disk or a network, and
//! nothing knows whether a simulation or real processes were watched. Nor is code shared with the product,
//! since a check that shares code with what it checks shares its mistakes.

pub mod evidence;
pub mod history;
mod leases;
mod pods;
pub mod properties;
mod property;
mod quantity;
mod runs;
mod show;
#[cfg(test)]
mod testing;
mod wgl;

pub use property::{Findings, Property, Verdict, Violation, check, table};
