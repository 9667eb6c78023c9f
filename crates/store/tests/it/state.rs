//! Single rules of the state machine, by example.

use crate::{begin, command, delete, put, txn};
use bytes::Bytes;
use store::{
    Alarm, AlarmKind, Command, Compare, CompareOperator, CompareTarget, Epoch, KeyRange, LeaseId,
    Op, Origin, Outcome, RangeRequest, Rejection, Revision, Txn, TxnOp, state::State,
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
    assert_eq!(transition.applied.revision, Revision::new(2), "the empty store is at revision 1");
    assert!(transition.events.iter().all(|e| e.kv.mod_revision == Revision::new(2)));
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
    assert_eq!(revisions, [2, 3]);

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
        (
            "precondition",
            command(
                19,
                Op::Atomic(vec![
                    Txn::default(),
                    Txn { compare: vec![version_is("a", 7)], ..Txn::default() },
                ]),
            ),
        ),
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
    assert_eq!(state.view().revision(), Revision::new(2001));
}

#[test]
fn a_refusal_is_repeated_even_if_it_would_pass_by_now() {
    // FEN-33: its proposer was told that nothing happened, and nothing may happen later.
    let mut state = State::default();
    let revoke = command(1, Op::LeaseRevoke { id: LeaseId(7) });
    let first = state.apply(&revoke).applied;
    assert_eq!(first.outcome, Err(Rejection::LeaseNotFound));
    state.apply(&command(2, Op::LeaseGrant { id: LeaseId(7), ttl_seconds: 5 }));
    assert_eq!(state.apply(&revoke).applied, first);
    assert!(state.view().lease(LeaseId(7)).is_some());
}

#[test]
fn a_fenced_command_leaves_nothing_at_all() {
    // FEN-6
    let mut state = state_after(&["a"]);
    let before: Vec<_> = state.export().collect();
    let origin = Origin::Controller { epoch: Epoch(9) };
    let fenced = Command { origin, ..command(50, txn(vec![put("x", "")])) };
    let want = Rejection::Fenced { decided: Epoch(9), current: Epoch(0) };
    assert_eq!(state.apply(&fenced).applied.outcome, Err(want));
    assert!(state.export().eq(before));
}

#[test]
fn a_key_is_written_once_on_every_way_through_a_transaction() {
    let nested = |success: Vec<TxnOp>, failure: Vec<TxnOp>| {
        TxnOp::Txn(Txn { compare: vec![], success, failure })
    };
    let a = || put("a", "");
    let gone = || delete(wire("a", "b"));
    for (name, fits, steps) in [
        ("two keys", true, vec![a(), put("b", "")]),
        ("put twice", false, vec![a(), a()]),
        ("deleted twice", true, vec![gone(), gone()]),
        ("put, then deleted", false, vec![a(), gone()]),
        ("deleted, then put", false, vec![gone(), a()]),
        ("in either branch", true, vec![nested(vec![a()], vec![a()])]),
        ("put, and in a branch", false, vec![a(), nested(vec![], vec![a()])]),
        ("in a branch, and put", false, vec![nested(vec![], vec![a()]), a()]),
        ("deleted in a branch, and put", false, vec![nested(vec![], vec![gone()]), a()]),
        (
            "in one branch each of two",
            false,
            vec![nested(vec![a()], vec![]), nested(vec![], vec![nested(vec![a()], vec![])])],
        ),
        ("a range around it", false, vec![a(), delete(KeyRange::From("".into()))]),
        ("a range beside it", true, vec![a(), delete(wire("a\0", "z"))]),
    ] {
        let outcome = State::default().apply(&command(1, txn(steps))).applied.outcome;
        assert_eq!(outcome.is_ok(), fits, "{name}: {outcome:?}");
        assert!(fits || outcome == Err(Rejection::DuplicateKey), "{name}");
    }
}

#[test]
fn a_nested_compare_looks_at_the_state_before_the_first_step() {
    // As etcd: so the way is known, and checked, before anything changes.
    let mut state = State::default();
    let nested = Txn {
        compare: vec![version_is("a", 0)],
        success: vec![put("b", "a was not there")],
        failure: vec![put("b", "a was there")],
    };
    state.apply(&command(1, txn(vec![put("a", ""), TxnOp::Txn(nested)])));
    assert_eq!(state.view().get(b"b").unwrap().value, "a was not there");
}

#[test]
fn a_read_of_the_past_within_a_transaction_does_not_see_its_steps() {
    let mut state = state_after(&["a", "b"]);
    let past = RangeRequest {
        revision: Revision::new(3),
        limit: 1,
        ..request(KeyRange::From("a".into()))
    };
    let steps = vec![put("c", ""), put("d", ""), delete(wire("a", "")), TxnOp::Range(past)];
    let Ok(Outcome::Txn(result)) = state.apply(&command(9, txn(steps))).applied.outcome else {
        panic!("refused")
    };
    let store::TxnOpResult::Range(range) = &result.results[3] else { panic!("no range") };
    assert_eq!((&*range.kvs[0].key, range.count, range.more), (b"a".as_slice(), 2, true));
}

#[test]
fn a_command_nested_too_deep_is_refused_and_not_a_crash() {
    let deep = |levels: usize| {
        let one = Txn { success: vec![put("a", "")], ..Txn::default() };
        (0..levels).fold(one, |inner, _| Txn { success: vec![TxnOp::Txn(inner)], ..Txn::default() })
    };
    let mut state = State::default();
    let depth_max = store::state::TXN_DEPTH_MAX;
    let refused = state.apply(&command(1, Op::Txn(deep(depth_max + 1))));
    assert_eq!(refused.applied.outcome, Err(Rejection::TooDeep { depth_max }));
    state.apply(&command(2, Op::Txn(deep(5000))));
    state.apply(&command(3, Op::Atomic(vec![deep(5000)])));
    assert_eq!(state.view().revision(), Revision::EMPTY);
    state.apply(&command(4, Op::Txn(deep(depth_max)))).applied.outcome.unwrap();
}

#[test]
fn a_quota_is_changed_by_the_log_and_survives_in_it() {
    let mut state = State::default();
    let create = |sequence, key: &str| command(sequence, txn(vec![put(key, "value")]));
    state.apply(&create(1, "a")).applied.outcome.unwrap();
    state.apply(&command(2, Op::Quota { bytes: 1 })).applied.outcome.unwrap();
    assert_eq!(state.view().quota_bytes(), 1);
    assert_eq!(state.apply(&create(3, "b")).applied.outcome, Err(Rejection::NoSpace));
    state.apply(&command(4, Op::Quota { bytes: 100 })).applied.outcome.unwrap();
    state.apply(&create(5, "b")).applied.outcome.unwrap();
}

#[test]
fn a_full_store_refuses_creates_and_lets_everything_else_through() {
    let mut state = State::with_quota(1000);
    let value = |bytes: usize| "x".repeat(bytes);
    let mut sequence = 0;
    let mut apply = |state: &mut State, op| {
        sequence += 1;
        state.apply(&command(sequence, op)).applied.outcome.err()
    };
    let full = Some(Rejection::NoSpace);
    let lease = LeaseId(1);
    assert_eq!(apply(&mut state, Op::LeaseGrant { id: lease, ttl_seconds: 9 }), None);
    assert_eq!(apply(&mut state, txn(vec![put("a", &value(699)), put("b", &value(299))])), None);
    assert_eq!(state.view().live_bytes(), 1000);
    let alarm = Alarm { kind: AlarmKind::NoSpace, member: 0 };
    assert_eq!(state.view().alarms(), [alarm], "creates are refused, and it shows");
    for (name, op, want) in [
        ("a create", txn(vec![put("c", "")]), full.clone()),
        ("an update of the same size", txn(vec![put("a", &value(699))]), None),
        ("an update that grows a little", txn(vec![put("a", &value(800))]), None),
        ("an update that grows much", txn(vec![put("a", &value(900))]), full.clone()),
        (
            "two that grow a little each",
            txn(vec![put("a", &value(815)), put("b", &value(315))]),
            full,
        ),
        ("a read", txn(vec![TxnOp::Range(request(wire("a", "")))]), None),
        ("an epoch", begin(1), None),
        ("a lease", Op::LeaseGrant { id: LeaseId(2), ttl_seconds: 9 }, None),
        ("a compaction", Op::Compact { revision: Revision::new(1) }, None),
        ("a lease to revoke", Op::LeaseRevoke { id: lease }, None),
        ("a deletion", txn(vec![delete(wire("a", ""))]), None),
        ("a create, then, though it is large", txn(vec![put("c", &value(2000))]), None),
        ("one more", txn(vec![put("d", "")]), Some(Rejection::NoSpace)),
    ] {
        assert_eq!(apply(&mut state, op), want, "{name}");
    }
    assert_eq!(apply(&mut state, txn(vec![delete(wire("c", ""))])), None);
    assert_eq!(state.view().alarms(), [], "it ends by itself");
    let copy = State::import(state.export()).unwrap();
    assert_eq!(copy.view().quota_bytes(), 1000, "the quota is part of the state");
}

#[test]
fn an_alarm_stops_what_it_is_about_until_it_is_taken_back() {
    let (space, corrupt) = (AlarmKind::NoSpace, AlarmKind::Corrupt);
    let nested = TxnOp::Txn(Txn { failure: vec![put("n", "")], ..Txn::default() });
    for (name, op, refused_by) in [
        ("a put", txn(vec![put("a", "")]), vec![space, corrupt]),
        ("a put that is not reached", txn(vec![nested]), vec![space, corrupt]),
        (
            "an atomic put",
            Op::Atomic(vec![Txn { success: vec![put("a", "")], ..Txn::default() }]),
            vec![space, corrupt],
        ),
        ("a deletion", txn(vec![delete(wire("a", ""))]), vec![corrupt]),
        ("a compaction", Op::Compact { revision: Revision::new(1) }, vec![corrupt]),
        ("a grant", Op::LeaseGrant { id: LeaseId(2), ttl_seconds: 9 }, vec![corrupt]),
        ("a revocation", Op::LeaseRevoke { id: LeaseId(1) }, vec![corrupt]),
        ("a checkpoint", Op::LeaseCheckpoint { id: LeaseId(1), remaining_seconds: 1 }, vec![]),
        ("a read", txn(vec![TxnOp::Range(request(wire("a", "")))]), vec![]),
        ("an epoch", begin(7), vec![]),
    ] {
        for (kind, rejection) in [(space, Rejection::NoSpace), (corrupt, Rejection::Corrupt)] {
            let mut state = state_after(&["a"]);
            state.apply(&command(10, Op::LeaseGrant { id: LeaseId(1), ttl_seconds: 9 }));
            let alarm = Alarm { kind, member: 3 };
            let raise = |active| Op::Alarm { alarm, active };
            let changed = |changed| Ok(Outcome::Alarm { changed });
            assert_eq!(state.apply(&command(11, raise(true))).applied.outcome, changed(true));
            assert_eq!(state.apply(&command(12, raise(true))).applied.outcome, changed(false));
            assert_eq!(state.view().alarms(), [alarm]);
            let mut state = State::import(state.export()).unwrap();
            let refused = state.apply(&command(13, op.clone())).applied.outcome.err();
            let want = refused_by.contains(&kind).then_some(rejection);
            assert_eq!(refused, want, "{name} under {kind:?}");
            assert_eq!(state.apply(&command(14, raise(false))).applied.outcome, changed(true));
            if refused.is_some() {
                assert!(state.apply(&command(15, op.clone())).applied.outcome.is_ok(), "{name}");
            }
        }
    }
}

#[test]
fn the_hash_of_the_keys_is_of_what_is_kept_up_to_a_revision() {
    let hash = |state: &State, revision| {
        state.view().hash_kv(Revision::new(revision)).map(|(hash, _)| hash)
    };
    let steps = [
        txn(vec![put("a", "1"), put("b", "1")]),
        txn(vec![put("a", "2")]),
        txn(vec![delete(wire("b", ""))]),
        txn(vec![put("c", "1")]),
    ];
    let mut state = State::default();
    let mut hashes = vec![hash(&state, 0).unwrap()];
    for (sequence, op) in (1..).zip(steps) {
        state.apply(&command(sequence, op));
        hashes.push(hash(&state, 0).unwrap());
        // What came later does not show.
        for (revision, then) in (1..).zip(&hashes) {
            assert_eq!(hash(&state, revision).as_ref(), Ok(then), "at {revision}");
        }
    }
    let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
    assert_eq!(distinct.len(), 5, "every change shows: {hashes:?}");
    assert_eq!(
        hash(&state, 6),
        Err(Rejection::FutureRevision { requested: Revision::new(6), current: Revision::new(5) })
    );
    let compacted = Revision::new(3);
    state.apply(&command(9, Op::Compact { revision: compacted }));
    assert_ne!(hash(&state, 5).as_ref(), Ok(&hashes[4]), "a version less");
    assert_eq!(state.view().hash_kv(Revision::ZERO).unwrap().1, compacted);
    assert_eq!(
        hash(&state, 2),
        Err(Rejection::Compacted { requested: Revision::new(2), compacted })
    );
    let (unswept, kept) = (hash(&state, 4), state.view().kept_bytes());
    assert!(!state.view().is_swept());
    while state.sweep() {}
    assert!(state.view().is_swept());
    assert_eq!(hash(&state, 4), unswept, "how far a member has swept does not show");
    assert_eq!(state.view().kept_bytes(), kept, "nothing was replaced below it");
}

#[test]
fn time_never_goes_back() {
    let mut state = State::default();
    for (sequence, at, want) in [(1, 50, 50), (2, 40, 50), (3, 60, 60)] {
        let at = store::Timestamp(at);
        state.apply(&Command { at, ..command(sequence, txn(vec![put("a", "")])) });
        assert_eq!(state.view().time().0, want);
    }
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

#[test]
fn versions_are_those_that_can_still_be_read() {
    let mut state = State::default();
    let key = || KeyRange::One(Bytes::from_static(b"k"));
    for (sequence, op) in (1..).zip([
        txn(vec![put("k", "one")]),
        txn(vec![put("k", "two")]),
        txn(vec![delete(key())]),
        txn(vec![put("other", "")]),
        txn(vec![put("k", "three")]),
    ]) {
        state.apply(&command(sequence, op));
    }
    let told = |state: &State| -> Vec<(u64, Option<String>)> {
        let versions = state.view().versions(b"k").into_iter();
        let text =
            |kv: std::sync::Arc<store::KeyValue>| String::from_utf8(kv.value.to_vec()).unwrap();
        versions.map(|(at, kv)| (at.get(), kv.map(text))).collect()
    };
    let one = (2, Some("one".to_owned()));
    let two = (3, Some("two".to_owned()));
    let three = (6, Some("three".to_owned()));
    assert_eq!(told(&state), [one, two.clone(), (4, None), three.clone()]);
    // What a read at the compacted revision sees stays, whatever is swept by then.
    for (compacted, want) in [
        (3, vec![two, (4, None), three.clone()]),
        (4, vec![three.clone()]),
        (5, vec![three.clone()]),
        (6, vec![three]),
    ] {
        let compact = Op::Compact { revision: Revision::new(compacted) };
        state.apply(&command(100 + compacted, compact));
        assert_eq!(told(&state), want, "compacted at {compacted}");
        while state.sweep() {}
        assert_eq!(told(&state), want, "swept at {compacted}");
        let restored = State::import(state.export()).unwrap();
        assert_eq!(told(&restored), want, "restored at {compacted}");
    }
    assert_eq!(state.view().versions(b"none"), []);
}
