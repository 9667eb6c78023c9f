//! A [`crate::Store`] without raft: one process, in memory. For tests and as the reference.

use crate::{
    Backup, Cluster, ClusterStatus, Leadership, LocalStatus, MemberChange, MemberError, MemberInfo,
    MemberRole, MemberStatus, Proposal, Store, StoreError,
    state::{State, View},
    types::{Applied, Command, Epoch, LeaseId, Op, Origin, RequestId, Revision, Timestamp},
    watch::{Hub, WatchError, WatchRequest, WatchSet, Watcher},
};
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::timeout};

/// Reads the time; the caller's.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The state machine behind a lock.
pub struct LocalStore {
    clock: Clock,
    hub: Hub,
    leadership: watch::Sender<Leadership>,
    /// When each lease ends, unless it is renewed.
    deadlines: Mutex<BTreeMap<LeaseId, Timestamp>>,
    own_requests: AtomicU64,
    leaderless: AtomicBool,
}

/// Names the store's own requests; others draw theirs at random.
const EPOCH_CLIENT: u64 = u64::MAX;
const EXPIRY_CLIENT: u64 = u64::MAX - 1;

impl std::fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalStore").field("revision", &self.view().revision()).finish()
    }
}

impl LocalStore {
    /// An empty store that follows: see [`LocalStore::begin_epoch`].
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            hub: Hub::new(State::default()),
            leadership: watch::Sender::new(Leadership::Following),
            deadlines: Mutex::default(),
            own_requests: AtomicU64::new(0),
            leaderless: AtomicBool::new(false),
        }
    }

    /// Leads from now on, under this epoch. An epoch that is not above the current one is refused.
    pub fn begin_epoch(&self, epoch: Epoch) -> Applied {
        let request = RequestId { client: EPOCH_CLIENT, sequence: epoch.0 };
        let op = Op::BeginEpoch { epoch, leader: 1 };
        let applied = self.apply(Proposal { request, origin: Origin::Client, op });
        if applied.outcome.is_ok() {
            self.leadership.send_replace(Leadership::Leading { epoch });
        }
        applied
    }

    /// Names no leader from now on, as a replica that hears of none, or itself again. It serves all the same.
    pub fn set_leaderless(&self, leaderless: bool) {
        self.leaderless.store(leaderless, Ordering::Relaxed);
    }

    /// Revokes the leases that nobody has renewed in time. Time here only passes when the clock says
    /// so and this is called: a test decides when a lease expires.
    pub fn expire_leases(&self) -> Vec<LeaseId> {
        let now = (self.clock)();
        let leases = self.view().leases();
        let mut deadlines = self.deadlines();
        deadlines.retain(|id, _| leases.iter().any(|lease| lease.id == *id));
        let mut due = Vec::new();
        for lease in leases {
            // First seen here: as a new leader does, begin with the full time to live.
            let full = now.after_seconds(lease.ttl_seconds);
            if *deadlines.entry(lease.id).or_insert(full) <= now {
                due.push(lease.id);
            }
        }
        drop(deadlines);
        for id in &due {
            let sequence = self.own_requests.fetch_add(1, Ordering::Relaxed) + 1;
            let request = RequestId { client: EXPIRY_CLIENT, sequence };
            let op = Op::LeaseRevoke { id: *id };
            self.apply(Proposal { request, origin: Origin::Client, op });
        }
        due
    }

    fn deadlines(&self) -> MutexGuard<'_, BTreeMap<LeaseId, Timestamp>> {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, proposal: Proposal) -> Applied {
        let Proposal { request, origin, op } = proposal;
        let command = Command { at: (self.clock)(), request, origin, op };
        self.hub.change(|state, events| {
            let transition = state.apply(&command);
            if let (Op::LeaseGrant { id, ttl_seconds }, Ok(_)) =
                (&command.op, &transition.applied.outcome)
            {
                self.deadlines().insert(*id, command.at.after_seconds(*ttl_seconds));
            }
            events.extend(transition.events);
            transition.applied
        })
    }
}

#[async_trait]
impl Store for LocalStore {
    async fn propose(&self, proposal: Proposal, _: Duration) -> Result<Applied, StoreError> {
        Ok(self.apply(proposal))
    }

    async fn barrier(&self, _: Duration) -> Result<Revision, StoreError> {
        Ok(self.view().revision())
    }

    async fn wait_for(&self, revision: Revision, deadline: Duration) -> Result<(), StoreError> {
        wait_for(&self.hub, revision, deadline).await
    }

    fn view(&self) -> View {
        self.hub.view()
    }

    async fn swept(&self, _: Duration) -> Result<(), StoreError> {
        while self.hub.change(|state, _| state.sweep()) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn renew_lease(&self, id: LeaseId, _: Duration) -> Result<Option<i64>, StoreError> {
        let Some(lease) = self.view().lease(id) else { return Ok(None) };
        self.deadlines().insert(id, (self.clock)().after_seconds(lease.ttl_seconds));
        Ok(Some(lease.ttl_seconds))
    }

    async fn lease_left(&self, id: LeaseId, _: Duration) -> Result<Option<i64>, StoreError> {
        let now = (self.clock)();
        let Some(lease) = self.view().lease(id) else { return Ok(None) };
        let end =
            *self.deadlines().entry(id).or_insert_with(|| now.after_seconds(lease.ttl_seconds));
        let seconds = end.0.saturating_sub(now.0) / 1_000_000;
        Ok(Some(i64::try_from(seconds).unwrap_or(i64::MAX)))
    }

    fn watch(&self, request: WatchRequest) -> Result<Watcher, WatchError> {
        self.hub.watch(request)
    }

    fn watch_set(&self) -> WatchSet {
        self.hub.watch_set()
    }
}

#[async_trait]
impl Cluster for LocalStore {
    fn local(&self) -> LocalStatus {
        let view = self.view();
        LocalStatus {
            cluster_id: 1,
            member_id: 1,
            term: view.epoch().0,
            leader: (!self.leaderless.load(Ordering::Relaxed)).then_some(1),
            role: MemberRole::Leader,
            last_index: view.revision().get(),
            applied_index: view.revision().get(),
        }
    }

    fn members(&self) -> Vec<MemberInfo> {
        vec![MemberInfo { id: 1, name: "local".to_owned(), ..MemberInfo::default() }]
    }

    async fn change_members(
        &self,
        _: MemberChange,
        _: Duration,
    ) -> Result<Vec<MemberInfo>, MemberError> {
        // It is alone, and stays so.
        Err(MemberError::Unhealthy)
    }

    async fn status(&self, _: Duration) -> ClusterStatus {
        let view = self.view();
        let member = MemberStatus {
            id: 1,
            name: "local".to_owned(),
            peer_url: String::new(),
            client_url: String::new(),
            role: MemberRole::Leader,
            term: view.epoch().0,
            applied_index: view.revision().get(),
            revision: view.revision(),
            state_hash: view.hash(),
            sync_p99_us: 0,
            syncs: 0,
            appended: 0,
            rss_bytes: 0,
            disk: crate::DiskState::Ok,
            disk_stalls: 0,
            reachable: true,
        };
        ClusterStatus {
            cluster_id: 1,
            member_id: 1,
            leader: Some(1),
            epoch: view.epoch(),
            members: vec![member],
        }
    }

    async fn transfer_leader(&self, _: Option<u64>, _: Duration) -> Result<u64, StoreError> {
        Err(StoreError::NoLeader { detail: "there is no other member".to_owned() })
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    async fn snapshot(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn backup(&self, _: Duration) -> Result<Backup, StoreError> {
        Err(StoreError::Stopped { detail: "a store in memory has no form on disk".to_owned() })
    }
}

/// Waits until a hub shows `revision`.
///
/// # Errors
/// [`StoreError::NotYet`] at `deadline`.
pub async fn wait_for(hub: &Hub, revision: Revision, deadline: Duration) -> Result<(), StoreError> {
    let mut shown = hub.revision();
    match timeout(deadline, shown.wait_for(|now| *now >= revision)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => {
            Err(StoreError::NotYet { requested: revision, current: hub.view().revision() })
        }
    }
}

/// Waits until the state that a hub shows has freed what was compacted.
///
/// # Errors
/// [`StoreError::NotYet`] at `deadline`.
pub async fn swept(hub: &Hub, deadline: Duration) -> Result<(), StoreError> {
    let mut shown = hub.swept();
    match timeout(deadline, shown.wait_for(|swept| *swept)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => {
            let view = hub.view();
            Err(StoreError::NotYet { requested: view.compacted(), current: view.revision() })
        }
    }
}
