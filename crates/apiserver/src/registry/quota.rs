//! Quotas: charged in the transaction that writes what they count, so that they are never overshot.
//!
//! Whatever grows in a namespace changes each quota that counts it, as it was seen, in the same transaction;
//! and there must be no quota that was not seen. So of any number of writers, through any replicas,
//! those go on that the quota has room for. (A write that was under way while a quota began to limit what it
//! makes is found by the next count.) What goes or ends is not charged: it is found by counting, when
//! something would not fit and when the controller asks for it.

use super::{
    Registry, decode, key, prefix,
    write::{not_made_since, put, unchanged},
};
use api::{
    kinds::{self, Kind},
    meta,
    quantity::{Format, Quantity},
    quota::Quota,
    resources::Quantities,
    status::Status,
};
use serde_json::Value;
use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};
use store::{Compare, KeyRange, KeyValue, Revision, TxnOp};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Namespaces whose turns are taken apart from each other, about.
const TURNS: usize = 64;

/// One writer at a time of a namespace's quotas on this replica: others would only lose the race.
#[derive(Clone)]
pub(super) struct Turns(Arc<Vec<Arc<Mutex<()>>>>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new((0..TURNS).map(|_| Arc::default()).collect()))
    }
}

impl Turns {
    async fn take(&self, namespace: &str) -> Option<OwnedMutexGuard<()>> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % TURNS as u64).ok()?;
        Some(Arc::clone(self.0.get(at)?).lock_owned().await)
    }
}

/// What a write costs.
#[derive(Default)]
pub(super) struct Charge {
    /// That the quotas are as they were seen.
    pub(super) compares: Vec<Compare>,
    /// The quotas with what is used then, each a transaction of its own (FEN-38).
    pub(super) steps: Vec<TxnOp>,
    /// Until the write is done.
    _turn: Option<OwnedMutexGuard<()>>,
}

/// The quotas of a namespace.
struct Seen {
    revision: Revision,
    quotas: Vec<(Arc<KeyValue>, Value, Quota)>,
}

fn row() -> &'static Kind {
    kinds::by_resource("", "v1", "resourcequotas").expect("ResourceQuota is served")
}

/// Whether this writes what a quota's status says: the server does, whatever its writer says.
pub(super) fn is_status(kind: &Kind, subresource: &str) -> bool {
    subresource == "status" && std::ptr::eq(kind, row())
}

/// Whether an update of this kind may take more than before.
pub(super) fn may_grow(kind: &Kind, old: &Value, new: &Value) -> bool {
    kind.group.is_empty()
        && matches!(kind.kind, "Pod" | "Service")
        && old.get("spec") != new.get("spec")
}

impl Registry {
    fn quotas(&self, namespace: &str) -> Result<Seen, Status> {
        let kind = row();
        let view = self.store.view();
        let range = KeyRange::prefix(prefix(kind, namespace));
        let read = |kv: &Arc<KeyValue>| {
            let object = decode(kind, kv)?;
            let quota = Quota::of(&object);
            Ok((Arc::clone(kv), object, quota))
        };
        let quotas: Result<Vec<_>, Status> = view.live(&range).map(read).collect();
        Ok(Seen { revision: view.revision(), quotas: quotas? })
    }

    /// What must be written together with `new`, which takes the place of `old`.
    ///
    /// # Errors
    /// 403 for what a quota has no room for.
    pub(super) async fn charge(
        &self,
        kind: &Kind,
        old: Option<&Value>,
        new: &Value,
    ) -> Result<Charge, Status> {
        if !kind.namespaced {
            return Ok(Charge::default());
        }
        let namespace = meta::namespace(new);
        let seen = self.quotas(namespace)?;
        let now = self.now();
        let mut growths = seen.quotas.iter().map(|(.., quota)| quota.growth(kind, old, new, now));
        if growths.all(|growth| growth.is_ok_and(|growth| growth.is_empty())) {
            return Ok(Charge { compares: vec![seen.is_all(namespace)], ..Charge::default() });
        }
        let turn = self.turns.take(namespace).await;
        if let Ok(charge) = self.try_charge(kind, old, new, false).await {
            return Ok(Charge { _turn: turn, ..charge });
        }
        // Nobody waits for those that are refused.
        drop(turn);
        // There may be room that this replica, or the quota itself, does not know of yet.
        self.linearize().await?;
        self.try_charge(kind, old, new, true).await
    }

    async fn try_charge(
        &self,
        kind: &Kind,
        old: Option<&Value>,
        new: &Value,
        recount: bool,
    ) -> Result<Charge, Status> {
        let namespace = meta::namespace(new);
        let forbidden = |why: String| Status::forbidden(kind, meta::name(new), &why);
        let seen = self.quotas(namespace)?;
        let mut charge = Charge { compares: vec![seen.is_all(namespace)], ..Charge::default() };
        for (kv, object, quota) in &seen.quotas {
            let growth = quota.growth(kind, old, new, self.now()).map_err(forbidden)?;
            if growth.is_empty() {
                continue;
            }
            let used = match quota.used().filter(|_| !recount) {
                Some(used) => used.clone(),
                None => self.count(quota, namespace).await?,
            };
            let used = quota.charged(&used, &growth).map_err(forbidden)?;
            let mut charged = object.clone();
            if let Some(fields) = charged.as_object_mut() {
                fields.insert("status".to_owned(), quota.status(&used));
            }
            let key = key(row(), namespace, quota.name());
            charge.compares.push(unchanged(&key, kv));
            charge.steps.push(put(&key, &charged, kv.lease));
        }
        Ok(charge)
    }

    /// Counts what a quota limits. Not before the quota was read: what has been written since changed the
    /// quota, so that nothing comes of a count that misses it.
    async fn count(&self, quota: &Quota, namespace: &str) -> Result<Quantities, Status> {
        let recount = quota.recount();
        let view = self.store.view();
        let mut total = Quantities::new();
        for (name, group, plural) in recount.numbers {
            let group = if group.is_empty() { group } else { format!("{group}/") };
            let range = KeyRange::prefix(format!("/registry/{group}{plural}/{namespace}/"));
            let count = i64::try_from(view.count(&range)).unwrap_or(i64::MAX);
            total.insert(name, Quantity::units(count, Format::Decimal));
        }
        let stored = recount.contents.into_iter().map(|kind| {
            let range = KeyRange::prefix(prefix(kind, namespace));
            (kind, view.live(&range).map(Arc::clone).collect::<Vec<_>>())
        });
        let stored: Vec<(&Kind, Vec<Arc<KeyValue>>)> = stored.collect();
        drop(view);
        let (quota, now) = (quota.clone(), self.now());
        // Thousands of Pods take longer to look at than others should wait.
        let counted = world::blocking(move || {
            for (kind, kvs) in stored {
                for kv in kvs {
                    quota.tally(kind, [&decode(kind, &kv)?], now, &mut total);
                }
            }
            Ok(total)
        });
        counted.await.map_err(Status::internal)?
    }

    /// The status of a quota, as it is now.
    ///
    /// # Errors
    /// An object cannot be read.
    pub(super) async fn quota_status(&self, object: &Value) -> Result<Value, Status> {
        let quota = Quota::of(object);
        let used = self.count(&quota, meta::namespace(object)).await?;
        Ok(quota.status(&used))
    }
}

impl Seen {
    fn is_all(&self, namespace: &str) -> Compare {
        // Not that none was written: what this write does not touch may be charged by others all the time.
        not_made_since(KeyRange::prefix(prefix(row(), namespace)), self.revision)
    }
}
