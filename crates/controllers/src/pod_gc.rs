//! Removes Pods that no kubelet will finish (§7.10, DEL-39, DEL-50, DEL-52, DEL-53).

use crate::{caches::Caches, delete::delete, pod};
use api::{
    core::{Node, Pod},
    pod::has_ended,
    scheduling::taints,
};
use client::{Client, ClientError, informer::Key};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, interval};

const PERIOD: Duration = Duration::from_secs(20);
/// How long a node must be gone before its Pods are orphans.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Ended Pods that are kept.
const TERMINATED_MAX: usize = 12_500;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Why a Pod is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// One ended Pod too many.
    Terminated,
    /// Terminating on a node that an administrator has declared dead.
    OutOfService,
    /// Its node does not exist any more.
    Orphan,
    /// Terminating, and never given to a node.
    Unscheduled,
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

/// Which Pods go, in the order in which they go; each once. `gone` are the nodes that are not there and
/// have not been for the time of the quarantine.
fn plan<'a>(
    pods: &'a [Arc<Pod>],
    nodes: &BTreeMap<String, Arc<Node>>,
    gone: &BTreeSet<String>,
    terminated_max: usize,
) -> Vec<(&'a Arc<Pod>, Why)> {
    let dead = |pod: &Pod| {
        nodes.get(node_of(pod)).is_some_and(|node| {
            !crate::node_lifecycle::is_ready(node)
                && taints(node).iter().any(|taint| taint.key == OUT_OF_SERVICE)
        })
    };
    let ending = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    let mut ended: Vec<_> = pods.iter().filter(|pod| has_ended(pod) && !ending(pod)).collect();
    let excess = if terminated_max == 0 { 0 } else { ended.len().saturating_sub(terminated_max) };
    ended.sort_by_key(|pod| {
        let evicted = pod.status.as_ref().and_then(|s| s.reason.as_deref()) == Some("Evicted");
        (!evicted, pod.metadata.creation_timestamp.clone(), Key::of(&***pod))
    });
    let terminated = ended.into_iter().take(excess).map(|pod| (pod, Why::Terminated));
    let select = |why: Why, wanted: &dyn Fn(&Pod) -> bool| {
        pods.iter().filter(|pod| wanted(pod)).map(|pod| (pod, why)).collect::<Vec<_>>()
    };
    let mut seen = BTreeSet::new();
    terminated
        .chain(select(Why::OutOfService, &|pod| ending(pod) && dead(pod)))
        .chain(select(Why::Orphan, &|pod| gone.contains(node_of(pod))))
        .chain(select(Why::Unscheduled, &|pod| ending(pod) && node_of(pod).is_empty()))
        .filter(|(pod, _)| seen.insert(Key::of(&***pod)))
        .collect()
}

/// Since when each name of a node has been without an object.
#[derive(Debug, Default)]
struct Quarantine {
    since: BTreeMap<String, Instant>,
}

impl Quarantine {
    /// The names that have been in it for long enough.
    fn due(&mut self, missing: &BTreeSet<&str>, now: Instant) -> Vec<String> {
        self.since.retain(|name, _| missing.contains(name.as_str()));
        for name in missing {
            self.since.entry((*name).to_owned()).or_insert(now);
        }
        let long = self.since.iter().filter(|(_, since)| now >= **since + QUARANTINE);
        long.map(|(name, _)| name.clone()).collect()
    }
}

pub(crate) async fn run(client: Client, caches: Caches) {
    caches.synced().await;
    let mut quarantine = Quarantine::default();
    let mut ticks = interval(PERIOD);
    loop {
        ticks.tick().await;
        let (pods, nodes) = (caches.pods.list(), caches.nodes.list());
        let nodes: BTreeMap<String, Arc<Node>> =
            nodes.into_iter().map(|node| (Key::of(&*node).name, node)).collect();
        let missing = pods.iter().map(|pod| node_of(pod));
        let missing = missing.filter(|name| !name.is_empty() && !nodes.contains_key(*name));
        let mut gone = BTreeSet::new();
        for name in quarantine.due(&missing.collect(), Instant::now()) {
            if is_gone(&client, &name).await {
                gone.insert(name);
            }
        }
        for (pod, why) in plan(&pods, &nodes, &gone, TERMINATED_MAX) {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            match remove(&client, pod, why).await {
                Ok(()) => tracing::info!(name, ?why, "removed a Pod that nobody would finish"),
                Err(error) => tracing::debug!(name, ?why, %error, "not removed"),
            }
        }
    }
}

/// By a read of now, not by the copy (DEL-52).
async fn is_gone(client: &Client, node: &str) -> bool {
    let found = client.get::<Node>(None, node).await;
    matches!(found, Err(ClientError::Api(status)) if status.is_not_found())
}

async fn remove(client: &Client, pod: &Pod, why: Why) -> Result<(), ClientError> {
    if !has_ended(pod) {
        let condition = (why == Why::Orphan)
            .then(|| pod::disruption("DeletionByPodGC", "PodGC: node no longer exists"));
        pod::patch_status(client, pod, Some("Failed"), condition.as_slice()).await?;
    }
    delete::<Pod>(client, &pod.metadata, Some(0), None).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, node: &str, phase: &str, ending: bool) -> Arc<Pod> {
        let mut object = json!({
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase},
        });
        if ending {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn node(name: &str, ready: &str, taints: Value) -> (String, Arc<Node>) {
        let node = json!({
            "metadata": {"name": name}, "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        });
        (name.to_owned(), Arc::new(serde_json::from_value(node).unwrap()))
    }

    #[test]
    fn only_what_nobody_will_finish_goes() {
        // DEL-39, DEL-50, DEL-52
        let out = json!([{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]);
        let nodes = BTreeMap::from([
            node("well", "True", json!([])),
            node("lost", "Unknown", json!([])),
            node("dead", "Unknown", out.clone()),
            node("alive", "True", out),
        ]);
        let gone = BTreeSet::from(["gone".to_owned()]);
        for (name, pod, want) in [
            ("runs", pod("p", "well", "Running", false), None),
            ("ends on its node", pod("p", "well", "Running", true), None),
            ("ends on a lost node", pod("p", "lost", "Running", true), None),
            ("ends on a dead node", pod("p", "dead", "Running", true), Some(Why::OutOfService)),
            ("is on a dead node", pod("p", "dead", "Running", false), None),
            ("the node is ready after all", pod("p", "alive", "Running", true), None),
            ("orphan", pod("p", "gone", "Running", false), Some(Why::Orphan)),
            ("ended orphan", pod("p", "gone", "Succeeded", false), Some(Why::Orphan)),
            ("in quarantine", pod("p", "away", "Running", false), None),
            ("waits for a node", pod("p", "", "Pending", false), None),
            ("ends without a node", pod("p", "", "Pending", true), Some(Why::Unscheduled)),
        ] {
            let pods = [pod];
            let found = plan(&pods, &nodes, &gone, TERMINATED_MAX);
            assert_eq!(found.first().map(|(_, why)| *why), want, "{name}");
        }
    }

    #[test]
    fn of_too_many_ended_pods_the_evicted_and_the_oldest_go_first() {
        // DEL-53
        let mut pods: Vec<Arc<Pod>> = Vec::new();
        for (name, created, reason) in [
            ("new", "2026-01-03T00:00:00Z", ""),
            ("old", "2026-01-01T00:00:00Z", ""),
            ("evicted", "2026-01-04T00:00:00Z", "Evicted"),
            ("middle", "2026-01-02T00:00:00Z", ""),
        ] {
            pods.push(Arc::new(
                serde_json::from_value(json!({
                    "metadata": {"name": name, "creationTimestamp": created},
                    "spec": {"nodeName": "well", "containers": []},
                    "status": {"phase": "Failed", "reason": reason},
                }))
                .unwrap(),
            ));
        }
        let nodes = BTreeMap::from([node("well", "True", json!([]))]);
        for (most, want) in [
            (4, vec![]),
            (2, vec!["evicted", "old"]),
            (1, vec!["evicted", "old", "middle"]),
            (0, vec![]),
        ] {
            let found = plan(&pods, &nodes, &BTreeSet::new(), most);
            let names: Vec<_> =
                found.iter().filter_map(|(p, _)| p.metadata.name.as_deref()).collect();
            assert_eq!(names, want, "{most}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_comes_back_begins_its_quarantine_anew() {
        // DEL-52, DEL-54
        let mut quarantine = Quarantine::default();
        let missing = BTreeSet::from(["n"]);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(quarantine.due(&missing, start).is_empty());
        assert!(quarantine.due(&missing, after(39)).is_empty());
        assert!(quarantine.due(&BTreeSet::new(), after(39)).is_empty());
        assert!(quarantine.due(&missing, after(41)).is_empty());
        assert_eq!(quarantine.due(&missing, after(81)), ["n"]);
    }
}
