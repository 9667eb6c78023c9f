//! What watches deliver, replayed key by key and held against what was sent and acknowledged.
//!
//! Events and answers come in either order, so each waits for the other; what waits is bounded by how far
//! watches are behind.

use super::{
    keys::{Change, Event, Found, KEYS, Key, Revision, State, Write},
    ledger::HOPELESS,
    violation::Violation,
};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// Of all keys.
#[derive(Debug)]
pub(super) struct History {
    tracks: Vec<Track>,
    /// Acknowledged, and not delivered yet.
    awaited: BTreeMap<Revision, (Key, Change)>,
    /// By when keys must be gone.
    ending: BTreeSet<(Revision, Key)>,
    delivered: Revision,
}

/// Of one key.
#[derive(Debug, Default)]
struct Track {
    now: Option<Found>,
    /// Sent, and not delivered yet.
    puts: Vec<Put>,
    /// Delivered, and not answered yet.
    landed: Option<(Write, Revision)>,
    /// A delete is not answered yet.
    deleting: bool,
    /// Deletes of unknown outcome that no event is known of.
    deletes_unknown: usize,
    /// Deletions that no answer named.
    deletions: Vec<Revision>,
}

#[derive(Debug)]
struct Put {
    write: Write,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sent,
    Acknowledged(Revision),
    Unknown(Instant),
}

impl Default for History {
    fn default() -> Self {
        Self {
            tracks: (0..KEYS).map(|_| Track::default()).collect(),
            awaited: BTreeMap::new(),
            ending: BTreeSet::new(),
            delivered: Revision::default(),
        }
    }
}

impl History {
    /// Up to which revision events have come.
    pub(super) fn delivered(&self) -> Revision {
        self.delivered
    }

    /// What the events so far leave under a key.
    pub(super) fn now(&self, key: Key) -> Option<Found> {
        self.tracks.get(key.0 as usize).and_then(|track| track.now)
    }

    fn track(&mut self, key: Key) -> &mut Track {
        self.tracks.get_mut(key.0 as usize).expect("keys are below KEYS")
    }

    /// A change is on its way.
    pub(super) fn sent(&mut self, key: Key, change: Change, now: Instant) {
        let track = self.track(key);
        match change {
            Change::Put(write) => {
                track.puts.retain(|put| match put.fate {
                    Fate::Unknown(since) => now.duration_since(since) < HOPELESS,
                    Fate::Sent | Fate::Acknowledged(_) => true,
                });
                track.puts.push(Put { write, fate: Fate::Sent });
            }
            Change::Delete => track.deleting = true,
        }
    }

    /// It was acknowledged.
    ///
    /// # Errors
    /// Its event came at another revision, or its revision passed without it.
    pub(super) fn acknowledged(
        &mut self,
        key: Key,
        change: Change,
        revision: Revision,
    ) -> Result<(), Violation> {
        let is_past = revision <= self.delivered;
        let track = self.track(key);
        match change {
            Change::Put(write) => {
                if let Some((landed, delivered)) = track.landed.take_if(|landed| landed.0 == write)
                {
                    let misplaced = Violation::Misplaced {
                        key,
                        write: landed,
                        acknowledged: revision,
                        delivered,
                    };
                    return if delivered == revision { Ok(()) } else { Err(misplaced) };
                }
                if let Some(put) = track.puts.iter_mut().find(|put| put.write == write) {
                    put.fate = Fate::Acknowledged(revision);
                }
            }
            Change::Delete => {
                track.deleting = false;
                let named = track.deletions.iter().position(|deleted| *deleted == revision);
                if let Some(named) = named {
                    track.deletions.swap_remove(named);
                }
                track.settle_deletions(key)?;
                if named.is_some() {
                    return Ok(());
                }
            }
        }
        if is_past {
            return Err(Violation::Missing { key, change, revision });
        }
        match self.awaited.insert(revision, (key, change)) {
            None => Ok(()),
            Some((other, other_change)) => {
                Err(Violation::Shared { revision, key, change, other, other_change })
            }
        }
    }

    /// It certainly did not happen.
    ///
    /// # Errors
    /// Its event has come.
    pub(super) fn refused(&mut self, key: Key, change: Change) -> Result<(), Violation> {
        let track = self.track(key);
        match change {
            Change::Put(write) => {
                track.puts.retain(|put| put.write != write);
                match track.landed.take_if(|landed| landed.0 == write) {
                    Some((_, delivered)) => Err(Violation::Misled { key, change, delivered }),
                    None => Ok(()),
                }
            }
            Change::Delete => {
                track.deleting = false;
                track.settle_deletions(key)
            }
        }
    }

    /// Nobody will say whether it happened.
    ///
    /// # Errors
    /// More deletions have come than were asked for.
    pub(super) fn unknown(
        &mut self,
        key: Key,
        change: Change,
        now: Instant,
    ) -> Result<(), Violation> {
        let track = self.track(key);
        match change {
            Change::Put(write) => {
                track.landed.take_if(|landed| landed.0 == write);
                if let Some(put) = track.puts.iter_mut().find(|put| put.write == write) {
                    put.fate = Fate::Unknown(now);
                }
                Ok(())
            }
            Change::Delete => {
                track.deleting = false;
                track.deletes_unknown += 1;
                track.settle_deletions(key)
            }
        }
    }

    /// The key must be gone by a revision.
    ///
    /// # Errors
    /// Events have come so far, and it is not.
    pub(super) fn gone_by(&mut self, key: Key, revision: Revision) -> Result<(), Violation> {
        if self.delivered < revision {
            self.ending.insert((revision, key));
            return Ok(());
        }
        self.track(key).check_gone(key, revision)
    }

    /// An event has come, the first time by any watch.
    pub(super) fn deliver(&mut self, event: Event, wrong: &mut Vec<Violation>) {
        let revision = event.revision();
        self.pass(revision, wrong);
        self.delivered = self.delivered.max(revision);
        let key = event.key();
        let change = match event {
            Event::Put(found) => Change::Put(found.write),
            Event::Delete { .. } => Change::Delete,
        };
        let is_awaited = self.awaited.get(&revision) == Some(&(key, change));
        if is_awaited {
            self.awaited.remove(&revision);
        }
        let track = self.track(key);
        wrong.extend(track.follow(&event).err());
        match change {
            Change::Put(write) => match track.take_put(write) {
                None => wrong.push(Violation::Unsent { key, write, delivered: revision }),
                Some(Fate::Sent) => track.landed = Some((write, revision)),
                Some(Fate::Unknown(_)) => {}
                Some(Fate::Acknowledged(acknowledged)) => {
                    if acknowledged != revision {
                        self.awaited.remove(&acknowledged);
                        let delivered = revision;
                        wrong.push(Violation::Misplaced { key, write, acknowledged, delivered });
                    }
                }
            },
            Change::Delete => {
                if !is_awaited {
                    track.deletions.push(revision);
                    wrong.extend(track.check_deletions(key).err());
                }
            }
        }
    }

    /// No event below `revision` can come any more.
    pub(super) fn pass(&mut self, revision: Revision, wrong: &mut Vec<Violation>) {
        while let Some(first) = self.awaited.first_entry().filter(|first| *first.key() < revision) {
            let (revision, (key, change)) = first.remove_entry();
            if let Change::Put(write) = change {
                self.track(key).take_put(write);
            }
            wrong.push(Violation::Missing { key, change, revision });
        }
        while let Some((by, key)) = self.ending.first().copied().filter(|(by, _)| *by < revision) {
            self.ending.remove(&(by, key));
            wrong.extend(self.track(key).check_gone(key, by).err());
        }
    }
}

impl Track {
    fn take_put(&mut self, write: Write) -> Option<Fate> {
        let index = self.puts.iter().position(|put| put.write == write)?;
        Some(self.puts.swap_remove(index).fate)
    }

    /// Replays an event.
    fn follow(&mut self, event: &Event) -> Result<(), Violation> {
        let before = self.now;
        let (key, delivered) = (event.key(), event.revision());
        let describe =
            |version: i64, created: Revision| format!("version {version}, created {created}");
        match event {
            Event::Put(found) => {
                self.now = Some(*found);
                let (version, created) =
                    before.map_or((1, delivered), |b| (b.version + 1, b.create_revision));
                if (found.version, found.create_revision) != (version, created) {
                    let expected = describe(version, created);
                    let got = describe(found.version, found.create_revision);
                    return Err(Violation::Gap { key, delivered, expected, got });
                }
            }
            Event::Delete { .. } => {
                self.now = None;
                if before.is_none() {
                    let expected = "no deletion, as there was nothing".to_owned();
                    let got = "one".to_owned();
                    return Err(Violation::Gap { key, delivered, expected, got });
                }
            }
        }
        Ok(())
    }

    /// With no delete under way, every deletion that no answer named is of one of unknown outcome.
    fn settle_deletions(&mut self, key: Key) -> Result<(), Violation> {
        let checked = self.check_deletions(key);
        self.deletes_unknown = self.deletes_unknown.saturating_sub(self.deletions.len());
        self.deletions.clear();
        checked
    }

    fn check_deletions(&mut self, key: Key) -> Result<(), Violation> {
        let asked = self.deletes_unknown + usize::from(self.deleting);
        if self.deletions.len() <= asked {
            return Ok(());
        }
        let delivered = self.deletions.pop().unwrap_or_default();
        Err(Violation::UnaskedDelete { key, delivered })
    }

    fn check_gone(&mut self, key: Key, revision: Revision) -> Result<(), Violation> {
        match self.now.filter(|now| now.mod_revision <= revision) {
            None => Ok(()),
            Some(now) => Err(Violation::Outlived { key, revision, found: now.state() }),
        }
    }
}

/// What a track has, in the words of a violation.
pub(super) fn describe(found: Option<Found>) -> String {
    match found {
        None => State::Absent.to_string(),
        Some(found) => {
            let (version, created) = (found.version, found.create_revision);
            format!("{}, version {version}, created {created}", found.state())
        }
    }
}

#[cfg(test)]
mod tests;
