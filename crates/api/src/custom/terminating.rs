//! The end of a definition: its objects go first.

use crate::{
    meta::{self, metadata_mut},
    pod,
};
use serde_json::{Value, json};

/// The finalizer that keeps a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What the first DELETE makes of a definition before it is marked: it waits for its objects, and says so.
pub fn begin_removal(definition: &mut Value, now: i64) {
    if meta::is_terminating(definition) {
        return;
    }
    let mut finalizers = meta::finalizers(definition);
    if !finalizers.iter().any(|finalizer| finalizer == CLEANUP) {
        finalizers.push(CLEANUP.to_owned());
        metadata_mut(definition).insert("finalizers".to_owned(), finalizers.into());
    }
    let message =
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    let mut condition = json!({
        "type": "Terminating", "status": "True", "reason": "InstanceDeletionPending",
        "message": message,
    });
    if let Some(fields) = condition.as_object_mut() {
        fields.insert("lastTransitionTime".to_owned(), meta::time(now).into());
    }
    pod::set_condition(definition, condition);
}
