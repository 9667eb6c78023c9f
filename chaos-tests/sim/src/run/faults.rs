//! How what goes wrong begins, lasts and ends.

use super::{ADMIN, RESTART, Simulation};
use crate::{
    Millis,
    plan::{Fault, What, derive},
};
use std::net::IpAddr;
use store::{Cluster as _, MemberRole};

impl Simulation {
    /// For how long a machine is to be without power, as the fault that took it says.
    pub(super) fn dark_for(&self, number: usize) -> Millis {
        let ends = self.active.iter().filter(|(_, fault)| {
            let own = matches!(fault.what, What::PowerCut { replica, .. } if replica == number);
            own || fault.what == What::Blackout
        });
        ends.map(|(end, _)| end.saturating_sub(self.now)).max().unwrap_or(RESTART)
    }

    /// Somebody asks for votes: whose power was to go then loses it soon.
    pub(super) fn begin_election(&mut self) {
        let armed = self
            .active
            .extract_if(.., |(_, fault)| matches!(fault.what, What::CutInElection { .. }));
        for (_, fault) in armed {
            let What::CutInElection { replica, calls } = fault.what else { continue };
            if let Some(replica) = self.replicas.get(replica) {
                let seed = derive(self.plan.seed, "fault's own", fault.number as u64);
                replica.disk.cut_after(calls, seed);
            }
        }
    }

    /// The number of the replica that leads in the latest term.
    fn leader(&self) -> Option<usize> {
        let leaders = (0..).zip(&self.replicas).filter_map(|(number, replica)| {
            let local = replica.store()?.local();
            (local.role == MemberRole::Leader).then_some((local.term, number))
        });
        leaders.max().map(|(_, number)| number)
    }

    pub(super) fn begin(&mut self, mut fault: Fault) {
        if fault.at_leader
            && let Some(leader) = self.leader()
        {
            fault.what.aim_at(leader);
        }
        self.shared.trace.event(self.now, "world", format_args!("{fault}"));
        self.record.faults.push((self.now, fault.to_string()));
        let end = self.now + fault.lasts;
        let seed = derive(self.plan.seed, "fault's own", fault.number as u64);
        let now = self.now;
        let replicas = &mut self.replicas;
        match &fault.what {
            What::Kill(number) => {
                if let Some(replica) = replicas.get_mut(*number) {
                    replica.kill(now);
                    replica.up_at = Some(replica.up_at.unwrap_or_default().max(end));
                }
            }
            What::CrashAgain { replica, by_sync, syncs } => {
                if let Some(replica) = replicas.get_mut(*replica) {
                    if *by_sync {
                        replica.disk.change(|faults| faults.fail_sync = true);
                    } else {
                        replica.kill(now);
                        replica.up_at = Some(replica.up_at.unwrap_or_default().max(end));
                    }
                    replica.cut_at_start = Some((*syncs, seed));
                }
            }
            // It waits for the next election.
            What::CutInElection { .. } => {}
            What::PowerCut { replica, calls } => {
                if let Some(replica) = replicas.get_mut(*replica) {
                    match calls {
                        0 => replica.disk.cut(seed),
                        calls => replica.disk.cut_after(*calls, seed),
                    }
                }
            }
            What::Blackout => {
                for (number, replica) in (0..).zip(replicas.iter()) {
                    replica.disk.cut(derive(seed, "blackout", number));
                }
            }
            What::Stop(number) => {
                if let Some(replica) = replicas.get_mut(*number) {
                    replica.machine.stopped = replica.machine.runs();
                }
            }
            What::FailSync(number) => {
                if let Some(replica) = replicas.get_mut(*number) {
                    replica.disk.change(|faults| faults.fail_sync = true);
                }
            }
            What::FailWrite(number) => {
                if let Some(replica) = replicas.get_mut(*number) {
                    replica.disk.change(|faults| faults.fail_write = true);
                }
            }
            What::FullDisk { replica, room } => {
                if let Some(replica) = replicas.get_mut(*replica) {
                    replica.disk.change(|faults| faults.room = Some(*room));
                }
            }
            What::ClockJump { replica, by_us } => {
                if let Some(replica) = replicas.get_mut(*replica) {
                    replica.machine.wall_offset_us += by_us;
                }
            }
            What::Drift { replica, rate } => {
                if let Some(replica) = replicas.get_mut(*replica) {
                    replica.machine.rate = *rate;
                }
            }
            What::Snapshot(number) => {
                if let Some(replica) = replicas.get_mut(*number)
                    && let Some(store) = replica.store()
                {
                    replica.machine.spawn(async move {
                        let _ = tokio::time::timeout(ADMIN, store.snapshot()).await;
                    });
                }
            }
            What::Transfer(number) => {
                if let Some(replica) = replicas.get_mut(*number)
                    && let Some(store) = replica.store()
                {
                    replica.machine.spawn(async move {
                        let _ =
                            tokio::time::timeout(ADMIN, store.transfer_leader(None, ADMIN)).await;
                    });
                }
            }
            What::Add { by, learner } => self.add_member(*by, *learner),
            What::Remove { by, replica } => self.remove_member(*by, *replica),
            What::Partition(_)
            | What::OneWay(..)
            | What::Slow { .. }
            | What::Loss(_)
            | What::SlowDisk { .. }
            | What::StalledDisk(_) => {}
        }
        self.active.push((end, fault));
        self.apply_lasting();
    }

    pub(super) fn end_faults(&mut self, upto: Millis) {
        let (ended, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.active).into_iter().partition(|(end, _)| *end <= upto);
        self.active = left;
        if ended.is_empty() {
            return;
        }
        for (_, fault) in ended {
            self.shared.trace.event(self.now, "world", format_args!("ends: {fault}"));
            match fault.what {
                What::Stop(number) => {
                    let others = self.active.iter().any(|(_, other)| other.what == fault.what);
                    if let Some(replica) = self.replicas.get_mut(number) {
                        replica.machine.stopped &= others;
                    }
                }
                What::FullDisk { replica, .. } => {
                    if let Some(replica) = self.replicas.get_mut(replica) {
                        replica.disk.change(|faults| faults.room = None);
                    }
                }
                What::Drift { replica: number, .. } => {
                    let usual = self.plan.clocks.get(number).map_or(1.0, |(rate, _)| *rate);
                    if let Some(replica) = self.replicas.get_mut(number) {
                        replica.machine.rate = usual;
                    }
                }
                What::PowerCut { replica, .. } => {
                    // It did not come to so many calls.
                    if let Some(replica) = self.replicas.get_mut(replica) {
                        replica.disk.keep_power();
                    }
                }
                What::CrashAgain { replica: number, .. }
                | What::FailSync(number)
                | What::FailWrite(number) => {
                    if let Some(replica) = self.replicas.get_mut(number) {
                        replica.disk.change(|faults| {
                            (faults.fail_sync, faults.fail_write) = (false, false);
                        });
                    }
                }
                What::Kill(_)
                | What::CutInElection { .. }
                | What::Blackout
                | What::Partition(_)
                | What::OneWay(..)
                | What::Slow { .. }
                | What::Loss(_)
                | What::SlowDisk { .. }
                | What::StalledDisk(_)
                | What::ClockJump { .. }
                | What::Snapshot(_)
                | What::Add { .. }
                | What::Remove { .. }
                | What::Transfer(_) => {}
            }
        }
        self.apply_lasting();
    }

    /// Links and disks as all that lasts together makes them.
    fn apply_lasting(&mut self) {
        let active: Vec<&Fault> = self.active.iter().map(|(_, fault)| fault).collect();
        for (number, replica) in self.replicas.iter().enumerate() {
            let wanted = self.plan.disk_faults(number, &active);
            replica.disk.change(|faults| {
                (faults.sync_min, faults.sync_max) = (wanted.sync_min, wanted.sync_max);
                faults.stalled = wanted.stalled;
            });
        }
        self.network.heal();
        let all: Vec<IpAddr> = self.replicas.iter().map(|replica| replica.machine.ip).collect();
        let clients: Vec<IpAddr> = self.clients.iter().map(|client| client.ip).collect();
        for fault in active {
            if let What::Partition(group) = &fault.what {
                let inside: Vec<IpAddr> =
                    group.iter().filter_map(|number| all.get(*number).copied()).collect();
                // Every other time clients are on the side of the others.
                let with_clients = fault.number.is_multiple_of(2);
                let outside = all.iter().chain(clients.iter().filter(|_| with_clients));
                for other in outside.filter(|ip| !inside.contains(ip)) {
                    for ip in &inside {
                        self.network.change(*ip, *other, |link| link.cut = true);
                        self.network.change(*other, *ip, |link| link.cut = true);
                    }
                }
            }
            if let What::OneWay(from, to) = &fault.what
                && let (Some(from), Some(to)) = (all.get(*from), all.get(*to))
            {
                self.network.change(*from, *to, |link| link.cut = true);
            }
            if let What::Slow { from, to, latency, bandwidth } = &fault.what
                && let (Some(from), Some(to)) = (all.get(*from), all.get(*to))
            {
                self.network.change(*from, *to, |link| {
                    link.latency_max = link.latency_max.max(*latency);
                    link.bandwidth = *bandwidth;
                });
            }
            if let What::Loss(part) = &fault.what {
                for from in all.iter().chain(&clients) {
                    for to in all.iter().chain(&clients) {
                        self.network.change(*from, *to, |link| link.loss = *part);
                    }
                }
            }
        }
    }
}
