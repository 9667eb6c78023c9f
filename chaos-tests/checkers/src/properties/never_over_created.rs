//! No controller creates more Pods than its object asks for.

use crate::{
    evidence::{Evidence, Life, Version},
    pods,
    property::{Findings, Property},
};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "controllers never create too many Pods",
    sources: &["INV-7", "FEN-14", "RS-1", "CTL-3"],
    file: file!(),
    check,
};

/// How many active Pods an owner may have when one more is created; none if it does not say.
fn wanted(owner: &Version<'_>) -> Option<u64> {
    let number = |pointer: &str| owner.get(pointer).and_then(Value::as_u64);
    match owner.object.kind.as_str() {
        "ReplicaSet" | "ReplicationController" => Some(number("/spec/replicas").unwrap_or(1)),
        "Job" => {
            let parallelism = number("/spec/parallelism").unwrap_or(1);
            let left = number("/spec/completions")
                .map(|all| all.saturating_sub(number("/status/succeeded").unwrap_or_default()));
            Some(left.map_or(parallelism, |left| left.min(parallelism)))
        }
        _ => None,
    }
}

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    // Pods by the uid of what controls them.
    let mut children: BTreeMap<&str, Vec<&Life<'_>>> = BTreeMap::new();
    for pod in evidence.objects.of_kind("Pod") {
        let mut owners = pod.versions.values().filter_map(pods::controller);
        if let Some((_, _, uid)) = owners.next() {
            children.entry(uid).or_default().push(pod);
        }
    }
    for (uid, pods) in children {
        let Some(owner) = evidence.objects.get(uid) else { continue };
        for pod in &pods {
            // Adopted ones had a version without an owner; only creations are the controller's doing.
            let Some(created) = pod.first().filter(|v| pods::controller(v).is_some()) else {
                continue;
            };
            let Some(at) = owner.at(created.revision()) else { continue };
            let active: Vec<String> = pods
                .iter()
                .filter_map(|other| other.at(created.revision()))
                .filter(|version| pods::is_active(version))
                .filter(|version| pods::controller(version).is_some_and(|(_, _, of)| of == uid))
                .map(Version::label)
                .collect();
            let count = u64::try_from(active.len()).unwrap_or(u64::MAX);
            if let Some(wanted) = wanted(at) {
                findings.look();
                if count > wanted {
                    let text = format!(
                        "{} wants {wanted} Pods, and with {} has {count}: {}",
                        at.label(),
                        created.label(),
                        active.join(", ")
                    );
                    findings.violated(created.seen_ns, text);
                }
            }
        }
        if owner.kind() == "DaemonSet" {
            one_a_node(findings, owner, &pods);
        }
    }
}

/// A DaemonSet has one Pod a node.
fn one_a_node(findings: &mut Findings, owner: &Life<'_>, pods: &[&Life<'_>]) {
    for pod in pods {
        let Some(bound) = pod.versions.values().find(|v| !pods::node(v).is_empty()) else {
            continue;
        };
        findings.look();
        let others = pods.iter().filter(|other| other.uid != pod.uid);
        let mut same = others
            .filter_map(|other| other.at(bound.revision()))
            .filter(|version| pods::is_active(version) && pods::node(version) == pods::node(bound));
        if let Some(other) = same.next() {
            let text = format!(
                "{} has two Pods on {}: {}, {}",
                owner.label(),
                pods::node(bound),
                other.label(),
                bound.label()
            );
            findings.violated(bound.seen_ns, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::Record,
        testing::{follows, hold, life},
    };
    use serde_json::json;

    fn owned(kind: &str, node: &str, phase: &str) -> Value {
        json!({
            "metadata": {
                "ownerReferences": [{"kind": kind, "name": "o", "uid": "o1", "controller": true}],
            },
            "spec": {"nodeName": node},
            "status": {"phase": phase},
        })
    }

    /// INV-7
    #[test]
    fn a_pod_too_many_is_caught() {
        let owner = |kind: &str, spec: Value| {
            let versions = [(2, json!({"spec": spec}))];
            [vec![follows(1, kind), follows(2, "Pod")], life(1, kind, ("o", "o1"), &versions)]
                .concat()
        };
        let pod = |kind: &str, name: &str, at: u64| {
            life(2, "Pod", (name, name), &[(at, owned(kind, "n1", "Running"))])
        };
        let ended = |kind: &str, name: &str, at: u64| {
            let versions =
                [(at, owned(kind, "n1", "Running")), (at + 1, owned(kind, "n1", "Failed"))];
            life(2, "Pod", (name, name), &versions)
        };
        let adopted = |name: &str, at: u64| {
            let versions = [(at, json!({})), (at + 1, owned("ReplicaSet", "n1", "Running"))];
            life(2, "Pod", (name, name), &versions)
        };
        let set = |pods: Vec<Vec<Record>>| {
            [owner("ReplicaSet", json!({"replicas": 2})), pods.concat()].concat()
        };
        let rs = |name, at| pod("ReplicaSet", name, at);
        let job = |pods: Vec<Vec<Record>>| {
            [owner("Job", json!({"parallelism": 5, "completions": 1})), pods.concat()].concat()
        };
        let daemon =
            |pods: Vec<Vec<Record>>| [owner("DaemonSet", json!({})), pods.concat()].concat();
        let cases = vec![
            ("as many as wanted", set(vec![rs("a", 5), rs("b", 6)]), None),
            ("one too many", set(vec![rs("a", 5), rs("b", 6), rs("c", 7)]), {
                Some("wants 2 Pods, and with Pod default/c at 7 has 3")
            }),
            ("one has ended", set(vec![ended("ReplicaSet", "a", 5), rs("b", 8), rs("c", 9)]), None),
            ("one was adopted later", set(vec![rs("a", 5), rs("b", 6), adopted("c", 7)]), None),
            (
                "created beside an adopted one",
                set(vec![adopted("a", 5), rs("b", 8), rs("c", 9)]),
                { Some("has 3") },
            ),
            ("a job's last", job(vec![pod("Job", "a", 5)]), None),
            (
                "a job's one too many",
                job(vec![pod("Job", "a", 5), pod("Job", "b", 6)]),
                Some("wants 1"),
            ),
            ("one on a node", daemon(vec![pod("DaemonSet", "a", 5)]), None),
            ("two on a node", daemon(vec![pod("DaemonSet", "a", 5), pod("DaemonSet", "b", 6)]), {
                Some("has two Pods on n1")
            }),
        ];
        hold(&PROPERTY, cases);
    }
}
