//! Members that are added to the cluster, and those that are taken out.

use super::Simulation;
use crate::{
    client::replica_ip,
    replica::{PEER_PORT, Replica},
};
use raft::Member;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use store::{Cluster as _, MemberChange, MemberError, MemberInfo, MemberRole};
use tokio::time::{sleep, timeout};

/// For one change.
const DEADLINE: Duration = Duration::from_secs(3);
/// For asking again when nothing is known to have come of it.
const TRIES: usize = 5;

/// Machines, by number, of members that were added, and the membership that they are told.
pub(super) type Admitted = Arc<Mutex<Vec<(usize, Vec<MemberInfo>)>>>;

fn peer_url(number: usize) -> String {
    format!("http://{}:{PEER_PORT}", replica_ip(number))
}

impl Simulation {
    /// Has a new machine added to the members, by way of this replica.
    pub(super) fn add_member(&mut self, by: usize, learner: bool) {
        let number = self.plan.replicas + self.ordered;
        let Some(asked) = self.replicas.get(by) else { return };
        let Some(store) = asked.store() else { return };
        self.ordered += 1;
        let (admitted, peer_urls) = (Arc::clone(&self.admitted), vec![peer_url(number)]);
        asked.machine.spawn(async move {
            for _ in 0..TRIES {
                let change = MemberChange::Add { peer_urls: peer_urls.clone(), learner };
                let members =
                    match timeout(DEADLINE * 2, store.change_members(change, DEADLINE)).await {
                        Ok(Ok(members)) => members,
                        // An earlier try has come through.
                        Ok(Err(MemberError::PeerUrlExists)) => store.members(),
                        Ok(Err(_)) | Err(_) => Vec::new(),
                    };
                if members.iter().any(|member| member.peer_urls == peer_urls) {
                    let mut admitted = admitted.lock().unwrap_or_else(PoisonError::into_inner);
                    admitted.push((number, members));
                    return;
                }
                sleep(DEADLINE / 4).await;
            }
        });
    }

    /// Has a member taken out, by way of this replica.
    pub(super) fn remove_member(&self, by: usize, number: usize) {
        let (Some(asked), Some(removed)) = (self.replicas.get(by), self.replicas.get(number))
        else {
            return;
        };
        let Some(store) = asked.store() else { return };
        let change = MemberChange::Remove { id: removed.id };
        asked.machine.spawn(async move {
            let _ = timeout(DEADLINE * 2, store.change_members(change, DEADLINE)).await;
        });
    }

    /// Starts the machines of members that were added.
    pub(super) fn start_admitted(&mut self) {
        let admitted = {
            let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *admitted)
        };
        for (number, members) in admitted {
            let own = peer_url(number);
            let Some(id) = members.iter().find(|member| member.peer_urls.contains(&own)) else {
                continue;
            };
            let id = id.id;
            let told: BTreeMap<u64, Member> = members
                .into_iter()
                .map(|member| {
                    let MemberInfo { id, name, peer_urls, client_urls, api_url, .. } = member;
                    (id, Member { name, peer_urls, client_urls, api_url, ..Member::default() })
                })
                .collect();
            let (network, trace) = (&self.network, &self.shared.trace);
            let replica = Replica::joining(&self.plan, number, id, told, network, trace);
            trace.event(self.now, "world", format_args!("{} was added", replica.machine.name));
            self.replicas.push(replica);
        }
    }

    /// Notes who is a member, as the leader says.
    pub(super) fn note_members(&self) {
        let leader = self
            .replicas
            .iter()
            .filter_map(Replica::store)
            .find(|store| store.local().role == MemberRole::Leader);
        if let Some(leader) = leader {
            *self.shared.members() = leader.members().iter().map(|member| member.id).collect();
        }
    }
}
