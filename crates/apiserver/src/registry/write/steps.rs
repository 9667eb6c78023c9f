//! Compares and steps of transactions, and the form in which objects are stored.

use api::{
    kinds::{self, Kind},
    meta,
};
use bytes::Bytes;
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value;
use store::{
    Compare, CompareOperator, CompareTarget, DeleteRange, KeyRange, KeyValue, LeaseId, Put,
    Revision, TxnOp,
};

pub(super) fn compare(key: &str, target: CompareTarget) -> Compare {
    Compare {
        range: KeyRange::One(Bytes::copy_from_slice(key.as_bytes())),
        operator: CompareOperator::Equal,
        target,
    }
}

pub(in crate::registry) fn unchanged(key: &str, kv: &KeyValue) -> Compare {
    compare(key, CompareTarget::ModRevision(kv.mod_revision))
}

pub(in crate::registry) fn absent(key: &str) -> Compare {
    compare(key, CompareTarget::Version(0))
}

/// Nothing in the range was written after `revision`.
pub(in crate::registry) fn not_written_since(range: KeyRange, revision: Revision) -> Compare {
    let target = CompareTarget::ModRevision(revision.next());
    Compare { range, operator: CompareOperator::Less, target }
}

/// Nothing in the range was made after `revision`.
pub(in crate::registry) fn not_made_since(range: KeyRange, revision: Revision) -> Compare {
    let target = CompareTarget::CreateRevision(revision.next());
    Compare { range, operator: CompareOperator::Less, target }
}

pub(in crate::registry) fn put(key: &str, object: &Value, lease: LeaseId) -> TxnOp {
    put_text(key, encode(object), lease)
}

/// Of an object of a kind.
pub(super) fn put_object(kind: &Kind, key: &str, object: &Value, lease: LeaseId) -> TxnOp {
    put_text(key, text(kind, object), lease)
}

pub(super) fn put_text(key: &str, text: Bytes, lease: LeaseId) -> TxnOp {
    TxnOp::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: text,
        lease,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    })
}

/// An object as it is stored: a custom resource in one of its versions, whichever it comes in.
pub(super) fn text(kind: &Kind, object: &Value) -> Bytes {
    let Some(custom) = &kind.custom else { return encode(object) };
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        let version = format!("{}/{}", kind.group, custom.storage_version);
        fields.insert("apiVersion".to_owned(), version.into());
    }
    encode(&object)
}

/// Whether a write of the same would store the same: not where the definition has another version stored
/// since, which such writes are for.
pub(super) fn is_stored_as_now(kind: &Kind, kv: &KeyValue) -> bool {
    #[derive(serde::Deserialize)]
    struct Stored {
        #[serde(default, rename = "apiVersion")]
        api_version: String,
    }
    let Some(custom) = &kind.custom else { return true };
    let stored = serde_json::from_slice::<Stored>(&kv.value).map(|stored| stored.api_version);
    let version = format!("{}/{}", kind.group, custom.storage_version);
    stored.is_ok_and(|stored| stored == version)
}

pub(in crate::registry) fn remove(key: &str) -> TxnOp {
    let range = KeyRange::One(Bytes::copy_from_slice(key.as_bytes()));
    TxnOp::DeleteRange(DeleteRange { range, prev_kv: false })
}

/// The stored form: without what is filled in when it is read.
fn encode(object: &Value) -> Bytes {
    if !kinds::event::is_renamed(object) {
        return serde_json::to_vec(&Unversioned(object))
            .expect("a JSON value can be written")
            .into();
    }
    let mut object = meta::without_version(object);
    kinds::event::to_stored(&mut object);
    serde_json::to_vec(&object).expect("a JSON value can be written").into()
}

/// As [`meta::without_version`], without a copy of the whole object.
struct Unversioned<'a>(&'a Value);

impl Serialize for Unversioned<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (Some(fields), Some(Value::Object(_))) = (self.0.as_object(), self.0.get("metadata"))
        else {
            return meta::without_version(self.0).serialize(serializer);
        };
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in fields {
            match value.as_object().filter(|_| name == "metadata") {
                Some(metadata) => map.serialize_entry(name, &UnversionedMetadata(metadata))?,
                None => map.serialize_entry(name, value)?,
            }
        }
        map.end()
    }
}

struct UnversionedMetadata<'a>(&'a serde_json::Map<String, Value>);

impl Serialize for UnversionedMetadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().filter(|(name, _)| *name != "resourceVersion"))
    }
}
