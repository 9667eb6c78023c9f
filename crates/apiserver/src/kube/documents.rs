//! The OpenAPI v3 documents, which a client may keep for ever under their hash.

use super::{Kube, answer, query};
use api::status::Status;
use axum::{
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use schema::openapi::Document;
use std::sync::Arc;

const JSON: &str = "application/json";

/// `/openapi/v3`: where each document is.
pub(super) async fn index(State(kube): State<Arc<Kube>>, request: Request) -> Response {
    let documents = kube.registry.documents();
    answer::tagged(&request, &answer::tag(&documents.index), JSON, documents.index.clone())
}

/// `/openapi/v2`: as much as makes older clients leave the checking of fields to the server.
pub(super) async fn second(State(kube): State<Arc<Kube>>, request: Request) -> Response {
    let documents = kube.registry.documents();
    let (document, kind) = (&documents.second, schema::openapi_v2::CONTENT_TYPE);
    answer::tagged(&request, &answer::tag(document), kind, document.clone())
}

/// One of them.
pub(super) async fn document(
    State(kube): State<Arc<Kube>>,
    Path(path): Path<String>,
    request: Request,
) -> Response {
    if let Some(document) = schema::openapi::document(&path) {
        return answer(document, Bytes::from_static(&document.bytes), &request);
    }
    let mut documents = kube.registry.documents();
    if !documents.documents.contains_key(&path) {
        // Of a definition that this replica has not applied yet, maybe.
        if let Err(status) = kube.registry.linearize().await {
            return answer::failure(&status);
        }
        documents = kube.registry.documents();
    }
    match documents.documents.get(&path) {
        Some(document) => answer(document, document.bytes.clone().into(), &request),
        None => answer::failure(&Status::no_such_path()),
    }
}

fn answer(document: &Document, content: Bytes, request: &Request) -> Response {
    let asked = query(request).ok().and_then(|query| query.get("hash").cloned());
    match asked {
        None => answer::tagged(request, &document.hash, JSON, content),
        Some(hash) if hash == document.hash => {
            let mut response = answer::tagged(request, &document.hash, JSON, content);
            let keep = HeaderValue::from_static("public, immutable, max-age=31536000");
            response.headers_mut().insert(header::CACHE_CONTROL, keep);
            response
        }
        Some(_) => {
            // Of another version of this program or of a definition: where the one of this version is.
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            let Document { path, hash, .. } = document;
            let place = format!("/openapi/v3/{path}?hash={hash}");
            if let Ok(place) = HeaderValue::from_str(&place) {
                response.headers_mut().insert(header::LOCATION, place);
            }
            response
        }
    }
}
