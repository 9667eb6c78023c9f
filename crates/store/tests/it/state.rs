//! Single rules of the state machine, by example.

use crate::{begin, command, delete, put, txn};
use bytes::Bytes;
use store::{
    Command, Compare, CompareOperator, CompareTarget, Epoch, KeyRange, LeaseId, Op, Origin,
    Outcome, RangeRequest, Rejection, Revision, Txn, TxnOp, state::State,
};

fn state_after(keys: &[&str]) -> State {
    let mut state = State::default();
    for (sequence, key) in (1..).zip(keys) {
        state.apply(&command(sequence, txn(vec![put(key, key)])));
    }
    state
}

fn request(range: KeyRange) -> RangeRequest {
    let none = (Revision::ZERO, Revision::ZERO);
    RangeRequest {
        range,
        revision: Revision::ZERO,
        limit: 0,
        sort: None,
        keys_only: false,
        count_only: false,
        mod_revision: none,
        create_revision: none,
    }
}

fn keys(state: &State, range: KeyRange) -> Vec<String> {
    let result = state.view().range(&request(range)).unwrap();
    result.kvs.iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect()
}

fn wire(key: &'static str, end: &'static str) -> KeyRange {
    KeyRange::from_wire(Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes()))
}

fn version_is(key: &'static str, version: u64) -> Compare {
    Compare {
        range: wire(key, ""),
        operator: CompareOperator::Equal,
        target: CompareTarget::Version(version),
    }
}

#[test]
fn range_selects_the_keys_that_etcd_selects() {
    let state = state_after(&["a", "b", "ba", "c"]);
    for (name, key, range_end, want) in [
        ("one key", "b", "", vec!["b"]),
        ("prefix", "b", "c", vec!["b", "ba"]),
        ("to the end", "b", "\0", vec!["b", "ba", "c"]),
        ("backwards is empty", "c", "a", vec![]),
    ] {
        assert_eq!(keys(&state, wire(key, range_end)), want, "{name}");
    }
    assert_eq!(keys(&state, KeyRange::prefix("b")), ["b", "ba"]);
}

#[test]
fn a_limit_cuts_the_answer_but_not_the_count() {
    let state = state_after(&["a", "b", "c"]);
    let two = RangeRequest { limit: 2, ..request(wire("a", "\0")) };
    let result = state.view().range(&two).unwrap();
    assert_eq!((result.kvs.len(), result.more, result.count), (2, true, 3));
    let three = RangeRequest { limit: 3, ..two };
    assert!(!state.view().range(&three).unwrap().more);
}

#[test]
fn a_transaction_takes_one_revision_and_later_steps_see_earlier_ones() {
    let mut state = State::default();
    let steps = vec![put("a", "1"), TxnOp::Range(request(wire("a", ""))), put("b", "2")];
    let transition = state.apply(&command(1, txn(steps)));
    assert_eq!(transition.applied.revision, Revision::new(1));
    assert!(transition.events.iter().all(|e| e.kv.mod_revision == Revision::new(1)));
    let Ok(Outcome::Txn(result)) = transition.applied.outcome else { panic!("refused") };
    assert!(matches!(&result.results[1], store::TxnOpResult::Range(r) if r.kvs.len() == 1));
}

#[test]
fn objects_of_an_atomic_command_never_share_a_revision() {
    // FEN-38
    let mut state = State::default();
    let one = |key, version| Txn {
        compare: vec![version_is(key, version)],
        success: vec![put(key, "x")],
        failure: vec![],
    };
    let transition = state.apply(&command(1, Op::Atomic(vec![one("a", 0), one("b", 0)])));
    let revisions: Vec<u64> = transition.events.iter().map(|e| e.kv.mod_revision.get()).collect();
    assert_eq!(revisions, [1, 2]);

    let before = state.view();
    let refused = state.apply(&command(2, Op::Atomic(vec![one("c", 0), one("a", 0)])));
    assert_eq!(refused.applied.outcome, Err(Rejection::Precondition { index: 1 }));
    assert_eq!((state.view().hash(), state.view().revision()), (before.hash(), before.revision()));
    assert!(state.view().get(b"c").is_none(), "all or nothing");
}

#[test]
fn a_refused_command_leaves_no_trace() {
    // INV-9
    let mut state = state_after(&["a", "b"]);
    state.apply(&command(10, begin(5)));
    let before = state.view();
    let stale = Origin::Controller { epoch: Epoch(4) };
    let missing_lease = match put("x", "") {
        TxnOp::Put(p) => TxnOp::Put(store::Put { lease: LeaseId(7), ..p }),
        other => other,
    };
    for (name, bad) in [
        ("fenced", Command { origin: stale, ..command(11, txn(vec![put("x", "")])) }),
        ("old epoch", command(12, begin(5))),
        ("no such lease", command(13, txn(vec![missing_lease]))),
        ("written twice", command(14, txn(vec![put("x", "1"), put("x", "2")]))),
        ("put in a deleted range", command(15, txn(vec![delete(wire("x", "z")), put("y", "")]))),
        ("empty key", command(16, txn(vec![put("", "")]))),
        ("future compaction", command(17, Op::Compact { revision: Revision::new(99) })),
        ("lease to revoke", command(18, Op::LeaseRevoke { id: LeaseId(1) })),
    ] {
        let transition = state.apply(&bad);
        assert!(transition.applied.outcome.is_err(), "{name}");
        assert_eq!(state.view().hash(), before.hash(), "{name}");
        assert_eq!(state.view().revision(), before.revision(), "{name}");
        assert!(transition.events.is_empty(), "{name}");
    }
}

#[test]
fn a_controller_of_the_current_epoch_is_not_fenced() {
    // FEN-6
    let mut state = State::default();
    state.apply(&command(1, begin(5)));
    let origin = Origin::Controller { epoch: Epoch(5) };
    let applied = state.apply(&Command { origin, ..command(2, txn(vec![put("a", "")])) }).applied;
    assert!(applied.outcome.is_ok());
}

#[test]
fn a_repeated_request_is_answered_with_its_first_result() {
    // FEN-33
    let mut state = State::default();
    let first = state.apply(&command(1, txn(vec![put("a", "1")])));
    state.apply(&command(2, txn(vec![put("a", "2")])));
    let again = state.apply(&command(1, txn(vec![put("a", "1")])));
    assert_eq!(again.applied, first.applied);
    assert!(again.events.is_empty());
    assert_eq!(state.view().get(b"a").unwrap().value, "2");
}

#[test]
fn a_repeat_whose_answer_is_forgotten_is_not_carried_out_again() {
    let mut state = State::default();
    for sequence in 1..=2000 {
        state.apply(&command(sequence, txn(vec![put("a", "1")])));
    }
    let again = state.apply(&command(1, txn(vec![put("a", "1")])));
    assert_eq!(again.applied.outcome, Err(Rejection::Forgotten { sequence: 1 }));
    assert_eq!(state.view().revision(), Revision::new(2000));
}

#[test]
fn revoking_a_lease_deletes_its_keys_in_one_revision() {
    let mut state = State::default();
    let attached = |key: &str| match put(key, "") {
        TxnOp::Put(p) => TxnOp::Put(store::Put { lease: LeaseId(9), ..p }),
        other => other,
    };
    state.apply(&command(1, Op::LeaseGrant { id: LeaseId(9), ttl_seconds: 5 }));
    state.apply(&command(2, txn(vec![attached("a"), attached("b"), put("c", "")])));
    // Detached by a later put without the lease.
    state.apply(&command(3, txn(vec![put("b", "free")])));
    assert_eq!(state.view().lease_keys(LeaseId(9)), ["a"]);
    let transition = state.apply(&command(4, Op::LeaseRevoke { id: LeaseId(9) }));
    assert_eq!(transition.applied.outcome, Ok(Outcome::LeaseRevoked { deleted: 1 }));
    assert_eq!(keys(&state, wire("a", "\0")), ["b", "c"]);
}
