//! One cluster a test: started, asked, broken, taken down; and nothing of it may be left.

use crate::{machine::Traces, observer::Observer};
use bytes::Bytes;
use client::{Client, ClientError, endpoints::Endpoints};
use futures::{FutureExt as _, future::LocalBoxFuture};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use server::{
    config::{ReplicaConfig, read},
    dev::{self, DevCluster, DevOptions},
};
use std::{
    any::Any,
    collections::BTreeSet,
    fmt::Display,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    process::Command,
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep, timeout},
};

/// For something that takes well under a second when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// For one test with its cluster.
pub(crate) const WHOLE: Duration = Duration::from_secs(240);

pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";

/// A cluster that runs.
pub(crate) struct Cluster {
    /// To kill and start its processes.
    dev: Mutex<DevCluster>,
    pub(crate) client: Client,
    pub(crate) endpoints: Endpoints,
    dir: PathBuf,
    veth_prefix: String,
    uids: std::sync::Mutex<BTreeSet<String>>,
}

/// What a command line said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `test` with a cluster of three replicas and so many nodes. One cluster at a time: the times
/// that are measured are those of an otherwise idle test.
pub(crate) fn with_cluster(nodes: u32, test: impl AsyncFnOnce(&Cluster)) {
    with_cluster_in(&std::env::temp_dir(), nodes, None, WHOLE, test);
}

/// As [`with_cluster`], everything below `base`; the replicas' disks fail on demand if they are given
/// a size of their log's segments. It must be done within `time`.
pub(crate) fn with_cluster_in(
    base: &Path,
    nodes: u32,
    faulty: Option<u64>,
    time: Duration,
    test: impl AsyncFnOnce(&Cluster),
) {
    let change = |options: &mut DevOptions| {
        options.faults = faulty.is_some();
        options.segment_bytes = faulty.unwrap_or(options.segment_bytes);
    };
    with_options(base, nodes, change, time, test);
}

/// As [`with_cluster_in`], with other options changed.
pub(crate) fn with_options(
    base: &Path,
    nodes: u32,
    change: impl FnOnce(&mut DevOptions),
    time: Duration,
    test: impl AsyncFnOnce(&Cluster),
) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test runs real containers: it needs root (and Linux with namespaces and cgroups)"
    );
    static ONE: Mutex<()> = Mutex::const_new(());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let failure = runtime.block_on(async {
        let _one = ONE.lock().await;
        let dir = tempfile::Builder::new().prefix("trireme-process-").tempdir_in(base).unwrap();
        let cluster = Cluster::start(dir.path().to_owned(), nodes, change).await;
        let tested = AssertUnwindSafe(timeout(time, test(&cluster))).catch_unwind().await;
        let failure = match tested {
            Ok(Ok(())) => None,
            Ok(Err(_)) => Some(format!("not done after {time:?}")),
            Err(panic) => Some(words(&*panic)),
        };
        let failure = failure.map(|text| format!("{text}\n{}", logs(dir.path())));
        let ended = cluster.end().await.err();
        failure.or(ended)
    });
    if let Some(failure) = failure {
        panic!("{failure}");
    }
}

/// Carries all cases out beside each other; fails with the names of all that did.
pub(crate) async fn together(cases: Vec<(&str, LocalBoxFuture<'_, ()>)>) {
    let cases = cases.into_iter().map(async |(name, case)| {
        let failed = AssertUnwindSafe(case).catch_unwind().await.err();
        failed.map(|panic| format!("{name}: {}", words(&*panic)))
    });
    let failed: Vec<String> =
        futures::future::join_all(cases).await.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The words of a panic.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}

/// Looks until there is an answer; the last word of why not when there is none in time.
pub(crate) async fn eventually<T>(
    what: impl Display,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let until = Instant::now() + within;
    loop {
        let last = match timeout(within, look()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(last)) => last,
            Err(_) => "no answer".to_owned(),
        };
        assert!(Instant::now() < until, "not within {within:?}: {what}; last seen: {last}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The ends of the processes' logs.
fn logs(dir: &Path) -> String {
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    names.sort();
    let logs = names.iter().filter_map(|path| {
        let text = std::fs::read_to_string(path.join("log")).ok()?;
        let lines: Vec<&str> = text.lines().collect();
        let end = &lines[lines.len().saturating_sub(30)..];
        Some(format!("--- {}\n{}", path.file_name()?.to_string_lossy(), end.join("\n")))
    });
    logs.collect::<Vec<_>>().join("\n")
}

impl Cluster {
    async fn start(dir: PathBuf, nodes: u32, change: impl FnOnce(&mut DevOptions)) -> Self {
        let mut options = DevOptions {
            nodes,
            restart: false,
            program: Some(env!("CARGO_BIN_EXE_trireme").into()),
            log_filter: "info,scheduler=debug,server=debug,kubelet=debug,openraft=error".to_owned(),
            ..DevOptions::new(dir)
        };
        change(&mut options);
        let dev = DevCluster::start(options).await.unwrap();
        let dir = dev.layout().dir().to_owned();
        let config: ReplicaConfig = read(&dir.join("replica-1").join("config.toml")).unwrap();
        let octet: u8 = config.nodes.pod_cidr.split('.').nth(1).unwrap().parse().unwrap();
        Self {
            client: dev.client().unwrap(),
            endpoints: dev.endpoints(),
            veth_prefix: format!("tri0a{octet:02x}"),
            dev: Mutex::new(dev),
            dir,
            uids: std::sync::Mutex::default(),
        }
    }

    /// Ends everything; an error says what is left.
    async fn end(self) -> Result<(), String> {
        let Self { dev, dir, veth_prefix, uids, .. } = self;
        dev.into_inner().stop().await.map_err(|error| format!("not ended in order: {error:#}"))?;
        let uids = uids.into_inner().unwrap();
        let traces = Traces { dir: &dir, veth_prefix: &veth_prefix, uids: &uids };
        let until = Instant::now() + SOON;
        loop {
            let left = traces.left();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("left behind on this machine: {left:#?}"));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The processes. Held, nobody else kills any.
    pub(crate) async fn processes(&self) -> MutexGuard<'_, DevCluster> {
        self.dev.lock().await
    }

    /// Who leads.
    pub(crate) async fn leader(&self) -> u64 {
        let dev = self.processes().await;
        server::bench::leader(&dev).await.unwrap()
    }

    /// SIGKILL to the leader; who it was.
    pub(crate) async fn kill_leader(&self) -> u64 {
        let mut dev = self.processes().await;
        let leader = server::bench::leader(&dev).await.unwrap();
        dev.kill_replica(leader).await.unwrap();
        leader
    }

    /// Starts a replica again and waits until it serves.
    pub(crate) async fn start_replica(&self, id: u64) {
        let mut dev = self.processes().await;
        dev.start_replica(id).unwrap();
        dev.wait_replicas(SOON).await.unwrap();
    }

    /// SIGKILL to a node's agent, and a new one at once.
    pub(crate) async fn restart_node(&self, name: &str) {
        let mut dev = self.processes().await;
        dev.kill_node(name).await.unwrap();
        dev.start_node(name).unwrap();
    }

    /// A client that knows this replica only.
    pub(crate) fn only(&self, id: u64) -> Client {
        let at = usize::try_from(id).unwrap() - 1;
        dev::connect(self.endpoints.at(vec![self.endpoints.urls[at].clone()])).unwrap()
    }

    /// A node's own files.
    pub(crate) fn node_data(&self, node: &str) -> PathBuf {
        self.dir.join(node).join("data")
    }

    /// A directory of the machine that Pods can mount and that outlives them.
    pub(crate) fn record_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.join("records").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Its data directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Veths of its Pods that are there now.
    pub(crate) fn veths(&self) -> Vec<String> {
        let uids = BTreeSet::new();
        Traces { dir: &self.dir, veth_prefix: &self.veth_prefix, uids: &uids }.veths()
    }

    /// Creates the object of a manifest; what was stored.
    pub(crate) async fn create(&self, manifest: &str) -> Value {
        self.try_create(manifest).await.unwrap_or_else(|e| panic!("create: {e}\n{manifest}"))
    }

    pub(crate) async fn try_create(&self, manifest: &str) -> Result<Value, ClientError> {
        let object: Value = serde_yaml_ng::from_str(manifest).unwrap();
        let plural = match object["kind"].as_str().unwrap() {
            "Pod" => "pods",
            "ConfigMap" => "configmaps",
            "Service" => "services",
            other => panic!("no path for {other}"),
        };
        let path = format!("/api/v1/namespaces/default/{plural}");
        let body = Some(serde_json::to_vec(&object).unwrap());
        let stored: Value = self.client.call(Method::POST, &path, body).await?;
        self.uids.lock().unwrap().insert(stored["metadata"]["uid"].as_str().unwrap().to_owned());
        Ok(stored)
    }

    /// Deletes a Pod; the answer.
    pub(crate) async fn delete(&self, name: &str, grace: Option<i64>) -> Value {
        self.try_delete(name, grace).await.unwrap_or_else(|e| panic!("delete {name}: {e}"))
    }

    pub(crate) async fn try_delete(
        &self,
        name: &str,
        grace: Option<i64>,
    ) -> Result<Value, ClientError> {
        let options = grace.map_or_else(|| json!({}), |g| json!({"gracePeriodSeconds": g}));
        let body = Some(serde_json::to_vec(&options).unwrap());
        self.client.call(Method::DELETE, &format!("{PODS}/{name}"), body).await
    }

    pub(crate) async fn pod(&self, name: &str) -> Result<Value, ClientError> {
        self.client.call(Method::GET, &format!("{PODS}/{name}"), None).await
    }

    /// Waits until a Pod is as wanted.
    pub(crate) async fn pod_when(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(format!("Pod {name} {what}"), SOON, async || {
            let pod = self.pod(name).await.map_err(|e| e.to_string())?;
            if wanted(&pod) { Ok(pod) } else { Err(pod["status"].to_string()) }
        })
        .await
    }

    /// Waits until a Pod is ready; as it then is.
    pub(crate) async fn ready(&self, name: &str) -> Value {
        self.pod_when(name, "is ready", |pod| condition(pod, "Ready") == "True").await
    }

    /// Waits until a Pod has this phase; as it then is.
    pub(crate) async fn phase(&self, name: &str, phase: &str) -> Value {
        self.pod_when(name, &format!("is {phase}"), |pod| pod["status"]["phase"] == phase).await
    }

    /// Waits until a Pod cannot be read any more.
    pub(crate) async fn gone(&self, name: &str, within: Duration) {
        eventually(format!("Pod {name} is gone"), within, async || match self.pod(name).await {
            Err(ClientError::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(pod) => Err(pod["status"].to_string()),
        })
        .await;
    }

    /// A container's output so far.
    pub(crate) async fn log(&self, pod: &str, container: &str) -> String {
        let path = format!("{PODS}/{pod}/log?container={container}");
        let request = http::Request::get(path).body(Bytes::new()).unwrap();
        let Ok(answer) = self.client.request(request).await else { return String::new() };
        let Ok(answer) = client::refuse(answer).await else { return String::new() };
        let body = answer.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        String::from_utf8_lossy(&body).into_owned()
    }

    /// Waits for a line of a container's output that begins so; the rest of that line.
    pub(crate) async fn line(&self, pod: &str, container: &str, start: &str) -> String {
        eventually(format!("{pod}/{container} prints {start:?}"), SOON, async || {
            let log = self.log(pod, container).await;
            let found = log.lines().find_map(|line| line.strip_prefix(start));
            found.map(|rest| rest.trim().to_owned()).ok_or(log)
        })
        .await
    }

    /// Watches a Pod from now on.
    pub(crate) async fn observe(&self, name: &str) -> Observer {
        Observer::start(self.client.clone(), name).await
    }

    /// Runs the program with these arguments against this cluster.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> Said {
        let mut all: Vec<&str> = arguments.to_vec();
        let at = all.iter().position(|a| *a == "--").unwrap_or(all.len());
        let dir = self.dir.to_string_lossy().into_owned();
        all.splice(at..at, ["--data-dir", dir.as_str()]);
        program(&all).await
    }

    /// What `cluster status --json` says.
    pub(crate) async fn status(&self) -> Value {
        let said = self.cli(&["cluster", "status", "--json"]).await;
        assert_eq!(said.code, 0, "{said:?}");
        serde_json::from_str(&said.out).unwrap()
    }

    /// Revision and state hash, when all replicas that answer agree on them.
    pub(crate) async fn state(&self) -> (u64, String) {
        eventually("all replicas are at the same state", SOON, async || {
            let status = self.status().await;
            let members = status["members"].as_array().cloned().unwrap_or_default();
            let states: BTreeSet<(u64, u64, String)> = members
                .iter()
                .filter(|m| m["reachable"] == true)
                .map(|m| {
                    let text = m["stateHash"].as_str().unwrap_or_default().to_owned();
                    let number = |key: &str| m[key].as_u64().unwrap_or_default();
                    (number("appliedIndex"), number("revision"), text)
                })
                .collect();
            match states.into_iter().collect::<Vec<_>>().as_slice() {
                [(_, revision, hash)] => Ok((*revision, hash.clone())),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }
}

/// Runs the program.
pub(crate) async fn program(arguments: &[&str]) -> Said {
    let output =
        Command::new(env!("CARGO_BIN_EXE_trireme")).args(arguments).kill_on_drop(true).output();
    let output = timeout(SOON * 2, output).await.expect("the program ends").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

/// The status of a Pod's condition; empty when there is none.
pub(crate) fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let all = pod["status"]["conditions"].as_array();
    let found = all.into_iter().flatten().find(|c| c["type"] == kind);
    found.and_then(|c| c["status"].as_str()).unwrap_or_default()
}

/// The status of one of a Pod's containers.
pub(crate) fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let all = pod["status"]["containerStatuses"].as_array();
    all.into_iter().flatten().find(|c| c["name"] == name).unwrap_or(&Value::Null)
}

/// A Pod's UID.
pub(crate) fn uid(pod: &Value) -> &str {
    pod["metadata"]["uid"].as_str().unwrap_or_default()
}

/// Where a Pod is bound to; empty when it is not.
pub(crate) fn node_of(pod: &Value) -> &str {
    pod["spec"]["nodeName"].as_str().unwrap_or_default()
}
