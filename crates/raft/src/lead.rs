//! From the lead in the consensus to the lead that others may act upon.

use crate::{core::Attempt, store::RaftStore};
use openraft::{ServerState, async_runtime::watch::WatchReceiver as _};
use std::time::Duration;
use store::{Applied, Epoch, Leadership, Op, Origin, Proposal, RequestId};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Publishes leadership: only after this leader's own `BeginEpoch` is applied here (FEN-7).
pub(crate) async fn lead(store: std::sync::Weak<RaftStore>, stop: CancellationToken) {
    let Some(mut metrics) = store.upgrade().map(|s| s.core.raft.metrics()) else { return };
    let client = rand::random::<u64>();
    let mut leading = None;
    loop {
        let now = {
            let now = metrics.borrow_and_update();
            (now.state == ServerState::Leader && now.current_leader == Some(now.id))
                .then_some(now.current_term)
        };
        if now != leading {
            let Some(store) = store.upgrade() else { return };
            leading = None;
            store.leadership.send_replace(Leadership::Following);
            store.core.leases.follow();
            if let Some(term) = now {
                let epoch = Epoch(term);
                let proposal = Proposal {
                    request: RequestId { client, sequence: term },
                    origin: Origin::Client,
                    op: Op::BeginEpoch { epoch, leader: store.core.id },
                };
                let attempt = store.core.propose_here(proposal, Duration::from_secs(5)).await;
                if let Attempt::Applied(Applied { outcome: Ok(_), .. }) = attempt {
                    tracing::info!(term, "leads");
                    store.core.leases.lead(&store.core.hub, Instant::now());
                    store.leadership.send_replace(Leadership::Leading { epoch });
                    leading = Some(term);
                } else {
                    // Still the leader, if the metrics say so at the next look.
                    sleep(Duration::from_millis(10)).await;
                    continue;
                }
            }
        }
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}
