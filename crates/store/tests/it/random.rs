//! Random logs, against the model.

use crate::model::Model;
use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::select};
use std::{collections::BTreeMap, sync::Arc};
use store::{
    Alarm, AlarmKind, AuthOp, Command, Compare, CompareOperator, CompareTarget, DeleteRange, Epoch,
    Event, EventKind, Identity, KeyRange, LeaseId, Op, Origin, PasswordHash, Permission,
    PermissionKind, Put, RangeRequest, RequestId, Revision, Sort, SortTarget, Timestamp, TokenKey,
    Txn, TxnOp,
    state::{SnapshotRecord, State},
    watch::{Hub, WatchMessage, WatchRequest},
};

fn key() -> impl Strategy<Value = Bytes> {
    select(vec!["a", "aa", "ab", "b", "c", "ca"]).prop_map(Bytes::from)
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => key().prop_map(KeyRange::One),
        2 => (key(), key()).prop_map(|(start, end)| KeyRange::Between { start, end }),
        1 => key().prop_map(KeyRange::prefix),
        1 => key().prop_map(KeyRange::From),
    ]
}

/// Now and then in the past, the compacted past or the future, as far as it goes.
fn revision() -> impl Strategy<Value = Revision> {
    prop_oneof![20 => Just(0), 30 => 1u64..60, 1 => Just(u64::MAX)].prop_map(Revision::new)
}

fn bounds() -> impl Strategy<Value = (Revision, Revision)> {
    prop_oneof![4 => Just((Revision::ZERO, Revision::ZERO)), 1 => (revision(), revision())]
}

fn sort() -> impl Strategy<Value = Option<Sort>> {
    let target = select(vec![
        SortTarget::Key,
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::CreateRevision,
        SortTarget::ModRevision,
        SortTarget::Value,
    ]);
    proptest::option::of(
        (target, any::<bool>()).prop_map(|(target, descending)| Sort { target, descending }),
    )
}

fn range_request() -> impl Strategy<Value = RangeRequest> {
    let flags = (any::<bool>(), proptest::bool::weighted(0.2));
    (
        range(),
        revision(),
        prop_oneof![9 => 0u64..4, 1 => Just(u64::MAX)],
        sort(),
        flags,
        bounds(),
        bounds(),
    )
        .prop_map(
            |(
                range,
                revision,
                limit,
                sort,
                (keys_only, count_only),
                mod_revision,
                create_revision,
            )| {
                RangeRequest {
                    range,
                    revision,
                    limit,
                    sort,
                    keys_only,
                    count_only,
                    mod_revision,
                    create_revision,
                }
            },
        )
}

fn lease() -> impl Strategy<Value = LeaseId> {
    prop_oneof![3 => Just(0i64), 1 => 1i64..4].prop_map(LeaseId)
}

fn put() -> impl Strategy<Value = TxnOp> {
    let rare = || proptest::bool::weighted(0.1);
    (key(), 0u8..20, lease(), any::<bool>(), rare(), rare()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| {
            let value = value.to_string().into();
            TxnOp::Put(Put { key, value, lease, prev_kv, ignore_value, ignore_lease })
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let operator = select(vec![
        CompareOperator::Equal,
        CompareOperator::NotEqual,
        CompareOperator::Greater,
        CompareOperator::Less,
    ]);
    let target = prop_oneof![
        (0u64..4).prop_map(CompareTarget::Version),
        revision().prop_map(CompareTarget::CreateRevision),
        revision().prop_map(CompareTarget::ModRevision),
        (0u8..20).prop_map(|v| CompareTarget::Value(v.to_string().into())),
        lease().prop_map(CompareTarget::Lease),
    ];
    (range(), operator, target).prop_map(|(range, operator, target)| Compare {
        range,
        operator,
        target,
    })
}

fn txn() -> impl Strategy<Value = Txn> {
    let step = prop_oneof![
        5 => put(),
        2 => (range(), any::<bool>())
            .prop_map(|(range, prev_kv)| TxnOp::DeleteRange(DeleteRange { range, prev_kv })),
        2 => range_request().prop_map(TxnOp::Range),
    ];
    let step = step.prop_recursive(2, 8, 3, |inner| {
        (vec(compare(), 0..2), vec(inner.clone(), 0..3), vec(inner, 0..2))
            .prop_map(|(compare, success, failure)| TxnOp::Txn(Txn { compare, success, failure }))
    });
    (vec(compare(), 0..2), vec(step.clone(), 0..4), vec(step, 0..3))
        .prop_map(|(compare, success, failure)| Txn { compare, success, failure })
}

fn alarm() -> impl Strategy<Value = Alarm> {
    let kind = select(vec![AlarmKind::NoSpace, AlarmKind::Corrupt]);
    (kind, 1u64..3).prop_map(|(kind, member)| Alarm { kind, member })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        // Mostly plain writes, so that there is a history.
        8 => put().prop_map(|put| Op::Txn(Txn { success: vec![put], ..Txn::default() })),
        2 => range().prop_map(|range| Op::Txn(Txn {
            success: vec![TxnOp::DeleteRange(DeleteRange { range, prev_kv: false })],
            ..Txn::default()
        })),
        8 => txn().prop_map(Op::Txn),
        3 => vec(txn(), 0..4).prop_map(Op::Atomic),
        2 => (lease(), select(vec![9, i64::MIN, i64::MAX]))
            .prop_map(|(id, ttl_seconds)| Op::LeaseGrant { id, ttl_seconds }),
        1 => lease().prop_map(|id| Op::LeaseRevoke { id }),
        1 => (lease(), 0i64..9)
            .prop_map(|(id, remaining_seconds)| Op::LeaseCheckpoint { id, remaining_seconds }),
        2 => revision().prop_map(|revision| Op::Compact { revision }),
        1 => (0u64..5).prop_map(|e| Op::BeginEpoch { epoch: Epoch(e), leader: e }),
        1 => (0u32..5).prop_map(|level| Op::RaiseFeatureLevel { level }),
        3 => auth_op().prop_map(Op::Auth),
        // Mostly taken back, lest nothing more happen.
        1 => (alarm(), proptest::bool::weighted(0.3))
            .prop_map(|(alarm, active)| Op::Alarm { alarm, active }),
    ]
}

fn user() -> impl Strategy<Value = String> {
    select(vec!["root", "u", "u", "v", "v", ""]).prop_map(str::to_owned)
}

fn role() -> impl Strategy<Value = String> {
    select(vec!["root", "r", "r", "s", "s", ""]).prop_map(str::to_owned)
}

fn permission() -> impl Strategy<Value = Permission> {
    let kind = select(vec![PermissionKind::Read, PermissionKind::Write, PermissionKind::ReadWrite]);
    (kind, range()).prop_map(|(kind, range)| Permission { kind, range })
}

fn auth_op() -> impl Strategy<Value = AuthOp> {
    let password = || any::<bool>().prop_map(|it| it.then(|| PasswordHash("hash".to_owned())));
    prop_oneof![
        1 => any::<[u8; 32]>().prop_map(|key| AuthOp::Enable { token_key: TokenKey(key) }),
        1 => Just(AuthOp::Disable),
        2 => (user(), password()).prop_map(|(user, password)| AuthOp::UserAdd { user, password }),
        1 => user().prop_map(|user| AuthOp::UserDelete { user }),
        1 => user().prop_map(|user| AuthOp::UserChangePassword {
            user,
            password: PasswordHash("other".to_owned()),
        }),
        3 => (user(), role()).prop_map(|(user, role)| AuthOp::UserGrantRole { user, role }),
        1 => (user(), role()).prop_map(|(user, role)| AuthOp::UserRevokeRole { user, role }),
        2 => role().prop_map(|role| AuthOp::RoleAdd { role }),
        1 => role().prop_map(|role| AuthOp::RoleDelete { role }),
        6 => (role(), permission())
            .prop_map(|(role, permission)| AuthOp::RoleGrantPermission { role, permission }),
        2 => (role(), range())
            .prop_map(|(role, range)| AuthOp::RoleRevokePermission { role, range }),
    ]
}

/// So that authentication is on from the beginning, and somebody may do something.
fn preamble() -> Vec<Op> {
    let (root, u, r) = ("root".to_owned(), "u".to_owned(), "r".to_owned());
    let permission = Permission {
        kind: PermissionKind::ReadWrite,
        range: KeyRange::Between { start: "a".into(), end: "b".into() },
    };
    [
        AuthOp::UserAdd { user: root.clone(), password: None },
        AuthOp::UserGrantRole { user: root.clone(), role: root },
        AuthOp::UserAdd { user: u.clone(), password: None },
        AuthOp::RoleAdd { role: r.clone() },
        AuthOp::UserGrantRole { user: u, role: r.clone() },
        AuthOp::RoleGrantPermission { role: r, permission },
        AuthOp::Enable { token_key: TokenKey([7; 32]) },
    ]
    .map(Op::Auth)
    .into()
}

fn log() -> impl Strategy<Value = Vec<Command>> {
    let origin = prop_oneof![
        6 => Just(Origin::Client),
        1 => (0u64..5).prop_map(|e| Origin::Controller { epoch: Epoch(e) }),
        // Who is up to date, who may not be, and nobody.
        6 => (user(), prop_oneof![6 => Just(u64::MAX), 1 => 0u64..12])
            .prop_map(|(user, auth_revision)| Origin::User(Identity { user, auth_revision })),
    ];
    let repeats = proptest::option::weighted(0.1, 0u64..100);
    let entries = vec((op(), origin, 0u64..1000, repeats), 1..100);
    (entries, any::<bool>()).prop_map(|(entries, with_users)| {
        let users = if with_users { preamble() } else { vec![] };
        let entries = users.into_iter().map(|op| (op, Origin::Client, 0, None)).chain(entries);
        (1..)
            .zip(entries)
            .map(|(next, (op, origin, at, repeats))| {
                let sequence = repeats.map_or(next, |r| 1 + r % next);
                Command {
                    at: Timestamp(at),
                    request: RequestId { client: 1, sequence },
                    origin,
                    op,
                }
            })
            .collect()
    })
}

/// Everything that a watch from the oldest kept revision sees.
fn kept_events(state: &State) -> Vec<Event> {
    let start = state.view().compacted().max(Revision::new(1));
    let everything = KeyRange::From(Bytes::new());
    let hub = Hub::new(state.clone());
    let mut watcher = hub.watch(WatchRequest { range: everything, start }).unwrap();
    hub.close();
    let mut events = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    while let Some(WatchMessage::Events(batch)) = runtime.block_on(watcher.next()) {
        assert!(batch.events.iter().all(|e| e.kv.mod_revision == batch.revision));
        events.extend(batch.events.iter().map(|e| (**e).clone()));
    }
    events
}

fn exported(state: &State) -> Vec<SnapshotRecord> {
    state.export().collect()
}

proptest! {
    #[test]
    fn every_answer_and_every_kept_revision_is_as_in_the_model(
        log in log(),
        reads in vec(range_request(), 30),
    ) {
        let mut state = State::default();
        let mut model = Model::default();
        for command in &log {
            let (hash, events) = (state.view().hash(), model.events.len());
            let transition = state.apply(command);
            let (applied, done) = model.apply(command);
            prop_assert_eq!(&transition.applied, &applied, "of {:?}", command);
            let seen: Vec<Event> = transition.events.iter().map(|e| (**e).clone()).collect();
            prop_assert_eq!(&seen, &model.events[events..]);
            // INV-9: what is refused or repeated leaves the hash as it was.
            prop_assert_eq!(state.view().hash() != hash, done);
        }
        let view = state.view();
        for read in &reads {
            prop_assert_eq!(view.range(read), model.read(read), "{:?}", read);
            prop_assert_eq!(view.count(&read.range), model.read(&RangeRequest {
                revision: Revision::ZERO, ..read.clone()
            }).unwrap().count);
        }
        let whole = |revision| RangeRequest {
            range: KeyRange::From(Bytes::new()),
            revision: Revision::new(revision),
            limit: 0,
            sort: None,
            keys_only: false,
            count_only: false,
            mod_revision: (Revision::ZERO, Revision::ZERO),
            create_revision: (Revision::ZERO, Revision::ZERO),
        };
        for revision in 0..model.revision + 2 {
            prop_assert_eq!(view.range(&whole(revision)), model.read(&whole(revision)));
        }
        let auth = view.auth();
        prop_assert_eq!(
            (auth.is_enabled(), auth.revision()), (model.auth.enabled, model.auth.revision)
        );
        let users: Vec<_> = auth.users().map(|(u, user)| (u, user.password.is_some())).collect();
        let want: Vec<_> = model.auth.users.iter().map(|(u, p)| (u.as_str(), *p)).collect();
        prop_assert_eq!(users, want);
        let members: Vec<_> = auth
            .users()
            .flat_map(|(u, user)| user.roles.iter().map(move |r| (u.to_owned(), r.clone())))
            .collect();
        prop_assert_eq!(members, model.auth.members.iter().cloned().collect::<Vec<_>>());
        prop_assert_eq!(
            auth.roles().map(|(_, role)| role.permissions.len()).sum::<usize>(),
            model.auth.grants.len()
        );
        prop_assert_eq!(view.alarms(), model.alarms.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(view.leases(), model.leases.values().copied().collect::<Vec<_>>());
        for id in model.leases.keys() {
            let keys: Vec<Bytes> =
                model.live().filter(|kv| kv.lease == *id).map(|kv| kv.key).collect();
            prop_assert_eq!(view.lease_keys(*id), keys);
        }
        let bytes: usize = model.live().map(|kv| kv.key.len() + kv.value.len()).sum();
        prop_assert_eq!(view.live_bytes(), bytes as u64);
        // etcd #18089, #19179: deletions too, from the compacted revision itself on.
        let kept: Vec<Event> = model.events.iter()
            .filter(|e| e.kv.mod_revision.get() >= model.compacted)
            .map(|e| if e.kv.mod_revision.get() == model.compacted {
                Event { prev: None, ..e.clone() }
            } else {
                e.clone()
            })
            .collect();
        prop_assert_eq!(kept_events(&state), kept);
    }

    #[test]
    fn the_same_log_gives_the_same_hash_also_through_a_snapshot(log in log(), cut in 0usize..100) {
        let mut straight = State::default();
        let mut through = State::default();
        for (i, command) in log.iter().enumerate() {
            if i == cut {
                through = State::import(exported(&through)).unwrap();
                prop_assert_eq!(exported(&straight), exported(&through));
                prop_assert_eq!(kept_events(&straight), kept_events(&through));
            }
            prop_assert_eq!(straight.apply(command), through.apply(command));
            prop_assert_eq!(straight.view().hash(), through.view().hash());
            // One member sweeps when the other does not.
            straight.sweep();
            let back = [0, 0, 0, 1, 3][i % 5];
            let at = Revision::new(straight.view().revision().get().saturating_sub(back));
            prop_assert_eq!(straight.view().hash_kv(at), through.view().hash_kv(at));
        }
        prop_assert_eq!(exported(&straight), exported(&through));
        prop_assert_eq!(kept_events(&straight), kept_events(&through));
        // A repeat of anything is answered the same by both.
        for command in &log {
            prop_assert_eq!(straight.apply(command).applied, through.apply(command).applied);
        }
    }

    #[test]
    fn events_alone_rebuild_the_keys(log in log()) {
        let mut state = State::default();
        let mut rebuilt = BTreeMap::new();
        for command in &log {
            for event in state.apply(command).events {
                prop_assert_eq!(rebuilt.get(&event.kv.key), event.prev.as_ref());
                match event.kind {
                    EventKind::Put => drop(rebuilt.insert(event.kv.key.clone(), event.kv.clone())),
                    EventKind::Delete => drop(rebuilt.remove(&event.kv.key)),
                }
            }
        }
        let view = state.view();
        let live: Vec<_> = view.live(&KeyRange::From(Bytes::new())).cloned().collect();
        prop_assert_eq!(live, rebuilt.into_values().collect::<Vec<_>>());
    }

    #[test]
    fn a_copy_stays_as_it_was(log in log(), cut in 0usize..100) {
        let mut state = State::default();
        let mut kept = None;
        for (i, command) in log.iter().enumerate() {
            if i == cut {
                kept = Some((state.clone(), exported(&state)));
            }
            state.apply(command);
        }
        if let Some((copy, records)) = kept {
            prop_assert_eq!(exported(&copy), records);
        }
    }

    #[test]
    fn a_cut_swapped_or_doubled_snapshot_is_refused_or_the_same(
        log in log(),
        (keep, a, b) in (0usize..50, 0usize..50, 0usize..50),
    ) {
        let mut state = State::default();
        for command in &log {
            state.apply(command);
        }
        let records = exported(&state);
        let keep = keep.min(records.len() - 1);
        prop_assert!(State::import(records.iter().take(keep).cloned()).is_err());
        let mut doubled = records.clone();
        doubled.insert(keep, records[keep].clone());
        prop_assert!(State::import(doubled).is_err());
        // No order of records may bring it down.
        let mut swapped = records.clone();
        swapped.swap(a % records.len(), b % records.len());
        if let Ok(imported) = State::import(swapped) {
            let _ = imported.export().count();
            let _ = Arc::new(imported).view();
        }
    }
}
