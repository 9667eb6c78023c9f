//! Who manages which field (PAT-3): server-side apply, and `managedFields` on every other write.
//!
//! A manager is a name, an operation (`Apply` or `Update`), and a subresource. Applying sets exactly
//! the fields that the applied object has; what a manager applied before, applies no longer, and
//! nobody else manages, goes. Any other write makes its manager the only one of what it changed.
//!
//! Metadata that the server owns is nobody's. Fields that another subresource writes are not looked
//! at: the status of a kind that has the subresource `status`, and everything else in a write to it.

mod set;
mod typed;

use crate::{
    go::same,
    table::{Shape, Table, table_of},
};
use api::{kinds::Kind, status::Status};
use serde_json::{Map, Value, json};
use set::{Element, Path, Set, path_text};
use std::{collections::BTreeMap, fmt, sync::LazyLock};
use typed::{Typed, has_nulls, without_nulls};

/// Managers of updates in one object at most; the oldest beyond are taken together.
const UPDATERS_MAX: usize = 10;
/// Manager of what the oldest updaters had.
const ANCIENT_CHANGES: &str = "ancient-changes";
/// Manager of all that is in an object when it is first applied to and nobody was tracked until then.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Whose applying goes on from what it applied from the client's side.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What nobody manages.
const SERVERS_OWN: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "clusterName"],
    &["metadata", "creationTimestamp"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "resourceVersion"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
];

static OWN: LazyLock<Set> = LazyLock::new(|| set_of(SERVERS_OWN));

/// One field that another manager has set to something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager, as messages name it: `"kubectl-create" using v1`.
    pub manager: String,
    /// Such as `.spec.replicas`.
    pub field: String,
}

/// What applying would take from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Conflict>);

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [Conflict { manager, field }] = self.0.as_slice() {
            return write!(f, "Apply failed with 1 conflict: conflict with {manager}: {field}");
        }
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        let mut last = None;
        for Conflict { manager, field } in &self.0 {
            if last != Some(manager) {
                let end = if last.is_some() { "\n" } else { "" };
                write!(f, "{end}conflicts with {manager}:")?;
            }
            last = Some(manager);
            write!(f, "\n- {field}")?;
        }
        Ok(())
    }
}

impl Conflicts {
    /// 409 with a cause for each field.
    #[must_use]
    pub fn status(&self) -> Status {
        let status = Status::new(409, "Conflict", self.to_string());
        self.0.iter().fold(status, |status, Conflict { manager, field }| {
            let message = format!("conflict with {manager}");
            status.with_cause("FieldManagerConflict", &message, field)
        })
    }
}

/// Why an object was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others manage fields that would change. Force takes them over.
    #[error("{0}")]
    Conflicts(Conflicts),
    /// The applied object is wrong.
    #[error("{0}")]
    BadRequest(String),
    /// The stored object's `managedFields` cannot be read.
    #[error("failed to decode managed fields: {0}")]
    Undecodable(String),
}

impl ApplyError {
    /// As the API answers it.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Conflicts(conflicts) => conflicts.status(),
            Self::BadRequest(message) => Status::bad_request(message.as_str()),
            Self::Undecodable(_) => Status::internal(self),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    Apply,
    Update,
}

/// Who manages, apart from when and what. The order is that of messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Manager {
    name: String,
    operation: Operation,
    /// Empty for appliers: whatever version they apply in, they are the same.
    api_version: String,
    subresource: String,
}

impl Manager {
    fn new(name: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let api_version = match operation {
            Operation::Apply => "",
            Operation::Update => api_version,
        };
        Self {
            name: name.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if self.operation == Operation::Update {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

/// One manager's fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Managed {
    /// In which the fields were written.
    api_version: String,
    /// RFC 3339. Nothing if an apply changed nothing.
    time: Option<String>,
    set: Set,
}

type Managers = BTreeMap<Manager, Managed>;

/// The object that results from applying `applied` to `live`, with its `managedFields`.
///
/// `live` is the stored object, `None` if there is none yet. `now` is in RFC 3339, in UTC and whole
/// seconds; `subresource` is empty for the object itself. With `force`, others lose the fields that
/// are in conflict. Fields that another subresource writes are merged all the same, so the caller's
/// `prepare_update` must take them back, as it does for a PUT.
///
/// # Errors
/// [`ApplyError::Conflicts`] unless `force`; the others for what is wrong.
pub fn apply(
    kind: &Kind,
    live: Option<&Value>,
    applied: &Value,
    manager: &str,
    force: bool,
    now: &str,
    subresource: &str,
) -> Result<Value, ApplyError> {
    let table = table_of(kind);
    let root = table.root(kind);
    let tracker = Tracker::new(kind, (&table, &root), now, subresource);
    tracker.check(applied)?;
    let mut managers = match live {
        Some(live) => decode(live).map_err(ApplyError::Undecodable)?,
        None => Managers::new(),
    };
    let stored = live.map_or_else(|| json!({}), without_managed_fields);
    if managers.is_empty() && live.is_some() {
        tracker.update(&json!({}), &stored, &mut managers, BEFORE_FIRST_APPLY);
    }
    let mut merged = match tracker.apply(&stored, applied, &managers, manager, force) {
        Err(conflicts) if manager == KUBECTL => {
            let left = tracker.without_last_applied(conflicts, &stored);
            if !left.is_empty() {
                return Err(ApplyError::Conflicts(conflicts_of(left)));
            }
            tracker.apply(&stored, applied, &managers, manager, true)
        }
        other => other,
    }
    .map_err(|conflicts| ApplyError::Conflicts(conflicts_of(conflicts)))?;
    if manager == KUBECTL {
        keep_last_applied(&mut merged.object, applied);
    }
    encode(&mut merged.object, &merged.managers);
    Ok(merged.object)
}

/// The new object of any other write, with its `managedFields`: `manager` is the only one of what it
/// changed, the others keep the rest. Nothing changes in them if nothing else did.
///
/// `old` is the stored object, `None` for a create; `new` is what is to be stored, defaults and all.
/// What `new` has in `managedFields` replaces what was stored, unless that is nothing or cannot be
/// read; a list of one empty entry ends the tracking of this object, which an apply begins anew.
/// `now` is in RFC 3339, in UTC and whole seconds; `subresource` is empty for the object itself.
#[must_use]
pub fn track_update(
    kind: &Kind,
    old: Option<&Value>,
    new: Value,
    manager: &str,
    now: &str,
    subresource: &str,
) -> Value {
    let mut new = new;
    let mut managers = live_or_new(old, &new, subresource);
    if managers.is_empty() && old.is_some() {
        encode(&mut new, &managers);
        return new;
    }
    let table = table_of(kind);
    let root = table.root(kind);
    let tracker = Tracker::new(kind, (&table, &root), now, subresource);
    if let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if old.is_none() && managers.is_empty() && !has_nulls(&new) {
        tracker.made(&mut new, manager);
        return new;
    }
    let before = old.map_or_else(|| json!({}), without_managed_fields);
    if has_nulls(&new) {
        let mut after = new.clone();
        without_nulls(&mut after);
        tracker.update(&before, &after, &mut managers, manager);
    } else {
        tracker.update(&before, &new, &mut managers, manager);
    }
    tracker.take_oldest_together(&mut managers);
    encode(&mut new, &managers);
    new
}

/// What an apply makes.
struct Merged {
    object: Value,
    managers: Managers,
}

/// Paths by the manager that has them.
type ConflictSets = BTreeMap<Manager, Set>;

fn conflicts_of(sets: ConflictSets) -> Conflicts {
    let conflicts = sets.iter().flat_map(|(manager, set)| {
        let manager = manager.to_string();
        set.paths()
            .into_iter()
            .map(move |path: Path| Conflict { manager: manager.clone(), field: path_text(&path) })
    });
    Conflicts(conflicts.collect())
}

/// One write to an object of one kind.
struct Tracker<'a> {
    typed: Typed<'a>,
    api_version: String,
    kind: &'a Kind,
    now: &'a str,
    subresource: &'a str,
    ignored: Set,
}

impl<'a> Tracker<'a> {
    fn new(
        kind: &'a Kind,
        (table, root): (&'a Table, &'a Shape),
        now: &'a str,
        subresource: &'a str,
    ) -> Self {
        let ignored: &[&[&str]] = match subresource {
            "status" => &[&["metadata"], &["spec"]],
            _ if kind.subresources.contains(&"status") => &[&["status"]],
            _ => &[],
        };
        let ignored = set_of(ignored);
        let typed = Typed { table, root };
        Self { typed, api_version: kind.api_version(), kind, now, subresource, ignored }
    }

    fn manager(&self, name: &str, operation: Operation) -> Manager {
        Manager::new(name, operation, &self.api_version, self.subresource)
    }

    fn check(&self, applied: &Value) -> Result<(), ApplyError> {
        let text = |pointer: &str| applied.pointer(pointer).and_then(Value::as_str);
        let version = text("/apiVersion").unwrap_or_default();
        if version != self.api_version {
            return Err(ApplyError::BadRequest(format!(
                "Incorrect version specified in apply patch. Specified patch version: {version}, \
                 expected: {}",
                self.api_version
            )));
        }
        if applied.pointer("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
            let message = "metadata.managedFields must be nil".to_owned();
            return Err(ApplyError::BadRequest(message));
        }
        let mut errors = self.typed.errors(applied);
        errors.sort();
        let errors = match errors.as_slice() {
            [] => return Ok(()),
            [error] => error.clone(),
            errors => format!("errors:\n  {}", errors.join("\n  ")),
        };
        let [namespace, name] =
            ["/metadata/namespace", "/metadata/name"].map(|at| text(at).unwrap_or_default());
        let (group, version, kind) = (self.kind.group, self.kind.version, self.kind.kind);
        Err(ApplyError::BadRequest(format!(
            "failed to create typed patch object ({namespace}/{name}; {group}/{version}, \
             Kind={kind}): {errors}"
        )))
    }

    fn compare(&self, old: &Value, new: &Value) -> typed::Comparison {
        self.typed.compare(old, new).without(&self.ignored)
    }

    fn update(&self, old: &Value, new: &Value, managers: &mut Managers, manager: &str) {
        let (mut written, removed) = self.compare(old, new).into_written_and_removed();
        // Who writes loses what it had too, and gets it back.
        for managed in managers.values_mut() {
            managed.set.subtract(&written);
            managed.set.subtract(&removed);
        }
        written.subtract(&OWN);
        if !written.is_empty() {
            let managed = managers.entry(self.manager(manager, Operation::Update)).or_default();
            managed.api_version.clone_from(&self.api_version);
            managed.time = Some(self.now.to_owned());
            managed.set.extend(written);
        }
        managers.retain(|_, managed| !managed.set.is_empty());
    }

    /// Makes the manager the only one of a new object: as [`Tracker::update`] from nothing does, for the half of its
    /// cost.
    fn made(&self, object: &mut Value, manager: &str) {
        let mut written = self.typed.made(object);
        self.ignored.take_from(&mut written, true);
        OWN.take_from(&mut written, false);
        if written.is_empty() {
            return encode(object, &Managers::new());
        }
        let manager = self.manager(manager, Operation::Update);
        let time = Some(self.now);
        encode_entries(object, vec![entry(&manager, &self.api_version, time, written.into())]);
    }

    fn apply(
        &self,
        live: &Value,
        applied: &Value,
        managers: &Managers,
        manager: &str,
        force: bool,
    ) -> Result<Merged, ConflictSets> {
        let own = self.manager(manager, Operation::Apply);
        let mut managers = managers.clone();
        let last = managers.remove(&own).unwrap_or_default();
        let set = self.typed.fields_of(applied).difference_below(&self.ignored);
        let mut claimed = managers.values().fold(set.clone(), |all, other| all.union(&other.set));
        claimed = claimed.with_parents(self.typed.table, self.typed.root);
        let mut object = self.typed.merge(live, applied);
        if !last.set.is_empty() {
            object = self.prune(&object, &last.set, &claimed);
        }
        // What lost all that was in it is still there, so its owners keep it.
        let comparison = self.compare(live, &object);
        let written = comparison.written();
        let conflicts: ConflictSets = managers
            .iter()
            .map(|(manager, managed)| (manager.clone(), managed.set.intersection(&written)))
            .filter(|(_, set)| !set.is_empty())
            .collect();
        if !force && !conflicts.is_empty() {
            return Err(conflicts);
        }
        for managed in managers.values_mut() {
            managed.set = managed.set.difference(&written).difference(&comparison.removed);
        }
        let set = set.difference(&set_of(SERVERS_OWN));
        without_nulls(&mut object);
        let time = if same(live, &object) { last.time } else { Some(self.now.to_owned()) };
        managers.insert(own, Managed { api_version: self.api_version.clone(), time, set });
        managers.retain(|_, managed| !managed.set.is_empty());
        Ok(Merged { object, managers })
    }

    /// Takes away what was in `last` and is not claimed. What is below that goes with it, unless it
    /// was not in `last`.
    fn prune(&self, merged: &Value, last: &Set, claimed: &Set) -> Value {
        let with_parents = |set: Set| set.with_parents(self.typed.table, self.typed.root);
        let fields_of = |object: &Value| with_parents(self.typed.fields_of(object));
        let last = with_parents(last.clone());
        let all = fields_of(merged);
        // Without `last`, then with what of it is claimed put back.
        let bare = self.typed.remove(merged, &last);
        let kept = fields_of(&bare).union(claimed);
        let pruned = self.typed.remove(merged, &all.difference(&kept));
        // What nobody manages and was below something of `last` is put back too.
        let gone = all.difference(&fields_of(&pruned)).intersection(&last);
        self.typed.remove(merged, &gone)
    }

    /// The conflicts that are not about what kubectl itself applied from the client's side before,
    /// if that is still so.
    fn without_last_applied(&self, conflicts: ConflictSets, live: &Value) -> ConflictSets {
        let annotation = live
            .pointer("/metadata/annotations")
            .and_then(|annotations| annotations.get(LAST_APPLIED))
            .and_then(Value::as_str);
        let last: Option<Value> = annotation.and_then(|text| serde_json::from_str(text).ok());
        let Some(last) = last else { return conflicts };
        let comparison = self.typed.compare(&last, live);
        let own = self.typed.fields_of(&last);
        let own = own.difference(&comparison.written()).difference(&comparison.removed);
        let left = conflicts.into_iter().map(|(manager, set)| (manager, set.difference(&own)));
        left.filter(|(_, set)| !set.is_empty()).collect()
    }

    /// Beyond [`UPDATERS_MAX`], the oldest updaters of a version become one.
    fn take_oldest_together(&self, managers: &mut Managers) {
        let updaters =
            managers.iter().filter(|(manager, _)| manager.operation == Operation::Update);
        let mut oldest: Vec<(Option<String>, Manager)> =
            updaters.map(|(manager, managed)| (managed.time.clone(), manager.clone())).collect();
        oldest.sort();
        let mut left = oldest.len();
        let mut firsts: BTreeMap<String, Manager> = BTreeMap::new();
        for (_, manager) in oldest {
            if left <= UPDATERS_MAX {
                return;
            }
            let version = &manager.api_version;
            let bucket = Manager::new(ANCIENT_CHANGES, Operation::Update, version, "");
            // One alone is not worth losing its name for.
            let Some(first) = firsts.get(&manager.api_version) else {
                firsts.insert(manager.api_version.clone(), manager);
                continue;
            };
            if !managers.contains_key(&bucket)
                && let Some(first) = managers.remove(first)
            {
                managers.insert(bucket.clone(), first);
            }
            if manager == bucket {
                continue;
            }
            if let Some(merged) = managers.remove(&manager) {
                let into = managers.entry(bucket).or_default();
                into.set = merged.set.union(&into.set);
                into.time = merged.time;
                left -= 1;
            }
        }
    }
}

fn set_of(paths: &[&[&str]]) -> Set {
    let mut set = Set::default();
    for path in paths {
        let path: Path = path.iter().map(|name| Element::Field((*name).to_owned())).collect();
        set.insert(&path);
    }
    set
}

/// Keeps the annotation of a client-side apply in step, so that the next one removes what this one
/// dropped.
fn keep_last_applied(object: &mut Value, applied: &Value) {
    let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    let Some(annotation) = annotations.and_then(|annotations| annotations.get_mut(LAST_APPLIED))
    else {
        return;
    };
    let mut applied = without_managed_fields(applied);
    if let Some(annotations) =
        applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
    *annotation = format!("{applied}\n").into();
}

fn metadata(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.as_object()
}

fn without_managed_fields(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

/// The managers that a write begins with.
fn live_or_new(old: Option<&Value>, new: &Value, subresource: &str) -> Managers {
    let live = || old.and_then(|old| decode(old).ok()).unwrap_or_default();
    // A subresource writes nobody's name but its own.
    if !subresource.is_empty() {
        return live();
    }
    if metadata(new).and_then(|metadata| metadata.get("managedFields")) == Some(&json!([{}])) {
        return Managers::new();
    }
    match decode(new) {
        Ok(managers) if !managers.is_empty() => managers,
        Ok(_) | Err(_) => live(),
    }
}

fn decode(object: &Value) -> Result<Managers, String> {
    let entries = metadata(object).and_then(|metadata| metadata.get("managedFields"));
    let entries = match entries {
        None | Some(Value::Null) => return Ok(Managers::new()),
        Some(Value::Array(entries)) => entries,
        Some(other) => return Err(format!("managedFields is no list: {other}")),
    };
    entries.iter().map(decode_entry).collect()
}

fn decode_entry(entry: &Value) -> Result<(Manager, Managed), String> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let operation = match text("operation").as_str() {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        other => return Err(format!("unexpected operation {other:?}")),
    };
    let fields_type = text("fieldsType");
    if fields_type != "FieldsV1" {
        return Err(format!("unexpected fieldsType {fields_type:?}"));
    }
    let set = match entry.get("fieldsV1") {
        None | Some(Value::Null) => Set::default(),
        Some(fields) => Set::from_fields_v1(fields)?,
    };
    let api_version = text("apiVersion");
    let manager = Manager::new(&text("manager"), operation, &api_version, &text("subresource"));
    let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
    Ok((manager, Managed { api_version, time, set }))
}

/// Appliers first, then by time and name.
fn encode(object: &mut Value, managers: &Managers) {
    if managers.is_empty() {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        return;
    }
    let mut entries: Vec<(&Manager, &Managed)> = managers.iter().collect();
    entries.sort_by_key(|(manager, managed)| {
        let api_version = &managed.api_version;
        (manager.operation, &managed.time, &manager.name, api_version, &manager.subresource)
    });
    let entries = entries.into_iter().map(|(manager, Managed { api_version, time, set })| {
        entry(manager, api_version, time.as_deref(), set.to_fields_v1())
    });
    encode_entries(object, entries.collect());
}

fn entry(manager: &Manager, api_version: &str, time: Option<&str>, fields_v1: Value) -> Value {
    let mut entry = json!({
        "manager": manager.name,
        "operation": match manager.operation {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        },
        "apiVersion": api_version,
        "fieldsType": "FieldsV1",
    });
    if let Some(entry) = entry.as_object_mut() {
        entry.insert("fieldsV1".to_owned(), fields_v1);
        if let Some(time) = time {
            entry.insert("time".to_owned(), time.into());
        }
        if !manager.subresource.is_empty() {
            entry.insert("subresource".to_owned(), manager.subresource.as_str().into());
        }
    }
    entry
}

fn encode_entries(object: &mut Value, entries: Vec<Value>) {
    let Some(fields) = object.as_object_mut() else { return };
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert("managedFields".to_owned(), entries.into());
    }
}

#[cfg(test)]
mod tests;
