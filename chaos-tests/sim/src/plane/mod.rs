//! The whole plane: replicas with API server, scheduler and controllers, nodes with agents and runtimes, clients
//! and watchers; and what happens to them.
//!
//! A `scenario::Scenario` is drawn from a seed, `run` runs it, and what was seen is held against the
//! properties of package `checkers`. What no history can show (a process that panics, replicas that differ in the
//! end) is found on the way.

mod auditor;
mod caller;
mod load;
mod machines;
mod recorder;
mod run;
mod scenario;
mod settled;
mod shrink;
mod watcher;

use crate::{
    Failure, Millis, Report,
    trace::{Detail, Trace},
};
use checkers::history::{History, Outcome, Record, WatchStep};
use scenario::Scenario;
use std::time::Duration;
use tokio::time::Instant;

/// The plane that a seed draws, in words.
#[must_use]
pub fn describe(seed: u64) -> String {
    Scenario::draw(seed).to_string()
}

/// Runs the plane that a seed draws; `live` prints the trace as it comes.
#[must_use]
pub fn run_seed(seed: u64, detail: Detail, live: bool) -> Report {
    judge(&Scenario::draw(seed), detail, live).0
}

/// As [`run_seed`], with what was seen.
#[must_use]
pub fn history_of(seed: u64) -> History {
    judge(&Scenario::draw(seed), Detail::Nothing, false).1
}

/// The smallest plane found in time that breaks the same property, in words, and how it does.
#[must_use]
pub fn shrink_seed(seed: u64, failure: &Failure, time: Duration) -> (String, Failure) {
    let begun = Instant::now();
    let mut last = failure.clone();
    let small = shrink::shrink(Scenario::draw(seed), |scenario| {
        if begun.elapsed() >= time {
            return None;
        }
        let found = judge(scenario, Detail::Nothing, false).0.failure;
        let fails = found.filter(|found| found.property == failure.property);
        let again = fails.is_some();
        last = fails.unwrap_or_else(|| last.clone());
        Some(again)
    });
    (small.to_string(), last)
}

fn judge(scenario: &Scenario, detail: Detail, live: bool) -> (Report, History) {
    let trace = Trace::new(detail, live);
    let run::Ran { simulated, history, failures } = run::run(scenario, &trace);
    let verdicts = checkers::check(&history).into_iter().filter(|verdict| !verdict.held);
    let found = verdicts.map(|verdict| {
        let first = verdict.violations.into_iter().next();
        let (at, detail) = first.map_or((0, String::new()), |first| (first.at_ns, first.text));
        Failure { property: verdict.property, detail, at: at / 1_000_000 }
    });
    let failure = failures.into_iter().chain(found).min_by_key(|failure| failure.at);
    if let Some(failure) = &failure {
        trace.event(simulated, "world", format_args!("FAILED: {failure}"));
    }
    let (requests, watched) = count(&history);
    (Report { simulated, failure, trace: trace.text(), requests, watched }, history)
}

/// Requests that were answered, refused and of unknown outcome; changes that watches were told of.
fn count(history: &History) -> ([usize; 3], usize) {
    let (mut requests, mut watched) = ([0; 3], 0);
    let [answered, refused, unknown] = &mut requests;
    for record in &history.records {
        match record {
            Record::Operation(operation) => match operation.outcome {
                Outcome::Ok(_) => *answered += 1,
                Outcome::Failed { .. } => *refused += 1,
                Outcome::Unknown { .. } => *unknown += 1,
            },
            Record::Watch(watch) => {
                watched += usize::from(matches!(watch.step, WatchStep::Object(_)))
            }
            Record::Replica(_) | Record::Runtime(_) | Record::Mark(_) => {}
        }
    }
    (requests, watched)
}

/// A failure that no history can show.
fn failure(property: &'static str, at: Millis, detail: String) -> Failure {
    Failure { property, detail, at }
}
