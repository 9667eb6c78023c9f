//! One node: the kubelet with its runtime.

use crate::{
    clock,
    config::{NodeConfig, RuntimeKind},
    hollow,
};
use anyhow::Context as _;
use kubelet::{
    agent::{self, KubeletConfig},
    runtime::{
        Runtime,
        native::{NativeConfig, NativeRuntime},
    },
};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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
    let listener = TcpListener::bind(config.api.listen)
        .await
        .with_context(|| format!("listen on {}", config.api.listen))?;
    let listen = listener.local_addr().context("ask for the port")?;
    let kubelet = KubeletConfig {
        authorities: authorities(&config)?,
        name: config.name.clone(),
        data_dir: config.data_dir.clone(),
        endpoints: config.endpoints.clone(),
        labels: config.labels.clone(),
        max_pods: config.max_pods,
        heartbeat: config.heartbeat,
        silence_max: SILENCE_MAX,
        listen,
    };
    agent::run(
        kubelet,
        Arc::clone(&runtime),
        Arc::new(clock::unix_micros),
        Some(listener),
        shutdown,
    )
    .await;
    if config.remove_pods_on_exit {
        runtime.remove_all().await.context("take the Pods down")?;
    }
    Ok(())
}

/// The certificates of `caFile`, if there is one.
pub(crate) fn authorities(config: &NodeConfig) -> anyhow::Result<Option<Vec<u8>>> {
    let read = |file: &std::path::PathBuf| {
        std::fs::read(file).with_context(|| format!("read caFile {}", file.display()))
    };
    config.ca_file.as_ref().map(read).transpose()
}

fn open(config: &NodeConfig) -> anyhow::Result<Arc<dyn Runtime>> {
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("create {}", config.data_dir.display()))?;
    let data_dir = config.data_dir.canonicalize().context("resolve the data directory")?;
    let program = std::env::current_exe().context("find this program")?;
    let native = NativeConfig { data_dir, node: config.name.clone(), program };
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
