//! Whether a Pod may be evicted, and what its disruption budget is then (SUB-3), as a function.

use crate::{
    kinds::Kind,
    meta::{self, child_mut},
    pod::{condition, condition_status, is_terminal, set_condition},
    selector::LabelSelector,
    status::Status,
};
use serde::Deserialize as _;
use serde_json::Value;

/// Evictions of one budget that its controller has not seen yet, at most.
const UNCONFIRMED_MAX: usize = 2000;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// What an eviction writes beside the deletion.
#[derive(Debug, Clone, PartialEq)]
pub struct Eviction {
    /// The Pod, with the condition that says why it goes.
    pub pod: Value,
    /// The budget of this name, with one disruption less; nothing where none is spent.
    pub budget: Option<(String, Value)>,
}

/// Whether the budget speaks for the Pod; an empty selector does for each one of the namespace.
#[must_use]
pub fn covers(budget: &Value, pod: &Value) -> bool {
    let Some(selector) = budget.pointer("/spec/selector").filter(|s| !s.is_null()) else {
        return false;
    };
    let selector = crate::core::LabelSelectorObject::deserialize(selector);
    selector.is_ok_and(|s| LabelSelector::of(&s).is_ok_and(|s| s.matches_object(pod)))
}

/// Decides on the Pod and the budgets that cover it.
///
/// # Errors
/// 429 when the budget allows no disruption, or is not worked out yet; 500 for more than one budget.
pub fn evict(kind: &Kind, pod: &Value, budgets: &[Value], now: i64) -> Result<Eviction, Status> {
    let mut leaving = pod.clone();
    let (reason, message) = ("EvictionByEvictionAPI", "Eviction API: evicting");
    set_condition(&mut leaving, condition("DisruptionTarget", "True", reason, message, now));
    let free = |pod| Ok(Eviction { pod, budget: None });
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    if is_terminal(pod) || phase == "Pending" || meta::is_terminating(pod) {
        return free(leaving);
    }
    let budget = match budgets {
        [] => return free(leaving),
        [budget] => budget,
        _ => {
            let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource \
                        does not support.";
            return Err(Status::new(500, "InternalError", text));
        }
    };
    let name = meta::name(budget);
    let number = |field: &str| {
        budget.pointer(&format!("/status/{field}")).and_then(Value::as_i64).unwrap_or_default()
    };
    let (healthy, desired) = (number("currentHealthy"), number("desiredHealthy"));
    if condition_status(pod, "Ready") != "True" {
        let policy = budget.pointer("/spec/unhealthyPodEvictionPolicy").and_then(Value::as_str);
        if policy == Some("AlwaysAllow") || (desired > 0 && healthy >= desired) {
            return free(leaving);
        }
    }
    let refused = |seconds: u64, why: String| {
        let status = if seconds > 0 {
            Status::too_many_requests(REFUSED, seconds)
        } else {
            Status::new(429, "TooManyRequests", REFUSED)
        };
        Err(status.with_cause("DisruptionBudget", &why, ""))
    };
    if number("observedGeneration") < meta::generation(budget) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return refused(10, why);
    }
    let allowed = number("disruptionsAllowed");
    if allowed < 0 {
        return Err(Status::forbidden(kind, name, "pdb disruptions allowed is negative"));
    }
    let unconfirmed = budget.pointer("/status/disruptedPods").and_then(Value::as_object);
    if unconfirmed.is_some_and(|pods| pods.len() > UNCONFIRMED_MAX) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(kind, name, why));
    }
    if allowed == 0 {
        return refused(
            0,
            format!(
                "The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
            ),
        );
    }
    let mut spent = budget.clone();
    let status = child_mut(&mut spent, "status");
    status.insert("disruptionsAllowed".to_owned(), (allowed - 1).into());
    let mut disrupted = unconfirmed.cloned().unwrap_or_default();
    disrupted.insert(meta::name(pod).to_owned(), meta::time(now).into());
    status.insert("disruptedPods".to_owned(), disrupted.into());
    Ok(Eviction { pod: leaving, budget: Some((name.to_owned(), spent)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_kind;
    use serde_json::json;
    use std::slice::from_ref;

    fn pod(phase: &str, ready: bool) -> Value {
        let ready = if ready { "True" } else { "False" };
        json!({
            "metadata": {"name": "p", "labels": {"app": "a"}},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    fn budget(allowed: i64, healthy: i64) -> Value {
        json!({
            "metadata": {"name": "b", "generation": 2},
            "spec": {"selector": {"matchLabels": {"app": "a"}}},
            "status": {"observedGeneration": 2, "disruptionsAllowed": allowed,
                       "desiredHealthy": 2, "currentHealthy": healthy},
        })
    }

    fn decide(pod: &Value, budgets: &[Value]) -> Result<Eviction, Status> {
        evict(by_kind("policy/v1", "PodDisruptionBudget").unwrap(), pod, budgets, 1_700_000_000)
    }

    #[test]
    fn a_budget_is_spent_one_by_one_and_never_beyond() {
        // SUB-3
        let done = decide(&pod("Running", true), &[budget(1, 3)]).unwrap();
        let (name, spent) = done.budget.unwrap();
        assert_eq!((name.as_str(), &spent["status"]["disruptionsAllowed"]), ("b", &json!(0)));
        assert_eq!(spent["status"]["disruptedPods"], json!({"p": "2023-11-14T22:13:20Z"}));
        let why = &done.pod["status"]["conditions"][1];
        assert_eq!(
            (&why["type"], &why["reason"]),
            (&json!("DisruptionTarget"), &json!("EvictionByEvictionAPI"))
        );
        let refused = decide(&pod("Running", true), &[budget(0, 2)]).unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (429, REFUSED));
        let cause = &refused.to_json()["details"]["causes"][0];
        assert_eq!(cause["reason"], "DisruptionBudget");
        assert_eq!(
            cause["message"],
            "The disruption budget b needs 2 healthy pods and has 2 currently"
        );
    }

    #[test]
    fn some_pods_need_no_budget_and_some_budgets_are_not_ready() {
        // SUB-3
        let spent =
            |pod: &Value, budgets: &[Value]| decide(pod, budgets).map(|e| e.budget.is_some());
        let empty = budget(0, 1);
        assert_eq!(spent(&pod("Pending", false), from_ref(&empty)), Ok(false));
        assert_eq!(spent(&pod("Failed", false), &[empty.clone(), empty.clone()]), Ok(false));
        assert_eq!(spent(&pod("Running", true), &[]), Ok(false));
        // Unready Pods go while the others are enough, or whenever the budget says so.
        assert_eq!(spent(&pod("Running", false), &[budget(0, 2)]), Ok(false));
        assert_eq!(spent(&pod("Running", false), from_ref(&empty)).unwrap_err().code, 429);
        let mut always = empty;
        always["spec"]["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
        assert_eq!(spent(&pod("Running", false), &[always]), Ok(false));
        let mut old = budget(5, 9);
        old["status"]["observedGeneration"] = json!(1);
        let wait = spent(&pod("Running", true), &[old]).unwrap_err();
        assert_eq!((wait.code, wait.retry_after_seconds()), (429, Some(10)));
        let two = spent(&pod("Running", true), &[budget(1, 3), budget(1, 3)]).unwrap_err();
        assert_eq!(two.code, 500);
    }

    #[test]
    fn an_empty_selector_covers_all_and_none_covers_nothing() {
        let with = |selector: Value| json!({"spec": {"selector": selector}});
        let pod = pod("Running", true);
        for (selector, want) in [
            (json!({}), true),
            (Value::Null, false),
            (json!({"matchLabels": {"app": "a"}}), true),
            (json!({"matchLabels": {"app": "b"}}), false),
            (json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}), true),
        ] {
            assert_eq!(covers(&with(selector.clone()), &pod), want, "{selector}");
        }
    }
}
