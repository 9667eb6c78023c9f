//! One Pod's worker: reads what is, asks [`next_step`] what to do, does it.

use crate::{
    agent::{Shared, pod_status},
    config,
    runtime::{
        Container, ContainerId, ExecConfig, PodRef, Resources, RuntimeError, RuntimePod,
        SandboxConfig,
    },
    status::{self, Waiting},
    step::{Decision, Memory, Step, Termination, View, newest, next_step},
};
use api::core::Pod;
use client::node::ToControlPlane;
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

/// After an error that nobody else will report.
const RETRY: Duration = Duration::from_secs(1);

/// A Pod as last told.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) pod: Pod,
    /// Not in the API any more.
    pub(crate) removed: bool,
}

/// Of one Pod UID.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    told: watch::Receiver<Told>,
    wake: Arc<Notify>,
    memory: Memory,
    waiting: Waiting,
    last: Value,
    hooks: JoinSet<ContainerId>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, told: watch::Receiver<Told>, wake: Arc<Notify>) -> Self {
        Self {
            shared,
            told,
            wake,
            memory: Memory::default(),
            waiting: Waiting::new(),
            last: Value::Null,
            hooks: JoinSet::new(),
        }
    }
}

/// Until nothing is left to do for this UID.
pub(crate) async fn run(mut worker: Worker) {
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
        worker.publish(&told.pod, runtime.as_ref()).await;
        let decision = worker.decide(&told.pod, runtime.as_ref());
        if decision.steps.is_empty() {
            worker.wait(decision.wake).await;
            continue;
        }
        worker.memory.backoff.extend(decision.backoff);
        for step in decision.steps {
            if step == Step::Finish {
                if worker.finish(&told, runtime.as_ref()).await {
                    return;
                }
                worker.wait(None).await;
                continue;
            }
            if let Err(error) = worker.carry_out(&told.pod, runtime.as_ref(), step).await {
                tracing::warn!(%error, uid, "a step failed");
                worker.wait(Some(Instant::now() + RETRY)).await;
            }
        }
    }
}

impl Worker {
    /// Takes note of a deletion, or of a Pod that is gone from the API (DEL-31).
    fn observe(&mut self, told: &Told) {
        let metadata = &told.pod.metadata;
        if told.removed {
            Termination::update(&mut self.memory.termination, 1, Instant::now());
        } else if metadata.deletion_timestamp.is_some() {
            let grace = metadata.deletion_grace_period_seconds.unwrap_or(1);
            Termination::update(&mut self.memory.termination, grace, Instant::now());
        }
    }

    fn decide(&self, pod: &Pod, runtime: Option<&RuntimePod>) -> Decision {
        let wall = (self.shared.clock)();
        let since = move |at: u64| Duration::from_micros(wall.saturating_sub(at));
        let (memory, now) = (&self.memory, Instant::now());
        next_step(&View { pod, runtime, memory, now, since: &since })
    }

    async fn wait(&mut self, wake: Option<Instant>) {
        let at = wake.unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
        tokio::select! {
            changed = self.told.changed() => if changed.is_err() {
                // The agent is stopping; the Pod goes on.
                std::future::pending::<()>().await;
            },
            () = self.wake.notified() => {}
            () = sleep_until(at) => {}
            done = self.hooks.join_next(), if !self.hooks.is_empty() => {
                if let Some(Ok(id)) = done {
                    self.memory.hooks.insert(id, Some(Instant::now()));
                }
            }
        }
    }

    /// Sends the status if it has changed. Never a terminal phase: that is [`Worker::finish`]'s.
    async fn publish(&mut self, pod: &Pod, runtime: Option<&RuntimePod>) {
        let (host, now) = (&self.shared.host_ip, self.shared.now_seconds());
        let status = status::status(pod, runtime, &self.waiting, host, false, now);
        if without_times(&status) != without_times(&self.last) {
            self.last = status.clone();
            self.shared.send_status(pod, status).await;
        }
    }

    async fn carry_out(
        &mut self,
        pod: &Pod,
        runtime: Option<&RuntimePod>,
        step: Step,
    ) -> Result<(), RuntimeError> {
        match step {
            Step::Sandbox => self.sandbox(pod).await,
            Step::Start { name, attempt } => self.start(pod, runtime, &name, attempt).await,
            Step::PreStop { id, name } => {
                self.killing(pod, &name);
                self.memory.hooks.insert(id.clone(), None);
                self.start_hook(pod, runtime, id, &name);
                Ok(())
            }
            Step::Term { id, name } => {
                if !self.memory.hooks.contains_key(&id) {
                    self.killing(pod, &name);
                }
                self.memory.asked.insert(id.clone(), Instant::now());
                self.shared.runtime.signal(&id, libc::SIGTERM).await
            }
            Step::Kill { id } => {
                self.memory.killed.insert(id.clone(), Instant::now());
                self.shared.runtime.kill(&id).await
            }
            Step::Finish => Ok(()),
        }
    }

    fn killing(&self, pod: &Pod, name: &str) {
        let message = format!("Stopping container {name}");
        let field = format!("spec.containers{{{name}}}");
        self.shared.event(pod, "Normal", "Killing", &message, &field);
    }

    async fn sandbox(&self, pod: &Pod) -> Result<(), RuntimeError> {
        let dirs = self.shared.dirs(pod);
        for volume in config::empty_dirs(pod) {
            let dir = dirs.volume(&volume);
            let step = || format!("make volume {volume}");
            std::fs::create_dir_all(&dir)
                .map_err(|source| RuntimeError::Io { step: step(), source })?;
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            std::fs::set_permissions(&dir, open)
                .map_err(|source| RuntimeError::Io { step: step(), source })?;
        }
        let spec = pod.spec.clone().unwrap_or_default();
        let name = pod.metadata.name.clone().unwrap_or_default();
        let config = SandboxConfig {
            pod: PodRef {
                namespace: pod.metadata.namespace.clone().unwrap_or_default(),
                name: name.clone(),
                uid: pod.metadata.uid.clone().unwrap_or_default(),
            },
            attempt: 0,
            // NET-1
            hostname: spec.hostname.unwrap_or(name).chars().take(63).collect(),
            host_network: spec.host_network.unwrap_or_default(),
            resources: Resources::default(),
            annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        };
        let made = self.shared.runtime.run_sandbox(config).await;
        if let Err(error) = &made {
            let message = format!("Failed to create pod sandbox: {error}");
            self.shared.event(pod, "Warning", "FailedCreatePodSandBox", &message, "");
        }
        made.map(drop)
    }

    async fn start(
        &mut self,
        pod: &Pod,
        runtime: Option<&RuntimePod>,
        name: &str,
        attempt: u32,
    ) -> Result<(), RuntimeError> {
        let spec = pod
            .spec
            .iter()
            .flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
        let Some(container) = spec.into_iter().find(|c| c.name == name).cloned() else {
            return Ok(());
        };
        let shared = Arc::clone(&self.shared);
        let field = format!("spec.containers{{{name}}}");
        let event = |kind, reason, message: &str| shared.event(pod, kind, reason, message, &field);
        let reference = container.image.clone().unwrap_or_default();
        let image = match shared.runtime.pull_image(&reference).await {
            Ok(image) => image,
            Err(error) => {
                event(
                    "Warning",
                    "Failed",
                    &format!("Failed to pull image \"{reference}\": {error}"),
                );
                self.waiting
                    .insert(name.to_owned(), ("ErrImagePull".to_owned(), error.to_string()));
                self.publish(pod, runtime).await;
                return Err(error);
            }
        };
        let ip = runtime.and_then(|r| r.sandbox.ip).map(|ip| ip.to_string()).unwrap_or_default();
        let dirs = shared.dirs(pod);
        let host = &shared.host_ip;
        let config = match config::container(pod, &container, attempt, &image, &dirs, &ip, host) {
            Ok(config) => config,
            Err(error) => {
                let reason = "CreateContainerConfigError".to_owned();
                self.waiting.insert(name.to_owned(), (reason, error.to_string()));
                self.publish(pod, runtime).await;
                return Err(RuntimeError::Start { detail: error.to_string() });
            }
        };
        self.waiting.remove(name);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        match shared.runtime.start_container(uid, config).await {
            Ok(_) => {
                if attempt == 0 {
                    let present =
                        format!("Container image \"{reference}\" already present on machine");
                    event("Normal", "Pulled", &present);
                }
                event("Normal", "Created", "Container created");
                event("Normal", "Started", "Container started");
                Ok(())
            }
            Err(RuntimeError::Start { detail }) => {
                // It is there as exited with 128; the restart policy decides.
                event("Warning", "Failed", &format!("Error: {detail}"));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn start_hook(&mut self, pod: &Pod, runtime: Option<&RuntimePod>, id: ContainerId, name: &str) {
        let spec = pod.spec.iter().flat_map(|s| &s.containers).find(|c| c.name == name);
        let hook = spec.and_then(|c| c.lifecycle.clone()).and_then(|l| l.pre_stop);
        let ip = runtime.and_then(|r| r.sandbox.ip).map(|ip| ip.to_string()).unwrap_or_default();
        let (shared, pod) = (Arc::clone(&self.shared), pod.clone());
        let field = format!("spec.containers{{{name}}}");
        self.hooks.spawn(async move {
            let Some(hook) = hook else { return id };
            let done = if let Some(exec) = hook.exec {
                exec_hook(&shared, &id, exec.command.unwrap_or_default()).await
            } else if let Some(pause) = hook.sleep {
                sleep(Duration::from_secs(u64::try_from(pause.seconds).unwrap_or_default())).await;
                Ok(())
            } else if let Some(get) = hook.http_get {
                let port = match get.port {
                    api::core::IntOrString::Int(port) => port.to_string(),
                    api::core::IntOrString::String(port) => port,
                };
                let host = get.host.filter(|h| !h.is_empty()).unwrap_or(ip);
                http_hook(&format!("{host}:{port}"), get.path.as_deref().unwrap_or("/")).await
            } else {
                Ok(())
            };
            if let Err(error) = done {
                tracing::debug!(error, "preStop hook");
                shared.event(&pod, "Warning", "FailedPreStopHook", "PreStopHook failed", &field);
            }
            id
        });
    }

    /// Reports the end and takes everything down; true when this UID is done with.
    async fn finish(&mut self, told: &Told, runtime: Option<&RuntimePod>) -> bool {
        let (shared, pod) = (Arc::clone(&self.shared), &told.pod);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if !told.removed {
            let now = shared.now_seconds();
            let status = status::status(pod, runtime, &self.waiting, &shared.host_ip, true, now);
            if without_times(&status) != without_times(&self.last) {
                self.last = status.clone();
                // Final deletion needs a terminal phase that the API shows (DEL-30).
                if let Err(error) = shared.acknowledged(pod_status(pod, status)).await {
                    tracing::debug!(%error, uid, "final status refused");
                }
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
        let _ = std::fs::remove_dir_all(&shared.dirs(pod).data);
        if !told.removed {
            let metadata = pod.metadata.clone();
            let deleted = shared
                .acknowledged(|sequence| ToControlPlane::PodDelete {
                    sequence,
                    namespace: metadata.namespace.unwrap_or_default(),
                    name: metadata.name.unwrap_or_default(),
                    uid: metadata.uid.unwrap_or_default(),
                })
                .await;
            if let Err(error) = deleted {
                tracing::debug!(%error, uid, "final delete refused");
            }
        }
        let _ = std::fs::remove_dir_all(&shared.dirs(pod).logs);
        true
    }
}

fn without_times(status: &Value) -> Value {
    let mut status = status.clone();
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        if let Some(fields) = condition.as_object_mut() {
            fields.remove("lastTransitionTime");
        }
    }
    status
}

async fn exec_hook(shared: &Shared, id: &ContainerId, argv: Vec<String>) -> Result<(), String> {
    let config = ExecConfig { argv, stdin: false, tty: false };
    let mut session = shared.runtime.exec(id, config).await.map_err(|e| e.to_string())?;
    let mut output = Vec::new();
    let _ = session.stdout.read_to_end(&mut output).await;
    match session.exit.await {
        Ok(0) => Ok(()),
        Ok(code) => Err(format!("exit code {code}")),
        Err(_) => Err("the hook was abandoned".to_owned()),
    }
}

async fn http_hook(authority: &str, path: &str) -> Result<(), String> {
    let get = async {
        let mut stream = TcpStream::connect(authority).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(Duration::from_secs(30), get).await.map_err(|e| e.to_string())?;
    let answer = answer.map_err(|e| e.to_string())?;
    let code = answer.split_whitespace().nth(1).unwrap_or_default();
    if code.starts_with('2') || code.starts_with('3') {
        Ok(())
    } else {
        Err(format!("HTTP {code}"))
    }
}

/// The newest instance of a container of a Pod, for logs and exec.
pub(crate) fn instance<'a>(pod: &'a RuntimePod, name: &str) -> Option<&'a Container> {
    newest(Some(pod), name)
}
