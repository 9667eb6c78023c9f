//! What a benchmark prints: one JSON object, or a table.

use crate::{stages::Stage, stats::Summary};
use serde::Serialize;
use std::fmt;

/// One run against one system.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Which.
    pub system: String,
    /// Runs of the same number were made one right after the other.
    pub pair: usize,
    /// Requests answered a second; events, where events are counted.
    pub ops_per_s: f64,
    /// Half of the requests took at most so long.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1,000.
    pub p999_ms: f64,
    /// All of them.
    pub max_ms: f64,
    /// CPU time of all members together; none if they are elsewhere.
    pub server_cpu_s_per_10k: Option<f64>,
    /// Memory of the member that has most, at the end; none if they are elsewhere.
    pub rss_bytes: Option<u64>,
    /// CPU time of the load generator.
    pub client_cpu_us_per_op: f64,
    /// Where the members say that the time of puts went; empty if they do not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
    /// Requests that were refused, or not answered even after the run.
    pub errors: u64,
    /// How the first of them was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
}

/// The first system's figures over the second's, pair by pair.
#[derive(Debug, Clone, Serialize)]
pub struct Ratio {
    /// Above 1: more is done.
    pub ops_per_s: Summary,
    /// Below 1: it takes less long.
    pub p99_ms: Summary,
    /// Below 1: it costs less.
    pub cpu: Option<Summary>,
}

/// All runs of a workload.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Its name.
    pub workload: String,
    /// In the order in which they were made.
    pub runs: Vec<Run>,
    /// Where two systems were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Ratio>,
}

impl Report {
    /// Of runs against `systems`; compares them if they are two.
    #[must_use]
    pub fn new(workload: String, systems: &[String], runs: Vec<Run>) -> Self {
        let ratio = match systems {
            [ours, theirs] => Ratio::of(ours, theirs, &runs),
            _ => None,
        };
        Self { workload, runs, ratio }
    }
}

impl Ratio {
    fn of(ours: &str, theirs: &str, runs: &[Run]) -> Option<Self> {
        let pairs: Vec<(&Run, &Run)> = runs
            .iter()
            .filter(|run| run.system == ours)
            .filter_map(|run| {
                let same = |other: &&Run| other.system == theirs && other.pair == run.pair;
                Some((run, runs.iter().find(same)?))
            })
            .collect();
        let of = |figure: fn(&Run) -> Option<f64>| {
            let quotients = pairs.iter().filter_map(|(a, b)| Some(figure(a)? / figure(b)?));
            Summary::of(quotients.filter(|quotient| quotient.is_finite()))
        };
        Some(Self {
            ops_per_s: of(|run| Some(run.ops_per_s))?,
            p99_ms: of(|run| Some(run.p99_ms))?,
            cpu: of(|run| run.server_cpu_s_per_10k),
        })
    }
}

/// Mebibytes.
pub(crate) fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:10} {:>12} {:>9} {:>9} {:>9} {:>10} {:>9} {:>10} {:>7}",
            self.workload,
            "/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "CPU s/10k",
            "RSS MiB",
            "client µs",
            "refused"
        )?;
        for run in &self.runs {
            let cpu = run.server_cpu_s_per_10k.map_or("-".to_owned(), |cpu| format!("{cpu:.3}"));
            let rss = run.rss_bytes.map_or("-".to_owned(), |bytes| mib(bytes).to_string());
            writeln!(
                f,
                "{:10} {:12.0} {:9.2} {:9.2} {:9.2} {cpu:>10} {rss:>9} {:10.1} {:>7}",
                run.system,
                run.ops_per_s,
                run.p50_ms,
                run.p99_ms,
                run.p999_ms,
                run.client_cpu_us_per_op,
                run.errors
            )?;
        }
        for run in self.runs.iter().filter(|run| !run.stages.is_empty()) {
            write!(f, "{}, mean µs:", run.system)?;
            for Stage { stage, mean_us } in &run.stages {
                write!(f, " {stage} {mean_us:.0}")?;
            }
            writeln!(f)?;
        }
        if let Some(error) = self.runs.iter().find_map(|run| run.first_error.as_ref()) {
            writeln!(f, "refused: {error}")?;
        }
        if let Some(ratio) = &self.ratio {
            writeln!(f, "first over second, pair by pair: median (min to max)")?;
            let line = |what: &str, s: &Summary| {
                format!("  {what:10} {:.2} ({:.2} to {:.2})", s.median, s.min, s.max)
            };
            writeln!(f, "{}", line("/s", &ratio.ops_per_s))?;
            writeln!(f, "{}", line("p99", &ratio.p99_ms))?;
            if let Some(cpu) = &ratio.cpu {
                writeln!(f, "{}", line("CPU", cpu))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(system: &str, pair: usize, ops_per_s: f64, cpu: Option<f64>) -> Run {
        Run {
            system: system.to_owned(),
            pair,
            ops_per_s,
            p50_ms: 1.0,
            p99_ms: 10.0 * ops_per_s,
            p999_ms: 3.0,
            max_ms: 4.0,
            server_cpu_s_per_10k: cpu,
            rss_bytes: None,
            client_cpu_us_per_op: 5.0,
            errors: 0,
            first_error: None,
            stages: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_of_pairs_not_of_medians() {
        let names = ["a".to_owned(), "b".to_owned()];
        let runs = vec![
            run("a", 1, 10.0, Some(1.0)),
            run("b", 1, 5.0, Some(4.0)),
            run("b", 2, 100.0, Some(4.0)),
            run("a", 2, 400.0, Some(2.0)),
            run("a", 3, 30.0, Some(1.0)),
            run("b", 3, 10.0, Some(2.0)),
        ];
        let ratio = Report::new("put".to_owned(), &names, runs.clone()).ratio.unwrap();
        assert_eq!(ratio.ops_per_s, Summary { median: 3.0, min: 2.0, max: 4.0 });
        assert_eq!(ratio.cpu.unwrap(), Summary { median: 0.5, min: 0.25, max: 0.5 });
        let json = serde_json::to_value(Report::new("put".to_owned(), &names, runs)).unwrap();
        for path in ["/workload", "/runs/0/system", "/runs/0/ops_per_s", "/runs/0/p50_ms"]
            .into_iter()
            .chain(["/runs/0/p99_ms", "/runs/0/server_cpu_s_per_10k", "/runs/0/rss_bytes"])
            .chain(["/ratio/ops_per_s/median", "/ratio/p99_ms/min", "/ratio/cpu/max"])
        {
            assert!(json.pointer(path).is_some(), "{path} in {json}");
        }
    }

    #[test]
    fn one_system_has_no_ratio() {
        let report = Report::new("put".to_owned(), &["a".to_owned()], vec![run("a", 1, 1.0, None)]);
        assert!(report.ratio.is_none());
        assert!(serde_json::to_value(&report).unwrap().get("ratio").is_none());
        assert!(report.to_string().contains(" - "));
    }
}
