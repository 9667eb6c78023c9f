//! Changes of objects that are there.

use super::{
    ATTEMPTS, Caller, Manager, Raced, SCALE, Written,
    address::removal,
    drop_empty, not_decodable, place,
    steps::{is_stored_as_now, put_text, text, unchanged},
};
use crate::registry::{Registry, WRITE_DEADLINE, decode, key, quota, stamp};
use access::node::Write;
use api::{
    deletion::is_released,
    field::{FieldError, Path},
    kinds::{self, Kind},
    meta::{self, child_mut, metadata_mut},
    status::Status,
};
use serde_json::{Value, json};
use store::Revision;
use tokio::time::Instant;

impl Registry {
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
            let (mut new, mut compares) = match admitted {
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
            let [new_text, old_text] = [&new, &old].map(|object| text(kind, object));
            let same = new_text == old_text && is_stored_as_now(kind, &kv);
            if same || caller.dry_run {
                if !is_current {
                    // What changes nothing here may take back what somebody else has changed meanwhile.
                    continue;
                }
                // Nothing to write: no revision, no event (CC-4).
                stamp(kind, &mut new, kv.mod_revision);
                return Ok(Written { object: new, created: false });
            }
            // Seen again, kept anew.
            let lease =
                if kind.is("Event") { self.lease_of(kind, caller).await? } else { kv.lease };
            let steps = if is_released(&new) {
                removal(kind, &key, &old)
            } else {
                vec![put_text(&key, new_text, lease)]
            };
            compares.extend(charge.compares.iter().cloned());
            let own_only = compares.len() == 1;
            compares.extend(self.still_defined(kind)?);
            let others = charge.steps.clone();
            match self.commit_with(caller, compares, steps, others).await? {
                Ok(revision) => {
                    stamp(kind, &mut new, revision);
                    return Ok(Written { object: new, created: false });
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
