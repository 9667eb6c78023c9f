//! `Status` objects: every error that leaves the API server, and the codes they travel under.

use crate::{field::FieldError, kinds::Kind};
use serde_json::Value;

/// A failure as the API answers it. The constructors carry upstream's reason and message (§2.3).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Such as `NotFound`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// `details`, or null.
    pub details: Value,
}

impl Status {
    /// The JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": self.details,
            "code": self.code,
        })
    }

    /// 422 with every cause (VAL-1).
    #[must_use]
    pub fn invalid(_kind: &Kind, _name: &str, _errors: &[FieldError]) -> Self {
        unimplemented!()
    }
}
