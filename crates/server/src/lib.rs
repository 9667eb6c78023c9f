//! Puts the parts together: a replica, a node, a whole cluster on one machine.
//!
//! Knows every crate and no rule of any: configuration, clock, TLS, telemetry, who starts when and
//! who waits for whom.

pub mod clock;
pub mod config;
pub mod telemetry;

mod tls;
