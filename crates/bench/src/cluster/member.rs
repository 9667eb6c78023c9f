//! One member: what it is called, where it listens, and its process.

use super::System;
use anyhow::{Context as _, ensure};
use std::{
    fs::{self, OpenOptions},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Lines of a log that a report shows.
const LOG_LINES: usize = 8;

/// Dropping it kills the process and waits for its end.
#[derive(Debug)]
pub(super) struct Member {
    /// Counts from 0 in its cluster.
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) dir: PathBuf,
    pub(super) client_url: String,
    pub(super) peer_url: String,
    /// What starts it, without the part that enters its network.
    pub(super) arguments: Vec<String>,
    pub(super) child: Option<Child>,
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // One that has ended already is only reaped.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Member {
    /// One that does not run, with a directory of its own below `below`.
    pub(super) fn new(
        number: usize,
        below: &Path,
        client_url: String,
        peer_url: String,
    ) -> anyhow::Result<Self> {
        let name = format!("member-{}", number + 1);
        let dir = below.join(&name);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let arguments = Vec::new();
        Ok(Self { number, name, dir, client_url, peer_url, arguments, child: None })
    }

    /// What starts it as one of `all`, of a cluster that is `new` or `existing`.
    pub(super) fn flags(&self, system: &System, all: &str, state: &str) -> Vec<String> {
        let data = self.dir.join("data").display().to_string();
        let flags = [
            ("--name", self.name.as_str()),
            ("--data-dir", &data),
            ("--listen-client-urls", &self.client_url),
            ("--advertise-client-urls", &self.client_url),
            ("--listen-peer-urls", &self.peer_url),
            ("--initial-advertise-peer-urls", &self.peer_url),
            ("--initial-cluster", all),
            ("--initial-cluster-token", "trireme-bench"),
            ("--initial-cluster-state", state),
        ];
        let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]);
        system.arguments.iter().cloned().chain(flags).collect()
    }

    /// Starts it through `setpriv`, which `command` runs.
    pub(super) fn start(&mut self, mut command: Command, system: &System) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "{} runs", self.dir.display());
        let log = self.dir.join("log");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("open {}", log.display()))?;
        let child = command
            .args(["--pdeathsig", "KILL"])
            .arg(&system.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // A Ctrl-C at the terminal reaches only this process, which ends them.
            .process_group(0)
            .spawn()
            .context("start setpriv (package util-linux)")?;
        self.child = Some(child);
        Ok(())
    }

    /// The end of what it has said.
    pub(super) fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
        format!("{}:\n{}", self.dir.display(), last.join("\n"))
    }
}
