//! What held: the checkers' properties over a history, and the drill's own promises over what it measured.

use crate::{
    measure::{Seen, Window, longest_bind},
    report::{Check, millis},
    workload::Board,
};
use checkers::{check, history::History, properties};
use std::time::Duration;

/// Violations that a report names.
const NAMED: usize = 5;
/// A watch of all keys may be late by so long: it finds out that its replica is gone, and goes on at another.
const WATCH_LATE_MAX: Duration = Duration::from_secs(5);
/// A new Pod gets a node within so long while replicas come and go.
const BIND_MAX: Duration = Duration::from_secs(10);

/// What every property of the checkers says about a history. Those that nothing was looked at for are left out.
pub(crate) fn of_history(history: &History) -> Vec<Check> {
    let verdicts = check(history);
    let looked_at = verdicts.into_iter().filter(|verdict| verdict.examined > 0 || !verdict.held);
    looked_at
        .map(|verdict| {
            let property = properties::ALL.iter().find(|p| p.name == verdict.property);
            let sources = property.map(|property| property.sources).unwrap_or_default();
            let named = verdict.violations.iter().take(NAMED);
            let mut violations: Vec<String> = named
                .map(|violation| {
                    let at = millis(Duration::from_nanos(violation.at_ns)) / 1e3;
                    format!("{at:.3} s: {}", violation.text)
                })
                .collect();
            let more = verdict.violations_count.saturating_sub(violations.len() as u64);
            if more > 0 {
                violations.push(format!("and {more} more"));
            }
            Check {
                property: verdict.property.to_owned(),
                held: verdict.held,
                sources: sources.iter().map(|source| (*source).to_owned()).collect(),
                examined: verdict.examined,
                violations,
            }
        })
        .collect()
}

/// What was seen of one fault, for the promises.
#[derive(Debug, Clone)]
pub(crate) struct FaultSeen {
    pub(crate) nemesis: &'static str,
    pub(crate) what: String,
    /// The node that was hit.
    pub(crate) node: Option<String>,
    /// From the injection until all was whole again.
    pub(crate) window: Window,
    pub(crate) healed_ns: u64,
    /// Why it did not go as it should; nothing if it did.
    pub(crate) broken: Vec<(&'static str, String)>,
    /// What was looked at beside: a promise, and how often it could have been broken.
    pub(crate) kept: Vec<(&'static str, u64)>,
}

/// What is promised of a scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promises {
    /// How long nobody's write may be acknowledged.
    pub(crate) write_gap_max: Option<Duration>,
    /// Whether the same Pods must run all the time.
    pub(crate) pods_stay: bool,
    /// Whether there are Pods.
    pub(crate) has_pods: bool,
    /// Whether the API can tell of them: not while nobody leads for as long as the drill likes.
    pub(crate) always_leads: bool,
}

/// Whether what was measured is what is promised.
pub(crate) fn of_measures(
    seen: &Seen,
    board: &Board,
    faults: &[FaultSeen],
    promises: Promises,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut promise = |what: String, longest: &dyn Fn(Window) -> Duration, most: Duration| {
        let broken = faults.iter().filter_map(|fault| {
            let took = longest(fault.window);
            let late = took > most;
            late.then(|| format!("{:.0} ms: {}", millis(took), fault.what))
        });
        checks.push(Check::promise(what, faults.len() as u64, broken.take(NAMED).collect()));
    };
    if let Some(most) = promises.write_gap_max {
        let within = format!("within {} s", most.as_secs());
        let writes = |window| seen.writes.longest_gap(window);
        promise(format!("writes go on {within}"), &writes, most);
        let reads = |window| seen.reads.longest_gap(window);
        promise(format!("linearizable reads go on {within}"), &reads, most);
    }
    if promises.always_leads {
        let within = format!("within {} s", WATCH_LATE_MAX.as_secs());
        let lag = |window| seen.longest_lag(window);
        promise(format!("watches tell of every write {within}"), &lag, WATCH_LATE_MAX);
        if promises.has_pods {
            let within = format!("within {} s", BIND_MAX.as_secs());
            let bind = |window| longest_bind(board, window);
            promise(format!("new Pods get a node {within}"), &bind, BIND_MAX);
        }
    }
    if promises.has_pods && promises.pods_stay {
        let steady = board.iter().filter(|(_, seen)| seen.steady);
        let broken = steady.clone().filter_map(|(name, seen)| {
            let why = match (seen.running_ns, seen.restarts, seen.evicted_ns) {
                (None, _, _) => "never ran".to_owned(),
                (_, restarts, _) if restarts > 0 => format!("was restarted {restarts} times"),
                (_, _, Some(_)) => "was evicted".to_owned(),
                _ => return None,
            };
            Some(format!("{name} {why}"))
        });
        let what = "running Pods are left alone".to_owned();
        checks.push(Check::promise(what, steady.clone().count() as u64, broken.collect()));
    }
    // In the order in which they first came up.
    let mut others: Vec<(&str, u64)> = Vec::new();
    for (name, times) in faults.iter().flat_map(|fault| &fault.kept) {
        match others.iter_mut().find(|(known, _)| known == name) {
            Some((_, count)) => *count += times,
            None => others.push((name, *times)),
        }
    }
    for (name, times) in others {
        let broken = faults.iter().flat_map(|fault| &fault.broken);
        let broken = broken.filter(|(of, _)| *of == name).map(|(_, why)| why.clone());
        checks.push(Check::promise(name, times, broken.collect()));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::PodSeen;

    fn fault(broken: Vec<(&'static str, String)>) -> FaultSeen {
        FaultSeen {
            nemesis: "kill-leader",
            what: "SIGKILL to the leader".to_owned(),
            node: None,
            window: Window { from_ns: 0, until_ns: 4_000_000_000 },
            healed_ns: 1,
            broken,
            kept: vec![("all is whole again after each fault", 1)],
        }
    }

    const PROMISES: Promises = Promises {
        write_gap_max: Some(Duration::from_secs(3)),
        pods_stay: true,
        has_pods: true,
        always_leads: true,
    };

    #[test]
    fn a_promise_that_was_not_kept_is_named_with_what_broke_it() {
        let why =
            vec![("all is whole again after each fault", "replica-2 does not serve".to_owned())];
        let restarted =
            PodSeen { steady: true, running_ns: Some(1), restarts: 2, ..PodSeen::default() };
        let board: Board = [("steady-1".to_owned(), restarted)].into();
        // Nothing was acknowledged for four seconds.
        let checks = of_measures(&Seen::default(), &board, &[fault(why)], PROMISES);
        let broken: Vec<&str> =
            checks.iter().filter(|c| !c.held).map(|c| c.property.as_str()).collect();
        assert_eq!(
            broken,
            [
                "writes go on within 3 s",
                "linearizable reads go on within 3 s",
                "running Pods are left alone",
                "all is whole again after each fault",
            ]
        );
        assert!(checks.iter().any(|c| c.violations == ["steady-1 was restarted 2 times"]));
    }

    #[test]
    fn what_is_not_promised_is_not_asked_for() {
        let promises = Promises {
            write_gap_max: None,
            pods_stay: false,
            has_pods: false,
            always_leads: false,
        };
        let checks = of_measures(&Seen::default(), &Board::new(), &[fault(Vec::new())], promises);
        assert_eq!(checks.len(), 1);
        assert!(checks.iter().all(|check| check.held));
    }
}
