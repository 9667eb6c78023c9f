//! Custom resources: the kinds that definitions make, beside the rows of [`crate::kinds`].
//!
//! A [`Definition`] is read once from a stored CustomResourceDefinition. Each of its versions is a [`Kind`]
//! that holds a [`Custom`], from which everything is decided that a row's functions decide for a built-in
//! kind. Kinds are counted: the last request or watch that uses one frees it.

mod check;
mod formats;
pub mod jsonpath;
mod prune;
mod rules;
mod structure;
mod terminating;

pub use structure::{Additional, Items, Schema, Type};
pub use terminating::{CLEANUP, begin_removal};

use crate::{
    core::ObjectMeta,
    field::{FieldError, Path},
    kinds::{self, Kind, list, text},
    meta, names,
    pod::condition_status,
    table,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// A name that lives as long as the process: group, version, kind, plural or singular of a definition.
///
/// Such names are all that stays of a kind that is gone, each once however often it comes back, so that
/// kinds are compared and printed as the built-in ones are. Everything that changes with a definition is
/// counted instead.
fn lasting(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.insert(name);
    name
}

/// A column of a definition's table.
#[derive(Debug, Clone)]
struct Printed {
    /// As the table describes it.
    definition: Value,
    kind: String,
    path: jsonpath::Path,
}

/// JSON pointers of the subresource `scale`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// How many there should be.
    pub spec_replicas: String,
    /// How many there are.
    pub status_replicas: String,
    /// A text that selects Pods; empty if there is none.
    pub selector: String,
}

/// What a definition says of one of its versions.
pub struct Custom {
    /// Name of the definition: `widgets.example.com`.
    pub definition: String,
    /// Of the definition.
    pub uid: String,
    /// Stands for the definition's spec: another one has another number.
    pub spec: u64,
    /// The definition is on its way out: nothing new comes in.
    pub terminating: bool,
    /// Answered under its URL.
    pub served: bool,
    /// The version that objects are stored in.
    pub storage_version: String,
    /// Kind of a list.
    pub list_kind: String,
    /// The names that were accepted.
    pub short_names: Vec<String>,
    /// Such as `all`.
    pub categories: Vec<String>,
    /// What objects look like.
    pub schema: Arc<Schema>,
    /// The same of every version of the definition.
    schemas: Arc<Schemas>,
    /// The same as it was written, for the documents.
    pub open_api: Value,
    /// Where the subresource `scale` finds its numbers.
    pub scale: Option<Scale>,
    /// What readers of the schema make of it, once: not to be known here.
    pub memo: OnceLock<Arc<dyn Any + Send + Sync>>,
    has_status: bool,
    columns: Vec<Printed>,
    selectable: Vec<(String, jsonpath::Path)>,
    deprecation: Option<String>,
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Custom").field("definition", &self.definition).finish_non_exhaustive()
    }
}

/// Schemas by version.
type Schemas = BTreeMap<String, Arc<Schema>>;

/// A stored definition, read.
#[derive(Debug)]
pub struct Definition {
    /// Such as `widgets.example.com`.
    pub name: String,
    /// Its kinds may be served.
    pub established: bool,
    /// One for each version, served or not, newest names first as discovery lists them.
    pub kinds: Vec<Arc<Kind>>,
    /// Versions that cannot be served, and why: none, unless somebody wrote to the store past the API.
    pub broken: Vec<(String, String)>,
}

impl Definition {
    /// From a CustomResourceDefinition as it is stored.
    #[must_use]
    pub fn read(object: &Value) -> Self {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let (mut schemas, mut broken) = (Schemas::new(), Vec::new());
        for version in list(spec, "versions") {
            let name = text(version, "/name");
            let open_api = version.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null);
            match Schema::read(open_api) {
                Ok(schema) => drop(schemas.insert(name, Arc::new(schema))),
                Err(error) => broken.push((name, error)),
            }
        }
        let schemas = Arc::new(schemas);
        let mut kinds: Vec<Arc<Kind>> = list(spec, "versions")
            .iter()
            .filter_map(|version| read_version(object, spec, version, &schemas).map(Arc::new))
            .collect();
        kinds.sort_by(|a, b| compare_versions(a.version, b.version));
        Self {
            name: meta::name(object).to_owned(),
            established: condition_status(object, "Established") == "True",
            kinds,
            broken,
        }
    }
}

/// What [`Custom::spec`] is of a spec.
fn spec_number(spec: &Value) -> u64 {
    names::stable_hash(&spec.to_string())
}

/// The order of versions: `v2` before `v1` before `v1beta1` before `v1alpha1` before any other name.
#[must_use]
pub fn compare_versions(a: &str, b: &str) -> std::cmp::Ordering {
    /// Stability, major and minor of `v1beta2`.
    fn parts(version: &str) -> Option<(u8, u64, u64)> {
        let rest = version.strip_prefix('v')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (major, rest) = rest.split_at(end);
        let major = major.parse().ok()?;
        for (name, stability) in [("alpha", 0), ("beta", 1)] {
            if let Some(minor) = rest.strip_prefix(name) {
                return Some((stability, major, minor.parse().ok()?));
            }
        }
        rest.is_empty().then_some((2, major, 0))
    }
    parts(b).cmp(&parts(a)).then_with(|| a.cmp(b))
}

/// A path of fields such as `.spec.replicas` as a JSON pointer.
fn pointer(path: &str) -> String {
    let Ok(path) = jsonpath::Path::parse(path) else { return String::new() };
    let escaped = |name: &str| format!("/{}", name.replace('~', "~0").replace('/', "~1"));
    path.fields().unwrap_or_default().into_iter().map(escaped).collect()
}

fn read_version(
    object: &Value,
    spec: &Value,
    version: &Value,
    schemas: &Arc<Schemas>,
) -> Option<Kind> {
    let schema = Arc::clone(schemas.get(&text(version, "/name"))?);
    // What was accepted holds until something else is.
    let accepted = |key: &str| {
        let status = text(object, &format!("/status/acceptedNames/{key}"));
        if status.is_empty() { text(spec, &format!("/names/{key}")) } else { status }
    };
    let names_of = |key: &str| -> Vec<String> {
        let names = object.pointer("/status/acceptedNames").unwrap_or(&Value::Null);
        list(names, key).iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let open_api = version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_default();
    let stored = list(spec, "versions").iter().find(|v| v.get("storage") == Some(&json!(true)));
    let part = |pointer: &str| version.pointer(pointer).filter(|part| !part.is_null());
    let has_status = part("/subresources/status").is_some();
    let scale = part("/subresources/scale").map(|scale| Scale {
        spec_replicas: pointer(&text(scale, "/specReplicasPath")),
        status_replicas: pointer(&text(scale, "/statusReplicasPath")),
        selector: pointer(&text(scale, "/labelSelectorPath")),
    });
    let (group, name) = (text(spec, "/group"), text(version, "/name"));
    let kind = accepted("kind");
    let deprecation = (version.get("deprecated") == Some(&json!(true))).then(|| {
        let warning = text(version, "/deprecationWarning");
        if warning.is_empty() { format!("{group}/{name} {kind} is deprecated") } else { warning }
    });
    let selectable = list(version, "selectableFields").iter().filter_map(|field| {
        let path = text(field, "/jsonPath");
        let label = path.trim_start_matches('.').to_owned();
        Some((label, jsonpath::Path::parse(&path).ok()?))
    });
    let custom = Custom {
        definition: meta::name(object).to_owned(),
        uid: meta::uid(object).to_owned(),
        spec: spec_number(spec),
        terminating: meta::is_terminating(object),
        served: version.get("served") == Some(&json!(true)),
        storage_version: stored.map(|v| text(v, "/name")).unwrap_or_default(),
        list_kind: accepted("listKind"),
        short_names: names_of("shortNames"),
        categories: names_of("categories"),
        schema,
        schemas: Arc::clone(schemas),
        open_api,
        memo: OnceLock::new(),
        has_status,
        columns: columns(version),
        selectable: selectable.collect(),
        deprecation,
        scale,
    };
    let subresources: &[&str] = match (has_status, custom.scale.is_some()) {
        (true, true) => &["status", "scale"],
        (true, false) => &["status"],
        (false, true) => &["scale"],
        (false, false) => &[],
    };
    Some(Kind {
        group: lasting(&group),
        version: lasting(&name),
        kind: lasting(&kind),
        plural: lasting(&text(spec, "/names/plural")),
        singular: lasting(&accepted("singular")),
        namespaced: text(spec, "/scope") == "Namespaced",
        subresources,
        unconditional_update: false,
        has_generation: true,
        generation_counts: counts,
        custom: Some(Arc::new(custom)),
        ..kinds::plain_row()
    })
}

/// Everything but metadata counts; a status that has a subresource of its own is as before.
fn counts(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut fields = object.as_object().cloned().unwrap_or_default();
        for key in ["apiVersion", "kind", "metadata"] {
            fields.remove(key);
        }
        fields
    };
    rest(new) != rest(old)
}

fn columns(version: &Value) -> Vec<Printed> {
    let column = |name: &str, kind: &str, format: &str, description: &str, priority: i64| {
        json!({"name": name, "type": kind, "format": format, "description": description,
               "priority": priority})
    };
    let name = Printed {
        definition: column(
            "Name",
            "string",
            "name",
            "Name of the object, which no other of its kind has in its namespace.",
            0,
        ),
        kind: "string".to_owned(),
        path: jsonpath::Path::parse(".metadata.name").unwrap_or_default(),
    };
    let given = list(version, "additionalPrinterColumns");
    let mut all = vec![name];
    all.extend(given.iter().map(|given| {
        let part = |key: &str| text(given, &format!("/{key}"));
        let kind = part("type");
        let priority = kinds::number(given, "/priority");
        Printed {
            definition: column(
                &part("name"),
                &kind,
                &part("format"),
                &part("description"),
                priority,
            ),
            path: jsonpath::Path::parse(&part("jsonPath")).unwrap_or_default(),
            kind,
        }
    }));
    if given.is_empty() {
        let description = "Time since the object was created.";
        all.push(Printed {
            definition: column("Age", "date", "", description, 0),
            kind: "date".to_owned(),
            path: jsonpath::Path::parse(".metadata.creationTimestamp").unwrap_or_default(),
        });
    }
    all
}

/// A cell; null where there is nothing to show.
fn cell(column: &Printed, object: &Value, now: i64) -> Value {
    let Some(value) = column.path.first(object) else { return Value::Null };
    match (column.kind.as_str(), value) {
        ("string", Value::String(text)) => text.as_str().into(),
        ("string", Value::Null) => Value::Null,
        ("string", other) => other.to_string().into(),
        ("integer", number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => number.into(),
            // As Go converts: towards zero.
            #[allow(clippy::cast_possible_truncation, reason = "a cell of whole numbers")]
            (None, Some(number)) => (number as i64).into(),
            (None, None) => Value::Null,
        },
        ("number", number) => number.as_f64().map_or(Value::Null, Value::from),
        ("boolean", flag) => flag.as_bool().map_or(Value::Null, Value::from),
        ("date", Value::String(text)) if meta::parse_time(text).is_some() => {
            table::since(Some(value), now).into()
        }
        ("date", _) => "<invalid>".into(),
        _ => Value::Null,
    }
}

/// What is looked at of metadata before it is trusted to have its form.
#[derive(Deserialize)]
struct HasMetadata {
    #[serde(default, rename = "metadata")]
    _metadata: ObjectMeta,
}

/// What the row's functions are for a built-in kind.
impl Custom {
    pub(crate) fn decode(object: &Value) -> Result<(), String> {
        kinds::decodes::<HasMetadata>(object)
    }

    /// Whether a definition, as it is stored now, still says the same of this kind. Its conditions may have
    /// changed, and it may be on its way out.
    #[must_use]
    pub fn is_defined_by(&self, object: &Value) -> bool {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        meta::uid(object) == self.uid && spec_number(spec) == self.spec
    }

    /// Takes away what the schema does not have and fills in its defaults.
    pub fn complete(&self, object: &mut Value) {
        prune::prune(&self.schema, object);
        prune::default(&self.schema, object);
    }

    /// The same for what was stored, maybe under an older schema: by that of the version it is stored in,
    /// so that reading another version takes nothing away that a write would then lose.
    pub fn complete_stored(&self, object: &mut Value) {
        let version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let version = version.rsplit('/').next().unwrap_or_default();
        let stored = self.schemas.get(version).or_else(|| self.schemas.get(&self.storage_version));
        let schema = stored.unwrap_or(&self.schema);
        prune::prune(schema, object);
        prune::default(schema, object);
    }

    pub(crate) fn prepare_create(&self, object: &mut Value) {
        if let Some(fields) = object.as_object_mut().filter(|_| self.has_status) {
            fields.remove("status");
            // A default of the status itself is there from the beginning.
            prune::default(&self.schema, object);
        }
    }

    pub(crate) fn prepare_update(&self, new: &mut Value, old: &Value) {
        if self.has_status {
            kinds::keep_status(new, old);
        }
    }

    pub(crate) fn prepare_status(&self, new: &mut Value, old: &Value) {
        self.complete(new);
        kinds::take_status(new, old);
    }

    pub(crate) fn check(&self, kind: &Kind, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = kinds::valid_metadata(new, kind.namespaced);
        if let Some(old) = old {
            errors.extend(crate::validation::metadata_update(new, old));
        }
        errors.extend(check::check(&self.schema, new, old));
        // What is no object of this form has no rules that could be asked.
        if errors.is_empty() {
            errors.extend(rules::check(&self.schema, new, old));
        }
        errors
    }

    /// Paths of the fields that its objects do not have; of metadata, another table knows.
    #[must_use]
    pub fn unknown_fields(&self, object: &Value) -> Vec<String> {
        prune::unknown(&self.schema, object)
    }

    pub(crate) fn columns(&self) -> Vec<Value> {
        self.columns.iter().map(|column| column.definition.clone()).collect()
    }

    pub(crate) fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        self.columns.iter().map(|column| cell(column, object, now)).collect()
    }

    pub(crate) fn is_label(&self, label: &str) -> bool {
        self.selectable.iter().any(|(name, _)| name == label)
    }

    pub(crate) fn field(&self, object: &Value, label: &str) -> String {
        let found = self.selectable.iter().find(|(name, _)| name == label);
        match found.and_then(|(_, path)| path.first(object)) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }

    /// What to tell who uses a version that is deprecated.
    #[must_use]
    pub fn deprecation(&self) -> Option<&str> {
        self.deprecation.as_deref()
    }
}

/// Errors of a definition's schema that only show when it is read: patterns, rules, and defaults that are
/// no values of their own schema.
pub(crate) fn check_definition(schema: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    definition_parts(schema, path, &mut errors);
    if errors.is_empty() {
        match Schema::read(schema) {
            Ok(schema) => defaults(&schema, path, true, &mut errors),
            Err(error) => errors.push(FieldError::invalid(path, "", error)),
        }
    }
    errors
}

fn definition_parts(schema: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let Some(fields) = schema.as_object() else { return };
    if let Some(pattern) = fields.get("pattern").and_then(Value::as_str)
        && let Err(error) = crate::pattern::compile(pattern)
    {
        let detail = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(FieldError::invalid(&path.child("pattern"), pattern, detail));
    }
    rules::check_definition(fields, path, errors);
    for (name, inner) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
        definition_parts(inner, &path.child("properties").key(name), errors);
    }
    for key in ["items", "additionalProperties", "not"] {
        if let Some(inner) = fields.get(key) {
            definition_parts(inner, &path.child(key), errors);
        }
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        let inner = fields.get(key).and_then(Value::as_array).into_iter().flatten();
        for (i, inner) in inner.enumerate() {
            definition_parts(inner, &path.child(key).index(i), errors);
        }
    }
}

fn defaults(schema: &Schema, path: &Path, is_root: bool, errors: &mut Vec<FieldError>) {
    // A null where none is allowed is no default.
    let default = schema.default.as_ref().filter(|value| !value.is_null() || schema.nullable);
    if let Some(value) = default {
        let at = path.child("default");
        if is_root {
            errors.push(FieldError::forbidden(&at, "must not be set"));
        }
        let unknown = if value.is_object() { prune::unknown(schema, value) } else { Vec::new() };
        if !unknown.is_empty() {
            let detail = format!("must not have unknown fields: {}", unknown.join(", "));
            errors.push(FieldError::invalid(&at, value.clone(), detail));
        }
        let mut completed = value.clone();
        prune::default(schema, &mut completed);
        for mut error in check::check_value(schema, &completed) {
            let below = error.field.trim_start_matches("<nil>").to_owned();
            let dot = if below.is_empty() || below.starts_with('[') { "" } else { "." };
            error.field = format!("{at}{dot}{below}");
            errors.push(error);
        }
    }
    for (name, inner) in &schema.properties {
        defaults(inner, &path.child("properties").key(name), false, errors);
    }
    if let Some(items) = &schema.items {
        defaults(items, &path.child("items"), false, errors);
    }
    if let Additional::Of(inner) = &schema.additional {
        defaults(inner, &path.child("additionalProperties"), false, errors);
    }
}

/// What is wrong with a printer column's path; empty when nothing is.
pub(crate) fn path_error(path: &str) -> Option<String> {
    jsonpath::Path::parse(path).err()
}

/// What `names` would wrongly be called by: whether any is asked for that others have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// Plural, singular and short names of a group's other kinds.
    pub resources: BTreeSet<String>,
    /// Kinds and kinds of lists of a group's other kinds.
    pub kinds: BTreeSet<String>,
}

impl Taken {
    /// Adds what a definition's status says that it has, or what a built-in kind is called.
    pub fn add(&mut self, names: &Value) {
        for key in ["plural", "singular"] {
            self.resources.extend(names.get(key).and_then(Value::as_str).map(str::to_owned));
        }
        let short = list(names, "shortNames").iter().filter_map(Value::as_str);
        self.resources.extend(short.map(str::to_owned));
        for key in ["kind", "listKind"] {
            self.kinds.extend(names.get(key).and_then(Value::as_str).map(str::to_owned));
        }
        self.resources.remove("");
        self.kinds.remove("");
    }
}

/// The names that a definition gets, and the conditions that say so (`NamesAccepted`, `Established`).
///
/// `taken` is what others of its group have been given. A name that it has been given stays its own. Names
/// that are taken are not given, all others are; the kind is served as soon as all of its first names are.
#[must_use]
pub fn accept_names(object: &Value, taken: &Taken) -> (Value, Vec<Value>) {
    let wanted = object.pointer("/spec/names").cloned().unwrap_or_default();
    let had = object.pointer("/status/acceptedNames").cloned().unwrap_or_default();
    let mut names = had.as_object().cloned().unwrap_or_default();
    let mut refused: Option<(&str, String)> = None;
    let in_use = |name: &str| format!("{} is already in use", crate::field::quoted(name));
    for (key, reason) in [
        ("plural", "PluralConflict"),
        ("singular", "SingularConflict"),
        ("shortNames", "ShortNamesConflict"),
        ("kind", "KindConflict"),
        ("listKind", "ListKindConflict"),
    ] {
        let others =
            if key == "kind" || key == "listKind" { &taken.kinds } else { &taken.resources };
        let conflict = if key == "shortNames" {
            let own: Vec<&Value> = list(&had, key).iter().collect();
            let new = list(&wanted, key).iter().filter(|name| !own.contains(name));
            let taken = new.filter_map(Value::as_str).filter(|name| others.contains(*name));
            let taken: Vec<String> = taken.map(in_use).collect();
            match taken.as_slice() {
                [] => None,
                [one] => Some(one.clone()),
                many => Some(format!("[{}]", many.join(", "))),
            }
        } else {
            let name = text(&wanted, &format!("/{key}"));
            let own = text(&had, &format!("/{key}"));
            (name != own && others.contains(&name)).then(|| in_use(&name))
        };
        match (conflict, wanted.get(key)) {
            (Some(conflict), _) => refused = Some((reason, conflict)),
            (None, Some(name)) => drop(names.insert(key.to_owned(), name.clone())),
            (None, None) => drop(names.remove(key)),
        }
    }
    match wanted.get("categories") {
        Some(categories) => drop(names.insert("categories".to_owned(), categories.clone())),
        None => drop(names.remove("categories")),
    }
    let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "reason": reason, "message": message});
    let was_established = condition_status(object, "Established") == "True";
    let accepted = match &refused {
        None => condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
        Some((reason, message)) => condition("NamesAccepted", "False", reason, message),
    };
    let mut conditions = vec![accepted];
    if !was_established {
        conditions.push(if refused.is_none() {
            let message = "the initial names have been accepted";
            condition("Established", "True", "InitialNamesAccepted", message)
        } else {
            condition("Established", "False", "NotAccepted", "not all names are accepted")
        });
    }
    (Value::Object(names), conditions)
}

/// Whether a text is of one of the formats that schemas know.
pub(crate) fn is_format(format: &str, text: &str) -> bool {
    formats::fits(format, text)
}

/// Names of embedded objects' kinds are those of any other.
pub(crate) fn kind_name(kind: &str) -> Vec<String> {
    names::label_1035(&kind.to_lowercase())
}

#[cfg(test)]
mod tests;
