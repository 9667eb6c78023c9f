//! A layer's tar archive becomes a directory that an overlay can use.
//!
//! The archive may have been made by an enemy. Every name is resolved below the directory by the
//! kernel (`RESOLVE_IN_ROOT`), `..` is refused, and sizes are bounded, those of headers too.

use super::error::{ImageError, io_error};
use crate::runtime::native::{sys, within};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::{
        stat::{
            FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, futimens, makedev,
            mkdirat, mknodat, utimensat,
        },
        time::TimeSpec,
    },
    unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat},
};
use std::{
    cell::Cell,
    collections::BTreeSet,
    ffi::{CString, OsStr},
    fs::{self, File},
    io::{self, Read, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Component, Path, PathBuf},
    rc::Rc,
};
use tar::{Archive, Entry, EntryType};

/// How much one layer may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of all files together.
    pub(super) bytes: u64,
    /// Names.
    pub(super) entries: u64,
}

/// More is no layer of an image that anybody runs.
pub(super) const LIMITS: Limits = Limits { bytes: 64 << 30, entries: 4 << 20 };

/// Of everything that belongs to one name: long names, extended attributes.
const HEADER_BYTES_MAX: u64 = 1 << 20;

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unpacked {
    /// Of all files together.
    pub(super) bytes: u64,
    /// The layer hides everything below it. An overlay does not look for that mark at its root.
    pub(super) hides_all: bool,
}

/// Fails instead of reading more than is left.
struct Meter<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Meter<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("more bytes than an image may have"));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.left.set(left - read as u64);
        Ok(read)
    }
}

/// Unpacks into `root`, an empty directory.
///
/// # Errors
/// The archive is broken or hostile, or the disk refuses. What was made so far is left.
pub(super) fn unpack(
    archive: impl Read,
    root: &Path,
    limits: Limits,
) -> Result<Unpacked, ImageError> {
    let left = Rc::new(Cell::new(HEADER_BYTES_MAX));
    let mut archive = Archive::new(Meter { inner: archive, left: Rc::clone(&left) });
    let mut tree = Tree::open(root)?;
    let mut count = 0;
    let broken = |error| ImageError::Malformed(format!("tar archive: {error}"));
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        count += 1;
        if count > limits.entries {
            let text = format!("more than {} files and directories", limits.entries);
            return Err(ImageError::Malformed(text));
        }
        // A file's own bytes count against the layer, what describes it against the header. One
        // byte more is left, so that the layer's bound is what is complained about.
        let rest = limits.bytes - tree.bytes;
        left.set(rest.saturating_add(HEADER_BYTES_MAX));
        let name = entry.path_bytes().into_owned();
        tree.add(&mut entry, &name, rest)
            .map_err(|error| error.about(&format!("entry {:?}", String::from_utf8_lossy(&name))))?;
        io::copy(&mut entry, &mut io::sink()).map_err(broken)?;
        left.set(HEADER_BYTES_MAX);
    }
    tree.finish();
    Ok(Unpacked { bytes: tree.bytes, hides_all: tree.hides_all })
}

/// A name without `.` and leading `/`.
fn normal(name: &[u8]) -> Result<PathBuf, ImageError> {
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::Normal(part) => path.push(part),
            Component::ParentDir => {
                return Err(ImageError::Malformed("it leads out of the image with ..".to_owned()));
            }
        }
    }
    Ok(path)
}

/// What stands beside a name.
struct Attributes {
    uid: Uid,
    gid: Gid,
    mode: Mode,
    modified: TimeSpec,
    extended: Vec<(CString, Vec<u8>)>,
}

impl Attributes {
    fn read<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Self> {
        let header = entry.header();
        let number =
            |id: u64| u32::try_from(id).map_err(|_| io::Error::other("an owner out of range"));
        let (uid, gid) = (number(header.uid()?)?, number(header.gid()?)?);
        let mode = header.mode()? & 0o7777;
        let mut seconds = i64::try_from(header.mtime().unwrap_or_default()).unwrap_or_default();
        let mut extended = Vec::new();
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            let Ok(key) = extension.key() else { continue };
            if key == "mtime" {
                let text = extension.value().unwrap_or_default();
                let whole = text.split('.').next().unwrap_or_default();
                seconds = whole.parse().unwrap_or(seconds);
            }
            // Nothing else: `trusted.overlay.*` would speak to the overlay itself.
            let name = key.strip_prefix("SCHILY.xattr.").filter(|name| {
                *name == "security.capability"
                    || name.starts_with("user.") && !name.starts_with("user.overlay.")
            });
            if let Some(name) = name.and_then(|name| CString::new(name).ok()) {
                extended.push((name, extension.value_bytes().to_vec()));
            }
        }
        Ok(Self {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            mode: Mode::from_bits_truncate(mode),
            modified: TimeSpec::new(seconds, 0),
            extended,
        })
    }

    /// Owner before mode and attributes: a change of owner takes both away.
    fn set(&self, file: &OwnedFd) -> nix::Result<()> {
        fchown(file, Some(self.uid), Some(self.gid))?;
        fchmod(file, self.mode)?;
        for (name, value) in &self.extended {
            if let Err(error) = sys::set_xattr(file.as_fd(), name, value) {
                tracing::debug!(%error, ?name, "an extended attribute is left out");
            }
        }
        futimens(file, &self.modified, &self.modified)
    }
}

struct Tree {
    root: OwnedFd,
    /// The directory of the last name: the next one is mostly in it, too.
    last: Option<(PathBuf, Rc<OwnedFd>)>,
    /// Whiteouts made so far. They are about lower layers only: what this one has replaces them.
    hidden: BTreeSet<PathBuf>,
    /// Their times are set when nothing is put into them any more.
    directories: Vec<(PathBuf, TimeSpec)>,
    bytes: u64,
    hides_all: bool,
}

/// Whiteouts (OCI image layer specification).
const HIDE: &[u8] = b".wh.";
const HIDE_OTHERS: &[u8] = b".wh..wh..opq";
const RESERVED: &[u8] = b".wh..wh.";

impl Tree {
    fn open(root: &Path) -> Result<Self, ImageError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = nix::fcntl::open(root, flags, Mode::empty())
            .map_err(io_error("open the layer's directory"))?;
        Ok(Self {
            root,
            last: None,
            hidden: BTreeSet::new(),
            directories: Vec::new(),
            bytes: 0,
            hides_all: false,
        })
    }

    fn add<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        name: &[u8],
        left: u64,
    ) -> Result<(), ImageError> {
        let path = normal(name)?;
        let kind = entry.header().entry_type();
        let attributes = Attributes::read(entry).map_err(io_error("read the header"))?;
        let Some(name) = path.file_name() else {
            if kind == EntryType::Directory {
                let root = within::open(&self.root, &path, OFlag::O_RDONLY)
                    .map_err(io_error("open the root"))?;
                attributes.set(&root).map_err(io_error("set attributes"))?;
                self.directories.push((path, attributes.modified));
            }
            return Ok(());
        };
        let parent_path = path.parent().unwrap_or(Path::new(""));
        let parent = self.parent(parent_path)?;
        let bytes = name.as_bytes();
        if bytes == HIDE_OTHERS {
            if parent_path.as_os_str().is_empty() {
                self.hides_all = true;
            }
            return make_opaque(&parent);
        }
        if bytes.starts_with(RESERVED) {
            return Ok(());
        }
        if let Some(hidden) = bytes.strip_prefix(HIDE) {
            return self.hide(&parent, parent_path, OsStr::from_bytes(hidden));
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "an archive may have any number there")]
        match kind {
            EntryType::Directory => self.directory(&parent, &path, &attributes),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.clear(&parent, &path)?;
                self.file(entry, &parent, name, &attributes, left)
            }
            EntryType::Symlink => {
                self.clear(&parent, &path)?;
                let target = entry.link_name_bytes().unwrap_or_default();
                symlinkat(OsStr::from_bytes(&target), &parent, name)
                    .map_err(io_error("make the link"))?;
                own(&parent, name, &attributes)
            }
            EntryType::Link => {
                let target = normal(&entry.link_name_bytes().unwrap_or_default())?;
                self.link(&parent, &path, &target)
            }
            EntryType::Fifo => {
                self.clear(&parent, &path)?;
                self.node(&parent, name, SFlag::S_IFIFO, 0, &attributes)
            }
            EntryType::Char | EntryType::Block => {
                self.clear(&parent, &path)?;
                let header = entry.header();
                let number = |part: io::Result<Option<u32>>| {
                    part.map(Option::unwrap_or_default).map_err(io_error("read the header"))
                };
                let device = makedev(
                    number(header.device_major())?.into(),
                    number(header.device_minor())?.into(),
                );
                let kind = if kind == EntryType::Char { SFlag::S_IFCHR } else { SFlag::S_IFBLK };
                self.node(&parent, name, kind, device, &attributes)
            }
            // Comments for the whole archive and the like.
            _ => Ok(()),
        }
    }

    /// A directory that something is to be put into; made when the archive has not said it.
    fn parent(&mut self, path: &Path) -> Result<Rc<OwnedFd>, ImageError> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(Rc::clone(fd));
        }
        let ancestors: Vec<PathBuf> =
            path.ancestors().filter(|a| self.hidden.contains(*a)).map(Path::to_owned).collect();
        for hidden in ancestors {
            self.show(&hidden)?;
        }
        let fd = within::directory(&self.root, path)
            .map_err(io_error(format!("open its directory {}", path.display())))?;
        let fd = Rc::new(fd);
        self.last = Some((path.to_owned(), Rc::clone(&fd)));
        Ok(fd)
    }

    /// A whiteout becomes an empty directory that hides what lower layers have there.
    fn show(&mut self, path: &Path) -> Result<(), ImageError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        let parent = within::directory(&self.root, parent).map_err(io_error("open"))?;
        self.hidden.remove(path);
        unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)
            .map_err(io_error("replace a whiteout"))?;
        mkdirat(&parent, name, Mode::from_bits_truncate(0o755))
            .map_err(io_error("make a directory"))?;
        make_opaque(&open_directory(&parent, name)?)
    }

    fn hide(
        &mut self,
        parent: &OwnedFd,
        parent_path: &Path,
        name: &OsStr,
    ) -> Result<(), ImageError> {
        if matches!(name.as_bytes(), b"" | b"." | b"..") {
            return Err(ImageError::Malformed("it hides nothing that has a name".to_owned()));
        }
        match within::kind(parent, Path::new(name)) {
            Some(SFlag::S_IFDIR) => make_opaque(&open_directory(parent, name)?),
            Some(_) => Ok(()),
            None => {
                mknodat(parent, name, SFlag::S_IFCHR, Mode::empty(), 0)
                    .map_err(io_error("make a whiteout"))?;
                self.hidden.insert(parent_path.join(name));
                Ok(())
            }
        }
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        path: &Path,
        attributes: &Attributes,
    ) -> Result<(), ImageError> {
        let name = path.file_name().unwrap_or_default();
        if self.hidden.contains(path) {
            self.show(path)?;
        } else if within::kind(parent, Path::new(name)) != Some(SFlag::S_IFDIR) {
            self.clear(parent, path)?;
            mkdirat(parent, name, Mode::from_bits_truncate(0o700))
                .map_err(io_error("make the directory"))?;
        }
        let directory = open_directory(parent, name)?;
        attributes.set(&directory).map_err(io_error("set attributes"))?;
        self.directories.push((path.to_owned(), attributes.modified));
        Ok(())
    }

    /// Takes away what is there under this name: the last one counts.
    fn clear(&mut self, parent: &OwnedFd, path: &Path) -> Result<(), ImageError> {
        let name = path.file_name().unwrap_or_default();
        self.hidden.remove(path);
        match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EISDIR | Errno::EPERM) => {}
            Err(error) => return Err(io_error("replace what was there")(error)),
        }
        self.last = None;
        self.hidden.retain(|hidden| !hidden.starts_with(path));
        // Never follows a link.
        fs::remove_dir_all(within::path_of(parent).join(name))
            .map_err(io_error("replace what was there"))
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        parent: &OwnedFd,
        name: &OsStr,
        attributes: &Attributes,
        left: u64,
    ) -> Result<(), ImageError> {
        let flags =
            OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(parent, name, flags, Mode::from_bits_truncate(0o600))
            .map_err(io_error("make the file"))?;
        let mut file = File::from(file);
        if entry.size() > left {
            return Err(ImageError::Malformed(format!(
                "with its {} bytes the layer is too large to be unpacked",
                entry.size()
            )));
        }
        self.bytes += io::copy(entry, &mut file).map_err(io_error("write the file"))?;
        file.flush().map_err(io_error("write the file"))?;
        attributes.set(&OwnedFd::from(file)).map_err(io_error("set attributes"))
    }

    fn link(&mut self, parent: &OwnedFd, path: &Path, target: &Path) -> Result<(), ImageError> {
        let shown = target.display();
        let (Some(dir), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(ImageError::Malformed(format!("a hard link to {shown:?}")));
        };
        if path == target {
            return Ok(());
        }
        let step = || format!("make a hard link to {shown}");
        let dir = within::open(&self.root, dir, OFlag::O_PATH | OFlag::O_DIRECTORY)
            .map_err(io_error(step()))?;
        if within::kind(&dir, Path::new(name)).is_none() {
            return Err(ImageError::Malformed(format!(
                "a hard link to {shown}, which is not there"
            )));
        }
        self.clear(parent, path)?;
        let own = path.file_name().unwrap_or_default();
        linkat(&dir, name, parent, own, LinkatFlags::empty()).map_err(io_error(step()))
    }

    fn node(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        kind: SFlag,
        device: u64,
        attributes: &Attributes,
    ) -> Result<(), ImageError> {
        match mknodat(parent, name, kind, attributes.mode, device) {
            Ok(()) => {}
            // A container has devices of its own.
            Err(Errno::EPERM) if kind != SFlag::S_IFIFO => return Ok(()),
            Err(error) => return Err(io_error("make the device")(error)),
        }
        own(parent, name, attributes)?;
        fchmodat(parent, name, attributes.mode, FchmodatFlags::FollowSymlink)
            .map_err(io_error("set its mode"))
    }

    fn finish(&mut self) {
        for (path, modified) in &self.directories {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
            if let Ok(directory) = within::open(&self.root, path, flags) {
                let _ = futimens(&directory, modified, modified);
            }
        }
    }
}

/// Of what is not opened: a link, a device.
fn own(parent: &OwnedFd, name: &OsStr, attributes: &Attributes) -> Result<(), ImageError> {
    let (uid, gid) = (Some(attributes.uid), Some(attributes.gid));
    fchownat(parent, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(io_error("set its owner"))?;
    let time = &attributes.modified;
    utimensat(parent, name, time, time, UtimensatFlags::NoFollowSymlink)
        .map_err(io_error("set its time"))
}

fn open_directory(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, ImageError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty()).map_err(io_error("open the directory"))
}

/// Hides what lower layers have in this directory.
fn make_opaque(directory: &OwnedFd) -> Result<(), ImageError> {
    let open = within::open(directory, Path::new("."), OFlag::O_RDONLY | OFlag::O_DIRECTORY)
        .map_err(io_error("open the directory"))?;
    sys::set_xattr(open.as_fd(), c"trusted.overlay.opaque", b"y")
        .map_err(io_error("mark the directory as opaque"))
}

#[cfg(test)]
mod tests;
