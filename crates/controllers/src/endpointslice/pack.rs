//! Which endpoint goes into which slice, changing as few slices as can be (EPS-4).

use crate::service::{ports, protocol_of, target_port};
use api::core::{Endpoint, EndpointSlice, EndpointSlicePort, Pod, Service};
use std::{collections::BTreeMap, sync::Arc};

/// Endpoints of one slice at most.
const ENDPOINTS_MAX: usize = 100;

/// The ports of all endpoints of a slice (EPS-3), in order: name, protocol, number, application.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ports(Vec<(String, String, Option<i32>, Option<String>)>);

impl Ports {
    /// The Service's ports as this Pod has them: those that it does not have are left out.
    pub(super) fn of(service: &Service, pod: &Pod) -> Self {
        let found = ports(service).iter().filter_map(|port| {
            let number = target_port(port, pod)?;
            let name = port.name.clone().unwrap_or_default();
            Some((name, protocol_of(port), Some(number), port.app_protocol.clone()))
        });
        Self::sorted(found)
    }

    pub(super) fn of_slice(slice: &EndpointSlice) -> Self {
        Self::sorted(slice.ports.iter().flatten().map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            (port.name.clone().unwrap_or_default(), protocol, port.port, port.app_protocol.clone())
        }))
    }

    fn sorted(ports: impl Iterator<Item = (String, String, Option<i32>, Option<String>)>) -> Self {
        let mut ports: Vec<_> = ports.collect();
        ports.sort();
        Self(ports)
    }

    pub(super) fn to_list(&self) -> Vec<EndpointSlicePort> {
        let port = |(name, protocol, port, app_protocol): &(String, String, _, Option<String>)| {
            EndpointSlicePort {
                name: Some(name.clone()),
                protocol: Some(protocol.clone()),
                port: *port,
                app_protocol: app_protocol.clone(),
            }
        };
        self.0.iter().map(port).collect()
    }
}

/// Which endpoint it is, whatever its conditions: Pod, its UID, address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndpointKey(String, String, Vec<String>);

impl EndpointKey {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let target = endpoint.target_ref.clone().unwrap_or_default();
        let addresses = endpoint.addresses.clone();
        Self(target.name.unwrap_or_default(), target.uid.unwrap_or_default(), addresses)
    }
}

/// What is to become of the slices of one group.
#[derive(Debug, Default)]
pub(super) struct Packed {
    /// The endpoints of slices that do not exist yet.
    pub(super) fresh: Vec<Vec<Endpoint>>,
    /// Slices with other endpoints, or with labels that are not up to date.
    pub(super) updates: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)>,
    /// Slices without any endpoint now.
    pub(super) emptied: Vec<Arc<EndpointSlice>>,
    /// How many stay as they are.
    pub(super) unchanged: usize,
}

pub(super) fn listed(slice: &EndpointSlice) -> &[Endpoint] {
    slice.endpoints.as_deref().unwrap_or_default()
}

pub(super) fn pack(
    wanted: &BTreeMap<EndpointKey, Endpoint>,
    slices: &[Arc<EndpointSlice>],
    labels: &BTreeMap<String, String>,
) -> Packed {
    let mut left = wanted.clone();
    let mut packed = Packed::default();
    let mut same: Vec<Arc<EndpointSlice>> = Vec::new();
    for slice in slices {
        let old = listed(slice);
        let kept = old.iter().filter_map(|old| left.remove(&EndpointKey::of(old)));
        let endpoints: Vec<Endpoint> = kept.collect();
        if endpoints.is_empty() {
            packed.emptied.push(Arc::clone(slice));
        } else if endpoints != old || slice.metadata.labels.as_ref() != Some(labels) {
            packed.updates.push((Arc::clone(slice), endpoints));
        } else {
            same.push(Arc::clone(slice));
        }
    }
    let mut left: Vec<Endpoint> = left.into_values().collect();
    // Those that are written anyway, fullest first.
    packed.updates.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
    for (_, endpoints) in &mut packed.updates {
        let room = ENDPOINTS_MAX.saturating_sub(endpoints.len()).min(left.len());
        endpoints.extend(left.drain(..room));
    }
    while !left.is_empty() {
        // The one that the rest fills best, if it fits at all and none is there to be used again.
        let fits = |slice: &EndpointSlice| listed(slice).len() + left.len() <= ENDPOINTS_MAX;
        let candidates = same.iter().enumerate().filter(|(_, slice)| fits(slice));
        let best = candidates.max_by_key(|(_, slice)| listed(slice).len()).map(|(i, _)| i);
        if let Some(best) = best.filter(|_| packed.emptied.is_empty()) {
            let slice = same.swap_remove(best);
            let mut endpoints = listed(&slice).to_vec();
            endpoints.append(&mut left);
            packed.updates.push((slice, endpoints));
        } else {
            packed.fresh.push(left.drain(..left.len().min(ENDPOINTS_MAX)).collect());
        }
    }
    packed.unchanged = same.len();
    packed
}
