//! What to do next for one Pod: a function of what is asked, what runs, and what was done.

use crate::runtime::{Container, ContainerId, ContainerState, RuntimePod};
use api::core::{Container as Spec, Pod};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// Least time between TERM and KILL (DEL-20).
const FLOOR: Duration = Duration::from_secs(2);
const BACKOFF_MIN: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A back-off is forgotten when a run ended this long after the last restart (BKO-1).
const BACKOFF_RESET: Duration = Duration::from_secs(600);

/// One thing to do. Those of one answer are independent of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make volumes and sandbox.
    Sandbox,
    /// Start an instance of a container.
    Start {
        /// Its name.
        name: String,
        /// Its restart count.
        attempt: u32,
    },
    /// Run a container's preStop hook.
    PreStop {
        /// Where.
        id: ContainerId,
        /// Its name.
        name: String,
    },
    /// Ask a container to end.
    Term {
        /// Which.
        id: ContainerId,
        /// Its name.
        name: String,
    },
    /// End a container.
    Kill {
        /// Which.
        id: ContainerId,
    },
    /// Everything has ended: report it, take all down, and delete the Pod if it is being deleted.
    Finish,
}

/// What the worker remembers of a Pod.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Since when it is being ended, and within what grace.
    pub termination: Option<Termination>,
    /// By container name.
    pub backoff: BTreeMap<String, Backoff>,
    /// Hooks by container: when they ended; `None` while they run.
    pub hooks: BTreeMap<ContainerId, Option<Instant>>,
    /// TERM was sent.
    pub asked: BTreeMap<ContainerId, Instant>,
    /// KILL was sent.
    pub killed: BTreeMap<ContainerId, Instant>,
}

/// A Pod's end, counted from the kubelet's own observation (DEL-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Termination {
    /// First seen.
    pub since: Instant,
    /// Effective grace; at least a second (DEL-3).
    pub grace: Duration,
    /// By a shortened grace, everything is over by then (DEL-35).
    pub cap: Option<Instant>,
}

impl Termination {
    /// Takes up a grace as it is now asked for; it can only become shorter (DEL-36).
    pub fn update(this: &mut Option<Self>, grace_seconds: i64, now: Instant) {
        let asked = Duration::from_secs(u64::try_from(grace_seconds.max(1)).unwrap_or(1));
        match this {
            None => *this = Some(Self { since: now, grace: asked, cap: None }),
            Some(termination) if asked < termination.grace => {
                termination.grace = asked;
                let end = now + asked.max(FLOOR);
                termination.cap = Some(termination.cap.map_or(end, |cap| cap.min(end)));
            }
            Some(_) => {}
        }
    }
}

/// Restarts of one container (BKO-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Wait before the next start.
    pub wait: Duration,
    /// When the last start was decided on.
    pub updated: Instant,
    /// Of the instance that this back-off is about.
    pub attempt: u32,
}

/// What a step is decided on.
pub struct View<'a> {
    /// As last told.
    pub pod: &'a Pod,
    /// As it is on this node.
    pub runtime: Option<&'a RuntimePod>,
    /// What was done.
    pub memory: &'a Memory,
    /// Now.
    pub now: Instant,
    /// How long ago an instant of the wall clock was, for ends that another process recorded.
    pub since: &'a dyn Fn(u64) -> Duration,
}

/// The steps, and when to look again if nothing happens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// To do now.
    pub steps: Vec<Step>,
    /// Restarts that are decided on: to be remembered when they are carried out.
    pub backoff: BTreeMap<String, Backoff>,
    /// Look again then.
    pub wake: Option<Instant>,
}

impl Decision {
    fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// The newest instance of a container.
#[must_use]
pub fn newest<'a>(runtime: Option<&'a RuntimePod>, name: &str) -> Option<&'a Container> {
    let all = runtime.into_iter().flat_map(|pod| &pod.containers);
    all.filter(|c| c.config.name == name).max_by_key(|c| c.config.attempt)
}

fn running(container: &Container) -> bool {
    matches!(container.state, ContainerState::Running { .. })
}

fn exit_code(container: &Container) -> Option<i32> {
    match &container.state {
        ContainerState::Running { .. } => None,
        ContainerState::Exited { exit_code, .. } => Some(*exit_code),
    }
}

/// Decides.
#[must_use]
pub fn next_step(view: &View<'_>) -> Decision {
    let mut decision = Decision::default();
    let Some(spec) = &view.pod.spec else { return decision };
    if let Some(termination) = &view.memory.termination {
        terminate(view, termination, &spec.containers, &mut decision);
        return decision;
    }
    if view.runtime.is_none_or(|pod| !pod.sandbox.ready) {
        // With a sandbox that died under a Pod that may not restart, nothing is made again.
        if view.runtime.is_some() && spec.restart_policy.as_deref() == Some("Never") {
            decision.steps.push(Step::Finish);
        } else {
            decision.steps.push(Step::Sandbox);
        }
        return decision;
    }
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    for init in spec.init_containers.iter().flatten() {
        match newest(view.runtime, &init.name).and_then(exit_code) {
            Some(0) => {}
            Some(_) if policy == "Never" => {
                decision.steps.push(Step::Finish);
                return decision;
            }
            _ => {
                advance(view, init, true, &mut decision);
                return decision;
            }
        }
    }
    let mut over = true;
    for container in &spec.containers {
        let code = newest(view.runtime, &container.name).and_then(exit_code);
        let again = match (code, policy) {
            (None, _) | (Some(_), "Always") => true,
            (Some(code), "OnFailure") => code != 0,
            (Some(_), _) => false,
        };
        if again {
            over = false;
            advance(view, container, policy != "Never", &mut decision);
        }
    }
    if over {
        decision.steps.push(Step::Finish);
    }
    decision
}

/// Starts a container that does not run, when its time has come.
fn advance(view: &View<'_>, spec: &Spec, may_restart: bool, decision: &mut Decision) {
    let Some(last) = newest(view.runtime, &spec.name) else {
        decision.steps.push(Step::Start { name: spec.name.clone(), attempt: 0 });
        return;
    };
    let ContainerState::Exited { finished_at, .. } = &last.state else { return };
    if !may_restart {
        return;
    }
    let finished = view.now.checked_sub((view.since)(*finished_at)).unwrap_or(view.now);
    let known = view.memory.backoff.get(&spec.name);
    let fresh = known.filter(|b| finished.saturating_duration_since(b.updated) <= BACKOFF_RESET);
    if let Some(backoff) = fresh
        && backoff.attempt == last.config.attempt
        && view.now < finished + backoff.wait
    {
        decision.wake_at(finished + backoff.wait);
        return;
    }
    let attempt = last.config.attempt + 1;
    let wait = fresh.map_or(BACKOFF_MIN, |b| (b.wait * 2).min(BACKOFF_MAX));
    decision.backoff.insert(spec.name.clone(), Backoff { wait, updated: view.now, attempt });
    decision.steps.push(Step::Start { name: spec.name.clone(), attempt });
}

/// Every container beside the others: hook, TERM, KILL (§4.2).
fn terminate(view: &View<'_>, termination: &Termination, specs: &[Spec], decision: &mut Decision) {
    let all = view.runtime.into_iter().flat_map(|pod| &pod.containers);
    let alive: Vec<&Container> = all.filter(|c| running(c)).collect();
    if alive.is_empty() {
        decision.steps.push(Step::Finish);
        return;
    }
    let grace_end = termination.since + termination.grace;
    for container in alive {
        let id = &container.id;
        let name = &container.config.name;
        let spec = specs.iter().find(|s| s.name == *name);
        let has_hook =
            spec.and_then(|s| s.lifecycle.as_ref()).is_some_and(|l| l.pre_stop.is_some());
        let asked_at = view.memory.asked.get(id).copied();
        let term_at = match (has_hook, view.memory.hooks.get(id)) {
            (false, _) => termination.since,
            (true, None) => {
                decision.steps.push(Step::PreStop { id: id.clone(), name: name.clone() });
                decision.wake_at(grace_end);
                continue;
            }
            // Within the grace, however long it takes (DEL-21).
            (true, Some(ended)) => ended.unwrap_or(grace_end).min(grace_end),
        };
        let Some(asked_at) = asked_at else {
            if view.now >= term_at {
                decision.steps.push(Step::Term { id: id.clone(), name: name.clone() });
            } else {
                decision.wake_at(term_at);
            }
            continue;
        };
        let spent =
            Duration::from_secs(asked_at.saturating_duration_since(termination.since).as_secs());
        let rest = termination.grace.saturating_sub(spent).max(FLOOR);
        let end = asked_at + rest;
        let kill_at = termination.cap.map_or(end, |cap| cap.min(end));
        if view.now < kill_at {
            decision.wake_at(kill_at);
        } else if !view.memory.killed.contains_key(id) {
            decision.steps.push(Step::Kill { id: id.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{ContainerConfig, PodRef, Resources, Sandbox, SandboxConfig, Security};

    fn pod(policy: &str, hook: bool) -> Pod {
        let hook = if hook {
            serde_json::json!({"preStop": {"exec": {"command": ["x"]}}})
        } else {
            serde_json::Value::Null
        };
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "uid": "u"},
            "spec": {"restartPolicy": policy, "containers": [{"name": "a", "lifecycle": hook}]},
        }))
        .unwrap()
    }

    fn runtime(attempt: u32, state: ContainerState) -> RuntimePod {
        let pod = PodRef { namespace: "d".into(), name: "p".into(), uid: "u".into() };
        let sandbox = SandboxConfig {
            pod,
            attempt: 0,
            hostname: "p".into(),
            host_network: false,
            resources: Resources::default(),
            annotations: BTreeMap::new(),
        };
        let config = ContainerConfig {
            name: "a".into(),
            attempt,
            image: String::new(),
            image_id: String::new(),
            argv: vec![],
            env: vec![],
            working_dir: "/".into(),
            mounts: vec![],
            resources: Resources::default(),
            security: Security::default(),
            stdin: false,
            tty: false,
            log_path: "/".into(),
            log_bytes_max: 0,
            termination_message_path: String::new(),
            hash: 0,
            annotations: BTreeMap::new(),
        };
        let id = ContainerId("a".into());
        RuntimePod {
            sandbox: Sandbox { config: sandbox, ip: None, created_at: 0, ready: true },
            containers: vec![Container { id, pod_uid: "u".into(), config, state }],
        }
    }

    fn exited() -> ContainerState {
        ContainerState::Exited {
            started_at: 0,
            finished_at: 0,
            exit_code: 1,
            signal: None,
            oom_killed: false,
            message: String::new(),
        }
    }

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    /// When TERM and KILL are sent to a container that ignores TERM and whose hook takes `hook`.
    fn ending(grace: i64, hook: Option<f64>) -> (f64, f64) {
        let start = Instant::now();
        let pod = pod("Always", hook.is_some());
        let up = runtime(0, ContainerState::Running { started_at: 0 });
        let mut memory = Memory::default();
        Termination::update(&mut memory.termination, grace, start);
        let (mut now, mut term) = (start, 0.0);
        for _ in 0..20 {
            let view = View {
                pod: &pod,
                runtime: Some(&up),
                memory: &memory,
                now,
                since: &|_| seconds(0.0),
            };
            let decision = next_step(&view);
            let at = (now - start).as_secs_f64();
            match decision.steps.first() {
                Some(Step::PreStop { id, .. }) => drop(memory.hooks.insert(id.clone(), None)),
                Some(Step::Term { id, .. }) => {
                    term = at;
                    memory.asked.insert(id.clone(), now);
                }
                Some(Step::Kill { .. }) => return (term, at),
                other => {
                    assert_eq!(other, None);
                    let ends = hook.map(|h| start + seconds(h)).filter(|end| *end > now);
                    now = decision.wake.unwrap().min(ends.unwrap_or(decision.wake.unwrap()));
                    if hook.is_some_and(|h| now >= start + seconds(h)) {
                        memory
                            .hooks
                            .insert(ContainerId("a".into()), Some(start + seconds(hook.unwrap())));
                    }
                }
            }
        }
        panic!("it never ends");
    }

    #[tokio::test(start_paused = true)]
    async fn term_and_kill_come_when_they_must() {
        // §4.2, DEL-20: A5, A6, S36
        for (grace, hook, want) in [
            (30, None, (0.0, 30.0)),
            (30, Some(10.0), (10.0, 30.0)),
            (30, Some(29.4), (29.4, 31.4)),
            (30, Some(45.0), (30.0, 32.0)),
            (1, Some(45.0), (1.0, 3.0)),
            (1, None, (0.0, 2.0)),
        ] {
            let (term, kill) = ending(grace, hook);
            let close = |a: f64, b: f64| (a - b).abs() < 0.001;
            assert!(close(term, want.0) && close(kill, want.1), "{grace} {hook:?}: {term} {kill}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_grace_counts_at_once_and_a_longer_one_never() {
        // DEL-35, DEL-36
        let start = Instant::now();
        let mut termination = None;
        Termination::update(&mut termination, 30, start);
        Termination::update(&mut termination, 60, start + seconds(1.0));
        assert_eq!(termination.unwrap().cap, None);
        Termination::update(&mut termination, 5, start + seconds(10.0));
        assert_eq!(termination.unwrap().cap, Some(start + seconds(15.0)));
        Termination::update(&mut termination, 0, start + seconds(11.0));
        assert_eq!(termination.unwrap().cap, Some(start + seconds(13.0)), "the floor");
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_that_crashes_waits_longer_each_time() {
        // BKO-1, trap 34
        let pod = pod("Always", false);
        let mut memory = Memory::default();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for attempt in 0..8 {
            let finished = now;
            let down = runtime(attempt, exited());
            loop {
                let since = now - finished;
                let view = View {
                    pod: &pod,
                    runtime: Some(&down),
                    memory: &memory,
                    now,
                    since: &|_| since,
                };
                let decision = next_step(&view);
                match decision.steps.first() {
                    Some(Step::Start { attempt: next, .. }) => {
                        assert_eq!(*next, attempt + 1);
                        memory.backoff.extend(decision.backoff);
                        waits.push((now - finished).as_secs());
                        break;
                    }
                    _ => now = decision.wake.unwrap(),
                }
            }
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_ended_for_good_is_finished_and_a_terminating_pod_is_never_restarted() {
        // DEL-34, S14
        let now = Instant::now();
        let down = runtime(0, exited());
        let mut memory = Memory::default();
        let decide = |policy, memory: &Memory| {
            let pod = pod(policy, false);
            let view =
                View { pod: &pod, runtime: Some(&down), memory, now, since: &|_| seconds(0.0) };
            next_step(&view).steps
        };
        assert_eq!(decide("Never", &memory), [Step::Finish]);
        assert!(matches!(decide("OnFailure", &memory)[..], [Step::Start { attempt: 1, .. }]));
        Termination::update(&mut memory.termination, 30, now);
        assert_eq!(decide("Always", &memory), [Step::Finish]);
    }
}
