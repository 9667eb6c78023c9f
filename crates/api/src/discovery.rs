//! What is served, as clients ask for it (§2.9).

use crate::{
    custom::compare_versions,
    kinds::{self, Kind, KindRef},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// A subresource as discovery shows it.
struct Subresource {
    name: &'static str,
    /// Group (empty for the parent's), version and kind of what it takes.
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
}

/// Subresources that take another kind than their parent, or other verbs than a part of it.
const SUBRESOURCES: &[Subresource] = &[
    Subresource {
        name: "attach",
        group: "",
        version: "v1",
        kind: "PodAttachOptions",
        verbs: STREAM,
    },
    Subresource { name: "binding", group: "", version: "v1", kind: "Binding", verbs: &["create"] },
    Subresource {
        name: "eviction",
        group: "policy",
        version: "v1",
        kind: "Eviction",
        verbs: &["create"],
    },
    Subresource { name: "exec", group: "", version: "v1", kind: "PodExecOptions", verbs: STREAM },
    Subresource {
        name: "finalize",
        group: "",
        version: "v1",
        kind: "Namespace",
        verbs: &["update"],
    },
    Subresource { name: "log", group: "", version: "v1", kind: "Pod", verbs: &["get"] },
    Subresource {
        name: "token",
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
        verbs: &["create"],
    },
    Subresource { name: "scale", group: "autoscaling", version: "v1", kind: "Scale", verbs: PART },
    Subresource {
        name: "portforward",
        group: "",
        version: "v1",
        kind: "PodPortForwardOptions",
        verbs: STREAM,
    },
];
const STREAM: &[&str] = &["create", "get"];
const PART: &[&str] = &["get", "patch", "update"];

/// `/api`
#[must_use]
pub fn api_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// The rows, what is only asked, and behind them what definitions made.
fn served<'a>(custom: &'a [KindRef]) -> impl Iterator<Item = &'a Kind> {
    let rows = kinds::served().chain(kinds::reviews()).map(|kind| -> &'a Kind { kind });
    rows.chain(custom.iter().map(|kind| &**kind))
}

fn verbs(kind: &Kind) -> &'static [&'static str] {
    if kind.is_review() { &["create"] } else { VERBS }
}

/// Groups beside the core in order, each with its versions, the preferred one first.
fn groups(custom: &[KindRef]) -> BTreeMap<&str, Vec<&str>> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for kind in served(custom).filter(|kind| !kind.group.is_empty()) {
        let versions = groups.entry(kind.group).or_default();
        if !versions.contains(&kind.version) {
            versions.push(kind.version);
        }
    }
    for versions in groups.values_mut() {
        versions.sort_by(|a, b| compare_versions(a, b));
    }
    groups
}

fn group_object(group: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": group, "versions": versions, "preferredVersion": preferred})
}

/// `/apis`, without custom resources.
#[must_use]
pub fn api_groups() -> Value {
    api_groups_with(&[])
}

/// `/apis`
#[must_use]
pub fn api_groups_with(custom: &[KindRef]) -> Value {
    let groups = groups(custom);
    let groups: Vec<Value> = groups.into_iter().map(|(g, v)| group_object(g, &v)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`, without custom resources; `None` for one that is not served.
#[must_use]
pub fn api_group(group: &str) -> Option<Value> {
    api_group_with(group, &[])
}

/// `/apis/GROUP`; `None` for one that is not served.
#[must_use]
pub fn api_group_with(group: &str, custom: &[KindRef]) -> Option<Value> {
    let mut object = group_object(group, groups(custom).get(group)?);
    let fields = object.as_object_mut()?;
    fields.insert("kind".to_owned(), "APIGroup".into());
    fields.insert("apiVersion".to_owned(), "v1".into());
    Some(object)
}

fn of_version<'a>(
    group: &'a str,
    version: &'a str,
    custom: &'a [KindRef],
) -> impl Iterator<Item = &'a Kind> + 'a {
    served(custom).filter(move |k| k.group == group && k.version == version)
}

/// `/api/v1` and `/apis/GROUP/VERSION`, without custom resources; `None` for one that is not served.
#[must_use]
pub fn resources(group: &str, version: &str) -> Option<Value> {
    resources_with(group, version, &[])
}

/// `/api/v1` and `/apis/GROUP/VERSION`; `None` for one that is not served.
#[must_use]
pub fn resources_with(group: &str, version: &str, custom: &[KindRef]) -> Option<Value> {
    let first = of_version(group, version, custom).next()?;
    let resources: Vec<Value> = of_version(group, version, custom)
        .flat_map(|kind| {
            let mut own = json!({
                "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
                "kind": kind.kind, "verbs": verbs(kind),
            });
            names(&mut own, kind);
            std::iter::once(own).chain(kind.subresources.iter().map(|sub| part(kind, sub)))
        })
        .collect();
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(),
        "resources": resources,
    }))
}

fn special(sub: &str) -> Option<&'static Subresource> {
    SUBRESOURCES.iter().find(|s| s.name == sub)
}

fn part(kind: &Kind, sub: &str) -> Value {
    let found = special(sub);
    let mut object = json!({
        "name": format!("{}/{sub}", kind.plural), "singularName": "",
        "namespaced": kind.namespaced, "kind": found.map_or(kind.kind, |s| s.kind),
        "verbs": found.map_or(PART, |s| s.verbs),
    });
    // Said only where it is not the list's own.
    if let (Some(fields), Some(found)) =
        (object.as_object_mut(), found.filter(|s| !s.group.is_empty()))
    {
        fields.insert("group".to_owned(), found.group.into());
        fields.insert("version".to_owned(), found.version.into());
    }
    object
}

/// Short names and categories, where there are any.
fn names(object: &mut Value, kind: &Kind) {
    for (key, list) in
        [("shortNames", kind.all_short_names()), ("categories", kind.all_categories())]
    {
        if let (Some(fields), false) = (object.as_object_mut(), list.is_empty()) {
            fields.insert(key.to_owned(), list.into());
        }
    }
}

/// Everything at once, without custom resources.
#[must_use]
pub fn aggregated(core: bool, version: &str) -> Value {
    aggregated_with(core, version, &[])
}

/// Everything at once, as `/api` (with `core`) and `/apis` (without) answer a client that accepts
/// `APIGroupDiscoveryList` of `apidiscovery.k8s.io`; `version` is `v2` or `v2beta1`.
#[must_use]
pub fn aggregated_with(core: bool, version: &str, custom: &[KindRef]) -> Value {
    let served = if core { BTreeMap::from([("", vec!["v1"])]) } else { groups(custom) };
    let items: Vec<Value> = served
        .into_iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|version| {
                    let kinds = of_version(group, version, custom);
                    let resources: Vec<Value> = kinds.map(discovered).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    })
}

fn discovered(kind: &Kind) -> Value {
    let response = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut object = json!({
        "resource": kind.plural, "singularResource": kind.singular, "verbs": verbs(kind),
        "responseKind": response(kind.group, kind.version, kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
    });
    names(&mut object, kind);
    let below: Vec<Value> = kind
        .subresources
        .iter()
        .map(|sub| match special(sub) {
            Some(s) => {
                let group = if s.group.is_empty() { kind.group } else { s.group };
                json!({"subresource": sub, "verbs": s.verbs,
                       "responseKind": response(group, s.version, s.kind)})
            }
            None => json!({"subresource": sub, "verbs": PART,
                           "responseKind": response(kind.group, kind.version, kind.kind)}),
        })
        .collect();
    if let (Some(fields), false) = (object.as_object_mut(), below.is_empty()) {
        fields.insert("subresources".to_owned(), below.into());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_discovered_both_ways() {
        // §2.9
        for kind in served(&[]) {
            let plain = resources(kind.group, kind.version).unwrap();
            let all = plain["resources"].as_array().unwrap();
            let own = all.iter().find(|r| r["name"] == kind.plural).unwrap();
            assert_eq!(own["kind"], kind.kind);
            assert_eq!(own["namespaced"], kind.namespaced);
            let list = aggregated(kind.group.is_empty(), "v2");
            let groups = list["items"].as_array().unwrap();
            let group = groups
                .iter()
                .find(|g| {
                    g["metadata"].get("name").map_or("", |n| n.as_str().unwrap()) == kind.group
                })
                .unwrap();
            let versions = group["versions"].as_array().unwrap();
            let version = versions.iter().find(|v| v["version"] == kind.version).unwrap();
            let all = version["resources"].as_array().unwrap();
            let own = all.iter().find(|r| r["resource"] == kind.plural).unwrap();
            assert_eq!(own["singularResource"], kind.singular);
            for sub in kind.subresources {
                let below = own["subresources"].as_array().unwrap();
                assert!(below.iter().any(|s| s["subresource"] == *sub), "{sub}");
            }
        }
        let group = api_group("autoscaling").unwrap();
        assert_eq!(group["preferredVersion"]["version"], "v2", "the stored one");
        assert_eq!(group["versions"][1]["groupVersion"], "autoscaling/v1");
        assert_eq!(resources("apps", "v7"), None);
        assert_eq!(api_group("coordination.k8s.io").unwrap()["kind"], "APIGroup");
        assert_eq!(api_group("extensions"), None);
    }

    #[test]
    fn pods_are_found_by_short_name_and_category() {
        let core = resources("", "v1").unwrap();
        let all = core["resources"].as_array().unwrap();
        let named = |name: &str| all.iter().find(|r| r["name"] == name).unwrap();
        assert_eq!(named("pods")["shortNames"], json!(["po"]));
        assert_eq!(named("pods")["categories"], json!(["all"]));
        assert_eq!(named("pods/binding")["kind"], "Binding");
        assert_eq!(named("pods/status")["verbs"], json!(["get", "patch", "update"]));
    }
}
