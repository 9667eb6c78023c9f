//! The OpenAPI v3 documents, which a client may keep for ever under their hash.

use super::{answer, query};
use api::status::Status;
use axum::{
    body::{Body, Bytes},
    extract::{Path, Request},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};

const JSON: &str = "application/json";

/// `/openapi/v3`: where each document is.
pub(super) fn index(request: &Request) -> Response {
    let index = schema::openapi::index();
    answer::tagged(request, &answer::tag(index), JSON, Bytes::from_static(index))
}

/// `/openapi/v2`: as much as makes older clients leave the checking of fields to the server.
pub(super) fn second(request: &Request) -> Response {
    let (document, kind) = (schema::openapi_v2::document(), schema::openapi_v2::CONTENT_TYPE);
    answer::tagged(request, &answer::tag(document), kind, Bytes::from_static(document))
}

/// One of them.
pub(super) async fn document(Path(path): Path<String>, request: Request) -> Response {
    let Some(document) = schema::openapi::document(&path) else {
        return answer::failure(&Status::no_such_path());
    };
    let asked = query(&request).ok().and_then(|query| query.get("hash").cloned());
    match asked {
        None => answer::tagged(&request, &document.hash, JSON, Bytes::from_static(&document.bytes)),
        Some(hash) if hash == document.hash => {
            let content = Bytes::from_static(&document.bytes);
            let mut response = answer::tagged(&request, &document.hash, JSON, content);
            let keep = HeaderValue::from_static("public, immutable, max-age=31536000");
            response.headers_mut().insert(header::CACHE_CONTROL, keep);
            response
        }
        Some(_) => {
            // Of another version of this program: where the one of this version is.
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            let place = format!("/openapi/v3/{path}?hash={}", document.hash);
            if let Ok(place) = HeaderValue::from_str(&place) {
                response.headers_mut().insert(header::LOCATION, place);
            }
            response
        }
    }
}
