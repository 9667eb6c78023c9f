//! What writes: on a thread of its own, or in a simulation in a task.

use super::{
    Counters, Done, Marks, Record, WalError,
    frame::{self, FRAME_HEADER, SEGMENT_HEADER, framed_len},
    index::{Index, Position},
    record::encode,
    segments::{self, Maker},
};
use crate::disk::{Disk, DiskFile};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::AtomicBool,
        mpsc::{self, RecvTimeoutError, TryRecvError},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::timeout};

/// Bytes that one write takes at most, unless a single record is larger.
const BATCH_BYTES: usize = 8 << 20;
/// Without anything to write for so long, the end of the log is sealed.
const IDLE: Duration = Duration::from_millis(50);

/// Records to write, and who waits for them.
pub(super) struct Request {
    pub(super) records: Vec<Record>,
    pub(super) done: Option<Done>,
    /// By the clock of [`Counters`].
    pub(super) queued: u64,
}

/// What waits to be written.
pub(super) enum Requests {
    /// For a thread: waiting blocks it.
    OfThread(mpsc::Receiver<Request>),
    /// For a task, which is woken for each.
    OfTask(mpsc::Receiver<Request>, Arc<Notify>),
}

impl Requests {
    fn try_next(&mut self) -> Option<Request> {
        let (Self::OfThread(queue) | Self::OfTask(queue, _)) = self;
        queue.try_recv().ok()
    }

    /// `None` when the queue is closed and empty.
    async fn next(&mut self) -> Option<Request> {
        match self {
            Self::OfThread(queue) => queue.recv().ok(),
            Self::OfTask(queue, wake) => loop {
                match queue.try_recv() {
                    Ok(request) => return Some(request),
                    Err(TryRecvError::Disconnected) => return None,
                    Err(TryRecvError::Empty) => wake.notified().await,
                }
            },
        }
    }

    /// As [`Requests::next`]; `None` when nothing has come.
    async fn next_within(&mut self, time: Duration) -> Option<Option<Request>> {
        match self {
            Self::OfThread(queue) => match queue.recv_timeout(time) {
                Ok(request) => Some(Some(request)),
                Err(RecvTimeoutError::Disconnected) => Some(None),
                Err(RecvTimeoutError::Timeout) => None,
            },
            Self::OfTask(..) => timeout(time, self.next()).await.ok(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// What lies before it has been synced.
    synced: usize,
    /// Highest index in each segment that is there.
    highest: BTreeMap<u64, u64>,
}

impl Place {
    /// All that lies before `offset` has been synced.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        segment_bytes: u64,
        maker: Maker,
        segment: u64,
        file: Arc<dyn DiskFile>,
        offset: usize,
    ) -> Self {
        let highest = BTreeMap::from([(segment, 0)]);
        Self { disk, dir, segment_bytes, maker, segment, file, offset, synced: offset, highest }
    }

    pub(super) fn with_highest(mut self, highest: BTreeMap<u64, u64>) -> Self {
        self.highest.extend(highest);
        self
    }

    /// Set it, and the writer waits for room no more.
    pub(super) fn closing(&self) -> Arc<AtomicBool> {
        self.maker.closing()
    }
}

/// An entry's own bytes behind the frame's header, the kind and the index.
pub(super) fn position(file: &Arc<dyn DiskFile>, frame_offset: usize, body: &Bytes) -> Position {
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

    /// Until the queue is closed and empty. On a thread of its own it never yields: whatever it waits for blocks.
    pub(super) async fn run(mut self, mut requests: Requests) -> Result<(), WalError> {
        while let Some(first) = self.next(&mut requests).await? {
            self.counters.waits_since(first.queued);
            let mut waiting = Vec::new();
            let mut purged = None;
            let mut result = Ok(());
            let mut next = Some(first);
            while let Some(request) = next.take() {
                for record in request.records {
                    if let Record::Purge { last, .. } = &record {
                        purged = Some(*last);
                    }
                    if result.is_ok() {
                        result = self.stage(&record).await;
                    }
                }
                waiting.extend(request.done);
                if self.buffer.len() < BATCH_BYTES {
                    next = requests.try_next();
                }
            }
            if result.is_ok() {
                result = self.flush().await;
            }
            if result.is_err() {
                // Before anybody is told, so that whoever is told finds it so.
                lock(&self.index).failed = true;
            }
            let told = |r: &Result<(), WalError>| match r {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::other(error.to_string())),
            };
            if result.is_ok() {
                self.counters.waits_no_more();
            }
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

    /// The next request; `None` when the queue is closed and empty.
    async fn next(&mut self, requests: &mut Requests) -> Result<Option<Request>, WalError> {
        match requests.next_within(IDLE).await {
            Some(Some(request)) => return Ok(Some(request)),
            Some(None) => {}
            None => {
                self.seal()?;
                if let Some(request) = requests.next().await {
                    return Ok(Some(request));
                }
            }
        }
        self.seal()?;
        Ok(None)
    }

    /// Damage to the last write can be told from a torn end only by what was written after its sync.
    /// Usually that is the next write; where none comes, this. It need not be synced itself.
    fn seal(&mut self) -> Result<(), WalError> {
        let mut body = Vec::new();
        encode(&Record::Seal, &mut body);
        let fits = (self.place.offset + framed_len(body.len())) as u64 <= self.place.segment_bytes;
        if self.place.synced == self.place.offset && self.place.offset > SEGMENT_HEADER && fits {
            self.push(&body);
            self.write()?;
        }
        Ok(())
    }

    async fn stage(&mut self, record: &Record) -> Result<(), WalError> {
        let mut body = std::mem::take(&mut self.body);
        encode(record, &mut body);
        let end = self.place.offset + self.buffer.len() + framed_len(body.len());
        if end as u64 > self.place.segment_bytes {
            self.flush().await?;
            self.rotate().await?;
        }
        let offset = self.place.offset + self.buffer.len();
        match record {
            Record::Entry { index, body } => {
                self.pending.push((*index, position(&self.place.file, offset, body)));
                self.place.highest.insert(self.place.segment, *index);
            }
            Record::Vote(vote) => self.marks.vote = Some(vote.clone()),
            Record::Committed(id) => self.marks.committed = Some(id.clone()),
            Record::Truncate { .. } | Record::Seal => {}
            Record::Purge { last, body } => self.marks.purged = Some((*last, body.clone())),
        }
        self.push(&body);
        self.body = body;
        Ok(())
    }

    fn push(&mut self, body: &[u8]) {
        let batch = u32::try_from(self.place.synced).expect("a segment is smaller than 4 GiB");
        frame::push(&mut self.buffer, self.place.segment, batch, body);
    }

    fn io(&self) -> impl Fn(io::Error) -> WalError + use<> {
        let (segment, offset) = (self.place.segment, self.place.offset);
        move |source| WalError::Io { step: format!("write segment {segment} at {offset}"), source }
    }

    fn write(&mut self) -> Result<(), WalError> {
        self.place.file.write_at(&self.buffer, self.place.offset as u64).map_err(self.io())?;
        self.place.offset += self.buffer.len();
        self.buffer.clear();
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), WalError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = self.buffer.len();
        self.write()?;
        let start = self.counters.now();
        self.sync().await?;
        self.counters.synced(bytes, self.pending.len(), self.counters.now() - start);
        let mut index = lock(&self.index);
        for (at, position) in self.pending.drain(..) {
            index.written(at, position);
        }
        Ok(())
    }

    async fn sync(&mut self) -> Result<(), WalError> {
        if let Some(turn) = self.place.disk.before_sync() {
            turn.await;
        }
        self.place.file.sync_data().map_err(self.io())?;
        self.place.synced = self.place.offset;
        Ok(())
    }

    async fn rotate(&mut self) -> Result<(), WalError> {
        if self.place.synced < self.place.offset {
            // That later segments are there says that this one is whole.
            self.sync().await?;
        }
        let io = |source| WalError::Io { step: "make the next segment".to_owned(), source };
        let (id, file) = self.place.maker.take().await.map_err(io)?;
        self.place.segment = id;
        self.place.file = Arc::from(file);
        self.place.offset = SEGMENT_HEADER;
        self.place.synced = SEGMENT_HEADER;
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
