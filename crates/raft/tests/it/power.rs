//! Power cuts of the whole machine: all replicas at once, in the middle of writes.

use crate::cluster::{Cluster, PATIENCE, everything, put, succeeded};
use raft::{DiskConfig, disk::MemoryDisk};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{Cluster as _, Origin, Store as _};
use tokio::{task::JoinSet, time::Instant};

/// `TRIREME_CUTS` of them; a few in an ordinary run.
fn cuts() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how long to test is not configuration")]
    let asked = std::env::var("TRIREME_CUTS").ok();
    asked.map_or(6, |cuts| cuts.parse().expect("TRIREME_CUTS is a number"))
}

fn on(disk: &MemoryDisk) -> DiskConfig {
    DiskConfig { disk: Arc::new(disk.clone()), ..DiskConfig::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_power_of_all_replicas_is_cut() {
    const WRITERS: u64 = 6;
    let mut disk = MemoryDisk::default();
    let disks = (1..=3).map(|id| (id, on(&disk))).collect();
    // Small, so that cuts meet new segments, snapshots and purges.
    let mut cluster = Cluster::on_disks(100, 64 << 10, disks).await;
    cluster.leader().await;
    let mut kept = BTreeMap::new();
    let (mut written, mut unknown, mut longest) = (0, 0, Duration::ZERO);
    for cut in 0..cuts() {
        let mut writers = JoinSet::new();
        let stop = tokio_util::sync::CancellationToken::new();
        for writer in 0..WRITERS {
            let store = cluster.store(1 + writer % 3);
            let stop = stop.clone();
            let first = cut * 1_000_000;
            let proposals = (0..).map({
                let make = cluster.maker();
                move |i| {
                    let key = format!("{writer}-{}", i % 40);
                    let value = format!("{}", first + i);
                    (key.clone(), first + i, make(Origin::Client, put(&key, &value)))
                }
            });
            writers.spawn(async move {
                let mut acknowledged = BTreeMap::new();
                let (mut count, mut doubt) = (0u64, 0u64);
                for (key, value, proposal) in proposals {
                    tokio::select! {
                        applied = store.propose(proposal, PATIENCE) => match applied {
                            Ok(applied) if succeeded(&applied) => {
                                acknowledged.insert(key, value);
                                count += 1;
                            }
                            Ok(_) | Err(_) => doubt += 1,
                        },
                        () = stop.cancelled() => break,
                    }
                }
                (acknowledged, count, doubt)
            });
        }
        // In the middle: after a number of writes that differs from cut to cut, and no pause.
        let goal = cluster.store(1).view().revision().get() + 40 + cut * 37 % 400;
        let first = cluster.store(1);
        first.wait_for(store::Revision::new(goal), PATIENCE).await.unwrap();
        if cut % 3 == 0 {
            // Meets a snapshot that is being written, or has just been.
            let snapshot = Arc::clone(&first);
            tokio::select! {
                _ = snapshot.snapshot() => {}
                () = tokio::task::yield_now() => {}
            }
        }
        drop(first);
        disk = disk.power_cut(cut);
        stop.cancel();
        for (acknowledged, count, doubt) in writers.join_all().await {
            kept.extend(acknowledged);
            written += count;
            unknown += doubt;
        }
        for id in cluster.ids() {
            cluster.kill(id).await;
        }
        for id in 1..=3 {
            cluster.set_disk(id, on(&disk));
            cluster.restart(id).await;
        }
        let started = Instant::now();
        cluster.settle().await;
        longest = longest.max(started.elapsed());
        let view = cluster.store(1 + cut % 3).view();
        for (key, value) in &kept {
            let found = view.get(key.as_bytes()).map(|kv| kv.value);
            let found = found.map(|value| String::from_utf8_lossy(&value).parse::<u64>().unwrap());
            // A later one may have been under way when the power went.
            assert!(found >= Some(*value), "cut {cut}: {key} is {found:?}, acknowledged {value}");
        }
    }
    assert!(cluster.store(1).view().count(&everything()) > 0);
    eprintln!(
        "{} cuts, {written} writes acknowledged, none lost; {unknown} of unknown outcome; \
         {longest:?} at most until all had the same state again",
        cuts()
    );
}
