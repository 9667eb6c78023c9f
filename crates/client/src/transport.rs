//! Connections to replicas: TCP, and TLS over it where the URL says `https`.

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use world::net::TcpStream;

/// Whom to trust, and what to show, at `https` URLs.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Which protocol is spoken over it is not for the configuration to say.
    #[must_use]
    pub fn new(config: Arc<ClientConfig>) -> Self {
        Self(config)
    }

    fn speaking(&self, protocols: &[&[u8]]) -> TlsConnector {
        let mut config = (*self.0).clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Tls {}

/// How a client proves who it is, and whom it trusts; the default is nobody, without TLS.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// For `https` URLs.
    pub tls: Option<Tls>,
    /// Sent with every request, over TLS only.
    pub token: Option<String>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        f.debug_struct("Access").field("tls", &self.tls).field("token", &token).finish()
    }
}

impl Access {
    /// Whether a URL can be asked so.
    ///
    /// # Errors
    /// In words, what is wrong with it.
    pub fn check(&self, url: &str) -> Result<Uri, String> {
        let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
        match (uri.scheme_str(), uri.authority()) {
            (Some("https"), Some(_)) if self.tls.is_some() => Ok(uri),
            (Some("https"), Some(_)) => {
                Err("https needs the authority that signs the server's certificate".to_owned())
            }
            (Some("http"), Some(_)) if self.token.is_none() => Ok(uri),
            (Some("http"), Some(_)) => Err("a token is sent to https:// only".to_owned()),
            _ => Err("must read http://HOST:PORT or https://HOST:PORT".to_owned()),
        }
    }

    /// A connection to a replica, for HTTP/1.1.
    ///
    /// # Errors
    /// Nobody listens there, or who does cannot prove who it is; within `patience`.
    pub async fn dial(&self, url: &str, patience: Duration) -> io::Result<Stream> {
        let uri = self.check(url).map_err(io::Error::other)?;
        let tls = self.tls.as_ref().map(|tls| tls.speaking(&[b"http/1.1"]));
        timeout(patience, open(&uri, tls)).await?
    }
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// # Errors
/// As the network, or TLS, says.
async fn open(uri: &Uri, tls: Option<TlsConnector>) -> io::Result<Stream> {
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect(bare, port).await?;
    stream.set_nodelay(true)?;
    if !secure {
        return Ok(Stream::Plain(stream));
    }
    let tls = tls.ok_or_else(|| io::Error::other("no authority to trust"))?;
    let name = ServerName::try_from(bare.to_owned()).map_err(io::Error::other)?;
    Ok(Stream::Tls(Box::new(tls.connect(name, stream).await?)))
}

impl AsyncRead for Stream {
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

impl AsyncWrite for Stream {
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

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            Self::Tls(_) | Self::Plain(_) => Connected::new(),
        }
    }
}

/// Makes the connections of a pool.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: Option<TlsConnector>,
    patience: Duration,
}

impl Connector {
    /// For HTTP/2, and HTTP/1.1 where that is not spoken. `patience` is for all of it, the handshake included:
    /// as long as there is no connection, nothing was done.
    pub(crate) fn new(access: &Access, patience: Duration) -> Self {
        let tls = access.tls.as_ref().map(|tls| tls.speaking(&[b"h2", b"http/1.1"]));
        Self { tls, patience }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { tls, patience } = self.clone();
        Box::pin(async move { Ok(TokioIo::new(timeout(patience, open(&uri, tls)).await??)) })
    }
}

/// A gRPC connection to a replica. `tune` may set what it likes but the URL and TLS.
///
/// # Errors
/// In words, the innermost cause.
pub async fn channel(
    url: &str,
    access: &Access,
    tune: impl FnOnce(Endpoint) -> Endpoint,
) -> Result<InterceptedService<Channel, Bearer>, String> {
    let target = access.check(url)?;
    let tls = access.tls.as_ref().map(|tls| tls.speaking(&[b"h2"]));
    // tonic refuses https where TLS is not its own; to the server, it is https all the same.
    let plain = match url.strip_prefix("https://") {
        Some(rest) => format!("http://{rest}"),
        None => url.to_owned(),
    };
    let endpoint = Endpoint::from_shared(plain).map_err(|error| error.to_string())?;
    let endpoint = tune(endpoint.origin(target.clone()));
    let connector = tower::service_fn(move |_: Uri| {
        let (target, tls) = (target.clone(), tls.clone());
        async move { open(&target, tls).await.map(TokioIo::new) }
    });
    let channel = endpoint.connect_with_connector(connector).await;
    let channel = channel.map_err(|error| cause(&error))?;
    let bearer = access.token.as_ref().map(|token| format!("Bearer {token}").parse());
    let bearer = bearer.transpose().map_err(|_| "the token is no header's value".to_owned())?;
    Ok(InterceptedService::new(channel, Bearer(bearer)))
}

/// Adds the token, if there is one.
#[derive(Debug, Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// The innermost cause says most.
pub(crate) fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls() -> Tls {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        Tls::new(Arc::new(config))
    }

    #[test]
    fn a_url_says_how_it_is_spoken_with() {
        let token = || Some("t".to_owned());
        for (url, tls, token, want) in [
            ("http://127.0.0.1:1", None, None, Ok(())),
            ("https://[::1]:1", Some(tls()), token(), Ok(())),
            ("https://h:1", None, None, Err("needs the authority")),
            ("http://h:1", Some(tls()), token(), Err("to https:// only")),
            ("h:1", None, None, Err("must read http://")),
            ("ftp://h:1", None, None, Err("must read http://")),
            ("http:// h", None, None, Err("invalid")),
        ] {
            let access = Access { tls, token };
            match (access.check(url), want) {
                (Ok(_), Ok(())) => {}
                (Err(error), Err(want)) => assert!(error.contains(want), "{url}: {error}"),
                (found, want) => panic!("{url}: {found:?}, not {want:?}"),
            }
            assert!(!format!("{access:?}").contains("\"t\""), "a token is not printed");
        }
    }

    #[tokio::test]
    async fn a_server_that_never_shakes_hands_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let access = Access { tls: Some(tls()), token: None };
        let error = access.dial(&url, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
