//! Keys and their versions: the newest of each, all that are kept, and the changes in order.

use crate::types::{
    Event, EventKind, KeyRange, KeyValue, LeaseId, RangeRequest, RangeResult, Rejection, Revision,
    Sort, SortTarget,
};
use bytes::Bytes;
use imbl::OrdMap;
use std::{ops::Bound, sync::Arc};

/// Which change of a revision: a transaction makes several.
pub(crate) type Position = (Revision, u32);

/// Persistent maps: a clone is O(1) and stays as it was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    /// The newest version of every key that exists.
    live: OrdMap<Bytes, Arc<KeyValue>>,
    /// Every kept version by key and revision; `None` where the key was deleted.
    history: OrdMap<(Bytes, Revision), Option<Arc<KeyValue>>>,
    /// Every change from `compacted` on, in order: what a watch that starts in the past reads.
    changes: OrdMap<Position, Arc<Event>>,
    /// Bytes of live keys and values.
    live_bytes: u64,
}

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

    fn bounds(&self) -> Option<(Bound<Bytes>, Bound<Bytes>)> {
        match self {
            Self::One(key) => Some((Bound::Included(key.clone()), Bound::Included(key.clone()))),
            Self::Between { start, end } if start < end => {
                Some((Bound::Included(start.clone()), Bound::Excluded(end.clone())))
            }
            Self::Between { .. } => None,
            Self::From(start) => Some((Bound::Included(start.clone()), Bound::Unbounded)),
        }
    }
}

impl Keys {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Arc<KeyValue>> {
        self.live.get(key)
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Live keys of a range, ascending.
    pub(crate) fn live(&self, range: &KeyRange) -> impl Iterator<Item = &Arc<KeyValue>> {
        range.bounds().into_iter().flat_map(|bounds| self.live.range(bounds)).map(|(_, kv)| kv)
    }

    pub(crate) fn count(&self, range: &KeyRange) -> u64 {
        match range {
            KeyRange::One(key) => u64::from(self.live.contains_key(key)),
            KeyRange::Between { .. } | KeyRange::From(_) => self.live(range).count() as u64,
        }
    }

    /// Writes one key at `position`.
    pub(crate) fn put(
        &mut self,
        position: Position,
        key: Bytes,
        value: Bytes,
        lease: LeaseId,
    ) -> Arc<Event> {
        let (revision, _) = position;
        let prev = self.live.get(&key).cloned();
        let kv = KeyValue {
            key: key.clone(),
            value,
            create_revision: prev.as_ref().map_or(revision, |p| p.create_revision),
            mod_revision: revision,
            version: prev.as_ref().map_or(0, |p| p.version) + 1,
            lease,
        };
        self.live_bytes += (key.len() + kv.value.len()) as u64;
        if let Some(prev) = &prev {
            self.live_bytes -= (prev.key.len() + prev.value.len()) as u64;
        }
        let shared = Arc::new(kv.clone());
        self.live.insert(key.clone(), Arc::clone(&shared));
        self.history.insert((key, revision), Some(shared));
        self.change(position, EventKind::Put, kv, prev)
    }

    /// Deletes one key at `position`; `None` if there is none.
    pub(crate) fn delete(&mut self, position: Position, key: &Bytes) -> Option<Arc<Event>> {
        let (revision, _) = position;
        let prev = self.live.remove(key)?;
        self.live_bytes -= (prev.key.len() + prev.value.len()) as u64;
        self.history.insert((key.clone(), revision), None);
        let kv = KeyValue {
            key: key.clone(),
            value: Bytes::new(),
            create_revision: Revision::ZERO,
            mod_revision: revision,
            version: 0,
            lease: LeaseId::NONE,
        };
        Some(self.change(position, EventKind::Delete, kv, Some(prev)))
    }

    fn change(
        &mut self,
        position: Position,
        kind: EventKind,
        kv: KeyValue,
        prev: Option<Arc<KeyValue>>,
    ) -> Arc<Event> {
        let event = Arc::new(Event { kind, kv, prev: prev.map(|p| (*p).clone()) });
        self.changes.insert(position, Arc::clone(&event));
        event
    }

    /// Changes from `from` on, in order.
    pub(crate) fn changes_from(
        &self,
        from: Revision,
    ) -> impl Iterator<Item = (Position, &Arc<Event>)> {
        self.changes.range((from, 0)..).map(|(position, event)| (*position, event))
    }

    /// Forgets versions replaced at or before `revision`, and the changes up to it.
    pub(crate) fn compact(&mut self, revision: Revision) {
        // The newest version at or below `revision` of each key stays, unless it is a deletion.
        let mut dead = Vec::new();
        let mut kept: Option<&(Bytes, Revision)> = None;
        for (at, version) in &self.history {
            if at.1 > revision {
                continue;
            }
            if let Some(previous) = kept.take()
                && previous.0 == at.0
            {
                dead.push(previous.clone());
            }
            match version {
                Some(_) => kept = Some(at),
                None => dead.push(at.clone()),
            }
        }
        for at in dead {
            self.history.remove(&at);
        }
        // A watch may still start at the compacted revision itself and must see its changes.
        let last_dropped = (Revision::new(revision.get().saturating_sub(1)), u32::MAX);
        let (_, later) = self.changes.split(&last_dropped);
        self.changes = later;
    }

    /// What is in a range; the caller has checked that `request.revision` is kept.
    pub(crate) fn range(&self, request: &RangeRequest, current: Revision) -> RangeResult {
        let at = if request.revision == Revision::ZERO { current } else { request.revision };
        if request.count_only && at == current {
            return RangeResult { count: self.count(&request.range), ..RangeResult::default() };
        }
        if at == current {
            return answer(request, self.live(&request.range));
        }
        let versions = self.at(&request.range, at);
        answer(request, versions.iter())
    }

    /// The keys as they were at an earlier revision.
    fn at(&self, range: &KeyRange, revision: Revision) -> Vec<Arc<KeyValue>> {
        let Some((start, end)) = range.bounds() else { return Vec::new() };
        let start = match start {
            Bound::Included(key) | Bound::Excluded(key) => (key, Revision::ZERO),
            Bound::Unbounded => (Bytes::new(), Revision::ZERO),
        };
        let mut found: Vec<Arc<KeyValue>> = Vec::new();
        let mut newest: Option<(&Bytes, &Option<Arc<KeyValue>>)> = None;
        for ((key, at), version) in self.history.range(start..) {
            let past = match &end {
                Bound::Included(last) => key > last,
                Bound::Excluded(last) => key >= last,
                Bound::Unbounded => false,
            };
            if past {
                break;
            }
            if let Some((previous, version)) = newest
                && previous != key
            {
                found.extend(version.clone());
                newest = None;
            }
            if *at <= revision {
                newest = Some((key, version));
            }
        }
        if let Some((_, version)) = newest {
            found.extend(version.clone());
        }
        found
    }

    /// Every kept version, for a snapshot: by key, then revision.
    pub(crate) fn versions(
        &self,
    ) -> impl Iterator<Item = (&Bytes, Revision, Option<&Arc<KeyValue>>)> {
        self.history.iter().map(|((key, at), version)| (key, *at, version.as_ref()))
    }

    /// Takes up one version of a snapshot; versions of a key come in order.
    pub(crate) fn restore_version(&mut self, key: Bytes, at: Revision, version: Option<KeyValue>) {
        if let Some(previous) = self.live.remove(&key) {
            self.live_bytes -= (previous.key.len() + previous.value.len()) as u64;
        }
        let version = version.map(Arc::new);
        if let Some(kv) = &version {
            self.live_bytes += (kv.key.len() + kv.value.len()) as u64;
            self.live.insert(key.clone(), Arc::clone(kv));
        }
        self.history.insert((key, at), version);
    }

    /// Takes up one change of a snapshot.
    pub(crate) fn restore_change(&mut self, position: Position, event: Event) {
        self.changes.insert(position, Arc::new(event));
    }
}

/// Filters, sorts and cuts, in etcd's order.
fn answer<'a>(
    request: &RangeRequest,
    found: impl Iterator<Item = &'a Arc<KeyValue>>,
) -> RangeResult {
    let within = |value: Revision, (min, max): (Revision, Revision)| {
        value >= min && (max == Revision::ZERO || value <= max)
    };
    let by_key = request.sort.is_none_or(|s| s.target == SortTarget::Key && !s.descending);
    let filtered = request.mod_revision != (Revision::ZERO, Revision::ZERO)
        || request.create_revision != (Revision::ZERO, Revision::ZERO);
    let limit = match request.limit {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let mut count = 0u64;
    let mut kvs: Vec<&Arc<KeyValue>> = Vec::new();
    for kv in found {
        count += 1;
        let wanted = !request.count_only
            && within(kv.mod_revision, request.mod_revision)
            && within(kv.create_revision, request.create_revision);
        // One more than asked for tells whether there are more.
        if wanted && (!by_key || kvs.len() <= limit) {
            kvs.push(kv);
        }
    }
    if let Some(sort) = request.sort.filter(|_| !by_key) {
        sort_by(&mut kvs, sort);
    }
    let more = kvs.len() > limit || (!filtered && !request.count_only && count > kvs.len() as u64);
    kvs.truncate(limit);
    let kvs = kvs
        .into_iter()
        .map(|kv| {
            let mut kv = (**kv).clone();
            if request.keys_only {
                kv.value = Bytes::new();
            }
            kv
        })
        .collect();
    RangeResult { kvs, more, count }
}

fn sort_by(kvs: &mut [&Arc<KeyValue>], sort: Sort) {
    kvs.sort_by(|a, b| {
        let order = match sort.target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::CreateRevision => a.create_revision.cmp(&b.create_revision),
            SortTarget::ModRevision => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        if sort.descending { order.reverse() } else { order }
    });
}

/// # Errors
/// `revision` is above `current` or below `compacted`; a read at the compacted revision is answered.
pub(crate) fn check_revision(
    revision: Revision,
    current: Revision,
    compacted: Revision,
) -> Result<(), Rejection> {
    if revision > current {
        return Err(Rejection::FutureRevision { requested: revision, current });
    }
    // Not `<=`: etcd answers a read at the compacted revision itself.
    if revision != Revision::ZERO && revision < compacted {
        return Err(Rejection::Compacted { requested: revision, compacted });
    }
    Ok(())
}
