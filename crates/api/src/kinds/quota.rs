//! ResourceQuota and LimitRange: what a namespace and what each Pod in it may take.

use super::{
    Kind, column, decodes_amounts, keep_status, list, normalize_amounts, plain::PLAIN, rules,
    take_status, text, valid_metadata,
};
use crate::{
    core,
    field::{FieldError, Path},
    meta::{self, child_mut, drop_nulls},
    names,
    quantity::{Format, Quantity},
    status::CAUSES_MAX,
    table::{age, created_at},
    validation,
};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Amounts of a Pod that are limited by the sum.
const COMPUTE: &[&str] =
    &["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
/// Other amounts that are limited by the sum.
const STORAGE: &[&str] = &[
    "ephemeral-storage",
    "limits.ephemeral-storage",
    "requests.ephemeral-storage",
    "requests.storage",
];
/// Objects that are counted.
const COUNTED: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

fn is_quota_resource(name: &str) -> bool {
    [COMPUTE, STORAGE, COUNTED].iter().any(|names| names.contains(&name)) || is_huge_pages(name)
}

/// Of somebody else, such as `example.com/gpu`: there are only whole ones.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// What is wrong with the name of a resource.
fn resource_name(name: &str, path: &Path) -> Vec<FieldError> {
    let errors = names::check(path, name, names::qualified);
    if !errors.is_empty() || name.contains('/') || is_quota_resource(name) || name == "storage" {
        return errors;
    }
    let detail = "must be a standard resource type or fully qualified";
    vec![FieldError::invalid(path, name, detail)]
}

/// What is wrong with an amount of a resource.
fn resource_amount(name: &str, value: &Value, path: &Path) -> Vec<FieldError> {
    let Some(amount) = rules::amount(value) else { return Vec::new() };
    let mut errors = Vec::new();
    if amount.is_negative() {
        errors.push(FieldError::invalid(path, value.clone(), rules::NEGATIVE));
    }
    if (COUNTED.contains(&name) || is_extended(name)) && !amount.is_whole() {
        errors.push(FieldError::invalid(path, value.clone(), "must be an integer"));
    }
    errors
}

fn fields<'a>(value: &'a Value, key: &str) -> Option<&'a Map<String, Value>> {
    value.get(key).and_then(Value::as_object)
}

fn validate_hard(hard: Option<&Map<String, Value>>, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (name, amount) in hard.into_iter().flatten() {
        let at = path.key(name);
        errors.extend(resource_name(name, &at));
        if !name.contains('/') && !is_quota_resource(name) {
            let detail = "must be a standard resource for quota";
            errors.push(FieldError::invalid(&at, name.clone(), detail));
        }
        errors.extend(resource_amount(name, amount, &at));
    }
    errors
}

/// Which Pods a quota counts, and whether a scope only knows of Pods in number.
const SCOPES: &[(&str, bool)] = &[
    ("BestEffort", true),
    ("CrossNamespacePodAffinity", false),
    ("NotBestEffort", false),
    ("NotTerminating", false),
    ("PriorityClass", false),
    ("Terminating", false),
    ("VolumeAttributesClass", false),
];
/// Scopes that no Pod is in at once.
const CONFLICTING: &[[&str; 2]] =
    &[["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

fn scope_knows(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        "CrossNamespacePodAffinity"
        | "NotBestEffort"
        | "NotTerminating"
        | "PriorityClass"
        | "Terminating" => resource == "pods" || COMPUTE.contains(&resource),
        _ => true,
    }
}

/// Scopes that go together neither with each other nor with what is limited; `whole` is printed.
fn validate_scopes(
    scopes: &[String],
    spec: &Value,
    path: &Path,
    whole: &Arc<Value>,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let limited: Vec<&String> = fields(spec, "hard").into_iter().flat_map(Map::keys).collect();
    // By scope and not by its mentions: a product of two long lists would be too much to look at.
    let unknown_to = |scope: &str| {
        let known = |name: &&&String| is_quota_resource(name) && !scope_knows(scope, name);
        limited.iter().filter(known).count()
    };
    let unknown: BTreeMap<&str, usize> =
        SCOPES.iter().map(|(scope, _)| (*scope, unknown_to(scope))).collect();
    let mentions = scopes.iter().map(|scope| unknown.get(scope.as_str()).copied().unwrap_or(0));
    let found = mentions.fold(0, usize::saturating_add);
    let detail = "unsupported scope applied to resource";
    // They are all alike, and more than that nobody is told.
    let told = found.min(CAUSES_MAX);
    errors.extend((0..told).map(|_| FieldError::invalid_shared(path, whole, detail)));
    for pair in CONFLICTING {
        if pair.iter().all(|scope| scopes.iter().any(|found| found == scope)) {
            errors.push(FieldError::invalid_shared(path, whole, "conflicting scopes"));
        }
    }
    errors
}

fn is_scope(scope: &str) -> bool {
    SCOPES.iter().any(|(known, _)| *known == scope)
}

fn validate_scope_selector(spec: &Value, path: &Path) -> Vec<FieldError> {
    let Some(selector) = spec.get("scopeSelector").filter(|s| !s.is_null()) else {
        return Vec::new();
    };
    let mut errors = Vec::new();
    // Without the index: so upstream has it.
    let path = path.child("scopeSelector").child("matchExpressions");
    let mut scopes = Vec::new();
    for expression in list(selector, "matchExpressions") {
        let (scope, operator) = (text(expression, "/scopeName"), text(expression, "/operator"));
        if !is_scope(&scope) {
            let at = path.child("scopeName");
            errors.push(FieldError::invalid(&at, scope.clone(), "unsupported scope"));
        }
        let at = path.child("operator");
        if !["PriorityClass", "VolumeAttributesClass"].contains(&scope.as_str())
            && is_scope(&scope)
            && operator != "Exists"
        {
            let detail = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
                          ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                          ResourceQuotaScopeNotBestEffort or \
                          ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(FieldError::invalid(&at, operator.clone(), detail));
        }
        let values = list(expression, "values");
        let at_values = path.child("values");
        match operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(&at_values, detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(&at_values, values, detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                let detail = "not a valid selector operator";
                errors.push(FieldError::invalid(&at, operator, detail));
            }
        }
        scopes.push(scope);
    }
    errors.extend(validate_scopes(&scopes, spec, &path, &Arc::new(selector.clone())));
    errors
}

fn validate_quota(object: &Value) -> Vec<FieldError> {
    let mut errors = valid_metadata(object, true);
    let (spec, path) = (object.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
    errors.extend(validate_hard(fields(spec, "hard"), &path.child("hard")));
    let whole = Arc::new(spec.get("scopes").cloned().unwrap_or_default());
    let scopes: Vec<String> =
        list(spec, "scopes").iter().filter_map(|s| s.as_str().map(str::to_owned)).collect();
    let at = path.child("scopes");
    for _ in scopes.iter().filter(|scope| !is_scope(scope)) {
        errors.push(FieldError::invalid_shared(&at, &whole, "unsupported scope"));
    }
    errors.extend(validate_scopes(&scopes, spec, &at, &whole));
    errors.extend(validate_scope_selector(spec, &path));
    errors
}

/// `cpu: 1/2, pods: 3/10`: what is used of what may be; requests and limits apart.
fn quota_cells(object: &Value) -> [Value; 2] {
    let null = Value::Null;
    let status = object.get("status").unwrap_or(&null);
    let cell = |limits: bool| -> Value {
        let hard = fields(status, "hard").into_iter().flatten();
        let all: Vec<String> = hard
            .filter(|(name, _)| name.starts_with("limits.") == limits)
            .map(|(name, hard)| {
                let amount = |value: Option<&Value>| match value {
                    None => "0".to_owned(),
                    Some(value) => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
                };
                let used = fields(status, "used").and_then(|used| used.get(name));
                format!("{name}: {}/{}", amount(used), amount(Some(hard)))
            })
            .collect();
        all.join(", ").into()
    };
    [cell(false), cell(true)]
}

const QUOTA_AMOUNTS: &[&str] = &["spec/hard/*", "status/hard/*", "status/used/*"];

pub(super) const RESOURCE_QUOTA: Kind = Kind {
    kind: "ResourceQuota",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    subresources: &["status"],
    default: |object| {
        drop_nulls(object);
        child_mut(object, "spec");
        normalize_amounts(object, QUOTA_AMOUNTS);
    },
    prepare_create: |object| rules::fresh_status(object, &[]),
    prepare_update: keep_status,
    prepare_status: |new, old| {
        take_status(new, old);
        normalize_amounts(new, QUOTA_AMOUNTS);
    },
    validate_create: validate_quota,
    validate_update: |new, old| {
        let mut errors = validation::metadata_update(new, old);
        errors.extend(validate_quota(new));
        let scopes = |object: &Value| {
            let spec = object.get("spec").unwrap_or(&Value::Null);
            list(spec, "scopes").iter().map(Value::to_string).collect::<BTreeSet<_>>()
        };
        if scopes(new) != scopes(old) {
            let path = Path::new("spec").child("scopes");
            let found = new.pointer("/spec/scopes").cloned().unwrap_or_default();
            errors.push(FieldError::invalid(&path, found, "field is immutable"));
        }
        errors
    },
    validate_status: |new, _| {
        let (status, path) = (new.get("status").unwrap_or(&Value::Null), Path::new("status"));
        let mut errors = validate_hard(fields(status, "hard"), &path.child("hard"));
        errors.extend(validate_hard(fields(status, "used"), &path.child("used")));
        errors
    },
    columns: &[
        column("Name", "name"),
        column("Request", ""),
        column("Limit", ""),
        column("Age", ""),
    ],
    cells: |object, now| {
        let [requests, limits] = quota_cells(object);
        vec![meta::name(object).into(), requests, limits, age(object, now).into()]
    },
    decode: |object| decodes_amounts::<core::ResourceQuota>(object, QUOTA_AMOUNTS),
    ..PLAIN
};

const LIMIT_LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

/// What a container has if only a part is said: the limit is the maximum, the request is the limit, or
/// the minimum.
fn default_limits(item: &mut Map<String, Value>) {
    if item.get("type").is_none_or(|kind| kind != "Container") {
        return;
    }
    let of = |item: &Map<String, Value>, key: &str| {
        item.get(key).and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let (mut limits, mut requests) = (of(item, "default"), of(item, "defaultRequest"));
    for (name, amount) in of(item, "max") {
        limits.entry(name).or_insert(amount);
    }
    for (name, amount) in limits.clone().into_iter().chain(of(item, "min")) {
        requests.entry(name).or_insert(amount);
    }
    for (key, found) in [("default", limits), ("defaultRequest", requests)] {
        if !found.is_empty() {
            item.insert(key.to_owned(), found.into());
        }
    }
}

fn limited_name(kind: &str, name: &str, path: &Path) -> Vec<FieldError> {
    let mut errors = resource_name(name, path);
    let of_container =
        ["cpu", "memory", "ephemeral-storage"].contains(&name) || name.starts_with("hugepages-");
    if matches!(kind, "Pod" | "Container") && !name.contains('/') && !of_container {
        let detail = "must be a standard resource for containers";
        errors.push(FieldError::invalid(path, name, detail));
    }
    errors
}

/// One resource of one item: what is least must not be above what is most.
fn validate_order(item: &Value, name: &str, path: &Path) -> Vec<FieldError> {
    let found = |key: &str| rules::amount(fields(item, key)?.get(name)?);
    let [max, min, default, request, ratio] = LIMIT_LISTS.map(found);
    let mut errors = Vec::new();
    // Key whose field is at fault, whose value is printed, then low and high with their names.
    for (at, printed, low, low_name, high, high_name) in [
        ("min", min, min, "min value", max, "max value"),
        ("defaultRequest", request, min, "min value", request, "default request value"),
        ("defaultRequest", request, request, "default request value", max, "max value"),
        (
            "defaultRequest",
            request,
            request,
            "default request value",
            default,
            "default limit value",
        ),
        ("default", min, min, "min value", default, "default value"),
        ("default", max, default, "default value", max, "max value"),
    ] {
        if let (Some(low), Some(high), Some(printed)) = (low, high, printed)
            && low > high
        {
            let detail = format!("{low_name} {low} is greater than {high_name} {high}");
            let at = path.child(at).key(name);
            errors.push(FieldError::invalid(&at, printed.to_string(), detail));
        }
    }
    let Some(ratio) = ratio else { return errors };
    let at = path.child("maxLimitRequestRatio").key(name);
    if ratio < Quantity::units(1, Format::Decimal) {
        let detail = format!("ratio {ratio} is less than 1");
        errors.push(FieldError::invalid(&at, ratio.to_string(), detail));
    }
    if let (Some(min), Some(max)) = (min, max) {
        let share = |amount: Quantity| amount.milli_value() as f64 / 1000.0;
        let most = share(max) / share(min);
        if share(ratio) > most {
            let detail = format!("ratio {ratio} is greater than max/min = {most:.6}");
            errors.push(FieldError::invalid(&at, ratio.to_string(), detail));
        }
    }
    errors
}

fn validate_limits(object: &Value) -> Vec<FieldError> {
    let mut errors = valid_metadata(object, true);
    let path = Path::new("spec").child("limits");
    let mut kinds = BTreeSet::new();
    let spec = object.get("spec").unwrap_or(&Value::Null);
    for (i, item) in list(spec, "limits").iter().enumerate() {
        let at = path.index(i);
        let kind = text(item, "/type");
        let at_kind = at.child("type");
        errors.extend(names::check(&at_kind, &kind, names::qualified));
        if !kind.contains('/')
            && !["Container", "PersistentVolumeClaim", "Pod"].contains(&kind.as_str())
        {
            let detail = "must be a standard limit type or fully qualified";
            errors.push(FieldError::invalid(&at_kind, kind.clone(), detail));
        }
        if !kinds.insert(kind.clone()) {
            errors.push(FieldError::duplicate(&at_kind, kind.clone()));
        }
        let mut resources = BTreeSet::new();
        for key in LIMIT_LISTS {
            let found = fields(item, key).filter(|found| !found.is_empty());
            if kind == "Pod" && found.is_some() && matches!(key, "default" | "defaultRequest") {
                let detail = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(&at.child(key), detail));
                continue;
            }
            for name in found.into_iter().flat_map(Map::keys) {
                errors.extend(limited_name(&kind, name, &at.child(key).key(name)));
                resources.insert(name);
            }
        }
        let storage = |key: &str| fields(item, key).is_some_and(|f| f.contains_key("storage"));
        if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
            let detail =
                "either minimum or maximum storage value is required, but neither was provided";
            errors.push(FieldError::required(&at.child("limits"), detail));
        }
        for name in resources {
            errors.extend(validate_order(item, name, &at));
        }
    }
    errors
}

const LIMIT_AMOUNTS: &[&str] = &[
    "spec/limits/*/max/*",
    "spec/limits/*/min/*",
    "spec/limits/*/default/*",
    "spec/limits/*/defaultRequest/*",
    "spec/limits/*/maxLimitRequestRatio/*",
];

pub(super) const LIMIT_RANGE: Kind = Kind {
    kind: "LimitRange",
    plural: "limitranges",
    singular: "limitrange",
    short_names: &["limits"],
    create_on_update: true,
    default: |object| {
        drop_nulls(object);
        let limits = child_mut(object, "spec").entry("limits").or_insert_with(|| json!([]));
        for item in limits.as_array_mut().into_iter().flatten() {
            if let Some(item) = item.as_object_mut() {
                default_limits(item);
            }
        }
        normalize_amounts(object, LIMIT_AMOUNTS);
    },
    validate_create: validate_limits,
    validate_update: |new, old| {
        let mut errors = validate_limits(new);
        errors.extend(validation::metadata_update(new, old));
        errors
    },
    columns: &[column("Name", "name"), column("Created At", "")],
    cells: |object, _| vec![meta::name(object).into(), created_at(object).into()],
    decode: |object| decodes_amounts::<core::LimitRange>(object, LIMIT_AMOUNTS),
    ..PLAIN
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_what_follows_from_what_is_said() {
        let mut object = json!({"spec": {"limits": [
            {"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "100m", "memory": "1Gi"}},
            {"type": "Pod", "max": {"cpu": "2"}},
        ]}});
        (LIMIT_RANGE.default)(&mut object);
        let item = &object["spec"]["limits"][0];
        assert_eq!(item["default"], json!({"cpu": "2"}));
        assert_eq!(item["defaultRequest"], json!({"cpu": "2", "memory": "1Gi"}));
        assert_eq!(object["spec"]["limits"][1], json!({"type": "Pod", "max": {"cpu": "2"}}));
    }
}
