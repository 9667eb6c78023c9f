//! Which node: filters in upstream's order, then scores; ties go to the first name.

use crate::cache::{Cache, HostPort, NodeInfo, host_ports};
use api::{
    core::{Node, Pod, PodSpec, Taint},
    resources::{self, Amounts},
    scheduling::{node_matches, tolerates, tolerations},
};
use std::{collections::BTreeMap, fmt};

/// The taint of a cordoned node.
pub(crate) const CORDON: &str = "node.kubernetes.io/unschedulable";

/// Why one node was refused (§5.3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Cordoned.
    Unschedulable,
    /// `spec.nodeName` is another.
    NodeName,
    /// A taint that the Pod does not tolerate.
    Taint,
    /// Selector or required affinity.
    Affinity,
    /// A host port is taken.
    Ports,
    /// As many Pods as the node takes.
    TooManyPods,
    /// Not enough of it left.
    Insufficient(String),
}

impl Reason {
    /// Whether taking Pods off the node could help.
    const fn preemption_may_help(&self) -> bool {
        match self {
            Self::Ports | Self::TooManyPods | Self::Insufficient(_) => true,
            Self::Unschedulable | Self::NodeName | Self::Taint | Self::Affinity => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unschedulable => "node(s) were unschedulable",
            Self::NodeName => "node(s) didn't match the requested node name",
            Self::Taint => "node(s) had untolerated taint(s)",
            Self::Affinity => "node(s) didn't match Pod's node affinity/selector",
            Self::Ports => "node(s) didn't have free ports for the requested pod ports",
            Self::TooManyPods => "Too many pods",
            Self::Insufficient(resource) => return write!(f, "Insufficient {resource}"),
        })
    }
}

/// No node takes the Pod now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub struct FitError {
    /// Nodes that were looked at.
    pub nodes: usize,
    /// Nodes by reason; a node that lacks two things counts twice.
    pub reasons: BTreeMap<Reason, usize>,
    /// Nodes on which preemption could not help.
    pub unhelpful: usize,
}

fn counted(nodes: usize, counts: impl IntoIterator<Item = (usize, String)>) -> String {
    let mut parts: Vec<String> =
        counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, text)| format!("{n} {text}")).collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}

impl FitError {
    /// The text of `FailedScheduling` (§5.9).
    #[must_use]
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let reasons = self.reasons.iter().map(|(reason, n)| (*n, reason.to_string()));
        let preemption = [
            (self.unhelpful, "Preemption is not helpful for scheduling".to_owned()),
            (
                self.nodes - self.unhelpful,
                "No preemption victims found for incoming pod".to_owned(),
            ),
        ];
        format!("{} preemption: {}", counted(self.nodes, reasons), counted(self.nodes, preemption))
    }
}

/// The best node for a Pod.
///
/// # Errors
/// [`FitError`] with every node's reasons; try again when a node or a Pod on one has changed.
pub fn schedule(cache: &Cache, pod: &Pod) -> Result<String, FitError> {
    let Some(spec) = &pod.spec else {
        return Err(FitError { nodes: 0, reasons: BTreeMap::new(), unhelpful: 0 });
    };
    let wanted = resources::pod_requests(pod);
    let ports = host_ports(pod);
    let mut error = FitError { nodes: 0, reasons: BTreeMap::new(), unhelpful: 0 };
    let mut feasible = Vec::new();
    for (name, info) in cache.nodes() {
        let Some(node) = &info.node else { continue };
        error.nodes += 1;
        let (wanted, ports) = (&wanted, ports.as_slice());
        let reasons = filter(&Candidate { name, node, info, spec, wanted, ports });
        if reasons.is_empty() {
            feasible.push((name, node.as_ref(), info));
        }
        error.unhelpful += usize::from(reasons.iter().any(|r| !r.preemption_may_help()));
        for reason in reasons {
            *error.reasons.entry(reason).or_default() += 1;
        }
    }
    let scores = score(&feasible, pod, spec, &wanted);
    feasible
        .iter()
        .zip(scores)
        // The first of equals: names ascend, and `max_by_key` would take the last.
        .min_by_key(|((name, _, _), score)| (-score, *name))
        .map(|((name, _, _), _)| (*name).to_owned())
        .ok_or(error)
}

pub(crate) fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

/// A Pod, and a node that may take it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) name: &'a str,
    pub(crate) node: &'a Node,
    pub(crate) info: &'a NodeInfo,
    pub(crate) spec: &'a PodSpec,
    pub(crate) wanted: &'a Amounts,
    pub(crate) ports: &'a [HostPort],
}

/// What keeps the Pod off the node by one filter; empty if nothing does.
type Filter = fn(&Candidate<'_>) -> Vec<Reason>;

/// In upstream's order.
const FILTERS: [Filter; 6] =
    [unschedulable, other_name, tainted, unmatched, ports_taken, without_room];

/// The reasons of the first filter that refuses: upstream asks no further.
fn filter(candidate: &Candidate<'_>) -> Vec<Reason> {
    FILTERS.iter().map(|filter| filter(candidate)).find(|r| !r.is_empty()).unwrap_or_default()
}

/// The reasons of every filter.
pub(crate) fn all_reasons(candidate: &Candidate<'_>) -> Vec<Reason> {
    FILTERS.iter().flat_map(|filter| filter(candidate)).collect()
}

fn unschedulable(candidate: &Candidate<'_>) -> Vec<Reason> {
    let cordoned = candidate.node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true));
    let cordon =
        Taint { key: CORDON.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    only_if(cordoned && !tolerates(tolerations(candidate.spec), &cordon), Reason::Unschedulable)
}

fn other_name(candidate: &Candidate<'_>) -> Vec<Reason> {
    let wanted = candidate.spec.node_name.as_deref();
    let other = wanted.is_some_and(|wanted| !wanted.is_empty() && wanted != candidate.name);
    only_if(other, Reason::NodeName)
}

/// Whether a taint keeps new Pods off that do not tolerate it.
pub(crate) fn repels(taint: &Taint) -> bool {
    matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
}

fn tainted(candidate: &Candidate<'_>) -> Vec<Reason> {
    let tolerations = tolerations(candidate.spec);
    let mut repelling = taints(candidate.node).iter().filter(|taint| repels(taint));
    only_if(repelling.any(|taint| !tolerates(tolerations, taint)), Reason::Taint)
}

fn unmatched(candidate: &Candidate<'_>) -> Vec<Reason> {
    only_if(!node_matches(candidate.spec, candidate.node), Reason::Affinity)
}

/// Whether two host ports cannot be held at once.
pub(crate) fn clash(a: &HostPort, b: &HostPort) -> bool {
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
    a.0 == b.0 && a.2 == b.2 && (a.1 == b.1 || any(&a.1) || any(&b.1))
}

fn ports_taken(candidate: &Candidate<'_>) -> Vec<Reason> {
    let held = |port: &HostPort| candidate.info.ports.keys().any(|other| clash(port, other));
    only_if(candidate.ports.iter().any(held), Reason::Ports)
}

fn without_room(candidate: &Candidate<'_>) -> Vec<Reason> {
    let info = candidate.info;
    let mut reasons = Vec::new();
    if info.allocatable.get("pods").is_some_and(|most| info.pods + 1 > *most) {
        reasons.push(Reason::TooManyPods);
    }
    for (resource, amount) in candidate.wanted.iter().filter(|(_, amount)| **amount > 0) {
        if *amount > info.left(resource) {
            reasons.push(Reason::Insufficient(resource.clone()));
        }
    }
    reasons
}

fn only_if(refused: bool, reason: Reason) -> Vec<Reason> {
    if refused { vec![reason] } else { Vec::new() }
}

/// Totals of §5.4 for nodes that all take the Pod.
fn score(
    feasible: &[(&str, &Node, &NodeInfo)],
    pod: &Pod,
    spec: &PodSpec,
    wanted: &Amounts,
) -> Vec<i64> {
    let preferred: Vec<i64> = feasible.iter().map(|(n, node, _)| affinity(n, node, spec)).collect();
    let most = preferred.iter().copied().max().unwrap_or_default();
    let bad: Vec<i64> = feasible.iter().map(|(_, node, _)| avoided(node, spec)).collect();
    let worst = bad.iter().copied().max().unwrap_or_default();
    let scoring = resources::scoring_requests(pod);
    feasible
        .iter()
        .zip(preferred.iter().zip(&bad))
        .map(|((_, _, info), (preferred, bad))| {
            let free = &info.allocatable;
            let of = |name: &str| free.get(name).copied().unwrap_or_default();
            let capacity = (of("cpu"), of("memory"));
            let used = (info.scoring.0 + scoring.0, info.scoring.1 + scoring.1);
            let taint = if worst == 0 { 100 } else { 100 - 100 * bad / worst };
            let affinity = if most == 0 { 0 } else { 100 * preferred / most };
            3 * taint
                + 2 * affinity
                + least_allocated(capacity, used)
                + balanced(capacity, info, wanted)
        })
        .collect()
}

fn avoided(node: &Node, spec: &PodSpec) -> i64 {
    let soft = taints(node).iter().filter(|t| t.effect == "PreferNoSchedule");
    i64::try_from(soft.filter(|t| !tolerates(tolerations(spec), t)).count()).unwrap_or(i64::MAX)
}

fn affinity(name: &str, node: &Node, spec: &PodSpec) -> i64 {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let terms = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
    let fits = |t: &&api::k8s_openapi::api::core::v1::PreferredSchedulingTerm| {
        api::scheduling::term_matches(&t.preference, labels, name)
    };
    terms.unwrap_or_default().iter().filter(fits).map(|t| i64::from(t.weight)).sum()
}

/// Free share in percent, averaged over cpu and memory.
fn least_allocated(capacity: (i64, i64), used: (i64, i64)) -> i64 {
    let one = |capacity: i64, used: i64| {
        if capacity <= 0 || used > capacity {
            return 0;
        }
        let free = i128::from(capacity - used) * 100 / i128::from(capacity);
        i64::try_from(free).unwrap_or_default()
    };
    i64::midpoint(one(capacity.0, used.0), one(capacity.1, used.1))
}

/// How much more even the node's cpu and memory are used with the Pod than without.
fn balanced(capacity: (i64, i64), info: &NodeInfo, wanted: &Amounts) -> i64 {
    let of = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or_default();
    if of(wanted, "cpu") == 0 && of(wanted, "memory") == 0 {
        return 0;
    }
    // In millionths, so that every replica and every build gets the same integer.
    let share = |used: i64, capacity: i64| {
        if capacity <= 0 {
            1_000_000
        } else {
            (i128::from(used) * 1_000_000 / i128::from(capacity)).min(1_000_000)
        }
    };
    let evenness = |cpu: i64, memory: i64| {
        let difference = (share(cpu, capacity.0) - share(memory, capacity.1)).abs();
        (1_000_000 - difference / 2) * 100 / 1_000_000
    };
    let (cpu, memory) = (of(&info.requested, "cpu"), of(&info.requested, "memory"));
    let with = evenness(cpu + of(wanted, "cpu"), memory + of(wanted, "memory"));
    i64::try_from(50 + (50 + with - evenness(cpu, memory)) / 2).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn node(name: &str, cpu: &str, memory: &str, spec: serde_json::Value) -> Arc<Node> {
        let amounts = serde_json::json!({"cpu": cpu, "memory": memory, "pods": "110"});
        Arc::new(
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": name, "labels": {"zone": name}}, "spec": spec,
                "status": {"allocatable": amounts},
            }))
            .unwrap(),
        )
    }

    fn pod(uid: &str, cpu: &str, memory: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": uid, "uid": uid},
            "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]},
        }))
        .unwrap()
    }

    fn empty() -> serde_json::Value {
        serde_json::json!({})
    }

    #[test]
    fn scores_are_upstreams() {
        // §5.4, vectors (a) and (b)
        let gib = 1 << 30;
        assert_eq!(least_allocated((4000, 8 * gib), (1500, 3 * gib)), 62);
        let requested = Amounts::from([("cpu".to_owned(), 1000), ("memory".to_owned(), 2 * gib)]);
        let used = NodeInfo { requested, ..NodeInfo::default() };
        let wanted =
            |cpu, memory| Amounts::from([("cpu".to_owned(), cpu), ("memory".to_owned(), memory)]);
        assert_eq!(balanced((4000, 8 * gib), &used, &wanted(500, gib)), 75);
        assert_eq!(least_allocated((4000, 8 * gib), (2000, gib)), 68);
        assert_eq!(balanced((4000, 8 * gib), &NodeInfo::default(), &wanted(2000, gib)), 65);
    }

    #[test]
    fn the_emptier_node_wins_and_equals_go_by_name() {
        let mut cache = Cache::default();
        for name in ["b", "a"] {
            cache.set_node(node(name, "4", "8Gi", empty()));
        }
        let first = schedule(&cache, &pod("1", "500m", "1Gi")).unwrap();
        assert_eq!(first, "a");
        cache.assume(&pod("1", "500m", "1Gi"), &first);
        assert_eq!(schedule(&cache, &pod("2", "500m", "1Gi")).unwrap(), "b");
    }

    #[test]
    fn a_node_is_never_overcommitted() {
        // S12, INV-2
        let mut cache = Cache::default();
        cache.set_node(node("a", "2", "8Gi", empty()));
        for i in 0..4 {
            let pod = pod(&i.to_string(), "500m", "1Gi");
            let at = schedule(&cache, &pod).unwrap();
            cache.assume(&pod, &at);
        }
        let refused = schedule(&cache, &pod("5", "500m", "1Gi")).unwrap_err();
        assert_eq!(
            refused.message(),
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
             1 No preemption victims found for incoming pod."
        );
        cache.forget("0");
        assert!(schedule(&cache, &pod("5", "500m", "1Gi")).is_ok());
    }

    #[test]
    fn every_reason_is_counted_as_upstream_prints_it() {
        // §5.9, A3
        let mut cache = Cache::default();
        assert_eq!(
            schedule(&cache, &pod("p", "1", "1Gi")).unwrap_err().message(),
            "no nodes available to schedule pods"
        );
        for i in 0..2 {
            let taint = serde_json::json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
            cache.set_node(node(&format!("t{i}"), "4", "8Gi", taint));
        }
        for i in 0..3 {
            cache.set_node(node(&format!("n{i}"), "4", "8Gi", empty()));
        }
        assert_eq!(
            schedule(&cache, &pod("p", "100", "1Gi")).unwrap_err().message(),
            "0/5 nodes are available: 2 node(s) had untolerated taint(s), 3 Insufficient cpu. \
             preemption: 0/5 nodes are available: 2 Preemption is not helpful for scheduling, \
             3 No preemption victims found for incoming pod."
        );
    }

    #[test]
    fn selectors_cordons_and_ports_decide() {
        let mut cache = Cache::default();
        cache.set_node(node("a", "4", "8Gi", serde_json::json!({"unschedulable": true})));
        cache.set_node(node("b", "4", "8Gi", empty()));
        assert_eq!(schedule(&cache, &pod("1", "1", "1Gi")).unwrap(), "b");
        let mut picky = pod("2", "1", "1Gi");
        picky.spec.as_mut().unwrap().node_selector =
            Some(BTreeMap::from([("zone".to_owned(), "c".to_owned())]));
        let reasons = schedule(&cache, &picky).unwrap_err().reasons;
        assert_eq!(reasons, BTreeMap::from([(Reason::Unschedulable, 1), (Reason::Affinity, 1)]));
        let with_port = |uid: &str| {
            let mut pod = pod(uid, "1", "1Gi");
            pod.spec.as_mut().unwrap().containers[0].ports = Some(vec![api::core::ContainerPort {
                container_port: 80,
                host_port: Some(80),
                ..Default::default()
            }]);
            pod
        };
        cache.assume(&with_port("3"), "b");
        assert!(
            schedule(&cache, &with_port("4")).unwrap_err().reasons.contains_key(&Reason::Ports)
        );
    }

    #[test]
    fn what_is_kept_of_a_pod_is_decided_as_the_whole() {
        // In each row one field decides, so that a copy without it would go elsewhere.
        let mut cache = Cache::default();
        let tainted = serde_json::json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
        cache.set_node(node("a", "2", "2Gi", empty()));
        cache.set_node(node("b", "4", "8Gi", empty()));
        cache.set_node(node("c", "8", "16Gi", tainted));
        cache.set_node(node("d", "4", "8Gi", empty()));
        let requests = |cpu: &str| serde_json::json!({"requests": {"cpu": cpu}});
        let plain = serde_json::json!([{"name": "a"}]);
        let of = |spec: serde_json::Value| -> Pod {
            serde_json::from_value(serde_json::json!({"metadata": {"uid": "p"}, "spec": spec}))
                .unwrap()
        };
        let holds_port = of(serde_json::json!({"containers": [{"name": "a", "ports": [
            {"containerPort": 80, "hostPort": 80}]}]}));
        for name in ["a", "b"] {
            let mut other = holds_port.clone();
            other.metadata.uid = Some(name.to_owned());
            cache.assume(&other, name);
        }
        let zone =
            |name: &str| serde_json::json!([{"key": "zone", "operator": "In", "values": [name]}]);
        let undecided = schedule(&cache, &of(serde_json::json!({"containers": plain})));
        assert_eq!(undecided, Ok("d".to_owned()));
        for (name, spec) in [
            ("nodeSelector", serde_json::json!({"nodeSelector": {"zone": "a"}})),
            ("nodeName", serde_json::json!({"nodeName": "b"})),
            (
                "required affinity",
                serde_json::json!({"affinity": {"nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{"matchExpressions": zone("b")}]}}}}),
            ),
            (
                "preferred affinity",
                serde_json::json!({"affinity": {"nodeAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {"weight": 100, "preference": {"matchExpressions": zone("b")}}]}}}),
            ),
            (
                "tolerations",
                serde_json::json!({"tolerations": [{"operator": "Exists"}],
                    "nodeSelector": {"zone": "c"}}),
            ),
            (
                "requests",
                serde_json::json!({"containers": [{"name": "a", "resources": requests("100")}]}),
            ),
            ("requests of the Pod", serde_json::json!({"resources": requests("100")})),
            ("overhead", serde_json::json!({"overhead": {"cpu": "100"}})),
            (
                "an init container",
                serde_json::json!({"initContainers": [{"name": "i", "resources": requests("100")}]}),
            ),
            (
                "two sidecars",
                serde_json::json!({"initContainers": [
                    {"name": "i", "restartPolicy": "Always", "resources": requests("3")},
                    {"name": "j", "restartPolicy": "Always", "resources": requests("3")}]}),
            ),
            (
                "host ports",
                serde_json::json!({"nodeSelector": {"zone": "a"}, "containers": [
                    {"name": "a", "ports": [{"containerPort": 80, "hostPort": 80}]}]}),
            ),
        ] {
            let mut spec = spec;
            spec.as_object_mut().unwrap().entry("containers").or_insert_with(|| plain.clone());
            let whole = of(spec);
            let decided = schedule(&cache, &whole);
            assert_ne!(decided, undecided, "{name}: decides nothing");
            let part = serde_json::from_value(serde_json::to_value(whole).unwrap()).unwrap();
            assert_eq!(schedule(&cache, &client::copies::pod(part)), decided, "{name}");
        }
    }
}
