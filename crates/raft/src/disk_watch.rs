//! Watches this replica's disk: hands over the lead when it stalls, has writes refused while it is
//! full, and has snapshots written before the log behind them gets long.

use crate::{config::RaftConfig, core::Core, log_store::probe, store::RaftStore};
use std::{
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{
    Alarm, AlarmKind, Cluster as _, DiskState, MemberRole, Op, Origin, Proposal, RequestId,
    Store as _,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Between two looks at what waits for the disk.
const LOOK: Duration = Duration::from_millis(25);
/// Between two looks at the room that is left.
const ROOM: Duration = Duration::from_millis(500);
/// Writes in a row that must be fast before a disk that has stalled counts as good.
const PROOFS: u32 = 5;
/// Between two of them.
const PROOF_PAUSE: Duration = Duration::from_millis(200);
/// For the others to say how their disks are.
const ASK: Duration = Duration::from_millis(150);
/// For another member to take the lead, before the next one is asked.
const TAKE: Duration = Duration::from_millis(500);
/// For an alarm to be committed, before it is proposed again.
const COMMIT: Duration = Duration::from_secs(5);

/// How the disk is, as of the last look.
#[derive(Debug, Default)]
pub(crate) struct DiskHealth {
    stalled: AtomicBool,
    low: AtomicBool,
    stalls: AtomicU64,
}

impl DiskHealth {
    pub(crate) fn state(&self) -> DiskState {
        if self.low.load(Ordering::Relaxed) {
            DiskState::Full
        } else if self.is_stalled() {
            DiskState::Stalled
        } else {
            DiskState::Ok
        }
    }

    /// It must not lead, nor help others to: its disk has to prove good first.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    pub(crate) fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }
}

/// Until `stop`.
pub(crate) async fn watch_disk(
    store: Weak<RaftStore>,
    config: RaftConfig,
    dir: PathBuf,
    stop: CancellationToken,
) {
    let Some(core) = store.upgrade().map(|store| Arc::clone(&store.core)) else { return };
    let all = async {
        tokio::join!(
            stalls(&core, config.disk.stall),
            room(&core, &config, dir),
            snapshots(&core, config.disk.snapshot_log_bytes),
            alarms(&store, &core),
            hand_over(&store, &core),
        )
    };
    tokio::select! {
        _ = all => {}
        () = stop.cancelled() => {}
    }
}

async fn stalls(core: &Core, most: Duration) {
    let good = most / 4;
    loop {
        sleep(LOOK).await;
        let waiting = core.wal.counters().waiting();
        if waiting < most {
            continue;
        }
        core.disk.stalled.store(true, Ordering::Relaxed);
        core.disk.stalls.fetch_add(1, Ordering::Relaxed);
        core.raft.runtime_config().elect(false);
        tracing::error!(
            ?waiting,
            "the disk has stalled: this replica does not lead until it proves good"
        );
        let mut proofs = 0;
        while proofs < PROOFS {
            sleep(PROOF_PAUSE).await;
            let start = Instant::now();
            match probe(&core.wal).await {
                // The log has failed, and the process is about to end.
                Err(_) => return,
                Ok(()) if start.elapsed() <= good => proofs += 1,
                Ok(()) => proofs = 0,
            }
        }
        core.disk.stalled.store(false, Ordering::Relaxed);
        core.raft.runtime_config().elect(true);
        tracing::info!("the disk proves good again");
    }
}

async fn room(core: &Core, config: &RaftConfig, dir: PathBuf) {
    loop {
        let (disk, asked) = (Arc::clone(&config.disk.disk), dir.clone());
        let found = world::blocking(move || disk.free_bytes(&asked)).await;
        match found.map_err(std::io::Error::other).and_then(|free| free) {
            Ok(free) => {
                let live = core.hub.view().live_bytes();
                let snapshot = core.snapshot_bytes.load(Ordering::Relaxed).max(live + live / 4);
                let reserve =
                    config.disk.reserve_bytes.unwrap_or(2 * config.segment_bytes + snapshot);
                let was = core.disk.low.load(Ordering::Relaxed);
                // A segment more, lest it change with every one that comes and goes.
                let enough = reserve + if was { config.segment_bytes } else { 0 };
                let low = free < enough || core.wal.counters().no_room();
                core.disk.low.store(low, Ordering::Relaxed);
                if low && !was {
                    tracing::error!(free, reserve, "the disk is full: writes are refused");
                } else if was && !low {
                    tracing::info!(free, "there is room on the disk again");
                }
            }
            Err(error) => tracing::warn!(%error, dir = %dir.display(), "free space not known"),
        }
        sleep(ROOM).await;
    }
}

/// How long a restart takes grows with the log behind the last snapshot, and openraft counts entries,
/// not bytes.
async fn snapshots(core: &Core, log_bytes: u64) {
    let (mut last, mut since) = (None, 0);
    loop {
        sleep(ROOM).await;
        let metrics = core.metrics();
        let written = core.wal.counters().bytes();
        let index = metrics.snapshot.map(|id| id.index);
        if index != last {
            (last, since) = (index, written);
        }
        let most = log_bytes.max(core.snapshot_bytes.load(Ordering::Relaxed) / 2);
        let applied = metrics.last_applied.map(|id| id.index);
        // It does nothing while another one is being written, and is asked for again until one has come.
        if written - since > most
            && applied > index
            && core.raft.trigger().snapshot().await.is_err()
        {
            return;
        }
    }
}

/// Has writes that need room refused by all while this disk is full.
async fn alarms(store: &Weak<RaftStore>, core: &Core) {
    let client = rand::random::<u64>();
    let alarm = Alarm { kind: AlarmKind::NoSpace, member: core.id };
    let mut sequence = 0;
    // What an earlier process of this member has raised stands until there is room.
    let mut raised = true;
    loop {
        sleep(ROOM).await;
        let low = core.disk.low.load(Ordering::Relaxed);
        let Some(store) = store.upgrade() else { return };
        let stands = store.view().alarms().contains(&alarm);
        if low == raised && (!low || stands) {
            continue;
        }
        if !low && !stands {
            raised = false;
            continue;
        }
        sequence += 1;
        let request = RequestId { client, sequence };
        let op = Op::Alarm { alarm, active: low };
        let proposal = Proposal { request, origin: Origin::Client, op };
        match store.propose(proposal, COMMIT).await {
            Ok(_) => raised = low,
            Err(error) => tracing::warn!(%error, low, "the alarm is not committed yet"),
        }
    }
}

/// Gives the lead to a member whose disk is better.
async fn hand_over(store: &Weak<RaftStore>, core: &Core) {
    loop {
        sleep(LOOK).await;
        if core.disk.state() == DiskState::Ok || core.leader() != Some(core.id) {
            continue;
        }
        let Some(store) = store.upgrade() else { return };
        let progress = core.metrics().replication.unwrap_or_default();
        let status = store.status(ASK).await;
        let able = status.members.iter().filter(|member| {
            let votes = member.role == MemberRole::Follower;
            member.id != core.id && member.reachable && votes && member.disk == DiskState::Ok
        });
        let to = able.max_by_key(|member| {
            progress.get(&member.id).and_then(|log| log.as_ref().map(|log| log.index))
        });
        let Some(to) = to.map(|member| member.id) else {
            // Nobody is better. A full disk can still delete; a stalled one is behind the others.
            sleep(ROOM).await;
            continue;
        };
        let disk = core.disk.state();
        match timeout(TAKE * 2, store.transfer_leader(Some(to), TAKE)).await {
            Ok(Ok(leader)) => tracing::warn!(%disk, leader, "handed over the lead"),
            Ok(Err(error)) => tracing::warn!(%disk, to, %error, "the lead is not taken"),
            Err(_) => tracing::warn!(%disk, to, "the lead is not taken"),
        }
    }
}
