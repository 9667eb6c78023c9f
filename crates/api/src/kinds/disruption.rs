//! PodDisruptionBudget (PDB-1).

use super::{
    Kind, column, decodes, integer, keep_status, number, plain::PLAIN, pod, rules, take_status,
    text,
};
use crate::{
    core,
    field::{FieldError, Path},
    meta, names,
    table::age,
    validation,
};
use serde_json::Value;

const COUNTS: &[&str] = &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];

fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = validation::metadata(object, true, names::path_segment);
    let (spec, path) = (object.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
    let part = |key: &str| spec.get(key).filter(|share| !share.is_null());
    if part("minAvailable").is_some() && part("maxUnavailable").is_some() {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid(&path, spec.clone(), detail));
    }
    for key in ["minAvailable", "maxUnavailable"] {
        if let Some(share) = part(key) {
            errors.extend(rules::int_or_percent(share, &path.child(key)));
            errors.extend(rules::at_most_all(share, &path.child(key)));
        }
    }
    errors.extend(rules::label_selector(spec.get("selector"), &path.child("selector")));
    let policy = text(spec, "/unhealthyPodEvictionPolicy");
    if !policy.is_empty() {
        let at = path.child("unhealthyPodEvictionPolicy");
        pod::enumeration(&mut errors, &at, &policy, &["AlwaysAllow", "IfHealthyBudget"]);
    }
    errors
}

pub(super) const KIND: Kind = Kind {
    group: "policy",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    subresources: &["status"],
    unconditional_update: false,
    has_generation: true,
    prepare_create: |object| rules::fresh_status(object, COUNTS),
    prepare_update: keep_status,
    prepare_status: take_status,
    validate_create: validate,
    validate_update: |new, old| {
        let mut errors = validate(new);
        errors.extend(validation::metadata_update(new, old));
        errors
    },
    validate_status: |new, _| rules::status_counts(new, COUNTS, &[]),
    columns: &[
        column("Name", "name"),
        column("Min Available", ""),
        column("Max Unavailable", ""),
        integer("Allowed Disruptions"),
        column("Age", ""),
    ],
    cells: |object, now| {
        let share = |key: &str| match text(object, &format!("/spec/{key}")) {
            none if none.is_empty() => "N/A".into(),
            share => share.into(),
        };
        vec![
            meta::name(object).into(),
            share("minAvailable"),
            share("maxUnavailable"),
            number(object, "/status/disruptionsAllowed").into(),
            age(object, now).into(),
        ]
    },
    decode: decodes::<core::PodDisruptionBudget>,
    ..PLAIN
};
