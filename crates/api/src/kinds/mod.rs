//! The kinds that are served: a row each, and nothing about a kind anywhere else.

use crate::{field::FieldError, table::Column};
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
    &[]
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

/// By what a user types: plural, singular, short name or kind, in any case, optionally `.group`.
#[must_use]
pub fn by_alias(_alias: &str) -> Option<&'static Kind> {
    None
}
