//! Up to where a linearizable read must have applied the log.

use crate::{peer::ReadIndexRequest, store::RaftStore};
use std::time::Duration;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};

impl RaftStore {
    pub(crate) async fn read_index(&self) -> Result<u64, String> {
        let until = Instant::now() + self.leaderless_max;
        let mut detail = String::new();
        while Instant::now() < until {
            let Some(leader) = self.leader(until).await else { return Err(self.leaderless()) };
            let index = if leader == self.core.id {
                self.core.read_index_here().await
            } else {
                self.read_index_at(leader).await
            };
            match index {
                Ok(index) => return Ok(index),
                Err(error) => detail = format!("; replica {leader}, which led last: {error}"),
            }
            sleep(Duration::from_millis(5)).await;
        }
        Err(self.leaderless() + &detail)
    }

    async fn read_index_at(&self, leader: u64) -> Result<u64, String> {
        let mut client = self.core.peers.client(leader).map_err(|e| e.to_string())?;
        tokio::select! {
            answer = client.read_index(ReadIndexRequest {}) => {
                answer.map(|a| a.into_inner().index).map_err(|s| s.message().to_owned())
            }
            () = self.core.until_leader_is_not(leader) => {
                Err("the leader changed".to_owned())
            }
        }
    }
}

/// One read round at a time serves everybody who waited when it began (FEN-36).
pub(crate) async fn read_rounds(
    store: std::sync::Weak<RaftStore>,
    mut waiting: mpsc::Receiver<oneshot::Sender<Result<u64, String>>>,
) {
    while let Some(first) = waiting.recv().await {
        let Some(store) = store.upgrade() else { return };
        let mut round = vec![first];
        while let Ok(next) = waiting.try_recv() {
            round.push(next);
        }
        let index = store.read_index().await;
        for answer in round {
            let _ = answer.send(index.clone());
        }
    }
}
