//! When the kept revisions were made: a mark for each second in which something changed.
//!
//! Commands carry the leader's time, so that every member makes the same marks. A second is as fine as
//! Kubernetes' own times are, and it bounds what is kept: never more marks than revisions, and never more
//! than seconds have passed.

use crate::types::{Revision, Timestamp};
use imbl::OrdMap;

/// Marks that one command may free: more than it can add, so that a backlog shrinks.
const TRIM_PER_COMMAND: usize = 2;

/// A clone is O(1) and stays as it was.
#[derive(Debug, Clone, Default)]
pub(super) struct Times {
    /// The first revision of a second, and the second, since the Unix epoch. Both ascend. May still hold
    /// some from before what is kept, see [`Times::trim`].
    marks: OrdMap<Revision, u64>,
}

const fn second(time: Timestamp) -> u64 {
    time.0 / 1_000_000
}

impl Times {
    /// A command whose first revision is `revision` was carried out at `time`, which is no earlier than the
    /// one before.
    pub(super) fn note(&mut self, revision: Revision, time: Timestamp) {
        if self.marks.get_max().is_none_or(|(_, last)| *last < second(time)) {
            self.marks.insert(revision, second(time));
        }
    }

    /// When a revision was made, to the second; `None` for what is older than all that is kept.
    pub(super) fn of(&self, revision: Revision, compacted: Revision) -> Option<Timestamp> {
        let (first, second) = self.marks.range(..=revision).next_back()?;
        let kept = self.oldest(compacted).is_none_or(|oldest| *first >= oldest);
        kept.then(|| Timestamp(second * 1_000_000))
    }

    /// The newest revision made at `time` or before, the whole of its second included; `None` when that is
    /// older than all that is kept.
    pub(super) fn newest_at(
        &self,
        time: Timestamp,
        current: Revision,
        compacted: Revision,
    ) -> Option<Revision> {
        let second = second(time);
        // From the newest on: what is asked for is mostly not long ago.
        let mut newest = current;
        for (first, at) in self.marks.iter().rev() {
            if *at <= second {
                return (newest >= compacted).then_some(newest);
            }
            newest = Revision::new(first.get().saturating_sub(1));
            if newest < compacted {
                return None;
            }
        }
        // Before the first change there was the empty store. What has no mark came with a snapshot that
        // had none.
        (newest == Revision::EMPTY && compacted <= newest).then_some(newest)
    }

    /// Frees marks from before what is kept. Nothing that can be read changes.
    pub(super) fn trim(&mut self, compacted: Revision) {
        for _ in 0..TRIM_PER_COMMAND {
            let Some((first, _)) = self.marks.get_min() else { return };
            let first = *first;
            let next = self.marks.range(first.next()..).next();
            if next.is_none_or(|(next, _)| *next > compacted) {
                return;
            }
            self.marks.remove(&first);
        }
    }

    /// The mark that the oldest kept revision falls under.
    fn oldest(&self, compacted: Revision) -> Option<Revision> {
        self.marks.range(..=compacted).next_back().map(|(first, _)| *first)
    }

    /// What a snapshot says of it.
    pub(super) fn kept(&self, compacted: Revision) -> impl Iterator<Item = (Revision, u64)> + '_ {
        let from = self.oldest(compacted).unwrap_or(Revision::ZERO);
        self.marks.range(from..).map(|(first, second)| (*first, *second))
    }

    /// Takes up one mark of a snapshot; false if it does not ascend.
    pub(super) fn restore(&mut self, first: Revision, second: u64) -> bool {
        let ascends = self.marks.get_max().is_none_or(|(last, at)| *last < first && *at < second);
        // Its microseconds must be countable.
        let countable = second <= u64::MAX / 1_000_000;
        if ascends && countable {
            self.marks.insert(first, second);
        }
        ascends && countable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn times_and_revisions_find_each_other_as_in_a_list_of_all(
            steps in proptest::collection::vec((0u64..3_000_000, 1u64..4, proptest::option::weighted(0.2, 0u64..100)), 1..60),
        ) {
            let mut times = Times::default();
            // Every revision and its second.
            let mut all: Vec<(u64, u64)> = Vec::new();
            let (mut now, mut revision, mut compacted) = (5_000_000, 1, 0);
            for (later, revisions, compact) in steps {
                now += later;
                times.trim(Revision::new(compacted));
                times.note(Revision::new(revision + 1), Timestamp(now));
                for _ in 0..revisions {
                    revision += 1;
                    all.push((revision, now / 1_000_000));
                }
                if let Some(percent) = compact {
                    compacted = compacted.max(revision * percent / 100);
                }
            }
            let mut restored = Times::default();
            for (first, second) in times.kept(Revision::new(compacted)) {
                prop_assert!(restored.restore(first, second));
            }
            for times in [&times, &restored] {
                let (current, floor) = (Revision::new(revision), Revision::new(compacted));
                for (made, second) in &all {
                    let told = times.of(Revision::new(*made), floor).map(|t| t.0 / 1_000_000);
                    if *made >= compacted {
                        prop_assert_eq!(told, Some(*second), "of {}", made);
                    } else {
                        prop_assert!(told.is_none_or(|told| told == *second), "of {}", made);
                    }
                }
                for at in 0..now / 1_000_000 + 3 {
                    let want = all.iter().rev().find(|(_, second)| *second <= at);
                    let want = want.map_or(1, |(made, _)| *made);
                    let want = (want >= compacted).then_some(Revision::new(want));
                    let found = times.newest_at(Timestamp(at * 1_000_000 + 999), current, floor);
                    prop_assert_eq!(found, want, "at {}", at);
                }
            }
            let (kept, left) = (times.kept(Revision::new(compacted)).count(), restored.marks.len());
            prop_assert_eq!(kept, left);
        }
    }

    #[test]
    fn a_second_takes_one_mark_and_old_ones_go() {
        let mut times = Times::default();
        for revision in 2..1_002 {
            times.note(Revision::new(revision), Timestamp(revision * 100_000));
        }
        assert_eq!(times.marks.len(), 101, "a tenth of a second each");
        for _ in 0..60 {
            times.trim(Revision::new(1_001));
        }
        assert_eq!(times.marks.len(), 1);
        assert_eq!(
            times.of(Revision::new(1_001), Revision::new(1_001)),
            Some(Timestamp(100_000_000))
        );
    }
}
