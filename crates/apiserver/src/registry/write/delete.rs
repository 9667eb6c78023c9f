//! Deletions.

use super::{
    ATTEMPTS, Caller, DeleteOutcome,
    address::removal,
    steps::{put_object, unchanged},
};
use crate::registry::{Registry, decode, key, stamp};
use access::node::Write;
use api::{
    custom::begin_removal,
    deletion::{DeleteDecision, DeleteOptions, begin_delete},
    kinds::Kind,
    status::Status,
};
use serde_json::Value;

impl Registry {
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
}
