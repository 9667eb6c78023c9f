//! Containers that are only said to run: what happens to them is a [`script`].
//!
//! There is no process behind it; every wait is tokio's, so that a test may pause time. It keeps what
//! it was told for as long as it is kept itself: an agent that is started again over the same runtime
//! finds its Pods. Where that agent lives in another tokio runtime, as after a crash in a simulation,
//! [`FakeRuntime::resume`] takes up what was still to happen.

mod life;
pub mod script;

pub use life::{Fact, Observer};

use super::{
    Connection, Container, ContainerConfig, ContainerId, ContainerState, ExecConfig, ExecSession,
    Image, Runtime, RuntimeError, RuntimeEvent, RuntimePod, Sandbox, SandboxConfig, UnixMicros,
    addresses::Range,
};
use crate::agent::Clock;
use async_trait::async_trait;
use script::{CONTAINER_PREFIX, ContainerScript, End, IMAGE_PREFIX, ImageScript, OnTerm};
use sha2::{Digest as _, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::{broadcast, mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

/// Events that a slow receiver may miss before it lists everything.
const EVENTS: usize = 64;
/// Bytes that wait between a program that is not there and who talks with it.
const PIPE: usize = 4096;
/// Nobody listens there; on every other port somebody repeats what comes in.
const REFUSED_PORT: u16 = 1;

/// Runs nothing.
pub struct FakeRuntime {
    clock: Clock,
    state: Mutex<State>,
    /// What is still to happen.
    tasks: Mutex<JoinSet<()>>,
    events: broadcast::Sender<RuntimeEvent>,
    /// Itself, for what is still to happen.
    this: Weak<Self>,
}

#[derive(Default)]
struct State {
    range: Option<Range>,
    pods: BTreeMap<String, FakePod>,
    /// Of containers whose Pod says nothing about them.
    scripts: BTreeMap<String, ContainerScript>,
    images: BTreeMap<String, ImageScript>,
    pulled: BTreeSet<String>,
    /// `None` when nobody wants to know.
    journal: Option<Vec<Entry>>,
    /// As if containers could read them.
    volumes: bool,
    observer: Option<Observer>,
}

struct FakePod {
    sandbox: Sandbox,
    containers: Vec<Instance>,
}

struct Instance {
    container: Container,
    script: ContainerScript,
    ended: CancellationToken,
    /// How it will end, and when, if nothing else comes before.
    due: Vec<(UnixMicros, End)>,
    /// What it says, to all who are attached.
    said: broadcast::Sender<Vec<u8>>,
}

/// Something that the runtime was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Instant,
    /// To which container, by name.
    pub container: String,
    /// What.
    pub what: Asked,
}

/// What a container was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// To start, as this instance.
    Start(u32),
    /// A signal.
    Signal(i32),
    /// To end at once.
    Kill,
    /// To run a program.
    Exec,
}

impl std::fmt::Debug for FakeRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeRuntime").finish_non_exhaustive()
    }
}

impl FakeRuntime {
    /// Without any Pod. Times in records are read from `clock`.
    #[must_use]
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            clock,
            state: Mutex::default(),
            tasks: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
            this: Weak::clone(this),
        })
    }

    /// From now on, what it is asked is written down.
    pub fn keep_journal(&self) {
        self.state().journal.get_or_insert_default();
    }

    /// From now on, Pods wait for their volumes as if somebody could read them.
    pub fn read_volumes(&self) {
        self.state().volumes = true;
    }

    /// What it was asked, in order.
    #[must_use]
    pub fn journal(&self) -> Vec<Entry> {
        self.state().journal.clone().unwrap_or_default()
    }

    /// The script of every container of this name that its Pod's annotations say nothing about.
    pub fn set_script(&self, container: &str, script: ContainerScript) {
        self.state().scripts.insert(container.to_owned(), script);
    }

    /// An image's script.
    pub fn set_image(&self, reference: &str, script: ImageScript) {
        self.state().images.insert(reference.to_owned(), script);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

impl State {
    fn find(&mut self, id: &ContainerId) -> Option<&mut Instance> {
        let all = self.pods.values_mut().flat_map(|pod| &mut pod.containers);
        all.into_iter().find(|instance| instance.container.id == *id)
    }

    fn found(&mut self, id: &ContainerId) -> Result<&mut Instance, RuntimeError> {
        self.find(id).ok_or_else(|| RuntimeError::NotFound { what: format!("container {}", id.0) })
    }

    fn note(&mut self, container: &str, what: Asked) {
        if let Some(journal) = &mut self.journal {
            let container = container.to_owned();
            journal.push(Entry { at: Instant::now(), container, what });
        }
    }

    /// The container's own annotation, or what is set for its name.
    fn script(&self, pod: &FakePod, container: &str) -> Result<ContainerScript, RuntimeError> {
        let key = format!("{CONTAINER_PREFIX}{container}");
        match pod.sandbox.config.annotations.get(&key) {
            Some(text) => ContainerScript::parse(text)
                .map_err(|error| RuntimeError::Start { detail: error.to_string() }),
            None => Ok(self.scripts.get(container).cloned().unwrap_or_default()),
        }
    }

    /// Takes up what a Pod's annotations say of images.
    fn learn_images(&mut self, annotations: &BTreeMap<String, String>) -> Result<(), RuntimeError> {
        for (_, text) in annotations.iter().filter(|(key, _)| key.starts_with(IMAGE_PREFIX)) {
            let (image, script) = ImageScript::parse(text)
                .map_err(|error| RuntimeError::Start { detail: error.to_string() })?;
            self.images.insert(image, script);
        }
        Ok(())
    }

    fn address(&self) -> Result<Option<IpAddr>, RuntimeError> {
        let Some(range) = self.range else { return Ok(None) };
        let taken: BTreeSet<Ipv4Addr> = self
            .pods
            .values()
            .filter_map(|pod| match pod.sandbox.ip {
                Some(IpAddr::V4(ip)) => Some(ip),
                Some(IpAddr::V6(_)) | None => None,
            })
            .collect();
        range.free(&taken).map(|ip| Some(IpAddr::V4(ip)))
    }
}

fn check_reference(reference: &str) -> Result<(), RuntimeError> {
    if reference.is_empty() || reference.contains(|c: char| c.is_whitespace()) {
        return Err(RuntimeError::InvalidImageName {
            image: reference.to_owned(),
            detail: "invalid reference format".to_owned(),
        });
    }
    Ok(())
}

fn image(reference: &str) -> Image {
    let digest: String =
        Sha256::digest(reference).iter().map(|byte| format!("{byte:02x}")).collect();
    Image {
        id: format!("fake.trireme.local/image@sha256:{digest}"),
        size_bytes: 0,
        entrypoint: vec!["/fake".to_owned()],
        cmd: Vec::new(),
        env: Vec::new(),
        working_dir: String::new(),
        user: String::new(),
        stop_signal: None,
    }
}

fn show(pod: &FakePod) -> RuntimePod {
    let containers = pod.containers.iter().map(|instance| instance.container.clone()).collect();
    RuntimePod { sandbox: pod.sandbox.clone(), containers }
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn version(&self) -> String {
        concat!("fake://", env!("CARGO_PKG_VERSION")).to_owned()
    }

    fn reads_volumes(&self) -> bool {
        self.state().volumes
    }

    async fn pods(&self) -> Result<Vec<RuntimePod>, RuntimeError> {
        Ok(self.state().pods.values().map(show).collect())
    }

    async fn pod(&self, uid: &str) -> Result<Option<RuntimePod>, RuntimeError> {
        Ok(self.state().pods.get(uid).map(show))
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        check_reference(reference)?;
        Ok(self.state().pulled.contains(reference).then(|| image(reference)))
    }

    async fn pull_image(&self, reference: &str) -> Result<Image, RuntimeError> {
        check_reference(reference)?;
        let script = self.state().images.get(reference).cloned().unwrap_or_default();
        if !script.pull.is_zero() {
            sleep(script.pull).await;
        }
        if let Some(detail) = script.error {
            return Err(RuntimeError::ImagePull { detail });
        }
        self.state().pulled.insert(reference.to_owned());
        Ok(image(reference))
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Sandbox, RuntimeError> {
        let created_at = (self.clock)();
        let mut state = self.state();
        if let Some(pod) = state.pods.get(&config.pod.uid) {
            return Ok(pod.sandbox.clone());
        }
        state.learn_images(&config.annotations)?;
        let ip = if config.host_network { None } else { state.address()? };
        let uid = config.pod.uid.clone();
        let sandbox = Sandbox { config, ip, created_at, ready: true };
        let pod = FakePod { sandbox: sandbox.clone(), containers: Vec::new() };
        state.pods.insert(uid, pod);
        Ok(sandbox)
    }

    async fn start_container(
        &self,
        pod_uid: &str,
        config: ContainerConfig,
    ) -> Result<Container, RuntimeError> {
        let id = ContainerId(format!("{pod_uid}-{}-{}", config.name, config.attempt));
        let missing = || RuntimeError::NotFound { what: format!("sandbox of Pod {pod_uid}") };
        let script = {
            let mut state = self.state();
            state.note(&config.name, Asked::Start(config.attempt));
            let pod = state.pods.get(pod_uid).ok_or_else(missing)?;
            state.script(pod, &config.name)
        };
        let takes = script.as_ref().map_or(Duration::ZERO, |script| script.start);
        if !takes.is_zero() {
            sleep(takes).await;
        }
        let now = (self.clock)();
        let mut state = self.state();
        let pod = state.pods.get_mut(pod_uid).ok_or_else(missing)?;
        let known = pod.containers.iter().find(|instance| instance.container.id == id);
        if let Some(known) = known {
            return started(&known.container);
        }
        let failure = match &script {
            Ok(script) if script.start_fails => Some("the script says that it fails".to_owned()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        let script = script.unwrap_or_default();
        let container = Container {
            id: id.clone(),
            pod_uid: pod_uid.to_owned(),
            state: match failure {
                None => ContainerState::Running { started_at: now },
                Some(message) => ContainerState::Exited {
                    started_at: now,
                    finished_at: now,
                    exit_code: 128,
                    signal: None,
                    oom_killed: false,
                    message,
                },
            },
            config,
        };
        let ended = CancellationToken::new();
        let applies = script.times.is_none_or(|times| container.config.attempt < times);
        let end = script.end.filter(|_| applies);
        let answer = started(&container);
        let said = broadcast::Sender::new(EVENTS);
        let due = Vec::new();
        pod.containers.push(Instance { container, script, ended: ended.clone(), due, said });
        if answer.is_ok() {
            state.observe(&id, Fact::Started);
        }
        drop(state);
        if let (Ok(_), Some((end, after))) = (&answer, end) {
            self.end_later(&id, end, after, ended);
        }
        answer
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError> {
        let mut state = self.state();
        let instance = state.found(id)?;
        let name = instance.container.config.name.clone();
        let (term, ended) = (instance.script.term, instance.ended.clone());
        state.note(&name, Asked::Signal(signal));
        state.observe(id, Fact::Asked);
        drop(state);
        match (signal, term) {
            (libc::SIGKILL, _) => self.end(id, &ended, End::Signal(signal), (self.clock)()),
            (libc::SIGTERM, OnTerm::Exit { code, after }) if after.is_zero() => {
                self.end(id, &ended, End::Code(code), (self.clock)());
            }
            (libc::SIGTERM, OnTerm::Exit { code, after }) => {
                self.end_later(id, End::Code(code), after, ended);
            }
            // The first process of a container ignores what it has no handler for.
            _ => {}
        }
        Ok(())
    }

    async fn kill(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let mut state = self.state();
        let instance = state.found(id)?;
        let (name, ended) = (instance.container.config.name.clone(), instance.ended.clone());
        state.note(&name, Asked::Kill);
        drop(state);
        self.end(id, &ended, End::Signal(libc::SIGKILL), (self.clock)());
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let mut state = self.state();
        if matches!(state.found(id)?.container.state, ContainerState::Running { .. }) {
            return Err(RuntimeError::Io {
                step: format!("remove container {}", id.0),
                source: io::Error::other("it still runs"),
            });
        }
        for pod in state.pods.values_mut() {
            pod.containers.retain(|instance| instance.container.id != *id);
        }
        Ok(())
    }

    async fn remove_pod(&self, uid: &str) -> Result<(), RuntimeError> {
        let mut state = self.state();
        let instances = state.pods.get(uid).into_iter().flat_map(|pod| &pod.containers);
        let running: Vec<ContainerId> = instances
            .filter(|instance| life::runs(&instance.container))
            .map(|instance| instance.container.id.clone())
            .collect();
        for id in running {
            state.observe(&id, Fact::Stopped);
        }
        for instance in state.pods.remove(uid).into_iter().flat_map(|pod| pod.containers) {
            instance.ended.cancel();
        }
        Ok(())
    }

    async fn exec(
        &self,
        id: &ContainerId,
        config: ExecConfig,
    ) -> Result<ExecSession, RuntimeError> {
        let mut state = self.state();
        let instance = state.found(id)?;
        if !matches!(instance.container.state, ContainerState::Running { .. }) {
            return Err(RuntimeError::NotFound { what: format!("running container {}", id.0) });
        }
        let program = config.argv.first().map_or("", String::as_str);
        let (script, ended) = (instance.script.exec(program), instance.ended.clone());
        let name = instance.container.config.name.clone();
        state.note(&name, Asked::Exec);
        drop(state);
        let (stdout, mut out) = duplex(PIPE);
        let (stdin, mut input) = pipe_if(config.stdin);
        let (mut exited, exit) = oneshot::channel();
        let (resize, mut sizes) = mpsc::channel::<(u16, u16)>(4);
        self.spawn(async move {
            let run = async {
                // What comes in goes out; a terminal also says its size.
                let mut piece = vec![0; PIPE];
                while let Some(from) = &mut input {
                    let text = tokio::select! {
                        read = from.read(&mut piece) => {
                            piece.get(..read.unwrap_or(0)).unwrap_or_default().to_vec()
                        }
                        Some((columns, rows)) = sizes.recv() => {
                            format!("{columns}x{rows}\n").into_bytes()
                        }
                    };
                    if text.is_empty() {
                        break;
                    }
                    if out.write_all(&text).await.is_err() {
                        break;
                    }
                }
                if !script.after.is_zero() {
                    sleep(script.after).await;
                }
                script.code
            };
            let code = tokio::select! {
                code = run => code,
                () = ended.cancelled() => 128 + libc::SIGKILL,
                () = exited.closed() => return,
            };
            let _ = out.shutdown().await;
            let _ = exited.send(code);
        });
        let stderr = (!config.tty)
            .then(|| Box::new(tokio::io::empty()) as Box<dyn AsyncRead + Send + Unpin>);
        let stdin = stdin.map(|stdin| Box::new(stdin) as _);
        Ok(ExecSession { stdin, stdout: Box::new(stdout), stderr, resize, exit })
    }

    async fn attach(&self, id: &ContainerId, stdin: bool) -> Result<ExecSession, RuntimeError> {
        let mut state = self.state();
        let instance = state.found(id)?;
        if !matches!(instance.container.state, ContainerState::Running { .. }) {
            return Err(RuntimeError::NotFound { what: format!("running container {}", id.0) });
        }
        let config = &instance.container.config;
        let (tty, once) = (config.tty, config.stdin_once && config.stdin);
        let reads = config.stdin;
        let (said, mut hears) = (instance.said.clone(), instance.said.subscribe());
        let ended = instance.ended.clone();
        drop(state);
        let (stdout, mut out) = duplex(PIPE);
        let (input, mut from) = pipe_if(stdin);
        let (mut exited, exit) = oneshot::channel();
        let (this, id) = (Weak::clone(&self.this), id.clone());
        self.spawn(async move {
            let talk = async {
                let mut piece = vec![0; PIPE];
                while let Some(input) = &mut from {
                    let read = input.read(&mut piece).await.unwrap_or(0);
                    if read == 0 {
                        break;
                    }
                    if reads {
                        let _ = said.send(piece.get(..read).unwrap_or_default().to_vec());
                    }
                }
                if let (true, true, Some(this)) = (once, from.is_some(), this.upgrade()) {
                    this.end(&id, &ended, End::Code(0), (this.clock)());
                }
                std::future::pending::<()>().await;
            };
            let hear = async {
                while let Ok(text) = hears.recv().await {
                    let _ = out.write_all(&text).await;
                }
            };
            tokio::select! {
                () = talk => {}
                () = hear => {}
                () = exited.closed() => {
                    // Who lets go of all of it at once has also ended the input.
                    if let (true, true, Some(this)) = (once, stdin, this.upgrade()) {
                        this.end(&id, &ended, End::Code(0), (this.clock)());
                    }
                    return;
                }
                () = ended.cancelled() => {}
            }
            // What was said before the end.
            while let Ok(text) = hears.try_recv() {
                let _ = out.write_all(&text).await;
            }
            drop(out);
            let code =
                this.upgrade().and_then(|this| match this.state().find(&id)?.container.state {
                    ContainerState::Exited { exit_code, .. } => Some(exit_code),
                    ContainerState::Running { .. } => None,
                });
            let _ = exited.send(code.unwrap_or(128 + libc::SIGKILL));
        });
        let (resize, _) = mpsc::channel(1);
        let stderr =
            (!tty).then(|| Box::new(tokio::io::empty()) as Box<dyn AsyncRead + Send + Unpin>);
        let stdin = input.map(|input| Box::new(input) as _);
        Ok(ExecSession { stdin, stdout: Box::new(stdout), stderr, resize, exit })
    }

    async fn connect(&self, pod_uid: &str, port: u16) -> Result<Box<dyn Connection>, RuntimeError> {
        if !self.state().pods.contains_key(pod_uid) {
            return Err(RuntimeError::NotFound { what: format!("sandbox of Pod {pod_uid}") });
        }
        if port == REFUSED_PORT {
            return Err(RuntimeError::Io {
                step: format!("connect to port {port} of the Pod"),
                source: io::ErrorKind::ConnectionRefused.into(),
            });
        }
        let (ours, theirs) = duplex(PIPE);
        self.spawn(async move {
            let (mut from, mut to) = tokio::io::split(theirs);
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
        Ok(Box::new(ours))
    }

    fn set_pod_cidr(&self, cidr: &str) {
        self.state().range = Range::parse(cidr);
    }

    async fn remove_all(&self) -> Result<(), RuntimeError> {
        let uids: Vec<String> = self.state().pods.keys().cloned().collect();
        for uid in uids {
            self.remove_pod(&uid).await?;
        }
        Ok(())
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }
}

/// Both ends of a pipe, if there is to be one.
fn pipe_if(wanted: bool) -> (Option<DuplexStream>, Option<DuplexStream>) {
    let ends = wanted.then(|| duplex(PIPE));
    ends.map_or((None, None), |(ours, theirs)| (Some(ours), Some(theirs)))
}

/// The instance, or why it never ran.
fn started(container: &Container) -> Result<Container, RuntimeError> {
    match &container.state {
        ContainerState::Exited { exit_code: 128, message, .. } => {
            Err(RuntimeError::Start { detail: message.clone() })
        }
        ContainerState::Running { .. } | ContainerState::Exited { .. } => Ok(container.clone()),
    }
}
