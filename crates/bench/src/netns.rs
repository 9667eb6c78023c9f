//! A network for each member, joined by a bridge that only this thread sees, so that one can be cut off.
//!
//! Nothing has a name outside: namespaces, links and bridge go with the last process in them.

use anyhow::{Context as _, ensure};
use nix::sched::{CloneFlags, unshare};
use std::{
    fs,
    net::Ipv4Addr,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::time::{Instant, sleep};

const BRIDGE: &str = "bench0";
/// A station that is not there: administered locally, and nobody's.
const NOBODY: &str = "02:00:00:00:00:ff";
const PATIENCE: Duration = Duration::from_secs(5);

/// What a member's link does, in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// As it should.
    Sound,
    /// 50 ms there and back and one packet of a hundred lost: the worst that members within one room may have.
    Slow,
    /// 120 ms there and back, by turns more and less, and one packet of twenty lost: too little to follow.
    Poor,
}

impl Link {
    /// By netem, and the nearest to it without; `None` if there is nothing to do.
    fn disciplines(self) -> Option<[&'static [&'static str]; 2]> {
        match self {
            Self::Sound => None,
            Self::Slow => Some([
                &["netem", "delay", "25ms", "8ms", "loss", "1%"],
                &["tbf", "rate", "4mbit", "burst", "32kb", "latency", "100ms"],
            ]),
            Self::Poor => Some([
                &["netem", "delay", "60ms", "30ms", "loss", "5%"],
                &["tbf", "rate", "512kbit", "burst", "16kb", "latency", "400ms"],
            ]),
        }
    }
}

/// Holds a network namespace open while no member runs in it.
#[derive(Debug)]
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Networks of members, reached from the thread that made them.
#[derive(Debug)]
pub struct Network {
    holders: Vec<Holder>,
}

/// Moves this thread, and what it starts from now on, to a network of its own with nothing in it.
///
/// # Errors
/// Not root.
pub fn leave_host() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace (needs root)")?;
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    ip(&["addr", "add", "10.99.0.254/24", "dev", BRIDGE])?;
    ip(&["link", "set", BRIDGE, "up"])
}

impl Network {
    /// Makes networks for members, in a thread that has left the host's.
    ///
    /// # Errors
    /// Not root, or `ip`, `setpriv` or `unshare` is missing.
    pub async fn new(members: usize) -> anyhow::Result<Self> {
        let mut network = Self { holders: Vec::new() };
        for index in 0..members {
            let child = Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"])
                .stdin(Stdio::null())
                .process_group(0)
                .spawn()
                .context("start setpriv (package util-linux)")?;
            let pid = child.id();
            network.holders.push(Holder(child));
            let deadline = Instant::now() + PATIENCE;
            while fs::read_to_string(format!("/proc/{pid}/comm"))?.trim() != "sleep" {
                ensure!(Instant::now() < deadline, "no network namespace after {PATIENCE:?}");
                sleep(Duration::from_millis(1)).await;
            }
            let (link, pid) = (link(index), pid.to_string());
            // One of a network before this goes with the last process in it, which on a busy machine takes a while.
            let _ = ip(&["link", "del", &link]);
            ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
            ip(&["link", "set", &link, "master", BRIDGE, "up"])?;
            let address = format!("{}/24", network.address(index));
            network.inside(index, &["link", "set", "lo", "up"])?;
            network.inside(index, &["addr", "add", &address, "dev", "eth0"])?;
            network.inside(index, &["link", "set", "eth0", "up"])?;
        }
        Ok(network)
    }

    /// Of a member, as others reach it.
    #[must_use]
    pub fn address(&self, index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, u8::try_from(index + 1).unwrap_or(u8::MAX))
    }

    /// A command that runs the program named next in a member's network.
    ///
    /// # Errors
    /// There is no such member.
    pub fn enter(&self, index: usize) -> anyhow::Result<Vec<String>> {
        let holder = self.holders.get(index).context("no such network")?;
        Ok(vec!["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", holder.0.id())])
    }

    fn inside(&self, index: usize, arguments: &[&str]) -> anyhow::Result<()> {
        let enter = self.enter(index)?;
        let (program, rest) = enter.split_first().context("a command")?;
        run(Command::new(program).args(rest).arg("ip").args(arguments), arguments)
    }

    /// Takes a member's link down or up: what is under way is lost without a word.
    ///
    /// # Errors
    /// `ip` says no.
    pub async fn cut(&self, index: usize, cut: bool) -> anyhow::Result<()> {
        set_link(&link(index), if cut { "down" } else { "up" }).await
    }

    /// Loses without a word whatever one member sends another, in this direction alone, or ends that.
    ///
    /// The sender is told that its neighbour is a station that does not exist: frames go out and nobody takes
    /// them, which no firewall has to be installed for.
    ///
    /// # Errors
    /// `ip` says no.
    pub async fn silence(&self, from: usize, to: usize, silent: bool) -> anyhow::Result<()> {
        let to = self.address(to).to_string();
        let neighbour: &[&str] = if silent {
            &["neigh", "replace", &to, "lladdr", NOBODY, "nud", "permanent", "dev", "eth0"]
        } else {
            &["neigh", "del", &to, "dev", "eth0"]
        };
        let enter = self.enter(from)?;
        let (program, rest) = enter.split_first().context("a command")?;
        let mut command = tokio::process::Command::new(program);
        wait(command.args(rest).arg("ip").args(neighbour), &neighbour.join(" ")).await
    }

    /// Makes a member's link what is said, in both directions: by netem, or, where the kernel has none, by a rate that
    /// is too low for what it has to carry. One that is not sound must be made so first.
    ///
    /// # Errors
    /// `tc` says no.
    pub async fn set_quality(&self, index: usize, quality: Link) -> anyhow::Result<()> {
        for (enter, link) in [(Vec::new(), link(index)), (self.enter(index)?, "eth0".to_owned())] {
            let Some([netem, tbf]) = quality.disciplines() else {
                tc(&enter, &["qdisc", "del", "dev", &link, "root"]).await?;
                continue;
            };
            let add =
                |how: &'static [&str]| [&["qdisc", "add", "dev", &link, "root"][..], how].concat();
            if tc(&enter, &add(netem)).await.is_err() {
                tc(&enter, &add(tbf)).await?;
            }
        }
        Ok(())
    }
}

async fn tc(enter: &[String], arguments: &[&str]) -> anyhow::Result<()> {
    let words = enter.iter().map(String::as_str).chain(["tc"]).chain(arguments.iter().copied());
    let words: Vec<&str> = words.collect();
    let (program, rest) = words.split_first().context("a command")?;
    wait(tokio::process::Command::new(program).args(rest), &words.join(" ")).await
}

/// Takes a link of this thread's network down or up.
async fn set_link(link: &str, state: &str) -> anyhow::Result<()> {
    let words = ["link", "set", link, state];
    wait(tokio::process::Command::new("ip").args(words), &words.join(" ")).await
}

/// Not waited for by blocking: this thread's clients go on.
async fn wait(command: &mut tokio::process::Command, what: &str) -> anyhow::Result<()> {
    let output = command.output().await.with_context(|| format!("{what} (package iproute2)"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what}: {}", text.trim());
    Ok(())
}

fn link(index: usize) -> String {
    format!("member{index}")
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    run(Command::new("ip").args(arguments), arguments)
}

fn run(command: &mut Command, arguments: &[&str]) -> anyhow::Result<()> {
    let what = || format!("ip {}", arguments.join(" "));
    let output = command.output().with_context(|| format!("{} (package iproute2)", what()))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", what(), text.trim());
    Ok(())
}
