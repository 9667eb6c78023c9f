//! What a DELETE does to an object (DELAPI-1, 2, 3), as a function.

use crate::{
    kinds::Kind,
    meta::{self, finalizers, metadata_mut, parse_time},
    status::Status,
};
use serde_json::Value;

/// How to delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds; the object's own when `None`.
    pub grace_period_seconds: Option<i64>,
    /// Only this incarnation.
    pub uid: Option<String>,
    /// Only this version.
    pub resource_version: Option<String>,
    /// Do everything but the write.
    pub dry_run: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum DeleteDecision {
    /// The object goes now.
    Remove,
    /// It stays in this form until somebody finishes.
    Store(Value),
    /// It is being deleted already, and this request changes nothing.
    Unchanged,
}

impl DeleteOptions {
    /// From a request's body, if it has one.
    ///
    /// # Errors
    /// 400 for a body that is no `DeleteOptions`.
    pub fn from_json(body: &Value) -> Result<Self, Status> {
        let bad = |what: &str| Status::bad_request(format!("DeleteOptions: {what}"));
        let grace_period_seconds = match body.get("gracePeriodSeconds") {
            None | Some(Value::Null) => None,
            Some(seconds) => {
                Some(seconds.as_i64().ok_or_else(|| bad("gracePeriodSeconds is not a number"))?)
            }
        };
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            grace_period_seconds,
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            dry_run: body.pointer("/dryRun/0").and_then(Value::as_str) == Some("All"),
        })
    }

    /// The body of a request.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut body = serde_json::json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        let mut preconditions = serde_json::Map::new();
        if let Some(uid) = &self.uid {
            preconditions.insert("uid".to_owned(), uid.clone().into());
        }
        if let Some(version) = &self.resource_version {
            preconditions.insert("resourceVersion".to_owned(), version.clone().into());
        }
        if let Some(fields) = body.as_object_mut() {
            if let Some(seconds) = self.grace_period_seconds {
                fields.insert("gracePeriodSeconds".to_owned(), seconds.into());
            }
            if !preconditions.is_empty() {
                fields.insert("preconditions".to_owned(), preconditions.into());
            }
            if self.dry_run {
                fields.insert("dryRun".to_owned(), serde_json::json!(["All"]));
            }
        }
        body
    }
}

/// Decides on a DELETE at `now` (seconds since the Unix epoch).
///
/// # Errors
/// 409 when a precondition does not hold.
pub fn begin_delete(
    kind: &Kind,
    object: &Value,
    options: &DeleteOptions,
    now: i64,
) -> Result<DeleteDecision, Status> {
    check_preconditions(kind, object, options)?;
    let held = !finalizers(object).is_empty();
    if !kind.graceful {
        return Ok(match (held, meta::is_terminating(object)) {
            (false, _) => DeleteDecision::Remove,
            (true, true) => DeleteDecision::Unchanged,
            (true, false) => DeleteDecision::Store(marked(object, now, 0)),
        });
    }
    let asked = options.grace_period_seconds.map(|g| if g < 0 { 1 } else { g });
    let remove = |grace: i64, stamp: i64| {
        if grace == 0 && !held {
            DeleteDecision::Remove
        } else {
            DeleteDecision::Store(marked(object, stamp, grace))
        }
    };
    if !meta::is_terminating(object) {
        let own = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
        let grace = if is_finished(object) { 0 } else { asked.or(own).unwrap_or(0) };
        let grace = if grace < 0 { 1 } else { grace };
        return Ok(remove(grace, now + grace));
    }
    let stored = object
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64)
        .map_or(0, |g| if g < 0 { 1 } else { g });
    if stored == 0 {
        return Ok(if held { DeleteDecision::Unchanged } else { DeleteDecision::Remove });
    }
    let Some(mut grace) = asked.filter(|asked| *asked < stored) else {
        return Ok(DeleteDecision::Unchanged);
    };
    let end = object
        .pointer("/metadata/deletionTimestamp")
        .and_then(Value::as_str)
        .and_then(parse_time)
        .unwrap_or(now);
    // Counted from the first request, not from this one.
    let mut stamp = end - stored + grace;
    if stamp < now {
        stamp = now;
        if grace != 0 {
            grace = 1;
        }
    }
    Ok(remove(grace, stamp))
}

fn check_preconditions(kind: &Kind, object: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let name = meta::name(object);
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != meta::uid(object)) {
        let detail = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). \
             The object might have been deleted and then recreated",
            meta::uid(object)
        );
        return Err(Status::conflict(kind, name, &detail));
    }
    let version = meta::resource_version(object);
    if let Some(asked) = options.resource_version.as_deref().filter(|v| *v != version) {
        let detail = format!(
            "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion \
             in record ({version}). The object might have been modified"
        );
        return Err(Status::conflict(kind, name, &detail));
    }
    Ok(())
}

/// Nobody will stop it: it was never given to a node, or has ended already.
fn is_finished(pod: &Value) -> bool {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    text("/spec/nodeName").is_empty() || matches!(text("/status/phase"), "Succeeded" | "Failed")
}

fn marked(object: &Value, stamp: i64, grace: i64) -> Value {
    let mut object = object.clone();
    let first = !meta::is_terminating(&object);
    let metadata = metadata_mut(&mut object);
    metadata.insert("deletionTimestamp".to_owned(), meta::time(stamp).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
    if first && let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
        metadata.insert("generation".to_owned(), (generation + 1).into());
    }
    object
}

/// Whether an update has left an object that only waited for its last finalizer (DELAPI-3).
#[must_use]
pub fn is_released(object: &Value) -> bool {
    let grace = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    meta::is_terminating(object) && grace.unwrap_or(0) == 0 && finalizers(object).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_resource;
    use serde_json::json;

    fn pod() -> Value {
        json!({
            "metadata": {"name": "p", "uid": "u1", "generation": 1},
            "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30},
            "status": {"phase": "Running"},
        })
    }

    fn delete(pod: &Value, grace: Option<i64>, now: i64) -> DeleteDecision {
        let kind = by_resource("", "v1", "pods").unwrap();
        let options = DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() };
        begin_delete(kind, pod, &options, now).unwrap()
    }

    fn stored(decision: &DeleteDecision) -> (i64, i64) {
        let DeleteDecision::Store(pod) = decision else { panic!("{decision:?}") };
        let stamp = pod.pointer("/metadata/deletionTimestamp").unwrap().as_str().unwrap();
        let grace = pod.pointer("/metadata/deletionGracePeriodSeconds").unwrap();
        (parse_time(stamp).unwrap(), grace.as_i64().unwrap())
    }

    #[test]
    fn a_second_delete_only_shortens() {
        // The table of §4.3: the first DELETE at 1000 with grace 30.
        let DeleteDecision::Store(first) = delete(&pod(), None, 1000) else { panic!() };
        assert_eq!(stored(&delete(&pod(), None, 1000)), (1030, 30));
        assert_eq!(stored(&delete(&first, Some(10), 1002)), (1010, 10));
        assert_eq!(stored(&delete(&first, Some(5), 1010)), (1010, 1));
        assert_eq!(delete(&first, Some(60), 1010), DeleteDecision::Unchanged);
        assert_eq!(delete(&first, None, 1010), DeleteDecision::Unchanged);
        assert_eq!(delete(&first, Some(0), 1010), DeleteDecision::Remove);
        assert_eq!(stored(&delete(&first, Some(-7), 1010)), (1010, 1));
        assert_eq!(first.pointer("/metadata/generation"), Some(&json!(2)));
    }

    #[test]
    fn what_no_kubelet_will_finish_goes_at_once() {
        // DEL-1
        let mut unscheduled = pod();
        unscheduled["spec"]["nodeName"] = json!("");
        assert_eq!(delete(&unscheduled, None, 1000), DeleteDecision::Remove);
        let mut finished = pod();
        finished["status"]["phase"] = json!("Succeeded");
        assert_eq!(delete(&finished, Some(30), 1000), DeleteDecision::Remove);
    }

    #[test]
    fn finalizers_keep_an_object_whatever_the_grace() {
        // DEL-37
        let mut held = pod();
        held["metadata"]["finalizers"] = json!(["a.b/c"]);
        assert_eq!(stored(&delete(&held, Some(0), 1000)), (1000, 0));
        let DeleteDecision::Store(marked) = delete(&held, Some(0), 1000) else { panic!() };
        assert!(!is_released(&marked));
        let mut released = marked;
        released["metadata"]["finalizers"] = json!([]);
        assert!(is_released(&released));
    }

    #[test]
    fn a_namesake_is_never_deleted_for_another() {
        // S39
        let kind = by_resource("", "v1", "pods").unwrap();
        let options = DeleteOptions { uid: Some("u0".to_owned()), ..DeleteOptions::default() };
        let status = begin_delete(kind, &pod(), &options, 0).unwrap_err();
        assert_eq!(status.code, 409);
        assert!(status.message.contains("the UID in the precondition (u0) does not match"));
    }
}
