//! Applies committed entries to the state and shows the result.

use crate::{
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
    sync::{Arc, Mutex, PoisonError},
};
use store::{
    state::{State, View},
    watch::Hub,
};
use tokio::sync::watch;

pub(crate) type CurrentSnapshot = Snapshot<
    openraft::alias::CommittedLeaderIdOf<TypeConfig>,
    u64,
    crate::types::Member,
    SnapshotFile,
>;

/// The state and where in the log it stands.
#[derive(Debug)]
pub(crate) struct StateMachine {
    dir: PathBuf,
    state: State,
    last_applied: Option<LogId>,
    membership: watch::Sender<StoredMembership>,
    hub: Arc<Hub>,
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
            applied: watch::Sender::new(last_applied.as_ref().map_or(0, |id| id.index)),
            state,
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
                    for command in &commands {
                        let transition = self.state.apply(command);
                        events.extend(transition.events);
                        results.push(transition.applied);
                    }
                    self.hub.publish(self.state.view(), &events);
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
            view: self.state.view(),
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
        self.state = state;
        self.last_applied = meta.last_log_id;
        self.membership.send_replace(meta.last_membership.clone());
        supersede(&self.current, meta, file);
        // What happened in between is not known here: watches must begin anew.
        self.hub.reset(self.state.view());
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
    view: View,
    current: Arc<Mutex<Option<(SnapshotMeta, SnapshotFile)>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<CurrentSnapshot> {
        let (dir, meta, view) = (self.dir.clone(), self.meta.clone(), self.view.clone());
        let (meta, snapshot) = blocking(move || {
            let file = snapshot::write(&dir, &meta, &view)?;
            snapshot::remove_old(&dir)?;
            Ok((meta, file))
        })
        .await?;
        supersede(&self.current, meta.clone(), snapshot.clone());
        Ok(Snapshot { meta, snapshot })
    }
}
