//! What was refused leaves no trace: not in a state, and not in what clients read.

use crate::{
    evidence::Evidence,
    history::ReplicaFact,
    property::{Findings, Property},
};

pub(super) const PROPERTY: Property = Property {
    name: "refused commands change nothing",
    sources: &["INV-9", "FEN-6", "FEN-31"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    for seen in &evidence.replicas {
        let ReplicaFact::Refused {
            index,
            reason,
            hash_before,
            hash_after,
            revision_before,
            revision_after,
        } = &seen.fact
        else {
            continue;
        };
        findings.look();
        if (hash_before, revision_before) != (hash_after, revision_after) {
            findings.violated(
                seen.at_ns,
                format!(
                    "replica {}, index {index}: refused ({reason}), and yet hash and revision went \
                     from {hash_before:x}, {revision_before} to {hash_after:x}, {revision_after}",
                    seen.replica
                ),
            );
        }
    }
    for ((key, value), index) in &evidence.keys.puts_failed {
        findings.look();
        let is_alike = evidence.keys.puts_alike.contains(&(*key, *value));
        let seen = evidence.keys.of(key).find(|fact| fact.value == Some(value));
        // Whoever writes a value twice may mean the other one.
        if let Some(fact) = seen.filter(|_| !is_alike)
            && let Some(operation) = evidence.operations.get(*index)
        {
            let revision = fact.revision;
            findings.violated(
                operation.answered_ns,
                format!("{operation}; and yet it was seen at revision {revision}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::Record,
        testing::{done, failed, found, get, hold, ok, put, replica},
    };

    /// INV-9
    #[test]
    fn a_refusal_that_leaves_a_trace_is_caught() {
        let refused = |hash_after, revision_after| -> Vec<Record> {
            let fact = ReplicaFact::Refused {
                index: 5,
                reason: "fenced".to_owned(),
                hash_before: 1,
                hash_after,
                revision_before: 8,
                revision_after,
            };
            vec![replica(1, 1, fact)]
        };
        let read = |value, revision| ok(2, (5, 6), get("a"), 9, found(&[("a", value, revision)]));
        let first = || done(1, (0, 1), put("a", "1"), 2);
        hold(
            &PROPERTY,
            vec![
                ("nothing changed", refused(1, 8), None),
                ("the hash changed", refused(2, 8), Some("index 5: refused (fenced)")),
                ("a revision was taken", refused(1, 9), Some("to 1, 9")),
                ("not read", vec![first(), failed(1, (2, 3), put("a", "2")), read("1", 2)], None),
                (
                    "read all the same",
                    vec![first(), failed(1, (2, 3), put("a", "2")), read("2", 3)],
                    Some("and yet it was seen at revision 3"),
                ),
            ],
        );
    }
}
