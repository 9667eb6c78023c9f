//! Endpoints of Services, the older form (EPS-9).

use crate::{
    caches::Caches,
    delete::delete,
    endpointslice::is_ending,
    guard::Guard,
    queue::Queue,
    service::{
        self, address, hostname, is_ready, labels, ports, protocol_of, publishes_not_ready,
        selected, target_port,
    },
};
use api::core::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectMeta, ObjectReference, Pod,
    Service,
};
use client::{
    Client, ClientError, WriteOptions,
    informer::{Change, Key},
};
use std::{collections::BTreeMap, sync::Arc};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const NAME: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses of one object at most; who needs more reads the slices.
const ADDRESSES_MAX: usize = 1000;
const WORKERS: usize = 4;

/// Name, protocol, number and application of a port, in the order they are grouped by.
type Port = (String, String, i32, Option<String>);

/// The object as it is to be; `None` when there is nothing to write.
pub(crate) fn plan(
    service: &Service,
    pods: Vec<Arc<Pod>>,
    current: Option<&Endpoints>,
) -> Option<Endpoints> {
    let selector = service::selector(service)?;
    if current.is_none() && service.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let (subsets, cut) = subsets(service, &selected(pods, &selector));
    let mut metadata = current.map_or_else(
        || ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        |current| current.metadata.clone(),
    );
    let mut labels = labels(service, &[MANAGED_BY]);
    labels.insert(MANAGED_BY.to_owned(), NAME.to_owned());
    metadata.labels = Some(labels);
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    if cut {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    let wanted = Endpoints { metadata, subsets: (!subsets.is_empty()).then_some(subsets) };
    let same = current.is_some_and(|current| {
        let subsets = |e: &Endpoints| e.subsets.clone().unwrap_or_default();
        current.metadata == wanted.metadata && subsets(current) == subsets(&wanted)
    });
    (!same).then_some(wanted)
}

/// Addresses with the same ports together, and whether some had to be left out.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let all = publishes_not_ready(service);
    let family = service.spec.as_ref().and_then(|s| s.ip_families.as_ref()?.first().cloned());
    let family = family.unwrap_or_else(|| "IPv4".to_owned());
    // Ready ones first: they are what is kept when there are too many.
    let mut groups: BTreeMap<Vec<Port>, [BTreeMap<String, EndpointAddress>; 2]> = BTreeMap::new();
    for pod in pods {
        let Some(ip) = address(pod, &family) else { continue };
        if pod.metadata.deletion_timestamp.is_some() && !all {
            continue;
        }
        let mut found: Vec<Port> = ports(service)
            .iter()
            .filter_map(|port| {
                let name = port.name.clone().unwrap_or_default();
                let number = target_port(port, pod)?;
                Some((name, protocol_of(port), number, port.app_protocol.clone()))
            })
            .collect();
        if found.is_empty() && !ports(service).is_empty() {
            continue;
        }
        found.sort();
        let [ready, not_ready] = groups.entry(found).or_default();
        let list = if all || is_ready(pod) { ready } else { not_ready };
        list.insert(ip.to_owned(), endpoint_address(service, pod, ip));
    }
    let total: usize = groups.values().flatten().map(BTreeMap::len).sum();
    let mut room = ADDRESSES_MAX;
    let mut kept: BTreeMap<Vec<Port>, EndpointSubset> = BTreeMap::new();
    for not_ready in [false, true] {
        for (ports, [ready, unready]) in &groups {
            let from = if not_ready { unready } else { ready };
            let taken: Vec<EndpointAddress> = from.values().take(room).cloned().collect();
            room -= taken.len();
            if taken.is_empty() {
                continue;
            }
            let subset = kept.entry(ports.clone()).or_insert_with(|| subset(ports));
            if not_ready {
                subset.not_ready_addresses = Some(taken);
            } else {
                subset.addresses = Some(taken);
            }
        }
    }
    (kept.into_values().collect(), total > ADDRESSES_MAX)
}

fn subset(ports: &[Port]) -> EndpointSubset {
    let ports: Vec<EndpointPort> = ports
        .iter()
        .map(|(name, protocol, port, app_protocol)| EndpointPort {
            name: (!name.is_empty()).then(|| name.clone()),
            protocol: Some(protocol.clone()),
            port: *port,
            app_protocol: app_protocol.clone(),
        })
        .collect();
    EndpointSubset { ports: (!ports.is_empty()).then_some(ports), ..EndpointSubset::default() }
}

fn endpoint_address(service: &Service, pod: &Pod, ip: &str) -> EndpointAddress {
    EndpointAddress {
        ip: ip.to_owned(),
        hostname: hostname(service, pod),
        node_name: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    }
}

fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|l| l.get(MANAGED_BY)).map(String::as_str) == Some(NAME)
}

struct Controller {
    client: Client,
    caches: Caches,
    guard: Guard,
}

pub(crate) async fn run(client: Client, caches: Caches) {
    let queue = Queue::default();
    let all = || {
        let (services, endpoints) = (caches.services.list(), caches.endpoints.list());
        let endpoints = endpoints.iter().map(|e| Key::of(&**e));
        service::keys(services.iter().map(|s| Key::of(&**s)).chain(endpoints))
    };
    let pods = |change: &Change<Pod>| service::concerned(&caches.services, change);
    let controller = Controller { client, caches: caches.clone(), guard: Guard::default() };
    tokio::join!(
        queue.feed(&caches.services, |change| vec![change.key.clone()], all),
        queue.feed(&caches.pods, pods, all),
        queue.feed(&caches.endpoints, |change| vec![change.key.clone()], all),
        async {
            caches.synced().await;
            queue.work(WORKERS, |key| controller.sync(key)).await;
        },
    );
}

impl Controller {
    async fn sync(&self, key: Key) -> Result<(), ClientError> {
        let key = &key;
        self.guard.wait(key, &self.caches.endpoints).await?;
        let current = self.caches.endpoints.get(key);
        let Some(service) = self.caches.services.get(key) else {
            return match current.filter(|endpoints| is_ours(endpoints)) {
                Some(endpoints) => {
                    let (own, version) =
                        (&endpoints.metadata, endpoints.metadata.resource_version.clone());
                    delete::<Endpoints>(&self.client, own, None, version).await
                }
                None => Ok(()),
            };
        };
        let pods = self.caches.pods.list_in(&key.namespace);
        let Some(wanted) = plan(&service, pods, current.as_deref()) else { return Ok(()) };
        let options = WriteOptions::default();
        let written = match current {
            Some(_) => self.client.update(&wanted, &options).await,
            None => self.client.create(&wanted, &options).await,
        };
        match written {
            Ok(written) => {
                self.guard.wrote(key, &written.metadata);
                Ok(())
            }
            // The namespace takes everything with it (CTL-5).
            Err(ClientError::Api(status)) if is_ending(&status) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
