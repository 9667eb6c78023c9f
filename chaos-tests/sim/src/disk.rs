//! A machine's disk: slow, stalled, full, failing; and without power at any moment, also between two calls of
//! one piece of work.

use crate::{Millis, trace::Trace};
use raft::disk::{DirLock, Disk, DiskFile, MemoryDisk};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Between two looks whether a stalled disk goes on, in milliseconds.
const LOOK: Millis = 5;

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskFaults {
    /// Milliseconds that a sync takes at least.
    pub sync_min: Millis,
    /// At most.
    pub sync_max: Millis,
    /// Syncs do not return.
    pub stalled: bool,
    /// The next sync fails.
    pub fail_sync: bool,
    /// The next write fails.
    pub fail_write: bool,
    /// Bytes by which files may still grow; `None`: any.
    pub room: Option<u64>,
}

impl Default for DiskFaults {
    fn default() -> Self {
        Self {
            sync_min: 0,
            sync_max: 1,
            stalled: false,
            fail_sync: false,
            fail_write: false,
            room: None,
        }
    }
}

struct State {
    name: String,
    now: Millis,
    disk: MemoryDisk,
    faults: DiskFaults,
    chance: StdRng,
    /// The power goes after so many more calls, with this seed.
    cut: Option<(u64, u64)>,
    /// The same, counting syncs only.
    cut_before_sync: Option<(u64, u64)>,
    /// It has gone.
    dark: bool,
    trace: Trace,
}

/// A machine's disk; clones are the same.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").finish_non_exhaustive()
    }
}

fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// What the operating system calls them.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

impl SimDisk {
    /// Empty.
    #[must_use]
    pub fn new(name: &str, seed: u64, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(State {
            name: name.to_owned(),
            now: 0,
            disk: MemoryDisk::default(),
            faults: DiskFaults::default(),
            chance: StdRng::seed_from_u64(seed),
            cut: None,
            cut_before_sync: None,
            dark: false,
            trace,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the time is, for the trace.
    pub fn set_now(&self, now: Millis) {
        self.state().now = now;
    }

    /// Changes what is wrong with it.
    pub fn change(&self, change: impl FnOnce(&mut DiskFaults)) {
        change(&mut self.state().faults);
    }

    /// Cuts the power now. Unsynced writes may be lost in any part.
    pub fn cut(&self, seed: u64) {
        self.state().power_cut(seed);
    }

    /// Cuts the power before the call after the next `calls` ones, in the middle of whatever is being done.
    pub fn cut_after(&self, calls: u64, seed: u64) {
        self.state().cut = Some((calls, seed));
    }

    /// Cuts the power before the sync after the next `syncs` ones.
    pub fn cut_before_sync(&self, syncs: u64, seed: u64) {
        self.state().cut_before_sync = Some((syncs, seed));
    }

    /// Whether the power has gone since this was asked last.
    #[must_use]
    pub fn went_dark(&self) -> bool {
        std::mem::take(&mut self.state().dark)
    }

    /// No cut waits any more.
    pub fn keep_power(&self) {
        let mut state = self.state();
        (state.cut, state.cut_before_sync) = (None, None);
    }

    /// A call that the disk carries out now, if it does.
    fn call(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        match state.cut {
            Some((0, seed)) => {
                state.cut = None;
                state.power_cut(seed);
            }
            Some((calls, seed)) => state.cut = Some((calls - 1, seed)),
            None => {}
        }
        if state.dark { Err(error(EIO)) } else { Ok(state) }
    }

    fn file(&self, inner: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(SimFile { disk: self.clone(), inner })
    }
}

impl State {
    fn power_cut(&mut self, seed: u64) {
        self.disk = self.disk.power_cut(seed);
        self.dark = true;
        self.trace.event(self.now, &self.name, format_args!("the power goes"));
    }

    fn sync(&mut self, what: &str) -> io::Result<()> {
        match self.cut_before_sync {
            Some((0, seed)) => {
                self.cut_before_sync = None;
                self.power_cut(seed);
                return Err(error(EIO));
            }
            Some((syncs, seed)) => self.cut_before_sync = Some((syncs - 1, seed)),
            None => {}
        }
        let failed = std::mem::take(&mut self.faults.fail_sync);
        let result = if failed { "fails" } else { "is done" };
        self.trace.small(self.now, &self.name, format_args!("sync of {what} {result}"));
        if failed { Err(error(EIO)) } else { Ok(()) }
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.call()?.disk.create_dir_all(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inner = self.call()?.disk.create(path)?;
        Ok(self.file(inner))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inner = self.call()?.disk.open(path)?;
        Ok(self.file(inner))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.call()?.disk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call()?;
        let size = state.disk.open(path).and_then(|file| file.size()).unwrap_or_default();
        state.disk.remove(path)?;
        if let Some(room) = &mut state.faults.room {
            *room = room.saturating_add(size);
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.call()?;
        state.sync("names")?;
        state.disk.sync_dir(dir)
    }

    fn lock(&self, _: &Path) -> io::Result<DirLock> {
        // One process at a time is what a simulated machine has.
        self.call().map(|_| DirLock::new(()))
    }

    fn before_sync(&self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let disk = self.clone();
        Some(Box::pin(async move {
            loop {
                let (time, stalled) = {
                    let mut state = disk.state();
                    let DiskFaults { sync_min, sync_max, stalled, .. } = state.faults;
                    (state.chance.random_range(sync_min..=sync_max.max(sync_min)), stalled)
                };
                let time = if stalled { LOOK } else { time };
                if time > 0 {
                    tokio::time::sleep(Duration::from_millis(time)).await;
                }
                if !stalled {
                    return;
                }
            }
        }))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let state = self.call()?;
        let free = state.disk.free_bytes(dir)?;
        Ok(state.faults.room.map_or(free, |room| room.min(free)))
    }
}

struct SimFile {
    disk: SimDisk,
    inner: Box<dyn DiskFile>,
}

impl DiskFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.call()?;
        if std::mem::take(&mut state.faults.fail_write) {
            return Err(error(EIO));
        }
        let end = offset + bytes.len() as u64;
        let growth = end.saturating_sub(self.inner.size()?);
        if let Some(room) = &mut state.faults.room {
            *room = room.checked_sub(growth).ok_or_else(|| error(ENOSPC))?;
        }
        self.inner.write_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.call()?.sync("a file")?;
        self.inner.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_power_goes_before_the_sync_that_it_was_to_go_before() {
        let disk = SimDisk::new("replica-1", 1, Trace::default());
        let file = disk.create(Path::new("log")).unwrap();
        disk.cut_before_sync(1, 7);
        file.write_at(b"durable", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("")).unwrap_err();
        assert!(disk.went_dark() && !disk.went_dark(), "once");
        disk.create(Path::new("other")).unwrap();
        disk.keep_power();
        disk.sync_dir(Path::new("")).unwrap();
    }
}
