//! What ran where and when, by what nodes' runtimes were seen to do.

use crate::{
    evidence::{Evidence, Life, Version},
    history::{Body, Call, ObjectVerb, Outcome, RuntimeFact, RuntimeSeen},
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

/// Somebody said that this Pod's end need not be waited for, it has no grace, or its node was taken away or is known
/// to be off.
pub(crate) fn was_given_up(
    evidence: &Evidence<'_>,
    uid: &str,
    (namespace, name): (&str, &str),
) -> bool {
    let pod = evidence.objects.get(uid);
    let ended_ns = pod.and_then(Life::deleted).map_or(u64::MAX, |end| end.seen_ns);
    // Whoever was answered before somebody asked for this Pod has met another one of its name.
    let asked_for_ns = created_ns(evidence, uid);
    let is_forced = evidence.operations.iter().any(|operation| {
        let Call::Object(call) = &operation.call else { return false };
        call.verb == ObjectVerb::Delete
            && (call.namespace.as_str(), call.name.as_str()) == (namespace, name)
            && call.uid.as_ref().is_none_or(|meant| meant == uid)
            && call.body.get("gracePeriodSeconds").and_then(Value::as_i64) == Some(0)
            && operation.invoked_ns <= ended_ns
            && match operation.outcome {
                Outcome::Ok(_) => operation.answered_ns >= asked_for_ns,
                Outcome::Unknown { .. } => true,
                Outcome::Failed { .. } => false,
            }
    });
    let Some(pod) = pod else { return is_forced };
    let node = pod.versions.values().map(pods::node).find(|node| !node.is_empty()).unwrap_or("");
    let mut nodes = evidence.objects.of_kind("Node").filter(|life| life.name() == node);
    is_forced
        || pod.versions.values().any(|version| !version.deleted && has_no_grace(version))
        || nodes.any(|node| node.deleted().is_some() || is_out_of_service(node))
}

/// When somebody asked for an object of this uid; 0 if nobody was seen to.
fn created_ns(evidence: &Evidence<'_>, uid: &str) -> u64 {
    let created = evidence.answered().filter(|answered| {
        let is_create =
            matches!(answered.call, Call::Object(call) if call.verb == ObjectVerb::Create);
        is_create && matches!(&answered.answer.body, Body::Object(Some(made)) if made.uid == uid)
    });
    created.map(|answered| answered.operation.invoked_ns).min().unwrap_or_default()
}

/// Without a grace nothing is waited for (DELAPI-5).
fn has_no_grace(version: &Version<'_>) -> bool {
    let is_zero = |pointer| version.get(pointer).and_then(Value::as_i64) == Some(0);
    is_zero("/spec/terminationGracePeriodSeconds")
        || is_zero("/metadata/deletionGracePeriodSeconds")
}

fn is_out_of_service(node: &Life<'_>) -> bool {
    node.versions.values().any(|version| {
        let taints = version.get("/spec/taints").and_then(Value::as_array).into_iter().flatten();
        taints
            .map(|taint| pods::text(taint, "key"))
            .any(|key| key == "node.kubernetes.io/out-of-service")
    })
}
