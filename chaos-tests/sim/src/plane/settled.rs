//! What a plane must have come to some time after all faults are over: a function of what the API and the
//! runtimes show, that names whatever is not so.

use api::{
    core::{Node, Pod, Service},
    pod::{condition_status, has_ended},
    resources::{self, Amounts, pod_requests},
    scheduling::{Stay, stay, taints, tolerations, untolerated},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Everything at one revision, and what really runs a little later.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) pods: Vec<Value>,
    pub(crate) nodes: Vec<Value>,
    pub(crate) namespaces: Vec<Value>,
    pub(crate) services: Vec<Value>,
    pub(crate) slices: Vec<Value>,
    /// What is on each machine.
    pub(crate) machines: BTreeMap<String, Machine>,
}

/// What is on one machine, by UID of Pods.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    /// With a sandbox.
    pub(crate) pods: BTreeSet<String>,
    /// With a container that runs.
    pub(crate) running: BTreeSet<String>,
    /// With a directory.
    pub(crate) directories: BTreeSet<String>,
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn is_held(object: &Value) -> bool {
    let finalizers = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    finalizers.is_some_and(|held| !held.is_empty())
}

fn is_deleted(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// As people name it.
fn named(kind: &str, object: &Value) -> String {
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    let slash = if namespace.is_empty() { "" } else { "/" };
    format!("{kind} {namespace}{slash}{name} ({})", text(object, "/metadata/uid"))
}

fn read<T: serde::de::DeserializeOwned>(object: &Value) -> Option<T> {
    serde_json::from_value(object.clone()).ok()
}

/// Whatever is not as it must be, in words; empty when all is.
pub(crate) fn unsettled(seen: &Seen) -> Vec<String> {
    let mut wrong = nodes(seen);
    wrong.extend(
        seen.namespaces
            .iter()
            .filter(|namespace| is_deleted(namespace))
            .map(|namespace| format!("{} is still there", named("namespace", namespace))),
    );
    let rooms: BTreeMap<String, Room> = seen
        .nodes
        .iter()
        .filter_map(|node| Some((text(node, "/metadata/name").to_owned(), Room::of(node, seen)?)))
        .collect();
    for pod in &seen.pods {
        wrong.extend(judge(pod, seen, &rooms).map(|why| format!("{} {why}", named("pod", pod))));
    }
    wrong.extend(machines(seen));
    wrong.extend(services(seen));
    wrong
}

fn nodes(seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    let found: BTreeSet<&str> =
        seen.nodes.iter().map(|node| text(node, "/metadata/name")).collect();
    let missing = seen.machines.keys().filter(|name| !found.contains(name.as_str()));
    wrong.extend(missing.map(|name| format!("node {name} is not registered")));
    for node in &seen.nodes {
        if condition_status(node, "Ready") != "True" {
            wrong.push(format!("{} is not ready", named("node", node)));
        }
        let taints = node.pointer("/spec/taints").and_then(Value::as_array);
        let lost = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
        if taints.into_iter().flatten().any(|taint| lost.contains(&text(taint, "/key"))) {
            wrong.push(format!("{} is tainted as lost", named("node", node)));
        }
    }
    wrong
}

/// What a node has left.
struct Room {
    node: Node,
    free: Amounts,
}

impl Room {
    fn of(node: &Value, seen: &Seen) -> Option<Self> {
        let node: Node = read(node)?;
        let mut free = resources::amounts(node.status.as_ref()?.allocatable.as_ref());
        let name = node.metadata.name.clone();
        let bound = seen.pods.iter().filter_map(read::<Pod>).filter(|pod| {
            pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) == name && !has_ended(pod)
        });
        for pod in bound {
            for (resource, amount) in wanted(&pod) {
                *free.entry(resource).or_default() -= amount;
            }
        }
        Some(Self { node, free })
    }

    fn takes(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let closed = self.node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
        let effects = ["NoSchedule", "NoExecute"];
        !closed
            && untolerated(taints(&self.node), tolerations(spec), &effects).is_none()
            && wanted(pod).into_iter().all(|(resource, amount)| {
                self.free.get(&resource).copied().unwrap_or_default() >= amount
            })
    }
}

/// With the place of the Pod itself.
fn wanted(pod: &Pod) -> Amounts {
    let mut wanted = pod_requests(pod);
    wanted.insert("pods".to_owned(), 1);
    wanted
}

/// What is wrong with a Pod.
fn judge(value: &Value, seen: &Seen, rooms: &BTreeMap<String, Room>) -> Option<String> {
    let Some(pod) = read::<Pod>(value) else { return Some("cannot be read".to_owned()) };
    if is_deleted(value) {
        return (!is_held(value)).then(|| "is still there, and nobody holds it".to_owned());
    }
    if has_ended(&pod) {
        return None;
    }
    let node = text(value, "/spec/nodeName");
    if node.is_empty() {
        let (fitting, _) = rooms.iter().find(|(_, room)| room.takes(&pod))?;
        return Some(format!("is bound to no node, and fits on {fitting}"));
    }
    let Some(room) = rooms.get(node) else { return Some(format!("is on {node}, which is gone")) };
    let spec = pod.spec.as_ref()?;
    if stay(taints(&room.node), tolerations(spec)) == Stay::None {
        return Some(format!("is on {node}, whose taints it does not tolerate"));
    }
    let uid = text(value, "/metadata/uid");
    let runs = seen.machines.get(node).is_some_and(|machine| machine.running.contains(uid));
    let says = text(value, "/status/phase");
    let statuses = value.pointer("/status/containerStatuses").and_then(Value::as_array);
    let waits = statuses.into_iter().flatten().any(|status| {
        status.pointer("/state/waiting").is_some() || status.pointer("/state/terminated").is_some()
    });
    match (says, runs) {
        ("Running", true) if waits || condition_status(value, "Ready") == "True" => None,
        // Between two lives of its containers.
        ("Running" | "Pending", false) if waits => None,
        _ => Some(format!(
            "is {says:?} on {node}, where it {}",
            if runs { "runs" } else { "does not run" }
        )),
    }
}

/// Nothing is on a machine that the API does not know there.
fn machines(seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, machine) in &seen.machines {
        let bound: BTreeSet<&str> = seen
            .pods
            .iter()
            .filter(|pod| text(pod, "/spec/nodeName") == name)
            .map(|pod| text(pod, "/metadata/uid"))
            .collect();
        for (what, uids) in [("a sandbox", &machine.pods), ("a directory", &machine.directories)] {
            let strange = uids.iter().filter(|uid| !bound.contains(uid.as_str()));
            wrong.extend(
                strange.map(|uid| {
                    format!("machine {name} has {what} of {uid}, which is no Pod of it")
                }),
            );
        }
    }
    wrong
}

/// Services send to the Pods that they select and that are ready.
fn services(seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    for value in seen.services.iter().filter(|service| !is_deleted(service)) {
        let Some(service) = read::<Service>(value) else { continue };
        let selector = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
        if selector.is_empty() {
            continue;
        }
        let (namespace, name) = (text(value, "/metadata/namespace"), text(value, "/metadata/name"));
        let selected = |pod: &&Value| {
            text(pod, "/metadata/namespace") == namespace
                && selector.iter().all(|(key, want)| {
                    let labels = pod.pointer("/metadata/labels").and_then(|all| all.get(key));
                    labels.and_then(Value::as_str) == Some(want.as_str())
                })
        };
        let ready = |pod: &&Value| condition_status(pod, "Ready") == "True" && !is_deleted(pod);
        let want: BTreeSet<&str> = seen
            .pods
            .iter()
            .filter(selected)
            .filter(ready)
            .map(|pod| text(pod, "/status/podIP"))
            .collect();
        let of_service = |slice: &&Value| {
            text(slice, "/metadata/namespace") == namespace
                && text(slice, "/metadata/labels/kubernetes.io~1service-name") == name
        };
        let endpoints = seen.slices.iter().filter(of_service).flat_map(|slice| {
            slice.pointer("/endpoints").and_then(Value::as_array).into_iter().flatten()
        });
        let sent: BTreeSet<&str> = endpoints
            .filter(|endpoint| endpoint.pointer("/conditions/ready") == Some(&true.into()))
            .map(|endpoint| text(endpoint, "/addresses/0"))
            .collect();
        if sent != want {
            wrong.push(format!("{} sends to {sent:?}, not to {want:?}", named("service", value)));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(spec: Value) -> Value {
        json!({
            "metadata": {"name": "n", "uid": "node"}, "spec": spec,
            "status": {
                "allocatable": {"cpu": "1", "memory": "1Gi", "pods": "2"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        })
    }

    fn pod(uid: &str, node: &str, cpu: &str, phase: &str) -> Value {
        json!({
            "metadata": {"name": uid, "namespace": "d", "uid": uid, "labels": {"app": "a"}},
            "spec": {
                "nodeName": node,
                "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}],
            },
            "status": {
                "phase": phase, "podIP": "10.0.0.9",
                "conditions": [{"type": "Ready", "status": if phase == "Running" {"True"} else {"False"}}],
            },
        })
    }

    /// One node, on which the Pods of these UIDs run.
    fn plane(pods: Vec<Value>, running: &[&str]) -> Seen {
        let uids: BTreeSet<String> = running.iter().map(|uid| (*uid).to_owned()).collect();
        let machine = Machine { pods: uids.clone(), running: uids, directories: BTreeSet::new() };
        Seen {
            pods,
            nodes: vec![node(json!({}))],
            machines: BTreeMap::from([("n".to_owned(), machine)]),
            ..Seen::default()
        }
    }

    #[test]
    fn a_plane_that_has_come_to_rest_is_settled() {
        let full = pod("b", "", "600m", "Pending");
        let seen = plane(vec![pod("a", "n", "500m", "Running"), full], &["a"]);
        assert_eq!(unsettled(&seen), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_as_it_must_be_is_named() {
        let running = || pod("a", "n", "500m", "Running");
        let with = |change: &dyn Fn(&mut Seen)| {
            let mut seen = plane(vec![running()], &["a"]);
            change(&mut seen);
            seen
        };
        let deleted = json!("2026-01-01T00:00:00Z");
        for (seen, want) in [
            (plane(vec![pod("b", "", "600m", "Pending")], &[]), "fits on n"),
            (plane(vec![running()], &[]), "does not run"),
            (plane(vec![pod("a", "n", "1", "Pending")], &["a"]), "\"Pending\" on n, where it runs"),
            (plane(vec![pod("a", "m", "1", "Running")], &[]), "is on m, which is gone"),
            (plane(vec![], &["a"]), "has a sandbox of a"),
            (with(&|seen| seen.nodes.clear()), "node n is not registered"),
            (
                with(&|seen| seen.nodes[0]["status"]["conditions"][0]["status"] = "Unknown".into()),
                "is not ready",
            ),
            (
                with(&|seen| {
                    seen.nodes[0]["spec"]["taints"] =
                        json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]);
                }),
                "tainted as lost",
            ),
            (
                with(&|seen| {
                    seen.nodes[0]["spec"]["taints"] = json!([{"key": "k", "effect": "NoExecute"}]);
                }),
                "does not tolerate",
            ),
            (
                with(&|seen| seen.pods[0]["metadata"]["deletionTimestamp"] = deleted.clone()),
                "nobody holds it",
            ),
            (
                with(&|seen| {
                    let metadata = json!({"name": "x", "deletionTimestamp": deleted});
                    seen.namespaces.push(json!({"metadata": metadata}));
                }),
                "namespace x () is still there",
            ),
            (
                with(&|seen| {
                    let machine = seen.machines.get_mut("n").unwrap();
                    machine.directories.insert("z".to_owned());
                }),
                "has a directory of z",
            ),
            (
                with(&|seen| {
                    seen.services.push(json!({
                        "metadata": {"name": "s", "namespace": "d"},
                        "spec": {"selector": {"app": "a"}},
                    }));
                }),
                "sends to {}, not to {\"10.0.0.9\"}",
            ),
        ] {
            let found = unsettled(&seen);
            assert!(found.iter().any(|wrong| wrong.contains(want)), "{want}: {found:?}");
        }
    }

    #[test]
    fn a_pod_that_is_held_or_waits_or_has_no_room_is_no_fault() {
        let mut held = pod("a", "n", "500m", "Succeeded");
        held["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        held["metadata"]["finalizers"] = json!(["x"]);
        let mut waits = pod("a", "n", "500m", "Running");
        waits["status"]["containerStatuses"] =
            json!([{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]);
        for (pods, running) in [(vec![held], &[][..]), (vec![waits], &[])] {
            assert_eq!(unsettled(&plane(pods, running)), Vec::<String>::new());
        }
        let mut closed = plane(vec![pod("b", "", "100m", "Pending")], &[]);
        closed.nodes = vec![node(json!({"unschedulable": true}))];
        assert_eq!(unsettled(&closed), Vec::<String>::new());
    }
}
