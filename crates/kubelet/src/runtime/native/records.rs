//! What is on disk of each Pod: enough to find everything again.

use super::cgroup::Cgroup;
use crate::runtime::{Container, Sandbox};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

/// A sandbox as its shim keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    pub(super) sandbox: Sandbox,
    pub(super) cgroup: Cgroup,
    /// Below `trireme/`; the containers' are below it.
    pub(super) cgroup_name: String,
    /// 0 until it runs.
    pub(super) shim_pid: i32,
}

/// # Errors
/// It is not there or cannot be read.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Those that can be read of a Pod's containers, in no order.
pub(super) fn containers(pod: &Path) -> impl Iterator<Item = Container> + use<> {
    let entries = fs::read_dir(pod.join("containers")).into_iter().flatten().flatten();
    entries.filter_map(|entry| read(&entry.path().join("record.json")).ok())
}

/// Replaces a record in one step; whole after a crash, too.
///
/// # Errors
/// The disk refuses.
pub(super) fn write<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    fs::rename(&temporary, path)
}
