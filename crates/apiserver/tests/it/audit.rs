//! What is written down of requests.

use crate::{pki::Secured, pod};
use apiserver::{AccessConfig, AuditConfig, AuditLevel};
use http::Method;
use serde_json::{Value, json};
use std::path::Path;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn audited(path: &Path, level: AuditLevel) -> Secured {
    let audit = AuditConfig { path: path.to_owned(), file_bytes_max: 1 << 30, files_max: 1, level };
    Secured::new(AccessConfig { audit: Some(audit), ..AccessConfig::default() }).await
}

/// All lines, when there is what the last request left.
async fn lines(secured: Secured, path: &Path, last: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    secured.end().await;
    let read = async {
        loop {
            let text = std::fs::read_to_string(path).unwrap();
            // One that is being written is none yet.
            let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let lines: Vec<Value> = whole.map(|line| serde_json::from_str(line).unwrap()).collect();
            if last(&lines) {
                return lines;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), read).await.unwrap()
}

fn of<'a>(lines: &'a [Value], verb: &str, resource: &str, user: &str) -> Vec<&'a Value> {
    let found = lines.iter().filter(|line| {
        line["verb"] == verb
            && line["objectRef"]["resource"] == resource
            && line["user"]["username"] == user
    });
    found.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_written_down_in_the_order_of_their_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let secured = audited(&path, AuditLevel::Metadata).await;
    let shown = secured.authority.client("root", &["system:masters"]);
    let mut writers = Vec::new();
    for _ in 0..8 {
        writers.push(secured.client(Some(&shown)).await.unwrap());
    }
    let writes = writers.into_iter().enumerate().map(|(w, mut writer)| async move {
        for i in 0..25 {
            let map = json!({"metadata": {"name": format!("map-{w}-{i}")}});
            assert_eq!(writer.json(Method::POST, MAPS, map).await.0, 201);
        }
    });
    futures::future::join_all(writes).await;
    let all =
        lines(secured, &path, |all| of(all, "create", "configmaps", "root").len() == 200).await;
    let created = of(&all, "create", "configmaps", "root");
    assert_eq!(created.len(), 200);
    let revision = |line: &Value| -> Option<u64> {
        line["annotations"]["trireme.local/revision"].as_str()?.parse().ok()
    };
    // Those of the leader's own writes, too.
    let revisions: Vec<u64> = all.iter().filter_map(revision).collect();
    assert!(revisions.len() >= 200);
    assert!(revisions.is_sorted(), "{revisions:?}");
    assert_eq!(created.iter().filter_map(|line| revision(line)).count(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_says_who_did_what_and_what_came_of_it_but_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let secured = audited(&path, AuditLevel::RequestResponse).await;
    let shown = secured.authority.client("root", &["system:masters"]);
    let mut root = secured.client(Some(&shown)).await.unwrap();
    let map = json!({"metadata": {"name": "m"}, "data": {"colour": "green"}});
    assert_eq!(root.json(Method::POST, MAPS, map).await.0, 201);
    let secret = json!({"metadata": {"name": "s"}, "data": {"password": "aHVudGVyMg=="}});
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(root.json(Method::POST, secrets, secret).await.0, 201);
    assert_eq!(root.get(secrets).await.0, 200);
    let mut acting = root.with("impersonate-user", "alice").with("user-agent", "test/1");
    assert_eq!(acting.get(MAPS).await.0, 403);
    let mut anonymous = secured.client(None).await.unwrap();
    assert_eq!(
        anonymous.json(Method::POST, "/api/v1/namespaces/default/pods", pod("p")).await.0,
        403
    );
    let mut wrong = secured.client(None).await.unwrap().with("authorization", "Bearer x");
    assert_eq!(wrong.get("/version").await.0, 401);
    let all =
        lines(secured, &path, |all| all.iter().any(|line| line["responseStatus"]["code"] == 401))
            .await;
    assert!(
        !all.iter().any(|line| line.to_string().contains("aHVudGVyMg")),
        "a Secret was written down"
    );

    let made = of(&all, "create", "configmaps", "root");
    let [made] = made.as_slice() else { panic!("{made:?}") };
    assert_eq!(made["requestObject"]["data"]["colour"], "green");
    assert_eq!(made["responseObject"]["metadata"]["name"], "m");
    assert_eq!(made["level"], "RequestResponse");
    assert_eq!(made["stage"], "ResponseComplete");
    assert_eq!(made["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(made["responseStatus"]["code"], 201);
    assert_eq!(
        made["objectRef"],
        json!({"resource": "configmaps", "namespace": "default", "apiVersion": "v1"})
    );
    assert_eq!(made["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(made["requestReceivedTimestamp"], "2023-11-14T22:13:20.000000Z");
    assert_eq!(
        of(&all, "create", "secrets", "root").first().map(|line| &line["level"]),
        Some(&json!("Metadata"))
    );

    let acted = of(&all, "list", "configmaps", "root");
    let [acted] = acted.as_slice() else { panic!("{acted:?}") };
    assert_eq!(acted["impersonatedUser"]["username"], "alice");
    assert_eq!(acted["responseStatus"]["reason"], "Forbidden");
    assert_eq!(acted["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(acted["userAgent"], "test/1");
    assert_eq!(of(&all, "create", "pods", "system:anonymous").len(), 1);
    let refused = all.iter().find(|line| line["responseStatus"]["code"] == 401).unwrap();
    assert_eq!(refused["requestURI"], "/version");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_does_not_stop_the_api() {
    let secured = audited(Path::new("/dev/full"), AuditLevel::Metadata).await;
    let shown = secured.authority.client("root", &["system:masters"]);
    let mut root = secured.client(Some(&shown)).await.unwrap();
    for i in 0..20 {
        let map = json!({"metadata": {"name": format!("map-{i}")}});
        assert_eq!(root.json(Method::POST, MAPS, map).await.0, 201);
    }
    let server = secured.api.server.clone();
    let counted = async {
        while server.audit_lost() < 20 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), counted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_is_written_down_though_its_client_takes_gzip() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let secured = audited(&path, AuditLevel::RequestResponse).await;
    let shown = secured.authority.client("root", &["system:masters"]);
    let mut root = secured.client(Some(&shown)).await.unwrap().with("accept-encoding", "gzip");
    let map = json!({"metadata": {"name": "m"}, "data": {"text": "x".repeat(200_000)}});
    assert_eq!(root.json(Method::POST, MAPS, map).await.0, 201);
    let (_, list) = root.get(MAPS).await;
    let all = lines(secured, &path, |all| !of(all, "list", "configmaps", "root").is_empty()).await;
    let listed = of(&all, "list", "configmaps", "root");
    assert_eq!(listed[0]["responseObject"]["items"], list["items"]);
    assert_eq!(list["items"][0]["metadata"]["name"], "m");
}
