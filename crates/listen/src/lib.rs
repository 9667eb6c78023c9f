//! One port: HTTP/1 and HTTP/2, with or without TLS, for any service.

mod authority;
mod bounds;
mod hpack;

pub use authority::Authority;
pub use bounds::Bounds;

use axum::{Extension, body::Body};
use bounds::{Progress, Watched};
use futures::{
    FutureExt as _, TryFutureExt as _,
    future::{BoxFuture, poll_fn, select},
};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use rustls::pki_types::CertificateDer;
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::{Layer as _, Service, ServiceExt as _};
use world::net::TcpListener;

/// For a TLS handshake and for a request's head.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The certificates that a client has shown and this process has verified, its own first: an extension
/// of every request that came by TLS.
pub type PeerCertificates = Arc<[CertificateDer<'static>]>;

/// Where a request has come from: an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// As [`listen_within`] the default bounds.
pub async fn listen<S>(
    listener: impl Into<TcpListener>,
    tls: Option<Arc<rustls::ServerConfig>>,
    service: S,
    shutdown: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    listen_within(Bounds::default(), listener, tls, service, shutdown).await;
}

/// Serves on a listener, HTTP/1 and HTTP/2, until `shutdown`; then lets requests that have begun end for a
/// moment. `service` is a router, or routes by itself; each request gets a clone.
pub async fn listen_within<S>(
    bounds: Bounds,
    listener: impl Into<TcpListener>,
    tls: Option<Arc<rustls::ServerConfig>>,
    service: S,
    shutdown: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let listener = listener.into();
    let protocol = Protocol::new(bounds);
    let acceptor = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            // Closed before it costs anything.
            Ok(_) if connections.len() >= bounds.connections => continue,
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: others must end first.
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let service = Extension(PeerAddress(peer)).layer(service.clone());
        let (acceptor, shutdown, protocol) = (acceptor.clone(), shutdown.clone(), protocol.clone());
        connections.spawn(handshake(protocol, stream, acceptor, service, shutdown));
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(bounds.ending, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// As [`listen_within`], one connection that did not come by a listener: requests have no [`PeerAddress`].
pub async fn serve<I, S>(
    bounds: Bounds,
    stream: I,
    tls: Option<Arc<rustls::ServerConfig>>,
    service: S,
    shutdown: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let acceptor = tls.map(TlsAcceptor::from);
    handshake(Protocol::new(bounds), stream, acceptor, service, shutdown).await;
}

async fn handshake<I, S>(
    protocol: Protocol,
    stream: I,
    acceptor: Option<TlsAcceptor>,
    service: S,
    shutdown: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let Some(acceptor) = acceptor else {
        return connection(protocol, stream, service, shutdown).await;
    };
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let shown = stream.get_ref().1.peer_certificates();
    let shown: Option<PeerCertificates> =
        shown.map(|chain| chain.iter().map(|c| c.clone().into_owned()).collect());
    match shown {
        Some(shown) => {
            connection(protocol, stream, Extension(shown).layer(service), shutdown).await;
        }
        None => connection(protocol, stream, service, shutdown).await,
    }
}

/// How every connection of a listener is served.
#[derive(Clone)]
struct Protocol {
    builder: Builder<TokioExecutor>,
    bounds: Bounds,
}

impl Protocol {
    fn new(bounds: Bounds) -> Self {
        Self { builder: builder(&bounds), bounds }
    }
}

/// Bytes of an answer that wait for a client in one connection's, or one stream's, own buffer.
const SEND_BUFFER_BYTES: usize = 128 << 10;
/// Of a request's head.
const HEAD_BYTES: u32 = 64 << 10;
/// Streams that a client has reset and this side has not looked at yet: more are an attack.
const RESETS_WAITING: usize = 20;
/// Between two questions whether an HTTP/2 client is still there, and for its answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// HTTP/2's windows hold the largest request and a batch of events, so that a sender rarely waits for leave
/// to send on.
fn builder(bounds: &Bounds) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_TIMEOUT)
        .max_buf_size(SEND_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.streams)
        .max_header_list_size(HEAD_BYTES)
        .max_pending_accept_reset_streams(Some(RESETS_WAITING))
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(Some(PING_INTERVAL))
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    builder
}

/// Not an async function: the compiler cannot see that one which holds what is served may change threads.
fn connection<I, S>(
    protocol: Protocol,
    io: I,
    service: S,
    shutdown: CancellationToken,
) -> BoxFuture<'static, ()>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let progress = Progress::new();
    let io = TokioIo::new(Authority::new(Watched::new(io, Arc::clone(&progress))));
    let given_up =
        Box::pin(Arc::clone(&progress).given_up(HANDSHAKE_TIMEOUT, protocol.bounds.answer_timeout));
    let follows = protocol.bounds.answer_timeout.is_some();
    let service = service.map_response(
        move |response| {
            if follows { progress.follow(response) } else { response }
        },
    );
    let service = TowerToHyperService::new(service);
    let served = protocol.builder.serve_connection_with_upgrades(io, service).into_owned();
    let (mut served, mut stopped) = (Box::pin(served), Box::pin(shutdown.cancelled_owned()));
    let mut ending = false;
    let served = poll_fn(move |context| {
        if !ending && stopped.as_mut().poll(context).is_ready() {
            ending = true;
            // No more requests are taken; those that have begun are answered.
            served.as_mut().graceful_shutdown();
        }
        served.as_mut().poll(context)
    });
    let served = served.inspect_err(|error| tracing::debug!(error, "connection"));
    Box::pin(select(served, given_up).map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        sync::{Semaphore, mpsc},
        task::yield_now,
    };

    /// Ends what was waited for in vain.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Answers when it is let.
    struct Slow {
        address: SocketAddr,
        asked: mpsc::Receiver<()>,
        go: Arc<Semaphore>,
        scope: CancellationToken,
        listening: JoinSet<()>,
    }

    async fn slow(ending: Duration) -> Slow {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = mpsc::channel(4);
        let (go, scope) = (Arc::new(Semaphore::new(0)), CancellationToken::new());
        let let_go = Arc::clone(&go);
        let service = tower::service_fn(move |_: Request<Incoming>| {
            let (tell, go) = (tell.clone(), Arc::clone(&let_go));
            async move {
                tell.send(()).await.unwrap();
                go.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(Response::new(Body::from("late")))
            }
        });
        let bounds = Bounds { ending, ..Bounds::default() };
        let mut listening = JoinSet::new();
        listening.spawn(listen_within(bounds, listener, None, service, scope.clone()));
        Slow { address, asked, go, scope, listening }
    }

    #[tokio::test]
    async fn what_was_asked_before_the_end_is_answered_and_nothing_more_is_taken() {
        let mut slow = slow(PATIENCE).await;
        let mut first = TcpStream::connect(slow.address).await.unwrap();
        first.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let stream = TcpStream::connect(slow.address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let request = Request::get("http://x/").body(()).unwrap();
        let (second, _) = sender.ready().await.unwrap().send_request(request, true).unwrap();
        for _ in 0..2 {
            timeout(PATIENCE, slow.asked.recv()).await.unwrap().unwrap();
        }
        slow.scope.cancel();
        let refused = async {
            while TcpStream::connect(slow.address).await.is_ok() {
                yield_now().await;
            }
        };
        timeout(PATIENCE, refused).await.unwrap();
        slow.go.add_permits(2);
        let mut text = String::new();
        timeout(PATIENCE, first.read_to_string(&mut text)).await.unwrap().unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("late"), "{text}");
        assert_eq!(timeout(PATIENCE, second).await.unwrap().unwrap().status(), 200);
        timeout(PATIENCE, slow.listening.join_next()).await.unwrap();
    }

    #[tokio::test]
    async fn a_request_without_an_end_does_not_keep_a_listener_from_its_own() {
        let mut slow = slow(Duration::from_millis(50)).await;
        let mut stream = TcpStream::connect(slow.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        timeout(PATIENCE, slow.asked.recv()).await.unwrap().unwrap();
        slow.scope.cancel();
        timeout(PATIENCE, slow.listening.join_next()).await.unwrap();
        let mut text = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().ok();
        assert_eq!(text, "", "it is cut off");
    }
}
