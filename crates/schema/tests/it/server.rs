//! A server of discovery and documents that answers writes with what was written.

use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

pub(crate) struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Its threads end with the test's process.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = log.clone();
                std::thread::spawn(move || serve(stream, &log));
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Method and path of every request until now.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// One request a connection.
fn serve(mut stream: TcpStream, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    log.lock().unwrap().push(format!("{method} {target}"));
    let (mut accept, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "accept" => value.clone_into(&mut accept),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let path = target.split('?').next()?;
    let (code, content_type, body) = answer(&method, path, &accept, &body);
    let head = format!(
        "HTTP/1.1 {code} X\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&body).ok()
}

fn answer(method: &str, path: &str, accept: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let plain = |code: u16, value: &Value| {
        (code, "application/json".to_owned(), value.to_string().into_bytes())
    };
    if method != "GET" {
        let code = if method == "POST" { 201 } else { 200 };
        return (code, "application/json".to_owned(), body.to_vec());
    }
    if let ("/api" | "/apis", true) = (path, accept.contains("as=APIGroupDiscoveryList")) {
        let version = if accept.contains("v=v2;") { "v2" } else { "v2beta1" };
        let found = api::discovery::aggregated(path == "/api", version);
        let kind =
            format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        return (200, kind, found.to_string().into_bytes());
    }
    match path {
        "/api" => return plain(200, &api::discovery::api_versions()),
        "/apis" => return plain(200, &api::discovery::api_groups()),
        "/version" => {
            return plain(200, &json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0"}));
        }
        "/openapi/v2" => {
            let kind = schema::openapi_v2::CONTENT_TYPE.to_owned();
            return (200, kind, schema::openapi_v2::document().to_vec());
        }
        "/openapi/v3" => {
            return (200, "application/json".to_owned(), schema::openapi::index().to_vec());
        }
        "/api/v1/namespaces/default" => {
            let namespace =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
            return plain(200, &namespace);
        }
        _ => {}
    }
    if let Some(document) = path.strip_prefix("/openapi/v3/").and_then(schema::openapi::document) {
        return (200, "application/json".to_owned(), document.bytes.clone());
    }
    let found = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["", "api", version] => api::discovery::resources("", version),
        ["", "apis", group, version] => api::discovery::resources(group, version),
        _ => None,
    };
    match found {
        Some(found) => plain(200, &found),
        None => plain(404, &api::status::Status::no_such_path().to_json()),
    }
}
