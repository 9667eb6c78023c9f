//! A revision is one change, and the same one for everybody who saw it.

use crate::{
    evidence::{Evidence, Fact, Seen},
    property::{Findings, Property},
};
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "a revision is the same change for everybody",
    sources: &["FEN-38", "etcd KV API guarantees (one revision a transaction)"],
    file: file!(),
    check,
};

fn witness(evidence: &Evidence<'_>, fact: &Fact<'_>) -> String {
    let what = match fact.value {
        Some(value) => format!("{}={value:?}", fact.key),
        None => format!("the deletion of {}", fact.key),
    };
    let version =
        if fact.version > 0 { format!(", version {}", fact.version) } else { String::new() };
    let by = match fact.seen {
        Seen::Acknowledged(index) | Seen::Read(index) => {
            evidence.operations.get(index).map(ToString::to_string).unwrap_or_default()
        }
        Seen::Watched(stream) => format!("watch {stream}"),
        Seen::Final(replica) => format!("replica {replica} in the end"),
    };
    format!("{what}{version} ({by})")
}

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    evidence.keys.all().for_each(|_| findings.look());
    for (one, other) in &evidence.keys.conflicts {
        let (revision, one, other) =
            (one.revision, witness(evidence, one), witness(evidence, other));
        findings.violated(0, format!("revision {revision}: {one}; {other}"));
    }
    evidence.objects.all().for_each(|_| findings.look());
    for (one, other) in &evidence.objects.conflicts {
        let (label, uid) = (one.label(), &one.object.uid);
        let (one, other) = (&one.object.json, &other.object.json);
        findings.violated(0, format!("{label} ({uid}) is both {one} and {other}"));
    }
    // Who changed what at a revision, by request.
    let mut causes = BTreeMap::new();
    for fact in evidence.keys.all() {
        let Some(cause) = fact.cause else { continue };
        let first = *causes.entry(fact.revision).or_insert(cause);
        if first != cause
            && let (Some(one), Some(other)) =
                (evidence.operations.get(first), evidence.operations.get(cause))
        {
            let text = format!("revision {} was taken twice: {one}; {other}", fact.revision);
            findings.violated(other.answered_ns, text);
        }
    }
    let mut created = BTreeMap::new();
    for life in evidence.objects.all() {
        // The end of a lease takes all of its keys at once.
        for version in life.versions.values().filter(|version| !version.deleted) {
            let first = *created.entry(version.revision()).or_insert(*version);
            if first.object.uid != version.object.uid {
                let (one, other) = (first.label(), version.label());
                findings.violated(version.seen_ns, format!("one revision: {one}; {other}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Change;
    use crate::testing::{done, event, events, follows, found, get, hold, object, ok, opened, put};
    use serde_json::json;

    /// FEN-38
    #[test]
    fn witnesses_who_contradict_each_other_are_caught() {
        let write = || done(1, (0, 1), put("a", "1"), 7);
        let pod = |stream, name, node| {
            let json = json!({"spec": {"nodeName": node}});
            vec![
                follows(stream, "Pod"),
                event(stream, Change::Added, object("Pod", name, name, 9, &json)),
            ]
        };
        let both = |one, other| [pod(1, "p", one), pod(2, "p", other)].concat();
        hold(
            &PROPERTY,
            vec![
                (
                    "all agree",
                    vec![
                        write(),
                        opened(1, "", 1),
                        events(1, 1, &[("a", 7, Some("1"))]),
                        ok(2, (2, 3), get("a"), 8, found(&[("a", "1", 7)])),
                    ],
                    None,
                ),
                (
                    "another value is watched",
                    vec![write(), opened(1, "", 1), events(1, 1, &[("a", 7, Some("2"))])],
                    Some("revision 7: a=\"1\""),
                ),
                (
                    "another value is read",
                    vec![write(), ok(2, (2, 3), get("a"), 8, found(&[("a", "2", 7)]))],
                    Some("revision 7: a=\"1\""),
                ),
                (
                    "a deletion is watched",
                    vec![write(), opened(1, "", 1), events(1, 1, &[("a", 7, None)])],
                    Some("the deletion of a"),
                ),
                (
                    "two changes share a revision",
                    vec![write(), done(2, (0, 1), put("b", "1"), 7)],
                    Some("revision 7 was taken twice"),
                ),
                ("objects agree", both("n1", "n1"), None),
                ("a version is two", both("n1", "n2"), Some("is both")),
                ("two objects share a revision", [pod(1, "p", "n"), pod(2, "q", "n")].concat(), {
                    Some("one revision: Pod default/p")
                }),
            ],
        );
    }
}
