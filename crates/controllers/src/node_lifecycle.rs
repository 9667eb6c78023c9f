//! Nodes that are not heard any more are `NotReady` (NOD-10, NLC-1).
//!
//! A node that is heard has a Lease object; the leader's own monotonic clock lets it run out. So this
//! controller compares no times: it looks whether the Lease is there.

use api::core::{Lease, Node, NodeCondition, Pod, Taint};
use client::{
    Client, ListOptions, Patch, WriteOptions,
    informer::{Informer, Key},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

/// How often everything is looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// A node without a Lease is given this long after it was first seen so: it may be registering.
const PATIENCE: Duration = Duration::from_secs(5);
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// What is to be written of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plan {
    Nothing,
    /// Conditions Unknown, taint on, its Pods not ready.
    Lost,
    /// The taint is to go: it is heard again.
    Found,
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().find(|c| c.type_ == "Ready")
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

fn plan(node: &Node, heard: bool) -> Plan {
    let unknown = ready(node).is_some_and(|c| c.status == "Unknown");
    let tainted = taints(node).iter().any(|t| t.key == UNREACHABLE);
    match (heard, unknown) {
        (false, false) => Plan::Lost,
        (false, true) if !tainted => Plan::Lost,
        (true, false) if tainted => Plan::Found,
        (true | false, true | false) => Plan::Nothing,
    }
}

pub(crate) async fn run(client: Client, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    let all = ListOptions::default;
    let stop = || shutdown.child_token();
    let (nodes, follow) = Informer::<Node>::new(client.clone(), None, all(), stop());
    tasks.spawn(follow);
    let namespace = Some("kube-node-lease".to_owned());
    let (leases, follow) = Informer::<Lease>::new(client.clone(), namespace, all(), stop());
    tasks.spawn(follow);
    let (pods, follow) = Informer::<Pod>::new(client.clone(), None, all(), stop());
    tasks.spawn(follow);
    let work = async {
        nodes.synced().await;
        leases.synced().await;
        pods.synced().await;
        let mut silent: BTreeMap<String, Instant> = BTreeMap::new();
        loop {
            let now = Instant::now();
            for node in nodes.list() {
                let name = node.metadata.name.clone().unwrap_or_default();
                let lease = Key { namespace: "kube-node-lease".to_owned(), name: name.clone() };
                let heard = leases.get(&lease).is_some();
                if heard {
                    silent.remove(&name);
                }
                let since = *silent.entry(name.clone()).or_insert(now);
                let plan = if heard || now >= since + PATIENCE {
                    plan(&node, heard)
                } else {
                    Plan::Nothing
                };
                if let Err(error) = carry_out(&client, &node, &pods, plan).await {
                    tracing::debug!(%error, name, "node not brought up to date");
                }
            }
            sleep(PERIOD).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
    tasks.shutdown().await;
}

async fn carry_out(
    client: &Client,
    node: &Arc<Node>,
    pods: &Informer<Pod>,
    plan: Plan,
) -> Result<(), client::ClientError> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let mut kept: Vec<&Taint> = taints(node).iter().filter(|t| t.key != UNREACHABLE).collect();
    let taint =
        Taint { key: UNREACHABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    match plan {
        Plan::Nothing => return Ok(()),
        Plan::Found => {}
        Plan::Lost => {
            tracing::info!(name, "node is not heard any more");
            // On the version it was judged by: a node that has spoken since wins (FEN-21).
            let patch = json!({
                "metadata": {"resourceVersion": node.metadata.resource_version},
                "status": {"conditions": unknown(node)},
            });
            let options =
                WriteOptions { subresource: "status".to_owned(), ..WriteOptions::default() };
            client.patch::<Node>(None, name, &Patch::Merge(patch), &options).await?;
            pods_not_ready(client, pods, name).await;
            kept.push(&taint);
        }
    }
    let patch = Patch::Merge(json!({"spec": {"taints": kept}}));
    client.patch::<Node>(None, name, &patch, &WriteOptions::default()).await.map(drop)
}

fn unknown(node: &Node) -> Vec<Value> {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions
        .map(|condition| {
            let mut condition = serde_json::to_value(condition).unwrap_or_default();
            if let Some(fields) = condition.as_object_mut() {
                fields.insert("status".to_owned(), "Unknown".into());
                fields.insert("reason".to_owned(), "NodeStatusUnknown".into());
                let text = "Kubelet stopped posting node status.";
                fields.insert("message".to_owned(), text.into());
            }
            condition
        })
        .collect()
}

/// Its Pods leave the Services' ready addresses (CND-2).
async fn pods_not_ready(client: &Client, pods: &Informer<Pod>, node: &str) {
    for pod in pods.list() {
        let bound = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node);
        let status = serde_json::to_value(&pod.status).unwrap_or_default();
        let mut conditions =
            status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut changed = false;
        for condition in &mut conditions {
            if condition.get("type") == Some(&json!("Ready"))
                && condition.get("status") == Some(&json!("True"))
                && let Some(fields) = condition.as_object_mut()
            {
                fields.insert("status".to_owned(), "False".into());
                changed = true;
            }
        }
        if !bound || !changed {
            continue;
        }
        let patch = Patch::Merge(json!({
            "metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
            "status": {"conditions": conditions},
        }));
        let key = Key::of(&*pod);
        let options = WriteOptions { subresource: "status".to_owned(), ..WriteOptions::default() };
        let patched = client.patch::<Pod>(Some(&key.namespace), &key.name, &patch, &options).await;
        if let Err(error) = patched {
            tracing::debug!(%error, pod = key.name, "not marked as not ready");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: &str, tainted: bool) -> Node {
        let taints =
            if tainted { json!([{"key": UNREACHABLE, "effect": "NoSchedule"}]) } else { json!([]) };
        serde_json::from_value(json!({
            "metadata": {"name": "n"}, "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    #[test]
    fn silence_makes_a_node_unknown_once_and_speech_removes_the_taint() {
        // NOD-10, NOD-12
        for (name, node, heard, want) in [
            ("well", node("True", false), true, Plan::Nothing),
            ("goes silent", node("True", false), false, Plan::Lost),
            ("half written", node("Unknown", false), false, Plan::Lost),
            ("stays silent", node("Unknown", true), false, Plan::Nothing),
            ("is back", node("True", true), true, Plan::Found),
            ("lease is back before its status", node("Unknown", true), true, Plan::Nothing),
        ] {
            assert_eq!(plan(&node, heard), want, "{name}");
        }
    }
}
