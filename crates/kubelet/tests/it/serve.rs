//! What is served to API servers, over the fake runtime: WebSockets as clients use them, and what is
//! refused. SPDY is tested with `kubectl`.

use crate::control_plane::{Node, container_status};
use futures::{SinkExt as _, StreamExt as _};
use kubelet::runtime::fake::script::ContainerScript;
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue},
};

const SOON: Duration = Duration::from_secs(20);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A node with a Pod `p` whose container `a` runs and has its input open.
async fn node() -> (Node, SocketAddr) {
    let mut node = Node::new();
    let address = node.listen().await;
    node.start().await;
    node.runtime.set_script("a", ContainerScript::parse("exec:seven=7 exec:long=0@1h").unwrap());
    let container = json!({
        "name": "a", "image": "registry.example/a:1", "stdin": true, "stdinOnce": true,
    });
    node.create("p", json!({"restartPolicy": "Never", "containers": [container]})).await;
    let runs = |pod: Option<&Value>| {
        pod.is_some_and(|pod| container_status(pod, "a").pointer("/state/running").is_some())
    };
    node.until("p", runs).await;
    (node, address)
}

async fn open(address: SocketAddr, path: &str, protocol: &str) -> Socket {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    let protocol = HeaderValue::from_str(protocol).unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.clone());
    let (socket, answer) = connect_async(request).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
    socket
}

/// The next message of a channel that has data; `None` at the end.
async fn next(socket: &mut Socket) -> Option<(u8, String)> {
    loop {
        match timeout(SOON, socket.next()).await.expect("something comes")?.ok()? {
            Message::Binary(bytes) if bytes.len() > 1 => {
                return Some((bytes[0], String::from_utf8(bytes[1..].to_vec()).unwrap()));
            }
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

async fn send(socket: &mut Socket, channel: u8, data: &[u8]) {
    let message = Message::Binary([&[channel], data].concat().into());
    timeout(SOON, socket.send(message)).await.unwrap().unwrap();
}

/// What is answered to a plain request: status and body.
async fn get(address: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let close = if headers.is_empty() { "Connection: close\r\n" } else { headers };
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\n{close}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (code, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[tokio::test]
async fn a_program_is_talked_with_over_channels() {
    // SUB-5
    let (_node, address) = node().await;
    let exec = "/exec/default/p/a?command=cat&stdin=true&stdout=true&stderr=true";
    let mut five = open(address, exec, "v5.channel.k8s.io").await;
    send(&mut five, 0, b"hello").await;
    // As clients send text.
    five.send(Message::Text("\0 there".into())).await.unwrap();
    let mut text = String::new();
    while text.len() < 11 {
        let (channel, more) = next(&mut five).await.unwrap();
        assert_eq!(channel, 1);
        text.push_str(&more);
    }
    assert_eq!(text, "hello there");
    send(&mut five, 255, &[0]).await;
    let (channel, status) = next(&mut five).await.unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!((channel, &status["status"]), (3, &json!("Success")));
    assert_eq!(next(&mut five).await, None);

    let mut four = open(address, "/exec/default/p/a?command=seven", "v4.channel.k8s.io").await;
    let (channel, status) = next(&mut four).await.unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!((channel, &status["reason"]), (3, &json!("NonZeroExitCode")));
    let cause = json!([{"reason": "ExitCode", "message": "7"}]);
    assert_eq!(status["details"]["causes"], cause);

    let tty = format!("{exec}&tty=1");
    let mut tty = open(address, &tty, "v5.channel.k8s.io").await;
    send(&mut tty, 4, br#"{"Width":100,"Height":40}"#).await;
    assert_eq!(next(&mut tty).await, Some((1, "100x40\n".to_owned())));
}

#[tokio::test]
async fn what_a_client_sends_waits_until_it_is_read() {
    let (_node, address) = node().await;
    let exec = "/exec/default/p/a?command=cat&stdin=true";
    let mut socket = open(address, exec, "v5.channel.k8s.io").await;
    // It repeats what comes, and nobody reads that.
    let piece = vec![b'x'; 64 << 10];
    let mut sent = 0;
    while timeout(Duration::from_millis(300), async { send(&mut socket, 0, &piece).await })
        .await
        .is_ok()
    {
        sent += piece.len();
        assert!(sent < 256 << 20, "nothing holds it back");
    }
}

#[tokio::test]
async fn who_is_attached_hears_the_container_until_its_end() {
    let (node, address) = node().await;
    let path = "/attach/default/p/a?stdin=true&stdout=true&stderr=true";
    let mut one = open(address, path, "v5.channel.k8s.io").await;
    let mut two = open(address, "/attach/default/p/a", "v4.channel.k8s.io").await;
    // Attached is who has heard the first, empty message.
    let first = timeout(SOON, two.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(first, Message::Pong(_) | Message::Binary(_)), "{first:?}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    send(&mut one, 0, b"word").await;
    assert_eq!(next(&mut one).await, Some((1, "word".to_owned())));
    assert_eq!(next(&mut two).await, Some((1, "word".to_owned())));
    // The container reads its input once: it ends with the first who was attached.
    send(&mut one, 255, &[0]).await;
    for socket in [&mut one, &mut two] {
        let (channel, status) = next(socket).await.unwrap();
        assert!(channel == 3 && status.contains("Success"), "{channel} {status}");
    }
    node.until("p", |pod| pod.is_some_and(|pod| pod["status"]["phase"] == "Succeeded")).await;
    let (code, text) = get(address, path, "").await;
    assert_eq!((code, text.as_str()), (500, "container not found (\"a\")"));
}

#[tokio::test]
async fn ports_are_reached_over_channels() {
    let (_node, address) = node().await;
    let path = "/portForward/default/p?ports=8080&ports=1";
    let mut socket = open(address, path, "v4.channel.k8s.io").await;
    let mut begun = Vec::new();
    let mut refused = String::new();
    while begun.len() < 4 || refused.is_empty() {
        let Message::Binary(bytes) = timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap()
        else {
            continue;
        };
        if bytes.len() == 3 {
            begun.push((bytes[0], u16::from_le_bytes([bytes[1], bytes[2]])));
        } else {
            assert_eq!(bytes[0], 3);
            refused = String::from_utf8(bytes[1..].to_vec()).unwrap();
        }
    }
    begun.sort_unstable();
    assert_eq!(begun, [(0, 8080), (1, 8080), (2, 1), (3, 1)]);
    assert!(refused.contains("error forwarding port 1 to pod p_default"), "{refused}");
    send(&mut socket, 0, b"to the port").await;
    assert_eq!(next(&mut socket).await, Some((0, "to the port".to_owned())));
    // More than all that waits on the way.
    let (mut sink, mut stream) = socket.split();
    let piece = vec![b'x'; 64 << 10];
    let out = async {
        for _ in 0..16 {
            sink.send(Message::Binary([&[0], &piece[..]].concat().into())).await.unwrap();
        }
    };
    let back = async {
        let mut bytes = 0;
        while bytes < 16 * piece.len() {
            if let Message::Binary(message) = stream.next().await.unwrap().unwrap() {
                bytes += message.len() - 1;
            }
        }
    };
    timeout(SOON, async { tokio::join!(out, back) }).await.expect("everything comes back");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let (_node, address) = node().await;
    let ws = "Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let other = format!("{ws}Sec-WebSocket-Protocol: v1.channel.k8s.io\r\n");
    let spdy =
        "Connection: Upgrade, close\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v1\r\n";
    for (path, headers, want) in [
        ("/exec/default/q/a?command=x", ws, (404, "pod does not exist")),
        ("/exec/default/p/b?command=x", ws, (500, "container not found (\"b\")")),
        ("/exec/default/p/a", ws, (400, "you must specify at least one command")),
        ("/exec/default/p/a?command=x&stdout=false&stderr=false", ws, (400, "you must specify")),
        ("/exec/default/p/a?command=x", "", (400, "Upgrade request required")),
        ("/exec/default/p/a?command=x", other.as_str(), (403, "unable to negotiate protocol")),
        ("/exec/default/p/a?command=x", spdy, (403, "unable to negotiate protocol")),
        ("/portForward/default/p", ws, (400, "query parameter \"ports\" is required")),
        ("/portForward/default/p?ports=80", "", (400, "Upgrade request required")),
        (
            "/containerLogs/default/p/a?previous=true",
            "",
            (400, "previous terminated container \"a\" in pod \"p\" not found"),
        ),
        ("/containerLogs/default/q/a", "", (404, "pod does not exist")),
        ("/containerLogs/default/p/a", "", (200, "")),
    ] {
        let (code, text) = get(address, path, headers).await;
        assert!(code == want.0 && text.contains(want.1), "{path}: {code} {text}");
    }
}
