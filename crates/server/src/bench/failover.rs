//! `trireme bench failover`: kills the leader again and again under a writer at full speed.

use super::Spread;
use crate::{
    dev::{DevCluster, DevOptions},
    workload::{Verdict, Workload},
};
use anyhow::Context as _;
use serde::Serialize;
use std::{path::PathBuf, time::Duration};
use tokio::time::{Instant, timeout};

/// Writers beside each other.
const WRITERS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);

/// What was measured, and whether anything was lost.
#[derive(Debug, Clone, Serialize)]
pub struct Failover {
    /// Longest time without an acknowledged write, for each kill.
    pub gap_ms: Spread,
    /// As the workload says.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Starts a cluster in `data_dir` and kills its leader `kills` times; each is started again.
///
/// # Errors
/// The cluster does not start or does not come back.
pub async fn failover(
    data_dir: PathBuf,
    kills: u32,
    mut say: impl FnMut(String),
) -> anyhow::Result<Failover> {
    let options = DevOptions { nodes: 0, restart: false, ..DevOptions::new(data_dir) };
    let mut cluster = DevCluster::start(options).await?;
    let result = measure(&mut cluster, kills, &mut say).await;
    let stopped = cluster.stop().await;
    let measured = result?;
    stopped?;
    Ok(measured)
}

async fn measure(
    cluster: &mut DevCluster,
    kills: u32,
    say: &mut impl FnMut(String),
) -> anyhow::Result<Failover> {
    let workload = Workload::start(&cluster.endpoints(), WRITERS)?;
    let mut gaps = Vec::new();
    for kill in 1..=kills {
        timeout(PATIENCE, workload.more(200)).await.context("no writes before the kill")?;
        let leader = leader(cluster).await?;
        let at = Instant::now();
        cluster.kill_replica(leader).await?;
        timeout(PATIENCE, workload.more(200)).await.context("no writes after the kill")?;
        let gap = workload.longest_gap(at);
        say(format!(
            "kill {kill}: replica-{leader}, no write for {:.0} ms",
            gap.as_secs_f64() * 1000.0
        ));
        gaps.push(gap);
        cluster.start_replica(leader)?;
        cluster.wait_replicas(PATIENCE).await?;
    }
    let verdict = workload.finish(&cluster.client()?).await?;
    Ok(Failover { gap_ms: Spread::of(&gaps), verdict })
}

/// Who leads.
///
/// # Errors
/// Nobody does in time.
pub async fn leader(cluster: &DevCluster) -> anyhow::Result<u64> {
    let endpoints = cluster.endpoints();
    let ask = async {
        loop {
            if let Ok(status) = client::admin::status(&endpoints).await
                && status.leader != 0
                && cluster.replica_pid(status.leader).is_some()
            {
                return status.leader;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, ask).await.context("nobody leads")
}
