//! The quota is part of the state, the same for every member: the leader's flag decides.

use std::{sync::Arc, time::Duration};
use store::{Leadership, Op, Origin, Proposal, RequestId, Store};
use tokio::{sync::watch, time::sleep};

const PATIENCE: Duration = Duration::from_secs(5);
/// Before a proposal that failed is made again.
const AGAIN: Duration = Duration::from_millis(200);

/// Sees to it, whenever this member leads, that the quota is so many bytes.
pub(super) async fn run(
    store: Arc<dyn Store>,
    mut leadership: watch::Receiver<Leadership>,
    bytes: u64,
) {
    let client = rand::random::<u64>();
    let mut sequence = 0;
    loop {
        let now = *leadership.borrow_and_update();
        if let Leadership::Leading { epoch } = now
            && store.view().quota_bytes() != bytes
        {
            sequence += 1;
            let proposal = Proposal {
                request: RequestId { client, sequence },
                origin: Origin::Controller { epoch },
                op: Op::Quota { bytes },
            };
            if let Err(error) = store.propose(proposal, PATIENCE).await {
                tracing::debug!(%error, "the quota is not set yet");
                sleep(AGAIN).await;
                continue;
            }
            tracing::info!(bytes, "the quota is set");
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}
