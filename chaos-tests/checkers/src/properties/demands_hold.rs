//! A request that says which object it means, by its uid, acts on that one or not at all: not on the next owner of
//! the name.

use crate::{
    evidence::Evidence,
    history::{Body, Call, ObjectVerb},
    pods,
    property::{Findings, Property},
};

pub(super) const PROPERTY: Property = Property {
    name: "a request that names a uid acts on nothing else",
    sources: &["FEN-11", "FEN-28", "INV-8"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    for answered in evidence.answered() {
        let Call::Object(call) = answered.call else { continue };
        let Some(uid) = &call.uid else { continue };
        findings.look();
        let operation = answered.operation;
        if let Body::Object(Some(object)) = &answered.answer.body
            && object.kind == call.kind
            && object.uid != *uid
        {
            let text = format!("{operation}; it meant {uid}, and was answered with {}", object.uid);
            findings.violated(operation.answered_ns, text);
        }
        let Some(life) = evidence.objects.get(uid) else { continue };
        // What was known before it was sent.
        let seen_before = |ns: u64| ns < operation.invoked_ns;
        if let Some(end) = life.deleted().filter(|end| seen_before(end.seen_ns)) {
            let text = format!("{operation}; {} was gone since {}", life.label(), end.revision());
            findings.violated(operation.answered_ns, text);
        }
        let mut bound = life.versions.values().filter(|version| {
            seen_before(version.seen_ns) && !version.deleted && !pods::node(version).is_empty()
        });
        if call.verb == ObjectVerb::Bind
            && let Some(bound) = bound.next()
        {
            let (label, node) = (life.label(), pods::node(bound));
            let text = format!("{operation}; {label} was bound to {node} before");
            findings.violated(operation.answered_ns, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Object, Record},
        testing::{call, follows, hold, life},
    };
    use serde_json::{Value, json};

    fn asked(verb: ObjectVerb, ms: (u64, u64), body: Body) -> Record {
        let mut record = call(1, ms, verb, ("Pod", "web"), json!({}), (0, body));
        if let Record::Operation(operation) = &mut record
            && let Call::Object(call) = &mut operation.call
        {
            call.uid = Some("u1".to_owned());
        }
        record
    }

    /// FEN-11, FEN-28
    #[test]
    fn a_request_that_meets_another_object_is_caught() {
        let pod = |versions: &[(u64, Value)]| {
            [vec![follows(1, "Pod")], life(1, "Pod", ("web", "u1"), versions)].concat()
        };
        let gone = || pod(&[(5, json!({})), (6, Value::Null)]);
        let other = Object {
            kind: "Pod".to_owned(),
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            uid: "u2".to_owned(),
            resource_version: 9,
            json: Value::Null,
        };
        let late = (90_000, 90_001);
        let bind = || asked(ObjectVerb::Bind, late, Body::Done);
        let with = |first: Vec<Record>, more: Record| [first, vec![more]].concat();
        hold(
            &PROPERTY,
            vec![
                ("bound once", with(pod(&[(5, json!({}))]), bind()), None),
                (
                    "bound again",
                    with(pod(&[(5, json!({"spec": {"nodeName": "n1"}}))]), bind()),
                    Some("was bound to n1 before"),
                ),
                ("bound when it was gone", with(gone(), bind()), Some("was gone since 6")),
                (
                    "deleted when it was gone",
                    with(gone(), asked(ObjectVerb::Delete, late, Body::Object(None))),
                    Some("was gone since 6"),
                ),
                (
                    "another one was deleted",
                    vec![asked(ObjectVerb::Delete, late, Body::Object(Some(other)))],
                    Some("answered with u2"),
                ),
            ],
        );
    }
}
