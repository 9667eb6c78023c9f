//! HorizontalPodAutoscaler of `autoscaling/v1`, which kubectl up to 1.32 sends: stored as `v2`.
//!
//! What `v1` has no fields for it keeps in annotations, in shapes of its own that are older than `v2`'s.

use super::{Hub, Kind, decodes, list, pod_autoscaler, text};
use crate::meta::{child_mut, metadata_mut};
use k8s_openapi::api::autoscaling::v1;
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
/// Of the only metric that has a field.
const TARGET_CPU: &str = "targetCPUUtilizationPercentage";
const CURRENT_CPU: &str = "currentCPUUtilizationPercentage";

type Fields = Map<String, Value>;

/// What a value is worth, or a target: the name in `v2`, and in `v1` behind `target` and `current`.
const TARGETS: &[(&str, &str)] = &[
    ("averageUtilization", "AverageUtilization"),
    ("averageValue", "AverageValue"),
    ("value", "Value"),
];

/// `"object"` of the type `"Object"`.
fn field_of(kind: &str) -> String {
    let mut chars = kind.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Name and value of a field of `v1` for an amount of `v2`: `averageValue` of an object has no prefix.
fn old_name(source: &str, prefix: &str, old: &str) -> String {
    if source == "object" && old == "AverageValue" {
        "averageValue".to_owned()
    } else {
        format!("{prefix}{old}")
    }
}

fn present<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.get(key).filter(|found| !found.is_null())
}

fn copy(from: &Value, key: &str, to: &mut Fields, name: &str) {
    if let Some(value) = present(from, key) {
        to.insert(name.to_owned(), value.clone());
    }
}

/// A metric of `v2` as `v1` writes it; `part` and `prefix` are `target`, or `current` in a status.
fn old_metric(metric: &Value, part: &str) -> Value {
    let kind = text(metric, "/type");
    let field = field_of(&kind);
    let null = Value::Null;
    let source = metric.get(&field).unwrap_or(&null);
    let mut old = Fields::new();
    match field.as_str() {
        "resource" | "containerResource" => {
            copy(source, "name", &mut old, "name");
            copy(source, "container", &mut old, "container");
        }
        _ => {
            let metric = source.get("metric").unwrap_or(&null);
            copy(metric, "name", &mut old, "metricName");
            let selector = if field == "external" { "metricSelector" } else { "selector" };
            copy(metric, "selector", &mut old, selector);
            copy(source, "describedObject", &mut old, "target");
        }
    }
    let amounts = source.get(part).unwrap_or(&null);
    for (new, name) in TARGETS {
        copy(amounts, new, &mut old, &old_name(&field, part, name));
    }
    json!({"type": kind, field: old})
}

/// The reverse.
fn new_metric(metric: &Value, part: &str) -> Value {
    let kind = text(metric, "/type");
    let field = field_of(&kind);
    let null = Value::Null;
    let source = metric.get(&field).unwrap_or(&null);
    let mut amounts = Fields::new();
    for (new, name) in TARGETS {
        copy(source, &old_name(&field, part, name), &mut amounts, new);
    }
    if part == "target" {
        let kind = match field.as_str() {
            "resource" | "containerResource" if amounts.contains_key("averageUtilization") => {
                "Utilization"
            }
            "object" if !amounts.contains_key("averageValue") => "Value",
            "external" if amounts.contains_key("value") => "Value",
            _ => "AverageValue",
        };
        // An object's value has to be there in `v1`, whether it means anything or not.
        if field == "object" && kind == "AverageValue" {
            amounts.remove("value");
        }
        amounts.insert("type".to_owned(), kind.into());
    }
    let mut new = Fields::from_iter([(part.to_owned(), amounts.into())]);
    match field.as_str() {
        "resource" | "containerResource" => {
            copy(source, "name", &mut new, "name");
            copy(source, "container", &mut new, "container");
        }
        _ => {
            let mut named = Fields::new();
            copy(source, "metricName", &mut named, "name");
            let selector = if field == "external" { "metricSelector" } else { "selector" };
            copy(source, selector, &mut named, "selector");
            new.insert("metric".to_owned(), named.into());
            copy(source, "target", &mut new, "describedObject");
        }
    }
    json!({"type": kind, field: new})
}

/// The utilization of the cpu that a metric asks for or tells, if that is what it is.
fn cpu_utilization<'a>(metric: &'a Value, part: &str) -> Option<&'a Value> {
    let is_cpu = text(metric, "/type") == "Resource" && text(metric, "/resource/name") == "cpu";
    let found = metric.pointer(&format!("/resource/{part}/averageUtilization"));
    found.filter(|found| is_cpu && !found.is_null())
}

/// Takes an annotation and reads what is in it; what cannot be read is dropped, as upstream does.
fn take(metadata: &mut Fields, key: &str) -> Option<Value> {
    let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut)?;
    let found = annotations.remove(key)?;
    serde_json::from_str(found.as_str()?).ok()
}

fn keep(metadata: &mut Fields, key: &str, value: &Value) {
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(key.to_owned(), value.to_string().into());
    }
}

fn converted(
    metrics: Option<&Value>,
    convert: fn(&Value, &str) -> Value,
    part: &str,
) -> Vec<Value> {
    let all = metrics.and_then(Value::as_array).into_iter().flatten();
    all.filter(|metric| metric.is_object()).map(|metric| convert(metric, part)).collect()
}

fn to_v2(object: &mut Value) {
    let metadata = metadata_mut(object);
    let [metrics, behavior, current, conditions] =
        [METRICS, BEHAVIOR, CURRENT_METRICS, CONDITIONS].map(|key| take(metadata, key));
    let annotations = metadata.get("annotations").and_then(Value::as_object);
    if annotations.is_some_and(Map::is_empty) {
        metadata.remove("annotations");
    }
    let spec = child_mut(object, "spec");
    let mut all = converted(metrics.as_ref(), new_metric, "target");
    if let Some(cpu) = spec.remove(TARGET_CPU).filter(|cpu| !cpu.is_null()) {
        all.push(json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": cpu},
        }}));
    }
    if !all.is_empty() {
        spec.insert("metrics".to_owned(), all.into());
    }
    if let Some(behavior) = behavior.filter(Value::is_object) {
        spec.insert("behavior".to_owned(), behavior);
    }
    let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else { return };
    // The metrics say it more precisely.
    status.remove(CURRENT_CPU);
    let current = converted(current.as_ref(), new_metric, "current");
    if !current.is_empty() {
        status.insert("currentMetrics".to_owned(), current.into());
    }
    if let Some(conditions) = conditions.filter(Value::is_array) {
        status.insert("conditions".to_owned(), conditions);
    }
}

fn from_v2(object: &mut Value) {
    let mut kept = Vec::new();
    let spec = child_mut(object, "spec");
    let metrics = spec.remove("metrics").unwrap_or_default();
    let metrics = json!({"all": metrics});
    let mut others = Vec::new();
    for metric in list(&metrics, "all") {
        match cpu_utilization(metric, "target") {
            Some(cpu) => drop(spec.insert(TARGET_CPU.to_owned(), cpu.clone())),
            None => others.push(old_metric(metric, "target")),
        }
    }
    if !others.is_empty() {
        kept.push((METRICS, Value::from(others)));
    }
    if let Some(behavior) = spec.remove("behavior").filter(|behavior| !behavior.is_null()) {
        kept.push((BEHAVIOR, behavior));
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let current = status.remove("currentMetrics").unwrap_or_default();
        let current = current.as_array().cloned().unwrap_or_default();
        if let Some(cpu) = current.iter().find_map(|metric| cpu_utilization(metric, "current")) {
            status.insert(CURRENT_CPU.to_owned(), cpu.clone());
        }
        if !current.is_empty() {
            let old = current.iter().map(|metric| old_metric(metric, "current"));
            kept.push((CURRENT_METRICS, old.collect()));
        }
        let conditions = status.remove("conditions").unwrap_or_default();
        if conditions.as_array().is_some_and(|all| !all.is_empty()) {
            kept.push((CONDITIONS, conditions));
        }
    }
    let metadata = metadata_mut(object);
    for (key, value) in kept {
        keep(metadata, key, &value);
    }
}

pub(super) const KIND: Kind = Kind {
    version: "v1",
    decode: decodes::<v1::HorizontalPodAutoscaler>,
    hub: Some(Hub { version: "v2", to: to_v2, from: from_v2 }),
    ..pod_autoscaler::KIND
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_resource;
    use proptest::prelude::*;

    fn rows() -> [&'static Kind; 2] {
        ["v1", "v2"]
            .map(|version| by_resource("autoscaling", version, "horizontalpodautoscalers").unwrap())
    }

    #[test]
    fn a_target_for_the_cpu_has_a_field_and_all_else_is_kept_in_annotations() {
        let [v1, v2] = rows();
        assert!(std::ptr::eq(v1.stored(), v2) && std::ptr::eq(v2.stored(), v2));
        let sent = json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h"},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                     "targetCPUUtilizationPercentage": 50},
        });
        let stored = v1.to_stored(sent.clone()).unwrap();
        assert_eq!(stored["apiVersion"], "autoscaling/v2");
        let cpu = json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
        assert_eq!(stored["spec"]["metrics"], json!([cpu]));
        assert_eq!((v2.decode)(&stored), Ok(()));
        assert_eq!(*v1.show(&stored), sent);

        let mut more = stored;
        let memory = json!({"type": "Resource", "resource": {
            "name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
        let object = json!({"type": "Object", "object": {
            "describedObject": {"kind": "Ingress", "name": "i"}, "metric": {"name": "hits"},
            "target": {"type": "Value", "value": "7"}}});
        more["spec"]["metrics"] = json!([memory, object, cpu]);
        more["spec"]["behavior"] = json!({"scaleDown": {"selectPolicy": "Min"}});
        more["status"] = json!({
            "desiredReplicas": 2, "conditions": [{"type": "AbleToScale", "status": "True"}],
            "currentMetrics": [{"type": "Resource", "resource": {
                "name": "cpu", "current": {"averageUtilization": 41, "averageValue": "5m"}}}],
        });
        let shown = v1.show(&more).into_owned();
        assert_eq!((v1.decode)(&shown), Ok(()));
        let annotations = &shown["metadata"]["annotations"];
        let read = |key: &str| -> Value {
            serde_json::from_str(annotations[key].as_str().unwrap()).unwrap()
        };
        assert_eq!(
            read(METRICS),
            json!([
                {"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}},
                {"type": "Object", "object": {"target": {"kind": "Ingress", "name": "i"},
                                              "metricName": "hits", "targetValue": "7"}},
            ])
        );
        assert_eq!(read(CURRENT_METRICS)[0]["resource"]["currentAverageUtilization"], 41);
        assert_eq!(shown["status"], json!({"desiredReplicas": 2, CURRENT_CPU: 41}));
        assert_eq!(shown["spec"][TARGET_CPU], 50);
        assert_eq!(v1.to_stored(shown).unwrap(), more);
    }

    #[test]
    fn annotations_that_say_nothing_are_dropped() {
        let mut object =
            json!({"metadata": {"annotations": {METRICS: "{", BEHAVIOR: 1, "a": "b"}}});
        to_v2(&mut object);
        assert_eq!(object, json!({"metadata": {"annotations": {"a": "b"}}, "spec": {}}));
        assert!(rows()[0].to_stored(json!({"spec": {"maxReplicas": "x"}})).is_err());
    }

    fn metric() -> impl Strategy<Value = Value> {
        let name = "[ab]{1,5}";
        let target = prop_oneof![
            Just(json!({"type": "AverageValue", "averageValue": "3"})),
            Just(json!({"type": "Value", "value": "5"})),
        ];
        let utilization = (1..100i32)
            .prop_map(|share| json!({"type": "Utilization", "averageUtilization": share}));
        let average = Just(json!({"type": "AverageValue", "averageValue": "3"}));
        prop_oneof![
            (name, utilization.clone()).prop_map(|(name, target)| {
                json!({"type": "ContainerResource", "containerResource": {
                    "name": name, "container": "c", "target": target}})
            }),
            (name, average.clone()).prop_map(|(name, target)| {
                json!({"type": "Pods", "pods": {"metric": {"name": name}, "target": target}})
            }),
            (name, target.clone()).prop_map(|(name, target)| {
                let metric = json!({"name": name, "selector": {"matchLabels": {"a": "b"}}});
                json!({"type": "External", "external": {"metric": metric, "target": target}})
            }),
            (name, target).prop_map(|(name, target)| {
                json!({"type": "Object", "object": {"metric": {"name": name}, "target": target,
                    "describedObject": {"kind": "K", "name": "n", "apiVersion": "v1"}}})
            }),
            (name, prop_oneof![utilization, average]).prop_map(|(name, target)| {
                json!({"type": "Resource", "resource": {"name": name, "target": target}})
            }),
        ]
    }

    proptest! {
        #[test]
        fn nothing_that_is_stored_is_lost_in_the_other_version(
            metrics in proptest::collection::vec(metric(), 1..5),
            behaves in any::<bool>(),
        ) {
            let [v1, v2] = rows();
            let mut stored = json!({
                "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "h"},
                "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "D", "name": "d"}, "metrics": metrics},
            });
            if behaves {
                stored["spec"]["behavior"] = json!({"scaleUp": {"stabilizationWindowSeconds": 3}});
            }
            prop_assert_eq!((v2.decode)(&stored), Ok(()));
            let shown = v1.show(&stored).into_owned();
            prop_assert_eq!((v1.decode)(&shown), Ok(()));
            prop_assert_eq!(v1.to_stored(shown).unwrap(), stored);
        }

        #[test]
        fn any_object_is_converted(text in "[\\[\\]{}\":,a-z0-9]{0,40}") {
            let mut object = json!({"metadata": {"annotations": {METRICS: text, CURRENT_METRICS: text}}, "status": {}});
            to_v2(&mut object);
            from_v2(&mut object);
        }
    }
}
