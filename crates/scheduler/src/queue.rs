//! Which Pod is next: active ones by priority and age, the others when something has changed.

use client::informer::Key;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Bounds of the wait after an attempt that told nothing of the Pod.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// After this time an unschedulable Pod is tried again, whatever has happened (SCH-3).
const FLUSH: Duration = Duration::from_secs(300);

/// Highest priority first, then who waits longest.
type Rank = (std::cmp::Reverse<i32>, u64);

/// The queue (SCH-1…SCH-4). Time is the caller's.
#[derive(Debug, Default)]
pub struct Queue {
    active: BTreeMap<Rank, Key>,
    known: BTreeMap<Key, Waiting>,
    arrivals: u64,
    /// Counts events that could help somebody: one that came while a Pod was being tried is not
    /// lost to it (SCH-4).
    events: u64,
}

#[derive(Debug, Clone)]
struct Waiting {
    rank: Rank,
    place: Place,
    attempts: u32,
    /// Attempts in a row that told nothing of it.
    interrupted: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Active,
    /// Being tried; the number of events when it was taken.
    Trying(u64),
    Backoff(Instant),
    Unschedulable {
        since: Instant,
        backoff_until: Instant,
    },
}

impl Queue {
    /// A Pod wants a node.
    pub fn add(&mut self, key: &Key, priority: i32) {
        if !self.known.contains_key(key) {
            self.arrivals += 1;
            let rank = (std::cmp::Reverse(priority), self.arrivals);
            self.active.insert(rank, key.clone());
            let waiting = Waiting { rank, place: Place::Active, attempts: 0, interrupted: 0 };
            self.known.insert(key.clone(), waiting);
        }
    }

    /// It does not want one any more.
    pub fn remove(&mut self, key: &Key) {
        if let Some(waiting) = self.known.remove(key) {
            self.active.remove(&waiting.rank);
        }
    }

    /// The next Pod to try.
    pub fn pop(&mut self, now: Instant) -> Option<Key> {
        self.promote(now);
        let (_, key) = self.active.pop_first()?;
        if let Some(waiting) = self.known.get_mut(&key) {
            waiting.place = Place::Trying(self.events);
        }
        Some(key)
    }

    /// No node takes it now: it waits for an event, or not, if one came meanwhile.
    pub fn unschedulable(&mut self, key: &Key, now: Instant) {
        let events = self.events;
        let Some(waiting) = self.known.get_mut(key) else { return };
        let until = now + waiting.refused();
        waiting.place = match waiting.place {
            Place::Trying(at) if at != events => Place::Backoff(until),
            Place::Active | Place::Trying(_) | Place::Backoff(_) | Place::Unschedulable { .. } => {
                Place::Unschedulable { since: now, backoff_until: until }
            }
        };
    }

    /// Its binding failed: an error, not a refusal (SCH-5).
    pub fn failed(&mut self, key: &Key, now: Instant) {
        if let Some(waiting) = self.known.get_mut(key) {
            waiting.place = Place::Backoff(now + waiting.refused());
        }
    }

    /// Its binding was not decided, for want of a majority: that is no fault of the Pod's, and may be over at once
    /// (SCH-2: errors have a counter of their own).
    pub fn interrupted(&mut self, key: &Key, now: Instant) {
        if let Some(waiting) = self.known.get_mut(key) {
            waiting.interrupted += 1;
            let wait = doubled(RETRY_MIN, waiting.interrupted, RETRY_MAX);
            waiting.place = Place::Backoff(now + wait);
        }
    }

    /// Something has changed that could make room for somebody.
    pub fn wake(&mut self, now: Instant) {
        self.events += 1;
        for waiting in self.known.values_mut() {
            if let Place::Unschedulable { backoff_until, .. } = waiting.place {
                waiting.place = Place::Backoff(backoff_until.max(now));
            }
        }
    }

    /// When [`Queue::pop`] may have another Pod, if nothing else happens.
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        self.known
            .values()
            .filter_map(|waiting| match waiting.place {
                Place::Backoff(until) => Some(until),
                Place::Unschedulable { since, .. } => Some(since + FLUSH),
                Place::Active | Place::Trying(_) => None,
            })
            .min()
    }

    fn promote(&mut self, now: Instant) {
        let due: BTreeSet<Key> = self
            .known
            .iter()
            .filter(|(_, waiting)| match waiting.place {
                Place::Backoff(until) => until <= now,
                Place::Unschedulable { since, .. } => since + FLUSH <= now,
                Place::Active | Place::Trying(_) => false,
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            if let Some(waiting) = self.known.get_mut(&key) {
                waiting.place = Place::Active;
                self.active.insert(waiting.rank, key);
            }
        }
    }
}

impl Waiting {
    /// One more attempt has told against it: how long it waits.
    fn refused(&mut self) -> Duration {
        self.attempts += 1;
        self.interrupted = 0;
        doubled(BACKOFF_MIN, self.attempts, BACKOFF_MAX)
    }
}

fn doubled(first: Duration, attempts: u32, most: Duration) -> Duration {
    first.saturating_mul(1 << attempts.saturating_sub(1).min(8)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { namespace: "d".to_owned(), name: name.to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_during_an_attempt_is_not_lost() {
        // SCH-4, trap 25
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.add(&key("a"), 0);
        queue.add(&key("b"), 0);
        assert_eq!(queue.pop(now), Some(key("a")));
        queue.wake(now);
        queue.unschedulable(&key("a"), now);
        assert_eq!(queue.pop(now), Some(key("b")));
        queue.unschedulable(&key("b"), now);
        let later = now + BACKOFF_MIN;
        assert_eq!(queue.pop(later), Some(key("a")), "its node came free while it was tried");
        assert_eq!(queue.pop(later), None, "nothing has changed since b was refused");
        queue.wake(later);
        assert_eq!(queue.pop(later), Some(key("b")));
    }

    #[tokio::test(start_paused = true)]
    async fn priority_goes_first_and_backoff_doubles() {
        // SCH-1, SCH-2
        let mut queue = Queue::default();
        let mut now = Instant::now();
        queue.add(&key("low"), 0);
        queue.add(&key("high"), 10);
        assert_eq!(queue.pop(now), Some(key("high")));
        queue.remove(&key("high"));
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert_eq!(queue.pop(now), Some(key("low")));
            queue.failed(&key("low"), now);
            let wait = Duration::from_secs(seconds);
            assert_eq!(queue.pop(now + wait - Duration::from_millis(1)), None);
            now += wait;
        }
        assert_eq!(queue.next_wake(), Some(now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lead_that_is_in_doubt_is_not_held_against_a_pod() {
        // SCH-2
        let mut queue = Queue::default();
        let mut now = Instant::now();
        queue.add(&key("a"), 0);
        for millis in [50, 100, 200, 400, 800, 1000, 1000] {
            assert_eq!(queue.pop(now), Some(key("a")));
            queue.interrupted(&key("a"), now);
            let wait = Duration::from_millis(millis);
            assert_eq!(queue.pop(now + wait - Duration::from_millis(1)), None);
            now += wait;
        }
        assert_eq!(queue.pop(now), Some(key("a")));
        queue.failed(&key("a"), now);
        assert_eq!(queue.next_wake(), Some(now + BACKOFF_MIN), "its first refusal");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_too_long_is_tried_anyway() {
        // SCH-3
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.add(&key("a"), 0);
        queue.pop(now);
        queue.unschedulable(&key("a"), now);
        assert_eq!(queue.pop(now + Duration::from_secs(299)), None);
        assert_eq!(queue.pop(now + FLUSH), Some(key("a")));
    }
}
