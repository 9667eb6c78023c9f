//! Deployment (DEP-1).

use super::{
    Kind, column, decodes_amounts, keep_status, normalize_amounts, number,
    plain::PLAIN,
    replicas, rules, set_default, spec_changed, take_status,
    template::{self, AMOUNTS, CONTAINERS},
    text, valid_metadata, wide,
};
use crate::{
    core,
    field::{FieldError, Path},
    meta::{self, child_mut, drop_nulls},
    scale::ScalePaths,
    table::age,
    validation,
};
use serde_json::{Value, json};

const TYPES: &[&str] = &["Recreate", "RollingUpdate"];

fn default(object: &mut Value) {
    drop_nulls(object);
    let spec = child_mut(object, "spec");
    set_default(spec, "replicas", 1);
    let mut strategy = spec.remove("strategy").unwrap_or_default();
    if text(&strategy, "/type").is_empty() {
        strategy = json!({"type": "RollingUpdate", "rollingUpdate": strategy.get("rollingUpdate")});
        drop_nulls(&mut strategy);
    }
    if text(&strategy, "/type") == "RollingUpdate" {
        let rolling = child_mut(&mut strategy, "rollingUpdate");
        set_default(rolling, "maxUnavailable", "25%");
        set_default(rolling, "maxSurge", "25%");
    }
    spec.insert("strategy".to_owned(), strategy);
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "progressDeadlineSeconds", 600);
    template::default_in(spec);
    normalize_amounts(object, AMOUNTS);
}

fn validate_strategy(strategy: &Value, path: &Path) -> Vec<FieldError> {
    let at = path.child("rollingUpdate");
    let rolling = strategy.get("rollingUpdate").filter(|r| !r.is_null());
    match (text(strategy, "/type").as_str(), rolling) {
        ("Recreate", Some(_)) => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            vec![FieldError::forbidden(&at, detail)]
        }
        ("RollingUpdate", None) => {
            vec![FieldError::required(&at, "this should be defaulted and never be nil")]
        }
        ("Recreate", None) => Vec::new(),
        ("RollingUpdate", Some(rolling)) => {
            let part = |key: &str| rolling.get(key).unwrap_or(&Value::Null);
            let (unavailable, surge) = (part("maxUnavailable"), part("maxSurge"));
            let (at_unavailable, at_surge) = (at.child("maxUnavailable"), at.child("maxSurge"));
            let mut errors = rules::int_or_percent(unavailable, &at_unavailable);
            errors.extend(rules::int_or_percent(surge, &at_surge));
            let none = |share: &Value| rules::int_or_percent_value(Some(share)) == 0;
            if none(unavailable) && none(surge) {
                let detail = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(&at_unavailable, unavailable.clone(), detail));
            }
            errors.extend(rules::at_most_all(unavailable, &at_unavailable));
            errors
        }
        _ => vec![FieldError::not_supported(path, strategy.clone(), TYPES)],
    }
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = valid_metadata(object, true);
    let (spec, path) = (object.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
    errors.extend(replicas::validate_spec(spec, &path, &["replicas"]));
    let strategy = spec.get("strategy").unwrap_or(&Value::Null);
    errors.extend(validate_strategy(strategy, &path.child("strategy")));
    let counts = &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"];
    errors.extend(rules::non_negative(spec, &path, counts));
    if let Some(deadline) = spec.get("progressDeadlineSeconds").and_then(Value::as_i64)
        && deadline <= number(spec, "/minReadySeconds")
    {
        let detail = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid(&path.child("progressDeadlineSeconds"), deadline, detail));
    }
    errors
}

const COUNTS: &[&str] = &[
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "collisionCount",
];
const AT_MOST: &[(&str, &str, &str)] = &[
    ("updatedReplicas", "replicas", "cannot be greater than status.replicas"),
    ("readyReplicas", "replicas", "cannot be greater than status.replicas"),
    ("availableReplicas", "replicas", "cannot be greater than status.replicas"),
    ("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas"),
];

pub(super) const KIND: Kind = Kind {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &["scale", "status"],
    has_generation: true,
    pod_spec: Some(template::POD_SPEC),
    // Annotations go on to the ReplicaSets, so that the controller must see a change of them.
    generation_counts: |new, old| {
        let annotations = |object: &Value| object.pointer("/metadata/annotations").cloned();
        spec_changed(new, old) || annotations(new) != annotations(old)
    },
    scale: Some(ScalePaths::USUAL),
    default,
    prepare_create: |object| rules::fresh_status(object, &[]),
    prepare_update: keep_status,
    prepare_status: take_status,
    validate_create: validate,
    validate_update: |new, old| {
        let mut errors = validate(new);
        errors.extend(validation::metadata_update(new, old));
        errors.extend(rules::immutable_in_spec(new, old, &["selector"]));
        errors
    },
    validate_status: |new, old| {
        let mut errors = rules::status_counts(new, COUNTS, AT_MOST);
        errors.extend(rules::collisions(new, old));
        errors
    },
    columns: &[
        column("Name", "name"),
        column("Ready", ""),
        column("Up-to-date", ""),
        column("Available", ""),
        column("Age", ""),
        CONTAINERS[0],
        CONTAINERS[1],
        wide("Selector"),
    ],
    cells: |object, now| {
        let [names, images] = template::container_cells(object.pointer("/spec/template"));
        let count = |pointer: &str| number(object, pointer);
        let (ready, wanted) = (count("/status/readyReplicas"), count("/spec/replicas"));
        vec![
            meta::name(object).into(),
            format!("{ready}/{wanted}").into(),
            count("/status/updatedReplicas").into(),
            count("/status/availableReplicas").into(),
            age(object, now).into(),
            names,
            images,
            rules::selector_cell(object.pointer("/spec/selector")),
        ]
    },
    decode: |object| decodes_amounts::<core::Deployment>(object, AMOUNTS),
    ..PLAIN
};
