//! Watches that go on at another replica, against a writer that knows everything that there was to see.

use super::{
    Dice, setting,
    stream::{Event, METADATA, NUMBER, Stream, name, number, revision},
};
use crate::cluster::{Cluster, SOON, eventually, with_cluster};
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use server::config::{ReplicaConfig, read};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::{sync::watch, time::timeout};

const NAMESPACE: &str = "resumed";
const MAPS: &str = "/api/v1/namespaces/resumed/configmaps";
const NAMES: &[&str] = &["m0", "m1", "m2", "m3", "m4", "m5"];
const COLORS: &[&str] = &["red", "green", "blue"];

/// What is to be seen of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    name: &'static str,
    /// Of the write.
    number: u64,
    color: &'static str,
}

/// What one write did. The version of a deletion is not told to who deletes.
#[derive(Debug, Clone)]
struct Write {
    revision: Option<u64>,
    before: Option<Shown>,
    after: Option<Shown>,
}

async fn namespace(cluster: &Cluster) {
    let object = json!({"metadata": {"name": NAMESPACE}}).to_string().into_bytes();
    let made = cluster.client.call::<Value>(Method::POST, "/api/v1/namespaces", Some(object)).await;
    made.unwrap();
}

fn map(shown: &Shown) -> Vec<u8> {
    let Shown { name, number, color } = shown;
    let object = json!({
        "metadata": {
            "name": name, "labels": {"color": color}, "annotations": {NUMBER: number.to_string()},
        },
        "data": {"number": number.to_string()},
    });
    object.to_string().into_bytes()
}

/// Writes one after another.
#[derive(Default)]
struct Writer {
    objects: BTreeMap<&'static str, Shown>,
    writes: Vec<Write>,
}

impl Writer {
    async fn write(&mut self, cluster: &Cluster, dice: &mut Dice) {
        let number = self.writes.len() as u64 + 1;
        let name = *dice.of(NAMES);
        let before = self.objects.get(name).cloned();
        if before.is_some() && dice.below(6) == 0 {
            let path = format!("{MAPS}/{name}");
            cluster.client.call::<Value>(Method::DELETE, &path, None).await.unwrap();
            self.objects.remove(name);
            self.writes.push(Write { revision: None, before, after: None });
        } else {
            let color = *dice.of(COLORS);
            self.put(cluster, Shown { name, number, color }).await;
        }
    }

    async fn put(&mut self, cluster: &Cluster, after: Shown) {
        let before = self.objects.insert(after.name, after.clone());
        let (method, path) = match &before {
            Some(_) => (Method::PUT, format!("{MAPS}/{}", after.name)),
            None => (Method::POST, MAPS.to_owned()),
        };
        let stored: Value = cluster.client.call(method, &path, Some(map(&after))).await.unwrap();
        let revision = Some(revision(&stored));
        self.writes.push(Write { revision, before, after: Some(after) });
    }
}

/// What a watch asks for.
struct Selection {
    name: &'static str,
    path: &'static str,
    query: &'static str,
    accept: &'static str,
    /// Whether it is shown of an object.
    shows: fn(&Shown) -> bool,
}

const JSON: &str = "application/json";
const SELECTIONS: &[Selection] = &[
    Selection { name: "everything", path: MAPS, query: "", accept: JSON, shows: |_| true },
    Selection {
        name: "of all namespaces",
        path: "/api/v1/configmaps",
        query: "",
        accept: JSON,
        shows: |_| true,
    },
    Selection {
        name: "a label",
        path: MAPS,
        query: "&labelSelector=color%3Dred",
        accept: JSON,
        shows: |shown| shown.color == "red",
    },
    Selection {
        name: "not a label, with bookmarks",
        path: MAPS,
        query: "&labelSelector=color%21%3Dred&allowWatchBookmarks=true",
        accept: JSON,
        shows: |shown| shown.color != "red",
    },
    Selection {
        name: "a name",
        path: MAPS,
        query: "&fieldSelector=metadata.name%3Dm3",
        accept: JSON,
        shows: |shown| shown.name == "m3",
    },
    Selection {
        name: "metadata alone, a name and labels",
        path: MAPS,
        query: "&fieldSelector=metadata.name%21%3Dm1&labelSelector=color+in+%28red%2Cblue%29",
        accept: METADATA,
        shows: |shown| shown.name != "m1" && shown.color != "green",
    },
];

/// An event, by its type, the number of the write whose content it has, and the version that it is of.
type Seen = (String, u64, Option<u64>);

impl Selection {
    /// What is to be seen of these writes: all of it, in this order, once.
    fn expected(&self, writes: &[Write]) -> Vec<Seen> {
        let events = writes.iter().filter_map(|Write { revision, before, after }| {
            let was = before.as_ref().filter(|shown| (self.shows)(shown));
            let is = after.as_ref().filter(|shown| (self.shows)(shown));
            let (kind, number) = match (was, is) {
                (None, Some(is)) => ("ADDED", is.number),
                (Some(_), Some(is)) => ("MODIFIED", is.number),
                (Some(was), None) => ("DELETED", was.number),
                (None, None) => return None,
            };
            Some((kind.to_owned(), number, *revision))
        });
        events.collect()
    }
}

/// What one watch saw, over all of its streams.
struct Watched {
    /// Up to where it has seen everything.
    revision: u64,
    seen: Vec<Seen>,
    bookmarks: u64,
}

impl Watched {
    fn take(&mut self, event: &Event, name: &str) {
        let revision = event.revision();
        if event.kind == "BOOKMARK" {
            assert!(revision >= self.revision, "{name}: a bookmark goes back: {event:?}");
            self.bookmarks += 1;
        } else {
            assert_ne!(event.kind, "ERROR", "{name}: {event:?}");
            assert!(revision > self.revision, "{name}: {} again: {event:?}", self.revision);
            if let Some(number) = number(&event.object) {
                self.seen.push((event.kind.clone(), number, Some(revision)));
            }
        }
        self.revision = revision;
    }

    /// Whether it is what there was to see; where the version was not told, any does that is in order.
    fn check(&self, expected: &[Seen], name: &str) {
        let at = self.seen.iter().zip(expected).position(|(seen, want)| {
            (&seen.0, seen.1) != (&want.0, want.1) || want.2.is_some_and(|v| seen.2 != Some(v))
        });
        if let Some(at) = at {
            let near =
                |all: &[Seen]| format!("{:?}", all.iter().skip(at).take(3).collect::<Vec<_>>());
            panic!("{name}: event {at} is {}, not {}", near(&self.seen), near(expected));
        }
        assert_eq!(self.seen.len(), expected.len(), "{name}");
    }
}

/// Follows one selection in pieces of a few events, each at another replica.
async fn follow(
    cluster: &Cluster,
    selection: &Selection,
    from: u64,
    pieces: &AtomicU64,
    written: &watch::Receiver<Option<Vec<Write>>>,
) -> Watched {
    let mut dice = Dice::new();
    let mut watched = Watched { revision: from, seen: Vec::new(), bookmarks: 0 };
    let clients = [1, 2, 3].map(|id| cluster.only(id));
    let mut at = dice.below(3);
    loop {
        at = (at + 1 + dice.below(2)) % 3;
        let Selection { name, path, query, accept, .. } = selection;
        let path =
            format!("{path}?watch=1&timeoutSeconds=3&resourceVersion={}{query}", watched.revision);
        let client = &clients[usize::try_from(at).unwrap()];
        let mut stream = Stream::accepting(client, &path, accept).await.unwrap();
        // None, too: whoever comes back at once must not be told anything twice.
        let before = watched.seen.len();
        let mut is_silent = false;
        for _ in 0..dice.below(7) {
            match timeout(SOON, stream.next()).await.expect("an event, or the end") {
                Some(event) => watched.take(&event, name),
                None => {
                    is_silent = watched.seen.len() == before;
                    break;
                }
            }
        }
        drop(stream);
        pieces.fetch_add(1, Ordering::Relaxed);
        if let Some(writes) = written.borrow().as_deref()
            && (is_silent || watched.seen.len() >= selection.expected(writes).len())
        {
            break;
        }
    }
    // Nothing comes behind the last.
    let path = format!(
        "{}?watch=1&timeoutSeconds=1&resourceVersion={}{}",
        selection.path, watched.revision, selection.query
    );
    let mut stream = Stream::accepting(&cluster.client, &path, selection.accept).await.unwrap();
    while let Some(event) = timeout(SOON, stream.next()).await.expect("the end") {
        watched.take(&event, selection.name);
    }
    watched
}

#[test]
fn a_watch_that_goes_on_at_another_replica_has_no_gap_and_nothing_twice() {
    // WCH-3, WCH-4, FEN-37, INV-6
    let wanted = setting("TRIREME_RESUMPTIONS", 1000);
    with_cluster(0, async |cluster| {
        namespace(cluster).await;
        let list: Value = cluster.client.call(Method::GET, MAPS, None).await.unwrap();
        let from = revision(&list);
        let pieces = AtomicU64::new(0);
        let (done, written) = watch::channel(None);
        let mut dice = Dice::new();
        let write = async {
            let mut writer = Writer::default();
            while pieces.load(Ordering::Relaxed) < wanted || writer.writes.len() < 200 {
                writer.write(cluster, &mut dice).await;
            }
            let writes = writer.writes;
            done.send_replace(Some(writes.clone()));
            writes
        };
        let follows = SELECTIONS
            .iter()
            .chain(SELECTIONS)
            .map(|selection| follow(cluster, selection, from, &pieces, &written));
        let (writes, all) = tokio::join!(write, join_all(follows));
        for (selection, watched) in SELECTIONS.iter().chain(SELECTIONS).zip(&all) {
            watched.check(&selection.expected(&writes), selection.name);
        }
        let seen: usize = all.iter().map(|watched| watched.seen.len()).sum();
        let pieces = pieces.load(Ordering::Relaxed);
        eprintln!("{} writes, {seen} events in {pieces} pieces", writes.len());
        assert!(pieces >= wanted && seen > 0, "{seen} events in {pieces} pieces");
    });
}

/// Lets every replica keep the last few versions only.
async fn forget_soon(cluster: &Cluster) {
    for id in 1..=3 {
        let dir = cluster.dir().join(format!("replica-{id}"));
        cluster.processes().await.kill_replica(id).await.unwrap();
        let path = dir.join("config.toml");
        let mut config: ReplicaConfig = read(&path).unwrap();
        config.history.retention = Duration::from_secs(10);
        config.history.revisions = 150;
        std::fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
        cluster.start_replica(id).await;
    }
}

/// Reads what a watch is told that begins there, to its end, which is soon.
async fn told(cluster: &Cluster, id: u64, from: u64, query: &str) -> Result<Vec<Event>, String> {
    let path = format!("{MAPS}?watch=1&timeoutSeconds=3&resourceVersion={from}{query}");
    let opened = Stream::open(&cluster.only(id), &path).await;
    let mut stream = opened.map_err(|error| format!("no HTTP error is wanted: {error}"))?;
    let mut events = Vec::new();
    while let Some(event) = timeout(SOON, stream.next()).await.map_err(|_| "no end")? {
        events.push(event);
    }
    Ok(events)
}

#[test]
fn a_watch_from_before_what_is_kept_is_told_so_and_a_bookmark_spares_that() {
    // WCH-2, WCH-5, WCH-9, LST-3
    with_cluster(0, async |cluster| {
        forget_soon(cluster).await;
        namespace(cluster).await;
        let mut writer = Writer::default();
        let mut dice = Dice::new();
        for _ in 0..10 {
            writer.write(cluster, &mut dice).await;
        }
        let get = async |path: &str| cluster.client.call::<Value>(Method::GET, path, None).await;
        let page = get(&format!("{MAPS}?limit=1")).await.unwrap();
        let from = revision(&page);
        let token = page["metadata"]["continue"].as_str().unwrap();

        // One that is shown nothing, open all the time; and one that comes back now and then.
        let never = "&labelSelector=color%3Dnever";
        let path = format!("{MAPS}?watch=1&resourceVersion={from}{never}");
        let mut open = Stream::open(&cluster.only(1), &path).await.unwrap();
        let mut marked = from;
        let mut bookmarks = 0;
        for round in 0..4 {
            for _ in 0..60 {
                writer.write(cluster, &mut dice).await;
            }
            let bookmarked = format!("{never}&allowWatchBookmarks=true");
            for event in told(cluster, 1 + round % 3, marked, &bookmarked).await.unwrap() {
                assert_eq!(event.kind, "BOOKMARK", "round {round}: {event:?}");
                assert!(event.revision() >= marked);
                marked = event.revision();
                bookmarks += 1;
            }
        }
        assert!(bookmarks >= 4, "{bookmarks}");

        for id in 1..=3 {
            let what = format!("replica {id} has forgotten revision {from}");
            let events = eventually(&what, SOON, async || {
                let events = told(cluster, id, from, never).await?;
                if events.is_empty() { Err("it goes on".to_owned()) } else { Ok(events) }
            })
            .await;
            let [error] = events.as_slice() else { panic!("{events:?}") };
            assert_eq!(error.kind, "ERROR");
            let status = &error.object;
            assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(410)));
            assert_eq!(status["reason"], "Expired");
            let text = status["message"].as_str().unwrap();
            assert!(text.starts_with(&format!("too old resource version: {from} (")), "{text}");
        }
        let gone = get(&format!("{MAPS}?limit=1&continue={token}")).await.unwrap_err();
        let client::ClientError::Api(gone) = gone else { panic!("{gone}") };
        assert_eq!((gone.code, gone.reason.as_str()), (410, "Expired"));

        // As clients do then: list, and go on from there.
        let list = get(MAPS).await.unwrap();
        let listed: BTreeMap<&str, u64> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|i| Some((name(i), number(i)?)))
            .collect();
        let known: BTreeMap<&str, u64> =
            writer.objects.values().map(|shown| (shown.name, shown.number)).collect();
        assert_eq!(listed, known);
        let before = writer.writes.len();
        let mut watched = Watched { revision: revision(&list), seen: Vec::new(), bookmarks: 0 };
        let path = format!("{MAPS}?watch=1&resourceVersion={}", watched.revision);
        let mut stream = Stream::open(&cluster.only(2), &path).await.unwrap();
        for _ in 0..20 {
            writer.write(cluster, &mut dice).await;
        }
        for _ in 0..20 {
            let event = timeout(SOON, stream.next()).await.unwrap();
            watched.take(&event.expect("it goes on"), "after the list");
        }
        watched.check(&SELECTIONS[0].expected(&writer.writes[before..]), "after the list");

        // What was forgotten meanwhile does not end a watch that is open.
        let shown = Shown { name: "m0", number: 1_000_000, color: "never" };
        writer.put(cluster, shown).await;
        let event = timeout(SOON, open.next()).await.expect("an event").expect("it goes on");
        assert_eq!((event.kind.as_str(), number(&event.object)), ("ADDED", Some(1_000_000)));
    });
}
