//! Ranges of keys: how the wire says them, and what lies in them.

use crate::types::KeyRange;
use bytes::Bytes;

impl KeyRange {
    /// The keys from `key` as the etcd wire says them: an empty `range_end` is one key, a zero byte is
    /// everything from `key` on.
    #[must_use]
    pub fn from_wire(key: Bytes, range_end: Bytes) -> Self {
        match range_end.as_ref() {
            [] => Self::One(key),
            [0] => Self::From(key),
            _ => Self::Between { start: key, end: range_end },
        }
    }

    /// Every key that begins with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start: Bytes = prefix.into();
        let mut end = start.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self::Between { start, end: end.into() };
            }
        }
        Self::From(start)
    }

    /// Whether `key` is in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one == key,
            Self::Between { start, end } => start <= key && key < end.as_ref(),
            Self::From(start) => start <= key,
        }
    }

    /// The first key that may be in it.
    #[must_use]
    pub fn start(&self) -> &Bytes {
        match self {
            Self::One(key) | Self::From(key) | Self::Between { start: key, .. } => key,
        }
    }

    /// Whether `key` lies behind every key of the range.
    pub(crate) fn is_past(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one.as_ref() < key,
            Self::Between { end, .. } => end.as_ref() <= key,
            Self::From(_) => false,
        }
    }
}
