//! What became of each key: every change that an answer, a watch or a read bears witness of.

use super::streams::Stream;
use crate::history::{
    Answer, Body, Call, Kv, Mark, Operation, Outcome, Put, Range, Step, StepAnswer,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

/// One change of one key.
#[derive(Debug, Clone)]
pub struct Fact<'h> {
    /// Of the change.
    pub revision: u64,
    /// Which key.
    pub key: &'h str,
    /// What was written; none for a deletion.
    pub value: Option<&'h str>,
    /// 0 if the witness did not say, and for deletions.
    pub version: u64,
    /// 0 if the witness did not say, and for deletions.
    pub create_revision: u64,
    /// Of the write; 0 is none.
    pub lease: u64,
    /// Who says so, first of all.
    pub seen: Seen,
    /// Whose request it certainly was.
    pub cause: Option<usize>,
}

/// A witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The answer to the change itself; its place among [`super::Evidence::operations`].
    Acknowledged(usize),
    /// The answer to a read; its place.
    Read(usize),
    /// A watch, by its number.
    Watched(u64),
    /// The last look at a replica.
    Final(u64),
}

/// What is known of a key at a revision.
#[derive(Debug, Clone, Copy)]
pub enum Knowledge<'a, 'h> {
    /// The last change is this one, a write or a deletion.
    Certain(&'a Fact<'h>),
    /// It is absent: never written, or deleted with others by a request.
    Absent,
    /// This is the last known change, but something that nobody saw may have come after it.
    Unsure(Option<&'a Fact<'h>>),
}

/// A request that may change a key and whose outcome is unknown, or which names no keys in its answer.
#[derive(Debug, Clone)]
struct Loose<'h> {
    range: &'h Range,
    operation: usize,
}

/// Every change that anybody saw.
#[derive(Debug, Default)]
pub struct KeyFacts<'h> {
    by_key: BTreeMap<&'h str, BTreeMap<u64, Fact<'h>>>,
    by_revision: BTreeMap<u64, Vec<&'h str>>,
    /// Two witnesses who contradict each other.
    pub conflicts: Vec<(Fact<'h>, Fact<'h>)>,
    /// Acknowledged deletions that do not name what they deleted: afterwards nothing older is left.
    swept: Vec<(u64, &'h Range, usize)>,
    /// The same by key, of keys that are known to have been changed, by revision.
    swept_keys: BTreeMap<&'h str, Vec<(u64, usize)>>,
    /// Keys that are known to have been changed, and that a request of unknown outcome may have deleted.
    doubtful: BTreeSet<&'h str>,
    /// Puts of unknown outcome, by key and value.
    pub puts_unknown: BTreeMap<(&'h str, &'h str), usize>,
    /// Puts that certainly did not happen, by key and value.
    pub puts_failed: BTreeMap<(&'h str, &'h str), usize>,
    /// All puts that were asked for, by key and value.
    pub puts_asked: BTreeMap<(&'h str, &'h str), usize>,
    /// Those of them that more than one request asked for: what is seen of them names none.
    pub puts_alike: BTreeSet<(&'h str, &'h str)>,
    deletes_unknown: Vec<Loose<'h>>,
    /// Keys with a put of unknown outcome that nobody saw.
    unseen: BTreeSet<&'h str>,
    /// What watches cover: which stream, from which revision, to which.
    covered: Vec<(usize, u64, u64)>,
}

/// What a request that was carried out changed.
pub(crate) enum Effect<'h> {
    Put(&'h Put),
    /// How many it deleted, if the answer says so.
    Delete(&'h Range, Option<u64>),
}

/// What an answered request changed, in order.
pub(crate) fn effects<'h>(call: &'h Call, answer: &'h Answer) -> Vec<Effect<'h>> {
    match (call, &answer.body) {
        (Call::Put(put), _) => vec![Effect::Put(put)],
        (Call::Delete(range), Body::Deleted { count }) => vec![Effect::Delete(range, Some(*count))],
        (Call::Delete(range), _) => vec![Effect::Delete(range, None)],
        (Call::Txn(txn), Body::Txn { succeeded, steps }) => {
            let branch = if *succeeded { &txn.success } else { &txn.failure };
            let answers = steps.iter().map(Some).chain(std::iter::repeat(None));
            let effects = branch.iter().zip(answers).filter_map(|(step, answer)| match step {
                Step::Put(put) => Some(Effect::Put(put)),
                Step::Delete(range) => {
                    let count = match answer {
                        Some(StepAnswer::Deleted { count }) => Some(*count),
                        Some(StepAnswer::Put | StepAnswer::Range { .. }) | None => None,
                    };
                    Some(Effect::Delete(range, count))
                }
                Step::Range(_) => None,
            });
            effects.collect()
        }
        (
            Call::Txn(_)
            | Call::Range(_)
            | Call::LeaseGrant { .. }
            | Call::LeaseKeepAlive { .. }
            | Call::LeaseRevoke { .. }
            | Call::Compact { .. }
            | Call::Object(_),
            _,
        ) => Vec::new(),
    }
}

/// What a request may change, whatever comes of it.
pub(crate) fn steps(call: &Call) -> Vec<Effect<'_>> {
    match call {
        Call::Put(put) => vec![Effect::Put(put)],
        Call::Delete(range) => vec![Effect::Delete(range, None)],
        Call::Txn(txn) => {
            let steps = txn.success.iter().chain(&txn.failure);
            let effects = steps.filter_map(|step| match step {
                Step::Put(put) => Some(Effect::Put(put)),
                Step::Delete(range) => Some(Effect::Delete(range, None)),
                Step::Range(_) => None,
            });
            effects.collect()
        }
        Call::Range(_)
        | Call::LeaseGrant { .. }
        | Call::LeaseKeepAlive { .. }
        | Call::LeaseRevoke { .. }
        | Call::Compact { .. }
        | Call::Object(_) => Vec::new(),
    }
}

/// Pairs that an answer holds.
pub(crate) fn pairs(answer: &Answer) -> Vec<&Kv> {
    match &answer.body {
        Body::Range { kvs, .. } => kvs.iter().collect(),
        Body::Txn { steps, .. } => {
            let kvs = steps.iter().filter_map(|step| match step {
                StepAnswer::Range { kvs } => Some(kvs),
                StepAnswer::Put | StepAnswer::Deleted { .. } => None,
            });
            kvs.flatten().collect()
        }
        Body::Done
        | Body::Deleted { .. }
        | Body::Lease { .. }
        | Body::Object(_)
        | Body::Objects(_) => Vec::new(),
    }
}

impl<'h> KeyFacts<'h> {
    pub(super) fn gather(
        operations: &[&'h Operation],
        streams: &[Stream<'h>],
        marks: &[&'h Mark],
    ) -> Self {
        let mut facts = Self::default();
        for (index, operation) in operations.iter().enumerate() {
            facts.operation(index, operation);
        }
        for (index, stream) in streams.iter().enumerate() {
            for (_, event) in stream.events() {
                facts.add(Fact {
                    revision: event.mod_revision,
                    key: &event.key,
                    value: event.value.as_deref(),
                    version: event.version,
                    create_revision: event.create_revision,
                    lease: event.lease,
                    seen: Seen::Watched(stream.id),
                    cause: None,
                });
            }
            if let (Some(from), Some(delivered)) = (stream.from(), stream.delivered()) {
                facts.covered.push((index, from, delivered));
            }
        }
        for mark in marks {
            if let Mark::FinalKeys { replica, kvs, .. } = mark {
                kvs.iter().for_each(|kv| facts.read(kv, Seen::Final(*replica)));
            }
        }
        facts.name_causes();
        facts.expand();
        facts
    }

    fn operation(&mut self, index: usize, operation: &'h Operation) {
        for effect in steps(&operation.call) {
            match (effect, &operation.outcome) {
                (Effect::Put(put), outcome) => {
                    let name = (put.key.as_str(), put.value.as_str());
                    if self.puts_asked.insert(name, index).is_some_and(|other| other != index) {
                        self.puts_alike.insert(name);
                    }
                    match outcome {
                        Outcome::Ok(_) => {}
                        Outcome::Failed { .. } => {
                            self.puts_failed.insert(name, index);
                        }
                        Outcome::Unknown { .. } => {
                            self.puts_unknown.insert(name, index);
                        }
                    }
                }
                (Effect::Delete(range, _), Outcome::Unknown { .. }) => {
                    self.deletes_unknown.push(Loose { range, operation: index });
                }
                (Effect::Delete(..), Outcome::Ok(_) | Outcome::Failed { .. }) => {}
            }
        }
        let Outcome::Ok(answer) = &operation.outcome else { return };
        let revision = answer.revision;
        let seen = Seen::Acknowledged(index);
        let fact = |key, value, lease| Fact {
            revision,
            key,
            value,
            version: 0,
            create_revision: 0,
            lease,
            seen,
            cause: Some(index),
        };
        if revision > 0 {
            for effect in effects(&operation.call, answer) {
                match effect {
                    Effect::Put(put) => self.add(fact(&put.key, Some(&put.value), put.lease)),
                    Effect::Delete(_, Some(0)) => {}
                    Effect::Delete(Range { key, end: None }, Some(_)) => {
                        self.add(fact(key, None, 0));
                    }
                    Effect::Delete(range, _) => self.swept.push((revision, range, index)),
                }
            }
        }
        pairs(answer).into_iter().for_each(|kv| self.read(kv, Seen::Read(index)));
    }

    fn read(&mut self, kv: &'h Kv, seen: Seen) {
        self.add(Fact {
            revision: kv.mod_revision,
            key: &kv.key,
            value: Some(&kv.value),
            version: kv.version,
            create_revision: kv.create_revision,
            lease: kv.lease,
            seen,
            cause: None,
        });
    }

    fn add(&mut self, fact: Fact<'h>) {
        let known = self.by_key.entry(fact.key).or_default();
        match known.get_mut(&fact.revision) {
            None => {
                self.by_revision.entry(fact.revision).or_default().push(fact.key);
                known.insert(fact.revision, fact);
            }
            Some(known) => {
                let differs = |mine: u64, other: u64| mine != 0 && other != 0 && mine != other;
                if known.value != fact.value
                    || differs(known.version, fact.version)
                    || differs(known.create_revision, fact.create_revision)
                {
                    self.conflicts.push((known.clone(), fact));
                    return;
                }
                known.version = known.version.max(fact.version);
                known.create_revision = known.create_revision.max(fact.create_revision);
                known.lease = known.lease.max(fact.lease);
                known.cause = known.cause.or(fact.cause);
            }
        }
    }

    /// A value that only one request wrote names it.
    fn name_causes(&mut self) {
        let values = self.by_key.values().flat_map(BTreeMap::values);
        let seen: BTreeSet<_> = values.filter_map(|fact| Some((fact.key, fact.value?))).collect();
        let unseen = self.puts_unknown.keys().filter(|name| !seen.contains(*name));
        self.unseen = unseen.map(|(key, _)| *key).collect();
        for fact in self.by_key.values_mut().flat_map(BTreeMap::values_mut) {
            if let Some(value) = fact.value
                && fact.cause.is_none()
                && !self.puts_alike.contains(&(fact.key, value))
            {
                fact.cause = self.puts_asked.get(&(fact.key, value)).copied();
            }
        }
    }

    /// Ranges, by the keys that are known.
    fn expand(&mut self) {
        let mut swept: BTreeMap<&'h str, Vec<(u64, usize)>> = BTreeMap::new();
        for (revision, range, operation) in &self.swept {
            for key in self.keys_within(range) {
                swept.entry(key).or_default().push((*revision, *operation));
            }
        }
        swept.values_mut().for_each(|swept| swept.sort_unstable());
        let loose = self.deletes_unknown.iter();
        let doubtful = loose.flat_map(|loose| self.keys_within(loose.range)).collect();
        (self.swept_keys, self.doubtful) = (swept, doubtful);
    }

    /// All known changes, by key and revision.
    pub fn all(&self) -> impl Iterator<Item = &Fact<'h>> {
        self.by_key.values().flat_map(BTreeMap::values)
    }

    /// Keys that are known to have been changed, in order, from one on.
    pub fn keys_within<'a>(&'a self, range: &'a Range) -> impl Iterator<Item = &'h str> + 'a {
        let from =
            self.by_key.range::<str, _>((Bound::Included(range.key.as_str()), Bound::Unbounded));
        from.map(|(key, _)| *key).take_while(|key| range.contains(key))
    }

    /// Known changes of one key, by revision.
    pub fn of<'a>(&'a self, key: &str) -> impl DoubleEndedIterator<Item = &'a Fact<'h>> + 'a {
        self.by_key.get(key).into_iter().flat_map(BTreeMap::values)
    }

    /// Known changes of one key after a revision, in order.
    pub fn after<'a>(
        &'a self,
        key: &str,
        revision: u64,
    ) -> impl Iterator<Item = &'a Fact<'h>> + use<'a, 'h> {
        let known = self.by_key.get(key).into_iter();
        known.flat_map(move |known| known.range(revision.saturating_add(1)..)).map(|(_, fact)| fact)
    }

    /// The known change of a key at exactly a revision.
    #[must_use]
    pub fn at(&self, key: &str, revision: u64) -> Option<&Fact<'h>> {
        self.by_key.get(key).and_then(|known| known.get(&revision))
    }

    /// Revisions at which something is known to have changed, with the keys, from one on.
    pub fn revisions(&self, from: u64) -> impl Iterator<Item = (u64, &[&'h str])> {
        self.by_revision.range(from..).map(|(revision, keys)| (*revision, keys.as_slice()))
    }

    /// The last known change of a key up to a revision.
    #[must_use]
    pub fn last(&self, key: &str, until: u64) -> Option<&Fact<'h>> {
        self.by_key.get(key)?.range(..=until).next_back().map(|(_, fact)| fact)
    }

    /// The first known change of a key after a revision, up to another.
    #[must_use]
    pub fn first_after(&self, key: &str, after: u64, until: u64) -> Option<&Fact<'h>> {
        let mut later = self.by_key.get(key)?.range(after.saturating_add(1)..);
        later.next().map(|(_, fact)| fact).filter(|fact| fact.revision <= until)
    }

    /// An acknowledged deletion of a range that took a key after a revision, up to another.
    #[must_use]
    pub fn swept(&self, key: &str, after: u64, until: u64) -> Option<(u64, usize)> {
        let swept = self.swept_keys.get(key)?;
        let first = swept.partition_point(|(revision, _)| *revision <= after);
        swept.get(first).copied().filter(|(revision, _)| *revision <= until)
    }

    /// Keys that acknowledged deletions took between two revisions, inclusive, without naming them.
    pub fn swept_within<'a>(
        &'a self,
        from: u64,
        until: u64,
        covers: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = (&'h str, u64)> + 'a {
        let swept = self.swept_keys.iter().filter(move |(key, _)| covers(key));
        let swept = swept.flat_map(|(key, swept)| swept.iter().map(|(at, _)| (*key, *at)));
        swept.filter(move |(_, revision)| from <= *revision && *revision <= until)
    }

    /// Whether a request of unknown outcome may have deleted a key; its place.
    #[must_use]
    pub fn may_be_deleted(
        &self,
        key: &str,
        sent_before_ns: u64,
        all: &[&Operation],
    ) -> Option<usize> {
        let loose = self.deletes_unknown.iter().filter(|loose| loose.range.contains(key));
        let mut sent = loose.map(|loose| loose.operation);
        sent.find(|index| all.get(*index).is_some_and(|o| o.invoked_ns <= sent_before_ns))
    }

    /// Whether there is a put of unknown outcome of the key that nobody saw.
    #[must_use]
    pub fn may_be_written(&self, key: &str) -> bool {
        self.unseen.contains(key)
    }

    /// What a key held at a revision.
    #[must_use]
    pub fn known<'a>(&'a self, key: &str, at: u64, streams: &[Stream<'_>]) -> Knowledge<'a, 'h> {
        let last = self.last(key, at);
        let since = last.map_or(0, |fact| fact.revision);
        if self.swept(key, since, at).is_some() {
            // Only what came after the sweep could be there, and it would have to be unseen.
            return if self.may_be_written(key) {
                Knowledge::Unsure(None)
            } else {
                Knowledge::Absent
            };
        }
        let covered = self.covered.iter().any(|(stream, from, until)| {
            // From the beginning, or from the last known change on.
            *from <= since.saturating_add(1).max(2)
                && at <= *until
                && streams.get(*stream).is_some_and(|stream| stream.covers_key(key))
        });
        let mortal = last.is_some_and(|fact| fact.value.is_some() && fact.lease != 0);
        let hazy = mortal || self.may_be_written(key) || self.doubtful.contains(key);
        match last {
            _ if hazy && !covered => Knowledge::Unsure(last),
            Some(fact) => Knowledge::Certain(fact),
            None => Knowledge::Absent,
        }
    }
}
