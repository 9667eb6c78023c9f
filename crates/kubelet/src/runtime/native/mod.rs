//! Namespaces, cgroups and one shim process a Pod.
//!
//! The kubelet's half: it keeps records, asks the shims, and finds everything again after a restart.

mod attach;
mod capabilities;
mod cgroup;
mod exec;
mod image;
mod init;
mod net;
mod privileges;
mod records;
mod shim;
mod streams;
mod sys;
mod terminal;
mod user;
mod within;

use super::{
    Connection, Container, ContainerConfig, ContainerId, ContainerState, ExecConfig, ExecSession,
    Image, Runtime, RuntimeError, RuntimeEvent, RuntimePod, Sandbox, SandboxConfig, UnixMicros,
    addresses::Range,
};
use async_trait::async_trait;
use cgroup::Cgroup;
use image::ImageStore;
use init::InitConfig;
use nix::sys::prctl;
use records::SandboxRecord;
use shim::{Answer, Ask};
use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr},
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    process::Command,
    sync::broadcast,
    time::timeout,
};

/// For a shim to come up.
const SHIM_DEADLINE: Duration = Duration::from_secs(10);
/// For a shim to kill everything and to end; then it is ended with the rest.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(12);

/// The wall clock, for records and logs of processes that outlive every other clock.
fn now_micros() -> UnixMicros {
    #[expect(clippy::disallowed_methods, reason = "a shim has no caller to take a time from")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// The roles that this binary plays when it starts itself again; `None` for an ordinary start. To be
/// asked first in `main`, while there is one thread.
#[must_use]
pub fn reexec() -> Option<ExitCode> {
    let mut arguments = std::env::args();
    let _program = arguments.next();
    let role = match arguments.next()?.as_str() {
        "shim" => shim::main,
        "container-exec" => exec::main,
        _ => return None,
    };
    // The agent does without huge pages; what runs in containers has them as the machine gives them. On a kernel
    // that does not know of it, there was nothing to take back.
    let _ = prctl::set_thp_disable(false);
    Some(role())
}

/// Where everything is, and whose.
#[derive(Debug, Clone)]
pub struct NativeConfig {
    /// Images, sandboxes.
    pub data_dir: PathBuf,
    /// Part of the cgroups' names.
    pub node: String,
    /// Started as `shim` and so on; this binary.
    pub program: PathBuf,
    /// `host` or `host:port` of registries that are talked to without TLS, beside those of this
    /// machine.
    pub insecure_registries: Vec<String>,
}

/// Runs containers on this kernel.
#[derive(Debug)]
pub struct NativeRuntime {
    config: NativeConfig,
    /// The range of this node's Pods, once it is known.
    range: Mutex<Option<Range>>,
    /// Addresses that are being given out.
    addresses: tokio::sync::Mutex<BTreeSet<Ipv4Addr>>,
    images: ImageStore,
    events: broadcast::Sender<RuntimeEvent>,
    /// Itself, for those that listen to the shims.
    this: Weak<Self>,
    /// One agent a data directory.
    _lock: nix::fcntl::Flock<fs::File>,
}

fn failed(step: impl Into<String>) -> impl FnOnce(io::Error) -> RuntimeError {
    let step = step.into();
    move |source| RuntimeError::Io { step, source }
}

impl NativeRuntime {
    /// Opens the records and listens to the shims that run.
    ///
    /// # Errors
    /// Not root; or the data directory cannot be used.
    pub fn open(config: NativeConfig) -> Result<Arc<Self>, RuntimeError> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let uid = nix::unistd::geteuid().as_raw();
        if let Some(detail) = privileges::missing(uid, &status) {
            return Err(RuntimeError::Unsupported { detail });
        }
        fs::create_dir_all(&config.data_dir)
            .map_err(failed(format!("create {}", config.data_dir.display())))?;
        // What Pods mount and write, their secrets among it, is nobody else's on this machine.
        fs::set_permissions(&config.data_dir, fs::Permissions::from_mode(0o700))
            .map_err(failed(format!("keep {} to root", config.data_dir.display())))?;
        let lock = fs::File::create(config.data_dir.join("LOCK")).map_err(failed("open LOCK"))?;
        let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock)
            .map_err(|_| RuntimeError::Unsupported {
                detail: format!(
                    "data directory {} is in use by another process",
                    config.data_dir.display()
                ),
            })?;
        let pods = config.data_dir.join("pods");
        fs::create_dir_all(&pods).map_err(failed(format!("create {}", pods.display())))?;
        let images = ImageStore::open(
            config.data_dir.join("images"),
            config.insecure_registries.clone(),
            &images_in_use(&pods),
        )?;
        // Pods on one node reach each other through it; a host that forbids it keeps its loopback.
        let _ = fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        let runtime = Arc::new_cyclic(|this| Self {
            config,
            range: Mutex::new(None),
            addresses: tokio::sync::Mutex::default(),
            images,
            _lock: lock,
            events: broadcast::Sender::new(1024),
            this: Weak::clone(this),
        });
        for record in runtime.records() {
            runtime.listen(&record.sandbox.config.pod.uid);
        }
        Ok(runtime)
    }

    fn dir(&self, uid: &str) -> PathBuf {
        self.config.data_dir.join("pods").join(uid)
    }

    fn records(&self) -> Vec<SandboxRecord> {
        let Ok(entries) = fs::read_dir(self.config.data_dir.join("pods")) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| records::read(&entry.path().join("sandbox.json")).ok())
            .collect()
    }

    async fn address(&self) -> Result<Option<Ipv4Addr>, RuntimeError> {
        let range = *self.range.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(range) = range else { return Ok(None) };
        let mut given = self.addresses.lock().await;
        let taken: BTreeSet<Ipv4Addr> = self
            .records()
            .iter()
            .filter_map(|r| match r.sandbox.ip {
                Some(IpAddr::V4(ip)) => Some(ip),
                Some(IpAddr::V6(_)) | None => None,
            })
            .chain(given.iter().copied())
            .collect();
        let free = range.free(&taken)?;
        given.insert(free);
        Ok(Some(free))
    }

    /// Asks a Pod's shim. The directory is opened first: a socket's path may be short only.
    async fn ask(&self, uid: &str, ask: &Ask) -> io::Result<Answer> {
        let mut stream = self.connect_shim(uid).await?;
        send(&mut stream, ask).await?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await?;
        Ok(serde_json::from_str(&line)?)
    }

    async fn connect_shim(&self, uid: &str) -> io::Result<UnixStream> {
        let dir = fs::File::open(self.dir(uid))?;
        UnixStream::connect(format!("/proc/self/fd/{}/shim.sock", dir.as_raw_fd())).await
    }

    /// Passes a shim's words on as events, until it ends.
    fn listen(&self, uid: &str) {
        let (runtime, uid) = (Weak::clone(&self.this), uid.to_owned());
        #[expect(clippy::disallowed_methods, reason = "ends with the shim that it listens to")]
        tokio::spawn(async move {
            let Some(strong) = runtime.upgrade() else { return };
            let stream = strong.connect_shim(&uid).await;
            let events = strong.events.clone();
            drop(strong);
            let told = || drop(events.send(RuntimeEvent { pod_uid: uid.clone() }));
            if let Ok(mut stream) = stream
                && send(&mut stream, &Ask::Subscribe).await.is_ok()
            {
                let mut lines = BufReader::new(stream).lines();
                // Something may have ended before the subscription.
                told();
                while let Ok(Some(_)) = lines.next_line().await {
                    told();
                }
            }
            told();
        });
    }

    fn containers(&self, uid: &str, alive: bool) -> Vec<Container> {
        let mut found: Vec<Container> = records::containers(&self.dir(uid))
            .map(|mut container| {
                if let (false, ContainerState::Running { started_at }) = (alive, &container.state) {
                    // Its shim is gone, and nobody saw it end (CST-2).
                    container.state = ContainerState::Exited {
                        started_at: *started_at,
                        finished_at: now_micros(),
                        exit_code: 137,
                        signal: None,
                        oom_killed: false,
                        message: "The container could not be located when the pod was terminated"
                            .to_owned(),
                    };
                }
                container
            })
            .collect();
        found.sort_by_key(|c| (c.config.name.clone(), c.config.attempt));
        found
    }

    fn runtime_pod(&self, record: &SandboxRecord) -> RuntimePod {
        let alive = is_shim(record.shim_pid, &self.dir(&record.sandbox.config.pod.uid));
        let sandbox = Sandbox { ready: alive, ..record.sandbox.clone() };
        let containers = self.containers(&record.sandbox.config.pod.uid, alive);
        RuntimePod { sandbox, containers }
    }

    fn uid_of(&self, id: &ContainerId) -> Result<String, RuntimeError> {
        let entries = fs::read_dir(self.config.data_dir.join("pods"));
        let entries = entries.map_err(failed("list the sandboxes"))?;
        entries
            .flatten()
            .find(|entry| entry.path().join("containers").join(&id.0).exists())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .ok_or_else(|| RuntimeError::NotFound { what: format!("container {}", id.0) })
    }

    /// Whether the container's program runs.
    fn runs(&self, id: &ContainerId) -> Result<bool, RuntimeError> {
        let uid = self.uid_of(id)?;
        let containers = self.containers(&uid, is_alive(&self.dir(&uid)));
        let found = containers.into_iter().find(|container| container.id == *id);
        Ok(found.is_some_and(|c| matches!(c.state, ContainerState::Running { .. })))
    }

    async fn ask_about(&self, id: &ContainerId, ask: &Ask) -> Result<(), RuntimeError> {
        let uid = self.uid_of(id)?;
        match self.ask(&uid, ask).await {
            // An ended container is success (DEL-25).
            Ok(_) => Ok(()),
            Err(error) if !is_alive(&self.dir(&uid)) => {
                tracing::debug!(%error, "the shim is gone, and all of its containers with it");
                Ok(())
            }
            Err(error) => Err(failed("ask the shim")(error)),
        }
    }
}

/// The ids of all images that a container on this node was made from.
fn images_in_use(pods: &Path) -> BTreeSet<String> {
    let pods = fs::read_dir(pods).into_iter().flatten().flatten();
    let containers = pods.flat_map(|pod| records::containers(&pod.path()));
    containers.map(|container| container.config.image_id).collect()
}

async fn send(stream: &mut UnixStream, ask: &Ask) -> io::Result<()> {
    let mut line = serde_json::to_vec(ask)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// Whether this process is the shim of this directory, and not a later one with its PID.
fn is_shim(pid: i32, dir: &Path) -> bool {
    pid > 0 && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir)
}

/// Kills a shim that is still there, and the containers that it leaves behind.
fn end_shim(shim_pid: i32, dir: &Path) {
    if !is_shim(shim_pid, dir) {
        return;
    }
    let kill = |pid| {
        let pid = nix::unistd::Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    };
    let children = fs::read_to_string(format!("/proc/{shim_pid}/task/{shim_pid}/children"));
    kill(shim_pid);
    children.unwrap_or_default().split_whitespace().flat_map(str::parse).for_each(kill);
    for entry in fs::read_dir(dir.join("containers")).into_iter().flatten().flatten() {
        let started: io::Result<(i32, InitConfig)> = records::read(&entry.path().join("init.json"));
        if let Ok((_, init)) = started {
            init.cgroup.kill();
            shim::remove_cgroup(&init.cgroup);
        }
    }
}

fn is_alive(dir: &Path) -> bool {
    let record: io::Result<SandboxRecord> = records::read(&dir.join("sandbox.json"));
    record.is_ok_and(|record| is_shim(record.shim_pid, dir))
}

#[async_trait]
impl Runtime for NativeRuntime {
    fn version(&self) -> String {
        concat!("trireme://", env!("CARGO_PKG_VERSION")).to_owned()
    }

    async fn pods(&self) -> Result<Vec<RuntimePod>, RuntimeError> {
        Ok(self.records().iter().map(|record| self.runtime_pod(record)).collect())
    }

    async fn pod(&self, uid: &str) -> Result<Option<RuntimePod>, RuntimeError> {
        let record = records::read(&self.dir(uid).join("sandbox.json")).ok();
        Ok(record.map(|record| self.runtime_pod(&record)))
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        self.images.image(reference).await
    }

    async fn pull_image(&self, reference: &str) -> Result<Image, RuntimeError> {
        self.images.pull(reference).await
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Sandbox, RuntimeError> {
        let uid = config.pod.uid.clone();
        if let Some(pod) = self.pod(&uid).await?
            && pod.sandbox.ready
        {
            return Ok(pod.sandbox);
        }
        let ip = if config.host_network { None } else { self.address().await? };
        let cgroup_name = format!("{}/{uid}", self.config.node);
        let record = SandboxRecord {
            cgroup: Cgroup::create(&cgroup_name, &config.resources),
            sandbox: Sandbox {
                config,
                ip: ip.map(IpAddr::V4),
                created_at: now_micros(),
                ready: true,
            },
            cgroup_name,
            shim_pid: 0,
        };
        let started = self.start_shim(&uid, &record).await;
        if let Some(ip) = ip {
            // From now on the record holds it, or it is free again.
            self.addresses.lock().await.remove(&ip);
        }
        if let Err(error) = started {
            let _ = self.remove_pod(&uid).await;
            return Err(error);
        }
        self.listen(&uid);
        Ok(record.sandbox)
    }

    async fn start_container(
        &self,
        pod_uid: &str,
        config: ContainerConfig,
    ) -> Result<Container, RuntimeError> {
        if !self.dir(pod_uid).join("sandbox.json").exists() {
            let what = format!("sandbox of Pod {pod_uid}");
            return Err(RuntimeError::NotFound { what });
        }
        let root = self.images.root(&config.image_id).await?;
        let id = ContainerId(format!("{pod_uid}-{}-{}", config.name, config.attempt));
        let ask = Ask::Start { id, config: Box::new(config), root };
        let answer = self.ask(pod_uid, &ask).await.map_err(failed("ask the shim"))?;
        let Answer::Container(container) = answer else {
            return Err(RuntimeError::Start { detail: "the shim answers otherwise".to_owned() });
        };
        match &container.state {
            ContainerState::Exited { exit_code: 128, message, .. } => {
                Err(RuntimeError::Start { detail: message.clone() })
            }
            ContainerState::Running { .. } | ContainerState::Exited { .. } => Ok(*container),
        }
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError> {
        self.ask_about(id, &Ask::Signal { id: id.clone(), signal }).await
    }

    async fn kill(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.ask_about(id, &Ask::Kill { id: id.clone() }).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        if self.runs(id)? {
            let source = io::Error::other("it still runs");
            return Err(failed(format!("remove container {}", id.0))(source));
        }
        let uid = self.uid_of(id)?;
        let dir = self.dir(&uid).join("containers").join(&id.0);
        fs::remove_dir_all(&dir).map_err(failed(format!("remove {}", dir.display())))
    }

    async fn remove_pod(&self, uid: &str) -> Result<(), RuntimeError> {
        let dir = self.dir(uid);
        let record: Option<SandboxRecord> = records::read(&dir.join("sandbox.json")).ok();
        if is_alive(&dir) {
            match timeout(SHUTDOWN_DEADLINE, self.ask(uid, &Ask::Shutdown)).await {
                Ok(ended) => drop(ended.map_err(failed("end the shim"))?),
                Err(_) => tracing::warn!(uid, "the shim does not end by itself"),
            }
        }
        if let Some(record) = record {
            let dir = dir.clone();
            let removed = tokio::task::spawn_blocking(move || {
                end_shim(record.shim_pid, &dir);
                record.cgroup.kill();
                shim::remove_cgroup(&record.cgroup);
                match record.sandbox.ip {
                    Some(IpAddr::V4(ip)) => net::Netlink::open()?.detach(ip),
                    Some(IpAddr::V6(_)) | None => Ok(()),
                }
            });
            let removed = removed.await.map_err(io::Error::other).and_then(|result| result);
            removed.map_err(failed("remove the Pod's network"))?;
        }
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed(format!("remove {}", dir.display()))(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn exec(
        &self,
        id: &ContainerId,
        config: ExecConfig,
    ) -> Result<ExecSession, RuntimeError> {
        // The PID on record may be another process's by now.
        if !self.runs(id)? {
            return Err(RuntimeError::NotFound { what: format!("running container {}", id.0) });
        }
        let uid = self.uid_of(id)?;
        let path = self.dir(&uid).join("containers").join(&id.0).join("init.json");
        let (pid, init): (i32, InitConfig) = records::read(&path)
            .map_err(|_| RuntimeError::NotFound { what: format!("container {}", id.0) })?;
        exec::start(&self.config.program, pid, init, &config).await
    }

    async fn attach(&self, id: &ContainerId, stdin: bool) -> Result<ExecSession, RuntimeError> {
        if !self.runs(id)? {
            return Err(RuntimeError::NotFound { what: format!("running container {}", id.0) });
        }
        let uid = self.uid_of(id)?;
        let tty = self.containers(&uid, true).iter().any(|c| c.id == *id && c.config.tty);
        let mut stream = self.connect_shim(&uid).await.map_err(failed("ask the shim"))?;
        let ask = Ask::Attach { id: id.clone(), stdin };
        send(&mut stream, &ask).await.map_err(failed("ask the shim"))?;
        attach::session(stream, stdin, tty)
            .await
            .map_err(failed("attach to the container"))?
            .ok_or(RuntimeError::NotFound { what: format!("running container {}", id.0) })
    }

    async fn connect(&self, pod_uid: &str, port: u16) -> Result<Box<dyn Connection>, RuntimeError> {
        let dir = self.dir(pod_uid);
        let missing = || RuntimeError::NotFound { what: format!("sandbox of Pod {pod_uid}") };
        let record: SandboxRecord =
            records::read(&dir.join("sandbox.json")).map_err(|_| missing())?;
        let namespace = fs::File::open(format!("/proc/{}/ns/net", record.shim_pid));
        let namespace = namespace.map_err(|_| missing())?;
        // Asked after it was opened: it was this shim's, and not a later process's with its number.
        if !is_shim(record.shim_pid, &dir) {
            return Err(missing());
        }
        let connected = net::connect_within(namespace, port).await;
        let stream = connected.map_err(failed(format!("connect to port {port} of the Pod")))?;
        Ok(Box::new(stream))
    }

    fn set_pod_cidr(&self, cidr: &str) {
        *self.range.lock().unwrap_or_else(PoisonError::into_inner) = Range::parse(cidr);
    }

    async fn remove_all(&self) -> Result<(), RuntimeError> {
        let mut result = Ok(());
        for pod in self.pods().await? {
            let removed = self.remove_pod(&pod.sandbox.config.pod.uid).await;
            result = result.and(removed);
        }
        cgroup::remove_node(&self.config.node);
        result
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }
}

impl NativeRuntime {
    async fn start_shim(&self, uid: &str, record: &SandboxRecord) -> Result<(), RuntimeError> {
        let dir = self.dir(uid);
        fs::create_dir_all(dir.join("containers")).map_err(failed("create the sandbox"))?;
        records::write(&dir.join("sandbox.json"), record).map_err(failed("record the sandbox"))?;
        let mut child = Command::new(&self.config.program)
            .arg("shim")
            .current_dir(&dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(failed("start the shim"))?;
        let mut said = String::new();
        if let Some(stdout) = child.stdout.take() {
            let line = BufReader::new(stdout);
            let mut line = line.take(64);
            let _ = timeout(SHIM_DEADLINE, line.read_line(&mut said)).await;
        }
        if said == "ready\n" {
            return Ok(());
        }
        let _ = child.kill().await;
        let error = fs::read_to_string(dir.join("error")).unwrap_or_default();
        let detail = format!("the sandbox's shim did not come up: {error}");
        Err(RuntimeError::Start { detail })
    }
}

/// When a Pod's sandbox was begun and when each of its containers ran, by the records that another
/// process keeps below its data directory.
///
/// # Errors
/// There are none of this Pod.
pub fn recorded(data_dir: &Path, uid: &str) -> io::Result<(UnixMicros, Vec<UnixMicros>)> {
    let dir = data_dir.join("pods").join(uid);
    let record: SandboxRecord = records::read(&dir.join("sandbox.json"))?;
    let started = records::containers(&dir).map(|container| match container.state {
        ContainerState::Running { started_at } | ContainerState::Exited { started_at, .. } => {
            started_at
        }
    });
    Ok((record.sandbox.created_at, started.collect()))
}

/// Blocks no signal and lets a broken pipe end this process: how programs on a command line begin.
///
/// # Errors
/// As the kernel says.
pub fn default_signals() -> io::Result<()> {
    sys::default_signals()
}

/// Sets a signal handler, for the toolbox.
pub(crate) fn handle(signal: nix::sys::signal::Signal, action: &nix::sys::signal::SigAction) {
    sys::set_handler(signal, action);
}

/// Columns and rows of a terminal, for the toolbox.
///
/// # Errors
/// It is none.
pub(crate) fn terminal_size(terminal: impl std::os::fd::AsFd) -> io::Result<(u16, u16)> {
    sys::size(terminal.as_fd())
}
