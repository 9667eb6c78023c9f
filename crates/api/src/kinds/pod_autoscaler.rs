//! HorizontalPodAutoscaler of `autoscaling/v2`.

use super::{
    Kind, column, decodes_amounts, keep_status, list, normalize_amounts, number, plain::PLAIN, pod,
    rules, set_default, take_status, text, valid_metadata,
};
use crate::{
    core,
    field::{FieldError, Path},
    meta::{self, child_mut, drop_nulls},
    names,
    table::age,
    validation,
};
use serde_json::{Value, json};

/// Seconds that an autoscaler looks back at most, and that one step of it takes at most.
const STABILIZATION_MAX: i64 = 3600;
const PERIOD_MAX: i64 = 1800;

/// Type of a metric, and the field that describes it; in the order in which upstream looks.
const SOURCES: &[(&str, &str)] = &[
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
/// The same in the order of the alphabet.
const SOURCE_TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];

const AMOUNTS: &[&str] = &[
    "spec/metrics/*/*/target/value",
    "spec/metrics/*/*/target/averageValue",
    "spec/behavior/*/tolerance",
];

fn default(object: &mut Value) {
    drop_nulls(object);
    let spec = child_mut(object, "spec");
    set_default(spec, "minReplicas", 1);
    let metrics = spec.entry("metrics").or_insert_with(|| json!([]));
    if *metrics == json!([]) {
        *metrics = json!([{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80},
        }}]);
    }
    if let Some(behavior) = spec.get_mut("behavior") {
        let up = child_mut(behavior, "scaleUp");
        set_default(up, "stabilizationWindowSeconds", 0);
        set_default(up, "selectPolicy", "Max");
        let four_or_double = json!([
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ]);
        set_default(up, "policies", four_or_double);
        let down = child_mut(behavior, "scaleDown");
        set_default(down, "selectPolicy", "Max");
        let all = json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]);
        set_default(down, "policies", all);
    }
    normalize_amounts(object, AMOUNTS);
}

/// A name that goes into a URL and must be there.
fn segment(value: &Value, key: &str, path: &Path, missing: &str) -> Vec<FieldError> {
    let (name, at) = (text(value, &format!("/{key}")), path.child(key));
    if name.is_empty() {
        return vec![FieldError::required(&at, missing)];
    }
    names::check(&at, &name, names::path_segment)
}

fn validate_reference(reference: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = segment(reference, "kind", path, "");
    errors.extend(segment(reference, "name", path, ""));
    errors
}

fn present<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.get(key).filter(|found| !found.is_null())
}

fn validate_target(target: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (kind, at) = (text(target, "/type"), path.child("type"));
    if kind.is_empty() {
        errors.push(FieldError::required(&at, "must specify a metric target type"));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind.as_str()) {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(&at, kind, detail));
    }
    for key in ["value", "averageValue"] {
        if let Some(amount) = present(target, key) {
            let parsed = rules::amount(amount);
            if !parsed.is_some_and(|amount| !amount.is_negative() && !amount.is_zero()) {
                let at = path.child(key);
                errors.push(FieldError::invalid(&at, amount.clone(), "must be positive"));
            }
        }
    }
    if let Some(utilization) = present(target, "averageUtilization").and_then(Value::as_i64)
        && utilization < 1
    {
        let at = path.child("averageUtilization");
        errors.push(FieldError::invalid(&at, utilization, "must be greater than 0"));
    }
    errors
}

/// What one source says: the rules of its field.
fn validate_source(field: &str, source: &Value, path: &Path) -> Vec<FieldError> {
    let null = Value::Null;
    let part = |key: &str| source.get(key).unwrap_or(&null);
    let mut errors = Vec::new();
    match field {
        "resource" | "containerResource" => {
            if text(source, "/name").is_empty() {
                let detail = "must specify a resource name";
                errors.push(FieldError::required(&path.child("name"), detail));
            }
            if field == "containerResource" && text(source, "/container").is_empty() {
                let detail = "must specify a container";
                errors.push(FieldError::required(&path.child("container"), detail));
            }
        }
        _ => {
            if field == "object" {
                let at = path.child("describedObject");
                errors.extend(validate_reference(part("describedObject"), &at));
            }
            let metric = path.child("metric");
            errors.extend(segment(part("metric"), "name", &metric, "must specify a metric name"));
            let selector = part("metric").get("selector");
            errors.extend(rules::label_selector(selector, &metric.child("selector")));
        }
    }
    let (target, at) = (part("target"), path.child("target"));
    errors.extend(validate_target(target, &at));
    let has = |key: &str| present(target, key).is_some();
    let (value, average, utilization) =
        (has("value"), has("averageValue"), has("averageUtilization"));
    let mut required = |key: &str, detail: &str| {
        errors.push(FieldError::required(&at.child(key), detail));
    };
    match field {
        "object" if !value && !average => {
            required("averageValue", "must set either a target value or averageValue");
        }
        "external" if !value && !average => {
            let detail = "must set either a target value for metric or a per-pod target";
            required("averageValue", detail);
        }
        "external" if value && average => {
            let detail = "may not set both a target value for metric and a per-pod target";
            errors.push(FieldError::forbidden(&at.child("value"), detail));
        }
        "pods" if !average => {
            required("averageValue", "must specify a positive target averageValue");
        }
        "resource" | "containerResource" if !utilization && !average => {
            let detail = "must set either a target raw value or a target utilization";
            required("averageUtilization", detail);
        }
        "resource" | "containerResource" if utilization && average => {
            let detail = "may not set both a target raw value and a target utilization";
            errors.push(FieldError::forbidden(&at.child("averageValue"), detail));
        }
        _ => {}
    }
    errors
}

fn validate_metric(metric: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = text(metric, "/type");
    if kind.is_empty() {
        let detail = "must specify a metric source type";
        errors.push(FieldError::required(&path.child("type"), detail));
    }
    pod::enumeration(&mut errors, &path.child("type"), &kind, SOURCE_TYPES);
    let mut found = SOURCES.iter().filter_map(|(_, key)| Some((*key, present(metric, key)?)));
    if let Some((key, source)) = found.next() {
        errors.extend(validate_source(key, source, &path.child(key)));
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, key)| *key);
    if expected.is_none() {
        // Said twice: so upstream has it.
        pod::enumeration(&mut errors, &path.child("type"), &kind, SOURCE_TYPES);
    }
    if let Some(key) = expected.filter(|key| present(metric, key).is_none()) {
        let detail = "must populate information for the given metric source";
        errors.push(FieldError::required(&path.child(key), detail));
    }
    for (_, key) in SOURCES.iter().filter(|(_, key)| Some(*key) != expected) {
        if present(metric, key).is_some() {
            let detail = "must populate the given metric source only";
            errors.push(FieldError::forbidden(&path.child(key), detail));
        }
    }
    errors
}

fn validate_behavior(rules: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let at = path.child("stabilizationWindowSeconds");
    if let Some(window) = rules.get("stabilizationWindowSeconds").and_then(Value::as_i64) {
        if window < 0 {
            let detail = "must be greater than or equal to zero";
            errors.push(FieldError::invalid(&at, window, detail));
        }
        if window > STABILIZATION_MAX {
            let detail = format!("must be less than or equal to {STABILIZATION_MAX}");
            errors.push(FieldError::invalid(&at, window, detail));
        }
    }
    let select = text(rules, "/selectPolicy");
    if !select.is_empty() {
        let supported = &["Disabled", "Max", "Min"];
        pod::enumeration(&mut errors, &path.child("selectPolicy"), &select, supported);
    }
    let (policies, at) = (list(rules, "policies"), path.child("policies"));
    if policies.is_empty() {
        errors.push(FieldError::required(&at, "must specify at least one Policy"));
    }
    for (i, policy) in policies.iter().enumerate() {
        let at = at.index(i);
        let kind = text(policy, "/type");
        pod::enumeration(&mut errors, &at.child("type"), &kind, &["Percent", "Pods"]);
        for key in ["value", "periodSeconds"] {
            let found = number(policy, &format!("/{key}"));
            if found <= 0 {
                let detail = "must be greater than zero";
                errors.push(FieldError::invalid(&at.child(key), found, detail));
            }
        }
        let period = number(policy, "/periodSeconds");
        if period > PERIOD_MAX {
            let detail = format!("must be less than or equal to {PERIOD_MAX}");
            errors.push(FieldError::invalid(&at.child("periodSeconds"), period, detail));
        }
    }
    let tolerance = present(rules, "tolerance").and_then(rules::amount);
    if tolerance.is_some_and(crate::quantity::Quantity::is_negative) {
        let found = text(rules, "/tolerance");
        let detail = "must be greater or equal to zero";
        errors.push(FieldError::invalid(&path.child("tolerance"), found, detail));
    }
    errors
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = valid_metadata(object, true);
    let (spec, path) = (object.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
    let min = spec.get("minReplicas").and_then(Value::as_i64);
    let max = number(spec, "/maxReplicas");
    if let Some(min) = min.filter(|min| *min < 1) {
        let detail = "must be greater than or equal to 1";
        errors.push(FieldError::invalid(&path.child("minReplicas"), min, detail));
    }
    if max < 1 {
        let detail = "must be greater than 0";
        errors.push(FieldError::invalid(&path.child("maxReplicas"), max, detail));
    }
    if min.is_some_and(|min| max < min) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(&path.child("maxReplicas"), max, detail));
    }
    let reference = spec.get("scaleTargetRef").unwrap_or(&Value::Null);
    errors.extend(validate_reference(reference, &path.child("scaleTargetRef")));
    for (i, metric) in list(spec, "metrics").iter().enumerate() {
        errors.extend(validate_metric(metric, &path.child("metrics").index(i)));
    }
    for direction in ["scaleUp", "scaleDown"] {
        let rules = present(spec, "behavior").and_then(|behavior| present(behavior, direction));
        if let Some(rules) = rules {
            let at = path.child("behavior").child(direction);
            errors.extend(validate_behavior(rules, &at));
        }
    }
    errors
}

/// One metric as `NOW/WANTED`.
fn metric_cell(metric: &Value, status: Option<&Value>) -> String {
    let Some((_, key)) = SOURCES.iter().find(|(name, _)| *name == text(metric, "/type")) else {
        return "<unknown type>".to_owned();
    };
    let source = metric.get(*key).unwrap_or(&Value::Null);
    let current = status.and_then(|status| status.get(*key));
    let now = |field: &str| {
        let found = current.map(|c| text(c, &format!("/current/{field}"))).unwrap_or_default();
        if found.is_empty() { "<unknown>".to_owned() } else { found }
    };
    let wanted = |field: &str| text(source, &format!("/target/{field}"));
    let is_resource = key.ends_with("esource");
    let cell = match (wanted("averageValue"), is_resource) {
        (average, true) if !average.is_empty() => format!("{}/{average}", now("averageValue")),
        (_, true) => {
            let percent = |text: String| match text.as_str() {
                "<unknown>" => text,
                "" => "<auto>".to_owned(),
                number => format!("{number}%"),
            };
            let wanted = percent(wanted("averageUtilization"));
            format!("{}/{wanted}", percent(now("averageUtilization")))
        }
        (average, false) if *key == "pods" => format!("{}/{average}", now("averageValue")),
        (average, false) if !average.is_empty() => {
            format!("{}/{average} (avg)", now("averageValue"))
        }
        (_, false) => format!("{}/{}", now("value"), wanted("value")),
    };
    if is_resource { format!("{}: {cell}", text(source, "/name")) } else { cell }
}

/// The first two, and how many more.
fn metrics_cell(object: &Value) -> Value {
    const SHOWN: usize = 2;
    let null = Value::Null;
    let metrics = list(object.get("spec").unwrap_or(&null), "metrics");
    let statuses = list(object.get("status").unwrap_or(&null), "currentMetrics");
    let cells: Vec<String> = metrics
        .iter()
        .take(SHOWN)
        .enumerate()
        .map(|(i, metric)| metric_cell(metric, statuses.get(i)))
        .collect();
    match metrics.len() {
        0 => "<none>".into(),
        n if n > SHOWN => format!("{} + {} more...", cells.join(", "), n - SHOWN).into(),
        _ => cells.join(", ").into(),
    }
}

fn cells(object: &Value, now: i64) -> Vec<Value> {
    let reference = |field: &str| text(object, &format!("/spec/scaleTargetRef/{field}"));
    let min = match text(object, "/spec/minReplicas") {
        unset if unset.is_empty() => "<unset>".to_owned(),
        min => min,
    };
    vec![
        meta::name(object).into(),
        format!("{}/{}", reference("kind"), reference("name")).into(),
        metrics_cell(object),
        min.into(),
        number(object, "/spec/maxReplicas").into(),
        number(object, "/status/currentReplicas").into(),
        age(object, now).into(),
    ]
}

pub(super) const KIND: Kind = Kind {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &["status"],
    default,
    prepare_create: |object| rules::fresh_status(object, &["desiredReplicas"]),
    prepare_update: keep_status,
    prepare_status: take_status,
    validate_create: validate,
    validate_update: |new, old| {
        let mut errors = validation::metadata_update(new, old);
        errors.extend(validate(new));
        errors
    },
    validate_status: |new, _| {
        rules::status_counts(new, &["currentReplicas", "desiredReplicas"], &[])
    },
    columns: &[
        column("Name", "name"),
        column("Reference", ""),
        column("Targets", ""),
        column("MinPods", ""),
        column("MaxPods", ""),
        column("Replicas", ""),
        column("Age", ""),
    ],
    cells,
    decode: |object| decodes_amounts::<core::HorizontalPodAutoscaler>(object, AMOUNTS),
    ..PLAIN
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_behavior_is_completed_direction_by_direction() {
        let mut object = json!({"spec": {"maxReplicas": 3, "behavior": {
            "scaleUp": {"stabilizationWindowSeconds": 5, "policies": [{"type": "Pods"}]},
        }}});
        default(&mut object);
        let up = json!({
            "stabilizationWindowSeconds": 5, "selectPolicy": "Max", "policies": [{"type": "Pods"}],
        });
        let down = json!({
            "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
        });
        assert_eq!(object["spec"]["behavior"], json!({"scaleUp": up, "scaleDown": down}));
        assert_eq!(object["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    }

    #[test]
    fn targets_are_shown_with_what_is_known_of_them() {
        let resource = json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        let known = json!({"resource": {"name": "cpu", "current": {"averageUtilization": 41}}});
        let pods = json!({"type": "Pods", "pods": {"target": {"averageValue": "100m"}}});
        let object = json!({"type": "Object", "object": {"target": {"value": "7"}}});
        let external = json!({"type": "External", "external": {"target": {"averageValue": "2"}}});
        let cell = |metrics: Value, statuses: Value| {
            metrics_cell(
                &json!({"spec": {"metrics": metrics}, "status": {"currentMetrics": statuses}}),
            )
        };
        assert_eq!(cell(json!([]), json!([])), "<none>");
        assert_eq!(cell(json!([resource]), json!([])), "cpu: <unknown>/80%");
        assert_eq!(cell(json!([resource, pods]), json!([known])), "cpu: 41%/80%, <unknown>/100m");
        assert_eq!(
            cell(json!([object, external, pods, pods]), json!([])),
            "<unknown>/7, <unknown>/2 (avg) + 2 more..."
        );
    }
}
