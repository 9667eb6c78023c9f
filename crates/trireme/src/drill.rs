//! `trireme drill`: flags in, a report out.

use crate::roles::{to_its_end, until_asked};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use drill::{Check, Ground, LiveCluster, Options, Report};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Drill {
    /// Name the scenarios, and the faults of `chaos`.
    List,
    /// Run a scenario, `all` of them, or `chaos`, on clusters that are made for it. Fails if something did not hold.
    Run(Box<Run>),
    /// Hold histories that `run --history` has kept against all properties again.
    Check {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// How to run it.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// A scenario as `drill list` names it, `all` or `chaos`.
    name: String,
    /// One JSON object on standard output; the steps go to standard error.
    #[arg(long)]
    json: bool,
    /// Write a page with plots, all in one file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a picture.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Run what etcd has, too, on the one that is installed here: both columns from one run.
    #[arg(long)]
    compare_etcd: bool,
    /// How often each fault; as the scenario says without it.
    #[arg(long)]
    rounds: Option<u32>,
    /// Requests a second to each replica.
    #[arg(long)]
    rate: Option<u32>,
    /// No Pods, only keys, watches and leases.
    #[arg(long)]
    no_pods: bool,
    /// Of all random choices; a fresh one without it.
    #[arg(long)]
    seed: Option<u64>,
    /// Below which clusters of the drill keep their files; the default one for temporary files without it.
    #[arg(long)]
    work_dir: Option<PathBuf>,
    /// Not a cluster of the drill's own but the one of `trireme dev` in this directory, with what it takes: replicas
    /// are killed, paused, restarted.
    #[arg(long, conflicts_with = "server", requires = "i_know_this_breaks_things")]
    data_dir: Option<PathBuf>,
    /// The same for a cluster anywhere, by the URL of a replica's API: only `hand-over`.
    #[arg(long, requires_all = ["kubeconfig", "i_know_this_breaks_things"])]
    server: Option<String>,
    /// Who you are there; must be an administrator.
    #[arg(long, requires = "server")]
    kubeconfig: Option<PathBuf>,
    /// A drill on a live cluster takes replicas away from everybody who uses it.
    #[arg(long)]
    i_know_this_breaks_things: bool,
    /// Keep what was seen, a file a run, for `drill check`.
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    /// Of `chaos`: how long, in minutes. Each fault is alone once in any case.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Of `chaos`: these faults only.
    #[arg(long, value_delimiter = ',')]
    nemesis: Vec<String>,
    /// Of `chaos`: another version of this program, to upgrade from and to go back to.
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
}

/// Before there is a second thread.
///
/// # Errors
/// Something cannot be drilled at all.
pub(crate) fn run(what: Drill) -> anyhow::Result<ExitCode> {
    match what {
        Drill::List => {
            say(&drill::list());
            Ok(ExitCode::SUCCESS)
        }
        Drill::Check { files, json } => check(&files, json),
        Drill::Run(run) => {
            // A live cluster is where it is.
            let ground = if run.is_live() {
                Ground::Shared
            } else {
                drill::settle().context("a place of its own for the drill")?
            };
            to_its_end(until_asked(false, |stop| async move { run.play(ground, stop).await }))
        }
    }
}

impl Run {
    async fn play(
        self,
        ground: Ground,
        stop: tokio_util::sync::CancellationToken,
    ) -> anyhow::Result<ExitCode> {
        let options = Options {
            ground,
            data_dir: self.work_dir.clone(),
            live: self.live().await?,
            seed: self.seed.unwrap_or_else(bench::fresh_seed),
            rounds: self.rounds,
            rate: self.rate,
            pods: !self.no_pods,
            previous: self.previous.clone(),
            compare_etcd: self.compare_etcd,
            history: self.history.clone(),
        };
        let json = self.json;
        let mut told =
            move |line: String| if json { note(&line) } else { say(&format!("{line}\n")) };
        if let Some(limits) = ground.limits().filter(|_| options.live.is_none()) {
            told(limits.to_owned());
        }
        let report = if self.name == "chaos" {
            let time = Duration::try_from_secs_f64(self.minutes * 60.0).context("--minutes")?;
            Box::pin(drill::chaos(time, &self.nemesis, &options, &stop, &mut told)).await?
        } else {
            Box::pin(drill::drill(&self.name, &options, &stop, &mut told)).await?
        };
        self.tell(&report)?;
        Ok(code(report.held()))
    }

    fn is_live(&self) -> bool {
        self.data_dir.is_some() || self.server.is_some()
    }

    /// The cluster that is not the drill's own, if one is named.
    async fn live(&self) -> anyhow::Result<Option<LiveCluster>> {
        let lines = |path: PathBuf| -> anyhow::Result<Vec<String>> {
            let text = fs::read_to_string(&path);
            let text = text.with_context(|| format!("read {}", path.display()))?;
            Ok(text.lines().map(str::to_owned).collect())
        };
        let access = |file: &Path| cli::endpoints(file).map_err(|why| anyhow::anyhow!(why));
        if let Some(dir) = &self.data_dir {
            let endpoints = access(&dir.join("kubeconfig"))?.at(lines(dir.join("endpoints"))?);
            let etcd_urls = lines(dir.join("etcd-endpoints"))?;
            let ids = (1..).take(etcd_urls.len()).collect();
            return Ok(Some(LiveCluster { endpoints, etcd_urls, ids, dir: Some(dir.clone()) }));
        }
        let (Some(server), Some(kubeconfig)) = (&self.server, &self.kubeconfig) else {
            return Ok(None);
        };
        let first = access(kubeconfig)?.at(vec![server.clone()]);
        Ok(Some(LiveCluster::of_member(&first).await?))
    }

    fn tell(&self, report: &Report) -> anyhow::Result<()> {
        if self.json {
            let text = serde_json::to_string(report).context("write the report")?;
            say(&format!("{text}\n"));
        } else {
            say(&format!("\n{report}\n"));
        }
        for (file, text) in
            [(&self.html, drill::page as fn(&Report) -> String), (&self.svg, drill::picture)]
        {
            if let Some(file) = file {
                let written = fs::write(file, text(report));
                written.with_context(|| format!("write {}", file.display()))?;
            }
        }
        Ok(())
    }
}

fn check(files: &[PathBuf], json: bool) -> anyhow::Result<ExitCode> {
    let mut held = true;
    let mut all: Vec<serde_json::Value> = Vec::new();
    for file in files {
        let checks = drill::check_file(file)?;
        let this = !checks.is_empty() && checks.iter().all(|check| check.held);
        held &= this;
        if json {
            let name = file.display().to_string();
            all.push(serde_json::json!({"name": name, "held": this, "checks": checks}));
        } else {
            say(&format!("{}\n{}", file.display(), lines(&checks)));
        }
    }
    if json {
        say(&format!("{}\n", serde_json::json!({"scenarios": all})));
    }
    Ok(code(held))
}

fn lines(checks: &[Check]) -> String {
    checks.iter().map(|check| format!("  {check}\n")).collect()
}

fn code(held: bool) -> ExitCode {
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "a command line's output")]
fn say(text: &str) {
    print!("{text}");
}

#[expect(clippy::print_stderr, reason = "what is said beside the answer")]
fn note(line: &str) {
    eprintln!("{line}");
}
