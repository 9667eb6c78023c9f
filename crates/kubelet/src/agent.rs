//! The agent: a session with the control plane, and a worker for every Pod.

use crate::{
    admission::{Offer, refusal},
    checkpoint::Checkpoints,
    config::{self, PodDirs},
    disk::NodeDisk,
    journal::{Found, Journal},
    machine::Machine,
    outbox::Outbox,
    runtime::Runtime,
    statuses::Statuses,
    step::Verdict,
    worker::{self, Told, Worker},
};
use api::{core::Pod, pod::has_ended};
use client::{
    node::{Fetch, FromControlPlane, NodeSession, NodeSessionConfig, ToControlPlane, session},
    transport::Access,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, broadcast::error::RecvError, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use world::net::TcpListener;

/// A node.
#[derive(Debug, Clone)]
pub struct KubeletConfig {
    /// Node name.
    pub name: String,
    /// The machine it is.
    pub machine: Machine,
    /// Where the kubelet keeps what is to outlive it.
    pub disk: Arc<dyn NodeDisk>,
    /// On that disk: Pod directories, logs and records.
    pub data_dir: PathBuf,
    /// `http(s)://host:port` of any replicas.
    pub endpoints: Vec<String>,
    /// Whom to trust there, and how this node proves who it is.
    pub access: Access,
    /// What is shown to who asks for logs and exec, and who may; without it, anybody may.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// What this node shows: to whom, and in which file.
    pub certificates: Vec<(String, PathBuf)>,
    /// Labels beside the well-known ones.
    pub labels: BTreeMap<String, String>,
    /// Pods at most.
    pub max_pods: u32,
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// Silence of the control plane's stream after which another replica is taken.
    pub silence_max: Duration,
    /// Where logs and exec are served.
    pub listen: SocketAddr,
}

/// Reads the wall clock, in microseconds since the Unix epoch; the caller's.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What the workers share.
pub(crate) struct Shared {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) clock: Clock,
    pub(crate) host_ip: String,
    node: String,
    pub(crate) disk: Arc<dyn NodeDisk>,
    data_dir: PathBuf,
    /// Host and port of each API that is reached by TLS.
    apis: Vec<(String, String)>,
    requests: mpsc::Sender<ToControlPlane>,
    pub(crate) fetches: mpsc::Sender<Fetch>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) statuses: Statuses,
    pub(crate) certificates: Vec<(String, PathBuf)>,
}

impl Shared {
    pub(crate) fn now_seconds(&self) -> i64 {
        i64::try_from((self.clock)() / 1_000_000).unwrap_or_default()
    }

    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    pub(crate) fn dirs(&self, pod: &Pod) -> PodDirs {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        PodDirs {
            data: self.data_dir.join("volumes").join(uid),
            logs: self.logs(namespace, name, uid),
        }
    }

    pub(crate) fn logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.data_dir.join("logs").join(format!("{namespace}_{name}_{uid}"))
    }

    /// Host and port of an API for the programs of a Pod, another one for another Pod; `None` where it could
    /// not reach any: its own loopback address is not the node's (ENV-1).
    pub(crate) fn api_of(&self, pod: &Pod) -> Option<(&str, &str)> {
        let at_home = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        let is_loopback = |host: &str| {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        };
        let reached: Vec<&(String, String)> =
            self.apis.iter().filter(|(host, _)| at_home || !is_loopback(host)).collect();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let which = usize::try_from(api::names::stable_hash(uid)).unwrap_or_default();
        let (host, port) = reached.get(which.checked_rem(reached.len())?)?;
        Some((host, port))
    }

    /// Best effort: dropped when the queue is full (EVT-1).
    pub(crate) fn event(&self, pod: &Pod, kind: &str, reason: &str, message: &str, field: &str) {
        let metadata = &pod.metadata;
        let now = api::meta::time(self.now_seconds());
        let name = metadata.name.as_deref().unwrap_or_default();
        let _ = self.requests.try_send(ToControlPlane::Event {
            event: json!({
                "metadata": {"generateName": format!("{name}."), "namespace": metadata.namespace},
                "involvedObject": {
                    "apiVersion": "v1", "kind": "Pod", "name": metadata.name,
                    "namespace": metadata.namespace, "uid": metadata.uid, "fieldPath": field,
                },
                "type": kind, "reason": reason, "message": message, "count": 1,
                "firstTimestamp": now, "lastTimestamp": now,
                "source": {"component": "kubelet", "host": self.node},
                "reportingComponent": "kubelet", "reportingInstance": self.node,
            }),
        });
    }
}

/// Of `https://HOST:PORT`.
fn host_and_port(url: &str) -> Option<(String, String)> {
    let (host, port) = url.strip_prefix("https://")?.trim_end_matches('/').rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']).to_owned(), port.to_owned()))
}

/// Runs a node until `shutdown`; its Pods go on. Without a `listener` nobody can ask for logs or exec.
pub async fn run(
    config: KubeletConfig,
    runtime: Arc<dyn Runtime>,
    clock: Clock,
    listener: Option<TcpListener>,
    shutdown: CancellationToken,
) {
    let session_config = NodeSessionConfig {
        node: config.name.clone(),
        instance: uuid::Uuid::new_v4().to_string(),
        machine_id: machine_id(&config),
        boot_id: config.machine.boot_id.clone(),
        node_json: node_object(&config, &clock),
        endpoints: config.endpoints.clone(),
        access: config.access.clone(),
        heartbeat_interval: config.heartbeat,
        silence_max: config.silence_max,
        callable: listener.is_some(),
    };
    let (ends, link) = session(session_config, shutdown.child_token());
    let mut tasks = JoinSet::new();
    tasks.spawn(link);
    serve(config, runtime, clock, listener, ends, shutdown).await;
    tasks.shutdown().await;
}

/// As [`run`], over the ends of a session that somebody else keeps alive.
pub async fn serve(
    config: KubeletConfig,
    runtime: Arc<dyn Runtime>,
    clock: Clock,
    listener: Option<TcpListener>,
    mut ends: NodeSession,
    shutdown: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    let (records, found) = config.disk.open(&config.data_dir.join("journal")).await;
    let found = Found(found);
    let journal = Arc::new(Journal::default());
    // Written until the last worker is gone.
    let stop_writing = CancellationToken::new();
    let mut writer = JoinSet::new();
    writer.spawn(Arc::clone(&journal).write(records, stop_writing.clone()));
    let outbox = Arc::new(Outbox::new(Arc::clone(&journal), &found));
    tasks.spawn(Arc::clone(&outbox).pump(ends.requests.clone()));
    let shared = Arc::new(Shared {
        runtime: Arc::clone(&runtime),
        clock,
        host_ip: config.listen.ip().to_string(),
        node: config.name.clone(),
        disk: Arc::clone(&config.disk),
        data_dir: config.data_dir.clone(),
        apis: config.endpoints.iter().filter_map(|url| host_and_port(url)).collect(),
        requests: ends.requests.clone(),
        fetches: ends.fetches.clone(),
        outbox,
        checkpoints: Checkpoints::new(journal, &found),
        statuses: Statuses::default(),
        certificates: config.certificates.clone(),
    });
    // So that the first Pod does not wait for it.
    let images = Arc::clone(&runtime);
    tasks.spawn(async move {
        if let Err(error) = images.pull_image("toolbox").await {
            tracing::warn!(%error, "the built-in image cannot be made");
        }
    });
    if let Some(listener) = listener {
        let (shared, tls) = (Arc::clone(&shared), config.tls.clone());
        let stop = shutdown.child_token();
        tasks.spawn(crate::serve::serve(shared, listener, ends.calls, tls, stop));
    }
    let offer = Offer::of(&node_object(&config, &shared.clock));
    let (workers, arriving) = (BTreeMap::new(), BTreeMap::new());
    let mut agent = Agent { shared, offer, workers, arriving, tasks: JoinSet::new() };
    let mut events = runtime.events();
    let mut listed: Option<BTreeSet<String>> = None;
    loop {
        tokio::select! {
            told = ends.events.recv() => match told {
                Some(FromControlPlane::Connected { pod_cidr, replica, session }) => {
                    tracing::info!(replica, session, pod_cidr, "connected");
                    runtime.set_pod_cidr(&pod_cidr);
                    listed = Some(BTreeSet::new());
                }
                Some(FromControlPlane::Disconnected { reason }) => {
                    tracing::warn!(reason, "no control plane; Pods go on");
                }
                Some(FromControlPlane::Pod { pod, removed, .. }) => {
                    if let Ok(pod) = serde_json::from_value::<Pod>(*pod) {
                        let uid = pod.metadata.uid.clone().unwrap_or_default();
                        let is_new = !removed && !agent.workers.contains_key(&uid);
                        match &mut listed {
                            Some(listed) if is_new => {
                                listed.insert(uid.clone());
                                agent.arriving.insert(uid, pod);
                            }
                            listed => {
                                if let Some(listed) = listed {
                                    listed.insert(uid.clone());
                                }
                                agent.arriving.remove(&uid);
                                agent.tell(pod, removed);
                            }
                        }
                    }
                }
                Some(FromControlPlane::Synced { complete, .. }) => {
                    // A session that goes on where the last one was brings no list, only what is new.
                    if let Some(listed) = listed.take() {
                        agent.arrive().await;
                        if complete {
                            agent.complete(&listed).await;
                        }
                    }
                }
                Some(FromControlPlane::Acknowledged { sequence, result }) => {
                    agent.shared.outbox.settle(sequence, &result);
                }
                Some(FromControlPlane::Fenced { message }) => {
                    tracing::error!(message, "another agent holds this node: Pods are stopped");
                    agent.complete(&BTreeSet::new()).await;
                }
                None => break,
            },
            event = events.recv() => match event {
                Ok(event) => agent.wake(Some(&event.pod_uid)),
                Err(RecvError::Lagged(_)) => agent.wake(None),
                Err(RecvError::Closed) => break,
            },
            done = agent.tasks.join_next(), if !agent.tasks.is_empty() => {
                if let Some(Ok(uid)) = done {
                    agent.workers.remove(&uid);
                }
            }
            () = shutdown.cancelled() => break,
        }
    }
    agent.tasks.shutdown().await;
    tasks.shutdown().await;
    stop_writing.cancel();
    while writer.join_next().await.is_some() {}
}

struct Agent {
    shared: Arc<Shared>,
    offer: Offer,
    workers: BTreeMap<String, Handle>,
    /// New to this agent, and held back until the list they came with is complete.
    arriving: BTreeMap<String, Pod>,
    tasks: JoinSet<String>,
}

struct Handle {
    told: watch::Sender<Told>,
    wake: Arc<Notify>,
    /// It needs no room any more.
    ended: Arc<AtomicBool>,
}

impl Agent {
    /// A Pod as it now is; starts its worker if it has none.
    fn tell(&mut self, pod: Pod, removed: bool) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if let Some(handle) = self.workers.get(&uid) {
            handle.told.send_replace(Told { pod, removed });
            return;
        }
        let ended = has_ended(&pod);
        if ended && !removed && pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        // A Pod on its way out takes no room from anybody: it was let in, or never began.
        let refused = if removed || ended || pod.metadata.deletion_timestamp.is_some() {
            None
        } else {
            refusal(&self.offer, &self.active(), &pod)
        };
        self.start(pod, removed, refused);
    }

    /// The Pods that need room: not those that ended, nor those that the API has given up.
    fn active(&self) -> Vec<Pod> {
        let active = self.workers.values().filter(|h| !h.ended.load(Ordering::Relaxed));
        active
            .map(|handle| handle.told.borrow())
            .filter(|told| !told.removed)
            .map(|told| told.pod.clone())
            .collect()
    }

    fn start(&mut self, pod: Pod, removed: bool, refused: Option<Verdict>) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let (sender, receiver) = watch::channel(Told { pod, removed });
        let wake = Arc::new(Notify::new());
        let rejected = refused.as_ref().is_some_and(|verdict| verdict.rejected);
        let ended = Arc::new(AtomicBool::new(rejected));
        let (shared, woken) = (Arc::clone(&self.shared), Arc::clone(&wake));
        let worker = Worker::new(shared, receiver, woken, Arc::clone(&ended), refused);
        self.workers.insert(uid.clone(), Handle { told: sender, wake, ended });
        self.tasks.spawn(async move {
            worker::run(worker).await;
            uid
        });
    }

    /// Takes up the Pods that a complete list has brought: what runs already before what is new, so
    /// that nothing is refused by the order in which it is named (§6.7).
    async fn arrive(&mut self) {
        let mut arriving: Vec<Pod> = std::mem::take(&mut self.arriving).into_values().collect();
        let found = self.shared.runtime.pods().await.unwrap_or_default();
        let here: BTreeSet<String> = found.into_iter().map(|p| p.sandbox.config.pod.uid).collect();
        let is_here = |pod: &Pod| pod.metadata.uid.as_ref().is_some_and(|uid| here.contains(uid));
        arriving.sort_by_key(|pod| {
            let metadata = &pod.metadata;
            (!is_here(pod), metadata.creation_timestamp.clone(), metadata.name.clone())
        });
        for pod in arriving {
            if is_here(&pod)
                && !self.workers.contains_key(pod.metadata.uid.as_deref().unwrap_or_default())
            {
                self.start(pod, false, None);
            } else {
                self.tell(pod, false);
            }
        }
    }

    fn wake(&self, uid: Option<&str>) {
        for (known, handle) in &self.workers {
            if uid.is_none_or(|uid| uid == known) {
                handle.wake.notify_one();
            }
        }
    }

    /// What is not in a complete list is not on this node any more: never before there is one (NOD-20).
    async fn complete(&mut self, listed: &BTreeSet<String>) {
        for (uid, handle) in &self.workers {
            if !listed.contains(uid) {
                handle.told.send_modify(|told| told.removed = true);
            }
        }
        let Ok(found) = self.shared.runtime.pods().await else { return };
        let mut known: BTreeSet<String> = self.workers.keys().cloned().collect();
        known.extend(listed.iter().cloned());
        for runtime in found {
            let sandbox = &runtime.sandbox.config;
            if !known.insert(sandbox.pod.uid.clone()) {
                continue;
            }
            // Known to the runtime and to nobody else (NOD-23, DEL-31).
            let uid = &sandbox.pod.uid;
            tracing::info!(uid, "ends an orphan");
            if let Some(pod) = config::pod_of(sandbox) {
                self.start(pod, true, None);
            } else if let Err(error) = self.shared.runtime.remove_pod(uid).await {
                tracing::warn!(%error, uid, "orphan not removed");
            }
        }
        let forgotten: Vec<&str> =
            self.shared.checkpoints.uids().filter(|uid| !known.contains(*uid)).collect();
        for uid in forgotten {
            self.shared.checkpoints.forget(uid);
        }
    }
}

/// The machine's own id, or one made for this data directory.
fn machine_id(config: &KubeletConfig) -> String {
    let id = &config.machine.id;
    if id.is_empty() { format!("data-dir:{}", config.data_dir.display()) } else { id.clone() }
}

fn node_object(config: &KubeletConfig, clock: &Clock) -> Value {
    let machine = &config.machine;
    let amounts = json!({
        "cpu": machine.cpus.to_string(), "memory": format!("{}Ki", machine.memory_kib),
        "pods": config.max_pods.to_string(),
    });
    let now = api::meta::time(i64::try_from(clock() / 1_000_000).unwrap_or_default());
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
               "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let mut labels = config.labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", config.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    let ip: IpAddr = config.listen.ip();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": config.name, "labels": labels},
        "status": {
            "capacity": amounts, "allocatable": amounts,
            "addresses": [
                {"type": "InternalIP", "address": ip.to_string()},
                {"type": "Hostname", "address": config.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": config.listen.port()}},
            "nodeInfo": {
                "architecture": std::env::consts::ARCH, "operatingSystem": "linux",
                "bootID": machine.boot_id, "machineID": machine.id, "systemUUID": "",
                "kernelVersion": machine.kernel, "osImage": "Linux",
                "containerRuntimeVersion": concat!("trireme://", env!("CARGO_PKG_VERSION")),
                "kubeletVersion": concat!("v", env!("CARGO_PKG_VERSION")), "kubeProxyVersion": "",
            },
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ],
        },
    })
}
