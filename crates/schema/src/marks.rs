//! What the types do not say of their fields: how lists and objects merge.
//!
//! Two rules are kept side by side, since the API has both: the strategy and merge key of strategic
//! merge patches (`x-kubernetes-patch-*`, PAT-2), and the list and map types of server-side apply
//! (`x-kubernetes-list-*`, `x-kubernetes-map-type`, PAT-3). They differ: container ports merge by
//! `containerPort` in the one and by port and protocol in the other. What is not here is replaced
//! whole if it is a list, and merged field by field if it is an object.

use std::sync::Arc;

/// How a strategic merge patch treats a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Strategy {
    /// Lists: merge instead of replace.
    pub(crate) merge: bool,
    /// Objects: replace instead of merge.
    pub(crate) replace: bool,
    /// The patch may say which fields stay.
    pub(crate) retain_keys: bool,
}

impl Strategy {
    /// As `x-kubernetes-patch-strategy` says it; `None` for the rule of what is not in the table.
    pub(crate) const fn text(self) -> Option<&'static str> {
        match (self.merge, self.replace, self.retain_keys) {
            (true, _, true) => Some("merge,retainKeys"),
            (true, _, false) => Some("merge"),
            (false, true, _) => Some("replace"),
            (false, false, true) => Some("retainKeys"),
            (false, false, false) => None,
        }
    }
}

/// How server-side apply sees a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ListType {
    /// One value.
    #[default]
    Atomic,
    /// Values of their own, each once.
    Set,
    /// Items that these fields name.
    Map(&'static [&'static str]),
    /// The same, where a definition says by which.
    Keyed(Arc<[String]>),
}

/// One field's row.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    pub(crate) strategy: Strategy,
    /// Names an item in a strategic merge patch; empty for a list of scalars.
    pub(crate) merge_key: &'static str,
    pub(crate) list: ListType,
}

const REPLACE: Strategy = Strategy { merge: false, replace: true, retain_keys: false };
const MERGE: Strategy = Strategy { merge: true, replace: false, retain_keys: false };
const MERGE_RETAIN: Strategy = Strategy { merge: true, replace: false, retain_keys: true };
const RETAIN: Strategy = Strategy { merge: false, replace: false, retain_keys: true };
const NONE: Strategy = Strategy { merge: false, replace: false, retain_keys: false };

/// Both rules name items by the same field.
const fn by(key: &'static [&'static str; 1]) -> Mark {
    let [merge_key] = *key;
    Mark { strategy: MERGE, merge_key, list: ListType::Map(key) }
}

/// The same, and a patch may say which fields of an item stay.
const fn retaining_by(key: &'static [&'static str; 1]) -> Mark {
    let [merge_key] = *key;
    Mark { strategy: MERGE_RETAIN, merge_key, list: ListType::Map(key) }
}

/// Strategic merge patches name items by the first key alone.
const fn by_more(keys: &'static [&'static str], merge_key: &'static str) -> Mark {
    Mark { strategy: MERGE, merge_key, list: ListType::Map(keys) }
}

/// Items only for server-side apply.
const fn applied_by(keys: &'static [&'static str]) -> Mark {
    Mark { strategy: NONE, merge_key: "", list: ListType::Map(keys) }
}

/// Items only for strategic merge patches.
const fn patched_by(merge_key: &'static str) -> Mark {
    Mark { strategy: MERGE, merge_key, list: ListType::Atomic }
}

/// Scalars that both rules merge.
const MERGED_SET: Mark = Mark { strategy: MERGE, merge_key: "", list: ListType::Set };
/// Scalars that only server-side apply merges.
const SET: Mark = Mark { strategy: NONE, merge_key: "", list: ListType::Set };
const CONDITIONS: Mark = by(&["type"]);

/// An object, which has a strategy and nothing else.
const fn object(strategy: Strategy) -> Mark {
    Mark { strategy, merge_key: "", list: ListType::Atomic }
}

/// Definition (without `io.k8s.api.` or `io.k8s.`), field, row.
const MARKS: &[(&str, &str, Mark)] = &[
    ("apps.v1.DaemonSetStatus", "conditions", CONDITIONS),
    ("apps.v1.DeploymentSpec", "strategy", object(RETAIN)),
    ("apps.v1.DeploymentStatus", "conditions", CONDITIONS),
    ("apps.v1.ReplicaSetStatus", "conditions", CONDITIONS),
    ("apps.v1.StatefulSetStatus", "conditions", CONDITIONS),
    ("autoscaling.v2.HorizontalPodAutoscalerStatus", "conditions", CONDITIONS),
    ("batch.v1.JobStatus", "conditions", patched_by("type")),
    ("batch.v1.PodFailurePolicyOnExitCodesRequirement", "values", SET),
    ("batch.v1.UncountedTerminatedPods", "failed", SET),
    ("batch.v1.UncountedTerminatedPods", "succeeded", SET),
    ("core.v1.Container", "env", by(&["name"])),
    ("core.v1.Container", "ports", by_more(&["containerPort", "protocol"], "containerPort")),
    ("core.v1.Container", "volumeDevices", by(&["devicePath"])),
    ("core.v1.Container", "volumeMounts", by(&["mountPath"])),
    ("core.v1.ContainerRestartRuleOnExitCodes", "values", SET),
    ("core.v1.ContainerStatus", "allocatedResourcesStatus", by(&["name"])),
    ("core.v1.ContainerStatus", "volumeMounts", by(&["mountPath"])),
    ("core.v1.EphemeralContainer", "env", by(&["name"])),
    (
        "core.v1.EphemeralContainer",
        "ports",
        by_more(&["containerPort", "protocol"], "containerPort"),
    ),
    ("core.v1.EphemeralContainer", "volumeDevices", by(&["devicePath"])),
    ("core.v1.EphemeralContainer", "volumeMounts", by(&["mountPath"])),
    ("core.v1.NamespaceStatus", "conditions", CONDITIONS),
    ("core.v1.NodeAllocatableResourceClaimStatus", "containers", SET),
    ("core.v1.NodeSpec", "podCIDRs", MERGED_SET),
    ("core.v1.NodeStatus", "addresses", by(&["type"])),
    ("core.v1.NodeStatus", "conditions", CONDITIONS),
    ("core.v1.PersistentVolumeClaimStatus", "conditions", CONDITIONS),
    ("core.v1.PodSpec", "containers", by(&["name"])),
    ("core.v1.PodSpec", "ephemeralContainers", by(&["name"])),
    ("core.v1.PodSpec", "hostAliases", by(&["ip"])),
    ("core.v1.PodSpec", "imagePullSecrets", by(&["name"])),
    ("core.v1.PodSpec", "initContainers", by(&["name"])),
    ("core.v1.PodSpec", "resourceClaims", retaining_by(&["name"])),
    ("core.v1.PodSpec", "schedulingGates", by(&["name"])),
    (
        "core.v1.PodSpec",
        "topologySpreadConstraints",
        by_more(&["topologyKey", "whenUnsatisfiable"], "topologyKey"),
    ),
    ("core.v1.PodSpec", "volumes", retaining_by(&["name"])),
    ("core.v1.PodStatus", "conditions", CONDITIONS),
    ("core.v1.PodStatus", "hostIPs", patched_by("ip")),
    ("core.v1.PodStatus", "podIPs", by(&["ip"])),
    ("core.v1.PodStatus", "resourceClaimStatuses", retaining_by(&["name"])),
    ("core.v1.ReplicationControllerStatus", "conditions", CONDITIONS),
    ("core.v1.ResourceRequirements", "claims", applied_by(&["name"])),
    ("core.v1.ResourceStatus", "resources", applied_by(&["resourceID"])),
    ("core.v1.ServiceAccount", "secrets", by(&["name"])),
    ("core.v1.ServiceSpec", "ports", by_more(&["port", "protocol"], "port")),
    ("core.v1.ServiceStatus", "conditions", CONDITIONS),
    ("discovery.v1.Endpoint", "addresses", SET),
    ("policy.v1.PodDisruptionBudgetSpec", "selector", object(REPLACE)),
    ("policy.v1.PodDisruptionBudgetStatus", "conditions", CONDITIONS),
    (
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus",
        "conditions",
        applied_by(&["type"]),
    ),
    (
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps",
        "x-kubernetes-validations",
        by(&["rule"]),
    ),
    ("apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers", MERGED_SET),
    ("apimachinery.pkg.apis.meta.v1.ObjectMeta", "ownerReferences", by(&["uid"])),
];

/// Maps that server-side apply sees as one value.
const ATOMIC_MAPS: &[(&str, &str)] = &[
    ("core.v1.PodSpec", "nodeSelector"),
    ("core.v1.ReplicationControllerSpec", "selector"),
    ("core.v1.ServiceSpec", "selector"),
];

/// Objects that server-side apply sees as one value.
const ATOMIC_OBJECTS: &[&str] = &[
    "apimachinery.pkg.apis.meta.v1.LabelSelector",
    "apimachinery.pkg.apis.meta.v1.OwnerReference",
    "core.v1.ConfigMapKeySelector",
    "core.v1.EndpointAddress",
    "core.v1.EndpointPort",
    "core.v1.FileKeySelector",
    "core.v1.LocalObjectReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.ObjectFieldSelector",
    "core.v1.ObjectReference",
    "core.v1.ResourceFieldSelector",
    "core.v1.ScopeSelector",
    "core.v1.SecretKeySelector",
    "core.v1.TypedLocalObjectReference",
    "discovery.v1.EndpointPort",
    "rbac.v1.RoleRef",
    "rbac.v1.Subject",
];

/// Objects that upstream always writes, empty if need be, although clients may leave them out. Nobody
/// becomes their owner by adding the first field. `metadata`, and what a definition requires, are
/// written without being here.
const ALWAYS_WRITTEN: &[(&str, &[&str])] = &[
    ("apps.v1.DaemonSet", &["spec", "status"]),
    ("apps.v1.DaemonSetSpec", &["updateStrategy"]),
    ("apps.v1.Deployment", &["spec", "status"]),
    ("apps.v1.DeploymentSpec", &["strategy"]),
    ("apps.v1.ReplicaSet", &["spec", "status"]),
    ("apps.v1.ReplicaSetSpec", &["template"]),
    ("apps.v1.StatefulSet", &["spec", "status"]),
    ("apps.v1.StatefulSetSpec", &["updateStrategy"]),
    ("autoscaling.v1.HorizontalPodAutoscaler", &["spec", "status"]),
    ("autoscaling.v1.Scale", &["spec", "status"]),
    ("autoscaling.v2.HorizontalPodAutoscaler", &["spec", "status"]),
    ("batch.v1.CronJob", &["spec", "status"]),
    ("batch.v1.Job", &["spec", "status"]),
    ("batch.v1.JobTemplateSpec", &["spec"]),
    ("coordination.v1.Lease", &["spec"]),
    ("core.v1.Container", &["resources"]),
    ("core.v1.ContainerStatus", &["lastState", "state"]),
    ("core.v1.EphemeralContainer", &["resources"]),
    ("core.v1.Event", &["source"]),
    ("core.v1.LimitRange", &["spec"]),
    ("core.v1.Namespace", &["spec", "status"]),
    ("core.v1.Node", &["spec", "status"]),
    ("core.v1.NodeStatus", &["daemonEndpoints", "nodeInfo"]),
    ("core.v1.PersistentVolumeClaim", &["spec", "status"]),
    ("core.v1.PersistentVolumeClaimSpec", &["resources"]),
    ("core.v1.Pod", &["spec", "status"]),
    ("core.v1.PodTemplate", &["template"]),
    ("core.v1.PodTemplateSpec", &["spec"]),
    ("core.v1.ReplicationController", &["spec", "status"]),
    ("core.v1.ResourceQuota", &["spec", "status"]),
    ("core.v1.Service", &["spec", "status"]),
    ("core.v1.ServiceStatus", &["loadBalancer"]),
    ("discovery.v1.Endpoint", &["conditions"]),
    ("policy.v1.PodDisruptionBudget", &["spec", "status"]),
    (
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        &["spec", "status"],
    ),
];

/// Values of fields that a client left out, where they are not the zero of a required field.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("core.v1.ContainerPort", "protocol", "TCP"),
    ("core.v1.LocalObjectReference", "name", ""),
    ("core.v1.ServicePort", "protocol", "TCP"),
];

/// A definition's name as the tables above have it.
fn short(definition: &str) -> &str {
    definition
        .strip_prefix("io.k8s.api.")
        .or_else(|| definition.strip_prefix("io.k8s."))
        .unwrap_or(definition)
}

/// The row of a field, if it has one.
pub(crate) fn mark(definition: &str, field: &str) -> Option<&'static Mark> {
    let definition = short(definition);
    MARKS.iter().find(|(of, name, _)| *of == definition && *name == field).map(|(_, _, mark)| mark)
}

/// Whether the map in this field is one value.
pub(crate) fn is_atomic_map(definition: &str, field: &str) -> bool {
    ATOMIC_MAPS.contains(&(short(definition), field))
}

/// Whether objects of this definition are one value.
pub(crate) fn is_atomic_object(definition: &str) -> bool {
    ATOMIC_OBJECTS.contains(&short(definition))
}

/// Whether upstream writes this object even if it is empty.
pub(crate) fn is_always_written(definition: &str, field: &str) -> bool {
    let definition = short(definition);
    ALWAYS_WRITTEN.iter().any(|(of, fields)| *of == definition && fields.contains(&field))
}

/// What a field is taken to be if a client leaves it out.
pub(crate) fn default(definition: &str, field: &str) -> Option<&'static str> {
    let definition = short(definition);
    let found = DEFAULTS.iter().find(|(of, name, _)| *of == definition && *name == field);
    found.map(|(_, _, value)| *value)
}

/// Every definition and field that the tables name, so that a test can look for misspelt ones.
#[cfg(test)]
pub(crate) fn all() -> Vec<(&'static str, Option<&'static str>)> {
    let mut all: Vec<(&str, Option<&str>)> = Vec::new();
    all.extend(MARKS.iter().map(|(of, field, _)| (*of, Some(*field))));
    all.extend(ATOMIC_MAPS.iter().map(|(of, field)| (*of, Some(*field))));
    all.extend(ATOMIC_OBJECTS.iter().map(|of| (*of, None)));
    all.extend(DEFAULTS.iter().map(|(of, field, _)| (*of, Some(*field))));
    for (of, fields) in ALWAYS_WRITTEN {
        all.push((of, None));
        all.extend(fields.iter().map(|field| (*of, Some(*field))));
    }
    all
}
