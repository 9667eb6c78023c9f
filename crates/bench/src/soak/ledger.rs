//! What may be under each key, as far as clients can know: the last acknowledged change, or any later one of
//! unknown outcome. At most one request at a time touches a key.

use super::{
    keys::{Change, Key, Revision, State, Write},
    violation::Violation,
};
use std::{fmt, time::Duration};
use tokio::time::Instant;

/// After which a change of unknown outcome must not happen any more: members give a request up after some
/// seconds, and stand still no longer than that.
pub(super) const HOPELESS: Duration = Duration::from_secs(300);

/// One key's.
#[derive(Debug)]
pub(super) struct Account {
    known: State,
    /// Whatever else is found is of a later revision.
    floor: Revision,
    /// Of unknown outcome: they may have happened, or happen yet.
    open: Vec<Open>,
    /// Somebody's request is under way.
    busy: bool,
    touches: u64,
}

#[derive(Debug)]
struct Open {
    change: Change,
    since: Instant,
}

/// A key that nobody touched since, and that nothing of unknown outcome hangs over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quiet {
    touches: u64,
}

impl Default for Account {
    fn default() -> Self {
        let (known, floor) = (State::Absent, Revision::default());
        Self { known, floor, open: Vec::new(), busy: false, touches: 0 }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.known.fmt(f)?;
        for open in &self.open {
            write!(f, ", or of unknown outcome after revision {}: {}", self.floor, open.change)?;
        }
        Ok(())
    }
}

impl Account {
    /// Takes the key for one request; none if somebody has it.
    ///
    /// Watches have `watched` under it: what has come of late may be read whenever.
    pub(super) fn take(&mut self, watched: State, now: Instant) -> Option<State> {
        if self.busy {
            return None;
        }
        self.busy = true;
        self.touches += 1;
        self.open.retain(|open| {
            now.duration_since(open.since) < HOPELESS || open.change.leaves(watched)
        });
        Some(self.known)
    }

    /// Gives the key back.
    pub(super) fn give_back(&mut self) {
        assert!(self.busy, "a request that did not take its key");
        self.busy = false;
        self.touches += 1;
    }

    pub(super) fn quiet(&self) -> Option<Quiet> {
        let quiet = !self.busy && self.open.is_empty();
        quiet.then_some(Quiet { touches: self.touches })
    }

    /// Whether a key that was quiet has been all the time.
    pub(super) fn is_still(&self, quiet: Quiet) -> bool {
        self.touches == quiet.touches
    }

    /// Learns what a linearizable answer of revision `at` found.
    ///
    /// # Errors
    /// It cannot be there.
    pub(super) fn found(&mut self, key: Key, found: State, at: Revision) -> Result<(), Violation> {
        let explained = found == self.known || {
            let is_later = match found {
                State::Absent => true,
                State::Present { mod_revision, .. } => {
                    self.floor < mod_revision && mod_revision <= at
                }
            };
            let open = self.open.iter().position(|open| is_later && open.change.leaves(found));
            // It has happened, and cannot happen again.
            open.map(|index| self.open.swap_remove(index)).is_some()
        };
        let expected = self.to_string();
        self.settle(found, at);
        if explained { Ok(()) } else { Err(Violation::Unexpected { key, at, found, expected }) }
    }

    /// Learns that a put was acknowledged.
    pub(super) fn put(&mut self, write: Write, revision: Revision) {
        self.settle(State::Present { write, mod_revision: revision }, revision);
    }

    /// Learns that a delete was acknowledged that found something.
    ///
    /// # Errors
    /// There cannot have been anything.
    pub(super) fn deleted(&mut self, key: Key, revision: Revision) -> Result<(), Violation> {
        let nothing = self.known == State::Absent
            && !self.open.iter().any(|open| matches!(open.change, Change::Put(_)));
        let expected = self.to_string();
        self.settle(State::Absent, revision);
        if nothing {
            return Err(Violation::DeletedNothing { key, at: revision, expected });
        }
        Ok(())
    }

    /// Learns that the lease of all its puts is gone, and they with it: none can happen any more.
    pub(super) fn lease_ended(&mut self, at: Revision) {
        self.open.clear();
        self.settle(State::Absent, at);
    }

    /// Learns that the outcome of a change will not be told.
    pub(super) fn unknown(&mut self, change: Change, now: Instant) {
        self.open.push(Open { change, since: now });
    }

    fn settle(&mut self, known: State, at: Revision) {
        self.known = known;
        self.floor = self.floor.max(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key(300);

    fn present(write: u64, mod_revision: i64) -> State {
        State::Present { write: Write(write), mod_revision: Revision(mod_revision) }
    }

    /// Write 1 at revision 10, write 2 at 20.
    fn written() -> Account {
        let mut account = Account::default();
        account.put(Write(1), Revision(10));
        account.put(Write(2), Revision(20));
        account
    }

    #[test]
    fn only_the_last_acknowledged_change_may_be_found() {
        for (name, found, right) in [
            ("the last", present(2, 20), true),
            ("an older one", present(1, 10), false),
            ("the last, of another revision", present(2, 21), false),
            ("one that was never sent", present(3, 25), false),
            ("nothing: the key is lost", State::Absent, false),
        ] {
            let mut account = written();
            let read = account.found(KEY, found, Revision(30));
            assert_eq!(read.is_ok(), right, "{name}: {read:?}");
            assert_eq!(account.found(KEY, found, Revision(31)), Ok(()), "{name}: reported once");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_of_unknown_outcome_may_come_once_and_later_than_what_is_known() {
        let mut account = written();
        account.unknown(Change::Put(Write(3)), Instant::now());
        account.unknown(Change::Delete, Instant::now());
        assert_eq!(account.found(KEY, present(2, 20), Revision(30)), Ok(()), "neither has come");
        assert_eq!(account.found(KEY, present(3, 31), Revision(31)), Ok(()), "the put has");
        assert_eq!(account.found(KEY, State::Absent, Revision(32)), Ok(()), "the delete, too");
        account.put(Write(4), Revision(33));
        assert!(account.found(KEY, State::Absent, Revision(34)).is_err(), "only once");
        account.unknown(Change::Put(Write(5)), Instant::now());
        account.put(Write(6), Revision(40));
        let early = account.found(KEY, present(5, 39), Revision(41));
        assert!(early.is_err(), "what was overwritten before must not come back");
        account.unknown(Change::Put(Write(7)), Instant::now());
        let future = account.found(KEY, present(7, 50), Revision(45));
        assert!(future.is_err(), "an answer cannot hold what is later than itself");
    }

    #[tokio::test(start_paused = true)]
    async fn after_some_minutes_an_unknown_outcome_is_that_it_did_not_happen() {
        let mut account = written();
        account.unknown(Change::Delete, Instant::now());
        account.unknown(Change::Put(Write(3)), Instant::now());
        tokio::time::advance(HOPELESS).await;
        let watched = present(3, 21);
        assert_eq!(account.take(watched, Instant::now()), Some(present(2, 20)));
        assert_eq!(account.take(watched, Instant::now()), None, "one at a time");
        assert_eq!(account.found(KEY, watched, Revision(30)), Ok(()), "it had happened in time");
        assert!(account.found(KEY, State::Absent, Revision(31)).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_finds_something_only_where_something_may_be() {
        let mut account = written();
        assert_eq!(account.deleted(KEY, Revision(30)), Ok(()));
        assert!(account.deleted(KEY, Revision(31)).is_err());
        account.unknown(Change::Put(Write(3)), Instant::now());
        assert_eq!(account.deleted(KEY, Revision(33)), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_still_only_if_nobody_touched_it_and_nothing_hangs_over_it() {
        let mut account = written();
        let quiet = account.quiet().unwrap();
        assert!(account.is_still(quiet));
        account.take(State::Absent, Instant::now()).unwrap();
        assert!(account.quiet().is_none() && !account.is_still(quiet));
        account.give_back();
        assert!(account.quiet().is_some() && !account.is_still(quiet));
        account.unknown(Change::Delete, Instant::now());
        assert!(account.quiet().is_none());
    }
}
