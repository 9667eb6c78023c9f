//! The JSON gateway.

use crate::support::{Member, SOON};
use etcd::Config;
use serde_json::{Value, json};
use store::Store as _;
use tokio::time::timeout;

fn without_header(mut answer: Value) -> Value {
    answer.as_object_mut().unwrap().remove("header");
    answer
}

#[tokio::test]
async fn keys_are_written_and_read_as_json() {
    let member = Member::start().await;
    let put = member.posted("/v3/kv/put", json!({"key": "Zm9v", "value": "YmFy"})).await;
    let header = json!({"cluster_id": "1", "member_id": "1", "revision": "2", "raft_term": "1"});
    assert_eq!(put, json!({"header": header}));
    let range = member.posted("/v3/kv/range", json!({"key": "Zm9v"})).await;
    let kv = json!({"key": "Zm9v", "value": "YmFy", "create_revision": "2", "mod_revision": "2",
        "version": "1"});
    assert_eq!(range, json!({"header": header, "kvs": [kv], "count": "1"}));
    let txn = json!({
        "compare": [{"target": "MOD", "result": "EQUAL", "key": "Zm9v", "mod_revision": "2"}],
        "success": [{"request_put": {"key": "Zm9v", "value": "eA=="}}],
        "failure": [{"requestRange": {"key": "Zm9v"}}],
    });
    let won = member.posted("/v3/kv/txn", &txn).await;
    assert_eq!(won["succeeded"], true);
    let lost = member.posted("/v3/kv/txn", &txn).await;
    assert_eq!(lost["responses"][0]["response_range"]["kvs"][0]["value"], "eA==");
    let deleted =
        member.posted("/v3/kv/deleterange", json!({"key": "AA==", "range_end": "AA=="})).await;
    assert_eq!(deleted["deleted"], "1");
    member.posted("/v3/kv/compaction", json!({"revision": 3})).await;
}

#[tokio::test]
async fn what_means_the_same_is_taken_in_every_form() {
    let member = Member::start().await;
    // A key of the bytes FB FF, in both alphabets and without padding; a value that is read as text.
    member.posted("/v3/kv/put", json!({"key": "-_8=", "value": "Ly8"})).await;
    for request in [
        json!({"key": "+/8="}),
        json!({"key": "-_8"}),
        json!({"key": "AA==", "range_end": "AA==", "sort_target": "MOD", "sort_order": "DESCEND"}),
        json!({"key": "AA==", "rangeEnd": "AA==", "sortTarget": 3, "sortOrder": 2}),
        json!({"key": "-_8=", "limit": "1", "revision": 2, "nobody_knows": [1]}),
        // An unknown name of an enum counts as an unknown field does.
        json!({"key": "-_8=", "sort_order": "UP"}),
        json!({"key": "-_8=", "limit": 1, "revision": "2", "serializable": true}),
    ] {
        let range = member.posted("/v3/kv/range", &request).await;
        assert_eq!(range["kvs"][0]["value"], "Ly8=", "{request}");
    }
    // Nothing at all is an empty message.
    let status = member.posted("/v3/maintenance/status", "").await;
    assert_eq!(status["version"], "3.6.14");
}

#[tokio::test]
async fn errors_have_both_forms_and_the_status_of_their_code() {
    let member = Member::start().await;
    for (path, request, status, code, message) in [
        ("kv/range", "{}", 400, 3, "etcdserver: key is not provided"),
        (
            "kv/range",
            r#"{"key":"YQ==","revision":"99"}"#,
            400,
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            "kv/put",
            r#"{"key":"YQ==","lease":"5"}"#,
            404,
            5,
            "etcdserver: requested lease not found",
        ),
        ("lock/lock", r#"{"lease":"5"}"#, 500, 2, "etcdserver: requested lease not found"),
        ("election/leader", r#"{"name":"eA=="}"#, 500, 2, "election: no leader"),
        (
            "maintenance/transfer-leadership",
            r#"{"targetID":"9"}"#,
            400,
            9,
            "etcdserver: bad leader transferee",
        ),
        ("kv/nope", "{}", 404, 5, "Not Found"),
    ] {
        let want = json!({"error": message, "code": code, "message": message, "details": []});
        assert_eq!(member.post(&format!("/v3/{path}"), request).await, (status, want), "{path}");
    }
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_changes_nothing() {
    let member = Member::start().await;
    let before = member.store.view().hash();
    for request in [
        "{bad",
        "[]",
        r#"{"key":7}"#,
        r#"{"key":"YQ==","lease":"x"}"#,
        r#"{"key":"YQ==","lease":9223372036854775808}"#,
        r#"{"key":"!"}"#,
        r#"{"key":"YQ==","prev_kv":"yes"}"#,
        "{\"key\":\"YQ==\"",
        "\u{0}",
    ] {
        let (status, answer) = member.post("/v3/kv/put", request).await;
        assert_eq!((status, &answer["code"]), (400, &json!(3)), "{request}: {answer}");
        assert_ne!(answer["message"], "", "{request}");
    }
    assert_eq!(member.store.view().hash(), before);
}

#[tokio::test]
async fn requests_that_are_too_large_are_refused() {
    let config = Config { max_request_bytes: 1000, ..crate::support::config() };
    let member = Member::start_with(config).await;
    let value = |bytes: usize| json!({"key": "YQ==", "value": "A".repeat(bytes / 3 * 4)});
    let (status, answer) = member.post("/v3/kv/put", value(3000)).await;
    assert_eq!((status, &answer["message"]), (400, &json!("etcdserver: request is too large")));
    for bytes in [600_000, 3_000_000] {
        let (status, answer) = member.post("/v3/kv/put", value(bytes)).await;
        let message = answer["message"].as_str().unwrap();
        assert_eq!((status, &answer["code"]), (429, &json!(8)));
        assert!(message.starts_with("grpc: received message larger than max ("), "{message}");
    }
}

#[tokio::test]
async fn a_watch_is_a_line_for_each_answer() {
    let member = Member::start().await;
    // Two requests, one behind the other.
    let request =
        r#"{"create_request":{"key":"YQ==","watch_id":"7"}} {"create_request":{"key":"Yg=="}}"#;
    let mut lines = member.stream("/v3/watch", request).await;
    assert_eq!(lines.status, 200);
    let created = lines.next().await.unwrap();
    assert_eq!(
        (&created["result"]["created"], &created["result"]["watch_id"]),
        (&json!(true), &json!("7"))
    );
    assert_eq!(lines.next().await.unwrap()["result"]["created"], true);
    member.posted("/v3/kv/put", json!({"key": "YQ==", "value": "eA=="})).await;
    let events = without_header(lines.next().await.unwrap()["result"].clone());
    let kv = json!({"key": "YQ==", "value": "eA==", "create_revision": "2", "mod_revision": "2",
        "version": "1"});
    // A put is the event that is not named.
    assert_eq!(events, json!({"watch_id": "7", "events": [{"kv": kv}]}));
    member.posted("/v3/kv/deleterange", json!({"key": "YQ=="})).await;
    let events = lines.next().await.unwrap();
    assert_eq!(events["result"]["events"][0]["type"], "DELETE");
}

#[tokio::test]
async fn a_stream_that_fails_says_so_in_its_status_or_its_last_line() {
    let member = Member::start().await;
    let mut lines = member.stream("/v3/watch", "{\"create_request\":[]}").await;
    assert_eq!((lines.status, lines.next().await), (400, None));
    let request = r#"{"create_request":{"key":"YQ=="}} {"create_request":7}"#;
    let mut lines = member.stream("/v3/watch", request).await;
    assert_eq!(lines.next().await.unwrap()["result"]["created"], true);
    let error = lines.next().await.unwrap();
    let of = |name: &str| error["error"][name].clone();
    assert_eq!((of("code"), of("grpc_code"), of("http_code")), (json!(3), json!(3), json!(400)));
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn leases_are_granted_kept_and_listed_under_all_their_paths() {
    let member = Member::start().await;
    let granted = member.posted("/v3/lease/grant", json!({"TTL": "30", "ID": 9})).await;
    assert_eq!(without_header(granted), json!({"ID": "9", "TTL": "30"}));
    let mut lines = member.stream("/v3/lease/keepalive", r#"{"ID":"9"}{"ID":8}"#).await;
    let kept = lines.next().await.unwrap()["result"].clone();
    assert_eq!(without_header(kept), json!({"ID": "9", "TTL": "30"}));
    let unknown = lines.next().await.unwrap()["result"].clone();
    assert_eq!(without_header(unknown), json!({"ID": "8"}));
    assert_eq!(lines.next().await, None);
    member.posted("/v3/kv/put", json!({"key": "YQ==", "lease": 9})).await;
    for start in ["/v3/lease", "/v3/kv/lease"] {
        let left =
            member.posted(&format!("{start}/timetolive"), json!({"ID": 9, "keys": true})).await;
        assert_eq!((&left["grantedTTL"], &left["keys"]), (&json!("30"), &json!(["YQ=="])));
        let leases = member.posted(&format!("{start}/leases"), "{}").await;
        assert_eq!(leases["leases"], json!([{"ID": "9"}]));
    }
    member.posted("/v3/kv/lease/revoke", json!({"ID": "9"})).await;
    assert_eq!(member.key_count(), 0);
}

#[tokio::test]
async fn locks_and_elections_are_there_too() {
    let member = Member::start().await;
    let held = member.posted("/v3/lock/lock", json!({"name": "Zm9v"})).await;
    member.posted("/v3/lock/unlock", json!({"key": held["key"]})).await;
    let mut lines = None;
    let observe =
        async { lines = Some(member.stream("/v3/election/observe", r#"{"name":"eA=="}"#).await) };
    let campaign = member.posted("/v3/election/campaign", json!({"name": "eA==", "value": "dg=="}));
    let (_, elected) = timeout(SOON, async { tokio::join!(observe, campaign) }).await.unwrap();
    let seen = lines.unwrap().next().await.unwrap();
    assert_eq!(seen["result"]["kv"]["value"], "dg==");
    let leader = &elected["leader"];
    member.posted("/v3/election/proclaim", json!({"leader": leader, "value": "dw=="})).await;
    let said = member.posted("/v3/election/leader", json!({"name": "eA=="})).await;
    assert_eq!(said["kv"]["value"], "dw==");
    member.posted("/v3/election/resign", json!({"leader": leader})).await;
    assert_eq!(member.key_count(), 0);
}

#[tokio::test]
async fn every_path_of_etcd_leads_to_a_method() {
    let member = Member::start().await;
    for path in
        "kv/range kv/put kv/deleterange kv/txn kv/compaction watch lease/grant lease/revoke \
        kv/lease/revoke lease/keepalive lease/timetolive kv/lease/timetolive lease/leases \
        kv/lease/leases cluster/member/add cluster/member/remove cluster/member/update \
        cluster/member/list cluster/member/promote maintenance/alarm maintenance/status \
        maintenance/defragment maintenance/hash maintenance/hashkv maintenance/snapshot \
        maintenance/transfer-leadership maintenance/downgrade auth/enable auth/disable auth/status \
        auth/authenticate auth/user/add auth/user/get auth/user/list auth/user/delete \
        auth/user/changepw auth/user/grant auth/user/revoke auth/role/add auth/role/get \
        auth/role/list auth/role/delete auth/role/grant auth/role/revoke lock/lock lock/unlock \
        election/campaign election/proclaim election/leader election/observe election/resign"
            .split_whitespace()
    {
        // Refused for its form by the method that the path leads to, before anything is done.
        let request = http::Request::post(format!("/v3/{path}")).body("[".to_owned()).unwrap();
        let (status, _, body) = member.request(request).await;
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, &answer["code"]), (400, &json!(3)), "{path}: {answer}");
        let (status, text) = member.get(&format!("/v3/{path}")).await;
        assert_eq!((status, text.as_str()), (405, "Method Not Allowed\n"), "{path}");
    }
}
