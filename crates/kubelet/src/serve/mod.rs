//! What the API servers ask of a node: logs, and programs run inside containers.

use crate::{
    agent::Shared,
    log_file::LogReader,
    runtime::{ExecConfig, PodRef, RuntimePod},
    worker::instance,
};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{
        Path, Query, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use futures::{SinkExt as _, StreamExt as _, stream};
use serde_json::{Value, json};
use std::{collections::BTreeMap, convert::Infallible, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener, shutdown: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/stats/summary", get(summary))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs))
        .route("/exec/{namespace}/{pod}/{container}", get(exec))
        .with_state(shared);
    tokio::select! {
        served = async { axum::serve(listener, router).await } => {
            if let Err(error) = served {
                tracing::error!(%error, "logs and exec are not served any more");
            }
        }
        () = shutdown.cancelled() => {}
    }
}

/// As much of the kubelet's summary as is known, in its form.
async fn summary(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or_default();
    let pods = shared.runtime.pods().await.unwrap_or_default();
    let pods = pods.iter().map(|pod| {
        let PodRef { namespace, name, uid } = &pod.sandbox.config.pod;
        json!({"podRef": {"namespace": namespace, "name": name, "uid": uid}})
    });
    Json(json!({
        "node": {
            "nodeName": shared.node(),
            "systemContainers": [{"name": "kubelet", "memory": {"rssBytes": pages * 4096}}],
        },
        "pods": pods.collect::<Vec<_>>(),
    }))
}

type Where = Path<(String, String, String)>;

fn refuse(code: StatusCode, text: String) -> Response {
    (code, text).into_response()
}

async fn find(shared: &Shared, namespace: &str, name: &str) -> Result<RuntimePod, Response> {
    let pods = shared.runtime.pods().await;
    let pods = pods.map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    pods.into_iter()
        .filter(|p| {
            p.sandbox.config.pod.namespace == namespace && p.sandbox.config.pod.name == name
        })
        .max_by_key(|p| p.sandbox.created_at)
        .ok_or_else(|| refuse(StatusCode::NOT_FOUND, format!("pod {namespace}/{name} is not here")))
}

/// What of a log is wanted.
struct Selection {
    follow: bool,
    timestamps: bool,
    tail: Option<usize>,
}

async fn logs(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name, container)): Where,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let pod = match find(&shared, &namespace, &name).await {
        Ok(pod) => pod,
        Err(response) => return response,
    };
    let flag = |key: &str| query.get(key).is_some_and(|v| v == "true" || v == "1");
    let Some(newest) = instance(&pod, &container) else {
        let text = format!("container \"{container}\" in pod \"{name}\" is waiting to start");
        return refuse(StatusCode::BAD_REQUEST, text);
    };
    let attempt = newest.config.attempt;
    let attempt = match (flag("previous"), attempt.checked_sub(1)) {
        (false, _) => attempt,
        (true, Some(before)) => before,
        (true, None) => {
            let text = format!(
                "previous terminated container \"{container}\" in pod \"{name}\" not found"
            );
            return refuse(StatusCode::BAD_REQUEST, text);
        }
    };
    let uid = pod.sandbox.config.pod.uid.clone();
    let dir = shared.logs(&namespace, &name, &uid).join(&container);
    let selection = Selection {
        follow: flag("follow"),
        timestamps: flag("timestamps"),
        tail: query.get("tailLines").and_then(|n| n.parse().ok()),
    };
    let log = LogReader::new(dir.join(format!("{attempt}.log")));
    Body::from_stream(lines(shared, uid, container, log, selection)).into_response()
}

/// The log's lines; with `follow` until the container has ended.
fn lines(
    shared: Arc<Shared>,
    uid: String,
    container: String,
    log: LogReader,
    selection: Selection,
) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
    let state = (shared, selection, log, false);
    stream::unfold(state, move |(shared, mut selection, mut log, done)| {
        let (uid, container) = (uid.clone(), container.clone());
        async move {
            if done {
                return None;
            }
            loop {
                // Asked before the file is read: what was written until the end is in it.
                let running = shared.runtime.pod(&uid).await.ok().flatten().is_some_and(|pod| {
                    instance(&pod, &container).is_some_and(|c| {
                        matches!(c.state, crate::runtime::ContainerState::Running { .. })
                    })
                });
                let read = tokio::task::spawn_blocking(move || (log.read(), log)).await;
                let Ok((fresh, reader)) = read else { return None };
                log = reader;
                let fresh = String::from_utf8_lossy(&fresh.unwrap_or_default()).into_owned();
                let end = !(selection.follow && running);
                if fresh.is_empty() && !end {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
                let mut shown: Vec<String> =
                    fresh.lines().filter_map(|line| show(line, selection.timestamps)).collect();
                if let Some(tail) = selection.tail.take() {
                    shown.drain(..shown.len().saturating_sub(tail));
                }
                let bytes = Bytes::from(shown.concat());
                return Some((Ok(bytes), (shared, selection, log, end)));
            }
        }
    })
}

/// A line of the log file as its reader wants it (SUB-5).
fn show(line: &str, timestamps: bool) -> Option<String> {
    let (time, rest) = line.split_once(' ')?;
    let (_, rest) = rest.split_once(' ')?;
    let (tag, text) = rest.split_once(' ')?;
    let stamp = if timestamps { format!("{time} ") } else { String::new() };
    let end = if tag == "P" { "" } else { "\n" };
    Some(format!("{stamp}{text}{end}"))
}

async fn exec(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name, container)): Where,
    Query(query): Query<Vec<(String, String)>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let pod = match find(&shared, &namespace, &name).await {
        Ok(pod) => pod,
        Err(response) => return response,
    };
    let Some(target) = instance(&pod, &container) else {
        return refuse(StatusCode::NOT_FOUND, format!("container {container} does not run"));
    };
    let argv = query.iter().filter(|(k, _)| k == "command").map(|(_, v)| v.clone()).collect();
    let flag = |key: &str| query.iter().any(|(k, v)| k == key && (v == "true" || v == "1"));
    let config = ExecConfig { argv, stdin: flag("stdin"), tty: flag("tty") };
    let (id, shared) = (target.id.clone(), Arc::clone(&shared));
    upgrade
        .protocols(["v5.channel.k8s.io", "v4.channel.k8s.io"])
        .on_upgrade(async move |socket| relay(&shared, &id, config, socket).await)
}

/// Channels of the protocol: 0 in, 1 out, 2 error output, 3 how it ended; 255 closes one.
async fn relay(
    shared: &Shared,
    id: &crate::runtime::ContainerId,
    config: ExecConfig,
    socket: WebSocket,
) {
    let (mut sink, mut incoming) = socket.split();
    let mut session = match shared.runtime.exec(id, config).await {
        Ok(session) => session,
        Err(error) => {
            let status = json!({"metadata": {}, "status": "Failure", "reason": "InternalError",
                                "message": error.to_string(), "code": 500});
            let _ = sink.send(frame(3, status.to_string().as_bytes())).await;
            return;
        }
    };
    let (sender, mut output) = mpsc::channel::<Message>(64);
    let out = pump(1, session.stdout, sender.clone());
    let err = async {
        if let Some(stderr) = session.stderr {
            pump(2, stderr, sender.clone()).await;
        }
    };
    let input = async {
        while let Some(Ok(message)) = incoming.next().await {
            let Message::Binary(bytes) = message else { continue };
            match bytes.split_first() {
                Some((0, data)) => {
                    if let Some(stdin) = &mut session.stdin {
                        let _ = stdin.write_all(data).await;
                    }
                }
                Some((255, [0])) => session.stdin = None,
                _ => {}
            }
        }
    };
    let done = async {
        tokio::join!(out, err);
        let code = session.exit.await.unwrap_or(-1);
        let status = if code == 0 {
            json!({"metadata": {}, "status": "Success"})
        } else {
            json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            })
        };
        let _ = sender.send(frame(3, status.to_string().as_bytes())).await;
        let _ = sender.send(Message::Close(None)).await;
    };
    let forward = async {
        while let Some(message) = output.recv().await {
            let last = matches!(message, Message::Close(_));
            if sink.send(message).await.is_err() || last {
                return;
            }
        }
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(done, forward) } => {}
        // The caller has gone; dropping the session kills the program.
        () = async { input.await; sleep(Duration::from_secs(3600)).await } => {}
    }
}

fn frame(channel: u8, data: &[u8]) -> Message {
    let mut bytes = vec![channel];
    bytes.extend_from_slice(data);
    Message::Binary(bytes.into())
}

async fn pump(channel: u8, mut from: Box<dyn AsyncRead + Send + Unpin>, to: mpsc::Sender<Message>) {
    let mut piece = vec![0; 16 << 10];
    loop {
        let read: io::Result<usize> = from.read(&mut piece).await;
        match read {
            Ok(0) | Err(_) => return,
            Ok(n) => {
                let data = piece.get(..n).unwrap_or_default();
                if to.send(frame(channel, data)).await.is_err() {
                    return;
                }
            }
        }
    }
}
