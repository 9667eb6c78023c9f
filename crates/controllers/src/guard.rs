//! Nobody decides on a copy that has not seen the last decision (CTL-3, EPS-7).

use api::{
    core::ObjectMeta,
    k8s_openapi::{Metadata, Resource},
    status::Status,
};
use client::{
    ClientError,
    informer::{Informer, Key},
};
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::timeout;

/// For a copy to come up; then the key waits its turn again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The revision of the last write for each key.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    written: Mutex<BTreeMap<Key, u64>>,
}

impl Guard {
    fn written(&self) -> MutexGuard<'_, BTreeMap<Key, u64>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a write answered with.
    pub(crate) fn wrote(&self, key: &Key, metadata: &ObjectMeta) {
        let revision: Option<u64> =
            metadata.resource_version.as_deref().and_then(|v| v.parse().ok());
        let mut written = self.written();
        let last = written.entry(key.clone()).or_default();
        *last = revision.unwrap_or_default().max(*last);
    }

    /// Returns once the copy holds what was last written for the key.
    ///
    /// # Errors
    /// It does not come up: nothing is to be done now.
    pub(crate) async fn wait<K>(&self, key: &Key, copy: &Informer<K>) -> Result<(), ClientError>
    where
        K: Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static,
    {
        let Some(revision) = self.written().get(key).copied() else { return Ok(()) };
        match timeout(PATIENCE, copy.reached(revision)).await {
            Ok(()) => {
                self.written().remove(key);
                Ok(())
            }
            Err(_) => {
                let now = copy.revision();
                Err(ClientError::Api(Status::too_large_resource_version(revision, now)))
            }
        }
    }
}
