//! What became of each lease, as far as clients saw.

use crate::{
    evidence::{Effect, Evidence, steps},
    history::{Body, Call, Operation, Outcome, ReplicaFact},
};
use std::collections::{BTreeMap, BTreeSet};

/// One lease.
#[derive(Debug, Default)]
pub(crate) struct Lease<'h> {
    pub(crate) ttl_seconds: u64,
    /// How often it was asked for: an id that was used twice says nothing.
    pub(crate) grants: usize,
    /// Grants and renewals that were answered: it lived at least from when they were sent.
    pub(crate) renewed: Vec<&'h Operation>,
    /// When a grant or renewal, answered or not, may have been carried out at the latest.
    pub(crate) last_asked_ns: u64,
    /// Somebody asked for its end.
    pub(crate) is_revoked: bool,
    /// Renewals that found none.
    pub(crate) not_found: Vec<&'h Operation>,
    /// Keys that were put with it.
    pub(crate) keys: BTreeSet<&'h str>,
}

/// All leases.
pub(crate) fn leases<'h>(evidence: &Evidence<'h>) -> BTreeMap<u64, Lease<'h>> {
    let mut leases: BTreeMap<u64, Lease<'h>> = BTreeMap::new();
    for operation in &evidence.operations {
        let answer = match &operation.outcome {
            Outcome::Ok(answer) => Some(answer),
            Outcome::Unknown { .. } => None,
            Outcome::Failed { .. } => continue,
        };
        match &operation.call {
            Call::LeaseGrant { lease, ttl_seconds } => {
                let lease = leases.entry(*lease).or_default();
                lease.grants += 1;
                lease.ttl_seconds = lease.ttl_seconds.max(*ttl_seconds);
                lease.last_asked_ns = lease.last_asked_ns.max(operation.answered_ns);
                lease.renewed.extend(answer.map(|_| *operation));
            }
            Call::LeaseKeepAlive { lease } => {
                let lease = leases.entry(*lease).or_default();
                match answer.map(|answer| &answer.body) {
                    Some(Body::Lease { ttl_seconds: 0 }) => lease.not_found.push(operation),
                    Some(_) => {
                        lease.renewed.push(operation);
                        lease.last_asked_ns = lease.last_asked_ns.max(operation.answered_ns);
                    }
                    None => lease.last_asked_ns = lease.last_asked_ns.max(operation.answered_ns),
                }
            }
            Call::LeaseRevoke { lease } => leases.entry(*lease).or_default().is_revoked = true,
            Call::Put(_) | Call::Txn(_) => {
                for effect in steps(&operation.call) {
                    if let Effect::Put(put) = effect
                        && put.lease != 0
                    {
                        leases.entry(put.lease).or_default().keys.insert(&put.key);
                    }
                }
            }
            Call::Delete(_) | Call::Range(_) | Call::Compact { .. } | Call::Object(_) => {}
        }
    }
    leases
}

/// When the last change of leaders was seen; 0 if none was.
pub(crate) fn last_election_ns(evidence: &Evidence<'_>) -> u64 {
    let leads = evidence.replicas.iter().filter_map(|seen| match seen.fact {
        ReplicaFact::Leads { term } => Some((term, seen.at_ns)),
        ReplicaFact::Applied { .. }
        | ReplicaFact::Committed { .. }
        | ReplicaFact::Refused { .. }
        | ReplicaFact::Decided { .. }
        | ReplicaFact::Term { .. }
        | ReplicaFact::Acknowledged { .. }
        | ReplicaFact::Recovered { .. }
        | ReplicaFact::Started
        | ReplicaFact::Stopped => None,
    });
    let mut firsts: BTreeMap<u64, u64> = BTreeMap::new();
    for (term, at_ns) in leads {
        let first = firsts.entry(term).or_insert(at_ns);
        *first = (*first).min(at_ns);
    }
    firsts.values().copied().max().unwrap_or_default()
}
