//! Proposals become entries: what waits together shares one.

use crate::{
    core::{Attempt, Core, Waiting},
    stages::Begun,
    types::Batch,
};
use openraft::errors::{ClientWriteError, RaftError};
use std::sync::Arc;
use store::{Command, Op};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// Bytes of commands in one log entry, unless one command alone is larger.
const BATCH_BYTES: usize = 1 << 20;
/// Commands in one log entry.
const BATCH_COMMANDS: usize = 1024;
/// Entries under way at once: few, so that what comes meanwhile shares the next.
pub(crate) const ENTRIES_IN_FLIGHT: u32 = 4;

/// Gathers what waits into entries: while some are under way, what comes shares the next (group
/// commit).
pub(crate) async fn batch(
    core: Arc<Core>,
    mut queue: mpsc::Receiver<Waiting>,
    stop: CancellationToken,
) {
    let mut writes = JoinSet::new();
    loop {
        let first = tokio::select! {
            first = queue.recv() => first,
            () = stop.cancelled() => None,
        };
        let Some(first) = first else { break };
        let Ok(permit) = Arc::clone(&core.entries).acquire_owned().await else { break };
        let mut bytes = proposal_bytes(&first.command.op);
        let mut waiting = vec![first];
        while bytes < BATCH_BYTES && waiting.len() < BATCH_COMMANDS {
            let Ok(next) = queue.try_recv() else { break };
            bytes += proposal_bytes(&next.command.op);
            waiting.push(next);
        }
        while writes.try_join_next().is_some() {}
        let core = Arc::clone(&core);
        writes.spawn(async move {
            let _permit = permit;
            write(&core, waiting).await;
        });
    }
    writes.shutdown().await;
}

async fn write(core: &Core, waiting: Vec<Waiting>) {
    if core.leader() != Some(core.id) {
        // It was handed over while they waited: nothing was proposed.
        for waiting in waiting {
            let _ = waiting.answer.send(Attempt::NotLeader(core.leader()));
        }
        return;
    }
    let taken = Instant::now();
    let submitted = waiting.first().map_or(taken, |first| first.since);
    let (commands, answers): (Vec<Command>, Vec<_>) =
        waiting.into_iter().map(|w| (w.command, w.answer)).unzip();
    let batch = Batch::encode(&commands);
    let begun = Begun { submitted, taken, encoded: Instant::now() };
    match core.raft.client_write(batch).await {
        Ok(done) => {
            core.stages.answered(done.log_id.index, begun);
            for (answer, applied) in answers.into_iter().zip(done.data) {
                let _ = answer.send(Attempt::Applied(applied));
            }
        }
        Err(error) => {
            // Also a refusal to lead may come for an entry that a later leader still commits, so
            // that only a repeat under the same request id tells what became of it.
            let detail = match &error {
                RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
                    format!("the lead was lost to {:?}", to.leader_id)
                }
                RaftError::APIError(_) | RaftError::Fatal(_) => error.to_string(),
            };
            for answer in answers {
                let _ = answer.send(Attempt::Unknown(detail.clone()));
            }
        }
    }
}

pub(crate) fn proposal_bytes(op: &Op) -> usize {
    usize::try_from(bincode::serialized_size(op).unwrap_or(u64::MAX)).unwrap_or(usize::MAX)
}
