//! Lease timers: only at the leader, only by its own monotonic clock.
//!
//! Every operation is O(log leases): apply says which leases come and go, and who looks for those that
//! have ended begins with the one that ends first.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use store::{Command, Lease, LeaseId, Op, state::Transition, watch::Hub};
use tokio::time::Instant;

/// A lease that is not renewed for so long is checkpointed, and then every so often, so that a new
/// leader does not give it its full time again.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);

/// When each lease ends, while this replica leads.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// `None` while another replica leads.
    timers: Mutex<Option<Timers>>,
}

#[derive(Debug, Default)]
struct Timers {
    by_id: HashMap<LeaseId, Timer>,
    /// Those that have not been found to have ended.
    ends: BTreeSet<(Instant, LeaseId)>,
    checkpoints: BTreeSet<(Instant, LeaseId)>,
}

#[derive(Debug, Clone, Copy)]
struct Timer {
    ttl_seconds: i64,
    end: Instant,
    checkpoint: Option<Instant>,
    /// The log says that less than its full time is left.
    checkpointed: bool,
    /// Its end has been proposed.
    ending: bool,
}

/// What a command did to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseChange {
    Granted(Lease),
    Revoked(LeaseId),
    Checkpointed(LeaseId, i64),
}

/// What came of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewed {
    /// Begun anew; seconds to live.
    For(i64),
    /// Not yet: its checkpoint has to be taken back first, or a new leader would end it earlier.
    AfterCheckpoint,
    /// There is none, or its end has been proposed.
    Gone,
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

impl LeaseChange {
    pub(crate) fn of(command: &Command, transition: &Transition) -> Option<Self> {
        if transition.repeated || transition.applied.outcome.is_err() {
            return None;
        }
        match command.op {
            Op::LeaseGrant { id, ttl_seconds } => {
                Some(Self::Granted(Lease { id, ttl_seconds, remaining_seconds: 0 }))
            }
            Op::LeaseRevoke { id } => Some(Self::Revoked(id)),
            Op::LeaseCheckpoint { id, remaining_seconds } => {
                Some(Self::Checkpointed(id, remaining_seconds))
            }
            Op::Txn(_)
            | Op::Atomic(_)
            | Op::Compact { .. }
            | Op::BeginEpoch { .. }
            | Op::RaiseFeatureLevel { .. }
            | Op::Auth(_)
            | Op::Alarm { .. }
            | Op::Quota { .. } => None,
        }
    }
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, Option<Timers>> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leads from now on: every lease begins anew, at what was left at its last checkpoint or at its
    /// full time to live.
    pub(crate) fn lead(&self, hub: &Hub, now: Instant) {
        let mut timers = self.lock();
        // Read under the lock: what is applied later is also taken up later.
        let mut all = Timers::default();
        hub.view().leases().into_iter().for_each(|lease| all.add(lease, now));
        *timers = Some(all);
    }

    /// Another replica leads.
    pub(crate) fn follow(&self) {
        *self.lock() = None;
    }

    /// What was applied, after it was shown.
    pub(crate) fn take_up(&self, changes: &[LeaseChange], now: Instant) {
        if changes.is_empty() {
            return;
        }
        let mut timers = self.lock();
        let Some(timers) = timers.as_mut() else { return };
        for change in changes {
            match *change {
                LeaseChange::Granted(lease) => timers.add(lease, now),
                LeaseChange::Revoked(id) => drop(timers.remove(id)),
                LeaseChange::Checkpointed(id, remaining) => {
                    if let Some(timer) = timers.by_id.get_mut(&id) {
                        timer.checkpointed = remaining != 0;
                    }
                }
            }
        }
    }

    /// At most `max` leases that have ended, those first that ended first. Each is named once: it is
    /// not renewed any more, and either revoked or told to [`Leases::end_later`].
    pub(crate) fn ended(&self, now: Instant, max: usize) -> Vec<LeaseId> {
        let mut timers = self.lock();
        let Some(timers) = timers.as_mut() else { return Vec::new() };
        let mut ended = Vec::new();
        while ended.len() < max
            && let Some((end, id)) = timers.ends.first().copied()
            && end <= now
        {
            timers.ends.remove(&(end, id));
            if let Some(timer) = timers.by_id.get_mut(&id) {
                timer.ending = true;
                ended.push(id);
            }
        }
        ended
    }

    /// Every lease that has not been named yet ends so much later. O(leases).
    pub(crate) fn postpone(&self, by: Duration) {
        let mut timers = self.lock();
        let Some(timers) = timers.as_mut() else { return };
        timers.ends = timers.ends.iter().map(|(end, id)| (*end + by, *id)).collect();
        for timer in timers.by_id.values_mut() {
            timer.end += by;
        }
    }

    /// A lease that has ended was not revoked: it will be found again.
    pub(crate) fn end_later(&self, id: LeaseId, at: Instant) {
        let mut timers = self.lock();
        let Some(timers) = timers.as_mut() else { return };
        if timers.by_id.contains_key(&id) {
            timers.ends.insert((at, id));
        }
    }

    /// At most `max` leases whose time left is to be put into the log, with it in seconds.
    pub(crate) fn to_checkpoint(&self, now: Instant, max: usize) -> Vec<(LeaseId, i64)> {
        let mut timers = self.lock();
        let Some(timers) = timers.as_mut() else { return Vec::new() };
        let mut due = Vec::new();
        while due.len() < max
            && let Some((at, id)) = timers.checkpoints.first().copied()
            && at <= now
        {
            timers.checkpoints.remove(&(at, id));
            let Some(timer) = timers.by_id.get_mut(&id) else { continue };
            let left = timer.end.saturating_duration_since(now);
            timer.checkpoint = checkpoint(now, left);
            if let Some(next) = timer.checkpoint {
                timers.checkpoints.insert((next, id));
            }
            // Rounded up: a checkpoint must not end a lease early, and 0 would be none.
            due.push((id, whole_seconds(left + Duration::from_millis(999)).max(1)));
        }
        due
    }

    /// Begins a lease anew. `None` when this replica does not lead.
    pub(crate) fn renew(&self, id: LeaseId, now: Instant) -> Option<Renewed> {
        let mut timers = self.lock();
        let timers = timers.as_mut()?;
        Some(match timers.by_id.get(&id) {
            None => Renewed::Gone,
            Some(timer) if timer.ending => Renewed::Gone,
            Some(timer) if timer.checkpointed => Renewed::AfterCheckpoint,
            Some(timer) => {
                let ttl_seconds = timer.ttl_seconds;
                timers.add(Lease { id, ttl_seconds, remaining_seconds: 0 }, now);
                Renewed::For(ttl_seconds)
            }
        })
    }

    /// Seconds until a lease ends, rounded down; `Some(None)` when there is none, `None` when this
    /// replica does not lead.
    pub(crate) fn left(&self, id: LeaseId, now: Instant) -> Option<Option<i64>> {
        let timers = self.lock();
        let timer = timers.as_ref()?.by_id.get(&id).filter(|timer| !timer.ending);
        Some(timer.map(|timer| whole_seconds(timer.end.saturating_duration_since(now))))
    }
}

impl Timers {
    fn add(&mut self, lease: Lease, now: Instant) {
        self.remove(lease.id);
        let checkpointed = lease.remaining_seconds > 0;
        let left = seconds(if checkpointed { lease.remaining_seconds } else { lease.ttl_seconds });
        let timer = Timer {
            ttl_seconds: lease.ttl_seconds,
            end: now + left,
            checkpoint: checkpoint(now, left),
            checkpointed,
            ending: false,
        };
        self.ends.insert((timer.end, lease.id));
        if let Some(at) = timer.checkpoint {
            self.checkpoints.insert((at, lease.id));
        }
        self.by_id.insert(lease.id, timer);
    }

    fn remove(&mut self, id: LeaseId) -> Option<Timer> {
        let timer = self.by_id.remove(&id)?;
        self.ends.remove(&(timer.end, id));
        if let Some(at) = timer.checkpoint {
            self.checkpoints.remove(&(at, id));
        }
        Some(timer)
    }
}

/// When a lease with so much left is to be checkpointed next.
fn checkpoint(now: Instant, left: Duration) -> Option<Instant> {
    (left > CHECKPOINT_INTERVAL).then(|| now + CHECKPOINT_INTERVAL)
}

fn whole_seconds(left: Duration) -> i64 {
    i64::try_from(left.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::state::State;

    fn lease(id: i64, ttl_seconds: i64) -> Lease {
        Lease { id: LeaseId(id), ttl_seconds, remaining_seconds: 0 }
    }

    fn leading(leases: &[Lease], now: Instant) -> Leases {
        let all = Leases::default();
        all.lead(&Hub::new(State::default()), now);
        let granted: Vec<_> = leases.iter().copied().map(LeaseChange::Granted).collect();
        all.take_up(&granted, now);
        all
    }

    #[test]
    fn a_lease_ends_when_nobody_renews_it_and_is_named_once() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let leases = leading(&[lease(1, 10), lease(2, 5), lease(3, 10)], start);
        assert_eq!(leases.ended(at(4), 9), []);
        assert_eq!(leases.renew(LeaseId(1), at(4)), Some(Renewed::For(10)));
        assert_eq!(leases.left(LeaseId(1), at(5)), Some(Some(9)));
        assert_eq!(
            leases.ended(at(10), 1),
            [LeaseId(2)],
            "the first first, and no more than asked"
        );
        assert_eq!(leases.ended(at(10), 9), [LeaseId(3)]);
        assert_eq!(leases.ended(at(10), 9), []);
        assert_eq!(leases.renew(LeaseId(2), at(10)), Some(Renewed::Gone), "its end is proposed");
        assert_eq!(leases.left(LeaseId(2), at(10)), Some(None));
        leases.end_later(LeaseId(2), at(11));
        leases.take_up(&[LeaseChange::Revoked(LeaseId(3))], at(10));
        leases.end_later(LeaseId(3), at(11));
        assert_eq!(leases.ended(at(11), 9), [LeaseId(2)], "what is revoked does not come back");
        assert_eq!(leases.ended(at(14), 9), [LeaseId(1)]);
        leases.follow();
        assert_eq!(leases.renew(LeaseId(1), at(14)), None);
        assert_eq!(leases.left(LeaseId(1), at(14)), None);
    }

    #[test]
    fn a_pause_is_not_counted() {
        // FEN-43
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let leases = leading(&[lease(1, 10), lease(2, 5)], start);
        assert_eq!(leases.ended(at(5), 9), [LeaseId(2)]);
        leases.postpone(Duration::from_secs(30));
        assert_eq!(leases.left(LeaseId(1), at(36)), Some(Some(4)));
        assert_eq!(leases.ended(at(39), 9), [], "what has ended before is named once all the same");
        assert_eq!(leases.renew(LeaseId(1), at(39)), Some(Renewed::For(10)));
        assert_eq!(leases.ended(at(48), 9), []);
        assert_eq!(leases.ended(at(49), 9), [LeaseId(1)]);
    }

    #[test]
    fn a_lease_that_is_granted_again_begins_anew() {
        let start = Instant::now();
        let leases = leading(&[lease(1, 10)], start);
        let later = start + Duration::from_secs(9);
        let again = [LeaseChange::Revoked(LeaseId(1)), LeaseChange::Granted(lease(1, 20))];
        leases.take_up(&again, later);
        assert_eq!(leases.left(LeaseId(1), later), Some(Some(20)));
        assert_eq!(leases.ended(later + Duration::from_secs(19), 9), []);
        assert_eq!(leases.ended(later + Duration::from_secs(20), 9), [LeaseId(1)]);
    }

    #[test]
    fn a_long_lease_is_checkpointed_unless_it_is_renewed() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let leases = leading(&[lease(1, 1000), lease(2, 1000), lease(3, 300)], start);
        leases.renew(LeaseId(2), at(200));
        assert_eq!(leases.to_checkpoint(at(299), 9), []);
        assert_eq!(leases.to_checkpoint(at(300), 9), [(LeaseId(1), 700)]);
        leases.take_up(&[LeaseChange::Checkpointed(LeaseId(1), 700)], at(300));
        assert_eq!(leases.renew(LeaseId(1), at(301)), Some(Renewed::AfterCheckpoint));
        assert_eq!(leases.to_checkpoint(at(600), 9), [(LeaseId(2), 600), (LeaseId(1), 400)]);
        leases.take_up(&[LeaseChange::Checkpointed(LeaseId(1), 0)], at(601));
        assert_eq!(leases.renew(LeaseId(1), at(601)), Some(Renewed::For(1000)));
        assert_eq!(leases.left(LeaseId(1), at(601)), Some(Some(1000)));
    }

    #[test]
    fn a_new_leader_goes_on_from_the_checkpoint() {
        let mut state = State::default();
        let id = LeaseId(7);
        for (sequence, op) in [
            (1, Op::LeaseGrant { id, ttl_seconds: 1000 }),
            (2, Op::LeaseCheckpoint { id, remaining_seconds: 400 }),
        ] {
            state.apply(&Command {
                at: store::Timestamp(0),
                request: store::RequestId { client: 1, sequence },
                origin: store::Origin::Client,
                op,
            });
        }
        let (leases, now) = (Leases::default(), Instant::now());
        leases.lead(&Hub::new(state), now);
        assert_eq!(leases.left(id, now), Some(Some(400)));
        assert_eq!(leases.renew(id, now), Some(Renewed::AfterCheckpoint));
    }

    #[test]
    fn nothing_is_left_of_leases_that_are_gone() {
        let start = Instant::now();
        let all: Vec<Lease> = (1..=1000).map(|id| lease(id, 600)).collect();
        let leases = leading(&all, start);
        for _ in 0..3 {
            for lease in &all {
                let renewed = leases.renew(lease.id, start + Duration::from_secs(1));
                assert_eq!(renewed, Some(Renewed::For(600)));
            }
        }
        let gone: Vec<_> = all.iter().map(|l| LeaseChange::Revoked(l.id)).collect();
        leases.take_up(&gone, start);
        let timers = leases.lock();
        let timers = timers.as_ref().unwrap();
        let left = (timers.by_id.len(), timers.ends.len(), timers.checkpoints.len());
        assert_eq!(left, (0, 0, 0));
    }
}
