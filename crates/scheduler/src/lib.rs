//! Gives every new Pod a node.
//!
//! [`schedule`] decides, as a function of a view; [`run`] reads the view from informers, carries the
//! decision out as a fenced, conditional binding, and waits for what could change a refusal.

mod cache;
mod decide;
pub mod explain;
mod queue;
mod run;

pub use cache::{Cache, NodeInfo};
pub use decide::{FitError, Reason, schedule};
pub use queue::Queue;
pub use run::{is_mine, run};
