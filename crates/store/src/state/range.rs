//! Reads: what of a range is answered, in etcd's order of counting, filtering, sorting and cutting.

use super::keys::Keys;
use crate::types::{
    KeyRange, KeyValue, RangeRequest, RangeResult, Rejection, Revision, Sort, SortTarget,
};
use bytes::Bytes;
use std::sync::Arc;

/// What a read sees beside the keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// The newest revision: a transaction's own, once it has changed something.
    pub(crate) revision: Revision,
    /// In the middle of a transaction that has changed something.
    pub(crate) pending: bool,
}

impl Keys {
    /// The answer to a request whose revision is kept: see [`check_revision`].
    ///
    /// O(log n + page) for a page in key order of the newest state. At an earlier revision, also what
    /// was replaced within the page and, for `count`, the changes since (or the range, if it is
    /// shorter). A filter or another order reads the whole range.
    pub(crate) fn range(&self, request: &RangeRequest, now: Now) -> RangeResult {
        let at = match request.revision {
            Revision::ZERO => now.revision,
            revision => revision,
        };
        let newest = at >= now.revision;
        if let (true, KeyRange::One(key)) = (newest, &request.range) {
            return answer(request, self.get(key).into_iter(), None);
        }
        let count = || {
            if newest {
                let (start, end) = self.live().ranks(&request.range);
                return end - start;
            }
            self.count_at(&request.range, at, now.revision, now.pending)
        };
        if request.count_only {
            return RangeResult { count: count(), ..RangeResult::default() };
        }
        let page = (request.limit > 0 && !filters(request)).then_some(request.limit);
        let order = match request.sort {
            None => Some(false),
            Some(Sort { target: SortTarget::Key, descending }) => Some(descending),
            Some(_) => None,
        };
        match (page, order, newest) {
            (Some(_), Some(false), true) => {
                answer(request, self.live().range(&request.range), Some(count()))
            }
            (Some(limit), Some(true), true) => {
                // The last page is the first one backwards.
                let (start, end) = self.live().ranks(&request.range);
                let first = end.saturating_sub(limit.saturating_add(1)).max(start);
                let length = usize::try_from(end - first).unwrap_or(usize::MAX);
                let found = self.live().iter_from(first).take(length);
                answer(request, found, Some(end - start))
            }
            (Some(_), Some(false), false) => {
                answer(request, self.versions_at(&request.range, at), Some(count()))
            }
            (_, _, true) => answer(request, self.live().range(&request.range), None),
            (_, _, false) => answer(request, self.versions_at(&request.range, at), None),
        }
    }
}

/// Filters, sorts and cuts. Without a `count`, everything found is counted.
fn answer<'a>(
    request: &RangeRequest,
    found: impl Iterator<Item = &'a Arc<KeyValue>>,
    count: Option<u64>,
) -> RangeResult {
    let limit = match request.limit {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let within = |value: Revision, (min, max): (Revision, Revision)| {
        value >= min && (max == Revision::ZERO || value <= max)
    };
    let backwards = request.sort.is_some_and(|s| s.descending || s.target != SortTarget::Key);
    // One more than asked for tells whether there are more.
    let page = if count.is_some() && !backwards { limit.saturating_add(1) } else { usize::MAX };
    let mut seen = 0u64;
    let mut kvs: Vec<&Arc<KeyValue>> = found
        .take(page)
        .inspect(|_| seen += 1)
        .filter(|_| !request.count_only)
        .filter(|kv| within(kv.mod_revision, request.mod_revision))
        .filter(|kv| within(kv.create_revision, request.create_revision))
        .collect();
    if let Some(sort) = request.sort {
        sort_by(&mut kvs, sort);
    }
    let more = kvs.len() > limit;
    kvs.truncate(limit);
    let pair = |kv: &Arc<KeyValue>| match request.keys_only {
        true => KeyValue { value: Bytes::new(), ..(**kv).clone() },
        false => (**kv).clone(),
    };
    let kvs = kvs.into_iter().map(pair).collect();
    RangeResult { kvs, more, count: count.unwrap_or(seen) }
}

fn filters(request: &RangeRequest) -> bool {
    let none = (Revision::ZERO, Revision::ZERO);
    request.mod_revision != none || request.create_revision != none
}

/// Ties stay in key order.
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
