//! How a record lies in a segment: length, checksum, batch, body; and how damage is told from a torn
//! end.

use super::WalError;
use std::path::Path;

/// Bytes at the start of a segment: magic, format version, segment id, checksum.
pub(super) const SEGMENT_HEADER: usize = 32;
/// Bytes before a body: `len u32 | crc u32 | batch u32`, little-endian.
pub(super) const FRAME_HEADER: usize = 12;
/// Frames begin at multiples of this, so that a search for them need not try every byte.
const ALIGN: usize = 8;

const MAGIC: &[u8; 8] = b"TRIRMWAL";
const VERSION: u32 = 1;

pub(super) fn segment_header(id: u64) -> [u8; SEGMENT_HEADER] {
    let mut header = [0; SEGMENT_HEADER];
    let (magic, rest) = header.split_at_mut(8);
    magic.copy_from_slice(MAGIC);
    let (version, rest) = rest.split_at_mut(4);
    version.copy_from_slice(&VERSION.to_le_bytes());
    let (number, rest) = rest.split_at_mut(8);
    number.copy_from_slice(&id.to_le_bytes());
    let crc =
        crc32fast::hash(&[MAGIC.as_slice(), &VERSION.to_le_bytes(), &id.to_le_bytes()].concat());
    let (sum, _) = rest.split_at_mut(4);
    sum.copy_from_slice(&crc.to_le_bytes());
    header
}

/// The checksum is seeded with the segment, so that a frame left over from another one never fits.
fn checksum(segment: u64, batch: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(&batch.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// Bytes that a body takes in a segment.
pub(super) const fn framed_len(body: usize) -> usize {
    (FRAME_HEADER + body).next_multiple_of(ALIGN)
}

/// Appends one frame. `batch` is the offset up to which everything had been synced when it was
/// written.
pub(super) fn push(out: &mut Vec<u8>, segment: u64, batch: u32, body: &[u8]) {
    let len = u32::try_from(body.len()).expect("a record is smaller than a segment");
    let end = out.len() + framed_len(body.len());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&checksum(segment, batch, body).to_le_bytes());
    out.extend_from_slice(&batch.to_le_bytes());
    out.extend_from_slice(body);
    out.resize(end, 0);
}

/// One valid frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) offset: usize,
    pub(super) batch: u32,
    pub(super) body: &'a [u8],
}

/// The frame at `offset`, if it is whole.
pub(super) fn at(segment: u64, bytes: &[u8], offset: usize) -> Option<Frame<'_>> {
    let header = bytes.get(offset..offset + FRAME_HEADER)?;
    let (words, _) = header.as_chunks::<4>();
    let [len, crc, batch] = words else { return None };
    let len = u32::from_le_bytes(*len) as usize;
    let batch = u32::from_le_bytes(*batch);
    if len == 0 {
        return None;
    }
    let body = bytes.get(offset + FRAME_HEADER..offset.checked_add(FRAME_HEADER + len)?)?;
    (checksum(segment, batch, body) == u32::from_le_bytes(*crc)).then_some(Frame {
        offset,
        batch,
        body,
    })
}

fn batch_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let word = bytes.get(offset + 8..offset + FRAME_HEADER)?;
    word.first_chunk().map(|word| u32::from_le_bytes(*word))
}

/// What a segment holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan<'a> {
    pub(super) frames: Vec<Frame<'a>>,
    /// First byte behind the last whole frame.
    pub(super) end: usize,
    /// Something other than zeros lies behind `end`: the end was torn and is to be cut.
    pub(super) torn: bool,
}

/// Reads a segment up to its end.
///
/// The frames of the last write may be damaged in any way: a power cut leaves some sectors of it and
/// not others, and nobody was told that they are there. A frame behind the damage that was written
/// *after* the damaged one had been synced proves it: that is corruption.
///
/// # Errors
/// [`WalError::Corrupt`] with file and offset.
pub(super) fn scan<'a>(
    segment: u64,
    path: &Path,
    bytes: &'a [u8],
    last: bool,
) -> Result<Scan<'a>, WalError> {
    let corrupt = |offset: usize, detail: &str| WalError::Corrupt {
        path: path.to_owned(),
        offset: offset as u64,
        detail: detail.to_owned(),
    };
    if bytes.get(..SEGMENT_HEADER) != Some(segment_header(segment).as_slice()) {
        return Err(corrupt(0, "not the header of this segment"));
    }
    let mut frames = Vec::new();
    let mut end = SEGMENT_HEADER;
    while let Some(frame) = at(segment, bytes, end) {
        frames.push(frame);
        end += framed_len(frame.body.len());
    }
    let rest = bytes.get(end..).unwrap_or_default();
    let Some(first) = rest.iter().position(|byte| *byte != 0) else {
        return Ok(Scan { frames, end, torn: false });
    };
    if !last {
        return Err(corrupt(end, "a record is damaged, and later segments follow"));
    }
    let first = end + first / ALIGN * ALIGN;
    for offset in (first..bytes.len()).step_by(ALIGN) {
        // Cheaper than its checksum, and nearly always enough: where its write could have begun.
        let batch = batch_at(bytes, offset).unwrap_or_default() as usize;
        if batch > end && batch <= offset && at(segment, bytes, offset).is_some() {
            return Err(corrupt(
                end,
                "a record is damaged, and records written after it was synced follow",
            ));
        }
    }
    Ok(Scan { frames, end, torn: true })
}
