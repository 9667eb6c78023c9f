//! The whole plane: replicas with API server, scheduler and controllers, nodes with agents and runtimes, clients
//! and watchers; and what happens to them.
//!
//! A [`scenario::Scenario`] is drawn from a seed, [`run`] runs it, and what was seen is held against the
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

use crate::trace::Trace;
use checkers::history::History;
use scenario::Scenario;
use std::time::Duration;

/// What a run has come to.
#[derive(Debug)]
pub struct Outcome {
    /// Simulated time.
    pub took: Duration,
    /// What does not hold: the property, and how that was seen.
    pub violations: Vec<(String, String)>,
    /// What was seen.
    pub history: History,
}

/// Runs the plane that this seed draws.
#[must_use]
pub fn run_seed(seed: u64, trace: &Trace) -> Outcome {
    judge(&Scenario::draw(seed), trace)
}

/// The smallest plane, with the fewest faults, that breaks the same property as this seed's; in words. `tries`
/// bounds how many runs that may take.
#[must_use]
pub fn shrink_seed(seed: u64, property: &str, tries: u32) -> String {
    let small = shrink::shrink(Scenario::draw(seed), tries, |scenario| {
        let outcome = judge(scenario, &Trace::default());
        outcome.violations.iter().any(|(violated, _)| violated == property)
    });
    small.to_string()
}

fn judge(scenario: &Scenario, trace: &Trace) -> Outcome {
    let run::Report { took, history, violations } = run::run(scenario, trace);
    let mut violations: Vec<(String, String)> =
        violations.into_iter().map(|(property, text)| (property.to_owned(), text)).collect();
    for verdict in checkers::check(&history).into_iter().filter(|verdict| !verdict.held) {
        let all = verdict.violations.into_iter();
        violations.extend(all.map(|found| (verdict.property.to_owned(), found.text)));
    }
    Outcome { took, violations, history }
}
