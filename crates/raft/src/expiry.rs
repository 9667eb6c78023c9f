//! Leases whose time is up end by a command in the log.

use crate::store::RaftStore;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use store::{Leadership, Op, Origin, Proposal, RequestId, Store as _};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Proposes the end of leases whose time is up, while this replica leads.
pub(crate) async fn expire_leases(store: std::sync::Weak<RaftStore>, stop: CancellationToken) {
    let client = rand::random::<u64>();
    let sequence = AtomicU64::new(0);
    loop {
        tokio::select! {
            () = sleep(Duration::from_millis(200)) => {}
            () = stop.cancelled() => return,
        }
        let Some(store) = store.upgrade() else { return };
        let Leadership::Leading { epoch } = *store.leadership.borrow() else { continue };
        for id in store.core.leases.expired(&store.view(), Instant::now()) {
            let sequence = sequence.fetch_add(1, Ordering::Relaxed) + 1;
            let proposal = Proposal {
                request: RequestId { client, sequence },
                origin: Origin::Controller { epoch },
                op: Op::LeaseRevoke { id },
            };
            // Lost with the lead: the next leader gives the lease its full time again.
            if let Err(error) = store.propose(proposal, Duration::from_secs(5)).await {
                tracing::debug!(%error, ?id, "lease not revoked");
            }
        }
    }
}
