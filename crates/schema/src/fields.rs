//! Fields that a kind does not have (HTTP-2).

use crate::table::{Shape, Table, table_of};
use api::kinds::Kind;
use serde_json::Value;
use std::fmt;

/// Paths of the fields that objects of this kind do not have, such as `spec.containers[0].foo`, in
/// the order of the names. Values of the wrong type are passed over, and all else is still found.
/// A kind without a schema has every field.
#[must_use]
pub fn unknown_fields(kind: &Kind, object: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let table = table_of(kind);
    if let Some(custom) = &kind.custom {
        unknown = custom.unknown_fields(object);
        // Of metadata the schema knows nothing.
        let root = table.root(kind);
        if let Some(metadata) = object.get("metadata") {
            let shape = table.field(&root, "metadata").shape;
            visit(&table, shape, metadata, &At::Field(&At::Root, "metadata"), &mut unknown);
        }
        unknown.sort();
        return unknown;
    }
    visit(&table, &table.root(kind), object, &At::Root, &mut unknown);
    unknown
}

/// Where a value is in a document, such as `spec.containers[0].foo`: written only if somebody asks.
#[derive(Debug)]
pub enum At<'a> {
    /// The document itself, which is written as nothing.
    Root,
    /// The value of this name within an object.
    Field(&'a At<'a>, &'a str),
    /// The value of this index, from 0, within a list.
    Item(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

fn visit(table: &Table, shape: &Shape, value: &Value, at: &At<'_>, unknown: &mut Vec<String>) {
    match (shape, value) {
        (Shape::Struct(_) | Shape::Map { .. }, Value::Object(fields)) => {
            let is_struct = matches!(shape, Shape::Struct(_));
            for (name, value) in fields {
                let at = At::Field(at, name);
                let found = table.field(shape, name);
                if is_struct && found.field.is_none() {
                    unknown.push(at.to_string());
                } else {
                    visit(table, found.shape, value, &at, unknown);
                }
            }
        }
        (Shape::List { item, .. }, Value::Array(items)) => {
            for (index, value) in items.iter().enumerate() {
                visit(table, item, value, &At::Item(at, index), unknown);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::kinds;
    use serde_json::json;

    #[test]
    fn fields_that_a_kind_does_not_have_are_named_by_path() {
        // HTTP-2
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"lables": {}, "labels": {"any": "thing"}},
            "spec": {
                "containers": [{"name": "a", "resources": {"limits": {"cpu": "1", "any": 1}}}, {"imgae": 1}],
                "hostNetwork": "wrong",
                "nodeSelectr": {},
                "terminationGracePeriodSeconds": 1,
            },
            "status": {"conditions": [{"type": "Ready", "at": "x"}]},
            "dat": 1,
        });
        let unknown = unknown_fields(kinds::by_alias("pod").unwrap(), &pod);
        let want = [
            "dat",
            "metadata.lables",
            "spec.containers[1].imgae",
            "spec.nodeSelectr",
            "status.conditions[0].at",
        ];
        assert_eq!(unknown, want);
    }

    #[test]
    fn what_a_kind_has_is_not_unknown() {
        let cm = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}, "immutable": true,
            "metadata": {
                "name": "c", "namespace": "d", "ownerReferences": [{"uid": "u"}],
                "managedFields": [{"fieldsV1": {"f:data": {".": {}}}, "time": null}],
            },
        });
        let none: Vec<String> = Vec::new();
        assert_eq!(unknown_fields(kinds::by_alias("cm").unwrap(), &cm), none);
    }
}
