//! The rolling state hash: over every command that was carried out and its answer, equal on every
//! member at an equal index (INV-10).
//!
//! Every field is mixed in by hand, with a number before each variant and a length before each list:
//! the hash must not change with a compiler, a machine or a codec. The patterns name every field, so
//! that a new one does not compile until it is mixed in.

use crate::auth::{AuthOp, Identity, PasswordHash, Permission, PermissionKind, TokenKey};
use crate::types::{
    Alarm, AlarmKind, Applied, Command, Compare, CompareOperator, CompareTarget, DeleteRange,
    KeyRange, KeyValue, Op, Origin, Outcome, Put, RangeRequest, RangeResult, RequestId, Revision,
    Sort, SortTarget, Txn, TxnOp, TxnOpResult, TxnResult,
};

/// FNV-1a over words, 64 bits: cheap enough to run over every command. It finds divergence, it does
/// not defend against an attacker.
#[derive(Debug, Clone, Copy)]
struct Hasher(u64);

/// The hash after one more command. 0 begins.
pub(super) fn roll(hash: u64, command: &Command, applied: &Applied) -> u64 {
    let mut hasher = Hasher(hash ^ 0xcbf2_9ce4_8422_2325);
    hasher.command(command);
    hasher.applied(applied);
    hasher.0
}

/// Of one version of a key, or of its deletion.
pub(super) fn version(key: &[u8], revision: Revision, kv: Option<&KeyValue>) -> u64 {
    let mut hasher = Hasher(0xcbf2_9ce4_8422_2325);
    hasher.bytes(key);
    hasher.number(revision.get());
    hasher.list(kv.as_slice(), |hasher, kv| hasher.pair(kv));
    // What is hashed last must reach every bit: these are added up.
    hasher.number(0);
    hasher.number(0);
    hasher.0
}

impl Hasher {
    fn number(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x0000_0100_0000_01b3);
        // FNV carries upwards only: bring the high bits down again.
        self.0 ^= self.0 >> 32;
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.number(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            self.number(u64::from_le_bytes(last));
        }
    }

    fn list<T>(&mut self, items: &[T], mut mix: impl FnMut(&mut Self, &T)) {
        self.number(items.len() as u64);
        for item in items {
            mix(self, item);
        }
    }

    fn flags<const N: usize>(&mut self, flags: [bool; N]) {
        self.number(flags.iter().fold(1, |bits, flag| bits << 1 | u64::from(*flag)));
    }

    fn command(&mut self, command: &Command) {
        let Command { at, request: RequestId { client, sequence }, origin, op } = command;
        self.number(at.0);
        self.number(*client);
        self.number(*sequence);
        match origin {
            Origin::Client => self.number(0),
            Origin::Controller { epoch } => {
                self.number(1);
                self.number(epoch.0);
            }
            Origin::User(Identity { user, auth_revision }) => {
                self.number(2);
                self.bytes(user.as_bytes());
                self.number(*auth_revision);
            }
        }
        match op {
            Op::Txn(txn) => {
                self.number(0);
                self.txn(txn);
            }
            Op::Atomic(txns) => {
                self.number(1);
                self.list(txns, Self::txn);
            }
            Op::LeaseGrant { id, ttl_seconds } => {
                self.number(2);
                self.number(id.0.cast_unsigned());
                self.number(ttl_seconds.cast_unsigned());
            }
            Op::LeaseRevoke { id } => {
                self.number(3);
                self.number(id.0.cast_unsigned());
            }
            Op::LeaseCheckpoint { id, remaining_seconds } => {
                self.number(4);
                self.number(id.0.cast_unsigned());
                self.number(remaining_seconds.cast_unsigned());
            }
            Op::Compact { revision } => {
                self.number(5);
                self.number(revision.get());
            }
            Op::BeginEpoch { epoch, leader } => {
                self.number(6);
                self.number(epoch.0);
                self.number(*leader);
            }
            Op::RaiseFeatureLevel { level } => {
                self.number(7);
                self.number(u64::from(*level));
            }
            Op::Auth(op) => {
                self.number(9);
                self.auth(op);
            }
            Op::Alarm { alarm: Alarm { kind, member }, active } => {
                self.number(8);
                self.number(match kind {
                    AlarmKind::NoSpace => 0,
                    AlarmKind::Corrupt => 1,
                });
                self.number(*member);
                self.flags([*active]);
            }
            Op::Quota { bytes } => {
                self.number(10);
                self.number(*bytes);
            }
        }
    }

    fn auth(&mut self, op: &AuthOp) {
        let (kind, names): (u64, [&str; 2]) = match op {
            AuthOp::Enable { token_key: TokenKey(key) } => {
                self.bytes(key);
                (0, ["", ""])
            }
            AuthOp::Disable => (1, ["", ""]),
            AuthOp::UserAdd { user, password } => {
                self.list(password.as_slice(), |hasher, hash| hasher.bytes(hash.0.as_bytes()));
                (2, [user, ""])
            }
            AuthOp::UserDelete { user } => (3, [user, ""]),
            AuthOp::UserChangePassword { user, password: PasswordHash(hash) } => {
                self.bytes(hash.as_bytes());
                (4, [user, ""])
            }
            AuthOp::UserGrantRole { user, role } => (5, [user, role]),
            AuthOp::UserRevokeRole { user, role } => (6, [user, role]),
            AuthOp::RoleAdd { role } => (7, ["", role]),
            AuthOp::RoleDelete { role } => (8, ["", role]),
            AuthOp::RoleGrantPermission { role, permission: Permission { kind, range } } => {
                self.number(match kind {
                    PermissionKind::Read => 0,
                    PermissionKind::Write => 1,
                    PermissionKind::ReadWrite => 2,
                });
                self.key_range(range);
                (9, ["", role])
            }
            AuthOp::RoleRevokePermission { role, range } => {
                self.key_range(range);
                (10, ["", role])
            }
        };
        self.number(kind);
        names.iter().for_each(|name| self.bytes(name.as_bytes()));
    }

    fn txn(&mut self, txn: &Txn) {
        let Txn { compare, success, failure } = txn;
        self.list(compare, Self::compare);
        self.list(success, Self::txn_op);
        self.list(failure, Self::txn_op);
    }

    fn compare(&mut self, compare: &Compare) {
        let Compare { range, operator, target } = compare;
        self.key_range(range);
        self.number(match operator {
            CompareOperator::Equal => 0,
            CompareOperator::NotEqual => 1,
            CompareOperator::Greater => 2,
            CompareOperator::Less => 3,
        });
        match target {
            CompareTarget::Version(version) => {
                self.number(0);
                self.number(*version);
            }
            CompareTarget::CreateRevision(revision) => {
                self.number(1);
                self.number(revision.get());
            }
            CompareTarget::ModRevision(revision) => {
                self.number(2);
                self.number(revision.get());
            }
            CompareTarget::Value(value) => {
                self.number(3);
                self.bytes(value);
            }
            CompareTarget::Lease(lease) => {
                self.number(4);
                self.number(lease.0.cast_unsigned());
            }
        }
    }

    fn txn_op(&mut self, op: &TxnOp) {
        match op {
            TxnOp::Range(range) => {
                self.number(0);
                self.range_request(range);
            }
            TxnOp::Put(put) => {
                let Put { key, value, lease, prev_kv, ignore_value, ignore_lease } = put;
                self.number(1);
                self.bytes(key);
                self.bytes(value);
                self.number(lease.0.cast_unsigned());
                self.flags([*prev_kv, *ignore_value, *ignore_lease]);
            }
            TxnOp::DeleteRange(DeleteRange { range, prev_kv }) => {
                self.number(2);
                self.key_range(range);
                self.flags([*prev_kv]);
            }
            TxnOp::Txn(txn) => {
                self.number(3);
                self.txn(txn);
            }
        }
    }

    fn key_range(&mut self, range: &KeyRange) {
        match range {
            KeyRange::One(key) => {
                self.number(0);
                self.bytes(key);
            }
            KeyRange::Between { start, end } => {
                self.number(1);
                self.bytes(start);
                self.bytes(end);
            }
            KeyRange::From(start) => {
                self.number(2);
                self.bytes(start);
            }
        }
    }

    fn range_request(&mut self, request: &RangeRequest) {
        let RangeRequest {
            range,
            revision,
            limit,
            sort,
            keys_only,
            count_only,
            mod_revision,
            create_revision,
        } = request;
        self.key_range(range);
        self.number(revision.get());
        self.number(*limit);
        match sort {
            None => self.number(0),
            Some(Sort { target, descending }) => {
                self.number(match target {
                    SortTarget::Key => 1,
                    SortTarget::Version => 2,
                    SortTarget::CreateRevision => 3,
                    SortTarget::ModRevision => 4,
                    SortTarget::Value => 5,
                });
                self.flags([*descending]);
            }
        }
        self.flags([*keys_only, *count_only]);
        for bound in [mod_revision.0, mod_revision.1, create_revision.0, create_revision.1] {
            self.number(bound.get());
        }
    }

    fn applied(&mut self, applied: &Applied) {
        let Applied { revision, outcome } = applied;
        self.number(revision.get());
        match outcome {
            Ok(Outcome::Txn(result)) => {
                self.number(0);
                self.txn_result(result);
            }
            Ok(Outcome::Atomic(results)) => {
                self.number(1);
                self.list(results, |hasher, (revision, result): &(Revision, TxnResult)| {
                    hasher.number(revision.get());
                    hasher.txn_result(result);
                });
            }
            Ok(Outcome::LeaseRevoked { deleted }) => {
                self.number(2);
                self.number(*deleted);
            }
            Ok(Outcome::Done) => self.number(3),
            // Never asked for: a refused command leaves the hash as it was (INV-9).
            Err(_) => self.number(4),
            Ok(Outcome::Alarm { changed }) => {
                self.number(5);
                self.flags([*changed]);
            }
        }
    }

    fn txn_result(&mut self, result: &TxnResult) {
        let TxnResult { succeeded, results } = result;
        self.flags([*succeeded]);
        self.list(results, |hasher, step: &TxnOpResult| match step {
            TxnOpResult::Range(RangeResult { kvs, more, count }) => {
                hasher.number(0);
                hasher.list(kvs, Self::pair);
                hasher.flags([*more]);
                hasher.number(*count);
            }
            TxnOpResult::Put(prev) => {
                hasher.number(1);
                hasher.list(prev.as_slice(), Self::pair);
            }
            TxnOpResult::DeleteRange { deleted, prev_kvs } => {
                hasher.number(2);
                hasher.number(*deleted);
                hasher.list(prev_kvs, Self::pair);
            }
            TxnOpResult::Txn(nested) => {
                hasher.number(3);
                hasher.txn_result(nested);
            }
        });
    }

    fn pair(&mut self, kv: &KeyValue) {
        let KeyValue { key, value, create_revision, mod_revision, version, lease } = kv;
        self.bytes(key);
        self.bytes(value);
        self.number(create_revision.get());
        self.number(mod_revision.get());
        self.number(*version);
        self.number(lease.0.cast_unsigned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LeaseId, RequestId, Timestamp};
    use bytes::Bytes;

    fn put(value: &'static [u8]) -> Command {
        let put = Put {
            key: Bytes::from_static(b"key"),
            value: Bytes::from_static(value),
            lease: LeaseId::NONE,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        };
        Command {
            at: Timestamp(1),
            request: RequestId { client: 2, sequence: 3 },
            origin: Origin::Client,
            op: Op::Txn(Txn { success: vec![TxnOp::Put(put)], ..Txn::default() }),
        }
    }

    fn applied(succeeded: bool) -> Applied {
        let result = TxnResult { succeeded, results: vec![TxnOpResult::Put(None)] };
        Applied { revision: Revision::new(7), outcome: Ok(Outcome::Txn(result)) }
    }

    #[test]
    fn the_hash_is_the_one_of_every_release() {
        // Members of two versions compare these: a change of this number is a change of the format.
        let golden = 16_262_230_222_351_522_298;
        assert_eq!(roll(0, &put(b"a value of some length"), &applied(true)), golden);
    }

    #[test]
    fn every_difference_in_command_or_answer_shows() {
        let base = roll(9, &put(b"value"), &applied(true));
        for (name, other) in [
            ("start", roll(8, &put(b"value"), &applied(true))),
            ("value", roll(9, &put(b"valuf"), &applied(true))),
            ("a zero more", roll(9, &put(b"value\0"), &applied(true))),
            ("time", roll(9, &Command { at: Timestamp(2), ..put(b"value") }, &applied(true))),
            ("answer", roll(9, &put(b"value"), &applied(false))),
        ] {
            assert_ne!(base, other, "{name}");
        }
    }
}
