//! Load for any server of the etcd v3 API or of Kubernetes', and what it measured.

mod api;
mod cluster;
mod compare;
mod drive;
mod failover;
mod fill;
mod histogram;
mod lanes;
mod measure;
mod netns;
mod operation;
mod own_thread;
mod pace;
mod report;
mod soak;
mod stages;
mod stats;
mod usage;
mod watch;
mod wire;

pub use api::{ApiEndpoint, ApiPlan, ApiReport, CreateRun, Crowd, CrowdRun, Latency, Process, api};
pub use cluster::{Cluster, System};
pub use compare::{Subject, compare};
pub use failover::{FailoverPlan, FailoverRatio, FailoverReport, Fault, SystemFailover, failover};
pub use fill::{FillRatio, FillReport, FillRun, Pause, fill};
pub use histogram::Histogram;
pub use measure::{Load, Target, Workload, measure, prepare};
pub use netns::{Link, Network, leave_host};
pub use operation::{KeySpace, Kind};
pub use report::{Ratio, Report, Run};
pub use soak::{SoakPlan, SoakReport, fresh_seed, soak};
pub use stages::Stage;
pub use stats::{Spread, Summary};
pub use watch::WatchLoad;
