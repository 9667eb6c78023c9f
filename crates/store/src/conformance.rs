//! What every [`Store`] must do, as a suite that each implementation runs in its tests.
//!
//! The properties keep to keys and request ids of their own, and count revisions from where they
//! begin: a store that is slow to set up may be given to all of them.

use crate::{
    Alarm, AlarmKind, Applied, AuthOp, AuthRejection, Compare, CompareOperator, CompareTarget,
    DeleteRange, Epoch, EventKind, Identity, KeyRange, LeaseId, Op, Origin, Outcome, PasswordHash,
    Permission, PermissionKind, Proposal, Put, ROOT, RangeRequest, Rejection, RequestId, Revision,
    Store, StoreError, TokenKey, Txn, TxnOp, TxnOpResult, TxnResult,
    watch::{WatchBatch, WatchError, WatchMessage, WatchRequest, Watcher},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinSet, time::timeout};

/// Longer than anything here takes on a busy machine; a property that waits so long has failed.
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs all properties one after the other. `make` gives each a store that takes writes: a new one, or
/// the same again.
///
/// # Panics
/// At the first property that does not hold.
pub async fn run(make: impl AsyncFn() -> Arc<dyn Store>) {
    let suite = async |name: &'static str| Subject::new(name, make().await);
    a_write_is_read_back_at_its_revision(suite("write").await).await;
    a_refused_command_changes_nothing(suite("refused").await).await;
    one_of_many_wins_a_compare_and_swap(suite("swap").await).await;
    a_repeated_request_is_answered_with_its_first_result(suite("repeat").await).await;
    an_atomic_command_is_all_or_nothing(suite("atomic").await).await;
    a_decision_of_another_epoch_is_fenced(suite("fence").await).await;
    a_lease_takes_its_keys_along(suite("lease").await).await;
    a_lease_is_renewed_while_it_is_there(suite("renew").await).await;
    a_user_does_what_its_roles_may(suite("users").await).await;
    an_alarm_stops_puts_until_it_is_taken_back(suite("alarm").await).await;
    a_revision_is_waited_for(suite("wait").await).await;
    a_watch_goes_from_the_past_into_the_present(suite("watch").await).await;
    a_watch_sees_each_revision_of_its_range_whole(suite("range").await).await;
    a_watch_of_the_future_waits(suite("future").await).await;
    writers_at_once_leave_one_history(suite("writers").await).await;
    // Last, since it takes the past away.
    what_is_compacted_is_refused_and_the_rest_is_kept(suite("compact").await).await;
}

/// A store, and names that no other property uses.
#[derive(Clone)]
struct Subject {
    name: &'static str,
    store: Arc<dyn Store>,
    client: u64,
    sequence: Arc<AtomicU64>,
}

impl Subject {
    fn new(name: &'static str, store: Arc<dyn Store>) -> Self {
        let client = name.bytes().fold(1, |id: u64, b| id.wrapping_mul(257) + u64::from(b));
        Self { name, store, client, sequence: Arc::default() }
    }

    fn key(&self, key: &str) -> Bytes {
        format!("/conformance/{}/{key}", self.name).into()
    }

    fn all(&self) -> KeyRange {
        KeyRange::prefix(self.key(""))
    }

    fn put(&self, key: &str, value: &str) -> Put {
        Put {
            key: self.key(key),
            value: value.to_owned().into(),
            lease: LeaseId::NONE,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        }
    }

    fn puts(&self, pairs: &[(&str, &str)]) -> Txn {
        let put = |(key, value): &(&str, &str)| TxnOp::Put(self.put(key, value));
        Txn { success: pairs.iter().map(put).collect(), ..Txn::default() }
    }

    fn delete(&self, key: &str) -> Txn {
        let range = KeyRange::One(self.key(key));
        let delete = TxnOp::DeleteRange(DeleteRange { range, prev_kv: true });
        Txn { success: vec![delete], ..Txn::default() }
    }

    fn version_is(&self, key: &str, version: u64) -> Compare {
        Compare {
            range: KeyRange::One(self.key(key)),
            operator: CompareOperator::Equal,
            target: CompareTarget::Version(version),
        }
    }

    fn proposal(&self, op: Op) -> Proposal {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let request = RequestId { client: self.client, sequence };
        Proposal { request, origin: Origin::Client, op }
    }

    async fn apply(&self, op: Op) -> Applied {
        let proposal = self.proposal(op);
        match self.store.propose(proposal.clone(), DEADLINE).await {
            Ok(applied) => applied,
            Err(error) => panic!("{}: {proposal:?} was not applied: {error}", self.name),
        }
    }

    async fn write(&self, txn: Txn) -> (Revision, TxnResult) {
        let applied = self.apply(Op::Txn(txn)).await;
        match applied.outcome {
            Ok(Outcome::Txn(result)) => (applied.revision, result),
            other => panic!("{}: a transaction gave {other:?}", self.name),
        }
    }

    /// Keys and values of this property, after all that was acknowledged.
    async fn read(&self, revision: Revision) -> Result<BTreeMap<String, String>, Rejection> {
        self.store.barrier(DEADLINE).await.expect("a healthy store has a quorum");
        let result = self.store.view().range(&RangeRequest {
            range: self.all(),
            revision,
            limit: 0,
            sort: None,
            keys_only: false,
            count_only: false,
            mod_revision: (Revision::ZERO, Revision::ZERO),
            create_revision: (Revision::ZERO, Revision::ZERO),
        })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let strip = self.key("").len();
        let short = |key: &Bytes| text(key.get(strip..).unwrap_or_default());
        Ok(result.kvs.iter().map(|kv| (short(&kv.key), text(&kv.value))).collect())
    }

    async fn holds(&self, want: &[(&str, &str)]) {
        let want = want.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(self.read(Revision::ZERO).await, Ok(want), "{}: content", self.name);
    }

    async fn revision(&self) -> Revision {
        self.store.barrier(DEADLINE).await.expect("a healthy store has a quorum")
    }

    fn watch(&self, start: Revision) -> Result<Watcher, WatchError> {
        self.store.watch(WatchRequest { range: self.all(), start })
    }

    async fn next(&self, watcher: &mut Watcher) -> WatchBatch {
        match timeout(DEADLINE, watcher.next()).await {
            Ok(Some(WatchMessage::Events(batch))) => batch,
            other => panic!("{}: the watch gave {other:?}", self.name),
        }
    }
}

async fn a_write_is_read_back_at_its_revision(subject: Subject) {
    let before = subject.revision().await;
    let (first, result) = subject.write(subject.puts(&[("a", "1"), ("b", "2")])).await;
    assert!(result.succeeded && first > before, "a write takes a revision of its own");
    let (second, _) = subject.write(subject.puts(&[("a", "3")])).await;
    assert!(second > first);
    subject.holds(&[("a", "3"), ("b", "2")]).await;
    let (third, result) = subject.write(subject.delete("a")).await;
    assert!(third > second);
    assert!(
        matches!(result.results.as_slice(), [TxnOpResult::DeleteRange { deleted: 1, prev_kvs }]
            if prev_kvs.iter().all(|kv| kv.version == 2 && kv.create_revision == first)),
        "a deletion says what it deleted: {result:?}"
    );
    subject.holds(&[("b", "2")]).await;
    for (revision, want) in [(first, "1"), (second, "3")] {
        let then = subject.read(revision).await.expect("nothing was compacted since");
        assert_eq!(then.get("a").map(String::as_str), Some(want), "at revision {revision}");
    }
    let (fourth, result) = subject.write(subject.delete("a")).await;
    assert!(matches!(result.results.as_slice(), [TxnOpResult::DeleteRange { deleted: 0, .. }]));
    assert!(fourth >= third);
    let newest = subject.store.view().get(&subject.key("b")).expect("b is there");
    assert_eq!((newest.version, newest.mod_revision), (1, first));
}

async fn a_refused_command_changes_nothing(subject: Subject) {
    subject.write(subject.puts(&[("a", "1")])).await;
    let missing = LeaseId(0x0bad_1ea5);
    let with_lease = Put { lease: missing, ..subject.put("a", "2") };
    let kept_value = Put { ignore_value: true, ..subject.put("none", "") };
    let with = |put: Put| Op::Txn(Txn { success: vec![TxnOp::Put(put)], ..Txn::default() });
    let future = Revision::new(u64::MAX / 2);
    for (name, op, check) in [
        (
            "a lease that is not there",
            with(with_lease),
            (|r| matches!(r, Rejection::LeaseNotFound)) as fn(&Rejection) -> bool,
        ),
        ("a value to keep of no key", with(kept_value), |r| matches!(r, Rejection::KeyNotFound)),
        ("no key", with(Put { key: Bytes::new(), ..subject.put("", "") }), |r| {
            matches!(r, Rejection::EmptyKey)
        }),
        ("one key twice", Op::Txn(subject.puts(&[("b", "1"), ("b", "2")])), |r| {
            matches!(r, Rejection::DuplicateKey)
        }),
        ("a lease to revoke", Op::LeaseRevoke { id: missing }, |r| {
            matches!(r, Rejection::LeaseNotFound)
        }),
        ("a compaction of the future", Op::Compact { revision: future }, |r| {
            matches!(r, Rejection::FutureRevision { .. })
        }),
    ] {
        let before = subject.revision().await;
        let applied = subject.apply(op).await;
        let rejection = applied.outcome.expect_err(name);
        assert!(check(&rejection), "{name}: {rejection}");
        assert_eq!(applied.revision, before, "{name} took a revision");
        subject.holds(&[("a", "1")]).await;
    }
}

async fn one_of_many_wins_a_compare_and_swap(subject: Subject) {
    let mut tasks = JoinSet::new();
    for i in 0..16 {
        let subject = subject.clone();
        tasks.spawn(async move {
            let value = i.to_string();
            let mut txn = subject.puts(&[("lock", &value)]);
            txn.compare = vec![subject.version_is("lock", 0)];
            let (_, result) = subject.write(txn).await;
            result.succeeded.then_some(value)
        });
    }
    let winners: Vec<String> = tasks.join_all().await.into_iter().flatten().collect();
    let [winner] = winners.as_slice() else { panic!("winners: {winners:?}") };
    subject.holds(&[("lock", winner)]).await;
}

async fn a_repeated_request_is_answered_with_its_first_result(subject: Subject) {
    // FEN-33
    let first = subject.proposal(Op::Txn(subject.puts(&[("a", "1")])));
    let refused = subject.proposal(Op::LeaseRevoke { id: LeaseId(0x51_1e47) });
    let propose = async |proposal: &Proposal| {
        subject.store.propose(proposal.clone(), DEADLINE).await.expect("a healthy store answers")
    };
    let (answer, refusal) = (propose(&first).await, propose(&refused).await);
    subject.write(subject.puts(&[("a", "2")])).await;
    subject.apply(Op::LeaseGrant { id: LeaseId(0x51_1e47), ttl_seconds: 600 }).await;
    let before = subject.revision().await;
    assert_eq!(propose(&first).await, answer);
    // Its proposer was told that there is no such lease: it must not be revoked behind its back.
    assert_eq!(propose(&refused).await, refusal);
    assert_eq!(subject.revision().await, before);
    assert!(subject.store.view().lease(LeaseId(0x51_1e47)).is_some());
    subject.holds(&[("a", "2")]).await;
}

async fn an_atomic_command_is_all_or_nothing(subject: Subject) {
    // FEN-38
    let create = |key: &str| Txn {
        compare: vec![subject.version_is(key, 0)],
        ..subject.puts(&[(key, "x")])
    };
    let applied = subject.apply(Op::Atomic(vec![create("a"), create("b")])).await;
    let Ok(Outcome::Atomic(results)) = applied.outcome else {
        panic!("refused: {:?}", applied.outcome)
    };
    let revisions: BTreeSet<Revision> = results.iter().map(|(revision, _)| *revision).collect();
    assert_eq!(revisions.len(), 2, "two objects share a revision");
    assert_eq!(revisions.last(), Some(&applied.revision));
    let before = subject.revision().await;
    let applied = subject.apply(Op::Atomic(vec![create("c"), create("a")])).await;
    assert_eq!(applied.outcome, Err(Rejection::Precondition { index: 1 }));
    assert_eq!((applied.revision, subject.revision().await), (before, before));
    subject.holds(&[("a", "x"), ("b", "x")]).await;
}

async fn a_decision_of_another_epoch_is_fenced(subject: Subject) {
    // FEN-6. A store may also refuse it before it is in the log.
    subject.revision().await;
    let current = subject.store.view().epoch();
    let decided = |epoch| Proposal {
        origin: Origin::Controller { epoch },
        ..subject.proposal(Op::Txn(subject.puts(&[("a", &epoch.to_string())])))
    };
    let mut others = vec![Epoch(current.0 + 1)];
    others.extend(current.0.checked_sub(1).map(Epoch));
    for epoch in others {
        match subject.store.propose(decided(epoch), DEADLINE).await {
            Err(StoreError::NotLeader) => {}
            Ok(applied) => {
                let fenced = Rejection::Fenced { decided: epoch, current };
                assert_eq!(applied.outcome, Err(fenced));
            }
            Err(other) => panic!("a fenced proposal gave {other}"),
        }
        subject.holds(&[]).await;
    }
    let applied = subject.store.propose(decided(current), DEADLINE).await;
    assert!(applied.is_ok_and(|applied| applied.outcome.is_ok()), "the current epoch is fenced");
}

async fn a_lease_takes_its_keys_along(subject: Subject) {
    let id = LeaseId(0x00c0_ffee);
    let granted = subject.apply(Op::LeaseGrant { id, ttl_seconds: 600 }).await;
    assert_eq!(granted.outcome, Ok(Outcome::Done));
    let again = subject.apply(Op::LeaseGrant { id, ttl_seconds: 600 }).await;
    assert_eq!(again.outcome, Err(Rejection::LeaseExists));
    let attached = |key: &str| TxnOp::Put(Put { lease: id, ..subject.put(key, "leased") });
    let mut txn = subject.puts(&[("free", "x")]);
    txn.success.extend([attached("a"), attached("b"), attached("c")]);
    let (start, _) = subject.write(txn).await;
    // Written again without the lease: it hangs on it no more.
    subject.write(subject.puts(&[("c", "free")])).await;
    let mut watcher = subject.watch(start.next().next()).expect("nothing was compacted");
    let applied = subject.apply(Op::LeaseRevoke { id }).await;
    assert_eq!(applied.outcome, Ok(Outcome::LeaseRevoked { deleted: 2 }));
    subject.holds(&[("c", "free"), ("free", "x")]).await;
    let mut batch = subject.next(&mut watcher).await;
    while batch.revision < applied.revision {
        batch = subject.next(&mut watcher).await;
    }
    let deleted: Vec<_> = batch.events.iter().map(|e| (e.kind, e.kv.key.clone())).collect();
    let want = ["a", "b"].map(|key| (EventKind::Delete, subject.key(key)));
    assert_eq!((batch.revision, deleted), (applied.revision, want.to_vec()));
}

async fn a_lease_is_renewed_while_it_is_there(subject: Subject) {
    let id = LeaseId(0x0000_4e17);
    let renew = async || subject.store.renew_lease(id, DEADLINE).await;
    assert_eq!(renew().await, Ok(None));
    subject.apply(Op::LeaseGrant { id, ttl_seconds: 600 }).await;
    let before = subject.revision().await;
    assert_eq!(renew().await, Ok(Some(600)));
    assert_eq!(subject.revision().await, before, "a renewal is no write");
    let left = async || subject.store.lease_left(id, DEADLINE).await;
    assert!(matches!(left().await, Ok(Some(1..=600))));
    subject.apply(Op::LeaseRevoke { id }).await;
    assert_eq!(renew().await, Ok(None));
    assert_eq!(left().await, Ok(None));
    let op = Op::LeaseGrant { id, ttl_seconds: crate::LEASE_TTL_SECONDS_MAX + 1 };
    assert_eq!(subject.apply(op).await.outcome, Err(Rejection::LeaseTtlTooLarge));
}

async fn a_user_does_what_its_roles_may(subject: Subject) {
    let name = |text: &str| text.to_owned();
    let (root, user) = (name(ROOT), name("user"));
    let hash = || Some(PasswordHash(name("hash")));
    let permission = Permission { kind: PermissionKind::ReadWrite, range: subject.all() };
    for op in [
        AuthOp::UserAdd { user: root.clone(), password: hash() },
        AuthOp::UserGrantRole { user: root.clone(), role: root },
        AuthOp::UserAdd { user: user.clone(), password: hash() },
        AuthOp::RoleAdd { role: user.clone() },
        AuthOp::UserGrantRole { user: user.clone(), role: user.clone() },
        AuthOp::RoleGrantPermission { role: user.clone(), permission },
        AuthOp::Enable { token_key: TokenKey([1; 32]) },
    ] {
        let applied = subject.apply(Op::Auth(op.clone())).await;
        assert_eq!(applied.outcome, Ok(Outcome::Done), "{op:?}");
    }
    subject.revision().await;
    let auth_revision = subject.store.view().auth().revision();
    let by = async |auth_revision, key: Bytes| {
        let put = Put { key, ..subject.put("", "x") };
        let op = Op::Txn(Txn { success: vec![TxnOp::Put(put)], ..Txn::default() });
        let origin = Origin::User(Identity { user: user.clone(), auth_revision });
        let proposal = Proposal { origin, ..subject.proposal(op) };
        let applied = subject.store.propose(proposal, DEADLINE).await;
        applied.expect("a healthy store answers").outcome.map(|_| ())
    };
    let refused = |no| Err(Rejection::Auth(no));
    assert_eq!(by(auth_revision, subject.key("a")).await, Ok(()));
    let elsewhere = Bytes::from_static(b"/elsewhere");
    assert_eq!(by(auth_revision, elsewhere).await, refused(AuthRejection::PermissionDenied));
    assert_eq!(by(auth_revision - 1, subject.key("a")).await, refused(AuthRejection::OldRevision));
    assert_eq!(by(0, subject.key("a")).await, refused(AuthRejection::UserEmpty));
    // What a replica itself proposes is not held against users.
    subject.write(subject.puts(&[("b", "y")])).await;
    let applied = subject.apply(Op::Auth(AuthOp::Disable)).await;
    assert_eq!(applied.outcome, Ok(Outcome::Done));
    assert_eq!(by(0, subject.key("a")).await, Ok(()));
    subject.holds(&[("a", "x"), ("b", "y")]).await;
}

async fn an_alarm_stops_puts_until_it_is_taken_back(subject: Subject) {
    subject.write(subject.puts(&[("a", "1"), ("b", "1")])).await;
    let alarm = Alarm { kind: AlarmKind::NoSpace, member: 7 };
    let raised = subject.apply(Op::Alarm { alarm, active: true }).await;
    assert_eq!(raised.outcome, Ok(Outcome::Alarm { changed: true }));
    let refused = subject.apply(Op::Txn(subject.puts(&[("a", "2")]))).await;
    assert_eq!(refused.outcome, Err(Rejection::NoSpace));
    subject.write(subject.delete("b")).await;
    subject.holds(&[("a", "1")]).await;
    assert_eq!(subject.store.view().alarms(), [alarm]);
    subject.apply(Op::Alarm { alarm, active: false }).await;
    subject.write(subject.puts(&[("a", "2")])).await;
    subject.holds(&[("a", "2")]).await;
}

async fn a_revision_is_waited_for(subject: Subject) {
    let (revision, _) = subject.write(subject.puts(&[("a", "1")])).await;
    assert_eq!(subject.store.wait_for(revision, DEADLINE).await, Ok(()));
    assert!(subject.store.view().revision() >= revision);
    let far = Revision::new(revision.get() + 1_000_000);
    let waited = subject.store.wait_for(far, Duration::from_millis(1)).await;
    assert!(matches!(waited, Err(StoreError::NotYet { requested, .. }) if requested == far));
    let mut tasks = JoinSet::new();
    let store = Arc::clone(&subject.store);
    tasks.spawn(async move { store.wait_for(revision.next(), DEADLINE).await });
    subject.write(subject.puts(&[("a", "2")])).await;
    assert!(tasks.join_all().await.into_iter().all(|waited| waited == Ok(())));
}

async fn a_watch_goes_from_the_past_into_the_present(subject: Subject) {
    let mut revisions = Vec::new();
    for i in 0..6 {
        let value = i.to_string();
        revisions.push(subject.write(subject.puts(&[("a", &value)])).await.0);
    }
    let [_, _, start, ..] = *revisions.as_slice() else { panic!("six writes were made") };
    let mut watcher = subject.watch(start).expect("nothing was compacted");
    for i in 6..9 {
        let value = i.to_string();
        revisions.push(subject.write(subject.puts(&[("a", &value)])).await.0);
    }
    let mut seen = Vec::new();
    for revision in revisions.iter().filter(|revision| **revision >= start) {
        let batch = subject.next(&mut watcher).await;
        assert_eq!(batch.revision, *revision, "a gap, a repeat or a jump");
        seen.extend(batch.events.iter().map(|event| event.kv.value.clone()));
    }
    assert_eq!(seen, ["2", "3", "4", "5", "6", "7", "8"]);
    let last = revisions.last().copied().unwrap_or_default();
    assert!(watcher.progress() >= last);
}

async fn a_watch_sees_each_revision_of_its_range_whole(subject: Subject) {
    let range = KeyRange::prefix(subject.key("in/"));
    let request = WatchRequest { range, start: Revision::ZERO };
    let mut watcher = subject.store.watch(request).expect("the present is always kept");
    subject.write(subject.puts(&[("out", "1")])).await;
    let txn = subject.puts(&[("in/a", "1"), ("out", "2"), ("in/b", "1")]);
    let (first, _) = subject.write(txn).await;
    let (second, _) = subject.write(subject.delete("in/a")).await;
    let batch = subject.next(&mut watcher).await;
    let keys: Vec<_> = batch.events.iter().map(|event| event.kv.key.clone()).collect();
    assert_eq!((batch.revision, keys), (first, vec![subject.key("in/a"), subject.key("in/b")]));
    let batch = subject.next(&mut watcher).await;
    assert_eq!(batch.revision, second);
    let [event] = &*batch.events else { panic!("one deletion, not {:?}", batch.events) };
    let prev = event.prev.as_ref().map(|prev| (prev.value.clone(), prev.mod_revision));
    assert_eq!(event.kind, EventKind::Delete);
    assert_eq!(prev, Some((Bytes::from_static(b"1"), first)));
}

async fn a_watch_of_the_future_waits(subject: Subject) {
    let (now, _) = subject.write(subject.puts(&[("a", "0")])).await;
    let start = Revision::new(now.get() + 3);
    let mut watcher = subject.watch(start).expect("the future may be watched");
    assert!(watcher.progress() < start, "no progress beyond the store's own");
    let mut last = now;
    while last < start {
        last = subject.write(subject.puts(&[("a", "1")])).await.0;
    }
    assert_eq!(subject.next(&mut watcher).await.revision, start);
}

async fn writers_at_once_leave_one_history(subject: Subject) {
    const WRITERS: usize = 8;
    const WRITES: usize = 25;
    let mut watcher = subject.watch(Revision::ZERO).expect("the present is always kept");
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let subject = subject.clone();
        tasks.spawn(async move {
            let mut revisions = Vec::new();
            for i in 0..WRITES {
                let (key, value) = (format!("key-{}", i % 3), format!("{writer}/{i}"));
                revisions.push((subject.write(subject.puts(&[(&key, &value)])).await.0, value));
            }
            assert!(revisions.is_sorted_by(|a, b| a.0 < b.0), "a writer saw time go back");
            revisions
        });
    }
    let mut acknowledged: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    acknowledged.sort();
    let mut content = BTreeMap::new();
    for (revision, value) in &acknowledged {
        let batch = subject.next(&mut watcher).await;
        let [event] = &*batch.events else { panic!("one event, not {:?}", batch.events) };
        assert_eq!((batch.revision, &event.kv.value[..]), (*revision, value.as_bytes()));
        content.insert(event.kv.key.clone(), event.kv.value.clone());
    }
    assert_eq!(acknowledged.len(), WRITERS * WRITES);
    subject.revision().await;
    let view = subject.store.view();
    let live = view.live(&KeyRange::prefix(subject.key("")));
    assert!(live.map(|kv| (&kv.key, &kv.value)).eq(&content), "events do not rebuild the keys");
}

async fn what_is_compacted_is_refused_and_the_rest_is_kept(subject: Subject) {
    let (first, _) = subject.write(subject.puts(&[("a", "1"), ("b", "1")])).await;
    let (second, _) = subject.write(subject.puts(&[("a", "2")])).await;
    // etcd #18089, #19179: the compaction falls on a deletion.
    let (deleted, _) = subject.write(subject.delete("b")).await;
    let (last, _) = subject.write(subject.puts(&[("a", "3")])).await;
    let applied = subject.apply(Op::Compact { revision: deleted }).await;
    assert_eq!(applied.outcome, Ok(Outcome::Done));
    let again = subject.apply(Op::Compact { revision: second }).await;
    let refused = Rejection::Compacted { requested: second, compacted: deleted };
    assert_eq!(again.outcome, Err(refused));
    subject.revision().await;
    assert_eq!(subject.store.view().compacted(), deleted);
    for revision in [first, second] {
        let refused = Rejection::Compacted { requested: revision, compacted: deleted };
        assert_eq!(subject.read(revision).await, Err(refused));
        let Err(refused) = subject.watch(revision) else { panic!("{revision} is compacted") };
        assert_eq!(refused, WatchError::Compacted { requested: revision, oldest: deleted });
    }
    let then = subject.read(deleted).await.expect("the compacted revision itself is read");
    assert_eq!(then, BTreeMap::from([("a".to_owned(), "2".to_owned())]));
    subject.holds(&[("a", "3")]).await;
    subject.store.swept(DEADLINE).await.expect("memory is freed though nothing is written");
    let view = subject.store.view();
    assert!(view.is_swept());
    let (hash, at) = view.hash_kv(last).expect("it is kept");
    assert_eq!(at, deleted);
    assert_ne!(hash, view.hash_kv(deleted).expect("it is kept").0);
    let mut watcher = subject.watch(deleted).expect("and watched");
    let batch = subject.next(&mut watcher).await;
    assert_eq!(batch.revision, deleted);
    assert!(batch.events.iter().all(|event| event.kind == EventKind::Delete));
    assert_eq!(subject.next(&mut watcher).await.revision, last);
}
