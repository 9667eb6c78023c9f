//! What a leader does to the membership by itself: new voters vote once they hold the log, and changes
//! that an earlier leader began come to an end.

use crate::{core::Core, membership::Change};
use openraft::async_runtime::watch::WatchReceiver as _;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// A new voter that is behind by no more than this many entries has caught up: what it lacks comes
/// within the time of a few batches.
const BEHIND: u64 = 256;
/// Between two looks while there is somebody to tend.
const LOOK: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(5);

pub(crate) async fn tend(core: Arc<Core>, stop: CancellationToken) {
    let mut metrics = core.raft.metrics();
    loop {
        let (wanted, waiting) = wanted(&core);
        if let Some(change) = wanted {
            let done = core.change_here(&change, false, Instant::now() + DEADLINE).await;
            if let Err(error) = done {
                tracing::debug!(?error, ?change, "the membership is not as it should be yet");
            }
        }
        tokio::select! {
            () = sleep(LOOK), if waiting => {}
            changed = metrics.changed(), if !waiting => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// What can be done now, and whether something is to be waited for.
fn wanted(core: &Core) -> (Option<Change>, bool) {
    if core.leader() != Some(core.id) {
        return (None, false);
    }
    let metrics = core.metrics();
    let group = &metrics.membership_config;
    if group.membership().get_joint_config().len() > 1 {
        // Usually under way: then this waits its turn and finds nothing to do.
        return (Some(Change::Settle), true);
    }
    let voters: std::collections::BTreeSet<u64> = group.voter_ids().collect();
    let new = group.nodes().filter(|(id, m)| m.votes && !voters.contains(id));
    let new: Vec<u64> = new.filter(|(_, m)| m.disk != 0).map(|(id, _)| *id).collect();
    let last = metrics.last_log_index.unwrap_or_default();
    let replication = metrics.replication.unwrap_or_default();
    let matched = |id: &u64| replication.get(id).and_then(Option::as_ref).map(|log| log.index);
    let ready = new.iter().find(|id| matched(id).is_some_and(|at| at + BEHIND >= last));
    (ready.map(|id| Change::Vote { id: *id }), !new.is_empty())
}
