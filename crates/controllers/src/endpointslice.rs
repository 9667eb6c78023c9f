//! EndpointSlices of Services (EPS-1 to EPS-8, DEL-40).

mod pack;

use crate::{
    caches::Caches,
    delete::delete,
    guard::Guard,
    queue::Queue,
    service::{self, address, hostname, is_ready, labels, publishes_not_ready, selected},
};
use api::{
    core::{
        Endpoint, EndpointConditions, EndpointSlice, Node, ObjectMeta, ObjectReference,
        OwnerReference, Pod, Service,
    },
    status::Status,
};
use client::{
    Client, ClientError, WriteOptions,
    informer::{Change, Key},
};
use pack::{EndpointKey, Ports, listed, pack};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(crate) const NAME: &str = "endpointslice-controller.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const ZONE: &str = "topology.kubernetes.io/zone";
const WORKERS: usize = 8;

/// One write; slices that exist carry the version they were judged by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    Create(EndpointSlice),
    Update(EndpointSlice),
    Delete(EndpointSlice),
}

/// What is to be written so that `slices` show the Service's Pods: creates, then updates, then deletes,
/// so that no address is missing in between (EPS-5). `slices` are those that carry the Service's name;
/// `pods` those of its namespace.
pub(crate) fn plan(
    service: &Service,
    pods: Vec<Arc<Pod>>,
    node: &dyn Fn(&str) -> Option<Arc<Node>>,
    slices: &[Arc<EndpointSlice>],
) -> Vec<Action> {
    let Some(selector) = service::selector(service) else { return Vec::new() };
    let spec = service.spec.as_ref();
    let families = spec.and_then(|s| s.ip_families.clone()).filter(|all| !all.is_empty());
    let families = families.unwrap_or_else(|| vec!["IPv4".to_owned()]);
    let pods = selected(pods, &selector);
    let mut plan = Writes::default();
    let (own, foreign): (Vec<_>, Vec<_>) = slices
        .iter()
        .cloned()
        .partition(|slice| is_owned(service, slice) && families.contains(&slice.address_type));
    // Of a namesake that is gone, or of a family that the Service does not have any more.
    plan.deletes.extend(foreign);
    let mut names: BTreeSet<String> =
        slices.iter().filter_map(|slice| slice.metadata.name.clone()).collect();
    for family in &families {
        let own: Vec<_> = own.iter().filter(|s| s.address_type == *family).cloned().collect();
        plan.family(service, &endpoints(service, &pods, node, family), &own, family, &mut names);
    }
    plan.in_order()
}

#[derive(Default)]
struct Writes {
    creates: Vec<EndpointSlice>,
    updates: Vec<EndpointSlice>,
    deletes: Vec<Arc<EndpointSlice>>,
}

/// The endpoints of one family by the ports that they have.
type ByPorts = BTreeMap<Ports, BTreeMap<EndpointKey, Endpoint>>;

fn endpoints(
    service: &Service,
    pods: &[Arc<Pod>],
    node: &dyn Fn(&str) -> Option<Arc<Node>>,
    family: &str,
) -> ByPorts {
    let mut all = ByPorts::new();
    for pod in pods {
        let Some(ip) = address(pod, family) else { continue };
        let host = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
        let found = node(host);
        if found.is_none() && !publishes_not_ready(service) {
            // EPS-8: comes back with its node.
            continue;
        }
        let endpoint = endpoint(service, pod, ip, found.as_deref());
        all.entry(Ports::of(service, pod))
            .or_default()
            .insert(EndpointKey::of(&endpoint), endpoint);
    }
    all
}

/// EPS-2: not ready from the moment of its deletion, and in the slice until it is gone.
fn endpoint(service: &Service, pod: &Pod, ip: &str, node: Option<&Node>) -> Endpoint {
    let serving = is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let zone = node.and_then(|n| n.metadata.labels.as_ref()?.get(ZONE).cloned());
    Endpoint {
        addresses: vec![ip.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publishes_not_ready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    }
}

fn is_owned(service: &Service, slice: &EndpointSlice) -> bool {
    let owners = slice.metadata.owner_references.iter().flatten();
    let uid = service.metadata.uid.as_deref();
    owners.into_iter().any(|owner| owner.controller == Some(true) && Some(&*owner.uid) == uid)
}

fn slice_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = labels(service, &[MANAGED_BY, SERVICE_NAME]);
    labels.insert(MANAGED_BY.to_owned(), NAME.to_owned());
    let name = service.metadata.name.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name);
    labels
}

impl Writes {
    fn family(
        &mut self,
        service: &Service,
        wanted: &ByPorts,
        own: &[Arc<EndpointSlice>],
        family: &str,
        names: &mut BTreeSet<String>,
    ) {
        let labels = slice_labels(service);
        let mut groups: BTreeMap<Ports, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        for slice in own {
            groups.entry(Ports::of_slice(slice)).or_default().push(Arc::clone(slice));
        }
        for ports in wanted.keys() {
            groups.entry(ports.clone()).or_default();
        }
        let none = BTreeMap::new();
        let (mut fresh, mut emptied, mut kept) = (Vec::new(), Vec::new(), 0);
        for (ports, slices) in &groups {
            let packed = pack(wanted.get(ports).unwrap_or(&none), slices, &labels);
            kept += packed.unchanged + packed.updates.len();
            let made = |(slice, endpoints): (Arc<EndpointSlice>, _)| EndpointSlice {
                metadata: ObjectMeta { labels: Some(labels.clone()), ..slice.metadata.clone() },
                ports: Some(ports.to_list()),
                endpoints: Some(endpoints),
                address_type: slice.address_type.clone(),
            };
            self.updates.extend(packed.updates.into_iter().map(made));
            emptied.extend(packed.emptied);
            fresh.extend(packed.fresh.into_iter().map(|endpoints| (ports.to_list(), endpoints)));
        }
        if kept == 0 && fresh.is_empty() {
            // One slice says that there is nothing.
            fresh.push((Vec::new(), Vec::new()));
        }
        let terminating = service.metadata.deletion_timestamp.is_some();
        for (ports, endpoints) in fresh {
            let (ports, endpoints) = (Some(ports), Some(endpoints));
            let address_type = family.to_owned();
            if let Some(old) = emptied.pop() {
                // EPS-5: cheaper than one gone and one new, and never a moment without.
                let metadata = ObjectMeta { labels: Some(labels.clone()), ..old.metadata.clone() };
                let slice = EndpointSlice { metadata, address_type, endpoints, ports };
                if !is_same(&slice, &old) {
                    self.updates.push(slice);
                }
            } else if !terminating {
                let metadata = fresh_metadata(service, family, labels.clone(), names);
                self.creates.push(EndpointSlice { metadata, address_type, endpoints, ports });
            }
        }
        self.deletes.extend(emptied);
    }

    fn in_order(self) -> Vec<Action> {
        let creates = self.creates.into_iter().map(Action::Create);
        let updates = self.updates.into_iter().map(Action::Update);
        let deletes = self.deletes.into_iter().map(|slice| Action::Delete((*slice).clone()));
        creates.chain(updates).chain(deletes).collect()
    }
}

fn is_same(a: &EndpointSlice, b: &EndpointSlice) -> bool {
    a.metadata.labels == b.metadata.labels
        && listed(a) == listed(b)
        && Ports::of_slice(a) == Ports::of_slice(b)
}

/// Names are drawn by a rule: a create that is tried again because its answer was lost, or because the
/// copy is behind, finds its name taken instead of making a second slice (FEN-31, EPS-7).
fn fresh_metadata(
    service: &Service,
    family: &str,
    labels: BTreeMap<String, String>,
    names: &mut BTreeSet<String>,
) -> ObjectMeta {
    let base = service.metadata.name.clone().unwrap_or_default();
    let uid = service.metadata.uid.clone().unwrap_or_default();
    let name = (0_u64..)
        .map(|n| format!("{base}-{}", suffix(&format!("{uid}/{family}/{n}"))))
        .find(|name| !names.contains(name))
        .expect("the names never end");
    names.insert(name.clone());
    ObjectMeta {
        name: Some(name),
        namespace: service.metadata.namespace.clone(),
        generate_name: Some(format!("{base}-")),
        labels: Some(labels),
        owner_references: Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            name: base,
            uid,
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}

/// Five letters, as a generated name ends.
fn suffix(seed: &str) -> String {
    api::names::generated_suffix(api::names::stable_hash(seed))
}

struct Controller {
    client: Client,
    caches: Caches,
    guard: Guard,
}

pub(crate) async fn run(client: Client, caches: Caches) {
    let queue = Queue::default();
    let all = || {
        let services = caches.services.list();
        let slices = caches.slices.list();
        let left = slices.iter().filter_map(|slice| service_of(slice));
        service::keys(services.iter().map(|s| Key::of(&**s)).chain(left))
    };
    let pods = |change: &Change<Pod>| service::concerned(&caches.services, change);
    // What others do to our slices is put right.
    let slices = |change: &Change<EndpointSlice>| {
        let slices = change.old.iter().chain(&change.new);
        service::keys(slices.filter_map(|slice| service_of(slice)))
    };
    let nodes = |change: &Change<Node>| concerned_by_node(&caches, change);
    let controller = Controller { client, caches: caches.clone(), guard: Guard::default() };
    tokio::join!(
        queue.feed(&caches.services, |change| vec![change.key.clone()], all),
        queue.feed(&caches.pods, pods, all),
        queue.feed(&caches.slices, slices, all),
        queue.feed(&caches.nodes, nodes, all),
        async {
            caches.synced().await;
            queue.work(WORKERS, |key| controller.sync(key)).await;
        },
    );
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?.clone();
    Some(Key { namespace: slice.metadata.namespace.clone().unwrap_or_default(), name })
}

/// A node that comes, goes or moves to another zone changes what is said of its Pods.
fn concerned_by_node(caches: &Caches, change: &Change<Node>) -> Vec<Key> {
    let zone = |node: &Option<Arc<Node>>| {
        node.as_ref().map(|n| n.metadata.labels.as_ref().and_then(|l| l.get(ZONE).cloned()))
    };
    if zone(&change.old) == zone(&change.new) {
        return Vec::new();
    }
    let pods = caches.pods.list();
    let here = pods.iter().filter(|pod| {
        pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(&change.key.name)
    });
    service::keys(here.flat_map(|pod| {
        let now = Change { key: Key::of(&**pod), old: None, new: Some(Arc::clone(pod)) };
        service::concerned(&caches.services, &now)
    }))
}

impl Controller {
    async fn sync(&self, key: Key) -> Result<(), ClientError> {
        let key = &key;
        self.guard.wait(key, &self.caches.slices).await?;
        let slices = self.caches.slices.list_in(&key.namespace);
        let slices: Vec<_> =
            slices.into_iter().filter(|s| service_of(s).as_ref() == Some(key)).collect();
        let actions = match self.caches.services.get(key) {
            Some(service) => {
                let node = |name: &str| {
                    let key = Key { namespace: String::new(), name: name.to_owned() };
                    self.caches.nodes.get(&key)
                };
                plan(&service, self.caches.pods.list_in(&key.namespace), &node, &slices)
            }
            None => slices.iter().map(|slice| Action::Delete((**slice).clone())).collect(),
        };
        for action in actions {
            match self.carry_out(action).await {
                Ok(Some(written)) => self.guard.wrote(key, &written),
                Ok(None) => {}
                // The namespace takes everything with it (CTL-5).
                Err(ClientError::Api(status)) if is_ending(&status) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn carry_out(&self, action: Action) -> Result<Option<ObjectMeta>, ClientError> {
        let options = WriteOptions::default();
        match action {
            Action::Create(slice) => {
                self.client.create(&slice, &options).await.map(|s| Some(s.metadata))
            }
            Action::Update(slice) => {
                self.client.update(&slice, &options).await.map(|s| Some(s.metadata))
            }
            Action::Delete(slice) => {
                let version = slice.metadata.resource_version.clone();
                delete::<EndpointSlice>(&self.client, &slice.metadata, None, version).await?;
                Ok(None)
            }
        }
    }
}

pub(crate) fn is_ending(status: &Status) -> bool {
    status.has_cause("NamespaceTerminating")
}

#[cfg(test)]
mod tests;
