//! Lease timers: only at the leader, only by its own monotonic clock.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use store::{LeaseId, state::View};
use tokio::time::Instant;

/// When each lease ends, while this replica leads.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// `None` while another replica leads.
    ends: Mutex<Option<BTreeMap<LeaseId, Timer>>>,
}

#[derive(Debug, Clone, Copy)]
struct Timer {
    ttl_seconds: i64,
    end: Instant,
}

fn ttl(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<LeaseId, Timer>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leads from now on: every lease begins anew at its full time to live.
    pub(crate) fn lead(&self) {
        *self.lock() = Some(BTreeMap::new());
    }

    /// Another replica leads.
    pub(crate) fn follow(&self) {
        *self.lock() = None;
    }

    /// Takes up what was granted and drops what was revoked since; those that have ended.
    pub(crate) fn expired(&self, view: &View, now: Instant) -> Vec<LeaseId> {
        let mut ends = self.lock();
        let Some(ends) = ends.as_mut() else { return Vec::new() };
        let mut kept = BTreeMap::new();
        for lease in view.leases() {
            let new = Timer { ttl_seconds: lease.ttl_seconds, end: now + ttl(lease.ttl_seconds) };
            kept.insert(lease.id, ends.get(&lease.id).copied().unwrap_or(new));
        }
        *ends = kept;
        ends.iter().filter(|(_, timer)| timer.end <= now).map(|(id, _)| *id).collect()
    }

    /// Begins a lease anew, also one that was granted a moment ago: its time to live, `Some(None)` when
    /// there is none, `None` when this replica does not lead.
    pub(crate) fn renew(&self, id: LeaseId, view: &View) -> Option<Option<i64>> {
        let mut ends = self.lock();
        let ends = ends.as_mut()?;
        let Some(lease) = view.lease(id) else { return Some(None) };
        let timer =
            Timer { ttl_seconds: lease.ttl_seconds, end: Instant::now() + ttl(lease.ttl_seconds) };
        ends.insert(id, timer);
        Some(Some(timer.ttl_seconds))
    }
}
