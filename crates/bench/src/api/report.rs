//! What was measured of an API, and how it is printed.

use crate::{histogram::Histogram, stats::millis};
use serde::Serialize;
use std::{collections::BTreeMap, fmt};

/// How long requests took, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// How many were counted.
    pub count: u64,
    /// Half of them took at most so long.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// All of them.
    pub max_ms: f64,
}

impl Latency {
    pub(super) fn of(all: &Histogram) -> Self {
        Self {
            count: all.count(),
            p50_ms: millis(all.quantile(500)),
            p99_ms: millis(all.quantile(990)),
            max_ms: millis(all.max()),
        }
    }
}

/// What a server's process used.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Process {
    /// Meanwhile.
    pub cpu_seconds: f64,
    /// The same by what was counted.
    pub cpu_us_per_request: f64,
    /// At the end, or the most that was seen.
    pub rss_bytes: u64,
}

/// Creates of Pods over so many connections.
#[derive(Debug, Clone, Serialize)]
pub struct CreateRun {
    /// Each with one request under way.
    pub connections: usize,
    /// Acknowledged.
    pub created_per_s: f64,
    /// Of these.
    pub latency: Latency,
    /// Answered by 429.
    pub refused: u64,
    /// Answered by any other failure, or not at all.
    pub errors: u64,
    /// How the first of these was.
    pub first_error: Option<String>,
    /// CPU time of the load generator.
    pub client_cpu_us_per_create: f64,
    /// By name.
    pub processes: BTreeMap<String, Process>,
}

/// A crowd of readers.
#[derive(Debug, Clone, Serialize)]
pub struct CrowdRun {
    /// Pods that there were.
    pub pods: usize,
    /// Connections that listed them.
    pub lists: usize,
    /// Connections that watched them.
    pub watches: usize,
    /// Seconds that were measured.
    pub seconds: f64,
    /// Small requests before there was a crowd.
    pub small_alone: Latency,
    /// Beside it.
    pub small: Latency,
    /// Small requests that failed or were refused.
    pub small_failed: u64,
    /// Whole lists.
    pub list: Latency,
    /// All lists together.
    pub list_bytes_per_s: f64,
    /// Lists that were refused by 429.
    pub lists_refused: u64,
    /// Lists that failed otherwise, or had not all Pods.
    pub lists_failed: u64,
    /// Changes of Pods that were acknowledged.
    pub changes_per_s: f64,
    /// Events that all watches got together.
    pub events_per_s: f64,
    /// Events that were missing at the end: changes by watches, less what came.
    pub events_missing: u64,
    /// Watches that ended early.
    pub watches_ended: u64,
    /// How the first failure was.
    pub first_error: Option<String>,
    /// By name; memory is the most that was seen, and what there was before the crowd.
    pub processes: BTreeMap<String, Process>,
    /// Resident bytes before the crowd came.
    pub rss_bytes_before: BTreeMap<String, u64>,
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct ApiReport {
    /// The endpoints.
    pub server: String,
    /// In the order in which they were made.
    pub creates: Vec<CreateRun>,
    /// If it was asked for.
    pub crowd: Option<CrowdRun>,
}

impl ApiReport {
    /// Whether everything was answered that should have been.
    #[must_use]
    pub fn held(&self) -> bool {
        let crowd = self.crowd.as_ref();
        self.creates.iter().all(|run| run.errors == 0)
            && crowd.is_none_or(|crowd| {
                crowd.lists_failed + crowd.watches_ended + crowd.events_missing + crowd.small_failed
                    == 0
            })
    }
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

impl fmt::Display for ApiReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.creates.is_empty() {
            writeln!(
                f,
                "{:>11} {:>10} {:>9} {:>9} {:>9}  {:>7}  {:>17} {:>10}",
                "connections",
                "creates/s",
                "p50 ms",
                "p99 ms",
                "max ms",
                "refused",
                "CPU µs a create",
                "RSS MiB"
            )?;
        }
        for run in &self.creates {
            let cpu: f64 = run.processes.values().map(|p| p.cpu_us_per_request).sum();
            let rss: Vec<String> =
                run.processes.values().map(|p| mib(p.rss_bytes).to_string()).collect();
            let Latency { p50_ms, p99_ms, max_ms, .. } = run.latency;
            writeln!(
                f,
                "{:>11} {:>10.0} {p50_ms:>9.2} {p99_ms:>9.2} {max_ms:>9.2}  {:>7}  {:>10.0} + {:>4.0} {:>10}",
                run.connections,
                run.created_per_s,
                run.refused,
                cpu,
                run.client_cpu_us_per_create,
                rss.join(" "),
            )?;
            if let Some(error) = &run.first_error {
                writeln!(f, "{:>11} {} failed, first: {error}", "", run.errors)?;
            }
        }
        match &self.crowd {
            Some(crowd) => write!(f, "{crowd}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for CrowdRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pods, lists, watches, seconds, .. } = self;
        writeln!(
            f,
            "{lists} lists of {pods} Pods and {watches} watches at once, {:.0} changes/s, {seconds:.0} s",
            self.changes_per_s
        )?;
        writeln!(f, "{:18} {:>8} {:>9} {:>9} {:>9}", "", "count", "p50 ms", "p99 ms", "max ms")?;
        for (what, latency) in [
            ("small, alone", self.small_alone),
            ("small, in the crowd", self.small),
            ("whole lists", self.list),
        ] {
            let Latency { count, p50_ms, p99_ms, max_ms } = latency;
            writeln!(f, "{what:19} {count:>7} {p50_ms:>9.1} {p99_ms:>9.1} {max_ms:>9.1}")?;
        }
        writeln!(
            f,
            "lists: {:.1}/s, {:.0} MiB/s; {} refused, {} failed",
            self.list.count as f64 / seconds,
            self.list_bytes_per_s / f64::from(1 << 20),
            self.lists_refused,
            self.lists_failed,
        )?;
        writeln!(
            f,
            "watches: {:.0} events/s; {} missing, {} watches ended early; small requests that failed: {}",
            self.events_per_s, self.events_missing, self.watches_ended, self.small_failed,
        )?;
        if let Some(error) = &self.first_error {
            writeln!(f, "first failure: {error}")?;
        }
        for (name, process) in &self.processes {
            let before = self.rss_bytes_before.get(name).copied().unwrap_or_default();
            writeln!(
                f,
                "{name:12} {:>6.1} CPU s, at most {:>4} MiB ({} before)",
                process.cpu_seconds,
                mib(process.rss_bytes),
                mib(before),
            )?;
        }
        Ok(())
    }
}
