//! A replica: the store and the etcd API over it, as the server's etcd role runs them, on a simulated machine.

use crate::{
    Millis,
    client::{PORT, replica_ip},
    controller,
    disk::SimDisk,
    machine::Machine,
    net::Network,
    plan::{Plan, derive},
    trace::Trace,
};
use raft::{DiskConfig, Member, RaftConfig, RaftStore, Timers};
use server::clock::store_clock;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use store::{Cluster, Store};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use world::net::TcpListener;

/// Where replicas listen to each other.
pub(crate) const PEER_PORT: u16 = 2380;
/// How a process says that what its disk holds is not what was written there.
const DAMAGED: &str = "damaged: ";

/// A machine and its replica.
#[derive(Debug)]
pub(crate) struct Replica {
    /// Where it runs.
    pub(crate) machine: Machine,
    /// Its disk.
    pub(crate) disk: SimDisk,
    /// When it is started again; `None` while it runs.
    pub(crate) up_at: Option<Millis>,
    /// It was told to come up without power before.
    pub(crate) dark: bool,
    /// Before which sync from its next start on the power goes, with this seed.
    pub(crate) cut_at_start: Option<(u64, u64)>,
    /// Its member id.
    pub(crate) id: u64,
    /// Of the last entry that was seen applied.
    pub(crate) seen_index: u64,
    number: usize,
    join: bool,
    /// As it is told at its start.
    members: BTreeMap<u64, Member>,
    starts: u64,
    store: Arc<Mutex<Option<Arc<RaftStore>>>>,
}

impl Replica {
    /// A machine with an empty disk, for one of the first members.
    #[must_use]
    pub(crate) fn founding(plan: &Plan, number: usize, network: &Network, trace: &Trace) -> Self {
        let members = (0..plan.replicas).map(|number| {
            let member = Member {
                name: format!("replica-{}", number + 1),
                peer_urls: vec![format!("http://{}:{PEER_PORT}", replica_ip(number))],
                client_urls: vec![format!("http://{}:{PORT}", replica_ip(number))],
                ..Member::default()
            };
            (number as u64 + 1, member)
        });
        let members = members.collect();
        Self::new(plan, number, (number as u64 + 1, members, false), network, trace)
    }

    /// A machine with an empty disk, for a member that was added.
    #[must_use]
    pub(crate) fn joining(
        plan: &Plan,
        number: usize,
        id: u64,
        mut members: BTreeMap<u64, Member>,
        network: &Network,
        trace: &Trace,
    ) -> Self {
        if let Some(own) = members.get_mut(&id) {
            own.name = format!("replica-{}", number + 1);
            own.client_urls = vec![format!("http://{}:{PORT}", replica_ip(number))];
        }
        Self::new(plan, number, (id, members, true), network, trace)
    }

    fn new(
        plan: &Plan,
        number: usize,
        (id, members, join): (u64, BTreeMap<u64, Member>, bool),
        network: &Network,
        trace: &Trace,
    ) -> Self {
        let name = format!("replica-{}", number + 1);
        let seed = |purpose| derive(plan.seed, purpose, number as u64);
        let disk = SimDisk::new(&name, seed("disk"), trace.clone());
        let ip = replica_ip(number);
        let mut machine = Machine::new(name, ip, network.clone(), seed("machine"), trace.clone());
        if let Some((rate, wrong)) = plan.clocks.get(number) {
            (machine.rate, machine.wall_offset_us) = (*rate, *wrong);
        }
        Self {
            machine,
            disk,
            up_at: Some(0),
            dark: false,
            cut_at_start: None,
            seen_index: 0,
            id,
            number,
            join,
            members,
            starts: 0,
            store: Arc::default(),
        }
    }

    /// Its store, while it has one.
    #[must_use]
    pub(crate) fn store(&self) -> Option<Arc<RaftStore>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts the process, and the machine if need be.
    pub(crate) fn start(&mut self, plan: &Plan, now: Millis) {
        if std::mem::take(&mut self.dark) {
            self.machine.switch_on();
        }
        self.up_at = None;
        self.starts += 1;
        self.seen_index = 0;
        // Whatever its machine did meanwhile, it has power now.
        self.disk.keep_power();
        if let Some((syncs, seed)) = self.cut_at_start.take() {
            self.disk.cut_before_sync(syncs, seed);
        }
        let seed = derive(plan.seed, "start", (self.number as u64) << 32 | self.starts);
        let config = self.config(plan);
        let slot = Arc::clone(&self.store);
        self.machine.start(now, seed, run(config, self.number, slot));
    }

    /// Lets go of the store of a process that has ended or is about to.
    pub(crate) fn forget_store(&mut self) {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Kills its process.
    pub(crate) fn kill(&mut self, now: Millis) {
        self.forget_store();
        self.machine.kill(now);
    }

    /// Its power has gone.
    pub(crate) fn lose_power(&mut self) {
        self.forget_store();
        self.machine.lose_power();
        self.dark = true;
    }

    /// Whether a process that has ended so has found its disk damaged.
    #[must_use]
    pub(crate) fn is_damaged(why: &str) -> bool {
        why.starts_with(DAMAGED)
    }

    /// Whether a process has ended so because its member was removed.
    #[must_use]
    pub(crate) fn was_removed(why: &str) -> bool {
        why.contains("was removed")
    }

    fn config(&self, plan: &Plan) -> RaftConfig {
        RaftConfig {
            id: self.id,
            join: self.join,
            token: "simulation".to_owned(),
            data_dir: PathBuf::from("/data"),
            members: self.members.clone(),
            timers: if plan.wan { Timers::wan() } else { Timers::lan() },
            snapshot_entries: plan.snapshot_entries,
            segment_bytes: plan.segment_bytes,
            tls: None,
            disk: DiskConfig {
                disk: Arc::new(self.disk.clone()),
                stall: Duration::from_millis(500),
                reserve_bytes: None,
                snapshot_log_bytes: plan.segment_bytes * 8,
            },
        }
    }
}

/// Runs until the store fails; says why it has ended.
async fn run(
    config: RaftConfig,
    number: usize,
    slot: Arc<Mutex<Option<Arc<RaftStore>>>>,
) -> String {
    let ip = replica_ip(number);
    let listen = async |port| TcpListener::bind(SocketAddr::new(ip, port)).await;
    let (peers, clients) = match (listen(PEER_PORT).await, listen(PORT).await) {
        (Ok(peers), Ok(clients)) => (peers, clients),
        (Err(error), _) | (_, Err(error)) => return format!("listen: {error}"),
    };
    let store = match RaftStore::start(config, store_clock(), peers).await {
        Ok(store) => store,
        Err(error) if error.is_damaged() => return format!("{DAMAGED}{error}"),
        Err(error) => return format!("start: {error}"),
    };
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&store));
    let door = etcd::Door::new(
        Arc::clone(&store) as Arc<dyn Store>,
        Arc::clone(&store) as Arc<dyn Cluster>,
        etcd::Config::new(etcd::auth::Clock::new(store_clock())),
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(listen::listen(clients, None, door, CancellationToken::new()));
    for _ in 0..controller::DECISIONS {
        tasks.spawn(controller::decide(Arc::clone(&store)));
    }
    let mut failed = store.failed();
    let why = failed.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
    why.unwrap_or_default()
}
