//! Whose disk this is: one process at a time, one member for ever.

use crate::{config::RaftConfig, start::StartError};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

/// Held as long as the data directory is in use.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: Flock<File>,
}

fn fail(step: String) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Io { step, source }
}

/// # Errors
/// [`StartError::InUse`].
pub(crate) fn lock(dir: &Path) -> Result<DirLock, StartError> {
    let path = dir.join("LOCK");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(fail(format!("open {}", path.display())))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => Ok(DirLock { _file: file }),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(StartError::InUse(dir.to_owned())),
        Err((_, errno)) => {
            Err(StartError::Io { step: format!("lock {}", path.display()), source: errno.into() })
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    cluster: u64,
    member: u64,
}

/// Writes the identity of a new disk, or holds that of an old one against the configuration.
///
/// # Errors
/// [`StartError::Identity`] when the disk is another member's or another cluster's.
pub(crate) fn check(config: &RaftConfig) -> Result<u64, StartError> {
    let path = config.data_dir.join("identity");
    let cluster = cluster_id(config);
    let step = |verb: &str| format!("{verb} {}", path.display());
    match fs::read(&path) {
        Ok(bytes) => {
            let found: Identity = crate::types::decode(&bytes).map_err(fail(step("read")))?;
            if found.member != config.id {
                return Err(StartError::Identity(format!(
                    "data directory {} belongs to member {}, not {}",
                    config.data_dir.display(),
                    found.member,
                    config.id
                )));
            }
            if found.cluster != cluster {
                return Err(StartError::Identity(format!(
                    "data directory {} belongs to another cluster: its first members were others",
                    config.data_dir.display()
                )));
            }
            Ok(cluster)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let bytes = crate::types::encode(&Identity { cluster, member: config.id });
            let temporary = path.with_extension("new");
            let write = || {
                let mut file = File::create(&temporary)?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                fs::rename(&temporary, &path)?;
                File::open(&config.data_dir)?.sync_all()
            };
            write().map_err(fail(step("write")))?;
            Ok(cluster)
        }
        Err(error) => Err(fail(step("read"))(error)),
    }
}

/// The same on every member without asking anybody: a hash over the first members' ids and URLs.
fn cluster_id(config: &RaftConfig) -> u64 {
    let text: String = config
        .members
        .iter()
        .map(|(id, member)| format!("{id} {} {}\n", member.name, member.peer_url))
        .collect();
    let (low, high) = text.as_bytes().split_at(text.len() / 2);
    u64::from(crc32fast::hash(text.as_bytes())) << 32
        | u64::from(crc32fast::hash(low) ^ crc32fast::hash(high).rotate_left(7))
}
