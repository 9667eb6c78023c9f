//! The default roles and bindings, made and brought up to date by the leader, and what aggregating roles
//! gather, written into them for whoever reads them.

use super::Guard;
use crate::registry::{Caller, prefix};
use access::defaults;
use api::{
    caller::ControllerOrigin,
    kinds::{self, Kind},
    meta,
    status::Status,
};
use serde_json::{Value, json};
use std::time::Duration;
use store::{
    Epoch, KeyRange, Revision,
    watch::{WatchMessage, WatchRequest},
};

/// Before another try.
const RETRY: Duration = Duration::from_secs(1);

fn kind(plural: &str) -> &'static Kind {
    kinds::by_alias(plural).expect("the RBAC kinds are served")
}

impl Guard {
    /// Makes what is not there, and brings the rest up to date.
    ///
    /// # Errors
    /// The store does not take them.
    pub(crate) async fn ensure_defaults(&self, caller: &Caller) -> Result<(), Status> {
        self.registry.linearize().await?;
        let roles = defaults::cluster_roles().map(|object| (kind("clusterroles"), object));
        let bindings =
            defaults::cluster_role_bindings().map(|object| (kind("clusterrolebindings"), object));
        // All at once: a new cluster is no use before they are there.
        let all = roles.chain(bindings);
        let each = all.map(|(kind, default)| self.ensure(kind, default, caller));
        futures::future::try_join_all(each).await.map(drop)
    }

    async fn ensure(&self, kind: &Kind, default: Value, caller: &Caller) -> Result<(), Status> {
        let name = meta::name(&default).to_owned();
        match self.registry.get(kind, "", &name, "0").await {
            Err(status) if status.is_not_found() => {
                match self.registry.create(kind, "", default, caller).await {
                    Err(status) if status.is_already_exists() => Ok(()),
                    made => made.map(drop),
                }
            }
            Err(status) => Err(status),
            Ok(found) if defaults::reconciled(&default, &found).is_none() => Ok(()),
            Ok(_) => {
                let change = |old: &Value| {
                    let new = defaults::reconciled(&default, old);
                    Ok(meta::without_version(new.as_ref().unwrap_or(old)))
                };
                self.registry.change(kind, "", &name, "", caller, change).await.map(drop)
            }
        }
    }

    /// Writes into aggregating roles what they gather.
    async fn gather(&self, caller: &Caller) -> Result<(), Status> {
        for (name, rules) in self.facts.objects(access::rbac::Objects::unaggregated) {
            let change = |old: &Value| {
                let mut new = meta::without_version(old);
                if let Some(fields) = new.as_object_mut() {
                    fields.insert("rules".to_owned(), json!(rules));
                }
                Ok(new)
            };
            match self.registry.change(kind("clusterroles"), "", &name, "", caller, change).await {
                Err(status) if status.is_not_found() => {}
                written => drop(written?),
            }
        }
        Ok(())
    }

    /// Keeps both as they should be while this replica leads in `epoch`; runs until it is dropped.
    pub(crate) async fn keep(&self, epoch: Epoch) {
        let caller =
            Caller { origin: Some(ControllerOrigin { epoch: epoch.0 }), ..Caller::default() };
        while let Err(error) = self.ensure_defaults(&caller).await {
            tracing::warn!(%error, "the default roles are not there yet");
            tokio::time::sleep(RETRY).await;
        }
        let range = KeyRange::prefix(prefix(kind("clusterroles"), ""));
        loop {
            // It begins before they are read: no change falls between.
            let request = WatchRequest { range: range.clone(), start: Revision::ZERO };
            let Ok(mut watcher) = self.registry.store().watch(request) else {
                // The store has stopped; whoever waits for this ends it.
                return std::future::pending().await;
            };
            loop {
                while let Err(error) = self.gather(&caller).await {
                    tracing::warn!(%error, "aggregated roles are not up to date");
                    tokio::time::sleep(RETRY).await;
                }
                match watcher.next().await {
                    Some(WatchMessage::Events(_)) => {}
                    Some(WatchMessage::Canceled { .. }) | None => break,
                }
            }
        }
    }
}
