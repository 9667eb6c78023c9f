//! What is served, as clients ask for it (§2.9).

use crate::kinds::{self, Kind};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// `/api`
#[must_use]
pub fn api_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `/apis`
#[must_use]
pub fn api_groups() -> Value {
    let groups: BTreeSet<(&str, &str)> =
        kinds::all().iter().filter(|k| !k.group.is_empty()).map(|k| (k.group, k.version)).collect();
    let groups: Vec<Value> = groups
        .into_iter()
        .map(|(group, version)| {
            let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
            json!({"name": group, "versions": [version], "preferredVersion": version})
        })
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/api/v1` and `/apis/GROUP/VERSION`; `None` for one that is not served.
#[must_use]
pub fn resources(group: &str, version: &str) -> Option<Value> {
    let found: Vec<&Kind> =
        kinds::all().iter().filter(|k| k.group == group && k.version == version).collect();
    let first = found.first()?;
    let resources: Vec<Value> = found
        .iter()
        .flat_map(|kind| {
            let own = json!({
                "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
                "kind": kind.kind, "verbs": VERBS, "shortNames": kind.short_names,
                "categories": kind.categories,
            });
            let below = kind.subresources.iter().map(|sub| {
                let (kind_name, verbs) = match *sub {
                    "binding" => ("Binding", vec!["create"]),
                    "log" => ("Pod", vec!["get"]),
                    "exec" | "attach" => ("PodExecOptions", vec!["create", "get"]),
                    _ => (kind.kind, vec!["get", "patch", "update"]),
                };
                json!({
                    "name": format!("{}/{sub}", kind.plural), "singularName": "",
                    "namespaced": kind.namespaced, "kind": kind_name, "verbs": verbs,
                })
            });
            std::iter::once(own).chain(below).collect::<Vec<_>>()
        })
        .collect();
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(),
        "resources": resources,
    }))
}
