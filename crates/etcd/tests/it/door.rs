//! What every gRPC call meets before its method.

use crate::support::{Member, SOON};
use etcd::{
    Config,
    proto::etcdserverpb::{
        DeleteRangeRequest, PutRequest, WatchCreateRequest, WatchRequest, WatchResponse,
        kv_client::KvClient, watch_client::WatchClient, watch_request::RequestUnion,
    },
};
use std::time::Duration;
use store::Store as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming, client::Grpc, metadata::MetadataValue};
use tonic_prost::ProstCodec;

fn said(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_as_go_does() {
    let config = Config { max_request_bytes: 1000, ..crate::support::config() };
    let member = Member::start_with(config).await;
    let before = member.store.view().hash();
    let value = vec![0; 600_000];
    let put = PutRequest { key: "k".into(), value: value.clone().into(), ..PutRequest::default() };
    let message = "grpc: received message larger than max (600007 vs. 525288)";
    let mut kv = KvClient::new(member.channel().await);
    let status = kv.put(put).await.unwrap_err();
    assert_eq!(said(&status), (Code::ResourceExhausted, message));
    let put = PutRequest { key: "k".into(), value: vec![0; 2000].into(), ..PutRequest::default() };
    let status = kv.put(put).await.unwrap_err();
    assert_eq!(said(&status), (Code::InvalidArgument, "etcdserver: request is too large"));
    // In a stream it comes at the end.
    let create = WatchCreateRequest { key: value.into(), ..WatchCreateRequest::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let mut watches = WatchClient::new(member.channel().await);
    let mut answers = watches.watch(tokio_stream::iter([create])).await.unwrap().into_inner();
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("grpc: received message larger than max (6000"));
    assert_eq!(member.store.view().hash(), before);
}

async fn call(member: &Member, path: &'static str) -> Status {
    let mut client = Grpc::new(member.channel().await);
    client.ready().await.unwrap();
    let codec: ProstCodec<DeleteRangeRequest, DeleteRangeRequest> = ProstCodec::default();
    let request = Request::new(DeleteRangeRequest::default());
    let path = http::uri::PathAndQuery::from_static(path);
    client.unary(request, path, codec).await.unwrap_err()
}

#[tokio::test]
async fn what_there_is_no_method_for_is_named() {
    let member = Member::start().await;
    for (path, message) in [
        ("/etcdserverpb.KV/Nope", "unknown method Nope for service etcdserverpb.KV"),
        ("/etcdserverpb.Nope/Range", "unknown service etcdserverpb.Nope"),
        ("/nope", "malformed method name: \"/nope\""),
    ] {
        let status = call(&member, path).await;
        assert_eq!(said(&status), (Code::Unimplemented, message), "{path}");
    }
}

/// A watch of everything, by a client that goes elsewhere when nobody leads, or by one that does not care.
async fn watch(
    member: &Member,
    wants_leader: bool,
) -> Result<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>), Status> {
    let (requests, queue) = mpsc::channel(1);
    let create = WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        ..WatchCreateRequest::default()
    };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    requests.send(create).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(queue));
    if wants_leader {
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    }
    let mut client = WatchClient::new(member.channel().await);
    let mut answers = client.watch(request).await?.into_inner();
    assert!(answers.message().await?.is_some_and(|answer| answer.created));
    Ok((requests, answers))
}

#[tokio::test]
async fn a_watch_that_wants_a_leader_ends_without_one_and_others_go_on() {
    let config = Config { leaderless_max: Duration::from_millis(100), ..crate::support::config() };
    let member = Member::start_with(config).await;
    let (_open, mut anyhow) = watch(&member, false).await.unwrap();
    let (_open_too, mut led) = watch(&member, true).await.unwrap();
    member.store.set_leaderless(true);
    let ended = timeout(SOON, led.message()).await.unwrap().unwrap_err();
    let no_leader = (Code::Unavailable, "etcdserver: no leader");
    assert_eq!(said(&ended), no_leader);
    assert_eq!(said(&watch(&member, true).await.unwrap_err()), no_leader, "nor does one begin");
    let put = PutRequest { key: "k".into(), ..PutRequest::default() };
    KvClient::new(member.channel().await).put(put).await.unwrap();
    let told = timeout(SOON, anyhow.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(told.events.len(), 1);
    member.store.set_leaderless(false);
    watch(&member, true).await.unwrap();
}

/// A header of a request as a literal.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

#[tokio::test]
async fn a_client_that_sends_a_url_as_authority_is_served() {
    let member = Member::start().await;
    let url = format!("http://{}", member.address);
    let block = [
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", "/etcdserverpb.Maintenance/Status"),
        field(":authority", &url),
        field("content-type", "application/grpc"),
        field("te", "trailers"),
    ]
    .concat();
    let length = u8::try_from(block.len()).unwrap();
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    sent.extend([0, 0, length, 1, 4, 0, 0, 0, 1]);
    sent.extend(block);
    // An empty message, and the end of the request.
    sent.extend([0, 0, 5, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    let mut socket = TcpStream::connect(member.address).await.unwrap();
    socket.write_all(&sent).await.unwrap();
    let mut head = [0; 9];
    loop {
        timeout(SOON, socket.read_exact(&mut head)).await.unwrap().unwrap();
        let [_, high, low, kind, _, _, _, _, stream] = head;
        let mut payload = vec![0; usize::from(high) << 8 | usize::from(low)];
        socket.read_exact(&mut payload).await.unwrap();
        if stream == 1 {
            // HEADERS, and its first field is the status 200.
            assert_eq!((kind, payload[0]), (1, 0x88));
            return;
        }
    }
}
