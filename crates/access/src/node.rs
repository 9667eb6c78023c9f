//! What a node may do: with its own Pods, with what they name, and with its own Node and Lease.
//!
//! Two questions: [`authorize`] by the request alone, and [`admit`] by what a write would change. Both
//! say no to everything that concerns another node.

use crate::{
    NODES,
    attributes::{Attributes, Decision, Resource, Target},
    rule::Rule,
};
use api::{caller::Identity, meta};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Where nodes keep their leases.
pub const LEASES: &str = "kube-node-lease";

/// Whose Pods are that name no service account.
pub const DEFAULT_ACCOUNT: &str = "default";

/// The name of the node that somebody is.
#[must_use]
pub fn name(who: &Identity) -> Option<&str> {
    let name = who.user.strip_prefix("system:node:").filter(|name| !name.is_empty())?;
    who.groups.iter().any(|group| group == NODES).then_some(name)
}

/// What Pods name that a node must read for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Referenced {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
    /// A PersistentVolumeClaim.
    Claim,
    /// A ServiceAccount.
    ServiceAccount,
}

impl Referenced {
    /// Of a resource of the core group.
    #[must_use]
    pub fn of(resource: &str) -> Option<Self> {
        match resource {
            "secrets" => Some(Self::Secret),
            "configmaps" => Some(Self::ConfigMap),
            "persistentvolumeclaims" => Some(Self::Claim),
            "serviceaccounts" => Some(Self::ServiceAccount),
            _ => None,
        }
    }
}

/// What is to be known of Pods.
pub trait Facts {
    /// Whether a Pod is bound to a node.
    fn has_pod(&self, node: &str, namespace: &str, pod: &str) -> bool;
    /// Whether a Pod in a namespace that is bound to a node names an object.
    fn names(&self, node: &str, what: Referenced, namespace: &str, name: &str) -> bool;
}

/// What a Pod names, of its own namespace.
#[must_use]
pub fn references(pod: &Value) -> BTreeSet<(Referenced, String)> {
    let mut found = BTreeSet::new();
    let mut add = |what: Referenced, at: Option<&Value>| {
        let name = at.and_then(Value::as_str).filter(|name| !name.is_empty());
        found.extend(name.map(|name| (what, name.to_owned())));
    };
    let Some(spec) = pod.get("spec") else { return BTreeSet::new() };
    let list = |of: &'_ Value, key: &str| {
        of.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    add(Referenced::ServiceAccount, spec.get("serviceAccountName"));
    add(Referenced::ServiceAccount, spec.get("serviceAccount"));
    for secret in list(spec, "imagePullSecrets") {
        add(Referenced::Secret, secret.get("name"));
    }
    for key in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list(spec, key) {
            for env in list(&container, "env") {
                add(Referenced::Secret, env.pointer("/valueFrom/secretKeyRef/name"));
                add(Referenced::ConfigMap, env.pointer("/valueFrom/configMapKeyRef/name"));
            }
            for env in list(&container, "envFrom") {
                add(Referenced::Secret, env.pointer("/secretRef/name"));
                add(Referenced::ConfigMap, env.pointer("/configMapRef/name"));
            }
        }
    }
    for volume in list(spec, "volumes") {
        let secrets = [
            "/secret/secretName",
            "/azureFile/secretName",
            "/cephfs/secretRef/name",
            "/cinder/secretRef/name",
            "/csi/nodePublishSecretRef/name",
            "/flexVolume/secretRef/name",
            "/iscsi/secretRef/name",
            "/rbd/secretRef/name",
            "/scaleIO/secretRef/name",
            "/storageos/secretRef/name",
        ];
        for pointer in secrets {
            add(Referenced::Secret, volume.pointer(pointer));
        }
        add(Referenced::ConfigMap, volume.pointer("/configMap/name"));
        add(Referenced::Claim, volume.pointer("/persistentVolumeClaim/claimName"));
        if volume.get("ephemeral").is_some_and(|ephemeral| !ephemeral.is_null()) {
            let volume = volume.get("name").and_then(Value::as_str).unwrap_or_default();
            add(Referenced::Claim, Some(&format!("{}-{volume}", meta::name(pod)).into()));
        }
        for source in
            volume.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten()
        {
            add(Referenced::Secret, source.pointer("/secret/name"));
            add(Referenced::ConfigMap, source.pointer("/configMap/name"));
        }
    }
    if !found.iter().any(|(what, _)| *what == Referenced::ServiceAccount) {
        found.insert((Referenced::ServiceAccount, DEFAULT_ACCOUNT.to_owned()));
    }
    found
}

fn node_of(pod: &Value) -> &str {
    pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default()
}

type Key = (String, String);

/// The bound Pods as they are now, by what is asked of them.
#[derive(Debug, Default)]
pub struct Pods {
    /// Node, and what it names, by namespace and name.
    pods: BTreeMap<Key, (String, BTreeSet<(Referenced, String)>)>,
    /// How many Pods of a node name an object of a namespace.
    named: BTreeMap<String, BTreeMap<(Referenced, Key), usize>>,
}

impl Pods {
    /// Takes a Pod as it is now; `None` for one that is gone.
    pub fn set(&mut self, namespace: &str, name: &str, pod: Option<&Value>) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some((node, references)) = self.pods.remove(&key) {
            let named = self.named.entry(node.clone()).or_default();
            for (what, of) in references {
                let place = (what, (namespace.to_owned(), of));
                match named.get_mut(&place) {
                    Some(count) if *count > 1 => *count -= 1,
                    Some(_) | None => drop(named.remove(&place)),
                }
            }
            if named.is_empty() {
                self.named.remove(&node);
            }
        }
        let Some(pod) = pod else { return };
        let node = node_of(pod);
        if node.is_empty() {
            return;
        }
        let references = references(pod);
        let named = self.named.entry(node.to_owned()).or_default();
        for (what, of) in &references {
            *named.entry((*what, (namespace.to_owned(), of.clone()))).or_default() += 1;
        }
        self.pods.insert(key, (node.to_owned(), references));
    }
}

impl Facts for Pods {
    fn has_pod(&self, node: &str, namespace: &str, pod: &str) -> bool {
        let found = self.pods.get(&(namespace.to_owned(), pod.to_owned()));
        found.is_some_and(|(on, _)| on == node)
    }

    fn names(&self, node: &str, what: Referenced, namespace: &str, name: &str) -> bool {
        let key = (what, (namespace.to_owned(), name.to_owned()));
        self.named.get(node).is_some_and(|named| named.contains_key(&key))
    }
}

/// Whether a node may. `others` are the rules for what concerns no single node.
pub fn authorize(node: &str, asked: &Attributes, facts: &dyn Facts, others: &[Rule]) -> Decision {
    let by_rule = || {
        if others.iter().any(|rule| rule.allows(asked)) {
            Decision::Allowed("the node may".to_owned())
        } else {
            Decision::NoOpinion(String::new())
        }
    };
    let of = match &asked.target {
        Target::Path(_) => return by_rule(),
        Target::Resource(of) => of,
    };
    let verb = asked.verb.as_str();
    let why = match (of.group.as_str(), of.resource.as_str()) {
        ("", "secrets" | "configmaps" | "persistentvolumeclaims" | "serviceaccounts") => {
            referenced(node, verb, of, facts)
        }
        ("", "pods") => pod(node, verb, of, facts),
        ("", "nodes") => own_node(node, verb, of),
        ("coordination.k8s.io", "leases") => lease(node, verb, of),
        _ => return by_rule(),
    };
    match why {
        Ok(()) => Decision::Allowed("it is the node's own".to_owned()),
        Err(why) => Decision::NoOpinion(why),
    }
}

const NO_RELATION: &str = "no relationship found between node";

fn unrelated(node: &str) -> String {
    format!("{NO_RELATION} '{node}' and this object")
}

fn referenced(node: &str, verb: &str, of: &Resource, facts: &dyn Facts) -> Result<(), String> {
    let token = of.resource == "serviceaccounts" && of.subresource == "token" && verb == "create";
    let read = of.subresource.is_empty() && matches!(verb, "get" | "list" | "watch");
    if !token && !read {
        return Err("can only read resources of this type".to_owned());
    }
    if of.name.is_empty() {
        return Err("can only read resources of this type by name".to_owned());
    }
    let what = Referenced::of(&of.resource);
    if what.is_some_and(|what| facts.names(node, what, &of.namespace, &of.name)) {
        Ok(())
    } else {
        Err(unrelated(node))
    }
}

fn pod(node: &str, verb: &str, of: &Resource, facts: &dyn Facts) -> Result<(), String> {
    let own = match (of.subresource.as_str(), verb) {
        ("", "list" | "watch") if of.name.is_empty() => {
            return if of.on_node == node {
                Ok(())
            } else {
                Err("can only list/watch pods with spec.nodeName field selector".to_owned())
            };
        }
        ("", "get" | "list" | "watch" | "delete")
        | ("status", "get" | "update" | "patch")
        | ("eviction", "create") => facts.has_pod(node, &of.namespace, &of.name),
        _ => return Err(String::new()),
    };
    if own { Ok(()) } else { Err(unrelated(node)) }
}

fn own_node(node: &str, verb: &str, of: &Resource) -> Result<(), String> {
    match (of.subresource.as_str(), verb) {
        // Which one it is the object says, and `admit` reads it.
        ("", "create") if of.name.is_empty() => Ok(()),
        ("", "get" | "list" | "watch" | "update" | "patch" | "create")
        | ("status", "get" | "update" | "patch")
            if of.name == node =>
        {
            Ok(())
        }
        ("" | "status", "get" | "list" | "watch" | "update" | "patch") => {
            let name =
                if of.name.is_empty() { "all nodes".to_owned() } else { format!("'{}'", of.name) };
            Err(format!("node '{node}' cannot {verb} {name}, only its own Node object"))
        }
        _ => Err(String::new()),
    }
}

fn lease(node: &str, verb: &str, of: &Resource) -> Result<(), String> {
    if of.namespace != LEASES {
        return Err(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    match (of.subresource.as_str(), verb) {
        ("", "create") if of.name.is_empty() => Ok(()),
        ("", "get" | "create" | "update" | "patch" | "delete") if of.name == node => Ok(()),
        ("", "get" | "create" | "update" | "patch" | "delete") => {
            Err("can only access node lease with the same name as the requesting node".to_owned())
        }
        _ => Err(String::new()),
    }
}

/// What a write does.
#[derive(Debug, Clone, Copy)]
pub enum Write<'a> {
    /// Makes an object.
    Create(&'a Value),
    /// Changes one.
    Update {
        /// As it is.
        old: &'a Value,
        /// As it would be.
        new: &'a Value,
    },
    /// Removes one, or begins to.
    Delete(&'a Value),
}

/// Labels of these domains say to schedulers and people what a node is, and are for a node to set.
const OWN_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// So are these.
const OWN_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

fn in_domain(of: &str, domain: &str) -> bool {
    of.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether a label is not for a node to set: by those of `node-restriction.kubernetes.io` Pods are kept
/// away from nodes that somebody else holds.
#[must_use]
pub fn is_reserved_label(key: &str) -> bool {
    let Some((of, _)) = key.split_once('/') else { return false };
    let kubernetes = in_domain(of, "kubernetes.io") || in_domain(of, "k8s.io");
    let own = OWN_LABELS.contains(&key) || OWN_DOMAINS.iter().any(|domain| in_domain(of, domain));
    kubernetes && !own
}

/// The reserved labels that differ.
fn changed_labels(old: Option<&Value>, new: &Value) -> Vec<String> {
    let old = old.map(meta::labels).unwrap_or_default();
    let new = meta::labels(new);
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
    changed.filter(|key| is_reserved_label(key)).cloned().collect()
}

/// Whether what a node writes is its own, by the objects themselves; why not otherwise.
///
/// # Errors
/// What it is not allowed to do.
pub fn admit(
    node: &str,
    (group, resource, subresource): (&str, &str, &str),
    write: Write<'_>,
) -> Result<(), String> {
    let object = match write {
        Write::Create(object) | Write::Delete(object) => object,
        Write::Update { old, .. } => old,
    };
    match (group, resource) {
        ("", "pods") => {
            if matches!(write, Write::Create(_)) {
                return Err(format!("node {node:?} is not allowed to create pods"));
            }
            if node_of(object) != node {
                let what = match (subresource, write) {
                    ("eviction", _) => "evict pods",
                    (_, Write::Delete(_)) => "delete pods",
                    _ => "update pod status for pods",
                };
                return Err(format!(
                    "node {node:?} can only {what} with spec.nodeName set to itself"
                ));
            }
            Ok(())
        }
        ("", "nodes") => {
            if meta::name(object) != node {
                let name = meta::name(object);
                return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
            }
            match write {
                Write::Create(new) => {
                    let labels = changed_labels(None, new);
                    if !labels.is_empty() {
                        let labels = labels.join(", ");
                        return Err(format!(
                            "node {node:?} is not allowed to set the following labels: {labels}"
                        ));
                    }
                }
                Write::Update { old, new } => {
                    let labels = changed_labels(Some(old), new);
                    if !labels.is_empty() {
                        let labels = labels.join(", ");
                        return Err(format!(
                            "node {node:?} is not allowed to modify labels: {labels}"
                        ));
                    }
                    if old.pointer("/spec/taints") != new.pointer("/spec/taints") {
                        return Err(format!("node {node:?} is not allowed to modify taints"));
                    }
                    if meta::owner_references(old) != meta::owner_references(new) {
                        return Err(format!(
                            "node {node:?} is not allowed to modify ownerReferences"
                        ));
                    }
                }
                Write::Delete(_) => {
                    return Err(format!("node {node:?} is not allowed to delete nodes"));
                }
            }
            Ok(())
        }
        ("coordination.k8s.io", "leases") => {
            if meta::namespace(object) != LEASES || meta::name(object) != node {
                return Err("can only access node lease with the same name as the requesting node"
                    .to_owned());
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn pod_on(node: &str, secret: &str) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {
            "nodeName": node, "serviceAccountName": "robot",
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": secret}}}],
                            "envFrom": [{"configMapRef": {"name": "map"}}]}],
            "volumes": [
                {"persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "scratch", "ephemeral": {}},
                {"projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "ca"}}]}},
            ],
        }})
    }

    fn asked(verb: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
        let (group, resource) = resource.split_once(':').unwrap_or(("", resource));
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes::resource(
            verb,
            Resource {
                group: group.to_owned(),
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                on_node: String::new(),
            },
        )
    }

    #[test]
    fn a_node_reads_and_writes_its_own_and_what_its_pods_name() {
        let mut pods = Pods::default();
        pods.set("ns", "p", Some(&pod_on("n", "key")));
        pods.set("ns", "q", Some(&pod_on("other", "theirs")));
        let others = [Rule::parse(
            &json!({"verbs": ["create"], "apiGroups": [""], "resources": ["events"]}),
        )];
        for (verb, resource, namespace, name, want) in [
            ("get", "secrets", "ns", "key", true),
            ("watch", "secrets", "ns", "projected", true),
            ("get", "secrets", "ns", "pull", true),
            ("get", "secrets", "ns", "theirs", false),
            ("get", "secrets", "elsewhere", "key", false),
            ("list", "secrets", "ns", "", false),
            ("update", "secrets", "ns", "key", false),
            ("delete", "secrets", "ns", "key", false),
            ("get", "configmaps", "ns", "map", true),
            ("get", "configmaps", "ns", "ca", true),
            ("get", "configmaps", "ns", "key", false),
            ("get", "persistentvolumeclaims", "ns", "claim", true),
            ("get", "persistentvolumeclaims", "ns", "p-scratch", true),
            ("get", "serviceaccounts", "ns", "robot", true),
            ("create", "serviceaccounts/token", "ns", "robot", true),
            ("create", "serviceaccounts/token", "ns", "default", false),
            ("update", "serviceaccounts", "ns", "robot", false),
            ("get", "pods", "ns", "p", true),
            ("get", "pods", "ns", "q", false),
            ("list", "pods", "", "", false),
            ("update", "pods", "ns", "p", false),
            ("update", "pods/status", "ns", "p", true),
            ("update", "pods/status", "ns", "q", false),
            ("delete", "pods", "ns", "p", true),
            ("delete", "pods", "ns", "q", false),
            ("deletecollection", "pods", "ns", "", false),
            ("create", "pods", "ns", "", false),
            ("create", "pods/eviction", "ns", "p", true),
            ("create", "pods/eviction", "ns", "q", false),
            ("create", "pods/exec", "ns", "p", false),
            ("create", "pods/binding", "ns", "p", false),
            ("get", "nodes", "", "n", true),
            ("get", "nodes", "", "other", false),
            ("list", "nodes", "", "", false),
            ("create", "nodes", "", "", true),
            ("patch", "nodes/status", "", "n", true),
            ("patch", "nodes/status", "", "other", false),
            ("delete", "nodes", "", "n", false),
            ("get", "nodes/proxy", "", "n", false),
            ("update", "coordination.k8s.io:leases", "kube-node-lease", "n", true),
            ("update", "coordination.k8s.io:leases", "kube-node-lease", "other", false),
            ("update", "coordination.k8s.io:leases", "kube-system", "n", false),
            ("list", "coordination.k8s.io:leases", "kube-node-lease", "", false),
            ("create", "events", "ns", "", true),
            ("get", "apps:deployments", "ns", "d", false),
        ] {
            let found = authorize("n", &asked(verb, resource, namespace, name), &pods, &others);
            assert_eq!(found.is_allowed(), want, "{verb} {resource} {namespace} {name}: {found:?}");
        }
        let mut own = asked("list", "pods", "", "");
        if let Target::Resource(of) = &mut own.target {
            of.on_node = "n".to_owned();
        }
        assert!(authorize("n", &own, &pods, &[]).is_allowed());
        assert!(!authorize("other", &own, &pods, &[]).is_allowed());
        pods.set(
            "other",
            "bare",
            Some(&json!({"metadata": {"name": "bare"}, "spec": {"nodeName": "n"}})),
        );
        assert!(
            authorize("n", &asked("get", "serviceaccounts", "other", "default"), &pods, &[])
                .is_allowed()
        );
        // It is over with the Pod.
        pods.set("ns", "p", None);
        assert!(!authorize("n", &asked("get", "secrets", "ns", "key"), &pods, &[]).is_allowed());
    }

    #[test]
    fn what_a_node_writes_is_about_itself() {
        let node =
            |name: &str, label: &str| json!({"metadata": {"name": name, "labels": {label: "x"}}});
        let plain = node("n", "kubernetes.io/hostname");
        let reserved = node("n", "node-restriction.kubernetes.io/secure");
        let tainted = json!({"metadata": plain["metadata"], "spec": {"taints": [{"key": "a"}]}});
        let nodes = ("", "nodes", "");
        for (name, of, write, want) in [
            ("itself", nodes, Write::Create(&plain), true),
            ("a reserved label", nodes, Write::Create(&reserved), false),
            ("another", nodes, Write::Create(&node("m", "a")), false),
            ("a label changed", nodes, Write::Update { old: &plain, new: &reserved }, false),
            ("a label kept", nodes, Write::Update { old: &reserved, new: &reserved }, true),
            ("a label taken away", nodes, Write::Update { old: &reserved, new: &plain }, false),
            ("taints at the beginning", nodes, Write::Create(&tainted), true),
            ("taints taken away", nodes, Write::Update { old: &tainted, new: &plain }, false),
            (
                "its Pod",
                ("", "pods", "status"),
                Write::Update { old: &pod_on("n", ""), new: &plain },
                true,
            ),
            (
                "another's",
                ("", "pods", "status"),
                Write::Update { old: &pod_on("m", ""), new: &plain },
                false,
            ),
            ("another's", ("", "pods", ""), Write::Delete(&pod_on("m", "")), false),
            ("a Pod", ("", "pods", ""), Write::Create(&pod_on("n", "")), false),
        ] {
            assert_eq!(admit("n", of, write).is_ok(), want, "{name}");
        }
        for (label, want) in [
            ("zone", false),
            ("example.com/a", false),
            ("kubernetes.io/hostname", false),
            ("node.kubernetes.io/pool", false),
            ("a.kubelet.kubernetes.io/b", false),
            ("node-role.kubernetes.io/control-plane", true),
            ("node-restriction.kubernetes.io/a", true),
            ("x.node-restriction.kubernetes.io/a", true),
            ("a.k8s.io/b", true),
            ("notkubernetes.io/a", false),
        ] {
            assert_eq!(is_reserved_label(label), want, "{label}");
        }
    }

    #[test]
    fn a_node_is_who_has_its_name_and_is_in_the_group() {
        let who = |user: &str, group: &str| Identity {
            user: user.to_owned(),
            groups: vec![group.to_owned()],
            ..Identity::default()
        };
        assert_eq!(name(&who("system:node:n", NODES)), Some("n"));
        assert_eq!(name(&who("system:node:n", "x")), None);
        assert_eq!(name(&who("system:node:", NODES)), None);
        assert_eq!(name(&who("n", NODES)), None);
    }

    proptest! {
        #[test]
        fn what_pods_name_is_the_same_however_it_came_about(
            steps in prop::collection::vec((0..4usize, 0..3usize, 0..3usize), 0..40),
        ) {
            let mut pods = Pods::default();
            let mut last: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
            for (pod, node, secret) in steps {
                if secret == 2 {
                    pods.set("ns", &pod.to_string(), None);
                    last.remove(&pod);
                } else {
                    let object = pod_on(&node.to_string(), &secret.to_string());
                    pods.set("ns", &pod.to_string(), Some(&object));
                    last.insert(pod, (node, secret));
                }
            }
            for node in 0..3usize {
                for secret in 0..2usize {
                    let want = last.values().any(|found| *found == (node, secret));
                    let found = pods.names(&node.to_string(), Referenced::Secret, "ns", &secret.to_string());
                    prop_assert_eq!(found, want);
                }
            }
        }
    }
}
