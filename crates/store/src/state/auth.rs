//! Users, roles and permissions as part of the state, and who may do what.
//!
//! A replica checks a request before it proposes it, and apply checks it again: users and roles may have
//! changed in between. Both call [`View::may`]'s one rule, with the ranges that the request itself uses.

use super::{Contents, View};
use crate::{
    auth::{
        Access, AuthOp, AuthRejection, Identity, PasswordHash, Permission, PermissionKind, ROOT,
        TokenKey,
    },
    types::{DeleteRange, KeyRange, LeaseId, Op, Outcome, Rejection, Txn, TxnOp},
};
use bytes::Bytes;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

/// All users and roles.
#[derive(Debug, Clone)]
pub struct Auth {
    enabled: bool,
    /// Rises with every change.
    revision: u64,
    token_key: TokenKey,
    users: OrdMap<String, Arc<User>>,
    roles: OrdMap<String, Arc<Role>>,
}

/// One user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// `None` if it can only come with a client certificate.
    pub password: Option<PasswordHash>,
    /// Its roles, by name.
    pub roles: BTreeSet<String>,
    /// The auth revision of its creation or last change of password: tokens from before are void.
    pub since: u64,
}

/// One role.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Role {
    /// By where their ranges begin and end.
    pub permissions: Vec<Permission>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            enabled: false,
            // As in etcd: 0 says that nobody has asked.
            revision: 1,
            token_key: TokenKey::default(),
            users: OrdMap::new(),
            roles: OrdMap::new(),
        }
    }
}

impl Auth {
    /// From what a snapshot says of it; users and roles follow.
    pub(super) fn restore(enabled: bool, revision: u64, token_key: TokenKey) -> Self {
        Self { enabled, revision, token_key, ..Self::default() }
    }

    pub(super) fn restore_user(&mut self, name: String, user: User) {
        self.users.insert(name, Arc::new(user));
    }

    pub(super) fn restore_role(&mut self, name: String, role: Role) {
        self.roles.insert(name, Arc::new(role));
    }

    /// Whether everybody has to say who they are.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Rises with every change of users and roles, from 1.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Signs the tokens of this period in which authentication is on.
    #[must_use]
    pub fn token_key(&self) -> TokenKey {
        self.token_key
    }

    /// One user.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(|user| &**user)
    }

    /// All users, by name.
    pub fn users(&self) -> impl Iterator<Item = (&str, &User)> {
        self.users.iter().map(|(name, user)| (name.as_str(), &**user))
    }

    /// One role.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name).map(|role| &**role)
    }

    /// All roles, by name.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &Role)> {
        self.roles.iter().map(|(name, role)| (name.as_str(), &**role))
    }

    /// Whether somebody may do something with all keys of a range, if there are any.
    ///
    /// # Errors
    /// [`AuthRejection::UserEmpty`] of nobody, [`AuthRejection::OldRevision`] of who has to be
    /// looked at again, [`AuthRejection::PermissionDenied`].
    pub fn check(
        &self,
        who: &Identity,
        access: Access,
        range: &KeyRange,
    ) -> Result<(), AuthRejection> {
        match self.permitted(who)? {
            Permitted::All => Ok(()),
            Permitted::Of(user) => self.check_roles(user, access, range),
        }
    }

    /// Whether somebody may do what takes no permission, but is not for strangers.
    ///
    /// # Errors
    /// As of [`Auth::check`], but not for want of a permission.
    pub fn check_known(&self, who: &Identity) -> Result<(), AuthRejection> {
        self.permitted(who).map(|_| ())
    }

    /// Whether somebody may change users and roles, or what the group is made of.
    ///
    /// # Errors
    /// [`AuthRejection::UserEmpty`], [`AuthRejection::UserNotFound`],
    /// [`AuthRejection::PermissionDenied`].
    pub fn check_root(&self, who: &Identity) -> Result<(), AuthRejection> {
        if !self.enabled {
            return Ok(());
        }
        if who.user.is_empty() || who.auth_revision == 0 {
            return Err(AuthRejection::UserEmpty);
        }
        // Not by its revision, as in etcd: only whether it is root now counts.
        let user = self.user(&who.user).ok_or(AuthRejection::UserNotFound)?;
        if user.roles.contains(ROOT) { Ok(()) } else { Err(AuthRejection::PermissionDenied) }
    }

    fn permitted(&self, who: &Identity) -> Result<Permitted<'_>, AuthRejection> {
        if !self.enabled {
            return Ok(Permitted::All);
        }
        if who.auth_revision == 0 {
            return Err(AuthRejection::UserEmpty);
        }
        if who.auth_revision < self.revision {
            return Err(AuthRejection::OldRevision);
        }
        let user = self.user(&who.user).ok_or(AuthRejection::PermissionDenied)?;
        Ok(if user.roles.contains(ROOT) { Permitted::All } else { Permitted::Of(user) })
    }

    fn check_roles(
        &self,
        user: &User,
        access: Access,
        range: &KeyRange,
    ) -> Result<(), AuthRejection> {
        let roles = user.roles.iter().filter_map(|name| self.role(name));
        let granted = roles
            .flat_map(|role| &role.permissions)
            .filter(|permission| permission.kind.allows(access))
            .map(|permission| &permission.range);
        if range.is_covered_by(granted) { Ok(()) } else { Err(AuthRejection::PermissionDenied) }
    }

    fn apply(&mut self, op: &AuthOp) -> Result<(), AuthRejection> {
        match op {
            AuthOp::Enable { token_key } => return self.enable(*token_key),
            AuthOp::Disable if !self.enabled => return Ok(()),
            AuthOp::Disable => self.enabled = false,
            AuthOp::UserAdd { user, password } => {
                if user.is_empty() {
                    return Err(AuthRejection::UserEmpty);
                }
                if self.users.contains_key(user) {
                    return Err(AuthRejection::UserExists);
                }
                let password = password.clone();
                let new = User { password, roles: BTreeSet::new(), since: self.revision + 1 };
                self.users.insert(user.clone(), Arc::new(new));
            }
            AuthOp::UserDelete { user } => {
                self.keep_root(user == ROOT)?;
                self.users.remove(user).ok_or(AuthRejection::UserNotFound)?;
            }
            AuthOp::UserChangePassword { user, password } => {
                let since = self.revision + 1;
                let user = self.user_mut(user)?;
                user.since = since;
                if let Some(old) = &mut user.password {
                    *old = password.clone();
                }
            }
            AuthOp::UserGrantRole { user, role } => {
                let there = role == ROOT || self.roles.contains_key(role);
                let user = self.user_mut(user)?;
                if !there {
                    return Err(AuthRejection::RoleNotFound);
                }
                if !user.roles.insert(role.clone()) {
                    return Ok(());
                }
            }
            AuthOp::UserRevokeRole { user, role } => {
                self.keep_root(user == ROOT && role == ROOT)?;
                if !self.user_mut(user)?.roles.remove(role) {
                    return Err(AuthRejection::RoleNotGranted);
                }
            }
            AuthOp::RoleAdd { role } => {
                if role.is_empty() {
                    return Err(AuthRejection::RoleEmpty);
                }
                if self.roles.contains_key(role) {
                    return Err(AuthRejection::RoleExists);
                }
                self.roles.insert(role.clone(), Arc::default());
            }
            AuthOp::RoleDelete { role } => {
                self.keep_root(role == ROOT)?;
                self.roles.remove(role).ok_or(AuthRejection::RoleNotFound)?;
                let with_role = self.users.iter().filter(|(_, user)| user.roles.contains(role));
                let names: Vec<String> = with_role.map(|(name, _)| name.clone()).collect();
                for name in names {
                    self.user_mut(&name)?.roles.remove(role);
                }
            }
            AuthOp::RoleGrantPermission { role, permission } => {
                let role = self.roles.get_mut(role).ok_or(AuthRejection::RoleNotFound)?;
                if is_pointless(&permission.range) {
                    return Err(AuthRejection::InvalidManagement);
                }
                let permissions = &mut Arc::make_mut(role).permissions;
                match permissions.iter_mut().find(|old| old.range == permission.range) {
                    Some(old) => old.kind = permission.kind,
                    None => {
                        permissions.push(permission.clone());
                        permissions.sort_by(|a, b| a.range.edges().cmp(&b.range.edges()));
                    }
                }
            }
            AuthOp::RoleRevokePermission { role, range } => {
                let role = self.roles.get_mut(role).ok_or(AuthRejection::RoleNotFound)?;
                let permissions = &mut Arc::make_mut(role).permissions;
                let before = permissions.len();
                permissions.retain(|permission| permission.range != *range);
                if permissions.len() == before {
                    return Err(AuthRejection::PermissionNotGranted);
                }
            }
        }
        self.revision += 1;
        Ok(())
    }

    fn enable(&mut self, token_key: TokenKey) -> Result<(), AuthRejection> {
        if self.enabled {
            return Ok(());
        }
        let root = self.user(ROOT).ok_or(AuthRejection::RootUserNotFound)?;
        if !root.roles.contains(ROOT) {
            return Err(AuthRejection::RootRoleNotGranted);
        }
        self.enabled = true;
        self.token_key = token_key;
        Ok(())
    }

    fn keep_root(&self, taken: bool) -> Result<(), AuthRejection> {
        if self.enabled && taken { Err(AuthRejection::InvalidManagement) } else { Ok(()) }
    }

    fn user_mut(&mut self, name: &str) -> Result<&mut User, AuthRejection> {
        self.users.get_mut(name).map(Arc::make_mut).ok_or(AuthRejection::UserNotFound)
    }
}

enum Permitted<'a> {
    All,
    /// What its roles may.
    Of(&'a User),
}

/// A range that holds no key, or one that no key has: granting it would be a mistake.
fn is_pointless(range: &KeyRange) -> bool {
    match range {
        KeyRange::One(key) | KeyRange::From(key) => key.is_empty(),
        KeyRange::Between { start, end } => start.is_empty() || start >= end,
    }
}

/// What the role [`ROOT`] may, whether or not somebody has made it.
#[must_use]
pub fn root_permission() -> Permission {
    Permission { kind: PermissionKind::ReadWrite, range: KeyRange::From(Bytes::new()) }
}

impl Contents {
    pub(super) fn change_auth(&mut self, op: &AuthOp) -> Result<Outcome, Rejection> {
        // On a copy: a change may be refused when half of it is done.
        let mut auth = (*self.auth).clone();
        auth.apply(op)?;
        self.auth = Arc::new(auth);
        Ok(Outcome::Done)
    }

    /// # Errors
    /// Why somebody may not do that.
    pub(super) fn may(&self, who: &Identity, op: &Op) -> Result<(), AuthRejection> {
        if !self.auth.enabled {
            return Ok(());
        }
        match op {
            Op::Txn(txn) => self.may_txn(who, txn),
            Op::Atomic(txns) => txns.iter().try_for_each(|txn| self.may_txn(who, txn)),
            Op::LeaseRevoke { id } => {
                self.auth.check_known(who)?;
                self.may_write_lease(who, *id)
            }
            Op::LeaseGrant { .. } | Op::Compact { .. } => self.auth.check_known(who),
            Op::Auth(_)
            | Op::Alarm { .. }
            | Op::LeaseCheckpoint { .. }
            | Op::BeginEpoch { .. }
            | Op::RaiseFeatureLevel { .. }
            | Op::Quota { .. } => self.auth.check_root(who),
        }
    }

    /// Every way through it, nested ones too. Not by recursion: how deep it goes has not been checked.
    pub(super) fn may_txn(&self, who: &Identity, txn: &Txn) -> Result<(), AuthRejection> {
        self.auth.check_known(who)?;
        let mut left = vec![txn];
        while let Some(txn) = left.pop() {
            for compare in &txn.compare {
                self.auth.check(who, Access::Read, &compare.range)?;
            }
            for step in txn.success.iter().chain(&txn.failure) {
                match step {
                    TxnOp::Range(range) => self.auth.check(who, Access::Read, &range.range)?,
                    TxnOp::Put(put) => {
                        let key = KeyRange::One(put.key.clone());
                        self.auth.check(who, Access::Write, &key)?;
                        if put.prev_kv {
                            self.auth.check(who, Access::Read, &key)?;
                        }
                        // Else it could not be revoked by who attaches a key to it.
                        self.may_write_lease(who, put.lease)?;
                    }
                    TxnOp::DeleteRange(DeleteRange { range, prev_kv }) => {
                        self.auth.check(who, Access::Write, range)?;
                        if *prev_kv {
                            self.auth.check(who, Access::Read, range)?;
                        }
                    }
                    TxnOp::Txn(nested) => left.push(nested),
                }
            }
        }
        Ok(())
    }

    fn may_write_lease(&self, who: &Identity, id: LeaseId) -> Result<(), AuthRejection> {
        self.may_all_keys(who, Access::Write, id)
    }

    fn may_all_keys(
        &self,
        who: &Identity,
        access: Access,
        id: LeaseId,
    ) -> Result<(), AuthRejection> {
        let Some(record) = self.leases.get(&id) else { return Ok(()) };
        // Whoever may all need not be held against each of many keys.
        if let Permitted::All = self.auth.permitted(who)? {
            return Ok(());
        }
        record
            .keys
            .iter()
            .try_for_each(|key| self.auth.check(who, access, &KeyRange::One(key.clone())))
    }
}

impl View {
    /// Users and roles.
    #[must_use]
    pub fn auth(&self) -> &Auth {
        &self.contents.auth
    }

    /// Whether somebody may have a command carried out: apply's own check, to be made before it is
    /// proposed.
    ///
    /// # Errors
    /// Why not.
    pub fn may(&self, who: &Identity, op: &Op) -> Result<(), AuthRejection> {
        self.contents.may(who, op)
    }

    /// Whether somebody may have a transaction carried out, or answered if it only reads.
    ///
    /// # Errors
    /// Why not.
    pub fn may_txn(&self, who: &Identity, txn: &Txn) -> Result<(), AuthRejection> {
        self.contents.may_txn(who, txn)
    }

    /// Whether somebody may do something with every key of a lease; there need not be one.
    ///
    /// # Errors
    /// Why not.
    pub fn may_lease(
        &self,
        who: &Identity,
        access: Access,
        id: LeaseId,
    ) -> Result<(), AuthRejection> {
        self.contents.auth.check_known(who)?;
        self.contents.may_all_keys(who, access, id)
    }
}
