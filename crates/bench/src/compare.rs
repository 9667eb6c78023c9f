//! Systems beside each other on the same disk, measured in turn.

use crate::{
    cluster::{Cluster, System},
    measure::{Load, Target, Workload, measure, prepare},
    report::Report,
};
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What is measured: members that this process starts, or that somebody else did.
#[derive(Debug, Clone)]
pub enum Subject {
    /// Three members of this system.
    Start(System),
    /// Those that are there.
    Given(Target),
}

/// A directory for the members of one benchmark, which goes with it.
///
/// # Errors
/// It cannot be made.
pub(crate) fn directory(below: Option<&Path>) -> anyhow::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let dir = match below {
        Some(below) => {
            std::fs::create_dir_all(below)
                .with_context(|| format!("create {}", below.display()))?;
            builder.prefix("trireme-bench-").tempdir_in(below)
        }
        None => builder.prefix("trireme-bench-").tempdir(),
    };
    dir.context("make a directory for the members")
}

/// Names that tell two of the same apart.
pub(crate) fn distinct(mut systems: Vec<System>) -> Vec<System> {
    for index in 1..systems.len() {
        let (before, rest) = systems.split_at_mut(index);
        if let Some(system) = rest.first_mut() {
            let same = before.iter().filter(|other| other.program == system.program);
            let same = same.filter(|other| other.arguments == system.arguments).count();
            if same > 0 {
                system.name = format!("{}-{}", system.name, same + 1);
            }
        }
    }
    systems
}

/// Runs a workload `runs` times against each of the subjects in turn: never two at once, and each is as
/// often the first of a pair as the other.
///
/// # Errors
/// As [`measure`]; a system does not start. What was started has ended then, too.
pub async fn compare(
    name: &str,
    subjects: Vec<Subject>,
    workload: &Workload,
    load: &Load,
    runs: usize,
    data_dir: Option<PathBuf>,
    mut say: impl FnMut(String),
) -> anyhow::Result<Report> {
    // Outlives the members.
    let dir = directory(data_dir.as_deref())?;
    let mut clusters = Vec::new();
    let mut targets = Vec::new();
    let systems = subjects.iter().filter_map(|subject| match subject {
        Subject::Start(system) => Some(system.clone()),
        Subject::Given(_) => None,
    });
    let mut systems = distinct(systems.collect()).into_iter();
    for subject in subjects {
        match subject {
            Subject::Given(target) => targets.push(target),
            Subject::Start(_) => {
                let system = systems.next().context("a system for each subject")?;
                let below = dir.path().join(&system.name);
                let cluster = Box::pin(Cluster::start(system, &below, None)).await?;
                let system = cluster.name().to_owned();
                let (endpoints, pids) = (cluster.endpoints(), cluster.pids());
                targets.push(Target { system, endpoints, pids });
                clusters.push(cluster);
            }
        }
    }
    for target in &targets {
        prepare(workload, &target.endpoints).await.with_context(|| target.system.clone())?;
    }
    let mut all = Vec::new();
    for pair in 1..=runs {
        let mut order: Vec<&Target> = targets.iter().collect();
        if pair % 2 == 0 {
            order.reverse();
        }
        for target in order {
            let mut run = measure(workload, load, target).await?;
            run.pair = pair;
            say(format!(
                "{name} {pair}/{runs} {}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
                run.system, run.ops_per_s, run.p50_ms, run.p99_ms
            ));
            all.push(run);
        }
    }
    for mut cluster in clusters {
        cluster.stop().await?;
    }
    let names: Vec<String> = targets.iter().map(|target| target.system.clone()).collect();
    Ok(Report::new(name.to_owned(), &names, all))
}
