//! What is seen of replicas from one millisecond to the next, in the terms of package `checkers`.
//!
//! Beside them stands the *log's own state*: every entry that any of them has applied, applied once more, in order,
//! to a state that has no disk, no snapshots and no crashes.

use checkers::history::{ReplicaFact, ReplicaSeen};
use raft::{AppliedEntry, LogEnd, RaftStore};
use std::{collections::BTreeMap, sync::Arc};
use store::{
    Cluster as _, Event, MemberRole, Origin, Store as _,
    state::{SnapshotRecord, State},
};

/// Below which the API keeps its objects.
const OBJECTS: &[u8] = b"/registry/";

/// Replicas as they were seen.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    members: BTreeMap<u64, Member>,
    log: LogState,
    seen: Vec<ReplicaSeen>,
}

/// What was seen last of a replica's process.
#[derive(Debug, Default)]
struct Member {
    runs: bool,
    term: u64,
    /// In which it was seen to lead.
    led: Option<u64>,
    /// The first index that was not seen applied.
    next: u64,
    /// Of others, as a leader.
    acknowledged: BTreeMap<u64, LogEnd>,
}

/// The state that the log gives.
#[derive(Debug, Default)]
struct LogState {
    state: State,
    /// Of the next entry.
    next: u64,
    /// Entries were dropped before anybody looked: it cannot go on.
    broken_off: bool,
    /// Of objects, in order.
    changes: Vec<Arc<Event>>,
}

impl Observer {
    /// A replica's process has ended, or its machine's power has gone.
    pub(crate) fn stopped(&mut self, at_ns: u64, id: u64) {
        let member = self.members.entry(id).or_default();
        if std::mem::take(&mut member.runs) {
            self.seen.push(ReplicaSeen { at_ns, replica: id, fact: ReplicaFact::Stopped });
        }
    }

    /// Looks at a replica that runs: in each millisecond, so that the first look at a process finds what was on its
    /// disk.
    pub(crate) fn look(&mut self, at_ns: u64, store: &RaftStore) {
        let local = store.local();
        let id = local.member_id;
        let member = self.members.entry(id).or_default();
        let mut note = |replica, fact| self.seen.push(ReplicaSeen { at_ns, replica, fact });
        if !member.runs {
            *member = Member { runs: true, term: local.term, ..Member::default() };
            note(id, ReplicaFact::Started);
            if let Ok(LogEnd { term: last_term, index: last_index }) = store.log_end() {
                note(id, ReplicaFact::Recovered { term: local.term, last_term, last_index });
            }
        }
        if member.term != local.term {
            member.term = local.term;
            note(id, ReplicaFact::Term { term: local.term });
        }
        if local.role == MemberRole::Leader {
            if member.led != Some(local.term) {
                member.led = Some(local.term);
                note(id, ReplicaFact::Leads { term: local.term });
            }
            for (other, end) in store.acknowledged() {
                if member.acknowledged.insert(other, end) != Some(end) {
                    let LogEnd { term, index } = end;
                    let leader_term = local.term;
                    note(other, ReplicaFact::Acknowledged { leader_term, term, index });
                }
            }
        } else {
            member.acknowledged.clear();
        }
        if local.applied_index < member.next {
            return;
        }
        // What the log has no more was applied by way of a snapshot.
        let entries = store.applied_entries(member.next).unwrap_or_default();
        if entries.is_empty() && local.applied_index == 0 {
            // A first entry is yet to come.
            return;
        }
        let view = store.view();
        note(
            id,
            ReplicaFact::Applied {
                index: local.applied_index,
                term: 0,
                state_hash: view.hash(),
                revision: view.revision().get(),
                epoch: view.epoch().0,
            },
        );
        member.next = local.applied_index + 1;
        for entry in &entries {
            let AppliedEntry { index, term, digest, .. } = *entry;
            note(id, ReplicaFact::Committed { index, term, digest });
        }
        for entry in &entries {
            self.log.apply(entry, |fact| note(id, fact));
        }
    }

    /// The latest that any of them knows of.
    pub(crate) fn term(&self) -> u64 {
        self.members.values().map(|member| member.term).max().unwrap_or_default()
    }

    /// How a replica's state differs from the log's own in anything, the answers to requests included, or in what
    /// is kept of the past. `None` also if they are not of one index.
    pub(crate) fn difference(&self, store: &RaftStore) -> Option<String> {
        let (state, index) = (store.state(), store.local().applied_index);
        if self.log.broken_off || self.log.next != index + 1 {
            return None;
        }
        let mut pairs = self.log.state.export().zip(state.export());
        let (log, replica): (SnapshotRecord, SnapshotRecord) = pairs.find(|(a, b)| a != b)?;
        Some(format!("at index {index}: by the log {log:?}, at the replica {replica:?}"))
    }

    /// Changes of objects that the log has made since this was asked last, in order.
    pub(crate) fn take_changes(&mut self) -> Vec<Arc<Event>> {
        std::mem::take(&mut self.log.changes)
    }

    /// What was seen since this was asked last, in order.
    pub(crate) fn take(&mut self) -> Vec<ReplicaSeen> {
        std::mem::take(&mut self.seen)
    }
}

impl LogState {
    fn apply(&mut self, entry: &AppliedEntry, mut note: impl FnMut(ReplicaFact)) {
        if self.broken_off || entry.index < self.next {
            return;
        }
        if entry.index > self.next {
            self.broken_off = true;
            return;
        }
        let index = entry.index;
        self.next = index + 1;
        for command in &entry.commands {
            let before = self.state.view();
            let (hash_before, revision_before) = (before.hash(), before.revision().get());
            let current = before.epoch().0;
            drop(before);
            let transition = self.state.apply(command);
            if transition.repeated {
                continue;
            }
            let is_object = |event: &&Arc<Event>| event.kv.key.starts_with(OBJECTS);
            self.changes.extend(transition.events.iter().filter(is_object).cloned());
            let refusal = transition.applied.outcome.err();
            if let Origin::Controller { epoch } = &command.origin {
                let (epoch, carried_out) = (epoch.0, refusal.is_none());
                note(ReplicaFact::Decided { index, epoch, current, carried_out });
            }
            let Some(refusal) = refusal else { continue };
            let after = self.state.view();
            note(ReplicaFact::Refused {
                index,
                reason: refusal.to_string(),
                hash_before,
                hash_after: after.hash(),
                revision_before,
                revision_after: after.revision().get(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{Command, Epoch, Op, RequestId, Timestamp, Txn};

    fn entry(index: u64, origin: Origin, op: Op) -> AppliedEntry {
        let request = RequestId { client: 1, sequence: index + 1 };
        let command = Command { at: Timestamp(index), request, origin, op };
        AppliedEntry { index, term: 1, digest: index, commands: vec![command] }
    }

    fn decided(index: u64, epoch: u64) -> AppliedEntry {
        let origin = Origin::Controller { epoch: Epoch(epoch) };
        entry(index, origin, Op::Txn(Txn::default()))
    }

    fn begin(index: u64, epoch: u64) -> AppliedEntry {
        entry(index, Origin::Client, Op::BeginEpoch { epoch: Epoch(epoch), leader: 1 })
    }

    fn facts(entries: &[AppliedEntry]) -> Vec<ReplicaFact> {
        let (mut log, mut facts) = (LogState::default(), Vec::new());
        entries.iter().for_each(|entry| log.apply(entry, |fact| facts.push(fact)));
        facts
    }

    /// FEN-6, INV-9
    #[test]
    fn decisions_and_refusals_are_told_once_and_in_the_order_of_the_log() {
        let entries = [begin(0, 1), decided(1, 1), begin(2, 2), decided(3, 1)];
        let again: Vec<AppliedEntry> =
            entries.iter().flat_map(|entry| [entry.clone(), entry.clone()]).collect();
        let told = facts(&again);
        let of = |fact: &ReplicaFact| {
            let ReplicaFact::Decided { index, epoch, current, carried_out } = *fact else {
                return None;
            };
            Some((index, epoch, current, carried_out))
        };
        let decisions: Vec<_> = told.iter().filter_map(of).collect();
        assert_eq!(decisions, [(1, 1, 1, true), (3, 1, 2, false)]);
        let [_, _, ReplicaFact::Refused { index: 3, hash_before, hash_after, .. }] = &told[..]
        else {
            panic!("{told:?}");
        };
        assert_eq!(hash_before, hash_after);
    }

    #[test]
    fn nothing_is_told_behind_entries_that_were_not_seen() {
        assert!(facts(&[begin(0, 1), decided(2, 1), decided(3, 1)]).is_empty());
    }
}
