//! DaemonSet: a Pod on every node that will have it.

use super::{
    Kind, column, decodes_amounts, integer, keep_status, normalize_amounts, number,
    plain::PLAIN,
    rules, set_default, take_status,
    template::{self, AMOUNTS, CONTAINERS, Selected},
    text, valid_metadata, wide,
};
use crate::{
    core,
    field::{FieldError, Path},
    meta::{self, child_mut, drop_nulls, metadata_mut},
    table::age,
    validation,
};
use serde_json::{Value, json};

/// How often the template has changed; `apps/v1` has no field for it.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn default(object: &mut Value) {
    drop_nulls(object);
    let spec = child_mut(object, "spec");
    let strategy = spec.entry("updateStrategy").or_insert_with(|| json!({}));
    if text(strategy, "/type").is_empty()
        && let Some(fields) = strategy.as_object_mut()
    {
        fields.insert("type".to_owned(), "RollingUpdate".into());
    }
    if text(strategy, "/type") == "RollingUpdate" {
        let rolling = child_mut(strategy, "rollingUpdate");
        set_default(rolling, "maxUnavailable", 1);
        set_default(rolling, "maxSurge", 0);
    }
    set_default(spec, "revisionHistoryLimit", 10);
    template::default_in(spec);
    normalize_amounts(object, AMOUNTS);
}

fn set_template_generation(object: &mut Value, generation: i64) {
    let annotations = metadata_mut(object).entry("annotations").or_insert_with(|| json!({}));
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string().into());
    }
}

fn template_generation(object: &Value) -> i64 {
    let text = meta::annotation(object, TEMPLATE_GENERATION);
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn validate_strategy(strategy: &Value, path: &Path) -> Vec<FieldError> {
    let at = path.child("rollingUpdate");
    match text(strategy, "/type").as_str() {
        "OnDelete" => Vec::new(),
        "RollingUpdate" => {
            let Some(rolling) = strategy.get("rollingUpdate").filter(|r| !r.is_null()) else {
                return vec![FieldError::required(&at, "")];
            };
            let part = |key: &str| rolling.get(key).unwrap_or(&Value::Null);
            let (unavailable, surge) = (part("maxUnavailable"), part("maxSurge"));
            let (at_unavailable, at_surge) = (at.child("maxUnavailable"), at.child("maxSurge"));
            let mut errors = rules::int_or_percent(unavailable, &at_unavailable);
            errors.extend(rules::int_or_percent(surge, &at_surge));
            errors.extend(rules::at_most_all(unavailable, &at_unavailable));
            errors.extend(rules::at_most_all(surge, &at_surge));
            let some = |share: &Value| rules::int_or_percent_value(Some(share)) != 0;
            match (some(unavailable), some(surge)) {
                (true, true) => {
                    let detail = "may not be set when maxUnavailable is non-zero";
                    errors.push(FieldError::invalid(&at_surge, surge.clone(), detail));
                }
                (false, false) => {
                    let detail = "cannot be 0 when maxSurge is 0";
                    errors.push(FieldError::required(&at_unavailable, detail));
                }
                (true, false) | (false, true) => {}
            }
            errors
        }
        _ => {
            let supported = &["RollingUpdate", "OnDelete"];
            vec![FieldError::not_supported(path, strategy.clone(), supported)]
        }
    }
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = valid_metadata(object, true);
    let (spec, path) = (object.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
    let selector = spec.get("selector").filter(|s| !s.is_null());
    let at = path.child("selector");
    errors.extend(rules::label_selector(selector, &at));
    let template = spec.get("template").unwrap_or(&Value::Null);
    let template_at = path.child("template");
    // Without a selector only this tells: so upstream has it.
    let selected = Selected::of(selector);
    errors.extend(template::validate_match(&selected, template, &template_at));
    if let Some(selector) = selector.filter(|s| rules::selects_all(s)) {
        let detail = "empty selector is invalid for daemonset";
        errors.push(FieldError::invalid(&at, selector.clone(), detail));
    }
    errors.extend(template::validate(template, &template_at));
    errors.extend(template::validate_lasting(template, &template_at, "DaemonSet"));
    errors.extend(rules::non_negative(spec, &path, &["minReadySeconds"]));
    let strategy = spec.get("updateStrategy").unwrap_or(&Value::Null);
    errors.extend(validate_strategy(strategy, &path.child("updateStrategy")));
    errors.extend(rules::non_negative(spec, &path, &["revisionHistoryLimit"]));
    errors
}

/// Counts that a status always has.
const ZEROS: &[&str] =
    &["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"];
const COUNTS: &[&str] = &[
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
];

pub(super) const KIND: Kind = Kind {
    group: "apps",
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    subresources: &["status"],
    has_generation: true,
    pod_spec: Some(template::POD_SPEC),
    default,
    prepare_create: |object| {
        rules::fresh_status(object, ZEROS);
        let first = template_generation(object).max(1);
        set_template_generation(object, first);
    },
    prepare_update: |new, old| {
        keep_status(new, old);
        let changed = new.pointer("/spec/template") != old.pointer("/spec/template");
        let before = template_generation(old).max(1);
        set_template_generation(new, before.saturating_add(i64::from(changed)));
    },
    prepare_status: take_status,
    validate_create: validate,
    validate_update: |new, old| {
        let mut errors = validation::metadata_update(new, old);
        errors.extend(validate(new));
        errors.extend(rules::immutable_in_spec(new, old, &["selector"]));
        errors
    },
    validate_status: |new, old| {
        let mut errors = rules::status_counts(new, COUNTS, &[]);
        errors.extend(rules::collisions(new, old));
        errors
    },
    columns: &[
        column("Name", "name"),
        integer("Desired"),
        integer("Current"),
        integer("Ready"),
        integer("Up-to-date"),
        integer("Available"),
        column("Node Selector", ""),
        column("Age", ""),
        CONTAINERS[0],
        CONTAINERS[1],
        wide("Selector"),
    ],
    cells: |object, now| {
        let [names, images] = template::container_cells(object.pointer("/spec/template"));
        let count = |field: &str| number(object, &format!("/status/{field}")).into();
        vec![
            meta::name(object).into(),
            count("desiredNumberScheduled"),
            count("currentNumberScheduled"),
            count("numberReady"),
            count("updatedNumberScheduled"),
            count("numberAvailable"),
            rules::labels_cell(object.pointer("/spec/template/spec/nodeSelector")),
            age(object, now).into(),
            names,
            images,
            rules::selector_cell(object.pointer("/spec/selector")),
        ]
    },
    decode: |object| decodes_amounts::<core::DaemonSet>(object, AMOUNTS),
    ..PLAIN
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_the_template_are_counted_whatever_a_client_says() {
        let template = |image: &str| json!({"spec": {"containers": [{"image": image}]}});
        let set =
            |image: &str| json!({"metadata": {"name": "d"}, "spec": {"template": template(image)}});
        let mut first = set("a");
        (KIND.prepare_create)(&mut first);
        assert_eq!(template_generation(&first), 1);
        let mut same = set("a");
        (KIND.prepare_update)(&mut same, &first);
        assert_eq!(template_generation(&same), 1);
        let mut other = set("b");
        set_template_generation(&mut other, 7);
        (KIND.prepare_update)(&mut other, &first);
        assert_eq!(template_generation(&other), 2);
    }
}
