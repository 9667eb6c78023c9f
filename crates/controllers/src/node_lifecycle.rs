//! Nodes that are not heard any more are `NotReady`; taints say of every node what is wrong with it
//! (NOD-10 to NOD-15, NLC-1).
//!
//! A node that is heard has a Lease object; the leader's own monotonic clock lets it run out. So this
//! controller compares no times of others: it looks whether the Lease is there.

mod plan;
mod zones;

use crate::{caches::Caches, pod};
use api::core::Node;
use client::{Client, ClientError, Patch, WriteOptions, events::Recorder, informer::Key};
pub(crate) use plan::is_ready;
use plan::{Eviction, taints_of, unheard};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep_until};
use zones::{Member, Zones};

/// How often everything is looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// A node without a Lease is given this long after it was first seen so: it may be registering.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a failover, a pause of this process or a cut of the whole cluster no Pod is evicted for this
/// long: every node has the time to be heard again (FEN-42, FEN-43).
const AMNESTY: Duration = Duration::from_secs(50);

struct Controller {
    client: Client,
    caches: Caches,
    events: Recorder,
    /// Since when each node has not been heard.
    silent: BTreeMap<String, Instant>,
    /// UIDs of the nodes that are not ready and whose Pods this leader has marked.
    marked: BTreeSet<String>,
    /// UIDs of the nodes that there were at the last look, and their objects.
    known: BTreeMap<String, Arc<Node>>,
    zones: Zones,
}

pub(crate) async fn run(client: Client, caches: Caches, events: Recorder) {
    caches.synced().await;
    let zones = Zones::new(Instant::now() + AMNESTY);
    let mut controller = Controller {
        client,
        caches,
        events,
        silent: BTreeMap::new(),
        marked: BTreeSet::new(),
        known: BTreeMap::new(),
        zones,
    };
    loop {
        controller.look(Instant::now()).await;
        let due = Instant::now() + PERIOD;
        sleep_until(due).await;
        if is_late(due, Instant::now()) {
            tracing::warn!("paused for a while: all nodes get their full time again");
            controller.silent.clear();
            controller.zones.pardon(Instant::now() + AMNESTY);
        }
    }
}

/// This process stood still: what it has not heard meanwhile says nothing (FEN-43).
fn is_late(due: Instant, now: Instant) -> bool {
    now > due + 2 * PERIOD
}

fn uid(node: &Node) -> String {
    node.metadata.uid.clone().unwrap_or_default()
}

impl Controller {
    async fn look(&mut self, now: Instant) {
        let nodes = self.caches.nodes.list();
        self.tell_of_changes(&nodes);
        let names: BTreeSet<&str> =
            nodes.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
        self.silent.retain(|name, _| names.contains(name.as_str()));
        let mut current = Vec::with_capacity(nodes.len());
        for node in nodes {
            current.push(match self.hear(&node, now).await {
                Ok(Some(changed)) => Arc::new(changed),
                Ok(None) => node,
                Err(error) => {
                    let name = &node.metadata.name;
                    tracing::debug!(%error, name, "node not marked");
                    node
                }
            });
        }
        let members = current.iter().map(|node| Member::of(node));
        let decision = self.zones.decide(&members.collect::<Vec<_>>(), now, AMNESTY);
        for node in current {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let eviction = if decision.nobody {
                Eviction::Never
            } else if decision.evict.contains(name) {
                Eviction::Begins
            } else {
                Eviction::AsBefore
            };
            if let Err(error) = self.taint(&node, eviction).await {
                tracing::debug!(%error, name, "taints not up to date");
            }
            if is_ready(&node) {
                self.marked.remove(&uid(&node));
            } else if plan::ready(&node).is_some()
                && !self.marked.contains(&uid(&node))
                && self.pods_not_ready(name).await
            {
                self.marked.insert(uid(&node));
            }
        }
    }

    fn tell_of_changes(&mut self, nodes: &[Arc<Node>]) {
        let now: BTreeMap<String, Arc<Node>> =
            nodes.iter().map(|node| (uid(node), Arc::clone(node))).collect();
        for (uid, node) in now.iter().filter(|(uid, _)| !self.known.contains_key(*uid)) {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            tracing::debug!(name, uid, "node is there");
            let text = format!("Registered Node {name} in Controller");
            self.events.normal(&**node, "RegisteredNode", &text);
        }
        for (uid, node) in self.known.iter().filter(|(uid, _)| !now.contains_key(*uid)) {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let text = format!("Removing Node {name} from Controller");
            self.events.normal(&**node, "RemovingNode", &text);
            self.marked.remove(uid);
        }
        self.known = now;
    }

    /// Says of a node that has been silent for long enough that nothing is known of it.
    async fn hear(&mut self, node: &Node, now: Instant) -> Result<Option<Node>, ClientError> {
        let name = node.metadata.name.clone().unwrap_or_default();
        let lease = Key { namespace: "kube-node-lease".to_owned(), name: name.clone() };
        if self.caches.leases.get(&lease).is_some() {
            self.silent.remove(&name);
            return Ok(None);
        }
        let since = *self.silent.entry(name.clone()).or_insert(now);
        let Some(conditions) = unheard(node).filter(|_| now >= since + PATIENCE) else {
            return Ok(None);
        };
        tracing::info!(name, "node is not heard any more");
        // On the version it was judged by: a node that has spoken since wins (FEN-21).
        let patch = Patch::Merge(json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "status": {"conditions": conditions},
        }));
        let options = WriteOptions { subresource: "status".to_owned(), ..WriteOptions::default() };
        let changed = self.client.patch::<Node>(None, &name, &patch, &options).await?;
        if is_ready(node) {
            let text = format!("Node {name} status is now: NodeNotReady");
            self.events.normal(node, "NodeNotReady", &text);
        }
        Ok(Some(changed))
    }

    async fn taint(&self, node: &Node, eviction: Eviction) -> Result<(), ClientError> {
        let Some(taints) = taints_of(node, eviction) else { return Ok(()) };
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let patch = Patch::Merge(json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints},
        }));
        self.client.patch::<Node>(None, name, &patch, &WriteOptions::default()).await.map(drop)
    }

    /// Its Pods leave the Services' ready addresses (CND-2, NLC-1); whether all could be told.
    async fn pods_not_ready(&self, node: &str) -> bool {
        let mut all = true;
        for pod in self.caches.pods.list() {
            let bound = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node);
            let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
            let ready = conditions.into_iter().find(|c| c.type_ == "Ready" && c.status == "True");
            let Some(ready) = ready.filter(|_| bound) else { continue };
            // Reason and message are left as they were.
            let mut condition = serde_json::to_value(ready).unwrap_or_default();
            if let Some(fields) = condition.as_object_mut() {
                fields.insert("status".to_owned(), "False".into());
                fields.remove("lastTransitionTime");
            }
            match pod::patch_status(&self.client, &pod, None, &[condition]).await {
                Ok(_) => self.events.warning(&*pod, "NodeNotReady", "Node is not ready"),
                Err(ClientError::Api(status)) if status.is_not_found() => {}
                Err(error) => {
                    let name = &pod.metadata.name;
                    tracing::debug!(%error, name, "not marked as not ready; again soon");
                    all = false;
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_told_from_a_tick() {
        // FEN-43
        let due = Instant::now();
        assert!(!is_late(due, due + PERIOD));
        assert!(is_late(due, due + Duration::from_secs(60)));
    }
}
