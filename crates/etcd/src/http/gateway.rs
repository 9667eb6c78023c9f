//! JSON over HTTP in front of every service: each path is a method, each request becomes the gRPC call
//! that a client would make, and goes through the same door.

use super::json;
use crate::{core::Core, counters::POOL, grpc::Grpc};
use axum::{
    Router,
    body::{Body, to_bytes},
    response::Response,
    routing::post,
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Full};
use prost_reflect::MethodDescriptor;
use std::sync::Arc;
use tonic::{Code, Status};

/// Paths below `/v3/` and what they call.
const PATHS: [(&str, &str); 50] = [
    ("kv/range", "etcdserverpb.KV.Range"),
    ("kv/put", "etcdserverpb.KV.Put"),
    ("kv/deleterange", "etcdserverpb.KV.DeleteRange"),
    ("kv/txn", "etcdserverpb.KV.Txn"),
    ("kv/compaction", "etcdserverpb.KV.Compact"),
    ("kv/lease/revoke", "etcdserverpb.Lease.LeaseRevoke"),
    ("kv/lease/timetolive", "etcdserverpb.Lease.LeaseTimeToLive"),
    ("kv/lease/leases", "etcdserverpb.Lease.LeaseLeases"),
    ("watch", "etcdserverpb.Watch.Watch"),
    ("lease/grant", "etcdserverpb.Lease.LeaseGrant"),
    ("lease/revoke", "etcdserverpb.Lease.LeaseRevoke"),
    ("lease/keepalive", "etcdserverpb.Lease.LeaseKeepAlive"),
    ("lease/timetolive", "etcdserverpb.Lease.LeaseTimeToLive"),
    ("lease/leases", "etcdserverpb.Lease.LeaseLeases"),
    ("cluster/member/add", "etcdserverpb.Cluster.MemberAdd"),
    ("cluster/member/remove", "etcdserverpb.Cluster.MemberRemove"),
    ("cluster/member/update", "etcdserverpb.Cluster.MemberUpdate"),
    ("cluster/member/list", "etcdserverpb.Cluster.MemberList"),
    ("cluster/member/promote", "etcdserverpb.Cluster.MemberPromote"),
    ("maintenance/alarm", "etcdserverpb.Maintenance.Alarm"),
    ("maintenance/status", "etcdserverpb.Maintenance.Status"),
    ("maintenance/defragment", "etcdserverpb.Maintenance.Defragment"),
    ("maintenance/hash", "etcdserverpb.Maintenance.Hash"),
    ("maintenance/hashkv", "etcdserverpb.Maintenance.HashKV"),
    ("maintenance/snapshot", "etcdserverpb.Maintenance.Snapshot"),
    ("maintenance/transfer-leadership", "etcdserverpb.Maintenance.MoveLeader"),
    ("maintenance/downgrade", "etcdserverpb.Maintenance.Downgrade"),
    ("auth/enable", "etcdserverpb.Auth.AuthEnable"),
    ("auth/disable", "etcdserverpb.Auth.AuthDisable"),
    ("auth/status", "etcdserverpb.Auth.AuthStatus"),
    ("auth/authenticate", "etcdserverpb.Auth.Authenticate"),
    ("auth/user/add", "etcdserverpb.Auth.UserAdd"),
    ("auth/user/get", "etcdserverpb.Auth.UserGet"),
    ("auth/user/list", "etcdserverpb.Auth.UserList"),
    ("auth/user/delete", "etcdserverpb.Auth.UserDelete"),
    ("auth/user/changepw", "etcdserverpb.Auth.UserChangePassword"),
    ("auth/user/grant", "etcdserverpb.Auth.UserGrantRole"),
    ("auth/user/revoke", "etcdserverpb.Auth.UserRevokeRole"),
    ("auth/role/add", "etcdserverpb.Auth.RoleAdd"),
    ("auth/role/get", "etcdserverpb.Auth.RoleGet"),
    ("auth/role/list", "etcdserverpb.Auth.RoleList"),
    ("auth/role/delete", "etcdserverpb.Auth.RoleDelete"),
    ("auth/role/grant", "etcdserverpb.Auth.RoleGrantPermission"),
    ("auth/role/revoke", "etcdserverpb.Auth.RoleRevokePermission"),
    ("lock/lock", "v3lockpb.Lock.Lock"),
    ("lock/unlock", "v3lockpb.Lock.Unlock"),
    ("election/campaign", "v3electionpb.Election.Campaign"),
    ("election/proclaim", "v3electionpb.Election.Proclaim"),
    ("election/leader", "v3electionpb.Election.Leader"),
    ("election/resign", "v3electionpb.Election.Resign"),
];
/// Reads the name in a request and then answers for as long as the caller listens.
const OBSERVE: (&str, &str) = ("election/observe", "v3electionpb.Election.Observe");

/// Headers with this prefix are the call's metadata.
const METADATA_PREFIX: &str = "grpc-metadata-";

pub(super) fn router(core: &Core, grpc: Grpc) -> Router {
    // In base64 a message takes a third more, and there are names and numbers besides.
    let bytes_max = core.config.message_bytes_max() * 2;
    let mut router = Router::new();
    for (path, method) in PATHS.into_iter().chain([OBSERVE]) {
        let descriptor = method.rsplit_once('.').and_then(|(service, name)| {
            POOL.get_service_by_name(service)?.methods().find(|method| method.name() == name)
        });
        let descriptor = descriptor.expect("every path has a method");
        let call = Arc::new(Call { grpc: grpc.clone(), descriptor, bytes_max });
        router = router.route(
            &format!("/v3/{path}"),
            post(move |request: Request<Body>| async move { call.serve(request).await }),
        );
    }
    router.route("/v3/{*path}", axum::routing::any(unknown))
}

async fn unknown(method: Method) -> Response {
    let status = match method {
        Method::POST => Status::not_found("Not Found"),
        _ => return super::method_not_allowed(method).await,
    };
    failure(&status)
}

fn failure(status: &Status) -> Response {
    super::json(json::http_status(status.code()), json::error(status).to_string())
}

/// One method behind its path.
struct Call {
    grpc: Grpc,
    descriptor: MethodDescriptor,
    /// Of a request's JSON.
    bytes_max: usize,
}

impl Call {
    async fn serve(&self, request: Request<Body>) -> Response {
        let (parts, body) = request.into_parts();
        let body = if self.descriptor.is_client_streaming() {
            self.stream(body).await
        } else {
            self.message(body).await
        };
        let body = match body {
            Ok(body) => body,
            Err(status) => return failure(&status),
        };
        let response = self.grpc.call(self.request(&parts.headers, body)).await;
        let answered = if self.descriptor.is_server_streaming() {
            self.answer_stream(response).await
        } else {
            self.answer(response).await
        };
        answered.unwrap_or_else(|status| failure(&status))
    }

    fn too_large(&self, bytes: usize) -> Status {
        let limit = self.bytes_max;
        Status::resource_exhausted(format!(
            "grpc: received message larger than max ({bytes} vs. {limit})"
        ))
    }

    async fn message(&self, body: Body) -> Result<Body, Status> {
        let declared = http_body::Body::size_hint(&body).lower();
        let json = to_bytes(body, self.bytes_max).await.map_err(|error| {
            match usize::try_from(declared) {
                Ok(bytes) if bytes > self.bytes_max => self.too_large(bytes),
                Ok(_) | Err(_) => Status::invalid_argument(error.to_string()),
            }
        })?;
        Ok(Body::new(Full::new(json::encode(&self.descriptor.input(), &json)?)))
    }

    /// The first message is awaited, so that a bad one is answered with an error of its own.
    async fn stream(&self, body: Body) -> Result<Body, Status> {
        let mut messages = Messages {
            body: Some(body),
            waiting: BytesMut::new(),
            bytes_max: self.bytes_max,
            descriptor: self.descriptor.clone(),
        };
        let Some(first) = messages.next().await? else { return Ok(Body::empty()) };
        let rest = stream::unfold(Some(messages), |messages| async {
            let mut messages = messages?;
            match messages.next().await {
                Ok(Some(message)) => Some((Ok(message), Some(messages))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Body::from_stream(stream::once(async { Ok::<_, Status>(first) }).chain(rest)))
    }

    fn request(&self, headers: &HeaderMap, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        let method = &self.descriptor;
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        *request.uri_mut() = path.parse().expect("of names alone");
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        let call = request.headers_mut();
        for (name, value) in headers {
            let name = match name.as_str().strip_prefix(METADATA_PREFIX) {
                Some(rest) => HeaderName::try_from(rest).ok(),
                None => match *name {
                    header::AUTHORIZATION => Some(HeaderName::from_static("token")),
                    ref name if name == "grpc-timeout" => Some(name.clone()),
                    _ => None,
                },
            };
            // What says how a message is coded is said here, not by the caller.
            if let Some(name) =
                name.filter(|n| !n.as_str().starts_with("grpc-") || n == "grpc-timeout")
            {
                call.append(name, value.clone());
            }
        }
        call.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        call.insert(header::TE, HeaderValue::from_static("trailers"));
        request
    }

    async fn answer(&self, response: http::Response<Body>) -> Result<Response, Status> {
        let mut answer = Answer::of(response)?;
        let message = answer.next().await?;
        let message = message.ok_or_else(|| Status::internal("an answer without a message"))?;
        // How it ended comes behind the message.
        answer.next().await?;
        let json = json::decode(&self.descriptor.output(), message)?;
        Ok(answered(json))
    }

    /// Each message is a line. That the call failed is an answer's status, if it did so at once, and
    /// else its last line.
    async fn answer_stream(&self, response: http::Response<Body>) -> Result<Response, Status> {
        let descriptor = self.descriptor.output();
        let line = move |message| {
            let json = json::decode(&descriptor, message)?;
            Ok::<_, Status>([&b"{\"result\":"[..], &json, b"}\n"].concat())
        };
        let mut answer = Answer::of(response)?;
        let Some(first) = answer.next().await? else { return Ok(answered(Body::empty())) };
        let first = line(first)?;
        let rest = stream::unfold(Some((answer, line)), |state| async {
            let (mut answer, line) = state?;
            let next = answer.next().await.and_then(|message| message.map(&line).transpose());
            match next {
                Ok(Some(line_of)) => Some((line_of, Some((answer, line)))),
                Ok(None) => None,
                Err(status) => {
                    Some(((json::stream_error(&status).to_string() + "\n").into(), None))
                }
            }
        });
        let lines = stream::once(async { first }).chain(rest);
        Ok(answered(Body::from_stream(lines.map(|line| Ok::<_, Status>(Bytes::from(line))))))
    }
}

fn answered(body: impl Into<Body>) -> Response {
    let mut response = super::json(StatusCode::OK, body);
    let name = HeaderName::from_static("grpc-metadata-content-type");
    response.headers_mut().insert(name, HeaderValue::from_static("application/grpc"));
    response
}

/// The messages of a request that goes on.
struct Messages {
    /// `None` at its end.
    body: Option<Body>,
    /// Came, and is not a whole value yet.
    waiting: BytesMut,
    bytes_max: usize,
    descriptor: MethodDescriptor,
}

impl Messages {
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            // A value can only end with its brace: until one comes, do not read it again from the start.
            let may_be_whole = self.body.is_none() || self.waiting.trim_ascii_end().ends_with(b"}");
            if may_be_whole && let Some(value) = json::next_value(&mut self.waiting)? {
                return json::encode(&self.descriptor.input(), &value).map(Some);
            }
            let Some(body) = &mut self.body else {
                return match self.waiting.trim_ascii().is_empty() {
                    true => Ok(None),
                    false => Err(Status::invalid_argument("unexpected EOF")),
                };
            };
            match body.frame().await {
                None => self.body = None,
                Some(Err(error)) => return Err(Status::cancelled(error.to_string())),
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    let bytes = self.waiting.len() + data.len();
                    if bytes > self.bytes_max {
                        return Err(Status::resource_exhausted(format!(
                            "grpc: received message larger than max ({bytes} vs. {})",
                            self.bytes_max
                        )));
                    }
                    self.waiting.extend_from_slice(&data);
                }
            }
        }
    }
}

/// The messages of an answer, and how it ended.
struct Answer {
    /// `None` behind the trailers: nothing may be asked of a body then.
    body: Option<Body>,
    waiting: BytesMut,
}

impl Answer {
    /// # Errors
    /// It has ended badly already.
    fn of(response: http::Response<Body>) -> Result<Self, Status> {
        let (parts, body) = response.into_parts();
        check(&parts.headers)?;
        Ok(Self { body: Some(body), waiting: BytesMut::new() })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = json::next_message(&mut self.waiting) {
                return Ok(Some(message));
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            match body.frame().await {
                None => self.body = None,
                Some(Err(error)) => return Err(Status::internal(error.to_string())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.waiting.extend_from_slice(&data),
                    Err(frame) => {
                        self.body = None;
                        check(&frame.into_trailers().unwrap_or_default())?;
                    }
                },
            }
        }
    }
}

fn check(headers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        Some(_) | None => Ok(()),
    }
}
