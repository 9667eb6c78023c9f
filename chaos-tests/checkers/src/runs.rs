//! What ran where and when, by what nodes' runtimes were seen to do.

use crate::{
    evidence::Evidence,
    history::{RuntimeFact, RuntimeSeen},
};
use std::collections::BTreeMap;

/// One container's process, from its start to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'h> {
    pub(crate) started: &'h RuntimeSeen,
    /// The last time that it was asked to end.
    pub(crate) asked_ns: Option<u64>,
    /// None if it still ran when the history ended.
    pub(crate) stopped_ns: Option<u64>,
}

impl Run<'_> {
    /// Whether both ran at some time.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let begins_before_end = |one: &Self, other: &Self| {
            other.stopped_ns.is_none_or(|stopped_ns| one.started.at_ns < stopped_ns)
        };
        begins_before_end(self, other) && begins_before_end(other, self)
    }
}

/// All runs, by start, and starts of containers that already ran on that node.
pub(crate) fn runs<'h>(evidence: &Evidence<'h>) -> (Vec<Run<'h>>, Vec<(Run<'h>, &'h RuntimeSeen)>) {
    let mut open: BTreeMap<(&str, &str, &str), Run<'h>> = BTreeMap::new();
    let (mut ended, mut doubled) = (Vec::new(), Vec::new());
    for seen in &evidence.runtime {
        let name = (seen.node.as_str(), seen.pod_uid.as_str(), seen.container.as_str());
        match seen.fact {
            RuntimeFact::Started => {
                let run = Run { started: seen, asked_ns: None, stopped_ns: None };
                if let Some(first) = open.insert(name, run) {
                    doubled.push((first, *seen));
                    ended.push(first);
                }
            }
            RuntimeFact::Asked => {
                if let Some(run) = open.get_mut(&name) {
                    run.asked_ns = Some(seen.at_ns);
                }
            }
            RuntimeFact::Stopped => {
                if let Some(run) = open.remove(&name) {
                    ended.push(Run { stopped_ns: Some(seen.at_ns), ..run });
                }
            }
        }
    }
    ended.extend(open.into_values());
    ended.sort_by_key(|run| run.started.at_ns);
    (ended, doubled)
}
