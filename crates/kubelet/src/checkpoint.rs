//! How far the end of a Pod has come, kept over a restart of the agent (DEL-32).

use crate::{
    ending::Termination,
    journal::{Found, Journal},
    runtime::{ContainerId, UnixMicros},
    step::{Memory, Verdict},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

const PREFIX: &str = "pod/";
/// Two instants this close are one: they come from readings of two clocks.
const SAME_MICROS: u64 = 500_000;

/// What the worker's memory of an ending is in the wall clock's terms. A clock that is set between two
/// lives of an agent moves its deadlines: never before what was begun, never below the floor (DEL-20).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    termination: Option<Ending>,
    verdict: Option<(String, String, bool)>,
    /// preStop hooks that ended; one that did not is run again.
    hooks: BTreeMap<String, UnixMicros>,
    asked: BTreeMap<String, UnixMicros>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Ending {
    since: UnixMicros,
    grace: Duration,
    shortest: Duration,
    cap: Option<UnixMicros>,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Both clocks, read at once.
#[derive(Clone, Copy)]
struct Clocks {
    now: Instant,
    wall: UnixMicros,
}

impl Clocks {
    fn wall(self, at: Instant) -> UnixMicros {
        if at > self.now {
            self.wall.saturating_add(micros(at - self.now))
        } else {
            self.wall.saturating_sub(micros(self.now - at))
        }
    }

    fn instant(self, at: UnixMicros) -> Instant {
        if at > self.wall {
            self.now + Duration::from_micros(at - self.wall)
        } else {
            let past = Duration::from_micros(self.wall - at);
            self.now.checked_sub(past).unwrap_or(self.now)
        }
    }

    /// Of something that has happened.
    fn past(self, at: UnixMicros) -> Instant {
        self.instant(at.min(self.wall))
    }
}

impl Checkpoint {
    /// Of a memory, now.
    pub(crate) fn of(memory: &Memory, now: Instant, wall: UnixMicros) -> Self {
        let clocks = Clocks { now, wall };
        Self {
            termination: memory.termination.map(|termination| Ending {
                since: clocks.wall(termination.since),
                grace: termination.grace,
                shortest: termination.shortest,
                cap: termination.cap.map(|cap| clocks.wall(cap)),
            }),
            verdict: memory.verdict.clone().map(|v| (v.reason, v.message, v.rejected)),
            hooks: memory
                .hooks
                .iter()
                .filter_map(|(id, ended)| Some((id.0.clone(), clocks.wall((*ended)?))))
                .collect(),
            asked: memory.asked.iter().map(|(id, at)| (id.0.clone(), clocks.wall(*at))).collect(),
        }
    }

    /// Whether it says the same, but for the imprecision of two clocks.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let near = |a: u64, b: u64| a.abs_diff(b) < SAME_MICROS;
        let ending = match (self.termination, other.termination) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                near(a.since, b.since)
                    && (a.grace, a.shortest) == (b.grace, b.shortest)
                    && a.cap.is_some() == b.cap.is_some()
                    && near(a.cap.unwrap_or_default(), b.cap.unwrap_or_default())
            }
            (Some(_), None) | (None, Some(_)) => false,
        };
        ending
            && self.verdict == other.verdict
            && self.hooks.keys().eq(other.hooks.keys())
            && self.asked.keys().eq(other.asked.keys())
    }

    /// Puts what is kept into the memory of a worker that starts.
    pub(crate) fn restore(&self, memory: &mut Memory, now: Instant, wall: UnixMicros) {
        let clocks = Clocks { now, wall };
        if let Some(ending) = self.termination {
            memory.termination = Some(Termination {
                since: clocks.past(ending.since),
                grace: ending.grace,
                shortest: ending.shortest,
                cap: ending.cap.map(|cap| clocks.instant(cap)),
            });
        }
        if let Some((reason, message, rejected)) = self.verdict.clone() {
            memory.verdict = Some(Verdict { reason, message, rejected });
        }
        let past = |at: &BTreeMap<String, u64>| -> Vec<(ContainerId, Instant)> {
            at.iter().map(|(id, at)| (ContainerId(id.clone()), clocks.past(*at))).collect()
        };
        memory.hooks.extend(past(&self.hooks).into_iter().map(|(id, at)| (id, Some(at))));
        memory.asked.extend(past(&self.asked));
    }
}

/// The checkpoints of all Pods.
pub(crate) struct Checkpoints {
    journal: Arc<Journal>,
    /// As an earlier agent left them.
    found: BTreeMap<String, Checkpoint>,
}

impl Checkpoints {
    pub(crate) fn new(journal: Arc<Journal>, found: &Found) -> Self {
        Self { journal, found: found.below(PREFIX) }
    }

    /// What an earlier agent knew of a Pod.
    pub(crate) fn found(&self, uid: &str) -> Option<Checkpoint> {
        self.found.get(uid).cloned()
    }

    /// Every Pod that an earlier agent knew something of.
    pub(crate) fn uids(&self) -> impl Iterator<Item = &str> {
        self.found.keys().map(String::as_str)
    }

    pub(crate) fn keep(&self, uid: &str, checkpoint: &Checkpoint) {
        self.journal.put(format!("{PREFIX}{uid}"), checkpoint);
    }

    pub(crate) fn forget(&self, uid: &str) {
        self.journal.remove(format!("{PREFIX}{uid}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::id;

    #[tokio::test(start_paused = true)]
    async fn an_ending_goes_on_where_it_was() {
        // DEL-32: another clock, another life, the same deadlines
        let start = Instant::now();
        let mut memory = Memory::default();
        Termination::update(&mut memory.termination, 30, start);
        Termination::update(&mut memory.termination, 10, start + Duration::from_secs(2));
        memory.asked.insert(id("a", 0), start + Duration::from_secs(1));
        memory.hooks.insert(id("a", 0), Some(start + Duration::from_secs(1)));
        memory.hooks.insert(id("b", 0), None);
        let wall = 1_000_000_000;
        let then = start + Duration::from_secs(3);
        let kept = Checkpoint::of(&memory, then, wall);
        // Five seconds later, in a process whose clock began elsewhere.
        let now = start + Duration::from_secs(1000);
        let back = |at: Instant| now - Duration::from_secs(8) + (at - start);
        let mut restored = Memory::default();
        kept.restore(&mut restored, now, wall + 5_000_000);
        let (old, new) = (memory.termination.unwrap(), restored.termination.unwrap());
        assert_eq!(new.since, back(old.since));
        assert_eq!((new.grace, new.shortest), (old.grace, old.shortest));
        assert_eq!(new.cap, old.cap.map(back));
        assert_eq!(restored.asked[&id("a", 0)], back(start + Duration::from_secs(1)));
        assert_eq!(restored.hooks.len(), 1, "a hook that was cut off runs again");
        let again = Checkpoint::of(&restored, now, wall + 5_000_000);
        assert!(again.is_same(&kept));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_back_puts_nothing_into_the_future() {
        // trap 31
        let start = Instant::now();
        let mut memory = Memory::default();
        Termination::update(&mut memory.termination, 30, start);
        let kept = Checkpoint::of(&memory, start, 5_000_000_000);
        let mut restored = Memory::default();
        kept.restore(&mut restored, start, 1_000_000_000);
        assert_eq!(restored.termination.unwrap().since, start);
    }

    #[tokio::test(start_paused = true)]
    async fn only_news_are_written() {
        let start = Instant::now();
        let mut memory = Memory::default();
        let none = Checkpoint::of(&memory, start, 7);
        assert!(none.is_same(&Checkpoint::default()));
        Termination::update(&mut memory.termination, 30, start);
        let first = Checkpoint::of(&memory, start, 1_000_000_000);
        assert!(!first.is_same(&none));
        let later = Checkpoint::of(&memory, start + Duration::from_secs(1), 1_001_000_100);
        assert!(later.is_same(&first), "a clock's jitter is none");
        memory.asked.insert(id("a", 0), start);
        assert!(!Checkpoint::of(&memory, start, 1_000_000_000).is_same(&first));
    }
}
