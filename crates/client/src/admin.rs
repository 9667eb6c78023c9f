//! What operators ask of the group, over any endpoint.

use crate::{
    Attempt, ClientError,
    endpoints::Endpoints,
    proto::cluster::{
        AddMemberRequest, BackupRequest, MembersRequest, MembersResponse, PromoteMemberRequest,
        RemoveMemberRequest, ReplaceMemberRequest, StatusRequest, TransferLeaderRequest,
        admin_service_client::AdminServiceClient, replace_member_response::Step,
    },
    transport::{Access, Bearer, channel},
};
use serde::Serialize;
use std::time::Duration;
use tonic::{service::interceptor::InterceptedService, transport::Channel};

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
    /// `ok`, `stalled` or `full`.
    pub disk: String,
    /// How often its disk has stalled since its start.
    pub disk_stalls: u64,
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

/// For all of a backup, and a disk that is slow.
const BACKUP_DEADLINE: Duration = Duration::from_secs(3600);

type AdminClient = AdminServiceClient<InterceptedService<Channel, Bearer>>;

async fn connect(url: &str, access: &Access) -> Result<AdminClient, String> {
    connect_for(url, access, Duration::from_secs(10)).await
}

async fn connect_for(
    url: &str,
    access: &Access,
    deadline: Duration,
) -> Result<AdminClient, String> {
    let tuned = channel(url, access, |endpoint| {
        endpoint.connect_timeout(Duration::from_secs(1)).timeout(deadline)
    });
    tuned.await.map(AdminServiceClient::new)
}

/// Asks the first endpoint that answers.
///
/// # Errors
/// [`ClientError::Unreachable`] with every endpoint and why.
pub async fn status(endpoints: &Endpoints) -> Result<ClusterStatus, ClientError> {
    let mut attempts = Vec::new();
    for endpoint in &endpoints.urls {
        let error = match connect(endpoint, &endpoints.access).await {
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
                disk: m.disk,
                disk_stalls: m.disk_stalls,
                reachable: m.reachable,
            })
            .collect(),
    }
}

/// A member as the log has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Raft member id.
    pub id: u64,
    /// For people; empty until it has started.
    pub name: String,
    /// Of its raft listener.
    pub peer_urls: Vec<String>,
    /// Of its etcd v3 API.
    pub client_urls: Vec<String>,
    /// Receives the log, does not vote.
    pub learner: bool,
}

/// A change of the membership, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// Who is in it?
    List,
    /// A new member, to be started then.
    Add {
        /// Of its raft listener.
        peer_urls: Vec<String>,
        /// Does not vote until it is promoted.
        learner: bool,
    },
    /// Takes a member out for ever.
    Remove(u64),
    /// Lets a learner vote.
    Promote(u64),
}

/// How far a replacement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// The new member's id: it is to be started.
    Added(u64),
    /// It has started and receives the log.
    Started(u64),
    /// It votes.
    Promoted(u64),
    /// The old member is out for ever.
    Removed(u64),
}

/// A refusal is the API's word; anything else means that the endpoint did not answer.
pub(crate) fn refusal(endpoint: &str, status: &tonic::Status) -> Result<ClientError, String> {
    use tonic::Code;
    if matches!(status.code(), Code::DeadlineExceeded | Code::Unknown | Code::Cancelled) {
        let error = status.message().to_owned();
        return Ok(ClientError::Unknown { endpoint: endpoint.to_owned(), error });
    }
    let known = [
        (Code::Unauthenticated, 401, "Unauthorized"),
        (Code::PermissionDenied, 403, "Forbidden"),
        (Code::NotFound, 404, "NotFound"),
        (Code::AlreadyExists, 409, "AlreadyExists"),
        (Code::FailedPrecondition, 412, "PreconditionFailed"),
        (Code::InvalidArgument, 422, "Invalid"),
    ];
    let Some((_, code, reason)) = known.into_iter().find(|(code, ..)| *code == status.code())
    else {
        return Err(status.message().to_owned());
    };
    let status = api::status::Status::new(code, reason, status.message());
    Ok(ClientError::Api(status))
}

/// Changes the membership through the first endpoint that answers; the members afterwards.
///
/// # Errors
/// It was refused, nobody answers, or the outcome is unknown.
pub async fn members(
    endpoints: &Endpoints,
    change: &MemberChange,
) -> Result<Vec<Member>, ClientError> {
    let mut attempts = Vec::new();
    for endpoint in &endpoints.urls {
        let error = match connect(endpoint, &endpoints.access).await {
            Ok(mut client) => {
                let answer = match change.clone() {
                    MemberChange::List => client.members(MembersRequest {}).await,
                    MemberChange::Add { peer_urls, learner } => {
                        client.add_member(AddMemberRequest { peer_urls, learner }).await
                    }
                    MemberChange::Remove(id) => {
                        client.remove_member(RemoveMemberRequest { id }).await
                    }
                    MemberChange::Promote(id) => {
                        client.promote_member(PromoteMemberRequest { id }).await
                    }
                };
                match answer {
                    Ok(answer) => return Ok(listed(answer.into_inner())),
                    Err(status) => match refusal(endpoint, &status) {
                        Ok(refused) => return Err(refused),
                        Err(error) => error,
                    },
                }
            }
            Err(error) => error,
        };
        attempts.push(Attempt { endpoint: endpoint.clone(), error });
    }
    Err(ClientError::Unreachable { attempts })
}

fn listed(answer: MembersResponse) -> Vec<Member> {
    let members = answer.members.into_iter().map(|m| Member {
        id: m.id,
        name: m.name,
        peer_urls: m.peer_urls,
        client_urls: m.client_urls,
        learner: m.learner,
    });
    members.collect()
}

/// Replaces the member `old` by a new one at `peer_url`, and tells how far it is.
///
/// # Errors
/// As [`members`]; and when the replica that sees to it went away: ask again, it goes on.
pub async fn replace_member(
    endpoints: &Endpoints,
    old: u64,
    peer_url: &str,
    deadline: Duration,
    mut told: impl FnMut(Replaced),
) -> Result<(), ClientError> {
    let mut attempts = Vec::new();
    for endpoint in &endpoints.urls {
        let request = ReplaceMemberRequest {
            old,
            peer_urls: vec![peer_url.to_owned()],
            deadline_seconds: deadline.as_secs(),
        };
        let error = match connect_for(
            endpoint,
            &endpoints.access,
            deadline + Duration::from_secs(30),
        )
        .await
        {
            Ok(mut client) => match client.replace_member(request).await {
                Ok(answer) => {
                    let mut steps = answer.into_inner();
                    loop {
                        match steps.message().await {
                            Ok(Some(step)) => match step.step {
                                Some(Step::Added(id)) => told(Replaced::Added(id)),
                                Some(Step::Started(id)) => told(Replaced::Started(id)),
                                Some(Step::Promoted(id)) => told(Replaced::Promoted(id)),
                                Some(Step::Removed(id)) => {
                                    told(Replaced::Removed(id));
                                    return Ok(());
                                }
                                None => {}
                            },
                            Ok(None) => break "it stopped halfway; ask again".to_owned(),
                            Err(status) => match refusal(endpoint, &status) {
                                Ok(refused) => return Err(refused),
                                Err(error) => break error,
                            },
                        }
                    }
                }
                Err(status) => match refusal(endpoint, &status) {
                    Ok(refused) => return Err(refused),
                    Err(error) => error,
                },
            },
            Err(error) => error,
        };
        attempts.push(Attempt { endpoint: endpoint.clone(), error });
    }
    Err(ClientError::Unreachable { attempts })
}

/// Why a backup was not taken.
#[derive(Debug)]
pub enum BackupFailure<E> {
    /// No replica gave a whole one.
    Client(ClientError),
    /// Whoever was to keep it could not.
    Keeper(E),
}

/// Everything that was acknowledged before, as a backup file has it, from the first endpoint that gives
/// all of it. `begin` makes a keeper, for each that begins; `keep` gives it a piece.
///
/// # Errors
/// See [`BackupFailure`].
pub async fn backup<K, E>(
    endpoints: &Endpoints,
    mut begin: impl FnMut() -> Result<K, E>,
    mut keep: impl FnMut(&mut K, &[u8]) -> Result<(), E>,
) -> Result<K, BackupFailure<E>> {
    let mut attempts = Vec::new();
    for endpoint in &endpoints.urls {
        let error = match connect_for(endpoint, &endpoints.access, BACKUP_DEADLINE).await {
            Ok(mut client) => match client.backup(BackupRequest {}).await {
                Ok(answer) => {
                    let mut pieces = answer.into_inner();
                    let mut keeper = begin().map_err(BackupFailure::Keeper)?;
                    let mut left = u64::MAX;
                    loop {
                        match pieces.message().await {
                            Ok(Some(answer)) => {
                                left = answer.remaining_bytes;
                                keep(&mut keeper, &answer.piece).map_err(BackupFailure::Keeper)?;
                            }
                            Ok(None) if left == 0 => return Ok(keeper),
                            Ok(None) => break "it stopped halfway".to_owned(),
                            Err(status) => break status.message().to_owned(),
                        }
                    }
                }
                Err(status) => status.message().to_owned(),
            },
            Err(error) => error,
        };
        attempts.push(Attempt { endpoint: endpoint.clone(), error });
    }
    Err(BackupFailure::Client(ClientError::Unreachable { attempts }))
}

/// Asks the leader to hand over; who leads then.
///
/// # Errors
/// Nobody answers, or nobody took over.
pub async fn transfer_leader(endpoints: &Endpoints, to: Option<u64>) -> Result<u64, ClientError> {
    let now = status(endpoints).await?;
    let leader = now.members.iter().find(|m| m.id == now.leader);
    let url = leader.map(|m| m.client_url.clone()).unwrap_or_default();
    let failed = |error: String| ClientError::Unreachable {
        attempts: vec![Attempt { endpoint: url.clone(), error }],
    };
    let mut client = connect(&url, &endpoints.access).await.map_err(failed)?;
    let request = TransferLeaderRequest { to: to.unwrap_or_default() };
    let answer = client.transfer_leader(request).await;
    answer.map(|a| a.into_inner().leader).map_err(|s| failed(s.message().to_owned()))
}
