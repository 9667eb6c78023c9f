//! Objects that change all the time while replicas are killed and started, and who writes them.

use super::{
    Dice,
    stream::{NUMBER, name, number, revision},
};
use crate::cluster::{Cluster, SOON};
use client::{Client, ClientError};
use http::Method;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub(super) const NAMESPACE: &str = "churned";
pub(super) const MAPS: &str = "/api/v1/namespaces/churned/configmaps";
pub(super) const PODS: &str = "/api/v1/namespaces/churned/pods";

/// For a cluster that has just lost a replica to take a write.
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes what is below one path, one write after another.
pub(super) struct Writer {
    client: Client,
    path: &'static str,
    names: Vec<String>,
    /// As last read or written.
    objects: BTreeMap<String, Value>,
    /// The last one that each name had.
    numbers: BTreeMap<String, u64>,
    dice: Dice,
    pub(super) writes: u64,
    /// Writes whose outcome had to be looked up.
    pub(super) unknown: u64,
}

impl Writer {
    pub(super) fn new(cluster: &Cluster, path: &'static str, names: &[&str]) -> Self {
        Self {
            client: cluster.client.clone(),
            path,
            names: names.iter().map(|&name| name.to_owned()).collect(),
            objects: BTreeMap::new(),
            numbers: BTreeMap::new(),
            dice: Dice::new(),
            writes: 0,
            unknown: 0,
        }
    }

    pub(super) async fn run(mut self, over: &CancellationToken) -> Self {
        while !over.is_cancelled() {
            self.write().await;
        }
        self
    }

    async fn write(&mut self) {
        let name = self.dice.of(&self.names).clone();
        let last = self.numbers.get(&name).copied().unwrap_or_default();
        let deletes = self.objects.contains_key(&name) && self.dice.below(8) == 0;
        let want = if deletes { None } else { Some(last + 1) };
        let until = Instant::now() + PATIENCE;
        loop {
            let refused = match self.attempt(&name, want).await {
                Ok(()) => break,
                Err(error) => error,
            };
            // Carried out or not, or not on this version: what is there says it. A try that comes late is for a
            // version that is no longer there.
            self.unknown += 1;
            let path = format!("{}/{name}", self.path);
            match self.client.call::<Value>(Method::GET, &path, None).await {
                Ok(found) => drop(self.objects.insert(name.clone(), found)),
                Err(ClientError::Api(status)) if status.is_not_found() => {
                    self.objects.remove(&name);
                }
                Err(error) => {
                    assert!(Instant::now() < until, "{name} {want:?}: {error}");
                    continue;
                }
            }
            if self.objects.get(&name).map(|found| number(found).unwrap()) == want {
                break;
            }
            assert!(Instant::now() < until, "{name} {want:?}: {refused}");
        }
        if let Some(want) = want {
            self.numbers.insert(name, want);
        }
        self.writes += 1;
    }

    async fn attempt(&mut self, name: &str, want: Option<u64>) -> Result<(), ClientError> {
        let path = format!("{}/{name}", self.path);
        let current = self.objects.get(name);
        let stored = match (current, want) {
            (Some(current), None) => {
                let options = json!({"preconditions": {"uid": current["metadata"]["uid"]}});
                let body = Some(options.to_string().into_bytes());
                self.client.call::<Value>(Method::DELETE, &path, body).await?;
                self.objects.remove(name);
                return Ok(());
            }
            (None, None) => return Ok(()),
            (Some(current), Some(want)) => {
                let mut object = current.clone();
                object["metadata"]["annotations"][NUMBER] = want.to_string().into();
                let body = Some(object.to_string().into_bytes());
                self.client.call::<Value>(Method::PUT, &path, body).await?
            }
            (None, Some(want)) => {
                let object = if self.path == PODS { pod(name, want) } else { map(name, want) };
                let body = Some(object.to_string().into_bytes());
                self.client.call::<Value>(Method::POST, self.path, body).await?
            }
        };
        self.objects.insert(name.to_owned(), stored);
        Ok(())
    }
}

fn map(name: &str, number: u64) -> Value {
    json!({
        "metadata": {"name": name, "annotations": {NUMBER: number.to_string()}},
        "data": {"text": "x".repeat(200)},
    })
}

/// It runs nowhere.
fn pod(name: &str, number: u64) -> Value {
    json!({
        "metadata": {"name": name, "annotations": {NUMBER: number.to_string()}},
        "spec": {
            "nodeSelector": {"nowhere": "at-all"},
            "containers": [{"name": "main", "image": "toolbox"}],
        },
    })
}

pub(super) async fn namespace(cluster: &Cluster) {
    let object = json!({"metadata": {"name": NAMESPACE}}).to_string().into_bytes();
    let made = cluster.client.call::<Value>(Method::POST, "/api/v1/namespaces", Some(object)).await;
    made.unwrap();
}

/// What there is below a path, by name; nothing that is not a test's.
pub(super) async fn everything(client: &Client, path: &str) -> super::ledger::Objects {
    let list: Value = client.call(Method::GET, path, None).await.unwrap();
    let items = list["items"].as_array().unwrap().iter();
    items.filter_map(|i| Some((name(i).to_owned(), (number(i)?, revision(i))))).collect()
}

/// Kills one replica after another with SIGKILL and starts it again, each at least once; how often.
pub(super) async fn kill_in_turn(cluster: &Cluster, over: &CancellationToken) -> u64 {
    let mut dice = Dice::new();
    let mut killed = 0;
    while killed < 3 || !over.is_cancelled() {
        sleep(Duration::from_millis(400 + dice.below(500))).await;
        let id = killed % 3 + 1;
        cluster.processes().await.kill_replica(id).await.unwrap();
        killed += 1;
        sleep(Duration::from_millis(200 + dice.below(500))).await;
        cluster.start_replica(id).await;
    }
    // All are there for what is compared at the end.
    cluster.processes().await.wait_replicas(SOON).await.unwrap();
    killed
}
