//! Whether a Pod is let onto the node, by what the node itself knows (§6.7).

use crate::step::Verdict;
use api::{
    core::Pod,
    resources::{Amounts, amounts, pod_requests},
};
use std::collections::{BTreeMap, BTreeSet};

/// What the node has, and which labels are its own to say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Offer {
    /// Cpu in thousandths, memory in bytes, `pods`.
    pub(crate) allocatable: Amounts,
    /// Labels that this agent registers. Others may have added more: a selector for one that is not
    /// here is not judged.
    pub(crate) labels: BTreeMap<String, String>,
}

impl Offer {
    /// As in the Node that is registered.
    pub(crate) fn of(node: &serde_json::Value) -> Self {
        let node: api::core::Node = serde_json::from_value(node.clone()).unwrap_or_default();
        let allocatable = node.status.and_then(|status| status.allocatable);
        Self {
            allocatable: amounts(allocatable.as_ref()),
            labels: node.metadata.labels.unwrap_or_default(),
        }
    }
}

/// Ports of the host that a Pod takes: protocol and number.
fn host_ports(pod: &Pod) -> BTreeSet<(String, i32)> {
    let spec = pod.spec.as_ref();
    let inits = spec.iter().flat_map(|s| s.init_containers.iter().flatten());
    let all = inits.filter(|c| api::resources::is_sidecar(c));
    let all = all.chain(spec.iter().flat_map(|s| &s.containers));
    let ports = all.flat_map(|c| c.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        let number = port.host_port.filter(|port| *port > 0)?;
        Some((port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), number))
    });
    taken.collect()
}

fn rejected(reason: &str, why: &str) -> Verdict {
    let (reason, message) = (reason.to_owned(), format!("Pod was rejected: {why}"));
    Verdict { reason, message, rejected: true }
}

/// Why the Pod is not let in beside those that are.
pub(crate) fn refusal(offer: &Offer, here: &[Pod], pod: &Pod) -> Option<Verdict> {
    let spec = pod.spec.as_ref()?;
    let predicate =
        |name: &str, why: &str| Some(rejected(name, &format!("Predicate {name} failed: {why}")));
    let selector = spec.node_selector.iter().flatten();
    let mut known = selector.filter_map(|(key, want)| Some((offer.labels.get(key)?, want)));
    if known.any(|(label, want)| label != want) {
        return predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector");
    }
    let taken: BTreeSet<(String, i32)> = here.iter().flat_map(host_ports).collect();
    if !host_ports(pod).is_disjoint(&taken) {
        let why = "node(s) didn't have free ports for the requested pod ports";
        return predicate("NodePorts", why);
    }
    let mut asked = pod_requests(pod);
    asked.insert("pods".to_owned(), 1);
    let mut used =
        Amounts::from([("pods".to_owned(), i64::try_from(here.len()).unwrap_or(i64::MAX))]);
    for (name, amount) in here.iter().flat_map(pod_requests) {
        let now = used.entry(name).or_default();
        *now = now.saturating_add(amount);
    }
    for (name, requested) in asked.into_iter().filter(|(_, requested)| *requested > 0) {
        let used = used.get(&name).copied().unwrap_or_default();
        let capacity = offer.allocatable.get(&name).copied().unwrap_or_default();
        if used.saturating_add(requested) > capacity {
            let why = format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, \
                 capacity: {capacity}"
            );
            return Some(rejected(&format!("OutOf{name}"), &why));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use serde_json::{Value, json};

    fn asks(cpu: &str) -> Pod {
        pod(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}))
    }

    fn with_port(port: i32, protocol: &str) -> Pod {
        let port = json!({"containerPort": 80, "hostPort": port, "protocol": protocol});
        pod(json!({"containers": [{"name": "a", "ports": [port]}]}))
    }

    fn selecting(key: &str, value: &str) -> Pod {
        pod(json!({"nodeSelector": {key: value}, "containers": [{"name": "a"}]}))
    }

    #[test]
    fn a_pod_is_let_in_if_there_is_room() {
        // §6.7, C5
        let node = |pods: &str| -> Value {
            json!({
                "metadata": {"name": "n", "labels": {"disk": "ssd"}},
                "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": pods}},
            })
        };
        let cpu = "Pod was rejected: Node didn't have enough resource: cpu, requested: 2000, used: \
                   1500, capacity: 2000";
        let ports = "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports \
                     for the requested pod ports";
        let affinity = "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's \
                        node affinity/selector";
        let full = "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: \
                    1, capacity: 1";
        for (name, pods, here, pod, want) in [
            ("fits", "9", vec![asks("1500m")], asks("500m"), None),
            ("no cpu", "9", vec![asks("1500m")], asks("2"), Some(("OutOfcpu", cpu))),
            ("asks for nothing", "9", vec![asks("3")], asks("0"), None),
            ("no slot", "1", vec![asks("0")], asks("0"), Some(("OutOfpods", full))),
            (
                "port taken",
                "9",
                vec![with_port(80, "TCP")],
                with_port(80, "TCP"),
                Some(("NodePorts", ports)),
            ),
            ("another protocol", "9", vec![with_port(80, "TCP")], with_port(80, "UDP"), None),
            ("label", "9", vec![], selecting("disk", "ssd"), None),
            (
                "other label",
                "9",
                vec![],
                selecting("disk", "hdd"),
                Some(("NodeAffinity", affinity)),
            ),
            ("a label that others set", "9", vec![], selecting("team", "a"), None),
        ] {
            let verdict = refusal(&Offer::of(&node(pods)), &here, &pod);
            let found = verdict.as_ref().map(|v| (v.reason.as_str(), v.message.as_str()));
            assert_eq!(found, want, "{name}");
        }
        let verdict = refusal(&Offer::of(&node("9")), &[], &asks("3")).unwrap();
        assert!(verdict.rejected && verdict.reason == "OutOfcpu");
    }
}
