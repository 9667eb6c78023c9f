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
const PATIENCE: Duration = Duration::from_secs(5);

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
pub(crate) struct Network {
    holders: Vec<Holder>,
}

/// Moves this thread, and what it starts from now on, to a network of its own with nothing in it.
///
/// # Errors
/// Not root.
pub(crate) fn leave_host() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace (needs root)")?;
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    ip(&["addr", "add", "10.99.0.254/24", "dev", BRIDGE])?;
    ip(&["link", "set", BRIDGE, "up"])
}

impl Network {
    /// Makes networks for members, in a thread that has left the host's.
    pub(crate) async fn new(members: usize) -> anyhow::Result<Self> {
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
            ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
            ip(&["link", "set", &link, "master", BRIDGE, "up"])?;
            let address = format!("{}/24", network.address(index));
            network.inside(index, &["link", "set", "lo", "up"])?;
            network.inside(index, &["addr", "add", &address, "dev", "eth0"])?;
            network.inside(index, &["link", "set", "eth0", "up"])?;
        }
        Ok(network)
    }

    pub(crate) fn address(&self, index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, u8::try_from(index + 1).unwrap_or(u8::MAX))
    }

    /// A command that runs the program named next in a member's network.
    pub(crate) fn enter(&self, index: usize) -> anyhow::Result<Command> {
        let holder = self.holders.get(index).context("no such network")?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", holder.0.id()));
        Ok(command)
    }

    fn inside(&self, index: usize, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = self.enter(index)?;
        run(command.arg("ip").args(arguments), arguments)
    }

    /// Takes a member's link down or up: what is under way is lost without a word.
    pub(crate) async fn cut(&self, index: usize, cut: bool) -> anyhow::Result<()> {
        let (link, state) = (link(index), if cut { "down" } else { "up" });
        // Not waited for by blocking: this thread's clients go on.
        let done = tokio::process::Command::new("ip").args(["link", "set", &link, state]).status();
        let done = done.await.context("ip link set (package iproute2)")?;
        ensure!(done.success(), "ip link set {link} {state}: {done}");
        Ok(())
    }
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
