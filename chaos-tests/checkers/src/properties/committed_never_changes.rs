//! What is committed at an index stays there, on every replica.

use crate::{
    evidence::Evidence,
    history::ReplicaFact,
    property::{Findings, Property},
};
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "what is committed never changes",
    sources: &["raft §5.4.3 (State Machine Safety)", "raft §5.3 (Log Matching)"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut entries = BTreeMap::new();
    for seen in &evidence.replicas {
        let ReplicaFact::Committed { index, term, digest } = seen.fact else { continue };
        findings.look();
        let (by, first_term, first_digest) = *entries.entry(index).or_insert((seen, term, digest));
        if (first_term, first_digest) != (term, digest) {
            let (one, other) = (by.replica, seen.replica);
            findings.violated(
                seen.at_ns,
                format!(
                    "index {index}: replica {one} has an entry of term {first_term} with digest \
                     {first_digest:x}, replica {other} one of term {term} with {digest:x}"
                ),
            );
        }
    }
    let entries = || entries.iter().map(|(index, (seen, term, _))| (index, seen, term));
    for ((index, _, term), (next, seen, later)) in entries().zip(entries().skip(1)) {
        if later < term {
            let text = format!("terms go back from {term} at index {index} to {later} at {next}");
            findings.violated(seen.at_ns, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hold, replica};

    #[test]
    fn a_changed_entry_is_caught() {
        let committed = |who, index, term, digest| {
            replica(who, index, ReplicaFact::Committed { index, term, digest })
        };
        hold(
            &PROPERTY,
            vec![
                ("equal logs", vec![committed(1, 7, 2, 5), committed(2, 7, 2, 5)], None),
                (
                    "another entry",
                    vec![committed(1, 7, 2, 5), committed(2, 7, 2, 6)],
                    Some("index 7"),
                ),
                (
                    "another term",
                    vec![committed(1, 7, 2, 5), committed(1, 7, 3, 5)],
                    Some("index 7"),
                ),
                (
                    "terms go back",
                    vec![committed(1, 7, 3, 5), committed(1, 8, 2, 6)],
                    Some("go back"),
                ),
            ],
        );
    }
}
