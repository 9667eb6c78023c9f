//! A node's session, over sockets, with two API servers over one store in place of two replicas.

use crate::{Api, PODS, pod};
use api::status::Status;
use client::node::{FromControlPlane, NodeSession, NodeSessionConfig, ToControlPlane, session};
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;
use store::Store as _;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// A server on a port of its own, ended by the token.
pub(crate) async fn serve(api: &Api, tasks: &mut JoinSet<()>) -> (String, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tasks.spawn(api.server.clone().serve(listener, None, stop.clone()));
    (url, stop)
}

fn node(endpoints: &[String], stop: &CancellationToken, tasks: &mut JoinSet<()>) -> NodeSession {
    named("node-1", endpoints, stop, tasks)
}

fn named(
    name: &str,
    endpoints: &[String],
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> NodeSession {
    saying(json!({"metadata": {"name": name}, "status": {}}), endpoints, stop, tasks)
}

/// The session of a node that registers so.
pub(crate) fn saying(
    node: Value,
    endpoints: &[String],
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> NodeSession {
    agent("first", node, endpoints, stop, tasks)
}

/// As [`saying`], of one of several agents of the same machine.
fn agent(
    instance: &str,
    node: Value,
    endpoints: &[String],
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> NodeSession {
    let config = NodeSessionConfig {
        node: node["metadata"]["name"].as_str().unwrap().to_owned(),
        instance: instance.to_owned(),
        machine_id: "machine".to_owned(),
        boot_id: "boot".to_owned(),
        node_json: node,
        endpoints: endpoints.to_vec(),
        access: client::transport::Access::default(),
        heartbeat_interval: Duration::from_secs(1),
        silence_max: Duration::from_millis(600),
        callable: true,
    };
    let (ends, link) = session(config, stop.clone());
    tasks.spawn(link);
    ends
}

/// What the node is told, up to the next [`FromControlPlane::Synced`]: Pods, and whether it ends a
/// complete list.
pub(crate) async fn until_synced(node: &mut NodeSession) -> (Vec<(String, bool)>, bool) {
    let mut pods = Vec::new();
    loop {
        let told = timeout(Duration::from_secs(10), node.events.recv()).await.unwrap().unwrap();
        match told {
            FromControlPlane::Pod { pod, removed, .. } => {
                pods.push((pod["metadata"]["name"].as_str().unwrap().to_owned(), removed));
            }
            FromControlPlane::Synced { complete, .. } => return (pods, complete),
            _ => {}
        }
    }
}

/// What became of a request.
async fn acknowledged(node: &mut NodeSession, request: u64) -> Result<u64, Status> {
    loop {
        match node.events.recv().await.unwrap() {
            FromControlPlane::Acknowledged { sequence, result } if sequence == request => {
                return result;
            }
            _ => {}
        }
    }
}

async fn bound(api: &Api, name: &str) {
    let mut object = pod(name);
    object["spec"]["nodeName"] = json!("node-1");
    let (code, _): (u16, Value) = api.json(Method::POST, PODS, object).await;
    assert_eq!(code, 201);
}

#[tokio::test]
async fn a_node_goes_on_at_another_replica_where_it_was() {
    // S24: no second list, no gap, no repeat
    let api = Api::new().await;
    let mut tasks = JoinSet::new();
    let (first, stop_first) = serve(&api, &mut tasks).await;
    let (second, _stop_second) = serve(&api, &mut tasks).await;
    bound(&api, "before").await;
    let stop = CancellationToken::new();
    let mut node = node(&[first, second], &stop, &mut tasks);
    assert_eq!(until_synced(&mut node).await, (vec![("before".to_owned(), false)], true));
    bound(&api, "while").await;
    assert_eq!(until_synced(&mut node).await, (vec![("while".to_owned(), false)], false));

    stop_first.cancel();
    bound(&api, "without").await;
    let path = format!("{PODS}/before?gracePeriodSeconds=0");
    let (code, _) = api.json(Method::DELETE, &path, Value::Null).await;
    assert_eq!(code, 200);
    let mut missed = Vec::new();
    while missed.len() < 2 {
        let (pods, complete) = until_synced(&mut node).await;
        assert!(!complete, "listed again");
        missed.extend(pods);
    }
    assert_eq!(missed, [("without".to_owned(), false), ("before".to_owned(), true)]);
    bound(&api, "after").await;
    assert_eq!(until_synced(&mut node).await, (vec![("after".to_owned(), false)], false));
    stop.cancel();
}

#[tokio::test]
async fn a_node_lists_again_when_what_it_missed_is_compacted() {
    // S24
    let api = Api::new().await;
    let mut tasks = JoinSet::new();
    let (first, stop_first) = serve(&api, &mut tasks).await;
    let (second, _stop_second) = serve(&api, &mut tasks).await;
    bound(&api, "one").await;
    let stop = CancellationToken::new();
    let mut node = node(&[first, second], &stop, &mut tasks);
    assert_eq!(until_synced(&mut node).await.0.len(), 1);
    // Not this node's: it is not told.
    for name in ["two", "three"] {
        assert_eq!(api.json(Method::POST, PODS, pod(name)).await.0, 201);
    }
    api.compact().await;
    stop_first.cancel();
    assert_eq!(until_synced(&mut node).await, (vec![("one".to_owned(), false)], true));
    stop.cancel();
}

#[tokio::test]
async fn a_range_of_pod_addresses_left_behind_is_the_last_that_is_given_away() {
    // NOD-1
    let api = Api::new().await;
    let owner = |node: &str| json!({"node": node, "metadata": {}}).to_string();
    let key = |third: usize| format!("/trireme/podcidrs/10.244.{third}.0");
    for (third, name) in [(3, "there"), (7, "gone")] {
        api.put_raw(&key(third), owner(name)).await;
    }
    let there = json!({"metadata": {"name": "there"}});
    assert_eq!(api.json(Method::POST, "/api/v1/nodes", there).await.0, 201);
    let mut tasks = JoinSet::new();
    let (url, _stop_server) = serve(&api, &mut tasks).await;
    let stop = CancellationToken::new();
    let mut range_of = async |name: &str| {
        let mut node = named(name, std::slice::from_ref(&url), &stop, &mut tasks);
        loop {
            let told = timeout(Duration::from_secs(10), node.events.recv()).await.unwrap();
            if let FromControlPlane::Connected { pod_cidr, .. } = told.unwrap() {
                return pod_cidr;
            }
        }
    };
    let first = range_of("node-1").await;
    assert!(first != "10.244.3.0/24" && first != "10.244.7.0/24", "there are others: {first}");
    for third in 1..=255 {
        if api.store.view().get(key(third).as_bytes()).is_none() {
            api.put_raw(&key(third), owner("there")).await;
        }
    }
    assert_eq!(range_of("node-2").await, "10.244.7.0/24");
    let (_, node) = api.json(Method::GET, "/api/v1/nodes/node-2", Value::Null).await;
    assert_eq!(node["spec"]["podCIDR"], "10.244.7.0/24");
    // It comes back to its own.
    assert_eq!(range_of("node-1").await, first);
    stop.cancel();
}

#[tokio::test]
async fn what_is_deleted_of_a_node_comes_back_with_the_next_heartbeat_of_its_agent() {
    // DEL-54
    let api = Api::new().await;
    let mut tasks = JoinSet::new();
    let (url, _stop_server) = serve(&api, &mut tasks).await;
    let stop = CancellationToken::new();
    let mut node = node(&[url], &stop, &mut tasks);
    until_synced(&mut node).await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    for path in ["/api/v1/nodes/node-1".to_owned(), format!("{leases}/node-1")] {
        let (code, before) = api.json(Method::GET, &path, Value::Null).await;
        assert_eq!(code, 200, "{path}");
        assert_eq!(api.json(Method::DELETE, &path, Value::Null).await.0, 200);
        let gone = api.store.view().revision();
        api.store.wait_for(gone.next(), Duration::from_secs(10)).await.unwrap();
        let (code, now) = api.json(Method::GET, &path, Value::Null).await;
        assert_eq!(code, 200, "{path}");
        assert_ne!(now["metadata"]["uid"], before["metadata"]["uid"], "another object");
        assert_eq!(now["spec"], before["spec"], "{path}");
    }
    bound(&api, "later").await;
    let told = until_synced(&mut node).await;
    assert_eq!(told, (vec![("later".to_owned(), false)], false), "the same session goes on");
    stop.cancel();
}

#[tokio::test]
async fn an_agent_is_heard_again_after_one_that_is_gone_has_taken_over() {
    // FEN-27, FEN-30: what an agent sent before it was killed arrives after its successor has registered.
    let api = Api::new().await;
    let mut tasks = JoinSet::new();
    let (url, _stop) = serve(&api, &mut tasks).await;
    bound(&api, "p").await;
    let (_, pod) = api.json(Method::GET, &format!("{PODS}/p"), Value::Null).await;
    let stop = CancellationToken::new();
    let mut node = node(std::slice::from_ref(&url), &stop, &mut tasks);
    until_synced(&mut node).await;
    let ghost = |instance: &str, tasks: &mut JoinSet<()>| {
        let ends = CancellationToken::new();
        let object = json!({"metadata": {"name": "node-1"}, "status": {}});
        (agent(instance, object, std::slice::from_ref(&url), &ends, tasks), ends)
    };
    let (mut killed, ends) = ghost("killed", &mut tasks);
    until_synced(&mut killed).await;
    ends.cancel();
    let status = ToControlPlane::PodStatus {
        sequence: 1,
        namespace: "default".to_owned(),
        name: "p".to_owned(),
        uid: pod["metadata"]["uid"].as_str().unwrap().to_owned(),
        status: json!({"phase": "Running"}),
    };
    node.requests.send(status).await.unwrap();
    timeout(Duration::from_secs(10), acknowledged(&mut node, 1)).await.unwrap().unwrap();
    let (_, pod) = api.json(Method::GET, &format!("{PODS}/p"), Value::Null).await;
    assert_eq!(pod["status"]["phase"], "Running");

    // One that has nothing to say notices, too.
    let (mut killed, ends) = ghost("killed again", &mut tasks);
    until_synced(&mut killed).await;
    ends.cancel();
    let connected = async {
        while !matches!(node.events.recv().await.unwrap(), FromControlPlane::Connected { .. }) {}
    };
    timeout(Duration::from_secs(10), connected).await.unwrap();
    stop.cancel();
}

#[tokio::test]
async fn what_a_store_without_room_refuses_is_said_again_until_it_is_taken() {
    // DEL-30, NOD-22: the end of a Pod is shown before it goes
    let api = Api::new().await;
    let mut tasks = JoinSet::new();
    let (url, _stop) = serve(&api, &mut tasks).await;
    bound(&api, "p").await;
    let stop = CancellationToken::new();
    let mut node = node(&[url], &stop, &mut tasks);
    until_synced(&mut node).await;
    let mut shown = api.json(Method::GET, &format!("{PODS}/p"), Value::Null).await.1;
    let uid = shown["metadata"]["uid"].as_str().unwrap().to_owned();
    api.full(true).await;
    shown["status"]["phase"] = json!("Running");
    let path = format!("{PODS}/p/status");
    let (code, said) = api.json(Method::PUT, &path, shown).await;
    assert_eq!(code, 507, "{said}");
    let request = ToControlPlane::PodStatus {
        sequence: 7,
        namespace: "default".to_owned(),
        name: "p".to_owned(),
        uid,
        status: json!({"phase": "Failed"}),
    };
    node.requests.send(request).await.unwrap();
    let acknowledged = acknowledged(&mut node, 7);
    tokio::pin!(acknowledged);
    // A refusal that counts would be here long before.
    let early = timeout(Duration::from_secs(2), &mut acknowledged).await;
    assert!(early.is_err(), "{early:?}");
    api.full(false).await;
    timeout(Duration::from_secs(10), acknowledged).await.unwrap().unwrap();
    let (_, shown) = api.json(Method::GET, &format!("{PODS}/p"), Value::Null).await;
    assert_eq!(shown["status"]["phase"], "Failed", "{shown:#}");
    stop.cancel();
}
