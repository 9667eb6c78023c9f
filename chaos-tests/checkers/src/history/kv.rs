//! Requests in etcd's terms, and what came of them.

use super::object::ObjectCall;
use serde::{Deserialize, Serialize};

/// A request of one client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Who asked. One client has one request under way at a time.
    pub client: u64,
    /// The replica that was asked; 0 if unknown.
    pub replica: u64,
    /// When the request was sent.
    pub invoked_ns: u64,
    /// When its outcome was known to the client; for an unknown one, when it gave up.
    pub answered_ns: u64,
    /// What it asked.
    pub call: Call,
    /// What came of it.
    pub outcome: Outcome,
}

/// What was asked. Keys and values are text; whoever has other bytes writes them in hexadecimal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Call {
    /// One put.
    Put(Put),
    /// Deletes keys.
    Delete(Range),
    /// Reads keys.
    Range(RangeRequest),
    /// A transaction: one revision for all of its changes.
    Txn(Txn),
    /// Creates a lease.
    LeaseGrant {
        /// Chosen by the client.
        lease: u64,
        /// As asked for.
        ttl_seconds: u64,
    },
    /// Renews a lease.
    LeaseKeepAlive {
        /// Which.
        lease: u64,
    },
    /// Ends a lease.
    LeaseRevoke {
        /// Which.
        lease: u64,
    },
    /// Forgets what was before a revision.
    Compact {
        /// The last one that is forgotten.
        revision: u64,
    },
    /// A request to the Kubernetes-shaped API.
    Object(ObjectCall),
}

/// Writes one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Put {
    /// Which.
    pub key: String,
    /// Each write of a run should have a value of its own: only then can a stale read be told.
    pub value: String,
    /// 0: none.
    #[serde(default)]
    pub lease: u64,
}

/// One key, or all from `key` up to `end`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// The key, or the first one.
    pub key: String,
    /// The first key past the range; none for exactly one key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
}

impl Range {
    /// Exactly one key.
    #[must_use]
    pub fn one(key: impl Into<String>) -> Self {
        Self { key: key.into(), end: None }
    }

    /// All keys that begin with a prefix of ASCII; all keys for the empty one.
    #[must_use]
    pub fn prefix(prefix: &str) -> Self {
        let mut end: Vec<char> = prefix.chars().collect();
        // No text is above the last character, so that it cannot be counted up.
        while let Some(last) = end.pop() {
            if let Some(next) = (last..=char::MAX).nth(1) {
                end.push(next);
                return Self { key: prefix.to_owned(), end: Some(end.into_iter().collect()) };
            }
        }
        Self { key: String::new(), end: Some(char::MAX.to_string()) }
    }

    /// Whether a key is in it.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        match &self.end {
            None => self.key == key,
            Some(end) => self.key.as_str() <= key && key < end.as_str(),
        }
    }
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RangeRequest {
    /// Which keys.
    pub range: Range,
    /// From what the replica has, however old.
    #[serde(default)]
    pub serializable: bool,
    /// The state to read; 0 is the newest.
    #[serde(default)]
    pub revision: u64,
    /// At most so many pairs, in key order; 0 is no limit.
    #[serde(default)]
    pub limit: u64,
}

/// If every compare holds, `success`, else `failure`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Txn {
    /// All must hold.
    pub compare: Vec<Compare>,
    /// Done in order when they do.
    pub success: Vec<Step>,
    /// Done in order when they do not.
    pub failure: Vec<Step>,
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// Writes a key.
    Put(Put),
    /// Deletes keys.
    Delete(Range),
    /// Reads keys, seeing the steps before it.
    Range(Range),
}

/// A condition on one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compare {
    /// Of an absent key all numbers are 0, and it has no value.
    pub key: String,
    /// The stored one on the left.
    pub operator: CompareOperator,
    /// With what.
    pub target: CompareTarget,
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CompareOperator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `<`
    Less,
}

/// What of a key is compared, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CompareTarget {
    /// Number of writes since creation.
    Version(u64),
    /// Revision of creation.
    CreateRevision(u64),
    /// Revision of the last write.
    ModRevision(u64),
    /// The value; false on an absent key.
    Value(String),
    /// The lease.
    Lease(u64),
}

/// A pair as it stands at some revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kv {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// Revision at which the key came to be (again).
    pub create_revision: u64,
    /// Revision of the last write.
    pub mod_revision: u64,
    /// 1 at creation, one more with every write.
    pub version: u64,
    /// 0: none.
    #[serde(default)]
    pub lease: u64,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It was carried out and answered.
    Ok(Answer),
    /// It was certainly not carried out and never will be.
    Failed {
        /// In words.
        reason: String,
    },
    /// It may have been carried out, or may be yet.
    Unknown {
        /// In words.
        reason: String,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The header's: for a change its own; 0 where the answer has none.
    pub revision: u64,
    /// The rest.
    pub body: Body,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Body {
    /// Nothing more: of a put, a grant, a revocation, a compaction.
    Done,
    /// Of a delete.
    Deleted {
        /// How many.
        count: u64,
    },
    /// Of a range.
    Range {
        /// In key order.
        kvs: Vec<Kv>,
        /// The limit cut it.
        more: bool,
    },
    /// Of a transaction.
    Txn {
        /// Whether the compares held.
        succeeded: bool,
        /// One for each step that was done; may be empty if the client did not keep them.
        steps: Vec<StepAnswer>,
    },
    /// Of a renewal: what is left, in seconds; 0 if there is no such lease.
    Lease {
        /// Time to live.
        ttl_seconds: u64,
    },
    /// Of a request to the API: the object, if the answer had one.
    Object(Option<super::Object>),
    /// Of a list.
    Objects(Vec<super::Object>),
}

/// The result of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StepAnswer {
    /// Of a put.
    Put,
    /// Of a delete.
    Deleted {
        /// How many.
        count: u64,
    },
    /// Of a range.
    Range {
        /// In key order.
        kvs: Vec<Kv>,
    },
}
