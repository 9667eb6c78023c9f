//! What is to be written of one node, by its conditions.

use api::{
    core::{Node, NodeCondition, Taint},
    scheduling::taints,
};
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that are bad when they are True, and their taints (NOD-12).
const PRESSURES: &[(&str, &str)] = &[
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
/// What a kubelet reports; all Unknown when it does not (§6.3).
const REPORTED: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What becomes of a node's Pods when it is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eviction {
    /// It is this node's turn.
    Begins,
    /// It waits for its turn, or has had it.
    AsBefore,
    /// Nobody is evicted now, and whoever was to be is not any more.
    Never,
}

pub(super) fn ready(node: &Node) -> Option<&NodeCondition> {
    condition(node, "Ready")
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let mut conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.find(|c| c.type_ == kind)
}

/// Whether the condition `Ready` is True.
pub(crate) fn is_ready(node: &Node) -> bool {
    ready(node).is_some_and(|c| c.status == "True")
}

/// The conditions of a node that is not heard; `None` when they say so already.
pub(super) fn unheard(node: &Node) -> Option<Vec<Value>> {
    let unknown = |kind: &&str| condition(node, kind).is_some_and(|c| c.status == "Unknown");
    if REPORTED.iter().all(unknown) {
        return None;
    }
    let mut object = json!({"status": {"conditions": node.status.as_ref().map(|s| &s.conditions)}});
    for kind in REPORTED {
        let (reason, message) = match condition(node, kind) {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let mut condition =
            json!({"type": kind, "status": "Unknown", "reason": reason, "message": message});
        let heartbeat = self::condition(node, kind).and_then(|c| c.last_heartbeat_time.clone());
        if let (Some(time), Some(fields)) = (heartbeat, condition.as_object_mut()) {
            let time = serde_json::to_value(time).unwrap_or_default();
            fields.insert("lastHeartbeatTime".to_owned(), time);
        }
        api::pod::set_condition(&mut object, condition);
    }
    object.pointer("/status/conditions").and_then(Value::as_array).cloned()
}

/// The taints that the node is to have; `None` when it has them. Those of others are left alone.
pub(super) fn taints_of(node: &Node, eviction: Eviction) -> Option<Vec<Taint>> {
    let bad = match ready(node).map(|c| c.status.as_str()) {
        Some("True") | None => None,
        Some("Unknown") => Some(UNREACHABLE),
        Some(_) => Some(NOT_READY),
    };
    let is_true = |kind: &str| condition(node, kind).is_some_and(|c| c.status == "True");
    let pressures = PRESSURES.iter().filter(|(kind, _)| is_true(kind)).map(|(_, key)| *key);
    let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true);
    let wanted: Vec<&str> =
        bad.into_iter().chain(pressures).chain(cordoned.then_some(UNSCHEDULABLE)).collect();
    let is_loss = |key: &str| [NOT_READY, UNREACHABLE].contains(&key);
    let is_ours = |taint: &Taint| match taint.effect.as_str() {
        "NoSchedule" => {
            is_loss(&taint.key)
                || taint.key == UNSCHEDULABLE
                || PRESSURES.iter().any(|(_, key)| *key == taint.key)
        }
        "NoExecute" => is_loss(&taint.key),
        _ => false,
    };
    let old = taints(node);
    let evicted = old.iter().any(|taint| taint.effect == "NoExecute" && is_ours(taint));
    // One for the other at once: the Pods' time goes on.
    let evicts = match eviction {
        Eviction::Begins => bad,
        Eviction::AsBefore => bad.filter(|_| evicted),
        Eviction::Never => None,
    };
    let mut new: Vec<Taint> = old.iter().filter(|taint| !is_ours(taint)).cloned().collect();
    let keyed = |key: &str, effect: &str| {
        // As it is, with the time it was added at.
        let found = old.iter().find(|taint| taint.key == key && taint.effect == effect).cloned();
        found.unwrap_or_else(|| Taint {
            key: key.to_owned(),
            effect: effect.to_owned(),
            ..Taint::default()
        })
    };
    new.extend(wanted.iter().map(|key| keyed(key, "NoSchedule")));
    new.extend(evicts.map(|key| keyed(key, "NoExecute")));
    let same = new.len() == old.len() && new.iter().all(|taint| old.contains(taint));
    (!same).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(conditions: &[(&str, &str)], taints: &[(&str, &str)], cordoned: bool) -> Node {
        let conditions: Vec<Value> =
            conditions.iter().map(|(t, s)| json!({"type": t, "status": s})).collect();
        let taints: Vec<Value> =
            taints.iter().map(|(k, e)| json!({"key": k, "effect": e})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "n"}, "spec": {"taints": taints, "unschedulable": cordoned},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn taints_say_what_the_conditions_say() {
        // NOD-12
        use Eviction::{AsBefore, Begins, Never};
        let (schedule, execute) = ("NoSchedule", "NoExecute");
        let lost = vec![(UNREACHABLE, schedule)];
        let evicted = vec![(UNREACHABLE, schedule), (UNREACHABLE, execute)];
        for (name, conditions, taints, cordoned, eviction, want) in [
            ("well", vec![("Ready", "True")], vec![], false, AsBefore, None),
            ("new", vec![], vec![], false, AsBefore, None),
            ("lost", vec![("Ready", "Unknown")], vec![], false, AsBefore, Some(lost.clone())),
            ("stays lost", vec![("Ready", "Unknown")], lost.clone(), false, AsBefore, None),
            (
                "its turn",
                vec![("Ready", "Unknown")],
                lost.clone(),
                false,
                Begins,
                Some(evicted.clone()),
            ),
            ("has had it", vec![("Ready", "Unknown")], evicted.clone(), false, AsBefore, None),
            ("pardoned", vec![("Ready", "Unknown")], evicted.clone(), false, Never, Some(lost)),
            ("is back", vec![("Ready", "True")], evicted.clone(), false, AsBefore, Some(vec![])),
            (
                "is heard, and not ready",
                vec![("Ready", "False")],
                evicted,
                false,
                AsBefore,
                Some(vec![(NOT_READY, schedule), (NOT_READY, execute)]),
            ),
            (
                "under pressure and cordoned",
                vec![("Ready", "True"), ("DiskPressure", "True"), ("MemoryPressure", "False")],
                vec![("mine", execute), ("node.kubernetes.io/memory-pressure", schedule)],
                true,
                AsBefore,
                Some(vec![
                    ("mine", execute),
                    ("node.kubernetes.io/disk-pressure", schedule),
                    (UNSCHEDULABLE, schedule),
                ]),
            ),
        ] {
            let found = taints_of(&node(&conditions, &taints, cordoned), eviction);
            let found = found.as_ref().map(|taints| {
                taints.iter().map(|t| (t.key.as_str(), t.effect.as_str())).collect::<Vec<_>>()
            });
            assert_eq!(found, want, "{name}");
        }
    }

    #[test]
    fn silence_makes_every_condition_unknown_once() {
        // NOD-10
        let text = |node: &Node| {
            let list = unheard(node)?;
            Some(
                list.iter()
                    .map(|c| format!("{} {} {}", c["type"], c["status"], c["reason"]))
                    .collect::<Vec<_>>()
                    .join("; ")
                    .replace('"', ""),
            )
        };
        let spoke = node(&[("Ready", "True"), ("Other", "True")], &[], false);
        assert_eq!(
            text(&spoke).unwrap(),
            "Ready Unknown NodeStatusUnknown; Other True null; \
             MemoryPressure Unknown NodeStatusNeverUpdated; \
             DiskPressure Unknown NodeStatusNeverUpdated; \
             PIDPressure Unknown NodeStatusNeverUpdated"
        );
        let silent: Vec<_> = REPORTED.iter().map(|kind| (*kind, "Unknown")).collect();
        assert_eq!(text(&node(&silent, &[], false)), None, "said already");
    }
}
