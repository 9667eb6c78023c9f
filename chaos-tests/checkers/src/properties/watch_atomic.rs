//! All changes of one revision come in one response: no client sees half a transaction.

use crate::{
    evidence::Evidence,
    history::WatchStep,
    property::{Findings, Property},
};
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "watches deliver a revision as a whole",
    sources: &["INV-6", "etcd watch guarantees (Atomic)"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    for stream in &evidence.streams {
        let from = stream.from().unwrap_or_default();
        // In which response each revision came.
        let mut whole: BTreeMap<u64, u64> = BTreeMap::new();
        for watch in &stream.steps {
            let WatchStep::Events { events } = &watch.step else { continue };
            for event in events {
                let revision = event.mod_revision;
                let first = *whole.entry(revision).or_insert(watch.sequence);
                if first != watch.sequence {
                    let (id, now) = (stream.id, watch.sequence);
                    let text = format!(
                        "watch {id} delivers revision {revision} in responses {first} and {now}"
                    );
                    findings.violated(watch.at_ns, text);
                }
            }
            // The others' events tell what belongs to a revision; also of the last one delivered.
            let mut revisions: Vec<u64> = events.iter().map(|event| event.mod_revision).collect();
            revisions.dedup();
            for revision in revisions.into_iter().filter(|revision| *revision >= from) {
                findings.look();
                let changed = evidence.keys.revisions(revision).next();
                let Some((_, keys)) = changed.filter(|(at, _)| *at == revision) else { continue };
                for key in keys.iter().filter(|key| stream.covers_key(key)) {
                    if !events.iter().any(|e| e.mod_revision == revision && e.key == **key) {
                        let (id, at) = (stream.id, watch.sequence);
                        let text = format!(
                            "watch {id} delivers revision {revision} without {key} in response {at}"
                        );
                        findings.violated(watch.at_ns, text);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{events, hold, opened};

    /// INV-6
    #[test]
    fn half_a_transaction_is_caught() {
        let both = |stream, at| events(stream, at, &[("a", 5, Some("1")), ("b", 5, Some("2"))]);
        let half = |stream, at, key| events(stream, at, &[(key, 5, Some("1"))]);
        hold(
            &PROPERTY,
            vec![
                ("whole", vec![opened(1, "", 1), both(1, 1)], None),
                (
                    "one key is followed",
                    vec![opened(1, "", 1), both(1, 1), opened(2, "a", 1), half(2, 1, "a")],
                    None,
                ),
                ("two halves", vec![opened(1, "", 1), half(1, 1, "a"), half(1, 2, "b")], {
                    Some("delivers revision 5 in responses 1 and 2")
                }),
                (
                    "one half",
                    vec![opened(1, "", 1), both(1, 1), opened(2, "", 1), half(2, 1, "a")],
                    { Some("watch 2 delivers revision 5 without b") },
                ),
            ],
        );
    }
}
