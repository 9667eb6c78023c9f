//! Elections.

use crate::support::{Member, SOON};
use etcd::proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ResignRequest, election_client::ElectionClient,
};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming, transport::Channel};

async fn elections(member: &Member) -> ElectionClient<Channel> {
    ElectionClient::new(member.channel().await)
}

fn candidate(lease: i64, value: &'static str) -> CampaignRequest {
    CampaignRequest { name: "crown".into(), lease, value: value.into() }
}

fn crown() -> LeaderRequest {
    LeaderRequest { name: "crown".into() }
}

fn said(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

async fn next_value(leaders: &mut Streaming<LeaderResponse>) -> String {
    let response = timeout(SOON, leaders.message()).await.unwrap().unwrap().unwrap();
    let kv = response.kv.unwrap();
    assert_eq!(response.header.unwrap().revision, kv.mod_revision);
    String::from_utf8(kv.value.to_vec()).unwrap()
}

#[tokio::test]
async fn one_leads_until_it_resigns_and_observers_see_all_that_is_proclaimed() {
    let member = Member::start().await;
    let mut elections = elections(&member).await;
    let mut leaders = elections.observe(crown()).await.unwrap().into_inner();
    let leases = [member.lease().await, member.lease().await];
    let CampaignResponse { leader, header } =
        elections.campaign(candidate(leases[0], "one")).await.unwrap().into_inner();
    let first = leader.unwrap();
    assert_eq!(first.key, format!("crown/{:x}", leases[0]));
    assert_eq!((first.name.as_ref(), first.lease), (&b"crown"[..], leases[0]));
    assert_eq!(first.rev, header.unwrap().revision);
    assert_eq!(next_value(&mut leaders).await, "one");

    let mut others = elections.clone();
    let second = tokio::spawn(async move { others.campaign(candidate(leases[1], "two")).await });
    member.keys(2).await;
    let proclaim = ProclaimRequest { leader: Some(first.clone()), value: "one more".into() };
    elections.proclaim(proclaim.clone()).await.unwrap();
    assert_eq!(next_value(&mut leaders).await, "one more");
    let leader = elections.leader(crown()).await.unwrap().into_inner().kv.unwrap();
    assert_eq!((leader.value.as_ref(), leader.lease), (&b"one more"[..], leases[0]));
    assert!(!second.is_finished());

    elections.resign(ResignRequest { leader: Some(first.clone()) }).await.unwrap();
    let second = timeout(SOON, second).await.unwrap().unwrap().unwrap().into_inner();
    assert_eq!(second.leader.unwrap().lease, leases[1]);
    // The second one's value is older than the lead.
    let response = timeout(SOON, leaders.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(response.kv.unwrap().value, "two");
    let status = elections.proclaim(proclaim).await.unwrap_err();
    assert_eq!(said(&status), (Code::Unknown, "election: not leader"));
    // Again does no harm.
    elections.resign(ResignRequest { leader: Some(first) }).await.unwrap();
    assert_eq!(member.key_count(), 1);
}

#[tokio::test]
async fn a_candidate_that_campaigns_again_says_its_new_value() {
    let member = Member::start().await;
    let mut elections = elections(&member).await;
    let lease = member.lease().await;
    let first = elections.campaign(candidate(lease, "one")).await.unwrap().into_inner();
    let again = elections.campaign(candidate(lease, "other")).await.unwrap().into_inner();
    assert_eq!(first.leader.unwrap().rev, again.leader.unwrap().rev);
    let leader = elections.leader(crown()).await.unwrap().into_inner().kv.unwrap();
    assert_eq!(leader.value, "other");
}

#[tokio::test]
async fn a_candidate_whose_lease_ends_does_not_come_to_lead() {
    let member = Member::start().await;
    let mut elections = elections(&member).await;
    let leases = [member.lease().await, member.lease().await];
    elections.campaign(candidate(leases[0], "one")).await.unwrap();
    let mut others = elections.clone();
    let second = tokio::spawn(async move { others.campaign(candidate(leases[1], "two")).await });
    member.keys(2).await;
    member.revoke(leases[1]).await;
    let status = timeout(SOON, second).await.unwrap().unwrap().unwrap_err();
    assert_eq!(said(&status), (Code::Unknown, "election: not leader"));
}

#[tokio::test]
async fn an_election_says_what_is_wrong_as_etcd_does() {
    let member = Member::start().await;
    let mut elections = elections(&member).await;
    let missing = (Code::Unknown, "\"leader\" field must be provided");
    let status = elections.leader(crown()).await.unwrap_err();
    assert_eq!(said(&status), (Code::Unknown, "election: no leader"));
    let status = elections.proclaim(ProclaimRequest::default()).await.unwrap_err();
    assert_eq!(said(&status), missing);
    let status = elections.resign(ResignRequest::default()).await.unwrap_err();
    assert_eq!(said(&status), missing);
    let status = elections.campaign(candidate(77, "v")).await.unwrap_err();
    assert_eq!(said(&status), (Code::Unknown, "etcdserver: requested lease not found"));
    let stranger = LeaderKey { key: "crown/1".into(), rev: 9, lease: 0, name: "crown".into() };
    let proclaim = ProclaimRequest { leader: Some(stranger), value: "v".into() };
    let status = elections.proclaim(proclaim).await.unwrap_err();
    assert_eq!(said(&status), (Code::Unknown, "election: not leader"));
    assert_eq!(member.key_count(), 0);
}
