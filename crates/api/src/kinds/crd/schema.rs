//! Schemas of custom resources: what of OpenAPI v3 may be said, and that a schema is structural, so that
//! defaults, pruning and merging can follow it.

use super::super::{list, pod, text};
use crate::field::{FieldError, Path};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];

/// Every error of a schema. Whether it is structural is only looked at when it is one at all.
pub(super) fn validate(schema: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    openapi(schema, path, &mut errors);
    if errors.is_empty() {
        invariants(schema, Level::Root, path, &mut errors);
        completeness(schema, path, &mut errors);
        errors.sort_by_cached_key(ToString::to_string);
    }
    errors
}

fn is_true(schema: &Value, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

fn present<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    schema.get(key).filter(|value| !value.is_null())
}

fn properties<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema.get(key).and_then(Value::as_object).into_iter().flatten()
}

/// A schema in a place that may have a flag instead.
fn additional(schema: &Value) -> Option<&Value> {
    schema.get("additionalProperties").filter(|value| value.is_object())
}

/// A schema under `allOf`, `anyOf`, `oneOf` or `not`.
struct Nested<'a> {
    junctor: &'static str,
    index: usize,
    path: Path,
    schema: &'a Value,
}

fn junctors<'a>(schema: &'a Value, path: &Path) -> Vec<Nested<'a>> {
    let mut found = Vec::new();
    for junctor in ["allOf", "anyOf", "oneOf"] {
        for (index, schema) in list(schema, junctor).iter().enumerate() {
            let path = path.child(junctor).index(index);
            found.push(Nested { junctor, index, path, schema });
        }
    }
    if let Some(schema) = present(schema, "not") {
        found.push(Nested { junctor: "not", index: 0, path: path.child("not"), schema });
    }
    found
}

/// What of OpenAPI v3 may not be said in a definition.
fn openapi(schema: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    const UNSUPPORTED: &[&str] =
        &["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];
    for key in UNSUPPORTED {
        if present(schema, key).is_some_and(|v| *v != json!({}) && *v != json!("")) {
            let detail = format!("{key} is not supported");
            errors.push(FieldError::forbidden(&path.child(key), detail));
        }
    }
    if is_true(schema, "uniqueItems") {
        let detail =
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(&path.child("uniqueItems"), detail));
    }
    let kind = text(schema, "/type");
    if kind == "null" {
        let detail = "type cannot be set to null, use nullable as an alternative";
        errors.push(FieldError::forbidden(&path.child("type"), detail));
    } else if !kind.is_empty() {
        pod::enumeration(errors, &path.child("type"), &kind, TYPES);
    }
    if schema.get("items").is_some_and(Value::is_array) {
        let detail = "items must be a schema object and not an array";
        errors.push(FieldError::forbidden(&path.child("items"), detail));
    }
    let preserve = "x-kubernetes-preserve-unknown-fields";
    if schema.get(preserve) == Some(&Value::Bool(false)) {
        let detail = "must be true or undefined";
        errors.push(FieldError::invalid(&path.child(preserve), false, detail));
    }
    merging(schema, &kind, path, errors);
    for (i, rule) in list(schema, "x-kubernetes-validations").iter().enumerate() {
        let at = path.child("x-kubernetes-validations").index(i);
        if text(rule, "/rule").trim().is_empty() {
            errors.push(FieldError::required(&at.child("rule"), "rule is not specified"));
        }
        let message = text(rule, "/message");
        if !message.is_empty() && message.trim().is_empty() {
            let detail = "message must be non-empty if specified";
            errors.push(FieldError::invalid(&at.child("message"), message.clone(), detail));
        }
        if message.trim().contains('\n') {
            let detail = "message must not contain line breaks";
            errors.push(FieldError::invalid(&at.child("message"), message, detail));
        }
    }
    if properties(schema, "properties").next().is_some()
        && present(schema, "additionalProperties").is_some_and(|more| *more != json!(true))
    {
        let detail = "additionalProperties and properties are mutual exclusive";
        errors.push(FieldError::forbidden(&path.child("additionalProperties"), detail));
    }
    for (key, property) in properties(schema, "properties") {
        openapi(property, &path.child("properties").key(key), errors);
    }
    if let Some(more) = additional(schema) {
        openapi(more, &path.child("additionalProperties"), errors);
    }
    if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
        openapi(items, &path.child("items"), errors);
    }
    for nested in junctors(schema, path) {
        openapi(nested.schema, &nested.path, errors);
    }
}

/// What server-side apply needs to know of lists and maps.
fn merging(schema: &Value, kind: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let (list_at, map_at) =
        (path.child("x-kubernetes-list-type"), path.child("x-kubernetes-map-type"));
    let keys_at = path.child("x-kubernetes-list-map-keys");
    let list_type = text(schema, "/x-kubernetes-list-type");
    let map_type = text(schema, "/x-kubernetes-map-type");
    let keys = list(schema, "x-kubernetes-list-map-keys");
    let type_at = path.child("type");
    let mut needs = |wanted: &str, what: &str| {
        if kind.is_empty() {
            let detail = format!("must be {wanted} if {what} is specified");
            errors.push(FieldError::required(&type_at, &detail));
        } else if kind != wanted {
            let detail = format!("must be {wanted} if {what} is specified");
            errors.push(FieldError::invalid(&type_at, kind, detail));
        }
    };
    if !list_type.is_empty() {
        needs("array", "x-kubernetes-list-type");
    }
    if !map_type.is_empty() {
        needs("object", "x-kubernetes-map-type");
    }
    if !list_type.is_empty() {
        pod::enumeration(errors, &list_at, &list_type, &["atomic", "set", "map"]);
    }
    if !map_type.is_empty() {
        pod::enumeration(errors, &map_at, &map_type, &["atomic", "granular"]);
    }
    if !keys.is_empty() && list_type != "map" {
        if list_type.is_empty() {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            errors.push(FieldError::required(&list_at, detail));
        } else {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            errors.push(FieldError::invalid(&list_at, list_type.clone(), detail));
        }
    }
    if list_type != "map" {
        return;
    }
    if keys.is_empty() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(&keys_at, detail));
    }
    let items = schema.get("items").unwrap_or(&Value::Null);
    let required: BTreeSet<&str> =
        list(items, "required").iter().filter_map(Value::as_str).collect();
    let mut seen = BTreeSet::new();
    for (i, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        if items.pointer("/properties").and_then(|p| p.get(name)).is_none() {
            let detail = "entries must all be names of item properties";
            errors.push(FieldError::invalid(&keys_at.index(i), name, detail));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&keys_at.index(i), name));
        }
        // An item without its key could not be told from the others.
        let property = items.get("properties").and_then(|p| p.get(name)).unwrap_or(&Value::Null);
        let at = path.child("items").child("properties").key(name);
        if !property.is_null() && present(property, "default").is_none() && !required.contains(name)
        {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default \
                          or be a required property";
            errors.push(FieldError::required(&at.child("default"), detail));
        }
        if is_true(property, "nullable") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(FieldError::forbidden(&at.child("nullable"), detail));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What a structural schema says of a place: what is there, once and for all.
fn invariants(schema: &Value, level: Level, path: &Path, errors: &mut Vec<FieldError>) {
    let kind = text(schema, "/type");
    let items = present(schema, "items");
    if kind == "array" && items.is_none() {
        errors.push(FieldError::required(&path.child("items"), "must be specified"));
    }
    if let Some(items) = items {
        invariants(items, Level::Item, &path.child("items"), errors);
    }
    for (key, property) in properties(schema, "properties") {
        invariants(property, Level::Field, &path.child("properties").key(key), errors);
    }
    let additional_at = path.child("additionalProperties");
    let has_additional = present(schema, "additionalProperties").is_some();
    if has_additional && level == Level::Root {
        errors.push(FieldError::forbidden(&additional_at, "must not be used at the root"));
    }
    if let Some(more) = additional(schema) {
        invariants(more, Level::Field, &additional_at, errors);
    }
    let flag = |key: &str| is_true(schema, key);
    let preserve = flag("x-kubernetes-preserve-unknown-fields");
    let embedded = flag("x-kubernetes-embedded-resource");
    let int_or_string = flag("x-kubernetes-int-or-string");
    for (key, set) in [
        ("x-kubernetes-preserve-unknown-fields", preserve),
        ("x-kubernetes-embedded-resource", embedded),
    ] {
        if set && int_or_string {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            errors.push(FieldError::invalid(&path.child(key), true, detail));
        }
    }
    let choice = is_int_or_string(schema);
    for nested in junctors(schema, path).iter().filter(|n| !(choice && n.junctor == "anyOf")) {
        let first = nested.junctor == "allOf" && nested.index == 0;
        nested_validation(nested.schema, &nested.path, first, errors);
    }
    let type_at = path.child("type");
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(match kind.as_str() {
            "" => FieldError::required(&type_at, detail),
            _ => FieldError::invalid(&type_at, kind.clone(), detail),
        });
    } else if kind.is_empty() && !int_or_string && !preserve {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(&type_at, detail));
    }
    if embedded && has_additional {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(FieldError::forbidden(&additional_at, detail));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(FieldError::invalid(&type_at, kind, "must be object at the root"));
    }
    if level == Level::Root || embedded {
        object_fields(schema, level, path, errors);
    }
    if embedded && !preserve && properties(schema, "properties").next().is_none() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                      x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(&path.child("properties"), detail));
    }
}

/// `apiVersion`, `kind` and `metadata` are what they are in every object.
fn object_fields(schema: &Value, level: Level, path: &Path, errors: &mut Vec<FieldError>) {
    let property = |key: &str| schema.get("properties").and_then(|p| p.get(key));
    for (key, wanted) in [("kind", "string"), ("apiVersion", "string"), ("metadata", "object")] {
        if let Some(kind) = property(key).map(|p| text(p, "/type")).filter(|k| k != wanted) {
            let at = path.child("properties").key(key).child("type");
            errors.push(FieldError::invalid(&at, kind, format!("must be {wanted}")));
        }
    }
    let metadata = property("metadata").and_then(Value::as_object);
    if let (Level::Root, Some(metadata)) = (level, metadata) {
        let known = |name: &String| name == "name" || name == "generateName";
        let only_names = |p: &Value| p.as_object().is_some_and(|p| p.keys().all(known));
        let legal = |(key, value): (&String, &Value)| match key.as_str() {
            "type" | "default" => true,
            "properties" => only_names(value),
            _ => false,
        };
        if !metadata.iter().all(legal) {
            let detail = "must not specify anything other than name and generateName, but metadata \
                          is implicitly specified";
            errors.push(FieldError::forbidden(&path.child("properties").key("metadata"), detail));
        }
    }
}

/// The one choice between types that is allowed: an integer or a string.
fn is_int_or_string(schema: &Value) -> bool {
    list(schema, "anyOf") == [json!({"type": "integer"}), json!({"type": "string"})]
}

/// What is said under `allOf` and its like may restrict values, and not say what is there; only the first
/// of `allOf` may have the one choice between types.
fn nested_validation(schema: &Value, path: &Path, may_choose: bool, errors: &mut Vec<FieldError>) {
    let choice = may_choose && is_int_or_string(schema);
    for nested in junctors(schema, path).iter().filter(|n| !(choice && n.junctor == "anyOf")) {
        nested_validation(nested.schema, &nested.path, false, errors);
    }
    if let Some(items) = present(schema, "items") {
        nested_validation(items, &path.child("items"), false, errors);
    }
    for (key, property) in properties(schema, "properties") {
        nested_validation(property, &path.child("properties").key(key), false, errors);
    }
    let is_empty =
        |value: &Value| matches!(value, Value::Bool(false) | Value::Null) || *value == "";
    for (key, detail) in [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
    ] {
        if schema.get(key).is_some_and(|value| !is_empty(value)) {
            errors.push(FieldError::forbidden(&path.child(key), detail));
        }
    }
    if schema.get("properties").and_then(|p| p.get("metadata")).is_some() {
        let detail = "must not be specified in a nested context";
        errors.push(FieldError::forbidden(&path.child("properties").key("metadata"), detail));
    }
}

/// Whatever is restricted is there: each field and item under a junctor is one of the schema that has
/// the junctor.
fn completeness(schema: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for nested in junctors(schema, path) {
        nested_completeness(nested.schema, Some(schema), path, &nested.path, errors);
    }
    for (key, property) in properties(schema, "properties") {
        completeness(property, &path.child("properties").key(key), errors);
    }
    for (key, inner) in
        [("items", present(schema, "items")), ("additionalProperties", additional(schema))]
    {
        if let Some(inner) = inner {
            completeness(inner, &path.child(key), errors);
        }
    }
}

/// The same for what is said at `said`, of a place at `path`.
fn nested_completeness(
    nested: &Value,
    structure: Option<&Value>,
    path: &Path,
    said: &Path,
    errors: &mut Vec<FieldError>,
) {
    let Some(structure) = structure else {
        let detail = format!("because it is defined in {said}");
        errors.push(FieldError::required(path, &detail));
        return;
    };
    for inner in junctors(nested, said) {
        nested_completeness(inner.schema, Some(structure), path, &inner.path, errors);
    }
    if let Some(items) = present(nested, "items") {
        let inner = present(structure, "items");
        nested_completeness(items, inner, &path.child("items"), &said.child("items"), errors);
    }
    let known = structure.get("properties").and_then(Value::as_object);
    for (key, property) in properties(nested, "properties") {
        let (path, said) = (path.child("properties").key(key), said.child("properties").key(key));
        let inner = known.and_then(|known: &Map<String, Value>| known.get(key));
        nested_completeness(property, inner, &path, &said, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said_of(schema: Value) -> Vec<String> {
        validate(&schema, &Path::new("s")).iter().map(ToString::to_string).collect()
    }

    fn object(properties: Value) -> Value {
        json!({"type": "object", "properties": properties})
    }

    #[test]
    fn structural_schemas_pass() {
        let any_of = json!([{"type": "integer"}, {"type": "string"}]);
        for schema in [
            object(json!({})),
            object(
                json!({"metadata": {"type": "object", "properties": {"name": {"type": "string"}}}}),
            ),
            object(json!({"spec": {"type": "object", "additionalProperties": {"type": "string"}}})),
            object(json!({"spec": {"type": "object", "additionalProperties": true}})),
            object(json!({"port": {"x-kubernetes-int-or-string": true, "anyOf": any_of}})),
            object(
                json!({"port": {"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": any_of}]}}),
            ),
            object(json!({"any": {"x-kubernetes-preserve-unknown-fields": true}})),
            object(
                json!({"list": {"type": "array", "items": object(json!({"name": {"type": "string", "default": "a"}})),
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}}),
            ),
            json!({"type": "object", "properties": {"a": {"type": "string"}},
                   "oneOf": [{"required": ["a"]}, {"properties": {"a": {"enum": ["x"]}}}]}),
        ] {
            assert_eq!(said_of(schema.clone()), [""; 0], "{schema}");
        }
    }

    #[test]
    fn schemas_that_are_not_structural_are_refused_with_upstreams_words() {
        for (schema, want) in [
            (json!({}), vec!["s.type: Required value: must not be empty at the root"]),
            (
                json!({"type": "array", "items": {"type": "string"}}),
                vec!["s.type: Invalid value: \"array\": must be object at the root"],
            ),
            (
                object(json!({"a": {}})),
                vec![
                    "s.properties[a].type: Required value: must not be empty for specified object fields",
                ],
            ),
            (
                object(json!({"a": {"type": "array"}})),
                vec!["s.properties[a].items: Required value: must be specified"],
            ),
            (
                object(json!({"a": {"type": "array", "items": {}}})),
                vec![
                    "s.properties[a].items.type: Required value: must not be empty for specified array items",
                ],
            ),
            (
                object(json!({"a": {"type": "text"}})),
                vec![
                    "s.properties[a].type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
                ],
            ),
            (
                object(json!({"a": {"type": "null"}})),
                vec![
                    "s.properties[a].type: Forbidden: type cannot be set to null, use nullable as an alternative",
                ],
            ),
            (
                object(json!({"a": {"$ref": "#/x"}})),
                vec!["s.properties[a].$ref: Forbidden: $ref is not supported"],
            ),
            (
                object(json!({"metadata": object(json!({"labels": {"type": "object"}}))})),
                vec![
                    "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
                ],
            ),
            (
                json!({"type": "object", "additionalProperties": true}),
                vec!["s.additionalProperties: Forbidden: must not be used at the root"],
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": false}}}),
                vec![
                    "s.properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
                ],
            ),
            (
                json!({"type": "object", "anyOf": [{"properties": {"a": {"type": "string"}}}]}),
                vec![
                    "s.anyOf[0].properties[a].type: Forbidden: must be empty to be structural",
                    "s.properties[a]: Required value: because it is defined in s.anyOf[0].properties[a]",
                ],
            ),
            (
                object(
                    json!({"a": {"type": "array", "items": {"type": "string"}, "uniqueItems": true}}),
                ),
                vec![
                    "s.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
                ],
            ),
            (
                object(
                    json!({"a": {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}}),
                ),
                vec![
                    "s.properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
                ],
            ),
            (
                object(json!({"a": {
                    "type": "array", "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["b", "c"],
                    "items": object(json!({"b": {"type": "string"}})),
                }})),
                vec![
                    "s.properties[a].items.properties[b].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                    "s.properties[a].x-kubernetes-list-map-keys[1]: Invalid value: \"c\": entries must all be names of item properties",
                ],
            ),
            (
                object(json!({"a": {"type": "string", "x-kubernetes-validations": [
                    {"rule": " "}, {"rule": "true", "message": "a\nb"},
                ]}})),
                vec![
                    "s.properties[a].x-kubernetes-validations[0].rule: Required value: rule is not specified",
                    "s.properties[a].x-kubernetes-validations[1].message: Invalid value: \"a\\nb\": message must not contain line breaks",
                ],
            ),
            (
                object(json!({"a": {"type": "string", "x-kubernetes-list-type": "set"}})),
                vec![
                    "s.properties[a].type: Invalid value: \"string\": must be array if x-kubernetes-list-type is specified",
                ],
            ),
            (
                object(json!({"a": {"type": "object", "x-kubernetes-embedded-resource": true}})),
                vec![
                    "s.properties[a].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
                ],
            ),
        ] {
            assert_eq!(said_of(schema.clone()), want, "{schema}");
        }
    }
}
