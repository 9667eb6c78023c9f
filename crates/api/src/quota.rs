//! What a ResourceQuota counts, and whether more fits into it.
//!
//! `status.used` is never below what there is: whatever grows is charged before it is written. It may be
//! above for a while, since what goes or ends is only seen when somebody counts again.

use crate::{
    core::{Container, Pod, PodSpec},
    kinds::{self, Kind, list, text},
    meta,
    quantity::{Format, Quantity},
    resources::{Quantities, limited, qos_class, quantities, requested},
};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Objects of the core that have a name of their own beside `count/…`.
/// Events in the form of today's recorders.
const EVENTS: &str = "events.events.k8s.io";
const COUNTED: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// What each container must say if it is limited.
const SAID_BY_CONTAINERS: &[&str] =
    &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
/// Of a Pod, by their names as requests and as limits.
const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage"];
const NODE_PORTS: &str = "services.nodeports";
const LOAD_BALANCERS: &str = "services.loadbalancers";

/// A ResourceQuota as it is read from its object.
#[derive(Debug, Clone, PartialEq)]
pub struct Quota {
    name: String,
    hard: Quantities,
    used: Option<Quantities>,
    scopes: Vec<Scope>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Scope {
    name: String,
    operator: String,
    values: Vec<String>,
}

/// How to find out what is used.
#[derive(Debug, Clone)]
pub struct Recount {
    /// What the number of objects is enough for: the quota's name for them, then group and plural.
    pub numbers: Vec<(String, String, String)>,
    /// Kinds whose objects must be looked at.
    pub contents: Vec<&'static Kind>,
}

impl Quota {
    /// Amounts that are none are left out: what is stored was validated.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        let amounts = |pointer: &str| {
            let fields = object.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
            let parsed = fields.map(|(name, amount)| {
                let text = amount.as_str().map_or_else(|| amount.to_string(), str::to_owned);
                (name, text.parse::<Quantity>())
            });
            let found = parsed.filter_map(|(name, amount)| Some((name.clone(), amount.ok()?)));
            found.collect::<Quantities>()
        };
        let hard = amounts("/spec/hard");
        let used = amounts("/status/used");
        let is_current =
            amounts("/status/hard") == hard && hard.keys().all(|name| used.contains_key(name));
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let plain = list(spec, "scopes").iter().map(|scope| Scope {
            name: scope.as_str().unwrap_or_default().to_owned(),
            operator: "Exists".to_owned(),
            values: Vec::new(),
        });
        let selector = spec.get("scopeSelector").unwrap_or(&Value::Null);
        let selected = list(selector, "matchExpressions").iter().map(|expression| Scope {
            name: text(expression, "/scopeName"),
            operator: text(expression, "/operator"),
            values: list(expression, "values")
                .iter()
                .filter_map(|value| value.as_str().map(str::to_owned))
                .collect(),
        });
        Self {
            name: meta::name(object).to_owned(),
            used: is_current.then_some(used),
            scopes: plain.chain(selected).collect(),
            hard,
        }
    }

    /// `metadata.name`
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its status says is used; `None` if that is not of what is limited now.
    #[must_use]
    pub fn used(&self) -> Option<&Quantities> {
        self.used.as_ref()
    }

    /// Its status with so much used: of everything that is limited.
    #[must_use]
    pub fn status(&self, used: &Quantities) -> Value {
        let written = |amounts: &dyn Fn(&str) -> Quantity| {
            let all = self.hard.keys().map(|name| (name.clone(), amounts(name).to_string().into()));
            all.collect::<Map<String, Value>>()
        };
        let hard = written(&|name| self.hard.get(name).copied().unwrap_or(Quantity::ZERO));
        let used = written(&|name| used.get(name).copied().unwrap_or(Quantity::ZERO));
        json!({"hard": hard, "used": used})
    }

    /// How to count everything that it limits.
    #[must_use]
    pub fn recount(&self) -> Recount {
        let mut numbers = Vec::new();
        for name in self.hard.keys().filter(|_| self.scopes.is_empty()) {
            let counted = match name.strip_prefix("count/") {
                Some(counted) => counted,
                None if COUNTED.contains(&name.as_str()) => name,
                None => continue,
            };
            let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
            // Under both of their names there are the same Events.
            let group = if counted == EVENTS { "" } else { group };
            numbers.push((name.clone(), group.to_owned(), plural.to_owned()));
        }
        let by_number = |name: &str| numbers.iter().any(|(known, ..)| known == name);
        let left: Vec<&String> = self.hard.keys().filter(|name| !by_number(name)).collect();
        let of_services = |name: &str| [NODE_PORTS, LOAD_BALANCERS].contains(&name);
        let services = self.scopes.is_empty() && left.iter().any(|name| of_services(name));
        let pods = left.iter().any(|name| !of_services(name));
        let named = |wanted: bool, plural| wanted.then(|| kinds::by_alias(plural)).flatten();
        let contents = named(pods, "pods").into_iter().chain(named(services, "services"));
        Recount { contents: contents.collect(), numbers }
    }

    /// What one object takes of what is limited; nothing if this quota does not count it. `now` is in
    /// seconds since the Unix epoch.
    #[must_use]
    pub fn usage(&self, kind: &Kind, object: &Value, now: i64) -> Quantities {
        let mut usage = match (kind.group, kind.kind) {
            ("", "Pod") => {
                let Ok(pod) = Pod::deserialize(object) else { return Quantities::new() };
                if !self.scopes.iter().all(|scope| scope.has(&pod)) {
                    return Quantities::new();
                }
                pod_usage(&pod, object, now)
            }
            // Scopes are of Pods.
            _ if !self.scopes.is_empty() => return Quantities::new(),
            ("", "Service") => service_usage(object),
            _ => Quantities::new(),
        };
        usage.insert(format!("count/{}", kind.resource()), one());
        if kind.is("Event") {
            usage.insert("count/events".to_owned(), one());
            usage.insert(format!("count/{EVENTS}"), one());
        }
        if kind.group.is_empty() && COUNTED.contains(&kind.plural) {
            usage.insert(kind.plural.to_owned(), one());
        }
        usage.retain(|name, _| self.hard.contains_key(name));
        usage
    }

    /// How much more is used once `new` is there in the place of `old`; what is used less is left out.
    ///
    /// # Errors
    /// A new object does not say what it must.
    pub fn growth(
        &self,
        kind: &Kind,
        old: Option<&Value>,
        new: &Value,
        now: i64,
    ) -> Result<Quantities, String> {
        let mut growth = self.usage(kind, new, now);
        let before = match old {
            Some(old) => self.usage(kind, old, now),
            None => {
                if kind.group.is_empty() && kind.kind == "Pod" {
                    self.check_containers(new)?;
                }
                Quantities::new()
            }
        };
        for (name, amount) in &mut growth {
            if let Some(before) = before.get(name) {
                *amount = *amount - *before;
            }
        }
        growth.retain(|_, amount| *amount > Quantity::ZERO);
        Ok(growth)
    }

    /// Where cpu or memory is limited, each container must say what it takes: nothing would count as
    /// nothing.
    fn check_containers(&self, pod: &Value) -> Result<(), String> {
        let Ok(pod) = Pod::deserialize(pod) else { return Ok(()) };
        let required = SAID_BY_CONTAINERS.iter().filter(|name| self.hard.contains_key(**name));
        let required: Vec<&str> = required.copied().collect();
        let Some(spec) = &pod.spec else { return Ok(()) };
        if required.is_empty()
            || says_for_all(spec)
            || !self.scopes.iter().all(|scope| scope.has(&pod))
        {
            return Ok(());
        }
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            let said = container_usage(container);
            for name in required.iter().filter(|name| !said.contains_key(**name)) {
                missing.entry(name).or_default().insert(&container.name);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let all = missing.into_iter().map(|(name, containers)| {
            let containers: Vec<&str> = containers.into_iter().collect();
            format!("{name} for: {}", containers.join(","))
        });
        let all: Vec<String> = all.collect();
        Err(format!("failed quota: {}: must specify {}", self.name, all.join("; ")))
    }

    /// What is used with so much more.
    ///
    /// # Errors
    /// It is more than is allowed.
    pub fn charged(&self, used: &Quantities, growth: &Quantities) -> Result<Quantities, String> {
        let mut total = used.clone();
        let mut exceeded = Vec::new();
        for (name, more) in growth {
            let now = total.entry(name.clone()).or_insert(Quantity::ZERO);
            *now = *now + *more;
            if self.hard.get(name).is_some_and(|hard| *now > *hard) {
                exceeded.push(name);
            }
        }
        if exceeded.is_empty() {
            return Ok(total);
        }
        let written = |amounts: &Quantities| {
            let amount = |name: &str| amounts.get(name).copied().unwrap_or(Quantity::ZERO);
            let all = exceeded.iter().map(|name| format!("{name}={}", amount(name)));
            all.collect::<Vec<_>>().join(",")
        };
        Err(format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            self.name,
            written(growth),
            written(used),
            written(&self.hard)
        ))
    }

    /// The sum over objects of a kind, of what only their contents say, added to `total`.
    pub fn tally<'a>(
        &self,
        kind: &Kind,
        objects: impl IntoIterator<Item = &'a Value>,
        now: i64,
        total: &mut Quantities,
    ) {
        let by_number: BTreeSet<String> =
            self.recount().numbers.into_iter().map(|(name, ..)| name).collect();
        for object in objects {
            for (name, amount) in self.usage(kind, object, now) {
                if !by_number.contains(&name) {
                    let sum = total.entry(name).or_insert(Quantity::ZERO);
                    *sum = *sum + amount;
                }
            }
        }
    }
}

fn one() -> Quantity {
    Quantity::units(1, Format::Decimal)
}

/// Requests and limits by the names that quotas have for them.
fn compute_usage(requests: &Quantities, limits: &Quantities) -> Quantities {
    let mut usage = Quantities::new();
    for (name, amount) in requests {
        if STANDARD.contains(&name.as_str()) || name.starts_with("hugepages-") {
            usage.insert(name.clone(), *amount);
            usage.insert(format!("requests.{name}"), *amount);
        } else if name.contains('/') && !name.contains("kubernetes.io/") {
            // Of somebody else: only by its request.
            usage.insert(format!("requests.{name}"), *amount);
        }
    }
    for name in STANDARD {
        if let Some(amount) = limits.get(*name) {
            usage.insert(format!("limits.{name}"), *amount);
        }
    }
    usage
}

fn container_usage(container: &Container) -> Quantities {
    let resources = container.resources.as_ref();
    let requests = quantities(resources.and_then(|r| r.requests.as_ref()));
    let limits = quantities(resources.and_then(|r| r.limits.as_ref()));
    compute_usage(&requests, &limits)
}

/// Whether the Pod says as a whole what it takes.
fn says_for_all(spec: &PodSpec) -> bool {
    let Some(whole) = &spec.resources else { return false };
    let known = |name: &String| {
        ["cpu", "memory"].contains(&name.as_str()) || name.starts_with("hugepages-")
    };
    let mut names = [&whole.requests, &whole.limits].into_iter().flatten().flat_map(BTreeMap::keys);
    names.any(known)
}

/// What a Pod takes. One that has ended, or that should long have gone, takes nothing but its place.
fn pod_usage(pod: &Pod, object: &Value, now: i64) -> Quantities {
    let overdue = meta::deletion_time(object)
        .zip(meta::deletion_grace_seconds(object))
        .is_some_and(|(at, grace)| now > at.saturating_add(grace));
    if overdue || crate::pod::has_ended(pod) {
        return Quantities::new();
    }
    let mut usage = compute_usage(&requested(pod), &limited(pod));
    usage.insert("pods".to_owned(), one());
    usage
}

fn service_usage(service: &Value) -> Quantities {
    let spec = service.get("spec").unwrap_or(&Value::Null);
    let ports = list(spec, "ports");
    let explicit = || {
        let given = |port: &&Value| port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0;
        ports.iter().filter(given).count()
    };
    let allocates = spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
    let (ports, balancers) = match text(spec, "/type").as_str() {
        "NodePort" => (ports.len(), 0),
        "LoadBalancer" if allocates => (ports.len(), 1),
        "LoadBalancer" => (explicit(), 1),
        _ => (0, 0),
    };
    let number = |n: usize| Quantity::units(i64::try_from(n).unwrap_or(i64::MAX), Format::Decimal);
    Quantities::from([
        (NODE_PORTS.to_owned(), number(ports)),
        (LOAD_BALANCERS.to_owned(), number(balancers)),
    ])
}

impl Scope {
    fn has(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let deadline = spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0);
        match self.name.as_str() {
            "Terminating" => deadline,
            "NotTerminating" => !deadline,
            "BestEffort" => qos_class(pod) == "BestEffort",
            "NotBestEffort" => qos_class(pod) != "BestEffort",
            "PriorityClass" => {
                let class = spec.priority_class_name.as_deref().unwrap_or_default();
                let named = self.values.iter().any(|value| value == class);
                match self.operator.as_str() {
                    "Exists" => !class.is_empty(),
                    "DoesNotExist" => class.is_empty(),
                    "In" => !class.is_empty() && named,
                    "NotIn" => class.is_empty() || !named,
                    _ => false,
                }
            }
            "CrossNamespacePodAffinity" => looks_elsewhere(spec),
            _ => false,
        }
    }
}

/// Whether a Pod wants to be near or far from Pods of other namespaces.
fn looks_elsewhere(spec: &PodSpec) -> bool {
    let Some(affinity) = &spec.affinity else { return false };
    let near = affinity.pod_affinity.iter().flat_map(|near| {
        let preferred = near.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let required = near.required_during_scheduling_ignored_during_execution.iter().flatten();
        required.chain(preferred.map(|term| &term.pod_affinity_term))
    });
    let far = affinity.pod_anti_affinity.iter().flat_map(|far| {
        let preferred = far.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let required = far.required_during_scheduling_ignored_during_execution.iter().flatten();
        required.chain(preferred.map(|term| &term.pod_affinity_term))
    });
    near.chain(far).any(|term| {
        term.namespace_selector.is_some() || term.namespaces.iter().flatten().next().is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_700_000_000;

    fn quota(spec: Value) -> Quota {
        Quota::of(&json!({"metadata": {"name": "q"}, "spec": spec}))
    }

    fn hard(amounts: Value) -> Quota {
        quota(json!({"hard": amounts}))
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "resources": resources}]}})
    }

    fn kind(alias: &str) -> &'static Kind {
        kinds::by_alias(alias).unwrap()
    }

    fn written(usage: &Quantities) -> String {
        let all = usage.iter().map(|(name, amount)| format!("{name}={amount}"));
        all.collect::<Vec<_>>().join(",")
    }

    #[test]
    fn a_pod_is_counted_under_all_of_its_names() {
        let all = json!({"cpu": 9, "requests.cpu": 9, "limits.cpu": 9, "limits.memory": "9Gi",
            "memory": "9Gi", "pods": 9, "count/pods": 9, "requests.example.com/gpu": 9, "secrets": 9});
        let resources = json!({"requests": {"cpu": "100m", "memory": "1Gi", "example.com/gpu": "2"},
            "limits": {"cpu": "1"}});
        let found = hard(all.clone()).usage(kind("pod"), &pod(resources.clone()), NOW);
        let want = "count/pods=1,cpu=100m,limits.cpu=1,memory=1Gi,pods=1,requests.cpu=100m,\
                    requests.example.com/gpu=2";
        assert_eq!(written(&found), want);
        let mut ended = pod(resources.clone());
        ended["status"] = json!({"phase": "Succeeded"});
        assert_eq!(written(&hard(all.clone()).usage(kind("pod"), &ended, NOW)), "count/pods=1");
        for (deleted, want) in [(NOW - 31, 1), (NOW - 30, 7)] {
            let mut stuck = pod(resources.clone());
            stuck["metadata"]["deletionTimestamp"] = meta::time(deleted).into();
            stuck["metadata"]["deletionGracePeriodSeconds"] = json!(30);
            assert_eq!(hard(all.clone()).usage(kind("pod"), &stuck, NOW).len(), want);
        }
    }

    #[test]
    fn other_objects_are_counted_by_number_and_services_by_their_ports() {
        let all = json!({"services": 9, "count/services": 9, "services.nodeports": 9,
            "services.loadbalancers": 9, "count/deployments.apps": 9, "configmaps": 9});
        let service = |spec: Value| {
            written(&hard(all.clone()).usage(kind("service"), &json!({"spec": spec}), NOW))
        };
        let plain = "count/services=1,services=1,services.loadbalancers=0,services.nodeports=0";
        assert_eq!(service(json!({"type": "ClusterIP", "ports": [{}]})), plain);
        let balanced = "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2";
        assert_eq!(service(json!({"type": "LoadBalancer", "ports": [{}, {}]})), balanced);
        let explicit = "count/services=1,services=1,services.loadbalancers=1,services.nodeports=1";
        let spec = json!({"type": "LoadBalancer", "ports": [{}, {"nodePort": 30000}],
            "allocateLoadBalancerNodePorts": false});
        assert_eq!(service(spec), explicit);
        let of = |alias: &str| written(&hard(all.clone()).usage(kind(alias), &json!({}), NOW));
        assert_eq!(of("deployment"), "count/deployments.apps=1");
        assert_eq!(of("configmap"), "configmaps=1");
        assert_eq!(of("secret"), "");
    }

    #[test]
    fn scopes_choose_among_pods() {
        let best_effort = pod(json!({}));
        let mut burstable = pod(json!({"requests": {"cpu": "1"}}));
        burstable["spec"]["activeDeadlineSeconds"] = json!(5);
        burstable["spec"]["priorityClassName"] = json!("high");
        burstable["spec"]["affinity"] = json!({"podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"topologyKey": "z", "namespaces": ["x"]}}]}});
        let by_class = |operator: &str, values: Value| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
        };
        for (scopes, want) in [
            (json!({"scopes": ["BestEffort"]}), [1, 0]),
            (json!({"scopes": ["NotBestEffort"]}), [0, 1]),
            (json!({"scopes": ["Terminating"]}), [0, 1]),
            (json!({"scopes": ["NotTerminating"]}), [1, 0]),
            (json!({"scopes": ["PriorityClass"]}), [0, 1]),
            (json!({"scopes": ["CrossNamespacePodAffinity"]}), [0, 1]),
            (json!({"scopes": ["NotBestEffort", "NotTerminating"]}), [0, 0]),
            (by_class("In", json!(["high", "low"])), [0, 1]),
            (by_class("NotIn", json!(["high"])), [1, 0]),
            (by_class("NotIn", json!(["low"])), [1, 1]),
            (by_class("Exists", json!([])), [0, 1]),
            (by_class("DoesNotExist", json!([])), [1, 0]),
        ] {
            let mut spec = scopes;
            spec["hard"] = json!({"pods": "5", "count/pods": "5", "secrets": "1"});
            let quota = quota(spec.clone());
            let found = [&best_effort, &burstable].map(|p| quota.usage(kind("pod"), p, NOW).len());
            assert_eq!(found.map(|n| n / 2), want, "{spec}");
            assert!(quota.usage(kind("secret"), &json!({}), NOW).is_empty());
            assert_eq!(quota.recount().numbers, []);
        }
    }

    #[test]
    fn what_does_not_fit_is_said_in_upstreams_words() {
        let quota = hard(json!({"pods": "2", "requests.cpu": "1", "secrets": "9"}));
        let used = Quantities::from([
            ("pods".to_owned(), Quantity::units(2, Format::Decimal)),
            ("requests.cpu".to_owned(), Quantity::milli(900)),
        ]);
        let new = pod(json!({"requests": {"cpu": "200m"}}));
        let growth = quota.growth(kind("pod"), None, &new, NOW).unwrap();
        assert_eq!(
            quota.charged(&used, &growth),
            Err("exceeded quota: q, requested: pods=1,requests.cpu=200m, used: pods=2,requests.cpu=900m, \
                 limited: pods=2,requests.cpu=1"
                .to_owned())
        );
        let less = quota.growth(kind("pod"), Some(&new), &new, NOW).unwrap();
        assert_eq!((less.len(), quota.charged(&used, &less)), (0, Ok(used)));
    }

    #[test]
    fn containers_must_say_what_is_limited() {
        let quota = hard(
            json!({"limits.cpu": "2", "limits.memory": "1Gi", "requests.cpu": "2", "pods": "1"}),
        );
        let mut object = pod(json!({"requests": {"cpu": "1"}}));
        object["spec"]["initContainers"] = json!([{"name": "i"}]);
        let said = quota.growth(kind("pod"), None, &object, NOW);
        let want = "failed quota: q: must specify limits.cpu for: a,i; limits.memory for: a,i; \
                    requests.cpu for: i";
        assert_eq!(said, Err(want.to_owned()));
        assert!(
            quota.growth(kind("pod"), Some(&object), &object, NOW).is_ok(),
            "it is there already"
        );
        object["spec"]["resources"] = json!({"limits": {"cpu": "1"}});
        assert!(quota.growth(kind("pod"), None, &object, NOW).is_ok());
    }

    #[test]
    fn a_status_counts_only_for_what_is_limited_now() {
        let object = |hard: Value, used: Value| {
            Quota::of(&json!({"spec": {"hard": {"pods": "2", "cpu": "1"}},
                "status": {"hard": hard, "used": used}}))
        };
        let both = json!({"pods": "1", "cpu": "0"});
        assert!(object(json!({"pods": "2", "cpu": "1000m"}), both.clone()).used().is_some());
        assert!(object(json!({"pods": "2"}), both.clone()).used().is_none());
        assert!(object(json!({"pods": "3", "cpu": "1"}), both).used().is_none());
        assert!(object(json!({"pods": "2", "cpu": "1"}), json!({"pods": "1"})).used().is_none());
        assert_eq!(
            object(json!({}), json!({})).status(&Quantities::new()),
            json!({"hard": {"pods": "2", "cpu": "1"}, "used": {"pods": "0", "cpu": "0"}})
        );
    }

    #[test]
    fn what_has_no_contents_to_look_at_is_counted_by_number() {
        let recount =
            hard(json!({"count/foos.example.com": "1", "secrets": "1", "services.nodeports": "1"}))
                .recount();
        let named = |name: &str, group: &str, plural: &str| {
            (name.to_owned(), group.to_owned(), plural.to_owned())
        };
        let want = [
            named("count/foos.example.com", "example.com", "foos"),
            named("secrets", "", "secrets"),
        ];
        assert_eq!(recount.numbers, want);
        let contents: Vec<&str> = recount.contents.iter().map(|kind| kind.plural).collect();
        assert_eq!(contents, ["services"]);
    }

    /// What happens to one of a few Pods.
    #[derive(Debug, Clone)]
    enum Event {
        Create {
            at: usize,
            cpu_millis: i64,
        },
        End {
            at: usize,
        },
        Delete {
            at: usize,
        },
        /// Its deadline is set, which moves it to other scopes.
        Limit {
            at: usize,
        },
        Recount,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => (0..6usize, 0..900i64).prop_map(|(at, cpu_millis)| Event::Create { at, cpu_millis }),
            1 => (0..6usize).prop_map(|at| Event::End { at }),
            1 => (0..6usize).prop_map(|at| Event::Delete { at }),
            1 => (0..6usize).prop_map(|at| Event::Limit { at }),
            1 => Just(Event::Recount),
        ]
    }

    proptest! {
        #[test]
        fn what_is_charged_is_never_below_what_is_counted_nor_above_what_is_allowed(
            events in proptest::collection::vec(event(), 0..60),
            scope in proptest::sample::select(vec!["", "Terminating", "NotTerminating"]),
        ) {
            let scopes = if scope.is_empty() { json!([]) } else { json!([scope]) };
            let quota = quota(json!({"hard": {"pods": "3", "requests.cpu": "1"}, "scopes": scopes}));
            let mut pods: BTreeMap<usize, Value> = BTreeMap::new();
            let mut used = Quantities::new();
            for event in events {
                let (at, new) = match event {
                    Event::Create { at, cpu_millis } if !pods.contains_key(&at) => {
                        (at, pod(json!({"requests": {"cpu": format!("{cpu_millis}m")}})))
                    }
                    Event::Limit { at } if pods.contains_key(&at) => {
                        let mut new = pods[&at].clone();
                        new["spec"]["activeDeadlineSeconds"] = json!(9);
                        (at, new)
                    }
                    Event::End { at } => {
                        if let Some(pod) = pods.get_mut(&at) {
                            pod["status"] = json!({"phase": "Failed"});
                        }
                        continue;
                    }
                    Event::Delete { at } => {
                        pods.remove(&at);
                        continue;
                    }
                    Event::Recount => {
                        used = Quantities::new();
                        quota.tally(kind("pod"), pods.values(), NOW, &mut used);
                        continue;
                    }
                    Event::Create { .. } | Event::Limit { .. } => continue,
                };
                let growth = quota.growth(kind("pod"), pods.get(&at), &new, NOW).unwrap();
                if let Ok(charged) = quota.charged(&used, &growth) {
                    used = charged;
                    pods.insert(at, new);
                }
                let mut counted = Quantities::new();
                quota.tally(kind("pod"), pods.values(), NOW, &mut counted);
                for (name, counted) in counted {
                    let charged = used.get(&name).copied().unwrap_or(Quantity::ZERO);
                    prop_assert!(charged >= counted, "{name}: {charged} {counted}");
                    prop_assert!(counted <= quota.hard[&name]);
                }
            }
        }
    }
}
