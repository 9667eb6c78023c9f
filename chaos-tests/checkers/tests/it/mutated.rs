//! Right histories in which one thing is changed: each change must be caught, whatever the history.

use crate::{
    changes::{Row, can_be_made, holds, is_caught},
    model::{Chance, run},
};
use checkers::history::{Body, Call, History, Mark, Outcome, Record, ReplicaFact, WatchStep};
use proptest::prelude::*;
use std::collections::BTreeMap;

const CHANGES: &[Row] = &[
    ("drop an event", drop_event, "watches leave nothing out, across replicas too"),
    ("swap two responses", swap_responses, "watches are ordered and deliver each change once"),
    (
        "deliver a response twice",
        repeat_response,
        "watches are ordered and deliver each change once",
    ),
    ("split a transaction", split_response, "watches deliver a revision as a whole"),
    ("resume one too late", resume_late, "watches go on where they broke off"),
    ("change a watched value", change_event, "a revision is the same change for everybody"),
    (
        "read what was there before",
        stale_read,
        "answers are those of their revision (strictly serializable)",
    ),
    ("read what nobody wrote", phantom_read, "each key is linearizable"),
    ("lose a key in the end", lose_key, "every acknowledged write survives"),
    ("let a replica lag for ever", lag, "everything converges after healing"),
    ("acknowledge at an old revision", old_revision, "revisions only grow"),
    (
        "turn a compare around",
        turn_compare,
        "answers are those of their revision (strictly serializable)",
    ),
    ("let a state part", part_state, "states are equal at an equal index"),
];

fn streams(history: &History) -> BTreeMap<u64, Vec<usize>> {
    let mut responses: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (index, record) in history.records.iter().enumerate() {
        if let Record::Watch(watch) = record
            && matches!(watch.step, WatchStep::Events { .. })
        {
            responses.entry(watch.stream).or_default().push(index);
        }
    }
    responses
}

/// Two neighbouring responses of a watch.
fn neighbours(history: &History, chance: &mut Chance) -> Option<(usize, usize)> {
    let pairs: Vec<(usize, usize)> = streams(history)
        .values()
        .flat_map(|responses| responses.iter().copied().zip(responses.iter().copied().skip(1)))
        .collect();
    chance.pick(&pairs).copied()
}

fn watch(history: &mut History, index: usize) -> &mut checkers::history::Watch {
    let Record::Watch(watch) = &mut history.records[index] else { panic!("a watch's record") };
    watch
}

fn drop_event(history: &mut History, chance: &mut Chance) -> bool {
    let Some((first, _)) = neighbours(history, chance) else { return false };
    history.records.remove(first);
    true
}

fn swap_responses(history: &mut History, chance: &mut Chance) -> bool {
    let Some((first, second)) = neighbours(history, chance) else { return false };
    let (one, other) = (watch(history, first).sequence, watch(history, second).sequence);
    watch(history, first).sequence = other;
    watch(history, second).sequence = one;
    true
}

fn repeat_response(history: &mut History, chance: &mut Chance) -> bool {
    let Some((first, second)) = neighbours(history, chance) else { return false };
    let again = watch(history, first).step.clone();
    watch(history, second).step = again;
    true
}

fn split_response(history: &mut History, chance: &mut Chance) -> bool {
    let all: Vec<usize> = streams(history).into_values().flatten().collect();
    let many = all.into_iter().filter(|index| match &history.records[*index] {
        Record::Watch(watch) => {
            matches!(&watch.step, WatchStep::Events { events } if events.len() > 1)
        }
        _ => false,
    });
    let many: Vec<usize> = many.collect();
    let Some(index) = chance.pick(&many).copied() else { return false };
    let first = watch(history, index);
    let (stream, sequence) = (first.stream, first.sequence);
    let mut second = first.clone();
    if let WatchStep::Events { events } = &mut first.step {
        events.truncate(1);
    }
    if let WatchStep::Events { events } = &mut second.step {
        events.remove(0);
    }
    for record in &mut history.records {
        if let Record::Watch(watch) = record
            && watch.stream == stream
            && watch.sequence > sequence
        {
            watch.sequence += 1;
        }
    }
    second.sequence += 1;
    history.records.push(Record::Watch(second));
    true
}

fn resume_late(history: &mut History, _: &mut Chance) -> bool {
    history.records.iter_mut().any(|record| match record {
        Record::Watch(watch) => match &mut watch.step {
            WatchStep::Opened(opened) if opened.resumes.is_some() => {
                opened.from += 1;
                true
            }
            _ => false,
        },
        _ => false,
    })
}

fn change_event(history: &mut History, chance: &mut Chance) -> bool {
    // Everything is delivered twice at least, by the first and the second watch.
    let Some(first) = streams(history).remove(&1) else { return false };
    let Some(index) = chance.pick(&first).copied() else { return false };
    let WatchStep::Events { events } = &mut watch(history, index).step else { return false };
    let event = &mut events[0];
    event.value = if event.value.is_some() { None } else { Some("0".to_owned()) };
    true
}

/// Linearizable reads of one key that found something.
fn reads(history: &History) -> Vec<usize> {
    let found = history.records.iter().enumerate().filter(|(_, record)| match record {
        Record::Operation(operation) => match (&operation.call, &operation.outcome) {
            (Call::Range(request), Outcome::Ok(answer)) => {
                !request.serializable
                    && request.range.end.is_none()
                    && matches!(&answer.body, Body::Range { kvs, .. } if !kvs.is_empty())
            }
            _ => false,
        },
        _ => false,
    });
    found.map(|(index, _)| index).collect()
}

fn read_kv(history: &mut History, index: usize) -> &mut checkers::history::Kv {
    let Record::Operation(operation) = &mut history.records[index] else { panic!("a request") };
    let Outcome::Ok(answer) = &mut operation.outcome else { panic!("an answer") };
    let Body::Range { kvs, .. } = &mut answer.body else { panic!("a range") };
    &mut kvs[0]
}

/// The version before, as the first watch delivered it.
fn stale_read(history: &mut History, chance: &mut Chance) -> bool {
    let mut older = Vec::new();
    for index in reads(history) {
        let kv = read_kv(history, index).clone();
        let events = streams(history).remove(&1).unwrap_or_default().into_iter();
        let events = events.flat_map(|at| match &history.records[at] {
            Record::Watch(watch) => match &watch.step {
                WatchStep::Events { events } => events.clone(),
                _ => Vec::new(),
            },
            _ => Vec::new(),
        });
        let mut before = events.filter(|e| e.key == kv.key && e.mod_revision < kv.mod_revision);
        if let Some(event) = before.next_back().filter(|event| event.value.is_some()) {
            older.push((index, event));
        }
    }
    let Some((index, event)) = chance.pick(&older).cloned() else { return false };
    let kv = read_kv(history, index);
    kv.value = event.value.unwrap();
    (kv.mod_revision, kv.version) = (event.mod_revision, event.version);
    true
}

fn phantom_read(history: &mut History, chance: &mut Chance) -> bool {
    let reads = reads(history);
    let Some(index) = chance.pick(&reads).copied() else { return false };
    read_kv(history, index).value = "phantom".to_owned();
    true
}

/// A key whose last change was acknowledged, which no request of unknown outcome may have deleted.
fn lose_key(history: &mut History, chance: &mut Chance) -> bool {
    let mut acknowledged = BTreeMap::new();
    let mut doubtful = Vec::new();
    for record in &history.records {
        let Record::Operation(operation) = record else { continue };
        match (&operation.call, &operation.outcome) {
            (Call::Put(put), Outcome::Ok(answer)) => {
                acknowledged.insert(put.key.clone(), answer.revision);
            }
            (Call::Delete(range), Outcome::Unknown { .. }) => doubtful.push(range.clone()),
            _ => {}
        }
    }
    let mut lost = Vec::new();
    for (index, record) in history.records.iter().enumerate() {
        let Record::Mark(mark) = record else { continue };
        let Mark::FinalKeys { kvs, .. } = &**mark else { continue };
        for (place, kv) in kvs.iter().enumerate() {
            let is_sure = acknowledged.get(&kv.key) == Some(&kv.mod_revision)
                && !doubtful.iter().any(|range| range.contains(&kv.key));
            lost.extend(is_sure.then_some((index, place)));
        }
    }
    let Some((index, place)) = chance.pick(&lost).copied() else { return false };
    let Record::Mark(mark) = &mut history.records[index] else { return false };
    let Mark::FinalKeys { kvs, .. } = &mut **mark else { return false };
    kvs.remove(place);
    true
}

fn lag(history: &mut History, _: &mut Chance) -> bool {
    for record in &mut history.records {
        if let Record::Mark(mark) = record
            && let Mark::FinalKeys { replica: 2, revision, .. } = &mut **mark
        {
            *revision -= 1;
            return true;
        }
    }
    false
}

fn old_revision(history: &mut History, chance: &mut Chance) -> bool {
    let puts: Vec<usize> = history
        .records
        .iter()
        .enumerate()
        .filter(|(_, record)| match record {
            Record::Operation(operation) => {
                matches!((&operation.call, &operation.outcome), (Call::Put(_), Outcome::Ok(_)))
                    // Somebody was certainly answered before.
                    && operation.invoked_ns > 1_500_000_000
            }
            _ => false,
        })
        .map(|(index, _)| index)
        .collect();
    let Some(index) = chance.pick(&puts).copied() else { return false };
    let Record::Operation(operation) = &mut history.records[index] else { return false };
    let Outcome::Ok(answer) = &mut operation.outcome else { return false };
    answer.revision = 1;
    true
}

fn turn_compare(history: &mut History, chance: &mut Chance) -> bool {
    let compares: Vec<usize> = history
        .records
        .iter()
        .enumerate()
        .filter(|(_, record)| match record {
            Record::Operation(operation) => match (&operation.call, &operation.outcome) {
                (Call::Txn(txn), Outcome::Ok(answer)) => {
                    !txn.compare.is_empty()
                        && matches!(answer.body, Body::Txn { succeeded: false, .. })
                }
                _ => false,
            },
            _ => false,
        })
        .map(|(index, _)| index)
        .collect();
    let Some(index) = chance.pick(&compares).copied() else { return false };
    let Record::Operation(operation) = &mut history.records[index] else { return false };
    let Outcome::Ok(answer) = &mut operation.outcome else { return false };
    // It says that it wrote, at a revision that somebody else's change has, or nobody's.
    answer.body = Body::Txn { succeeded: true, steps: Vec::new() };
    answer.revision += 1;
    true
}

fn part_state(history: &mut History, chance: &mut Chance) -> bool {
    let seen: Vec<usize> = history
        .records
        .iter()
        .enumerate()
        .filter(|(_, record)| {
            matches!(record, Record::Replica(seen) if matches!(seen.fact, ReplicaFact::Applied { .. }))
        })
        .map(|(index, _)| index)
        .collect();
    let Some(index) = chance.pick(&seen).copied() else { return false };
    let Record::Replica(seen) = &mut history.records[index] else { return false };
    let ReplicaFact::Applied { state_hash, .. } = &mut seen.fact else { return false };
    *state_hash ^= 1;
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_right_history_holds(seed in any::<u64>()) {
        holds(&run(seed, 300, 8))?;
    }

    #[test]
    fn one_change_is_caught(seed in any::<u64>(), which in 0..CHANGES.len()) {
        is_caught(&CHANGES[which], run(seed, 120, 6), seed)?;
    }
}

#[test]
fn every_change_can_be_made() {
    can_be_made(CHANGES, |seed| run(seed, 120, 6));
}
