//! The thread that writes, and how it finds its place again after a restart.

use super::{
    Done, Marks, Record, WalError,
    frame::{self, FRAME_HEADER, SEGMENT_HEADER, framed_len},
    index::{Index, Position},
    segments::{self, Maker},
};
use crate::disk::{Disk, DiskFile};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};
use store::SyncTimes;

/// Bytes that one write takes at most, unless a single record is larger.
const BATCH_BYTES: usize = 8 << 20;
/// Sync times remembered.
const SYNCS_REMEMBERED: usize = 1024;

/// Records to write, and who waits for them.
pub(super) struct Request {
    pub(super) records: Vec<Record>,
    pub(super) done: Option<Done>,
}

/// What the log did since it was opened.
#[derive(Debug, Default)]
pub struct Counters {
    syncs: AtomicU64,
    entries: AtomicU64,
    votes: AtomicU64,
    bytes: AtomicU64,
    sync_us: Mutex<VecDeque<u64>>,
    sync_counts: [AtomicU64; 15],
    sync_sum_us: AtomicU64,
}

impl Counters {
    /// `fdatasync` calls.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Entries written.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Votes written, each synced before it was given.
    #[must_use]
    pub fn votes(&self) -> u64 {
        self.votes.load(Ordering::Relaxed)
    }

    /// Bytes written.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Microseconds that 99 of 100 of the last syncs took at most; 0 before the first.
    #[must_use]
    pub fn sync_p99_us(&self) -> u64 {
        let mut times: Vec<u64> = lock(&self.sync_us).iter().copied().collect();
        times.sort_unstable();
        times.get((times.len() * 99 / 100).min(times.len().saturating_sub(1))).copied().unwrap_or(0)
    }

    /// How long the syncs took.
    #[must_use]
    pub fn sync_times(&self) -> SyncTimes {
        SyncTimes {
            counts: std::array::from_fn(|place| {
                self.sync_counts.get(place).map_or(0, |count| count.load(Ordering::Relaxed))
            }),
            sum_us: self.sync_sum_us.load(Ordering::Relaxed),
            bytes: self.bytes(),
        }
    }

    pub(super) fn vote(&self) {
        self.votes.fetch_add(1, Ordering::Relaxed);
    }

    fn synced(&self, bytes: usize, entries: usize, us: u64) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.entries.fetch_add(entries as u64, Ordering::Relaxed);
        self.sync_sum_us.fetch_add(us, Ordering::Relaxed);
        if let Some(count) = self.sync_counts.get(SyncTimes::place(us)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let mut times = lock(&self.sync_us);
        if times.len() == SYNCS_REMEMBERED {
            times.pop_front();
        }
        times.push_back(us);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const ENTRY: u8 = 1;
const VOTE: u8 = 2;
const COMMITTED: u8 = 3;
const TRUNCATE: u8 = 4;
const PURGE: u8 = 5;

fn encode(record: &Record, body: &mut Vec<u8>) {
    body.clear();
    let (kind, number, rest): (u8, Option<u64>, &[u8]) = match record {
        Record::Entry { index, body } => (ENTRY, Some(*index), body),
        Record::Vote(vote) => (VOTE, None, vote),
        Record::Committed(id) => (COMMITTED, None, id),
        // 0 is "nothing is left": an index of its own is stored one higher.
        Record::Truncate { last } => (TRUNCATE, Some(last.map_or(0, |l| l + 1)), &[]),
        Record::Purge { last, body } => (PURGE, Some(*last), body),
    };
    body.push(kind);
    body.extend(number.into_iter().flat_map(u64::to_le_bytes));
    body.extend_from_slice(rest);
}

fn decode(body: &[u8]) -> Option<Record> {
    let (kind, rest) = body.split_first()?;
    let numbered = || rest.split_first_chunk::<8>().map(|(n, rest)| (u64::from_le_bytes(*n), rest));
    let copy = Bytes::copy_from_slice;
    Some(match *kind {
        ENTRY => numbered().map(|(index, body)| Record::Entry { index, body: copy(body) })?,
        VOTE => Record::Vote(copy(rest)),
        COMMITTED => Record::Committed(copy(rest)),
        TRUNCATE => numbered().map(|(last, _)| Record::Truncate { last: last.checked_sub(1) })?,
        PURGE => numbered().map(|(last, body)| Record::Purge { last, body: copy(body) })?,
        _ => return None,
    })
}

/// Where the writer stands.
pub(super) struct Place {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    maker: Maker,
    segment: u64,
    file: Arc<dyn DiskFile>,
    offset: usize,
    /// Highest index in each segment that is there.
    highest: BTreeMap<u64, u64>,
}

/// Reads the log.
pub(super) fn recover(
    disk: Arc<dyn Disk>,
    dir: &Path,
    segment_bytes: u64,
) -> Result<(Index, Place), WalError> {
    let io = |step: String| move |source| WalError::Io { step, source };
    let found = segments::existing(&*disk, dir)?;
    let mut index = Index::default();
    let mut highest = BTreeMap::new();
    let mut contents = Vec::new();
    for (id, path) in &found {
        let step = format!("read {}", path.display());
        let file = disk.open(path).map_err(io(step.clone()))?;
        let len = usize::try_from(file.size().map_err(io(step.clone()))?).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        file.read_at(&mut bytes, 0).map_err(io(step))?;
        contents.push((*id, path, Arc::<dyn DiskFile>::from(file), bytes));
    }
    // Segments are made ahead: the last one that holds anything is where the log ends.
    let used = contents
        .iter()
        .rposition(|(_, _, _, bytes)| bytes.iter().skip(SEGMENT_HEADER).any(|b| *b != 0))
        .unwrap_or(0);
    let mut current = None;
    for (at, (id, path, file, bytes)) in contents.iter().enumerate() {
        if at > used {
            disk.remove(path).map_err(io(format!("remove {}", path.display())))?;
            continue;
        }
        let scan = frame::scan(*id, path, bytes, at == used)?;
        highest.insert(*id, 0);
        for frame in &scan.frames {
            let record = decode(frame.body).ok_or_else(|| WalError::Corrupt {
                path: (*path).clone(),
                offset: frame.offset as u64,
                detail: "a record of a kind that this version does not know".to_owned(),
            })?;
            if let Record::Entry { index, .. } = &record {
                highest.insert(*id, *index);
            }
            replay(&mut index, record, file, frame);
        }
        if scan.torn {
            let zeros = vec![0; bytes.len() - scan.end];
            let step = format!("cut the torn end of {}", path.display());
            file.write_at(&zeros, scan.end as u64).map_err(io(step.clone()))?;
            file.sync_data().map_err(io(step))?;
            tracing::warn!(path = %path.display(), offset = scan.end, "cut a torn end");
        }
        current = Some((*id, Arc::clone(file), scan.end));
    }
    let next = current.as_ref().map_or(1, |(id, _, _)| id + 1);
    let maker = Maker::start(Arc::clone(&disk), dir.to_owned(), next, segment_bytes)
        .map_err(io("start the thread that makes segments".to_owned()))?;
    let (segment, file, offset) = match current {
        Some(current) => current,
        None => {
            let (id, file) =
                maker.take().map_err(io(format!("make a log in {}", dir.display())))?;
            (id, Arc::from(file), SEGMENT_HEADER)
        }
    };
    let dir = dir.to_owned();
    Ok((index, Place { disk, dir, segment_bytes, maker, segment, file, offset, highest }))
}

fn replay(index: &mut Index, record: Record, file: &Arc<dyn DiskFile>, frame: &frame::Frame<'_>) {
    match record {
        Record::Entry { index: at, body } => {
            // Entries behind a purge that skipped ahead (a snapshot was installed) start anew.
            if index.bounds().is_some_and(|(_, last)| at != last + 1) {
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
    }
}

/// An entry's own bytes behind the frame's header, the kind and the index.
fn position(file: &Arc<dyn DiskFile>, frame_offset: usize, body: &Bytes) -> Position {
    Position {
        file: Arc::clone(file),
        offset: (frame_offset + FRAME_HEADER + 9) as u64,
        len: body.len(),
        crc: crc32fast::hash(body),
    }
}

pub(super) struct Writer {
    place: Place,
    index: Arc<Mutex<Index>>,
    counters: Arc<Counters>,
    buffer: Vec<u8>,
    body: Vec<u8>,
    /// Entries in the buffer and where their frames begin.
    pending: Vec<(u64, Position)>,
    /// As of the last record staged: what a new segment begins with.
    marks: Marks,
}

impl Writer {
    pub(super) fn new(place: Place, index: Arc<Mutex<Index>>, counters: Arc<Counters>) -> Self {
        let marks = lock(&index).marks.clone();
        let (buffer, body, pending) = (Vec::new(), Vec::new(), Vec::new());
        Self { place, index, counters, buffer, body, pending, marks }
    }

    /// Until the queue is closed and empty.
    pub(super) fn run(mut self, requests: &mpsc::Receiver<Request>) -> Result<(), WalError> {
        while let Ok(first) = requests.recv() {
            let mut waiting = Vec::new();
            let mut purged = None;
            let mut result = Ok(());
            let mut next = Some(first);
            while let Some(request) = next.take() {
                for record in &request.records {
                    if let Record::Purge { last, .. } = record {
                        purged = Some(*last);
                    }
                    result = result.and_then(|()| self.stage(record));
                }
                waiting.extend(request.done);
                if self.buffer.len() < BATCH_BYTES {
                    next = requests.try_recv().ok();
                }
            }
            result = result.and_then(|()| self.flush());
            if result.is_err() {
                // Before anybody is told, so that whoever is told finds it so.
                lock(&self.index).failed = true;
            }
            let told = |r: &Result<(), WalError>| match r {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::other(error.to_string())),
            };
            for done in waiting {
                done(told(&result));
            }
            result?;
            if let Some(last) = purged {
                self.remove_segments(last)?;
            }
        }
        Ok(())
    }

    fn stage(&mut self, record: &Record) -> Result<(), WalError> {
        let mut body = std::mem::take(&mut self.body);
        encode(record, &mut body);
        let end = self.place.offset + self.buffer.len() + framed_len(body.len());
        if end as u64 > self.place.segment_bytes {
            self.flush()?;
            self.rotate()?;
        }
        let offset = self.place.offset + self.buffer.len();
        match record {
            Record::Entry { index, body } => {
                self.pending.push((*index, position(&self.place.file, offset, body)));
                self.place.highest.insert(self.place.segment, *index);
            }
            Record::Vote(vote) => self.marks.vote = Some(vote.clone()),
            Record::Committed(id) => self.marks.committed = Some(id.clone()),
            Record::Truncate { .. } => {}
            Record::Purge { last, body } => self.marks.purged = Some((*last, body.clone())),
        }
        self.push(&body);
        self.body = body;
        Ok(())
    }

    fn push(&mut self, body: &[u8]) {
        let batch = u32::try_from(self.place.offset).expect("a segment is smaller than 4 GiB");
        frame::push(&mut self.buffer, self.place.segment, batch, body);
    }

    fn flush(&mut self) -> Result<(), WalError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let step = || format!("write segment {} at {}", self.place.segment, self.place.offset);
        let io = |source| WalError::Io { step: step(), source };
        self.place.file.write_at(&self.buffer, self.place.offset as u64).map_err(io)?;
        #[expect(clippy::disallowed_methods, reason = "measures the disk on its own thread")]
        let start = std::time::Instant::now();
        self.place.file.sync_data().map_err(io)?;
        let us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.synced(self.buffer.len(), self.pending.len(), us);
        self.place.offset += self.buffer.len();
        self.buffer.clear();
        let mut index = lock(&self.index);
        for (at, position) in self.pending.drain(..) {
            index.written(at, position);
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), WalError> {
        let io = |source| WalError::Io { step: "make the next segment".to_owned(), source };
        let (id, file) = self.place.maker.take().map_err(io)?;
        self.place.segment = id;
        self.place.file = Arc::from(file);
        self.place.offset = SEGMENT_HEADER;
        // So that earlier segments can go when their entries do.
        self.place.highest.insert(id, 0);
        let marks = self.marks.clone();
        let records = [
            marks.vote.map(Record::Vote),
            marks.committed.map(Record::Committed),
            marks.purged.map(|(last, body)| Record::Purge { last, body }),
        ];
        let mut body = Vec::new();
        for record in records.into_iter().flatten() {
            encode(&record, &mut body);
            self.push(&body);
        }
        Ok(())
    }

    fn remove_segments(&mut self, last: u64) -> Result<(), WalError> {
        let io = |source| WalError::Io { step: "remove purged segments".to_owned(), source };
        let mut removed = false;
        while let Some((&id, &highest)) = self.place.highest.first_key_value() {
            if id == self.place.segment || highest > last {
                break;
            }
            self.place.disk.remove(&segments::path_of(&self.place.dir, id)).map_err(io)?;
            self.place.highest.remove(&id);
            removed = true;
        }
        if removed {
            self.place.disk.sync_dir(&self.place.dir).map_err(io)?;
        }
        Ok(())
    }
}
