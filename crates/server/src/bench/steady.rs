//! `trireme bench steady`: a cluster that nobody disturbs must not disturb itself.

use super::failover::leader;
use crate::{
    dev::{DevCluster, DevOptions},
    workload::{Verdict, Workload},
};
use anyhow::Context as _;
use serde::Serialize;
use std::{path::PathBuf, time::Duration};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// What to hold it under.
#[derive(Debug, Clone, Copy)]
pub struct SteadyLoad {
    /// How long.
    pub time: Duration,
    /// 0 is an idle cluster.
    pub writers: usize,
    /// Of each writer and reader after each request; zero is full speed.
    pub pause: Duration,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Steady {
    /// How long it was watched.
    pub seconds: u64,
    /// Terms begun: each is an election that nobody asked for.
    pub elections: u64,
    /// Longest time without an acknowledged write, in milliseconds; 0 when idle.
    pub write_gap_ms: f64,
    /// Resident memory of each replica at the end.
    pub rss_bytes: Vec<u64>,
    /// `None` when idle.
    pub verdict: Option<Verdict>,
}

/// Watches three replicas until the time is over or `stop`.
///
/// # Errors
/// The cluster does not start, or has lost its quorum at the end.
pub async fn steady(
    data_dir: PathBuf,
    load: SteadyLoad,
    stop: CancellationToken,
) -> anyhow::Result<Steady> {
    let options = DevOptions { nodes: 0, restart: false, ..DevOptions::new(data_dir) };
    let cluster = DevCluster::start(options).await?;
    let result = watch(&cluster, load, &stop).await;
    let stopped = cluster.stop().await;
    let seen = result?;
    stopped?;
    Ok(seen)
}

async fn watch(
    cluster: &DevCluster,
    load: SteadyLoad,
    stop: &CancellationToken,
) -> anyhow::Result<Steady> {
    let endpoints = cluster.endpoints();
    leader(cluster).await?;
    let term = async || {
        let status = client::admin::status(&endpoints).await.context("ask for the term")?;
        anyhow::Ok((
            status.members.iter().map(|m| m.term).max().unwrap_or_default(),
            status.members.iter().map(|m| m.rss_bytes).collect::<Vec<_>>(),
        ))
    };
    let (before, _) = term().await?;
    let start = Instant::now();
    let workload = (load.writers > 0)
        .then(|| Workload::with_pauses(&endpoints, load.writers, load.pause))
        .transpose()?;
    tokio::select! {
        () = sleep(load.time) => {}
        () = stop.cancelled() => {}
    }
    let (after, rss_bytes) = term().await?;
    let seconds = start.elapsed().as_secs();
    let (mut write_gap_ms, mut verdict) = (0.0, None);
    if let Some(workload) = workload {
        write_gap_ms = workload.longest_gap(start).as_secs_f64() * 1000.0;
        verdict = Some(workload.finish(&cluster.client()?).await?);
    }
    Ok(Steady { seconds, elections: after - before, write_gap_ms, rss_bytes, verdict })
}
