//! Evicting a Pod: its budget is spent and its deletion begins in one transaction (SUB-3).

use super::{
    Caller, Registry, decode, everything, key, prefix,
    write::{ATTEMPTS, is_in, put, remove, unchanged},
};
use access::node::Write;
use api::{
    deletion::{DeleteDecision, DeleteOptions, begin_delete},
    eviction::{Eviction, covers, evict},
    kinds, meta,
    status::Status,
};
use serde_json::Value;
use store::KeyRange;

impl Registry {
    /// Begins to delete a Pod, if its disruption budget allows it.
    ///
    /// # Errors
    /// 404; 409 when a precondition does not hold; 429 when the budget is used up.
    pub async fn evict(
        &self,
        namespace: &str,
        name: &str,
        eviction: &Value,
        caller: &Caller,
    ) -> Result<(), Status> {
        let pods = kinds::by_alias("pods").expect("Pod is served");
        let budgets = kinds::by_alias("poddisruptionbudgets").expect("its budget is served");
        let kind = eviction.get("kind").and_then(Value::as_str).unwrap_or("Eviction");
        if kind != "Eviction" || meta::name(eviction) != name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        is_in(namespace, eviction)?;
        let options = eviction.get("deleteOptions").cloned().unwrap_or_default();
        let options = DeleteOptions::from_json(&options)?;
        let own = key(pods, namespace, name);
        for _ in 0..ATTEMPTS {
            // A budget that was made a moment ago counts, whichever replica took it.
            self.linearize().await?;
            let kv = self.stored(pods, namespace, name)?;
            let pod = decode(pods, &kv)?;
            caller.admit(pods, "eviction", Write::Delete(&pod))?;
            let mut covering = Vec::new();
            let view = self.store.view();
            let range = KeyRange::prefix(prefix(budgets, namespace));
            let stored = view.range(&everything(range, view.revision(), 0));
            drop(view);
            for kv in stored.map_err(Status::internal)?.kvs {
                let budget = decode(budgets, &kv)?;
                if covers(&budget, &pod) {
                    covering.push((kv, budget));
                }
            }
            let found: Vec<Value> = covering.iter().map(|(_, budget)| budget.clone()).collect();
            let Eviction { pod: leaving, budget } = evict(budgets, &pod, &found, self.now())?;
            let mut steps = match begin_delete(pods, &leaving, &options, self.now())? {
                DeleteDecision::Unchanged => return Ok(()),
                DeleteDecision::Remove => vec![remove(&own)],
                DeleteDecision::Store(marked) => vec![put(&own, &marked, kv.lease)],
            };
            let mut compares = vec![unchanged(&own, &kv)];
            if let (Some((name, spent)), Some((kv, _))) = (budget, covering.first()) {
                let key = key(budgets, namespace, &name);
                compares.push(unchanged(&key, kv));
                steps.push(put(&key, &spent, kv.lease));
            }
            let dry_run = caller.dry_run || options.dry_run;
            if dry_run || self.commit(caller, compares, steps).await?.is_ok() {
                return Ok(());
            }
        }
        Err(Status::modified(pods, name))
    }
}
