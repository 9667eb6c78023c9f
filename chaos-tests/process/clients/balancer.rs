//! One address for all replicas, as users put before theirs: a connection goes to whichever takes it.

use crate::cluster::Cluster;
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Bytes are passed on as they come, encrypted or not. Dropped, it breaks every connection.
pub(super) struct Balancer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepts: JoinSet<()>,
}

struct Shared {
    /// `host:port`, by the replica's id less one.
    targets: Vec<String>,
    turn: AtomicUsize,
    newest: AtomicU64,
}

impl Balancer {
    pub(super) async fn start(cluster: &Cluster) -> Self {
        let targets = cluster.endpoints.urls.iter();
        let targets = targets.map(|url| url.split_once("://").unwrap().1.to_owned()).collect();
        let shared =
            Arc::new(Shared { targets, turn: AtomicUsize::new(0), newest: AtomicU64::new(0) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut accepts = JoinSet::new();
        accepts.spawn(Arc::clone(&shared).accept(listener));
        Self { address, shared, _accepts: accepts }
    }

    /// The replica that the newest connection went to.
    pub(super) fn newest(&self) -> u64 {
        self.shared.newest.load(Ordering::SeqCst)
    }

    /// The cluster's kubeconfig, but for where its server is.
    pub(super) fn kubeconfig(&self, cluster: &Cluster) -> PathBuf {
        let text = std::fs::read_to_string(cluster.dir().join("kubeconfig")).unwrap();
        let mut config: Value = serde_yaml_ng::from_str(&text).unwrap();
        for entry in config["clusters"].as_array_mut().unwrap() {
            let server = &mut entry["cluster"]["server"];
            let (scheme, _) = server.as_str().unwrap().split_once("://").unwrap();
            *server = format!("{scheme}://{}", self.address).into();
        }
        // Beside the other one, since it may name files by where it is.
        let path = cluster.dir().join(format!("kubeconfig-{}", self.address.port()));
        std::fs::write(&path, serde_yaml_ng::to_string(&config).unwrap()).unwrap();
        path
    }
}

impl Shared {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                Ok((near, _)) = listener.accept() => {
                    connections.spawn(Arc::clone(&self).carry(near));
                }
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
    }

    async fn carry(self: Arc<Self>, mut near: TcpStream) {
        let _ = near.set_nodelay(true);
        for _ in &self.targets {
            let at = self.turn.fetch_add(1, Ordering::SeqCst) % self.targets.len();
            let Ok(mut far) = TcpStream::connect(&self.targets[at]).await else { continue };
            let _ = far.set_nodelay(true);
            self.newest.store(at as u64 + 1, Ordering::SeqCst);
            let _ = copy_bidirectional(&mut near, &mut far).await;
            return;
        }
    }
}
