//! What the kubelet says of a Pod (§3.3…§3.5).

use crate::{
    runtime::{Container, ContainerState, RuntimePod},
    step::newest,
};
use api::{core::Pod, meta};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is said of a container that does not run, by name: reason and message.
pub type Waiting = BTreeMap<String, (String, String)>;

fn time(micros: u64) -> String {
    meta::time(i64::try_from(micros / 1_000_000).unwrap_or_default())
}

fn terminated(container: &Container) -> Option<Value> {
    let ContainerState::Exited { started_at, finished_at, exit_code, signal, oom_killed, message } =
        &container.state
    else {
        return None;
    };
    let reason = match (oom_killed, exit_code) {
        (true, _) => "OOMKilled",
        (false, 0) => "Completed",
        (false, 128) => "StartError",
        (false, _) => "Error",
    };
    let mut state = json!({
        "exitCode": exit_code, "reason": reason, "startedAt": time(*started_at),
        "finishedAt": time(*finished_at), "containerID": format!("trireme://{}", container.id.0),
    });
    if let Some(fields) = state.as_object_mut() {
        if let Some(signal) = signal {
            fields.insert("signal".to_owned(), (*signal).into());
        }
        if !message.is_empty() {
            fields.insert("message".to_owned(), message.clone().into());
        }
    }
    Some(state)
}

fn container_status(
    spec: &api::core::Container,
    runtime: Option<&RuntimePod>,
    waiting: &Waiting,
    default_reason: &str,
) -> Value {
    let last = newest(runtime, &spec.name);
    let mut status = json!({
        "name": spec.name, "image": spec.image, "imageID": "", "ready": false, "started": false,
        "restartCount": last.map_or(0, |c| c.config.attempt),
    });
    let Some(fields) = status.as_object_mut() else { return status };
    let before = last.and_then(|l| {
        let all = runtime.into_iter().flat_map(|pod| &pod.containers);
        all.filter(|c| c.config.name == spec.name && c.config.attempt < l.config.attempt)
            .max_by_key(|c| c.config.attempt)
    });
    if let Some(last) = last {
        fields.insert("containerID".to_owned(), format!("trireme://{}", last.id.0).into());
        fields.insert("imageID".to_owned(), last.config.image_id.clone().into());
    }
    if let Some(before) = before.and_then(terminated) {
        fields.insert("lastState".to_owned(), json!({"terminated": before}));
    }
    let state = match (last.map(|c| &c.state), waiting.get(&spec.name)) {
        (Some(ContainerState::Running { started_at }), _) => {
            fields.insert("ready".to_owned(), true.into());
            fields.insert("started".to_owned(), true.into());
            json!({"running": {"startedAt": time(*started_at)}})
        }
        (exited, Some((reason, message))) => {
            if let (Some(_), Some(ended)) = (exited, last.and_then(terminated)) {
                fields.insert("lastState".to_owned(), json!({"terminated": ended}));
            }
            json!({"waiting": {"reason": reason, "message": message}})
        }
        (Some(ContainerState::Exited { .. }), None) => {
            json!({"terminated": last.and_then(terminated)})
        }
        (None, None) => json!({"waiting": {"reason": default_reason}}),
    };
    fields.insert("state".to_owned(), state);
    status
}

/// The phase (§3.3). `over` when nothing runs and nothing will.
fn phase(pod: &Pod, statuses: &[Value], over: bool) -> &'static str {
    let policy = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    let exit = |s: &Value| {
        let now = s.pointer("/state/terminated/exitCode");
        now.or_else(|| s.pointer("/lastState/terminated/exitCode")).and_then(Value::as_i64)
    };
    let running = statuses.iter().any(|s| s.pointer("/state/running").is_some());
    let stopped = statuses.iter().filter(|s| exit(s).is_some()).count();
    let all_good = statuses.iter().all(|s| exit(s) == Some(0));
    if over {
        return if all_good && stopped > 0 { "Succeeded" } else { "Failed" };
    }
    let waiting =
        statuses.iter().any(|s| s.pointer("/state/waiting").is_some() && exit(s).is_none());
    if waiting {
        return "Pending";
    }
    let restarts = policy == "Always" || (policy == "OnFailure" && !all_good);
    if running || restarts {
        "Running"
    } else {
        // Nothing runs, but the worker has not confirmed it yet (PHS-2).
        "Running"
    }
}

/// The whole status. `now` in seconds since the Unix epoch; conditions get their times from it.
#[must_use]
pub fn status(
    pod: &Pod,
    runtime: Option<&RuntimePod>,
    waiting: &Waiting,
    host_ip: &str,
    over: bool,
    now: i64,
) -> Value {
    let Some(spec) = &pod.spec else { return json!({}) };
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    let default_reason = if inits.is_empty() { "ContainerCreating" } else { "PodInitializing" };
    let of = |list: &[api::core::Container]| -> Vec<Value> {
        list.iter().map(|c| container_status(c, runtime, waiting, default_reason)).collect()
    };
    let (statuses, init_statuses) = (of(&spec.containers), of(inits));
    let phase = phase(pod, &statuses, over);
    let has_sandbox = runtime.is_some_and(|r| r.sandbox.ready) && !over;
    let initialized = init_statuses
        .iter()
        .all(|s| s.pointer("/state/terminated/exitCode").and_then(Value::as_i64) == Some(0));
    let unready: Vec<&str> = statuses
        .iter()
        .filter(|s| s.get("ready") != Some(&json!(true)))
        .filter_map(|s| s.get("name")?.as_str())
        .collect();
    let ready = unready.is_empty() && !over;
    let condition = |kind: &str, is: bool, why: Option<(&str, String)>| {
        let mut condition = json!({
            "type": kind, "status": if is { "True" } else { "False" },
            "lastTransitionTime": meta::time(now),
        });
        if let (Some((reason, message)), Some(fields)) = (why, condition.as_object_mut()) {
            fields.insert("reason".to_owned(), reason.into());
            if !message.is_empty() {
                fields.insert("message".to_owned(), message.into());
            }
        }
        condition
    };
    let why = || match phase {
        "Succeeded" => Some(("PodCompleted", String::new())),
        "Failed" => Some(("PodFailed", String::new())),
        _ if ready => None,
        _ => {
            let message = format!("containers with unready status: [{}]", unready.join(" "));
            Some(("ContainersNotReady", message))
        }
    };
    let ip = runtime.and_then(|r| r.sandbox.ip).map(|ip| ip.to_string());
    let started = runtime.map(|r| time(r.sandbox.created_at));
    let mut status = json!({
        "phase": phase, "hostIP": host_ip, "hostIPs": [{"ip": host_ip}],
        "containerStatuses": statuses,
        "conditions": [
            condition("PodReadyToStartContainers", has_sandbox, None),
            condition("Initialized", initialized, None),
            condition("ContainersReady", ready, why()),
            condition("Ready", ready, why()),
        ],
    });
    if let Some(fields) = status.as_object_mut() {
        if !init_statuses.is_empty() {
            fields.insert("initContainerStatuses".to_owned(), init_statuses.into());
        }
        if let Some(ip) = ip {
            fields.insert("podIPs".to_owned(), json!([{"ip": ip}]));
            fields.insert("podIP".to_owned(), ip.into());
        }
        if let Some(started) = started {
            fields.insert("startTime".to_owned(), started.into());
        }
    }
    status
}
