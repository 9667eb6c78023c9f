//! What the kubelet says of a Pod: container states, phase and conditions (§3.3…§3.5).

use crate::{
    runtime::{Container, ContainerId, ContainerState, RuntimePod},
    step::{Verdict, newest},
};
use api::{
    core::{Container as Spec, ContainerStatus, EphemeralContainer, Pod, PodSpec},
    meta, pod,
    pod::is_terminal_phase,
    resources::is_sidecar,
};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What is said of a container that does not run, by name: reason and message.
pub type Waiting = BTreeMap<String, (String, String)>;

/// Said of a container that ran and that the runtime knows nothing of any more (CST-5).
const LOST: &str = "The container could not be located when the pod was terminated";
const LOST_CODE: i32 = 137;

/// What a status is made of.
pub struct Facts<'a> {
    /// As last told.
    pub pod: &'a Pod,
    /// As it is on this node.
    pub runtime: Option<&'a RuntimePod>,
    /// Why containers do not run.
    pub waiting: &'a Waiting,
    /// Restart counts of containers that the runtime has forgotten.
    pub attempts: &'a BTreeMap<String, u32>,
    /// Runs, and its postStart hook has not answered yet.
    pub starting: Option<&'a ContainerId>,
    /// The node's address.
    pub host_ip: &'a str,
    /// Nothing runs, and nothing will (PHS-2).
    pub ended: bool,
    /// Why the kubelet itself ended the Pod.
    pub verdict: Option<&'a Verdict>,
    /// The status that this one follows: `null` for none.
    pub previous: &'a Value,
    /// In seconds since the Unix epoch.
    pub now: i64,
}

/// What a container is to its Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Init,
    Sidecar,
    Main,
    /// Added while the Pod runs: no part of what the Pod is.
    Added,
}

/// A container that was added to a Pod, as one of the others: all of its fields are theirs.
pub(crate) fn added(container: &EphemeralContainer) -> Spec {
    let mut value = serde_json::to_value(container).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("targetContainerName");
    }
    Spec::deserialize(value)
        .unwrap_or_else(|_| Spec { name: container.name.clone(), ..Spec::default() })
}

/// Where a Pod's status speaks of its containers.
const LISTS: [&str; 3] =
    ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"];

fn time(micros: u64) -> String {
    meta::time(i64::try_from(micros / 1_000_000).unwrap_or_default())
}

/// The state of an instance that has ended (CST-2).
fn terminated(container: &Container) -> Option<Value> {
    let ContainerState::Exited { started_at, finished_at, exit_code, signal, oom_killed, message } =
        &container.state
    else {
        return None;
    };
    let reason = match (oom_killed, exit_code) {
        (true, _) => "OOMKilled",
        (false, 0) => "Completed",
        (false, 128) if started_at == finished_at => "StartError",
        (false, &LOST_CODE) if message == LOST => "ContainerStatusUnknown",
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

fn lost() -> Value {
    json!({"exitCode": LOST_CODE, "reason": "ContainerStatusUnknown", "message": LOST})
}

/// Whether a container's status shows that it ever ran.
fn has_run(status: &Value) -> bool {
    ["/state/running", "/state/terminated", "/lastState/terminated"]
        .iter()
        .any(|path| status.pointer(path).is_some_and(|state| !state.is_null()))
}

/// The restart counts that follow what a status says: of containers that have run, one more.
#[must_use]
pub fn next_attempts(status: &Value) -> BTreeMap<String, u32> {
    let all = LISTS.iter().filter_map(|list| status.get(list)?.as_array()).flatten();
    all.filter(|status| has_run(status))
        .filter_map(|status| {
            let count = status.get("restartCount").and_then(Value::as_u64).unwrap_or_default();
            let name = status.get("name")?.as_str()?.to_owned();
            Some((name, u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1)))
        })
        .collect()
}

impl Facts<'_> {
    /// What was said of a container before.
    fn before(&self, name: &str) -> Option<&Value> {
        let all = LISTS.iter().filter_map(|list| self.previous.get(list)?.as_array()).flatten();
        all.into_iter().find(|status| status.get("name").is_some_and(|n| n == name))
    }

    fn container(&self, spec: &Spec, role: Role, default_reason: &str) -> Value {
        let mut fields = Map::new();
        let mut set = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
        set("name", spec.name.clone().into());
        set("image", spec.image.clone().unwrap_or_default().into());
        set("imageID", "".into());
        set("ready", false.into());
        set("started", false.into());
        let waiting = |default_reason: &str| match self.waiting.get(&spec.name) {
            Some((reason, message)) if message.is_empty() => json!({"reason": reason}),
            Some((reason, message)) => json!({"reason": reason, "message": message}),
            None => json!({"reason": default_reason}),
        };
        let Some(last) = newest(self.runtime, &spec.name) else {
            let before = self.before(&spec.name).cloned().unwrap_or(Value::Null);
            let count = before.get("restartCount").cloned().unwrap_or_else(|| 0.into());
            let again = self.attempts.get(&spec.name).filter(|_| !self.ended);
            set("restartCount", again.map_or(count, |attempt| (*attempt).into()));
            let of = |path: &str| before.pointer(path).filter(|s| !s.is_null()).cloned();
            let ran = of("/state/terminated")
                .or_else(|| of("/state/running").map(|_| lost()))
                .or_else(|| of("/lastState/terminated"));
            let initialized = self.pod.spec.as_ref().is_some_and(|spec| {
                spec.init_containers.iter().flatten().next().is_none() || has_run(&before)
            });
            let began = role != Role::Added || has_run(&before);
            if self.ended && initialized && began {
                set("state", json!({"terminated": ran.unwrap_or_else(lost)}));
            } else {
                if let Some(ran) = ran {
                    set("lastState", json!({"terminated": ran}));
                }
                set("state", json!({"waiting": waiting(default_reason)}));
            }
            return fields.into();
        };
        set("restartCount", last.config.attempt.into());
        set("containerID", format!("trireme://{}", last.id.0).into());
        set("imageID", last.config.image_id.clone().into());
        let all = self.runtime.into_iter().flat_map(|pod| &pod.containers);
        let earlier = all
            .filter(|c| c.config.name == spec.name && c.config.attempt < last.config.attempt)
            .max_by_key(|c| c.config.attempt)
            .and_then(terminated)
            .or_else(|| self.before(&spec.name)?.pointer("/lastState/terminated").cloned());
        let state = match &last.state {
            ContainerState::Running { started_at } => {
                let started = self.starting != Some(&last.id);
                set("started", started.into());
                set("ready", (started && matches!(role, Role::Sidecar | Role::Main)).into());
                json!({"running": {"startedAt": time(*started_at)}})
            }
            ContainerState::Exited { exit_code, .. } => {
                set("ready", (role == Role::Init && *exit_code == 0).into());
                if self.waiting.contains_key(&spec.name) && !self.ended {
                    set("lastState", json!({"terminated": terminated(last)}));
                    set("state", json!({"waiting": waiting(default_reason)}));
                    return fields.into();
                }
                json!({"terminated": terminated(last)})
            }
        };
        if let Some(earlier) = earlier.filter(|e| !e.is_null()) {
            set("lastState", json!({"terminated": earlier}));
        }
        set("state", state);
        fields.into()
    }

    /// The phase to publish: what §3.3 computes, held back and kept as PHS-1 and PHS-2 ask.
    fn phase(&self, spec: &PodSpec, inits: &[Value], mains: &[Value]) -> String {
        let published = self.pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
        let before = match self.previous.get("phase").and_then(Value::as_str) {
            Some(phase) if !is_terminal_phase(&published) => phase.to_owned(),
            _ => published,
        };
        if is_terminal_phase(&before) {
            return before;
        }
        if self.ended && self.verdict.is_some() {
            return "Failed".to_owned();
        }
        let initialized = has_initialized(spec, inits, mains);
        let phase = pod::phase(spec, &typed(inits), &typed(mains), self.ended, initialized);
        match (self.ended, is_terminal_phase(phase)) {
            // It never got anywhere (DEL-33).
            (true, false) => "Failed".to_owned(),
            (false, true) if before.is_empty() => "Pending".to_owned(),
            (false, true) => before,
            (true, true) | (false, false) => phase.to_owned(),
        }
    }

    /// A condition; its time is that of the last change of its status (CND-1).
    fn condition(&self, kind: &str, is: bool, why: Option<(&str, String)>) -> Value {
        let status = if is { "True" } else { "False" };
        let (reason, message) = why.unwrap_or_default();
        let mut condition = pod::condition(kind, status, reason, &message, self.now);
        let before = self.previous.get("conditions").and_then(Value::as_array);
        let before =
            before.into_iter().flatten().find(|c| c.get("type").is_some_and(|t| t == kind));
        if let Some(fields) = condition.as_object_mut() {
            if let Some(before) = before
                && before.get("status").is_some_and(|s| s == status)
                && let Some(time) = before.get("lastTransitionTime").filter(|t| t.is_string())
            {
                fields.insert("lastTransitionTime".to_owned(), time.clone());
            }
            if let Some(generation) = self.pod.metadata.generation {
                fields.insert("observedGeneration".to_owned(), generation.into());
            }
        }
        condition
    }

    fn conditions(&self, spec: &PodSpec, phase: &str, inits: &[Value], mains: &[Value]) -> Value {
        let sandbox = self.runtime.is_some_and(|r| r.sandbox.ready) && !self.ended;
        let incomplete: Vec<&str> = spec
            .init_containers
            .iter()
            .flatten()
            .zip(inits)
            .filter(
                |(init, status)| {
                    !if is_sidecar(init) { started(status) } else { succeeded(status) }
                },
            )
            .map(|(init, _)| init.name.as_str())
            .collect();
        let initialized = if phase == "Succeeded" {
            (true, Some(("PodCompleted", String::new())))
        } else if incomplete.is_empty() || mains.iter().any(has_run) {
            (true, None)
        } else {
            let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
            (false, Some(("ContainersNotInitialized", message)))
        };
        let is_ready = |name: &str| {
            let status =
                inits.iter().chain(mains).find(|s| s.get("name").is_some_and(|n| n == name));
            status.and_then(|s| s.get("ready")) == Some(&json!(true))
        };
        let sidecars = spec.init_containers.iter().flatten().filter(|init| is_sidecar(init));
        let counted = sidecars.chain(&spec.containers).map(|container| container.name.as_str());
        let unready: Vec<&str> = counted.filter(|name| !is_ready(name)).collect();
        let containers_ready = match phase {
            "Succeeded" => Err(("PodCompleted", String::new())),
            "Failed" => Err(("PodFailed", String::new())),
            _ if unready.is_empty() && !self.ended => Ok(()),
            _ => {
                let message = format!("containers with unready status: [{}]", unready.join(" "));
                Err(("ContainersNotReady", message))
            }
        };
        let ready = containers_ready.clone().and_then(|()| self.gates(spec));
        json!([
            // CRE-2: nobody else has said it of a Pod that came with its node's name.
            self.condition("PodScheduled", true, None),
            self.condition("PodReadyToStartContainers", sandbox, None),
            self.condition("Initialized", initialized.0, initialized.1),
            self.condition("ContainersReady", containers_ready.is_ok(), containers_ready.err()),
            self.condition("Ready", ready.is_ok(), ready.err()),
        ])
    }

    /// The Pod's readiness gates, which others' conditions answer.
    fn gates(&self, spec: &PodSpec) -> Result<(), (&'static str, String)> {
        let known = self.pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let known: BTreeMap<&str, &str> =
            known.map(|c| (c.type_.as_str(), c.status.as_str())).collect();
        let closed: Vec<String> = spec
            .readiness_gates
            .iter()
            .flatten()
            .filter_map(|gate| {
                let kind = &gate.condition_type;
                match known.get(kind.as_str()) {
                    Some(&"True") => None,
                    Some(status) => Some(format!(
                        "the status of pod readiness gate \"{kind}\" is not \"True\", but {status}"
                    )),
                    None => Some(format!(
                        "corresponding condition of pod readiness gate \"{kind}\" does not exist."
                    )),
                }
            })
            .collect();
        if closed.is_empty() { Ok(()) } else { Err(("ReadinessGatesNotReady", closed.join(", "))) }
    }
}

fn started(status: &Value) -> bool {
    status.get("started") == Some(&json!(true))
}

fn succeeded(status: &Value) -> bool {
    let exit = status.pointer("/state/terminated/exitCode");
    exit.or_else(|| status.pointer("/lastState/terminated/exitCode")) == Some(&json!(0))
}

/// Whether the mains' turn has ever come.
fn has_initialized(spec: &PodSpec, inits: &[Value], mains: &[Value]) -> bool {
    let last = spec.init_containers.iter().flatten().zip(inits).last();
    mains.iter().any(has_run)
        || last.is_none_or(
            |(init, status)| {
                if is_sidecar(init) { started(status) } else { succeeded(status) }
            },
        )
}

fn typed(statuses: &[Value]) -> Vec<ContainerStatus> {
    let typed = |status: &Value| serde_json::from_value(status.clone()).ok();
    statuses.iter().filter_map(typed).collect()
}

/// The whole of what the kubelet says. Others' conditions and fields are not in it: the API keeps them
/// when it takes this up (CND-1).
#[must_use]
pub fn status(facts: &Facts<'_>) -> Value {
    let Some(spec) = &facts.pod.spec else { return json!({}) };
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    let default_reason = if inits.is_empty() { "ContainerCreating" } else { "PodInitializing" };
    let init_statuses: Vec<Value> = inits
        .iter()
        .map(|c| {
            let role = if is_sidecar(c) { Role::Sidecar } else { Role::Init };
            facts.container(c, role, default_reason)
        })
        .collect();
    let mut statuses: Vec<Value> =
        spec.containers.iter().map(|c| facts.container(c, Role::Main, default_reason)).collect();
    // CST-7
    statuses.sort_by_cached_key(|s| s.get("name").and_then(Value::as_str).map(str::to_owned));
    let phase = facts.phase(spec, &init_statuses, &statuses);
    let conditions = facts.conditions(spec, &phase, &init_statuses, &statuses);
    let mut fields = Map::new();
    let mut set = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
    let before = |key: &str| facts.previous.get(key).filter(|v| !v.is_null()).cloned();
    set("conditions", conditions);
    set("hostIP", facts.host_ip.into());
    set("hostIPs", json!([{"ip": facts.host_ip}]));
    set("startTime", before("startTime").unwrap_or_else(|| meta::time(facts.now).into()));
    if let Some(generation) = facts.pod.metadata.generation {
        set("observedGeneration", generation.into());
    }
    // PHS-4
    match facts.verdict.filter(|_| phase == "Failed") {
        Some(verdict) => {
            set("reason", verdict.reason.clone().into());
            set("message", verdict.message.clone().into());
        }
        None if facts.previous.get("phase").is_some_and(|p| *p == phase) => {
            for key in ["reason", "message"] {
                if let Some(value) = before(key) {
                    set(key, value);
                }
            }
        }
        None => {}
    }
    if !facts.verdict.is_some_and(|v| v.rejected) {
        set("containerStatuses", statuses.into());
        if !init_statuses.is_empty() {
            set("initContainerStatuses", init_statuses.into());
        }
        let others: Vec<Value> = spec
            .ephemeral_containers
            .iter()
            .flatten()
            .map(|c| facts.container(&added(c), Role::Added, "ContainerCreating"))
            .collect();
        if !others.is_empty() {
            set("ephemeralContainerStatuses", others.into());
        }
    }
    let host_network = spec.host_network.unwrap_or_default();
    let ip = match facts.runtime.map(|r| r.sandbox.ip) {
        Some(Some(ip)) => Some(Value::from(ip.to_string())),
        Some(None) if host_network => Some(facts.host_ip.into()),
        _ => before("podIP"),
    };
    if let Some(ip) = ip {
        set("podIPs", json!([{"ip": ip}]));
        set("podIP", ip);
    }
    set("phase", phase.into());
    fields.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{exited, id, pod, running, runtime};

    /// A Pod and what is known of it, to be varied.
    struct Case {
        pod: Pod,
        runtime: Option<RuntimePod>,
        waiting: Waiting,
        attempts: BTreeMap<String, u32>,
        starting: Option<ContainerId>,
        verdict: Option<Verdict>,
        previous: Value,
        ended: bool,
        now: i64,
    }

    impl Case {
        fn new(spec: Value, containers: Vec<(&str, u32, ContainerState)>) -> Self {
            Self {
                pod: pod(spec),
                runtime: Some(runtime(containers)),
                waiting: Waiting::new(),
                attempts: BTreeMap::new(),
                starting: None,
                verdict: None,
                previous: Value::Null,
                ended: false,
                now: 100,
            }
        }

        fn status(&self) -> Value {
            status(&Facts {
                pod: &self.pod,
                runtime: self.runtime.as_ref(),
                waiting: &self.waiting,
                attempts: &self.attempts,
                starting: self.starting.as_ref(),
                host_ip: "127.0.0.1",
                ended: self.ended,
                verdict: self.verdict.as_ref(),
                previous: &self.previous,
                now: self.now,
            })
        }
    }

    fn condition(status: &Value, kind: &str) -> (String, String, String) {
        let list = status["conditions"].as_array().unwrap();
        let found = list.iter().find(|c| c["type"] == kind).unwrap();
        let of = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        (of("status"), of("reason"), of("message"))
    }

    fn spec(policy: &str) -> Value {
        json!({
            "restartPolicy": policy,
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
            "containers": [{"name": "b"}, {"name": "a"}],
        })
    }

    type Instances<'a> = Vec<(&'a str, u32, ContainerState)>;
    type Row<'a> = (&'a str, &'a str, bool, Instances<'a>, &'a str);

    #[test]
    fn an_added_container_has_a_status_and_no_part_in_the_pods() {
        // SUB-4
        let mut spec = json!({"containers": [{"name": "a"}]});
        spec["ephemeralContainers"] = json!([
            {"name": "e", "image": "i", "targetContainerName": "a"}, {"name": "f", "image": "i"},
        ]);
        let mut case = Case::new(spec, vec![("a", 0, running()), ("e", 0, exited(3))]);
        let status = case.status();
        let added = &status["ephemeralContainerStatuses"];
        assert_eq!(added[0]["state"]["terminated"]["exitCode"], 3);
        assert_eq!(added[1]["state"]["waiting"]["reason"], "ContainerCreating");
        assert_eq!((&status["phase"], &added[0]["ready"]), (&json!("Running"), &json!(false)));
        assert_eq!(condition(&status, "Ready").0, "True");
        assert_eq!(next_attempts(&status).get("e"), Some(&1));
        assert_eq!(next_attempts(&status).get("f"), None);
        case.previous = status;
        case.runtime = None;
        case.ended = true;
        let added = &case.status()["ephemeralContainerStatuses"];
        assert_eq!(added[0]["state"]["terminated"]["exitCode"], 3, "as it was");
        assert_eq!(added[1]["state"]["waiting"]["reason"], "ContainerCreating", "it never ran");
    }

    #[test]
    fn the_phase_follows_from_the_containers() {
        // §3.3 in its order; PHS-2; DEL-33
        let up = || ("s", 0, running());
        let rows: Vec<Row<'_>> = vec![
            ("nothing yet", "Always", false, vec![], "Pending"),
            ("init runs", "Always", false, vec![("i", 0, running())], "Pending"),
            ("init retries", "Always", false, vec![("i", 0, exited(1))], "Pending"),
            ("init failed, held back", "Never", false, vec![("i", 0, exited(1))], "Pending"),
            ("init failed for good", "Never", true, vec![("i", 0, exited(1))], "Failed"),
            ("sidecar not begun", "Always", false, vec![("i", 0, exited(0))], "Pending"),
            ("mains not begun", "Always", false, vec![("i", 0, exited(0)), up()], "Pending"),
            (
                "one main waits",
                "Always",
                false,
                vec![("i", 0, exited(0)), up(), ("a", 0, running())],
                "Pending",
            ),
            (
                "both run",
                "Always",
                false,
                vec![("i", 0, exited(0)), up(), ("a", 0, running()), ("b", 0, running())],
                "Running",
            ),
            (
                "one crashed",
                "Always",
                false,
                vec![("i", 0, exited(0)), up(), ("a", 0, exited(1)), ("b", 0, running())],
                "Running",
            ),
            (
                "all crashed",
                "Always",
                false,
                vec![
                    ("i", 0, exited(0)),
                    ("s", 0, exited(0)),
                    ("a", 0, exited(1)),
                    ("b", 0, exited(1)),
                ],
                "Running",
            ),
            (
                "some restarts",
                "OnFailure",
                false,
                vec![
                    ("i", 0, exited(0)),
                    ("s", 0, exited(0)),
                    ("a", 0, exited(1)),
                    ("b", 0, exited(0)),
                ],
                "Running",
            ),
            (
                "all good, only the sidecar left",
                "Never",
                true,
                vec![
                    ("i", 0, exited(0)),
                    ("s", 0, exited(1)),
                    ("a", 0, exited(0)),
                    ("b", 0, exited(0)),
                ],
                "Succeeded",
            ),
            (
                "one bad",
                "Never",
                true,
                vec![
                    ("i", 0, exited(0)),
                    ("s", 0, exited(0)),
                    ("a", 0, exited(2)),
                    ("b", 0, exited(0)),
                ],
                "Failed",
            ),
            ("deleted before it began", "Always", true, vec![], "Failed"),
        ];
        for (name, policy, ended, containers, want) in rows {
            let mut case = Case::new(spec(policy), containers);
            case.ended = ended;
            assert_eq!(case.status()["phase"], want, "{name}");
        }
    }

    #[test]
    fn a_terminal_phase_is_held_back_and_then_kept() {
        // PHS-1, PHS-2, PHS-4
        let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a"}]});
        let mut case = Case::new(spec, vec![("a", 0, exited(1))]);
        case.previous = json!({"phase": "Running"});
        assert_eq!(case.status()["phase"], "Running", "the worker has not confirmed it");
        case.ended = true;
        let ended = case.status();
        assert_eq!(ended["phase"], "Failed");
        let why = ("False".to_owned(), "PodFailed".to_owned(), String::new());
        assert_eq!(
            (condition(&ended, "Ready"), condition(&ended, "ContainersReady")),
            (why.clone(), why)
        );
        case.previous = json!({"phase": "Failed", "reason": "Evicted", "message": "m"});
        case.runtime = Some(runtime([("a", 0, running())]));
        case.ended = false;
        let kept = case.status();
        assert_eq!(kept["phase"], "Failed");
        assert_eq!((&kept["reason"], &kept["message"]), (&json!("Evicted"), &json!("m")));
        case.previous = json!({"phase": "Pending", "reason": "Evicted"});
        assert_eq!(case.status().get("reason"), None, "the phase has changed");
    }

    #[test]
    fn container_states_are_what_users_look_for() {
        // CST-1, CST-2, CST-6, CST-7
        let mut case = Case::new(
            json!({"containers": [{"name": "b"}, {"name": "a"}]}),
            vec![("a", 1, exited(1)), ("a", 2, exited(3)), ("b", 0, running())],
        );
        let status = case.status();
        let names: Vec<&Value> =
            status["containerStatuses"].as_array().unwrap().iter().map(|s| &s["name"]).collect();
        assert_eq!(names, ["a", "b"], "sorted by name");
        let (a, b) = (&status["containerStatuses"][0], &status["containerStatuses"][1]);
        assert_eq!(a["state"]["terminated"]["exitCode"], 3);
        assert_eq!(a["state"]["terminated"]["reason"], "Error");
        assert_eq!(a["lastState"]["terminated"]["exitCode"], 1);
        assert_eq!((&a["restartCount"], &a["ready"]), (&json!(2), &json!(false)));
        assert_eq!(a["containerID"], "trireme://a-2");
        assert_eq!((&b["ready"], &b["started"]), (&json!(true), &json!(true)));
        assert_eq!(status["podIP"], "10.244.0.2");
        assert_eq!(status["observedGeneration"], 3);
        assert_eq!(status["startTime"], "1970-01-01T00:01:40Z");

        let message = "back-off 10s restarting failed container=a pod=p_d(u)";
        case.waiting.insert("a".into(), ("CrashLoopBackOff".into(), message.into()));
        case.starting = Some(id("b", 0));
        let status = case.status();
        let (a, b) = (&status["containerStatuses"][0], &status["containerStatuses"][1]);
        assert_eq!(
            a["state"],
            json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}})
        );
        assert_eq!(a["lastState"]["terminated"]["exitCode"], 3);
        assert_eq!(a["restartCount"], 2, "unchanged until it is started");
        assert_eq!((&b["ready"], &b["started"]), (&json!(false), &json!(false)), "LIF-1");
    }

    #[test]
    fn ends_have_their_reasons() {
        // CST-2
        let ended =
            |exit_code, signal, oom_killed, same: bool, message: &str| ContainerState::Exited {
                started_at: 1_000_000,
                finished_at: if same { 1_000_000 } else { 2_000_000 },
                exit_code,
                signal,
                oom_killed,
                message: message.to_owned(),
            };
        for (state, want) in [
            (ended(0, None, false, false, ""), "Completed"),
            (ended(1, None, false, false, ""), "Error"),
            (ended(128, None, false, false, ""), "Error"),
            (ended(128, None, false, true, "no such file"), "StartError"),
            (ended(143, Some(15), false, false, ""), "Error"),
            (ended(137, Some(9), true, false, ""), "OOMKilled"),
            (ended(137, None, false, false, LOST), "ContainerStatusUnknown"),
        ] {
            let case =
                Case::new(json!({"containers": [{"name": "a"}]}), vec![("a", 0, state.clone())]);
            let status = case.status();
            let state_now = &status["containerStatuses"][0]["state"]["terminated"];
            assert_eq!(state_now["reason"], want, "{state:?}");
        }
    }

    #[test]
    fn a_container_that_vanished_is_not_one_that_never_ran() {
        // CST-5
        let mut case = Case::new(json!({"containers": [{"name": "a"}]}), vec![("a", 3, running())]);
        case.previous = case.status();
        case.attempts = next_attempts(&case.previous);
        case.runtime = None;
        let status = case.status();
        let a = &status["containerStatuses"][0];
        assert_eq!(a["state"]["waiting"]["reason"], "ContainerCreating");
        assert_eq!(a["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
        assert_eq!(a["lastState"]["terminated"]["exitCode"], 137);
        assert_eq!(a["restartCount"], 4);
        case.ended = true;
        let status = case.status();
        let a = &status["containerStatuses"][0];
        assert_eq!(a["state"]["terminated"]["reason"], "ContainerStatusUnknown");
        assert_eq!(a["restartCount"], 3, "no restart when it is ending");
        assert_eq!(status["phase"], "Failed");
        let never = Case::new(json!({"containers": [{"name": "a"}]}), vec![]).status();
        assert_eq!(next_attempts(&never), BTreeMap::new());
        assert_eq!(never["containerStatuses"][0]["restartCount"], 0);
    }

    #[test]
    fn conditions_say_why() {
        // §3.4
        let text = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        let unready = "containers with unready status: [s b a]";
        let rows: Vec<(&str, Instances<'_>, _, _)> = vec![
            (
                "nothing yet",
                vec![],
                text(
                    "False",
                    "ContainersNotInitialized",
                    "containers with incomplete status: [i s]",
                ),
                text("False", "ContainersNotReady", unready),
            ),
            (
                "sidecar to come",
                vec![("i", 0, exited(0))],
                text("False", "ContainersNotInitialized", "containers with incomplete status: [s]"),
                text("False", "ContainersNotReady", unready),
            ),
            (
                "initialized",
                vec![("i", 0, exited(0)), ("s", 0, running())],
                text("True", "", ""),
                text("False", "ContainersNotReady", "containers with unready status: [b a]"),
            ),
            (
                "ready",
                vec![
                    ("i", 0, exited(0)),
                    ("s", 0, running()),
                    ("a", 0, running()),
                    ("b", 0, running()),
                ],
                text("True", "", ""),
                text("True", "", ""),
            ),
            (
                "a sidecar that is down makes it unready, not uninitialized",
                vec![
                    ("i", 0, exited(0)),
                    ("s", 0, exited(1)),
                    ("a", 0, running()),
                    ("b", 0, running()),
                ],
                text("True", "", ""),
                text("False", "ContainersNotReady", "containers with unready status: [s]"),
            ),
        ];
        for (name, containers, initialized, ready) in rows {
            let status = Case::new(spec("Always"), containers).status();
            assert_eq!(condition(&status, "PodReadyToStartContainers").0, "True", "{name}");
            assert_eq!(condition(&status, "Initialized"), initialized, "{name}");
            assert_eq!(condition(&status, "ContainersReady"), ready, "{name}");
            assert_eq!(condition(&status, "Ready"), ready, "{name}");
        }
        let mut done = Case::new(
            json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}),
            vec![("a", 0, exited(0))],
        );
        done.ended = true;
        let status = done.status();
        assert_eq!(condition(&status, "PodReadyToStartContainers").0, "False");
        assert_eq!(condition(&status, "Initialized"), text("True", "PodCompleted", ""));
        assert_eq!(condition(&status, "Ready"), text("False", "PodCompleted", ""));
    }

    #[test]
    fn readiness_gates_are_answered_by_others() {
        // §3.4
        let gates = json!({
            "containers": [{"name": "a"}],
            "readinessGates": [{"conditionType": "x"}],
        });
        let mut case = Case::new(gates, vec![("a", 0, running())]);
        let ready = |case: &Case| condition(&case.status(), "Ready");
        let missing = "corresponding condition of pod readiness gate \"x\" does not exist.";
        assert_eq!(ready(&case).2, missing);
        assert_eq!(condition(&case.status(), "ContainersReady").0, "True");
        let with = |status: &str| {
            serde_json::from_value(json!({"conditions": [{"type": "x", "status": status}]}))
                .unwrap()
        };
        case.pod.status = Some(with("False"));
        assert_eq!(ready(&case).1, "ReadinessGatesNotReady");
        assert_eq!(
            ready(&case).2,
            "the status of pod readiness gate \"x\" is not \"True\", but False"
        );
        case.pod.status = Some(with("True"));
        assert_eq!(ready(&case).0, "True");
    }

    #[test]
    fn times_of_conditions_change_with_their_status_only() {
        // CND-1
        let mut case = Case::new(json!({"containers": [{"name": "a"}]}), vec![("a", 0, running())]);
        case.previous = case.status();
        case.now = 200;
        assert_eq!(case.status(), case.previous, "nothing has happened");
        case.runtime = Some(runtime([("a", 0, exited(1))]));
        let status = case.status();
        let time = |kind: &str| {
            let list = status["conditions"].as_array().unwrap();
            list.iter().find(|c| c["type"] == kind).unwrap()["lastTransitionTime"].clone()
        };
        assert_eq!(time("Ready"), meta::time(200));
        assert_eq!(time("Initialized"), meta::time(100));
        assert_eq!(status["startTime"], meta::time(100));
    }

    #[test]
    fn a_rejected_pod_says_why_and_nothing_of_containers() {
        // §6.7
        let mut case = Case::new(json!({"containers": [{"name": "a"}]}), vec![]);
        case.runtime = None;
        case.ended = true;
        let (reason, message) = ("OutOfcpu".to_owned(), "Pod was rejected: no".to_owned());
        case.verdict = Some(Verdict { reason, message, rejected: true });
        let status = case.status();
        assert_eq!(
            (&status["phase"], &status["reason"], &status["message"]),
            (&json!("Failed"), &json!("OutOfcpu"), &json!("Pod was rejected: no"))
        );
        assert_eq!(status.get("containerStatuses"), None);
    }
}
