//! The door through which every gRPC call comes: it counts them, and says in etcd's words what the gRPC
//! library says in its own.

use crate::{
    core::Core,
    counters::{Counters, Method, add},
    kv::KvService,
    lease::LeaseService,
    proto::etcdserverpb::{kv_server::KvServer, lease_server::LeaseServer},
    watch::WatchService,
};
use axum::{Router, body::Body};
use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::time::Instant;
use tonic::{Code, Status, server::NamedService as _};
use tower::{BoxError, ServiceExt as _};

/// There is no generated server that says it.
const WATCH: &str = "etcdserverpb.Watch";

/// What nearly every call is for has a way of its own: a router's costs as much as a small call itself.
pub(crate) struct Services {
    pub(crate) kv: KvServer<KvService>,
    pub(crate) watch: WatchService,
    pub(crate) lease: LeaseServer<LeaseService>,
    pub(crate) others: Router,
}

impl Services {
    async fn call<B>(
        &self,
        service: &str,
        request: Request<Received<B>>,
    ) -> Response<tonic::body::Body>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
    {
        let Ok(response) = match service {
            KvServer::<KvService>::NAME => self.kv.clone().oneshot(request).await,
            LeaseServer::<LeaseService>::NAME => self.lease.clone().oneshot(request).await,
            WATCH => self.watch.clone().oneshot(request).await,
            _ => self.others.clone().oneshot(request).await.map(|r| r.map(tonic::body::Body::new)),
        };
        response
    }
}

#[derive(Clone)]
pub(crate) struct Grpc {
    services: Arc<Services>,
    core: Arc<Core>,
}

impl Grpc {
    pub(crate) fn new(services: Services, core: Arc<Core>) -> Self {
        Self { services: Arc::new(services), core }
    }

    pub(crate) async fn call<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
    {
        let path = request.uri().path();
        let counters = &self.core.counters;
        let Some(method) = counters.methods.get(path).map(Arc::clone) else {
            return unknown(counters, path).into_http();
        };
        add(&method.started, 1);
        let mut call = Call {
            begun: Instant::now(),
            method: Some(Arc::clone(&method)),
            core: Arc::clone(&self.core),
        };
        let core = Arc::clone(&self.core);
        let request = request.map(|body| Received { body, core });
        let response = self.services.call(&method.service, request).await;
        let (mut parts, body) = response.into_parts();
        if call.ended(&mut parts.headers) {
            return Response::from_parts(parts, Body::new(body));
        }
        Response::from_parts(parts, Body::new(Sent { body, call }))
    }
}

/// What there is no method for.
fn unknown(counters: &Counters, path: &str) -> Status {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/'))
    else {
        return Status::unimplemented(format!("malformed method name: {path:?}"));
    };
    match counters.methods.values().any(|known| known.service == service) {
        true => Status::unimplemented(format!("unknown method {method} for service {service}")),
        false => Status::unimplemented(format!("unknown service {service}")),
    }
}

/// One call, until it is known how it ended.
struct Call {
    begun: Instant,
    method: Option<Arc<Method>>,
    core: Arc<Core>,
}

impl Call {
    /// Whether these headers or trailers say how the call ended.
    fn ended(&mut self, headers: &mut HeaderMap) -> bool {
        let Some(status) = Status::from_header_map(headers) else { return false };
        let code = match self.in_words_of_etcd(&status) {
            Some(said) => {
                for name in [Status::GRPC_STATUS, Status::GRPC_MESSAGE] {
                    headers.remove(name);
                }
                // A status that cannot be written stays as it was said first.
                match said.add_header(headers) {
                    Ok(()) => said.code(),
                    Err(_) => status.code(),
                }
            }
            None => status.code(),
        };
        if let Some(method) = self.method.take() {
            method.ended(code, self.begun);
        }
        true
    }

    fn in_words_of_etcd(&self, status: &Status) -> Option<Status> {
        match status.code() {
            Code::OutOfRange => {
                let sizes =
                    status.message().strip_prefix("Error, decoded message length too large: ")?;
                let mut numbers = sizes.split(' ').filter_map(|word| word.parse::<u64>().ok());
                let (found, limit) = (numbers.next()?, numbers.next()?);
                Some(Status::resource_exhausted(format!(
                    "grpc: received message larger than max ({found} vs. {limit})"
                )))
            }
            // Described, and not served by this member.
            Code::Unimplemented if status.message().is_empty() => {
                let service = &self.method.as_ref()?.service;
                Some(Status::unimplemented(format!("unknown service {service}")))
            }
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::InvalidArgument
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
            | Code::Unauthenticated => None,
        }
    }
}

impl Drop for Call {
    /// Nobody waits for the end.
    fn drop(&mut self) {
        if let Some(method) = self.method.take() {
            method.ended(Code::Cancelled, self.begun);
        }
    }
}

/// A request's body, counted.
struct Received<B> {
    body: B,
    core: Arc<Core>,
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Received<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|f| f.as_ref().ok()).and_then(Frame::data_ref) {
            add(&this.core.counters.received_bytes, data.remaining() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, counted, with the end of its call.
struct Sent {
    body: tonic::body::Body,
    call: Call,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let mut frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame {
            if let Some(data) = frame.data_ref() {
                add(&this.call.core.counters.sent_bytes, data.remaining() as u64);
            }
            if let Some(trailers) = frame.trailers_mut() {
                this.call.ended(trailers);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
