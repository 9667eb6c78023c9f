//! A machine's disk in memory, whose power can be cut: what was not synced may be lost, in any part.

use super::{DirLock, Disk, DiskFile};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

/// What reaches the disk as a whole or not at all.
const SECTOR: usize = 512;

/// One machine's disk, for every replica that runs on it. Clones see the same files.
///
/// [`MemoryDisk::power_cut`] ends what is open: the handle that it returns is the machine after it was
/// switched on again, and every older one only fails.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    machine: Arc<Mutex<Machine>>,
    /// As of which start of the machine this handle is.
    start: u64,
}

#[derive(Default)]
struct Machine {
    start: u64,
    names: BTreeMap<PathBuf, Shared>,
    /// The names that a power cut leaves.
    durable: BTreeMap<PathBuf, Shared>,
    /// Changes of names that their directory has not been synced for, in order.
    unsynced: Vec<Naming>,
    /// Directories that somebody has taken.
    locks: BTreeMap<PathBuf, Weak<()>>,
}

type Shared = Arc<Mutex<Content>>;

struct Naming {
    dir: PathBuf,
    gone: Option<PathBuf>,
    new: Option<(PathBuf, Shared)>,
}

impl Naming {
    fn carry_out(self, names: &mut BTreeMap<PathBuf, Shared>) {
        if let Some(path) = &self.gone {
            names.remove(path);
        }
        names.extend(self.new);
    }
}

#[derive(Default, Clone)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Writes since the last sync.
    pending: Vec<(usize, Vec<u8>)>,
}

fn overlay(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    bytes.resize(bytes.len().max(end), 0);
    if let Some(place) = bytes.get_mut(offset..end) {
        place.copy_from_slice(data);
    }
}

impl Content {
    fn sync(&mut self) {
        for (offset, data) in std::mem::take(&mut self.pending) {
            overlay(&mut self.synced, offset, &data);
        }
    }

    /// Of what was not synced, some sectors are there and others are not.
    fn tear(&mut self, kept: f64, chance: &mut StdRng) {
        for (offset, data) in std::mem::take(&mut self.pending) {
            let mut at = 0;
            while at < data.len() {
                let len = (SECTOR - (offset + at) % SECTOR).min(data.len() - at);
                let piece = data.get(at..at + len).unwrap_or_default();
                if chance.random_bool(kept) {
                    overlay(&mut self.synced, offset + at, piece);
                }
                at += len;
            }
        }
        self.bytes.clone_from(&self.synced);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

fn power_is_off() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::EIO)
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDisk").field("start", &self.start).finish_non_exhaustive()
    }
}

impl MemoryDisk {
    /// Cuts the power now. Of unsynced writes a random part of the sectors is there afterwards, of
    /// unsynced names the first so many.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut machine = lock(&self.machine);
        machine.start += 1;
        machine.locks.clear();
        let namings = std::mem::take(&mut machine.unsynced);
        let kept = chance.random_range(0..=namings.len());
        for naming in namings.into_iter().take(kept) {
            naming.carry_out(&mut machine.durable);
        }
        machine.names = machine.durable.clone();
        // Nothing, nearly everything, or something between.
        let kept = [0.0, 0.1, 0.5, 0.9, 1.0].get(chance.random_range(0..5)).copied();
        for file in machine.names.values() {
            lock(file).tear(kept.unwrap_or_default(), &mut chance);
        }
        Self { machine: Arc::clone(&self.machine), start: machine.start }
    }

    /// Every file and how many bytes of it were synced.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, usize)> {
        let machine = lock(&self.machine);
        machine.names.iter().map(|(path, file)| (path.clone(), lock(file).synced.len())).collect()
    }

    /// Another disk with the same files, for good: a copy to be damaged.
    #[must_use]
    pub fn copy(&self) -> Self {
        let machine = lock(&self.machine);
        let names: BTreeMap<PathBuf, Shared> = machine
            .names
            .iter()
            .map(|(path, file)| {
                let bytes = lock(file).bytes.clone();
                let content = Content { synced: bytes.clone(), bytes, pending: Vec::new() };
                (path.clone(), Arc::new(Mutex::new(content)))
            })
            .collect();
        let machine = Machine { durable: names.clone(), names, ..Machine::default() };
        Self { machine: Arc::new(Mutex::new(machine)), start: 0 }
    }

    /// Changes bits of one byte, as decay does: nobody is told. False where there is no such byte.
    pub fn flip(&self, path: &Path, offset: usize, mask: u8) -> bool {
        let machine = lock(&self.machine);
        let Some(file) = machine.names.get(path) else { return false };
        let mut content = lock(file);
        let Some(byte) = content.synced.get_mut(offset) else { return false };
        *byte ^= mask;
        if let Some(byte) = content.bytes.get_mut(offset) {
            *byte ^= mask;
        }
        true
    }

    /// Cuts a file short, as a file system's repair may.
    pub fn cut(&self, path: &Path, bytes: usize) {
        if let Some(file) = lock(&self.machine).names.get(path) {
            let mut content = lock(file);
            content.synced.truncate(bytes);
            content.bytes.truncate(bytes);
        }
    }

    fn running(&self) -> io::Result<MutexGuard<'_, Machine>> {
        let machine = lock(&self.machine);
        if machine.start == self.start { Ok(machine) } else { Err(power_is_off()) }
    }

    fn file(&self, content: Shared) -> Box<dyn DiskFile> {
        Box::new(MemoryFile { disk: self.clone(), content })
    }
}

impl Disk for MemoryDisk {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        self.running().map(|_| ())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut machine = self.running()?;
        let content = Shared::default();
        machine.names.insert(path.to_owned(), Arc::clone(&content));
        let new = Some((path.to_owned(), Arc::clone(&content)));
        machine.unsynced.push(Naming { dir: parent(path), gone: None, new });
        Ok(self.file(content))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let found = self.running()?.names.get(path).cloned();
        found.map(|content| self.file(content)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let machine = self.running()?;
        Ok(machine.names.keys().filter(|path| path.parent() == Some(dir)).cloned().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.running()?;
        let content = machine.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        machine.names.insert(to.to_owned(), Arc::clone(&content));
        let (gone, new) = (Some(from.to_owned()), Some((to.to_owned(), content)));
        machine.unsynced.push(Naming { dir: parent(to), gone, new });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.running()?;
        machine.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        let gone = Some(path.to_owned());
        machine.unsynced.push(Naming { dir: parent(path), gone, new: None });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut machine = self.running()?;
        for naming in std::mem::take(&mut machine.unsynced) {
            if naming.dir == dir {
                naming.carry_out(&mut machine.durable);
            } else {
                machine.unsynced.push(naming);
            }
        }
        Ok(())
    }

    fn lock(&self, dir: &Path) -> io::Result<DirLock> {
        let mut machine = self.running()?;
        let held = machine.locks.entry(dir.to_owned()).or_default();
        if held.strong_count() > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let lock = Arc::new(());
        *held = Arc::downgrade(&lock);
        Ok(DirLock::new(lock))
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        self.running().map(|_| u64::MAX)
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    content: Shared,
}

impl DiskFile for MemoryFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _running = self.disk.running()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let mut content = lock(&self.content);
        overlay(&mut content.bytes, offset, bytes);
        content.pending.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let _running = self.disk.running()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let content = lock(&self.content);
        let end = offset.checked_add(bytes.len());
        let found = end.and_then(|end| content.bytes.get(offset..end));
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let _running = self.disk.running()?;
        lock(&self.content).sync();
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        let _running = self.disk.running()?;
        Ok(lock(&self.content).bytes.len() as u64)
    }
}
