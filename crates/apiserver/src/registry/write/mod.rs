//! The writing verbs: decide on a read state, then compare-and-swap.

mod address;
mod apply;
mod bind;
mod change;
mod create;
mod delete;
mod steps;

pub(super) use steps::{absent, not_made_since, not_written_since, put, remove, unchanged};

use super::{Admission, Registry, WRITE_DEADLINE, Witness, key, store_status};
use access::node::Write;
use api::{
    caller::ControllerOrigin,
    kinds::Kind,
    meta::{self, metadata_mut},
    status::Status,
};
use serde_json::Value;
use std::sync::Arc;
use steps::compare;
use store::{
    Compare, CompareTarget, Epoch, KeyValue, LeaseId, Op, Origin, Outcome, Proposal, Rejection,
    Revision, Txn, TxnOp,
};

/// The subresource that sets how many replicas there should be.
const SCALE: &str = "scale";

/// Tries of a write that names no version, when others write the same object (CC-5).
pub(super) const ATTEMPTS: usize = 8;

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

/// The transaction found its compares false: somebody else was first.
pub(super) struct Raced;

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

pub(crate) fn not_decodable(kind: &Kind, error: &str) -> Status {
    Status::bad_request(format!(
        "{} in version \"{}\" cannot be handled as a {}: {error}",
        kind.kind, kind.version, kind.kind
    ))
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
