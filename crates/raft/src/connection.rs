//! Connections between members: made and accepted, with TLS if there is any.
//!
//! One that was accepted breaks when the replica ends: a peer's stream has no end of its own.

use crate::config::PeerTls;
use futures::{Stream, StreamExt as _, stream::FuturesUnordered};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::{
    Channel, Endpoint,
    server::{Connected, TcpConnectInfo},
};
use world::net::{TcpListener, TcpStream};

/// Tries to connect that are under way beside each other. The first one has as many intervals for TCP and TLS.
pub(crate) const ATTEMPTS: u32 = 8;
/// For a peer to shake hands.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Peers that shake hands beside each other.
const HANDSHAKES: usize = 1024;
/// What is spoken: HTTP/2.
const PROTOCOL: &[u8] = b"h2";

/// A connection between members.
enum Link {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Link {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

/// A connection to a peer at a URL, made when it is first used, and again when it has broken. One that is not made
/// after `again` is tried once more beside the first, and so on for [`ATTEMPTS`] times: the first packets to a
/// machine that was cut off are lost, and where the way is long, or loses some, they need more time than that.
/// `tune` may set what it likes but the URL and TLS.
///
/// # Errors
/// It is no URL.
pub(crate) fn lazy(
    url: &str,
    tls: Option<&PeerTls>,
    again: Duration,
    tune: impl FnOnce(Endpoint) -> Endpoint,
) -> io::Result<Channel> {
    let target: Uri = url.parse().map_err(io::Error::other)?;
    let secure = target.scheme_str() == Some("https");
    // tonic refuses https where TLS is not its own; to the peer, it is https all the same.
    let plain = match url.strip_prefix("https://") {
        Some(rest) => format!("http://{rest}"),
        None => url.to_owned(),
    };
    let endpoint = Endpoint::from_shared(plain).map_err(io::Error::other)?;
    let endpoint = tune(endpoint.origin(target.clone()));
    let tls = match tls {
        Some(tls) if secure => Some(connector(&tls.client)),
        Some(_) | None if secure => {
            return Err(io::Error::other(format!("{url}: this member has no certificate")));
        }
        Some(_) | None => None,
    };
    let connector = tower::service_fn(move |_: Uri| {
        let (target, tls) = (target.clone(), tls.clone());
        let open = move || open(target.clone(), tls.clone());
        async move { first_of(open, again).await.map(TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

fn connector(config: &ClientConfig) -> TlsConnector {
    let mut config = config.clone();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// What the first of several tries comes to that begin one after the other. An error ends them all, too: mostly it is
/// that nobody listens there, which the others would hear as well.
async fn first_of<T, F: Future<Output = io::Result<T>>>(
    open: impl Fn() -> F,
    again: Duration,
) -> io::Result<T> {
    let mut tries = FuturesUnordered::new();
    for _ in 0..ATTEMPTS {
        tries.push(open());
        if let Ok(Some(result)) = timeout(again, tries.next()).await {
            return result;
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

async fn open(target: Uri, tls: Option<TlsConnector>) -> io::Result<Link> {
    let host = target.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = target.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let stream = TcpStream::connect(host, port).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Link::Plain(stream)) };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = tls.connect(name, stream).await?;
    Ok(Link::Tls(Box::new(stream.into())))
}

/// Connections of peers as they come, until `stop` breaks them all. Who fails to prove who it is, is left out.
pub(crate) fn accept(
    listener: TcpListener,
    tls: Option<&PeerTls>,
    stop: CancellationToken,
) -> impl Stream<Item = io::Result<Accepted>> + Send + use<> {
    let acceptor = tls.map(|tls| TlsAcceptor::from(Arc::clone(&tls.server)));
    let connections = connections_of(listener).map(move |accepted| {
        let (acceptor, stop) = (acceptor.clone(), stop.clone());
        async move {
            let stream = match accepted.and_then(|stream| {
                // tonic sets it only on sockets that it accepts itself.
                stream.set_nodelay(true)?;
                Ok(stream)
            }) {
                Ok(stream) => stream,
                Err(error) => return Some(Err(error)),
            };
            let Some(acceptor) = acceptor else {
                return Some(Ok(Accepted::new(Link::Plain(stream), stop)));
            };
            match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => Some(Ok(Accepted::new(Link::Tls(Box::new(stream.into())), stop))),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "TLS handshake of a peer");
                    None
                }
                Err(_) => {
                    tracing::debug!("TLS handshake of a peer took too long");
                    None
                }
            }
        }
    });
    connections.buffer_unordered(HANDSHAKES).filter_map(std::future::ready)
}

fn connections_of(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> + Send {
    futures::stream::poll_fn(move |cx| {
        listener.poll_accept(cx).map_ok(|(stream, _)| stream).map(Some)
    })
}

pub(crate) struct Accepted {
    stream: Link,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Accepted {
    fn new(stream: Link, stop: CancellationToken) -> Self {
        Self { stream, stop: Box::pin(stop.cancelled_owned()) }
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Accepted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        let tcp = self.stream.tcp();
        TcpConnectInfo { local_addr: tcp.local_addr().ok(), remote_addr: tcp.peer_addr().ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::pending,
        sync::atomic::{AtomicU32, Ordering},
    };
    use tokio::time::{Instant, sleep};

    const AGAIN: Duration = Duration::from_millis(150);

    /// What comes of tries that are each as `one` says by its number, how many were made, and how long it took.
    async fn tried(
        one: impl AsyncFn(u32) -> io::Result<u32>,
    ) -> (Result<u32, io::ErrorKind>, u32, Duration) {
        let (made, begun) = (AtomicU32::new(0), Instant::now());
        let open = || one(made.fetch_add(1, Ordering::Relaxed));
        let result = first_of(open, AGAIN).await.map_err(|error| error.kind());
        (result, made.load(Ordering::Relaxed), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_takes_longer_than_the_next_try_is_made_all_the_same() {
        let late = async |number| {
            sleep(AGAIN * 3 / 2).await;
            Ok(number)
        };
        assert_eq!(tried(late).await, (Ok(0), 2, AGAIN * 3 / 2));
        // The first packets to a machine that was cut off are lost; those that come after it is back are not.
        let back = async |number| if number < 3 { pending().await } else { Ok(number) };
        assert_eq!(tried(back).await, (Ok(3), 4, AGAIN * 3));
        let nobody = async |_| Err(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(tried(nobody).await, (Err(io::ErrorKind::ConnectionRefused), 1, Duration::ZERO));
        let silent = async |_| pending().await;
        assert_eq!(tried(silent).await, (Err(io::ErrorKind::TimedOut), ATTEMPTS, AGAIN * ATTEMPTS));
    }
}
