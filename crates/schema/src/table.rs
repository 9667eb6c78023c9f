//! The one table: every definition that a registered kind reaches, its fields, and how they merge.
//!
//! Made once, from the types' own JSON schemas (names, descriptions, what is required) and `marks`.

use crate::marks::{self, ListType, Strategy};
use api::{custom, kinds::Kind};
use k8s_openapi::{
    ListableResource, Resource,
    api::{
        apps::v1 as apps, authentication::v1 as authentication, authorization::v1 as authorization,
        autoscaling::v1 as autoscaling_v1, autoscaling::v2 as autoscaling, batch::v1 as batch,
        coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
        events::v1 as events, policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions,
    apimachinery::pkg::apis::meta::v1 as meta,
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, LazyLock},
};

/// What a value looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Text, a number, a truth value, a time, an amount.
    Scalar,
    /// Whatever it is, it is one value.
    Opaque,
    /// Whatever it is: objects have fields, lists are one value. So are custom resources.
    Deduced,
    /// An object of this definition.
    Struct(usize),
    /// Values under names that clients choose.
    Map { item: Box<Shape>, atomic: bool },
    /// Values in an order.
    List { item: Box<Shape>, kind: ListType },
}

/// One field of a definition.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) shape: Shape,
    pub(crate) strategy: Strategy,
    /// Names an item in a strategic merge patch; empty if nothing does.
    pub(crate) merge_key: &'static str,
    /// Upstream always writes it, as this if a client left it out.
    pub(crate) written: Option<Value>,
    /// What it is taken to be where it names an item and is not there.
    pub(crate) default: Option<Value>,
}

/// One type.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    /// Such as `io.k8s.api.core.v1.Pod`.
    pub(crate) name: String,
    pub(crate) fields: BTreeMap<String, Field>,
    /// Server-side apply sees it as one value.
    pub(crate) atomic: bool,
    /// Fields that it does not know are kept, whatever they are.
    pub(crate) open: bool,
}

/// A kind whose schema is known.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    /// Empty if there are no lists of it.
    pub(crate) list_kind: String,
    /// The definition's name.
    pub(crate) definition: String,
}

/// All that is known.
pub(crate) struct Table {
    definitions: Vec<Definition>,
    roots: BTreeMap<(&'static str, &'static str, &'static str), usize>,
    /// Of a table that knows one kind only.
    own: Option<Shape>,
}

/// The types' schemas as they come, for the documents.
pub(crate) struct Schemas {
    pub(crate) kinds: Vec<Registered>,
    pub(crate) definitions: Map<String, Value>,
}

struct Registry {
    generator: SchemaGenerator,
    kinds: Vec<Registered>,
}

impl Registry {
    fn kind<K: Resource + ListableResource + JsonSchema>(&mut self) {
        self.part::<K>(K::LIST_KIND);
    }

    fn part<K: Resource + JsonSchema>(&mut self, list_kind: &'static str) {
        self.generator.subschema_for::<K>();
        self.kinds.push(Registered {
            group: K::GROUP,
            version: K::VERSION,
            kind: K::KIND,
            list_kind: list_kind.to_owned(),
            definition: K::schema_name().into_owned(),
        });
    }

    /// A kind that is served needs a line here to have a schema; without one it is any object.
    fn fill(&mut self) {
        self.kind::<core::Pod>();
        self.kind::<core::Node>();
        self.kind::<core::Namespace>();
        self.kind::<core::Service>();
        #[allow(deprecated, reason = "clients still ask for it")]
        self.kind::<core::Endpoints>();
        self.kind::<core::ConfigMap>();
        self.kind::<core::Secret>();
        self.kind::<core::Event>();
        self.kind::<events::Event>();
        self.kind::<core::ServiceAccount>();
        self.kind::<core::ReplicationController>();
        self.kind::<core::PodTemplate>();
        self.kind::<core::ResourceQuota>();
        self.kind::<core::LimitRange>();
        self.kind::<discovery::EndpointSlice>();
        self.kind::<coordination::Lease>();
        self.kind::<apps::ReplicaSet>();
        self.kind::<apps::ControllerRevision>();
        self.kind::<apps::Deployment>();
        self.kind::<apps::DaemonSet>();
        self.kind::<apps::StatefulSet>();
        self.kind::<autoscaling::HorizontalPodAutoscaler>();
        self.kind::<autoscaling_v1::HorizontalPodAutoscaler>();
        self.kind::<batch::Job>();
        self.kind::<batch::CronJob>();
        self.kind::<policy::PodDisruptionBudget>();
        self.kind::<scheduling::PriorityClass>();
        self.kind::<rbac::Role>();
        self.kind::<rbac::RoleBinding>();
        self.kind::<rbac::ClusterRole>();
        self.kind::<rbac::ClusterRoleBinding>();
        self.kind::<apiextensions::CustomResourceDefinition>();
        // What is asked and not kept.
        self.part::<authentication::SelfSubjectReview>("");
        self.part::<authentication::TokenReview>("");
        self.part::<authorization::LocalSubjectAccessReview>("");
        self.part::<authorization::SelfSubjectAccessReview>("");
        self.part::<authorization::SelfSubjectRulesReview>("");
        self.part::<authorization::SubjectAccessReview>("");
        // What subresources take.
        self.part::<authentication::TokenRequest>("");
        self.part::<core::Binding>("");
        self.part::<policy::Eviction>("");
        self.part::<autoscaling_v1::Scale>("");
        // What every kind's operations take or answer.
        self.generator.subschema_for::<meta::ListMeta>();
        self.generator.subschema_for::<meta::DeleteOptions>();
        self.generator.subschema_for::<meta::Patch>();
        self.generator.subschema_for::<meta::Status>();
    }
}

/// Makes the schemas anew, several MB of them: for who needs them once.
pub(crate) fn schemas() -> Schemas {
    let mut settings = SchemaSettings::draft07();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    settings.transforms = Vec::new();
    let mut registry = Registry { generator: settings.into_generator(), kinds: Vec::new() };
    registry.fill();
    let Registry { mut generator, kinds } = registry;
    let mut definitions = generator.take_definitions(false);
    for kind in &kinds {
        // The types have it always; the API takes objects without it and then misses the name.
        if let Some(Value::Object(schema)) = definitions.get_mut(&kind.definition)
            && let Some(Value::Array(required)) = schema.get_mut("required")
        {
            required.retain(|field| field != "metadata");
            if required.is_empty() {
                schema.remove("required");
            }
        }
    }
    Schemas { kinds, definitions }
}

/// The table.
pub(crate) fn table() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(&schemas()));
    &TABLE
}

/// The table that knows a kind's objects: the one of the rows, or a definition's own.
pub(crate) fn table_of(kind: &Kind) -> TableRef {
    let Some(custom) = &kind.custom else { return TableRef::Common(table()) };
    let memo = custom.memo.get_or_init(|| Arc::new(custom_table(&custom.schema)));
    match Arc::clone(memo).downcast() {
        Ok(own) => TableRef::Own(own),
        // Nobody else writes there.
        Err(_) => TableRef::Own(Arc::new(custom_table(&custom.schema))),
    }
}

/// A table, for as long as it is used.
pub(crate) enum TableRef {
    Common(&'static Table),
    Own(Arc<Table>),
}

impl Deref for TableRef {
    type Target = Table;

    fn deref(&self) -> &Table {
        match self {
            Self::Common(table) => table,
            Self::Own(table) => table,
        }
    }
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The table of one version of a definition.
fn custom_table(schema: &custom::Schema) -> Table {
    let mut build = BuildCustom { definitions: Vec::new(), copied: BTreeMap::new() };
    let own = build.object(schema, true);
    Table { definitions: build.definitions, roots: BTreeMap::new(), own: Some(own) }
}

struct BuildCustom {
    definitions: Vec<Definition>,
    /// From places in the common table to places here.
    copied: BTreeMap<usize, usize>,
}

impl BuildCustom {
    fn add(&mut self, definition: Definition) -> usize {
        self.definitions.push(definition);
        self.definitions.len() - 1
    }

    /// A definition of the common table, with all that it refers to.
    fn copy(&mut self, from: usize) -> Option<usize> {
        if let Some(at) = self.copied.get(&from) {
            return Some(*at);
        }
        let mut definition = table().definitions.get(from)?.clone();
        let at = self.add(definition.clone());
        self.copied.insert(from, at);
        for field in definition.fields.values_mut() {
            field.shape = self.copied_shape(&field.shape);
        }
        if let Some(place) = self.definitions.get_mut(at) {
            *place = definition;
        }
        Some(at)
    }

    fn copied_shape(&mut self, shape: &Shape) -> Shape {
        match shape {
            Shape::Struct(at) => self.copy(*at).map_or(Shape::Opaque, Shape::Struct),
            Shape::Map { item, atomic } => {
                Shape::Map { item: Box::new(self.copied_shape(item)), atomic: *atomic }
            }
            Shape::List { item, kind } => {
                Shape::List { item: Box::new(self.copied_shape(item)), kind: kind.clone() }
            }
            other @ (Shape::Scalar | Shape::Opaque | Shape::Deduced) => other.clone(),
        }
    }

    /// An object with the fields that it names; of a whole object, those that every one has.
    fn object(&mut self, schema: &custom::Schema, whole: bool) -> Shape {
        let mut fields = BTreeMap::new();
        for (name, inner) in &schema.properties {
            let shape = self.shape(inner);
            fields.insert(name.clone(), field(shape, inner.default.clone()));
        }
        if whole || schema.embedded {
            for name in ["apiVersion", "kind"] {
                fields.insert(name.to_owned(), field(Shape::Scalar, None));
            }
            let metadata = table().place(OBJECT_META).and_then(|at| self.copy(at));
            let metadata = metadata.map_or(Shape::Deduced, Shape::Struct);
            fields.insert("metadata".to_owned(), field(metadata, None));
        }
        let open = schema.preserve || matches!(schema.additional, custom::Additional::Any);
        let (name, atomic) = (String::new(), schema.atomic_map);
        Shape::Struct(self.add(Definition { name, fields, atomic, open }))
    }

    fn shape(&mut self, schema: &custom::Schema) -> Shape {
        if schema.int_or_string {
            return Shape::Scalar;
        }
        let named = !schema.properties.is_empty() || schema.embedded;
        match schema.kind {
            custom::Type::Boolean
            | custom::Type::Integer
            | custom::Type::Number
            | custom::Type::String => Shape::Scalar,
            custom::Type::Array => {
                let Some(items) = &schema.items else { return Shape::Opaque };
                let kind = match &schema.list {
                    custom::Items::Atomic => ListType::Atomic,
                    custom::Items::Set => ListType::Set,
                    custom::Items::Map(keys) => ListType::Keyed(keys.clone().into()),
                };
                Shape::List { item: Box::new(self.shape(items)), kind }
            }
            custom::Type::Object | custom::Type::Any if named => self.object(schema, false),
            custom::Type::Object | custom::Type::Any => {
                let atomic = schema.atomic_map;
                match &schema.additional {
                    custom::Additional::Of(inner) => {
                        Shape::Map { item: Box::new(self.shape(inner)), atomic }
                    }
                    custom::Additional::Any => {
                        Shape::Map { item: Box::new(Shape::Deduced), atomic }
                    }
                    custom::Additional::Unsaid | custom::Additional::Forbidden
                        if schema.preserve || schema.kind == custom::Type::Any =>
                    {
                        if atomic {
                            Shape::Opaque
                        } else {
                            Shape::Deduced
                        }
                    }
                    custom::Additional::Unsaid | custom::Additional::Forbidden => {
                        self.object(schema, false)
                    }
                }
            }
        }
    }
}

fn field(shape: Shape, default: Option<Value>) -> Field {
    Field { shape, strategy: Strategy::default(), merge_key: "", written: None, default }
}

impl Table {
    fn new(schemas: &Schemas) -> Self {
        let places: BTreeMap<&str, usize> =
            schemas.definitions.keys().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
        let build = Build { definitions: &schemas.definitions, places: &places };
        let definitions =
            schemas.definitions.iter().map(|(name, schema)| build.definition(name, schema));
        let roots = schemas.kinds.iter().filter_map(|kind| {
            let at = places.get(kind.definition.as_str())?;
            Some(((kind.group, kind.version, kind.kind), *at))
        });
        Self { definitions: definitions.collect(), roots: roots.collect(), own: None }
    }

    /// The shape of a kind's objects.
    pub(crate) fn root(&self, kind: &Kind) -> Shape {
        if let Some(own) = &self.own {
            return own.clone();
        }
        match self.roots.get(&(kind.group, kind.version, kind.kind)) {
            Some(at) => Shape::Struct(*at),
            None => Shape::Deduced,
        }
    }

    /// The definition of an object's shape.
    pub(crate) fn definition(&self, shape: &Shape) -> Option<&Definition> {
        match shape {
            Shape::Struct(at) => self.definitions.get(*at),
            Shape::Scalar
            | Shape::Opaque
            | Shape::Deduced
            | Shape::Map { .. }
            | Shape::List { .. } => None,
        }
    }

    /// What is known of an object's field.
    pub(crate) fn field<'a>(&'a self, shape: &'a Shape, name: &str) -> FieldOf<'a> {
        const OPAQUE: &Shape = &Shape::Opaque;
        const DEDUCED: &Shape = &Shape::Deduced;
        match shape {
            Shape::Struct(at) => {
                let definition = self.definitions.get(*at);
                match definition.and_then(|found| found.fields.get(name)) {
                    Some(field) => FieldOf { shape: &field.shape, field: Some(field) },
                    None if definition.is_some_and(|found| found.open) => {
                        FieldOf { shape: DEDUCED, field: None }
                    }
                    None => FieldOf { shape: OPAQUE, field: None },
                }
            }
            Shape::Map { item, .. } => FieldOf { shape: item, field: None },
            Shape::Deduced => FieldOf { shape, field: None },
            Shape::Scalar | Shape::Opaque | Shape::List { .. } => {
                FieldOf { shape: OPAQUE, field: None }
            }
        }
    }

    /// Whether an object of this shape may have a field.
    pub(crate) fn has(&self, shape: &Shape, name: &str) -> bool {
        match self.definition(shape) {
            Some(definition) => definition.open || definition.fields.contains_key(name),
            None => true,
        }
    }

    /// The definition of a name.
    fn place(&self, name: &str) -> Option<usize> {
        self.definitions.iter().position(|definition| definition.name == name)
    }

    #[cfg(test)]
    pub(crate) fn named(&self, name: &str) -> Option<&Definition> {
        self.definitions.iter().find(|definition| definition.name == name)
    }
}

/// A field as it is found in an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FieldOf<'a> {
    pub(crate) shape: &'a Shape,
    /// Its row; `None` where clients choose the names.
    pub(crate) field: Option<&'a Field>,
}

struct Build<'a> {
    definitions: &'a Map<String, Value>,
    places: &'a BTreeMap<&'a str, usize>,
}

impl Build<'_> {
    fn definition(&self, name: &str, schema: &Value) -> Definition {
        let required = required(schema);
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let fields = properties.map(|(field, schema)| {
            (field.clone(), self.field(name, field, schema, required.contains(&field.as_str())))
        });
        Definition {
            name: name.to_owned(),
            fields: fields.collect(),
            atomic: marks::is_atomic_object(name),
            open: false,
        }
    }

    fn field(&self, of: &str, name: &str, schema: &Value, required: bool) -> Field {
        let mark = marks::mark(of, name);
        let shape = match self.shape(schema) {
            Shape::List { item, .. } => {
                Shape::List { item, kind: mark.map(|mark| mark.list.clone()).unwrap_or_default() }
            }
            Shape::Map { item, .. } => Shape::Map { item, atomic: marks::is_atomic_map(of, name) },
            other @ (Shape::Scalar | Shape::Opaque | Shape::Deduced | Shape::Struct(_)) => other,
        };
        let default = match marks::default(of, name) {
            Some(text) => Some(text.into()),
            None if required => zero(self.resolved(schema)),
            None => None,
        };
        let written = if is_always_written(of, name, schema) {
            Some(json!({}))
        } else if required {
            match &shape {
                Shape::Struct(_) => Some(json!({})),
                Shape::Scalar => zero(self.resolved(schema)),
                Shape::List { .. } | Shape::Map { .. } => Some(Value::Null),
                Shape::Opaque | Shape::Deduced => None,
            }
        } else {
            None
        };
        Field {
            shape,
            strategy: mark.map(|mark| mark.strategy).unwrap_or_default(),
            merge_key: mark.map_or("", |mark| mark.merge_key),
            written,
            default,
        }
    }

    fn shape(&self, schema: &Value) -> Shape {
        if let Some(name) = reference(schema) {
            let referred = self.definitions.get(name).unwrap_or(&Value::Null);
            return match self.places.get(name) {
                Some(at) if referred.get("properties").is_some() => Shape::Struct(*at),
                _ => self.shape(referred),
            };
        }
        let item = |key: &str| schema.get(key).map_or(Shape::Opaque, |item| self.shape(item));
        if schema.get("x-kubernetes-int-or-string").is_some() {
            return Shape::Scalar;
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("string" | "integer" | "number" | "boolean") => Shape::Scalar,
            Some("array") => {
                Shape::List { item: Box::new(item("items")), kind: ListType::default() }
            }
            Some("object") if schema.get("additionalProperties").is_some() => {
                Shape::Map { item: Box::new(item("additionalProperties")), atomic: false }
            }
            Some(_) | None => Shape::Opaque,
        }
    }

    fn resolved<'s>(&'s self, schema: &'s Value) -> &'s Value {
        reference(schema).and_then(|name| self.definitions.get(name)).unwrap_or(schema)
    }
}

/// The definition that a schema refers to.
pub(crate) fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.rsplit('/').next()
}

/// Names of the fields that a definition requires.
pub(crate) fn required(schema: &Value) -> Vec<&str> {
    let listed = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    listed.filter_map(Value::as_str).collect()
}

/// What Go has for a value that is not there; `None` for what would be null.
pub(crate) fn zero(schema: &Value) -> Option<Value> {
    if schema.get("format").and_then(Value::as_str) == Some("date-time") {
        return None;
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => Some("".into()),
        Some("integer" | "number") => Some(0.into()),
        Some("boolean") => Some(false.into()),
        Some(_) | None => None,
    }
}

/// Whether upstream writes this object even where it is empty.
pub(crate) fn is_always_written(of: &str, field: &str, schema: &Value) -> bool {
    let of_object = reference(schema).is_some_and(|name| name.ends_with(".ObjectMeta"));
    (field == "metadata" && of_object) || marks::is_always_written(of, field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_row_of_the_marks_names_a_field_that_there_is() {
        let mut unreached = BTreeSet::new();
        for (of, field) in marks::all() {
            let definition = table()
                .named(&format!("io.k8s.api.{of}"))
                .or_else(|| table().named(&format!("io.k8s.{of}")));
            match (definition, field) {
                (None, _) => drop(unreached.insert(of)),
                (Some(found), Some(field)) => {
                    assert!(found.fields.contains_key(field), "{of} has no {field}");
                }
                (Some(_), None) => {}
            }
        }
        assert_eq!(unreached, BTreeSet::new());
    }

    #[test]
    fn items_are_named_by_fields_that_they_have() {
        for definition in &table().definitions {
            for (name, field) in &definition.fields {
                let Shape::List { item, kind } = &field.shape else { continue };
                let keys = match kind {
                    ListType::Map(keys) => keys.to_vec(),
                    ListType::Atomic | ListType::Set | ListType::Keyed(_) => Vec::new(),
                };
                let patched = Some(field.merge_key).filter(|key| !key.is_empty());
                for key in keys.into_iter().chain(patched) {
                    let item = table().definition(item).unwrap();
                    let of = &definition.name;
                    assert!(item.fields.contains_key(key), "{of}.{name}: {} {key}", item.name);
                }
            }
        }
    }

    #[test]
    fn every_kind_that_is_served_is_registered() {
        for kind in api::kinds::served() {
            assert_ne!(table().root(kind), Shape::Deduced, "{kind:?}");
        }
    }

    #[test]
    fn upstream_writes_what_clients_leave_out() {
        let pod_spec = table().named("io.k8s.api.core.v1.PodSpec").unwrap();
        assert_eq!(pod_spec.fields["containers"].written, Some(Value::Null));
        assert_eq!(pod_spec.fields["volumes"].written, None);
        let port = table().named("io.k8s.api.core.v1.ContainerPort").unwrap();
        assert_eq!(port.fields["protocol"].default, Some("TCP".into()));
        assert_eq!(port.fields["protocol"].written, None);
        assert_eq!(port.fields["containerPort"].written, Some(0.into()));
        let service = table().named("io.k8s.api.core.v1.Service").unwrap();
        assert_eq!(service.fields["spec"].written, Some(json!({})));
        assert_eq!(service.fields["metadata"].written, Some(json!({})));
    }
}
