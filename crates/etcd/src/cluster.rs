//! Members: listed, added, promoted, moved, removed.

use crate::{
    auth::Credentials,
    core::{Core, patience},
    error,
    proto::etcdserverpb::{
        Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
        MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
        MemberUpdateRequest, MemberUpdateResponse, cluster_server::Cluster,
    },
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use store::{MemberChange, MemberInfo};
use tonic::{Request, Response, Status};

pub(crate) struct ClusterService(pub(crate) Arc<Core>);

impl ClusterService {
    async fn change(
        &self,
        who: &Credentials,
        change: MemberChange,
        patience: Duration,
    ) -> Result<Vec<Member>, Status> {
        self.0.check_root(who, patience).await?;
        let members = self.0.cluster.change_members(change, patience).await;
        Ok(members.map_err(error::of_member)?.into_iter().map(member).collect())
    }
}

fn member(info: MemberInfo) -> Member {
    Member {
        id: info.id,
        name: info.name,
        peer_ur_ls: info.peer_urls,
        client_ur_ls: info.client_urls,
        is_learner: info.learner,
    }
}

/// # Errors
/// There are none, two are equal, or one is not `http(s)://HOST:PORT` and nothing more.
fn check_urls(urls: &[String]) -> Result<(), Status> {
    let distinct: BTreeSet<&String> = urls.iter().collect();
    let good = |url: &String| {
        url.parse::<::http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.port_u16().is_some()
                && matches!(uri.path(), "" | "/")
                && uri.query().is_none()
        })
    };
    if urls.is_empty() || distinct.len() != urls.len() || !urls.iter().all(good) {
        return Err(error::bad_member_urls());
    }
    Ok(())
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let MemberAddRequest { peer_ur_ls, is_learner } = request.into_inner();
        check_urls(&peer_ur_ls)?;
        let change = MemberChange::Add { peer_urls: peer_ur_ls.clone(), learner: is_learner };
        let members = self.change(&who, change, patience).await?;
        let member = members.iter().find(|member| member.peer_ur_ls == peer_ur_ls).cloned();
        Ok(Response::new(MemberAddResponse { header: self.0.header_now(), member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let change = MemberChange::Remove { id: request.into_inner().id };
        let members = self.change(&who, change, patience).await?;
        Ok(Response::new(MemberRemoveResponse { header: self.0.header_now(), members }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        check_urls(&peer_ur_ls)?;
        let change = MemberChange::Update { id, peer_urls: peer_ur_ls };
        let members = self.change(&who, change, patience).await?;
        Ok(Response::new(MemberUpdateResponse { header: self.0.header_now(), members }))
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        self.0.check_known(&who, patience).await?;
        let view = self.0.view(!request.into_inner().linearizable, patience).await?;
        let members = self.0.cluster.members().into_iter().map(member).collect();
        let header = self.0.header(view.revision());
        Ok(Response::new(MemberListResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let change = MemberChange::Promote { id: request.into_inner().id };
        let members = self.change(&who, change, patience).await?;
        Ok(Response::new(MemberPromoteResponse { header: self.0.header_now(), members }))
    }
}
