//! The state machine against a naive model, and the properties of its watches.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a panic in a test is its failure"
)]

mod auth;
mod auth_model;
mod conformance;
mod local;
mod model;
mod random;
mod state;
mod watch;

use bytes::Bytes;
use store::{Command, Epoch, KeyRange, LeaseId, Op, Origin, Put, RequestId, Timestamp, Txn, TxnOp};

fn command(sequence: u64, op: Op) -> Command {
    Command {
        at: Timestamp(sequence),
        request: RequestId { client: 1, sequence },
        origin: Origin::Client,
        op,
    }
}

fn put(key: &str, value: &str) -> TxnOp {
    TxnOp::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        lease: LeaseId::NONE,
        prev_kv: true,
        ignore_value: false,
        ignore_lease: false,
    })
}

fn delete(range: KeyRange) -> TxnOp {
    TxnOp::DeleteRange(store::DeleteRange { range, prev_kv: true })
}

fn txn(steps: Vec<TxnOp>) -> Op {
    Op::Txn(Txn { compare: vec![], success: steps, failure: vec![] })
}

fn begin(epoch: u64) -> Op {
    Op::BeginEpoch { epoch: Epoch(epoch), leader: epoch }
}
