//! Alarms: what stops writes until somebody says that it is over.
//!
//! Two kinds of alarm look the same to who lists them. Those that were raised by a command stay until
//! a command takes them back. That the quota is used up is not stored but follows from the keys: it
//! begins with the write that reaches the quota and ends with the deletion that goes below it, so that
//! nobody has to be told when there is room again.

use super::{Contents, View};
use crate::types::{Alarm, AlarmKind, Op, Outcome, Rejection, Txn, TxnOp};

impl Contents {
    pub(super) fn alarm(&mut self, alarm: Alarm, active: bool) -> Outcome {
        let changed = match active {
            true => self.alarms.insert(alarm).is_none(),
            false => self.alarms.remove(&alarm).is_some(),
        };
        Outcome::Alarm { changed }
    }

    /// # Errors
    /// The command does what a raised alarm forbids.
    pub(super) fn check_alarms(&self, op: &Op) -> Result<(), Rejection> {
        for alarm in &self.alarms {
            match alarm.kind {
                AlarmKind::NoSpace if puts(op) => return Err(Rejection::NoSpace),
                AlarmKind::Corrupt if changes(op) => return Err(Rejection::Corrupt),
                AlarmKind::NoSpace | AlarmKind::Corrupt => {}
            }
        }
        Ok(())
    }

    /// Whether creates are refused.
    pub(super) fn is_full(&self) -> bool {
        self.keys.live_bytes() >= self.quota_bytes
    }
}

impl View {
    /// What is wrong, in order: what was raised, and a used up quota, for the member that leads.
    #[must_use]
    pub fn alarms(&self) -> Vec<Alarm> {
        let full = Alarm { kind: AlarmKind::NoSpace, member: self.contents.leader };
        let mut alarms = self.contents.alarms.clone();
        if self.contents.is_full() {
            alarms.insert(full);
        }
        alarms.into_iter().collect()
    }
}

/// Whether a command writes a key on any way through it: as in etcd the way is not looked at.
fn puts(op: &Op) -> bool {
    match op {
        Op::Txn(txn) => any_step(txn, &|step| matches!(step, TxnOp::Put(_))),
        Op::Atomic(txns) => {
            txns.iter().any(|txn| any_step(txn, &|step| matches!(step, TxnOp::Put(_))))
        }
        Op::LeaseGrant { .. }
        | Op::LeaseRevoke { .. }
        | Op::LeaseCheckpoint { .. }
        | Op::Compact { .. }
        | Op::BeginEpoch { .. }
        | Op::RaiseFeatureLevel { .. }
        | Op::Auth(_)
        | Op::Alarm { .. }
        | Op::Quota { .. } => false,
    }
}

/// Whether a command may change what clients keep here.
fn changes(op: &Op) -> bool {
    let writes = |step: &TxnOp| matches!(step, TxnOp::Put(_) | TxnOp::DeleteRange(_));
    match op {
        Op::Txn(txn) => any_step(txn, &writes),
        Op::Atomic(txns) => txns.iter().any(|txn| any_step(txn, &writes)),
        Op::LeaseGrant { .. } | Op::LeaseRevoke { .. } | Op::Compact { .. } => true,
        Op::LeaseCheckpoint { .. }
        | Op::BeginEpoch { .. }
        | Op::RaiseFeatureLevel { .. }
        | Op::Auth(_)
        | Op::Alarm { .. }
        | Op::Quota { .. } => false,
    }
}

/// Not by recursion: how deep a transaction goes has not been checked yet.
fn any_step(txn: &Txn, wanted: &impl Fn(&TxnOp) -> bool) -> bool {
    let mut left = vec![txn];
    while let Some(txn) = left.pop() {
        for step in txn.success.iter().chain(&txn.failure) {
            match step {
                TxnOp::Txn(nested) => left.push(nested),
                step if wanted(step) => return true,
                TxnOp::Range(_) | TxnOp::Put(_) | TxnOp::DeleteRange(_) => {}
            }
        }
    }
    false
}
