//! What the state machine must do, said as plainly as possible: every version there ever was in one
//! list, searched from end to end; every way through a transaction walked; undone by a copy.

use crate::auth_model::AuthModel;
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::{
    Alarm, AlarmKind, Applied, Command, Compare, CompareOperator, CompareTarget, Epoch, Event,
    EventKind, KeyRange, KeyValue, Lease, LeaseId, Op, Origin, Outcome, Put, RangeRequest,
    RangeResult, Rejection, Revision, SortTarget, Txn, TxnOp, TxnOpResult, TxnResult,
};

#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// Every put and deletion, in order.
    pub(crate) events: Vec<Event>,
    pub(crate) revision: u64,
    pub(crate) compacted: u64,
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
    pub(crate) alarms: BTreeSet<Alarm>,
    pub(crate) auth: AuthModel,
    epoch: u64,
    answers: BTreeMap<u64, Applied>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            events: Vec::new(),
            revision: 1,
            compacted: 0,
            leases: BTreeMap::new(),
            alarms: BTreeSet::new(),
            auth: AuthModel::default(),
            epoch: 0,
            answers: BTreeMap::new(),
        }
    }
}

impl Model {
    /// The answer, and whether the command was carried out just now.
    pub(crate) fn apply(&mut self, command: &Command) -> (Applied, bool) {
        if let Some(first) = self.answers.get(&command.request.sequence) {
            return (first.clone(), false);
        }
        let mut after = self.clone();
        let outcome = after.carry_out(command);
        let done = outcome.is_ok();
        if done {
            *self = after;
        }
        let applied = Applied { revision: Revision::new(self.revision), outcome };
        if done || could_be_otherwise_later(&applied) {
            self.answers.insert(command.request.sequence, applied.clone());
        }
        (applied, done)
    }

    fn carry_out(&mut self, command: &Command) -> Result<Outcome, Rejection> {
        if let Origin::Controller { epoch } = command.origin
            && epoch.0 != self.epoch
        {
            return Err(Rejection::Fenced { decided: epoch, current: Epoch(self.epoch) });
        }
        if let Origin::User(who) = &command.origin {
            let leased = |id| {
                self.live().filter(move |kv| id != LeaseId::NONE && kv.lease == id).map(|kv| kv.key)
            };
            self.auth.may(who, &command.op, &|id| leased(id).collect())?;
        }
        let raised = |kind| self.alarms.iter().any(|alarm| alarm.kind == kind);
        let steps = match &command.op {
            Op::Txn(txn) => all_steps([txn]),
            Op::Atomic(txns) => all_steps(txns),
            _ => Vec::new(),
        };
        let puts = steps.iter().any(|step| matches!(step, TxnOp::Put(_)));
        let changes = steps.iter().any(|step| !matches!(step, TxnOp::Range(_) | TxnOp::Txn(_)))
            || matches!(
                command.op,
                Op::LeaseGrant { .. } | Op::LeaseRevoke { .. } | Op::Compact { .. }
            );
        if raised(AlarmKind::NoSpace) && puts {
            return Err(Rejection::NoSpace);
        }
        if raised(AlarmKind::Corrupt) && changes {
            return Err(Rejection::Corrupt);
        }
        match &command.op {
            Op::Auth(op) => {
                self.auth.change(op)?;
                Ok(Outcome::Done)
            }
            Op::Alarm { alarm, active: true } => {
                Ok(Outcome::Alarm { changed: self.alarms.insert(*alarm) })
            }
            Op::Alarm { alarm, active: false } => {
                Ok(Outcome::Alarm { changed: self.alarms.remove(alarm) })
            }
            Op::Txn(txn) => Ok(Outcome::Txn(self.txn(txn)?)),
            Op::Atomic(txns) => {
                let mut results = Vec::new();
                for (index, txn) in txns.iter().enumerate() {
                    if !txn.compare.iter().all(|compare| self.holds(compare)) {
                        return Err(Rejection::Precondition { index });
                    }
                    let result = self.txn(txn)?;
                    results.push((Revision::new(self.revision), result));
                }
                Ok(Outcome::Atomic(results))
            }
            Op::LeaseGrant { id, ttl_seconds } => {
                if *id == LeaseId::NONE {
                    return Err(Rejection::LeaseNotFound);
                }
                if *ttl_seconds > 9_000_000_000 {
                    return Err(Rejection::LeaseTtlTooLarge);
                }
                if self.leases.contains_key(id) {
                    return Err(Rejection::LeaseExists);
                }
                let lease = Lease { id: *id, ttl_seconds: *ttl_seconds, remaining_seconds: 0 };
                self.leases.insert(*id, lease);
                Ok(Outcome::Done)
            }
            Op::LeaseRevoke { id } => {
                self.leases.remove(id).ok_or(Rejection::LeaseNotFound)?;
                let keys: Vec<_> = self.live().filter(|kv| kv.lease == *id).collect();
                for kv in &keys {
                    self.delete(kv);
                }
                self.revision += u64::from(!keys.is_empty());
                Ok(Outcome::LeaseRevoked { deleted: keys.len() as u64 })
            }
            Op::LeaseCheckpoint { id, remaining_seconds } => {
                let lease = self.leases.get_mut(id).ok_or(Rejection::LeaseNotFound)?;
                lease.remaining_seconds = *remaining_seconds;
                Ok(Outcome::Done)
            }
            Op::Compact { revision: requested } => {
                let compacted = Revision::new(self.compacted);
                if *requested <= compacted {
                    return Err(Rejection::Compacted { requested: *requested, compacted });
                }
                self.not_in_the_future(*requested)?;
                self.compacted = requested.get();
                Ok(Outcome::Done)
            }
            Op::BeginEpoch { epoch, .. } => {
                if epoch.0 <= self.epoch {
                    let current = Epoch(self.epoch);
                    return Err(Rejection::StaleEpoch { requested: *epoch, current });
                }
                self.epoch = epoch.0;
                Ok(Outcome::Done)
            }
            Op::RaiseFeatureLevel { .. } | Op::Quota { .. } => Ok(Outcome::Done),
        }
    }

    fn not_in_the_future(&self, requested: Revision) -> Result<(), Rejection> {
        let current = Revision::new(self.revision);
        if requested > current {
            return Err(Rejection::FutureRevision { requested, current });
        }
        Ok(())
    }

    fn txn(&mut self, txn: &Txn) -> Result<TxnResult, Rejection> {
        let mut empty = false;
        each_step(txn, &mut |step| {
            empty |= match step {
                TxnOp::Put(put) => put.key.is_empty(),
                TxnOp::Range(RangeRequest { range: KeyRange::One(key), .. }) => key.is_empty(),
                TxnOp::DeleteRange(delete) => delete.range == KeyRange::One(Bytes::new()),
                TxnOp::Range(_) | TxnOp::Txn(_) => false,
            };
        });
        if empty {
            return Err(Rejection::EmptyKey);
        }
        if ways(txn).iter().any(|way| writes_a_key_twice(way)) {
            return Err(Rejection::DuplicateKey);
        }
        let before = self.clone();
        let result = self.steps(txn, &before)?;
        self.revision += u64::from(self.events.len() > before.events.len());
        Ok(result)
    }

    fn steps(&mut self, txn: &Txn, before: &Self) -> Result<TxnResult, Rejection> {
        let succeeded = txn.compare.iter().all(|compare| before.holds(compare));
        let steps = if succeeded { &txn.success } else { &txn.failure };
        let mut results = Vec::new();
        for step in steps {
            results.push(match step {
                TxnOp::Range(request) => {
                    before.readable(request.revision)?;
                    TxnOpResult::Range(self.range(request))
                }
                TxnOp::Put(put) => TxnOpResult::Put(self.put(put, before)?),
                TxnOp::DeleteRange(delete) => {
                    let keys: Vec<_> =
                        self.live().filter(|kv| contains(&delete.range, &kv.key)).collect();
                    for kv in &keys {
                        self.delete(kv);
                    }
                    let deleted = keys.len() as u64;
                    let prev_kvs = if delete.prev_kv { keys } else { vec![] };
                    TxnOpResult::DeleteRange { deleted, prev_kvs }
                }
                TxnOp::Txn(nested) => TxnOpResult::Txn(self.steps(nested, before)?),
            });
        }
        Ok(TxnResult { succeeded, results })
    }

    fn put(&mut self, put: &Put, before: &Self) -> Result<Option<KeyValue>, Rejection> {
        let old = before.live().find(|kv| kv.key == put.key);
        if (put.ignore_value || put.ignore_lease) && old.is_none() {
            return Err(Rejection::KeyNotFound);
        }
        let lease = match &old {
            Some(old) if put.ignore_lease => old.lease,
            _ if put.lease != LeaseId::NONE && !self.leases.contains_key(&put.lease) => {
                return Err(Rejection::LeaseNotFound);
            }
            _ => put.lease,
        };
        let revision = Revision::new(before.revision + 1);
        let value = old.as_ref().filter(|_| put.ignore_value).map(|old| old.value.clone());
        let kv = KeyValue {
            key: put.key.clone(),
            value: value.unwrap_or_else(|| put.value.clone()),
            create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.as_ref().map_or(1, |old| old.version + 1),
            lease,
        };
        let (kv, prev) = (Arc::new(kv), old.clone().map(Arc::new));
        self.events.push(Event { kind: EventKind::Put, kv, prev });
        Ok(old.filter(|_| put.prev_kv))
    }

    /// At the revision after the current one.
    fn delete(&mut self, old: &KeyValue) {
        let kv = KeyValue {
            key: old.key.clone(),
            value: Bytes::new(),
            create_revision: Revision::ZERO,
            mod_revision: Revision::new(self.revision + 1),
            version: 0,
            lease: LeaseId::NONE,
        };
        let (kv, prev) = (Arc::new(kv), Some(Arc::new(old.clone())));
        self.events.push(Event { kind: EventKind::Delete, kv, prev });
    }

    /// Every pair as it was at a revision, by key.
    pub(crate) fn at(&self, revision: u64) -> BTreeMap<Bytes, KeyValue> {
        let mut pairs = BTreeMap::new();
        for event in self.events.iter().filter(|e| e.kv.mod_revision.get() <= revision) {
            match event.kind {
                EventKind::Put => drop(pairs.insert(event.kv.key.clone(), (*event.kv).clone())),
                EventKind::Delete => drop(pairs.remove(&event.kv.key)),
            }
        }
        pairs
    }

    /// Every pair, by key.
    pub(crate) fn live(&self) -> impl Iterator<Item = KeyValue> + use<> {
        self.at(u64::MAX).into_values()
    }

    fn readable(&self, revision: Revision) -> Result<(), Rejection> {
        self.not_in_the_future(revision)?;
        let compacted = Revision::new(self.compacted);
        if revision != Revision::ZERO && revision < compacted {
            return Err(Rejection::Compacted { requested: revision, compacted });
        }
        Ok(())
    }

    pub(crate) fn read(&self, request: &RangeRequest) -> Result<RangeResult, Rejection> {
        self.readable(request.revision)?;
        Ok(self.range(request))
    }

    fn range(&self, request: &RangeRequest) -> RangeResult {
        let at = if request.revision == Revision::ZERO { u64::MAX } else { request.revision.get() };
        let mut kvs: Vec<KeyValue> =
            self.at(at).into_values().filter(|kv| contains(&request.range, &kv.key)).collect();
        let count = kvs.len() as u64;
        if request.count_only {
            return RangeResult { kvs: vec![], more: false, count };
        }
        for (of, (min, max)) in [
            (mod_revision as fn(&KeyValue) -> Revision, request.mod_revision),
            (create_revision, request.create_revision),
        ] {
            kvs.retain(|kv| of(kv) >= min && (max == Revision::ZERO || of(kv) <= max));
        }
        if let Some(sort) = request.sort {
            let by = |a: &KeyValue, b: &KeyValue| match sort.target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::CreateRevision => a.create_revision.cmp(&b.create_revision),
                SortTarget::ModRevision => a.mod_revision.cmp(&b.mod_revision),
                SortTarget::Value => a.value.cmp(&b.value),
            };
            kvs.sort_by(|a, b| if sort.descending { by(b, a) } else { by(a, b) });
        }
        let more = request.limit > 0 && kvs.len() as u64 > request.limit;
        if more {
            kvs.truncate(request.limit.try_into().unwrap());
        }
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        RangeResult { kvs, more, count }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let found: Vec<_> = self.live().filter(|kv| contains(&compare.range, &kv.key)).collect();
        let sides = |kv: Option<&KeyValue>| -> Option<(Vec<u8>, Vec<u8>)> {
            let number = |a: u64, b: u64| Some((a.to_be_bytes().into(), b.to_be_bytes().into()));
            let zero = Revision::ZERO;
            match &compare.target {
                CompareTarget::Version(v) => number(kv.map_or(0, |kv| kv.version), *v),
                CompareTarget::CreateRevision(r) => {
                    number(kv.map_or(zero, |kv| kv.create_revision).get(), r.get())
                }
                CompareTarget::ModRevision(r) => {
                    number(kv.map_or(zero, |kv| kv.mod_revision).get(), r.get())
                }
                CompareTarget::Lease(l) => {
                    number(kv.map_or(0, |kv| kv.lease.0).cast_unsigned(), l.0.cast_unsigned())
                }
                CompareTarget::Value(v) => kv.map(|kv| (kv.value.to_vec(), v.to_vec())),
            }
        };
        let one = |kv: Option<&KeyValue>| {
            sides(kv).is_some_and(|(stored, given)| match compare.operator {
                CompareOperator::Equal => stored == given,
                CompareOperator::NotEqual => stored != given,
                CompareOperator::Greater => stored > given,
                CompareOperator::Less => stored < given,
            })
        };
        if found.is_empty() { one(None) } else { found.iter().all(|kv| one(Some(kv))) }
    }
}

fn mod_revision(kv: &KeyValue) -> Revision {
    kv.mod_revision
}

fn create_revision(kv: &KeyValue) -> Revision {
    kv.create_revision
}

fn contains(range: &KeyRange, key: &Bytes) -> bool {
    match range {
        KeyRange::One(one) => one == key,
        KeyRange::Between { start, end } => start <= key && key < end,
        KeyRange::From(start) => start <= key,
    }
}

fn all_steps<'a>(txns: impl IntoIterator<Item = &'a Txn>) -> Vec<TxnOp> {
    let mut all = Vec::new();
    txns.into_iter().for_each(|txn| each_step(txn, &mut |step| all.push(step.clone())));
    all
}

fn each_step(txn: &Txn, see: &mut impl FnMut(&TxnOp)) {
    for step in txn.success.iter().chain(&txn.failure) {
        see(step);
        if let TxnOp::Txn(nested) = step {
            each_step(nested, see);
        }
    }
}

/// The steps of every way through a transaction.
fn ways(txn: &Txn) -> Vec<Vec<&TxnOp>> {
    let mut all = Vec::new();
    for branch in [&txn.success, &txn.failure] {
        let mut ways_here = vec![vec![]];
        for step in branch {
            let continuations = match step {
                TxnOp::Txn(nested) => ways(nested),
                one => vec![vec![one]],
            };
            ways_here = ways_here
                .iter()
                .flat_map(|way| continuations.iter().map(move |c| [way.as_slice(), c].concat()))
                .collect();
        }
        all.extend(ways_here);
    }
    all
}

fn writes_a_key_twice(way: &[&TxnOp]) -> bool {
    let put = |step: &&TxnOp| match step {
        TxnOp::Put(put) => Some(put.key.clone()),
        _ => None,
    };
    way.iter().enumerate().filter_map(|(i, step)| Some((i, put(step)?))).any(|(i, key)| {
        way.iter().enumerate().any(|(j, other)| match other {
            TxnOp::Put(other) => i != j && other.key == key,
            TxnOp::DeleteRange(delete) => contains(&delete.range, &key),
            TxnOp::Range(_) | TxnOp::Txn(_) => false,
        })
    })
}

fn could_be_otherwise_later(applied: &Applied) -> bool {
    !matches!(
        applied.outcome,
        Err(Rejection::Fenced { .. }
            | Rejection::StaleEpoch { .. }
            | Rejection::Compacted { .. }
            | Rejection::EmptyKey
            | Rejection::LeaseTtlTooLarge
            | Rejection::DuplicateKey)
    )
}
