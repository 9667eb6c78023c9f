//! Objects that are applied, and scales: both are changes of what is there.

use super::{ATTEMPTS, Apply, Caller, Manager, SCALE, Written, place};
use crate::registry::{Registry, key};
use api::{
    kinds::Kind,
    meta::{self, metadata_mut},
    status::Status,
};
use serde_json::Value;

impl Registry {
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
}
