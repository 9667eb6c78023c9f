//! The copies of Pods and Nodes that the scheduler and the controllers share: one of each, and of a Pod only
//! what they read, which is a tenth of what the whole takes.

use crate::{Client, ListOptions, informer::Informer};
use api::{
    core::{
        Affinity, Container, ContainerPort, Node, NodeAffinity, NodeStatus, ObjectMeta,
        OwnerReference, Pod, PodCondition, PodIP, PodSpec, PodStatus, QuantityText,
        ResourceRequirements, Time, Toleration,
    },
    k8s_openapi::{Metadata, Resource, api::core::v1::PodSchedulingGate},
};
use serde::{Deserialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What the leader's components decide by.
#[derive(Debug, Clone)]
pub struct Copies {
    /// As [`pod`] makes them.
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

fn follow<K, R>(
    keep: fn(R) -> K,
    client: &Client,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> Informer<K>
where
    K: Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static,
    R: DeserializeOwned + Send + 'static,
{
    let all = ListOptions::default();
    let (informer, follow) =
        Informer::keeping(keep, client.clone(), None, all, shutdown.child_token());
    tasks.spawn(follow);
    informer
}

/// What is read of a Pod: that by which filters, scores, endpoints, evictions and quotas are decided. Whoever uses
/// something else of a copy adds it here; nobody writes a whole Pod back.
#[derive(Debug, Deserialize)]
pub struct PodPart {
    #[serde(default)]
    metadata: MetadataPart,
    spec: Option<SpecPart>,
    status: Option<StatusPart>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MetadataPart {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecPart {
    containers: Option<Vec<ContainerPart>>,
    init_containers: Option<Vec<ContainerPart>>,
    node_name: Option<String>,
    scheduler_name: Option<String>,
    scheduling_gates: Option<Vec<PodSchedulingGate>>,
    priority: Option<i32>,
    node_selector: Option<BTreeMap<String, String>>,
    affinity: Option<AffinityPart>,
    tolerations: Option<Vec<Toleration>>,
    overhead: Option<BTreeMap<String, QuantityText>>,
    resources: Option<ResourceRequirements>,
    hostname: Option<String>,
    subdomain: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AffinityPart {
    node_affinity: Option<NodeAffinity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPart {
    name: String,
    ports: Option<Vec<ContainerPort>>,
    resources: Option<ResourceRequirements>,
    restart_policy: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusPart {
    phase: Option<String>,
    reason: Option<String>,
    conditions: Option<Vec<PodCondition>>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIP>>,
}

/// A Pod as it is kept.
#[must_use]
pub fn pod(part: PodPart) -> Pod {
    let metadata = part.metadata;
    Pod {
        metadata: ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            labels: metadata.labels,
            owner_references: metadata.owner_references,
            ..ObjectMeta::default()
        },
        spec: part.spec.map(spec),
        status: part.status.map(status),
    }
}

fn spec(part: SpecPart) -> PodSpec {
    let node_affinity = part.affinity.and_then(|affinity| affinity.node_affinity);
    // Collected anew: what a decoder makes has room for more.
    let containers =
        |all: Vec<ContainerPart>| all.into_iter().map(container).collect::<Vec<Container>>();
    PodSpec {
        containers: part.containers.map(containers).unwrap_or_default(),
        init_containers: part.init_containers.map(containers),
        node_name: part.node_name,
        scheduler_name: part.scheduler_name,
        scheduling_gates: part.scheduling_gates,
        priority: part.priority,
        node_selector: part.node_selector,
        affinity: node_affinity
            .map(|node| Affinity { node_affinity: Some(node), ..Affinity::default() }),
        tolerations: part.tolerations,
        overhead: part.overhead,
        resources: part.resources,
        hostname: part.hostname,
        subdomain: part.subdomain,
        ..PodSpec::default()
    }
}

fn container(part: ContainerPart) -> Container {
    Container {
        name: part.name,
        ports: part.ports,
        resources: part.resources,
        restart_policy: part.restart_policy,
        ..Container::default()
    }
}

fn status(part: StatusPart) -> PodStatus {
    PodStatus {
        phase: part.phase,
        reason: part.reason,
        conditions: part.conditions,
        pod_ip: part.pod_ip,
        pod_ips: part.pod_ips,
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
