//! Any bytes as a log or a snapshot: what decodes them must be total.

use crate::{
    disk::{Disk as _, DiskFile, MemoryDisk},
    snapshot,
    wal::{self, Wal},
};
use std::{io, path::Path, sync::Arc};

/// Bytes of the segments that the log makes behind what it is given.
const SEGMENT: u64 = 4 << 10;

fn file(disk: &MemoryDisk, path: &Path, bytes: &[u8]) -> io::Result<Box<dyn DiskFile>> {
    let file = disk.create(path)?;
    file.write_at(bytes, 0)?;
    file.sync_data()?;
    Ok(file)
}

/// Opens a log whose first segment is `bytes`, reads all of it, and opens it again.
///
/// # Errors
/// As [`Wal::open`] and [`Wal::read`]: refused, and never anything else.
pub fn log_segment(bytes: &[u8]) -> Result<(), String> {
    let disk = MemoryDisk::default();
    let dir = Path::new("log");
    file(&disk, &dir.join("0000000000000001.wal"), bytes).map_err(|e| e.to_string())?;
    let mut found = Vec::new();
    for _ in 0..2 {
        let wal = Wal::open(Arc::new(disk.clone()), dir, SEGMENT, Box::new(|_| {}))
            .map_err(|error| error.to_string())?;
        let (first, last) = wal.bounds().unwrap_or_default();
        let bodies = wal.read(first, last.saturating_add(1), usize::MAX);
        found.push((wal.bounds(), bodies.map_err(|error| error.to_string())?, wal.marks()));
    }
    assert!(found.windows(2).all(|pair| pair.first() == pair.last()), "it opens as it did before");
    Ok(())
}

/// As [`log_segment`], of records whose frames are in order: `bytes` are bodies, each behind two bytes
/// that say how long it is.
///
/// # Errors
/// As [`log_segment`].
pub fn log_records(bytes: &[u8]) -> Result<(), String> {
    log_segment(&wal::segment_of(pieces(bytes)))
}

/// Reads a snapshot.
///
/// # Errors
/// Refused, with the offset; never anything else.
pub fn snapshot(bytes: &[u8]) -> Result<(), String> {
    let path = Path::new("snapshot");
    let file = file(&MemoryDisk::default(), path, bytes).map_err(|e| e.to_string())?;
    match snapshot::read(path, &*file) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("corrupt at offset"), "refused by file and offset: {text}");
            Err(text)
        }
    }
}

/// As `snapshot`, of blocks whose checksums are right: `bytes` are their bodies, each behind two bytes
/// that say how long it is.
///
/// # Errors
/// As `snapshot`.
pub fn snapshot_blocks(bytes: &[u8]) -> Result<(), String> {
    snapshot(&snapshot::file_of(pieces(bytes)))
}

fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk()?;
        let (piece, rest) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
        bytes = rest;
        Some(piece)
    })
}

/// Files to begin with: a log segment and a snapshot of a state that has something of everything, and
/// the bodies of their records and blocks.
#[must_use]
pub fn seeds() -> [Vec<u8>; 4] {
    let (records, blocks) = (wal::sample_bodies(), snapshot::sample_bodies());
    let joined = |bodies: &[Vec<u8>]| {
        let piece = |body: &Vec<u8>| {
            let len = u16::try_from(body.len()).unwrap_or(u16::MAX).to_le_bytes();
            len.into_iter().chain(body.clone()).collect::<Vec<u8>>()
        };
        bodies.iter().flat_map(piece).collect::<Vec<u8>>()
    };
    [
        wal::segment_of(records.iter().map(Vec::as_slice)),
        joined(&records),
        snapshot::file_of(blocks.iter().map(Vec::as_slice)),
        joined(&blocks),
    ]
}
