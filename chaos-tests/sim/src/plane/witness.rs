//! What the log has made of each object: written down as one more watch of each kind, that goes on from the first
//! revision to the last and sees nothing through the API. Clients see what they happen to ask for, and watches break
//! off and begin anew; what must be so is held against all there was.

use super::{
    caller::{Kind, object},
    recorder::{Recorder, Stream},
};
use api::meta::metadata_mut;
use checkers::history::{Change, ObjectEvent, Opened, Scope, WatchStep};
use serde_json::Value;
use store::{Event, EventKind};

/// Its number among the clients.
pub(crate) const WITNESS: u64 = 0;

pub(crate) struct Witness(Vec<(Kind, String, Stream)>);

impl Witness {
    pub(crate) fn new(kinds: &[Kind], recorder: &Recorder) -> Self {
        let follow = |kind: &Kind| {
            let mut stream = recorder.stream();
            let scope = Scope::Objects { kind: kind.name.to_owned(), namespace: String::new() };
            let (client, replica) = (WITNESS, 0);
            stream.note(WatchStep::Opened(Opened {
                client,
                replica,
                scope,
                from: 1,
                resumes: None,
            }));
            (*kind, kind.prefix(), stream)
        };
        Self(kinds.iter().map(follow).collect())
    }

    /// The next change of the log.
    pub(crate) fn note(&mut self, event: &Event) {
        let of = |(_, prefix, _): &&mut (Kind, String, Stream)| {
            event.kv.key.starts_with(prefix.as_bytes())
        };
        let Some((kind, _, stream)) = self.0.iter_mut().find(of) else { return };
        if let Some(event) = read(*kind, event) {
            stream.note(WatchStep::Object(event));
        }
    }
}

/// As a watch of the API tells of it: what is deleted as it was before, at the revision of its deletion.
fn read(kind: Kind, event: &Event) -> Option<ObjectEvent> {
    let (change, stored) = match (event.kind, &event.prev) {
        (EventKind::Put, None) => (Change::Added, &event.kv),
        (EventKind::Put, Some(_)) => (Change::Modified, &event.kv),
        (EventKind::Delete, prev) => (Change::Deleted, prev.as_ref()?),
    };
    let mut json: Value = serde_json::from_slice(&stored.value).ok()?;
    let revision = event.kv.mod_revision.to_string();
    metadata_mut(&mut json).insert("resourceVersion".to_owned(), revision.into());
    Some(ObjectEvent { change, object: object(kind, json)? })
}

#[cfg(test)]
mod tests {
    use super::{super::caller::SLICE, *};
    use bytes::Bytes;
    use serde_json::json;
    use std::sync::Arc;
    use store::{KeyValue, LeaseId, Revision};

    #[test]
    fn changes_are_told_as_watches_tell_them() {
        let pair = |revision: u64, color: &str| {
            let metadata = json!({"name": "s", "namespace": "n", "uid": "u", "color": color});
            let key = format!("{}n/s", SLICE.prefix());
            Arc::new(KeyValue {
                key: key.into(),
                value: json!({"metadata": metadata}).to_string().into(),
                create_revision: Revision::new(revision),
                mod_revision: Revision::new(revision),
                version: 1,
                lease: LeaseId::NONE,
            })
        };
        assert!(pair(1, "").key.starts_with(b"/registry/discovery.k8s.io/endpointslices/n/"));
        let of = |kind, kv, prev| read(SLICE, &Event { kind, kv, prev }).unwrap();
        let color = |event: &ObjectEvent| event.object.json["metadata"]["color"].clone();
        let made = of(EventKind::Put, pair(5, "red"), None);
        assert_eq!((made.change, made.object.resource_version), (Change::Added, 5));
        let changed = of(EventKind::Put, pair(6, "blue"), Some(pair(5, "red")));
        assert_eq!((changed.change, changed.object.resource_version), (Change::Modified, 6));
        assert_eq!((color(&made), color(&changed)), ("red".into(), "blue".into()));
        let gone = KeyValue { value: Bytes::new(), ..KeyValue::clone(&pair(7, "")) };
        let deleted = of(EventKind::Delete, Arc::new(gone), Some(pair(6, "blue")));
        assert_eq!((deleted.change, deleted.object.resource_version), (Change::Deleted, 7));
        assert_eq!(color(&deleted), "blue");
    }
}
