//! Puts at a steady rate, while something goes on beside them that touches every key.

use crate::{
    cluster::Cluster,
    measure::{Load, Target, Workload, measure},
    operation::{KeySpace, Kind},
    wire::{CallError, Connection, frame, path},
};
use anyhow::Context as _;
use etcd::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse,
};
use prost::Message as _;
use serde::Serialize;
use std::time::Duration;
use tokio::task::LocalSet;

/// Puts a second: few enough that none waits for another one.
pub(super) const RATE: u64 = 1000;
/// After so many entries each member makes a snapshot of its log: as etcd 3.6 does
/// where it is not told otherwise.
const SNAPSHOT_ENTRIES: &str = "10000";
/// Of puts that count; whatever else goes on begins with them.
const TIME: Duration = Duration::from_secs(15);

/// How long puts took while something else went on, from when each was due.
#[derive(Debug, Clone, Serialize)]
pub struct Pause {
    /// What went on.
    pub meanwhile: &'static str,
    /// Milliseconds.
    pub p50_ms: f64,
    /// Milliseconds.
    pub p99_ms: f64,
    /// Milliseconds.
    pub max_ms: f64,
}

/// What goes on beside the puts, besides the snapshots of the log that their number brings about.
#[derive(Debug, Clone, Copy)]
enum Meanwhile {
    Nothing,
    /// All history is forgotten and freed.
    Compaction,
    /// A client reads all of the state.
    Backup,
}

/// One after the other, on members that do not run yet.
///
/// # Errors
/// A member does not start, or not do what it is asked for.
pub(super) async fn pauses(cluster: &mut Cluster, space: KeySpace) -> anyhow::Result<Vec<Pause>> {
    cluster.add_arguments(&["--snapshot-count", SNAPSHOT_ENTRIES]);
    cluster.restart().await?;
    cluster.wait_ready().await?;
    let endpoints = cluster.endpoints();
    let target = Target {
        system: cluster.name().to_owned(),
        endpoints: endpoints.clone(),
        pids: Vec::new(),
    };
    let puts = Workload::Unary { mix: vec![(1, Kind::Put)], space };
    let load = Load {
        clients: 64,
        connections: None,
        threads: 1,
        rate: Some(RATE),
        warm_up: Duration::from_secs(1),
        time: TIME,
    };
    let mut all = Vec::new();
    for (meanwhile, name) in [
        (Meanwhile::Nothing, "log snapshots"),
        (Meanwhile::Compaction, "these, compaction"),
        (Meanwhile::Backup, "these, backup"),
    ] {
        let beside = async {
            tokio::time::sleep(load.warm_up).await;
            let work = async {
                let connection =
                    Connection::open(endpoints.first().context("no endpoint")?).await?;
                meanwhile.run(&connection).await
            };
            LocalSet::new().run_until(Box::pin(work)).await
        };
        let (run, done) = tokio::join!(measure(&puts, &load, &target), beside);
        done.context(name)?;
        let run = run?;
        all.push(Pause {
            meanwhile: name,
            p50_ms: run.p50_ms,
            p99_ms: run.p99_ms,
            max_ms: run.max_ms,
        });
    }
    Ok(all)
}

impl Meanwhile {
    async fn run(self, connection: &Connection) -> anyhow::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Compaction => {
                let status: StatusResponse =
                    connection.unary(path::STATUS, &StatusRequest::default()).await?;
                let revision = status.header.context("a header")?.revision;
                let request = CompactionRequest { revision, physical: true };
                let _: CompactionResponse = connection.unary(path::COMPACT, &request).await?;
                Ok(())
            }
            Self::Backup => {
                let first = frame(&SnapshotRequest::default());
                let mut stream = connection.route(path::SNAPSHOT).serve(first).await?;
                loop {
                    match stream.next().await {
                        Ok(message) => drop(SnapshotResponse::decode(message)?),
                        Err(CallError::Ended) => return Ok(()),
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
    }
}
