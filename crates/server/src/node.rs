//! One node: the kubelet with its runtime.

use crate::{
    clock,
    config::{NodeConfig, RuntimeKind, TlsConfig, of_node},
    hollow,
    renewal::{self, Kept, Signer},
    tls::{self, Files},
};
use anyhow::Context as _;
use client::{endpoints::Endpoints, transport::Access};
use kubelet::{
    agent::{self, KubeletConfig},
    disk::FileDisk,
    machine::Machine,
    runtime::{
        Runtime,
        native::{NativeConfig, NativeRuntime},
    },
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use world::net::TcpListener;

/// A replica that hangs is left after this.
const SILENCE_MAX: Duration = Duration::from_millis(600);

/// Runs until `shutdown`.
///
/// # Errors
/// It cannot start.
pub async fn run(config: NodeConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    match config.runtime {
        RuntimeKind::Native => native(config, shutdown).await,
        RuntimeKind::Fake => hollow::run(config, shutdown).await,
    }
}

async fn native(config: NodeConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let runtime = open(&config)?;
    let access = tls::node_access(&config, &config.name)?;
    let tls = config.api.tls.as_ref().map(|tls| tls::server(&of_node_tls(tls, &config.name)));
    let tls = tls.transpose().context("api.tls")?;
    let listener = TcpListener::bind(config.api.listen)
        .await
        .with_context(|| format!("listen on {}", config.api.listen))?;
    let listen = listener.local_addr().context("ask for the port")?;
    let kubelet = KubeletConfig {
        machine: Machine::read(),
        disk: Arc::new(FileDisk),
        access: access.clone(),
        tls,
        certificates: certificates(&config, &config.name),
        name: config.name.clone(),
        data_dir: config.data_dir.clone(),
        endpoints: config.endpoints.clone(),
        labels: config.labels.clone(),
        max_pods: config.max_pods,
        heartbeat: config.heartbeat,
        silence_max: SILENCE_MAX,
        listen,
    };
    let agent = agent::run(
        kubelet,
        Arc::clone(&runtime),
        Arc::new(clock::unix_micros),
        Some(listener),
        shutdown,
    );
    tokio::select! {
        () = agent => {}
        never = renew(&config, &config.name, access) => return never,
    }
    if config.remove_pods_on_exit {
        runtime.remove_all().await.context("take the Pods down")?;
    }
    Ok(())
}

/// A listener's files, those of this node.
fn of_node_tls(config: &TlsConfig, node: &str) -> TlsConfig {
    TlsConfig {
        cert_file: of_node(&config.cert_file, node),
        key_file: of_node(&config.key_file, node),
        ..config.clone()
    }
}

/// What this node shows, by name.
pub(crate) fn certificates(config: &NodeConfig, node: &str) -> Vec<(String, PathBuf)> {
    let client = tls::node_files(config, node).map(|f| ("replicas".to_owned(), f.certificate));
    let serving = config.api.tls.as_ref().filter(|_| config.runtime == RuntimeKind::Native);
    let serving = serving.map(|tls| ("api".to_owned(), of_node(&tls.cert_file, node)));
    client.into_iter().chain(serving).collect()
}

/// Keeps the node's certificates valid, by asking replicas; for ever if there is nothing to ask for.
pub(crate) async fn renew(config: &NodeConfig, node: &str, access: Access) -> anyhow::Result<()> {
    let client = tls::node_files(config, node);
    let serving = config.api.tls.as_ref().map(|tls| of_node_tls(tls, node));
    let serving = serving.map(|tls| Files { certificate: tls.cert_file, key: tls.key_file });
    let files: Vec<Files> = client.into_iter().chain(serving).collect();
    if !config.renew_certificates || access.tls.is_none() || files.is_empty() {
        return std::future::pending().await;
    }
    let endpoints = Endpoints::new(config.endpoints.clone(), access);
    renewal::keep(files.into_iter().map(Kept::Files).collect(), Signer::Replicas(endpoints)).await
}

fn open(config: &NodeConfig) -> anyhow::Result<Arc<dyn Runtime>> {
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("create {}", config.data_dir.display()))?;
    let data_dir = config.data_dir.canonicalize().context("resolve the data directory")?;
    let program = std::env::current_exe().context("find this program")?;
    let native = NativeConfig {
        data_dir,
        node: config.name.clone(),
        program,
        insecure_registries: config.images.insecure_registries.clone(),
    };
    Ok(NativeRuntime::open(native).context("open the container runtime")?)
}

/// Takes down what a node's agent, that was killed, has left behind.
///
/// # Errors
/// Something could not be removed.
pub async fn remove_leftovers(dir: &Path) -> anyhow::Result<()> {
    let config: NodeConfig = crate::config::read(&dir.join("config.toml"))?;
    if config.runtime != RuntimeKind::Native || !config.data_dir.exists() {
        return Ok(());
    }
    open(&config)?.remove_all().await.context("take the Pods down")
}
