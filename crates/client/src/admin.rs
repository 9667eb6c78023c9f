//! What operators ask of the group, over any endpoint.

use crate::{
    Attempt, ClientError,
    proto::cluster::{
        StatusRequest, TransferLeaderRequest, admin_service_client::AdminServiceClient,
    },
};
use serde::Serialize;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// One member, as the asked replica knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Raft member id.
    pub id: u64,
    /// For people.
    pub name: String,
    /// Where its API is.
    pub client_url: String,
    /// `leader`, `follower`, `candidate`, `learner` or `unknown`.
    pub role: String,
    /// Raft term there.
    pub term: u64,
    /// Applied raft index there.
    pub applied_index: u64,
    /// Store revision there.
    pub revision: u64,
    /// Rolling state hash, in hex.
    pub state_hash: String,
    /// 99 of 100 log syncs took at most this many microseconds.
    pub sync_p99_us: u64,
    /// Log syncs since its start.
    pub syncs: u64,
    /// Log entries since its start.
    pub appended: u64,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// Whether it answered.
    pub reachable: bool,
}

/// The group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// For ever the same, in hex.
    pub cluster_id: String,
    /// Who leads; 0 when nobody is known to.
    pub leader: u64,
    /// Current epoch.
    pub epoch: u64,
    /// By id.
    pub members: Vec<MemberStatus>,
}

async fn connect(url: &str) -> Result<AdminServiceClient<Channel>, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|e| e.to_string())?;
    let endpoint =
        endpoint.connect_timeout(Duration::from_secs(1)).timeout(Duration::from_secs(10));
    endpoint.connect().await.map(AdminServiceClient::new).map_err(|e| {
        let mut cause: &dyn std::error::Error = &e;
        while let Some(source) = cause.source() {
            cause = source;
        }
        cause.to_string()
    })
}

/// Asks the first endpoint that answers.
///
/// # Errors
/// [`ClientError::Unreachable`] with every endpoint and why.
pub async fn status(endpoints: &[String]) -> Result<ClusterStatus, ClientError> {
    let mut attempts = Vec::new();
    for endpoint in endpoints {
        let error = match connect(endpoint).await {
            Ok(mut client) => match client.status(StatusRequest {}).await {
                Ok(answer) => return Ok(read(answer.into_inner())),
                Err(status) => status.message().to_owned(),
            },
            Err(error) => error,
        };
        attempts.push(Attempt { endpoint: endpoint.clone(), error });
    }
    Err(ClientError::Unreachable { attempts })
}

fn read(answer: crate::proto::cluster::StatusResponse) -> ClusterStatus {
    ClusterStatus {
        cluster_id: format!("{:016x}", answer.cluster_id),
        leader: answer.leader,
        epoch: answer.epoch,
        members: answer
            .members
            .into_iter()
            .map(|m| MemberStatus {
                id: m.id,
                name: m.name,
                client_url: m.client_url,
                role: m.role,
                term: m.term,
                applied_index: m.applied_index,
                revision: m.revision,
                state_hash: format!("{:016x}", m.state_hash),
                sync_p99_us: m.sync_p99_us,
                syncs: m.syncs,
                appended: m.appended,
                rss_bytes: m.rss_bytes,
                reachable: m.reachable,
            })
            .collect(),
    }
}

/// Asks the leader to hand over; who leads then.
///
/// # Errors
/// Nobody answers, or nobody took over.
pub async fn transfer_leader(endpoints: &[String], to: Option<u64>) -> Result<u64, ClientError> {
    let now = status(endpoints).await?;
    let leader = now.members.iter().find(|m| m.id == now.leader);
    let url = leader.map(|m| m.client_url.clone()).unwrap_or_default();
    let failed = |error: String| ClientError::Unreachable {
        attempts: vec![Attempt { endpoint: url.clone(), error }],
    };
    let mut client = connect(&url).await.map_err(failed)?;
    let request = TransferLeaderRequest { to: to.unwrap_or_default() };
    let answer = client.transfer_leader(request).await;
    answer.map(|a| a.into_inner().leader).map_err(|s| failed(s.message().to_owned()))
}
