//! Arbitrary requests: those that were kept, and as many new ones as there is time for.
//!
//! `FUZZ_ROUNDS=100000 cargo test -p etcd --test it fuzz` takes minutes. `FUZZ_SEED` begins elsewhere,
//! and `FUZZ_KEEP=DIR` writes an input for each outcome that was seen.

#[path = "../../fuzz/harness.rs"]
mod harness;
#[path = "../../../../chaos-tests/fuzz/mutated.rs"]
mod mutated;

use etcd::proto::{etcdserverpb::*, v3electionpb, v3lockpb};
use harness::{METHODS, Outcome, PATHS};
use mutated::Mutations;
use prost::Message;
use rand::{SeedableRng as _, rngs::StdRng};
use std::{collections::BTreeMap, fs, path::Path};

const ROUNDS: usize = 500;

#[allow(clippy::disallowed_methods, reason = "how long to look is no configuration of ours")]
fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

fn input(place: usize, message: impl AsRef<[u8]>) -> Vec<u8> {
    [&[u8::try_from(place).unwrap()], message.as_ref()].concat()
}

fn of_method(method: &str, message: &impl Message) -> Vec<u8> {
    let place = METHODS
        .iter()
        .position(|m| m.strip_suffix(method).is_some_and(|rest| rest.ends_with(['/', '.'])))
        .unwrap();
    input(place, message.encode_to_vec())
}

/// Good requests, to begin with.
fn messages() -> Vec<Vec<u8>> {
    let range = RangeRequest {
        key: "a".into(),
        range_end: "z".into(),
        limit: 1,
        sort_order: 2,
        sort_target: 3,
        min_mod_revision: 1,
        max_create_revision: 9,
        ..RangeRequest::default()
    };
    let put = PutRequest { key: "k".into(), value: "v".into(), lease: 7, ..PutRequest::default() };
    let delete =
        DeleteRangeRequest { key: vec![0].into(), range_end: vec![0].into(), prev_kv: true };
    let step = |request| RequestOp { request: Some(request) };
    let compare = Compare {
        result: 1,
        target: 3,
        key: "a".into(),
        range_end: "c".into(),
        target_union: Some(compare::TargetUnion::Value("value".into())),
    };
    let txn = TxnRequest {
        compare: vec![compare],
        success: vec![
            step(request_op::Request::RequestPut(put.clone())),
            step(request_op::Request::RequestRange(range.clone())),
        ],
        failure: vec![step(request_op::Request::RequestDeleteRange(delete.clone()))],
    };
    let nested = TxnRequest {
        success: vec![step(request_op::Request::RequestTxn(txn.clone()))],
        ..TxnRequest::default()
    };
    let create = WatchCreateRequest {
        key: "a".into(),
        range_end: "z".into(),
        start_revision: 1,
        prev_kv: true,
        fragment: true,
        filters: vec![1],
        watch_id: 3,
        progress_notify: true,
    };
    let watch = |union| WatchRequest { request_union: Some(union) };
    let leader = v3electionpb::LeaderKey { name: "n".into(), key: "a".into(), rev: 2, lease: 7 };
    let permission =
        etcd::proto::authpb::Permission { perm_type: 2, key: "a".into(), range_end: "z".into() };
    vec![
        of_method("Range", &range),
        of_method("RangeStream", &RangeRequest { sort_order: 0, sort_target: 0, ..range }),
        of_method("Put", &put),
        of_method("DeleteRange", &delete),
        of_method("Txn", &txn),
        of_method("Txn", &nested),
        of_method("Compact", &CompactionRequest { revision: 2, physical: true }),
        of_method("Watch/Watch", &watch(watch_request::RequestUnion::CreateRequest(create))),
        of_method(
            "Watch/Watch",
            &watch(watch_request::RequestUnion::ProgressRequest(WatchProgressRequest {})),
        ),
        of_method("LeaseGrant", &LeaseGrantRequest { ttl: 9, id: 8 }),
        of_method("LeaseRevoke", &LeaseRevokeRequest { id: 7 }),
        of_method("LeaseKeepAlive", &LeaseKeepAliveRequest { id: 7 }),
        of_method("LeaseTimeToLive", &LeaseTimeToLiveRequest { id: 7, keys: true }),
        of_method("LeaseLeases", &LeaseLeasesRequest {}),
        of_method(
            "MemberAdd",
            &MemberAddRequest { peer_ur_ls: vec!["http://h:1".to_owned()], is_learner: true },
        ),
        of_method("MemberRemove", &MemberRemoveRequest { id: 1 }),
        of_method(
            "MemberUpdate",
            &MemberUpdateRequest { id: 1, peer_ur_ls: vec!["http://h:1".to_owned()] },
        ),
        of_method("MemberList", &MemberListRequest { linearizable: true }),
        of_method("MemberPromote", &MemberPromoteRequest { id: 1 }),
        of_method("Alarm", &AlarmRequest { action: 1, member_id: 1, alarm: 1 }),
        of_method("Status", &StatusRequest {}),
        of_method("HashKV", &HashKvRequest { revision: 2 }),
        of_method("Snapshot", &SnapshotRequest {}),
        of_method("MoveLeader", &MoveLeaderRequest { target_id: 1 }),
        of_method("Downgrade", &DowngradeRequest { action: 1, version: "3.5".to_owned() }),
        of_method("Authenticate", &AuthenticateRequest { name: "r".into(), password: "p".into() }),
        of_method(
            "RoleGrantPermission",
            &AuthRoleGrantPermissionRequest { name: "r".into(), perm: Some(permission) },
        ),
        of_method("Lock/Lock", &v3lockpb::LockRequest { name: "n".into(), lease: 7 }),
        of_method("Unlock", &v3lockpb::UnlockRequest { key: "a".into() }),
        of_method(
            "Campaign",
            &v3electionpb::CampaignRequest { name: "n".into(), lease: 7, value: "v".into() },
        ),
        of_method(
            "Proclaim",
            &v3electionpb::ProclaimRequest { leader: Some(leader.clone()), value: "v".into() },
        ),
        of_method("Observe", &v3electionpb::LeaderRequest { name: "n".into() }),
        of_method("Resign", &v3electionpb::ResignRequest { leader: Some(leader) }),
    ]
}

fn texts() -> Vec<Vec<u8>> {
    let of_path =
        |path: &str, json: &str| input(PATHS.iter().position(|p| *p == path).unwrap(), json);
    vec![
        of_path(
            "kv/range",
            r#"{"key":"YQ==","range_end":"eg==","limit":"1","sort_order":"DESCEND","sortTarget":2}"#,
        ),
        of_path("kv/put", r#"{"key":"YQ","value":"_-8=","lease":7,"prev_kv":true}"#),
        of_path("kv/deleterange", r#"{"key":"AA==","range_end":"AA=="}"#),
        of_path(
            "kv/txn",
            r#"{"compare":[{"target":"VALUE","key":"YQ==","value":"eA=="}],"success":[{"request_put":{"key":"YQ=="}}],"failure":[{"requestTxn":{"success":[{"requestRange":{"key":"YQ=="}}]}}]}"#,
        ),
        of_path("kv/compaction", r#"{"revision":"2","physical":true}"#),
        of_path(
            "watch",
            r#"{"create_request":{"key":"YQ==","start_revision":"1","filters":["NOPUT"]}} {"progress_request":{}}{"cancel_request":{"watch_id":"0"}}"#,
        ),
        of_path("lease/grant", r#"{"TTL":"5","ID":-3}"#),
        of_path("lease/keepalive", r#"{"ID":"7"}{"ID":8}"#),
        of_path("lease/timetolive", r#"{"ID":"7","keys":true}"#),
        of_path("cluster/member/add", r#"{"peerURLs":["http://h:1"],"isLearner":true}"#),
        of_path("maintenance/alarm", r#"{"action":"ACTIVATE","memberID":"1","alarm":"NOSPACE"}"#),
        of_path("maintenance/downgrade", r#"{"action":"CANCEL","version":"3.5"}"#),
        of_path("auth/role/grant", r#"{"name":"r","perm":{"permType":"READWRITE","key":"YQ=="}}"#),
        of_path("lock/lock", r#"{"name":"bg==","lease":"7"}"#),
        of_path("election/campaign", r#"{"name":"bg==","lease":"7","value":"dg=="}"#),
        of_path(
            "election/proclaim",
            r#"{"leader":{"name":"bg==","key":"YQ==","rev":"2"},"value":"dg=="}"#,
        ),
    ]
}

/// What decoders trip over: bytes with which numbers go on or end, and a number of ten bytes, which is negative.
const WORDS: [&[u8]; 5] =
    [&[0], &[0x7f], &[0x80], &[0xff], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]];

fn fuzz(kind: &str, seeds: &[Vec<u8>], run: fn(&[u8]) -> Option<Outcome>) {
    let mut random = StdRng::seed_from_u64(variable("FUZZ_SEED").unwrap_or(1));
    let mut seen: BTreeMap<Outcome, Vec<u8>> = BTreeMap::new();
    let mutations = Mutations { words: &WORDS, bytes: 0..0x100, head: 1, length_max: 20_000 };
    let rounds = variable("FUZZ_ROUNDS").unwrap_or(ROUNDS);
    let fresh = (0..rounds).map(|_| mutations.of(seeds, &mut random));
    for input in seeds.iter().cloned().chain(fresh) {
        if let Some(outcome) = run(&input) {
            let kept = seen.entry(outcome).or_insert_with(|| input.clone());
            if input.len() < kept.len() {
                *kept = input;
            }
        }
    }
    // That most is refused at the door would be no test.
    assert!(seen.len() > seeds.len(), "{:?}", seen.keys().collect::<Vec<_>>());
    if let Some(directory) = variable::<String>("FUZZ_KEEP") {
        let directory = Path::new(&directory).join(kind);
        fs::create_dir_all(&directory).unwrap();
        for ((what, outcome), input) in seen {
            let name = format!("{}-{outcome}", what.replace(['/', '.'], "-"));
            fs::write(directory.join(name), input).unwrap();
        }
    }
}

fn replay(kind: &str, run: fn(&[u8]) -> Option<Outcome>) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(kind);
    let mut replayed = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed > 20, "the corpus is not there");
}

#[test]
fn fuzz_grpc_requests_never_panic_and_refusals_change_nothing() {
    fuzz("grpc", &messages(), harness::grpc);
}

#[test]
fn fuzz_gateway_requests_never_panic_and_refusals_change_nothing() {
    fuzz("json", &texts(), harness::json);
}

#[test]
fn fuzz_corpus_of_grpc_requests_does_no_harm() {
    replay("grpc", harness::grpc);
}

#[test]
fn fuzz_corpus_of_gateway_requests_does_no_harm() {
    replay("json", harness::json);
}
