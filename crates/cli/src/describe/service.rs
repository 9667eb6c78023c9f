//! A Service: where it is reached and who answers.

use super::text::{Text, at, items, or_none, pairs, plain};
use api::meta;
use serde_json::Value;

/// Addresses of one port that are shown.
const SHOWN: usize = 3;

pub(super) fn describe(text: &mut Text, service: &Value, slices: &[Value]) {
    text.field("Name", meta::name(service));
    text.field("Namespace", meta::namespace(service));
    text.map("Labels", service.pointer("/metadata/labels"), "=");
    text.map("Annotations", service.pointer("/metadata/annotations"), ": ");
    let selector = pairs(service.pointer("/spec/selector"), "=").join(",");
    text.field("Selector", &or_none(selector));
    text.field("Type", &at(service, "/spec/type"));
    let optional = |text: &mut Text, name: &str, value: String| {
        if !value.is_empty() {
            text.field(name, &value);
        }
    };
    let join =
        |pointer: &str| items(service, pointer).iter().map(plain).collect::<Vec<_>>().join(",");
    optional(text, "IP Family Policy", at(service, "/spec/ipFamilyPolicy"));
    optional(text, "IP Families", join("/spec/ipFamilies"));
    text.field("IP", &or_none(at(service, "/spec/clusterIP")));
    text.field("IPs", &or_none(join("/spec/clusterIPs")));
    optional(text, "External IPs", join("/spec/externalIPs"));
    optional(text, "External Name", at(service, "/spec/externalName"));
    for port in items(service, "/spec/ports") {
        let name = at(port, "/name");
        let protocol = at(port, "/protocol");
        let label = if name.is_empty() { "<unset>" } else { &name };
        text.row(0, ["Port:", label, &format!("{}/{protocol}", at(port, "/port"))]);
        text.field("TargetPort", &format!("{}/{protocol}", at(port, "/targetPort")));
        let node_port = at(port, "/nodePort");
        if !node_port.is_empty() && node_port != "0" {
            text.row(0, ["NodePort:", label, &format!("{node_port}/{protocol}")]);
        }
        text.field("Endpoints", &endpoints(slices, &name));
    }
    if items(service, "/spec/ports").is_empty() {
        text.field("Endpoints", &endpoints(slices, ""));
    }
    text.field("Session Affinity", &at(service, "/spec/sessionAffinity"));
    optional(text, "External Traffic Policy", at(service, "/spec/externalTrafficPolicy"));
    optional(text, "Internal Traffic Policy", at(service, "/spec/internalTrafficPolicy"));
}

/// The ready addresses for a port of this name.
fn endpoints(slices: &[Value], name: &str) -> String {
    let mut found = Vec::new();
    for slice in slices {
        let ports = items(slice, "/ports").iter().filter(|port| at(port, "/name") == name);
        let mut ports: Vec<String> = ports.map(|port| at(port, "/port")).collect();
        if items(slice, "/ports").is_empty() && name.is_empty() {
            ports.push(String::new());
        }
        let ready = items(slice, "/endpoints").iter();
        let ready = ready.filter(|e| e.pointer("/conditions/ready") != Some(&Value::Bool(false)));
        for address in ready.flat_map(|endpoint| items(endpoint, "/addresses")).map(plain) {
            found.extend(ports.iter().map(|port| match port.as_str() {
                "" => address.clone(),
                port if address.contains(':') => format!("[{address}]:{port}"),
                port => format!("{address}:{port}"),
            }));
        }
    }
    let shown = found.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(",");
    match found.len() {
        0..=SHOWN => shown,
        n => format!("{shown} + {} more...", n - SHOWN),
    }
}
