//! An eviction never drives the healthy Pods of a budget below what it asks for.

use crate::{
    evidence::{Evidence, Life, Version},
    history::{Call, ObjectVerb},
    pods,
    property::{Findings, Property},
};
use serde_json::Value;

pub(super) const PROPERTY: Property = Property {
    name: "evictions respect disruption budgets",
    sources: &["INV-12", "FEN-26", "PDB-1", "PDB-2"],
    file: file!(),
    check,
};

/// Whether a budget's selector chooses a Pod; one with expressions is not looked at.
fn selects(budget: &Version<'_>, pod: &Version<'_>) -> bool {
    let labels = budget.get("/spec/selector/matchLabels").and_then(Value::as_object);
    let Some(wanted) = labels.filter(|labels| !labels.is_empty()) else { return false };
    let has = pod.get("/metadata/labels").and_then(Value::as_object);
    budget.get("/spec/selector/matchExpressions").is_none()
        && wanted.iter().all(|(name, value)| has.and_then(|has| has.get(name)) == Some(value))
}

fn is_healthy(pod: &Version<'_>) -> bool {
    pods::is_active(pod) && pods::condition(pod, "Ready") == "True"
}

/// How many must stay healthy, where the budget says it as a number.
fn desired(budget: &Version<'_>, expected: u64) -> Option<u64> {
    let number = |name: &str| budget.get(&format!("/spec/{name}")).and_then(Value::as_u64);
    match (number("minAvailable"), number("maxUnavailable")) {
        (Some(least), _) => Some(least),
        (None, Some(most)) => Some(expected.saturating_sub(most)),
        (None, None) => budget.get("/status/desiredHealthy").and_then(Value::as_u64),
    }
}

/// Since when a Pod is on its way out, or gone.
fn mark<'h>(life: &Life<'h>) -> Option<Version<'h>> {
    life.versions.values().find(|v| v.deleted || pods::is_terminating(v)).copied()
}

fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    for answered in evidence.answered() {
        let Call::Object(call) = answered.call else { continue };
        if call.verb != ObjectVerb::Evict || call.kind != "Pod" {
            continue;
        }
        let operation = answered.operation;
        // What it marked: the Pod of that name that was first seen on its way out since it was asked.
        let named = evidence.objects.of_kind("Pod").filter(|life| {
            (life.namespace(), life.name()) == (call.namespace.as_str(), call.name.as_str())
        });
        let marked = named.filter_map(|life| Some((life, mark(life)?)));
        let since = marked.filter(|(_, mark)| mark.seen_ns >= operation.invoked_ns);
        let Some((pod, mark)) = since.min_by_key(|(_, mark)| mark.revision()) else { continue };
        let before = mark.revision().saturating_sub(1);
        let Some(was) = pod.at(before) else { continue };
        for budget in evidence.objects.of_kind("PodDisruptionBudget") {
            let Some(budget) = budget.at(before) else { continue };
            if budget.object.namespace != call.namespace || !selects(budget, was) {
                continue;
            }
            findings.look();
            let covered: Vec<&Version<'_>> = evidence
                .objects
                .of_kind("Pod")
                .filter(|life| life.namespace() == call.namespace)
                .filter_map(|life| life.at(before))
                .filter(|version| selects(budget, version))
                .collect();
            let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
            let healthy = count(covered.iter().filter(|version| is_healthy(version)).count());
            let Some(desired) = desired(budget, count(covered.len())) else { continue };
            // Whoever is not healthy counts for nothing.
            if is_healthy(was) && healthy <= desired {
                let text = format!(
                    "{operation}; {} asks for {desired} healthy Pods, and there were {healthy} \
                     with {}",
                    budget.label(),
                    was.label()
                );
                findings.violated(operation.answered_ns, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Body, Record},
        testing::{call, follows, hold, life},
    };
    use serde_json::json;

    fn pod(ready: bool) -> Value {
        let status = if ready { "True" } else { "False" };
        json!({
            "metadata": {"labels": {"app": "web"}},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]},
        })
    }

    /// INV-12
    #[test]
    fn an_eviction_below_the_budget_is_caught() {
        let budget = |spec: Value| {
            let mut spec = spec;
            spec["selector"] = json!({"matchLabels": {"app": "web"}});
            let kind = "PodDisruptionBudget";
            let versions = [(2, json!({"spec": spec}))];
            [vec![follows(1, kind), follows(2, "Pod")], life(1, kind, ("b", "b1"), &versions)]
                .concat()
        };
        let evicted = |name: &str, ready: bool, at: u64| {
            let mut marked = pod(ready);
            marked["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            let ask = (at - 1, at + 1);
            let evict =
                call(1, ask, ObjectVerb::Evict, ("Pod", name), Value::Null, (0, Body::Done));
            [life(2, "Pod", (name, name), &[(at - 4, pod(ready)), (at, marked)]), vec![evict]]
                .concat()
        };
        let other = |name: &str, ready| life(2, "Pod", (name, name), &[(5, pod(ready))]);
        let with = |spec: Value, pods: Vec<Vec<Record>>| [budget(spec), pods.concat()].concat();
        let two = || json!({"minAvailable": 2});
        let cases = vec![
            (
                "one can be spared",
                with(two(), vec![evicted("a", true, 10), other("b", true), other("c", true)]),
                None,
            ),
            ("none can be spared", with(two(), vec![evicted("a", true, 10), other("b", true)]), {
                Some("asks for 2 healthy Pods, and there were 2")
            }),
            (
                "one that is not healthy",
                with(two(), vec![evicted("a", false, 10), other("b", true), other("c", true)]),
                None,
            ),
            (
                "at most one away",
                with(
                    json!({"maxUnavailable": 1}),
                    vec![evicted("a", true, 10), other("b", true), other("c", false)],
                ),
                Some("asks for 2 healthy"),
            ),
            (
                "a second eviction",
                with(two(), vec![evicted("a", true, 10), evicted("b", true, 12), other("c", true)]),
                Some("and there were 2"),
            ),
        ];
        hold(&PROPERTY, cases);
    }
}
