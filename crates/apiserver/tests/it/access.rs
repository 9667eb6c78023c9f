//! Who may do what, over TLS with real certificates and tokens.

use crate::{
    Api, PODS,
    pki::{Authority, Client, Credential, Secured},
    pod,
};
use apiserver::{AccessConfig, ServiceAccountKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt::Write as _};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const SAS: &str = "/api/v1/namespaces/default/serviceaccounts";

fn key() -> ServiceAccountKey {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    ServiceAccountKey::from_pem(pair.serialize_pem().as_bytes()).unwrap()
}

pub(crate) fn config() -> AccessConfig {
    AccessConfig { service_account_key: Some(key()), ..AccessConfig::default() }
}

async fn made(api: &Api, path: &str, object: Value) -> Value {
    let (code, made) = api.json(Method::POST, path, object).await;
    assert_eq!(code, 201, "{path}: {made}");
    made
}

/// A RoleBinding in `default`.
async fn bound(api: &Api, name: &str, role: &str, subject: Value) {
    let binding = json!({
        "metadata": {"name": name}, "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
    });
    made(api, &format!("{RBAC}/namespaces/default/rolebindings"), binding).await;
}

/// Two nodes with a Pod each, which names a Secret each.
async fn nodes(api: &Api) {
    for n in ["1", "2"] {
        made(api, "/api/v1/nodes", json!({"metadata": {"name": format!("node-{n}")}})).await;
        let secret = json!({"metadata": {"name": format!("secret-{n}")}, "data": {"a": "Yg=="}});
        made(api, "/api/v1/namespaces/default/secrets", secret).await;
        let mut object = pod(&format!("pod-{n}"));
        object["spec"]["nodeName"] = json!(format!("node-{n}"));
        object["spec"]["serviceAccountName"] = json!("robot");
        object["spec"]["volumes"] =
            json!([{"name": "s", "secret": {"secretName": format!("secret-{n}")}}]);
        made(api, PODS, object).await;
    }
}

async fn token(api: &Api, account: &str, spec: Value) -> (u16, Value) {
    api.json(Method::POST, &format!("{SAS}/{account}/token"), json!({"spec": spec})).await
}

async fn token_text(api: &Api, account: &str) -> String {
    let (code, answer) = token(api, account, json!({})).await;
    assert_eq!(code, 201, "{answer}");
    answer["status"]["token"].as_str().unwrap().to_owned()
}

fn bootstrap_secret(id: &str, expiration: &str) -> Value {
    let data = [
        ("token-id", id),
        ("token-secret", "0123456789abcdef"),
        ("expiration", expiration),
        ("usage-bootstrap-authentication", "true"),
    ];
    let data = data.map(|(key, value)| (key.to_owned(), Value::from(STANDARD.encode(value))));
    json!({
        "metadata": {"name": format!("bootstrap-token-{id}")}, "type": "bootstrap.kubernetes.io/token",
        "data": data.into_iter().collect::<serde_json::Map<_, _>>(),
    })
}

/// What is tried: verb as the table shows it, method, path, body. Nothing that is allowed changes what
/// another identity is tried with.
fn tries() -> Vec<(&'static str, Method, String, Value)> {
    let ns = "/api/v1/namespaces/default";
    let map = json!({"metadata": {"name": "x"}});
    let dry = "?dryRun=All";
    vec![
        ("get /livez", Method::GET, "/livez".to_owned(), Value::Null),
        ("get /version", Method::GET, "/version".to_owned(), Value::Null),
        ("get /apis", Method::GET, "/apis".to_owned(), Value::Null),
        ("get pod-1", Method::GET, format!("{ns}/pods/pod-1"), Value::Null),
        ("list pods", Method::GET, format!("{ns}/pods"), Value::Null),
        ("list pods everywhere", Method::GET, "/api/v1/pods".to_owned(), Value::Null),
        ("watch pods", Method::GET, format!("{ns}/pods?watch=true"), Value::Null),
        ("create pods", Method::POST, format!("{ns}/pods{dry}"), pod("x")),
        (
            "patch pod-1",
            Method::PATCH,
            format!("{ns}/pods/pod-1{dry}"),
            json!({"metadata": {"labels": {"a": "b"}}}),
        ),
        (
            "patch pod-1/status",
            Method::PATCH,
            format!("{ns}/pods/pod-1/status{dry}"),
            json!({"status": {"phase": "Running"}}),
        ),
        ("delete pod-1", Method::DELETE, format!("{ns}/pods/pod-1{dry}"), Value::Null),
        ("deletecollection pods", Method::DELETE, format!("{ns}/pods{dry}"), Value::Null),
        ("exec in pod-1", Method::POST, format!("{ns}/pods/pod-1/exec"), Value::Null),
        ("exec in pod-1 (GET)", Method::GET, format!("{ns}/pods/pod-1/exec"), Value::Null),
        ("log of pod-1", Method::GET, format!("{ns}/pods/pod-1/log"), Value::Null),
        ("bind pod-1", Method::POST, format!("{ns}/pods/pod-1/binding"), json!({})),
        ("get secret-1", Method::GET, format!("{ns}/secrets/secret-1"), Value::Null),
        ("list secrets", Method::GET, format!("{ns}/secrets"), Value::Null),
        ("create configmaps", Method::POST, format!("{ns}/configmaps{dry}"), map.clone()),
        (
            "create configmaps elsewhere",
            Method::POST,
            format!("/api/v1/namespaces/kube-public/configmaps{dry}"),
            map,
        ),
        (
            "list deployments",
            Method::GET,
            "/apis/apps/v1/namespaces/default/deployments".to_owned(),
            Value::Null,
        ),
        ("list roles", Method::GET, format!("{RBAC}/namespaces/default/roles"), Value::Null),
        ("list clusterroles", Method::GET, format!("{RBAC}/clusterroles"), Value::Null),
        ("get namespace", Method::GET, ns.to_owned(), Value::Null),
        ("get node-1", Method::GET, "/api/v1/nodes/node-1".to_owned(), Value::Null),
        (
            "patch node-1",
            Method::PATCH,
            format!("/api/v1/nodes/node-1{dry}"),
            json!({"metadata": {"annotations": {"a": "b"}}}),
        ),
        (
            "patch node-1/status",
            Method::PATCH,
            format!("/api/v1/nodes/node-1/status{dry}"),
            json!({"status": {"phase": "x"}}),
        ),
        (
            "proxy to node-1",
            Method::GET,
            "/api/v1/nodes/node-1/proxy/metrics".to_owned(),
            Value::Null,
        ),
        (
            "create token",
            Method::POST,
            format!("{ns}/serviceaccounts/robot/token"),
            json!({"spec": {}}),
        ),
        (
            "whoami",
            Method::POST,
            "/apis/authentication.k8s.io/v1/selfsubjectreviews".to_owned(),
            json!({}),
        ),
        (
            "review others",
            Method::POST,
            "/apis/authorization.k8s.io/v1/subjectaccessreviews".to_owned(),
            json!({"spec": {"user": "u", "nonResourceAttributes": {"path": "/", "verb": "get"}}}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_identity_may_what_the_table_says() {
    let secured = Secured::new(config()).await;
    let Secured { api, authority, .. } = &secured;
    made(api, SAS, json!({"metadata": {"name": "robot"}})).await;
    nodes(api).await;
    for role in ["view", "edit", "admin"] {
        bound(api, role, role, json!({"kind": "User", "name": role})).await;
    }
    let robot = json!({"kind": "ServiceAccount", "name": "robot", "namespace": "default"});
    bound(api, "robot", "view", robot).await;
    for (id, expiration) in [("aaaaaa", ""), ("bbbbbb", "2020-01-01T00:00:00Z")] {
        let secret = bootstrap_secret(id, expiration);
        made(api, "/api/v1/namespaces/kube-system/secrets", secret).await;
    }
    let service_account = token_text(api, "robot").await;
    let forged = {
        let other = Api::with(config(), apiserver::Pki::default()).await;
        made(&other, SAS, json!({"metadata": {"name": "robot"}})).await;
        token_text(&other, "robot").await
    };
    let certified =
        |user: &str, groups: &[&str]| (Some(authority.client(user, groups)), String::new());
    let shows = |token: &str| (None, token.to_owned());
    // Valid now, but not yet by the API's clock, which stands in 2023.
    let early = Some(authority.client_in((2025, 4000), "root", &["system:masters"]));
    let who: Vec<(&str, (Option<Credential>, String))> = vec![
        ("master", certified("root", &["system:masters"])),
        ("admin", certified("admin", &[])),
        ("edit", certified("edit", &[])),
        ("view", certified("view", &[])),
        ("nobody", certified("nobody", &[])),
        ("node-1", certified("system:node:node-1", &["system:nodes"])),
        ("node-2", certified("system:node:node-2", &["system:nodes"])),
        ("scheduler", certified("system:kube-scheduler", &[])),
        ("sa", shows(&service_account)),
        ("bootstrap", shows("aaaaaa.0123456789abcdef")),
        ("anonymous", shows("")),
        ("forged token", shows(&forged)),
        ("old bootstrap", shows("bbbbbb.0123456789abcdef")),
        ("wrong bootstrap", shows("aaaaaa.0123456789abcdee")),
        ("early cert", (early, String::new())),
    ];
    let mut table = String::new();
    let _ = writeln!(
        table,
        "{:30}{}",
        "",
        who.iter().map(|(name, _)| format!("{name:>16}")).collect::<String>()
    );
    let mut rows: Vec<String> = tries().iter().map(|(name, ..)| format!("{name:30}")).collect();
    for (_, (certificate, token)) in &who {
        let client = secured.client(certificate.as_ref()).await.unwrap();
        let mut client = if token.is_empty() {
            client
        } else {
            client.with("authorization", &format!("Bearer {token}"))
        };
        for ((_, method, path, body), row) in tries().into_iter().zip(&mut rows) {
            let (code, _) = client.json(method, &path, body).await;
            let shown = match code {
                401 | 403 => code.to_string(),
                _ => "yes".to_owned(),
            };
            let _ = write!(row, "{shown:>16}");
        }
    }
    table.push_str(&rows.join("\n"));
    insta::assert_snapshot!(table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_good_opens_nothing() {
    let secured = Secured::new(config()).await;
    let masters = &["system:masters"][..];
    let stranger = Authority::new().client("root", masters);
    assert!(secured.client(Some(&stranger)).await.is_none());
    let expired = secured.authority.client_in((2000, 2001), "root", masters);
    assert!(secured.client(Some(&expired)).await.is_none());
    // One without a name is nobody's.
    let unnamed = secured.authority.client("", masters);
    let (code, status) = secured.client(Some(&unnamed)).await.unwrap().get("/version").await;
    assert_eq!(
        (code, &status["message"]),
        (403, &json!("forbidden: User \"system:anonymous\" cannot get path \"/version\""))
    );
}

/// Every path that discovery names, with a method for each verb.
async fn discovered(api: &Api) -> Vec<(Method, String)> {
    let get = async |path: &str| api.json(Method::GET, path, Value::Null).await.1;
    let mut groups = vec!["/api/v1".to_owned()];
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for group in get("/apis").await["groups"].as_array().unwrap() {
        paths.push(format!("/apis/{}", group["name"].as_str().unwrap()));
        for version in group["versions"].as_array().unwrap() {
            groups.push(format!("/apis/{}", version["groupVersion"].as_str().unwrap()));
        }
    }
    let mut all: Vec<(Method, String)> = Vec::new();
    for group in groups {
        for resource in get(&group).await["resources"].as_array().unwrap() {
            let (plural, sub) = {
                let name = resource["name"].as_str().unwrap();
                name.split_once('/').map_or((name, String::new()), |(p, s)| (p, format!("/{s}")))
            };
            let space = if resource["namespaced"] == true { "/namespaces/default" } else { "" };
            let collection = format!("{group}{space}/{plural}");
            let one = format!("{collection}/x{sub}");
            for verb in resource["verbs"].as_array().unwrap() {
                let (method, path) = match verb.as_str().unwrap() {
                    "create" if sub.is_empty() => (Method::POST, collection.clone()),
                    "create" => (Method::POST, one.clone()),
                    "delete" => (Method::DELETE, one.clone()),
                    "deletecollection" => (Method::DELETE, collection.clone()),
                    "get" => (Method::GET, one.clone()),
                    "list" => (Method::GET, collection.clone()),
                    "patch" => (Method::PATCH, one.clone()),
                    "update" => (Method::PUT, one.clone()),
                    "watch" => (Method::GET, format!("{collection}?watch=true")),
                    other => panic!("{other}"),
                };
                all.push((method, path));
            }
        }
        paths.push(group);
    }
    paths.extend(
        [
            "/version",
            "/openapi/v2",
            "/openapi/v3",
            "/openapi/v3/api/v1",
            "/metrics",
            "/",
            "/x",
            "/.well-known/openid-configuration",
            "/openid/v1/jwks",
            "/debug/pprof",
            "/logs",
        ]
        .map(str::to_owned),
    );
    all.extend(paths.into_iter().map(|path| (Method::GET, path)));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_health_is_there_without_credentials() {
    let secured = Secured::new(config()).await;
    let mut anonymous = secured.client(None).await.unwrap();
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(anonymous.get(path).await.0, 200, "{path}");
    }
    let mut wrong = secured.client(None).await.unwrap().with("authorization", "Bearer x");
    assert_eq!(wrong.get("/livez").await.0, 401);
    let mut root =
        secured.client(Some(&secured.authority.client("root", &["system:masters"]))).await.unwrap();
    let all = discovered(&secured.api).await;
    assert!(all.len() > 200, "{}", all.len());
    let mut kinds = BTreeSet::new();
    for (method, path) in all {
        let (code, status) = anonymous.json(method.clone(), &path, json!({})).await;
        assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")), "{method} {path}");
        let (code, status) = wrong.json(method.clone(), &path, json!({})).await;
        assert_eq!((code, &status["message"]), (401, &json!("Unauthorized")), "{method} {path}");
        // And it is there for who may.
        if method == Method::GET && !path.contains("watch") {
            let code = root.get(&path).await.0;
            assert!(!matches!(code, 401 | 403), "{path}: {code}");
            kinds.insert(code);
        }
    }
    assert!(kinds.contains(&200) && kinds.contains(&404), "{kinds:?}");
    // Nor over gRPC.
    for rpc in ["/trireme.cluster.v1.AdminService/Status", "/trireme.node.v1.NodeService/Session"] {
        let mut grpc = secured.client(None).await.unwrap();
        let (code, message) = grpc.rpc(rpc).await;
        assert_eq!(
            (code.as_str(), message.contains("system:anonymous")),
            ("7", true),
            "{rpc}: {message}"
        );
        let mut root = secured
            .client(Some(&secured.authority.client("root", &["system:masters"])))
            .await
            .unwrap();
        let (code, message) = root.rpc(rpc).await;
        // A node's session is for nodes only, whoever else may do anything.
        let want = if rpc.ends_with("Session") { "7" } else { "0" };
        assert_eq!(code, want, "{rpc}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_credential_is_for_its_own() {
    let secured = Secured::new(config()).await;
    let api = &secured.api;
    made(api, SAS, json!({"metadata": {"name": "robot"}})).await;
    made(api, SAS, json!({"metadata": {"name": "other"}})).await;
    nodes(api).await;
    for n in ["1", "2"] {
        let lease =
            json!({"metadata": {"name": format!("node-{n}")}, "spec": {"holderIdentity": "x"}});
        let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        made(api, path, lease).await;
    }
    let shown = secured.authority.client("system:node:node-1", &["system:nodes"]);
    let mut node = secured.client(Some(&shown)).await.unwrap();
    let ns = "/api/v1/namespaces/default";
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let uid =
        api.json(Method::GET, &format!("{PODS}/pod-1"), Value::Null).await.1["metadata"]["uid"]
            .clone();
    let other_uid =
        api.json(Method::GET, &format!("{PODS}/pod-2"), Value::Null).await.1["metadata"]["uid"]
            .clone();
    let bound = |pod: &str, uid: &Value| json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}}});
    let status = json!({"status": {"phase": "Running"}});
    let labels = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    for (name, method, path, body, want) in [
        ("its pod", Method::GET, format!("{ns}/pods/pod-1"), Value::Null, 200),
        ("another's pod", Method::GET, format!("{ns}/pods/pod-2"), Value::Null, 403),
        (
            "its pods",
            Method::GET,
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1".to_owned(),
            Value::Null,
            200,
        ),
        (
            "another's pods",
            Method::GET,
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-2".to_owned(),
            Value::Null,
            403,
        ),
        ("all pods", Method::GET, "/api/v1/pods".to_owned(), Value::Null, 403),
        (
            "all pods of other nodes",
            Method::GET,
            "/api/v1/pods?fieldSelector=spec.nodeName%21%3Dnode-2".to_owned(),
            Value::Null,
            403,
        ),
        ("its secret", Method::GET, format!("{ns}/secrets/secret-1"), Value::Null, 200),
        ("another's secret", Method::GET, format!("{ns}/secrets/secret-2"), Value::Null, 403),
        ("all secrets", Method::GET, format!("{ns}/secrets"), Value::Null, 403),
        ("all secrets there are", Method::GET, "/api/v1/secrets".to_owned(), Value::Null, 403),
        (
            "a change of its secret",
            Method::PATCH,
            format!("{ns}/secrets/secret-1"),
            json!({"data": {}}),
            403,
        ),
        ("its pod's status", Method::PATCH, format!("{ns}/pods/pod-1/status"), status.clone(), 200),
        ("another's pod's status", Method::PATCH, format!("{ns}/pods/pod-2/status"), status, 403),
        ("its pod's spec", Method::PATCH, format!("{ns}/pods/pod-1"), labels("a"), 403),
        ("a pod", Method::POST, format!("{ns}/pods"), pod("new"), 403),
        ("another's pod's end", Method::DELETE, format!("{ns}/pods/pod-2"), Value::Null, 403),
        (
            "another's pod's eviction",
            Method::POST,
            format!("{ns}/pods/pod-2/eviction"),
            json!({"metadata": {"name": "pod-2"}}),
            403,
        ),
        ("its node", Method::GET, "/api/v1/nodes/node-1".to_owned(), Value::Null, 200),
        (
            "its labels",
            Method::PATCH,
            "/api/v1/nodes/node-1".to_owned(),
            labels("example.com/a"),
            200,
        ),
        (
            "reserved labels",
            Method::PATCH,
            "/api/v1/nodes/node-1".to_owned(),
            labels("node-restriction.kubernetes.io/a"),
            403,
        ),
        (
            "its taints",
            Method::PATCH,
            "/api/v1/nodes/node-1".to_owned(),
            json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
            403,
        ),
        ("another node", Method::PATCH, "/api/v1/nodes/node-2".to_owned(), labels("a"), 403),
        (
            "another node's status",
            Method::PATCH,
            "/api/v1/nodes/node-2/status".to_owned(),
            json!({"status": {}}),
            403,
        ),
        (
            "a new node of another name",
            Method::POST,
            "/api/v1/nodes".to_owned(),
            json!({"metadata": {"name": "node-3"}}),
            403,
        ),
        ("its end", Method::DELETE, "/api/v1/nodes/node-1".to_owned(), Value::Null, 403),
        (
            "its lease",
            Method::PATCH,
            format!("{leases}/node-1"),
            json!({"spec": {"leaseDurationSeconds": 40}}),
            200,
        ),
        ("another's lease", Method::PATCH, format!("{leases}/node-2"), json!({"spec": {}}), 403),
        (
            "another's lease, made",
            Method::POST,
            leases.to_owned(),
            json!({"metadata": {"name": "node-4"}}),
            403,
        ),
        ("its pod's token", Method::POST, format!("{SAS}/robot/token"), bound("pod-1", &uid), 201),
        (
            "another's pod's token",
            Method::POST,
            format!("{SAS}/robot/token"),
            bound("pod-2", &other_uid),
            403,
        ),
        (
            "a token for no pod",
            Method::POST,
            format!("{SAS}/robot/token"),
            json!({"spec": {}}),
            403,
        ),
        (
            "another account's token",
            Method::POST,
            format!("{SAS}/other/token"),
            json!({"spec": {}}),
            403,
        ),
        (
            "a node's port",
            Method::GET,
            "/api/v1/nodes/node-1/proxy/metrics".to_owned(),
            Value::Null,
            403,
        ),
        ("its pod's end", Method::DELETE, format!("{ns}/pods/pod-1"), Value::Null, 200),
    ] {
        let (code, answer) = node.json(method, &path, body).await;
        assert_eq!(code, want, "{name}: {answer}");
    }
    let (_, refused) = node.get(&format!("{ns}/secrets/secret-2")).await;
    assert_eq!(
        refused["message"],
        "secrets \"secret-2\" is forbidden: User \"system:node:node-1\" cannot get resource \"secrets\" \
         in API group \"\" in the namespace \"default\": no relationship found between node 'node-1' and \
         this object"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gives_what_they_do_not_have() {
    let secured = Secured::new(config()).await;
    let api = &secured.api;
    bound(api, "admin", "admin", json!({"kind": "User", "name": "boss"})).await;
    let mut boss = secured.client(Some(&secured.authority.client("boss", &[]))).await.unwrap();
    let roles = format!("{RBAC}/namespaces/default/roles");
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let role = |name: &str, resource: &str| {
        json!({"metadata": {"name": name},
               "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": [resource]}]})
    };
    let binding = |name: &str, role: &str| {
        json!({
            "metadata": {"name": name}, "subjects": [{"kind": "User", "name": "friend"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        })
    };
    assert_eq!(boss.json(Method::POST, &roles, role("pods", "pods")).await.0, 201);
    let (code, refused) = boss.json(Method::POST, &roles, role("nodes", "nodes")).await;
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        "roles.rbac.authorization.k8s.io \"nodes\" is forbidden: user \"boss\" (groups=[\"system:authenticated\"]) \
         is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"list\"]}"
    );
    // Nor by changing, patching, applying or replacing one that is there.
    let more = json!({"rules": role("", "nodes")["rules"]});
    assert_eq!(boss.json(Method::PATCH, &format!("{roles}/pods"), more).await.0, 403);
    assert_eq!(
        boss.json(Method::PUT, &format!("{roles}/pods"), role("pods", "nodes")).await.0,
        403
    );
    assert_eq!(boss.json(Method::PUT, &format!("{roles}/new"), role("new", "nodes")).await.0, 403);
    assert_eq!(boss.json(Method::POST, &bindings, binding("a", "view")).await.0, 201);
    assert_eq!(boss.json(Method::POST, &bindings, binding("b", "cluster-admin")).await.0, 403);
    let (code, missing) = boss.json(Method::POST, &bindings, binding("c", "none")).await;
    assert_eq!(
        (code, &missing["message"]),
        (404, &json!("clusterrole.rbac.authorization.k8s.io \"none\" not found"))
    );
    // Whoever may `bind` a role, or `escalate`, may.
    let special = json!({
        "metadata": {"name": "special"},
        "rules": [
            {"verbs": ["bind"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
             "resourceNames": ["cluster-admin"]},
            {"verbs": ["escalate"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"],
             "resourceNames": ["nodes"]},
        ],
    });
    made(api, &format!("{RBAC}/clusterroles"), special).await;
    bound(api, "special", "special", json!({"kind": "User", "name": "boss"})).await;
    assert_eq!(boss.json(Method::POST, &bindings, binding("b", "cluster-admin")).await.0, 201);
    assert_eq!(boss.json(Method::POST, &roles, role("nodes", "nodes")).await.0, 201);
    assert_eq!(boss.json(Method::POST, &roles, role("others", "nodes")).await.0, 403);
    // What was given holds at once, and no longer than it is there.
    let mut friend = secured.client(Some(&secured.authority.client("friend", &[]))).await.unwrap();
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(friend.get(secrets).await.0, 200);
    assert_eq!(boss.json(Method::DELETE, &format!("{bindings}/b"), Value::Null).await.0, 200);
    assert_eq!(friend.get(secrets).await.0, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_change_may_not_therefore_create() {
    // CC-6
    let secured = Secured::new(config()).await;
    let api = &secured.api;
    let role = json!({"metadata": {"name": "changer"}, "rules": [
        {"verbs": ["update", "patch"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}]});
    made(api, &format!("{RBAC}/clusterroles"), role).await;
    bound(api, "changer", "changer", json!({"kind": "User", "name": "u"})).await;
    let mut user = secured.client(Some(&secured.authority.client("u", &[]))).await.unwrap();
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "x"}});
    let (code, refused) = user.json(Method::PUT, &format!("{leases}/l"), lease.clone()).await;
    assert_eq!(code, 403);
    assert!(refused["message"].as_str().unwrap().contains("cannot create resource"), "{refused}");
    made(api, leases, lease).await;
    let patch = json!({"spec": {"holderIdentity": "y"}});
    assert_eq!(user.json(Method::PATCH, &format!("{leases}/l"), patch).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_ends_with_what_it_is_bound_to() {
    // SA-2
    let secured = Secured::new(config()).await;
    let api = &secured.api;
    let account = made(api, SAS, json!({"metadata": {"name": "robot"}})).await;
    nodes(api).await;
    let pod_path = format!("{PODS}/pod-1");
    let (_, own) = api.json(Method::GET, &pod_path, Value::Null).await;
    let reference = |name: &str, uid: &str| json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}});
    for (name, spec, want) in [
        ("short", json!({"expirationSeconds": 599}), 422),
        ("long", json!({"expirationSeconds": 1_u64 << 33}), 422),
        ("a namesake", reference("pod-1", "x"), 409),
        ("no pod", reference("none", ""), 404),
        (
            "a map",
            json!({"boundObjectRef": {"kind": "ConfigMap", "apiVersion": "v1", "name": "x"}}),
            400,
        ),
    ] {
        let (code, answer) = token(api, "robot", spec).await;
        assert_eq!(code, want, "{name}: {answer}");
    }
    assert_eq!(token(api, "none", json!({})).await.0, 404);
    let (code, answer) =
        token(api, "robot", reference("pod-1", own["metadata"]["uid"].as_str().unwrap())).await;
    assert_eq!(code, 201);
    assert_eq!(answer["status"]["expirationTimestamp"], "2023-11-14T23:13:20Z");
    let bound = answer["status"]["token"].as_str().unwrap().to_owned();
    let free = token_text(api, "robot").await;
    let (_, elsewhere) = token(api, "robot", json!({"audiences": ["vault"]})).await;
    let elsewhere = elsewhere["status"]["token"].as_str().unwrap().to_owned();
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let shows = async |token: &str| {
        let client = secured.client(None).await.unwrap();
        let mut client = client.with("authorization", &format!("Bearer {token}"));
        client.json(Method::POST, whoami, json!({})).await
    };
    let (code, who) = shows(&bound).await;
    let info = &who["status"]["userInfo"];
    assert_eq!((code, &info["username"]), (201, &json!("system:serviceaccount:default:robot")));
    assert_eq!(info["uid"], account["metadata"]["uid"]);
    assert_eq!(
        info["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );
    assert_eq!(info["extra"]["authentication.kubernetes.io/pod-name"], json!(["pod-1"]));
    assert_eq!(info["extra"]["authentication.kubernetes.io/node-name"], json!(["node-1"]));
    assert_eq!(shows(&elsewhere).await.0, 401);
    let review = async |token: &str, audiences: Value| {
        let body = json!({"spec": {"token": token, "audiences": audiences}});
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        api.json(Method::POST, path, body).await.1["status"].clone()
    };
    let reviewed = review(&elsewhere, json!(["vault", "x"])).await;
    assert_eq!(
        (&reviewed["authenticated"], &reviewed["audiences"]),
        (&json!(true), &json!(["vault"]))
    );
    assert_eq!(review(&elsewhere, json!([])).await["authenticated"], false);
    assert_eq!(review("x", json!([])).await["authenticated"], false);
    // The Pod goes, and comes back as another one.
    let gone = format!("{pod_path}?gracePeriodSeconds=0");
    assert_eq!(api.json(Method::DELETE, &gone, Value::Null).await.0, 200);
    assert_eq!(shows(&bound).await.0, 401);
    made(api, PODS, pod("pod-1")).await;
    assert_eq!(shows(&bound).await.0, 401);
    assert_eq!(shows(&free).await.0, 201);
    let path = format!("{SAS}/robot");
    assert_eq!(api.json(Method::DELETE, &path, Value::Null).await.0, 200);
    assert_eq!(shows(&free).await.0, 401);
    made(api, SAS, json!({"metadata": {"name": "robot"}})).await;
    assert_eq!(shows(&free).await.0, 401, "of a namesake");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_can_be_bound_to_a_secret_or_a_node() {
    // SA-2
    let secured = Secured::new(config()).await;
    let api = &secured.api;
    made(api, SAS, json!({"metadata": {"name": "robot"}})).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    for (kind, path) in [("Secret", secrets), ("Node", "/api/v1/nodes")] {
        let object = json!({"metadata": {"name": "bound"}});
        made(api, path, object.clone()).await;
        let reference = json!({"kind": kind, "apiVersion": "v1", "name": "bound"});
        let (code, answer) = token(api, "robot", json!({"boundObjectRef": reference})).await;
        assert_eq!(code, 201, "{answer}");
        let bearer = format!("Bearer {}", answer["status"]["token"].as_str().unwrap());
        let client = secured.client(None).await.unwrap();
        let mut client = client.with("authorization", &bearer);
        assert_eq!(client.get("/version").await.0, 200, "{kind}");
        let one = format!("{path}/bound");
        assert_eq!(api.json(Method::DELETE, &one, Value::Null).await.0, 200);
        assert_eq!(client.get("/version").await.0, 401, "{kind}");
        made(api, path, object).await;
        assert_eq!(client.get("/version").await.0, 401, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_brings_the_default_roles_up_to_date() {
    let secured = Secured::new(config()).await;
    let api = &secured.api;
    let role = |name: &str| format!("{RBAC}/clusterroles/{name}");
    let none = json!({"rules": []});
    let merge = "application/merge-patch+json";
    let kept = json!({"rules": [], "metadata": {"annotations":
        {"rbac.authorization.kubernetes.io/autoupdate": "false"}}});
    for (name, change) in [("system:basic-user", none), ("system:discovery", kept)] {
        let (code, _) = api.send(Method::PATCH, &role(name), merge, &change.to_string()).await;
        assert_eq!(code, 200);
    }
    let bound = format!("{RBAC}/clusterrolebindings/cluster-admin");
    assert_eq!(api.json(Method::DELETE, &bound, Value::Null).await.0, 200);
    let next = api.server.clone();
    let mut leader = tokio::task::JoinSet::new();
    leader.spawn(async move { next.keep_access(store::Epoch(1)).await });
    let rules = async |name: &str| {
        let (_, role) = api.json(Method::GET, &role(name), Value::Null).await;
        role["rules"].as_array().map_or(0, Vec::len)
    };
    let there = async {
        while api.json(Method::GET, &bound, Value::Null).await.0 != 200
            || rules("system:basic-user").await == 0
            || rules("edit").await == 0
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), there).await.unwrap();
    assert_eq!(rules("system:basic-user").await, 2);
    assert_eq!(rules("system:discovery").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reviews_say_what_requests_will_hear() {
    let secured = Secured::new(config()).await;
    let api = &secured.api;
    bound(api, "viewer", "view", json!({"kind": "User", "name": "u"})).await;
    let mut user = secured.client(Some(&secured.authority.client("u", &[]))).await.unwrap();
    let authz = "/apis/authorization.k8s.io/v1";
    let mine = format!("{authz}/selfsubjectaccessreviews");
    let asks = |verb: &str, resource: &str, namespace: &str| json!({"spec": {"resourceAttributes": {"verb": verb, "resource": resource, "namespace": namespace}}});
    for (verb, resource, namespace, want) in [
        ("list", "pods", "default", true),
        ("list", "secrets", "default", false),
        ("list", "pods", "kube-system", false),
        ("list", "pods", "", false),
    ] {
        let (code, answer) = user.json(Method::POST, &mine, asks(verb, resource, namespace)).await;
        assert_eq!((code, &answer["status"]["allowed"]), (201, &json!(want)), "{answer}");
    }
    let (_, answer) = user.json(Method::POST, &mine, asks("list", "pods", "default")).await;
    assert_eq!(
        answer["status"]["reason"],
        "RBAC: allowed by RoleBinding \"viewer/default\" of ClusterRole \"view\" to User \"u\""
    );
    let path = json!({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/version"}}});
    assert_eq!(user.json(Method::POST, &mine, path).await.1["status"]["allowed"], true);
    for wrong in [json!({}), json!({"spec": {}})] {
        let (code, status) = user.json(Method::POST, &mine, wrong).await;
        assert_eq!(code, 422, "{status}");
    }
    assert_eq!(user.get(&mine).await.0, 403);
    let rules = format!("{authz}/selfsubjectrulesreviews");
    let (code, answer) =
        user.json(Method::POST, &rules, json!({"spec": {"namespace": "default"}})).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(answer["status"]["incomplete"], false);
    let listed = answer["status"]["resourceRules"].to_string();
    assert!(listed.contains("pods/log") && listed.contains("selfsubjectreviews"), "{listed}");
    // Of others only who may.
    let others = format!("{authz}/subjectaccessreviews");
    let mut about = asks("list", "pods", "default");
    about["spec"]["user"] = json!("u");
    assert_eq!(user.json(Method::POST, &others, about.clone()).await.0, 403);
    let (code, answer) = api.json(Method::POST, &others, about.clone()).await;
    assert_eq!((code, &answer["status"]["allowed"]), (201, &json!(true)));
    let local = format!("{authz}/namespaces/kube-system/localsubjectaccessreviews");
    assert_eq!(api.json(Method::POST, &local, about).await.0, 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acting_as_others_is_for_who_may() {
    let secured = Secured::new(config()).await;
    let api = &secured.api;
    bound(api, "viewer", "view", json!({"kind": "User", "name": "u"})).await;
    let masters = secured.authority.client("root", &["system:masters"]);
    let act = async |shown: &Credential, headers: &[(&str, &str)], path: &str| {
        let mut client: Client = secured.client(Some(shown)).await.unwrap();
        for (name, value) in headers {
            client = client.with(name, value);
        }
        client.get(path).await
    };
    let secrets = "/api/v1/namespaces/default/secrets";
    let as_user = [("impersonate-user", "u")];
    assert_eq!(act(&masters, &as_user, PODS).await.0, 200);
    let (code, refused) = act(&masters, &as_user, secrets).await;
    assert_eq!(code, 403);
    assert!(refused["message"].as_str().unwrap().contains("User \"u\" cannot list"), "{refused}");
    let user = secured.authority.client("u", &[]);
    let (code, refused) = act(&user, &[("impersonate-user", "root")], PODS).await;
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        "users \"root\" is forbidden: User \"u\" cannot impersonate resource \"users\" in API group \"\" \
         at the cluster scope"
    );
    // The group alone is refused, too, and so is a group beside a user that is allowed.
    let role = json!({"metadata": {"name": "imp"}, "rules": [
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["v"]}]});
    made(api, &format!("{RBAC}/clusterroles"), role).await;
    let binding = json!({
        "metadata": {"name": "imp"}, "subjects": [{"kind": "User", "name": "u"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "imp"},
    });
    made(api, &format!("{RBAC}/clusterrolebindings"), binding).await;
    assert_eq!(act(&user, &[("impersonate-user", "v")], "/version").await.0, 200);
    let up = [("impersonate-user", "v"), ("impersonate-group", "system:masters")];
    assert_eq!(act(&user, &up, "/version").await.0, 403);
    assert_eq!(act(&user, &[("impersonate-group", "system:masters")], PODS).await.0, 400);
}

#[tokio::test]
async fn without_tls_who_shows_nothing_may_do_anything_unless_it_is_said_otherwise() {
    use http_body_util::BodyExt as _;
    for (enforce, want) in [(false, 200), (true, 403)] {
        let access = AccessConfig { enforce_without_tls: enforce, ..config() };
        let api = Api::with(access, apiserver::Pki::default()).await;
        let mut tasks = tokio::task::JoinSet::new();
        let (url, stop) = crate::node::serve(&api, &mut tasks).await;
        let stream =
            tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
                .await
                .unwrap();
        tasks.spawn(async move { drop(connection.await) });
        let mut ask = async |token: Option<&str>| {
            let mut request = http::Request::get("/api/v1/pods").header("host", "x");
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let body = http_body_util::Empty::<bytes::Bytes>::new();
            let answer = sender.send_request(request.body(body).unwrap()).await.unwrap();
            let code = answer.status().as_u16();
            answer.into_body().collect().await.unwrap();
            code
        };
        assert_eq!(ask(None).await, want);
        // Whoever shows a token is who it says.
        made(&api, SAS, json!({"metadata": {"name": "robot"}})).await;
        assert_eq!(ask(Some(&token_text(&api, "robot").await)).await, 403);
        assert_eq!(ask(Some("x")).await, if enforce { 401 } else { 200 });
        stop.cancel();
    }
}
