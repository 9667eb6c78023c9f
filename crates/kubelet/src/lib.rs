//! The node agent: runs the Pods that are bound to its node.
//!
//! [`agent`] talks with the control plane and keeps a worker for every Pod; what a worker does next
//! is [`step::next_step`], a function; the [`runtime`] does it.

pub mod agent;
pub mod config;
pub mod disk;
pub mod ending;
pub mod machine;
pub mod pull;
pub mod runtime;
pub mod status;
pub mod step;
pub mod toolbox;

mod admission;
mod checkpoint;
mod env;
mod hooks;
mod journal;
mod log_file;
mod outbox;
mod serve;
mod spdy;
mod start;
mod statuses;
#[cfg(test)]
mod testing;
mod volumes;
mod worker;

pub use runtime::native::{default_signals, reexec};
