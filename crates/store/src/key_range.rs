//! Ranges of keys: how the wire says them, and what lies in them.

use crate::types::KeyRange;
use bytes::Bytes;
use std::cmp::Ordering;

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

/// A place between two keys: where a range begins or ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Edge<'a> {
    Before(&'a [u8]),
    /// Before the next longer key.
    Behind(&'a [u8]),
    /// Behind all keys.
    End,
}

impl Edge<'_> {
    /// The first key behind it, in two parts.
    fn next_key(&self) -> Option<(&[u8], &[u8])> {
        match self {
            Self::Before(key) => Some((key, &[])),
            Self::Behind(key) => Some((key, &[0])),
            Self::End => None,
        }
    }
}

impl Ord for Edge<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.next_key(), other.next_key()) {
            (Some((a, a_rest)), Some((b, b_rest))) => {
                a.iter().chain(a_rest).cmp(b.iter().chain(b_rest))
            }
            (a, b) => a.is_none().cmp(&b.is_none()),
        }
    }
}

impl PartialOrd for Edge<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Edge<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Edge<'_> {}

impl KeyRange {
    /// Where it begins and where it ends, as it says: a range without keys may end before it begins.
    pub(crate) fn edges(&self) -> (Edge<'_>, Edge<'_>) {
        match self {
            Self::One(key) => (Edge::Before(key), Edge::Behind(key)),
            Self::Between { start, end } => (Edge::Before(start), Edge::Before(end)),
            Self::From(start) => (Edge::Before(start), Edge::End),
        }
    }

    /// Whether each of its keys, there or not, is in one of `others`.
    #[must_use]
    pub fn is_covered_by<'a>(&self, mut others: impl Iterator<Item = &'a Self>) -> bool {
        if let Self::One(key) = self {
            return others.any(|other| other.contains(key));
        }
        let (start, end) = self.edges();
        let mut others: Vec<_> = others.map(Self::edges).collect();
        others.sort_unstable();
        let mut covered = start;
        for (start, end) in others {
            if start > covered {
                // Nothing that begins later closes this gap.
                break;
            }
            covered = covered.max(end);
        }
        covered >= end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(key: &'static str, end: &'static str) -> KeyRange {
        KeyRange::from_wire(Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes()))
    }

    #[test]
    fn a_range_is_covered_by_others_together_without_a_gap() {
        for (name, range, others, want) in [
            ("one key, itself", wire("a", ""), vec![wire("a", "")], true),
            ("one key, in a range", wire("ab", ""), vec![wire("a", "b")], true),
            ("the end is not in it", wire("b", ""), vec![wire("a", "b")], false),
            ("a longer key", wire("a\0", ""), vec![wire("a", "")], false),
            ("nothing granted", wire("a", ""), vec![], false),
            ("all from a key, one granted", wire("a", "\0"), vec![wire("a", "")], false),
            ("all from a key, many granted", wire("a", "\0"), vec![wire("a", "zzz")], false),
            ("all from a key", wire("b", "\0"), vec![wire("a", "\0")], true),
            ("two that touch", wire("a", "c"), vec![wire("b", "c"), wire("a", "b")], true),
            (
                "two with a key between",
                wire("a", "c"),
                vec![wire("a", "b"), wire("b\0", "c")],
                false,
            ),
            (
                "and that key",
                wire("a", "c"),
                vec![wire("a", "b"), wire("b\0", "c"), wire("b", "")],
                true,
            ),
            (
                "overlapping",
                wire("b", "y"),
                vec![wire("a", "p"), wire("c", "d"), wire("o", "z")],
                true,
            ),
            ("a start too late", wire("a", "c"), vec![wire("aa", "d")], false),
            ("an end too early", wire("a", "c"), vec![wire("a", "bz")], false),
            ("no key at all", wire("c", "a"), vec![], true),
            ("granted backwards", wire("b", "c"), vec![wire("z", "a")], false),
        ] {
            assert_eq!(range.is_covered_by(others.iter()), want, "{name}");
        }
    }
}
