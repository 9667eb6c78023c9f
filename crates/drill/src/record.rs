//! What was seen, written down as the checkers read it, and counted for who waits for something to be seen.

use checkers::history::{
    Mark, Operation, Record, ReplicaFact, ReplicaSeen, RuntimeSeen, Watch, WatchStep,
};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

/// Counts of what was seen so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Acknowledged writes.
    pub(crate) writes: u64,
    /// Writes that were told anything, by replica.
    pub(crate) told: BTreeMap<u64, u64>,
    /// Writes that were refused for want of room.
    pub(crate) refused_for_room: u64,
    /// Linearizable reads that were answered.
    pub(crate) reads: u64,
    /// Serializable reads that were answered, by replica.
    pub(crate) stale_reads: BTreeMap<u64, u64>,
    /// Events that watches delivered, by watcher.
    pub(crate) events: BTreeMap<u64, u64>,
    /// Pods that were bound.
    pub(crate) bound: u64,
    /// Pods that ran.
    pub(crate) running: u64,
    /// Pods that somebody else than the drill has deleted.
    pub(crate) evicted: u64,
    /// Pods that took the place of one that was evicted, and run.
    pub(crate) replaced: u64,
    /// Evicted Pods that are gone.
    pub(crate) evicted_gone: u64,
}

/// A diary. All times are of the monotonic clock since it was begun.
#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    records: Mutex<Vec<Record>>,
    names: AtomicU64,
    tally: watch::Sender<Tally>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            records: Mutex::default(),
            names: AtomicU64::new(1),
            tally: watch::Sender::new(Tally::default()),
        }
    }

    /// Nanoseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    /// A moment, in nanoseconds since the beginning.
    pub(crate) fn at(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    /// A number that nothing else has here: for a client, a stream or a value.
    pub(crate) fn fresh(&self) -> u64 {
        self.names.fetch_add(1, Ordering::Relaxed)
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn operation(&self, operation: Operation) {
        self.records().push(Record::Operation(Box::new(operation)));
    }

    pub(crate) fn watch(&self, stream: u64, sequence: &mut u64, step: WatchStep) {
        let watch = Watch { at_ns: self.now(), stream, sequence: *sequence, step };
        *sequence += 1;
        self.records().push(Record::Watch(watch));
    }

    pub(crate) fn replica(&self, replica: u64, fact: ReplicaFact) {
        let seen = ReplicaSeen { at_ns: self.now(), replica, fact };
        self.records().push(Record::Replica(seen));
    }

    pub(crate) fn runtime(&self, seen: RuntimeSeen) {
        self.records().push(Record::Runtime(seen));
    }

    pub(crate) fn mark(&self, mark: Mark) {
        self.records().push(Record::Mark(Box::new(mark)));
    }

    /// Counts something.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Tally)) {
        self.tally.send_modify(change);
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally.borrow().clone()
    }

    /// Returns when the counts are as wanted.
    ///
    /// # Errors
    /// They are not in time; says what was waited for.
    pub(crate) async fn wait(
        &self,
        patience: Duration,
        what: &str,
        wanted: impl FnMut(&Tally) -> bool,
    ) -> anyhow::Result<()> {
        let mut tally = self.tally.subscribe();
        match timeout(patience, tally.wait_for(wanted)).await {
            Ok(_) => Ok(()),
            Err(_) => anyhow::bail!("{what}: not within {patience:?}"),
        }
    }

    /// Everything that was written down; the diary is empty then.
    pub(crate) fn take(&self) -> Vec<Record> {
        std::mem::take(&mut *self.records())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_told_when_it_is_so_and_when_it_is_too_late() {
        let recorder = Recorder::new();
        recorder.count(|tally| tally.writes += 2);
        recorder.wait(Duration::from_secs(1), "writes", |t| t.writes >= 2).await.unwrap();
        let late = recorder.wait(Duration::from_secs(1), "three writes", |t| t.writes >= 3).await;
        assert_eq!(late.unwrap_err().to_string(), "three writes: not within 1s");
    }

    #[test]
    fn no_number_is_given_twice() {
        let recorder = Recorder::new();
        assert!(
            (0..100).map(|_| recorder.fresh()).collect::<Vec<_>>().windows(2).all(|w| w[0] < w[1])
        );
    }
}
