//! The other end of an agent's session: keeps Pods, takes statuses, holds the agent to the order of a
//! deletion.

use client::node::{Fetch, FromControlPlane, NodeSession, TOKENS, ToControlPlane};
use kubelet::{
    agent::{self, Clock, KubeletConfig},
    disk::FileDisk,
    machine::Machine,
    runtime::fake::FakeRuntime,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// Of virtual time: longer than any back-off or grace.
const DEADLINE: Duration = Duration::from_secs(3600);

/// One node with its control plane.
pub(crate) struct Node {
    pub(crate) runtime: Arc<FakeRuntime>,
    clock: Clock,
    dir: TempDir,
    state: Arc<State>,
    agent: Option<Running>,
    /// For the next agent to serve at.
    listener: Option<TcpListener>,
}

struct Running {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    told: mpsc::Sender<FromControlPlane>,
}

struct State {
    pods: Mutex<BTreeMap<String, Value>>,
    /// Counted up with every change of a Pod.
    revision: watch::Sender<u64>,
    /// Of all Events.
    reasons: Mutex<Vec<String>>,
    /// By resource and name.
    objects: Mutex<BTreeMap<(String, String), Value>>,
    /// What was asked for tokens, and when.
    tokens: Mutex<Vec<(Instant, Value)>>,
}

impl State {
    fn change(&self, uid: &str, change: impl FnOnce(&mut Value)) {
        if let Some(pod) = self.pods.lock().unwrap().get_mut(uid) {
            change(pod);
        }
        self.revision.send_modify(|revision| *revision += 1);
    }

    fn pod(&self, uid: &str) -> Option<Value> {
        self.pods.lock().unwrap().get(uid).cloned()
    }
}

impl Node {
    /// Without an agent, and with a clock that goes with tokio's.
    pub(crate) fn new() -> Self {
        let start = Instant::now();
        let clock: Clock = Arc::new(move || {
            1_700_000_000_000_000 + u64::try_from(start.elapsed().as_micros()).unwrap()
        });
        let runtime = FakeRuntime::new(Arc::clone(&clock));
        runtime.keep_journal();
        let state = State {
            pods: Mutex::default(),
            revision: watch::Sender::new(1),
            reasons: Mutex::default(),
            objects: Mutex::default(),
            tokens: Mutex::default(),
        };
        let dir = tempfile::tempdir().unwrap();
        Self { runtime, clock, dir, state: Arc::new(state), agent: None, listener: None }
    }

    /// Where the next agent serves logs and the like.
    pub(crate) async fn listen(&mut self) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        self.listener = Some(listener);
        address
    }

    /// Starts an agent (again), and tells it of every Pod there is.
    pub(crate) async fn start(&mut self) {
        self.connect().await;
        self.list(true).await;
    }

    /// Starts an agent (again), and connects it; it is told nothing yet.
    pub(crate) async fn connect(&mut self) {
        let (told, events) = mpsc::channel(1024);
        let (requests, asked) = mpsc::channel(1024);
        let (fetches, fetched) = mpsc::channel(1);
        let (_, calls) = mpsc::channel(1);
        let ends = NodeSession { events, requests, fetches, calls };
        let config = KubeletConfig {
            name: "node".to_owned(),
            machine: Machine::read(),
            disk: Arc::new(FileDisk),
            data_dir: self.dir.path().to_owned(),
            endpoints: Vec::new(),
            access: client::transport::Access::default(),
            tls: None,
            certificates: Vec::new(),
            labels: BTreeMap::new(),
            max_pods: 110,
            heartbeat: Duration::from_secs(10),
            silence_max: Duration::from_secs(1),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        };
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (runtime, clock) = (Arc::clone(&self.runtime), Arc::clone(&self.clock));
        let listener = self.listener.take().map(Into::into);
        tasks.spawn(agent::serve(config, runtime, clock, listener, ends, stop.clone()));
        tasks.spawn(answer(Arc::clone(&self.state), asked, told.clone()));
        tasks.spawn(give(Arc::clone(&self.state), fetched));
        told.send(connected("replica-1")).await.unwrap();
        self.agent = Some(Running { stop, tasks, told });
    }

    /// Tells the agent of every Pod; of all that there are, or of those that have changed.
    pub(crate) async fn list(&self, complete: bool) {
        let pods: Vec<Value> = self.state.pods.lock().unwrap().values().cloned().collect();
        for pod in pods {
            self.tell(pod, false).await;
        }
        let revision = *self.state.revision.borrow();
        let told = &self.agent.as_ref().unwrap().told;
        told.send(FromControlPlane::Synced { revision, complete }).await.unwrap();
    }

    /// Another replica takes the session over where it was, and tells of one Pod that the agent missed.
    pub(crate) async fn resume(&self, name: &str, spec: Value) {
        let told = &self.agent.as_ref().unwrap().told;
        told.send(connected("replica-2")).await.unwrap();
        self.create(name, spec).await;
        let revision = *self.state.revision.borrow();
        told.send(FromControlPlane::Synced { revision, complete: false }).await.unwrap();
    }

    /// Ends the agent; what it runs goes on.
    pub(crate) async fn stop(&mut self) {
        let Running { stop, mut tasks, .. } = self.agent.take().unwrap();
        stop.cancel();
        tasks.join_next().await.unwrap().unwrap();
        tasks.shutdown().await;
    }

    async fn tell(&self, pod: Value, removed: bool) {
        let revision = *self.state.revision.borrow();
        let pod = FromControlPlane::Pod { pod: Box::new(pod), removed, revision };
        self.agent.as_ref().unwrap().told.send(pod).await.unwrap();
    }

    /// Binds a Pod to the node. Its name is its UID, too.
    pub(crate) async fn create(&self, name: &str, spec: Value) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": spec,
        });
        self.state.pods.lock().unwrap().insert(name.to_owned(), pod.clone());
        self.state.change(name, |_| {});
        self.tell(pod, false).await;
    }

    /// Marks a Pod as being deleted.
    pub(crate) async fn delete(&self, name: &str, grace_seconds: i64) {
        self.state.change(name, |pod| {
            let metadata = pod["metadata"].as_object_mut().unwrap();
            metadata.insert("deletionTimestamp".to_owned(), "2026-01-01T00:00:00Z".into());
            metadata.insert("deletionGracePeriodSeconds".to_owned(), grace_seconds.into());
        });
        let pod = self.state.pod(name).unwrap();
        self.tell(pod, false).await;
    }

    /// Changes a Pod, and tells of it.
    pub(crate) async fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        self.state.change(name, change);
        let pod = self.state.pod(name).unwrap();
        self.tell(pod, false).await;
    }

    /// Makes an object that Pods may name, or another one of it.
    pub(crate) fn put(&self, resource: &str, name: &str, object: Value) {
        let key = (resource.to_owned(), name.to_owned());
        self.state.objects.lock().unwrap().insert(key, object);
    }

    /// What was asked for tokens, and when.
    pub(crate) fn tokens(&self) -> Vec<(Instant, Value)> {
        self.state.tokens.lock().unwrap().clone()
    }

    /// Where a Pod's volume is.
    pub(crate) fn volume(&self, pod: &str, name: &str) -> std::path::PathBuf {
        self.dir.path().join("volumes").join(pod).join("volumes").join(name)
    }

    /// As if it had been deleted while the agent was away.
    pub(crate) fn forget(&self, name: &str) {
        self.state.pods.lock().unwrap().remove(name);
    }

    /// Waits until a Pod is so; `None` is a Pod that is gone.
    pub(crate) async fn until(&self, name: &str, right: impl Fn(Option<&Value>) -> bool) {
        let mut revision = self.state.revision.subscribe();
        let wait = async {
            while !right(self.state.pod(name).as_ref()) {
                revision.changed().await.unwrap();
            }
        };
        let waited = timeout(DEADLINE, wait).await;
        assert!(waited.is_ok(), "it never comes to that: {:#}", self.pod(name));
    }

    /// As the API shows it; null when it is gone.
    /// How often an Event with this reason was sent.
    pub(crate) fn told_of(&self, reason: &str) -> usize {
        self.state.reasons.lock().unwrap().iter().filter(|r| *r == reason).count()
    }

    pub(crate) fn pod(&self, name: &str) -> Value {
        self.state.pod(name).unwrap_or_default()
    }

    /// What the API shows of a container.
    pub(crate) fn container(&self, name: &str, container: &str) -> Value {
        container_status(&self.pod(name), container)
    }
}

/// One of a Pod's container statuses.
fn connected(replica: &str) -> FromControlPlane {
    FromControlPlane::Connected {
        session: 1,
        pod_cidr: "10.1.2.0/24".to_owned(),
        replica: replica.to_owned(),
    }
}

pub(crate) fn container_status(pod: &Value, container: &str) -> Value {
    let all = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let found = all.into_iter().flatten().find(|status| status["name"] == container);
    found.cloned().unwrap_or_default()
}

fn phase(pod: &Value) -> &str {
    pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default()
}

/// Carries out what the agent asks, as an API server would.
async fn answer(
    state: Arc<State>,
    mut asked: mpsc::Receiver<ToControlPlane>,
    told: mpsc::Sender<FromControlPlane>,
) {
    while let Some(request) = asked.recv().await {
        let (sequence, removed) = match request {
            ToControlPlane::PodStatus { sequence, uid, status, .. } => {
                state.change(&uid, |pod| pod["status"] = status);
                (sequence, None)
            }
            ToControlPlane::PodDelete { sequence, uid, .. } => {
                let pod = state.pod(&uid).unwrap();
                // DEL-30
                assert!(pod.pointer("/metadata/deletionTimestamp").is_some(), "{pod:#}");
                assert!(matches!(phase(&pod), "Succeeded" | "Failed"), "{pod:#}");
                state.pods.lock().unwrap().remove(&uid);
                state.change(&uid, |_| {});
                (sequence, Some(pod))
            }
            ToControlPlane::NodeStatus { sequence, .. } => (sequence, None),
            ToControlPlane::Event { event } => {
                let reason = event["reason"].as_str().unwrap_or_default().to_owned();
                state.reasons.lock().unwrap().push(reason);
                continue;
            }
        };
        let revision = *state.revision.borrow();
        let acknowledged = FromControlPlane::Acknowledged { sequence, result: Ok(revision) };
        let removed = removed.map(|pod| FromControlPlane::Pod {
            pod: Box::new(pod),
            removed: true,
            revision,
        });
        for message in [Some(acknowledged), removed].into_iter().flatten() {
            if told.send(message).await.is_err() {
                return;
            }
        }
    }
}

/// Gives the agent what its Pods name: the first token is `token-1`.
async fn give(state: Arc<State>, mut fetches: mpsc::Receiver<Fetch>) {
    while let Some(fetch) = fetches.recv().await {
        let found = match fetch.body {
            Some(mut request) if fetch.resource == TOKENS => {
                let mut tokens = state.tokens.lock().unwrap();
                tokens.push((Instant::now(), request.clone()));
                request["status"] = json!({"token": format!("token-{}", tokens.len())});
                Some(request)
            }
            _ => {
                let key = (fetch.resource.to_owned(), fetch.name);
                state.objects.lock().unwrap().get(&key).cloned()
            }
        };
        let _ = fetch.answer.send(Ok(found));
    }
}
