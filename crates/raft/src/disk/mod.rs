//! The disk as the log and the snapshots see it: the seam at which writes are dropped, torn, held up
//! and refused.

mod fault;
mod memory;

use nix::fcntl::{Flock, FlockArg, PosixFadviseAdvice, posix_fadvise};
use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    pin::Pin,
};

pub use fault::{FaultDisk, Faults, Plan};
pub use memory::MemoryDisk;

/// A directory of files.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes a directory and those above it, for good.
    ///
    /// # Errors
    /// As the operating system says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes a new, empty file.
    ///
    /// # Errors
    /// As the operating system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file that is there, to read and write.
    ///
    /// # Errors
    /// As the operating system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// As the operating system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Gives a file another name; takes effect for good with [`Disk::sync_dir`].
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; takes effect for good with [`Disk::sync_dir`].
    ///
    /// # Errors
    /// As the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the operating system says; final.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that files below `dir` may still take.
    ///
    /// # Errors
    /// As the operating system says.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Takes a directory for this process, until what is returned is dropped.
    ///
    /// # Errors
    /// `WouldBlock` when another one has it, or as the operating system says.
    fn lock(&self, dir: &Path) -> io::Result<DirLock>;

    /// In a simulation, what a sync that begins now waits for: carrying it out takes no time there. `None` where a
    /// call takes its own time.
    fn before_sync(&self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        None
    }

    /// All of a small file.
    ///
    /// # Errors
    /// `NotFound`, or as the operating system says.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
        file.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Writes a small file whole: under another name, synced, then named, and the directory synced.
    /// Afterwards either the old content is there or the new one.
    ///
    /// # Errors
    /// As the operating system says.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("new");
        let file = self.create(&temporary)?;
        file.write_at(bytes, 0)?;
        file.sync_data()?;
        self.rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |dir| self.sync_dir(dir))
    }
}

/// Held as long as a directory is in use.
pub struct DirLock(#[expect(dead_code, reason = "is held, not looked at")] Box<dyn Send + Sync>);

impl DirLock {
    /// Taken until `held` is dropped.
    #[must_use]
    pub fn new(held: impl Send + Sync + 'static) -> Self {
        Self(Box::new(held))
    }
}

impl fmt::Debug for DirLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirLock").finish_non_exhaustive()
    }
}

/// A file of a [`Disk`].
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As the operating system says; part of it may be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Fills `bytes` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` past the end.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Makes everything written durable (`fdatasync`).
    ///
    /// # Errors
    /// Final: the kernel may have dropped the pages, so a second call proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// Has what was written last brought to the disk before long, and waits for nothing: less is left for
    /// [`DiskFile::sync_data`], and for the syncs of others behind it.
    fn write_back(&self, offset: u64, bytes: usize) {
        let _ = (offset, bytes);
    }

    /// Length in bytes.
    ///
    /// # Errors
    /// As the operating system says.
    fn size(&self) -> io::Result<u64>;
}

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
        if let Some(above) = above {
            self.create_dir_all(above)?;
        }
        match std::fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.sync_dir(above.unwrap_or(Path::new(".")))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names: Vec<PathBuf> =
            std::fs::read_dir(dir)?.map(|e| Ok(e?.path())).collect::<io::Result<_>>()?;
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, dir: &Path) -> io::Result<DirLock> {
        lock_file(&dir.join("LOCK"))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let found = nix::sys::statvfs::statvfs(dir)?;
        Ok(found.blocks_available().saturating_mul(found.fragment_size()))
    }
}

/// The operating system's, which ends with the process however it ends.
fn lock_file(path: &Path) -> io::Result<DirLock> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => Ok(DirLock::new(held)),
        Err((_, errno)) => Err(errno.into()),
    }
}

impl DiskFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn write_back(&self, offset: u64, bytes: usize) {
        // Says that the pages are not needed, and the kernel begins to write them. They are not: a
        // snapshot is hardly ever read. Where that is not supported, the sync writes them.
        let range = (i64::try_from(offset), i64::try_from(bytes));
        if let (Ok(offset), Ok(bytes)) = range {
            let _ = posix_fadvise(self, offset, bytes, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
