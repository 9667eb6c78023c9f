//! Rules on `metadata`, the same for every kind (MET-2…MET-6, UPD-5).

use crate::{
    field::{FieldError, Path},
    meta, names,
};
use serde_json::{Map, Value};

const ANNOTATION_BYTES_MAX: usize = 262_144;

/// Every error of `metadata`; `grammar` is the kind's for names.
pub(crate) fn metadata(
    object: &Value,
    namespaced: bool,
    grammar: fn(&str) -> Vec<String>,
) -> Vec<FieldError> {
    let path = Path::new("metadata");
    let mut errors = Vec::new();
    let name = meta::name(object);
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), "name or generateName is required"));
    } else {
        errors.extend(names::check(&path.child("name"), name, grammar));
    }
    let namespace = meta::namespace(object);
    if namespaced {
        if namespace.is_empty() {
            errors.push(FieldError::required(&path.child("namespace"), ""));
        } else {
            errors.extend(names::check(&path.child("namespace"), namespace, names::label));
        }
    } else if !namespace.is_empty() {
        let detail = "not allowed on this type";
        errors.push(FieldError::forbidden(&path.child("namespace"), detail));
    }
    errors.extend(names::labels(&path.child("labels"), &meta::labels(object)));
    let found = object.pointer("/metadata/annotations").and_then(Value::as_object);
    errors.extend(annotations(found, &path.child("annotations")));
    for finalizer in meta::finalizers(object) {
        errors.extend(names::check(&path.child("finalizers"), &finalizer, names::qualified));
    }
    errors.extend(owners(object, &path.child("ownerReferences")));
    errors
}

/// Every error of annotations: of their keys, and of how much they are (MET-4).
pub(crate) fn annotations(found: Option<&Map<String, Value>>, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut bytes = 0;
    for (key, value) in found.into_iter().flatten() {
        bytes += key.len() + value.as_str().unwrap_or_default().len();
        errors.extend(names::check(path, &key.to_lowercase(), names::qualified));
    }
    if bytes > ANNOTATION_BYTES_MAX {
        errors.push(FieldError::too_long(path, ANNOTATION_BYTES_MAX));
    }
    errors
}

fn owners(object: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut controller: Option<String> = None;
    let list = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    for (i, owner) in list.into_iter().flatten().enumerate() {
        let text = |key: &str| owner.get(key).and_then(Value::as_str).unwrap_or_default();
        for key in ["apiVersion", "kind", "name", "uid"] {
            if text(key).is_empty() {
                let at = path.index(i).child(key);
                errors.push(FieldError::invalid(&at, "", "must not be empty"));
            }
        }
        if owner.get("controller").and_then(Value::as_bool) == Some(true) {
            let this = format!("{}/{}", text("kind"), text("name"));
            if let Some(first) = &controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. \
                     Found \"true\" in references for {first} and {this}"
                );
                errors.push(FieldError::invalid(path, owner.clone(), detail));
            }
            controller.get_or_insert(this);
        }
    }
    errors
}

/// What of `metadata` may not change.
pub(crate) fn metadata_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = Path::new("metadata");
    let mut errors = Vec::new();
    if meta::is_terminating(old) {
        let before = meta::finalizers(old);
        let added: Vec<String> = meta::finalizers(new)
            .into_iter()
            .filter(|f| !before.contains(f))
            .map(|f| format!("{f:?}"))
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, \
                 found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.push(FieldError::forbidden(&path.child("finalizers"), detail));
        }
    }
    errors
}
