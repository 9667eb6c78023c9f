//! Paths in a tree that somebody else made: no link in it leads out of it.

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat},
};
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

/// The kernel gives up when somebody renames anything meanwhile; then it is asked again.
const TRIES: u32 = 64;

/// Opens a path as if `root` were the root directory.
///
/// # Errors
/// As the kernel says.
pub(super) fn open(root: &OwnedFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    for _ in 0..TRIES {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN) => {}
            done => return done,
        }
    }
    Err(Errno::EAGAIN)
}

/// A directory, made with its parents where it is missing.
///
/// # Errors
/// As the kernel says; `EEXIST` for a link that leads nowhere.
pub(super) fn directory(root: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    match open(root, path, flags) {
        Err(Errno::ENOENT) => {}
        done => return done,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::ENOENT);
    };
    let parent = directory(root, parent)?;
    mkdirat(&parent, name, Mode::from_bits_truncate(0o755))?;
    // Whatever this process' mask is.
    fchmodat(&parent, name, Mode::from_bits_truncate(0o755), FchmodatFlags::FollowSymlink)?;
    open(root, path, flags)
}

/// A file, made empty with its parents where it is missing.
///
/// # Errors
/// As the kernel says.
pub(super) fn file(root: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    match open(root, path, OFlag::O_PATH) {
        Err(Errno::ENOENT) => {}
        done => return done,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::ENOENT);
    };
    let parent = directory(root, parent)?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    drop(openat(&parent, name, flags, Mode::from_bits_truncate(0o644))?);
    open(root, path, OFlag::O_PATH)
}

/// What is in a regular file, at most `max` bytes of it. Never waits, as it would for a pipe.
///
/// # Errors
/// It is not there or not a regular file.
pub(super) fn read(root: &OwnedFd, path: &Path, max: u64) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let file = File::from(open(root, path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A path of this process that is exactly what was opened, as long as it is.
#[must_use]
pub(super) fn path_of(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Whether a name is there, itself a link or not.
#[must_use]
pub(super) fn kind(parent: &OwnedFd, name: &Path) -> Option<nix::sys::stat::SFlag> {
    let stat = nix::sys::stat::fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
    Some(nix::sys::stat::SFlag::from_bits_truncate(stat.st_mode) & nix::sys::stat::SFlag::S_IFMT)
}
