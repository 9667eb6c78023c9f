//! The etcd v3 API over a [`store::Store`]: every client of etcd works against any replica.
//!
//! It speaks bytes and knows nothing of Kubernetes; `apiserver` stands beside it on the same store.

pub mod auth;
mod cluster;
mod convert;
mod core;
mod error;
mod internal;
mod kv;
mod lease;
mod maintenance;
mod watch;

pub mod proto;

pub use internal::internal_requests;
pub use lease::ttl_min_seconds;
pub use maintenance::ETCD_VERSION;

use crate::{
    auth::{AuthConfig, Clock},
    core::Core,
};
use proto::etcdserverpb::{
    auth_server::AuthServer, cluster_server::ClusterServer, kv_server::KvServer,
    lease_server::LeaseServer, maintenance_server::MaintenanceServer, watch_server::WatchServer,
};
use std::{sync::Arc, time::Duration};
use store::{Cluster, Store};
use tonic::service::Routes;

/// What gRPC adds to the largest request, in etcd's reckoning.
const MESSAGE_OVERHEAD: usize = 512 << 10;

/// Limits and intervals, with etcd's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Bytes of one request.
    pub max_request_bytes: usize,
    /// Compares, and steps of either way, in a transaction.
    pub max_txn_ops: usize,
    /// Between two answers to a watch that wants to hear of progress and has no events.
    pub watch_progress_interval: Duration,
    /// Without a leader for so long, streams whose clients ask for one end.
    pub leaderless_max: Duration,
    /// Shorter leases are made so long: see [`ttl_min_seconds`].
    pub lease_ttl_min_seconds: i64,
    /// Tokens and passwords.
    pub auth: AuthConfig,
}

impl Config {
    /// etcd's defaults.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            max_request_bytes: 3 << 19,
            max_txn_ops: 128,
            watch_progress_interval: Duration::from_secs(600),
            leaderless_max: Duration::from_secs(2),
            lease_ttl_min_seconds: 1,
            auth: AuthConfig::new(clock),
        }
    }

    /// Bytes of one message, either way.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.max_request_bytes + MESSAGE_OVERHEAD
    }
}

/// All gRPC services.
pub fn routes(store: Arc<dyn Store>, cluster: Arc<dyn Cluster>, config: Config) -> Routes {
    let bytes_max = config.message_bytes_max();
    let core = Arc::new(Core::new(store, cluster, config));
    let shared = || Arc::clone(&core);
    Routes::new(KvServer::new(kv::KvService(shared())).max_decoding_message_size(bytes_max))
        .add_service(AuthServer::new(auth::AuthService(shared())))
        .add_service(WatchServer::new(watch::WatchService(shared())))
        .add_service(LeaseServer::new(lease::LeaseService(shared())))
        .add_service(ClusterServer::new(cluster::ClusterService(shared())))
        .add_service(MaintenanceServer::new(maintenance::MaintenanceService(shared())))
}
