//! Service, Endpoints and EndpointSlice.

use super::{
    Kind, any_status, column, decodes, keep_status, plain::PLAIN, take_status, text, unknown,
    valid_metadata, wide,
};
use crate::{
    core,
    field::{FieldError, Path},
    meta::child_mut,
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

fn or_none(text: String) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
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
    unknown_fields: unknown::<core::Service>,
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

pub(super) const ENDPOINTS: Kind = Kind {
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    columns: &[column("Name", "name"), column("Endpoints", ""), column("Age", "")],
    cells: |object, now| {
        let mut all = Vec::new();
        let list = |value: &Value, field: &str| {
            value.get(field).and_then(Value::as_array).cloned().unwrap_or_default()
        };
        for subset in list(object, "subsets") {
            for address in list(&subset, "addresses") {
                for port in list(&subset, "ports") {
                    all.push(format!("{}:{}", text(&address, "/ip"), text(&port, "/port")));
                }
            }
        }
        vec![crate::meta::name(object).into(), some(&all), age(object, now).into()]
    },
    unknown_fields: unknown::<core::Endpoints>,
    decode: decodes::<core::Endpoints>,
    ..PLAIN
};

pub(super) const ENDPOINT_SLICE: Kind = Kind {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    validate_create: |object| valid_metadata(object, true),
    columns: &[
        column("Name", "name"),
        column("AddressType", ""),
        column("Ports", ""),
        column("Endpoints", ""),
        column("Age", ""),
    ],
    cells: |object, now| {
        let list = |field: &str| object.get(field).and_then(Value::as_array).cloned();
        let ports: Vec<String> =
            list("ports").unwrap_or_default().iter().map(|p| text(p, "/port")).collect();
        let addresses: Vec<String> =
            list("endpoints").unwrap_or_default().iter().map(|e| text(e, "/addresses/0")).collect();
        vec![
            crate::meta::name(object).into(),
            text(object, "/addressType").into(),
            some(&ports),
            some(&addresses),
            age(object, now).into(),
        ]
    },
    unknown_fields: unknown::<core::EndpointSlice>,
    decode: decodes::<core::EndpointSlice>,
    ..PLAIN
};
