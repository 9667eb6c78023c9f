//! A cluster whose members can be dropped and started again.

use raft::{Member, PeerTls, RaftConfig, RaftStore, Timers};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{
    Applied, Cluster as _, KeyRange, Leadership, LeaseId, Op, Origin, Outcome, Proposal, Put,
    RequestId, Store as _, StoreError, Timestamp, Txn, TxnOp,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, time::timeout};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Three members by default; dropping it removes their disks.
pub(crate) struct Cluster {
    dir: TempDir,
    members: BTreeMap<u64, Member>,
    running: BTreeMap<u64, Arc<RaftStore>>,
    snapshot_entries: u64,
    tls: BTreeMap<u64, PeerTls>,
    sequence: AtomicU64,
}

impl Cluster {
    pub(crate) async fn start(size: u64) -> Self {
        Self::with_snapshots(size, 10_000).await
    }

    pub(crate) async fn with_snapshots(size: u64, snapshot_entries: u64) -> Self {
        Self::with(size, snapshot_entries, BTreeMap::new()).await
    }

    /// Members that talk TLS, if they are given certificates.
    pub(crate) async fn with(
        size: u64,
        snapshot_entries: u64,
        tls: BTreeMap<u64, PeerTls>,
    ) -> Self {
        let scheme = if tls.is_empty() { "http" } else { "https" };
        let mut members = BTreeMap::new();
        let mut listeners = BTreeMap::new();
        for id in 1..=size {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let peer_url = format!("{scheme}://{}", listener.local_addr().unwrap());
            members.insert(id, member(id, peer_url));
            listeners.insert(id, listener);
        }
        let mut cluster = Self {
            dir: tempfile::tempdir().unwrap(),
            members,
            running: BTreeMap::new(),
            snapshot_entries,
            tls,
            sequence: AtomicU64::new(0),
        };
        for (id, listener) in listeners {
            let started = cluster.open(id, listener).await;
            cluster.running.insert(id, started);
        }
        cluster
    }

    pub(crate) fn config(&self, id: u64) -> RaftConfig {
        RaftConfig {
            id,
            join: false,
            token: String::new(),
            data_dir: self.dir.path().join(id.to_string()),
            members: self.members.clone(),
            timers: Timers::lan(),
            snapshot_entries: self.snapshot_entries,
            segment_bytes: 16 << 20,
            tls: self.tls.get(&id).cloned(),
        }
    }

    async fn open(&self, id: u64, listener: TcpListener) -> Arc<RaftStore> {
        let clock = Arc::new(|| Timestamp(1));
        RaftStore::start(self.config(id), clock, listener).await.unwrap()
    }

    /// Starts a member again, on its disk and its address.
    pub(crate) async fn restart(&mut self, id: u64) {
        let address: SocketAddr =
            self.members[&id].peer_urls[0].trim_start_matches("http://").parse().unwrap();
        let bound = async {
            loop {
                // Its old connections may still be on their way out.
                match TcpListener::bind(address).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let listener = timeout(PATIENCE, bound).await.unwrap();
        let started = self.open(id, listener).await;
        self.running.insert(id, started);
    }

    /// Ends a member without a word to the others.
    pub(crate) async fn kill(&mut self, id: u64) {
        let store = self.running.remove(&id).unwrap();
        store.kill().await;
    }

    pub(crate) fn store(&self, id: u64) -> Arc<RaftStore> {
        Arc::clone(&self.running[&id])
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.running.keys().copied().collect()
    }

    /// Waits until one of the running members leads with its epoch begun.
    pub(crate) async fn leader(&self) -> (u64, store::Epoch) {
        let found = async {
            loop {
                for (id, store) in &self.running {
                    if let Leadership::Leading { epoch } = *store.leadership().borrow() {
                        return (*id, epoch);
                    }
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, found).await.unwrap()
    }

    pub(crate) fn proposal(&self, origin: Origin, op: Op) -> Proposal {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        Proposal { request: RequestId { client: 7, sequence }, origin, op }
    }

    pub(crate) async fn put(&self, at: u64, key: &str, value: &str) -> Result<Applied, StoreError> {
        let proposal = self.proposal(Origin::Client, put(key, value));
        self.store(at).propose(proposal, PATIENCE).await
    }

    /// A linearizable read at one member.
    pub(crate) async fn get(&self, at: u64, key: &str) -> Option<String> {
        let store = self.store(at);
        store.barrier(PATIENCE).await.unwrap();
        let kv = store.view().get(key.as_bytes())?;
        Some(String::from_utf8(kv.value.to_vec()).unwrap())
    }

    /// Waits until every running member has applied the same, and says it is the same.
    pub(crate) async fn settle(&self) {
        let furthest = {
            let mut furthest = store::Revision::ZERO;
            for store in self.running.values() {
                furthest = furthest.max(store.barrier(PATIENCE).await.unwrap());
            }
            furthest
        };
        let mut hashes = Vec::new();
        for store in self.running.values() {
            store.wait_for(furthest, PATIENCE).await.unwrap();
            hashes.push((store.view().revision(), store.view().hash()));
        }
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
    }
}

fn member(id: u64, peer_url: String) -> Member {
    let name = format!("replica-{id}");
    Member { name, peer_urls: vec![peer_url], ..Member::default() }
}

pub(crate) fn put(key: &str, value: &str) -> Op {
    let put = Put {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        lease: LeaseId::NONE,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    };
    Op::Txn(Txn { compare: vec![], success: vec![TxnOp::Put(put)], failure: vec![] })
}

pub(crate) fn everything() -> KeyRange {
    KeyRange::From(bytes::Bytes::from_static(b"\x01"))
}

pub(crate) fn succeeded(applied: &Applied) -> bool {
    matches!(&applied.outcome, Ok(Outcome::Txn(result)) if result.succeeded)
}
