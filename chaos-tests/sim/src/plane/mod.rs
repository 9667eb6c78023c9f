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
mod watcher;
mod witness;

use crate::{
    Failure, Millis, Report, logs,
    part::Part,
    patience::{self, TOOK_TOO_LONG},
    trace::{Detail, Trace},
};
use checkers::history::{History, Outcome, Record, Watch, WatchStep};
use scenario::Scenario;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use witness::WITNESS;

/// How large a plane is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Size {
    /// The numbers of the faults.
    pub(crate) faults: Vec<usize>,
    /// Milliseconds after which everything is healed.
    pub(crate) fire: Millis,
    pub(crate) clients: u64,
    pub(crate) watchers: u64,
    /// Names of what clients do.
    pub(crate) ops: Vec<String>,
}

/// The size of this part of the plane that a seed draws.
pub(crate) fn size(seed: u64, part: &Part) -> Size {
    let Scenario { faults, busy, clients, watchers, load, .. } = Scenario::part(seed, part);
    Size {
        faults: faults.iter().map(|fault| fault.number).collect(),
        fire: u64::try_from(busy.as_millis()).unwrap_or(Millis::MAX),
        clients,
        watchers,
        ops: load.weights.iter().map(|(op, _)| format!("{op:?}")).collect(),
    }
}

/// Names of everything that clients may do.
#[must_use]
pub fn ops() -> Vec<String> {
    load::Op::ALL.iter().map(|(op, _)| format!("{op:?}")).collect()
}

/// A part of the plane that a seed draws, in words.
#[must_use]
pub fn describe(seed: u64, part: &Part) -> String {
    Scenario::part(seed, part).to_string()
}

/// Runs the plane that a seed draws; `live` prints the trace as it comes.
#[must_use]
pub fn run_seed(seed: u64, detail: Detail, live: bool) -> Report {
    run_part(seed, &Part::default(), None, detail, live)
}

/// Runs a part of the plane that a seed draws, for so long of real time at most.
#[must_use]
pub fn run_part(
    seed: u64,
    part: &Part,
    limit: Option<Duration>,
    detail: Detail,
    live: bool,
) -> Report {
    judge(&Scenario::part(seed, part), limit, detail, live).0
}

/// As [`run_seed`], with what was seen.
#[must_use]
pub fn history_of(seed: u64) -> History {
    judge(&Scenario::draw(seed), None, Detail::Nothing, false).1
}

/// Runs a scenario on a thread of its own, for so long of real time at most, and holds it against what must be so.
fn judge(
    scenario: &Scenario,
    limit: Option<Duration>,
    detail: Detail,
    live: bool,
) -> (Report, History) {
    let trace = Trace::new(detail, live);
    let (scenario, so_far) = (scenario.clone(), trace.clone());
    let judged = patience::run_within(scenario.seed, limit, move || {
        let run::Ran { simulated, history, failures } = run::run(&scenario, &trace);
        logs::step_of(&Arc::from("a checker"));
        let given_up = failures.iter().any(|failure| failure.property == TOOK_TOO_LONG);
        let verdicts = if given_up { Vec::new() } else { checkers::check(&history) };
        let found = verdicts.into_iter().filter(|verdict| !verdict.held).map(|verdict| {
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
    });
    judged.unwrap_or_else(|failure| (Report::given_up(failure, &so_far), History::default()))
}

/// Requests that were answered, refused and of unknown outcome; changes that watches were told of.
fn count(history: &History) -> ([usize; 3], usize) {
    let (mut requests, mut watched) = ([0; 3], 0);
    let mut own = BTreeSet::new();
    let [answered, refused, unknown] = &mut requests;
    for record in &history.records {
        match record {
            Record::Operation(operation) => match operation.outcome {
                Outcome::Ok(_) => *answered += 1,
                Outcome::Failed { .. } => *refused += 1,
                Outcome::Unknown { .. } => *unknown += 1,
            },
            Record::Watch(Watch { stream, step, .. }) => match step {
                WatchStep::Opened(opened) if opened.client == WITNESS => {
                    own.insert(*stream);
                }
                WatchStep::Object(_) => watched += usize::from(!own.contains(stream)),
                WatchStep::Opened(_)
                | WatchStep::Events { .. }
                | WatchStep::Progress { .. }
                | WatchStep::Closed(_) => {}
            },
            Record::Replica(_) | Record::Runtime(_) | Record::Mark(_) => {}
        }
    }
    (requests, watched)
}

/// A failure that no history can show.
fn failure(property: &'static str, at: Millis, detail: String) -> Failure {
    Failure { property, detail, at }
}
