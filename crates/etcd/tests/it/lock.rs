//! Locks.

use crate::support::{Member, SOON};
use etcd::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, lock_client::LockClient};
use store::Store as _;
use tokio::{task::JoinHandle, time::timeout};
use tonic::{Code, Status};

async fn lock(member: &Member, lease: i64) -> Result<LockResponse, Status> {
    let mut locks = LockClient::new(member.channel().await);
    let request = LockRequest { name: "door".into(), lease };
    locks.lock(request).await.map(tonic::Response::into_inner)
}

async fn waiting(member: &Member, lease: i64) -> JoinHandle<Result<LockResponse, Status>> {
    let mut locks = LockClient::new(member.channel().await);
    tokio::spawn(async move {
        let request = LockRequest { name: "door".into(), lease };
        locks.lock(request).await.map(tonic::Response::into_inner)
    })
}

async fn unlock(member: &Member, key: bytes::Bytes) {
    LockClient::new(member.channel().await).unlock(UnlockRequest { key }).await.unwrap();
}

#[tokio::test]
async fn a_lock_goes_to_one_after_the_other_in_the_order_of_their_coming() {
    let member = Member::start().await;
    let leases = [member.lease().await, member.lease().await, member.lease().await];
    let first = lock(&member, leases[0]).await.unwrap();
    assert_eq!(first.key, format!("door/{:x}", leases[0]));
    let second = waiting(&member, leases[1]).await;
    member.keys(2).await;
    let third = waiting(&member, leases[2]).await;
    member.keys(3).await;
    assert!(!second.is_finished() && !third.is_finished());
    unlock(&member, first.key).await;
    let second = timeout(SOON, second).await.unwrap().unwrap().unwrap();
    assert_eq!(second.key, format!("door/{:x}", leases[1]));
    assert!(!third.is_finished());
    unlock(&member, second.key).await;
    let third = timeout(SOON, third).await.unwrap().unwrap().unwrap();
    assert_eq!(third.key, format!("door/{:x}", leases[2]));
    // The header is of when it was known to be held, behind the one before.
    assert_eq!(third.header.unwrap().revision, 6);
}

#[tokio::test]
async fn a_lock_without_a_lease_is_held_for_a_minute_that_nobody_renews() {
    let member = Member::start().await;
    let held = lock(&member, 0).await.unwrap();
    let leases = member.store.view().leases();
    assert_eq!(leases.iter().map(|l| l.ttl_seconds).collect::<Vec<_>>(), [60]);
    assert_eq!(held.key, format!("door/{:x}", leases[0].id.0));
    member.pass_seconds(59);
    assert_eq!(member.key_count(), 1);
    member.pass_seconds(2);
    assert_eq!(member.key_count(), 0);
}

#[tokio::test]
async fn whose_lease_ends_while_it_waits_is_told_and_does_not_get_the_lock() {
    let member = Member::start().await;
    let (holder, waiter) = (member.lease().await, member.lease().await);
    lock(&member, holder).await.unwrap();
    let waiting = waiting(&member, waiter).await;
    member.keys(2).await;
    member.revoke(waiter).await;
    let status = timeout(SOON, waiting).await.unwrap().unwrap().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, "mutex: session is expired"));
    assert_eq!(member.key_count(), 1);
}

#[tokio::test]
async fn a_lock_whose_holder_is_lost_goes_on_when_its_lease_ends() {
    let member = Member::start().await;
    let (holder, waiter) = (member.lease().await, member.lease().await);
    lock(&member, holder).await.unwrap();
    let waiting = waiting(&member, waiter).await;
    member.keys(2).await;
    member.revoke(holder).await;
    timeout(SOON, waiting).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn the_same_lease_may_lock_twice_and_has_one_place() {
    let member = Member::start().await;
    let lease = member.lease().await;
    let first = lock(&member, lease).await.unwrap();
    let again = lock(&member, lease).await.unwrap();
    assert_eq!(first.key, again.key);
    assert_eq!(member.key_count(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_while_it_waits_leaves_no_place_behind() {
    let member = Member::start().await;
    let (holder, waiter) = (member.lease().await, member.lease().await);
    lock(&member, holder).await.unwrap();
    let waiting = waiting(&member, waiter).await;
    member.keys(2).await;
    waiting.abort();
    member.keys(1).await;
}

#[tokio::test]
async fn a_lock_says_what_is_wrong_with_it_as_etcd_does() {
    let member = Member::start().await;
    let status = lock(&member, 77).await.unwrap_err();
    let want = (Code::Unknown, "etcdserver: requested lease not found");
    assert_eq!((status.code(), status.message()), want);
    let mut locks = LockClient::new(member.channel().await);
    let status = locks.unlock(UnlockRequest::default()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unknown, "etcdserver: key is not provided")
    );
}
