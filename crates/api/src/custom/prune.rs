//! What becomes of an object before it is checked: fields that the schema does not have go, nulls that mean
//! nothing go, and defaults come.

use super::structure::{Additional, Schema};
use serde_json::{Map, Value};

/// Fields of every object, and of every object inside of one that says so.
const OBJECT_FIELDS: &[&str] = &["apiVersion", "kind", "metadata"];

/// Paths of the fields that the schema does not have, such as `spec.size[0].foo`, in the order of the names.
/// Metadata is not looked into.
pub(super) fn unknown(schema: &Schema, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut object = object.clone();
    walk(&mut object, schema, true, "", &mut found);
    found
}

/// Takes away every field that the schema does not have.
pub(super) fn prune(schema: &Schema, object: &mut Value) {
    walk(object, schema, true, "", &mut Vec::new());
}

fn walk(value: &mut Value, schema: &Schema, is_object: bool, path: &str, gone: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let is_object = is_object || schema.embedded;
            let keeps = schema.preserve || matches!(schema.additional, Additional::Any);
            // A scalar that is an object is an error of its own, told when it is checked.
            let foreign = schema.properties.is_empty()
                && !keeps
                && !matches!(schema.additional, Additional::Of(_))
                && !matches!(schema.kind, super::Type::Object | super::Type::Any);
            if foreign {
                return;
            }
            fields.retain(|name, inner| {
                if is_object && OBJECT_FIELDS.contains(&name.as_str()) {
                    return true;
                }
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match schema.field(name) {
                    Some(known) => {
                        walk(inner, known, false, &path, gone);
                        true
                    }
                    None if keeps => true,
                    None => {
                        gone.push(path);
                        false
                    }
                }
            });
        }
        Value::Array(items) => {
            let Some(known) = &schema.items else { return };
            for (at, item) in items.iter_mut().enumerate() {
                walk(item, known, false, &format!("{path}[{at}]"), gone);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Sets what a client left out. A null where none is allowed counts as left out.
pub(super) fn default(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            drop_nulls(schema, fields);
            for (name, known) in &schema.properties {
                let given = known.default.as_ref();
                let given = given.filter(|value| !value.is_null() || known.nullable);
                if let Some(value) = given.filter(|_| !fields.contains_key(name)) {
                    fields.insert(name.clone(), value.clone());
                }
                if let Some(inner) = fields.get_mut(name) {
                    default(known, inner);
                }
            }
            if let Additional::Of(known) = &schema.additional {
                let others = fields.iter_mut();
                for (_, inner) in others.filter(|(name, _)| !schema.properties.contains_key(*name))
                {
                    default(known, inner);
                }
            }
        }
        Value::Array(items) => {
            if let Some(known) = &schema.items {
                items.iter_mut().for_each(|item| default(known, item));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn drop_nulls(schema: &Schema, fields: &mut Map<String, Value>) {
    fields.retain(|name, inner| {
        let means_nothing = |known: &Schema| !known.nullable && !known.preserve;
        !(inner.is_null() && schema.field(name).is_some_and(means_nothing))
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema(text: Value) -> Schema {
        Schema::read(&text).unwrap()
    }

    #[test]
    fn fields_that_the_schema_does_not_have_go() {
        let schema = schema(json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "a": {"type": "string"},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                        "properties": {"known": {"type": "object"}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"b": {"type": "string"}}}},
                "list": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "string"}}}},
                "template": {"type": "object", "x-kubernetes-embedded-resource": true,
                             "properties": {"spec": {"type": "object"}}},
            }},
        }}));
        let mut object = json!({
            "apiVersion": "v", "kind": "k", "metadata": {"any": 1}, "top": 1,
            "spec": {
                "a": "x", "typo": 1,
                "any": {"free": {"x": 1}, "known": {"gone": 1}},
                "map": {"k": {"b": "x", "z": 1}},
                "list": [{"c": "x"}, {"d": 1}],
                "template": {"apiVersion": "v", "kind": "k", "metadata": {}, "spec": {"x": 1}, "y": 1},
            },
        });
        let want = [
            "spec.any.known.gone",
            "spec.list[1].d",
            "spec.map.k.z",
            "spec.template.spec.x",
            "spec.template.y",
            "spec.typo",
            "top",
        ];
        assert_eq!(unknown(&schema, &object), want);
        prune(&schema, &mut object);
        assert_eq!(
            object,
            json!({
                "apiVersion": "v", "kind": "k", "metadata": {"any": 1},
                "spec": {
                    "a": "x", "any": {"free": {"x": 1}, "known": {}}, "map": {"k": {"b": "x"}},
                    "list": [{"c": "x"}, {}],
                    "template": {"apiVersion": "v", "kind": "k", "metadata": {}, "spec": {}},
                },
            })
        );
    }

    #[test]
    fn defaults_fill_what_is_left_out_and_inside_of_defaults() {
        let schema = schema(json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "size": {"type": "integer", "default": 3},
                "none": {"type": "string", "nullable": true, "default": "x"},
                "gone": {"type": "string"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}},
            }},
        }}));
        for (given, want) in [
            (json!({}), json!({"spec": {"size": 3, "none": "x"}})),
            (
                json!({"spec": {"size": null, "none": null, "gone": null}}),
                json!({"spec": {"size": 3, "none": null}}),
            ),
            (
                json!({"spec": {"size": 0, "none": "y", "list": [{}, {"p": "UDP"}]}}),
                json!({"spec": {"size": 0, "none": "y", "list": [{"p": "TCP"}, {"p": "UDP"}]}}),
            ),
        ] {
            let mut object = given;
            default(&schema, &mut object);
            assert_eq!(object, want);
            let mut twice = object.clone();
            default(&schema, &mut twice);
            assert_eq!(twice, object, "idempotent");
        }
    }
}
