//! Whether an object is what its schema says, in upstream's words.
//!
//! What an update leaves as it was is not held against it: a schema may have become stricter since.

use super::{
    formats,
    structure::{Additional, Items, Schema, Type},
};
use crate::field::{FieldError, Path};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Errors that are looked for: nobody reads more, and an object may have one in each of a million items.
const ERRORS_MAX: usize = 1000;

/// Every error of an object; `old` is what is stored, for an update.
pub(super) fn check(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    Check { top: true }.value(schema, object, old, "", &mut errors);
    unique(schema, object, old, "", &mut errors);
    embedded(schema, object, old, "", &mut errors);
    errors
}

/// The same for a value alone, such as a default.
pub(super) fn check_value(schema: &Schema, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    Check { top: false }.value(schema, value, None, "", &mut errors);
    unique(schema, value, None, "", &mut errors);
    errors
}

/// A path as errors have it; that of the object itself is none.
pub(super) fn at(path: &str) -> Path {
    Path::new(if path.is_empty() { "<nil>" } else { path })
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// What JSON calls the type of a value.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A number as Go prints a float of it: whole ones without a point, large ones by exponent.
fn printed(number: f64) -> String {
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e21).contains(&size) {
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    number.to_string()
}

struct Check {
    /// Whether fields of every object are known without the schema.
    top: bool,
}

impl Check {
    fn value(
        &self,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        errors: &mut Vec<FieldError>,
    ) {
        // As it was, and so nobody's mistake now.
        if errors.len() >= ERRORS_MAX || old == Some(value) {
            return;
        }
        if value.is_null() && schema.nullable {
            return;
        }
        let place = at(path);
        if let Some(wanted) = wrong_type(schema, value) {
            let found = type_of(value);
            let detail = format!("{path} in body must be of type {wanted}: {found:?}");
            errors.push(FieldError::type_invalid(&place, found, detail));
        }
        self.junctors(schema, value, old, path, errors);
        if !schema.one_of_values.is_empty() && !schema.one_of_values.iter().any(|v| same(v, value))
        {
            let listed: Vec<String> = schema.one_of_values.iter().map(plain).collect();
            let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
            errors.push(FieldError::not_supported(&place, value.clone(), &listed));
        }
        match value {
            Value::String(text) => string(schema, text, path, errors),
            Value::Number(number) => number_of(schema, value, number.as_f64(), path, errors),
            Value::Array(items) => self.items(schema, items, old, path, errors),
            Value::Object(fields) => self.fields(schema, fields, old, path, errors),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn junctors(
        &self,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        errors: &mut Vec<FieldError>,
    ) {
        let inner = Self { top: false };
        let tried = |schemas: &[Schema]| -> Vec<Vec<FieldError>> {
            let try_one = |schema| {
                let mut errors = Vec::new();
                inner.value(schema, value, old, path, &mut errors);
                errors
            };
            schemas.iter().map(try_one).collect()
        };
        let whole = |detail: String| FieldError::invalid(&at(""), "", detail);
        let any = tried(&schema.any_of);
        if !any.is_empty() && !any.iter().any(Vec::is_empty) {
            errors.push(whole(format!("{path:?} must validate at least one schema (anyOf)")));
            errors.extend(any.into_iter().min_by_key(Vec::len).unwrap_or_default());
        }
        let one = tried(&schema.one_of);
        if !one.is_empty() {
            let fit = one.iter().filter(|errors| errors.is_empty()).count();
            let text = format!("{path:?} must validate one and only one schema (oneOf).");
            match fit {
                1 => {}
                0 => {
                    errors.push(whole(format!("{text} Found none valid")));
                    errors.extend(one.into_iter().min_by_key(Vec::len).unwrap_or_default());
                }
                fit => errors.push(whole(format!("{text} Found {fit} valid alternatives"))),
            }
        }
        let all = tried(&schema.all_of);
        let fit = all.iter().filter(|errors| errors.is_empty()).count();
        if fit < all.len() {
            let more = if fit == 0 { ". None validated" } else { "" };
            errors.extend(all.into_iter().flatten());
            errors.push(whole(format!("{path:?} must validate all the schemas (allOf){more}")));
        }
        if let Some(not) = &schema.not {
            let mut found = Vec::new();
            inner.value(not, value, old, path, &mut found);
            if found.is_empty() {
                errors.push(whole(format!("{path:?} must not validate the schema (not)")));
            }
        }
    }

    fn items(
        &self,
        schema: &Schema,
        items: &[Value],
        old: Option<&Value>,
        path: &str,
        errors: &mut Vec<FieldError>,
    ) {
        check_count(schema.item_count, items.len(), "items", path, errors);
        let Some(known) = &schema.items else { return };
        for (i, item) in items.iter().enumerate() {
            let before = same_item(&schema.list, item, old);
            self.value(known, item, before, &format!("{path}[{i}]"), errors);
        }
    }

    fn fields(
        &self,
        schema: &Schema,
        fields: &Map<String, Value>,
        old: Option<&Value>,
        path: &str,
        errors: &mut Vec<FieldError>,
    ) {
        check_count(schema.property_count, fields.len(), "properties", path, errors);
        for name in schema.required.iter().filter(|name| !fields.contains_key(*name)) {
            errors.push(FieldError::required(&at(&child(path, name)), ""));
        }
        for (name, value) in fields {
            let implied = (self.top || schema.embedded)
                && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
            let (path, old) = (child(path, name), old.and_then(|old| old.get(name)));
            match schema.properties.get(name) {
                // Metadata has rules of its own; what else is said of its name holds as well.
                Some(known) => Self { top: false }.value(known, value, old, &path, errors),
                None if implied => {}
                None => match &schema.additional {
                    Additional::Of(known) => {
                        Self { top: false }.value(known, value, old, &path, errors);
                    }
                    Additional::Forbidden => {
                        let text = format!("{path} in body is a forbidden property");
                        errors.push(FieldError::invalid(&at(&path), "", text));
                    }
                    Additional::Unsaid | Additional::Any => {}
                },
            }
        }
    }
}

/// How many items or properties there are, held against the least and the most.
fn check_count(
    (least, most): (Option<u64>, Option<u64>),
    found: usize,
    what: &str,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let count = found as u64;
    if let Some(least) = least.filter(|least| count < *least) {
        let detail = format!("{path} in body should have at least {least} {what}");
        errors.push(FieldError::invalid(&at(path), count, detail));
    }
    if let Some(most) = most.filter(|most| count > *most) {
        errors.push(too_many(path, found, most));
    }
}

fn too_many(path: &str, found: usize, most: u64) -> FieldError {
    FieldError::too_many(&at(path), found, usize::try_from(most).unwrap_or(usize::MAX))
}

/// A text plain, everything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether two values are the same: numbers by what they are, however they are written.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, a)| b.get(k).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// The type that a value should have and has not.
fn wrong_type(schema: &Schema, value: &Value) -> Option<&'static str> {
    if schema.int_or_string {
        let fits = value.is_string() || is_integer(value);
        return (!fits).then_some("integer,string");
    }
    let fits = match schema.kind {
        Type::Any => true,
        Type::Array => value.is_array(),
        Type::Boolean => value.is_boolean(),
        Type::Integer => is_integer(value),
        Type::Number => value.is_number(),
        Type::Object => value.is_object(),
        Type::String => value.is_string(),
    };
    (!fits).then_some(schema.kind.name())
}

fn is_integer(value: &Value) -> bool {
    let whole = |number: f64| number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_991.0;
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(whole)
}

fn string(schema: &Schema, text: &str, path: &str, errors: &mut Vec<FieldError>) {
    let place = at(path);
    let length = text.chars().count() as u64;
    let (least, most) = schema.length;
    if let Some(most) = most.filter(|most| length > *most) {
        errors.push(FieldError::too_long(&place, usize::try_from(most).unwrap_or(usize::MAX)));
    }
    if let Some(least) = least.filter(|least| length < *least) {
        let detail = format!("{path} in body should be at least {least} chars long");
        errors.push(FieldError::invalid(&place, text, detail));
    }
    if let Some(pattern) = schema.pattern.as_ref().filter(|p| !p.regex.is_match(text)) {
        let detail = format!("{path} in body should match '{}'", pattern.text);
        errors.push(FieldError::invalid(&place, text, detail));
    }
    if !formats::fits(&schema.format, text) {
        let format = &schema.format;
        let quoted = crate::field::quoted(text);
        let detail = format!("{path} in body must be of type {format}: {quoted}");
        errors.push(FieldError::type_invalid(&place, text, detail));
    }
}

fn number_of(
    schema: &Schema,
    value: &Value,
    number: Option<f64>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let Some(number) = number else { return };
    let mut say = |text: String| {
        let detail = format!("{path} in body should be {text}");
        errors.push(FieldError::invalid(&at(path), value.clone(), detail));
    };
    if let Some(of) = schema.multiple_of {
        let times = number / of;
        if (times - times.round()).abs() > f64::EPSILON * times.abs().max(1.0) {
            say(format!("a multiple of {}", printed(of)));
        }
    }
    match (schema.maximum, schema.exclusive_maximum) {
        (Some(most), true) if number >= most => say(format!("less than {}", printed(most))),
        (Some(most), false) if number > most => {
            say(format!("less than or equal to {}", printed(most)));
        }
        _ => {}
    }
    match (schema.minimum, schema.exclusive_minimum) {
        (Some(least), true) if number <= least => say(format!("greater than {}", printed(least))),
        (Some(least), false) if number < least => {
            say(format!("greater than or equal to {}", printed(least)));
        }
        _ => {}
    }
}

/// That an object inside of one says what it is.
fn embedded(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    if errors.len() >= ERRORS_MAX || old == Some(value) {
        return;
    }
    match value {
        Value::Object(fields) => {
            if schema.embedded {
                for key in ["apiVersion", "kind"] {
                    let place = at(&child(path, key));
                    let said = fields.get(key).and_then(Value::as_str).unwrap_or_default();
                    if said.is_empty() {
                        errors.push(FieldError::required(&place, "must not be empty"));
                    } else if key == "kind" {
                        for wrong in super::kind_name(said) {
                            let prefix = "may have mixed case, but should otherwise match: ";
                            errors.push(FieldError::invalid(
                                &place,
                                said,
                                format!("{prefix}{wrong}"),
                            ));
                        }
                    }
                }
            }
            for (name, inner) in fields {
                if let Some(known) = schema.field(name) {
                    let before = old.and_then(|old| old.get(name));
                    embedded(known, inner, before, &child(path, name), errors);
                }
            }
        }
        Value::Array(items) => {
            let Some(known) = &schema.items else { return };
            for (i, item) in items.iter().enumerate() {
                let before = same_item(&schema.list, item, old);
                embedded(known, item, before, &format!("{path}[{i}]"), errors);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What an item was before: the one with the same keys, or an equal one.
pub(super) fn same_item<'a>(
    list: &Items,
    item: &Value,
    old: Option<&'a Value>,
) -> Option<&'a Value> {
    let mut old = old?.as_array()?.iter();
    match list {
        Items::Map(keys) => old.find(|old| keys.iter().all(|key| old.get(key) == item.get(key))),
        Items::Set | Items::Atomic => old.find(|old| *old == item),
    }
}

/// That no two items of a list are the same, where the schema says that they are told apart.
fn unique(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    if errors.len() >= ERRORS_MAX || old == Some(value) {
        return;
    }
    match value {
        Value::Array(items) => {
            let mut seen = BTreeSet::new();
            for (i, item) in items.iter().enumerate() {
                let place = format!("{path}[{i}]");
                let named = match &schema.list {
                    Items::Atomic => None,
                    Items::Set => Some(item.clone()),
                    Items::Map(keys) => item.as_object().map(|fields| {
                        let named =
                            keys.iter().filter_map(|k| Some((k.clone(), fields.get(k)?.clone())));
                        Value::Object(named.collect())
                    }),
                };
                if let Some(named) = named
                    && !seen.insert(named.to_string())
                {
                    errors.push(FieldError::duplicate(&at(&place), named));
                }
                if let Some(known) = &schema.items {
                    let before = same_item(&schema.list, item, old);
                    unique(known, item, before, &place, errors);
                }
            }
        }
        Value::Object(fields) => {
            for (name, inner) in fields {
                if let Some(known) = schema.field(name) {
                    let before = old.and_then(|old| old.get(name));
                    unique(known, inner, before, &child(path, name), errors);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
