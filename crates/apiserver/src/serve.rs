//! One port: REST, and gRPC by its content type.

use crate::{
    admin::Admin,
    certificates::{Certificates, Pki},
    flow::{Flow, Limits},
    guard::{AccessConfig, Door, Guard, Guarded},
    history::{self, Retention},
    join::Joins,
    kube::{self, Kube},
    node::{Calls, NodeSessions},
    proto::{
        cluster::{
            admin_service_server::AdminServiceServer,
            certificate_service_server::CertificateServiceServer,
            join_service_server::JoinServiceServer,
        },
        node::node_service_server::NodeServiceServer,
    },
    registry::{Caller, Clock, Registry},
};
use api::{kinds, priority, service_account, status::Status};
use axum::Router;
use bytes::Bytes;
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use serde_json::{Value, json};
use std::{convert::Infallible, sync::Arc, time::Duration};
use store::{Cluster, Epoch, Store};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _, util::BoxCloneSyncService};
use world::net::TcpListener;

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
    /// Who may do what.
    pub access: AccessConfig,
    /// Its certificates, and who signs.
    pub pki: Pki,
    /// What is done at once for clients.
    pub limits: Limits,
}

/// All services over one store.
#[derive(Clone)]
pub struct ApiServer {
    router: Router,
    registry: Registry,
    guard: Arc<Guard>,
    bounds: listen::Bounds,
}

impl ApiServer {
    /// Nothing runs yet.
    pub fn new(
        store: Arc<dyn Store>,
        cluster: Arc<dyn Cluster>,
        mut config: Config,
        clock: Clock,
    ) -> Self {
        let pki = config.pki.clone();
        let certificates = Certificates { pki: pki.clone(), clock: Arc::clone(&clock) };
        // A token is of use only to who can tell whom to show it to.
        let signs = config.access.service_account_key.is_some();
        let root_ca = pki.authority.as_ref().filter(|_| signs).map(|own| own.pem().into());
        let registry =
            Registry::new(Arc::clone(&store), clock, config.service_prefix).with_root_ca(root_ca);
        let flow = Arc::new(Flow::new(&config.limits));
        let bounds = listen::Bounds {
            connections: config.limits.connections,
            answer_timeout: Some(config.limits.answer_timeout),
            streams: STREAMS_MAX,
            ..listen::Bounds::default()
        };
        let access = std::mem::take(&mut config.access);
        let guard = Arc::new(Guard::new(registry.clone(), access, Arc::clone(&flow)));
        let joins = Joins {
            registry: registry.clone(),
            cluster: Arc::clone(&cluster),
            pki: pki.clone(),
            endpoints: config.endpoints.clone(),
            service_prefix: config.service_prefix,
        };
        let calls = Arc::<Calls>::default();
        let sessions = NodeSessions::new(
            registry.clone(),
            Arc::clone(&cluster),
            config,
            Arc::clone(&guard),
            Arc::clone(&calls),
        );
        let grpc = tonic::service::Routes::new(NodeServiceServer::new(sessions))
            .add_service(AdminServiceServer::new(Admin { store, cluster }))
            .add_service(CertificateServiceServer::new(certificates))
            .add_service(JoinServiceServer::new(joins))
            .into_axum_router();
        let kubelets = pki.kubelets.as_deref().map(kube::over_tls);
        let (registry_, guard_) = (registry.clone(), Arc::clone(&guard));
        let texts = kube::Texts::default();
        let kube = Kube { registry: registry_, flow, guard: guard_, kubelets, calls, texts };
        let rest = kube::router(Arc::new(kube));
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
        Self { router, registry, guard, bounds }
    }

    /// What Pods hold the API's certificates against, as PEM; `None` where they are given no tokens.
    #[must_use]
    pub fn root_ca(&self) -> Option<&str> {
        self.registry.root_ca()
    }

    /// The objects themselves.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The door for the scheduler and the controllers: no socket, and a request may carry what no wire
    /// can. Whoever holds it says who it is, and may do anything.
    #[must_use]
    pub fn door(
        &self,
    ) -> BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible> {
        let guarded = Guarded::new(Arc::clone(&self.guard), self.router.clone(), Door::InProcess);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let mut guarded = guarded.clone();
            async move {
                let response = guarded.call(request).await?;
                Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
            }
        });
        BoxCloneSyncService::new(service)
    }

    /// Makes what is always there: namespaces with an account for their Pods, and the system's classes of
    /// priority.
    ///
    /// # Errors
    /// The store does not take them; the leader tries again.
    pub async fn ensure_defaults(&self) -> Result<(), Status> {
        for class in priority::system_classes() {
            self.ensure("priorityclasses", "", class).await?;
        }
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let object = json!({"metadata": {"name": name}});
            if !self.ensure("namespaces", "", object).await? {
                // It may be from before there were accounts.
                let account = json!({"metadata": {"name": service_account::DEFAULT}});
                match self.ensure("serviceaccounts", name, account).await {
                    Err(status) if !status.has_cause("NamespaceTerminating") => return Err(status),
                    Ok(_) | Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Makes the default roles and bindings and brings them up to date (RBAC), and writes into aggregating
    /// roles what they gather, while this replica leads in `epoch`; runs until it is dropped.
    pub async fn keep_access(&self, epoch: Epoch) {
        self.guard.keep(epoch).await;
    }

    /// Lines of the audit log that a full disk, or too many at once, have cost.
    #[must_use]
    pub fn audit_lost(&self) -> u64 {
        self.guard.audit_lost()
    }

    /// Whether the object was not there.
    async fn ensure(&self, plural: &str, namespace: &str, object: Value) -> Result<bool, Status> {
        let kind = kinds::by_alias(plural).expect("what is always there is served");
        match self.registry.create(kind, namespace, object, &Caller::default()).await {
            Ok(_) => Ok(true),
            Err(status) if status.is_already_exists() => Ok(false),
            Err(status) => Err(status),
        }
    }

    /// Forgets old revisions, while this replica leads in `epoch`; runs until it is dropped.
    pub async fn keep_history(&self, epoch: Epoch, retention: Retention) {
        history::keep(&self.registry, epoch, retention).await;
    }

    /// As [`listen::listen`]. With `tls` everybody must show who they are; without, see [`AccessConfig`].
    pub async fn serve(
        self,
        listener: impl Into<TcpListener>,
        tls: Option<Arc<rustls::ServerConfig>>,
        shutdown: CancellationToken,
    ) {
        let door = if tls.is_some() { Door::Tls } else { Door::Plain };
        let guarded = Guarded::new(self.guard, self.router, door);
        listen::listen_within(self.bounds, listener, tls, guarded, shutdown).await;
    }
}
