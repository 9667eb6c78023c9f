//! Which role a command line asks for.

use crate::{bench, drill, etcd, files::ReplicaFiles, sim};
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use server::{
    config,
    dev::{DevCluster, DevOptions},
    machines::{self, Invitation, Place},
    memory, node, replica, signal, telemetry,
};
use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};
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
        /// Without certificates: whoever reaches this machine's loopback may do anything.
        #[arg(long)]
        plaintext: bool,
    },
    /// Make the first replica of a cluster on machines of your own, and say how to start it and how others join.
    Init {
        #[command(flatten)]
        place: PlaceArguments,
    },
    /// Make a replica or a node of this machine, with what `init` or `token create` has printed.
    Join {
        #[command(flatten)]
        place: PlaceArguments,
        /// `https://host:port` of a replica.
        #[arg(long)]
        server: String,
        /// `ID.SECRET`
        #[arg(long)]
        token: String,
        /// `sha256:…`, the hash of the authority's key: nothing is sent to anybody else.
        #[arg(long)]
        ca_hash: String,
        /// As a replica.
        #[arg(long, required_unless_present = "node", conflicts_with = "node")]
        replica: bool,
        /// As a node.
        #[arg(long)]
        node: bool,
    },
    /// Show in a minute what Trireme promises: needs no arguments, fails if something does not hold.
    Demo,
    /// Look into the files of a replica that does not run.
    Debug {
        #[command(subcommand)]
        what: Debug,
    },
    /// After the loss of a majority: go on with what a replica that is left has on its disk.
    Recover {
        #[command(subcommand)]
        what: Recover,
    },
    /// Measure.
    Bench {
        #[command(subcommand)]
        workload: bench::Workload,
    },
    /// Simulate replicas, clients and everything that can go wrong with them, from a seed; fails with the first
    /// property that does not hold.
    Sim {
        #[command(flatten)]
        arguments: sim::Arguments,
    },
    /// Break a cluster on purpose, under load, and have checked what it promises.
    Drill {
        #[command(subcommand)]
        what: drill::Drill,
    },
    #[command(flatten)]
    Client(cli::Command),
}

#[derive(Debug, Args)]
struct PlaceArguments {
    /// Made, and everything is kept there.
    #[arg(long)]
    data_dir: PathBuf,
    /// Address or DNS name by which others reach this machine; of a node, an address.
    #[arg(long)]
    advertise: Option<String>,
    /// What it is called; as this machine without it.
    #[arg(long)]
    name: Option<String>,
    /// Of a replica's API.
    #[arg(long, default_value_t = 6443)]
    api_port: u16,
    /// Of a replica's raft listener.
    #[arg(long, default_value_t = 2380)]
    raft_port: u16,
    /// Of a replica's etcd v3 API.
    #[arg(long, default_value_t = 2379)]
    etcd_port: u16,
    /// Of a node, for logs and exec.
    #[arg(long, default_value_t = 10250)]
    kubelet_port: u16,
}

impl From<PlaceArguments> for Place {
    fn from(arguments: PlaceArguments) -> Self {
        let PlaceArguments {
            data_dir,
            advertise,
            name,
            api_port,
            raft_port,
            etcd_port,
            kubelet_port,
        } = arguments;
        Self { data_dir, advertise, name, api_port, raft_port, etcd_port, kubelet_port }
    }
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
enum Recover {
    /// Look at the disks that are left, without changing them: which is the best, what is certain to be
    /// on it, what may be lost, and the command to go on with.
    Plan {
        /// Data directories of replicas that do not run.
        #[arg(required = true)]
        data_dirs: Vec<PathBuf>,
    },
    /// Make such a disk the one of the only member of a new cluster.
    Run {
        /// Of the replica; what is in it is kept in a directory inside.
        data_dir: PathBuf,
        /// That what came behind this may be lost: as the plan prints it.
        #[arg(long, value_name = "TERM-INDEX")]
        i_accept: String,
        /// How far the revision is beyond the last that is known.
        #[arg(long, default_value_t = server::recovery::REVISION_JUMP)]
        bump_revision: u64,
    },
}

/// For what still runs beside a role that has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// To be called before a replica has written anything, and before there is a second thread.
pub(crate) fn prepare_replica() {
    // Logs and snapshots hold every Secret.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    memory::do_without_huge_pages();
}

pub(crate) fn run(arguments: Arguments) -> ExitCode {
    if matches!(arguments.role, Role::Server { .. }) {
        prepare_replica();
    }
    if matches!(arguments.role, Role::Kubelet { .. }) {
        memory::do_without_huge_pages();
    }
    if let Role::Etcd { flags } = arguments.role {
        return etcd::run(flags);
    }
    let result = if let Role::Drill { what } = arguments.role {
        // It moves to networks and mounts of its own, which threads cannot follow.
        drill::run(what)
    } else {
        to_its_end(play(arguments.role))
    };
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

/// Runs it on threads of its own. What still blocks at its end, such as a read of standard input or a
/// disk that hangs, does not keep the process.
pub(crate) fn to_its_end<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().context("start threads")?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_WORDS);
    result
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
        Role::Etcd { .. } | Role::Drill { .. } => unreachable!("it has a runtime of its own"),
        Role::Kubelet { config } => {
            let config: config::NodeConfig = config::read(&config)?;
            telemetry::init(&config.log)?;
            let with_parent = config.exit_with_parent;
            until_asked(with_parent, |stop| node::run(config, stop)).await?;
        }
        Role::Dev { replicas, nodes, hollow, data_dir, no_restart, plaintext } => {
            let restart = !no_restart;
            let defaults = DevOptions::new(data_dir);
            let options = DevOptions { replicas, nodes, hollow, restart, plaintext, ..defaults };
            until_asked(false, |stop| dev(options, stop)).await?;
        }
        Role::Init { place } => println!("{}", machines::init(&place.into())?),
        Role::Join { place, server, token, ca_hash, replica, node: _ } => {
            let (place, invitation) = (place.into(), Invitation { server, token, ca_hash });
            let said = if replica {
                machines::join_replica(&place, &invitation).await?
            } else {
                machines::join_node(&place, &invitation).await?
            };
            println!("{said}");
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
        Role::Recover { what: Recover::Plan { data_dirs } } => {
            println!("{}", server::recovery::plan(&data_dirs)?);
        }
        Role::Recover { what: Recover::Run { data_dir, i_accept, bump_revision } } => {
            println!("{}", server::recovery::run(&data_dir, &i_accept, bump_revision)?);
        }
        Role::Bench { workload } => return Box::pin(bench::run(workload)).await,
        Role::Sim { arguments } => {
            let held = tokio::task::spawn_blocking(|| sim::run(arguments)).await??;
            return Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Role::Client(command) => {
            // `trireme get … | head` ends when nobody reads any more.
            kubelet::default_signals().context("reset signals")?;
            return Ok(cli::run(command, &ReplicaFiles).await);
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
    println!("ready: {}", cluster.endpoints().urls.join(" "));
    println!("  kubectl --kubeconfig {} get nodes", layout.kubeconfig().display());
    println!("  trireme get nodes --data-dir {}", layout.dir().display());
    println!("Ctrl-C ends everything and leaves nothing running.");
    let supervised = cluster.supervise(&stop, |line| println!("{line}")).await;
    let stopped = cluster.stop().await;
    supervised?;
    stopped
}
