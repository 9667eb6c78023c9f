//! Real replicas and real clients in a simulated world: one thread, one seed.
//!
//! [`machine`], [`net`] and [`disk`] are the world; one thread moves it on, a millisecond of simulated time after the
//! other. What runs in it is the product's own code, which asks the crate `world` for connections, threads, chance
//! and clocks.

pub mod check;
pub mod client;
mod controller;
pub mod disk;
pub mod history;
pub mod hunt;
mod judge;
pub mod layer;
mod logs;
pub mod machine;
pub mod net;
mod observer;
mod part;
mod patience;
pub mod plan;
pub mod plane;
mod replica;
mod run;
mod session;
mod shrink;
pub mod trace;

pub use run::{Failure, Report, run, run_within};

/// Milliseconds since the simulation began.
pub type Millis = u64;
