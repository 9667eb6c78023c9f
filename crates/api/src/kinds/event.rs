//! Events in the form of `events.k8s.io`, which today's recorders write. There is one Event under a name, kept in the
//! form of the core group and shown in whichever is asked for.

use super::{
    Kind, decodes,
    plain::{EVENT, PLAIN},
    text, validate_namespaced, validate_namespaced_update,
};
use crate::field::{FieldError, Path};
use k8s_openapi::api::events::v1 as events;
use serde_json::Value;

const GROUP: &str = "events.k8s.io";

/// What the same is called: here, and in the core group.
const NAMES: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Bytes of a note, and of each of the other texts, at most.
const NOTE_BYTES_MAX: usize = 1024;
const TEXT_BYTES_MAX: usize = 128;

pub(super) const KIND: Kind = Kind {
    group: GROUP,
    validate_create: |event| {
        let mut errors = validate_namespaced(event);
        errors.extend(complete(event));
        errors
    },
    validate_update: validate_namespaced_update,
    cells: |event, now| {
        let mut event = event.clone();
        to_core(&mut event);
        (EVENT.cells)(&event, now)
    },
    field_labels: &[
        "reason",
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "regarding.apiVersion",
        "regarding.resourceVersion",
        "regarding.fieldPath",
        "reportingController",
        "type",
    ],
    field: |event, label| text(event, &format!("/{}", label.replace('.', "/"))),
    decode: decodes::<events::Event>,
    kind: EVENT.kind,
    plural: EVENT.plural,
    singular: EVENT.singular,
    short_names: EVENT.short_names,
    columns: EVENT.columns,
    ..PLAIN
};

/// What whoever writes this form has to say.
fn complete(event: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if event.get("eventTime").is_none_or(Value::is_null) {
        errors.push(FieldError::required(&Path::new("eventTime"), ""));
    }
    for field in ["reportingController", "reportingInstance", "action", "reason"] {
        let (path, value) = (Path::new(field), text(event, &format!("/{field}")));
        if value.is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else if value.len() > TEXT_BYTES_MAX {
            let detail = format!("can have at most {TEXT_BYTES_MAX} characters");
            errors.push(FieldError::invalid(&path, value, detail));
        }
    }
    let note = text(event, "/note");
    if note.len() > NOTE_BYTES_MAX {
        let detail = format!("can have at most {NOTE_BYTES_MAX} characters");
        errors.push(FieldError::invalid(&Path::new("note"), note, detail));
    }
    let kind = text(event, "/type");
    if !matches!(kind.as_str(), "Normal" | "Warning") {
        let path = Path::new("type");
        errors.push(FieldError::invalid(&path, kind.clone(), format!("has invalid value: {kind}")));
    }
    errors
}

/// The group under which objects of a kind are kept.
#[must_use]
pub fn stored_group(kind: &Kind) -> &'static str {
    if kind.group == GROUP && kind.custom.is_none() { "" } else { kind.group }
}

/// Whether an object is kept in another form than its own.
#[must_use]
pub fn is_renamed(object: &Value) -> bool {
    let version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    version.strip_prefix(GROUP).is_some_and(|rest| rest.starts_with('/'))
}

/// An object of this kind as it is kept.
pub fn to_stored(object: &mut Value) {
    if is_renamed(object) {
        to_core(object);
    }
}

/// An object that was kept as this kind shows it.
pub fn from_stored(kind: &Kind, object: &mut Value) {
    if kind.group == GROUP && kind.custom.is_none() {
        rename(object, NAMES.iter().map(|(new, core)| (*core, *new)));
    }
}

fn to_core(event: &mut Value) {
    rename(event, NAMES.iter().copied());
    if let Some(fields) = event.as_object_mut() {
        fields.insert("apiVersion".to_owned(), EVENT.version.into());
        // It is never left out there.
        fields.entry("involvedObject").or_insert_with(|| serde_json::json!({}));
    }
}

fn rename<'a>(object: &mut Value, names: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(fields) = object.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_the_same_in_both_forms() {
        // EVT-1
        let newer = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "eventTime": "2026-11-28T12:00:00.000000Z", "reportingController": "c",
            "reportingInstance": "i", "action": "a", "reason": "r", "type": "Normal", "note": "n",
            "regarding": {"kind": "Pod"}, "related": {"kind": "Node"}, "deprecatedCount": 2,
            "series": {"count": 2, "lastObservedTime": "2026-11-28T12:00:00.000000Z"},
        });
        let mut stored = newer.clone();
        to_stored(&mut stored);
        assert_eq!((EVENT.decode)(&stored), Ok(()));
        assert_eq!(stored["involvedObject"], newer["regarding"]);
        assert_eq!((&stored["message"], &stored["count"]), (&json!("n"), &json!(2)));
        let mut again = stored.clone();
        to_stored(&mut again);
        assert_eq!(again, stored, "what is in the older form already stays");
        from_stored(&KIND, &mut stored);
        stored["apiVersion"] = newer["apiVersion"].clone();
        assert_eq!(stored, newer);
        assert_eq!((KIND.validate_create)(&newer).len(), 1, "it is in no namespace");
    }

    #[test]
    fn an_event_of_the_newer_form_says_all_that_it_has_to() {
        // EVT-1, VAL-5
        let errors = complete(&json!({"note": "n".repeat(1025), "action": "a".repeat(129)}));
        let errors: Vec<String> =
            errors.iter().map(|error| format!("{}: {}", error.field, error.body())).collect();
        let action = format!("\"{}\"", "a".repeat(129));
        let note = format!("\"{}\"", "n".repeat(1025));
        assert_eq!(
            errors,
            [
                "eventTime: Required value".to_owned(),
                "reportingController: Required value".to_owned(),
                "reportingInstance: Required value".to_owned(),
                format!("action: Invalid value: {action}: can have at most 128 characters"),
                "reason: Required value".to_owned(),
                format!("note: Invalid value: {note}: can have at most 1024 characters"),
                "type: Invalid value: \"\": has invalid value: ".to_owned(),
            ]
        );
    }
}
