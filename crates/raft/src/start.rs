//! From a data directory and a listener to a replica that answers its peers.

use crate::{
    admission::admission,
    batch::{ENTRIES_IN_FLIGHT, batch},
    campaign::campaign,
    config::{Clock, RaftConfig},
    connection::accept,
    core::Core,
    disk_watch::{DiskHealth, watch_disk},
    expiry::expire_leases,
    forward::forward,
    heartbeat::{answer_within, beat},
    identity::{self, Identity},
    lead::lead,
    log_store::LogStore,
    network::Factory,
    peer::peer_service_server::PeerServiceServer,
    peer_server::PeerServer,
    peers::{MESSAGE_BYTES_MAX, Peers},
    reads::read_rounds,
    renewals::renewal_rounds,
    silence::listen,
    snapshots::take_snapshots,
    state_machine::StateMachine,
    store::RaftStore,
    tend::tend,
    types::Raft,
    wal::{Wal, WalError},
};
use openraft::{Config, SnapshotPolicy, async_runtime::watch::WatchReceiver as _, errors::Fatal};
use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};
use store::Leadership;
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use world::net::TcpListener;

/// Proposals that may wait for a place in a batch; beyond it callers are told that it is busy.
const QUEUE: usize = 16_384;
/// Between two tries to connect to a member, at most: elections over long ways are slower than ways are long.
const CONNECT_AGAIN: Duration = Duration::from_millis(250);
/// Elections that may fail, one after the other, before a majority is taken to be gone.
const ELECTIONS: u32 = 12;

/// Elections within which a leader is heard, or not named any more: longer than it takes to be replaced.
const SILENT: u32 = 8;

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the data directory.
    #[error("data directory {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The data directory belongs to another member.
    #[error("{0}")]
    Identity(String),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] crate::wal::WalError),
    /// Anything else, by step.
    #[error("{step}: {source}")]
    Io {
        /// What was tried.
        step: String,
        /// How it failed.
        source: io::Error,
    },
    /// The consensus does not start.
    #[error("start raft: {0}")]
    Raft(String),
}

impl StartError {
    /// What was on disk is not what had been written there: the replica is to be built again from the
    /// others.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        match self {
            Self::Log(WalError::Corrupt { .. }) => true,
            Self::Io { source, .. } => {
                let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>());
                inner.unwrap_or(source).kind() == io::ErrorKind::InvalidData
            }
            Self::Log(WalError::Io { .. }) | Self::InUse(_) | Self::Identity(_) | Self::Raft(_) => {
                false
            }
        }
    }
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    step: impl Into<String>,
) -> impl FnOnce(E) -> StartError {
    let step = step.into();
    move |source| StartError::Io { step, source: io::Error::other(source) }
}

impl RaftStore {
    /// Opens the data directory and joins the others. Returns as soon as this replica answers them.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start(
        config: RaftConfig,
        clock: Clock,
        listener: impl Into<TcpListener>,
    ) -> Result<Arc<Self>, StartError> {
        let dirs = ["log", "snapshots"].map(|name| config.data_dir.join(name));
        let disk = Arc::clone(&config.disk.disk);
        disk.create_dir_all(&config.data_dir)
            .map_err(failed(format!("create {}", config.data_dir.display())))?;
        for dir in &dirs {
            disk.create_dir_all(dir).map_err(failed(format!("create {}", dir.display())))?;
        }
        let [log_dir, snapshot_dir] = dirs;
        let watched = config.data_dir.clone();
        let lock = identity::lock(&*disk, &config.data_dir)?;
        let identity = Arc::new(Identity::open(&config, &log_dir)?);
        let (failure, failed_watch) = watch::channel(None);
        let failure = Arc::new(failure);
        let on_failure = {
            let failure = Arc::clone(&failure);
            Box::new(move |error: &crate::wal::WalError| {
                tracing::error!(%error, "the log has failed; this replica must stop");
                failure.send_replace(Some(error.to_string()));
            })
        };
        let segment_bytes = config.segment_bytes;
        let (wal, machine) = world::blocking(move || {
            let wal = Wal::open(Arc::clone(&disk), &log_dir, segment_bytes, on_failure)?;
            let purged = wal.marks().purged.map(|(last, _)| last);
            let machine = StateMachine::open(disk, snapshot_dir, purged)
                .map_err(failed("load a snapshot"))?;
            Ok::<_, StartError>((Arc::new(wal), machine))
        })
        .await
        .map_err(failed("open the data directory"))??;
        let (hub, applied, sweep) = (machine.hub(), machine.applied(), machine.sweep());
        let shown = machine.shown();
        let (leases, stages) = (machine.leases(), machine.stages());
        let (snapshot_bytes, applies_from) = (machine.snapshot_bytes(), machine.applies_from());
        let tls = config.tls.clone();
        let election = config.timers.election_max;
        let again = election.min(CONNECT_AGAIN);
        let peers = Peers::new(Arc::clone(&identity), &config.members, again, tls);
        let group = machine.membership();
        let raft = Raft::build(
            config.id,
            Arc::new(raft_config(&config)?),
            Factory { peers: peers.clone(), wal: Arc::clone(&wal) },
            LogStore::new(Arc::clone(&wal), Arc::clone(&stages)),
            machine,
        )
        .await
        .map_err(|e| StartError::Raft(e.to_string()))?;
        raft.run();
        let (proposals, queue) = mpsc::channel(QUEUE);
        let (forwards, outgoing) = mpsc::channel(QUEUE);
        let (leads, leads_watch) = watch::channel(None);
        let core = Arc::new(Core {
            id: config.id,
            raft,
            leases,
            hub,
            applied,
            shown,
            wal,
            stages,
            disk: DiskHealth::default(),
            snapshot_bytes,
            applies_from,
            clock,
            lease_client: rand::random(),
            lease_sequence: AtomicU64::new(1),
            proposals,
            entries: Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT as usize)),
            forwards,
            leads: leads_watch,
            silent_term: AtomicU64::new(0),
            leader_hung_up: Notify::new(),
            identity,
            peers,
            told: config.members.clone(),
            join: config.join,
            group,
            changing: tokio::sync::Mutex::new(()),
            failure,
            patience: election * 4,
        });
        let (barriers, waiting) = mpsc::channel(QUEUE);
        let (renewals, to_renew) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        let store = Arc::new(Self {
            core: Arc::clone(&core),
            leaderless_max: config.timers.election_max * ELECTIONS,
            leadership: watch::Sender::new(Leadership::Following),
            barriers,
            renewals,
            stop: stop.clone(),
            tasks: Mutex::new(None),
            failed: failed_watch,
            _lock: lock,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(&config, Arc::clone(&core), listener.into(), stop.clone()));
        tasks.spawn(sweep);
        tasks.spawn(batch(Arc::clone(&core), queue, stop.clone()));
        tasks.spawn(forward(Arc::clone(&core), outgoing, stop.clone()));
        tasks.spawn(beat(Arc::clone(&core), config.timers.heartbeat, stop.clone()));
        tasks.spawn(campaign(Arc::clone(&core), election, stop.clone()));
        tasks.spawn(follow(Arc::clone(&core), leads));
        tasks.spawn(listen(Arc::clone(&core), election * SILENT, stop.clone()));
        tasks.spawn(admission(Arc::clone(&core), election * 2, stop.clone()));
        tasks.spawn(take_snapshots(Arc::clone(&core), config.snapshot_entries, stop.clone()));
        tasks.spawn(tend(Arc::clone(&core), stop.clone()));
        let weak = Arc::downgrade(&store);
        tasks.spawn(read_rounds(weak.clone(), waiting));
        tasks.spawn(renewal_rounds(weak.clone(), to_renew));
        tasks.spawn(lead(weak.clone(), stop.clone()));
        tasks.spawn(watch_disk(weak.clone(), config.clone(), watched, stop.clone()));
        tasks.spawn(expire_leases(weak, stop));
        *store.tasks.lock().unwrap_or_else(PoisonError::into_inner) = Some(tasks);
        Ok(store)
    }
}

fn raft_config(config: &RaftConfig) -> Result<Config, StartError> {
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let timers = config.timers;
    Config {
        cluster_name: "trireme".to_owned(),
        heartbeat_interval: millis(answer_within(&timers)),
        election_timeout_min: millis(timers.election_min),
        election_timeout_max: millis(timers.election_max),
        enable_pre_vote: Some(true),
        // See `take_snapshots`.
        snapshot_policy: SnapshotPolicy::Never,
        // Enough for a follower that was away for a moment to catch up from the log.
        max_in_snapshot_log_to_keep: config.snapshot_entries / 10,
        replication_lag_threshold: config.snapshot_entries.saturating_mul(2),
        install_snapshot_timeout: 60_000,
        // A leader may have lost entries of its term that it had sent before they were on its own
        // disk, and that the others have committed: led on in that term, it would give their places to
        // other entries of the same id.
        enable_leader_restore: Some(false),
        ..Config::default()
    }
    .validate()
    .map_err(|e| StartError::Raft(e.to_string()))
}

/// Notes who leads and who the peers are, where the last membership in the log has them, committed or
/// not; and that raft has ended, without which this replica would sit there, connected and mute.
async fn follow(core: Arc<Core>, leads: watch::Sender<Option<u64>>) {
    let mut metrics = core.raft.metrics();
    let mut known = None;
    loop {
        let (leader, group, ended) = {
            let now = metrics.borrow_and_update();
            let ended = now.running_state.clone().err();
            (now.current_leader, Arc::clone(&now.membership_config), ended)
        };
        match ended {
            None => {}
            Some(Fatal::Stopped) => return,
            Some(why) => return core.fail(format!("raft has ended: {why}")),
        }
        leads.send_if_modified(|now| std::mem::replace(now, leader) != leader);
        if *group.log_id() != known {
            known = *group.log_id();
            core.peers.follow(&group);
        }
        if metrics.changed().await.is_err() {
            return core.fail("raft has ended without a word".to_owned());
        }
    }
}

fn serve(
    config: &RaftConfig,
    core: Arc<Core>,
    listener: TcpListener,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let (disk, snapshot_dir) = (Arc::clone(&config.disk.disk), config.data_dir.join("snapshots"));
    let service = PeerServer { core, disk, snapshot_dir };
    let service = PeerServiceServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let connections = accept(listener, config.tls.as_ref(), stop.clone());
    async move {
        let mut server = tonic::transport::Server::builder()
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        let served = server.add_service(service).serve_with_incoming(connections);
        // Not the graceful way: a peer's stream has no end of its own.
        tokio::select! {
            result = served => {
                if let Err(error) = result {
                    tracing::error!(%error, "peers are not served any more");
                }
            }
            () = stop.cancelled() => {}
        }
    }
}
