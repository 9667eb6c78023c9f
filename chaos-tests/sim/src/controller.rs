//! What acts on the leader's behalf, as scheduler and controllers do: it decides, and writes under the epoch in which
//! it has decided, however long that takes.

use raft::RaftStore;
use rand::Rng as _;
use std::{sync::Arc, time::Duration};
use store::{
    Cluster as _, Leadership, LeaseId, Op, Origin, Proposal, Put, RequestId, Store as _, Txn, TxnOp,
};
use tokio::time::sleep;

/// Of one replica, under way at the same time.
pub(crate) const DECISIONS: usize = 3;
/// For a write to be committed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between a decision and its write, at most: as long as a process may stand still.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// Decides and writes whenever this replica leads. Never ends by itself.
pub(crate) async fn decide(store: Arc<RaftStore>) {
    let client = rand::random::<u64>();
    let mut leadership = store.leadership();
    for sequence in 1.. {
        let leads = leadership.wait_for(|now| matches!(now, Leadership::Leading { .. })).await;
        let Ok(Leadership::Leading { epoch }) = leads.map(|now| *now) else { return };
        // Mostly at once, as a rule.
        let pause = if rand::rng().random_bool(0.5) {
            Duration::from_millis(rand::rng().random_range(0..50))
        } else {
            rand::rng().random_range(Duration::ZERO..PAUSE_MAX)
        };
        sleep(pause).await;
        // Under a key that no client touches.
        let put = Put {
            key: format!("decided-{}", sequence % 4).into(),
            value: epoch.0.to_string().into(),
            lease: LeaseId::NONE,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        };
        let proposal = Proposal {
            request: RequestId { client, sequence },
            origin: Origin::Controller { epoch },
            op: Op::Txn(Txn { success: vec![TxnOp::Put(put)], ..Txn::default() }),
        };
        // Refused is an answer, too.
        let _ = store.propose(proposal, PATIENCE).await;
        sleep(Duration::from_millis(20)).await;
    }
}
