//! Leases: granted, checkpointed, revoked, and the keys that hang on them.

use super::Contents;
use crate::types::{Event, KeyRange, LEASE_TTL_SECONDS_MAX, Lease, LeaseId, Outcome, Rejection};
use bytes::Bytes;
use imbl::OrdSet;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub(super) struct LeaseRecord {
    pub(super) lease: Lease,
    pub(super) keys: OrdSet<Bytes>,
}

impl LeaseRecord {
    pub(super) fn new(lease: Lease) -> Self {
        Self { lease, keys: OrdSet::new() }
    }
}

impl Contents {
    pub(super) fn lease_grant(
        &mut self,
        id: LeaseId,
        ttl_seconds: i64,
    ) -> Result<Outcome, Rejection> {
        if id == LeaseId::NONE {
            // Whoever proposes has to draw an id first: 0 would attach nothing.
            return Err(Rejection::LeaseNotFound);
        }
        if ttl_seconds > LEASE_TTL_SECONDS_MAX {
            return Err(Rejection::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(Rejection::LeaseExists);
        }
        let lease = Lease { id, ttl_seconds, remaining_seconds: 0 };
        self.leases.insert(id, Arc::new(LeaseRecord::new(lease)));
        Ok(Outcome::Done)
    }

    pub(super) fn lease_checkpoint(
        &mut self,
        id: LeaseId,
        remaining_seconds: i64,
    ) -> Result<Outcome, Rejection> {
        let record = self.leases.get_mut(&id).ok_or(Rejection::LeaseNotFound)?;
        Arc::make_mut(record).lease.remaining_seconds = remaining_seconds;
        Ok(Outcome::Done)
    }

    /// All of its keys go in one revision.
    pub(super) fn lease_revoke(
        &mut self,
        id: LeaseId,
        events: &mut Vec<Arc<Event>>,
    ) -> Result<Outcome, Rejection> {
        let record = self.leases.remove(&id).ok_or(Rejection::LeaseNotFound)?;
        let mut changes = self.begin();
        for key in &record.keys {
            self.delete(&KeyRange::One(key.clone()), &mut changes);
        }
        let deleted = changes.events.len() as u64;
        self.commit(changes, events);
        Ok(Outcome::LeaseRevoked { deleted })
    }

    /// Nothing for [`LeaseId::NONE`].
    pub(super) fn attach(&mut self, lease: LeaseId, key: &Bytes) {
        if let Some(record) = self.leases.get_mut(&lease) {
            Arc::make_mut(record).keys.insert(key.clone());
        }
    }

    pub(super) fn detach(&mut self, lease: LeaseId, key: &Bytes) {
        if let Some(record) = self.leases.get_mut(&lease) {
            Arc::make_mut(record).keys.remove(key);
        }
    }
}
