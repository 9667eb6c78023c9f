//! Lifecycle hooks: a program inside the container, an HTTP request to the Pod, a pause (LIF-1, LIF-2).

use crate::runtime::{ContainerId, ExecConfig, Runtime};
use api::core::{Container, HTTPGetAction, IntOrString, LifecycleHandler};
use std::time::Duration;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy, sink},
    net::TcpStream,
    time::{sleep, timeout},
};

/// For an HTTP hook's answer.
const HTTP_DEADLINE: Duration = Duration::from_secs(30);
/// Of the answer's first line.
const STATUS_LINE_MAX: u64 = 4 << 10;

/// Runs a hook to its end.
///
/// # Errors
/// It failed, or this node cannot run it. The text may hold secrets: it is for the log only.
pub(crate) async fn run(
    runtime: &dyn Runtime,
    id: &ContainerId,
    container: &Container,
    hook: &LifecycleHandler,
    pod_ip: &str,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        return program(runtime, id, exec.command.clone().unwrap_or_default()).await;
    }
    if let Some(pause) = &hook.sleep {
        sleep(Duration::from_secs(u64::try_from(pause.seconds).unwrap_or_default())).await;
        return Ok(());
    }
    if let Some(get) = &hook.http_get {
        let request = Request::new(get, container, pod_ip)?;
        let answer = timeout(HTTP_DEADLINE, request.send()).await;
        return answer.map_err(|elapsed| elapsed.to_string())?;
    }
    Err("this kind of hook is not supported".to_owned())
}

async fn program(runtime: &dyn Runtime, id: &ContainerId, argv: Vec<String>) -> Result<(), String> {
    let config = ExecConfig { argv, stdin: false, tty: false };
    let mut session = runtime.exec(id, config).await.map_err(|e| e.to_string())?;
    let (mut void, mut error_void) = (sink(), sink());
    let out = copy(&mut session.stdout, &mut void);
    match &mut session.stderr {
        Some(stderr) => drop(tokio::join!(out, copy(stderr, &mut error_void))),
        None => drop(out.await),
    }
    match session.exit.await {
        Ok(0) => Ok(()),
        Ok(code) => Err(format!("exit code {code}")),
        Err(_) => Err("the program was abandoned".to_owned()),
    }
}

/// A GET request, resolved.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    authority: String,
    text: String,
}

impl Request {
    fn new(get: &HTTPGetAction, container: &Container, pod_ip: &str) -> Result<Self, String> {
        if get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
            return Err("HTTPS hooks are not supported by this node".to_owned());
        }
        let port = match &get.port {
            IntOrString::Int(port) => *port,
            IntOrString::String(name) => {
                let ports = container.ports.iter().flatten();
                let named =
                    ports.filter(|p| p.name.as_ref() == Some(name)).map(|p| p.container_port);
                let port = named.into_iter().next().or_else(|| name.parse().ok());
                port.ok_or_else(|| format!("container has no port named {name:?}"))?
            }
        };
        let host = get.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
        let authority = format!("{host}:{port}");
        let path = get.path.as_deref().unwrap_or_default();
        let path = path.strip_prefix('/').unwrap_or(path);
        let mut text = format!("GET /{path} HTTP/1.1\r\nConnection: close\r\n");
        let headers = || get.http_headers.iter().flatten();
        if !headers().any(|header| header.name.eq_ignore_ascii_case("host")) {
            text.push_str(&format!("Host: {authority}\r\n"));
        }
        for header in headers() {
            text.push_str(&format!("{}: {}\r\n", header.name, header.value));
        }
        text.push_str("\r\n");
        Ok(Self { authority, text })
    }

    async fn send(&self) -> Result<(), String> {
        let exchange = async {
            let mut stream = TcpStream::connect(&self.authority).await?;
            stream.write_all(self.text.as_bytes()).await?;
            let mut line = String::new();
            BufReader::new(stream).take(STATUS_LINE_MAX).read_line(&mut line).await?;
            Ok::<_, std::io::Error>(line)
        };
        let line = exchange.await.map_err(|error| error.to_string())?;
        let code = line.split_whitespace().nth(1).unwrap_or_default();
        if code.starts_with('2') || code.starts_with('3') {
            Ok(())
        } else {
            Err(format!("HTTP status {code:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::net::TcpListener;

    fn request(get: serde_json::Value) -> Result<Request, String> {
        let container = json!({"name": "a", "ports": [{"name": "admin", "containerPort": 8081}]});
        let container: Container = serde_json::from_value(container).unwrap();
        Request::new(&serde_json::from_value(get).unwrap(), &container, "10.0.0.7")
    }

    #[test]
    fn a_hook_asks_the_pod_itself_unless_it_names_a_host() {
        // LIF-2
        for (get, want) in [
            (json!({"port": 80}), Ok("10.0.0.7:80")),
            (json!({"port": "admin"}), Ok("10.0.0.7:8081")),
            (json!({"port": "8082", "host": "127.0.0.1"}), Ok("127.0.0.1:8082")),
            (json!({"port": "none"}), Err("container has no port named \"none\"")),
            (
                json!({"port": 443, "scheme": "HTTPS"}),
                Err("HTTPS hooks are not supported by this node"),
            ),
        ] {
            let authority = request(get.clone()).map(|request| request.authority);
            assert_eq!(authority.as_deref().map_err(String::as_str), want, "{get}");
        }
        let get =
            json!({"port": 80, "path": "bye", "httpHeaders": [{"name": "host", "value": "x"}]});
        let text = request(get).unwrap().text;
        assert_eq!(text, "GET /bye HTTP/1.1\r\nConnection: close\r\nhost: x\r\n\r\n");
    }

    #[tokio::test]
    async fn an_answer_below_400_is_success() {
        // PRB-2's bounds, for hooks
        for (code, good) in [(200, true), (302, true), (404, false), (500, false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let answer = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(format!("HTTP/1.1 {code} X\r\n\r\n").as_bytes()).await.unwrap();
            };
            let request = request(json!({"port": port, "host": "127.0.0.1"})).unwrap();
            let (sent, ()) = tokio::join!(request.send(), answer);
            assert_eq!(sent.is_ok(), good, "{code}");
        }
    }
}
