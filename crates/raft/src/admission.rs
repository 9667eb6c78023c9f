//! How a disk comes to take part, and how a member learns that it may not any more.
//!
//! A disk that is empty has promised nothing, or has forgotten what it promised. It founds the cluster
//! together with a majority that is as empty, or else asks the leader to name it in the log; and until
//! a quorum has committed that without its help, it neither votes nor acknowledges entries.

use crate::{
    core::Core,
    identity::Standing,
    membership::{Change, Changed, Refusal},
    peers::Blame,
    reconfigure::Answers,
    types::Member,
};
use openraft::errors::{InitializeError, RaftError};
use std::{io, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Between two rounds while this member does not take part yet.
const ROUND: Duration = Duration::from_millis(20);
/// Between two rounds of a member that takes part.
const LOOK: Duration = Duration::from_secs(1);
/// At least, between two rounds of one that a peer has refused.
const DOUBT: Duration = Duration::from_millis(250);
/// For one change on behalf of this member.
const DEADLINE: Duration = Duration::from_secs(5);

/// Runs as long as the replica does.
pub(crate) async fn admission(core: Arc<Core>, turn: Duration, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        ended = take_part(&core, turn) => {
            if let Err(why) = ended {
                core.fail(why);
            }
        }
    }
}

/// # Errors
/// Why this member must end.
async fn take_part(core: &Arc<Core>, turn: Duration) -> Result<(), String> {
    while core.identity.standing() == Standing::Blank {
        let answers = core.ask_around().await;
        judge(core, &answers).await?;
        let established = answers.values().flatten().any(|answer| answer.established);
        if established || core.join {
            ask_to_be_named(core, &answers).await?;
        } else {
            let empty = answers.values().flatten().count();
            if is_majority(empty + 1, core.told.len()) {
                keep(core, |core| core.identity.found()).await?;
                break;
            }
        }
        sleep(ROUND).await;
    }
    found(core, turn).await?;
    let mut group = core.group.clone();
    loop {
        group.mark_unchanged();
        if let Some(start) = unsaid(core) {
            let changed = core.change(&start, Instant::now() + DEADLINE).await;
            if let Err(error @ (Refusal::NotFound | Refusal::OtherDisk)) = changed {
                return Err(refused(core, &error).await);
            }
        }
        tokio::select! {
            () = sleep(LOOK) => judge(core, &core.ask_around().await).await?,
            () = core.peers.doubted() => {
                judge(core, &core.ask_around().await).await?;
                // A peer that is wrong about this member says so with every entry.
                sleep(DOUBT).await;
            }
            changed = group.changed() => if changed.is_err() {
                // The state machine has ended: there is nothing to wait for.
                return Ok(());
            },
        }
    }
}

const fn is_majority(count: usize, all: usize) -> bool {
    count > all / 2
}

/// Changes the identity file.
async fn keep(
    core: &Arc<Core>,
    write: impl FnOnce(&Core) -> io::Result<()> + Send + 'static,
) -> Result<(), String> {
    let shared = Arc::clone(core);
    let written = world::blocking(move || write(&shared)).await;
    let written = written.map_err(io::Error::other).and_then(|result| result);
    written.map_err(|error| format!("write the identity: {error}"))
}

/// What the others say this member is.
///
/// # Errors
/// It has no place among them.
async fn judge(core: &Arc<Core>, answers: &Answers) -> Result<(), String> {
    let welcome = answers.values().any(Result::is_ok);
    for (id, answer) in answers {
        let Err(status) = answer else { continue };
        let what = format!("member {id} refuses this one: {}", status.message());
        match Blame::read(status) {
            Some(Blame::Removed) => {
                keep(core, |core| core.identity.retire()).await?;
                return Err(format!("this member was removed: {what}"));
            }
            Some(Blame::OtherDisk) => return Err(what),
            // One stranger at a peer's address is not this member's fault.
            Some(Blame::Foreign) if !welcome => return Err(what),
            Some(Blame::Foreign) | None => {}
        }
    }
    match core.peers.stranger() {
        // Where it is, others are expected, and none of its own can be reached.
        Some(why) if !welcome && !answers.is_empty() => Err(why),
        Some(_) | None => Ok(()),
    }
}

/// The leader's word on who this member is, beyond doubt.
async fn refused(core: &Arc<Core>, refusal: &Refusal) -> String {
    let id = core.id;
    if *refusal == Refusal::OtherDisk {
        return format!("member {id} has started with another disk; remove it and add a new one");
    }
    if core.identity.standing() == Standing::Blank {
        return format!("the cluster has no member {id}: it was removed or never added");
    }
    match keep(core, |core| core.identity.retire()).await {
        Ok(()) => format!("this member was removed: the cluster has no member {id} any more"),
        Err(error) => error,
    }
}

fn start_of(core: &Core) -> Change {
    let Member { name, api_url, client_urls, .. } =
        core.told.get(&core.id).cloned().unwrap_or_default();
    Change::Start { id: core.id, disk: core.identity.disk(), name, api_url, client_urls }
}

/// What the membership should say of this member and does not.
fn unsaid(core: &Core) -> Option<Change> {
    let group = core.group.borrow();
    let (_, now) = group.nodes().find(|(id, _)| **id == core.id)?;
    let start = start_of(core);
    let Change::Start { disk, name, api_url, client_urls, .. } = &start else { return None };
    let said = now.disk == *disk
        && now.name == *name
        && now.api_url == *api_url
        && now.client_urls == *client_urls;
    (!said).then_some(start)
}

/// Asks whoever may lead to name this disk in the log. This member is no help in committing that.
async fn ask_to_be_named(core: &Arc<Core>, answers: &Answers) -> Result<(), String> {
    let change = start_of(core);
    let leader = answers.values().flatten().map(|answer| answer.leader).find(|id| *id != 0);
    let others = answers.iter().filter(|(_, answer)| answer.is_ok()).map(|(id, _)| *id);
    for id in leader.into_iter().chain(others) {
        match core.change_at(id, &change, false, Instant::now() + DEADLINE).await {
            Ok(Changed { cluster, index, .. }) => {
                return keep(core, move |core| core.identity.name(cluster, index)).await;
            }
            Err(error @ (Refusal::NotFound | Refusal::OtherDisk)) => {
                return Err(refused(core, &error).await);
            }
            Err(error) => tracing::debug!(?error, id, "not named yet"),
        }
    }
    Ok(())
}

/// The first start of all: one founder after the other, by their ids, proposes the membership that all
/// of them were told, as soon as a majority has founded. What the first proposes, the others get.
async fn found(core: &Arc<Core>, turn: Duration) -> Result<(), String> {
    let stopped = |error: &dyn std::fmt::Display| format!("found the cluster: {error}");
    let rank = core.told.keys().filter(|id| **id < core.id).count();
    let mut wait = turn.saturating_mul(u32::try_from(rank).unwrap_or(u32::MAX));
    loop {
        let standing = core.identity.standing();
        let initialized = core.raft.is_initialized().await.map_err(|e| stopped(&e))?;
        if standing != Standing::Founder || initialized {
            return Ok(());
        }
        let answers = core.ask_around().await;
        judge(core, &answers).await?;
        let founders = answers.values().flatten().filter(|a| a.founder || a.established).count();
        if answers.values().flatten().any(|a| a.established) {
            // Somebody leads, and will bring this member up.
            sleep(ROUND).await;
        } else if !is_majority(founders + 1, core.told.len()) {
            sleep(ROUND).await;
        } else if wait.is_zero() {
            // Only what the cluster's id covers: the others must propose the very same.
            let members = core.told.iter().map(|(id, member)| {
                let peer_urls = member.peer_urls.clone();
                (*id, Member { peer_urls, votes: true, ..Member::default() })
            });
            let members: std::collections::BTreeMap<u64, Member> = members.collect();
            match core.raft.initialize(members).await {
                Ok(()) => return Ok(()),
                // Another founder was first after all, and has asked this one for its vote meanwhile.
                Err(RaftError::APIError(InitializeError::NotAllowed(_))) => sleep(ROUND).await,
                Err(error) => return Err(stopped(&error)),
            }
        } else {
            let begun = core.until(|now| now.last_log_index.is_some());
            let _ = timeout(wait, begun).await;
            wait = Duration::ZERO;
        }
    }
}
