//! `trireme bench`: what can be measured, and how a command line asks for it.

use crate::roles::until_asked;
use anyhow::{Context as _, Error, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use server::{
    bench as pods,
    dev::{DevCluster, DevOptions},
};
use std::{fmt::Display, path::PathBuf, process::ExitCode, time::Duration};

#[derive(Debug, Subcommand)]
pub(crate) enum Workload {
    /// Write keys of a fixed space over the etcd v3 API.
    Put {
        #[command(flatten)]
        load: LoadArguments,
        #[command(flatten)]
        space: SpaceArguments,
    },
    /// Read keys over the etcd v3 API.
    Get {
        #[command(flatten)]
        load: LoadArguments,
        #[command(flatten)]
        space: SpaceArguments,
        /// From each member's own state, without asking whether it is the latest.
        #[arg(long)]
        serializable: bool,
    },
    /// Read pages out of many keys over the etcd v3 API.
    Range {
        #[command(flatten)]
        load: LoadArguments,
        /// Keys that there are.
        #[arg(long, default_value_t = 100_000)]
        keys: u64,
        /// Keys of a page.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Ask only how many keys there are from a page's first to the end.
        #[arg(long)]
        count_only: bool,
        /// Bytes of a value.
        #[arg(long, default_value_t = 256)]
        value_bytes: usize,
    },
    /// Transactions over the etcd v3 API: compare, read and write a key in one.
    Txn {
        #[command(flatten)]
        load: LoadArguments,
        #[command(flatten)]
        space: SpaceArguments,
    },
    /// Watchers of one key and writers to it: counts events, and times each from its put. A writer goes on
    /// when all watchers have its last event.
    Watch {
        #[command(flatten)]
        load: LoadArguments,
        /// Watchers.
        #[arg(long, default_value_t = 100)]
        watchers: usize,
        /// gRPC streams that they share.
        #[arg(long, default_value_t = 10)]
        streams: usize,
        /// Bytes of a value, at least 24.
        #[arg(long, default_value_t = 256)]
        value_bytes: usize,
    },
    /// Keep leases alive over the etcd v3 API.
    Lease {
        #[command(flatten)]
        load: LoadArguments,
        /// Leases.
        #[arg(long, default_value_t = 1000)]
        leases: usize,
    },
    /// Several kinds of request beside each other over the etcd v3 API.
    Mixed {
        #[command(flatten)]
        load: LoadArguments,
        #[command(flatten)]
        space: SpaceArguments,
        /// How often each kind, relative to the others: of put, get, serializable, range and txn.
        #[arg(long, default_value = "put=2,get=7,range=1", value_parser = parse_mix)]
        mix: Mix,
        /// Keys of a page.
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Write many keys; report memory and disk of each member, and how long all take to come back.
    Fill {
        /// Keys.
        #[arg(long, default_value_t = 1_000_000)]
        keys: u64,
        /// Bytes of a value.
        #[arg(long, default_value_t = 256)]
        value_bytes: usize,
        /// How often.
        #[arg(long, default_value_t = 1)]
        runs: usize,
        #[command(flatten)]
        systems: SystemArguments,
    },
    /// Load on the Kubernetes API: creates of Pods, and a crowd of readers beside small requests.
    ///
    /// The Pods are for a scheduler that is not there. A cluster of three replicas is started, or --server
    /// says which runs already, any API server of Kubernetes.
    Api {
        /// Connections that create Pods, one run for each number; 0 leaves these out.
        #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
        connections: Vec<usize>,
        /// Connections that list all Pods at once, again and again; then the crowd comes, too.
        #[arg(long, default_value_t = 0)]
        lists: usize,
        /// Connections that watch all Pods.
        #[arg(long, default_value_t = 0)]
        watches: usize,
        /// Pods that the crowd reads.
        #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(16..=1_000_000))]
        pods: u64,
        /// Pods changed a second meanwhile.
        #[arg(long, default_value_t = 10)]
        churn: u64,
        /// Small requests a second whose latency counts, half gets and half patches.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
        small: u64,
        /// Seconds of each run.
        #[arg(long, default_value_t = 10.0, value_parser = parse_seconds)]
        seconds: f64,
        /// Seconds of the same load before each run of creates.
        #[arg(long, default_value_t = 2.0, value_parser = parse_seconds)]
        warm_up: f64,
        /// Servers that run, all of one cluster, separated by commas; https:// with --kubeconfig only.
        #[arg(long, value_delimiter = ',')]
        server: Vec<String>,
        /// For its current context: the server, if --server names none, and who one is there.
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
        /// Processes of those servers on this machine: their CPU time and memory are reported.
        #[arg(long, value_delimiter = ',')]
        pids: Vec<u32>,
        /// One JSON object on standard output.
        #[arg(long)]
        json: bool,
    },
    /// Start Pods one after another on an idle cluster, and say where the time goes.
    Start {
        /// How many.
        #[arg(long, default_value_t = 50)]
        pods: usize,
        /// One JSON object on standard output.
        #[arg(long)]
        json: bool,
    },
    /// Leave a cluster alone, idle or under load: no election may happen that nobody caused.
    Steady {
        /// How long.
        #[arg(long, default_value_t = 60)]
        minutes: u64,
        /// Writers, and as many readers; 0 is an idle cluster.
        #[arg(long, default_value_t = 0)]
        writers: usize,
        /// Milliseconds that each of them waits after each request; 0 is full speed.
        #[arg(long, default_value_t = 0)]
        pause_ms: u64,
        /// One JSON object on standard output.
        #[arg(long)]
        json: bool,
    },
    /// Create many Pods at once on nodes that only say that they run them.
    Pods {
        /// Nodes, at most 255.
        #[arg(long, default_value_t = 200)]
        hollow: u32,
        /// Pods, at most 110 a node.
        #[arg(long, default_value_t = 2000)]
        pods: u32,
        /// Replicas, 1 to 9.
        #[arg(long, default_value_t = 3)]
        replicas: u32,
        /// One JSON object on standard output.
        #[arg(long)]
        json: bool,
    },
    /// Kill the leader again and again under writers at full speed.
    ///
    /// With --fault, --systems or --compare-etcd the writers use the etcd v3 API, at a fixed rate and without
    /// deadlines of their own; without, they are clients of the Kubernetes API.
    Failover {
        /// How often.
        #[arg(long, default_value_t = 20)]
        kills: u32,
        /// What happens to the leader, over the etcd v3 API.
        #[arg(long, value_enum)]
        fault: Option<FaultName>,
        /// Puts a second, over all members; with the etcd v3 API.
        #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
        rate: u64,
        #[command(flatten)]
        systems: SystemArguments,
    },
    /// Mixed load over the etcd v3 API for a long time, while members are killed, stopped, added and removed,
    /// one thing at a time; three at the start, four at most.
    ///
    /// Every answer is held against what may be under its key, every revision against those seen before, and
    /// every event of four watches against the others and against what was acknowledged. At the end all
    /// members must have the same hash, and every key what was written last. Ends with 1 if anything was
    /// wrong, or if memory grew in ten minutes or more. Takes one system a run.
    Soak {
        /// Minutes of load.
        #[arg(long, default_value_t = 20.0, value_parser = parse_minutes)]
        minutes: f64,
        /// Requests a second, over all members.
        #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(10..))]
        rate: u64,
        /// Seconds between two faults; between two compactions twice to three times as many.
        #[arg(long, default_value_t = 10.0, value_parser = parse_pause)]
        fault_every: f64,
        /// Repeats the faults and the requests of a run, as far as they are this side's. Default: another each
        /// time, which is printed.
        #[arg(long)]
        seed: Option<u64>,
        #[command(flatten)]
        systems: SystemArguments,
    },
}

/// How a workload of the etcd v3 API is run.
#[derive(Debug, Args)]
pub(crate) struct LoadArguments {
    /// Clients; each has one request outstanding.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// HTTP/2 connections that they share, the first to the leader. Default: one for each endpoint and
    /// thread.
    #[arg(long)]
    conns: Option<usize>,
    /// Threads of the load generator.
    #[arg(long, default_value_t = 1, value_parser = parse_threads)]
    threads: usize,
    /// Open loop: requests a second that are due whether or not the servers keep up; latency counts from
    /// then. Default: closed loop, each client sends when it has its answer.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Seconds that count.
    #[arg(long, default_value_t = 5.0, value_parser = parse_seconds)]
    seconds: f64,
    /// Seconds of the same load before them.
    #[arg(long, default_value_t = 1.0, value_parser = parse_seconds)]
    warm_up: f64,
    /// How often. Default: 5 where systems are compared, otherwise 1.
    #[arg(long)]
    runs: Option<usize>,
    /// Servers that run, http://HOST:PORT, separated by commas. Default: three members are started.
    #[arg(long, value_delimiter = ',')]
    endpoints: Vec<String>,
    /// Processes of those servers on this machine: their CPU time and memory are reported.
    #[arg(long, value_delimiter = ',', requires = "endpoints")]
    pids: Vec<u32>,
    #[command(flatten)]
    systems: SystemArguments,
}

/// What is started, where, and how the result is printed.
#[derive(Debug, Args)]
pub(crate) struct SystemArguments {
    /// Compare with etcd (Debian: etcd-server): three members of each on this machine, in turn.
    #[arg(long)]
    compare_etcd: bool,
    /// Systems to start, at most two; the same one twice shows what a ratio is worth.
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "compare_etcd", num_args = 1..)]
    systems: Vec<SystemName>,
    /// Where all members keep their data, beside each other. Default: the directory for temporary files.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// Which keys.
#[derive(Debug, Args)]
pub(crate) struct SpaceArguments {
    /// Keys that there are.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=99_999_999))]
    key_space: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SystemName {
    Trireme,
    Etcd,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum FaultName {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Stop,
    /// A cut network, to members and clients; needs root.
    Cut,
    /// It is asked to hand over.
    Transfer,
}

/// Weights and names of kinds.
#[derive(Debug, Clone)]
pub(crate) struct Mix(Vec<(u32, String)>);

fn parse_mix(text: &str) -> Result<Mix, String> {
    let part = |part: &str| {
        let (name, weight) = part.split_once('=').ok_or(format!("{part:?} is not KIND=WEIGHT"))?;
        kind_named(name, 1)
            .ok_or(format!("{name:?} is not put, get, serializable, range or txn"))?;
        let weight = weight.parse().map_err(|_| format!("{weight:?} is not a whole number"))?;
        Ok((weight, name.to_owned()))
    };
    let parts: Vec<(u32, String)> = text.split(',').map(part).collect::<Result<_, String>>()?;
    let all = parts.iter().try_fold(0u32, |sum, (weight, _)| sum.checked_add(*weight));
    if all.is_none_or(|all| all == 0) {
        return Err("the weights must be more than nothing and less than four billion".to_owned());
    }
    Ok(Mix(parts))
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    let fits = (0.0..=86_400.0).contains(&seconds);
    fits.then_some(seconds).ok_or_else(|| "from 0 to 86,400 seconds".to_owned())
}

fn parse_minutes(text: &str) -> Result<f64, String> {
    let minutes = text.parse().map_err(|_| format!("{text:?} is not a number of minutes"))?;
    let fits = (0.1..=100_000.0).contains(&minutes);
    fits.then_some(minutes).ok_or_else(|| "from 0.1 to 100,000 minutes".to_owned())
}

fn parse_pause(text: &str) -> Result<f64, String> {
    parse_seconds(text).and_then(|seconds| {
        if seconds >= 0.1 { Ok(seconds) } else { Err("at least 0.1".to_owned()) }
    })
}

fn parse_threads(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=64).contains(n)).ok_or_else(|| "from 1 to 64".to_owned())
}

fn kind_named(name: &str, limit: u32) -> Option<bench::Kind> {
    match name {
        "put" => Some(bench::Kind::Put),
        "get" => Some(bench::Kind::Get { serializable: false }),
        "serializable" => Some(bench::Kind::Get { serializable: true }),
        "range" => Some(bench::Kind::Page { limit, count_only: false }),
        "txn" => Some(bench::Kind::Txn),
        _ => None,
    }
}

impl SpaceArguments {
    fn space(&self) -> bench::KeySpace {
        bench::KeySpace { keys: self.key_space, value_bytes: self.value_bytes }
    }
}

impl SystemArguments {
    /// The systems to start: what was asked for, otherwise ours.
    fn systems(&self) -> anyhow::Result<Vec<bench::System>> {
        let names = match (self.compare_etcd, self.systems.as_slice()) {
            (true, _) => vec![SystemName::Trireme, SystemName::Etcd],
            (false, []) => vec![SystemName::Trireme],
            (false, names) => names.to_vec(),
        };
        ensure!(names.len() <= 2, "--systems: at most two");
        names.into_iter().map(system).collect()
    }
}

fn system(name: SystemName) -> anyhow::Result<bench::System> {
    match name {
        SystemName::Trireme => {
            let program = std::env::current_exe().context("find this program")?;
            Ok(bench::System::trireme(program))
        }
        SystemName::Etcd => bench::System::etcd(),
    }
}

impl LoadArguments {
    fn load(&self) -> bench::Load {
        bench::Load {
            clients: self.clients,
            connections: self.conns,
            threads: self.threads,
            rate: self.rate,
            warm_up: Duration::from_secs_f64(self.warm_up),
            time: Duration::from_secs_f64(self.seconds),
        }
    }

    fn subjects(&self) -> anyhow::Result<Vec<bench::Subject>> {
        if self.endpoints.is_empty() {
            return Ok(self.systems.systems()?.into_iter().map(bench::Subject::Start).collect());
        }
        ensure!(self.systems.systems.is_empty(), "--endpoints: with --compare-etcd, not --systems");
        let given = bench::Target {
            system: "trireme".to_owned(),
            endpoints: self.endpoints.clone(),
            pids: self.pids.clone(),
        };
        if !self.systems.compare_etcd {
            let system = self.endpoints.join(",");
            return Ok(vec![bench::Subject::Given(bench::Target { system, ..given })]);
        }
        Ok(vec![bench::Subject::Given(given), bench::Subject::Start(system(SystemName::Etcd)?)])
    }
}

pub(crate) async fn run(workload: Workload) -> anyhow::Result<ExitCode> {
    use bench::Workload::{Lease, Unary, Watch};
    let one = |kind, space| Unary { mix: vec![(1, kind)], space };
    match workload {
        Workload::Put { load, space } => {
            measure("put", load, one(bench::Kind::Put, space.space())).await
        }
        Workload::Get { load, space, serializable } => {
            let kind = bench::Kind::Get { serializable };
            measure("get", load, one(kind, space.space())).await
        }
        Workload::Range { load, keys, limit, count_only, value_bytes } => {
            let kind = bench::Kind::Page { limit, count_only };
            measure("range", load, one(kind, bench::KeySpace { keys, value_bytes })).await
        }
        Workload::Txn { load, space } => {
            measure("txn", load, one(bench::Kind::Txn, space.space())).await
        }
        Workload::Watch { load, watchers, streams, value_bytes } => {
            let watch = bench::WatchLoad { watchers, streams, value_bytes };
            measure("watch", load, Watch(watch)).await
        }
        Workload::Lease { load, leases } => measure("lease", load, Lease { leases }).await,
        Workload::Mixed { load, space, mix, limit } => {
            let kinds = mix.0.iter();
            let mix = kinds.filter_map(|(w, name)| Some((*w, kind_named(name, limit)?))).collect();
            measure("mixed", load, Unary { mix, space: space.space() }).await
        }
        Workload::Fill { keys, value_bytes, runs, systems } => {
            let space = bench::KeySpace { keys, value_bytes };
            let (to_start, json) = (systems.systems()?, systems.json);
            let say = progress(json);
            let report =
                interruptible(Box::pin(bench::fill(to_start, space, runs, systems.data_dir, say)))
                    .await?;
            print(&report, json)?;
            Ok(ExitCode::SUCCESS)
        }
        Workload::Failover { kills, fault, rate, systems } => {
            if fault.is_none() && !systems.compare_etcd && systems.systems.is_empty() {
                return pods_failover(kills, systems.json).await;
            }
            let fault = match fault.unwrap_or(FaultName::Kill) {
                FaultName::Kill => bench::Fault::Kill,
                FaultName::Stop => bench::Fault::Stop,
                FaultName::Cut => bench::Fault::Cut,
                FaultName::Transfer => bench::Fault::Transfer,
            };
            let to_start = systems.systems()?;
            let (json, data_dir) = (systems.json, systems.data_dir);
            let plan =
                bench::FailoverPlan { systems: to_start, fault, rounds: kills, rate, data_dir };
            let report = interruptible(bench::failover(plan, progress(json))).await?;
            print(&report, json)?;
            Ok(if report.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Workload::Soak { minutes, rate, fault_every, seed, systems } => {
            let [system] =
                <[_; 1]>::try_from(systems.systems()?).ok().context("soak: one system a run")?;
            let plan = bench::SoakPlan {
                system,
                time: Duration::from_secs_f64(minutes * 60.0),
                rate,
                fault_every: Duration::from_secs_f64(fault_every),
                seed: seed.unwrap_or_else(bench::fresh_seed),
                data_dir: systems.data_dir,
            };
            let report = interruptible(bench::soak(plan, to_stderr)).await?;
            print(&report, systems.json)?;
            Ok(if report.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Workload::Api {
            connections,
            lists,
            watches,
            pods,
            churn,
            small,
            seconds,
            warm_up,
            server,
            kubeconfig,
            pids,
            json,
        } => {
            let pods = usize::try_from(pods).context("--pods")?;
            let endpoints = match kubeconfig {
                Some(path) => {
                    let named = cli::endpoints(&path).map_err(Error::msg)?;
                    let named = if server.is_empty() { named } else { named.at(server) };
                    bench::ApiEndpoint::all(&named)?
                }
                None => server
                    .iter()
                    .map(|url| bench::ApiEndpoint::plain(url))
                    .collect::<Result<_, _>>()?,
            };
            let plan = bench::ApiPlan {
                endpoints,
                pids: pids.iter().map(|pid| (pid.to_string(), *pid)).collect(),
                connections: connections.into_iter().filter(|count| *count > 0).collect(),
                time: Duration::from_secs_f64(seconds),
                warm_up: Duration::from_secs_f64(warm_up),
                crowd: (lists + watches > 0).then_some(bench::Crowd {
                    pods,
                    lists,
                    watches,
                    churn,
                    small,
                }),
            };
            api(plan, json).await
        }
        Workload::Start { pods, json } => pods_start(pods, json).await,
        Workload::Steady { minutes, writers, pause_ms, json } => {
            pods_steady(minutes, writers, pause_ms, json).await
        }
        Workload::Pods { hollow, pods, replicas, json } => {
            pods_many(pods::PodsOptions { replicas, hollow, pods }, json).await
        }
    }
}

/// On a cluster that is made for it, if the plan names none.
async fn api(mut plan: bench::ApiPlan, json: bool) -> anyhow::Result<ExitCode> {
    let say = std::sync::Mutex::new(progress(json));
    let say = move |line| {
        let mut say = say.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (*say)(line);
    };
    if !plan.endpoints.is_empty() {
        let report = interruptible(bench::api(plan, say)).await?;
        print(&report, json)?;
        return Ok(if report.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let dir = tempfile::tempdir().context("make a directory")?;
    let options = DevOptions { nodes: 0, restart: false, ..DevOptions::new(dir.path().to_owned()) };
    let cluster = DevCluster::start(options).await?;
    plan.endpoints = bench::ApiEndpoint::all(&cluster.endpoints())?;
    plan.pids = cluster.pids();
    let report = interruptible(bench::api(plan, say)).await;
    let report = report.map_err(|error| error.context(cluster.log_tails()));
    let stopped = cluster.stop().await;
    let report = report?;
    stopped?;
    print(&report, json)?;
    Ok(if report.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(
    name: &str,
    load: LoadArguments,
    workload: bench::Workload,
) -> anyhow::Result<ExitCode> {
    let subjects = load.subjects()?;
    let runs = load.runs.unwrap_or(if subjects.len() > 1 { 5 } else { 1 });
    ensure!(runs > 0, "--runs: at least 1");
    let (json, data_dir) = (load.systems.json, load.systems.data_dir.clone());
    let say = progress(json);
    let how = load.load();
    let work = Box::pin(bench::compare(name, subjects, &workload, &how, runs, data_dir, say));
    let report = interruptible(work).await?;
    print(&report, json)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs something until it ends or a signal comes; dropping it ends what it has started.
async fn interruptible<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    until_asked(false, |stop| async move {
        tokio::select! {
            result = work => result,
            () = stop.cancelled() => bail!("interrupted"),
        }
    })
    .await
}

#[expect(clippy::print_stdout, reason = "a command line's output")]
fn progress(json: bool) -> impl FnMut(String) + Send + 'static {
    move |line| {
        if !json {
            println!("{line}");
        }
    }
}

/// Also where standard output is one JSON object: it goes on for long.
#[expect(clippy::print_stderr, reason = "a command line's progress")]
fn to_stderr(line: String) {
    eprintln!("{line}");
}

#[expect(clippy::print_stdout, reason = "a command line's output")]
fn print(report: &(impl Serialize + Display), json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a command line's output")]
async fn pods_failover(kills: u32, json: bool) -> anyhow::Result<ExitCode> {
    let dir = tempfile::tempdir().context("make a directory")?;
    let say = |line: String| {
        if !json {
            println!("{line}");
        }
    };
    let measured = pods::failover(dir.path().to_owned(), kills, say).await?;
    if json {
        println!("{}", serde_json::to_string(&measured)?);
    } else {
        let gaps = &measured.gap_ms;
        println!(
            "{kills} kills: no write for {} ms at the median, {} ms at worst; {} writes \
             acknowledged, {} lost, {} of unknown outcome, {} reads",
            gaps.median,
            gaps.max,
            measured.verdict.acknowledged,
            measured.verdict.lost,
            measured.verdict.unknown,
            measured.verdict.reads,
        );
    }
    for violation in &measured.verdict.violations {
        println!("VIOLATION: {violation}");
    }
    let held = measured.verdict.lost == 0 && measured.verdict.violations.is_empty();
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "a command line's output")]
async fn pods_steady(
    minutes: u64,
    writers: usize,
    pause_ms: u64,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let load = pods::SteadyLoad {
        time: Duration::from_secs(minutes * 60),
        writers,
        pause: Duration::from_millis(pause_ms),
    };
    let dir = tempfile::tempdir().context("make a directory")?;
    let seen = until_asked(false, |stop| pods::steady(dir.path().to_owned(), load, stop)).await?;
    if json {
        println!("{}", serde_json::to_string(&seen)?);
    } else {
        println!(
            "{} s with {writers} writers: {} elections that nobody caused; no write for \
             {:.0} ms at most; resident memory {} MiB",
            seen.seconds,
            seen.elections,
            seen.write_gap_ms,
            seen.rss_bytes.iter().max().copied().unwrap_or_default() >> 20,
        );
    }
    let lost = seen.verdict.as_ref().is_some_and(|v| v.lost > 0 || !v.violations.is_empty());
    let held = seen.elections == 0 && !lost;
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "a command line's output")]
async fn pods_start(pods: usize, json: bool) -> anyhow::Result<ExitCode> {
    let dir = tempfile::tempdir().context("make a directory")?;
    let measured = pods::starts(dir.path().to_owned(), pods).await?;
    if json {
        println!("{}", serde_json::to_string(&measured)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{pods} Pods, one after another   median      p99      max  (ms)");
    let steps = ["commit", "bind", "deliver", "start", "report"];
    let steps = steps.iter().filter_map(|step| measured.steps_ms.get_key_value(step));
    for (step, spread) in steps.chain([(&"apply to running", &measured.total_ms)]) {
        let (median, p99, max) = (spread.median, spread.p99, spread.max);
        println!("{step:24} {median:10.1} {p99:8.1} {max:8.1}");
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "a command line's output")]
async fn pods_many(options: pods::PodsOptions, json: bool) -> anyhow::Result<ExitCode> {
    let dir = tempfile::tempdir().context("make a directory")?;
    let pods::PodsOptions { replicas, hollow, pods } = options;
    let measured = pods::pods(dir.path().to_owned(), options).await?;
    if json {
        println!("{}", serde_json::to_string(&measured)?);
    } else {
        println!("{pods} Pods on {hollow} nodes, {replicas} replicas");
        println!("created  {:8.1} /s", measured.created_per_second);
        println!("bound    {:8.1} /s", measured.bound_per_second);
        println!("running  {:8.1} /s", measured.running_per_second);
        for (what, spread) in [
            ("create to bound", measured.create_to_bound_ms),
            ("create to running", measured.create_to_running_ms),
        ] {
            let (p50, p99, max) = (spread.p50, spread.p99, spread.max);
            println!("{what:18} p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms");
        }
        for (process, bytes) in &measured.rss_bytes {
            println!("{process:10} {:6} MiB", bytes >> 20);
        }
        println!("leader changed {} times", measured.leader_changes);
    }
    let held = measured.leader_changes == 0;
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
