//! The state: a function of the commands applied to it.

mod alarm;
mod auth;
mod hash;
mod index;
mod keys;
mod lease;
mod range;
mod requests;
mod snapshot;
mod times;
mod txn;
mod view;

pub use auth::{Auth, Role, User, root_permission};
pub use requests::{Answer, ClientAnswers};
pub use snapshot::{Import, ImportError, SnapshotRecord};
pub use txn::TXN_DEPTH_MAX;
pub use view::View;

use crate::types::{
    Alarm, AlarmKind, Applied, Command, Epoch, Event, LeaseId, Op, Origin, Outcome, Rejection,
    Revision, Timestamp, Txn,
};
use imbl::{OrdMap, OrdSet};
use keys::Keys;
use lease::LeaseRecord;
use requests::Requests;
use std::sync::Arc;
use times::Times;
use txn::Changes;

/// Bytes of live keys and values at which creates are refused, unless said otherwise.
pub const QUOTA_BYTES: u64 = 2 << 30;

/// What freeing memory of compacted revisions may cost a command, by the measure of [`Keys::sweep`]: several
/// times what most commands leave behind, so that a backlog shrinks, and too little to be felt.
const SWEEP_PER_COMMAND: usize = 64;

/// The same for one call of [`State::sweep`]: at most a few milliseconds, while somebody holds the state.
const SWEEP_PER_CALL: usize = 512;

/// The state machine. A clone is O(answers to requests).
#[derive(Debug, Clone, Default)]
pub struct State {
    contents: Arc<Contents>,
    requests: Requests,
}

/// What readers see of a state: everything but the answers to requests. A clone is O(1) and shares
/// what does not change.
#[derive(Debug, Clone)]
struct Contents {
    revision: Revision,
    compacted: Revision,
    epoch: Epoch,
    leader: u64,
    feature_level: u32,
    time: Timestamp,
    hash: u64,
    /// Part of the state, so that a snapshot brings it along: members that differ in it diverge.
    quota_bytes: u64,
    /// Those that were raised by a command.
    alarms: OrdSet<Alarm>,
    auth: Arc<Auth>,
    keys: Keys,
    /// When the kept revisions were made.
    times: Times,
    leases: OrdMap<LeaseId, Arc<LeaseRecord>>,
}

impl Default for Contents {
    fn default() -> Self {
        Self::with_quota(QUOTA_BYTES)
    }
}

/// What one command did: its answer, and what watchers must see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// For the proposer.
    pub applied: Applied,
    /// In order; all of one revision are adjacent.
    pub events: Vec<Arc<Event>>,
    /// The command was carried out before and is only answered again.
    pub repeated: bool,
}

impl State {
    /// An empty state that refuses creates once it has `quota_bytes` of live keys and values, and then
    /// also updates that grow a value beyond an eighth more; never deletions, leases or compaction.
    /// Whoever comes before that is let in, so that it may hold more by the size of one command. Every
    /// member must begin with the same.
    #[must_use]
    pub fn with_quota(quota_bytes: u64) -> Self {
        let contents = Arc::new(Contents::with_quota(quota_bytes));
        Self { contents, requests: Requests::default() }
    }

    /// Applies one committed command. Total and deterministic: never fails, never panics on any
    /// command that can be decoded.
    pub fn apply(&mut self, command: &Command) -> Transition {
        let contents = Arc::make_mut(&mut self.contents);
        contents.keys.sweep(contents.compacted, SWEEP_PER_COMMAND);
        contents.times.trim(contents.compacted);
        let before = contents.revision;
        let mut events = Vec::new();
        let outcome = match self.requests.look_up(command.request) {
            Ok(Some(applied)) => return Transition { applied, events, repeated: true },
            Ok(None) => contents.carry_out(command, &mut events),
            Err(forgotten) => Err(forgotten),
        };
        // Watchers resume by revision: a change that shared one with the last would be lost.
        assert_eq!(contents.revision > before, !events.is_empty(), "a revision without an event");
        let applied = Applied { revision: contents.revision, outcome };
        if must_be_remembered(&applied.outcome) {
            self.requests.record(command.request, &applied);
        }
        // A refusal changes nothing else (INV-9).
        if applied.outcome.is_ok() {
            contents.time = contents.time.max(command.at);
            if !events.is_empty() {
                contents.times.note(before.next(), contents.time);
            }
            contents.hash = hash::roll(contents.hash, command, &applied);
        }
        Transition { applied, events, repeated: false }
    }

    /// Frees some memory of what was compacted, which each command does in passing, too; whether more
    /// is left. Nothing that can be read changes: a member may call it whenever it likes.
    pub fn sweep(&mut self) -> bool {
        Arc::make_mut(&mut self.contents).sweep()
    }

    /// As the first state of another cluster: the same keys, users and leases.
    ///
    /// The revision is `jump` further, so that it is beyond any that the old cluster can have come to,
    /// and everything up to there is compacted: whoever knows an old revision is told to begin anew.
    /// Leases have their full time again. Answers to requests and alarms of members without room are
    /// forgotten: there are other members now. No epoch up to `epoch` is valid any more.
    ///
    /// # Errors
    /// The revision would be out of range.
    pub fn renew(&mut self, jump: u64, epoch: Epoch) -> Result<(), Rejection> {
        Arc::make_mut(&mut self.contents).renew(jump, epoch)?;
        self.requests = Requests::default();
        Ok(())
    }

    /// Revision of the last change.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.contents.revision
    }

    /// The last compacted revision.
    #[must_use]
    pub fn compacted(&self) -> Revision {
        self.contents.compacted
    }

    /// Whether [`State::sweep`] has nothing left to do.
    #[must_use]
    pub fn is_swept(&self) -> bool {
        self.contents.is_swept()
    }

    /// A read-only picture in O(1); later changes do not show in it.
    ///
    /// While one is held, the next command works on a copy, which shares all that does not change: some
    /// microseconds. Who just reads drops it again soon.
    #[must_use]
    pub fn view(&self) -> View {
        View { contents: Arc::clone(&self.contents) }
    }
}

impl Contents {
    fn with_quota(quota_bytes: u64) -> Self {
        Self {
            revision: Revision::EMPTY,
            compacted: Revision::ZERO,
            epoch: Epoch::default(),
            leader: 0,
            feature_level: 0,
            time: Timestamp::default(),
            hash: 0,
            quota_bytes,
            alarms: OrdSet::new(),
            auth: Arc::default(),
            keys: Keys::default(),
            times: Times::default(),
            leases: OrdMap::new(),
        }
    }

    fn carry_out(
        &mut self,
        command: &Command,
        events: &mut Vec<Arc<Event>>,
    ) -> Result<Outcome, Rejection> {
        match &command.origin {
            Origin::Controller { epoch } if *epoch != self.epoch => {
                return Err(Rejection::Fenced { decided: *epoch, current: self.epoch });
            }
            Origin::Controller { .. } | Origin::Client => {}
            Origin::User(who) => self.may(who, &command.op)?,
        }
        self.check_alarms(&command.op)?;
        match &command.op {
            Op::Txn(txn) => {
                let (_, result) = self.transaction(txn, events)?;
                Ok(Outcome::Txn(result))
            }
            Op::Atomic(txns) => self.atomic(txns, events),
            Op::LeaseGrant { id, ttl_seconds } => self.lease_grant(*id, *ttl_seconds),
            Op::LeaseRevoke { id } => self.lease_revoke(*id, events),
            Op::LeaseCheckpoint { id, remaining_seconds } => {
                self.lease_checkpoint(*id, *remaining_seconds)
            }
            Op::Compact { revision } => self.compact(*revision),
            Op::BeginEpoch { epoch, leader } => self.begin_epoch(*epoch, *leader),
            Op::RaiseFeatureLevel { level } => {
                self.feature_level = self.feature_level.max(*level);
                Ok(Outcome::Done)
            }
            Op::Auth(op) => self.change_auth(op),
            Op::Alarm { alarm, active } => Ok(self.alarm(*alarm, *active)),
            Op::Quota { bytes } => {
                self.quota_bytes = *bytes;
                Ok(Outcome::Done)
            }
        }
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

    fn compact(&mut self, requested: Revision) -> Result<Outcome, Rejection> {
        let compacted = self.compacted;
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

    fn begin_epoch(&mut self, epoch: Epoch, leader: u64) -> Result<Outcome, Rejection> {
        if epoch <= self.epoch {
            return Err(Rejection::StaleEpoch { requested: epoch, current: self.epoch });
        }
        self.epoch = epoch;
        self.leader = leader;
        Ok(Outcome::Done)
    }

    fn begin(&self) -> Changes {
        Changes { revision: self.revision.next(), events: Vec::new() }
    }

    /// Takes the revision, if anything changed.
    fn commit(&mut self, changes: Changes, events: &mut Vec<Arc<Event>>) {
        if !changes.events.is_empty() {
            self.revision = changes.revision;
            self.keys.log(changes.revision, &changes.events);
            events.extend(changes.events);
        }
    }

    fn sweep(&mut self) -> bool {
        self.keys.sweep(self.compacted, SWEEP_PER_CALL);
        !self.is_swept()
    }

    fn is_swept(&self) -> bool {
        self.keys.is_swept(self.compacted)
    }

    fn renew(&mut self, jump: u64, epoch: Epoch) -> Result<(), Rejection> {
        let revision = self.revision.get().checked_add(jump);
        let Some(revision) = revision.filter(|revision| *revision <= i64::MAX.unsigned_abs() / 2)
        else {
            let requested = Revision::new(u64::MAX);
            return Err(Rejection::FutureRevision { requested, current: self.revision });
        };
        self.revision = Revision::new(revision);
        self.compacted = self.revision;
        self.keys.compact(self.compacted);
        while self.sweep() {}
        let leases: Vec<LeaseId> = self.leases.keys().copied().collect();
        for id in leases {
            // 0: as if it had just been granted.
            let _ = self.lease_checkpoint(id, 0);
        }
        let alarms = self.alarms.iter().copied();
        self.alarms = alarms.filter(|alarm| alarm.kind != AlarmKind::NoSpace).collect();
        self.epoch = self.epoch.max(epoch);
        self.leader = 0;
        Ok(())
    }
}

/// Whether a second copy of the command in the log might be judged otherwise.
///
/// That a lease is missing may be true of the first copy, which was answered, and false of the
/// second, which would then be carried out behind the proposer's back. What is refused for ever needs
/// no memory, so that a deposed leader's commands leave none (FEN-6).
fn must_be_remembered(outcome: &Result<Outcome, Rejection>) -> bool {
    match outcome {
        Ok(_)
        | Err(
            Rejection::Precondition { .. }
            | Rejection::KeyNotFound
            | Rejection::LeaseNotFound
            | Rejection::LeaseExists
            | Rejection::FutureRevision { .. }
            | Rejection::Auth(_)
            | Rejection::NoSpace
            | Rejection::Corrupt,
        ) => true,
        Err(
            // Epochs and compacted revisions only rise.
            Rejection::Fenced { .. }
            | Rejection::StaleEpoch { .. }
            | Rejection::EmptyKey
            | Rejection::DuplicateKey
            | Rejection::LeaseTtlTooLarge
            | Rejection::TooDeep { .. }
            | Rejection::Forgotten { .. },
        ) => false,
        // Of a compaction for ever; of a read in a transaction, too.
        Err(Rejection::Compacted { .. }) => false,
    }
}
