//! The state: a function of the commands applied to it.

mod hash;
mod keys;
mod requests;
mod snapshot;
mod txn;

pub use requests::ClientAnswers;
pub use snapshot::{ImportError, SnapshotRecord};

use crate::types::{
    Applied, Command, Epoch, Event, KeyRange, KeyValue, Lease, LeaseId, Op, Origin, Outcome,
    RangeRequest, RangeResult, Rejection, Revision, Timestamp, Txn, TxnResult,
};
use bytes::Bytes;
use hash::Hasher;
use imbl::{OrdMap, OrdSet};
use keys::{Keys, check_revision};
use requests::Requests;
use std::sync::Arc;
use txn::Changes;

/// Bytes of live keys and values above which creates are refused.
pub const QUOTA_BYTES: u64 = 2 << 30;

/// The state machine.
#[derive(Debug, Clone)]
pub struct State {
    revision: Revision,
    compacted: Revision,
    epoch: Epoch,
    leader: u64,
    feature_level: u32,
    time: Timestamp,
    hash: u64,
    /// A constant of the format, not a setting: members that differ in it would diverge.
    quota_bytes: u64,
    keys: Keys,
    leases: OrdMap<LeaseId, Arc<LeaseRecord>>,
    requests: Requests,
}

#[derive(Debug, Clone)]
struct LeaseRecord {
    lease: Lease,
    keys: OrdSet<Bytes>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            revision: Revision::ZERO,
            compacted: Revision::ZERO,
            epoch: Epoch::default(),
            leader: 0,
            feature_level: 0,
            time: Timestamp::default(),
            hash: 0,
            quota_bytes: QUOTA_BYTES,
            keys: Keys::default(),
            leases: OrdMap::new(),
            requests: Requests::default(),
        }
    }
}

/// What one command did: its answer, and what watchers must see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// For the proposer.
    pub applied: Applied,
    /// In order; all of one revision are adjacent.
    pub events: Vec<Arc<Event>>,
}

impl State {
    /// Applies one committed command. Total and deterministic: never fails, never panics on any
    /// command that can be decoded.
    pub fn apply(&mut self, command: &Command) -> Transition {
        self.time = self.time.max(command.at);
        if let Some(applied) = self.requests.look_up(command.request) {
            return Transition { applied, events: Vec::new() };
        }
        let before = self.revision;
        let mut events = Vec::new();
        let outcome = self.carry_out(command, &mut events);
        // Watchers resume by revision: a change that shared one with the last would be lost.
        assert_eq!(self.revision > before, !events.is_empty(), "a revision without an event");
        let applied = Applied { revision: self.revision, outcome };
        if applied.outcome.is_ok() {
            // A refusal leaves no trace (INV-9); repeated, it is judged anew.
            self.requests.record(command.request, &applied);
            self.mix(command, &events);
        }
        Transition { applied, events }
    }

    fn carry_out(
        &mut self,
        command: &Command,
        events: &mut Vec<Arc<Event>>,
    ) -> Result<Outcome, Rejection> {
        if let Origin::Controller { epoch } = command.origin
            && epoch != self.epoch
        {
            return Err(Rejection::Fenced { decided: epoch, current: self.epoch });
        }
        match &command.op {
            Op::Txn(txn) => {
                let (_, result) = self.transaction(txn, events)?;
                Ok(Outcome::Txn(result))
            }
            Op::Atomic(txns) => self.atomic(txns, events),
            Op::LeaseGrant { id, ttl_seconds } => {
                if *id == LeaseId::NONE {
                    return Err(Rejection::LeaseNotFound);
                }
                if self.leases.contains_key(id) {
                    return Err(Rejection::LeaseExists);
                }
                let lease = Lease { id: *id, ttl_seconds: *ttl_seconds, remaining_seconds: 0 };
                self.leases.insert(*id, Arc::new(LeaseRecord { lease, keys: OrdSet::new() }));
                Ok(Outcome::Done)
            }
            Op::LeaseRevoke { id } => {
                let record = self.leases.remove(id).ok_or(Rejection::LeaseNotFound)?;
                let mut changes = self.changes();
                for key in &record.keys {
                    self.delete(&KeyRange::One(key.clone()), &mut changes);
                }
                let deleted = changes.events.len() as u64;
                self.take(changes, events);
                Ok(Outcome::LeaseRevoked { deleted })
            }
            Op::LeaseCheckpoint { id, remaining_seconds } => {
                let record = self.leases.get_mut(id).ok_or(Rejection::LeaseNotFound)?;
                Arc::make_mut(record).lease.remaining_seconds = *remaining_seconds;
                Ok(Outcome::Done)
            }
            Op::Compact { revision } => {
                let (requested, compacted) = (*revision, self.compacted);
                if requested <= compacted {
                    return Err(Rejection::Compacted { requested, compacted });
                }
                if requested > self.revision {
                    return Err(Rejection::FutureRevision { requested, current: self.revision });
                }
                self.compacted = requested;
                self.keys.compact(requested);
                Ok(Outcome::Done)
            }
            Op::BeginEpoch { epoch, leader } => {
                if *epoch <= self.epoch {
                    return Err(Rejection::StaleEpoch { requested: *epoch, current: self.epoch });
                }
                self.epoch = *epoch;
                self.leader = *leader;
                Ok(Outcome::Done)
            }
            Op::RaiseFeatureLevel { level } => {
                self.feature_level = self.feature_level.max(*level);
                Ok(Outcome::Done)
            }
        }
    }

    fn changes(&self) -> Changes {
        Changes { revision: self.revision.next(), events: Vec::new() }
    }

    fn take(&mut self, changes: Changes, events: &mut Vec<Arc<Event>>) {
        if !changes.events.is_empty() {
            self.revision = changes.revision;
            events.extend(changes.events);
        }
    }

    fn transaction(
        &mut self,
        txn: &Txn,
        events: &mut Vec<Arc<Event>>,
    ) -> Result<(Revision, TxnResult), Rejection> {
        self.check_txn(txn, self.revision)?;
        let mut changes = self.changes();
        let result = self.run_txn(txn, &mut changes);
        self.take(changes, events);
        Ok((self.revision, result))
    }

    fn atomic(&mut self, txns: &[Txn], events: &mut Vec<Arc<Event>>) -> Result<Outcome, Rejection> {
        // The maps are persistent: the way back is a clone of a few pointers.
        let before = self.clone();
        let mut results = Vec::with_capacity(txns.len());
        for (index, txn) in txns.iter().enumerate() {
            let done = if self.holds(&txn.compare) {
                self.transaction(txn, events)
            } else {
                Err(Rejection::Precondition { index })
            };
            match done {
                Ok(result) => results.push(result),
                Err(rejection) => {
                    *self = before;
                    events.clear();
                    return Err(rejection);
                }
            }
        }
        Ok(Outcome::Atomic(results))
    }

    fn attach(&mut self, lease: LeaseId, key: &Bytes) {
        if let Some(record) = self.leases.get_mut(&lease) {
            Arc::make_mut(record).keys.insert(key.clone());
        }
    }

    fn detach(&mut self, lease: LeaseId, key: &Bytes) {
        if let Some(record) = self.leases.get_mut(&lease) {
            Arc::make_mut(record).keys.remove(key);
        }
    }

    /// Mixes what a command did into the rolling hash: not the command's bytes, which two encodings
    /// of one command may not share, but its effect.
    fn mix(&mut self, command: &Command, events: &[Arc<Event>]) {
        let mut hash = Hasher::from(self.hash)
            .number(command.request.client)
            .number(command.request.sequence)
            .number(self.revision.get())
            .number(self.compacted.get())
            .number(self.epoch.0)
            .number(self.leases.len() as u64);
        for event in events {
            hash = hash
                .number(event.kv.mod_revision.get())
                .number(event.kv.version)
                .number(event.kv.lease.0.cast_unsigned())
                .bytes(&event.kv.key)
                .bytes(&event.kv.value);
        }
        self.hash = hash.finish();
    }

    /// A read-only picture in O(1); later changes do not show in it.
    #[must_use]
    pub fn view(&self) -> View {
        View { state: Arc::new(self.clone()) }
    }
}

/// A state as it was at one moment. Cheap to clone, never blocks a writer.
#[derive(Debug, Clone, Default)]
pub struct View {
    state: Arc<State>,
}

impl View {
    /// # Errors
    /// [`Rejection::Compacted`] or [`Rejection::FutureRevision`].
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResult, Rejection> {
        check_revision(request.revision, self.state.revision, self.state.compacted)?;
        Ok(self.state.keys.range(request, self.state.revision))
    }

    /// The newest value of one key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.state.keys.get(key).map(|kv| (**kv).clone())
    }

    /// Live pairs of a range in key order, without copying them.
    pub fn live(&self, range: &KeyRange) -> impl Iterator<Item = &Arc<KeyValue>> {
        self.state.keys.live(range)
    }

    /// Kept changes from `from` on, in order.
    pub(crate) fn changes_from(&self, from: Revision) -> impl Iterator<Item = &Arc<Event>> {
        self.state.keys.changes_from(from).map(|(_, event)| event)
    }

    /// Number of live keys in a range, newest state.
    #[must_use]
    pub fn count(&self, range: &KeyRange) -> u64 {
        self.state.keys.count(range)
    }

    /// Revision of the last change.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.state.revision
    }

    /// The last compacted revision; reads at it are still answered, below it are not.
    #[must_use]
    pub fn compacted(&self) -> Revision {
        self.state.compacted
    }

    /// Current epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.state.epoch
    }

    /// Largest time applied so far.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.state.time
    }

    /// Rolling hash over the effect of every command that was carried out.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.state.hash
    }

    /// All leases, by id.
    #[must_use]
    pub fn leases(&self) -> Vec<Lease> {
        self.state.leases.values().map(|record| record.lease).collect()
    }

    /// Keys attached to a lease, in order.
    #[must_use]
    pub fn lease_keys(&self, id: LeaseId) -> Vec<Bytes> {
        self.state.leases.get(&id).map_or_else(Vec::new, |r| r.keys.iter().cloned().collect())
    }

    /// Bytes of live keys and values.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.state.keys.live_bytes()
    }
}
