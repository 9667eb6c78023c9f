//! ReplicaSet and ReplicationController: so many Pods of one template.

use super::{
    Kind, column, decodes_amounts, integer, keep_status, normalize_amounts, number,
    plain::PLAIN,
    rules, set_default, take_status,
    template::{self, AMOUNTS, CONTAINERS, Selected},
    valid_metadata, wide,
};
use crate::{
    core,
    field::{FieldError, Path},
    meta::{self, child_mut, drop_nulls},
    scale::ScalePaths,
    selector::LabelSelector,
    table::age,
    validation,
};
use serde_json::{Value, json};

/// Counts of both kinds' status, each at most `replicas`.
const COUNTS: &[&str] = &[
    "replicas",
    "fullyLabeledReplicas",
    "readyReplicas",
    "availableReplicas",
    "observedGeneration",
];
const AT_MOST: &[(&str, &str, &str)] = &[
    ("fullyLabeledReplicas", "replicas", "cannot be greater than status.replicas"),
    ("readyReplicas", "replicas", "cannot be greater than status.replicas"),
    ("availableReplicas", "replicas", "cannot be greater than status.replicas"),
    ("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas"),
];

/// The rules on selector and template that ReplicaSet and Deployment share (RS-6), after those on the
/// given counts.
pub(super) fn validate_spec(spec: &Value, path: &Path, counts: &[&str]) -> Vec<FieldError> {
    let mut errors = rules::non_negative(spec, path, counts);
    // Of a ReplicaSet, too, it says "deployment": so upstream has it.
    let texts = ("empty selector is invalid for deployment", "invalid label selector");
    let selected = template::validate_selector(spec, path, texts, &mut errors);
    if matches!(selected, Selected::Unclear) {
        return errors;
    }
    let template = spec.get("template").unwrap_or(&Value::Null);
    let at = path.child("template");
    errors.extend(template::validate_match(&selected, template, &at));
    errors.extend(template::validate(template, &at));
    errors.extend(template::validate_lasting(template, &at, "ReplicaSet"));
    errors
}

fn validate_set(object: &Value) -> Vec<FieldError> {
    let mut errors = valid_metadata(object, true);
    let (spec, path) = (object.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
    errors.extend(validate_spec(spec, &path, &["replicas", "minReadySeconds"]));
    errors
}

fn cells(object: &Value, now: i64, selector: Value) -> Vec<Value> {
    let [names, images] = template::container_cells(object.pointer("/spec/template"));
    vec![
        meta::name(object).into(),
        number(object, "/spec/replicas").into(),
        number(object, "/status/replicas").into(),
        number(object, "/status/readyReplicas").into(),
        age(object, now).into(),
        names,
        images,
        selector,
    ]
}

pub(super) const REPLICA_SET: Kind = Kind {
    group: "apps",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    subresources: &["scale", "status"],
    has_generation: true,
    pod_spec: Some(template::POD_SPEC),
    scale: Some(ScalePaths::USUAL),
    default: |object| {
        drop_nulls(object);
        let spec = child_mut(object, "spec");
        set_default(spec, "replicas", 1);
        template::default_in(spec);
        normalize_amounts(object, AMOUNTS);
    },
    prepare_create: |object| rules::fresh_status(object, &["replicas"]),
    prepare_update: keep_status,
    prepare_status: take_status,
    validate_create: validate_set,
    validate_update: |new, old| {
        let mut errors = validate_set(new);
        errors.extend(validation::metadata_update(new, old));
        errors.extend(rules::immutable_in_spec(new, old, &["selector"]));
        errors
    },
    validate_status: |new, _| rules::status_counts(new, COUNTS, AT_MOST),
    columns: &[
        column("Name", "name"),
        integer("Desired"),
        integer("Current"),
        integer("Ready"),
        column("Age", ""),
        CONTAINERS[0],
        CONTAINERS[1],
        wide("Selector"),
    ],
    cells: |object, now| cells(object, now, rules::selector_cell(object.pointer("/spec/selector"))),
    field_labels: &["status.replicas"],
    field: |object, _| number(object, "/status/replicas").to_string(),
    decode: |object| decodes_amounts::<core::ReplicaSet>(object, AMOUNTS),
    ..PLAIN
};

fn validate_controller(object: &Value) -> Vec<FieldError> {
    let mut errors = valid_metadata(object, true);
    let (spec, path) = (object.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
    errors.extend(rules::non_negative(spec, &path, &["minReadySeconds"]));
    let selector = rules::texts(spec.get("selector"));
    if selector.is_empty() {
        errors.push(FieldError::required(&path.child("selector"), ""));
    }
    errors.extend(rules::non_negative(spec, &path, &["replicas"]));
    let at = path.child("template");
    let Some(template) = spec.get("template").filter(|t| !t.is_null()) else {
        errors.push(FieldError::required(&at, ""));
        return errors;
    };
    let selected = Selected::By(LabelSelector::equal(&selector));
    errors.extend(template::validate_match(&selected, template, &at));
    errors.extend(template::validate(template, &at));
    errors.extend(template::validate_lasting(template, &at, "ReplicationController"));
    errors
}

pub(super) const REPLICATION_CONTROLLER: Kind = Kind {
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short_names: &["rc"],
    categories: &["all"],
    subresources: &["scale", "status"],
    has_generation: true,
    pod_spec: Some(template::POD_SPEC),
    scale: Some(ScalePaths::USUAL),
    default: |object| {
        drop_nulls(object);
        let spec = child_mut(object, "spec");
        set_default(spec, "replicas", 1);
        if spec.contains_key("template") {
            template::default_in(spec);
        }
        // Both follow the template, which must say something.
        let labels = spec.get("template").and_then(|t| t.pointer("/metadata/labels")).cloned();
        if let Some(labels) = labels.filter(|labels| *labels != json!({})) {
            if rules::texts(spec.get("selector")).is_empty() {
                spec.insert("selector".to_owned(), labels.clone());
            }
            if meta::labels(object).is_empty() {
                meta::metadata_mut(object).insert("labels".to_owned(), labels);
            }
        }
        normalize_amounts(object, AMOUNTS);
    },
    prepare_create: |object| rules::fresh_status(object, &["replicas"]),
    prepare_update: keep_status,
    prepare_status: take_status,
    validate_create: validate_controller,
    validate_update: |new, old| {
        let mut errors = validate_controller(new);
        errors.extend(validation::metadata_update(new, old));
        errors
    },
    validate_status: |new, _| rules::status_counts(new, COUNTS, AT_MOST),
    columns: REPLICA_SET.columns,
    cells: |object, now| cells(object, now, rules::labels_cell(object.pointer("/spec/selector"))),
    field_labels: &["status.replicas"],
    field: |object, _| number(object, "/status/replicas").to_string(),
    decode: |object| decodes_amounts::<core::ReplicationController>(object, AMOUNTS),
    ..PLAIN
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replication_controller_takes_labels_and_selector_from_its_template() {
        let mut object = json!({"metadata": {"name": "rc"}, "spec": {"template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": []},
        }}});
        (REPLICATION_CONTROLLER.default)(&mut object);
        assert_eq!(object["metadata"]["labels"], json!({"app": "web"}));
        assert_eq!(object["spec"]["selector"], json!({"app": "web"}));
        let mut bare = json!({"metadata": {"name": "rc"}});
        (REPLICATION_CONTROLLER.default)(&mut bare);
        assert_eq!(bare["spec"], json!({"replicas": 1}));
        assert!(meta::labels(&bare).is_empty());
    }
}
