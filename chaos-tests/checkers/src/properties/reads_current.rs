//! A read of the API sees every write that was acknowledged before it was asked for.

use crate::{
    evidence::{Answered, Evidence},
    history::{Body, Call, Object, ObjectVerb},
    property::{Findings, Property},
};
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "reads of the API see what was acknowledged before",
    sources: &["FEN-36", "FEN-37"],
    file: file!(),
    check,
};

fn is_write(verb: ObjectVerb) -> bool {
    matches!(verb, ObjectVerb::Create | ObjectVerb::Update | ObjectVerb::Patch)
}

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    // Acknowledged versions, by uid and in the order of their answers.
    let mut written: BTreeMap<&str, Vec<(&Object, Answered<'_>)>> = BTreeMap::new();
    for answered in evidence.answered() {
        if let (Call::Object(call), Body::Object(Some(object))) =
            (answered.call, &answered.answer.body)
            && is_write(call.verb)
        {
            written.entry(&object.uid).or_default().push((object, answered));
        }
    }
    for answered in evidence.answered() {
        let Call::Object(call) = answered.call else { continue };
        let found: Vec<&Object> = match (call.verb, &answered.answer.body) {
            (ObjectVerb::Get, Body::Object(Some(object))) => vec![object],
            (ObjectVerb::List, Body::Objects(objects)) => objects.iter().collect(),
            _ => continue,
        };
        findings.look();
        let operation = answered.operation;
        let before = |(_, write): &&(&Object, Answered<'_>)| {
            write.operation.answered_ns < operation.invoked_ns
        };
        for object in &found {
            let writes = written.get(object.uid.as_str()).into_iter().flatten();
            let newest = writes.filter(before).max_by_key(|(object, _)| object.resource_version);
            if let Some((newest, write)) = newest
                && object.resource_version < newest.resource_version
            {
                let text =
                    format!("{operation}; answered before it was asked: {}", write.operation);
                findings.violated(operation.answered_ns, text);
            }
        }
        if call.verb != ObjectVerb::List || answered.revision == 0 {
            continue;
        }
        // A list has everything that is there at its revision.
        for (uid, writes) in &written {
            let Some((object, write)) = writes.iter().find(|write| before(write)) else { continue };
            let is_asked = object.kind == call.kind
                && (call.namespace.is_empty() || object.namespace == call.namespace);
            let life = evidence.objects.get(uid);
            let may_be_gone = life.is_none_or(|life| life.deleted().is_some());
            let is_found = found.iter().any(|found| found.uid == *uid);
            // Without a watch of all since then, nobody knows what else was deleted.
            let is_watched = || {
                let (after, until) = (object.resource_version, answered.revision);
                evidence.saw_all(&object.kind, &object.namespace, after, until)
            };
            if is_asked && !may_be_gone && !is_found && is_watched() {
                let text = format!("{operation}; missing what was written: {}", write.operation);
                findings.violated(operation.answered_ns, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Change, Record},
        testing::{call, event, follows, follows_after, hold, object},
    };
    use serde_json::{Value, json};

    /// FEN-36, FEN-37
    #[test]
    fn a_stale_read_of_an_object_is_caught() {
        let pod = |revision| object("Pod", "web", "u1", revision, &json!({}));
        let wrote = |ms, revision| {
            let body = Body::Object(Some(pod(revision)));
            call(1, ms, ObjectVerb::Update, ("Pod", "web"), Value::Null, (revision, body))
        };
        let read = |verb, ms, body| -> Record {
            call(2, ms, verb, ("Pod", "web"), Value::Null, (9, body))
        };
        let get = |verb, revision| read(verb, (5, 6), Body::Object(Some(pod(revision))));
        let list = |objects| read(ObjectVerb::List, (5, 6), Body::Objects(objects));
        let watched = || {
            let other = object("Pod", "other", "u2", 9, &json!({}));
            vec![follows(1, "Pod"), event(1, Change::Added, pod(7)), event(1, Change::Added, other)]
        };
        let watched_later = || {
            let other = object("Pod", "other", "u2", 9, &json!({}));
            vec![follows_after(1, "Pod", 8), event(1, Change::Added, other)]
        };
        let both = || vec![wrote((0, 1), 7), wrote((2, 3), 8)];
        let with = |record| [both(), vec![record]].concat();
        let listed = |objects| [watched(), vec![wrote((0, 1), 7), list(objects)]].concat();
        let cases = vec![
            ("the last", with(get(ObjectVerb::Get, 8)), None),
            ("a later one", with(get(ObjectVerb::Get, 9)), None),
            (
                "at the same time",
                vec![wrote((0, 1), 7), wrote((2, 9), 8), get(ObjectVerb::Get, 7)],
                None,
            ),
            ("an older one", with(get(ObjectVerb::Get, 7)), Some("update Pod default/web")),
            ("an older one in a list", with(list(vec![pod(7)])), Some("list Pod")),
            (
                "cached may be older",
                { [with(get(ObjectVerb::Cached, 7)), vec![get(ObjectVerb::Get, 8)]].concat() },
                None,
            ),
            ("listed", listed(vec![pod(7)]), None),
            ("missing in a list", listed(Vec::new()), Some("missing what was written")),
            (
                "deleted before anybody watched",
                [watched_later(), vec![wrote((0, 1), 7), list(Vec::new())]].concat(),
                None,
            ),
        ];
        hold(&PROPERTY, cases);
    }
}
