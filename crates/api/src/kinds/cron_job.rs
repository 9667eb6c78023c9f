//! CronJob: Jobs at given times (CJ-1).

use super::{
    Kind, boolean, column, decodes_amounts, integer, job, keep_status, list, normalize_amounts,
    or_none,
    plain::PLAIN,
    pod, rules, set_default, take_status,
    template::{self, CONTAINERS},
    text, valid_metadata, wide,
};
use crate::{
    core,
    cron::{Schedule, Zone},
    field::{FieldError, Path},
    meta::{self, child_mut, drop_nulls},
    table::{age, since},
    validation,
};
use serde_json::{Value, json};

/// What is left of a label's length for the time that a Job's name ends with.
const NAME_MAX: usize = 52;

const AMOUNTS: &[&str] = &[
    "spec/jobTemplate/spec/template/spec/containers/*/resources/limits/*",
    "spec/jobTemplate/spec/template/spec/containers/*/resources/requests/*",
    "spec/jobTemplate/spec/template/spec/initContainers/*/resources/limits/*",
    "spec/jobTemplate/spec/template/spec/initContainers/*/resources/requests/*",
    "spec/jobTemplate/spec/template/spec/overhead/*",
];

fn default(object: &mut Value) {
    drop_nulls(object);
    let spec = child_mut(object, "spec");
    set_default(spec, "concurrencyPolicy", "Allow");
    set_default(spec, "suspend", false);
    set_default(spec, "successfulJobsHistoryLimit", 3);
    set_default(spec, "failedJobsHistoryLimit", 1);
    let template = spec.entry("jobTemplate").or_insert_with(|| json!({}));
    child_mut(template, "metadata");
    // The rest of it is defaulted in each Job.
    let job = child_mut(template, "spec");
    job::default_failure_policy(job);
    template::default_in(job);
    normalize_amounts(object, AMOUNTS);
}

fn validate_schedule(spec: &Value, old: Option<&Value>, path: &Path) -> Vec<FieldError> {
    let schedule = text(spec, "/schedule");
    if schedule.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = Vec::new();
    if let Err(error) = schedule.parse::<Schedule>() {
        errors.push(FieldError::invalid(path, schedule.clone(), error.to_string()));
    }
    let was_zoned = old.is_some_and(|old| text(old, "/schedule").contains("TZ"));
    let has_zone = spec.get("timeZone").is_some_and(|zone| !zone.is_null());
    if schedule.contains("TZ") {
        let detail = if !was_zoned {
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        } else if has_zone {
            "cannot use both timeZone field and TZ or CRON_TZ in schedule"
        } else {
            return errors;
        };
        errors.push(FieldError::invalid(path, schedule, detail));
    }
    errors
}

fn validate_zone(spec: &Value, path: &Path) -> Vec<FieldError> {
    let Some(zone) = spec.get("timeZone").and_then(Value::as_str) else { return Vec::new() };
    if zone.is_empty() {
        let detail = "timeZone must be nil or non-empty string";
        return vec![FieldError::invalid(path, zone, detail)];
    }
    if zone.eq_ignore_ascii_case("local") {
        let detail =
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        return vec![FieldError::invalid(path, zone, detail)];
    }
    if Zone::named(zone).is_none() {
        return vec![FieldError::invalid(path, zone, format!("unknown time zone {zone}"))];
    }
    Vec::new()
}

fn validate_spec(spec: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = validate_schedule(spec, old, &path.child("schedule"));
    errors.extend(rules::non_negative(spec, &path, &["startingDeadlineSeconds"]));
    if old.is_none_or(|old| old.get("timeZone") != spec.get("timeZone")) {
        errors.extend(validate_zone(spec, &path.child("timeZone")));
    }
    let policy = text(spec, "/concurrencyPolicy");
    let policies = &["Allow", "Forbid", "Replace"];
    pod::enumeration(&mut errors, &path.child("concurrencyPolicy"), &policy, policies);
    let job = spec.pointer("/jobTemplate/spec").unwrap_or(&Value::Null);
    let at = path.child("jobTemplate").child("spec");
    errors.extend(job::validate_spec(job, &at));
    if let Some(selector) = job.get("selector").filter(|s| !s.is_null()) {
        let detail = "`selector` will be auto-generated";
        errors.push(FieldError::invalid(&at.child("selector"), selector.clone(), detail));
    }
    if job.get("manualSelector") == Some(&Value::Bool(true)) {
        let supported = &["nil", "false"];
        errors.push(FieldError::not_supported(&at.child("manualSelector"), true, supported));
    }
    let limits = &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"];
    errors.extend(rules::non_negative(spec, &path, limits));
    errors
}

fn cells(object: &Value, now: i64) -> Vec<Value> {
    let suspended = match object.pointer("/spec/suspend").and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let last = object.pointer("/status/lastScheduleTime").filter(|time| !time.is_null());
    let active = object.get("status").map_or(0, |status| list(status, "active").len());
    let template = object.pointer("/spec/jobTemplate/spec/template");
    let [names, images] = template::container_cells(template);
    vec![
        meta::name(object).into(),
        text(object, "/spec/schedule").into(),
        or_none(text(object, "/spec/timeZone")),
        suspended.into(),
        active.into(),
        or_none(last.map(|last| since(Some(last), now)).unwrap_or_default()),
        age(object, now).into(),
        names,
        images,
        rules::selector_cell(object.pointer("/spec/jobTemplate/spec/selector")),
    ]
}

pub(super) const KIND: Kind = Kind {
    group: "batch",
    kind: "CronJob",
    plural: "cronjobs",
    singular: "cronjob",
    short_names: &["cj"],
    categories: &["all"],
    subresources: &["status"],
    has_generation: true,
    pod_spec: Some("/spec/jobTemplate/spec/template/spec"),
    default,
    prepare_create: |object| rules::fresh_status(object, &[]),
    prepare_update: keep_status,
    prepare_status: take_status,
    validate_create: |object| {
        let mut errors = valid_metadata(object, true);
        errors.extend(validate_spec(object.get("spec").unwrap_or(&Value::Null), None));
        if meta::name(object).len() > NAME_MAX {
            let path = Path::new("metadata").child("name");
            let detail = "must be no more than 52 characters";
            errors.push(FieldError::invalid(&path, meta::name(object), detail));
        }
        errors
    },
    validate_update: |new, old| {
        let mut errors = valid_metadata(new, true);
        errors.extend(validation::metadata_update(new, old));
        let spec = new.get("spec").unwrap_or(&Value::Null);
        errors.extend(validate_spec(spec, Some(old.get("spec").unwrap_or(&Value::Null))));
        errors
    },
    columns: &[
        column("Name", "name"),
        column("Schedule", ""),
        column("Timezone", ""),
        boolean("Suspend"),
        integer("Active"),
        column("Last Schedule", ""),
        column("Age", ""),
        CONTAINERS[0],
        CONTAINERS[1],
        wide("Selector"),
    ],
    cells,
    decode: |object| decodes_amounts::<core::CronJob>(object, AMOUNTS),
    ..PLAIN
};
