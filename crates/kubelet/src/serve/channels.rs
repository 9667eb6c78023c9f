//! Streams as channels of a WebSocket: each message begins with its channel's number.
//!
//! 0 is standard input, 1 and 2 the outputs, 3 says how it ended, 4 is the terminal's size. In the
//! newer protocol, 255 and a number say that nothing more comes on that channel.

use super::{
    program::{Ends, Wanted, pipe},
    refuse,
};
use crate::spdy::Taken;
use axum::{
    body::Bytes,
    extract::{
        WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code},
    },
    http::StatusCode,
    response::Response,
};
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

pub(super) const V4: &str = "v4.channel.k8s.io";
pub(super) const V5: &str = "v5.channel.k8s.io";

/// Of one message. Clients send a whole file in one.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Messages on their way out.
const QUEUE: usize = 4;
const PIECE: usize = 16 << 10;
/// While a program does not read, nothing is read here, and the client's pings are not answered. It
/// hears of us all the same; and we of its end.
const PONG_EVERY: Duration = Duration::from_secs(5);

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// With bounds for what may come.
pub(super) fn limited(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade.max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX)
}

/// None of the client's protocols is spoken here.
pub(super) fn no_protocol(known: &[&str]) -> Response {
    let text = format!("unable to upgrade: unable to negotiate protocol: server accepts {known:?}");
    refuse(StatusCode::FORBIDDEN, text)
}

/// A message of a channel.
pub(super) fn message(channel: u8, data: &[u8]) -> Message {
    Message::Binary([&[channel], data].concat().into())
}

/// The last one: without its code, kubectl takes the end for an accident.
pub(super) fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: "".into() }))
}

/// A message's channel and data; `None` for what has none.
pub(super) fn parts(message: Message) -> Option<(u8, Bytes)> {
    let bytes = match message {
        Message::Binary(bytes) => bytes,
        // Some clients send text as text.
        Message::Text(text) => text.into(),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return None,
    };
    let channel = *bytes.first()?;
    Some((channel, bytes.slice(1..)))
}

/// Reads to the end into messages of a channel.
pub(super) async fn pump(
    channel: u8,
    from: Option<impl AsyncRead + Unpin>,
    to: &mpsc::Sender<Message>,
) {
    let Some(mut from) = from else { return };
    let mut piece = vec![0; PIECE];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        if to.send(message(channel, piece.get(..read).unwrap_or_default())).await.is_err() {
            return;
        }
    }
}

/// Sends what comes, and now and then a sign of life; then closes.
pub(super) async fn send(
    mut sink: impl Sink<Message> + Unpin,
    mut queue: mpsc::Receiver<Message>,
    taken: &Taken,
) {
    let mut pong = interval(PONG_EVERY);
    pong.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            message = queue.recv() => message,
            _ = pong.tick() => Some(Message::Pong(Bytes::new())),
        };
        let Some(message) = message else { break };
        let says = !matches!(message, Message::Pong(_));
        if sink.send(message).await.is_err() {
            return;
        }
        if says {
            taken.more();
        }
    }
    let _ = sink.send(goodbye()).await;
    let _ = sink.close().await;
}

/// Streams over a WebSocket, and what carries them until all have ended or the client has gone.
pub(super) fn open(
    socket: WebSocket,
    wanted: Wanted,
    closes: bool,
    taken: Taken,
) -> (Ends, impl Future<Output = ()>) {
    let pipe_if = |wanted: bool| {
        let ends = wanted.then(pipe);
        ends.map_or((None, None), |(ours, theirs)| (Some(ours), Some(theirs)))
    };
    let (stdin, to_stdin) = pipe_if(wanted.stdin);
    let (stdout, from_stdout) = pipe_if(wanted.stdout);
    let (stderr, from_stderr) = pipe_if(wanted.stderr);
    let (resize, to_resize) = pipe_if(wanted.tty);
    let (error, from_error) = pipe();
    let ends = Ends { stdin, stdout, stderr, resize, error };
    let carried = async move {
        let (sink, incoming) = socket.split();
        let (sender, queue) = mpsc::channel(QUEUE);
        let outputs = async move {
            // So that the client knows that it is connected.
            let first = if wanted.stdout {
                STDOUT
            } else if wanted.stderr {
                STDERR
            } else {
                ERROR
            };
            let _ = sender.send(message(first, &[])).await;
            tokio::join!(pump(STDOUT, from_stdout, &sender), pump(STDERR, from_stderr, &sender));
            pump(ERROR, Some(from_error), &sender).await;
            drop(sender);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = outputs => {}
            // All was sent, or it cannot be: a silent program must not hide that nobody is there.
            () = send(sink, queue, &taken) => {}
            () = hear(incoming, to_stdin, to_resize, closes) => {}
        }
    };
    (ends, carried)
}

/// Until the client has gone.
async fn hear(
    mut incoming: impl Stream<Item = Result<Message, axum::Error>> + Unpin,
    mut stdin: Option<DuplexStream>,
    mut resize: Option<DuplexStream>,
    closes: bool,
) {
    while let Some(Ok(message)) = incoming.next().await {
        if matches!(message, Message::Close(_)) {
            return;
        }
        match parts(message) {
            Some((STDIN, data)) => write(&mut stdin, &data).await,
            Some((RESIZE, data)) => write(&mut resize, &data).await,
            Some((CLOSE, data)) if closes && *data == [STDIN] => stdin = None,
            _ => {}
        }
    }
}

/// Forgets a pipe that nobody reads any more.
pub(super) async fn write(to: &mut Option<DuplexStream>, data: &[u8]) {
    if let Some(pipe) = to
        && pipe.write_all(data).await.is_err()
    {
        *to = None;
    }
}
