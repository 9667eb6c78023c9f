//! For each key there is an order of all requests that explains every answer and agrees with real time.
//!
//! This looks at values alone: revisions only say which order to try first. So it holds of a store whose
//! revisions lie, too, and what [`super::revision_order`] takes from revisions it must find by itself.

use crate::{
    evidence::{Effect, Evidence, effects, steps},
    history::{
        Answer, Body, Call, CompareOperator, CompareTarget, Kv, Operation, Outcome, Range, Step,
        StepAnswer, Txn,
    },
    property::{Findings, Property},
    wgl::{Entry, Model, Search, search},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

pub(super) const PROPERTY: Property = Property {
    name: "each key is linearizable",
    sources: &["INV-5", "FEN-36", "etcd KV API guarantees (linearizability)"],
    file: file!(),
    check,
};

/// Dead ends of one key's search.
const STEPS_BACK_MAX: usize = 50_000;
/// Requests that are shown around one that cannot be explained.
const SHOWN: usize = 4;

/// One key. Its state is its value, by number; none if it is absent.
struct Register;

/// What one request asked and was answered of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Access {
    /// What it must have found.
    found: Vec<Found>,
    /// What it left.
    leaves: Leaves,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Is(Option<u32>),
    IsNot(Option<u32>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    AsItWas,
    Value(Option<u32>),
}

impl Model for Register {
    type State = Option<u32>;
    type Operation = Access;

    fn step(state: &Option<u32>, access: &Access) -> Option<Option<u32>> {
        let is_so = access.found.iter().all(|found| match found {
            Found::Is(value) => value == state,
            Found::IsNot(value) => value != state,
        });
        is_so.then_some(match access.leaves {
            Leaves::AsItWas => *state,
            Leaves::Value(value) => value,
        })
    }

    fn reads_only(access: &Access) -> bool {
        access.leaves == Leaves::AsItWas
    }
}

/// All accesses of one key, with the place of each one's operation.
#[derive(Default)]
struct Track<'h> {
    values: BTreeMap<&'h str, u32>,
    /// By when they were sent.
    entries: Vec<Entry<Access>>,
    places: Vec<usize>,
    /// Deletions that were taken to be those of requests of unknown outcome.
    claimed: BTreeSet<u64>,
}

impl<'h> Track<'h> {
    fn value(&mut self, value: &'h str) -> u32 {
        let next = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        *self.values.entry(value).or_insert(next)
    }

    /// Where a change of unknown outcome seems to have come: at its value, or at the first deletion later than
    /// `floor` that nobody answered for. Only a hint: such deletions are as good as each other.
    fn seen_at(
        &mut self,
        evidence: &Evidence<'_>,
        key: &str,
        leaves: Option<&str>,
        floor: u64,
    ) -> u64 {
        if leaves.is_some() {
            let seen = evidence.keys.of(key).find(|fact| fact.value == leaves);
            return seen.map_or(u64::MAX, |fact| fact.revision * 2);
        }
        let mut later = evidence.keys.after(key, floor).map(|fact| (fact.revision, fact));
        let seen = later.find(|(at, fact)| {
            let is_answered = evidence.keys.swept(key, at.saturating_sub(1), *at).is_some();
            let is_open = fact.value.is_none() && fact.cause.is_none() && !is_answered;
            is_open && self.claimed.insert(*at)
        });
        seen.map_or(u64::MAX, |(at, _)| at * 2)
    }
}

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut tracks: BTreeMap<&str, Track<'_>> = BTreeMap::new();
    // Ranges are read at keys that somebody wrote, or that were found.
    let written = evidence.keys.puts_asked.keys().map(|(key, _)| *key);
    let keys: BTreeSet<&str> = written.chain(evidence.keys.all().map(|fact| fact.key)).collect();
    let floors = floors(evidence);
    for (index, (operation, floor)) in evidence.operations.iter().zip(floors).enumerate() {
        accesses(evidence, &keys, (index, floor), operation, &mut tracks);
    }
    for (key, track) in tracks {
        let entries = &track.entries;
        findings.look();
        match search::<Register>(entries, None, STEPS_BACK_MAX) {
            Search::Explained => {}
            Search::GivenUp => findings.undecided(),
            Search::Unexplained { longest, stuck } => {
                let shown = |place: &usize| {
                    let operation = evidence.operations.get(*track.places.get(*place)?)?;
                    Some(operation.to_string())
                };
                let stuck_at = entries.get(stuck).and_then(|entry| entry.returned);
                let last = longest.iter().rev().take(SHOWN).rev().filter_map(shown);
                let last = last.collect::<Vec<_>>().join("; ");
                let stuck = shown(&stuck).unwrap_or_default();
                let text = format!("{key}: no order explains {stuck}; after: {last}");
                findings.violated(stuck_at.unwrap_or_default(), text);
            }
        }
    }
}

fn accesses<'h>(
    evidence: &Evidence<'h>,
    keys: &BTreeSet<&'h str>,
    (index, floor): (usize, u64),
    operation: &'h Operation,
    tracks: &mut BTreeMap<&'h str, Track<'h>>,
) {
    let (returned, hint, by_key) = match &operation.outcome {
        Outcome::Failed { .. } => return,
        Outcome::Unknown { .. } => {
            for effect in steps(&operation.call) {
                for (key, leaves) in touched(keys, &effect) {
                    let track = tracks.entry(key).or_default();
                    let hint = track.seen_at(evidence, key, leaves, floor);
                    let leaves = Leaves::Value(leaves.map(|value| track.value(value)));
                    let access = Access { found: Vec::new(), leaves };
                    push(track, operation, (None, hint), access, index);
                }
            }
            mortal(evidence, operation, tracks, (index, floor));
            return;
        }
        Outcome::Ok(answer) => {
            let hint = if answer.revision > 0 { answer.revision * 2 } else { u64::MAX };
            (Some(operation.answered_ns), hint, of_answer(evidence, keys, &operation.call, answer))
        }
    };
    for (key, seen) in by_key {
        let track = tracks.entry(key).or_default();
        let found: Vec<Found> = seen
            .found
            .into_iter()
            .map(|(is, value)| {
                let value = value.map(|value| track.value(value));
                if is { Found::Is(value) } else { Found::IsNot(value) }
            })
            .collect();
        let leaves = match seen.leaves {
            None => Leaves::AsItWas,
            Some(value) => Leaves::Value(value.map(|value| track.value(value))),
        };
        // Of one revision, the change comes before those who read it.
        let hint = hint.saturating_add(u64::from(leaves == Leaves::AsItWas));
        push(track, operation, (returned, hint), Access { found, leaves }, index);
    }
    mortal(evidence, operation, tracks, (index, floor));
}

/// For each request, the highest revision that anybody was told of before it was sent.
fn floors(evidence: &Evidence<'_>) -> Vec<u64> {
    let answered = evidence.answered();
    let mut told: Vec<(u64, u64)> =
        answered.map(|answered| (answered.operation.answered_ns, answered.revision)).collect();
    told.sort_unstable();
    let mut told = told.into_iter().peekable();
    let mut highest = 0;
    let floors = evidence.operations.iter().map(|operation| {
        while let Some((_, revision)) = told.next_if(|(at_ns, _)| *at_ns < operation.invoked_ns) {
            highest = highest.max(revision);
        }
        highest
    });
    floors.collect()
}

fn push(
    track: &mut Track<'_>,
    operation: &Operation,
    (returned, hint): (Option<u64>, u64),
    access: Access,
    index: usize,
) {
    let invoked = operation.invoked_ns;
    track.entries.push(Entry { invoked, returned, hint, operation: access });
    track.places.push(index);
}

/// What has a lease may be gone at any time after it was written.
fn mortal<'h>(
    evidence: &Evidence<'h>,
    operation: &'h Operation,
    tracks: &mut BTreeMap<&'h str, Track<'h>>,
    (index, floor): (usize, u64),
) {
    for effect in steps(&operation.call) {
        if let Effect::Put(put) = effect
            && put.lease != 0
        {
            let access = Access { found: Vec::new(), leaves: Leaves::Value(None) };
            let track = tracks.entry(&put.key).or_default();
            let hint = track.seen_at(evidence, &put.key, None, floor);
            push(track, operation, (None, hint), access, index);
        }
    }
}

/// Keys that an effect may touch, with what it leaves there.
fn touched<'h>(keys: &BTreeSet<&'h str>, effect: &Effect<'h>) -> Vec<(&'h str, Option<&'h str>)> {
    match effect {
        Effect::Put(put) => vec![(put.key.as_str(), Some(put.value.as_str()))],
        Effect::Delete(Range { key, end: None }, _) => vec![(key.as_str(), None)],
        Effect::Delete(range, _) => within(keys, range).map(|key| (key, None)).collect(),
    }
}

fn within<'a, 'h>(
    keys: &'a BTreeSet<&'h str>,
    range: &'a Range,
) -> impl Iterator<Item = &'h str> + 'a {
    keys.range::<str, _>((Bound::Included(range.key.as_str()), Bound::Unbounded))
        .copied()
        .take_while(|key| range.contains(key))
}

/// What an answered request saw and left of one key, before values have numbers.
#[derive(Default)]
struct SeenOf<'h> {
    /// Whether it was, or was not, this value.
    found: Vec<(bool, Option<&'h str>)>,
    leaves: Option<Option<&'h str>>,
}

fn of_answer<'h>(
    evidence: &Evidence<'h>,
    keys: &BTreeSet<&'h str>,
    call: &'h Call,
    answer: &'h Answer,
) -> BTreeMap<&'h str, SeenOf<'h>> {
    let mut by_key: BTreeMap<&'h str, SeenOf<'h>> = BTreeMap::new();
    match (call, &answer.body) {
        (Call::Range(request), Body::Range { kvs, more }) => {
            if request.serializable || request.revision > 0 {
                return by_key;
            }
            let until = kvs.last().filter(|_| *more).map(|kv| kv.key.as_str());
            read(keys, &request.range, (kvs, until), &mut by_key);
        }
        (Call::Txn(txn), Body::Txn { succeeded, steps }) => {
            compared(evidence, txn, *succeeded, &mut by_key);
            let changed = effects(call, answer);
            if changed.is_empty() {
                let branch = if *succeeded { &txn.success } else { &txn.failure };
                for (step, answer) in branch.iter().zip(steps) {
                    if let (Step::Range(range), StepAnswer::Range { kvs }) = (step, answer) {
                        read(keys, range, (kvs, None), &mut by_key);
                    }
                }
            }
        }
        _ => {}
    }
    for effect in effects(call, answer) {
        for (key, leaves) in touched(keys, &effect) {
            let seen = by_key.entry(key).or_default();
            match effect {
                Effect::Delete(_, Some(0)) => seen.found.push((true, None)),
                Effect::Delete(Range { end: None, .. }, Some(_)) => seen.found.push((false, None)),
                Effect::Put(_) | Effect::Delete(..) => {}
            }
            seen.leaves = Some(leaves);
        }
    }
    by_key
}

fn read<'h>(
    keys: &BTreeSet<&'h str>,
    range: &'h Range,
    (kvs, until): (&'h [Kv], Option<&str>),
    by_key: &mut BTreeMap<&'h str, SeenOf<'h>>,
) {
    let found: BTreeMap<&str, &'h Kv> = kvs.iter().map(|kv| (kv.key.as_str(), kv)).collect();
    let one = range.end.is_none().then_some(range.key.as_str());
    let all = within(keys, range).chain(one.filter(|key| !keys.contains(key)));
    for key in all.take_while(|key| until.is_none_or(|until| *key <= until)) {
        let value = found.get(key).map(|kv| kv.value.as_str());
        by_key.entry(key).or_default().found.push((true, value));
    }
}

/// What compares say of values; what they say of anything else, [`super::revision_order`] looks at.
fn compared<'h>(
    evidence: &Evidence<'h>,
    txn: &'h Txn,
    succeeded: bool,
    by_key: &mut BTreeMap<&'h str, SeenOf<'h>>,
) {
    // Of several compares, a failure does not say which one failed.
    if !succeeded && txn.compare.len() != 1 {
        return;
    }
    for compare in &txn.compare {
        let equal = match compare.operator {
            CompareOperator::Equal => true,
            CompareOperator::NotEqual => false,
            CompareOperator::Greater | CompareOperator::Less => continue,
        };
        let value = match &compare.target {
            CompareTarget::Value(value) if equal => Some(value.as_str()),
            CompareTarget::ModRevision(0)
            | CompareTarget::CreateRevision(0)
            | CompareTarget::Version(0) => None,
            CompareTarget::ModRevision(revision) => {
                let fact = evidence.keys.at(&compare.key, *revision);
                let Some(Some(value)) = fact.map(|fact| fact.value) else { continue };
                // Another write of the same value would be another revision.
                if !(equal && succeeded) {
                    continue;
                }
                Some(value)
            }
            // Whether it is absent, too, is not said.
            CompareTarget::Value(_)
            | CompareTarget::CreateRevision(_)
            | CompareTarget::Version(_)
            | CompareTarget::Lease(_) => continue,
        };
        by_key.entry(&compare.key).or_default().found.push((equal == succeeded, value));
    }
}

#[cfg(test)]
mod tests;
