//! A member of its own for each test, and clients for it.

use bytes::Bytes;
use etcd::{Config, auth::Clock, proto::etcdserverpb::*};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{
    Epoch, Op, Origin, Proposal, RequestId, Revision, Store as _, Timestamp, local::LocalStore,
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

/// Far more than anything here takes.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// etcd's defaults, and no time at all.
pub(crate) fn config() -> Config {
    Config::new(Clock::new(Arc::new(|| Timestamp(1))))
}

pub(crate) struct Member {
    pub(crate) store: Arc<LocalStore>,
    pub(crate) address: SocketAddr,
    now_us: Arc<AtomicU64>,
    requests: AtomicU64,
    _scope: DropGuard,
}

impl Member {
    pub(crate) async fn start() -> Self {
        Self::start_with(config()).await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        let now_us = Arc::new(AtomicU64::new(1_000_000));
        let clock = Arc::clone(&now_us);
        let store =
            Arc::new(LocalStore::new(Arc::new(move || Timestamp(clock.load(Ordering::Relaxed)))));
        store.begin_epoch(Epoch(1)).outcome.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scope = CancellationToken::new();
        let door = etcd::Door::new(store.clone(), store.clone(), config);
        tokio::spawn(listen::listen(listener, None, door, scope.clone()));
        let requests = AtomicU64::new(0);
        Self { store, address, now_us, requests, _scope: scope.drop_guard() }
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// Time passes, and leases end.
    pub(crate) fn pass_seconds(&self, seconds: u64) {
        self.now_us.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
        self.store.expire_leases();
    }

    pub(crate) async fn carry_out(&self, op: Op) {
        let sequence = self.requests.fetch_add(1, Ordering::Relaxed);
        let request = RequestId { client: 7, sequence };
        let proposal = Proposal { request, origin: Origin::Client, op };
        self.store.propose(proposal, SOON).await.unwrap().outcome.unwrap();
    }

    pub(crate) async fn lease(&self) -> i64 {
        let mut leases = lease_client::LeaseClient::new(self.channel().await);
        leases.lease_grant(LeaseGrantRequest { ttl: 30, id: 0 }).await.unwrap().into_inner().id
    }

    pub(crate) async fn revoke(&self, id: i64) {
        self.carry_out(Op::LeaseRevoke { id: store::LeaseId(id) }).await;
    }

    pub(crate) fn key_count(&self) -> u64 {
        self.store.view().count(&store::KeyRange::From(Bytes::new()))
    }

    /// Waits until so many keys are there.
    pub(crate) async fn keys(&self, count: u64) {
        loop {
            let view = self.store.view();
            if self.key_count() == count {
                return;
            }
            let next = Revision::new(view.revision().get() + 1);
            self.store.wait_for(next, SOON).await.unwrap();
        }
    }

    pub(crate) async fn request(
        &self,
        request: http::Request<String>,
    ) -> (u16, http::HeaderMap, Bytes) {
        let (mut parts, body) = request.into_parts();
        parts.uri = format!("http://{}{}", self.address, parts.uri).parse().unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = http::Request::from_parts(parts, Full::new(Bytes::from(body)));
        let response = client.request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status.as_u16(), parts.headers, body.collect().await.unwrap().to_bytes())
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let request = http::Request::get(path).body(String::new()).unwrap();
        let (status, _, body) = self.request(request).await;
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    pub(crate) async fn post(&self, path: &str, body: impl ToString) -> (u16, Value) {
        let request = http::Request::post(path).body(body.to_string()).unwrap();
        let (status, headers, body) = self.request(request).await;
        assert_eq!(headers["content-type"], "application/json", "{path}: {body:?}");
        (status, serde_json::from_slice(&body).unwrap())
    }

    pub(crate) async fn posted(&self, path: &str, body: impl ToString) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// A POST whose answer goes on.
    pub(crate) async fn stream(&self, path: &str, body: &str) -> Lines {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let uri = format!("http://{}{path}", self.address);
        let request = http::Request::post(uri).body(Full::new(Bytes::from(body.to_owned())));
        let response = client.request(request.unwrap()).await.unwrap();
        Lines { status: response.status().as_u16(), body: response.into_body(), read: Vec::new() }
    }
}

pub(crate) struct Lines {
    pub(crate) status: u16,
    body: hyper::body::Incoming,
    read: Vec<u8>,
}

impl Lines {
    /// `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(SOON, self.body.frame()).await.unwrap()?;
            self.read.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    }
}
