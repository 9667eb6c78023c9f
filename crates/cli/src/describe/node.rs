//! A Node: its state, what it has, and who uses it.

use super::{
    Described,
    pod::{amounts, is_active},
    text::{Text, at, items, or_none, pairs, plain, time},
};
use api::{meta, resources};
use serde_json::Value;

const ROLE: &str = "node-role.kubernetes.io/";

pub(super) fn describe(text: &mut Text, described: &Described, now: i64) {
    let node = &described.object;
    text.field("Name", meta::name(node));
    let labels = meta::labels(node);
    let roles: Vec<&str> = labels.keys().filter_map(|key| key.strip_prefix(ROLE)).collect();
    text.field("Roles", &or_none(roles.join(",")));
    text.map("Labels", node.pointer("/metadata/labels"), "=");
    text.map("Annotations", node.pointer("/metadata/annotations"), ": ");
    text.field("CreationTimestamp", &time(node, "/metadata/creationTimestamp"));
    let taints: Vec<String> = items(node, "/spec/taints").iter().map(taint).collect();
    text.list("Taints", &taints);
    text.field("Unschedulable", &(at(node, "/spec/unschedulable") == "true").to_string());
    lease(text, &described.lease);
    conditions(text, node);
    let addresses = items(node, "/status/addresses");
    if !addresses.is_empty() {
        text.heading("Addresses");
        for address in addresses {
            text.field_at(1, &at(address, "/type"), &at(address, "/address"));
        }
    }
    for (name, pointer) in
        [("Capacity", "/status/capacity"), ("Allocatable", "/status/allocatable")]
    {
        if let Some(amounts) = node.pointer(pointer).and_then(Value::as_object) {
            text.heading(name);
            amounts.iter().for_each(|(name, amount)| text.field_at(1, name, &plain(amount)));
        }
    }
    text.heading("System Info");
    for (name, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ] {
        text.field_at(1, name, &at(node, &format!("/status/nodeInfo/{field}")));
    }
    for (name, pointer) in [("PodCIDR", "/spec/podCIDR"), ("ProviderID", "/spec/providerID")] {
        let value = at(node, pointer);
        if !value.is_empty() {
            text.field(name, &value);
        }
    }
    let ranges: Vec<String> = items(node, "/spec/podCIDRs").iter().map(plain).collect();
    if !ranges.is_empty() {
        text.field("PodCIDRs", &ranges.join(","));
    }
    pods(text, node, &described.related, now);
}

fn taint(taint: &Value) -> String {
    let value = at(taint, "/value");
    let value = if value.is_empty() { value } else { format!("={value}") };
    format!("{}{value}:{}", at(taint, "/key"), at(taint, "/effect"))
}

fn lease(text: &mut Text, lease: &Value) {
    if lease.is_null() {
        text.field("Lease", "<none>");
        return;
    }
    text.heading("Lease");
    let unset = |value: String| if value.is_empty() { "<unset>".to_owned() } else { value };
    text.field_at(1, "HolderIdentity", &unset(at(lease, "/spec/holderIdentity")));
    text.field_at(1, "AcquireTime", &unset(time(lease, "/spec/acquireTime")));
    text.field_at(1, "RenewTime", &unset(time(lease, "/spec/renewTime")));
}

fn conditions(text: &mut Text, node: &Value) {
    let conditions = items(node, "/status/conditions");
    if conditions.is_empty() {
        return;
    }
    let heads = ["Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message"];
    text.heading("Conditions");
    text.row(1, heads);
    let lines = heads.map(|head| "-".repeat(head.len()));
    text.row(1, lines.iter().map(String::as_str));
    for condition in conditions {
        text.row(
            1,
            [
                at(condition, "/type").as_str(),
                &at(condition, "/status"),
                &time(condition, "/lastHeartbeatTime"),
                &time(condition, "/lastTransitionTime"),
                &at(condition, "/reason"),
                &at(condition, "/message"),
            ],
        );
    }
}

/// As people write it: thousandths of cpu, the largest binary unit that is whole.
fn amount(resource: &str, amount: i64) -> String {
    if resource == "cpu" {
        return if amount % 1000 == 0 { (amount / 1000).to_string() } else { format!("{amount}m") };
    }
    for (unit, shift) in [("Gi", 30), ("Mi", 20), ("Ki", 10)] {
        if amount != 0 && amount % (1_i64 << shift) == 0 {
            return format!("{}{unit}", amount >> shift);
        }
    }
    amount.to_string()
}

fn share(resource: &str, used: i64, of: i64) -> String {
    let percent = if of == 0 { 0 } else { used.saturating_mul(100) / of };
    format!("{} ({percent}%)", amount(resource, used))
}

fn pods(text: &mut Text, node: &Value, pods: &[Value], now: i64) {
    let mut pods: Vec<&Value> = pods.iter().filter(|pod| is_active(pod)).collect();
    pods.sort_by_key(|pod| (meta::namespace(pod).to_owned(), meta::name(pod).to_owned()));
    let allocatable = |resource: &str| {
        let amount = pairs(node.pointer("/status/allocatable"), "=");
        let found = amount.iter().find_map(|pair| pair.strip_prefix(&format!("{resource}=")));
        let found = found.map(|text| api::core::QuantityText(text.to_owned()));
        found.map_or(0, |text| resources::amount(resource, &text))
    };
    text.field("Non-terminated Pods", &format!("({} in total)", pods.len()));
    let heads = [
        "Namespace",
        "Name",
        "CPU Requests",
        "CPU Limits",
        "Memory Requests",
        "Memory Limits",
        "Age",
    ];
    text.row(1, heads);
    let lines = heads.map(|head| "-".repeat(head.len()));
    text.row(1, lines.iter().map(String::as_str));
    let mut totals = [("cpu", [0_i64; 2]), ("memory", [0; 2]), ("ephemeral-storage", [0; 2])];
    for pod in pods {
        let mut cells = vec![meta::namespace(pod).to_owned(), meta::name(pod).to_owned()];
        for (resource, total) in &mut totals {
            let used = amounts(pod, resource);
            for (total, used) in total.iter_mut().zip(used) {
                *total = total.saturating_add(used);
            }
            if *resource != "ephemeral-storage" {
                cells.extend(used.map(|used| share(resource, used, allocatable(resource))));
            }
        }
        cells.push(api::table::age(pod, now));
        text.row(1, cells.iter().map(String::as_str));
    }
    text.heading("Allocated resources");
    text.row(1, ["(Total limits may be over 100 percent, i.e., overcommitted.)"]);
    text.row(1, ["Resource", "Requests", "Limits"]);
    text.row(1, ["--------", "--------", "------"]);
    for (resource, [requests, limits]) in totals {
        let of = allocatable(resource);
        text.row(
            1,
            [resource, share(resource, requests, of).as_str(), &share(resource, limits, of)],
        );
    }
}
