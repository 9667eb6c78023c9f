//! Random logs, against a model that keeps every state there ever was.

use crate::{command, delete, put, txn};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use store::{
    Command, EventKind, KeyRange, Op, RangeRequest, Rejection, Revision, TxnOp,
    state::{SnapshotRecord, State},
};

type Pairs = BTreeMap<Bytes, Bytes>;

#[derive(Debug, Clone)]
enum Step {
    Txn(Vec<TxnOp>),
    Compact(u64),
}

fn key() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["a", "aa", "ab", "b", "c", "ca"]).prop_map(str::to_owned)
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        key().prop_map(|k| KeyRange::One(k.into())),
        (key(), key()).prop_map(|(a, b)| KeyRange::Between { start: a.into(), end: b.into() }),
        key().prop_map(|k| KeyRange::From(k.into())),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let operation = prop_oneof![
        3 => (key(), 0u8..9).prop_map(|(k, v)| put(&k, &v.to_string())),
        1 => range().prop_map(delete),
    ];
    prop_oneof![
        9 => proptest::collection::vec(operation, 1..3).prop_map(Step::Txn),
        1 => (1u64..4).prop_map(Step::Compact),
    ]
}

fn log() -> impl Strategy<Value = Vec<Command>> {
    proptest::collection::vec(step(), 1..60).prop_map(|steps| {
        (1..)
            .zip(steps)
            .map(|(sequence, step)| match step {
                Step::Txn(operations) => command(sequence, txn(operations)),
                // Behind the newest state by some revisions; refused when there are none.
                Step::Compact(behind) => command(
                    sequence,
                    Op::Compact { revision: Revision::new(sequence.saturating_sub(behind)) },
                ),
            })
            .collect()
    })
}

fn everything(revision: Revision) -> RangeRequest {
    let none = (Revision::ZERO, Revision::ZERO);
    RangeRequest {
        range: KeyRange::From(Bytes::from_static(b"a")),
        revision,
        limit: 0,
        sort: None,
        keys_only: false,
        count_only: false,
        mod_revision: none,
        create_revision: none,
    }
}

fn pairs(state: &State, revision: Revision) -> Result<Pairs, Rejection> {
    let result = state.view().range(&everything(revision))?;
    assert_eq!(result.count, result.kvs.len() as u64);
    Ok(result.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect())
}

fn apply_to_model(model: &mut Pairs, command: &Command) {
    let Op::Txn(txn) = &command.op else { return };
    for step in &txn.success {
        match step {
            TxnOp::Put(p) => drop(model.insert(p.key.clone(), p.value.clone())),
            TxnOp::DeleteRange(d) => model.retain(|k, _| !d.range.contains(k)),
            TxnOp::Range(_) | TxnOp::Txn(_) => {}
        }
    }
}

proptest! {
    #[test]
    fn every_kept_revision_reads_as_it_was(log in log()) {
        let mut state = State::default();
        let mut model = Pairs::new();
        let mut states = BTreeMap::from([(Revision::ZERO, Pairs::new())]);
        for command in &log {
            let transition = state.apply(command);
            if transition.applied.outcome.is_ok() {
                apply_to_model(&mut model, command);
                states.insert(transition.applied.revision, model.clone());
            }
        }
        let compacted = state.view().compacted();
        for (revision, want) in &states {
            if *revision == Revision::ZERO {
                continue;
            }
            match pairs(&state, *revision) {
                Ok(found) => {
                    prop_assert!(*revision >= compacted);
                    prop_assert_eq!(&found, want, "at revision {}", revision);
                }
                Err(rejection) => {
                    let said = matches!(rejection, Rejection::Compacted { .. });
                    prop_assert!(*revision < compacted && said);
                }
            }
        }
        prop_assert_eq!(pairs(&state, Revision::ZERO).unwrap(), model);
    }

    #[test]
    fn the_same_log_gives_the_same_hash_also_through_a_snapshot(log in log(), cut in 0usize..60) {
        let mut straight = State::default();
        let mut through = State::default();
        for (i, command) in log.iter().enumerate() {
            if i == cut {
                let records: Vec<SnapshotRecord> = through.view().export().collect();
                through = State::import(records).unwrap();
            }
            prop_assert_eq!(straight.apply(command), through.apply(command));
            prop_assert_eq!(straight.view().hash(), through.view().hash());
        }
        let exported = |s: &State| s.view().export().collect::<Vec<_>>();
        prop_assert_eq!(exported(&straight), exported(&through));
        // A repeat of anything is answered the same by both.
        for command in &log {
            prop_assert_eq!(straight.apply(command).applied, through.apply(command).applied);
        }
    }

    #[test]
    fn events_alone_rebuild_the_keys(log in log()) {
        let mut state = State::default();
        let mut rebuilt = Pairs::new();
        for command in &log {
            for event in state.apply(command).events {
                let before = rebuilt.get(&event.kv.key).cloned();
                prop_assert_eq!(before, event.prev.as_ref().map(|p| p.value.clone()));
                match event.kind {
                    EventKind::Put => drop(rebuilt.insert(event.kv.key.clone(), event.kv.value.clone())),
                    EventKind::Delete => drop(rebuilt.remove(&event.kv.key)),
                }
            }
        }
        prop_assert_eq!(pairs(&state, Revision::ZERO).unwrap(), rebuilt);
    }

    #[test]
    fn a_cut_snapshot_is_refused(log in log(), keep in 0usize..50) {
        let mut state = State::default();
        for command in &log {
            state.apply(command);
        }
        let records: Vec<SnapshotRecord> = state.view().export().collect();
        let keep = keep.min(records.len() - 1);
        prop_assert!(State::import(records.into_iter().take(keep)).is_err());
    }
}
