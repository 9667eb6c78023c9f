//! What clients ask of the plane: Pods that come, change and go, what is done to nodes, Services and namespaces.

use super::caller::{Caller, Failure, Kind, NAMESPACE, NODE, POD, SERVICE};
use checkers::history::Object;
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::sleep;

/// What a Pod that has one is held by; its client lets it go.
pub(crate) const FINALIZER: &str = "sim.trireme.local/hold";
const SERVICES: u32 = 3;
/// Labels that Services select by.
const APPS: [&str; 3] = ["red", "green", "blue"];
/// Put on nodes, and tolerated by some Pods.
const TAINT: &str = "sim.trireme.local/taint";

/// What a run asks for, drawn from its seed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Load {
    pub(crate) namespaces: Vec<String>,
    pub(crate) nodes: Vec<String>,
    /// Names of Pods that clients share, so that they get in each other's way.
    pub(crate) pods: u32,
    /// Between two requests of one client, at most.
    pub(crate) pause_max: Duration,
    /// How likely each of [`Op`] is, in its order.
    pub(crate) weights: Vec<(Op, u32)>,
}

/// What a client may do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    Create,
    Delete,
    ForceDelete,
    DeleteExactly,
    BindAgain,
    Relabel,
    Release,
    Get,
    List,
    Cached,
    Evict,
    Cordon,
    Taint,
    DeleteNode,
    PutService,
    DeleteService,
    CreateNamespace,
    DeleteNamespace,
}

impl Op {
    pub(crate) const ALL: [(Self, u32); 18] = [
        (Self::Create, 40),
        (Self::Delete, 16),
        (Self::ForceDelete, 2),
        (Self::DeleteExactly, 4),
        (Self::BindAgain, 4),
        (Self::Relabel, 6),
        (Self::Release, 6),
        (Self::Get, 10),
        (Self::List, 4),
        (Self::Cached, 4),
        (Self::Evict, 3),
        (Self::Cordon, 3),
        (Self::Taint, 3),
        (Self::DeleteNode, 1),
        (Self::PutService, 3),
        (Self::DeleteService, 1),
        (Self::CreateNamespace, 2),
        (Self::DeleteNamespace, 1),
    ];
}

/// One client at work, until it is told to stop.
pub(crate) struct Worker {
    caller: Caller,
    load: Load,
    chance: StdRng,
    stop: Arc<AtomicBool>,
    /// The last that it knows of each Pod.
    known: BTreeMap<(String, String), Object>,
}

impl Worker {
    pub(crate) fn new(caller: Caller, load: Load, chance: StdRng, stop: Arc<AtomicBool>) -> Self {
        Self { caller, load, chance, stop, known: BTreeMap::new() }
    }

    /// What is under way when it is to stop is still waited for.
    pub(crate) async fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let pause = self.chance.random_range(Duration::ZERO..=self.load.pause_max);
            sleep(pause).await;
            let op = self.load.weights.choose_weighted(&mut self.chance, |(_, weight)| *weight);
            let Ok((op, _)) = op.copied() else { return };
            // A refusal is an answer, and what is unknown is written down.
            let _: Result<(), Failure> = self.carry_out(op).await;
        }
    }

    async fn carry_out(&mut self, op: Op) -> Result<(), Failure> {
        let namespace = self.pick(&self.load.namespaces.clone());
        let name = format!("p{}", self.chance.random_range(0..self.load.pods));
        match op {
            Op::Create => {
                let body = pod(&mut self.chance, &namespace, &name);
                let made = self.caller.create(POD, body).await?;
                self.learn(made);
            }
            Op::Delete => {
                let options = match self.chance.random_range(0..4_u32) {
                    0 => json!({}),
                    1 => json!({"gracePeriodSeconds": self.chance.random_range(1..40)}),
                    _ => json!({"gracePeriodSeconds": self.chance.random_range(1..5)}),
                };
                let gone = self.caller.delete(POD, &namespace, &name, options).await?;
                self.learn(gone);
            }
            Op::ForceDelete => {
                let options = json!({"gracePeriodSeconds": 0});
                self.caller.delete(POD, &namespace, &name, options).await?;
            }
            Op::DeleteExactly => {
                // By what it has seen, however long ago: the Pod of that name may be another one now.
                let known = self.known.get(&(namespace.clone(), name.clone())).cloned();
                let Some(known) = known else { return Ok(()) };
                let version = known.resource_version.to_string();
                let version = self.chance.random_bool(0.3).then_some(version);
                let demands = json!({"uid": known.uid, "resourceVersion": version});
                let options = json!({"preconditions": demands});
                self.caller.delete(POD, &namespace, &name, options).await?;
            }
            Op::BindAgain => {
                // As a scheduler does that stood still: the Pod of that name may be another one now, which waits.
                let known = self.known.get(&(namespace.clone(), name.clone()));
                let bound = |pod: &&Object| {
                    let node = pod.json.pointer("/spec/nodeName").and_then(Value::as_str);
                    node.is_some_and(|node| !node.is_empty())
                };
                let Some(known) = known.filter(bound).cloned() else { return Ok(()) };
                let node = self.pick(&self.load.nodes.clone());
                self.caller.bind(&known, &node).await?;
            }
            Op::Relabel => {
                let app = self.pick(&APPS);
                let change = json!({"metadata": {"labels": {"app": app}}});
                let changed = self.caller.patch(POD, &namespace, &name, change).await?;
                self.learn(changed);
            }
            Op::Release => {
                let change = json!({"metadata": {"finalizers": null}});
                self.caller.patch(POD, &namespace, &name, change).await?;
            }
            Op::Get => {
                let found = self.caller.get(POD, &namespace, &name, false).await?;
                self.learn(found);
            }
            Op::List => {
                let (_, all) = self.caller.list(POD, &namespace, false).await?;
                all.into_iter().for_each(|pod| self.learn(Some(pod)));
            }
            Op::Cached => {
                if self.chance.random_bool(0.5) {
                    self.caller.list(POD, &namespace, true).await?;
                } else {
                    self.caller.get(POD, &namespace, &name, true).await?;
                }
            }
            Op::Evict => self.caller.evict(&namespace, &name).await?,
            Op::Cordon => {
                let node = self.pick(&self.load.nodes.clone());
                let closed = self.chance.random_bool(0.4);
                let change = json!({"spec": {"unschedulable": closed}});
                self.caller.patch(NODE, "", &node, change).await?;
            }
            Op::Taint => {
                let node = self.pick(&self.load.nodes.clone());
                let effect = ["NoSchedule", "NoExecute"].choose(&mut self.chance).copied();
                let effect = effect.filter(|_| self.chance.random_bool(0.4));
                self.taint(&node, effect).await?;
            }
            Op::DeleteNode => {
                let node = self.pick(&self.load.nodes.clone());
                self.caller.delete(NODE, "", &node, json!({})).await?;
            }
            Op::PutService => {
                let name = format!("s{}", self.chance.random_range(0..SERVICES));
                let app = self.pick(&APPS);
                let selector = json!({"selector": {"app": app}});
                match self.caller.patch(SERVICE, &namespace, &name, json!({"spec": selector})).await
                {
                    Err(Failure::Refused(404)) => {
                        let service = json!({
                            "apiVersion": "v1", "kind": "Service",
                            "metadata": {"name": name, "namespace": namespace},
                            "spec": {"selector": {"app": app}, "ports": [{"port": 80}]},
                        });
                        self.caller.create(SERVICE, service).await?;
                    }
                    Ok(_) => {}
                    Err(failure) => return Err(failure),
                }
            }
            Op::DeleteService => {
                let name = format!("s{}", self.chance.random_range(0..SERVICES));
                self.caller.delete(SERVICE, &namespace, &name, json!({})).await?;
            }
            Op::CreateNamespace => self.create_namespace(&namespace).await?,
            Op::DeleteNamespace if namespace == "default" => {}
            Op::DeleteNamespace => {
                self.caller.delete(NAMESPACE, "", &namespace, json!({})).await?;
            }
        }
        Ok(())
    }

    async fn create_namespace(&self, name: &str) -> Result<(), Failure> {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.caller.create(NAMESPACE, body).await.map(drop)
    }

    /// Leaves the taints alone that others have put there.
    async fn taint(&mut self, node: &str, effect: Option<&str>) -> Result<(), Failure> {
        let Some(found) = self.caller.get(NODE, "", node, false).await? else { return Ok(()) };
        let body = with_taint(&found.json, effect);
        self.caller.update(NODE, &found, body).await.map(drop)
    }

    fn pick<T: AsRef<str>>(&mut self, from: &[T]) -> String {
        from.choose(&mut self.chance).map(|one| one.as_ref().to_owned()).unwrap_or_default()
    }

    fn learn(&mut self, seen: Option<Object>) {
        if let Some(seen) = seen {
            self.known.insert((seen.namespace.clone(), seen.name.clone()), seen);
        }
    }
}

/// A node's object with the clients' taint so, or without.
pub(crate) fn with_taint(node: &Value, effect: Option<&str>) -> Value {
    let mut node = node.clone();
    let taints = node.pointer("/spec/taints").and_then(Value::as_array);
    let mut taints: Vec<Value> = taints.cloned().unwrap_or_default();
    taints.retain(|taint| taint["key"] != TAINT);
    taints.extend(effect.map(|effect| json!({"key": TAINT, "effect": effect})));
    if let Some(fields) = node.as_object_mut() {
        let spec = fields.entry("spec").or_insert_with(|| json!({}));
        set(spec, "taints", taints.into());
    }
    node
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
}

/// A Pod whose containers live as chance has it.
fn pod(chance: &mut StdRng, namespace: &str, name: &str) -> Value {
    let mut annotations = serde_json::Map::new();
    let count = if chance.random_bool(0.2) { 2 } else { 1 };
    let mut containers = Vec::new();
    for at in 0..count {
        let container = format!("c{at}");
        let script = script(chance);
        if !script.is_empty() {
            annotations.insert(format!("fake.trireme.local/{container}"), script.into());
        }
        let mut spec = json!({
            "name": container, "image": "registry.example/app:1", "command": ["run"],
            "resources": {"requests": {
                "cpu": format!("{}m", chance.random_range(1..12) * 100),
                "memory": format!("{}Mi", chance.random_range(1..10) * 64),
            }},
        });
        if chance.random_bool(0.15) {
            let hook = json!({"preStop": {"exec": {"command": ["hook"]}}});
            set(&mut spec, "lifecycle", hook);
        }
        containers.push(spec);
    }
    let policy = ["Always", "Always", "OnFailure", "Never"].choose(chance).copied();
    let grace = [0, 1, 2, 5, 30].choose(chance).copied();
    let mut spec = json!({
        "containers": containers,
        "restartPolicy": policy,
        // A volume with files in it is on this machine's real disk.
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": grace,
        // A node that is lost is given up soon.
        "tolerations": [
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
             "tolerationSeconds": chance.random_range(1..30)},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
             "tolerationSeconds": chance.random_range(1..30)},
        ],
    });
    if chance.random_bool(0.2)
        && let Some(tolerations) = spec.get_mut("tolerations").and_then(Value::as_array_mut)
    {
        tolerations.push(json!({"key": TAINT, "operator": "Exists"}));
    }
    if chance.random_bool(0.2) {
        set(&mut spec, "volumes", json!([{"name": "cache", "emptyDir": {}}]));
        if let Some(first) = spec.pointer_mut("/containers/0") {
            set(first, "volumeMounts", json!([{"name": "cache", "mountPath": "/cache"}]));
        }
    }
    let finalizers: &[&str] = if chance.random_bool(0.1) { &[FINALIZER] } else { &[] };
    let app = APPS.choose(chance).copied();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": namespace, "labels": {"app": app},
            "annotations": annotations, "finalizers": finalizers,
        },
        "spec": spec,
    })
}

/// A container's life, in the words of the fake runtime; mostly it just runs.
fn script(chance: &mut StdRng) -> String {
    let mut words = Vec::new();
    if chance.random_bool(0.3) {
        words.push(format!("start={}ms", chance.random_range(1..2000)));
    }
    match chance.random_range(0..10_u32) {
        0 => words.push(format!("exit=0@{}s", chance.random_range(0..20))),
        1 => words.push(format!("exit=1@{}s times=2", chance.random_range(0..5))),
        2 => words.push("term=ignore".to_owned()),
        3 => words.push(format!("term=0@{}ms", chance.random_range(1..8000))),
        _ => {}
    }
    if chance.random_bool(0.1) {
        words.push(format!("exec=0@{}s", chance.random_range(0..10)));
    }
    words.join(" ")
}

/// The kinds whose every change is watched.
pub(crate) const WATCHED: [Kind; 4] = [POD, NODE, NAMESPACE, super::caller::SLICE];

#[cfg(test)]
mod tests {
    use super::*;
    use kubelet::runtime::fake::script::ContainerScript;
    use rand::SeedableRng as _;

    #[test]
    fn drawn_pods_are_pods_with_scripts_that_can_be_read() {
        let mut chance = StdRng::seed_from_u64(1);
        let mut scripts = 0;
        for _ in 0..300 {
            let drawn = pod(&mut chance, "default", "p");
            let _: api::core::Pod = serde_json::from_value(drawn.clone()).unwrap();
            for (_, script) in drawn["metadata"]["annotations"].as_object().unwrap() {
                ContainerScript::parse(script.as_str().unwrap()).unwrap();
                scripts += 1;
            }
        }
        assert!(scripts > 100, "{scripts}");
    }

    #[test]
    fn a_taint_is_put_beside_those_of_others_and_taken_off_again() {
        let node = json!({"spec": {"taints": [{"key": "node.kubernetes.io/not-ready"}]}});
        let tainted = with_taint(&with_taint(&node, Some("NoExecute")), Some("NoSchedule"));
        let taints = tainted["spec"]["taints"].as_array().unwrap();
        assert_eq!(taints.len(), 2);
        assert_eq!(taints[1]["effect"], "NoSchedule");
        assert_eq!(with_taint(&tainted, None), node);
    }
}
