//! Objects of the API, each from its creation to its end, as far as anybody saw.

use super::streams::Stream;
use crate::history::{Body, Call, Change, Mark, Object, ObjectVerb, Operation, Outcome};
use serde_json::Value;
use std::collections::BTreeMap;

/// One version of an object.
#[derive(Debug, Clone, Copy)]
pub struct Version<'h> {
    /// Without its JSON if only the head was kept.
    pub object: &'h Object,
    /// When anybody first saw it.
    pub seen_ns: u64,
    /// It is the last one, with the revision of the deletion.
    pub deleted: bool,
}

impl<'h> Version<'h> {
    /// Of the write.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.object.resource_version
    }

    /// A part of its JSON.
    #[must_use]
    pub fn get(&self, pointer: &str) -> Option<&'h Value> {
        self.object.json.pointer(pointer).filter(|value| !value.is_null())
    }

    /// Some text in it; empty if there is none.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &'h str {
        self.get(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether its JSON was kept.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.object.json.is_null()
    }

    /// `namespace/name` and revision.
    #[must_use]
    pub fn label(&self) -> String {
        let Object { kind, namespace, name, resource_version, .. } = self.object;
        let separator = if namespace.is_empty() { "" } else { "/" };
        format!("{kind} {namespace}{separator}{name} at {resource_version}")
    }
}

/// All that was seen of one uid.
#[derive(Debug)]
pub struct Life<'h> {
    /// Never used again.
    pub uid: &'h str,
    /// By revision.
    pub versions: BTreeMap<u64, Version<'h>>,
}

impl<'h> Life<'h> {
    /// Its first known version.
    #[must_use]
    pub fn first(&self) -> Option<&Version<'h>> {
        self.versions.values().next()
    }

    /// Its last known version.
    #[must_use]
    pub fn last(&self) -> Option<&Version<'h>> {
        self.versions.values().next_back()
    }

    /// What it was at a revision: none before it came to be, and after its deletion.
    #[must_use]
    pub fn at(&self, revision: u64) -> Option<&Version<'h>> {
        let version = self.versions.range(..=revision).next_back().map(|(_, version)| version);
        version.filter(|version| !version.deleted)
    }

    /// Its deletion, if that was seen.
    #[must_use]
    pub fn deleted(&self) -> Option<&Version<'h>> {
        self.versions.values().find(|version| version.deleted)
    }

    /// `Pod`, `Node`, …
    #[must_use]
    pub fn kind(&self) -> &'h str {
        self.first().map_or("", |version| &version.object.kind)
    }

    /// Empty for what belongs to the whole cluster.
    #[must_use]
    pub fn namespace(&self) -> &'h str {
        self.first().map_or("", |version| &version.object.namespace)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'h str {
        self.first().map_or("", |version| &version.object.name)
    }

    /// Kind, name and uid, for people.
    #[must_use]
    pub fn label(&self) -> String {
        let separator = if self.namespace().is_empty() { "" } else { "/" };
        let (kind, namespace, name) = (self.kind(), self.namespace(), self.name());
        format!("{kind} {namespace}{separator}{name} ({})", self.uid)
    }

    /// Neighbouring known versions, older first.
    pub fn steps(&self) -> impl Iterator<Item = (&Version<'h>, &Version<'h>)> {
        self.versions.values().zip(self.versions.values().skip(1))
    }
}

/// All objects.
#[derive(Debug, Default)]
pub struct Objects<'h> {
    lives: BTreeMap<&'h str, Life<'h>>,
    /// Two witnesses of one version who contradict each other.
    pub conflicts: Vec<(Version<'h>, Version<'h>)>,
}

impl<'h> Objects<'h> {
    pub(super) fn gather(
        operations: &[&'h Operation],
        streams: &[Stream<'h>],
        marks: &[&'h Mark],
    ) -> Self {
        let mut objects = Self::default();
        for operation in operations {
            let Outcome::Ok(answer) = &operation.outcome else { continue };
            if let Call::Object(call) = &operation.call
                && matches!(call.verb, ObjectVerb::Delete | ObjectVerb::Bind | ObjectVerb::Evict)
            {
                // What these answer is not always a version that is or was stored.
                continue;
            }
            let seen_ns = operation.answered_ns;
            match &answer.body {
                Body::Object(object) => {
                    object.iter().for_each(|object| objects.add(object, seen_ns, false));
                }
                Body::Objects(many) => {
                    many.iter().for_each(|object| objects.add(object, seen_ns, false));
                }
                Body::Done
                | Body::Deleted { .. }
                | Body::Range { .. }
                | Body::Txn { .. }
                | Body::Lease { .. } => {}
            }
        }
        for (seen_ns, event) in streams.iter().flat_map(Stream::object_events) {
            objects.add(&event.object, seen_ns, event.change == Change::Deleted);
        }
        for mark in marks {
            if let Mark::FinalObjects { at_ns, items, .. } = mark {
                items.iter().for_each(|object| objects.add(object, *at_ns, false));
            }
        }
        objects
    }

    fn add(&mut self, object: &'h Object, seen_ns: u64, deleted: bool) {
        let new = Version { object, seen_ns, deleted };
        let life = self.lives.entry(object.uid.as_str());
        let life = life.or_insert_with(|| Life { uid: &object.uid, versions: BTreeMap::new() });
        match life.versions.get_mut(&object.resource_version) {
            None => {
                life.versions.insert(object.resource_version, new);
            }
            Some(known) => {
                if known.deleted != deleted || differs(&known.object.json, &object.json) {
                    self.conflicts.push((*known, new));
                    return;
                }
                known.seen_ns = known.seen_ns.min(seen_ns);
                if known.object.json.is_null() {
                    known.object = object;
                }
            }
        }
    }

    /// All objects of a kind, by uid.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Life<'h>> {
        self.lives.values().filter(move |life| life.kind() == kind)
    }

    /// All objects, by uid.
    pub fn all(&self) -> impl Iterator<Item = &Life<'h>> {
        self.lives.values()
    }

    /// The object with a uid.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&Life<'h>> {
        self.lives.get(uid)
    }
}

/// Whether two witnesses of one version differ; lists leave out what all items have in common.
fn differs(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let parts = |of: &serde_json::Map<String, Value>| {
                let parts =
                    of.iter().filter(|(name, _)| !matches!(name.as_str(), "kind" | "apiVersion"));
                parts.map(|(name, part)| (name.clone(), part.clone())).collect::<BTreeMap<_, _>>()
            };
            parts(one) != parts(other)
        }
        (Value::Null, _) | (_, Value::Null) => false,
        (one, other) => one != other,
    }
}
