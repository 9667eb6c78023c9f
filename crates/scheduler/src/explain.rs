//! Why nodes refuse a Pod, each with all of its reasons, and what would change that.
//!
//! Nothing is judged here: whether a node takes a Pod is asked of the same filters that decide, and a remedy is
//! one because it was tried on a copy, with [`schedule`].

use crate::{
    cache::{Cache, HostPort, NodeInfo, host_ports},
    decide::{CORDON, Candidate, Reason, all_reasons, clash, repels, schedule, taints},
};
use api::{
    core::{
        Container, Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, QuantityText,
    },
    core::{ResourceRequirements, Taint, Toleration},
    pod::has_ended,
    quantity::{Format, Quantity},
    resources,
    scheduling::{term_matches, tolerates, tolerations},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Nodes that remedies are looked for on: those that lack least.
const TRIED_MAX: usize = 64;
/// Remedies that are told.
const REMEDIES_MAX: usize = 5;
/// Changes of one remedy: nobody does more.
const CHANGES_MAX: usize = 8;
/// Pods that one remedy removes.
const REMOVED_MAX: usize = 4;

/// Taints that say what is wrong with a node: they go when it is well again.
const ILL: &[&str] = &[
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/network-unavailable",
];

/// What one node says.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The node.
    pub node: String,
    /// Everything that is in the way; empty if it would take the Pod.
    pub refusals: Vec<Refusal>,
}

/// One thing that is in the way.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// The node takes no new Pods.
    Cordoned,
    /// The Pod is for this other node.
    OtherNode(String),
    /// The Pod does not tolerate it.
    Taint(Taint),
    /// The node has not the label that `nodeSelector` asks for.
    Selector {
        /// The label.
        key: String,
        /// As the Pod wants it.
        wanted: String,
        /// As the node has it.
        found: Option<String>,
    },
    /// No term of the required node affinity accepts the node: for each, what of it does not.
    Affinity(Vec<String>),
    /// A host port is held by others.
    Port {
        /// `TCP` or the like.
        protocol: String,
        /// The number.
        number: i32,
        /// UIDs of the Pods that hold it.
        holders: Vec<String>,
    },
    /// It has as many Pods as it takes.
    Pods {
        /// Now.
        now: i64,
        /// At most.
        most: i64,
    },
    /// Too little is left; cpu in thousandths, everything else in whole units.
    Room {
        /// Such as `cpu`.
        resource: String,
        /// By the Pod.
        asked: i64,
        /// That nobody asked for.
        left: i64,
        /// On the whole node.
        total: i64,
    },
}

/// Something that somebody could do.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Lower what a container asks for.
    Lower {
        /// The container; empty for the Pod as a whole.
        container: String,
        /// Such as `cpu`.
        resource: String,
        /// Now.
        from: i64,
        /// Then.
        to: i64,
    },
    /// Give the Pod a toleration of this taint.
    Tolerate(Taint),
    /// Take this label out of the Pod's `nodeSelector`.
    Unselect(String),
    /// Take the required node affinity out of the Pod.
    DropAffinity,
    /// Let a node take Pods again.
    Uncordon(String),
    /// Take a taint off a node.
    Untaint(String, Taint),
    /// Make a node well again, so that this taint goes.
    Heal(String, Taint),
    /// Give a node a label.
    Label {
        /// The node.
        node: String,
        /// The label.
        key: String,
        /// Its value.
        value: String,
    },
    /// Take a Pod, by its UID, off its node.
    Remove(String),
    /// Add a node like this one.
    Add(String),
}

/// Changes after which the Pod is taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Remedy {
    /// All of them are needed.
    pub changes: Vec<Change>,
    /// The nodes that would take it; of a new node, none.
    pub nodes: Vec<String>,
    /// Other nodes that would take it after the same on them.
    pub alike: Vec<String>,
}

/// Everything that a decision depends on.
#[derive(Debug, Clone, Default)]
pub struct World {
    nodes: BTreeMap<String, Arc<Node>>,
    /// By the name of their node.
    pods: BTreeMap<String, Vec<Arc<Pod>>>,
}

impl World {
    /// As the API shows it.
    pub fn new(nodes: impl IntoIterator<Item = Node>, pods: impl IntoIterator<Item = Pod>) -> Self {
        let name = |node: &Node| node.metadata.name.clone().unwrap_or_default();
        let nodes = nodes.into_iter().map(|node| (name(&node), Arc::new(node))).collect();
        let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in pods {
            let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
            if !node.is_empty() && !has_ended(&pod) {
                by_node.entry(node).or_default().push(Arc::new(pod));
            }
        }
        Self { nodes, pods: by_node }
    }

    /// What [`schedule`] decides on.
    #[must_use]
    pub fn cache(&self) -> Cache {
        let mut cache = Cache::default();
        self.nodes.keys().for_each(|name| self.add_to(&mut cache, name));
        cache
    }

    /// What one node alone is to [`schedule`].
    fn only(&self, node: &str) -> Cache {
        let mut cache = Cache::default();
        self.add_to(&mut cache, node);
        cache
    }

    fn add_to(&self, cache: &mut Cache, name: &str) {
        if let Some(node) = self.nodes.get(name) {
            cache.set_node(Arc::clone(node));
        }
        self.on(name).iter().for_each(|pod| cache.set_pod(pod));
    }

    fn on(&self, node: &str) -> &[Arc<Pod>] {
        self.pods.get(node).map_or(&[], Vec::as_slice)
    }

    /// What every node says of the Pod, by name.
    #[must_use]
    pub fn verdicts(&self, pod: &Pod) -> Vec<Verdict> {
        let verdict = |name: &String| {
            let cache = self.only(name);
            Verdict { node: name.clone(), refusals: refusals(&cache, name, pod) }
        };
        self.nodes.keys().map(verdict).collect()
    }

    /// What could be done so that a node takes the Pod: the least first. Each was tried.
    #[must_use]
    pub fn remedies(&self, pod: &Pod, verdicts: &[Verdict]) -> Vec<Remedy> {
        let mut nearest: Vec<&Verdict> = verdicts.iter().collect();
        nearest.sort_by_key(|verdict| verdict.refusals.len());
        nearest.truncate(TRIED_MAX);
        let mut remedies: Vec<Remedy> = Vec::new();
        for verdict in nearest {
            for side in [Side::Pod, Side::Cluster] {
                let Some((changed, changes)) = self.plan(pod, &verdict.node, side) else {
                    continue;
                };
                if remedies.iter().any(|remedy| remedy.changes == changes) {
                    continue;
                }
                let nodes = if changes.iter().all(Change::is_of_the_pod) {
                    let takes = |node: &&String| schedule(&self.only(node), &changed).is_ok();
                    self.nodes.keys().filter(takes).cloned().collect()
                } else {
                    vec![verdict.node.clone()]
                };
                remedies.push(Remedy { changes, nodes, alike: Vec::new() });
            }
        }
        remedies.extend(self.another_node(pod));
        let cost = |remedy: &Remedy| remedy.changes.iter().map(Change::cost).sum::<u32>();
        let less = |remedy: &Remedy| remedy.changes.iter().map(Change::less).sum::<i64>();
        remedies.sort_by_key(|remedy| {
            let nodes = (std::cmp::Reverse(remedy.nodes.len()), remedy.nodes.clone());
            (cost(remedy), less(remedy), nodes)
        });
        let mut remedies = apart(remedies);
        remedies.truncate(REMEDIES_MAX);
        remedies
    }

    /// Changes one thing after another until the node takes the Pod; `None` if that cannot be done.
    fn plan(&self, pod: &Pod, node: &str, side: Side) -> Option<(Pod, Vec<Change>)> {
        let mut cache = self.only(node);
        let mut pod = pod.clone();
        let mut changes = Vec::new();
        while changes.len() <= CHANGES_MAX {
            let found = refusals(&cache, node, &pod);
            let Some(refusal) = found.first() else {
                // The decision itself, not what is behind it.
                let taken = schedule(&cache, &pod).is_ok_and(|taken| taken == node);
                return (taken && !changes.is_empty()).then_some((pod, changes));
            };
            for change in self.answer(&cache, &pod, node, refusal, side)? {
                apply(&change, &mut cache, &mut pod);
                changes.push(change);
            }
        }
        None
    }

    /// What could be done about one refusal.
    fn answer(
        &self,
        cache: &Cache,
        pod: &Pod,
        node: &str,
        refusal: &Refusal,
        side: Side,
    ) -> Option<Vec<Change>> {
        let one = |change| Some(vec![change]);
        let here = || node.to_owned();
        match refusal {
            Refusal::OtherNode(_) => None,
            Refusal::Cordoned => one(Change::Uncordon(here())),
            Refusal::Taint(taint) if ILL.contains(&taint.key.as_str()) => {
                one(Change::Heal(here(), taint.clone()))
            }
            Refusal::Taint(taint) if side == Side::Pod => one(Change::Tolerate(taint.clone())),
            Refusal::Taint(taint) => one(Change::Untaint(here(), taint.clone())),
            Refusal::Selector { key, .. } if side == Side::Pod => {
                one(Change::Unselect(key.clone()))
            }
            Refusal::Selector { key, wanted, .. } => {
                one(Change::Label { node: here(), key: key.clone(), value: wanted.clone() })
            }
            Refusal::Affinity(_) if side == Side::Pod => one(Change::DropAffinity),
            Refusal::Affinity(_) => self.label(pod, node),
            Refusal::Port { holders, .. } => {
                Some(holders.iter().cloned().map(Change::Remove).collect())
            }
            Refusal::Room { resource, asked, left, .. } if side == Side::Pod && *left > 0 => {
                lower(pod, resource, asked - left)
            }
            Refusal::Pods { .. } | Refusal::Room { .. } => self.make_room(cache, pod, node),
        }
    }

    /// The labels after which a term of the required affinity accepts the node, if labels can do that.
    fn label(&self, pod: &Pod, node: &str) -> Option<Vec<Change>> {
        let labels = self.nodes.get(node)?.metadata.labels.clone().unwrap_or_default();
        let terms = required(pod.spec.as_ref()?);
        let answers = terms.iter().filter_map(|term| {
            let mut labels = labels.clone();
            let mut changes = Vec::new();
            for requirement in term.match_expressions.iter().flatten() {
                if term_matches(&alone(requirement, false), &labels, node) {
                    continue;
                }
                let value = match requirement.operator.as_str() {
                    "In" => requirement.values.iter().flatten().next()?.clone(),
                    "Exists" => String::new(),
                    _ => return None,
                };
                let key = requirement.key.clone();
                labels.insert(key.clone(), value.clone());
                changes.push(Change::Label { node: node.to_owned(), key, value });
            }
            (!changes.is_empty() && term_matches(term, &labels, node)).then_some(changes)
        });
        answers.min_by_key(Vec::len)
    }

    /// The Pods to take off a node so that it has room: one that is enough by itself if there is one, the least
    /// important and the smallest first.
    fn make_room(&self, cache: &Cache, pod: &Pod, node: &str) -> Option<Vec<Change>> {
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        let still: BTreeSet<&str> = cache.pods_on(node).collect();
        let mut others: Vec<&Arc<Pod>> =
            self.on(node).iter().filter(|other| still.contains(uid(other).as_str())).collect();
        let priority = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.priority).unwrap_or_default();
        let size = |pod: &Pod| resources::scoring_requests(pod);
        others.sort_by_key(|other| (priority(other), size(other), other.metadata.name.clone()));
        let has_room = |cache: &Cache| {
            let short = |r: &Refusal| matches!(r, Refusal::Pods { .. } | Refusal::Room { .. });
            !refusals(cache, node, pod).iter().any(short)
        };
        let enough = others.iter().find(|other| {
            let mut cache = cache.clone();
            cache.remove_pod(&uid(other));
            has_room(&cache)
        });
        if let Some(other) = enough {
            return Some(vec![Change::Remove(uid(other))]);
        }
        let mut cache = cache.clone();
        let mut removed = Vec::new();
        // The large ones of the least important, so that it is few.
        others.sort_by_key(|other| (priority(other), std::cmp::Reverse(size(other))));
        for other in others.into_iter().take(REMOVED_MAX) {
            cache.remove_pod(&uid(other));
            removed.push(Change::Remove(uid(other)));
            if has_room(&cache) {
                return Some(removed);
            }
        }
        None
    }

    /// The smallest node whose empty twin would take the Pod.
    fn another_node(&self, pod: &Pod) -> Option<Remedy> {
        let twin = |node: &Arc<Node>| {
            let mut twin = Node::clone(node);
            if let Some(spec) = &mut twin.spec {
                spec.unschedulable = None;
                let ill = |taint: &Taint| ILL.contains(&taint.key.as_str()) || taint.key == CORDON;
                spec.taints.get_or_insert_default().retain(|taint| !ill(taint));
            }
            let mut cache = Cache::default();
            cache.set_node(Arc::new(twin));
            cache
        };
        let size = |node: &Arc<Node>| {
            let offered = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
            let amounts = resources::amounts(offered);
            let of = |name: &str| amounts.get(name).copied().unwrap_or_default();
            (of("cpu"), of("memory"))
        };
        let fits = self.nodes.iter().filter(|(_, node)| schedule(&twin(node), pod).is_ok());
        let (name, _) = fits.min_by_key(|(name, node)| (size(node), (*name).clone()))?;
        let changes = vec![Change::Add(name.clone())];
        Some(Remedy { changes, nodes: Vec::new(), alike: Vec::new() })
    }

    /// A Pod on a node, by its UID.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<&Pod> {
        let mut all = self.pods.values().flatten();
        all.find(|pod| pod.metadata.uid.as_deref() == Some(uid)).map(Arc::as_ref)
    }

    /// A node by its name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name).map(Arc::as_ref)
    }
}

/// Without those that do what a cheaper one does and more, and the same on several nodes as one.
fn apart(sorted: Vec<Remedy>) -> Vec<Remedy> {
    let mut kept: Vec<Remedy> = Vec::new();
    for remedy in sorted {
        let more = |other: &Remedy| other.changes.iter().all(|c| remedy.changes.contains(c));
        if kept.iter().any(more) {
            continue;
        }
        let shape =
            |remedy: &Remedy| remedy.changes.iter().map(Change::anywhere).collect::<Vec<_>>();
        match kept.iter_mut().find(|other| shape(other) == shape(&remedy)) {
            Some(same) => same.alike.extend(remedy.nodes),
            None => kept.push(remedy),
        }
    }
    kept
}

/// Whose change is looked for first where both could help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Pod,
    Cluster,
}

impl Change {
    /// Whether it is one of the Pod, so that it holds for every node.
    fn is_of_the_pod(&self) -> bool {
        match self {
            Self::Lower { .. } | Self::Tolerate(_) | Self::Unselect(_) | Self::DropAffinity => true,
            Self::Uncordon(_)
            | Self::Untaint(..)
            | Self::Heal(..)
            | Self::Label { .. }
            | Self::Remove(_)
            | Self::Add(_) => false,
        }
    }

    /// The same without saying of which node, and of which Pod on it.
    fn anywhere(&self) -> Self {
        let any = String::new;
        match self {
            Self::Uncordon(_) => Self::Uncordon(any()),
            Self::Untaint(_, taint) => Self::Untaint(any(), taint.clone()),
            Self::Heal(_, taint) => Self::Heal(any(), taint.clone()),
            Self::Label { node: _, key, value } => {
                Self::Label { node: any(), key: key.clone(), value: value.clone() }
            }
            Self::Remove(_) => Self::Remove(any()),
            Self::Add(_) => Self::Add(any()),
            Self::Lower { .. } | Self::Tolerate(_) | Self::Unselect(_) | Self::DropAffinity => {
                self.clone()
            }
        }
    }

    /// How much it is to ask, for the order.
    fn cost(&self) -> u32 {
        match self {
            Self::Uncordon(_) => 2,
            Self::Lower { from, to, .. } if to.saturating_mul(2) >= *from => 3,
            Self::Tolerate(_) | Self::Label { .. } | Self::Unselect(_) => 3,
            Self::Lower { .. } | Self::Heal(..) | Self::DropAffinity | Self::Untaint(..) => 4,
            Self::Remove(_) => 5,
            Self::Add(_) => 7,
        }
    }
}

impl Change {
    /// How much less is asked for, in thousandths of what was.
    fn less(&self) -> i64 {
        match self {
            Self::Lower { from, to, .. } => (from - to).saturating_mul(1000) / (*from).max(1),
            Self::Tolerate(_)
            | Self::Unselect(_)
            | Self::DropAffinity
            | Self::Uncordon(_)
            | Self::Untaint(..)
            | Self::Heal(..)
            | Self::Label { .. }
            | Self::Remove(_)
            | Self::Add(_) => 0,
        }
    }
}

/// Everything that one node has against the Pod, in the order of the filters.
fn refusals(cache: &Cache, node: &str, pod: &Pod) -> Vec<Refusal> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let Some((name, info)) = cache.nodes().find(|(name, _)| *name == node) else {
        return Vec::new();
    };
    let Some(object) = &info.node else { return Vec::new() };
    let (wanted, ports) = (resources::pod_requests(pod), host_ports(pod));
    let candidate = Candidate { name, node: object, info, spec, wanted: &wanted, ports: &ports };
    let reasons = all_reasons(&candidate);
    let cordoned = reasons.contains(&Reason::Unschedulable);
    let told = |reason: &Reason| match reason {
        Reason::Unschedulable => vec![Refusal::Cordoned],
        Reason::NodeName => vec![Refusal::OtherNode(spec.node_name.clone().unwrap_or_default())],
        Reason::Taint => {
            let bad = taints(object).iter().filter(|taint| repels(taint));
            let bad = bad.filter(|taint| !tolerates(tolerations(spec), taint));
            // That a node is cordoned is said already.
            bad.filter(|t| !cordoned || t.key != CORDON).cloned().map(Refusal::Taint).collect()
        }
        Reason::Affinity => unmatched(spec, object, name),
        Reason::Ports => taken(cache, &candidate, &ports),
        Reason::TooManyPods => {
            let most = info.allocatable.get("pods").copied().unwrap_or_default();
            vec![Refusal::Pods { now: info.pods, most }]
        }
        Reason::Insufficient(resource) => vec![room(info, &wanted, resource)],
    };
    reasons.iter().flat_map(told).collect()
}

fn room(info: &NodeInfo, wanted: &resources::Amounts, resource: &str) -> Refusal {
    let of = |amounts: &resources::Amounts| amounts.get(resource).copied().unwrap_or_default();
    Refusal::Room {
        resource: resource.to_owned(),
        asked: of(wanted),
        left: info.left(resource),
        total: of(&info.allocatable),
    }
}

fn taken(cache: &Cache, candidate: &Candidate<'_>, ports: &[HostPort]) -> Vec<Refusal> {
    let mut found = Vec::new();
    for port in ports {
        let holds = |uid: &&str| cache.ports_of(uid).iter().any(|other| clash(port, other));
        let holders: Vec<String> =
            cache.pods_on(candidate.name).filter(holds).map(str::to_owned).collect();
        if !holders.is_empty() {
            found.push(Refusal::Port { protocol: port.0.clone(), number: port.2, holders });
        }
    }
    found
}

fn required(spec: &PodSpec) -> &[NodeSelectorTerm] {
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required =
        affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.map_or(&[], |required| required.node_selector_terms.as_slice())
}

/// A term of one requirement.
fn alone(requirement: &NodeSelectorRequirement, field: bool) -> NodeSelectorTerm {
    let list = Some(vec![requirement.clone()]);
    let mut term = NodeSelectorTerm::default();
    if field {
        term.match_fields = list;
    } else {
        term.match_expressions = list;
    }
    term
}

fn unmatched(spec: &PodSpec, node: &Node, name: &str) -> Vec<Refusal> {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let selector = spec.node_selector.iter().flatten();
    let mut found: Vec<Refusal> = selector
        .filter(|(key, wanted)| labels.get(*key) != Some(wanted))
        .map(|(key, wanted)| Refusal::Selector {
            key: key.clone(),
            wanted: wanted.clone(),
            found: labels.get(key).cloned(),
        })
        .collect();
    let terms = required(spec);
    if !terms.is_empty() && !terms.iter().any(|term| term_matches(term, labels, name)) {
        let of = |term: &NodeSelectorTerm| {
            let labels_of = term.match_expressions.iter().flatten().map(|r| (r, false));
            let all = labels_of.chain(term.match_fields.iter().flatten().map(|r| (r, true)));
            let failing = all.filter(|(r, field)| !term_matches(&alone(r, *field), labels, name));
            let texts: Vec<String> = failing.map(|(r, _)| requirement(r)).collect();
            if texts.is_empty() { "an empty term".to_owned() } else { texts.join(" and ") }
        };
        found.push(Refusal::Affinity(terms.iter().map(of).collect()));
    } else if found.is_empty() {
        // A required affinity without any term accepts nothing.
        found.push(Refusal::Affinity(Vec::new()));
    }
    found
}

fn requirement(requirement: &NodeSelectorRequirement) -> String {
    let values = requirement.values.as_deref().unwrap_or_default();
    let (key, operator) = (&requirement.key, &requirement.operator);
    match operator.as_str() {
        "Exists" => format!("label {key}"),
        "DoesNotExist" => format!("no label {key}"),
        "In" => format!("{key} in ({})", values.join(", ")),
        "NotIn" => format!("{key} not in ({})", values.join(", ")),
        "Gt" => format!("{key} > {}", values.join(", ")),
        "Lt" => format!("{key} < {}", values.join(", ")),
        other => format!("{key} {other} {}", values.join(", ")),
    }
}

/// Carries a change out on copies.
fn apply(change: &Change, cache: &mut Cache, pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    match change {
        Change::Lower { container, resource, to, .. } => {
            let text = QuantityText(written(resource, *to));
            if let Some(requests) = requests_of(spec, container) {
                requests.insert(resource.clone(), text);
            }
        }
        Change::Tolerate(taint) => {
            let mut toleration = Toleration {
                key: Some(taint.key.clone()),
                operator: Some("Exists".to_owned()),
                effect: Some(taint.effect.clone()),
                ..Toleration::default()
            };
            if let Some(value) = taint.value.as_ref().filter(|value| !value.is_empty()) {
                toleration.operator = Some("Equal".to_owned());
                toleration.value = Some(value.clone());
            }
            spec.tolerations.get_or_insert_default().push(toleration);
        }
        Change::Unselect(key) => {
            spec.node_selector.get_or_insert_default().remove(key);
        }
        Change::DropAffinity => {
            if let Some(affinity) = spec.affinity.as_mut().and_then(|a| a.node_affinity.as_mut()) {
                affinity.required_during_scheduling_ignored_during_execution = None;
            }
        }
        Change::Uncordon(name) => change_node(cache, name, |node| {
            if let Some(spec) = &mut node.spec {
                spec.unschedulable = None;
                // A controller takes it off with the cordon.
                spec.taints.get_or_insert_default().retain(|taint| taint.key != CORDON);
            }
        }),
        Change::Untaint(name, gone) | Change::Heal(name, gone) => {
            change_node(cache, name, |node| {
                if let Some(spec) = &mut node.spec {
                    spec.taints.get_or_insert_default().retain(|taint| taint != gone);
                }
            })
        }
        Change::Label { node, key, value } => change_node(cache, node, |node| {
            node.metadata.labels.get_or_insert_default().insert(key.clone(), value.clone());
        }),
        Change::Remove(uid) => cache.remove_pod(uid),
        // Not one of a node that is there.
        Change::Add(_) => {}
    }
}

fn change_node(cache: &mut Cache, name: &str, change: impl FnOnce(&mut Node)) {
    let found = cache.nodes().find(|(own, _)| *own == name).and_then(|(_, info)| info.node.clone());
    if let Some(mut node) = found {
        change(Arc::make_mut(&mut node));
        cache.set_node(node);
    }
}

/// An amount as a manifest writes it.
#[must_use]
pub fn written(resource: &str, amount: i64) -> String {
    match resource {
        "cpu" => Quantity::milli(amount).to_string(),
        "memory" | "ephemeral-storage" => Quantity::units(amount, Format::Binary).to_string(),
        other if other.starts_with("hugepages-") => {
            Quantity::units(amount, Format::Binary).to_string()
        }
        _ => amount.to_string(),
    }
}

/// What a container, or the Pod as a whole, asks for.
fn requests_of<'a>(
    spec: &'a mut PodSpec,
    container: &str,
) -> Option<&'a mut BTreeMap<String, QuantityText>> {
    let resources: &mut Option<ResourceRequirements> = if container.is_empty() {
        &mut spec.resources
    } else {
        let inits = spec.init_containers.iter_mut().flatten();
        let mut all = spec.containers.iter_mut().chain(inits);
        &mut all.find(|own| own.name == container)?.resources
    };
    resources.as_mut()?.requests.as_mut()
}

/// What is to be asked for less so that the Pod asks for `excess` less; `None` if it would have to ask for nothing.
fn lower(pod: &Pod, resource: &str, excess: i64) -> Option<Vec<Change>> {
    let wanted =
        |pod: &Pod| resources::pod_requests(pod).get(resource).copied().unwrap_or_default();
    let target = wanted(pod) - excess;
    let mut pod = pod.clone();
    let mut changes = Vec::new();
    for _ in 0..CHANGES_MAX {
        let over = wanted(&pod) - target;
        if over <= 0 {
            return Some(changes);
        }
        let spec = pod.spec.as_ref()?;
        let of = |resources: Option<&ResourceRequirements>| {
            let amounts = resources::amounts(resources.and_then(|r| r.requests.as_ref()));
            amounts.get(resource).copied().unwrap_or_default()
        };
        let whole = of(spec.resources.as_ref());
        let named = |c: &Container| (of(c.resources.as_ref()), c.name.clone());
        let inits = spec.init_containers.iter().flatten();
        let (from, container) = if whole > 0 {
            (whole, String::new())
        } else {
            spec.containers.iter().chain(inits).map(named).max_by_key(|(amount, _)| *amount)?
        };
        let to = rounded(resource, from - over);
        if to <= 0 {
            return None;
        }
        let change = Change::Lower { container, resource: resource.to_owned(), from, to };
        apply(&change, &mut Cache::default(), &mut pod);
        changes.push(change);
    }
    None
}

/// Down to what reads well: whole mebibytes.
fn rounded(resource: &str, amount: i64) -> i64 {
    const MEBI: i64 = 1 << 20;
    if resource != "cpu" && amount >= MEBI { amount / MEBI * MEBI } else { amount }
}

#[cfg(test)]
mod tests;
