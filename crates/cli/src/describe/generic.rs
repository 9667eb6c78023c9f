//! Any object: its fields as they are, under names that read well.

use super::text::{Text, at, plain};
use api::meta;
use serde_json::Value;

/// Shown at the top, or of no use to a reader.
const LEFT_OUT: &[&str] =
    &["name", "namespace", "labels", "annotations", "managedFields", "selfLink", "generateName"];

pub(super) fn describe(text: &mut Text, object: &Value) {
    text.field("Name", meta::name(object));
    text.field("Namespace", meta::namespace(object));
    text.map("Labels", object.pointer("/metadata/labels"), "=");
    text.map("Annotations", object.pointer("/metadata/annotations"), ": ");
    text.field("API Version", &at(object, "/apiVersion"));
    text.field("Kind", &at(object, "/kind"));
    let secret = at(object, "/kind") == "Secret";
    for (key, value) in object.as_object().into_iter().flatten() {
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                text.heading("Metadata");
                for (key, value) in value.as_object().into_iter().flatten() {
                    if !LEFT_OUT.contains(&key.as_str()) {
                        field(text, 1, &readable(key), value);
                    }
                }
            }
            // Keys are data, and what is secret is not for a screen.
            "data" | "binaryData" => {
                text.heading(&readable(key));
                for (key, value) in value.as_object().into_iter().flatten() {
                    if secret {
                        let bytes = plain(value).trim_end_matches('=').len() * 3 / 4;
                        text.field_at(1, key, &format!("{bytes} bytes"));
                    } else {
                        field(text, 1, key, value);
                    }
                }
            }
            key => field(text, 0, &readable(key), value),
        }
    }
}

fn field(text: &mut Text, level: usize, name: &str, value: &Value) {
    match value {
        Value::Object(fields) if fields.is_empty() => text.heading_at(level, name),
        Value::Object(fields) => {
            text.heading_at(level, name);
            fields.iter().for_each(|(key, value)| field(text, level + 1, &readable(key), value));
        }
        Value::Array(items) if items.is_empty() => text.heading_at(level, name),
        Value::Array(items) => {
            text.heading_at(level, name);
            for item in items {
                match item.as_object() {
                    Some(fields) => fields
                        .iter()
                        .for_each(|(key, value)| field(text, level + 1, &readable(key), value)),
                    None => text.row(level + 1, [plain(item).as_str()]),
                }
            }
        }
        Value::String(lines) if lines.contains('\n') => {
            text.heading_at(level, name);
            lines.lines().for_each(|line| text.row(level + 1, [line]));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.field_at(level, name, &plain(value));
        }
    }
}

/// `creationTimestamp` as `Creation Timestamp`; what is no such word stays.
fn readable(key: &str) -> String {
    if !key.chars().all(char::is_alphanumeric) {
        return key.to_owned();
    }
    let mut words = String::new();
    let mut before = ' ';
    for letter in key.chars() {
        if words.is_empty() {
            words.extend(letter.to_uppercase());
        } else {
            if letter.is_uppercase() && !before.is_uppercase() {
                words.push(' ');
            }
            words.push(letter);
        }
        before = letter;
    }
    if words == "Uid" { "UID".to_owned() } else { words }
}
