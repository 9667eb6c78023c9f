//! Load on a Kubernetes API: creates of Pods, and a crowd of readers beside small requests.

mod client;
mod crowd;
mod report;

pub use client::ApiEndpoint;
pub use report::{ApiReport, CreateRun, CrowdRun, Latency, Process};

use crate::{histogram::Histogram, own_thread::on_own_thread, usage};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use client::{Connection, JSON};
use http::{Method, StatusCode};
use rand::Rng as _;
use serde_json::{Value, json};
use std::{collections::BTreeMap, rc::Rc, time::Duration};
use tokio::{task::JoinSet, time::Instant};

/// What to do.
#[derive(Debug, Clone)]
pub struct ApiPlan {
    /// All replicas of one cluster; connections are spread over them.
    pub endpoints: Vec<ApiEndpoint>,
    /// Processes whose time and memory are reported, by name.
    pub pids: BTreeMap<String, u32>,
    /// Connections that create Pods, one run for each number.
    pub connections: Vec<usize>,
    /// Of a run, and of the same load before it.
    pub time: Duration,
    /// Not counted.
    pub warm_up: Duration,
    /// After that.
    pub crowd: Option<Crowd>,
}

/// Readers of many Pods that change.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    /// Pods that there are.
    pub pods: usize,
    /// Connections that list all of them, again and again.
    pub lists: usize,
    /// Connections that watch all of them.
    pub watches: usize,
    /// Changes of Pods a second.
    pub churn: u64,
    /// Small requests a second, half gets and half patches, whose latency counts.
    pub small: u64,
}

/// Does all of it.
///
/// # Errors
/// A server does not answer; it refuses what must succeed.
pub async fn api(
    plan: ApiPlan,
    say: impl Fn(String) + Send + 'static,
) -> anyhow::Result<ApiReport> {
    ensure!(!plan.endpoints.is_empty(), "no server to measure");
    on_own_thread(move || run(plan, say)).await
}

async fn run(plan: ApiPlan, say: impl Fn(String)) -> anyhow::Result<ApiReport> {
    let first = plan.endpoints.first().context("no server to measure")?;
    let mut namespaces =
        Namespaces { setup: Connection::open(first, "bench").await?, made: Vec::new() };
    let mut creates = Vec::new();
    for connections in &plan.connections {
        say(format!("creating Pods over {connections} connections"));
        let pods = namespaces.make().await?;
        creates.push(create_run(&plan, &pods, *connections).await?);
    }
    let crowd = match plan.crowd {
        Some(crowd) => {
            let pods = namespaces.make().await?;
            Some(crowd::run(&plan, &pods, crowd, &say).await?)
        }
        None => None,
    };
    namespaces.remove().await?;
    let server = plan.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Ok(ApiReport { server, creates, crowd })
}

/// What is left of a run is in namespaces of its own.
struct Namespaces {
    setup: Connection,
    made: Vec<String>,
}

impl Namespaces {
    /// The path of the Pods in a new one.
    async fn make(&mut self) -> anyhow::Result<String> {
        let name = format!("bench-{:08x}", rand::rng().random::<u32>());
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let made = self.setup.must(Method::POST, "/api/v1/namespaces", &body).await;
        made.context("make a namespace")?;
        let pods = format!("/api/v1/namespaces/{name}/pods");
        self.made.push(name);
        Ok(pods)
    }

    /// Begins to delete them; what is in them goes by and by.
    async fn remove(&mut self) -> anyhow::Result<()> {
        for name in self.made.drain(..) {
            let path = format!("/api/v1/namespaces/{name}");
            let gone = self.setup.must(Method::DELETE, &path, &Value::Null).await;
            gone.context("delete a namespace")?;
        }
        Ok(())
    }
}

/// A Pod as an application's is, about 1 KiB, that no scheduler takes.
fn pod(name: &str) -> Value {
    let env: Vec<Value> = ["LOG_LEVEL", "CACHE_URL", "REGION"]
        .map(|name| json!({"name": name, "value": format!("value-of-{name}")}))
        .into();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "bench", "app.kubernetes.io/part-of": "load", "tier": "backend"},
            "annotations": {"example.com/revision": "1"},
        },
        "spec": {
            "schedulerName": "none",
            "containers": [{
                "name": "main", "image": "registry.example/team/application:v1.2.3",
                "args": ["--listen=:8080", "--verbose"], "env": env,
                "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            }],
        },
    })
}

/// Creates Pods until a moment, and times each; what came before `from` does not count.
struct Creator {
    connection: Connection,
    path: Rc<str>,
    prefix: String,
    from: Instant,
    until: Instant,
}

#[derive(Default)]
struct Created {
    latencies: Histogram,
    errors: u64,
    refused: u64,
    first_error: Option<String>,
}

impl Created {
    fn merge(&mut self, other: Self) {
        self.latencies.merge(&other.latencies);
        self.errors += other.errors;
        self.refused += other.refused;
        if self.first_error.is_none() {
            self.first_error = other.first_error;
        }
    }

    fn fails(&mut self, error: String) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }
}

impl Creator {
    async fn run(mut self) -> Created {
        let mut created = Created::default();
        for number in 0_u64.. {
            let body = pod(&format!("{}-{number}", self.prefix)).to_string();
            let sent = Instant::now();
            if sent >= self.until {
                break;
            }
            let answer = self.connection.whole(Method::POST, &self.path, JSON, body.into()).await;
            let now = Instant::now();
            let counts = sent >= self.from && now <= self.until;
            match answer {
                Ok((StatusCode::CREATED, _)) if counts => created.latencies.record(now - sent),
                Ok((StatusCode::CREATED, _)) => {}
                Ok((StatusCode::TOO_MANY_REQUESTS, _)) => created.refused += 1,
                Ok((status, body)) => {
                    created.fails(format!("{status}: {}", String::from_utf8_lossy(&body)));
                }
                Err(error) => {
                    created.fails(format!("{error:#}"));
                    break;
                }
            }
        }
        created
    }
}

async fn create_run(plan: &ApiPlan, path: &str, connections: usize) -> anyhow::Result<CreateRun> {
    let (mut creators, mut opened) = (JoinSet::new(), Vec::new());
    for endpoint in plan.endpoints.iter().cycle().take(connections) {
        opened.push(Connection::open(endpoint, "bench").await?);
    }
    let from = Instant::now() + plan.warm_up;
    let until = from + plan.time;
    for (number, connection) in opened.into_iter().enumerate() {
        let prefix = format!("create-{connections}-{number}");
        let creator = Creator { connection, path: path.into(), prefix, from, until };
        creators.spawn_local(creator.run());
    }
    tokio::time::sleep_until(from).await;
    let before = processes(&plan.pids)?;
    let own_before = usage::cpu_seconds(std::process::id())?;
    tokio::time::sleep_until(until).await;
    let after = processes(&plan.pids)?;
    let own = usage::cpu_seconds(std::process::id())? - own_before;
    let mut all = Created::default();
    while let Some(created) = creators.join_next().await {
        all.merge(created.context("a creator")?);
    }
    let count = all.latencies.count();
    let seconds = plan.time.as_secs_f64();
    Ok(CreateRun {
        connections,
        created_per_s: count as f64 / seconds,
        latency: Latency::of(&all.latencies),
        refused: all.refused,
        errors: all.errors,
        first_error: all.first_error,
        client_cpu_us_per_create: own * 1e6 / (count.max(1) as f64),
        processes: used(before, after, count),
    })
}

/// CPU seconds and resident bytes of each process.
fn processes(pids: &BTreeMap<String, u32>) -> anyhow::Result<BTreeMap<String, (f64, u64)>> {
    let of = |(name, pid): (&String, &u32)| {
        Ok((name.clone(), (usage::cpu_seconds(*pid)?, usage::rss_bytes(*pid)?)))
    };
    pids.iter().map(of).collect()
}

fn used(
    before: BTreeMap<String, (f64, u64)>,
    after: BTreeMap<String, (f64, u64)>,
    requests: u64,
) -> BTreeMap<String, Process> {
    let used = after.into_iter().map(|(name, (cpu, rss_bytes))| {
        let cpu_seconds = cpu - before.get(&name).map_or(0.0, |(cpu, _)| *cpu);
        let cpu_us_per_request = cpu_seconds * 1e6 / (requests.max(1) as f64);
        (name, Process { cpu_seconds, cpu_us_per_request, rss_bytes })
    });
    used.collect()
}

/// What a writer sends to change a Pod to what it has never been before.
fn change(unique: u64) -> Bytes {
    json!({"metadata": {"annotations": {"example.com/revision": format!("change-{unique}")}}})
        .to_string()
        .into()
}
