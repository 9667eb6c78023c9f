//! What a DELETE does to an object (DELAPI-1, 2, 3), as a function.

use crate::{
    field::{FieldError, Path},
    kinds::Kind,
    meta::{self, finalizers, metadata_mut},
    pod,
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
    /// What becomes of dependents; the kind's default when `None`.
    pub propagation: Option<Propagation>,
    /// Do everything but the write.
    pub dry_run: bool,
}

/// What becomes of an object's dependents (DELAPI-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They go first: the object waits with the finalizer `foregroundDeletion`.
    Foreground,
    /// They go afterwards.
    Background,
    /// They stay and lose their owner: the object waits with the finalizer `orphan`.
    Orphan,
}

/// Until the dependents are gone.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Until the dependents have been told that they have no owner any more.
pub const ORPHAN: &str = "orphan";

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

impl Propagation {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "Foreground" => Some(Self::Foreground),
            "Background" => Some(Self::Background),
            "Orphan" => Some(Self::Orphan),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Foreground => "Foreground",
            Self::Background => "Background",
            Self::Orphan => "Orphan",
        }
    }
}

/// The options as a client writes them: body or query.
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Sent {
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    dry_run: Option<Vec<String>>,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl DeleteOptions {
    /// From a request's body, if it has one.
    ///
    /// # Errors
    /// 400 for a body that is no `DeleteOptions`; 422 for values that are not allowed.
    pub fn from_json(body: &Value) -> Result<Self, Status> {
        if body.is_null() {
            return Ok(Self::default());
        }
        let sent: Sent = serde_path_to_error::deserialize(body)
            .map_err(|e| Status::bad_request(format!("DeleteOptions: {e}")))?;
        Self::from_sent(sent)
    }

    /// From a request's query, for a request without a body.
    ///
    /// # Errors
    /// 400 for what is no number or flag; 422 for values that are not allowed.
    pub fn from_query<'a>(
        query: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Status> {
        let bad = |key: &str, value: &str| Status::bad_request(format!("{key}={value:?}"));
        let mut sent = Sent::default();
        let mut preconditions = Preconditions::default();
        for (key, value) in query {
            match key {
                "gracePeriodSeconds" => {
                    sent.grace_period_seconds = Some(value.parse().map_err(|_| bad(key, value))?);
                }
                "propagationPolicy" => sent.propagation_policy = Some(value.to_owned()),
                "orphanDependents" => {
                    sent.orphan_dependents = Some(match value {
                        "true" | "1" => true,
                        "false" | "0" => false,
                        _ => return Err(bad(key, value)),
                    });
                }
                "dryRun" => sent.dry_run.get_or_insert_default().push(value.to_owned()),
                "preconditions.uid" => preconditions.uid = Some(value.to_owned()),
                "preconditions.resourceVersion" => {
                    preconditions.resource_version = Some(value.to_owned());
                }
                _ => {}
            }
        }
        sent.preconditions = Some(preconditions);
        Self::from_sent(sent)
    }

    fn from_sent(sent: Sent) -> Result<Self, Status> {
        let mut errors = Vec::new();
        let policy = Path::new("propagationPolicy");
        if sent.orphan_dependents.is_some() && sent.propagation_policy.is_some() {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            let value = sent.propagation_policy.clone();
            errors.push(FieldError::invalid(&policy, value, detail));
        }
        let propagation = match (sent.propagation_policy.as_deref(), sent.orphan_dependents) {
            (Some("") | None, Some(true)) => Some(Propagation::Orphan),
            (Some("") | None, Some(false)) => Some(Propagation::Background),
            (Some("") | None, None) => None,
            (Some(text), _) => {
                let parsed = Propagation::parse(text);
                if parsed.is_none() {
                    let supported = &["Foreground", "Background", "Orphan", "nil"];
                    errors.push(FieldError::not_supported(&policy, text, supported));
                }
                parsed
            }
        };
        let dry_run = sent.dry_run.unwrap_or_default();
        if let Some(wrong) = dry_run.iter().find(|value| *value != "All") {
            let path = Path::new("dryRun");
            errors.push(FieldError::not_supported(&path, wrong.clone(), &["All"]));
        }
        if !errors.is_empty() {
            return Err(Status::invalid_options("DeleteOptions", &errors));
        }
        let preconditions = sent.preconditions.unwrap_or_default();
        Ok(Self {
            grace_period_seconds: sent.grace_period_seconds,
            uid: preconditions.uid,
            resource_version: preconditions.resource_version,
            propagation,
            dry_run: !dry_run.is_empty(),
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
            if let Some(propagation) = self.propagation {
                fields.insert("propagationPolicy".to_owned(), propagation.name().into());
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
    let first = !meta::is_terminating(object);
    // Once it is on its way out, nobody's options change what it waits for.
    let finalizers =
        if first { propagated(object, options.propagation) } else { finalizers(object) };
    let held = !finalizers.is_empty() || has_content(object);
    let marked = |stamp, grace| DeleteDecision::Store(marked(object, &finalizers, stamp, grace));
    if !kind.graceful {
        return Ok(match (held, first) {
            (false, _) => DeleteDecision::Remove,
            (true, false) => DeleteDecision::Unchanged,
            (true, true) => marked(now, 0),
        });
    }
    let asked = options.grace_period_seconds.map(|g| if g < 0 { 1 } else { g });
    let remove = |grace: i64, stamp: i64| {
        if grace == 0 && !held { DeleteDecision::Remove } else { marked(stamp, grace) }
    };
    if first {
        let own = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
        let grace = if is_finished(object) { 0 } else { asked.or(own).unwrap_or(0) };
        let grace = if grace < 0 { 1 } else { grace };
        // No later than the last time there is, so that the time and the grace agree.
        let grace = grace.min(meta::TIME_SECONDS_MAX.saturating_sub(now).max(0));
        return Ok(remove(grace, now.saturating_add(grace)));
    }
    let stored = meta::deletion_grace_seconds(object).map_or(0, |g| if g < 0 { 1 } else { g });
    if stored == 0 {
        return Ok(if held { DeleteDecision::Unchanged } else { DeleteDecision::Remove });
    }
    let Some(mut grace) = asked.filter(|asked| *asked < stored) else {
        return Ok(DeleteDecision::Unchanged);
    };
    // Counted from the first request, not from this one.
    let first_asked = meta::deletion_time(object).unwrap_or(now).saturating_sub(stored);
    let mut stamp = first_asked.saturating_add(grace);
    if stamp < now {
        stamp = now;
        if grace != 0 {
            grace = 1;
        }
    }
    Ok(remove(grace, stamp))
}

/// The finalizers after what the options say of dependents (DELAPI-4).
fn propagated(object: &Value, propagation: Option<Propagation>) -> Vec<String> {
    let mut list = finalizers(object);
    let Some(propagation) = propagation else { return list };
    list.retain(|f| f != FOREGROUND && f != ORPHAN);
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => list.push(FOREGROUND.to_owned()),
        Propagation::Orphan => list.push(ORPHAN.to_owned()),
    }
    list
}

fn check_preconditions(kind: &Kind, object: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let name = meta::name(object);
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != meta::uid(object)) {
        let detail = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). \
             The object might have been deleted and then recreated",
            meta::uid(object)
        );
        return Err(refused(kind, name, &detail));
    }
    let version = meta::resource_version(object);
    if let Some(asked) = options.resource_version.as_deref().filter(|v| *v != version) {
        let detail = format!(
            "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion \
             in record ({version}). The object might have been modified"
        );
        return Err(refused(kind, name, &detail));
    }
    Ok(())
}

/// A conflict that names the kind where all others name the resource: so upstream has it.
fn refused(kind: &Kind, name: &str, detail: &str) -> Status {
    let mut status = Status::conflict(kind, name, detail).with_detail("kind", kind.kind);
    let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
    status.message =
        format!("Operation cannot be fulfilled on {}{group} \"{name}\": {detail}", kind.kind);
    status
}

/// Nobody will stop it: it was never given to a node, or has ended already.
fn is_finished(pod: &Value) -> bool {
    !pod::is_bound(pod) || pod::is_terminal(pod)
}

fn marked(object: &Value, finalizers: &[String], stamp: i64, grace: i64) -> Value {
    let mut object = object.clone();
    let first = !meta::is_terminating(&object);
    let metadata = metadata_mut(&mut object);
    match finalizers {
        [] => drop(metadata.remove("finalizers")),
        some => drop(metadata.insert("finalizers".to_owned(), some.into())),
    }
    metadata.insert("deletionTimestamp".to_owned(), meta::time(stamp).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
    if first && let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
        metadata.insert("generation".to_owned(), generation.saturating_add(1).into());
    }
    if is_namespace(&object) {
        meta::child_mut(&mut object, "status").insert("phase".to_owned(), "Terminating".into());
    }
    object
}

/// A definition may make another kind of that name.
fn is_namespace(object: &Value) -> bool {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    text("kind") == "Namespace" && text("apiVersion") == "v1"
}

/// A namespace that nobody has emptied yet (NS-1).
fn has_content(object: &Value) -> bool {
    let finalizers = object.pointer("/spec/finalizers").and_then(Value::as_array);
    is_namespace(object) && finalizers.is_some_and(|list| !list.is_empty())
}

/// Whether an update has left an object that only waited for its last finalizer (DELAPI-3).
#[must_use]
pub fn is_released(object: &Value) -> bool {
    let grace = meta::deletion_grace_seconds(object).unwrap_or(0);
    meta::is_terminating(object)
        && grace == 0
        && finalizers(object).is_empty()
        && !has_content(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::by_resource, meta::parse_time};
    use proptest::prelude::*;
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

    fn seconds() -> impl Strategy<Value = i64> {
        prop_oneof![
            any::<i64>(),
            -2_i64..100,
            (0_i64..100).prop_map(|less| i64::MAX - less),
            (-100_i64..100).prop_map(|more| meta::TIME_SECONDS_MAX + more),
        ]
    }

    proptest! {
        #[test]
        fn no_grace_is_too_long_to_be_counted(
            asked in prop::option::of(seconds()),
            own in seconds(),
            again in prop::option::of(seconds()),
            stored_grace in seconds(),
            time_of in seconds(),
            now in seconds(),
            later in 0_i64..1_000_000,
        ) {
            let mut pod = pod();
            pod["spec"]["terminationGracePeriodSeconds"] = own.into();
            if let DeleteDecision::Store(first) = delete(&pod, asked, now) {
                let (stamp, grace) = stored(&DeleteDecision::Store(first.clone()));
                prop_assert!(grace >= 0);
                if (0..=meta::TIME_SECONDS_MAX).contains(&now) {
                    prop_assert_eq!(stamp, now + grace);
                }
                if let second @ DeleteDecision::Store(_) =
                    delete(&first, again, now.saturating_add(later))
                {
                    prop_assert!(stored(&second).1 < grace, "a second delete only shortens");
                }
            }
            // As somebody else may have stored it.
            pod["metadata"]["deletionTimestamp"] = meta::time(time_of).into();
            pod["metadata"]["deletionGracePeriodSeconds"] = stored_grace.into();
            pod["metadata"]["generation"] = i64::MAX.into();
            if let decision @ DeleteDecision::Store(_) = delete(&pod, asked, now) {
                prop_assert!(stored(&decision).1 >= 0);
            }
        }
    }

    #[test]
    fn an_endless_grace_ends_with_the_last_time_and_can_be_shortened() {
        let mut pod = pod();
        pod["spec"]["terminationGracePeriodSeconds"] = i64::MAX.into();
        let DeleteDecision::Store(first) = delete(&pod, None, 1000) else { panic!() };
        let last = meta::TIME_SECONDS_MAX;
        assert_eq!(stored(&DeleteDecision::Store(first.clone())), (last, last - 1000));
        assert_eq!(stored(&delete(&first, Some(30), 1010)), (1030, 30));
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
        assert_eq!(
            status.message,
            "Operation cannot be fulfilled on Pod \"p\": the UID in the precondition (u0) does not \
             match the UID in record (u1). The object might have been deleted and then recreated"
        );
        let options =
            DeleteOptions { resource_version: Some("7".to_owned()), ..DeleteOptions::default() };
        let mut pod = pod();
        pod["metadata"]["resourceVersion"] = json!("8");
        let status = begin_delete(kind, &pod, &options, 0).unwrap_err();
        assert_eq!(
            status.message,
            "Operation cannot be fulfilled on Pod \"p\": the ResourceVersion in the precondition (7) \
             does not match the ResourceVersion in record (8). The object might have been modified"
        );
    }

    #[test]
    fn finalizers_hold_a_finished_second_delete_too() {
        // §4.3, the row of grace 0
        let mut held = pod();
        held["metadata"]["finalizers"] = json!(["a.b/c"]);
        let DeleteDecision::Store(first) = delete(&held, None, 1000) else { panic!() };
        assert_eq!(stored(&delete(&first, Some(0), 1010)), (1010, 0));
        let DeleteDecision::Store(over) = delete(&first, Some(0), 1010) else { panic!() };
        assert_eq!(delete(&over, None, 1020), DeleteDecision::Unchanged);
    }

    #[test]
    fn a_negative_grace_of_the_pod_itself_is_one_second() {
        let mut pod = pod();
        pod["spec"]["terminationGracePeriodSeconds"] = json!(-3);
        assert_eq!(stored(&delete(&pod, None, 1000)), (1001, 1));
        assert_eq!(stored(&delete(&pod, Some(-7), 1000)), (1001, 1));
        assert_eq!(delete(&pod, Some(0), 1000), DeleteDecision::Remove);
    }

    #[test]
    fn kinds_without_grace_go_at_once_unless_finalizers_hold_them() {
        // DELAPI-2
        let kind = by_resource("", "v1", "configmaps").unwrap();
        let options = DeleteOptions { grace_period_seconds: Some(30), ..DeleteOptions::default() };
        let mut map = json!({"metadata": {"name": "c", "uid": "u"}});
        assert_eq!(begin_delete(kind, &map, &options, 1000).unwrap(), DeleteDecision::Remove);
        map["metadata"]["finalizers"] = json!(["a.b/c"]);
        let decision = begin_delete(kind, &map, &options, 1000).unwrap();
        assert_eq!(stored(&decision), (1000, 0));
        let DeleteDecision::Store(map) = decision else { panic!() };
        let again = begin_delete(kind, &map, &options, 1010).unwrap();
        assert_eq!(again, DeleteDecision::Unchanged);
    }

    #[test]
    fn a_namespace_says_that_it_ends_and_waits_until_it_is_empty() {
        // NS-1
        let kind = by_resource("", "v1", "namespaces").unwrap();
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        });
        let decision = begin_delete(kind, &namespace, &DeleteOptions::default(), 1000).unwrap();
        let DeleteDecision::Store(mut marked) = decision else { panic!("{decision:?}") };
        assert_eq!(marked["status"]["phase"], "Terminating");
        assert!(!is_released(&marked));
        marked["spec"]["finalizers"] = json!([]);
        assert!(is_released(&marked));
    }

    #[test]
    fn propagation_is_a_finalizer_set_once() {
        // DELAPI-4
        let kind = by_resource("", "v1", "configmaps").unwrap();
        let with = |propagation| DeleteOptions { propagation, ..DeleteOptions::default() };
        let map = json!({"metadata": {"name": "c", "finalizers": ["orphan"]}});
        for (propagation, want) in [
            (None, Some(json!(["orphan"]))),
            (Some(Propagation::Orphan), Some(json!(["orphan"]))),
            (Some(Propagation::Foreground), Some(json!(["foregroundDeletion"]))),
            (Some(Propagation::Background), None),
        ] {
            let left = match begin_delete(kind, &map, &with(propagation), 0).unwrap() {
                DeleteDecision::Remove => None,
                DeleteDecision::Store(left) => Some(left["metadata"]["finalizers"].clone()),
                DeleteDecision::Unchanged => panic!("it is the first"),
            };
            assert_eq!(left, want, "{propagation:?}");
        }
        let first = begin_delete(kind, &map, &with(None), 0).unwrap();
        let DeleteDecision::Store(first) = first else { panic!() };
        let second = begin_delete(kind, &first, &with(Some(Propagation::Background)), 0).unwrap();
        assert_eq!(second, DeleteDecision::Unchanged);
    }

    #[test]
    fn options_are_read_from_body_and_query_alike() {
        let options = DeleteOptions {
            grace_period_seconds: Some(5),
            uid: Some("u".to_owned()),
            resource_version: Some("7".to_owned()),
            propagation: Some(Propagation::Foreground),
            dry_run: true,
        };
        assert_eq!(DeleteOptions::from_json(&options.to_json()), Ok(options.clone()));
        let query = [
            ("gracePeriodSeconds", "5"),
            ("preconditions.uid", "u"),
            ("preconditions.resourceVersion", "7"),
            ("propagationPolicy", "Foreground"),
            ("dryRun", "All"),
            ("pretty", "true"),
        ];
        assert_eq!(DeleteOptions::from_query(query), Ok(options));
        assert_eq!(DeleteOptions::from_json(&Value::Null), Ok(DeleteOptions::default()));
        for (body, code, want) in [
            (json!({"gracePeriodSeconds": "x"}), 400, "gracePeriodSeconds"),
            (json!({"propagationPolicy": "Sideways"}), 422, "Unsupported value: \"Sideways\""),
            (
                json!({"propagationPolicy": "Orphan", "orphanDependents": true}),
                422,
                "orphanDependents and deletionPropagation cannot be both set",
            ),
            (json!({"dryRun": ["Some"]}), 422, "dryRun: Unsupported value"),
        ] {
            let status = DeleteOptions::from_json(&body).unwrap_err();
            assert_eq!(status.code, code, "{body}");
            assert!(status.message.contains(want), "{}", status.message);
        }
        let legacy = DeleteOptions::from_query([("orphanDependents", "true")]).unwrap();
        assert_eq!(legacy.propagation, Some(Propagation::Orphan));
    }
}
