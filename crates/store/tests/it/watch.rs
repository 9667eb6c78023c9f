//! Watches miss nothing, repeat nothing and never wait for a slow reader.

use crate::{put, txn};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use store::{
    KeyRange, Op, Origin, Proposal, RequestId, Revision, Store, Timestamp,
    local::LocalStore,
    watch::{WatchError, WatchMessage, WatchRequest, Watcher},
};

async fn write(store: &LocalStore, sequence: u64, op: Op) {
    let request = RequestId { client: 1, sequence };
    let proposal = Proposal { request, origin: Origin::Client, op };
    store.propose(proposal, Duration::from_secs(1)).await.unwrap().outcome.unwrap();
}

fn store() -> LocalStore {
    LocalStore::new(Arc::new(|| Timestamp(0)))
}

fn from(start: u64) -> WatchRequest {
    WatchRequest { range: KeyRange::From(Bytes::from_static(b"a")), start: Revision::new(start) }
}

async fn next_revision(watcher: &mut Watcher) -> u64 {
    match watcher.next().await {
        Some(WatchMessage::Events(batch)) => batch.revision.get(),
        other => panic!("no events but {other:?}"),
    }
}

#[tokio::test]
async fn a_watch_from_the_past_goes_over_into_the_present_without_gap_or_repeat() {
    let store = store();
    for sequence in 1..=5 {
        write(&store, sequence, txn(vec![put("a", "x"), put("b", "y")])).await;
    }
    let mut watcher = store.watch(from(3)).unwrap();
    for sequence in 6..=8 {
        write(&store, sequence, txn(vec![put("a", "x")])).await;
    }
    for want in 3..=8 {
        assert_eq!(next_revision(&mut watcher).await, want);
    }
    assert_eq!(watcher.progress(), Revision::new(8));
}

#[tokio::test]
async fn events_of_one_revision_come_together_and_only_those_of_the_range() {
    let store = store();
    let range = KeyRange::prefix("b");
    let mut watcher = store.watch(WatchRequest { range, start: Revision::ZERO }).unwrap();
    write(&store, 1, txn(vec![put("a", ""), put("b1", ""), put("b2", "")])).await;
    write(&store, 2, txn(vec![put("a", "")])).await;
    write(&store, 3, txn(vec![put("b3", "")])).await;
    let Some(WatchMessage::Events(batch)) = watcher.next().await else { panic!("ended") };
    assert_eq!((batch.revision.get(), batch.events.len()), (1, 2));
    assert_eq!(next_revision(&mut watcher).await, 3);
}

#[tokio::test]
async fn a_future_start_waits() {
    let store = store();
    let mut watcher = store.watch(from(3)).unwrap();
    for sequence in 1..=3 {
        write(&store, sequence, txn(vec![put("a", "x")])).await;
    }
    assert_eq!(next_revision(&mut watcher).await, 3);
}

#[tokio::test]
async fn a_slow_watcher_is_cancelled_with_where_to_resume_and_loses_nothing() {
    let store = store();
    let mut watcher = store.watch(from(1)).unwrap();
    for sequence in 1..=5000 {
        write(&store, sequence, txn(vec![put("a", "x")])).await;
    }
    let mut want = 1;
    let resume = loop {
        match watcher.next().await {
            Some(WatchMessage::Events(batch)) => {
                assert_eq!(batch.revision.get(), want);
                want += 1;
            }
            Some(WatchMessage::Canceled { reason, resume }) => {
                assert!(matches!(reason, WatchError::TooSlow { .. }));
                break resume;
            }
            None => panic!("ended without a word"),
        }
    };
    assert_eq!(resume.get(), want);
    assert!(watcher.next().await.is_none());
    let mut resumed = store.watch(from(resume.get())).unwrap();
    assert_eq!(next_revision(&mut resumed).await, want);
}

#[tokio::test]
async fn a_watch_may_start_at_the_compacted_revision_and_not_below() {
    let store = store();
    for sequence in 1..=4 {
        write(&store, sequence, txn(vec![put("a", "x")])).await;
    }
    write(&store, 5, Op::Compact { revision: Revision::new(3) }).await;
    let oldest = Revision::new(3);
    let requested = Revision::new(2);
    assert_eq!(store.watch(from(2)).unwrap_err(), WatchError::Compacted { requested, oldest });
    let mut watcher = store.watch(from(3)).unwrap();
    assert_eq!(next_revision(&mut watcher).await, 3);
}
