//! `cluster status`: one screen.

use crate::{failure::Failure, get::unreadable, target::Target};
use api::core::Node;
use bytes::Bytes;
use client::{ListOptions, admin::ClusterStatus};
use futures::future::join_all;
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// For the nodes to be listed.
const LIST_DEADLINE: Duration = Duration::from_secs(3);
/// For one node to say how it is.
const NODE_DEADLINE: Duration = Duration::from_secs(2);

/// A node, and what its kubelet says of itself.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeStatus {
    name: String,
    /// `Ready`, `NotReady` or `Unknown`, as its condition says.
    status: &'static str,
    pod_cidr: String,
    /// Pods on it; `None` when it does not answer.
    pods: Option<usize>,
    /// Resident memory of its kubelet; `None` when it does not answer.
    rss_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Status {
    #[serde(flatten)]
    cluster: ClusterStatus,
    nodes: Vec<NodeStatus>,
    /// Why they cannot be read: without a majority, for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes_error: Option<String>,
}

pub(crate) async fn status(target: &Target, json: bool) -> Result<(), Failure> {
    let cluster = client::admin::status(&target.endpoints).await?;
    let options = ListOptions::default();
    let listed = timeout(LIST_DEADLINE, target.client.list::<Node>(None, &options)).await;
    let (nodes, nodes_error) = match listed {
        Ok(Ok(list)) => (join_all(list.items.iter().map(|node| ask(target, node))).await, None),
        Ok(Err(error)) => (Vec::new(), Some(error.to_string())),
        Err(_) => (Vec::new(), Some(format!("no answer within {LIST_DEADLINE:?}"))),
    };
    let status = Status { cluster, nodes, nodes_error };
    if json {
        println!("{}", serde_json::to_string_pretty(&status).map_err(unreadable)?);
    } else {
        print(&status);
    }
    Ok(())
}

async fn ask(target: &Target, node: &Node) -> NodeStatus {
    let name = node.metadata.name.clone().unwrap_or_default();
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let ready = conditions.into_iter().find(|c| c.type_ == "Ready").map(|c| c.status.as_str());
    let summary = timeout(NODE_DEADLINE, summary(target, &name)).await.ok().flatten();
    let of_kubelet = "/node/systemContainers/0/memory/rssBytes";
    NodeStatus {
        status: match ready {
            Some("True") => "Ready",
            Some("False") => "NotReady",
            Some(_) | None => "Unknown",
        },
        pod_cidr: node.spec.as_ref().and_then(|s| s.pod_cidr.clone()).unwrap_or_default(),
        pods: summary.as_ref().and_then(|s| Some(s.get("pods")?.as_array()?.len())),
        rss_bytes: summary.as_ref().and_then(|s| s.pointer(of_kubelet)?.as_u64()),
        name,
    }
}

async fn summary(target: &Target, node: &str) -> Option<Value> {
    let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
    let request = http::Request::get(path).body(Bytes::new()).ok()?;
    let answer = target.client.request(request).await.ok()?;
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    serde_json::from_slice(&body).ok()
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn print(status: &Status) {
    let Status { cluster, nodes, nodes_error } = status;
    let furthest = cluster.members.iter().map(|m| m.applied_index).max().unwrap_or_default();
    println!(
        "cluster {}   epoch {}   leader {}",
        cluster.cluster_id, cluster.epoch, cluster.leader
    );
    println!(
        "{:<12} {:<10} {:>6} {:>10} {:>5} {:>10} {:<8} {:>9}  {:<16}  API",
        "REPLICA", "ROLE", "TERM", "REVISION", "LAG", "SYNC P99", "DISK", "RSS", "STATE HASH"
    );
    for member in &cluster.members {
        if !member.reachable {
            println!("{:<12} does not answer", member.name);
            continue;
        }
        println!(
            "{:<12} {:<10} {:>6} {:>10} {:>5} {:>7.2} ms {:<8} {:>9}  {:<16}  {}",
            member.name,
            member.role,
            member.term,
            member.revision,
            furthest - member.applied_index,
            Duration::from_micros(member.sync_p99_us).as_secs_f64() * 1000.0,
            member.disk,
            mib(member.rss_bytes),
            member.state_hash,
            member.client_url,
        );
    }
    println!();
    if let Some(error) = nodes_error {
        println!("The nodes cannot be read: {error}");
        return;
    }
    println!("{:<20} {:<9} {:>5} {:>9}  POD CIDR", "NODE", "STATUS", "PODS", "RSS");
    for node in nodes {
        println!(
            "{:<20} {:<9} {:>5} {:>9}  {}",
            node.name,
            node.status,
            node.pods.map_or_else(|| "-".to_owned(), |pods| pods.to_string()),
            node.rss_bytes.map_or_else(|| "-".to_owned(), mib),
            node.pod_cidr,
        );
    }
}
