//! The processes of a plane, as the futures that simulated machines run, and what outlives them.

use super::{auditor::Looker, recorder::Recorder, settled};
use apiserver::{Limits, Retention};
use futures::FutureExt as _;
use kubelet::{
    agent::{self, KubeletConfig},
    disk::MemoryDisk,
    machine::Machine,
    runtime::{ContainerState, Runtime as _, RuntimePod, UnixMicros, fake::FakeRuntime},
};
use raft::{DiskConfig, Member, RaftConfig, RaftStore, Timers, disk::Disk};
use rand::{Rng as _, rngs::StdRng};
use server::{
    assembly::{Parts, Port, Ports, Replica},
    clock,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use world::net::TcpListener;

const RAFT_PORT: u16 = 2380;
const API_PORT: u16 = 6443;
const ETCD_PORT: u16 = 2379;
/// How a process says that what its disk holds is not what was written there.
pub(crate) const DAMAGED: &str = "damaged: ";
/// As real nodes have it: a replica that hangs is left after this.
const SILENCE_MAX: Duration = Duration::from_millis(600);

/// What all replicas of a run are told.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) replicas: BTreeMap<u64, IpAddr>,
    pub(crate) timers: Timers,
    pub(crate) snapshot_entries: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) node_silence: Duration,
    pub(crate) history: Duration,
}

impl Group {
    fn url(&self, id: u64, port: u16) -> String {
        let ip = self.replicas.get(&id).copied();
        ip.map_or_else(String::new, |ip| format!("http://{}", SocketAddr::new(ip, port)))
    }

    /// Of the API at one replica.
    pub(crate) fn api_url(&self, id: u64) -> String {
        self.url(id, API_PORT)
    }

    /// Of the API, beginning with the `at`-th replica, so that each has its share.
    pub(crate) fn api_urls(&self, at: usize) -> Vec<String> {
        let mut urls: Vec<String> = self.replicas.keys().map(|id| self.api_url(*id)).collect();
        let first = at % urls.len().max(1);
        urls.rotate_left(first);
        urls
    }

    fn member(&self, id: u64) -> Member {
        Member {
            name: format!("replica-{id}"),
            peer_urls: vec![self.url(id, RAFT_PORT)],
            api_url: self.api_url(id),
            client_urls: vec![self.url(id, ETCD_PORT)],
            ..Member::default()
        }
    }

    fn parts(&self, id: u64, disk: Arc<dyn Disk>) -> Parts {
        let raft = RaftConfig {
            id,
            join: false,
            token: "simulated".to_owned(),
            data_dir: PathBuf::from("/replica"),
            members: self.replicas.keys().map(|id| (*id, self.member(*id))).collect(),
            timers: self.timers,
            snapshot_entries: self.snapshot_entries,
            segment_bytes: self.segment_bytes,
            tls: None,
            disk: DiskConfig { disk, reserve_bytes: Some(0), ..DiskConfig::default() },
        };
        let api = apiserver::Config {
            name: format!("replica-{id}"),
            endpoints: self.api_urls(0),
            service_prefix: [10, 96],
            pod_prefix: [10, 244],
            node_silence: self.node_silence,
            access: apiserver::AccessConfig::default(),
            pki: apiserver::Pki::default(),
            // Not as many as this machine has cores.
            limits: Limits { lists: 2, ..Limits::default() },
        };
        let retention = Retention { age: self.history, revisions: 100_000 };
        Parts { raft, api, retention, clock: clock::store_clock() }
    }

    /// A replica's process, until it fails or is killed: why it has ended. `started` gets its store.
    pub(crate) async fn replica(
        &self,
        id: u64,
        disk: Arc<dyn Disk>,
        started: impl FnOnce(&Arc<RaftStore>),
    ) -> String {
        let ports = match self.ports(id).await {
            Ok(ports) => ports,
            Err(error) => return format!("listen: {error}"),
        };
        let replica = match Replica::start(self.parts(id, disk), ports).await {
            Ok(replica) => replica,
            Err(error) if error.is_damaged() => return format!("{DAMAGED}{error}"),
            Err(error) => return format!("start: {error}"),
        };
        started(replica.store());
        match replica.run(CancellationToken::new()).await {
            Ok(()) => "it was told to".to_owned(),
            Err(error) => format!("{error:#}"),
        }
    }

    async fn ports(&self, id: u64) -> io::Result<Ports> {
        let ip = self.replicas.get(&id).copied().ok_or(io::ErrorKind::NotFound)?;
        let bind = async |port| TcpListener::bind(SocketAddr::new(ip, port)).await;
        Ok(Ports {
            raft: bind(RAFT_PORT).await?,
            api: Port { listener: bind(API_PORT).await?, tls: None },
            etcd: Some(Port { listener: bind(ETCD_PORT).await?, tls: None }),
        })
    }
}

/// A machine that is a node, and what of it outlives its agent.
pub(crate) struct NodeMachine {
    pub(crate) name: String,
    ip: IpAddr,
    disk: MemoryDisk,
    runtime: Arc<FakeRuntime>,
    machine: Machine,
    max_pods: u32,
    boots: u64,
}

impl NodeMachine {
    /// As large as chance has it.
    pub(crate) fn new(name: &str, ip: IpAddr, recorder: &Recorder, chance: &mut StdRng) -> Self {
        let runtime = FakeRuntime::new(Arc::new(clock::unix_micros));
        runtime.observe(Arc::new(recorder.runtime(name)));
        Self {
            name: name.to_owned(),
            ip,
            disk: MemoryDisk::new(Duration::from_micros(chance.random_range(100..20_000))),
            runtime,
            machine: Machine {
                id: format!("machine-{name}"),
                boot_id: "boot-0".to_owned(),
                kernel: "simulated".to_owned(),
                cpus: chance.random_range(1..5),
                memory_kib: chance.random_range(1..5) << 20,
            },
            max_pods: chance.random_range(3..12),
            boots: 0,
        }
    }

    fn data_dir() -> PathBuf {
        PathBuf::from("/node")
    }

    /// The agent's process, until it is killed.
    pub(crate) fn agent(&self, endpoints: Vec<String>) -> impl Future<Output = ()> + use<> {
        let runtime = Arc::clone(&self.runtime);
        let config = KubeletConfig {
            name: self.name.clone(),
            machine: self.machine.clone(),
            disk: Arc::new(self.disk.clone()),
            data_dir: Self::data_dir(),
            endpoints,
            access: client::transport::Access::default(),
            tls: None,
            certificates: Vec::new(),
            labels: BTreeMap::new(),
            max_pods: self.max_pods,
            heartbeat: Duration::from_secs(1),
            silence_max: SILENCE_MAX,
            listen: SocketAddr::new(self.ip, 10250),
        };
        async move {
            runtime.resume();
            let clock: agent::Clock = Arc::new(clock::unix_micros);
            agent::run(config, runtime, clock, None, CancellationToken::new()).await;
        }
    }

    /// The machine loses its power; its agent's process must be ended, too.
    pub(crate) fn power_cut(&mut self, now: UnixMicros, chance: &mut StdRng) {
        self.boots += 1;
        self.machine.boot_id = format!("boot-{}", self.boots);
        self.disk.power_cut();
        let kept: f64 = if chance.random_bool(0.7) { 1.0 } else { 0.5 };
        let draws = std::cell::RefCell::new(chance);
        self.runtime.power_cut(now, |_| draws.borrow_mut().random_bool(kept));
    }

    /// What the agent has kept is lost.
    pub(crate) fn damage_disk(&self) {
        self.disk.damage();
    }

    /// Looks at what is on the machine, whenever it is asked.
    pub(crate) fn looker(&self) -> Looker {
        let (runtime, disk) = (Arc::clone(&self.runtime), self.disk.clone());
        Box::new(move || look(&runtime, &disk))
    }
}

fn look(runtime: &FakeRuntime, disk: &MemoryDisk) -> settled::Machine {
    // Nothing of it waits.
    let found = runtime.pods().now_or_never().and_then(Result::ok).unwrap_or_default();
    let uid = |pod: &RuntimePod| pod.sandbox.config.pod.uid.clone();
    let running = found.iter().filter(|pod| {
        let mut states = pod.containers.iter().map(|container| &container.state);
        states.any(|state| matches!(state, ContainerState::Running { .. }))
    });
    let volumes = NodeMachine::data_dir().join("volumes");
    let directories: BTreeSet<String> = disk
        .dirs()
        .iter()
        .filter_map(|dir| dir.strip_prefix(&volumes).ok()?.iter().next()?.to_str())
        .map(str::to_owned)
        .collect();
    settled::Machine {
        pods: found.iter().map(uid).collect(),
        running: running.map(uid).collect(),
        directories,
    }
}
