//! A Pod's containers run on one node, each at most once at a time.

use crate::{
    evidence::Evidence,
    property::{Findings, Property},
    runs::runs,
    show::Time,
};
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "a Pod never runs on two nodes, nor twice on one",
    sources: &["INV-3", "FEN-35"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let (runs, doubled) = runs(evidence);
    let mut nodes = BTreeMap::new();
    for run in &runs {
        findings.look();
        let seen = run.started;
        let first = *nodes.entry(seen.pod_uid.as_str()).or_insert(seen);
        if first.node != seen.node {
            let (pod, uid) = (&seen.pod, &seen.pod_uid);
            let (one, other) = (&first.node, &seen.node);
            let (since, now) = (Time(first.at_ns), Time(seen.at_ns));
            let text = format!("Pod {pod} ({uid}) ran on {one} at {since} and on {other} at {now}");
            findings.violated(seen.at_ns, text);
        }
    }
    for (first, again) in doubled {
        let (pod, uid, container, node) =
            (&again.pod, &again.pod_uid, &again.container, &again.node);
        let (since, now) = (Time(first.started.at_ns), Time(again.at_ns));
        let text = format!(
            "{container} of Pod {pod} ({uid}) started on {node} at {now}, and still ran since {since}"
        );
        findings.violated(again.at_ns, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::RuntimeFact::{Asked, Started, Stopped},
        testing::{container, hold},
    };

    /// INV-3, FEN-35
    #[test]
    fn a_pod_that_runs_twice_is_caught() {
        let on = |ms, node, fact| container(ms, node, "u1", fact);
        hold(
            &PROPERTY,
            vec![
                (
                    "restarted",
                    vec![
                        on(1, "n1", Started),
                        on(2, "n1", Asked),
                        on(3, "n1", Stopped),
                        on(4, "n1", Started),
                    ],
                    None,
                ),
                (
                    "on two nodes",
                    vec![on(1, "n1", Started), on(2, "n2", Started)],
                    Some("on n2 at"),
                ),
                (
                    "on another later",
                    vec![on(1, "n1", Started), on(2, "n1", Stopped), on(3, "n2", Started)],
                    Some("ran on n1"),
                ),
                (
                    "twice on one",
                    vec![on(1, "n1", Started), on(2, "n1", Started)],
                    Some("still ran"),
                ),
            ],
        );
    }
}
