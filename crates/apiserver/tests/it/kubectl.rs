//! `kubectl auth` and `create token` with the real program, every version of it that is on this machine, over
//! TLS.

use crate::pki::{Credential, Secured};
use apiserver::{AccessConfig, ServiceAccountKey};
use http::Method;
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{process::Command, time::timeout};

/// A command of it, on a machine that is busy.
const SOON: Duration = Duration::from_secs(60);

fn installed() -> Vec<PathBuf> {
    let more = std::env::var_os("TRIREME_KUBECTLS").map(PathBuf::from);
    let dirs = ["/usr/lib/google-cloud-sdk/bin", "/usr/local/bin", "/usr/bin"].map(PathBuf::from);
    let entries = dirs.into_iter().chain(more).flat_map(std::fs::read_dir).flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.strip_prefix("kubectl").is_some_and(|version| version.starts_with(".1."))
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

fn kubeconfig(secured: &Secured, user: &serde_json::Value) -> String {
    let base64 = |pem: &str| {
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem.as_bytes())
    };
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {
            "server": format!("https://{}", secured.address),
            "certificate-authority-data": base64(&secured.authority.pem()),
        }}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    })
    .to_string()
}

fn certified(shown: &Credential) -> serde_json::Value {
    let base64 = |pem: &str| {
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem.as_bytes())
    };
    json!({"client-certificate-data": base64(&shown.pem.0), "client-key-data": base64(&shown.pem.1)})
}

/// Whether it ended well, and what it said.
async fn run(program: &Path, home: &Path, kubeconfig: &Path, arguments: &str) -> (bool, String) {
    let mut command = Command::new(program);
    command
        .env("KUBECONFIG", kubeconfig)
        .env("HOME", home)
        .args(arguments.split(' '))
        .kill_on_drop(true);
    let output = timeout(SOON, command.output()).await.unwrap().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.success(), text.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kubectl_asks_what_it_may_and_gets_tokens() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let key = ServiceAccountKey::from_pem(pair.serialize_pem().as_bytes()).unwrap();
    let access = AccessConfig { service_account_key: Some(key), ..AccessConfig::default() };
    let secured = Secured::new(access).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let robot = json!({"metadata": {"name": "robot"}});
    assert_eq!(secured.api.json(Method::POST, accounts, robot).await.0, 201);
    let binding = json!({
        "metadata": {"name": "view"},
        "subjects": [
            {"kind": "User", "name": "alice"},
            {"kind": "ServiceAccount", "name": "robot", "namespace": "default"},
        ],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
    });
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    assert_eq!(secured.api.json(Method::POST, path, binding).await.0, 201);
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let shown = secured.authority.client("root", &["system:masters"]);
    std::fs::write(&root, kubeconfig(&secured, &certified(&shown))).unwrap();
    let alice = dir.path().join("alice");
    let shown = secured.authority.client("alice", &["people"]);
    std::fs::write(&alice, kubeconfig(&secured, &certified(&shown))).unwrap();
    let programs = installed();
    let last = programs.last().cloned();
    let each = programs.iter().map(async |program| {
        let version = program.file_name().unwrap().to_string_lossy().into_owned();
        let home = dir.path().join(&version);
        std::fs::create_dir(&home).unwrap();
        let check = async |config: &Path, arguments: &str, well: bool, says: &[&str]| {
            let (ended, said) = run(program, &home, config, arguments).await;
            assert_eq!(ended, well, "{version} {arguments}: {said}");
            for text in says {
                assert!(said.contains(text), "{version} {arguments}: {said}");
            }
            said
        };
        let list = ["*.*", "[*]", "selfsubjectaccessreviews.authorization.k8s.io"];
        check(&root, "auth can-i create pods", true, &["yes"]).await;
        check(&root, "auth can-i --list", true, &list).await;
        let groups = ["root", "system:masters", "system:authenticated"];
        check(&root, "auth whoami", true, &groups).await;
        check(&alice, "auth can-i list secrets", false, &["no"]).await;
        check(&alice, "get pods --as=root", false, &["cannot impersonate resource \"users\""]).await;
        let token = check(&root, "create token robot --duration=10m", true, &["eyJ"]).await;
        let robot = home.join("robot");
        std::fs::write(&robot, kubeconfig(&secured, &json!({"token": token.trim()}))).unwrap();
        let names = ["system:serviceaccount:default:robot", "system:serviceaccounts:default"];
        check(&robot, "auth whoami", true, &names).await;
        if Some(program) != last.as_ref() {
            return;
        }
        // The server's words, which do not depend on who hears them.
        check(&root, "auth can-i list secrets --as=alice -n default", false, &["no"]).await;
        check(&alice, "auth can-i list pods", true, &["yes"]).await;
        check(&alice, "auth can-i list pods --all-namespaces", false, &["no"]).await;
        check(&alice, "auth can-i get /version", true, &["yes"]).await;
        let list = ["pods/log", "[get list watch]"];
        check(&alice, "auth can-i --list -n default", true, &list).await;
        let forbidden = "Error from server (Forbidden): nodes is forbidden: User \"alice\" cannot list resource \
                         \"nodes\" in API group \"\" at the cluster scope";
        check(&alice, "get nodes", false, &[forbidden]).await;
        check(&alice, "get pods", true, &["No resources found"]).await;
        check(&robot, "get configmaps", true, &["No resources found"]).await;
        check(&robot, "get secrets", false, &["Forbidden"]).await;
        std::fs::write(&robot, kubeconfig(&secured, &json!({"token": "eyJ.x.y"}))).unwrap();
        let unauthorized = "error: You must be logged in to the server";
        check(&robot, "get configmaps", false, &[unauthorized]).await;
        let short = "may not specify a duration less than 10 minutes";
        check(&root, "create token robot --duration=1m", false, &[short]).await;
    });
    futures::future::join_all(each).await;
}
