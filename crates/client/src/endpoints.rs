//! Several replicas as one service: the last good one first, then the others in turn.

use std::time::Duration;

/// Where the API is and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// `http(s)://host:port`, at least one.
    pub urls: Vec<String>,
    /// For one attempt to connect.
    pub connect_timeout: Duration,
    /// For a call with all its attempts.
    pub deadline: Duration,
}
