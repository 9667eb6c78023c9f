//! Requests of a soak: what they ask for, and what of their answers is looked at.

use super::{
    keys::{Change, Key, PREFIX_END, Revision, Values, Write},
    ledger::Quiet,
};
use crate::wire::{CallError, Connection, frame, path};
use bytes::Bytes;
use etcd::proto::{
    etcdserverpb::{
        Compare, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse,
        LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest,
        RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse, compare, request_op,
        response_op,
    },
    mvccpb::KeyValue,
};
use serde::Serialize;
use tokio::time::Instant;

/// Long enough that no lease ends by itself while its key is drawn now and then, at ten requests a second, too.
pub(super) const TTL_SECONDS: i64 = 3600;
/// Keys of a page.
pub(super) const PAGE: i64 = 50;

/// What a report calls a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Put,
    Delete,
    Txn,
    Get,
    Serializable,
    Page,
    Grant,
    LeasedPut,
    Revoke,
}

impl Kind {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Txn => "txn",
            Self::Get => "get",
            Self::Serializable => "serializable get",
            Self::Page => "page",
            Self::Grant => "lease grant",
            Self::LeasedPut => "put with lease",
            Self::Revoke => "lease revoke",
        }
    }
}

/// What is asked for.
#[derive(Debug)]
pub(super) enum Asked {
    Put {
        write: Write,
    },
    Delete,
    /// Writes if the key's `mod_revision` is `compared`, otherwise reads.
    Txn {
        write: Write,
        compared: Revision,
    },
    Get {
        serializable: bool,
    },
    /// From the key on; with what was quiet there, if it is linearizable.
    Page {
        quiet: Option<Vec<(Key, Quiet)>>,
    },
    Grant {
        lease: i64,
    },
    LeasedPut {
        write: Write,
        lease: i64,
    },
    Revoke {
        lease: i64,
    },
}

/// One that is under way.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) key: Key,
    pub(super) asked: Asked,
    /// The largest revision of any linearizable answer before it was sent.
    pub(super) seen: Revision,
    pub(super) at: Instant,
}

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) header: Revision,
    /// Something was written or deleted.
    pub(super) changed: bool,
    pub(super) kvs: Vec<KeyValue>,
    /// There are more than these.
    pub(super) more: bool,
}

impl Request {
    pub(super) fn kind(&self) -> Kind {
        match self.asked {
            Asked::Put { .. } => Kind::Put,
            Asked::Delete => Kind::Delete,
            Asked::Txn { .. } => Kind::Txn,
            Asked::Get { serializable: false } => Kind::Get,
            Asked::Get { serializable: true } => Kind::Serializable,
            Asked::Page { .. } => Kind::Page,
            Asked::Grant { .. } => Kind::Grant,
            Asked::LeasedPut { .. } => Kind::LeasedPut,
            Asked::Revoke { .. } => Kind::Revoke,
        }
    }

    /// What it does to its key, if it does anything.
    pub(super) fn change(&self) -> Option<Change> {
        match self.asked {
            Asked::Put { write } | Asked::LeasedPut { write, .. } | Asked::Txn { write, .. } => {
                Some(Change::Put(write))
            }
            Asked::Delete | Asked::Revoke { .. } => Some(Change::Delete),
            Asked::Get { .. } | Asked::Page { .. } | Asked::Grant { .. } => None,
        }
    }

    /// Whether its answer must hold everything that was acknowledged before it was sent.
    pub(super) fn is_linearizable(&self) -> bool {
        match &self.asked {
            Asked::Get { serializable } => !serializable,
            Asked::Page { quiet } => quiet.is_some(),
            Asked::Put { .. }
            | Asked::Delete
            | Asked::Txn { .. }
            | Asked::Grant { .. }
            | Asked::LeasedPut { .. }
            | Asked::Revoke { .. } => true,
        }
    }

    /// Whether nobody else touches the key meanwhile.
    pub(super) fn takes_its_key(&self) -> bool {
        match self.asked {
            Asked::Get { serializable } => !serializable,
            Asked::Page { .. } => false,
            Asked::Put { .. }
            | Asked::Delete
            | Asked::Txn { .. }
            | Asked::Grant { .. }
            | Asked::LeasedPut { .. }
            | Asked::Revoke { .. } => true,
        }
    }

    /// The request as it is sent.
    pub(super) fn message(&self, values: &Values) -> (Kind, Bytes) {
        let name = self.key.name();
        let put = |write, lease| {
            let (key, value) = (name.clone(), values.of(self.key, write));
            PutRequest { key, value, lease, ..PutRequest::default() }
        };
        let get = |serializable| RangeRequest {
            key: name.clone(),
            serializable,
            ..RangeRequest::default()
        };
        let message = match &self.asked {
            Asked::Put { write } => frame(&put(*write, 0)),
            Asked::LeasedPut { write, lease } => frame(&put(*write, *lease)),
            Asked::Delete => {
                frame(&DeleteRangeRequest { key: name, ..DeleteRangeRequest::default() })
            }
            Asked::Txn { write, compared } => {
                let compare = Compare {
                    result: compare::CompareResult::Equal.into(),
                    target: compare::CompareTarget::Mod.into(),
                    key: name.clone(),
                    target_union: Some(compare::TargetUnion::ModRevision(compared.0)),
                    ..Compare::default()
                };
                let step = |request| vec![RequestOp { request: Some(request) }];
                frame(&TxnRequest {
                    compare: vec![compare],
                    success: step(request_op::Request::RequestPut(put(*write, 0))),
                    failure: step(request_op::Request::RequestRange(get(false))),
                })
            }
            Asked::Get { serializable } => frame(&get(*serializable)),
            Asked::Page { quiet } => frame(&RangeRequest {
                range_end: PREFIX_END.into(),
                limit: PAGE,
                ..get(quiet.is_none())
            }),
            Asked::Grant { lease } => frame(&LeaseGrantRequest { id: *lease, ttl: TTL_SECONDS }),
            Asked::Revoke { lease } => frame(&LeaseRevokeRequest { id: *lease }),
        };
        (self.kind(), message)
    }
}

/// Sends a request and waits for its answer.
///
/// # Errors
/// There is none, or a refusal.
pub(super) async fn ask(
    connection: &Connection,
    (kind, message): (Kind, Bytes),
) -> Result<Answer, CallError> {
    let path = match kind {
        Kind::Put | Kind::LeasedPut => path::PUT,
        Kind::Delete => path::DELETE_RANGE,
        Kind::Txn => path::TXN,
        Kind::Get | Kind::Serializable | Kind::Page => path::RANGE,
        Kind::Grant => path::LEASE_GRANT,
        Kind::Revoke => path::LEASE_REVOKE,
    };
    let bytes = connection.route(path).call(message).await?;
    read(kind, bytes)
}

fn read(kind: Kind, bytes: Bytes) -> Result<Answer, CallError> {
    use prost::Message as _;
    let header = |header: Option<ResponseHeader>| Revision(header.map_or(0, |h| h.revision));
    Ok(match kind {
        Kind::Put | Kind::LeasedPut => {
            let header = header(PutResponse::decode(bytes)?.header);
            Answer { header, changed: true, ..Answer::default() }
        }
        Kind::Delete => {
            let answer = DeleteRangeResponse::decode(bytes)?;
            let (header, changed) = (header(answer.header), answer.deleted > 0);
            Answer { header, changed, ..Answer::default() }
        }
        Kind::Txn => {
            let answer = TxnResponse::decode(bytes)?;
            let ranges = answer.responses.into_iter().filter_map(|step| match step.response? {
                response_op::Response::ResponseRange(range) => Some(range.kvs),
                response_op::Response::ResponsePut(_)
                | response_op::Response::ResponseDeleteRange(_)
                | response_op::Response::ResponseTxn(_) => None,
            });
            let kvs = ranges.flatten().collect();
            Answer { header: header(answer.header), changed: answer.succeeded, kvs, more: false }
        }
        Kind::Get | Kind::Serializable | Kind::Page => {
            let answer = RangeResponse::decode(bytes)?;
            let (header, kvs, more) = (header(answer.header), answer.kvs, answer.more);
            Answer { header, changed: false, kvs, more }
        }
        Kind::Grant => {
            let header = header(LeaseGrantResponse::decode(bytes)?.header);
            Answer { header, ..Answer::default() }
        }
        Kind::Revoke => {
            let header = header(LeaseRevokeResponse::decode(bytes)?.header);
            Answer { header, ..Answer::default() }
        }
    })
}

/// The code of a refusal that says that nothing was done.
///
/// Whatever else goes wrong may have been done, or be done yet.
pub(super) fn refusal(error: &CallError) -> Option<u32> {
    const INVALID_ARGUMENT: u32 = 3;
    const PERMISSION_DENIED: u32 = 7;
    const RESOURCE_EXHAUSTED: u32 = 8;
    const FAILED_PRECONDITION: u32 = 9;
    match error {
        CallError::Status { code, .. } => [
            INVALID_ARGUMENT,
            NOT_FOUND,
            PERMISSION_DENIED,
            RESOURCE_EXHAUSTED,
            FAILED_PRECONDITION,
        ]
        .contains(code)
        .then_some(*code),
        CallError::Endpoint(_)
        | CallError::Connect { .. }
        | CallError::Silent { .. }
        | CallError::Http2(_)
        | CallError::NotGrpc(_)
        | CallError::Decode(_)
        | CallError::Ended => None,
    }
}

/// gRPC's code where there is no such lease.
pub(super) const NOT_FOUND: u32 = 5;
