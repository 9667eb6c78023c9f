//! Many nodes in one process that only say that they run Pods: a cluster's size without its machines.

use crate::{clock, config::NodeConfig, node, tls};
use anyhow::Context as _;
use kubelet::{
    agent::{self, KubeletConfig},
    disk::FileDisk,
    machine::Machine,
    runtime::fake::FakeRuntime,
};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A replica that hangs is left after this. Each of these nodes keeps two connections: asking on all of
/// them as often as a real node does would be most of what the machine has to do.
const SILENCE_MAX: Duration = Duration::from_secs(6);

/// Runs `count` nodes until `shutdown`, each with a session and a runtime of its own. What happens to
/// their containers is said by annotations: see [`kubelet::runtime::fake::script`]. Nobody can be asked
/// for logs or exec.
///
/// # Errors
/// The certificates cannot be read, or a node has failed.
pub async fn run(config: NodeConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let machine = Machine::read();
    let mut nodes = JoinSet::new();
    for (at, name) in config.node_names().into_iter().enumerate() {
        let clock: agent::Clock = Arc::new(clock::unix_micros);
        // Each begins with another replica, so that every replica has its share.
        let mut endpoints = config.endpoints.clone();
        endpoints.rotate_left(at % config.endpoints.len().max(1));
        let access = tls::node_access(&config, &name)?;
        let kubelet = KubeletConfig {
            machine: machine.clone(),
            disk: Arc::new(FileDisk),
            data_dir: config.data_dir.join(&name),
            certificates: node::certificates(&config, &name),
            name: name.clone(),
            endpoints,
            access: access.clone(),
            tls: None,
            labels: config.labels.clone(),
            max_pods: config.max_pods,
            heartbeat: config.heartbeat,
            silence_max: SILENCE_MAX,
            listen: config.api.listen,
        };
        let runtime = FakeRuntime::new(Arc::clone(&clock));
        let agent = agent::run(kubelet, runtime, clock, None, shutdown.child_token());
        let config = config.clone();
        nodes.spawn(async move {
            tokio::select! {
                () = agent => Ok(()),
                never = node::renew(&config, &name, access) => never,
            }
        });
    }
    while let Some(ended) = nodes.join_next().await {
        ended.context("a hollow node")??;
    }
    Ok(())
}
