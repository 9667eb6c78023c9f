//! Logs, exec, attach and ports, and what a node says of itself: relayed to its kubelet, whatever protocol
//! a connection is upgraded to.

use super::{Kube, Query, Target};
use crate::flow::Seat;
use api::{
    field::{FieldError, Path},
    kinds, meta,
    status::Status,
};
use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, Method, StatusCode, Uri, header, uri::Authority},
    response::Response,
};
use futures::{
    FutureExt as _,
    future::{Either, select},
};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use pki::Certificate;
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::{io, num::IntErrorKind, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use world::net::TcpStream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For a connection straight to a kubelet, before it is called as well.
const HEAD_START: Duration = Duration::from_millis(200);

/// Bytes that wait on their way through, in each direction.
const RELAY_BYTES: usize = 32 << 10;
/// Of what a kubelet says in place of a log.
const ERROR_BYTES_MAX: usize = 50 << 10;

/// A Pod's subresource, at the kubelet of its node (SUB-5).
pub(super) async fn to_kubelet(
    kube: &Kube,
    target: &Target,
    query: &Query,
    request: Request,
) -> Result<Response, Status> {
    let (namespace, name) = (&target.namespace, &target.name);
    let is_log = target.subresource == "log";
    if is_log {
        check_log_options(query, name)?;
    }
    let pod = kube.registry.get(&target.kind, namespace, name, "").await?;
    let path = match target.subresource.as_str() {
        "portforward" => format!("/portForward/{namespace}/{name}"),
        subresource => {
            let verb = if is_log { "containerLogs" } else { subresource };
            format!("/{verb}/{namespace}/{name}/{}", container(query, &pod)?)
        }
    };
    let node = text(&pod, "/spec/nodeName");
    if node.is_empty() && is_log {
        return Ok(plain_text(Body::empty()));
    }
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    if !is_log && !request.headers().contains_key(header::UPGRADE) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let answer = relay(kube, &node, &path, request).await?;
    if is_log && !answer.status().is_success() { Err(in_words(answer).await) } else { Ok(answer) }
}

fn plain_text(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// A kubelet's refusal of a log as a `Status`.
async fn in_words(answer: Response) -> Status {
    let code = answer.status();
    let body = axum::body::to_bytes(answer.into_body(), ERROR_BYTES_MAX).await;
    let text = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
    match code {
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        StatusCode::NOT_FOUND => Status::new(404, "NotFound", text),
        _ => Status::internal(text),
    }
}

/// Numbers and times, before anybody is asked for a log.
fn check_log_options(query: &Query, name: &str) -> Result<(), Status> {
    let number = |key: &str| -> Result<Option<i64>, Status> {
        let Some(text) = query.get(key).filter(|text| !text.is_empty()) else { return Ok(None) };
        let parsed = text.parse().map_err(|error: std::num::ParseIntError| {
            let out_of_range =
                matches!(error.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow);
            let why = if out_of_range { "value out of range" } else { "invalid syntax" };
            Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
        });
        parsed.map(Some)
    };
    let (tail, bytes) = (number("tailLines")?, number("limitBytes")?);
    let since = number("sinceSeconds")?;
    let since_time = query.get("sinceTime").filter(|text| !text.is_empty());
    if let Some(text) = since_time
        && meta::parse_time(text).is_none()
    {
        let layout = "2006-01-02T15:04:05Z07:00";
        return Err(Status::bad_request(format!(
            "parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""
        )));
    }
    let mut errors = Vec::new();
    let mut at_least = |key: &str, value: Option<i64>, least: i64, why: &str| {
        if let Some(value) = value.filter(|value| *value < least) {
            errors.push(FieldError::invalid(&Path::new(key), value, why));
        }
    };
    at_least("tailLines", tail, 0, "must be greater than or equal to 0");
    at_least("limitBytes", bytes, 1, "must be greater than 0");
    at_least("sinceSeconds", since, 1, "must be greater than 0");
    if since.is_some() && since_time.is_some() {
        let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(FieldError::forbidden(&Path::new(""), why));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid_named("", "PodLogOptions", name, &errors))
    }
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
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port");
    let port = port.and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    let (Some(address), Some(port)) = (address, port) else {
        return Err(Status::unavailable(format!("node {node_name} has not said where it listens")));
    };
    let authority = format!("{address}:{port}");
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    let path = format!("{path}{query}");
    let unreachable = |error: &dyn std::fmt::Display| {
        Status::internal(format!("node {node_name} at {authority} does not answer: {error}"))
    };
    let stream = reach(kube, node_name, &address, port).await.map_err(|e| unreachable(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| unreachable(&e))?;
    let upgrade = hyper::upgrade::on(&mut request);
    let seat = request.extensions_mut().remove::<Arc<Seat>>();
    let (mut parts, body) = request.into_parts();
    parts.uri = path.parse::<Uri>().map_err(|e| Status::bad_request(e.to_string()))?;
    // They are for this server; a node is not to act in the caller's name.
    parts.headers.remove(header::AUTHORIZATION);
    parts.headers.remove(header::COOKIE);
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
            let _seat = seat;
            match futures::future::try_join(upgrade, far).await {
                Ok((near, far)) => {
                    let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
                    // Whatever the protocol is; the end of one direction leaves the other open.
                    let (out, back) = (RELAY_BYTES, RELAY_BYTES);
                    let _ = copy_bidirectional_with_sizes(&mut near, &mut far, out, back).await;
                }
                Err(error) => tracing::debug!(%error, "upgrade to a kubelet"),
            }
        });
        let (parts, _) = answer.into_parts();
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    let (parts, body) = answer.into_parts();
    // As long as the answer goes on.
    let body = body.map_frame(move |frame| {
        let _ = &seat;
        frame
    });
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// How kubelets are talked with: one connection for each request, since it may be upgraded.
pub(crate) fn over_tls(config: &rustls::ClientConfig) -> TlsConnector {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to a kubelet: straight to its address, or, where that is slow to come about or does not, because of NAT
/// or a firewall, by calling it.
async fn reach(kube: &Kube, node: &str, address: &str, port: u16) -> io::Result<Box<dyn Io>> {
    let tls = kube.kubelets.as_ref();
    let straight = timeout(CONNECT_TIMEOUT, async {
        let stream = TcpStream::connect(address, port).await?;
        let _ = stream.set_nodelay(true);
        is_of_node(node, address, stream, tls).await
    });
    let mut straight = pin!(straight.map(|connected| connected.map_err(io::Error::from).flatten()));
    let failed = match timeout(HEAD_START, &mut straight).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    };
    let call = timeout(CONNECT_TIMEOUT, async {
        is_of_node(node, address, kube.calls.call(node).await?, tls).await
    });
    let call = pin!(call.map(|connected| connected.map_err(io::Error::from).flatten()));
    let (error, called) = match failed {
        Some(error) => (error, call.await),
        None => match select(straight, call).await {
            Either::Left((Ok(stream), _)) | Either::Right((Ok(stream), _)) => return Ok(stream),
            Either::Left((Err(error), call)) => (error, call.await),
            Either::Right((Err(called), straight)) => match straight.await {
                Ok(stream) => return Ok(stream),
                Err(error) => (error, Err(called)),
            },
        },
    };
    called.map_err(|called| io::Error::new(error.kind(), format!("{error}; called, {called}")))
}

/// The kubelet's certificate must be valid for the address that its node has in the API, and be that node's: what
/// is sent to it is not for another one that has come to the address.
async fn is_of_node(
    node: &str,
    address: &str,
    stream: impl Io + 'static,
    tls: Option<&TlsConnector>,
) -> io::Result<Box<dyn Io>> {
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(address.to_owned()).map_err(io::Error::other)?;
    let stream = tls.connect(name, stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let shown = shown.map(|der| Certificate::from_der(der, "the kubelet's certificate"));
    let shown = shown.transpose().map_err(io::Error::other)?;
    let name = shown.map(|certificate| certificate.profile.common_name).unwrap_or_default();
    let own = pki::names::node_user(node);
    if name != own {
        return Err(io::Error::other(format!("its certificate is {name:?}, not {own:?}")));
    }
    Ok(Box::new(stream))
}

/// The container asked for, or the only one.
fn container(query: &Query, pod: &Value) -> Result<String, Status> {
    let asked = query.get("container").map_or("", String::as_str);
    let names = |pointer: &str| -> Vec<String> {
        let list = pod.pointer(pointer).and_then(Value::as_array);
        let names = list.into_iter().flatten().filter_map(|c| c.get("name")?.as_str());
        names.map(str::to_owned).collect()
    };
    let (all, inits) = (names("/spec/containers"), names("/spec/initContainers"));
    let name = meta::name(pod);
    if asked.is_empty() {
        return match all.as_slice() {
            [only] => Ok(only.clone()),
            many => {
                let mut text = format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    many.join(" ")
                );
                if !inits.is_empty() {
                    let inits = inits.join(" ");
                    text.push_str(&format!(" or one of the init containers: [{inits}]"));
                }
                Err(Status::bad_request(text))
            }
        };
    }
    let ephemeral = names("/spec/ephemeralContainers");
    if all.iter().chain(&inits).chain(&ephemeral).any(|known| known == asked) {
        return Ok(asked.to_owned());
    }
    Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn query(pairs: &[(&str, &str)]) -> Query {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[tokio::test]
    async fn a_kubelet_shows_the_certificate_of_its_own_node() {
        use pki::{
            Authority, Moment, Profile,
            names::node_user,
            tls::{Clients, Pem, Shown},
        };
        let (then, century) = (Moment(1_577_836_800), Duration::from_secs(100 * 365 * 24 * 3600));
        let authority = Authority::create("kubernetes", then, century).unwrap();
        let bytes = |pem: &str| Pem::Bytes(pem.as_bytes().to_vec());
        let hosts = vec!["127.0.0.1".to_owned()];
        let pem = authority.issue(&Profile::server(node_user("a"), hosts), then, century).unwrap();
        let shown = Shown { chain: bytes(&pem), key: bytes(&pem) };
        let server = pki::tls::server(shown, Clients::Unasked).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(server);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let trusting = over_tls(&pki::tls::client(bytes(authority.pem()), None).unwrap());
        let asked = async |node: &str| {
            let serve = async {
                let (stream, _) = listener.accept().await.unwrap();
                let _ = acceptor.accept(stream).await;
            };
            let connect = async {
                let stream = TcpStream::connect("127.0.0.1", port).await?;
                is_of_node(node, "127.0.0.1", stream, Some(&trusting)).await
            };
            let (connected, ()) = tokio::join!(connect, serve);
            connected.map(drop).map_err(|error| error.to_string())
        };
        asked("a").await.unwrap();
        let refused = asked("b").await.unwrap_err();
        assert_eq!(refused, r#"its certificate is "system:node:a", not "system:node:b""#);
    }

    #[test]
    fn a_container_is_named_or_the_only_one() {
        // SUB-5
        let one = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
        let two = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        for (pod, asked, want) in [
            (&one, "", Ok("a")),
            (&one, "i", Ok("i")),
            (&two, "b", Ok("b")),
            (&two, "c", Err("container c is not valid for pod p")),
            (
                &two,
                "",
                Err(
                    "a container name must be specified for pod p, choose one of: [a b] or one of \
                     the init containers: [i]",
                ),
            ),
        ] {
            let found = container(&query(&[("container", asked)]), pod);
            let found = found.as_deref().map_err(|status| status.message.as_str());
            assert_eq!(found, want, "{asked}");
        }
    }

    #[test]
    fn what_is_asked_of_a_log_makes_sense() {
        // SUB-5
        for (pairs, want) in [
            (vec![("tailLines", "0"), ("limitBytes", "1"), ("sinceSeconds", "1")], None),
            (vec![("sinceTime", "2026-11-28T12:00:00Z"), ("tailLines", "")], None),
            (
                vec![("tailLines", "x")],
                Some((400, "strconv.ParseInt: parsing \"x\": invalid syntax")),
            ),
            (
                vec![("sinceTime", "noon")],
                Some((
                    400,
                    "parsing time \"noon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"noon\" \
                     as \"2006\"",
                )),
            ),
            (
                vec![("tailLines", "-1")],
                Some((
                    422,
                    "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater \
                     than or equal to 0",
                )),
            ),
            (
                vec![("limitBytes", "0")],
                Some((
                    422,
                    "PodLogOptions \"p\" is invalid: limitBytes: Invalid value: 0: must be greater \
                     than 0",
                )),
            ),
        ] {
            let found = check_log_options(&query(&pairs), "p").err();
            let found = found.as_ref().map(|status| (status.code, status.message.as_str()));
            assert_eq!(found, want, "{pairs:?}");
        }
    }
}
