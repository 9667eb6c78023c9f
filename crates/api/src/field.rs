//! Field errors: path, type and text as upstream prints them (VAL-2…VAL-6).

use serde_json::Value;
use std::{fmt, sync::Arc};

/// What is wrong with a field; the variant decides `cause.reason` and the first words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    /// `Required value`
    Required,
    /// `Invalid value`
    Invalid,
    /// `Invalid value` of the wrong JSON type
    TypeInvalid,
    /// `Duplicate value`
    Duplicate,
    /// `Unsupported value`
    NotSupported,
    /// `Not found`
    NotFound,
    /// `Forbidden`
    Forbidden,
    /// `Too long`
    TooLong,
    /// `Too many`
    TooMany,
    /// `Internal error`
    Internal,
}

impl ErrorType {
    /// `cause.reason`
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotSupported => "FieldValueNotSupported",
            Self::NotFound => "FieldValueNotFound",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::Duplicate => "Duplicate value",
            Self::NotSupported => "Unsupported value",
            Self::NotFound => "Not found",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    const fn prints_value(self) -> bool {
        match self {
            Self::Required | Self::Forbidden | Self::TooLong | Self::Internal => false,
            Self::Invalid
            | Self::TypeInvalid
            | Self::Duplicate
            | Self::NotSupported
            | Self::NotFound
            | Self::TooMany => true,
        }
    }
}

/// One error of one field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Which rule it breaks.
    pub kind: ErrorType,
    /// Such as `spec.containers[0].image`.
    pub field: String,
    /// Printed for the types that print it (VAL-4). Shared: many errors may blame one large value.
    pub bad_value: Option<Arc<Value>>,
    /// The rest of the message; may be empty.
    pub detail: String,
}

impl FieldError {
    /// Without a value.
    pub fn required(path: &Path, detail: &str) -> Self {
        Self {
            kind: ErrorType::Required,
            field: path.to_string(),
            bad_value: None,
            detail: detail.to_owned(),
        }
    }

    /// With the value that breaks a rule.
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self {
            kind: ErrorType::Invalid,
            field: path.to_string(),
            bad_value: Some(Arc::new(value.into())),
            detail: detail.into(),
        }
    }

    /// The same, for a value that many errors blame: a copy for each would be too much.
    pub fn invalid_shared(path: &Path, value: &Arc<Value>, detail: &str) -> Self {
        Self { bad_value: Some(Arc::clone(value)), ..Self::invalid_as_a_whole(path, detail) }
    }

    /// Where no single value is to blame: nothing is printed of it.
    pub fn invalid_as_a_whole(path: &Path, detail: impl Into<String>) -> Self {
        Self { kind: ErrorType::Invalid, ..Self::forbidden(path, detail) }
    }

    /// A value that is there already.
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self {
            kind: ErrorType::Duplicate,
            field: path.to_string(),
            bad_value: Some(Arc::new(value.into())),
            detail: String::new(),
        }
    }

    /// A value that names nothing.
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self { kind: ErrorType::NotFound, ..Self::duplicate(path, value) }
    }

    /// A value outside an enumeration.
    pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| quoted(s)).collect();
        Self {
            kind: ErrorType::NotSupported,
            field: path.to_string(),
            bad_value: Some(Arc::new(value.into())),
            detail: format!("supported values: {}", list.join(", ")),
        }
    }

    /// A field that may not be set or changed.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self {
            kind: ErrorType::Forbidden,
            field: path.to_string(),
            bad_value: None,
            detail: detail.into(),
        }
    }

    /// More bytes than allowed.
    pub fn too_long(path: &Path, bytes_max: usize) -> Self {
        let detail = format!("may not be more than {bytes_max} bytes");
        Self { kind: ErrorType::TooLong, ..Self::forbidden(path, detail) }
    }

    /// A value of another JSON type than the field's.
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { kind: ErrorType::TypeInvalid, ..Self::invalid(path, value, detail) }
    }

    /// More entries than allowed.
    pub fn too_many(path: &Path, found: usize, items_max: usize) -> Self {
        Self {
            kind: ErrorType::TooMany,
            field: path.to_string(),
            bad_value: Some(Arc::new(found.into())),
            detail: format!("must have at most {items_max} items"),
        }
    }

    /// A check that could not be made.
    pub fn internal(path: &Path, error: impl fmt::Display) -> Self {
        Self { kind: ErrorType::Internal, ..Self::forbidden(path, error.to_string()) }
    }

    /// The message without the field: what a cause shows.
    #[must_use]
    pub fn body(&self) -> String {
        let mut body = self.kind.text().to_owned();
        if let Some(value) = self.bad_value.as_ref().filter(|_| self.kind.prints_value()) {
            body.push_str(": ");
            body.push_str(&printed(value));
        }
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// Strings in quotes, numbers plain, everything else as JSON.
fn printed(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// As Go's `%q`, which is neither JSON's nor Rust's escaping.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            ' '..='~' => out.push(c),
            '\0'..='\x7f' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if is_printable(c) => out.push(c),
            '\u{80}'..='\u{ffff}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// A letter, mark, number, punctuation or symbol. Behind another character Rust escapes exactly what
/// is none of these.
fn is_printable(c: char) -> bool {
    !format!("a{c}").escape_debug().any(|c| c == '\\')
}

/// Where in an object: `spec.containers[0].resources.limits[cpu]` (VAL-3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A field of the object itself.
    #[must_use]
    pub fn new(root: &str) -> Self {
        Self(root.to_owned())
    }

    /// A field of this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self(format!("{}.{name}", self.0))
    }

    /// An element of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// An entry of this map.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_quoted_as_go_quotes_them() {
        // VAL-4
        for (text, want) in [
            ("plain", r#""plain""#),
            ("a\"b\\", r#""a\"b\\""#),
            ("\u{7}\u{8}\t\n\u{b}\u{c}\r", r#""\a\b\t\n\v\f\r""#),
            ("\u{1}\u{7f}", r#""\x01\x7f""#),
            ("ü é", "\"ü é\""),
            ("e\u{301}", "\"e\u{301}\""),
            ("\u{a0}\u{200b}", r#""\u00a0\u200b""#),
            ("\u{e0001}", r#""\U000e0001""#),
            ("日本", "\"日本\""),
        ] {
            assert_eq!(quoted(text), want);
        }
    }

    #[test]
    fn an_error_prints_its_value_if_its_type_does() {
        // VAL-3, VAL-4
        let path = Path::new("spec").child("list").index(0).child("map").key("k/v");
        for (error, want) in [
            (FieldError::required(&path, ""), "Required value"),
            (FieldError::required(&path, "why"), "Required value: why"),
            (FieldError::invalid(&path, -1, "why"), "Invalid value: -1: why"),
            (FieldError::invalid(&path, true, "why"), "Invalid value: true: why"),
            (
                FieldError::invalid(&path, json!({"a": [1]}), "why"),
                "Invalid value: {\"a\":[1]}: why",
            ),
            (FieldError::invalid_as_a_whole(&path, "why"), "Invalid value: why"),
            (FieldError::type_invalid(&path, "x", "why"), "Invalid value: \"x\": why"),
            (FieldError::duplicate(&path, "x"), "Duplicate value: \"x\""),
            (FieldError::not_found(&path, "x"), "Not found: \"x\""),
            (
                FieldError::not_supported(&path, "x", &["a", "b"]),
                "Unsupported value: \"x\": supported values: \"a\", \"b\"",
            ),
            (FieldError::forbidden(&path, "why"), "Forbidden: why"),
            (FieldError::too_long(&path, 9), "Too long: may not be more than 9 bytes"),
            (FieldError::too_many(&path, 9, 3), "Too many: 9: must have at most 3 items"),
            (FieldError::internal(&path, "why"), "Internal error: why"),
        ] {
            assert_eq!(error.to_string(), format!("spec.list[0].map[k/v]: {want}"));
        }
    }
}
