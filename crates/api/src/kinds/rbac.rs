//! Role, ClusterRole and their bindings.

use super::{Kind, column, decodes, list, plain::PLAIN, pod, rules, text, wide};
use crate::{
    core,
    field::{FieldError, Path},
    meta::{self, child_mut, drop_nulls},
    names,
    table::{Column, age, created_at},
    validation,
};
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

fn validate_rule(rule: &Value, namespaced: bool, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let empty = |key: &str| list(rule, key).is_empty();
    let mut required = |key: &str, detail: &str| {
        errors.push(FieldError::required(&path.child(key), detail));
    };
    if empty("verbs") {
        required("verbs", "verbs must contain at least one value");
    }
    if empty("nonResourceURLs") {
        if empty("apiGroups") {
            required("apiGroups", "resource rules must supply at least one api group");
        }
        if empty("resources") {
            required("resources", "resource rules must supply at least one resource");
        }
        return errors;
    }
    let (at, urls) = (path.child("nonResourceURLs"), list(rule, "nonResourceURLs"));
    if namespaced {
        let detail = "namespaced rules cannot apply to non-resource URLs";
        errors.push(FieldError::invalid(&at, urls, detail));
    }
    if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
        let detail = "rules cannot apply to both regular resources and non-resource URLs";
        errors.push(FieldError::invalid(&at, urls, detail));
    }
    errors
}

fn validate_rules(object: &Value, namespaced: bool) -> Vec<FieldError> {
    let mut errors = validation::metadata(object, namespaced, names::path_segment);
    for (i, rule) in list(object, "rules").iter().enumerate() {
        errors.extend(validate_rule(rule, namespaced, &Path::new("rules").index(i)));
    }
    errors
}

fn validate_role(object: &Value) -> Vec<FieldError> {
    validate_rules(object, true)
}

fn validate_cluster_role(object: &Value) -> Vec<FieldError> {
    let mut errors = validate_rules(object, false);
    if let Some(aggregation) = object.get("aggregationRule").filter(|rule| !rule.is_null()) {
        let path = Path::new("aggregationRule").child("clusterRoleSelectors");
        let selectors = list(aggregation, "clusterRoleSelectors");
        if selectors.is_empty() {
            let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            errors.push(FieldError::required(&path, detail));
        }
        for (i, selector) in selectors.iter().enumerate() {
            errors.extend(rules::label_selector(Some(selector), &path.index(i)));
        }
    }
    errors
}

fn default_binding(object: &mut Value) {
    drop_nulls(object);
    if text(object, "/roleRef/apiGroup").is_empty() {
        child_mut(object, "roleRef").insert("apiGroup".to_owned(), GROUP.into());
    }
    let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
    for subject in subjects.into_iter().flatten() {
        let kind = text(subject, "/kind");
        let unset = text(subject, "/apiGroup").is_empty();
        if let (true, "User" | "Group", Some(fields)) =
            (unset, kind.as_str(), subject.as_object_mut())
        {
            fields.insert("apiGroup".to_owned(), GROUP.into());
        }
    }
}

fn validate_subject(subject: &Value, namespaced: bool, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (kind, name) = (text(subject, "/kind"), text(subject, "/name"));
    let group = text(subject, "/apiGroup");
    let (at_name, at_group) = (path.child("name"), path.child("apiGroup"));
    if name.is_empty() {
        errors.push(FieldError::required(&at_name, ""));
    }
    match kind.as_str() {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.extend(names::check(&at_name, &name, names::subdomain));
            }
            pod::enumeration(&mut errors, &at_group, &group, &[""]);
            if !namespaced && text(subject, "/namespace").is_empty() {
                errors.push(FieldError::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if name.is_empty() {
                let detail = format!("{} name cannot be empty", kind.to_lowercase());
                errors.push(FieldError::invalid(&at_name, "", detail));
            }
            pod::enumeration(&mut errors, &at_group, &group, &[GROUP]);
        }
        _ => {
            let kinds = &["ServiceAccount", "User", "Group"];
            errors.push(FieldError::not_supported(&path.child("kind"), kind, kinds));
        }
    }
    errors
}

fn validate_grant(object: &Value, namespaced: bool) -> Vec<FieldError> {
    let mut errors = validation::metadata(object, namespaced, names::path_segment);
    let path = Path::new("roleRef");
    let part = |key: &str| text(object, &format!("/roleRef/{key}"));
    pod::enumeration(&mut errors, &path.child("apiGroup"), &part("apiGroup"), &[GROUP]);
    let kinds = if namespaced { &["Role", "ClusterRole"][..] } else { &["ClusterRole"][..] };
    pod::enumeration(&mut errors, &path.child("kind"), &part("kind"), kinds);
    let name = part("name");
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    } else {
        errors.extend(names::check(&path.child("name"), &name, names::path_segment));
    }
    for (i, subject) in list(object, "subjects").iter().enumerate() {
        errors.extend(validate_subject(subject, namespaced, &Path::new("subjects").index(i)));
    }
    errors
}

fn validate_binding(object: &Value) -> Vec<FieldError> {
    validate_grant(object, true)
}

fn validate_cluster_binding(object: &Value) -> Vec<FieldError> {
    validate_grant(object, false)
}

fn updated(mut errors: Vec<FieldError>, new: &Value, old: &Value) -> Vec<FieldError> {
    errors.extend(validation::metadata_update(new, old));
    if new.get("roleRef") != old.get("roleRef") {
        let found = new.get("roleRef").cloned().unwrap_or_default();
        errors.push(FieldError::invalid(&Path::new("roleRef"), found, "cannot change roleRef"));
    }
    errors
}

/// Names of the subjects of a kind, service accounts with their namespaces.
fn subjects(object: &Value, kind: &str) -> Value {
    let named = |subject: &Value| match text(subject, "/namespace") {
        namespace if kind == "ServiceAccount" => {
            format!("{namespace}/{}", text(subject, "/name"))
        }
        _ => text(subject, "/name"),
    };
    let all = list(object, "subjects").iter().filter(|s| text(s, "/kind") == kind);
    all.map(named).collect::<Vec<_>>().join(", ").into()
}

fn binding_cells(object: &Value, now: i64) -> Vec<Value> {
    let part = |key: &str| text(object, &format!("/roleRef/{key}"));
    vec![
        meta::name(object).into(),
        format!("{}/{}", part("kind"), part("name")).into(),
        age(object, now).into(),
        subjects(object, "User"),
        subjects(object, "Group"),
        subjects(object, "ServiceAccount"),
    ]
}

const BINDING_COLUMNS: &[Column] = &[
    column("Name", "name"),
    column("Role", ""),
    column("Age", ""),
    wide("Users"),
    wide("Groups"),
    wide("ServiceAccounts"),
];

pub(super) const ROLE: Kind = Kind {
    group: GROUP,
    kind: "Role",
    plural: "roles",
    singular: "role",
    create_on_update: true,
    validate_create: validate_role,
    validate_update: |new, old| updated(validate_role(new), new, old),
    columns: &[column("Name", "name"), column("Created At", "")],
    cells: |object, _| vec![meta::name(object).into(), created_at(object).into()],
    decode: decodes::<core::Role>,
    ..PLAIN
};

pub(super) const CLUSTER_ROLE: Kind = Kind {
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    namespaced: false,
    validate_create: validate_cluster_role,
    validate_update: |new, old| updated(validate_cluster_role(new), new, old),
    decode: decodes::<core::ClusterRole>,
    ..ROLE
};

pub(super) const ROLE_BINDING: Kind = Kind {
    group: GROUP,
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    create_on_update: true,
    default: default_binding,
    validate_create: validate_binding,
    validate_update: |new, old| updated(validate_binding(new), new, old),
    columns: BINDING_COLUMNS,
    cells: binding_cells,
    decode: decodes::<core::RoleBinding>,
    ..PLAIN
};

pub(super) const CLUSTER_ROLE_BINDING: Kind = Kind {
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    namespaced: false,
    validate_create: validate_cluster_binding,
    validate_update: |new, old| updated(validate_cluster_binding(new), new, old),
    decode: decodes::<core::ClusterRoleBinding>,
    ..ROLE_BINDING
};
