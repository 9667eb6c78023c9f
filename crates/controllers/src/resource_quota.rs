//! Keeps what a quota says is used: counted again when it may have become less, and from time to time.
//!
//! The API server counts, in the transaction that writes the status: a count here could miss what is
//! charged meanwhile. This says when.

use crate::{caches::Caches, queue::Queue};
use api::{
    core::{Pod, ResourceQuota, Service},
    pod::has_ended,
};
use client::{
    Client, ClientError, Patch, WriteOptions,
    informer::{Change, Key},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, interval};

const WORKERS: usize = 2;
/// Between two counts of one namespace, at least: Pods go by the thousand.
const REST: Duration = Duration::from_secs(1);
/// Between two counts of what nobody here follows, and of everything.
const PERIOD: Duration = Duration::from_secs(10);
const RESYNC: Duration = Duration::from_secs(300);
/// What is limited of objects that are followed: all amounts of Pods, and these.
const FOLLOWED: &[&str] = &["pods", "services", "count/pods", "count/services"];
/// Objects that are not.
const OTHERS: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
];

/// Nothing has been counted yet of what is limited now.
fn is_uncounted(quota: &ResourceQuota) -> bool {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    let counted = quota.status.as_ref().and_then(|status| status.hard.as_ref());
    hard != counted
}

/// Whether it limits something that may become less without anybody here noticing.
fn is_blind(quota: &ResourceQuota) -> bool {
    let hard = quota.spec.iter().flat_map(|spec| spec.hard.iter().flatten());
    let names: Vec<&str> = hard.map(|(name, _)| name.as_str()).collect();
    let followed = |name: &str| FOLLOWED.contains(&name);
    let other = |name: &str| name.starts_with("count/") || OTHERS.contains(&name);
    names.into_iter().any(|name| other(name) && !followed(name))
}

/// Whether there is less of it to count now.
fn pod_takes_less(change: &Change<Pod>) -> bool {
    let takes = |pod: &Pod| !has_ended(pod);
    change.old.as_deref().is_none_or(takes) && !change.new.as_deref().is_some_and(takes)
}

fn service_takes_less(change: &Change<Service>) -> bool {
    let spec = |service: Option<&Service>| service.and_then(|service| service.spec.clone());
    change.old.is_some() && spec(change.old.as_deref()) != spec(change.new.as_deref())
}

struct Controller {
    client: Client,
    caches: Caches,
    queue: Queue,
    /// When each namespace may be counted again.
    rests: Mutex<BTreeMap<String, Instant>>,
}

pub(crate) async fn run(client: Client, caches: Caches) {
    let queue = Queue::default();
    let key = |namespace: &str| Key { namespace: String::new(), name: namespace.to_owned() };
    let namespaces =
        || caches.quotas.list().iter().map(|q| key(&Key::of(&**q).namespace)).collect();
    let concerns = |takes_less: bool, changed: &Key| match takes_less {
        true => vec![key(&changed.namespace)],
        false => Vec::new(),
    };
    let controller = Controller {
        client,
        caches: caches.clone(),
        queue: queue.clone(),
        rests: Mutex::default(),
    };
    let uncounted = |change: &Change<ResourceQuota>| {
        concerns(change.new.as_deref().is_some_and(is_uncounted), &change.key)
    };
    tokio::join!(
        queue.feed(&caches.quotas, uncounted, namespaces),
        queue.feed(&caches.pods, |c| concerns(pod_takes_less(c), &c.key), namespaces),
        queue.feed(&caches.services, |c| concerns(service_takes_less(c), &c.key), namespaces),
        async {
            let mut ticks = interval(PERIOD);
            loop {
                ticks.tick().await;
                let quotas = caches.quotas.list();
                let blind = quotas.iter().filter(|quota| is_blind(quota));
                blind.for_each(|quota| queue.add(key(&Key::of(&**quota).namespace)));
            }
        },
        async {
            let mut ticks = interval(RESYNC);
            loop {
                ticks.tick().await;
                let all: Vec<Key> = namespaces();
                all.into_iter().for_each(|key| queue.add(key));
            }
        },
        async {
            caches.synced().await;
            queue.work(WORKERS, |key| controller.sync(key)).await;
        },
    );
}

impl Controller {
    /// When the namespace may be counted; `None` if that is now, and then not again for a while.
    fn rest(&self, namespace: &str) -> Option<Instant> {
        let mut rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        rests.retain(|_, until| *until > now);
        let until = rests.get(namespace).copied();
        if until.is_none() {
            rests.insert(namespace.to_owned(), now + REST);
        }
        until
    }

    async fn sync(&self, key: Key) -> Result<(), ClientError> {
        let quotas = self.caches.quotas.list();
        let quotas = quotas.iter().map(|quota| Key::of(&**quota));
        let quotas: Vec<Key> = quotas.filter(|quota| quota.namespace == key.name).collect();
        if quotas.is_empty() {
            return Ok(());
        }
        if let Some(until) = self.rest(&key.name) {
            self.queue.add_at(key, until);
            return Ok(());
        }
        let options = WriteOptions { subresource: "status".to_owned(), ..WriteOptions::default() };
        for Key { namespace, name } in quotas {
            let count = Patch::Merge(json!({}));
            let counted =
                self.client.patch::<ResourceQuota>(Some(&namespace), &name, &count, &options);
            match counted.await {
                Err(ClientError::Api(status)) if status.is_not_found() => {}
                counted => drop(counted?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::sync::Arc;

    #[test]
    fn a_quota_is_counted_once_something_else_is_limited() {
        for (quota, want) in [
            (json!({"spec": {"hard": {"pods": "1"}}}), true),
            (json!({"spec": {"hard": {"pods": "1"}}, "status": {"hard": {"pods": "2"}}}), true),
            (json!({"spec": {"hard": {"pods": "1"}}, "status": {"hard": {"pods": "1"}}}), false),
        ] {
            let typed: ResourceQuota = serde_json::from_value(quota.clone()).unwrap();
            assert_eq!(is_uncounted(&typed), want, "{quota}");
        }
    }

    #[test]
    fn what_nobody_follows_is_counted_more_often() {
        for (name, want) in [
            ("pods", false),
            ("count/pods", false),
            ("requests.cpu", false),
            ("services.nodeports", false),
            ("secrets", true),
            ("count/deployments.apps", true),
        ] {
            let quota = json!({"spec": {"hard": {"memory": "1Gi", (name): "1"}}});
            let quota: ResourceQuota = serde_json::from_value(quota).unwrap();
            assert_eq!(is_blind(&quota), want, "{name}");
        }
    }

    #[test]
    fn a_pod_takes_less_once_it_has_ended_or_gone() {
        let pod = |phase: &str| -> Option<Arc<Pod>> {
            let phase: Value = json!({"metadata": {}, "status": {"phase": phase}});
            (phase["status"]["phase"] != "").then(|| serde_json::from_value(phase).unwrap())
        };
        for (old, new, want) in [
            ("", "Pending", false),
            ("Pending", "Running", false),
            ("Running", "Failed", true),
            ("Running", "", true),
            ("Failed", "", false),
            ("Failed", "Failed", false),
        ] {
            let key = Key { namespace: "d".to_owned(), name: "p".to_owned() };
            let change = Change { key, old: pod(old), new: pod(new) };
            assert_eq!(pod_takes_less(&change), want, "{old} {new}");
        }
    }
}
