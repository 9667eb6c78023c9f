//! Whose disk this is: one process at a time, one member of one cluster for ever.
//!
//! A disk draws a number when it is made. The membership names the disk of each member that has
//! started, so that an emptied disk, which has forgotten what it voted for, is told from the old one.

use crate::{
    config::RaftConfig,
    disk::{DirLock, Disk, RealDisk},
    start::StartError,
    types::{Member, decode, encode},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

fn fail(step: String) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Io { step, source }
}

/// # Errors
/// [`StartError::InUse`].
pub(crate) fn lock(disk: &dyn Disk, dir: &Path) -> Result<DirLock, StartError> {
    disk.lock(dir).map_err(|error| {
        if error.kind() == io::ErrorKind::WouldBlock {
            StartError::InUse(dir.to_owned())
        } else {
            fail(format!("lock {}", dir.display()))(error)
        }
    })
}

/// What this disk may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// Empty, as far as the others know: neither votes nor acknowledges entries.
    Blank,
    /// One of the first start of all, when nobody could have known it.
    Founder,
    /// A quorum without its help has committed that it is the disk of its member.
    Named,
    /// Its member was removed: of no use any more.
    Removed,
    /// Written together with the first state of a cluster, which names it.
    Planted,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Record {
    /// 0 until a member that joins has learned it.
    cluster: u64,
    member: u64,
    disk: u64,
    standing: Standing,
    /// Where in the log a quorum has named this disk; 0 for a founder.
    named_at: u64,
}

/// Whose a data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Raft member id.
    pub member: u64,
    /// It has taken part in its cluster: what a configuration says of the first members does not
    /// matter any more.
    pub settled: bool,
}

/// Whose the data directory is; `None` for a new one.
///
/// # Errors
/// The identity cannot be read, or is damaged.
pub fn owner(data_dir: &Path) -> io::Result<Option<Owner>> {
    match fs::read(data_dir.join("identity")) {
        Ok(bytes) => {
            let Record { member, standing, .. } = parse(&bytes)?;
            Ok(Some(Owner { member, settled: standing != Standing::Blank }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The identity file and what it holds.
#[derive(Debug)]
pub(crate) struct Identity {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    record: Mutex<Record>,
}

impl Identity {
    /// Writes the identity of a new disk, or holds that of an old one against the configuration;
    /// blocks.
    ///
    /// # Errors
    /// [`StartError::Identity`] when the disk is another member's or another cluster's, when its
    /// member was removed, or when identity and log do not belong together.
    pub(crate) fn open(config: &RaftConfig, log_dir: &Path) -> Result<Self, StartError> {
        let dir = &config.data_dir;
        let path = dir.join("identity");
        let log = config.disk.disk.list(log_dir);
        let has_log = !log.map_err(fail(format!("list {}", log_dir.display())))?.is_empty();
        let refused = |why: String| {
            Err(StartError::Identity(format!("data directory {} {why}", dir.display())))
        };
        let cluster = if config.join { 0 } else { cluster_id(&config.token, &config.members) };
        let storage = &config.disk.disk;
        let record = match storage.read(&path) {
            Ok(bytes) => parse(&bytes).map_err(fail(format!("read {}", path.display())))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if has_log {
                    return refused(
                        "has a log but no identity: whose it is cannot be known".into(),
                    );
                }
                let disk = rand::random_range(1..=u64::MAX);
                Record { cluster, member: config.id, disk, standing: Standing::Blank, named_at: 0 }
            }
            Err(error) => return Err(fail(format!("read {}", path.display()))(error)),
        };
        if record.member != config.id {
            return refused(format!("belongs to member {}, not {}", record.member, config.id));
        }
        // The id of a cluster that began with a state was drawn.
        let told = !config.join && record.standing != Standing::Planted;
        if told && record.standing != Standing::Removed && record.cluster != cluster {
            return refused("belongs to another cluster: its first members were others".into());
        }
        match record.standing {
            Standing::Removed => {
                return refused(format!(
                    "is of no use any more: member {} was removed from the cluster; \
                     add a new member and start it with an empty directory",
                    config.id
                ));
            }
            Standing::Founder | Standing::Named | Standing::Planted if !has_log => {
                return refused(format!(
                    "has lost its log: member {} must not vote without it; \
                     remove the member and add a new one",
                    config.id
                ));
            }
            Standing::Blank | Standing::Founder | Standing::Named | Standing::Planted => {}
        }
        write(&**storage, dir, &record).map_err(fail(format!("write {}", path.display())))?;
        let disk = Arc::clone(storage);
        Ok(Self { disk, dir: dir.clone(), record: Mutex::new(record) })
    }

    fn record(&self) -> Record {
        *self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn cluster(&self) -> u64 {
        self.record().cluster
    }

    pub(crate) fn member(&self) -> u64 {
        self.record().member
    }

    pub(crate) fn disk(&self) -> u64 {
        self.record().disk
    }

    pub(crate) fn named_at(&self) -> u64 {
        self.record().named_at
    }

    pub(crate) fn standing(&self) -> Standing {
        self.record().standing
    }

    /// Founds the cluster with others; durable before it returns; blocks.
    ///
    /// # Errors
    /// The disk refuses.
    pub(crate) fn found(&self) -> io::Result<()> {
        self.set(Record { standing: Standing::Founder, ..self.record() })
    }

    /// Was named in the log of this cluster, at this index; as [`Identity::found`].
    ///
    /// # Errors
    /// The disk refuses.
    pub(crate) fn name(&self, cluster: u64, named_at: u64) -> io::Result<()> {
        self.set(Record { standing: Standing::Named, cluster, named_at, ..self.record() })
    }

    /// Its member was removed; as [`Identity::found`].
    ///
    /// # Errors
    /// The disk refuses.
    pub(crate) fn retire(&self) -> io::Result<()> {
        self.set(Record { standing: Standing::Removed, ..self.record() })
    }

    fn set(&self, record: Record) -> io::Result<()> {
        write(&*self.disk, &self.dir, &record)?;
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
        Ok(())
    }
}

fn write(disk: &dyn Disk, dir: &Path, record: &Record) -> io::Result<()> {
    let body = encode(record);
    let mut bytes = crc32fast::hash(&body).to_le_bytes().to_vec();
    bytes.extend_from_slice(&body);
    disk.replace(&dir.join("identity"), &bytes)
}

/// Makes a directory the one of a member that the first state of a cluster names, at `named_at` of its
/// log; durable before it returns; blocks.
///
/// # Errors
/// The disk refuses.
pub(crate) fn plant(
    dir: &Path,
    cluster: u64,
    member: u64,
    disk: u64,
    named_at: u64,
) -> io::Result<()> {
    let record = Record { cluster, member, disk, standing: Standing::Planted, named_at };
    write(&RealDisk, dir, &record)
}

/// Cluster, member and standing of a data directory; `None` if it is nobody's.
///
/// # Errors
/// The identity cannot be read, or is damaged.
pub(crate) fn look(data_dir: &Path) -> io::Result<Option<(u64, u64, Standing)>> {
    match fs::read(data_dir.join("identity")) {
        Ok(bytes) => parse(&bytes).map(|r| Some((r.cluster, r.member, r.standing))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(bytes: &[u8]) -> io::Result<Record> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the identity is damaged");
    let (crc, body) = bytes.split_first_chunk().ok_or_else(damaged)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(damaged());
    }
    decode(body)
}

fn number(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let first = digest.first_chunk().expect("a digest of 32 bytes");
    // Never 0, which means that it is not known.
    u64::from_be_bytes(*first).max(1)
}

/// The same at every first member without asking anybody: over the token, and the first members'
/// ids and peer URLs in any order.
#[must_use]
pub fn cluster_id(token: &str, members: &BTreeMap<u64, Member>) -> u64 {
    let members = members.iter().flat_map(|(id, member)| {
        let mut urls = member.peer_urls.clone();
        urls.sort();
        [id.to_be_bytes().to_vec(), urls.join("\n").into_bytes()]
    });
    number(std::iter::once(token.as_bytes().to_vec()).chain(members))
}

/// A member id for who has none in a configuration, as all members work it out alike: over the token
/// and its own peer URLs in any order.
#[must_use]
pub fn member_id(token: &str, peer_urls: &[String]) -> u64 {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    number(std::iter::once(token.to_owned()).chain(urls))
}
