//! TCP: of the operating system, or of a simulated network.

use crate::host;
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One end of a simulated connection.
pub trait Connection: AsyncRead + AsyncWrite + fmt::Debug + Send + Sync + Unpin {
    /// Of this end.
    fn local_addr(&self) -> SocketAddr;

    /// Of the other end.
    fn peer_addr(&self) -> SocketAddr;
}

/// A simulated port that is listened on; dropping it closes the port.
pub trait Listener: fmt::Debug + Send + Sync {
    /// The next connection that somebody has made.
    ///
    /// # Errors
    /// As the operating system's.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>>;

    /// Where.
    fn local_addr(&self) -> SocketAddr;
}

/// A connection.
#[derive(Debug)]
pub struct TcpStream(Stream);

#[derive(Debug)]
enum Stream {
    Real(tokio::net::TcpStream),
    Simulated(Box<dyn Connection>),
}

impl TcpStream {
    /// Connects to a port of a host, by name or address.
    ///
    /// # Errors
    /// As the operating system says.
    pub async fn connect(host: &str, port: u16) -> io::Result<Self> {
        let Some(here) = host::current() else {
            return Ok(tokio::net::TcpStream::connect((host, port)).await?.into());
        };
        let ip: IpAddr = host.parse().map_err(|_| {
            io::Error::new(io::ErrorKind::NotFound, "simulated hosts have no names")
        })?;
        let connecting = here.connect(SocketAddr::new(ip, port));
        drop(here);
        Ok(Self(Stream::Simulated(connecting.await?)))
    }

    /// Sends small pieces at once.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn set_nodelay(&self, at_once: bool) -> io::Result<()> {
        match &self.0 {
            Stream::Real(stream) => stream.set_nodelay(at_once),
            Stream::Simulated(_) => Ok(()),
        }
    }

    /// Of this end.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Stream::Real(stream) => stream.local_addr(),
            Stream::Simulated(stream) => Ok(stream.local_addr()),
        }
    }

    /// Of the other end.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Stream::Real(stream) => stream.peer_addr(),
            Stream::Simulated(stream) => Ok(stream.peer_addr()),
        }
    }
}

impl From<tokio::net::TcpStream> for TcpStream {
    fn from(stream: tokio::net::TcpStream) -> Self {
        Self(Stream::Real(stream))
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Stream::Real(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Simulated(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Stream::Real(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Simulated(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Stream::Real(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Simulated(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Stream::Real(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Simulated(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Stream::Real(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Simulated(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Stream::Real(stream) => stream.is_write_vectored(),
            Stream::Simulated(stream) => stream.is_write_vectored(),
        }
    }
}

/// A port that is listened on.
#[derive(Debug)]
pub struct TcpListener(Port);

#[derive(Debug)]
enum Port {
    Real(tokio::net::TcpListener),
    Simulated(Box<dyn Listener>),
}

impl TcpListener {
    /// Listens on an address of this machine; port 0 is any that is free.
    ///
    /// # Errors
    /// As the operating system says.
    pub async fn bind(at: SocketAddr) -> io::Result<Self> {
        match host::current() {
            None => Ok(tokio::net::TcpListener::bind(at).await?.into()),
            Some(here) => Ok(Self(Port::Simulated(here.bind(at)?))),
        }
    }

    /// The next connection, and where it comes from.
    ///
    /// # Errors
    /// As the operating system says; the next one may succeed.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`TcpListener::accept`].
    ///
    /// # Errors
    /// As the operating system says; the next one may succeed.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        match &self.0 {
            Port::Real(listener) => {
                listener.poll_accept(cx).map_ok(|(stream, from)| (stream.into(), from))
            }
            Port::Simulated(listener) => listener.poll_accept(cx).map_ok(|stream| {
                let from = stream.peer_addr();
                (TcpStream(Stream::Simulated(stream)), from)
            }),
        }
    }

    /// Where.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Port::Real(listener) => listener.local_addr(),
            Port::Simulated(listener) => Ok(listener.local_addr()),
        }
    }
}

impl From<tokio::net::TcpListener> for TcpListener {
    fn from(listener: tokio::net::TcpListener) -> Self {
        Self(Port::Real(listener))
    }
}
