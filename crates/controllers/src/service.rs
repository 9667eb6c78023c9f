//! What both endpoint controllers ask of Services and Pods (EPS-1, EPS-2).

use api::{
    core::{IntOrString, Pod, Service, ServicePort},
    pod::has_ended,
    resources::is_sidecar,
    selector::LabelSelector,
};
use client::informer::{Change, Informer, Key};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

/// The selector, if it is ours to find addresses: without one they are the user's (EPS-1).
pub(crate) fn selector(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|pairs| !pairs.is_empty()).map(LabelSelector::equal)
}

pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true)
}

/// The Service's own labels, those that begin with one of ours left out, and a mark if it is headless.
pub(crate) fn labels(service: &Service, reserved: &[&str]) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| key != HEADLESS && !reserved.contains(&key.as_str()));
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

/// The Pods that the selector means, as far as they may have an address at all.
pub(crate) fn selected(pods: Vec<Arc<Pod>>, selector: &LabelSelector) -> Vec<Arc<Pod>> {
    let empty = BTreeMap::new();
    let mut pods = pods;
    pods.retain(|pod| {
        selector.matches(pod.metadata.labels.as_ref().unwrap_or(&empty)) && !has_ended(pod)
    });
    pods
}

/// The keys of the Services that a change of a Pod concerns, by its labels before and after.
pub(crate) fn concerned(services: &Informer<Service>, change: &Change<Pod>) -> Vec<Key> {
    let labels = |pod: &Option<Arc<Pod>>| {
        pod.as_ref().map(|pod| pod.metadata.labels.clone().unwrap_or_default())
    };
    let (old, new) = (labels(&change.old), labels(&change.new));
    let services = services.list_in(&change.key.namespace);
    let concerned = services.iter().filter(|service| {
        selector(service).is_some_and(|selector| {
            [&old, &new].into_iter().flatten().any(|labels| selector.matches(labels))
        })
    });
    concerned.map(|service| Key::of(&**service)).collect()
}

/// Keys of objects, each once.
pub(crate) fn keys(lists: impl IntoIterator<Item = Key>) -> Vec<Key> {
    let keys: BTreeSet<Key> = lists.into_iter().collect();
    keys.into_iter().collect()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The Pod's address of a family, `IPv4` or `IPv6`.
pub(crate) fn address<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    let status = pod.status.as_ref()?;
    let all =
        status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    let mut all = all.filter(|ip| !ip.is_empty());
    all.find(|ip| ip.contains(':') == (family == "IPv6"))
}

/// `hostname` of an address: only of Pods that name this Service as their subdomain.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let named = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname.clone().filter(|name| named && !name.is_empty())
}

pub(crate) fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default()
}

fn protocol(protocol: &Option<String>) -> &str {
    protocol.as_deref().filter(|p| !p.is_empty()).unwrap_or("TCP")
}

/// The number of a Service's port in a Pod; `None` when the Pod has no port of that name.
pub(crate) fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| is_sidecar(c));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let mut ports = ports.filter(|p| protocol(&p.protocol) == protocol(&port.protocol));
    ports.find(|p| p.name.as_ref() == Some(name)).map(|p| p.container_port)
}

/// `TCP` when nothing is said.
pub(crate) fn protocol_of(port: &ServicePort) -> String {
    protocol(&port.protocol).to_owned()
}
