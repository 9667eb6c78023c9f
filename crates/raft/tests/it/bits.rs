//! A bit that flips anywhere in a replica's files: refused by name, or without any effect.

use crate::cluster::{Cluster, PATIENCE, everything, put};
use raft::{
    DiskConfig, RaftConfig, RaftStore, Timers,
    disk::{Disk as _, MemoryDisk},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{path::PathBuf, sync::Arc, time::Duration};
use store::{Cluster as _, KeyValue, Origin, Revision, Store as _, Timestamp};
use tokio::net::TcpListener;

const KEYS: u64 = 251;

/// `TRIREME_FLIPS` of them; a few in an ordinary run.
fn flips() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how long to test is not configuration")]
    let asked = std::env::var("TRIREME_FLIPS").ok();
    asked.map_or(100, |flips| flips.parse().expect("TRIREME_FLIPS is a number"))
}

fn on(disk: &MemoryDisk) -> DiskConfig {
    DiskConfig { disk: Arc::new(disk.clone()), ..DiskConfig::default() }
}

/// One replica's files: snapshots, purged log, segments that are full, and one that is not.
async fn some_files() -> (MemoryDisk, RaftConfig, Held, Cluster) {
    let disk = MemoryDisk::default();
    let mut cluster = Cluster::on_disks(1000, 64 << 10, [(1, on(&disk))].into()).await;
    cluster.leader().await;
    let store = cluster.store(1);
    for i in 0..700u64 {
        let (key, value) =
            (format!("{}", i * 7919 % KEYS), "v".repeat(usize::try_from(i % 300).unwrap()));
        let proposal = cluster.proposal(Origin::Client, put(&key, &value));
        store.propose(proposal, PATIENCE).await.unwrap();
        if i % 300 == 299 {
            store.snapshot().await.unwrap();
        }
    }
    let held = held(&store);
    drop(store);
    cluster.kill(1).await;
    let config = cluster.config(1);
    (disk, config, held, cluster)
}

/// The revision and every key. Not the hash: a start begins an epoch, which is in it.
type Held = (Revision, Vec<Option<KeyValue>>);

fn held(store: &RaftStore) -> Held {
    let view = store.view();
    assert!(view.count(&everything()) <= KEYS);
    (view.revision(), (0..KEYS).map(|key| view.get(key.to_string().as_bytes())).collect())
}

/// A byte of one of the files; more often one that holds something.
fn place(disk: &MemoryDisk, chance: &mut StdRng) -> (PathBuf, usize) {
    let files = disk.files();
    let (path, len) = &files[chance.random_range(0..files.len())];
    let bytes = disk.read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    let end = if chance.random_bool(0.9) { used + 1 } else { *len };
    (path.clone(), chance.random_range(0..end))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_refused_by_file_and_offset_or_changes_nothing() {
    let (disk, config, all, _cluster) = some_files().await;
    let files = disk.files();
    let counts =
        |name: &str| files.iter().filter(|(path, _)| path.to_string_lossy().contains(name)).count();
    assert!(counts("/snapshots/snapshot-") >= 2 && counts(".wal") >= 3, "{files:?}");
    let (mut refused, mut harmless) = (0, 0);
    for seed in 0..flips() {
        let mut chance = StdRng::seed_from_u64(seed);
        let (path, offset) = place(&disk, &mut chance);
        let damaged = disk.copy();
        let mask = 1 << chance.random_range(0..8);
        assert!(damaged.flip(&path, offset, mask));
        let config = RaftConfig { disk: on(&damaged), ..config.clone() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let clock = Arc::new(|| Timestamp(1));
        let what = || format!("seed {seed}: bit {mask:#x} of {} at {offset}", path.display());
        match RaftStore::start(config, clock, listener).await {
            Ok(store) => {
                // All of it, and nothing else.
                store.barrier(PATIENCE).await.unwrap();
                assert!(held(&store) == all, "{}", what());
                store.kill().await;
                harmless += 1;
            }
            Err(error) => {
                let text = error.to_string();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let at = text.split("corrupt at offset ").nth(1).unwrap_or_default();
                let at: Option<usize> = at.split(':').next().and_then(|at| at.parse().ok());
                assert!(text.contains(&name), "{}: {text}", what());
                // The identity is small, and checked as a whole.
                let whole = name == "identity";
                assert!(whole || at.is_some_and(|at| at <= offset), "{}: {text}", what());
                refused += 1;
            }
        }
    }
    eprintln!("{} flips: {refused} refused by name, {harmless} without effect", flips());
    assert!(refused > flips() / 4, "most of them hit something: {refused} refused");
    assert!(harmless > 0, "bits that hold nothing do no harm");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_files_that_are_damaged_open_when_they_are_not() {
    let (disk, config, all, _cluster) = some_files().await;
    let config = RaftConfig { disk: on(&disk.copy()), timers: Timers::lan(), ..config };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = RaftStore::start(config, Arc::new(|| Timestamp(1)), listener).await.unwrap();
    store.barrier(Duration::from_secs(10)).await.unwrap();
    assert!(held(&store) == all);
    store.kill().await;
}
