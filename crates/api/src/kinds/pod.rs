//! Pod: defaults (§1.2), validation (§1.7), what an update may change (§1.8), columns.
//!
//! What a Pod and a template for Pods have in common takes the spec and where it is.

mod volumes;

use super::{
    Kind, column, decodes_amounts, keep_status, list, normalize_amounts, plain::PLAIN, text,
    valid_metadata, wide,
};
use crate::{
    core,
    field::{FieldError, Path},
    meta::child_mut,
    names,
    quantity::Quantity,
    resources::qos_class_of,
    table::age,
};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

fn each(spec: &mut Map<String, Value>, key: &str, mut change: impl FnMut(&mut Map<String, Value>)) {
    for item in spec.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(item) = item.as_object_mut() {
            change(item);
        }
    }
}

fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains('@') {
        return "IfNotPresent";
    }
    match name.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

/// Where a Pod has amounts.
const AMOUNTS: &[&str] = &[
    "spec/containers/*/resources/limits/*",
    "spec/containers/*/resources/requests/*",
    "spec/initContainers/*/resources/limits/*",
    "spec/initContainers/*/resources/requests/*",
    "spec/overhead/*",
];

/// What only a Pod's own containers default, and not a template's: a controller may change what it
/// makes of it (DEF-1).
fn default_own_container(container: &mut Map<String, Value>, host_network: bool) {
    each(container, "ports", |port| {
        if let (true, Some(number)) = (host_network, port.get("containerPort").cloned()) {
            port.entry("hostPort").or_insert(number);
        }
    });
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else {
        return;
    };
    let limits = resources.get("limits").and_then(Value::as_object).cloned();
    for (name, amount) in limits.into_iter().flatten() {
        let requests = resources.entry("requests").or_insert(json!({}));
        if let Some(requests) = requests.as_object_mut() {
            requests.entry(name).or_insert(amount);
        }
    }
}

fn default_container(container: &mut Map<String, Value>) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default().to_owned();
    let set = |c: &mut Map<String, Value>, key: &str, value: Value| {
        c.entry(key).or_insert(value);
    };
    set(container, "imagePullPolicy", pull_policy(&image).into());
    set(container, "terminationMessagePath", "/dev/termination-log".into());
    set(container, "terminationMessagePolicy", "File".into());
    set(container, "resources", json!({}));
    each(container, "ports", |port| set(port, "protocol", "TCP".into()));
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) else { continue };
        for (key, value) in [
            ("timeoutSeconds", 1),
            ("periodSeconds", 10),
            ("successThreshold", 1),
            ("failureThreshold", 3),
        ] {
            let now = probe.entry(key).or_insert(json!(0));
            if now == &json!(0) {
                *now = value.into();
            }
        }
        if let Some(get) = probe.get_mut("httpGet").and_then(Value::as_object_mut) {
            set(get, "path", "/".into());
            set(get, "scheme", "HTTP".into());
        }
    }
}

/// What the spec of a Pod and of a template default.
pub(super) fn default_spec(spec: &mut Map<String, Value>) {
    for (key, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("securityContext", json!({})),
    ] {
        spec.entry(key).or_insert(value);
    }
    // Two names of one field; the newer one counts.
    for (from, to) in
        [("serviceAccount", "serviceAccountName"), ("serviceAccountName", "serviceAccount")]
    {
        let name = spec.get(from).filter(|name| **name != json!("")).cloned();
        if let (Some(name), true) = (name, to == "serviceAccount" || !spec.contains_key(to)) {
            spec.insert(to.to_owned(), name);
        }
    }
    for key in ["containers", "initContainers", "ephemeralContainers"] {
        each(spec, key, default_container);
    }
    each(spec, "volumes", volumes::default);
}

fn default(pod: &mut Value) {
    let spec = child_mut(pod, "spec");
    default_spec(spec);
    spec.entry("enableServiceLinks").or_insert(json!(true));
    let host_network = spec.get("hostNetwork") == Some(&json!(true));
    for key in ["containers", "initContainers"] {
        each(spec, key, |container| default_own_container(container, host_network));
    }
    normalize_amounts(pod, AMOUNTS);
}

/// RES-2, without reading the whole Pod again.
fn qos_class(pod: &Value) -> Option<&'static str> {
    let spec = pod.get("spec")?;
    let read = |value: &Value| match value.get("resources") {
        None | Some(Value::Null) => Some(None),
        Some(resources) => core::ResourceRequirements::deserialize(resources).ok().map(Some),
    };
    let whole = read(spec)?;
    let all = ["containers", "initContainers"].into_iter().flat_map(|key| list(spec, key));
    let containers: Vec<_> = all.map(read).collect::<Option<_>>()?;
    Some(qos_class_of(whole.as_ref(), containers.iter().map(Option::as_ref)))
}

fn prepare_create(pod: &mut Value) {
    let class = qos_class(pod).unwrap_or("BestEffort");
    let status = child_mut(pod, "status");
    *status = Map::new();
    status.insert("phase".to_owned(), "Pending".into());
    status.insert("qosClass".to_owned(), class.into());
}

/// What admission gave the Pod and an update does not say is as it was.
fn keep_priority(new: &mut Value, old: &Value) {
    for field in ["priority", "preemptionPolicy"] {
        if let Some(given) = old.pointer(&format!("/spec/{field}")) {
            child_mut(new, "spec").entry(field).or_insert_with(|| given.clone());
        }
    }
}

/// What the nodes add on their own unless the Pod says otherwise (DEF-2).
fn tolerate_node_loss(pod: &mut Value) {
    let spec = child_mut(pod, "spec");
    let list = spec.entry("tolerations").or_insert(json!([]));
    let Some(list) = list.as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covered = list.iter().any(|t| {
            let (k, effect) = (text(t, "/key"), text(t, "/effect"));
            (k == key || (k.is_empty() && text(t, "/operator") == "Exists"))
                && (effect.is_empty() || effect == "NoExecute")
        });
        if !covered {
            list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                             "tolerationSeconds": 300}));
        }
    }
}

pub(super) fn enumeration(
    errors: &mut Vec<FieldError>,
    path: &Path,
    value: &str,
    allowed: &[&str],
) {
    if !allowed.contains(&value) {
        errors.push(FieldError::not_supported(path, value, allowed));
    }
}

/// Every error of the spec of a Pod or of a template, which is at `path`.
pub(super) fn validate_spec(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let volumes = volumes::validate(spec, &path.child("volumes"), &mut errors);
    if list(spec, "containers").is_empty() {
        errors.push(FieldError::required(&path.child("containers"), ""));
    }
    let mut names = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    for key in ["containers", "initContainers"] {
        for (i, container) in list(spec, key).iter().enumerate() {
            let at = path.child(key).index(i);
            validate_container(container, &at, &volumes, &mut host_ports, &mut errors);
            let name = text(container, "/name");
            if !name.is_empty() && !names.insert(name.clone()) {
                errors.push(FieldError::duplicate(&at.child("name"), name));
            }
        }
    }
    if spec.get("terminationGracePeriodSeconds").is_none_or(Value::is_null) {
        errors.push(FieldError::required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    if let Some(seconds) = spec.get("activeDeadlineSeconds").and_then(Value::as_i64)
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(&path.child("activeDeadlineSeconds"), seconds, detail));
    }
    let policy = text(spec, "/restartPolicy");
    enumeration(
        &mut errors,
        &path.child("restartPolicy"),
        &policy,
        &["Always", "OnFailure", "Never"],
    );
    let dns = text(spec, "/dnsPolicy");
    let policies = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    enumeration(&mut errors, &path.child("dnsPolicy"), &dns, policies);
    for key in ["hostname", "subdomain"] {
        let value = text(spec, &format!("/{key}"));
        if !value.is_empty() {
            errors.extend(names::check(&path.child(key), &value, names::label));
        }
    }
    for key in ["nodeName", "serviceAccountName", "priorityClassName"] {
        let value = text(spec, &format!("/{key}"));
        if !value.is_empty() {
            errors.extend(names::check(&path.child(key), &value, names::subdomain));
        }
    }
    let selector = crate::meta::labels(&json!({"metadata": {"labels": spec.get("nodeSelector")}}));
    errors.extend(names::labels(&path.child("nodeSelector"), &selector));
    validate_tolerations(spec, &path.child("tolerations"), &mut errors);
    errors.extend(crate::enforcement::refusals(spec, path));
    errors
}

/// Blanks around an image: a template may have them, for who completes it.
fn validate_blanks(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for key in ["containers", "initContainers"] {
        for (i, container) in list(spec, key).iter().enumerate() {
            let image = text(container, "/image");
            if image.trim() != image {
                let at = path.child(key).index(i).child("image");
                let detail = "must not have leading or trailing whitespace";
                errors.push(FieldError::invalid(&at, image, detail));
            }
        }
    }
    errors
}

fn validate_tolerations(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (i, toleration) in list(spec, "tolerations").iter().enumerate() {
        let at = path.index(i);
        let (key, operator) = (text(toleration, "/key"), text(toleration, "/operator"));
        if key.is_empty() && operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&at.child("operator"), operator.clone(), detail));
        }
        if operator == "Exists" && !text(toleration, "/value").is_empty() {
            let detail = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(&at.child("operator"), operator, detail));
        }
        let effect = text(toleration, "/effect");
        if toleration.get("tolerationSeconds").is_some_and(|s| !s.is_null())
            && effect != "NoExecute"
        {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&at.child("effect"), effect.clone(), detail));
        }
        if !effect.is_empty() {
            let effects = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
            enumeration(errors, &at.child("effect"), &effect, effects);
        }
    }
}

fn port_range(errors: &mut Vec<FieldError>, path: &Path, port: i64) {
    if !(1..=65_535).contains(&port) {
        let detail = "must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(path, port, detail));
    }
}

fn validate_container(
    container: &Value,
    path: &Path,
    volumes: &BTreeSet<String>,
    host_ports: &mut BTreeSet<String>,
    errors: &mut Vec<FieldError>,
) {
    let name = text(container, "/name");
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    } else {
        errors.extend(names::check(&path.child("name"), &name, names::label));
    }
    let image = text(container, "/image");
    if image.is_empty() {
        errors.push(FieldError::required(&path.child("image"), ""));
    }
    let policies = &["Always", "IfNotPresent", "Never"];
    enumeration(
        errors,
        &path.child("imagePullPolicy"),
        &text(container, "/imagePullPolicy"),
        policies,
    );
    let policies = &["File", "FallbackToLogsOnError"];
    let policy = text(container, "/terminationMessagePolicy");
    enumeration(errors, &path.child("terminationMessagePolicy"), &policy, policies);
    validate_ports(container, &path.child("ports"), host_ports, errors);
    for (i, variable) in list(container, "env").iter().enumerate() {
        let at = path.child("env").index(i);
        let name = text(variable, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else if !name.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
            let detail = "a valid environment variable name must consist only of printable ASCII characters other than '='";
            errors.push(FieldError::invalid(&at.child("name"), name, detail));
        }
        if variable.get("valueFrom").is_some() && !text(variable, "/value").is_empty() {
            let detail = "may not be specified when `value` is not empty";
            errors.push(FieldError::invalid(&at.child("valueFrom"), "", detail));
        }
    }
    let mut mounts = BTreeSet::new();
    for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
        let at = path.child("volumeMounts").index(i);
        let volume = text(mount, "/name");
        if volume.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else if !volumes.contains(&volume) {
            errors.push(FieldError::not_found(&at.child("name"), volume));
        }
        let target = text(mount, "/mountPath");
        if target.is_empty() {
            errors.push(FieldError::required(&at.child("mountPath"), ""));
        } else if !mounts.insert(target.clone()) {
            errors.push(FieldError::invalid(&at.child("mountPath"), target, "must be unique"));
        }
        validate_sub_paths(mount, &path.child("volumeMounts"), &at, errors);
    }
    validate_resources(container, &path.child("resources"), errors);
    if let Some(hook) = container.pointer("/lifecycle/preStop") {
        let at = path.child("lifecycle").child("preStop");
        let handlers = ["exec", "httpGet", "tcpSocket", "sleep"];
        let found: Vec<&str> =
            handlers.into_iter().filter(|h| hook.get(h).is_some_and(|v| !v.is_null())).collect();
        if found.is_empty() {
            errors.push(FieldError::required(&at, "must specify a handler type"));
        }
        for second in found.iter().skip(1) {
            let detail = "may not specify more than 1 handler type";
            errors.push(FieldError::forbidden(&at.child(second), detail));
        }
        if hook.get("exec").is_some_and(|exec| list(exec, "command").is_empty()) {
            errors.push(FieldError::required(&at.child("exec").child("command"), ""));
        }
    }
}

/// Both are below the volume; upstream tells of it without the number of the mount.
fn validate_sub_paths(mount: &Value, list: &Path, at: &Path, errors: &mut Vec<FieldError>) {
    let [path, expression] = ["/subPath", "/subPathExpr"].map(|pointer| text(mount, pointer));
    if !path.is_empty() && !expression.is_empty() {
        let detail = "subPathExpr and subPath are mutually exclusive";
        errors.push(FieldError::invalid(&at.child("subPathExpr"), expression.clone(), detail));
    }
    for (field, path) in [("subPath", path), ("subPathExpr", expression)] {
        if path.starts_with('/') {
            let detail = "must be a relative path";
            errors.push(FieldError::invalid(&list.child(field), path.clone(), detail));
        }
        if path.split('/').any(|part| part == "..") {
            let detail = "must not contain '..'";
            errors.push(FieldError::invalid(&list.child(field), path, detail));
        }
    }
}

fn validate_ports(
    container: &Value,
    path: &Path,
    host_ports: &mut BTreeSet<String>,
    errors: &mut Vec<FieldError>,
) {
    let mut names_seen = BTreeSet::new();
    for (i, port) in list(container, "ports").iter().enumerate() {
        let at = path.index(i);
        let number = port.get("containerPort").and_then(Value::as_i64).unwrap_or_default();
        if number == 0 {
            errors.push(FieldError::required(&at.child("containerPort"), ""));
        } else {
            port_range(errors, &at.child("containerPort"), number);
        }
        let protocol = text(port, "/protocol");
        enumeration(errors, &at.child("protocol"), &protocol, &["SCTP", "TCP", "UDP"]);
        let host = port.get("hostPort").and_then(Value::as_i64).unwrap_or_default();
        if host != 0 {
            port_range(errors, &at.child("hostPort"), host);
            let taken = format!("{protocol}/{}/{host}", text(port, "/hostIP"));
            if !host_ports.insert(taken.clone()) {
                errors.push(FieldError::duplicate(&at.child("hostPort"), taken));
            }
        }
        let name = text(port, "/name");
        if !name.is_empty() {
            errors.extend(names::check(&at.child("name"), &name, names::port_name));
            if !names_seen.insert(name.clone()) {
                errors.push(FieldError::duplicate(&at.child("name"), name));
            }
        }
    }
}

fn validate_resources(container: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let entries = |key: &str| {
        let map = container.pointer(&format!("/resources/{key}")).and_then(Value::as_object);
        map.cloned().unwrap_or_default()
    };
    let (limits, requests) = (entries("limits"), entries("requests"));
    for (list_name, list) in [("limits", &limits), ("requests", &requests)] {
        for (name, amount) in list {
            let at = path.child(list_name).key(name);
            let text = amount.as_str().unwrap_or_default();
            if text.parse::<Quantity>().is_ok_and(Quantity::is_negative) {
                let detail = "must be greater than or equal to 0";
                errors.push(FieldError::invalid(&at, text, detail));
            }
            let standard = ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str());
            if !standard && !name.contains('/') && !name.starts_with("hugepages-") {
                let detail = "must be a standard resource type or fully qualified";
                errors.push(FieldError::invalid(&at, name.clone(), detail));
                let detail = "must be a standard resource for containers";
                errors.push(FieldError::invalid(&at, name.clone(), detail));
            }
        }
    }
    for (name, request) in &requests {
        let (Some(request), Some(limit)) =
            (request.as_str(), limits.get(name).and_then(Value::as_str))
        else {
            continue;
        };
        if let (Ok(asked), Ok(most)) = (request.parse::<Quantity>(), limit.parse::<Quantity>())
            && asked > most
        {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            // At the list, not at the key: so upstream has it.
            errors.push(FieldError::invalid(&path.child("requests"), request, detail));
        }
    }
}

fn validate_create(pod: &Value) -> Vec<FieldError> {
    let mut errors = valid_metadata(pod, true);
    let (spec, path) = (pod.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
    errors.extend(validate_spec(spec, &path));
    errors.extend(validate_blanks(spec, &path));
    errors.extend(validate_added(spec, &path));
    errors
}

fn validate_new(pod: &Value) -> Vec<FieldError> {
    let mut errors = validate_create(pod);
    if !list(pod.get("spec").unwrap_or(&Value::Null), EPHEMERAL).is_empty() {
        let path = Path::new("spec").child(EPHEMERAL);
        errors.push(FieldError::forbidden(&path, "cannot be set on create"));
    }
    errors
}

/// Containers that are added to a Pod while it runs, by their own subresource (SUB-4).
const EPHEMERAL: &str = "ephemeralContainers";
/// What they may have.
const EPHEMERAL_FIELDS: &[&str] = &[
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "name",
    "securityContext",
    "stdin",
    "stdinOnce",
    "targetContainerName",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];

/// Takes from the new object only the containers that are added.
pub(crate) fn prepare_ephemeral(new: &mut Value, old: &Value) {
    let given = new.pointer(&format!("/spec/{EPHEMERAL}")).cloned();
    let mut merged = old.clone();
    let spec = child_mut(&mut merged, "spec");
    match given.filter(|given| !given.is_null() && *given != json!([])) {
        Some(given) => drop(spec.insert(EPHEMERAL.to_owned(), given)),
        None => drop(spec.remove(EPHEMERAL)),
    }
    default(&mut merged);
    *new = merged;
}

/// Those that are there stay as they are.
pub(crate) fn validate_ephemeral(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = crate::validation::metadata_update(new, old);
    errors.extend(validate_create(new));
    let null = Value::Null;
    let (new, old) = (new.get("spec").unwrap_or(&null), old.get("spec").unwrap_or(&null));
    let path = Path::new("spec").child(EPHEMERAL);
    for before in list(old, EPHEMERAL) {
        let name = text(before, "/name");
        let now = list(new, EPHEMERAL).iter().find(|container| text(container, "/name") == name);
        let what = match now {
            None => "removed",
            Some(now) if !crate::meta::same(now, before) => "changed",
            Some(_) => continue,
        };
        let detail = format!("existing ephemeral containers {name:?} may not be {what}\n");
        errors.push(FieldError::forbidden(&path, detail));
    }
    errors
}

/// The rules of the containers that were added.
fn validate_added(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let named = |key: &str| list(spec, key).iter().map(|item| text(item, "/name"));
    let volumes: BTreeSet<String> = named("volumes").collect();
    let others: BTreeSet<String> = named("containers").chain(named("initContainers")).collect();
    let mut names = others.clone();
    let path = path.child(EPHEMERAL);
    for (i, container) in list(spec, EPHEMERAL).iter().enumerate() {
        let at = path.index(i);
        validate_container(container, &at, &volumes, &mut BTreeSet::new(), &mut errors);
        let name = text(container, "/name");
        if !name.is_empty() && !names.insert(name.clone()) {
            errors.push(FieldError::duplicate(&at.child("name"), name));
        }
        let target = text(container, "/targetContainerName");
        if !target.is_empty() && !others.contains(&target) {
            errors.push(FieldError::not_found(&at.child("targetContainerName"), target));
        }
        let empty = |value: &Value| {
            matches!(value, Value::Null) || *value == json!({}) || *value == json!([])
        };
        for (field, _) in container.as_object().into_iter().flatten().filter(|(_, v)| !empty(v)) {
            if !EPHEMERAL_FIELDS.contains(&field.as_str()) {
                let detail = "cannot be set for an Ephemeral Container";
                errors.push(FieldError::forbidden(&at.child(field), detail));
            }
        }
        for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !text(mount, &format!("/{field}")).is_empty() {
                    let at = at.child("volumeMounts").index(i).child(field);
                    let detail = "cannot be set for an Ephemeral Container";
                    errors.push(FieldError::forbidden(&at, detail));
                }
            }
        }
    }
    errors
}

const UNCHANGEABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Takes out of a spec what an update may change, to compare the rest.
fn fixed_part(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("activeDeadlineSeconds");
        fields.remove("tolerations");
        for key in ["containers", "initContainers"] {
            each(fields, key, |container| drop(container.remove("image")));
        }
    }
    spec
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate_create(new);
    errors.extend(crate::validation::metadata_update(new, old));
    let path = Path::new("spec");
    let null = Value::Null;
    let (new, old) = (new.get("spec").unwrap_or(&null), old.get("spec").unwrap_or(&null));
    if list(new, "containers").len() != list(old, "containers").len() {
        let detail = "pod updates may not add or remove containers";
        errors.push(FieldError::forbidden(&path.child("containers"), detail));
        return errors;
    }
    let deadline = |spec: &Value| spec.get("activeDeadlineSeconds").and_then(Value::as_i64);
    let at = path.child("activeDeadlineSeconds");
    match (deadline(old), deadline(new)) {
        (Some(before), Some(after)) if after > before => {
            let detail = "must be less than or equal to previous value";
            errors.push(FieldError::invalid(&at, after, detail));
            return errors;
        }
        (Some(_), None) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(&at, Value::Null, detail));
            return errors;
        }
        (None | Some(_), Some(_)) | (None, None) => {}
    }
    let added: BTreeSet<String> = list(new, "tolerations").iter().map(Value::to_string).collect();
    if list(old, "tolerations").iter().any(|t| !added.contains(&t.to_string())) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(&path.child("tolerations"), detail));
    }
    if fixed_part(new) != fixed_part(old) {
        errors.push(FieldError::forbidden(&path, UNCHANGEABLE));
    }
    errors
}

fn prepare_status(new: &mut Value, old: &Value) {
    let status = new.get("status").cloned().unwrap_or_default();
    let class = old.pointer("/status/qosClass").cloned();
    *new = old.clone();
    let fields = child_mut(new, "status");
    *fields = status.as_object().cloned().unwrap_or_default();
    if let Some(class) = class {
        fields.insert("qosClass".to_owned(), class);
    }
}

fn cells(pod: &Value, now: i64) -> Vec<Value> {
    let (ready, status, restarts) = crate::pod::summary(pod, now);
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    vec![
        crate::meta::name(pod).into(),
        ready.into(),
        status.into(),
        restarts.into(),
        age(pod, now).into(),
        or_none(text(pod, "/status/podIP")).into(),
        or_none(text(pod, "/spec/nodeName")).into(),
        or_none(text(pod, "/status/nominatedNodeName")).into(),
        "<none>".into(),
    ]
}

pub(super) const KIND: Kind = Kind {
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        "attach",
        "binding",
        "ephemeralcontainers",
        "eviction",
        "exec",
        "log",
        "portforward",
        "status",
    ],
    graceful: true,
    has_generation: true,
    pod_spec: Some("/spec"),
    default,
    prepare_create: |pod| {
        tolerate_node_loss(pod);
        prepare_create(pod);
    },
    prepare_update: |new, old| {
        keep_status(new, old);
        keep_priority(new, old);
    },
    prepare_status,
    validate_create: validate_new,
    validate_update,
    columns: &[
        column("Name", "name"),
        column("Ready", ""),
        column("Status", ""),
        column("Restarts", ""),
        column("Age", ""),
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ],
    cells,
    field_labels: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ],
    field: |pod, label| match label {
        "spec.hostNetwork" => (text(pod, "/spec/hostNetwork") == "true").to_string(),
        "status.podIPs" => text(pod, "/status/podIPs/0/ip"),
        label => text(pod, &format!("/{}", label.replace('.', "/"))),
    },
    decode: |object| decodes_amounts::<core::Pod>(object, AMOUNTS),
    ..PLAIN
};

#[cfg(test)]
mod tests {
    use super::*;

    fn with(added: Value) -> Value {
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"containers": [{"name": "a", "image": "i"}], "ephemeralContainers": added},
        });
        default(&mut pod);
        pod
    }

    #[test]
    fn containers_are_added_to_a_pod_and_stay_as_they_are() {
        // SUB-4
        let debug = json!({"name": "d", "image": "i", "targetContainerName": "a", "resources": {}});
        let old = with(json!([debug]));
        let changed = json!({"name": "d", "image": "other", "targetContainerName": "a"});
        let forbidden = |what: &str| {
            let said = format!("existing ephemeral containers \"d\" may not be {what}\n");
            vec![format!("spec.ephemeralContainers: Forbidden: {said}")]
        };
        let at = "spec.ephemeralContainers[1]";
        for (added, want) in [
            (json!([debug]), vec![]),
            (json!([{"name": "e", "image": "i", "stdin": true, "tty": true}, debug]), vec![]),
            (json!([]), forbidden("removed")),
            (json!([changed]), forbidden("changed")),
            (
                json!([debug, {"name": "a", "image": "i"}]),
                vec![format!("{at}.name: Duplicate value: \"a\"")],
            ),
            (
                json!([debug, {"name": "e", "image": "i", "targetContainerName": "d"}]),
                vec![format!("{at}.targetContainerName: Not found: \"d\"")],
            ),
            (
                json!([debug, {"name": "e", "image": "i", "ports": [{"containerPort": 1}],
                               "resources": {"limits": {"cpu": "1"}}}]),
                ["ports", "resources"]
                    .map(|f| {
                        format!("{at}.{f}: Forbidden: cannot be set for an Ephemeral Container")
                    })
                    .to_vec(),
            ),
        ] {
            let mut new = with(added.clone());
            new["spec"]["nodeName"] = json!("n");
            new["metadata"]["labels"] = json!({"a": "b"});
            prepare_ephemeral(&mut new, &old);
            assert_eq!(new["spec"].get("nodeName"), None, "nothing else changes");
            assert_eq!(new["metadata"], old["metadata"]);
            let errors = validate_ephemeral(&new, &old);
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(errors, want, "{added}");
        }
        let errors = validate_new(&old);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].body(), "Forbidden: cannot be set on create");
        let errors = validate_update(&with(json!([])), &old);
        assert!(errors.iter().any(|error| error.body().contains(UNCHANGEABLE)), "{errors:?}");
    }

    #[test]
    fn an_account_has_two_names_and_the_newer_one_counts() {
        for (spec, want) in [
            (json!({"serviceAccount": "a"}), ["a", "a"]),
            (json!({"serviceAccountName": "a", "serviceAccount": "b"}), ["a", "a"]),
        ] {
            let mut spec = spec.as_object().unwrap().clone();
            default_spec(&mut spec);
            assert_eq!([&spec["serviceAccountName"], &spec["serviceAccount"]], want);
        }
    }
}
