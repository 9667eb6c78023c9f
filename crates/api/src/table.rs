//! Table columns and cells, ages and durations as kubectl prints them (TAB-1…TAB-5).

use crate::{kinds::Kind, meta};
use serde_json::{Value, json};

/// One column of a kind's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Heading, such as `Ready`.
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    pub kind: &'static str,
    /// Such as `name`; mostly empty.
    pub format: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
}

/// What of each object a table carries beside the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// `PartialObjectMetadata`
    #[default]
    Metadata,
    /// All of it.
    Object,
    /// Nothing.
    None,
}

/// `meta.k8s.io/v1` Table of these objects at `now`, in seconds since the Unix epoch.
#[must_use]
pub fn table<'a>(
    kind: &Kind,
    objects: impl IntoIterator<Item = &'a Value>,
    include: IncludeObject,
    list_meta: Value,
    now: i64,
) -> Value {
    let columns = kind.column_definitions();
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| {
            let mut row = json!({"cells": kind.row(object, now)});
            let shown = match include {
                IncludeObject::Object => Some(object.clone()),
                IncludeObject::None => None,
                IncludeObject::Metadata => Some(json!({
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                    "metadata": object.get("metadata"),
                })),
            };
            let ended = kind.is("Pod").then(|| crate::pod::row_condition(object)).flatten();
            if let Some(row) = row.as_object_mut() {
                if let Some(ended) = ended {
                    row.insert("conditions".to_owned(), json!([ended]));
                }
                if let Some(shown) = shown {
                    row.insert("object".to_owned(), shown);
                }
            }
            row
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_meta,
           "columnDefinitions": columns, "rows": rows})
}

/// Time since `metadata.creationTimestamp`.
#[must_use]
pub fn age(object: &Value, now: i64) -> String {
    since(object.pointer("/metadata/creationTimestamp"), now)
}

/// `metadata.creationTimestamp` itself, for kinds whose column says so.
#[must_use]
pub fn created_at(object: &Value) -> String {
    let time = object.pointer("/metadata/creationTimestamp").and_then(Value::as_str);
    time.unwrap_or("<unknown>").to_owned()
}

/// Time since an RFC 3339 time.
#[must_use]
pub fn since(time: Option<&Value>, now: i64) -> String {
    match time.and_then(Value::as_str).and_then(meta::parse_time) {
        None => "<unknown>".to_owned(),
        Some(then) => duration(now - then),
    }
}

/// A duration in seconds (TAB-5).
#[must_use]
pub fn duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let s = seconds.max(0);
    let (m, h, d) = (s / 60, s / 3600, s / 86_400);
    let y = d / 365;
    let pair = |a: i64, unit_a: &str, b: i64, unit_b: &str| {
        if b == 0 { format!("{a}{unit_a}") } else { format!("{a}{unit_a}{b}{unit_b}") }
    };
    if s < 120 {
        format!("{s}s")
    } else if m < 10 {
        pair(m, "m", s % 60, "s")
    } else if h < 3 {
        format!("{m}m")
    } else if h < 8 {
        pair(h, "h", m % 60, "m")
    } else if h < 48 {
        format!("{h}h")
    } else if d < 8 {
        pair(d, "d", h % 24, "h")
    } else if y < 2 {
        format!("{d}d")
    } else if y < 8 {
        pair(y, "y", d % 365, "d")
    } else {
        format!("{y}y")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_printed_as_kubectl_prints_them() {
        // TAB-5
        for (seconds, want) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600 + 60, "3h1m"),
            (8 * 3600, "8h"),
            (48 * 3600, "2d"),
            (50 * 3600, "2d2h"),
            (9 * 86_400, "9d"),
            (800 * 86_400, "2y70d"),
            (3000 * 86_400, "8y"),
        ] {
            assert_eq!(duration(seconds), want, "{seconds}");
        }
    }
}
