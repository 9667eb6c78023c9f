//! Backups: a snapshot with a head and a checksum over everything, made to be kept elsewhere.
//!
//! A head of 512 bytes (`magic | version u32 | crc u32 | length u32 | body`, then zeros), the snapshot, zeros
//! to a multiple of 512, and the SHA-256 of all that. So what `etcdctl snapshot save` has written is the
//! same file: it only looks whether 32 bytes follow whole sectors.

use crate::{
    disk::{Disk as _, DiskFile, RealDisk},
    snapshot::{self, Pace},
    store::RaftStore,
    types::{LogId, SnapshotMeta, decode, encode},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    fmt, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use store::{Backup, Cluster as _, KeyRange, Revision, Store as _, StoreError, state::State};
use tokio::sync::mpsc;

const MAGIC: &[u8; 8] = b"TRIRMBAK";
const VERSION: u32 = 1;
const SECTOR: usize = 512;
/// Before the body of the head.
const FIXED: usize = 20;
const DIGEST: usize = 32;
/// Bytes of one piece at most.
const PIECE: usize = 512 << 10;
/// Pieces that may wait for being taken.
const AHEAD: usize = 4;
/// Bytes that are read at a time.
const READ: usize = 1 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Head {
    cluster: u64,
    revision: u64,
    keys: u64,
    snapshot_bytes: u64,
}

/// What is in a backup that was read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The cluster that it was taken of.
    pub cluster: u64,
    /// Of the last change in it.
    pub revision: Revision,
    /// Live ones.
    pub keys: u64,
    /// Of the file.
    pub bytes: u64,
    /// SHA-256 of all before it: the file's last 32 bytes.
    pub sha256: [u8; DIGEST],
    /// As `HashKV` answers at this revision.
    pub hash_kv: u32,
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cluster   {:016x}", self.cluster)?;
        writeln!(f, "revision  {}", self.revision.get())?;
        writeln!(f, "keys      {}", self.keys)?;
        writeln!(f, "bytes     {}", self.bytes)?;
        writeln!(f, "hash      {:08x}", self.hash_kv)?;
        write!(f, "sha256    ")?;
        self.sha256.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a file is not taken for a backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It cannot be read.
    #[error("read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// As the operating system says.
        source: io::Error,
    },
    /// It is cut, or not what was written.
    #[error("backup {} is not whole: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

fn sectors(bytes: u64) -> u64 {
    bytes.next_multiple_of(SECTOR as u64)
}

fn file_bytes(snapshot_bytes: u64) -> u64 {
    SECTOR as u64 + sectors(snapshot_bytes) + DIGEST as u64
}

impl Head {
    fn encode(&self) -> Vec<u8> {
        let body = encode(self);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or_default().to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes.resize(SECTOR, 0);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or("it is cut")?;
        if magic != MAGIC {
            return Err("it does not begin as a backup".to_owned());
        }
        let word = |at: usize| {
            let word = rest.get(at..).and_then(|rest| rest.first_chunk::<4>());
            word.map(|word| u32::from_le_bytes(*word)).ok_or("it is cut")
        };
        if word(0)? != VERSION {
            return Err(format!("version {} is not known here", word(0)?));
        }
        let len = usize::try_from(word(8)?).unwrap_or(usize::MAX);
        let body =
            bytes.get(FIXED..).and_then(|rest| rest.get(..len)).ok_or("its head is damaged")?;
        if crc32fast::hash(body) != word(4)? {
            return Err("its head is damaged".to_owned());
        }
        decode(body).map_err(|error| format!("its head is damaged: {error}"))
    }
}

/// The snapshot inside of a backup.
struct Inside {
    file: Arc<dyn DiskFile>,
    bytes: u64,
}

impl DiskFile for Inside {
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if offset + bytes.len() as u64 > self.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_at(bytes, offset + SECTOR as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }
}

/// Reads a backup to its last byte and holds it against its checksums; blocks.
///
/// # Errors
/// It is not whole.
pub fn verify_backup(path: &Path) -> Result<Contents, BackupError> {
    open(path).map(|(contents, ..)| contents)
}

/// As [`verify_backup`]; and what it holds.
pub(crate) fn open(path: &Path) -> Result<(Contents, SnapshotMeta, State), BackupError> {
    let io = |source| BackupError::Io { path: path.to_owned(), source };
    let damaged = |detail: String| BackupError::Damaged { path: path.to_owned(), detail };
    let file: Arc<dyn DiskFile> = std::fs::File::open(path).map(Arc::new).map_err(io)?;
    let size = file.size().map_err(io)?;
    if size < (SECTOR + DIGEST) as u64 {
        return Err(damaged("it is cut".to_owned()));
    }
    let mut head = vec![0; SECTOR];
    file.read_at(&mut head, 0).map_err(io)?;
    let head = Head::decode(&head).map_err(damaged)?;
    if size != file_bytes(head.snapshot_bytes) {
        let expected = file_bytes(head.snapshot_bytes);
        return Err(damaged(format!("it has {size} bytes, and should have {expected}")));
    }
    let sha256 = digest(&*file, size - DIGEST as u64).map_err(io)?;
    let mut expected = [0; DIGEST];
    file.read_at(&mut expected, size - DIGEST as u64).map_err(io)?;
    if sha256 != expected {
        return Err(damaged("its bytes are not those of its checksum".to_owned()));
    }
    let inside = Inside { file, bytes: head.snapshot_bytes };
    let (meta, state) = snapshot::read(path, &inside).map_err(|error| {
        if error.kind() == io::ErrorKind::InvalidData {
            damaged(error.to_string())
        } else {
            io(error)
        }
    })?;
    let view = state.view();
    let (hash_kv, _) = view.hash_kv(view.revision()).map_err(|error| damaged(error.to_string()))?;
    let contents = Contents {
        cluster: head.cluster,
        revision: view.revision(),
        keys: view.count(&all_keys()),
        bytes: size,
        sha256,
        hash_kv,
    };
    if (contents.revision.get(), contents.keys) != (head.revision, head.keys) {
        return Err(damaged("what is in it is not what its head says".to_owned()));
    }
    Ok((contents, meta, state))
}

fn all_keys() -> KeyRange {
    KeyRange::From(Bytes::new())
}

fn digest(file: &dyn DiskFile, bytes: u64) -> io::Result<[u8; DIGEST]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; READ];
    let mut offset = 0;
    while offset < bytes {
        let len = usize::try_from(bytes - offset).unwrap_or(READ).min(READ);
        let piece = buffer.get_mut(..len).unwrap_or_default();
        file.read_at(piece, offset)?;
        hash.update(&*piece);
        offset += len as u64;
    }
    Ok(hash.finalize().into())
}

/// Takes pieces of a backup and writes them where they are asked for, under another name until they are
/// all there; then reads all of it back, and only then gives the file its name. For who fetches one.
#[derive(Debug)]
pub struct BackupWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: std::fs::File,
    named: bool,
}

impl BackupWriter {
    /// Begins a file; blocks.
    ///
    /// # Errors
    /// There is one of that name, or it cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let temporary = path.with_file_name(name);
        // It holds every Secret.
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&temporary)?;
        Ok(Self { path: path.to_owned(), temporary, file, named: false })
    }

    /// Adds a piece; blocks.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self.file, piece)
    }

    /// Syncs, reads everything back from the file, and names it; blocks. Nothing is left of one that is
    /// not whole.
    ///
    /// # Errors
    /// It is not whole, or the disk refuses.
    pub fn finish(mut self) -> Result<Contents, BackupError> {
        let io = |source| BackupError::Io { path: self.path.clone(), source };
        self.file.sync_all().map_err(io)?;
        let contents = verify_backup(&self.temporary)?;
        // Not over one that came meanwhile.
        std::fs::hard_link(&self.temporary, &self.path).map_err(io)?;
        std::fs::remove_file(&self.temporary).map_err(io)?;
        self.named = true;
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
        RealDisk
            .sync_dir(dir.unwrap_or(Path::new(".")))
            .map_err(|source| BackupError::Io { path: self.path.clone(), source })?;
        Ok(contents)
    }
}

impl Drop for BackupWriter {
    fn drop(&mut self) {
        if !self.named {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

impl RaftStore {
    /// See `Cluster::backup`.
    pub(crate) async fn back_up(&self, deadline: Duration) -> Result<Backup, StoreError> {
        self.barrier(deadline).await?;
        // Where it begins to count from: a restored cluster is beyond it by far, so that it need not be
        // the very entry of the view.
        let index = *self.core.applied.borrow();
        let group = self.core.group.borrow().clone();
        let view = self.view();
        let term = self.local().term.max(view.epoch().0);
        let meta = SnapshotMeta {
            last_log_id: Some(LogId::new_term_index(term, index)),
            last_membership: group,
        };
        let revision = view.revision();
        let cluster = self.core.identity.cluster();
        let stopped = |error: &dyn fmt::Display| StoreError::Stopped { detail: error.to_string() };
        let counted = world::blocking(move || {
            let mut snapshot_bytes = 0;
            let mut pace = Pace::begin(Duration::ZERO);
            snapshot::stream(&meta, view.export(), |bytes| {
                snapshot_bytes += bytes.len() as u64;
                pace.wait(bytes);
                Ok(())
            })?;
            let keys = view.count(&all_keys());
            let head = Head { cluster, revision: revision.get(), keys, snapshot_bytes };
            Ok::<_, io::Error>((head, meta, view))
        });
        let (head, meta, view) =
            counted.await.map_err(|e| stopped(&e))?.map_err(|e| stopped(&e))?;
        let bytes = file_bytes(head.snapshot_bytes);
        let (sender, pieces) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
            let mut hash = Sha256::new();
            let mut pace = Pace::begin(Duration::ZERO);
            let mut send = |bytes: &[u8]| {
                pace.wait(bytes);
                hash.update(bytes);
                bytes.chunks(PIECE).try_for_each(|piece| {
                    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
                    sender.blocking_send(Ok(Bytes::copy_from_slice(piece))).map_err(gone)
                })
            };
            let padding = sectors(head.snapshot_bytes) - head.snapshot_bytes;
            let padding = vec![0; usize::try_from(padding).unwrap_or_default()];
            let sent = send(&head.encode())
                .and_then(|()| snapshot::stream(&meta, view.export(), &mut send))
                .and_then(|()| send(&padding));
            let last = match sent {
                Ok(()) => Ok(Bytes::copy_from_slice(&hash.finalize())),
                Err(error) => Err(error.to_string()),
            };
            let _ = sender.blocking_send(last);
        });
        Ok(Backup { revision, bytes, pieces })
    }
}
