//! What is acknowledged is on disk: counted, and shown by killing everything.

use crate::cluster::{Cluster, SOON, eventually, with_cluster};
use api::core::ConfigMap;
use client::{ListOptions, WriteOptions};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use server::workload::Workload;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, timeout};

const WRITERS: usize = 8;

#[test]
fn what_was_acknowledged_survives_the_kill_of_all_replicas_ten_times() {
    // S19
    with_cluster(0, async |cluster| {
        let mut kept = BTreeMap::new();
        for round in 1..=10 {
            let workload = Workload::start(&cluster.endpoints, WRITERS).unwrap();
            timeout(SOON, workload.more(100)).await.expect("writes before the kill");
            kill_all(cluster).await;
            let verdict = workload.finish(&cluster.client).await.unwrap();
            assert_eq!(verdict.violations, [""; 0], "round {round}");
            assert_eq!(verdict.lost, 0, "round {round}: {verdict:?}");
            // The same state at the same index on each of them.
            cluster.state().await;
            let now = stored(cluster).await;
            for (key, value) in &kept {
                assert_eq!(now.get(key), Some(value), "round {round}: written in an earlier one");
            }
            kept = now;
        }
    });
}

#[test]
fn a_write_is_synced_by_a_majority_and_many_share_a_sync() {
    // S19, P1
    with_cluster(0, async |cluster| {
        for i in 0..10 {
            let before = syncs(cluster).await;
            write(cluster, &format!("one-{i}")).await;
            let after = syncs(cluster).await;
            let synced = after.iter().filter(|(id, count)| **count > before[*id]).count();
            assert!(synced >= 2, "write {i}: {before:?} {after:?}");
        }
        let (before, leader) = (syncs(cluster).await, cluster.leader().await);
        let start = Instant::now();
        let clients = (0..64).map(async |client| {
            for i in 0..10 {
                write(cluster, &format!("many-{client}-{i}")).await;
            }
        });
        futures::future::join_all(clients).await;
        let took = start.elapsed();
        let after = syncs(cluster).await;
        let shared = after[&leader] - before[&leader];
        assert!(shared < 640 / 2, "640 writes in {took:?} took {shared} syncs of the leader");
        // A vote is synced, and so is the first entry of the new term.
        let killed = cluster.kill_leader().await;
        let before = after;
        write(cluster, "afterwards").await;
        let after = syncs(cluster).await;
        for (id, count) in after.iter().filter(|(id, _)| **id != killed) {
            assert!(*count >= before[id] + 2, "replica {id}: {before:?} {after:?}");
        }
        cluster.start_replica(killed).await;
    });
}

#[test]
fn nothing_is_lost_or_unseen_over_ten_leader_kills() {
    // S18, S19, S27, P1, P3
    with_cluster(0, async |cluster| {
        let workload = Workload::start(&cluster.endpoints, WRITERS).unwrap();
        let mut gaps = Vec::new();
        for _ in 0..10 {
            timeout(SOON, workload.more(50)).await.expect("writes before the kill");
            let at = Instant::now();
            let killed = cluster.kill_leader().await;
            timeout(SOON, workload.more(50)).await.expect("writes after the kill");
            gaps.push(workload.longest_gap(at));
            cluster.start_replica(killed).await;
        }
        let verdict = workload.finish(&cluster.client).await.unwrap();
        assert_eq!((verdict.lost, &verdict.violations), (0, &vec![]), "{verdict:?}");
        gaps.sort();
        assert!(gaps[5] < Duration::from_secs(1), "P1: writes resume within: {gaps:?}");
        cluster.state().await;
    });
}

/// SIGKILL to all replicas at once; returns when they serve again.
async fn kill_all(cluster: &Cluster) {
    let mut dev = cluster.processes().await;
    for id in 1..=3 {
        let pid = dev.replica_pid(id).unwrap();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    }
    for id in 1..=3 {
        dev.kill_replica(id).await.unwrap();
    }
    for id in 1..=3 {
        dev.start_replica(id).unwrap();
    }
    dev.wait_replicas(SOON).await.unwrap();
}

async fn write(cluster: &Cluster, name: &str) {
    let map: ConfigMap = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"}, "data": {"sequence": "1"},
    }))
    .unwrap();
    cluster.client.create(&map, &WriteOptions::default()).await.unwrap();
}

/// Every ConfigMap that was written here, and what it holds; there is the cluster's own besides.
async fn stored(cluster: &Cluster) -> BTreeMap<String, String> {
    let list = cluster.client.list::<ConfigMap>(Some("default"), &ListOptions::default()).await;
    let maps = list.unwrap().items.into_iter();
    maps.filter_map(|map| Some((map.metadata.name?, map.data?.remove("sequence")?))).collect()
}

/// Syncs of each replica's log since its start; of those that answer.
async fn syncs(cluster: &Cluster) -> BTreeMap<u64, u64> {
    eventually("the replicas' counters", SOON, async || {
        let status = cluster.status().await;
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let counts = members.iter().filter(|m| m["reachable"] == true);
        let counts: BTreeMap<u64, u64> =
            counts.map(|m| (m["id"].as_u64().unwrap(), m["syncs"].as_u64().unwrap())).collect();
        if counts.len() >= 2 { Ok(counts) } else { Err(status.to_string()) }
    })
    .await
}
