//! Puts the parts together: a replica, a node, a whole cluster on one machine.
//!
//! Knows every crate and no rule of any: configuration, clock, TLS, telemetry, who starts when and
//! who waits for whom.

pub mod assembly;
pub mod bench;
pub mod clock;
pub mod config;
pub mod debug;
pub mod demo;
pub mod dev;
pub mod etcd_role;
pub mod hollow;
pub mod limits;
pub mod machines;
pub mod memory;
pub mod node;
pub mod recovery;
pub mod replica;
pub mod signal;
pub mod telemetry;
pub mod workload;

mod client_name;
mod kubeconfig;
mod leader;
mod log_threads;
mod renewal;
mod tls;
