//! Several replicas as one service: the last good one first, then the others in turn.

use crate::{
    Attempt, Body, ClientError,
    transport::{Access, Connector, cause},
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::Client as Http,
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
    /// `http(s)://host:port`, at least one.
    pub urls: Vec<String>,
    /// Whom to trust there, and how to prove who one is.
    pub access: Access,
    /// For one attempt to connect, the handshake included.
    pub connect_timeout: Duration,
    /// For a call with all its attempts.
    pub deadline: Duration,
}

impl Endpoints {
    /// These, or any others, with the patience of a command line.
    #[must_use]
    pub fn new(urls: Vec<String>, access: Access) -> Self {
        Self {
            urls,
            access,
            connect_timeout: Duration::from_secs(1),
            deadline: Duration::from_secs(10),
        }
    }

    /// Others, to be reached the same way.
    #[must_use]
    pub fn at(&self, urls: Vec<String>) -> Self {
        Self { urls, ..self.clone() }
    }
}

/// A connection that is silent so long is asked whether it lives.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// And given up when it does not answer for so long: a replica that hangs must not keep what is on its way.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Waits before everything is tried again; grows to [`ROUND_MAX`].
const ROUND_MIN: Duration = Duration::from_millis(10);
const ROUND_MAX: Duration = Duration::from_millis(200);

/// Requests to whichever replica answers.
#[derive(Clone)]
pub(crate) struct Replicas {
    http: Http<Connector, Full<Bytes>>,
    urls: Arc<[String]>,
    bearer: Option<HeaderValue>,
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
            if let Err(error) = endpoints.access.check(url) {
                let attempts = vec![Attempt { endpoint: url.clone(), error }];
                return Err(ClientError::Unreachable { attempts });
            }
        }
        let bearer = endpoints.access.token.as_ref().map(|token| {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            value.map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
        let bearer = bearer.transpose().map_err(|error| ClientError::Unreachable {
            attempts: vec![Attempt { endpoint: "the token".to_owned(), error: error.to_string() }],
        })?;
        let connector = Connector::new(&endpoints.access, endpoints.connect_timeout);
        let http = Http::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .http2_keep_alive_interval(ALIVE_INTERVAL)
            .http2_keep_alive_timeout(ALIVE_TIMEOUT)
            .build(connector);
        Ok(Self {
            http,
            urls: endpoints.urls.into(),
            bearer,
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
        if let Some(bearer) = &self.bearer {
            request.headers_mut().insert(header::AUTHORIZATION, bearer.clone());
        }
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
            Ok(Err(error)) if error.is_connect() || unsent(&error) => {
                Outcome::Refused(cause(&error))
            }
            Ok(Err(error)) => match cause(&error) {
                why if unproven(&why) => Outcome::Refused(why),
                why => Outcome::Lost(why),
            },
            Err(_) => Outcome::Lost("no answer in time".to_owned()),
        }
    }
}

/// Whether a connection was lost before a request began to go out over it.
fn unsent(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let of_hyper = error.downcast_ref::<hyper::Error>();
        if of_hyper.is_some_and(|error| error.is_canceled() || error.is_closed()) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Whether a server has refused this client's certificate. In TLS 1.3 it says so when the client takes the
/// handshake for done and has sent its request, which nobody has read then. The type of the error is lost on its
/// way through HTTP/2.
fn unproven(why: &str) -> bool {
    const ALERTS: [&str; 9] = [
        "AccessDenied",
        "BadCertificate",
        "CertificateExpired",
        "CertificateRequired",
        "CertificateRevoked",
        "CertificateUnknown",
        "DecryptError",
        "UnknownCA",
        "UnsupportedCertificate",
    ];
    why.split_once("received fatal alert: ")
        .is_some_and(|(_, alert)| ALERTS.iter().any(|known| alert.starts_with(known)))
}

/// What a Status says, or the text itself.
fn message(body: &[u8]) -> String {
    serde_json::from_slice(body)
        .ok()
        .and_then(|value| api::status::Status::from_json(&value))
        .map_or_else(|| String::from_utf8_lossy(body).into_owned(), |status| status.message)
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
