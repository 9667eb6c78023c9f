//! Where the time of a proposal goes at the leader, from the call to its answer.

use std::sync::atomic::{AtomicU64, Ordering};
use store::ProposalTimes;
use tokio::time::Instant;

/// Entries whose marks are kept at once: more than are ever under way.
const REMEMBERED: usize = 64;

/// When each of the last entries passed where openraft calls us, and how long every stage took.
#[derive(Debug)]
pub(crate) struct Stages {
    begun: Instant,
    passed: [Passed; REMEMBERED],
    entries: AtomicU64,
    sums_ns: [AtomicU64; ProposalTimes::STAGES.len()],
}

/// Nanoseconds since [`Stages::begun`].
#[derive(Debug, Default)]
struct Passed {
    appended: AtomicU64,
    durable: AtomicU64,
    applying: AtomicU64,
    applied: AtomicU64,
}

/// What one entry has passed before openraft has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    /// The first of its commands came.
    pub(crate) submitted: Instant,
    /// No more commands go into it.
    pub(crate) taken: Instant,
    pub(crate) encoded: Instant,
}

impl Default for Stages {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            passed: std::array::from_fn(|_| Passed::default()),
            entries: AtomicU64::new(0),
            sums_ns: Default::default(),
        }
    }
}

impl Stages {
    pub(crate) fn appended(&self, index: u64) {
        self.mark(index, |passed| &passed.appended);
    }

    pub(crate) fn durable(&self, index: u64) {
        self.mark(index, |passed| &passed.durable);
    }

    pub(crate) fn applying(&self, index: u64) {
        self.mark(index, |passed| &passed.applying);
    }

    pub(crate) fn applied(&self, index: u64) {
        self.mark(index, |passed| &passed.applied);
    }

    /// Adds up an entry whose commands are about to be answered.
    pub(crate) fn answered(&self, index: u64, begun: Begun) {
        let Some(passed) = self.of(index) else { return };
        let [appended, durable, applying, applied] =
            [&passed.appended, &passed.durable, &passed.applying, &passed.applied]
                .map(|mark| mark.load(Ordering::Relaxed));
        let [submitted, taken, encoded] =
            [begun.submitted, begun.taken, begun.encoded].map(|at| self.since_begun(at));
        // A quorum of the others may have been quicker than this disk: then there is no mark yet, only that of
        // an earlier entry in the same place.
        let durable = if durable < appended { applying } else { durable.min(applying) };
        let times = [
            taken.saturating_sub(submitted),
            encoded.saturating_sub(taken),
            appended.saturating_sub(encoded),
            durable.saturating_sub(appended),
            applying.saturating_sub(durable),
            applied.saturating_sub(applying),
            self.since_begun(Instant::now()).saturating_sub(applied),
        ];
        for (sum, time) in self.sums_ns.iter().zip(times) {
            sum.fetch_add(time, Ordering::Relaxed);
        }
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn times(&self) -> ProposalTimes {
        ProposalTimes {
            entries: self.entries.load(Ordering::Relaxed),
            sums_ns: std::array::from_fn(|stage| {
                self.sums_ns.get(stage).map_or(0, |sum| sum.load(Ordering::Relaxed))
            }),
        }
    }

    fn mark(&self, index: u64, which: impl Fn(&Passed) -> &AtomicU64) {
        if let Some(passed) = self.of(index) {
            which(passed).store(self.since_begun(Instant::now()), Ordering::Relaxed);
        }
    }

    fn of(&self, index: u64) -> Option<&Passed> {
        self.passed.get(usize::try_from(index % REMEMBERED as u64).ok()?)
    }

    fn since_begun(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.begun);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn the_stages_of_an_entry_add_up_to_its_time() {
        let stages = Stages::default();
        let ms = Duration::from_millis;
        let submitted = Instant::now();
        advance(ms(1)).await;
        let taken = Instant::now();
        advance(ms(2)).await;
        let begun = Begun { submitted, taken, encoded: Instant::now() };
        type Mark = fn(&Stages, u64);
        let passed: [(u64, Mark); 4] = [
            (3, Stages::appended),
            (4, Stages::durable),
            (5, Stages::applying),
            (6, Stages::applied),
        ];
        for (wait, mark) in passed {
            advance(ms(wait)).await;
            mark(&stages, 700);
        }
        advance(ms(7)).await;
        stages.answered(700, begun);
        let times = stages.times();
        assert_eq!(times.entries, 1);
        assert_eq!(times.sums_ns.map(|ns| ns / 1_000_000), [1, 2, 3, 4, 5, 6, 7]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quorum_that_is_quicker_than_this_disk_ends_the_stage_of_the_sync() {
        let stages = Stages::default();
        let step = Duration::from_millis(1);
        stages.durable(6);
        advance(step * 1000).await;
        let now = Instant::now();
        let begun = Begun { submitted: now, taken: now, encoded: now };
        let index = 6 + REMEMBERED as u64;
        stages.appended(index);
        advance(step * 4).await;
        stages.applying(index);
        advance(step).await;
        stages.applied(index);
        stages.answered(index, begun);
        assert_eq!(stages.times().sums_ns.map(|ns| ns / 1_000_000), [0, 0, 0, 4, 0, 1, 0]);
    }
}
