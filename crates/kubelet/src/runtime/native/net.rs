//! A Pod's network: a routed veth, made with four netlink messages on each side.

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    time::timeout,
};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const CREATE: u16 = 0x600;
/// Every node's side of every veth: on-link for the Pod, never seen elsewhere.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// For a program to take a connection that comes from its own machine.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Connects to a port on the loopback address of a network namespace: 127.0.0.1, or `::1` where nobody
/// listens there.
///
/// # Errors
/// Nobody listens.
pub(super) async fn connect_within(namespace: File, port: u16) -> io::Result<TcpStream> {
    let (made, sockets) = oneshot::channel();
    // A socket stays where it was made. A thread of its own does it, since one that has been in
    // another namespace is good for nothing else.
    std::thread::Builder::new().name("connect-within".to_owned()).spawn(move || {
        let sockets = setns(namespace, CloneFlags::CLONE_NEWNET)
            .map_err(io::Error::from)
            .and_then(|()| Ok((TcpSocket::new_v4()?, TcpSocket::new_v6())));
        let _ = made.send(sockets);
    })?;
    let (v4, v6) = sockets.await.map_err(io::Error::other)??;
    let connect = async {
        let refused = match v4.connect((Ipv4Addr::LOCALHOST, port).into()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        match v6 {
            Ok(v6) => v6.connect((Ipv6Addr::LOCALHOST, port).into()).await.map_err(|_| refused),
            Err(_) => Err(refused),
        }
    };
    let stream = timeout(CONNECT_DEADLINE, connect).await??;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// The node's side of a Pod's veth: unique on the host, because the address is.
pub(super) fn host_link(ip: Ipv4Addr) -> (String, i32) {
    let [a, b, c, d] = ip.octets();
    let name = format!("tri{a:02x}{b:02x}{c:02x}{d:02x}");
    (name, i32::from_be_bytes([1, b & 0x7f, c, d]))
}

/// A routing socket; it stays in the namespace in which it was opened.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

fn attribute(out: &mut Vec<u8>, kind: u16, data: &[u8]) {
    let len = u16::try_from(4 + data.len()).expect("an attribute is short");
    out.extend(len.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn link(index: i32, up: bool) -> Vec<u8> {
    let flags = u32::from(up);
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body
}

fn veth(host_name: &str, host_index: i32, pod_namespace: BorrowedFd<'_>) -> Vec<u8> {
    let mut peer = link(2, false);
    attribute(&mut peer, 3, b"eth0\0");
    attribute(&mut peer, 28, &pod_namespace.as_raw_fd().to_ne_bytes());
    let mut data = Vec::new();
    attribute(&mut data, 1, &peer);
    let mut info = Vec::new();
    attribute(&mut info, 1, b"veth");
    attribute(&mut info, 2, &data);
    let mut body = link(host_index, false);
    let mut name = host_name.as_bytes().to_vec();
    name.push(0);
    attribute(&mut body, 3, &name);
    attribute(&mut body, 18, &info);
    body
}

fn address(index: i32, ip: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![2, 32, 0, 0];
    body.extend(index.to_ne_bytes());
    attribute(&mut body, 2, &ip.octets());
    attribute(&mut body, 1, &ip.octets());
    body
}

fn route(to: Option<Ipv4Addr>, gateway: Option<Ipv4Addr>, index: i32) -> Vec<u8> {
    let prefix = if to.is_some() { 32 } else { 0 };
    let scope = if gateway.is_some() { 0 } else { 253 };
    let on_link: u32 = if gateway.is_some() { 4 } else { 0 };
    let mut body = vec![2, prefix, 0, 0, 254, 3, scope, 1];
    body.extend(on_link.to_ne_bytes());
    for (kind, ip) in [(1, to), (5, gateway)] {
        if let Some(ip) = ip {
            attribute(&mut body, kind, &ip.octets());
        }
    }
    attribute(&mut body, 4, &index.to_ne_bytes());
    body
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends one request and waits for its acknowledgement.
    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let len = u32::try_from(16 + body.len()).expect("a message is short");
        let mut message = Vec::with_capacity(16 + body.len());
        message.extend(len.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((flags | 5).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        message.extend(body);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let len = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let answer = answer.get(..len).unwrap_or_default();
        let word = |at: usize| answer.get(at..at + 4).and_then(|b| b.first_chunk::<4>().copied());
        match word(16).map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(error) => Err(io::Error::from_raw_os_error(-error)),
            None => Err(io::Error::other("netlink gave a short answer")),
        }
    }

    /// On the node's side: the veth with its other end in `pod`, and the way to the Pod.
    pub(super) fn attach(
        &mut self,
        name: &str,
        index: i32,
        pod: BorrowedFd<'_>,
        ip: Ipv4Addr,
    ) -> io::Result<()> {
        self.request(NEW_LINK, CREATE, &veth(name, index, pod))?;
        self.request(NEW_LINK, 0, &link(index, true))?;
        self.request(NEW_ADDRESS, CREATE, &address(index, GATEWAY))?;
        self.request(NEW_ROUTE, CREATE, &route(Some(ip), None, index))
    }

    /// On the node's side: the veth is gone when this returns. The kernel would remove it with the Pod's
    /// namespace, but some time later, and the address may be given to another Pod before that.
    pub(super) fn detach(&mut self, ip: Ipv4Addr) -> io::Result<()> {
        match self.request(DELETE_LINK, 0, &link(host_link(ip).1, false)) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// On the Pod's side, from within: loopback, address, and everything else by the node.
    pub(super) fn configure(&mut self, ip: Ipv4Addr) -> io::Result<()> {
        self.request(NEW_LINK, 0, &link(1, true))?;
        self.request(NEW_LINK, 0, &link(2, true))?;
        self.request(NEW_ADDRESS, CREATE, &address(2, ip))?;
        self.request(NEW_ROUTE, CREATE, &route(None, Some(GATEWAY), 2))
    }

    /// Only loopback.
    pub(super) fn loopback(&mut self) -> io::Result<()> {
        self.request(NEW_LINK, 0, &link(1, true))
    }
}
