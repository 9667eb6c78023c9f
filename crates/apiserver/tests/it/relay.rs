//! Connections into Pods on their way through: the API server knows no protocol.

use crate::{
    Api, PODS,
    node::{saying, serve, until_synced},
    pod,
};
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);

/// Reads a head, and gives it and what came after it.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return (String::from_utf8(bytes).unwrap(), rest);
        }
        let read = timeout(SOON, stream.read_buf(&mut bytes)).await.unwrap().unwrap();
        assert!(read > 0, "no head: {:?}", String::from_utf8_lossy(&bytes));
    }
}

/// With a Pod `p` on a node whose kubelet is whoever accepts here; where the API is.
async fn cluster(tasks: &mut JoinSet<()>) -> (Api, String, TcpListener) {
    let api = Api::new().await;
    let (url, stop) = serve(&api, tasks).await;
    // Ends with the test's tasks.
    drop(stop);
    let kubelet = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = kubelet.local_addr().unwrap().port();
    let status = json!({
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    });
    let node = json!({"metadata": {"name": "node-1"}, "status": status});
    let (code, made) = api.json(Method::POST, "/api/v1/nodes", node).await;
    assert_eq!(code, 201, "{made}");
    let mut object = made.clone();
    object["status"] = status;
    let (code, said) = api.json(Method::PUT, "/api/v1/nodes/node-1/status", object).await;
    assert_eq!(code, 200, "{said}");
    let mut object = pod("p");
    object["spec"]["nodeName"] = json!("node-1");
    let (code, said): (u16, Value) = api.json(Method::POST, PODS, object).await;
    assert_eq!(code, 201, "{said}");
    (api, url.trim_start_matches("http://").to_owned(), kubelet)
}

#[tokio::test]
async fn any_protocol_goes_through_and_each_direction_ends_alone() {
    // SUB-5
    let mut tasks = JoinSet::new();
    let (_api, address, kubelet) = cluster(&mut tasks).await;
    for (method, sub, path, protocol) in [
        ("POST", "exec?command=a&command=b", "/exec/default/p/a?command=a&command=b", "SPDY/3.1"),
        ("GET", "attach?container=a", "/attach/default/p/a?container=a", "websocket"),
        ("GET", "portforward", "/portForward/default/p", "carrier-pigeon"),
    ] {
        let mut client = TcpStream::connect(&address).await.unwrap();
        let request = format!(
            "{method} {PODS}/p/{sub} HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: \
             {protocol}\r\nAuthorization: Bearer secret\r\nX-Stream-Protocol-Version: v4\r\n\
             Content-Length: 0\r\n\r\n"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let (mut far, _) = timeout(SOON, kubelet.accept()).await.unwrap().unwrap();
        let (asked, _) = head(&mut far).await;
        assert!(asked.starts_with(&format!("{method} {path} HTTP/1.1\r\n")), "{asked}");
        let asked = asked.to_lowercase();
        assert!(asked.contains(&format!("upgrade: {}\r\n", protocol.to_lowercase())), "{asked}");
        assert!(asked.contains("x-stream-protocol-version: v4"), "{asked}");
        assert!(!asked.contains("secret"), "it is the API server's: {asked}");
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
             X-Stream-Protocol-Version: v4\r\n\r\nfirst"
        );
        far.write_all(answer.as_bytes()).await.unwrap();
        let (answer, mut seen) = head(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        assert!(answer.to_lowercase().contains("x-stream-protocol-version: v4"), "{answer}");

        client.write_all(b"there").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        timeout(SOON, far.read_to_string(&mut text)).await.unwrap().unwrap();
        assert_eq!(text, "there");
        // The other direction is still open.
        far.write_all(b" and last").await.unwrap();
        drop(far);
        timeout(SOON, client.read_to_end(&mut seen)).await.unwrap().unwrap();
        assert_eq!(seen, b"first and last");
    }
}

#[tokio::test]
async fn a_node_that_nobody_can_connect_to_is_called_by_any_replica() {
    // SUB-5
    let mut tasks = JoinSet::new();
    let api = Api::new().await;
    let (first, _stop_first) = serve(&api, &mut tasks).await;
    let (second, _stop_second) = serve(&api, &mut tasks).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let node = json!({"metadata": {"name": "node-1"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": closed.port()}},
    }});
    let stop = CancellationToken::new();
    let mut node = saying(node, &[first.clone(), second.clone()], &stop, &mut tasks);
    until_synced(&mut node).await;
    let mut object = pod("p");
    object["spec"]["nodeName"] = json!("node-1");
    assert_eq!(api.json(Method::POST, PODS, object).await.0, 201);
    for replica in [first, second] {
        let address = replica.trim_start_matches("http://");
        let ask = async |path: &str, headers: &str| {
            let mut client = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {PODS}/p/{path} HTTP/1.1\r\nHost: api\r\n{headers}\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            client
        };
        // Until it waits there.
        let (mut client, mut far) = loop {
            let mut client = ask("log", "").await;
            tokio::select! {
                far = node.calls.recv() => break (client, far.unwrap()),
                (head, _) = head(&mut client) => assert!(head.starts_with("HTTP/1.1 500"), "{head}"),
            }
        };
        assert!(head(&mut far).await.0.starts_with("GET /containerLogs/default/p/a HTTP/1.1"));
        far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
        let (_, mut seen) = head(&mut client).await;
        while seen != b"hello" {
            assert!(timeout(SOON, client.read_buf(&mut seen)).await.unwrap().unwrap() > 0);
        }
        let upgrade = "Connection: Upgrade\r\nUpgrade: any\r\n";
        let mut client = ask("exec?command=x", upgrade).await;
        let mut far = timeout(SOON, node.calls.recv()).await.unwrap().unwrap();
        head(&mut far).await;
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}\r\nfirst");
        far.write_all(answer.as_bytes()).await.unwrap();
        let (_, mut seen) = head(&mut client).await;
        client.write_all(b"there").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        timeout(SOON, far.read_to_string(&mut text)).await.unwrap().unwrap();
        assert_eq!(text, "there");
        far.write_all(b" and last").await.unwrap();
        drop(far);
        timeout(SOON, client.read_to_end(&mut seen)).await.unwrap().unwrap();
        assert_eq!(seen, b"first and last");
    }
    // Nobody takes calls any more, and that is said.
    drop(node);
    let path = format!("{PODS}/p/log");
    let said = timeout(SOON, async {
        loop {
            let (code, status) = api.json(Method::GET, &path, Value::Null).await;
            assert_eq!(code, 500, "{status}");
            let message = status["message"].as_str().unwrap().to_owned();
            if message.contains("called, it does not wait to be called") {
                return message;
            }
        }
    });
    assert!(said.await.unwrap().contains("node node-1 at 127.0.0.1:"));
}

#[tokio::test]
async fn what_a_kubelet_refuses_is_told_as_it_says_it() {
    // SUB-5
    let mut tasks = JoinSet::new();
    let (api, address, kubelet) = cluster(&mut tasks).await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    for (sub, headers, answer, want) in [
        ("log", "", "400 Bad Request", "\"reason\":\"BadRequest\""),
        ("log", "", "404 Not Found", "\"reason\":\"NotFound\""),
        ("log", "", "500 Oh", "\"message\":\"Internal error occurred: in words\""),
        ("exec?command=x", upgrade, "500 Oh", "\r\n\r\nin words"),
    ] {
        let mut client = TcpStream::connect(&address).await.unwrap();
        let request = format!("GET {PODS}/p/{sub} HTTP/1.1\r\nHost: api\r\n{headers}\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let (mut far, _) = timeout(SOON, kubelet.accept()).await.unwrap().unwrap();
        head(&mut far).await;
        let body = format!("HTTP/1.1 {answer}\r\nContent-Length: 8\r\n\r\nin words");
        far.write_all(body.as_bytes()).await.unwrap();
        let (head, mut rest) = head(&mut client).await;
        while !format!("{head}{}", String::from_utf8_lossy(&rest)).contains(want) {
            let read = timeout(SOON, client.read_buf(&mut rest)).await;
            assert!(matches!(read, Ok(Ok(1..))), "{head}{}", String::from_utf8_lossy(&rest));
        }
        assert!(head.contains(&answer[..3]), "{head}");
    }
    // What needs no kubelet.
    for (path, code, message) in [
        ("p/exec?command=x", 400, "Upgrade request required"),
        ("p/exec?command=x&container=c", 400, "container c is not valid for pod p"),
        ("q/log", 404, "pods \"q\" not found"),
        ("p/log?tailLines=-1", 422, "must be greater than or equal to 0"),
    ] {
        let (found, status) = api.json(Method::GET, &format!("{PODS}/{path}"), Value::Null).await;
        let text = status["message"].as_str().unwrap_or_default();
        assert!(found == code && text.contains(message), "{path}: {found} {status}");
    }
    assert_eq!(api.json(Method::POST, PODS, pod("unbound")).await.0, 201);
    let unbound = format!("{PODS}/unbound");
    let (code, said) =
        api.json(Method::GET, &format!("{unbound}/exec?command=x"), Value::Null).await;
    assert_eq!(
        (code, &said["message"]),
        (400, &json!("pod unbound does not have a host assigned"))
    );
    // A log that has no node yet is empty.
    assert_eq!(api.json(Method::GET, &format!("{unbound}/log"), Value::Null).await.0, 200);
    let service = "/api/v1/namespaces/default/services/s/exec";
    assert_eq!(api.json(Method::GET, service, Value::Null).await.0, 404, "Pods only");
}
