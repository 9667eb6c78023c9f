//! `Status` objects: every error that leaves the API server, and the codes they travel under.

use crate::{field::FieldError, kinds::Kind};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Errors of one object that a [`Status`] tells; of the others it says how many there are.
pub(crate) const CAUSES_MAX: usize = 100;
/// No further error is told after this much has been: each may print a value as large as the object.
const CAUSES_BYTES_MAX: usize = 1 << 20;

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
    /// `metadata.continue`: how to go on with a list all the same; empty but for LST-3.
    pub continue_token: String,
}

impl Status {
    /// Any failure without details.
    #[must_use]
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.to_owned(),
            message: message.into(),
            details: Value::Null,
            continue_token: String::new(),
        }
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
        if let (Some(status), false) = (status.as_object_mut(), self.continue_token.is_empty()) {
            status.insert("metadata".to_owned(), json!({"continue": self.continue_token}));
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
            continue_token: value
                .pointer("/metadata/continue")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
        })
    }

    /// What a delete of most kinds answers.
    #[must_use]
    pub fn success(kind: &Kind, name: &str, uid: &str) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": name, "kind": kind.plural, "uid": uid},
        });
        if let (Some(details), false) =
            (status.get_mut("details").and_then(Value::as_object_mut), kind.group.is_empty())
        {
            details.insert("group".to_owned(), kind.group.into());
        }
        status
    }

    /// Adds to `details`, which becomes an object if it is none.
    #[must_use]
    pub fn with_detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        if !self.details.is_object() {
            self.details = json!({});
        }
        if let Some(details) = self.details.as_object_mut() {
            details.insert(key.to_owned(), value.into());
        }
        self
    }

    /// Adds one of `details.causes`.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let mut causes = self.details.get("causes").cloned().unwrap_or_else(|| json!([]));
        let mut cause = json!({"reason": reason, "message": message});
        if let (Some(cause), false) = (cause.as_object_mut(), field.is_empty()) {
            cause.insert("field".to_owned(), field.into());
        }
        if let Some(causes) = causes.as_array_mut() {
            causes.push(cause);
        }
        self = self.with_detail("causes", causes);
        self
    }

    /// How long to wait before another try; also the `Retry-After` header.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.details.get("retryAfterSeconds").and_then(Value::as_u64)
    }

    /// Whether a cause gives this reason, such as `NamespaceTerminating`.
    #[must_use]
    pub fn has_cause(&self, reason: &str) -> bool {
        let causes = self.details.get("causes").and_then(Value::as_array);
        causes.into_iter().flatten().any(|c| c.get("reason").is_some_and(|r| r == reason))
    }

    /// 422 with every cause (VAL-1, VAL-2), as far as there are not more than anybody reads.
    #[must_use]
    pub fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        Self::invalid_named(kind.group, kind.kind, name, errors)
    }

    /// The same for a kind that is not stored, such as `Scale`; `group` is empty for core.
    #[must_use]
    pub fn invalid_named(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let title = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let status = Self::with_errors(&title, name, errors).with_detail("kind", kind);
        if group.is_empty() { status } else { status.with_detail("group", group) }
    }

    /// The same for what is no object: options, or a virtual kind such as `Binding`.
    #[must_use]
    pub fn invalid_options(kind: &str, errors: &[FieldError]) -> Self {
        Self::with_errors(kind, "", errors).with_detail("kind", kind)
    }

    fn with_errors(title: &str, name: &str, errors: &[FieldError]) -> Self {
        let (mut seen, mut texts, mut causes) = (BTreeSet::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        for error in errors {
            if causes.len() == CAUSES_MAX || bytes > CAUSES_BYTES_MAX {
                break;
            }
            let body = error.body();
            let text = format!("{}: {body}", error.field);
            bytes += text.len();
            causes.push(
                json!({"reason": error.kind.reason(), "message": body, "field": error.field}),
            );
            if seen.insert(text.clone()) {
                texts.push(text);
            }
        }
        let untold = errors.len() - causes.len();
        if untold > 0 {
            texts.push(format!("and {untold} more errors"));
        }
        let list = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut status =
            Self::new(422, "Invalid", format!("{title} \"{name}\" is invalid: {list}"));
        if !name.is_empty() {
            status = status.with_detail("name", name);
        }
        status.with_detail("causes", causes)
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

    /// 409 after as many generated names as are tried were all taken (MET-2).
    #[must_use]
    pub fn no_unique_name(kind: &Kind, name: &str) -> Self {
        let mut status = Self::already_exists(kind, name, false);
        status
            .message
            .push_str(", the server was not able to generate a unique name for the object");
        status.with_detail("retryAfterSeconds", 1)
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

    /// 400 for an object of this name at the path of another one (MET-3).
    #[must_use]
    pub fn other_name(own: &str, name: &str) -> Self {
        Self::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        ))
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

    /// 403 for content in a namespace that is on its way out.
    #[must_use]
    pub fn namespace_terminating(kind: &Kind, name: &str, namespace: &str) -> Self {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let cause = format!("namespace {namespace} is being terminated");
        Self::forbidden(kind, name, &why).with_cause(
            "NamespaceTerminating",
            &cause,
            "metadata.namespace",
        )
    }

    /// 401
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 405
    #[must_use]
    pub fn method_not_allowed(kind: &Kind, action: &str) -> Self {
        let message =
            format!("{action} is not supported on resources of kind \"{}\"", kind.resource());
        Self::new(405, "MethodNotAllowed", message)
    }

    /// 406
    #[must_use]
    pub fn not_acceptable(offered: &str) -> Self {
        let message = format!("only the following media types are accepted: {offered}");
        Self::new(406, "NotAcceptable", message)
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

    /// 410 for a watch from before what is kept: an ERROR event, not an HTTP status (WCH-2).
    #[must_use]
    pub fn too_old_resource_version(requested: u64, oldest_kept: u64) -> Self {
        let before = oldest_kept.saturating_sub(1);
        Self::expired(format!("too old resource version: {requested} ({before})"))
    }

    /// 410 for the next page of a list whose revision is no longer kept (LST-3); `rest` is the token for
    /// the rest of the list as it is now.
    #[must_use]
    pub fn continue_expired(rest: String) -> Self {
        let mut status = Self::expired(
            "The provided continue parameter is too old to display a consistent list result. \
             You can start a new list without the continue parameter, or use the continue token in \
             this response to retrieve the remainder of the results. Continuing with the provided \
             token results in an inconsistent list - objects that were created, modified, or deleted \
             between the time the first chunk was returned and now may show up in the list.",
        );
        status.continue_token = rest;
        status
    }

    /// 410 for a list at a revision that is no longer kept (LST-3).
    #[must_use]
    pub fn list_expired() -> Self {
        Self::expired("The resourceVersion for the provided list is too old.")
    }

    /// 429
    #[must_use]
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u64) -> Self {
        Self::new(429, "TooManyRequests", message)
            .with_detail("retryAfterSeconds", retry_after_seconds)
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
        matches!(self.code, 429 | 503) || self.reason == "ServerTimeout"
    }

    /// Whether it was done is not known (FEN-31): read before another try.
    #[must_use]
    pub fn is_unknown_outcome(&self) -> bool {
        self.code == 504 && !self.has_cause("ResourceVersionTooLarge")
    }

    /// 422
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.code == 422
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{field::Path, kinds::by_alias};

    #[test]
    fn messages_and_details_are_upstreams() {
        // §2.3
        let (pods, leases) = (by_alias("po").unwrap(), by_alias("leases").unwrap());
        for (status, code, reason, message, details) in [
            (
                Status::not_found(pods, "p"),
                404,
                "NotFound",
                "pods \"p\" not found",
                json!({"name": "p", "kind": "pods"}),
            ),
            (
                Status::not_found(leases, "l"),
                404,
                "NotFound",
                "leases.coordination.k8s.io \"l\" not found",
                json!({"name": "l", "kind": "leases", "group": "coordination.k8s.io"}),
            ),
            (
                Status::already_exists(pods, "p", true),
                409,
                "AlreadyExists",
                "object is being deleted: pods \"p\" already exists",
                json!({"name": "p", "kind": "pods"}),
            ),
            (
                Status::no_unique_name(pods, "p-1"),
                409,
                "AlreadyExists",
                "pods \"p-1\" already exists, the server was not able to generate a unique name for the object",
                json!({"name": "p-1", "kind": "pods", "retryAfterSeconds": 1}),
            ),
            (
                Status::modified(pods, "p"),
                409,
                "Conflict",
                "Operation cannot be fulfilled on pods \"p\": the object has been modified; please apply \
              your changes to the latest version and try again",
                json!({"name": "p", "kind": "pods"}),
            ),
            (
                Status::forbidden(pods, "p", "why"),
                403,
                "Forbidden",
                "pods \"p\" is forbidden: why",
                json!({"name": "p", "kind": "pods"}),
            ),
            (Status::unauthorized(), 401, "Unauthorized", "Unauthorized", Value::Null),
            (
                Status::method_not_allowed(leases, "patch"),
                405,
                "MethodNotAllowed",
                "patch is not supported on resources of kind \"leases.coordination.k8s.io\"",
                Value::Null,
            ),
            (
                Status::too_old_resource_version(5, 10),
                410,
                "Expired",
                "too old resource version: 5 (9)",
                Value::Null,
            ),
            (
                Status::timeout("why"),
                504,
                "Timeout",
                "Timeout: request did not complete within requested timeout - why",
                Value::Null,
            ),
            (
                Status::too_many_requests("slow", 3),
                429,
                "TooManyRequests",
                "slow",
                json!({"retryAfterSeconds": 3}),
            ),
        ] {
            let json = status.to_json();
            assert_eq!(
                (json["code"].as_u64(), json["reason"].as_str(), json["message"].as_str()),
                (Some(code), Some(reason), Some(message))
            );
            assert_eq!(status.details, details, "{message}");
            assert_eq!(Status::from_json(&json), Some(status));
        }
    }

    #[test]
    fn equal_errors_are_said_once_but_all_are_causes() {
        // VAL-2
        let error = FieldError::required(&Path::new("spec"), "");
        let leases = by_alias("leases").unwrap();
        let status = Status::invalid(leases, "l", &[error.clone(), error]);
        assert_eq!(
            status.message,
            "Lease.coordination.k8s.io \"l\" is invalid: spec: Required value"
        );
        assert_eq!(status.details["kind"], "Lease");
        assert_eq!(status.details["group"], "coordination.k8s.io");
        assert_eq!(status.details["causes"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn an_expired_list_says_how_to_go_on() {
        // LST-3
        let status = Status::continue_expired("token".to_owned());
        let json = status.to_json();
        assert_eq!(json["metadata"]["continue"], "token");
        assert_eq!(Status::from_json(&json), Some(status));
        assert_eq!(Status::list_expired().to_json()["metadata"], json!({}));
    }

    #[test]
    fn more_errors_than_anybody_reads_are_counted() {
        // VAL-2, VAL-5
        let leases = by_alias("leases").unwrap();
        let path = Path::new("spec");
        let many = |n: usize, value: &str| {
            let error = |i| FieldError::invalid(&path.index(i), value, "");
            Status::invalid(leases, "l", &(0..n).map(error).collect::<Vec<_>>())
        };
        let causes = |status: &Status| status.details["causes"].as_array().unwrap().len();
        let all = many(CAUSES_MAX, "x");
        assert_eq!(causes(&all), CAUSES_MAX);
        assert!(all.message.ends_with("spec[99]: Invalid value: \"x\"]"), "{}", all.message);
        let more = many(200_000, "x");
        assert_eq!(causes(&more), CAUSES_MAX);
        assert!(more.message.ends_with("and 199900 more errors]"), "{}", more.message);
        let large = many(50, &"x".repeat(400_000));
        assert_eq!(causes(&large), 3);
        assert!(large.message.ends_with("and 47 more errors]"));
    }

    #[test]
    fn an_unknown_outcome_is_neither_failure_nor_worth_a_blind_retry() {
        // FEN-31
        assert!(Status::timeout("no leader").is_unknown_outcome());
        assert!(!Status::timeout("no leader").is_retryable());
        assert!(!Status::too_large_resource_version(2, 1).is_unknown_outcome());
        assert!(Status::unavailable("no leader").is_retryable());
    }
}
