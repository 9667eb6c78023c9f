//! A state as a sequence of records and back: what a snapshot file holds.
//!
//! Two equal states give equal sequences, whatever each still has in memory of what was compacted.

use super::{
    Answer, Auth, ClientAnswers, Contents, LeaseRecord, Role, State, User,
    keys::{Keys, Superseded},
    requests::Requests,
};
use crate::{
    auth::TokenKey,
    types::{Alarm, Epoch, Event, EventKind, KeyValue, Lease, LeaseId, Revision, Timestamp},
};
use bytes::Bytes;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::{cmp::Reverse, sync::Arc};

/// One piece of a snapshot, in the order of these variants, but for `Time`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotRecord {
    /// Everything that is one number. The first.
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
        /// Bytes of live keys and values at which creates are refused.
        quota_bytes: u64,
    },
    /// An alarm that was raised; in order.
    Alarm(Alarm),
    /// Users and roles, which follow.
    Auth {
        /// Whether everybody has to say who they are.
        enabled: bool,
        /// Of the last change.
        revision: u64,
        /// Signs tokens.
        token_key: TokenKey,
    },
    /// A user; by name.
    User(String, User),
    /// A role; by name.
    Role(String, Role),
    /// A lease; by id.
    Lease(Lease),
    /// The newest version of a key; by key.
    Live(KeyValue),
    /// A version that is no longer the newest; by key and revision.
    Superseded {
        /// The key.
        key: Bytes,
        /// Of this version.
        revision: Revision,
        /// `None` for a deletion.
        kv: Option<KeyValue>,
    },
    /// A kept change, for watches that start in the past; in order. The versions that it wrote and
    /// replaced are among the records before.
    Change {
        /// When.
        revision: Revision,
        /// Put or delete.
        kind: EventKind,
        /// The key.
        key: Bytes,
    },
    /// Answers to one client's requests.
    Answers {
        /// The client.
        id: u64,
        /// What is known of it.
        client: ClientAnswers,
        /// By sequence.
        answers: Vec<(u64, Answer)>,
    },
    /// Nothing follows.
    End {
        /// Number of records before this one.
        records: u64,
    },
    /// When the revisions from this one up to the next such record were made; in order, in front of the
    /// answers. Not there in snapshots of an earlier format, which numbers the variants as here.
    Time {
        /// The first.
        revision: Revision,
        /// Since the Unix epoch.
        second: u64,
    },
}

/// A sequence that is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// It does not begin with a header, or has a second one.
    #[error("record {record} of the snapshot: the header must be the first, and only it")]
    Header {
        /// Position of the record, from 0.
        record: u64,
    },
    /// It has no end, or the end counts otherwise.
    #[error("snapshot is cut: {found} records, {expected:?} expected")]
    Cut {
        /// Records read.
        found: u64,
        /// As the end says.
        expected: Option<u64>,
    },
    /// Something follows its end.
    #[error("record {record} of the snapshot follows its end")]
    Trailing {
        /// Position of the record, from 0.
        record: u64,
    },
    /// A record contradicts those before it.
    #[error("record {record} of the snapshot: {what}")]
    Inconsistent {
        /// Position of the record, from 0.
        record: u64,
        /// The contradiction.
        what: &'static str,
    },
}

impl State {
    /// The whole state. A clone can be exported while the original goes on; it is made in
    /// O(answers to requests).
    pub fn export(&self) -> impl Iterator<Item = SnapshotRecord> + '_ {
        self.contents.export(Some(&self.requests))
    }
}

impl Contents {
    /// `requests` are the answers that go with it, if any do.
    pub(super) fn export<'a>(
        &'a self,
        requests: Option<&'a Requests>,
    ) -> impl Iterator<Item = SnapshotRecord> + 'a {
        let header = SnapshotRecord::Header {
            revision: self.revision,
            compacted: self.compacted,
            epoch: self.epoch,
            leader: self.leader,
            feature_level: self.feature_level,
            time: self.time,
            hash: self.hash,
            quota_bytes: self.quota_bytes,
        };
        let alarms = self.alarms.iter().copied().map(SnapshotRecord::Alarm);
        let auth = SnapshotRecord::Auth {
            enabled: self.auth.is_enabled(),
            revision: self.auth.revision(),
            token_key: self.auth.token_key(),
        };
        let users = self.auth.users();
        let users = users.map(|(name, user)| SnapshotRecord::User(name.to_owned(), user.clone()));
        let roles = self.auth.roles();
        let roles = roles.map(|(name, role)| SnapshotRecord::Role(name.to_owned(), role.clone()));
        let leases = self.leases.values().map(|record| SnapshotRecord::Lease(record.lease));
        let live = self.keys.live().iter_from(0).map(|kv| SnapshotRecord::Live((**kv).clone()));
        let superseded = self.keys.kept_superseded(self.compacted).map(|(key, revision, kv)| {
            SnapshotRecord::Superseded {
                key: key.clone(),
                revision,
                kv: kv.map(|kv| (**kv).clone()),
            }
        });
        let changes = self.keys.changes_from(self.compacted).flat_map(|(revision, events)| {
            events.iter().map(move |event| SnapshotRecord::Change {
                revision: *revision,
                kind: event.kind,
                key: event.kv.key.clone(),
            })
        });
        let times = self.times.kept(self.compacted);
        let times = times.map(|(revision, second)| SnapshotRecord::Time { revision, second });
        let answers = requests
            .into_iter()
            .flat_map(Requests::export)
            .map(|(id, client, answers)| SnapshotRecord::Answers { id, client, answers });
        let mut records = 0;
        std::iter::once(header)
            .chain(alarms)
            .chain(std::iter::once(auth))
            .chain(users)
            .chain(roles)
            .chain(leases)
            .chain(live)
            .chain(superseded)
            .chain(changes)
            .chain(times)
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
        let mut import = Import::default();
        for record in records {
            import.push(record)?;
        }
        import.finish()
    }
}

/// A state as it is read record by record.
#[derive(Debug, Default)]
pub struct Import {
    contents: Contents,
    requests: Requests,
    live: Vec<Arc<KeyValue>>,
    superseded: OrdMap<(Bytes, Revision), Superseded>,
    /// Set when the first record behind the versions comes: what they were is in `contents` now.
    versions_done: bool,
    /// The live pairs as they were written, the last first: the changes that wrote them come in that order.
    written: Vec<Arc<KeyValue>>,
    /// Those of them that were written at the revision of `changes`, the last key first.
    written_now: Vec<Arc<KeyValue>>,
    /// The changes of one revision, until the next begins.
    changes: (Revision, Vec<Arc<Event>>),
    found: u64,
    ended: bool,
}

impl Import {
    /// Takes up the next record.
    ///
    /// # Errors
    /// It cannot stand here.
    pub fn push(&mut self, record: SnapshotRecord) -> Result<(), ImportError> {
        let at = self.found;
        if self.ended {
            return Err(ImportError::Trailing { record: at });
        }
        if (at == 0) != matches!(record, SnapshotRecord::Header { .. }) {
            return Err(ImportError::Header { record: at });
        }
        self.take_up(record).map_err(|error| match error {
            Refusal::Inconsistent(what) => ImportError::Inconsistent { record: at, what },
            Refusal::Cut(expected) => ImportError::Cut { found: at, expected: Some(expected) },
        })?;
        self.found += 1;
        Ok(())
    }

    /// The state, once its end has been taken up.
    ///
    /// # Errors
    /// [`ImportError::Cut`].
    pub fn finish(self) -> Result<State, ImportError> {
        if !self.ended {
            return Err(ImportError::Cut { found: self.found, expected: None });
        }
        Ok(State { contents: Arc::new(self.contents), requests: self.requests })
    }

    fn take_up(&mut self, record: SnapshotRecord) -> Result<(), Refusal> {
        match record {
            SnapshotRecord::Header {
                revision,
                compacted,
                epoch,
                leader,
                feature_level,
                time,
                hash,
                quota_bytes,
            } => {
                check(compacted <= revision, "compacted beyond the last revision")?;
                check(revision >= Revision::EMPTY, "a revision below that of the empty store")?;
                // As on the etcd wire; there is always a next one.
                check(i64::try_from(revision.get()).is_ok(), "a revision out of range")?;
                let contents = &mut self.contents;
                contents.revision = revision;
                contents.compacted = compacted;
                contents.epoch = epoch;
                contents.leader = leader;
                contents.feature_level = feature_level;
                contents.time = time;
                contents.hash = hash;
                contents.quota_bytes = quota_bytes;
                Ok(())
            }
            SnapshotRecord::Alarm(alarm) => {
                self.contents.alarms.insert(alarm);
                Ok(())
            }
            SnapshotRecord::Auth { enabled, revision, token_key } => {
                check(self.contents.auth.revision() == 1, "users and roles twice")?;
                check(revision >= 1, "an auth revision of nobody")?;
                self.contents.auth = Arc::new(Auth::restore(enabled, revision, token_key));
                Ok(())
            }
            SnapshotRecord::User(name, user) => {
                Arc::make_mut(&mut self.contents.auth).restore_user(name, user);
                Ok(())
            }
            SnapshotRecord::Role(name, role) => {
                Arc::make_mut(&mut self.contents.auth).restore_role(name, role);
                Ok(())
            }
            SnapshotRecord::Lease(lease) => {
                self.contents.leases.insert(lease.id, Arc::new(LeaseRecord::new(lease)));
                Ok(())
            }
            SnapshotRecord::Live(kv) => self.take_up_live(kv),
            SnapshotRecord::Superseded { key, revision, kv } => {
                check(!self.versions_done, "a version behind a change")?;
                check(revision <= self.contents.revision, "a version from the future")?;
                let same =
                    kv.as_ref().is_none_or(|kv| kv.key == key && kv.mod_revision == revision);
                check(same, "a version of another key or revision")?;
                self.superseded.insert((key, revision), kv.map(Arc::new));
                Ok(())
            }
            SnapshotRecord::Change { revision, kind, key } => {
                self.take_up_change(revision, kind, &key)
            }
            SnapshotRecord::Time { revision, second } => {
                check(revision <= self.contents.revision, "a time of a revision from the future")?;
                check(self.contents.times.restore(revision, second), "times do not ascend")
            }
            SnapshotRecord::Answers { id, client, answers } => {
                self.requests.restore(id, client, answers);
                Ok(())
            }
            SnapshotRecord::End { records } => {
                if records != self.found {
                    return Err(Refusal::Cut(records));
                }
                self.build_versions();
                self.log_changes();
                self.requests.restored();
                self.ended = true;
                Ok(())
            }
        }
    }

    fn take_up_live(&mut self, kv: KeyValue) -> Result<(), Refusal> {
        check(!self.versions_done, "a version behind a change")?;
        check(self.live.last().is_none_or(|last| last.key < kv.key), "keys do not ascend")?;
        check(kv.mod_revision <= self.contents.revision, "a version from the future")?;
        if kv.lease != LeaseId::NONE {
            check(
                self.contents.leases.contains_key(&kv.lease),
                "a key of a lease that is not there",
            )?;
            self.contents.attach(kv.lease, &kv.key);
        }
        self.live.push(Arc::new(kv));
        Ok(())
    }

    fn take_up_change(
        &mut self,
        revision: Revision,
        kind: EventKind,
        key: &Bytes,
    ) -> Result<(), Refusal> {
        self.build_versions();
        let compacted = self.contents.compacted;
        let kept = compacted <= revision && revision <= self.contents.revision;
        check(kept, "a change outside of what is kept")?;
        check(self.changes.0 <= revision, "changes do not ascend")?;
        if self.changes.0 < revision {
            self.log_changes();
            self.written_now.clear();
            while let Some(kv) = self.written.pop_if(|kv| kv.mod_revision <= revision) {
                if kv.mod_revision == revision {
                    self.written_now.push(kv);
                }
            }
        }
        let place = self.written_now.binary_search_by(|kv| key.cmp(&kv.key)).ok();
        let written = place.and_then(|at| self.written_now.get(at));
        let event = self
            .contents
            .keys
            .restore_change(kind, key, revision, compacted, written)
            .ok_or(Refusal::Inconsistent("a change whose version is missing"))?;
        self.changes.0 = revision;
        self.changes.1.push(event);
        Ok(())
    }

    fn build_versions(&mut self) {
        if !self.versions_done {
            self.versions_done = true;
            let live = std::mem::take(&mut self.live);
            let compacted = self.contents.compacted;
            self.written = live.iter().filter(|kv| kv.mod_revision >= compacted).cloned().collect();
            // Stable: those of one revision stay in the order of their keys, and are taken from behind.
            self.written.sort_by_key(|kv| Reverse(kv.mod_revision));
            self.contents.keys = Keys::restore(live, std::mem::take(&mut self.superseded));
        }
    }

    fn log_changes(&mut self) {
        let (revision, events) = std::mem::take(&mut self.changes);
        if !events.is_empty() {
            self.contents.keys.log(revision, &events);
        }
    }
}

enum Refusal {
    Inconsistent(&'static str),
    Cut(u64),
}

fn check(holds: bool, what: &'static str) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(Refusal::Inconsistent(what)) }
}
