//! Keys and values that say which write they are of, so that whatever is read can be told from what should be.

use super::violation::Violation;
use crate::operation::value;
use bytes::{Bytes, BytesMut};
use etcd::proto::mvccpb::KeyValue;
use std::fmt;

/// Every key of a soak begins so.
pub(super) const PREFIX: &str = "trireme-soak/";
/// First key after all of them.
pub(super) const PREFIX_END: &str = "trireme-soak0";
/// Keys that there may be.
pub(super) const KEYS: u32 = 10_000;
/// Of those, the first: only written with a lease.
pub(super) const LEASED: u32 = 200;
const VALUE_BYTES: usize = 256;
const KEY_DIGITS: usize = 8;

/// etcd's `mod_revision`, and its header's; 0 is before everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Revision(pub(super) i64);

/// A key by its number, below [`KEYS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(pub(super) u32);

/// A write that stores a value, by its number; none is sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Write(pub(super) u64);

/// What a write does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Put(Write),
    Delete,
}

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Absent,
    Present { write: Write, mod_revision: Revision },
}

/// A pair of ours, as a server gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Found {
    pub(super) key: Key,
    pub(super) write: Write,
    pub(super) create_revision: Revision,
    pub(super) mod_revision: Revision,
    pub(super) version: i64,
}

/// What a watch delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Event {
    Put(Found),
    Delete { key: Key, mod_revision: Revision },
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:0KEY_DIGITS$}", self.0)
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "write {}", self.0)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(write) => write.fmt(f),
            Self::Delete => f.write_str("a delete"),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("nothing"),
            Self::Present { write, mod_revision } => {
                write!(f, "{write} of revision {mod_revision}")
            }
        }
    }
}

impl Key {
    pub(super) fn is_leased(self) -> bool {
        self.0 < LEASED
    }

    pub(super) fn name(self) -> Bytes {
        self.to_string().into()
    }

    /// # Errors
    /// It is none of ours.
    pub(super) fn parse(name: &[u8]) -> Result<Self, Violation> {
        let digits = name.strip_prefix(PREFIX.as_bytes()).and_then(|d| str::from_utf8(d).ok());
        let number = digits.filter(|d| d.len() == KEY_DIGITS).and_then(|d| d.parse().ok());
        number.filter(|number| *number < KEYS).map(Self).ok_or_else(|| Violation::ForeignKey {
            name: String::from_utf8_lossy(name).into_owned(),
        })
    }
}

/// Makes the values of writes.
#[derive(Debug)]
pub(super) struct Values(Bytes);

impl Default for Values {
    fn default() -> Self {
        Self(value(VALUE_BYTES))
    }
}

impl Values {
    /// Names the key and the write; the rest is always the same.
    pub(super) fn of(&self, key: Key, write: Write) -> Bytes {
        let mut all = BytesMut::from(format!("{:08} {:012} ", key.0, write.0).as_bytes());
        all.extend_from_slice(self.0.get(all.len()..).unwrap_or_default());
        all.freeze()
    }

    /// # Errors
    /// The key, or the value under it, is none that was ever written there.
    pub(super) fn read(&self, kv: &KeyValue) -> Result<Found, Violation> {
        let key = Key::parse(&kv.key)?;
        let mod_revision = Revision(kv.mod_revision);
        let number =
            kv.value.get(KEY_DIGITS + 1..).and_then(|rest| rest.split(|b| *b == b' ').next());
        let number = number.and_then(|d| str::from_utf8(d).ok()).and_then(|d| d.parse().ok());
        let write = number.map(Write).filter(|write| self.of(key, *write) == kv.value);
        let write = write.ok_or_else(|| {
            let start = kv.value.get(..kv.value.len().min(32)).unwrap_or_default();
            let start = String::from_utf8_lossy(start).into_owned();
            Violation::ForeignValue { key, mod_revision, start }
        })?;
        let create_revision = Revision(kv.create_revision);
        Ok(Found { key, write, create_revision, mod_revision, version: kv.version })
    }
}

impl Change {
    /// Whether a key may be found so after it.
    pub(super) fn leaves(self, state: State) -> bool {
        match (self, state) {
            (Self::Put(put), State::Present { write, .. }) => put == write,
            (Self::Delete, State::Absent) => true,
            (Self::Put(_), State::Absent) | (Self::Delete, State::Present { .. }) => false,
        }
    }
}

impl Event {
    pub(super) fn key(&self) -> Key {
        match self {
            Self::Put(found) => found.key,
            Self::Delete { key, .. } => *key,
        }
    }

    pub(super) fn revision(&self) -> Revision {
        match self {
            Self::Put(found) => found.mod_revision,
            Self::Delete { mod_revision, .. } => *mod_revision,
        }
    }
}

impl Found {
    pub(super) fn state(&self) -> State {
        State::Present { write: self.write, mod_revision: self.mod_revision }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_names_its_key_and_write_and_no_other_pair_is_taken_for_one() {
        let values = Values::default();
        let kv = KeyValue {
            key: Key(17).name(),
            value: values.of(Key(17), Write(99)),
            mod_revision: 5,
            create_revision: 4,
            version: 2,
            ..KeyValue::default()
        };
        assert_eq!(kv.value.len(), VALUE_BYTES);
        let found = values.read(&kv).unwrap();
        assert_eq!((found.key, found.write, found.version), (Key(17), Write(99), 2));
        let mut flipped = kv.value.to_vec();
        flipped[200] ^= 1;
        for (what, key, value) in [
            ("the value of another key", Key(18).name(), kv.value.clone()),
            ("a flipped bit", kv.key.clone(), flipped.into()),
            ("a cut value", kv.key.clone(), kv.value.slice(..100)),
            ("no value", kv.key.clone(), Bytes::new()),
            ("a number too large", Bytes::from("trireme-soak/00010000"), kv.value.clone()),
            ("no number", Bytes::from("trireme-soak/x"), kv.value.clone()),
        ] {
            assert!(values.read(&KeyValue { key, value, ..kv.clone() }).is_err(), "{what}");
        }
        assert!(Key(KEYS - 1).name() < PREFIX_END);
    }
}
