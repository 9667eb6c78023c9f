//! [`RaftStore`]: the replicated [`Store`], and what happens around the consensus.

use crate::{
    config::{Clock, PeerTls, RaftConfig},
    connection::Accepted,
    disk::RealDisk,
    identity::{self, DirLock},
    leases::Leases,
    log_store::LogStore,
    network::{Factory, MESSAGE_BYTES_MAX, Peers},
    peer::{
        ForwardRequest, ReadIndexRequest, RenewLeaseRequest, StatusRequest, StatusResponse,
        forward_response::Outcome as Forwarded, peer_service_server::PeerServiceServer,
    },
    peer_server::{PeerServer, ProposalWire},
    state_machine::StateMachine,
    types::{Batch, Metrics, Raft, decode, encode},
    wal::Wal,
};
use async_trait::async_trait;
use futures::StreamExt as _;
use openraft::{
    Config, ReadPolicy, ServerState, SnapshotPolicy,
    async_runtime::watch::WatchReceiver as _,
    errors::{ClientWriteError, RaftError},
};
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{
    Applied, Cluster, ClusterStatus, Command, Epoch, Leadership, LeaseId, LocalStatus,
    MemberChange, MemberError, MemberInfo, MemberRole, MemberStatus, Op, Origin, Proposal,
    RequestId, Revision, Store, StoreError,
    state::View,
    watch::{Hub, WatchError, WatchRequest, WatchSet, Watcher},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

/// Proposals that may wait for a place in a batch; beyond it callers are told that it is busy.
const QUEUE: usize = 16_384;
/// Bytes of commands in one log entry, unless one command alone is larger.
const BATCH_BYTES: usize = 1 << 20;
/// Commands in one log entry.
const BATCH_COMMANDS: usize = 1024;
/// Entries under way at once: few, so that what comes meanwhile shares the next.
const ENTRIES_IN_FLIGHT: usize = 4;
/// Between the followers' first requests for the lead, by their ids.
const CAMPAIGN_TURN: Duration = Duration::from_millis(40);
/// Between two requests of one follower.
const CAMPAIGN_RETRY: Duration = Duration::from_millis(10);
/// Elections that may fail, one after the other, before a majority is taken to be gone.
const ELECTIONS: u32 = 12;
/// A command larger than this would not fit in a segment.
const COMMAND_BYTES_MAX: usize = 8 << 20;

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

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    step: impl Into<String>,
) -> impl FnOnce(E) -> StartError {
    let step = step.into();
    move |source| StartError::Io { step, source: io::Error::other(source) }
}

/// How one try to propose on this replica went.
pub(crate) enum Attempt {
    Applied(Applied),
    /// Nothing was proposed here.
    NotLeader(Option<u64>),
    /// Proposed; it may still commit.
    Unknown(String),
}

struct Waiting {
    command: Command,
    answer: oneshot::Sender<Attempt>,
}

/// What the peers' server, the batcher and the store share.
pub(crate) struct Core {
    id: u64,
    pub(crate) raft: Raft,
    pub(crate) leases: Leases,
    hub: Arc<Hub>,
    applied: watch::Receiver<u64>,
    wal: Arc<Wal>,
    clock: Clock,
    proposals: mpsc::Sender<Waiting>,
    /// Term and last log index that this process began with.
    begun: (u64, u64),
    /// A stream of entries broke off: whoever sent them may have died.
    pub(crate) leader_hung_up: Notify,
}

impl Core {
    fn metrics(&self) -> Metrics {
        self.raft.metrics().borrow_watched().clone()
    }

    fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// The first metrics for which `wanted` holds; `None` when raft has ended.
    async fn until(&self, mut wanted: impl FnMut(&Metrics) -> bool) -> Option<Metrics> {
        let mut metrics = self.raft.metrics();
        loop {
            {
                let now = metrics.borrow_and_update();
                if wanted(&now) {
                    return Some(now.clone());
                }
            }
            metrics.changed().await.ok()?;
        }
    }

    /// Proposes on this replica, which must lead.
    pub(crate) async fn propose_here(&self, proposal: Proposal, deadline: Duration) -> Attempt {
        if self.leader() != Some(self.id) {
            return Attempt::NotLeader(self.leader());
        }
        let Proposal { request, origin, op } = proposal;
        let command = Command { at: (self.clock)(), request, origin, op };
        let (answer, answered) = oneshot::channel();
        if self.proposals.try_send(Waiting { command, answer }).is_err() {
            return Attempt::NotLeader(None);
        }
        match timeout(deadline, answered).await {
            Ok(Ok(attempt)) => attempt,
            Ok(Err(_)) => Attempt::Unknown("the replica is stopping".to_owned()),
            Err(_) => Attempt::Unknown(format!("not committed within {deadline:?}")),
        }
    }

    /// One quorum round: up to where a linearizable read must have applied the log.
    pub(crate) async fn read_index_here(&self) -> Result<u64, String> {
        // openraft lets a leader that was restarted lead on in its old term, and then knows only what
        // it had noted as committed: less than it had answered for. All of its log may have been
        // committed, and will be, because the term is its own. Asked before, because a term only grows.
        let (term, last) = self.begun;
        let least = if self.metrics().current_term == term { last } else { 0 };
        let linearizer = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        linearizer.map(|l| l.read_log_id().index().max(least)).map_err(|e| e.to_string())
    }

    /// As [`Leases::renew`].
    pub(crate) fn renew_lease_here(&self, id: LeaseId) -> Option<Option<i64>> {
        self.leases.renew(id, &self.hub.view())
    }

    pub(crate) fn own_status(&self) -> StatusResponse {
        let metrics = self.metrics();
        let view = self.hub.view();
        let counters = self.wal.counters();
        StatusResponse {
            id: self.id,
            role: role(metrics.state).to_string(),
            term: metrics.current_term,
            applied_index: *self.applied.borrow(),
            revision: view.revision().get(),
            state_hash: view.hash(),
            sync_p99_us: counters.sync_p99_us(),
            syncs: counters.syncs(),
            appended: counters.entries(),
            rss_bytes: resident_bytes(),
        }
    }
}

/// Resident memory of this process; 0 when the kernel does not say.
fn resident_bytes() -> u64 {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or_default();
    pages * 4096
}

/// A replica's store. Cheap to share; [`RaftStore::shutdown`] ends it.
pub struct RaftStore {
    core: Arc<Core>,
    peers: Peers,
    members: BTreeMap<u64, crate::types::Member>,
    cluster_id: u64,
    /// Without a leader for so long, callers are told instead of kept waiting.
    leaderless_max: Duration,
    leadership: watch::Sender<Leadership>,
    barriers: mpsc::Sender<oneshot::Sender<Result<u64, String>>>,
    stop: CancellationToken,
    tasks: Mutex<Option<JoinSet<()>>>,
    failed: watch::Receiver<Option<String>>,
    _lock: DirLock,
}

impl std::fmt::Debug for RaftStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftStore").field("id", &self.core.id).finish_non_exhaustive()
    }
}

impl RaftStore {
    /// Opens the data directory and joins the others. Returns as soon as this replica answers them.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start(
        config: RaftConfig,
        clock: Clock,
        listener: TcpListener,
    ) -> Result<Arc<Self>, StartError> {
        let dirs = ["log", "snapshots"].map(|name| config.data_dir.join(name));
        for dir in &dirs {
            std::fs::create_dir_all(dir).map_err(failed(format!("create {}", dir.display())))?;
        }
        let [log_dir, snapshot_dir] = dirs;
        let lock = identity::lock(&config.data_dir)?;
        let cluster_id = identity::check(&config)?;
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
        let (wal, machine) = tokio::task::spawn_blocking(move || {
            let wal = Wal::open(Arc::new(RealDisk), &log_dir, segment_bytes, on_failure)?;
            let machine = StateMachine::open(snapshot_dir).map_err(failed("load a snapshot"))?;
            Ok::<_, StartError>((Arc::new(wal), machine))
        })
        .await
        .map_err(failed("open the data directory"))??;
        let (hub, applied, sweep) = (machine.hub(), machine.applied(), machine.sweep());
        let vote: Option<crate::types::Vote> = wal
            .marks()
            .vote
            .map(|vote| decode(&vote))
            .transpose()
            .map_err(failed("read the vote"))?;
        let begun =
            (vote.map_or(0, |vote| vote.leader_id.term), wal.bounds().map_or(0, |(_, last)| last));
        let peers =
            Peers::new(config.timers.election_max, config.tls.as_ref().map(PeerTls::client));
        let raft = Raft::build(
            config.id,
            Arc::new(raft_config(&config)?),
            Factory { peers: peers.clone() },
            LogStore::new(Arc::clone(&wal)),
            machine,
        )
        .await
        .map_err(|e| StartError::Raft(e.to_string()))?;
        raft.run();
        let (proposals, queue) = mpsc::channel(QUEUE);
        let core = Arc::new(Core {
            id: config.id,
            raft,
            leases: Leases::default(),
            hub,
            applied,
            wal,
            clock,
            proposals,
            begun,
            leader_hung_up: Notify::new(),
        });
        let (barriers, waiting) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        let store = Arc::new(Self {
            core: Arc::clone(&core),
            peers,
            members: config.members.clone(),
            leaderless_max: config.timers.election_max * ELECTIONS,
            cluster_id,
            leadership: watch::Sender::new(Leadership::Following),
            barriers,
            stop: stop.clone(),
            tasks: Mutex::new(None),
            failed: failed_watch,
            _lock: lock,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(&config, Arc::clone(&core), listener, stop.clone()));
        tasks.spawn(sweep);
        tasks.spawn(batch(Arc::clone(&core), queue, stop.clone()));
        tasks.spawn(campaign(Arc::clone(&core), config.timers.election_max, stop.clone()));
        let weak = Arc::downgrade(&store);
        tasks.spawn(read_rounds(weak.clone(), waiting));
        tasks.spawn(lead(weak.clone(), stop.clone()));
        tasks.spawn(expire_leases(weak, stop));
        *store.tasks.lock().unwrap_or_else(PoisonError::into_inner) = Some(tasks);
        initialize(&store, &config).await?;
        Ok(store)
    }

    /// Told when the log has failed: the process must end, the others go on.
    #[must_use]
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.clone()
    }

    /// Hands over the lead, if it has it, and ends.
    pub async fn shutdown(&self, deadline: Duration) {
        if self.core.leader() == Some(self.core.id)
            && let Err(error) = self.transfer_leader(None, deadline).await
        {
            tracing::warn!(%error, "no other member took the lead");
        }
        self.end().await;
    }

    /// Ends at once, as if the process had died: nothing is handed over.
    pub async fn kill(&self) {
        self.end().await;
    }

    async fn end(&self) {
        self.stop.cancel();
        self.core.hub.close();
        if let Err(error) = self.core.raft.shutdown().await {
            tracing::warn!(%error, "raft did not end cleanly");
        }
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
    }

    /// Sends a proposal to the member that leads.
    async fn forward(&self, leader: u64, proposal: &Proposal, deadline: Duration) -> Attempt {
        let Some(member) = self.members.get(&leader) else {
            return Attempt::NotLeader(None);
        };
        let Ok(mut client) = self.peers.client(&member.peer_url) else {
            return Attempt::NotLeader(None);
        };
        let request = ForwardRequest {
            proposal: encode(&ProposalWire::from(proposal)).into(),
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        };
        // A leader that hangs must not hold the caller: the others may have elected another.
        let changed = self.core.until(|now| now.current_leader != Some(leader));
        let answer = tokio::select! {
            answer = timeout(deadline, client.forward(request)) => answer,
            _ = changed => return Attempt::Unknown("the leader changed".to_owned()),
        };
        match answer {
            Ok(Ok(answer)) => match answer.into_inner().outcome {
                Some(Forwarded::Applied(applied)) => match decode(&applied) {
                    Ok(applied) => Attempt::Applied(applied),
                    Err(error) => Attempt::Unknown(error.to_string()),
                },
                Some(Forwarded::NotLeader(other)) => {
                    Attempt::NotLeader(Some(other.leader).filter(|id| *id != 0))
                }
                Some(Forwarded::Unknown(detail)) => Attempt::Unknown(detail),
                None => Attempt::Unknown("an answer without an outcome".to_owned()),
            },
            // Nothing was sent: it is no doubt that nothing was done.
            Ok(Err(status)) if is_refused(&status) => Attempt::NotLeader(None),
            Ok(Err(status)) => Attempt::Unknown(status.message().to_owned()),
            Err(_) => Attempt::Unknown(format!("no answer within {deadline:?}")),
        }
    }

    /// Returns when somebody leads, as far as this replica knows, or at `until`.
    async fn leader(&self, until: Instant) -> Option<u64> {
        let known = self.core.until(|now| now.current_leader.is_some());
        timeout_at(until, known).await.ok()??.current_leader
    }

    fn leaderless(&self) -> String {
        let waited = self.leaderless_max;
        format!("nobody has led for {waited:?}, as if a majority of the replicas were gone")
    }

    async fn read_index(&self) -> Result<u64, String> {
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
        let member = self.members.get(&leader).ok_or("the leader is not a known member")?;
        let mut client = self.peers.client(&member.peer_url).map_err(|e| e.to_string())?;
        tokio::select! {
            answer = client.read_index(ReadIndexRequest {}) => {
                answer.map(|a| a.into_inner().index).map_err(|s| s.message().to_owned())
            }
            _ = self.core.until(|now| now.current_leader != Some(leader)) => {
                Err("the leader changed".to_owned())
            }
        }
    }
}

/// Nobody listens there.
fn is_refused(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[async_trait]
impl Store for RaftStore {
    async fn propose(&self, proposal: Proposal, deadline: Duration) -> Result<Applied, StoreError> {
        let bytes = proposal_bytes(&proposal.op);
        if bytes > COMMAND_BYTES_MAX {
            return Err(StoreError::TooLarge { bytes, bytes_max: COMMAND_BYTES_MAX });
        }
        if matches!(proposal.origin, Origin::Controller { .. }) {
            // Never forwarded: a stale decision must not get a fresh term (FEN-2).
            return match self.core.propose_here(proposal, deadline).await {
                Attempt::Applied(applied) => Ok(applied),
                Attempt::NotLeader(_) => Err(StoreError::NotLeader),
                Attempt::Unknown(detail) => Err(StoreError::Unknown { detail }),
            };
        }
        let until = Instant::now() + deadline;
        let mut unknown = None;
        let give_up = Instant::now() + self.leaderless_max;
        let mut detail = String::new();
        loop {
            let leader = self.leader(until.min(give_up)).await;
            let left = until.saturating_duration_since(Instant::now());
            // While an outcome is unknown it is worth the whole time to learn it.
            let hopeless = unknown.is_none() && Instant::now() >= give_up;
            let (Some(leader), false, false) = (leader, left.is_zero(), hopeless) else {
                return Err(match unknown {
                    Some(detail) => StoreError::Unknown { detail },
                    None => StoreError::NoLeader { detail: self.leaderless() + &detail },
                });
            };
            let attempt = if leader == self.core.id {
                self.core.propose_here(proposal.clone(), left).await
            } else {
                self.forward(leader, &proposal, left).await
            };
            match attempt {
                Attempt::Applied(applied) => return Ok(applied),
                Attempt::NotLeader(other) => {
                    let other = other.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
                    detail =
                        format!("; replica {leader} leads no more, as far as it knows {other}");
                }
                // Asked again under the same request id, it is answered with its first result.
                Attempt::Unknown(why) => unknown = Some(why),
            }
            sleep_until((Instant::now() + Duration::from_millis(5)).min(until)).await;
        }
    }

    async fn barrier(&self, deadline: Duration) -> Result<Revision, StoreError> {
        let no_leader = |detail: String| StoreError::NoLeader { detail };
        let work = async {
            let (answer, answered) = oneshot::channel();
            self.barriers.send(answer).await.map_err(|_| no_leader("stopping".to_owned()))?;
            let index =
                answered.await.map_err(|_| no_leader("stopping".to_owned()))?.map_err(no_leader)?;
            let mut applied = self.core.applied.clone();
            let reached = applied.wait_for(|now| *now >= index).await;
            reached.map_err(|_| no_leader("stopping".to_owned()))?;
            Ok(self.view().revision())
        };
        timeout(deadline, work)
            .await
            .unwrap_or_else(|_| Err(no_leader(format!("no quorum answered within {deadline:?}"))))
    }

    async fn wait_for(&self, revision: Revision, deadline: Duration) -> Result<(), StoreError> {
        store::local::wait_for(&self.core.hub, revision, deadline).await
    }

    fn view(&self) -> View {
        self.core.hub.view()
    }

    async fn swept(&self, deadline: Duration) -> Result<(), StoreError> {
        store::local::swept(&self.core.hub, deadline).await
    }

    async fn renew_lease(
        &self,
        id: LeaseId,
        deadline: Duration,
    ) -> Result<Option<i64>, StoreError> {
        let until = Instant::now() + deadline;
        let mut detail = "no leader is known".to_owned();
        while let Some(leader) = self.leader(until).await {
            if leader == self.core.id {
                if let Some(ttl) = self.core.renew_lease_here(id) {
                    return Ok(ttl);
                }
            } else if let Some(member) = self.members.get(&leader)
                && let Ok(mut client) = self.peers.client(&member.peer_url)
            {
                let request = client.renew_lease(RenewLeaseRequest { id: id.0 });
                match timeout_at(until, request).await {
                    Ok(Ok(answer)) => {
                        return Ok(Some(answer.into_inner().ttl_seconds).filter(|ttl| *ttl > 0));
                    }
                    Ok(Err(status)) => detail = status.message().to_owned(),
                    Err(_) => break,
                }
            }
            if Instant::now() >= until {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err(StoreError::NoLeader { detail })
    }

    async fn lease_left(&self, id: LeaseId, _: Duration) -> Result<Option<i64>, StoreError> {
        Ok(self.view().lease(id).map(|lease| lease.ttl_seconds))
    }

    fn watch(&self, request: WatchRequest) -> Result<Watcher, WatchError> {
        self.core.hub.watch(request)
    }

    fn watch_set(&self) -> WatchSet {
        self.core.hub.watch_set()
    }
}

#[async_trait]
impl Cluster for RaftStore {
    fn local(&self) -> LocalStatus {
        let metrics = self.core.raft.metrics();
        let now = metrics.borrow_watched();
        LocalStatus {
            cluster_id: self.cluster_id,
            member_id: self.core.id,
            term: now.current_term,
            leader: now.current_leader,
            role: role(now.state),
            last_index: now.last_log_index.unwrap_or_default(),
            applied_index: *self.core.applied.borrow(),
        }
    }

    fn members(&self) -> Vec<MemberInfo> {
        let info = |(id, member): (&u64, &crate::types::Member)| MemberInfo {
            id: *id,
            name: member.name.clone(),
            peer_urls: vec![member.peer_url.clone()],
            client_urls: vec![member.client_url.clone()],
            learner: false,
        };
        self.members.iter().map(info).collect()
    }

    async fn change_members(
        &self,
        _: MemberChange,
        _: Duration,
    ) -> Result<Vec<MemberInfo>, MemberError> {
        Err(MemberError::Unhealthy)
    }

    async fn status(&self, deadline: Duration) -> ClusterStatus {
        let mut asked = JoinSet::new();
        for (id, member) in &self.members {
            let (id, url) = (*id, member.peer_url.clone());
            let (core, peers) = (Arc::clone(&self.core), self.peers.clone());
            asked.spawn(async move {
                if id == core.id {
                    return (id, Some(core.own_status()));
                }
                let Ok(mut client) = peers.client(&url) else { return (id, None) };
                let answer = timeout(deadline, client.status(StatusRequest {})).await;
                (id, answer.ok().and_then(Result::ok).map(tonic::Response::into_inner))
            });
        }
        let answers: BTreeMap<u64, Option<StatusResponse>> =
            asked.join_all().await.into_iter().collect();
        let members = self.members.iter().map(|(id, member)| {
            let answer = answers.get(id).cloned().flatten();
            let reachable = answer.is_some();
            let answer = answer.unwrap_or_default();
            MemberStatus {
                id: *id,
                name: member.name.clone(),
                peer_url: member.peer_url.clone(),
                client_url: member.client_url.clone(),
                role: answer.role.parse().unwrap_or(MemberRole::Unknown),
                term: answer.term,
                applied_index: answer.applied_index,
                revision: Revision::new(answer.revision),
                state_hash: answer.state_hash,
                sync_p99_us: answer.sync_p99_us,
                syncs: answer.syncs,
                appended: answer.appended,
                rss_bytes: answer.rss_bytes,
                reachable,
            }
        });
        ClusterStatus {
            cluster_id: self.cluster_id,
            member_id: self.core.id,
            leader: self.core.leader(),
            epoch: self.view().epoch(),
            members: members.collect(),
        }
    }

    async fn transfer_leader(
        &self,
        to: Option<u64>,
        deadline: Duration,
    ) -> Result<u64, StoreError> {
        let id = self.core.id;
        if self.core.leader() != Some(id) {
            return Err(StoreError::NotLeader);
        }
        let until = Instant::now() + deadline;
        let furthest = || {
            let progress = self.core.metrics().replication.unwrap_or_default();
            let others = progress.into_iter().filter(|(other, _)| *other != id);
            others.max_by_key(|(_, log)| log.as_ref().map(|l| l.index)).map(|(other, _)| other)
        };
        while Instant::now() < until {
            let Some(to) = to.or_else(furthest) else { break };
            if let Err(error) = self.core.raft.trigger().transfer_leader(to).await {
                return Err(StoreError::Stopped { detail: error.to_string() });
            }
            let step = (Instant::now() + Duration::from_millis(500)).min(until);
            let other = |leader: Option<u64>| leader.is_some_and(|l| l != id);
            let taken = self.core.until(|now| other(now.current_leader));
            if let Ok(Some(now)) = timeout_at(step, taken).await
                && let Some(leader) = now.current_leader
            {
                return Ok(leader);
            }
        }
        Err(StoreError::NoLeader { detail: "no other member took the lead".to_owned() })
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    async fn snapshot(&self) -> Result<(), StoreError> {
        let stopped = |e: &dyn std::fmt::Display| StoreError::Stopped { detail: e.to_string() };
        let index = *self.core.applied.borrow();
        self.core.raft.trigger().snapshot().await.map_err(|e| stopped(&e))?;
        let done = self.core.until(|now| now.snapshot.as_ref().is_some_and(|id| id.index >= index));
        done.await.map(|_| ()).ok_or_else(|| stopped(&"raft has ended"))
    }
}

fn role(state: ServerState) -> MemberRole {
    match state {
        ServerState::Leader => MemberRole::Leader,
        ServerState::Follower => MemberRole::Follower,
        ServerState::Candidate => MemberRole::Candidate,
        ServerState::Learner => MemberRole::Learner,
        ServerState::Shutdown => MemberRole::Unknown,
    }
}

fn proposal_bytes(op: &Op) -> usize {
    usize::try_from(bincode::serialized_size(op).unwrap_or(u64::MAX)).unwrap_or(usize::MAX)
}

fn raft_config(config: &RaftConfig) -> Result<Config, StartError> {
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let timers = config.timers;
    Config {
        cluster_name: "trireme".to_owned(),
        heartbeat_interval: millis(timers.heartbeat),
        election_timeout_min: millis(timers.election_min),
        election_timeout_max: millis(timers.election_max),
        enable_pre_vote: Some(true),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_entries),
        // Enough for a follower that was away for a moment to catch up from the log.
        max_in_snapshot_log_to_keep: config.snapshot_entries / 10,
        replication_lag_threshold: config.snapshot_entries.saturating_mul(2),
        install_snapshot_timeout: 60_000,
        ..Config::default()
    }
    .validate()
    .map_err(|e| StartError::Raft(e.to_string()))
}

/// The first start of all: the member with the lowest id proposes the membership, the others wait
/// for it. On a disk that has a log it does nothing.
async fn initialize(store: &RaftStore, config: &RaftConfig) -> Result<(), StartError> {
    let raft = &store.core.raft;
    let initialized = raft.is_initialized().await.map_err(|e| StartError::Raft(e.to_string()))?;
    if !initialized && config.members.keys().next() == Some(&config.id) {
        raft.initialize(config.members.clone())
            .await
            .map_err(|e| StartError::Raft(format!("initialize: {e}")))?;
    }
    Ok(())
}

fn serve(
    config: &RaftConfig,
    core: Arc<Core>,
    listener: TcpListener,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let service = PeerServer { core, snapshot_dir: config.data_dir.join("snapshots") };
    let service = PeerServiceServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let tls = config.tls.as_ref().map(PeerTls::server);
    async move {
        let mut server = tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        if let Some(tls) = tls {
            match server.tls_config(tls) {
                Ok(with_tls) => server = with_tls,
                Err(error) => {
                    tracing::error!(%error, "peers cannot be served");
                    return;
                }
            }
        }
        let cut = stop.clone();
        let connections = TcpListenerStream::new(listener).map(move |accepted| {
            let stream = accepted?;
            // tonic sets it only on sockets that it accepts itself.
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(Accepted::new(stream, cut.clone()))
        });
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

/// Gathers what waits into entries: while some are under way, what comes shares the next (group
/// commit).
async fn batch(core: Arc<Core>, mut queue: mpsc::Receiver<Waiting>, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT));
    let mut writes = JoinSet::new();
    loop {
        let first = tokio::select! {
            first = queue.recv() => first,
            () = stop.cancelled() => None,
        };
        let Some(first) = first else { break };
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { break };
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
    let (commands, answers): (Vec<Command>, Vec<_>) =
        waiting.into_iter().map(|w| (w.command, w.answer)).unzip();
    match core.raft.client_write(Batch::encode(&commands)).await {
        Ok(done) => {
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

/// One read round at a time serves everybody who waited when it began (FEN-36).
async fn read_rounds(
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

/// Does not wait for silence when the leader's connection broke, as it does at once when a process
/// dies: asks for the lead as soon as the lease that it has from here is over. A pre-vote: nothing
/// happens to a leader that others still hear, or that is back on a new connection.
async fn campaign(core: Arc<Core>, lease: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = core.leader_hung_up.notified() => {}
            () = stop.cancelled() => return,
        }
        let metrics = core.metrics();
        let Some(lost) = metrics.current_leader.filter(|leader| *leader != core.id) else {
            continue;
        };
        // One after the other, lest all of them vote for themselves.
        let voters = metrics.membership_config.voter_ids();
        let rank = voters.filter(|id| *id != lost && *id < core.id).count();
        let started = Instant::now();
        let turn = CAMPAIGN_TURN.saturating_mul(u32::try_from(rank).unwrap_or(u32::MAX));
        let begin = if rank == 0 { started } else { started + lease + turn };
        let over = core.until(|now| {
            now.current_leader.is_some_and(|leader| leader != lost)
                || now.current_term > metrics.current_term
        });
        tokio::pin!(over);
        // Its last word came before the connection broke, so the lease ends within its length. Until
        // then the question is refused here and nobody else hears of it.
        let end = begin.max(started + lease) + CAMPAIGN_TURN;
        sleep_until(begin).await;
        while Instant::now() < end {
            if core.raft.trigger().elect(true).await.is_err() {
                return;
            }
            let next = Instant::now() + CAMPAIGN_RETRY;
            tokio::select! {
                _ = &mut over => break,
                () = sleep_until(next) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Publishes leadership: only after this leader's own `BeginEpoch` is applied here (FEN-7).
async fn lead(store: std::sync::Weak<RaftStore>, stop: CancellationToken) {
    let Some(mut metrics) = store.upgrade().map(|s| s.core.raft.metrics()) else { return };
    let client = rand::random::<u64>();
    let mut leading = None;
    loop {
        let now = {
            let now = metrics.borrow_and_update();
            (now.state == ServerState::Leader && now.current_leader == Some(now.id))
                .then_some(now.current_term)
        };
        if now != leading {
            let Some(store) = store.upgrade() else { return };
            leading = None;
            store.leadership.send_replace(Leadership::Following);
            store.core.leases.follow();
            if let Some(term) = now {
                let epoch = Epoch(term);
                let proposal = Proposal {
                    request: RequestId { client, sequence: term },
                    origin: Origin::Client,
                    op: Op::BeginEpoch { epoch, leader: store.core.id },
                };
                let attempt = store.core.propose_here(proposal, Duration::from_secs(5)).await;
                if let Attempt::Applied(Applied { outcome: Ok(_), .. }) = attempt {
                    tracing::info!(term, "leads");
                    store.core.leases.lead();
                    store.leadership.send_replace(Leadership::Leading { epoch });
                    leading = Some(term);
                } else {
                    // Still the leader, if the metrics say so at the next look.
                    sleep(Duration::from_millis(10)).await;
                    continue;
                }
            }
        }
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// Proposes the end of leases whose time is up, while this replica leads.
async fn expire_leases(store: std::sync::Weak<RaftStore>, stop: CancellationToken) {
    let client = rand::random::<u64>();
    let sequence = AtomicU64::new(0);
    loop {
        tokio::select! {
            () = sleep(Duration::from_millis(200)) => {}
            () = stop.cancelled() => return,
        }
        let Some(store) = store.upgrade() else { return };
        let Leadership::Leading { epoch } = *store.leadership.borrow() else { continue };
        for id in store.core.leases.expired(&store.view(), Instant::now()) {
            let sequence = sequence.fetch_add(1, Ordering::Relaxed) + 1;
            let proposal = Proposal {
                request: RequestId { client, sequence },
                origin: Origin::Controller { epoch },
                op: Op::LeaseRevoke { id },
            };
            // Lost with the lead: the next leader gives the lease its full time again.
            if let Err(error) = store.propose(proposal, Duration::from_secs(5)).await {
                tracing::debug!(%error, ?id, "lease not revoked");
            }
        }
    }
}
