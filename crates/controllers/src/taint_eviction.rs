//! Deletes Pods that do not tolerate a `NoExecute` taint of their node (NOD-14, FEN-22).

use crate::{caches::Caches, delete::delete, pod, queue::Queue};
use api::{
    core::{Node, Pod},
    scheduling::{Stay, stay, taints, tolerations},
};
use client::{
    Client, ClientError,
    events::Recorder,
    informer::{Change, Key},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

const WORKERS: usize = 8;

/// What is to become of a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Stays,
    /// Goes then, if nothing changes.
    GoesAt(Instant),
}

/// `since` is when this leader first saw the Pod under such taints: a failover may give it more time,
/// never less (FEN-42).
fn judge(pod: &Pod, node: &Node, since: Instant) -> Verdict {
    let Some(spec) = &pod.spec else { return Verdict::Stays };
    if pod.metadata.deletion_timestamp.is_some() {
        return Verdict::Stays;
    }
    match stay(taints(node), tolerations(spec)) {
        Stay::Forever => Verdict::Stays,
        Stay::None => Verdict::GoesAt(since),
        Stay::Seconds(seconds) => {
            let seconds = u64::try_from(seconds).unwrap_or_default();
            Verdict::GoesAt(since + Duration::from_secs(seconds))
        }
    }
}

struct Controller {
    client: Client,
    caches: Caches,
    queue: Queue,
    events: Recorder,
    /// Since when each Pod has been under such taints, by UID.
    since: Mutex<BTreeMap<String, Instant>>,
}

pub(crate) async fn run(client: Client, caches: Caches, events: Recorder) {
    let queue = Queue::default();
    let all = || caches.pods.list().iter().map(|pod| Key::of(&**pod)).collect();
    let on_node = |change: &Change<Node>| {
        let taints_of = |node: &Option<Arc<Node>>| node.as_ref().map(|n| taints(n).to_vec());
        if taints_of(&change.old) == taints_of(&change.new) {
            return Vec::new();
        }
        let pods = caches.pods.list();
        let here = pods.iter().filter(|pod| node_of(pod) == change.key.name);
        here.map(|pod| Key::of(&**pod)).collect()
    };
    let since = Mutex::default();
    let controller =
        Controller { client, caches: caches.clone(), queue: queue.clone(), events, since };
    let forgets = |change: &Change<Pod>| {
        if change.new.is_none()
            && let Some(uid) = change.old.as_ref().and_then(|pod| pod.metadata.uid.as_ref())
        {
            controller.since().remove(uid);
        }
        vec![change.key.clone()]
    };
    tokio::join!(
        queue.feed(&caches.pods, forgets, all),
        queue.feed(&caches.nodes, on_node, all),
        async {
            caches.synced().await;
            queue.work(WORKERS, |key| controller.sync(key)).await;
        },
    );
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

impl Controller {
    fn since(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn sync(&self, key: Key) -> Result<(), ClientError> {
        let Some(pod) = self.caches.pods.get(&key) else { return Ok(()) };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let host = Key { namespace: String::new(), name: node_of(&pod).to_owned() };
        let now = Instant::now();
        let begun = self.since().get(&uid).copied();
        let verdict = match self.caches.nodes.get(&host) {
            Some(node) => judge(&pod, &node, begun.unwrap_or(now)),
            None => Verdict::Stays,
        };
        match verdict {
            Verdict::Stays => {
                self.since().remove(&uid);
                if begun.is_some() && pod.metadata.deletion_timestamp.is_none() {
                    let text = format!("Cancelling deletion of Pod {}/{}", key.namespace, key.name);
                    self.events.normal(&*pod, "TaintManagerEviction", &text);
                }
                Ok(())
            }
            Verdict::GoesAt(at) => {
                self.since().entry(uid.clone()).or_insert(now);
                if at > now {
                    self.queue.add_at(key, at);
                    return Ok(());
                }
                self.evict(&key, &pod, &host.name).await?;
                self.since().remove(&uid);
                Ok(())
            }
        }
    }

    async fn evict(&self, key: &Key, pod: &Pod, host: &str) -> Result<(), ClientError> {
        // By a read of now: the taint may have gone while the copy was behind.
        let node = match self.client.get::<Node>(None, host).await {
            Err(ClientError::Api(status)) if status.is_not_found() => return Ok(()),
            node => node?,
        };
        let now = Instant::now();
        if judge(pod, &node, now) == Verdict::Stays {
            return Ok(());
        }
        let text = format!("Marking for deletion Pod {}/{}", key.namespace, key.name);
        self.events.normal(pod, "TaintManagerEviction", &text);
        let message = "Taint manager: deleting due to NoExecute taint";
        let condition = pod::disruption("DeletionByTaintManager", message);
        // On the version whose tolerations were judged.
        let marked = pod::patch_status(&self.client, pod, None, &[condition]).await?;
        delete::<Pod>(&self.client, &pod.metadata, None, marked.metadata.resource_version).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[tokio::test(start_paused = true)]
    async fn a_pod_goes_when_it_has_been_tolerated_for_as_long_as_it_asks() {
        // NOD-14
        let since = Instant::now();
        let at = |seconds| Verdict::GoesAt(since + Duration::from_secs(seconds));
        let key = "node.kubernetes.io/unreachable";
        let tolerates = |seconds: Value| {
            json!([{"key": key, "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": seconds}])
        };
        let taint = json!([{"key": key, "effect": "NoExecute"}]);
        let two = json!([{"key": key, "effect": "NoExecute"}, {"key": "a", "effect": "NoExecute"}]);
        for (name, taints, tolerations, want) in [
            ("no taint", json!([]), json!([]), Verdict::Stays),
            (
                "only kept from new ones",
                json!([{"key": key, "effect": "NoSchedule"}]),
                json!([]),
                Verdict::Stays,
            ),
            ("not tolerated", taint.clone(), json!([]), at(0)),
            ("tolerated for a while", taint.clone(), tolerates(json!(300)), at(300)),
            ("tolerated for good", taint.clone(), tolerates(Value::Null), Verdict::Stays),
            ("no time at all", taint.clone(), tolerates(json!(0)), at(0)),
            ("a negative time", taint, tolerates(json!(-5)), at(0)),
            ("one of two", two, tolerates(json!(300)), at(0)),
        ] {
            let node: Node =
                serde_json::from_value(json!({"metadata": {}, "spec": {"taints": taints}}))
                    .unwrap();
            let pod =
                json!({"metadata": {}, "spec": {"containers": [], "tolerations": tolerations}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(judge(&pod, &node, since), want, "{name}");
        }
    }
}
