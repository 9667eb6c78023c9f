//! What a member has said to have on its disk is there after any crash.

use crate::{
    evidence::Evidence,
    history::ReplicaFact,
    property::{Findings, Property},
    show::Time,
};
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "a member has what it has acknowledged, after any crash",
    sources: &["raft §5.3 (AppendEntries), Figure 2 (persistent state)", "raft §5.4.2"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    // Of each member, by the leader's term: up to where, and when it was known.
    let mut acknowledged: BTreeMap<u64, (u64, (u64, u64), u64)> = BTreeMap::new();
    for seen in &evidence.replicas {
        match seen.fact {
            ReplicaFact::Acknowledged { leader_term, term, index } => {
                let new = (leader_term, (term, index), seen.at_ns);
                let known = acknowledged.entry(seen.replica).or_insert(new);
                if (known.0, known.1) < (new.0, new.1) {
                    *known = new;
                }
            }
            ReplicaFact::Recovered { term, last_term, last_index } => {
                let Some((leader_term, upto, at_ns)) = acknowledged.remove(&seen.replica) else {
                    continue;
                };
                // Only a later leader may have taken back what it acknowledged to this one.
                if term > leader_term {
                    continue;
                }
                findings.look();
                if (last_term, last_index) < upto {
                    let (upto_term, upto) = upto;
                    let text = format!(
                        "replica {} acknowledged index {upto} of term {upto_term} to the leader of \
                         term {leader_term} ({}), and after a restart its log ends at index \
                         {last_index} of term {last_term}, in term {term}",
                        seen.replica,
                        Time(at_ns)
                    );
                    findings.violated(seen.at_ns, text);
                }
            }
            ReplicaFact::Leads { .. }
            | ReplicaFact::Applied { .. }
            | ReplicaFact::Committed { .. }
            | ReplicaFact::Refused { .. }
            | ReplicaFact::Decided { .. }
            | ReplicaFact::Term { .. }
            | ReplicaFact::Started
            | ReplicaFact::Stopped => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::Record,
        testing::{hold, replica},
    };

    #[test]
    fn an_acknowledged_entry_that_is_lost_is_caught() {
        // One after the other, in this order.
        let of = |facts: Vec<ReplicaFact>| -> Vec<Record> {
            (1..).zip(facts).map(|(ms, fact)| replica(2, ms, fact)).collect()
        };
        let said =
            |leader_term, term, index| ReplicaFact::Acknowledged { leader_term, term, index };
        let back =
            |term, last_term, last_index| ReplicaFact::Recovered { term, last_term, last_index };
        let lost = Some("acknowledged index 9 of term 3");
        hold(
            &PROPERTY,
            vec![
                ("all is there", of(vec![said(3, 3, 9), back(3, 3, 9)]), None),
                ("and more", of(vec![said(3, 3, 9), said(3, 3, 8), back(3, 3, 12)]), None),
                ("an entry is lost", of(vec![said(3, 3, 9), back(3, 3, 8)]), lost),
                ("with the vote", of(vec![said(3, 3, 9), back(2, 2, 20)]), lost),
                ("one of an earlier leader", of(vec![said(4, 3, 9), back(3, 3, 8)]), lost),
                (
                    "a later leader may have taken it back",
                    of(vec![said(3, 3, 9), back(4, 2, 8), said(4, 4, 8), back(4, 4, 8)]),
                    None,
                ),
            ],
        );
    }
}
