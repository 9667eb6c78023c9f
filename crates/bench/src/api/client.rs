//! One connection to an API server, HTTP/1.1, one request at a time.

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use client::{endpoints::Endpoints, transport::Access};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::task::AbortHandle;

const CONNECT: Duration = Duration::from_secs(5);

/// Where an API server is, and as whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiEndpoint {
    /// `http(s)://host:port`
    url: String,
    /// `host:port`
    authority: String,
    access: Access,
}

impl ApiEndpoint {
    /// `http://host:port`, as nobody.
    ///
    /// # Errors
    /// It is something else.
    pub fn plain(url: &str) -> anyhow::Result<Self> {
        Self::new(url, &Access::default())
    }

    /// All of them.
    ///
    /// # Errors
    /// One is no `http(s)://host:port`, or cannot be asked so.
    pub fn all(endpoints: &Endpoints) -> anyhow::Result<Vec<Self>> {
        endpoints.urls.iter().map(|url| Self::new(url, &endpoints.access)).collect()
    }

    fn new(url: &str, access: &Access) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/');
        let uri = access.check(url).map_err(|wrong| anyhow!("{url}: {wrong}"))?;
        let authority = uri.authority().context("a server has an address")?.to_string();
        Ok(Self { url: url.to_owned(), authority, access: access.clone() })
    }
}

impl std::fmt::Display for ApiEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
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
        let stream = endpoint.access.dial(&endpoint.url, CONNECT).await;
        let stream = stream.with_context(|| format!("connect to {endpoint}"))?;
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
        if let Some(token) = &self.endpoint.access.token {
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
    fn an_endpoint_is_a_url_that_can_be_asked() {
        let open = Access::default();
        let endpoint = ApiEndpoint::new("http://127.0.0.1:1234/", &open).unwrap();
        assert_eq!(endpoint.to_string(), "http://127.0.0.1:1234");
        assert_eq!(endpoint.authority, "127.0.0.1:1234");
        let token = Access { token: Some("secret".to_owned()), ..Access::default() };
        for (url, access, want) in [
            ("127.0.0.1", &open, "must read http://HOST:PORT"),
            ("https://x:1", &open, "https needs the authority"),
            ("http://x:1", &token, "a token is sent to https:// only"),
        ] {
            let error = ApiEndpoint::new(url, access).unwrap_err();
            assert!(format!("{error:#}").contains(want), "{error:#}");
        }
    }
}
