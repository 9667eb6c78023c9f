//! One process a Pod: holds its namespaces, starts and reaps its containers, writes their logs, and
//! outlives the kubelet. One thread.

use super::{
    cgroup::Cgroup,
    image::ImageRoot,
    init::{self, InitConfig},
    net::{Netlink, host_link},
    now_micros,
    records::{self, SandboxRecord},
    sys,
};
use crate::{
    log_file::rotated,
    runtime::{Container, ContainerConfig, ContainerId, ContainerState},
};
use nix::{
    fcntl::OFlag,
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
        unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    process::ExitCode,
};

/// What the kubelet asks, a line of JSON a connection.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Starts a container; answers when its program runs.
    Start { id: ContainerId, config: Box<ContainerConfig>, root: ImageRoot },
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
            Ask::Start { id, config, root } => {
                Answer::Container(Box::new(self.start(id, *config, root)?))
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
        root: ImageRoot,
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
        // It is the container's root directory: every user goes through it.
        fs::set_permissions(dir.join("upper"), fs::Permissions::from_mode(0o755))?;
        fs::write(dir.join(init::MESSAGE), "")?;
        fs::set_permissions(dir.join(init::MESSAGE), fs::Permissions::from_mode(0o666))?;
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
            root,
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
            // Nobody is left who could write: it ends.
            while copy(log, &running.container.config) {}
        }
        let oom_killed = running.cgroup.oom_killed();
        running.cgroup.kill();
        let ContainerState::Running { started_at } = running.container.state else { return Ok(()) };
        let dir = std::env::current_dir()?.join("containers").join(id);
        let message = message(&dir).unwrap_or_default();
        running.container.state = ContainerState::Exited {
            started_at,
            finished_at: now_micros(),
            exit_code,
            signal,
            oom_killed,
            message: String::from_utf8_lossy(&message).into_owned(),
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

/// What a container has left to say (CST-8).
fn message(dir: &Path) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    File::open(dir.join(init::MESSAGE))?.take(4096).read_to_end(&mut message)?;
    Ok(message)
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
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| text(e.into()));
    let (mut ours, theirs) = UnixStream::pair().map_err(text)?;
    let ((out, their_out), (err, their_err)) = (pipe()?, pipe()?);
    // This process has one thread, so a copy of it is whole, and there is no program to be loaded.
    let child = sys::fork_single_threaded().map_err(text)?;
    if child == 0 {
        init::main(theirs, &their_out, &their_err, init);
    }
    drop((theirs, their_out, their_err));
    let mut said = String::new();
    // Ends when the program has replaced the init, which closes its end.
    ours.read_to_string(&mut said).map_err(text)?;
    let _ = waitpid(Pid::from_raw(child), None);
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
    let log = |stream, pipe| LogPipe { stream, pipe, buffer: Vec::new() };
    Ok((pid, vec![log("stdout", out), log("stderr", err)]))
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

/// Whole lines; as many as fit into the file, the others into the next one.
fn append(config: &ContainerConfig, mut lines: &[u8]) -> io::Result<()> {
    let path = &config.log_path;
    if let (Some(parent), false) = (path.parent(), lines.is_empty()) {
        fs::create_dir_all(parent)?;
    }
    while !lines.is_empty() {
        let length = fs::metadata(path).map_or(0, |m| m.len());
        let room = usize::try_from(config.log_bytes_max.saturating_sub(length));
        let fitting = lines.get(..room.unwrap_or(usize::MAX)).unwrap_or(lines);
        let mut end = fitting.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        if end == 0 && length > 0 {
            fs::rename(path, rotated(path))?;
            continue;
        }
        if end == 0 {
            // One that is longer than a whole file.
            end = lines.iter().position(|b| *b == b'\n').map_or(lines.len(), |at| at + 1);
        }
        let (now, later) = lines.split_at(end);
        OpenOptions::new().create(true).append(true).open(path)?.write_all(now)?;
        lines = later;
    }
    Ok(())
}
