//! JSON merge patch (RFC 7386) and JSON patch (RFC 6902).

use api::status::Status;
use serde_json::{Map, Value};

/// Operations in one JSON patch at most.
const OPERATIONS_MAX: usize = 10_000;

/// Merges `patch` into `target`: null removes, objects merge, everything else replaces.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Carries out the operations in order; the first that fails fails all.
///
/// # Errors
/// 400 for what is no patch, 413 for too many operations, 422 for one that does not apply.
pub(crate) fn apply(target: &Value, operations: &Value) -> Result<Value, Status> {
    let list =
        operations.as_array().ok_or_else(|| Status::bad_request("a JSON patch is a list"))?;
    if list.len() > OPERATIONS_MAX {
        let detail = format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            list.len()
        );
        return Err(Status::too_large(&detail));
    }
    let mut result = target.clone();
    for operation in list {
        step(&mut result, operation)?;
    }
    Ok(result)
}

fn step(target: &mut Value, operation: &Value) -> Result<(), Status> {
    let text = |key: &str| operation.get(key).and_then(Value::as_str);
    let fails = |what: &str| {
        Status::new(
            422,
            "Invalid",
            format!(
                "the server rejected our request due to an error in our request: {what}: {operation}"
            ),
        )
    };
    let path = text("path").ok_or_else(|| fails("missing path"))?;
    let value = || operation.get("value").cloned().ok_or_else(|| fails("missing value"));
    let from = || text("from").ok_or_else(|| fails("missing from"));
    let missing = || fails("the path does not exist");
    match text("op") {
        Some("add") => add(target, path, value()?).ok_or_else(missing),
        Some("remove") => remove(target, path).map(drop).ok_or_else(missing),
        Some("replace") => {
            *target.pointer_mut(path).ok_or_else(missing)? = value()?;
            Ok(())
        }
        Some("move") => {
            let moved = remove(target, from()?).ok_or_else(missing)?;
            add(target, path, moved).ok_or_else(missing)
        }
        Some("copy") => {
            let copied = target.pointer(from()?).cloned().ok_or_else(missing)?;
            add(target, path, copied).ok_or_else(missing)
        }
        Some("test") if target.pointer(path) == Some(&value()?) => Ok(()),
        Some("test") => Err(fails("the test failed")),
        Some(_) | None => Err(fails("unknown op")),
    }
}

fn parent<'a, 'p>(target: &'a mut Value, path: &'p str) -> Option<(&'a mut Value, String)> {
    let (parent, last): (&'p str, &'p str) = path.rsplit_once('/')?;
    let last = last.replace("~1", "/").replace("~0", "~");
    Some((target.pointer_mut(parent)?, last))
}

fn add(target: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *target = value;
        return Some(());
    }
    match parent(target, path)? {
        (Value::Object(fields), key) => drop(fields.insert(key, value)),
        (Value::Array(list), key) if key == "-" => list.push(value),
        (Value::Array(list), key) => {
            let at: usize = key.parse().ok().filter(|at| *at <= list.len())?;
            list.insert(at, value);
        }
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_), _) => return None,
    }
    Some(())
}

fn remove(target: &mut Value, path: &str) -> Option<Value> {
    match parent(target, path)? {
        (Value::Object(fields), key) => fields.remove(&key),
        (Value::Array(list), key) => {
            let at: usize = key.parse().ok().filter(|at| *at < list.len())?;
            Some(list.remove(at))
        }
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_merge_patch_removes_with_null_and_replaces_lists() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        merge(&mut object, &json!({"a": {"b": null, "d": 3}, "l": [3]}));
        assert_eq!(object, json!({"a": {"c": 2, "d": 3}, "l": [3]}));
    }

    #[test]
    fn a_json_patch_is_all_or_nothing() {
        let object = json!({"a": [1, 2], "b": {"x/y": 1}});
        let patched = apply(
            &object,
            &json!([
                {"op": "test", "path": "/a/0", "value": 1},
                {"op": "add", "path": "/a/1", "value": 9},
                {"op": "remove", "path": "/b/x~1y"},
                {"op": "add", "path": "/a/-", "value": 7},
                {"op": "copy", "from": "/a/0", "path": "/c"},
            ]),
        );
        assert_eq!(patched.unwrap(), json!({"a": [1, 9, 2, 7], "b": {}, "c": 1}));
        for bad in [
            json!([{"op": "test", "path": "/a/0", "value": 2}]),
            json!([{"op": "remove", "path": "/none"}]),
            json!([{"op": "jump", "path": "/a"}]),
        ] {
            assert_eq!(apply(&object, &bad).unwrap_err().code, 422, "{bad}");
        }
    }
}
