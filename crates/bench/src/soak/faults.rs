//! What happens to members while they are under load, one thing at a time.

use crate::cluster::{Cluster, MEMBERS};
use anyhow::Context as _;
use nix::sys::signal::Signal;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use serde::Serialize;
use std::{fmt, time::Duration};
use tokio::time::{Instant, sleep};

/// To whom what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    /// SIGKILL to a follower; it is started again after 1 to 3 seconds.
    Kill,
    KillLeader,
    /// SIGSTOP to a follower for 1 to 8 seconds.
    Pause,
    PauseLeader,
    /// A fourth member joins, with an empty directory.
    Add,
    /// A follower is removed, and its directory wiped.
    Remove,
    RemoveLeader,
}

const ALL: [Fault; 8] = [
    Fault::Kill,
    Fault::KillLeader,
    Fault::Pause,
    Fault::PauseLeader,
    Fault::Add,
    Fault::Remove,
    // As many come as go.
    Fault::Add,
    Fault::RemoveLeader,
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kill => "kill",
            Self::KillLeader => "kill leader",
            Self::Pause => "pause",
            Self::PauseLeader => "pause leader",
            Self::Add => "add",
            Self::Remove => "remove",
            Self::RemoveLeader => "remove leader",
        })
    }
}

impl Fault {
    fn hits_leader(self) -> bool {
        match self {
            Self::KillLeader | Self::PauseLeader | Self::RemoveLeader => true,
            Self::Kill | Self::Pause | Self::Add | Self::Remove => false,
        }
    }

    /// Whether so many members are enough, and not too many.
    fn fits(self, members: usize) -> bool {
        match self {
            Self::Kill | Self::KillLeader | Self::Pause | Self::PauseLeader => true,
            Self::Add => members == MEMBERS,
            Self::Remove | Self::RemoveLeader => members > MEMBERS,
        }
    }
}

/// Deals faults in an order that the seed says: each as often as it is in the deck before any comes again.
#[derive(Debug)]
pub(super) struct Deck {
    rng: SmallRng,
    left: Vec<Fault>,
}

impl Deck {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), left: Vec::new() }
    }

    /// The next that fits.
    pub(super) fn deal(&mut self, members: usize) -> Fault {
        if self.left.is_empty() {
            self.left.extend(ALL);
        }
        let fitting: Vec<usize> = (0..self.left.len())
            .filter(|index| self.left.get(*index).is_some_and(|fault| fault.fits(members)))
            .collect();
        let drawn = fitting.get(self.rng.random_range(0..fitting.len())).copied();
        // As many members are added as removed: where there are four, one is still to be removed.
        self.left.swap_remove(drawn.expect("a fault that fits"))
    }

    fn seconds(&mut self, range: std::ops::RangeInclusive<f64>) -> Duration {
        Duration::from_secs_f64(self.rng.random_range(range))
    }

    /// Does it, and returns when what was done is undone, if it is to be; says to whom.
    ///
    /// # Errors
    /// A member does not start, or the others do not take it in or let it go.
    pub(super) async fn strike(
        &mut self,
        fault: Fault,
        cluster: &mut Cluster,
    ) -> anyhow::Result<String> {
        let leader = cluster.until_led().await?;
        let members = cluster.names();
        let hit = if fault.hits_leader() {
            leader
        } else {
            let follower = self.rng.random_range(0..members.len() - 1);
            if follower < leader { follower } else { follower + 1 }
        };
        let name = members.get(hit).context("no such member")?;
        let said = match fault {
            Fault::Kill | Fault::KillLeader => {
                // Reaped later: the clients are on this thread.
                cluster.signal(hit, Signal::SIGKILL)?;
                let pause = self.seconds(1.0..=3.0);
                sleep(pause).await;
                cluster.kill(hit)?;
                cluster.start_member(hit)?;
                format!("{name} for {:.1} s", pause.as_secs_f64())
            }
            Fault::Pause | Fault::PauseLeader => {
                cluster.signal(hit, Signal::SIGSTOP)?;
                let pause = self.seconds(1.0..=8.0);
                sleep(pause).await;
                cluster.signal(hit, Signal::SIGCONT)?;
                format!("{name} for {:.1} s", pause.as_secs_f64())
            }
            Fault::Add => {
                cluster.add_member().await?;
                cluster.names().pop().unwrap_or_default()
            }
            Fault::Remove | Fault::RemoveLeader => {
                cluster.remove_member(hit).await?;
                name.clone()
            }
        };
        Ok(said)
    }
}

/// The longest time between two acknowledged writes since somebody began to look.
#[derive(Debug)]
pub(super) struct Gap {
    last: Instant,
    longest: Duration,
}

impl Gap {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, longest: Duration::ZERO }
    }

    /// The time since the last write before counts, too.
    pub(super) fn begin(&mut self) {
        self.longest = Duration::ZERO;
    }

    pub(super) fn acknowledged(&mut self, now: Instant) {
        self.longest = self.longest.max(now - self.last);
        self.last = now;
    }

    pub(super) fn longest(&self, now: Instant) -> Duration {
        self.longest.max(now - self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_fault_comes_as_often_as_it_is_in_the_deck_and_members_stay_three_or_four() {
        for seed in 0..200 {
            let mut deck = Deck::new(seed);
            let (mut members, mut dealt) = (MEMBERS, BTreeMap::new());
            for _ in 0..3 * ALL.len() {
                let fault = deck.deal(members);
                *dealt.entry(fault).or_insert(0) += 1;
                match fault {
                    Fault::Add => members += 1,
                    Fault::Remove | Fault::RemoveLeader => members -= 1,
                    Fault::Kill | Fault::KillLeader | Fault::Pause | Fault::PauseLeader => {}
                }
                assert!((MEMBERS..=MEMBERS + 1).contains(&members), "seed {seed}");
            }
            assert_eq!(members, MEMBERS, "seed {seed}");
            let want = |fault| if fault == Fault::Add { 6 } else { 3 };
            assert!(dealt.iter().all(|(fault, count)| *count == want(*fault)), "{dealt:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_begins_before_it_is_looked_for_and_may_last_still() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let mut gap = Gap::new(zero);
        gap.acknowledged(at(900));
        gap.begin();
        assert_eq!(gap.longest(at(1000)), Duration::from_millis(100));
        gap.acknowledged(at(1200));
        gap.acknowledged(at(1210));
        assert_eq!(gap.longest(at(1220)), Duration::from_millis(300));
        assert_eq!(gap.longest(at(1800)), Duration::from_millis(590));
    }
}
