//! Members that come and go while the others serve.

use super::{Cluster, LOOK_AGAIN, PATIENCE, local, silent};
use crate::wire::{CallError, Connection, frame, path};
use anyhow::{Context as _, ensure};
use etcd::proto::etcdserverpb::{
    Member as Listed, MemberAddRequest, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberRemoveRequest,
};
use std::{fs, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// For one answer: a change of members has to be agreed on.
const ANSWER: Duration = Duration::from_secs(10);

impl Cluster {
    /// Adds a member with an empty directory as a learner, starts it, and lets it vote when it has caught up.
    ///
    /// # Errors
    /// The others do not take it in time.
    pub(crate) async fn add_member(&mut self) -> anyhow::Result<()> {
        let endpoints = self.endpoints();
        let member = self.new_member()?;
        let url = member.peer_url.clone();
        let add = MemberAddRequest { peer_ur_ls: vec![url.clone()], is_learner: true };
        let is_new = |listed: &&Listed| listed.peer_ur_ls.contains(&url);
        let listed =
            change(&endpoints, path::MEMBER_ADD, &add, |all| all.iter().any(|m| is_new(&m)))
                .await
                .context("add a member")?;
        let id = listed.iter().find(is_new).map(|m| m.id).context("a member that was added")?;
        self.members.push(member);
        let all = self.initial_cluster();
        let index = self.members.len() - 1;
        let member = self.members.get_mut(index).context("the last member")?;
        member.arguments = member.flags(&self.system, &all, "existing");
        self.start_member(index)?;
        let promote = MemberPromoteRequest { id };
        let votes = |all: &[Listed]| all.iter().any(|m| m.id == id && !m.is_learner);
        let promoted = change(&endpoints, path::MEMBER_PROMOTE, &promote, votes).await;
        promoted.with_context(|| format!("promote a member\n{}", self.log_tails()))?;
        Ok(())
    }

    /// Removes a member from the cluster, ends its process and wipes its directory.
    ///
    /// # Errors
    /// The others do not let it go in time.
    pub(crate) async fn remove_member(&mut self, index: usize) -> anyhow::Result<()> {
        let id = self.member_id(index).await?;
        let mut others = self.endpoints();
        ensure!(index < others.len(), "no such member");
        others.remove(index);
        let remove = MemberRemoveRequest { id };
        let is_gone = |all: &[Listed]| !all.iter().any(|m| m.id == id);
        change(&others, path::MEMBER_REMOVE, &remove, is_gone).await.context("remove a member")?;
        // Dropping it ends its process, if that has not ended itself.
        let dir = self.members.remove(index).dir.clone();
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))
    }
}

/// Asks one after another for a change until the list of members shows it: an answer may be lost.
async fn change(
    endpoints: &[String],
    path: &'static str,
    request: &impl prost::Message,
    is_done: impl Fn(&[Listed]) -> bool,
) -> anyhow::Result<Vec<Listed>> {
    let deadline = Instant::now() + PATIENCE;
    for endpoint in endpoints.iter().cycle() {
        let refused = ask(endpoint, async |connection| {
            connection.route(path).call_blind(frame(request)).await
        });
        let refused = refused.await.err();
        let listed = ask(endpoint, async |connection| {
            let list = MemberListRequest { linearizable: true };
            connection.unary::<MemberListResponse>(path::MEMBER_LIST, &list).await
        });
        match listed.await {
            Ok(listed) if is_done(&listed.members) => return Ok(listed.members),
            Ok(_) | Err(_) => {}
        }
        if Instant::now() > deadline {
            return match refused {
                Some(error) => Err(error).context(format!("not after {PATIENCE:?}")),
                None => anyhow::bail!("the list of members does not show it after {PATIENCE:?}"),
            };
        }
        sleep(LOOK_AGAIN).await;
    }
    anyhow::bail!("no member to ask")
}

async fn ask<T>(
    endpoint: &str,
    call: impl AsyncFnOnce(Connection) -> Result<T, CallError>,
) -> Result<T, CallError> {
    let answer = async { call(Connection::open(endpoint).await?).await };
    local(async { timeout(ANSWER, answer).await.unwrap_or_else(|_| silent(endpoint)) }).await
}
