//! A Pod is given to a node.

use super::{
    ATTEMPTS, Caller,
    steps::{compare, put, unchanged},
};
use crate::registry::{Registry, decode, key};
use api::{kinds, status::Status};
use serde_json::Value;
use store::CompareTarget;

impl Registry {
    /// Gives a Pod to a node: the Pod as it was read, unbound, and the node still there (FEN-11).
    ///
    /// # Errors
    /// 404 and 409 by the checks of SUB-2.
    pub async fn bind(
        &self,
        namespace: &str,
        name: &str,
        binding: &Value,
        caller: &Caller,
    ) -> Result<(), Status> {
        let pods = kinds::by_alias("pods").expect("Pod is served");
        let nodes = kinds::by_alias("nodes").expect("Node is served");
        let node = binding.pointer("/target/name").and_then(Value::as_str).unwrap_or_default();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                self.refresh().await?;
            }
            let decided = self.stored(pods, namespace, name).and_then(|kv| {
                let bound = api::binding::bind(&decode(pods, &kv)?, binding, self.now())?;
                Ok((kv, bound, self.stored(nodes, "", node)?))
            });
            let (kv, bound, target) = match decided {
                // As in `change`: not refused for what is no longer so.
                Err(_) if attempt == 0 => continue,
                decided => decided?,
            };
            let (pod_key, node_key) = (key(pods, namespace, name), key(nodes, "", node));
            let compares = vec![
                unchanged(&pod_key, &kv),
                // The same Node object, not a namesake that was made since.
                compare(&node_key, CompareTarget::CreateRevision(target.create_revision)),
            ];
            let steps = vec![put(&pod_key, &bound, kv.lease)];
            if caller.dry_run || self.commit(caller, compares, steps).await?.is_ok() {
                return Ok(());
            }
        }
        Err(Status::modified(pods, name))
    }
}
