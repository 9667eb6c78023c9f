//! Users, roles, tokens, and who may do what.

use crate::served::{Served, Service, Token, auth, kv, log_in};
use etcd::proto::etcdserverpb::{
    cluster_client::ClusterClient, lease_client::LeaseClient,
    maintenance_client::MaintenanceClient, watch_client::WatchClient, watch_request::RequestUnion,
};
use etcd::proto::{
    authpb::{Permission, UserAddOptions, permission::Type},
    etcdserverpb::*,
    mvccpb,
};
use std::time::Duration;
use store::Store as _;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

const PATIENCE: Duration = Duration::from_secs(20);

fn s(text: &str) -> String {
    text.to_owned()
}

fn permission(kind: Type, key: &'static str, range_end: &'static str) -> Permission {
    let [key, range_end] = [key, range_end].map(|text| text.as_bytes().into());
    Permission { perm_type: kind.into(), key, range_end }
}

async fn add_user(channel: &Channel, token: &Token, name: &str) -> Result<(), Status> {
    let request =
        AuthUserAddRequest { name: s(name), password: format!("{name}-pw"), ..Default::default() };
    auth(channel, token).user_add(request).await.map(drop)
}

async fn grant(channel: &Channel, token: &Token, user: &str, role: &str) -> Result<(), Status> {
    let request = AuthUserGrantRoleRequest { user: s(user), role: s(role) };
    auth(channel, token).user_grant_role(request).await.map(drop)
}

async fn permit(
    channel: &Channel,
    token: &Token,
    role: &str,
    perm: Permission,
) -> Result<(), Status> {
    let request = AuthRoleGrantPermissionRequest { name: s(role), perm: Some(perm) };
    auth(channel, token).role_grant_permission(request).await.map(drop)
}

/// Authentication is on. `alice` reads and writes `a`..`b`, and reads `one`.
async fn guard(channel: &Channel) {
    let open = Token(None);
    for user in ["root", "alice"] {
        add_user(channel, &open, user).await.unwrap();
        auth(channel, &open).role_add(AuthRoleAddRequest { name: s(user) }).await.unwrap();
        grant(channel, &open, user, user).await.unwrap();
    }
    permit(channel, &open, "alice", permission(Type::Readwrite, "a", "b")).await.unwrap();
    permit(channel, &open, "alice", permission(Type::Read, "one", "")).await.unwrap();
    auth(channel, &open).auth_enable(AuthEnableRequest {}).await.unwrap();
}

async fn guarded() -> (Served, Channel, Token, Token) {
    let mut served = Served::new();
    let channel = served.replica().await;
    guard(&channel).await;
    let root = log_in(&channel, "root", "root-pw").await.unwrap();
    let alice = log_in(&channel, "alice", "alice-pw").await.unwrap();
    (served, channel, root, alice)
}

async fn put(channel: &Channel, token: &Token, key: &'static str) -> Result<(), Status> {
    let request = PutRequest { key: key.into(), value: "v".into(), ..Default::default() };
    kv(channel, token).put(request).await.map(drop)
}

async fn range(
    channel: &Channel,
    token: &Token,
    key: &'static str,
    range_end: &'static str,
) -> Result<Vec<mvccpb::KeyValue>, Status> {
    let request =
        RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() };
    kv(channel, token).range(request).await.map(|answer| answer.into_inner().kvs)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, text: &str, name: &str) {
    let status = result.expect_err(name);
    assert_eq!((status.code(), status.message()), (code, text), "{name}");
}

const DENIED: (Code, &str) = (Code::PermissionDenied, "etcdserver: permission denied");
const EMPTY: (Code, &str) = (Code::InvalidArgument, "etcdserver: user name is empty");
const BAD_TOKEN: (Code, &str) = (Code::Unauthenticated, "etcdserver: invalid auth token");

#[tokio::test]
async fn a_user_does_what_its_roles_may_and_nothing_else() {
    let (_served, channel, root, alice) = guarded().await;
    put(&channel, &alice, "a1").await.unwrap();
    put(&channel, &root, "b1").await.unwrap();
    assert_eq!(range(&channel, &alice, "a", "b").await.unwrap().len(), 1);
    assert_eq!(range(&channel, &root, "\0", "\0").await.unwrap().len(), 2);
    range(&channel, &alice, "one", "").await.unwrap();
    for (name, result) in [
        ("a write elsewhere", put(&channel, &alice, "b1").await),
        ("a write where it may read", put(&channel, &alice, "one").await),
        ("a read elsewhere", range(&channel, &alice, "b1", "").await.map(drop)),
        ("a read beyond", range(&channel, &alice, "a", "c").await.map(drop)),
        ("a read of all", range(&channel, &alice, "a", "\0").await.map(drop)),
        ("a read from one key on", range(&channel, &alice, "one", "\0").await.map(drop)),
    ] {
        refused(result, DENIED.0, DENIED.1, name);
    }
    let compare = Compare { key: "b".into(), ..Default::default() };
    let txn = TxnRequest { compare: vec![compare], ..Default::default() };
    let result = kv(&channel, &alice).txn(txn).await;
    refused(result, DENIED.0, DENIED.1, "a transaction that only compares");
    let delete = DeleteRangeRequest { key: "a".into(), range_end: "b".into(), prev_kv: true };
    let deleted = kv(&channel, &alice).delete_range(delete).await.unwrap().into_inner();
    assert_eq!(deleted.prev_kvs.len(), 1);
    for (name, token, want) in [
        ("nobody", Token(None), EMPTY),
        ("nonsense", Token(Some(s("x.1"))), BAD_TOKEN),
        ("nothing", Token(Some(String::new())), BAD_TOKEN),
    ] {
        refused(put(&channel, &token, "a1").await, want.0, want.1, name);
        refused(range(&channel, &token, "a1", "").await, want.0, want.1, name);
        let compact = CompactionRequest { revision: 2, physical: false };
        refused(kv(&channel, &token).compact(compact).await, want.0, want.1, name);
    }
}

#[tokio::test]
async fn passwords_are_checked_as_in_etcd() {
    let mut served = Served::new();
    let channel = served.replica().await;
    let result = log_in(&channel, "root", "root-pw").await;
    refused(
        result,
        Code::FailedPrecondition,
        "etcdserver: authentication is not enabled",
        "while it is off",
    );
    guard(&channel).await;
    let failed = "etcdserver: authentication failed, invalid user ID or password";
    for (name, user, password) in [
        ("wrong", "alice", "root-pw"),
        ("empty", "alice", ""),
        ("of nobody", "ghost", "alice-pw"),
        ("too long", "alice", &*"alice-pw".repeat(20)),
    ] {
        refused(log_in(&channel, user, password).await, Code::InvalidArgument, failed, name);
    }
    let root = log_in(&channel, "root", "root-pw").await.unwrap();
    let options = Some(UserAddOptions { no_password: true });
    let request = AuthUserAddRequest { name: s("bob"), options, ..Default::default() };
    auth(&channel, &root).user_add(request).await.unwrap();
    let text = "auth: authentication failed, password was given for no password user";
    refused(log_in(&channel, "bob", "").await, Code::Unknown, text, "without password");
    let request = AuthUserChangePasswordRequest {
        name: s("alice"),
        password: s("new"),
        ..Default::default()
    };
    let alice = log_in(&channel, "alice", "alice-pw").await.unwrap();
    put(&channel, &alice, "a1").await.unwrap();
    auth(&channel, &root).user_change_password(request).await.unwrap();
    let result = put(&channel, &alice, "a1").await;
    refused(result, BAD_TOKEN.0, BAD_TOKEN.1, "a token for the old password");
    let result = log_in(&channel, "alice", "alice-pw").await;
    refused(result, Code::InvalidArgument, failed, "the old password");
    let alice = log_in(&channel, "alice", "new").await.unwrap();
    put(&channel, &alice, "a1").await.unwrap();
}

#[tokio::test]
async fn users_and_roles_are_changed_and_shown() {
    let (_served, channel, root, alice) = guarded().await;
    let mut as_root = auth(&channel, &root);
    let status = as_root.auth_status(AuthStatusRequest {}).await.unwrap().into_inner();
    assert!(status.enabled);
    // Users, roles, grants and permissions: two of each.
    assert_eq!(status.auth_revision, 9);
    let users = as_root.user_list(AuthUserListRequest {}).await.unwrap().into_inner().users;
    assert_eq!(users, ["alice", "root"]);
    let roles = as_root.role_list(AuthRoleListRequest {}).await.unwrap().into_inner().roles;
    assert_eq!(roles, ["alice", "root"]);
    let mut as_alice = auth(&channel, &alice);
    let own = AuthUserGetRequest { name: s("alice") };
    assert_eq!(as_alice.user_get(own.clone()).await.unwrap().into_inner().roles, ["alice"]);
    let own_role = AuthRoleGetRequest { role: s("alice") };
    let perm = as_alice.role_get(own_role.clone()).await.unwrap().into_inner().perm;
    let want = [permission(Type::Readwrite, "a", "b"), permission(Type::Read, "one", "")];
    assert_eq!(perm, want);
    let all = as_root.role_get(AuthRoleGetRequest { role: s("root") }).await.unwrap();
    assert_eq!(all.into_inner().perm, [permission(Type::Readwrite, "", "\0")]);
    let revoke = |key: &'static str, range_end: &'static str| AuthRoleRevokePermissionRequest {
        role: s("alice"),
        key: key.into(),
        range_end: range_end.into(),
    };
    as_root.role_revoke_permission(revoke("a", "b")).await.unwrap();
    let result = put(&channel, &alice, "a1").await;
    refused(result, DENIED.0, DENIED.1, "what it may no more, with the same token");
    as_root
        .user_revoke_role(AuthUserRevokeRoleRequest { name: s("alice"), role: s("alice") })
        .await
        .unwrap();
    assert!(as_alice.user_get(own).await.unwrap().into_inner().roles.is_empty());
    refused(as_alice.role_get(own_role).await, DENIED.0, DENIED.1, "a role of others");
    as_root.role_delete(AuthRoleDeleteRequest { role: s("alice") }).await.unwrap();
    as_root.user_delete(AuthUserDeleteRequest { name: s("alice") }).await.unwrap();
    let result = range(&channel, &alice, "a", "").await;
    refused(result, BAD_TOKEN.0, BAD_TOKEN.1, "a token of nobody any more");
    as_root.auth_disable(AuthDisableRequest {}).await.unwrap();
    put(&channel, &Token(None), "anything").await.unwrap();
    let open = auth(&channel, &Token(None)).auth_status(AuthStatusRequest {}).await.unwrap();
    assert!(!open.into_inner().enabled);
}

#[tokio::test]
async fn changes_of_users_are_refused_with_etcds_words() {
    let (_served, channel, root, alice) = guarded().await;
    let failed = Code::FailedPrecondition;
    let invalid = Code::InvalidArgument;
    let role_add = async |token: &Token, name: &str| {
        auth(&channel, token).role_add(AuthRoleAddRequest { name: s(name) }).await.map(drop)
    };
    let revoke_role = async |user: &str, role: &str| {
        let request = AuthUserRevokeRoleRequest { name: s(user), role: s(role) };
        auth(&channel, &root).user_revoke_role(request).await.map(drop)
    };
    let no_permission = AuthRoleGrantPermissionRequest { name: s("alice"), perm: None };
    let never =
        AuthRoleRevokePermissionRequest { role: s("alice"), key: "x".into(), ..Default::default() };
    for (name, result, code, text) in [
        ("not root", add_user(&channel, &alice, "x").await, DENIED.0, "permission denied"),
        ("nobody", add_user(&channel, &Token(None), "x").await, invalid, "user name is empty"),
        ("not root", role_add(&alice, "x").await, DENIED.0, "permission denied"),
        ("again", add_user(&channel, &root, "alice").await, failed, "user name already exists"),
        ("empty", add_user(&channel, &root, "").await, invalid, "user name is empty"),
        ("again", role_add(&root, "alice").await, failed, "role name already exists"),
        ("empty", role_add(&root, "").await, invalid, "role name is empty"),
        (
            "no such user",
            grant(&channel, &root, "ghost", "alice").await,
            failed,
            "user name not found",
        ),
        (
            "no such role",
            grant(&channel, &root, "alice", "ghost").await,
            failed,
            "role name not found",
        ),
        (
            "not granted",
            revoke_role("alice", "root").await,
            failed,
            "role is not granted to the user",
        ),
        ("root's role", revoke_role("root", "root").await, invalid, "invalid auth management"),
        (
            "root",
            auth(&channel, &root)
                .user_delete(AuthUserDeleteRequest { name: s("root") })
                .await
                .map(drop),
            invalid,
            "invalid auth management",
        ),
        (
            "no permission",
            auth(&channel, &root).role_grant_permission(no_permission).await.map(drop),
            invalid,
            "permission not given",
        ),
        (
            "never granted",
            auth(&channel, &root).role_revoke_permission(never).await.map(drop),
            failed,
            "permission is not granted to the role",
        ),
        (
            "an empty range",
            permit(&channel, &root, "alice", permission(Type::Read, "b", "a")).await,
            invalid,
            "invalid auth management",
        ),
    ] {
        refused(result, code, &format!("etcdserver: {text}"), name);
    }
    let mut empty = Served::new();
    let channel = empty.replica().await;
    let enable = async || auth(&channel, &Token(None)).auth_enable(AuthEnableRequest {}).await;
    refused(enable().await, failed, "etcdserver: root user does not exist", "no root");
    add_user(&channel, &Token(None), "root").await.unwrap();
    let text = "etcdserver: root user does not have root role";
    refused(enable().await, failed, text, "root without its role");
}

#[tokio::test]
async fn a_token_is_good_at_every_replica_until_it_is_idle_for_too_long() {
    let (mut served, channel, _, alice) = guarded().await;
    let other = served.replica().await;
    put(&other, &alice, "a1").await.unwrap();
    for _ in 0..3 {
        served.pass_seconds(299);
        put(&other, &alice, "a1").await.unwrap();
    }
    served.pass_seconds(300);
    for replica in [&channel, &other] {
        refused(put(replica, &alice, "a1").await, BAD_TOKEN.0, BAD_TOKEN.1, "idle");
    }
}

#[tokio::test]
async fn what_concerns_the_group_is_roots() {
    let (_served, channel, root, alice) = guarded().await;
    let maintenance = |token: &Token| -> MaintenanceClient<Service> {
        MaintenanceClient::with_interceptor(channel.clone(), token.clone())
    };
    let cluster = |token: &Token| -> ClusterClient<Service> {
        ClusterClient::with_interceptor(channel.clone(), token.clone())
    };
    for (who, token, want) in [("alice", &alice, DENIED), ("nobody", &Token(None), EMPTY)] {
        let mut m = maintenance(token);
        let mut c = cluster(token);
        for (name, result) in [
            ("defragment", m.defragment(DefragmentRequest {}).await.map(drop)),
            ("hash", m.hash(HashRequest {}).await.map(drop)),
            ("hash of keys", m.hash_kv(HashKvRequest::default()).await.map(drop)),
            ("snapshot", m.snapshot(SnapshotRequest {}).await.map(drop)),
            ("move leader", m.move_leader(MoveLeaderRequest { target_id: 1 }).await.map(drop)),
            ("downgrade", m.downgrade(DowngradeRequest::default()).await.map(drop)),
            (
                "add",
                c.member_add(MemberAddRequest {
                    peer_ur_ls: vec![s("http://127.0.0.1:1")],
                    is_learner: false,
                })
                .await
                .map(drop),
            ),
            ("remove", c.member_remove(MemberRemoveRequest { id: 1 }).await.map(drop)),
            ("promote", c.member_promote(MemberPromoteRequest { id: 1 }).await.map(drop)),
        ] {
            refused(result, want.0, want.1, &format!("{name} by {who}"));
        }
    }
    maintenance(&root).defragment(DefragmentRequest {}).await.unwrap();
    maintenance(&Token(None)).status(StatusRequest {}).await.unwrap();
    let list = MemberListRequest { linearizable: true };
    cluster(&alice).member_list(list).await.unwrap();
    refused(cluster(&Token(None)).member_list(list).await, EMPTY.0, EMPTY.1, "listed by nobody");
}

#[tokio::test]
async fn a_lease_is_guarded_by_its_keys() {
    let (_served, channel, root, alice) = guarded().await;
    let leases = |token: &Token| -> LeaseClient<Service> {
        LeaseClient::with_interceptor(channel.clone(), token.clone())
    };
    let grant = |id| LeaseGrantRequest { ttl: 60, id };
    refused(leases(&Token(None)).lease_grant(grant(1)).await, EMPTY.0, EMPTY.1, "by nobody");
    for id in [1, 2] {
        leases(&alice).lease_grant(grant(id)).await.unwrap();
    }
    let attach =
        |key: &'static str, lease| PutRequest { key: key.into(), lease, ..Default::default() };
    kv(&channel, &alice).put(attach("a1", 1)).await.unwrap();
    kv(&channel, &root).put(attach("z", 2)).await.unwrap();
    let result = kv(&channel, &alice).put(attach("a2", 2)).await;
    refused(result, DENIED.0, DENIED.1, "attached to a lease of others");
    let keep_alive = async |token: &Token, id| -> Result<i64, Status> {
        let requests = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
        let mut answers = leases(token).lease_keep_alive(requests).await?.into_inner();
        Ok(answers.message().await?.map_or(0, |answer| answer.ttl))
    };
    assert_eq!(keep_alive(&alice, 1).await.unwrap(), 60);
    refused(keep_alive(&alice, 2).await, DENIED.0, DENIED.1, "kept alive with keys of others");
    refused(keep_alive(&Token(None), 1).await, EMPTY.0, EMPTY.1, "kept alive by nobody");
    let left = async |token: &Token, id, keys| {
        leases(token).lease_time_to_live(LeaseTimeToLiveRequest { id, keys }).await.map(drop)
    };
    left(&alice, 1, true).await.unwrap();
    left(&alice, 2, false).await.unwrap();
    refused(left(&alice, 2, true).await, DENIED.0, DENIED.1, "its keys seen");
    refused(left(&Token(None), 2, false).await, EMPTY.0, EMPTY.1, "seen by nobody");
    let revoke = async |token: &Token, id| {
        leases(token).lease_revoke(LeaseRevokeRequest { id }).await.map(drop)
    };
    refused(revoke(&alice, 2).await, DENIED.0, DENIED.1, "revoked with keys of others");
    revoke(&alice, 1).await.unwrap();
    revoke(&root, 2).await.unwrap();
}

struct Watching {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Watching {
    async fn begin(channel: &Channel, token: &Token) -> Self {
        let (requests, queue) = mpsc::channel(8);
        let mut client: WatchClient<Service> =
            WatchClient::with_interceptor(channel.clone(), token.clone());
        // The server answers the call when the first request is there.
        let watching = client.watch(ReceiverStream::new(queue));
        let answers = timeout(PATIENCE, watching).await.unwrap().unwrap().into_inner();
        Self { requests, answers }
    }

    async fn create(&mut self, key: &'static str, range_end: &'static str) -> WatchResponse {
        let create = WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..Default::default()
        };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        self.requests.send(request).await.unwrap();
        self.next().await
    }

    async fn next(&mut self) -> WatchResponse {
        timeout(PATIENCE, self.answers.message()).await.unwrap().unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_watch_sees_what_its_user_may_read() {
    let (_served, channel, root, alice) = guarded().await;
    let mut watching = Watching::begin(&channel, &alice).await;
    let denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    for (key, range_end) in [("one", "\0"), ("b", ""), ("a", "c"), ("", ""), ("", "\0")] {
        let answer = watching.create(key, range_end).await;
        assert!(answer.created && answer.canceled, "{key:?}..{range_end:?}");
        assert_eq!((answer.watch_id, answer.cancel_reason.as_str()), (-1, denied));
    }
    // A permission for one key is for no later one (GHSA-xg4h-6gfc-h4m8).
    let one = watching.create("one", "").await;
    assert!(one.created && !one.canceled);
    let mine = watching.create("a", "b").await;
    assert!(mine.created && !mine.canceled);
    for key in ["b1", "one1", "z", "one", "a1"] {
        put(&channel, &root, key).await.unwrap();
    }
    for (id, key) in [(one.watch_id, "one"), (mine.watch_id, "a1")] {
        let answer = watching.next().await;
        let keys: Vec<_> = answer.events.iter().map(|e| e.kv.clone().unwrap().key).collect();
        assert_eq!((answer.watch_id, keys), (id, vec![key.into()]));
    }
    let revoke = AuthRoleRevokePermissionRequest {
        role: s("alice"),
        key: "a".into(),
        range_end: "b".into(),
    };
    auth(&channel, &root).role_revoke_permission(revoke).await.unwrap();
    put(&channel, &root, "a2").await.unwrap();
    let answer = watching.next().await;
    assert!(answer.canceled && answer.events.is_empty());
    assert_eq!((answer.watch_id, answer.cancel_reason.as_str()), (mine.watch_id, denied));
    put(&channel, &root, "one").await.unwrap();
    assert_eq!(watching.next().await.events.len(), 1, "the other goes on");

    let mut nobody = Watching::begin(&channel, &Token(None)).await;
    let answer = nobody.create("a", "").await;
    let empty = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";
    assert_eq!(answer.cancel_reason, empty);
    let mut stranger = Watching::begin(&channel, &Token(Some(s("x")))).await;
    let answer = stranger.create("a", "").await;
    let bad = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    assert_eq!(answer.cancel_reason, bad);
}

#[tokio::test]
async fn a_client_certificate_names_its_user() {
    let (mut served, channel, root, alice) = guarded().await;
    let shown = served.replica_with(served.config(), Some("alice")).await;
    put(&shown, &Token(None), "a1").await.unwrap();
    refused(put(&shown, &Token(None), "b1").await, DENIED.0, DENIED.1, "elsewhere");
    put(&shown, &root, "b1").await.unwrap();
    put(&channel, &alice, "a1").await.unwrap();
    let bad = Token(Some(s("x")));
    refused(put(&shown, &bad, "a1").await, BAD_TOKEN.0, BAD_TOKEN.1, "a token comes first");
    let request = PutRequest { key: "a1".into(), ..Default::default() };
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert("grpcgateway-accept", "*/*".parse().unwrap());
    let result = kv(&shown, &Token(None)).put(request).await;
    refused(result, EMPTY.0, EMPTY.1, "the gateway's certificate is nobody's");
}

#[tokio::test]
async fn what_is_refused_leaves_the_state_as_it_was() {
    let (served, channel, _, alice) = guarded().await;
    let before = served.store.view().hash();
    put(&channel, &alice, "b1").await.unwrap_err();
    put(&channel, &Token(None), "a1").await.unwrap_err();
    put(&channel, &Token(Some(s("x"))), "a1").await.unwrap_err();
    add_user(&channel, &alice, "x").await.unwrap_err();
    assert_eq!(served.store.view().hash(), before);
}
