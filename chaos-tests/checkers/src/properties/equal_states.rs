//! Replicas that have applied the same entries are in the same state.

use crate::{
    evidence::Evidence,
    history::ReplicaFact,
    property::{Findings, Property},
};
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "states are equal at an equal index",
    sources: &["INV-10", "raft §5.4.3 (State Machine Safety)"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut states = BTreeMap::new();
    for seen in &evidence.replicas {
        let ReplicaFact::Applied { index, state_hash, revision, epoch, .. } = seen.fact else {
            continue;
        };
        findings.look();
        let state = (state_hash, revision, epoch);
        let (by, first) = *states.entry(index).or_insert((seen.replica, state));
        if first != state {
            let describe = |replica, (hash, revision, epoch): (u64, u64, u64)| {
                format!("replica {replica} has hash {hash:x}, revision {revision}, epoch {epoch}")
            };
            let (one, other) = (describe(by, first), describe(seen.replica, state));
            findings.violated(seen.at_ns, format!("at index {index} {one}; {other}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{applied, hold};

    /// INV-10
    #[test]
    fn states_that_part_are_caught() {
        let first = || applied(1, 9, 0xa, 20, 3);
        hold(
            &PROPERTY,
            vec![
                (
                    "equal",
                    vec![first(), applied(2, 9, 0xa, 20, 3), applied(2, 8, 0xb, 19, 3)],
                    None,
                ),
                ("another hash", vec![first(), applied(2, 9, 0xb, 20, 3)], Some("at index 9")),
                ("another revision", vec![first(), applied(2, 9, 0xa, 21, 3)], Some("revision 21")),
                ("another epoch", vec![first(), applied(2, 9, 0xa, 20, 4)], Some("epoch 4")),
                ("replayed otherwise", vec![first(), applied(1, 9, 0xc, 20, 3)], Some("hash c")),
            ],
        );
    }
}
