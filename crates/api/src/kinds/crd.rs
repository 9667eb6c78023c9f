//! CustomResourceDefinition: the object itself, with schemas that are structural.

mod schema;

use super::{Kind, column, decodes, keep_status, list, plain::PLAIN, pod, set_default, text};
use crate::{
    core,
    field::{FieldError, Path},
    meta::{self, child_mut, drop_nulls},
    names,
    pod::condition_status,
    table::{Column, created_at},
    validation,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Nulls are fields that are not there, except in a schema, where one may be a value.
fn drop_nulls_outside_schemas(object: &mut Value) {
    let spec = child_mut(object, "spec");
    let mut schemas = Vec::new();
    for version in spec.get_mut("versions").and_then(Value::as_array_mut).into_iter().flatten() {
        schemas.push(version.as_object_mut().and_then(|version| version.remove("schema")));
    }
    drop_nulls(object);
    let versions = child_mut(object, "spec").get_mut("versions").and_then(Value::as_array_mut);
    for (version, schema) in versions.into_iter().flatten().zip(schemas) {
        if let (Some(version), Some(schema)) = (version.as_object_mut(), schema)
            && !schema.is_null()
        {
            version.insert("schema".to_owned(), schema);
        }
    }
}

fn default(object: &mut Value) {
    drop_nulls_outside_schemas(object);
    let spec = child_mut(object, "spec");
    let names = spec.entry("names").or_insert_with(|| json!({}));
    let kind = text(names, "/kind");
    if let (Some(names), false) = (names.as_object_mut(), kind.is_empty()) {
        for (key, value) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))]
        {
            if names.get(key).is_none_or(|name| name == "") {
                names.insert(key.to_owned(), value.into());
            }
        }
    }
    set_default(spec, "conversion", json!({"strategy": "None"}));
    let service = spec
        .get_mut("conversion")
        .and_then(|conversion| conversion.pointer_mut("/webhook/clientConfig/service"));
    if let Some(service) = service.and_then(Value::as_object_mut) {
        set_default(service, "port", 443);
    }
}

/// A status that knows the version that is stored: there may be objects of it from now on.
fn store_version(object: &mut Value) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let stored = list(spec, "versions").iter().find(|v| v.get("storage") == Some(&json!(true)));
    let Some(name) = stored.map(|version| text(version, "/name")) else { return };
    let versions = child_mut(object, "status").entry("storedVersions").or_insert_with(|| json!([]));
    if let Some(versions) = versions.as_array_mut().filter(|v| !v.contains(&json!(name))) {
        versions.push(name.into());
    }
}

/// Every word on one name in one error: so upstream has it for these.
fn name(path: &Path, value: &str, said: &str, prefix: &str) -> Option<FieldError> {
    let wrong = names::label_1035(value);
    (!wrong.is_empty())
        .then(|| FieldError::invalid(path, said, format!("{prefix}{}", wrong.join(","))))
}

fn validate_names(found: &Value, path: &Path, required: bool) -> Vec<FieldError> {
    const MIXED: &str = "may have mixed case, but should otherwise match: ";
    let mut errors = Vec::new();
    let part = |key: &str| text(found, &format!("/{key}"));
    for key in ["plural", "singular", "kind", "listKind"] {
        let value = part(key);
        if value.is_empty() {
            if required {
                errors.push(FieldError::required(&path.child(key), ""));
            }
        } else if key == "kind" || key == "listKind" {
            errors.extend(name(&path.child(key), &value.to_lowercase(), &value, MIXED));
        } else {
            errors.extend(name(&path.child(key), &value, &value, ""));
        }
    }
    for key in ["shortNames", "categories"] {
        for (i, value) in list(found, key).iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            errors.extend(name(&path.child(key).index(i), value, value, ""));
        }
    }
    let (kind, list_kind) = (part("kind"), part("listKind"));
    if !kind.is_empty() && kind == list_kind {
        let detail = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(&path.child("listKind"), list_kind, detail));
    }
    errors
}

fn validate_versions(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (versions, at) = (list(spec, "versions"), path.child("versions"));
    let mut seen = BTreeSet::new();
    let mut unique = true;
    for (i, version) in versions.iter().enumerate() {
        let value = text(version, "/name");
        errors.extend(name(&at.index(i).child("name"), &value, &value, ""));
        unique &= seen.insert(value);
    }
    let whole = spec.get("versions").cloned().unwrap_or_default();
    if !unique {
        let detail = "must contain unique version names";
        errors.push(FieldError::invalid(&at, whole.clone(), detail));
    }
    let stored = versions.iter().filter(|v| v.get("storage") == Some(&json!(true)));
    if stored.count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(&at, whole, detail));
    }
    errors
}

/// What each version has of its own, or all have in common: upstream moves it to the spec before it
/// looks, so that its errors are there.
fn parts<'a>(spec: &'a Value, path: &Path, key: &str) -> Vec<(Path, Option<&'a Value>)> {
    let versions = list(spec, "versions");
    let own = |version: &'a Value| version.get(key).filter(|part| !part.is_null());
    let Some(first) = versions.first() else { return Vec::new() };
    if versions.iter().all(|version| own(version) == own(first)) && own(first).is_some() {
        return vec![(path.clone(), own(first))];
    }
    let at = |i| path.child("versions").index(i);
    versions.iter().enumerate().map(|(i, version)| (at(i), own(version))).collect()
}

fn validate_schemas(spec: &Value, path: &Path) -> Vec<FieldError> {
    let all = parts(spec, path, "schema");
    let in_common = all.iter().any(|(at, _)| at == path);
    let mut errors = Vec::new();
    for (at, schema) in all {
        let at = at.child(if in_common { "validation" } else { "schema" });
        let at = at.child("openAPIV3Schema");
        match schema.and_then(|schema| schema.get("openAPIV3Schema")).filter(|s| !s.is_null()) {
            None => errors.push(FieldError::required(&at, "schemas are required")),
            Some(schema) => {
                let wrong = schema::validate(schema, &at);
                // What is not structural cannot be read any further.
                if wrong.is_empty() {
                    errors.extend(crate::custom::check_definition(schema, &at));
                }
                errors.extend(wrong);
            }
        }
    }
    errors
}

fn validate_columns(spec: &Value, path: &Path) -> Vec<FieldError> {
    const TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
    const FORMATS: &[&str] =
        &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    let mut errors = Vec::new();
    for (at, columns) in parts(spec, path, "additionalPrinterColumns") {
        let at = at.child("additionalPrinterColumns");
        for (i, column) in columns.and_then(Value::as_array).into_iter().flatten().enumerate() {
            let at = at.index(i);
            let part = |key: &str| text(column, &format!("/{key}"));
            if part("name").is_empty() {
                errors.push(FieldError::required(&at.child("name"), ""));
            }
            let one_of = |all: &[&str]| format!("must be one of {}", all.join(","));
            match part("type") {
                none if none.is_empty() => {
                    errors.push(FieldError::required(&at.child("type"), &one_of(TYPES)));
                }
                kind if !TYPES.contains(&kind.as_str()) => {
                    errors.push(FieldError::invalid(&at.child("type"), kind, one_of(TYPES)));
                }
                _ => {}
            }
            let format = part("format");
            if !format.is_empty() && !FORMATS.contains(&format.as_str()) {
                errors.push(FieldError::invalid(&at.child("format"), format, one_of(FORMATS)));
            }
            let json_path = part("jsonPath");
            if json_path.is_empty() {
                errors.push(FieldError::required(&at.child("JSONPath"), ""));
            } else if let Some(error) = crate::custom::path_error(&json_path) {
                let detail = format!("illegal JSON path: {error}");
                errors.push(FieldError::invalid(&at.child("JSONPath"), json_path, detail));
            }
        }
    }
    errors
}

fn validate_subresources(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, subresources) in parts(spec, path, "subresources") {
        let Some(scale) = subresources.and_then(|s| s.get("scale")).filter(|s| !s.is_null()) else {
            continue;
        };
        let at = at.child("subresources").child("scale");
        for (key, parents, required) in [
            ("specReplicasPath", &[".spec."][..], true),
            ("statusReplicasPath", &[".status."][..], true),
            ("labelSelectorPath", &[".spec.", ".status."][..], false),
        ] {
            let (found, at) = (text(scale, &format!("/{key}")), at.child(key));
            if found.is_empty() {
                if required {
                    errors.push(FieldError::required(&at, ""));
                }
            } else if !parents.iter().any(|parent| found.starts_with(parent)) {
                let names: Vec<&str> = parents.iter().map(|p| p.trim_end_matches('.')).collect();
                let detail = match names.as_slice() {
                    [one] => format!("should be a json path under {one}"),
                    all => format!("should be a json path under either {}", all.join(" or ")),
                };
                errors.push(FieldError::invalid(&at, found, detail));
            }
        }
    }
    errors
}

fn validate_conversion(spec: &Value, path: &Path) -> Vec<FieldError> {
    let path = path.child("conversion");
    let mut errors = Vec::new();
    let strategy = text(spec, "/conversion/strategy");
    let webhook = spec.pointer("/conversion/webhook").filter(|webhook| !webhook.is_null());
    if strategy.is_empty() {
        errors.push(FieldError::required(&path.child("strategy"), ""));
        return errors;
    }
    pod::enumeration(&mut errors, &path.child("strategy"), &strategy, &["None", "Webhook"]);
    let config = webhook.and_then(|webhook| webhook.get("clientConfig")).filter(|c| !c.is_null());
    let reviews = webhook.map_or(&[][..], |webhook| list(webhook, "conversionReviewVersions"));
    if strategy != "Webhook" {
        let detail = "should not be set when strategy is not set to Webhook";
        if config.is_some() {
            errors.push(FieldError::forbidden(&path.child("webhookClientConfig"), detail));
        }
        if !reviews.is_empty() {
            errors.push(FieldError::forbidden(&path.child("conversionReviewVersions"), detail));
        }
        return errors;
    }
    let at = path.child("webhookClientConfig");
    match config {
        None => {
            let detail = "required when strategy is set to Webhook";
            errors.push(FieldError::required(&at, detail));
        }
        Some(config) => {
            let is = |key: &str| config.get(key).is_some_and(|value| !value.is_null());
            if is("url") == is("service") {
                let detail = "exactly one of url or service is required";
                errors.push(FieldError::required(&at, detail));
            }
        }
    }
    if list(spec, "versions").len() > 1 {
        // Better than objects that no webhook has seen.
        let detail = "conversion by a webhook is not supported: use None, or a single version";
        errors.push(FieldError::forbidden(&path.child("strategy"), detail));
    }
    let at = path.child("conversionReviewVersions");
    if reviews.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else if !reviews.iter().any(|version| version == "v1" || version == "v1beta1") {
        let detail = "must include at least one of v1, v1beta1";
        errors.push(FieldError::invalid(&at, reviews, detail));
    }
    errors
}

/// Groups of the Kubernetes community are only for what it has looked at, or what says that it has not.
fn validate_approval(object: &Value, group: &str) -> Option<FieldError> {
    const ANNOTATION: &str = "api-approved.kubernetes.io";
    let protected = |domain: &str| group == domain || group.ends_with(&format!(".{domain}"));
    if !protected("k8s.io") && !protected("kubernetes.io") {
        return None;
    }
    let path = Path::new("metadata").child("annotations").key(ANNOTATION);
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let must = format!("protected groups must have approval annotation {ANNOTATION:?}");
    match meta::annotation(object, ANNOTATION).unwrap_or_default() {
        "" => Some(FieldError::required(&path, &format!("{must}, {see}"))),
        said if said.starts_with("unapproved") || said.contains("://") => None,
        said => {
            let detail =
                format!("{must} with either a URL or a reason starting with \"unapproved\", {see}");
            Some(FieldError::invalid(&path, said, detail))
        }
    }
}

/// What field selectors may ask for: plain fields of the schema that hold one value.
fn validate_selectable(spec: &Value, path: &Path) -> Vec<FieldError> {
    const FIELDS_MAX: usize = 8;
    let mut errors = Vec::new();
    for (i, version) in list(spec, "versions").iter().enumerate() {
        let at = path.child("versions").index(i).child("selectableFields");
        let fields = list(version, "selectableFields");
        if fields.len() > FIELDS_MAX {
            errors.push(FieldError::too_many(&at, fields.len(), FIELDS_MAX));
        }
        let schema = version.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null);
        let mut seen = BTreeSet::new();
        for (i, field) in fields.iter().enumerate() {
            let (said, at) = (text(field, "/jsonPath"), at.index(i).child("jsonPath"));
            if said.is_empty() {
                errors.push(FieldError::required(&at, ""));
            } else if let Some(wrong) = selectable_error(schema, &said) {
                errors.push(FieldError::invalid(&at, said, wrong));
            } else if !seen.insert(said.clone()) {
                errors.push(FieldError::duplicate(&at, said));
            }
        }
    }
    errors
}

fn selectable_error(schema: &Value, path: &str) -> Option<&'static str> {
    const NO_PATH: &str = "is an invalid path: only simple fields such as .spec.field are allowed";
    let Ok(parsed) = crate::custom::jsonpath::Path::parse(path) else { return Some(NO_PATH) };
    let Some(fields) = parsed.fields().filter(|_| path.starts_with('.')) else {
        return Some(NO_PATH);
    };
    if fields.first() == Some(&"metadata") {
        return Some("must not point to fields in metadata");
    }
    let inner = |at: &'_ Value, name: &str| at.get("properties").and_then(|p| p.get(name)).cloned();
    let found = fields.iter().try_fold(schema.clone(), |at, name| inner(&at, name));
    match found.map(|found| text(&found, "/type")).as_deref() {
        Some("string" | "integer" | "boolean") => None,
        Some(_) => Some("must point to a field of type string, boolean or integer"),
        None => Some("is an invalid path: does not refer to a valid field"),
    }
}

fn validate(object: &Value) -> Vec<FieldError> {
    let (spec, path) = (object.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
    let group = text(spec, "/group");
    let mut errors = validation::metadata(object, false, names::subdomain);
    let full = format!("{}.{group}", text(spec, "/names/plural"));
    if !meta::name(object).is_empty() && meta::name(object) != full {
        let at = Path::new("metadata").child("name");
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid(&at, meta::name(object), detail));
    }
    let at = path.child("group");
    let wrong = names::subdomain(&group);
    if group.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else if !wrong.is_empty() {
        errors.push(FieldError::invalid(&at, group, wrong.join(",")));
    } else if !group.contains('.') {
        let detail = "should be a domain with at least one dot";
        errors.push(FieldError::invalid(&at, group, detail));
    } else if super::is_own_group(&group) {
        errors.push(FieldError::invalid(&at, group, "is served by the API server itself"));
    }
    errors.extend(validate_approval(object, &text(spec, "/group")));
    let scope = text(spec, "/scope");
    if scope.is_empty() {
        errors.push(FieldError::required(&path.child("scope"), ""));
    } else {
        pod::enumeration(&mut errors, &path.child("scope"), &scope, &["Cluster", "Namespaced"]);
    }
    if spec.get("preserveUnknownFields") == Some(&json!(true)) {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                      spec.versions[*].schema instead";
        errors.push(FieldError::invalid(&path.child("preserveUnknownFields"), true, detail));
    }
    errors.extend(validate_versions(spec, &path));
    errors.extend(validate_schemas(spec, &path));
    let names = spec.get("names").unwrap_or(&Value::Null);
    errors.extend(validate_names(names, &path.child("names"), true));
    errors.extend(validate_subresources(spec, &path));
    errors.extend(validate_columns(spec, &path));
    errors.extend(validate_selectable(spec, &path));
    errors.extend(validate_conversion(spec, &path));
    errors
}

/// That the status knows every version of which there may be objects, and none that is no more.
fn validate_stored(object: &Value) -> Vec<FieldError> {
    let null = Value::Null;
    let status = object.get("status").unwrap_or(&null);
    let (stored, path) = (list(status, "storedVersions"), Path::new("status"));
    let at = path.child("storedVersions");
    if stored.is_empty() {
        let found = status.get("storedVersions").cloned().unwrap_or_default();
        return vec![FieldError::invalid(&at, found, "must have at least one stored version")];
    }
    let versions = list(object.get("spec").unwrap_or(&null), "versions");
    let mut errors = Vec::new();
    for version in versions {
        let name = text(version, "/name");
        if version.get("storage") == Some(&json!(true)) && !stored.contains(&json!(name)) {
            let detail = format!("must have the storage version {name}");
            errors.push(FieldError::invalid(&at, version.clone(), detail));
        }
    }
    for (i, name) in stored.iter().enumerate() {
        if !versions.iter().any(|version| version.get("name") == Some(name)) {
            let detail = "must appear in spec.versions";
            errors.push(FieldError::invalid(&at.index(i), name.clone(), detail));
        }
    }
    errors
}

fn validate_status(new: &Value, _: &Value) -> Vec<FieldError> {
    let accepted = new.pointer("/status/acceptedNames").unwrap_or(&Value::Null);
    let path = Path::new("status").child("acceptedNames");
    let mut errors = validate_names(accepted, &path, false);
    errors.extend(validate_stored(new));
    errors
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validation::metadata_update(new, old);
    errors.extend(validate(new));
    errors.extend(validate_stored(new));
    // Objects of an established kind are stored under these.
    let established = condition_status(old, "Established") == "True";
    for (keys, fixed) in [
        (&["scope"][..], established),
        (&["names", "kind"][..], established),
        (&["group"][..], true),
        (&["names", "plural"][..], true),
    ] {
        let part = |object: &Value| text(object, &format!("/spec/{}", keys.join("/")));
        if fixed && part(new) != part(old) {
            let path = keys.iter().fold(Path::new("spec"), |path, key| path.child(key));
            errors.push(FieldError::invalid(&path, part(new), "field is immutable"));
        }
    }
    errors
}

pub(super) const KIND: Kind = Kind {
    group: "apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &["status"],
    unconditional_update: false,
    has_generation: true,
    default,
    prepare_create: |object| {
        let status = child_mut(object, "status");
        *status = Map::new();
        status.insert("acceptedNames".to_owned(), json!({"kind": "", "plural": ""}));
        status.insert("conditions".to_owned(), json!([]));
        store_version(object);
    },
    prepare_update: |new, old| {
        keep_status(new, old);
        store_version(new);
    },
    prepare_status: super::take_status,
    validate_create: validate,
    validate_update,
    validate_status,
    columns: &[
        column("Name", "name"),
        Column { name: "Created At", kind: "date", format: "", priority: 0 },
    ],
    cells: |object, _| vec![meta::name(object).into(), created_at(object).into()],
    decode: decodes::<core::CustomResourceDefinition>,
    ..PLAIN
};

#[cfg(test)]
mod tests {
    use super::*;

    fn crd() -> Value {
        json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                        "spec": {"type": "object", "properties": {
                            "size": {"type": "integer", "default": null},
                        }},
                    }}},
                }],
            },
        })
    }

    #[test]
    fn a_definition_says_the_rest_of_its_names_and_what_is_stored() {
        let mut object = crd();
        default(&mut object);
        (KIND.prepare_create)(&mut object);
        let names = json!({
            "plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList",
        });
        assert_eq!(object["spec"]["names"], names);
        assert_eq!(object["spec"]["conversion"], json!({"strategy": "None"}));
        assert_eq!(object["status"]["storedVersions"], json!(["v1"]));
        let size = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/size";
        assert!(object.pointer(size).unwrap().get("default").is_some(), "a null is a value there");
        assert_eq!(validate(&object), []);
    }

    #[test]
    fn a_version_stays_stored_until_somebody_says_otherwise() {
        let mut old = crd();
        default(&mut old);
        (KIND.prepare_create)(&mut old);
        let mut new = old.clone();
        new["spec"]["versions"][0]["storage"] = json!(false);
        let mut second = new["spec"]["versions"][0].clone();
        second["name"] = json!("v2");
        second["storage"] = json!(true);
        new["spec"]["versions"].as_array_mut().unwrap().push(second);
        new["status"] = json!({});
        (KIND.prepare_update)(&mut new, &old);
        assert_eq!(new["status"]["storedVersions"], json!(["v1", "v2"]));
        assert_eq!(validate_update(&new, &old), []);
        let mut gone = new.clone();
        gone["spec"]["versions"].as_array_mut().unwrap().remove(0);
        (KIND.prepare_update)(&mut gone, &new);
        let errors = validate_update(&gone, &new);
        assert_eq!(
            errors[0].to_string(),
            "status.storedVersions[0]: Invalid value: \"v1\": must appear in spec.versions"
        );
    }

    #[test]
    fn wrong_definitions_are_refused_in_upstreams_words() {
        // VAL-5
        let set = |pointer: &str, value: Value| {
            let mut object = crd();
            default(&mut object);
            (KIND.prepare_create)(&mut object);
            *object.pointer_mut(pointer).unwrap() = value;
            object
        };
        let version = |more: Value| {
            let mut version = crd()["spec"]["versions"][0].clone();
            version.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            version
        };
        let spec = |rules: Value| json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": rules}}});
        let mut webhook = set(
            "/spec/versions",
            json!([version(json!({})), version(json!({"name": "v2", "storage": false})),]),
        );
        webhook["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
            "conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://example.com"}}});
        let mut community = set("/spec/group", json!("widgets.k8s.io"));
        community["metadata"]["name"] = json!("widgets.widgets.k8s.io");
        let mut approved = community.clone();
        approved["metadata"]["annotations"] =
            json!({"api-approved.kubernetes.io": "unapproved, for a test"});
        let selectable = |path: &str| {
            set("/spec/versions/0", version(json!({"selectableFields": [{"jsonPath": path}]})))
        };
        let column = |path: &str| {
            let columns = json!([{"name": "A", "type": "string", "jsonPath": path}]);
            set("/spec/versions/0", version(json!({"additionalPrinterColumns": columns})))
        };
        for (name, object, want) in [
            (
                "conversion by a webhook",
                webhook,
                "spec.conversion.strategy: Forbidden: conversion by a webhook is not supported: use None, or a single version",
            ),
            (
                "a group of the community",
                community,
                "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
            ),
            ("one that says why", approved, ""),
            (
                "selecting by what there is not",
                selectable(".spec.color"),
                "spec.versions[0].selectableFields[0].jsonPath: Invalid value: \".spec.color\": is an invalid path: does not refer to a valid field",
            ),
            (
                "selecting by a list",
                selectable(".spec"),
                "spec.versions[0].selectableFields[0].jsonPath: Invalid value: \".spec\": must point to a field of type string, boolean or integer",
            ),
            ("selecting by a number", selectable(".spec.size"), ""),
            (
                "a column of no path",
                column(".spec["),
                "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \".spec[\": illegal JSON path: invalid array index at 6 of \".spec[\"",
            ),
            (
                "a rule of no expression",
                set(
                    "/spec/versions/0/schema",
                    spec(
                        json!({"type": "object", "x-kubernetes-validations": [{"rule": "self."}]}),
                    ),
                ),
                "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value: {\"rule\":\"self.\"}: compilation failed: ERROR: <input>: 1:6: Syntax error: unexpected '<EOF>'",
            ),
            (
                "a rule of a function that there is not",
                set(
                    "/spec/versions/0/schema",
                    spec(
                        json!({"type": "string", "x-kubernetes-validations": [{"rule": "authorizer.path('/').check('get')"}]}),
                    ),
                ),
                "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value: {\"rule\":\"authorizer.path('/').check('get')\"}: compilation failed: ERROR: <input>: undeclared reference to 'check' (in container '')",
            ),
            (
                "a pattern of none",
                set("/spec/versions/0/schema", spec(json!({"type": "string", "pattern": "[a"}))),
                "spec.validation.openAPIV3Schema.properties[spec].pattern: Invalid value: \"[a\": must be a valid regular expression, but isn't: ",
            ),
            (
                "a default of another type",
                set("/spec/versions/0/schema", spec(json!({"type": "integer", "default": "x"}))),
                "spec.validation.openAPIV3Schema.properties[spec].default: Invalid value: \"string\": ",
            ),
        ] {
            let errors = validate(&object);
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            match want {
                "" => assert_eq!(texts, [""; 0], "{name}"),
                want => {
                    assert!(texts.len() == 1 && texts[0].starts_with(want), "{name}: {texts:#?}")
                }
            }
        }
    }

    #[test]
    fn what_objects_are_stored_under_does_not_change() {
        let mut old = crd();
        default(&mut old);
        (KIND.prepare_create)(&mut old);
        let mut new = old.clone();
        new["spec"]["scope"] = json!("Cluster");
        assert_eq!(validate_update(&new, &old), []);
        old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
        let errors = validate_update(&new, &old);
        let text = errors[0].to_string();
        assert_eq!(text, "spec.scope: Invalid value: \"Cluster\": field is immutable");
    }
}
