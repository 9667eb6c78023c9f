//! Objects as they were: how a moment is named, and how a deleted object is made again.

use crate::{
    deletion::{FOREGROUND, ORPHAN},
    kinds::{Kind, text},
    meta::{self, metadata_mut},
};
use serde_json::Value;

/// The parameter of a read that asks for an earlier moment.
pub const AT: &str = "at";
/// The parameter of a read of one object that asks for all of its kept versions.
pub const HISTORY: &str = "history";
/// The header of such a read's answer: the revision that it shows.
pub const REVISION_HEADER: &str = "trireme-revision";
/// The same: when that revision was made, if it is known.
pub const TIME_HEADER: &str = "trireme-time";

/// A moment in the history of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Right after this revision.
    Revision(u64),
    /// Seconds since the Unix epoch, the whole of that second included.
    Time(i64),
    /// So many seconds ago.
    Ago(i64),
}

impl When {
    /// A revision (`1234`), a time (RFC 3339), or how long ago (`5m`, `1h30m`).
    ///
    /// # Errors
    /// What it should look like, for people.
    pub fn parse(written: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{written:?} is no revision (1234), no RFC 3339 time (2026-01-31T03:00:00Z) and no time ago (5m, 1h30m)"
            )
        };
        if written.is_empty() {
            return Err(wrong());
        }
        if written.bytes().all(|byte| byte.is_ascii_digit()) {
            return written.parse().map(Self::Revision).map_err(|_| wrong());
        }
        if let Some(seconds) = meta::parse_time(written) {
            return Ok(Self::Time(seconds));
        }
        ago(written).map(Self::Ago).ok_or_else(wrong)
    }
}

/// Seconds of `1d2h3m4s`, any part of it.
fn ago(text: &str) -> Option<i64> {
    let mut total: i64 = 0;
    let mut number = String::new();
    for letter in text.chars() {
        if letter.is_ascii_digit() {
            number.push(letter);
            continue;
        }
        let unit = match letter {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        let count: i64 = number.parse().ok()?;
        total = total.checked_add(count.checked_mul(unit)?)?;
        number.clear();
    }
    number.is_empty().then_some(total)
}

/// A deleted object in a form that can be created, and what of it does not come back.
#[derive(Debug, Clone, PartialEq)]
pub struct Revived {
    /// Without what the server owns.
    pub object: Value,
    /// A line each, for people.
    pub lost: Vec<String>,
}

/// Metadata that is another's than who creates: of that object only.
const SERVERS: &[&str] = &[
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// Labels that a Job's Pods are found by, which name the old Job.
const JOB_LABELS: &[&str] = &["controller-uid", "batch.kubernetes.io/controller-uid"];

/// What to create so that an object is there again.
#[must_use]
pub fn revive(kind: &Kind, last: &Value) -> Revived {
    let mut object = last.clone();
    let mut lost = Vec::new();
    let old_uid = meta::uid(last).to_owned();
    let metadata = metadata_mut(&mut object);
    for field in SERVERS {
        metadata.remove(*field);
    }
    if let Some(list) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
        list.retain(|finalizer| finalizer != FOREGROUND && finalizer != ORPHAN);
    }
    if !old_uid.is_empty() {
        lost.push(format!("its uid {old_uid}: what refers to that does not see the new object"));
    }
    let fields = object.as_object_mut();
    if fields.and_then(|fields| fields.remove("status")).is_some_and(|status| !is_empty(&status)) {
        lost.push("its status: it is found out anew".to_owned());
    }
    match kind.kind {
        "Pod" => pod(&mut object, &mut lost),
        "Job" => job(&mut object, &mut lost),
        "Namespace" => {
            if let Some(fields) = object.as_object_mut() {
                fields.remove("spec");
            }
            lost.push(
                "what was in it: each object can be undeleted by itself, as long as its history is kept"
                    .to_owned(),
            );
        }
        "Node" => {
            lost.push("its lease: the node is heard again when its agent registers".to_owned())
        }
        _ if kind.pod_spec.is_some() => {
            lost.push("its Pods, if they went with it: a controller makes new ones".to_owned());
        }
        _ => {}
    }
    Revived { object, lost }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => false,
    }
}

fn pod(pod: &mut Value, lost: &mut Vec<String>) {
    let node = text(pod, "/spec/nodeName");
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("nodeName");
    }
    if !node.is_empty() {
        lost.push(format!("its place on node {node}: it is scheduled again"));
        lost.push("what its containers had in memory, in emptyDir volumes and in logs".to_owned());
    }
}

fn job(job: &mut Value, lost: &mut Vec<String>) {
    let manual = job.pointer("/spec/manualSelector") == Some(&Value::Bool(true));
    if !manual {
        if let Some(spec) = job.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("selector");
        }
        for pointer in ["/metadata/labels", "/spec/template/metadata/labels"] {
            if let Some(labels) = job.pointer_mut(pointer).and_then(Value::as_object_mut) {
                labels.retain(|key, _| !JOB_LABELS.contains(&key.as_str()));
            }
        }
    }
    lost.push("what its Pods had done: it begins from the start".to_owned());
}

/// Takes the owners out that `is_there` does not know, and says so: with an owner that is gone the object would be
/// removed at once.
pub fn forget_owners(revived: &mut Revived, is_there: impl Fn(&Value) -> bool) {
    let metadata = metadata_mut(&mut revived.object);
    let Some(owners) = metadata.get_mut("ownerReferences").and_then(Value::as_array_mut) else {
        return;
    };
    let lost = &mut revived.lost;
    owners.retain(|owner| {
        let there = is_there(owner);
        if !there {
            let (kind, name) = (text(owner, "/kind"), text(owner, "/name"));
            lost.push(format!("its owner {kind}/{name}, which is gone: it stands alone now"));
        }
        there
    });
    if owners.is_empty() {
        metadata.remove("ownerReferences");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_alias;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_moment_is_a_revision_a_time_or_so_long_ago() {
        for (text, want) in [
            ("1234", Some(When::Revision(1234))),
            ("1970-01-01T00:00:09Z", Some(When::Time(9))),
            ("1970-01-01T01:00:09+01:00", Some(When::Time(9))),
            ("5m", Some(When::Ago(300))),
            ("1h30m", Some(When::Ago(5400))),
            ("2d1s", Some(When::Ago(172_801))),
            ("0s", Some(When::Ago(0))),
            ("", None),
            ("yesterday", None),
            ("-5m", None),
            ("5", Some(When::Revision(5))),
            ("5m3", None),
            ("m", None),
            ("99999999999999999999", None),
            ("99999999999999999999d", None),
            ("9999999999999999d", None),
        ] {
            assert_eq!(When::parse(text).ok(), want, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_moment_or_refused(text in "\\PC{0,12}") {
            let _ = When::parse(&text);
        }
    }

    #[test]
    fn what_the_server_owns_does_not_come_back() {
        let last = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "p", "namespace": "d", "uid": "u", "resourceVersion": "7", "generation": 2,
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "b"},
                "managedFields": [], "finalizers": ["x.io/hold", "foregroundDeletion"],
                "deletionTimestamp": "2026-01-01T00:01:00Z", "deletionGracePeriodSeconds": 30,
            },
            "spec": {"nodeName": "n", "containers": [{"name": "a"}]},
            "status": {"phase": "Running"},
        });
        let revived = revive(by_alias("pods").unwrap(), &last);
        assert_eq!(
            revived.object,
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "namespace": "d", "labels": {"a": "b"},
                             "finalizers": ["x.io/hold"]},
                "spec": {"containers": [{"name": "a"}]},
            })
        );
        assert_eq!(revived.lost.len(), 4, "{:?}", revived.lost);
    }

    #[test]
    fn a_job_gets_a_selector_of_its_own_again() {
        let labels = json!({"batch.kubernetes.io/controller-uid": "u", "app": "a"});
        let mut last = json!({
            "metadata": {"name": "j", "uid": "u"},
            "spec": {"selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
                     "template": {"metadata": {"labels": labels}}},
        });
        let kind = by_alias("jobs").unwrap();
        let revived = revive(kind, &last).object;
        assert_eq!(revived["spec"], json!({"template": {"metadata": {"labels": {"app": "a"}}}}));
        last["spec"]["manualSelector"] = json!(true);
        assert_eq!(revive(kind, &last).object["spec"], last["spec"]);
    }

    #[test]
    fn an_owner_that_is_gone_is_let_go() {
        let owner = |uid: &str| json!({"kind": "ReplicaSet", "name": uid, "uid": uid});
        let object = json!({"metadata": {"ownerReferences": [owner("there"), owner("gone")]}});
        let mut revived = Revived { object, lost: vec![] };
        forget_owners(&mut revived, |owner| owner["uid"] == "there");
        assert_eq!(revived.object["metadata"]["ownerReferences"], json!([owner("there")]));
        assert_eq!(revived.lost, ["its owner ReplicaSet/gone, which is gone: it stands alone now"]);
        forget_owners(&mut revived, |_| false);
        assert_eq!(revived.object, json!({"metadata": {}}));
    }
}
