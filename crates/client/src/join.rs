//! How a machine comes to a cluster: what is asked, with a token, of a replica whose authority is pinned.

use crate::{
    ClientError,
    admin::refusal,
    endpoints::Endpoints,
    proto::cluster::{JoinNodeRequest, JoinReplicaRequest, join_service_client::JoinServiceClient},
    transport::{Bearer, channel},
};
use tonic::{service::interceptor::InterceptedService, transport::Channel};

/// What a node asks for.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// DNS names and addresses by which replicas reach it.
    pub hosts: Vec<String>,
    /// Signing requests, PEM: for what it shows to replicas, and to who asks it.
    pub client_request: String,
    /// See above.
    pub serving_request: String,
}

/// What a node is given.
#[derive(Debug, Clone)]
pub struct NodeCertificates {
    /// PEM; for replicas.
    pub client: String,
    /// PEM; for who asks it.
    pub serving: String,
    /// The authority's certificate, PEM.
    pub authority: String,
    /// URLs of the API.
    pub endpoints: Vec<String>,
}

/// A replica of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Empty until it has started.
    pub name: String,
    /// Of its raft listener.
    pub peer_url: String,
    /// Of its API; empty until it has started.
    pub api_url: String,
}

/// What a replica is given.
#[derive(Clone)]
pub struct Replica {
    /// Its own id.
    pub id: u64,
    /// All of them, this one included.
    pub members: Vec<Member>,
    /// PEM.
    pub authority: String,
    /// PEM.
    pub authority_key: String,
    /// PEM.
    pub service_account_key: String,
    /// TOML.
    pub shared_configuration: String,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("id", &self.id).finish_non_exhaustive()
    }
}

type JoinClient = JoinServiceClient<InterceptedService<Channel, Bearer>>;

async fn connect(endpoints: &Endpoints, url: &str) -> Result<JoinClient, ClientError> {
    let tuned = channel(url, &endpoints.access, |endpoint| {
        endpoint.connect_timeout(endpoints.connect_timeout).timeout(endpoints.deadline)
    });
    tuned.await.map(JoinServiceClient::new).map_err(|error| unreachable(url, error))
}

fn unreachable(url: &str, error: String) -> ClientError {
    ClientError::Unreachable { attempts: vec![crate::Attempt { endpoint: url.to_owned(), error }] }
}

fn failed(url: &str, status: &tonic::Status) -> ClientError {
    match refusal(url, status) {
        Ok(refused) => refused,
        Err(error) => unreachable(url, error),
    }
}

/// The first certificates of a node, from the replica at `url`.
///
/// # Errors
/// It does not answer, or refuses.
pub async fn node(
    endpoints: &Endpoints,
    url: &str,
    node: Node,
) -> Result<NodeCertificates, ClientError> {
    let Node { name, hosts, client_request, serving_request } = node;
    let request = JoinNodeRequest { name, hosts, client_request, serving_request };
    let answer = connect(endpoints, url).await?.join_node(request).await;
    let given = answer.map_err(|status| failed(url, &status))?.into_inner();
    Ok(NodeCertificates {
        client: given.client_certificate,
        serving: given.serving_certificate,
        authority: given.authority,
        endpoints: given.endpoints,
    })
}

/// Room for a replica, and what replicas share, from the replica at `url`.
///
/// # Errors
/// It does not answer, or refuses.
pub async fn replica(
    endpoints: &Endpoints,
    url: &str,
    name: &str,
    peer_url: &str,
) -> Result<Replica, ClientError> {
    let request = JoinReplicaRequest { name: name.to_owned(), peer_url: peer_url.to_owned() };
    let answer = connect(endpoints, url).await?.join_replica(request).await;
    let given = answer.map_err(|status| failed(url, &status))?.into_inner();
    let members = given.members.into_iter().map(|m| Member {
        id: m.id,
        name: m.name,
        peer_url: m.peer_url,
        api_url: m.api_url,
    });
    Ok(Replica {
        id: given.id,
        members: members.collect(),
        authority: given.authority,
        authority_key: given.authority_key,
        service_account_key: given.service_account_key,
        shared_configuration: given.shared_configuration,
    })
}
