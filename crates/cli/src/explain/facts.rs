//! What explanations are made of: small readings of objects, and the events about them.

use api::{meta, table::duration};
use serde_json::Value;

/// What is at a JSON pointer, as text; empty if there is nothing.
pub(super) fn at<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list at a JSON pointer.
pub(super) fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A time at a JSON pointer, in seconds since the Unix epoch.
pub(super) fn time_at(object: &Value, pointer: &str) -> Option<i64> {
    meta::parse_time(at(object, pointer))
}

/// A condition of an object, by its type.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    items(object, "/status/conditions").iter().find(|c| at(c, "/type") == kind)
}

/// `20s ago`, or nothing for what has no time.
pub(super) fn ago(then: Option<i64>, now: i64) -> String {
    then.map_or_else(String::new, |then| format!(" {} ago", duration((now - then).max(0))))
}

/// Why a node is not ready; `None` if it is.
pub(super) fn not_ready(node: &Value, now: i64) -> Option<String> {
    let ready = condition(node, "Ready")?;
    let since = time_at(ready, "/lastTransitionTime");
    let since = since.map_or_else(String::new, |then| format!(" for {}", duration(now - then)));
    let message = at(ready, "/message").trim_end_matches('.');
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    match at(ready, "/status") {
        "True" => None,
        "Unknown" => Some(format!("has not been heard{since}{message}")),
        _ => Some(format!("is not ready{since}{message}")),
    }
}

/// The last warnings, the newest last.
pub(super) fn warnings(events: &[Value], now: i64) -> Vec<String> {
    const SHOWN: usize = 5;
    let mut warnings: Vec<&Value> = events.iter().filter(|e| at(e, "/type") == "Warning").collect();
    warnings.sort_by_key(|event| (time_at(event, "/lastTimestamp"), at(event, "/reason")));
    let line = |event: &&Value| {
        let count = event.get("count").and_then(Value::as_u64).unwrap_or(1);
        let count = if count > 1 { format!(" (x{count})") } else { String::new() };
        let when = ago(time_at(event, "/lastTimestamp"), now);
        format!("{}{count}{when}: {}", at(event, "/reason"), at(event, "/message").trim())
    };
    let first = warnings.len().saturating_sub(SHOWN);
    warnings.iter().skip(first).map(line).collect()
}

/// What an exit code means to most programs.
pub(super) fn exit_code(code: i64, reason: &str) -> &'static str {
    match (reason, code) {
        ("OOMKilled", _) => "it used more memory than its limit",
        ("StartError" | "ContainerCannotRun", _) => "its program could not be started",
        (_, 0) => "done",
        (_, 126) => "its program is not executable",
        (_, 127) => "its program was not found",
        (_, 137) => "killed by SIGKILL",
        (_, 139) => "a segmentation fault",
        (_, 143) => "ended by SIGTERM",
        _ => "an error of the program",
    }
}

/// Who is to take a finalizer off an object, and when; empty if that is not known.
pub(super) fn remover(finalizer: &str) -> &'static str {
    match finalizer {
        api::deletion::FOREGROUND => {
            "the garbage collector takes it off when all dependents that block are gone"
        }
        api::deletion::ORPHAN => {
            "the garbage collector takes it off when no dependent names it as owner any more"
        }
        "kubernetes" => "the namespace controller takes it off when the namespace is empty",
        "batch.kubernetes.io/job-tracking" => {
            "the Job controller takes it off when it has counted the Pod"
        }
        "service.kubernetes.io/load-balancer-cleanup" => {
            "the controller of load balancers takes it off when it has cleared up"
        }
        "kubernetes.io/pvc-protection" | "kubernetes.io/pv-protection" => {
            "the volume controller takes it off when no Pod uses it any more"
        }
        "customresourcecleanup.apiextensions.k8s.io" => {
            "the API server takes it off when no object of that kind is left"
        }
        _ => "",
    }
}

/// The manager that put a finalizer there, if that is known.
pub(super) fn finalizer_manager<'a>(object: &'a Value, finalizer: &str) -> Option<&'a str> {
    let field = format!("v:\"{finalizer}\"");
    items(object, "/metadata/managedFields").iter().find_map(|manager| {
        let fields = manager.pointer("/fieldsV1/f:metadata/f:finalizers")?;
        fields.get(&field).map(|_| at(manager, "/manager"))
    })
}
