//! Who asks, as an HTTP request carries it inside this process.

/// Marks a request of the scheduler or of a controller on the leader (FEN-5).
///
/// It travels as an `http` extension, which no wire can carry: only code in the leader's own process
/// can set it. The store refuses the write when another epoch has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerOrigin {
    /// The epoch whose applied state the decision was taken from.
    pub epoch: u64,
}

/// Name and groups of whoever asks; the default is what an unauthenticated loopback client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Such as `system:kube-scheduler`, `system:node:node-1`.
    pub user: String,
    /// Such as `system:masters`.
    pub groups: Vec<String>,
}
