//! The log on disk: entries, votes and what is committed, in one sequence, synced before they count.
//!
//! One thread writes: it takes whatever waits, writes it with one `pwrite`, syncs it with one
//! `fdatasync` and only then tells those who wait, in order. So a vote never overtakes the entries
//! before it, and many appends share a sync. Nobody else ever waits for the disk: an entry can be read
//! from memory as soon as it is appended. In a simulation the thread is a task: the same code, whose waits are
//! the simulator's there.

mod counters;
mod frame;
mod index;
mod record;
mod recover;
mod segments;
mod writer;

use crate::disk::Disk;
use bytes::Bytes;
use futures::FutureExt as _;
use index::Index;
use record::Record;
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};
use tokio::sync::Notify;
use writer::{Request, Requests, Writer};

pub use counters::Counters;

/// Told when its records are durable, or that they never will be.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Told once when the log can take nothing any more.
pub type OnFailure = Box<dyn FnOnce(&WalError) + Send>;

/// Why a log cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// Bytes that had been synced have changed. Acknowledged data may be gone: the replica must not
    /// start, and is to be built again from its peers.
    #[error(
        "log {} is corrupt at offset {offset}: {detail}",
        path.display()
    )]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Of the first damaged byte's record.
        offset: u64,
        /// What is wrong.
        detail: String,
    },
    /// The disk refused. Final: a sync that failed once proves nothing when it is repeated.
    #[error("{step}: {source}")]
    Io {
        /// What was tried.
        step: String,
        /// As the operating system says.
        source: io::Error,
    },
}

/// The small records that are as important as entries, newest of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// As saved last.
    pub vote: Option<Bytes>,
    /// As saved last.
    pub committed: Option<Bytes>,
    /// Index and body of the last purge.
    pub purged: Option<(u64, Bytes)>,
}

/// An open log.
pub struct Wal {
    index: Arc<Mutex<Index>>,
    counters: Arc<Counters>,
    queue: Option<mpsc::Sender<Request>>,
    /// Of the task that writes in a simulation.
    wake: Option<Arc<Notify>>,
    writer: Option<JoinHandle<()>>,
    closing: Arc<AtomicBool>,
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal").finish_non_exhaustive()
    }
}

/// Bytes that may wait for the disk. Beyond it the disk has hung for so long that this replica is
/// better stopped than fed.
const BACKLOG_BYTES: usize = 512 << 20;

impl Wal {
    /// Opens the log in `dir`, cutting a torn end.
    ///
    /// # Errors
    /// [`WalError::Corrupt`] when something that had been synced is damaged.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        segment_bytes: u64,
        on_failure: OnFailure,
    ) -> Result<Self, WalError> {
        let counters = Arc::new(Counters::default());
        let (index, place) = recover::recover(disk, dir, segment_bytes, &counters)?;
        let index = Arc::new(Mutex::new(index));
        let (queue, requests) = mpsc::channel();
        let closing = place.closing();
        let writer = Writer::new(place, Arc::clone(&index), Arc::clone(&counters));
        if world::simulated() {
            let wake = Arc::new(Notify::new());
            let requests = Requests::OfTask(requests, Arc::clone(&wake));
            world::spawn_in_simulation(async move {
                if let Err(error) = writer.run(requests).await {
                    on_failure(&error);
                }
            });
            let (queue, wake) = (Some(queue), Some(wake));
            return Ok(Self { index, counters, queue, wake, writer: None, closing });
        }
        let writer = thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || {
                let run = writer.run(Requests::OfThread(requests)).now_or_never();
                if let Err(error) = run.expect("on its own thread it waits for nothing else") {
                    on_failure(&error);
                }
            })
            .map_err(|source| WalError::Io { step: "start the log's thread".to_owned(), source })?;
        Ok(Self { index, counters, queue: Some(queue), wake: None, writer: Some(writer), closing })
    }

    /// Adds entries behind the last. They can be read at once; `done` is told when they are durable.
    ///
    /// # Errors
    /// The backlog is full, or the log has failed.
    pub fn append(&self, entries: Vec<(u64, Bytes)>, done: Done) -> io::Result<()> {
        let bytes: usize = entries.iter().map(|(_, body)| body.len()).sum();
        {
            let mut index = self.lock();
            if index.unwritten_bytes() + bytes > BACKLOG_BYTES {
                return Err(io::Error::other("the disk is too far behind"));
            }
            for (at, body) in &entries {
                index.push(*at, body.clone());
            }
        }
        let records =
            entries.into_iter().map(|(index, body)| Record::Entry { index, body }).collect();
        self.send(records, done)
    }

    /// Replaces the vote.
    ///
    /// # Errors
    /// The log has failed.
    pub fn save_vote(&self, vote: Bytes, done: Done) -> io::Result<()> {
        self.lock().marks.vote = Some(vote.clone());
        self.counters.vote();
        self.send(vec![Record::Vote(vote)], done)
    }

    /// Replaces what is known to be committed; nobody needs to wait for it.
    ///
    /// # Errors
    /// The log has failed.
    pub fn save_committed(&self, committed: Bytes) -> io::Result<()> {
        self.lock().marks.committed = Some(committed.clone());
        self.queue(vec![Record::Committed(committed)], None)
    }

    /// Drops the entries above `last`.
    ///
    /// # Errors
    /// The log has failed.
    pub fn truncate_after(&self, last: Option<u64>, done: Done) -> io::Result<()> {
        self.lock().truncate_after(last);
        self.send(vec![Record::Truncate { last }], done)
    }

    /// Drops the entries up to `last`; `body` is given back by [`Wal::marks`].
    ///
    /// # Errors
    /// The log has failed.
    pub fn purge(&self, last: u64, body: Bytes, done: Done) -> io::Result<()> {
        {
            let mut index = self.lock();
            index.purge(last);
            index.marks.purged = Some((last, body.clone()));
        }
        self.send(vec![Record::Purge { last, body }], done)
    }

    /// Vote, committed and purged.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.lock().marks.clone()
    }

    /// First and last index, if there are entries.
    #[must_use]
    pub fn bounds(&self) -> Option<(u64, u64)> {
        self.lock().bounds()
    }

    /// Entries from `start` to before `end`, as many as there are, the first even if it is larger
    /// than `bytes_max` and others while they fit. Blocks for those that memory does not hold.
    ///
    /// # Errors
    /// The disk cannot be read, or gives back what was not written.
    pub fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Bytes>> {
        let places = self.lock().places(start, end, bytes_max);
        places.into_iter().map(index::Place::load).collect()
    }

    /// Whether [`Wal::read`] would have to wait for the disk.
    #[must_use]
    pub fn read_blocks(&self, start: u64, end: u64) -> bool {
        self.lock().places(start, end, usize::MAX).iter().any(|p| !p.in_memory())
    }

    /// What was written and how long it took.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Tells `done` when all that was given before is durable.
    ///
    /// # Errors
    /// The log has failed.
    pub fn barrier(&self, done: Done) -> io::Result<()> {
        self.send(Vec::new(), done)
    }

    /// Writes and syncs something that changes nothing: how long it takes says how the disk is.
    ///
    /// # Errors
    /// The log has failed.
    pub fn probe(&self, done: Done) -> io::Result<()> {
        self.send(vec![Record::Seal], done)
    }

    /// Bytes of entries that are not durable yet.
    #[must_use]
    pub fn backlog_bytes(&self) -> usize {
        self.lock().unwritten_bytes()
    }

    fn send(&self, records: Vec<Record>, done: Done) -> io::Result<()> {
        self.queue(records, Some(done))
    }

    fn queue(&self, records: Vec<Record>, done: Option<Done>) -> io::Result<()> {
        let refused = || io::Error::other("the log has failed or is closed");
        if self.lock().failed {
            return Err(refused());
        }
        let queue = self.queue.as_ref().ok_or_else(refused)?;
        let queued = self.counters.now();
        queue.send(Request { records, done, queued }).map_err(|_| refused())?;
        if let Some(wake) = &self.wake {
            wake.notify_one();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One segment of these records, each written after the one before was synced.
pub(crate) fn segment_of<'a>(bodies: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = frame::segment_header(1).to_vec();
    for body in bodies {
        let synced = u32::try_from(bytes.len()).expect("a segment is smaller than 4 GiB");
        frame::push(&mut bytes, 1, synced, body);
    }
    bytes
}

/// One record of each kind.
pub(crate) fn sample_bodies() -> Vec<Vec<u8>> {
    let entry = |index| Record::Entry { index, body: Bytes::from_static(b"entry") };
    let records = [
        Record::Vote(Bytes::from_static(b"vote")),
        entry(1),
        entry(2),
        entry(3),
        Record::Committed(Bytes::from_static(b"committed")),
        Record::Truncate { last: Some(2) },
        entry(3),
        Record::Purge { last: 1, body: Bytes::from_static(b"purged") },
        Record::Seal,
    ];
    let encoded = records.iter().map(|record| {
        let mut body = Vec::new();
        record::encode(record, &mut body);
        body
    });
    encoded.collect()
}

impl Drop for Wal {
    fn drop(&mut self) {
        // What was queued is still written: the thread ends when the queue is empty and closed.
        self.queue = None;
        self.closing.store(true, Ordering::Relaxed);
        if let Some(wake) = &self.wake {
            wake.notify_one();
        }
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}
