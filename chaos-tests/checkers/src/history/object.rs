//! Objects of the Kubernetes-shaped API, and requests for them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One version of an object. Equal uid and resource version are the same version everywhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// `Pod`, `Node`, …
    pub kind: String,
    /// Empty for what belongs to the whole cluster.
    #[serde(default)]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Never used again.
    pub uid: String,
    /// The store's revision of this version; of a `DELETED` event, of the deletion.
    pub resource_version: u64,
    /// The whole object as JSON; null if only the head was kept.
    #[serde(default)]
    pub json: Value,
}

impl Object {
    /// Takes an object apart as the API wrote it; none if it has no kind, name, uid or resource version.
    #[must_use]
    pub fn from_json(json: Value) -> Option<Self> {
        let text = |pointer: &str| json.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let kind = text("/kind")?;
        let namespace = text("/metadata/namespace").unwrap_or_default();
        let (name, uid) = (text("/metadata/name")?, text("/metadata/uid")?);
        let resource_version = text("/metadata/resourceVersion")?.parse().ok()?;
        Some(Self { kind, namespace, name, uid, resource_version, json })
    }
}

/// A request for objects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectCall {
    /// What is done.
    pub verb: ObjectVerb,
    /// `Pod`, `Node`, …
    pub kind: String,
    /// Empty for what belongs to the whole cluster, and for lists over all namespaces.
    #[serde(default)]
    pub namespace: String,
    /// Empty for lists, and where the server chooses it.
    #[serde(default)]
    pub name: String,
    /// The uid that it demanded, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The resource version that it demanded, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<u64>,
    /// What was sent: the object, the patch, or the options of a deletion; null for reads.
    #[serde(default)]
    pub body: Value,
}

/// What is done with objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ObjectVerb {
    /// `POST`.
    Create,
    /// `PUT`, the status too.
    Update,
    /// `PATCH`, the status too.
    Patch,
    /// `DELETE`.
    Delete,
    /// `POST` of a Binding.
    Bind,
    /// `POST` of an Eviction.
    Evict,
    /// `GET` of one, linearizable (FEN-36).
    Get,
    /// `GET` of many, linearizable.
    List,
    /// `GET` of one or many from whatever the replica has (`resourceVersion=0`).
    Cached,
}
