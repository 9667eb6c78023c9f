//! What to do next for one Pod: a function of what is asked, what runs, and what was done.

use crate::{
    ending::{Termination, terminate},
    runtime::{Container, ContainerId, ContainerState, RuntimePod},
};
use api::{
    core::{Container as Spec, Pod, PodSpec},
    resources::is_sidecar,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

const BACKOFF_MIN: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A back-off is forgotten when a run ended this long after the last restart (BKO-1).
const BACKOFF_RESET: Duration = Duration::from_secs(600);

/// One thing to do. Those of one answer are independent of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make volumes and sandbox.
    Sandbox {
        /// 0 for the first one; a later one replaces what is left of the one before.
        attempt: u32,
    },
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
    /// What still runs is to be ended, within the Pod's own grace.
    End {
        /// Why, if the Pod has failed by it.
        verdict: Option<Verdict>,
    },
    /// Everything has ended: report it, take all down, and delete the Pod if it is being deleted.
    Finish,
}

/// Why the kubelet itself makes a Pod fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `status.reason`
    pub reason: String,
    /// `status.message`
    pub message: String,
    /// It was never let onto the node (§6.7).
    pub rejected: bool,
}

impl Verdict {
    /// ADL-1
    fn deadline_exceeded() -> Self {
        Self {
            reason: "DeadlineExceeded".to_owned(),
            message: "Pod was active on the node longer than the specified deadline".to_owned(),
            rejected: false,
        }
    }
}

/// What the worker remembers of a Pod.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Since when it is being ended, and within what grace.
    pub termination: Option<Termination>,
    /// Why the kubelet ends it.
    pub verdict: Option<Verdict>,
    /// By container name.
    pub backoff: BTreeMap<String, Backoff>,
    /// Restart counts to go on from, of containers that the runtime has forgotten.
    pub attempts: BTreeMap<String, u32>,
    /// Containers whose start has to wait until then; `None` while something is under way for it.
    pub holds: BTreeMap<String, Option<Instant>>,
    /// Runs, and its postStart hook has not answered: nothing else starts (LIF-1).
    pub starting: Option<ContainerId>,
    /// preStop hooks by container: when they ended; `None` while they run.
    pub hooks: BTreeMap<ContainerId, Option<Instant>>,
    /// TERM was sent.
    pub asked: BTreeMap<ContainerId, Instant>,
    /// KILL was sent.
    pub killed: BTreeMap<ContainerId, Instant>,
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
    /// The Pod may not be active any longer than this (ADL-1).
    pub deadline: Option<Instant>,
    /// Now.
    pub now: Instant,
    /// How long ago an instant of the wall clock was, for ends that another process recorded.
    pub since: &'a dyn Fn(u64) -> Duration,
}

impl View<'_> {
    fn newest(&self, name: &str) -> Option<&Container> {
        newest(self.runtime, name)
    }

    /// Every container that runs.
    pub(crate) fn alive(&self) -> impl Iterator<Item = &Container> {
        self.runtime.into_iter().flat_map(|pod| &pod.containers).filter(|c| running(c))
    }
}

/// The steps, and when to look again if nothing happens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// To do now.
    pub steps: Vec<Step>,
    /// Restarts that are decided on: to be remembered when they are carried out.
    pub backoff: BTreeMap<String, Backoff>,
    /// Containers that wait for their back-off to end: how long it is.
    pub crash_loops: BTreeMap<String, Duration>,
    /// Look again then.
    pub wake: Option<Instant>,
}

impl Decision {
    pub(crate) fn wake_at(&mut self, at: Instant) {
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

fn may_restart(policy: &str, exit_code: Option<i32>) -> bool {
    match (exit_code, policy) {
        (None, _) | (Some(_), "Always") => true,
        (Some(code), "OnFailure") => code != 0,
        (Some(_), _) => false,
    }
}

/// Decides (§3.6).
#[must_use]
pub fn next_step(view: &View<'_>) -> Decision {
    let mut decision = Decision::default();
    let Some(spec) = &view.pod.spec else { return decision };
    if let Some(termination) = &view.memory.termination {
        terminate(view, termination, spec, &mut decision);
        return decision;
    }
    if let Some(deadline) = view.deadline {
        if view.now >= deadline {
            decision.steps.push(Step::End { verdict: Some(Verdict::deadline_exceeded()) });
            return decision;
        }
        decision.wake_at(deadline);
    }
    if view.memory.verdict.is_some() {
        decision.steps.push(Step::End { verdict: None });
        return decision;
    }
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    match view.runtime {
        Some(pod) if pod.sandbox.ready => {}
        Some(pod) if is_over_without_sandbox(view, spec, policy) => {
            debug_assert!(!pod.sandbox.ready);
            decision.steps.push(Step::Finish);
            return decision;
        }
        // INI-2: everything of the old one goes, and the init containers run again.
        Some(pod) => {
            let attempt = pod.sandbox.config.attempt + 1;
            decision.steps.push(Step::Sandbox { attempt });
            return decision;
        }
        None => {
            decision.steps.push(Step::Sandbox { attempt: 0 });
            return decision;
        }
    }
    let mut starts = Starts { view, decision, blocked: false };
    starts.added(spec);
    match starts.inits(spec, policy) {
        Inits::Done => starts.mains(spec, policy),
        Inits::Under => {}
        Inits::Failed => starts.over(),
    }
    starts.decision
}

/// Whether a Pod whose sandbox has died is not to get another one (§3.6).
fn is_over_without_sandbox(view: &View<'_>, spec: &PodSpec, policy: &str) -> bool {
    let had_any = view.runtime.is_some_and(|pod| !pod.containers.is_empty());
    match policy {
        "Never" => had_any,
        "OnFailure" => spec
            .containers
            .iter()
            .all(|c| view.newest(&c.name).and_then(exit_code).is_some_and(|code| code == 0)),
        _ => false,
    }
}

/// How far the init containers are.
enum Inits {
    Done,
    Under,
    /// One of them has failed, and may not be tried again.
    Failed,
}

/// Containers are started one after the other, in the order of the spec (SYN-1).
struct Starts<'a> {
    view: &'a View<'a>,
    decision: Decision,
    /// An earlier container is on its way.
    blocked: bool,
}

impl Starts<'_> {
    /// INI-1
    fn inits(&mut self, spec: &PodSpec, policy: &str) -> Inits {
        let inits = spec.init_containers.as_deref().unwrap_or_default();
        // What comes after shows that a container has had its turn.
        let begun = |container: &Spec| self.view.newest(&container.name).is_some();
        let mains_begun = spec.containers.iter().any(begun);
        let last_begun = inits.iter().rposition(begun);
        for (at, init) in inits.iter().enumerate() {
            let had_its_turn = mains_begun || last_begun.is_some_and(|last| at < last);
            let last = self.view.newest(&init.name);
            if is_sidecar(init) {
                let starting =
                    last.is_some_and(|c| self.view.memory.starting == Some(c.id.clone()));
                let started = last.is_some_and(running) && !starting;
                if !started {
                    self.advance(init, true);
                    if !had_its_turn {
                        return Inits::Under;
                    }
                }
                continue;
            }
            match last.and_then(exit_code) {
                _ if mains_begun => {}
                Some(0) => {}
                Some(_) if policy == "Never" => return Inits::Failed,
                _ => {
                    self.advance(init, true);
                    return Inits::Under;
                }
            }
        }
        Inits::Done
    }

    fn mains(&mut self, spec: &PodSpec, policy: &str) {
        let mut over = true;
        for container in &spec.containers {
            let last = self.view.newest(&container.name);
            if last.is_none() || may_restart(policy, last.and_then(exit_code)) {
                over = false;
                self.advance(container, policy != "Never");
            }
        }
        if over {
            self.over();
        }
    }

    /// Nothing is to be started any more, and sidecars do not keep a Pod alive.
    fn over(&mut self) {
        self.decision.steps.clear();
        let step = match self.view.alive().next() {
            Some(_) => Step::End { verdict: None },
            None => Step::Finish,
        };
        self.decision.steps.push(step);
    }

    /// Starts a container that does not run, when its time has come.
    fn advance(&mut self, spec: &Spec, may_restart: bool) {
        let view = self.view;
        let last = view.newest(&spec.name);
        if let Some(last) = last.filter(|last| running(last)) {
            self.blocked |= view.memory.starting.as_ref() == Some(&last.id);
            return;
        }
        match view.memory.holds.get(&spec.name) {
            Some(None) => {
                self.blocked = true;
                return;
            }
            Some(Some(until)) if view.now < *until => {
                self.decision.wake_at(*until);
                return;
            }
            Some(Some(_)) | None => {}
        }
        let known = view.memory.attempts.get(&spec.name).copied().unwrap_or_default();
        let Some(last) = last else {
            self.start(&spec.name, known);
            return;
        };
        let ContainerState::Exited { finished_at, .. } = &last.state else { return };
        if !may_restart {
            return;
        }
        let finished = view.now.checked_sub((view.since)(*finished_at)).unwrap_or(view.now);
        let backoff = view.memory.backoff.get(&spec.name);
        let fresh =
            backoff.filter(|b| finished.saturating_duration_since(b.updated) <= BACKOFF_RESET);
        if let Some(backoff) = fresh
            && backoff.attempt == last.config.attempt
            && view.now < finished + backoff.wait
        {
            self.decision.crash_loops.insert(spec.name.clone(), backoff.wait);
            self.decision.wake_at(finished + backoff.wait);
            return;
        }
        let attempt = known.max(last.config.attempt + 1);
        if self.start(&spec.name, attempt) {
            let wait = fresh.map_or(BACKOFF_MIN, |b| (b.wait * 2).min(BACKOFF_MAX));
            let backoff = Backoff { wait, updated: view.now, attempt };
            self.decision.backoff.insert(spec.name.clone(), backoff);
        }
    }

    /// Containers that were added to the Pod start once each, whatever the others do (SUB-4).
    fn added(&mut self, spec: &PodSpec) {
        for added in spec.ephemeral_containers.iter().flatten() {
            let (view, name) = (self.view, added.name.as_str());
            let target = added.target_container_name.as_deref().filter(|name| !name.is_empty());
            let ready = target.is_none_or(|target| view.newest(target).is_some_and(running));
            let had_its_turn =
                view.newest(name).is_some() || view.memory.attempts.contains_key(name);
            if had_its_turn || !ready {
                continue;
            }
            match view.memory.holds.get(name) {
                Some(None) => {}
                Some(Some(until)) if view.now < *until => self.decision.wake_at(*until),
                Some(Some(_)) | None => {
                    self.decision.steps.push(Step::Start { name: name.to_owned(), attempt: 0 });
                }
            }
        }
    }

    /// One at a time: the next one follows when this one has been started.
    fn start(&mut self, name: &str, attempt: u32) -> bool {
        let first = !self.blocked && self.decision.steps.is_empty();
        if first {
            self.decision.steps.push(Step::Start { name: name.to_owned(), attempt });
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{exited, id, pod, running, runtime};
    use serde_json::{Value, json};

    fn start(name: &str, attempt: u32) -> Step {
        Step::Start { name: name.to_owned(), attempt }
    }

    fn decide(spec: Value, runtime: Option<&RuntimePod>, memory: &Memory) -> Decision {
        let now = Instant::now();
        let since = |_: u64| Duration::ZERO;
        let pod = pod(spec);
        next_step(&View { pod: &pod, runtime, memory, deadline: None, now, since: &since })
    }

    type Instances<'a> = Vec<(&'a str, u32, ContainerState)>;

    fn three(policy: &str) -> Value {
        json!({
            "restartPolicy": policy,
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}, {"name": "j"}],
            "containers": [{"name": "a"}, {"name": "b"}],
        })
    }

    #[tokio::test(start_paused = true)]
    async fn containers_start_in_their_order() {
        // INI-1, SYN-1, §3.6
        let over = Step::End { verdict: None };
        let cases: Vec<(&str, &str, Instances<'_>, Vec<Step>)> = vec![
            ("the first init", "Always", vec![], vec![start("i", 0)]),
            ("it runs", "Always", vec![("i", 0, running())], vec![]),
            ("it failed", "Always", vec![("i", 0, exited(1))], vec![start("i", 1)]),
            ("it failed for good", "Never", vec![("i", 0, exited(1))], vec![Step::Finish]),
            ("the sidecar", "Always", vec![("i", 0, exited(0))], vec![start("s", 0)]),
            (
                "the init after it, while it runs",
                "Always",
                vec![("i", 0, exited(0)), ("s", 0, running())],
                vec![start("j", 0)],
            ),
            (
                "a sidecar that ended is started again, whatever the policy",
                "Never",
                vec![("i", 0, exited(0)), ("s", 0, exited(0)), ("j", 0, running())],
                vec![start("s", 1)],
            ),
            (
                "a failed init ends the sidecar, too",
                "Never",
                vec![("i", 0, exited(0)), ("s", 0, running()), ("j", 0, exited(2))],
                vec![over.clone()],
            ),
            (
                "the first main",
                "Always",
                vec![("i", 0, exited(0)), ("s", 0, running()), ("j", 0, exited(0))],
                vec![start("a", 0)],
            ),
            (
                "one after the other",
                "Always",
                vec![("s", 0, running()), ("a", 0, running())],
                vec![start("b", 0)],
            ),
            (
                "all run, and the inits' records are gone",
                "Always",
                vec![("s", 0, running()), ("a", 0, running()), ("b", 0, running())],
                vec![],
            ),
            (
                "a sidecar that crashes beside the mains",
                "Never",
                vec![("s", 4, exited(1)), ("a", 0, running()), ("b", 0, running())],
                vec![start("s", 5)],
            ),
            (
                "sidecars do not keep a finished Pod",
                "OnFailure",
                vec![("s", 0, running()), ("a", 0, exited(0)), ("b", 0, exited(0))],
                vec![over],
            ),
            (
                "nor does one that has just ended",
                "Never",
                vec![("s", 0, exited(1)), ("a", 0, exited(0)), ("b", 0, exited(1))],
                vec![Step::Finish],
            ),
            (
                "on failure, only what failed",
                "OnFailure",
                vec![("s", 0, running()), ("a", 0, exited(0)), ("b", 0, exited(1))],
                vec![start("b", 1)],
            ),
            (
                "always, whatever the exit code",
                "Always",
                vec![("s", 0, running()), ("a", 2, exited(0)), ("b", 0, running())],
                vec![start("a", 3)],
            ),
        ];
        for (name, policy, containers, want) in cases {
            let runtime = runtime(containers);
            let decision = decide(three(policy), Some(&runtime), &Memory::default());
            assert_eq!(decision.steps, want, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_added_container_starts_once_whatever_the_others_do() {
        // SUB-4, §3.6
        let added = |target: &str| {
            let mut spec = three("Always");
            spec["ephemeralContainers"] = json!([{"name": "e", "targetContainerName": target}]);
            spec
        };
        let mains = || vec![("s", 0, running()), ("a", 0, running()), ("b", 0, running())];
        let with = |state: ContainerState| [mains(), vec![("e", 0, state)]].concat();
        let cases: Vec<(&str, &str, Instances<'_>, Vec<Step>)> = vec![
            ("beside the inits", "", vec![("i", 0, running())], vec![start("e", 0)]),
            ("beside the mains", "", mains(), vec![start("e", 0)]),
            ("its target runs", "a", mains(), vec![start("e", 0)]),
            ("its target does not run yet", "a", vec![("i", 0, running())], vec![]),
            ("it runs", "", with(running()), vec![]),
            ("it has ended", "", with(exited(1)), vec![]),
        ];
        for (name, target, containers, want) in cases {
            let runtime = runtime(containers);
            let decision = decide(added(target), Some(&runtime), &Memory::default());
            assert_eq!(decision.steps, want, "{name}");
        }
        let mut memory = Memory::default();
        memory.holds.insert("e".to_owned(), None);
        let inits = runtime(vec![("i", 0, exited(0))]);
        let decision = decide(added(""), Some(&inits), &memory);
        assert_eq!(decision.steps, [start("s", 0)], "nobody waits for its image");
        memory.attempts.insert("e".to_owned(), 1);
        memory.holds.clear();
        let decision = decide(added(""), Some(&runtime(mains())), &memory);
        assert_eq!(decision.steps, [], "its record is gone with an earlier sandbox");
        let mut never = added("");
        never["restartPolicy"] = json!("Never");
        let over = runtime(vec![("a", 0, exited(0)), ("b", 0, exited(0)), ("e", 0, running())]);
        let decision = decide(never, Some(&over), &Memory::default());
        assert_eq!(decision.steps, [Step::End { verdict: None }], "it keeps no Pod alive");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_is_waited_for() {
        // SYN-1, LIF-1, BKO-2
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let none = runtime([]);
        let mut memory = Memory::default();
        memory.holds.insert("a".into(), None);
        assert_eq!(decide(spec.clone(), Some(&none), &memory).steps, [], "it is being pulled");
        let until = Instant::now() + Duration::from_secs(10);
        memory.holds.insert("a".into(), Some(until));
        let decision = decide(spec.clone(), Some(&none), &memory);
        assert_eq!(decision.steps, [start("b", 0)], "a failure does not stop the others");
        assert_eq!(decision.wake, Some(until));
        let mut memory = Memory { starting: Some(id("a", 0)), ..Memory::default() };
        let first = runtime([("a", 0, running())]);
        assert_eq!(decide(spec.clone(), Some(&first), &memory).steps, [], "its hook runs");
        memory.starting = None;
        assert_eq!(decide(spec, Some(&first), &memory).steps, [start("b", 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sandbox_that_died_is_made_again_unless_the_pod_is_over() {
        // §3.6, INI-2, NOD-26
        let spec = |policy| json!({"restartPolicy": policy, "containers": [{"name": "a"}]});
        let again = Step::Sandbox { attempt: 1 };
        let memory = Memory::default();
        for (policy, containers, want) in [
            ("Always", vec![("a", 0, exited(0))], again.clone()),
            ("Never", vec![("a", 0, exited(137))], Step::Finish),
            ("Never", vec![], again.clone()),
            ("OnFailure", vec![("a", 0, exited(0))], Step::Finish),
            ("OnFailure", vec![("a", 0, exited(137))], again),
        ] {
            let mut dead = runtime(containers);
            dead.sandbox.ready = false;
            let steps = decide(spec(policy), Some(&dead), &memory).steps;
            assert_eq!(steps, [want], "{policy} {:?}", dead.containers.len());
        }
        let steps = decide(spec("Always"), None, &memory).steps;
        assert_eq!(steps, [Step::Sandbox { attempt: 0 }]);
        // CST-3: the count goes on where the old sandbox was.
        let memory = Memory { attempts: [("a".to_owned(), 4)].into(), ..Memory::default() };
        let steps = decide(spec("Always"), Some(&runtime([])), &memory).steps;
        assert_eq!(steps, [start("a", 4)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_that_crashes_waits_longer_each_time() {
        // BKO-1, trap 34; under Always also with exit code 0
        for code in [0, 1] {
            let pod = pod(json!({"containers": [{"name": "a"}]}));
            let mut memory = Memory::default();
            let mut now = Instant::now();
            let mut waits = Vec::new();
            for attempt in 0..8 {
                let finished = now;
                let down = runtime([("a", attempt, exited(code))]);
                loop {
                    let since = now - finished;
                    let view = View {
                        pod: &pod,
                        runtime: Some(&down),
                        memory: &memory,
                        deadline: None,
                        now,
                        since: &|_| since,
                    };
                    let decision = next_step(&view);
                    if decision.steps.is_empty() {
                        let wait = memory.backoff["a"].wait;
                        assert_eq!(decision.crash_loops, [("a".to_owned(), wait)].into());
                        now = decision.wake.unwrap();
                        continue;
                    }
                    assert_eq!(decision.steps, [start("a", attempt + 1)]);
                    memory.backoff.extend(decision.backoff);
                    waits.push((now - finished).as_secs());
                    break;
                }
            }
            assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
            // One run of more than ten minutes, and all is forgiven.
            now += BACKOFF_RESET + Duration::from_secs(1);
            let down = runtime([("a", 8, exited(code))]);
            let since = |_: u64| Duration::ZERO;
            let view = View {
                pod: &pod,
                runtime: Some(&down),
                memory: &memory,
                deadline: None,
                now,
                since: &since,
            };
            assert_eq!(next_step(&view).backoff["a"].wait, BACKOFF_MIN);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_ended_for_good_is_finished_and_a_terminating_pod_is_never_restarted() {
        // DEL-33, DEL-34, S14
        let spec = |policy| json!({"restartPolicy": policy, "containers": [{"name": "a"}]});
        let down = runtime([("a", 0, exited(1))]);
        let mut memory = Memory::default();
        let mut decide = |policy, runtime: Option<&RuntimePod>, terminating: bool| {
            memory.termination = None;
            if terminating {
                Termination::update(&mut memory.termination, 30, Instant::now());
            }
            decide(spec(policy), runtime, &memory).steps
        };
        assert_eq!(decide("Never", Some(&down), false), [Step::Finish]);
        assert_eq!(decide("OnFailure", Some(&down), false), [start("a", 1)]);
        assert_eq!(decide("Always", Some(&down), true), [Step::Finish]);
        assert_eq!(decide("Always", None, true), [Step::Finish], "it never started");
        assert_eq!(decide("Always", Some(&runtime([])), true), [Step::Finish]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_ends_at_its_deadline_and_by_a_verdict() {
        // ADL-1, §6.7
        let pod = pod(json!({"containers": [{"name": "a"}]}));
        let up = runtime([("a", 0, running())]);
        let now = Instant::now();
        let memory = Memory::default();
        let since = |_: u64| Duration::ZERO;
        let at = |deadline| {
            next_step(&View {
                pod: &pod,
                runtime: Some(&up),
                memory: &memory,
                deadline: Some(deadline),
                now,
                since: &since,
            })
        };
        let later = at(now + Duration::from_secs(5));
        assert_eq!((later.steps, later.wake), (vec![], Some(now + Duration::from_secs(5))));
        let over = at(now).steps;
        assert_eq!(over, [Step::End { verdict: Some(Verdict::deadline_exceeded()) }]);
        let verdict = Verdict { reason: "OutOfcpu".into(), message: String::new(), rejected: true };
        let memory = Memory { verdict: Some(verdict), ..Memory::default() };
        let spec = json!({"containers": [{"name": "a"}]});
        assert_eq!(decide(spec, None, &memory).steps, [Step::End { verdict: None }]);
    }
}
