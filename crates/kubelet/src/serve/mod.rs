//! What the API servers ask of a node: logs, programs run inside containers or attached to, ports.
//!
//! Programs and ports are talked with over connections that the request upgrades: WebSockets whose
//! messages begin with a channel's number ([`channels`]), or SPDY with a stream for each ([`streams`]).

mod channels;
mod forward;
mod logs;
mod program;
mod streams;

use crate::{
    agent::Shared,
    runtime::{PodRef, RuntimePod},
    spdy::Taken,
};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{any, get},
};
use listen::Bounds;
use serde_json::{Value, json};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::{io::DuplexStream, sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use world::net::TcpListener;

/// Bytes that wait between a connection and what it is for, in each direction of each stream.
const PIPE: usize = 64 << 10;
/// Who takes nothing for so long has no use for the end of a program's words: one who pages through
/// them takes some now and then.
const PATIENCE: Duration = Duration::from_secs(300);
/// For the other side to say the last of it.
const LINGER: Duration = Duration::from_secs(10);

/// Serves those who connect, and those who have called (see [`client::node::NodeSession::calls`]) alike.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    calls: mpsc::Receiver<DuplexStream>,
    tls: Option<Arc<rustls::ServerConfig>>,
    shutdown: CancellationToken,
) {
    let router = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/stats/summary", get(summary))
        .route("/certificates", get(certificates))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::logs))
        .route("/exec/{namespace}/{pod}/{container}", any(program::exec))
        .route("/attach/{namespace}/{pod}/{container}", any(program::attach))
        .route("/portForward/{namespace}/{pod}", any(forward::port_forward))
        .with_state(shared);
    let called = answer(calls, tls.clone(), router.clone(), shutdown.clone());
    tokio::join!(listen::listen(listener, tls, router, shutdown), called);
}

async fn answer(
    mut calls: mpsc::Receiver<DuplexStream>,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    while let Some(Some(stream)) = shutdown.run_until_cancelled(calls.recv()).await {
        while connections.try_join_next().is_some() {}
        let (tls, router, shutdown) = (tls.clone(), router.clone(), shutdown.clone());
        connections.spawn(listen::serve(Bounds::default(), stream, tls, router, shutdown));
    }
    // Those that have been asked for live as long as the port.
    shutdown.cancelled().await;
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

/// What this node shows, as its files are now.
async fn certificates(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let certificates = shared.certificates.iter().map(|(name, file)| {
        match pki::read(file).and_then(|pem| pki::certificate_pem(&pem, name)) {
            Ok(pem) => json!({"name": name, "certificate": pem}),
            Err(error) => json!({"name": name, "error": error.to_string()}),
        }
    });
    Json(certificates.collect())
}

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
        .ok_or_else(|| refuse(StatusCode::NOT_FOUND, "pod does not exist".to_owned()))
}

type Query = axum::extract::Query<Vec<(String, String)>>;

/// Only a value that is absent, `false` or 0 means no.
fn flag(query: &Query, names: &[&str], absent: bool) -> bool {
    let found = query.0.iter().find(|(key, _)| names.contains(&key.as_str()));
    found.map_or(absent, |(_, value)| !value.eq_ignore_ascii_case("false") && value != "0")
}

/// Whether a request wants its connection to become one of this protocol.
fn wants(headers: &HeaderMap, protocol: &str) -> bool {
    let has = |name, wanted: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(wanted))
    };
    has(header::CONNECTION, "upgrade") && has(header::UPGRADE, protocol)
}

/// Why a request for a connection gets none.
fn no_upgrade() -> Response {
    refuse(StatusCode::BAD_REQUEST, "Upgrade request required".to_owned())
}

/// Carries what `talk` is about until both are at their ends. When the connection ends first, `talk` is
/// given up: the other side has gone. After the end of `talk`, the other side has as long as it needs,
/// while it takes something.
async fn carry(carried: impl Future<Output = ()>, talk: impl Future<Output = ()>, taken: &Taken) {
    let mut carried = pin!(carried);
    tokio::select! {
        biased;
        () = &mut carried => return,
        () = talk => {}
    }
    let mut before = None;
    while before != Some(taken.count()) {
        before = Some(taken.count());
        if timeout(PATIENCE, &mut carried).await.is_ok() {
            return;
        }
    }
}

/// An error with what it came from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    #[tokio::test(start_paused = true)]
    async fn who_takes_something_now_and_then_gets_all_of_it() {
        let taken = Taken::default();
        let (mut all, begin) = (false, Instant::now());
        let pages = async {
            for _ in 0..100 {
                sleep(PATIENCE / 2).await;
                taken.more();
            }
            all = true;
        };
        carry(pages, async {}, &taken).await;
        assert!(all, "{:?}", begin.elapsed());
        let begin = Instant::now();
        carry(std::future::pending(), async {}, &taken).await;
        assert_eq!(begin.elapsed(), PATIENCE);
    }
}
