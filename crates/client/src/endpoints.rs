//! Several replicas as one service: the last good one first, then the others in turn.

use crate::{Attempt, Body, ClientError};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout_at};

/// Where the API is and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// `http://host:port`, at least one.
    pub urls: Vec<String>,
    /// For one attempt to connect.
    pub connect_timeout: Duration,
    /// For a call with all its attempts.
    pub deadline: Duration,
}

/// Waits before everything is tried again; grows to [`ROUND_MAX`].
const ROUND_MIN: Duration = Duration::from_millis(10);
const ROUND_MAX: Duration = Duration::from_millis(200);

/// Requests to whichever replica answers.
#[derive(Clone)]
pub(crate) struct Replicas {
    http: Http<HttpConnector, Full<Bytes>>,
    urls: Arc<[String]>,
    /// The last one that answered.
    good: Arc<AtomicUsize>,
    deadline: Duration,
}

enum Outcome {
    Answer(Response<Body>),
    /// Nothing was done there.
    Refused(String),
    /// It was sent, and the answer lost.
    Lost(String),
}

impl Replicas {
    pub(crate) fn new(endpoints: Endpoints) -> Result<Self, ClientError> {
        for url in &endpoints.urls {
            let parsed = url.parse::<Uri>().map_err(|e| e.to_string());
            let error = match parsed {
                Ok(uri) if uri.scheme_str() == Some("http") && uri.authority().is_some() => {
                    continue;
                }
                Ok(_) => "must read http://HOST:PORT".to_owned(),
                Err(error) => error,
            };
            return Err(ClientError::Unreachable {
                attempts: vec![Attempt { endpoint: url.clone(), error }],
            });
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(endpoints.connect_timeout));
        let http = Http::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Ok(Self {
            http,
            urls: endpoints.urls.into(),
            good: Arc::default(),
            deadline: endpoints.deadline,
        })
    }

    /// In the order in which they are tried, with their positions.
    fn order(&self) -> impl Iterator<Item = (usize, &String)> {
        let first = self.good.load(Ordering::Relaxed);
        let count = self.urls.len();
        (0..count).filter_map(move |i| {
            let at = (first + i) % count;
            Some((at, self.urls.get(at)?))
        })
    }

    pub(crate) async fn send(
        &self,
        request: Request<Bytes>,
    ) -> Result<Response<Body>, ClientError> {
        let until = Instant::now() + self.deadline;
        let (parts, body) = request.into_parts();
        let mut pause = ROUND_MIN;
        loop {
            let began = Instant::now();
            let mut attempts = Vec::new();
            for (at, url) in self.order() {
                let outcome = self.attempt(url, &parts, &body, until).await;
                let error = match outcome {
                    Outcome::Answer(answer) => {
                        self.good.store(at, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Outcome::Refused(error) => error,
                    // A read does no harm twice.
                    Outcome::Lost(error) if parts.method == Method::GET => error,
                    Outcome::Lost(error) => {
                        self.good.store((at + 1) % self.urls.len(), Ordering::Relaxed);
                        return Err(ClientError::Unknown { endpoint: url.clone(), error });
                    }
                };
                attempts.push(Attempt { endpoint: url.clone(), error });
            }
            // A round that the deadline cuts short says less than this one, and leaves a write in doubt.
            if Instant::now() + pause + began.elapsed() >= until {
                return Err(ClientError::Unreachable { attempts });
            }
            sleep(pause).await;
            pause = (pause * 2).min(ROUND_MAX);
        }
    }

    async fn attempt(
        &self,
        url: &str,
        parts: &http::request::Parts,
        body: &Bytes,
        until: Instant,
    ) -> Outcome {
        let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = parts.method.clone();
        *request.headers_mut() = parts.headers.clone();
        match format!("{}{path}", url.trim_end_matches('/')).parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => return Outcome::Refused(format!("{path}: {error}")),
        }
        match timeout_at(until, self.http.request(request)).await {
            Ok(Ok(answer)) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => {
                // Nothing was done (HTTP-1): another replica may know a leader.
                let text =
                    answer.into_body().collect().await.map(http_body_util::Collected::to_bytes);
                Outcome::Refused(match text {
                    Ok(text) => message(&text),
                    Err(error) => error.to_string(),
                })
            }
            Ok(Ok(answer)) => {
                Outcome::Answer(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
            }
            Ok(Err(error)) if error.is_connect() => Outcome::Refused(causes(&error)),
            Ok(Err(error)) => Outcome::Lost(causes(&error)),
            Err(_) => Outcome::Lost("no answer in time".to_owned()),
        }
    }
}

/// What a Status says, or the text itself.
fn message(body: &[u8]) -> String {
    serde_json::from_slice(body)
        .ok()
        .and_then(|value| api::status::Status::from_json(&value))
        .map_or_else(|| String::from_utf8_lossy(body).into_owned(), |status| status.message)
}

/// The innermost cause says most.
fn causes(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// For a body that is JSON.
pub(crate) const JSON: http::HeaderValue = http::HeaderValue::from_static("application/json");

/// A request with a JSON body, or without one.
pub(crate) fn request(method: Method, path: &str, body: Option<Vec<u8>>) -> Request<Bytes> {
    let has_body = body.is_some();
    let mut request = Request::new(Bytes::from(body.unwrap_or_default()));
    *request.method_mut() = method;
    // Paths are made of checked names and encoded queries.
    *request.uri_mut() = path.parse().unwrap_or_default();
    request.headers_mut().insert(header::ACCEPT, JSON);
    if has_body {
        request.headers_mut().insert(header::CONTENT_TYPE, JSON);
    }
    request
}
