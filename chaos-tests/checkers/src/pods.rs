//! What a Pod's JSON says, without the product's own types: a check that shares code with what it checks
//! shares its mistakes.

use crate::{evidence::Version, quantity};
use serde_json::Value;

/// The node that it is bound to; empty if none.
pub(crate) fn node<'h>(pod: &Version<'h>) -> &'h str {
    pod.text("/spec/nodeName")
}

/// `Pending`, `Running`, …
pub(crate) fn phase<'h>(pod: &Version<'h>) -> &'h str {
    pod.text("/status/phase")
}

/// It has run and will not run again.
pub(crate) fn is_terminal(pod: &Version<'_>) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// It has been asked to end.
pub(crate) fn is_terminating(pod: &Version<'_>) -> bool {
    pod.get("/metadata/deletionTimestamp").is_some()
}

/// Neither ended nor asked to.
pub(crate) fn is_active(pod: &Version<'_>) -> bool {
    !pod.deleted && !is_terminal(pod) && !is_terminating(pod)
}

/// The status of a condition; empty if there is none.
pub(crate) fn condition<'h>(of: &Version<'h>, kind: &str) -> &'h str {
    let conditions = of.get("/status/conditions").and_then(Value::as_array);
    let mut named =
        conditions.into_iter().flatten().filter(|condition| text(condition, "type") == kind);
    named.next().map_or("", |condition| text(condition, "status"))
}

/// A member of an object that is text; empty if there is none.
pub(crate) fn text<'v>(of: &'v Value, name: &str) -> &'v str {
    of.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Kind, name and uid of the owner that controls it (CTL-4).
pub(crate) fn controller<'h>(of: &Version<'h>) -> Option<(&'h str, &'h str, &'h str)> {
    let owners = of.get("/metadata/ownerReferences").and_then(Value::as_array)?;
    let owner = owners.iter().find(|owner| owner.get("controller") == Some(&Value::Bool(true)))?;
    Some((text(owner, "kind"), text(owner, "name"), text(owner, "uid")))
}

/// What a Pod asks for of a resource, in thousandths of its unit (RES-1).
pub(crate) fn requested(pod: &Version<'_>, resource: &str) -> i128 {
    let of = |container: &Value| {
        let resources = container.get("resources");
        let named = |list: &str| resources?.get(list)?.get(resource);
        // Of a stored object the request is there; a limit alone counts as one all the same.
        let quantity = named("requests").or_else(|| named("limits"));
        quantity.and_then(quantity::milli).unwrap_or(0)
    };
    let list = |pointer: &str| {
        pod.get(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    };
    let (mut sidecars, mut starting) = (0, 0);
    for init in list("/spec/initContainers") {
        if text(init, "restartPolicy") == "Always" {
            sidecars += of(init);
            starting = starting.max(sidecars);
        } else {
            starting = starting.max(of(init) + sidecars);
        }
    }
    let running: i128 = list("/spec/containers").iter().map(of).sum();
    let overhead = pod.get("/spec/overhead").and_then(|overhead| overhead.get(resource));
    let overhead = overhead.and_then(quantity::milli).unwrap_or(0);
    let whole = (running + sidecars).max(starting);
    let pod_level = pod.get("/spec/resources/requests").and_then(|list| list.get(resource));
    pod_level.and_then(quantity::milli).unwrap_or(whole) + overhead
}
