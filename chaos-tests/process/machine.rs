//! What a cluster leaves on this machine, looked for outside of it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Of one cluster.
pub(crate) struct Traces<'a> {
    /// Its data directory.
    pub(crate) dir: &'a Path,
    /// The beginning of its veths' names.
    pub(crate) veth_prefix: &'a str,
    /// Of its Pods.
    pub(crate) uids: &'a BTreeSet<String>,
}

impl Traces<'_> {
    /// Everything that is still there, a line each.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut left: Vec<String> =
            self.uids.iter().flat_map(|uid| of_pod(uid)).chain(self.veths()).collect();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let dir = self.dir.to_string_lossy();
        let of_dir = |line: &&str| line.contains(dir.as_ref());
        left.extend(mounts.lines().filter(of_dir).map(|line| format!("mount {line}")));
        for (pid, path) in processes() {
            if fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(self.dir)) {
                left.push(format!("process {pid} in {dir}"));
            }
        }
        left
    }

    /// Of the Pods that have an address now.
    pub(crate) fn veths(&self) -> Vec<String> {
        let names = entries("/sys/class/net".as_ref()).into_iter().filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            name.starts_with(self.veth_prefix).then(|| format!("veth {name}"))
        });
        names.collect()
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn processes() -> Vec<(u32, PathBuf)> {
    let pid = |path: PathBuf| Some((path.file_name()?.to_str()?.parse().ok()?, path));
    entries("/proc".as_ref()).into_iter().filter_map(pid).collect()
}

/// Puts this test's processes, and its Pods, before whatever else the machine does: what is measured
/// are our own times. Best effort.
pub(crate) fn hurry(dir: &Path) {
    let _ = fs::write("/proc/self/autogroup", "-15");
    // The same weight, for what has left this group: containers by their cgroup, shims by their
    // session.
    let pods = Path::new("/sys/fs/cgroup/cpu/trireme");
    if pods.parent().is_some_and(Path::exists) {
        let _ = fs::create_dir_all(pods);
        let _ = fs::write(pods.join("cpu.shares"), "29154");
    }
    for (_, path) in processes() {
        if fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir)) {
            let _ = fs::write(path.join("autogroup"), "-15");
        }
    }
}

/// Cgroups of a Pod, in every hierarchy: its own and those of its containers.
pub(crate) fn cgroups(uid: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let roots = ["memory", "cpu", "pids", ""].map(|controller| root.join(controller));
    let nodes = roots.iter().flat_map(|root| entries(&root.join("trireme")));
    let own = nodes.map(|node| node.join(uid)).filter(|dir| dir.is_dir());
    own.flat_map(|dir| {
        let inner = entries(&dir).into_iter().filter(|path| path.is_dir());
        inner.chain([dir]).collect::<Vec<_>>()
    })
    .collect()
}

/// Processes of a Pod's containers, as the machine numbers them.
pub(crate) fn processes_of(uid: &str) -> BTreeSet<u32> {
    let lists = cgroups(uid).into_iter().map(|dir| dir.join("cgroup.procs"));
    lists
        .filter_map(|list| fs::read_to_string(list).ok())
        .flat_map(|text| text.lines().filter_map(|l| l.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// Whether it runs: one that has ended and is not reaped yet does not.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Cgroups and processes of a Pod.
pub(crate) fn of_pod(uid: &str) -> Vec<String> {
    let cgroups = cgroups(uid).into_iter().map(|dir| format!("cgroup {}", dir.display()));
    let processes = processes().into_iter().filter_map(|(pid, path)| {
        let belongs = fs::read_to_string(path.join("cgroup")).is_ok_and(|text| text.contains(uid));
        (belongs && runs(pid)).then(|| format!("process {pid} of Pod {uid}"))
    });
    cgroups.chain(processes).collect()
}
