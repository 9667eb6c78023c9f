//! Who asks, as an HTTP request carries it inside this process.

use std::collections::BTreeMap;

/// Marks a request of the scheduler or of a controller on the leader (FEN-5).
///
/// It travels as an `http` extension, which no wire can carry: only code in the leader's own process
/// can set it. The store refuses the write when another epoch has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerOrigin {
    /// The epoch whose applied state the decision was taken from.
    pub epoch: u64,
}

/// Whoever asks, as far as authentication has found out. The default is nobody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Such as `system:kube-scheduler`, `system:node:node-1`.
    pub user: String,
    /// Of the user, apart from others that have had its name; empty if nothing tells them apart.
    pub uid: String,
    /// Such as `system:masters`.
    pub groups: Vec<String>,
    /// What else is known, such as the Pod that a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// A user with these groups, and nothing more.
    #[must_use]
    pub fn new(user: impl Into<String>, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Self { user: user.into(), groups, ..Self::default() }
    }
}
