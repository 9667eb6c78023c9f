//! A cluster whose members can be dropped and started again.

use raft::{DiskConfig, Member, PeerTls, RaftConfig, RaftStore, StartError, Timers};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{
    Applied, Cluster as _, KeyRange, Leadership, LeaseId, MemberChange, MemberError, MemberInfo,
    MemberRole, Op, Origin, Outcome, Proposal, Put, RequestId, Store as _, StoreError, Timestamp,
    Txn, TxnOp,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Three members by default; dropping it removes their disks.
pub(crate) struct Cluster {
    dir: TempDir,
    /// Of the first start.
    first: BTreeMap<u64, Member>,
    /// Of all that ever were.
    members: BTreeMap<u64, Member>,
    running: BTreeMap<u64, Arc<RaftStore>>,
    snapshot_entries: u64,
    tls: BTreeMap<u64, PeerTls>,
    disks: BTreeMap<u64, DiskConfig>,
    segment_bytes: u64,
    sequence: Arc<AtomicU64>,
    /// What every member's clock says, in microseconds.
    pub(crate) now: Arc<AtomicU64>,
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
        let (mut cluster, listeners) = Self::prepare(size, snapshot_entries, tls).await;
        for (id, listener) in listeners {
            cluster.open(id, listener).await;
        }
        cluster
    }

    /// Members whose disks can be made to fail.
    pub(crate) async fn on_disks(
        snapshot_entries: u64,
        segment_bytes: u64,
        disks: BTreeMap<u64, DiskConfig>,
    ) -> Self {
        let size = disks.len() as u64;
        let (mut cluster, listeners) = Self::prepare(size, snapshot_entries, BTreeMap::new()).await;
        (cluster.disks, cluster.segment_bytes) = (disks, segment_bytes);
        for (id, listener) in listeners {
            cluster.open(id, listener).await;
        }
        cluster
    }

    /// Three members whose words take so long from one to the other.
    pub(crate) async fn apart(by: Duration) -> Self {
        let (mut cluster, listeners) = Self::prepare(3, 10_000, BTreeMap::new()).await;
        for (id, listener) in &listeners {
            let url = format!("http://{}", far(listener.local_addr().unwrap(), by).await);
            cluster.first.get_mut(id).unwrap().peer_urls = vec![url];
        }
        for (id, listener) in listeners {
            cluster.open(id, listener).await;
        }
        cluster
    }

    /// Addresses and disks, nobody running.
    pub(crate) async fn prepare(
        size: u64,
        snapshot_entries: u64,
        tls: BTreeMap<u64, PeerTls>,
    ) -> (Self, BTreeMap<u64, TcpListener>) {
        let scheme = if tls.is_empty() { "http" } else { "https" };
        let mut members = BTreeMap::new();
        let mut listeners = BTreeMap::new();
        for id in 1..=size {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let peer_url = format!("{scheme}://{}", listener.local_addr().unwrap());
            members.insert(id, member(id, peer_url));
            listeners.insert(id, listener);
        }
        let cluster = Self {
            dir: tempfile::tempdir().unwrap(),
            first: members.clone(),
            members,
            running: BTreeMap::new(),
            snapshot_entries,
            tls,
            disks: BTreeMap::new(),
            segment_bytes: 16 << 20,
            sequence: Arc::default(),
            now: Arc::new(AtomicU64::new(1)),
        };
        (cluster, listeners)
    }

    /// Adds a member to the membership through the one at `at`; it is not started.
    pub(crate) async fn add(&mut self, at: u64, learner: bool) -> (u64, TcpListener) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let peer_url = format!("http://{}", listener.local_addr().unwrap());
        let change = MemberChange::Add { peer_urls: vec![peer_url.clone()], learner };
        let members = self.store(at).change_members(change, PATIENCE).await.unwrap();
        let id = members.iter().find(|m| m.peer_urls == [peer_url.clone()]).unwrap().id;
        self.members.insert(id, member(id, peer_url));
        (id, listener)
    }

    /// Adds a member and starts it; waits until it votes, or learns.
    pub(crate) async fn grow(&mut self, at: u64, learner: bool) -> u64 {
        let (id, listener) = self.add(at, learner).await;
        self.open(id, listener).await;
        let wanted = if learner { MemberRole::Learner } else { MemberRole::Follower };
        self.until_role(id, wanted).await;
        id
    }

    pub(crate) async fn until_role(&self, id: u64, role: MemberRole) {
        let store = self.store(id);
        let there = async {
            while store.local().role != role || !store.members().iter().any(|m| m.id == id) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, there).await.unwrap();
    }

    pub(crate) async fn remove(&self, at: u64, id: u64) -> Result<Vec<MemberInfo>, MemberError> {
        self.store(at).change_members(MemberChange::Remove { id }, PATIENCE).await
    }

    pub(crate) fn data_dir(&self, id: u64) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    /// Takes an address for a member of which nothing runs.
    pub(crate) async fn moved(&mut self, id: u64) -> (String, TcpListener) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        self.members.get_mut(&id).unwrap().peer_urls = vec![url.clone()];
        (url, listener)
    }

    pub(crate) fn config(&self, id: u64) -> RaftConfig {
        let join = !self.first.contains_key(&id);
        RaftConfig {
            id,
            join,
            token: String::new(),
            data_dir: self.dir.path().join(id.to_string()),
            members: if join { self.members.clone() } else { self.first.clone() },
            timers: Timers::lan(),
            snapshot_entries: self.snapshot_entries,
            segment_bytes: self.segment_bytes,
            tls: self.tls.get(&id).cloned(),
            disk: self.disks.get(&id).cloned().unwrap_or_default(),
        }
    }

    pub(crate) async fn open(&mut self, id: u64, listener: TcpListener) {
        let started = self.try_open(id, listener).await.unwrap();
        self.running.insert(id, started);
    }

    pub(crate) async fn try_open(
        &self,
        id: u64,
        listener: TcpListener,
    ) -> Result<Arc<RaftStore>, StartError> {
        let now = Arc::clone(&self.now);
        let clock = Arc::new(move || Timestamp(now.load(Ordering::Relaxed)));
        RaftStore::start(self.config(id), clock, listener).await
    }

    /// Starts a member again, on its disk and its address.
    pub(crate) async fn restart(&mut self, id: u64) {
        let listener = self.listen(id).await;
        self.open(id, listener).await;
    }

    /// A member's own address again.
    pub(crate) async fn listen(&self, id: u64) -> TcpListener {
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
        timeout(PATIENCE, bound).await.unwrap()
    }

    /// Another disk for a member that does not run.
    pub(crate) fn set_disk(&mut self, id: u64, disk: DiskConfig) {
        self.disks.insert(id, disk);
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

    /// Waits until a member names a leader, or nobody, as is wanted.
    pub(crate) async fn until_names(&self, id: u64, wanted: impl Fn(&Option<u64>) -> bool) {
        let store = self.store(id);
        let named = async {
            while !wanted(&store.local().leader) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, named).await.unwrap();
    }

    pub(crate) fn proposal(&self, origin: Origin, op: Op) -> Proposal {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        Proposal { request: RequestId { client: 7, sequence }, origin, op }
    }

    /// As [`Cluster::proposal`], for a task of its own.
    pub(crate) fn maker(&self) -> impl Fn(Origin, Op) -> Proposal + Send + use<> {
        let sequence = Arc::clone(&self.sequence);
        move |origin, op| {
            let sequence = sequence.fetch_add(1, Ordering::Relaxed) + 1;
            Proposal { request: RequestId { client: 7, sequence }, origin, op }
        }
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

    fn states(&self) -> String {
        let states = self.running.values().map(|store| {
            format!("{store:?} {:?} failed: {:?}", store.local(), *store.failed().borrow())
        });
        states.collect::<Vec<_>>().join("\n")
    }

    /// Waits until every running member has applied the same, and says it is the same.
    pub(crate) async fn settle(&self) {
        let furthest = {
            let mut furthest = store::Revision::ZERO;
            for store in self.running.values() {
                let until = Instant::now() + PATIENCE;
                let revision = loop {
                    match store.barrier(PATIENCE).await {
                        Ok(revision) => break revision,
                        // An election may be under way.
                        Err(error) if Instant::now() > until => {
                            panic!("{error}\n{}", self.states())
                        }
                        Err(_) => {}
                    }
                };
                furthest = furthest.max(revision);
            }
            furthest
        };
        for store in self.running.values() {
            if let Err(error) = store.wait_for(furthest, PATIENCE).await {
                panic!("{error}\n{}", self.states());
            }
        }
        // Also what changes no key changes the hash: compared where all have applied the same.
        let same = async {
            loop {
                let seen = self.running.values().map(|store| {
                    let before = store.local().applied_index;
                    let view = store.view();
                    let after = store.local().applied_index;
                    (before, after, view.revision(), view.hash())
                });
                let seen: Vec<_> = seen.collect();
                let index = seen[0].0;
                if seen.iter().all(|(before, after, ..)| (*before, *after) == (index, index)) {
                    return seen;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let seen = timeout(PATIENCE, same).await.unwrap();
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
    }
}

/// An address from which everything reaches `to` and comes back, each way so much later.
#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
async fn far(to: SocketAddr, by: Duration) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(to).await else { continue };
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(carry(near_in, far_out, by));
            tokio::spawn(carry(far_in, near_out, by));
        }
    });
    address
}

#[expect(clippy::disallowed_methods, reason = "as much as connections hold that are under way")]
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, by: Duration) {
    let (sender, mut under_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut piece = vec![0; 64 << 10];
        while let Ok(len @ 1..) = from.read(&mut piece).await {
            let _ = sender.send((Instant::now() + by, piece[..len].to_vec()));
        }
    };
    let write = async move {
        while let Some((due, piece)) = under_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
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
