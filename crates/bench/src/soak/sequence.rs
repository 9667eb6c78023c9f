//! Several watches of the same keys: all deliver the same events in the same order, however often each was
//! resumed. What only some have delivered is kept until the last one has.

use super::{
    keys::{Event, Revision},
    violation::Violation,
};
use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

/// Of all watches.
#[derive(Debug)]
pub(super) struct Sequence {
    /// What at least one has delivered and at least one has not.
    window: VecDeque<Stamp>,
    /// Events before the window.
    before: u64,
    watches: Vec<Watch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    revision: Revision,
    digest: u64,
}

/// Of one.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    /// Events of the sequence that it is past.
    position: u64,
    pub(super) last: Revision,
    /// Events that it has delivered.
    pub(super) events: u64,
    /// Of all events up to here.
    pub(super) hash: u64,
    /// How often its stream was opened again.
    pub(super) resumed: u64,
    /// How often what it had to deliver next was compacted.
    pub(super) fell_behind: u64,
    /// It has delivered something else than the others: said once.
    parted: bool,
}

impl Sequence {
    pub(super) fn new(watches: usize) -> Self {
        let watches = vec![Watch::default(); watches];
        Self { window: VecDeque::new(), before: 0, watches }
    }

    pub(super) fn watches(&self) -> &[Watch] {
        &self.watches
    }

    fn watch(&mut self, watch: usize) -> &mut Watch {
        self.watches.get_mut(watch).expect("as many watches as there are tasks")
    }

    /// Where a watch goes on.
    pub(super) fn next(&self, watch: usize) -> Revision {
        Revision(self.watches.get(watch).map_or(0, |watch| watch.last.0) + 1)
    }

    pub(super) fn resumed(&mut self, watch: usize) {
        self.watch(watch).resumed += 1;
    }

    /// A watch delivers an event; says whether it is the first to.
    ///
    /// # Errors
    /// It is not what comes next.
    pub(super) fn deliver(&mut self, watch: usize, event: &Event) -> Result<bool, Violation> {
        let mut hasher = DefaultHasher::new();
        event.hash(&mut hasher);
        let stamp = Stamp { revision: event.revision(), digest: hasher.finish() };
        let (before, ahead) = (self.before, self.before + self.window.len() as u64);
        let own = self.watch(watch);
        let last = own.last;
        own.last = last.max(stamp.revision);
        own.events += 1;
        if own.parted {
            return Ok(false);
        }
        let mut hasher = DefaultHasher::new();
        (own.hash, stamp.digest).hash(&mut hasher);
        own.hash = hasher.finish();
        let position = own.position;
        own.position += 1;
        if stamp.revision < last {
            own.parted = true;
            self.trim();
            let revision = stamp.revision;
            return Err(Violation::WatchWentBack { watch, revision, last });
        }
        if position == ahead {
            self.window.push_back(stamp);
            self.trim();
            return Ok(true);
        }
        let index = usize::try_from(position - before).unwrap_or(usize::MAX);
        let expected = self.window.get(index).copied();
        if expected != Some(stamp) {
            self.watch(watch).parted = true;
            self.trim();
            return Err(Violation::Parted {
                watch,
                revision: stamp.revision,
                key: event.key(),
                expected: expected.map(|stamp| stamp.revision).unwrap_or_default(),
            });
        }
        self.trim();
        Ok(false)
    }

    /// A watch is told that what it has to deliver next is compacted, and goes on at `compacted`.
    ///
    /// # Errors
    /// It is not: no compaction has gone beyond `asked`, or it had not fallen behind.
    pub(super) fn fall_behind(
        &mut self,
        watch: usize,
        compacted: Revision,
        asked: Revision,
    ) -> Result<(), Violation> {
        let from = self.next(watch);
        if compacted <= from || asked < compacted {
            return Err(Violation::NotCompacted { watch, from, compacted });
        }
        let before = self.before;
        let passed = self.window.iter().filter(|stamp| stamp.revision < compacted).count() as u64;
        let own = self.watch(watch);
        own.position = own.position.max(before + passed);
        own.last = Revision(compacted.0 - 1);
        own.fell_behind += 1;
        self.trim();
        Ok(())
    }

    fn trim(&mut self) {
        let reached = self.watches.iter().filter(|watch| !watch.parted);
        let reached = reached.map(|watch| watch.position).min().unwrap_or(u64::MAX);
        while self.before < reached && self.window.pop_front().is_some() {
            self.before += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::keys::{Found, Key, Write},
        *,
    };

    fn event(revision: i64) -> Event {
        Event::Put(Found {
            key: Key(300),
            write: Write(revision.unsigned_abs()),
            create_revision: Revision(1),
            mod_revision: Revision(revision),
            version: revision,
        })
    }

    #[test]
    fn watches_that_deliver_the_same_agree_and_nothing_is_kept_that_all_have() {
        let mut sequence = Sequence::new(3);
        for (watch, revisions, first) in
            [(0, 1..=5, true), (1, 1..=3, false), (2, 1..=5, false), (1, 4..=5, false)]
        {
            for revision in revisions {
                assert_eq!(sequence.deliver(watch, &event(revision)), Ok(first));
            }
        }
        assert!(sequence.window.is_empty());
        let hashes: Vec<u64> = sequence.watches().iter().map(|watch| watch.hash).collect();
        assert!(hashes.iter().all(|hash| *hash == hashes[0]) && hashes[0] != 0, "{hashes:?}");
        assert_eq!(sequence.next(1), Revision(6));
    }

    #[test]
    fn a_watch_that_leaves_out_repeats_or_changes_an_event_is_caught_once() {
        let changed = Event::Delete { key: Key(300), mod_revision: Revision(3) };
        for (name, wrong) in [("left out", event(4)), ("changed", changed)] {
            let mut sequence = Sequence::new(2);
            for revision in 1..=5 {
                sequence.deliver(0, &event(revision)).unwrap();
            }
            for revision in 1..=2 {
                sequence.deliver(1, &event(revision)).unwrap();
            }
            let (revision, key) = (wrong.revision(), Key(300));
            let parted = Violation::Parted { watch: 1, revision, key, expected: Revision(3) };
            assert_eq!(sequence.deliver(1, &wrong), Err(parted), "{name}");
            assert_eq!(sequence.deliver(1, &event(5)), Ok(false), "{name}: said once");
            assert!(sequence.window.is_empty(), "{name}: kept for nobody");
        }
        let mut sequence = Sequence::new(2);
        for revision in [1, 2, 3] {
            sequence.deliver(1, &event(revision)).unwrap();
        }
        let back = Violation::WatchWentBack { watch: 1, revision: Revision(2), last: Revision(3) };
        assert_eq!(sequence.deliver(1, &event(2)), Err(back));
    }

    #[test]
    fn only_a_watch_that_has_fallen_behind_a_compaction_may_be_told_so() {
        let mut sequence = Sequence::new(2);
        for revision in 1..=9 {
            sequence.deliver(0, &event(revision)).unwrap();
        }
        sequence.deliver(1, &event(1)).unwrap();
        let asked = Revision(7);
        for compacted in [2, 8] {
            let (from, compacted) = (Revision(2), Revision(compacted));
            let wrong = Violation::NotCompacted { watch: 1, from, compacted };
            assert_eq!(sequence.fall_behind(1, compacted, asked), Err(wrong));
        }
        assert_eq!(sequence.fall_behind(1, Revision(6), asked), Ok(()));
        assert_eq!(sequence.next(1), Revision(6));
        for revision in 6..=9 {
            assert_eq!(sequence.deliver(1, &event(revision)), Ok(false), "{revision}");
        }
    }
}
