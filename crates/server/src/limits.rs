//! `api.limits` of a replica's configuration.

use anyhow::ensure;
use apiserver::Limits;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is done at once for clients of the Kubernetes API; what is not said is as for this machine's cores.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct LimitsConfig {
    /// Requests of nodes at once; 200.
    pub nodes: Option<u32>,
    /// Requests of the control plane's other users at once; 200.
    pub system: Option<u32>,
    /// Writes and small reads of everybody else at once; 200.
    pub people: Option<u32>,
    /// Lists of more than 500 objects at once, each counted once for every 10,000; as many as cores, 2 at
    /// least.
    pub lists: Option<u32>,
    /// Watches, logs and connections into Pods; 10,000.
    pub long_running: Option<u32>,
    /// Requests of each class that may wait; 1,000.
    pub queue: Option<usize>,
    /// How long each may, and a long list five times as long; 3 s.
    #[serde(with = "humantime_serde")]
    pub queue_wait: Option<Duration>,
    /// Bytes of all requests' bodies in memory; 64 MiB.
    pub body_bytes: Option<u64>,
    /// For a request's body to come in; 30 s.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Option<Duration>,
    /// A client that takes on nothing of an answer for so long loses its connection; 60 s.
    #[serde(with = "humantime_serde")]
    pub answer_timeout: Option<Duration>,
    /// Connections; 12,000.
    pub connections: Option<usize>,
}

/// Bytes of the largest body; less room for all of them would refuse it always.
const BODY_BYTES_MIN: u64 = 3 << 20;

impl LimitsConfig {
    /// # Errors
    /// Names what would refuse everything.
    pub fn check(&self) -> anyhow::Result<()> {
        for (key, seats) in [
            ("nodes", self.nodes),
            ("system", self.system),
            ("people", self.people),
            ("lists", self.lists),
            ("longRunning", self.long_running),
        ] {
            ensure!(seats != Some(0), "api.limits.{key}: must be above 0");
        }
        ensure!(self.connections != Some(0), "api.limits.connections: must be above 0");
        ensure!(
            self.body_bytes.is_none_or(|bytes| bytes >= BODY_BYTES_MIN),
            "api.limits.bodyBytes: must be at least {BODY_BYTES_MIN}, the largest body"
        );
        for (key, time) in
            [("bodyTimeout", self.body_timeout), ("answerTimeout", self.answer_timeout)]
        {
            ensure!(
                time.is_none_or(|time| time >= Duration::from_secs(1)),
                "api.limits.{key}: must be at least 1s, is {time:?}"
            );
        }
        Ok(())
    }

    /// With what is not said filled in.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let all = Limits::default();
        Limits {
            nodes: self.nodes.unwrap_or(all.nodes),
            system: self.system.unwrap_or(all.system),
            people: self.people.unwrap_or(all.people),
            lists: self.lists.unwrap_or(all.lists),
            long_running: self.long_running.unwrap_or(all.long_running),
            queue: self.queue.unwrap_or(all.queue),
            queue_wait: self.queue_wait.unwrap_or(all.queue_wait),
            body_bytes: self.body_bytes.unwrap_or(all.body_bytes),
            body_timeout: self.body_timeout.unwrap_or(all.body_timeout),
            answer_timeout: self.answer_timeout.unwrap_or(all.answer_timeout),
            connections: self.connections.unwrap_or(all.connections),
        }
    }
}
