//! What a change of the membership comes to: a function of the membership and what is known of the
//! members.

use crate::types::{Member, StoredMembership};
use openraft::ChangeMembers;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use store::{MemberChange, MemberError, MemberInfo, StoreError};

/// Learners that may be added by name at a time, as etcd's default has it.
const LEARNERS: usize = 1;
/// A learner that is promoted holds this part of the leader's log.
const IN_SYNC_PERCENT: u64 = 90;

/// A change as the leader is asked for it. Each can be asked for again when an answer was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    Add {
        /// Drawn by whoever asks, so that asking again adds nobody.
        id: u64,
        peer_urls: Vec<String>,
        learner: bool,
    },
    Remove {
        id: u64,
    },
    Update {
        id: u64,
        peer_urls: Vec<String>,
    },
    Promote {
        id: u64,
    },
    Publish {
        id: u64,
        name: String,
        client_urls: Vec<String>,
    },
    /// A member has started, on this disk.
    Start {
        id: u64,
        disk: u64,
        name: String,
        api_url: String,
        client_urls: Vec<String>,
    },
    /// A new voter holds the log.
    Vote {
        id: u64,
    },
    /// Nothing but to end a change that an earlier leader began.
    Settle,
}

impl Change {
    pub(crate) fn new(change: MemberChange) -> Self {
        match change {
            MemberChange::Add { peer_urls, learner } => {
                // 63 bits, which some clients take for signed: none that was ever used, but for a
                // chance of one in so many.
                Self::Add { id: rand::random_range(1..=i64::MAX as u64), peer_urls, learner }
            }
            MemberChange::Remove { id } => Self::Remove { id },
            MemberChange::Update { id, peer_urls } => Self::Update { id, peer_urls },
            MemberChange::Promote { id } => Self::Promote { id },
            MemberChange::Publish { id, name, client_urls } => {
                Self::Publish { id, name, client_urls }
            }
        }
    }

    /// Whether it must be known who answers.
    pub(crate) fn needs_answers(&self) -> bool {
        match self {
            Self::Add { learner, .. } => !learner,
            Self::Remove { .. } | Self::Promote { .. } => true,
            Self::Update { .. }
            | Self::Publish { .. }
            | Self::Start { .. }
            | Self::Vote { .. }
            | Self::Settle => false,
        }
    }
}

/// Why nothing was changed; what travels between members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    NotFound,
    PeerUrlExists,
    NotLearner,
    NotInSync,
    TooManyLearners,
    Unhealthy,
    NotEnoughStarted,
    /// The member has started with another disk.
    OtherDisk,
    /// Nothing was proposed: another member leads.
    NotLeader(Option<u64>),
    /// It may still commit.
    Unknown(String),
}

impl From<Refusal> for MemberError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::NotFound,
            Refusal::PeerUrlExists => Self::PeerUrlExists,
            Refusal::NotLearner => Self::NotLearner,
            Refusal::NotInSync => Self::NotInSync,
            Refusal::TooManyLearners => Self::TooManyLearners,
            Refusal::Unhealthy => Self::Unhealthy,
            Refusal::NotEnoughStarted => Self::NotEnoughStarted,
            Refusal::OtherDisk => {
                let detail = "the member has started with another disk".to_owned();
                Self::Store(StoreError::Stopped { detail })
            }
            Refusal::NotLeader(_) => {
                let detail = "nobody leads who could change the members".to_owned();
                Self::Store(StoreError::NoLeader { detail })
            }
            Refusal::Unknown(detail) => Self::Store(StoreError::Unknown { detail }),
        }
    }
}

/// A change that is done: the membership afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changed {
    pub(crate) cluster: u64,
    /// Where in the log it is.
    pub(crate) index: u64,
    /// Id, member, and whether it is a learner.
    pub(crate) members: Vec<(u64, Member, bool)>,
}

/// The members of a membership, and whether each is a learner: one that is to vote and does not yet
/// is none.
pub(crate) fn members(group: &StoredMembership) -> Vec<(u64, Member, bool)> {
    let voters: BTreeSet<u64> = group.voter_ids().collect();
    let nodes = group.nodes();
    nodes.map(|(id, m)| (*id, m.clone(), !m.votes && !voters.contains(id))).collect()
}

pub(crate) fn info((id, member, learner): (u64, Member, bool)) -> MemberInfo {
    let Member { name, peer_urls, client_urls, api_url, .. } = member;
    MemberInfo { id, name, peer_urls, client_urls, api_url, learner }
}

/// What the leader knows beside the membership.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The leader.
    pub(crate) me: u64,
    /// Those who answer, the leader included.
    pub(crate) answering: BTreeSet<u64>,
    /// How far the log is at each.
    pub(crate) matched: BTreeMap<u64, u64>,
    /// How far the log is here.
    pub(crate) last: u64,
}

/// What is to be done for a change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// It is as asked.
    Done,
    Propose(ChangeMembers<u64, Member>),
    /// This leader is to go: another one does it.
    HandOver,
}

/// `again`: it was asked for before, and may have been done then.
///
/// # Errors
/// As etcd refuses it, and when a disk is not the one that started.
pub(crate) fn plan(
    group: &StoredMembership,
    change: &Change,
    facts: &Facts,
    again: bool,
) -> Result<Plan, Refusal> {
    let voters: BTreeSet<u64> = group.voter_ids().collect();
    let member = |id: &u64| group.nodes().find(|(other, _)| *other == id).map(|(_, m)| m.clone());
    let taken = |urls: &[String], but: u64| {
        let mut others = group.nodes().filter(|(id, _)| **id != but);
        others.any(|(_, m)| m.peer_urls.iter().any(|url| urls.contains(url)))
    };
    let set = |id: u64, now: Member, wanted: Member| {
        if now == wanted {
            Plan::Done
        } else {
            Plan::Propose(ChangeMembers::SetNodes(BTreeMap::from([(id, wanted)])))
        }
    };
    match change {
        Change::Add { id, peer_urls, learner } => {
            if member(id).is_some_and(|m| m.peer_urls == *peer_urls) {
                return Ok(Plan::Done);
            }
            if member(id).is_some() || taken(peer_urls, 0) {
                return Err(Refusal::PeerUrlExists);
            }
            if *learner {
                let learners = members(group).iter().filter(|(_, _, learner)| *learner).count();
                if learners >= LEARNERS {
                    return Err(Refusal::TooManyLearners);
                }
            } else {
                let waiting = group.nodes().filter(|(_, m)| m.votes).map(|(id, _)| *id);
                let all: BTreeSet<u64> = voters.iter().copied().chain(waiting).collect();
                // The second member of a single one has nobody else to wait for.
                if all.len() > 1 {
                    check(group, &all, all.len() + 1, facts)?;
                }
            }
            let new = Member { peer_urls: peer_urls.clone(), votes: !learner, ..Member::default() };
            Ok(Plan::Propose(ChangeMembers::AddNodes(BTreeMap::from([(*id, new)]))))
        }
        Change::Remove { id } => {
            if member(id).is_none() {
                return if again { Ok(Plan::Done) } else { Err(Refusal::NotFound) };
            }
            if !voters.contains(id) {
                return Ok(Plan::Propose(ChangeMembers::RemoveNodes(BTreeSet::from([*id]))));
            }
            let rest: BTreeSet<u64> = voters.iter().copied().filter(|other| other != id).collect();
            check(group, &rest, rest.len(), facts)?;
            if *id == facts.me {
                return Ok(Plan::HandOver);
            }
            Ok(Plan::Propose(ChangeMembers::RemoveVoters(BTreeSet::from([*id]))))
        }
        Change::Update { id, peer_urls } => {
            let now = member(id).ok_or(Refusal::NotFound)?;
            if taken(peer_urls, *id) {
                return Err(Refusal::PeerUrlExists);
            }
            let wanted = Member { peer_urls: peer_urls.clone(), ..now.clone() };
            Ok(set(*id, now, wanted))
        }
        Change::Promote { id } => {
            let now = member(id).ok_or(Refusal::NotFound)?;
            if voters.contains(id) || now.votes {
                return if again { Ok(Plan::Done) } else { Err(Refusal::NotLearner) };
            }
            let matched = facts.matched.get(id).copied().unwrap_or_default();
            if now.disk == 0
                || !facts.answering.contains(id)
                || matched.saturating_mul(100) < facts.last.saturating_mul(IN_SYNC_PERCENT)
            {
                return Err(Refusal::NotInSync);
            }
            let all: BTreeSet<u64> = voters.iter().copied().chain([*id]).collect();
            check(group, &all, all.len(), facts)?;
            Ok(Plan::Propose(ChangeMembers::Batch(vec![
                ChangeMembers::SetNodes(BTreeMap::from([(*id, Member { votes: true, ..now })])),
                ChangeMembers::AddVoterIds(BTreeSet::from([*id])),
            ])))
        }
        Change::Publish { id, name, client_urls } => {
            let now = member(id).ok_or(Refusal::NotFound)?;
            let wanted =
                Member { name: name.clone(), client_urls: client_urls.clone(), ..now.clone() };
            Ok(set(*id, now, wanted))
        }
        Change::Start { id, disk, name, api_url, client_urls } => {
            let now = member(id).ok_or(Refusal::NotFound)?;
            if now.disk != 0 && now.disk != *disk {
                return Err(Refusal::OtherDisk);
            }
            let wanted = Member {
                name: name.clone(),
                api_url: api_url.clone(),
                client_urls: client_urls.clone(),
                disk: *disk,
                ..now.clone()
            };
            Ok(set(*id, now, wanted))
        }
        Change::Vote { id } => match member(id) {
            Some(now) if now.votes && now.disk != 0 && !voters.contains(id) => {
                Ok(Plan::Propose(ChangeMembers::AddVoterIds(BTreeSet::from([*id]))))
            }
            Some(_) | None => Ok(Plan::Done),
        },
        Change::Settle => Ok(Plan::Done),
    }
}

/// Whether a group of `size`, of which these are known, would have a quorum that has started, and one
/// that answers.
fn check(
    group: &StoredMembership,
    known: &BTreeSet<u64>,
    size: usize,
    facts: &Facts,
) -> Result<(), Refusal> {
    let quorum = size / 2 + 1;
    let started = group.nodes().filter(|(id, m)| known.contains(id) && m.disk != 0).count();
    if started < quorum {
        return Err(Refusal::NotEnoughStarted);
    }
    if known.intersection(&facts.answering).count() < quorum {
        return Err(Refusal::Unhealthy);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Membership;

    /// Members 1 to n vote and have started, but for `unstarted`; 9 is a learner.
    fn group(voters: u64, unstarted: &[u64], learner: bool) -> StoredMembership {
        let member = |id: u64, votes| Member {
            peer_urls: vec![format!("http://{id}")],
            disk: if unstarted.contains(&id) { 0 } else { 100 + id },
            votes,
            ..Member::default()
        };
        let mut nodes: BTreeMap<u64, Member> =
            (1..=voters).map(|id| (id, member(id, true))).collect();
        if learner {
            nodes.insert(9, member(9, false));
        }
        let membership = Membership::new(vec![(1..=voters).collect()], nodes).unwrap();
        StoredMembership::new(None, membership)
    }

    fn facts(answering: &[u64]) -> Facts {
        let matched = BTreeMap::from([(9, 90)]);
        Facts { me: 1, answering: answering.iter().copied().collect(), matched, last: 100 }
    }

    fn add(url: &str, learner: bool) -> Change {
        Change::Add { id: 77, peer_urls: vec![url.to_owned()], learner }
    }

    #[test]
    fn changes_that_would_cost_the_quorum_are_refused_as_etcd_refuses_them() {
        use Refusal::{
            NotEnoughStarted, NotFound, NotInSync, NotLearner, PeerUrlExists, TooManyLearners,
            Unhealthy,
        };
        let remove = |id| Change::Remove { id };
        let promote = |id| Change::Promote { id };
        let moved = |id, url: &str| Change::Update { id, peer_urls: vec![url.to_owned()] };
        for (what, group, change, answering, want) in [
            ("an unknown member", group(3, &[], false), remove(5), &[1, 2, 3][..], NotFound),
            ("unknown, to promote", group(3, &[], false), promote(5), &[1, 2, 3], NotFound),
            ("unknown, to move", group(3, &[], false), moved(5, "http://n"), &[1], NotFound),
            (
                "a URL twice",
                group(3, &[], false),
                add("http://2", false),
                &[1, 2, 3],
                PeerUrlExists,
            ),
            ("a URL of another", group(3, &[], false), moved(1, "http://2"), &[1], PeerUrlExists),
            ("a second learner", group(3, &[], true), add("http://n", true), &[1], TooManyLearners),
            ("a voter", group(3, &[], false), promote(2), &[1, 2, 3], NotLearner),
            ("a learner that is away", group(3, &[], true), promote(9), &[1, 2, 3], NotInSync),
            ("one that never started", group(3, &[9], true), promote(9), &[1, 9, 2], NotInSync),
            ("the last", group(1, &[], false), remove(1), &[1], NotEnoughStarted),
            ("two, one unstarted", group(2, &[2], false), remove(1), &[1], NotEnoughStarted),
            (
                "a third beside an unstarted one",
                group(2, &[2], false),
                add("http://n", false),
                &[1, 2],
                NotEnoughStarted,
            ),
            (
                "one of three when another is away",
                group(3, &[], false),
                remove(2),
                &[1, 2],
                Unhealthy,
            ),
            (
                "a fourth while one is away",
                group(3, &[], false),
                add("http://n", false),
                &[1, 2],
                Unhealthy,
            ),
        ] {
            let got = plan(&group, &change, &facts(answering), false);
            assert_eq!(got, Err(want), "{what}");
        }
    }

    #[test]
    fn what_is_in_order_is_proposed() {
        let proposed = |group: &StoredMembership, change: &Change, answering: &[u64]| {
            matches!(plan(group, change, &facts(answering), false), Ok(Plan::Propose(_)))
        };
        assert!(proposed(&group(1, &[], false), &add("http://n", false), &[1]), "the second");
        assert!(proposed(&group(3, &[], false), &add("http://n", true), &[1]), "a learner");
        assert!(proposed(&group(3, &[], true), &Change::Promote { id: 9 }, &[1, 2, 9]));
        assert!(proposed(&group(3, &[], false), &Change::Remove { id: 3 }, &[1, 2]), "a dead one");
        assert!(proposed(&group(2, &[], false), &Change::Remove { id: 2 }, &[1, 2]));
        let leader =
            plan(&group(3, &[], false), &Change::Remove { id: 1 }, &facts(&[1, 2, 3]), false);
        assert_eq!(leader, Ok(Plan::HandOver));
        let mut behind = facts(&[1, 2, 9]);
        behind.matched.insert(9, 89);
        let learner = plan(&group(3, &[], true), &Change::Promote { id: 9 }, &behind, false);
        assert_eq!(learner, Err(Refusal::NotInSync), "89 of 100");
    }

    #[test]
    fn asked_again_a_change_that_was_done_is_done() {
        let removed = plan(&group(3, &[], false), &Change::Remove { id: 4 }, &facts(&[1, 2]), true);
        assert_eq!(removed, Ok(Plan::Done));
        let voter = plan(&group(3, &[], false), &Change::Promote { id: 2 }, &facts(&[1, 2]), true);
        assert_eq!(voter, Ok(Plan::Done));
        let added = Change::Add { id: 3, peer_urls: vec!["http://3".to_owned()], learner: false };
        assert_eq!(plan(&group(3, &[], false), &added, &facts(&[1]), true), Ok(Plan::Done));
    }

    #[test]
    fn a_member_that_has_started_has_one_disk() {
        let start = |disk| Change::Start {
            id: 2,
            disk,
            name: String::new(),
            api_url: String::new(),
            client_urls: vec![],
        };
        assert_eq!(plan(&group(3, &[], false), &start(102), &facts(&[]), false), Ok(Plan::Done));
        let other = plan(&group(3, &[], false), &start(103), &facts(&[]), false);
        assert_eq!(other, Err(Refusal::OtherDisk));
        let first = plan(&group(3, &[2], false), &start(103), &facts(&[]), false);
        assert!(matches!(first, Ok(Plan::Propose(ChangeMembers::SetNodes(_)))), "{first:?}");
    }
}
