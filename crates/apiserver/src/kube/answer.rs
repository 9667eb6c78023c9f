//! Bodies in and out: JSON, YAML or protobuf in, JSON or a table out.

use super::{BODY_BYTES_MAX, Query};
use api::{
    kinds::Kind,
    status::Status,
    table::{IncludeObject, table},
};
use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::{Value, json};

/// What the client wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Object,
    Table(IncludeObject),
}

impl Format {
    pub(super) fn of(request: &Request, query: &Query) -> Self {
        let accept = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok());
        let wants_table = accept
            .unwrap_or_default()
            .split(',')
            .next()
            .is_some_and(|first| first.contains("as=Table") && first.contains("g=meta.k8s.io"));
        if !wants_table {
            return Self::Object;
        }
        Self::Table(match query.get("includeObject").map(String::as_str) {
            Some("Object") => IncludeObject::Object,
            Some("None") => IncludeObject::None,
            _ => IncludeObject::Metadata,
        })
    }
}

pub(super) fn json(code: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = code;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

pub(super) fn failure(status: &Status) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, &status.to_json());
    if matches!(status.code, 429 | 503) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

pub(super) fn object_answer(
    code: StatusCode,
    kind: &Kind,
    object: &Value,
    format: Format,
    now: i64,
) -> Response {
    match format {
        Format::Object => json(code, object),
        Format::Table(include) => {
            let version = api::meta::resource_version(object);
            let list_meta = json!({"resourceVersion": version});
            json(code, &table(kind, [object], include, list_meta, now))
        }
    }
}

/// What an object may be sent in.
const OBJECT_TYPES: &str =
    "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The body as JSON; null when there is none.
///
/// # Errors
/// 415 for a content type that is none of [`OBJECT_TYPES`] or of the patches, which are JSON or YAML; no
/// content type says JSON.
pub(super) async fn body_json(request: Request) -> Result<Value, Status> {
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let bytes = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX)
        .await
        .map_err(|_| Status::too_large(&format!("limit is {BODY_BYTES_MAX}")))?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    match content_type.as_str() {
        "" | "application/json" => json_of(&bytes),
        "application/yaml" => yaml_of(&bytes),
        "application/vnd.kubernetes.protobuf" => {
            protobuf::to_json(&bytes).map_err(|error| Status::bad_request(error.to_string()))
        }
        patch if patch.ends_with("+json") => json_of(&bytes),
        patch if patch.ends_with("+yaml") => yaml_of(&bytes),
        _ => Err(Status::unsupported_media_type(OBJECT_TYPES)),
    }
}

fn json_of(bytes: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(bytes)
        .map_err(|e| Status::bad_request(format!("error parsing JSON: {e}")))
}

fn yaml_of(bytes: &[u8]) -> Result<Value, Status> {
    serde_yaml_ng::from_slice(bytes)
        .map_err(|e| Status::bad_request(format!("error parsing YAML: {e}")))
}
