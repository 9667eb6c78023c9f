//! A disk that misbehaves on demand: over any other, told what to do by a file.

use super::{DirLock, Disk, DiskFile};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

/// How often a write that is held up looks whether it may go on.
const LOOK: Duration = Duration::from_millis(5);

/// What goes wrong from now on. Counts begin anew with every new plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plan {
    /// This sync fails with `EIO`, 1 the next one; those after it succeed.
    pub fail_sync: Option<u64>,
    /// This write fails with `EIO`, 1 the next one; those after it succeed.
    pub fail_write: Option<u64>,
    /// Files may grow by so many bytes; then `ENOSPC`, until some are removed.
    pub full_after_bytes: Option<u64>,
    /// Syncs do not return until another plan says so.
    pub stall_syncs: bool,
    /// Each sync takes so many milliseconds longer.
    pub slow_syncs_ms: u64,
}

impl Plan {
    /// One `key = value` a line: `failSync`, `failWrite`, `fullAfterBytes`, `stallSyncs`,
    /// `slowSyncsMs`. `#` begins a comment.
    ///
    /// # Errors
    /// Names the line.
    pub fn parse(text: &str) -> io::Result<Self> {
        let mut plan = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let bad = || {
                let text = format!("line {} of the faults: {line:?}", number + 1);
                io::Error::new(io::ErrorKind::InvalidData, text)
            };
            let (key, value) = line.split_once('=').ok_or_else(bad)?;
            let count = || value.trim().parse::<u64>().map_err(|_| bad());
            match key.trim() {
                "failSync" => plan.fail_sync = Some(count()?),
                "failWrite" => plan.fail_write = Some(count()?),
                "fullAfterBytes" => plan.full_after_bytes = Some(count()?),
                "stallSyncs" => plan.stall_syncs = value.trim().parse().map_err(|_| bad())?,
                "slowSyncsMs" => plan.slow_syncs_ms = count()?,
                _ => return Err(bad()),
            }
        }
        Ok(plan)
    }
}

/// The plan in force; shared with whoever changes it.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    control: Option<PathBuf>,
    now: Arc<Mutex<Now>>,
}

#[derive(Debug, Default)]
struct Now {
    plan: Plan,
    syncs: u64,
    writes: u64,
    /// Bytes by which files have grown, less those of files that were removed.
    grown: u64,
    read: Option<(SystemTime, u64)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Faults {
    /// As the file at `control` says, whenever it changes; none while there is none.
    #[must_use]
    pub fn controlled_by(control: PathBuf) -> Self {
        Self { control: Some(control), now: Arc::default() }
    }

    /// From now on.
    pub fn set(&self, plan: Plan) {
        *lock(&self.now) = Now { plan, ..Now::default() };
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        let mut now = lock(&self.now);
        if let Some(control) = &self.control {
            let found = std::fs::metadata(control).ok();
            let stamp = found.and_then(|found| Some((found.modified().ok()?, found.len())));
            if now.read != stamp {
                let text = std::fs::read_to_string(control).unwrap_or_default();
                match Plan::parse(&text) {
                    Ok(plan) => {
                        tracing::warn!(?plan, "faults of the disk");
                        *now = Now { plan, read: stamp, ..Now::default() };
                    }
                    Err(error) => {
                        tracing::error!(%error, "the faults stay as they were");
                        now.read = stamp;
                    }
                }
            }
        }
        now
    }

    fn before_sync(&self) -> io::Result<()> {
        let slow = {
            let mut now = self.now();
            now.syncs += 1;
            if now.plan.fail_sync == Some(now.syncs) {
                return Err(error(nix::libc::EIO));
            }
            Duration::from_millis(now.plan.slow_syncs_ms)
        };
        pause(slow);
        while self.now().plan.stall_syncs {
            pause(LOOK);
        }
        Ok(())
    }

    fn before_write(&self, growth: u64) -> io::Result<()> {
        let mut now = self.now();
        now.writes += 1;
        if now.plan.fail_write == Some(now.writes) {
            return Err(error(nix::libc::EIO));
        }
        if now.plan.full_after_bytes.is_some_and(|most| growth > 0 && now.grown + growth > most) {
            return Err(error(nix::libc::ENOSPC));
        }
        now.grown += growth;
        Ok(())
    }
}

fn pause(time: Duration) {
    if !time.is_zero() {
        #[expect(
            clippy::disallowed_methods,
            reason = "a slow disk holds up the thread that writes"
        )]
        thread::sleep(time);
    }
}

/// A disk with [`Faults`].
#[derive(Debug)]
pub struct FaultDisk {
    inner: Arc<dyn Disk>,
    faults: Faults,
}

impl FaultDisk {
    /// Over another disk.
    #[must_use]
    pub fn new(inner: Arc<dyn Disk>, faults: Faults) -> Self {
        Self { inner, faults }
    }

    fn file(&self, inner: Box<dyn DiskFile>) -> io::Result<Box<dyn DiskFile>> {
        let size = AtomicU64::new(inner.size()?);
        Ok(Box::new(FaultFile { inner, size, faults: self.faults.clone() }))
    }
}

impl Disk for FaultDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.file(self.inner.create(path)?)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.file(self.inner.open(path)?)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let size = self.inner.open(path).and_then(|file| file.size()).unwrap_or_default();
        self.inner.remove(path)?;
        let mut now = self.faults.now();
        now.grown = now.grown.saturating_sub(size);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.faults.before_sync()?;
        self.inner.sync_dir(dir)
    }

    fn lock(&self, dir: &Path) -> io::Result<DirLock> {
        self.inner.lock(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let free = self.inner.free_bytes(dir)?;
        let now = self.faults.now();
        let most = now.plan.full_after_bytes.map(|most| most.saturating_sub(now.grown));
        Ok(most.map_or(free, |most| most.min(free)))
    }
}

struct FaultFile {
    inner: Box<dyn DiskFile>,
    size: AtomicU64,
    faults: Faults,
}

impl DiskFile for FaultFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        let before = self.size.load(Ordering::Relaxed);
        self.faults.before_write(end.saturating_sub(before))?;
        self.inner.write_at(bytes, offset)?;
        self.size.fetch_max(end, Ordering::Relaxed);
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.before_sync()?;
        self.inner.sync_data()
    }

    fn write_back(&self, offset: u64, bytes: usize) {
        self.inner.write_back(offset, bytes);
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }
}
