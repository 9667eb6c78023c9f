//! Automatic compaction, by age or by number, as etcd's two modes.

use super::settings::Compaction;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use store::{Epoch, Leadership, Op, Origin, Proposal, RequestId, Revision, Store};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at},
};

/// For one compaction to be committed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks of the mode that counts revisions.
const COUNTED_EVERY: Duration = Duration::from_secs(300);
/// The mode that goes by age compacts so often at least.
const PERIOD_MAX: Duration = Duration::from_secs(3600);

/// What a compactor has seen.
#[derive(Debug)]
struct Compactor {
    keep: Compaction,
    /// When which revision was the newest.
    seen: VecDeque<(Instant, Revision)>,
    last: Instant,
    first: bool,
}

impl Compactor {
    fn new(keep: Compaction, now: Instant, newest: Revision) -> Self {
        Self { keep, seen: VecDeque::from([(now, newest)]), last: now, first: true }
    }

    fn tick(&self) -> Duration {
        match self.keep {
            Compaction::Periodic(age) => age.min(PERIOD_MAX) / 10,
            Compaction::Revisions(_) => COUNTED_EVERY,
        }
    }

    /// What is to be compacted now.
    fn due(&mut self, now: Instant, newest: Revision) -> Option<Revision> {
        match self.keep {
            Compaction::Revisions(kept) => {
                newest.get().checked_sub(kept).filter(|due| *due > 0).map(Revision::new)
            }
            Compaction::Periodic(age) => {
                self.seen.push_back((now, newest));
                // Of those that are old enough, the newest.
                while self.seen.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= age) {
                    self.seen.pop_front();
                }
                let wait = if self.first { age } else { age.min(PERIOD_MAX) };
                let (at, revision) = self.seen.front()?;
                let due = now.duration_since(self.last) >= wait && now.duration_since(*at) >= age;
                if due {
                    (self.last, self.first) = (now, false);
                }
                due.then_some(*revision)
            }
        }
    }
}

/// Compacts whenever this member leads, and keeps everything for the full time again when it has begun
/// to: times are this process's own.
pub(super) async fn run(
    store: Arc<dyn Store>,
    mut leadership: watch::Receiver<Leadership>,
    keep: Compaction,
) {
    let client = rand::random::<u64>();
    let mut sequence = 0;
    loop {
        let Ok(epoch) = leadership.wait_for(|now| epoch(*now).is_some()).await.map(|l| epoch(*l))
        else {
            return;
        };
        let mut compactor = Compactor::new(keep, Instant::now(), store.view().revision());
        let mut ticks = interval_at(Instant::now() + compactor.tick(), compactor.tick());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = leadership.wait_for(|now| self::epoch(*now) != epoch) => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
            }
            let Some(epoch) = epoch else { break };
            // Not held while the command is carried out, which would have to work on a copy.
            let (now, compacted) = {
                let view = store.view();
                (view.revision(), view.compacted())
            };
            let due = compactor.due(Instant::now(), now);
            let Some(revision) = due.filter(|due| *due > compacted) else { continue };
            sequence += 1;
            let proposal = Proposal {
                request: RequestId { client, sequence },
                origin: Origin::Controller { epoch },
                op: Op::Compact { revision },
            };
            match store.propose(proposal, PATIENCE).await {
                Ok(_) => tracing::info!(%revision, "compacted automatically"),
                // The next leader does it, or the next tick.
                Err(error) => tracing::warn!(%error, %revision, "not compacted"),
            }
        }
    }
}

fn epoch(leadership: Leadership) -> Option<Epoch> {
    match leadership {
        Leadership::Leading { epoch } => Some(epoch),
        Leadership::Following => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_older_than_the_period_goes_once_a_period() {
        let (start, age) = (Instant::now(), Duration::from_secs(600));
        let mut compactor = Compactor::new(Compaction::Periodic(age), start, Revision::new(1));
        assert_eq!(compactor.tick(), Duration::from_secs(60));
        let due: Vec<(u64, u64)> = (1..=30)
            .filter_map(|minute| {
                let now = start + Duration::from_secs(60 * minute);
                let due = compactor.due(now, Revision::new(1 + 10 * minute))?;
                Some((minute, due.get()))
            })
            .collect();
        assert_eq!(due, [(10, 1), (20, 101), (30, 201)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_period_compacts_every_hour_once_it_is_over() {
        let (start, age) = (Instant::now(), Duration::from_secs(3 * 3600));
        let mut compactor = Compactor::new(Compaction::Periodic(age), start, Revision::new(1));
        let due: Vec<(u64, u64)> = (1..=50)
            .filter_map(|tick| {
                let now = start + compactor.tick() * u32::try_from(tick).unwrap();
                Some((tick, compactor.due(now, Revision::new(1 + tick))?.get()))
            })
            .collect();
        assert_eq!(due, [(30, 1), (40, 11), (50, 21)]);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_revisions_are_kept() {
        let now = Instant::now();
        let mut compactor = Compactor::new(Compaction::Revisions(100), now, Revision::new(1));
        assert_eq!(compactor.due(now, Revision::new(100)), None);
        assert_eq!(compactor.due(now, Revision::new(101)), Some(Revision::new(1)));
        assert_eq!(compactor.due(now, Revision::new(500)), Some(Revision::new(400)));
    }
}
