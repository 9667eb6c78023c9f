//! The RBAC objects and the Pods as this replica has them, made ready for decisions.
//!
//! Nothing runs beside the requests: who asks first after a change reads the changes since, and an object
//! is read once. So a decision is as new as this replica's state, without a task that could be late.

use crate::{
    node::pod_kind,
    registry::{Registry, prefix},
};
use access::{
    node::{Facts as _, Pods},
    rbac::{Objects, Policies},
};
use serde_json::Value;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::{EventKind, KeyRange, Revision, state::View};

/// Where the four RBAC kinds are.
const RBAC: &str = "/registry/rbac.authorization.k8s.io/";

/// Something that is made of the keys of a range, and up to which revision.
#[derive(Debug, Default)]
struct Followed<T> {
    known: Option<Revision>,
    value: T,
}

impl<T: Default> Followed<T> {
    /// Brings it up to date. `set` takes the rest of a key and its object, or `None` when that is gone;
    /// whether there was anything to take.
    fn catch_up(
        &mut self,
        view: &View,
        prefix: &str,
        mut set: impl FnMut(&mut T, &str, Option<&Value>),
    ) -> bool {
        let now = view.revision();
        // Somebody else may have been here with a newer state.
        if self.known.is_some_and(|known| known >= now) {
            return false;
        }
        let range = KeyRange::prefix(prefix.to_owned());
        let rest = |key: &[u8]| {
            let key = std::str::from_utf8(key).ok()?;
            key.strip_prefix(prefix).map(str::to_owned)
        };
        let mut changed = false;
        let since = self.known.filter(|known| *known > Revision::ZERO);
        match since.map(|known| view.changes_after(&range, known)) {
            Some(Ok(events)) => {
                for event in events {
                    let Some(key) = rest(&event.kv.key) else { continue };
                    let object = match event.kind {
                        EventKind::Put => serde_json::from_slice(&event.kv.value).ok(),
                        EventKind::Delete => None,
                    };
                    set(&mut self.value, &key, object.as_ref());
                    changed = true;
                }
            }
            // The first time, or the changes are no longer kept.
            Some(Err(_)) | None => {
                self.value = T::default();
                for kv in view.live(&range) {
                    let object = serde_json::from_slice(&kv.value).ok();
                    if let (Some(key), Some(object)) = (rest(&kv.key), object) {
                        set(&mut self.value, &key, Some(&object));
                    }
                }
                changed = true;
            }
        }
        self.known = Some(now);
        changed
    }
}

#[derive(Debug, Default)]
struct Rbac {
    objects: Followed<Objects>,
    policies: Arc<Policies>,
}

/// What decisions are taken from.
pub(crate) struct Facts {
    registry: Registry,
    rbac: Mutex<Rbac>,
    pods: Mutex<Followed<Pods>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plural, namespace and name of `roles/NS/NAME` or `clusterroles/NAME`.
fn placed(key: &str) -> Option<(&str, &str, &str)> {
    let (plural, rest) = key.split_once('/')?;
    match rest.split_once('/') {
        Some((namespace, name)) => Some((plural, namespace, name)),
        None => Some((plural, "", rest)),
    }
}

impl Facts {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry, rbac: Mutex::default(), pods: Mutex::default() }
    }

    fn rbac(&self) -> MutexGuard<'_, Rbac> {
        let mut rbac = lock(&self.rbac);
        let view = self.registry.store().view();
        let changed = rbac.objects.catch_up(&view, RBAC, |objects, key, object| {
            if let Some((plural, namespace, name)) = placed(key) {
                objects.set(plural, namespace, name, object);
            }
        });
        if changed {
            rbac.policies = Arc::new(Policies::compile(&rbac.objects.value));
        }
        rbac
    }

    /// Who may what by the RBAC objects.
    pub(crate) fn policies(&self) -> Arc<Policies> {
        Arc::clone(&self.rbac().policies)
    }

    /// Reads the RBAC objects themselves.
    pub(crate) fn objects<T>(&self, read: impl FnOnce(&Objects) -> T) -> T {
        read(&self.rbac().objects.value)
    }

    /// Reads who has which Pods, and what these name.
    pub(crate) fn pods<T>(&self, read: impl FnOnce(&Pods) -> T) -> T {
        let mut pods = lock(&self.pods);
        let view = self.registry.store().view();
        pods.catch_up(&view, &prefix(pod_kind(), ""), |pods, key, object| {
            if let Some((namespace, name)) = key.split_once('/') {
                pods.set(namespace, name, object);
            }
        });
        read(&pods.value)
    }

    /// Whether a Pod is on a node.
    pub(crate) fn is_on(&self, node: &str, namespace: &str, pod: &str) -> bool {
        self.pods(|pods| pods.has_pod(node, namespace, pod))
    }
}
