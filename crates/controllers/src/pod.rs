//! What several controllers write into Pods, each on the incarnation that was judged (§8.3).

use api::core::Pod;
use client::{Client, ClientError, Patch, WriteOptions};
use serde_json::{Value, json};

/// The condition that says who ends a Pod, and why.
pub(crate) fn disruption(reason: &str, message: &str) -> Value {
    json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message})
}

/// Sets phase and conditions on the version that was judged; the API fills in the times.
pub(crate) async fn patch_status(
    client: &Client,
    pod: &Pod,
    phase: Option<&str>,
    conditions: &[Value],
) -> Result<Pod, ClientError> {
    let mut object = json!({"status": pod.status});
    for condition in conditions {
        api::pod::set_condition(&mut object, condition.clone());
    }
    let mut status = json!({"conditions": object.pointer("/status/conditions")});
    if let (Some(phase), Some(fields)) = (phase, status.as_object_mut()) {
        fields.insert("phase".to_owned(), phase.into());
    }
    let patch = Patch::Merge(json!({
        "metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
        "status": status,
    }));
    let options = WriteOptions { subresource: "status".to_owned(), ..WriteOptions::default() };
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    client.patch::<Pod>(pod.metadata.namespace.as_deref(), name, &patch, &options).await
}
