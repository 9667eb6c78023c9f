//! Users, roles and permissions: what commands change and requests are held against.

use crate::types::KeyRange;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The user that every group with authentication has, and the role that makes it one who may all.
pub const ROOT: &str = "root";

/// Signs the tokens of one period in which authentication is on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TokenKey(pub [u8; 32]);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It must not get into a log.
        f.write_str("TokenKey")
    }
}

/// A password as it is kept: only its hash. Made by the proposer, who alone has seen the password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash")
    }
}

/// What a request does with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Sees them, or compares with them.
    Read,
    /// Puts or deletes them.
    Write,
}

/// What a permission is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PermissionKind {
    /// [`Access::Read`].
    Read,
    /// [`Access::Write`].
    Write,
    /// Both.
    ReadWrite,
}

impl PermissionKind {
    /// Whether it is for that.
    #[must_use]
    pub fn allows(self, access: Access) -> bool {
        match self {
            Self::Read => access == Access::Read,
            Self::Write => access == Access::Write,
            Self::ReadWrite => true,
        }
    }
}

/// What a role may do with some keys. The range is the one that requests use, so that the two cannot be
/// understood differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// What.
    pub kind: PermissionKind,
    /// With which keys.
    pub range: KeyRange,
}

/// Who asks through the etcd API.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identity {
    /// Empty if nobody in particular.
    pub user: String,
    /// As of which state of users and roles it was found to be that user; 0 if it is nobody.
    pub auth_revision: u64,
}

/// A change of users and roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthOp {
    /// From now on everybody has to say who they are. Without effect when it is so already.
    Enable {
        /// Random, drawn by the proposer.
        token_key: TokenKey,
    },
    /// Everybody may do everything. Without effect when it is so already.
    Disable,
    /// A new user, without roles.
    UserAdd {
        /// Not empty.
        user: String,
        /// Without one it can only come with a client certificate.
        password: Option<PasswordHash>,
    },
    /// Takes a user away.
    UserDelete {
        /// Must exist.
        user: String,
    },
    /// Its tokens end. A user without password stays without.
    UserChangePassword {
        /// Must exist.
        user: String,
        /// The new one.
        password: PasswordHash,
    },
    /// A user may do what the role may.
    UserGrantRole {
        /// Must exist.
        user: String,
        /// Must exist, unless it is [`ROOT`].
        role: String,
    },
    /// Takes a role from a user.
    UserRevokeRole {
        /// Must exist.
        user: String,
        /// The user must have it.
        role: String,
    },
    /// A new role, without permissions.
    RoleAdd {
        /// Not empty.
        role: String,
    },
    /// Takes a role away, from every user too.
    RoleDelete {
        /// Must exist.
        role: String,
    },
    /// A role may do more, or something else with the same range.
    RoleGrantPermission {
        /// Must exist.
        role: String,
        /// What.
        permission: Permission,
    },
    /// A role may do less.
    RoleRevokePermission {
        /// Must exist.
        role: String,
        /// Exactly as granted.
        range: KeyRange,
    },
}

/// Why a change of users was refused, or a request of a user. The texts are etcd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AuthRejection {
    /// Nobody could change anything any more.
    #[error("root user does not exist")]
    RootUserNotFound,
    /// Nobody could change anything any more.
    #[error("root user does not have root role")]
    RootRoleNotGranted,
    /// There is one of that name.
    #[error("user name already exists")]
    UserExists,
    /// Also when a request does not say who asks, though everybody has to.
    #[error("user name is empty")]
    UserEmpty,
    /// There is none of that name.
    #[error("user name not found")]
    UserNotFound,
    /// There is one of that name.
    #[error("role name already exists")]
    RoleExists,
    /// A name of no letters.
    #[error("role name is empty")]
    RoleEmpty,
    /// There is none of that name.
    #[error("role name not found")]
    RoleNotFound,
    /// The user does not have it.
    #[error("role is not granted to the user")]
    RoleNotGranted,
    /// The role has none for exactly that range.
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    /// None of the user's roles may do that.
    #[error("permission denied")]
    PermissionDenied,
    /// It would take from the root user what authentication needs, or grant an empty range.
    #[error("invalid auth management")]
    InvalidManagement,
    /// Users or roles have changed since the asker was found to be who it is. It may try again.
    #[error("revision of auth store is old")]
    OldRevision,
}
