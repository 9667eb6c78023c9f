//! Bodies in and out: JSON, YAML or protobuf in, JSON or a table out.

use super::{BODY_BYTES_MAX, Query};
use crate::registry::Stored;
use api::{
    kinds::Kind,
    status::Status,
    table::{IncludeObject, table},
};
use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// What of an object is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Object,
    /// `PartialObjectMetadata`
    Metadata,
    Table(IncludeObject),
}

/// What the client wants to see, and how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) form: Form,
    pub(crate) yaml: bool,
}

impl Format {
    /// The first of what the client accepts that is served here.
    ///
    /// # Errors
    /// 406 when there is none.
    pub(crate) fn of(request: &Request, query: &Query) -> Result<Self, Status> {
        let accept = request.headers().get(header::ACCEPT).map_or(Ok("*/*"), |v| v.to_str());
        let accept = accept.ok().filter(|accept| !accept.trim().is_empty()).unwrap_or("*/*");
        let include = match query.get("includeObject").map(String::as_str) {
            Some("Object") => IncludeObject::Object,
            Some("None") => IncludeObject::None,
            _ => IncludeObject::Metadata,
        };
        let mut ranges: Vec<MediaRange<'_>> = accept.split(',').map(MediaRange::parse).collect();
        ranges.sort_by_key(|range| std::cmp::Reverse(range.quality));
        let served = ranges.iter().find_map(|range| range.served(include));
        served.ok_or_else(|| Status::not_acceptable("application/json, application/yaml"))
    }
}

/// One of the types in an `Accept` header.
struct MediaRange<'a> {
    name: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    /// Thousandths.
    quality: u16,
}

impl<'a> MediaRange<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
        let quality = parameters.iter().find(|(name, _)| *name == "q").map_or(1000, |(_, q)| {
            let digits = q.split_once('.').map_or("", |(_, digits)| digits);
            if q.starts_with('1') { 1000 } else { format!("{digits:0<3.3}").parse().unwrap_or(0) }
        });
        Self { name, parameters, quality }
    }

    /// How that is served; `None` if it is not.
    fn served(&self, include: IncludeObject) -> Option<Format> {
        let yaml = match self.name {
            "application/json" | "application/*" | "*/*" => false,
            "application/yaml" => true,
            _ => return None,
        };
        let of = |name: &str| self.parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        let form = match (of("as"), of("g"), of("v")) {
            (None, ..) => Form::Object,
            (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Form::Table(include),
            (
                Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
                Some("meta.k8s.io"),
                Some("v1"),
            ) => Form::Metadata,
            (Some(_), ..) => return None,
        };
        (self.quality > 0).then_some(Format { form, yaml })
    }
}

/// What of an object a client sees that asked for its metadata only.
pub(super) fn metadata_only(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata"),
    })
}

pub(crate) fn json(code: StatusCode, body: &Value) -> Response {
    // Not its `Display`, which goes through a formatter.
    let text = serde_json::to_vec(body).expect("a JSON value can be written");
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// As the client wants it written.
pub(crate) fn written(code: StatusCode, body: &Value, format: Format) -> Response {
    if !format.yaml {
        return json(code, body);
    }
    let text = match serde_yaml_ng::to_string(body) {
        Ok(text) => text,
        Err(error) => return failure(&Status::internal(error)),
    };
    yaml(code, text)
}

pub(super) fn yaml(code: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    let yaml = HeaderValue::from_static("application/yaml");
    response.headers_mut().insert(header::CONTENT_TYPE, yaml);
    response
}

/// A content's name, in hexadecimal.
pub(super) fn tag(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |mut tag, byte| {
        let _ = write!(tag, "{byte:02X}");
        tag
    })
}

/// A document that the client is spared if it has the one of this tag.
pub(super) fn tagged(
    request: &Request,
    tag: &str,
    content_type: &str,
    content: impl Into<Body>,
) -> Response {
    let known = request.headers().get_all(header::IF_NONE_MATCH).iter();
    let known = known.filter_map(|value| value.to_str().ok()).any(|tags| {
        let mut tags = tags.split(',').map(|known| known.trim().trim_start_matches("W/"));
        tags.any(|known| known.trim_matches('"') == tag)
    });
    let mut response = Response::new(Body::empty());
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    *response.body_mut() = content.into();
    response
}

pub(crate) fn failure(status: &Status) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, &status.to_json());
    let seconds = match status.retry_after_seconds() {
        None if status.code == 503 => Some(1),
        seconds => seconds,
    };
    if let Some(seconds) = seconds {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
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
    match format.form {
        Form::Object => written(code, &kind.show(object), format),
        Form::Metadata => written(code, &metadata_only(&kind.show(object)), format),
        Form::Table(include) => {
            let version = api::meta::resource_version(object);
            let list_meta = json!({"resourceVersion": version});
            written(code, &table(kind.stored(), [object], include, list_meta, now), format)
        }
    }
}

/// A stored object, as JSON without having been read where that is what the client wants.
pub(super) fn stored_answer(
    kind: &Kind,
    object: &Stored,
    format: Format,
    now: i64,
) -> Result<Response, Status> {
    let mut text = Vec::with_capacity(object.len());
    match format {
        Format { form: Form::Object, yaml: false } => object.write(kind, &mut text)?,
        Format { form: Form::Metadata, yaml: false } => {
            object.write_metadata_at(kind, object.kv().mod_revision, &mut text)?;
        }
        _ => return Ok(object_answer(StatusCode::OK, kind, &object.value(kind)?, format, now)),
    }
    let mut response = Response::new(Body::from(text));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

/// What an object may be sent in.
const OBJECT_TYPES: &str =
    "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// An object as it was sent.
pub(super) struct Sent {
    /// Null when there is none.
    pub(super) value: Value,
    /// Paths of the fields that are there more than once; the last one of each counts.
    pub(super) duplicates: Vec<String>,
}

/// The body as JSON; null when there is none.
///
/// # Errors
/// 415 for a content type that is none of [`OBJECT_TYPES`]; none at all says JSON.
pub(crate) async fn body_json(request: Request) -> Result<Value, Status> {
    sent(request).await.map(|sent| sent.value)
}

/// The same, with what is there more than once.
///
/// # Errors
/// As [`body_json`].
pub(super) async fn sent(request: Request) -> Result<Sent, Status> {
    let (content_type, bytes) = body(request).await?;
    if bytes.is_empty() {
        return Ok(Sent { value: Value::Null, duplicates: Vec::new() });
    }
    match content_type.as_str() {
        "" | "application/json" => json_of(&bytes),
        "application/yaml" => yaml_of(&bytes),
        "application/vnd.kubernetes.protobuf" => {
            let value = protobuf::to_json(&bytes);
            let value = value.map_err(|error| Status::bad_request(error.to_string()))?;
            Ok(Sent { value, duplicates: Vec::new() })
        }
        _ => Err(Status::unsupported_media_type(OBJECT_TYPES)),
    }
}

/// A patch, whose type the caller has checked.
///
/// # Errors
/// 400 for what is no JSON or YAML.
pub(super) async fn patch_body(request: Request) -> Result<Sent, Status> {
    let (content_type, bytes) = body(request).await?;
    if content_type.ends_with("+yaml") { yaml_of(&bytes) } else { json_of(&bytes) }
}

/// The body and its type.
async fn body(request: Request) -> Result<(String, Bytes), Status> {
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
    Ok((content_type, bytes))
}

fn json_of(bytes: &[u8]) -> Result<Sent, Status> {
    let (value, duplicates) = crate::read::json(bytes)
        .map_err(|e| Status::bad_request(format!("error parsing JSON: {e}")))?;
    Ok(Sent { value, duplicates })
}

fn yaml_of(bytes: &[u8]) -> Result<Sent, Status> {
    let (value, duplicates) = crate::read::yaml(bytes)
        .map_err(|e| Status::bad_request(format!("error parsing YAML: {e}")))?;
    Ok(Sent { value, duplicates })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(accept: &str) -> Result<Format, Status> {
        let request = Request::builder().header(header::ACCEPT, accept);
        Format::of(&request.body(Body::empty()).unwrap(), &Query::new())
    }

    #[test]
    fn the_first_that_is_served_of_what_is_accepted_is_taken() {
        let plain = |form| Ok(Format { form, yaml: false });
        for (accept, want) in [
            ("", plain(Form::Object)),
            ("*/*", plain(Form::Object)),
            ("application/vnd.kubernetes.protobuf,application/json", plain(Form::Object)),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,\
                 application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                plain(Form::Table(IncludeObject::Metadata)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
                 application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                plain(Form::Metadata),
            ),
            ("application/json;as=Unknown;v=v1;g=meta.k8s.io, */*", plain(Form::Object)),
            (
                "application/json;q=0.5, application/yaml",
                Ok(Format { form: Form::Object, yaml: true }),
            ),
            ("application/yaml;q=0.25,application/json;q=0.5", plain(Form::Object)),
        ] {
            assert_eq!(format(accept), want, "{accept}");
        }
        for accept in ["text/html", "application/json;q=0", "application/json;as=Table;v=v9;g=x"] {
            assert_eq!(format(accept).unwrap_err().code, 406, "{accept}");
        }
    }
}
