//! What is served, as clients find out: discovery, plain and of everything at once (§2.9).

use super::{Kube, answer};
use api::discovery;
use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::Value;
use std::sync::Arc;

/// `/api`
pub(super) async fn core(State(kube): State<Arc<Kube>>, request: Request) -> Response {
    root(&kube, &request, true)
}

/// `/apis`
pub(super) async fn groups(State(kube): State<Arc<Kube>>, request: Request) -> Response {
    root(&kube, &request, false)
}

/// Plain, or everything at once for who accepts that first.
fn root(kube: &Kube, request: &Request, core: bool) -> Response {
    let custom = kube.registry.custom_kinds();
    let accept = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let version = accept.unwrap_or_default().split(',').find_map(aggregated);
    match version {
        Some(Some(version)) => {
            let document = discovery::aggregated_with(core, version, &custom);
            let content_type = format!(
                "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
            );
            tagged(request, &document, &content_type)
        }
        Some(None) | None if core => answer::json(StatusCode::OK, &discovery::api_versions()),
        Some(None) | None => answer::json(StatusCode::OK, &discovery::api_groups_with(&custom)),
    }
}

/// The version of the aggregated form that a media type asks for; `Some(None)` for plain JSON.
fn aggregated(media_type: &str) -> Option<Option<&'static str>> {
    let mut parts = media_type.split(';').map(str::trim);
    let json = matches!(parts.next(), Some("application/json" | "application/*" | "*/*"));
    let parameters: Vec<&str> = parts.filter(|part| !part.starts_with("q=")).collect();
    let has = |parameter| parameters.contains(&parameter);
    match (json, parameters.is_empty()) {
        (false, _) => None,
        (true, true) => Some(None),
        (true, false) if has("g=apidiscovery.k8s.io") && has("as=APIGroupDiscoveryList") => {
            [("v2", "v=v2"), ("v2beta1", "v=v2beta1")]
                .into_iter()
                .find_map(|(version, parameter)| has(parameter).then_some(Some(version)))
        }
        (true, false) => None,
    }
}

/// With a tag of its content, by which a client that has it is spared it.
fn tagged(request: &Request, document: &Value, content_type: &str) -> Response {
    let text = document.to_string();
    let mut response = answer::tagged(request, &answer::tag(text.as_bytes()), content_type, text);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}
