//! Rules that several kinds have for their fields, and their texts.

use super::{list, number, or_none, text};
use crate::{
    core::LabelSelectorObject,
    field::{FieldError, Path},
    meta, names,
    quantity::Quantity,
    selector::LabelSelector,
};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Said of whatever may not be below zero.
pub(super) const NEGATIVE: &str = "must be greater than or equal to 0";

/// One error for each of these fields that is a number below zero.
pub(super) fn non_negative(at: &Value, path: &Path, fields: &[&str]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in fields {
        let found = at.get(*field).and_then(Value::as_i64).unwrap_or_default();
        if found < 0 {
            errors.push(FieldError::invalid(&path.child(field), found, NEGATIVE));
        }
    }
    errors
}

/// What is wrong with a number, or a percentage.
pub(super) fn int_or_percent(value: &Value, path: &Path) -> Vec<FieldError> {
    match value {
        Value::String(text) => names::check(path, text, names::percent),
        Value::Number(_) if value.as_i64().unwrap_or_default() < 0 => {
            vec![FieldError::invalid(path, value.clone(), NEGATIVE)]
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Vec::new()
        }
    }
}

/// The number of `3` and of `3%`, as large as it can be held; 0 for what is neither.
pub(super) fn int_or_percent_value(value: Option<&Value>) -> i64 {
    match value {
        Some(Value::String(text)) if names::percent(text).is_empty() => {
            text.trim_end_matches('%').parse().unwrap_or(i64::MAX)
        }
        Some(Value::String(text)) => text.parse().unwrap_or_default(),
        Some(Value::Number(number)) => number.as_i64().unwrap_or_default(),
        None | Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => 0,
    }
}

/// What is wrong with a percentage beyond the whole; a number may be anything.
pub(super) fn at_most_all(value: &Value, path: &Path) -> Vec<FieldError> {
    let percent = value.as_str().filter(|text| names::percent(text).is_empty());
    if percent.is_some() && int_or_percent_value(Some(value)) > 100 {
        return vec![FieldError::invalid(path, value.clone(), "must not be greater than 100%")];
    }
    Vec::new()
}

/// A field that may not change; what is spelt differently is the same.
pub(super) fn immutable(new: &Value, old: &Value, key: &str, path: &Path) -> Vec<FieldError> {
    let (new, old) = (new.get(key).unwrap_or(&Value::Null), old.get(key).unwrap_or(&Value::Null));
    if meta::same(new, old) {
        return Vec::new();
    }
    vec![FieldError::invalid(&path.child(key), new.clone(), "field is immutable")]
}

/// The same for fields of the spec.
pub(super) fn immutable_in_spec(new: &Value, old: &Value, keys: &[&str]) -> Vec<FieldError> {
    let (new, old) = (new.get("spec"), old.get("spec"));
    let (new, old) = (new.unwrap_or(&Value::Null), old.unwrap_or(&Value::Null));
    keys.iter().flat_map(|key| immutable(new, old, key, &Path::new("spec"))).collect()
}

/// What is wrong with a label selector; one that is not there is right.
pub(super) fn label_selector(selector: Option<&Value>, path: &Path) -> Vec<FieldError> {
    let Some(selector) = selector.filter(|s| !s.is_null()) else { return Vec::new() };
    let pairs = texts(selector.get("matchLabels"));
    let mut errors = names::labels(&path.child("matchLabels"), &pairs);
    for (i, expression) in list(selector, "matchExpressions").iter().enumerate() {
        let at = path.child("matchExpressions").index(i);
        let values = list(expression, "values");
        match text(expression, "/operator").as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&at.child("values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&at.child("values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let detail = "not a valid selector operator";
                errors.push(FieldError::invalid(&at.child("operator"), other, detail));
            }
        }
        let key = text(expression, "/key");
        errors.extend(names::check(&at.child("key"), &key, names::qualified));
        for (i, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            let at = at.child("values").index(i);
            errors.extend(names::check(&at, value, names::label_value));
        }
    }
    errors
}

/// A selector that has no requirement.
pub(super) fn selects_all(selector: &Value) -> bool {
    texts(selector.get("matchLabels")).is_empty() && list(selector, "matchExpressions").is_empty()
}

/// The selector of what passed [`label_selector`]; `None` for one that is not there or wrong.
pub(super) fn parsed_selector(selector: Option<&Value>) -> Option<LabelSelector> {
    let selector = selector.filter(|s| !s.is_null())?;
    LabelSelector::of(&LabelSelectorObject::deserialize(selector).ok()?).ok()
}

/// A map of texts.
pub(super) fn texts(map: Option<&Value>) -> BTreeMap<String, String> {
    let fields = map.and_then(Value::as_object).into_iter().flatten();
    fields.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// `a=b,c=d`, or `<none>`: labels as a cell.
pub(super) fn labels_cell(map: Option<&Value>) -> Value {
    let pairs: Vec<String> = texts(map).iter().map(|(k, v)| format!("{k}={v}")).collect();
    or_none(pairs.join(","))
}

/// A label selector as a cell.
pub(super) fn selector_cell(selector: Option<&Value>) -> Value {
    if selector.is_none_or(Value::is_null) {
        return "<none>".into();
    }
    match parsed_selector(selector) {
        Some(parsed) => or_none(parsed.to_string()),
        None => "<error>".into(),
    }
}

/// Counts of a status: none below zero, and none above another, `(field, field, text)`.
pub(super) fn status_counts(
    object: &Value,
    counts: &[&str],
    at_most: &[(&str, &str, &str)],
) -> Vec<FieldError> {
    let path = Path::new("status");
    let status = object.get("status").unwrap_or(&Value::Null);
    let mut errors = non_negative(status, &path, counts);
    for (field, most, detail) in at_most {
        let count = |name: &str| number(status, &format!("/{name}"));
        if count(field) > count(most) {
            errors.push(FieldError::invalid(&path.child(field), count(field), *detail));
        }
    }
    errors
}

/// How often a controller had to change its hash never goes back.
pub(super) fn collisions(new: &Value, old: &Value) -> Vec<FieldError> {
    let count = |object| number(object, "/status/collisionCount");
    if count(new) >= count(old) {
        return Vec::new();
    }
    let path = Path::new("status").child("collisionCount");
    vec![FieldError::invalid(&path, count(new), "cannot be decremented")]
}

/// A new object's status: what its writer says of it is dropped (DEF-3).
pub(super) fn fresh_status(object: &mut Value, zeros: &[&str]) {
    let status = meta::child_mut(object, "status");
    *status = Map::new();
    for zero in zeros {
        status.insert((*zero).to_owned(), json!(0));
    }
}

/// An amount of a resource list, which may come as a bare number.
pub(super) fn amount(value: &Value) -> Option<Quantity> {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_checked_requirement_by_requirement() {
        let path = Path::new("spec").child("selector");
        for (selector, want) in [
            (json!(null), vec![]),
            (json!({}), vec![]),
            (json!({"matchLabels": {"a": "b"}}), vec![]),
            (json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]}), vec![]),
            (
                json!({"matchLabels": {"a": "-"}}),
                vec![
                    "spec.selector.matchLabels: Invalid value: \"-\": a valid label must be an empty string",
                ],
            ),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
                vec![
                    "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                ],
            ),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
                vec![
                    "spec.selector.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ],
            ),
            (
                json!({"matchExpressions": [{"key": "", "operator": "Near", "values": ["-"]}]}),
                vec![
                    "spec.selector.matchExpressions[0].operator: Invalid value: \"Near\": not a valid selector operator",
                    "spec.selector.matchExpressions[0].key: Invalid value: \"\": name part must be non-empty",
                    "spec.selector.matchExpressions[0].key: Invalid value: \"\": name part must consist of",
                    "spec.selector.matchExpressions[0].values[0]: Invalid value: \"-\": a valid label must be",
                ],
            ),
        ] {
            let errors = label_selector(Some(&selector), &path);
            assert_eq!(errors.len(), want.len(), "{selector}: {errors:?}");
            for (error, want) in errors.iter().zip(want) {
                assert!(error.to_string().starts_with(want), "{error}");
            }
        }
    }

    #[test]
    fn a_share_is_a_number_or_a_percentage() {
        let path = Path::new("p");
        for (value, number, wrong) in [
            (json!(3), 3, 0),
            (json!("25%"), 25, 0),
            (json!("100%"), 100, 0),
            (json!(300), 300, 0),
            (json!("101%"), 101, 1),
            (json!("99999999999999999999%"), i64::MAX, 1),
            (json!("3"), 3, 1),
            (json!(-1), -1, 1),
        ] {
            let errors = [int_or_percent(&value, &path), at_most_all(&value, &path)].concat();
            assert_eq!(errors.len(), wrong, "{value}: {errors:?}");
            assert_eq!(int_or_percent_value(Some(&value)), number);
        }
    }
}
