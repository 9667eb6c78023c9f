//! Applies committed entries to the state and shows the result.

use crate::{
    leases::{LeaseChange, Leases},
    snapshot::{self, SnapshotFile},
    types::{LogId, SnapshotMeta, StoredMembership, TypeConfig},
};
use futures::{Stream, StreamExt as _};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot,
    storage::{EntryResponder, RaftStateMachine},
};
use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use store::{state::State, watch::Hub};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

pub(crate) type CurrentSnapshot = Snapshot<
    openraft::alias::CommittedLeaderIdOf<TypeConfig>,
    u64,
    crate::types::Member,
    SnapshotFile,
>;

/// Between two bits of sweeping, each of about as long.
const SWEEP_PAUSE: Duration = Duration::from_millis(1);

/// The state and where in the log it stands.
#[derive(Debug)]
pub(crate) struct StateMachine {
    dir: PathBuf,
    /// Shared with who sweeps it between two entries; locked until the hub shows it.
    state: Arc<Mutex<State>>,
    last_applied: Option<LogId>,
    membership: watch::Sender<StoredMembership>,
    hub: Arc<Hub>,
    leases: Arc<Leases>,
    applied: watch::Sender<u64>,
    /// Shared with the builder: a slow build must not replace a newer, installed snapshot.
    current: Arc<Mutex<Option<(SnapshotMeta, SnapshotFile)>>>,
}

impl StateMachine {
    /// From the newest snapshot in `dir`; blocks.
    ///
    /// # Errors
    /// No snapshot is whole, though there are some.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        let found = snapshot::newest(&dir)?;
        let (state, last_applied, membership, current) = match found {
            None => (State::default(), None, StoredMembership::default(), None),
            Some((meta, state, file)) => {
                (state, meta.last_log_id, meta.last_membership.clone(), Some((meta, file)))
            }
        };
        Ok(Self {
            dir,
            hub: Arc::new(Hub::new(state.view())),
            leases: Arc::default(),
            applied: watch::Sender::new(last_applied.as_ref().map_or(0, |id| id.index)),
            state: Arc::new(Mutex::new(state)),
            last_applied,
            membership: watch::Sender::new(membership),
            current: Arc::new(Mutex::new(current)),
        })
    }

    pub(crate) fn hub(&self) -> Arc<Hub> {
        Arc::clone(&self.hub)
    }

    /// Follows the membership as of what is applied.
    pub(crate) fn membership(&self) -> watch::Receiver<StoredMembership> {
        self.membership.subscribe()
    }

    /// Told of every lease that comes and goes.
    pub(crate) fn leases(&self) -> Arc<Leases> {
        Arc::clone(&self.leases)
    }

    /// Frees what was compacted, also while nothing is written, bit by bit. Never ends by itself.
    pub(crate) fn sweep(&self) -> impl Future<Output = ()> + Send + 'static {
        let (state, hub) = (Arc::clone(&self.state), self.hub());
        async move {
            let mut swept = hub.swept();
            while swept.wait_for(|swept| !swept).await.is_ok() {
                let mut more = true;
                while more {
                    {
                        let mut state = lock(&state);
                        more = state.sweep();
                        hub.publish(state.view(), &[]);
                    }
                    // Entries that wait come first.
                    sleep(SWEEP_PAUSE).await;
                }
            }
        }
    }

    /// Follows the index of the last entry applied and shown.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last_applied, self.membership.borrow().clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let mut results = Vec::new();
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(membership) => {
                    let membership = StoredMembership::new(Some(entry.log_id), membership);
                    self.membership.send_replace(membership);
                }
                EntryPayload::Normal(batch) => {
                    let commands = batch.decode()?;
                    results.reserve(commands.len());
                    let mut events = Vec::new();
                    let mut leases = Vec::new();
                    let mut state = lock(&self.state);
                    for command in &commands {
                        let transition = state.apply(command);
                        leases.extend(LeaseChange::of(command, &transition));
                        events.extend(transition.events);
                        results.push(transition.applied);
                    }
                    self.hub.publish(state.view(), &events);
                    drop(state);
                    // Behind what is shown, so that a new leader that reads it misses none.
                    self.leases.take_up(&leases, Instant::now());
                }
            }
            self.last_applied = Some(entry.log_id);
            self.applied.send_replace(entry.log_id.index);
            // Only now: whoever is answered finds the state that the answer speaks of.
            if let Some(responder) = responder {
                responder.send(results);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            dir: self.dir.clone(),
            meta: SnapshotMeta {
                last_log_id: self.last_applied,
                last_membership: self.membership.borrow().clone(),
            },
            state: lock(&self.state).clone(),
            current: Arc::clone(&self.current),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        received: SnapshotFile,
    ) -> io::Result<()> {
        let (dir, meta) = (self.dir.clone(), meta.clone());
        let (meta, state, file) = blocking(move || {
            let (_, state) = snapshot::read(&received.path)?;
            let file = snapshot::adopt(&dir, &received.path, &meta)?;
            Ok((meta, state, file))
        })
        .await?;
        self.last_applied = meta.last_log_id;
        self.membership.send_replace(meta.last_membership.clone());
        supersede(&self.current, meta, file);
        {
            let mut current = lock(&self.state);
            *current = state;
            // What happened in between is not known here: watches must begin anew.
            self.hub.reset(current.view());
        }
        self.applied.send_replace(self.last_applied.as_ref().map_or(0, |id| id.index));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<CurrentSnapshot>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(current.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Makes `file` the current snapshot unless a newer one is.
fn supersede(
    current: &Mutex<Option<(SnapshotMeta, SnapshotFile)>>,
    meta: SnapshotMeta,
    file: SnapshotFile,
) {
    let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
    if current.as_ref().is_none_or(|(now, _)| now.last_log_id <= meta.last_log_id) {
        *current = Some((meta, file));
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Writes one snapshot beside the applying.
#[derive(Debug)]
pub(crate) struct Builder {
    dir: PathBuf,
    meta: SnapshotMeta,
    state: State,
    current: Arc<Mutex<Option<(SnapshotMeta, SnapshotFile)>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<CurrentSnapshot> {
        let (dir, meta, state) = (self.dir.clone(), self.meta.clone(), self.state.clone());
        let (meta, snapshot) = blocking(move || {
            let file = snapshot::write(&dir, &meta, &state)?;
            snapshot::remove_old(&dir)?;
            Ok((meta, file))
        })
        .await?;
        supersede(&self.current, meta.clone(), snapshot.clone());
        Ok(Snapshot { meta, snapshot })
    }
}
