//! Streams over SPDY: what they are is said by the headers that they are opened with.

use super::program::{Ends, Wanted};
use crate::spdy::{PROTOCOL, Stream};
use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::{io::DuplexStream, sync::mpsc, time::timeout};

/// Exec and attach.
pub(super) const V4: &str = "v4.channel.k8s.io";
/// Ports.
pub(super) const PORT_FORWARD: &str = "portforward.k8s.io";
const VERSION: &str = "x-stream-protocol-version";
const ACCEPTED: &str = "x-accepted-stream-protocol-versions";
/// For a client to open the streams that it has announced.
const DEADLINE: Duration = Duration::from_secs(30);

/// Makes a request's connection one of SPDY, with the first of its versions that is known.
pub(super) fn upgrade<F: Future<Output = ()> + Send + 'static>(
    request: Request,
    known: &[&'static str],
    serve: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
) -> Response {
    let asked: Vec<&str> = request
        .headers()
        .get_all(VERSION)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .collect();
    let selected = asked.iter().find_map(|asked| known.iter().find(|known| *known == asked));
    let Some(selected) = selected else {
        let text = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {asked:?}, server \
             accepts {known:?}"
        );
        let mut response = (StatusCode::FORBIDDEN, text).into_response();
        for version in known {
            response.headers_mut().append(ACCEPTED, HeaderValue::from_static(version));
        }
        return response;
    };
    let selected = HeaderValue::from_static(selected);
    let upgraded = hyper::upgrade::on(request);
    #[expect(clippy::disallowed_methods, reason = "ends with the connection")]
    tokio::spawn(async move {
        match upgraded.await {
            Ok(upgraded) => serve(TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!(%error, "upgrade to SPDY"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    headers.insert(VERSION, selected);
    response
}

/// Waits for the streams that are wanted; `None` if they do not come.
pub(super) async fn collect(mut incoming: mpsc::Receiver<Stream>, wanted: Wanted) -> Option<Ends> {
    let mut error = None;
    let mut others: [(&str, bool, Option<DuplexStream>); 4] = [
        ("stdin", wanted.stdin, None),
        ("stdout", wanted.stdout, None),
        ("stderr", wanted.stderr, None),
        ("resize", wanted.tty, None),
    ];
    let all = async {
        while error.is_none() || others.iter().any(|(_, wanted, found)| *wanted && found.is_none())
        {
            let stream = incoming.recv().await?;
            let kind = stream.headers.get("streamtype").map_or("", String::as_str);
            if kind == "error" {
                error = Some(stream.io);
            } else if let Some(place) = others.iter_mut().find(|(name, ..)| *name == kind) {
                place.2 = Some(stream.io);
            } else {
                tracing::debug!(kind, "a stream of a kind that is not known");
            }
        }
        Some(())
    };
    timeout(DEADLINE, all).await.ok()??;
    let [stdin, stdout, stderr, resize] = others.map(|(_, wanted, found)| found.filter(|_| wanted));
    Some(Ends { stdin, stdout, stderr, resize, error: error? })
}
