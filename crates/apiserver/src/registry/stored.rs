//! Stored objects as clients see them, without reading them as values.
//!
//! What is stored is the JSON text of an object without its `resourceVersion`; what is shown is the same
//! text with that spliced in. A version is looked at once: whether it is such a text, and where the
//! splice goes. What is not (another client of the store may write what it likes) is read as a value and
//! written again, as every object was before; and so is what a kind shows otherwise than it is stored.

use super::{decode, stamp};
use api::{
    kinds::{self, Kind},
    status::Status,
};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::{
    borrow::Cow,
    cell::Cell,
    collections::hash_map::RandomState,
    fmt,
    hash::BuildHasher as _,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use store::{KeyValue, Revision};

/// Versions that are remembered as looked at; 8 bytes each.
const SLOTS: usize = 1 << 16;
/// Bits of a slot that say where the splice goes; longer values are not remembered.
const PLACE_BITS: u32 = 24;
const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;
/// In the place of an offset, none of which is so small: must be read as a value.
const AS_VALUE: u64 = 1;

/// Which stored versions were looked at, and what was found.
///
/// A version is named by its key, the revision that wrote it and the version of the kind it is read as, all
/// of which is hashed under keys of this process; two share a name once in 2^56 times.
pub(crate) struct Known {
    slots: Box<[AtomicU64]>,
    names: RandomState,
}

impl Default for Known {
    fn default() -> Self {
        let slots = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { slots, names: RandomState::new() }
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known")
    }
}

/// A stored object that can be shown: it is known to be readable.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    kv: Arc<KeyValue>,
    /// Of the first byte behind the `{` of `metadata`; `None` for what must be read as a value.
    splice: Option<u32>,
}

impl Known {
    /// Looks at a version, unless that has been done.
    ///
    /// # Errors
    /// 500 for what is no object at all.
    pub(crate) fn examine(&self, kind: &Kind, kv: Arc<KeyValue>) -> Result<Stored, Status> {
        if !shows_as_stored(kind) {
            decode(kind.stored(), &kv)?;
            return Ok(Stored { kv, splice: None });
        }
        let name = self.names.hash_one((&kv.key, kv.mod_revision, kind.version));
        let index = usize::try_from(name).unwrap_or_default() % SLOTS;
        let slot = self.slots.get(index);
        let known = slot.map_or(0, |slot| slot.load(Ordering::Relaxed));
        let place = if known & !PLACE_MASK == name & !PLACE_MASK && known & PLACE_MASK != 0 {
            known & PLACE_MASK
        } else {
            let place = place(kind, &kv.value).unwrap_or(AS_VALUE);
            if place == AS_VALUE {
                decode(kind, &kv)?;
            }
            if let Some(slot) = slot {
                slot.store((name & !PLACE_MASK) | place, Ordering::Relaxed);
            }
            place
        };
        let splice = u32::try_from(place).ok().filter(|_| place != AS_VALUE);
        Ok(Stored { kv, splice })
    }
}

impl Stored {
    /// The pair.
    pub(crate) fn kv(&self) -> &KeyValue {
        &self.kv
    }

    /// Bytes that it takes as JSON, about.
    pub(crate) fn len(&self) -> usize {
        self.kv.value.len() + 32
    }

    /// As a value, in the form of the version that is stored.
    ///
    /// # Errors
    /// None that [`Known::examine`] has not told.
    pub(crate) fn value(&self, kind: &Kind) -> Result<Value, Status> {
        decode(kind.stored(), &self.kv)
    }

    /// The same as of another revision, in the form of the kind's own version.
    fn shown_at(&self, kind: &Kind, revision: Revision) -> Result<Value, Status> {
        let mut object = self.value(kind)?;
        stamp(kind.stored(), &mut object, revision);
        Ok(kind.show(&object).into_owned())
    }

    /// Writes the whole object as JSON, as of the revision that wrote it.
    ///
    /// # Errors
    /// As [`Stored::value`].
    pub(crate) fn write(&self, kind: &Kind, out: &mut Vec<u8>) -> Result<(), Status> {
        self.write_at(kind, self.kv.mod_revision, out)
    }

    /// The same as of another revision: the last form of what was deleted then (WCH-3).
    ///
    /// # Errors
    /// As [`Stored::value`].
    pub(crate) fn write_at(
        &self,
        kind: &Kind,
        revision: Revision,
        out: &mut Vec<u8>,
    ) -> Result<(), Status> {
        let Some((head, rest)) = self.cut(kind) else {
            let object = self.shown_at(kind, revision)?;
            return serde_json::to_writer(out, &object).map_err(Status::internal);
        };
        out.extend_from_slice(head);
        version(revision, rest, out);
        out.extend_from_slice(rest);
        Ok(())
    }

    /// Writes what a client sees that asked for metadata only, as of a revision.
    ///
    /// # Errors
    /// As [`Stored::value`].
    pub(crate) fn write_metadata_at(
        &self,
        kind: &Kind,
        revision: Revision,
        out: &mut Vec<u8>,
    ) -> Result<(), Status> {
        out.extend_from_slice(
            br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#,
        );
        if let Some((_, rest)) = self.cut(kind) {
            out.push(b'{');
            version(revision, rest, out);
            out.extend_from_slice(rest.get(..object_end(rest)).unwrap_or(rest));
        } else {
            let object = self.shown_at(kind, revision)?;
            let metadata = object.get("metadata").unwrap_or(&Value::Null);
            serde_json::to_writer(&mut *out, metadata).map_err(Status::internal)?;
        }
        out.push(b'}');
        Ok(())
    }

    /// What stands before the splice, and what behind it.
    fn cut(&self, kind: &Kind) -> Option<(&[u8], &[u8])> {
        // It may have been found as what is stored, and be shown as another version.
        if !shows_as_stored(kind) {
            return None;
        }
        self.kv.value.split_at_checked(usize::try_from(self.splice?).ok()?)
    }
}

/// Whether what is stored of a kind is what is shown of it, but for the revision. A definition's schema may
/// have changed since, and of several versions one is stored.
pub(crate) fn shows_as_stored(kind: &Kind) -> bool {
    kind.custom.is_none() && kind.hub.is_none() && kinds::event::stored_group(kind) == kind.group
}

/// Writes the version as the first member of the metadata that goes on with `rest`.
fn version(revision: Revision, rest: &[u8], out: &mut Vec<u8>) {
    let _ = write!(out, "\"resourceVersion\":\"{revision}\"");
    if rest.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'}') {
        out.push(b',');
    }
}

/// Where the splice goes; `None` for a text that shows something else than the value read from it and
/// stamped would.
fn place(kind: &Kind, text: &[u8]) -> Option<u64> {
    let (api_version, plain) = (kind.api_version(), Cell::new(true));
    let seen = Cell::new(0);
    let top =
        Look { what: What::Object { kind, api_version: &api_version, seen: &seen }, plain: &plain };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    top.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    if !plain.get() || seen.get() != OWN_FIELDS {
        return None;
    }
    let metadata = member(text, b"metadata")?;
    // Of an object, as has been looked at.
    let behind = u64::try_from(metadata).ok()? + 1;
    (behind > AS_VALUE && behind <= PLACE_MASK).then_some(behind)
}

/// `apiVersion`, `kind` and `metadata`.
const OWN_FIELDS: u32 = 3;

/// Reads a text strictly as a value would be read, and makes nothing of it.
struct Look<'a> {
    what: What<'a>,
    /// Cleared by what a splice would show differently.
    plain: &'a Cell<bool>,
}

#[derive(Clone, Copy)]
enum What<'a> {
    Object { kind: &'a Kind, api_version: &'a str, seen: &'a Cell<u32> },
    Metadata,
    Text(&'a str),
    Any,
}

impl Look<'_> {
    fn not_plain<E>(&self) -> Result<(), E> {
        self.plain.set(false);
        Ok(())
    }

    fn scalar<E>(&self) -> Result<(), E> {
        if matches!(self.what, What::Any) { Ok(()) } else { self.not_plain() }
    }

    fn below<'b>(&'b self, what: What<'b>) -> Look<'b> {
        Look { what, plain: self.plain }
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.scalar()
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.scalar()
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let wanted = matches!(self.what, What::Text(want) if want == text);
        if wanted { Ok(()) } else { self.scalar() }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self.below(What::Any))?.is_some() {}
        self.scalar()
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if matches!(self.what, What::Text(_)) {
            self.plain.set(false);
        }
        let mut last: Option<&'de str> = None;
        while let Some(key) = map.next_key_seed(Key)? {
            // Of a name that is there twice the last counts; where all are in order, none is.
            let Cow::Borrowed(key) = key else {
                self.plain.set(false);
                map.next_value_seed(self.below(What::Any))?;
                continue;
            };
            if last.is_some_and(|last| key <= last) {
                self.plain.set(false);
            }
            last = Some(key);
            let below = match (self.what, key) {
                (What::Object { kind, seen, .. }, "kind") => {
                    seen.set(seen.get() + 1);
                    What::Text(kind.kind)
                }
                (What::Object { api_version, seen, .. }, "apiVersion") => {
                    seen.set(seen.get() + 1);
                    What::Text(api_version)
                }
                (What::Object { seen, .. }, "metadata") => {
                    seen.set(seen.get() + 1);
                    What::Metadata
                }
                (What::Metadata, "resourceVersion") => {
                    self.plain.set(false);
                    What::Any
                }
                _ => What::Any,
            };
            map.next_value_seed(self.below(below))?;
        }
        Ok(())
    }
}

/// A member's name; borrowed if it is written as it is.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// Where the value of a member of the outermost object begins, in a text that is valid.
fn member(text: &[u8], name: &[u8]) -> Option<usize> {
    let skip_spaces = |at: usize| {
        let rest = text.get(at..)?;
        Some(at + rest.iter().position(|byte| !byte.is_ascii_whitespace())?)
    };
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        match text.get(at)? {
            b'"' => {
                let end = string_end(text, at + 1)?;
                if depth == 1 {
                    let colon = skip_spaces(end + 1)?;
                    if text.get(colon) == Some(&b':') && text.get(at + 1..end) == Some(name) {
                        return skip_spaces(colon + 1);
                    }
                }
                at = end;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
}

/// Where the quotation mark stands that ends a string.
fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += text.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if text.get(at) == Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

/// How long the rest of an object is whose `{` is just behind, `}` included, in a text that is valid.
fn object_end(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (1_usize, 0);
    while let Some(byte) = rest.get(at) {
        match byte {
            b'"' => match string_end(rest, at + 1) {
                Some(end) => at = end,
                None => break,
            },
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Which parts of an object are read.
pub(crate) struct Pick {
    named: &'static [(&'static str, Part)],
    /// What is not named.
    rest: Part,
}

enum Part {
    Keep,
    Drop,
    Of(&'static Pick),
}

/// All that label selectors ask for, and what field selectors may ask of any kind.
pub(super) static NAMES_AND_LABELS: Pick = Pick {
    named: &[(
        "metadata",
        Part::Of(&Pick {
            named: &[("labels", Part::Keep), ("name", Part::Keep), ("namespace", Part::Keep)],
            rest: Part::Drop,
        }),
    )],
    rest: Part::Drop,
};

/// Where a Pod is.
pub(crate) static NODE_NAME: Pick = Pick {
    named: &[("spec", Part::Of(&Pick { named: &[("nodeName", Part::Keep)], rest: Part::Drop }))],
    rest: Part::Drop,
};

/// Whether an object is on its way out.
static DELETION: Pick = Pick {
    named: &[(
        "metadata",
        Part::Of(&Pick { named: &[("deletionTimestamp", Part::Keep)], rest: Part::Drop }),
    )],
    rest: Part::Drop,
};

/// Whether a stored object is on its way out.
///
/// # Errors
/// 500 for what is no object.
pub(super) fn is_terminating(kind: &Kind, kv: &KeyValue) -> Result<bool, Status> {
    let parts = DELETION.read(&kv.value).or_else(|_| decode(kind, kv))?;
    Ok(api::meta::is_terminating(&parts))
}

/// All that field selectors ask of the kinds of the core group: none looks into the long parts.
pub(super) static SELECTABLE: Pick = Pick {
    named: &[
        ("binaryData", Part::Drop),
        ("data", Part::Drop),
        (
            "metadata",
            Part::Of(&Pick {
                named: &[("annotations", Part::Drop), ("managedFields", Part::Drop)],
                rest: Part::Keep,
            }),
        ),
        (
            "spec",
            Part::Of(&Pick {
                named: &[
                    ("affinity", Part::Drop),
                    ("containers", Part::Drop),
                    ("ephemeralContainers", Part::Drop),
                    ("initContainers", Part::Drop),
                    ("template", Part::Drop),
                    ("tolerations", Part::Drop),
                    ("volumes", Part::Drop),
                ],
                rest: Part::Keep,
            }),
        ),
        (
            "status",
            Part::Of(&Pick {
                named: &[
                    ("conditions", Part::Drop),
                    ("containerStatuses", Part::Drop),
                    ("ephemeralContainerStatuses", Part::Drop),
                    ("images", Part::Drop),
                    ("initContainerStatuses", Part::Drop),
                ],
                rest: Part::Keep,
            }),
        ),
    ],
    rest: Part::Keep,
};

impl Pick {
    /// Those parts of a stored object; what is no object there is null.
    ///
    /// # Errors
    /// It is no JSON.
    pub(crate) fn read(&'static self, text: &[u8]) -> Result<Value, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        Picked(self).deserialize(&mut deserializer)
    }
}

struct Picked(&'static Pick);

impl<'de> DeserializeSeed<'de> for Picked {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Picked {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, _: &str) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = serde_json::Map::new();
        while let Some(key) = map.next_key_seed(Key)? {
            let named = self.0.named.iter().find(|(name, _)| *name == key);
            let value = match named.map_or(&self.0.rest, |(_, part)| part) {
                Part::Drop => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                Part::Keep => map.next_value()?,
                Part::Of(pick) => map.next_value_seed(Picked(pick))?,
            };
            object.insert(key.into_owned(), value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::ListQuery;
    use api::{kinds, selector::FieldSelector};
    use proptest::prelude::*;
    use serde_json::json;
    use store::LeaseId;

    fn pods() -> &'static Kind {
        kinds::by_alias("pods").unwrap()
    }

    fn kv(text: impl Into<Vec<u8>>) -> Arc<KeyValue> {
        Arc::new(KeyValue {
            key: "/registry/pods/default/p".into(),
            value: text.into().into(),
            create_revision: Revision::new(3),
            mod_revision: Revision::new(7),
            version: 2,
            lease: LeaseId::NONE,
        })
    }

    /// What is shown of a text, read back; `None` for what cannot be shown.
    fn shown(known: &Known, text: &[u8]) -> Option<[Value; 3]> {
        let stored = known.examine(pods(), kv(text)).ok()?;
        let mut texts: [Vec<u8>; 3] = Default::default();
        let [whole, later, metadata] = &mut texts;
        stored.write(pods(), whole).unwrap();
        stored.write_at(pods(), Revision::new(9), later).unwrap();
        stored.write_metadata_at(pods(), Revision::new(9), metadata).unwrap();
        Some(texts.map(|text| serde_json::from_slice(&text).unwrap()))
    }

    /// The same by way of a value.
    fn by_value(text: &[u8]) -> Option<[Value; 3]> {
        let whole = decode(pods(), &kv(text)).ok()?;
        let mut later = whole.clone();
        stamp(pods(), &mut later, Revision::new(9));
        let metadata = json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": later.get("metadata"),
        });
        Some([whole, later, metadata])
    }

    fn spliced(text: &[u8]) -> bool {
        Known::default().examine(pods(), kv(text)).is_ok_and(|stored| stored.splice.is_some())
    }

    #[test]
    fn what_this_server_stores_is_spliced_and_what_others_write_is_read() {
        let plain = json!({
            "apiVersion": "v1", "kind": "Pod", "data": {"metadata": {"x": "\"}{"}},
            "metadata": {"name": "p", "labels": {"a": "\\"}}, "spec": {"metadata": [1.5, null]},
        });
        assert!(spliced(&serde_json::to_vec(&plain).unwrap()));
        assert!(spliced(&serde_json::to_vec_pretty(&plain).unwrap()));
        for (name, text) in [
            ("empty metadata", r#"{"apiVersion":"v1","kind":"Pod","metadata": { } }"#),
            ("one member", r#"{"apiVersion":"v1","kind":"Pod","metadata":{"a":{}}}"#),
        ] {
            assert!(spliced(text.as_bytes()), "{name}");
            assert_eq!(
                shown(&Known::default(), text.as_bytes()),
                by_value(text.as_bytes()),
                "{name}"
            );
        }
        for (name, text) in [
            ("another kind", r#"{"apiVersion":"v1","kind":"Node","metadata":{}}"#),
            ("another version", r#"{"apiVersion":"v2","kind":"Pod","metadata":{}}"#),
            ("no kind", r#"{"apiVersion":"v1","metadata":{}}"#),
            ("no metadata", r#"{"apiVersion":"v1","kind":"Pod"}"#),
            (
                "metadata twice",
                r#"{"apiVersion":"v1","kind":"Pod","metadata":{},"metadata":{"a":1}}"#,
            ),
            (
                "a name twice below",
                r#"{"apiVersion":"v1","kind":"Pod","metadata":{},"spec":{"a":1,"a":2}}"#,
            ),
            ("a version", r#"{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"1"}}"#),
            (
                "an escaped name",
                r#"{"apiVersion":"v1","kind":"Pod","\u006detadata":{},"metadata":{}}"#,
            ),
            ("metadata that is none", r#"{"apiVersion":"v1","kind":"Pod","metadata":[]}"#),
            ("a kind that is none", r#"{"apiVersion":"v1","kind":{},"metadata":{}}"#),
            ("a list", "[]"),
            ("a number", "1"),
        ] {
            assert!(!spliced(text.as_bytes()), "{name}");
            assert_eq!(
                shown(&Known::default(), text.as_bytes()),
                by_value(text.as_bytes()),
                "{name}"
            );
        }
        for text in ["", "{", "nonsense", r#"{"apiVersion":"v1","kind":"Pod","metadata":{}}x"#] {
            let error = Known::default().examine(pods(), kv(text)).unwrap_err();
            assert_eq!(error.code, 500, "{text}");
        }
    }

    #[test]
    fn a_version_that_was_looked_at_is_not_looked_at_again() {
        let known = Known::default();
        let text = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"}}"#;
        known.examine(pods(), kv(*text)).unwrap();
        // Nobody could write another text under the same revision; it shows that this one is not read.
        let other = text.map(|byte| if byte == b'p' { b'\x01' } else { byte });
        assert!(known.examine(pods(), kv(other)).unwrap().splice.is_some());
        let mut later = KeyValue::clone(&kv(other));
        later.mod_revision = Revision::new(8);
        assert_eq!(known.examine(pods(), Arc::new(later)).unwrap_err().code, 500);
    }

    /// Everything that any selector can ask for, beside long parts.
    fn selectable() -> Value {
        let mut object = json!({
            "metadata": {"name": "n", "namespace": "s", "labels": {"a": "b"},
                         "annotations": {"x": "y"}, "managedFields": [{"manager": "m"}]},
            "spec": {"containers": [{"name": "c"}], "volumes": [], "hostNetwork": true},
            "status": {"conditions": [{"type": "Ready"}], "podIPs": [{"ip": "10.0.0.1"}],
                       "succeeded": 3, "replicas": 4},
            "source": {"component": "k"}, "data": {"k": "v"},
        });
        for label in kinds::all().iter().flat_map(|kind| kind.field_labels) {
            let mut at = &mut object;
            for part in label.split('.') {
                if !at.is_object() {
                    break;
                }
                at = &mut at[part];
            }
            if at.is_null() {
                *at = Value::from(format!("value of {label}"));
            }
        }
        object
    }

    #[test]
    fn selectors_find_in_the_parts_what_they_find_in_the_whole() {
        // SEL-1, SEL-2
        let object = selectable();
        let text = serde_json::to_vec(&object).unwrap();
        for kind in kinds::all() {
            for label in kind.field_labels.iter().chain(&["metadata.name", "metadata.namespace"]) {
                let fields = FieldSelector::parse(kind, &format!("{label}=x")).unwrap();
                let query = ListQuery { fields, ..ListQuery::default() };
                let parts = query.selectable(kind, &kv(text.clone())).unwrap();
                let whole = decode(kind.stored(), &kv(text.clone())).unwrap();
                let of = |object| (kind.field)(object, label);
                if !label.starts_with("metadata.") {
                    assert_eq!(of(&parts), of(&whole), "{kind:?} {label}");
                }
                assert_eq!(api::meta::labels(&parts), api::meta::labels(&object), "{kind:?}");
                assert_eq!(api::meta::name(&parts), "n");
                assert_eq!(api::meta::namespace(&parts), "s");
                let long = parts.pointer("/metadata/managedFields");
                assert!(long.is_none() || !kind.group.is_empty(), "{kind:?} reads all");
            }
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // Eighths are read exactly, as all are that a client writes with few digits.
            any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
            "[a-z\"\\\\\n{}\\[\\]é]{0,6}".prop_map(Value::from),
        ];
        let key = prop_oneof![
            "[a-z\"\\\\{]{0,4}",
            Just("metadata".to_owned()),
            Just("kind".to_owned()),
            Just("resourceVersion".to_owned()),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(key.clone(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever is stored, by whomever.
        #[test]
        fn what_is_shown_is_what_a_value_would_show(
            mut object in any_json(),
            metadata in any_json(),
            named in any::<bool>(),
            pretty in any::<bool>(),
            damage in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            if named && let Some(fields) = object.as_object_mut() {
                fields.insert("apiVersion".to_owned(), "v1".into());
                fields.insert("kind".to_owned(), "Pod".into());
                fields.insert("metadata".to_owned(), metadata);
            }
            let written = if pretty { serde_json::to_vec_pretty(&object) } else { serde_json::to_vec(&object) };
            let mut text = written.unwrap();
            if let Some((place, byte)) = damage {
                let place = place.index(text.len());
                text[place] = byte;
            }
            let known = Known::default();
            let want = by_value(&text);
            prop_assert_eq!(&shown(&known, &text), &want);
            prop_assert_eq!(&shown(&known, &text), &want, "the second time");
        }
    }
}
