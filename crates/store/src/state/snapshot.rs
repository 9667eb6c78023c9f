//! A state as a sequence of records and back: what a snapshot file holds.

use super::{ClientAnswers, LeaseRecord, State, View};
use crate::types::{Applied, Epoch, Event, KeyValue, Lease, Revision, Timestamp};
use bytes::Bytes;
use imbl::OrdSet;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One piece of a snapshot. The header comes first, the end last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotRecord {
    /// Everything that is one number.
    Header {
        /// Of the last change.
        revision: Revision,
        /// The last compacted.
        compacted: Revision,
        /// Current epoch.
        epoch: Epoch,
        /// Who began it.
        leader: u64,
        /// Current feature level.
        feature_level: u32,
        /// Largest time applied.
        time: Timestamp,
        /// Rolling hash.
        hash: u64,
    },
    /// A lease; before the keys that hang on it.
    Lease(Lease),
    /// A kept version of a key; those of one key are adjacent and ascend.
    Version {
        /// The key.
        key: Bytes,
        /// Of this version.
        revision: Revision,
        /// `None` for a deletion.
        kv: Option<KeyValue>,
    },
    /// A kept change, for watches that start in the past.
    Change {
        /// Position within its revision.
        sub: u32,
        /// What happened.
        event: Event,
    },
    /// Answers to one client's requests.
    Answers {
        /// The client.
        id: u64,
        /// What is known of it.
        client: ClientAnswers,
        /// By sequence.
        answers: Vec<(u64, Applied)>,
    },
    /// Nothing follows.
    End {
        /// Number of records before this one.
        records: u64,
    },
}

/// A sequence that is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// It does not begin with a header.
    #[error("snapshot does not begin with its header")]
    NoHeader,
    /// It has no end, or the end counts otherwise.
    #[error("snapshot is cut: {found} records, {expected:?} expected")]
    Cut {
        /// Records read.
        found: u64,
        /// As the end says.
        expected: Option<u64>,
    },
}

impl View {
    /// The whole state. Built while the state machine goes on.
    pub fn export(&self) -> impl Iterator<Item = SnapshotRecord> + '_ {
        let state = &*self.state;
        let header = SnapshotRecord::Header {
            revision: state.revision,
            compacted: state.compacted,
            epoch: state.epoch,
            leader: state.leader,
            feature_level: state.feature_level,
            time: state.time,
            hash: state.hash,
        };
        let leases = state.leases.values().map(|record| SnapshotRecord::Lease(record.lease));
        let versions = state.keys.versions().map(|(key, revision, kv)| SnapshotRecord::Version {
            key: key.clone(),
            revision,
            kv: kv.map(|kv| (**kv).clone()),
        });
        let changes = state
            .keys
            .changes_from(Revision::ZERO)
            .map(|((_, sub), event)| SnapshotRecord::Change { sub, event: (**event).clone() });
        let answers = state
            .requests
            .export()
            .map(|(id, client, answers)| SnapshotRecord::Answers { id, client, answers });
        let mut records = 0;
        std::iter::once(header)
            .chain(leases)
            .chain(versions)
            .chain(changes)
            .chain(answers)
            .map(Some)
            .chain(std::iter::once(None))
            .map(move |record| match record {
                Some(record) => {
                    records += 1;
                    record
                }
                None => SnapshotRecord::End { records },
            })
    }
}

impl State {
    /// The state that was exported: equal in everything, the hash and the table of answers included.
    ///
    /// # Errors
    /// The sequence is not a whole snapshot.
    pub fn import(records: impl IntoIterator<Item = SnapshotRecord>) -> Result<Self, ImportError> {
        let mut state = Self::default();
        let mut found = 0u64;
        for record in records {
            if (found == 0) != matches!(record, SnapshotRecord::Header { .. }) {
                return Err(ImportError::NoHeader);
            }
            match record {
                SnapshotRecord::Header {
                    revision,
                    compacted,
                    epoch,
                    leader,
                    feature_level,
                    time,
                    hash,
                } => {
                    state = Self {
                        revision,
                        compacted,
                        epoch,
                        leader,
                        feature_level,
                        time,
                        hash,
                        ..state
                    };
                }
                SnapshotRecord::Lease(lease) => {
                    let record = LeaseRecord { lease, keys: OrdSet::new() };
                    state.leases.insert(lease.id, Arc::new(record));
                }
                SnapshotRecord::Version { key, revision, kv } => {
                    state.keys.restore_version(key, revision, kv);
                }
                SnapshotRecord::Change { sub, event } => {
                    state.keys.restore_change((event.kv.mod_revision, sub), event);
                }
                SnapshotRecord::Answers { id, client, answers } => {
                    state.requests.restore(id, client, answers);
                }
                SnapshotRecord::End { records } => {
                    if records != found {
                        return Err(ImportError::Cut { found, expected: Some(records) });
                    }
                    state.attach_all();
                    return Ok(state);
                }
            }
            found += 1;
        }
        Err(ImportError::Cut { found, expected: None })
    }

    fn attach_all(&mut self) {
        let everything = crate::types::KeyRange::From(Bytes::new());
        let attached: Vec<_> = self
            .keys
            .live(&everything)
            .filter(|kv| kv.lease != crate::types::LeaseId::NONE)
            .map(|kv| (kv.lease, kv.key.clone()))
            .collect();
        for (lease, key) in attached {
            self.attach(lease, &key);
        }
    }
}
