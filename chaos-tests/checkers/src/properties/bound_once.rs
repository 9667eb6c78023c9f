//! A Pod is bound at most once: its node is set, and never changes.

use crate::{
    evidence::Evidence,
    history::{Call, ObjectVerb},
    pods,
    property::{Findings, Property},
};
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property =
    Property { name: "a Pod is bound once", sources: &["INV-1", "FEN-11"], file: file!(), check };

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    for pod in evidence.objects.of_kind("Pod") {
        let whole = || pod.versions.values().filter(|version| version.is_whole());
        let mut bound: Option<(&str, u64)> = None;
        for version in whole() {
            findings.look();
            let node = pods::node(version);
            match bound {
                None if !node.is_empty() => bound = Some((node, version.revision())),
                Some((first, since)) if first != node => {
                    let label = pod.label();
                    let text = format!(
                        "{label} is bound to {first} at {since} and to {node:?} at {}",
                        version.revision()
                    );
                    findings.violated(version.seen_ns, text);
                }
                None | Some(_) => {}
            }
        }
    }
    // Two bindings of one uid that were both acknowledged.
    let mut bindings = BTreeMap::new();
    for answered in evidence.answered() {
        let Call::Object(call) = answered.call else { continue };
        let (ObjectVerb::Bind, Some(uid)) = (call.verb, &call.uid) else { continue };
        findings.look();
        let operation = answered.operation;
        if let Some(first) = bindings.insert(uid, operation) {
            let text = format!("{uid} was bound twice: {first}; {operation}");
            findings.violated(operation.answered_ns, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Body, Record},
        testing::{call, follows, hold, life},
    };
    use serde_json::{Value, json};

    /// INV-1
    #[test]
    fn a_second_binding_is_caught() {
        let on = |node: &str| json!({"spec": {"nodeName": node}});
        let pod = |versions: &[(u64, Value)]| {
            [vec![follows(1, "Pod")], life(1, "Pod", ("web", "u1"), versions)].concat()
        };
        let bind = |ms, node| -> Record {
            let sent = json!({"target": {"name": node}});
            let mut record = call(1, ms, ObjectVerb::Bind, ("Pod", "web"), sent, (0, Body::Done));
            if let Record::Operation(operation) = &mut record
                && let Call::Object(call) = &mut operation.call
            {
                call.uid = Some("u1".to_owned());
            }
            record
        };
        let cases = vec![
            ("once", pod(&[(5, json!({})), (6, on("n1")), (7, on("n1"))]), None),
            (
                "twice",
                pod(&[(5, json!({})), (6, on("n1")), (7, on("n2"))]),
                Some("to n1 at 6 and to"),
            ),
            ("unbound again", pod(&[(6, on("n1")), (7, json!({}))]), Some("and to \"\" at 7")),
            ("one binding", vec![bind((0, 1), "n1")], None),
            (
                "two bindings",
                vec![bind((0, 1), "n1"), bind((2, 3), "n2")],
                Some("u1 was bound twice"),
            ),
        ];
        hold(&PROPERTY, cases);
    }
}
