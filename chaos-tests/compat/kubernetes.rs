//! The requests of a kube-apiserver, by hand, against a group in etcd's place.

use crate::group::{Group, System};
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse,
    WatchOptions,
};

const PODS: &str = "/registry/pods/";

/// Creates: there must be nothing.
fn create(key: &str, value: &str) -> Txn {
    Txn::new()
        .when([Compare::mod_revision(key, CompareOp::Equal, 0)])
        .and_then([TxnOp::put(key, value, None)])
}

/// Replaces what was read at `revision`, or tells what is there now.
fn update(key: &str, value: &str, revision: i64) -> Txn {
    Txn::new()
        .when([Compare::mod_revision(key, CompareOp::Equal, revision)])
        .and_then([TxnOp::put(key, value, None)])
        .or_else([TxnOp::get(key, None)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apiserver_finds_what_it_needs() {
    let interval = ["--watch-progress-notify-interval=100ms".to_owned()];
    let group = Group::start(System::Trireme, 3, &interval).await;
    let options = ConnectOptions::new().with_require_leader(true);
    let mut c = Client::connect(group.endpoints(), Some(options)).await.unwrap();
    // Below 3.4.31 or 3.5.13, consistent lists would all go to the store.
    let version = c.status().await.unwrap().version().to_owned();
    let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
    assert!(parts >= vec![3, 6, 0], "{version}");

    assert!(c.get("/registry/health", None).await.unwrap().kvs().is_empty());
    let made = c.txn(create("/registry/pods/default/a", "1")).await.unwrap();
    assert!(made.succeeded());
    let first = made.header().unwrap().revision();
    assert!(!c.txn(create("/registry/pods/default/a", "2")).await.unwrap().succeeded());
    for name in ["b", "c", "d"] {
        assert!(c.txn(create(&format!("{PODS}default/{name}"), "1")).await.unwrap().succeeded());
    }
    // In pages, all of one revision.
    let one = c.get(PODS, Some(GetOptions::new().with_prefix().with_limit(2))).await.unwrap();
    assert_eq!((one.kvs().len(), one.more(), one.count()), (2, true, 4));
    let revision = one.header().unwrap().revision();
    c.txn(create(&format!("{PODS}default/e"), "1")).await.unwrap();
    let mut after = one.kvs()[1].key().to_vec();
    after.push(0);
    let rest =
        GetOptions::new().with_range("/registry/pods0").with_limit(2).with_revision(revision);
    let two = c.get(after, Some(rest)).await.unwrap();
    assert_eq!((two.kvs().len(), two.more(), two.count()), (2, false, 2));
    let count = c.get(PODS, Some(GetOptions::new().with_prefix().with_count_only())).await.unwrap();
    assert_eq!((count.count(), count.kvs().len()), (5, 0));

    // A conflict is answered with what is there.
    let changed = c.txn(update("/registry/pods/default/a", "2", first)).await.unwrap();
    assert!(changed.succeeded());
    let now = changed.header().unwrap().revision();
    let late = c.txn(update("/registry/pods/default/a", "3", first)).await.unwrap();
    assert!(!late.succeeded());
    let Some(TxnOpResponse::Get(found)) = late.op_responses().into_iter().next() else {
        panic!("{late:?}")
    };
    assert_eq!((found.kvs()[0].value(), found.kvs()[0].mod_revision()), (&b"2"[..], now));
    let gone = Txn::new()
        .when([Compare::mod_revision("/registry/pods/default/a", CompareOp::Equal, now)])
        .and_then([TxnOp::delete("/registry/pods/default/a", None)])
        .or_else([TxnOp::get("/registry/pods/default/a", None)]);
    assert!(c.txn(gone).await.unwrap().succeeded());

    // A watch from the list's revision on sees it all, with what was there before, and hears of
    // progress that is never ahead of it.
    let from = WatchOptions::new()
        .with_prefix()
        .with_prev_key()
        .with_progress_notify()
        .with_start_revision(revision + 1);
    let mut watch = c.watch(PODS, Some(from)).await.unwrap();
    let mut seen = Vec::new();
    let mut progress = 0;
    while seen.len() < 3 || progress == 0 {
        let answer = watch.message().await.unwrap().unwrap();
        for event in answer.events() {
            let kv = event.kv().unwrap();
            assert!(kv.mod_revision() > progress, "{answer:?}");
            seen.push((kv.key_str().unwrap().to_owned(), event.prev_kv().is_some()));
        }
        if answer.events().is_empty() && !answer.created() {
            progress = answer.header().unwrap().revision();
        }
    }
    let names: Vec<(&str, bool)> = seen.iter().map(|(k, p)| (&k[PODS.len()..], *p)).collect();
    assert_eq!(names, [("default/e", false), ("default/a", true), ("default/a", true)]);
    let written = c.put("/elsewhere", "", None).await.unwrap().header().unwrap().revision();
    loop {
        watch.request_progress().await.unwrap();
        let answer = watch.message().await.unwrap().unwrap();
        assert!(answer.events().is_empty(), "{answer:?}");
        if answer.header().unwrap().revision() >= written {
            break;
        }
    }

    // Events hang on leases of their own.
    let lease = c.lease_grant(3600, None).await.unwrap().id();
    let attach = PutOptions::new().with_lease(lease);
    let event = Txn::new()
        .when([Compare::mod_revision("/registry/events/x", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("/registry/events/x", "1", Some(attach))]);
    assert!(c.txn(event).await.unwrap().succeeded());
    let kept = c.get("/registry/events/x", None).await.unwrap();
    assert_eq!(kept.kvs()[0].lease(), lease);

    // Whoever compacts is found by the version of one key; a watch from before is told so.
    let turn = |version: i64| {
        Txn::new()
            .when([Compare::version("compact_rev_key", CompareOp::Equal, version)])
            .and_then([TxnOp::put("compact_rev_key", "x", None)])
            .or_else([TxnOp::get("compact_rev_key", None)])
    };
    assert!(c.txn(turn(0)).await.unwrap().succeeded());
    assert!(!c.txn(turn(0)).await.unwrap().succeeded());
    c.compact(now, None).await.unwrap();
    let old = WatchOptions::new().with_prefix().with_start_revision(revision);
    let mut watch = c.watch(PODS, Some(old)).await.unwrap();
    let answer = loop {
        let answer = watch.message().await.unwrap().unwrap();
        if answer.canceled() {
            break answer;
        }
    };
    assert_eq!(answer.compact_revision(), now);
    let error = c.get(PODS, Some(GetOptions::new().with_revision(revision))).await.unwrap_err();
    assert!(error.to_string().contains("required revision has been compacted"), "{error}");
}
