//! The copies of Pods and Nodes that the scheduler and the controllers share: one of each, and of a Pod only
//! what they read, which is a tenth of what the whole takes.

use crate::{Client, ListOptions, informer::Informer};
use api::{
    core::{Affinity, Container, Node, NodeStatus, ObjectMeta, Pod, PodSpec, PodStatus},
    k8s_openapi::{Metadata, Resource},
};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What the leader's components decide by.
#[derive(Debug, Clone)]
pub struct Copies {
    /// As [`pod`] leaves them.
    pub pods: Informer<Pod>,
    /// As [`node`] leaves them.
    pub nodes: Informer<Node>,
}

impl Copies {
    /// Keeps them up to date in `tasks` until `shutdown`.
    pub fn follow(client: &Client, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) -> Self {
        Self {
            pods: follow(pod, client, tasks, shutdown),
            nodes: follow(node, client, tasks, shutdown),
        }
    }
}

fn follow<K>(
    keep: fn(K) -> K,
    client: &Client,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> Informer<K>
where
    K: Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static,
{
    let all = ListOptions::default();
    let (informer, follow) =
        Informer::keeping(keep, client.clone(), None, all, shutdown.child_token());
    tasks.spawn(follow);
    informer
}

/// A Pod with what filters, scores, endpoints, evictions and quotas are decided by. Whoever reads something else
/// of a copy adds it here; nobody writes a whole Pod back.
#[must_use]
pub fn pod(whole: Pod) -> Pod {
    Pod {
        metadata: ObjectMeta {
            name: whole.metadata.name,
            namespace: whole.metadata.namespace,
            uid: whole.metadata.uid,
            resource_version: whole.metadata.resource_version,
            creation_timestamp: whole.metadata.creation_timestamp,
            deletion_timestamp: whole.metadata.deletion_timestamp,
            labels: whole.metadata.labels,
            owner_references: whole.metadata.owner_references,
            ..ObjectMeta::default()
        },
        spec: whole.spec.map(spec),
        status: whole.status.map(status),
    }
}

fn spec(whole: PodSpec) -> PodSpec {
    let node_affinity = whole.affinity.and_then(|affinity| affinity.node_affinity);
    PodSpec {
        // Collected anew: what a decoder makes has room for more.
        containers: whole.containers.into_iter().map(container).collect(),
        init_containers: whole.init_containers.map(|all| all.into_iter().map(container).collect()),
        node_name: whole.node_name,
        scheduler_name: whole.scheduler_name,
        scheduling_gates: whole.scheduling_gates,
        priority: whole.priority,
        node_selector: whole.node_selector,
        affinity: node_affinity
            .map(|node| Affinity { node_affinity: Some(node), ..Affinity::default() }),
        tolerations: whole.tolerations,
        overhead: whole.overhead,
        resources: whole.resources,
        hostname: whole.hostname,
        subdomain: whole.subdomain,
        ..PodSpec::default()
    }
}

fn container(whole: Container) -> Container {
    Container {
        name: whole.name,
        ports: whole.ports,
        resources: whole.resources,
        restart_policy: whole.restart_policy,
        ..Container::default()
    }
}

fn status(whole: PodStatus) -> PodStatus {
    PodStatus {
        phase: whole.phase,
        reason: whole.reason,
        conditions: whole.conditions,
        pod_ip: whole.pod_ip,
        pod_ips: whole.pod_ips,
        ..PodStatus::default()
    }
}

/// A Node without the images that it has: of its own, they are what takes room.
#[must_use]
pub fn node(mut whole: Node) -> Node {
    whole.status = whole.status.map(|status| NodeStatus { images: None, ..status });
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_a_pod_what_is_read_is_kept_and_nothing_else() {
        let kept = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "p", "namespace": "d", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "deletionTimestamp": "2026-01-02T00:00:00Z",
                "labels": {"app": "a"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r",
                                     "uid": "o", "controller": true}],
            },
            "spec": {
                "containers": [{
                    "name": "a", "ports": [{"containerPort": 80, "name": "http", "hostPort": 8080}],
                    "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
                }],
                "initContainers": [{"name": "i", "restartPolicy": "Always"}],
                "nodeName": "n", "schedulerName": "s", "priority": 5,
                "schedulingGates": [{"name": "g"}],
                "nodeSelector": {"zone": "a"},
                "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
                "tolerations": [{"operator": "Exists"}],
                "overhead": {"cpu": "1"}, "resources": {"requests": {"cpu": "2"}},
                "hostname": "h", "subdomain": "s",
            },
            "status": {
                "phase": "Running", "reason": "Evicted", "podIP": "10.0.0.1",
                "podIPs": [{"ip": "10.0.0.1"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": "r", "message": "m"}],
            },
        });
        let mut whole = kept.clone();
        for (at, more) in [
            ("/metadata", json!({"annotations": {"a": "b"}, "managedFields": [{"manager": "m"}]})),
            (
                "/spec",
                json!({"volumes": [{"name": "v", "emptyDir": {}}], "restartPolicy": "Never"}),
            ),
            (
                "/spec/containers/0",
                json!({"image": "i", "env": [{"name": "A", "value": "b"}],
                                          "livenessProbe": {"periodSeconds": 1}}),
            ),
            ("/spec/initContainers/0", json!({"image": "i", "command": ["c"]})),
            (
                "/spec/affinity",
                json!({"podAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": []}}),
            ),
            ("/status", json!({"hostIP": "1.2.3.4", "qosClass": "Burstable"})),
        ] {
            let fields = whole.pointer_mut(at).unwrap().as_object_mut().unwrap();
            fields.extend(more.as_object().unwrap().clone());
        }
        let left = pod(serde_json::from_value(whole.clone()).unwrap());
        assert_ne!(whole, kept);
        assert_eq!(serde_json::to_value(left).unwrap(), kept);
    }

    #[test]
    fn of_a_node_its_images_are_not_kept() {
        let whole = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n", "annotations": {"a": "b"}},
            "spec": {"podCIDR": "10.1.0.0/24"},
            "status": {"allocatable": {"cpu": "4"}, "images": [{"names": ["i"], "sizeBytes": 5}]},
        });
        let left = node(serde_json::from_value(whole.clone()).unwrap());
        let mut want = whole;
        want["status"].as_object_mut().unwrap().remove("images");
        assert_eq!(serde_json::to_value(left).unwrap(), want);
    }
}
