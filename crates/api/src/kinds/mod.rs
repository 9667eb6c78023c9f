//! The kinds that are served: a row each, and nothing about a kind anywhere else.

mod node;
mod plain;
mod pod;
mod service;

use crate::{field::FieldError, names, table::Column};
use k8s_openapi::Resource;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Everything the generic registry needs to know of one kind. Objects are whole JSON values, so that
/// no field is lost; the functions read and write only what they know.
pub struct Kind {
    /// API group, empty for core.
    pub group: &'static str,
    /// Such as `v1`.
    pub version: &'static str,
    /// Such as `Pod`.
    pub kind: &'static str,
    /// In URLs, such as `pods`.
    pub plural: &'static str,
    /// Such as `pod`.
    pub singular: &'static str,
    /// Such as `po`.
    pub short_names: &'static [&'static str],
    /// Such as `all`.
    pub categories: &'static [&'static str],
    /// Lives in a namespace.
    pub namespaced: bool,
    /// Subresources beside the object itself, such as `status`.
    pub subresources: &'static [&'static str],
    /// Deleted in two steps, with a grace (DELAPI-1). Otherwise DELAPI-2.
    pub graceful: bool,
    /// A PUT without `resourceVersion` overwrites (CC-2).
    pub unconditional_update: bool,
    /// A PUT to a missing name creates (CC-6).
    pub create_on_update: bool,
    /// Keeps `metadata.generation` (MET-1).
    pub has_generation: bool,
    /// Fills in what the client left out (DEF-1); on every decode, idempotent.
    pub default: fn(&mut Value),
    /// Drops what a client may not set at creation and sets what the server owns (DEF-3). Metadata
    /// (uid, times, generation) is the registry's.
    pub prepare_create: fn(&mut Value),
    /// The same for an update: keeps the old status, and so on (UPD-1). `new` has old metadata
    /// that clients may not change already copied in.
    pub prepare_update: fn(new: &mut Value, old: &Value),
    /// The same for the `status` subresource: takes only the status from `new` (UPD-8).
    pub prepare_status: fn(new: &mut Value, old: &Value),
    /// Every error at once (VAL-5); metadata included.
    pub validate_create: fn(&Value) -> Vec<FieldError>,
    /// Every error at once, of the result and of the change.
    pub validate_update: fn(new: &Value, old: &Value) -> Vec<FieldError>,
    /// Every error at once, of a status change.
    pub validate_status: fn(new: &Value, old: &Value) -> Vec<FieldError>,
    /// For `as=Table` (TAB-1).
    pub columns: &'static [Column],
    /// One cell a column. `now` is in seconds since the Unix epoch.
    pub cells: fn(object: &Value, now: i64) -> Vec<Value>,
    /// What a field selector may ask of this kind beside `metadata.name` and
    /// `metadata.namespace` (SEL-2).
    pub field_labels: &'static [&'static str],
    /// The value of one of `field_labels`.
    pub field: fn(object: &Value, label: &str) -> String,
    /// JSON paths of fields that this kind does not have, such as `spec.foo` (HTTP-2).
    pub unknown_fields: fn(&Value) -> Vec<String>,
    /// Whether the object decodes as its type; the error names the path and what was expected.
    pub decode: fn(&Value) -> Result<(), String>,
}

impl Kind {
    /// `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods` or `leases.coordination.k8s.io`, as messages name it.
    #[must_use]
    pub fn resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.kind)
    }
}

/// Every kind that is served, in the order in which discovery lists them.
#[must_use]
pub fn all() -> &'static [Kind] {
    static ALL: [Kind; 11] = [
        pod::KIND,
        node::KIND,
        plain::NAMESPACE,
        service::KIND,
        service::ENDPOINTS,
        service::ENDPOINT_SLICE,
        plain::CONFIG_MAP,
        plain::SECRET,
        plain::EVENT,
        plain::SERVICE_ACCOUNT,
        plain::LEASE,
    ];
    &ALL
}

/// By URL.
#[must_use]
pub fn by_resource(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    all().iter().find(|k| k.group == group && k.version == version && k.plural == plural)
}

/// By what a manifest says.
#[must_use]
pub fn by_kind(api_version: &str, kind: &str) -> Option<&'static Kind> {
    all().iter().find(|k| k.kind == kind && k.api_version() == api_version)
}

/// By type.
#[must_use]
pub fn of<K: Resource>() -> Option<&'static Kind> {
    by_kind(K::API_VERSION, K::KIND)
}

/// By what a user types: plural, singular, short name or kind, in any case, optionally `.group`.
#[must_use]
pub fn by_alias(alias: &str) -> Option<&'static Kind> {
    let alias = alias.to_lowercase();
    let (name, group) = alias.split_once('.').unwrap_or((&alias, ""));
    all().iter().find(|k| {
        (group.is_empty() || k.group == group)
            && (k.plural == name
                || k.singular == name
                || k.kind.to_lowercase() == name
                || k.short_names.contains(&name))
    })
}

/// What most kinds do: nothing.
pub(crate) const fn nothing(_: &mut Value) {}

/// Keeps the old status: it has a subresource of its own.
pub(crate) fn keep_status(new: &mut Value, old: &Value) {
    if let Some(new) = new.as_object_mut() {
        match old.get("status") {
            Some(status) => drop(new.insert("status".to_owned(), status.clone())),
            None => drop(new.remove("status")),
        }
    }
}

/// Takes everything from the new object.
pub(crate) const fn take_all(_: &mut Value, _: &Value) {}

/// Takes only the status from the new object.
pub(crate) fn take_status(new: &mut Value, old: &Value) {
    let status = new.get("status").cloned();
    let mut merged = old.clone();
    if let (Some(merged), Some(status)) = (merged.as_object_mut(), status) {
        merged.insert("status".to_owned(), status);
    }
    *new = merged;
}

/// Metadata alone.
pub(crate) fn valid_metadata(object: &Value, namespaced: bool) -> Vec<FieldError> {
    crate::validation::metadata(object, namespaced, names::subdomain)
}

/// Metadata of what may be in a namespace.
pub(crate) fn validate_namespaced(object: &Value) -> Vec<FieldError> {
    valid_metadata(object, true)
}

/// Metadata of the result of an update, and what of it may not change.
pub(crate) fn validate_namespaced_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = valid_metadata(new, true);
    errors.extend(crate::validation::metadata_update(new, old));
    errors
}

/// A status is whatever its writer says.
pub(crate) fn any_status(_: &Value, _: &Value) -> Vec<FieldError> {
    Vec::new()
}

/// No field but the name selects.
pub(crate) fn no_field(_: &Value, _: &str) -> String {
    String::new()
}

/// The text at a JSON pointer, empty if there is none.
pub(crate) fn text(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => String::new(),
    }
}

/// Whether the object decodes as `K`; the message names what was expected.
pub(crate) fn decodes<K: DeserializeOwned>(object: &Value) -> Result<(), String> {
    K::deserialize(object).map(|_| ()).map_err(|e| e.to_string())
}

/// Paths of fields that decoding as `K` and encoding again drops.
pub(crate) fn unknown<K: DeserializeOwned + Serialize>(object: &Value) -> Vec<String> {
    let Ok(known) = K::deserialize(object).and_then(|k| serde_json::to_value(k)) else {
        return Vec::new();
    };
    let mut paths = Vec::new();
    dropped(object, &known, "", &mut paths);
    paths
}

fn dropped(object: &Value, known: &Value, path: &str, paths: &mut Vec<String>) {
    let child = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (object, known) {
        (Value::Object(object), Value::Object(known)) => {
            for (key, value) in object {
                match known.get(key) {
                    Some(known) => dropped(value, known, &child(key), paths),
                    // What is empty or null is left out when it is encoded.
                    None if is_empty(value) => {}
                    None => paths.push(child(key)),
                }
            }
        }
        (Value::Array(object), Value::Array(known)) => {
            for (i, (value, known)) in object.iter().zip(known).enumerate() {
                dropped(value, known, &format!("{path}[{i}]"), paths);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A column that is always shown.
pub(crate) const fn column(name: &'static str, format: &'static str) -> Column {
    Column { name, kind: "string", format, priority: 0 }
}

/// A column of `-o wide`.
pub(crate) const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", priority: 1 }
}
