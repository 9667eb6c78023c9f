//! What a Pod asks for and may use (RES-1, RES-2).

use crate::{
    core::{Container, Pod, QuantityText, ResourceRequirements},
    quantity::Quantity,
};
use std::collections::BTreeMap;

/// Amounts by resource: cpu in thousandths, everything else in whole units.
pub type Amounts = BTreeMap<String, i64>;

/// Amounts by resource, exact and as they are written.
pub type Quantities = BTreeMap<String, Quantity>;

/// What is summed up over the containers of a Pod.
trait Amount: Copy + Ord {
    fn plus(self, more: Self) -> Self;
}

impl Amount for i64 {
    fn plus(self, more: Self) -> Self {
        self.saturating_add(more)
    }
}

impl Amount for Quantity {
    fn plus(self, more: Self) -> Self {
        self + more
    }
}

/// Counts for a container that asks for no cpu, in thousandths (§5.4).
const SCORING_CPU: i64 = 100;
/// Counts for a container that asks for no memory, in bytes (§5.4).
const SCORING_MEMORY: i64 = 200 << 20;

/// An amount in the unit that [`Amounts`] has for `resource`; 0 for what is no amount.
#[must_use]
pub fn amount(resource: &str, text: &QuantityText) -> i64 {
    let Ok(quantity) = text.0.parse::<Quantity>() else { return 0 };
    if resource == "cpu" { quantity.milli_value() } else { quantity.value() }
}

/// A resource list in units.
#[must_use]
pub fn amounts(list: Option<&BTreeMap<String, QuantityText>>) -> Amounts {
    list.into_iter().flatten().map(|(name, text)| (name.clone(), amount(name, text))).collect()
}

fn requests(resources: Option<&ResourceRequirements>) -> Amounts {
    amounts(resources.and_then(|r| r.requests.as_ref()))
}

fn limits(resources: Option<&ResourceRequirements>) -> Amounts {
    amounts(resources.and_then(|r| r.limits.as_ref()))
}

/// A resource list as it is written; without what is no amount.
#[must_use]
pub fn quantities(list: Option<&BTreeMap<String, QuantityText>>) -> Quantities {
    let parsed = list.into_iter().flatten().map(|(name, text)| (name, text.0.parse::<Quantity>()));
    parsed.filter_map(|(name, amount)| Some((name.clone(), amount.ok()?))).collect()
}

fn add<A: Amount>(to: &mut BTreeMap<String, A>, more: &BTreeMap<String, A>) {
    for (name, amount) in more {
        let now = to.entry(name.clone());
        now.and_modify(|now| *now = now.plus(*amount)).or_insert(*amount);
    }
}

fn raise<A: Amount>(to: &mut BTreeMap<String, A>, at_least: &BTreeMap<String, A>) {
    for (name, amount) in at_least {
        let now = to.entry(name.clone());
        now.and_modify(|now| *now = (*now).max(*amount)).or_insert(*amount);
    }
}

/// Whether an init container goes on beside the others.
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// RES-1 over what `own` says of one container: all that run together, or the widest step of the
/// start, whichever is more.
fn effective<A: Amount>(
    pod: &Pod,
    own: impl Fn(&Container) -> BTreeMap<String, A>,
) -> BTreeMap<String, A> {
    let mut total = BTreeMap::new();
    let Some(spec) = &pod.spec else { return total };
    for container in &spec.containers {
        add(&mut total, &own(container));
    }
    let mut sidecars = BTreeMap::new();
    let mut peak = BTreeMap::new();
    for init in spec.init_containers.iter().flatten() {
        let mut used = own(init);
        if is_sidecar(init) {
            add(&mut sidecars, &used);
            used.clone_from(&sidecars);
        } else {
            add(&mut used, &sidecars);
        }
        raise(&mut peak, &used);
    }
    add(&mut total, &sidecars);
    raise(&mut total, &peak);
    total
}

/// What the scheduler must find room for (RES-1).
#[must_use]
pub fn pod_requests(pod: &Pod) -> Amounts {
    let mut total = effective(pod, |container| requests(container.resources.as_ref()));
    let Some(spec) = &pod.spec else { return total };
    // What is said of the whole Pod counts, not the sum of its containers.
    total.extend(requests(spec.resources.as_ref()));
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

/// What the Pod as a whole may use; a resource that some container has no limit for is not in it.
#[must_use]
pub fn pod_limits(pod: &Pod) -> Amounts {
    let mut total = effective(pod, |container| limits(container.resources.as_ref()));
    let Some(spec) = &pod.spec else { return total };
    total.retain(|name, _| {
        let limited = |c: &Container| limits(c.resources.as_ref()).contains_key(name);
        spec.containers.iter().all(limited)
    });
    total.extend(limits(spec.resources.as_ref()));
    for (name, amount) in amounts(spec.overhead.as_ref()) {
        total.entry(name).and_modify(|now| *now = now.saturating_add(amount));
    }
    total
}

/// What a quota counts as requested: as [`pod_requests`], exact.
#[must_use]
pub fn requested(pod: &Pod) -> Quantities {
    let own = |r: Option<&ResourceRequirements>| quantities(r.and_then(|r| r.requests.as_ref()));
    let mut total = effective(pod, |container| own(container.resources.as_ref()));
    let Some(spec) = &pod.spec else { return total };
    total.extend(own(spec.resources.as_ref()));
    add(&mut total, &quantities(spec.overhead.as_ref()));
    total
}

/// What a quota counts as limited: the sum of all the limits that there are, also where some container
/// has none.
#[must_use]
pub fn limited(pod: &Pod) -> Quantities {
    let own = |r: Option<&ResourceRequirements>| quantities(r.and_then(|r| r.limits.as_ref()));
    let mut total = effective(pod, |container| own(container.resources.as_ref()));
    let Some(spec) = &pod.spec else { return total };
    total.extend(own(spec.resources.as_ref()));
    for (name, amount) in quantities(spec.overhead.as_ref()) {
        total.entry(name).and_modify(|now| *now = *now + amount);
    }
    total
}

/// Cpu in thousandths and memory in bytes, for scoring: a container that asks for nothing counts as a
/// small one (§5.4).
#[must_use]
pub fn scoring_requests(pod: &Pod) -> (i64, i64) {
    let mut total = effective(pod, |container| {
        let asked = requests(container.resources.as_ref());
        let or = |name: &str, default| {
            (name.to_owned(), asked.get(name).copied().filter(|v| *v > 0).unwrap_or(default))
        };
        [or("cpu", SCORING_CPU), or("memory", SCORING_MEMORY)].into()
    });
    if let Some(spec) = &pod.spec {
        total.extend(requests(spec.resources.as_ref()));
        add(&mut total, &amounts(spec.overhead.as_ref()));
    }
    let of = |name: &str| total.get(name).copied().unwrap_or_default();
    (of("cpu"), of("memory"))
}

/// `Guaranteed`, `Burstable` or `BestEffort` (RES-2).
#[must_use]
pub fn qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    qos_class_of(spec.resources.as_ref(), containers.map(|c| c.resources.as_ref()))
}

/// The same by what is said of the Pod as a whole, and of each of its containers.
pub(crate) fn qos_class_of<'a>(
    whole: Option<&'a ResourceRequirements>,
    containers: impl Iterator<Item = Option<&'a ResourceRequirements>>,
) -> &'static str {
    let positive = |mut list: Amounts| {
        list.retain(|name, amount| (name == "cpu" || name == "memory") && *amount > 0);
        list
    };
    let whole = whole.filter(|r| {
        !positive(requests(Some(r))).is_empty() || !positive(limits(Some(r))).is_empty()
    });
    let all: Vec<Option<&ResourceRequirements>> = match whole {
        Some(whole) => vec![Some(whole)],
        None => containers.collect(),
    };
    let (mut asked, mut allowed) = (Amounts::new(), Amounts::new());
    let mut limited = true;
    for resources in all {
        let limits = positive(limits(resources));
        limited &= limits.len() == 2;
        add(&mut asked, &positive(requests(resources)));
        add(&mut allowed, &limits);
    }
    match (asked.is_empty() && allowed.is_empty(), limited && asked == allowed) {
        (true, _) => "BestEffort",
        (false, true) => "Guaranteed",
        (false, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn container(requests: Value, limits: Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    fn asks(cpu: &str) -> Value {
        container(json!({"cpu": cpu}), json!({}))
    }

    fn sidecar(cpu: &str) -> Value {
        let mut sidecar = asks(cpu);
        sidecar["restartPolicy"] = json!("Always");
        sidecar
    }

    #[test]
    fn a_pod_asks_for_its_widest_moment() {
        // RES-1
        for (name, spec, want) in [
            ("the sum", json!({"containers": [asks("1"), asks("500m")]}), 1500),
            (
                "an init container that is wider",
                json!({"containers": [asks("1")], "initContainers": [asks("3"), asks("2")]}),
                3000,
            ),
            (
                "sidecars run beside",
                json!({"containers": [asks("1")], "initContainers": [sidecar("2")]}),
                3000,
            ),
            (
                "an init container beside the sidecars before it",
                json!({"containers": [asks("1")],
                       "initContainers": [sidecar("2"), asks("4"), sidecar("1")]}),
                6000,
            ),
            (
                "an init container before the sidecars",
                json!({"containers": [asks("1")], "initContainers": [asks("4"), sidecar("2")]}),
                4000,
            ),
            (
                "overhead comes on top",
                json!({"containers": [asks("1")], "overhead": {"cpu": "250m"}}),
                1250,
            ),
            (
                "the Pod's own word counts",
                json!({"containers": [asks("1")], "resources": {"requests": {"cpu": "4"}},
                       "overhead": {"cpu": "250m"}}),
                4250,
            ),
        ] {
            assert_eq!(pod_requests(&pod(spec))["cpu"], want, "{name}");
        }
    }

    #[test]
    fn only_what_every_container_is_limited_in_is_limited() {
        let limited = container(json!({}), json!({"cpu": "1", "memory": "1Gi"}));
        let half = container(json!({}), json!({"cpu": "1"}));
        let found = pod_limits(&pod(json!({"containers": [limited, half]})));
        assert_eq!(found, Amounts::from([("cpu".to_owned(), 2000)]));
    }

    #[test]
    fn for_scoring_nothing_is_a_little() {
        // §5.4
        let spec =
            json!({"containers": [asks("1"), {"name": "d"}], "initContainers": [sidecar("1")]});
        assert_eq!(scoring_requests(&pod(spec)), (2100, 600 << 20));
    }

    #[test]
    fn the_class_tells_how_firm_the_promise_is() {
        // RES-2
        let both = |cpu: &str| json!({"cpu": cpu, "memory": "1Gi"});
        for (name, spec, want) in [
            ("nothing", json!({"containers": [{"name": "c"}]}), "BestEffort"),
            ("zero is nothing", json!({"containers": [asks("0")]}), "BestEffort"),
            (
                "other resources do not count",
                json!({"containers": [container(json!({"ephemeral-storage": "1Gi"}), json!({}))]}),
                "BestEffort",
            ),
            ("a request", json!({"containers": [asks("1")]}), "Burstable"),
            (
                "limits that are the requests",
                json!({"containers": [container(both("1"), both("1"))]}),
                "Guaranteed",
            ),
            (
                "spelt differently",
                json!({"containers": [container(both("1000m"), both("1"))]}),
                "Guaranteed",
            ),
            (
                "limits above the requests",
                json!({"containers": [container(both("1"), both("2"))]}),
                "Burstable",
            ),
            (
                "one container without",
                json!({"containers": [container(both("1"), both("1")), {"name": "d"}]}),
                "Burstable",
            ),
            (
                "one init container without",
                json!({"containers": [container(both("1"), both("1"))], "initContainers": [{"name": "d"}]}),
                "Burstable",
            ),
            (
                "only cpu",
                json!({"containers": [container(json!({"cpu": "1"}), json!({"cpu": "1"}))]}),
                "Burstable",
            ),
            (
                "the whole Pod",
                json!({"containers": [{"name": "c"}],
              "resources": {"requests": both("1"), "limits": both("1")}}),
                "Guaranteed",
            ),
        ] {
            assert_eq!(qos_class(&pod(spec)), want, "{name}");
        }
    }
}
