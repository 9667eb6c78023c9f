//! Replicas that serve the API, over one store in memory.

use etcd::{
    ClientCommonName, Config,
    auth::Clock,
    proto::etcdserverpb::{AuthenticateRequest, auth_client::AuthClient, kv_client::KvClient},
};
use hyper::body::Incoming;
use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use store::{Epoch, Timestamp, local::LocalStore};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tower::util::MapRequest;

/// Shows a token with each request, if there is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Token(pub(crate) Option<String>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value: MetadataValue<_> = token.parse().unwrap();
            request.metadata_mut().insert("token", value);
        }
        Ok(request)
    }
}

pub(crate) type Service = InterceptedService<Channel, Token>;

/// Ends with all of its replicas when it is dropped.
pub(crate) struct Served {
    pub(crate) store: Arc<LocalStore>,
    seconds: Arc<AtomicU64>,
    tasks: JoinSet<()>,
    scope: CancellationToken,
}

impl Served {
    pub(crate) fn new() -> Self {
        let store = Arc::new(LocalStore::new(Arc::new(|| Timestamp(1))));
        assert!(store.begin_epoch(Epoch(1)).outcome.is_ok());
        Self {
            store,
            seconds: Arc::new(AtomicU64::new(1_000_000)),
            tasks: JoinSet::new(),
            scope: CancellationToken::new(),
        }
    }

    /// What tokens are held against.
    pub(crate) fn pass_seconds(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// As etcd would be by default, but for passwords that are quick to check.
    pub(crate) fn config(&self) -> Config {
        let seconds = Arc::clone(&self.seconds);
        let read = move || Timestamp(seconds.load(Ordering::Relaxed) * 1_000_000);
        let mut config = Config::new(Clock::new(Arc::new(read)));
        config.auth.bcrypt_cost = 4;
        config
    }

    /// One more replica of the same store.
    pub(crate) async fn replica(&mut self) -> Channel {
        self.replica_with(self.config(), None).await
    }

    /// Whose clients all show certificates of this name.
    pub(crate) async fn replica_with(&mut self, config: Config, name: Option<&str>) -> Channel {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let store = Arc::clone(&self.store);
        let door = etcd::Door::new(Arc::clone(&store) as _, store as _, config);
        let name = name.map(|name| ClientCommonName(name.into()));
        let show = move |mut request: http::Request<Incoming>| {
            if let Some(name) = &name {
                request.extensions_mut().insert(name.clone());
            }
            request
        };
        let door = MapRequest::new(door, show);
        let scope = self.scope.clone();
        self.tasks.spawn(listen::listen(listener, None, door, scope));
        Endpoint::from_shared(url).unwrap().connect().await.unwrap()
    }
}

pub(crate) fn kv(channel: &Channel, token: &Token) -> KvClient<Service> {
    KvClient::with_interceptor(channel.clone(), token.clone())
}

pub(crate) fn auth(channel: &Channel, token: &Token) -> AuthClient<Service> {
    AuthClient::with_interceptor(channel.clone(), token.clone())
}

pub(crate) async fn log_in(channel: &Channel, name: &str, password: &str) -> Result<Token, Status> {
    let request = AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
    let answer = auth(channel, &Token(None)).authenticate(request).await?;
    Ok(Token(Some(answer.into_inner().token)))
}
