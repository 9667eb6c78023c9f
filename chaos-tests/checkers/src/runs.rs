//! What ran where and when, by what nodes' runtimes were seen to do.

use crate::{
    evidence::{Evidence, Life},
    history::{Call, ObjectVerb, RuntimeFact, RuntimeSeen},
    pods,
};
use serde_json::Value;
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

/// Somebody said that it need not be waited for, or its node was taken away or is known to be off.
pub(crate) fn was_given_up(
    evidence: &Evidence<'_>,
    uid: &str,
    (namespace, name): (&str, &str),
) -> bool {
    let is_forced = evidence.operations.iter().any(|operation| match &operation.call {
        Call::Object(call) => {
            call.verb == ObjectVerb::Delete
                && (call.namespace.as_str(), call.name.as_str()) == (namespace, name)
                && call.body.get("gracePeriodSeconds").and_then(Value::as_i64) == Some(0)
        }
        Call::Put(_)
        | Call::Delete(_)
        | Call::Range(_)
        | Call::Txn(_)
        | Call::LeaseGrant { .. }
        | Call::LeaseKeepAlive { .. }
        | Call::LeaseRevoke { .. }
        | Call::Compact { .. } => false,
    });
    let Some(pod) = evidence.objects.get(uid) else { return is_forced };
    let node = pod.versions.values().map(pods::node).find(|node| !node.is_empty()).unwrap_or("");
    let mut nodes = evidence.objects.of_kind("Node").filter(|life| life.name() == node);
    is_forced || nodes.any(|node| node.deleted().is_some() || is_out_of_service(node))
}

fn is_out_of_service(node: &Life<'_>) -> bool {
    node.versions.values().any(|version| {
        let taints = version.get("/spec/taints").and_then(Value::as_array).into_iter().flatten();
        taints
            .map(|taint| pods::text(taint, "key"))
            .any(|key| key == "node.kubernetes.io/out-of-service")
    })
}
