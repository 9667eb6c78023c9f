//! One member's disk misbehaves: what the others, and their clients, see of it.

use crate::cluster::{Cluster, PATIENCE, put, succeeded};
use raft::{
    DiskConfig, RaftStore,
    disk::{FaultDisk, Faults, MemoryDisk, Plan},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{
    Cluster as _, DiskState, KeyRange, MemberStatus, Op, Origin, Rejection, Store as _, Txn, TxnOp,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

const SEGMENT: u64 = 256 << 10;

/// A disk that stays stalled would hold up the end of a test that has failed.
struct Ending(BTreeMap<u64, Faults>);

impl std::ops::Index<&u64> for Ending {
    type Output = Faults;

    fn index(&self, id: &u64) -> &Faults {
        &self.0[id]
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        for faults in self.0.values() {
            faults.set(Plan::default());
        }
    }
}

async fn with_faults() -> (Cluster, Ending) {
    let faults: BTreeMap<u64, Faults> = (1..=3).map(|id| (id, Faults::default())).collect();
    let disks = faults.iter().map(|(id, faults)| {
        let disk = Arc::new(FaultDisk::new(Arc::new(MemoryDisk::default()), faults.clone()));
        (*id, DiskConfig { disk, ..DiskConfig::default() })
    });
    let cluster = Cluster::on_disks(10_000, SEGMENT, disks.collect()).await;
    (cluster, Ending(faults))
}

/// Writes at full speed; what was acknowledged when, and how many failed.
async fn writer(
    store: Arc<RaftStore>,
    make: impl Fn(Origin, Op) -> store::Proposal + Send + 'static,
    name: u64,
    stop: CancellationToken,
) -> (Vec<(String, Instant)>, u64) {
    let (mut done, mut failed) = (Vec::new(), 0);
    for i in 0.. {
        let key = format!("{name}-{i}");
        let proposal = make(Origin::Client, put(&key, "x"));
        tokio::select! {
            applied = store.propose(proposal, PATIENCE) => match applied {
                Ok(applied) if succeeded(&applied) => done.push((key, Instant::now())),
                Ok(_) | Err(_) => failed += 1,
            },
            () = stop.cancelled() => break,
        }
    }
    (done, failed)
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("not seen: {what}"))
}

async fn member(cluster: &Cluster, at: u64, id: u64) -> MemberStatus {
    let status = cluster.store(at).status(Duration::from_secs(1)).await;
    status.members.into_iter().find(|member| member.id == id).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_stalls_hands_over_within_a_second_and_stays_out_until_it_is_good() {
    let (cluster, faults) = with_faults().await;
    let (leader, _) = cluster.leader().await;
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let stop = CancellationToken::new();
    let mut writers = JoinSet::new();
    for name in 0..4 {
        // Through the member that stalls, too.
        let store = cluster.store(if name % 2 == 0 { leader } else { follower });
        writers.spawn(writer(store, cluster.maker(), name, stop.clone()));
    }
    let revision = cluster.store(follower).view().revision().get();
    let more = |count| store::Revision::new(revision + count);
    cluster.store(follower).wait_for(more(100), PATIENCE).await.unwrap();
    faults[&leader].set(Plan { stall_syncs: true, ..Plan::default() });
    let stalled = Instant::now();
    let next = until("another leads", async || {
        let local = cluster.store(follower).local();
        local.leader.filter(|id| *id != leader)
    })
    .await;
    let took = stalled.elapsed();
    assert!(took < Duration::from_secs(1), "handed over after {took:?}");
    let status = member(&cluster, follower, leader).await;
    assert_eq!((status.disk, status.disk_stalls), (DiskState::Stalled, 1));
    // It does not take the lead back, even when it is asked to.
    let asked = cluster.store(next).transfer_leader(Some(leader), Duration::from_secs(1)).await;
    assert_ne!(asked, Ok(leader));
    assert_ne!(cluster.store(follower).local().leader, Some(leader));
    // It passes on writes of its clients, and sends those away who must see the newest.
    let applied = cluster.put(leader, "through the stalled one", "x").await.unwrap();
    assert!(succeeded(&applied));
    assert!(cluster.get(next, "through the stalled one").await.is_some());
    if let Err(error) = cluster.store(leader).barrier(PATIENCE).await {
        assert!(error.is_retryable() && error.to_string().contains("has stalled"), "{error}");
    }
    faults[&leader].set(Plan::default());
    until("the disk proves good", async || {
        (member(&cluster, follower, leader).await.disk == DiskState::Ok).then_some(())
    })
    .await;
    until("it leads again when it is asked to", async || {
        let now = cluster.store(follower).local().leader?;
        let asked = cluster.store(now).transfer_leader(Some(leader), PATIENCE).await;
        (now == leader || asked == Ok(leader)).then_some(())
    })
    .await;
    stop.cancel();
    let mut gap = Duration::ZERO;
    for (done, failed) in writers.join_all().await {
        assert_eq!(failed, 0, "nobody was told of it");
        for pair in done.windows(2) {
            gap = gap.max(pair[1].1 - pair[0].1);
        }
        for (key, _) in done {
            assert!(cluster.store(next).view().get(key.as_bytes()).is_some(), "{key} is lost");
        }
    }
    eprintln!("handed over {took:?} after the stall, longest wait for a write {gap:?}");
    assert!(gap < Duration::from_secs(2), "a write waited {gap:?}");
    cluster.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_disk_stalls_holds_up_nobody() {
    let (cluster, faults) = with_faults().await;
    let (leader, epoch) = cluster.leader().await;
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    faults[&follower].set(Plan { stall_syncs: true, ..Plan::default() });
    let mut longest = Duration::ZERO;
    for i in 0..200 {
        let start = Instant::now();
        let at = if i % 2 == 0 { leader } else { follower };
        assert!(succeeded(&cluster.put(at, &format!("{i}"), "x").await.unwrap()));
        longest = longest.max(start.elapsed());
    }
    until("the stall is seen", async || {
        (member(&cluster, leader, follower).await.disk == DiskState::Stalled).then_some(())
    })
    .await;
    eprintln!("longest wait for a write {longest:?}");
    assert!(longest < Duration::from_millis(500), "a write waited {longest:?}");
    assert_eq!(cluster.leader().await, (leader, epoch), "no election");
    faults[&follower].set(Plan::default());
    until("the disk proves good", async || {
        (member(&cluster, leader, follower).await.disk == DiskState::Ok).then_some(())
    })
    .await;
    cluster.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_sync_fails_ends_and_the_others_go_on() {
    let (mut cluster, faults) = with_faults().await;
    let (leader, _) = cluster.leader().await;
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let stop = CancellationToken::new();
    let mut writers = JoinSet::new();
    for name in 0..4 {
        writers.spawn(writer(cluster.store(follower), cluster.maker(), name, stop.clone()));
    }
    let revision = cluster.store(follower).view().revision().get();
    let more = |count| store::Revision::new(revision + count);
    cluster.store(follower).wait_for(more(100), PATIENCE).await.unwrap();
    faults[&leader].set(Plan { fail_sync: Some(3), ..Plan::default() });
    let mut failed = cluster.store(leader).failed();
    let text = timeout(PATIENCE, failed.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    assert!(text.as_deref().is_some_and(|text| text.contains("Input/output error")), "{text:?}");
    cluster.kill(leader).await;
    let revision = cluster.store(follower).view().revision().get();
    let more = store::Revision::new(revision + 100);
    cluster.store(follower).wait_for(more, PATIENCE).await.unwrap();
    stop.cancel();
    for (done, failed) in writers.join_all().await {
        assert_eq!(failed, 0, "clients of the others are not told of it");
        for (key, _) in done {
            assert!(cluster.get(follower, &key).await.is_some(), "{key} is lost");
        }
    }
    cluster.restart(leader).await;
    cluster.settle().await;
}

fn delete(key: &str) -> Op {
    let range = KeyRange::One(key.to_owned().into());
    let step = TxnOp::DeleteRange(store::DeleteRange { range, prev_kv: false });
    Op::Txn(Txn { compare: vec![], success: vec![step], failure: vec![] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_full_disk_writes_are_refused_and_the_rest_goes_on_until_there_is_room() {
    for full_is_leader in [true, false] {
        let (cluster, faults) = with_faults().await;
        let (leader, _) = cluster.leader().await;
        let other = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
        let full = if full_is_leader { leader } else { other };
        for i in 0..10 {
            assert!(succeeded(&cluster.put(other, &format!("{i}"), "x").await.unwrap()));
        }
        faults[&full].set(Plan { full_after_bytes: Some(SEGMENT), ..Plan::default() });
        let refused = until("writes are refused", async || {
            cluster.put(other, "more", "x").await.unwrap().outcome.err()
        })
        .await;
        assert_eq!(refused, Rejection::NoSpace);
        let at = if full_is_leader { other } else { leader };
        assert_eq!(member(&cluster, at, full).await.disk, DiskState::Full);
        if full_is_leader {
            until("a member with room leads", async || {
                cluster.store(other).local().leader.filter(|id| *id != full)
            })
            .await;
        }
        // Reads, deletions, compaction and leases go on, through the full one too.
        assert!(cluster.get(full, "1").await.is_some());
        let proposal = cluster.proposal(Origin::Client, delete("1"));
        assert!(cluster.store(full).propose(proposal, PATIENCE).await.unwrap().outcome.is_ok());
        assert!(cluster.get(other, "1").await.is_none());
        let revision = cluster.store(other).view().revision();
        let proposal = cluster.proposal(Origin::Client, Op::Compact { revision });
        assert!(cluster.store(full).propose(proposal, PATIENCE).await.unwrap().outcome.is_ok());
        faults[&full].set(Plan::default());
        until("writes are taken again", async || {
            cluster.put(other, "more", "x").await.unwrap().outcome.ok()
        })
        .await;
        cluster.settle().await;
        assert_eq!(member(&cluster, other, full).await.disk, DiskState::Ok);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_raft_has_ended_says_so() {
    let (cluster, faults) = with_faults().await;
    let (leader, _) = cluster.leader().await;
    cluster.put(leader, "a", "1").await.unwrap();
    cluster.settle().await;
    let broken = cluster.store(leader);
    // Until the end of the log is sealed, the next write may be the log's.
    let mut last = None;
    until("nothing is written", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = broken.syncs().map(|times| times.bytes);
        (std::mem::replace(&mut last, now) == now).then_some(())
    })
    .await;
    faults[&leader].set(Plan { fail_write: Some(1), ..Plan::default() });
    let mut failed = broken.failed();
    let _ = timeout(PATIENCE, broken.snapshot()).await;
    let failed = timeout(PATIENCE, failed.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert!(failed.as_ref().is_some_and(|why| why.contains("raft has ended")), "{failed:?}");
}
