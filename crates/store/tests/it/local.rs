//! What LocalStore has beyond a store: a clock that the caller turns.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{
    Cluster, Epoch, Leadership, LeaseId, Op, Origin, Proposal, RequestId, Store, Timestamp,
    local::LocalStore,
};

const DEADLINE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_lease_of_a_local_store_expires_by_its_clock_unless_renewed() {
    let now = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&now);
    let store = LocalStore::new(Arc::new(move || Timestamp(clock.load(Ordering::Relaxed))));
    for (sequence, id) in [(1, 1), (2, 2)] {
        let op = Op::LeaseGrant { id: LeaseId(id), ttl_seconds: 10 };
        let request = RequestId { client: 1, sequence };
        let proposal = Proposal { request, origin: Origin::Client, op };
        store.propose(proposal, DEADLINE).await.unwrap().outcome.unwrap();
    }
    let at = |seconds: u64| now.store(seconds * 1_000_000, Ordering::Relaxed);
    at(9);
    assert_eq!(store.expire_leases(), []);
    assert_eq!(store.renew_lease(LeaseId(2), DEADLINE).await, Ok(Some(10)));
    at(10);
    assert_eq!(store.expire_leases(), [LeaseId(1)]);
    at(19);
    assert_eq!(store.expire_leases(), [LeaseId(2)]);
    assert!(store.view().leases().is_empty());
}

#[tokio::test]
async fn it_leads_once_an_epoch_has_begun() {
    let store = LocalStore::new(Arc::new(|| Timestamp(0)));
    let mut leadership = store.leadership();
    assert_eq!(*leadership.borrow_and_update(), Leadership::Following);
    assert!(store.begin_epoch(Epoch(4)).outcome.is_ok());
    assert_eq!(*leadership.borrow_and_update(), Leadership::Leading { epoch: Epoch(4) });
    assert!(store.begin_epoch(Epoch(3)).outcome.is_err(), "epochs only rise");
    assert!(!leadership.has_changed().unwrap());
    assert_eq!(store.status(DEADLINE).await.epoch, Epoch(4));
}
