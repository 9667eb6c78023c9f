//! The state: a function of the commands applied to it.

use crate::types::{
    Applied, Command, Epoch, Event, KeyRange, KeyValue, Lease, LeaseId, RangeRequest, RangeResult,
    Rejection, Revision, Timestamp,
};

/// The state machine.
#[derive(Debug, Clone, Default)]
pub struct State {}

/// What one command did: its answer, and what watchers must see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// For the proposer.
    pub applied: Applied,
    /// In order; all of one revision are adjacent.
    pub events: Vec<Event>,
}

impl State {
    /// Applies one committed command. Total and deterministic: never fails, never panics on any
    /// command that can be decoded.
    pub fn apply(&mut self, _command: &Command) -> Transition {
        unimplemented!()
    }

    /// A read-only picture in O(1); later changes do not show in it.
    #[must_use]
    pub fn view(&self) -> View {
        unimplemented!()
    }
}

/// A state as it was at one moment. Cheap to clone, never blocks a writer.
#[derive(Debug, Clone, Default)]
pub struct View {}

impl View {
    /// # Errors
    /// [`Rejection::Compacted`] or [`Rejection::FutureRevision`].
    pub fn range(&self, _request: &RangeRequest) -> Result<RangeResult, Rejection> {
        unimplemented!()
    }
    /// The newest value of one key.
    #[must_use]
    pub fn get(&self, _key: &[u8]) -> Option<KeyValue> {
        unimplemented!()
    }
    /// Number of live keys in a range, newest state.
    #[must_use]
    pub fn count(&self, _range: &KeyRange) -> u64 {
        unimplemented!()
    }
    /// Revision of the last change.
    #[must_use]
    pub fn revision(&self) -> Revision {
        unimplemented!()
    }
    /// The last compacted revision; reads at it are still answered, below it are not.
    #[must_use]
    pub fn compacted(&self) -> Revision {
        unimplemented!()
    }
    /// Current epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        unimplemented!()
    }
    /// Largest time applied so far.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        unimplemented!()
    }
    /// Rolling hash over every (command, result) so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        unimplemented!()
    }
    /// All leases, by id.
    #[must_use]
    pub fn leases(&self) -> Vec<Lease> {
        unimplemented!()
    }
    /// Keys attached to a lease, in order.
    #[must_use]
    pub fn lease_keys(&self, _id: LeaseId) -> Vec<bytes::Bytes> {
        unimplemented!()
    }
}
