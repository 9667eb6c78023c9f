//! Service, Endpoints and EndpointSlice.

use super::{
    Kind, any_status, column, decodes, keep_status, or_none, plain::PLAIN, take_status, text,
    valid_metadata, wide,
};
use crate::{
    core,
    field::{FieldError, Path},
    meta::{child_mut, drop_nulls},
    names,
    table::age,
};
use serde_json::{Value, json};

fn ports(object: &Value) -> &[Value] {
    object.pointer("/spec/ports").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = crate::validation::metadata(object, true, names::label);
    let spec = Path::new("spec");
    let kind = text(object, "/spec/type");
    if !["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"].contains(&kind.as_str()) {
        let supported = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
        errors.push(FieldError::not_supported(&spec.child("type"), kind.clone(), supported));
    }
    let headless = text(object, "/spec/clusterIP") == "None";
    if ports(object).is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required(&spec.child("ports"), ""));
    }
    let mut seen = Vec::new();
    for (i, port) in ports(object).iter().enumerate() {
        let path = spec.child("ports").index(i);
        let number = port.get("port").and_then(Value::as_i64).unwrap_or_default();
        if !(1..=65_535).contains(&number) {
            let detail = "must be between 1 and 65535, inclusive";
            errors.push(FieldError::invalid(&path.child("port"), number, detail));
        }
        let name = text(port, "/name");
        if name.is_empty() && ports(object).len() > 1 {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if !name.is_empty() {
            errors.extend(names::check(&path.child("name"), &name, names::label));
            if seen.contains(&name) {
                errors.push(FieldError::duplicate(&path.child("name"), name.clone()));
            }
        }
        seen.push(name);
        let protocol = text(port, "/protocol");
        if !["SCTP", "TCP", "UDP"].contains(&protocol.as_str()) {
            let supported = &["SCTP", "TCP", "UDP"];
            errors.push(FieldError::not_supported(&path.child("protocol"), protocol, supported));
        }
    }
    errors
}

fn port_list(object: &Value) -> String {
    let list: Vec<String> = ports(object)
        .iter()
        .map(|port| {
            let (number, protocol) = (text(port, "/port"), text(port, "/protocol"));
            match text(port, "/nodePort").as_str() {
                "" | "0" => format!("{number}/{protocol}"),
                node => format!("{number}:{node}/{protocol}"),
            }
        })
        .collect();
    if list.is_empty() { "<none>".to_owned() } else { list.join(",") }
}

pub(super) const KIND: Kind = Kind {
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    subresources: &["status"],
    default: |object| {
        let spec = child_mut(object, "spec");
        spec.entry("type").or_insert(json!("ClusterIP"));
        spec.entry("sessionAffinity").or_insert(json!("None"));
        spec.entry("internalTrafficPolicy").or_insert(json!("Cluster"));
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(port) = port.as_object_mut() {
                port.entry("protocol").or_insert(json!("TCP"));
                let number = port.get("port").cloned().unwrap_or_default();
                port.entry("targetPort").or_insert(number);
            }
        }
        child_mut(object, "status").entry("loadBalancer").or_insert(json!({}));
    },
    prepare_update: |new, old| {
        keep_status(new, old);
        // What was allocated is kept when the new object says nothing of it.
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if let Some(value) = old.pointer(&format!("/spec/{field}")) {
                child_mut(new, "spec").entry(field).or_insert(value.clone());
            }
        }
    },
    prepare_status: take_status,
    validate_create: validate,
    validate_update: |new, old| {
        let mut errors = validate(new);
        errors.extend(crate::validation::metadata_update(new, old));
        let (before, after) = (text(old, "/spec/clusterIP"), text(new, "/spec/clusterIP"));
        if !before.is_empty() && before != after && text(new, "/spec/type") != "ExternalName" {
            let path = Path::new("spec").child("clusterIPs").index(0);
            errors.push(FieldError::invalid(&path, json!([after]), "may not change once set"));
        }
        errors
    },
    validate_status: any_status,
    columns: &[
        column("Name", "name"),
        column("Type", ""),
        column("Cluster-IP", ""),
        column("External-IP", ""),
        column("Port(s)", ""),
        column("Age", ""),
        wide("Selector"),
    ],
    cells: |object, now| {
        let selector: Vec<String> = object
            .pointer("/spec/selector")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
            .collect();
        vec![
            crate::meta::name(object).into(),
            text(object, "/spec/type").into(),
            or_none(text(object, "/spec/clusterIP")),
            "<none>".into(),
            port_list(object).into(),
            age(object, now).into(),
            or_none(selector.join(",")),
        ]
    },
    field_labels: &["spec.clusterIP", "spec.type"],
    field: |object, label| text(object, &format!("/{}", label.replace('.', "/"))),
    decode: decodes::<core::Service>,
    ..PLAIN
};

/// The first three, and how many more.
fn some(all: &[String]) -> Value {
    if all.is_empty() {
        return "<none>".into();
    }
    let shown = all.iter().take(3).cloned().collect::<Vec<_>>().join(",");
    match all.len() {
        0..=3 => shown.into(),
        n => format!("{shown} + {} more...", n - 3).into(),
    }
}

fn items<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn default_protocols(of: &mut Value) {
    for port in of.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            port.entry("protocol").or_insert(json!("TCP"));
        }
    }
}

/// `number` is whether a port must have one: a slice may leave it open.
fn validate_ports(list: &[Value], path: &Path, number: bool, errors: &mut Vec<FieldError>) {
    let mut seen = Vec::new();
    for (i, port) in list.iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "/name");
        if name.is_empty() && list.len() > 1 && number {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if !name.is_empty() {
            errors.extend(names::check(&path.child("name"), &name, names::label));
        }
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(&path.child("name"), name.clone()));
        }
        seen.push(name);
        let found = port.get("port").and_then(Value::as_i64);
        if found.or(number.then_some(0)).is_some_and(|n| !(1..=65_535).contains(&n)) {
            let detail = "must be between 1 and 65535, inclusive";
            errors.push(FieldError::invalid(&path.child("port"), found.unwrap_or(0), detail));
        }
        let protocol = text(port, "/protocol");
        if !["SCTP", "TCP", "UDP"].contains(&protocol.as_str()) {
            let supported = &["SCTP", "TCP", "UDP"];
            errors.push(FieldError::not_supported(&path.child("protocol"), protocol, supported));
        }
    }
}

fn validate_ip(value: &str, path: &Path, errors: &mut Vec<FieldError>) {
    if value.parse::<std::net::IpAddr>().is_err() {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(path, value, detail));
    }
}

fn validate_endpoints(object: &Value) -> Vec<FieldError> {
    let mut errors = valid_metadata(object, true);
    for (i, subset) in items(object, "subsets").iter().enumerate() {
        let path = Path::new("subsets").index(i);
        if items(subset, "addresses").is_empty() && items(subset, "notReadyAddresses").is_empty() {
            let detail = "must specify `addresses` or `notReadyAddresses`";
            errors.push(FieldError::required(&path, detail));
        }
        for field in ["addresses", "notReadyAddresses"] {
            for (i, address) in items(subset, field).iter().enumerate() {
                let path = path.child(field).index(i).child("ip");
                validate_ip(&text(address, "/ip"), &path, &mut errors);
            }
        }
        validate_ports(items(subset, "ports"), &path.child("ports"), true, &mut errors);
    }
    errors
}

/// Endpoints of one slice at most.
const SLICE_ENDPOINTS_MAX: usize = 1000;
/// Addresses of one endpoint at most.
const ADDRESSES_MAX: usize = 100;

fn validate_slice(object: &Value) -> Vec<FieldError> {
    let mut errors = valid_metadata(object, true);
    let family = text(object, "/addressType");
    let path = Path::new("addressType");
    if family.is_empty() {
        errors.push(FieldError::required(&path, ""));
    } else if !["FQDN", "IPv4", "IPv6"].contains(&family.as_str()) {
        let supported = &["FQDN", "IPv4", "IPv6"];
        errors.push(FieldError::not_supported(&path, family.clone(), supported));
    }
    let endpoints = items(object, "endpoints");
    if endpoints.len() > SLICE_ENDPOINTS_MAX {
        errors.push(FieldError::too_many(
            &Path::new("endpoints"),
            endpoints.len(),
            SLICE_ENDPOINTS_MAX,
        ));
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let path = Path::new("endpoints").index(i).child("addresses");
        let addresses = items(endpoint, "addresses");
        if addresses.is_empty() {
            errors.push(FieldError::required(&path, "must contain at least 1 address"));
        } else if addresses.len() > ADDRESSES_MAX {
            errors.push(FieldError::too_many(&path, addresses.len(), ADDRESSES_MAX));
        }
        for (i, address) in addresses.iter().enumerate() {
            let (path, address) = (path.index(i), address.as_str().unwrap_or_default());
            match family.as_str() {
                "IPv4" if address.parse::<std::net::Ipv4Addr>().is_err() => {
                    errors.push(FieldError::invalid(
                        &path,
                        address,
                        "must be a valid IPv4 address",
                    ));
                }
                "IPv6" if address.parse::<std::net::Ipv6Addr>().is_err() => {
                    errors.push(FieldError::invalid(
                        &path,
                        address,
                        "must be a valid IPv6 address",
                    ));
                }
                "FQDN" => errors.extend(names::check(&path, address, names::subdomain)),
                _ => {}
            }
        }
    }
    validate_ports(items(object, "ports"), &Path::new("ports"), false, &mut errors);
    errors
}

pub(super) const ENDPOINTS: Kind = Kind {
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    default: |object| {
        drop_nulls(object);
        let subsets = object.get_mut("subsets").and_then(Value::as_array_mut);
        for subset in subsets.into_iter().flatten() {
            default_protocols(subset);
        }
    },
    validate_create: validate_endpoints,
    validate_update: |new, old| {
        let mut errors = validate_endpoints(new);
        errors.extend(crate::validation::metadata_update(new, old));
        errors
    },
    columns: &[column("Name", "name"), column("Endpoints", ""), column("Age", "")],
    cells: |object, now| {
        let mut all = Vec::new();
        let list = |value: &Value, field: &str| {
            value.get(field).and_then(Value::as_array).cloned().unwrap_or_default()
        };
        for subset in list(object, "subsets") {
            let (addresses, ports) = (list(&subset, "addresses"), list(&subset, "ports"));
            if ports.is_empty() {
                // Of a headless Service without ports.
                all.extend(addresses.iter().map(|address| text(address, "/ip")));
            }
            for port in &ports {
                let port = text(port, "/port");
                all.extend(addresses.iter().map(|a| match text(a, "/ip") {
                    ip if ip.contains(':') => format!("[{ip}]:{port}"),
                    ip => format!("{ip}:{port}"),
                }));
            }
        }
        vec![crate::meta::name(object).into(), some(&all), age(object, now).into()]
    },
    decode: decodes::<core::Endpoints>,
    ..PLAIN
};

pub(super) const ENDPOINT_SLICE: Kind = Kind {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    default: |object| {
        drop_nulls(object);
        default_protocols(object);
        for port in object.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(port) = port.as_object_mut() {
                port.entry("name").or_insert(json!(""));
            }
        }
    },
    validate_create: validate_slice,
    validate_update: |new, old| {
        let mut errors = validate_slice(new);
        errors.extend(crate::validation::metadata_update(new, old));
        if new.get("addressType") != old.get("addressType") {
            let family = text(new, "/addressType");
            let path = Path::new("addressType");
            errors.push(FieldError::invalid(&path, family, "field is immutable"));
        }
        errors
    },
    columns: &[
        column("Name", "name"),
        column("AddressType", ""),
        column("Ports", ""),
        column("Endpoints", ""),
        column("Age", ""),
    ],
    cells: |object, now| {
        let or_unset = |all: &[String]| if all.is_empty() { json!("<unset>") } else { some(all) };
        let ports: Vec<String> = items(object, "ports")
            .iter()
            .map(|port| match text(port, "/port") {
                any if any.is_empty() => "*".to_owned(),
                port => port,
            })
            .collect();
        let addresses: Vec<String> = items(object, "endpoints")
            .iter()
            .flat_map(|endpoint| items(endpoint, "addresses"))
            .map(|address| address.as_str().unwrap_or_default().to_owned())
            .collect();
        vec![
            crate::meta::name(object).into(),
            text(object, "/addressType").into(),
            or_unset(&ports),
            or_unset(&addresses),
            age(object, now).into(),
        ]
    },
    decode: decodes::<core::EndpointSlice>,
    ..PLAIN
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_services_are_shown_as_kubectl_shows_them() {
        // TAB-1, TAB-4
        let time = "2026-01-01T00:00:00Z";
        let now = crate::meta::parse_time(time).unwrap() + 60;
        let addresses = |n: usize| (1..=n).map(|i| json!({"ip": format!("10.0.0.{i}")}));
        let addresses = |n| addresses(n).collect::<Vec<_>>();
        for (subsets, want) in [
            (json!([]), "<none>"),
            (json!([{"addresses": addresses(1), "ports": [{"port": 80}]}]), "10.0.0.1:80"),
            (json!([{"addresses": addresses(1)}]), "10.0.0.1"),
            (
                json!([{"addresses": addresses(2), "ports": [{"port": 1}, {"port": 2}]}]),
                "10.0.0.1:1,10.0.0.2:1,10.0.0.1:2 + 1 more...",
            ),
            (json!([{"addresses": [{"ip": "fd::1"}], "ports": [{"port": 80}]}]), "[fd::1]:80"),
        ] {
            let metadata = json!({"name": "web", "creationTimestamp": time});
            let object = json!({"metadata": metadata, "subsets": subsets});
            assert_eq!((ENDPOINTS.cells)(&object, now), ["web", want, "60s"]);
        }
        let slice = json!({
            "metadata": {"name": "web-1", "creationTimestamp": time}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}, {"name": "any"}],
        });
        let want = ["web-1", "IPv4", "80,*", "10.0.0.1", "60s"];
        assert_eq!((ENDPOINT_SLICE.cells)(&slice, now), want);
        let empty = json!({"metadata": slice["metadata"], "addressType": "IPv4"});
        let want = ["web-1", "IPv4", "<unset>", "<unset>", "60s"];
        assert_eq!((ENDPOINT_SLICE.cells)(&empty, now), want);
    }

    #[test]
    fn addresses_that_are_none_are_refused_field_by_field() {
        let metadata = json!({"name": "web", "namespace": "default"});
        let wrong = |kind: &Kind, mut object: Value| {
            object["metadata"] = metadata.clone();
            (kind.default)(&mut object);
            let errors = (kind.validate_create)(&object);
            errors.iter().map(|e| e.field.clone()).collect::<Vec<_>>()
        };
        for (object, want) in [
            (json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]}), vec![]),
            (json!({"addressType": "IPv4", "ports": [{"port": 80}]}), vec![]),
            (json!({"endpoints": []}), vec!["addressType"]),
            (
                json!({"addressType": "IPv4", "endpoints": [{"addresses": ["fd::1"]}, {}]}),
                vec!["endpoints[0].addresses[0]", "endpoints[1].addresses"],
            ),
            (
                json!({"addressType": "IPv6", "ports": [{"port": 1}, {"port": 0, "protocol": "X"}]}),
                vec!["ports[1].name", "ports[1].port", "ports[1].protocol"],
            ),
        ] {
            assert_eq!(wrong(&ENDPOINT_SLICE, object.clone()), want, "{object}");
        }
        for (subset, want) in [
            (json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}), vec![]),
            (json!({"notReadyAddresses": [{"ip": "10.0.0.1"}]}), vec![]),
            (json!({"ports": [{"port": 80}]}), vec!["subsets[0]"]),
            (
                json!({"addresses": [{"ip": "x"}], "ports": [{}]}),
                vec!["subsets[0].addresses[0].ip", "subsets[0].ports[0].port"],
            ),
        ] {
            let object = json!({"subsets": [subset]});
            assert_eq!(wrong(&ENDPOINTS, object), want, "{subset}");
        }
    }
}
