//! Snapshot files: checksummed blocks, written aside, synced, then named.
//!
//! `magic | version u32`, then blocks of `len u32 | crc u32 | body`, and nothing behind the last. The
//! first block is the metadata, each other one a bincode sequence of records. A block's checksum is
//! seeded with its number and with the first block's, so that no block fits at another place or in
//! another snapshot.

use crate::{
    disk::{Disk, DiskFile},
    types::{SnapshotMeta, decode, encode},
};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};
use store::{
    Alarm, AlarmKind, Command, DeleteRange, KeyRange, LeaseId, Op, Origin, Put, RequestId,
    Timestamp, Txn, TxnOp,
    state::{Import, SnapshotRecord, State},
};
use tokio::time::Instant;

const MAGIC: &[u8; 8] = b"TRIRMSNP";
const VERSION: u32 = 4;
/// The oldest that is read: it has no times of revisions.
const VERSION_MIN: u32 = 3;
const HEAD: usize = 12;
const BLOCK_HEADER: usize = 8;
/// Records are gathered into blocks of about this size.
const BLOCK_BYTES: usize = 256 << 10;
/// A block that claims to be larger is damaged.
const BLOCK_BYTES_MAX: usize = 64 << 20;
/// Bytes of one write.
const WRITE_BYTES: usize = 1 << 20;
/// Of one write at least: syncs of the log wait behind what is written here.
const WRITE_TIME: Duration = Duration::from_millis(8);
/// Between two pieces at most.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// Blocks that may wait for being taken up.
const AHEAD: usize = 8;

/// Bytes of a snapshot that are not what was written.
#[derive(Debug, thiserror::Error)]
#[error("snapshot {} is corrupt at offset {offset}: {detail}", path.display())]
pub(crate) struct Corrupt {
    path: PathBuf,
    /// Of the damaged block.
    offset: u64,
    detail: String,
}

/// A whole snapshot on disk. It can be read as long as somebody holds it, even when it was superseded
/// and removed.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    pub(crate) path: Arc<PathBuf>,
    file: Arc<dyn DiskFile>,
    /// What a received one holds, read when it was verified.
    state: Arc<Mutex<Option<State>>>,
}

impl fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SnapshotFile {
    fn new(path: PathBuf, file: Arc<dyn DiskFile>) -> Self {
        Self { path: Arc::new(path), file, state: Arc::default() }
    }

    /// Up to `len` bytes from `offset`, fewer only at the end; blocks.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub(crate) fn piece(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.file.size()?.saturating_sub(offset)).unwrap_or(len);
        let mut bytes = vec![0; len.min(left)];
        self.file.read_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// # Errors
    /// The disk cannot be read.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        self.file.size()
    }
}

fn checksum(seed: u32, number: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&number.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

fn name(meta: &SnapshotMeta) -> String {
    let (term, index) =
        meta.last_log_id.as_ref().map_or((0, 0), |id| (id.committed_leader_id().term, id.index));
    format!("snapshot-{term:020}-{index:020}")
}

/// Puts blocks behind each other, whole pieces at a time.
struct Sink<F> {
    out: F,
    buffer: Vec<u8>,
    number: u64,
    seed: u32,
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Sink<F> {
    fn block(&mut self, body: &[u8]) -> io::Result<()> {
        let len = u32::try_from(body.len()).map_err(io::Error::other)?;
        let crc = checksum(self.seed, self.number, body);
        if self.number == 0 {
            self.seed = crc;
        }
        self.number += 1;
        self.buffer.extend_from_slice(&len.to_le_bytes());
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        self.buffer.extend_from_slice(body);
        if self.buffer.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        (self.out)(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Writes a snapshot; blocks. The state is a copy that stays as it is, whatever is applied meanwhile.
///
/// # Errors
/// The disk refuses; what was there before is untouched, and nothing unfinished is left.
pub(crate) fn write(
    disk: &dyn Disk,
    dir: &Path,
    meta: &SnapshotMeta,
    state: &State,
) -> io::Result<SnapshotFile> {
    let path = dir.join(name(meta));
    let temporary = path.with_extension("building");
    let written = write_to(disk, &temporary, meta, state);
    if written.is_err() {
        let _ = disk.remove(&temporary);
    }
    let file = written?;
    publish(disk, &temporary, &path, dir)?;
    Ok(SnapshotFile::new(path, file))
}

fn write_to(
    disk: &dyn Disk,
    path: &Path,
    meta: &SnapshotMeta,
    state: &State,
) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.create(path)?;
    let (mut offset, mut pace) = (0, Pace::begin(WRITE_TIME));
    stream(meta, state.export(), |bytes| {
        file.write_at(bytes, offset)?;
        file.write_back(offset, bytes.len());
        offset += bytes.len() as u64;
        pace.wait(bytes);
        Ok(())
    })?;
    file.sync_data()?;
    Ok(file.into())
}

/// The bytes of a snapshot file, piece after piece; blocks.
///
/// # Errors
/// Those of `out`.
pub(crate) fn stream(
    meta: &SnapshotMeta,
    records: impl Iterator<Item = SnapshotRecord>,
    out: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut sink = Sink { out, buffer: Vec::new(), number: 0, seed: 0 };
    sink.buffer.extend_from_slice(MAGIC);
    sink.buffer.extend_from_slice(&VERSION.to_le_bytes());
    sink.block(&encode(meta))?;
    let mut body = Block::default();
    for record in records {
        let end = matches!(record, SnapshotRecord::End { .. });
        body.push(&record)?;
        if end || body.bytes.len() >= BLOCK_BYTES {
            sink.block(&body.bytes)?;
            body = Block::default();
        }
    }
    sink.write()
}

/// A sequence as bincode has it: the number of records, then each of them.
struct Block {
    bytes: Vec<u8>,
    count: u64,
}

impl Default for Block {
    fn default() -> Self {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES + (BLOCK_BYTES >> 3));
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes, count: 0 }
    }
}

impl Block {
    fn push(&mut self, record: &SnapshotRecord) -> io::Result<()> {
        self.count += 1;
        bincode::serialize_into(&mut self.bytes, record).map_err(io::Error::other)?;
        if let Some(count) = self.bytes.first_chunk_mut() {
            *count = self.count.to_le_bytes();
        }
        Ok(())
    }
}

/// Leaves the core and the disk to others for three quarters of the time, while a state goes out piece after
/// piece: three members and their clients may share two cores.
pub(crate) struct Pace {
    piece: Duration,
    begun: Instant,
}

impl Pace {
    /// A piece takes at least so long.
    pub(crate) fn begin(piece: Duration) -> Self {
        Self { piece, begun: Instant::now() }
    }

    /// After each piece; blocks. The last one is shorter, and what is behind it can go on.
    #[expect(clippy::disallowed_methods, reason = "a thread of its own, and nothing to wait for")]
    pub(crate) fn wait(&mut self, piece: &[u8]) {
        if piece.len() >= WRITE_BYTES && !world::simulated() {
            let took = self.begun.elapsed();
            thread::sleep((took * 3).max(self.piece.saturating_sub(took)).min(PAUSE_MAX));
            self.begun = Instant::now();
        }
    }
}

fn publish(disk: &dyn Disk, temporary: &Path, path: &Path, dir: &Path) -> io::Result<()> {
    disk.rename(temporary, path)?;
    disk.sync_dir(dir)
}

/// Reads block after block, and says where one is damaged.
struct Source<'a> {
    path: &'a Path,
    file: &'a dyn DiskFile,
    size: u64,
    offset: u64,
    number: u64,
    seed: u32,
}

impl<'a> Source<'a> {
    fn open(path: &'a Path, file: &'a dyn DiskFile) -> io::Result<Self> {
        let size = file.size()?;
        let mut source = Self { path, file, size, offset: 0, number: 0, seed: 0 };
        let head = source.take(HEAD)?;
        if head.get(..8) != Some(MAGIC.as_slice()) {
            return Err(source.corrupt("not a snapshot"));
        }
        let version = head.get(8..).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        if !version.is_some_and(|version| (VERSION_MIN..=VERSION).contains(&version)) {
            return Err(source.corrupt("a snapshot of a version that this one does not know"));
        }
        source.offset = HEAD as u64;
        Ok(source)
    }

    fn corrupt(&self, detail: impl fmt::Display) -> io::Error {
        let (path, offset, detail) = (self.path.to_owned(), self.offset, detail.to_string());
        io::Error::new(io::ErrorKind::InvalidData, Corrupt { path, offset, detail })
    }

    /// Bytes behind the offset; never more than there are.
    fn take(&self, len: usize) -> io::Result<Vec<u8>> {
        if len as u64 > self.size.saturating_sub(self.offset) {
            return Err(self.corrupt("the file is cut"));
        }
        let mut bytes = vec![0; len];
        self.file.read_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }

    /// The next block, read by `decode`.
    fn block<T>(&mut self, decode: impl Fn(&[u8]) -> io::Result<T>) -> io::Result<T> {
        let header = self.take(BLOCK_HEADER)?;
        let (words, _) = header.as_chunks::<4>();
        let [len, crc] = words else { return Err(self.corrupt("a header is two words")) };
        let (len, crc) = (u32::from_le_bytes(*len) as usize, u32::from_le_bytes(*crc));
        if len > BLOCK_BYTES_MAX {
            return Err(self.corrupt("a block is damaged"));
        }
        let block = self.take(BLOCK_HEADER + len)?;
        let body = block.get(BLOCK_HEADER..).unwrap_or_default();
        if checksum(self.seed, self.number, body) != crc {
            return Err(self.corrupt("a block is damaged"));
        }
        let decoded = decode(body).map_err(|error| self.corrupt(error))?;
        if self.number == 0 {
            self.seed = crc;
        }
        self.number += 1;
        self.offset += block.len() as u64;
        Ok(decoded)
    }
}

/// Reads a snapshot back; blocks. Total: any bytes give a state or an error, and take no more memory
/// than a multiple of the file.
///
/// # Errors
/// [`Corrupt`] inside `InvalidData` when it is damaged or cut; or the disk cannot be read.
pub(crate) fn read(path: &Path, file: &dyn DiskFile) -> io::Result<(SnapshotMeta, State)> {
    let mut source = Source::open(path, file)?;
    let meta = source.block(decode::<SnapshotMeta>)?;
    let mut import = Import::default();
    // Checksums and decoding on another core than the building of the state.
    thread::scope(|scope| {
        let (sender, blocks) = mpsc::sync_channel(AHEAD);
        let ahead = scope.spawn(move || {
            while source.offset < source.size {
                let at = source.offset;
                let block = source.block(decode::<Vec<SnapshotRecord>>)?;
                if sender.send((at, block)).is_err() {
                    break;
                }
            }
            Ok::<_, io::Error>(source.offset)
        });
        for (offset, records) in &blocks {
            let taken = records.into_iter().try_for_each(|record| import.push(record));
            if let Err(error) = taken {
                let (path, detail) = (path.to_owned(), error.to_string());
                let error = Corrupt { path, offset, detail };
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        drop(blocks);
        let end = ahead.join().unwrap_or_else(|_| Err(io::Error::other("the reader panicked")))?;
        let state = import.finish().map_err(|error| {
            let (path, detail) = (path.to_owned(), error.to_string());
            io::Error::new(io::ErrorKind::InvalidData, Corrupt { path, offset: end, detail })
        })?;
        Ok((meta, state))
    })
}

/// Reads a received file as the snapshot that it was sent as; blocks.
///
/// # Errors
/// It is damaged, cut or another one: nothing is replaced by it, and it is removed.
pub(crate) fn verify(
    disk: &dyn Disk,
    path: PathBuf,
    meta: &SnapshotMeta,
) -> io::Result<SnapshotFile> {
    let verified = (|| {
        let file: Arc<dyn DiskFile> = disk.open(&path)?.into();
        let (found, state) = read(&path, &*file)?;
        if found != *meta {
            let text = format!("snapshot {} is not the one that was sent", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let snapshot = SnapshotFile::new(path.clone(), file);
        *snapshot.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        Ok(snapshot)
    })();
    if verified.is_err() {
        let _ = disk.remove(&path);
    }
    verified
}

/// A file of these blocks, whatever they are.
pub(crate) fn file_of<'a>(bodies: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    let mut seed = 0;
    for (number, body) in (0..).zip(bodies) {
        let crc = checksum(seed, number, body);
        if number == 0 {
            seed = crc;
        }
        bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(body);
    }
    bytes
}

/// The metadata and each record of a state that has something of everything.
pub(crate) fn sample_bodies() -> Vec<Vec<u8>> {
    let mut state = State::default();
    let put = |key: &'static str, lease| {
        TxnOp::Put(Put {
            key: key.into(),
            value: "value".into(),
            lease: LeaseId(lease),
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        })
    };
    let delete =
        TxnOp::DeleteRange(DeleteRange { range: KeyRange::One("b".into()), prev_kv: false });
    let txn = |steps| Op::Txn(Txn { compare: vec![], success: steps, failure: vec![] });
    let ops = [
        Op::LeaseGrant { id: LeaseId(7), ttl_seconds: 60 },
        txn(vec![put("a", 7), put("b", 0)]),
        txn(vec![put("a", 0), put("c", 7)]),
        txn(vec![delete]),
        Op::Alarm { alarm: Alarm { kind: AlarmKind::NoSpace, member: 1 }, active: true },
    ];
    for (sequence, op) in (1..).zip(ops) {
        let request = RequestId { client: 1, sequence };
        state.apply(&Command { at: Timestamp(1), request, origin: Origin::Client, op });
    }
    let records = state.export().map(|record| {
        let mut block = Block::default();
        block.push(&record).expect("memory takes any record");
        block.bytes
    });
    std::iter::once(encode(&SnapshotMeta::default())).chain(records.collect::<Vec<_>>()).collect()
}

/// Takes a verified file as the current snapshot; blocks.
///
/// # Errors
/// The disk refuses.
pub(crate) fn adopt(
    disk: &dyn Disk,
    dir: &Path,
    received: &SnapshotFile,
    meta: &SnapshotMeta,
) -> io::Result<(SnapshotFile, State)> {
    let state = received.state.lock().unwrap_or_else(PoisonError::into_inner).take();
    let state = match state {
        Some(state) => state,
        None => read(&received.path, &*received.file)?.1,
    };
    let path = dir.join(name(meta));
    if *received.path != path {
        received.file.sync_data()?;
        publish(disk, &received.path, &path, dir)?;
    }
    Ok((SnapshotFile::new(path, Arc::clone(&received.file)), state))
}

/// The newest snapshot that is whole; blocks. Unfinished files are removed. `needed` is the last index
/// that the log does not hold any more.
///
/// # Errors
/// What the log does not hold is in no whole snapshot: going on would lose it. Names the damaged file.
pub(crate) fn newest(
    disk: &dyn Disk,
    dir: &Path,
    needed: Option<u64>,
) -> io::Result<Option<(SnapshotMeta, State, SnapshotFile)>> {
    let found = complete(disk, dir)?;
    // A process that was killed may have named a snapshot and not lived to sync the name.
    disk.sync_dir(dir)?;
    let mut failed = None;
    for path in found.into_iter().rev() {
        let file: Arc<dyn DiskFile> = disk.open(&path)?.into();
        match read(&path, &*file) {
            Ok((meta, state)) => {
                let index = meta.last_log_id.as_ref().map(|id| id.index);
                if needed > index {
                    break;
                }
                return Ok(Some((meta, state, SnapshotFile::new(path, file))));
            }
            Err(error) => {
                tracing::error!(%error, "an older one may do");
                failed = failed.or(Some(error));
            }
        }
    }
    match (failed, needed) {
        (Some(error), _) => Err(error),
        (None, Some(needed)) => {
            let dir = dir.display();
            let text =
                format!("the log begins behind {needed}, and no snapshot in {dir} reaches it");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
        (None, None) => Ok(None),
    }
}

pub(crate) fn is_named(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("snapshot-") && path.extension().is_none()
}

fn complete(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in disk.list(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".building") || name.starts_with("received-") {
            disk.remove(&path)?;
        } else if is_named(&path) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Removes all but the newest `keep` snapshots; blocks.
///
/// # Errors
/// The disk refuses.
pub(crate) fn remove_old(disk: &dyn Disk, dir: &Path, keep: usize) -> io::Result<()> {
    let mut found: Vec<PathBuf> =
        disk.list(dir)?.into_iter().filter(|path| is_named(path)).collect();
    found.truncate(found.len().saturating_sub(keep));
    if found.is_empty() {
        return Ok(());
    }
    found.iter().try_for_each(|path| disk.remove(path))?;
    disk.sync_dir(dir)
}
