//! Logs, exec and attach, and what a node says of itself: relayed to its kubelet.

use super::{Kube, Target};
use api::{kinds, meta, status::Status};
use axum::{
    body::Body,
    extract::Request,
    http::{Method, StatusCode, Uri, header, uri::Authority},
    response::Response,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A Pod's subresource, at the kubelet of its node.
pub(super) async fn to_kubelet(
    kube: &Kube,
    target: &Target,
    request: Request,
) -> Result<Response, Status> {
    let (namespace, name) = (&target.namespace, &target.name);
    let pod = kube.registry.get(target.kind, namespace, name, "").await?;
    let node = text(&pod, "/spec/nodeName");
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let container = container(&request, &pod)?;
    let verb =
        if target.subresource == "log" { "containerLogs" } else { target.subresource.as_str() };
    relay(kube, &node, &format!("/{verb}/{namespace}/{name}/{container}"), request).await
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What a node itself serves below `path`.
pub(super) async fn to_node(
    kube: &Kube,
    node: &str,
    path: &str,
    request: Request,
) -> Result<Response, Status> {
    if request.method() != Method::GET {
        let nodes = kinds::by_alias("nodes").expect("Node is served");
        return Err(Status::method_not_allowed(nodes, &request.method().as_str().to_lowercase()));
    }
    relay(kube, node, path, request).await
}

async fn relay(
    kube: &Kube,
    node_name: &str,
    path: &str,
    mut request: Request,
) -> Result<Response, Status> {
    let nodes = kinds::by_alias("nodes").expect("Node is served");
    let node = kube.registry.get(nodes, "", node_name, "0").await?;
    let address = node
        .pointer("/status/addresses")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|a| text(a, "/type") == "InternalIP")
        .map(|a| text(a, "/address"));
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    let (Some(address), Some(port)) = (address, port) else {
        return Err(Status::unavailable(format!("node {node_name} has not said where it listens")));
    };
    let authority = format!("{address}:{port}");
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    let path = format!("{path}{query}");
    let unreachable = |error: &dyn std::fmt::Display| {
        Status::internal(format!("node {node_name} at {authority} does not answer: {error}"))
    };
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(&authority))
        .await
        .map_err(|e| unreachable(&e))?
        .map_err(|e| unreachable(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| unreachable(&e))?;
    let upgrade = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    parts.uri = path.parse::<Uri>().map_err(|e| Status::bad_request(e.to_string()))?;
    parts.headers.insert(
        header::HOST,
        authority
            .parse::<Authority>()
            .ok()
            .and_then(|a| a.as_str().parse().ok())
            .ok_or_else(|| unreachable(&"its address is no host"))?,
    );
    // The connection lives as long as the two ends of the relay do, and no longer.
    #[expect(clippy::disallowed_methods, reason = "ends with the connection that it drives")]
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a kubelet");
        }
    });
    let mut answer =
        sender.send_request(Request::from_parts(parts, body)).await.map_err(|e| unreachable(&e))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let far = hyper::upgrade::on(&mut answer);
        #[expect(clippy::disallowed_methods, reason = "ends when either end of the relay closes")]
        tokio::spawn(async move {
            match futures::future::try_join(upgrade, far).await {
                Ok((near, far)) => {
                    let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
                Err(error) => tracing::debug!(%error, "upgrade to a kubelet"),
            }
        });
        let (parts, _) = answer.into_parts();
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    let (parts, body) = answer.into_parts();
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// The container asked for, or the only one.
fn container(request: &Request, pod: &Value) -> Result<String, Status> {
    let asked = super::query(request)?.get("container").cloned().unwrap_or_default();
    let names: Vec<String> = ["/spec/containers", "/spec/initContainers"]
        .iter()
        .filter_map(|pointer| pod.pointer(pointer)?.as_array())
        .flatten()
        .filter_map(|c| c.get("name")?.as_str().map(str::to_owned))
        .collect();
    let name = meta::name(pod);
    match (asked.is_empty(), names.as_slice()) {
        (true, [only]) => Ok(only.clone()),
        (true, many) => Err(Status::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            many.join(" ")
        ))),
        (false, names) if names.contains(&asked) => Ok(asked),
        (false, _) => {
            Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")))
        }
    }
}
