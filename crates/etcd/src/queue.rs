//! What locks and elections share: keys below a name, one for each lease, in the order in which they were
//! made. Whose key is the oldest is first.
//!
//! All writes and reads go through the services that any client would use, in the caller's name, so that
//! the same permissions hold.

use crate::{
    core::Core,
    error,
    kv::KvService,
    lease::LeaseService,
    proto::{
        etcdserverpb::{
            Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest,
            RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
            compare::{CompareResult, CompareTarget, TargetUnion},
            kv_server::Kv as _,
            lease_server::Lease as _,
            range_request::{SortOrder, SortTarget},
            request_op::Request as Step,
            response_op::Response as StepResponse,
        },
        mvccpb::KeyValue,
    },
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use store::{
    EventKind, KeyRange, RangeRequest as StoreRange, Revision, Sort, SortTarget as StoreTarget,
    watch::{WatchError, WatchMessage, WatchRequest, WatchSet},
};
use tonic::{Extensions, Request, Response, Status, metadata::MetadataMap};

/// Of the lease that is made for a caller without one, in seconds.
const SESSION_TTL: i64 = 60;
/// For this replica to see what it has just written.
const CATCH_UP: Duration = Duration::from_secs(7);

/// In whose name something is asked.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    metadata: MetadataMap,
    extensions: Extensions,
}

impl Caller {
    pub(crate) fn of<T>(request: Request<T>) -> (Self, T) {
        let (metadata, extensions, message) = request.into_parts();
        (Self { metadata, extensions }, message)
    }

    fn asks<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), self.extensions.clone(), message)
    }
}

/// A key in the queue.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) key: Bytes,
    /// In which it was made.
    pub(crate) revision: i64,
}

/// How one came into the queue.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) place: Place,
    pub(crate) header: Option<ResponseHeader>,
    /// The pair as it was, if the same lease had a place already.
    pub(crate) before: Option<KeyValue>,
}

#[derive(Clone)]
pub(crate) struct Queue {
    pub(crate) core: Arc<Core>,
    kv: Arc<KvService>,
    lease: Arc<LeaseService>,
}

fn op(step: Step) -> RequestOp {
    RequestOp { request: Some(step) }
}

/// A key of this revision is still there; 0: there is none.
fn unchanged(key: &Bytes, create_revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(create_revision)),
        range_end: Bytes::new(),
    }
}

/// Where the keys of a queue are.
pub(crate) fn keys(name: &[u8]) -> KeyRange {
    KeyRange::prefix([name, b"/"].concat())
}

/// The oldest key of a queue.
fn first(name: &[u8]) -> RangeRequest {
    let (key, range_end) = match keys(name) {
        KeyRange::Between { start, end } => (start, end),
        KeyRange::One(key) | KeyRange::From(key) => (key, Bytes::from_static(&[0])),
    };
    RangeRequest {
        key,
        range_end,
        limit: 1,
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        ..RangeRequest::default()
    }
}

/// As Go writes it: a negative number keeps its sign.
fn hex(lease: i64) -> String {
    let sign = if lease < 0 { "-" } else { "" };
    format!("{sign}{:x}", lease.unsigned_abs())
}

impl Queue {
    pub(crate) fn new(core: &Arc<Core>) -> Self {
        Self {
            core: Arc::clone(core),
            kv: Arc::new(KvService(Arc::clone(core))),
            lease: Arc::new(LeaseService(Arc::clone(core))),
        }
    }

    /// The caller's lease, or a new one if it has none: that one ends after a minute, since nobody
    /// renews it.
    pub(crate) async fn session(&self, caller: &Caller, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let grant = LeaseGrantRequest { ttl: SESSION_TTL, id: 0 };
        Ok(self.lease.lease_grant(caller.asks(grant)).await?.into_inner().id)
    }

    pub(crate) async fn txn(
        &self,
        caller: &Caller,
        request: TxnRequest,
    ) -> Result<TxnResponse, Status> {
        self.kv.txn(caller.asks(request)).await.map(Response::into_inner)
    }

    pub(crate) async fn delete(
        &self,
        caller: &Caller,
        key: Bytes,
    ) -> Result<Option<ResponseHeader>, Status> {
        let request = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
        Ok(self.kv.delete_range(caller.asks(request)).await?.into_inner().header)
    }

    /// The oldest key of a queue, if there is any.
    pub(crate) async fn first(
        &self,
        caller: &Caller,
        name: &[u8],
    ) -> Result<RangeResponse, Status> {
        self.kv.range(caller.asks(first(name))).await.map(Response::into_inner)
    }

    /// Takes a place at the end, or finds the one that the lease has.
    pub(crate) async fn join(
        &self,
        caller: &Caller,
        name: &[u8],
        lease: i64,
        value: Bytes,
    ) -> Result<Joined, Status> {
        let key = Bytes::from([name, b"/", hex(lease).as_bytes()].concat());
        let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
        let own = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        // That the caller may see the whole queue is asked, too: waiting in it shows something of it.
        let first = || op(Step::RequestRange(first(name)));
        let response = self
            .txn(
                caller,
                TxnRequest {
                    compare: vec![unchanged(&key, 0)],
                    success: vec![op(Step::RequestPut(put)), first()],
                    failure: vec![op(Step::RequestRange(own)), first()],
                },
            )
            .await?;
        let before = match response.responses.into_iter().next().and_then(|step| step.response) {
            Some(StepResponse::ResponseRange(range)) => range.kvs.into_iter().next(),
            Some(
                StepResponse::ResponsePut(_)
                | StepResponse::ResponseDeleteRange(_)
                | StepResponse::ResponseTxn(_),
            )
            | None => None,
        };
        let now = response.header.as_ref().map_or(0, |header| header.revision);
        let revision = before.as_ref().map_or(now, |kv| kv.create_revision);
        Ok(Joined { place: Place { key, revision }, header: response.header, before })
    }

    /// Waits until no key of the queue is older, and says so only while the place is still there: the
    /// lease may have ended meanwhile, and somebody else be first.
    ///
    /// # Errors
    /// `lost` when the place is gone.
    pub(crate) async fn wait(
        &self,
        caller: &Caller,
        name: &[u8],
        place: &Place,
        lost: fn() -> Status,
    ) -> Result<Option<ResponseHeader>, Status> {
        let made = Revision::new(u64::try_from(place.revision).unwrap_or_default());
        self.core.store.wait_for(made, CATCH_UP).await.map_err(error::of_store)?;
        let range = keys(name);
        loop {
            let view = self.core.store.view();
            let own = view.get(&place.key).filter(|own| own.create_revision == made);
            if own.is_none() {
                return Err(lost());
            }
            let ahead = StoreRange {
                range: range.clone(),
                revision: Revision::ZERO,
                limit: 1,
                sort: Some(Sort { target: StoreTarget::CreateRevision, descending: true }),
                keys_only: true,
                count_only: false,
                mod_revision: (Revision::ZERO, Revision::ZERO),
                create_revision: (Revision::ZERO, Revision::new(made.get().saturating_sub(1))),
            };
            let ahead = if made.get() > 1 {
                view.range(&ahead).map_err(|rejection| error::of_rejection(&rejection))?.kvs.pop()
            } else {
                None
            };
            let Some(ahead) = ahead else { break };
            let seen = view.revision();
            // It may be long.
            drop(view);
            self.change([&ahead.key, &place.key], seen).await?;
        }
        // By now another member may know better than the state here.
        let request = RangeRequest { key: place.key.clone(), ..RangeRequest::default() };
        let RangeResponse { header, kvs, .. } =
            self.kv.range(caller.asks(request)).await?.into_inner();
        if kvs.iter().any(|kv| kv.create_revision == place.revision) {
            Ok(header)
        } else {
            Err(lost())
        }
    }

    /// Waits until one of the keys may have gone after a revision.
    async fn change(&self, keys: [&Bytes; 2], after: Revision) -> Result<(), Status> {
        let mut watches = self.core.store.watch_set();
        for (id, key) in (0..).zip(keys) {
            let start = Revision::new(after.get() + 1);
            match watches.add(id, WatchRequest { range: KeyRange::One(key.clone()), start }) {
                Ok(_) => {}
                Err(WatchError::Stopped) => return Err(error::stopped()),
                // The state has moved on: look again.
                Err(WatchError::Compacted { .. } | WatchError::TooSlow { .. }) => return Ok(()),
            }
        }
        loop {
            match next(&mut watches).await? {
                Some(batch) if batch.iter().all(|event| event.kind == EventKind::Put) => {}
                Some(_) | None => return Ok(()),
            }
        }
    }

    /// Gives a place back when it is dropped, unless it is kept.
    pub(crate) fn guard(&self, caller: &Caller, place: &Place) -> Guard {
        Guard { held: Some((self.clone(), caller.clone(), place.clone())) }
    }

    /// Deletes the key if it is still the one that was made then.
    pub(crate) async fn leave(
        &self,
        caller: &Caller,
        place: Place,
    ) -> Result<Option<ResponseHeader>, Status> {
        let delete = DeleteRangeRequest { key: place.key.clone(), ..DeleteRangeRequest::default() };
        let request = TxnRequest {
            compare: vec![unchanged(&place.key, place.revision)],
            success: vec![op(Step::RequestDeleteRange(delete))],
            failure: Vec::new(),
        };
        Ok(self.txn(caller, request).await?.header)
    }

    /// Writes a value to the key if it is still the one that was made then; `None` if it is not.
    pub(crate) async fn rewrite(
        &self,
        caller: &Caller,
        place: &Place,
        lease: i64,
        value: Bytes,
    ) -> Result<Option<ResponseHeader>, Status> {
        let put = PutRequest { key: place.key.clone(), value, lease, ..PutRequest::default() };
        let request = TxnRequest {
            compare: vec![unchanged(&place.key, place.revision)],
            success: vec![op(Step::RequestPut(put))],
            failure: Vec::new(),
        };
        let response = self.txn(caller, request).await?;
        Ok(response.header.filter(|_| response.succeeded))
    }
}

/// The next events of any watch of a set; `None` when one has lost its place in history.
///
/// # Errors
/// The store is gone.
pub(crate) async fn next(
    watches: &mut WatchSet,
) -> Result<Option<Arc<[Arc<store::Event>]>>, Status> {
    loop {
        match watches.next().await {
            Some((_, WatchMessage::Events(batch))) => return Ok(Some(batch.events)),
            Some((_, WatchMessage::Canceled { reason: WatchError::Stopped, .. })) => {
                return Err(error::stopped());
            }
            Some((_, WatchMessage::Canceled { .. })) => return Ok(None),
            None => {}
        }
    }
}

/// A place of a caller that may go away while it waits.
pub(crate) struct Guard {
    held: Option<(Queue, Caller, Place)>,
}

impl Guard {
    /// The caller has it now.
    pub(crate) fn keep(mut self) {
        self.held = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some((queue, caller, place)) = self.held.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let key = place.key.clone();
            if let Err(status) = queue.leave(&caller, place).await {
                // It goes with its lease.
                tracing::debug!(?key, %status, "a place in a queue is left behind");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_written_as_go_writes_it() {
        for (lease, want) in [(0x77, "77"), (i64::MAX, "7fffffffffffffff"), (-5, "-5")] {
            assert_eq!(hex(lease), want);
        }
    }
}
