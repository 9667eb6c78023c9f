//! One arbitrary request against a member of its own: what the fuzz targets and the tests do with bytes.
//!
//! The first byte names the method or the path, the rest is its message. A panic is a failure, and so is
//! a refusal that has changed something.

use axum::body::Body;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use std::{sync::Arc, time::Duration};
use store::{
    Epoch, LeaseId, Op, Origin, Proposal, Put, RequestId, Store as _, Timestamp, Txn, TxnOp,
    local::LocalStore,
};
use tower::ServiceExt as _;

/// Until an answer that goes on counts as one: of a clock that stands still while anything can be done.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a message may be at most here, so that limits are met, too.
const REQUEST_BYTES_MAX: usize = 4096;

pub(crate) const METHODS: [&str; 40] = [
    "etcdserverpb.KV/Range",
    "etcdserverpb.KV/RangeStream",
    "etcdserverpb.KV/Put",
    "etcdserverpb.KV/DeleteRange",
    "etcdserverpb.KV/Txn",
    "etcdserverpb.KV/Compact",
    "etcdserverpb.Watch/Watch",
    "etcdserverpb.Lease/LeaseGrant",
    "etcdserverpb.Lease/LeaseRevoke",
    "etcdserverpb.Lease/LeaseKeepAlive",
    "etcdserverpb.Lease/LeaseTimeToLive",
    "etcdserverpb.Lease/LeaseLeases",
    "etcdserverpb.Cluster/MemberAdd",
    "etcdserverpb.Cluster/MemberRemove",
    "etcdserverpb.Cluster/MemberUpdate",
    "etcdserverpb.Cluster/MemberList",
    "etcdserverpb.Cluster/MemberPromote",
    "etcdserverpb.Maintenance/Alarm",
    "etcdserverpb.Maintenance/Status",
    "etcdserverpb.Maintenance/Defragment",
    "etcdserverpb.Maintenance/Hash",
    "etcdserverpb.Maintenance/HashKV",
    "etcdserverpb.Maintenance/Snapshot",
    "etcdserverpb.Maintenance/MoveLeader",
    "etcdserverpb.Maintenance/Downgrade",
    "etcdserverpb.Auth/AuthEnable",
    "etcdserverpb.Auth/Authenticate",
    "etcdserverpb.Auth/UserAdd",
    "etcdserverpb.Auth/UserGrantRole",
    "etcdserverpb.Auth/RoleAdd",
    "etcdserverpb.Auth/RoleGrantPermission",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    // From here on a request may be more than one command: a lease, and then a key.
    "v3lockpb.Lock/Lock",
    "v3lockpb.Lock/Unlock",
    "v3electionpb.Election/Campaign",
    "v3electionpb.Election/Proclaim",
    "v3electionpb.Election/Leader",
    "v3electionpb.Election/Observe",
    "v3electionpb.Election/Resign",
];
const FIRST_OF_SEVERAL: usize = 33;

pub(crate) const PATHS: [&str; 24] = [
    "kv/range",
    "kv/put",
    "kv/deleterange",
    "kv/txn",
    "kv/compaction",
    "watch",
    "lease/grant",
    "lease/revoke",
    "lease/keepalive",
    "lease/timetolive",
    "lease/leases",
    "cluster/member/add",
    "cluster/member/list",
    "maintenance/alarm",
    "maintenance/status",
    "maintenance/hashkv",
    "maintenance/downgrade",
    "auth/user/add",
    "auth/role/grant",
    "nothing/here",
    // As above.
    "lock/lock",
    "election/campaign",
    "election/proclaim",
    "election/observe",
];
const FIRST_PATH_OF_SEVERAL: usize = 20;

struct Member {
    store: Arc<LocalStore>,
    door: etcd::Door,
}

impl Member {
    async fn start() -> Self {
        let store = Arc::new(LocalStore::new(Arc::new(|| Timestamp(1_000_000))));
        let _ = store.begin_epoch(Epoch(1));
        let put = |key: &'static str, lease| {
            TxnOp::Put(Put {
                key: key.into(),
                value: "value".into(),
                lease: LeaseId(lease),
                prev_kv: false,
                ignore_value: false,
                ignore_lease: false,
            })
        };
        let success = vec![put("a", 0), put("b", 7)];
        let ops = [
            Op::LeaseGrant { id: LeaseId(7), ttl_seconds: 30 },
            Op::Txn(Txn { success, ..Txn::default() }),
        ];
        for (sequence, op) in (0..).zip(ops) {
            let request = RequestId { client: 1, sequence };
            let proposal = Proposal { request, origin: Origin::Client, op };
            let _ = store.propose(proposal, PATIENCE).await;
        }
        let clock = etcd::auth::Clock::new(std::sync::Arc::new(|| store::Timestamp(1)));
        let config =
            etcd::Config { max_request_bytes: REQUEST_BYTES_MAX, ..etcd::Config::new(clock) };
        let door = etcd::Door::new(store.clone(), store.clone(), config);
        Self { store, door }
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(work)
}

/// What came of a request: a gRPC code, or an HTTP status.
pub(crate) type Outcome = (&'static str, String);

/// A gRPC message, framed as it must be: bytes of the message are arbitrary.
pub(crate) fn grpc(input: &[u8]) -> Option<Outcome> {
    let (&first, message) = input.split_first()?;
    let place = usize::from(first) % METHODS.len();
    let path = METHODS.get(place)?;
    let length = u32::try_from(message.len()).ok()?.to_be_bytes();
    let body = [&[0][..], &length, message].concat();
    run(async {
        let member = Member::start().await;
        let before = member.store.view().hash();
        let request = Request::post(format!("/{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::from(body))
            .expect("a request");
        let (headers, trailers) = answer(&member, request).await?;
        let said =
            |headers: &http::HeaderMap| Some(headers.get("grpc-status")?.to_str().ok()?.to_owned());
        let code = said(&headers.1).or_else(|| said(&trailers)).unwrap_or_default();
        assert_eq!(headers.0, StatusCode::OK, "{path}: gRPC says it in its own way");
        let refused = code != "0" && !code.is_empty();
        if refused && place < FIRST_OF_SEVERAL {
            assert_eq!(member.store.view().hash(), before, "{path} was refused with {code}");
        }
        Some((*path, code))
    })
}

/// A request of the gateway, with arbitrary bytes as its body.
pub(crate) fn json(input: &[u8]) -> Option<Outcome> {
    let (&first, body) = input.split_first()?;
    let place = usize::from(first) % PATHS.len();
    let path = PATHS.get(place)?;
    let body = body.to_vec();
    run(async {
        let member = Member::start().await;
        let before = member.store.view().hash();
        let request =
            Request::post(format!("/v3/{path}")).body(Body::from(body)).expect("a request");
        let ((status, _), _) = answer(&member, request).await?;
        if status != StatusCode::OK && place < FIRST_PATH_OF_SEVERAL {
            assert_eq!(member.store.view().hash(), before, "{path} was refused with {status}");
        }
        Some((*path, status.as_u16().to_string()))
    })
}

type Head = (StatusCode, http::HeaderMap);

/// `None` when it goes on for ever, with whatever was sent read.
async fn answer(member: &Member, request: Request<Body>) -> Option<(Head, http::HeaderMap)> {
    let response = member.door.clone().oneshot(request);
    let response = tokio::time::timeout(PATIENCE, response).await.ok()?;
    let (parts, mut body) = response.expect("a router always answers").into_parts();
    let mut trailers = http::HeaderMap::new();
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            match frame.into_data() {
                Ok(data) => drop::<Bytes>(data),
                Err(frame) => {
                    // Nothing may be asked of a body behind them.
                    trailers = frame.into_trailers().unwrap_or_default();
                    return;
                }
            }
        }
    };
    // One that goes on is cut here; what it has sent is known.
    let _ = tokio::time::timeout(PATIENCE, read).await;
    Some(((parts.status, parts.headers), trailers))
}
