//! Field errors: path, type and text as upstream prints them (VAL-2…VAL-6).

use serde_json::Value;
use std::fmt;

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
    /// Printed for the types that print it (VAL-4).
    pub bad_value: Option<Value>,
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
            bad_value: Some(value.into()),
            detail: detail.into(),
        }
    }

    /// A value that is there already.
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self {
            kind: ErrorType::Duplicate,
            field: path.to_string(),
            bad_value: Some(value.into()),
            detail: String::new(),
        }
    }

    /// A value that names nothing.
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self { kind: ErrorType::NotFound, ..Self::duplicate(path, value) }
    }

    /// A value outside an enumeration.
    pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        Self {
            kind: ErrorType::NotSupported,
            field: path.to_string(),
            bad_value: Some(value.into()),
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
        Value::String(text) => {
            // Go's %q and JSON differ in how they escape what cannot be printed.
            let mut out = String::from('"');
            for c in text.chars() {
                match c {
                    '"' => out.push_str("\\\""),
                    '\\' => out.push_str("\\\\"),
                    '\n' => out.push_str("\\n"),
                    '\t' => out.push_str("\\t"),
                    '\r' => out.push_str("\\r"),
                    c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
                    c => out.push(c),
                }
            }
            out.push('"');
            out
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
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
