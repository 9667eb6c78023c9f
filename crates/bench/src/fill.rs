//! `bench fill`: what many keys cost in memory and on disk, how fast the members come back with them, and
//! for how long puts wait while history is forgotten and snapshots are made.

mod pauses;

use crate::{
    cluster::{Cluster, System},
    compare::{directory, distinct},
    operation::{self, KeySpace},
    report::mib,
    stats::{Summary, millis},
    usage,
    wire::Connection,
};
use anyhow::{Context as _, ensure};
use pauses::{RATE, pauses};
use serde::Serialize;
use std::{fmt, path::PathBuf};
use tokio::{task::LocalSet, time::Instant};

pub use pauses::Pause;

/// One system with many keys.
#[derive(Debug, Clone, Serialize)]
pub struct FillRun {
    /// Which.
    pub system: String,
    /// Runs of the same number were made one right after the other.
    pub pair: usize,
    /// Keys written a second, 100 in a transaction.
    pub keys_per_s: f64,
    /// Memory of each member, all keys written.
    pub rss_bytes: Vec<u64>,
    /// Disk of each member, all keys written.
    pub disk_bytes: Vec<u64>,
    /// From the start of all members, which had all been stopped, until a linearizable read is answered.
    pub restart_ms: f64,
    /// Memory of each member then.
    pub rss_after_restart_bytes: Vec<u64>,
    /// How long puts took afterwards.
    pub pauses: Vec<Pause>,
}

/// The first system's figures over the second's, pair by pair.
#[derive(Debug, Clone, Serialize)]
pub struct FillRatio {
    /// Of the member with most.
    pub rss_bytes: Summary,
    /// Of the member with most.
    pub disk_bytes: Summary,
    /// Until all are back.
    pub restart_ms: Summary,
}

/// All of them.
#[derive(Debug, Clone, Serialize)]
pub struct FillReport {
    /// `fill`.
    pub workload: String,
    /// Keys.
    pub keys: u64,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// In the order in which they were made.
    pub runs: Vec<FillRun>,
    /// Where two systems were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<FillRatio>,
}

/// Fills each system in turn, alone on the machine.
///
/// # Errors
/// A system does not start, does not take the keys, or does not have them after a restart.
pub async fn fill(
    systems: Vec<System>,
    space: KeySpace,
    runs: usize,
    data_dir: Option<PathBuf>,
    mut say: impl FnMut(String),
) -> anyhow::Result<FillReport> {
    let systems = distinct(systems);
    let mut all = Vec::new();
    for pair in 1..=runs {
        let mut order: Vec<&System> = systems.iter().collect();
        if pair % 2 == 0 {
            order.reverse();
        }
        for system in order {
            let dir = directory(data_dir.as_deref())?;
            let mut cluster = Box::pin(Cluster::start(system.clone(), dir.path(), None)).await?;
            let run = fill_one(&mut cluster, space, pair).await?;
            cluster.stop().await?;
            say(format!(
                "fill {pair}/{runs} {}: {:.0} keys/s, restart {:.0} ms",
                run.system, run.keys_per_s, run.restart_ms
            ));
            all.push(run);
        }
    }
    let ratio = match systems.as_slice() {
        [ours, theirs] => FillRatio::of(&ours.name, &theirs.name, &all),
        _ => None,
    };
    let (keys, value_bytes) = (space.keys, space.value_bytes);
    Ok(FillReport { workload: "fill".to_owned(), keys, value_bytes, runs: all, ratio })
}

async fn fill_one(cluster: &mut Cluster, space: KeySpace, pair: usize) -> anyhow::Result<FillRun> {
    let endpoints = cluster.endpoints();
    let from = Instant::now();
    let write = async {
        let mut connections = Vec::new();
        for endpoint in &endpoints {
            connections.push(Connection::open(endpoint).await?);
        }
        operation::fill(&connections, space).await
    };
    LocalSet::new().run_until(Box::pin(write)).await?;
    let time = from.elapsed();
    let (rss_bytes, disk_bytes) = (memory(cluster)?, cluster.disk_bytes()?);
    cluster.stop().await?;
    let restart = cluster.restart().await?;
    cluster.wait_ready().await?;
    for endpoint in &endpoints {
        let count = async {
            let connection = Connection::open(endpoint).await?;
            operation::count(&connection).await
        };
        let there = LocalSet::new().run_until(count).await.context("count keys after a restart")?;
        ensure!(there == space.keys, "{there} keys of {} after a restart", space.keys);
    }
    let rss_after_restart_bytes = memory(cluster)?;
    cluster.stop().await?;
    let pauses = pauses(cluster, space).await?;
    Ok(FillRun {
        system: cluster.name().to_owned(),
        pair,
        keys_per_s: space.keys as f64 / time.as_secs_f64(),
        rss_bytes,
        disk_bytes,
        restart_ms: millis(restart),
        rss_after_restart_bytes,
        pauses,
    })
}

fn memory(cluster: &Cluster) -> anyhow::Result<Vec<u64>> {
    cluster.pids().into_iter().map(usage::rss_bytes).collect()
}

impl FillRatio {
    fn of(ours: &str, theirs: &str, runs: &[FillRun]) -> Option<Self> {
        let of = |figure: fn(&FillRun) -> Option<f64>| {
            let ours = runs.iter().filter(|run| run.system == ours);
            Summary::of(ours.filter_map(|run| {
                let same = |other: &&FillRun| other.system == theirs && other.pair == run.pair;
                Some(figure(run)? / figure(runs.iter().find(same)?)?)
            }))
        };
        Some(Self {
            rss_bytes: of(|run| Some(*run.rss_bytes.iter().max()? as f64))?,
            disk_bytes: of(|run| Some(*run.disk_bytes.iter().max()? as f64))?,
            restart_ms: of(|run| Some(run.restart_ms))?,
        })
    }
}

impl fmt::Display for FillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} keys of {} bytes; of the member with most:", self.keys, self.value_bytes)?;
        writeln!(
            f,
            "{:10} {:>9} {:>9} {:>9} {:>11} {:>18}",
            "", "keys/s", "RSS MiB", "disk MiB", "restart ms", "RSS MiB after it"
        )?;
        let most = |bytes: &[u64]| mib(bytes.iter().copied().max().unwrap_or_default());
        for run in &self.runs {
            let (rss, disk) = (most(&run.rss_bytes), most(&run.disk_bytes));
            let after = most(&run.rss_after_restart_bytes);
            writeln!(
                f,
                "{:10} {:9.0} {rss:9} {disk:9} {:11.0} {after:18}",
                run.system, run.keys_per_s, run.restart_ms
            )?;
        }
        writeln!(f, "{RATE} puts a second, latency in ms:")?;
        writeln!(f, "{:10} {:20} {:>9} {:>9} {:>9}", "", "meanwhile", "p50", "p99", "worst")?;
        for run in &self.runs {
            for pause in &run.pauses {
                let Pause { meanwhile, p50_ms, p99_ms, max_ms } = pause;
                let system = &run.system;
                writeln!(f, "{system:10} {meanwhile:20} {p50_ms:9.2} {p99_ms:9.2} {max_ms:9.2}")?;
            }
        }
        if let Some(ratio) = &self.ratio {
            let (rss, disk) = (ratio.rss_bytes.median, ratio.disk_bytes.median);
            let restart = ratio.restart_ms.median;
            writeln!(f, "first over second: RSS {rss:.2}, disk {disk:.2}, restart {restart:.2}")?;
        }
        Ok(())
    }
}
