//! `trireme bench start`: Pods one after another on an idle cluster, and where the time goes.

use super::Spread;
use crate::{
    clock,
    dev::{DevCluster, DevOptions},
};
use anyhow::Context as _;
use api::core::Pod;
use client::{Client, DeleteOptions, WatchEvent, WatchOptions, WriteOptions};
use futures::StreamExt as _;
use kubelet::runtime::native;
use serde::Serialize;
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
const NAMESPACE: Option<&str> = Some("default");

/// From the request to a Pod that is reported as running, step by step.
#[derive(Debug, Clone, Serialize)]
pub struct Starts {
    /// From the request until the watch shows the Pod running.
    pub total_ms: Spread,
    /// Each step: `commit` until the request is answered, `bind` until the watch shows a node,
    /// `deliver` until that node begins, `start` until its program runs, `report` until the watch
    /// shows it.
    pub steps_ms: BTreeMap<&'static str, Spread>,
}

/// Starts a cluster in `data_dir` and `pods` Pods on it, one after another.
///
/// # Errors
/// The cluster or a Pod does not start.
pub async fn starts(data_dir: PathBuf, pods: usize) -> anyhow::Result<Starts> {
    let mut cluster = DevCluster::start(DevOptions::new(data_dir)).await?;
    let result = measure(&mut cluster, pods).await;
    let stopped = cluster.stop().await;
    let measured = result?;
    stopped?;
    Ok(measured)
}

/// Microseconds since the Unix epoch; all processes of the cluster share this machine's clock.
#[derive(Debug, Default)]
struct Moments {
    sent: u64,
    committed: u64,
    bound: u64,
    delivered: u64,
    started: u64,
    running: u64,
}

async fn measure(cluster: &mut DevCluster, pods: usize) -> anyhow::Result<Starts> {
    let client = cluster.client()?;
    // The node makes its image for the first Pod; that is not what is measured.
    for i in 0..2 * cluster.layout().node_names().len() {
        one(cluster, &client, &format!("warm-up-{i}")).await?;
    }
    let mut all = Vec::new();
    for i in 0..pods {
        all.push(one(cluster, &client, &format!("pod-{i}")).await?);
    }
    let spread = |from: fn(&Moments) -> u64, to: fn(&Moments) -> u64| {
        let step = |m| Duration::from_micros(to(m).saturating_sub(from(m)));
        Spread::of(&all.iter().map(step).collect::<Vec<_>>())
    };
    Ok(Starts {
        total_ms: spread(|m| m.sent, |m| m.running),
        steps_ms: BTreeMap::from([
            ("commit", spread(|m| m.sent, |m| m.committed)),
            ("bind", spread(|m| m.committed, |m| m.bound)),
            ("deliver", spread(|m| m.bound, |m| m.delivered)),
            ("start", spread(|m| m.delivered, |m| m.started)),
            ("report", spread(|m| m.started, |m| m.running)),
        ]),
    })
}

async fn one(cluster: &DevCluster, client: &Client, name: &str) -> anyhow::Result<Moments> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "toolbox", "command": ["sleep", "inf"]}],
        },
    }))?;
    let watch =
        WatchOptions { field_selector: format!("metadata.name={name}"), ..WatchOptions::default() };
    let mut events = client.watch::<Pod>(NAMESPACE, &watch).await.context("watch the Pod")?;
    let mut moments = Moments { sent: clock::unix_micros(), ..Moments::default() };
    let create = async {
        client.create(&pod, &WriteOptions::default()).await.context("create the Pod")?;
        Ok::<_, anyhow::Error>(clock::unix_micros())
    };
    let follow = async {
        let mut bound = 0;
        while let Some(event) = events.next().await {
            let now = clock::unix_micros();
            let (WatchEvent::Modified(pod) | WatchEvent::Added(pod)) = event? else { continue };
            if bound == 0 && pod.spec.as_ref().is_some_and(|s| s.node_name.is_some()) {
                bound = now;
            }
            if pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running") {
                return Ok((bound, now, pod));
            }
        }
        anyhow::bail!("the watch ended")
    };
    let followed = timeout(PATIENCE, follow);
    let (committed, followed) = tokio::join!(create, followed);
    moments.committed = committed?;
    let (bound, running, pod) = followed.context("the Pod does not run")??;
    (moments.bound, moments.running) = (bound.max(moments.committed), running);
    (moments.delivered, moments.started) = on_node(cluster, &pod).await?;
    let gone = async {
        client.delete::<Pod>(NAMESPACE, name, &DeleteOptions::default()).await?;
        while !matches!(events.next().await.context("the watch ended")??, WatchEvent::Deleted(_)) {}
        Ok::<_, anyhow::Error>(())
    };
    timeout(PATIENCE, gone).await.context("the Pod does not end")??;
    Ok(moments)
}

/// When the node began with a Pod and when its program ran, by the runtime's records.
async fn on_node(cluster: &DevCluster, pod: &Pod) -> anyhow::Result<(u64, u64)> {
    let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).context("not bound")?;
    let uid = pod.metadata.uid.clone().context("no UID")?;
    let data_dir = cluster.layout().node_dir(&node).join("data");
    let (begun, started) = native::recorded(&data_dir, &uid).context("the node has no record")?;
    Ok((begun, started.into_iter().max().context("no container")?))
}
