//! Objects over a [`Store`] of bytes: one set of verbs for every kind.

mod admission;
mod admit;
mod definitions;
mod evict;
mod page;
mod past;
mod quota;
mod stored;
mod write;

pub use admission::{Admission, Witness};
pub(crate) use page::Page;
pub use past::{History, Moment, Version};
pub(crate) use stored::{Known, NODE_NAME, Stored, shows_as_stored};
pub(crate) use write::not_decodable;
pub use write::{Apply, Caller, DeleteOutcome, Fence, Manager, Written};

use api::{
    kinds::{self, Kind},
    meta::metadata_mut,
    selector::{FieldSelector, LabelSelector},
    status::Status,
};
use base64::Engine as _;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{KeyRange, KeyValue, RangeRequest, RequestId, Revision, Store, StoreError, Timestamp};

/// Reads the wall clock; the caller's.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// For a linearizable read, and for a revision that has not come yet (LST-4).
const READ_DEADLINE: Duration = Duration::from_secs(3);
/// For a write with all its retries inside the store.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// The objects.
#[derive(Clone)]
pub struct Registry {
    store: Arc<dyn Store>,
    clock: Clock,
    /// Names this process's requests (FEN-33).
    client: u64,
    sequence: Arc<AtomicU64>,
    service_prefix: [u8; 2],
    turns: quota::Turns,
    definitions: Arc<definitions::Definitions>,
    /// Which stored versions can be shown as they are.
    known: Arc<Known>,
    classes: Arc<admit::Classes>,
    /// What the API's certificates are held against, as PEM, for Pods that ask the API.
    root_ca: Option<Arc<str>>,
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Parsed for the kind.
    pub labels: LabelSelector,
    /// Parsed for the kind.
    pub fields: FieldSelector,
    /// As sent.
    pub resource_version: String,
    /// As sent.
    pub resource_version_match: String,
    /// 0 is everything.
    pub limit: u64,
    /// As sent.
    pub continue_token: String,
}

/// A page of objects.
#[derive(Debug)]
pub struct ListResult {
    /// In key order.
    pub items: Vec<Value>,
    /// The revision that the whole list is consistent at (LST-1).
    pub revision: u64,
    /// Of the next page; empty at the end.
    pub continue_token: String,
    /// Only without selectors (LST-2).
    pub remaining: Option<u64>,
}

/// The storage key of an object: `/registry/[group/]plural/[namespace/]name`.
pub(crate) fn key(kind: &Kind, namespace: &str, name: &str) -> String {
    let mut key = prefix(kind, namespace);
    key.push_str(name);
    key
}

/// Of everything of a kind, in one namespace or in all.
pub(crate) fn prefix(kind: &Kind, namespace: &str) -> String {
    let group = kinds::event::stored_group(kind);
    let group = if group.is_empty() { String::new() } else { format!("{group}/") };
    let namespace = if kind.namespaced && !namespace.is_empty() {
        format!("{namespace}/")
    } else {
        String::new()
    };
    format!("/registry/{group}{}/{namespace}", kind.plural)
}

/// Reads pairs of a range as of `revision`, at most `limit` unless that is 0.
pub(crate) fn everything(range: KeyRange, revision: Revision, limit: u64) -> RangeRequest {
    let any = (Revision::ZERO, Revision::ZERO);
    RangeRequest {
        range,
        revision,
        limit,
        sort: None,
        keys_only: false,
        count_only: false,
        mod_revision: any,
        create_revision: any,
    }
}

/// The object of a stored pair, with its revision filled in.
pub(crate) fn decode(kind: &Kind, kv: &KeyValue) -> Result<Value, Status> {
    let mut object: Value = serde_json::from_slice(&kv.value).map_err(|e| {
        let key = String::from_utf8_lossy(&kv.key);
        Status::internal(format!("stored object {key} cannot be read: {e}"))
    })?;
    if let Some(custom) = &kind.custom {
        // Stored under an older schema, maybe.
        custom.complete_stored(&mut object);
    }
    kinds::event::from_stored(kind, &mut object);
    stamp(kind, &mut object, kv.mod_revision);
    Ok(object)
}

/// What is not stored but shown: kind and revision.
pub(crate) fn stamp(kind: &Kind, object: &mut Value, revision: Revision) {
    metadata_mut(object).insert("resourceVersion".to_owned(), revision.to_string().into());
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), kind.api_version().into());
        fields.insert("kind".to_owned(), kind.kind.into());
    }
}

/// How an error of the store travels (HTTP-1, FEN-31).
pub(crate) fn store_status(error: StoreError) -> Status {
    match error {
        StoreError::NoLeader { .. } | StoreError::NotLeader | StoreError::Busy => {
            Status::unavailable(error.to_string())
        }
        StoreError::Unknown { detail } => Status::timeout(&detail),
        StoreError::TooLarge { bytes_max, .. } => {
            Status::too_large(&format!("limit is {bytes_max}"))
        }
        StoreError::NotYet { requested, current } => {
            Status::too_large_resource_version(requested.get(), current.get())
        }
        StoreError::Stopped { .. } => Status::unavailable(error.to_string()),
    }
}

fn parse_revision(text: &str) -> Result<Revision, Status> {
    text.parse().map(Revision::new).map_err(|_| {
        Status::bad_request(format!("invalid resource version \"{text}\": must be a number"))
    })
}

impl Registry {
    /// Objects over `store`; `service_prefix` begins every Service's address.
    pub fn new(store: Arc<dyn Store>, clock: Clock, service_prefix: [u8; 2]) -> Self {
        Self {
            store,
            clock,
            client: rand::random(),
            sequence: Arc::default(),
            service_prefix,
            turns: quota::Turns::default(),
            definitions: Arc::default(),
            known: Arc::default(),
            classes: Arc::default(),
            root_ca: None,
        }
    }

    /// From now on Pods are given a token and this, as PEM: somebody signs tokens, and the API's
    /// certificates are held against it.
    #[must_use]
    pub(crate) fn with_root_ca(mut self, root_ca: Option<Arc<str>>) -> Self {
        self.root_ca = root_ca;
        self
    }

    /// What the API's certificates are held against, as PEM, where Pods are given tokens.
    pub(crate) fn root_ca(&self) -> Option<&str> {
        self.root_ca.as_deref()
    }

    /// The store behind it.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Which stored versions can be shown as they are.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    pub(crate) fn request_id(&self) -> RequestId {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        RequestId { client: self.client, sequence }
    }

    /// Seconds since the Unix epoch; never behind what has been applied already (§0.5).
    #[must_use]
    pub fn now(&self) -> i64 {
        let micros = (self.clock)().0.max(self.store.view().time().0);
        i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX)
    }

    /// Microseconds since the Unix epoch, by this machine's clock.
    pub(crate) fn now_micros(&self) -> i64 {
        i64::try_from((self.clock)().0).unwrap_or(i64::MAX)
    }

    /// Brings this replica up to what `resource_version` asks for (§2.6, FEN-36, FEN-37).
    async fn reach(&self, resource_version: &str) -> Result<(), Status> {
        match resource_version {
            "" => self.store.barrier(READ_DEADLINE).await.map(drop).map_err(store_status),
            "0" => Ok(()),
            text => {
                let revision = parse_revision(text)?;
                self.store.wait_for(revision, READ_DEADLINE).await.map_err(store_status)
            }
        }
    }

    /// One object.
    ///
    /// # Errors
    /// 404; 503 without a quorum.
    pub async fn get(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        resource_version: &str,
    ) -> Result<Value, Status> {
        self.reach(resource_version).await?;
        match self.store.view().get(key(kind, namespace, name).as_bytes()) {
            Some(kv) => decode(kind, &kv),
            None => Err(Status::not_found(kind, name)),
        }
    }
}

fn check_list(kind: &Kind, query: &ListQuery) -> Result<(), Status> {
    let refuse = |detail: String| {
        let path = api::field::Path::new("resourceVersionMatch");
        let error = api::field::FieldError::forbidden(&path, detail);
        Err(Status::invalid(kind, "", &[error]))
    };
    let matching = query.resource_version_match.as_str();
    if matching.is_empty() {
        return Ok(());
    }
    if !query.continue_token.is_empty() {
        return refuse("resourceVersionMatch is forbidden when continue is provided".to_owned());
    }
    if query.resource_version.is_empty() {
        let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        return refuse(detail.to_owned());
    }
    if matching == "Exact" && query.resource_version == "0" {
        let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
        return refuse(detail.to_owned());
    }
    Ok(())
}

/// What a token says instead of a revision to go on with the list as it is now (LST-3).
const LATEST: i64 = -1;

/// The token for the list at a revision from `start` on; without one, for the list as it is then.
fn write_token(revision: Option<Revision>, start: &str) -> String {
    let revision = revision.map_or_else(|| json!(LATEST), |revision| json!(revision.get()));
    let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start});
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token.to_string())
}

fn read_token(token: &str) -> Result<(Option<Revision>, String), Status> {
    let bad = || Status::bad_request("continue key is not valid");
    let bytes =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    let revision = match token.get("rv").ok_or_else(bad)? {
        latest if latest.as_i64() == Some(LATEST) => None,
        revision => Some(Revision::new(revision.as_u64().ok_or_else(bad)?)),
    };
    let start = token.get("start").and_then(Value::as_str).ok_or_else(bad)?;
    Ok((revision, start.to_owned()))
}
