//! One port: REST, and gRPC by its content type.

use crate::{
    admin::Admin,
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
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use rustls::pki_types::CertificateDer;
use serde_json::json;
use std::{convert::Infallible, sync::Arc, time::Duration};
use store::{Cluster, Epoch, Store};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _, util::BoxCloneSyncService};

/// The body of every request and answer on the door inside this process.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// For a TLS handshake and for a request's head.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

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
}

/// All services over one store.
#[derive(Clone)]
pub struct ApiServer {
    router: Router,
    registry: Registry,
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
        let sessions = NodeSessions::new(registry.clone(), config);
        let grpc = tonic::service::Routes::new(NodeServiceServer::new(sessions))
            .add_service(AdminServiceServer::new(Admin { store, cluster }))
            .into_axum_router();
        let kube = Arc::new(Kube { registry: registry.clone() });
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
        Self { router, registry }
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

    /// As [`listen`].
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        shutdown: CancellationToken,
    ) {
        listen(listener, tls, self.router, shutdown).await;
    }
}

/// The certificates that a client has shown and this process has verified, its own first: an extension
/// of every request that came by TLS.
pub type PeerCertificates = Arc<[CertificateDer<'static>]>;

/// Serves a router on a listener, HTTP/1 and HTTP/2, until `shutdown`; then lets requests that have
/// begun end for a moment.
pub async fn listen(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    shutdown: CancellationToken,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: others must end first.
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (router, shutdown) = (router.clone(), shutdown.clone());
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            match acceptor {
                None => connection(TokioIo::new(stream), router, shutdown).await,
                Some(acceptor) => match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let shown = stream.get_ref().1.peer_certificates();
                        let shown: Option<PeerCertificates> = shown
                            .map(|chain| chain.iter().map(|c| c.clone().into_owned()).collect());
                        let router = match shown {
                            Some(shown) => router.layer(axum::Extension(shown)),
                            None => router,
                        };
                        connection(TokioIo::new(stream), router, shutdown).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
                    Err(_) => tracing::debug!("TLS handshake took too long"),
                },
            }
        });
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(Duration::from_secs(1), ended).await.is_err() {
        connections.shutdown().await;
    }
}

async fn connection<I>(io: I, router: Router, shutdown: CancellationToken)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1024)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    let service = TowerToHyperService::new(router);
    let served = builder.serve_connection_with_upgrades(io, service);
    tokio::select! {
        result = served => {
            if let Err(error) = result {
                tracing::debug!(error, "connection");
            }
        }
        // Watches and node sessions have no end of their own; their clients go elsewhere.
        () = shutdown.cancelled() => {}
    }
}
