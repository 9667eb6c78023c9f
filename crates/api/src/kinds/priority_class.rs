//! PriorityClass: names for how much a Pod matters (DEF-2).

use super::{
    Kind, boolean, column, decodes, integer, number, plain::PLAIN, pod, set_default, text,
    valid_metadata,
};
use crate::{
    core,
    field::{FieldError, Path},
    meta::{self, drop_nulls},
    table::age,
    validation,
};
use serde_json::Value;

/// What a user may give at most.
const USER_MAX: i64 = 1_000_000_000;
/// Only these may begin so.
const SYSTEM_PREFIX: &str = "system-";
const SYSTEM: &[(&str, i64)] =
    &[("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

fn is_global(object: &Value) -> bool {
    object.get("globalDefault") == Some(&Value::Bool(true))
}

/// Why this is none of the system's classes; `None` if it is one.
fn no_system_class(object: &Value) -> Option<String> {
    let name = meta::name(object);
    let Some((_, value)) = SYSTEM.iter().find(|(known, _)| *known == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if number(object, "/value") != *value {
        return Some(format!("value of {name} PriorityClass must be {value}"));
    }
    is_global(object).then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = valid_metadata(object, false);
    if meta::name(object).starts_with(SYSTEM_PREFIX) {
        if let Some(why) = no_system_class(object) {
            let detail = format!(
                "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use \
                 only. error: {why}"
            );
            errors.push(FieldError::forbidden(&Path::new("metadata").child("name"), detail));
        }
    } else if number(object, "/value") > USER_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {USER_MAX}");
        errors.push(FieldError::forbidden(&Path::new("value"), detail));
    }
    let policy = text(object, "/preemptionPolicy");
    let policies = &["PreemptLowerPriority", "Never"];
    pod::enumeration(&mut errors, &Path::new("preemptionPolicy"), &policy, policies);
    errors
}

pub(super) const KIND: Kind = Kind {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    namespaced: false,
    has_generation: true,
    // What matters of it never changes.
    generation_counts: |_, _| false,
    default: |object| {
        drop_nulls(object);
        if let Some(fields) = object.as_object_mut() {
            set_default(fields, "value", 0);
            set_default(fields, "preemptionPolicy", "PreemptLowerPriority");
        }
    },
    validate_create: validate,
    validate_update: |new, old| {
        let mut errors = valid_metadata(new, false);
        errors.extend(validation::metadata_update(new, old));
        if number(new, "/value") != number(old, "/value") {
            let detail = "may not be changed in an update.";
            errors.push(FieldError::forbidden(&Path::new("value"), detail));
        }
        let policy = |object: &Value| text(object, "/preemptionPolicy");
        if policy(new) != policy(old) {
            let path = Path::new("preemptionPolicy");
            errors.push(FieldError::invalid(&path, policy(new), "field is immutable"));
        }
        errors
    },
    columns: &[
        column("Name", "name"),
        integer("Value"),
        boolean("Global-Default"),
        column("Age", ""),
        column("PreemptionPolicy", ""),
    ],
    cells: |object, now| {
        vec![
            meta::name(object).into(),
            number(object, "/value").into(),
            is_global(object).into(),
            age(object, now).into(),
            text(object, "/preemptionPolicy").into(),
        ]
    },
    decode: decodes::<core::PriorityClass>,
    ..PLAIN
};
