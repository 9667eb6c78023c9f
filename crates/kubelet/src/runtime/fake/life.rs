//! How containers that are not there end: by their scripts, by force, with their machine; and what goes on
//! when the agent does not.

use super::{End, FakeRuntime, State};
use crate::runtime::{Container, ContainerId, ContainerState, PodRef, RuntimeEvent, UnixMicros};
use std::{
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

/// What a container was seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// It began to run.
    Started,
    /// It was sent a signal.
    Asked,
    /// It has ended.
    Stopped,
}

/// Is told of every container's life as it happens. It must not call the runtime.
pub type Observer = Arc<dyn Fn(&PodRef, &Container, Fact) + Send + Sync>;

pub(super) fn runs(container: &Container) -> bool {
    matches!(container.state, ContainerState::Running { .. })
}

/// As the native runtime says of what nobody saw end (CST-2).
fn lost(started_at: UnixMicros, now: UnixMicros) -> ContainerState {
    ContainerState::Exited {
        started_at,
        finished_at: now,
        exit_code: 137,
        signal: None,
        oom_killed: false,
        message: "The container could not be located when the pod was terminated".to_owned(),
    }
}

impl State {
    /// Tells the observer of a container that there is.
    pub(super) fn observe(&self, id: &ContainerId, fact: Fact) {
        let Some(observer) = &self.observer else { return };
        for pod in self.pods.values() {
            if let Some(found) = pod.containers.iter().find(|i| i.container.id == *id) {
                observer(&pod.sandbox.config.pod, &found.container, fact);
            }
        }
    }
}

impl FakeRuntime {
    /// From now on, `observer` is told of the life of every container.
    pub fn observe(&self, observer: Observer) {
        self.state().observer = Some(observer);
    }

    /// What was still to happen goes on in the tokio runtime that this is called in, that of the agent's
    /// next life. What came due meanwhile has happened when it was due.
    pub fn resume(&self) {
        *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) = JoinSet::new();
        let now = (self.clock)();
        let state = self.state();
        let instances = state.pods.values().flat_map(|pod| &pod.containers);
        let mut due: Vec<(UnixMicros, End, ContainerId, CancellationToken)> = instances
            .filter(|instance| runs(&instance.container))
            .flat_map(|instance| {
                let of = (&instance.container.id, &instance.ended);
                instance.due.iter().map(move |(at, end)| (*at, *end, of.0.clone(), of.1.clone()))
            })
            .collect();
        drop(state);
        due.sort_by_key(|(at, ..)| *at);
        for (at, end, id, ended) in due {
            match at.checked_sub(now) {
                None | Some(0) => self.end(&id, &ended, end, at),
                Some(left) => self.end_after(&id, end, Duration::from_micros(left), ended),
            }
        }
    }

    /// The machine loses its power, at this time. Nothing runs any more; what was kept of it is found as the
    /// native runtime finds it, or, where the power went before it was `kept`, not at all.
    pub fn power_cut(&self, now: UnixMicros, kept: impl Fn(&PodRef) -> bool) {
        *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) = JoinSet::new();
        let mut state = self.state();
        let observer = state.observer.clone();
        for pod in state.pods.values_mut() {
            pod.sandbox.ready = false;
            for instance in &mut pod.containers {
                instance.ended.cancel();
                instance.due.clear();
                if let ContainerState::Running { started_at } = instance.container.state {
                    if let Some(observer) = &observer {
                        observer(&pod.sandbox.config.pod, &instance.container, Fact::Stopped);
                    }
                    instance.container.state = lost(started_at, now);
                }
            }
        }
        state.pods.retain(|_, pod| kept(&pod.sandbox.config.pod));
    }

    /// Ends an instance after a while, unless it has ended by then.
    pub(super) fn end_later(
        &self,
        id: &ContainerId,
        end: End,
        after: Duration,
        ended: CancellationToken,
    ) {
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        let at = (self.clock)().saturating_add(micros);
        if let Some(instance) = self.state().find(id) {
            instance.due.push((at, end));
        }
        self.end_after(id, end, after, ended);
    }

    fn end_after(&self, id: &ContainerId, end: End, after: Duration, ended: CancellationToken) {
        let (this, id) = (Weak::clone(&self.this), id.clone());
        self.spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = sleep(after) => if let Some(this) = this.upgrade() {
                    this.end(&id, &ended, end, (this.clock)());
                },
            }
        });
    }

    pub(super) fn end(
        &self,
        id: &ContainerId,
        ended: &CancellationToken,
        end: End,
        finished_at: UnixMicros,
    ) {
        let mut state = self.state();
        // Cancelled under the lock: nothing ends twice, or after it was removed.
        if ended.is_cancelled() {
            return;
        }
        let Some(instance) = state.find(id) else { return };
        let ContainerState::Running { started_at } = instance.container.state else { return };
        let (exit_code, signal) = match end {
            End::Code(code) => (code, None),
            End::Signal(signal) => (128 + signal, Some(signal)),
            End::OutOfMemory => (137, Some(9)),
        };
        instance.container.state = ContainerState::Exited {
            started_at,
            finished_at,
            exit_code,
            signal,
            oom_killed: end == End::OutOfMemory,
            message: String::new(),
        };
        instance.ended.cancel();
        let pod_uid = instance.container.pod_uid.clone();
        state.observe(id, Fact::Stopped);
        drop(state);
        let _ = self.events.send(RuntimeEvent { pod_uid });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config,
        runtime::{Image, Runtime as _, fake::script::ContainerScript},
        testing::pod,
    };
    use serde_json::json;
    use std::{collections::BTreeMap, path::PathBuf, sync::Mutex};
    use tokio::{
        runtime::{Builder, Runtime},
        time::Instant,
    };

    /// A process with a clock that stands still until it is waited for.
    fn process() -> Runtime {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    /// A container that ends by itself after ten seconds, in a runtime whose clock the test moves.
    async fn started(runtime: &FakeRuntime) -> ContainerId {
        let pod = pod(json!({"containers": [{"name": "a", "image": "i", "command": ["c"]}]}));
        runtime.set_script("a", ContainerScript::parse("exit=3@10s").unwrap());
        runtime.run_sandbox(config::sandbox(&pod, 0)).await.unwrap();
        let image: Image = runtime.pull_image("i").await.unwrap();
        let dirs = config::PodDirs { data: PathBuf::new(), logs: PathBuf::new() };
        let spec = &pod.spec.as_ref().unwrap().containers[0];
        let found = BTreeMap::new();
        let around =
            config::Around { dirs: &dirs, pod_ip: "", host_ip: "", api: None, found: &found };
        let config = config::container(&pod, spec, 0, &image, &around).unwrap();
        let uid = pod.metadata.uid.clone().unwrap();
        runtime.start_container(&uid, config).await.unwrap().id
    }

    fn state(runtime: &FakeRuntime, id: &ContainerId) -> ContainerState {
        runtime.state().find(id).unwrap().container.state.clone()
    }

    struct Machine {
        runtime: Arc<FakeRuntime>,
        /// Seconds when the process that runs now has begun, and when that was to its own clock.
        wall: Arc<Mutex<(u64, Option<Instant>)>>,
        seen: Arc<Mutex<Vec<Fact>>>,
    }

    impl Machine {
        fn new() -> Self {
            let wall = Arc::new(Mutex::new((1, None)));
            let reading = Arc::clone(&wall);
            let runtime = FakeRuntime::new(Arc::new(move || {
                let (seconds, begun): (u64, Option<Instant>) = *reading.lock().unwrap();
                let since = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
                seconds * 1_000_000 + u64::try_from(since.as_micros()).unwrap()
            }));
            let seen: Arc<Mutex<Vec<Fact>>> = Arc::default();
            let told = Arc::clone(&seen);
            runtime.observe(Arc::new(move |_, _, fact| told.lock().unwrap().push(fact)));
            Self { runtime, wall, seen }
        }

        /// A process that begins at this second, and does `work`.
        fn live<T>(&self, from: u64, work: impl AsyncFnOnce() -> T) -> T {
            let done = process().block_on(async {
                *self.wall.lock().unwrap() = (from, Some(Instant::now()));
                work().await
            });
            self.wall.lock().unwrap().1 = None;
            done
        }
    }

    #[test]
    fn what_runs_outlives_its_agent() {
        // NOD-25: (second at which the next agent begins, seconds that it then waits, when it has ended)
        for (back, waits, ends_at) in [(5, 5, None), (5, 7, Some(11)), (60, 0, Some(11))] {
            let machine = Machine::new();
            let Machine { runtime, seen, .. } = &machine;
            let id = machine.live(1, async || started(runtime).await);
            machine.live(back, async || {
                runtime.resume();
                sleep(Duration::from_secs(waits)).await;
            });
            let ended = match state(runtime, &id) {
                ContainerState::Running { .. } => None,
                ContainerState::Exited { finished_at, exit_code, .. } => {
                    assert_eq!(exit_code, 3);
                    Some(finished_at / 1_000_000)
                }
            };
            assert_eq!(ended, ends_at, "back at {back} s, for {waits} s");
            let seen = seen.lock().unwrap().clone();
            let want = [Fact::Started, Fact::Stopped];
            assert_eq!(seen, want[..1 + usize::from(ends_at.is_some())]);
        }
    }

    #[test]
    fn nothing_runs_after_a_power_cut() {
        // CST-2, INI-2
        for kept in [true, false] {
            let machine = Machine::new();
            let Machine { runtime, seen, .. } = &machine;
            let id = machine.live(1, async || started(runtime).await);
            machine.live(3, async || {
                runtime.power_cut(3_000_000, |_| kept);
                runtime.resume();
                sleep(Duration::from_secs(60)).await;
                let pods = runtime.pods().await.unwrap();
                assert_eq!(pods.len(), usize::from(kept));
                for found in pods {
                    assert!(!found.sandbox.ready);
                    assert_eq!(state(runtime, &id), lost(1_000_000, 3_000_000));
                }
            });
            assert_eq!(*seen.lock().unwrap(), [Fact::Started, Fact::Stopped]);
        }
    }
}
