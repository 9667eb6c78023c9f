//! What was last said of each Pod on this node, for those who ask for its logs.

use api::core::Pod;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// By UID.
#[derive(Debug, Default)]
pub(crate) struct Statuses(Mutex<BTreeMap<String, Said>>);

#[derive(Debug)]
struct Said {
    namespace: String,
    name: String,
    status: Value,
}

impl Statuses {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Said>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what was said before.
    pub(crate) fn keep(&self, pod: &Pod, status: &Value) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let metadata = &pod.metadata;
        let said = Said {
            namespace: text(&metadata.namespace),
            name: text(&metadata.name),
            status: status.clone(),
        };
        self.all().insert(text(&metadata.uid), said);
    }

    /// The Pod is done with.
    pub(crate) fn forget(&self, uid: &str) {
        self.all().remove(uid);
    }

    /// The UID and status of a Pod. Of two of one name, the one that began last.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<(String, Value)> {
        let all = self.all();
        let named = all.iter().filter(|(_, said)| said.namespace == namespace && said.name == name);
        let start = |said: &Said| said.status.get("startTime").map(ToString::to_string);
        let (uid, said) = named.max_by_key(|(_, said)| start(said))?;
        Some((uid.clone(), said.status.clone()))
    }
}
