//! Watches: from any kept revision, in order, each event once, bounded.

use crate::{
    state::View,
    types::{Event, KeyRange, Revision},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{mpsc, watch};

/// Batches that wait for one watcher. At this many it is cancelled and must resume.
const QUEUE: usize = 1024;

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

/// Where an applier puts what it did, and where watchers come from.
#[derive(Debug)]
pub struct Hub {
    inner: Mutex<Inner>,
    published: Arc<AtomicU64>,
    revision: watch::Sender<Revision>,
}

#[derive(Debug)]
struct Inner {
    view: View,
    next_id: u64,
    /// Watchers by what they follow: an event is matched and copied once for each distinct range.
    ranges: BTreeMap<KeyRange, BTreeMap<u64, Subscriber>>,
    closed: bool,
}

#[derive(Debug)]
struct Subscriber {
    start: Revision,
    queue: mpsc::Sender<WatchBatch>,
    end: Arc<OnceLock<WatchError>>,
}

impl Hub {
    /// A hub over a state that nobody watches yet.
    #[must_use]
    pub fn new(view: View) -> Self {
        let revision = view.revision();
        Self {
            inner: Mutex::new(Inner { view, next_id: 0, ranges: BTreeMap::new(), closed: false }),
            published: Arc::new(AtomicU64::new(revision.get())),
            revision: watch::Sender::new(revision),
        }
    }

    /// Shows the state after some commands, and their events to who follows them.
    pub fn publish(&self, view: View, events: &[Arc<Event>]) {
        let revision = view.revision();
        {
            let mut inner = self.lock();
            inner.view = view;
            for group in events.chunk_by(|a, b| a.kv.mod_revision == b.kv.mod_revision) {
                inner.deliver(group);
            }
            self.published.store(revision.get(), Ordering::Release);
        }
        self.revision.send_if_modified(|now| {
            let changed = *now != revision;
            *now = revision;
            changed
        });
    }

    /// Replaces the state by another, whose changes in between are not known: every watch ends.
    pub fn reset(&self, view: View) {
        let revision = view.revision();
        let mut inner = self.lock();
        let oldest = view.revision().next();
        for subscriber in inner.ranges.values().flat_map(BTreeMap::values) {
            let _ =
                subscriber.end.set(WatchError::Compacted { requested: subscriber.start, oldest });
        }
        inner.ranges.clear();
        inner.view = view;
        self.published.store(revision.get(), Ordering::Release);
        drop(inner);
        self.revision.send_replace(revision);
    }

    /// Ends every watch; no new one can begin.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        for subscriber in inner.ranges.values().flat_map(BTreeMap::values) {
            let _ = subscriber.end.set(WatchError::Stopped);
        }
        inner.ranges.clear();
    }

    /// The newest state shown.
    #[must_use]
    pub fn view(&self) -> View {
        self.lock().view.clone()
    }

    /// Follows the newest revision.
    #[must_use]
    pub fn revision(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Begins a watch.
    ///
    /// # Errors
    /// [`WatchError::Compacted`] when `start` is below what is kept.
    pub fn watch(&self, request: WatchRequest) -> Result<Watcher, WatchError> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(WatchError::Stopped);
        }
        let current = inner.view.revision();
        let start = if request.start == Revision::ZERO { current.next() } else { request.start };
        let oldest = inner.view.compacted();
        // Not `<=`: a watch may start at the compacted revision itself.
        if start < oldest {
            return Err(WatchError::Compacted { requested: start, oldest });
        }
        let (queue, receiver) = mpsc::channel(QUEUE);
        let end = Arc::new(OnceLock::new());
        inner.next_id += 1;
        let id = inner.next_id;
        let subscriber = Subscriber { start, queue, end: Arc::clone(&end) };
        inner.ranges.entry(request.range.clone()).or_default().insert(id, subscriber);
        Ok(Watcher {
            // What is there already comes from the state, what comes later from the queue; both
            // meet at `current`, since nothing is published while the lock is held.
            replay: (start <= current).then(|| Replay { view: inner.view.clone(), next: start }),
            range: request.range,
            returned: Revision::new(start.get().saturating_sub(1)),
            queue: receiver,
            published: Arc::clone(&self.published),
            end,
            ended: false,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn deliver(&mut self, group: &[Arc<Event>]) {
        let Some(revision) = group.first().map(|event| event.kv.mod_revision) else { return };
        self.ranges.retain(|range, subscribers| {
            let matching: Vec<&Arc<Event>> =
                group.iter().filter(|event| range.contains(&event.kv.key)).collect();
            if matching.is_empty() {
                // A watcher that was dropped is noticed at the next event of its range; a range
                // without events costs nothing but its entry.
                return true;
            }
            let events: Arc<[Arc<Event>]> = matching.into_iter().cloned().collect();
            subscribers.retain(|_, subscriber| {
                if subscriber.start > revision {
                    return !subscriber.queue.is_closed();
                }
                let batch = WatchBatch { revision, events: Arc::clone(&events) };
                match subscriber.queue.try_send(batch) {
                    Ok(()) => true,
                    Err(mpsc::error::TrySendError::Closed(_)) => false,
                    Err(mpsc::error::TrySendError::Full(_)) => {
                        let last = Revision::new(revision.get().saturating_sub(1));
                        let _ = subscriber.end.set(WatchError::TooSlow { last });
                        false
                    }
                }
            });
            !subscribers.is_empty()
        });
    }
}

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watcher {
    range: KeyRange,
    replay: Option<Replay>,
    returned: Revision,
    queue: mpsc::Receiver<WatchBatch>,
    published: Arc<AtomicU64>,
    end: Arc<OnceLock<WatchError>>,
    ended: bool,
}

#[derive(Debug)]
struct Replay {
    view: View,
    next: Revision,
}

impl Replay {
    /// The next revision with a matching event.
    fn step(&mut self, range: &KeyRange) -> Option<WatchBatch> {
        for (revision, events) in self.view.changes_from(self.next) {
            let events: Vec<_> =
                events.iter().filter(|e| range.contains(&e.kv.key)).cloned().collect();
            if !events.is_empty() {
                self.next = revision.next();
                return Some(WatchBatch { revision, events: events.into() });
            }
        }
        None
    }
}

impl Watcher {
    /// The next message; `None` after [`WatchMessage::Canceled`]. Safe to drop while waiting.
    pub async fn next(&mut self) -> Option<WatchMessage> {
        if let Some(replay) = &mut self.replay {
            if let Some(batch) = replay.step(&self.range) {
                self.returned = batch.revision;
                return Some(WatchMessage::Events(batch));
            }
            self.returned = self.returned.max(replay.view.revision());
            self.replay = None;
        }
        if self.ended {
            return None;
        }
        if let Some(batch) = self.queue.recv().await {
            self.returned = batch.revision;
            return Some(WatchMessage::Events(batch));
        }
        self.ended = true;
        let reason = self.end.get().cloned().unwrap_or(WatchError::Stopped);
        let resume = match &reason {
            // Everything queued has been returned by now, so it is safe to go on behind `last`.
            WatchError::TooSlow { last } => self.returned.max(*last).next(),
            WatchError::Compacted { .. } | WatchError::Stopped => self.returned.next(),
        };
        Some(WatchMessage::Canceled { reason, resume })
    }

    /// Every event of this watch at or below this revision has been returned by [`Watcher::next`].
    #[must_use]
    pub fn progress(&self) -> Revision {
        // The order matters: what is published by now was queued before.
        let published = Revision::new(self.published.load(Ordering::Acquire));
        if self.replay.is_none() && self.queue.is_empty() && self.end.get().is_none() {
            return self.returned.max(published);
        }
        self.returned
    }
}
