//! Wire messages to the store's values and back. Checks here what etcd checks before it proposes, with
//! its errors.

use crate::{
    error,
    proto::{
        etcdserverpb::{
            self as wire, compare, range_request, request_op::Request as RequestStep,
            response_op::Response as ResponseStep,
        },
        mvccpb,
    },
};
use store::{
    Compare, CompareOperator, CompareTarget, DeleteRange, Event, EventKind, KeyRange, KeyValue,
    LeaseId, Put, RangeRequest, RangeResult, Revision, Sort, SortTarget, Txn, TxnOp, TxnOpResult,
    TxnResult,
};
use tonic::Status;

/// A revision or a bound of one; at most 0 is "none".
fn revision(value: i64) -> Revision {
    Revision::new(u64::try_from(value).unwrap_or_default())
}

/// A number of the store on the wire. The store's own stay far below the limit.
pub(crate) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn range(request: wire::RangeRequest) -> Result<RangeRequest, Status> {
    if request.key.is_empty() {
        return Err(error::empty_key());
    }
    let order = range_request::SortOrder::try_from(request.sort_order);
    let target = range_request::SortTarget::try_from(request.sort_target);
    let (Ok(order), Ok(target)) = (order, target) else { return Err(error::invalid_sort()) };
    let target = match target {
        range_request::SortTarget::Key => SortTarget::Key,
        range_request::SortTarget::Version => SortTarget::Version,
        range_request::SortTarget::Create => SortTarget::CreateRevision,
        range_request::SortTarget::Mod => SortTarget::ModRevision,
        range_request::SortTarget::Value => SortTarget::Value,
    };
    let descending = order == range_request::SortOrder::Descend;
    // By key and ascending is how pairs come anyway; by anything else they are sorted even where no
    // order is named.
    let sort = (descending || target != SortTarget::Key).then_some(Sort { target, descending });
    Ok(RangeRequest {
        range: KeyRange::from_wire(request.key, request.range_end),
        revision: revision(request.revision),
        limit: u64::try_from(request.limit).unwrap_or_default(),
        sort,
        keys_only: request.keys_only,
        count_only: request.count_only,
        mod_revision: (revision(request.min_mod_revision), revision(request.max_mod_revision)),
        create_revision: (
            revision(request.min_create_revision),
            revision(request.max_create_revision),
        ),
    })
}

pub(crate) fn put(request: wire::PutRequest) -> Result<Put, Status> {
    let wire::PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease } = request;
    if key.is_empty() {
        return Err(error::empty_key());
    }
    if ignore_value && !value.is_empty() {
        return Err(error::value_provided());
    }
    if ignore_lease && lease != 0 {
        return Err(error::lease_provided());
    }
    Ok(Put { key, value, lease: LeaseId(lease), prev_kv, ignore_value, ignore_lease })
}

pub(crate) fn delete(request: wire::DeleteRangeRequest) -> Result<DeleteRange, Status> {
    if request.key.is_empty() {
        return Err(error::empty_key());
    }
    let range = KeyRange::from_wire(request.key, request.range_end);
    Ok(DeleteRange { range, prev_kv: request.prev_kv })
}

/// A transaction, and how it may be served.
pub(crate) struct ReadTxn {
    pub(crate) txn: Txn,
    /// Changes nothing, whichever way it goes.
    pub(crate) read_only: bool,
    /// Every range may be answered from a state that is behind.
    pub(crate) serializable: bool,
}

/// `ops_max` is for each list; a nested transaction has what its parent's longest list leaves.
pub(crate) fn txn(request: wire::TxnRequest, ops_max: usize) -> Result<ReadTxn, Status> {
    let mut kind = ReadTxn { txn: Txn::default(), read_only: true, serializable: true };
    kind.txn = nested(request, ops_max, &mut kind.read_only, &mut kind.serializable)?;
    if !kind.read_only {
        kind.txn.check().map_err(|rejection| error::of_rejection(&rejection))?;
    }
    Ok(kind)
}

fn nested(
    request: wire::TxnRequest,
    ops_max: usize,
    read_only: &mut bool,
    serializable: &mut bool,
) -> Result<Txn, Status> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let ops_left = ops_max.checked_sub(longest).ok_or_else(error::too_many_ops)?;
    let compare = request.compare.into_iter().map(self::compare).collect::<Result<_, _>>()?;
    let mut steps = |list: Vec<wire::RequestOp>| -> Result<Vec<TxnOp>, Status> {
        let mut step = |op: wire::RequestOp| {
            Ok(match op.request.ok_or_else(error::key_not_found)? {
                RequestStep::RequestRange(request) => {
                    *serializable &= request.serializable;
                    TxnOp::Range(range(request)?)
                }
                RequestStep::RequestPut(request) => {
                    *read_only = false;
                    TxnOp::Put(put(request)?)
                }
                RequestStep::RequestDeleteRange(request) => {
                    *read_only = false;
                    TxnOp::DeleteRange(delete(request)?)
                }
                RequestStep::RequestTxn(request) => {
                    TxnOp::Txn(nested(request, ops_left, read_only, serializable)?)
                }
            })
        };
        list.into_iter().map(&mut step).collect()
    };
    let success = steps(request.success)?;
    let failure = steps(request.failure)?;
    Ok(Txn { compare, success, failure })
}

fn compare(request: wire::Compare) -> Result<Compare, Status> {
    if request.key.is_empty() {
        return Err(error::empty_key());
    }
    let range = KeyRange::from_wire(request.key, request.range_end);
    let operator = match compare::CompareResult::try_from(request.result) {
        Ok(compare::CompareResult::Equal) => CompareOperator::Equal,
        Ok(compare::CompareResult::Greater) => CompareOperator::Greater,
        Ok(compare::CompareResult::Less) => CompareOperator::Less,
        Ok(compare::CompareResult::NotEqual) => CompareOperator::NotEqual,
        // etcd lets an operator that it does not know hold.
        Err(_) => return Ok(always(range, true)),
    };
    use compare::TargetUnion;
    let union = request.target_union;
    let numeric = |value: Option<i64>| u64::try_from(value.unwrap_or_default());
    let target = match compare::CompareTarget::try_from(request.target) {
        Ok(compare::CompareTarget::Value) => CompareTarget::Value(match union {
            Some(TargetUnion::Value(value)) => value,
            Some(_) | None => bytes::Bytes::new(),
        }),
        Ok(compare::CompareTarget::Lease) => CompareTarget::Lease(LeaseId(match union {
            Some(TargetUnion::Lease(lease)) => lease,
            Some(_) | None => 0,
        })),
        Ok(target) => {
            let value = match (target, union) {
                (compare::CompareTarget::Version, Some(TargetUnion::Version(value)))
                | (compare::CompareTarget::Create, Some(TargetUnion::CreateRevision(value)))
                | (compare::CompareTarget::Mod, Some(TargetUnion::ModRevision(value))) => {
                    Some(value)
                }
                (_, Some(_) | None) => None,
            };
            let Ok(value) = numeric(value) else {
                // Nothing stored is below 0.
                let above =
                    matches!(operator, CompareOperator::Greater | CompareOperator::NotEqual);
                return Ok(always(range, above));
            };
            match target {
                compare::CompareTarget::Create => {
                    CompareTarget::CreateRevision(Revision::new(value))
                }
                compare::CompareTarget::Mod => CompareTarget::ModRevision(Revision::new(value)),
                compare::CompareTarget::Version
                | compare::CompareTarget::Value
                | compare::CompareTarget::Lease => CompareTarget::Version(value),
            }
        }
        // etcd takes what it does not know to be equal.
        Err(_) => return Ok(always(range, operator == CompareOperator::Equal)),
    };
    Ok(Compare { range, operator, target })
}

/// A condition that holds, or does not, whatever is stored.
fn always(range: KeyRange, holds: bool) -> Compare {
    let operator = if holds { CompareOperator::NotEqual } else { CompareOperator::Equal };
    Compare { range, operator, target: CompareTarget::Version(u64::MAX) }
}

pub(crate) fn pair(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: number(kv.create_revision.get()),
        mod_revision: number(kv.mod_revision.get()),
        version: number(kv.version),
        value: kv.value,
        lease: kv.lease.0,
    }
}

pub(crate) fn event(event: &Event, prev_kv: bool) -> mvccpb::Event {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(pair((*event.kv).clone())),
        prev_kv: event.prev.as_deref().filter(|_| prev_kv).cloned().map(pair),
    }
}

pub(crate) fn range_response(
    header: Option<wire::ResponseHeader>,
    result: RangeResult,
) -> wire::RangeResponse {
    wire::RangeResponse {
        header,
        kvs: result.kvs.into_iter().map(pair).collect(),
        more: result.more,
        count: number(result.count),
    }
}

/// As etcd does, only the outermost answer has a whole header; those within say at which revision the
/// transaction was.
pub(crate) fn txn_response(
    header: Option<wire::ResponseHeader>,
    result: TxnResult,
    revision: Revision,
) -> wire::TxnResponse {
    let inner = || {
        Some(wire::ResponseHeader {
            revision: number(revision.get()),
            ..wire::ResponseHeader::default()
        })
    };
    let step = |step: TxnOpResult| {
        let response = match step {
            TxnOpResult::Range(result) => {
                ResponseStep::ResponseRange(range_response(inner(), result))
            }
            TxnOpResult::Put(prev) => ResponseStep::ResponsePut(wire::PutResponse {
                header: inner(),
                prev_kv: prev.map(pair),
            }),
            TxnOpResult::DeleteRange { deleted, prev_kvs } => {
                ResponseStep::ResponseDeleteRange(wire::DeleteRangeResponse {
                    header: inner(),
                    deleted: number(deleted),
                    prev_kvs: prev_kvs.into_iter().map(pair).collect(),
                })
            }
            TxnOpResult::Txn(result) => {
                ResponseStep::ResponseTxn(txn_response(inner(), result, revision))
            }
        };
        wire::ResponseOp { response: Some(response) }
    };
    let responses = result.results.into_iter().map(step).collect();
    wire::TxnResponse { header, succeeded: result.succeeded, responses }
}
