//! The writing verbs: decide on a read state, then compare-and-swap.

use super::{
    Admission, Registry, WRITE_DEADLINE, Witness, decode, key, quota, stamp, store_status,
    stored::is_terminating,
};
use access::node::Write;
use api::{
    caller::ControllerOrigin,
    custom::begin_removal,
    deletion::{DeleteDecision, DeleteOptions, begin_delete, is_released},
    field::{FieldError, Path},
    kinds::{self, Kind},
    meta::{self, child_mut, metadata_mut},
    names,
    status::Status,
};
use bytes::Bytes;
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{
    Compare, CompareOperator, CompareTarget, DeleteRange, Epoch, KeyRange, KeyValue, LeaseId, Op,
    Origin, Outcome, Proposal, Put, Rejection, Revision, Txn, TxnOp,
};
use tokio::time::Instant;

/// The subresource that sets how many replicas there should be.
const SCALE: &str = "scale";

/// Tries of a write that names no version, when others write the same object (CC-5).
pub(super) const ATTEMPTS: usize = 8;

/// How long an Event is kept after it was last seen, at least.
const EVENT_TTL_SECONDS: i64 = 3600;
const EVENT_STRETCH_SECONDS: i64 = 300;
/// Where the ids of the Events' leases begin: no node's lease comes near.
const EVENT_LEASES: i64 = 1 << 20;

/// Who writes, and how.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// Of the scheduler or a controller (FEN-5).
    pub origin: Option<ControllerOrigin>,
    /// Do everything but the write.
    pub dry_run: bool,
    /// Whose are the fields that it changes.
    pub manager: Manager,
    /// Of a node's session (FEN-30).
    pub fence: Option<Fence>,
    /// What is decided only by the objects.
    pub admission: Option<Admission>,
    /// Is told of each write.
    pub witness: Option<Arc<dyn Witness>>,
}

impl Caller {
    /// Whether the caller may, by what there is and what there would be.
    pub(super) fn admit(
        &self,
        kind: &Kind,
        subresource: &str,
        write: Write<'_>,
    ) -> Result<(), Status> {
        match &self.admission {
            Some(admission) => admission.check(kind, subresource, write),
            None => Ok(()),
        }
    }
}

/// What becomes of `metadata.managedFields` (PAT-3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Manager {
    /// As it was: what the scheduler, controllers and nodes write is nobody's.
    #[default]
    Nobody,
    /// What changes is this one's.
    Updates(String),
    /// As the object says that is written.
    Applied,
}

/// How an object is applied (PAT-3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apply {
    /// Who applies.
    pub manager: String,
    /// Takes over what others manage.
    pub force: bool,
}

/// A key that must still be as it was when the session began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The session's key.
    pub key: String,
    /// Its revision.
    pub revision: Revision,
}

/// What a write left.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// As stored, or as it would be.
    pub object: Value,
    /// Made by this write.
    pub created: bool,
}

/// What a delete left.
#[derive(Debug, Clone, PartialEq)]
pub enum DeleteOutcome {
    /// It is gone; its last form.
    Removed(Value),
    /// It is still there, on its way out.
    Terminating(Value),
}

fn compare(key: &str, target: CompareTarget) -> Compare {
    Compare {
        range: KeyRange::One(Bytes::copy_from_slice(key.as_bytes())),
        operator: CompareOperator::Equal,
        target,
    }
}

pub(super) fn unchanged(key: &str, kv: &KeyValue) -> Compare {
    compare(key, CompareTarget::ModRevision(kv.mod_revision))
}

pub(super) fn absent(key: &str) -> Compare {
    compare(key, CompareTarget::Version(0))
}

/// Nothing in the range was written after `revision`.
pub(super) fn not_written_since(range: KeyRange, revision: Revision) -> Compare {
    let target = CompareTarget::ModRevision(revision.next());
    Compare { range, operator: CompareOperator::Less, target }
}

pub(super) fn put(key: &str, object: &Value, lease: LeaseId) -> TxnOp {
    TxnOp::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: encode(object),
        lease,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    })
}

/// Of an object of a kind: a custom resource is stored in one of its versions, whichever it comes in.
fn put_object(kind: &Kind, key: &str, object: &Value, lease: LeaseId) -> TxnOp {
    let Some(custom) = &kind.custom else { return put(key, object, lease) };
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        let version = format!("{}/{}", kind.group, custom.storage_version);
        fields.insert("apiVersion".to_owned(), version.into());
    }
    put(key, &object, lease)
}

/// Whether a write of the same would store the same: not where the definition has another version stored
/// since, which such writes are for.
fn is_stored_as_now(kind: &Kind, kv: &KeyValue) -> bool {
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

pub(super) fn remove(key: &str) -> TxnOp {
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

/// Nothing in the range was made after `revision`.
pub(super) fn not_made_since(range: KeyRange, revision: Revision) -> Compare {
    let target = CompareTarget::CreateRevision(revision.next());
    Compare { range, operator: CompareOperator::Less, target }
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

/// The transaction found its compares false: somebody else was first.
pub(super) struct Raced;

/// What became of one try to create.
enum Tried {
    Made,
    /// Somebody else was first, at what a quota has left if it was charged.
    Raced {
        charged: bool,
    },
}

impl Registry {
    /// Proposes; the revision it took, or that it lost a race.
    pub(super) async fn commit(
        &self,
        caller: &Caller,
        compares: Vec<Compare>,
        success: Vec<TxnOp>,
    ) -> Result<Result<Revision, Raced>, Status> {
        self.commit_with(caller, compares, success, Vec::new()).await
    }

    /// The same with steps on other objects, all or nothing; each takes a revision of its own (FEN-38).
    async fn commit_with(
        &self,
        caller: &Caller,
        mut compares: Vec<Compare>,
        success: Vec<TxnOp>,
        others: Vec<TxnOp>,
    ) -> Result<Result<Revision, Raced>, Status> {
        if let Some(fence) = &caller.fence {
            compares.push(compare(&fence.key, CompareTarget::ModRevision(fence.revision)));
        }
        let origin = match &caller.origin {
            Some(ControllerOrigin { epoch }) => Origin::Controller { epoch: Epoch(*epoch) },
            None => Origin::Client,
        };
        let own = Txn { compare: compares, success, failure: Vec::new() };
        let op = if others.is_empty() {
            Op::Txn(own)
        } else {
            let others = others.into_iter().map(|step| vec![step]);
            let others = others.map(|success| Txn { success, ..Txn::default() });
            Op::Atomic(std::iter::once(own).chain(others).collect())
        };
        let proposal = Proposal { request: self.request_id(), origin, op };
        if let Some(witness) = &caller.witness {
            witness.proposes(self.store.view().revision());
        }
        let applied = self.store.propose(proposal, WRITE_DEADLINE).await.map_err(store_status)?;
        match applied.outcome {
            Ok(Outcome::Txn(result)) if result.succeeded => {
                if let Some(witness) = &caller.witness {
                    witness.committed(applied.revision);
                }
                Ok(Ok(applied.revision))
            }
            Ok(Outcome::Atomic(results)) => {
                let first = results.first().map_or(applied.revision, |(revision, _)| *revision);
                if let Some(witness) = &caller.witness {
                    witness.committed(first);
                }
                Ok(Ok(first))
            }
            Ok(_) | Err(Rejection::Precondition { .. }) => {
                if let Some(fence) = &caller.fence {
                    self.refresh().await?;
                    let now = self.store.view().get(fence.key.as_bytes()).map(|kv| kv.mod_revision);
                    if now != Some(fence.revision) {
                        let message = "another agent has taken over this node";
                        return Err(Status::new(403, "Forbidden", message));
                    }
                }
                Ok(Err(Raced))
            }
            Err(Rejection::Fenced { .. }) => Err(Status::new(
                409,
                "Conflict",
                "the deciding leader has been replaced; its decision has no effect",
            )),
            Err(Rejection::NoSpace) => {
                Err(Status::new(507, "InsufficientStorage", "the store's quota is used up"))
            }
            Err(rejection) => Err(Status::internal(rejection)),
        }
    }

    pub(super) fn stored(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<KeyValue, Status> {
        let key = key(kind, namespace, name);
        self.store.view().get(key.as_bytes()).ok_or_else(|| Status::not_found(kind, name))
    }

    /// Brings the state up to date before it is decided on: a write through a follower must not be
    /// refused for something that it has not seen yet.
    async fn refresh(&self) -> Result<(), Status> {
        self.store.barrier(super::READ_DEADLINE).await.map(drop).map_err(store_status)
    }

    /// Creates an object; `namespace` is the URL's.
    ///
    /// # Errors
    /// 400, 404 (no such namespace), 409 (taken), 422.
    pub async fn create(
        &self,
        kind: &Kind,
        namespace: &str,
        object: Value,
        caller: &Caller,
    ) -> Result<Written, Status> {
        let lease = self.lease_of(kind, caller).await?;
        self.create_with_lease(kind, namespace, object, caller, lease).await
    }

    /// Events go by themselves (EVT-1): those of one stretch of time hang on one lease, so that this
    /// costs the log one entry a stretch and not one an Event.
    async fn lease_of(&self, kind: &Kind, caller: &Caller) -> Result<LeaseId, Status> {
        if !kind.is("Event") || caller.dry_run {
            return Ok(LeaseId::NONE);
        }
        let lease = LeaseId(EVENT_LEASES + self.now() / EVENT_STRETCH_SECONDS);
        if self.store.view().lease(lease).is_none() {
            self.ensure_lease(lease, EVENT_TTL_SECONDS + EVENT_STRETCH_SECONDS).await?;
        }
        Ok(lease)
    }

    /// The same, with a key that goes when the lease does.
    ///
    /// # Errors
    /// As [`Registry::create`].
    pub async fn create_with_lease(
        &self,
        kind: &Kind,
        namespace: &str,
        mut object: Value,
        caller: &Caller,
        lease: LeaseId,
    ) -> Result<Written, Status> {
        place(kind, namespace, &mut object)?;
        if kind.custom.as_ref().is_some_and(|custom| custom.terminating) {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Status::new(405, "MethodNotAllowed", why));
        }
        if !meta::resource_version(&object).is_empty() {
            return Err(Status::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        kind.check_type(&object).map_err(|e| not_decodable(kind, &e))?;
        let generated = generate_prefix(&object);
        self.new_metadata(kind, &mut object);
        if caller.manager != Manager::Applied {
            metadata_mut(&mut object).remove("managedFields");
        }
        drop_empty(metadata_mut(&mut object));
        kind.set_defaults(&mut object);
        let asked = object;
        let until = Instant::now() + WRITE_DEADLINE;
        let mut attempts = 0;
        loop {
            let mut object = asked.clone();
            if let Some(prefix) = &generated {
                let name = format!("{prefix}{}", names::generated_suffix(rand::random()));
                metadata_mut(&mut object).insert("name".to_owned(), name.into());
            }
            let name = meta::name(&object).to_owned();
            let active = self.namespace_is_active(kind, namespace, &name, attempts).await?;
            let admitted = self.admit(kind, &mut object).await?;
            // Behind the name: what is made of it, such as a Job's labels, must follow it.
            kind.before_create(&mut object);
            let errors = kind.check_create(&object);
            if !errors.is_empty() {
                return Err(Status::invalid(kind, &name, &errors));
            }
            let decided = caller
                .admit(kind, "", Write::Create(&object))
                .and_then(|()| admitted.check(kind, &object));
            match decided {
                // As in `change`: not refused for what is no longer so.
                Err(_) if attempts == 0 => {
                    self.refresh().await?;
                    attempts = 1;
                    continue;
                }
                decided => decided?,
            }
            if let Manager::Updates(manager) = &caller.manager {
                let now = meta::time(self.now());
                object = schema::managed::track_update(kind, None, object, manager, &now, "");
            }
            let compares = active.into_iter().chain(admitted.compares).collect();
            attempts += 1;
            match self.try_create(kind, &mut object, caller, lease, compares).await {
                Ok(Tried::Made) => return Ok(Written { object, created: true }),
                Ok(Tried::Raced { charged }) => {
                    // Among many that share a quota, one goes on each time.
                    if attempts >= ATTEMPTS && (!charged || Instant::now() >= until) {
                        return Err(Status::modified(kind, &name));
                    }
                    self.refresh().await?;
                }
                // By a state that others have left behind already, perhaps.
                Err(Status { code: 409 | 422, .. }) if generated.is_none() && attempts == 1 => {
                    self.refresh().await?;
                }
                Err(status) if status.is_already_exists() && generated.is_some() => {
                    if attempts >= ATTEMPTS {
                        return Err(Status::no_unique_name(kind, &name));
                    }
                }
                Err(status) => return Err(status),
            }
        }
    }

    async fn try_create(
        &self,
        kind: &Kind,
        object: &mut Value,
        caller: &Caller,
        lease: LeaseId,
        mut compares: Vec<Compare>,
    ) -> Result<Tried, Status> {
        let (name, namespace) = (meta::name(object).to_owned(), meta::namespace(object).to_owned());
        let own = key(kind, &namespace, &name);
        compares.push(absent(&own));
        compares.extend(self.still_defined(kind)?);
        let mut steps = Vec::new();
        if kind.is("Service") {
            self.allocate_address(object, &mut compares, &mut steps)?;
        }
        for (compare, step) in self.companions(kind, object) {
            compares.push(compare);
            steps.push(step);
        }
        if let Some(old) = self.store.view().get(own.as_bytes()) {
            let terminating = is_terminating(kind, &old).unwrap_or_default();
            return Err(Status::already_exists(kind, &name, terminating));
        }
        let charge = self.charge(kind, None, object).await?;
        if caller.dry_run {
            stamp(kind, object, Revision::ZERO);
            metadata_mut(object).remove("resourceVersion");
            return Ok(Tried::Made);
        }
        compares.extend(charge.compares.iter().cloned());
        steps.push(put_object(kind, &own, object, lease));
        let others = charge.steps.clone();
        match self.commit_with(caller, compares, steps, others).await? {
            Ok(revision) => {
                stamp(kind, object, revision);
                Ok(Tried::Made)
            }
            Err(Raced) => Ok(Tried::Raced { charged: !charge.steps.is_empty() }),
        }
    }

    /// Holds at apply, not only now: no object is created in a namespace that is on its way out.
    async fn namespace_is_active(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        attempt: usize,
    ) -> Result<Option<Compare>, Status> {
        if !kind.namespaced {
            return Ok(None);
        }
        let namespaces = kinds::by_alias("namespaces").expect("Namespace is served");
        let key = key(namespaces, "", namespace);
        let takes_none = |kv: &KeyValue| is_terminating(namespaces, kv).unwrap_or_default();
        if attempt == 0 && self.store.view().get(key.as_bytes()).as_ref().is_none_or(takes_none) {
            self.refresh().await?;
        }
        let kv = self.stored(namespaces, "", namespace)?;
        if is_terminating(namespaces, &kv)? {
            return Err(Status::namespace_terminating(kind, name, namespace));
        }
        Ok(Some(unchanged(&key, &kv)))
    }

    pub(super) fn new_metadata(&self, kind: &Kind, object: &mut Value) {
        let now = meta::time(self.now());
        if kind.is("Event")
            && kind.group.is_empty()
            && let Some(fields) = object.as_object_mut()
        {
            // Those who have no clock of their own leave the times to the server.
            for field in ["firstTimestamp", "lastTimestamp"] {
                fields.entry(field).or_insert_with(|| now.clone().into());
            }
        }
        let metadata = metadata_mut(object);
        for owned in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            metadata.remove(owned);
        }
        metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
        metadata.insert("creationTimestamp".to_owned(), now.into());
        metadata.remove("generation");
        if kind.has_generation {
            metadata.insert("generation".to_owned(), 1.into());
        }
    }

    /// Gives a Service an address of its own, held by a key of its own so that two never share one.
    fn allocate_address(
        &self,
        service: &mut Value,
        compares: &mut Vec<Compare>,
        steps: &mut Vec<TxnOp>,
    ) -> Result<(), Status> {
        let owner = format!("{}/{}", meta::namespace(service), meta::name(service));
        let text = |pointer: &str| {
            service.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let asked = text("/spec/clusterIP");
        if asked == "None" || text("/spec/type") == "ExternalName" {
            return Ok(());
        }
        let [a, b] = self.service_prefix;
        let view = self.store.view();
        let taken = |ip: &str| view.get(address_key(ip).as_bytes()).is_some();
        let ip = if asked.is_empty() {
            let first: u16 = rand::random();
            (0..u16::MAX)
                .map(|i| first.wrapping_add(i))
                .filter(|n| *n > 10 && *n != u16::MAX)
                .map(|n| format!("{a}.{b}.{}.{}", n >> 8, n & 255))
                .find(|ip| !taken(ip))
                .ok_or_else(|| Status::internal("no Service address is free"))?
        } else {
            let path = Path::new("spec").child("clusterIPs").index(0);
            if asked.parse::<std::net::Ipv4Addr>().is_err() || taken(&asked) {
                let kind = kinds::by_alias("services").expect("Service is served");
                let detail = if taken(&asked) {
                    "failed to allocate IP: provided IP is already allocated"
                } else {
                    "must be a valid IPv4 address"
                };
                let error = FieldError::invalid(&path, json!([asked]), detail);
                return Err(Status::invalid(kind, meta::name(service), &[error]));
            }
            asked
        };
        let spec = child_mut(service, "spec");
        spec.insert("clusterIP".to_owned(), ip.clone().into());
        spec.insert("clusterIPs".to_owned(), json!([ip]));
        spec.insert("ipFamilies".to_owned(), json!(["IPv4"]));
        spec.insert("ipFamilyPolicy".to_owned(), "SingleStack".into());
        compares.push(absent(&address_key(&ip)));
        steps.push(put(&address_key(&ip), &json!({"service": owner}), LeaseId::NONE));
        Ok(())
    }

    /// Replaces an object, or its `status` with that subresource.
    ///
    /// # Errors
    /// 404, 409 (another version), 422.
    pub async fn update(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        mut object: Value,
        subresource: &str,
        caller: &Caller,
    ) -> Result<Written, Status> {
        place(kind, namespace, &mut object)?;
        if meta::name(&object) != name {
            return Err(Status::other_name(meta::name(&object), name));
        }
        if kind.create_on_update {
            let key = key(kind, namespace, name);
            let is_missing = || self.store.view().get(key.as_bytes()).is_none();
            if is_missing() {
                self.refresh().await?;
            }
            if is_missing() {
                metadata_mut(&mut object).remove("resourceVersion");
                return self.create(kind, namespace, object, caller).await;
            }
        }
        if !kind.unconditional_update && meta::resource_version(&object).is_empty() {
            // CC-2
            let path = Path::new("metadata").child("resourceVersion");
            let error = FieldError::invalid(&path, 0, "must be specified for an update");
            return Err(Status::invalid(kind, name, &[error]));
        }
        self.change(kind, namespace, name, subresource, caller, |_| Ok(object.clone())).await
    }

    /// Reads, changes and writes an object; again when somebody else wrote it meanwhile, unless
    /// `change` names the version it is for.
    ///
    /// # Errors
    /// 404, 409, 422, and whatever `change` refuses with.
    pub async fn change(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        subresource: &str,
        caller: &Caller,
        change: impl Fn(&Value) -> Result<Value, Status> + Send + Sync,
    ) -> Result<Written, Status> {
        let key = key(kind, namespace, name);
        let until = Instant::now() + WRITE_DEADLINE;
        let mut charged = false;
        for attempt in 0.. {
            if attempt >= ATTEMPTS && (!charged || Instant::now() >= until) {
                break;
            }
            let is_current = attempt > 0 || self.store.view().get(key.as_bytes()).is_none();
            if is_current {
                self.refresh().await?;
            }
            let kv = self.stored(kind, namespace, name)?;
            let old = decode(kind, &kv)?;
            let mut new = match change(&old) {
                Ok(new) => new,
                // Asked about a state that others have left behind already, perhaps.
                Err(_) if !is_current => continue,
                Err(status) => return Err(status),
            };
            if quota::is_status(kind, subresource)
                && let Some(fields) = new.as_object_mut()
            {
                fields.insert("status".to_owned(), self.quota_status(&old).await?);
            }
            let version = meta::resource_version(&new).to_owned();
            if !version.is_empty() && version != meta::resource_version(&old) {
                if !is_current {
                    // Written through another replica a moment ago.
                    continue;
                }
                return Err(Status::modified(kind, name));
            }
            let uid = meta::uid(&new);
            if !uid.is_empty() && uid != meta::uid(&old) {
                if !is_current {
                    continue;
                }
                let found = meta::uid(&old);
                let detail = format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {found}"
                );
                return Err(Status::conflict(kind, name, &detail));
            }
            let prepared = self.prepare(kind, new, &old, subresource, &caller.manager);
            let admitted = prepared.and_then(|new| {
                caller.admit(kind, subresource, Write::Update { old: &old, new: &new })?;
                let compares = self.admit_change(kind, &new)?;
                Ok((new, compares))
            });
            let (new, mut compares) = match admitted {
                Ok(admitted) => admitted,
                Err(_) if !is_current => continue,
                Err(status) => return Err(status),
            };
            compares.push(unchanged(&key, &kv));
            let charge = if subresource != "status" && quota::may_grow(kind, &old, &new) {
                match self.charge(kind, Some(&old), &new).await {
                    // What it grows by is told by what was there.
                    Err(_) if !is_current => continue,
                    charge => charge?,
                }
            } else {
                quota::Charge::default()
            };
            charged = !charge.steps.is_empty();
            let mut shown = new.clone();
            stamp(kind, &mut shown, kv.mod_revision);
            let same = encode(&new) == encode(&old) && is_stored_as_now(kind, &kv);
            if same || caller.dry_run {
                if !is_current {
                    // What changes nothing here may take back what somebody else has changed meanwhile.
                    continue;
                }
                // Nothing to write: no revision, no event (CC-4).
                return Ok(Written { object: shown, created: false });
            }
            // Seen again, kept anew.
            let lease =
                if kind.is("Event") { self.lease_of(kind, caller).await? } else { kv.lease };
            let steps = if is_released(&new) {
                removal(kind, &key, &old)
            } else {
                vec![put_object(kind, &key, &new, lease)]
            };
            compares.extend(charge.compares.iter().cloned());
            let own_only = compares.len() == 1;
            compares.extend(self.still_defined(kind)?);
            let others = charge.steps.clone();
            match self.commit_with(caller, compares, steps, others).await? {
                Ok(revision) => {
                    stamp(kind, &mut shown, revision);
                    return Ok(Written { object: shown, created: false });
                }
                // Whether it was this object is seen by its version; a definition, the next time round.
                Err(Raced) if version.is_empty() || !own_only || kind.custom.is_some() => {}
                Err(Raced) => return Err(Status::modified(kind, name)),
            }
        }
        Err(Status::modified(kind, name))
    }

    /// The new object as it would be stored: what the caller may not change is as before (UPD-1).
    fn prepare(
        &self,
        kind: &Kind,
        mut new: Value,
        old: &Value,
        subresource: &str,
        manager: &Manager,
    ) -> Result<Value, Status> {
        kind.check_type(&new).map_err(|e| not_decodable(kind, &e))?;
        let metadata = metadata_mut(&mut new);
        for owned in [
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generateName",
        ] {
            match old.pointer(&format!("/metadata/{owned}")) {
                Some(value) => drop(metadata.insert(owned.to_owned(), value.clone())),
                None => drop(metadata.remove(owned)),
            }
        }
        let managed = metadata.remove("managedFields");
        drop_empty(metadata);
        stamp_times(kind, &mut new, old, self.now());
        let errors = if subresource == "finalize" {
            // Nothing but what the namespace waits for (NS-1).
            let finalizers = new.pointer("/spec/finalizers").cloned().unwrap_or(json!([]));
            new = old.clone();
            child_mut(&mut new, "spec").insert("finalizers".to_owned(), finalizers);
            Vec::new()
        } else if subresource == kinds::EPHEMERAL_CONTAINERS {
            kinds::prepare_ephemeral(&mut new, old);
            kinds::validate_ephemeral(&new, old)
        } else if subresource == "status" {
            kind.before_status(&mut new, old);
            kind.check_status(&new, old)
        } else {
            kind.set_defaults(&mut new);
            kind.before_update(&mut new, old);
            kind.check_update(&new, old)
        };
        if !errors.is_empty() {
            return Err(Status::invalid(kind, meta::name(old), &errors));
        }
        if kind.has_generation
            && matches!(subresource, "" | SCALE | kinds::EPHEMERAL_CONTAINERS)
            && (kind.generation_counts)(&new, old)
            && let Some(generation) = old.pointer("/metadata/generation").and_then(Value::as_i64)
        {
            metadata_mut(&mut new).insert("generation".to_owned(), (generation + 1).into());
        }
        let before = old.pointer("/metadata/managedFields");
        let given = match manager {
            Manager::Nobody => before,
            Manager::Updates(_) | Manager::Applied => managed.as_ref(),
        };
        match given {
            Some(given) => metadata_mut(&mut new).insert("managedFields".to_owned(), given.clone()),
            None => metadata_mut(&mut new).remove("managedFields"),
        };
        if let Manager::Updates(manager) = manager {
            let now = meta::time(self.now());
            new = schema::managed::track_update(kind, Some(old), new, manager, &now, subresource);
        }
        if let (Manager::Applied, Some(before)) = (manager, before)
            && differ_in_times_only(&new, old)
        {
            metadata_mut(&mut new).insert("managedFields".to_owned(), before.clone());
        }
        stamp(kind, &mut new, Revision::ZERO);
        Ok(new)
    }

    /// Makes the object, or what there is of it, as `applied` says (PAT-3).
    ///
    /// # Errors
    /// 409 when others manage what would change, unless it is forced; as [`Registry::create`] and
    /// [`Registry::change`].
    pub async fn apply(
        &self,
        kind: &Kind,
        (namespace, name): (&str, &str),
        mut applied: Value,
        subresource: &str,
        apply: &Apply,
        caller: &Caller,
    ) -> Result<Written, Status> {
        place(kind, namespace, &mut applied)?;
        let own = meta::name(&applied);
        if own.is_empty() {
            metadata_mut(&mut applied).insert("name".to_owned(), name.into());
        } else if own != name {
            return Err(Status::other_name(own, name));
        }
        let merge = |live: Option<&Value>| {
            let now = meta::time(self.now());
            let Apply { manager, force } = apply;
            schema::managed::apply(kind, live, &applied, manager, *force, &now, subresource)
                .map_err(|error| error.status())
        };
        let caller = Caller { manager: Manager::Applied, ..caller.clone() };
        let key = key(kind, namespace, name);
        for _ in 0..ATTEMPTS {
            if self.store.view().get(key.as_bytes()).is_none() {
                self.refresh().await?;
            }
            let written = if self.store.view().get(key.as_bytes()).is_some() {
                let change = |old: &Value| {
                    let asked = meta::resource_version(&applied);
                    let mut merged = merge(Some(&meta::without_version(old)))?;
                    if !asked.is_empty() {
                        metadata_mut(&mut merged)
                            .insert("resourceVersion".to_owned(), asked.into());
                    }
                    Ok(merged)
                };
                self.change(kind, namespace, name, subresource, &caller, change).await
            } else if subresource.is_empty() {
                self.create(kind, namespace, merge(None)?, &caller).await
            } else {
                return Err(Status::not_found(kind, name));
            };
            match written {
                // Made or deleted by somebody else in between. A namespace that is not there, however, will
                // not be there either.
                Err(status) if status.is_already_exists() => {}
                Err(status)
                    if status.is_not_found()
                        && subresource.is_empty()
                        && status.details.get("kind").is_some_and(|k| k == kind.plural) => {}
                written => return written,
            }
        }
        Err(Status::modified(kind, name))
    }

    /// Sets how many replicas an object should have, by what `change` makes of its `Scale`.
    ///
    /// # Errors
    /// 404 for what does not scale; as [`Registry::change`].
    pub async fn scale(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        caller: &Caller,
        change: impl Fn(Value) -> Result<Value, Status> + Send + Sync,
    ) -> Result<Written, Status> {
        let resize = |old: &Value| {
            let base = meta::without_version(old);
            let shown = api::scale::get(kind, &base).ok_or_else(Status::no_such_path)?;
            api::scale::set(kind, &base, &change(shown)?)
        };
        self.change(kind, namespace, name, SCALE, caller, resize).await
    }

    /// Deletes an object, or begins to (DELAPI-1, 2).
    ///
    /// # Errors
    /// 404; 409 when a precondition does not hold.
    pub async fn delete(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
        caller: &Caller,
    ) -> Result<DeleteOutcome, Status> {
        self.delete_if(kind, namespace, name, options, caller, |_| Ok(())).await
    }

    /// The same, if `check` accepts the object as it is.
    ///
    /// # Errors
    /// As [`Registry::delete`], and whatever `check` refuses with.
    pub async fn delete_if(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
        caller: &Caller,
        check: impl Fn(&Value) -> Result<(), Status> + Send + Sync,
    ) -> Result<DeleteOutcome, Status> {
        let key = key(kind, namespace, name);
        for attempt in 0..ATTEMPTS {
            let is_current = attempt > 0 || self.store.view().get(key.as_bytes()).is_none();
            if is_current {
                self.refresh().await?;
            }
            let kv = self.stored(kind, namespace, name)?;
            let mut old = decode(kind, &kv)?;
            if kind.is("Namespace") && ["default", "kube-system", "kube-public"].contains(&name) {
                return Err(Status::forbidden(kind, name, "this namespace may not be deleted"));
            }
            let dry_run = caller.dry_run || options.dry_run;
            let decided = check(&old).and_then(|()| {
                caller.admit(kind, "", Write::Delete(&old))?;
                if kind.is("CustomResourceDefinition") {
                    begin_removal(&mut old, self.now());
                }
                begin_delete(kind, &old, options, self.now())
            });
            let decision = match decided {
                // As in `change`: neither refused nor left alone for what is no longer so.
                Err(_) | Ok(DeleteDecision::Unchanged) if !is_current => continue,
                Ok(_) if !is_current && dry_run => continue,
                decided => decided?,
            };
            let compares = vec![unchanged(&key, &kv)];
            let (steps, mut left) = match decision {
                DeleteDecision::Unchanged => return Ok(DeleteOutcome::Terminating(old)),
                DeleteDecision::Remove => (removal(kind, &key, &old), None),
                DeleteDecision::Store(marked) => {
                    (vec![put_object(kind, &key, &marked, kv.lease)], Some(marked))
                }
            };
            if dry_run {
                return Ok(left.map_or(DeleteOutcome::Removed(old), DeleteOutcome::Terminating));
            }
            if let Ok(revision) = self.commit(caller, compares, steps).await? {
                return Ok(match &mut left {
                    Some(marked) => {
                        stamp(kind, marked, revision);
                        DeleteOutcome::Terminating(std::mem::take(marked))
                    }
                    None => {
                        stamp(kind, &mut old, revision);
                        DeleteOutcome::Removed(old)
                    }
                });
            }
        }
        Err(Status::modified(kind, name))
    }

    /// Gives a Pod to a node: the Pod as it was read, unbound, and the node still there (FEN-11).
    ///
    /// # Errors
    /// 404 and 409 by the checks of SUB-2.
    pub async fn bind(
        &self,
        namespace: &str,
        name: &str,
        binding: &Value,
        caller: &Caller,
    ) -> Result<(), Status> {
        let pods = kinds::by_alias("pods").expect("Pod is served");
        let nodes = kinds::by_alias("nodes").expect("Node is served");
        let node = binding.pointer("/target/name").and_then(Value::as_str).unwrap_or_default();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                self.refresh().await?;
            }
            let decided = self.stored(pods, namespace, name).and_then(|kv| {
                let bound = api::binding::bind(&decode(pods, &kv)?, binding, self.now())?;
                Ok((kv, bound, self.stored(nodes, "", node)?))
            });
            let (kv, bound, target) = match decided {
                // As in `change`: not refused for what is no longer so.
                Err(_) if attempt == 0 => continue,
                decided => decided?,
            };
            let (pod_key, node_key) = (key(pods, namespace, name), key(nodes, "", node));
            let compares = vec![
                unchanged(&pod_key, &kv),
                // The same Node object, not a namesake that was made since.
                compare(&node_key, CompareTarget::CreateRevision(target.create_revision)),
            ];
            let steps = vec![put(&pod_key, &bound, kv.lease)];
            if caller.dry_run || self.commit(caller, compares, steps).await?.is_ok() {
                return Ok(());
            }
        }
        Err(Status::modified(pods, name))
    }
}

impl Registry {
    /// Writes a key that is no object, if it is as `old` was.
    ///
    /// # Errors
    /// As the store's; `Ok(None)` when somebody else was first.
    pub(crate) async fn put_raw(
        &self,
        key: &str,
        old: Option<Revision>,
        value: &Value,
    ) -> Result<Option<Revision>, Status> {
        let target = match old {
            Some(revision) => compare(key, CompareTarget::ModRevision(revision)),
            None => absent(key),
        };
        let step = put(key, value, LeaseId::NONE);
        Ok(self.commit(&Caller::default(), vec![target], vec![step]).await?.ok())
    }

    /// Brings this replica's state up to date.
    ///
    /// # Errors
    /// 503 without a quorum.
    pub(crate) async fn linearize(&self) -> Result<(), Status> {
        self.refresh().await
    }

    /// Makes a lease if it is not there.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) async fn ensure_lease(&self, id: LeaseId, ttl_seconds: i64) -> Result<(), Status> {
        let proposal = Proposal {
            request: self.request_id(),
            origin: Origin::Client,
            op: Op::LeaseGrant { id, ttl_seconds },
        };
        let applied = self.store.propose(proposal, WRITE_DEADLINE).await.map_err(store_status)?;
        match applied.outcome {
            Ok(_) | Err(Rejection::LeaseExists) => Ok(()),
            Err(rejection) => Err(Status::internal(rejection)),
        }
    }
}

/// What goes with an object: a Service's address, too.
fn removal(kind: &Kind, key: &str, object: &Value) -> Vec<TxnOp> {
    let mut steps = vec![remove(key)];
    let ip = object.pointer("/spec/clusterIP").and_then(Value::as_str);
    if let (true, Some(ip)) = (kind.is("Service"), ip) {
        steps.push(remove(&address_key(ip)));
    }
    steps
}

/// Lists and maps of metadata that hold nothing are not there, as for every client.
fn drop_empty(metadata: &mut serde_json::Map<String, Value>) {
    for field in ["annotations", "labels", "finalizers", "ownerReferences"] {
        let empty = match metadata.get(field) {
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(value) => value.is_null(),
            None => false,
        };
        if empty {
            metadata.remove(field);
        }
    }
}

/// Whether two objects differ in nothing but when their managers wrote (CC-4).
fn differ_in_times_only(new: &Value, old: &Value) -> bool {
    let [new, old] = [new, old].map(|object| {
        let mut object = meta::without_version(object);
        let managers =
            metadata_mut(&mut object).get_mut("managedFields").and_then(Value::as_array_mut);
        for manager in managers.into_iter().flatten().filter_map(Value::as_object_mut) {
            manager.remove("time");
        }
        object
    });
    new == old
}

fn address_key(ip: &str) -> String {
    format!("/trireme/serviceips/{ip}")
}

/// Fills in the times that the scheduler and the controllers, who have no clock, leave out: of
/// conditions whose status changes (CND-1), of taints that evict, of an Event that is seen again.
fn stamp_times(kind: &Kind, new: &mut Value, old: &Value, now: i64) {
    let now = Value::from(meta::time(now));
    let same = |fields: &[&str], a: &Value, b: &Value| fields.iter().all(|f| a.get(f) == b.get(f));
    // The time of the item that was there before and is equal in `fields`, or now.
    let mut stamp = |list: &str, time: &str, fields: &[&str], needs: &dyn Fn(&Value) -> bool| {
        let old = old.pointer(list).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for item in new.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if !needs(item) || item.get(time).is_some_and(|time| !time.is_null()) {
                continue;
            }
            let before = old.iter().find(|old| same(fields, old, item));
            let at = before.and_then(|old| old.get(time)).unwrap_or(&now).clone();
            if let Some(item) = item.as_object_mut() {
                item.insert(time.to_owned(), at);
            }
        }
    };
    if ["Pod", "Node", "Namespace", "CustomResourceDefinition"].iter().any(|name| kind.is(name)) {
        stamp("/status/conditions", "lastTransitionTime", &["type", "status"], &|_| true);
    }
    if kind.is("Node") {
        let evicts = |taint: &Value| taint.get("effect") == Some(&json!("NoExecute"));
        stamp("/spec/taints", "timeAdded", &["key", "effect"], &evicts);
    }
    if kind.is("Event")
        && kind.group.is_empty()
        && let Some(event) = new.as_object_mut()
    {
        event.entry("lastTimestamp").or_insert(now);
    }
}

pub(crate) fn not_decodable(kind: &Kind, error: &str) -> Status {
    Status::bad_request(format!(
        "{} in version \"{}\" cannot be handled as a {}: {error}",
        kind.kind, kind.version, kind.kind
    ))
}

fn generate_prefix(object: &Value) -> Option<String> {
    let prefix = object.pointer("/metadata/generateName").and_then(Value::as_str)?;
    (meta::name(object).is_empty() && !prefix.is_empty()).then(|| prefix.chars().take(58).collect())
}

/// Whether an object says nothing else of its namespace than the URL does (MET-3).
pub(super) fn is_in(namespace: &str, object: &Value) -> Result<(), Status> {
    let own = meta::namespace(object);
    if own.is_empty() || own == namespace {
        return Ok(());
    }
    Err(Status::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    ))
}

/// Puts an object where the URL says (MET-3).
fn place(kind: &Kind, namespace: &str, object: &mut Value) -> Result<(), Status> {
    if !object.is_object() {
        return Err(Status::bad_request("the body is not an object"));
    }
    for (field, want) in [("kind", kind.kind.to_owned()), ("apiVersion", kind.api_version())] {
        let found = object.get(field).and_then(Value::as_str).unwrap_or_default();
        if !found.is_empty() && found != want {
            return Err(Status::bad_request(format!(
                "{field} is {found:?}, but the URL is for {want:?}"
            )));
        }
    }
    if kind.namespaced {
        is_in(namespace, object)?;
    }
    if let Some(fields) = object.as_object_mut() {
        fields.insert("kind".to_owned(), kind.kind.into());
        fields.insert("apiVersion".to_owned(), kind.api_version().into());
    }
    let metadata = metadata_mut(object);
    if kind.namespaced {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    Ok(())
}
