//! One replica, put together from values: raft, the API over it, and what the leader runs.
//!
//! Nothing here reads a file, a clock or the environment: a replica of a simulation is made of the same parts.

use crate::{client_name::name_client, leader};
use apiserver::{ApiServer, Retention};
use raft::{Clock, RaftConfig, RaftStore, StartError};
use std::{sync::Arc, time::Duration};
use store::{Cluster, Store};
use tokio::{runtime::Handle, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tower::util::MapRequest;
use world::net::TcpListener;

/// For the lead to be handed over.
const HANDOVER: Duration = Duration::from_secs(2);

/// What a replica is told.
pub struct Parts {
    /// The log and its members.
    pub raft: RaftConfig,
    /// The API.
    pub api: apiserver::Config,
    /// How long old revisions are kept.
    pub retention: Retention,
    /// Reads the wall clock.
    pub clock: Clock,
}

/// Where a replica listens.
pub struct Ports {
    /// For its peers; TLS is [`RaftConfig::tls`].
    pub raft: TcpListener,
    /// For REST and nodes.
    pub api: Port,
    /// For clients of the etcd v3 API, if they are let in.
    pub etcd: Option<Port>,
}

/// A port that is listened on.
pub struct Port {
    /// The socket.
    pub listener: TcpListener,
    /// With TLS, this.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// A replica that serves.
pub struct Replica {
    store: Arc<RaftStore>,
    api: ApiServer,
    tasks: JoinSet<anyhow::Result<()>>,
    /// What listens.
    served: JoinSet<()>,
    scope: CancellationToken,
}

impl Replica {
    /// Opens the log, joins the others and serves.
    ///
    /// # Errors
    /// As [`RaftStore::start`]; nothing is left running.
    pub async fn start(parts: Parts, ports: Ports) -> Result<Self, StartError> {
        let Parts { raft, api, retention, clock } = parts;
        let store = RaftStore::start(raft, Arc::clone(&clock), ports.raft).await?;
        Ok(Self::over(store, (api, retention, clock), ports.api, ports.etcd))
    }

    /// The same, with the log and its peers on other threads.
    ///
    /// # Errors
    /// As [`Replica::start`].
    pub async fn start_on(log: &Handle, parts: Parts, ports: Ports) -> Result<Self, StartError> {
        let Parts { raft, api, retention, clock } = parts;
        // What it spawns stays there.
        let starting = log.spawn(RaftStore::start(raft, Arc::clone(&clock), ports.raft));
        let store = starting.await.map_err(|error| StartError::Raft(error.to_string()))??;
        Ok(Self::over(store, (api, retention, clock), ports.api, ports.etcd))
    }

    fn over(
        store: Arc<RaftStore>,
        (api, retention, clock): (apiserver::Config, Retention, Clock),
        port: Port,
        etcd: Option<Port>,
    ) -> Self {
        let (as_store, as_cluster): (Arc<dyn Store>, Arc<dyn Cluster>) =
            (Arc::clone(&store) as _, Arc::clone(&store) as _);
        let api =
            ApiServer::new(Arc::clone(&as_store), Arc::clone(&as_cluster), api, Arc::clone(&clock));
        let scope = CancellationToken::new();
        let leads = leader::run(store.leadership(), api.clone(), retention, scope.clone());
        let mut replica = Self {
            store: Arc::clone(&store),
            api,
            tasks: JoinSet::new(),
            served: JoinSet::new(),
            scope: scope.clone(),
        };
        let Port { listener, tls } = port;
        replica.served.spawn(replica.api.clone().serve(listener, tls, scope.clone()));
        if let Some(Port { listener, tls }) = etcd {
            let config = etcd::Config::new(etcd::auth::Clock::new(clock));
            let door = etcd::Door::new(as_store, as_cluster, config);
            let door = MapRequest::new(door, name_client);
            replica.served.spawn(listen::listen(listener, tls, door, scope));
        }
        replica.spawn(leads);
        let mut failed = store.failed();
        replica.spawn(async move {
            let failure = failed.wait_for(Option::is_some).await;
            let failure = failure.ok().and_then(|f| f.clone()).unwrap_or_default();
            anyhow::bail!(failure)
        });
        replica
    }

    /// Its member of the group.
    #[must_use]
    pub fn store(&self) -> &Arc<RaftStore> {
        &self.store
    }

    /// Its API.
    #[must_use]
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// Another part, without which it does not go on: the first that ends, ends all.
    pub fn spawn(&mut self, part: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.tasks.spawn(part);
    }

    /// Runs until `shutdown`; then hands over the lead, answers what was asked, and ends.
    ///
    /// # Errors
    /// Its log has failed, or a part of it has ended: it is better restarted.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            ended = self.tasks.join_next() => match ended {
                Some(Ok(result)) => result.and_then(|()| Err(anyhow::anyhow!("a part has ended"))),
                Some(Err(error)) => Err(error.into()),
                None => Ok(()),
            },
            Some(ended) = self.served.join_next() => {
                ended.map_err(Into::into).and_then(|()| Err(anyhow::anyhow!("a part has ended")))
            }
        };
        self.store.retire(HANDOVER).await;
        self.scope.cancel();
        // Each ends by itself, in a moment.
        while self.served.join_next().await.is_some() {}
        self.store.kill().await;
        self.tasks.shutdown().await;
        ended
    }
}
