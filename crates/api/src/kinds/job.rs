//! Job: Pods that run to an end (JOB-1).

use super::{
    Kind, column, decodes_amounts, keep_status, list, normalize_amounts, number,
    plain::PLAIN,
    pod, rules, set_default, take_status,
    template::{self, AMOUNTS, CONTAINERS, Selected},
    text, valid_metadata, validate_namespaced_update, wide,
};
use crate::{
    core,
    field::{FieldError, Path},
    meta::{self, child_mut, drop_nulls},
    names,
    pod::condition_status,
    table::{age, duration},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Rules of a `podFailurePolicy` at most, conditions of one rule, and rules of a `successPolicy`.
const RULES_MAX: usize = 20;
/// Exit codes of one rule at most.
const EXIT_CODES_MAX: usize = 255;
/// Pods of an indexed Job at a time at most, and indexes of it that may fail.
const INDEXED_MAX: i64 = 100_000;
/// Above so many completions an indexed Job with a limit for each index has narrower bounds.
const COMPLETIONS_HIGH: i64 = 100_000;
/// Those bounds.
const HIGH_MAX: i64 = 10_000;
/// Bytes of `managedBy` at most.
const MANAGED_BY_MAX: usize = 63;
/// Bytes of `succeededIndexes` at most.
const INDEXES_BYTES_MAX: usize = 64 << 10;

/// Labels of a Job's Pods: the old ones and the ones with a prefix.
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

/// What the failure policy of a Job, or of the template of a CronJob, defaults.
pub(super) fn default_failure_policy(spec: &mut Map<String, Value>) {
    let rules = spec.get_mut("podFailurePolicy").and_then(|p| p.get_mut("rules"));
    for rule in rules.and_then(Value::as_array_mut).into_iter().flatten() {
        let patterns = rule.get_mut("onPodConditions").and_then(Value::as_array_mut);
        for pattern in patterns.into_iter().flatten() {
            if let Some(pattern) = pattern.as_object_mut() {
                set_default(pattern, "status", "True");
            }
        }
    }
}

fn default(object: &mut Value) {
    drop_nulls(object);
    let spec = child_mut(object, "spec");
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        spec.insert("completions".to_owned(), 1.into());
    }
    set_default(spec, "parallelism", 1);
    let limit = if spec.contains_key("backoffLimitPerIndex") { i32::MAX } else { 6 };
    set_default(spec, "backoffLimit", limit);
    set_default(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    set_default(spec, "manualSelector", false);
    let failed = spec.contains_key("podFailurePolicy");
    let replacement = if failed { "Failed" } else { "TerminatingOrFailed" };
    set_default(spec, "podReplacementPolicy", replacement);
    default_failure_policy(spec);
    template::default_in(spec);
    let labels = spec.get("template").and_then(|t| t.pointer("/metadata/labels")).cloned();
    if let Some(labels) = labels.filter(|l| *l != json!({}) && meta::labels(object).is_empty()) {
        meta::metadata_mut(object).insert("labels".to_owned(), labels);
    }
    normalize_amounts(object, AMOUNTS);
}

fn is_manual(job: &Value) -> bool {
    job.pointer("/spec/manualSelector") == Some(&Value::Bool(true))
}

/// Gives the Pods labels that no other Job's have, and selects by them. What is there already stays, for
/// validation to refuse.
fn generate_selector(job: &mut Value) {
    if is_manual(job) {
        return;
    }
    let (uid, name) = (meta::uid(job).to_owned(), meta::name(job).to_owned());
    let spec = child_mut(job, "spec");
    let template = spec.entry("template").or_insert_with(|| json!({}));
    let labels = child_mut(template, "metadata").entry("labels").or_insert_with(|| json!({}));
    if let Some(labels) = labels.as_object_mut() {
        for (keys, value) in [(UID_LABELS, &uid), (NAME_LABELS, &name)] {
            for key in keys {
                labels.entry(key).or_insert_with(|| value.clone().into());
            }
        }
    }
    let selector = spec.entry("selector").or_insert_with(|| json!({}));
    let pairs = child_mut(selector, "matchLabels");
    pairs.entry(UID_LABELS[1]).or_insert_with(|| uid.into());
}

/// That the generated labels and selector are as generated.
fn validate_generated(job: &Value) -> Vec<FieldError> {
    let selector = job.pointer("/spec/selector").filter(|s| !s.is_null());
    let (false, Some(selector)) = (is_manual(job), selector) else { return Vec::new() };
    let mut errors = Vec::new();
    if meta::uid(job).is_empty() {
        errors.push(FieldError::required(&Path::new("metadata").child("uid"), ""));
    }
    let template = job.pointer("/spec/template").unwrap_or(&Value::Null);
    let labels = meta::labels(template);
    let path = Path::new("spec").child("template").child("metadata").child("labels");
    let [old_uid, new_uid] = UID_LABELS.map(|key| (key, meta::uid(job)));
    let [old_name, new_name] = NAME_LABELS.map(|key| (key, meta::name(job)));
    let wanted = [old_uid, old_name, new_uid, new_name];
    for (key, want) in wanted {
        let detail = format!("must be '{want}'");
        match labels.get(key) {
            None => errors.push(FieldError::required(&path.key(key), &detail)),
            Some(found) if found != want => {
                let all = template.pointer("/metadata/labels").cloned().unwrap_or_default();
                errors.push(FieldError::invalid(&path.key(key), all, detail));
            }
            Some(_) => {}
        }
    }
    let expected = wanted.map(|(key, want)| (key.to_owned(), want.to_owned())).into();
    if let Selected::By(parsed) = Selected::of(Some(selector))
        && !parsed.matches(&expected)
    {
        let path = Path::new("spec").child("selector");
        let detail = "`selector` not auto-generated";
        errors.push(FieldError::invalid(&path, selector.clone(), detail));
    }
    errors
}

fn is_set(spec: &Value, key: &str) -> bool {
    spec.get(key).is_some_and(|value| !value.is_null())
}

/// Every error of the spec of a Job, or of a CronJob's template for one, except the selector's.
pub(super) fn validate_spec(spec: &Value, path: &Path) -> Vec<FieldError> {
    let counts = &[
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    let mut errors = rules::non_negative(spec, path, counts);
    if is_set(spec, "maxFailedIndexes") && !is_set(spec, "backoffLimitPerIndex") {
        let detail = "when maxFailedIndexes is specified";
        errors.push(FieldError::required(&path.child("backoffLimitPerIndex"), detail));
    }
    let manager = text(spec, "/managedBy");
    if is_set(spec, "managedBy") {
        let at = path.child("managedBy");
        errors.extend(domain_prefixed(&manager, &at));
        if manager.len() > MANAGED_BY_MAX {
            errors.push(FieldError::too_long(&at, MANAGED_BY_MAX));
        }
    }
    errors.extend(validate_completion(spec, path));
    let policy = spec.get("podFailurePolicy").filter(|p| !p.is_null());
    if let Some(policy) = policy {
        errors.extend(validate_failure_policy(spec, policy, &path.child("podFailurePolicy")));
    }
    if let Some(policy) = spec.get("successPolicy").filter(|p| !p.is_null()) {
        let at = path.child("successPolicy");
        if text(spec, "/completionMode") == "Indexed" {
            errors.extend(validate_success_policy(spec, policy, &at));
        } else {
            let detail = "requires indexed completion mode";
            errors.push(FieldError::invalid(&at, policy.clone(), detail));
        }
    }
    let replacement = text(spec, "/podReplacementPolicy");
    if !replacement.is_empty() {
        let all = &["Failed", "TerminatingOrFailed"];
        let allowed = if policy.is_some() { &["Failed"][..] } else { &all[..] };
        pod::enumeration(&mut errors, &path.child("podReplacementPolicy"), &replacement, allowed);
    }
    let template = spec.get("template").unwrap_or(&Value::Null);
    let at = path.child("template");
    errors.extend(template::validate(template, &at));
    let restart = text(template, "/spec/restartPolicy");
    let at = at.child("spec").child("restartPolicy");
    match restart.as_str() {
        // Always is what it defaults to, so that it may not have been said.
        "" | "Always" => {
            let detail = "valid values: \"OnFailure\", \"Never\"";
            errors.push(FieldError::required(&at, detail));
        }
        "Never" => {}
        "OnFailure" if policy.is_none() => {}
        "OnFailure" => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(&at, restart, detail));
        }
        _ => pod::enumeration(&mut errors, &at, &restart, &["OnFailure", "Never"]),
    }
    errors
}

/// `example.com/name`
fn domain_prefixed(text: &str, path: &Path) -> Vec<FieldError> {
    if text.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
    let Some((domain, rest)) = text.split_once('/').filter(|(d, r)| !d.is_empty() && !r.is_empty())
    else {
        return vec![FieldError::invalid(path, text, detail)];
    };
    let mut errors = Vec::new();
    for wrong in names::subdomain(domain) {
        errors.push(FieldError::invalid(path, domain, wrong));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
    if !rest.chars().all(legal) {
        let detail =
            "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        errors.push(FieldError::invalid(path, rest, detail));
    }
    errors
}

/// A count that is above what it may be.
fn above(at: &Path, found: i64, most: i64, more: &str) -> Option<FieldError> {
    let detail = format!("must be less than or equal to {most}{more}");
    (found > most).then(|| FieldError::invalid(at, found, detail))
}

fn validate_indexed(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let count = |key: &str| spec.get(key).and_then(Value::as_i64);
    let parallelism = count("parallelism").unwrap_or_default();
    let (at_parallelism, at_failed) = (path.child("parallelism"), path.child("maxFailedIndexes"));
    let completions = count("completions");
    if completions.is_none() {
        let detail = "when completion mode is Indexed";
        errors.push(FieldError::required(&path.child("completions"), detail));
    }
    let more = " when completion mode is Indexed";
    errors.extend(above(&at_parallelism, parallelism, INDEXED_MAX, more));
    let failed = count("maxFailedIndexes");
    if let Some(failed) = failed {
        if completions.is_some_and(|completions| failed > completions) {
            let detail = "must be less than or equal to completions";
            errors.push(FieldError::invalid(&at_failed, failed, detail));
        }
        errors.extend(above(&at_failed, failed, INDEXED_MAX, ""));
    }
    let many = completions.is_some_and(|completions| completions > COMPLETIONS_HIGH);
    if many && is_set(spec, "backoffLimitPerIndex") {
        if failed.is_none() {
            let detail = format!("must be specified when completions is above {COMPLETIONS_HIGH}");
            errors.push(FieldError::required(&at_failed, &detail));
        }
        let more = format!(
            " when completions are above {COMPLETIONS_HIGH} and used with backoff limit per index"
        );
        errors.extend(above(&at_parallelism, parallelism, HIGH_MAX, &more));
        errors.extend(above(&at_failed, failed.unwrap_or_default(), HIGH_MAX, &more));
    }
    errors
}

fn validate_completion(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mode = text(spec, "/completionMode");
    match mode.as_str() {
        "Indexed" => validate_indexed(spec, path),
        "" | "NonIndexed" => ["backoffLimitPerIndex", "maxFailedIndexes"]
            .into_iter()
            .filter_map(|key| {
                let found = spec.get(key).and_then(Value::as_i64)?;
                let detail = "requires indexed completion mode";
                Some(FieldError::invalid(&path.child(key), found, detail))
            })
            .collect(),
        _ => {
            let modes = &["NonIndexed", "Indexed"];
            vec![FieldError::not_supported(&path.child("completionMode"), mode, modes)]
        }
    }
}

fn quoted_list(values: &[&str]) -> String {
    let all: Vec<String> = values.iter().map(|value| crate::field::quoted(value)).collect();
    format!("valid values: [{}]", all.join(" "))
}

/// A value that must be there and be one of these.
fn one_of(errors: &mut Vec<FieldError>, path: &Path, value: &str, allowed: &[&str]) {
    if value.is_empty() {
        errors.push(FieldError::required(path, &quoted_list(allowed)));
    } else {
        pod::enumeration(errors, path, value, allowed);
    }
}

fn validate_failure_policy(spec: &Value, policy: &Value, path: &Path) -> Vec<FieldError> {
    const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
    let mut errors = Vec::new();
    let path = path.child("rules");
    let all = list(policy, "rules");
    if all.len() > RULES_MAX {
        errors.push(FieldError::too_many(&path, all.len(), RULES_MAX));
    }
    let template = spec.pointer("/template/spec").unwrap_or(&Value::Null);
    let containers: BTreeSet<String> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|key| list(template, key))
        .map(|container| text(container, "/name"))
        .collect();
    for (i, rule) in all.iter().enumerate() {
        let at = path.index(i);
        let action = text(rule, "/action");
        if action == "FailIndex" && !is_set(spec, "backoffLimitPerIndex") {
            let detail = "requires the backoffLimitPerIndex to be set";
            errors.push(FieldError::invalid(&at.child("action"), action, detail));
        } else {
            one_of(&mut errors, &at.child("action"), &action, ACTIONS);
        }
        let codes = rule.get("onExitCodes").filter(|codes| !codes.is_null());
        if let Some(codes) = codes {
            errors.extend(validate_exit_codes(codes, &at.child("onExitCodes"), &containers));
        }
        let conditions = list(rule, "onPodConditions");
        errors.extend(validate_conditions(conditions, &at.child("onPodConditions")));
        let what = match (codes.is_some(), conditions.is_empty()) {
            (true, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (false, true) => "specifying one of OnExitCodes and OnPodConditions is required",
            (true, true) | (false, false) => continue,
        };
        errors.push(FieldError::invalid_as_a_whole(&at, what));
    }
    errors
}

fn validate_conditions(conditions: &[Value], path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if conditions.len() > RULES_MAX {
        errors.push(FieldError::too_many(path, conditions.len(), RULES_MAX));
    }
    for (i, pattern) in conditions.iter().enumerate() {
        let at = path.index(i);
        errors.extend(names::check(&at.child("type"), &text(pattern, "/type"), names::qualified));
        let status = text(pattern, "/status");
        one_of(&mut errors, &at.child("status"), &status, &["False", "True", "Unknown"]);
    }
    errors
}

fn validate_exit_codes(
    codes: &Value,
    path: &Path,
    containers: &BTreeSet<String>,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let operator = text(codes, "/operator");
    one_of(&mut errors, &path.child("operator"), &operator, &["In", "NotIn"]);
    let container = text(codes, "/containerName");
    if is_set(codes, "containerName") && !containers.contains(&container) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(&path.child("containerName"), container, detail));
    }
    let at = path.child("values");
    let values: Vec<i64> = list(codes, "values").iter().filter_map(Value::as_i64).collect();
    let whole = codes.get("values").cloned().unwrap_or_default();
    if values.is_empty() {
        errors.push(FieldError::invalid(&at, whole.clone(), "at least one value is required"));
    } else if values.len() > EXIT_CODES_MAX {
        errors.push(FieldError::too_many(&at, values.len(), EXIT_CODES_MAX));
    }
    let mut seen = BTreeSet::new();
    for (i, value) in values.iter().enumerate() {
        if *value == 0 && operator == "In" {
            let detail = "must not be 0 for the In operator";
            errors.push(FieldError::invalid(&at.index(i), 0, detail));
        }
        if !seen.insert(value) {
            errors.push(FieldError::duplicate(&at.index(i), *value));
        }
    }
    if !values.is_sorted() {
        errors.push(FieldError::invalid(&at, whole, "must be ordered"));
    }
    errors
}

fn validate_success_policy(spec: &Value, policy: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = path.child("rules");
    let all = list(policy, "rules");
    if all.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(&path, detail));
    }
    if all.len() > RULES_MAX {
        errors.push(FieldError::too_many(&path, all.len(), RULES_MAX));
    }
    let completions = number(spec, "/completions");
    for (i, rule) in all.iter().enumerate() {
        let at = path.index(i);
        if !is_set(rule, "succeededCount") && !is_set(rule, "succeededIndexes") {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(FieldError::required(&at, detail));
        }
        let mut indexes = None;
        if is_set(rule, "succeededIndexes") {
            let (at, found) = (at.child("succeededIndexes"), text(rule, "/succeededIndexes"));
            if found.len() > INDEXES_BYTES_MAX {
                errors.push(FieldError::too_long(&at, INDEXES_BYTES_MAX));
            }
            match count_indexes(&found, completions) {
                Ok(count) => indexes = Some(count),
                Err(wrong) => {
                    indexes = Some(0);
                    let detail = format!("error parsing succeededIndexes: {wrong}");
                    errors.push(FieldError::invalid(&at, found, detail));
                }
            }
        }
        let Some(count) = rule.get("succeededCount").and_then(Value::as_i64) else { continue };
        let at_count = at.child("succeededCount");
        errors.extend(rules::non_negative(rule, &at, &["succeededCount"]));
        if count > completions {
            let detail = format!(
                "must be less than or equal to {completions} (the number of specified completions)"
            );
            errors.push(FieldError::invalid(&at_count, count, detail));
        }
        if let Some(indexes) = indexes.filter(|indexes| count > *indexes) {
            let detail = format!(
                "must be less than or equal to {indexes} (the number of indexes in the specified \
                 succeededIndexes field)"
            );
            errors.push(FieldError::invalid(&at_count, count, detail));
        }
    }
    errors
}

/// How many indexes `0-3,7` names, below `completions` and each once, in order.
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let mut total = 0;
    let mut last: Option<i64> = None;
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let limits: Vec<&str> = interval.split('-').collect();
        let parse = |limit: &str| {
            let wrong = || format!("cannot convert string to integer for index: {limit:?}");
            limit.parse::<i64>().map_err(|_| wrong())
        };
        let (from, to) = match limits.as_slice() {
            [one] => (parse(one)?, parse(one)?),
            [from, to] => {
                let (from, to) = (parse(from)?, parse(to)?);
                if from >= to {
                    return Err(format!("non-increasing order, previous: {from}, current: {to}"));
                }
                (from, to)
            }
            _ => {
                return Err(format!(
                    "the fragment {interval:?} violates the requirement that an index interval can \
                     have at most two parts separated by '-'"
                ));
            }
        };
        for limit in [from, to] {
            if limit >= completions {
                return Err(format!("too large index: {:?}", limit.to_string()));
            }
        }
        if let Some(last) = last.filter(|last| *last >= from) {
            return Err(format!("non-increasing order, previous: {last}, current: {from}"));
        }
        total += to - from + 1;
        last = Some(to);
    }
    Ok(total)
}

/// The spec with its selector, which a CronJob's template does not have.
fn validate_with_selector(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = validate_spec(spec, path);
    let selector = spec.get("selector").filter(|s| !s.is_null());
    let at = path.child("selector");
    if selector.is_none() {
        errors.push(FieldError::required(&at, ""));
    }
    errors.extend(rules::label_selector(selector, &at));
    let template = spec.get("template").unwrap_or(&Value::Null);
    let selected = Selected::of(selector);
    errors.extend(template::validate_match(&selected, template, &path.child("template")));
    errors
}

fn validate(job: &Value) -> Vec<FieldError> {
    let mut errors = valid_metadata(job, true);
    errors.extend(validate_generated(job));
    let spec = job.get("spec").unwrap_or(&Value::Null);
    errors.extend(validate_with_selector(spec, &Path::new("spec")));
    let completions = number(spec, "/completions");
    if text(spec, "/completionMode") == "Indexed" && completions > 0 {
        let host = format!("{}-{}", meta::name(job), completions - 1);
        if !names::label(&host).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            let path = Path::new("metadata").child("name");
            errors.push(FieldError::invalid(&path, meta::name(job), detail));
        }
    }
    errors
}

/// The template without what may change while a Job is suspended and has not begun: where its Pods may
/// run and what they are called.
fn fixed_template(job: &Value, not_begun: bool) -> Value {
    let mut template = job.pointer("/spec/template").cloned().unwrap_or_default();
    if !not_begun {
        return template;
    }
    for key in ["labels", "annotations"] {
        child_mut(&mut template, "metadata").remove(key);
    }
    let spec = child_mut(&mut template, "spec");
    for key in ["nodeSelector", "tolerations", "schedulingGates"] {
        spec.remove(key);
    }
    if let Some(affinity) = spec.get_mut("affinity").and_then(Value::as_object_mut) {
        affinity.remove("nodeAffinity");
    }
    for key in ["containers", "initContainers"] {
        let containers = spec.get_mut(key).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container.remove("resources");
            }
        }
    }
    template
}

fn validate_completions_update(new: &Value, old: &Value) -> Vec<FieldError> {
    if text(new, "/spec/completionMode") != "Indexed" {
        return rules::immutable_in_spec(new, old, &["completions"]);
    }
    let count = |object: &Value, key: &str| object.pointer(&format!("/spec/{key}")).cloned();
    let (before, after) = (count(old, "completions"), count(new, "completions"));
    match after {
        Some(after)
            if Some(&after) != before.as_ref()
                && Some(&after) != count(new, "parallelism").as_ref() =>
        {
            let path = Path::new("spec").child("completions");
            let detail = "can only be modified in tandem with spec.parallelism";
            vec![FieldError::invalid(&path, after, detail)]
        }
        Some(_) | None => Vec::new(),
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate_namespaced_update(new, old);
    let spec = new.get("spec").unwrap_or(&Value::Null);
    errors.extend(validate_with_selector(spec, &Path::new("spec")));
    errors.extend(validate_completions_update(new, old));
    errors.extend(rules::immutable_in_spec(new, old, &["selector"]));
    let suspended = old.pointer("/spec/suspend") == Some(&Value::Bool(true));
    let not_begun = suspended && old.pointer("/status/startTime").is_none_or(Value::is_null);
    if !meta::same(&fixed_template(new, not_begun), &fixed_template(old, not_begun)) {
        let template = new.pointer("/spec/template").cloned().unwrap_or_default();
        let path = Path::new("spec").child("template");
        errors.push(FieldError::invalid(&path, template, "field is immutable"));
    }
    let fixed = &[
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ];
    errors.extend(rules::immutable_in_spec(new, old, fixed));
    errors
}

fn holds(job: &Value, condition: &str) -> bool {
    condition_status(job, condition) == "True"
}

/// A status that would take back what was said, or contradicts itself (JOB-5).
fn validate_status(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = Path::new("status");
    let counts = &["active", "succeeded", "failed", "ready", "terminating"];
    let mut errors = rules::status_counts(new, counts, &[]);
    let mut seen = BTreeSet::new();
    let uncounted = new.pointer("/status/uncountedTerminatedPods").unwrap_or(&Value::Null);
    for key in ["succeeded", "failed"] {
        for (i, uid) in list(uncounted, key).iter().enumerate() {
            let at = path.child("uncountedTerminatedPods").child(key).index(i);
            let uid = uid.as_str().unwrap_or_default();
            if uid.is_empty() {
                errors.push(FieldError::invalid(&at, "", "must not be empty"));
            } else if !seen.insert(uid) {
                errors.push(FieldError::duplicate(&at, uid));
            }
        }
    }
    let conditions = path.child("conditions");
    for (a, b, what) in [
        ("Complete", "Failed", "cannot set Complete=True and Failed=true conditions"),
        ("Complete", "FailureTarget", "cannot set Complete=True and FailureTarget=true conditions"),
        (
            "SuccessCriteriaMet",
            "Failed",
            "cannot set SuccessCriteriaMet=True and Failed=true conditions",
        ),
        (
            "SuccessCriteriaMet",
            "FailureTarget",
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        ),
    ] {
        if holds(new, a) && holds(new, b) {
            errors.push(FieldError::invalid_as_a_whole(&conditions, what));
        }
    }
    for condition in ["Failed", "Complete", "FailureTarget"] {
        if holds(old, condition) && !holds(new, condition) {
            let what = format!("cannot disable the terminal {condition}=True condition");
            errors.push(FieldError::invalid_as_a_whole(&conditions, what));
        }
    }
    if holds(old, "SuccessCriteriaMet") && !holds(new, "SuccessCriteriaMet") {
        let what = "cannot disable the SuccessCriteriaMet=True condition";
        errors.push(FieldError::invalid_as_a_whole(&conditions, what));
    }
    for key in ["failed", "succeeded"] {
        let count = |object: &Value| number(object, &format!("/status/{key}"));
        if count(new) < count(old) {
            let detail = format!("cannot decrease the {key} counter");
            errors.push(FieldError::invalid(&path.child(key), count(new), detail));
        }
    }
    let completed = new.pointer("/status/completionTime").filter(|time| !time.is_null());
    match (completed, holds(new, "Complete")) {
        (Some(time), false) => {
            let detail = "cannot set completionTime when there is no Complete=True condition";
            errors.push(FieldError::invalid(&path.child("completionTime"), time.clone(), detail));
        }
        (None, true) => {
            let detail = "completionTime is required for Complete jobs";
            errors.push(FieldError::required(&path.child("completionTime"), detail));
        }
        (Some(_), true) | (None, false) => {}
    }
    errors
}

/// TAB-4
fn status_column(job: &Value) -> &'static str {
    let ended = ["Complete", "Failed"].into_iter().find(|condition| holds(job, condition));
    if let Some(ended) = ended {
        return ended;
    }
    if meta::is_terminating(job) {
        return "Terminating";
    }
    let begun = ["Suspended", "FailureTarget", "SuccessCriteriaMet"];
    begun.into_iter().find(|condition| holds(job, condition)).unwrap_or("Running")
}

fn cells(job: &Value, now: i64) -> Vec<Value> {
    let succeeded = number(job, "/status/succeeded");
    let completions = match job.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(completions) => format!("{succeeded}/{completions}"),
        None => match number(job, "/spec/parallelism") {
            parallelism if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
            _ => format!("{succeeded}/1"),
        },
    };
    let time = |field: &str| meta::parse_time(&text(job, &format!("/status/{field}")));
    let took = time("startTime")
        .map(|start| duration(time("completionTime").unwrap_or(now) - start))
        .unwrap_or_default();
    let [names, images] = template::container_cells(job.pointer("/spec/template"));
    vec![
        meta::name(job).into(),
        status_column(job).into(),
        completions.into(),
        took.into(),
        age(job, now).into(),
        names,
        images,
        rules::selector_cell(job.pointer("/spec/selector")),
    ]
}

pub(super) const KIND: Kind = Kind {
    group: "batch",
    kind: "Job",
    plural: "jobs",
    singular: "job",
    categories: &["all"],
    subresources: &["status"],
    has_generation: true,
    pod_spec: Some(template::POD_SPEC),
    default,
    prepare_create: |job| {
        rules::fresh_status(job, &[]);
        generate_selector(job);
        // Once more: by now the template has labels.
        default(job);
    },
    prepare_update: keep_status,
    prepare_status: take_status,
    validate_create: validate,
    validate_update,
    validate_status,
    columns: &[
        column("Name", "name"),
        column("Status", ""),
        column("Completions", ""),
        column("Duration", ""),
        column("Age", ""),
        CONTAINERS[0],
        CONTAINERS[1],
        wide("Selector"),
    ],
    cells,
    field_labels: &["status.successful"],
    field: |job, _| number(job, "/status/succeeded").to_string(),
    decode: |object| decodes_amounts::<core::Job>(object, AMOUNTS),
    ..PLAIN
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted_by_intervals() {
        for (text, want) in [
            ("", Ok(0)),
            ("0", Ok(1)),
            ("0-3,7", Ok(5)),
            ("9", Err("too large index: \"9\"")),
            ("1,1", Err("non-increasing order, previous: 1, current: 1")),
            ("3-1", Err("non-increasing order, previous: 3, current: 1")),
            ("x", Err("cannot convert string to integer for index: \"x\"")),
            (
                "1-2-3",
                Err(
                    "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
                ),
            ),
        ] {
            assert_eq!(count_indexes(text, 9), want.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn a_job_has_a_selector_of_its_own() {
        // JOB-1, as recorded of `kubectl create`.
        let mut job = json!({
            "metadata": {"name": "j1", "namespace": "rec", "uid": "u"},
            "spec": {"template": {"spec": {
                "containers": [{"name": "c", "image": "busybox:1.36"}], "restartPolicy": "Never",
            }}},
        });
        default(&mut job);
        (KIND.prepare_create)(&mut job);
        let labels = json!({
            "batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "j1",
            "controller-uid": "u", "job-name": "j1",
        });
        assert_eq!(job["metadata"]["labels"], labels);
        assert_eq!(job["spec"]["template"]["metadata"]["labels"], labels);
        let selector = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}});
        assert_eq!(job["spec"]["selector"], selector);
        assert_eq!(validate(&job), []);
        let mut manual = job.clone();
        manual["spec"]["manualSelector"] = json!(true);
        manual["spec"]["selector"] = json!({"matchLabels": {"a": "b"}});
        manual["spec"]["template"]["metadata"]["labels"] = json!({"a": "b"});
        let before = manual.clone();
        (KIND.prepare_create)(&mut manual);
        assert_eq!(manual["spec"], before["spec"]);
        assert_eq!(validate(&manual), []);
    }

    #[test]
    fn where_a_job_may_run_can_change_until_it_begins() {
        let job = |node: &str, image: &str, suspend: bool| {
            let mut job = json!({
                "metadata": {"name": "j", "namespace": "d", "uid": "u"},
                "spec": {"suspend": suspend, "template": {"spec": {
                    "containers": [{"name": "c", "image": image}], "restartPolicy": "Never",
                    "nodeSelector": {"node": node},
                }}},
            });
            default(&mut job);
            (KIND.prepare_create)(&mut job);
            job
        };
        let paths = |new: &Value, old: &Value| {
            validate_update(new, old).into_iter().map(|e| e.field).collect::<Vec<_>>()
        };
        let suspended = job("a", "i", true);
        assert_eq!(paths(&job("b", "i", false), &suspended), [""; 0]);
        assert_eq!(paths(&job("a", "other", true), &suspended), ["spec.template"]);
        assert_eq!(paths(&job("b", "i", false), &job("a", "i", false)), ["spec.template"]);
        let mut begun = suspended;
        begun["status"]["startTime"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(paths(&job("b", "i", true), &begun), ["spec.template"]);
    }

    #[test]
    fn a_status_takes_nothing_back() {
        // JOB-2, JOB-5
        let status = |status: Value| json!({"metadata": {"name": "j"}, "status": status});
        let is = |condition: &str| json!([{"type": condition, "status": "True"}]);
        let done = status(json!({"conditions": is("Complete"), "succeeded": 2,
                                 "completionTime": "2026-01-01T00:00:00Z"}));
        assert_eq!(validate_status(&done, &status(json!({}))), []);
        for (new, want) in [
            (
                json!({"succeeded": 1}),
                "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
            ),
            (
                json!({"conditions": is("Complete"), "succeeded": 1, "completionTime": "2026-01-01T00:00:00Z"}),
                "status.succeeded: Invalid value: 1: cannot decrease the succeeded counter",
            ),
            (
                json!({"conditions": is("Complete"), "succeeded": 2}),
                "status.completionTime: Required value: completionTime is required for Complete jobs",
            ),
        ] {
            let errors = validate_status(&status(new.clone()), &done);
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert!(texts.iter().any(|text| text == want), "{new}: {texts:?}");
        }
    }
}
