//! StatefulSet: Pods with names and claims of their own.

use super::{
    Kind, column, decodes_amounts, keep_status, list, normalize_amounts, number,
    plain::PLAIN,
    pod, rules, set_default, take_status,
    template::{self, CONTAINERS, Selected},
    text,
};
use crate::{
    core,
    field::{FieldError, Path},
    meta::{self, child_mut, drop_nulls},
    names,
    scale::ScalePaths,
    table::age,
    validation,
};
use serde_json::{Value, json};

/// Where a StatefulSet has amounts: the template's places, and the claims'.
const AMOUNTS: &[&str] = &[
    "spec/template/spec/containers/*/resources/limits/*",
    "spec/template/spec/containers/*/resources/requests/*",
    "spec/template/spec/initContainers/*/resources/limits/*",
    "spec/template/spec/initContainers/*/resources/requests/*",
    "spec/template/spec/overhead/*",
    "spec/volumeClaimTemplates/*/spec/resources/limits/*",
    "spec/volumeClaimTemplates/*/spec/resources/requests/*",
];

fn default(object: &mut Value) {
    drop_nulls(object);
    let spec = child_mut(object, "spec");
    set_default(spec, "replicas", 1);
    set_default(spec, "podManagementPolicy", "OrderedReady");
    set_default(spec, "revisionHistoryLimit", 10);
    let strategy = spec.entry("updateStrategy").or_insert_with(|| json!({}));
    if text(strategy, "/type").is_empty()
        && let Some(fields) = strategy.as_object_mut()
    {
        fields.insert("type".to_owned(), "RollingUpdate".into());
        fields.entry("rollingUpdate").or_insert_with(|| json!({}));
    }
    if text(strategy, "/type") == "RollingUpdate"
        && let Some(rolling) = strategy.get_mut("rollingUpdate").and_then(Value::as_object_mut)
    {
        set_default(rolling, "partition", 0);
    }
    let retention = spec.entry("persistentVolumeClaimRetentionPolicy").or_insert_with(|| json!({}));
    if let Some(retention) = retention.as_object_mut() {
        set_default(retention, "whenDeleted", "Retain");
        set_default(retention, "whenScaled", "Retain");
    }
    let claims = spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut);
    for claim in claims.into_iter().flatten() {
        set_default(child_mut(claim, "spec"), "volumeMode", "Filesystem");
        set_default(child_mut(claim, "status"), "phase", "Pending");
        if let Some(claim) = claim.as_object_mut() {
            set_default(claim, "apiVersion", "v1");
            set_default(claim, "kind", "PersistentVolumeClaim");
        }
    }
    template::default_in(spec);
    normalize_amounts(object, AMOUNTS);
}

/// The template with a volume for each claim, as its Pods will have it; a claim takes the place of a
/// volume of its name.
fn with_claims(spec: &Value) -> Value {
    let mut template = spec.get("template").cloned().unwrap_or_default();
    let claims: Vec<String> =
        list(spec, "volumeClaimTemplates").iter().map(|c| meta::name(c).to_owned()).collect();
    if claims.is_empty() {
        return template;
    }
    let volumes = child_mut(&mut template, "spec").entry("volumes").or_insert_with(|| json!([]));
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.retain(|volume| !claims.contains(&text(volume, "/name")));
        for name in claims {
            volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        }
    }
    template
}

fn validate_claims(spec: &Value, path: &Path) -> Vec<FieldError> {
    const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    let mut errors = Vec::new();
    for (i, claim) in list(spec, "volumeClaimTemplates").iter().enumerate() {
        let at = path.index(i).child("spec");
        let spec = claim.get("spec").unwrap_or(&Value::Null);
        let modes = list(spec, "accessModes");
        if modes.is_empty() {
            let detail = "at least 1 access mode is required";
            errors.push(FieldError::required(&at.child("accessModes"), detail));
        }
        for mode in modes {
            let mode = mode.as_str().unwrap_or_default();
            pod::enumeration(&mut errors, &at.child("accessModes"), mode, MODES);
        }
        if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
            let detail = "may not use ReadWriteOncePod with other access modes";
            errors.push(FieldError::forbidden(&at.child("accessModes"), detail));
        }
        errors.extend(rules::label_selector(spec.get("selector"), &at.child("selector")));
        let storage_at = at.child("resources").key("storage");
        match spec.pointer("/resources/requests/storage") {
            None => errors.push(FieldError::required(&storage_at, "")),
            Some(storage) => {
                let positive = |q: crate::quantity::Quantity| !q.is_negative() && !q.is_zero();
                if !rules::amount(storage).is_some_and(positive) {
                    let detail = "must be greater than zero";
                    errors.push(FieldError::invalid(&storage_at, storage.clone(), detail));
                }
            }
        }
        let mode = text(spec, "/volumeMode");
        pod::enumeration(&mut errors, &at.child("volumeMode"), &mode, &["Block", "Filesystem"]);
    }
    errors
}

fn validate_strategy(strategy: &Value, path: &Path) -> Vec<FieldError> {
    let at = path.child("rollingUpdate");
    let rolling = strategy.get("rollingUpdate").filter(|r| !r.is_null());
    match (text(strategy, "/type").as_str(), rolling) {
        ("", _) => vec![FieldError::required(path, "")],
        ("OnDelete", Some(rolling)) => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            vec![FieldError::invalid(&at, rolling.clone(), detail)]
        }
        ("OnDelete" | "RollingUpdate", None) => Vec::new(),
        ("RollingUpdate", Some(rolling)) => {
            let mut errors = rules::non_negative(rolling, &at, &["partition"]);
            if let Some(share) = rolling.get("maxUnavailable").filter(|share| !share.is_null()) {
                let at = at.child("maxUnavailable");
                errors.extend(rules::int_or_percent(share, &at));
                if rules::int_or_percent_value(Some(share)) == 0 {
                    errors.push(FieldError::invalid(&at, share.clone(), "cannot be 0"));
                }
                errors.extend(rules::at_most_all(share, &at));
            }
            errors
        }
        _ => {
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            vec![FieldError::invalid(path, strategy.clone(), detail)]
        }
    }
}

fn validate_spec(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let policy = text(spec, "/podManagementPolicy");
    let at = path.child("podManagementPolicy");
    match policy.as_str() {
        "" => errors.push(FieldError::required(&at, "")),
        "OrderedReady" | "Parallel" => {}
        _ => {
            let detail = "must be 'OrderedReady' or 'Parallel'";
            errors.push(FieldError::invalid(&at, policy, detail));
        }
    }
    let strategy = spec.get("updateStrategy").unwrap_or(&Value::Null);
    errors.extend(validate_strategy(strategy, &path.child("updateStrategy")));
    for when in ["whenDeleted", "whenScaled"] {
        let retention = path.child("persistentVolumeClaimRetentionPolicy").child(when);
        let what = text(spec, &format!("/persistentVolumeClaimRetentionPolicy/{when}"));
        pod::enumeration(&mut errors, &retention, &what, &["Retain", "Delete"]);
    }
    let counts = &["replicas", "minReadySeconds", "revisionHistoryLimit"];
    errors.extend(rules::non_negative(spec, path, counts));
    let ordinals = spec.get("ordinals").unwrap_or(&Value::Null);
    errors.extend(rules::non_negative(ordinals, &path.child("ordinals"), &["start"]));
    let service = text(spec, "/serviceName");
    if !service.is_empty() {
        errors.extend(names::check(&path.child("serviceName"), &service, names::label));
    }
    errors.extend(validate_claims(spec, &path.child("volumeClaimTemplates")));
    let texts = ("empty selector is invalid for statefulset", "");
    let selected = template::validate_selector(spec, path, texts, &mut errors);
    let (template, at) = (with_claims(spec), path.child("template"));
    if !matches!(selected, Selected::Unclear) {
        errors.extend(template::validate_match(&selected, &template, &at));
        errors.extend(template::validate(&template, &at));
    }
    errors.extend(template::validate_lasting(&template, &at, "StatefulSet"));
    errors
}

fn validate(object: &Value) -> Vec<FieldError> {
    // A label and not more: Pods are named after it, and by their names they are found.
    let mut errors = validation::metadata(object, true, names::label);
    let spec = object.get("spec").unwrap_or(&Value::Null);
    errors.extend(validate_spec(spec, &Path::new("spec")));
    errors
}

/// What an update may change of a spec.
const CHANGEABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validation::metadata_update(new, old);
    errors.extend(validate(new));
    let fixed = |object: &Value| {
        let mut spec = object.get("spec").cloned().unwrap_or_default();
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|key, _| !CHANGEABLE.contains(&key.as_str()));
        }
        spec
    };
    if !meta::same(&fixed(new), &fixed(old)) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
                      'template', 'updateStrategy', 'revisionHistoryLimit', \
                      'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden(&Path::new("spec"), detail));
    }
    errors
}

const COUNTS: &[&str] = &[
    "replicas",
    "readyReplicas",
    "currentReplicas",
    "updatedReplicas",
    "availableReplicas",
    "observedGeneration",
    "collisionCount",
];
const AT_MOST: &[(&str, &str, &str)] = &[
    ("readyReplicas", "replicas", "cannot be greater than status.replicas"),
    ("currentReplicas", "replicas", "cannot be greater than status.replicas"),
    ("updatedReplicas", "replicas", "cannot be greater than status.replicas"),
    ("availableReplicas", "replicas", "cannot be greater than status.replicas"),
    ("availableReplicas", "readyReplicas", "cannot be greater than status.readyReplicas"),
];

pub(super) const KIND: Kind = Kind {
    group: "apps",
    kind: "StatefulSet",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    subresources: &["scale", "status"],
    has_generation: true,
    pod_spec: Some(template::POD_SPEC),
    scale: Some(ScalePaths::USUAL),
    default,
    prepare_create: |object| rules::fresh_status(object, &["replicas", "availableReplicas"]),
    prepare_update: keep_status,
    prepare_status: take_status,
    validate_create: validate,
    validate_update,
    validate_status: |new, old| {
        let mut errors = rules::status_counts(new, COUNTS, AT_MOST);
        errors.extend(rules::collisions(new, old));
        errors
    },
    columns: &[
        column("Name", "name"),
        column("Ready", ""),
        column("Age", ""),
        CONTAINERS[0],
        CONTAINERS[1],
    ],
    cells: |object, now| {
        let [names, images] = template::container_cells(object.pointer("/spec/template"));
        let ready = number(object, "/status/readyReplicas");
        let ready = format!("{ready}/{}", number(object, "/spec/replicas"));
        vec![meta::name(object).into(), ready.into(), age(object, now).into(), names, images]
    },
    decode: |object| decodes_amounts::<core::StatefulSet>(object, AMOUNTS),
    ..PLAIN
};
