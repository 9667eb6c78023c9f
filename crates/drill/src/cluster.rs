//! The cluster under the drill: real processes of this very program, and the handles by which they are broken.

use crate::place::{Ground, LoopDisk};
use anyhow::{Context as _, bail};
use bench::{Link, Network, System};
use client::{
    admin::{self, ClusterStatus, Member, MemberChange},
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
    rc::Rc,
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
    members: Members,
    /// Replicas that do not run now.
    down: BTreeSet<u64>,
    /// They run, and cannot follow the others while that lasts.
    left_behind: BTreeSet<u64>,
}

/// Who the replicas are.
#[derive(Debug)]
enum Members {
    Ours(Box<Ours>),
    /// For comparison: a store and nothing else.
    Etcd(bench::Cluster),
    /// Somebody else's.
    Live(LiveCluster),
}

/// A cluster that is not ours.
#[derive(Debug, Clone)]
pub struct LiveCluster {
    /// Of its API: every replica's, by id, and an administrator's way in.
    pub endpoints: Endpoints,
    /// Of its etcd v3 API, by replica.
    pub etcd_urls: Vec<String>,
    /// Ids of the members, in the same order.
    pub ids: Vec<u64>,
    /// Where it keeps its files, if it is one of `trireme dev` on this machine.
    pub dir: Option<PathBuf>,
}

impl LiveCluster {
    /// The cluster of a replica, with all others, as it names them.
    ///
    /// # Errors
    /// It does not answer, or somebody does not serve etcd's API.
    pub async fn of_member(one: &Endpoints) -> anyhow::Result<Self> {
        let status = admin::status(one).await.context("ask who is in the cluster")?;
        let members = admin::members(one, &MemberChange::List).await?;
        let mut etcd_urls = Vec::new();
        for status in &status.members {
            let member = members.iter().find(|member| member.id == status.id);
            let url = member.and_then(|member| member.client_urls.first());
            etcd_urls
                .push(url.with_context(|| format!("{} serves no etcd API", status.name))?.clone());
        }
        let ids = status.members.iter().map(|member| member.id).collect();
        let urls = status.members.into_iter().map(|member| member.client_url).collect();
        Ok(Self { endpoints: one.at(urls), etcd_urls, ids, dir: None })
    }

    /// The process of a replica.
    fn pid(&self, id: u64) -> anyhow::Result<Pid> {
        let dir = self.dir.as_ref().context("its processes are not on this machine")?;
        let config = dir.join(format!("replica-{id}")).join("config.toml");
        let config = config.canonicalize().with_context(|| format!("find {}", config.display()))?;
        let wanted = format!("--config\0{}\0", config.display());
        for process in fs::read_dir("/proc").context("look at processes")?.flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let pid = process.file_name().to_string_lossy().parse();
            if let (true, Ok(pid)) = (String::from_utf8_lossy(&line).ends_with(&wanted), pid) {
                return Ok(Pid::from_raw(pid));
            }
        }
        bail!("replica {id} does not run")
    }

    /// Kills or ends a replica, and waits until it has ended.
    async fn end(&self, id: u64, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid(id)?;
        kill(pid, signal).with_context(|| format!("send {signal} to replica {id}"))?;
        let until = Instant::now() + PATIENCE;
        while self.pid(id).is_ok_and(|now| now == pid) {
            if Instant::now() > until {
                bail!("replica {id} has not ended after {PATIENCE:?}");
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Ours {
    // Before network and disk: processes end before what they run in.
    dev: DevCluster,
    network: Option<Network>,
    power: Option<LoopDisk>,
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
            // One more, for a replica that joins.
            let made = Network::new(REPLICAS as usize + 1).await?;
            for index in 0..REPLICAS as usize {
                places.push(place(&made, index)?);
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
        let ours = Ours { dev, network, power, ground };
        Ok(Self {
            members: Members::Ours(Box::new(ours)),
            down: BTreeSet::new(),
            left_behind: BTreeSet::new(),
        })
    }

    /// Starts members of the etcd that is installed here.
    ///
    /// # Errors
    /// There is none, with what to install; or it does not come up.
    pub(crate) async fn start_etcd(dir: &Path, ground: Ground) -> anyhow::Result<Self> {
        let system = System::etcd()?;
        let network = match ground {
            Ground::Own => Some((Rc::new(Network::new(REPLICAS as usize).await?), 0)),
            Ground::Shared => None,
        };
        let started = Box::pin(bench::Cluster::start(system, dir, network)).await?;
        Ok(Self {
            members: Members::Etcd(started),
            down: BTreeSet::new(),
            left_behind: BTreeSet::new(),
        })
    }

    /// Takes one that runs.
    pub(crate) fn live(live: LiveCluster) -> Self {
        Self { members: Members::Live(live), down: BTreeSet::new(), left_behind: BTreeSet::new() }
    }

    fn ours(&self) -> anyhow::Result<&Ours> {
        match &self.members {
            Members::Ours(ours) => Ok(ours),
            Members::Etcd(_) | Members::Live(_) => bail!("only clusters of the drill have this"),
        }
    }

    fn ours_mut(&mut self) -> anyhow::Result<&mut Ours> {
        match &mut self.members {
            Members::Ours(ours) => Ok(ours),
            Members::Etcd(_) | Members::Live(_) => bail!("only clusters of the drill have this"),
        }
    }

    /// Of the Kubernetes-shaped API; none of etcd.
    pub(crate) fn endpoints(&self) -> Option<Endpoints> {
        match &self.members {
            Members::Ours(ours) => Some(ours.dev.endpoints()),
            Members::Live(live) => Some(live.endpoints.clone()),
            Members::Etcd(_) => None,
        }
    }

    /// Of the etcd v3 API, by replica.
    pub(crate) fn etcd_urls(&self) -> Vec<String> {
        match &self.members {
            Members::Ours(ours) => ours.dev.layout().etcd_urls(),
            Members::Etcd(etcd) => etcd.endpoints(),
            Members::Live(live) => live.etcd_urls.clone(),
        }
    }

    /// Those that are processes of their own.
    pub(crate) fn nodes(&self) -> Vec<String> {
        self.ours().map(|ours| ours.dev.layout().node_names()).unwrap_or_default()
    }

    pub(crate) fn replicas(&self) -> Vec<u64> {
        match &self.members {
            Members::Ours(_) | Members::Etcd(_) => (1..=u64::from(REPLICAS)).collect(),
            Members::Live(live) => live.ids.clone(),
        }
    }

    /// Those that run.
    pub(crate) fn up(&self) -> Vec<u64> {
        self.replicas().into_iter().filter(|id| !self.down.contains(id)).collect()
    }

    /// Who leads, once somebody does.
    ///
    /// # Errors
    /// Nobody does for a long time.
    pub(crate) async fn leader(&self) -> anyhow::Result<u64> {
        let until = Instant::now() + PATIENCE;
        loop {
            let leader = match &self.members {
                Members::Ours(ours) => leader(&ours.dev.endpoints()).await,
                Members::Live(live) => leader(&live.endpoints).await,
                Members::Etcd(etcd) => etcd.leader().await.map(|index| index as u64 + 1),
            };
            if let Some(leader) = leader.filter(|id| self.up().contains(id)) {
                return Ok(leader);
            }
            if Instant::now() > until {
                bail!("nobody leads after {PATIENCE:?}\n{}", self.log_tails());
            }
            sleep(LOOK).await;
        }
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self, id: u64) -> anyhow::Result<()> {
        self.down.insert(id);
        match &mut self.members {
            Members::Ours(ours) => ours.dev.kill_replica(id).await,
            Members::Etcd(etcd) => etcd.kill(index(id)?),
            Members::Live(live) => live.end(id, Signal::SIGKILL).await,
        }
    }

    /// SIGKILL to all that run, at once.
    pub(crate) async fn kill_all(&mut self) -> anyhow::Result<()> {
        for id in self.up() {
            // All are hit before one of them is waited for; one whose disk is gone may have ended by itself.
            let _ = self.signal(id, Signal::SIGKILL);
        }
        for id in self.up() {
            self.kill(id).await?;
        }
        Ok(())
    }

    /// Asks a replica to end, and waits until it has.
    pub(crate) async fn stop(&mut self, id: u64) -> anyhow::Result<()> {
        self.down.insert(id);
        match &mut self.members {
            Members::Ours(ours) => ours.dev.stop_replica(id).await,
            Members::Etcd(etcd) => etcd.stop_member(index(id)?).await,
            Members::Live(live) => live.end(id, Signal::SIGTERM).await,
        }
    }

    fn start_replica(&mut self, id: u64) -> anyhow::Result<()> {
        match &mut self.members {
            Members::Ours(ours) => ours.dev.start_replica(id)?,
            Members::Etcd(etcd) => etcd.start_member(index(id)?)?,
            // Whoever keeps it running does so.
            Members::Live(_) => {}
        }
        self.down.remove(&id);
        Ok(())
    }

    pub(crate) fn use_program(&mut self, program: Option<PathBuf>) -> anyhow::Result<()> {
        self.ours_mut()?.dev.use_program(program);
        Ok(())
    }

    pub(crate) fn signal(&self, id: u64, signal: Signal) -> anyhow::Result<()> {
        let pid = match &self.members {
            Members::Ours(ours) => {
                let pid = ours.dev.replica_pid(id);
                Pid::from_raw(i32::try_from(
                    pid.with_context(|| format!("replica {id} does not run"))?,
                )?)
            }
            Members::Etcd(etcd) => return etcd.signal(index(id)?, signal),
            Members::Live(live) => live.pid(id)?,
        };
        kill(pid, signal).with_context(|| format!("send {signal} to replica {id}"))
    }

    /// Cuts a replica off from everybody, or ends that.
    pub(crate) async fn cut(&self, id: u64, cut: bool) -> anyhow::Result<()> {
        match &self.members {
            Members::Ours(ours) => ours.network()?.cut(index(id)?, cut).await,
            Members::Etcd(etcd) => etcd.cut(index(id)?, cut).await,
            Members::Live(_) => bail!("the network of a live cluster is not touched"),
        }
    }

    /// Loses all that one replica sends another, in this direction alone, or ends that.
    pub(crate) async fn silence(&self, from: u64, to: u64, silent: bool) -> anyhow::Result<()> {
        let (from, to) = (index(from)?, index(to)?);
        match &self.members {
            Members::Ours(ours) => ours.network()?.silence(from, to, silent).await,
            Members::Etcd(etcd) => etcd.silence(from, to, silent).await,
            Members::Live(_) => bail!("the network of a live cluster is not touched"),
        }
    }

    /// Makes a replica's link what is said.
    pub(crate) async fn set_link(&mut self, id: u64, quality: Link) -> anyhow::Result<()> {
        match &self.members {
            Members::Ours(ours) => ours.network()?.set_quality(index(id)?, quality).await?,
            Members::Etcd(etcd) => etcd.set_link(index(id)?, quality).await?,
            Members::Live(_) => bail!("the network of a live cluster is not touched"),
        }
        if quality == Link::Poor {
            self.left_behind.insert(id);
        } else {
            self.left_behind.remove(&id);
        }
        Ok(())
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
        let path = self.ours()?.dev.layout().replica_dir(id).join(name);
        // At once, so that no half of it is ever read.
        let new = path.with_extension("new");
        fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("write {}", path.display()))
    }

    /// Cuts the power of all disks, and kills all that ran on them.
    pub(crate) async fn cut_power(&mut self) -> anyhow::Result<()> {
        self.ours()?.power()?.cut()?;
        self.kill_all().await?;
        self.ours()?.power()?.restore().await
    }

    /// Ends a node as a power cut does: its agent and everything that it ran.
    pub(crate) async fn lose_node(&mut self, name: &str) -> anyhow::Result<()> {
        let ours = self.ours_mut()?;
        ours.dev.kill_node(name).await?;
        if ours.ground == Ground::Own {
            server::node::remove_leftovers(&ours.dev.layout().node_dir(name)).await?;
        }
        Ok(())
    }

    /// Kills a node's agent alone: its Pods go on.
    pub(crate) async fn kill_agent(&mut self, name: &str) -> anyhow::Result<()> {
        self.ours_mut()?.dev.kill_node(name).await
    }

    pub(crate) fn start_node(&mut self, name: &str) -> anyhow::Result<()> {
        self.ours_mut()?.dev.start_node(name)
    }

    /// Adds a replica, and returns when it votes; its id.
    ///
    /// # Errors
    /// It does not come to vote in time.
    pub(crate) async fn add_replica(&mut self) -> anyhow::Result<u64> {
        let ours = self.ours_mut()?;
        let place = ours.network.as_ref().map(|network| place(network, REPLICAS as usize));
        let id = ours.dev.add_replica(place.transpose()?).await?;
        let until = Instant::now() + PATIENCE;
        loop {
            let members = admin::members(&ours.dev.endpoints(), &MemberChange::List).await;
            let votes = |members: &[Member]| members.iter().any(|m| m.id == id && !m.learner);
            if members.as_ref().is_ok_and(|members| votes(members)) {
                return Ok(id);
            }
            if Instant::now() > until {
                bail!("replica {id} does not vote after {PATIENCE:?}\n{}", ours.dev.log_tails());
            }
            sleep(LOOK).await;
        }
    }

    /// Takes out one that was added.
    pub(crate) async fn remove_replica(&mut self, id: u64) -> anyhow::Result<()> {
        self.ours_mut()?.dev.remove_replica(id).await
    }

    /// Starts what does not run, and returns when every replica that can follow serves, and all of these know one
    /// leader.
    ///
    /// # Errors
    /// Not in time; with the end of all logs.
    pub(crate) async fn make_whole(&mut self) -> anyhow::Result<()> {
        for id in self.down.clone() {
            self.start_replica(id)?;
        }
        let left_behind = &self.left_behind;
        let endpoints = match &mut self.members {
            Members::Ours(ours) => {
                ours.dev.wait_all_but(left_behind, PATIENCE).await?;
                let layout = ours.dev.layout();
                let behind: Vec<String> =
                    left_behind.iter().map(|id| layout.client_url(*id)).collect();
                let mut endpoints = ours.dev.endpoints();
                endpoints.urls.retain(|url| !behind.contains(url));
                endpoints
            }
            Members::Etcd(etcd) => return etcd.wait_ready().await,
            Members::Live(live) => live.endpoints.clone(),
        };
        let until = Instant::now() + PATIENCE;
        loop {
            let all = statuses(&endpoints).await;
            let leaders: BTreeSet<u64> = all.iter().map(|status| status.leader).collect();
            let complete = all.len() == endpoints.urls.len() && leaders.len() == 1;
            if complete && leaders.iter().all(|leader| *leader != 0) {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("not whole after {PATIENCE:?}: {all:?}\n{}", self.log_tails());
            }
            sleep(LOOK).await;
        }
    }

    /// The end of every log, for an error message.
    pub(crate) fn log_tails(&self) -> String {
        self.ours().map(|ours| ours.dev.log_tails()).unwrap_or_default()
    }

    /// Ends everything in order.
    ///
    /// # Errors
    /// Something had to be killed.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        for id in self.up() {
            // One that stands still cannot be asked; nor may a live one be left so.
            let _ = self.signal(id, Signal::SIGCONT);
        }
        match self.members {
            Members::Ours(ours) => {
                let Ours { dev, network, power, .. } = *ours;
                let ended = dev.stop().await;
                drop((network, power));
                ended
            }
            // Dropping it kills what does not run in order any more.
            Members::Etcd(mut etcd) if self.down.is_empty() => etcd.stop().await,
            Members::Etcd(_) | Members::Live(_) => Ok(()),
        }
    }
}

impl Ours {
    fn network(&self) -> anyhow::Result<&Network> {
        self.network.as_ref().context("replicas share this machine's network: needs root")
    }

    fn power(&self) -> anyhow::Result<&LoopDisk> {
        self.power.as_ref().context("no disk whose power can be cut: needs root")
    }
}

/// A network for a replica, in which it dies with the drill: one that stands still would outlive it.
fn place(network: &Network, index: usize) -> anyhow::Result<Place> {
    let die_with_us = ["setpriv", "--pdeathsig", "KILL"].map(str::to_owned);
    let enter = [network.enter(index)?, die_with_us.to_vec()].concat();
    Ok(Place { address: network.address(index), enter })
}

/// As the replica that knows most says; one that does not answer is passed over.
async fn leader(endpoints: &Endpoints) -> Option<u64> {
    // One that hears nobody names nobody.
    let named = statuses(endpoints).await.into_iter().filter(|status| status.leader != 0);
    named.max_by_key(|status| status.epoch).map(|status| status.leader)
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
    usize::try_from(id.checked_sub(1).context("replicas count from 1")?)
        .context("a replica's number")
}
