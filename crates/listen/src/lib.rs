//! One port: HTTP/1 and HTTP/2, with or without TLS, for any router.

mod authority;
mod hpack;

pub use authority::Authority;

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use rustls::pki_types::CertificateDer;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// For a TLS handshake and for a request's head.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The certificates that a client has shown and this process has verified, its own first: an extension
/// of every request that came by TLS.
pub type PeerCertificates = Arc<[CertificateDer<'static>]>;

/// Serves a router on a listener, HTTP/1 and HTTP/2, until `shutdown`; then lets requests that have
/// begun end for a moment.
pub async fn listen(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    shutdown: CancellationToken,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: others must end first.
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (router, shutdown) = (router.clone(), shutdown.clone());
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            match acceptor {
                None => connection(stream, router, shutdown).await,
                Some(acceptor) => match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let shown = stream.get_ref().1.peer_certificates();
                        let shown: Option<PeerCertificates> = shown
                            .map(|chain| chain.iter().map(|c| c.clone().into_owned()).collect());
                        let router = match shown {
                            Some(shown) => router.layer(axum::Extension(shown)),
                            None => router,
                        };
                        connection(stream, router, shutdown).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
                    Err(_) => tracing::debug!("TLS handshake took too long"),
                },
            }
        });
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(Duration::from_secs(1), ended).await.is_err() {
        connections.shutdown().await;
    }
}

async fn connection<I>(io: I, router: Router, shutdown: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(Authority::new(io));
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1024)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    let service = TowerToHyperService::new(router);
    let served = builder.serve_connection_with_upgrades(io, service);
    tokio::select! {
        result = served => {
            if let Err(error) = result {
                tracing::debug!(error, "connection");
            }
        }
        // Watches and node sessions have no end of their own; their clients go elsewhere.
        () = shutdown.cancelled() => {}
    }
}
