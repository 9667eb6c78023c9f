//! Users, roles and permissions, by example.

use crate::{command, delete, put, txn};
use bytes::Bytes;
use store::{
    AuthOp, AuthRejection, Command, Compare, CompareOperator, CompareTarget, Identity, KeyRange,
    LeaseId, Op, Origin, Outcome, PasswordHash, Permission, PermissionKind, Put, RangeRequest,
    Rejection, Revision, TokenKey, Txn, TxnOp, state::State,
};

fn wire(key: &'static str, end: &'static str) -> KeyRange {
    KeyRange::from_wire(Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes()))
}

fn auth(state: &mut State, sequence: u64, op: AuthOp) -> Result<Outcome, Rejection> {
    state.apply(&command(sequence, Op::Auth(op))).applied.outcome
}

fn s(name: &str) -> String {
    name.to_owned()
}

fn permission(kind: PermissionKind, range: KeyRange) -> Permission {
    Permission { kind, range }
}

/// Authentication is on; `reader` reads `a`..`c`, `writer` writes `b`..`d` and reads only `b`.
fn guarded() -> State {
    let mut state = State::default();
    let grant = |role: &str, kind, range| AuthOp::RoleGrantPermission {
        role: s(role),
        permission: permission(kind, range),
    };
    let ops = ["root", "reader", "writer"].into_iter().flat_map(|name| {
        [
            AuthOp::UserAdd { user: s(name), password: Some(PasswordHash(s("hash"))) },
            AuthOp::RoleAdd { role: s(name) },
            AuthOp::UserGrantRole { user: s(name), role: s(name) },
        ]
    });
    let ops = ops.chain([
        grant("reader", PermissionKind::Read, wire("a", "c")),
        grant("writer", PermissionKind::Write, wire("b", "c")),
        grant("writer", PermissionKind::Write, wire("c", "d")),
        grant("writer", PermissionKind::Read, wire("b", "")),
        AuthOp::Enable { token_key: TokenKey([1; 32]) },
    ]);
    for (sequence, op) in (1..).zip(ops) {
        auth(&mut state, sequence, op).unwrap();
    }
    state
}

fn by(state: &State, user: &str) -> Origin {
    let auth_revision = if user.is_empty() { 0 } else { state.view().auth().revision() };
    Origin::User(Identity { user: s(user), auth_revision })
}

fn outcome(state: &mut State, user: &str, op: Op) -> Result<Outcome, Rejection> {
    let sequence = 1000 + state.view().hash() % 1_000_000;
    let command = Command { origin: by(state, user), ..command(sequence, op) };
    state.apply(&command).applied.outcome
}

fn read(range: KeyRange) -> TxnOp {
    let none = (Revision::ZERO, Revision::ZERO);
    TxnOp::Range(RangeRequest {
        range,
        revision: Revision::ZERO,
        limit: 0,
        sort: None,
        keys_only: false,
        count_only: false,
        mod_revision: none,
        create_revision: none,
    })
}

fn quiet(key: &str) -> Put {
    match put(key, "x") {
        TxnOp::Put(put) => Put { prev_kv: false, ..put },
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_may_do_what() {
    let denied = Some(AuthRejection::PermissionDenied);
    let compare = |range| Compare {
        range,
        operator: CompareOperator::Equal,
        target: CompareTarget::Version(0),
    };
    let comparing = |range| Op::Txn(Txn { compare: vec![compare(range)], ..Txn::default() });
    let nested = |step| TxnOp::Txn(Txn { failure: vec![step], ..Txn::default() });
    let write = |key| TxnOp::Put(quiet(key));
    let quiet_delete = |range| match delete(range) {
        TxnOp::DeleteRange(delete) => {
            TxnOp::DeleteRange(store::DeleteRange { prev_kv: false, ..delete })
        }
        other => other,
    };
    let leased = TxnOp::Put(Put { lease: LeaseId(5), ..quiet("c") });
    for (name, user, op, want) in [
        ("reads", "reader", txn(vec![read(wire("a", "c"))]), None),
        ("reads one", "reader", txn(vec![read(wire("b", ""))]), None),
        ("reads too much", "reader", txn(vec![read(wire("a", "ca"))]), denied),
        ("reads all", "reader", txn(vec![read(wire("a", "\0"))]), denied),
        ("writes", "reader", txn(vec![write("a")]), denied),
        ("compares", "reader", comparing(wire("a", "")), None),
        ("compares elsewhere", "reader", comparing(wire("c", "")), denied),
        ("writes", "writer", txn(vec![write("cc")]), None),
        ("deletes over two grants", "writer", txn(vec![quiet_delete(wire("b", "d"))]), None),
        ("deletes too much", "writer", txn(vec![quiet_delete(wire("b", "da"))]), denied),
        ("reads what it may only write", "writer", txn(vec![read(wire("c", ""))]), denied),
        ("reads what was there", "writer", txn(vec![put("c", "x")]), denied),
        ("reads what was there and may", "writer", txn(vec![put("b", "x")]), None),
        ("reads what it deletes", "writer", txn(vec![delete(wire("b", "c"))]), denied),
        ("nested", "writer", txn(vec![nested(write("d"))]), denied),
        ("nested twice", "writer", txn(vec![nested(nested(read(wire("c", ""))))]), denied),
        ("nested, and may", "writer", txn(vec![nested(write("c"))]), None),
        ("attaches to a lease of others", "writer", txn(vec![leased.clone()]), denied),
        ("attaches", "root", txn(vec![leased]), None),
        ("revokes what holds keys of others", "writer", Op::LeaseRevoke { id: LeaseId(5) }, denied),
        ("grants", "writer", Op::LeaseGrant { id: LeaseId(6), ttl_seconds: 9 }, None),
        ("compacts", "writer", Op::Compact { revision: Revision::new(1) }, None),
        ("changes users", "writer", Op::Auth(AuthOp::RoleAdd { role: s("x") }), denied),
        ("changes users", "root", Op::Auth(AuthOp::RoleAdd { role: s("x") }), None),
        ("anything", "root", txn(vec![put("z", "x"), read(wire("", "\0"))]), None),
        ("is nobody", "", txn(vec![]), Some(AuthRejection::UserEmpty)),
        (
            "compacts",
            "",
            Op::Compact { revision: Revision::new(1) },
            Some(AuthRejection::UserEmpty),
        ),
        ("does not exist", "ghost", txn(vec![read(wire("a", ""))]), denied),
        ("does not exist", "ghost", Op::Auth(AuthOp::Disable), Some(AuthRejection::UserNotFound)),
    ] {
        let mut state = guarded();
        for (sequence, op) in [
            (100, Op::LeaseGrant { id: LeaseId(5), ttl_seconds: 9 }),
            (101, txn(vec![TxnOp::Put(Put { lease: LeaseId(5), ..quiet("z") })])),
        ] {
            state.apply(&command(sequence, op)).applied.outcome.unwrap();
        }
        let before = state.view();
        let refused = outcome(&mut state, user, op.clone()).err();
        assert_eq!(refused, want.map(Rejection::Auth), "{user} {name}");
        assert_eq!(before.hash() == state.view().hash(), want.is_some(), "{user} {name}");
        let mut open = State::default();
        open.apply(&command(1, Op::LeaseGrant { id: LeaseId(5), ttl_seconds: 9 }));
        let refused = outcome(&mut open, "", op).err();
        let off = !matches!(refused, Some(Rejection::Auth(AuthRejection::PermissionDenied)));
        assert!(off, "{name}, while authentication is off: {refused:?}");
    }
}

#[test]
fn a_request_from_before_a_change_of_users_is_to_be_made_again() {
    let mut state = guarded();
    let stale = by(&state, "reader");
    let grant = AuthOp::UserRevokeRole { user: s("reader"), role: s("reader") };
    auth(&mut state, 100, grant).unwrap();
    let op = txn(vec![read(wire("a", ""))]);
    let refused = state.apply(&Command { origin: stale, ..command(101, op.clone()) }).applied;
    assert_eq!(refused.outcome, Err(Rejection::Auth(AuthRejection::OldRevision)));
    let denied = Rejection::Auth(AuthRejection::PermissionDenied);
    assert_eq!(outcome(&mut state, "reader", op), Err(denied));
}

#[test]
fn whoever_asked_before_authentication_was_on_is_nobody() {
    let mut state = guarded();
    auth(&mut state, 100, AuthOp::Disable).unwrap();
    let early = Origin::User(Identity::default());
    let op = txn(vec![put("a", "")]);
    let done = state.apply(&Command { origin: early.clone(), ..command(101, op.clone()) });
    done.applied.outcome.unwrap();
    auth(&mut state, 102, AuthOp::Enable { token_key: TokenKey([2; 32]) }).unwrap();
    let refused = state.apply(&Command { origin: early, ..command(103, op) }).applied;
    assert_eq!(refused.outcome, Err(Rejection::Auth(AuthRejection::UserEmpty)));
    assert_eq!(state.view().auth().token_key(), TokenKey([2; 32]), "old tokens are void");
}

#[test]
fn changes_of_users_are_refused_as_in_etcd() {
    use AuthRejection as No;
    let add = |user: &str| AuthOp::UserAdd { user: s(user), password: None };
    let grant = |range| AuthOp::RoleGrantPermission {
        role: s("reader"),
        permission: permission(PermissionKind::Read, range),
    };
    let role_of = |user: &str, role: &str| (s(user), s(role));
    let give = |(user, role)| AuthOp::UserGrantRole { user, role };
    let take = |(user, role)| AuthOp::UserRevokeRole { user, role };
    let revoke = |range| AuthOp::RoleRevokePermission { role: s("reader"), range };
    let password = || PasswordHash(s("new"));
    for (name, op, want) in [
        ("an empty user", add(""), Some(No::UserEmpty)),
        ("a user again", add("reader"), Some(No::UserExists)),
        ("an empty role", AuthOp::RoleAdd { role: s("") }, Some(No::RoleEmpty)),
        ("a role again", AuthOp::RoleAdd { role: s("reader") }, Some(No::RoleExists)),
        ("no such user", give(role_of("ghost", "reader")), Some(No::UserNotFound)),
        ("no such role", give(role_of("reader", "ghost")), Some(No::RoleNotFound)),
        ("a role it has not", take(role_of("reader", "writer")), Some(No::RoleNotGranted)),
        (
            "a user that is not there",
            AuthOp::UserDelete { user: s("ghost") },
            Some(No::UserNotFound),
        ),
        (
            "a role that is not there",
            AuthOp::RoleDelete { role: s("ghost") },
            Some(No::RoleNotFound),
        ),
        (
            "a password of nobody",
            AuthOp::UserChangePassword { user: s("ghost"), password: password() },
            Some(No::UserNotFound),
        ),
        ("part of a permission", revoke(wire("a", "b")), Some(No::PermissionNotGranted)),
        ("a permission for no key", grant(wire("", "")), Some(No::InvalidManagement)),
        ("a permission backwards", grant(wire("c", "a")), Some(No::InvalidManagement)),
        ("a permission", grant(wire("c", "\0")), None),
        ("its permission", revoke(wire("a", "c")), None),
        ("the root user", AuthOp::UserDelete { user: s("root") }, Some(No::InvalidManagement)),
        ("the root role", AuthOp::RoleDelete { role: s("root") }, Some(No::InvalidManagement)),
        ("the root user's role", take(role_of("root", "root")), Some(No::InvalidManagement)),
        ("another role", AuthOp::RoleDelete { role: s("reader") }, None),
    ] {
        let mut state = guarded();
        let revision = state.view().auth().revision();
        assert_eq!(auth(&mut state, 100, op).err(), want.map(Rejection::Auth), "{name}");
        let risen = state.view().auth().revision() - revision;
        assert_eq!(risen, u64::from(want.is_none()), "{name}");
    }
    let mut state = State::default();
    let enable = || AuthOp::Enable { token_key: TokenKey::default() };
    let refused = |no| Err(Rejection::Auth(no));
    assert_eq!(auth(&mut state, 1, enable()), refused(No::RootUserNotFound));
    auth(&mut state, 2, add("root")).unwrap();
    assert_eq!(auth(&mut state, 3, enable()), refused(No::RootRoleNotGranted));
    auth(&mut state, 4, give(role_of("root", "root"))).unwrap();
    auth(&mut state, 5, enable()).unwrap();
}

#[test]
fn a_deleted_role_is_nobodys() {
    let mut state = guarded();
    auth(&mut state, 100, AuthOp::RoleDelete { role: s("reader") }).unwrap();
    auth(&mut state, 101, AuthOp::RoleAdd { role: s("reader") }).unwrap();
    assert!(state.view().auth().user("reader").unwrap().roles.is_empty());
    assert!(state.view().auth().role("reader").unwrap().permissions.is_empty());
}

#[test]
fn a_new_password_ends_what_was_proven_by_the_old_one() {
    let mut state = guarded();
    let since = |state: &State| state.view().auth().user("reader").unwrap().since;
    let before = since(&state);
    let grant = AuthOp::UserGrantRole { user: s("reader"), role: s("writer") };
    auth(&mut state, 100, grant).unwrap();
    assert_eq!(since(&state), before, "other changes do not");
    let password = PasswordHash(s("new"));
    let change = AuthOp::UserChangePassword { user: s("reader"), password: password.clone() };
    auth(&mut state, 101, change).unwrap();
    assert!(since(&state) > before);
    assert_eq!(state.view().auth().user("reader").unwrap().password, Some(password));
}

#[test]
fn no_secret_is_printed() {
    let ops = [
        AuthOp::Enable { token_key: TokenKey([77; 32]) },
        AuthOp::UserAdd { user: s("u"), password: Some(PasswordHash(s("$2b$secret"))) },
    ];
    let printed = format!("{ops:?}{:?}", guarded().view().auth().user("root"));
    assert!(!printed.contains("77") && !printed.contains("secret") && !printed.contains("hash"));
}
