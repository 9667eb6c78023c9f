//! What watches were asked and what they delivered.

use super::{kv::Range, object::Object};
use serde::{Deserialize, Serialize};

/// Something that one watch did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// When.
    pub at_ns: u64,
    /// Names the stream in this history. A resumed watch is another stream.
    pub stream: u64,
    /// Of all records of this stream, the how-manieth, from 0: records may be kept in any order.
    pub sequence: u64,
    /// What.
    pub step: WatchStep,
}

/// What a watch did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WatchStep {
    /// The server accepted it.
    Opened(Opened),
    /// One response with events of keys. All events of a revision belong into one.
    Events {
        /// In order.
        events: Vec<Event>,
    },
    /// One event of an object.
    Object(ObjectEvent),
    /// Everything up to this revision has been delivered: a progress notification, or a bookmark.
    Progress {
        /// Up to which.
        revision: u64,
    },
    /// It ended.
    Closed(Closed),
}

/// How a watch began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Opened {
    /// Whose.
    pub client: u64,
    /// The replica that was asked; 0 if unknown.
    pub replica: u64,
    /// What it follows.
    pub scope: Scope,
    /// The first revision that it must deliver: etcd's `start_revision`; for objects the asked resource
    /// version plus one; for one that began "now", what the answer said plus one.
    pub from: u64,
    /// The stream that it goes on with, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumes: Option<u64>,
}

/// What a watch follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// Keys.
    Keys(Range),
    /// Objects of a kind, without selectors.
    Objects {
        /// `Pod`, `Node`, …
        kind: String,
        /// Empty: all.
        #[serde(default)]
        namespace: String,
    },
    /// Objects that a selector chooses: what is missing from it proves nothing.
    Selected {
        /// `Pod`, `Node`, …
        kind: String,
    },
}

/// One change of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The key.
    pub key: String,
    /// Of the change.
    pub mod_revision: u64,
    /// What was written; none for a deletion.
    pub value: Option<String>,
    /// 0 for a deletion.
    #[serde(default)]
    pub create_revision: u64,
    /// 0 for a deletion.
    #[serde(default)]
    pub version: u64,
    /// 0: none.
    #[serde(default)]
    pub lease: u64,
}

/// One change of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectEvent {
    /// `ADDED`, `MODIFIED`, `DELETED`.
    pub change: Change,
    /// After the change; of a deletion, the last there was, with the deletion's resource version.
    pub object: Object,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Change {
    /// It came to be, or was there when the watch began.
    Added,
    /// It was changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// How a watch ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Closed {
    /// What it would have to deliver next is forgotten (410 Gone).
    Compacted {
        /// The last forgotten revision; 0 if the answer did not say.
        revision: u64,
    },
    /// The connection broke, or somebody ended it. It can be resumed.
    Ended,
}
