//! Who has helped somebody to the lead in a term never forgets that term, whatever becomes of its process and its
//! power: it might help another one in the same term.

use crate::{
    evidence::Evidence,
    history::{ReplicaFact, ReplicaSeen},
    property::{Findings, Property},
    show::Time,
};
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

pub(super) const PROPERTY: Property = Property {
    name: "votes outlive crashes",
    sources: &["raft §5.2 (Election Safety), Figure 2 (persistent state)"],
    file: file!(),
    check,
};

/// A member, as far as it was seen.
#[derive(Debug, Default)]
struct Member {
    /// The last that it knew of, and in this process.
    term: u64,
    /// When it was first seen to know of each term.
    learned: BTreeMap<u64, u64>,
    /// When its process ended last.
    stopped_ns: Option<u64>,
}

/// An election that somebody has won.
struct Election<'h> {
    won: &'h ReplicaSeen,
    term: u64,
    /// Who may have voted for the winner, itself included.
    may_have_voted: BTreeSet<u64>,
    /// Those of them that have been seen in an earlier term since.
    forgot: BTreeSet<u64>,
}

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let voters = usize::try_from(evidence.history.settings.voters).unwrap_or_default();
    // Who needs no vote but its own promises nobody anything.
    if voters < 2 {
        return;
    }
    let quorum = voters / 2 + 1;
    let mut members: BTreeMap<u64, Member> = BTreeMap::new();
    let mut elections: BTreeMap<u64, Election<'_>> = BTreeMap::new();
    for seen in &evidence.replicas {
        let member = members.entry(seen.replica).or_default();
        let term = match seen.fact {
            ReplicaFact::Term { term } | ReplicaFact::Recovered { term, .. } => term,
            ReplicaFact::Stopped => {
                member.stopped_ns = Some(seen.at_ns);
                continue;
            }
            ReplicaFact::Leads { term } => {
                if let Entry::Vacant(first) = elections.entry(term) {
                    first.insert(election(&members, seen, term));
                    findings.look();
                }
                term
            }
            ReplicaFact::Applied { .. }
            | ReplicaFact::Committed { .. }
            | ReplicaFact::Refused { .. }
            | ReplicaFact::Decided { .. }
            | ReplicaFact::Acknowledged { .. }
            | ReplicaFact::Started => continue,
        };
        if let Some(member) = members.get_mut(&seen.replica) {
            member.term = term;
            member.learned.entry(term).or_insert(seen.at_ns);
        }
        for election in elections.range_mut(term + 1..).map(|(_, election)| election) {
            if !election.may_have_voted.contains(&seen.replica)
                || !election.forgot.insert(seen.replica)
            {
                continue;
            }
            if election.may_have_voted.len() - election.forgot.len() < quorum {
                let (of, who, when) =
                    (election.term, election.won.replica, Time(election.won.at_ns));
                let text = format!(
                    "replica {who} led in term {of} at {when}; of those that may have voted for it, \
                     {:?}, these have forgotten: {:?}, the last one was seen in term {term}; {quorum} \
                     votes were needed",
                    election.may_have_voted, election.forgot
                );
                findings.violated(seen.at_ns, text);
            }
        }
    }
}

fn election<'h>(members: &BTreeMap<u64, Member>, won: &'h ReplicaSeen, term: u64) -> Election<'h> {
    // Nobody was asked for a vote before the winner had come to the term itself.
    let winner = members.get(&won.replica);
    let asked_ns = winner
        .and_then(|winner| winner.learned.range(term..).map(|(_, at_ns)| *at_ns).min())
        .unwrap_or(won.at_ns);
    let may_have_voted = members
        .iter()
        .filter(|(id, member)| {
            // Whose process has ended since may have voted unseen.
            **id == won.replica
                || member.term >= term
                || member.stopped_ns.is_some_and(|at_ns| at_ns > asked_ns)
        })
        .map(|(id, _)| *id);
    Election { won, term, may_have_voted: may_have_voted.collect(), forgot: BTreeSet::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{History, Record, Settings},
        testing::{judge, replica},
    };

    fn knows(who: u64, ms: u64, term: u64) -> Record {
        replica(who, ms, ReplicaFact::Term { term })
    }

    fn back(who: u64, ms: u64, term: u64) -> Record {
        replica(who, ms, ReplicaFact::Recovered { term, last_term: 0, last_index: 0 })
    }

    fn stopped(who: u64, ms: u64) -> Record {
        replica(who, ms, ReplicaFact::Stopped)
    }

    /// All three know of term 1; the third is gone.
    fn begun() -> Vec<Record> {
        vec![knows(1, 1, 1), knows(2, 1, 1), knows(3, 1, 1), stopped(3, 5)]
    }

    fn won(ms: u64) -> Record {
        replica(1, ms, ReplicaFact::Leads { term: 2 })
    }

    #[test]
    fn a_vote_that_is_forgotten_is_caught() {
        let with = |more: Vec<Record>| [begun(), more].concat();
        let cases = vec![
            (
                "it is remembered",
                with(vec![knows(1, 10, 2), knows(2, 11, 2), won(12), back(2, 20, 2)]),
                None,
            ),
            (
                "the only voter forgets",
                with(vec![knows(1, 10, 2), knows(2, 11, 2), won(12), back(2, 20, 1)]),
                Some("these have forgotten: {2}"),
            ),
            (
                "so does the winner",
                with(vec![knows(1, 10, 2), knows(2, 11, 2), won(12), back(1, 20, 1)]),
                Some("these have forgotten: {1}"),
            ),
            (
                "another one may have voted",
                with(vec![
                    back(3, 9, 1),
                    knows(1, 10, 2),
                    knows(2, 11, 2),
                    knows(3, 11, 2),
                    won(12),
                    back(2, 20, 1),
                ]),
                None,
            ),
            (
                "the voter was gone before the lead was seen",
                with(vec![knows(1, 10, 2), stopped(2, 11), won(12), back(2, 20, 1)]),
                Some("these have forgotten: {2}"),
            ),
        ];
        for (name, records, caught) in cases {
            let settings = Settings { voters: 3, ..Settings::default() };
            judge(&PROPERTY, name, &History { settings, records }, caught);
        }
    }
}
