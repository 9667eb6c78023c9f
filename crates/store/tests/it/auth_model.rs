//! Users and permissions, said as plainly as possible: one list of grants, looked through key by key.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use store::{
    Access, AuthOp, AuthRejection, Identity, KeyRange, LeaseId, Op, Permission, ROOT, Txn, TxnOp,
};

#[derive(Debug, Clone)]
pub(crate) struct AuthModel {
    pub(crate) enabled: bool,
    pub(crate) revision: u64,
    /// Whether each has a password.
    pub(crate) users: BTreeMap<String, bool>,
    pub(crate) roles: BTreeSet<String>,
    /// User and role.
    pub(crate) members: BTreeSet<(String, String)>,
    pub(crate) grants: Vec<(String, Permission)>,
}

impl Default for AuthModel {
    fn default() -> Self {
        Self {
            enabled: false,
            revision: 1,
            users: BTreeMap::new(),
            roles: BTreeSet::new(),
            members: BTreeSet::new(),
            grants: Vec::new(),
        }
    }
}

type Checked = Result<(), AuthRejection>;

fn ensure(holds: bool, otherwise: AuthRejection) -> Checked {
    if holds { Ok(()) } else { Err(otherwise) }
}

impl AuthModel {
    fn has_role(&self, user: &str, role: &str) -> bool {
        self.members.contains(&(user.to_owned(), role.to_owned()))
    }

    pub(crate) fn change(&mut self, op: &AuthOp) -> Checked {
        use AuthRejection as No;
        let before = self.clone();
        match op {
            AuthOp::Enable { .. } if self.enabled => return Ok(()),
            AuthOp::Enable { .. } => {
                ensure(self.users.contains_key(ROOT), No::RootUserNotFound)?;
                ensure(self.has_role(ROOT, ROOT), No::RootRoleNotGranted)?;
                self.enabled = true;
                return Ok(());
            }
            AuthOp::Disable if !self.enabled => return Ok(()),
            AuthOp::Disable => self.enabled = false,
            AuthOp::UserAdd { user, password } => {
                ensure(!user.is_empty(), No::UserEmpty)?;
                ensure(!self.users.contains_key(user), No::UserExists)?;
                self.users.insert(user.clone(), password.is_some());
            }
            AuthOp::UserDelete { user } => {
                ensure(!self.enabled || user != ROOT, No::InvalidManagement)?;
                ensure(self.users.remove(user).is_some(), No::UserNotFound)?;
                self.members.retain(|(member, _)| member != user);
            }
            AuthOp::UserChangePassword { user, .. } => {
                ensure(self.users.contains_key(user), No::UserNotFound)?;
            }
            AuthOp::UserGrantRole { user, role } => {
                ensure(self.users.contains_key(user), No::UserNotFound)?;
                ensure(role == ROOT || self.roles.contains(role), No::RoleNotFound)?;
                if !self.members.insert((user.clone(), role.clone())) {
                    return Ok(());
                }
            }
            AuthOp::UserRevokeRole { user, role } => {
                let kept = self.enabled && user == ROOT && role == ROOT;
                ensure(!kept, No::InvalidManagement)?;
                ensure(self.users.contains_key(user), No::UserNotFound)?;
                ensure(self.members.remove(&(user.clone(), role.clone())), No::RoleNotGranted)?;
            }
            AuthOp::RoleAdd { role } => {
                ensure(!role.is_empty(), No::RoleEmpty)?;
                ensure(self.roles.insert(role.clone()), No::RoleExists)?;
            }
            AuthOp::RoleDelete { role } => {
                ensure(!self.enabled || role != ROOT, No::InvalidManagement)?;
                ensure(self.roles.remove(role), No::RoleNotFound)?;
                self.members.retain(|(_, of)| of != role);
                self.grants.retain(|(of, _)| of != role);
            }
            AuthOp::RoleGrantPermission { role, permission } => {
                ensure(self.roles.contains(role), No::RoleNotFound)?;
                let sensible = match &permission.range {
                    KeyRange::One(key) | KeyRange::From(key) => !key.is_empty(),
                    KeyRange::Between { start, end } => !start.is_empty() && start < end,
                };
                ensure(sensible, No::InvalidManagement)?;
                self.grants.retain(|(of, old)| of != role || old.range != permission.range);
                self.grants.push((role.clone(), permission.clone()));
            }
            AuthOp::RoleRevokePermission { role, range } => {
                ensure(self.roles.contains(role), No::RoleNotFound)?;
                self.grants.retain(|(of, old)| of != role || old.range != *range);
                ensure(self.grants != before.grants, No::PermissionNotGranted)?;
            }
        }
        self.revision = before.revision + 1;
        Ok(())
    }

    fn known(&self, who: &Identity) -> Checked {
        ensure(who.auth_revision != 0, AuthRejection::UserEmpty)?;
        ensure(who.auth_revision >= self.revision, AuthRejection::OldRevision)?;
        ensure(self.users.contains_key(&who.user), AuthRejection::PermissionDenied)
    }

    fn root(&self, who: &Identity) -> Checked {
        let nobody = who.auth_revision == 0 || who.user.is_empty();
        ensure(!nobody, AuthRejection::UserEmpty)?;
        ensure(self.users.contains_key(&who.user), AuthRejection::UserNotFound)?;
        ensure(self.has_role(&who.user, ROOT), AuthRejection::PermissionDenied)
    }

    pub(crate) fn may_range(&self, who: &Identity, access: Access, range: &KeyRange) -> Checked {
        self.known(who)?;
        let granted: Vec<&KeyRange> = self
            .grants
            .iter()
            .filter(|(role, p)| self.has_role(&who.user, role) && p.kind.allows(access))
            .map(|(_, p)| &p.range)
            .collect();
        // Between two of these keys nothing begins and nothing ends.
        let mut keys: Vec<Bytes> = vec![Bytes::from_static(b"\xff\xff\xff")];
        for one in granted.iter().copied().chain([range]) {
            match one {
                KeyRange::One(key) => keys.extend([key.clone(), [key, &[0][..]].concat().into()]),
                KeyRange::Between { start, end } => keys.extend([start.clone(), end.clone()]),
                KeyRange::From(key) => keys.push(key.clone()),
            }
        }
        let allowed = keys
            .iter()
            .filter(|key| range.contains(key))
            .all(|key| granted.iter().any(|granted| granted.contains(key)));
        ensure(allowed || self.has_role(&who.user, ROOT), AuthRejection::PermissionDenied)
    }

    /// `leased` are the keys of every lease.
    pub(crate) fn may(
        &self,
        who: &Identity,
        op: &Op,
        leased: &impl Fn(LeaseId) -> Vec<Bytes>,
    ) -> Checked {
        if !self.enabled {
            return Ok(());
        }
        let writable = |id: LeaseId| {
            leased(id)
                .into_iter()
                .try_for_each(|key| self.may_range(who, Access::Write, &KeyRange::One(key)))
        };
        match op {
            Op::Txn(txn) => self.may_txn(who, txn, &writable),
            Op::Atomic(txns) => txns.iter().try_for_each(|txn| self.may_txn(who, txn, &writable)),
            Op::LeaseRevoke { id } => {
                self.known(who)?;
                writable(*id)
            }
            Op::LeaseGrant { .. } | Op::Compact { .. } => self.known(who),
            _ => self.root(who),
        }
    }

    fn may_txn(
        &self,
        who: &Identity,
        txn: &Txn,
        writable: &impl Fn(LeaseId) -> Checked,
    ) -> Checked {
        self.known(who)?;
        for compare in &txn.compare {
            self.may_range(who, Access::Read, &compare.range)?;
        }
        for step in txn.success.iter().chain(&txn.failure) {
            match step {
                TxnOp::Range(read) => self.may_range(who, Access::Read, &read.range)?,
                TxnOp::Put(put) => {
                    let key = KeyRange::One(put.key.clone());
                    self.may_range(who, Access::Write, &key)?;
                    if put.prev_kv {
                        self.may_range(who, Access::Read, &key)?;
                    }
                    writable(put.lease)?;
                }
                TxnOp::DeleteRange(delete) => {
                    self.may_range(who, Access::Write, &delete.range)?;
                    if delete.prev_kv {
                        self.may_range(who, Access::Read, &delete.range)?;
                    }
                }
                TxnOp::Txn(nested) => self.may_txn(who, nested, writable)?,
            }
        }
        Ok(())
    }
}
