//! The client verbs: what they ask of the API, and how it looks.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line's output")]

mod apply;
mod certs;
mod cluster;
mod describe;
mod etcd_env;
mod exec;
mod explain;
mod failure;
mod get;
mod kubeconfig;
mod members;
mod past;
mod target;
mod token;

use clap::{ArgAction, Args, Subcommand};
use client::admin::BackupFailure;
use failure::Failure;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use target::Target;

pub use target::endpoints;

#[cfg(test)]
mod testing;

/// For `--help`: scripts rely on these.
pub const EXIT_CODES: &str = "Exit codes: 0 done; 1 refused or not found; 2 bad usage or input; \
                              3 no replica reachable; 4 outcome unknown; 5 not in time";

/// A verb.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create objects from manifests, or bring them up to date.
    Apply {
        /// A file, or - for standard input.
        #[arg(short, long = "filename")]
        filename: String,
        /// `server`: do everything but the write.
        #[arg(long, default_value = "none")]
        dry_run: String,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Show objects.
    Get {
        /// Such as `pods`, `node`, `svc`.
        kind: String,
        /// One of them.
        name: Option<String>,
        /// `wide`, `json`, `yaml` or `name`.
        #[arg(short, long, default_value = "")]
        output: String,
        /// In all namespaces.
        #[arg(short = 'A', long)]
        all_namespaces: bool,
        /// By labels.
        #[arg(short = 'l', long, default_value = "")]
        selector: String,
        /// By fields.
        #[arg(long, default_value = "")]
        field_selector: String,
        /// Go on with what changes.
        #[arg(short, long)]
        watch: bool,
        /// As it was: a revision (1234), an RFC 3339 time, or how long ago (5m).
        #[arg(long, default_value = "", value_name = "WHEN")]
        at: String,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Say why a Pod does not run: what each node has against it, what its containers wait for, and what
    /// would help, found by trying.
    #[command(after_help = "Examples:\n  trireme explain-pending -A\n  \
                            trireme explain-pending web\n  trireme explain-pending deploy/web\n  \
                            trireme explain-pending web -n shop -o json | jq .help")]
    ExplainPending {
        /// The Pod, or what makes Pods as `KIND/NAME`; without it, all that do not run.
        pod: Option<String>,
        /// In all namespaces.
        #[arg(short = 'A', long, conflicts_with = "pod")]
        all_namespaces: bool,
        /// `json`
        #[arg(short, long, default_value = "")]
        output: String,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Say what an object that is being deleted still waits for: its grace, hooks, its node, finalizers,
    /// dependents, or what is in a namespace.
    #[command(after_help = "Examples:\n  trireme why-terminating -A\n  \
                            trireme why-terminating web\n  \
                            trireme why-terminating namespace/shop\n  \
                            trireme why-terminating deploy/web -o json")]
    WhyTerminating {
        /// A Pod, or `KIND/NAME`; without it, all that are being deleted.
        object: Option<String>,
        /// In all namespaces.
        #[arg(short = 'A', long, conflicts_with = "object")]
        all_namespaces: bool,
        /// `json`
        #[arg(short, long, default_value = "")]
        output: String,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// List the kept versions of an object, whether it is there or not: when, by whom, and what changed.
    #[command(after_help = "Examples:\n  trireme history deploy/web\n  \
                            trireme history pod/web --limit 3 --full")]
    History {
        /// `KIND/NAME`
        object: String,
        /// The newest so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..100_000))]
        limit: u32,
        /// All changes, and values at their full length.
        #[arg(long)]
        full: bool,
        /// `json`
        #[arg(short, long, default_value = "")]
        output: String,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Compare an object with what it was, field by field.
    #[command(after_help = "A moment is a revision, an RFC 3339 time, or how long ago it was.\n\n\
                            Examples:\n  trireme diff deploy/web --from 10m\n  \
                            trireme diff configmap/site --from 2026-01-31T03:00:00Z --to 4711")]
    Diff {
        /// `KIND/NAME`
        object: String,
        /// The earlier moment.
        #[arg(long, value_name = "WHEN")]
        from: String,
        /// The later one; now without it.
        #[arg(long, value_name = "WHEN")]
        to: Option<String>,
        /// All changes, and values at their full length.
        #[arg(long)]
        full: bool,
        /// `json`
        #[arg(short, long, default_value = "")]
        output: String,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Create a deleted object again as it was before its deletion, and say what does not come back.
    #[command(after_help = "Examples:\n  trireme undelete configmap/site\n  \
                            trireme undelete service/web --dry-run\n  \
                            trireme undelete pod/web --at 3m")]
    Undelete {
        /// `KIND/NAME`
        object: String,
        /// As it was then, instead of before its deletion.
        #[arg(long, value_name = "WHEN")]
        at: Option<String>,
        /// Do everything but the write.
        #[arg(long)]
        dry_run: bool,
        /// `json`
        #[arg(short, long, default_value = "")]
        output: String,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Tell everything about one object: its state, its parts, its events.
    Describe {
        /// Such as `pod`, `node`, `svc`.
        kind: String,
        /// Which.
        name: String,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Delete objects and wait until they are gone.
    Delete {
        /// `KIND NAME…` or `KIND/NAME…`
        #[arg(required_unless_present = "filename")]
        objects: Vec<String>,
        /// Those of a manifest: a file, or - for standard input.
        #[arg(short, long, conflicts_with = "objects")]
        filename: Option<String>,
        /// Seconds to end in; the object's own without it.
        #[arg(long)]
        grace_period: Option<i64>,
        /// A grace of one second.
        #[arg(long)]
        now: bool,
        /// Remove it at once, without waiting for its node.
        #[arg(long)]
        force: bool,
        /// Until they are gone; `--wait=false` returns when the deletion has begun.
        #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
              default_value_t = true, default_missing_value = "true")]
        wait: bool,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Print a container's log.
    Logs {
        /// Of this Pod.
        pod: String,
        /// Of this container; needed when there are several.
        #[arg(short, long, default_value = "")]
        container: String,
        /// Go on until the container ends.
        #[arg(short, long)]
        follow: bool,
        /// Of the instance before.
        #[arg(short, long)]
        previous: bool,
        /// Only so many lines from the end.
        #[arg(long)]
        tail: Option<u32>,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Run a program in a container; ends with its exit code.
    Exec {
        /// In this Pod.
        pod: String,
        /// In this container; needed when there are several.
        #[arg(short, long, default_value = "")]
        container: String,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Wait until an object is as wanted.
    Wait {
        /// `kind/name`
        object: String,
        /// `condition=Ready` or `delete`.
        #[arg(long = "for")]
        wanted: String,
        /// Seconds.
        #[arg(long, default_value_t = 30)]
        timeout: u64,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// The group of replicas.
    Cluster {
        #[command(subcommand)]
        verb: ClusterVerb,
    },
    /// Tokens with which further machines join.
    Token {
        #[command(subcommand)]
        verb: TokenVerb,
    },
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// Make one, and print it; and on standard error the command that uses it.
    Create {
        /// For replicas, which get the authority's key; for nodes without it.
        #[arg(long)]
        replicas: bool,
        /// How long it is valid: `30s`, `15m`, `24h`, `7d`; `0` for ever.
        #[arg(long, default_value = "24h", value_parser = token::seconds)]
        ttl: u64,
        /// For people.
        #[arg(long, default_value = "")]
        description: String,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// List them, without their secrets.
    List {
        /// One JSON array.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Delete one.
    Delete {
        /// Its id, or all of it.
        id: String,
        #[command(flatten)]
        target: TargetArguments,
    },
}

/// What can be asked of the group.
#[derive(Debug, Subcommand)]
pub enum ClusterVerb {
    /// One screen: leader, each replica's state, nodes.
    Status {
        /// One JSON object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// List the certificates that replicas and nodes show, and when each expires and is renewed.
    Certs {
        /// One JSON array.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Print what points etcdctl at a cluster: `eval "$(trireme cluster etcd-env)"`.
    EtcdEnv {
        /// Of a cluster on this machine.
        #[arg(long, default_value = "trireme-dev")]
        data_dir: PathBuf,
    },
    /// Hand the lead to another replica.
    TransferLeader {
        /// To this one; to whoever is furthest without it.
        #[arg(long)]
        to: Option<u64>,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// List the replicas that the log knows, started or not.
    Members {
        /// One JSON array.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Make room for a new replica; it is to be started then, with the id that this prints.
    AddMember {
        /// Where the others will reach it: `http(s)://host:port` of its raft listener.
        #[arg(long, required = true, value_delimiter = ',')]
        peer_url: Vec<String>,
        /// It shall receive everything and not vote.
        #[arg(long)]
        learner: bool,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Take a replica out for ever; one that leads hands over first.
    RemoveMember {
        /// Which, as `members` shows it.
        #[arg(value_parser = member_id)]
        id: u64,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Let a learner vote.
    PromoteMember {
        /// Which, as `members` shows it.
        #[arg(value_parser = member_id)]
        id: u64,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Keep everything that was acknowledged in a file; the cluster goes on.
    Backup {
        /// To write; read back and checked before it has its name.
        file: PathBuf,
        /// Only read a backup that is there, to its last byte.
        #[arg(long)]
        verify: bool,
        #[command(flatten)]
        target: TargetArguments,
    },
    /// Begin a new cluster with what a backup holds, on disks that hold nothing. Start it with the same
    /// configurations.
    Restore {
        /// The backup.
        file: PathBuf,
        /// Configuration of a replica of the new cluster, once for each: its data directory is written,
        /// here. With one, the others are added when it runs.
        #[arg(long, required = true)]
        config: Vec<PathBuf>,
        /// How far the revision is beyond the backup's: further than the old cluster can have gone on.
        #[arg(long, default_value_t = 1_000_000_000, value_parser = clap::value_parser!(u64).range(1..1 << 53))]
        bump_revision: u64,
    },
    /// Put a new replica in the place of one: add it, wait until it has been started and has caught up,
    /// let it vote, and take the old one out. Given again after an interruption, it goes on.
    ReplaceMember {
        /// Who goes, as `members` shows it.
        #[arg(value_parser = member_id)]
        old: u64,
        /// Where the others will reach the new one: `http(s)://host:port` of its raft listener.
        #[arg(long)]
        peer_url: String,
        /// Seconds for the new one to be started and to catch up.
        #[arg(long, default_value_t = 600)]
        timeout: u64,
        #[command(flatten)]
        target: TargetArguments,
    },
}

/// A replica by its id: decimal, or hexadecimal after `0x`.
fn member_id(text: &str) -> Result<u64, String> {
    let id = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    id.ok().filter(|id| *id > 0).ok_or_else(|| "a member id is a number above 0".to_owned())
}

/// Which cluster, and where in it.
#[derive(Debug, Clone, Args)]
pub struct TargetArguments {
    /// `https://host:port` of a replica; several with commas. Default: as the kubeconfig or the directory says.
    #[arg(long, value_delimiter = ',')]
    server: Vec<String>,
    /// A kubeconfig, for its current context. Default: `$KUBECONFIG`, if no directory is named.
    #[arg(long, conflicts_with = "data_dir")]
    kubeconfig: Option<PathBuf>,
    #[arg(long, env = "KUBECONFIG", hide = true)]
    kubeconfig_variable: Option<String>,
    /// The directory of a dev cluster. Default: `trireme-dev`.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Signs the servers' certificates: PEM.
    #[arg(long)]
    certificate_authority: Option<PathBuf>,
    /// Certificate to show: PEM.
    #[arg(long, requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// Its private key: PEM.
    #[arg(long, requires = "client_certificate")]
    client_key: Option<PathBuf>,
    /// Bearer token to show in place of a certificate.
    #[arg(long)]
    token: Option<String>,
    /// Namespace. Default: that of the kubeconfig's context, or `default`.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Print each request and how long it took.
    #[arg(short, long)]
    verbose: bool,
}

/// Carries a verb out.
pub async fn run(command: Command, files: &impl Files) -> ExitCode {
    match verb(command, files).await {
        Ok(code) => code,
        Err(failure) => {
            for line in failure.lines() {
                eprintln!("error: {line}");
            }
            failure.exit_code()
        }
    }
}

/// What can be done with the files of replicas, by who knows their form. Answers are for people; so are
/// errors.
pub trait Files {
    /// A backup that is being fetched.
    type Backup;

    /// Begins one.
    ///
    /// # Errors
    /// There is a file of that name, or it cannot be written.
    fn begin_backup(&self, file: &Path) -> Result<Self::Backup, String>;

    /// Adds a piece.
    ///
    /// # Errors
    /// The disk refuses.
    fn keep(&self, backup: &mut Self::Backup, piece: &[u8]) -> Result<(), String>;

    /// Reads it back, and gives it its name.
    ///
    /// # Errors
    /// It is not whole.
    fn end_backup(&self, backup: Self::Backup) -> Result<String, String>;

    /// Reads one that is there.
    ///
    /// # Errors
    /// It is not whole.
    fn verify_backup(&self, file: &Path) -> Result<String, String>;

    /// Makes the data directories of these configurations a new cluster.
    ///
    /// # Errors
    /// The backup is not whole, or a directory holds something.
    fn restore(&self, file: &Path, configs: &[PathBuf], jump: u64) -> Result<String, String>;
}

async fn verb(command: Command, files: &impl Files) -> Result<ExitCode, Failure> {
    match command {
        Command::Apply { filename, dry_run, target } => {
            apply::apply(&Target::new(target)?, &filename, &dry_run).await?;
        }
        Command::Get {
            kind,
            name,
            output,
            all_namespaces,
            selector,
            field_selector,
            watch,
            at,
            target,
        } => {
            let wanted = get::Wanted {
                kind: target::kind(&kind)?,
                name: name.unwrap_or_default(),
                output,
                all_namespaces,
                selector,
                field_selector,
                watch,
                at,
            };
            get::get(&Target::new(target)?, &wanted).await?;
        }
        Command::ExplainPending { pod, all_namespaces, output, target } => {
            let target = Target::new(target)?;
            match pod {
                Some(pod) => explain::pending(&target, &pod, &output).await?,
                None => explain::all_pending(&target, all_namespaces, &output).await?,
            }
        }
        Command::WhyTerminating { object, all_namespaces, output, target } => {
            let target = Target::new(target)?;
            match object {
                Some(object) => explain::terminating(&target, &object, &output).await?,
                None => explain::all_terminating(&target, all_namespaces, &output).await?,
            }
        }
        Command::History { object, limit, full, output, target } => {
            let target = Target::new(target)?;
            let object = target::object(&target, &object)?;
            past::history(&target, &object, limit, full, &output).await?;
        }
        Command::Diff { object, from, to, full, output, target } => {
            let target = Target::new(target)?;
            let object = target::object(&target, &object)?;
            past::diff(&target, &object, &from, to.as_deref(), full, &output).await?;
        }
        Command::Undelete { object, at, dry_run, output, target } => {
            let target = Target::new(target)?;
            let object = target::object(&target, &object)?;
            past::undelete(&target, &object, at.as_deref(), dry_run, &output).await?;
        }
        Command::Describe { kind, name, target } => {
            let kind = target::kind(&kind)?;
            describe::describe(&Target::new(target)?, kind, &name).await?;
        }
        Command::Delete { objects, filename, grace_period, now, force, wait, target } => {
            let grace = if force {
                Some(0)
            } else if now {
                Some(1)
            } else {
                grace_period
            };
            let target = Target::new(target)?;
            let objects = match filename {
                Some(filename) => apply::named(&target, &filename)?,
                None => target::objects(&target, &objects)?,
            };
            get::delete(&target, &objects, grace, wait).await?;
        }
        Command::Logs { pod, container, follow, previous, tail, target } => {
            let flag = |on: bool| if on { "true" } else { "" };
            let tail = tail.map_or_else(String::new, |n| n.to_string());
            let query = client::encode(&[
                ("container", &container),
                ("follow", flag(follow)),
                ("previous", flag(previous)),
                ("tailLines", &tail),
            ]);
            get::logs(&Target::new(target)?, &pod, &query).await?;
        }
        Command::Exec { pod, container, command, target } => {
            return exec::exec(&Target::new(target)?, &pod, &container, &command).await;
        }
        Command::Wait { object, wanted, timeout, target } => {
            get::wait(&Target::new(target)?, &object, &wanted, timeout).await?;
        }
        Command::Token { verb: TokenVerb::Create { replicas, ttl, description, target } } => {
            let wanted = token::Wanted { for_replicas: replicas, ttl_seconds: ttl, description };
            token::create(&Target::new(target)?, &wanted).await?;
        }
        Command::Token { verb: TokenVerb::List { json, target } } => {
            token::list(&Target::new(target)?, json).await?;
        }
        Command::Token { verb: TokenVerb::Delete { id, target } } => {
            token::delete(&Target::new(target)?, &id).await?;
        }
        Command::Cluster { verb: ClusterVerb::Status { json, target } } => {
            cluster::status(&Target::new(target)?, json).await?;
        }
        Command::Cluster { verb: ClusterVerb::Certs { json, target } } => {
            certs::list(&Target::new(target)?, json).await?;
        }
        Command::Cluster { verb: ClusterVerb::EtcdEnv { data_dir } } => {
            print!("{}", etcd_env::etcd_env(&data_dir)?);
        }
        Command::Cluster { verb: ClusterVerb::TransferLeader { to, target } } => {
            let target = Target::new(target)?;
            let leader = client::admin::transfer_leader(&target.endpoints, to).await?;
            println!("replica {leader} leads");
        }
        Command::Cluster { verb: ClusterVerb::Backup { file, verify: true, target: _ } } => {
            println!("{}", files.verify_backup(&file).map_err(Failure::Refused)?);
        }
        Command::Cluster { verb: ClusterVerb::Backup { file, verify: false, target } } => {
            let target = Target::new(target)?;
            let begin = || files.begin_backup(&file);
            let keep = |backup: &mut _, piece: &[u8]| files.keep(backup, piece);
            let fetched = client::admin::backup(&target.endpoints, begin, keep).await;
            let backup = fetched.map_err(|failure| match failure {
                BackupFailure::Client(error) => Failure::Client(error),
                BackupFailure::Keeper(text) => Failure::Refused(text),
            })?;
            println!("{}", files.end_backup(backup).map_err(Failure::Refused)?);
        }
        Command::Cluster { verb: ClusterVerb::Restore { file, config, bump_revision } } => {
            let done = files.restore(&file, &config, bump_revision);
            println!("{}", done.map_err(Failure::Refused)?);
        }
        Command::Cluster { verb: ClusterVerb::Members { json, target } } => {
            members::list(&Target::new(target)?, json).await?;
        }
        Command::Cluster { verb: ClusterVerb::AddMember { peer_url, learner, target } } => {
            members::add(&Target::new(target)?, peer_url, learner).await?;
        }
        Command::Cluster { verb: ClusterVerb::RemoveMember { id, target } } => {
            members::remove(&Target::new(target)?, id).await?;
        }
        Command::Cluster { verb: ClusterVerb::PromoteMember { id, target } } => {
            members::promote(&Target::new(target)?, id).await?;
        }
        Command::Cluster {
            verb: ClusterVerb::ReplaceMember { old, peer_url, timeout, target },
        } => {
            let timeout = Duration::from_secs(timeout);
            members::replace(&Target::new(target)?, old, &peer_url, timeout).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn every_example_of_the_help_is_a_command() {
        let line = Line::command();
        line.clone().debug_assert();
        let helps = line.get_subcommands().filter_map(|verb| verb.get_after_help());
        let helps = helps.map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let examples: Vec<&str> =
            helps.lines().map(str::trim).filter(|text| text.starts_with("trireme ")).collect();
        assert!(examples.len() >= 10, "{helps}");
        for example in examples {
            let words = example.split(" | ").next().unwrap().split(' ');
            if let Err(error) = Line::try_parse_from(words) {
                panic!("{example}: {error}");
            }
        }
        for wrong in [
            "trireme diff pod/web",
            "trireme history",
            "trireme history pod/web --limit 0",
            "trireme explain-pending web -A",
        ] {
            assert!(Line::try_parse_from(wrong.split(' ')).is_err(), "{wrong}");
        }
    }
}
