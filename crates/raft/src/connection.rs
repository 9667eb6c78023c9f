//! Connections between members: made and accepted, with TLS if there is any.
//!
//! One that was accepted breaks when the replica ends: a peer's stream has no end of its own.

use crate::config::PeerTls;
use futures::{Stream, StreamExt as _};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    future::Future as _,
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

/// A connection to a peer at a URL, made when it is first used, and again when it has broken. `tune` may set
/// what it likes but the URL and TLS.
///
/// # Errors
/// It is no URL.
pub(crate) fn lazy(
    url: &str,
    tls: Option<&PeerTls>,
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
        async move { open(&target, tls).await.map(TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

fn connector(config: &ClientConfig) -> TlsConnector {
    let mut config = config.clone();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn open(target: &Uri, tls: Option<TlsConnector>) -> io::Result<Link> {
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
