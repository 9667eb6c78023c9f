//! What clients do while things break: they write, read, watch, keep leases, and run Pods.

mod convert;
mod leases;
mod members;
mod pods;
mod store;
mod watcher;

pub(crate) use pods::{Board, Seen as PodSeen};

use self::pods::{Crew, PODS};
use crate::record::Recorder;
use checkers::history::{Kv, Mark, Object, Range, RangeRequest};
use client::{
    endpoints::Endpoints,
    transport::{Access, Bearer, channel},
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{service::interceptor::InterceptedService, transport::Channel};

/// For a connection, with all handshakes.
const CONNECT: Duration = Duration::from_millis(500);
/// Between two tries to connect.
const RECONNECT: Duration = Duration::from_millis(20);
/// A connection that is silent for so long is asked whether it lives.
const ALIVE_INTERVAL: Duration = Duration::from_millis(500);
/// And given up when it does not answer for so long.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(1);
/// After which a client gives up a request: its outcome is unknown to it.
const DEADLINE: Duration = Duration::from_secs(3);
/// For one replica to have everything, in the end.
const SETTLE: Duration = Duration::from_secs(30);

/// Who is under load.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Of the etcd v3 API, by replica.
    pub(crate) etcd_urls: Vec<String>,
    /// Whom to trust there, and what to show.
    pub(crate) access: Access,
    /// Of the Kubernetes-shaped API, where there is one.
    pub(crate) api: Option<Endpoints>,
    /// Under which all keys of the load are.
    pub(crate) prefix: String,
    /// Whether a progress notification proves what it says: those of etcd before 3.4.25 may come too early.
    pub(crate) progress_is_true: bool,
}

/// How much is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// Requests a second to each replica, whether it answers or not.
    pub(crate) rate: u32,
    /// Leases that are kept and left, beside each other.
    pub(crate) leases: u32,
    /// Between two new Pods; none without Pods.
    pub(crate) pod_interval: Option<Duration>,
    /// Pods that stay.
    pub(crate) steady_pods: u32,
    /// Tells the Pods of one run from those of another in the same cluster.
    pub(crate) run: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            rate: 80,
            leases: 3,
            pod_interval: Some(Duration::from_millis(500)),
            steady_pods: 3,
            run: 1,
        }
    }
}

pub(crate) type Service = InterceptedService<Channel, Bearer>;

/// A connection to one replica's etcd v3 API.
///
/// # Errors
/// In words; nothing was sent then.
async fn connect(url: &str, access: &Access) -> Result<Service, String> {
    let tuned = channel(url, access, |endpoint| {
        endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(ALIVE_INTERVAL)
            .keep_alive_timeout(ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
    });
    let connected = timeout(CONNECT, tuned).await;
    connected.map_err(|_| format!("no connection within {CONNECT:?}"))?
}

/// A connection, however often it has to be tried; none once it is to stop.
async fn connect_again(url: &str, access: &Access, stop: &CancellationToken) -> Option<Service> {
    loop {
        let connected = stop.run_until_cancelled(connect(url, access)).await?;
        if let Ok(service) = connected {
            return Some(service);
        }
        stop.run_until_cancelled(sleep(RECONNECT)).await?;
    }
}

/// The load. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Workload {
    target: Target,
    recorder: Arc<Recorder>,
    /// Ends who makes Pods; the others see them go.
    rest: CancellationToken,
    stop: CancellationToken,
    makers: JoinSet<()>,
    tasks: JoinSet<()>,
    crew: Option<Crew>,
}

impl Workload {
    /// Begins.
    ///
    /// # Errors
    /// The namespace of its Pods cannot be made, or an endpoint is not a URL.
    pub(crate) async fn start(
        target: Target,
        load: Load,
        recorder: Arc<Recorder>,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let (stop, rest) = (CancellationToken::new(), CancellationToken::new());
        let (mut tasks, mut makers) = (JoinSet::new(), JoinSet::new());
        let mut crew = None;
        let known = store::Known::default();
        for (replica, url) in (1..).zip(&target.etcd_urls) {
            let lane = store::Lane {
                replica,
                url: url.clone(),
                target: target.clone(),
                recorder: Arc::clone(&recorder),
                known: known.clone(),
                rate: load.rate,
                seed: seed.wrapping_add(replica).wrapping_add(load.run << 8),
            };
            tasks.spawn(lane.run(stop.clone()));
            let watcher = watcher::Watcher {
                number: replica,
                target: target.clone(),
                recorder: Arc::clone(&recorder),
            };
            tasks.spawn(watcher.run(stop.clone()));
        }
        for number in 0..load.leases {
            let keeper = leases::Keeper {
                number: u64::from(number),
                target: target.clone(),
                recorder: Arc::clone(&recorder),
            };
            tasks.spawn(keeper.run(stop.clone()));
        }
        if let Some(api) = &target.api {
            let observer = members::observe(api.clone(), Arc::clone(&recorder), stop.clone());
            tasks.spawn(observer);
            if let Some(interval) = load.pod_interval {
                let made = Crew::new(api, &recorder, interval, load.steady_pods, load.run)?;
                made.prepare().await?;
                made.start(&mut tasks, &mut makers, &stop, &rest);
                crew = Some(made);
            }
        }
        Ok(Self { target, recorder, rest, stop, makers, tasks, crew })
    }

    /// Ends the load, waits for what is on its way, and writes down what each replica has in the end. What was seen
    /// of its Pods, and those that would not go.
    ///
    /// # Errors
    /// A replica does not say what it has.
    pub(crate) async fn finish(mut self) -> anyhow::Result<(Board, Vec<String>)> {
        self.rest.cancel();
        while let Some(ended) = self.makers.join_next().await {
            ended?;
        }
        let left = match &self.crew {
            Some(crew) => crew.clean().await,
            None => Vec::new(),
        };
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        // Leases end meanwhile, and others write other keys: all are asked for the same moment.
        let (revision, at_ns) = self.last_revision().await?;
        for (replica, url) in (1..).zip(&self.target.etcd_urls) {
            let kvs = self.final_keys(replica, url, revision).await?;
            let range = Range::prefix(&self.target.prefix);
            self.recorder.mark(Mark::FinalKeys { at_ns, replica, range, revision, kvs });
        }
        if let Some(api) = &self.target.api {
            for (replica, url) in (1..).zip(&api.urls) {
                self.final_pods(replica, &api.at(vec![url.clone()])).await?;
            }
        }
        Ok((self.board(), left))
    }

    /// One at or after that of everything that was acknowledged, and when that was so.
    async fn last_revision(&self) -> anyhow::Result<(u64, u64)> {
        let until = Instant::now() + SETTLE;
        for url in self.target.etcd_urls.iter().cycle() {
            let at_ns = self.recorder.now();
            match self.read(url, None).await {
                Ok((revision, _)) => return Ok((revision, at_ns)),
                Err(error) if Instant::now() > until => {
                    anyhow::bail!("ask for what is left: {error}")
                }
                Err(_) => sleep(RECONNECT).await,
            }
        }
        anyhow::bail!("no replica to ask")
    }

    /// What one replica itself has at a revision, once it has come so far.
    async fn final_keys(&self, replica: u64, url: &str, at: u64) -> anyhow::Result<Vec<Kv>> {
        let until = Instant::now() + SETTLE;
        loop {
            match self.read(url, Some(at)).await {
                Ok((_, kvs)) => return Ok(kvs),
                Err(error) if Instant::now() > until => {
                    anyhow::bail!("replica {replica} does not say what it has: {error}")
                }
                Err(_) => sleep(RECONNECT).await,
            }
        }
    }

    /// Everything under the prefix: as one replica has it at a revision, or as it is now.
    async fn read(&self, url: &str, at: Option<u64>) -> Result<(u64, Vec<Kv>), String> {
        let service = connect(url, &self.target.access).await?;
        let request = RangeRequest {
            range: Range::prefix(&self.target.prefix),
            serializable: at.is_some(),
            revision: at.unwrap_or_default(),
            limit: 0,
        };
        let (revision, kvs, _) = store::range(service, &request).await?;
        Ok((revision, kvs))
    }

    async fn final_pods(&self, replica: u64, only: &Endpoints) -> anyhow::Result<()> {
        let client = server::dev::connect(only.clone())?;
        let path = PODS.collection();
        let list: Value = client.call(http::Method::GET, &path, None).await?;
        let revision = list.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        let items = items.into_iter().filter_map(|mut item| {
            // In a list, the kind is said once.
            item.as_object_mut()?.insert("kind".to_owned(), PODS.kind.into());
            Object::from_json(item)
        });
        self.recorder.mark(Mark::FinalObjects {
            at_ns: self.recorder.now(),
            replica,
            kind: PODS.kind.to_owned(),
            resource_version: revision.and_then(|r| r.parse().ok()).unwrap_or_default(),
            items: items.collect(),
        });
        Ok(())
    }
}

/// Removes what a load has left in a cluster that goes on without it: keys under `prefix`, and the namespace.
///
/// # Errors
/// The cluster does not do it.
pub(crate) async fn remove_all(
    etcd_urls: &[String],
    endpoints: &Endpoints,
    prefix: &str,
) -> anyhow::Result<()> {
    pods::remove_namespace(endpoints).await?;
    let until = Instant::now() + SETTLE;
    for url in etcd_urls.iter().cycle() {
        let removed = async {
            let service = connect(url, &endpoints.access).await?;
            store::remove(service, &Range::prefix(prefix)).await
        };
        match removed.await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > until => anyhow::bail!("remove the keys: {error}"),
            Err(_) => sleep(RECONNECT).await,
        }
    }
    anyhow::bail!("no replica to ask")
}
