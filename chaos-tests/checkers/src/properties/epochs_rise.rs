//! The epoch of the state never goes back, and nothing is decided under an epoch that has passed.

use crate::{
    evidence::Evidence,
    history::ReplicaFact,
    property::{Findings, Property},
};
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "epochs only rise along the log",
    sources: &["FEN-6", "FEN-7"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut states = BTreeMap::new();
    for seen in &evidence.replicas {
        if let ReplicaFact::Applied { index, term, epoch, .. } = seen.fact {
            findings.look();
            if term > 0 && epoch > term {
                findings.violated(
                    seen.at_ns,
                    format!(
                        "replica {}: epoch {epoch} at index {index} of term {term}",
                        seen.replica
                    ),
                );
            }
            states.entry(index).or_insert((seen, epoch));
        }
    }
    for ((index, (_, epoch)), (next, (seen, later))) in states.iter().zip(states.iter().skip(1)) {
        if later < epoch {
            findings.violated(
                seen.at_ns,
                format!("epoch {epoch} at index {index}, {later} at index {next}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hold, replica};

    /// FEN-6
    #[test]
    fn an_epoch_that_goes_back_is_caught() {
        let applied = |index, term, epoch| {
            let (state_hash, revision) = (index, index);
            replica(1, index, ReplicaFact::Applied { index, term, state_hash, revision, epoch })
        };
        hold(
            &PROPERTY,
            vec![
                ("rising", vec![applied(1, 1, 0), applied(2, 1, 1), applied(3, 2, 1)], None),
                (
                    "going back",
                    vec![applied(1, 3, 2), applied(2, 3, 1)],
                    Some("epoch 2 at index 1"),
                ),
                ("of no term yet", vec![applied(1, 1, 2)], Some("of term 1")),
            ],
        );
    }
}
