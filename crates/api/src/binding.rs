//! Giving a Pod to a node (SUB-2, FEN-11), as a function.

use crate::{
    kinds::{self, Kind},
    meta::{self, child_mut},
    pod::set_condition,
    status::Status,
};
use serde_json::{Value, json};

/// The Pod with the node set, or why not.
///
/// # Errors
/// 409 for every check that fails; 400 for a binding without a target.
pub fn bind(pod: &Value, binding: &Value, now: i64) -> Result<Value, Status> {
    let kind = pod_kind();
    let name = meta::name(pod);
    let conflict = |detail: String| {
        let mut status = Status::conflict(kind, name, &detail);
        status.message = status.message.replacen("on pods ", "on pods/binding ", 1);
        status
    };
    let node = binding.pointer("/target/name").and_then(Value::as_str).unwrap_or_default();
    if node.is_empty() {
        return Err(Status::bad_request("target.name: Required value"));
    }
    let uid = meta::uid(binding);
    if !uid.is_empty() && uid != meta::uid(pod) {
        let found = meta::uid(pod);
        return Err(conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {found}"
        )));
    }
    let version = meta::resource_version(binding);
    if !version.is_empty() && version != meta::resource_version(pod) {
        return Err(Status::modified(kind, name));
    }
    if meta::is_terminating(pod) {
        return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let bound = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if !bound.is_empty() {
        return Err(conflict(format!("pod {name} is already assigned to node \"{bound}\"")));
    }
    if pod.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|g| !g.is_empty())
    {
        return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    let mut pod = pod.clone();
    child_mut(&mut pod, "spec").insert("nodeName".to_owned(), node.into());
    child_mut(&mut pod, "status").remove("nominatedNodeName");
    set_condition(
        &mut pod,
        json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": meta::time(now)}),
    );
    Ok(pod)
}

fn pod_kind() -> &'static Kind {
    kinds::by_resource("", "v1", "pods").expect("Pod is served")
}
