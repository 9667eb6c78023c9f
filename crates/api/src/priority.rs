//! What a Pod's priority is: by the class that it names, or by the default one (DEF-2).

use crate::{
    kinds::{number, text},
    meta::{self, child_mut},
};
use serde_json::{Value, json};

/// Of a Pod without a class, where no class is the default.
const NO_CLASS: i64 = 0;
const NO_CLASS_POLICY: &str = "PreemptLowerPriority";

/// The classes that are always there.
#[must_use]
pub fn system_classes() -> [Value; 2] {
    let class = |name: &str, value: i64, description: &str| json!({"metadata": {"name": name}, "value": value, "description": description});
    [
        class(
            "system-node-critical",
            2_000_001_000,
            "For Pods that their node does not work without.",
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "For Pods that the cluster does not work without; they may move to another node.",
        ),
    ]
}

fn is_default(class: &Value) -> bool {
    class.get("globalDefault") == Some(&Value::Bool(true))
}

/// The class of Pods that name none; of several the lowest, then the first by name.
fn default_class(classes: &[Value]) -> Option<&Value> {
    let defaults = classes.iter().filter(|class| is_default(class));
    defaults.min_by_key(|class| (number(class, "/value"), meta::name(class)))
}

/// Gives a new Pod its priority and whether it may preempt.
///
/// # Errors
/// There is no such class, or the Pod says something else than its class.
pub fn admit(pod: &mut Value, classes: &[Value]) -> Result<(), String> {
    let name = text(pod, "/spec/priorityClassName");
    let class = if name.is_empty() {
        default_class(classes)
    } else {
        let named = classes.iter().find(|class| meta::name(class) == name);
        Some(named.ok_or_else(|| format!("no PriorityClass with name {name} was found"))?)
    };
    let priority = class.map_or(NO_CLASS, |class| number(class, "/value"));
    let policy = class.map(|class| text(class, "/preemptionPolicy"));
    let policy = policy.filter(|policy| !policy.is_empty());
    let policy = policy.unwrap_or_else(|| NO_CLASS_POLICY.to_owned());
    let spec = child_mut(pod, "spec");
    if let Some(own) = spec.get("priority").and_then(Value::as_i64)
        && own != priority
    {
        return Err(format!(
            "the integer value of priority ({own}) must not be provided in pod spec; priority admission \
             controller computed {priority} from the given PriorityClass name"
        ));
    }
    if let Some(own) = spec.get("preemptionPolicy").and_then(Value::as_str)
        && own != policy
    {
        return Err(format!(
            "the string value of PreemptionPolicy ({own}) must not be provided in pod spec; priority \
             admission controller computed {policy} from the given PriorityClass name"
        ));
    }
    if let (true, Some(class)) = (name.is_empty(), class) {
        spec.insert("priorityClassName".to_owned(), meta::name(class).into());
    }
    spec.insert("priority".to_owned(), priority.into());
    spec.insert("preemptionPolicy".to_owned(), policy.into());
    Ok(())
}

/// Whether a class may be written beside those that there are.
///
/// # Errors
/// Another one is the default already.
pub fn check_class(class: &Value, classes: &[Value]) -> Result<(), String> {
    if !is_default(class) {
        return Ok(());
    }
    match default_class(classes) {
        Some(other) if meta::name(other) != meta::name(class) => Err(format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            meta::name(other)
        )),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, value: i64, default: bool) -> Value {
        json!({"metadata": {"name": name}, "value": value, "globalDefault": default,
               "preemptionPolicy": "Never"})
    }

    #[test]
    fn a_pod_has_the_priority_of_its_class() {
        // DEF-2
        let plain = [class("high", 100, false)];
        let with_default =
            [class("high", 100, false), class("low", 7, true), class("mid", 9, true)];
        for (spec, classes, want) in [
            (
                json!({}),
                &plain[..],
                json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}),
            ),
            (
                json!({"priority": 0}),
                &plain[..],
                json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}),
            ),
            (
                json!({}),
                &with_default[..],
                json!({"priority": 7, "preemptionPolicy": "Never", "priorityClassName": "low"}),
            ),
            (
                json!({"priorityClassName": "high", "priority": 100, "preemptionPolicy": "Never"}),
                &with_default[..],
                json!({"priority": 100, "preemptionPolicy": "Never", "priorityClassName": "high"}),
            ),
        ] {
            let mut pod = json!({"spec": spec});
            assert_eq!(admit(&mut pod, classes), Ok(()), "{spec}");
            assert_eq!(pod["spec"], want);
        }
    }

    #[test]
    fn what_a_class_does_not_say_is_refused() {
        // DEF-2
        let classes = [class("high", 100, false)];
        for (spec, want) in [
            (json!({"priorityClassName": "x"}), "no PriorityClass with name x was found"),
            (
                json!({"priorityClassName": "high", "priority": 5}),
                "the integer value of priority (5) must not be provided in pod spec; priority admission \
                 controller computed 100 from the given PriorityClass name",
            ),
            (
                json!({"preemptionPolicy": "Never"}),
                "the string value of PreemptionPolicy (Never) must not be provided in pod spec; priority \
                 admission controller computed PreemptLowerPriority from the given PriorityClass name",
            ),
        ] {
            let mut pod = json!({"spec": spec});
            assert_eq!(admit(&mut pod, &classes), Err(want.to_owned()));
        }
    }

    #[test]
    fn one_class_is_the_default() {
        let there = [class("a", 1, true)];
        let want = "PriorityClass a is already marked as default. Only one default can exist";
        assert_eq!(check_class(&class("b", 2, true), &there), Err(want.to_owned()));
        assert_eq!(check_class(&class("b", 2, false), &there), Ok(()));
        assert_eq!(check_class(&class("a", 1, true), &there), Ok(()));
    }
}
