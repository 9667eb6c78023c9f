//! The kinds that are served: a row each, and nothing about a kind anywhere else.

mod crd;
mod cron_job;
mod daemon_set;
mod deployment;
mod disruption;
pub mod event;
mod job;
mod node;
mod plain;
mod pod;
mod pod_autoscaler;
mod pod_autoscaler_v1;
mod priority_class;
mod quota;
mod rbac;
mod replicas;
mod review;
mod rules;
mod service;
mod stateful_set;
mod template;
mod verbs;

pub use review::reviews;

use crate::{
    custom::Custom,
    field::{FieldError, Path},
    meta::drop_nulls,
    names,
    quantity::Quantity,
    scale::ScalePaths,
    table::Column,
};
use k8s_openapi::Resource;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::{borrow::Cow, ops::Deref, sync::Arc};

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
    /// Whether an update is one that `metadata.generation` counts (UPD-6); asked only of kinds that
    /// keep it, after `prepare_update`.
    pub generation_counts: fn(new: &Value, old: &Value) -> bool,
    /// JSON pointer to the spec of Pods: a Pod's own, or that of the template in a workload.
    pub pod_spec: Option<&'static str>,
    /// Where the subresource `scale` finds what it shows and sets, for kinds that have it.
    pub scale: Option<ScalePaths>,
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
    /// Whether the object decodes as its type; the error names the path and what was expected.
    pub decode: fn(&Value) -> Result<(), String>,
    /// For a version that is served and not stored.
    pub hub: Option<Hub>,
    /// What a definition says of this kind in place of the functions, columns and names above; `None` for
    /// a row. Whoever may meet such a kind asks the methods and not the fields.
    pub custom: Option<Arc<Custom>>,
}

/// How objects of a version that is not stored become objects of the version that is, and back. What
/// one of them cannot say is kept in annotations.
#[derive(Clone, Copy)]
pub struct Hub {
    /// The stored version.
    pub version: &'static str,
    /// Makes a stored object of one of this version.
    pub to: fn(&mut Value),
    /// The reverse.
    pub from: fn(&mut Value),
}

/// A kind that is served: a row, or one that a definition made and that lives as long as it is used.
#[derive(Clone, Debug)]
pub enum KindRef {
    /// A row.
    Static(&'static Kind),
    /// Of a version of a definition.
    Custom(Arc<Kind>),
}

impl Deref for KindRef {
    type Target = Kind;

    fn deref(&self) -> &Kind {
        match self {
            Self::Static(kind) => kind,
            Self::Custom(kind) => kind,
        }
    }
}

/// What a definition's kinds have in common with most rows.
pub(crate) fn plain_row() -> Kind {
    plain::PLAIN
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

    /// The kind that objects of this one are stored as; nearly always itself.
    #[must_use]
    pub fn stored(&self) -> &Self {
        let stored = |hub: &Hub| by_resource(self.group, hub.version, self.plural);
        match self.hub.as_ref().and_then(stored) {
            Some(stored) => stored,
            None => self,
        }
    }

    /// The stored object that one of this version stands for.
    ///
    /// # Errors
    /// It is none of this version.
    pub fn to_stored(&self, mut object: Value) -> Result<Value, String> {
        if let Some(hub) = &self.hub {
            (self.decode)(&object)?;
            (hub.to)(&mut object);
            self.stored().write_name(&mut object);
        }
        Ok(object)
    }

    /// A stored object, or what there is of one, as this version has it.
    #[must_use]
    pub fn show<'a>(&self, stored: &'a Value) -> Cow<'a, Value> {
        let Some(hub) = &self.hub else { return Cow::Borrowed(stored) };
        let mut object = stored.clone();
        (hub.from)(&mut object);
        self.write_name(&mut object);
        Cow::Owned(object)
    }

    /// Writes kind and version where the object has some.
    fn write_name(&self, object: &mut Value) {
        let Some(fields) = object.as_object_mut() else { return };
        for (field, name) in [("apiVersion", self.api_version()), ("kind", self.kind.to_owned())] {
            if let Some(found) = fields.get_mut(field) {
                *found = name.into();
            }
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

    /// Whether who deletes is answered with the last form, and not only that it is done. As upstream: clients
    /// decode the one or the other by the kind.
    #[must_use]
    pub fn tells_deleted(&self) -> bool {
        let of_core = ["PodTemplate", "ResourceQuota", "Service", "ServiceAccount"];
        self.graceful || (self.group.is_empty() && of_core.contains(&self.kind))
    }

    /// What to tell who writes this object: fields for its Pods that no node acts upon (§1.1).
    #[must_use]
    pub fn warnings(&self, object: &Value) -> Vec<String> {
        let Some(pointer) = self.pod_spec else { return Vec::new() };
        let Some(spec) = object.pointer(pointer) else { return Vec::new() };
        let path = Path::new(&pointer.trim_start_matches('/').replace('/', "."));
        crate::enforcement::warnings(spec, &path)
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.kind)
    }
}

/// Every kind that is served, in the order in which discovery lists them: within a group it is also
/// the order of `kubectl get all`.
#[must_use]
pub fn all() -> &'static [Kind] {
    static ALL: [Kind; 31] = [
        pod::KIND,
        template::POD_TEMPLATE,
        replicas::REPLICATION_CONTROLLER,
        node::KIND,
        plain::NAMESPACE,
        service::KIND,
        service::ENDPOINTS,
        service::ENDPOINT_SLICE,
        plain::CONFIG_MAP,
        plain::SECRET,
        plain::EVENT,
        event::KIND,
        plain::SERVICE_ACCOUNT,
        quota::RESOURCE_QUOTA,
        quota::LIMIT_RANGE,
        plain::LEASE,
        crd::KIND,
        daemon_set::KIND,
        deployment::KIND,
        replicas::REPLICA_SET,
        stateful_set::KIND,
        template::CONTROLLER_REVISION,
        pod_autoscaler::KIND,
        cron_job::KIND,
        job::KIND,
        disruption::KIND,
        rbac::ROLE,
        rbac::ROLE_BINDING,
        rbac::CLUSTER_ROLE,
        rbac::CLUSTER_ROLE_BINDING,
        priority_class::KIND,
    ];
    &ALL
}

/// Other versions of kinds, served beside the one that is stored.
#[must_use]
pub fn versions() -> &'static [Kind] {
    static VERSIONS: [Kind; 1] = [pod_autoscaler_v1::KIND];
    &VERSIONS
}

/// All kinds in all versions, the stored one of each first.
pub fn served() -> impl Iterator<Item = &'static Kind> + Clone {
    all().iter().chain(versions())
}

/// Whether a group is the server's own: no definition may put anything beside its rows, or under their keys.
#[must_use]
pub fn is_own_group(group: &str) -> bool {
    served().chain(reviews()).any(|kind| kind.group == group)
}

/// By URL.
#[must_use]
pub fn by_resource(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    served().find(|k| k.group == group && k.version == version && k.plural == plural)
}

/// By what a manifest says.
#[must_use]
pub fn by_kind(api_version: &str, kind: &str) -> Option<&'static Kind> {
    served().find(|k| k.kind == kind && k.api_version() == api_version)
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

/// The subresource of a Pod that adds containers to it while it runs (SUB-4).
pub const EPHEMERAL_CONTAINERS: &str = "ephemeralcontainers";

/// What becomes of a Pod by that subresource: nothing of `new` but its added containers counts.
pub fn prepare_ephemeral(new: &mut Value, old: &Value) {
    pod::prepare_ephemeral(new, old);
}

/// Every error at once, of a Pod to which containers are added.
#[must_use]
pub fn validate_ephemeral(new: &Value, old: &Value) -> Vec<FieldError> {
    pod::validate_ephemeral(new, old)
}

/// What most kinds default: nothing. A null is a field that is not there.
pub(crate) fn no_defaults(object: &mut Value) {
    drop_nulls(object);
}

/// What most kinds drop or set at creation: nothing.
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

/// What most kinds count as a change: one of the spec.
pub(crate) fn spec_changed(new: &Value, old: &Value) -> bool {
    new.get("spec") != old.get("spec")
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

/// As [`Value::pointer`], which copies each name twice: validation asks for hundreds of them.
pub(crate) fn at<'a>(object: &'a Value, pointer: &str) -> Option<&'a Value> {
    if pointer.contains('~') || !pointer.starts_with('/') {
        return object.pointer(pointer);
    }
    let mut names = pointer.split('/').skip(1);
    names.try_fold(object, |value, name| match value {
        Value::Object(fields) => fields.get(name),
        Value::Array(_) => value.pointer(&format!("/{name}")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

/// The text at a JSON pointer, empty if there is none.
pub(crate) fn text(object: &Value, pointer: &str) -> String {
    match at(object, pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => String::new(),
    }
}

/// The list at a key, empty if there is none.
pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The number at a JSON pointer, 0 if there is none.
pub(crate) fn number(object: &Value, pointer: &str) -> i64 {
    at(object, pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// Sets a field that is not there.
pub(crate) fn set_default(fields: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if fields.get(key).is_none_or(Value::is_null) {
        fields.insert(key.to_owned(), value.into());
    }
}

/// Whether the object decodes as `K`; the message names the field and what was expected.
pub(crate) fn decodes<K: DeserializeOwned>(object: &Value) -> Result<(), String> {
    if K::deserialize(object).is_ok() {
        return Ok(());
    }
    // Once more for the path, which costs too much to follow when all is well.
    serde_path_to_error::deserialize::<_, K>(object).map(|_| ()).map_err(|e| {
        let path = e.path().to_string();
        let path = if path == "." { String::new() } else { format!("{path}: ") };
        format!("{path}{}", e.into_inner())
    })
}

/// The same, for a kind that has amounts: they must be amounts (QTY-2).
pub(crate) fn decodes_amounts<K: DeserializeOwned>(
    object: &Value,
    amounts: &[&str],
) -> Result<(), String> {
    decodes::<K>(object)?;
    for pattern in amounts {
        let mut wrong = Ok(());
        each_at(object, pattern, &mut |amount| {
            if let Err(error) = amount_text(amount).parse::<Quantity>() {
                wrong = wrong.clone().and(Err(error.to_string()));
            }
        });
        wrong?;
    }
    Ok(())
}

/// Writes every amount in its canonical form (QTY-4), rounded up to thousandths (DEF-1).
pub(crate) fn normalize_amounts(object: &mut Value, amounts: &[&str]) {
    for pattern in amounts {
        each_at_mut(object, pattern, &mut |amount| {
            if let Ok(quantity) = amount_text(amount).parse::<Quantity>() {
                *amount = quantity.rounded_to_milli().to_string().into();
            }
        });
    }
}

/// An amount may come as a bare number.
fn amount_text(amount: &Value) -> String {
    amount.as_str().map_or_else(|| amount.to_string(), str::to_owned)
}

/// Visits what is at a path such as `spec/containers/*/resources/limits/*`.
fn each_at(value: &Value, path: &str, visit: &mut impl FnMut(&Value)) {
    let Some((key, rest)) = path.split_once('/').or((!path.is_empty()).then_some((path, "")))
    else {
        return visit(value);
    };
    match (value, key) {
        (Value::Object(fields), "*") => fields.values().for_each(|v| each_at(v, rest, visit)),
        (Value::Array(items), "*") => items.iter().for_each(|v| each_at(v, rest, visit)),
        (Value::Object(fields), key) => {
            if let Some(value) = fields.get(key).filter(|value| !value.is_null()) {
                each_at(value, rest, visit);
            }
        }
        (
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_),
            _,
        ) => {}
    }
}

fn each_at_mut(value: &mut Value, path: &str, visit: &mut impl FnMut(&mut Value)) {
    let Some((key, rest)) = path.split_once('/').or((!path.is_empty()).then_some((path, "")))
    else {
        return visit(value);
    };
    match (value, key) {
        (Value::Object(fields), "*") => {
            fields.values_mut().for_each(|v| each_at_mut(v, rest, visit));
        }
        (Value::Array(items), "*") => items.iter_mut().for_each(|v| each_at_mut(v, rest, visit)),
        (Value::Object(fields), key) => {
            if let Some(value) = fields.get_mut(key) {
                each_at_mut(value, rest, visit);
            }
        }
        (
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_),
            _,
        ) => {}
    }
}

/// A column that is always shown.
pub(crate) const fn column(name: &'static str, format: &'static str) -> Column {
    Column { name, kind: "string", format, priority: 0 }
}

/// A column of whole numbers that is always shown.
pub(crate) const fn integer(name: &'static str) -> Column {
    Column { name, kind: "integer", format: "", priority: 0 }
}

/// A column of `true` and `false` that is always shown.
pub(crate) const fn boolean(name: &'static str) -> Column {
    Column { name, kind: "boolean", format: "", priority: 0 }
}

/// `<none>` where there is nothing to show.
pub(crate) fn or_none(text: String) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

/// A column of `-o wide`.
pub(crate) const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", priority: 1 }
}
