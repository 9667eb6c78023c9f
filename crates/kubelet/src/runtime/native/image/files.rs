//! The files of an image that is kept in a directory or in a tar archive.

use super::{
    error::{ImageError, io_error},
    layer::Blob,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Component, Path, PathBuf},
};

/// Some bytes of a file on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    path: PathBuf,
    offset: u64,
    pub(super) size: u64,
}

impl Slice {
    fn open(&self) -> Result<std::io::Take<File>, ImageError> {
        let step = || format!("read {}", self.path.display());
        let mut file = File::open(&self.path).map_err(io_error(step()))?;
        file.seek(SeekFrom::Start(self.offset)).map_err(io_error(step()))?;
        Ok(file.take(self.size))
    }

    /// Everything, if it is not more than `max`.
    pub(super) fn read(&self, max: u64) -> Result<Vec<u8>, ImageError> {
        if self.size > max {
            let text = format!("{}: {} bytes where {max} are most", self.path.display(), self.size);
            return Err(ImageError::Malformed(text));
        }
        let mut bytes = Vec::new();
        self.open()?
            .read_to_end(&mut bytes)
            .map_err(io_error(format!("read {}", self.path.display())))?;
        Ok(bytes)
    }

    /// As a layer.
    pub(super) fn blob(&self) -> Result<Blob, ImageError> {
        Ok(Blob { reader: Box::new(self.open()?), pump: Box::pin(async { Ok(()) }) })
    }
}

/// Names and where they are.
pub(super) enum Files {
    /// Below a directory.
    Dir(PathBuf),
    /// In a tar archive that is not compressed.
    Tar { path: PathBuf, index: BTreeMap<PathBuf, Slice> },
}

/// An archive of an image has a handful of files.
const FILES_MAX: usize = 10_000;

impl Files {
    /// Opens an archive.
    pub(super) fn archive(path: &Path) -> Result<Self, ImageError> {
        let step = || format!("read {}", path.display());
        regular(path)?;
        let file = File::open(path).map_err(io_error(step()))?;
        let mut archive = tar::Archive::new(file);
        let mut index = BTreeMap::new();
        let mut links = Vec::new();
        for entry in archive.entries_with_seek().map_err(io_error(step()))? {
            let entry = entry.map_err(io_error(format!(
                "{} is not a tar archive that can be read (a compressed one cannot)",
                path.display()
            )))?;
            if index.len() >= FILES_MAX {
                let text = format!("{} has more files than an image has", path.display());
                return Err(ImageError::Malformed(text));
            }
            let name = clean(&entry.path().map_err(io_error(step()))?);
            let target = entry.link_name().map_err(io_error(step()))?;
            match (entry.header().entry_type(), target) {
                (tar::EntryType::Regular, _) => {
                    let (offset, size) = (entry.raw_file_position(), entry.size());
                    index.insert(name, Slice { path: path.to_owned(), offset, size });
                }
                // One layer that an image has twice.
                (tar::EntryType::Symlink, Some(target)) => {
                    let from = name.parent().unwrap_or(Path::new("")).join(target);
                    links.push((name, clean(&from)));
                }
                (tar::EntryType::Link, Some(target)) => links.push((name, clean(&target))),
                _ => {}
            }
        }
        for (name, target) in links {
            if let Some(slice) = index.get(&target).cloned() {
                index.insert(name, slice);
            }
        }
        Ok(Self::Tar { path: path.to_owned(), index })
    }

    /// What the whole is called in messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Dir(path) | Self::Tar { path, .. } => path.display().to_string(),
        }
    }

    /// # Errors
    /// There is no such file.
    pub(super) fn find(&self, name: &str) -> Result<Slice, ImageError> {
        match self {
            Self::Dir(dir) => {
                let path = dir.join(name);
                let size = regular(&path)?;
                Ok(Slice { path, offset: 0, size })
            }
            Self::Tar { index, .. } => {
                index.get(&clean(Path::new(name))).cloned().ok_or_else(|| {
                    ImageError::Malformed(format!("{} has no file {name}", self.shown()))
                })
            }
        }
    }
}

/// The size of a regular file: a pipe would be waited for.
fn regular(path: &Path) -> Result<u64, ImageError> {
    let metadata = fs::metadata(path).map_err(io_error(format!("open {}", path.display())))?;
    if !metadata.is_file() {
        return Err(ImageError::Malformed(format!("{} is not a file", path.display())));
    }
    Ok(metadata.len())
}

/// Without `.` and `..`.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => out.push(part),
            Component::ParentDir => drop(out.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}
