//! What is on each node: bound Pods, and those whose binding is on its way.

use api::{
    core::{Node, Pod},
    pod::has_ended,
    resources::{self, Amounts},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A host port that a Pod holds: protocol, address, number.
pub(crate) type HostPort = (String, String, i32);

/// One node as the scheduler sees it.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    /// The object; `None` while only its Pods are known.
    pub node: Option<Arc<Node>>,
    /// What it offers, or all that it has when it does not say.
    pub allocatable: Amounts,
    /// Sum of what its Pods ask for.
    pub requested: Amounts,
    /// The same with a default for those that ask for nothing (§5.4): millicores and bytes.
    pub scoring: (i64, i64),
    /// Number of Pods.
    pub pods: i64,
    pub(crate) ports: BTreeMap<HostPort, u32>,
}

impl NodeInfo {
    /// How much of a resource nobody has asked for; negative on a node that became smaller.
    #[must_use]
    pub fn left(&self, resource: &str) -> i64 {
        let of = |amounts: &Amounts| amounts.get(resource).copied().unwrap_or_default();
        of(&self.allocatable) - of(&self.requested)
    }
}

/// What one Pod takes.
#[derive(Debug, Clone)]
struct Footprint {
    node: String,
    requested: Amounts,
    scoring: (i64, i64),
    ports: Vec<HostPort>,
    assumed: bool,
}

/// All nodes and what is taken of them.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    nodes: BTreeMap<String, NodeInfo>,
    /// By UID.
    pods: BTreeMap<String, Footprint>,
}

pub(crate) fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|p| *p > 0)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((protocol, port.host_ip.clone().unwrap_or_default(), number))
        })
        .collect()
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

impl Cache {
    /// Every node that exists, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &NodeInfo)> {
        self.nodes.iter().filter(|(_, info)| info.node.is_some()).map(|(n, i)| (n.as_str(), i))
    }

    /// Forgets the nodes and the Pods, by UID, that are not among these.
    pub fn keep(&mut self, nodes: &BTreeSet<String>, pods: &BTreeSet<String>) {
        let gone = |known: &String, kept: &BTreeSet<String>| !kept.contains(known);
        for name in self.nodes.keys().filter(|n| gone(n, nodes)).cloned().collect::<Vec<_>>() {
            self.remove_node(&name);
        }
        for uid in self.pods.keys().filter(|u| gone(u, pods)).cloned().collect::<Vec<_>>() {
            self.remove_pod(&uid);
        }
    }

    /// A node has come or changed.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let status = node.status.as_ref();
        let offered = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        let info = self.nodes.entry(name).or_default();
        info.allocatable = resources::amounts(offered);
        info.node = Some(node);
    }

    /// A node has gone; its Pods are still counted, should it come back.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            info.node = None;
        }
    }

    /// A Pod as the API now shows it. A terminating one still counts, a terminal one does not.
    pub fn set_pod(&mut self, pod: &Pod) {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
        let assumed = self.pods.get(uid(pod)).is_some_and(|f| f.assumed);
        if node.is_empty() && assumed && !has_ended(pod) {
            // The binding is on its way, or nobody knows what became of it (FEN-32).
            return;
        }
        self.remove_pod(uid(pod));
        if !node.is_empty() && !has_ended(pod) {
            self.add(pod, node, false);
        }
    }

    /// A Pod is given to a node before the API says so.
    pub fn assume(&mut self, pod: &Pod, node: &str) {
        self.remove_pod(uid(pod));
        self.add(pod, node.to_owned(), true);
    }

    /// The binding has failed for certain.
    pub fn forget(&mut self, pod_uid: &str) {
        if self.pods.get(pod_uid).is_some_and(|f| f.assumed) {
            self.remove_pod(pod_uid);
        }
    }

    /// A Pod is gone.
    pub fn remove_pod(&mut self, pod_uid: &str) {
        let Some(old) = self.pods.remove(pod_uid) else { return };
        let Some(info) = self.nodes.get_mut(&old.node) else { return };
        for (name, amount) in &old.requested {
            *info.requested.entry(name.clone()).or_default() -= amount;
        }
        info.scoring.0 -= old.scoring.0;
        info.scoring.1 -= old.scoring.1;
        info.pods -= 1;
        for port in &old.ports {
            if let Some(count) = info.ports.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    info.ports.remove(port);
                }
            }
        }
    }

    fn add(&mut self, pod: &Pod, node: String, assumed: bool) {
        let footprint = Footprint {
            requested: resources::pod_requests(pod),
            scoring: resources::scoring_requests(pod),
            ports: host_ports(pod),
            node,
            assumed,
        };
        let info = self.nodes.entry(footprint.node.clone()).or_default();
        for (name, amount) in &footprint.requested {
            *info.requested.entry(name.clone()).or_default() += amount;
        }
        info.scoring.0 += footprint.scoring.0;
        info.scoring.1 += footprint.scoring.1;
        info.pods += 1;
        for port in &footprint.ports {
            *info.ports.entry(port.clone()).or_default() += 1;
        }
        self.pods.insert(uid(pod).to_owned(), footprint);
    }

    /// UIDs of the Pods on a node.
    pub(crate) fn pods_on(&self, node: &str) -> impl Iterator<Item = &str> {
        self.pods.iter().filter(move |(_, f)| f.node == node).map(|(uid, _)| uid.as_str())
    }

    /// The host ports that a Pod holds.
    pub(crate) fn ports_of(&self, pod_uid: &str) -> &[HostPort] {
        self.pods.get(pod_uid).map_or(&[], |f| f.ports.as_slice())
    }

    /// UIDs of Pods that are given away but not yet seen bound.
    #[must_use]
    pub fn assumed(&self) -> BTreeSet<String> {
        self.pods.iter().filter(|(_, f)| f.assumed).map(|(uid, _)| uid.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_missed_is_forgotten_with_a_new_list() {
        // SCH-4, trap 26
        let mut cache = Cache::default();
        let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "2"}}});
        cache.set_node(Arc::new(serde_json::from_value(node).unwrap()));
        for uid in ["stays", "went"] {
            let pod = json!({
                "metadata": {"name": uid, "uid": uid},
                "spec": {"nodeName": "n", "containers": [{"name": "a"}]},
            });
            cache.set_pod(&serde_json::from_value(pod).unwrap());
        }
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        cache.keep(&set(&["n"]), &set(&["stays"]));
        assert_eq!(cache.nodes().map(|(_, info)| info.pods).collect::<Vec<_>>(), [1]);
        cache.keep(&set(&[]), &set(&["stays"]));
        assert_eq!(cache.nodes().count(), 0);
    }
}
