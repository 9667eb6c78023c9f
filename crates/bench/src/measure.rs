//! One run of a workload against one system.

use crate::{
    cluster::leader_first,
    drive::{Client, Recorded, Window, drive},
    operation::{self, KeySpace, Kind, Operation},
    pace::{FineTimer, Schedule},
    report::Run,
    stages::Marks,
    stats::millis,
    usage,
    watch::{WatchLoad, Watching},
    wire::{CallError, Connection, Route, Stream, frame, path},
};
use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use etcd::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest, LeaseRevokeResponse,
};
use nix::sys::resource::{UsageWho, getrusage};
use prost::Message as _;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use std::time::Duration;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinSet, LocalSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// How long a lease of the benchmark lives without a keep-alive, seconds.
const LEASE_SECONDS: i64 = 600;

/// What is asked of the servers.
#[derive(Debug, Clone)]
pub enum Workload {
    /// Unary requests, each kind as often as its weight says.
    Unary {
        /// Weights and kinds.
        mix: Vec<(u32, Kind)>,
        /// The keys.
        space: KeySpace,
    },
    /// Keep-alives over so many leases.
    Lease {
        /// How many leases.
        leases: usize,
    },
    /// Events of puts.
    Watch(WatchLoad),
}

/// How much is asked, and for how long.
#[derive(Debug, Clone)]
pub struct Load {
    /// Clients; each has one request outstanding.
    pub clients: usize,
    /// HTTP/2 connections that they share, over all endpoints in turn. `None`: one for each endpoint and
    /// thread, but not more than clients.
    pub connections: Option<usize>,
    /// Threads of the load generator.
    pub threads: usize,
    /// Requests a second of an open loop; `None` is a closed loop.
    pub rate: Option<u64>,
    /// Before anything counts.
    pub warm_up: Duration,
    /// While it counts.
    pub time: Duration,
}

/// Where the servers are.
#[derive(Debug, Clone)]
pub struct Target {
    /// What a report calls them.
    pub system: String,
    /// `http://HOST:PORT` of each member.
    pub endpoints: Vec<String>,
    /// Their processes; none if they are elsewhere.
    pub pids: Vec<u32>,
}

/// Runs a workload once.
///
/// # Errors
/// A server cannot be reached, breaks a connection, refuses everything, or answers what it must not.
pub async fn measure(workload: &Workload, load: &Load, target: &Target) -> anyhow::Result<Run> {
    let threads = match workload {
        // Writers wait for events that all watchers got: they share a thread.
        Workload::Watch(_) => 1,
        Workload::Unary { .. } | Workload::Lease { .. } => load.threads.max(1),
    };
    ensure!(load.clients >= threads, "{} clients on {threads} threads", load.clients);
    ensure!(!target.endpoints.is_empty(), "no endpoint");
    let endpoints = leader_first(&target.endpoints).await;
    let stop = CancellationToken::new();
    // A run that is given up leaves no thread behind that goes on.
    let _stop = stop.clone().drop_guard();
    let (ready, mut all_ready) = mpsc::channel(threads);
    let (go, gone) = watch::channel(None);
    let mut tasks = JoinSet::new();
    for thread in 0..threads {
        let share = Share {
            workload: workload.clone(),
            load: load.clone(),
            endpoints: endpoints.clone(),
            thread,
            threads,
            stop: stop.clone(),
        };
        let (ready, gone) = (ready.clone(), gone.clone());
        tasks.spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, Box::pin(share.run(ready, gone)))
        });
    }
    drop(ready);
    for _ in 0..threads {
        if all_ready.recv().await.is_none() {
            while let Some(result) = tasks.join_next().await {
                result.context("a thread of the load")??;
            }
            bail!("the load did not begin");
        }
    }
    let from = Instant::now() + load.warm_up;
    let window = Window { from, until: from + load.time };
    go.send(Some(window)).context("no thread of the load is left")?;
    let used = || anyhow::Ok((usage::cpu_seconds_of(&target.pids)?, own_cpu()?));
    sleep_until(window.from).await;
    let before = used()?;
    let stages = Marks::read(&target.endpoints).await;
    sleep_until(window.until).await;
    let after = used()?;
    let stages = match (stages, Marks::read(&target.endpoints).await) {
        (Some(before), Some(after)) => after.since(&before),
        _ => Vec::new(),
    };
    let rss: Vec<u64> =
        target.pids.iter().map(|p| usage::rss_bytes(*p)).collect::<Result<_, _>>()?;
    let mut recorded = Recorded::default();
    while let Some(result) = tasks.join_next().await {
        recorded.merge(result.context("a thread of the load")??);
    }
    if recorded.completed == 0 {
        let why = recorded.first_error.unwrap_or_else(|| "nothing was answered in time".to_owned());
        bail!("{}: {why}", target.system);
    }
    let answered = recorded.completed as f64;
    let latencies = &recorded.latencies;
    Ok(Run {
        system: target.system.clone(),
        pair: 0,
        ops_per_s: answered / load.time.as_secs_f64(),
        p50_ms: millis(latencies.quantile(500)),
        p99_ms: millis(latencies.quantile(990)),
        p999_ms: millis(latencies.quantile(999)),
        max_ms: millis(latencies.max()),
        server_cpu_s_per_10k: (!target.pids.is_empty())
            .then(|| (after.0 - before.0) / answered * 10_000.0),
        rss_bytes: rss.into_iter().max(),
        client_cpu_us_per_op: (after.1 - before.1).as_secs_f64() * 1e6 / answered,
        stages,
        errors: recorded.errors,
        first_error: recorded.first_error,
    })
}

/// CPU time of this process, all threads.
fn own_cpu() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("getrusage")?;
    let spent = [usage.user_time(), usage.system_time()].map(|time| {
        Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or_default())
            + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or_default())
    });
    Ok(spent.iter().sum())
}

/// Makes what a workload needs to be there, and holds one answer of each kind against what it must be.
///
/// # Errors
/// The keys cannot be written, or an answer is wrong.
pub async fn prepare(workload: &Workload, endpoints: &[String]) -> anyhow::Result<()> {
    let Workload::Unary { mix, space } = workload else { return Ok(()) };
    let work = async {
        let connections = open(endpoints, endpoints.len(), 0).await?;
        operation::fill(&connections, *space).await?;
        let first = connections.first().context("no endpoint")?;
        for (_, kind) in mix {
            Operation::new(*kind, *space).prove(first, *space).await?;
        }
        Ok(())
    };
    LocalSet::new().run_until(Box::pin(work)).await
}

async fn open(
    endpoints: &[String],
    count: usize,
    skip: usize,
) -> Result<Vec<Connection>, CallError> {
    let mut connections = Vec::new();
    for endpoint in endpoints.iter().cycle().skip(skip).take(count) {
        connections.push(Connection::open(endpoint).await?);
    }
    Ok(connections)
}

/// One thread's part of a load.
struct Share {
    workload: Workload,
    load: Load,
    endpoints: Vec<String>,
    thread: usize,
    threads: usize,
    stop: CancellationToken,
}

impl Share {
    /// Of a number, this thread's part: the first ones take what does not divide.
    fn of(&self, all: usize) -> usize {
        all / self.threads + usize::from(self.thread < all % self.threads)
    }

    async fn run(
        self,
        ready: mpsc::Sender<()>,
        mut go: watch::Receiver<Option<Window>>,
    ) -> anyhow::Result<Recorded> {
        let clients = self.of(self.load.clients);
        let connections = match self.load.connections {
            Some(all) => self.of(all),
            None => self.endpoints.len(),
        };
        let connections = connections.clamp(1, clients);
        let connections = open(&self.endpoints, connections, self.thread).await?;
        let timers: Vec<FineTimer> =
            (0..clients).map(|_| FineTimer::new()).collect::<Result<_, _>>().context("timer")?;
        let spread = connections.iter().cycle().take(clients);
        // All is set up before the others are told; the window begins when everybody is.
        match &self.workload {
            Workload::Unary { mix, space } => {
                let seed = self.thread as u64 * 1_000_000;
                let clients: Vec<Unary> = (seed..)
                    .zip(spread)
                    .map(|(seed, c)| Unary::new(c, mix, *space, seed))
                    .collect();
                let (schedule, window) = self.begin(ready, &mut go).await?;
                let clients = clients.into_iter().zip(timers);
                Ok(drive(clients, schedule, window, &self.stop).await?)
            }
            Workload::Lease { leases } => {
                let ids = grant(&connections, self.of(*leases).max(1)).await?;
                let clients =
                    (0..).zip(spread).map(|(n, c)| KeepAlive::new(c, &ids, n)).collect::<Vec<_>>();
                let (schedule, window) = self.begin(ready, &mut go).await?;
                let clients = clients.into_iter().zip(timers);
                let recorded = drive(clients, schedule, window, &self.stop).await;
                revoke(&connections, ids).await?;
                Ok(recorded?)
            }
            Workload::Watch(load) => {
                let watching = Watching::create(&connections, *load).await?;
                let (schedule, window) = self.begin(ready, &mut go).await?;
                let writers = spread.cloned().zip(timers).collect();
                watching.run(writers, schedule, window, &self.stop).await
            }
        }
    }

    async fn begin(
        &self,
        ready: mpsc::Sender<()>,
        go: &mut watch::Receiver<Option<Window>>,
    ) -> anyhow::Result<(Option<Schedule>, Window)> {
        ready.send(()).await.context("nobody waits for this load")?;
        drop(ready);
        let window = go.wait_for(Option::is_some).await.context("nobody waits for this load")?;
        let window = window.context("no window")?;
        // Threads share the rate; what does not divide goes to the first.
        let rate = self.load.rate.map(|rate| {
            let (threads, thread) = (self.threads as u64, self.thread as u64);
            rate / threads + u64::from(thread < rate % threads)
        });
        let start = window.from.checked_sub(self.load.warm_up).unwrap_or(window.from);
        Ok((rate.map(|rate| Schedule::new(start, rate)), window))
    }
}

/// Makes unary requests.
struct Unary {
    operations: Vec<(u32, Operation, Route)>,
    weights: u32,
    rng: SmallRng,
}

impl Unary {
    fn new(connection: &Connection, mix: &[(u32, Kind)], space: KeySpace, seed: u64) -> Self {
        let operation = |(weight, kind): &(u32, Kind)| {
            let operation = Operation::new(*kind, space);
            let route = connection.route(operation.path);
            (*weight, operation, route)
        };
        Self {
            operations: mix.iter().map(operation).collect(),
            weights: mix.iter().map(|(weight, _)| weight).sum::<u32>().max(1),
            rng: SmallRng::seed_from_u64(seed),
        }
    }
}

impl Client for Unary {
    async fn one(&mut self) -> Result<(), CallError> {
        let mut drawn = match self.operations.len() {
            1 => 0,
            _ => self.rng.random_range(0..self.weights),
        };
        for (weight, operation, route) in &self.operations {
            if drawn < *weight {
                return route.call_blind(operation.draw(&mut self.rng)).await;
            }
            drawn -= weight;
        }
        Ok(())
    }
}

/// Keeps leases alive over a stream of its own.
struct KeepAlive {
    route: Route,
    stream: Option<Stream>,
    frames: Vec<Bytes>,
    next: usize,
}

impl KeepAlive {
    fn new(connection: &Connection, ids: &[i64], first: usize) -> Self {
        let frame = |id: &i64| frame(&LeaseKeepAliveRequest { id: *id });
        Self {
            route: connection.route(path::LEASE_KEEP_ALIVE),
            stream: None,
            frames: ids.iter().map(frame).collect(),
            next: first,
        }
    }
}

impl Client for KeepAlive {
    async fn one(&mut self) -> Result<(), CallError> {
        let index = self.next % self.frames.len().max(1);
        self.next += 1;
        let frame = self.frames.get(index).cloned().unwrap_or_default();
        let stream = match &mut self.stream {
            Some(stream) => {
                stream.send(frame)?;
                stream
            }
            None => self.stream.insert(self.route.stream(frame).await?),
        };
        let answer = LeaseKeepAliveResponse::decode(stream.next().await?)?;
        if answer.ttl <= 0 {
            let message = format!("lease {:x} is gone", answer.id);
            return Err(CallError::Status { code: 5, message });
        }
        Ok(())
    }
}

async fn grant(connections: &[Connection], count: usize) -> anyhow::Result<Vec<i64>> {
    let mut tasks = JoinSet::new();
    for (index, connection) in connections.iter().enumerate() {
        let connection = connection.clone();
        let share = (index..count).step_by(connections.len()).count();
        tasks.spawn_local(async move {
            let mut ids = Vec::new();
            for _ in 0..share {
                let grant = LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 };
                let granted: LeaseGrantResponse =
                    connection.unary(path::LEASE_GRANT, &grant).await?;
                ids.push(granted.id);
            }
            Ok::<_, CallError>(ids)
        });
    }
    let mut ids = Vec::new();
    while let Some(granted) = tasks.join_next().await {
        ids.extend(granted.context("grant leases")??);
    }
    Ok(ids)
}

async fn revoke(connections: &[Connection], ids: Vec<i64>) -> anyhow::Result<()> {
    for (id, connection) in ids.into_iter().zip(connections.iter().cycle()) {
        let revoke = LeaseRevokeRequest { id };
        let _: LeaseRevokeResponse = connection.unary(path::LEASE_REVOKE, &revoke).await?;
    }
    Ok(())
}
