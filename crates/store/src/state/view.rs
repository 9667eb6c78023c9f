//! What readers see of a state.

use super::{
    Contents, SnapshotRecord, hash,
    range::{Now, check_revision},
};
use crate::types::{
    Epoch, Event, KeyRange, KeyValue, Lease, LeaseId, RangeRequest, RangeResult, Rejection,
    Revision, Timestamp, Txn, TxnResult,
};
use bytes::Bytes;
use std::sync::Arc;

/// A state as it was at one moment. Cheap to clone, never blocks a writer.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub(super) contents: Arc<Contents>,
}

impl View {
    /// # Errors
    /// [`Rejection::Compacted`] or [`Rejection::FutureRevision`].
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResult, Rejection> {
        let revision = self.contents.revision;
        check_revision(request.revision, revision, self.contents.compacted)?;
        Ok(self.contents.keys.range(request, Now { revision, pending: false }))
    }

    /// The answer to a transaction, which is carried out on a copy: only one that just reads has any
    /// effect by it.
    ///
    /// # Errors
    /// As of applying it.
    pub fn read(&self, txn: &Txn) -> Result<TxnResult, Rejection> {
        let mut copy = Contents::clone(&self.contents);
        copy.transaction(txn, &mut Vec::new()).map(|(_, result)| result)
    }

    /// The newest value of one key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.contents.keys.get(key).map(|kv| (**kv).clone())
    }

    /// Live pairs of a range in key order, without copying them.
    pub fn live<'a>(
        &'a self,
        range: &KeyRange,
    ) -> impl Iterator<Item = &'a Arc<KeyValue>> + use<'a> {
        self.contents.keys.live().range(range)
    }

    /// The changes of each kept revision from `from` on.
    pub(crate) fn changes_from(
        &self,
        from: Revision,
    ) -> impl Iterator<Item = (Revision, &Arc<[Arc<Event>]>)> {
        let from = from.max(self.contents.compacted);
        self.contents.keys.changes_from(from).map(|(revision, events)| (*revision, events))
    }

    /// The changes of a range after a revision, in order: what a reader that knows everything up to
    /// `after` has missed.
    ///
    /// # Errors
    /// [`Rejection::Compacted`] when they are no longer kept; [`Rejection::FutureRevision`] when this
    /// state has not come so far.
    pub fn changes_after<'a>(
        &'a self,
        range: &'a KeyRange,
        after: Revision,
    ) -> Result<impl Iterator<Item = &'a Arc<Event>> + use<'a>, Rejection> {
        check_revision(
            after.max(Revision::new(1)),
            self.contents.revision,
            self.contents.compacted,
        )?;
        let changes = self.changes_from(after.next()).flat_map(|(_, events)| events.iter());
        Ok(changes.filter(|event| range.contains(&event.kv.key)))
    }

    /// Every kept version of one key, the oldest first; `None` where it was deleted. The first may be older
    /// than what is compacted: it is what a read at the compacted revision sees.
    #[must_use]
    pub fn versions(&self, key: &[u8]) -> Vec<(Revision, Option<Arc<KeyValue>>)> {
        let key = Bytes::copy_from_slice(key);
        self.contents.keys.versions_of(&key, self.contents.compacted)
    }

    /// When a revision was made, to the second; `None` for what is older than all that is kept.
    #[must_use]
    pub fn time_of(&self, revision: Revision) -> Option<Timestamp> {
        self.contents.times.of(revision, self.contents.compacted)
    }

    /// The newest revision made at `time` or before, the whole of that second included; `None` when that
    /// is older than all that is kept.
    #[must_use]
    pub fn revision_at(&self, time: Timestamp) -> Option<Revision> {
        let Contents { times, revision, compacted, .. } = &*self.contents;
        times.newest_at(time, *revision, *compacted)
    }

    /// Number of live keys in a range, newest state.
    #[must_use]
    pub fn count(&self, range: &KeyRange) -> u64 {
        let (start, end) = self.contents.keys.live().ranks(range);
        end - start
    }

    /// Revision of the last change.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.contents.revision
    }

    /// The last compacted revision; reads at it are still answered, below it are not.
    #[must_use]
    pub fn compacted(&self) -> Revision {
        self.contents.compacted
    }

    /// Current epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.contents.epoch
    }

    /// The member that began the current epoch; 0 before the first.
    #[must_use]
    pub fn leader(&self) -> u64 {
        self.contents.leader
    }

    /// Features that every member supports.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        self.contents.feature_level
    }

    /// Largest time of a command that was carried out.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.contents.time
    }

    /// Rolling hash over every command that was carried out and its answer.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.contents.hash
    }

    /// A hash over every version that a read at the compacted revision or later can see, up to
    /// `revision` ([`Revision::ZERO`] for the newest), and the compacted revision it was made at. Equal
    /// on members with equal states, whatever each of them still has in memory of what was compacted.
    ///
    /// O(all kept versions), some 100 ms for a million: not for a thread that serves others.
    ///
    /// # Errors
    /// [`Rejection::Compacted`] or [`Rejection::FutureRevision`].
    pub fn hash_kv(&self, revision: Revision) -> Result<(u32, Revision), Rejection> {
        let Contents { revision: current, compacted, keys, .. } = &*self.contents;
        check_revision(revision, *current, *compacted)?;
        let at = if revision == Revision::ZERO { *current } else { revision };
        let live = keys.live().iter_from(0).map(|kv| (&kv.key, kv.mod_revision, Some(kv)));
        let versions = live.chain(keys.kept_superseded(*compacted));
        // A sum, since what is live here may be superseded elsewhere but for a later revision.
        let sum = versions
            .filter(|(_, written, _)| *written <= at)
            .map(|(key, written, kv)| hash::version(key, written, kv.map(|kv| &**kv)))
            .fold(0u64, u64::wrapping_add);
        let folded = (sum ^ (sum >> 32)) & u64::from(u32::MAX);
        Ok((u32::try_from(folded).unwrap_or_default(), *compacted))
    }

    /// Everything in it, as a snapshot has it; but for the answers to requests.
    pub fn export(&self) -> impl Iterator<Item = SnapshotRecord> + '_ {
        self.contents.export(None)
    }

    /// Whether the memory of everything that was compacted is free.
    #[must_use]
    pub fn is_swept(&self) -> bool {
        self.contents.is_swept()
    }

    /// All leases, by id.
    #[must_use]
    pub fn leases(&self) -> Vec<Lease> {
        self.contents.leases.values().map(|record| record.lease).collect()
    }

    /// One lease.
    #[must_use]
    pub fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.contents.leases.get(&id).map(|record| record.lease)
    }

    /// Keys attached to a lease, in order.
    #[must_use]
    pub fn lease_keys(&self, id: LeaseId) -> Vec<Bytes> {
        self.contents.leases.get(&id).map_or_else(Vec::new, |r| r.keys.iter().cloned().collect())
    }

    /// Bytes of live keys and values.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.contents.keys.live_bytes()
    }

    /// Bytes of all keys and values in memory: live, superseded, and compacted but not swept. Members
    /// may differ in it.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.contents.keys.kept_bytes()
    }

    /// [`View::live_bytes`] at which creates are refused.
    #[must_use]
    pub fn quota_bytes(&self) -> u64 {
        self.contents.quota_bytes
    }
}
