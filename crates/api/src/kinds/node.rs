//! Node.

use super::{
    Kind, column, decodes, keep_status, plain::PLAIN, take_status, text, valid_metadata, wide,
};
use crate::{
    core,
    field::{FieldError, Path},
    table::age,
};
use serde_json::Value;

/// `Ready`, `NotReady` or `Unknown`, and whether it takes Pods (TAB-3).
fn status_column(object: &Value) -> String {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|c| text(c, "/type") == "Ready")
        .map(|c| text(c, "/status"));
    let mut status = match ready.as_deref() {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if text(object, "/spec/unschedulable") == "true" {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(object: &Value) -> String {
    let roles: Vec<String> = crate::meta::labels(object)
        .keys()
        .filter_map(|key| key.strip_prefix("node-role.kubernetes.io/").map(str::to_owned))
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn address(object: &Value, kind: &str) -> String {
    let addresses = object.pointer("/status/addresses").and_then(Value::as_array);
    addresses
        .into_iter()
        .flatten()
        .find(|a| text(a, "/type") == kind)
        .map_or_else(|| "<none>".to_owned(), |a| text(a, "/address"))
}

pub(super) const KIND: Kind = Kind {
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    subresources: &["status"],
    prepare_update: keep_status,
    prepare_status: take_status,
    validate_create: |object| valid_metadata(object, false),
    validate_update: |new, old| {
        let mut errors = valid_metadata(new, false);
        errors.extend(crate::validation::metadata_update(new, old));
        // Or a node could take the addresses of another one's Pods.
        let range = |object: &Value| text(object, "/spec/podCIDR");
        if !range(old).is_empty() && range(new) != range(old) {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(FieldError::forbidden(&Path::new("spec").child("podCIDR"), detail));
        }
        errors
    },
    columns: &[
        column("Name", "name"),
        column("Status", ""),
        column("Roles", ""),
        column("Age", ""),
        column("Version", ""),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ],
    cells: |object, now| {
        let info = |field: &str| text(object, &format!("/status/nodeInfo/{field}"));
        vec![
            crate::meta::name(object).into(),
            status_column(object).into(),
            roles(object).into(),
            age(object, now).into(),
            info("kubeletVersion").into(),
            address(object, "InternalIP").into(),
            address(object, "ExternalIP").into(),
            info("osImage").into(),
            info("kernelVersion").into(),
            info("containerRuntimeVersion").into(),
        ]
    },
    field_labels: &["spec.unschedulable"],
    field: |object, _| (text(object, "/spec/unschedulable") == "true").to_string(),
    decode: decodes::<core::Node>,
    ..PLAIN
};
