//! What a record is, and its bytes inside a frame.

use bytes::Bytes;

/// What a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// The entry at an index, one above the last.
    Entry { index: u64, body: Bytes },
    /// Replaces the vote.
    Vote(Bytes),
    /// Replaces what is known to be committed.
    Committed(Bytes),
    /// Entries above `last` are void.
    Truncate { last: Option<u64> },
    /// Entries up to `last` are not needed any more.
    Purge { last: u64, body: Bytes },
    /// Says nothing but where it stands: what lies before it had been synced.
    Seal,
}

/// Beyond every index: there is always room to count on.
const INDEX_END: u64 = 1 << 62;

const ENTRY: u8 = 1;
const VOTE: u8 = 2;
const COMMITTED: u8 = 3;
const TRUNCATE: u8 = 4;
const PURGE: u8 = 5;
const SEAL: u8 = 6;

pub(super) fn encode(record: &Record, body: &mut Vec<u8>) {
    body.clear();
    let (kind, number, rest): (u8, Option<u64>, &[u8]) = match record {
        Record::Entry { index, body } => (ENTRY, Some(*index), body),
        Record::Vote(vote) => (VOTE, None, vote),
        Record::Committed(id) => (COMMITTED, None, id),
        // 0 is "nothing is left": an index of its own is stored one higher.
        Record::Truncate { last } => (TRUNCATE, Some(last.map_or(0, |l| l + 1)), &[]),
        Record::Purge { last, body } => (PURGE, Some(*last), body),
        Record::Seal => (SEAL, None, &[]),
    };
    body.push(kind);
    body.extend(number.into_iter().flat_map(u64::to_le_bytes));
    body.extend_from_slice(rest);
}

pub(super) fn decode(body: &[u8]) -> Option<Record> {
    let (kind, rest) = body.split_first()?;
    let numbered = || {
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let number = u64::from_le_bytes(*number);
        (number < INDEX_END).then_some((number, rest))
    };
    let copy = Bytes::copy_from_slice;
    Some(match *kind {
        ENTRY => numbered().map(|(index, body)| Record::Entry { index, body: copy(body) })?,
        VOTE => Record::Vote(copy(rest)),
        COMMITTED => Record::Committed(copy(rest)),
        TRUNCATE => numbered().map(|(last, _)| Record::Truncate { last: last.checked_sub(1) })?,
        PURGE => numbered().map(|(last, body)| Record::Purge { last, body: copy(body) })?,
        SEAL if rest.is_empty() => Record::Seal,
        _ => return None,
    })
}
