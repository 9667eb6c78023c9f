//! One connection to an API server, HTTP/1.1, one request at a time.

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::{path::Path, time::Duration};
use tokio::{net::TcpStream, task::AbortHandle, time::timeout};

const CONNECT: Duration = Duration::from_secs(5);

/// Where an API server is, and as whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiEndpoint {
    /// `host:port`
    authority: String,
    /// For `Authorization`.
    token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    current_context: String,
    contexts: Vec<Named>,
    clusters: Vec<Named>,
    #[serde(default)]
    users: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    context: Context,
    #[serde(default)]
    cluster: Cluster,
    #[serde(default)]
    user: Option<User>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Cluster {
    server: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct User {
    token: Option<String>,
}

impl ApiEndpoint {
    /// From `http://host:port`.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(url: &str) -> anyhow::Result<Self> {
        let rest = url.strip_prefix("http://");
        // The place for TLS: what is needed besides comes from the kubeconfig.
        ensure!(!url.starts_with("https://"), "{url}: the load generator speaks no TLS yet");
        let rest = rest.with_context(|| format!("{url:?} must read http://HOST:PORT"))?;
        let authority = rest.trim_end_matches('/').to_owned();
        ensure!(
            !authority.is_empty() && !authority.contains('/'),
            "{url:?} must read http://HOST:PORT"
        );
        Ok(Self { authority, token: None })
    }

    /// The server and the token of a kubeconfig's current context.
    ///
    /// # Errors
    /// It cannot be read, or lacks something.
    pub fn from_kubeconfig(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("read {}", path.display()))?;
        Self::of_kubeconfig(&text).with_context(|| format!("kubeconfig {}", path.display()))
    }

    fn of_kubeconfig(text: &str) -> anyhow::Result<Self> {
        fn find<'a>(all: &'a [Named], what: &str, name: &str) -> anyhow::Result<&'a Named> {
            let found = all.iter().find(|named| named.name == name);
            found.with_context(|| format!("no {what} {name:?}"))
        }
        let config: Kubeconfig = serde_yaml_ng::from_str(text)?;
        let context = &find(&config.contexts, "context", &config.current_context)?.context;
        let cluster = &find(&config.clusters, "cluster", &context.cluster)?.cluster;
        let user = find(&config.users, "user", &context.user).ok();
        let token = user.and_then(|user| user.user.as_ref()?.token.clone());
        Ok(Self { token, ..Self::parse(&cluster.server)? })
    }
}

impl std::fmt::Display for ApiEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

/// A connection. Its task ends with it.
#[derive(Debug)]
pub(super) struct Connection {
    endpoint: ApiEndpoint,
    agent: &'static str,
    sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// `agent` is what the server takes for the manager of fields.
    pub(super) async fn open(endpoint: &ApiEndpoint, agent: &'static str) -> anyhow::Result<Self> {
        let authority = &endpoint.authority;
        let stream = timeout(CONNECT, TcpStream::connect(authority))
            .await
            .with_context(|| format!("connect to {authority}: no answer"))?
            .with_context(|| format!("connect to {authority}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // On the load generator's own thread; it is ended when this is dropped.
        let driver = tokio::task::spawn_local(async move {
            // Whoever waits for an answer is told.
            drop(connection.await);
        });
        Ok(Self { endpoint: endpoint.clone(), agent, sender, driver: driver.abort_handle() })
    }

    /// Sends a request; the answer's head and what follows.
    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> anyhow::Result<http::Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.endpoint.authority)
            .header(header::USER_AGENT, self.agent)
            .header(header::ACCEPT, "application/json");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        if let Some(token) = &self.endpoint.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        // A server may end a connection after any answer.
        if self.sender.ready().await.is_err() {
            *self = Self::open(&self.endpoint.clone(), self.agent).await?;
        }
        Ok(self.sender.send_request(request.body(Full::new(body))?).await?)
    }

    /// Sends a request and takes in all of the answer.
    pub(super) async fn whole(
        &mut self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let answer = self.send(method, path, content_type, body).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// The same, for what must succeed.
    pub(super) async fn must(
        &mut self,
        method: Method,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<serde_json::Value> {
        let sent = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let (status, bytes) = self.whole(method.clone(), path, JSON, sent).await?;
        if !status.is_success() {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&bytes));
        }
        serde_json::from_slice(&bytes).with_context(|| format!("{method} {path}"))
    }
}

pub(super) const JSON: &str = "application/json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_says_where_and_as_whom() {
        let text = "
current-context: here
contexts: [{name: there, context: {cluster: a, user: b}}, {name: here, context: {cluster: c, user: d}}]
clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1234/'}}]
users: [{name: d, user: {token: secret}}]
";
        let endpoint = ApiEndpoint::of_kubeconfig(text).unwrap();
        assert_eq!(endpoint.to_string(), "http://127.0.0.1:1234");
        assert_eq!(endpoint.token.as_deref(), Some("secret"));
        for (from, to, want) in [
            ("current-context: here", "current-context: x", "no context \"x\""),
            ("{name: c, cluster", "{name: z, cluster", "no cluster \"c\""),
            ("http://127.0.0.1:1234/", "127.0.0.1", "must read http://HOST:PORT"),
            ("http://127.0.0.1:1234/", "https://x:1", "no TLS yet"),
        ] {
            let error = ApiEndpoint::of_kubeconfig(&text.replace(from, to)).unwrap_err();
            assert!(format!("{error:#}").contains(want), "{error:#}");
        }
    }
}
