//! How the log finds its place again after a restart.

use super::{
    Counters, Record, WalError,
    frame::{self, SEGMENT_HEADER},
    index::Index,
    record,
    segments::{self, Maker},
    writer::{Place, position},
};
use crate::disk::{Disk, DiskFile};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Bytes in which a segment is searched for something written, and zeroed behind a torn end.
const PIECE: usize = 1 << 20;

fn io(step: String) -> impl FnOnce(std::io::Error) -> WalError {
    move |source| WalError::Io { step, source }
}

fn corrupt(path: &Path, offset: usize, detail: &str) -> WalError {
    WalError::Corrupt { path: path.to_owned(), offset: offset as u64, detail: detail.to_owned() }
}

/// Reads the log, one segment at a time.
pub(super) fn recover(
    disk: Arc<dyn Disk>,
    dir: &Path,
    segment_bytes: u64,
    counters: &Arc<Counters>,
) -> Result<(Index, Place), WalError> {
    let mut found = segments::existing(&*disk, dir)?;
    // A process that was killed may have named a segment and not lived to sync the name.
    disk.sync_dir(dir).map_err(io(format!("sync {}", dir.display())))?;
    // Segments are made ahead: the last one that holds anything is where the log ends.
    while let [.., (_, path)] = found.as_slice()
        && found.len() > 1
        && is_unused(&*disk, path)?
    {
        disk.remove(path).map_err(io(format!("remove {}", path.display())))?;
        found.pop();
    }
    let mut log = Log::default();
    let count = found.len();
    for (at, (id, path)) in found.into_iter().enumerate() {
        log.read(&*disk, id, path, at + 1 == count)?;
    }
    log.check(dir)?;
    counters.found(log.bytes);
    let (segment, file, offset) = match log.current {
        Some(current) => current,
        None => {
            let file = segments::make(&*disk, dir, 1, segment_bytes)
                .map_err(io(format!("make a log in {}", dir.display())))?;
            (1, Arc::from(file), SEGMENT_HEADER)
        }
    };
    let (disk_, counters_) = (Arc::clone(&disk), Arc::clone(counters));
    let maker = Maker::start(disk_, dir.to_owned(), segment + 1, segment_bytes, counters_)
        .map_err(io("start the thread that makes segments".to_owned()))?;
    let highest = log.highest;
    let place = Place::new(disk, dir.to_owned(), segment_bytes, maker, segment, file, offset);
    Ok((log.index, place.with_highest(highest)))
}

/// Whether nothing was ever written into a segment.
fn is_unused(disk: &dyn Disk, path: &Path) -> Result<bool, WalError> {
    let step = || format!("read {}", path.display());
    let file = disk.open(path).map_err(io(step()))?;
    let size = file.size().map_err(io(step()))?;
    let mut piece = Vec::new();
    let mut offset = SEGMENT_HEADER as u64;
    while offset < size {
        let len = usize::try_from(size - offset).unwrap_or(PIECE).min(PIECE);
        piece.resize(len, 0);
        file.read_at(&mut piece, offset).map_err(io(step()))?;
        if piece.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        offset += len as u64;
    }
    Ok(true)
}

#[derive(Default)]
struct Log {
    index: Index,
    highest: BTreeMap<u64, u64>,
    /// Where the log ends.
    current: Option<(u64, Arc<dyn DiskFile>, usize)>,
    /// A segment that is not there, though a later one is.
    missing: Option<u64>,
    bytes: usize,
    buffer: Vec<u8>,
}

impl Log {
    fn read(
        &mut self,
        disk: &dyn Disk,
        id: u64,
        path: PathBuf,
        last: bool,
    ) -> Result<(), WalError> {
        let step = || format!("read {}", path.display());
        if self.current.as_ref().map_or(1, |(before, _, _)| before + 1) != id {
            self.begin_behind_a_gap(disk, id, &path)?;
        }
        let file: Arc<dyn DiskFile> = disk.open(&path).map_err(io(step()))?.into();
        let len = usize::try_from(file.size().map_err(io(step()))?).unwrap_or(usize::MAX);
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.resize(len, 0);
        file.read_at(&mut bytes, 0).map_err(io(step()))?;
        let scan = frame::scan(id, &path, &bytes, last)?;
        self.highest.insert(id, 0);
        for frame in &scan.frames {
            let record = record::decode(frame.body).ok_or_else(|| {
                corrupt(&path, frame.offset, "a record of a kind that this version does not know")
            })?;
            if let Record::Entry { index, .. } = &record {
                self.highest.insert(id, *index);
            }
            self.replay(record, &file, frame)
                .map_err(|detail| corrupt(&path, frame.offset, detail))?;
        }
        if scan.torn {
            cut(&*file, &bytes, scan.end)
                .map_err(io(format!("cut the torn end of {}", path.display())))?;
            tracing::warn!(path = %path.display(), offset = scan.end, "cut a torn end");
        }
        if last {
            // What a process wrote before it was killed is here, and may not be on the disk.
            file.sync_data().map_err(io(format!("sync {}", path.display())))?;
        }
        self.bytes += scan.end;
        self.current = Some((id, file, scan.end));
        self.buffer = bytes;
        Ok(())
    }

    /// Purged segments go in order, but a power cut may bring back one of them and not the next: what
    /// is before a gap was not needed any more. [`Log::check`] holds that against the last purge.
    fn begin_behind_a_gap(
        &mut self,
        disk: &dyn Disk,
        id: u64,
        path: &Path,
    ) -> Result<(), WalError> {
        self.missing = Some(id - 1);
        self.index = Index::default();
        self.current = None;
        let dir = path.parent().unwrap_or(Path::new(""));
        for before in std::mem::take(&mut self.highest).into_keys() {
            let path = segments::path_of(dir, before);
            disk.remove(&path).map_err(io(format!("remove {}", path.display())))?;
        }
        Ok(())
    }

    fn replay(
        &mut self,
        record: Record,
        file: &Arc<dyn DiskFile>,
        frame: &frame::Frame<'_>,
    ) -> Result<(), &'static str> {
        let index = &mut self.index;
        match record {
            Record::Entry { index: at, body } => {
                if let Some((_, last)) = index.bounds() {
                    if at > last.saturating_add(1) {
                        return Err("an entry does not follow the one before it");
                    }
                    index.truncate_after(at.checked_sub(1));
                }
                let position = position(file, frame.offset, &body);
                index.push(at, body);
                index.written(at, position);
            }
            Record::Vote(vote) => index.marks.vote = Some(vote),
            Record::Committed(id) => index.marks.committed = Some(id),
            Record::Truncate { last } => index.truncate_after(last),
            Record::Purge { last, body } => {
                index.purge(last);
                index.marks.purged = Some((last, body));
            }
            Record::Seal => {}
        }
        Ok(())
    }

    /// Nothing that is still needed may be missing.
    fn check(&self, dir: &Path) -> Result<(), WalError> {
        let Some(missing) = self.missing else { return Ok(()) };
        let purged = self.index.marks.purged.as_ref().map(|(last, _)| *last);
        let first = self.index.bounds().map(|(first, _)| first);
        match (purged, first) {
            (Some(purged), Some(first)) if first <= purged + 1 => Ok(()),
            (Some(_), None) => Ok(()),
            (Some(_) | None, _) => {
                Err(corrupt(&segments::path_of(dir, missing), 0, "the segment is missing"))
            }
        }
    }
}

/// Zeroes what lies behind `end`.
fn cut(file: &dyn DiskFile, bytes: &[u8], end: usize) -> std::io::Result<()> {
    let behind = bytes.get(end..).unwrap_or_default();
    let len = behind.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let zeros = vec![0; PIECE.min(len)];
    let mut at = 0;
    while at < len {
        let step = PIECE.min(len - at);
        file.write_at(zeros.get(..step).unwrap_or_default(), (end + at) as u64)?;
        at += step;
    }
    file.sync_data()
}
