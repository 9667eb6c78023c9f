//! At most one replica leads in a term.

use crate::{
    evidence::Evidence,
    history::ReplicaFact,
    property::{Findings, Property},
    show::Time,
};
use std::collections::BTreeMap;

pub(super) const PROPERTY: Property = Property {
    name: "one leader a term",
    sources: &["raft §5.2 (Election Safety)"],
    file: file!(),
    check,
};

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let mut leaders = BTreeMap::new();
    for seen in &evidence.replicas {
        let ReplicaFact::Leads { term } = seen.fact else { continue };
        findings.look();
        let first = *leaders.entry(term).or_insert(*seen);
        if first.replica != seen.replica {
            let (one, other) = (first.replica, seen.replica);
            let (since, now) = (Time(first.at_ns), Time(seen.at_ns));
            findings.violated(
                seen.at_ns,
                format!("term {term}: replica {one} leads at {since}, replica {other} at {now}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hold, replica};

    #[test]
    fn a_second_leader_of_a_term_is_caught() {
        let leads = |who, ms, term| replica(who, ms, ReplicaFact::Leads { term });
        hold(
            &PROPERTY,
            vec![
                ("leaders take turns", vec![leads(1, 1, 1), leads(2, 2, 2), leads(2, 3, 2)], None),
                ("a split brain", vec![leads(1, 1, 3), leads(2, 2, 3)], Some("term 3: replica 1")),
            ],
        );
    }
}
