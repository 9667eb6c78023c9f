//! The Python client: its verbs, and its informer as one of the copies.
//!
//! It is installed from PyPI into the test's own directory. Where that cannot be, the test says so and is skipped,
//! unless `TRIREME_PYTHON` says that it must run.

use super::{balancer::Balancer, churn, copies::Copy};
use crate::cluster::{Cluster, SOON, with_cluster_in};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    rc::Rc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const VERSION: &str = "37.0.2";
const VERBS: &str = include_str!("python/verbs.py");
const INFORMER: &str = include_str!("python/informer.py");
/// For a download of some megabytes.
pub(super) const INSTALL: Duration = Duration::from_secs(300);
/// For all verbs, with the leases that have to end between two leaders.
const WHOLE: Duration = Duration::from_secs(900);
/// Two real Pods, and what runs in them.
const NODES: u32 = 1;

/// An interpreter with the library.
pub(super) struct Python {
    dir: PathBuf,
}

impl Python {
    /// # Errors
    /// Why there is none, where none has to be.
    pub(super) async fn with(cluster: &Cluster) -> Result<Self, String> {
        let dir = cluster.record_dir("python");
        let installed = Self::install(&dir).await.map_err(|failed| {
            format!("no Python client (on Debian: apt-get install python3-venv): {failed}")
        });
        let must = super::setting("TRIREME_PYTHON", 0) != 0;
        assert!(installed.is_ok() || !must, "{installed:?}");
        installed.map(|()| Self { dir })
    }

    async fn install(dir: &Path) -> Result<(), String> {
        let run = async |program: &Path, arguments: &[&str]| {
            let mut command = Command::new(program);
            let output = command.args(arguments).current_dir(dir).kill_on_drop(true).output();
            let output =
                timeout(INSTALL, output).await.map_err(|_| "it takes too long".to_owned())?;
            let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
            let text =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            if output.status.success() { Ok(()) } else { Err(format!("{arguments:?}: {text}")) }
        };
        run("python3".as_ref(), &["-m", "venv", "library"]).await?;
        let package = format!("kubernetes=={VERSION}");
        // Thousands of files, of which few are used.
        let install =
            ["install", "--quiet", "--no-compile", "--disable-pip-version-check", &package];
        run(&dir.join("library/bin/pip"), &install).await?;
        let warm = "import kubernetes.client, kubernetes.informer.informer";
        run(&dir.join("library/bin/python"), &["-c", warm]).await?;
        for (name, text) in [("verbs.py", VERBS), ("informer.py", INFORMER)] {
            std::fs::write(dir.join(name), text).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn start(&self, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
        let mut child = Command::new(self.dir.join("library/bin/python"))
            .args(arguments)
            .current_dir(&self.dir)
            .env("HOME", &self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    }

    /// Its informer as a copy, until `over`.
    pub(super) async fn follow(&self, copy: Rc<Copy>, kubeconfig: &Path, over: &CancellationToken) {
        let plural = copy.path.rsplit('/').next().unwrap();
        let kubeconfig = kubeconfig.to_str().unwrap();
        let (mut child, mut lines) =
            self.start(&["informer.py", kubeconfig, churn::NAMESPACE, plural]);
        let mut lists = false;
        loop {
            let line = tokio::select! {
                line = lines.next_line() => line.unwrap().expect("it goes on"),
                () = over.cancelled() => break,
            };
            let said: Value = serde_json::from_str(&line).unwrap();
            let mut ledger = copy.ledger.borrow_mut();
            let number = |key: &str| said[key].as_u64().unwrap();
            let (list, told) = (said["list"].as_str(), said["told"].as_str());
            match (list, told) {
                (Some("begins"), _) => {
                    ledger.list();
                    lists = true;
                }
                (Some(_), _) => {
                    ledger.end_of_list(number("revision"));
                    lists = false;
                }
                // Whatever a list does not show is gone.
                (None, Some("DELETED")) if lists => {}
                (None, told) => {
                    let name = said["name"].as_str().unwrap();
                    let (number, revision) = (number("number"), number("revision"));
                    if lists {
                        ledger.listed(name, number, revision);
                    } else {
                        ledger.told(told.unwrap(), name, number, revision);
                    }
                }
            }
        }
        drop(child.stdin.take());
        let ended = timeout(SOON, child.wait()).await;
        assert!(ended.is_ok(), "the informer does not end");
    }
}

#[test]
fn the_python_client_does_what_it_does_elsewhere() {
    // CC-1, CC-4, LST-2, PAT-1, PAT-3, SUB-5, WCH-1, WCH-3
    with_cluster_in(&std::env::temp_dir(), NODES, None, WHOLE, async |cluster| {
        let python = match Python::with(cluster).await {
            Ok(python) => python,
            Err(why) => {
                eprintln!("skipped: {why}");
                return;
            }
        };
        let balancer = Balancer::start(cluster).await;
        let kubeconfig = balancer.kubeconfig(cluster);
        let (mut child, mut lines) = python.start(&["verbs.py", kubeconfig.to_str().unwrap()]);
        let mut stdin = child.stdin.take().unwrap();
        let mut said = Vec::new();
        let mut killed = None;
        while let Some(line) = lines.next_line().await.unwrap() {
            if line != "@kill" {
                eprintln!("{line}");
                said.push(line);
                continue;
            }
            if let Some(killed) = killed.take() {
                cluster.start_replica(killed).await;
            }
            let id = balancer.newest();
            cluster.processes().await.kill_replica(id).await.unwrap();
            killed = Some(id);
            stdin.write_all(b"killed\n").await.unwrap();
        }
        if let Some(killed) = killed {
            cluster.start_replica(killed).await;
        }
        let status = timeout(SOON, child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{}", said.join("\n"));
        let done = said.iter().filter(|line| line.starts_with("ok ")).count();
        let tests = VERBS.matches("\ndef shows_").count();
        assert_eq!(done, tests, "{}", said.join("\n"));
    });
}
