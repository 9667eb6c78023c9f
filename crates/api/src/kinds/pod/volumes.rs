//! A Pod's volumes: defaults (§1.2) and validation (§1.7).

use super::{list, text};
use crate::{
    field::{FieldError, Path},
    names,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Volumes that are files made from objects, each with the field that names its items.
const MADE: [&str; 4] = ["secret", "configMap", "downwardAPI", "projected"];
/// Of which a projected volume is made.
const SOURCES: [&str; 4] = ["secret", "configMap", "downwardAPI", "serviceAccountToken"];
/// Seconds that a token holds if nobody says otherwise, and at least.
const TOKEN_SECONDS: i64 = 3600;
const TOKEN_SECONDS_MIN: i64 = 600;

fn default_items(source: &mut Map<String, Value>) {
    let items = source.get_mut("items").and_then(Value::as_array_mut);
    for item in items.into_iter().flatten() {
        if let Some(field) = item.get_mut("fieldRef").and_then(Value::as_object_mut) {
            field.entry("apiVersion").or_insert_with(|| "v1".into());
        }
    }
}

pub(super) fn default(volume: &mut Map<String, Value>) {
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for key in MADE {
        if let Some(source) = volume.get_mut(key).and_then(Value::as_object_mut) {
            source.entry("defaultMode").or_insert(json!(420));
            default_items(source);
        }
    }
    let projected = volume.get_mut("projected").and_then(|of| of.get_mut("sources"));
    for source in projected.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(token) = source.get_mut("serviceAccountToken").and_then(Value::as_object_mut) {
            token.entry("expirationSeconds").or_insert_with(|| TOKEN_SECONDS.into());
        }
        if let Some(fields) = source.get_mut("downwardAPI").and_then(Value::as_object_mut) {
            default_items(fields);
        }
    }
}

/// The names of all volumes.
pub(super) fn validate(
    spec: &Value,
    path: &Path,
    errors: &mut Vec<FieldError>,
) -> BTreeSet<String> {
    let mut names_seen = BTreeSet::new();
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        let at = path.index(i);
        let name = text(volume, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else {
            errors.extend(names::check(&at.child("name"), &name, names::label));
            if !names_seen.insert(name.clone()) {
                errors.push(FieldError::duplicate(&at.child("name"), name));
            }
        }
        let sources: Vec<&String> =
            volume.as_object().into_iter().flat_map(Map::keys).filter(|k| *k != "name").collect();
        for source in sources.iter().skip(1) {
            let detail = "may not specify more than 1 volume type";
            errors.push(FieldError::forbidden(&at.child(source), detail));
        }
        if let Some(host) = volume.get("hostPath") {
            let host_path = text(host, "/path");
            let at = at.child("hostPath").child("path");
            if host_path.is_empty() {
                errors.push(FieldError::required(&at, ""));
            } else if host_path.split('/').any(|part| part == "..") {
                errors.push(FieldError::invalid(&at, host_path, "must not contain '..'"));
            }
        }
        for (source, field) in [("secret", "secretName"), ("configMap", "name")] {
            if volume.get(source).is_some_and(|s| text(s, &format!("/{field}")).is_empty()) {
                errors.push(FieldError::required(&at.child(source).child(field), ""));
            }
        }
        for kind in MADE {
            if let Some(source) = volume.get(kind) {
                let at = at.child(kind);
                mode(source, "defaultMode", &at, errors);
                items(kind, source, &at, &mut BTreeSet::new(), errors);
            }
        }
        if let Some(projected) = volume.get("projected") {
            validate_projected(projected, &at.child("projected"), errors);
        }
    }
    names_seen
}

fn validate_projected(projected: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let mut targets = BTreeSet::new();
    for (i, source) in list(projected, "sources").iter().enumerate() {
        let at = path.child("sources").index(i);
        let found: Vec<&str> =
            source.as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect();
        for more in found.iter().skip(1) {
            let detail = "may not specify more than 1 volume type per source";
            errors.push(FieldError::forbidden(&at.child(more), detail));
        }
        if found.is_empty() {
            errors.push(FieldError::required(&at, "at least 1 source is required"));
        }
        for kind in SOURCES {
            let Some(of) = source.get(kind) else { continue };
            let at = at.child(kind);
            if matches!(kind, "secret" | "configMap") && text(of, "/name").is_empty() {
                errors.push(FieldError::required(&at.child("name"), ""));
            }
            items(kind, of, &at, &mut targets, errors);
            if kind == "serviceAccountToken" {
                let seconds = of.get("expirationSeconds").and_then(Value::as_i64);
                let seconds = seconds.unwrap_or(TOKEN_SECONDS);
                let at = at.child("expirationSeconds");
                if seconds < TOKEN_SECONDS_MIN {
                    let detail = "may not specify a duration less than 10 minutes";
                    errors.push(FieldError::invalid(&at, seconds, detail));
                } else if seconds > 1 << 32 {
                    let detail = "may not specify a duration larger than 2^32 seconds";
                    errors.push(FieldError::invalid(&at, seconds, detail));
                }
            }
        }
    }
}

fn mode(of: &Value, field: &str, path: &Path, errors: &mut Vec<FieldError>) {
    if let Some(found) = of.get(field).and_then(Value::as_i64)
        && !(0..=0o777).contains(&found)
    {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(&path.child(field), found, detail));
    }
}

/// Where each file of a source goes; no two to one place.
fn items(
    kind: &str,
    source: &Value,
    path: &Path,
    targets: &mut BTreeSet<String>,
    errors: &mut Vec<FieldError>,
) {
    let mut target = |of: &Value, at: &Path, errors: &mut Vec<FieldError>| {
        let (at, found) = (at.child("path"), text(of, "/path"));
        if found.is_empty() {
            errors.push(FieldError::required(&at, ""));
            return;
        }
        errors.extend(below(&at, &found));
        if !targets.insert(found.clone()) {
            errors.push(FieldError::invalid(&at, found, "conflicting duplicate paths"));
        }
    };
    if kind == "serviceAccountToken" {
        target(source, path, errors);
    }
    for (i, item) in list(source, "items").iter().enumerate() {
        let at = path.child("items").index(i);
        if kind == "downwardAPI" {
            let of = |field: &str| item.get(field).is_some_and(|value| !value.is_null());
            match (of("fieldRef"), of("resourceFieldRef")) {
                (true, true) => {
                    let detail =
                        "fieldRef and resourceFieldRef can not be specified simultaneously";
                    errors.push(FieldError::invalid(&at, "resource", detail));
                }
                (false, false) => {
                    let detail = "one of fieldRef and resourceFieldRef is required";
                    errors.push(FieldError::required(&at, detail));
                }
                (true, false) | (false, true) => {}
            }
        } else if text(item, "/key").is_empty() {
            errors.push(FieldError::required(&at.child("key"), ""));
        }
        mode(item, "mode", &at, errors);
        target(item, &at, errors);
    }
}

/// A path that stays below the volume.
fn below(at: &Path, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut refuse = |detail: &str| errors.push(FieldError::invalid(at, path, detail));
    if path.starts_with('/') {
        refuse("must be a relative path");
    }
    if path.split('/').any(|part| part == "..") {
        refuse("must not contain '..'");
    }
    // What begins so is of who writes the volume.
    if path.starts_with("..") && !path.starts_with("../") && path != ".." {
        refuse("must not start with '..'");
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors_of(volume: &Value) -> Vec<String> {
        let (spec, mut errors) = (json!({"volumes": [volume]}), Vec::new());
        validate(&spec, &Path::new("spec").child("volumes"), &mut errors);
        errors.iter().map(FieldError::body).collect()
    }

    fn projected(sources: Value) -> Value {
        json!({"name": "v", "projected": {"sources": sources}})
    }

    #[test]
    fn files_go_below_the_volume_and_each_to_a_place_of_its_own() {
        // §1.7
        let token = |path: &str| json!({"serviceAccountToken": {"path": path}});
        let map =
            |path: &str| json!({"configMap": {"name": "m", "items": [{"key": "k", "path": path}]}});
        for (name, volume, want) in [
            ("good", projected(json!([token("token"), map("a/b")])), None),
            ("absolute", projected(json!([token("/a")])), Some("must be a relative path")),
            ("above", projected(json!([map("a/../../b")])), Some("must not contain '..'")),
            ("the writer's", projected(json!([map("..data")])), Some("must not start with '..'")),
            (
                "twice",
                projected(json!([token("a"), map("a")])),
                Some("conflicting duplicate paths"),
            ),
            (
                "two kinds",
                projected(json!([{"secret": {"name": "s"}, "configMap": {"name": "m"}}])),
                Some("may not specify more than 1 volume type per source"),
            ),
            ("none", projected(json!([{}])), Some("at least 1 source is required")),
            (
                "short",
                projected(
                    json!([{"serviceAccountToken": {"path": "t", "expirationSeconds": 599}}]),
                ),
                Some("may not specify a duration less than 10 minutes"),
            ),
            (
                "mode",
                json!({"name": "v", "secret": {"secretName": "s", "defaultMode": 512}}),
                Some("must be a number between 0 and 0777 (octal), both inclusive"),
            ),
            (
                "no key",
                json!({"name": "v", "configMap": {"name": "s", "items": [{"path": "a"}]}}),
                Some("Required value"),
            ),
            (
                "no field",
                json!({"name": "v", "downwardAPI": {"items": [{"path": "a"}]}}),
                Some("one of fieldRef and resourceFieldRef is required"),
            ),
        ] {
            let found = errors_of(&volume);
            match want {
                None => assert_eq!(found, Vec::<String>::new(), "{name}"),
                Some(want) => assert!(
                    found.len() == 1 && found[0].contains(want),
                    "{name}: {found:?}, not {want}"
                ),
            }
        }
    }

    #[test]
    fn what_a_volume_leaves_open_has_a_default() {
        // §1.2
        let fields = json!({"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]});
        let mut volume = projected(json!([
            {"serviceAccountToken": {"path": "t"}}, {"downwardAPI": fields},
        ]));
        default(volume.as_object_mut().unwrap());
        let made = &volume["projected"];
        assert_eq!(made["defaultMode"], 420);
        assert_eq!(made["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3600);
        assert_eq!(made["sources"][1]["downwardAPI"]["items"][0]["fieldRef"]["apiVersion"], "v1");
        let mut bare = json!({"name": "v"});
        default(bare.as_object_mut().unwrap());
        assert_eq!(bare, json!({"name": "v", "emptyDir": {}}));
    }
}
