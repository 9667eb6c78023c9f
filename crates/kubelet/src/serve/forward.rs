//! Connections to ports of a Pod's own loopback address.
//!
//! Over SPDY, bare or inside the messages of a WebSocket, each connection is a pair of streams, one for
//! its bytes and one for why there are none. Over channels of a WebSocket there is one connection a
//! port, made at once, with two channels each.

use super::{
    LINGER, Query, carry, chain, channels, find, no_upgrade,
    program::pipe,
    refuse,
    streams::{self, PORT_FORWARD},
    wants,
};
use crate::{
    agent::Shared,
    runtime::{Connection, PodRef},
    spdy::{self, Stream, Taken},
};
use axum::{
    extract::{
        FromRequestParts as _, Path, Request, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures::{SinkExt as _, StreamExt as _, future::join_all};
use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, split},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// SPDY inside of binary messages.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Each takes two channels, of which there are 256.
const PORTS_MAX: usize = 128;
/// For the second stream of a pair to be opened.
const PAIR_DEADLINE: Duration = Duration::from_secs(30);
/// Streams that wait for their second one.
const PAIRS_MAX: usize = 256;
const PIECE: usize = 16 << 10;
/// To ports of one client at once, while they are being made.
const CONNECTS_MAX: usize = 16;
/// To ports of all Pods of this node; each takes a thread for a moment, and open files.
static CONNECTS: Semaphore = Semaphore::const_new(64);

pub(super) async fn port_forward(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name)): Path<(String, String)>,
    query: Query,
    request: Request,
) -> Response {
    let pod = match find(&shared, &namespace, &name).await {
        Ok(pod) => pod.sandbox.config.pod,
        Err(response) => return response,
    };
    let pod = Target { shared, pod, connects: Semaphore::new(CONNECTS_MAX) };
    if wants(request.headers(), spdy::PROTOCOL) {
        return streams::upgrade(request, &[PORT_FORWARD], async move |io| pod.streams(io).await);
    }
    if !wants(request.headers(), "websocket") {
        return no_upgrade();
    }
    let (mut parts, _) = request.into_parts();
    let names_none = !parts.headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let known = [TUNNEL, channels::V4, PORT_FORWARD];
    let upgrade = channels::limited(upgrade).protocols(known);
    match upgrade.selected_protocol() {
        Some(selected) if selected == TUNNEL => upgrade.on_upgrade(async move |socket| {
            let taken = Taken::default();
            let (io, carried) = tunnel(socket, taken.clone());
            carry(carried, pod.streams(io), &taken).await;
        }),
        None if !names_none => channels::no_protocol(&known),
        Some(_) | None => match ports(&query) {
            Ok(ports) => upgrade.on_upgrade(async move |socket| pod.channels(socket, ports).await),
            Err(text) => refuse(StatusCode::BAD_REQUEST, text),
        },
    }
}

/// Those that are asked for.
fn ports(query: &Query) -> Result<Vec<u16>, String> {
    let asked = query.0.iter().filter(|(key, _)| key == "ports" || key == "port");
    let mut ports = Vec::new();
    for text in asked.flat_map(|(_, value)| value.split(',')) {
        let port = text.parse().map_err(|_| format!("unable to parse {text:?} as a port"))?;
        if port == 0 {
            return Err(format!("port {text:?} must be > 0"));
        }
        ports.push(port);
    }
    match ports.len() {
        0 => Err("query parameter \"ports\" is required".to_owned()),
        1..=PORTS_MAX => Ok(ports),
        more => Err(format!("{more} ports are more than {PORTS_MAX}")),
    }
}

/// Whose ports.
struct Target {
    shared: Arc<Shared>,
    pod: PodRef,
    /// Connections that may be being made.
    connects: Semaphore,
}

impl Target {
    /// # Errors
    /// In words, why there is no connection.
    async fn connect(&self, port: u16) -> Result<Box<dyn Connection>, String> {
        let PodRef { namespace, name, uid } = &self.pod;
        // Neither is ever closed.
        let _of_client = self.connects.acquire().await;
        let _of_node = CONNECTS.acquire().await;
        let connected = self.shared.runtime.connect(uid, port).await;
        connected.map_err(|error| {
            format!(
                "error forwarding port {port} to pod {name}_{namespace}, uid {uid}: failed to \
                 connect to localhost:{port} inside the Pod's network namespace: {}",
                chain(&error)
            )
        })
    }

    async fn streams(self, io: impl AsyncRead + AsyncWrite + Send) {
        let (sender, incoming) = mpsc::channel(16);
        let taken = Taken::default();
        let served = spdy::serve(io, sender, CancellationToken::new(), taken.clone());
        let carried = async {
            if let Err(error) = served.await {
                tracing::debug!(error = chain(&error), "streams to ports");
            }
        };
        carry(carried, Arc::new(self).pairs(incoming), &taken).await;
    }

    /// Connects each pair of streams, as they come.
    async fn pairs(self: Arc<Self>, mut incoming: mpsc::Receiver<Stream>) {
        let mut waiting: BTreeMap<String, (Instant, Pair)> = BTreeMap::new();
        let mut connections = JoinSet::new();
        let mut tick = interval(PAIR_DEADLINE / 2);
        loop {
            let stream = tokio::select! {
                stream = incoming.recv() => stream,
                _ = tick.tick() => {
                    waiting.retain(|_, (since, _)| since.elapsed() < PAIR_DEADLINE);
                    continue;
                }
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            let Some(stream) = stream else { break };
            let Some(key) = pair_of(&stream) else {
                tracing::debug!(headers = ?stream.headers, "a stream of a kind that is not known");
                continue;
            };
            if waiting.len() >= PAIRS_MAX && !waiting.contains_key(&key) {
                continue;
            }
            let (_, pair) =
                waiting.entry(key.clone()).or_insert_with(|| (Instant::now(), Pair::default()));
            let place = if is_data(&stream) { &mut pair.data } else { &mut pair.error };
            *place = Some(stream);
            if pair.data.is_none() || pair.error.is_none() {
                continue;
            }
            if let Some((_, Pair { data: Some(data), error: Some(error) })) = waiting.remove(&key) {
                connections.spawn(Arc::clone(&self).pair(data, error));
            }
        }
        connections.shutdown().await;
    }

    async fn pair(self: Arc<Self>, data: Stream, mut error: Stream) {
        let Stream { headers, io, reset, .. } = data;
        let text = headers.get("port").map_or("", String::as_str);
        let connected = match text.parse() {
            Ok(port) if port > 0 => tokio::select! {
                connected = self.connect(port) => connected,
                // Nobody wants it any more.
                () = reset.cancelled() => return,
                () = error.reset.cancelled() => return,
            },
            Ok(_) | Err(_) => Err(format!("unable to parse {text:?} as a port")),
        };
        let connection = match connected {
            Ok(connection) => connection,
            Err(why) => {
                let _ = error.io.write_all(why.as_bytes()).await;
                let _ = error.io.shutdown().await;
                return;
            }
        };
        let over = CancellationToken::new();
        let passed = async {
            tokio::select! {
                () = pass(io, connection, &over) => {}
                () = reset.cancelled() => over.cancel(),
            }
        };
        let told = async {
            over.cancelled().await;
            // Until this has come, old clients keep their own connection open.
            let _ = error.io.shutdown().await;
        };
        tokio::join!(passed, told);
    }

    async fn channels(self, socket: WebSocket, ports: Vec<u16>) {
        let (sink, mut incoming) = socket.split();
        let (sender, queue) = mpsc::channel(4);
        let mut inputs: Vec<Option<DuplexStream>> = Vec::new();
        let mut connections = Vec::new();
        for (at, port) in ports.iter().enumerate() {
            let data = u8::try_from(2 * at).unwrap_or(u8::MAX);
            let (ours, io) = pipe();
            let (from, to) = split(ours);
            let (input, given) = pipe();
            inputs.push(Some(input));
            connections.push(self.connection(*port, data, io, (from, to), given, sender.clone()));
        }
        drop(sender);
        let taken = Taken::default();
        let hear = async {
            while let Some(Ok(message)) = incoming.next().await {
                if matches!(message, Message::Close(_)) {
                    return;
                }
                let Some((channel, bytes)) = channels::parts(message) else { continue };
                // The others are for errors, which only come from here.
                if channel % 2 == 0
                    && let Some(input) = inputs.get_mut(usize::from(channel / 2))
                {
                    channels::write(input, &bytes).await;
                }
            }
        };
        let connections = async {
            join_all(connections).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = connections => {}
            // All was sent, or it cannot be.
            () = channels::send(sink, queue, &taken) => {}
            () = hear => {}
        }
    }

    /// One port's, with its two channels.
    async fn connection(
        &self,
        port: u16,
        data: u8,
        io: DuplexStream,
        (mut from, mut to): (tokio::io::ReadHalf<DuplexStream>, tokio::io::WriteHalf<DuplexStream>),
        mut given: DuplexStream,
        sender: mpsc::Sender<Message>,
    ) {
        for channel in [data, data + 1] {
            let _ = sender.send(channels::message(channel, &port.to_le_bytes())).await;
        }
        let input = async {
            let _ = tokio::io::copy(&mut given, &mut to).await;
            let _ = to.shutdown().await;
            std::future::pending::<()>().await;
        };
        let output = async {
            let passed = async {
                match self.connect(port).await {
                    Ok(connection) => {
                        let over = CancellationToken::new();
                        tokio::select! {
                            () = pass(io, connection, &over) => {}
                            () = over.cancelled() => {}
                        }
                    }
                    Err(why) => {
                        drop(io);
                        let _ = sender.send(channels::message(data + 1, why.as_bytes())).await;
                    }
                }
            };
            tokio::join!(channels::pump(data, Some(&mut from), &sender), passed);
        };
        tokio::select! {
            () = input => {}
            () = output => {}
        }
    }
}

/// Passes bytes both ways, each direction to its own end. `over` says that no more comes from the Pod;
/// what the client has to say still is then passed for a while.
async fn pass(
    io: impl AsyncRead + AsyncWrite,
    connection: impl AsyncRead + AsyncWrite,
    over: &CancellationToken,
) {
    let (mut from_client, mut to_client) = split(io);
    let (mut from_pod, mut to_pod) = split(connection);
    let up = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_pod).await;
        let _ = to_pod.shutdown().await;
    };
    let down = async {
        let _ = tokio::io::copy(&mut from_pod, &mut to_client).await;
        let _ = to_client.shutdown().await;
        over.cancel();
    };
    let (mut up, mut down) = (pin!(up), pin!(down));
    tokio::select! {
        () = &mut up => down.await,
        () = &mut down => drop(timeout(LINGER, up).await),
    }
}

/// Two streams of one connection.
#[derive(Default)]
struct Pair {
    data: Option<Stream>,
    error: Option<Stream>,
}

fn is_data(stream: &Stream) -> bool {
    stream.headers.get("streamtype").is_some_and(|kind| kind == "data")
}

/// By what both streams of a connection are known; `None` for a stream of no connection.
fn pair_of(stream: &Stream) -> Option<String> {
    let kind = stream.headers.get("streamtype")?;
    match (stream.headers.get("requestid"), kind.as_str()) {
        (Some(id), "data" | "error") => Some(format!("request {id}")),
        // Old clients open the stream for errors first, and number nothing.
        (None, "error") => Some(format!("stream {}", stream.id)),
        (None, "data") => Some(format!("stream {}", stream.id.checked_sub(2)?)),
        _ => None,
    }
}

/// A WebSocket as the bytes of its messages, and what carries them until either side ends.
fn tunnel(socket: WebSocket, taken: Taken) -> (DuplexStream, impl Future<Output = ()>) {
    let (ours, io) = pipe();
    let carried = async move {
        let (mut sink, mut incoming) = socket.split();
        let (mut from, mut to) = split(ours);
        let hear = async {
            while let Some(Ok(message)) = incoming.next().await {
                let written = match message {
                    Message::Binary(bytes) => to.write_all(&bytes).await,
                    Message::Close(_) => break,
                    Message::Text(_) | Message::Ping(_) | Message::Pong(_) => Ok(()),
                };
                if written.is_err() {
                    break;
                }
            }
        };
        let say = async {
            let mut piece = vec![0; PIECE];
            while let Ok(read @ 1..) = from.read(&mut piece).await {
                let bytes = piece.get(..read).unwrap_or_default().to_vec();
                if sink.send(Message::Binary(bytes.into())).await.is_err() {
                    return;
                }
                taken.more();
            }
            let _ = sink.send(channels::goodbye()).await;
        };
        tokio::select! {
            () = hear => {}
            () = say => {}
        }
    };
    (io, carried)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_from_one_on() {
        let ports = |query: &str| {
            let uri: axum::http::Uri = format!("/?{query}").parse().unwrap();
            ports(&axum::extract::Query::try_from_uri(&uri).unwrap())
        };
        assert_eq!(ports("ports=80&ports=443"), Ok(vec![80, 443]));
        assert_eq!(ports("ports=80,443&port=1"), Ok(vec![80, 443, 1]));
        for (query, text) in [
            ("", "query parameter \"ports\" is required"),
            ("ports=", "unable to parse \"\" as a port"),
            ("ports=0", "port \"0\" must be > 0"),
            ("ports=65536", "unable to parse \"65536\" as a port"),
            ("ports=http", "unable to parse \"http\" as a port"),
        ] {
            assert_eq!(ports(query), Err(text.to_owned()), "{query}");
        }
        let many = vec!["1"; PORTS_MAX + 1].join(",");
        assert!(ports(&format!("ports={many}")).is_err());
    }

    #[tokio::test]
    async fn all_of_a_long_answer_comes_and_its_end_does_not_wait_for_the_client() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut pod = JoinSet::new();
        pod.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&vec![7; 400_000]).await.unwrap();
        });
        let connection = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut client, io) = pipe();
        let over = CancellationToken::new();
        let passed = pass(io, connection, &over);
        let heard = async {
            let mut bytes = Vec::new();
            client.read_to_end(&mut bytes).await.unwrap();
            over.cancelled().await;
            // Only now.
            client.shutdown().await.unwrap();
            bytes.len()
        };
        let both = async { tokio::join!(heard, passed).0 };
        assert_eq!(timeout(LINGER / 2, both).await.expect("it ends"), 400_000);
    }
}
