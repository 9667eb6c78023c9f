//! Nothing happens to the Pods of a node that was well all the time, whatever happens to leaders.

use crate::{
    evidence::{Evidence, Version},
    pods,
    property::{Findings, Property},
};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "no eviction from nodes that are well, failovers included",
    sources: &["INV-11", "FEN-21", "FEN-42", "FEN-43", "NOD-10"],
    file: file!(),
    check,
};

/// Set by the node lifecycle on nodes that are not heard of (NOD-10).
const LOST: &[&str] = &["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"];

/// The keys of the taints that evict.
fn evicting<'a>(node: &'a Version<'_>) -> impl Iterator<Item = &'a str> {
    let taints = node.get("/spec/taints").and_then(Value::as_array).into_iter().flatten();
    let evicting = taints.filter(|taint| pods::text(taint, "effect") == "NoExecute");
    evicting.map(|taint| pods::text(taint, "key"))
}

fn is_evicting(node: &Version<'_>) -> bool {
    evicting(node).any(|key| LOST.contains(&key))
}

/// Deleted because its node was given up.
fn is_evicted(pod: &Version<'_>) -> bool {
    let conditions = pod.get("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.filter(|condition| pods::text(condition, "type") == "DisruptionTarget").any(|c| {
        pods::text(c, "status") == "True" && pods::text(c, "reason") == "DeletionByTaintManager"
    })
}

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let steady = &evidence.history.settings.steady_nodes;
    for node in evidence.objects.of_kind("Node") {
        if !steady.iter().any(|name| name == node.name()) {
            continue;
        }
        // Before it has said so once, it is not ready.
        let was_ready =
            node.versions.values().skip_while(|v| pods::condition(v, "Ready") != "True");
        for version in was_ready {
            findings.look();
            let is_lost = pods::condition(version, "Ready") == "Unknown";
            if is_lost || is_evicting(version) {
                let (label, what) = (version.label(), if is_lost { "Unknown" } else { "evicting" });
                findings
                    .violated(version.seen_ns, format!("{label} is {what}, and was never away"));
            }
        }
    }
    // From when on somebody else has had Pods evicted there.
    let mut cleared: BTreeMap<&str, u64> = BTreeMap::new();
    for node in evidence.objects.of_kind("Node") {
        let mut versions = node.versions.values();
        if let Some(first) = versions.find(|v| evicting(v).any(|key| !LOST.contains(&key))) {
            let known = cleared.entry(node.name()).or_insert(first.revision());
            *known = first.revision().min(*known);
        }
    }
    for pod in evidence.objects.of_kind("Pod") {
        let on_steady = |version: &&Version<'_>| {
            let node = pods::node(version);
            let is_left_alone = cleared.get(node).is_none_or(|from| version.revision() < *from);
            is_left_alone && steady.iter().any(|name| name.as_str() == node)
        };
        for version in pod.versions.values().filter(on_steady) {
            findings.look();
            if is_evicted(version) {
                let (label, node) = (version.label(), pods::node(version));
                let text = format!("{label} was evicted from {node}, which was never away");
                findings.violated(version.seen_ns, text);
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{History, Record, Settings},
        testing::{follows, judge, life},
    };
    use serde_json::json;

    /// INV-11
    #[test]
    fn an_eviction_from_a_node_that_is_well_is_caught() {
        let node = |name: &str, ready: &str, taint: &str| {
            let taints = if taint.is_empty() {
                json!([])
            } else {
                json!([{"key": taint, "effect": "NoExecute"}])
            };
            let ready = json!([{"type": "Ready", "status": ready}]);
            let first = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
            let then = json!({"spec": {"taints": taints}, "status": {"conditions": ready}});
            [vec![follows(1, "Node")], life(1, "Node", (name, name), &[(2, first), (5, then)])]
                .concat()
        };
        let pod = |node: &str, reason: &str| -> Vec<Record> {
            let target = json!({"type": "DisruptionTarget", "status": "True", "reason": reason});
            let json = json!({"spec": {"nodeName": node}, "status": {"conditions": [target]}});
            [vec![follows(2, "Pod")], life(2, "Pod", ("web", "u1"), &[(6, json)])].concat()
        };
        let with_pod = |reason| [node("n1", "True", ""), pod("n1", reason)].concat();
        let elsewhere = || [node("n1", "True", ""), pod("n2", "DeletionByTaintManager")].concat();
        for (name, records, caught) in [
            ("well", node("n1", "True", ""), None),
            ("not ready by its own word", node("n1", "False", ""), None),
            ("given up", node("n1", "Unknown", ""), Some("is Unknown, and was never away")),
            ("tainted", node("n1", "True", LOST[0]), Some("is evicting")),
            ("its Pod evicted", with_pod("DeletionByTaintManager"), Some("was evicted from n1")),
            (
                "its Pod evicted by a user's taint",
                [node("n1", "True", "users"), pod("n1", "DeletionByTaintManager")].concat(),
                None,
            ),
            ("its Pod evicted by a user", with_pod("EvictionByEvictionAPI"), None),
            ("evicted elsewhere", elsewhere(), None),
        ] {
            let settings = Settings { steady_nodes: vec!["n1".to_owned()], ..Settings::default() };
            judge(&PROPERTY, name, &History { settings, records }, caught);
        }
    }
}
