//! The cluster under the drill: real processes of this very program, and the handles by which they are broken.

use crate::place::{Ground, LoopDisk};
use anyhow::{Context as _, bail};
use bench::Network;
use client::{
    admin::{self, ClusterStatus},
    endpoints::Endpoints,
};
use futures::future::join_all;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use server::{
    config::RuntimeKind,
    dev::{DevCluster, DevOptions, Place},
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// Voting members.
pub(crate) const REPLICAS: u32 = 3;
/// For a cluster to be whole again.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one answer.
const ANSWER: Duration = Duration::from_secs(1);
/// Between two looks at what gives no notice.
const LOOK: Duration = Duration::from_millis(10);

/// What kind of cluster a drill needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Nodes with real containers, or hollow ones where that cannot be.
    pub(crate) nodes: u32,
    /// Silence after which a node is `NotReady`.
    pub(crate) node_silence: Duration,
    /// Bytes of a segment of the log.
    pub(crate) segment_bytes: u64,
    /// Whether disks and clocks can be made to fail: a previous version may not know how.
    pub(crate) faults: bool,
    /// Whether the replicas' disks are on a file system whose power can be cut.
    pub(crate) power: bool,
    /// What is started; this very program if none.
    pub(crate) program: Option<PathBuf>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            nodes: 2,
            node_silence: Duration::from_secs(50),
            segment_bytes: 64 << 20,
            faults: true,
            power: false,
            program: None,
        }
    }
}

/// Three replicas and some nodes. Dropping it ends them all.
#[derive(Debug)]
pub(crate) struct Cluster {
    // Before network and disk: processes end before what they run in.
    dev: DevCluster,
    network: Option<Network>,
    power: Option<LoopDisk>,
    /// Replicas that do not run now.
    down: BTreeSet<u64>,
    ground: Ground,
}

impl Cluster {
    /// Starts one below `dir` and returns when all of it serves.
    ///
    /// # Errors
    /// Something does not come up; with the end of its log.
    pub(crate) async fn start(dir: &Path, ground: Ground, shape: &Shape) -> anyhow::Result<Self> {
        let (mut network, mut places) = (None, Vec::new());
        if ground == Ground::Own {
            let made = Network::new(REPLICAS as usize).await?;
            for index in 0..REPLICAS as usize {
                // A replica that stands still would outlive a drill that is killed.
                let die_with_us = ["setpriv", "--pdeathsig", "KILL"].map(str::to_owned);
                let enter = [made.enter(index)?, die_with_us.to_vec()].concat();
                places.push(Place { address: made.address(index), enter });
            }
            network = Some(made);
        }
        let power = (shape.power && ground == Ground::Own)
            .then(|| LoopDisk::new(dir))
            .transpose()
            .context("a disk whose power can be cut")?;
        let real = ground == Ground::Own;
        let options = DevOptions {
            replicas: REPLICAS,
            nodes: if real { shape.nodes } else { 0 },
            hollow: if real { 0 } else { shape.nodes },
            runtime: RuntimeKind::Native,
            restart: false,
            faults: shape.faults,
            segment_bytes: shape.segment_bytes,
            node_silence: shape.node_silence,
            program: shape.program.clone(),
            places,
            disks: power.as_ref().map(|disk| disk.path().to_owned()),
            ..DevOptions::new(dir.join("cluster"))
        };
        let dev = DevCluster::start(options).await?;
        Ok(Self { dev, network, power, down: BTreeSet::new(), ground })
    }

    /// Whether nodes run real containers.
    pub(crate) fn has_containers(&self) -> bool {
        self.ground == Ground::Own
    }

    pub(crate) fn endpoints(&self) -> Endpoints {
        self.dev.endpoints()
    }

    /// Of the etcd v3 API, by replica.
    pub(crate) fn etcd_urls(&self) -> Vec<String> {
        self.dev.layout().etcd_urls()
    }

    pub(crate) fn nodes(&self) -> Vec<String> {
        self.dev.layout().node_names()
    }

    pub(crate) fn replicas(&self) -> Vec<u64> {
        (1..=u64::from(REPLICAS)).collect()
    }

    /// Those that run.
    pub(crate) fn up(&self) -> Vec<u64> {
        self.replicas().into_iter().filter(|id| !self.down.contains(id)).collect()
    }

    /// What the replica that knows most says; one that does not answer is passed over.
    pub(crate) async fn status(&self) -> Option<ClusterStatus> {
        statuses(&self.endpoints()).await.into_iter().max_by_key(|status| status.epoch)
    }

    /// Who leads, once somebody does.
    ///
    /// # Errors
    /// Nobody does for a long time.
    pub(crate) async fn leader(&self) -> anyhow::Result<u64> {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            if let Some(status) = status.filter(|s| self.up().contains(&s.leader)) {
                return Ok(status.leader);
            }
            if Instant::now() > until {
                bail!("nobody leads after {PATIENCE:?}\n{}", self.dev.log_tails());
            }
            sleep(LOOK).await;
        }
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self, id: u64) -> anyhow::Result<()> {
        self.down.insert(id);
        self.dev.kill_replica(id).await
    }

    /// SIGKILL to all that run, at once.
    pub(crate) async fn kill_all(&mut self) -> anyhow::Result<()> {
        for id in self.up() {
            // All are hit before one of them is waited for.
            self.signal(id, Signal::SIGKILL)?;
        }
        for id in self.up() {
            self.kill(id).await?;
        }
        Ok(())
    }

    /// Asks a replica to end, and waits until it has.
    pub(crate) async fn stop(&mut self, id: u64) -> anyhow::Result<()> {
        self.down.insert(id);
        self.dev.stop_replica(id).await
    }

    pub(crate) fn start_replica(&mut self, id: u64) -> anyhow::Result<()> {
        self.dev.start_replica(id)?;
        self.down.remove(&id);
        Ok(())
    }

    pub(crate) fn use_program(&mut self, program: Option<PathBuf>) {
        self.dev.use_program(program);
    }

    pub(crate) fn signal(&self, id: u64, signal: Signal) -> anyhow::Result<()> {
        let pid = self.dev.replica_pid(id).with_context(|| format!("replica {id} does not run"))?;
        let pid = Pid::from_raw(i32::try_from(pid)?);
        kill(pid, signal).with_context(|| format!("send {signal} to replica {id}"))
    }

    fn network(&self) -> anyhow::Result<&Network> {
        self.network.as_ref().context("replicas share this machine's network: needs root")
    }

    /// Cuts a replica off from everybody, or ends that.
    pub(crate) async fn cut(&self, id: u64, cut: bool) -> anyhow::Result<()> {
        self.network()?.cut(index(id)?, cut).await
    }

    /// Loses all that one replica sends another, in this direction alone, or ends that.
    pub(crate) async fn silence(&self, from: u64, to: u64, silent: bool) -> anyhow::Result<()> {
        self.network()?.silence(index(from)?, index(to)?, silent).await
    }

    /// Makes a replica's link slow and lossy, or ends that.
    pub(crate) async fn slow(&self, id: u64, slow: bool) -> anyhow::Result<()> {
        self.network()?.slow(index(id)?, slow).await
    }

    /// What the replica's disk does from now on, as `raft::disk::Plan` reads it; as it should for nothing.
    pub(crate) fn set_disk(&self, id: u64, plan: &str) -> anyhow::Result<()> {
        self.write_beside(id, "faults", plan)
    }

    /// By how many milliseconds the replica's clock is wrong from now on.
    pub(crate) fn set_clock(&self, id: u64, millis: i64) -> anyhow::Result<()> {
        self.write_beside(id, "clock", &format!("{millis}\n"))
    }

    fn write_beside(&self, id: u64, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.dev.layout().replica_dir(id).join(name);
        // At once, so that no half of it is ever read.
        let new = path.with_extension("new");
        fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("write {}", path.display()))
    }

    /// Cuts the power of all disks, and kills all that ran on them.
    pub(crate) async fn cut_power(&mut self) -> anyhow::Result<()> {
        let disk = self.power.as_ref().context("no disk whose power can be cut: needs root")?;
        disk.cut()?;
        self.kill_all().await?;
        self.power.as_ref().context("a disk")?.restore()
    }

    /// Ends a node as a power cut does: its agent and everything that it ran.
    pub(crate) async fn lose_node(&mut self, name: &str) -> anyhow::Result<()> {
        self.dev.kill_node(name).await?;
        if self.has_containers() {
            server::node::remove_leftovers(&self.dev.layout().node_dir(name)).await?;
        }
        Ok(())
    }

    /// Kills a node's agent alone: its Pods go on.
    pub(crate) async fn kill_agent(&mut self, name: &str) -> anyhow::Result<()> {
        self.dev.kill_node(name).await
    }

    pub(crate) fn start_node(&mut self, name: &str) -> anyhow::Result<()> {
        self.dev.start_node(name)
    }

    /// Starts what does not run, and returns when every replica serves and all know one leader and one term.
    ///
    /// # Errors
    /// Not in time; with the end of all logs.
    pub(crate) async fn make_whole(&mut self) -> anyhow::Result<()> {
        for id in self.down.clone() {
            self.start_replica(id)?;
        }
        self.dev.wait_replicas(PATIENCE).await?;
        let until = Instant::now() + PATIENCE;
        loop {
            let all = statuses(&self.endpoints()).await;
            let leaders: BTreeSet<u64> = all.iter().map(|status| status.leader).collect();
            let complete = all.len() == REPLICAS as usize && leaders.len() == 1;
            if complete && leaders.iter().all(|leader| *leader != 0) {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("not whole after {PATIENCE:?}: {all:?}\n{}", self.dev.log_tails());
            }
            sleep(LOOK).await;
        }
    }

    /// The end of every log, for an error message.
    pub(crate) fn log_tails(&self) -> String {
        self.dev.log_tails()
    }

    /// Ends everything in order.
    ///
    /// # Errors
    /// Something had to be killed.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        for id in self.up() {
            // One that stands still cannot be asked.
            let _ = self.signal(id, Signal::SIGCONT);
        }
        let Self { dev, network, power, .. } = self;
        let ended = dev.stop().await;
        drop((network, power));
        ended
    }
}

/// What each replica says of all; those that do not answer are left out.
pub(crate) async fn statuses(endpoints: &Endpoints) -> Vec<ClusterStatus> {
    let asked = endpoints.urls.iter().map(|url| {
        let only = endpoints.at(vec![url.clone()]);
        async move { timeout(ANSWER, admin::status(&only)).await.ok()?.ok() }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

fn index(id: u64) -> anyhow::Result<usize> {
    usize::try_from(id.checked_sub(1).context("replicas count from 1")?).context("a replica's number")
}
