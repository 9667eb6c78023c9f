//! The container runtime as the pod workers see it: sandboxes, containers, images, exec.
//!
//! Implementations: [`native`] (namespaces and shims) and [`fake`] (a script, for tests and hollow nodes).
//! Each runs the same suite. The runtime keeps no policy: restarts, hooks, grace and back-off are the
//! pod worker's.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{broadcast, mpsc, oneshot},
};

mod addresses;
pub mod fake;
pub mod native;
pub mod suite;

/// Microseconds since the Unix epoch.
pub type UnixMicros = u64;

/// Which Pod. The UID alone identifies it; the rest is for names and logs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodRef {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`
    pub uid: String,
}

/// Upper bounds and weights of a cgroup. `None` is "no limit".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a core that may be used at most.
    pub cpu_limit_millis: Option<u64>,
    /// Thousandths of a core asked for: the weight under contention.
    pub cpu_request_millis: Option<u64>,
    /// Bytes of memory at which the OOM killer strikes.
    pub memory_limit_bytes: Option<u64>,
    /// Number of processes and threads.
    pub pids_limit: Option<u64>,
}

/// What a Pod's sandbox is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// Whose.
    pub pod: PodRef,
    /// 0 for the first sandbox of this UID on this node.
    pub attempt: u32,
    /// Host name inside (NET-1).
    pub hostname: String,
    /// Stay in the node's network namespace.
    pub host_network: bool,
    /// Bounds for all containers together.
    pub resources: Resources,
    /// Kept with the sandbox and given back by [`Runtime::pods`]: what the kubelet wants to know
    /// of this Pod after its own restart.
    pub annotations: BTreeMap<String, String>,
}

/// A sandbox that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// As asked for.
    pub config: SandboxConfig,
    /// The Pod's address; the node's own under `host_network`.
    pub ip: Option<IpAddr>,
    /// When it was made.
    pub created_at: UnixMicros,
    /// Its namespaces are still held: containers can be started in it.
    pub ready: bool,
}

/// Names one instance of a container; unique on the node. Shown to users as `trireme://‹id›`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerId(pub String);

/// A directory or file of the node (or memory) shown inside a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On the node.
    pub host_path: PathBuf,
    /// What of it is shown, relative; empty for all. Links in it that lead out of `host_path` are refused, and
    /// where nothing is, a directory is made.
    #[serde(default)]
    pub sub_path: PathBuf,
    /// Inside; created when missing.
    pub container_path: PathBuf,
    /// Not writable inside.
    pub read_only: bool,
}

/// Who the process is and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Security {
    /// Numeric user; the image's when `None`.
    pub run_as_user: Option<u32>,
    /// Numeric group; the image's when `None`.
    pub run_as_group: Option<u32>,
    /// Supplementary groups.
    pub supplemental_groups: Vec<u32>,
    /// Every capability and device, no seccomp.
    pub privileged: bool,
    /// Root file system not writable.
    pub read_only_root: bool,
    /// Capabilities added to the default set, such as `NET_ADMIN`, or `ALL`.
    pub add_capabilities: Vec<String>,
    /// Capabilities taken from it.
    pub drop_capabilities: Vec<String>,
    /// Set `no_new_privs`. Default true unless privileged.
    pub no_new_privileges: bool,
}

/// What a container is made from. Everything is resolved: nothing refers to the Pod any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// The container's name in the Pod.
    pub name: String,
    /// Restart count of this instance (CST-3).
    pub attempt: u32,
    /// The container whose processes it sees and lives among; `None` for its own only.
    #[serde(default)]
    pub target: Option<String>,
    /// As written in the Pod.
    pub image: String,
    /// As answered by [`Runtime::pull_image`].
    pub image_id: String,
    /// Program and arguments, expanded; never empty.
    pub argv: Vec<String>,
    /// Environment in order, the image's merged in.
    pub env: Vec<(String, String)>,
    /// Where it starts; `/` when the image says nothing. Created when missing.
    pub working_dir: String,
    /// In order; nested ones after their parents.
    pub mounts: Vec<Mount>,
    /// Bounds.
    pub resources: Resources,
    /// Who and what.
    pub security: Security,
    /// Keep standard input open, for who attaches.
    pub stdin: bool,
    /// Close it after the first who was attached to it.
    #[serde(default)]
    pub stdin_once: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// Written in CRI format by the shim; directories are created.
    pub log_path: PathBuf,
    /// Rotated at this size, the previous one kept as `‹log_path›.1`.
    pub log_bytes_max: u64,
    /// Read when the container ends, at most 4096 bytes (CST-8): a path inside.
    pub termination_message_path: String,
    /// The kubelet's hash over name and image (UPD-9).
    pub hash: u64,
    /// Given back by [`Runtime::pods`].
    pub annotations: BTreeMap<String, String>,
}

/// Where an instance is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// The program runs.
    Running {
        /// When `execve` succeeded.
        started_at: UnixMicros,
    },
    /// The program has ended and nothing of its cgroup is left.
    Exited {
        /// When `execve` succeeded; `finished_at` when it never did.
        started_at: UnixMicros,
        /// When it ended.
        finished_at: UnixMicros,
        /// 128 + signal for a signal death (CST-2).
        exit_code: i32,
        /// The signal, if one ended it.
        signal: Option<i32>,
        /// Its cgroup ran out of memory.
        oom_killed: bool,
        /// The termination message, as found.
        message: String,
    },
}

/// One instance of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Which.
    pub id: ContainerId,
    /// Whose: the Pod's UID.
    pub pod_uid: String,
    /// As asked for.
    pub config: ContainerConfig,
    /// Running or ended.
    pub state: ContainerState,
}

/// Everything of one Pod on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimePod {
    /// The newest sandbox.
    pub sandbox: Sandbox,
    /// All instances still kept, oldest first.
    pub containers: Vec<Container>,
}

/// An image on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Digest reference (CST-7): equal on every node for equal content.
    pub id: String,
    /// Unpacked, on disk.
    pub size_bytes: u64,
    /// `ENTRYPOINT`
    pub entrypoint: Vec<String>,
    /// `CMD`
    pub cmd: Vec<String>,
    /// `ENV`
    pub env: Vec<(String, String)>,
    /// `WORKDIR`, empty when unset.
    pub working_dir: String,
    /// `USER`, empty when unset.
    pub user: String,
    /// `STOPSIGNAL` as a number, if set (DEL-22).
    pub stop_signal: Option<i32>,
}

/// What to run beside a container's program, in its namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecConfig {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Keep its standard input open.
    pub stdin: bool,
    /// Give it a terminal; standard error is then part of standard output.
    pub tty: bool,
}

/// A program started by [`Runtime::exec`], or a container's own by [`Runtime::attach`].
///
/// Dropping it ends a program that was started: its process group is hung up, and killed a moment later.
/// A container's own program goes on.
pub struct ExecSession {
    /// `None` unless asked for. Dropping it is end of file.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Ends when the program has.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// `None` with a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Columns and rows, with a terminal.
    pub resize: mpsc::Sender<(u16, u16)>,
    /// The exit code, 128 + signal for a signal death.
    pub exit: oneshot::Receiver<i32>,
}

/// Bytes both ways.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl std::fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecSession").finish_non_exhaustive()
    }
}

/// Something happened to a Pod: look at it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEvent {
    /// Whose. A receiver that lags lists all Pods instead.
    pub pod_uid: String,
}

/// Why the runtime could not do it; the text reaches the user in a status or an event.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// `InvalidImageName`
    #[error("couldn't parse image name {image:?}: {detail}")]
    InvalidImageName {
        /// As written in the Pod.
        image: String,
        /// What is wrong with it.
        detail: String,
    },
    /// `ErrImagePull`
    #[error("{detail}")]
    ImagePull {
        /// What was tried, and how it failed.
        detail: String,
    },
    /// The program could not be started: exit code 128, reason `StartError` (CST-2).
    #[error("{detail}")]
    Start {
        /// Which step failed, and how.
        detail: String,
    },
    /// There is no such sandbox or container (any more).
    #[error("{what} not found")]
    NotFound {
        /// Which.
        what: String,
    },
    /// The host does not allow what is needed.
    #[error("not supported on this host: {detail}")]
    Unsupported {
        /// What is missing and how to get it.
        detail: String,
    },
    /// Anything else, by the step that failed.
    #[error("{step}")]
    Io {
        /// What was tried, with what.
        step: String,
        /// How it failed.
        source: std::io::Error,
    },
}

/// The seam. Every call may be repeated after a crash: what exists is found, not made twice.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Name and version for `nodeInfo.containerRuntimeVersion`, such as `trireme://0.1.0`.
    fn version(&self) -> String;

    /// Everything that exists, from the runtime's own records: what a restarted kubelet adopts.
    ///
    /// # Errors
    /// When the records cannot be read.
    async fn pods(&self) -> Result<Vec<RuntimePod>, RuntimeError>;

    /// One Pod, or `None` when nothing of it exists.
    ///
    /// # Errors
    /// When the records cannot be read.
    async fn pod(&self, uid: &str) -> Result<Option<RuntimePod>, RuntimeError>;

    /// The image if it is on this node.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidImageName`].
    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError>;

    /// Fetches and unpacks the image, even if it is here already.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidImageName`], [`RuntimeError::ImagePull`].
    async fn pull_image(&self, reference: &str) -> Result<Image, RuntimeError>;

    /// Makes the sandbox: shim, namespaces, network, cgroup. A sandbox of this UID and attempt
    /// that is ready is answered as it is.
    ///
    /// # Errors
    /// Nothing of a failed attempt is left.
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Sandbox, RuntimeError>;

    /// Starts one instance; answers when `execve` has succeeded. One instance at most exists for a
    /// (Pod, name, attempt): a second call answers it (FEN-35).
    ///
    /// # Errors
    /// [`RuntimeError::Start`]; the instance then exists as exited with code 128.
    async fn start_container(
        &self,
        pod_uid: &str,
        config: ContainerConfig,
    ) -> Result<Container, RuntimeError>;

    /// Sends a signal to the container's first process. An ended container is success (DEL-25).
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`].
    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError>;

    /// Kills every process of the container's cgroup (DEL-23). Returns before they are reaped.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`].
    async fn kill(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Forgets an ended instance: its root file system and records, not its log.
    ///
    /// # Errors
    /// [`RuntimeError::Io`] when it still runs.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Kills what still runs and removes sandbox, containers, network, cgroups and records; what
    /// is gone already is success. Nothing of the Pod is left when it returns, except its logs.
    ///
    /// # Errors
    /// Something could not be removed; try again.
    async fn remove_pod(&self, uid: &str) -> Result<(), RuntimeError>;

    /// Runs a program in a container that runs.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], [`RuntimeError::Start`].
    async fn exec(&self, id: &ContainerId, config: ExecConfig)
    -> Result<ExecSession, RuntimeError>;

    /// Copies of the container's standard output and error from now on, and its standard input if
    /// it is wanted and the container has one.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] when it does not run.
    async fn attach(&self, id: &ContainerId, stdin: bool) -> Result<ExecSession, RuntimeError>;

    /// Connects to a port of the Pod's own loopback address.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::Io`] when nobody listens there.
    async fn connect(&self, pod_uid: &str, port: u16) -> Result<Box<dyn Connection>, RuntimeError>;

    /// Whether its containers have files at all: where they only seem to run, nobody asks for what would be
    /// in volumes.
    fn reads_volumes(&self) -> bool {
        true
    }

    /// Tells the range from which Pods get their addresses, such as `10.244.1.0/24`. Pods that have one
    /// keep it.
    fn set_pod_cidr(&self, cidr: &str);

    /// Takes every Pod down, and what a node without Pods leaves behind.
    ///
    /// # Errors
    /// The first Pod that could not be removed; the others have been.
    async fn remove_all(&self) -> Result<(), RuntimeError>;

    /// Told after every change of any Pod that this runtime did not answer to a caller: an exit,
    /// a sandbox that died.
    fn events(&self) -> broadcast::Receiver<RuntimeEvent>;
}
