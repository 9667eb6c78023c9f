//! Leases whose time is up end by a command in the log; of long ones it says now and then what is left.

use crate::store::RaftStore;
use futures::future::join_all;
use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{Applied, Epoch, Leadership, Op, Origin, Proposal, Rejection, RequestId, Store as _};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How much later than its time a lease may end for want of a look.
const TICK: Duration = Duration::from_millis(100);
/// A look that is so much later than it was to be tells that this process stood still (FEN-43).
const LATE: Duration = Duration::from_millis(500);
/// Leases that end in one look, so that at most a thousand a second do, as in etcd: a crowd of them
/// must not hold up what clients write.
const ENDS_PER_TICK: usize = 100;
const CHECKPOINTS_PER_TICK: usize = 100;
/// For a command to be committed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Until a lease whose end was refused is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The commands of one leader about leases.
struct Proposer<'a> {
    store: Arc<RaftStore>,
    epoch: Epoch,
    client: u64,
    /// Of this client's next request.
    sequence: &'a AtomicU64,
}

/// Proposes the end of leases whose time is up, while this replica leads.
pub(crate) async fn expire_leases(store: Weak<RaftStore>, stop: CancellationToken) {
    let (client, sequence) = (rand::random::<u64>(), &AtomicU64::new(1));
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let waits = Instant::now();
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let Some(store) = store.upgrade() else { return };
        let paused = waits.elapsed().saturating_sub(TICK);
        if paused > LATE {
            // Nobody could renew a lease here meanwhile.
            store.core.leases.postpone(paused);
        }
        let Leadership::Leading { epoch } = *store.leadership.borrow() else { continue };
        let now = Instant::now();
        let ended = store.core.leases.ended(now, ENDS_PER_TICK);
        let left = store.core.leases.to_checkpoint(now, CHECKPOINTS_PER_TICK);
        let proposer = &Proposer { store, epoch, client, sequence };
        let ends = ended.into_iter().map(async |id| {
            let refused = match proposer.propose(Op::LeaseRevoke { id }).await {
                Some(Applied { outcome: Ok(_) | Err(Rejection::LeaseNotFound), .. }) => false,
                Some(_) | None => true,
            };
            // If the lead is lost, the next leader counts anew.
            if refused {
                proposer.store.core.leases.end_later(id, Instant::now() + RETRY);
            }
        });
        let checkpoints = left.into_iter().map(async |(id, remaining_seconds)| {
            proposer.propose(Op::LeaseCheckpoint { id, remaining_seconds }).await;
        });
        tokio::join!(join_all(ends), join_all(checkpoints));
    }
}

impl Proposer<'_> {
    /// `None` if it is not known to have been committed.
    async fn propose(&self, op: Op) -> Option<Applied> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let request = RequestId { client: self.client, sequence };
        let origin = Origin::Controller { epoch: self.epoch };
        let applied = self.store.propose(Proposal { request, origin, op }, PATIENCE).await;
        applied.inspect_err(|error| tracing::debug!(%error, "about a lease")).ok()
    }
}
