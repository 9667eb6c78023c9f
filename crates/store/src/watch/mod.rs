//! Watches: from any kept revision, in order, each event once, bounded.

mod hub;
mod mailbox;
mod memo;
mod set;
mod spans;

pub use hub::Hub;
pub use memo::Memo;
pub use set::WatchSet;

use crate::{
    state::View,
    types::{Event, KeyRange, Revision},
};
use hub::{Joined, Shared, Subscription};
use mailbox::{Mailbox, Mailed};
use std::{future::poll_fn, sync::Arc, task::Poll};

/// What to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchRequest {
    /// The keys.
    pub range: KeyRange,
    /// First revision to see; [`Revision::ZERO`] is "from the next change on". May be in the future.
    pub start: Revision,
}

/// All matching events of one revision, in order within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchBatch {
    /// The revision they share.
    pub revision: Revision,
    /// At least one; shared by all watchers of the same range.
    pub events: Arc<[Arc<Event>]>,
    /// What those who share it make of it.
    pub memo: Arc<Memo>,
}

/// What a watcher receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchMessage {
    /// Something changed.
    Events(WatchBatch),
    /// The watch has ended; nothing follows. Resume from `resume` with a new one.
    Canceled {
        /// Why.
        reason: WatchError,
        /// First revision not delivered.
        resume: Revision,
    },
}

/// Why a watch could not start or has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The start is no longer kept, or a snapshot replaced the state.
    #[error("revision {requested} is compacted, oldest kept is {oldest}")]
    Compacted {
        /// By the watcher.
        requested: Revision,
        /// First revision that can be watched.
        oldest: Revision,
    },
    /// The watcher did not read as fast as the store changed.
    #[error("too slow: fell behind revision {last}")]
    TooSlow {
        /// Last revision queued for it.
        last: Revision,
    },
    /// The store is gone.
    #[error("store stopped")]
    Stopped,
}

/// The name of a watch that has a mailbox to itself.
const ALONE: i64 = 0;

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watcher {
    hub: Arc<Shared>,
    range: KeyRange,
    mailbox: Arc<Mailbox>,
    /// `None` while too far behind, and after the end.
    subscription: Option<Subscription>,
    /// What is still to be read from the state.
    replay: Option<Replay>,
    /// Everything at or below has been returned.
    returned: Revision,
    ended: bool,
}

/// A state whose changes are read one revision at a time.
#[derive(Debug)]
struct Replay {
    view: View,
    next: Revision,
}

/// What one look at a [`Replay`] gave.
enum Replayed {
    Batch(WatchBatch),
    /// Nothing among many changes; there are more.
    NothingYet,
    /// It holds no more.
    Done,
}

/// Changes that a replay looks at before it lets other tasks run.
const LOOK_AT: usize = 1024;

impl Replay {
    fn step(&mut self, range: &KeyRange) -> Replayed {
        let mut looked_at = 0;
        for (revision, events) in self.view.changes_from(self.next) {
            self.next = revision.next();
            let matching = events.iter().filter(|event| range.contains(&event.kv.key));
            let events: Arc<[Arc<Event>]> = match matching.clone().count() {
                0 => {
                    looked_at += events.len();
                    if looked_at >= LOOK_AT {
                        return Replayed::NothingYet;
                    }
                    continue;
                }
                all if all == events.len() => Arc::clone(events),
                _ => matching.cloned().collect(),
            };
            return Replayed::Batch(WatchBatch { revision, events, memo: Arc::default() });
        }
        Replayed::Done
    }
}

impl Watcher {
    fn begin(hub: Arc<Shared>, request: WatchRequest) -> Result<Self, WatchError> {
        let WatchRequest { range, start } = request;
        let mailbox = Arc::new(Mailbox::default());
        let Joined { replay, subscription, current } = hub.join(&range, start, &mailbox, ALONE)?;
        // A start in the future promises nothing about revisions that are not there.
        let before = match start {
            Revision::ZERO => current,
            start => current.min(Revision::new(start.get() - 1)),
        };
        let ended = false;
        Ok(Self { hub, range, mailbox, subscription, replay, returned: before, ended })
    }

    /// The next message; `None` after [`WatchMessage::Canceled`]. Safe to drop while waiting.
    pub async fn next(&mut self) -> Option<WatchMessage> {
        while !self.ended {
            if let Some(replay) = &mut self.replay {
                match replay.step(&self.range) {
                    Replayed::Batch(batch) => {
                        self.returned = batch.revision;
                        return Some(WatchMessage::Events(batch));
                    }
                    Replayed::NothingYet => {
                        self.returned = Revision::new(replay.next.get() - 1);
                        let_others_run().await;
                    }
                    Replayed::Done => {
                        self.returned = self.returned.max(replay.view.revision());
                        self.replay = None;
                    }
                }
            } else if self.subscription.is_none() {
                let start = self.returned.next();
                match self.hub.join(&self.range, start, &self.mailbox, ALONE) {
                    Ok(joined) => {
                        self.replay = joined.replay;
                        self.subscription = joined.subscription;
                    }
                    Err(reason) => return Some(self.end(reason, start)),
                }
            } else {
                match self.mailbox.take() {
                    Some((_, Mailed::Batch(batch))) => {
                        self.returned = batch.revision;
                        return Some(WatchMessage::Events(batch));
                    }
                    Some((_, Mailed::End(reason, resume))) => {
                        return Some(self.end(reason, resume));
                    }
                    None => self.mailbox.arrival().await,
                }
            }
        }
        None
    }

    /// Every event of this watch at or below this revision has been returned by [`Watcher::next`].
    #[must_use]
    pub fn progress(&self) -> Revision {
        // The order matters: what is published by now was put into the mailbox before.
        let published = self.hub.published();
        let follows = self.subscription.is_some() && self.replay.is_none();
        if follows && self.mailbox.is_idle() {
            return self.returned.max(published);
        }
        self.returned
    }

    fn end(&mut self, reason: WatchError, resume: Revision) -> WatchMessage {
        self.ended = true;
        WatchMessage::Canceled { reason, resume }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(subscription) = self.subscription {
            self.hub.leave(subscription);
        }
    }
}

/// Ready the second time it is asked.
async fn let_others_run() {
    let mut asked = false;
    poll_fn(|context| {
        if asked {
            return Poll::Ready(());
        }
        asked = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
