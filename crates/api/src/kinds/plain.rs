//! Kinds with little of their own: Namespace, ConfigMap, Secret, Event, ServiceAccount, Lease.

use super::{
    Kind, any_status, column, decodes, keep_status, no_defaults, no_field, nothing, spec_changed,
    take_all, take_status, text, valid_metadata, validate_namespaced, validate_namespaced_update,
    wide,
};
use crate::{
    core,
    field::{FieldError, Path},
    meta::child_mut,
    names,
    table::{age, since},
};
use serde_json::{Value, json};

/// Most rows differ from this one in a few fields.
pub(super) const PLAIN: Kind = Kind {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    graceful: false,
    unconditional_update: true,
    create_on_update: false,
    has_generation: false,
    generation_counts: spec_changed,
    scale: None,
    pod_spec: None,
    default: no_defaults,
    prepare_create: nothing,
    prepare_update: take_all,
    prepare_status: take_all,
    validate_create: validate_namespaced,
    validate_update: validate_namespaced_update,
    validate_status: any_status,
    columns: &[column("Name", "name"), column("Age", "")],
    cells: |object, now| vec![crate::meta::name(object).into(), age(object, now).into()],
    field_labels: &[],
    field: no_field,
    decode: |_| Ok(()),
    hub: None,
    custom: None,
};

/// The label by which a namespace is selected (NS-1).
fn name_label(namespace: &mut Value) {
    let name = crate::meta::name(namespace).to_owned();
    let labels = crate::meta::metadata_mut(namespace).entry("labels").or_insert(json!({}));
    if let (false, Some(labels)) = (name.is_empty(), labels.as_object_mut()) {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
}

pub(super) const NAMESPACE: Kind = Kind {
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    subresources: &["status", "finalize"],
    default: |object| {
        let finalizers =
            child_mut(object, "spec").entry("finalizers").or_insert(json!(["kubernetes"]));
        if finalizers.is_null() {
            *finalizers = json!(["kubernetes"]);
        }
        child_mut(object, "status").entry("phase").or_insert(json!("Active"));
    },
    prepare_create: |object| {
        child_mut(object, "status").insert("phase".to_owned(), json!("Active"));
        name_label(object);
    },
    prepare_update: |new, old| {
        keep_status(new, old);
        // They change only by `/finalize` (NS-1).
        let finalizers = old.pointer("/spec/finalizers").cloned().unwrap_or_default();
        child_mut(new, "spec").insert("finalizers".to_owned(), finalizers);
        name_label(new);
    },
    prepare_status: take_status,
    validate_create: |object| crate::validation::metadata(object, false, names::label),
    validate_update: |new, old| {
        let mut errors = crate::validation::metadata(new, false, names::label);
        errors.extend(crate::validation::metadata_update(new, old));
        errors
    },
    columns: &[column("Name", "name"), column("Status", ""), column("Age", "")],
    cells: |object, now| {
        vec![
            crate::meta::name(object).into(),
            text(object, "/status/phase").into(),
            age(object, now).into(),
        ]
    },
    field_labels: &["status.phase"],
    field: |object, _| text(object, "/status/phase"),
    decode: decodes::<core::Namespace>,
    ..PLAIN
};

fn valid_keys(object: &Value, fields: &[&str]) -> Vec<FieldError> {
    let mut errors = valid_metadata(object, true);
    for field in fields {
        let path = Path::new(field);
        for key in object.get(*field).and_then(Value::as_object).into_iter().flat_map(|m| m.keys())
        {
            errors.extend(names::check(&path.key(key), key, names::config_key));
        }
    }
    errors
}

fn immutable(new: &Value, old: &Value, fields: &[&str]) -> Vec<FieldError> {
    if old.get("immutable").and_then(Value::as_bool) != Some(true) {
        return Vec::new();
    }
    fields
        .iter()
        .filter(|field| new.get(**field) != old.get(**field))
        .map(|field| {
            FieldError::forbidden(&Path::new(field), "field is immutable when `immutable` is set")
        })
        .collect()
}

fn count(object: &Value, fields: &[&str]) -> Value {
    let keys = |field: &&str| object.get(*field).and_then(Value::as_object).map_or(0, |m| m.len());
    fields.iter().map(keys).sum::<usize>().into()
}

const CONFIG_FIELDS: &[&str] = &["data", "binaryData"];
const SECRET_FIELDS: &[&str] = &["data", "stringData"];

pub(super) const CONFIG_MAP: Kind = Kind {
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    validate_create: |object| valid_keys(object, CONFIG_FIELDS),
    validate_update: |new, old| {
        let mut errors = valid_keys(new, CONFIG_FIELDS);
        errors.extend(crate::validation::metadata_update(new, old));
        errors.extend(immutable(new, old, CONFIG_FIELDS));
        errors
    },
    columns: &[column("Name", "name"), column("Data", ""), column("Age", "")],
    cells: |object, now| {
        let name = crate::meta::name(object).into();
        vec![name, count(object, CONFIG_FIELDS), age(object, now).into()]
    },
    decode: decodes::<core::ConfigMap>,
    ..PLAIN
};

pub(super) const SECRET: Kind = Kind {
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    default: |object| {
        let strings = object.as_object_mut().and_then(|o| o.remove("stringData"));
        if let Some(Value::Object(strings)) = strings {
            use base64::Engine as _;
            let data = child_mut(object, "data");
            for (key, value) in strings {
                let plain = value.as_str().unwrap_or_default();
                let encoded = base64::engine::general_purpose::STANDARD.encode(plain);
                data.insert(key, encoded.into());
            }
        }
        if let Some(object) = object.as_object_mut() {
            object.entry("type").or_insert(json!("Opaque"));
        }
    },
    validate_create: |object| valid_keys(object, SECRET_FIELDS),
    validate_update: |new, old| {
        let mut errors = valid_keys(new, SECRET_FIELDS);
        errors.extend(crate::validation::metadata_update(new, old));
        errors.extend(immutable(new, old, SECRET_FIELDS));
        errors
    },
    columns: &[column("Name", "name"), column("Type", ""), column("Data", ""), column("Age", "")],
    cells: |object, now| {
        let name = crate::meta::name(object).into();
        vec![name, text(object, "/type").into(), count(object, &["data"]), age(object, now).into()]
    },
    field_labels: &["type"],
    field: |object, _| text(object, "/type"),
    decode: decodes::<core::Secret>,
    ..PLAIN
};

pub(super) const EVENT: Kind = Kind {
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    columns: &[
        column("Last Seen", ""),
        column("Type", ""),
        column("Reason", ""),
        column("Object", ""),
        wide("Subobject"),
        wide("Source"),
        column("Message", ""),
        wide("First Seen"),
        wide("Count"),
        wide("Name"),
    ],
    cells: |object, now| {
        let time = |field: &str| {
            let micro = object.get("eventTime").filter(|t| !t.is_null());
            since(object.get(field).filter(|t| !t.is_null()).or(micro), now)
        };
        let involved = format!(
            "{}/{}",
            text(object, "/involvedObject/kind").to_lowercase(),
            text(object, "/involvedObject/name")
        );
        vec![
            time("lastTimestamp").into(),
            text(object, "/type").into(),
            text(object, "/reason").into(),
            involved.into(),
            text(object, "/involvedObject/fieldPath").into(),
            text(object, "/source/component").into(),
            text(object, "/message").trim().into(),
            time("firstTimestamp").into(),
            object.get("count").cloned().unwrap_or(json!(1)),
            crate::meta::name(object).into(),
        ]
    },
    field_labels: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    field: |object, label| match label {
        "source" => text(object, "/source/component"),
        label => text(object, &format!("/{}", label.replace('.', "/"))),
    },
    decode: decodes::<core::Event>,
    ..PLAIN
};

pub(super) const SERVICE_ACCOUNT: Kind = Kind {
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    subresources: &["token"],
    decode: decodes::<core::ServiceAccount>,
    ..PLAIN
};

pub(super) const LEASE: Kind = Kind {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    create_on_update: true,
    columns: &[column("Name", "name"), column("Holder", ""), column("Age", "")],
    cells: |object, now| {
        let holder = text(object, "/spec/holderIdentity");
        vec![crate::meta::name(object).into(), holder.into(), age(object, now).into()]
    },
    decode: decodes::<core::Lease>,
    ..PLAIN
};
