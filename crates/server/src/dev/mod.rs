//! A whole cluster on this machine: each replica and each node a process of its own.

pub(crate) mod certificates;
mod files;
mod process;

pub use files::Layout;

use crate::config::RuntimeKind;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use client::{
    Client,
    admin::{self, MemberChange},
    endpoints::Endpoints,
};
use process::Process;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// What to start.
#[derive(Debug, Clone)]
pub struct DevOptions {
    /// Replicas, 1 to 9.
    pub replicas: u32,
    /// Nodes, each a process.
    pub nodes: u32,
    /// How containers run on them.
    pub runtime: RuntimeKind,
    /// Hollow nodes beside them, all in one process; 0 for none.
    pub hollow: u32,
    /// Everything is kept here, so that the same cluster can be started again.
    pub data_dir: PathBuf,
    /// Started for every process; this very program without it.
    pub program: Option<PathBuf>,
    /// What the processes log.
    pub log_filter: String,
    /// Silence after which a node is `NotReady`.
    pub node_silence: Duration,
    /// Start a process again that ended without being asked to.
    pub restart: bool,
    /// Let the replicas' disks fail as the file `faults` in a replica's directory says, and their clocks be wrong
    /// by what the file `clock` beside it says.
    pub faults: bool,
    /// Where each replica runs, if not all of them on loopback.
    pub places: Vec<Place>,
    /// Below which every replica has its `data`, in a directory of its own name, if not beside its configuration.
    pub disks: Option<PathBuf>,
    /// Bytes of a segment of the replicas' logs.
    pub segment_bytes: u64,
    /// No certificates: everything on loopback in plaintext.
    pub plaintext: bool,
    /// Of certificates; renewed after two thirds of it.
    pub certificate_lifetime: Duration,
}

/// Where a replica runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where it listens, and is reached.
    pub address: Ipv4Addr,
    /// A command that runs the one named behind it, such as `nsenter --net=…`.
    pub enter: Vec<String>,
}

impl DevOptions {
    /// Three replicas and two nodes that run real containers.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            replicas: 3,
            nodes: 2,
            runtime: RuntimeKind::Native,
            hollow: 0,
            data_dir,
            program: None,
            log_filter: "info,openraft=error".to_owned(),
            node_silence: Duration::from_secs(50),
            restart: true,
            faults: false,
            places: Vec::new(),
            disks: None,
            segment_bytes: 64 << 20,
            plaintext: false,
            certificate_lifetime: pki::LIFETIME,
        }
    }
}

/// Time for a cluster to come up, or for a process to end when asked to.
const PATIENCE: Duration = Duration::from_secs(30);

/// More of it for each node of a crowd.
const PATIENCE_PER_HOLLOW: Duration = Duration::from_millis(300);

/// A running cluster. [`DevCluster::stop`] ends it; dropping it kills the processes.
#[derive(Debug)]
pub struct DevCluster {
    options: DevOptions,
    layout: Layout,
    /// By replica, where it is not on loopback.
    places: BTreeMap<u64, Place>,
    replicas: BTreeMap<u64, Process>,
    nodes: BTreeMap<String, Process>,
}

impl DevCluster {
    /// Writes the configuration (or takes up what is there), starts everything, and returns when
    /// every replica serves and every node is `Ready`.
    ///
    /// # Errors
    /// Says which process did not come up, with the end of its log.
    pub async fn start(options: DevOptions) -> anyhow::Result<Self> {
        let layout = Layout::prepare(&options)?;
        let places = (1..).zip(options.places.iter().cloned()).collect();
        let (replicas, nodes) = (BTreeMap::new(), BTreeMap::new());
        let mut cluster = Self { options, layout, places, replicas, nodes };
        for id in cluster.layout.replica_ids() {
            cluster.start_replica(id)?;
        }
        cluster.wait_replicas(PATIENCE).await?;
        for name in cluster.layout.node_names() {
            cluster.start_node(&name)?;
        }
        let patience = PATIENCE + PATIENCE_PER_HOLLOW * cluster.options.hollow;
        cluster.wait_nodes(patience).await?;
        Ok(cluster)
    }

    /// Where its files are.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// URL of every replica's API, by id, and the administrator's way in.
    #[must_use]
    pub fn endpoints(&self) -> Endpoints {
        self.layout.endpoints()
    }

    /// A client that knows every replica.
    ///
    /// # Errors
    /// An endpoint is not a URL.
    pub fn client(&self) -> anyhow::Result<Client> {
        connect(self.endpoints())
    }

    /// Starts a replica that does not run.
    ///
    /// # Errors
    /// It runs, or the program cannot be started.
    pub fn start_replica(&mut self, id: u64) -> anyhow::Result<()> {
        let dir = self.layout.replica_dir(id);
        let enter = self.places.get(&id).map(|place| place.enter.as_slice()).unwrap_or_default();
        let process = Process::spawn(enter, self.options.program.as_deref(), "server", &dir)?;
        self.replicas.insert(id, process);
        Ok(())
    }

    /// Starts a node that does not run.
    ///
    /// # Errors
    /// It runs, or the program cannot be started.
    pub fn start_node(&mut self, name: &str) -> anyhow::Result<()> {
        let dir = self.layout.node_dir(name);
        let process = Process::spawn(&[], self.options.program.as_deref(), "kubelet", &dir)?;
        self.nodes.insert(name.to_owned(), process);
        Ok(())
    }

    /// Kills a replica with SIGKILL and waits until it is reaped. It is not started again.
    ///
    /// # Errors
    /// There is no such replica.
    pub async fn kill_replica(&mut self, id: u64) -> anyhow::Result<()> {
        let process = self.replicas.remove(&id).with_context(|| format!("no replica {id}"))?;
        process.kill().await
    }

    /// Adds a replica with an empty disk and starts it; its id. It votes as soon as it has caught up.
    ///
    /// # Errors
    /// The others do not take it, or it cannot be started.
    pub async fn add_replica(&mut self, place: Option<Place>) -> anyhow::Result<u64> {
        let address = place.as_ref().map_or(Ipv4Addr::LOCALHOST, |place| place.address);
        let vacancy = self.layout.vacancy(address)?;
        let url = vacancy.peer_url();
        let change = MemberChange::Add { peer_urls: vec![url.clone()], learner: false };
        let members = admin::members(&self.endpoints(), &change).await.context("add a member")?;
        let new = members.iter().find(|member| member.peer_urls.contains(&url));
        let id = new.context("the member that was added is not among them")?.id;
        self.layout.add_replica(id, &vacancy, &self.options)?;
        self.places.extend(place.map(|place| (id, place)));
        self.start_replica(id)?;
        Ok(id)
    }

    /// Takes a replica out for ever and ends its process.
    ///
    /// # Errors
    /// The others do not let it go.
    pub async fn remove_replica(&mut self, id: u64) -> anyhow::Result<()> {
        let change = MemberChange::Remove(id);
        admin::members(&self.endpoints(), &change).await.context("remove a member")?;
        self.layout.remove_replica(id);
        self.places.remove(&id);
        match self.replicas.remove(&id) {
            // One that knows that it is out ends by itself.
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Asks a replica to end (SIGTERM: it hands over the lead first) and waits until it has. It is not started
    /// again.
    ///
    /// # Errors
    /// There is no such replica, or it had to be killed.
    pub async fn stop_replica(&mut self, id: u64) -> anyhow::Result<()> {
        let process = self.replicas.remove(&id).with_context(|| format!("no replica {id}"))?;
        process.terminate();
        process.wait(PATIENCE).await
    }

    /// Processes started from now on are of this program; of this very one without it.
    pub fn use_program(&mut self, program: Option<PathBuf>) {
        self.options.program = program;
    }

    /// Kills a node's agent with SIGKILL; its Pods go on. It is not started again.
    ///
    /// # Errors
    /// There is no such node.
    pub async fn kill_node(&mut self, name: &str) -> anyhow::Result<()> {
        let process = self.nodes.remove(name).with_context(|| format!("no node {name}"))?;
        process.kill().await
    }

    /// The process of a replica that runs.
    #[must_use]
    pub fn replica_pid(&self, id: u64) -> Option<u32> {
        self.replicas.get(&id).and_then(Process::pid)
    }

    /// The process of a node that runs.
    #[must_use]
    pub fn node_pid(&self, name: &str) -> Option<u32> {
        self.nodes.get(name).and_then(Process::pid)
    }

    /// Every process that runs, by name.
    #[must_use]
    pub fn pids(&self) -> BTreeMap<String, u32> {
        let replicas = self.replicas.iter().map(|(id, p)| (format!("replica-{id}"), p));
        let nodes = self.nodes.iter().map(|(name, p)| (name.clone(), p));
        replicas.chain(nodes).filter_map(|(name, p)| Some((name, p.pid()?))).collect()
    }

    /// The end of every process's log, for an error message.
    #[must_use]
    pub fn log_tails(&self) -> String {
        let replicas = self.replicas.iter().map(|(id, p)| (format!("replica-{id}"), p));
        let nodes = self.nodes.iter().map(|(name, p)| (name.clone(), p));
        let tails = replicas.chain(nodes).map(|(name, p)| format!("{name}:\n{}", p.log_tail()));
        tails.collect::<Vec<_>>().join("\n")
    }

    /// Returns when every replica that was started answers that it is ready.
    ///
    /// # Errors
    /// One has ended or is not ready in time.
    pub async fn wait_replicas(&mut self, patience: Duration) -> anyhow::Result<()> {
        self.wait_all_but(&BTreeSet::new(), patience).await
    }

    /// As [`Self::wait_replicas`], but for some of them.
    ///
    /// # Errors
    /// One has ended or is not ready in time.
    pub async fn wait_all_but(
        &mut self,
        left_out: &BTreeSet<u64>,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        for id in self.replicas.keys().copied().collect::<Vec<_>>() {
            if left_out.contains(&id) {
                continue;
            }
            let client = connect(self.endpoints().at(vec![self.layout.client_url(id)]))?;
            loop {
                if is_ready(&client).await {
                    break;
                }
                let process =
                    self.replicas.get_mut(&id).with_context(|| format!("no replica {id}"))?;
                if let Some(status) = process.ended()? {
                    bail!("replica-{id} ended ({status}):\n{}", process.log_tail());
                }
                if Instant::now() > deadline {
                    bail!("replica-{id} is not ready after {patience:?}:\n{}", process.log_tail());
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    /// Returns when every node that was started is `Ready` in the API.
    ///
    /// # Errors
    /// One has ended or is not ready in time.
    pub async fn wait_nodes(&mut self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        let client = self.client()?;
        let mut wanted = self.layout.ready_node_names();
        let mut last = String::new();
        while !wanted.is_empty() {
            match client.list::<api::core::Node>(None, &client::ListOptions::default()).await {
                Ok(list) => {
                    for node in list.items {
                        if let (Some(name), true) = (&node.metadata.name, node_is_ready(&node)) {
                            wanted.remove(name);
                        }
                    }
                }
                Err(error) => last = error.to_string(),
            }
            for (name, process) in &mut self.nodes {
                if let Some(status) = process.ended()? {
                    bail!("{name} ended ({status}):\n{}", process.log_tail());
                }
            }
            if !wanted.is_empty() && Instant::now() > deadline {
                let logs: Vec<String> =
                    self.nodes.iter().map(|(n, p)| format!("{n}:\n{}", p.log_tail())).collect();
                bail!("not Ready after {patience:?}: {wanted:?} {last}\n{}", logs.join("\n"));
            }
            // Seldom while a crowd is on its way: the answers are long.
            sleep(Duration::from_millis(10 + wanted.len() as u64)).await;
        }
        Ok(())
    }

    /// Renews the administrator's certificate if it is time: whoever runs a cluster for long calls it now and then.
    ///
    /// # Errors
    /// It cannot be signed or written.
    pub fn renew_admin(&mut self) -> anyhow::Result<()> {
        self.layout.renew_admin(self.options.certificate_lifetime)
    }

    /// Until `shutdown`: starts what has ended again, if the options say so. A line for each.
    ///
    /// # Errors
    /// A process cannot be started again.
    pub async fn supervise(
        &mut self,
        shutdown: &CancellationToken,
        mut say: impl FnMut(String),
    ) -> anyhow::Result<()> {
        loop {
            if timeout(Duration::from_millis(500), shutdown.cancelled()).await.is_ok() {
                return Ok(());
            }
            if let Err(error) = self.renew_admin() {
                say(format!("the administrator's certificate was not renewed: {error:#}"));
            }
            let mut ended = Vec::new();
            for (id, process) in &mut self.replicas {
                if let Some(status) = process.ended()? {
                    ended.push((Ended::Replica(*id), format!("replica-{id} ended ({status})")));
                }
            }
            for (name, process) in &mut self.nodes {
                if let Some(status) = process.ended()? {
                    ended.push((Ended::Node(name.clone()), format!("{name} ended ({status})")));
                }
            }
            for (which, text) in ended {
                if !self.options.restart {
                    say(text);
                    match which {
                        Ended::Replica(id) => drop(self.replicas.remove(&id)),
                        Ended::Node(name) => drop(self.nodes.remove(&name)),
                    }
                    continue;
                }
                say(format!("{text}, started again"));
                match which {
                    Ended::Replica(id) => self.start_replica(id)?,
                    Ended::Node(name) => self.start_node(&name)?,
                }
            }
        }
    }

    /// Ends everything: nodes first, which take their Pods down, then the replicas. Nothing is left
    /// running or mounted; the data directory stays.
    ///
    /// # Errors
    /// A process had to be killed; everything else has been ended all the same.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let mut result = Ok(());
        for group in [std::mem::take(&mut self.nodes).into_values().collect::<Vec<_>>(), {
            std::mem::take(&mut self.replicas).into_values().collect()
        }] {
            for process in &group {
                process.terminate();
            }
            for process in group {
                let ended = process.wait(PATIENCE).await;
                result = result.and(ended);
            }
        }
        for name in self.layout.node_names() {
            crate::node::remove_leftovers(&self.layout.node_dir(&name)).await?;
        }
        result
    }
}

enum Ended {
    Replica(u64),
    Node(String),
}

/// A client over these endpoints.
///
/// # Errors
/// An endpoint is not a URL.
pub fn connect(endpoints: Endpoints) -> anyhow::Result<Client> {
    Client::connect(endpoints).context("connect")
}

async fn is_ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Bytes::new()) else { return false };
    matches!(
        timeout(Duration::from_secs(2), client.request(request)).await,
        Ok(Ok(response)) if response.status().is_success()
    )
}

/// Whether the node's own condition says so.
#[must_use]
pub fn node_is_ready(node: &api::core::Node) -> bool {
    node.status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten())
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The end of a log file, for an error message.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
