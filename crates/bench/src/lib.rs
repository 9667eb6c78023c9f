//! Load for any server of the etcd v3 API, and what it measured.

mod cluster;
mod drive;
mod histogram;
mod netns;
mod operation;
mod pace;
mod stats;
mod usage;
mod watch;
mod wire;

pub use cluster::{Cluster, System};
pub use histogram::Histogram;
pub use operation::{KeySpace, Kind};
pub use stats::{Spread, Summary, millis};
pub use watch::WatchLoad;
