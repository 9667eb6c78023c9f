//! Admission: what the namespace and the cluster make of an object before it is stored (DEF-2).
//!
//! What a decision looked at is compared again when it is applied, so that a replica that is behind
//! decides nothing by what is no longer so.

use super::{
    Registry, decode, key, prefix,
    write::{not_written_since, put},
};
use api::{
    kinds::{self, Kind},
    limits, meta, names, priority, service_account,
    status::Status,
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use store::{Compare, KeyRange, LeaseId, Revision, TxnOp, state::View};

/// What was looked at.
#[derive(Default)]
pub(super) struct Admitted {
    /// That it is still so.
    pub(super) compares: Vec<Compare>,
    /// Bounds for what becomes of the object.
    ranges: Vec<Value>,
}

fn row(group: &str, plural: &str) -> &'static Kind {
    kinds::by_resource(group, "v1", plural).expect("what admission looks at is served")
}

fn classes() -> &'static Kind {
    row("scheduling.k8s.io", "priorityclasses")
}

fn is_class(kind: &Kind) -> bool {
    std::ptr::eq(kind, classes())
}

/// Objects of a kind that seldom changes and that every Pod is held against, as they were last read.
#[derive(Debug, Default)]
pub(super) struct Classes {
    known: Mutex<Option<Read>>,
}

/// What was read, and of how many versions the newest of which is that one: with any write, one of the two is
/// another.
#[derive(Debug, Clone)]
struct Read {
    count: usize,
    newest: Revision,
    objects: Arc<[Value]>,
}

impl Classes {
    /// Everything of it, and that nothing of it has been written since.
    fn all(&self, view: &View) -> Result<(Arc<[Value]>, Compare), Status> {
        let kind = classes();
        let range = KeyRange::prefix(prefix(kind, ""));
        let (mut count, mut newest) = (0, Revision::ZERO);
        for kv in view.live(&range) {
            count += 1;
            newest = newest.max(kv.mod_revision);
        }
        let same = not_written_since(range.clone(), view.revision());
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known().clone().filter(|read| (read.count, read.newest) == (count, newest));
        if let Some(read) = found {
            return Ok((read.objects, same));
        }
        let objects: Result<Arc<[Value]>, Status> =
            view.live(&range).map(|kv| decode(kind, kv)).collect();
        let objects = objects?;
        *known() = Some(Read { count, newest, objects: Arc::clone(&objects) });
        Ok((objects, same))
    }
}

/// Everything of a kind, and that nothing of it has been written since.
fn all(view: &View, kind: &Kind, namespace: &str) -> Result<(Vec<Value>, Compare), Status> {
    let range = KeyRange::prefix(prefix(kind, namespace));
    let found: Result<Vec<Value>, Status> = view.live(&range).map(|kv| decode(kind, kv)).collect();
    Ok((found?, not_written_since(range, view.revision())))
}

impl Admitted {
    /// Whether the object, complete now, keeps to the bounds of its namespace.
    ///
    /// # Errors
    /// 403
    pub(super) fn check(&self, kind: &Kind, object: &Value) -> Result<(), Status> {
        limits::check(&self.ranges, kind, object)
            .map_err(|why| Status::forbidden(kind, meta::name(object), &why))
    }
}

impl Registry {
    /// Completes a new object that is in its place and has its defaults, by this replica's state. What is refused
    /// is left half done.
    ///
    /// # Errors
    /// 403 for what names something that is not there, or says what only the server says.
    pub(super) fn admit(&self, kind: &Kind, object: &mut Value) -> Result<Admitted, Status> {
        if kind.group.is_empty() && kind.kind == "Pod" {
            self.admit_pod(kind, object)
        } else if is_class(kind) {
            self.admit_class(kind, object)
        } else if kind.group.is_empty() && kind.kind == "PersistentVolumeClaim" {
            let view = self.store.view();
            let (ranges, same) = all(&view, row("", "limitranges"), meta::namespace(object))?;
            Ok(Admitted { compares: vec![same], ranges })
        } else {
            Ok(Admitted::default())
        }
    }

    fn admit_pod(&self, kind: &Kind, pod: &mut Value) -> Result<Admitted, Status> {
        let namespace = meta::namespace(pod).to_owned();
        let forbidden = |pod: &Value, why: &str| Status::forbidden(kind, meta::name(pod), why);
        let view = self.store.view();
        let (ranges, same_ranges) = all(&view, row("", "limitranges"), &namespace)?;
        limits::set_defaults(&ranges, pod);
        let account = service_account::name(pod);
        let accounts = row("", "serviceaccounts");
        let Some(found) = view.get(key(accounts, &namespace, &account).as_bytes()) else {
            return Err(forbidden(pod, &service_account::missing(&namespace, &account)));
        };
        let account = decode(accounts, &found)?;
        service_account::admit(pod, &account);
        if self.root_ca().is_some() {
            let suffix = names::generated_suffix(rand::random());
            service_account::mount_token(pod, &account, &suffix);
        }
        let (classes, same_classes) = self.classes.all(&view)?;
        priority::admit(pod, &classes).map_err(|why| forbidden(pod, &why))?;
        Ok(Admitted { compares: vec![same_ranges, same_classes], ranges })
    }

    fn admit_class(&self, kind: &Kind, class: &Value) -> Result<Admitted, Status> {
        let (classes, same) = all(&self.store.view(), kind, "")?;
        priority::check_class(class, &classes)
            .map_err(|why| Status::forbidden(kind, meta::name(class), &why))?;
        Ok(Admitted { compares: vec![same], ranges: Vec::new() })
    }

    /// Whether a change of an object is one that the cluster accepts; what must still be so.
    ///
    /// # Errors
    /// 403
    pub(super) fn admit_change(&self, kind: &Kind, new: &Value) -> Result<Vec<Compare>, Status> {
        if !is_class(kind) {
            return Ok(Vec::new());
        }
        self.admit_class(kind, new).map(|admitted| admitted.compares)
    }

    /// What is made together with an object: the account of a namespace's Pods and what they hold the API's
    /// certificates against (SA-1), so that nobody ever sees the one without the other.
    pub(super) fn companions(&self, kind: &Kind, object: &Value) -> Vec<(Compare, TxnOp)> {
        if kind.kind != "Namespace" || !kind.group.is_empty() {
            return Vec::new();
        }
        let namespace = meta::name(object);
        let account =
            json!({"metadata": {"name": service_account::DEFAULT, "namespace": namespace}});
        let map = self.root_ca().map(|pem| service_account::root_ca_map(namespace, pem));
        let of_kinds = [("serviceaccounts", Some(account)), ("configmaps", map)];
        let made = of_kinds.into_iter().filter_map(|(plural, object)| {
            let (kind, mut object) = (row("", plural), object?);
            self.new_metadata(kind, &mut object);
            let key = key(kind, namespace, meta::name(&object));
            // Left from a namespace of this name that was let go with what was in it.
            let left = self.store.view().get(key.as_bytes()).is_some();
            (!left).then(|| (super::write::absent(&key), put(&key, &object, LeaseId::NONE)))
        });
        made.collect()
    }
}
