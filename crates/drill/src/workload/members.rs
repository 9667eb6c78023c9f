//! What replicas say of themselves, looked at again and again.

use crate::{cluster::statuses, record::Recorder};
use checkers::history::ReplicaFact;
use client::endpoints::Endpoints;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(400);

/// Writes down who leads in which term, and each replica's state.
pub(super) async fn observe(
    endpoints: Endpoints,
    recorder: Arc<Recorder>,
    stop: CancellationToken,
) {
    loop {
        let Some(all) = stop.run_until_cancelled(statuses(&endpoints)).await else { return };
        let mut seen = BTreeSet::new();
        for status in all {
            for member in status.members.into_iter().filter(|member| member.reachable) {
                // All asked each other: the same state of one need not be told three times.
                if !seen.insert((member.id, member.applied_index, member.role.clone())) {
                    continue;
                }
                if member.role == "leader" {
                    recorder.replica(member.id, ReplicaFact::Leads { term: member.term });
                }
                if let Ok(state_hash) = u64::from_str_radix(&member.state_hash, 16) {
                    recorder.replica(
                        member.id,
                        ReplicaFact::Applied {
                            index: member.applied_index,
                            term: 0,
                            state_hash,
                            revision: member.revision,
                            // Of the replica that was asked, and not of this one.
                            epoch: 0,
                        },
                    );
                }
            }
        }
        if stop.run_until_cancelled(sleep(LOOK)).await.is_none() {
            return;
        }
    }
}
