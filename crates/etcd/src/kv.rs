//! Keys: read, write, delete, transactions, compaction.

use crate::{
    auth::Credentials,
    convert,
    core::{Core, patience},
    error,
    proto::etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
        PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
        kv_server::Kv,
    },
};
use futures::{Stream, stream};
use std::{pin::Pin, sync::Arc, time::Duration};
use store::{
    Access, KeyRange, Op, Outcome, RangeResult, Revision, Txn, TxnOp, TxnOpResult, TxnResult,
    state::View,
};
use tonic::{Request, Response, Status};

/// Pairs in one piece of a streamed range.
const STREAM_PAIRS: u64 = 1000;

pub(crate) struct KvService(pub(crate) Arc<Core>);

impl KvService {
    /// One step, and what came of it.
    async fn write(
        &self,
        who: &Credentials,
        step: TxnOp,
        patience: Duration,
    ) -> Result<(Revision, TxnOpResult), Status> {
        let txn = Txn { success: vec![step], ..Txn::default() };
        let (revision, outcome) = self.0.carry_out(who, Op::Txn(txn), patience).await?;
        let Outcome::Txn(TxnResult { mut results, .. }) = outcome else {
            return Err(Status::internal(format!("a write answered with {outcome:?}")));
        };
        let result = results.pop().ok_or_else(|| Status::internal("a write without a result"))?;
        Ok((revision, result))
    }

    async fn read(&self, request: Request<RangeRequest>) -> Result<(View, RangeResult), Status> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let request = request.into_inner();
        let serializable = request.serializable;
        let range = convert::range(request)?;
        let (view, who) = self.0.read(&who, serializable, patience).await?;
        view.auth().check(&who, Access::Read, &range.range).map_err(error::of_auth)?;
        let result = view.range(&range).map_err(|rejection| error::of_rejection(&rejection))?;
        Ok((view, result))
    }
}

fn unexpected(result: &TxnOpResult) -> Status {
    Status::internal(format!("a write answered with {result:?}"))
}

#[tonic::async_trait]
impl Kv for KvService {
    type RangeStreamStream =
        Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send>>;

    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let (view, result) = self.read(request).await?;
        let header = self.0.header(view.revision());
        Ok(Response::new(convert::range_response(header, result)))
    }

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let request = request.into_inner();
        let serializable = request.serializable;
        let mut range = convert::range(request)?;
        let filters = [range.mod_revision, range.create_revision];
        if range.sort.is_some() || filters.iter().any(|f| *f != Default::default()) {
            return Err(Status::invalid_argument(
                "etcdserver: a streamed range is in key order and has no filters",
            ));
        }
        let (view, who) = self.0.read(&who, serializable, patience).await?;
        view.auth().check(&who, Access::Read, &range.range).map_err(error::of_auth)?;
        let header = self.0.header(view.revision());
        // All pieces from one state, whatever is written meanwhile.
        let limit = range.limit;
        let mut sent = 0;
        let mut total = None;
        let mut done = false;
        let pieces = stream::iter(std::iter::from_fn(move || {
            if done {
                return None;
            }
            let left = if limit == 0 { u64::MAX } else { limit - sent };
            range.limit = left.min(STREAM_PAIRS);
            let mut piece = match view.range(&range) {
                Ok(piece) => piece,
                Err(rejection) => {
                    done = true;
                    return Some(Err(error::of_rejection(&rejection)));
                }
            };
            // Of the whole range, which later pieces see only a part of.
            let count = *total.get_or_insert(piece.count);
            sent += piece.kvs.len() as u64;
            done = !piece.more || sent == limit;
            match piece.kvs.last() {
                Some(last) => range.range = behind(&range.range, &last.key),
                None => done = true,
            }
            let mut response = if done {
                piece.count = count;
                convert::range_response(header, piece)
            } else {
                convert::range_response(None, RangeResult { count: 0, more: false, ..piece })
            };
            response.more &= done;
            Some(Ok(RangeStreamResponse { range_response: Some(response) }))
        }));
        Ok(Response::new(Box::pin(pieces)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let request = request.into_inner();
        self.0.check_size(&request)?;
        let put = convert::put(request)?;
        match self.write(&who, TxnOp::Put(put), patience).await? {
            (revision, TxnOpResult::Put(prev)) => Ok(Response::new(PutResponse {
                header: self.0.header(revision),
                prev_kv: prev.map(convert::pair),
            })),
            (_, other) => Err(unexpected(&other)),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let request = request.into_inner();
        self.0.check_size(&request)?;
        let delete = convert::delete(request)?;
        match self.write(&who, TxnOp::DeleteRange(delete), patience).await? {
            (revision, TxnOpResult::DeleteRange { deleted, prev_kvs }) => {
                Ok(Response::new(DeleteRangeResponse {
                    header: self.0.header(revision),
                    deleted: convert::number(deleted),
                    prev_kvs: prev_kvs.into_iter().map(convert::pair).collect(),
                }))
            }
            (_, other) => Err(unexpected(&other)),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let request = request.into_inner();
        self.0.check_size(&request)?;
        let convert::ReadTxn { txn, read_only, serializable } =
            convert::txn(request, self.0.config.max_txn_ops)?;
        let (revision, result) = if read_only {
            // Nothing to replicate: answered from the state, like a range.
            let (view, who) = self.0.read(&who, serializable, patience).await?;
            view.may_txn(&who, &txn).map_err(error::of_auth)?;
            let result = view.read(&txn).map_err(|rejection| error::of_rejection(&rejection))?;
            (view.revision(), result)
        } else {
            match self.0.carry_out(&who, Op::Txn(txn), patience).await? {
                (revision, Outcome::Txn(result)) => (revision, result),
                (_, other) => {
                    return Err(Status::internal(format!("a transaction answered with {other:?}")));
                }
            }
        };
        let header = self.0.header(revision);
        Ok(Response::new(convert::txn_response(header, result, revision)))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let (who, patience) = (Credentials::of(&request), patience(&request));
        let CompactionRequest { revision, physical } = request.into_inner();
        // A revision below 0 was forgotten long ago.
        let revision = Revision::new(u64::try_from(revision).unwrap_or_default());
        let (revision, _) = self.0.carry_out(&who, Op::Compact { revision }, patience).await?;
        if physical {
            self.0.store.swept(patience).await.map_err(error::of_store)?;
        }
        Ok(Response::new(CompactionResponse { header: self.0.header(revision) }))
    }
}

/// What is left of a range behind one of its keys.
fn behind(range: &KeyRange, key: &[u8]) -> KeyRange {
    let start = [key, &[0]].concat().into();
    match range {
        // Nothing, but a range all the same.
        KeyRange::One(_) => KeyRange::Between { end: bytes::Bytes::clone(&start), start },
        KeyRange::Between { end, .. } => KeyRange::Between { start, end: end.clone() },
        KeyRange::From(_) => KeyRange::From(start),
    }
}
