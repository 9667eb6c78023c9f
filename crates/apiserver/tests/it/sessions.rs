//! A node's session is its own, over gRPC and TLS.

use crate::{
    PODS,
    pki::{Credential, Secured},
    pod,
};
use apiserver::AccessConfig;
use http::{Method, uri::PathAndQuery};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};
use tonic_prost::ProstCodec;

const SOON: Duration = Duration::from_secs(20);

/// As much of `node.proto` as is said here.
#[derive(Clone, PartialEq, prost::Message)]
struct FromNode {
    #[prost(message, optional, tag = "1")]
    hello: Option<Hello>,
    #[prost(message, optional, tag = "3")]
    pod_status: Option<PodStatus>,
    #[prost(message, optional, tag = "7")]
    fetch: Option<Fetch>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Hello {
    #[prost(string, tag = "1")]
    node: String,
    #[prost(string, tag = "2")]
    instance: String,
    #[prost(string, tag = "3")]
    machine_id: String,
    #[prost(bytes = "vec", tag = "5")]
    node_json: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodStatus {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    uid: String,
    #[prost(bytes = "vec", tag = "5")]
    status_json: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Fetch {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(string, tag = "2")]
    resource: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(bytes = "vec", tag = "5")]
    body_json: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ToNode {
    #[prost(message, optional, tag = "3")]
    synced: Option<Synced>,
    #[prost(message, optional, tag = "4")]
    ack: Option<Answer>,
    #[prost(message, optional, tag = "5")]
    refused: Option<Refused>,
    #[prost(message, optional, tag = "7")]
    fetched: Option<Fetched>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Synced {
    #[prost(uint64, tag = "1")]
    revision: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(uint32, tag = "3")]
    code: u32,
    #[prost(string, tag = "4")]
    message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Fetched {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(bytes = "vec", tag = "2")]
    object_json: Vec<u8>,
    #[prost(uint32, tag = "3")]
    code: u32,
    #[prost(string, tag = "4")]
    message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Refused {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    message: String,
}

struct Session {
    to: mpsc::Sender<FromNode>,
    from: Streaming<ToNode>,
}

async fn open(
    secured: &Secured,
    shown: &Credential,
    name: &str,
    node: Value,
) -> Result<Session, Status> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(secured.authority.pem()))
        .identity(Identity::from_pem(&shown.pem.0, &shown.pem.1));
    let endpoint = Channel::from_shared(format!("https://{}", secured.address)).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let (to, messages) = mpsc::channel(8);
    let hello = Hello {
        node: name.to_owned(),
        instance: "i".to_owned(),
        machine_id: "m".to_owned(),
        node_json: node.to_string().into_bytes(),
    };
    let hello = FromNode { hello: Some(hello), ..FromNode::default() };
    to.send(hello).await.unwrap();
    let path = PathAndQuery::from_static("/trireme.node.v1.NodeService/Session");
    let request = Request::new(ReceiverStream::new(messages));
    let from = grpc.streaming(request, path, ProstCodec::default()).await?.into_inner();
    Ok(Session { to, from })
}

impl Session {
    /// The next answer of a kind; what comes before it is passed over.
    async fn told<T>(&mut self, read: impl Fn(ToNode) -> Option<T>) -> T {
        loop {
            let message = timeout(SOON, self.from.message()).await.unwrap().unwrap().unwrap();
            assert!(message.refused.is_none() || read(message.clone()).is_some(), "{message:?}");
            if let Some(found) = read(message) {
                return found;
            }
        }
    }

    async fn status_of(&mut self, pod: &Value) -> u32 {
        let text = |key: &str| pod["metadata"][key].as_str().unwrap().to_owned();
        let status = PodStatus {
            sequence: 1,
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
            status_json: br#"{"phase": "Running"}"#.to_vec(),
        };
        let message = FromNode { pod_status: Some(status), ..FromNode::default() };
        self.to.send(message).await.unwrap();
        self.told(|message| message.ack).await.code
    }

    async fn fetch(&mut self, name: &str) -> u32 {
        self.ask("secrets", name, Value::Null).await.0
    }

    async fn ask(&mut self, resource: &str, name: &str, body: Value) -> (u32, Value) {
        let fetch = Fetch {
            sequence: 2,
            resource: resource.to_owned(),
            namespace: "default".to_owned(),
            name: name.to_owned(),
            body_json: if body.is_null() { Vec::new() } else { body.to_string().into() },
        };
        self.to.send(FromNode { fetch: Some(fetch), ..FromNode::default() }).await.unwrap();
        let fetched = self.told(|message| message.fetched).await;
        (fetched.code, serde_json::from_slice(&fetched.object_json).unwrap_or_default())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_of_the_node_in_the_certificate_and_for_its_pods() {
    // FEN-27, FEN-30
    let secured = Secured::new(AccessConfig::default()).await;
    let mut pods = Vec::new();
    for n in ["1", "2"] {
        let secret = json!({"metadata": {"name": format!("secret-{n}")}});
        let secrets = "/api/v1/namespaces/default/secrets";
        assert_eq!(secured.api.json(Method::POST, secrets, secret).await.0, 201);
        let mut object = pod(&format!("pod-{n}"));
        object["spec"]["nodeName"] = json!(format!("node-{n}"));
        object["spec"]["imagePullSecrets"] = json!([{"name": format!("secret-{n}")}]);
        let (code, made) = secured.api.json(Method::POST, PODS, object).await;
        assert_eq!(code, 201, "{made}");
        pods.push(made);
    }
    let nodes = &["system:nodes"][..];
    let own = secured.authority.client("system:node:node-1", nodes);
    let object = |name: &str| json!({"metadata": {"name": name}, "status": {}});
    let refused =
        async |shown: &Credential, name: &str, node: Value| match open(&secured, shown, name, node)
            .await
        {
            Ok(mut session) => session.told(|message| message.refused).await.code,
            Err(status) => match status.code() {
                tonic::Code::PermissionDenied => 403,
                other => panic!("{other:?}"),
            },
        };
    let user = secured.authority.client("alice", &[]);
    let master = secured.authority.client("root", &["system:masters"]);
    assert_eq!(refused(&user, "node-1", object("node-1")).await, 403);
    assert_eq!(refused(&master, "node-1", object("node-1")).await, 403);
    assert_eq!(refused(&own, "node-2", object("node-2")).await, 403);
    assert_eq!(refused(&own, "node-1", object("node-2")).await, 400);
    let reserved = json!({"metadata": {"name": "node-1", "labels": {"node-restriction.kubernetes.io/a": "b"}}});
    assert_eq!(refused(&own, "node-1", reserved).await, 403);
    assert_eq!(secured.api.json(Method::GET, "/api/v1/nodes/node-2", Value::Null).await.0, 404);

    let mut session = open(&secured, &own, "node-1", object("node-1")).await.unwrap();
    session.told(|message| message.synced).await;
    assert_eq!(session.status_of(&pods[0]).await, 0);
    assert_eq!(session.status_of(&pods[1]).await, 403);
    assert_eq!(session.fetch("secret-1").await, 0);
    assert_eq!(session.fetch("secret-2").await, 403);
    // One that is there already is brought up to date, but not with what is not a node's to say.
    let reserved = json!({"metadata": {"name": "node-1", "labels": {"node-restriction.kubernetes.io/a": "b"}}});
    assert_eq!(refused(&own, "node-1", reserved).await, 403);
    let (_, node) = secured.api.json(Method::GET, "/api/v1/nodes/node-1", Value::Null).await;
    assert_eq!(node["metadata"]["labels"]["node-restriction.kubernetes.io/a"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_gets_tokens_of_its_pods_accounts_bound_to_these_pods_and_no_others() {
    // SA-2
    let secured = Secured::new(crate::access::config()).await;
    let mut uids = Vec::new();
    for (name, node) in [("own", "node-1"), ("other", "node-2")] {
        let accounts = "/api/v1/namespaces/default/serviceaccounts";
        let account = json!({"metadata": {"name": format!("robot-{name}")}});
        assert_eq!(secured.api.json(Method::POST, accounts, account).await.0, 201);
        let mut object = pod(name);
        object["spec"]["nodeName"] = json!(node);
        object["spec"]["serviceAccountName"] = json!(format!("robot-{name}"));
        let (code, made) = secured.api.json(Method::POST, PODS, object).await;
        assert_eq!(code, 201, "{made}");
        uids.push(made["metadata"]["uid"].clone());
    }
    let shown = secured.authority.client("system:node:node-1", &["system:nodes"]);
    let node = json!({"metadata": {"name": "node-1"}, "status": {}});
    let mut session = open(&secured, &shown, "node-1", node).await.unwrap();
    session.told(|message| message.synced).await;
    let bound = |name: &str, uid: &Value| {
        let of = json!({"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid});
        json!({"spec": {"boundObjectRef": of, "expirationSeconds": 607}})
    };
    let tokens = "serviceaccounts/token";
    let (code, answer) = session.ask(tokens, "robot-own", bound("own", &uids[0])).await;
    assert_eq!(code, 0, "{answer}");
    assert_eq!(answer["spec"]["expirationSeconds"], 607);
    let token = answer["status"]["token"].as_str().unwrap();
    let review = json!({"spec": {"token": token}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (_, review) = secured.api.json(Method::POST, reviews, review).await;
    let user = &review["status"]["user"];
    assert_eq!(user["username"], "system:serviceaccount:default:robot-own", "{review}");
    let extra = &user["extra"]["authentication.kubernetes.io/pod-uid"];
    assert_eq!(extra, &json!([uids[0]]));
    for (name, account, body, want) in [
        ("another node's account", "robot-other", bound("other", &uids[1]), 403),
        ("another node's Pod", "robot-own", bound("other", &uids[1]), 400),
        ("bound to nothing", "robot-own", json!({"spec": {}}), 403),
        ("a namesake", "robot-own", bound("own", &json!("gone")), 409),
        ("an account of nobody's", "default", bound("own", &uids[0]), 403),
        ("no request", "robot-own", Value::Null, 400),
    ] {
        let (code, answer) = session.ask(tokens, account, body).await;
        assert_eq!(code, want, "{name}: {answer}");
    }
    let (code, _) = session.ask("configmaps/status", "x", Value::Null).await;
    assert_eq!(code, 400, "what is not for nodes");
}
