//! What a Pod asks for and may use (RES-1, RES-2).

use crate::{
    core::{Container, Pod, QuantityText},
    quantity::Quantity,
};
use std::collections::BTreeMap;

/// Amounts by resource: cpu in thousandths, everything else in whole units.
pub type Amounts = BTreeMap<String, i64>;

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

fn own(container: &Container) -> Amounts {
    amounts(container.resources.as_ref().and_then(|r| r.requests.as_ref()))
}

fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *to.entry(name.clone()).or_default() += amount;
    }
}

fn raise(to: &mut Amounts, at_least: &Amounts) {
    for (name, amount) in at_least {
        let now = to.entry(name.clone()).or_default();
        *now = (*now).max(*amount);
    }
}

/// Whether an init container goes on beside the others.
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What the scheduler must find room for (RES-1).
#[must_use]
pub fn pod_requests(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let mut total = Amounts::new();
    for container in &spec.containers {
        add(&mut total, &own(container));
    }
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    for init in spec.init_containers.iter().flatten() {
        let mut used = own(init);
        if is_sidecar(init) {
            add(&mut sidecars, &used);
            used = sidecars.clone();
        } else {
            add(&mut used, &sidecars);
        }
        raise(&mut peak, &used);
    }
    add(&mut total, &sidecars);
    raise(&mut total, &peak);
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

/// The same for scoring: a container that asks for nothing counts as a small one (§5.4).
#[must_use]
pub fn scoring_requests(pod: &Pod) -> (i64, i64) {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.fold((0, 0), |(cpu, memory), container| {
        let own = own(container);
        let or = |name: &str, default| own.get(name).copied().filter(|v| *v > 0).unwrap_or(default);
        (cpu + or("cpu", 100), memory + or("memory", 200 << 20))
    })
}

/// `Guaranteed`, `Burstable` or `BestEffort` (RES-2).
#[must_use]
pub fn qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let list = |c: &Container, limits: bool| {
        let resources = c.resources.clone().unwrap_or_default();
        let mut found =
            amounts(if limits { resources.limits } else { resources.requests }.as_ref());
        found.retain(|name, amount| (name == "cpu" || name == "memory") && *amount > 0);
        found
    };
    if all().all(|c| list(c, true).is_empty() && list(c, false).is_empty()) {
        return "BestEffort";
    }
    let guaranteed = all().all(|c| list(c, true).len() == 2 && list(c, true) == list(c, false));
    if guaranteed { "Guaranteed" } else { "Burstable" }
}
