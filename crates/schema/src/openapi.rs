//! The OpenAPI v3 documents: one a group version, and the index that names them.
//!
//! `kubectl explain` reads the definitions and their descriptions; every kubectl looks for the query
//! parameter `fieldValidation` of a kind's PATCH before it leaves validation to the server. Paths
//! come from the kinds that are served, definitions from those that their types reach.

use crate::{
    marks::{self, ListType},
    table::{Registered, Schemas, is_always_written, reference, required, schemas, zero},
};
use api::kinds::{self, Kind};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

/// What the documents say of the whole API.
const TITLE: &str = "Kubernetes";
/// The version of the API that the types are of.
const VERSION: &str = "v1.36.0";
const PREFIX: &str = "#/components/schemas/";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// One group version's document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Where it is served below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
    pub path: String,
    /// SHA-512 of the bytes in upper-case hexadecimal: the document's entity tag, and `hash` in the
    /// index. A client may keep a document for ever under its hash.
    pub hash: String,
    /// JSON.
    pub bytes: Vec<u8>,
}

struct Documents {
    index: Vec<u8>,
    documents: BTreeMap<String, Document>,
    /// What the documents of custom resources have in common with these.
    shared: BTreeMap<String, Value>,
}

static DOCUMENTS: LazyLock<Documents> =
    LazyLock::new(|| Documents::new(&kinds::served().collect::<Vec<_>>()));

/// What `/openapi/v3` answers: JSON.
///
/// The first call makes all documents and keeps them.
#[must_use]
pub fn index() -> &'static [u8] {
    &DOCUMENTS.index
}

/// The document at a path such as `api/v1` or `apis/apps/v1`; `None` for a group version that is
/// not served. The first call makes all documents and keeps them.
#[must_use]
pub fn document(path: &str) -> Option<&'static Document> {
    DOCUMENTS.documents.get(path)
}

/// Every document, by path.
pub fn documents() -> impl Iterator<Item = &'static Document> {
    DOCUMENTS.documents.values()
}

/// The document of one version of a group of custom resources.
#[must_use]
pub fn custom_document(group: &str, version: &str, kinds: &[&Kind]) -> Document {
    let mut definitions = DOCUMENTS.shared.clone();
    let mut known = vec![Registered {
        group: "autoscaling",
        version: "v1",
        kind: "Scale",
        list_kind: String::new(),
        definition: SCALE.to_owned(),
    }];
    for kind in kinds {
        let registered = Registered {
            group: kind.group,
            version: kind.version,
            kind: kind.kind,
            list_kind: kind.list_kind(),
            definition: format!("{}.{}.{}", reversed(group), kind.version, kind.kind),
        };
        definitions.insert(list_name(&registered), list_definition(&registered));
        definitions.insert(registered.definition.clone(), custom_definition(kind));
        known.push(registered);
    }
    let schemas = Schemas { kinds: known, definitions: Map::new() };
    let maker = Maker { schemas: &schemas, definitions: &definitions };
    Document::new(group, version, maker.document(kinds).to_string().into_bytes())
}

/// What `/openapi/v3` answers where there are documents of custom resources.
#[must_use]
pub fn index_with<'a>(custom: impl IntoIterator<Item = &'a Document>) -> Vec<u8> {
    index_of(DOCUMENTS.documents.values().chain(custom))
}

fn index_of<'a>(documents: impl Iterator<Item = &'a Document>) -> Vec<u8> {
    let paths: Map<String, Value> = documents
        .map(|Document { path, hash, .. }| {
            let url = format!("/openapi/v3/{path}?hash={hash}");
            (path.clone(), json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths}).to_string().into_bytes()
}

const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";

/// `com.example` of `example.com`.
fn reversed(group: &str) -> String {
    group.split('.').rev().collect::<Vec<_>>().join(".")
}

/// The schema of a definition's version, with what every object has.
fn custom_definition(kind: &Kind) -> Value {
    let mut schema = kind.custom.as_ref().map_or_else(|| json!({}), |c| c.open_api.clone());
    if let Some(fields) = schema.as_object_mut() {
        fields.entry("type").or_insert_with(|| "object".into());
        let properties = fields.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            let text = |description: &str| json!({"type": "string", "description": description});
            let version = "Group and version of the object's schema.";
            properties.insert("apiVersion".to_owned(), text(version));
            properties.insert("kind".to_owned(), text("Kind of the object."));
            let metadata = json!({
                "description": "Metadata that every object has.", "allOf": [meta_ref("ObjectMeta")],
            });
            properties.insert("metadata".to_owned(), metadata);
        }
        fields.insert(GVK.to_owned(), json!([gvk(kind.group, kind.version, kind.kind)]));
    }
    schema
}

impl Document {
    fn new(group: &str, version: &str, bytes: Vec<u8>) -> Self {
        let hash = Sha512::digest(&bytes).into_iter().map(|byte| format!("{byte:02X}"));
        Self { path: base(group, version), hash: hash.collect(), bytes }
    }
}

impl Documents {
    fn new(kinds: &[&Kind]) -> Self {
        let schemas = schemas();
        let definitions = definitions(&schemas);
        let all = || kinds.iter().copied().chain(kinds::reviews());
        let versions: BTreeSet<(&str, &str)> =
            all().map(|kind| (kind.group, kind.version)).collect();
        let documents: BTreeMap<String, Document> = versions
            .into_iter()
            .map(|(group, version)| {
                let of = all().filter(|k| k.group == group && k.version == version);
                let maker = Maker { schemas: &schemas, definitions: &definitions };
                let bytes = maker.document(&of.collect::<Vec<_>>()).to_string().into_bytes();
                let document = Document::new(group, version, bytes);
                (document.path.clone(), document)
            })
            .collect();
        let maker = Maker { schemas: &schemas, definitions: &definitions };
        let mut reached = BTreeSet::new();
        for name in ["ObjectMeta", "ListMeta", "DeleteOptions", "Patch", "Status"] {
            maker.reach(&meta_ref(name), &mut reached);
        }
        maker.reach(&schema_ref(SCALE), &mut reached);
        let shared = reached.into_iter();
        let shared = shared.filter_map(|n| Some((n.to_owned(), definitions.get(n)?.clone())));
        let shared = shared.collect();
        Self { index: index_of(documents.values()), documents, shared }
    }
}

fn base(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn schema_ref(name: &str) -> Value {
    json!({"$ref": format!("{PREFIX}{name}")})
}

fn meta_ref(name: &str) -> Value {
    schema_ref(&format!("{META}.{name}"))
}

/// The types' schemas with all that upstream says beside them.
fn definitions(schemas: &Schemas) -> BTreeMap<String, Value> {
    let mut definitions: BTreeMap<String, Value> = schemas
        .definitions
        .iter()
        .map(|(name, schema)| (name.clone(), definition(name, schema, schemas)))
        .collect();
    for kind in &schemas.kinds {
        if let Some(Value::Object(schema)) = definitions.get_mut(&kind.definition) {
            schema.insert(GVK.to_owned(), json!([gvk(kind.group, kind.version, kind.kind)]));
        }
        if !kind.list_kind.is_empty() {
            definitions.insert(list_name(kind), list_definition(kind));
        }
    }
    definitions
}

const GVK: &str = "x-kubernetes-group-version-kind";

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// Such as `io.k8s.api.core.v1.PodList`.
fn list_name(kind: &Registered) -> String {
    let package = kind.definition.rsplit_once('.').map_or("", |(package, _)| package);
    format!("{package}.{}", kind.list_kind)
}

fn list_definition(kind: &Registered) -> Value {
    json!({
        "description": format!("{} is a list of {}.", kind.list_kind, kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"description": "Group and version of the list's schema.", "type": "string"},
            "kind": {"description": "Kind of the list.", "type": "string"},
            "metadata": {
                "description": "Metadata of the list.", "default": {},
                "allOf": [meta_ref("ListMeta")],
            },
            "items": {
                "description": format!("The objects of kind {}.", kind.kind), "type": "array",
                "items": {"default": {}, "allOf": [schema_ref(&kind.definition)]},
            },
        },
        GVK: [gvk(kind.group, kind.version, &kind.list_kind)],
    })
}

fn definition(name: &str, schema: &Value, schemas: &Schemas) -> Value {
    let mut schema = schema.clone();
    let required: Vec<String> = required(&schema).into_iter().map(str::to_owned).collect();
    let Some(fields) = schema.as_object_mut() else { return schema };
    if marks::is_atomic_object(name) {
        fields.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    if fields.remove("x-kubernetes-int-or-string").is_some() {
        // As upstream has it: readers that do not know the extension see text or a number.
        let number = if name.ends_with(".IntOrString") { "integer" } else { "number" };
        fields.insert("oneOf".to_owned(), json!([{"type": "string"}, {"type": number}]));
        if number == "integer" {
            fields.insert("format".to_owned(), "int-or-string".into());
        }
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        for (field, property) in properties {
            let required = required.contains(field);
            property_of(name, field, property, required, schemas);
        }
    }
    schema
}

fn property_of(of: &str, name: &str, property: &mut Value, required: bool, schemas: &Schemas) {
    let referred = reference(property).and_then(|name| schemas.definitions.get(name));
    let written = is_always_written(of, name, property);
    let default = if let Some(text) = marks::default(of, name) {
        Some(text.into())
    } else if written || (required && referred.is_some_and(|r| r.get("properties").is_some())) {
        Some(json!({}))
    } else if required && referred.is_none() {
        zero(property)
    } else {
        None
    };
    let mark = marks::mark(of, name);
    let Some(fields) = property.as_object_mut() else { return };
    if let Some(reference) = fields.remove("$ref") {
        // Beside a `$ref`, readers of OpenAPI 3.0 see nothing.
        fields.insert("allOf".to_owned(), json!([{"$ref": reference}]));
    }
    if let Some(default) = default {
        fields.insert("default".to_owned(), default);
    }
    if fields.get("type").and_then(Value::as_str) == Some("array") {
        let list = mark.map(|mark| mark.list.clone()).unwrap_or_default();
        let list_type = match list {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map(keys) => {
                fields.insert("x-kubernetes-list-map-keys".to_owned(), json!(keys));
                "map"
            }
            ListType::Keyed(keys) => {
                fields.insert("x-kubernetes-list-map-keys".to_owned(), json!(*keys));
                "map"
            }
        };
        fields.insert("x-kubernetes-list-type".to_owned(), list_type.into());
    }
    if marks::is_atomic_map(of, name) {
        fields.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    if let Some(mark) = mark {
        if let Some(strategy) = mark.strategy.text() {
            fields.insert("x-kubernetes-patch-strategy".to_owned(), strategy.into());
        }
        if !mark.merge_key.is_empty() {
            fields.insert("x-kubernetes-patch-merge-key".to_owned(), mark.merge_key.into());
        }
    }
    for key in ["items", "additionalProperties"] {
        let Some(inner) = fields.get_mut(key) else { continue };
        let referred = reference(inner).and_then(|name| schemas.definitions.get(name));
        let of_struct = referred.is_some_and(|referred| referred.get("properties").is_some());
        let Some(inner) = inner.as_object_mut().filter(|_| of_struct) else { continue };
        if let Some(reference) = inner.remove("$ref") {
            inner.insert("allOf".to_owned(), json!([{"$ref": reference}]));
            inner.insert("default".to_owned(), json!({}));
        }
    }
}

/// What an operation does, as `x-kubernetes-action` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Get,
    List,
    Post,
    Put,
    Patch,
    Delete,
    DeleteCollection,
    Connect,
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Post => "post",
            Self::Put => "put",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Connect => "connect",
        }
    }

    const fn verb(self) -> &'static str {
        match self {
            Self::Get => "read",
            Self::List => "list",
            Self::Post => "create",
            Self::Put => "replace",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deleteCollection",
            Self::Connect => "connect",
        }
    }

    const fn does(self) -> &'static str {
        match self {
            Self::Get => "read the specified",
            Self::List => "list or watch objects of kind",
            Self::Post => "create a",
            Self::Put => "replace the specified",
            Self::Patch => "partially update the specified",
            Self::Delete => "delete a",
            Self::DeleteCollection => "delete a collection of",
            Self::Connect => "open a stream to a",
        }
    }
}

/// Parameters of the query: name, type, description.
type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter =
    ("pretty", "string", "If 'true', then the output is indented for people to read.");
const WRITE: [Parameter; 3] = [
    (
        "dryRun",
        "string",
        "When present, nothing is stored. The only value is All: every stage but the last is run.",
    ),
    (
        "fieldManager",
        "string",
        "Name of who makes the change, for managedFields: at most 128 printable characters.",
    ),
    (
        "fieldValidation",
        "string",
        "What becomes of unknown and duplicate fields: Ignore drops them, Warn (the default) drops \
         them and answers with a warning each, Strict refuses the request and names them all.",
    ),
];
const FORCE: Parameter =
    ("force", "boolean", "For apply requests: take over fields that other managers have set.");
const DELETE: [Parameter; 4] = [
    WRITE[0],
    ("gracePeriodSeconds", "integer", "Seconds before the object is deleted; zero is at once."),
    (
        "orphanDependents",
        "boolean",
        "Deprecated: use propagationPolicy. Whether dependents lose their owner instead of going too.",
    ),
    (
        "propagationPolicy",
        "string",
        "What becomes of dependents: Orphan leaves them, Background deletes them afterwards, \
         Foreground deletes them first.",
    ),
];
const LIST: [Parameter; 10] = [
    ("allowWatchBookmarks", "boolean", "Whether a watch may be sent events of type BOOKMARK."),
    ("continue", "string", "Where the last answer to a limited list said that the next begins."),
    ("fieldSelector", "string", "Restricts the objects by their fields."),
    ("labelSelector", "string", "Restricts the objects by their labels."),
    ("limit", "integer", "Objects in one answer at most; the rest is asked for with continue."),
    ("resourceVersion", "string", "The version of the data that may be answered from."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "Whether a watch begins with what there is, then a bookmark."),
    ("timeoutSeconds", "integer", "Seconds after which the call ends, whatever happens."),
    ("watch", "boolean", "Whether changes are sent as they happen instead of a list."),
];

fn query((name, kind, description): Parameter) -> Value {
    json!({
        "name": name, "in": "query", "description": description,
        "schema": {"type": kind, "uniqueItems": true},
    })
}

fn in_path(name: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "path", "required": true, "description": description,
        "schema": {"type": "string", "uniqueItems": true},
    })
}

struct Maker<'a> {
    schemas: &'a Schemas,
    definitions: &'a BTreeMap<String, Value>,
}

/// What a path's operations are about.
struct Subject<'a> {
    kind: &'a Kind,
    /// Empty for the object itself.
    subresource: &'a str,
    /// Group, version and kind of what is taken and answered.
    takes: (&'a str, &'a str, &'a str),
    namespaced: bool,
}

impl Maker<'_> {
    fn document(&self, kinds: &[&Kind]) -> Value {
        let mut paths = Map::new();
        for kind in kinds {
            self.paths_of(kind, &mut paths);
        }
        let paths = Value::Object(paths);
        let mut reached = BTreeSet::new();
        self.reach(&paths, &mut reached);
        let schemas: Map<String, Value> = reached
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), self.definitions.get(name)?.clone())))
            .collect();
        json!({
            "openapi": "3.0.0",
            "info": {"title": TITLE, "version": VERSION},
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {
                    "BearerToken": {
                        "type": "apiKey", "name": "authorization", "in": "header",
                        "description": "Bearer Token authentication",
                    },
                },
            },
        })
    }

    /// Adds every definition that the value refers to, and all that those refer to.
    fn reach<'s>(&'s self, value: &Value, reached: &mut BTreeSet<&'s str>) {
        match value {
            Value::Object(fields) => {
                if let Some(name) = reference(value)
                    && let Some((name, definition)) = self.definitions.get_key_value(name)
                    && reached.insert(name)
                {
                    self.reach(definition, reached);
                }
                fields.values().for_each(|value| self.reach(value, reached));
            }
            Value::Array(items) => items.iter().for_each(|item| self.reach(item, reached)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn paths_of(&self, kind: &Kind, paths: &mut Map<String, Value>) {
        let root = format!("/{}", base(kind.group, kind.version));
        if kind.is_review() {
            self.path_of_review(kind, &root, paths);
            return;
        }
        let all = format!("{root}/{}", kind.plural);
        let own = (kind.group, kind.version, kind.kind);
        let subject = Subject { kind, subresource: "", takes: own, namespaced: kind.namespaced };
        let collection = if kind.namespaced {
            let everywhere = Subject { namespaced: false, ..subject };
            let list = vec![self.operation(&everywhere, Action::List, "ForAllNamespaces")];
            paths.insert(all, path_item(list, Vec::new()));
            format!("{root}/namespaces/{{namespace}}/{}", kind.plural)
        } else {
            all
        };
        let mut named = Vec::new();
        if kind.namespaced {
            named.push(in_path(
                "namespace",
                "object name and auth scope, such as for teams and projects",
            ));
        }
        let operations = [Action::List, Action::Post, Action::DeleteCollection];
        let operations = operations.map(|action| self.operation(&subject, action, ""));
        paths.insert(collection.clone(), path_item(operations.to_vec(), named.clone()));
        named.push(in_path("name", &format!("name of the {}", kind.kind)));
        let operations = [Action::Get, Action::Put, Action::Patch, Action::Delete];
        let operations = operations.map(|action| self.operation(&subject, action, ""));
        let one = format!("{collection}/{{name}}");
        paths.insert(one.clone(), path_item(operations.to_vec(), named.clone()));
        for subresource in kind.subresources {
            let (takes, actions) = taken(kind, subresource);
            let subject = Subject { kind, subresource, takes, namespaced: kind.namespaced };
            let operations = actions.iter().map(|action| self.operation(&subject, *action, ""));
            let operations = operations.collect();
            paths.insert(format!("{one}/{subresource}"), path_item(operations, named.clone()));
        }
    }

    /// They can be created, and nothing else.
    fn path_of_review(&self, kind: &Kind, root: &str, paths: &mut Map<String, Value>) {
        let takes = (kind.group, kind.version, kind.kind);
        let subject = Subject { kind, subresource: "", takes, namespaced: kind.namespaced };
        let post = vec![self.operation(&subject, Action::Post, "")];
        let (space, parameters) = if kind.namespaced {
            let about = "object name and auth scope, such as for teams and projects";
            ("/namespaces/{namespace}", vec![in_path("namespace", about)])
        } else {
            ("", Vec::new())
        };
        paths.insert(format!("{root}{space}/{}", kind.plural), path_item(post, parameters));
    }

    fn registered(&self, (group, version, kind): (&str, &str, &str)) -> Option<&Registered> {
        self.schemas.kinds.iter().find(|k| (k.group, k.version, k.kind) == (group, version, kind))
    }

    /// The schema of one object; any object if its type is not known.
    fn one(&self, takes: (&str, &str, &str)) -> Value {
        let known = self.registered(takes).map(|known| schema_ref(&known.definition));
        known.unwrap_or_else(|| json!({"type": "object"}))
    }

    fn list(&self, takes: (&str, &str, &str)) -> Value {
        let known = self.registered(takes).filter(|known| !known.list_kind.is_empty());
        known.map_or_else(|| json!({"type": "object"}), |known| schema_ref(&list_name(known)))
    }

    /// The method, and the operation.
    fn operation(&self, subject: &Subject<'_>, action: Action, end: &str) -> (&'static str, Value) {
        let Subject { kind, subresource, takes, namespaced } = subject;
        let (group, version, of) = *takes;
        let scope = if *namespaced { "Namespaced" } else { "" };
        let (camel, tag) = group_names(kind.group);
        let id = format!(
            "{}{camel}{}{scope}{}{}{end}",
            action.verb(),
            capital(kind.version),
            kind.kind,
            capital(subresource),
        );
        let parameters: Vec<Value> = match action {
            Action::Get | Action::Connect => vec![PRETTY],
            Action::List => LIST.into_iter().chain([PRETTY]).collect(),
            Action::Post | Action::Put => WRITE.into_iter().chain([PRETTY]).collect(),
            Action::Patch => WRITE.into_iter().chain([FORCE, PRETTY]).collect(),
            Action::Delete => DELETE.into_iter().chain([PRETTY]).collect(),
            Action::DeleteCollection => DELETE.into_iter().chain(LIST).chain([PRETTY]).collect(),
        }
        .into_iter()
        .map(query)
        .collect();
        let answer = match action {
            Action::List => self.list(*takes),
            Action::Delete if kind.tells_deleted() => self.one(*takes),
            Action::Delete | Action::DeleteCollection => meta_ref("Status"),
            Action::Connect => json!({"type": "string"}),
            Action::Get if *subresource == "log" => json!({"type": "string"}),
            Action::Get | Action::Post | Action::Put | Action::Patch => self.one(*takes),
        };
        let ok = |description: &str| {
            let media = if answer.get("type").is_some_and(|kind| kind == "string") {
                "text/plain"
            } else {
                "application/json"
            };
            json!({"description": description, "content": {media: {"schema": answer}}})
        };
        let mut responses = json!({"200": ok("OK"), "401": {"description": "Unauthorized"}});
        let more: &[(&str, &str)] = match action {
            Action::Post => &[("201", "Created"), ("202", "Accepted")],
            Action::Put | Action::Patch => &[("201", "Created")],
            Action::Delete => &[("202", "Accepted")],
            Action::Get | Action::List | Action::DeleteCollection | Action::Connect => &[],
        };
        for (code, description) in more {
            if let Some(responses) = responses.as_object_mut() {
                responses.insert((*code).to_owned(), ok(description));
            }
        }
        let subject = if subresource.is_empty() {
            kind.kind.to_owned()
        } else {
            format!("{subresource} of the {}", kind.kind)
        };
        let mut operation = json!({
            "tags": [format!("{tag}_{}", kind.version)],
            "description": format!("{} {subject}", action.does()),
            "operationId": id,
            "parameters": parameters,
            "responses": responses,
            "x-kubernetes-action": action.name(),
            GVK: gvk(group, version, of),
        });
        if let (Some(body), Some(operation)) =
            (self.body(kind, *takes, action), operation.as_object_mut())
        {
            operation.insert("requestBody".to_owned(), body);
        }
        let method = match action {
            Action::Get | Action::List => "get",
            Action::Post | Action::Connect => "post",
            Action::Put => "put",
            Action::Patch => "patch",
            Action::Delete | Action::DeleteCollection => "delete",
        };
        (method, operation)
    }

    fn body(&self, kind: &Kind, takes: (&str, &str, &str), action: Action) -> Option<Value> {
        let (required, content) = match action {
            Action::Post | Action::Put => {
                (true, json!({"application/json": {"schema": self.one(takes)}}))
            }
            Action::Patch => {
                let patch = json!({"schema": meta_ref("Patch")});
                // Clients take what is not said for what is not there (PAT-1).
                let types = PATCH_TYPES
                    .iter()
                    .filter(|media| kind.custom.is_none() || !media.contains("strategic"));
                let content: Map<String, Value> =
                    types.map(|media| ((*media).to_owned(), patch.clone())).collect();
                (true, Value::Object(content))
            }
            Action::Delete | Action::DeleteCollection => {
                (false, json!({"application/json": {"schema": meta_ref("DeleteOptions")}}))
            }
            Action::Get | Action::List | Action::Connect => return None,
        };
        Some(if required {
            json!({"required": true, "content": content})
        } else {
            json!({"content": content})
        })
    }
}

/// PAT-1
const PATCH_TYPES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// Group, version and kind of what a subresource takes, and what can be done with it.
fn taken<'a>(
    kind: &'a Kind,
    subresource: &str,
) -> ((&'a str, &'a str, &'a str), &'static [Action]) {
    const PART: &[Action] = &[Action::Get, Action::Put, Action::Patch];
    let own = (kind.group, kind.version, kind.kind);
    match subresource {
        "attach" => (("", "v1", "PodAttachOptions"), &[Action::Connect]),
        "binding" => (("", "v1", "Binding"), &[Action::Post]),
        "eviction" => (("policy", "v1", "Eviction"), &[Action::Post]),
        "exec" => (("", "v1", "PodExecOptions"), &[Action::Connect]),
        "finalize" => (own, &[Action::Put]),
        "log" => (own, &[Action::Get]),
        "portforward" => (("", "v1", "PodPortForwardOptions"), &[Action::Connect]),
        "scale" => (("autoscaling", "v1", "Scale"), PART),
        "token" => (("authentication.k8s.io", "v1", "TokenRequest"), &[Action::Post]),
        _ => (own, PART),
    }
}

fn path_item(operations: Vec<(&'static str, Value)>, parameters: Vec<Value>) -> Value {
    let mut item: Map<String, Value> =
        operations.into_iter().map(|(method, value)| (method.to_owned(), value)).collect();
    if !parameters.is_empty() {
        item.insert("parameters".to_owned(), parameters.into());
    }
    Value::Object(item)
}

/// A group in an operation's id and in its tag: `Core` and `core`, `RbacAuthorization` and
/// `rbacAuthorization`.
fn group_names(group: &str) -> (String, String) {
    let group = if group.is_empty() { "core" } else { group };
    let camel: String = group.trim_end_matches(".k8s.io").split('.').map(capital).collect();
    let mut letters = camel.chars();
    let tag = letters.next().map(|first| first.to_lowercase().chain(letters).collect());
    (camel, tag.unwrap_or_default())
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> Value {
        serde_json::from_slice(&document(path).unwrap().bytes).unwrap()
    }

    /// A property of a definition of `api/v1`.
    fn property(definition: &str, name: &str) -> Value {
        let document = parsed("api/v1");
        let definition = &document["components"]["schemas"][format!("io.k8s.api.{definition}")];
        definition["properties"][name].clone()
    }

    #[test]
    fn the_index_names_every_group_version_by_its_hash() {
        let index: Value = serde_json::from_slice(index()).unwrap();
        let paths = index["paths"].as_object().unwrap();
        let versions: BTreeSet<String> = kinds::served()
            .chain(kinds::reviews())
            .map(|kind| base(kind.group, kind.version))
            .collect();
        assert_eq!(paths.keys().cloned().collect::<BTreeSet<_>>(), versions);
        for document in documents() {
            let Document { path, hash, .. } = document;
            let url = format!("/openapi/v3/{path}?hash={hash}");
            assert_eq!(paths[path]["serverRelativeURL"], url);
            assert_eq!(hash.len(), 128);
        }
        assert_eq!(document("apis/none/v1"), None);
    }

    /// What the documents are when every kind that has a schema is served.
    fn of_all_registered() -> Documents {
        let kinds: Vec<Kind> = schemas()
            .kinds
            .iter()
            .filter(|registered| !registered.list_kind.is_empty())
            .map(|registered| Kind {
                group: registered.group,
                version: registered.version,
                kind: registered.kind,
                custom: None,
                plural: registered.kind,
                subresources: &["scale", "status"],
                ..*kinds::by_alias("cm").unwrap()
            })
            .collect();
        Documents::new(&kinds.iter().collect::<Vec<_>>())
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_definition_is_referred_to() {
        documents().for_each(refers_to_what_it_has);
        of_all_registered().documents.values().for_each(refers_to_what_it_has);
    }

    fn refers_to_what_it_has(document: &Document) {
        let value: Value = serde_json::from_slice(&document.bytes).unwrap();
        let mut referred = BTreeSet::new();
        references(&value, &mut referred);
        let known: BTreeSet<String> =
            value["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(referred, known, "{}", document.path);
    }

    fn references(value: &Value, to: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(name) = reference(value) {
                    // Beside a `$ref`, nothing is read.
                    assert_eq!(fields.len(), 1, "{value}");
                    to.insert(name.to_owned());
                }
                fields.values().for_each(|value| references(value, to));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, to)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn fields_say_how_they_merge() {
        // PAT-2, PAT-3
        let ports = property("core.v1.Container", "ports");
        assert_eq!(ports["x-kubernetes-list-type"], "map");
        assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
        assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
        assert_eq!(ports["x-kubernetes-patch-strategy"], "merge");
        let port = format!("{PREFIX}io.k8s.api.core.v1.ContainerPort");
        assert_eq!(ports["items"], json!({"allOf": [{"$ref": port}], "default": {}}));
        let volumes = property("core.v1.PodSpec", "volumes");
        assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
        let tolerations = property("core.v1.PodSpec", "tolerations");
        assert_eq!(tolerations["x-kubernetes-list-type"], "atomic");
        assert_eq!(tolerations.get("x-kubernetes-patch-strategy"), None);
        let selector = property("core.v1.PodSpec", "nodeSelector");
        assert_eq!(selector["x-kubernetes-map-type"], "atomic");
        assert_eq!(property("core.v1.ContainerPort", "protocol")["default"], "TCP");
        assert_eq!(property("core.v1.Pod", "spec")["default"], json!({}));
        assert_eq!(property("core.v1.Container", "name")["default"], "");
        let target = property("core.v1.ServicePort", "targetPort");
        assert!(target["allOf"][0]["$ref"].as_str().unwrap().ends_with(".IntOrString"), "{target}");
    }

    #[test]
    fn definitions_say_of_which_kinds_they_are() {
        let document = parsed("api/v1");
        let schemas = &document["components"]["schemas"];
        let pod = json!([{"group": "", "version": "v1", "kind": "Pod"}]);
        assert_eq!(schemas["io.k8s.api.core.v1.Pod"][GVK], pod);
        let list = json!([{"group": "", "version": "v1", "kind": "PodList"}]);
        assert_eq!(schemas["io.k8s.api.core.v1.PodList"][GVK], list);
        // Only what the group's kinds reach.
        assert_eq!(schemas.get("io.k8s.api.coordination.v1.Lease"), None);
    }

    #[test]
    fn writes_of_every_kind_say_that_fields_are_validated() {
        // HTTP-2: kubectl leaves validation to servers whose PATCH has the parameter.
        for kind in kinds::served() {
            let document = parsed(&base(kind.group, kind.version));
            let space = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
            let root = base(kind.group, kind.version);
            let path = format!("/{root}{space}/{}/{{name}}", kind.plural);
            for (path, method) in [
                (path.as_str(), "patch"),
                (path.as_str(), "put"),
                (path.trim_end_matches("/{name}"), "post"),
            ] {
                let operation = &document["paths"][path][method];
                assert_eq!(operation[GVK], gvk(kind.group, kind.version, kind.kind), "{path}");
                let names: Vec<&str> = operation["parameters"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|parameter| parameter["name"].as_str().unwrap())
                    .collect();
                for name in ["dryRun", "fieldManager", "fieldValidation"] {
                    assert!(names.contains(&name), "{path} {method} {name}");
                }
            }
        }
    }

    #[test]
    fn operations_have_ids_of_their_own() {
        let mut seen = BTreeSet::new();
        for document in documents() {
            let value: Value = serde_json::from_slice(&document.bytes).unwrap();
            for (path, item) in value["paths"].as_object().unwrap() {
                for operation in item.as_object().unwrap().values() {
                    let Some(id) = operation.get("operationId") else { continue };
                    assert!(seen.insert(id.to_string()), "{path} {id}");
                }
            }
        }
        for id in
            ["readCoreV1NamespacedPod", "patchCoreV1NodeStatus", "listCoreV1PodForAllNamespaces"]
        {
            assert!(seen.contains(&json!(id).to_string()), "{id}");
        }
    }

    #[test]
    fn documents_stay_small() {
        let bytes: usize = documents().map(|document| document.bytes.len()).sum();
        assert!(bytes < 4 << 20, "{bytes} bytes");
        let documents = of_all_registered().documents;
        let bytes: usize = documents.values().map(|document| document.bytes.len()).sum();
        assert!(bytes < 8 << 20, "{bytes} bytes");
    }
}
