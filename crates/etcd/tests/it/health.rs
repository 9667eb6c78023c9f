//! Health, version and metrics.

use crate::support::Member;
use etcd::proto::{
    etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient},
    health::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    },
};
use store::{Alarm, AlarmKind, Op};
use tonic::Code;

async fn raise(member: &Member, kind: AlarmKind) {
    member.carry_out(Op::Alarm { alarm: Alarm { kind, member: 1 }, active: true }).await;
}

#[tokio::test]
async fn a_member_that_is_well_says_so_at_every_door() {
    let member = Member::start().await;
    for path in ["/health", "/health?serializable=true"] {
        let healthy = r#"{"health":"true","reason":""}"#.to_owned();
        assert_eq!(member.get(path).await, (200, healthy));
    }
    for path in ["/livez", "/livez/serializable_read", "/readyz", "/readyz/linearizable_read"] {
        assert_eq!(member.get(path).await, (200, "ok\n".to_owned()), "{path}");
    }
    let verbose = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
        [+]non_learner ok\nok\n";
    assert_eq!(member.get("/readyz?verbose").await, (200, verbose.to_owned()));
    let one = "[+]serializable_read ok\nok\n";
    assert_eq!(member.get("/livez?verbose").await, (200, one.to_owned()));
    assert_eq!(member.get("/livez/nothing").await, (404, "404 page not found\n".to_owned()));
    let post = http::Request::post("/health").body(String::new()).unwrap();
    assert_eq!(member.request(post).await.0, 405);
}

#[tokio::test]
async fn an_alarm_shows_where_it_matters() {
    let member = Member::start().await;
    raise(&member, AlarmKind::NoSpace).await;
    let full = "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n".to_owned();
    assert_eq!(member.get("/health").await, (503, full.clone()));
    assert_eq!(member.get("/health?exclude=CORRUPT").await, (503, full));
    assert_eq!(member.get("/health?exclude=NOSPACE").await.0, 200);
    assert_eq!(member.get("/readyz").await.0, 200);
    raise(&member, AlarmKind::Corrupt).await;
    assert_eq!(member.get("/health?exclude=NOSPACE").await.0, 503);
    let said = "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n\
        [+]linearizable_read ok\n[+]non_learner ok\n\n";
    assert_eq!(member.get("/readyz").await, (503, said.to_owned()));
    assert_eq!(member.get("/readyz?exclude=data_corruption").await.0, 200);
    assert_eq!(member.get("/livez").await.0, 200);
}

#[tokio::test]
async fn grpc_health_is_served() {
    let member = Member::start().await;
    let mut health = HealthClient::new(member.channel().await);
    let all = HealthCheckRequest::default();
    let answer = health.check(all.clone()).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    let mut changes = health.watch(all).await.unwrap().into_inner();
    assert_eq!(changes.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let other = HealthCheckRequest { service: "x".to_owned() };
    assert_eq!(health.check(other).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn the_version_is_that_of_the_etcd_whose_api_it_is() {
    let member = Member::start().await;
    let want = r#"{"etcdserver":"3.6.14","etcdcluster":"3.6.0","storage":"3.6.0"}"#;
    assert_eq!(member.get("/version").await, (200, want.to_owned()));
    assert_eq!(member.get("/nope").await, (404, "404 page not found\n".to_owned()));
}

#[tokio::test]
async fn metrics_have_the_names_of_etcd() {
    let member = Member::start().await;
    member.get("/livez").await;
    let (status, page) = member.get("/metrics").await;
    assert_eq!(status, 200);
    let mut names: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    names.sort_unstable();
    insta::assert_snapshot!(names.join("\n"));
    // Each line has the head of its name before it, and a number behind it.
    let mut head = "";
    for line in page.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(rest) => head = rest.split_once(' ').unwrap().0,
            None if line.starts_with('#') => {}
            None => {
                assert!(line.starts_with(head), "{line} under {head}");
                line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
            }
        }
    }
}

fn value(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not there")).parse().unwrap()
}

#[tokio::test]
async fn metrics_count_what_was_done() {
    let member = Member::start().await;
    let mut kv = KvClient::new(member.channel().await);
    for key in ["a", "b"] {
        let put = PutRequest { key: key.into(), value: "v".into(), ..PutRequest::default() };
        kv.put(put).await.unwrap();
    }
    kv.range(RangeRequest::default()).await.unwrap_err();
    let mut watch = member
        .stream(
            "/v3/watch",
            r#"{"create_request":{"key":"YQ=="}}{"create_request":{"key":"Yg=="}}"#,
        )
        .await;
    watch.next().await.unwrap();
    watch.next().await.unwrap();
    let (_, page) = member.get("/metrics").await;
    let of = |code: &str, method: &str| {
        format!(
            "grpc_server_handled_total{{grpc_code=\"{code}\",grpc_method=\"{method}\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}}"
        )
    };
    for (name, want) in [
        (of("OK", "Put").as_str(), 2.0),
        (of("OK", "Range").as_str(), 0.0),
        (of("InvalidArgument", "Range").as_str(), 1.0),
        ("etcd_server_has_leader", 1.0),
        ("etcd_server_is_leader", 1.0),
        ("etcd_server_is_learner", 0.0),
        ("etcd_server_leader_changes_seen_total", 1.0),
        ("etcd_server_proposals_pending", 0.0),
        ("etcd_debugging_mvcc_keys_total", 2.0),
        ("etcd_debugging_mvcc_current_revision", 3.0),
        ("etcd_debugging_mvcc_watcher_total", 2.0),
        ("etcd_debugging_mvcc_watch_stream_total", 1.0),
        ("etcd_mvcc_db_total_size_in_bytes", 4.0),
        (
            "grpc_server_started_total{grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"}",
            1.0,
        ),
    ] {
        assert_eq!(value(&page, name), want, "{name}");
    }
    assert!(value(&page, "etcd_network_client_grpc_received_bytes_total") > 10.0);
    assert!(value(&page, "process_resident_memory_bytes") > 1e6);
}
