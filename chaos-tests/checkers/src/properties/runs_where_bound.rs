//! A container starts only on the node that its Pod is bound to.

use crate::{
    evidence::{Evidence, Life, Stream, Version},
    history::RuntimeFact,
    pods,
    property::{Findings, Property},
    show::Time,
};

pub(super) const PROPERTY: Property = Property {
    name: "a container starts only where its Pod is bound",
    sources: &["INV-3", "FEN-9"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    for seen in evidence.runtime.iter().filter(|seen| seen.fact == RuntimeFact::Started) {
        // Static Pods have no binding; what the API never had is not looked at.
        let Some(pod) = evidence.objects.get(&seen.pod_uid) else { continue };
        let whole = || pod.versions.values().filter(|version| version.is_whole());
        if whole().any(|version| pods::node(version) == seen.node) {
            findings.look();
            continue;
        }
        let bound = whole().map(pods::node).find(|node| !node.is_empty());
        // It may have been bound where nobody looked.
        if bound.is_none() && !saw_whole_life(evidence, pod) {
            continue;
        }
        findings.look();
        let text = format!(
            "{} of {} started on {} at {}; the Pod is {}",
            seen.container,
            pod.label(),
            seen.node,
            Time(seen.at_ns),
            bound.map_or("bound to no node".to_owned(), |node| format!("bound to {node}"))
        );
        findings.violated(seen.at_ns, text);
    }
}

/// Up to its deletion, or to the end of all that watches have told.
fn saw_whole_life(evidence: &Evidence<'_>, pod: &Life<'_>) -> bool {
    let (kind, namespace) = (pod.kind(), pod.namespace());
    let watches = evidence.streams.iter().filter(|stream| stream.covers_object(kind, namespace));
    let told = watches.filter_map(Stream::delivered).max();
    let end = pod.deleted().map(Version::revision).or(told);
    let beginning = pod.first().map(Version::revision);
    beginning.zip(end).is_some_and(|(from, until)| evidence.saw_all(kind, namespace, from, until))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::Change,
        testing::{container, event, follows, follows_after, hold, life, object},
    };
    use serde_json::json;

    /// INV-3
    #[test]
    fn a_container_elsewhere_is_caught() {
        let other = |at| object("Pod", "other", "u2", at, &json!({"spec": {"nodeName": "n1"}}));
        let pod = |bound: bool| {
            let mut versions = vec![(5, json!({}))];
            versions.extend(bound.then(|| (6, json!({"spec": {"nodeName": "n1"}}))));
            [vec![follows(1, "Pod")], life(1, "Pod", ("web", "u1"), &versions)].concat()
        };
        let on = |bound, node| {
            [pod(bound), vec![container(9, node, "u1", RuntimeFact::Started)]].concat()
        };
        let seen_again = |after| {
            let mut records = on(false, "n1");
            let another = container(9, "n1", "u2", RuntimeFact::Started);
            let told = event(2, Change::Added, other(21));
            records.extend([follows_after(2, "Pod", after), told, another]);
            records
        };
        let cases = vec![
            ("where it is bound", on(true, "n1"), None),
            ("elsewhere", on(true, "n2"), Some("the Pod is bound to n1")),
            ("bound nowhere", on(false, "n1"), Some("bound to no node")),
            ("bound where nobody looked", seen_again(20), None),
            ("bound nowhere, by two watches", seen_again(5), Some("bound to no node")),
        ];
        hold(&PROPERTY, cases);
    }
}
