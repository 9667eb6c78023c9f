//! A Pod: what was asked for, and how far it is.

use super::text::{Text, at, items, or_none, plain, time};
use api::{meta, resources};
use serde_json::Value;

pub(super) fn describe(text: &mut Text, pod: &Value) {
    text.field("Name", meta::name(pod));
    text.field("Namespace", meta::namespace(pod));
    text.field("Priority", &or(at(pod, "/spec/priority"), "0"));
    for (name, pointer) in [
        ("Priority Class Name", "/spec/priorityClassName"),
        ("Runtime Class Name", "/spec/runtimeClassName"),
        ("Service Account", "/spec/serviceAccountName"),
    ] {
        optional(text, name, &at(pod, pointer));
    }
    let host = at(pod, "/status/hostIP");
    match at(pod, "/spec/nodeName").as_str() {
        "" => text.field("Node", "<none>"),
        node if host.is_empty() => text.field("Node", node),
        node => text.field("Node", &format!("{node}/{host}")),
    }
    optional(text, "Start Time", &time(pod, "/status/startTime"));
    text.map("Labels", pod.pointer("/metadata/labels"), "=");
    text.map("Annotations", pod.pointer("/metadata/annotations"), ": ");
    let phase = at(pod, "/status/phase");
    let deleted = time(pod, "/metadata/deletionTimestamp");
    if !deleted.is_empty() && !matches!(phase.as_str(), "Succeeded" | "Failed") {
        text.field("Status", &format!("Terminating (until {deleted})"));
        let grace = at(pod, "/metadata/deletionGracePeriodSeconds");
        text.field("Termination Grace Period", &format!("{grace}s"));
    } else {
        text.field("Status", &phase);
    }
    for (name, pointer) in [("Reason", "/status/reason"), ("Message", "/status/message")] {
        optional(text, name, &at(pod, pointer));
    }
    text.field("IP", &at(pod, "/status/podIP"));
    match items(pod, "/status/podIPs") {
        [] => text.field("IPs", "<none>"),
        ips => {
            text.heading("IPs");
            ips.iter().for_each(|ip| text.field_at(1, "IP", &at(ip, "/ip")));
        }
    }
    if let Some(owner) = meta::controller(pod) {
        let owner = format!("{}/{}", at(owner, "/kind"), at(owner, "/name"));
        text.field("Controlled By", &owner);
    }
    optional(text, "NominatedNodeName", &at(pod, "/status/nominatedNodeName"));
    containers(text, pod, "Init Containers", "initContainers", "initContainerStatuses");
    containers(text, pod, "Containers", "containers", "containerStatuses");
    containers(
        text,
        pod,
        "Ephemeral Containers",
        "ephemeralContainers",
        "ephemeralContainerStatuses",
    );
    let gates = items(pod, "/spec/readinessGates");
    if !gates.is_empty() {
        text.heading("Readiness Gates");
        text.row(1, ["Type", "Status"]);
        for gate in gates {
            let kind = at(gate, "/conditionType");
            let status = or_none(api::pod::condition_status(pod, &kind).to_owned());
            text.row(1, [kind.as_str(), &status]);
        }
    }
    let conditions = items(pod, "/status/conditions");
    if !conditions.is_empty() {
        text.heading("Conditions");
        text.row(1, ["Type", "Status"]);
        for condition in conditions {
            text.row(1, [at(condition, "/type").as_str(), &at(condition, "/status")]);
        }
    }
    volumes(text, pod);
    text.field("QoS Class", &or(at(pod, "/status/qosClass"), "BestEffort"));
    text.map("Node-Selectors", pod.pointer("/spec/nodeSelector"), "=");
    let tolerations: Vec<String> = items(pod, "/spec/tolerations").iter().map(toleration).collect();
    text.list("Tolerations", &tolerations);
}

fn or(text: String, other: &str) -> String {
    if text.is_empty() { other.to_owned() } else { text }
}

fn optional(text: &mut Text, name: &str, value: &str) {
    if !value.is_empty() {
        text.field(name, value);
    }
}

fn containers(text: &mut Text, pod: &Value, heading: &str, list: &str, statuses: &str) {
    let containers = items(pod, &format!("/spec/{list}"));
    if containers.is_empty() {
        return;
    }
    text.heading(heading);
    let statuses = items(pod, &format!("/status/{statuses}"));
    for container in containers {
        let name = at(container, "/name");
        let status = statuses.iter().find(|status| at(status, "/name") == name);
        one(text, &name, container, status.unwrap_or(&Value::Null));
    }
}

fn one(text: &mut Text, name: &str, container: &Value, status: &Value) {
    text.heading_at(1, name);
    if !status.is_null() {
        text.field_at(2, "Container ID", &at(status, "/containerID"));
    }
    text.field_at(2, "Image", &at(container, "/image"));
    if !status.is_null() {
        text.field_at(2, "Image ID", &at(status, "/imageID"));
    }
    let ports = |field: &str| {
        let port = |port: &Value| {
            let number = or(at(port, &format!("/{field}")), "0");
            format!("{number}/{}", or(at(port, "/protocol"), "TCP"))
        };
        items(container, "/ports").iter().map(port).collect::<Vec<_>>().join(", ")
    };
    let several = if items(container, "/ports").len() > 1 { "s" } else { "" };
    text.field_at(2, &format!("Port{several}"), &or_none(ports("containerPort")));
    text.field_at(2, &format!("Host Port{several}"), &or_none(ports("hostPort")));
    for (name, pointer) in [("Command", "/command"), ("Args", "/args")] {
        if !items(container, pointer).is_empty() {
            text.heading_at(2, name);
            items(container, pointer).iter().for_each(|part| text.row(3, [plain(part).as_str()]));
        }
    }
    if !status.is_null() {
        state(text, "State", status.get("state"));
        if status.get("lastState").and_then(Value::as_object).is_some_and(|s| !s.is_empty()) {
            state(text, "Last State", status.get("lastState"));
        }
        let ready = if status.get("ready") == Some(&Value::Bool(true)) { "True" } else { "False" };
        text.field_at(2, "Ready", ready);
        text.field_at(2, "Restart Count", &or(at(status, "/restartCount"), "0"));
    }
    for (name, pointer) in [("Limits", "/resources/limits"), ("Requests", "/resources/requests")] {
        let amounts = container.pointer(pointer).and_then(Value::as_object);
        if let Some(amounts) = amounts.filter(|amounts| !amounts.is_empty()) {
            text.heading_at(2, name);
            amounts.iter().for_each(|(name, amount)| text.field_at(3, name, &plain(amount)));
        }
    }
    for (name, field) in [
        ("Liveness", "livenessProbe"),
        ("Readiness", "readinessProbe"),
        ("Startup", "startupProbe"),
    ] {
        if let Some(found) = container.get(field).filter(|probe| !probe.is_null()) {
            text.field_at(2, name, &probe(found));
        }
    }
    match items(container, "/env") {
        [] => text.field_at(2, "Environment", "<none>"),
        variables => {
            text.heading_at(2, "Environment");
            for variable in variables {
                text.field_at(3, &at(variable, "/name"), &value_of(variable));
            }
        }
    }
    match items(container, "/volumeMounts") {
        [] => text.field_at(2, "Mounts", "<none>"),
        mounts => {
            text.heading_at(2, "Mounts");
            for mount in mounts {
                let mode = if at(mount, "/readOnly") == "true" { "ro" } else { "rw" };
                let path = match at(mount, "/subPath").as_str() {
                    "" => String::new(),
                    path => format!(",path=\"{path}\""),
                };
                let line = format!(
                    "{} from {} ({mode}{path})",
                    at(mount, "/mountPath"),
                    at(mount, "/name")
                );
                text.row(3, [line.as_str()]);
            }
        }
    }
}

fn state(text: &mut Text, name: &str, state: Option<&Value>) {
    let state = state.unwrap_or(&Value::Null);
    let field = |text: &mut Text, name: &str, value: String| {
        if !value.is_empty() {
            text.field_at(3, name, &value);
        }
    };
    if let Some(running) = state.get("running").filter(|s| !s.is_null()) {
        text.field_at(2, name, "Running");
        field(text, "Started", time(running, "/startedAt"));
    } else if let Some(ended) = state.get("terminated").filter(|s| !s.is_null()) {
        text.field_at(2, name, "Terminated");
        field(text, "Reason", at(ended, "/reason"));
        field(text, "Message", at(ended, "/message"));
        field(text, "Exit Code", or(at(ended, "/exitCode"), "0"));
        let signal = at(ended, "/signal");
        field(text, "Signal", if signal == "0" { String::new() } else { signal });
        field(text, "Started", time(ended, "/startedAt"));
        field(text, "Finished", time(ended, "/finishedAt"));
    } else {
        text.field_at(2, name, "Waiting");
        field(text, "Reason", at(state, "/waiting/reason"));
    }
}

fn probe(probe: &Value) -> String {
    let number = |field: &str, other: &str| or(at(probe, &format!("/{field}")), other);
    let what = if let Some(exec) = probe.get("exec") {
        let words: Vec<String> = items(exec, "/command").iter().map(plain).collect();
        format!("exec [{}]", words.join(" "))
    } else if let Some(get) = probe.get("httpGet") {
        let scheme = or(at(get, "/scheme"), "HTTP").to_lowercase();
        format!("http-get {scheme}://{}:{}{}", at(get, "/host"), at(get, "/port"), at(get, "/path"))
    } else if let Some(socket) = probe.get("tcpSocket") {
        format!("tcp-socket {}:{}", at(socket, "/host"), at(socket, "/port"))
    } else if let Some(grpc) = probe.get("grpc") {
        format!("grpc <pod>:{} {}", at(grpc, "/port"), at(grpc, "/service"))
    } else {
        "unknown".to_owned()
    };
    format!(
        "{what} delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", "0"),
        number("timeoutSeconds", "1"),
        number("periodSeconds", "10"),
        number("successThreshold", "1"),
        number("failureThreshold", "3"),
    )
}

fn value_of(variable: &Value) -> String {
    let from = variable.get("valueFrom").unwrap_or(&Value::Null);
    let optional = |pointer: &str| or(at(from, pointer), "false");
    if let Some(field) = from.get("fieldRef") {
        format!("({}:{})", or(at(field, "/apiVersion"), "v1"), at(field, "/fieldPath"))
    } else if let Some(resource) = from.get("resourceFieldRef") {
        format!("{} ({})", at(resource, "/containerName"), at(resource, "/resource"))
    } else if let Some(key) = from.get("configMapKeyRef") {
        let (key, name) = (at(key, "/key"), at(key, "/name"));
        let optional = optional("/configMapKeyRef/optional");
        format!("<set to the key '{key}' of config map '{name}'>  Optional: {optional}")
    } else if let Some(key) = from.get("secretKeyRef") {
        let (key, name) = (at(key, "/key"), at(key, "/name"));
        let optional = optional("/secretKeyRef/optional");
        format!("<set to the key '{key}' in secret '{name}'>  Optional: {optional}")
    } else {
        at(variable, "/value")
    }
}

fn volumes(text: &mut Text, pod: &Value) {
    let volumes = items(pod, "/spec/volumes");
    if volumes.is_empty() {
        text.field("Volumes", "<none>");
        return;
    }
    text.heading("Volumes");
    for volume in volumes {
        text.heading_at(1, &at(volume, "/name"));
        let mut field = |name: &str, value: &str| text.field_at(2, name, value);
        let optional = |pointer: &str| or(at(volume, pointer), "false");
        if let Some(found) = volume.get("emptyDir") {
            field("Type", "EmptyDir (a temporary directory that shares a pod's lifetime)");
            field("Medium", &at(found, "/medium"));
            field("SizeLimit", &or(at(found, "/sizeLimit"), "<unset>"));
        } else if let Some(found) = volume.get("hostPath") {
            field("Type", "HostPath (bare host directory volume)");
            field("Path", &at(found, "/path"));
            field("HostPathType", &at(found, "/type"));
        } else if let Some(found) = volume.get("configMap") {
            field("Type", "ConfigMap (a volume populated by a ConfigMap)");
            field("Name", &at(found, "/name"));
            field("Optional", &optional("/configMap/optional"));
        } else if let Some(found) = volume.get("secret") {
            field("Type", "Secret (a volume populated by a Secret)");
            field("SecretName", &at(found, "/secretName"));
            field("Optional", &optional("/secret/optional"));
        } else if volume.get("downwardAPI").is_some() {
            field("Type", "DownwardAPI (a volume populated by information about the pod)");
        } else if volume.get("projected").is_some() {
            field("Type", "Projected (a volume that contains injected data from multiple sources)");
            for source in items(volume, "/projected/sources") {
                if let Some(token) = source.get("serviceAccountToken") {
                    field("TokenExpirationSeconds", &at(token, "/expirationSeconds"));
                } else if let Some(found) = source.get("configMap") {
                    field("ConfigMapName", &at(found, "/name"));
                    field("Optional", &or(at(found, "/optional"), "false"));
                } else if let Some(found) = source.get("secret") {
                    field("SecretName", &at(found, "/name"));
                    field("Optional", &or(at(found, "/optional"), "false"));
                } else if source.get("downwardAPI").is_some() {
                    field("DownwardAPI", "true");
                }
            }
        } else {
            field("Type", "<unknown>");
        }
    }
}

fn toleration(toleration: &Value) -> String {
    let mut text = at(toleration, "/key");
    for (mark, pointer) in [("=", "/value"), (":", "/effect")] {
        let value = at(toleration, pointer);
        if !value.is_empty() {
            text.push_str(mark);
            text.push_str(&value);
        }
    }
    let operator = at(toleration, "/operator");
    if operator == "Exists" && at(toleration, "/value").is_empty() {
        text.push_str(if text.is_empty() { "op=Exists" } else { " op=Exists" });
    }
    match at(toleration, "/tolerationSeconds").as_str() {
        "" => text,
        seconds => format!("{text} for {seconds}s"),
    }
}

/// What a Pod's containers ask for and may use of a resource, for the table of a node.
pub(super) fn amounts(pod: &Value, resource: &str) -> [i64; 2] {
    let typed = serde_json::from_value(pod.clone()).unwrap_or_default();
    let of = |amounts: &resources::Amounts| amounts.get(resource).copied().unwrap_or_default();
    [of(&resources::pod_requests(&typed)), of(&resources::pod_limits(&typed))]
}

/// Whether the Pod still uses its node.
pub(super) fn is_active(pod: &Value) -> bool {
    !api::pod::is_terminal(pod)
}
