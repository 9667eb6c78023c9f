//! The state as it is now, and who follows it.

use super::{
    Replay, WatchBatch, WatchError, WatchRequest, Watcher,
    mailbox::{Full, Mailbox},
    spans::Spans,
};
use crate::{
    state::{State, View},
    types::{Event, KeyRange, Revision},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::watch;

/// A watcher that is further behind reads from the state first and joins the others when it is
/// nearer: events that came meanwhile need not wait for it in memory, nor can it be too slow for them.
const JOIN_WITHIN_REVISIONS: u64 = 1024;

/// A state that an applier changes, readers look at and watchers follow. Dropping it ends every watch.
#[derive(Debug)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    /// Held over a whole change and its delivery, so that who subscribes sees all of it or none. Taken
    /// before `state`.
    subscribers: Mutex<Subscribers>,
    /// Held by an applier while it changes the state, and by readers for as long as a clone takes.
    state: Mutex<State>,
    /// Everything at or below this revision has been put into mailboxes.
    published: AtomicU64,
    revision: watch::Sender<Revision>,
    /// Whether the shown state has freed what was compacted.
    swept: watch::Sender<bool>,
}

/// Everyone who follows, by what they follow: an event is matched and collected once for each
/// distinct range, and ranges that do not hold its key cost nothing.
#[derive(Debug, Default)]
struct Subscribers {
    groups: BTreeMap<u64, Group>,
    by_range: BTreeMap<KeyRange, u64>,
    spans: Spans,
    next_id: u64,
    closed: bool,
}

#[derive(Debug)]
struct Group {
    range: KeyRange,
    members: BTreeMap<u64, Subscriber>,
}

#[derive(Debug)]
struct Subscriber {
    start: Revision,
    mailbox: Arc<Mailbox>,
    /// The reader's name for this watch.
    watch: i64,
}

/// A place among the subscribers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subscription {
    group: u64,
    member: u64,
}

/// How a watch begins, or goes on after what it read from the state.
#[derive(Debug)]
pub(super) struct Joined {
    /// What to read first.
    pub(super) replay: Option<Replay>,
    /// `None` while too far behind.
    pub(super) subscription: Option<Subscription>,
    /// The newest revision.
    pub(super) current: Revision,
}

impl Hub {
    /// A hub over a state that nobody watches yet.
    #[must_use]
    pub fn new(state: State) -> Self {
        let view = state.view();
        let shared = Shared {
            subscribers: Mutex::default(),
            state: Mutex::new(state),
            published: AtomicU64::new(view.revision().get()),
            revision: watch::Sender::new(view.revision()),
            swept: watch::Sender::new(view.is_swept()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Changes the state, and tells the events that `change` leaves in its second argument to who
    /// follows them. Readers see either nothing of it or all.
    pub fn change<T>(&self, change: impl FnOnce(&mut State, &mut Vec<Arc<Event>>) -> T) -> T {
        let mut events = Vec::new();
        let mut subscribers = self.shared.subscribers();
        // Shown first, so that who has seen an event finds it in the state.
        let (done, revision, swept) = {
            let mut state = self.shared.state();
            let done = change(&mut state, &mut events);
            (done, state.revision(), state.is_swept())
        };
        for changes in events.chunk_by(|a, b| a.kv.mod_revision == b.kv.mod_revision) {
            subscribers.deliver(changes);
        }
        self.shared.published.store(revision.get(), Ordering::Release);
        drop(subscribers);
        tell(&self.shared.revision, revision);
        tell(&self.shared.swept, swept);
        done
    }

    /// Replaces the state by another, whose changes in between are not known: every watch ends. The old
    /// one comes back, to be freed where that may take a while.
    pub fn replace(&self, state: State) -> State {
        let (revision, oldest, swept) = (state.revision(), state.compacted(), state.is_swept());
        let mut subscribers = self.shared.subscribers();
        subscribers.end_all(self.shared.published(), |requested| WatchError::Compacted {
            requested,
            oldest,
        });
        let old = std::mem::replace(&mut *self.shared.state(), state);
        self.shared.published.store(revision.get(), Ordering::Release);
        drop(subscribers);
        self.shared.revision.send_replace(revision);
        tell(&self.shared.swept, swept);
        old
    }

    /// A copy of the newest state, with all that [`View`] does not show; O(answers to requests).
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.state().clone()
    }

    /// Ends every watch; no new one can begin.
    pub fn close(&self) {
        let mut subscribers = self.shared.subscribers();
        subscribers.closed = true;
        subscribers.end_all(self.shared.published(), |_| WatchError::Stopped);
    }

    /// The newest state shown.
    #[must_use]
    pub fn view(&self) -> View {
        self.shared.view()
    }

    /// Follows the newest revision.
    #[must_use]
    pub fn revision(&self) -> watch::Receiver<Revision> {
        self.shared.revision.subscribe()
    }

    /// Follows whether the newest state has freed what was compacted.
    #[must_use]
    pub fn swept(&self) -> watch::Receiver<bool> {
        self.shared.swept.subscribe()
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// How many watchers follow now, those that still catch up not counted.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.shared.subscribers().groups.values().map(|group| group.members.len()).sum()
    }

    /// Begins a watch.
    ///
    /// # Errors
    /// [`WatchError::Compacted`] when `start` is below what is kept.
    pub fn watch(&self, request: WatchRequest) -> Result<Watcher, WatchError> {
        Watcher::begin(Arc::clone(&self.shared), request)
    }
}

/// Wakes those who follow only if it differs.
fn tell<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|now| {
        let changed = *now != value;
        *now = value;
        changed
    });
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    pub(super) fn published(&self) -> Revision {
        Revision::new(self.published.load(Ordering::Acquire))
    }

    /// `start` may be [`Revision::ZERO`] for what comes next.
    pub(super) fn join(
        &self,
        range: &KeyRange,
        start: Revision,
        mailbox: &Arc<Mailbox>,
        watch: i64,
    ) -> Result<Joined, WatchError> {
        let mut subscribers = self.subscribers();
        if subscribers.closed {
            return Err(WatchError::Stopped);
        }
        let view = self.view();
        let current = view.revision();
        let start = if start == Revision::ZERO { current.next() } else { start };
        let oldest = view.compacted();
        // Not `<=`: a watch may start at the compacted revision itself.
        if start < oldest {
            return Err(WatchError::Compacted { requested: start, oldest });
        }
        let missed = current.next().get().saturating_sub(start.get());
        // What is there already comes from the state, what comes later from the mailbox; both meet
        // at `current`, since nothing is published while the lock is held.
        let replay = (missed > 0).then_some(Replay { view, next: start });
        let subscription = (missed <= JOIN_WITHIN_REVISIONS).then(|| {
            let mailbox = Arc::clone(mailbox);
            subscribers.add(range, Subscriber { start, mailbox, watch })
        });
        Ok(Joined { replay, subscription, current })
    }

    pub(super) fn leave(&self, subscription: Subscription) {
        self.subscribers().remove(subscription);
    }

    fn view(&self) -> View {
        self.state().view()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscribers(&self) -> MutexGuard<'_, Subscribers> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscribers {
    fn add(&mut self, range: &KeyRange, subscriber: Subscriber) -> Subscription {
        self.next_id += 2;
        let (member, new_group) = (self.next_id, self.next_id + 1);
        let group = *self.by_range.entry(range.clone()).or_insert(new_group);
        if group == new_group {
            self.spans.insert(range, group);
            let members = BTreeMap::new();
            self.groups.insert(group, Group { range: range.clone(), members });
        }
        if let Some(found) = self.groups.get_mut(&group) {
            found.members.insert(member, subscriber);
        }
        Subscription { group, member }
    }

    fn remove(&mut self, subscription: Subscription) {
        let Some(group) = self.groups.get_mut(&subscription.group) else { return };
        group.members.remove(&subscription.member);
        self.drop_if_empty(subscription.group);
    }

    fn drop_if_empty(&mut self, id: u64) {
        if self.groups.get(&id).is_some_and(|group| group.members.is_empty())
            && let Some(group) = self.groups.remove(&id)
        {
            self.by_range.remove(&group.range);
            self.spans.remove(&group.range);
        }
    }

    /// The changes of one revision.
    fn deliver(&mut self, changes: &[Arc<Event>]) {
        let Some(revision) = changes.first().map(|event| event.kv.mod_revision) else { return };
        let mut matches: BTreeMap<u64, Vec<&Arc<Event>>> = BTreeMap::new();
        for event in changes {
            for group in self.spans.holding(&event.kv.key) {
                matches.entry(group).or_default().push(event);
            }
        }
        // Most followers want all of it, and share one list.
        let mut all: Option<WatchBatch> = None;
        for (id, matching) in matches {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let batch = |events| WatchBatch { revision, events, memo: Arc::default() };
            if matching.len() == changes.len() {
                group.deliver(all.get_or_insert_with(|| batch(changes.into())));
            } else {
                group.deliver(&batch(matching.into_iter().cloned().collect()));
            }
            self.drop_if_empty(id);
        }
    }

    fn end_all(&mut self, published: Revision, reason: impl Fn(Revision) -> WatchError) {
        for subscriber in self.groups.values().flat_map(|group| group.members.values()) {
            let resume = subscriber.start.max(published.next());
            subscriber.mailbox.end(subscriber.watch, reason(resume), resume);
        }
        let (next_id, closed) = (self.next_id, self.closed);
        *self = Self { next_id, closed, ..Self::default() };
    }
}

impl Group {
    fn deliver(&mut self, batch: &WatchBatch) {
        self.members.retain(|_, subscriber| {
            if subscriber.start > batch.revision {
                return true;
            }
            match subscriber.mailbox.put(subscriber.watch, batch.clone()) {
                Ok(()) => true,
                Err(Full) => {
                    let last = Revision::new(batch.revision.get().saturating_sub(1));
                    let slow = WatchError::TooSlow { last };
                    subscriber.mailbox.end(subscriber.watch, slow, batch.revision);
                    false
                }
            }
        });
    }
}
