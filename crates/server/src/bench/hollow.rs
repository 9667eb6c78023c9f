//! `trireme bench pods`: as many Pods as asked for at once, on nodes that only say that they run them.

use super::Spread;
use crate::dev::{DevCluster, DevOptions, connect};
use anyhow::{Context as _, bail, ensure};
use api::core::Pod;
use client::{Client, ListOptions, WatchEvent, WatchOptions, WriteOptions, endpoints::Endpoints};
use futures::{StreamExt as _, stream::BoxStream};
use serde::Serialize;
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

/// Connections that create Pods beside each other.
const CREATORS: usize = 16;
/// Without any progress.
const PATIENCE: Duration = Duration::from_secs(60);
const NAMESPACE: Option<&str> = Some("default");
/// `maxPods` of a hollow node.
const PODS_PER_NODE: u32 = 110;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct PodsOptions {
    /// Replicas.
    pub replicas: u32,
    /// Hollow nodes.
    pub hollow: u32,
    /// Pods, created all at once.
    pub pods: u32,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Pods {
    /// Created, bound and running.
    pub pods: u32,
    /// Until all nodes were `Ready`.
    pub nodes_ready_ms: f64,
    /// Acknowledged creations a second, from the first request to the last answer.
    pub created_per_second: f64,
    /// From the first request until the watch showed the last binding.
    pub bound_per_second: f64,
    /// From the first request until the watch showed the last Pod running.
    pub running_per_second: f64,
    /// From each Pod's request until the watch showed it.
    pub create_to_bound_ms: Quantiles,
    /// From each Pod's request until the watch showed it.
    pub create_to_running_ms: Quantiles,
    /// Changes of the leader meanwhile.
    pub leader_changes: u64,
    /// Resident memory at the end, by process.
    pub rss_bytes: BTreeMap<String, u64>,
}

/// In milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Quantiles {
    /// Half of them are shorter.
    pub p50: f64,
    /// 99 of 100 are shorter.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Quantiles {
    fn of(all: impl Iterator<Item = Duration>) -> Self {
        let spread = Spread::of(&all.collect::<Vec<_>>());
        Self { p50: spread.median, p99: spread.p99, max: spread.max }
    }
}

/// Starts a cluster in `data_dir` and creates the Pods on it.
///
/// # Errors
/// The cluster does not start, or a Pod does not run.
pub async fn pods(data_dir: PathBuf, options: PodsOptions) -> anyhow::Result<Pods> {
    ensure!(options.hollow > 0 && options.pods > 0, "--hollow and --pods: at least 1");
    let room = options.hollow * PODS_PER_NODE;
    ensure!(
        options.pods <= room,
        "--pods: {} Pods, but {} nodes take {room}",
        options.pods,
        options.hollow
    );
    let dev = DevOptions {
        replicas: options.replicas,
        nodes: 0,
        hollow: options.hollow,
        restart: false,
        ..DevOptions::new(data_dir)
    };
    let begun = Instant::now();
    let cluster = DevCluster::start(dev).await?;
    let ready = begun.elapsed();
    let result = measure(&cluster, options.pods).await;
    let result = match result {
        Ok(measured) => Ok(Pods { nodes_ready_ms: ms(ready), ..measured }),
        Err(error) => Err(error.context(cluster.log_tails())),
    };
    let stopped = cluster.stop().await;
    let measured = result?;
    stopped?;
    Ok(measured)
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// When what was seen of one Pod.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    bound: Option<Instant>,
    running: Option<Instant>,
}

async fn measure(cluster: &DevCluster, count: u32) -> anyhow::Result<Pods> {
    let endpoints = cluster.endpoints();
    let before = client::admin::status(&endpoints).await.context("ask who leads")?;
    let client = cluster.client()?;
    let since =
        client.list::<Pod>(NAMESPACE, &ListOptions::default()).await.context("list Pods")?;
    let watch =
        WatchOptions { resource_version: since.resource_version, ..WatchOptions::default() };
    let events = client.watch::<Pod>(NAMESPACE, &watch).await.context("watch the Pods")?;
    let begun = Instant::now();
    let (created, seen) = tokio::join!(create_all(&endpoints, count), follow(events, count));
    let (created, seen) = (created?, seen?);
    let after = client::admin::status(&endpoints).await.context("ask who leads")?;
    let sent = |name: &str| created.get(name).map_or(begun, |(sent, _)| *sent);
    let bound = seen.iter().filter_map(|(name, seen)| Some(seen.bound? - sent(name)));
    let running = seen.iter().filter_map(|(name, seen)| Some(seen.running? - sent(name)));
    let rate = |last: Option<Instant>| {
        let seconds = last.map_or(f64::INFINITY, |last| (last - begun).as_secs_f64());
        (f64::from(count) / seconds * 10.0).round() / 10.0
    };
    Ok(Pods {
        pods: count,
        nodes_ready_ms: 0.0,
        created_per_second: rate(created.values().map(|(_, answered)| *answered).max()),
        bound_per_second: rate(seen.values().filter_map(|seen| seen.bound).max()),
        running_per_second: rate(seen.values().filter_map(|seen| seen.running).max()),
        create_to_bound_ms: Quantiles::of(bound),
        create_to_running_ms: Quantiles::of(running),
        // Each leader begins an epoch, and no epoch is begun without one.
        leader_changes: after.epoch.saturating_sub(before.epoch),
        rss_bytes: cluster.pids().into_iter().map(|(name, pid)| (name, resident(pid))).collect(),
    })
}

/// Creates them over many connections; when each was sent and answered, by name.
async fn create_all(
    endpoints: &Endpoints,
    count: u32,
) -> anyhow::Result<BTreeMap<String, (Instant, Instant)>> {
    let mut creators = JoinSet::new();
    for creator in 0..CREATORS {
        let mut urls = endpoints.urls.clone();
        urls.rotate_left(creator % endpoints.urls.len().max(1));
        let client = connect(endpoints.at(urls))?;
        let names = (0..count).skip(creator).step_by(CREATORS).map(|n| format!("pod-{n}"));
        creators.spawn(create(client, names.collect()));
    }
    let mut all = BTreeMap::new();
    while let Some(done) = creators.join_next().await {
        all.extend(done.context("a creator")??);
    }
    Ok(all)
}

async fn create(
    client: Client,
    names: Vec<String>,
) -> anyhow::Result<Vec<(String, (Instant, Instant))>> {
    let mut done = Vec::new();
    for name in names {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "labels": {"app": "bench"}},
            "spec": {"containers": [{
                "name": "main", "image": "registry.example/bench:1",
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
            }]},
        }))?;
        let sent = Instant::now();
        client.create(&pod, &WriteOptions::default()).await.context("create a Pod")?;
        done.push((name, (sent, Instant::now())));
    }
    Ok(done)
}

/// Until all of them run.
async fn follow(
    mut events: BoxStream<'static, Result<WatchEvent<Pod>, client::ClientError>>,
    count: u32,
) -> anyhow::Result<BTreeMap<String, Seen>> {
    let mut all: BTreeMap<String, Seen> = BTreeMap::new();
    let mut running = 0;
    while running < count {
        let event = timeout(PATIENCE, events.next()).await;
        let event = event.with_context(|| format!("{running} of {count} Pods run, and no more"))?;
        let now = Instant::now();
        let pod = match event.context("the watch ended")?.context("the watch")? {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => pod,
            WatchEvent::Deleted(pod) => bail!("{:?} is gone", pod.metadata.name),
            _ => continue,
        };
        let seen = all.entry(pod.metadata.name.unwrap_or_default()).or_default();
        if pod.spec.is_some_and(|spec| spec.node_name.is_some()) {
            seen.bound.get_or_insert(now);
        }
        let runs = pod.status.and_then(|status| status.phase).as_deref() == Some("Running");
        if runs && seen.running.is_none() {
            seen.running = Some(now);
            running += 1;
        }
    }
    Ok(all)
}

/// Resident memory of a process.
fn resident(pid: u32) -> u64 {
    let path = Path::new("/proc").join(pid.to_string()).join("status");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}
