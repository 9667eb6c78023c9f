//! The etcd v3 API over a [`store::Store`]: every client of etcd works against any replica.
//!
//! It speaks bytes and knows nothing of Kubernetes; `apiserver` stands beside it on the same store.

pub mod auth;
mod cluster;
mod convert;
mod core;
mod counters;
mod election;
mod error;
mod grpc;
mod health;
mod http;
mod internal;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod queue;
mod watch;

pub mod proto;

pub use internal::internal_requests;
pub use lease::ttl_min_seconds;
pub use maintenance::ETCD_VERSION;

use crate::{
    auth::{AuthConfig, Clock},
    core::Core,
    grpc::{Grpc, Services},
    queue::Queue,
};
use ::http::{Request, Response, header};
use axum::{Router, body::Body};
use bytes::Bytes;
use futures::future::BoxFuture;
use proto::{
    etcdserverpb::{
        auth_server::AuthServer, cluster_server::ClusterServer, kv_server::KvServer,
        lease_server::LeaseServer, maintenance_server::MaintenanceServer,
    },
    health::health_server::HealthServer,
    v3electionpb::election_server::ElectionServer,
    v3lockpb::lock_server::LockServer,
};
use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use store::{Cluster, Store};
use tonic::service::Routes;
use tower::{BoxError, Service, ServiceExt as _};

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

/// The common name in the certificate that a request's client has shown: an extension of the request,
/// for the listener to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCommonName(pub Arc<str>);

/// Everything that an etcd serves on its client port: gRPC, the JSON gateway, health, metrics.
#[derive(Clone)]
pub struct Door {
    grpc: Grpc,
    plain: Router,
}

impl Door {
    /// In front of a member's store and its group.
    pub fn new(store: Arc<dyn Store>, cluster: Arc<dyn Cluster>, config: Config) -> Self {
        let core = Arc::new(Core::new(store, cluster, config));
        let grpc = Grpc::new(services(&core), Arc::clone(&core));
        let plain = http::router(core, grpc.clone());
        Self { grpc, plain }
    }
}

impl<B> Service<Request<B>> for Door
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let is_grpc = content_type.is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
        if is_grpc {
            let grpc = self.grpc.clone();
            Box::pin(async move { Ok(grpc.call(request).await) })
        } else {
            Box::pin(self.plain.clone().oneshot(request))
        }
    }
}

fn services(core: &Arc<Core>) -> Services {
    let bytes_max = core.config.message_bytes_max();
    let shared = || Arc::clone(core);
    let others = Routes::new(
        AuthServer::new(auth::AuthService(shared())).max_decoding_message_size(bytes_max),
    )
    .add_service(
        ClusterServer::new(cluster::ClusterService(shared())).max_decoding_message_size(bytes_max),
    )
    .add_service(
        MaintenanceServer::new(maintenance::MaintenanceService(shared()))
            .max_decoding_message_size(bytes_max),
    )
    .add_service(
        LockServer::new(lock::LockService(Queue::new(core))).max_decoding_message_size(bytes_max),
    )
    .add_service(
        ElectionServer::new(election::ElectionService(Queue::new(core)))
            .max_decoding_message_size(bytes_max),
    )
    .add_service(HealthServer::new(health::HealthService))
    .into_axum_router();
    Services {
        kv: KvServer::new(kv::KvService(shared())).max_decoding_message_size(bytes_max),
        watch: watch::WatchService(shared()),
        lease: LeaseServer::new(lease::LeaseService(shared())).max_decoding_message_size(bytes_max),
        others,
    }
}
