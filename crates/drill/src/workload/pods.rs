//! Pods that stay and Pods that come and go, watched through the API and, where they are real, on this machine.

use super::{RECONNECT, Workload};
use crate::record::Recorder;
use anyhow::Context as _;
use api::{
    core::{Node, Pod},
    k8s_openapi::Resource,
};
use checkers::history::{
    Answer, Body, Call, Change, Closed, Object, ObjectCall, ObjectEvent, ObjectVerb, Opened,
    Operation, Outcome, RuntimeFact, RuntimeSeen, Scope, WatchStep,
};
use client::{Client, ClientError, WatchEvent, WatchOptions, endpoints::Endpoints};
use futures::StreamExt as _;
use http::Method;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Of everything that the drill makes.
const NAMESPACE: &str = "trireme-drill";
/// For one Pod to run, or to go.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one request, with all its attempts.
const DEADLINE: Duration = Duration::from_secs(5);
/// Pods that come and go beside each other.
const PROBES: usize = 6;
/// Between two looks at what this machine runs.
const LOOK: Duration = Duration::from_millis(50);
/// How long a node may be gone before its Pods are evicted.
const TOLERATION_SECONDS: u64 = 1;

/// What was seen of one Pod. Times are the recorder's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) uid: String,
    /// When its creation was acknowledged.
    pub(crate) created_ns: Option<u64>,
    pub(crate) bound_ns: Option<u64>,
    pub(crate) running_ns: Option<u64>,
    pub(crate) gone_ns: Option<u64>,
    pub(crate) node: String,
    /// Of all its containers.
    pub(crate) restarts: u64,
    /// The drill wants it to go.
    pub(crate) unwanted: bool,
    /// Somebody else does: when that was seen.
    pub(crate) evicted_ns: Option<u64>,
    /// It is meant to stay.
    pub(crate) steady: bool,
    /// When the Pod was evicted whose place it has taken.
    pub(crate) replaces_ns: Option<u64>,
}

/// What was seen of all, by name.
pub(crate) type Board = BTreeMap<String, Seen>;

/// Who makes Pods, and who watches them.
#[derive(Debug, Clone)]
pub(crate) struct Crew {
    client: Client,
    endpoints: Endpoints,
    recorder: Arc<Recorder>,
    board: Arc<watch::Sender<Board>>,
    interval: Duration,
    steady: u32,
    /// Tells the Pods of one run from those of another.
    run: u64,
}

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Followed {
    pub(super) kind: &'static str,
    plural: &'static str,
    /// Empty for what belongs to the whole cluster.
    namespace: &'static str,
    /// After so long without a word a watch is begun anew at another replica. A connection that is lost is found out
    /// earlier by itself.
    silence: Duration,
}

/// They come and go all the time.
pub(super) const PODS: Followed =
    Followed { kind: "Pod", plural: "pods", namespace: NAMESPACE, silence: Duration::from_secs(2) };
const NODES: Followed =
    Followed { kind: "Node", plural: "nodes", namespace: "", silence: Duration::from_secs(30) };

impl Followed {
    /// The path of all.
    pub(super) fn collection(&self) -> String {
        let plural = self.plural;
        match self.namespace {
            "" => format!("/api/v1/{plural}"),
            namespace => format!("/api/v1/namespaces/{namespace}/{plural}"),
        }
    }
}

/// Where a watch is.
#[derive(Debug)]
struct Place {
    client: u64,
    /// The next revision to be told.
    from: Option<u64>,
    /// The stream that it goes on with.
    resumes: Option<u64>,
}

/// Removes the namespace with all that is in it; it need not be there.
///
/// # Errors
/// The cluster does not do it.
pub(super) async fn remove_namespace(endpoints: &Endpoints) -> anyhow::Result<()> {
    let client = server::dev::connect(endpoints.clone())?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}");
    match client.call::<Value>(Method::DELETE, &path, None).await {
        Ok(_) => Ok(()),
        Err(ClientError::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error).context("remove the namespace"),
    }
}

impl Crew {
    /// # Errors
    /// An endpoint is not a URL.
    pub(super) fn new(
        endpoints: &Endpoints,
        recorder: &Arc<Recorder>,
        interval: Duration,
        steady: u32,
        run: u64,
    ) -> anyhow::Result<Self> {
        let endpoints = Endpoints { deadline: DEADLINE, ..endpoints.clone() };
        Ok(Self {
            client: server::dev::connect(endpoints.clone())?,
            endpoints,
            recorder: Arc::clone(recorder),
            board: Arc::default(),
            interval,
            steady,
            run,
        })
    }

    pub(super) fn board(&self) -> Board {
        self.board.borrow().clone()
    }

    /// Makes the namespace, and returns when Pods are taken in it.
    pub(super) async fn prepare(&self) -> anyhow::Result<()> {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        let body = Some(namespace.to_string().into_bytes());
        match self.client.call::<Value>(Method::POST, "/api/v1/namespaces", body).await {
            Err(ClientError::Api(status)) if status.is_already_exists() => {}
            made => drop(made.context("make a namespace")?),
        }
        let until = Instant::now() + PATIENCE;
        // Its service account comes a moment later.
        let path = format!("{}?dryRun=All", PODS.collection());
        loop {
            let body = Some(pod("probe").to_string().into_bytes());
            match self.client.call::<Value>(Method::POST, &path, body).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > until => return Err(error).context("try a Pod"),
                Err(_) => sleep(RECONNECT).await,
            }
        }
    }

    /// Watchers work until `stop`, which comes after `rest`: then no more Pods are made.
    pub(super) fn start(
        &self,
        watchers: &mut JoinSet<()>,
        makers: &mut JoinSet<()>,
        stop: &CancellationToken,
        rest: &CancellationToken,
    ) {
        for first in 0..2 {
            watchers.spawn(self.clone().follow::<Pod>(PODS, first, stop.clone()));
        }
        watchers.spawn(self.clone().follow::<Node>(NODES, 2, stop.clone()));
        watchers.spawn(self.clone().look_at_machine(stop.clone()));
        for number in 1..=self.steady {
            let name = format!("steady-{}-{number}", self.run);
            makers.spawn(self.clone().keep(name, rest.clone()));
        }
        makers.spawn(self.clone().come_and_go(rest.clone()));
    }

    fn see(&self, name: &str, change: impl FnOnce(&mut Seen)) {
        self.board.send_modify(|board| change(board.entry(name.to_owned()).or_default()));
    }

    async fn wait(&self, patience: Duration, wanted: impl FnMut(&Board) -> bool) -> bool {
        let mut board = self.board.subscribe();
        timeout(patience, board.wait_for(wanted)).await.is_ok_and(|seen| seen.is_ok())
    }

    /// A request, written down; whether it was carried out.
    async fn ask(&self, method: Method, verb: ObjectVerb, name: &str, body: Value) -> bool {
        let collection = PODS.collection();
        let path =
            if verb == ObjectVerb::Create { collection } else { format!("{collection}/{name}") };
        let invoked = Instant::now();
        let sent = (!body.is_null()).then(|| body.to_string().into_bytes());
        let answer = self.client.call::<Value>(method, &path, sent).await;
        let outcome = outcome_of(answer);
        let done = matches!(outcome, Outcome::Ok(_));
        self.recorder.operation(Operation {
            client: self.recorder.fresh(),
            replica: 0,
            invoked_ns: self.recorder.at(invoked),
            answered_ns: self.recorder.now(),
            call: Call::Object(ObjectCall {
                verb,
                kind: PODS.kind.to_owned(),
                namespace: NAMESPACE.to_owned(),
                name: name.to_owned(),
                uid: None,
                resource_version: None,
                body,
            }),
            outcome,
        });
        done
    }

    /// Creates a Pod, however often that has to be asked: it has a name, and is made once at most.
    async fn create(&self, name: &str, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let made = self.ask(Method::POST, ObjectVerb::Create, name, pod(name)).await;
            let now = self.recorder.now();
            let there = self.board.borrow().get(name).is_some_and(|seen| !seen.uid.is_empty());
            if made || there {
                self.see(name, |seen| seen.created_ns = seen.created_ns.or(Some(now)));
                return;
            }
            sleep(RECONNECT).await;
        }
    }

    async fn delete(&self, name: &str) {
        self.see(name, |seen| seen.unwanted = true);
        let gone = |board: &Board| board.get(name).is_none_or(|seen| seen.gone_ns.is_some());
        let until = Instant::now() + PATIENCE;
        while !gone(&self.board.borrow()) && Instant::now() < until {
            if self.ask(Method::DELETE, ObjectVerb::Delete, name, Value::Null).await {
                return;
            }
            sleep(RECONNECT).await;
        }
    }

    /// A Pod that stays; when somebody evicts it, another one takes its place, as a controller would see to.
    async fn keep(self, name: String, rest: CancellationToken) {
        let mut name = name;
        let mut replaces: Option<u64> = None;
        for next in 1.. {
            self.see(&name, |seen| {
                seen.steady = true;
                seen.replaces_ns = replaces;
            });
            self.create(&name, &rest).await;
            let evicted = self.wait_evicted(&name);
            let Some(evicted) = rest.run_until_cancelled(evicted).await else { return };
            replaces = Some(evicted);
            let (stem, _) = name.split_once('.').unwrap_or((&name, ""));
            name = format!("{stem}.{next}");
        }
    }

    /// Until somebody else has deleted it: when that was.
    async fn wait_evicted(&self, name: &str) -> u64 {
        let mut board = self.board.subscribe();
        loop {
            let seen = board.borrow_and_update().get(name).and_then(|seen| seen.evicted_ns);
            if let Some(evicted) = seen {
                return evicted;
            }
            if board.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Pods that are made, run, and are deleted.
    async fn come_and_go(self, rest: CancellationToken) {
        let mut ticks = interval(self.interval);
        let mut probes = JoinSet::new();
        loop {
            tokio::select! {
                () = rest.cancelled() => break,
                Some(_) = probes.join_next(), if !probes.is_empty() => {}
                _ = ticks.tick() => {
                    if probes.len() < PROBES {
                        let name = format!("probe-{}-{}", self.run, self.recorder.fresh());
                        probes.spawn(self.clone().probe(name, rest.clone()));
                    }
                }
            }
        }
        while probes.join_next().await.is_some() {}
    }

    async fn probe(self, name: String, rest: CancellationToken) {
        self.create(&name, &rest).await;
        let runs = self.wait(PATIENCE, |board| {
            board.get(&name).is_some_and(|seen| seen.running_ns.is_some() || seen.gone_ns.is_some())
        });
        rest.run_until_cancelled(runs).await;
        self.delete(&name).await;
        let gone =
            self.wait(PATIENCE, |board| board.get(&name).is_none_or(|seen| seen.gone_ns.is_some()));
        rest.run_until_cancelled(gone).await;
    }

    /// Deletes what is left, and returns when it is gone; what is not.
    pub(super) async fn clean(&self) -> Vec<String> {
        let left = |board: &Board| -> Vec<String> {
            let left =
                board.iter().filter(|(_, seen)| !seen.uid.is_empty() && seen.gone_ns.is_none());
            left.map(|(name, _)| name.clone()).collect()
        };
        let names = left(&self.board.borrow());
        futures::future::join_all(names.iter().map(|name| self.delete(name))).await;
        self.wait(PATIENCE, |board| left(board).is_empty()).await;
        left(&self.board.borrow())
    }

    /// Watches all objects of a kind, at one replica after another.
    async fn follow<K>(self, of: Followed, first: usize, stop: CancellationToken)
    where
        K: Resource + Serialize + DeserializeOwned + Send + 'static,
    {
        let urls = self.endpoints.urls.clone();
        let mut at = Place { client: self.recorder.fresh(), from: None, resumes: None };
        for (replica, url) in (1u64..).zip(&urls).cycle().skip(first) {
            let follow = async {
                let only =
                    Endpoints { deadline: PODS.silence, ..self.endpoints.at(vec![url.clone()]) };
                let Ok(one) = server::dev::connect(only) else { return };
                if at.from.is_none() {
                    at.from = self.list(&of, &one).await.map(|revision| revision + 1);
                }
                if let Some(from) = at.from {
                    self.follow_one::<K>(&of, &one, (replica, from), &mut at).await;
                }
            };
            if stop.run_until_cancelled(follow).await.is_none()
                || stop.run_until_cancelled(sleep(RECONNECT)).await.is_none()
            {
                return;
            }
        }
    }

    /// What is there, taken up; at which revision.
    async fn list(&self, of: &Followed, one: &Client) -> Option<u64> {
        let list: Value = one.call(Method::GET, &of.collection(), None).await.ok()?;
        let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        for mut item in items {
            item.as_object_mut()?.insert("kind".to_owned(), of.kind.into());
            if let Some(object) = Object::from_json(item) {
                self.take(&object, false);
            }
        }
        list.pointer("/metadata/resourceVersion")?.as_str()?.parse().ok()
    }

    async fn follow_one<K>(
        &self,
        of: &Followed,
        one: &Client,
        (replica, from): (u64, u64),
        at: &mut Place,
    ) where
        K: Resource + Serialize + DeserializeOwned + Send + 'static,
    {
        let namespace = (!of.namespace.is_empty()).then_some(of.namespace);
        let options = WatchOptions {
            resource_version: from.saturating_sub(1).to_string(),
            ..WatchOptions::default()
        };
        let Ok(mut events) = one.watch::<K>(namespace, &options).await else { return };
        let (stream, mut sequence) = (self.recorder.fresh(), 0);
        let (kind, namespace) = (of.kind.to_owned(), of.namespace.to_owned());
        let scope = Scope::Objects { kind, namespace };
        let opened = Opened { client: at.client, replica, scope, from, resumes: at.resumes };
        self.recorder.watch(stream, &mut sequence, WatchStep::Opened(opened));
        at.resumes = Some(stream);
        let closed = loop {
            let event = match timeout(of.silence, events.next()).await {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(ClientError::Api(status)))) if status.code == 410 => {
                    break Closed::Compacted { revision: 0 };
                }
                Ok(Some(Err(_)) | None) | Err(_) => break Closed::Ended,
            };
            let (change, object) = match event {
                WatchEvent::Added(object) => (Change::Added, object),
                WatchEvent::Modified(object) => (Change::Modified, object),
                WatchEvent::Deleted(object) => (Change::Deleted, object),
                WatchEvent::Bookmark(revision) => {
                    if let Ok(revision) = revision.parse::<u64>() {
                        at.from = Some(revision + 1);
                        let step = WatchStep::Progress { revision };
                        self.recorder.watch(stream, &mut sequence, step);
                    }
                    continue;
                }
            };
            let object = serde_json::to_value(&object).ok().and_then(Object::from_json);
            let Some(object) = object else { continue };
            at.from = Some(object.resource_version + 1);
            self.take(&object, change == Change::Deleted);
            let step = WatchStep::Object(ObjectEvent { change, object });
            self.recorder.watch(stream, &mut sequence, step);
        };
        if matches!(closed, Closed::Compacted { .. }) {
            (at.from, at.resumes) = (None, None);
        }
        self.recorder.watch(stream, &mut sequence, WatchStep::Closed(closed));
    }

    /// What one version of a Pod shows.
    fn take(&self, object: &Object, gone: bool) {
        if object.kind != PODS.kind {
            return;
        }
        let now = self.recorder.now();
        let text = |pointer: &str| object.json.pointer(pointer).and_then(Value::as_str);
        let node = text("/spec/nodeName").unwrap_or_default().to_owned();
        let running = text("/status/phase") == Some("Running");
        let going = text("/metadata/deletionTimestamp").is_some();
        let containers = object.json.pointer("/status/containerStatuses");
        let containers = containers.and_then(Value::as_array).cloned().unwrap_or_default();
        let restarts =
            containers.iter().filter_map(|c| c.get("restartCount")?.as_u64()).sum::<u64>();
        let (mut bound, mut runs, mut evicted, mut evicted_gone, mut replaced) = (0, 0, 0, 0, 0);
        self.see(&object.name, |seen| {
            seen.uid.clone_from(&object.uid);
            seen.restarts = seen.restarts.max(restarts);
            if !node.is_empty() && seen.bound_ns.is_none() {
                (seen.node, seen.bound_ns, bound) = (node, Some(now), 1);
            }
            if running && seen.running_ns.is_none() {
                (seen.running_ns, runs) = (Some(now), 1);
                replaced = u64::from(seen.replaces_ns.is_some());
            }
            if going && !seen.unwanted && seen.evicted_ns.is_none() {
                (seen.evicted_ns, evicted) = (Some(now), 1);
            }
            if gone && seen.gone_ns.is_none() {
                seen.gone_ns = Some(now);
                evicted_gone = u64::from(seen.evicted_ns.is_some());
            }
        });
        self.recorder.count(|tally| {
            tally.bound += bound;
            tally.running += runs;
            tally.evicted += evicted;
            tally.evicted_gone += evicted_gone;
            tally.replaced += replaced;
        });
    }

    /// Which of the Pods' processes this machine runs, by their cgroups.
    async fn look_at_machine(self, stop: CancellationToken) {
        let mut ticks = interval(LOOK);
        let mut running: BTreeSet<(String, String)> = BTreeSet::new();
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let names: BTreeMap<String, String> = self
                .board
                .borrow()
                .iter()
                .filter(|(_, seen)| !seen.uid.is_empty())
                .map(|(name, seen)| (seen.uid.clone(), name.clone()))
                .collect();
            let now: BTreeSet<(String, String)> =
                on_machine().into_iter().filter(|(_, uid)| names.contains_key(uid)).collect();
            let begun = now.difference(&running).map(|one| (one, RuntimeFact::Started));
            let ended = running.difference(&now).map(|one| (one, RuntimeFact::Stopped));
            for ((node, uid), fact) in begun.chain(ended) {
                self.recorder.runtime(RuntimeSeen {
                    at_ns: self.recorder.now(),
                    node: node.clone(),
                    pod_uid: uid.clone(),
                    namespace: NAMESPACE.to_owned(),
                    pod: names.get(uid).cloned().unwrap_or_default(),
                    container: CONTAINER.to_owned(),
                    fact,
                });
            }
            running = now;
        }
    }
}

const CONTAINER: &str = "main";

/// Node and uid of all Pods that have a process on this machine.
fn on_machine() -> Vec<(String, String)> {
    let root = Path::new("/sys/fs/cgroup");
    // One hierarchy is enough: v1's, or the only one.
    let roots = [root.join("pids").join("trireme"), root.join("trireme")];
    let mut all = Vec::new();
    for node in roots.iter().flat_map(|root| entries(root)) {
        for pod in entries(&node).into_iter().filter(|pod| has_process(pod)) {
            all.push((name_of(&node), name_of(&pod)));
        }
    }
    all
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    all.filter(|path| path.is_dir()).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn has_process(pod: &Path) -> bool {
    let busy = |dir: &Path| {
        fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|list| !list.trim().is_empty())
    };
    busy(pod) || entries(pod).iter().any(|container| busy(container))
}

fn outcome_of(answer: Result<Value, ClientError>) -> Outcome {
    match answer {
        Ok(value) => {
            let object = Object::from_json(value);
            let revision = object.as_ref().map_or(0, |object| object.resource_version);
            Outcome::Ok(Answer { revision, body: Body::Object(object) })
        }
        Err(ClientError::Api(status)) if status.code < 500 => {
            Outcome::Failed { reason: status.to_string() }
        }
        Err(error @ ClientError::Unreachable { .. }) => {
            Outcome::Failed { reason: error.to_string() }
        }
        Err(error) => Outcome::Unknown { reason: error.to_string() },
    }
}

fn pod(name: &str) -> Value {
    let gone = ["not-ready", "unreachable"].map(|key| {
        json!({
            "key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": TOLERATION_SECONDS,
        })
    });
    json!({
        "apiVersion": "v1", "kind": PODS.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "tolerations": gone,
            "containers": [{
                "name": CONTAINER, "image": "toolbox", "command": ["sleep", "inf"],
                "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}},
            }],
        },
    })
}

impl Workload {
    /// What was seen of its Pods.
    pub(crate) fn board(&self) -> Board {
        self.crew.as_ref().map(Crew::board).unwrap_or_default()
    }
}
