//! Programs beside a container's own: a helper process enters its namespaces, starts the program, and
//! waits for it.
//!
//! Helper and kubelet talk over one socket. Over it the program's ends of its pipes come in, or the end
//! of its terminal that is held goes out. Its end, from whatever side, means that nobody wants the
//! program any more: it is hung up, as by a terminal that goes away, and a moment later killed, together
//! with its process group.

use super::{
    failed,
    init::{self, Fallible, InitConfig, step},
    sys,
    terminal::{self, Master},
};
use crate::runtime::{ExecConfig, ExecSession, RuntimeError};
use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns},
    sys::{
        signal::{SigSet, Signal, kill, killpg},
        signalfd::{SfdFlags, SignalFd},
        stat::Mode,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, pipe2, setsid},
};
use serde::{Deserialize, Serialize};
use std::{
    convert::Infallible,
    ffi::CString,
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{ExitCode, Stdio},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, Interest},
    net::unix::pipe,
    process::Command,
    sync::{mpsc, oneshot},
};

/// Between hanging up and killing.
const GRACE_MILLIS: u16 = 1000;
/// How a program has ended of which nobody knows.
const LOST: i32 = 128 + libc::SIGKILL;

/// What the helper is told, a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    /// The container's first process.
    pid: i32,
    init: InitConfig,
    argv: Vec<String>,
    tty: bool,
}

/// What the helper says, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    /// The program runs.
    Started,
    /// It never will.
    Failed(String),
    /// It has ended, with this code.
    Ended(i32),
}

/// Before the lines: one byte, with the terminal if there is one.
const FIRST: usize = 1;

/// Starts a program in the container whose first process is `pid`.
pub(super) async fn start(
    helper: &Path,
    pid: i32,
    init: InitConfig,
    config: &ExecConfig,
) -> Result<ExecSession, RuntimeError> {
    let socket = || failed("talk with the exec helper");
    let (ours, theirs) = UnixStream::pair().map_err(socket())?;
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|e| failed("make a pipe")(e.into()));
    let (mut given, mut stdin, mut outputs) = (Vec::new(), None, None);
    if !config.tty {
        let program_stdin = if config.stdin {
            let (theirs, ours) = pipe()?;
            stdin = Some(ours);
            theirs
        } else {
            let null =
                nix::fcntl::open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
            null.map_err(|e| failed("open /dev/null")(e.into()))?
        };
        let ((out, their_out), (err, their_err)) = (pipe()?, pipe()?);
        given = vec![program_stdin, their_out, their_err];
        outputs = Some((out, err));
    }
    let mut child = Command::new(helper)
        .arg("container-exec")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed("start the exec helper"))?;
    let borrowed: Vec<_> = given.iter().map(|file| file.as_fd()).collect();
    sys::send_files(&ours, &[0; FIRST], &borrowed).map_err(socket())?;
    drop(given);
    ours.set_nonblocking(true).map_err(socket())?;
    let mut control = tokio::net::UnixStream::from_std(ours).map_err(socket())?;
    let request = Request { pid, init, argv: config.argv.clone(), tty: config.tty };
    let mut line = serde_json::to_vec(&request).map_err(|e| socket()(e.into()))?;
    line.push(b'\n');
    control.write_all(&line).await.map_err(socket())?;
    let master = receive(&control).await.map_err(socket())?;
    let (from_helper, to_helper) = control.into_split();
    let mut lines = tokio::io::BufReader::new(from_helper).lines();
    let said = lines.next_line().await.map_err(socket())?;
    match said.as_deref().map(serde_json::from_str) {
        Some(Ok(Said::Started)) => {}
        Some(Ok(Said::Failed(detail))) => return Err(RuntimeError::Start { detail }),
        Some(Ok(Said::Ended(_)) | Err(_)) | None => {
            let detail = "the exec helper ended without a word".to_owned();
            return Err(RuntimeError::Start { detail });
        }
    }
    let (exited, exit) = oneshot::channel();
    let (resize, mut sizes) = mpsc::channel::<(u16, u16)>(4);
    let streams = || failed("take the program's streams");
    let (stdin, stdout, stderr) = match (master, outputs) {
        (Some(master), None) => {
            let master = Master::new(master).map_err(streams())?;
            let sized = master.clone();
            #[expect(clippy::disallowed_methods, reason = "ends with the session's own end")]
            tokio::spawn(async move {
                while let Some((columns, rows)) = sizes.recv().await {
                    let _ = sized.resize(columns, rows);
                }
            });
            let stdin = config.stdin.then(|| Box::new(master.clone()) as _);
            (stdin, Box::new(master) as _, None)
        }
        (None, Some((out, err))) => {
            let receiver = |fd| pipe::Receiver::from_owned_fd(fd).map_err(streams());
            let stdin = match stdin {
                Some(stdin) => Some(pipe::Sender::from_owned_fd(stdin).map_err(streams())?),
                None => None,
            };
            let (out, err) = (receiver(out)?, receiver(err)?);
            (stdin.map(|stdin| Box::new(stdin) as _), Box::new(out) as _, Some(Box::new(err) as _))
        }
        (None, None) | (Some(_), Some(_)) => {
            let detail = "the exec helper gave no terminal".to_owned();
            return Err(RuntimeError::Start { detail });
        }
    };
    #[expect(clippy::disallowed_methods, reason = "ends with the program or with its caller")]
    tokio::spawn(async move {
        let mut exited = exited;
        let end = async {
            let said = lines.next_line().await.ok().flatten();
            match said.as_deref().map(serde_json::from_str) {
                Some(Ok(Said::Ended(code))) => code,
                _ => LOST,
            }
        };
        let code = tokio::select! {
            code = end => Some(code),
            () = exited.closed() => None,
        };
        // Nobody waits any more: the helper sees it, and ends the program.
        drop((lines, to_helper));
        if let Some(code) = code {
            let _ = exited.send(code);
        }
        let _ = child.wait().await;
    });
    Ok(ExecSession { stdin, stdout, stderr, resize, exit })
}

/// The terminal, if there is one.
async fn receive(control: &tokio::net::UnixStream) -> io::Result<Option<OwnedFd>> {
    loop {
        control.readable().await?;
        let received = control.try_io(Interest::READABLE, || {
            let mut first = [0; FIRST];
            sys::receive_files(control, &mut first)
        });
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => return Ok(received?.1.pop()),
        }
    }
}

/// Runs as `container-exec`, with the socket as its standard input.
pub(super) fn main() -> ExitCode {
    let socket = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let Ok(mut control) = socket else { return ExitCode::FAILURE };
    match run(&mut control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = say(&mut control, &Said::Failed(error));
            ExitCode::FAILURE
        }
    }
}

fn say(control: &mut UnixStream, said: &Said) -> io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    control.write_all(&line)
}

/// The program's own standard streams.
enum Streams {
    Pipes(Vec<OwnedFd>),
    Terminal(OwnedFd),
}

fn run(control: &mut UnixStream) -> Fallible<()> {
    let prepared = prepare(control);
    let (request, streams) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            // The byte that the kubelet waits for comes without a terminal.
            let _ = control.write_all(&[0; FIRST]);
            return Err(error);
        }
    };
    // To be told of the program's end.
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    step("block SIGCHLD", mask.thread_block())?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let ended = step("listen for SIGCHLD", SignalFd::with_flags(&mask, flags))?;
    let (mut ours, mut theirs) = step("make a socket", UnixStream::pair())?;
    // Only a child is in the PID namespace.
    let child = step("fork", sys::fork_single_threaded())?;
    if child == 0 {
        let Err(error) = program(request, streams);
        let _ = theirs.write_all(error.as_bytes());
        std::process::exit(127);
    }
    drop((theirs, streams));
    let child = Pid::from_raw(child);
    let mut error = String::new();
    // Ends when the program has taken the child's place.
    step("wait for the start", ours.read_to_string(&mut error))?;
    if !error.is_empty() {
        let _ = waitpid(child, None);
        return Err(format!("exec failed: unable to start container process: {error}"));
    }
    step("tell of the start", say(control, &Said::Started))?;
    let code = wait(control, &ended, child)?;
    let _ = say(control, &Said::Ended(code));
    Ok(())
}

/// Takes the request and goes where the container is.
fn prepare(control: &mut UnixStream) -> Fallible<(Request, Streams)> {
    let mut first = [0; FIRST];
    let (_, given) = step("receive the streams", sys::receive_files(&*control, &mut first))?;
    // What the program has for its standard input comes later; it must not be the socket.
    let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
    step("replace standard input", null.and_then(dup2_stdin))?;
    let mut line = String::new();
    let reader = step("share the socket", control.try_clone())?;
    step("read the request", BufReader::new(reader).read_line(&mut line))?;
    let request: Request = step("read the request", serde_json::from_str(&line))?;
    // Not even the root of a container may look into this process, which is still the node's.
    let _ = nix::sys::prctl::set_dumpable(false);
    let _ = request.init.cgroup.enter();
    let pid = request.pid;
    let open = |name: &str| {
        step(name, fs::File::open(format!("/proc/{pid}/ns/{name}")).map(OwnedFd::from))
    };
    let namespaces =
        ["ipc", "uts", "net", "pid", "mnt"].map(open).into_iter().collect::<Fallible<Vec<_>>>()?;
    // The number may have been given to another process since it was written down.
    if !request.init.cgroup.may_hold(pid) {
        return Err("the container has ended".to_owned());
    }
    for namespace in namespaces {
        step("setns", setns(namespace, CloneFlags::empty()))?;
    }
    step("chdir", chdir(Path::new("/")))?;
    if !request.tty {
        step("say that there is no terminal", control.write_all(&[0; FIRST]))?;
        return Ok((request, Streams::Pipes(given)));
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = step("open /", nix::fcntl::open("/", flags, Mode::empty()))?;
    let opened = step("open a terminal", terminal::open(&root))?;
    let handed = sys::send_files(&*control, &[0; FIRST], &[opened.master.as_fd()]);
    step("hand over the terminal", handed)?;
    Ok((request, Streams::Terminal(opened.end)))
}

/// Becomes the program.
fn program(request: Request, streams: Streams) -> Fallible<Infallible> {
    step("setsid", setsid())?;
    match &streams {
        Streams::Terminal(end) => step("take the terminal", init::take_as_standard(end))?,
        Streams::Pipes(given) => match given.as_slice() {
            [stdin, stdout, stderr] => {
                let taken = dup2_stdin(stdin)
                    .and_then(|()| dup2_stdout(stdout))
                    .and_then(|()| dup2_stderr(stderr));
                step("take the streams", taken)?;
            }
            _ => return Err("the streams are missing".to_owned()),
        },
    }
    let mut inner = request.init;
    inner.container.argv = request.argv;
    if request.tty && inner.container.env.iter().all(|(key, _)| key != "TERM") {
        inner.container.env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    let _ = chdir(init::working_dir(&inner));
    let identity = init::identity(&inner)?;
    init::restrict(&inner, &identity)?;
    step("reset signals", sys::default_signals())?;
    let program = init::find_program(&inner)?;
    let text = |s: &str| step("an argument", CString::new(s));
    let argv: Vec<CString> =
        inner.container.argv.iter().map(|a| text(a)).collect::<Result<_, _>>()?;
    let env = init::environment(&inner, &identity)?;
    step(&format!("exec {program:?}"), execve(&text(&program)?, &argv, &env))
}

/// Until the program has ended; its code. Ends it when the other side is gone.
fn wait(control: &UnixStream, ended: &SignalFd, child: Pid) -> Fallible<i32> {
    let mut wanted = true;
    loop {
        while matches!(ended.read_signal(), Ok(Some(_))) {}
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(format!("wait: {error}")),
        }
        let mut fds = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        if wanted {
            fds.push(PollFd::new(control.as_fd(), PollFlags::POLLIN));
        }
        let most = if wanted { PollTimeout::NONE } else { PollTimeout::from(GRACE_MILLIS) };
        let found = poll(&mut fds, most);
        let gone = fds.get(1).is_some_and(|fd| fd.any().unwrap_or(true));
        if gone {
            wanted = false;
            let _ = killpg(child, Signal::SIGHUP);
            let _ = killpg(child, Signal::SIGCONT);
        } else if !wanted && found == Ok(0) {
            let _ = killpg(child, Signal::SIGKILL);
            let _ = kill(child, Signal::SIGKILL);
        }
    }
}
