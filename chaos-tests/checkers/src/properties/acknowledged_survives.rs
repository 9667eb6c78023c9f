//! What was acknowledged is there in the end, on every replica, or was replaced or deleted later.

use crate::{
    evidence::{Effect, Evidence, effects},
    history::{Call, Kv, Mark, Object, ObjectVerb, Range},
    property::{Findings, Property},
};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const PROPERTY: Property = Property {
    name: "every acknowledged write survives",
    sources: &["INV-5", "raft §5.4 (Leader Completeness)", "etcd KV API guarantees (durability)"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    for mark in &evidence.marks {
        match mark {
            Mark::FinalKeys { at_ns, replica, range, kvs, .. } => {
                keys(evidence, findings, (*at_ns, *replica), range, kvs);
            }
            Mark::FinalObjects { at_ns, replica, kind, items, .. } => {
                objects(evidence, findings, (*at_ns, *replica), kind, items);
            }
            Mark::Fault { .. } | Mark::Healed { .. } | Mark::Awaited { .. } => {}
        }
    }
}

fn keys(
    evidence: &Evidence<'_>,
    findings: &mut Findings,
    (at_ns, replica): (u64, u64),
    range: &Range,
    kvs: &[Kv],
) {
    let found: BTreeMap<&str, &Kv> = kvs.iter().map(|kv| (kv.key.as_str(), kv)).collect();
    let mut last: BTreeMap<&str, _> = BTreeMap::new();
    for answered in evidence.answered() {
        for effect in effects(answered.call, answered.answer) {
            let (key, value, lease) = match effect {
                Effect::Put(put) => (put.key.as_str(), Some(put.value.as_str()), put.lease),
                Effect::Delete(_, Some(0)) => continue,
                Effect::Delete(Range { key, end: None }, _) => (key.as_str(), None, 0),
                // Which keys it deleted, the answer does not say.
                Effect::Delete(..) => continue,
            };
            let write = (answered.revision, value, lease, answered.operation);
            let known = last.entry(key).or_insert(write);
            if known.0 < write.0 {
                *known = write;
            }
        }
    }
    for (key, (revision, value, lease, operation)) in last {
        if !range.contains(key) || revision == 0 {
            continue;
        }
        findings.look();
        let wrong = match (value, found.get(key)) {
            (_, Some(kv)) if kv.mod_revision > revision => None,
            (Some(value), Some(kv)) if kv.mod_revision == revision && kv.value == value => None,
            (None, None) => None,
            (_, Some(kv)) => Some(kv.to_string()),
            (Some(_), None) => {
                let keys = &evidence.keys;
                let is_explained = lease != 0
                    || keys.first_after(key, revision, u64::MAX).is_some()
                    || keys.swept(key, revision, u64::MAX).is_some()
                    || keys.may_be_deleted(key, at_ns, &evidence.operations).is_some();
                (!is_explained).then(|| "nothing".to_owned())
            }
        };
        if let Some(wrong) = wrong {
            let text = format!("{operation}; in the end replica {replica} has {wrong}");
            findings.violated(at_ns, text);
        }
    }
}

fn objects(
    evidence: &Evidence<'_>,
    findings: &mut Findings,
    (at_ns, replica): (u64, u64),
    kind: &str,
    items: &[Object],
) {
    let found: BTreeMap<&str, &Object> =
        items.iter().map(|item| (item.uid.as_str(), item)).collect();
    // Whatever else deletes objects, a watch of all of them tells.
    let watched: BTreeSet<u64> = evidence
        .streams
        .iter()
        .filter(|stream| stream.covers_object(kind, ""))
        .map(|stream| stream.id)
        .collect();
    for answered in evidence.answered() {
        let Call::Object(call) = answered.call else { continue };
        let is_write =
            matches!(call.verb, ObjectVerb::Create | ObjectVerb::Update | ObjectVerb::Patch);
        let crate::history::Body::Object(Some(object)) = &answered.answer.body else { continue };
        if !is_write || object.kind != kind {
            continue;
        }
        findings.look();
        let operation = answered.operation;
        match found.get(object.uid.as_str()) {
            Some(item) if item.resource_version >= object.resource_version => {}
            Some(item) => {
                let text = format!("{operation}; in the end replica {replica} has {item}");
                findings.violated(at_ns, text);
            }
            None => {
                let life = evidence.objects.get(&object.uid);
                let is_deleted = life.is_some_and(|life| life.deleted().is_some());
                if !is_deleted && !watched.is_empty() {
                    let text = format!(
                        "{operation}; in the end replica {replica} does not have it, and no watch \
                         saw its end"
                    );
                    findings.violated(at_ns, text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Body, Record},
        testing::{
            call, delete, deleted, done, final_keys, follows, found, get, hold, leased, life,
            object, ok, put, unknown,
        },
    };
    use serde_json::{Value, json};

    /// INV-5
    #[test]
    fn a_lost_acknowledged_write_is_caught() {
        let write = || done(1, (0, 1), put("a", "1"), 7);
        let last = |kvs: &[(&str, &str, u64)]| final_keys(2, 100, 20, kvs);
        let gone = || ok(1, (2, 3), delete("a"), 8, deleted(1));
        let read = || ok(1, (5, 6), get("a"), 9, found(&[("a", "2", 9)]));
        let cases: Vec<(&str, Vec<Record>, Option<&str>)> = vec![
            ("it is there", vec![write(), last(&[("a", "1", 7)])], None),
            ("it was overwritten", vec![write(), read(), last(&[("a", "2", 9)])], None),
            ("it is lost", vec![write(), last(&[])], Some("replica 2 has nothing")),
            ("it is another", vec![write(), last(&[("a", "0", 6)])], Some("of revision 6")),
            ("it is another value", vec![write(), last(&[("a", "0", 7)])], Some("a=\"0\"")),
            ("it was deleted", vec![write(), gone(), last(&[])], None),
            ("it came back", vec![write(), gone(), last(&[("a", "1", 7)])], Some("1 deleted")),
            (
                "it may have been deleted",
                vec![write(), unknown(1, (2, 3), delete("a")), last(&[])],
                None,
            ),
            (
                "its lease may have ended",
                vec![done(1, (0, 1), leased("a", "1", 5), 7), last(&[])],
                None,
            ),
        ];
        hold(&PROPERTY, cases);
    }

    /// INV-5
    #[test]
    fn a_lost_object_is_caught() {
        let pod = |revision| object("Pod", "web", "u1", revision, &json!({}));
        let created = || {
            let body = Body::Object(Some(pod(7)));
            call(1, (0, 1), ObjectVerb::Create, ("Pod", "web"), Value::Null, (7, body))
        };
        let last = |items| -> Record {
            let kind = "Pod".to_owned();
            Mark::FinalObjects { at_ns: 9, replica: 3, kind, resource_version: 20, items }.into()
        };
        let watched = |versions: &[(u64, Value)]| {
            [vec![follows(1, "Pod")], life(1, "Pod", ("web", "u1"), versions)].concat()
        };
        let ended = watched(&[(7, json!({})), (9, Value::Null)]);
        let lives = watched(&[(7, json!({}))]);
        let with = |records: Vec<Record>, items| [records, vec![created(), last(items)]].concat();
        let cases = vec![
            ("it is there", with(lives.clone(), vec![pod(8)]), None),
            ("its end was seen", with(ended, Vec::new()), None),
            ("it is lost", with(lives.clone(), Vec::new()), Some("no watch saw its end")),
            ("it is older", with(lives, vec![pod(6)]), Some("(u1) at 6")),
        ];
        hold(&PROPERTY, cases);
    }
}
