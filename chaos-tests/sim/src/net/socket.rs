//! What a process sees of the network: listeners and streams.

use super::{Connected, End, Event, Network, Port, Segment, Side};
use bytes::{Buf as _, Bytes};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::VecDeque,
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};
use world::{
    host::{Connecting, Host},
    net::{Connection, Listener},
};

/// Bytes of one direction that were sent and not read yet.
const WINDOW_BYTES: usize = 1 << 20;

/// A machine's place in the network.
#[derive(Debug)]
pub struct Nic {
    /// Of the machine.
    pub ip: IpAddr,
    network: Network,
    waits: Mutex<StdRng>,
}

impl Nic {
    /// Of a machine that was switched on.
    #[must_use]
    pub fn new(network: Network, ip: IpAddr, seed: u64) -> Self {
        Self { ip, network, waits: Mutex::new(StdRng::seed_from_u64(seed)) }
    }
}

impl Host for Nic {
    fn connect(&self, to: SocketAddr) -> Connecting {
        let network = self.network.clone();
        let mut state = network.state();
        let id = state.next_connection;
        state.next_connection += 1;
        let port = state.next_port;
        state.next_port = if port == u16::MAX { 40_000 } else { port + 1 };
        let here = SocketAddr::new(self.ip, port);
        let start = state.machines.get(&self.ip).map_or(0, |power| power.start);
        let end = |address, start| End {
            address,
            start,
            arrived: VecDeque::new(),
            finished: false,
            broken: None,
            stuck: VecDeque::new(),
            unread: 0,
            last_arrival: 0,
            reader: None,
            writer: None,
            closed: false,
        };
        let (connecting, connected) = oneshot::channel();
        let ends = [end(here, start), end(to, 0)];
        state.connections.insert(id, Connected { ends, connecting: Some(connecting) });
        let arrival = state.arrival(self.ip, to.ip(), 0);
        state.schedule(arrival, Event::Syn { connection: id, tries: 0 });
        drop(state);
        Box::pin(async move {
            let broken = || io::Error::from(io::ErrorKind::ConnectionAborted);
            connected.await.unwrap_or_else(|_| Err(broken()))?;
            let stream = Stream { network, id, side: 0, here, there: to };
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    }

    fn bind(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let mut state = self.network.state();
        if at.ip() != self.ip && !at.ip().is_unspecified() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let mut at = SocketAddr::new(self.ip, at.port());
        while at.port() == 0 {
            let port = state.next_port;
            state.next_port = if port == u16::MAX { 40_000 } else { port + 1 };
            if !state.ports.contains_key(&SocketAddr::new(self.ip, port)) {
                at.set_port(port);
            }
        }
        if state.ports.contains_key(&at) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.ports.insert(at, Port { waiting: VecDeque::new(), waker: None });
        Ok(Box::new(Listening { network: self.network.clone(), at }))
    }

    fn work_waits(&self) -> Duration {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        // Mostly a thread is free.
        Duration::from_millis(waits.random_range(0_u64..8).saturating_sub(5))
    }
}

#[derive(Debug)]
struct Listening {
    network: Network,
    at: SocketAddr,
}

impl Listener for Listening {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>> {
        let mut state = self.network.state();
        let Some(port) = state.ports.get_mut(&self.at) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        };
        let Some(id) = port.waiting.pop_front() else {
            port.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let there = state.addresses(id, 0).map(|(there, _)| there);
        let Some(there) = there else {
            // Given up meanwhile.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let stream = Stream { network: self.network.clone(), id, side: 1, here: self.at, there };
        Poll::Ready(Ok(Box::new(stream)))
    }

    fn local_addr(&self) -> SocketAddr {
        self.at
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut state = self.network.state();
        let Some(port) = state.ports.remove(&self.at) else { return };
        for id in port.waiting {
            state.send(id, 1, Segment::Reset);
            state.close(id, 1);
        }
    }
}

struct Stream {
    network: Network,
    id: u64,
    side: Side,
    here: SocketAddr,
    there: SocketAddr,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {} -> {}", self.id, self.here, self.there)
    }
}

impl Connection for Stream {
    fn local_addr(&self) -> SocketAddr {
        self.here
    }

    fn peer_addr(&self) -> SocketAddr {
        self.there
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.network.state();
        let Some(end) = state.end(self.id, self.side) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let mut read = 0;
        while let Some(piece) = end.arrived.front_mut() {
            let len = piece.len().min(buf.remaining());
            buf.put_slice(piece.get(..len).unwrap_or_default());
            piece.advance(len);
            read += len;
            if !piece.is_empty() {
                break;
            }
            end.arrived.pop_front();
        }
        if read > 0 {
            if let Some(other) = state.end(self.id, 1 - self.side) {
                other.unread = other.unread.saturating_sub(read);
                if let Some(writer) = other.writer.take() {
                    writer.wake();
                }
            }
            return Poll::Ready(Ok(()));
        }
        if let Some(why) = end.broken {
            return Poll::Ready(Err(why.into()));
        }
        if end.finished {
            return Poll::Ready(Ok(()));
        }
        end.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.network.state();
        let Some(end) = state.end(self.id, self.side) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if let Some(why) = end.broken {
            return Poll::Ready(Err(why.into()));
        }
        let room = WINDOW_BYTES.saturating_sub(end.unread);
        let Some(piece) = buf.get(..buf.len().min(room)).filter(|piece| !piece.is_empty()) else {
            if buf.is_empty() {
                return Poll::Ready(Ok(0));
            }
            end.writer = Some(cx.waker().clone());
            return Poll::Pending;
        };
        state.send(self.id, self.side, Segment::Data(Bytes::copy_from_slice(piece)));
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.network.state().send(self.id, self.side, Segment::Fin);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.network.state();
        let Some(end) = state.end(self.id, self.side) else { return };
        if end.closed {
            return;
        }
        // As a kernel does: whoever leaves something unread resets.
        let last = if end.arrived.is_empty() { Segment::Fin } else { Segment::Reset };
        state.send(self.id, self.side, last);
        state.close(self.id, self.side);
    }
}
