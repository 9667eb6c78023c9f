//! Files of certificates and keys: written whole or not at all, and keys for their owner alone.

use crate::PkiError;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// # Errors
/// Names the file.
pub fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    fs::read(path).map_err(|source| PkiError::Read { path: path.to_owned(), source })
}

/// Writes, or replaces, a file that only its owner may read. Whoever reads meanwhile reads all of the old
/// one or all of the new one.
///
/// # Errors
/// Names the file.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    replace(path, bytes, 0o600).map_err(|source| PkiError::Write { path: path.to_owned(), source })
}

/// As [`write_secret`], for all to read.
///
/// # Errors
/// Names the file.
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    replace(path, bytes, 0o644).map_err(|source| PkiError::Write { path: path.to_owned(), source })
}

/// Writes a file that only its owner may read, and that is not there yet.
///
/// # Errors
/// It is there; names the file.
pub fn create_secret(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    create(path, bytes, 0o600).map_err(|source| PkiError::Write { path: path.to_owned(), source })
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let aside = aside(path);
    // What an earlier attempt has left, with whatever permissions.
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    write_new(&aside, bytes, mode)?;
    fs::rename(&aside, path)?;
    sync_parent(path)
}

/// Whole, or not there: a link does not replace what is there, as a renaming would.
fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let aside = aside(path);
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    write_new(&aside, bytes, mode)?;
    let linked = fs::hard_link(&aside, path);
    fs::remove_file(&aside)?;
    linked?;
    sync_parent(path)
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}
