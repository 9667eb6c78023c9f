//! One member takes another one's place, in an order in which the group is never weaker than before.

use crate::{Cluster, MemberChange, MemberError, MemberInfo};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two questions whether the new member has caught up.
const LOOK: Duration = Duration::from_millis(200);
/// For one change of the membership.
const CHANGE: Duration = Duration::from_secs(10);

/// How far a replacement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// The new member is known, by this id, and is to be started.
    Added(u64),
    /// It has started and receives the log.
    Started(u64),
    /// It votes.
    Promoted(u64),
    /// The old member is out for ever.
    Removed(u64),
}

/// Adds a learner at `peer_urls`, waits until somebody has started it and it has caught up, lets it
/// vote, and takes the old member out. Begun again after an interruption, it goes on where it was.
/// The new member's id.
///
/// # Errors
/// The old member is not there; the new one was not up to date within `deadline`; a change was refused.
/// What was done by then stays.
pub async fn replace_member(
    cluster: &dyn Cluster,
    old: u64,
    peer_urls: Vec<String>,
    deadline: Duration,
    mut told: impl FnMut(Replaced) + Send,
) -> Result<u64, MemberError> {
    let until = Instant::now() + deadline;
    let found = |members: &[MemberInfo]| members.iter().find(|m| m.peer_urls == peer_urls).cloned();
    let members = cluster.members();
    if !members.iter().any(|m| m.id == old) {
        return Err(MemberError::NotFound);
    }
    let new = match found(&members) {
        Some(new) if new.id != old => new,
        Some(_) => return Err(MemberError::PeerUrlExists),
        None => {
            let add = MemberChange::Add { peer_urls: peer_urls.clone(), learner: true };
            let members = cluster.change_members(add, CHANGE).await?;
            found(&members).ok_or(MemberError::NotFound)?
        }
    };
    let id = new.id;
    told(Replaced::Added(id));
    let mut started = false;
    let mut learner = new.learner;
    while learner {
        let now = cluster.members().into_iter().find(|m| m.id == id);
        if !started && now.is_some_and(|m| !m.name.is_empty()) {
            started = true;
            told(Replaced::Started(id));
        }
        match cluster.change_members(MemberChange::Promote { id }, CHANGE).await {
            Ok(_) | Err(MemberError::NotLearner) => learner = false,
            // Behind, away or overtaken by a change of the leader: all of it passes.
            Err(MemberError::NotInSync | MemberError::Unhealthy | MemberError::Store(_))
                if Instant::now() < until =>
            {
                sleep(LOOK).await;
            }
            Err(error) => return Err(error),
        }
    }
    told(Replaced::Promoted(id));
    match cluster.change_members(MemberChange::Remove { id: old }, CHANGE).await {
        Ok(_) | Err(MemberError::NotFound) => {
            told(Replaced::Removed(old));
            Ok(id)
        }
        Err(error) => Err(error),
    }
}
