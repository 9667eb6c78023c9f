//! One process of the cluster: started, watched, ended, with its log in a file.

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// A child process. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `PROGRAM ROLE --config DIR/config.toml`, logging to `DIR/log`; this very program when
    /// there is none. `enter` is a command that runs the one named behind it.
    pub(super) fn spawn(
        enter: &[String],
        program: Option<&Path>,
        role: &str,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = dir.join("log");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("open {}", log.display()))?;
        let program = match program {
            Some(program) => program.to_owned(),
            None => std::env::current_exe().context("find this program")?,
        };
        let mut command = match enter.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&program);
                command
            }
            None => Command::new(&program),
        };
        let child = command
            .arg(role)
            .arg("--config")
            .arg(dir.join("config.toml"))
            // Its end of file tells the child that this process is gone, however it went.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(file)
            // A Ctrl-C at the terminal reaches only this process, which ends them in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {} {}", enter.join(" "), program.display()))?;
        Ok(Self { name, log, child })
    }

    /// While it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("ask for {}", self.name))
    }

    /// SIGKILL; returns when it is reaped. One that has ended already is left alone.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        self.child.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// SIGTERM. One that has ended already is left alone.
    pub(super) fn terminate(&self) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            // It may end between the question and the signal; its pid stays reserved until reaped.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    /// Waits for its end; kills it after `patience`.
    pub(super) async fn wait(mut self, patience: Duration) -> anyhow::Result<()> {
        match timeout(patience, self.child.wait()).await {
            Ok(status) => {
                let status = status.with_context(|| format!("wait for {}", self.name))?;
                if !status.success() {
                    tracing::warn!(process = self.name, %status, "ended");
                }
                Ok(())
            }
            Err(_) => {
                self.child.kill().await.with_context(|| format!("kill {}", self.name))?;
                bail!("{} did not end within {patience:?} and was killed", self.name)
            }
        }
    }

    /// The last lines of its log.
    pub(super) fn log_tail(&self) -> String {
        super::tail(&self.log, 15)
    }
}
