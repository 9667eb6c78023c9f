//! One process a Pod: holds its namespaces, starts and reaps its containers, writes their logs, and
//! outlives the kubelet. One thread.

use super::{
    cgroup::Cgroup,
    image::ImageRoot,
    init::{self, InitConfig, Pipes},
    net::{Netlink, host_link},
    now_micros,
    records::{self, SandboxRecord},
    streams::{Attached, Source, Streams},
    sys,
};
use crate::runtime::{Container, ContainerConfig, ContainerId, ContainerState};
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
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
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
    /// From now on, behind the answer, [`streams`](super::streams)' frames.
    Attach { id: ContainerId, stdin: bool },
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
    /// As many are attached to it as may be.
    Full,
    /// A container has ended.
    Ended,
}

struct Running {
    container: Container,
    cgroup: Cgroup,
    pid: i32,
    streams: Streams,
}

/// For those who are attached to hear the end, when all is over.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// For everything that was killed to be gone.
const KILLED: Duration = Duration::from_secs(5);
/// For a kubelet to say what it wants, and to take the answer: others wait for as long.
const ASKING: Duration = Duration::from_secs(5);
/// Between two tries to accept a connection for which there is no room.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

struct Shim {
    record: SandboxRecord,
    running: BTreeMap<String, Running>,
    subscribers: Vec<UnixStream>,
    /// Were attached to containers that have ended, and have not taken everything yet.
    leaving: Vec<Attached>,
    /// The last connection could not be accepted.
    crowded: bool,
    stopping: bool,
}

/// What a turn waits for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Waited {
    Listener,
    Children,
    Leaving,
    Container(String),
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
    let mut shim = Shim {
        record,
        running: BTreeMap::new(),
        subscribers: Vec::new(),
        leaving: Vec::new(),
        crowded: false,
        stopping: false,
    };
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
        let mut ready: BTreeMap<Waited, Vec<Source>> = BTreeMap::new();
        {
            let mut sources = vec![(Waited::Children, None)];
            let mut fds = vec![PollFd::new(children.as_fd(), PollFlags::POLLIN)];
            let again = std::mem::take(&mut self.crowded).then_some(ACCEPT_AGAIN);
            if again.is_none() {
                sources.push((Waited::Listener, None));
                fds.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
            }
            for attached in &self.leaving {
                sources.push((Waited::Leaving, None));
                fds.push(attached.interest());
            }
            for (id, running) in &self.running {
                for (source, fd) in running.streams.interests() {
                    sources.push((Waited::Container(id.clone()), Some(source)));
                    fds.push(fd);
                }
            }
            let waits = self.running.values().filter_map(|running| running.streams.waits());
            let leaving = (!self.leaving.is_empty()).then_some(Duration::from_secs(1));
            let most = waits.chain(leaving).chain(again).min().map_or(PollTimeout::NONE, |most| {
                PollTimeout::from(u16::try_from(most.as_millis()).unwrap_or(u16::MAX))
            });
            match poll(&mut fds, most) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            for ((waited, source), fd) in sources.into_iter().zip(fds) {
                let found = source.and_then(|source| source.found(&fd));
                if found.is_some() || (source.is_none() && fd.any().unwrap_or(true)) {
                    ready.entry(waited).or_default().extend(found);
                }
            }
        }
        for (id, running) in &mut self.running {
            let found = ready.remove(&Waited::Container(id.clone())).unwrap_or_default();
            running.streams.turn(&found, &running.container.config);
        }
        self.leaving.retain_mut(Attached::is_leaving);
        let is_ready = |waited: Waited| ready.contains_key(&waited);
        if is_ready(Waited::Children) {
            while children.read_signal()?.is_some() {}
            self.reap()?;
        }
        if is_ready(Waited::Listener) {
            // Whatever is wrong with one connection, the Pod goes on.
            match listener.accept() {
                Ok((stream, _)) => {
                    if let Err(error) = self.serve(stream) {
                        tracing::debug!(%error, "a kubelet's request");
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a kubelet's connection");
                    self.crowded = true;
                }
            }
        }
        Ok(())
    }

    fn serve(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(ASKING))?;
        stream.set_write_timeout(Some(ASKING))?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
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
                // They say nothing: what can be read is their end.
                self.subscribers.retain(|mut other| !matches!(other.read(&mut [0]), Ok(0)));
                self.subscribers.push(stream);
                return Ok(());
            }
            Ask::Attach { id, stdin } => match self.running.get_mut(&id.0) {
                Some(running) if running.streams.is_full() => Answer::Full,
                Some(running) => {
                    say(&stream, &Answer::Done)?;
                    return running.streams.attach(stream, stdin);
                }
                None => Answer::NotFound,
            },
            Ask::Shutdown => {
                self.end_all()?;
                self.say_goodbye();
                self.stopping = true;
                Answer::Done
            }
        };
        say(&stream, &answer)
    }

    /// Finds the process whose namespace the container is to live in.
    fn with_target(&self, init: InitConfig) -> Result<InitConfig, String> {
        let Some(target) = &init.container.target else { return Ok(init) };
        let found = self.running.values().find(|r| r.container.config.name == *target);
        let found = found.ok_or_else(|| format!("container {target:?} does not run"))?;
        Ok(InitConfig { target_pid: Some(found.pid), ..init })
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
            target_pid: None,
        };
        match self.with_target(init).and_then(|init| Ok((spawn(&init)?, init))) {
            Ok(((pid, streams), init)) => {
                container.state = ContainerState::Running { started_at: now_micros() };
                records::write(&dir.join("record.json"), &container)?;
                records::write(&dir.join("init.json"), &(pid, &init))?;
                let running = Running { container: container.clone(), cgroup, pid, streams };
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
        let left = running.streams.end(&running.container.config, exit_code);
        self.leaving.extend(left);
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
        let until = now() + KILLED;
        while !self.running.is_empty() {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => {
                    let found = self.running.iter().find(|(_, r)| r.pid == pid.as_raw());
                    if let Some(id) = found.map(|(id, _)| id.clone()) {
                        self.ended(&id, 137, Some(9))?;
                    }
                }
                Ok(WaitStatus::StillAlive) if now() < until => {
                    let mut none: [PollFd<'_>; 0] = [];
                    let _ = poll(&mut none, PollTimeout::from(2u8));
                }
                // What cannot be killed now goes when the kernel lets it.
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "a shim has no runtime whose clock it is")]
fn now() -> Instant {
    Instant::now()
}

impl Shim {
    /// Waits for those who were attached, but not for long.
    fn say_goodbye(&mut self) {
        let until = now() + LAST_WORDS;
        loop {
            self.leaving.retain_mut(Attached::is_leaving);
            let left = until.saturating_duration_since(now());
            if self.leaving.is_empty() || left.is_zero() {
                return;
            }
            let mut fds: Vec<PollFd<'_>> = self.leaving.iter().map(Attached::interest).collect();
            let millis = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
            let _ = poll(&mut fds, PollTimeout::from(millis));
        }
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
fn spawn(init: &InitConfig) -> Result<(i32, Streams), String> {
    let text = |error: io::Error| error.to_string();
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| text(e.into()));
    let (ours, theirs) = UnixStream::pair().map_err(text)?;
    let config = &init.container;
    let (mut held, mut given) = (None, None);
    if !config.tty {
        let ((out, stdout), (err, stderr)) = (pipe()?, pipe()?);
        let (stdin, input) = if config.stdin {
            let (stdin, input) = pipe()?;
            (Some(stdin), Some(input))
        } else {
            (None, None)
        };
        given = Some(Pipes { stdin, stdout, stderr });
        held = Some((out, err, input));
    }
    // This process has one thread, so a copy of it is whole, and there is no program to be loaded.
    let child = sys::fork_single_threaded().map_err(text)?;
    if child == 0 {
        init::main(theirs, given.as_ref(), init);
    }
    drop((theirs, given));
    let (mut said, mut files) = (Vec::new(), Vec::new());
    // Ends when the program has replaced the init, which closes its end.
    loop {
        let mut piece = [0; 4096];
        let (read, more) = sys::receive_files(&ours, &mut piece).map_err(text)?;
        if read == 0 {
            break;
        }
        said.extend_from_slice(piece.get(..read).unwrap_or_default());
        files.extend(more);
    }
    let _ = waitpid(Pid::from_raw(child), None);
    let said = String::from_utf8_lossy(&said);
    // Two processes write here; one of them tells the PID of the other.
    let (mut pid, mut error) = (0, String::new());
    for line in said.split_inclusive('\n') {
        match line.strip_prefix("pid ").and_then(|pid| pid.trim_end().parse().ok()) {
            Some(told) => pid = told,
            None if line == init::TERMINAL => {}
            None => error.push_str(line),
        }
    }
    if let Some(error) = error.strip_prefix("error ") {
        if pid > 0 {
            let _ = waitpid(Pid::from_raw(pid), None);
        }
        return Err(error.to_owned());
    }
    if pid == 0 {
        return Err("the container's init ended without a word".to_owned());
    }
    let streams = match (held, files.pop()) {
        (Some((out, err, input)), _) => Streams::pipes(out, err, input),
        (None, Some(master)) => Streams::terminal(master, config.stdin),
        (None, None) => Err(io::Error::other("the container's init gave no terminal")),
    };
    match streams {
        Ok(streams) => Ok((pid, streams)),
        Err(error) => {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            let _ = waitpid(Pid::from_raw(pid), None);
            Err(error.to_string())
        }
    }
}
