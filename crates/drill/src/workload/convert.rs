//! Requests and answers between the checkers' words and etcd's messages.

use checkers::history::{
    Answer, Body, Call, Compare, CompareOperator, CompareTarget, Event, Kv, Put, Range,
    RangeRequest, Step, StepAnswer, Txn,
};
use etcd::proto::{
    etcdserverpb::{
        self as wire, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget as WireTarget, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
    mvccpb::{self, KeyValue},
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// etcd counts in `i64` what is never below 0.
pub(super) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn header(header: Option<&wire::ResponseHeader>) -> u64 {
    header.map_or(0, |header| count(header.revision))
}

pub(super) fn kv(kv: KeyValue) -> Kv {
    Kv {
        key: text(&kv.key),
        value: text(&kv.value),
        create_revision: count(kv.create_revision),
        mod_revision: count(kv.mod_revision),
        version: count(kv.version),
        lease: count(kv.lease),
    }
}

pub(super) fn event(event: mvccpb::Event) -> Option<Event> {
    let deleted = event.r#type() == mvccpb::event::EventType::Delete;
    let kv = event.kv?;
    Some(Event {
        key: text(&kv.key),
        mod_revision: count(kv.mod_revision),
        value: (!deleted).then(|| text(&kv.value)),
        create_revision: if deleted { 0 } else { count(kv.create_revision) },
        version: if deleted { 0 } else { count(kv.version) },
        lease: if deleted { 0 } else { count(kv.lease) },
    })
}

pub(super) fn put(put: &Put) -> PutRequest {
    PutRequest {
        key: put.key.clone().into(),
        value: put.value.clone().into(),
        lease: signed(put.lease),
        ..PutRequest::default()
    }
}

pub(super) fn delete(range: &Range) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: range.key.clone().into(),
        range_end: range.end.clone().unwrap_or_default().into(),
        prev_kv: false,
    }
}

pub(super) fn range(request: &RangeRequest) -> wire::RangeRequest {
    wire::RangeRequest {
        key: request.range.key.clone().into(),
        range_end: request.range.end.clone().unwrap_or_default().into(),
        limit: signed(request.limit),
        revision: signed(request.revision),
        serializable: request.serializable,
        ..wire::RangeRequest::default()
    }
}

fn step(step: &Step) -> RequestOp {
    let request = match step {
        Step::Put(one) => Request::RequestPut(put(one)),
        Step::Delete(range) => Request::RequestDeleteRange(delete(range)),
        Step::Range(one) => Request::RequestRange(range(&RangeRequest {
            range: one.clone(),
            serializable: false,
            revision: 0,
            limit: 0,
        })),
    };
    RequestOp { request: Some(request) }
}

fn compare(compare: &Compare) -> wire::Compare {
    let (target, union) = match &compare.target {
        CompareTarget::Version(n) => (WireTarget::Version, TargetUnion::Version(signed(*n))),
        CompareTarget::CreateRevision(n) => {
            (WireTarget::Create, TargetUnion::CreateRevision(signed(*n)))
        }
        CompareTarget::ModRevision(n) => (WireTarget::Mod, TargetUnion::ModRevision(signed(*n))),
        CompareTarget::Value(value) => {
            (WireTarget::Value, TargetUnion::Value(value.clone().into()))
        }
        CompareTarget::Lease(n) => (WireTarget::Lease, TargetUnion::Lease(signed(*n))),
    };
    let result = match compare.operator {
        CompareOperator::Equal => CompareResult::Equal,
        CompareOperator::NotEqual => CompareResult::NotEqual,
        CompareOperator::Greater => CompareResult::Greater,
        CompareOperator::Less => CompareResult::Less,
    };
    wire::Compare {
        result: result.into(),
        target: target.into(),
        key: compare.key.clone().into(),
        range_end: bytes::Bytes::new(),
        target_union: Some(union),
    }
}

pub(super) fn txn(txn: &Txn) -> TxnRequest {
    TxnRequest {
        compare: txn.compare.iter().map(compare).collect(),
        success: txn.success.iter().map(step).collect(),
        failure: txn.failure.iter().map(step).collect(),
    }
}

pub(super) fn txn_answer(answer: TxnResponse) -> Answer {
    let revision = header(answer.header.as_ref());
    let steps = answer.responses.into_iter().filter_map(|response| {
        Some(match response.response? {
            Response::ResponseRange(range) => {
                StepAnswer::Range { kvs: range.kvs.into_iter().map(kv).collect() }
            }
            Response::ResponsePut(_) => StepAnswer::Put,
            Response::ResponseDeleteRange(deleted) => {
                StepAnswer::Deleted { count: count(deleted.deleted) }
            }
            // The load sends none inside another.
            Response::ResponseTxn(_) => return None,
        })
    });
    Answer { revision, body: Body::Txn { succeeded: answer.succeeded, steps: steps.collect() } }
}

/// Whether it may change something, so that a lost answer leaves it in doubt.
pub(super) fn is_write(call: &Call) -> bool {
    match call {
        Call::Put(_)
        | Call::Delete(_)
        | Call::Txn(_)
        | Call::LeaseGrant { .. }
        | Call::LeaseKeepAlive { .. }
        | Call::LeaseRevoke { .. }
        | Call::Compact { .. }
        | Call::Object(_) => true,
        Call::Range(_) => false,
    }
}
