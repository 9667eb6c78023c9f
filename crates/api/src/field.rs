//! Field errors: path, type and text as upstream prints them (VAL-2…VAL-6).

use serde_json::Value;

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
