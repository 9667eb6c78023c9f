//! Segment files: made ahead of their use, zeroed and synced, removed when nothing in them counts.

use super::{Counters, WalError, frame};
use crate::disk::{Disk, DiskFile};
use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

const ZEROS: usize = 1 << 20;

pub(super) fn path_of(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016}.wal"))
}

/// The segments that are there, by id. What was being made when the power went is removed.
pub(super) fn existing(disk: &dyn Disk, dir: &Path) -> Result<Vec<(u64, PathBuf)>, WalError> {
    let fail = |source| WalError::Io { step: format!("list {}", dir.display()), source };
    let mut found = Vec::new();
    for path in disk.list(dir).map_err(fail)? {
        let extension = path.extension().and_then(|e| e.to_str());
        let id = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
        match (extension, id) {
            (Some("wal"), Some(id)) => found.push((id, path)),
            (Some("tmp"), _) => disk.remove(&path).map_err(fail)?,
            _ => {}
        }
    }
    found.sort();
    Ok(found)
}

/// Makes an empty segment: zeros to its full size, so that a write into it changes no metadata and
/// `fdatasync` has only data to write.
pub(super) fn make(
    disk: &dyn Disk,
    dir: &Path,
    id: u64,
    bytes: u64,
) -> io::Result<Box<dyn DiskFile>> {
    let path = path_of(dir, id);
    let temporary = path.with_extension("tmp");
    let file = disk.create(&temporary)?;
    let zeros = vec![0; ZEROS];
    let mut offset = 0;
    while offset < bytes {
        let step = usize::try_from(bytes - offset).unwrap_or(ZEROS).min(ZEROS);
        file.write_at(zeros.get(..step).unwrap_or_default(), offset)?;
        offset += step as u64;
    }
    file.write_at(&frame::segment_header(id), 0)?;
    file.sync_data()?;
    disk.rename(&temporary, &path)?;
    disk.sync_dir(dir)?;
    Ok(file)
}

type Made = io::Result<(u64, Box<dyn DiskFile>)>;

/// Between two tries where there is no room.
const RETRY: Duration = Duration::from_millis(100);

/// Keeps one segment ready ahead of the writer: a thread, or in a simulation a task.
///
/// Where there is no room it says so and tries again until there is: what waits for the segment waits
/// with it. Any other failure is the writer's, when it wants the segment.
pub(super) struct Maker {
    ready: Option<Ready>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

enum Ready {
    FromThread(mpsc::Receiver<Made>),
    FromTask(tokio::sync::mpsc::Receiver<Made>),
}

/// What the maker makes next.
struct Making {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    next: u64,
    bytes: u64,
    counters: Arc<Counters>,
    ends: Arc<AtomicBool>,
}

impl Making {
    /// One try; `None` where there is no room.
    fn attempt(&mut self) -> Option<Made> {
        let Self { disk, dir, next, bytes, counters, ends } = self;
        let made = make(&**disk, dir, *next, *bytes).map(|file| (*next, file));
        let full = made.as_ref().is_err_and(|e| e.kind() == ErrorKind::StorageFull);
        if full && !counters.no_room() {
            tracing::error!(dir = %dir.display(), bytes, "no room for the next segment");
        }
        counters.set_no_room(full);
        if full && !ends.load(Ordering::Relaxed) {
            // What there is of it takes room from the others.
            let _ = disk.remove(&path_of(dir, *next).with_extension("tmp"));
            return None;
        }
        *next += 1;
        Some(made)
    }
}

/// Whether nothing more is to be made.
fn is_last(made: &Made) -> bool {
    made.is_err()
}

impl Maker {
    /// Begins with `first`, if it is not there, then one after the other as they are taken.
    pub(super) fn start(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        next: u64,
        bytes: u64,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        let closing = Arc::new(AtomicBool::new(false));
        let mut making = Making { disk, dir, next, bytes, counters, ends: Arc::clone(&closing) };
        if world::simulated() {
            let (sender, ready) = tokio::sync::mpsc::channel(1);
            world::spawn_in_simulation(async move {
                // One ahead and no more, as with the thread.
                while let Ok(place) = sender.reserve().await {
                    let made = loop {
                        match making.attempt() {
                            Some(made) => break made,
                            None => tokio::time::sleep(RETRY).await,
                        }
                    };
                    let last = is_last(&made);
                    place.send(made);
                    if last {
                        return;
                    }
                }
            });
            return Ok(Self { ready: Some(Ready::FromTask(ready)), closing, thread: None });
        }
        // A channel without room: the thread makes one and waits until it is wanted.
        let (sender, ready) = mpsc::sync_channel::<Made>(0);
        let thread = thread::Builder::new().name("wal-segments".to_owned()).spawn(move || {
            loop {
                let made = loop {
                    match making.attempt() {
                        Some(made) => break made,
                        None => thread::park_timeout(RETRY),
                    }
                };
                let last = is_last(&made);
                if sender.send(made).is_err() || last {
                    return;
                }
            }
        })?;
        Ok(Self { ready: Some(Ready::FromThread(ready)), closing, thread: Some(thread) })
    }

    /// The next segment, waiting for it if need be; for room as long as it takes. Outside of a simulation it is
    /// the thread that waits.
    pub(super) async fn take(&mut self) -> Made {
        let made = match &mut self.ready {
            Some(Ready::FromThread(ready)) => ready.recv().ok(),
            Some(Ready::FromTask(ready)) => ready.recv().await,
            None => None,
        };
        made.unwrap_or_else(|| Err(io::Error::other("no segment could be made")))
    }

    /// Set it, and nobody waits for room any more.
    pub(super) fn closing(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.closing)
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.ready = None;
        // Whoever opens the log next must be alone in its directory.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
