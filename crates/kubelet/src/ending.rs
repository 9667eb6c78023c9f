//! How the containers of a Pod are ended: hooks, TERM and KILL, and when (§4.2).

use crate::{
    runtime::Container,
    step::{Decision, Step, View},
};
use api::{core::PodSpec, resources::is_sidecar};
use std::time::Duration;
use tokio::time::Instant;

/// Least time between TERM and KILL (DEL-20).
const FLOOR: Duration = Duration::from_secs(2);
/// A container that lives on after KILL gets another one.
const KILL_AGAIN: Duration = Duration::from_secs(5);

/// A Pod's end, counted from the kubelet's own observation (DEL-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Termination {
    /// First seen.
    pub since: Instant,
    /// The grace that it began with; at least a second (DEL-3).
    pub grace: Duration,
    /// The shortest grace that was asked for since.
    pub shortest: Duration,
    /// By a shortened grace, everything is over by then (DEL-35).
    pub cap: Option<Instant>,
}

impl Termination {
    /// Takes up a grace as it is now asked for; it can only become shorter (DEL-36). Tells whether
    /// anything is different now.
    pub fn update(this: &mut Option<Self>, grace_seconds: i64, now: Instant) -> bool {
        let asked = Duration::from_secs(u64::try_from(grace_seconds.max(1)).unwrap_or(1));
        match this {
            None => {
                *this = Some(Self { since: now, grace: asked, shortest: asked, cap: None });
                true
            }
            Some(termination) if asked < termination.shortest => {
                termination.shortest = asked;
                let end = now + asked.max(FLOOR);
                termination.cap = Some(termination.cap.map_or(end, |cap| cap.min(end)));
                true
            }
            Some(_) => false,
        }
    }

    /// Hooks and sidecars have waited long enough.
    fn waiting_ends(&self) -> Instant {
        let end = self.since + self.grace;
        let capped = self.cap.and_then(|cap| cap.checked_sub(FLOOR));
        capped.map_or(end, |capped| capped.min(end))
    }

    /// Whether hooks and sidecars left a container that is asked to end now less than the floor, so that
    /// it is given more than the grace (DEL-20, S36).
    pub(crate) fn is_extended(&self, asked: Instant) -> bool {
        let spent = Duration::from_secs(asked.saturating_duration_since(self.since).as_secs());
        !spent.is_zero() && self.cap.is_none() && self.grace.saturating_sub(spent) < FLOOR
    }

    /// When a container that was asked to end then is killed (DEL-20).
    fn kill_at(&self, asked: Instant) -> Instant {
        let spent = Duration::from_secs(asked.saturating_duration_since(self.since).as_secs());
        let end = asked + self.grace.saturating_sub(spent).max(FLOOR);
        self.cap.map_or(end, |cap| cap.min(end))
    }
}

/// Every container beside the others, except sidecars (DEL-24).
pub(crate) fn terminate(
    view: &View<'_>,
    termination: &Termination,
    spec: &PodSpec,
    decision: &mut Decision,
) {
    let mut none = true;
    for container in view.alive() {
        none = false;
        end(view, termination, spec, container, decision);
    }
    if none {
        decision.steps.push(Step::Finish);
    }
}

fn end(
    view: &View<'_>,
    termination: &Termination,
    spec: &PodSpec,
    container: &Container,
    decision: &mut Decision,
) {
    let (id, name) = (&container.id, &container.config.name);
    let waiting_ends = termination.waiting_ends();
    let Some(asked) = view.memory.asked.get(id).copied() else {
        let hook_ended = match (has_pre_stop(spec, name), view.memory.hooks.get(id)) {
            (false, _) => termination.since,
            (true, None) if view.now < waiting_ends => {
                decision.steps.push(Step::PreStop { id: id.clone(), name: name.clone() });
                decision.wake_at(waiting_ends);
                return;
            }
            // It is not waited for any longer than this (DEL-21).
            (true, None | Some(None)) => waiting_ends,
            (true, Some(Some(ended))) => (*ended).min(waiting_ends),
        };
        let term_at = if is_its_turn(view, spec, name) { hook_ended } else { waiting_ends };
        if view.now >= term_at {
            decision.steps.push(Step::Term { id: id.clone(), name: name.clone() });
        } else {
            decision.wake_at(term_at);
        }
        return;
    };
    let kill_at = match view.memory.killed.get(id) {
        Some(killed) => *killed + KILL_AGAIN,
        None => termination.kill_at(asked),
    };
    if view.now < kill_at {
        decision.wake_at(kill_at);
    } else {
        decision.steps.push(Step::Kill { id: id.clone() });
        decision.wake_at(view.now + KILL_AGAIN);
    }
}

fn has_pre_stop(spec: &PodSpec, name: &str) -> bool {
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let hook = all.filter(|c| c.name == name).find_map(|c| c.lifecycle.as_ref()?.pre_stop.as_ref());
    hook.is_some()
}

/// A sidecar waits for all that are none, and for the sidecars after it in the spec (DEL-24).
fn is_its_turn(view: &View<'_>, spec: &PodSpec, name: &str) -> bool {
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    let place = |name: &str| inits.iter().position(|c| c.name == name && is_sidecar(c));
    let Some(own) = place(name) else { return true };
    !view.alive().any(|other| place(&other.config.name).is_none_or(|place| place > own))
}

/// Where a container's stop signal is kept while it runs.
pub(crate) const STOP_SIGNAL: &str = "stop-signal";

/// A signal by name, such as `SIGUSR1` or `SIGRTMIN+3`, or by number.
#[must_use]
pub(crate) fn signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let full = if text.starts_with("SIG") { text.to_owned() } else { format!("SIG{text}") };
    if let Some(rest) = full.strip_prefix("SIGRTMIN") {
        let offset: i32 = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse().ok()? };
        return Some(libc::SIGRTMIN() + offset);
    }
    if let Some(rest) = full.strip_prefix("SIGRTMAX") {
        let offset: i32 = if rest.is_empty() { 0 } else { rest.strip_prefix('-')?.parse().ok()? };
        return Some(libc::SIGRTMAX() - offset);
    }
    full.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

/// The signal that asks a running container to end (DEL-22).
#[must_use]
pub(crate) fn stop_signal(container: &Container) -> i32 {
    let kept = container.config.annotations.get(STOP_SIGNAL);
    kept.and_then(|text| signal(text)).unwrap_or(libc::SIGTERM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        runtime::{ContainerId, ContainerState, RuntimePod},
        step::{Memory, next_step},
        testing::{container, exited, id, pod, running, runtime},
    };
    use api::core::Pod;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    /// A Pod that is being ended, in a time of its own.
    struct Script {
        pod: Pod,
        runtime: RuntimePod,
        memory: Memory,
        start: Instant,
        now: Instant,
        /// How long a container's hook takes, in seconds.
        hooks: BTreeMap<&'static str, f64>,
        /// A container that ends this long after its TERM; the others ignore it.
        polite: BTreeMap<&'static str, f64>,
        /// Later deletions: when, and within what grace.
        again: Vec<(f64, i64)>,
        /// What was done, and when.
        done: Vec<(String, f64)>,
    }

    impl Script {
        fn new(spec: Value, grace: i64) -> Self {
            let start = Instant::now();
            let pod = pod(spec);
            let spec = pod.spec.clone().unwrap();
            let all = spec.init_containers.iter().flatten().chain(&spec.containers);
            let runtime = runtime(all.map(|c| (c.name.as_str(), 0, running())));
            let mut memory = Memory::default();
            Termination::update(&mut memory.termination, grace, start);
            let (hooks, polite) = (BTreeMap::new(), BTreeMap::new());
            let (again, done) = (vec![], vec![]);
            Self { pod, runtime, memory, start, now: start, hooks, polite, again, done }
        }

        fn ends(&mut self, id: &ContainerId) {
            let ended = self.runtime.containers.iter_mut().find(|c| c.id == *id);
            ended.unwrap().state = exited(137);
        }

        /// Runs until nothing is alive.
        fn run(mut self) -> Vec<(String, f64)> {
            let mut ends: Vec<(Instant, ContainerId)> = Vec::new();
            for _ in 0..200 {
                let view = View {
                    pod: &self.pod,
                    runtime: Some(&self.runtime),
                    memory: &self.memory,
                    deadline: None,
                    now: self.now,
                    since: &|_| Duration::ZERO,
                };
                let decision = next_step(&view);
                let at = (((self.now - self.start).as_secs_f64()) * 1000.0).round() / 1000.0;
                for step in decision.steps.clone() {
                    match step.clone() {
                        Step::PreStop { id, name } => {
                            self.done.push((format!("hook {name}"), at));
                            self.memory.hooks.insert(id, None);
                        }
                        Step::Term { id, name } => {
                            self.done.push((format!("TERM {name}"), at));
                            self.memory.asked.insert(id.clone(), self.now);
                            if let Some(takes) = self.polite.get(name.as_str()) {
                                ends.push((self.now + seconds(*takes), id));
                            }
                        }
                        Step::Kill { id: killed } => {
                            let name = killed.0.trim_end_matches("-0").to_owned();
                            self.done.push((format!("KILL {name}"), at));
                            self.memory.killed.insert(killed.clone(), self.now);
                            self.ends(&killed);
                        }
                        Step::Finish => return self.done,
                        Step::Sandbox { .. } | Step::Start { .. } | Step::End { .. } => {
                            panic!("{step:?}")
                        }
                    }
                }
                if !decision.steps.is_empty() {
                    continue;
                }
                // What comes next: a deadline, a hook's or a container's end, another deletion.
                let mut next = decision.wake.expect("it is waited for something");
                for (name, takes) in &self.hooks {
                    let end = self.start + seconds(*takes);
                    if self.memory.hooks.get(&id(name, 0)) == Some(&None) && end > self.now {
                        next = next.min(end);
                    }
                }
                next = ends.iter().map(|(at, _)| *at).fold(next, Instant::min);
                let again = self.again.first().map(|(at, _)| self.start + seconds(*at));
                next = again.map_or(next, |at| next.min(at));
                self.now = next;
                for (name, takes) in &self.hooks {
                    let (hook, end) = (id(name, 0), self.start + seconds(*takes));
                    if self.memory.hooks.get(&hook) == Some(&None) && end <= self.now {
                        self.memory.hooks.insert(hook, Some(end));
                    }
                }
                for (_, id) in ends.extract_if(.., |(at, _)| *at <= next).collect::<Vec<_>>() {
                    self.ends(&id);
                }
                if again == Some(self.now) {
                    let (_, grace) = self.again.remove(0);
                    Termination::update(&mut self.memory.termination, grace, self.now);
                }
            }
            panic!("it never ends: {:?}", self.done);
        }
    }

    fn one(hook: bool) -> Value {
        let hook =
            if hook { json!({"preStop": {"exec": {"command": ["x"]}}}) } else { Value::Null };
        json!({"containers": [{"name": "a", "lifecycle": hook}]})
    }

    fn done(list: &[(&str, f64)]) -> Vec<(String, f64)> {
        list.iter().map(|(what, at)| ((*what).to_owned(), *at)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn term_and_kill_come_when_they_must() {
        // §4.2, DEL-20, DEL-21: A5, A6, S36
        for (grace, hook, term, kill) in [
            (30, None, 0.0, 30.0),
            (30, Some(10.0), 10.0, 30.0),
            (30, Some(29.4), 29.4, 31.4),
            (30, Some(45.0), 30.0, 32.0),
            (1, Some(45.0), 1.0, 3.0),
            (1, None, 0.0, 2.0),
            (0, None, 0.0, 2.0),
        ] {
            let mut script = Script::new(one(hook.is_some()), grace);
            script.hooks.extend(hook.map(|hook| ("a", hook)));
            let mut want = done(&[("TERM a", term), ("KILL a", kill)]);
            if hook.is_some() {
                want.insert(0, ("hook a".to_owned(), 0.0));
            }
            assert_eq!(script.run(), want, "{grace} {hook:?}");
        }
    }

    fn with_sidecars() -> Value {
        let sidecar = |name: &str| json!({"name": name, "restartPolicy": "Always"});
        json!({"initContainers": [sidecar("s"), sidecar("t")], "containers": [{"name": "a"}]})
    }

    #[tokio::test(start_paused = true)]
    async fn sidecars_end_last_and_in_reverse_order() {
        // DEL-24, A8, trap 10
        let one = json!({
            "initContainers": [{"name": "s", "restartPolicy": "Always"}],
            "containers": [{"name": "a"}],
        });
        let vector = [("TERM a", 0.0), ("KILL a", 10.0), ("TERM s", 10.0), ("KILL s", 12.0)];
        let mut found = Script::new(one, 10).run();
        found.sort_by_key(|(what, _)| vector.iter().position(|(w, _)| w == what));
        assert_eq!(found, done(&vector), "the main ignores TERM");

        let mut script = Script::new(with_sidecars(), 10);
        script.polite = [("a", 3.5), ("t", 1.0), ("s", 0.5)].into();
        let want = done(&[("TERM a", 0.0), ("TERM t", 3.5), ("TERM s", 4.5)]);
        assert_eq!(script.run(), want, "each waits for those after it");

        let mut script = Script::new(with_sidecars(), 10);
        script.polite = [("a", 3.5)].into();
        let mut found = script.run();
        found.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        let want = done(&[
            ("TERM a", 0.0),
            ("TERM t", 3.5),
            ("TERM s", 10.0),
            ("KILL t", 10.5),
            ("KILL s", 12.0),
        ]);
        assert_eq!(found, want, "grace over: everybody");
    }

    #[tokio::test(start_paused = true)]
    async fn the_hook_of_a_sidecar_runs_before_its_turn() {
        // DEL-24, trap 10
        let mut spec = with_sidecars();
        spec["initContainers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": ["x"]}}});
        let mut script = Script::new(spec, 10);
        script.hooks = [("s", 1.0)].into();
        script.polite = [("a", 2.0), ("t", 0.0), ("s", 0.0)].into();
        let want = done(&[("hook s", 0.0), ("TERM a", 0.0), ("TERM t", 2.0), ("TERM s", 2.0)]);
        assert_eq!(script.run(), want);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_grace_counts_at_once_and_a_longer_one_never() {
        // DEL-35, DEL-36, A7: KILL at min(old, now + max(new, 2))
        for (hook, again, term, kill) in [
            (None, vec![(2.0, 10)], 0.0, 12.0),
            (None, vec![(10.0, 5)], 0.0, 15.0),
            (None, vec![(10.0, 1)], 0.0, 12.0),
            (None, vec![(10.0, 60)], 0.0, 30.0),
            (None, vec![(10.0, 30)], 0.0, 30.0),
            (None, vec![(27.0, 10)], 0.0, 30.0),
            (None, vec![(10.0, 5), (11.0, 20)], 0.0, 15.0),
            (None, vec![(10.0, 5), (11.0, 1)], 0.0, 13.0),
            (Some(45.0), vec![(5.0, 10)], 13.0, 15.0),
            (Some(45.0), vec![(5.0, 1)], 5.0, 7.0),
        ] {
            let mut script = Script::new(one(hook.is_some()), 30);
            script.hooks.extend(hook.map(|hook| ("a", hook)));
            script.again.clone_from(&again);
            let found = script.run();
            let want = done(&[("TERM a", term), ("KILL a", kill)]);
            assert_eq!(found[found.len() - 2..], want, "{hook:?} {again:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hook_is_not_begun_when_its_time_is_over() {
        // DEL-20: "if preStop and grace > 0"
        let mut script = Script::new(one(true), 5);
        script.now += seconds(6.0);
        assert_eq!(script.run(), done(&[("TERM a", 6.0), ("KILL a", 8.0)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_that_survives_kill_gets_another() {
        // DEL-25
        let up = runtime([("a", 0, running())]);
        let pod = pod(one(false));
        let start = Instant::now();
        let mut memory = Memory::default();
        Termination::update(&mut memory.termination, 1, start);
        memory.asked.insert(id("a", 0), start);
        memory.killed.insert(id("a", 0), start + FLOOR);
        for (at, want) in [(6.9, 0), (7.0, 1)] {
            let view = View {
                pod: &pod,
                runtime: Some(&up),
                memory: &memory,
                deadline: None,
                now: start + seconds(at),
                since: &|_| Duration::ZERO,
            };
            assert_eq!(next_step(&view).steps.len(), want, "{at}");
        }
    }

    #[test]
    fn the_stop_signal_is_the_one_that_was_kept() {
        // DEL-22
        for (text, want) in [
            ("SIGTERM", Some(15)),
            ("TERM", Some(15)),
            ("SIGUSR1", Some(10)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(libc::SIGRTMIN() + 3)),
            ("SIGRTMAX-1", Some(libc::SIGRTMAX() - 1)),
            ("SIGNONE", None),
        ] {
            assert_eq!(signal(text), want, "{text}");
        }
        let mut running = container("a", 0, ContainerState::Running { started_at: 0 });
        assert_eq!(stop_signal(&running), libc::SIGTERM);
        running.config.annotations.insert(STOP_SIGNAL.to_owned(), "3".to_owned());
        assert_eq!(stop_signal(&running), libc::SIGQUIT);
    }
}
