//! Bodies in and out: JSON or YAML in, JSON or a table out.

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

/// The body as JSON; null when there is none.
pub(super) async fn body_json(request: Request) -> Result<Value, Status> {
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let bytes = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX)
        .await
        .map_err(|_| Status::too_large(&format!("limit is {BODY_BYTES_MAX}")))?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    if content_type.contains("yaml") {
        return serde_yaml_ng::from_slice(&bytes)
            .map_err(|e| Status::bad_request(format!("error parsing YAML: {e}")));
    }
    if content_type.contains("protobuf") || content_type.contains("cbor") {
        return Err(Status::unsupported_media_type("application/json, application/yaml"));
    }
    serde_json::from_slice(&bytes)
        .map_err(|e| Status::bad_request(format!("error parsing JSON: {e}")))
}
