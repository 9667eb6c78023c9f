//! Leases are the leader's to keep, and every replica's to ask about.

use crate::cluster::{Cluster, PATIENCE};
use std::{sync::Arc, time::Duration};
use store::{Cluster as _, LeaseId, Op, Origin, Store as _};
use tokio::{task::JoinSet, time::timeout};

async fn grant(cluster: &Cluster, at: u64, id: LeaseId, ttl_seconds: i64) {
    let grant = cluster.proposal(Origin::Client, Op::LeaseGrant { id, ttl_seconds });
    cluster.store(at).propose(grant, PATIENCE).await.unwrap().outcome.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_says_what_is_left_by_the_leaders_clock() {
    let cluster = Cluster::start(3).await;
    let (leader, _) = cluster.leader().await;
    let id = LeaseId(7);
    grant(&cluster, leader, id, 600).await;
    for at in cluster.ids() {
        let store = cluster.store(at);
        assert_eq!(store.lease_left(LeaseId(8), PATIENCE).await, Ok(None), "at {at}");
        let shorter = async {
            loop {
                match store.lease_left(id, PATIENCE).await.unwrap() {
                    Some(left) if left < 599 => break left,
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let left = timeout(PATIENCE, shorter).await.unwrap();
        assert!((570..599).contains(&left), "{left} at {at}");
        assert_eq!(store.renew_lease(id, PATIENCE).await, Ok(Some(600)));
        assert!(store.lease_left(id, PATIENCE).await.unwrap().unwrap() > left, "at {at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_leases_are_renewed_at_once_through_a_follower() {
    const LEASES: i64 = 1000;
    let cluster = Arc::new(Cluster::start(3).await);
    let (leader, _) = cluster.leader().await;
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let mut tasks = JoinSet::new();
    for id in 1..=LEASES {
        let cluster = Arc::clone(&cluster);
        tasks.spawn(async move { grant(&cluster, leader, LeaseId(id), 600).await });
    }
    tasks.join_all().await;
    let mut tasks = JoinSet::new();
    for id in 1..=LEASES + 10 {
        let store = cluster.store(follower);
        tasks.spawn(async move {
            for _ in 0..10 {
                let want = (id <= LEASES).then_some(600);
                assert_eq!(store.renew_lease(LeaseId(id), PATIENCE).await, Ok(want), "lease {id}");
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_goes_on_from_a_checkpoint_unless_the_lease_was_renewed() {
    let cluster = Cluster::start(3).await;
    let (mut leader, _) = cluster.leader().await;
    let (kept, renewed) = (LeaseId(1), LeaseId(2));
    for id in [kept, renewed] {
        grant(&cluster, leader, id, 1000).await;
        let op = Op::LeaseCheckpoint { id, remaining_seconds: 300 };
        let checkpoint = cluster.proposal(Origin::Client, op);
        cluster.store(leader).propose(checkpoint, PATIENCE).await.unwrap().outcome.unwrap();
    }
    assert_eq!(cluster.store(leader).renew_lease(renewed, PATIENCE).await, Ok(Some(1000)));
    leader = cluster.store(leader).transfer_leader(None, PATIENCE).await.unwrap();
    let store = cluster.store(leader);
    let left = store.lease_left(kept, PATIENCE).await.unwrap().unwrap();
    assert!((250..=300).contains(&left), "{left}");
    let left = store.lease_left(renewed, PATIENCE).await.unwrap().unwrap();
    assert!((900..=1000).contains(&left), "{left}: its renewal was promised");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_leases_ends_no_faster_than_a_thousand_a_second() {
    const LEASES: i64 = 300;
    let cluster = Arc::new(Cluster::start(1).await);
    let (leader, _) = cluster.leader().await;
    let mut tasks = JoinSet::new();
    for id in 1..=LEASES {
        let cluster = Arc::clone(&cluster);
        tasks.spawn(async move { grant(&cluster, leader, LeaseId(id), 1).await });
    }
    tasks.join_all().await;
    let store = cluster.store(leader);
    let mut ends = Vec::new();
    let all_end = async {
        loop {
            let left = store.view().leases().len();
            if left == 0 {
                break;
            }
            ends.push(left);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, all_end).await.unwrap();
    let largest = ends.windows(2).map(|pair| pair[0] - pair[1]).max().unwrap();
    assert!(largest <= 100, "{largest} within a look");
}
