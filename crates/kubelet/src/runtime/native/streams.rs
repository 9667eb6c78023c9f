//! A container's standard streams, held by its shim: its outputs go into its log and to whoever is
//! attached, what they send goes into its input.
//!
//! Who is attached has a socket to the shim, with frames of kind, length and bytes. A slow one makes the
//! container wait, as a slow terminal would; one that takes nothing at all for a while is let go of.

use super::{now_micros, sys, terminal::set_nonblocking};
use crate::{log_file::rotated, runtime::ContainerConfig};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    poll::{PollFd, PollFlags},
    unistd::{read, write},
};
use std::{
    collections::VecDeque,
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

/// A line longer than this is written in parts.
const LINE_MAX: usize = 16 << 10;
/// Read at once.
const PIECE: usize = 16 << 10;
/// Waits for one who is attached before the container has to.
const OUTGOING_MAX: usize = 256 << 10;
/// Waits for the container to read it.
const INCOMING_MAX: usize = 64 << 10;
/// With what somebody had sent who left: what is beyond it is not kept.
const INCOMING_KEPT_MAX: usize = 512 << 10;
/// Attached to one container at once. Each takes one of the shim's open files.
pub(super) const ATTACHED_MAX: usize = 32;
/// Until a terminal of which nobody has the other end is looked at again.
const HUNG_UP: Duration = Duration::from_millis(200);
/// What a terminal holds at most, and a pipe that does not say it.
const BUFFERED: usize = 64 << 10;
/// Of one frame that comes in.
const FRAME_MAX: usize = 64 << 10;
/// Without taking a byte, one who makes the container wait is let go of.
const PATIENCE: Duration = Duration::from_secs(10);
/// Kind and length before a frame's bytes.
pub(super) const FRAME_HEAD: usize = 5;

/// Kinds of frames to the kubelet.
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
/// The exit code, four bytes; the last one.
pub(super) const ENDED: u8 = 3;
/// And from it.
pub(super) const STDIN: u8 = 0;
/// Columns and rows, two bytes each.
pub(super) const RESIZE: u8 = 4;
/// Nothing more comes for the standard input.
pub(super) const STDIN_END: u8 = 255;

/// A frame as it goes over the socket.
pub(super) fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&[kind][..], &len.to_be_bytes(), bytes].concat()
}

/// One of a container's outputs on its way into its log.
#[derive(Debug)]
struct Output {
    name: &'static str,
    kind: u8,
    pipe: OwnedFd,
    buffer: Vec<u8>,
    /// A terminal whose other end nobody had: when to look again.
    look_again: Option<Instant>,
}

/// What reading an output has brought.
enum Got {
    Bytes(usize),
    /// Nothing now.
    Later,
    End,
}

/// A container's standard input.
#[derive(Debug)]
struct Input {
    file: OwnedFd,
    /// Not taken by the container yet.
    waiting: VecDeque<u8>,
    /// To be closed when nothing waits any more.
    closing: bool,
}

/// Somebody who is attached.
#[derive(Debug)]
pub(super) struct Attached {
    socket: UnixStream,
    stdin: bool,
    incoming: Vec<u8>,
    outgoing: VecDeque<u8>,
    /// When it last took something, or had nothing to take.
    progress: Instant,
}

/// Where something can be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Output(usize),
    Input,
    Attached(usize),
    /// One that sends nothing more but what has come already.
    Left(usize),
}

impl Source {
    /// What was found where this was waited for; `None` for nothing.
    pub(super) fn found(self, fd: &PollFd<'_>) -> Option<Self> {
        // What has a flag that is not known by name is `None` here.
        let found = fd.revents().unwrap_or(left());
        let over = found.intersects(left() | PollFlags::POLLHUP | PollFlags::POLLERR);
        match self {
            _ if found.is_empty() => None,
            Self::Attached(at) if over => Some(Self::Left(at)),
            Self::Output(_) | Self::Input | Self::Attached(_) | Self::Left(_) => Some(self),
        }
    }
}

/// The other side of a socket sends nothing any more.
fn left() -> PollFlags {
    PollFlags::from_bits_retain(libc::POLLRDHUP)
}

/// A container's ends that its shim holds.
#[derive(Debug)]
pub(super) struct Streams {
    outputs: Vec<Output>,
    input: Option<Input>,
    /// A terminal, to be told its size.
    terminal: Option<OwnedFd>,
    attached: Vec<Attached>,
}

#[expect(clippy::disallowed_methods, reason = "a shim has no runtime whose clock could be paused")]
fn now() -> Instant {
    Instant::now()
}

impl Streams {
    /// Of a container with pipes.
    pub(super) fn pipes(out: OwnedFd, err: OwnedFd, stdin: Option<OwnedFd>) -> io::Result<Self> {
        // A writer may be left when the container has ended: another one that was given it.
        set_nonblocking(&out)?;
        set_nonblocking(&err)?;
        let outputs = vec![Output::new("stdout", STDOUT, out), Output::new("stderr", STDERR, err)];
        let input = stdin.map(Input::new).transpose()?;
        Ok(Self { outputs, input, terminal: None, attached: Vec::new() })
    }

    /// Of a container with a terminal, of which this is the end that is held.
    pub(super) fn terminal(master: OwnedFd, stdin: bool) -> io::Result<Self> {
        set_nonblocking(&master)?;
        let pipe = master.try_clone()?;
        let output = Output::new("stdout", STDOUT, pipe);
        let input = stdin.then(|| master.try_clone().and_then(Input::new)).transpose()?;
        Ok(Self { outputs: vec![output], input, terminal: Some(master), attached: Vec::new() })
    }

    /// Somebody more to hear what the container says from now on.
    pub(super) fn attach(&mut self, socket: UnixStream, stdin: bool) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        self.attached.push(Attached {
            socket,
            stdin: stdin && self.input.is_some(),
            incoming: Vec::new(),
            outgoing: VecDeque::new(),
            progress: now(),
        });
        Ok(())
    }

    /// Whether nobody more is attached.
    pub(super) fn is_full(&self) -> bool {
        self.attached.len() >= ATTACHED_MAX
    }

    /// What to wait for.
    pub(super) fn interests(&self) -> Vec<(Source, PollFd<'_>)> {
        let mut all = Vec::new();
        if self.attached.iter().all(|attached| attached.outgoing.len() < OUTGOING_MAX) {
            let now = now();
            for (at, output) in self.outputs.iter().enumerate() {
                if output.look_again.is_some_and(|then| now < then) {
                    continue;
                }
                let fd = PollFd::new(output.pipe.as_fd(), PollFlags::POLLIN);
                all.push((Source::Output(at), fd));
            }
        }
        let waiting = self.input.as_ref().map_or(0, |input| input.waiting.len());
        if let Some(input) = self.input.as_ref().filter(|_| waiting > 0) {
            all.push((Source::Input, PollFd::new(input.file.as_fd(), PollFlags::POLLOUT)));
        }
        for (at, attached) in self.attached.iter().enumerate() {
            // Who leaves is let go of at once, and so is reported once.
            let mut wanted = left();
            wanted.set(PollFlags::POLLIN, waiting < INCOMING_MAX);
            wanted.set(PollFlags::POLLOUT, !attached.outgoing.is_empty());
            all.push((Source::Attached(at), PollFd::new(attached.socket.as_fd(), wanted)));
        }
        all
    }

    /// For how long to wait at most: somebody has to be let go of, or something looked at again, if
    /// nothing happens.
    pub(super) fn waits(&self) -> Option<Duration> {
        if self.outputs.iter().any(|output| output.look_again.is_some()) {
            return Some(HUNG_UP);
        }
        let full = |attached: &Attached| attached.outgoing.len() >= OUTGOING_MAX;
        self.attached.iter().any(full).then_some(Duration::from_secs(1))
    }

    /// Deals with what is ready.
    pub(super) fn turn(&mut self, ready: &[Source], config: &ContainerConfig) {
        let mut ended = Vec::new();
        for source in ready {
            match *source {
                Source::Output(at) => {
                    if let Got::End = self.copy(at, config) {
                        ended.push(at);
                    }
                }
                Source::Input => {
                    if let Some(input) = &mut self.input {
                        input.flush();
                    }
                }
                Source::Attached(at) => self.hear(at, config, false),
                Source::Left(at) => self.hear(at, config, true),
            }
        }
        for at in ended.into_iter().rev() {
            match self.outputs.get_mut(at) {
                // The container may open it again.
                Some(output) if self.terminal.is_some() => {
                    output.look_again = Some(now() + HUNG_UP);
                }
                _ => drop(self.outputs.remove(at)),
            }
        }
        let patience = |attached: &Attached| {
            attached.outgoing.len() < OUTGOING_MAX || attached.progress.elapsed() < PATIENCE
        };
        let gone = self.attached.extract_if(.., |attached| !attached.send() || !patience(attached));
        let with_input = gone.filter(|attached| attached.stdin).count() > 0;
        if with_input && config.stdin_once {
            self.close_input();
        }
        if self.input.as_ref().is_some_and(|input| input.closing && input.waiting.is_empty()) {
            self.input = None;
        }
    }

    /// The container has ended: what is left of its outputs, and those who have to be told still.
    pub(super) fn end(mut self, config: &ContainerConfig, code: i32) -> Vec<Attached> {
        for at in 0..self.outputs.len() {
            // Others may write still: what this one has written is what there is now.
            let mut left = self.outputs.get(at).map_or(0, Output::holds_at_most);
            while left > 0
                && let Got::Bytes(bytes) = self.copy(at, config)
            {
                left = left.saturating_sub(bytes);
            }
            if let Some(output) = self.outputs.get_mut(at) {
                output.log(&[], config);
            }
        }
        for attached in &mut self.attached {
            attached.outgoing.extend(frame(ENDED, &code.to_be_bytes()));
            attached.send();
        }
        self.attached
    }

    /// Copies what is there into the log and to whoever is attached.
    fn copy(&mut self, at: usize, config: &ContainerConfig) -> Got {
        let Some(output) = self.outputs.get_mut(at) else { return Got::End };
        let mut piece = [0; PIECE];
        let got = match read(&output.pipe, &mut piece) {
            Ok(bytes) if bytes > 0 => Got::Bytes(bytes),
            Err(Errno::EAGAIN | Errno::EINTR) => {
                output.look_again = None;
                return Got::Later;
            }
            // A terminal of which nobody has the other end any more says EIO.
            Ok(_) | Err(_) => Got::End,
        };
        let bytes = if let Got::Bytes(bytes) = got { bytes } else { 0 };
        let fresh = piece.get(..bytes).unwrap_or_default();
        output.look_again = None;
        output.log(fresh, config);
        if !fresh.is_empty() {
            let frame = frame(output.kind, fresh);
            for attached in &mut self.attached {
                if attached.outgoing.is_empty() {
                    attached.progress = now();
                }
                attached.outgoing.extend(&frame);
            }
        }
        got
    }

    /// Reads what somebody has to say, to its end of one who has left; marks who has nothing more to
    /// say.
    fn hear(&mut self, at: usize, config: &ContainerConfig, left: bool) {
        let Some(attached) = self.attached.get_mut(at) else { return };
        let waiting = self.input.as_ref().map_or(0, |input| input.waiting.len());
        if waiting >= INCOMING_MAX && !left {
            return;
        }
        let mut over = false;
        let mut piece = [0; PIECE];
        loop {
            match attached.socket.read(&mut piece) {
                Ok(bytes) if bytes > 0 => {
                    attached.incoming.extend_from_slice(piece.get(..bytes).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    over |= left;
                    break;
                }
                Ok(_) | Err(_) => {
                    over = true;
                    break;
                }
            }
            // Of one who has left no more is there than a socket holds.
            if !left {
                break;
            }
        }
        let mut close = false;
        while let Some((head, rest)) = attached.incoming.split_first_chunk::<FRAME_HEAD>() {
            let [kind, len @ ..] = *head;
            let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
            if len > FRAME_MAX {
                over = true;
                break;
            }
            let Some(bytes) = rest.get(..len) else { break };
            match (kind, bytes, &mut self.input, &self.terminal) {
                (STDIN, bytes, Some(input), _) if attached.stdin && !input.closing => {
                    let room = INCOMING_KEPT_MAX.saturating_sub(input.waiting.len());
                    input.waiting.extend(bytes.iter().take(room));
                }
                (RESIZE, [a, b, c, d], _, Some(terminal)) => {
                    let size = |high, low| u16::from_be_bytes([high, low]);
                    let _ = sys::resize(terminal.as_fd(), size(*a, *b), size(*c, *d));
                }
                (STDIN_END, _, Some(_), _) => close |= attached.stdin,
                _ => {}
            }
            attached.incoming.drain(..FRAME_HEAD + len);
        }
        if over {
            attached.leave();
        }
        if let Some(input) = &mut self.input {
            input.flush();
        }
        if close && config.stdin_once {
            self.close_input();
        }
    }

    /// A terminal has no end of input.
    fn close_input(&mut self) {
        if let (Some(input), None) = (&mut self.input, &self.terminal) {
            input.closing = true;
        }
    }
}

impl Input {
    fn new(file: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&file)?;
        Ok(Self { file, waiting: VecDeque::new(), closing: false })
    }

    /// Gives the container what it takes now.
    fn flush(&mut self) {
        while !self.waiting.is_empty() {
            match write(&self.file, self.waiting.as_slices().0) {
                Ok(bytes) if bytes > 0 => drop(self.waiting.drain(..bytes)),
                Err(Errno::EINTR) => {}
                Ok(_) | Err(Errno::EAGAIN) => return,
                // Nobody reads it any more, and nobody will.
                Err(_) => {
                    self.waiting.clear();
                    self.closing = true;
                }
            }
        }
    }
}

impl Attached {
    /// From now on sending to it fails.
    fn leave(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        self.outgoing.push_back(0);
        self.incoming.clear();
    }

    /// Sends what the other side takes now; false when it is gone.
    pub(super) fn send(&mut self) -> bool {
        while !self.outgoing.is_empty() {
            match self.socket.write(self.outgoing.as_slices().0) {
                Ok(bytes) if bytes > 0 => {
                    self.outgoing.drain(..bytes);
                    self.progress = now();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }

    /// Of one whose container has ended: whether there is something to send that may still be taken.
    pub(super) fn is_leaving(&mut self) -> bool {
        self.send() && !self.outgoing.is_empty() && self.progress.elapsed() < PATIENCE
    }

    /// To wait until it takes more.
    pub(super) fn interest(&self) -> PollFd<'_> {
        PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)
    }
}

impl Output {
    fn new(name: &'static str, kind: u8, pipe: OwnedFd) -> Self {
        Self { name, kind, pipe, buffer: Vec::new(), look_again: None }
    }

    /// Bytes that may wait to be read.
    fn holds_at_most(&self) -> usize {
        let size = fcntl(&self.pipe, FcntlArg::F_GETPIPE_SZ);
        size.ok().and_then(|size| usize::try_from(size).ok()).unwrap_or(BUFFERED)
    }

    /// Writes whole lines into the log, and a part where there are no more bytes to come.
    fn log(&mut self, fresh: &[u8], config: &ContainerConfig) {
        self.buffer.extend_from_slice(fresh);
        let mut out = Vec::new();
        let stamp = api::meta::micro_time(i64::try_from(now_micros()).unwrap_or_default());
        let mut write = |line: &[u8], tag: &str| {
            out.extend(format!("{stamp} {} {tag} ", self.name).into_bytes());
            out.extend(line);
            out.push(b'\n');
        };
        while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            write(line.get(..end).unwrap_or_default(), "F");
        }
        if self.buffer.len() >= LINE_MAX || (fresh.is_empty() && !self.buffer.is_empty()) {
            write(&std::mem::take(&mut self.buffer), "P");
        }
        if let Err(error) = append(config, &out) {
            tracing::debug!(%error, "log not written");
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{runtime::ContainerState, testing::container};
    use nix::{
        fcntl::OFlag,
        poll::{PollTimeout, poll},
        sys::stat::Mode,
        unistd::pipe2,
    };

    struct Held {
        streams: Streams,
        config: ContainerConfig,
        dir: tempfile::TempDir,
    }

    impl Held {
        fn new(streams: Streams) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut config = container("c", 0, ContainerState::Running { started_at: 0 }).config;
            config.log_path = dir.path().join("0.log");
            config.log_bytes_max = 1 << 20;
            Self { streams, config, dir }
        }

        /// One turn of a shim; whether anything was ready.
        fn turn(&mut self) -> bool {
            let (sources, mut fds): (Vec<_>, Vec<_>) = self.streams.interests().into_iter().unzip();
            poll(&mut fds, PollTimeout::from(50u8)).unwrap();
            let ready: Vec<Source> =
                sources.iter().zip(&fds).filter_map(|(source, fd)| source.found(fd)).collect();
            self.streams.turn(&ready, &self.config);
            !ready.is_empty()
        }

        fn log(&self) -> String {
            fs::read_to_string(self.dir.path().join("0.log")).unwrap_or_default()
        }
    }

    /// The ends of a container with pipes: outputs to write to, input to read from.
    fn pipes() -> (Streams, OwnedFd, OwnedFd, OwnedFd) {
        let pipe = || pipe2(OFlag::O_CLOEXEC).unwrap();
        let ((out, stdout), (err, stderr), (stdin, input)) = (pipe(), pipe(), pipe());
        (Streams::pipes(out, err, Some(input)).unwrap(), stdout, stderr, stdin)
    }

    #[test]
    fn who_leaves_is_let_go_of_while_the_container_reads_nothing() {
        let (streams, _stdout, _stderr, _stdin) = pipes();
        let mut held = Held::new(streams);
        for round in 0..8 {
            let (mut client, theirs) = UnixStream::pair().unwrap();
            let (silent, other) = UnixStream::pair().unwrap();
            held.streams.attach(theirs, true).unwrap();
            held.streams.attach(other, false).unwrap();
            client.set_nonblocking(true).unwrap();
            let piece = frame(STDIN, &[7; 8 << 10]);
            let mut refused = 0;
            while refused < 2 {
                match client.write(&piece) {
                    Ok(sent) if sent == piece.len() => refused = 0,
                    Ok(_) | Err(_) => refused += 1,
                }
                held.turn();
            }
            assert_eq!(held.streams.attached.len(), 2, "round {round}");
            assert!(!held.turn(), "nothing happens, and so nothing is ready");
            drop((client, silent));
            held.turn();
            assert_eq!(held.streams.attached.len(), 0, "round {round}");
            let waiting = held.streams.input.as_ref().unwrap().waiting.len();
            assert!((INCOMING_MAX..=INCOMING_KEPT_MAX).contains(&waiting), "{waiting}");
        }
    }

    #[test]
    fn what_was_typed_before_leaving_comes_to_the_container() {
        let (streams, _stdout, _stderr, stdin) = pipes();
        let mut held = Held::new(streams);
        let (mut client, theirs) = UnixStream::pair().unwrap();
        held.streams.attach(theirs, true).unwrap();
        for _ in 0..10 {
            client.write_all(&frame(STDIN, &[7; 4 << 10])).unwrap();
        }
        drop(client);
        held.turn();
        let mut bytes = vec![0; 64 << 10];
        assert_eq!(read(&stdin, &mut bytes), Ok(40 << 10));
    }

    #[test]
    fn so_many_may_be_attached() {
        let (streams, ..) = pipes();
        let mut held = Held::new(streams);
        let mut clients = Vec::new();
        while !held.streams.is_full() {
            let (client, theirs) = UnixStream::pair().unwrap();
            held.streams.attach(theirs, true).unwrap();
            clients.push(client);
        }
        assert_eq!(clients.len(), ATTACHED_MAX);
        drop(clients.pop());
        while held.streams.is_full() {
            held.turn();
        }
    }

    #[test]
    fn the_end_of_a_container_does_not_wait_for_others_that_write_to_its_outputs() {
        let (streams, stdout, _stderr, _stdin) = pipes();
        let mut held = Held::new(streams);
        // Of short lines a full pipe is more than a log of the usual size takes.
        held.config.log_bytes_max = 16 << 20;
        write(&stdout, b"whole\npart").unwrap();
        let mut other =
            std::process::Command::new("yes").stdout(stdout.try_clone().unwrap()).spawn().unwrap();
        let Held { streams, config, dir } = held;
        assert!(streams.end(&config, 0).is_empty());
        let log = fs::read_to_string(dir.path().join("0.log")).unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(log.contains(" F whole\n"), "{log}");
        assert!(log.len() < 4 << 20, "{}", log.len());

        let (streams, stdout, _stderr, _stdin) = pipes();
        let Held { streams, config, dir } = Held::new(streams);
        write(&stdout, b"part").unwrap();
        streams.end(&config, 0);
        let log = fs::read_to_string(dir.path().join("0.log")).unwrap();
        assert!(log.ends_with(" P part\n"), "{log}");
    }

    #[test]
    fn a_terminal_that_is_opened_again_is_heard_again() {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = nix::fcntl::open("/dev/ptmx", flags, Mode::empty()).unwrap();
        let held = master.try_clone().unwrap();
        let end = sys::terminal_end(held.as_fd()).unwrap();
        let mut shim = Held::new(Streams::terminal(master, false).unwrap());
        write(&end, b"first\n").unwrap();
        while !shim.log().contains("first") {
            shim.turn();
        }
        drop(end);
        while shim.streams.waits().is_none() {
            shim.turn();
        }
        assert!(!shim.turn(), "it is not looked at again and again");
        let end = sys::terminal_end(held.as_fd()).unwrap();
        write(&end, b"second\n").unwrap();
        while !shim.log().contains("second") {
            shim.turn();
        }
        assert_eq!(shim.streams.waits(), None);
    }
}
