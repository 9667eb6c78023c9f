//! `trireme drill`: a cluster under load, faults into it, and a verdict that a machine has checked.
//!
//! [`settle`] first, while the process has one thread; then [`drill`], [`chaos`] or [`check_file`].

mod chaos;
mod cluster;
mod measure;
mod nemesis;
mod place;
mod record;
mod report;
mod run;
mod scenario;
mod verdict;
mod workload;

pub use chaos::ChaosRow;
pub use cluster::LiveCluster;
pub use place::{Ground, settle};
pub use report::{
    Check, FaultReport, Latency, Report, ScenarioReport, Series, Step, page, picture,
};
pub use scenario::list;

use crate::{
    cluster::{Cluster, Shape},
    nemesis::{Live, Means, Nemesis},
    report::OURS,
    run::Plan,
    scenario::{SCENARIOS, Scenario},
    workload::Load,
};
use anyhow::{Context as _, bail};
use futures::FutureExt as _;
use rand::{SeedableRng as _, rngs::StdRng};
use std::{
    any::Any,
    fs::{self, File},
    io::BufReader,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How to drill.
#[derive(Debug, Clone)]
pub struct Options {
    /// What [`settle`] said.
    pub ground: Ground,
    /// Below which clusters have their directories; the system's for temporary files if none.
    pub data_dir: Option<PathBuf>,
    /// Of all random choices.
    pub seed: u64,
    /// How often each fault of a scenario; as the scenario says if none.
    pub rounds: Option<u32>,
    /// Requests a second to each replica.
    pub rate: Option<u32>,
    /// Whether Pods are run.
    pub pods: bool,
    /// Another version of the program.
    pub previous: Option<PathBuf>,
    /// Not a cluster of its own but this one, which others use: with what it takes, in a namespace and under keys of
    /// its own, which are removed afterwards.
    pub live: Option<LiveCluster>,
    /// Run what can be compared on etcd, too.
    pub compare_etcd: bool,
    /// A directory for histories, a file a scenario, as [`check_file`] reads them.
    pub history: Option<PathBuf>,
}

impl Options {
    fn means(&self) -> Means {
        let live = self.live.as_ref().map(|live| match live.dir {
            Some(_) => Live::Local,
            None => Live::Remote,
        });
        Means { ground: Some(self.ground), previous: self.previous.clone(), live }
    }

    fn load(&self, run: u64) -> Load {
        let load = Load { run, ..Load::default() };
        let load = Load { rate: self.rate.unwrap_or(load.rate), ..load };
        if self.pods { load } else { Load { pod_interval: None, steady_pods: 0, ..load } }
    }

    fn keep(&self, name: &str) -> anyhow::Result<Option<PathBuf>> {
        let Some(dir) = &self.history else { return Ok(None) };
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Some(dir.join(format!("{name}.history"))))
    }

    fn directory(&self) -> anyhow::Result<tempfile::TempDir> {
        let below = self.data_dir.clone().unwrap_or_else(std::env::temp_dir);
        fs::create_dir_all(&below).with_context(|| format!("create {}", below.display()))?;
        tempfile::Builder::new()
            .prefix("trireme-drill-")
            .tempdir_in(&below)
            .with_context(|| format!("make a directory in {}", below.display()))
    }

    fn report(&self) -> Report {
        Report {
            scenarios: Vec::new(),
            chaos: Vec::new(),
            left_out: match &self.live {
                Some(_) => Vec::new(),
                None => self.ground.limits().map(str::to_owned).into_iter().collect(),
            },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: self.seed,
            machine: report::machine(),
        }
    }
}

/// Runs a scenario, or `all`, each on a cluster of its own.
///
/// # Errors
/// There is no such scenario; a cluster does not start, or cannot be broken; `stop`. That something did not hold is
/// in the report.
pub async fn drill(
    name: &str,
    options: &Options,
    stop: &CancellationToken,
    say: &mut (dyn FnMut(String) + Send),
) -> anyhow::Result<Report> {
    let chosen: Vec<&Scenario> = match scenario::named(name) {
        Some(scenario) => vec![scenario],
        None if name == "all" => SCENARIOS.iter().collect(),
        None => bail!("no scenario is called {name:?}: `trireme drill list` names them"),
    };
    let mut report = options.report();
    for scenario in chosen {
        let means = options.means();
        let missing = |fault: &&Nemesis| means.missing(**fault).is_some();
        if scenario.faults.iter().all(|fault| missing(&fault)) {
            let needs = scenario.faults.first().and_then(|fault| means.missing(*fault));
            report.left_out.push(format!("{}: {}", scenario.name, needs.unwrap_or_default()));
            continue;
        }
        let faults = scenario.faults.iter().filter(|fault| !missing(fault)).copied();
        let rounds = options.rounds.unwrap_or(scenario.rounds) as usize;
        let plan = Plan {
            name: scenario.name.to_owned(),
            says: scenario.says.to_owned(),
            system: OURS,
            faults: faults.collect::<Vec<_>>().repeat(rounds),
            overlap: false,
            write_gap_max: scenario.write_gap_max,
            pods_stay: scenario.pods_stay,
            load: options.load(1),
            seed: options.seed,
            node_silence: scenario.shape().node_silence,
            means: &means,
            keep: options.keep(scenario.name)?,
        };
        let seen = alone(&plan, Some(&scenario.shape()), options, stop, say).await;
        report.scenarios.push(or_broken(seen, &plan, stop, say)?);
        // What etcd has, too.
        let faults = plan.faults.iter().filter(|fault| fault.is_of_any_store()).copied();
        let faults: Vec<Nemesis> = faults.collect();
        if options.compare_etcd && !faults.is_empty() {
            let load = Load { pod_interval: None, steady_pods: 0, ..plan.load };
            let keep = options.keep(&format!("{}-etcd", scenario.name))?;
            let plan = Plan { system: "etcd", faults, load, pods_stay: false, keep, ..plan };
            let seen = alone(&plan, None, options, stop, say).await;
            report.scenarios.push(or_broken(seen, &plan, stop, say)?);
        }
    }
    Ok(report)
}

/// A scenario that could not be run to its end, through no wish of the user's, is one that did not hold: the others can
/// still be run.
fn or_broken(
    seen: anyhow::Result<ScenarioReport>,
    plan: &Plan<'_>,
    stop: &CancellationToken,
    say: &mut (dyn FnMut(String) + Send),
) -> anyhow::Result<ScenarioReport> {
    match seen {
        Ok(seen) => Ok(seen),
        Err(error) if stop.is_cancelled() => Err(error),
        Err(error) => {
            say(format!("{}: {error:#}", plan.name));
            Ok(run::broken(plan, format!("{error:#}")))
        }
    }
}

/// A scenario on a cluster of its own; on etcd without a shape.
async fn alone(
    plan: &Plan<'_>,
    shape: Option<&Shape>,
    options: &Options,
    stop: &CancellationToken,
    say: &mut (dyn FnMut(String) + Send),
) -> anyhow::Result<ScenarioReport> {
    say(format!("{} ({}): {}", plan.name, plan.system, plan.says));
    let mut random = StdRng::seed_from_u64(options.seed);
    let seen = on_cluster(options, shape, stop, async |cluster| {
        Box::pin(run::run(plan, cluster, &mut random, say)).await
    });
    let (mut seen, left) = Box::pin(seen).await.with_context(|| plan.name.clone())?;
    seen.checks.push(Check::promise("nothing is left on this machine", 1, left));
    seen.held = seen.checks.iter().all(|check| check.held);
    Ok(seen)
}

/// Every fault alone and then mixed, for so long: on one cluster, or on another one after a run that could not be
/// finished.
///
/// # Errors
/// As [`drill`]; there is no fault of such a name.
pub async fn chaos(
    time: Duration,
    nemeses: &[String],
    options: &Options,
    stop: &CancellationToken,
    say: &mut (dyn FnMut(String) + Send),
) -> anyhow::Result<Report> {
    let mut report = options.report();
    let chosen = chaos::chosen(nemeses, &options.means(), &mut report.left_out)?;
    let shape = chaos::shape(&chosen, options);
    let mut so_far = chaos::Progress::new(time, &chosen, options.seed);
    loop {
        let seen = on_cluster(options, Some(&shape), stop, async |cluster| {
            chaos::run(&mut so_far, &chosen, &shape, options, cluster, say).await
        });
        let (over, left) = seen.await?;
        so_far.ended(left);
        if over {
            break;
        }
    }
    (report.scenarios, report.chaos) = so_far.finish();
    Ok(report)
}

/// Does something with a cluster that is made for it and ends with it, however that goes; and what is left of it all
/// the same.
async fn on_cluster<T>(
    options: &Options,
    shape: Option<&Shape>,
    stop: &CancellationToken,
    work: impl AsyncFnOnce(&mut Cluster) -> anyhow::Result<T>,
) -> anyhow::Result<(T, Vec<String>)> {
    let dir = options.directory()?;
    let start = async {
        match (&options.live, shape) {
            (Some(live), _) => Ok(Cluster::live(live.clone())),
            (None, Some(shape)) => Cluster::start(dir.path(), options.ground, shape).await,
            (None, None) => Cluster::start_etcd(dir.path(), options.ground).await,
        }
    };
    let started = stop.run_until_cancelled(start);
    let mut cluster = Box::pin(started).await.context("interrupted")??;
    let worked = AssertUnwindSafe(work(&mut cluster)).catch_unwind();
    // Dropping the work ends the load; the cluster is ended below in any case.
    let worked = Box::pin(stop.run_until_cancelled(worked)).await;
    let ended = Box::pin(cluster.end()).await;
    if let Some(live) = &options.live {
        let prefix = run::prefix(options.seed);
        workload::remove_all(&live.etcd_urls, &live.endpoints, &prefix).await?;
    }
    let left = place::left_behind(dir.path());
    let done = match worked {
        None => bail!("interrupted"),
        Some(Err(panic)) => bail!("the drill itself failed: {}", words(&*panic)),
        Some(Ok(done)) => done?,
    };
    ended.context("end the cluster")?;
    Ok((done, left))
}

/// The words of a panic.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}

/// What the properties say about a history that was kept.
///
/// # Errors
/// It cannot be read.
pub fn check_file(path: &Path) -> anyhow::Result<Vec<Check>> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let history = checkers::history::read_lines(BufReader::new(file))
        .with_context(|| format!("read {}", path.display()))?;
    Ok(verdict::of_history(&history))
}
