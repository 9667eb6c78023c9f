//! What a Pod's programs have to ask the API with.

use crate::cluster::{Cluster, together, with_cluster};
use http::Method;
use serde_json::{Value, json};

const NAMESPACE: &str = "/api/v1/namespaces/default";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
const DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[test]
fn a_program_in_a_pod_asks_the_api_with_its_token_and_what_it_is_held_against() {
    // SA-1, SA-2, VOL-1
    with_cluster(1, async |cluster| {
        prepare(cluster).await;
        together(vec![
            ("an account that may", Box::pin(may(cluster))),
            ("an account that may not", Box::pin(may_not(cluster))),
            ("no token", Box::pin(none(cluster))),
        ])
        .await;
    });
}

async fn post(cluster: &Cluster, path: &str, object: Value) {
    let body = Some(object.to_string().into_bytes());
    cluster.client.call::<Value>(Method::POST, path, body).await.unwrap();
}

/// The account `robot`, which may look, and a configuration for programs in Pods.
async fn prepare(cluster: &Cluster) {
    let robot = json!({"metadata": {"name": "robot"}});
    post(cluster, &format!("{NAMESPACE}/serviceaccounts"), robot).await;
    let role =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
    let subject = json!({"kind": "ServiceAccount", "name": "robot", "namespace": "default"});
    let binding = json!({"metadata": {"name": "robot"}, "roleRef": role, "subjects": [subject]});
    post(cluster, BINDINGS, binding).await;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "own",
        "clusters": [{"name": "own", "cluster": {
            "server": cluster.endpoints.urls[0], "certificate-authority": format!("{DIR}/ca.crt"),
        }}],
        "contexts": [{"name": "own", "context": {
            "cluster": "own", "user": "own", "namespace": "default",
        }}],
        "users": [{"name": "own", "user": {"tokenFile": format!("{DIR}/token")}}],
    });
    let map = json!({"metadata": {"name": "access"}, "data": {"config": config.to_string()}});
    post(cluster, &format!("{NAMESPACE}/configmaps"), map).await;
}

/// A Pod that runs this as `account`; it sees the API where its node does.
async fn runs(cluster: &Cluster, name: &str, spec: Value) {
    let mut spec = spec;
    spec["restartPolicy"] = "Never".into();
    spec["hostNetwork"] = true.into();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    cluster.create(&pod.to_string()).await;
}

/// Lists Pods.
fn lists(account: &str) -> Value {
    json!({
        "serviceAccountName": account,
        "containers": [{
            "name": "a", "image": "toolbox",
            "command": ["toolbox", "get", "pods", "-o", "name", "--kubeconfig", "/access/config"],
            "volumeMounts": [{"name": "access", "mountPath": "/access"}],
        }],
        "volumes": [{"name": "access", "configMap": {"name": "access"}}],
    })
}

async fn may(cluster: &Cluster) {
    runs(cluster, "allowed", lists("robot")).await;
    cluster.phase("allowed", "Succeeded").await;
    let log = cluster.log("allowed", "a").await;
    assert!(log.lines().any(|line| line.ends_with("/allowed")), "{log}");
}

async fn may_not(cluster: &Cluster) {
    runs(cluster, "refused", lists("default")).await;
    cluster.phase("refused", "Failed").await;
    let log = cluster.log("refused", "a").await;
    assert!(log.contains("system:serviceaccount:default:default"), "who it is: {log}");
    assert!(log.contains("forbidden"), "{log}");
}

async fn none(cluster: &Cluster) {
    let spec = json!({
        "automountServiceAccountToken": false,
        "containers": [{
            "name": "a", "image": "toolbox", "command": ["test", "!", "-e", "/var/run/secrets"],
        }],
    });
    runs(cluster, "bare", spec).await;
    cluster.phase("bare", "Succeeded").await;
}
