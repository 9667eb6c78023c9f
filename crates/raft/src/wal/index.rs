//! Where each entry is: in memory while it is young, in a segment once it is written.

use super::Marks;
use crate::disk::DiskFile;
use bytes::Bytes;
use std::{collections::VecDeque, io, sync::Arc};

/// Bytes of written entries that stay in memory, for followers that are a little behind.
const CACHE_BYTES: usize = 8 << 20;

/// Entries by index, without holes.
#[derive(Default)]
pub(super) struct Index {
    pub(super) marks: Marks,
    /// The disk has refused: nothing is taken any more.
    pub(super) failed: bool,
    first: u64,
    slots: VecDeque<Slot>,
    /// Slots before this position hold no body.
    cached_from: usize,
    cached_bytes: usize,
    unwritten_bytes: usize,
}

struct Slot {
    body: Option<Bytes>,
    written: Option<Position>,
}

/// A body in a segment.
#[derive(Clone)]
pub(super) struct Position {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) offset: u64,
    pub(super) len: usize,
    pub(super) crc: u32,
}

/// An entry that can be loaded without the lock.
pub(super) enum Place {
    Memory(Bytes),
    Disk(Position),
}

impl Place {
    pub(super) fn in_memory(&self) -> bool {
        matches!(self, Self::Memory(_))
    }

    pub(super) fn load(self) -> io::Result<Bytes> {
        match self {
            Self::Memory(body) => Ok(body),
            Self::Disk(position) => {
                let mut body = vec![0; position.len];
                position.file.read_at(&mut body, position.offset)?;
                if crc32fast::hash(&body) != position.crc {
                    let offset = position.offset;
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("the log entry at offset {offset} has changed on disk"),
                    ));
                }
                Ok(body.into())
            }
        }
    }
}

impl Index {
    pub(super) fn bounds(&self) -> Option<(u64, u64)> {
        let count = self.slots.len() as u64;
        (count > 0).then(|| (self.first, self.first + count - 1))
    }

    pub(super) fn unwritten_bytes(&self) -> usize {
        self.unwritten_bytes
    }

    pub(super) fn push(&mut self, index: u64, body: Bytes) {
        if self.slots.is_empty() {
            self.first = index;
            self.cached_from = 0;
        }
        assert_eq!(index, self.first + self.slots.len() as u64, "a log without holes");
        self.cached_bytes += body.len();
        self.unwritten_bytes += body.len();
        self.slots.push_back(Slot { body: Some(body), written: None });
    }

    /// The entry at `index` is durable. One that was truncated meanwhile is gone.
    pub(super) fn written(&mut self, index: u64, position: Position) {
        self.unwritten_bytes = self.unwritten_bytes.saturating_sub(position.len);
        if let Some(slot) = index
            .checked_sub(self.first)
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| self.slots.get_mut(at))
            && slot.written.is_none()
        {
            slot.written = Some(position);
        }
        self.evict();
    }

    fn evict(&mut self) {
        while self.cached_bytes > CACHE_BYTES {
            let Some(slot) = self.slots.get_mut(self.cached_from) else { return };
            if slot.written.is_none() {
                return;
            }
            self.cached_bytes -= slot.body.take().map_or(0, |body| body.len());
            self.cached_from += 1;
        }
    }

    pub(super) fn truncate_after(&mut self, last: Option<u64>) {
        let keep = match last {
            None => 0,
            Some(last) if last < self.first => 0,
            Some(last) => usize::try_from(last - self.first + 1).unwrap_or(usize::MAX),
        };
        while self.slots.len() > keep {
            if let Some(body) = self.slots.pop_back().and_then(|slot| slot.body) {
                self.cached_bytes -= body.len();
            }
        }
        self.cached_from = self.cached_from.min(self.slots.len());
    }

    pub(super) fn purge(&mut self, last: u64) {
        while !self.slots.is_empty() && self.first <= last {
            if let Some(body) = self.slots.pop_front().and_then(|slot| slot.body) {
                self.cached_bytes -= body.len();
            }
            self.cached_from = self.cached_from.saturating_sub(1);
            self.first += 1;
        }
    }

    pub(super) fn places(&self, start: u64, end: u64, bytes_max: usize) -> Vec<Place> {
        let mut places = Vec::new();
        let mut bytes = 0;
        let skip = usize::try_from(start.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let from = start.max(self.first);
        let take = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX);
        for slot in self.slots.iter().skip(skip).take(take) {
            let (place, len) = match (&slot.body, &slot.written) {
                (Some(body), _) => (Place::Memory(body.clone()), body.len()),
                (None, Some(position)) => (Place::Disk(position.clone()), position.len),
                (None, None) => unreachable!("an entry is in memory until it is written"),
            };
            if !places.is_empty() && bytes + len > bytes_max {
                break;
            }
            bytes += len;
            places.push(place);
        }
        places
    }
}
