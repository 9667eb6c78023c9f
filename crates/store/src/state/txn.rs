//! Transactions: which way they go, whether they may, and the steps themselves.
//!
//! As in etcd all compares, those of nested transactions too, look at the state before the first
//! step. So the whole way is known and checked before anything changes, and carrying it out cannot
//! fail; later steps see earlier ones.

use super::{Contents, keys::Keys, range::Now, range::check_revision};
use crate::types::{
    Compare, CompareOperator, CompareTarget, DeleteRange, Event, KeyRange, KeyValue, LeaseId, Put,
    RangeRequest, Rejection, Revision, Txn, TxnOp, TxnOpResult, TxnResult,
};
use bytes::Bytes;
use std::{cmp::Ordering, collections::BTreeSet, ops::Bound, sync::Arc};

/// Transactions within a transaction. etcd's limit on operations (128, less for each level) allows no
/// more; without one, a deep enough command would overflow the stack of every member.
pub const TXN_DEPTH_MAX: usize = 128;

/// The changes of one transaction as it goes on.
pub(super) struct Changes {
    /// The revision it takes if it changes anything.
    pub(super) revision: Revision,
    /// So far.
    pub(super) events: Vec<Arc<Event>>,
}

/// The way that a transaction takes.
struct Plan<'a> {
    succeeded: bool,
    steps: Vec<Step<'a>>,
}

enum Step<'a> {
    Range(&'a RangeRequest),
    Put(&'a Put),
    Delete(&'a DeleteRange),
    Txn(Plan<'a>),
}

impl Contents {
    /// Checks and carries out one transaction; the revision after it.
    ///
    /// # Errors
    /// Nothing has changed.
    pub(super) fn transaction(
        &mut self,
        txn: &Txn,
        events: &mut Vec<Arc<Event>>,
    ) -> Result<(Revision, TxnResult), Rejection> {
        txn.check()?;
        let plan = self.plan(txn);
        self.check_plan(&plan, &mut Growth::default())?;
        let mut changes = self.begin();
        let result = self.run(&plan, &mut changes);
        self.commit(changes, events);
        Ok((self.revision, result))
    }

    /// Whether every compare holds now.
    pub(super) fn holds(&self, compares: &[Compare]) -> bool {
        compares.iter().all(|compare| holds(&self.keys, compare))
    }

    fn plan<'a>(&self, txn: &'a Txn) -> Plan<'a> {
        let succeeded = self.holds(&txn.compare);
        let steps = if succeeded { &txn.success } else { &txn.failure };
        let step = |step: &'a TxnOp| match step {
            TxnOp::Range(range) => Step::Range(range),
            TxnOp::Put(put) => Step::Put(put),
            TxnOp::DeleteRange(delete) => Step::Delete(delete),
            TxnOp::Txn(nested) => Step::Txn(self.plan(nested)),
        };
        Plan { succeeded, steps: steps.iter().map(step).collect() }
    }

    fn check_plan(&self, plan: &Plan<'_>, growth: &mut Growth) -> Result<(), Rejection> {
        for step in &plan.steps {
            match step {
                Step::Range(range) => {
                    check_revision(range.revision, self.revision, self.compacted)?;
                }
                Step::Put(put) => self.check_put(put, growth)?,
                Step::Delete(_) => {}
                Step::Txn(nested) => self.check_plan(nested, growth)?,
            }
        }
        Ok(())
    }

    fn check_put(&self, put: &Put, growth: &mut Growth) -> Result<(), Rejection> {
        let attached = !put.ignore_lease && put.lease != LeaseId::NONE;
        let needs_old = put.ignore_value || put.ignore_lease;
        if !needs_old && !self.is_full() {
            // Nearly always: what is there need not be looked up.
            let known = !attached || self.leases.contains_key(&put.lease);
            return if known { Ok(()) } else { Err(Rejection::LeaseNotFound) };
        }
        let old = self.keys.get(&put.key);
        if needs_old && old.is_none() {
            return Err(Rejection::KeyNotFound);
        }
        if attached && !self.leases.contains_key(&put.lease) {
            return Err(Rejection::LeaseNotFound);
        }
        if put.ignore_value {
            return Ok(());
        }
        let (before, after) =
            (old.map_or(0, |old| old.bytes()), (put.key.len() + put.value.len()) as u64);
        growth.added += after;
        growth.replaced += before;
        if !self.is_full() || after <= before {
            return Ok(());
        }
        // An object must be written to be marked for deletion: updates may use a part of the disk
        // that creates may not.
        let limit = self.quota_bytes.saturating_add(self.quota_bytes / 8);
        let bytes = (self.keys.live_bytes() + growth.added).saturating_sub(growth.replaced);
        if old.is_none() || bytes > limit {
            return Err(Rejection::NoSpace);
        }
        Ok(())
    }

    fn run(&mut self, plan: &Plan<'_>, changes: &mut Changes) -> TxnResult {
        let results = plan.steps.iter().map(|step| self.run_step(step, changes)).collect();
        TxnResult { succeeded: plan.succeeded, results }
    }

    fn run_step(&mut self, step: &Step<'_>, changes: &mut Changes) -> TxnOpResult {
        match step {
            Step::Range(range) => {
                let pending = !changes.events.is_empty();
                let revision = if pending { changes.revision } else { self.revision };
                TxnOpResult::Range(self.keys.range(range, Now { revision, pending }))
            }
            Step::Put(put) => {
                let event = self.put(put, changes);
                TxnOpResult::Put(event.prev.as_deref().filter(|_| put.prev_kv).cloned())
            }
            Step::Delete(delete) => {
                let before = changes.events.len();
                self.delete(&delete.range, changes);
                let gone = changes.events.get(before..).unwrap_or_default();
                let prev_kvs = match delete.prev_kv {
                    true => {
                        gone.iter().filter_map(|event| event.prev.as_deref().cloned()).collect()
                    }
                    false => Vec::new(),
                };
                TxnOpResult::DeleteRange { deleted: gone.len() as u64, prev_kvs }
            }
            Step::Txn(nested) => TxnOpResult::Txn(self.run(nested, changes)),
        }
    }

    fn put(&mut self, put: &Put, changes: &mut Changes) -> Arc<Event> {
        let event = self.keys.put(changes.revision, put);
        let before = event.prev.as_ref().map_or(LeaseId::NONE, |prev| prev.lease);
        if event.kv.lease != before {
            self.detach(before, &put.key);
            self.attach(event.kv.lease, &put.key);
        }
        changes.events.push(Arc::clone(&event));
        event
    }

    /// Deletes what is there.
    pub(super) fn delete(&mut self, range: &KeyRange, changes: &mut Changes) {
        let found: Vec<(LeaseId, Bytes)> =
            self.keys.live().range(range).map(|kv| (kv.lease, kv.key.clone())).collect();
        for (lease, key) in found {
            self.detach(lease, &key);
            changes.events.extend(self.keys.delete(changes.revision, &key));
        }
    }
}

impl Txn {
    /// Whether it is well formed, whatever the state: not too deep, every key named, none written
    /// twice on one way through it.
    ///
    /// # Errors
    /// The [`Rejection`] with which apply would answer.
    pub fn check(&self) -> Result<(), Rejection> {
        check_txn(self, 0)?;
        Written::default().add_txn(self)
    }
}

/// Bytes that the puts of a transaction write, and bytes that they replace.
#[derive(Default)]
struct Growth {
    added: u64,
    replaced: u64,
}

/// What makes a transaction wrong in any state: too deep, or a key without bytes.
fn check_txn(txn: &Txn, depth: usize) -> Result<(), Rejection> {
    if depth > TXN_DEPTH_MAX {
        return Err(Rejection::TooDeep { depth_max: TXN_DEPTH_MAX });
    }
    for step in txn.success.iter().chain(&txn.failure) {
        let empty = match step {
            TxnOp::Range(RangeRequest { range, .. })
            | TxnOp::DeleteRange(DeleteRange { range, .. }) => {
                matches!(range, KeyRange::One(key) if key.is_empty())
            }
            TxnOp::Put(put) => put.key.is_empty(),
            TxnOp::Txn(nested) => {
                check_txn(nested, depth + 1)?;
                false
            }
        };
        if empty {
            return Err(Rejection::EmptyKey);
        }
    }
    Ok(())
}

/// What one way through a transaction writes. One revision of a key is one version of it, so no way
/// may put a key twice, nor put and delete it; deleting it twice is deleting it once.
#[derive(Clone, Default)]
struct Written<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Written<'a> {
    /// Takes in both branches, of which only one is taken: they may write the same keys.
    fn add_txn(&mut self, txn: &'a Txn) -> Result<(), Rejection> {
        if txn.failure.is_empty() {
            return self.add(&txn.success);
        }
        let mut other = self.clone();
        self.add(&txn.success)?;
        other.add(&txn.failure)?;
        self.puts.append(&mut other.puts);
        self.deletes.append(&mut other.deletes);
        Ok(())
    }

    fn add(&mut self, steps: &'a [TxnOp]) -> Result<(), Rejection> {
        for step in steps {
            let fits = match step {
                TxnOp::Range(_) => true,
                TxnOp::Put(put) => {
                    self.deletes.iter().all(|range| !range.contains(&put.key))
                        && self.puts.insert(&put.key)
                }
                TxnOp::DeleteRange(delete) => {
                    self.deletes.push(&delete.range);
                    let start: &[u8] = delete.range.start();
                    let from = (Bound::Included(start), Bound::Unbounded);
                    self.puts
                        .range::<[u8], _>(from)
                        .next()
                        .is_none_or(|key| !delete.range.contains(key))
                }
                TxnOp::Txn(nested) => {
                    self.add_txn(nested)?;
                    true
                }
            };
            if !fits {
                return Err(Rejection::DuplicateKey);
            }
        }
        Ok(())
    }
}

fn holds(keys: &Keys, compare: &Compare) -> bool {
    let mut found = keys.live().range(&compare.range).peekable();
    if found.peek().is_none() {
        return compare_one(compare, None);
    }
    found.all(|kv| compare_one(compare, Some(kv)))
}

fn compare_one(compare: &Compare, kv: Option<&KeyValue>) -> bool {
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
