//! Writers and readers that keep a record, to show what a fault cost and that nothing was lost.

use api::core::ConfigMap;
use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use client::{Client, ClientError, ListOptions, WriteOptions, endpoints::Endpoints};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "default";
const VALUE: &str = "sequence";

/// What the writers and readers saw.
#[derive(Debug, Default)]
struct Record {
    /// Every acknowledged write: when it was answered.
    answered: Vec<Instant>,
    /// Highest acknowledged value, by key.
    acknowledged: BTreeMap<String, u64>,
    /// Highest value sent, by key: a write of unknown outcome may have landed.
    sent: BTreeMap<String, u64>,
    /// Writes whose outcome stayed unknown.
    unknown: u64,
    /// Reads that answered.
    reads: u64,
    /// What must never happen, in words.
    violations: Vec<String>,
}

/// Writers at full speed, each on its own key, and readers that check what is seen.
#[derive(Debug)]
pub struct Workload {
    record: Arc<Mutex<Record>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    prefix: String,
}

/// What a [`Workload`] did, after its end.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Acknowledged writes that are not there any more.
    pub lost: u64,
    /// Writes whose outcome was reported as unknown.
    pub unknown: u64,
    /// Linearizable reads that were answered.
    pub reads: u64,
    /// A value that was seen and then unseen, and the like; empty when all is well.
    pub violations: Vec<String>,
}

impl Workload {
    /// Starts `writers` writers and as many readers, spread over the endpoints.
    ///
    /// # Errors
    /// An endpoint is not a URL.
    pub fn start(endpoints: &Endpoints, writers: usize) -> anyhow::Result<Self> {
        Self::with_pauses(endpoints, writers, Duration::ZERO)
    }

    /// As [`Workload::start`], with a pause after each write and each read.
    ///
    /// # Errors
    /// An endpoint is not a URL.
    pub fn with_pauses(
        endpoints: &Endpoints,
        writers: usize,
        pause: Duration,
    ) -> anyhow::Result<Self> {
        let mut workload = Self {
            record: Arc::default(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            prefix: format!("workload-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]),
        };
        for i in 0..writers {
            let key = format!("{}-{i}", workload.prefix);
            // Writers and readers of one key begin at different replicas.
            let at = |shift: usize| {
                let urls = &endpoints.urls;
                let all = urls.iter().cycle().skip(i + shift).take(urls.len());
                endpoints.at(all.cloned().collect())
            };
            let writer = crate::dev::connect(at(0))?;
            let reader = crate::dev::connect(at(1))?;
            let (record, stop) = (Arc::clone(&workload.record), workload.stop.clone());
            workload.tasks.spawn(write(writer, key.clone(), record, pause, stop));
            let (record, stop) = (Arc::clone(&workload.record), workload.stop.clone());
            workload.tasks.spawn(read(reader, key, record, pause, stop));
        }
        Ok(workload)
    }

    /// Writes acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        lock(&self.record).answered.len()
    }

    /// Returns once `count` more writes are acknowledged than now.
    pub async fn more(&self, count: usize) {
        let target = self.acknowledged() + count;
        while self.acknowledged() < target {
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// The longest time without an acknowledged write that touches the time from `since` on.
    #[must_use]
    pub fn longest_gap(&self, since: Instant) -> Duration {
        let record = lock(&self.record);
        let first = record.answered.partition_point(|t| *t < since).saturating_sub(1);
        record
            .answered
            .get(first..)
            .unwrap_or_default()
            .windows(2)
            .filter_map(|pair| match pair {
                [a, b] => Some(*b - *a),
                _ => None,
            })
            .max()
            .unwrap_or_default()
    }

    /// Ends writers and readers and holds the record against what is stored.
    ///
    /// # Errors
    /// The stored values cannot be read.
    pub async fn finish(mut self, client: &Client) -> anyhow::Result<Verdict> {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        let stored: BTreeMap<String, u64> = client
            .list::<ConfigMap>(Some(NAMESPACE), &ListOptions::default())
            .await?
            .items
            .into_iter()
            .filter_map(|map| Some((map.metadata.name.clone()?, value_of(&map)?)))
            .collect();
        let mut record = std::mem::take(&mut *lock(&self.record));
        let mut lost = 0;
        for (key, acknowledged) in &record.acknowledged {
            let stored = stored.get(key).copied().unwrap_or_default();
            let sent = record.sent.get(key).copied().unwrap_or_default();
            if stored < *acknowledged {
                lost += acknowledged - stored;
                record
                    .violations
                    .push(format!("{key}: {acknowledged} acknowledged, {stored} stored"));
            }
            if stored > sent {
                record.violations.push(format!("{key}: {stored} stored, only {sent} ever sent"));
            }
        }
        Ok(Verdict {
            acknowledged: record.answered.len() as u64,
            lost,
            unknown: record.unknown,
            reads: record.reads,
            violations: record.violations,
        })
    }
}

fn lock(record: &Mutex<Record>) -> std::sync::MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

fn value_of(map: &ConfigMap) -> Option<u64> {
    map.data.as_ref()?.get(VALUE)?.parse().ok()
}

fn config_map(key: &str, value: u64) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(key.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(VALUE.to_owned(), value.to_string())])),
        ..ConfigMap::default()
    }
}

/// Writes 1, 2, 3 … to one key, the next as soon as the last is answered.
async fn write(
    client: Client,
    key: String,
    record: Arc<Mutex<Record>>,
    pause: Duration,
    stop: CancellationToken,
) {
    let options = WriteOptions::default();
    let mut created = false;
    let mut value = 0u64;
    while !stop.is_cancelled() {
        if !pause.is_zero() {
            sleep(pause).await;
        }
        value += 1;
        lock(&record).sent.insert(key.clone(), value);
        let object = config_map(&key, value);
        let answer = if created {
            client.update(&object, &options).await
        } else {
            client.create(&object, &options).await
        };
        match answer {
            Ok(_) => {
                created = true;
                let mut record = lock(&record);
                record.answered.push(Instant::now());
                record.acknowledged.insert(key.clone(), value);
            }
            // A create whose answer was lost has landed if the key is there.
            Err(ClientError::Api(status)) if status.is_already_exists() => created = true,
            Err(ClientError::Unknown { .. }) => lock(&record).unknown += 1,
            Err(ClientError::Api(status)) if status.code == 504 => lock(&record).unknown += 1,
            Err(error) => {
                tracing::debug!(%error, key, "write refused");
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// Reads one key again and again: it must hold at least what was acknowledged before the read began
/// and at least what was read before.
async fn read(
    client: Client,
    key: String,
    record: Arc<Mutex<Record>>,
    pause: Duration,
    stop: CancellationToken,
) {
    let mut seen = 0u64;
    while !stop.is_cancelled() {
        if !pause.is_zero() {
            sleep(pause).await;
        }
        let acknowledged = lock(&record).acknowledged.get(&key).copied().unwrap_or_default();
        match client.get::<ConfigMap>(Some(NAMESPACE), &key).await {
            Ok(map) => {
                let value = value_of(&map).unwrap_or_default();
                let mut record = lock(&record);
                record.reads += 1;
                if value < seen {
                    record.violations.push(format!("{key}: {seen} seen, then {value}"));
                }
                if value < acknowledged {
                    record
                        .violations
                        .push(format!("{key}: {acknowledged} acknowledged, then read as {value}"));
                }
                seen = seen.max(value);
            }
            Err(ClientError::Api(status)) if status.is_not_found() && acknowledged == 0 => {
                sleep(Duration::from_millis(1)).await;
            }
            Err(ClientError::Api(status)) if status.is_not_found() => {
                lock(&record).violations.push(format!("{key}: acknowledged, then not found"));
            }
            Err(error) => {
                tracing::debug!(%error, key, "read refused");
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
}
