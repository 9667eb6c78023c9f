//! Which role a command line asks for.

use crate::etcd;
use anyhow::Context as _;
use clap::{Parser, Subcommand};
use server::{
    bench, config,
    dev::{DevCluster, DevOptions},
    node, replica, signal, telemetry,
};
use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// A highly available control plane: three replicas, an API that kubectl speaks, real Pods.
#[derive(Debug, Parser)]
#[command(version, about, after_help = cli::EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Run one replica.
    Server {
        /// Its configuration, TOML.
        #[arg(long)]
        config: PathBuf,
    },
    /// Run in etcd's place: takes etcd's flags and `ETCD_*` variables, serves the etcd v3 API alone.
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Etcd {
        /// etcd's flags; `trireme etcd --help` names them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<OsString>,
    },
    /// Run one node.
    Kubelet {
        /// Its configuration, TOML.
        #[arg(long)]
        config: PathBuf,
    },
    /// Run a whole cluster of real processes on this machine, until Ctrl-C.
    Dev {
        /// Replicas, 1 to 9.
        #[arg(long, default_value_t = 3)]
        replicas: u32,
        /// Nodes.
        #[arg(long, default_value_t = 2)]
        nodes: u32,
        /// Nodes beside them that only say that they run Pods, all in one process.
        #[arg(long, default_value_t = 0)]
        hollow: u32,
        /// Where everything is kept; the same directory starts the same cluster again.
        #[arg(long, default_value = "trireme-dev")]
        data_dir: PathBuf,
        /// Leave a process that has ended unexpectedly as it is.
        #[arg(long)]
        no_restart: bool,
    },
    /// Show in a minute what Trireme promises: needs no arguments, fails if something does not hold.
    Demo,
    /// Look into the files of a replica that does not run.
    Debug {
        #[command(subcommand)]
        what: Debug,
    },
    /// Measure.
    Bench {
        #[command(subcommand)]
        workload: Workload,
    },
    #[command(flatten)]
    Client(cli::Command),
}

#[derive(Debug, Subcommand)]
enum Debug {
    /// Print the requests in a replica's log in order: base64 of etcdserverpb.InternalRaftRequest, one
    /// a line.
    DumpRequests {
        /// Of the replica.
        data_dir: PathBuf,
        /// Those at the end, too, that are not known here to be committed.
        #[arg(long)]
        uncommitted: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Workload {
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
    Failover {
        /// How often.
        #[arg(long, default_value_t = 20)]
        kills: u32,
        /// One JSON object on standard output.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(arguments: Arguments) -> ExitCode {
    if let Role::Etcd { flags } = arguments.role {
        return etcd::run(flags);
    }
    let result = worker_runtime().and_then(|runtime| runtime.block_on(play(arguments.role)));
    match result {
        Ok(code) => code,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a command line's last word")]
            {
                eprintln!("error: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

/// For whatever runs here.
pub(crate) fn worker_runtime() -> anyhow::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().context("start threads")
}

#[expect(clippy::print_stdout, reason = "a command line's output")]
async fn play(role: Role) -> anyhow::Result<ExitCode> {
    match role {
        Role::Server { config } => {
            let config: config::ReplicaConfig = config::read(&config)?;
            telemetry::init(&config.log)?;
            let with_parent = config.exit_with_parent;
            until_asked(with_parent, |stop| replica::run(config, stop)).await?;
        }
        Role::Etcd { .. } => unreachable!("it has a runtime of its own"),
        Role::Kubelet { config } => {
            let config: config::NodeConfig = config::read(&config)?;
            telemetry::init(&config.log)?;
            let with_parent = config.exit_with_parent;
            until_asked(with_parent, |stop| node::run(config, stop)).await?;
        }
        Role::Dev { replicas, nodes, hollow, data_dir, no_restart } => {
            let restart = !no_restart;
            let options =
                DevOptions { replicas, nodes, hollow, restart, ..DevOptions::new(data_dir) };
            until_asked(false, |stop| dev(options, stop)).await?;
        }
        Role::Demo => {
            return until_asked(false, |stop| async move {
                let held = server::demo::run(|line| println!("{line}"), stop).await?;
                Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            })
            .await;
        }
        Role::Debug { what: Debug::DumpRequests { data_dir, uncommitted } } => {
            kubelet::default_signals().context("reset signals")?;
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            let mut notes = std::io::stderr().lock();
            server::debug::dump_requests(&data_dir, uncommitted, &mut out, &mut notes)?;
        }
        Role::Bench { workload: Workload::Failover { kills, json } } => {
            let dir = tempfile::tempdir().context("make a directory")?;
            let say = |line: String| {
                if !json {
                    println!("{line}");
                }
            };
            let measured = bench::failover(dir.path().to_owned(), kills, say).await?;
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
            return Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Role::Bench { workload: Workload::Steady { minutes, writers, pause_ms, json } } => {
            let load = bench::SteadyLoad {
                time: Duration::from_secs(minutes * 60),
                writers,
                pause: Duration::from_millis(pause_ms),
            };
            let dir = tempfile::tempdir().context("make a directory")?;
            let seen =
                until_asked(false, |stop| bench::steady(dir.path().to_owned(), load, stop)).await?;
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
            let lost =
                seen.verdict.as_ref().is_some_and(|v| v.lost > 0 || !v.violations.is_empty());
            let held = seen.elections == 0 && !lost;
            return Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Role::Bench { workload: Workload::Start { pods, json } } => {
            let dir = tempfile::tempdir().context("make a directory")?;
            let measured = bench::starts(dir.path().to_owned(), pods).await?;
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
        }
        Role::Bench { workload: Workload::Pods { hollow, pods, replicas, json } } => {
            let dir = tempfile::tempdir().context("make a directory")?;
            let options = bench::PodsOptions { replicas, hollow, pods };
            let measured = bench::pods(dir.path().to_owned(), options).await?;
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
            return Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Role::Client(command) => {
            // `trireme get … | head` ends when nobody reads any more.
            kubelet::default_signals().context("reset signals")?;
            return Ok(cli::run(command).await);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs something until it ends, or until it has ended because it was asked to.
pub(crate) async fn until_asked<T, F: Future<Output = anyhow::Result<T>>>(
    with_parent: bool,
    work: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<T> {
    let stop = CancellationToken::new();
    let work = work(stop.clone());
    tokio::pin!(work);
    tokio::select! {
        result = &mut work => return result,
        asked = signal::asked_to_end(with_parent) => asked?,
    }
    stop.cancel();
    work.await
}

#[expect(clippy::print_stdout, reason = "a command line's output")]
async fn dev(options: DevOptions, stop: CancellationToken) -> anyhow::Result<()> {
    let mut cluster = DevCluster::start(options).await?;
    let layout = cluster.layout().clone();
    println!("ready: {}", cluster.endpoints().join(" "));
    println!("  kubectl --kubeconfig {} get nodes", layout.kubeconfig().display());
    println!("  trireme get nodes --data-dir {}", layout.dir().display());
    println!("Ctrl-C ends everything and leaves nothing running.");
    let supervised = cluster.supervise(&stop, |line| println!("{line}")).await;
    let stopped = cluster.stop().await;
    supervised?;
    stopped
}
