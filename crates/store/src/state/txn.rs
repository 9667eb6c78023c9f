//! Transactions: compares, the rule against writing a key twice, and the steps themselves.

use super::State;
use super::keys::check_revision;
use crate::types::{
    Compare, CompareOperator, CompareTarget, Event, KeyRange, KeyValue, LeaseId, Put, Rejection,
    Revision, Txn, TxnOp, TxnOpResult, TxnResult,
};
use bytes::Bytes;
use std::{cmp::Ordering, collections::BTreeSet, sync::Arc};

/// The changes of one transaction as it goes on.
pub(crate) struct Changes {
    /// The revision it takes if it changes anything.
    pub(crate) revision: Revision,
    /// So far.
    pub(crate) events: Vec<Arc<Event>>,
}

impl State {
    /// Whether every compare holds now.
    pub(crate) fn holds(&self, compares: &[Compare]) -> bool {
        compares.iter().all(|compare| {
            let mut any = false;
            let all = self.keys.live(&compare.range).all(|kv| {
                any = true;
                compare_one(compare, Some(kv))
            });
            if any { all } else { compare_one(compare, None) }
        })
    }

    /// Finds what would make a transaction fail, before anything is changed.
    ///
    /// # Errors
    /// The first reason.
    pub(crate) fn check_txn(&self, txn: &Txn, revision: Revision) -> Result<(), Rejection> {
        for branch in [&txn.success, &txn.failure] {
            check_duplicates(branch, &mut BTreeSet::new(), &mut Vec::new())?;
        }
        let taken = if self.holds(&txn.compare) { &txn.success } else { &txn.failure };
        let mut written = BTreeSet::new();
        self.check_steps(taken, revision, &mut written)
    }

    /// `written` holds what the steps before this one put, so that a later `ignore_value` finds it.
    fn check_steps(
        &self,
        steps: &[TxnOp],
        revision: Revision,
        written: &mut BTreeSet<Bytes>,
    ) -> Result<(), Rejection> {
        for step in steps {
            match step {
                TxnOp::Range(range) => {
                    non_empty(&range.range)?;
                    check_revision(range.revision, revision, self.compacted)?;
                }
                TxnOp::Put(put) => {
                    self.check_put(put, written)?;
                    written.insert(put.key.clone());
                }
                TxnOp::DeleteRange(delete) => non_empty(&delete.range)?,
                TxnOp::Txn(nested) => {
                    // Which branch is taken may depend on the steps before: both must be possible.
                    for branch in [&nested.success, &nested.failure] {
                        self.check_steps(branch, revision, &mut written.clone())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn check_put(&self, put: &Put, written: &BTreeSet<Bytes>) -> Result<(), Rejection> {
        if put.key.is_empty() {
            return Err(Rejection::EmptyKey);
        }
        let exists = self.keys.get(&put.key).is_some() || written.contains(&put.key);
        if (put.ignore_value || put.ignore_lease) && !exists {
            return Err(Rejection::KeyNotFound);
        }
        if !put.ignore_lease && put.lease != LeaseId::NONE && !self.leases.contains_key(&put.lease)
        {
            return Err(Rejection::LeaseNotFound);
        }
        let grows = !put.ignore_value
            && self.keys.get(&put.key).is_none_or(|old| old.value.len() < put.value.len());
        if grows
            && self.keys.live_bytes() + (put.key.len() + put.value.len()) as u64 > self.quota_bytes
        {
            return Err(Rejection::NoSpace);
        }
        Ok(())
    }

    /// Carries out a transaction that [`State::check_txn`] has passed.
    pub(crate) fn run_txn(&mut self, txn: &Txn, changes: &mut Changes) -> TxnResult {
        let succeeded = self.holds(&txn.compare);
        let steps = if succeeded { &txn.success } else { &txn.failure };
        let results = steps.iter().map(|step| self.run_step(step, changes)).collect();
        TxnResult { succeeded, results }
    }

    fn run_step(&mut self, step: &TxnOp, changes: &mut Changes) -> TxnOpResult {
        match step {
            TxnOp::Range(range) => {
                let current =
                    if changes.events.is_empty() { self.revision } else { changes.revision };
                TxnOpResult::Range(self.keys.range(range, current))
            }
            TxnOp::Put(put) => {
                let prev = self.put(put, changes);
                TxnOpResult::Put(prev.filter(|_| put.prev_kv))
            }
            TxnOp::DeleteRange(delete) => {
                let deleted = self.delete(&delete.range, changes);
                let prev_kvs = if delete.prev_kv { deleted.clone() } else { Vec::new() };
                TxnOpResult::DeleteRange { deleted: deleted.len() as u64, prev_kvs }
            }
            TxnOp::Txn(nested) => TxnOpResult::Txn(self.run_txn(nested, changes)),
        }
    }

    fn put(&mut self, put: &Put, changes: &mut Changes) -> Option<KeyValue> {
        let old = self.keys.get(&put.key).cloned();
        let value = match &old {
            Some(old) if put.ignore_value => old.value.clone(),
            _ => put.value.clone(),
        };
        let lease = match &old {
            Some(old) if put.ignore_lease => old.lease,
            _ => put.lease,
        };
        if let Some(old) = &old
            && old.lease != lease
        {
            self.detach(old.lease, &old.key);
        }
        if lease != LeaseId::NONE {
            self.attach(lease, &put.key);
        }
        let event = self.keys.put(next_position(changes), put.key.clone(), value, lease);
        changes.events.push(event);
        old.map(|old| (*old).clone())
    }

    /// Deletes what is there; the pairs that were.
    pub(crate) fn delete(&mut self, range: &KeyRange, changes: &mut Changes) -> Vec<KeyValue> {
        let found: Vec<Arc<KeyValue>> = self.keys.live(range).cloned().collect();
        for kv in &found {
            self.detach(kv.lease, &kv.key);
            changes.events.extend(self.keys.delete(next_position(changes), &kv.key));
        }
        found.iter().map(|kv| (**kv).clone()).collect()
    }
}

fn next_position(changes: &Changes) -> (Revision, u32) {
    let sub = u32::try_from(changes.events.len())
        .expect("a command fits in a log entry and cannot hold 2^32 changes");
    (changes.revision, sub)
}

fn non_empty(range: &KeyRange) -> Result<(), Rejection> {
    if matches!(range, KeyRange::One(key) if key.is_empty()) {
        return Err(Rejection::EmptyKey);
    }
    Ok(())
}

fn compare_one(compare: &Compare, kv: Option<&Arc<KeyValue>>) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(v) => kv.map_or(0, |kv| kv.version).cmp(v),
        CompareTarget::CreateRevision(r) => {
            kv.map_or(Revision::ZERO, |kv| kv.create_revision).cmp(r)
        }
        CompareTarget::ModRevision(r) => kv.map_or(Revision::ZERO, |kv| kv.mod_revision).cmp(r),
        CompareTarget::Lease(l) => kv.map_or(LeaseId::NONE, |kv| kv.lease).cmp(l),
        CompareTarget::Value(v) => match kv {
            // An absent key has no value: no comparison with it holds.
            None => return false,
            Some(kv) => kv.value.cmp(v),
        },
    };
    match compare.operator {
        CompareOperator::Equal => order == Ordering::Equal,
        CompareOperator::NotEqual => order != Ordering::Equal,
        CompareOperator::Greater => order == Ordering::Greater,
        CompareOperator::Less => order == Ordering::Less,
    }
}

/// etcd refuses a transaction that could write one key twice on one path through it; the two branches
/// of a nested transaction are two paths.
fn check_duplicates(
    steps: &[TxnOp],
    puts: &mut BTreeSet<Bytes>,
    deletes: &mut Vec<KeyRange>,
) -> Result<(), Rejection> {
    for step in steps {
        match step {
            TxnOp::Range(_) => {}
            TxnOp::Put(put) => {
                if deletes.iter().any(|range| range.contains(&put.key))
                    || !puts.insert(put.key.clone())
                {
                    return Err(Rejection::DuplicateKey);
                }
            }
            TxnOp::DeleteRange(delete) => {
                if puts.iter().any(|key| delete.range.contains(key)) {
                    return Err(Rejection::DuplicateKey);
                }
                deletes.push(delete.range.clone());
            }
            TxnOp::Txn(nested) => {
                let (before_puts, before_deletes) = (puts.clone(), deletes.clone());
                for branch in [&nested.success, &nested.failure] {
                    let (mut p, mut d) = (before_puts.clone(), before_deletes.clone());
                    check_duplicates(branch, &mut p, &mut d)?;
                    puts.append(&mut p);
                    deletes.append(&mut d);
                }
            }
        }
    }
    Ok(())
}
