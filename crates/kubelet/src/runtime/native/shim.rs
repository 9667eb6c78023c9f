//! One process a Pod: holds its namespaces, starts and reaps its containers, writes their logs, and
//! outlives the kubelet. One thread.

use super::{
    cgroup::Cgroup,
    init::InitConfig,
    net::{Netlink, host_link},
    now_micros,
    records::{self, SandboxRecord},
};
use crate::runtime::{Container, ContainerConfig, ContainerId, ContainerState};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    process::{ChildStderr, ChildStdout, Command, ExitCode, Stdio},
};

/// What the kubelet asks, a line of JSON a connection.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Starts a container; answers when its program runs.
    Start { id: ContainerId, config: Box<ContainerConfig>, rootfs: PathBuf },
    /// To the container's first process.
    Signal { id: ContainerId, signal: i32 },
    /// To everything of the container.
    Kill { id: ContainerId },
    /// From now on a line after every end of a container.
    Subscribe,
    /// Kills everything and ends.
    Shutdown,
}

/// What the shim answers, a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// It runs, or has ended already.
    Container(Box<Container>),
    /// Done.
    Done,
    /// There is no such container.
    NotFound,
    /// A container has ended.
    Ended,
}

struct Running {
    container: Container,
    cgroup: Cgroup,
    pid: i32,
    logs: Vec<LogPipe>,
}

/// One of a container's outputs on its way into its log.
struct LogPipe {
    stream: &'static str,
    pipe: OwnedFd,
    buffer: Vec<u8>,
}

/// A line longer than this is written in parts.
const LINE_MAX: usize = 16 << 10;

struct Shim {
    record: SandboxRecord,
    running: BTreeMap<String, Running>,
    subscribers: Vec<UnixStream>,
    stopping: bool,
}

/// Runs as `shim`, in the sandbox's directory.
pub(super) fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = fs::write("error", error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let mut record: SandboxRecord = records::read("sandbox.json".as_ref())?;
    nix::sys::prctl::set_child_subreaper(true)?;
    let _ = nix::unistd::setsid();
    enter_namespaces(&record)?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let _ = fs::remove_file("shim.sock");
    let listener = UnixListener::bind("shim.sock")?;
    record.shim_pid = i32::try_from(std::process::id()).unwrap_or_default();
    records::write("sandbox.json".as_ref(), &record)?;
    // Whoever waits for the sandbox reads this line; afterwards nobody reads here.
    io::stdout().write_all(b"ready\n")?;
    let mut shim =
        Shim { record, running: BTreeMap::new(), subscribers: Vec::new(), stopping: false };
    while !shim.stopping {
        shim.turn(&listener, &children)?;
    }
    Ok(())
}

fn enter_namespaces(record: &SandboxRecord) -> io::Result<()> {
    let config = &record.sandbox.config;
    if config.host_network {
        unshare(CloneFlags::CLONE_NEWIPC)?;
        return Ok(());
    }
    let mut host = Netlink::open()?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)?;
    nix::unistd::sethostname(&config.hostname)?;
    let mut pod = Netlink::open()?;
    let Some(std::net::IpAddr::V4(ip)) = record.sandbox.ip else {
        return pod.loopback();
    };
    let namespace = File::open("/proc/self/ns/net")?;
    let (name, index) = host_link(ip);
    host.attach(&name, index, namespace.as_fd(), ip)?;
    pod.configure(ip)
}

impl Shim {
    /// Waits for something and deals with it.
    fn turn(&mut self, listener: &UnixListener, children: &SignalFd) -> io::Result<()> {
        let ready: Vec<bool> = {
            let mut fds = vec![
                PollFd::new(listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(children.as_fd(), PollFlags::POLLIN),
            ];
            for log in self.running.values().flat_map(|r| &r.logs) {
                fds.push(PollFd::new(log.pipe.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            fds.iter().map(|fd| fd.any().unwrap_or(true)).collect()
        };
        let is_ready = |at: usize| ready.get(at).copied().unwrap_or(false);
        let mut at = 2;
        for running in self.running.values_mut() {
            let mut open = Vec::new();
            for mut log in std::mem::take(&mut running.logs) {
                if !is_ready(at) || copy(&mut log, &running.container.config) {
                    open.push(log);
                }
                at += 1;
            }
            running.logs = open;
        }
        if is_ready(1) {
            while children.read_signal()?.is_some() {}
            self.reap()?;
        }
        if is_ready(0) {
            let (stream, _) = listener.accept()?;
            if let Err(error) = self.serve(stream) {
                tracing::debug!(%error, "a kubelet's request");
            }
        }
        Ok(())
    }

    fn serve(&mut self, stream: UnixStream) -> io::Result<()> {
        let mut line = String::new();
        BufReader::new(stream.try_clone()?).read_line(&mut line)?;
        let answer = match serde_json::from_str(&line)? {
            Ask::Start { id, config, rootfs } => {
                Answer::Container(Box::new(self.start(id, *config, rootfs)?))
            }
            Ask::Signal { id, signal } => match self.running.get(&id.0) {
                Some(running) => {
                    let signal = Signal::try_from(signal)?;
                    let _ = kill(Pid::from_raw(running.pid), signal);
                    Answer::Done
                }
                None => Answer::NotFound,
            },
            Ask::Kill { id } => match self.running.get(&id.0) {
                Some(running) => {
                    running.cgroup.kill();
                    // The end of the first process ends its whole PID namespace.
                    let _ = kill(Pid::from_raw(running.pid), Signal::SIGKILL);
                    Answer::Done
                }
                None => Answer::NotFound,
            },
            Ask::Subscribe => {
                stream.set_nonblocking(true)?;
                self.subscribers.push(stream);
                return Ok(());
            }
            Ask::Shutdown => {
                self.end_all()?;
                self.stopping = true;
                Answer::Done
            }
        };
        say(&stream, &answer)
    }

    fn start(
        &mut self,
        id: ContainerId,
        config: ContainerConfig,
        rootfs: PathBuf,
    ) -> io::Result<Container> {
        let dir = std::env::current_dir()?.join("containers").join(&id.0);
        if let Some(running) = self.running.get(&id.0) {
            return Ok(running.container.clone());
        }
        if let Ok(container) = records::read(&dir.join("record.json")) {
            return Ok(container);
        }
        for sub in ["upper", "work", "root"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        let cgroup =
            Cgroup::create(&format!("{}/{}", self.record.cgroup_name, id.0), &config.resources);
        let uid = self.record.sandbox.config.pod.uid.clone();
        let mut container = Container {
            id: id.clone(),
            pod_uid: uid,
            state: ContainerState::Running { started_at: now_micros() },
            config,
        };
        let init = InitConfig {
            container: container.config.clone(),
            rootfs,
            dir: dir.clone(),
            cgroup: cgroup.clone(),
        };
        match spawn(&init) {
            Ok((pid, logs)) => {
                container.state = ContainerState::Running { started_at: now_micros() };
                records::write(&dir.join("record.json"), &container)?;
                records::write(&dir.join("init.json"), &(pid, &init))?;
                let running = Running { container: container.clone(), cgroup, pid, logs };
                self.running.insert(id.0, running);
            }
            Err(message) => {
                let now = now_micros();
                container.state = ContainerState::Exited {
                    started_at: now,
                    finished_at: now,
                    exit_code: 128,
                    signal: None,
                    oom_killed: false,
                    message,
                };
                let _ = cgroup.remove();
                records::write(&dir.join("record.json"), &container)?;
            }
        }
        Ok(container)
    }

    /// Takes note of every child that has ended.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            let (pid, exit_code, signal) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code, None),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    (pid, 128 + signal as i32, Some(signal as i32))
                }
                Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(()),
                Ok(_) => continue,
                Err(error) => return Err(error.into()),
            };
            let found = self.running.iter().find(|(_, r)| r.pid == pid.as_raw());
            if let Some(id) = found.map(|(id, _)| id.clone()) {
                self.ended(&id, exit_code, signal)?;
            }
        }
    }

    fn ended(&mut self, id: &str, exit_code: i32, signal: Option<i32>) -> io::Result<()> {
        let Some(mut running) = self.running.remove(id) else { return Ok(()) };
        for log in &mut running.logs {
            while copy(log, &running.container.config) && !log.buffer.is_empty() {}
        }
        let oom_killed = running.cgroup.oom_killed();
        running.cgroup.kill();
        let ContainerState::Running { started_at } = running.container.state else { return Ok(()) };
        let dir = std::env::current_dir()?.join("containers").join(id);
        let path = &running.container.config.termination_message_path;
        let message = fs::read(dir.join("upper").join(path.trim_start_matches('/')));
        let message = message.unwrap_or_default();
        let shown = message.get(..message.len().min(4096)).unwrap_or_default();
        running.container.state = ContainerState::Exited {
            started_at,
            finished_at: now_micros(),
            exit_code,
            signal,
            oom_killed,
            message: String::from_utf8_lossy(shown).into_owned(),
        };
        records::write(&dir.join("record.json"), &running.container)?;
        remove_cgroup(&running.cgroup);
        self.subscribers.retain(|stream| say(stream, &Answer::Ended).is_ok());
        Ok(())
    }

    fn end_all(&mut self) -> io::Result<()> {
        for running in self.running.values() {
            running.cgroup.kill();
            let _ = kill(Pid::from_raw(running.pid), Signal::SIGKILL);
        }
        while !self.running.is_empty() {
            match waitpid(None, None) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => {
                    let found = self.running.iter().find(|(_, r)| r.pid == pid.as_raw());
                    if let Some(id) = found.map(|(id, _)| id.clone()) {
                        self.ended(&id, 137, Some(9))?;
                    }
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        Ok(())
    }
}

/// The kernel empties a cgroup a moment after the last process was reaped.
pub(super) fn remove_cgroup(cgroup: &Cgroup) {
    for _ in 0..200 {
        if cgroup.remove().is_ok() {
            return;
        }
        let mut none: [PollFd<'_>; 0] = [];
        let _ = poll(&mut none, PollTimeout::from(1u8));
    }
}

fn say(mut stream: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Starts the container's init and waits until its program runs.
fn spawn(init: &InitConfig) -> Result<(i32, Vec<LogPipe>), String> {
    let text = |error: io::Error| error.to_string();
    let (mut ours, theirs) = UnixStream::pair().map_err(text)?;
    let mut child = Command::new("/proc/self/exe")
        .arg("container-init")
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(text)?;
    let bytes = serde_json::to_vec(init).map_err(|e| e.to_string())?;
    let len = u32::try_from(bytes.len()).map_err(|e| e.to_string())?;
    ours.write_all(&len.to_le_bytes()).and_then(|()| ours.write_all(&bytes)).map_err(text)?;
    let mut said = String::new();
    // Ends when the program has replaced the init, which closes its end.
    ours.read_to_string(&mut said).map_err(text)?;
    let _ = child.wait();
    let (pid, error) = match said.strip_prefix("pid ").and_then(|rest| rest.split_once('\n')) {
        Some((pid, rest)) => (pid.parse().unwrap_or_default(), rest),
        None => (0, said.as_str()),
    };
    if let Some(error) = error.strip_prefix("error ") {
        if pid > 0 {
            let _ = waitpid(Pid::from_raw(pid), None);
        }
        return Err(error.to_owned());
    }
    if pid == 0 {
        return Err("the container's init ended without a word".to_owned());
    }
    let out: Option<ChildStdout> = child.stdout.take();
    let err: Option<ChildStderr> = child.stderr.take();
    let mut logs = Vec::new();
    for (stream, pipe) in [("stdout", out.map(OwnedFd::from)), ("stderr", err.map(OwnedFd::from))] {
        if let Some(pipe) = pipe {
            logs.push(LogPipe { stream, pipe, buffer: Vec::new() });
        }
    }
    Ok((pid, logs))
}

/// Copies what is there into the log; false at the end of the output.
fn copy(log: &mut LogPipe, config: &ContainerConfig) -> bool {
    let mut piece = [0; 16 << 10];
    let read = nix::unistd::read(&log.pipe, &mut piece).unwrap_or(0);
    log.buffer.extend_from_slice(piece.get(..read).unwrap_or_default());
    let mut out = Vec::new();
    let stamp = api::meta::micro_time(i64::try_from(now_micros()).unwrap_or_default());
    let mut write = |line: &[u8], tag: &str| {
        out.extend(format!("{stamp} {} {tag} ", log.stream).into_bytes());
        out.extend(line);
        out.push(b'\n');
    };
    while let Some(end) = log.buffer.iter().position(|b| *b == b'\n') {
        let line: Vec<u8> = log.buffer.drain(..=end).collect();
        write(line.get(..end).unwrap_or_default(), "F");
    }
    if log.buffer.len() >= LINE_MAX || (read == 0 && !log.buffer.is_empty()) {
        write(&std::mem::take(&mut log.buffer), "P");
    }
    if let Err(error) = append(config, &out) {
        tracing::debug!(%error, "log not written");
    }
    read > 0
}

fn append(config: &ContainerConfig, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let path = &config.log_path;
    if fs::metadata(path).is_ok_and(|m| m.len() + bytes.len() as u64 > config.log_bytes_max) {
        let mut old = path.clone().into_os_string();
        old.push(".1");
        fs::rename(path, old)?;
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).append(true).open(path)?.write_all(bytes)
}
