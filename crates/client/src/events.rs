//! Events as upstream's recorder writes them (EVT-1): counted instead of repeated, combined when they
//! only differ in their text, thinned out when there are too many. None is ever waited for.

use crate::{Client, ClientError, Patch, WriteOptions};
use api::{
    core::Event,
    k8s_openapi::{Metadata, Resource, apimachinery::pkg::apis::meta::v1::ObjectMeta},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// Waiting to be written; more are dropped.
const QUEUE: usize = 4096;
/// Being written at once.
const WRITES_MAX: usize = 64;
/// Events of one source about one object: so many at once, then one each interval.
const BURST: u32 = 25;
const INTERVAL: Duration = Duration::from_secs(300);
/// More texts than this for one reason within the window are told as one.
const SIMILAR_MAX: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// What is remembered of each sort; when there is more, what has not been seen in the window goes.
const REMEMBERED_MAX: usize = 4096;

/// What happened to whom.
#[derive(Debug, Clone, PartialEq)]
struct Said {
    involved: Value,
    kind: &'static str,
    reason: String,
    message: String,
}

/// Tells what happened. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Said>,
}

impl Recorder {
    /// For a component, such as `default-scheduler`, and the future that writes what it is told until
    /// `shutdown`: the owner spawns it.
    pub fn new(
        client: Client,
        component: &'static str,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, said) = mpsc::channel(QUEUE);
        let write = async move {
            tokio::select! {
                () = write(&client, component, said) => {}
                () = shutdown.cancelled() => {}
            }
        };
        (Self { sender }, write)
    }

    /// Something usual.
    pub fn normal<K>(&self, about: &K, reason: &str, message: &str)
    where
        K: Resource + Metadata<Ty = ObjectMeta>,
    {
        self.say(about, "Normal", reason, message);
    }

    /// Something that somebody should look at.
    pub fn warning<K>(&self, about: &K, reason: &str, message: &str)
    where
        K: Resource + Metadata<Ty = ObjectMeta>,
    {
        self.say(about, "Warning", reason, message);
    }

    fn say<K>(&self, about: &K, kind: &'static str, reason: &str, message: &str)
    where
        K: Resource + Metadata<Ty = ObjectMeta>,
    {
        let metadata = about.metadata();
        let mut involved = json!({
            "apiVersion": K::API_VERSION, "kind": K::KIND, "name": metadata.name,
            "namespace": metadata.namespace, "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
        });
        api::meta::drop_nulls(&mut involved);
        let (reason, message) = (reason.to_owned(), shortened(message));
        // Best effort: nothing waits for an event.
        let _ = self.sender.try_send(Said { involved, kind, reason, message });
    }
}

/// At most 1024 bytes.
fn shortened(message: &str) -> String {
    const BYTES_MAX: usize = 1024;
    if message.len() <= BYTES_MAX {
        return message.to_owned();
    }
    let end = (0..=BYTES_MAX - 4).rev().find(|end| message.is_char_boundary(*end));
    format!("{} ...", message.get(..end.unwrap_or_default()).unwrap_or_default())
}

/// An Event object to write.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    message: String,
    /// More than one: the object is there already.
    count: u64,
}

#[derive(Debug)]
struct Remembered<T> {
    at: Instant,
    what: T,
}

/// Decides what becomes of each event.
#[derive(Debug, Default)]
struct Correlator {
    /// Texts by everything else that is equal.
    similar: BTreeMap<String, Remembered<BTreeSet<String>>>,
    /// Objects by everything.
    entries: BTreeMap<String, Remembered<Entry>>,
    /// When the bucket of each object is full again.
    buckets: BTreeMap<String, Remembered<Instant>>,
    made: u64,
    seed: RandomState,
}

fn forget<T>(all: &mut BTreeMap<String, Remembered<T>>, now: Instant) {
    if all.len() > REMEMBERED_MAX {
        all.retain(|_, one| now < one.at + SIMILAR_WINDOW);
    }
    if all.len() > REMEMBERED_MAX {
        all.clear();
    }
}

impl Correlator {
    /// `None` when there are too many.
    fn take(&mut self, said: &Said, now: Instant) -> Option<Entry> {
        forget(&mut self.similar, now);
        forget(&mut self.entries, now);
        forget(&mut self.buckets, now);
        let about = ["namespace", "kind", "name", "uid"]
            .map(|field| said.involved.get(field).and_then(Value::as_str).unwrap_or_default());
        let about = about.join("/");
        let reason = format!("{about}/{}/{}", said.kind, said.reason);
        let texts = self
            .similar
            .entry(reason.clone())
            .or_insert_with(|| Remembered { at: now, what: BTreeSet::new() });
        if now >= texts.at + SIMILAR_WINDOW {
            texts.what.clear();
        }
        texts.at = now;
        texts.what.insert(said.message.clone());
        let combined = texts.what.len() > SIMILAR_MAX;
        let (key, message) = if combined {
            texts.what.pop_last();
            texts.what.insert(said.message.clone());
            (reason, format!("(combined from similar events): {}", said.message))
        } else {
            (format!("{reason}/{}", said.message), said.message.clone())
        };
        let bucket = self.buckets.entry(about).or_insert_with(|| Remembered { at: now, what: now });
        let full = bucket.what.max(now) + INTERVAL;
        if full > now + INTERVAL * BURST {
            return None;
        }
        *bucket = Remembered { at: now, what: full };
        let name = said.involved.get("name").and_then(Value::as_str).unwrap_or_default();
        self.made += 1;
        let fresh = format!("{name}.{:016x}", self.seed.hash_one(self.made));
        let entry = self.entries.entry(key).or_insert_with(|| Remembered {
            at: now,
            what: Entry { name: fresh, message: String::new(), count: 0 },
        });
        entry.at = now;
        entry.what.count += 1;
        entry.what.message = message;
        Some(entry.what.clone())
    }
}

async fn write(client: &Client, component: &'static str, mut said: mpsc::Receiver<Said>) {
    let mut correlator = Correlator::default();
    let mut writes = JoinSet::new();
    while let Some(said) = said.recv().await {
        let Some(entry) = correlator.take(&said, Instant::now()) else { continue };
        while writes.len() >= WRITES_MAX {
            writes.join_next().await;
        }
        while writes.try_join_next().is_some() {}
        let client = client.clone();
        writes.spawn(async move {
            if let Err(error) = put(&client, component, &said, &entry).await {
                tracing::debug!(%error, reason = said.reason, "event dropped");
            }
        });
    }
}

async fn put(
    client: &Client,
    component: &'static str,
    said: &Said,
    entry: &Entry,
) -> Result<(), ClientError> {
    let options = WriteOptions::default();
    // What has no namespace is told of in the first one.
    let namespace = said.involved.get("namespace").and_then(Value::as_str).unwrap_or("default");
    if entry.count > 1 {
        // Without a time: the API fills in when it was last seen.
        let patch = Patch::Merge(json!({
            "count": entry.count, "message": entry.message, "lastTimestamp": null,
        }));
        match client.patch::<Event>(Some(namespace), &entry.name, &patch, &options).await {
            Err(ClientError::Api(status)) if status.is_not_found() => {}
            result => return result.map(drop),
        }
    }
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": entry.name, "namespace": namespace},
        "involvedObject": said.involved, "type": said.kind, "reason": said.reason,
        "message": entry.message, "count": entry.count, "source": {"component": component},
        "reportingComponent": component, "reportingInstance": "",
    });
    match serde_json::from_value::<Event>(event) {
        Ok(event) => client.create(&event, &options).await.map(drop),
        Err(error) => {
            Err(ClientError::Decode { endpoint: "an event".to_owned(), error: error.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, message: &str) -> Said {
        Said {
            involved: json!({"kind": "Pod", "name": name, "namespace": "default"}),
            kind: "Warning",
            reason: "BackOff".to_owned(),
            message: message.to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_again_is_counted() {
        // EVT-1
        let mut correlator = Correlator::default();
        let now = Instant::now();
        let first = correlator.take(&said("p", "a"), now).unwrap();
        let again = correlator.take(&said("p", "a"), now).unwrap();
        assert_eq!((first.count, again.count), (1, 2));
        assert_eq!(first.name, again.name);
        let other = correlator.take(&said("p", "b"), now).unwrap();
        assert_eq!(other.count, 1);
        assert_ne!(other.name, first.name);
        assert_ne!(correlator.take(&said("q", "a"), now).unwrap().name, first.name);
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_differs_in_its_text_is_combined_after_ten() {
        // EVT-1
        let mut correlator = Correlator::default();
        let now = Instant::now();
        for i in 0..10 {
            let entry = correlator.take(&said("p", &i.to_string()), now).unwrap();
            assert_eq!((entry.count, entry.message), (1, i.to_string()));
        }
        for (i, count) in [(10, 1), (11, 2), (12, 3)] {
            let entry = correlator.take(&said("p", &i.to_string()), now).unwrap();
            let message = format!("(combined from similar events): {i}");
            assert_eq!((entry.count, entry.message), (count, message));
        }
        let later = now + SIMILAR_WINDOW;
        assert_eq!(correlator.take(&said("p", "13"), later).unwrap().message, "13");
    }

    #[tokio::test(start_paused = true)]
    async fn one_object_does_not_drown_the_others() {
        // EVT-1: 25 at once, then one each five minutes.
        let mut correlator = Correlator::default();
        let now = Instant::now();
        let mut taken = |name: &str, now| {
            (0..100).filter(|_| correlator.take(&said(name, "a"), now).is_some()).count()
        };
        assert_eq!(taken("p", now), 25);
        assert_eq!(taken("q", now), 25);
        assert_eq!(taken("p", now + INTERVAL), 1);
        assert_eq!(taken("p", now + INTERVAL * 4), 3);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let cut = shortened(&"ä".repeat(600));
        assert!(cut.len() <= 1024 && cut.ends_with("ä ..."), "{}", cut.len());
        assert_eq!(shortened("short"), "short");
    }
}
