//! Leases: granted, kept alive, asked about, revoked.

use crate::{
    auth::Credentials,
    convert::number,
    core::{Core, patience},
    error,
    proto::etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
        LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, lease_server::Lease,
    },
};
use futures::{Stream, StreamExt as _};
use std::{pin::Pin, sync::Arc, time::Duration};
use store::{Access, LeaseId, Op};
use tonic::{Request, Response, Status, Streaming};

/// etcd's limit, seconds.
const TTL_MAX: i64 = 9_000_000_000;
/// For one renewal on a stream, which has no deadline of its own.
const RENEWAL: Duration = Duration::from_secs(5);

pub(crate) struct LeaseService(pub(crate) Arc<Core>);

#[tonic::async_trait]
impl Lease for LeaseService {
    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        if ttl > TTL_MAX {
            return Err(error::lease_ttl_too_large());
        }
        let ttl_seconds = ttl.max(self.0.config.lease_ttl_min_seconds);
        // Drawn here, so that apply has nothing to choose.
        let id = LeaseId(if id == 0 { rand::random_range(1..=i64::MAX) } else { id });
        let op = Op::LeaseGrant { id, ttl_seconds };
        let (revision, _) = self.0.carry_out(&who, op, patience).await?;
        Ok(Response::new(LeaseGrantResponse {
            header: self.0.header(revision),
            id: id.0,
            ttl: ttl_seconds,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let id = LeaseId(request.into_inner().id);
        let (revision, _) = self.0.carry_out(&who, Op::LeaseRevoke { id }, patience).await?;
        Ok(Response::new(LeaseRevokeResponse { header: self.0.header(revision) }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let core = Arc::clone(&self.0);
        let who = Credentials::of(&request);
        let answers = request.into_inner().then(move |request| {
            let (core, who) = (Arc::clone(&core), who.clone());
            async move {
                let id = request?.id;
                // Each time: it may have been revoked, or have got other keys, since.
                let (view, who) = core.read(&who, true, RENEWAL).await?;
                view.may_lease(&who, Access::Write, LeaseId(id)).map_err(error::of_auth)?;
                // Before the renewal: what the caller reads at this revision, the lease was alive at.
                let header = core.header_now();
                let ttl = core.store.renew_lease(LeaseId(id), RENEWAL).await;
                let ttl = ttl.map_err(error::of_store)?.unwrap_or_default();
                Ok(LeaseKeepAliveResponse { header, id, ttl })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let left = self.0.store.lease_left(LeaseId(id), patience).await.map_err(error::of_store)?;
        // Granted on the leader, it may not be here yet.
        let guarded = self.0.store.view().auth().is_enabled();
        let (view, who) = self.0.read(&who, left.is_some() && !guarded, patience).await?;
        if keys {
            view.may_lease(&who, Access::Read, LeaseId(id)).map_err(error::of_auth)?;
        } else {
            view.auth().check_known(&who).map_err(error::of_auth)?;
        }
        let lease = view.lease(LeaseId(id));
        let (Some(left), Some(lease)) = (left, lease) else {
            return Ok(Response::new(LeaseTimeToLiveResponse {
                header: self.0.header(view.revision()),
                id,
                ttl: -1,
                ..LeaseTimeToLiveResponse::default()
            }));
        };
        Ok(Response::new(LeaseTimeToLiveResponse {
            header: self.0.header(view.revision()),
            id,
            ttl: left,
            granted_ttl: lease.ttl_seconds,
            keys: if keys { view.lease_keys(LeaseId(id)) } else { Vec::new() },
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let who = Credentials::of(&request);
        let (view, who) = self.0.read(&who, false, patience(&request)).await?;
        view.auth().check_known(&who).map_err(error::of_auth)?;
        let leases = view.leases().into_iter().map(|lease| LeaseStatus { id: lease.id.0 });
        Ok(Response::new(LeaseLeasesResponse {
            header: self.0.header(view.revision()),
            leases: leases.collect(),
        }))
    }
}

/// Seconds of the shortest lease that a group with this election time can keep: a lease must outlive
/// a change of leaders.
#[must_use]
pub fn ttl_min_seconds(election: Duration) -> i64 {
    number((election * 3 / 2).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)).max(1)
}
