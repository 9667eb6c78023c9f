//! The kubelet's half of being attached to a container: frames to and from its shim.

use super::{
    shim::Answer,
    streams::{ATTACHED_MAX, ENDED, FRAME_HEAD, RESIZE, STDERR, STDIN, STDIN_END, STDOUT, frame},
};
use crate::runtime::ExecSession;
use std::io;
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
        DuplexStream, duplex,
    },
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
};

/// Bytes that wait to be read here, beside those that wait in the shim.
const PIPE: usize = 64 << 10;
const PIECE: usize = 16 << 10;
/// How a container has ended of which its shim does not say it.
const LOST: i32 = 128 + libc::SIGKILL;

/// Goes on after the shim was asked; `None` when there is no such container.
///
/// # Errors
/// The shim does not answer, or does not know what that is.
pub(super) async fn session(
    stream: UnixStream,
    stdin: bool,
    tty: bool,
) -> io::Result<Option<ExecSession>> {
    let (read, write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = String::new();
    read.read_line(&mut line).await?;
    match serde_json::from_str(&line)? {
        Answer::Done => {}
        Answer::Full => {
            let most = format!("{ATTACHED_MAX} are attached to it, which is as many as may be");
            return Err(io::Error::other(most));
        }
        Answer::Container(_) | Answer::NotFound | Answer::Ended => return Ok(None),
    }
    let (stdout, out) = duplex(PIPE);
    let (stderr, err) = duplex(PIPE);
    let (input, from_input) = duplex(PIPE);
    let (resize, sizes) = mpsc::channel(4);
    let (exited, exit) = oneshot::channel();
    #[expect(clippy::disallowed_methods, reason = "ends with the session, or with the container")]
    tokio::spawn(async move {
        let mut exited: oneshot::Sender<i32> = exited;
        let from_input = stdin.then_some(from_input);
        let code = tokio::select! {
            code = hear(read, out, err) => Some(code),
            never = say(write, from_input, sizes) => match never {},
            () = exited.closed() => None,
        };
        if let Some(code) = code {
            let _ = exited.send(code);
        }
    });
    Ok(Some(ExecSession {
        stdin: stdin.then(|| Box::new(input) as _),
        stdout: Box::new(stdout),
        stderr: (!tty).then(|| Box::new(stderr) as Box<dyn AsyncRead + Send + Unpin>),
        resize,
        exit,
    }))
}

/// Until the container has ended, or its shim has.
async fn hear(
    mut from: BufReader<OwnedReadHalf>,
    mut out: DuplexStream,
    mut err: DuplexStream,
) -> i32 {
    let mut bytes = Vec::new();
    loop {
        let mut head = [0; FRAME_HEAD];
        if from.read_exact(&mut head).await.is_err() {
            return LOST;
        }
        let [kind, len @ ..] = head;
        bytes.clear();
        let len = u64::from(u32::from_be_bytes(len));
        if (&mut from).take(len).read_to_end(&mut bytes).await.is_err() {
            return LOST;
        }
        match kind {
            // Who does not listen any more lets go of the whole session.
            STDOUT => drop(out.write_all(&bytes).await),
            STDERR => drop(err.write_all(&bytes).await),
            ENDED => return bytes.first_chunk().map_or(LOST, |code| i32::from_be_bytes(*code)),
            _ => {}
        }
    }
}

/// What comes from the other side; never ends by itself, since the container goes on.
async fn say(
    mut to: OwnedWriteHalf,
    mut input: Option<DuplexStream>,
    mut sizes: mpsc::Receiver<(u16, u16)>,
) -> std::convert::Infallible {
    let mut piece = vec![0; PIECE];
    loop {
        let frame = tokio::select! {
            read = async {
                match &mut input {
                    Some(input) => input.read(&mut piece).await,
                    None => std::future::pending().await,
                }
            } => {
                let bytes = piece.get(..read.unwrap_or(0)).unwrap_or_default();
                if bytes.is_empty() {
                    input = None;
                    frame(STDIN_END, &[])
                } else {
                    frame(STDIN, bytes)
                }
            }
            Some((columns, rows)) = sizes.recv() => {
                frame(RESIZE, &[columns.to_be_bytes(), rows.to_be_bytes()].concat())
            }
        };
        if to.write_all(&frame).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
