//! What the LimitRanges of a namespace make of what is created in it: defaults for containers, then bounds
//! for containers, Pods and claims (DEF-2).

use crate::{
    core::Pod,
    kinds::Kind,
    meta::{child_mut, metadata_mut},
    quantity::{Format, Quantity},
    resources::{Quantities, limited, requested},
};
use serde::Deserialize as _;
use serde_json::{Map, Value};

/// Says on a Pod what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Lists of containers that are completed and bounded, and what a container of each is called.
const CONTAINERS: &[(&str, &str)] =
    &[("containers", "container"), ("initContainers", "init container")];

fn items<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = range.pointer("/spec/limits").and_then(Value::as_array).into_iter().flatten();
    all.filter(move |item| item.get("type").is_some_and(|found| found == kind))
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The amounts of an object; what is none is left out.
fn amounts(object: Option<&Value>) -> Quantities {
    let fields = object.and_then(Value::as_object).into_iter().flatten();
    let parsed = fields.map(|(name, amount)| (name, amount.as_str().map(str::parse::<Quantity>)));
    parsed.filter_map(|(name, amount)| Some((name.clone(), amount?.ok()?))).collect()
}

/// Completes the containers of a new Pod, by one range after the other; a value that is there stays.
pub fn set_defaults(ranges: &[Value], pod: &mut Value) {
    for range in ranges {
        let (mut requests, mut limits) = (Map::new(), Map::new());
        for item in items(range, "Container") {
            for (key, found) in [("defaultRequest", &mut requests), ("default", &mut limits)] {
                found.extend(item.get(key).and_then(Value::as_object).cloned().unwrap_or_default());
            }
        }
        let mut said = Vec::new();
        for (key, called) in CONTAINERS {
            let spec = child_mut(pod, "spec");
            let containers = spec.get_mut(*key).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                let name = crate::kinds::text(container, "/name");
                // A request is not what a limit says that is only now filled in.
                for (list, word, defaults) in
                    [("requests", "request", &requests), ("limits", "limit", &limits)]
                {
                    let added = complete(container, list, defaults);
                    if !added.is_empty() {
                        said.push(format!("{} {word} for {called} {name}", added.join(", ")));
                    }
                }
            }
        }
        if !said.is_empty() {
            let annotations = metadata_mut(pod).entry("annotations");
            let annotations = annotations.or_insert_with(|| Value::Object(Map::new()));
            if let Some(annotations) = annotations.as_object_mut() {
                let text = format!("LimitRanger plugin set: {}", said.join("; "));
                annotations.insert(ANNOTATION.to_owned(), text.into());
            }
        }
    }
}

/// Adds what is not there to a list of resources; the names of what was added.
fn complete(container: &mut Value, list: &str, defaults: &Map<String, Value>) -> Vec<String> {
    if defaults.is_empty() {
        return Vec::new();
    }
    let found = child_mut(container, "resources").entry(list);
    let found = found.or_insert_with(|| Value::Object(Map::new()));
    let Some(found) = found.as_object_mut() else { return Vec::new() };
    let mut added = Vec::new();
    for (name, amount) in defaults {
        if !found.contains_key(name) {
            found.insert(name.clone(), amount.clone());
            added.push(name.clone());
        }
    }
    added
}

/// Whether what is created keeps to every bound.
///
/// # Errors
/// Everything that the first range which it does not keep to has against it.
pub fn check(ranges: &[Value], kind: &Kind, object: &Value) -> Result<(), String> {
    for range in ranges {
        let errors = match (kind.group, kind.kind) {
            ("", "Pod") => check_pod(range, object),
            ("", "PersistentVolumeClaim") => check_claim(range, object),
            _ => Vec::new(),
        };
        if !errors.is_empty() {
            return Err(together(errors));
        }
    }
    Ok(())
}

/// One error as it is, several in brackets, each once.
fn together(errors: Vec<String>) -> String {
    let mut all: Vec<String> = Vec::new();
    for error in errors {
        if !all.contains(&error) {
            all.push(error);
        }
    }
    match all.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

fn check_pod(range: &Value, pod: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for item in items(range, "Container") {
        for (key, _) in CONTAINERS {
            for container in list(pod, &format!("/spec/{key}")) {
                let of = |list: &str| amounts(container.pointer(&format!("/resources/{list}")));
                check_item(item, "Container", &of("requests"), &of("limits"), &mut errors);
            }
        }
    }
    let mut items = items(range, "Pod").peekable();
    if items.peek().is_none() {
        return errors;
    }
    // What was decoded before is decoded again.
    let Ok(pod) = Pod::deserialize(pod) else { return errors };
    let (requests, limits) = (requested(&pod), limited(&pod));
    for item in items {
        check_item(item, "Pod", &requests, &limits, &mut errors);
    }
    errors
}

/// A claim has requests only.
fn check_claim(range: &Value, claim: &Value) -> Vec<String> {
    let requests = amounts(claim.pointer("/spec/resources/requests"));
    let mut errors = Vec::new();
    for item in items(range, "PersistentVolumeClaim") {
        let at = |name: &str| format!("{name} usage per PersistentVolumeClaim is");
        for (name, least) in amounts(item.get("min")) {
            match requests.get(&name) {
                None => {
                    errors.push(format!("minimum {} {least}.  No request is specified", at(&name)));
                }
                Some(asked) if *asked < least => {
                    errors.push(format!("minimum {} {least}, but request is {asked}", at(&name)));
                }
                Some(_) => {}
            }
        }
        for (name, most) in amounts(item.get("max")) {
            match requests.get(&name) {
                None => {
                    errors.push(format!("maximum {} {most}.  No request is specified", at(&name)));
                }
                Some(asked) if *asked > most => {
                    errors.push(format!("maximum {} {most}, but request is {asked}", at(&name)));
                }
                Some(_) => {}
            }
        }
    }
    errors
}

/// One item of a range against what a container or a Pod asks for and may use.
fn check_item(
    item: &Value,
    kind: &str,
    requests: &Quantities,
    limits: &Quantities,
    errors: &mut Vec<String>,
) {
    for (name, least) in amounts(item.get("min")) {
        let at = format!("minimum {name} usage per {kind} is {least}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => errors.push(format!("{at}.  No request is specified")),
            (Some(asked), _) if *asked < least => {
                errors.push(format!("{at}, but request is {asked}"));
            }
            (Some(_), Some(limit)) if *limit < least => {
                errors.push(format!("{at}, but limit is {limit}"));
            }
            (Some(_), _) => {}
        }
    }
    for (name, most) in amounts(item.get("max")) {
        let at = format!("maximum {name} usage per {kind} is {most}");
        match (requests.get(&name), limits.get(&name)) {
            (_, None) => errors.push(format!("{at}.  No limit is specified")),
            (_, Some(limit)) if *limit > most => {
                errors.push(format!("{at}, but limit is {limit}"));
            }
            (Some(asked), Some(_)) if *asked > most => {
                errors.push(format!("{at}, but request is {asked}"));
            }
            (_, Some(_)) => {}
        }
    }
    for (name, most) in amounts(item.get("maxLimitRequestRatio")) {
        let at = format!("{name} max limit to request ratio per {kind} is {most}");
        let positive = |amount: Option<&Quantity>| amount.copied().filter(|a| !a.is_zero());
        match (positive(requests.get(&name)), positive(limits.get(&name))) {
            (None, _) => {
                errors.push(format!("{at}, but no request is specified or request is 0"));
            }
            (_, None) => errors.push(format!("{at}, but no limit is specified or limit is 0")),
            (Some(asked), Some(limit)) => {
                let ratio = share(limit) / share(asked);
                if ratio > share(most) {
                    errors.push(format!("{at}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

/// As a number: in thousandths where those fit.
fn share(amount: Quantity) -> f64 {
    const MILLI_MAX: i64 = i64::MAX / 1000;
    if amount <= Quantity::units(MILLI_MAX, Format::Decimal) {
        amount.milli_value() as f64 / 1000.0
    } else {
        amount.value() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_alias;
    use serde_json::json;

    fn range(limits: Value) -> Value {
        json!({"metadata": {"name": "r"}, "spec": {"limits": limits}})
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a", "resources": resources}],
        }})
    }

    #[test]
    fn a_container_is_given_what_it_does_not_say_and_the_pod_tells() {
        // DEF-2
        let range = range(json!([{"type": "Container",
            "default": {"cpu": "500m", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}]));
        let mut object = pod(json!({"limits": {"cpu": "2"}, "requests": {"cpu": "2"}}));
        object["spec"]["initContainers"] = json!([{"name": "i"}]);
        set_defaults(std::slice::from_ref(&range), &mut object);
        let own = json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "2"}});
        assert_eq!(object["spec"]["containers"][0]["resources"], own);
        let given =
            json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "100m"}});
        assert_eq!(object["spec"]["initContainers"][0]["resources"], given);
        assert_eq!(
            object["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: memory limit for container a; cpu request for init container i; \
             cpu, memory limit for init container i"
        );
        let before = object.clone();
        set_defaults(&[range], &mut object);
        assert_eq!(object, before, "nothing is left to say");
    }

    #[test]
    fn bounds_are_refused_in_upstreams_words() {
        // DEF-2
        let container = |rest: Value| {
            let mut item = json!({"type": "Container"});
            item.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            json!([item])
        };
        let asks = |request: &str, limit: &str| json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
        for (limits, resources, want) in [
            (container(json!({"min": {"cpu": "1"}, "max": {"cpu": "2"}})), asks("1", "2"), ""),
            (
                container(json!({"min": {"cpu": "1"}})),
                asks("500m", "2"),
                "minimum cpu usage per Container is 1, but request is 500m",
            ),
            (
                container(json!({"min": {"cpu": "1"}})),
                json!({}),
                "minimum cpu usage per Container is 1.  No request is specified",
            ),
            (
                container(json!({"max": {"cpu": "1", "memory": "1Gi"}})),
                asks("1", "1500m"),
                "[maximum cpu usage per Container is 1, but limit is 1500m, maximum memory usage per \
                 Container is 1Gi.  No limit is specified]",
            ),
            (
                container(json!({"maxLimitRequestRatio": {"cpu": "2"}})),
                asks("500m", "1500m"),
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ),
            (
                container(json!({"maxLimitRequestRatio": {"cpu": "2"}})),
                json!({"limits": {"cpu": "1"}}),
                "cpu max limit to request ratio per Container is 2, but no request is specified or \
                 request is 0",
            ),
            (
                json!([{"type": "Pod", "max": {"cpu": "1"}}]),
                asks("1", "1500m"),
                "maximum cpu usage per Pod is 1, but limit is 1500m",
            ),
        ] {
            let object = pod(resources);
            let found = check(&[range(limits.clone())], by_alias("pod").unwrap(), &object);
            assert_eq!(found.err().unwrap_or_default(), want, "{limits}");
        }
    }

    #[test]
    fn a_pod_is_bounded_by_the_sum_of_its_containers() {
        let mut object = pod(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}));
        let second = object["spec"]["containers"][0].clone();
        object["spec"]["containers"].as_array_mut().unwrap().push(second);
        let found = |most: &str| {
            let range = range(json!([{"type": "Pod", "max": {"cpu": most}}]));
            check(&[range], by_alias("pod").unwrap(), &object)
        };
        assert_eq!(found("2"), Ok(()));
        let want = "maximum cpu usage per Pod is 1999m, but limit is 2";
        assert_eq!(found("1999m"), Err(want.to_owned()));
    }

    #[test]
    fn a_claim_is_bounded_by_what_it_requests() {
        let range = range(
            json!([{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}]),
        );
        for (asked, want) in [
            ("1Gi", ""),
            (
                "500Mi",
                "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi",
            ),
            ("3Gi", "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"),
        ] {
            let claim = json!({"spec": {"resources": {"requests": {"storage": asked}}}});
            let found = check_claim(&range, &claim);
            assert_eq!(found.first().map_or("", String::as_str), want);
        }
    }
}
