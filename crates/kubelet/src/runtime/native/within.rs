//! Paths in a tree that somebody else made: no link in it leads out of it.

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat},
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
    resolve(root, path, flags, ResolveFlag::RESOLVE_IN_ROOT)
}

fn resolve(root: &OwnedFd, path: &Path, flags: OFlag, how: ResolveFlag) -> nix::Result<OwnedFd> {
    let resolve = how | ResolveFlag::RESOLVE_NO_MAGICLINKS;
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
    make(&parent, Path::new(name), Mode::from_bits_truncate(0o755))?;
    open(root, path, flags)
}

/// What is at a path in a volume: no link in it leads out of the volume. Where nothing is, a directory like the
/// volume's own is made, with its parents.
///
/// # Errors
/// As the kernel says; `EXDEV` for what leads out, `ENOENT` for a link that leads nowhere.
pub(super) fn sub_path(volume: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let mode = Mode::from_bits_truncate(fstat(volume)?.st_mode & 0o7777);
    let mut so_far = PathBuf::new();
    let beneath = |path: &Path| resolve(volume, path, OFlag::O_PATH, ResolveFlag::RESOLVE_BENEATH);
    let mut parent = beneath(Path::new("."))?;
    for part in path.components() {
        so_far.push(part);
        parent = match beneath(&so_far) {
            Err(Errno::ENOENT) => {
                match make(&parent, Path::new(part.as_os_str()), mode) {
                    // By a container that starts beside this one.
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error),
                }
                beneath(&so_far)?
            }
            found => found?,
        };
    }
    Ok(parent)
}

/// A directory of a mode, whatever this process' mask is.
fn make(parent: &OwnedFd, name: &Path, mode: Mode) -> nix::Result<()> {
    mkdirat(parent, name, Mode::from_bits_truncate(0o700))?;
    // By its descriptor: somebody may have put a link in its place.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    fchmod(openat(parent, name, flags, Mode::empty())?, mode)
}

/// # Errors
/// As the kernel says.
pub(super) fn is_directory(fd: &OwnedFd) -> nix::Result<bool> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
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
pub(super) fn kind(parent: &OwnedFd, name: &Path) -> Option<SFlag> {
    let stat = nix::sys::stat::fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
    Some(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::readlink;
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    fn path_opened(fd: &OwnedFd) -> PathBuf {
        readlink(&path_of(fd)).unwrap().into()
    }

    #[test]
    fn a_sub_path_never_leads_out_of_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).map(|path| (path, dir)).unwrap();
        let (base, _kept) = (&dir.0, &dir.1);
        let (volume, outside) = (base.join("volume"), base.join("outside"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "s").unwrap();
        fs::create_dir_all(volume.join("real/deep")).unwrap();
        fs::write(volume.join("file"), "f").unwrap();
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o1777)).unwrap();
        for (link, to) in [
            ("inside", "real"),
            ("real/up", "../file"),
            ("absolute", outside.to_str().unwrap()),
            ("upwards", "../outside"),
            ("root", "/"),
            ("nowhere", "not/there"),
            ("itself", "itself"),
        ] {
            symlink(to, volume.join(link)).unwrap();
        }
        symlink(format!("/proc/{}/root", std::process::id()), volume.join("magic")).unwrap();
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let opened = nix::fcntl::open(&volume, flags, Mode::empty()).unwrap();
        for (path, want) in [
            ("real", Ok("real")),
            ("real/deep", Ok("real/deep")),
            ("file", Ok("file")),
            ("inside/deep", Ok("real/deep")),
            ("real/up", Ok("file")),
            ("inside/made", Ok("real/made")),
            ("new/and/deep", Ok("new/and/deep")),
            (".", Ok("")),
            ("absolute", Err(Errno::EXDEV)),
            ("absolute/secret", Err(Errno::EXDEV)),
            ("absolute/made", Err(Errno::EXDEV)),
            ("upwards", Err(Errno::EXDEV)),
            ("upwards/made", Err(Errno::EXDEV)),
            ("..", Err(Errno::EXDEV)),
            ("real/../..", Err(Errno::EXDEV)),
            ("root/etc", Err(Errno::EXDEV)),
            ("magic", Err(Errno::EXDEV)),
            ("/etc", Err(Errno::EXDEV)),
            ("nowhere", Err(Errno::ENOENT)),
            ("itself", Err(Errno::ELOOP)),
            ("file/below", Err(Errno::ENOTDIR)),
        ] {
            let found = sub_path(&opened, Path::new(path)).map(|fd| path_opened(&fd));
            assert_eq!(found, want.map(|path| volume.join(path)), "{path}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing is made outside");
        assert!(!volume.join("not").exists());
        let mode = |path: &str| fs::metadata(volume.join(path)).unwrap().permissions().mode();
        assert_eq!(mode("new") & 0o7777, 0o1777, "as the volume");
        assert_eq!(mode("new/and/deep") & 0o7777, 0o1777, "as the volume");
    }

    #[test]
    fn what_is_made_is_told_from_a_link_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "v").unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&victim, dir.path().join("link")).unwrap();
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let parent = nix::fcntl::open(dir.path(), flags, Mode::empty()).unwrap();
        let made = make(&parent, Path::new("link"), Mode::from_bits_truncate(0o777));
        assert_eq!(made, Err(Errno::EEXIST));
        assert_eq!(fs::metadata(&victim).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
