//! Commands of the log as etcd would have them in its own: for tools that replay requests.

use crate::{
    auth::permission_of,
    convert::number,
    proto::authpb::UserAddOptions,
    proto::etcdserverpb::{self as wire, compare, range_request, request_op},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use store::{
    AlarmKind, AuthOp, Command, Compare, CompareOperator, CompareTarget, DeleteRange, Identity,
    KeyRange, Op, Origin, PasswordHash, Put, RangeRequest, SortTarget, Txn, TxnOp,
};

/// What etcd would have been asked for with this command of the entry at `index`. Nothing for what has
/// no place in etcd's log; several for a batch that takes a revision for each transaction.
#[must_use]
pub fn internal_requests(index: u64, command: &Command) -> Vec<wire::InternalRaftRequest> {
    let who = match &command.origin {
        Origin::User(who) => who.clone(),
        Origin::Client | Origin::Controller { .. } => Identity::default(),
    };
    let header =
        wire::RequestHeader { id: index, username: who.user, auth_revision: who.auth_revision };
    let blank = wire::InternalRaftRequest { header: Some(header), ..Default::default() };
    match &command.op {
        Op::Txn(txn) => vec![one(blank, txn)],
        Op::Atomic(txns) => txns.iter().map(|txn| one(blank.clone(), txn)).collect(),
        Op::LeaseGrant { id, ttl_seconds } => vec![wire::InternalRaftRequest {
            lease_grant: Some(wire::LeaseGrantRequest { id: id.0, ttl: *ttl_seconds }),
            ..blank
        }],
        Op::LeaseRevoke { id } => vec![wire::InternalRaftRequest {
            lease_revoke: Some(wire::LeaseRevokeRequest { id: id.0 }),
            ..blank
        }],
        Op::LeaseCheckpoint { id, remaining_seconds } => vec![wire::InternalRaftRequest {
            lease_checkpoint: Some(wire::LeaseCheckpointRequest {
                checkpoints: vec![wire::LeaseCheckpoint {
                    id: id.0,
                    remaining_ttl: *remaining_seconds,
                }],
            }),
            ..blank
        }],
        Op::Compact { revision } => vec![wire::InternalRaftRequest {
            compaction: Some(wire::CompactionRequest {
                revision: number(revision.get()),
                physical: false,
            }),
            ..blank
        }],
        Op::Alarm { alarm, active } => {
            let action = if *active {
                wire::alarm_request::AlarmAction::Activate
            } else {
                wire::alarm_request::AlarmAction::Deactivate
            };
            let kind = match alarm.kind {
                AlarmKind::NoSpace => wire::AlarmType::Nospace,
                AlarmKind::Corrupt => wire::AlarmType::Corrupt,
            };
            let alarm = wire::AlarmRequest {
                action: action.into(),
                member_id: alarm.member,
                alarm: kind.into(),
            };
            vec![wire::InternalRaftRequest { alarm: Some(alarm), ..blank }]
        }
        Op::Auth(op) => vec![auth(blank, op)],
        Op::BeginEpoch { .. } | Op::RaiseFeatureLevel { .. } | Op::Quota { .. } => Vec::new(),
    }
}

/// Passwords as hashes, in base64: so etcd has them in its log.
fn auth(blank: wire::InternalRaftRequest, op: &AuthOp) -> wire::InternalRaftRequest {
    let hashed = |PasswordHash(hash): &PasswordHash| STANDARD.encode(hash);
    let mut request = blank;
    match op.clone() {
        AuthOp::Enable { .. } => request.auth_enable = Some(wire::AuthEnableRequest {}),
        AuthOp::Disable => request.auth_disable = Some(wire::AuthDisableRequest {}),
        AuthOp::UserAdd { user: name, password } => {
            let no_password = password.is_none();
            request.auth_user_add = Some(wire::AuthUserAddRequest {
                name,
                password: String::new(),
                options: Some(UserAddOptions { no_password }),
                hashed_password: password.as_ref().map(hashed).unwrap_or_default(),
            });
        }
        AuthOp::UserDelete { user: name } => {
            request.auth_user_delete = Some(wire::AuthUserDeleteRequest { name });
        }
        AuthOp::UserChangePassword { user: name, password } => {
            request.auth_user_change_password = Some(wire::AuthUserChangePasswordRequest {
                name,
                password: String::new(),
                hashed_password: hashed(&password),
            });
        }
        AuthOp::UserGrantRole { user, role } => {
            request.auth_user_grant_role = Some(wire::AuthUserGrantRoleRequest { user, role });
        }
        AuthOp::UserRevokeRole { user: name, role } => {
            request.auth_user_revoke_role = Some(wire::AuthUserRevokeRoleRequest { name, role });
        }
        AuthOp::RoleAdd { role: name } => {
            request.auth_role_add = Some(wire::AuthRoleAddRequest { name });
        }
        AuthOp::RoleDelete { role } => {
            request.auth_role_delete = Some(wire::AuthRoleDeleteRequest { role });
        }
        AuthOp::RoleGrantPermission { role: name, permission } => {
            let perm = Some(permission_of(permission));
            request.auth_role_grant_permission =
                Some(wire::AuthRoleGrantPermissionRequest { name, perm });
        }
        AuthOp::RoleRevokePermission { role, range } => {
            let (key, range_end) = keys(&range);
            request.auth_role_revoke_permission =
                Some(wire::AuthRoleRevokePermissionRequest { role, key, range_end });
        }
    }
    request
}

/// A transaction of one step and no condition is that step: so it was asked for, or means the same.
fn one(blank: wire::InternalRaftRequest, txn: &Txn) -> wire::InternalRaftRequest {
    match (txn.compare.as_slice(), txn.success.as_slice(), txn.failure.as_slice()) {
        ([], [TxnOp::Put(put)], []) => {
            wire::InternalRaftRequest { put: Some(self::put(put)), ..blank }
        }
        ([], [TxnOp::DeleteRange(delete)], []) => {
            wire::InternalRaftRequest { delete_range: Some(self::delete(delete)), ..blank }
        }
        _ => wire::InternalRaftRequest { txn: Some(self::txn(txn)), ..blank },
    }
}

fn keys(range: &KeyRange) -> (Bytes, Bytes) {
    match range {
        KeyRange::One(key) => (key.clone(), Bytes::new()),
        KeyRange::Between { start, end } => (start.clone(), end.clone()),
        KeyRange::From(start) => (start.clone(), Bytes::from_static(&[0])),
    }
}

fn put(put: &Put) -> wire::PutRequest {
    wire::PutRequest {
        key: put.key.clone(),
        value: put.value.clone(),
        lease: put.lease.0,
        prev_kv: put.prev_kv,
        ignore_value: put.ignore_value,
        ignore_lease: put.ignore_lease,
    }
}

fn delete(delete: &DeleteRange) -> wire::DeleteRangeRequest {
    let (key, range_end) = keys(&delete.range);
    wire::DeleteRangeRequest { key, range_end, prev_kv: delete.prev_kv }
}

fn range(range: &RangeRequest) -> wire::RangeRequest {
    let (key, range_end) = keys(&range.range);
    let (order, target) = match range.sort {
        None => (range_request::SortOrder::None, SortTarget::Key),
        Some(sort) if sort.descending => (range_request::SortOrder::Descend, sort.target),
        Some(sort) => (range_request::SortOrder::Ascend, sort.target),
    };
    let target = match target {
        SortTarget::Key => range_request::SortTarget::Key,
        SortTarget::Version => range_request::SortTarget::Version,
        SortTarget::CreateRevision => range_request::SortTarget::Create,
        SortTarget::ModRevision => range_request::SortTarget::Mod,
        SortTarget::Value => range_request::SortTarget::Value,
    };
    wire::RangeRequest {
        key,
        range_end,
        limit: number(range.limit),
        revision: number(range.revision.get()),
        sort_order: order.into(),
        sort_target: target.into(),
        serializable: false,
        keys_only: range.keys_only,
        count_only: range.count_only,
        min_mod_revision: number(range.mod_revision.0.get()),
        max_mod_revision: number(range.mod_revision.1.get()),
        min_create_revision: number(range.create_revision.0.get()),
        max_create_revision: number(range.create_revision.1.get()),
    }
}

fn txn(txn: &Txn) -> wire::TxnRequest {
    let steps = |steps: &[TxnOp]| steps.iter().map(step).collect();
    wire::TxnRequest {
        compare: txn.compare.iter().map(self::compare).collect(),
        success: steps(&txn.success),
        failure: steps(&txn.failure),
    }
}

fn step(step: &TxnOp) -> wire::RequestOp {
    use request_op::Request;
    let request = match step {
        TxnOp::Range(range) => Request::RequestRange(self::range(range)),
        TxnOp::Put(put) => Request::RequestPut(self::put(put)),
        TxnOp::DeleteRange(delete) => Request::RequestDeleteRange(self::delete(delete)),
        TxnOp::Txn(txn) => Request::RequestTxn(self::txn(txn)),
    };
    wire::RequestOp { request: Some(request) }
}

fn compare(condition: &Compare) -> wire::Compare {
    use compare::{CompareResult, CompareTarget as Target, TargetUnion};
    let (key, range_end) = keys(&condition.range);
    let result = match condition.operator {
        CompareOperator::Equal => CompareResult::Equal,
        CompareOperator::NotEqual => CompareResult::NotEqual,
        CompareOperator::Greater => CompareResult::Greater,
        CompareOperator::Less => CompareResult::Less,
    };
    let (target, union) = match &condition.target {
        CompareTarget::Version(version) => {
            (Target::Version, TargetUnion::Version(number(*version)))
        }
        CompareTarget::CreateRevision(revision) => {
            (Target::Create, TargetUnion::CreateRevision(number(revision.get())))
        }
        CompareTarget::ModRevision(revision) => {
            (Target::Mod, TargetUnion::ModRevision(number(revision.get())))
        }
        CompareTarget::Value(value) => (Target::Value, TargetUnion::Value(value.clone())),
        CompareTarget::Lease(lease) => (Target::Lease, TargetUnion::Lease(lease.0)),
    };
    wire::Compare {
        result: result.into(),
        target: target.into(),
        key,
        range_end,
        target_union: Some(union),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert;
    use store::{Epoch, RequestId, Timestamp};

    fn command(op: Op) -> Command {
        Command {
            at: Timestamp(1),
            request: RequestId { client: 1, sequence: 1 },
            origin: Origin::Client,
            op,
        }
    }

    fn transaction() -> wire::TxnRequest {
        let put = wire::PutRequest {
            key: "k".into(),
            value: "v".into(),
            lease: 7,
            prev_kv: true,
            ..Default::default()
        };
        let range = wire::RangeRequest {
            key: "a".into(),
            range_end: vec![0].into(),
            limit: 3,
            sort_order: range_request::SortOrder::Descend.into(),
            sort_target: range_request::SortTarget::Mod.into(),
            min_mod_revision: 2,
            ..Default::default()
        };
        let delete =
            wire::DeleteRangeRequest { key: "x".into(), range_end: "y".into(), prev_kv: false };
        let step = |request| wire::RequestOp { request: Some(request) };
        let nested = wire::TxnRequest {
            success: vec![step(request_op::Request::RequestDeleteRange(delete))],
            ..Default::default()
        };
        wire::TxnRequest {
            compare: vec![wire::Compare {
                result: compare::CompareResult::Less.into(),
                target: compare::CompareTarget::Mod.into(),
                key: "k".into(),
                range_end: Bytes::new(),
                target_union: Some(compare::TargetUnion::ModRevision(9)),
            }],
            success: vec![
                step(request_op::Request::RequestPut(put)),
                step(request_op::Request::RequestRange(range)),
            ],
            failure: vec![step(request_op::Request::RequestTxn(nested))],
        }
    }

    #[test]
    fn a_transaction_comes_out_of_the_log_as_it_was_asked_for() {
        let asked = transaction();
        let stored = convert::txn(asked.clone(), 128).unwrap().txn;
        let [found] = internal_requests(5, &command(Op::Txn(stored))).try_into().unwrap();
        let wire::InternalRaftRequest { header, txn, .. } = found;
        assert_eq!((header.unwrap().id, txn), (5, Some(asked)));
    }

    #[test]
    fn a_put_comes_out_as_a_put_and_what_is_not_etcds_does_not() {
        let asked = wire::PutRequest { key: "k".into(), ignore_lease: true, ..Default::default() };
        let stored = convert::put(asked.clone()).unwrap();
        let txn = Txn { success: vec![TxnOp::Put(stored)], ..Txn::default() };
        let found = internal_requests(1, &command(Op::Txn(txn)));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].put, Some(asked));
        let password = Some(PasswordHash("hash".to_owned()));
        let user = Op::Auth(AuthOp::UserAdd { user: "u".to_owned(), password });
        let who = Identity { user: "root".to_owned(), auth_revision: 4 };
        let by_root = Command { origin: Origin::User(who), ..command(user) };
        let [found] = internal_requests(3, &by_root).try_into().unwrap();
        let header = found.header.unwrap();
        assert_eq!((header.username.as_str(), header.auth_revision), ("root", 4));
        assert_eq!(found.auth_user_add.unwrap().hashed_password, "aGFzaA==");
        let epoch = Op::BeginEpoch { epoch: Epoch(1), leader: 1 };
        assert_eq!(internal_requests(2, &command(epoch)), []);
    }
}
