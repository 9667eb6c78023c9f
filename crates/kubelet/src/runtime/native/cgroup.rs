//! Limits and accounting: cgroup v1, v2, or both side by side.

use crate::runtime::Resources;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

const ROOT: &str = "/sys/fs/cgroup";
const V1: [&str; 3] = ["memory", "cpu", "pids"];

/// Directories of one cgroup, in whatever hierarchies this host lets us write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cgroup {
    /// By controller.
    v1: Vec<(String, PathBuf)>,
    v2: Option<PathBuf>,
}

impl Cgroup {
    /// Makes it, below `trireme/`, and sets its limits. What the host forbids is left out: it never
    /// fails a Pod.
    pub(super) fn create(name: &str, resources: &Resources) -> Self {
        let mut cgroup = Self::default();
        let unified = Path::new(ROOT).join("cgroup.controllers").exists();
        if unified {
            let parent = Path::new(ROOT).join("trireme");
            let dir = Path::new(ROOT).join("trireme").join(name);
            for at in [Path::new(ROOT), &parent] {
                let _ = fs::create_dir_all(at);
                let _ = fs::write(at.join("cgroup.subtree_control"), "+memory +cpu +pids");
            }
            if fs::create_dir_all(&dir).is_ok() {
                cgroup.v2 = Some(dir);
            }
        } else {
            for controller in V1 {
                let dir = Path::new(ROOT).join(controller).join("trireme").join(name);
                if Path::new(ROOT).join(controller).exists() && fs::create_dir_all(&dir).is_ok() {
                    cgroup.v1.push((controller.to_owned(), dir));
                }
            }
        }
        cgroup.limit(resources);
        cgroup
    }

    fn limit(&self, resources: &Resources) {
        let set = |dir: &Path, file: &str, value: String| {
            if let Err(error) = fs::write(dir.join(file), value) {
                tracing::debug!(%error, file, dir = %dir.display(), "limit not set");
            }
        };
        for (controller, dir) in &self.v1 {
            match controller.as_str() {
                "memory" => {
                    if let Some(bytes) = resources.memory_limit_bytes {
                        set(dir, "memory.limit_in_bytes", bytes.to_string());
                        set(dir, "memory.memsw.limit_in_bytes", bytes.to_string());
                    }
                }
                "cpu" => {
                    if let Some(millis) = resources.cpu_limit_millis {
                        set(dir, "cpu.cfs_quota_us", (millis * 100).max(1000).to_string());
                    }
                    if let Some(millis) = resources.cpu_request_millis {
                        set(dir, "cpu.shares", (millis * 1024 / 1000).max(2).to_string());
                    }
                }
                _ => {
                    if let Some(pids) = resources.pids_limit {
                        set(dir, "pids.max", pids.to_string());
                    }
                }
            }
        }
        if let Some(dir) = &self.v2 {
            if let Some(bytes) = resources.memory_limit_bytes {
                set(dir, "memory.max", bytes.to_string());
                set(dir, "memory.swap.max", "0".to_owned());
            }
            if let Some(millis) = resources.cpu_limit_millis {
                set(dir, "cpu.max", format!("{} 100000", (millis * 100).max(1000)));
            }
            if let Some(pids) = resources.pids_limit {
                set(dir, "pids.max", pids.to_string());
            }
        }
    }

    /// Puts the calling process, which has one thread, into it. v1 takes the thread, not the process:
    /// moving a process waits for every CPU, which costs more than all the rest of a start.
    pub(super) fn enter(&self) -> io::Result<()> {
        let join = |path: PathBuf| {
            fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(b"0"))
        };
        for (_, dir) in &self.v1 {
            join(dir.join("tasks"))?;
        }
        self.v2.as_ref().map_or(Ok(()), |dir| join(dir.join("cgroup.procs")))
    }

    fn dirs(&self) -> impl Iterator<Item = &PathBuf> {
        self.v1.iter().map(|(_, dir)| dir).chain(&self.v2)
    }

    /// Processes in it.
    pub(super) fn processes(&self) -> Vec<i32> {
        let mut found: Vec<i32> = self
            .dirs()
            .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok())
            .flat_map(|text| text.lines().filter_map(|l| l.parse().ok()).collect::<Vec<_>>())
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether a process is in it; true where the host let us make none.
    pub(super) fn may_hold(&self, pid: i32) -> bool {
        self.dirs().next().is_none() || self.processes().contains(&pid)
    }

    /// SIGKILL to all of it.
    pub(super) fn kill(&self) {
        if let Some(dir) = &self.v2
            && fs::write(dir.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for pid in self.processes() {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }

    /// Whether the OOM killer has struck in it.
    pub(super) fn oom_killed(&self) -> bool {
        let counted = |path: PathBuf| {
            fs::read_to_string(path).is_ok_and(|text| {
                text.lines()
                    .filter_map(|line| line.strip_prefix("oom_kill "))
                    .any(|count| count.trim() != "0")
            })
        };
        self.v1
            .iter()
            .filter(|(controller, _)| controller == "memory")
            .any(|(_, dir)| counted(dir.join("memory.oom_control")))
            || self.v2.as_ref().is_some_and(|dir| counted(dir.join("memory.events")))
    }

    /// Removes the empty directories, deepest first.
    pub(super) fn remove(&self) -> io::Result<()> {
        for dir in self.dirs() {
            match fs::remove_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Removes what is left of a node without Pods; another node's is never touched, because it is not
/// empty.
pub(super) fn remove_node(node: &str) {
    let roots = V1.iter().map(|controller| Path::new(ROOT).join(controller));
    for root in roots.chain([PathBuf::from(ROOT)]) {
        let all = root.join("trireme");
        let _ = fs::remove_dir(all.join(node));
        let _ = fs::remove_dir(all);
    }
}
