//! Asks for the lead when the leader's connection broke.

use crate::core::Core;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Between the followers' first requests for the lead, by their ids.
const CAMPAIGN_TURN: Duration = Duration::from_millis(40);
/// Between two requests of one follower.
const CAMPAIGN_RETRY: Duration = Duration::from_millis(10);

/// Does not wait for silence when the leader's connection broke, as it does at once when a process
/// dies: asks for the lead as soon as the lease that it has from here is over. A pre-vote: nothing
/// happens to a leader that others still hear, or that is back on a new connection.
pub(crate) async fn campaign(core: Arc<Core>, lease: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = core.leader_hung_up.notified() => {}
            () = stop.cancelled() => return,
        }
        let metrics = core.metrics();
        let Some(lost) = metrics.current_leader.filter(|leader| *leader != core.id) else {
            continue;
        };
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        if !voters.contains(&core.id) {
            continue;
        }
        // One after the other, lest all of them vote for themselves.
        let rank = voters.iter().filter(|id| **id != lost && **id < core.id).count();
        let started = Instant::now();
        let turn = CAMPAIGN_TURN.saturating_mul(u32::try_from(rank).unwrap_or(u32::MAX));
        let begin = if rank == 0 { started } else { started + lease + turn };
        let over = core.until(|now| {
            now.current_leader.is_some_and(|leader| leader != lost)
                || now.current_term > metrics.current_term
        });
        tokio::pin!(over);
        // Its last word came before the connection broke, so the lease ends within its length. Until
        // then the question is refused here and nobody else hears of it.
        let end = begin.max(started + lease) + CAMPAIGN_TURN;
        sleep_until(begin).await;
        while Instant::now() < end {
            if core.raft.trigger().elect(true).await.is_err() {
                return;
            }
            let next = Instant::now() + CAMPAIGN_RETRY;
            tokio::select! {
                _ = &mut over => break,
                () = sleep_until(next) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}
