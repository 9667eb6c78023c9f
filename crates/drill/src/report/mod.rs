//! What a drill says: to people, to machines, as a page and as a picture.

mod html;
mod plot;
mod text;

pub use html::{page, picture};

use crate::{chaos::ChaosRow, measure::Pods};
use bench::{Histogram, Spread};
use serde::Serialize;
use std::time::Duration;

/// Width of a column of the plots over time.
pub(crate) const BUCKET_MS: u64 = 50;

/// Whether one thing held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub property: String,
    /// Whether it did.
    pub held: bool,
    /// Rules of Kubernetes' semantics, sections of the raft paper, guarantees of etcd; none for what is a promise of
    /// the drill alone.
    pub sources: Vec<String>,
    /// Observations that could have contradicted it.
    pub examined: u64,
    /// What did, in words; the first few.
    pub violations: Vec<String>,
}

impl Check {
    /// A promise of the drill, which something may have broken.
    pub(crate) fn promise(property: impl Into<String>, examined: u64, broken: Vec<String>) -> Self {
        Self {
            property: property.into(),
            held: broken.is_empty(),
            sources: Vec::new(),
            examined,
            violations: broken,
        }
    }
}

/// Something that happened, in words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Since the scenario's beginning.
    pub at_ms: f64,
    /// What.
    pub text: String,
}

/// One fault and what it cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultReport {
    /// Its name in `drill list`.
    pub nemesis: String,
    /// What was done to whom.
    pub what: String,
    /// When it was injected, since the scenario's beginning.
    pub at_ms: f64,
    /// When it was taken back.
    pub healed_ms: f64,
    /// When all was whole again.
    pub whole_ms: f64,
    /// Longest time without an acknowledged write, anywhere.
    pub write_gap_ms: f64,
    /// The same for linearizable reads.
    pub read_gap_ms: f64,
    /// The same for serializable reads.
    pub stale_read_gap_ms: f64,
    /// Longest time after which a watch told of an acknowledged write.
    pub watch_gap_ms: f64,
    /// Longest time that a new Pod waited for a node.
    pub schedule_gap_ms: f64,
}

/// How long something took: milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half took no longer.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// How many took up to 2 to the power of the position microseconds, and more than half of that.
    pub histogram: Vec<u64>,
}

impl Latency {
    pub(crate) fn of(times: &Histogram, all: impl Iterator<Item = Duration>) -> Self {
        let mut histogram = Vec::new();
        for took in all {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
            let power = micros.next_power_of_two().trailing_zeros() as usize;
            if histogram.len() <= power {
                histogram.resize(power + 1, 0);
            }
            if let Some(count) = histogram.get_mut(power) {
                *count += 1;
            }
        }
        Self {
            p50_ms: millis(times.quantile(500)),
            p99_ms: millis(times.quantile(990)),
            max_ms: millis(times.max()),
            histogram,
        }
    }
}

/// What was done in each stretch of `BUCKET_MS`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Series {
    /// Width of a stretch.
    pub bucket_ms: u64,
    /// Writes that were acknowledged.
    pub writes: Vec<u64>,
    /// Linearizable reads that were answered.
    pub reads: Vec<u64>,
    /// Events that were delivered.
    pub events: Vec<u64>,
}

/// One scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScenarioReport {
    /// As in `drill list`.
    pub name: String,
    /// What is shown by it.
    pub says: String,
    /// Who was drilled: `trireme`, or `etcd` to compare.
    pub system: String,
    /// Whether everything did.
    pub held: bool,
    /// Each thing that had to hold.
    pub checks: Vec<Check>,
    /// The longest of all faults, as in [`FaultReport`].
    pub write_gap_ms: f64,
    /// The same.
    pub read_gap_ms: f64,
    /// The same.
    pub stale_read_gap_ms: f64,
    /// The same.
    pub watch_gap_ms: f64,
    /// The same.
    pub schedule_gap_ms: f64,
    /// How the gaps of the faults are spread.
    pub write_gaps_ms: Spread,
    /// What was injected.
    pub faults: Vec<FaultReport>,
    /// What happened.
    pub steps: Vec<Step>,
    /// Requests of keys and leases.
    pub operations: u64,
    /// Writes of keys that were acknowledged.
    pub acknowledged: u64,
    /// Linearizable reads that were answered.
    pub reads: u64,
    /// Serializable ones.
    pub stale_reads: u64,
    /// Requests whose outcome is not known.
    pub unknown: u64,
    /// Requests that were certainly not carried out.
    pub failed: u64,
    /// What the first of these was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    /// Events that watches delivered.
    pub events: u64,
    /// Watches that went on at another replica, or again at theirs.
    pub resumed: u64,
    /// Of writes.
    pub write_latency: Latency,
    /// Of linearizable reads.
    pub read_latency: Latency,
    /// From an acknowledgement to the event.
    pub watch_lag: Latency,
    /// Where there are Pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pods: Option<Pods>,
    /// For plots.
    pub series: Series,
}

/// A whole drill.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// One for each scenario, and with `--compare-etcd` one more behind it.
    pub scenarios: Vec<ScenarioReport>,
    /// Of `drill run chaos`: what each fault has come to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chaos: Vec<ChaosRow>,
    /// What could not be done here, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Of this program.
    pub version: String,
    /// The first of all random numbers.
    pub seed: u64,
    /// What it ran on.
    pub machine: String,
}

impl Report {
    /// Whether everything held. What is only compared with does not count.
    #[must_use]
    pub fn held(&self) -> bool {
        let mut ours = self.scenarios.iter().filter(|scenario| scenario.system == OURS).peekable();
        let chaos = self.chaos.iter().all(|row| row.held);
        ours.peek().is_some() && ours.all(|scenario| scenario.held) && chaos
    }
}

/// What reports call this system.
pub(crate) const OURS: &str = "trireme";

/// Milliseconds, rounded to a tenth.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

/// Cores and memory, in words.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = kib.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let gib = kib.unwrap_or_default().div_ceil(1 << 20);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {gib} GiB, Linux {}", kernel.trim())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn scenario(name: &str, held: bool) -> ScenarioReport {
        let fault = FaultReport {
            nemesis: "kill-leader".to_owned(),
            what: "SIGKILL to the leader (replica-2)".to_owned(),
            at_ms: 400.0,
            healed_ms: 900.0,
            whole_ms: 1200.0,
            write_gap_ms: 212.5,
            read_gap_ms: 190.0,
            stale_read_gap_ms: 21.0,
            watch_gap_ms: 230.0,
            schedule_gap_ms: 310.0,
        };
        ScenarioReport {
            name: name.to_owned(),
            says: "the leader <dies>".to_owned(),
            system: OURS.to_owned(),
            held,
            checks: vec![
                Check {
                    property: "every acknowledged write survives".to_owned(),
                    held,
                    sources: vec!["INV-5".to_owned()],
                    examined: 1200,
                    violations: if held {
                        Vec::new()
                    } else {
                        vec!["k00 = v7 was acknowledged & is gone".to_owned()]
                    },
                },
                Check::promise("writes go on within 3 s", 1, Vec::new()),
            ],
            write_gap_ms: 212.5,
            read_gap_ms: 190.0,
            stale_read_gap_ms: 21.0,
            watch_gap_ms: 230.0,
            schedule_gap_ms: 310.0,
            write_gaps_ms: Spread::of(&[Duration::from_micros(212_500)]),
            faults: vec![fault],
            steps: vec![Step { at_ms: 1.0, text: "3 replicas & 2 nodes serve".to_owned() }],
            operations: 2000,
            acknowledged: 1200,
            reads: 500,
            stale_reads: 100,
            unknown: 3,
            failed: 1,
            first_error: Some("Unavailable: no leader".to_owned()),
            events: 3600,
            resumed: 2,
            write_latency: Latency {
                p50_ms: 1.2,
                p99_ms: 8.0,
                max_ms: 213.0,
                histogram: vec![0, 0, 4, 900, 200, 1],
            },
            read_latency: Latency::default(),
            watch_lag: Latency::default(),
            pods: None,
            series: Series {
                bucket_ms: BUCKET_MS,
                writes: vec![8, 9, 0, 0, 7, 8],
                reads: vec![4, 4, 0, 1, 4, 4],
                events: vec![24, 20, 0, 3, 30, 24],
            },
        }
    }

    pub(crate) fn report(held: bool) -> Report {
        Report {
            scenarios: vec![scenario("leader-kill", held)],
            chaos: Vec::new(),
            left_out: Vec::new(),
            version: "0.1.0".to_owned(),
            seed: 7,
            machine: "2 cores".to_owned(),
        }
    }

    #[test]
    fn a_report_holds_only_if_all_of_ours_held_and_there_was_something() {
        assert!(report(true).held());
        assert!(!report(false).held());
        assert!(!Report { scenarios: Vec::new(), ..report(true) }.held());
        let theirs = ScenarioReport { system: "etcd".to_owned(), ..scenario("leader-kill", false) };
        let both = vec![scenario("leader-kill", true), theirs];
        assert!(Report { scenarios: both, ..report(true) }.held());
    }

    #[test]
    fn machines_are_told_by_the_names_that_are_promised() {
        let told = serde_json::to_value(report(false)).unwrap();
        let scenario = &told["scenarios"][0];
        assert_eq!(scenario["name"], "leader-kill");
        assert_eq!(scenario["held"], false);
        assert_eq!(scenario["write_gap_ms"], 212.5);
        assert_eq!(scenario["checks"][0]["property"], "every acknowledged write survives");
        assert_eq!(scenario["checks"][0]["held"], false);
    }

    #[test]
    fn a_time_is_counted_at_the_next_power_of_two() {
        let times = [1, 2, 3, 4, 1000, 1024, 1025].map(Duration::from_micros);
        let latency = Latency::of(&Histogram::default(), times.into_iter());
        assert_eq!(latency.histogram, [1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 2, 1]);
    }
}
