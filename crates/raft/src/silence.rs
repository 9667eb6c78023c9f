//! Whether who leads is still heard. openraft names the last leader until somebody else has won, which without a
//! majority is never: who asks this replica would be told of a leader that nobody reaches.

use crate::{core::Core, types::Metrics};
use openraft::Instant as _;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Notes the term of a leader that has not been heard for `longest`; in its own one, a leader hears a majority.
pub(crate) async fn listen(core: Arc<Core>, longest: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = sleep(longest / 4) => {}
            () = stop.cancelled() => return,
        }
        let metrics = core.metrics();
        let heard = if metrics.current_leader == Some(core.id) {
            timeout(longest, core.surely_leads()).await.is_ok_and(|surely| surely.is_ok())
        } else {
            // Each message of a leader is another moment at which its vote counted.
            let Ok(last) = core.raft.with_raft_state(|state| state.vote_last_modified()).await
            else {
                return;
            };
            last.is_some_and(|last| last.elapsed() <= longest)
        };
        let silent = if heard { 0 } else { metrics.current_term };
        core.silent_term.store(silent, Ordering::Relaxed);
    }
}

impl Core {
    /// Who leads in these metrics, if that one is heard.
    pub(crate) fn heard_leader(&self, now: &Metrics) -> Option<u64> {
        let silent = self.silent_term.load(Ordering::Relaxed);
        now.current_leader.filter(|_| now.current_term != silent)
    }
}
