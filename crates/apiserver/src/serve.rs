//! One port: REST, and gRPC by its content type.

use crate::{
    admin::Admin,
    flow::{Flow, Limits},
    history::{self, Retention},
    kube::{self, Kube},
    node::NodeSessions,
    proto::{
        cluster::admin_service_server::AdminServiceServer,
        node::node_service_server::NodeServiceServer,
    },
    registry::{Caller, Clock, Registry},
};
use api::{kinds, status::Status};
use axum::Router;
use bytes::Bytes;
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use serde_json::json;
use std::{convert::Infallible, sync::Arc, time::Duration};
use store::{Cluster, Epoch, Store};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _, util::BoxCloneSyncService};

/// The body of every request and answer on the door inside this process.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Requests that a client may have under way on one HTTP/2 connection: clients of Go share one among all
/// their watches.
const STREAMS_MAX: u32 = 1000;

/// What the API server is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// This replica's name.
    pub name: String,
    /// `http(s)://host:port` of every replica's API.
    pub endpoints: Vec<String>,
    /// First two bytes of every Service's address.
    pub service_prefix: [u8; 2],
    /// First two bytes of every Pod's address; each node gets a /24.
    pub pod_prefix: [u8; 2],
    /// Silence after which a node counts as lost.
    pub node_silence: Duration,
    /// What is done at once for clients.
    pub limits: Limits,
}

/// All services over one store.
#[derive(Clone)]
pub struct ApiServer {
    router: Router,
    registry: Registry,
    bounds: listen::Bounds,
}

impl ApiServer {
    /// Nothing runs yet.
    pub fn new(
        store: Arc<dyn Store>,
        cluster: Arc<dyn Cluster>,
        config: Config,
        clock: Clock,
    ) -> Self {
        let registry = Registry::new(Arc::clone(&store), clock, config.service_prefix);
        let flow = Flow::new(&config.limits);
        let bounds = listen::Bounds {
            connections: config.limits.connections,
            answer_timeout: Some(config.limits.answer_timeout),
            streams: STREAMS_MAX,
        };
        let sessions = NodeSessions::new(registry.clone(), config);
        let grpc = tonic::service::Routes::new(NodeServiceServer::new(sessions))
            .add_service(AdminServiceServer::new(Admin { store, cluster }))
            .into_axum_router();
        let kube = Arc::new(Kube { registry: registry.clone(), flow });
        let rest = kube::router(kube);
        let router = Router::new().fallback_service(tower::service_fn(
            move |request: axum::extract::Request| {
                let is_grpc = request
                    .headers()
                    .get(http::header::CONTENT_TYPE)
                    .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
                let service = if is_grpc { grpc.clone() } else { rest.clone() };
                service.oneshot(request)
            },
        ));
        Self { router, registry, bounds }
    }

    /// The objects themselves.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The door for the scheduler and the controllers: no socket, and a request may carry what no wire
    /// can.
    #[must_use]
    pub fn door(
        &self,
    ) -> BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible> {
        let router = self.router.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let mut router = router.clone();
            async move {
                let response = router.call(request.map(axum::body::Body::new)).await?;
                Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
            }
        });
        BoxCloneSyncService::new(service)
    }

    /// Makes the namespaces that are always there.
    ///
    /// # Errors
    /// The store does not take them; the leader tries again.
    pub async fn ensure_defaults(&self) -> Result<(), Status> {
        let kind = kinds::by_alias("namespaces").expect("Namespace is served");
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let object = json!({"metadata": {"name": name}});
            match self.registry.create(kind, "", object, &Caller::default()).await {
                Err(status) if !status.is_already_exists() => return Err(status),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Forgets old revisions, while this replica leads in `epoch`; runs until it is dropped.
    pub async fn keep_history(&self, epoch: Epoch, retention: Retention) {
        history::keep(&self.registry, epoch, retention).await;
    }

    /// As [`listen::listen`].
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        shutdown: CancellationToken,
    ) {
        listen::listen_within(self.bounds, listener, tls, self.router, shutdown).await;
    }
}
