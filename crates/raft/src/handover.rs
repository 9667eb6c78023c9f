//! The lead goes to another member while everybody is well.

use crate::{batch::ENTRIES_IN_FLIGHT, core::Core};
use openraft::Instant as _;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use store::StoreError;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Before a successor that was asked is asked again, or another one.
const STEP: Duration = Duration::from_millis(200);
/// For what is under way to end, and for the successor to have it, before it is asked.
const DRAIN: Duration = Duration::from_millis(100);
/// Between two looks at whether there can be a successor at all.
const LOOK: Duration = Duration::from_millis(50);

impl Core {
    /// Hands the lead to `to`, or to the voter that is furthest of those that were heard of last.
    /// Nothing is proposed here from then on; who asks meanwhile waits for the next leader.
    ///
    /// # Errors
    /// [`StoreError::NotLeader`] here, [`StoreError::NoLeader`] when nobody can or did take over.
    pub(crate) async fn hand_over(
        &self,
        to: Option<u64>,
        until: Instant,
    ) -> Result<u64, StoreError> {
        let id = self.id;
        if self.leader() != Some(id) {
            return Err(StoreError::NotLeader);
        }
        let nobody = |detail: &str| Err(StoreError::NoLeader { detail: detail.to_owned() });
        // What comes from now on waits here, unproposed, and is sent on to the next leader. A leader
        // that cannot finish what it began is better replaced, too.
        let all = Arc::clone(&self.entries).acquire_many_owned(ENTRIES_IN_FLIGHT);
        let _paused = timeout(DRAIN, all).await;
        while Instant::now() < until {
            let other = |leader: Option<u64>| leader.is_some_and(|leader| leader != id);
            if let Some(leader) = self.leader().filter(|leader| *leader != id) {
                return Ok(leader);
            }
            let successor = self.successor(to);
            let Some(successor) = successor else {
                let asked = |voter: u64| voter != id && to.is_none_or(|to| to == voter);
                if !self.voters().into_iter().any(asked) {
                    return nobody("there is no other member that votes");
                }
                if self.leader() == Some(id) {
                    // Raft tells of its followers a moment after it tells who leads.
                    sleep(LOOK).await;
                    continue;
                }
                // The lead is lost already, and not to whom it was to go.
                let taken = self.until(|now| now.current_leader.is_some());
                if let Ok(Some(now)) = timeout_at(until, taken).await
                    && let Some(leader) = now.current_leader.filter(|leader| *leader != id)
                {
                    return Ok(leader);
                }
                // Who leads is told here a moment after raft knows: without a pause, nobody could.
                sleep(LOOK).await;
                continue;
            };
            let level = self.until(|now| {
                if now.current_leader != Some(id) {
                    return true;
                }
                let progress = now.replication.as_ref().and_then(|all| all.get(&successor));
                let matched = progress.and_then(Option::as_ref).map(|log| log.index);
                matched >= now.last_log_index
            });
            let _ = timeout(DRAIN, level).await;
            if let Err(error) = self.raft.trigger().transfer_leader(successor).await {
                return Err(StoreError::Stopped { detail: error.to_string() });
            }
            let step = (Instant::now() + STEP).min(until);
            let taken = self.until(|now| other(now.current_leader));
            tokio::select! {
                taken = timeout_at(step, taken) => {
                    if let Ok(Some(now)) = taken && let Some(leader) = now.current_leader {
                        return Ok(leader);
                    }
                }
                () = self.alone() => return nobody("too few other members answer to elect one"),
            }
        }
        nobody("no other member took the lead")
    }

    fn voters(&self) -> BTreeSet<u64> {
        self.metrics().membership_config.voter_ids().collect()
    }

    fn successor(&self, to: Option<u64>) -> Option<u64> {
        let metrics = self.metrics();
        let heard = metrics.heartbeat.unwrap_or_default();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let others = metrics.replication.unwrap_or_default().into_iter();
        let others = others.filter(|(other, _)| *other != self.id && voters.contains(other));
        let ranked = others.filter(|(other, _)| to.is_none_or(|to| to == *other)).max_by_key(
            |(other, log)| {
                let heard = heard.get(other).copied().flatten();
                let lately = heard.is_some_and(|at| at.elapsed() < self.patience);
                (lately, log.as_ref().map(|log| log.index))
            },
        );
        ranked.map(|(other, _)| other)
    }

    /// Returns when too few voters answer to elect anybody.
    async fn alone(&self) {
        loop {
            let voters = self.voters();
            let answering = self.answering().await;
            if voters.intersection(&answering).count() <= voters.len() / 2 {
                return;
            }
            sleep(LOOK).await;
        }
    }
}
