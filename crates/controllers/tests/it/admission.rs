//! Accounts that every namespace has, and what quotas say is used.

use crate::{Cluster, ROOT_CA};
use client::ClientError;
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

#[tokio::test(start_paused = true)]
async fn the_account_of_a_namespace_is_made_again() {
    // SA-1
    let cluster = Cluster::new().await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default";
    let before = cluster.get(path).await.unwrap();
    cluster.call(Method::DELETE, path, Value::Null).await.unwrap();
    cluster
        .until("another one is there", SECOND, async |c: &Cluster| {
            let now = c.get(path).await;
            now.is_some_and(|now| now["metadata"]["uid"] != before["metadata"]["uid"])
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_pods_hold_the_api_against_is_in_every_namespace_and_as_it_should_be() {
    // SA-1
    let cluster = Cluster::new().await;
    cluster.post("/api/v1/namespaces", json!({"metadata": {"name": "team"}})).await;
    for namespace in ["default", "team"] {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt");
        let is_right = async |c: &Cluster| {
            c.get(&path).await.is_some_and(|map| map["data"] == json!({"ca.crt": ROOT_CA}))
        };
        cluster.until("it is made", SECOND, &is_right).await;
        let mut map = cluster.get(&path).await.unwrap();
        map["data"] = json!({"ca.crt": "another"});
        cluster.call(Method::PUT, &path, map).await.unwrap();
        cluster.until("it is brought up to date", SECOND, &is_right).await;
        cluster.call(Method::DELETE, &path, Value::Null).await.unwrap();
        cluster.until("it is made again", SECOND, &is_right).await;
    }
    cluster.call(Method::DELETE, "/api/v1/namespaces/team", Value::Null).await.unwrap();
    let gone = async |c: &Cluster| c.get("/api/v1/namespaces/team").await.is_none();
    cluster.until("it is in nobody's way", 2 * SECOND, gone).await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_says_what_is_used() {
    let mut cluster = Cluster::new().await;
    cluster.running("a", json!({}), "n", "10.0.0.1").await;
    cluster.running("b", json!({}), "n", "10.0.0.2").await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2", "secrets": "2"}}});
    cluster.post(QUOTAS, quota).await;
    let used = |pods: &'static str, secrets: &'static str| {
        async move |c: &Cluster| {
            let quota = c.get(&format!("{QUOTAS}/q")).await.unwrap();
            quota["status"]["used"] == json!({"pods": pods, "secrets": secrets})
        }
    };
    cluster.until("it is counted once it is there", 2 * SECOND, used("2", "0")).await;
    let pods = "/api/v1/namespaces/default/pods";
    let third =
        json!({"metadata": {"name": "c"}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
    let refused = cluster.call(Method::POST, pods, third).await;
    let Err(ClientError::Api(status)) = refused else { panic!("{refused:?}") };
    assert_eq!(status.code, 403);
    cluster.pod_status("a", json!({"phase": "Succeeded"})).await;
    cluster.until("a Pod ends", 2 * SECOND, used("1", "0")).await;
    let now = json!({"gracePeriodSeconds": 0});
    cluster.call(Method::DELETE, &format!("{pods}/b"), now).await.unwrap();
    cluster.until("a Pod goes", 2 * SECOND, used("0", "0")).await;

    let secrets = "/api/v1/namespaces/default/secrets";
    cluster.post(secrets, json!({"metadata": {"name": "s"}})).await;
    cluster.until("it is charged", SECOND, used("0", "1")).await;
    cluster.call(Method::DELETE, &format!("{secrets}/s"), Value::Null).await.unwrap();
    cluster.lead().await;
    cluster.until("another leader counts, too", 2 * SECOND, used("0", "0")).await;
}
