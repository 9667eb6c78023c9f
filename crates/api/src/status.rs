//! `Status` objects: every error that leaves the API server, and the codes they travel under.

use crate::{field::FieldError, kinds::Kind};
use serde_json::{Value, json};

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
    /// Any failure without details.
    #[must_use]
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self { code, reason: reason.to_owned(), message: message.into(), details: Value::Null }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        let mut details = json!({"name": name, "kind": kind.plural});
        if let (Some(details), false) = (details.as_object_mut(), kind.group.is_empty()) {
            details.insert("group".to_owned(), kind.group.into());
        }
        self.details = details;
        self
    }

    /// The JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let (Some(status), false) = (status.as_object_mut(), self.details.is_null()) {
            status.insert("details".to_owned(), self.details.clone());
        }
        status
    }

    /// The reverse of [`Status::to_json`]; `None` for anything but a failure.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        if value.get("kind")?.as_str()? != "Status" || value.get("status")?.as_str()? != "Failure" {
            return None;
        }
        let text =
            |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self {
            code: u16::try_from(value.get("code")?.as_u64()?).ok()?,
            reason: text("reason"),
            message: text("message"),
            details: value.get("details").cloned().unwrap_or_default(),
        })
    }

    /// What a delete of most kinds answers.
    #[must_use]
    pub fn success(kind: &Kind, name: &str, uid: &str) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": name, "kind": kind.plural, "uid": uid},
        })
    }

    /// 422 with every cause (VAL-1, VAL-2).
    #[must_use]
    pub fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for error in errors {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let title = if kind.group.is_empty() {
            kind.kind.to_owned()
        } else {
            format!("{}.{}", kind.kind, kind.group)
        };
        let causes: Vec<Value> = errors
            .iter()
            .map(|e| json!({"reason": e.kind.reason(), "message": e.body(), "field": e.field}))
            .collect();
        let mut status =
            Self::new(422, "Invalid", format!("{title} \"{name}\" is invalid: {list}"))
                .about(kind, name);
        if let Some(details) = status.details.as_object_mut() {
            // Here, and only here, it is the kind and not the resource.
            details.insert("kind".to_owned(), kind.kind.into());
            details.insert("causes".to_owned(), causes.into());
        }
        status
    }

    /// 404
    #[must_use]
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.resource());
        Self::new(404, "NotFound", message).about(kind, name)
    }

    /// 404 for a path that is none.
    #[must_use]
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 409 for a name that is taken.
    #[must_use]
    pub fn already_exists(kind: &Kind, name: &str, terminating: bool) -> Self {
        let prefix = if terminating { "object is being deleted: " } else { "" };
        let message = format!("{prefix}{} \"{name}\" already exists", kind.resource());
        Self::new(409, "AlreadyExists", message).about(kind, name)
    }

    /// 409 for a version that is no longer current (CC-1).
    #[must_use]
    pub fn modified(kind: &Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 with another reason.
    #[must_use]
    pub fn conflict(kind: &Kind, name: &str, detail: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {detail}", kind.resource());
        Self::new(409, "Conflict", message).about(kind, name)
    }

    /// 400
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 403
    #[must_use]
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", kind.resource());
        Self::new(403, "Forbidden", message).about(kind, name)
    }

    /// 405
    #[must_use]
    pub fn method_not_allowed(kind: &Kind, action: &str) -> Self {
        let message =
            format!("{action} is not supported on resources of kind \"{}\"", kind.resource());
        Self::new(405, "MethodNotAllowed", message)
    }

    /// 415
    #[must_use]
    pub fn unsupported_media_type(accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 413
    #[must_use]
    pub fn too_large(detail: &str) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: {detail}"))
    }

    /// 410 for a revision that is no longer kept.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 504 for an outcome that is not known (HTTP-1, FEN-31).
    #[must_use]
    pub fn timeout(cause: &str) -> Self {
        Self::new(
            504,
            "Timeout",
            format!("Timeout: request did not complete within requested timeout - {cause}"),
        )
    }

    /// 504 for a revision that has not happened yet (LST-4).
    #[must_use]
    pub fn too_large_resource_version(requested: u64, current: u64) -> Self {
        let mut status = Self::new(
            504,
            "Timeout",
            format!("Timeout: Too large resource version: {requested}, current: {current}"),
        );
        status.details = json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        });
        status
    }

    /// 503: nothing was done, try again.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        let mut status = Self::new(503, "ServiceUnavailable", message);
        status.details = json!({"retryAfterSeconds": 1});
        status
    }

    /// 500
    #[must_use]
    pub fn internal(error: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {error}"))
    }

    /// 404
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// 409 of a version or precondition.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code == 409 && self.reason == "Conflict"
    }

    /// 409 of a name.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.code == 409 && self.reason == "AlreadyExists"
    }

    /// 410
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.code == 410
    }

    /// Nothing was done and the same request may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.code, 429 | 503)
    }
}
