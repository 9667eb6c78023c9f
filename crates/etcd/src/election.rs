//! Elections: who is first in a queue leads, and its value is what it says of itself.

use crate::{
    convert, error,
    proto::{
        etcdserverpb::{RangeResponse, ResponseHeader},
        mvccpb::KeyValue,
        v3electionpb::{
            CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse,
            ProclaimRequest, ProclaimResponse, ResignRequest, ResignResponse,
            election_server::Election,
        },
    },
    queue::{self, Caller, Place, Queue},
};
use bytes::Bytes;
use futures::{Stream, stream};
use std::{collections::VecDeque, pin::Pin};
use store::{EventKind, KeyRange, Revision, watch::WatchRequest, watch::WatchSet};
use tonic::{Request, Response, Status};

pub(crate) struct ElectionService(pub(crate) Queue);

fn place(leader: &LeaderKey) -> Place {
    Place { key: leader.key.clone(), revision: leader.rev }
}

impl ElectionService {
    async fn campaign(
        &self,
        caller: &Caller,
        request: CampaignRequest,
    ) -> Result<CampaignResponse, Status> {
        let CampaignRequest { name, lease, value } = request;
        let lease = self.0.session(caller, lease).await?;
        let joined = self.0.join(caller, &name, lease, value.clone()).await?;
        let Place { key, revision } = joined.place.clone();
        // A candidate that goes away while it waits must not come to lead.
        let guard = self.0.guard(caller, &joined.place);
        if joined.before.is_some_and(|before| before.value != value) {
            let written = self.0.rewrite(caller, &joined.place, lease, value).await?;
            written.ok_or_else(error::not_elected)?;
        }
        self.0.wait(caller, &name, &joined.place, error::not_elected).await?;
        guard.keep();
        let leader = LeaderKey { name, key, rev: revision, lease };
        Ok(CampaignResponse { header: joined.header, leader: Some(leader) })
    }

    async fn proclaim(
        &self,
        caller: &Caller,
        request: ProclaimRequest,
    ) -> Result<ProclaimResponse, Status> {
        let leader = request.leader.ok_or_else(error::leader_key_missing)?;
        let lease = self.0.session(caller, leader.lease).await?;
        let header = self.0.rewrite(caller, &place(&leader), lease, request.value).await?;
        Ok(ProclaimResponse { header: Some(header.ok_or_else(error::not_elected)?) })
    }

    async fn resign(
        &self,
        caller: &Caller,
        request: ResignRequest,
    ) -> Result<ResignResponse, Status> {
        let leader = request.leader.ok_or_else(error::leader_key_missing)?;
        // One that leads no more has resigned already.
        Ok(ResignResponse { header: self.0.leave(caller, place(&leader)).await? })
    }
}

#[tonic::async_trait]
impl Election for ElectionService {
    type ObserveStream = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send>>;

    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let (caller, request) = Caller::of(request);
        self.campaign(&caller, request).await.map(Response::new).map_err(error::of_recipe)
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let (caller, request) = Caller::of(request);
        self.proclaim(&caller, request).await.map(Response::new).map_err(error::of_recipe)
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let (caller, request) = Caller::of(request);
        self.resign(&caller, request).await.map(Response::new).map_err(error::of_recipe)
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let (caller, LeaderRequest { name }) = Caller::of(request);
        let RangeResponse { header, kvs, .. } =
            self.0.first(&caller, &name).await.map_err(error::of_recipe)?;
        let kv = Some(kvs.into_iter().next().ok_or_else(error::no_elected_leader)?);
        Ok(Response::new(LeaderResponse { header, kv }))
    }

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let (caller, LeaderRequest { name }) = Caller::of(request);
        let queue = self.0.clone();
        let observer = Observer { queue, caller, name, following: None, ready: VecDeque::new() };
        let leaders = stream::unfold(Some(observer), |observer| async {
            let mut observer = observer?;
            match observer.next().await {
                Ok(response) => Some((Ok(response), Some(observer))),
                Err(status) => Some((Err(error::of_recipe(status)), None)),
            }
        });
        Ok(Response::new(Box::pin(leaders)))
    }
}

/// Who follows an election: every leader from now on, and what it says, in order.
struct Observer {
    queue: Queue,
    caller: Caller,
    name: Bytes,
    /// The present leader's key.
    following: Option<WatchSet>,
    ready: VecDeque<LeaderResponse>,
}

impl Observer {
    async fn next(&mut self) -> Result<LeaderResponse, Status> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Ok(response);
            }
            let Some(watches) = &mut self.following else {
                self.find().await?;
                continue;
            };
            let Some(events) = queue::next(watches).await? else {
                self.following = None;
                continue;
            };
            for event in events.iter() {
                match event.kind {
                    EventKind::Put => {
                        let header = self.queue.core.header(event.kv.mod_revision);
                        let kv = Some(convert::pair((*event.kv).clone()));
                        self.ready.push_back(LeaderResponse { header, kv });
                    }
                    EventKind::Delete => self.following = None,
                }
            }
        }
    }

    /// The leader, or the first one to come.
    async fn find(&mut self) -> Result<(), Status> {
        let RangeResponse { header, kvs, .. } = self.queue.first(&self.caller, &self.name).await?;
        let now = header.as_ref().map_or(0, |header| header.revision);
        match kvs.into_iter().next() {
            Some(kv) => self.follow(header, kv, now),
            None => {
                let Some(mut watches) = self.watch(queue::keys(&self.name), now)? else {
                    return Ok(());
                };
                // Who comes first leads, and goes through the same again if it has gone meanwhile.
                while let Some(events) = queue::next(&mut watches).await? {
                    if let Some(put) = events.iter().find(|event| event.kind == EventKind::Put) {
                        let revision = put.kv.mod_revision;
                        let header = self.queue.core.header(revision);
                        let kv = convert::pair((*put.kv).clone());
                        return self.follow(header, kv, convert::number(revision.get()));
                    }
                }
                Ok(())
            }
        }
    }

    fn follow(
        &mut self,
        header: Option<ResponseHeader>,
        kv: KeyValue,
        now: i64,
    ) -> Result<(), Status> {
        self.following = self.watch(KeyRange::One(kv.key.clone()), now)?;
        self.ready.push_back(LeaderResponse { header, kv: Some(kv) });
        Ok(())
    }

    /// `None` when what came after the revision is forgotten already.
    fn watch(&self, range: KeyRange, after: i64) -> Result<Option<WatchSet>, Status> {
        let mut watches = self.queue.core.store.watch_set();
        let start = Revision::new(u64::try_from(after).unwrap_or_default() + 1);
        match watches.add(0, WatchRequest { range, start }) {
            Ok(_) => Ok(Some(watches)),
            Err(store::watch::WatchError::Stopped) => Err(error::stopped()),
            Err(_) => Ok(None),
        }
    }
}
