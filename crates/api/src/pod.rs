//! What everybody must agree on about a Pod's status.

use crate::{
    core::{ContainerStatus, Pod, PodSpec},
    kinds::text,
    meta::{self, child_mut},
    resources::is_sidecar,
};
use serde_json::{Value, json};

/// A phase that is never left (PHS-1).
#[must_use]
pub fn is_terminal_phase(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// Ended for good.
#[must_use]
pub fn is_terminal(pod: &Value) -> bool {
    is_terminal_phase(&text(pod, "/status/phase"))
}

/// As [`is_terminal`].
#[must_use]
pub fn has_ended(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(is_terminal_phase)
}

/// Given to a node.
#[must_use]
pub fn is_bound(pod: &Value) -> bool {
    !text(pod, "/spec/nodeName").is_empty()
}

/// On its way out; the same as for any object.
#[must_use]
pub fn is_terminating(pod: &Value) -> bool {
    meta::is_terminating(pod)
}

/// Neither ended nor on its way out: what controllers count.
#[must_use]
pub fn is_active(pod: &Value) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

/// `status` of a condition: `True`, `False`, `Unknown`, or empty if it is not there.
#[must_use]
pub fn condition_status<'a>(object: &'a Value, kind: &str) -> &'a str {
    let list = object.pointer("/status/conditions").and_then(Value::as_array);
    let found = list.into_iter().flatten().find(|c| c.get("type").is_some_and(|t| t == kind));
    found.and_then(|c| c.get("status")).and_then(Value::as_str).unwrap_or_default()
}

/// A condition to give to [`set_condition`]; empty texts are left out.
#[must_use]
pub fn condition(kind: &str, status: &str, reason: &str, message: &str, now: i64) -> Value {
    let mut condition = json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": meta::time(now),
    });
    if let Some(fields) = condition.as_object_mut() {
        fields.retain(|_, value| value != "");
    }
    condition
}

/// Sets a condition; its `lastTransitionTime` changes only with its status (CND-1). Tells whether
/// anything is different now.
pub fn set_condition(object: &mut Value, mut condition: Value) -> bool {
    let status = child_mut(object, "status");
    let list = status.entry("conditions").or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else { return false };
    let kind = condition.get("type").cloned();
    match list.iter_mut().find(|c| c.get("type") == kind.as_ref()) {
        Some(old) => {
            let same = old.get("status") == condition.get("status");
            if let (true, Some(time), Some(new)) =
                (same, old.get("lastTransitionTime"), condition.as_object_mut())
            {
                new.insert("lastTransitionTime".to_owned(), time.clone());
            }
            let changed = *old != condition;
            *old = condition;
            changed
        }
        None => {
            list.push(condition);
            true
        }
    }
}

/// What the statuses of the containers make of the Pod (§3.3). `ended` is set when the kubelet has
/// finished with it, `initialized` once all init containers were done.
///
/// The caller keeps a terminal phase that was published (PHS-1) and holds back one that a running
/// container contradicts (PHS-2).
#[must_use]
pub fn phase(
    spec: &PodSpec,
    inits: &[ContainerStatus],
    mains: &[ContainerStatus],
    ended: bool,
    initialized: bool,
) -> &'static str {
    let restarts = spec.restart_policy.as_deref().unwrap_or("Always");
    let (mut pending, mut pending_sidecars, mut init_failed) = (0, 0, false);
    let (mut running, mut waiting, mut stopped, mut succeeded, mut unknown) = (0, 0, 0, 0, 0);
    for container in spec.init_containers.iter().flatten() {
        let seen = Seen::of(inits, &container.name);
        if is_sidecar(container) {
            match seen {
                Seen::Nothing => unknown += 1,
                Seen::Running { started } => {
                    running += 1;
                    pending_sidecars += usize::from(!started);
                }
                Seen::NeverRan => {
                    waiting += 1;
                    pending_sidecars += 1;
                }
                // Its end says nothing of the Pod's.
                Seen::Exited { .. } | Seen::Restarting { .. } => {}
            }
        } else {
            match seen {
                Seen::Nothing | Seen::Running { .. } | Seen::NeverRan => pending += 1,
                Seen::Exited { code } | Seen::Restarting { code } => init_failed |= code != 0,
            }
        }
    }
    for container in &spec.containers {
        match Seen::of(mains, &container.name) {
            Seen::Nothing => unknown += 1,
            Seen::Running { .. } => running += 1,
            Seen::NeverRan => waiting += 1,
            Seen::Exited { code } => {
                stopped += 1;
                succeeded += usize::from(code == 0);
            }
            Seen::Restarting { .. } => stopped += 1,
        }
    }
    if init_failed && restarts == "Never" {
        return "Failed";
    }
    if pending > 0 || (pending_sidecars > 0 && !initialized) || waiting > 0 {
        return "Pending";
    }
    if running > 0 && unknown == 0 {
        // A sidecar alone does not keep a Pod from having ended.
        let only_sidecars = stopped == spec.containers.len() && stopped > 0;
        if !(only_sidecars && ended) {
            return "Running";
        }
    }
    if stopped > 0 && unknown == 0 {
        return match (ended, stopped == succeeded, restarts) {
            (true, true, _) => "Succeeded",
            (true, false, _) => "Failed",
            (false, _, "Always") => "Running",
            (false, true, _) => "Succeeded",
            (false, false, "Never") => "Failed",
            (false, false, _) => "Running",
        };
    }
    "Pending"
}

/// What a status says of one container.
enum Seen {
    Nothing,
    NeverRan,
    Running {
        started: bool,
    },
    Exited {
        code: i32,
    },
    /// Waiting after it has ended with this code.
    Restarting {
        code: i32,
    },
}

impl Seen {
    fn of(statuses: &[ContainerStatus], name: &str) -> Self {
        let Some(status) = statuses.iter().find(|status| status.name == name) else {
            return Self::Nothing;
        };
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        match (state.running, state.terminated, last) {
            (Some(_), _, _) => Self::Running { started: status.started == Some(true) },
            (None, Some(terminated), _) => Self::Exited { code: terminated.exit_code },
            (None, None, Some(last)) => Self::Restarting { code: last.exit_code },
            (None, None, None) => Self::NeverRan,
        }
    }
}

/// Conditions that the kubelet owns; all others are kept as they are (trap 36).
const KUBELET_CONDITIONS: &[&str] =
    &["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];

/// Whether the kubelet may write this condition: its own, and that it is about to end the Pod.
fn is_kubelets(condition: &Value) -> bool {
    let kind = text(condition, "/type");
    KUBELET_CONDITIONS.contains(&kind.as_str())
        || (kind == "PodScheduled" && text(condition, "/status") == "True")
        || (kind == "DisruptionTarget"
            && text(condition, "/status") == "True"
            && text(condition, "/reason") == "TerminationByKubelet")
}

/// Fields of a Pod's status that others than the kubelet write.
const OTHERS_FIELDS: &[&str] =
    &["qosClass", "nominatedNodeName", "conditions", "resourceClaimStatuses"];

/// A kubelet's status taken up into the stored Pod: its own fields, others' conditions kept, and never
/// out of a terminal phase (FEN-27). One from before the end, or of an older generation, that a kubelet kept on
/// its disk and sends after a restart, says nothing any more: nobody would come to put its containers right.
#[must_use]
pub fn merge_kubelet_status(pod: &Value, status: &Value) -> Value {
    let mut merged = pod.clone();
    let ended = is_terminal(pod).then(|| text(pod, "/status/phase"));
    let generation = |status: Option<&Value>| {
        status.and_then(|s| s.get("observedGeneration")).and_then(Value::as_i64).unwrap_or_default()
    };
    let known = generation(pod.get("status"));
    let is_older = generation(Some(status)) < known;
    if (ended.is_some() || is_older) && !is_terminal_phase(&text(status, "/phase")) {
        return merged;
    }
    let mut new = status.clone();
    if let (Some(new), true) = (new.as_object_mut(), is_older) {
        // An end is the last word, whatever was known of the Pod.
        new.insert("observedGeneration".to_owned(), known.into());
    }
    let conditions = new.as_object_mut().and_then(|s| s.remove("conditions"));
    let target = child_mut(&mut merged, "status");
    // Written once: an agent that was started again may not know yet what it has said before.
    if let (Some(start), Some(new)) = (target.get("startTime"), new.as_object_mut())
        && new.contains_key("startTime")
    {
        new.insert("startTime".to_owned(), start.clone());
    }
    target.retain(|key, _| OTHERS_FIELDS.contains(&key.as_str()));
    for (key, value) in new.as_object().into_iter().flatten() {
        if !OTHERS_FIELDS.contains(&key.as_str()) {
            target.insert(key.clone(), value.clone());
        }
    }
    if let Some(phase) = ended {
        target.insert("phase".to_owned(), phase.into());
    }
    for condition in conditions.as_ref().and_then(Value::as_array).into_iter().flatten() {
        if is_kubelets(condition) {
            set_condition(&mut merged, condition.clone());
        }
    }
    merged
}

/// The row's condition of a Pod that has ended (TAB-2).
pub(crate) fn row_condition(pod: &Value) -> Option<Value> {
    let (reason, message) = match text(pod, "/status/phase").as_str() {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

/// The STATUS column (TAB-2).
#[must_use]
pub fn status_column(pod: &Value) -> String {
    summary(pod, 0).1
}

/// READY, STATUS and RESTARTS (TAB-2).
#[must_use]
pub fn summary(pod: &Value, now: i64) -> (String, String, String) {
    let list = |pointer: &str| pod.pointer(pointer).and_then(Value::as_array).cloned();
    let mains = list("/status/containerStatuses").unwrap_or_default();
    let inits = list("/status/initContainerStatuses").unwrap_or_default();
    let init_specs = list("/spec/initContainers").unwrap_or_default();
    let sidecar = |name: &str| {
        init_specs.iter().any(|c| text(c, "/name") == name && text(c, "/restartPolicy") == "Always")
    };
    let count = |pointer: &str| list(pointer).unwrap_or_default().len();
    let sidecars = init_specs.iter().filter(|c| text(c, "/restartPolicy") == "Always").count();
    let total = count("/spec/containers") + sidecars;
    let is_true = |value: &Value, pointer: &str| value.pointer(pointer) == Some(&json!(true));
    let condition = |kind: &str| {
        list("/status/conditions")
            .unwrap_or_default()
            .into_iter()
            .find(|c| text(c, "/type") == kind)
    };
    let number = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_i64);

    let mut reason = text(pod, "/status/phase");
    let own = text(pod, "/status/reason");
    if !own.is_empty() {
        reason = own;
    }
    if condition("PodScheduled").is_some_and(|c| text(&c, "/reason") == "SchedulingGated") {
        "SchedulingGated".clone_into(&mut reason);
    }
    let mut ready = 0;
    let mut initializing = false;
    let mut restarts = 0;
    for (i, s) in inits.iter().enumerate() {
        restarts += number(s, "/restartCount").unwrap_or(0);
        let waiting = text(s, "/state/waiting/reason");
        let exit = number(s, "/state/terminated/exitCode");
        if exit == Some(0) {
            continue;
        }
        if sidecar(&text(s, "/name")) && is_true(s, "/started") {
            ready += usize::from(is_true(s, "/ready"));
            continue;
        }
        initializing = true;
        reason = match exit {
            Some(code) => {
                let why = text(s, "/state/terminated/reason");
                match (why.is_empty(), number(s, "/state/terminated/signal")) {
                    (false, _) => format!("Init:{why}"),
                    (true, Some(signal)) if signal != 0 => format!("Init:Signal:{signal}"),
                    (true, _) => format!("Init:ExitCode:{code}"),
                }
            }
            None if !waiting.is_empty() && waiting != "PodInitializing" => {
                format!("Init:{waiting}")
            }
            None => format!("Init:{i}/{}", init_specs.len()),
        };
        break;
    }
    let initialized = condition("Initialized").is_some_and(|c| text(&c, "/status") == "True");
    if !initializing || initialized {
        restarts = inits
            .iter()
            .filter(|s| sidecar(&text(s, "/name")))
            .chain(&mains)
            .map(|s| number(s, "/restartCount").unwrap_or(0))
            .sum();
        let (mut running, mut failed) = (false, String::new());
        for s in mains.iter().rev() {
            let waiting = text(s, "/state/waiting/reason");
            if !waiting.is_empty() {
                reason = waiting;
            } else if let Some(code) = number(s, "/state/terminated/exitCode") {
                let why = text(s, "/state/terminated/reason");
                reason = match (why.is_empty(), number(s, "/state/terminated/signal")) {
                    (false, _) => why,
                    (true, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
                    (true, _) => format!("ExitCode:{code}"),
                };
                if code != 0 {
                    failed.clone_from(&reason);
                }
            } else if is_true(s, "/ready") && s.pointer("/state/running").is_some() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" {
            let pod_ready = condition("Ready").is_some_and(|c| text(&c, "/status") == "True");
            if running && pod_ready {
                "Running".clone_into(&mut reason);
            } else if !failed.is_empty() {
                reason = failed;
            } else if running {
                "NotReady".clone_into(&mut reason);
            }
        }
    }
    if meta::is_terminating(pod) {
        if text(pod, "/status/reason") == "NodeLost" {
            "Unknown".clone_into(&mut reason);
        } else if !is_terminal(pod) {
            "Terminating".clone_into(&mut reason);
        }
    }
    let newest = mains
        .iter()
        .chain(&inits)
        .filter_map(|s| meta::parse_time(&text(s, "/lastState/terminated/finishedAt")))
        .max();
    let restarts = match newest {
        Some(at) if restarts > 0 => {
            format!("{restarts} ({} ago)", crate::table::duration(now - at))
        }
        _ => restarts.to_string(),
    };
    (format!("{ready}/{total}"), reason, restarts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_from_before_the_end_changes_nothing() {
        // FEN-27: what a kubelet had not got acknowledged before it was started again
        let of = |phase: &str, state: Value| json!({"phase": phase, "containerStatuses": [{"state": state}]});
        let ended = |phase| json!({"status": of(phase, json!({"terminated": {"exitCode": 0}}))});
        let running = of("Running", json!({"running": {}}));
        for phase in ["Succeeded", "Failed"] {
            assert_eq!(merge_kubelet_status(&ended(phase), &running), ended(phase));
            // The last word may come after somebody else has said how it ended.
            let last = of("Failed", json!({"terminated": {"exitCode": 3}}));
            let merged = merge_kubelet_status(&ended(phase), &last);
            assert_eq!(merged["status"]["phase"], phase);
            assert_eq!(merged["status"]["containerStatuses"], last["containerStatuses"]);
        }
        let started = merge_kubelet_status(&json!({"status": {"phase": "Pending"}}), &running);
        assert_eq!(started["status"], running);
    }

    #[test]
    fn a_pod_has_started_once() {
        // FEN-27
        let of = |start: &str| json!({"phase": "Running", "startTime": start});
        let stored = json!({"status": of("2026-01-01T00:00:00Z")});
        let merged = merge_kubelet_status(&stored, &of("2026-01-01T00:00:09Z"));
        assert_eq!(merged["status"], stored["status"]);
        let first = merge_kubelet_status(&json!({}), &of("2026-01-01T00:00:09Z"));
        assert_eq!(first["status"], of("2026-01-01T00:00:09Z"));
    }

    #[test]
    fn a_status_of_an_older_generation_changes_nothing_but_for_an_end() {
        // FEN-27: sent again by a kubelet that was started again and has not heard of the deletion
        let of = |phase: &str, generation: i64| json!({"phase": phase, "observedGeneration": generation});
        let stored = json!({"status": of("Running", 2)});
        let merged = |phase, generation| {
            merge_kubelet_status(&stored, &of(phase, generation))["status"].clone()
        };
        assert_eq!(merged("Pending", 1), of("Running", 2));
        assert_eq!(merged("Failed", 1), of("Failed", 2));
        assert_eq!(merged("Failed", 2), of("Failed", 2));
        assert_eq!(merged("Running", 3), of("Running", 3));
    }

    #[test]
    fn status_says_what_kubectl_users_know() {
        // TAB-2
        let running = json!({"name": "a", "ready": true, "state": {"running": {}}});
        let crashed = json!({"name": "b", "restartCount": 3,
                             "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        let done =
            json!({"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let pod = |phase: &str, statuses: Vec<&Value>| {
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{}, {}]},
                   "status": {"phase": phase, "containerStatuses": statuses}})
        };
        for (name, pod, want) in [
            ("unscheduled", pod("Pending", vec![]), ("0/2", "Pending", "0")),
            ("running", pod("Running", vec![&running, &running]), ("2/2", "Running", "0")),
            (
                "one crashes",
                pod("Running", vec![&running, &crashed]),
                ("1/2", "CrashLoopBackOff", "3"),
            ),
            ("done", pod("Succeeded", vec![&done]), ("0/2", "Completed", "0")),
        ] {
            let (ready, status, restarts) = summary(&pod, 0);
            assert_eq!((ready.as_str(), status.as_str(), restarts.as_str()), want, "{name}");
        }
        let mut deleted = pod("Running", vec![&running, &running]);
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(summary(&deleted, 0).1, "Terminating", "S32");
        let mut ended = pod("Succeeded", vec![&done]);
        ended["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(summary(&ended, 0).1, "Completed");
    }

    #[test]
    fn a_kubelets_status_never_leaves_a_terminal_phase_nor_takes_others_conditions() {
        // FEN-27, PHS-1
        let stored = json!({"status": {
            "phase": "Failed", "qosClass": "Burstable",
            "conditions": [{"type": "DisruptionTarget", "status": "True"}],
        }});
        let sent = json!({
            "phase": "Running", "qosClass": "Guaranteed", "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "DisruptionTarget", "status": "False"}],
        });
        assert_eq!(merge_kubelet_status(&stored, &sent), stored, "it is from before the end");
        let mut sent = sent;
        sent["phase"] = json!("Succeeded");
        let merged = merge_kubelet_status(&stored, &sent);
        assert_eq!(merged["status"]["phase"], "Failed");
        assert_eq!(merged["status"]["qosClass"], "Burstable");
        assert_eq!(merged["status"]["podIP"], "10.0.0.1");
        let conditions = merged["status"]["conditions"].as_array().unwrap();
        assert_eq!(conditions.len(), 2);
        assert_eq!(conditions[0]["status"], "True", "not the kubelet's");
    }
}
