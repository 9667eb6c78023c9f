//! Who leads, and proposals on their way there.

use crate::{
    core::Attempt,
    peer::{ForwardRequest, forward_response::Outcome as Forwarded},
    peer_server::ProposalWire,
    store::RaftStore,
    types::{decode, encode},
};
use std::time::Duration;
use store::Proposal;
use tokio::time::{Instant, timeout, timeout_at};

impl RaftStore {
    /// Sends a proposal to the member that leads.
    pub(crate) async fn forward(
        &self,
        leader: u64,
        proposal: &Proposal,
        deadline: Duration,
    ) -> Attempt {
        let Ok(mut client) = self.core.peers.client(leader) else {
            return Attempt::NotLeader(None);
        };
        let request = ForwardRequest {
            proposal: encode(&ProposalWire::from(proposal)).into(),
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        };
        // A leader that hangs must not hold the caller: the others may have elected another.
        let changed = self.core.until(|now| now.current_leader != Some(leader));
        let answer = tokio::select! {
            answer = timeout(deadline, client.forward(request)) => answer,
            _ = changed => return Attempt::Unknown("the leader changed".to_owned()),
        };
        match answer {
            Ok(Ok(answer)) => match answer.into_inner().outcome {
                Some(Forwarded::Applied(applied)) => match decode(&applied) {
                    Ok(applied) => Attempt::Applied(applied),
                    Err(error) => Attempt::Unknown(error.to_string()),
                },
                Some(Forwarded::NotLeader(other)) => {
                    Attempt::NotLeader(Some(other.leader).filter(|id| *id != 0))
                }
                Some(Forwarded::Unknown(detail)) => Attempt::Unknown(detail),
                None => Attempt::Unknown("an answer without an outcome".to_owned()),
            },
            // Nothing was sent: it is no doubt that nothing was done.
            Ok(Err(status)) if is_refused(&status) => Attempt::NotLeader(None),
            Ok(Err(status)) => Attempt::Unknown(status.message().to_owned()),
            Err(_) => Attempt::Unknown(format!("no answer within {deadline:?}")),
        }
    }

    /// Returns when somebody leads, as far as this replica knows, or at `until`.
    pub(crate) async fn leader(&self, until: Instant) -> Option<u64> {
        let known = self.core.until(|now| now.current_leader.is_some());
        timeout_at(until, known).await.ok()??.current_leader
    }

    pub(crate) fn leaderless(&self) -> String {
        let waited = self.leaderless_max;
        format!("nobody has led for {waited:?}, as if a majority of the replicas were gone")
    }
}

/// Nobody listens there.
pub(crate) fn is_refused(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}
