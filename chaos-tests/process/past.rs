//! What the client verbs tell of the past, at every replica and after a leader has died.

use crate::cluster::{Cluster, SOON, Said, eventually, with_cluster};
use serde_json::Value;

const MAP: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: site}
data: {title: one}
";

fn json(said: &Said) -> Value {
    assert_eq!(said.code, 0, "{said:?}");
    serde_json::from_str(&said.out).unwrap()
}

/// What each replica that answers says to the same question; all the same.
async fn everywhere(cluster: &Cluster, replicas: &[u64], arguments: &[&str]) -> Value {
    let mut answers = Vec::new();
    for id in replicas {
        let server = cluster.endpoints.urls[usize::try_from(*id).unwrap() - 1].as_str();
        let said = cluster.cli(&[arguments, &["--server", server, "-o", "json"]].concat()).await;
        answers.push(json(&said));
    }
    let first = answers.first().cloned().unwrap();
    assert!(answers.iter().all(|answer| *answer == first), "{answers:?}");
    first
}

#[test]
fn every_replica_tells_the_same_of_the_past() {
    with_cluster(0, async |cluster| {
        let file = cluster.dir().join("site.yaml");
        let path = file.to_string_lossy().into_owned();
        for text in [MAP.to_owned(), MAP.replace("one", "two")] {
            std::fs::write(&file, text).unwrap();
            let said = cluster.cli(&["apply", "-f", &path]).await;
            assert_eq!(said.code, 0, "{said:?}");
        }
        let told = everywhere(cluster, &[1, 2, 3], &["history", "configmap/site"]).await;
        let versions = told["versions"].as_array().unwrap();
        assert_eq!(versions.len(), 2, "{told}");
        assert_eq!(
            versions[1]["changes"][0]["new"].as_str().map(|v| v.contains("two")),
            Some(true)
        );
        let then = versions[0]["revision"].as_str().unwrap();
        let killed = cluster.kill_leader().await;
        let left: Vec<u64> = (1..=3).filter(|id| *id != killed).collect();
        eventually("another one leads", SOON, async || {
            match cluster.cli(&["get", "configmap", "site"]).await {
                Said { code: 0, .. } => Ok(()),
                said => Err(format!("{said:?}")),
            }
        })
        .await;
        let old = everywhere(cluster, &left, &["get", "configmap", "site", "--at", then]).await;
        assert_eq!(old["data"]["title"], "one");
        let said = cluster.cli(&["delete", "configmap", "site"]).await;
        assert_eq!(said.code, 0, "{said:?}");
        let said = cluster.cli(&["undelete", "configmap/site"]).await;
        assert_eq!(said.code, 0, "{said:?}");
        let told = everywhere(cluster, &left, &["history", "configmap/site"]).await;
        let now = told["versions"][3]["revision"].as_str().unwrap();
        // Without `--to` it is the time of the question, which no two replicas are asked at.
        let diff = ["diff", "configmap/site", "--from", then, "--to", now];
        let changes = everywhere(cluster, &left, &diff).await["changes"].clone();
        let paths: Vec<&str> =
            changes.as_array().unwrap().iter().filter_map(|c| c["path"].as_str()).collect();
        assert!(paths.contains(&"data.title") && paths.contains(&"metadata.uid"), "{paths:?}");
        cluster.start_replica(killed).await;
        let told = everywhere(cluster, &[1, 2, 3], &["history", "configmap/site"]).await;
        assert_eq!(told["versions"].as_array().unwrap().len(), 4, "{told}");
    });
}
