//! No binding takes more of a node than it has.

use crate::{
    evidence::{Evidence, Life, Version},
    pods,
    property::{Findings, Property},
    quantity,
};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "a node is never over-committed",
    sources: &["INV-2", "FEN-11", "RES-1"],
    file: file!(),
    check,
};

/// A Pod's stay on a node, in revisions; the end is the first at which it takes nothing any more.
struct Stay<'e, 'h> {
    pod: &'e Version<'h>,
    from: u64,
    until: u64,
    /// It was bound, rather than created there.
    is_bound: bool,
}

fn stay<'e, 'h>(life: &'e Life<'h>) -> Option<(&'h str, Stay<'e, 'h>)> {
    let whole = || life.versions.values().filter(|version| version.is_whole());
    let first = whole().find(|version| !pods::node(version).is_empty())?;
    let is_bound = whole().next().is_some_and(|created| pods::node(created).is_empty());
    let mut ends = life.versions.values().filter(|v| v.deleted || pods::is_terminal(v));
    let until = ends.next().map_or(u64::MAX, Version::revision);
    Some((pods::node(first), Stay { pod: first, from: first.revision(), until, is_bound }))
}

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut stays: BTreeMap<&str, Vec<Stay<'_, '_>>> = BTreeMap::new();
    for (node, stay) in evidence.objects.of_kind("Pod").filter_map(stay) {
        stays.entry(node).or_default().push(stay);
    }
    for (node, mut stays) in stays {
        stays.sort_by_key(|stay| stay.from);
        // Pods that are still there when the next one comes.
        let mut present: Vec<&Stay<'_, '_>> = Vec::new();
        for stay in &stays {
            present.retain(|other| other.until > stay.from);
            present.push(stay);
            if !stay.is_bound {
                continue;
            }
            let mut nodes = evidence.objects.of_kind("Node").filter(|life| life.name() == node);
            let Some(at) = nodes.find_map(|life| life.at(stay.from)) else { continue };
            let allocatable = at.get("/status/allocatable").and_then(Value::as_object);
            for (resource, quantity) in allocatable.into_iter().flatten() {
                let Some(has) = quantity::milli(quantity) else { continue };
                findings.look();
                let asked = |stay: &&Stay<'_, '_>| match resource.as_str() {
                    "pods" => 1_000,
                    resource => pods::requested(stay.pod, resource),
                };
                let all: i128 = present.iter().map(asked).sum();
                // Who asks for none of it is no reason why there is too much.
                if all > has && asked(&stay) > 0 {
                    let others: Vec<String> = present.iter().map(|s| s.pod.label()).collect();
                    let text = format!(
                        "node {node} has {has} thousandths of {resource}; with {} it has given \
                         {all}: {}",
                        stay.pod.label(),
                        others.join(", ")
                    );
                    findings.violated(stay.pod.seen_ns, text);
                }
            }
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

    /// INV-2
    #[test]
    fn an_overcommitted_node_is_caught() {
        let node = || {
            let json =
                json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "2"}}});
            [
                vec![follows(1, "Node"), follows(2, "Pod")],
                life(1, "Node", ("n1", "n"), &[(2, json)]),
            ]
            .concat()
        };
        let pod = |cpu: &str, node: &str, phase: &str| {
            json!({
                "spec": {
                    "nodeName": node,
                    "containers": [{"resources": {"requests": {"cpu": cpu, "memory": "64Mi"}}}],
                },
                "status": {"phase": phase},
            })
        };
        let bound = |name: &str, at: u64, cpu: &str| {
            let versions = [(at, pod(cpu, "", "Pending")), (at + 1, pod(cpu, "n1", "Pending"))];
            life(2, "Pod", (name, name), &versions)
        };
        let ended = |name: &str, at: u64, last: Value| {
            life(
                2,
                "Pod",
                (name, name),
                &[
                    (at, pod("600m", "", "Pending")),
                    (at + 1, pod("600m", "n1", "Running")),
                    (at + 2, last),
                ],
            )
        };
        let with = |pods: Vec<Vec<Record>>| [node(), pods.concat()].concat();
        let direct = life(2, "Pod", ("direct", "direct"), &[(20, pod("600m", "n1", "Pending"))]);
        let cases = vec![
            ("room", with(vec![bound("a", 10, "600m"), bound("b", 20, "400m")]), None),
            ("no room", with(vec![bound("a", 10, "600m"), bound("b", 20, "401m")]), {
                Some("has given 1001: Pod default/a at 11, Pod default/b at 21")
            }),
            (
                "too many",
                with(vec![bound("a", 10, "0"), bound("b", 20, "0"), bound("c", 30, "0")]),
                { Some("of pods") },
            ),
            (
                "one has ended",
                with(vec![ended("a", 10, pod("600m", "n1", "Succeeded")), bound("b", 20, "600m")]),
                None,
            ),
            ("one is gone", with(vec![ended("a", 10, Value::Null), bound("b", 20, "600m")]), None),
            (
                "one is there yet",
                with(vec![bound("b", 10, "600m"), ended("a", 10, Value::Null)]),
                Some("has given 1200"),
            ),
            ("created there", with(vec![bound("a", 10, "600m"), direct.clone()]), None),
            ("beside one that was created there", with(vec![direct, bound("b", 30, "600m")]), {
                Some("has given 1200")
            }),
        ];
        hold(&PROPERTY, cases);
    }
}
