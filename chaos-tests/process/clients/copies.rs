//! Copies of the API's objects that follow it, each by another client's means, while writers write and replicas are
//! killed: what they were told on the way, and that in the end they are equal to a list.

use super::{
    balancer::Balancer,
    churn::{self, MAPS, NAMESPACE, PODS, Writer},
    ledger::{Ledger, Objects, Others},
    python::{INSTALL, Python},
    setting,
    stream::{NUMBER, Stream, name, number, revision},
};
use crate::cluster::{Cluster, SOON, WHOLE, eventually, with_cluster_in};
use api::{
    core::{ConfigMap, Pod},
    k8s_openapi::{Metadata, Resource, apimachinery::pkg::apis::meta::v1::ObjectMeta},
};
use client::{ClientError, ListOptions, informer::Informer};
use futures::future::{LocalBoxFuture, join_all};
use http::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{cell::RefCell, rc::Rc, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// One that follows: what it knows, and whose objects these are.
pub(super) struct Copy {
    pub(super) path: &'static str,
    pub(super) ledger: RefCell<Ledger>,
}

impl Copy {
    pub(super) fn new(who: &str, path: &'static str) -> Self {
        let others = if path == PODS { Others::Write } else { Others::None };
        Self { path, ledger: RefCell::new(Ledger::new(who, others)) }
    }
}

/// Lists, and watches over HTTP from there: as a client does it that is written by hand.
async fn by_hand(copy: Rc<Copy>, cluster: &Cluster, query: &str, over: &CancellationToken) {
    let client = &cluster.client;
    let mut from = None;
    while !over.is_cancelled() {
        let Some(at) = from else {
            from = list(&copy, cluster).await;
            continue;
        };
        let mut at: u64 = at;
        let path = format!("{}?watch=1&resourceVersion={at}{query}", copy.path);
        let mut stream = match Stream::open(client, &path).await {
            Ok(stream) => stream,
            Err(ClientError::Api(status)) => panic!("{status}"),
            Err(_) => continue,
        };
        from = loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = over.cancelled() => break Some(at),
            };
            let Some(event) = event else { break Some(at) };
            match event.kind.as_str() {
                // Too old, and nothing else.
                "ERROR" => {
                    assert_eq!(event.object["code"], 410, "{event:?}");
                    break None;
                }
                "BOOKMARK" => assert!(event.revision() >= at, "{event:?} after {at}"),
                kind => {
                    if let Some(number) = number(&event.object) {
                        let mut ledger = copy.ledger.borrow_mut();
                        ledger.told(kind, name(&event.object), number, event.revision());
                    }
                }
            }
            at = event.revision();
        };
    }
}

/// `None` where nobody answers.
async fn list(copy: &Copy, cluster: &Cluster) -> Option<u64> {
    let list = match cluster.client.call::<Value>(Method::GET, copy.path, None).await {
        Ok(list) => list,
        Err(ClientError::Api(status)) => panic!("{status}"),
        Err(_) => return None,
    };
    let mut ledger = copy.ledger.borrow_mut();
    ledger.list();
    for item in list["items"].as_array().unwrap() {
        if let Some(number) = number(item) {
            ledger.listed(name(item), number, revision(item));
        }
    }
    ledger.end_of_list(revision(&list));
    Some(revision(&list))
}

/// Our own copies, those that the scheduler and the controllers decide on.
async fn own<K>(copy: Rc<Copy>, cluster: &Cluster, over: &CancellationToken)
where
    K: Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static,
{
    let (informer, keep) = Informer::<K>::new(
        cluster.client.clone(),
        Some(NAMESPACE.to_owned()),
        ListOptions::default(),
        over.clone(),
    );
    let mut changes = informer.subscribe();
    let follow = async {
        informer.synced().await;
        copy.ledger.borrow_mut().lists = informer.lists();
        loop {
            let change = tokio::select! {
                change = changes.recv() => change.expect("no change is left out"),
                () = over.cancelled() => return,
            };
            let seen = |object: &K| {
                let metadata = object.metadata();
                let number = metadata.annotations.as_ref()?.get(NUMBER)?.parse().ok()?;
                Some((number, metadata.resource_version.as_ref()?.parse().ok()?))
            };
            let [old, new] =
                [change.old, change.new].map(|object| object.as_deref().and_then(seen));
            if old.is_some() || new.is_some() {
                let mut ledger = copy.ledger.borrow_mut();
                ledger.copied(&change.key.name, old, new, informer.lists());
            }
        }
    };
    tokio::join!(keep, follow);
}

/// Waits until a copy is equal to this.
async fn becomes(copy: &Copy, objects: &Objects) {
    let who = copy.ledger.borrow().who.clone();
    eventually(format!("{who} is equal to the list"), SOON, async || {
        let ledger = copy.ledger.borrow();
        let differ: Vec<_> = objects
            .keys()
            .chain(ledger.objects.keys())
            .filter(|name| objects.get(*name) != ledger.objects.get(*name))
            .map(|name| (name, ledger.objects.get(name), objects.get(name)))
            .collect();
        if differ.is_empty() { Ok(()) } else { Err(format!("it has and there is: {differ:?}")) }
    })
    .await;
}

#[test]
fn copies_are_equal_to_the_list_after_any_replica_was_killed() {
    // CTL-1, WCH-4, FEN-37, INV-5, INV-6
    let time = Duration::from_secs(setting("TRIREME_COPIES_SECONDS", 20));
    let whole = WHOLE + INSTALL + time;
    with_cluster_in(&std::env::temp_dir(), 0, None, whole, async |cluster| {
        churn::namespace(cluster).await;
        let [kills_over, writes_over, copies_over] = [(); 3].map(|()| CancellationToken::new());
        let balancer = Balancer::start(cluster).await;
        let kubeconfig = balancer.kubeconfig(cluster);
        let python = Python::with(cluster).await;
        let python = python.inspect_err(|why| eprintln!("without Python's copies: {why}")).ok();
        let new = |who: &str, path| Rc::new(Copy::new(who, path));
        let mut copies = vec![
            new("by hand", MAPS),
            new("by hand, Pods", PODS),
            new("own", MAPS),
            new("own, Pods", PODS),
        ];
        let over = &copies_over;
        let mut follow: Vec<LocalBoxFuture<'_, ()>> = vec![
            Box::pin(by_hand(Rc::clone(&copies[0]), cluster, "", over)),
            Box::pin(by_hand(Rc::clone(&copies[1]), cluster, "&allowWatchBookmarks=true", over)),
            Box::pin(own::<ConfigMap>(Rc::clone(&copies[2]), cluster, over)),
            Box::pin(own::<Pod>(Rc::clone(&copies[3]), cluster, over)),
        ];
        #[cfg(feature = "kube-client")]
        for (copy, following) in super::kube_rs::copies(&kubeconfig, over).await {
            copies.push(copy);
            follow.push(following);
        }
        if let Some(python) = &python {
            for path in [MAPS, PODS] {
                let copy = new(&format!("Python's of {path}"), path);
                follow.push(Box::pin(python.follow(Rc::clone(&copy), &kubeconfig, over)));
                copies.push(copy);
            }
        }
        let change = async {
            eventually("all have listed", INSTALL, async || {
                let waits = copies.iter().map(|copy| copy.ledger.borrow());
                let waits: Vec<String> =
                    waits.filter(|one| one.lists == 0).map(|one| one.who.clone()).collect();
                if waits.is_empty() { Ok(()) } else { Err(format!("{waits:?}")) }
            })
            .await;
            let writer = |path, names: &[&str]| Writer::new(cluster, path, names).run(&writes_over);
            let kills = async {
                let killed = churn::kill_in_turn(cluster, &kills_over).await;
                writes_over.cancel();
                killed
            };
            let timer = async {
                sleep(time).await;
                kills_over.cancel();
            };
            let (one, two, pods, killed, ()) = tokio::join!(
                writer(MAPS, &["a", "b", "c", "d", "e", "f", "g"]),
                writer(MAPS, &["s", "t", "u"]),
                writer(PODS, &["v", "w", "x", "y", "z"]),
                kills,
                timer,
            );
            let writes = one.writes + two.writes + pods.writes;
            let unknown = one.unknown + two.unknown + pods.unknown;
            eprintln!("{writes} writes, {unknown} looked up, {killed} replicas killed");
            assert!(killed >= 3 && writes > 30, "{writes} writes, {killed} replicas killed");
            for path in [MAPS, PODS] {
                let objects = churn::everything(&cluster.client, path).await;
                let of_path = copies.iter().filter(|copy| copy.path == path);
                join_all(of_path.map(|copy| becomes(copy, &objects))).await;
            }
            copies_over.cancel();
        };
        tokio::join!(change, join_all(follow));
        for copy in &copies {
            let Ledger { who, events, lists, .. } = &*copy.ledger.borrow();
            eprintln!("{who}: {events} events, {lists} lists");
            assert!(*events > 0, "{who} was told nothing");
        }
    });
}
