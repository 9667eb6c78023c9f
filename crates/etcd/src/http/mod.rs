//! What is not gRPC: the JSON gateway, health, version, metrics.

mod gateway;
mod health;
mod json;
mod metrics;
mod process;

use crate::{ETCD_VERSION, core::Core, grpc::Grpc};
use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::{HeaderValue, Method, StatusCode, header};
use std::sync::Arc;

/// etcd's name for what the members of a group can do together.
const CLUSTER_VERSION: &str = "3.6.0";

pub(crate) fn router(core: Arc<Core>, grpc: Grpc) -> Router {
    let gateway = gateway::router(&core, grpc);
    Router::new()
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .merge(health::router())
        .with_state(core)
        .merge(gateway)
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
}

/// As Go's library says what went wrong.
fn text(status: StatusCode, text: impl Into<String>) -> Response {
    let mut response = (status, text.into() + "\n").into_response();
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

async fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found")
}

async fn method_not_allowed(method: Method) -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    let allowed = if method == Method::GET { "POST" } else { "GET" };
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

async fn version() -> Response {
    let version = format!(
        r#"{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{CLUSTER_VERSION}","storage":"{}"}}"#,
        crate::maintenance::STORAGE_VERSION
    );
    json(StatusCode::OK, version)
}

async fn metrics(State(core): State<Arc<Core>>) -> Response {
    let mut response = Response::new(Body::from(metrics::render(&core)));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
