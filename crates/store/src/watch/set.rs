//! Many watches that are read as one: what a client's stream of watches is.

use super::{
    Replay, Replayed, WatchBatch, WatchError, WatchMessage, WatchRequest,
    hub::{Hub, Joined, Shared, Subscription},
    let_others_run,
    mailbox::{Mailbox, Mailed},
};
use crate::types::{KeyRange, Revision};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// Revisions that wait for one watch while it reads earlier ones from the state. Beyond it the watch
/// gives up its place among the followers and reads those, too, from the state.
const HELD_MAX: usize = 4096;

/// Watches by an id of the caller's. They share one mailbox, so that a thousand of them cost one wake.
/// A watch that cannot keep up, or under which the state was replaced, reads from the state again
/// instead of ending, as long as what it has missed is kept.
#[derive(Debug)]
pub struct WatchSet {
    hub: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    watches: BTreeMap<i64, Watch>,
    /// Those that do not (only) read from the mailbox, in turn.
    behind: BTreeSet<i64>,
    /// Whose turn it is among them.
    turn: i64,
}

#[derive(Debug)]
struct Watch {
    range: KeyRange,
    /// `None` while too far behind.
    subscription: Option<Subscription>,
    /// What is still to be read from the state.
    replay: Option<Replay>,
    /// What came meanwhile.
    held: VecDeque<WatchBatch>,
    /// Everything at or below has been returned.
    returned: Revision,
    /// Nothing before it is asked for; it may be in the future.
    start: Revision,
}

impl WatchSet {
    pub(super) fn new(hub: Arc<Shared>) -> Self {
        Self {
            hub,
            mailbox: Arc::new(Mailbox::default()),
            watches: BTreeMap::new(),
            behind: BTreeSet::new(),
            turn: 0,
        }
    }

    /// Begins a watch under an id that is free; the newest revision.
    ///
    /// # Errors
    /// [`WatchError::Compacted`] when its start is no longer kept; [`WatchError::Stopped`].
    pub fn add(&mut self, id: i64, request: WatchRequest) -> Result<Revision, WatchError> {
        assert!(!self.watches.contains_key(&id), "watch {id} is there already");
        let WatchRequest { range, start } = request;
        let Joined { replay, subscription, current } =
            self.hub.join(&range, start, &self.mailbox, id)?;
        // A start in the future promises nothing about revisions that are not there.
        let returned = match start {
            Revision::ZERO => current,
            start => current.min(Revision::new(start.get() - 1)),
        };
        if replay.is_some() || subscription.is_none() {
            self.behind.insert(id);
        }
        let start = if start == Revision::ZERO { current.next() } else { start };
        let held = VecDeque::new();
        self.watches.insert(id, Watch { range, subscription, replay, held, returned, start });
        self.mailbox.set_watches(self.watches.len());
        Ok(current)
    }

    /// Ends a watch; `false` if there is none. Nothing of it is returned any more.
    pub fn remove(&mut self, id: i64) -> bool {
        let Some(watch) = self.watches.remove(&id) else { return false };
        if let Some(subscription) = watch.subscription {
            self.hub.leave(subscription);
        }
        self.behind.remove(&id);
        self.mailbox.set_watches(self.watches.len());
        self.mailbox.forget(id);
        true
    }

    /// Whether there is a watch of this id.
    #[must_use]
    pub fn contains(&self, id: i64) -> bool {
        self.watches.contains_key(&id)
    }

    /// Number of watches.
    #[must_use]
    pub fn len(&self) -> usize {
        self.watches.len()
    }

    /// Whether there is no watch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    /// The next message of any watch; `None` when the last one that was behind has caught up, which may
    /// be news for who waits for [`WatchSet::progress`]. A watch that was canceled is gone. Waits for
    /// ever when there is no watch. Safe to drop while waiting.
    pub async fn next(&mut self) -> Option<(i64, WatchMessage)> {
        let mut was_behind = !self.behind.is_empty();
        loop {
            if let Some(found) = self.try_next() {
                return Some(found);
            }
            if !self.behind.is_empty() {
                was_behind = true;
                let_others_run().await;
            } else if was_behind {
                return None;
            } else {
                self.mailbox.arrival().await;
            }
        }
    }

    /// A message, if there is one now; while some watch is behind, there may be one the next time.
    pub fn try_next(&mut self) -> Option<(i64, WatchMessage)> {
        if let Some(found) = self.catch_up() {
            return Some(found);
        }
        while let Some((id, mailed)) = self.mailbox.take() {
            let Some(watch) = self.watches.get_mut(&id) else { continue };
            match mailed {
                Mailed::Batch(batch) if self.behind.contains(&id) => {
                    watch.hold(batch, &self.hub);
                }
                Mailed::Batch(batch) => {
                    watch.returned = batch.revision;
                    return Some((id, WatchMessage::Events(batch)));
                }
                // Also where another state took the place of this one: it may know all the same what
                // happened since.
                Mailed::End(WatchError::TooSlow { .. } | WatchError::Compacted { .. }, _) => {
                    watch.subscription = None;
                    self.behind.insert(id);
                }
                Mailed::End(reason @ WatchError::Stopped, _) => {
                    let resume = watch.returned.next();
                    return self.canceled(id, reason, resume);
                }
            }
        }
        None
    }

    /// One step of one of the watches that are behind.
    fn catch_up(&mut self) -> Option<(i64, WatchMessage)> {
        let next = self.behind.range(self.turn..).next().or_else(|| self.behind.first());
        let id = *next?;
        self.turn = id.wrapping_add(1);
        let watch = self.watches.get_mut(&id)?;
        if let Some(replay) = &mut watch.replay {
            match replay.step(&watch.range) {
                Replayed::Batch(batch) => return Some((id, watch.give(batch))),
                Replayed::NothingYet => {
                    watch.returned = Revision::new(replay.next.get() - 1);
                }
                Replayed::Done => {
                    watch.returned = watch.returned.max(replay.view.revision());
                    watch.replay = None;
                }
            }
            return None;
        }
        if let Some(batch) = watch.held.pop_front() {
            return Some((id, watch.give(batch)));
        }
        if watch.subscription.is_some() {
            self.behind.remove(&id);
            return None;
        }
        let start = watch.returned.next().max(watch.start);
        match self.hub.join(&watch.range, start, &self.mailbox, id) {
            Ok(Joined { replay, subscription, .. }) => {
                watch.replay = replay;
                watch.subscription = subscription;
                None
            }
            Err(reason) => self.canceled(id, reason, start),
        }
    }

    fn canceled(
        &mut self,
        id: i64,
        reason: WatchError,
        resume: Revision,
    ) -> Option<(i64, WatchMessage)> {
        self.remove(id);
        Some((id, WatchMessage::Canceled { reason, resume }))
    }

    /// Every event of every watch at or below this revision has been returned; `None` while some watch
    /// is behind or something waits.
    #[must_use]
    pub fn progress(&self) -> Option<Revision> {
        // The order matters: what is published by now was put into the mailbox before.
        let published = self.hub.published();
        (self.behind.is_empty() && self.mailbox.is_idle()).then_some(published)
    }
}

impl Watch {
    fn give(&mut self, batch: WatchBatch) -> WatchMessage {
        self.returned = batch.revision;
        WatchMessage::Events(batch)
    }

    fn hold(&mut self, batch: WatchBatch, hub: &Shared) {
        let Some(subscription) = self.subscription else { return };
        if self.held.len() < HELD_MAX {
            self.held.push_back(batch);
        } else {
            // What it will read again from the state begins behind what it holds.
            hub.leave(subscription);
            self.subscription = None;
        }
    }
}

impl Drop for WatchSet {
    fn drop(&mut self) {
        for watch in self.watches.values() {
            if let Some(subscription) = watch.subscription {
                self.hub.leave(subscription);
            }
        }
    }
}

impl Hub {
    /// An empty set of watches of this hub.
    #[must_use]
    pub fn watch_set(&self) -> WatchSet {
        WatchSet::new(self.shared())
    }
}
