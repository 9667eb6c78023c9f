//! In what two forms of an object differ, field by field.

use serde_json::{Map, Value};

/// One field that is otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Such as `spec.containers[web].image`; empty for the whole.
    pub path: String,
    /// Before; `None` if it was not there.
    pub old: Option<Value>,
    /// After; `None` if it is not there any more.
    pub new: Option<Value>,
}

/// What follows from every write, and says nothing of what was written.
const CONSEQUENCES: &[&str] =
    &["metadata.generation", "metadata.managedFields", "metadata.resourceVersion"];

/// By which of their fields the items of a list may be told apart, the best first.
const KEYS: &[&str] =
    &["name", "type", "key", "uid", "ip", "mountPath", "containerPort", "port", "topologyKey"];

/// Every field that differs, in the order of the names. What is new or gone is told as a whole; the items of a
/// list by their name, type or the like, where each has its own, else by their place. A list of plain values
/// is one value.
#[must_use]
pub fn difference(old: &Value, new: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(String::new(), Some(old), Some(new), &mut changes);
    changes.retain(|change| !CONSEQUENCES.iter().any(|own| is_part(&change.path, own)));
    changes
}

/// Whether a path is this one or leads into it.
fn is_part(path: &str, of: &str) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn compare(path: String, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => fields(&path, old, new, changes),
        (Some(Value::Array(old)), Some(Value::Array(new))) if are_objects(old, new) => {
            items(&path, old, new, changes);
        }
        (old, new) => changes.push(Change { path, old: old.cloned(), new: new.cloned() }),
    }
}

fn fields(
    path: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    changes: &mut Vec<Change>,
) {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        compare(child(path, name), old.get(name), new.get(name), changes);
    }
}

/// A field of a field. A name with dots or slashes, such as a label's, stands in brackets.
fn child(path: &str, name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    match (plain, path.is_empty()) {
        (true, true) => name.to_owned(),
        (true, false) => format!("{path}.{name}"),
        (false, _) => format!("{path}[{name}]"),
    }
}

fn are_objects(old: &[Value], new: &[Value]) -> bool {
    !old.is_empty() && !new.is_empty() && old.iter().chain(new).all(Value::is_object)
}

fn items(path: &str, old: &[Value], new: &[Value], changes: &mut Vec<Change>) {
    let key = KEYS.iter().find_map(|key| Some((labels(old, key)?, labels(new, key)?)));
    let Some((before, after)) = key else {
        for at in 0..old.len().max(new.len()) {
            compare(format!("{path}[{at}]"), old.get(at), new.get(at), changes);
        }
        return;
    };
    let with = |labels: &[String], items: &[Value], label: &String| {
        let at = labels.iter().position(|own| own == label)?;
        items.get(at).cloned()
    };
    let gone = before.iter().filter(|label| !after.contains(label));
    for label in after.iter().chain(gone) {
        let (old, new) = (with(&before, old, label), with(&after, new, label));
        compare(format!("{path}[{label}]"), old.as_ref(), new.as_ref(), changes);
    }
}

/// The field `key` of each item; `None` if one has none, or two have the same.
fn labels(items: &[Value], key: &str) -> Option<Vec<String>> {
    let label = |item: &Value| match item.get(key)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    };
    let labels: Vec<String> = items.iter().map(label).collect::<Option<_>>()?;
    let mut unique: Vec<&String> = labels.iter().collect();
    unique.sort();
    unique.dedup();
    (unique.len() == labels.len()).then_some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn shown(old: &Value, new: &Value) -> Vec<String> {
        let text = |value: &Option<Value>| value.as_ref().map_or("-".to_owned(), Value::to_string);
        let line = |c: Change| format!("{}: {} > {}", c.path, text(&c.old), text(&c.new));
        difference(old, new).into_iter().map(line).collect()
    }

    #[test]
    fn each_field_is_told_by_its_path() {
        for (name, old, new, want) in [
            ("equal", json!({"a": 1}), json!({"a": 1}), vec![]),
            ("a value", json!({"a": {"b": 1}}), json!({"a": {"b": 2}}), vec!["a.b: 1 > 2"]),
            ("new as a whole", json!({}), json!({"a": {"b": 1}}), vec![r#"a: - > {"b":1}"#]),
            ("gone", json!({"a": 1, "b": 2}), json!({"b": 2}), vec!["a: 1 > -"]),
            (
                "a label",
                json!({"metadata": {"labels": {"x.io/a": "1"}}}),
                json!({"metadata": {"labels": {"x.io/a": "2"}}}),
                vec![r#"metadata.labels[x.io/a]: "1" > "2""#],
            ),
            (
                "items by name, whatever their place",
                json!({"c": [{"name": "a", "i": 1}, {"name": "b", "i": 1}]}),
                json!({"c": [{"name": "b", "i": 2}, {"name": "a", "i": 1}]}),
                vec!["c[b].i: 1 > 2"],
            ),
            (
                "items that come and go",
                json!({"c": [{"type": "a"}]}),
                json!({"c": [{"type": "b"}]}),
                vec![r#"c[b]: - > {"type":"b"}"#, r#"c[a]: {"type":"a"} > -"#],
            ),
            (
                "items without a name of their own",
                json!({"c": [{"x": 1}, {"x": 1}]}),
                json!({"c": [{"x": 1}, {"x": 2}, {"x": 3}]}),
                vec!["c[1].x: 1 > 2", r#"c[2]: - > {"x":3}"#],
            ),
            ("plain values", json!({"c": [1, 2]}), json!({"c": [2]}), vec!["c: [1,2] > [2]"]),
            (
                "what only follows from the write",
                json!({"metadata": {"resourceVersion": "1", "generation": 1,
                                    "managedFields": [{"manager": "a", "time": "1"}]}}),
                json!({"metadata": {"resourceVersion": "2", "generation": 2,
                                    "managedFields": [{"manager": "a", "time": "2"}]}}),
                vec![],
            ),
            (
                "another type",
                json!({"a": {"b": 1}}),
                json!({"a": [1]}),
                vec![r#"a: {"b":1} > [1]"#],
            ),
        ] {
            assert_eq!(shown(&old, &new), want, "{name}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3).prop_map(Value::from),
            "[ab]?".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("name|type|a|b/c", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_differs_exactly_where_nothing_is_told(a in value(), b in value()) {
            prop_assert_eq!(difference(&a, &a), vec![]);
            let changes = difference(&a, &b);
            prop_assert!(changes.iter().all(|change| change.old != change.new));
            let back = difference(&b, &a);
            prop_assert_eq!(changes.len(), back.len());
            let (sorted, ordered) = (reordered(&a), reordered(&b));
            prop_assert_eq!(changes.is_empty(), sorted == ordered, "{:?}", changes);
        }
    }

    /// Lists of items that are told by a key, in the order of the keys.
    fn reordered(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                fields.iter().map(|(key, value)| (key.clone(), reordered(value))).collect()
            }
            Value::Array(list) => {
                let mut list: Vec<Value> = list.iter().map(reordered).collect();
                let objects = list.iter().all(Value::is_object);
                let keyed = KEYS.iter().find_map(|key| Some((key, labels(&list, key)?)));
                if let (true, Some((key, _))) = (objects, keyed) {
                    list.sort_by_key(|item| item.get(*key).map(Value::to_string));
                }
                list.into()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        }
    }
}
