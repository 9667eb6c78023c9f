//! A gRPC client on bare HTTP/2: a load generator shares the machine with what it measures, so every
//! microsecond that a request costs here is missing there.
//!
//! No pool, no retry, no codec: a [`Connection`] is one TCP connection, shared by all clients of a
//! thread; a request is a message that is encoded already.

use bytes::{Buf as _, Bytes, BytesMut};
use h2::{Ping, RecvStream, SendStream, client};
use http::{HeaderMap, HeaderValue, Method as HttpMethod, Request, Uri, Version, header};
use std::{rc::Rc, time::Duration};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

/// How long a server may take until it answers on a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// So large that no answer waits for this side.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
/// Length and compression flag before each message.
pub(crate) const PREFIX_BYTES: usize = 5;

/// gRPC methods of etcd that are called here.
pub(crate) mod path {
    pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
    pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";
    pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
    pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";
    pub(crate) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
    pub(crate) const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
    pub(crate) const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
    pub(crate) const DELETE_RANGE: &str = "/etcdserverpb.KV/DeleteRange";
    pub(crate) const COMPACT: &str = "/etcdserverpb.KV/Compact";
    pub(crate) const MEMBER_ADD: &str = "/etcdserverpb.Cluster/MemberAdd";
    pub(crate) const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";
    pub(crate) const MEMBER_PROMOTE: &str = "/etcdserverpb.Cluster/MemberPromote";
    pub(crate) const MEMBER_REMOVE: &str = "/etcdserverpb.Cluster/MemberRemove";
    pub(crate) const HASH_KV: &str = "/etcdserverpb.Maintenance/HashKV";
    pub(crate) const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
    pub(crate) const STATUS: &str = "/etcdserverpb.Maintenance/Status";
    pub(crate) const MOVE_LEADER: &str = "/etcdserverpb.Maintenance/MoveLeader";
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{0:?} is not http://HOST:PORT")]
    Endpoint(String),
    #[error("connect to {endpoint}")]
    Connect { endpoint: String, source: std::io::Error },
    #[error("{endpoint} does not answer within {CONNECT_TIMEOUT:?}")]
    Silent { endpoint: String },
    #[error("HTTP/2")]
    Http2(#[from] h2::Error),
    #[error("gRPC status {code}: {message}")]
    Status { code: u32, message: String },
    #[error("HTTP status {0}, no gRPC status")]
    NotGrpc(u16),
    #[error("the answer does not decode")]
    Decode(#[from] prost::DecodeError),
    #[error("the stream ended")]
    Ended,
}

impl CallError {
    /// Whether the connection may still be used.
    pub(crate) fn is_answer(&self) -> bool {
        match self {
            Self::Status { .. } => true,
            Self::Endpoint(_)
            | Self::Connect { .. }
            | Self::Silent { .. }
            | Self::Http2(_)
            | Self::NotGrpc(_)
            | Self::Decode(_)
            | Self::Ended => false,
        }
    }
}

/// One HTTP/2 connection. Clones share it; it closes with the last of them.
///
/// Lives on one thread, inside a [`tokio::task::LocalSet`].
#[derive(Clone)]
pub(crate) struct Connection {
    send: client::SendRequest<Bytes>,
    authority: http::uri::Authority,
    headers: Rc<HeaderMap>,
    /// The task that moves its frames; dropped with it, it ends.
    _driver: Rc<JoinSet<()>>,
}

/// A method at one endpoint, with the parts of its request that are always the same.
#[derive(Clone)]
pub(crate) struct Route {
    connection: Connection,
    uri: Uri,
}

impl Connection {
    /// Connects, and waits until the server has answered a ping: a listening socket alone may belong to
    /// a process that stands still.
    pub(crate) async fn open(endpoint: &str) -> Result<Self, CallError> {
        match timeout(CONNECT_TIMEOUT, Self::handshake(endpoint)).await {
            Ok(connection) => connection,
            Err(_) => Err(CallError::Silent { endpoint: endpoint.to_owned() }),
        }
    }

    async fn handshake(endpoint: &str) -> Result<Self, CallError> {
        let no_url = || CallError::Endpoint(endpoint.to_owned());
        let host = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
        let authority: http::uri::Authority = host.parse().map_err(|_| no_url())?;
        authority.port().ok_or_else(no_url)?;
        let failed = |source| CallError::Connect { endpoint: endpoint.to_owned(), source };
        let stream = TcpStream::connect(authority.as_str()).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (send, mut connection) = client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_push(false)
            .handshake::<_, Bytes>(stream)
            .await?;
        let pings = connection.ping_pong();
        let mut driver = JoinSet::new();
        driver.spawn_local(async move {
            // Its error reaches every call that waits.
            let _ = connection.await;
        });
        if let Some(mut pings) = pings {
            pings.ping(Ping::opaque()).await?;
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let driver = Rc::new(driver);
        Ok(Self { send, authority, headers: Rc::new(headers), _driver: driver })
    }

    /// Prepares calls of a method.
    pub(crate) fn route(&self, path: &'static str) -> Route {
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .expect("an authority that was parsed and a constant path");
        Route { connection: self.clone(), uri }
    }

    /// A page that the same port serves over plain HTTP/2.
    pub(crate) async fn get(&self, path: &'static str) -> Result<String, CallError> {
        let mut request = Request::new(());
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.route(path).uri;
        let (response, _) = self.send.clone().ready().await?.send_request(request, true)?;
        let mut body = answer(response).await?;
        let mut page = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            let _ = body.flow_control().release_capacity(chunk.len());
            page.extend_from_slice(&chunk);
        }
        Ok(String::from_utf8_lossy(&page).into_owned())
    }

    /// Encodes, calls, decodes: for what is not measured.
    pub(crate) async fn unary<A: prost::Message + Default>(
        &self,
        path: &'static str,
        message: &impl prost::Message,
    ) -> Result<A, CallError> {
        Ok(A::decode(self.route(path).call(frame(message)).await?)?)
    }
}

impl Route {
    async fn begin(
        &self,
        end: bool,
        body: Bytes,
    ) -> Result<(client::ResponseFuture, SendStream<Bytes>), CallError> {
        let mut send = self.connection.send.clone().ready().await?;
        let mut request = Request::new(());
        *request.method_mut() = HttpMethod::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = (*self.connection.headers).clone();
        let (response, mut stream) = send.send_request(request, false)?;
        stream.send_data(body, end)?;
        Ok((response, stream))
    }

    /// Sends one message and returns the one that answers it.
    pub(crate) async fn call(&self, frame: Bytes) -> Result<Bytes, CallError> {
        let (response, _stream) = self.begin(true, frame).await?;
        let mut body = answer(response).await?;
        let mut all = Bytes::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            let _ = body.flow_control().release_capacity(chunk.len());
            if all.is_empty() {
                all = chunk;
            } else {
                let mut joined = BytesMut::with_capacity(all.len() + chunk.len());
                joined.extend_from_slice(&all);
                joined.extend_from_slice(&chunk);
                all = joined.freeze();
            }
        }
        trailers(&mut body).await?;
        Ok(all.get(PREFIX_BYTES..).map(|message| all.slice_ref(message)).unwrap_or_default())
    }

    /// As [`Self::call`], for answers that nobody reads.
    pub(crate) async fn call_blind(&self, frame: Bytes) -> Result<(), CallError> {
        let (response, _stream) = self.begin(true, frame).await?;
        let mut body = answer(response).await?;
        while let Some(chunk) = body.data().await {
            let length = chunk?.len();
            let _ = body.flow_control().release_capacity(length);
        }
        trailers(&mut body).await
    }

    /// Opens a stream of messages in both directions with a first one.
    pub(crate) async fn stream(&self, first: Bytes) -> Result<Stream, CallError> {
        self.open(false, first).await
    }

    /// Sends the only message, which a stream of them answers.
    pub(crate) async fn serve(&self, only: Bytes) -> Result<Stream, CallError> {
        self.open(true, only).await
    }

    async fn open(&self, end: bool, first: Bytes) -> Result<Stream, CallError> {
        let (response, send) = self.begin(end, first).await?;
        Ok(Stream { send, response: Some(response), body: None, buffer: BytesMut::new() })
    }
}

async fn answer(response: client::ResponseFuture) -> Result<RecvStream, CallError> {
    let response = response.await?;
    // An answer without a body says its status in its headers.
    if response.headers().contains_key("grpc-status") {
        status(response.headers())?;
    } else if !response.status().is_success() {
        return Err(CallError::NotGrpc(response.status().as_u16()));
    }
    Ok(response.into_body())
}

async fn trailers(body: &mut RecvStream) -> Result<(), CallError> {
    match body.trailers().await? {
        Some(trailers) => status(&trailers),
        None => Ok(()),
    }
}

fn status(headers: &HeaderMap) -> Result<(), CallError> {
    let Some(code) = headers.get("grpc-status") else { return Ok(()) };
    if code.as_bytes() == b"0" {
        return Ok(());
    }
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Err(CallError::Status {
        code: text(code).parse().unwrap_or(2),
        message: headers.get("grpc-message").map(text).unwrap_or_default(),
    })
}

/// A call in which both sides send messages.
pub(crate) struct Stream {
    send: SendStream<Bytes>,
    response: Option<client::ResponseFuture>,
    body: Option<RecvStream>,
    buffer: BytesMut,
}

impl Stream {
    pub(crate) fn send(&mut self, frame: Bytes) -> Result<(), CallError> {
        Ok(self.send.send_data(frame, false)?)
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<Bytes, CallError> {
        if let Some(response) = self.response.take() {
            self.body = Some(answer(response).await?);
        }
        loop {
            if let Some(message) = split(&mut self.buffer) {
                return Ok(message);
            }
            let body = self.body.as_mut().ok_or(CallError::Ended)?;
            match body.data().await {
                Some(chunk) => {
                    let chunk = chunk?;
                    let _ = body.flow_control().release_capacity(chunk.len());
                    self.buffer.extend_from_slice(&chunk);
                }
                None => {
                    trailers(body).await?;
                    return Err(CallError::Ended);
                }
            }
        }
    }
}

/// Takes a whole message off the front.
fn split(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = buffer.get(1..PREFIX_BYTES)?;
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    if buffer.len() < PREFIX_BYTES + length {
        return None;
    }
    buffer.advance(PREFIX_BYTES);
    Some(buffer.split_to(length).freeze())
}

/// A message as it goes over the wire.
pub(crate) fn frame(message: &impl prost::Message) -> Bytes {
    let mut all = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
    let length = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
    all.extend_from_slice(&[0]);
    all.extend_from_slice(&length.to_be_bytes());
    message.encode(&mut all).expect("a buffer that grows");
    all.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use etcd::proto::etcdserverpb::PutRequest;
    use prost::Message as _;

    #[test]
    fn messages_come_out_of_the_stream_as_they_went_in_however_it_is_cut() {
        let messages = ["a", "", "cde"].map(|key| PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            ..PutRequest::default()
        });
        let sent: Vec<u8> = messages.iter().flat_map(|m| frame(m).to_vec()).collect();
        for size in 1..=sent.len() {
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for piece in sent.chunks(size) {
                buffer.extend_from_slice(piece);
                while let Some(message) = split(&mut buffer) {
                    got.push(PutRequest::decode(message).unwrap());
                }
            }
            assert_eq!(got, messages, "pieces of {size}");
            assert!(buffer.is_empty());
        }
    }
}
