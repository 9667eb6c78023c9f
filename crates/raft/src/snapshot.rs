//! Snapshot files: checksummed blocks, written aside, synced, then named.

use crate::types::{SnapshotMeta, decode, encode};
use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use store::state::{SnapshotRecord, State};

const MAGIC: &[u8; 8] = b"TRIRMSNP";
const VERSION: u32 = 3;
/// Records are gathered into blocks of about this size.
const BLOCK_BYTES: usize = 256 << 10;
/// A block that claims to be larger is damaged.
const BLOCK_BYTES_MAX: usize = 64 << 20;

/// A whole snapshot on disk. The file goes when nobody holds it any more and it was superseded.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFile {
    pub(crate) path: Arc<PathBuf>,
}

fn block(out: &mut impl Write, body: &[u8]) -> io::Result<()> {
    let len = u32::try_from(body.len()).map_err(io::Error::other)?;
    out.write_all(&len.to_le_bytes())?;
    out.write_all(&crc32fast::hash(body).to_le_bytes())?;
    out.write_all(body)
}

fn read_block(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut header = [0; 8];
    input.read_exact(&mut header)?;
    let (words, _) = header.as_chunks::<4>();
    let [len, crc] = words else { return Err(io::Error::other("a header is two words")) };
    let len = u32::from_le_bytes(*len) as usize;
    if len > BLOCK_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a block is damaged"));
    }
    let mut body = vec![0; len];
    input.read_exact(&mut body)?;
    if crc32fast::hash(&body) != u32::from_le_bytes(*crc) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a block is damaged"));
    }
    Ok(body)
}

fn name(meta: &SnapshotMeta) -> String {
    let (term, index) =
        meta.last_log_id.as_ref().map_or((0, 0), |id| (id.committed_leader_id().term, id.index));
    format!("snapshot-{term:020}-{index:020}")
}

/// Writes a snapshot; blocks. The state is a copy that stays as it is, whatever is applied meanwhile.
///
/// # Errors
/// The disk refuses; what was there before is untouched.
pub(crate) fn write(dir: &Path, meta: &SnapshotMeta, state: &State) -> io::Result<SnapshotFile> {
    let path = dir.join(name(meta));
    let temporary = path.with_extension("building");
    let mut out = BufWriter::new(File::create(&temporary)?);
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    block(&mut out, &encode(meta))?;
    let mut body = Vec::new();
    for record in state.export() {
        let end = matches!(record, SnapshotRecord::End { .. });
        bincode::serialize_into(&mut body, &record).map_err(io::Error::other)?;
        if end || body.len() >= BLOCK_BYTES {
            block(&mut out, &body)?;
            body.clear();
        }
    }
    let file = out.into_inner().map_err(|e| e.into_error())?;
    file.sync_all()?;
    publish(&temporary, &path, dir)?;
    Ok(SnapshotFile { path: Arc::new(path) })
}

fn publish(temporary: &Path, path: &Path, dir: &Path) -> io::Result<()> {
    fs::rename(temporary, path)?;
    File::open(dir)?.sync_all()
}

/// Reads a snapshot back; blocks.
///
/// # Errors
/// `InvalidData` when it is damaged or cut.
pub(crate) fn read(path: &Path) -> io::Result<(SnapshotMeta, State)> {
    let mut input = BufReader::with_capacity(1 << 20, File::open(path)?);
    let meta = read_meta(&mut input)?;
    let mut failed = None;
    let mut records = Vec::new().into_iter();
    let state = State::import(std::iter::from_fn(|| {
        loop {
            if let Some(record) = records.next() {
                return Some(record);
            }
            match read_block(&mut input).and_then(|block| decode_records(&block)) {
                Ok(more) => records = more.into_iter(),
                Err(error) => {
                    failed = Some(error);
                    return None;
                }
            }
        }
    }));
    match (state, failed) {
        (Ok(state), _) => Ok((meta, state)),
        (Err(_), Some(error)) => Err(error),
        (Err(error), None) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

fn read_meta(input: &mut impl Read) -> io::Result<SnapshotMeta> {
    let mut head = [0; 12];
    input.read_exact(&mut head)?;
    if head.get(..8) != Some(MAGIC.as_slice()) || head.get(8..) != Some(&VERSION.to_le_bytes()) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a snapshot of this version"));
    }
    decode(&read_block(input)?)
}

fn decode_records(block: &[u8]) -> io::Result<Vec<SnapshotRecord>> {
    let mut rest = block;
    let mut records = Vec::new();
    while !rest.is_empty() {
        let record = bincode::deserialize_from(&mut rest)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        records.push(record);
    }
    Ok(records)
}

/// Takes a received file as a snapshot; blocks.
///
/// # Errors
/// It is damaged, or the disk refuses.
pub(crate) fn adopt(dir: &Path, received: &Path, meta: &SnapshotMeta) -> io::Result<SnapshotFile> {
    File::open(received)?.sync_all()?;
    let path = dir.join(name(meta));
    publish(received, &path, dir)?;
    Ok(SnapshotFile { path: Arc::new(path) })
}

/// The newest snapshot that is whole; blocks. Unfinished files are removed.
///
/// # Errors
/// Snapshots are there and none is whole: going on without one would lose what they hold.
pub(crate) fn newest(dir: &Path) -> io::Result<Option<(SnapshotMeta, State, SnapshotFile)>> {
    let mut failed = None;
    for path in complete(dir)?.into_iter().rev() {
        match read(&path) {
            Ok((meta, state)) => {
                return Ok(Some((meta, state, SnapshotFile { path: Arc::new(path) })));
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "snapshot is damaged");
                failed = Some(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("snapshot {}: {error}", path.display()),
                ));
            }
        }
    }
    failed.map_or(Ok(None), Err)
}

fn complete(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".building") || name.starts_with("received-") {
            fs::remove_file(&path)?;
        } else if name.starts_with("snapshot-") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Removes all but the newest two snapshots; blocks. The one before the newest stays until the next.
///
/// # Errors
/// The disk refuses.
pub(crate) fn remove_old(dir: &Path) -> io::Result<()> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<io::Result<Vec<_>>>()?
        .into_iter()
        .filter(|path| {
            path.extension().is_none()
                && path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("snapshot-"))
        })
        .collect();
    found.sort();
    found.truncate(found.len().saturating_sub(2));
    found.iter().try_for_each(fs::remove_file)
}
