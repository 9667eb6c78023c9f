//! Locks: who is first in a queue holds it, until the key or its lease goes.

use crate::{
    error,
    proto::v3lockpb::{
        LockRequest, LockResponse, UnlockRequest, UnlockResponse, lock_server::Lock,
    },
    queue::{Caller, Queue},
};
use bytes::Bytes;
use tonic::{Request, Response, Status};

pub(crate) struct LockService(pub(crate) Queue);

impl LockService {
    async fn lock(&self, caller: &Caller, request: LockRequest) -> Result<LockResponse, Status> {
        let LockRequest { name, lease } = request;
        let lease = self.0.session(caller, lease).await?;
        let joined = self.0.join(caller, &name, lease, Bytes::new()).await?;
        // A caller that goes away while it waits must not come to hold it.
        let guard = self.0.guard(caller, &joined.place);
        let header = self.0.wait(caller, &name, &joined.place, error::session_expired).await?;
        guard.keep();
        Ok(LockResponse { header, key: joined.place.key })
    }
}

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (caller, request) = Caller::of(request);
        self.lock(&caller, request).await.map(Response::new).map_err(error::of_recipe)
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let (caller, UnlockRequest { key }) = Caller::of(request);
        let header = self.0.delete(&caller, key).await.map_err(error::of_recipe)?;
        Ok(Response::new(UnlockResponse { header }))
    }
}
