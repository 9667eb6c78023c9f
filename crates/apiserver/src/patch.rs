//! JSON merge patch (RFC 7386) and JSON patch (RFC 6902).

use api::status::Status;
use serde_json::{Map, Value};

/// Operations in one JSON patch at most.
const OPERATIONS_MAX: usize = 10_000;
/// Bytes of JSON that the copies of one JSON patch may add up to, as upstream has it: each could double
/// the object.
const COPY_BYTES_MAX: usize = 3 << 20;
/// How deep a JSON patch may put anything: what is stored must be read again, and JSON is read up to 127
/// deep, the list around an object included.
const DEPTH_MAX: usize = 100;
/// Values that the operations of one JSON patch may put somewhere, those inside included: a large one
/// could be moved to and fro.
const VALUES_MAX: usize = 10_000_000;

/// What the operations so far have taken.
#[derive(Debug, Default)]
struct Taken {
    copy_bytes: usize,
    values: usize,
}

impl Taken {
    /// Bytes of JSON of a value that goes to `path`.
    ///
    /// # Errors
    /// What there is too much of.
    fn put(&mut self, path: &str, value: &Value) -> Result<usize, String> {
        self.measure(value, DEPTH_MAX.checked_sub(path.matches('/').count()))
    }

    fn copy(&mut self, path: &str, value: &Value) -> Result<(), String> {
        self.copy_bytes = self.copy_bytes.saturating_add(self.put(path, value)?);
        if self.copy_bytes > COPY_BYTES_MAX {
            return Err(format!(
                "The allowed maximum size of copied values in a JSON patch is {COPY_BYTES_MAX} bytes"
            ));
        }
        Ok(())
    }

    fn measure(&mut self, value: &Value, levels: Option<usize>) -> Result<usize, String> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(format!("the operations put more than {VALUES_MAX} values somewhere"));
        }
        let below = || levels.and_then(|levels| levels.checked_sub(1));
        let mut bytes = 2_usize;
        match value {
            Value::Null | Value::Bool(_) => bytes += 3,
            Value::Number(number) => bytes = number.to_string().len(),
            Value::String(text) => bytes += text.len(),
            Value::Array(_) | Value::Object(_) if below().is_none() => {
                return Err(format!("the result would be nested more than {DEPTH_MAX} deep"));
            }
            Value::Array(list) => {
                for item in list {
                    bytes += self.measure(item, below())? + 1;
                }
            }
            Value::Object(fields) => {
                for (key, field) in fields {
                    bytes += key.len() + self.measure(field, below())? + 4;
                }
            }
        }
        Ok(bytes)
    }
}

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
/// 400 for what is no patch, 413 for too many operations, 422 for one that does not apply or takes too
/// much.
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
    let mut taken = Taken::default();
    for operation in list {
        step(&mut result, operation, &mut taken)?;
    }
    Ok(result)
}

fn step(target: &mut Value, operation: &Value, taken: &mut Taken) -> Result<(), Status> {
    let text = |key: &str| operation.get(key).and_then(Value::as_str);
    // Without the value: this goes to logs, and the object may be a Secret.
    let named: Map<String, Value> = ["op", "path", "from"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), operation.get(key)?.clone())))
        .collect();
    let named = Value::Object(named);
    let fails = |what: &str| {
        Status::new(
            422,
            "Invalid",
            format!(
                "the server rejected our request due to an error in our request: {what}: {named}"
            ),
        )
    };
    let path = text("path").ok_or_else(|| fails("missing path"))?;
    let value = || operation.get("value").ok_or_else(|| fails("missing value"));
    let too_much = |what: String| fails(&what);
    let from = || text("from").ok_or_else(|| fails("missing from"));
    let missing = || fails("the path does not exist");
    match text("op") {
        Some("add") => {
            taken.put(path, value()?).map_err(too_much)?;
            add(target, path, value()?.clone()).ok_or_else(missing)
        }
        Some("remove") => remove(target, path).map(drop).ok_or_else(missing),
        Some("replace") => {
            taken.put(path, value()?).map_err(too_much)?;
            *target.pointer_mut(path).ok_or_else(missing)? = value()?.clone();
            Ok(())
        }
        Some("move") => {
            let moved = remove(target, from()?).ok_or_else(missing)?;
            taken.put(path, &moved).map_err(too_much)?;
            add(target, path, moved).ok_or_else(missing)
        }
        Some("copy") => {
            let copied = target.pointer(from()?).ok_or_else(missing)?;
            taken.copy(path, copied).map_err(too_much)?;
            let copied = copied.clone();
            add(target, path, copied).ok_or_else(missing)
        }
        Some("test") if is_at(target, path, value()?) => Ok(()),
        Some("test") => Err(fails("the test failed")),
        Some(_) | None => Err(fails("unknown op")),
    }
}

/// Whether `value` is at `path`. What is not there is null, as upstream has it: so clients ask for a list
/// of finalizers that is still to be made.
fn is_at(target: &Value, path: &str, value: &Value) -> bool {
    match (target.pointer(path), path.rsplit_once('/')) {
        (Some(found), _) => found == value,
        (None, Some((parent, _))) => {
            value.is_null() && target.pointer(parent).is_some_and(Value::is_object)
        }
        (None, None) => false,
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

    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }

    fn refusal(object: &Value, operations: Vec<Value>) -> String {
        let status = apply(object, &operations.into()).unwrap_err();
        assert_eq!(status.code, 422);
        status.message
    }

    #[test]
    fn copies_add_up_to_no_more_than_upstream_allows() {
        let double = |i: usize| json!({"op": "copy", "from": "", "path": format!("/k{i}")});
        let object = json!({"a": "x".repeat(1000)});
        let doubled: Value = (0..10).map(double).collect();
        assert!(apply(&object, &doubled).unwrap().to_string().len() > 1_000_000);
        let message = refusal(&object, (0..100).map(double).collect());
        assert!(message.contains("maximum size of copied values"), "{message}");
        // What is replaced each time has been copied all the same.
        let over = json!({"op": "copy", "from": "/a", "path": "/b"});
        assert!(apply(&object, &vec![over.clone(); 3000].into()).is_ok());
        let message = refusal(&object, vec![over; 4000]);
        assert!(message.contains("maximum size of copied values"), "{message}");
    }

    #[test]
    fn no_operation_nests_deeper_than_is_read_again() {
        let object = json!({"a": 1, "l": [[]]});
        let into_itself = json!({"op": "copy", "from": "", "path": "/a"});
        let deep = apply(&object, &vec![into_itself.clone(); 97].into()).unwrap();
        assert_eq!(depth(&deep), DEPTH_MAX);
        assert!(serde_json::from_str::<Value>(&deep.to_string()).is_ok());
        let mut nested = json!(1);
        for _ in 0..90 {
            nested = json!({"b": nested});
        }
        let at = format!("/a{}", "/b".repeat(90));
        let swap = [
            json!({"op": "replace", "path": "/a", "value": nested}),
            json!({"op": "move", "from": "/a", "path": "/c"}),
            json!({"op": "add", "path": "/a", "value": nested}),
            json!({"op": "move", "from": "/c", "path": at}),
        ];
        for operations in [
            vec![into_itself; 10_000],
            swap.to_vec(),
            vec![swap[0].clone(), json!({"op": "add", "path": at, "value": nested})],
            vec![swap[0].clone(), json!({"op": "replace", "path": at, "value": nested})],
        ] {
            let message = refusal(&object, operations);
            assert!(message.contains("nested more than 100 deep"), "{message}");
        }
    }

    #[test]
    fn a_large_value_is_not_moved_to_and_fro_without_end() {
        let object = json!({"a": vec![0; 20_000]});
        let turn = |i: usize| {
            let (from, path) = if i.is_multiple_of(2) { ("/a", "/b") } else { ("/b", "/a") };
            json!({"op": "move", "from": from, "path": path})
        };
        assert!(apply(&object, &(0..100).map(turn).collect()).is_ok());
        let message = refusal(&object, (0..1000).map(turn).collect());
        assert!(message.contains("more than 10000000 values"), "{message}");
    }

    #[test]
    fn what_is_not_there_is_null_for_a_test() {
        // PAT-1
        let object = json!({"metadata": {"name": "a"}, "l": [1]});
        let test = |path: &str, value: Value| json!([{"op": "test", "path": path, "value": value}]);
        assert_eq!(apply(&object, &test("/metadata/finalizers", Value::Null)), Ok(object.clone()));
        for (path, value) in [
            ("/metadata/finalizers", json!([])),
            ("/metadata/name", Value::Null),
            ("/none/finalizers", Value::Null),
            ("/l/1", Value::Null),
        ] {
            assert_eq!(apply(&object, &test(path, value)).unwrap_err().code, 422, "{path}");
        }
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
