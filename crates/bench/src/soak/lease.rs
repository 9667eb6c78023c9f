//! What has come of the lease of a key that is only written with one: granted, attached, revoked, again and
//! again. A lease whose fate is unknown is revoked until an answer says that it is gone.

use super::{
    keys::Write,
    request::{Asked, Request},
};
use tokio::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lease {
    /// There is none, and the key is not there.
    Free,
    /// Nothing hangs on it.
    Granted { lease: i64, since: Instant },
    /// The key does.
    Held { lease: i64, since: Instant },
    /// It may be there, and the key, too.
    Ending { lease: i64 },
}

impl Lease {
    /// What is asked for next; with a number for a write and one for a lease that nobody has used.
    pub(super) fn next_step(self, write: Write, fresh: i64) -> Asked {
        match self {
            Self::Free => Asked::Grant { lease: fresh },
            Self::Granted { lease, .. } => Asked::LeasedPut { write, lease },
            Self::Held { lease, .. } | Self::Ending { lease } => Asked::Revoke { lease },
        }
    }

    pub(super) fn answered(&mut self, request: &Request) {
        *self = match (&request.asked, *self) {
            (Asked::Grant { lease }, _) => Self::Granted { lease: *lease, since: request.at },
            (Asked::LeasedPut { .. }, Self::Granted { lease, since }) => {
                Self::Held { lease, since }
            }
            (Asked::Revoke { .. }, _) => Self::Free,
            (
                Asked::LeasedPut { .. }
                | Asked::Put { .. }
                | Asked::Delete
                | Asked::Txn { .. }
                | Asked::Get { .. }
                | Asked::Page { .. },
                before,
            ) => before,
        };
    }

    /// There is no such lease. Returns it, and since when it was there, if it had to be.
    pub(super) fn not_found(&mut self, request: &Request) -> Option<(i64, Instant)> {
        let before = *self;
        *self = match request.asked {
            Asked::Revoke { .. } => Self::Free,
            Asked::LeasedPut { lease, .. } => Self::Ending { lease },
            Asked::Grant { .. }
            | Asked::Put { .. }
            | Asked::Delete
            | Asked::Txn { .. }
            | Asked::Get { .. }
            | Asked::Page { .. } => return None,
        };
        match before {
            Self::Granted { lease, since } | Self::Held { lease, since } => Some((lease, since)),
            Self::Free | Self::Ending { .. } => None,
        }
    }

    pub(super) fn unanswered(&mut self, request: &Request) {
        match request.asked {
            Asked::Grant { lease } | Asked::LeasedPut { lease, .. } | Asked::Revoke { lease } => {
                *self = Self::Ending { lease };
            }
            Asked::Put { .. }
            | Asked::Delete
            | Asked::Txn { .. }
            | Asked::Get { .. }
            | Asked::Page { .. } => {}
        }
    }
}
