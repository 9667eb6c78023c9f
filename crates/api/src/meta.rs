//! `metadata` of any object, and times as the API writes them.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    path.iter().try_fold(object, |at, key| at.get(key)).and_then(Value::as_str).unwrap_or_default()
}

/// `metadata.name`, empty without one.
#[must_use]
pub fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

/// `metadata.namespace`, empty without one.
#[must_use]
pub fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

/// `metadata.uid`, empty without one.
#[must_use]
pub fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

/// `metadata.resourceVersion`, empty without one.
#[must_use]
pub fn resource_version(object: &Value) -> &str {
    text(object, &["metadata", "resourceVersion"])
}

/// Whether `metadata.deletionTimestamp` is set.
#[must_use]
pub fn is_terminating(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null())
}

/// Seconds since the Unix epoch of `metadata.deletionTimestamp`.
#[must_use]
pub fn deletion_time(object: &Value) -> Option<i64> {
    parse_time(object.pointer("/metadata/deletionTimestamp")?.as_str()?)
}

/// Seconds of `metadata.deletionGracePeriodSeconds`.
#[must_use]
pub fn deletion_grace_seconds(object: &Value) -> Option<i64> {
    object.pointer("/metadata/deletionGracePeriodSeconds")?.as_i64()
}

/// Seconds since the Unix epoch of `metadata.creationTimestamp`.
#[must_use]
pub fn creation_time(object: &Value) -> Option<i64> {
    parse_time(object.pointer("/metadata/creationTimestamp")?.as_str()?)
}

/// `metadata.generation`, 0 for kinds without one.
#[must_use]
pub fn generation(object: &Value) -> i64 {
    object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default()
}

/// The value of one annotation.
#[must_use]
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(key)?.as_str()
}

/// `metadata.ownerReferences`
#[must_use]
pub fn owner_references(object: &Value) -> &[Value] {
    let list = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

/// The owner that controls the object: the one that CTL-4 asks for.
#[must_use]
pub fn controller(object: &Value) -> Option<&Value> {
    owner_references(object).iter().find(|o| o.get("controller") == Some(&Value::Bool(true)))
}

/// `metadata.labels`
#[must_use]
pub fn labels(object: &Value) -> BTreeMap<String, String> {
    object
        .pointer("/metadata/labels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect()
}

/// `metadata.finalizers`
#[must_use]
pub fn finalizers(object: &Value) -> Vec<String> {
    object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|f| f.as_str().map(str::to_owned))
        .collect()
}

/// `metadata`, made if it is not there or no object.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    child_mut(object, "metadata")
}

/// A field that is an object, made if it is not there or none.
pub fn child_mut<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let fields = object.as_object_mut().expect("made an object above");
    let child = fields.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if !child.is_object() {
        *child = Value::Object(Map::new());
    }
    child.as_object_mut().expect("made an object above")
}

/// 0001-01-01T00:00:00Z in seconds since the Unix epoch: Go's zero time, the first that is written.
const TIME_SECONDS_MIN: i64 = -62_135_596_800;
/// 9999-12-30T22:00:00Z in seconds since the Unix epoch: the last second whose text is read back,
/// whatever the zone.
pub const TIME_SECONDS_MAX: i64 = 253_402_207_200;

fn written(unix_micros: i64, format: &str) -> String {
    jiff::Timestamp::from_microsecond(unix_micros)
        .expect("callers keep to the years of four digits")
        .strftime(format)
        .to_string()
}

fn written_seconds(unix_seconds: i64, format: &str) -> String {
    written(unix_seconds.clamp(TIME_SECONDS_MIN, TIME_SECONDS_MAX) * 1_000_000, format)
}

/// Seconds since the Unix epoch as `2006-01-02T15:04:05Z`; the first or last time there is for what
/// is beyond it, up to [`TIME_SECONDS_MAX`].
#[must_use]
pub fn time(unix_seconds: i64) -> String {
    written_seconds(unix_seconds, "%Y-%m-%dT%H:%M:%SZ")
}

/// Microseconds since the Unix epoch as `2006-01-02T15:04:05.000000Z`, within the same bounds.
#[must_use]
pub fn micro_time(unix_micros: i64) -> String {
    let (first, last) = (TIME_SECONDS_MIN * 1_000_000, TIME_SECONDS_MAX * 1_000_000);
    written(unix_micros.clamp(first, last), "%Y-%m-%dT%H:%M:%S.%6fZ")
}

/// The same as [`time`] at length: `Mon, 02 Jan 2006 15:04:05 +0000`.
#[must_use]
pub fn long_time(unix_seconds: i64) -> String {
    written_seconds(unix_seconds, "%a, %d %b %Y %H:%M:%S +0000")
}

/// The reverse of [`time`], for any RFC 3339 time.
#[must_use]
pub fn parse_time(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(|t| t.as_second())
}

/// Microseconds since the Unix epoch of any RFC 3339 time.
#[must_use]
pub fn parse_micro_time(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
}

/// Removes every null: upstream reads it as a field that is not there.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Objects whose values are amounts.
const AMOUNTS: &[&str] = &["limits", "requests", "overhead", "capacity", "allocatable", "hard"];

/// Whether two objects mean the same (QTY-5): what is empty is what is missing, and amounts count by
/// value and not by spelling.
///
/// `false` and `0` differ from nothing: some fields default to something else.
#[must_use]
pub fn same(a: &Value, b: &Value) -> bool {
    same_at("", a, b)
}

fn same_at(key: &str, a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.into_iter().all(|name| {
                let (x, y) = (a.get(name).unwrap_or(&Value::Null), b.get(name));
                let inside = if AMOUNTS.contains(&key) { "\u{0}amount" } else { name };
                same_at(inside, x, y.unwrap_or(&Value::Null))
            })
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_at("", a, b))
        }
        (Value::String(a), Value::String(b)) if key == "\u{0}amount" => {
            let amount = |text: &str| text.parse::<crate::quantity::Quantity>().ok();
            a == b || (amount(a).is_some() && amount(a) == amount(b))
        }
        (a, b) => a == b || (is_empty(a) && is_empty(b)),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The object for whatever version there is: a copy that names none.
#[must_use]
pub fn without_version(object: &Value) -> Value {
    let mut object = object.clone();
    metadata_mut(&mut object).remove("resourceVersion");
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn times_are_written_in_utc_and_read_in_any_zone() {
        // §0.5
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(micro_time(1_700_000_000_000_001), "2023-11-14T22:13:20.000001Z");
        assert_eq!(parse_time("2023-11-14T23:13:20.9+01:00"), Some(1_700_000_000));
        assert_eq!(
            parse_micro_time(&micro_time(1_700_000_000_000_001)),
            Some(1_700_000_000_000_001)
        );
        assert_eq!(parse_time("yesterday"), None);
    }

    proptest! {
        #[test]
        fn any_time_is_written_as_one_that_is_read(time_of in any::<i64>()) {
            let written = time(time_of);
            let want = time_of.clamp(TIME_SECONDS_MIN, TIME_SECONDS_MAX);
            prop_assert_eq!(parse_time(&written), Some(want), "{}", written);
            prop_assert_eq!(written.len(), "2006-01-02T15:04:05Z".len());
            prop_assert!(parse_micro_time(&micro_time(time_of)).is_some());
            prop_assert!(!long_time(time_of).is_empty());
        }
    }

    #[test]
    fn the_last_times_are_those_of_years_of_four_digits() {
        assert_eq!(time(i64::MAX), "9999-12-30T22:00:00Z");
        assert_eq!(time(i64::MIN), "0001-01-01T00:00:00Z");
        assert_eq!(time(TIME_SECONDS_MAX - 1), "9999-12-30T21:59:59Z");
    }

    #[test]
    fn objects_that_differ_only_in_spelling_are_the_same() {
        // QTY-5, CC-4
        for (name, a, b, want) in [
            ("amounts", json!({"limits": {"cpu": "1"}}), json!({"limits": {"cpu": "1000m"}}), true),
            (
                "amounts differ",
                json!({"limits": {"cpu": "1"}}),
                json!({"limits": {"cpu": "2"}}),
                false,
            ),
            (
                "texts are no amounts",
                json!({"args": {"cpu": "1"}}),
                json!({"args": {"cpu": "1000m"}}),
                false,
            ),
            ("nothing and empty", json!({"a": [], "b": {}, "c": "", "d": null}), json!({}), true),
            ("nothing and false", json!({"a": false}), json!({}), false),
            ("lists in order", json!([1, 2]), json!([2, 1]), false),
            ("lists of empty things", json!([{}]), json!([]), false),
            ("missing on either side", json!({}), json!({"a": 1}), false),
        ] {
            assert_eq!(same(&a, &b), want, "{name}");
            assert_eq!(same(&b, &a), want, "{name}");
        }
    }

    #[test]
    fn the_controller_is_the_owner_that_says_so() {
        // CTL-4
        let object = json!({"metadata": {"ownerReferences": [
            {"uid": "a"}, {"uid": "b", "controller": false}, {"uid": "c", "controller": true},
        ]}});
        assert_eq!(controller(&object).unwrap()["uid"], "c");
        assert_eq!(owner_references(&object).len(), 3);
        assert!(controller(&json!({})).is_none());
    }
}
