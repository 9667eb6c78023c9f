//! How long what was not to be had, out of what was seen: functions over records.

use crate::workload::Board;
use bench::{Histogram, Spread};
use checkers::history::{Body, Call, Operation, Outcome, Record, Step, WatchStep};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// A stretch of a run: from a fault until all was whole again. Nanoseconds since the run's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from_ns: u64,
    pub(crate) until_ns: u64,
}

impl Window {
    fn contains(&self, at_ns: u64) -> bool {
        (self.from_ns..=self.until_ns).contains(&at_ns)
    }
}

/// When requests of one sort succeeded and how long each took, in the order of their answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// Answered, and took; nanoseconds.
    all: Vec<(u64, u64)>,
}

impl Answers {
    fn of<'r>(operations: impl Iterator<Item = &'r Operation>) -> Self {
        let ok = operations.filter(|o| matches!(o.outcome, Outcome::Ok(_)));
        let mut all: Vec<(u64, u64)> =
            ok.map(|o| (o.answered_ns, o.answered_ns.saturating_sub(o.invoked_ns))).collect();
        all.sort_unstable();
        Self { all }
    }

    pub(crate) fn count(&self) -> u64 {
        self.all.len() as u64
    }

    /// When each was answered.
    pub(crate) fn times(&self) -> impl Iterator<Item = u64> {
        self.all.iter().map(|(at, _)| *at)
    }

    /// How long each took.
    pub(crate) fn took(&self) -> impl Iterator<Item = Duration> {
        self.all.iter().map(|(_, took)| Duration::from_nanos(*took))
    }

    /// The longest time between two answers that touches the window; none before the first or after the last
    /// answer of all counts as one that ends with the window.
    pub(crate) fn longest_gap(&self, window: Window) -> Duration {
        let mut last = None;
        let mut longest = 0;
        for at in self.times().chain([u64::MAX]) {
            let begin: u64 = last.unwrap_or(window.from_ns);
            let end = if at == u64::MAX { window.until_ns.max(begin) } else { at };
            if end >= window.from_ns && begin <= window.until_ns {
                longest = longest.max(end.saturating_sub(begin));
            }
            last = Some(end);
        }
        Duration::from_nanos(longest)
    }

    pub(crate) fn histogram(&self) -> Histogram {
        let mut histogram = Histogram::default();
        self.took().for_each(|took| histogram.record(took));
        histogram
    }
}

/// What was seen, sorted by what users wait for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) writes: Answers,
    /// Linearizable.
    pub(crate) reads: Answers,
    /// Serializable.
    pub(crate) stale_reads: Answers,
    /// All requests of keys and leases.
    pub(crate) operations: u64,
    /// Whose outcome is not known.
    pub(crate) unknown: u64,
    /// That were certainly not carried out.
    pub(crate) failed: u64,
    /// Events of keys that watches delivered, each watcher's own.
    pub(crate) events: u64,
    /// Watches that were begun anew.
    pub(crate) resumed: u64,
    /// When an event was delivered, and how long after its write was acknowledged; nanoseconds.
    lags: Vec<(u64, u64)>,
    /// The first reason why something failed or is unknown.
    pub(crate) first_error: Option<String>,
}

impl Seen {
    pub(crate) fn of(records: &[Record]) -> Self {
        let operations = || {
            records.iter().filter_map(|record| match record {
                Record::Operation(operation) => Some(&**operation),
                Record::Watch(_) | Record::Replica(_) | Record::Runtime(_) | Record::Mark(_) => {
                    None
                }
            })
        };
        let writes = || operations().filter(|o| writes_keys(&o.call));
        let reads = |serializable| {
            operations().filter(
                move |o| matches!(&o.call, Call::Range(r) if r.serializable == serializable),
            )
        };
        let mut seen = Self {
            writes: Answers::of(writes()),
            reads: Answers::of(reads(false)),
            stale_reads: Answers::of(reads(true)),
            ..Self::default()
        };
        let mut acknowledged = BTreeMap::new();
        for operation in operations().filter(|o| !matches!(o.call, Call::Object(_))) {
            seen.operations += 1;
            match &operation.outcome {
                Outcome::Ok(answer) if changed(&operation.call, &answer.body) => {
                    acknowledged.insert(answer.revision, operation.answered_ns);
                }
                Outcome::Ok(_) => {}
                Outcome::Failed { reason } => {
                    seen.failed += 1;
                    seen.first_error.get_or_insert_with(|| reason.clone());
                }
                Outcome::Unknown { reason } => {
                    seen.unknown += 1;
                    seen.first_error.get_or_insert_with(|| reason.clone());
                }
            }
        }
        for record in records {
            let Record::Watch(watch) = record else { continue };
            match &watch.step {
                WatchStep::Opened(opened) => seen.resumed += u64::from(opened.resumes.is_some()),
                WatchStep::Events { events } => {
                    seen.events += events.len() as u64;
                    for event in events {
                        if let Some(written) = acknowledged.get(&event.mod_revision) {
                            seen.lags.push((watch.at_ns, watch.at_ns.saturating_sub(*written)));
                        }
                    }
                }
                WatchStep::Object(_) | WatchStep::Progress { .. } | WatchStep::Closed(_) => {}
            }
        }
        seen
    }

    /// The longest time after which a watch told of a write that was acknowledged before or in the window.
    pub(crate) fn longest_lag(&self, window: Window) -> Duration {
        let touches = |(at, lag): &&(u64, u64)| {
            *at >= window.from_ns && at.saturating_sub(*lag) <= window.until_ns
        };
        let longest = self.lags.iter().filter(touches).map(|(_, lag)| *lag).max();
        Duration::from_nanos(longest.unwrap_or_default())
    }

    pub(crate) fn lag_histogram(&self) -> Histogram {
        let mut histogram = Histogram::default();
        self.lags().for_each(|lag| histogram.record(lag));
        histogram
    }

    /// How late each event was.
    pub(crate) fn lags(&self) -> impl Iterator<Item = Duration> {
        self.lags.iter().map(|(_, lag)| Duration::from_nanos(*lag))
    }

    /// When each event was delivered.
    pub(crate) fn event_times(&self) -> impl Iterator<Item = u64> {
        self.lags.iter().map(|(at, _)| *at)
    }
}

/// Whether it is there to write keys.
fn writes_keys(call: &Call) -> bool {
    match call {
        Call::Put(_) | Call::Delete(_) | Call::Txn(_) => true,
        Call::Range(_)
        | Call::LeaseGrant { .. }
        | Call::LeaseKeepAlive { .. }
        | Call::LeaseRevoke { .. }
        | Call::Compact { .. }
        | Call::Object(_) => false,
    }
}

/// Whether it has changed a key, so that its answer's revision is its own.
fn changed(call: &Call, body: &Body) -> bool {
    match (call, body) {
        (Call::Put(_), _) => true,
        (Call::Delete(_), Body::Deleted { count }) => *count > 0,
        (Call::Txn(txn), Body::Txn { succeeded, .. }) => {
            let steps = if *succeeded { &txn.success } else { &txn.failure };
            steps.iter().any(|step| matches!(step, Step::Put(_)))
        }
        _ => false,
    }
}

/// What became of Pods.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Pods {
    /// That were made.
    pub(crate) created: u64,
    /// That got a node.
    pub(crate) bound: u64,
    /// Whose containers ran.
    pub(crate) running: u64,
    /// Containers that were started again.
    pub(crate) restarts: u64,
    /// Pods that were deleted by somebody else than the drill.
    pub(crate) evicted: u64,
    /// Pods that took the place of those and run.
    pub(crate) replaced: u64,
    /// From a creation that was acknowledged to a node that a watch shows.
    pub(crate) bind_ms: Spread,
    /// From there until a watch shows it running.
    pub(crate) start_ms: Spread,
    /// From the loss of a node to a replacement that runs.
    pub(crate) replace_ms: Spread,
}

impl Pods {
    /// `lost_ns` is when a node was lost, if one was.
    pub(crate) fn of(board: &Board, lost_ns: Option<u64>) -> Self {
        let count = |which: fn(&crate::workload::PodSeen) -> bool| {
            board.values().filter(|seen| which(seen)).count() as u64
        };
        let nanos = Duration::from_nanos;
        let bind: Vec<Duration> = board
            .values()
            .filter_map(|seen| Some(nanos(seen.bound_ns?.saturating_sub(seen.created_ns?))))
            .collect();
        let start: Vec<Duration> = board
            .values()
            .filter_map(|seen| Some(nanos(seen.running_ns?.saturating_sub(seen.bound_ns?))))
            .collect();
        let replace: Vec<Duration> = board
            .values()
            .filter(|seen| seen.replaces_ns.is_some())
            .filter_map(|seen| Some(nanos(seen.running_ns?.saturating_sub(lost_ns?))))
            .collect();
        Self {
            created: count(|seen| seen.created_ns.is_some()),
            bound: count(|seen| seen.bound_ns.is_some()),
            running: count(|seen| seen.running_ns.is_some()),
            restarts: board.values().map(|seen| seen.restarts).sum(),
            evicted: count(|seen| seen.evicted_ns.is_some()),
            replaced: count(|seen| seen.replaces_ns.is_some() && seen.running_ns.is_some()),
            bind_ms: Spread::of(&bind),
            start_ms: Spread::of(&start),
            replace_ms: Spread::of(&replace),
        }
    }
}

/// The longest time that a Pod whose creation was acknowledged in the window waited for a node; one that never got
/// one has waited until the window's end.
pub(crate) fn longest_bind(board: &Board, window: Window) -> Duration {
    let waits = board.values().filter_map(|seen| {
        let created = seen.created_ns.filter(|created| window.contains(*created))?;
        Some(seen.bound_ns.unwrap_or(window.until_ns).saturating_sub(created))
    });
    Duration::from_nanos(waits.max().unwrap_or_default())
}

/// How many were answered in each stretch of `width_ns` since the beginning.
pub(crate) fn buckets(times: impl Iterator<Item = u64>, width_ns: u64, end_ns: u64) -> Vec<u64> {
    let count = usize::try_from(end_ns / width_ns.max(1) + 1).unwrap_or_default();
    let mut buckets = vec![0; count];
    for at in times {
        let bucket = usize::try_from(at / width_ns.max(1)).unwrap_or(usize::MAX);
        if let Some(count) = buckets.get_mut(bucket) {
            *count += 1;
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;
    use checkers::history::{Answer, Event, Put, Watch};

    fn put(invoked_ns: u64, answered_ns: u64, revision: u64) -> Record {
        Record::Operation(Box::new(Operation {
            client: 1,
            replica: 1,
            invoked_ns,
            answered_ns,
            call: Call::Put(Put { key: "k".into(), value: format!("v{revision}"), lease: 0 }),
            outcome: Outcome::Ok(Answer { revision, body: Body::Done }),
        }))
    }

    fn event(at_ns: u64, mod_revision: u64) -> Record {
        let event = Event {
            key: "k".into(),
            mod_revision,
            value: Some(format!("v{mod_revision}")),
            create_revision: 1,
            version: 1,
            lease: 0,
        };
        let step = WatchStep::Events { events: vec![event] };
        Record::Watch(Watch { at_ns, stream: 1, sequence: 0, step })
    }

    #[test]
    fn the_longest_gap_is_one_that_touches_the_fault() {
        let records: Vec<Record> =
            [10, 20, 90, 100, 300, 310].iter().map(|at| put(at - 5, *at, *at)).collect();
        let writes = Seen::of(&records).writes;
        for (from_ns, until_ns, want) in [
            // Not the one of 200 that came later.
            (15, 50, 70),
            (95, 150, 200),
            // Nothing came any more.
            (305, 1000, 690),
            (400, 1000, 690),
            // Before the first one.
            (0, 5, 10),
        ] {
            let gap = writes.longest_gap(Window { from_ns, until_ns });
            assert_eq!(gap, Duration::from_nanos(want), "{from_ns}..{until_ns}");
        }
        let nothing = Answers::default().longest_gap(Window { from_ns: 5, until_ns: 25 });
        assert_eq!(nothing, Duration::from_nanos(20));
    }

    #[test]
    fn a_watch_lags_by_the_time_since_the_write_was_acknowledged() {
        let records = [put(1, 10, 2), put(11, 20, 3), event(15, 2), event(120, 3)];
        let seen = Seen::of(&records);
        let lag = |from_ns, until_ns| seen.longest_lag(Window { from_ns, until_ns });
        assert_eq!(lag(0, 200), Duration::from_nanos(100));
        assert_eq!(lag(0, 15), Duration::from_nanos(5));
        assert_eq!((seen.events, seen.writes.count()), (2, 2));
    }

    #[test]
    fn a_pod_that_gets_no_node_waits_until_the_end() {
        let seen = |created_ns, bound_ns| crate::workload::PodSeen {
            created_ns: Some(created_ns),
            bound_ns,
            ..crate::workload::PodSeen::default()
        };
        let board: Board =
            [("a", seen(10, Some(15))), ("b", seen(20, None)), ("c", seen(500, Some(900)))]
                .map(|(name, seen)| (name.to_owned(), seen))
                .into();
        let window = Window { from_ns: 0, until_ns: 100 };
        assert_eq!(longest_bind(&board, window), Duration::from_nanos(80));
        assert_eq!((Pods::of(&board, None).created, Pods::of(&board, None).bound), (3, 2));
    }

    #[test]
    fn what_is_counted_is_counted_where_it_was() {
        assert_eq!(buckets([0, 5, 10, 29].into_iter(), 10, 25), [2, 1, 1]);
        assert_eq!(buckets([31].into_iter(), 10, 25), [0, 0, 0]);
    }
}
