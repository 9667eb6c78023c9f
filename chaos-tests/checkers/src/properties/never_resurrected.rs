//! What was deleted never comes back, and its name's next owner inherits nothing from it.

use crate::{
    evidence::{Evidence, Life},
    history::{Body, Call, Mark, ObjectVerb, RuntimeFact},
    property::{Findings, Property},
    show::Time,
};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "a deleted object never comes back",
    sources: &["INV-8", "FEN-28", "FEN-37"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    for life in evidence.objects.all() {
        let Some(end) = life.deleted() else { continue };
        findings.look();
        for later in life.versions.values().filter(|version| version.revision() > end.revision()) {
            let text = format!(
                "{} was deleted at {}, and is there at {}",
                life.label(),
                end.revision(),
                later.revision()
            );
            findings.violated(later.seen_ns, text);
        }
    }
    lists(evidence, findings);
    started(evidence, findings);
    inherited(evidence, findings);
}

/// The end of an object, if a revision is not before it.
fn ended<'e>(evidence: &'e Evidence<'_>, uid: &str, revision: u64) -> Option<&'e Life<'e>> {
    let life = evidence.objects.get(uid)?;
    life.deleted().filter(|end| end.revision() <= revision).map(|_| life)
}

/// A list has its own revision: what was deleted by then is not in it.
fn lists(evidence: &Evidence<'_>, findings: &mut Findings) {
    for answered in evidence.answered() {
        let (Call::Object(call), Body::Objects(objects)) = (answered.call, &answered.answer.body)
        else {
            continue;
        };
        if !matches!(call.verb, ObjectVerb::List | ObjectVerb::Cached) || answered.revision == 0 {
            continue;
        }
        for object in objects {
            if let Some(life) = ended(evidence, &object.uid, answered.revision) {
                let text = format!("{}; {} was deleted before", answered.operation, life.label());
                findings.violated(answered.operation.answered_ns, text);
            }
        }
    }
    for mark in &evidence.marks {
        let Mark::FinalObjects { at_ns, replica, resource_version, items, .. } = mark else {
            continue;
        };
        for object in items {
            findings.look();
            if let Some(life) = ended(evidence, &object.uid, *resource_version) {
                let label = life.label();
                let text = format!("in the end replica {replica} has {label}, which was deleted");
                findings.violated(*at_ns, text);
            }
        }
    }
}

/// A node that is cut off may not know yet; once all is well, it must.
fn started(evidence: &Evidence<'_>, findings: &mut Findings) {
    let Some(healed_ns) = evidence.healed_ns() else { return };
    let lateness_ns = evidence.history.settings.lateness_ns;
    for seen in evidence.runtime.iter().filter(|seen| seen.fact == RuntimeFact::Started) {
        let Some(pod) = evidence.objects.get(&seen.pod_uid) else { continue };
        let Some(end) = pod.deleted() else { continue };
        findings.look();
        let due_ns = end.seen_ns.max(healed_ns).saturating_add(lateness_ns);
        if seen.at_ns > due_ns {
            let text = format!(
                "{} of {} started on {} at {}; the Pod was seen deleted at {}",
                seen.container,
                pod.label(),
                seen.node,
                Time(seen.at_ns),
                Time(end.seen_ns)
            );
            findings.violated(seen.at_ns, text);
        }
    }
}

/// A container has one Pod: its id in the status of another uid is a status that landed on the wrong one.
fn inherited(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut owners: BTreeMap<&str, &Life<'_>> = BTreeMap::new();
    for pod in evidence.objects.of_kind("Pod") {
        for version in pod.versions.values() {
            let statuses = version.get("/status/containerStatuses").and_then(Value::as_array);
            for status in statuses.into_iter().flatten() {
                let id = status.get("containerID").and_then(Value::as_str).unwrap_or_default();
                if id.is_empty() {
                    continue;
                }
                findings.look();
                let owner = *owners.entry(id).or_insert(pod);
                if owner.uid != pod.uid {
                    let (one, other) = (owner.label(), version.label());
                    let text = format!("container {id} of {one} is in the status of {other}");
                    findings.violated(version.seen_ns, text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Change, Record},
        testing::{call, container, event, follows, healed, hold, life, object},
    };
    use serde_json::json;

    /// INV-8
    #[test]
    fn what_comes_back_is_caught() {
        let gone = || {
            let versions = [(5, json!({})), (7, Value::Null)];
            [vec![follows(1, "Pod")], life(1, "Pod", ("web", "u1"), &versions)].concat()
        };
        let pod = |revision| object("Pod", "web", "u1", revision, &json!({}));
        let list = |revision, objects| {
            let body = Body::Objects(objects);
            call(1, (8, 9), ObjectVerb::Cached, ("Pod", ""), Value::Null, (revision, body))
        };
        let last = |items| -> Record {
            let kind = "Pod".to_owned();
            Mark::FinalObjects { at_ns: 9, replica: 3, kind, resource_version: 20, items }.into()
        };
        let with = |more: Vec<Record>| [gone(), more].concat();
        let start = |ms| container(ms, "n1", "u1", RuntimeFact::Started);
        let with_container = |name: &str, uid: &str, at, id: &str| {
            let json = json!({"status": {"containerStatuses": [{"containerID": id}]}});
            life(1, "Pod", (name, uid), &[(at, json)])
        };
        let two = |one: &str, other: &str| {
            [
                vec![follows(1, "Pod")],
                with_container("web", "u1", 5, one),
                with_container("web", "u2", 9, other),
            ]
            .concat()
        };
        let cases = vec![
            ("gone", with(vec![list(8, Vec::new()), last(Vec::new())]), None),
            ("an older list", with(vec![list(6, vec![pod(5)])]), None),
            ("changed after its end", with(vec![event(1, Change::Modified, pod(9))]), {
                Some("was deleted at 7, and is there at 9")
            }),
            ("in a later list", with(vec![list(8, vec![pod(5)])]), Some("was deleted before")),
            ("in the end", with(vec![last(vec![pod(5)])]), Some("in the end replica 3 has")),
            ("started before it was known", with(vec![start(100), healed(200)]), None),
            (
                "started when all was well",
                with(vec![healed(200), start(9_000)]),
                Some("started on n1"),
            ),
            ("each its own container", two("c1", "c2"), None),
            ("another's status", two("c1", "c1"), Some("container c1 of Pod default/web (u1)")),
        ];
        hold(&PROPERTY, cases);
    }
}
