//! Programs run beside a container's, and a container's own attached to: their streams over whatever
//! connection the request wants.

use super::{PIPE, Query, carry, chain, channels, find, flag, no_upgrade, refuse, streams, wants};
use crate::{
    agent::Shared,
    runtime::{ContainerId, ContainerState, ExecConfig, ExecSession, RuntimeError},
    spdy::{self, Taken},
    worker::instance,
};
use axum::{
    extract::{FromRequestParts as _, Path, Request, State, WebSocketUpgrade},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

/// What a program had left to say is taken until it has been silent for so long: something that it
/// started may hold its outputs for ever.
const QUIET: Duration = Duration::from_millis(500);
/// And what is said after a program's end is waited for so long in all: something that it started may
/// go on talking.
const AFTERWARDS: Duration = Duration::from_secs(5);
/// A program's own words that wait for us are no more than the largest pipe.
const AFTERWARDS_BYTES: usize = 1 << 20;
/// Bytes that are no size.
const SIZE_BYTES_MAX: usize = 4 << 10;
const PIECE: usize = 16 << 10;

/// Which streams are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

impl Wanted {
    /// # Errors
    /// None at all.
    fn of(query: &Query) -> Result<Self, String> {
        let tty = flag(query, &["tty"], false);
        let wanted = Self {
            stdin: flag(query, &["stdin", "input"], false),
            stdout: flag(query, &["stdout", "output"], true),
            // One with a terminal has one output.
            stderr: flag(query, &["stderr", "error"], true) && !tty,
            tty,
        };
        if !wanted.stdin && !wanted.stdout && !wanted.stderr {
            return Err("you must specify at least 1 of stdin, stdout, stderr".to_owned());
        }
        Ok(wanted)
    }
}

/// This side's ends of the streams.
pub(super) struct Ends {
    pub(super) stdin: Option<DuplexStream>,
    pub(super) stdout: Option<DuplexStream>,
    pub(super) stderr: Option<DuplexStream>,
    /// Sizes of a terminal, in JSON.
    pub(super) resize: Option<DuplexStream>,
    /// How it ended.
    pub(super) error: DuplexStream,
}

/// What is to be talked with.
#[derive(Debug)]
enum Work {
    Exec(ContainerId, ExecConfig),
    Attach(ContainerId, bool),
}

type Where = Path<(String, String, String)>;

pub(super) async fn exec(
    State(shared): State<Arc<Shared>>,
    Path(path): Where,
    query: Query,
    request: Request,
) -> Response {
    let argv: Vec<String> =
        query.0.iter().filter(|(key, _)| key == "command").map(|(_, v)| v.clone()).collect();
    if argv.first().is_none_or(String::is_empty) {
        let text = "you must specify at least one command for the container".to_owned();
        return refuse(StatusCode::BAD_REQUEST, text);
    }
    let (id, wanted) = match asked(&shared, &path, &query).await {
        Ok((id, _, wanted)) => (id, wanted),
        Err(response) => return response,
    };
    let config = ExecConfig { argv, stdin: wanted.stdin, tty: wanted.tty };
    converse(shared, Work::Exec(id, config), wanted, request).await
}

pub(super) async fn attach(
    State(shared): State<Arc<Shared>>,
    Path(path): Where,
    query: Query,
    request: Request,
) -> Response {
    let (id, tty, wanted) = match asked(&shared, &path, &query).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    // Whether there is a terminal was said when the container was made. Who wants none, and gets one
    // all the same, hears nothing of a second output.
    let wanted = Wanted { tty: wanted.tty && tty, ..wanted };
    converse(shared, Work::Attach(id, wanted.stdin), wanted, request).await
}

/// The container that is meant, whether it has a terminal, and the streams.
async fn asked(
    shared: &Shared,
    (namespace, name, container): &(String, String, String),
    query: &Query,
) -> Result<(ContainerId, bool, Wanted), Response> {
    let wanted = Wanted::of(query).map_err(|text| refuse(StatusCode::BAD_REQUEST, text))?;
    let pod = find(shared, namespace, name).await?;
    let running =
        instance(&pod, container).filter(|c| matches!(c.state, ContainerState::Running { .. }));
    let found = running.map(|running| (running.id.clone(), running.config.tty, wanted));
    found.ok_or_else(|| {
        let text = format!("container not found (\"{container}\")");
        refuse(StatusCode::INTERNAL_SERVER_ERROR, text)
    })
}

async fn converse(shared: Arc<Shared>, work: Work, wanted: Wanted, request: Request) -> Response {
    if wants(request.headers(), "websocket") {
        let (mut parts, _) = request.into_parts();
        let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
            Ok(upgrade) => upgrade,
            Err(rejection) => return rejection.into_response(),
        };
        let upgrade = channels::limited(upgrade).protocols([channels::V5, channels::V4]);
        let Some(selected) = upgrade.selected_protocol() else {
            return channels::no_protocol(&[channels::V5, channels::V4]);
        };
        let closes = selected == channels::V5;
        return upgrade.on_upgrade(async move |socket| {
            let taken = Taken::default();
            let (ends, carried) = channels::open(socket, wanted, closes, taken.clone());
            carry(carried, talk(&shared, work, ends), &taken).await;
        });
    }
    if wants(request.headers(), spdy::PROTOCOL) {
        return streams::upgrade(request, &[streams::V4], async move |io| {
            let (sender, incoming) = mpsc::channel(16);
            let done = CancellationToken::new();
            let taken = Taken::default();
            let served = spdy::serve(io, sender, done.clone(), taken.clone());
            let carried = async {
                if let Err(error) = served.await {
                    tracing::debug!(error = chain(&error), "streams of a program");
                }
            };
            let talk = async {
                if let Some(ends) = streams::collect(incoming, wanted).await {
                    talk(&shared, work, ends).await;
                }
                done.cancel();
            };
            carry(carried, talk, &taken).await;
        });
    }
    no_upgrade()
}

/// Until the program has ended, and all that it said was passed on. Dropped, it lets go of it.
async fn talk(shared: &Shared, work: Work, ends: Ends) {
    let Ends { stdin, stdout, stderr, resize, mut error } = ends;
    let session = match &work {
        Work::Exec(id, config) => shared.runtime.exec(id, config.clone()).await,
        Work::Attach(id, stdin) => shared.runtime.attach(id, *stdin).await,
    };
    let status = match session {
        Ok(session) => {
            let code = pass(session, stdin, stdout, stderr, resize).await;
            match work {
                Work::Exec(..) => ended(code),
                // It is the Pod's own matter how it ends.
                Work::Attach(..) => ended(0),
            }
        }
        Err(failed) => {
            drop((stdout, stderr));
            refused(&work, &failed)
        }
    };
    let _ = error.write_all(status.to_string().as_bytes()).await;
    let _ = error.shutdown().await;
}

/// How a program ended, as clients read it.
fn ended(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// Why there is nothing to talk with.
fn refused(work: &Work, error: &RuntimeError) -> Value {
    let what = match work {
        Work::Exec(..) => "error executing command in container: failed to exec in container",
        Work::Attach(..) => "error attaching to container",
    };
    let text = format!("{what}: {}", chain(error));
    json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": format!("Internal error occurred: {text}"),
        "details": {"causes": [{"message": text}]},
    })
}

/// The exit code.
async fn pass(
    session: ExecSession,
    stdin: Option<DuplexStream>,
    stdout: Option<DuplexStream>,
    stderr: Option<DuplexStream>,
    resize: Option<DuplexStream>,
) -> i32 {
    let ExecSession { stdin: input, stdout: output, stderr: errors, resize: sizes, exit } = session;
    let over = CancellationToken::new();
    let incoming = async {
        tokio::join!(give(stdin, input), async {
            if let Some(resize) = resize {
                told_sizes(resize, sizes).await;
            }
        });
        std::future::pending::<()>().await;
    };
    let outgoing = async {
        let code = async {
            // Lost with what told of it: as if it had been killed.
            let code = exit.await.unwrap_or(128 + libc::SIGKILL);
            over.cancel();
            code
        };
        let errors = async {
            if let Some(errors) = errors {
                take(errors, stderr, &over).await;
            }
        };
        tokio::join!(code, take(output, stdout, &over), errors).0
    };
    tokio::select! {
        code = outgoing => code,
        () = incoming => 0,
    }
}

/// Passes input on to its end, which the program then sees.
async fn give(from: Option<DuplexStream>, to: Option<Box<dyn AsyncWrite + Send + Unpin>>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    let copied: io::Result<u64> =
        tokio::io::copy_buf(&mut tokio::io::BufReader::with_capacity(PIECE, &mut from), &mut to)
            .await;
    let _ = to.shutdown().await;
    drop(to);
    if copied.is_err() {
        // The program does not read it. Who sends must not wait for that.
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
}

/// Passes output on. Where nobody wants it, it is read all the same.
async fn take(
    mut from: Box<dyn AsyncRead + Send + Unpin>,
    mut to: Option<DuplexStream>,
    over: &CancellationToken,
) {
    let mut piece = vec![0; PIECE];
    // Only our own waiting counts: a client may page through it.
    let (mut patience, mut bytes_left) = (AFTERWARDS, AFTERWARDS_BYTES);
    loop {
        let begin = over.is_cancelled().then(Instant::now);
        let silent = async {
            over.cancelled().await;
            sleep(QUIET.min(patience)).await;
        };
        let read = tokio::select! {
            biased;
            read = from.read(&mut piece) => read.unwrap_or(0),
            () = silent => 0,
        };
        let bytes = piece.get(..read).unwrap_or_default();
        if let Some(begin) = begin {
            patience = patience.saturating_sub(begin.elapsed());
            bytes_left = bytes_left.saturating_sub(read);
        }
        if bytes.is_empty() || patience.is_zero() || bytes_left == 0 {
            break;
        }
        if let Some(to) = &mut to
            && to.write_all(bytes).await.is_err()
        {
            // Its writer is to notice.
            return;
        }
    }
    if let Some(to) = &mut to {
        let _ = to.shutdown().await;
    }
}

/// A size as clients send it.
#[derive(Debug, Deserialize)]
struct Size {
    #[serde(rename = "Width", alias = "width")]
    columns: u16,
    #[serde(rename = "Height", alias = "height")]
    rows: u16,
}

async fn told_sizes(mut from: DuplexStream, to: mpsc::Sender<(u16, u16)>) {
    let mut held = Vec::new();
    let mut piece = [0; 1024];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        held.extend_from_slice(piece.get(..read).unwrap_or_default());
        for size in sizes(&mut held) {
            if to.send(size).await.is_err() {
                return;
            }
        }
    }
}

/// Takes out what is whole; what is no size is passed over.
fn sizes(held: &mut Vec<u8>) -> Vec<(u16, u16)> {
    let mut found = Vec::new();
    let mut all = serde_json::Deserializer::from_slice(held).into_iter::<Size>();
    let mut used = 0;
    let rest_is_known = loop {
        match all.next() {
            Some(Ok(size)) => {
                found.push((size.columns, size.rows));
                used = all.byte_offset();
            }
            Some(Err(error)) => break error.is_eof(),
            None => break false,
        }
    };
    held.drain(..used);
    if !rest_is_known || held.len() > SIZE_BYTES_MAX {
        held.clear();
    }
    found
}

/// A pipe: the end of whoever talks, and the connection's.
pub(super) fn pipe() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(PIPE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found_however_they_are_cut() {
        let text = br#"{"Width":80,"Height":24}{"Width":100,"Height":40}
            {"Width":-1,"Height":1}"#;
        for piece in [1, 5, 30, 1000] {
            let mut held = Vec::new();
            let mut found = Vec::new();
            for bytes in text.chunks(piece) {
                held.extend_from_slice(bytes);
                found.extend(sizes(&mut held));
            }
            assert_eq!(found, [(80, 24), (100, 40)], "{piece}");
        }
        let mut endless = vec![b'['; SIZE_BYTES_MAX + 1];
        assert!(sizes(&mut endless).is_empty());
        assert!(endless.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_talks_on_after_its_program_is_not_heard_for_ever() {
        let over = CancellationToken::new();
        over.cancel();
        let begin = Instant::now();
        let (from, mut to) = tokio::io::duplex(PIPE);
        let talks = async {
            while to.write_all(b"still here").await.is_ok() {
                sleep(QUIET / 2).await;
            }
        };
        tokio::join!(take(Box::new(from), None, &over), talks);
        assert!(begin.elapsed() <= AFTERWARDS + QUIET, "{:?}", begin.elapsed());
        take(Box::new(tokio::io::repeat(7)), None, &over).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_pages_through_a_programs_last_words_gets_all_of_them() {
        let over = CancellationToken::new();
        over.cancel();
        let last_words = std::io::Cursor::new(vec![7; 500_000]);
        let (mut client, to) = tokio::io::duplex(1 << 10);
        let mut count = 0;
        let pages = async {
            let mut page = [0; 1 << 10];
            while let Ok(read @ 1..) = client.read(&mut page).await {
                count += read;
                sleep(QUIET).await;
            }
        };
        tokio::join!(take(Box::new(last_words), Some(to), &over), pages);
        assert_eq!(count, 500_000);
    }

    #[test]
    fn streams_are_wanted_by_any_value_but_no() {
        let wanted = |query: &str| {
            let uri: axum::http::Uri = format!("/?{query}").parse().unwrap();
            Wanted::of(&axum::extract::Query::try_from_uri(&uri).unwrap())
        };
        let plain = Wanted { stdin: false, stdout: true, stderr: true, tty: false };
        for (query, want) in [
            ("stdout=true&stderr=true", plain),
            ("", plain),
            ("stdin=true&stderr=0", Wanted { stdin: true, stderr: false, ..plain }),
            ("input=1&tty=1", Wanted { stdin: true, stderr: false, tty: true, ..plain }),
            ("stdin=FALSE&stdout=false", Wanted { stdout: false, ..plain }),
            ("stdin=", Wanted { stdin: true, ..plain }),
        ] {
            assert_eq!(wanted(query), Ok(want), "{query}");
        }
        assert!(wanted("stdout=false&stderr=false").is_err());
        assert!(wanted("stdout=false&tty=true").is_err(), "with a terminal there is one output");
    }
}
