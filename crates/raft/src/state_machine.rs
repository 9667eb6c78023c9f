//! Applies committed entries to the state and shows the result.

use crate::{
    disk::Disk,
    leases::{LeaseChange, Leases},
    snapshot::{self, SnapshotFile},
    stages::Stages,
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
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{Revision, state::State, watch::Hub};
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

/// The newest and the one before it: it stays until the next, in case the newest is damaged before the
/// log behind it is dropped.
const SNAPSHOTS_KEPT: usize = 2;
/// Between two tries to write a snapshot where there is no room.
const RETRY: Duration = Duration::from_millis(500);
/// How long a bit of sweeping takes, or a little longer.
const SWEEP_BIT: Duration = Duration::from_millis(1);
/// Between two bits of sweeping at least; four times as long as a bit takes.
const SWEEP_PAUSE: Duration = Duration::from_millis(1);

/// The state after an entry: what members compare must be of one and the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Of the entry.
    pub(crate) index: u64,
    pub(crate) revision: Revision,
    pub(crate) hash: u64,
}

impl Shown {
    fn of(index: u64, state: &State) -> Self {
        let view = state.view();
        Self { index, revision: view.revision(), hash: view.hash() }
    }
}

/// The state and where in the log it stands.
#[derive(Debug)]
pub(crate) struct StateMachine {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    last_applied: Option<LogId>,
    membership: watch::Sender<StoredMembership>,
    hub: Arc<Hub>,
    leases: Arc<Leases>,
    applied: watch::Sender<u64>,
    shown: watch::Sender<Shown>,
    stages: Arc<Stages>,
    /// Shared with the builder: a slow build must not replace a newer, installed snapshot.
    current: Arc<Current>,
}

/// The newest snapshot.
#[derive(Debug, Default)]
struct Current {
    snapshot: Mutex<Option<(SnapshotMeta, SnapshotFile)>>,
    /// Of it; 0 while there is none.
    bytes: Arc<AtomicU64>,
    /// The first index of which the state is not by way of a snapshot that was read or received here.
    applies_from: Arc<AtomicU64>,
}

impl StateMachine {
    /// From the newest snapshot in `dir`; blocks. `purged` is the last index that the log has dropped.
    ///
    /// # Errors
    /// No snapshot that is whole holds what the log has dropped.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: PathBuf, purged: Option<u64>) -> io::Result<Self> {
        let found = snapshot::newest(&*disk, &dir, purged)?;
        let current = Current::default();
        let (state, last_applied, membership) = match found {
            None => (State::default(), None, StoredMembership::default()),
            Some((meta, state, file)) => {
                let found = (meta.last_log_id, meta.last_membership.clone());
                current.supersede(meta, file);
                (state, found.0, found.1)
            }
        };
        let index = last_applied.as_ref().map_or(0, |id| id.index);
        current
            .applies_from
            .store(last_applied.as_ref().map_or(0, |id| id.index + 1), Ordering::Relaxed);
        let shown = Shown::of(index, &state);
        Ok(Self {
            disk,
            dir,
            hub: Arc::new(Hub::new(state)),
            leases: Arc::default(),
            stages: Arc::default(),
            applied: watch::Sender::new(index),
            shown: watch::Sender::new(shown),
            last_applied,
            membership: watch::Sender::new(membership),
            current: Arc::new(current),
        })
    }

    /// Follows the size of the newest snapshot; 0 while there is none.
    pub(crate) fn snapshot_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.current.bytes)
    }

    /// Follows the first index that was applied from the log, since there is no snapshot behind it.
    pub(crate) fn applies_from(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.current.applies_from)
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
        let hub = self.hub();
        async move {
            let mut swept = hub.swept();
            while swept.wait_for(|swept| !swept).await.is_ok() {
                loop {
                    let (more, took) = hub.change(|state, _| {
                        let begun = Instant::now();
                        let mut more = state.sweep();
                        while more && begun.elapsed() < SWEEP_BIT {
                            more = state.sweep();
                        }
                        (more, begun.elapsed())
                    });
                    if !more {
                        break;
                    }
                    // Entries that wait come first.
                    sleep(SWEEP_PAUSE.max(took * 4)).await;
                }
            }
        }
    }

    /// Told of every entry that is applied.
    pub(crate) fn stages(&self) -> Arc<Stages> {
        Arc::clone(&self.stages)
    }

    /// Follows the state after the last entry applied.
    pub(crate) fn shown(&self) -> watch::Receiver<Shown> {
        self.shown.subscribe()
    }

    /// Follows the index of the last entry applied and shown.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }
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
            self.stages.applying(entry.log_id.index);
            let mut results = Vec::new();
            let mut shown = Shown { index: entry.log_id.index, ..*self.shown.borrow() };
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(membership) => {
                    let membership = StoredMembership::new(Some(entry.log_id), membership);
                    self.membership.send_replace(membership);
                }
                EntryPayload::Normal(batch) => {
                    let commands = batch.decode()?;
                    results.reserve(commands.len());
                    let mut leases = Vec::new();
                    self.hub.change(|state, events| {
                        for command in &commands {
                            let transition = state.apply(command);
                            leases.extend(LeaseChange::of(command, &transition));
                            events.extend(transition.events);
                            results.push(transition.applied);
                        }
                        shown = Shown::of(entry.log_id.index, state);
                    });
                    // Behind what is shown, so that a new leader that reads it misses none.
                    self.leases.take_up(&leases, Instant::now());
                }
            }
            self.last_applied = Some(entry.log_id);
            self.shown.send_replace(shown);
            self.applied.send_replace(entry.log_id.index);
            self.stages.applied(entry.log_id.index);
            // Only now: whoever is answered finds the state that the answer speaks of.
            if let Some(responder) = responder {
                responder.send(results);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            disk: Arc::clone(&self.disk),
            dir: self.dir.clone(),
            meta: SnapshotMeta {
                last_log_id: self.last_applied,
                last_membership: self.membership.borrow().clone(),
            },
            state: Some(self.hub.state()),
            current: Arc::clone(&self.current),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        received: SnapshotFile,
    ) -> io::Result<()> {
        let (disk, dir, meta) = (Arc::clone(&self.disk), self.dir.clone(), meta.clone());
        let (meta, state, file) = blocking(move || {
            let (file, state) = snapshot::adopt(&*disk, &dir, &received, &meta)?;
            snapshot::remove_old(&*disk, &dir, SNAPSHOTS_KEPT)?;
            Ok((meta, state, file))
        })
        .await?;
        self.last_applied = meta.last_log_id;
        self.membership.send_replace(meta.last_membership.clone());
        self.current.supersede(meta, file);
        let index = self.last_applied.as_ref().map_or(0, |id| id.index);
        let shown = Shown::of(index, &state);
        self.current.applies_from.store(index + 1, Ordering::Release);
        // What happened in between is not known here: watches must begin anew.
        let old = self.hub.replace(state);
        self.shown.send_replace(shown);
        self.applied.send_replace(index);
        // A large state takes a while to free.
        blocking(move || {
            drop(old);
            Ok(())
        })
        .await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<CurrentSnapshot>> {
        let current = self.current.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(current.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

impl Current {
    /// Makes `file` the current snapshot unless a newer one is.
    fn supersede(&self, meta: SnapshotMeta, file: SnapshotFile) {
        let mut current = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|(now, _)| now.last_log_id <= meta.last_log_id) {
            self.bytes.store(file.bytes().unwrap_or_default(), Ordering::Relaxed);
            *current = Some((meta, file));
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    world::blocking(work).await.map_err(io::Error::other)?
}

/// Writes one snapshot beside the applying.
#[derive(Debug)]
pub(crate) struct Builder {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    meta: SnapshotMeta,
    state: Option<State>,
    current: Arc<Current>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<CurrentSnapshot> {
        let mut state = self.state.take().ok_or_else(|| io::Error::other("built already"))?;
        let mut told = false;
        let snapshot = loop {
            let (disk, dir, meta) = (Arc::clone(&self.disk), self.dir.clone(), self.meta.clone());
            // The state is dropped there too: what only it still holds takes a while to free.
            let (written, back) = blocking(move || {
                let written = snapshot::write(&*disk, &dir, &meta, &state);
                let full = is_full(&written);
                // Without room, the one before the newest is worth less than a new one.
                let keep = if full { 1 } else { SNAPSHOTS_KEPT };
                let removed = snapshot::remove_old(&*disk, &dir, keep);
                let state = full.then_some(state);
                Ok((written.and_then(|file| removed.map(|()| file)), state))
            })
            .await?;
            match (written, back) {
                (Err(error), Some(back)) if error.kind() == io::ErrorKind::StorageFull => {
                    if !told {
                        tracing::error!(dir = %self.dir.display(), "no room for a snapshot");
                        told = true;
                    }
                    state = back;
                    tokio::time::sleep(RETRY).await;
                }
                (written, _) => break written?,
            }
        };
        self.current.supersede(self.meta.clone(), snapshot.clone());
        Ok(Snapshot { meta: self.meta.clone(), snapshot })
    }
}

fn is_full<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull)
}
