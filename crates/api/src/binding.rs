//! Giving a Pod to a node (SUB-2, FEN-11), as a function.

use crate::{
    field::{FieldError, Path},
    kinds::{self, Kind},
    meta::{self, child_mut, metadata_mut},
    pod::{is_terminal, set_condition},
    status::Status,
};
use serde_json::{Value, json};

/// The Pod with the node set, or why not.
///
/// # Errors
/// 409 for every check that fails; 422 for a binding without a node.
pub fn bind(pod: &Value, binding: &Value, now: i64) -> Result<Value, Status> {
    let node = target(binding)?;
    check(pod, binding)?;
    let mut pod = pod.clone();
    for field in ["annotations", "labels"] {
        let Some(more) = binding.pointer(&format!("/metadata/{field}")).and_then(Value::as_object)
        else {
            continue;
        };
        let own = metadata_mut(&mut pod).entry(field).or_insert_with(|| json!({}));
        if let Some(own) = own.as_object_mut() {
            own.extend(more.clone());
        }
    }
    child_mut(&mut pod, "spec").insert("nodeName".to_owned(), node.into());
    child_mut(&mut pod, "status").remove("nominatedNodeName");
    let mut scheduled = json!({
        "type": "PodScheduled", "status": "True", "lastTransitionTime": meta::time(now),
    });
    if let (Some(scheduled), generation @ 1..) = (scheduled.as_object_mut(), meta::generation(&pod))
    {
        scheduled.insert("observedGeneration".to_owned(), generation.into());
    }
    set_condition(&mut pod, scheduled);
    Ok(pod)
}

fn target(binding: &Value) -> Result<&str, Status> {
    let text = |pointer: &str| binding.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let path = Path::new("target");
    let mut errors = Vec::new();
    if !matches!(text("/target/kind"), "" | "Node") {
        let supported = &["Node", "<empty>"];
        errors.push(FieldError::not_supported(
            &path.child("kind"),
            text("/target/kind"),
            supported,
        ));
    }
    let node = text("/target/name");
    if node.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    if errors.is_empty() { Ok(node) } else { Err(Status::invalid_options("Binding", &errors)) }
}

fn check(pod: &Value, binding: &Value) -> Result<(), Status> {
    let name = meta::name(pod);
    let (asked, found) = (meta::uid(binding), meta::uid(pod));
    if !asked.is_empty() && asked != found {
        return Err(conflict(
            name,
            &format!(
                "Precondition failed: UID in precondition: {asked}, UID in object meta: {found}"
            ),
        ));
    }
    let (asked, found) = (meta::resource_version(binding), meta::resource_version(pod));
    if !asked.is_empty() && asked != found {
        return Err(conflict(
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        ));
    }
    if meta::is_terminating(pod) {
        let detail = format!("pod {name} is being deleted, cannot be assigned to a host");
        return Err(conflict(name, &detail));
    }
    let bound = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if !bound.is_empty() {
        let detail = format!("pod {name} is already assigned to node \"{bound}\"");
        return Err(conflict(name, &detail));
    }
    let gates = pod.pointer("/spec/schedulingGates").and_then(Value::as_array);
    if gates.is_some_and(|gates| !gates.is_empty()) {
        return Err(conflict(name, &format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    // Upstream leaves this to its scheduler (FEN-11).
    if is_terminal(pod) {
        return Err(conflict(name, &format!("pod {name} has ended")));
    }
    Ok(())
}

fn conflict(name: &str, detail: &str) -> Status {
    let mut status = Status::conflict(pod_kind(), name, detail).with_detail("kind", "pods/binding");
    status.message = format!("Operation cannot be fulfilled on pods/binding \"{name}\": {detail}");
    status
}

fn pod_kind() -> &'static Kind {
    kinds::by_resource("", "v1", "pods").expect("Pod is served")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": {"name": "p", "uid": "u", "resourceVersion": "7", "generation": 1,
                         "labels": {"a": "1"}},
            "spec": {},
            "status": {"phase": "Pending", "nominatedNodeName": "m", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                 "lastTransitionTime": "2020-01-01T00:00:00Z"},
            ]},
        })
    }

    #[test]
    fn a_binding_sets_the_node_and_nothing_else_of_the_spec() {
        // SUB-2, UPD-6
        let binding = json!({
            "metadata": {"name": "p", "uid": "u", "resourceVersion": "7",
                         "labels": {"b": "2"}, "annotations": {"c": "3"}},
            "target": {"kind": "Node", "name": "n"},
        });
        assert_eq!(
            bind(&pod(), &binding, 0).unwrap(),
            json!({
                "metadata": {"name": "p", "uid": "u", "resourceVersion": "7", "generation": 1,
                             "labels": {"a": "1", "b": "2"}, "annotations": {"c": "3"}},
                "spec": {"nodeName": "n"},
                "status": {"phase": "Pending", "conditions": [
                    {"type": "PodScheduled", "status": "True", "observedGeneration": 1,
                     "lastTransitionTime": "1970-01-01T00:00:00Z"},
                ]},
            })
        );
    }

    #[test]
    fn each_check_that_fails_is_a_conflict_that_says_why() {
        // SUB-2, FEN-11
        let target = json!({"name": "n"});
        for (patch, metadata, want) in [
            (
                json!({"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z"}}),
                json!({}),
                "pod p is being deleted, cannot be assigned to a host",
            ),
            (
                json!({"spec": {"nodeName": "m"}}),
                json!({}),
                "pod p is already assigned to node \"m\"",
            ),
            (
                json!({"spec": {"schedulingGates": [{"name": "g"}]}}),
                json!({}),
                "pod p has non-empty .spec.schedulingGates",
            ),
            (json!({"status": {"phase": "Failed"}}), json!({}), "pod p has ended"),
            (
                json!({}),
                json!({"uid": "v"}),
                "Precondition failed: UID in precondition: v, UID in object meta: u",
            ),
            (
                json!({}),
                json!({"resourceVersion": "6"}),
                "the object has been modified; please apply your changes to the latest version and try again",
            ),
        ] {
            let mut pod = pod();
            for (part, fields) in patch.as_object().unwrap() {
                let part = pod[part].as_object_mut().unwrap();
                part.extend(fields.as_object().unwrap().clone());
            }
            let binding = json!({"metadata": metadata, "target": target});
            let status = bind(&pod, &binding, 0).unwrap_err();
            assert_eq!(
                (status.code, status.message),
                (409, format!("Operation cannot be fulfilled on pods/binding \"p\": {want}"))
            );
        }
        for (target, want) in [
            (json!({}), "target.name: Required value"),
            (
                json!({"kind": "Pod", "name": "n"}),
                "target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"",
            ),
        ] {
            let status = bind(&pod(), &json!({"target": target}), 0).unwrap_err();
            assert_eq!(status.message, format!("Binding \"\" is invalid: {want}"));
        }
    }
}
