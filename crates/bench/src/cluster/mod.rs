//! Members of a system under test: processes that end with this one.

mod member;
mod membership;

use self::member::Member;
use crate::{
    netns::{Link, Network},
    usage,
    wire::{CallError, Connection, path},
};
use anyhow::{Context as _, bail, ensure};
use etcd::proto::etcdserverpb::{RangeRequest, RangeResponse, StatusRequest, StatusResponse};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::Rng as _;
use std::{
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    rc::Rc,
    time::Duration,
};
use tokio::{
    task::LocalSet,
    time::{Instant, sleep, timeout},
};

/// Members of a system at its start.
pub(crate) const MEMBERS: usize = 3;
/// For a system to come up or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that gives no notice.
const LOOK: Duration = Duration::from_millis(2);
/// Between two tries of something that is refused until it is time.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// For one look.
const ANSWER: Duration = Duration::from_secs(1);
/// Below the range from which the kernel takes ports for outgoing connections: a member's port must not
/// be taken by chance while the member restarts.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// A program that takes etcd's flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// What a report calls it.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// What stands before the flags.
    pub arguments: Vec<String>,
}

impl System {
    /// `PROGRAM etcd`.
    #[must_use]
    pub fn trireme(program: PathBuf) -> Self {
        Self { name: "trireme".to_owned(), program, arguments: vec!["etcd".to_owned()] }
    }

    /// The `etcd` that the system's package manager installed.
    ///
    /// # Errors
    /// There is none; says what to install.
    pub fn etcd() -> anyhow::Result<Self> {
        let system =
            Self { name: "etcd".to_owned(), program: "etcd".into(), arguments: Vec::new() };
        let version = Command::new(&system.program).arg("--version").output();
        match version {
            Ok(output) if output.status.success() => Ok(system),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("etcd is not installed: apt-get install etcd-server etcd-client")
            }
            Ok(output) => bail!("etcd --version: {}", output.status),
            Err(error) => Err(error).context("etcd --version"),
        }
    }
}

/// Members of a system, on loopback or in networks of their own; three at the start.
#[derive(Debug)]
pub struct Cluster {
    system: System,
    /// Where each member has a directory.
    dir: PathBuf,
    // Before the network: processes end before what they run in.
    members: Vec<Member>,
    /// Of the next member; none is given twice.
    next: usize,
    /// Networks of several systems, and the first of this one's.
    network: Option<(Rc<Network>, usize)>,
}

impl Cluster {
    /// Starts all members with empty directories below `dir` and returns when each serves.
    ///
    /// # Errors
    /// A member does not come up; with the end of its log.
    pub async fn start(
        system: System,
        dir: &Path,
        network: Option<(Rc<Network>, usize)>,
    ) -> anyhow::Result<Self> {
        let (dir, members) = (dir.to_owned(), Vec::new());
        let mut cluster = Self { system, dir, members, next: 0, network };
        for _ in 0..MEMBERS {
            let member = cluster.new_member()?;
            cluster.members.push(member);
        }
        let all = cluster.initial_cluster();
        for member in &mut cluster.members {
            member.arguments = member.flags(&cluster.system, &all, "new");
        }
        for index in 0..MEMBERS {
            cluster.start_member(index)?;
        }
        cluster.wait_ready().await?;
        Ok(cluster)
    }

    /// A member that has a number, a directory and addresses, and belongs to nothing yet.
    fn new_member(&mut self) -> anyhow::Result<Member> {
        let number = self.next;
        self.next += 1;
        let (client_url, peer_url) = match &self.network {
            Some((network, first)) => {
                ensure!(number < MEMBERS, "members in networks of their own are {MEMBERS}");
                let url = |port| format!("http://{}:{port}", network.address(first + number));
                (url(CLIENT_PORT), url(PEER_PORT))
            }
            None => {
                let taken = self.members.iter().flat_map(|m| [&m.client_url, &m.peer_url]);
                let taken: Vec<&String> = taken.collect();
                free_urls(&taken)?
            }
        };
        Member::new(number, &self.dir, client_url, peer_url)
    }

    /// All members as `--initial-cluster` names them.
    fn initial_cluster(&self) -> String {
        let all = self.members.iter().map(|m| format!("{}={}", m.name, m.peer_url));
        all.collect::<Vec<_>>().join(",")
    }

    /// Its name in a report.
    pub(crate) fn name(&self) -> &str {
        &self.system.name
    }

    /// The clients' URL of each member.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client_url.clone()).collect()
    }

    /// What each member is called.
    pub(crate) fn names(&self) -> Vec<String> {
        self.members.iter().map(|member| member.name.clone()).collect()
    }

    /// Of the members that run.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(|m| m.child.as_ref().map(Child::id)).collect()
    }

    /// Bytes that each member's directory takes.
    pub(crate) fn disk_bytes(&self) -> anyhow::Result<Vec<u64>> {
        self.members.iter().map(|member| usage::disk_bytes(&member.dir.join("data"))).collect()
    }

    /// More flags for every member, from its next start on.
    pub(crate) fn add_arguments(&mut self, more: &[&str]) {
        for member in &mut self.members {
            member.arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        }
    }

    /// Starts a member that does not run.
    ///
    /// The process gets SIGKILL when the thread that started it ends, however that happens.
    ///
    /// # Errors
    /// There is no such member, or it runs.
    pub fn start_member(&mut self, index: usize) -> anyhow::Result<()> {
        let member = self.members.get_mut(index).context("no such member")?;
        // Both programs become the next one: the process stays the same.
        let command = match &self.network {
            Some((network, first)) => {
                let enter = network.enter(first + member.number)?;
                let (program, rest) = enter.split_first().context("a command")?;
                let mut command = Command::new(program);
                command.args(rest).arg("setpriv");
                command
            }
            None => Command::new("setpriv"),
        };
        member.start(command, &self.system)
    }

    /// SIGKILL; returns when it is reaped.
    ///
    /// # Errors
    /// No such member runs.
    pub fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        let mut child = self.take(index)?;
        child.kill().context("kill a member")?;
        child.wait().context("wait for a member")?;
        Ok(())
    }

    fn take(&mut self, index: usize) -> anyhow::Result<Child> {
        self.members.get_mut(index).and_then(|m| m.child.take()).context("no such member runs")
    }

    /// Sends a signal to a member.
    ///
    /// # Errors
    /// No such member runs.
    pub fn signal(&self, index: usize, signal: Signal) -> anyhow::Result<()> {
        let child = self.members.get(index).and_then(|m| m.child.as_ref());
        let pid = i32::try_from(child.context("no such member runs")?.id())?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal}"))
    }

    /// Cuts a member off from everybody, or ends that.
    ///
    /// # Errors
    /// Members share one network.
    pub async fn cut(&self, index: usize, cut: bool) -> anyhow::Result<()> {
        let (network, place) = self.place(index)?;
        network.cut(place, cut).await
    }

    /// Loses all that one member sends another, in this direction alone, or ends that.
    ///
    /// # Errors
    /// Members share one network.
    pub async fn silence(&self, from: usize, to: usize, silent: bool) -> anyhow::Result<()> {
        let ((network, from), (_, to)) = (self.place(from)?, self.place(to)?);
        network.silence(from, to, silent).await
    }

    /// Makes a member's link what is said.
    ///
    /// # Errors
    /// Members share one network.
    pub async fn set_link(&self, index: usize, quality: Link) -> anyhow::Result<()> {
        let (network, place) = self.place(index)?;
        network.set_quality(place, quality).await
    }

    /// Where a member is in which network.
    fn place(&self, index: usize) -> anyhow::Result<(&Network, usize)> {
        let (network, first) = self.network.as_ref().context("members share one network")?;
        let member = self.members.get(index).context("no such member")?;
        Ok((network, first + member.number))
    }

    /// Asks a member to end, and waits until it has.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn stop_member(&mut self, index: usize) -> anyhow::Result<()> {
        self.signal(index, Signal::SIGTERM)?;
        let member = self.members.get_mut(index).context("no such member")?;
        ended(member, Instant::now() + PATIENCE).await
    }

    /// Ends all members in order: SIGTERM, then SIGKILL for one that does not end.
    ///
    /// # Errors
    /// One had to be killed.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        for index in 0..self.members.len() {
            self.signal(index, Signal::SIGTERM)?;
        }
        let deadline = Instant::now() + PATIENCE;
        for member in &mut self.members {
            ended(member, deadline).await?;
        }
        Ok(())
    }

    /// Starts all members that were stopped; returns the time until a linearizable read was answered.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<Duration> {
        let from = Instant::now();
        for index in 0..self.members.len() {
            self.start_member(index)?;
        }
        loop {
            for endpoint in self.endpoints() {
                if is_ready(&endpoint).await {
                    return Ok(from.elapsed());
                }
            }
            self.check_alive()?;
            ensure!(from.elapsed() < PATIENCE, "{} is not ready after {PATIENCE:?}", self.name());
            sleep(LOOK).await;
        }
    }

    /// Returns when every member answers a linearizable read and all know the same leader.
    ///
    /// # Errors
    /// Not in time, or one has ended; with the end of their logs.
    pub async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for endpoint in self.endpoints() {
            while !is_ready(&endpoint).await {
                self.check_alive()?;
                if Instant::now() > deadline {
                    bail!("{endpoint} is not ready after {PATIENCE:?}\n{}", self.log_tails());
                }
                sleep(LOOK).await;
            }
        }
        self.until_led().await.map(drop)
    }

    /// Which member leads, as soon as all agree: one that has not heard of it for a moment names nobody.
    ///
    /// # Errors
    /// Not in time; with the end of their logs.
    pub async fn until_led(&self) -> anyhow::Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(leader) = self.leader().await {
                return Ok(leader);
            }
            let logs = || self.log_tails();
            ensure!(Instant::now() < deadline, "no leader after {PATIENCE:?}\n{}", logs());
            sleep(LOOK).await;
        }
    }

    /// Which member leads, if all that are asked agree.
    pub async fn leader(&self) -> Option<usize> {
        let mut statuses = Vec::new();
        for endpoint in self.endpoints() {
            statuses.push(local(async move { status(&endpoint).await }).await.ok()?);
        }
        let leader = statuses.first()?.leader;
        let agreed = leader != 0 && statuses.iter().all(|status| status.leader == leader);
        let is_leader =
            |s: &StatusResponse| s.header.as_ref().is_some_and(|h| h.member_id == leader);
        agreed.then(|| statuses.iter().position(is_leader)).flatten()
    }

    /// The id of a member, as its own header says.
    pub(crate) async fn member_id(&self, index: usize) -> anyhow::Result<u64> {
        let endpoint = self.endpoints().get(index).context("no such member")?.clone();
        let status = local(async move { status(&endpoint).await }).await?;
        Ok(status.header.context("a status without a header")?.member_id)
    }

    fn check_alive(&mut self) -> anyhow::Result<()> {
        let mut ended: Option<(PathBuf, ExitStatus)> = None;
        for member in &mut self.members {
            if let Some(child) = &mut member.child
                && let Some(status) = child.try_wait().context("ask for a member")?
            {
                ended = Some((member.dir.clone(), status));
            }
        }
        if let Some((dir, status)) = ended {
            bail!("{} in {} ended ({status})\n{}", self.name(), dir.display(), self.log_tails());
        }
        Ok(())
    }

    fn log_tails(&self) -> String {
        self.members.iter().map(Member::log_tail).collect::<Vec<_>>().join("\n")
    }
}

/// Returns when a member has ended that was asked to.
async fn ended(member: &mut Member, deadline: Instant) -> anyhow::Result<()> {
    let Some(child) = &mut member.child else { return Ok(()) };
    while child.try_wait().context("wait for a member")?.is_none() {
        if Instant::now() > deadline {
            bail!("{} did not end within {PATIENCE:?}", member.dir.display());
        }
        sleep(LOOK).await;
    }
    member.child = None;
    Ok(())
}

/// Connections live on one thread: runs what needs one, wherever it is called from.
async fn local<T>(work: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(work).await
}

async fn status(endpoint: &str) -> Result<StatusResponse, CallError> {
    let ask = async {
        let connection = Connection::open(endpoint).await?;
        connection.unary(path::STATUS, &StatusRequest {}).await
    };
    timeout(ANSWER, ask).await.unwrap_or_else(|_| silent(endpoint))
}

/// The same endpoints, the leader's before the others: what goes to one member only goes to it.
pub(crate) async fn leader_first(endpoints: &[String]) -> Vec<String> {
    let mut ordered = endpoints.to_vec();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let asked = local(async { status(endpoint).await }).await;
        if asked.is_ok_and(|s| s.header.is_some_and(|h| h.member_id == s.leader)) {
            ordered.rotate_left(index);
            break;
        }
    }
    ordered
}

fn silent<T>(endpoint: &str) -> Result<T, CallError> {
    Err(CallError::Silent { endpoint: endpoint.to_owned() })
}

/// Whether a member answers a linearizable read.
async fn is_ready(endpoint: &str) -> bool {
    let ask = async {
        let connection = Connection::open(endpoint).await?;
        let any = RangeRequest { key: "trireme-ready".into(), ..RangeRequest::default() };
        connection.unary::<RangeResponse>(path::RANGE, &any).await
    };
    local(async { timeout(ANSWER, ask).await.unwrap_or_else(|_| silent(endpoint)).is_ok() }).await
}

/// The URLs of two ports that nobody listens on, nor is meant to; a random start keeps two clusters apart.
fn free_urls(taken: &[&String]) -> anyhow::Result<(String, String)> {
    let span = PORTS.end - PORTS.start;
    let start = rand::rng().random_range(0..span);
    let mut free = (0..span)
        .map(|i| PORTS.start + (start + i) % span)
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .map(|port| format!("http://127.0.0.1:{port}"))
        .filter(|url| !taken.contains(&url));
    free.next()
        .zip(free.next())
        .with_context(|| format!("no two free ports in {PORTS:?} on 127.0.0.1"))
}
