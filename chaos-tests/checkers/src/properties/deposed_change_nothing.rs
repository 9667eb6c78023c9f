//! What was decided under an epoch that has passed is refused, however it came into the log.

use crate::{
    evidence::Evidence,
    history::ReplicaFact,
    property::{Findings, Property},
};

pub(super) const PROPERTY: Property = Property {
    name: "what a deposed leader decided changes nothing",
    sources: &["FEN-6", "FEN-2"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    for seen in &evidence.replicas {
        let ReplicaFact::Decided { index, epoch, current, carried_out } = seen.fact else {
            continue;
        };
        findings.look();
        if carried_out && epoch != current {
            findings.violated(
                seen.at_ns,
                format!(
                    "replica {}, index {index}: decided under epoch {epoch}, carried out in epoch \
                     {current}",
                    seen.replica
                ),
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
    fn a_stale_decision_that_is_carried_out_is_caught() {
        let decided = |epoch, current, carried_out| {
            let fact = ReplicaFact::Decided { index: 7, epoch, current, carried_out };
            vec![replica(1, 1, fact)]
        };
        hold(
            &PROPERTY,
            vec![
                ("of this epoch", decided(3, 3, true), None),
                ("of this epoch, and refused for another reason", decided(3, 3, false), None),
                ("of an earlier one, and refused", decided(2, 3, false), None),
                ("of an earlier one", decided(2, 3, true), Some("decided under epoch 2")),
                ("of a later one", decided(4, 3, true), Some("carried out in epoch 3")),
            ],
        );
    }
}
