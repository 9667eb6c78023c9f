//! What a request asks for, by its method, path and query: read as the routes read them, so that what is
//! allowed is what is done.

use crate::kube::flag;
use access::{Attributes, Resource, Target};
use axum::http::{Method, Uri};
use std::collections::BTreeMap;

/// The last of each name, as the routes take them; nothing of a query that cannot be read, which the
/// routes refuse.
fn query(uri: &Uri) -> BTreeMap<String, String> {
    axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map(|query| query.0.into_iter().collect())
        .unwrap_or_default()
}

/// What a request asks for.
pub(crate) fn attributes(method: &Method, uri: &Uri) -> Attributes {
    let path = uri.path();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _, rest @ ..] if !rest.is_empty() => ("", rest),
        ["apis", group, _, rest @ ..] if !rest.is_empty() => (*group, rest),
        _ => return Attributes::path(&method.as_str().to_lowercase(), path),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, "status" | "finalize"] => (*namespace, rest),
        ["namespaces", namespace] => (*namespace, rest),
        ["namespaces", namespace, below @ ..] => (*namespace, below),
        _ => ("", rest),
    };
    let part = |at: usize| rest.get(at).copied().unwrap_or_default().to_owned();
    let mut of = Resource {
        group: group.to_owned(),
        resource: part(0),
        subresource: part(2),
        namespace: namespace.to_owned(),
        name: part(1),
        on_node: String::new(),
    };
    let verb = match *method {
        Method::GET | Method::HEAD if of.name.is_empty() => {
            let query = query(uri);
            let fields = query.get("fieldSelector").map_or("", String::as_str);
            if let Some(name) = required(fields, "metadata.name") {
                of.name = name;
            }
            of.on_node = required(fields, "spec.nodeName").unwrap_or_default();
            let watch = flag(&query, "watch");
            if watch { "watch" } else { "list" }
        }
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if of.name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        _ => "",
    };
    Attributes::resource(verb, of)
}

/// What a field selector says that a field must be. Values with escapes are not looked for: they are no
/// names.
fn required(selector: &str, field: &str) -> Option<String> {
    let values = selector.split(',').filter_map(|part| {
        let (name, value) = part.split_once('=')?;
        let value = value.strip_prefix('=').unwrap_or(value);
        (name.trim() == field).then(|| value.trim().to_owned())
    });
    let values: Vec<String> = values.collect();
    match values.as_slice() {
        [one] if !one.is_empty() && !one.contains('\\') => Some(one.clone()),
        _ => None,
    }
}

/// What must be allowed beside: a connection that is upgraded from a GET does what one from a POST does,
/// also by way of a node's own paths.
pub(crate) fn beside(asked: &Attributes, upgrade: bool) -> Option<Attributes> {
    let Target::Resource(of) = &asked.target else { return None };
    let connects = of.group.is_empty()
        && match (of.resource.as_str(), of.subresource.as_str()) {
            ("pods", "exec" | "attach" | "portforward") => true,
            ("nodes", "proxy") => upgrade,
            _ => false,
        };
    (connects && asked.verb == "get").then(|| Attributes::resource("create", of.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_the_routes_make_of_it() {
        for (method, uri, want) in [
            ("GET", "/version", "get /version"),
            (
                "POST",
                "/trireme.node.v1.NodeService/Session",
                "post /trireme.node.v1.NodeService/Session",
            ),
            ("GET", "/api", "get /api"),
            ("GET", "/api/v1", "get /api/v1"),
            ("GET", "/apis/apps", "get /apis/apps"),
            ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
            ("GET", "/openapi/v3/api/v1", "get /openapi/v3/api/v1"),
            ("GET", "/api/v1/nodes", "list  nodes  "),
            ("GET", "/api/v1/nodes/n", "get  nodes  n"),
            ("HEAD", "/api/v1/nodes/n", "get  nodes  n"),
            ("GET", "/api/v1/nodes/n/proxy/metrics", "get  nodes/proxy  n"),
            ("GET", "/api/v1/pods?watch=true", "watch  pods  "),
            ("GET", "/api/v1/pods?watch=false&watch=1", "watch  pods  "),
            ("GET", "/api/v1/pods?watch=1&watch=false", "list  pods  "),
            ("GET", "/api/v1/pods?watch=yes", "watch  pods  "),
            ("GET", "/api/v1/pods?watch=", "watch  pods  "),
            ("GET", "/api/v1/namespaces/ns/pods/p?watch=true", "get  pods ns p"),
            ("GET", "/api//v1/namespaces/ns//pods", "list  pods ns "),
            ("POST", "/api/v1/namespaces/ns/pods", "create  pods ns "),
            ("POST", "/api/v1/namespaces/ns/pods/p/exec", "create  pods/exec ns p"),
            ("DELETE", "/api/v1/namespaces/ns/pods", "deletecollection  pods ns "),
            ("DELETE", "/api/v1/namespaces/ns/pods/p", "delete  pods ns p"),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/ns/deployments/d/scale",
                "patch apps deployments/scale ns d",
            ),
            ("GET", "/api/v1/namespaces", "list  namespaces  "),
            ("GET", "/api/v1/namespaces/ns", "get  namespaces ns ns"),
            ("PUT", "/api/v1/namespaces/ns/finalize", "update  namespaces/finalize ns ns"),
            ("PUT", "/api/v1/namespaces/ns/status", "update  namespaces/status ns ns"),
            (
                "GET",
                "/api/v1/namespaces/ns/secrets?fieldSelector=metadata.name%3Da",
                "list  secrets ns a",
            ),
            ("GET", "/api/v1/secrets?fieldSelector=metadata.name%21%3Da", "list  secrets  "),
            (
                "GET",
                "/api/v1/secrets?fieldSelector=metadata.name%3Da%2Cmetadata.name%3Db",
                "list  secrets  ",
            ),
            ("OPTIONS", "/api/v1/pods", "  pods  "),
        ] {
            let found = attributes(&method.parse().unwrap(), &uri.parse().unwrap());
            let shown = match &found.target {
                Target::Path(path) => format!("{} {path}", found.verb),
                Target::Resource(of) => {
                    let what = of.combined();
                    format!("{} {} {what} {} {}", found.verb, of.group, of.namespace, of.name)
                }
            };
            assert_eq!(shown, want, "{method} {uri}");
        }
        for (uri, upgrade, want) in [
            ("/api/v1/namespaces/ns/pods/p/exec", false, true),
            ("/api/v1/namespaces/ns/pods/p/log", true, false),
            ("/api/v1/nodes/n/proxy/exec/ns/p/c", true, true),
            ("/api/v1/nodes/n/proxy/metrics", false, false),
        ] {
            let asked = attributes(&Method::GET, &uri.parse().unwrap());
            let found = beside(&asked, upgrade);
            assert_eq!(found.is_some_and(|more| more.verb == "create"), want, "{uri}");
        }
        let on = attributes(
            &Method::GET,
            &"/api/v1/pods?fieldSelector=spec.nodeName==n".parse().unwrap(),
        );
        assert!(matches!(on.target, Target::Resource(of) if of.on_node == "n"));
    }
}
