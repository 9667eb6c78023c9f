//! The end of a namespace.

use crate::Cluster;
use client::ClientError;
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

fn pod(node: &str) -> Value {
    json!({
        "metadata": {"name": "p"},
        "spec": {"nodeName": node, "containers": [{"name": "a", "image": "toolbox"}]},
    })
}

#[tokio::test(start_paused = true)]
async fn pods_end_in_peace_before_the_rest_goes_and_nothing_new_comes_in() {
    // NS-1, NS-2, NS-3, DEL-55, A18
    let cluster = Cluster::new().await;
    cluster.post("/api/v1/namespaces", json!({"metadata": {"name": "team"}})).await;
    let inside = "/api/v1/namespaces/team";
    cluster.post(&format!("{inside}/pods"), pod("n")).await;
    cluster.post(&format!("{inside}/configmaps"), json!({"metadata": {"name": "c"}})).await;
    let ended = cluster.call(Method::DELETE, inside, Value::Null).await.unwrap();
    assert_eq!(ended["status"]["phase"], "Terminating");

    let refused = cluster
        .call(Method::POST, &format!("{inside}/configmaps"), json!({"metadata": {"name": "d"}}))
        .await;
    let Err(ClientError::Api(status)) = refused else { panic!("{refused:?}") };
    assert_eq!(
        (status.code, status.message.as_str()),
        (
            403,
            "configmaps \"d\" is forbidden: unable to create new content in namespace team because \
             it is being terminated"
        )
    );
    assert!(status.has_cause("NamespaceTerminating"));

    cluster
        .until("the Pod is told", SECOND, async |c: &Cluster| {
            let pod = c.get(&format!("{inside}/pods/p")).await.unwrap();
            pod["metadata"]["deletionGracePeriodSeconds"] == 30
        })
        .await;
    sleep(20 * SECOND).await;
    assert!(cluster.get(&format!("{inside}/configmaps/c")).await.is_some(), "still in use");
    let namespace = cluster.get(inside).await.unwrap();
    let conditions = namespace["status"]["conditions"].to_string();
    assert!(conditions.contains("pods. has 1 resource instances"), "{conditions}");

    // The kubelet is done.
    let now = json!({"gracePeriodSeconds": 0});
    cluster.call(Method::DELETE, &format!("{inside}/pods/p"), now).await.unwrap();
    cluster.until("all gone", SECOND, async |c: &Cluster| c.get(inside).await.is_none()).await;
    assert!(cluster.get(&format!("{inside}/configmaps/c")).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn some_namespaces_stay_and_finalizers_are_not_for_everybody() {
    // NS-1, NS-2
    let cluster = Cluster::new().await;
    for name in ["default", "kube-system", "kube-public"] {
        let path = format!("/api/v1/namespaces/{name}");
        let refused = cluster.call(Method::DELETE, &path, Value::Null).await;
        let Err(ClientError::Api(status)) = refused else { panic!("{refused:?}") };
        let want = format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted");
        assert_eq!((status.code, status.message), (403, want));
    }
    let path = "/api/v1/namespaces/default";
    let mut namespace = cluster.get(path).await.unwrap();
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "default");
    namespace["spec"]["finalizers"] = json!([]);
    let kept = cluster.call(Method::PUT, path, namespace).await.unwrap();
    assert_eq!(kept["spec"]["finalizers"], json!(["kubernetes"]));
}
