//! One Pod's worker: reads what is, asks [`next_step`] what to do, does it.

use crate::{
    agent::Shared,
    checkpoint::Checkpoint,
    config,
    ending::{Termination, stop_signal},
    hooks,
    outbox::Message,
    pull::Failure,
    runtime::{Container, ContainerId, Image, RuntimeError, RuntimePod},
    status::{self, Facts, Waiting},
    step::{Decision, Memory, Step, Verdict, View, newest, next_step},
    volumes::{Found, Need, Volumes},
};
use api::{
    core::{Container as Spec, Pod},
    meta,
    pod::has_ended,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// After an error that nobody else will report.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// A Pod as last told.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) pod: Pod,
    /// Not in the API any more.
    pub(crate) removed: bool,
}

/// Something that ran beside the worker has an answer.
pub(crate) enum Done {
    PreStop {
        id: ContainerId,
    },
    PostStart {
        id: ContainerId,
        name: String,
        result: Result<(), String>,
    },
    Looked {
        name: String,
        result: Result<Option<Image>, RuntimeError>,
    },
    Pulled {
        name: String,
        reference: String,
        result: Result<Image, RuntimeError>,
        took: Duration,
    },
    /// A container's volumes are there.
    Mounted {
        name: String,
    },
    /// What a container's variables are made of.
    Found {
        name: String,
        result: Result<BTreeMap<Need, Found>, String>,
    },
}

/// Of one Pod UID.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    told: watch::Receiver<Told>,
    wake: Arc<Notify>,
    pub(crate) memory: Memory,
    /// What of the memory is kept over a restart, as last written.
    checkpoint: Checkpoint,
    /// Why containers do not run, beside their back-off.
    pub(crate) waiting: Waiting,
    /// Containers in a back-off: how long it is.
    crash_loops: BTreeMap<String, Duration>,
    /// The status that the next one follows; as the API had it until one was sent.
    pub(crate) last: Value,
    /// `last` was sent by this worker.
    is_sent: bool,
    /// The final status was taken up.
    is_final: bool,
    /// Nothing runs, and nothing will; shared with who counts what the node has room for.
    ended: Arc<AtomicBool>,
    pub(crate) hooks: JoinSet<Done>,
    pub(crate) pulls: JoinSet<Done>,
    /// Images fetched for a start that is to come, by container.
    pub(crate) pulled: BTreeMap<String, Image>,
    /// By image.
    pub(crate) pull_failures: BTreeMap<String, Failure>,
    /// What is kept of objects for the Pod, if there is anything.
    volumes: Option<Volumes>,
    /// What was asked for the variables of a start that is to come, by container.
    pub(crate) found: BTreeMap<String, BTreeMap<Need, Found>>,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        told: watch::Receiver<Told>,
        wake: Arc<Notify>,
        ended: Arc<AtomicBool>,
        verdict: Option<Verdict>,
    ) -> Self {
        let is_final = has_ended(&told.borrow().pod);
        let status = told.borrow().pod.status.clone();
        let last = serde_json::to_value(status).unwrap_or_default();
        ended.fetch_or(is_final, Ordering::Relaxed);
        let attempts = status::next_attempts(&last);
        let mut memory = Memory { verdict, attempts, ..Memory::default() };
        let uid = told.borrow().pod.metadata.uid.clone().unwrap_or_default();
        let checkpoint = shared.checkpoints.found(&uid).unwrap_or_default();
        checkpoint.restore(&mut memory, Instant::now(), (shared.clock)());
        Self {
            shared,
            told,
            wake,
            memory,
            checkpoint,
            waiting: Waiting::new(),
            crash_loops: BTreeMap::new(),
            last,
            is_sent: false,
            is_final,
            ended,
            hooks: JoinSet::new(),
            pulls: JoinSet::new(),
            pulled: BTreeMap::new(),
            pull_failures: BTreeMap::new(),
            volumes: None,
            found: BTreeMap::new(),
        }
    }
}

/// Until nothing is left to do for this UID.
pub(crate) async fn run(mut worker: Worker) {
    if let Some(verdict) = worker.memory.verdict.clone() {
        let pod = worker.told.borrow().pod.clone();
        worker.shared.event(&pod, "Warning", &verdict.reason, &verdict.message, "");
    }
    loop {
        let told = worker.told.borrow_and_update().clone();
        worker.observe(&told);
        let uid = told.pod.metadata.uid.clone().unwrap_or_default();
        let runtime = match worker.shared.runtime.pod(&uid).await {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::warn!(%error, uid, "the runtime's records cannot be read");
                sleep(RETRY).await;
                continue;
            }
        };
        worker.keep(&uid);
        worker.keep_volumes();
        let decision = worker.decide(&told.pod, runtime.as_ref());
        worker.note_crash_loops(&told.pod, &decision);
        if decision.steps == [Step::Finish] {
            if worker.finish(&told, runtime.as_ref()).await {
                return;
            }
            worker.wait(None).await;
            continue;
        }
        worker.publish(&told, runtime.as_ref());
        if decision.steps.is_empty() {
            worker.wait(decision.wake).await;
            continue;
        }
        for step in decision.steps {
            let started = match &step {
                Step::Start { name, .. } => Some(name.clone()),
                Step::Sandbox { .. }
                | Step::PreStop { .. }
                | Step::Term { .. }
                | Step::Kill { .. }
                | Step::End { .. }
                | Step::Finish => None,
            };
            if let Err(error) = worker.carry_out(&told.pod, runtime.as_ref(), step).await {
                tracing::warn!(%error, uid, "a step failed");
                worker.wait(Some(Instant::now() + RETRY)).await;
            }
            // What is held back, for its image for one, is decided on again: it counts once.
            if let Some(name) = started.filter(|name| !worker.memory.holds.contains_key(name)) {
                let backoff = decision.backoff.get(&name).map(|backoff| (name, *backoff));
                worker.memory.backoff.extend(backoff);
            }
        }
    }
}

impl Worker {
    /// Takes note of a deletion, or of a Pod that is gone from the API (DEL-31).
    fn observe(&mut self, told: &Told) {
        let metadata = &told.pod.metadata;
        if told.removed {
            self.terminate(1);
        } else if metadata.deletion_timestamp.is_some() {
            self.terminate(metadata.deletion_grace_period_seconds.unwrap_or(1));
        }
    }

    /// From here on it only ends (DEL-34): what was about to start is given up.
    fn terminate(&mut self, grace_seconds: i64) {
        let first = self.memory.termination.is_none();
        Termination::update(&mut self.memory.termination, grace_seconds, Instant::now());
        if first {
            self.pulls.abort_all();
        }
    }

    /// A deletion goes on where it was when the agent starts again (DEL-32). Nothing waits for the
    /// disk: what is lost of it is done once more.
    fn keep(&mut self, uid: &str) {
        let checkpoint = Checkpoint::of(&self.memory, Instant::now(), (self.shared.clock)());
        if !checkpoint.is_same(&self.checkpoint) {
            self.shared.checkpoints.keep(uid, &checkpoint);
            self.checkpoint = checkpoint;
        }
    }

    /// From the beginning, so that what its containers read is there when they start.
    fn keep_volumes(&mut self) {
        let over = self.memory.termination.is_some() || self.ended.load(Ordering::Relaxed);
        if self.volumes.is_none() && !over && self.shared.runtime.reads_volumes() {
            self.volumes = Volumes::keep(Arc::clone(&self.shared), self.told.clone());
        }
    }

    /// Whether a container's volumes are there; if not, it waits for them.
    pub(crate) fn has_volumes(&mut self, name: &str) -> bool {
        let Some(volumes) = self.volumes.as_ref().filter(|volumes| !volumes.are_ready()) else {
            return true;
        };
        let (made, name) = (volumes.made(), name.to_owned());
        self.memory.holds.insert(name.clone(), None);
        self.pulls.spawn(async move {
            made.await;
            Done::Mounted { name }
        });
        false
    }

    fn decide(&self, pod: &Pod, runtime: Option<&RuntimePod>) -> Decision {
        let wall = (self.shared.clock)();
        let since = move |at: u64| Duration::from_micros(wall.saturating_sub(at));
        let (memory, now) = (&self.memory, Instant::now());
        let deadline = deadline(pod, &self.last, now, self.shared.now_seconds());
        next_step(&View { pod, runtime, memory, deadline, now, since: &since })
    }

    /// A back-off is told once, when it begins.
    fn note_crash_loops(&mut self, pod: &Pod, decision: &Decision) {
        for (name, wait) in &decision.crash_loops {
            if self.crash_loops.get(name) != Some(wait) {
                let message = format!(
                    "Back-off restarting failed container {name} in pod {}",
                    full_name(pod)
                );
                self.container_event(pod, name, "Warning", "BackOff", &message);
            }
        }
        self.crash_loops.clone_from(&decision.crash_loops);
    }

    /// An event about a container (EVT-2).
    pub(crate) fn container_event(
        &self,
        pod: &Pod,
        name: &str,
        kind: &str,
        reason: &str,
        message: &str,
    ) {
        let inits = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        let added = pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
        let list = if inits.into_iter().any(|init| init.name == name) {
            "initContainers"
        } else if added.into_iter().any(|added| added.name == name) {
            "ephemeralContainers"
        } else {
            "containers"
        };
        self.shared.event(pod, kind, reason, message, &format!("spec.{list}{{{name}}}"));
    }

    async fn wait(&mut self, wake: Option<Instant>) {
        let at = wake.unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
        let done = tokio::select! {
            changed = self.told.changed() => {
                if changed.is_err() {
                    // The agent is stopping; the Pod goes on.
                    std::future::pending::<()>().await;
                }
                return;
            }
            () = self.wake.notified() => return,
            () = sleep_until(at) => return,
            Some(done) = self.hooks.join_next(), if !self.hooks.is_empty() => done,
            Some(done) = self.pulls.join_next(), if !self.pulls.is_empty() => done,
        };
        // One that was given up has nothing to say.
        if let Ok(done) = done {
            let pod = self.told.borrow().pod.clone();
            self.done(&pod, done).await;
        }
    }

    async fn done(&mut self, pod: &Pod, done: Done) {
        match done {
            Done::PreStop { id } => {
                self.memory.hooks.insert(id, Some(Instant::now()));
            }
            Done::PostStart { id, name, result } => {
                self.post_start_done(pod, id, &name, result).await
            }
            Done::Looked { name, result } => self.look_done(pod, &name, result),
            Done::Mounted { name } => {
                self.memory.holds.remove(&name);
            }
            Done::Found { name, result } => self.found_done(pod, &name, result),
            Done::Pulled { name, reference, result, took } => {
                self.pull_done(pod, &name, &reference, result, took);
            }
        }
    }

    fn status(&self, pod: &Pod, runtime: Option<&RuntimePod>) -> Value {
        let mut waiting = self.waiting.clone();
        for (name, wait) in &self.crash_loops {
            let message = format!(
                "back-off {} restarting failed container={name} pod={}",
                go_duration(*wait),
                full_name(pod)
            );
            waiting.insert(name.clone(), ("CrashLoopBackOff".to_owned(), message));
        }
        status::status(&Facts {
            pod,
            runtime,
            waiting: &waiting,
            attempts: &self.memory.attempts,
            starting: self.memory.starting.as_ref(),
            host_ip: &self.shared.host_ip,
            ended: self.ended.load(Ordering::Relaxed),
            verdict: self.memory.verdict.as_ref(),
            previous: &self.last,
            now: self.shared.now_seconds(),
        })
    }

    /// Sends the status if it has changed. Never a terminal phase: that is [`Worker::finish`]'s.
    fn publish(&mut self, told: &Told, runtime: Option<&RuntimePod>) {
        if told.removed || self.ended.load(Ordering::Relaxed) {
            return;
        }
        let status = self.status(&told.pod, runtime);
        self.shared.statuses.keep(&told.pod, &status);
        if !self.is_sent || status != self.last {
            self.last = status.clone();
            self.is_sent = true;
            self.shared.outbox.send(Message::status(&told.pod, &status));
        }
    }

    async fn carry_out(
        &mut self,
        pod: &Pod,
        runtime: Option<&RuntimePod>,
        step: Step,
    ) -> Result<(), RuntimeError> {
        match step {
            Step::Sandbox { attempt } => self.sandbox(pod, runtime, attempt).await,
            Step::Start { name, attempt } => self.start(pod, runtime, &name, attempt).await,
            Step::PreStop { id, name } => {
                self.killing(pod, &name);
                self.memory.hooks.insert(id.clone(), None);
                self.start_pre_stop(pod, runtime, id, &name);
                Ok(())
            }
            Step::Term { id, name } => {
                if !self.memory.hooks.contains_key(&id) {
                    self.killing(pod, &name);
                }
                let now = Instant::now();
                if self.memory.termination.is_some_and(|ending| ending.is_extended(now)) {
                    let message = format!(
                        "Container {name} had less than 2s of its grace left when it was asked to \
                         end: it has 2s"
                    );
                    self.container_event(pod, &name, "Normal", "GraceExtended", &message);
                }
                self.memory.asked.insert(id.clone(), now);
                let running = newest(runtime, &name).filter(|container| container.id == id);
                let signal = running.map_or(libc::SIGTERM, stop_signal);
                self.tolerant(pod, self.shared.runtime.signal(&id, signal).await)
            }
            Step::Kill { id } => {
                self.memory.killed.insert(id.clone(), Instant::now());
                let killed = self.tolerant(pod, self.shared.runtime.kill(&id).await);
                if killed.is_err() {
                    // It is tried again.
                    self.memory.killed.remove(&id);
                }
                killed
            }
            Step::End { verdict } => {
                if let Some(verdict) = verdict {
                    self.shared.event(pod, "Normal", &verdict.reason, &verdict.message, "");
                    self.memory.verdict = Some(verdict);
                }
                let grace = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
                self.terminate(grace.unwrap_or(30));
                Ok(())
            }
            Step::Finish => Ok(()),
        }
    }

    /// What is gone already needs no ending (DEL-25).
    fn tolerant(&self, pod: &Pod, done: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
        match done {
            Ok(()) | Err(RuntimeError::NotFound { .. }) => Ok(()),
            Err(error) => {
                let message = format!("error killing pod: {error}");
                self.shared.event(pod, "Warning", "FailedKillPod", &message, "");
                Err(error)
            }
        }
    }

    fn killing(&self, pod: &Pod, name: &str) {
        let message = format!("Stopping container {name}");
        self.container_event(pod, name, "Normal", "Killing", &message);
    }

    async fn sandbox(
        &mut self,
        pod: &Pod,
        old: Option<&RuntimePod>,
        attempt: u32,
    ) -> Result<(), RuntimeError> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if let Some(old) = old {
            // INI-2: nothing of the old one is left, except how often its containers have started.
            for container in &old.containers {
                let next = container.config.attempt + 1;
                let known = self.memory.attempts.entry(container.config.name.clone()).or_default();
                *known = next.max(*known);
            }
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.shared.event(pod, "Normal", "SandboxChanged", message, "");
            self.shared.runtime.remove_pod(uid).await?;
        }
        let dirs = self.shared.dirs(pod);
        for volume in config::empty_dirs(pod) {
            let dir = dirs.volume(&volume);
            self.shared.disk.make_volume(&dir).map_err(|source| RuntimeError::Io {
                step: format!("make volume {volume}"),
                source,
            })?;
        }
        let made = self.shared.runtime.run_sandbox(config::sandbox(pod, attempt)).await;
        if let Err(error) = &made {
            let message = format!("Failed to create pod sandbox: {error}");
            self.shared.event(pod, "Warning", "FailedCreatePodSandBox", &message, "");
        }
        made.map(drop)
    }

    fn start_pre_stop(
        &mut self,
        pod: &Pod,
        runtime: Option<&RuntimePod>,
        id: ContainerId,
        name: &str,
    ) {
        let Some(container) = spec_of(pod, name) else { return };
        let hook = container.lifecycle.clone().and_then(|lifecycle| lifecycle.pre_stop);
        let ip = pod_ip(pod, runtime, &self.shared.host_ip);
        let (shared, pod) = (Arc::clone(&self.shared), pod.clone());
        let field = format!("spec.containers{{{name}}}");
        self.hooks.spawn(async move {
            if let Some(hook) = hook
                && let Err(error) =
                    hooks::run(shared.runtime.as_ref(), &id, &container, &hook, &ip).await
            {
                tracing::info!(error, container = id.0, "preStop hook failed");
                shared.event(&pod, "Warning", "FailedPreStopHook", "PreStopHook failed", &field);
            }
            Done::PreStop { id }
        });
    }

    /// Reports the end and takes everything down; true when this UID is done with.
    async fn finish(&mut self, told: &Told, runtime: Option<&RuntimePod>) -> bool {
        let (shared, pod) = (Arc::clone(&self.shared), &told.pod);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        // Before anybody can learn of it: whoever knows that there is room again finds it.
        self.ended.store(true, Ordering::Relaxed);
        if let Some(mut volumes) = self.volumes.take() {
            volumes.stop().await;
        }
        if !told.removed && !self.is_final {
            let status = self.status(pod, runtime);
            shared.statuses.keep(pod, &status);
            self.last = status.clone();
            self.is_sent = true;
            // Final deletion needs a terminal phase that the API shows (DEL-30).
            match shared.outbox.acknowledged(Message::status(pod, &status)).await {
                Ok(_) => self.is_final = true,
                Err(error) => tracing::debug!(%error, uid, "final status refused"),
            }
        }
        let deleting = told.removed || pod.metadata.deletion_timestamp.is_some();
        if !deleting {
            // Kept as it is, for its logs, until somebody deletes it.
            return false;
        }
        if let Err(error) = shared.runtime.remove_pod(&uid).await {
            tracing::warn!(%error, uid, "Pod not taken down");
            sleep(RETRY).await;
            return false;
        }
        shared.disk.remove(&shared.dirs(pod).data);
        if !told.removed {
            let deleted = shared.outbox.acknowledged(Message::delete(pod)).await;
            if let Err(error) = deleted {
                tracing::debug!(%error, uid, "final delete refused");
            }
        }
        shared.disk.remove(&shared.dirs(pod).logs);
        shared.checkpoints.forget(&uid);
        shared.statuses.forget(&uid);
        true
    }
}

/// ADL-1: counted from `status.startTime`.
fn deadline(pod: &Pod, status: &Value, now: Instant, wall_seconds: i64) -> Option<Instant> {
    let active = pod.spec.as_ref()?.active_deadline_seconds?;
    let started = meta::parse_time(status.get("startTime")?.as_str()?)?;
    let left = (started + active).saturating_sub(wall_seconds);
    Some(now + Duration::from_secs(u64::try_from(left).unwrap_or_default()))
}

/// A container's spec, wherever it stands.
pub(crate) fn spec_of(pod: &Pod, name: &str) -> Option<Spec> {
    let spec = pod.spec.as_ref()?;
    let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
    all.find(|c| c.name == name).cloned().or_else(|| {
        let added = spec.ephemeral_containers.iter().flatten().find(|c| c.name == name)?;
        Some(status::added(added))
    })
}

/// The Pod's address; the node's under `hostNetwork`.
pub(crate) fn pod_ip(pod: &Pod, runtime: Option<&RuntimePod>, host_ip: &str) -> String {
    match runtime.and_then(|runtime| runtime.sandbox.ip) {
        Some(ip) => ip.to_string(),
        None if pod.spec.as_ref().is_some_and(|s| s.host_network == Some(true)) => {
            host_ip.to_owned()
        }
        None => String::new(),
    }
}

/// As in the texts about back-offs.
fn full_name(pod: &Pod) -> String {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let metadata = &pod.metadata;
    format!("{}_{}({})", of(&metadata.name), of(&metadata.namespace), of(&metadata.uid))
}

/// As Go prints a duration: `10s`, `1m20s`, `1.25s`, `7ms`.
pub(crate) fn go_duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_millis());
    }
    let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs() % 60);
    let fraction = match duration.subsec_millis() {
        0 => String::new(),
        millis => format!(".{millis:03}").trim_end_matches('0').to_owned(),
    };
    if minutes > 0 {
        format!("{minutes}m{seconds}{fraction}s")
    } else {
        format!("{seconds}{fraction}s")
    }
}

/// The newest instance of a container of a Pod, for logs and exec.
pub(crate) fn instance<'a>(pod: &'a RuntimePod, name: &str) -> Option<&'a Container> {
    newest(Some(pod), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_counts_from_the_start_and_is_over_when_it_is() {
        // ADL-1
        let pod = crate::testing::pod(serde_json::json!({
            "containers": [{"name": "a"}], "activeDeadlineSeconds": 5,
        }));
        let now = Instant::now();
        let status = serde_json::json!({"startTime": meta::time(100)});
        for (wall, left) in [(100, 5), (104, 1), (105, 0), (900, 0)] {
            let want = Some(now + Duration::from_secs(left));
            assert_eq!(deadline(&pod, &status, now, wall), want, "{wall}");
        }
        assert_eq!(deadline(&pod, &Value::Null, now, 100), None, "not begun");
    }

    #[test]
    fn durations_are_printed_as_in_go() {
        // §3.2, §3.7: texts that users search for
        for (millis, want) in [
            (7, "7ms"),
            (1000, "1s"),
            (1250, "1.25s"),
            (10_000, "10s"),
            (80_000, "1m20s"),
            (300_000, "5m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), want);
        }
    }
}
