//! What a node must know after a restart of its agent and can learn from nobody else: records on disk.
//!
//! Nothing waits for the disk, everything on it can be lost, and each record has a version and a checksum of
//! its own.

use crate::disk::{Changes, Contents, Records};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Of every record: what bincode writes has no room for fields to come.
const VERSION: u8 = 1;

/// Records by key. Changes are written in the background, the latest of each key.
#[derive(Default)]
pub(crate) struct Journal {
    changes: Mutex<Changes>,
    changed: Notify,
}

impl Journal {
    /// Keeps a record instead of the one that was there.
    pub(crate) fn put<R: Serialize>(&self, key: String, record: &R) {
        match encode(record) {
            Ok(bytes) => self.change(key, Some(bytes)),
            Err(error) => tracing::warn!(%error, key, "a record cannot be encoded"),
        }
    }

    /// Forgets a record.
    pub(crate) fn remove(&self, key: String) {
        self.change(key, None);
    }

    fn change(&self, key: String, change: Option<Vec<u8>>) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).insert(key, change);
        self.changed.notify_one();
    }

    fn take(&self) -> Changes {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes what changes until `shutdown`, and then the rest.
    pub(crate) async fn write(
        self: Arc<Self>,
        mut records: Box<dyn Records>,
        shutdown: CancellationToken,
    ) {
        loop {
            let last = tokio::select! {
                () = self.changed.notified() => false,
                () = shutdown.cancelled() => true,
            };
            records.apply(self.take()).await;
            if last {
                return;
            }
        }
    }
}

/// The records as read when the agent started.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Found(pub(crate) Contents);

impl Found {
    /// Every record below a prefix that can be read, by the rest of its key.
    pub(crate) fn below<R: DeserializeOwned>(&self, prefix: &str) -> BTreeMap<String, R> {
        self.0
            .iter()
            .filter_map(|(key, bytes)| {
                let rest = key.strip_prefix(prefix)?;
                Some((rest.to_owned(), decode(bytes)?))
            })
            .collect()
    }
}

pub(crate) fn encode<R: Serialize>(record: &R) -> Result<Vec<u8>, bincode::Error> {
    let mut framed = vec![VERSION];
    bincode::serialize_into(&mut framed, record)?;
    let mut bytes = crc32fast::hash(&framed).to_le_bytes().to_vec();
    bytes.extend(framed);
    Ok(bytes)
}

/// Version and body, if the checksum is right.
pub(crate) fn body(bytes: &[u8]) -> Option<&[u8]> {
    let (checksum, framed) = bytes.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*checksum) == crc32fast::hash(framed)).then_some(framed)
}

/// A record of another version is as good as none.
fn decode<R: DeserializeOwned>(bytes: &[u8]) -> Option<R> {
    let (version, encoded) = body(bytes)?.split_first()?;
    if *version != VERSION {
        return None;
    }
    bincode::deserialize(encoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_with_a_wrong_checksum_or_version_is_none() {
        // storage.md: length, checksum, version
        let mut bytes = encode(&"x").unwrap();
        assert_eq!(decode::<String>(&bytes).as_deref(), Some("x"));
        bytes[6] ^= 1;
        assert_eq!(decode::<String>(&bytes), None);
        let other = [vec![VERSION + 1], bincode::serialize("x").unwrap()].concat();
        let framed = [crc32fast::hash(&other).to_le_bytes().to_vec(), other].concat();
        assert_eq!(decode::<String>(&framed), None);
        assert_eq!(decode::<String>(&[]), None);
    }
}
