//! Keys and their versions: the newest of each, those that were replaced, and the changes in order.

use super::index::Index;
use crate::types::{Event, EventKind, KeyRange, KeyValue, LeaseId, Put, Revision};
use bytes::Bytes;
use imbl::OrdMap;
use std::sync::Arc;

/// A version of a key that is no longer the newest; `None` where the key was deleted.
pub(crate) type Superseded = Option<Arc<KeyValue>>;

/// What a removal from a tree costs, where a look at a change costs 1.
const REMOVAL: usize = 8;

/// Persistent maps: a clone is O(1) and stays as it was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    /// The newest version of every key that exists.
    live: Index,
    /// The kept versions that were replaced or deleted, and the deletions, by key and revision.
    superseded: OrdMap<(Bytes, Revision), Superseded>,
    /// The changes of each revision in order: what a watch that starts in the past reads. May still
    /// hold some from before the compacted revision, see [`Keys::sweep`].
    changes: OrdMap<Revision, Arc<[Arc<Event>]>>,
    /// Bytes of live keys and values.
    live_bytes: u64,
    /// Bytes of keys and values in `superseded`.
    superseded_bytes: u64,
    /// How many of the changes of the oldest revision are swept.
    swept: usize,
}

impl Keys {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Arc<KeyValue>> {
        self.live.get(key)
    }

    /// Bytes of live keys and values.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes of all keys and values in memory, those included that wait to be swept.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.live_bytes + self.superseded_bytes
    }

    pub(crate) fn live(&self) -> &Index {
        &self.live
    }

    /// Writes one key at `revision`.
    pub(crate) fn put(&mut self, revision: Revision, put: &Put) -> Arc<Event> {
        let prev = self.live.get(&put.key);
        let kept = prev.filter(|_| put.ignore_value).map(|prev| prev.value.clone());
        let attached = prev.filter(|_| put.ignore_lease).map(|prev| prev.lease);
        let kv = Arc::new(KeyValue {
            key: put.key.clone(),
            value: kept.unwrap_or_else(|| put.value.clone()),
            create_revision: prev.map_or(revision, |p| p.create_revision),
            mod_revision: revision,
            version: prev.map_or(0, |p| p.version) + 1,
            lease: attached.unwrap_or(if put.ignore_lease { LeaseId::NONE } else { put.lease }),
        });
        self.live_bytes += kv.bytes();
        let prev = self.live.insert(Arc::clone(&kv));
        self.supersede(prev.as_ref());
        Arc::new(Event { kind: EventKind::Put, kv, prev })
    }

    /// Deletes one key at `revision`; `None` if there is none.
    pub(crate) fn delete(&mut self, revision: Revision, key: &Bytes) -> Option<Arc<Event>> {
        let prev = self.live.remove(key)?;
        self.supersede(Some(&prev));
        self.superseded_bytes += prev.key.len() as u64;
        self.superseded.insert((prev.key.clone(), revision), None);
        let kv = Arc::new(KeyValue::deleted(prev.key.clone(), revision));
        Some(Arc::new(Event { kind: EventKind::Delete, kv, prev: Some(prev) }))
    }

    fn supersede(&mut self, prev: Option<&Arc<KeyValue>>) {
        if let Some(prev) = prev {
            self.live_bytes -= prev.bytes();
            self.superseded_bytes += prev.bytes();
            let at = (prev.key.clone(), prev.mod_revision);
            self.superseded.insert(at, Some(Arc::clone(prev)));
        }
    }

    fn forget(&mut self, version: &KeyValue) {
        let removed = self.superseded.remove(&(version.key.clone(), version.mod_revision));
        if let Some(removed) = removed {
            let deletion = version.key.len() as u64;
            self.superseded_bytes -= removed.map_or(deletion, |kv| kv.bytes());
        }
    }

    /// Keeps the changes of one revision for later watches.
    pub(crate) fn log(&mut self, revision: Revision, events: &[Arc<Event>]) {
        self.changes.insert(revision, events.into());
    }

    /// The changes of each revision from `from` on, which must not be below what is compacted.
    pub(crate) fn changes_from(
        &self,
        from: Revision,
    ) -> impl Iterator<Item = (&Revision, &Arc<[Arc<Event>]>)> {
        self.changes.range(from..)
    }

    /// Forgets versions replaced at or before `revision`.
    ///
    /// Nobody may read below `revision` from now on, so what is forgotten is only memory: it goes
    /// bit by bit in [`Keys::sweep`], lest one compaction stop the log for seconds.
    pub(crate) fn compact(&mut self, revision: Revision) {
        // A watch may still start at the compacted revision itself and sees its changes, deletions
        // too, but not what was there before them.
        let Some(events) = self.changes.get(&revision).cloned() else { return };
        for prev in events.iter().filter_map(|event| event.prev.as_ref()) {
            // The deletion itself stays until it is swept: it hides versions that are not yet.
            self.forget(prev);
        }
        let bare = |event: &Arc<Event>| Arc::new(Event { prev: None, ..(**event).clone() });
        self.changes.insert(revision, events.iter().map(bare).collect());
    }

    /// Frees what changes below `compacted` replaced, until that has cost `budget` or a little more: 1 for a
    /// look at a change, [`REMOVAL`] for each removal from a tree.
    pub(crate) fn sweep(&mut self, compacted: Revision, budget: usize) {
        let mut cost = 0;
        while cost < budget && !self.is_swept(compacted) {
            let Some((revision, events)) = self.changes.get_min() else { return };
            let (revision, events) = (*revision, Arc::clone(events));
            for event in events.get(self.swept..).unwrap_or_default() {
                if cost >= budget {
                    return;
                }
                cost += 1;
                if let Some(prev) = &event.prev {
                    self.forget(prev);
                    cost += REMOVAL;
                }
                if event.kind == EventKind::Delete {
                    self.forget(&event.kv);
                    cost += REMOVAL;
                }
                self.swept += 1;
            }
            self.swept = 0;
            self.changes.remove(&revision);
            cost += REMOVAL;
        }
    }

    /// Whether nothing is left to [`Keys::sweep`].
    pub(crate) fn is_swept(&self, compacted: Revision) -> bool {
        self.changes.get_min().is_none_or(|(oldest, _)| *oldest >= compacted)
    }

    /// The versions behind the newest that a read or a watch at or above `compacted` can still see.
    pub(crate) fn kept_superseded(
        &self,
        compacted: Revision,
    ) -> impl Iterator<Item = (&Bytes, Revision, Option<&Arc<KeyValue>>)> {
        let mut entries = self.superseded.iter().peekable();
        std::iter::from_fn(move || {
            loop {
                let ((key, at), version) = entries.next()?;
                let successor = match entries.peek() {
                    Some(((next, at), _)) if next == key => Some(*at),
                    Some(_) | None => self.live.get(key).map(|kv| kv.mod_revision),
                };
                let kept = match version {
                    Some(_) => successor.is_some_and(|successor| successor > compacted),
                    None => *at > compacted,
                };
                if kept {
                    return Some((key, *at, version.as_ref()));
                }
            }
        })
    }

    /// The versions of one key that a read at or above `compacted` can see, and its deletions above that; the
    /// oldest first.
    pub(crate) fn versions_of(
        &self,
        key: &Bytes,
        compacted: Revision,
    ) -> Vec<(Revision, Superseded)> {
        let all = (key.clone(), Revision::ZERO)..=(key.clone(), Revision::new(u64::MAX));
        let superseded = self.superseded.range(all).map(|((_, at), kv)| (*at, kv.clone()));
        let live = self.live.get(key).map(|kv| (kv.mod_revision, Some(Arc::clone(kv))));
        let versions: Vec<_> = superseded.chain(live).collect();
        let ends = versions.iter().skip(1).map(|(at, _)| *at).chain([Revision::new(u64::MAX)]);
        let kept = |(at, kv): &(Revision, Superseded), end: Revision| match kv {
            Some(_) => end > compacted,
            None => *at > compacted,
        };
        let ends: Vec<Revision> = ends.collect();
        versions.into_iter().zip(ends).filter(|(v, end)| kept(v, *end)).map(|(v, _)| v).collect()
    }

    /// The version of `key` at `revision`: what a change there wrote, and what it replaced.
    fn version_at(&self, key: &Bytes, revision: Revision) -> Option<&Arc<KeyValue>> {
        let newest = self.live.get(key).filter(|kv| kv.mod_revision <= revision);
        newest.or_else(|| {
            let upto = (key.clone(), Revision::ZERO)..=(key.clone(), revision);
            self.superseded.range(upto).next_back().and_then(|(_, version)| version.as_ref())
        })
    }

    /// Keys as they were at an earlier revision.
    pub(crate) fn versions_at<'a>(
        &'a self,
        range: &'a KeyRange,
        revision: Revision,
    ) -> impl Iterator<Item = &'a Arc<KeyValue>> + 'a {
        let mut live = self.live.range(range).peekable();
        // Two sorted lists become one; seeking from key to key, since a key may have been replaced
        // any number of times.
        let mut replaced = self.next_superseded(range, (range.start().clone(), Revision::ZERO));
        std::iter::from_fn(move || {
            loop {
                let newest = live.peek().map(|kv| &kv.key);
                let key = match (newest, replaced) {
                    (None, None) => return None,
                    (Some(newest), Some(key)) if newest < key => newest,
                    (Some(newest), None) => newest,
                    (Some(_) | None, Some(key)) => key,
                };
                let newest = live.next_if(|kv| kv.key == *key);
                if replaced == Some(key) {
                    let version = self.version_at(key, revision);
                    let behind = (key.clone(), Revision::new(u64::MAX));
                    replaced = self.next_superseded(range, behind);
                    if version.is_some() {
                        return version;
                    }
                } else if newest.is_some_and(|kv| kv.mod_revision <= revision) {
                    return newest;
                }
            }
        })
    }

    /// The first key with a superseded version, from the given place on.
    fn next_superseded(&self, range: &KeyRange, from: (Bytes, Revision)) -> Option<&Bytes> {
        let ((key, _), _) = self.superseded.range(from..).next()?;
        (!range.is_past(key)).then_some(key)
    }

    /// How many keys of a range existed at an earlier revision.
    ///
    /// `pending` says that the newest changes are not logged yet, in the middle of a transaction.
    pub(crate) fn count_at(
        &self,
        range: &KeyRange,
        revision: Revision,
        current: Revision,
        pending: bool,
    ) -> u64 {
        let (start, end) = self.live.ranks(range);
        let since = current.get().saturating_sub(revision.get());
        if pending || since > end - start {
            return self.versions_at(range, revision).count() as u64;
        }
        // Pages of one list are read at one revision while the store goes on: few changes since, so
        // take today's count and undo them.
        let changes = self.changes_from(revision.next()).flat_map(|(_, events)| events.iter());
        changes.filter(|event| range.contains(&event.kv.key)).fold(end - start, |count, event| {
            match event.kind {
                EventKind::Put if event.kv.version == 1 => count.saturating_sub(1),
                EventKind::Put => count,
                EventKind::Delete => count + 1,
            }
        })
    }

    /// Takes up what a snapshot says: pairs that ascend by key, what they superseded.
    pub(crate) fn restore(
        pairs: Vec<Arc<KeyValue>>,
        superseded: OrdMap<(Bytes, Revision), Superseded>,
    ) -> Self {
        let live_bytes = pairs.iter().map(|kv| kv.bytes()).sum();
        let bytes = |((key, _), version): (&(Bytes, Revision), &Superseded)| match version {
            Some(kv) => kv.bytes(),
            None => key.len() as u64,
        };
        let superseded_bytes = superseded.iter().map(bytes).sum();
        let live = Index::from_sorted(pairs);
        Self { live, superseded, changes: OrdMap::new(), live_bytes, superseded_bytes, swept: 0 }
    }

    /// Takes up one change of a snapshot: `None` if the version that it wrote is not there. `written` is that
    /// version if it is still the newest: it need not be looked for.
    pub(crate) fn restore_change(
        &self,
        kind: EventKind,
        key: &Bytes,
        revision: Revision,
        compacted: Revision,
        written: Option<&Arc<KeyValue>>,
    ) -> Option<Arc<Event>> {
        let before = Revision::new(revision.get().checked_sub(1)?);
        let kv = match kind {
            EventKind::Put => {
                let kv = written.or_else(|| self.version_at(key, revision))?;
                (kv.mod_revision == revision).then(|| Arc::clone(kv))?
            }
            EventKind::Delete => Arc::new(KeyValue::deleted(key.clone(), revision)),
        };
        // What was created replaced nothing.
        let replaced = revision > compacted && kv.version != 1;
        let prev = replaced.then(|| self.version_at(key, before)).flatten().map(Arc::clone);
        Some(Arc::new(Event { kind, kv, prev }))
    }
}

impl KeyValue {
    /// Of key and value.
    pub(crate) fn bytes(&self) -> u64 {
        (self.key.len() + self.value.len()) as u64
    }

    /// What an event says of a key that is gone.
    fn deleted(key: Bytes, revision: Revision) -> Self {
        Self {
            key,
            value: Bytes::new(),
            create_revision: Revision::ZERO,
            mod_revision: revision,
            version: 0,
            lease: LeaseId::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: Bytes) -> Put {
        Put {
            key,
            value: Bytes::new(),
            lease: LeaseId::NONE,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        }
    }

    #[test]
    fn what_is_compacted_is_freed_bit_by_bit_and_never_read() {
        let mut keys = Keys::default();
        let key = |i: u64| Bytes::from(format!("key-{}", i % 10));
        for i in 1..=100 {
            let event = keys.put(Revision::new(i), &put(key(i)));
            keys.log(Revision::new(i), &[event]);
        }
        let gone = keys.delete(Revision::new(101), &key(5)).unwrap();
        keys.log(Revision::new(101), &[gone]);
        keys.compact(Revision::new(101));
        let everything = KeyRange::From(Bytes::new());
        let mut before = keys.superseded.len();
        while keys.changes.len() > 1 {
            let pairs = keys.versions_at(&everything, Revision::new(101)).count();
            assert_eq!(pairs, 9, "{before} versions are left");
            keys.sweep(Revision::new(101), 3 * (1 + 2 * REMOVAL));
            assert!(keys.superseded.len() + 3 >= before, "more than its budget");
            before = keys.superseded.len();
        }
        keys.compact(Revision::new(101));
        // The deletion at the compacted revision goes with the next one.
        assert_eq!(keys.superseded.keys().collect::<Vec<_>>(), [&(key(5), Revision::new(101))]);
        assert_eq!(keys.kept_bytes() - keys.live_bytes(), key(5).len() as u64);
        assert!(keys.is_swept(Revision::new(101)) && !keys.is_swept(Revision::new(102)));
        keys.sweep(Revision::new(102), 3 * (1 + 2 * REMOVAL));
        assert!(keys.superseded.is_empty() && keys.changes.is_empty());
        assert_eq!(keys.kept_bytes(), keys.live_bytes());
    }

    #[test]
    fn a_large_change_is_freed_bit_by_bit_too() {
        let mut keys = Keys::default();
        let key = |i: u64| Bytes::from(format!("key-{i}"));
        for revision in [2, 3] {
            let write = |i| keys.put(Revision::new(revision), &put(key(i)));
            let events: Vec<_> = (0..100).map(write).collect();
            keys.log(Revision::new(revision), &events);
        }
        let gone: Vec<_> =
            (0..100).filter_map(|i| keys.delete(Revision::new(4), &key(i))).collect();
        keys.log(Revision::new(4), &gone);
        let compacted = Revision::new(5);
        keys.compact(compacted);
        let mut steps = 0;
        while !keys.is_swept(compacted) {
            let before = keys.superseded.len();
            keys.sweep(compacted, 30 * REMOVAL);
            // Two for a deletion: itself, and what it deleted.
            assert!(keys.superseded.len() + 31 >= before, "more than its budget");
            assert_eq!(keys.versions_at(&KeyRange::From(Bytes::new()), compacted).count(), 0);
            steps += 1;
        }
        // A look at 300 changes, and 300 removals.
        assert!((8..=12).contains(&steps), "{steps} steps");
        assert!(keys.superseded.is_empty() && keys.changes.is_empty());
        assert_eq!(keys.kept_bytes(), 0);
    }
}
