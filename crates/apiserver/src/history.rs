//! How long old revisions are kept: what a watch may resume from, and what memory pays for it.

use crate::registry::Registry;
use std::{collections::VecDeque, time::Duration};
use store::{Epoch, Op, Origin, Proposal, Revision};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// For one compaction to be committed.
const DEADLINE: Duration = Duration::from_secs(5);

/// What is kept behind the newest revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At least this long, unless there are too many.
    pub age: Duration,
    /// At most this many revisions, however young.
    pub revisions: u64,
}

/// When which revision was the newest.
#[derive(Debug, Default)]
struct Marks {
    seen: VecDeque<(Instant, Revision)>,
}

impl Marks {
    /// Notes the newest revision, and answers up to where nothing needs to be kept.
    fn note(&mut self, now: Instant, newest: Revision, keep: Retention) -> Revision {
        self.seen.push_back((now, newest));
        let mut old = Revision::ZERO;
        while let Some((at, revision)) = self.seen.front().copied()
            && now.duration_since(at) >= keep.age
        {
            old = revision;
            self.seen.pop_front();
        }
        old.max(Revision::new(newest.get().saturating_sub(keep.revisions)))
    }
}

/// Compacts what is older than `keep`, for as long as this replica leads in `epoch`. Times are this
/// process's own, so a new leader keeps everything for the full time again.
pub(crate) async fn keep(registry: &Registry, epoch: Epoch, keep: Retention) {
    let mut ticks =
        interval((keep.age / 10).clamp(Duration::from_secs(1), Duration::from_secs(60)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut marks = Marks::default();
    loop {
        ticks.tick().await;
        let (now, compacted) = {
            let view = registry.store().view();
            (view.revision(), view.compacted())
        };
        let revision = marks.note(Instant::now(), now, keep);
        if revision <= compacted {
            continue;
        }
        let proposal = Proposal {
            request: registry.request_id(),
            origin: Origin::Controller { epoch },
            op: Op::Compact { revision },
        };
        match registry.store().propose(proposal, DEADLINE).await {
            Ok(_) => tracing::debug!(%revision, "compacted"),
            // The next leader does it, or the next tick.
            Err(error) => tracing::debug!(%error, %revision, "not compacted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_old_or_too_much_is_not_kept() {
        // WCH-9: five minutes, as upstream
        let keep = Retention { age: Duration::from_secs(300), revisions: 1000 };
        let start = Instant::now();
        let mut marks = Marks::default();
        let mut note = |minute: u64, newest: u64| {
            marks.note(start + Duration::from_secs(60 * minute), Revision::new(newest), keep).get()
        };
        assert_eq!(note(0, 10), 0);
        assert_eq!(note(4, 20), 0);
        assert_eq!(note(5, 30), 10);
        assert_eq!(note(6, 30), 0, "nothing more is old");
        assert_eq!(note(9, 40), 20);
        assert_eq!(note(9, 5000), 4000);
    }
}
