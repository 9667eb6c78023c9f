//! New objects.

use super::{
    ATTEMPTS, Caller, Manager, Raced, Written, drop_empty, not_decodable, place,
    steps::{absent, put_object, unchanged},
};
use crate::registry::{Registry, WRITE_DEADLINE, key, stamp, stored::is_terminating};
use access::node::Write;
use api::{
    kinds::{self, Kind},
    meta::{self, metadata_mut},
    names,
    status::Status,
};
use serde_json::Value;
use store::{Compare, KeyValue, LeaseId, Revision};
use tokio::time::Instant;

/// How long an Event is kept after it was last seen, at least.
const EVENT_TTL_SECONDS: i64 = 3600;
const EVENT_STRETCH_SECONDS: i64 = 300;
/// Where the ids of the Events' leases begin: no node's lease comes near.
const EVENT_LEASES: i64 = 1 << 20;

/// What became of one try to create.
enum Tried {
    Made,
    /// Somebody else was first, at what a quota has left if it was charged.
    Raced {
        charged: bool,
    },
}

impl Registry {
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
    pub(super) async fn lease_of(&self, kind: &Kind, caller: &Caller) -> Result<LeaseId, Status> {
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
            let admitted = match self.admit(kind, &mut object) {
                // What it names was made through another replica a moment ago, perhaps.
                Err(_) if attempts == 0 => {
                    self.refresh().await?;
                    attempts = 1;
                    continue;
                }
                admitted => admitted?,
            };
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

    pub(in crate::registry) fn new_metadata(&self, kind: &Kind, object: &mut Value) {
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
}

fn generate_prefix(object: &Value) -> Option<String> {
    let prefix = object.pointer("/metadata/generateName").and_then(Value::as_str)?;
    (meta::name(object).is_empty() && !prefix.is_empty()).then(|| prefix.chars().take(58).collect())
}
