//! Heartbeats that follow each other sooner than openraft gives up the answer to one.

use crate::{config::Timers, core::Core};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// What openraft is told to be the time between heartbeats: it waits as long for the answer to one, and
/// hears none that comes later. Followers hear such a leader and stay with it, while it takes itself
/// for alone and neither writes nor reads. So it is told nearly the longest that it allows.
pub(crate) fn answer_within(timers: &Timers) -> Duration {
    timers.election_min * 4 / 5
}

/// Sends them while this replica leads.
pub(crate) async fn beat(core: Arc<Core>, every: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = sleep(every) => {}
            () = stop.cancelled() => return,
        }
        if core.leader() == Some(core.id) && core.raft.trigger().heartbeat().await.is_err() {
            return;
        }
    }
}
