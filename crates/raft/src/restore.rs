//! The first state of a new cluster, written onto empty disks.
//!
//! The new cluster has an id that was drawn, disks that its first membership names, a term and a revision far
//! beyond any that the old one can have come to, and a log that begins behind a snapshot. Members of the
//! old cluster and of the new one refuse each other by cluster and disk.

use crate::{
    backup::{self, BackupError, Contents},
    disk::{Disk, RealDisk},
    identity, snapshot,
    types::{LogId, Member, Membership, SnapshotMeta, StoredMembership, Vote, encode},
    wal::{Wal, WalError},
};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};
use store::{Epoch, Revision, state::State};

/// How far a new cluster's revision is beyond the last that is known of the old one, unless said
/// otherwise: more than an old cluster writes in a day at ten thousand a second.
pub const REVISION_JUMP: u64 = 1_000_000_000;
/// As far as that, the term: the old cluster may have gone on.
const TERM_JUMP: u64 = 1_000_000;
/// A log of nothing but marks.
const SEGMENT_BYTES: u64 = 16 << 20;

/// Why there is no new cluster.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup is of no use.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Something is there already.
    #[error("{} is not empty; a new cluster begins on disks that hold nothing", .0.display())]
    NotEmpty(PathBuf),
    /// It cannot be asked for like this.
    #[error("{0}")]
    Refused(String),
    /// The disk refuses. What was written is of no use, and is not taken for a replica's.
    #[error("{step}: {source}")]
    Io {
        /// What was tried.
        step: String,
        /// As the operating system says.
        source: io::Error,
    },
}

pub(crate) fn failed(step: impl Into<String>) -> impl FnOnce(io::Error) -> RestoreError {
    let step = step.into();
    move |source| RestoreError::Io { step, source }
}

/// A cluster that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founded {
    /// Its id, which was drawn.
    pub cluster: u64,
    /// Everything up to here counts as compacted.
    pub revision: Revision,
    /// No leader so far had a term beyond it.
    pub term: u64,
}

/// Makes `dirs` the data directories of the members of a new cluster that begins with what is in a
/// backup; blocks. Who is not among `members` can be added when they run.
///
/// # Errors
/// The backup is damaged, or a directory holds something: then nothing is written.
pub fn restore(
    file: &Path,
    members: &BTreeMap<u64, (Member, PathBuf)>,
    revision_jump: u64,
) -> Result<(Contents, Founded), RestoreError> {
    for (_, dir) in members.values() {
        check_empty(dir)?;
    }
    let (contents, meta, mut state) = backup::open(file)?;
    let last = meta.last_log_id;
    let (term, index) = last.map_or((0, 0), |id| (id.committed_leader_id().term, id.index));
    let founded = found(&mut state, term, index, members, revision_jump)?;
    Ok((contents, founded))
}

fn check_empty(dir: &Path) -> Result<(), RestoreError> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(RestoreError::NotEmpty(dir.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(format!("look into {}", dir.display()))(error)),
    }
}

/// As [`restore`], from a state that was at this place of an old log. The directories hold nothing that
/// matters.
pub(crate) fn found(
    state: &mut State,
    term: u64,
    index: u64,
    members: &BTreeMap<u64, (Member, PathBuf)>,
    revision_jump: u64,
) -> Result<Founded, RestoreError> {
    if members.is_empty() {
        return Err(RestoreError::Refused("a cluster has at least one member".to_owned()));
    }
    let term = term.max(state.view().epoch().0) + TERM_JUMP;
    state.renew(revision_jump, Epoch(term)).map_err(|_| {
        RestoreError::Refused("the revision would be out of range: jump less far".to_owned())
    })?;
    // Others take a log that ends with its first entry for none.
    let last = LogId::new_term_index(term, index.max(1));
    let cluster = rand::random_range(1..=u64::MAX);
    let named: BTreeMap<u64, Member> = members
        .iter()
        .map(|(id, (member, _))| {
            let disk = rand::random_range(1..=u64::MAX);
            (*id, Member { disk, votes: true, ..member.clone() })
        })
        .collect();
    let group = Membership::new(vec![named.keys().copied().collect()], named.clone())
        .map_err(|error| RestoreError::Refused(error.to_string()))?;
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), group),
    };
    for (id, (_, dir)) in members {
        let disk = named.get(id).map_or(0, |member| member.disk);
        let step = format!("write {}", dir.display());
        plant(dir, &meta, state, &last, *id).map_err(failed(step.clone()))?;
        // Last: without it what was written is refused.
        identity::plant(dir, cluster, *id, disk, last.index).map_err(failed(step))?;
    }
    Ok(Founded { cluster, revision: state.view().revision(), term })
}

/// Snapshot and log of one member.
fn plant(dir: &Path, meta: &SnapshotMeta, state: &State, last: &LogId, id: u64) -> io::Result<()> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let (log, snapshots) = (dir.join("log"), dir.join("snapshots"));
    disk.create_dir_all(&log)?;
    disk.create_dir_all(&snapshots)?;
    snapshot::write(&*disk, &snapshots, meta, state)?;
    let on_failure = Box::new(|error: &WalError| tracing::error!(%error, "the log has failed"));
    let wal = Wal::open(disk, &log, SEGMENT_BYTES, on_failure).map_err(io::Error::other)?;
    let term = last.committed_leader_id().term;
    // For itself, as every other: in this term nobody can win.
    let vote: Vote = Vote::new(term, id);
    wal.save_vote(encode(&vote).into(), Box::new(|_| {}))?;
    wal.purge(last.index, encode(last).into(), Box::new(|_| {}))?;
    wal.save_committed(encode(last).into())?;
    let (done, told) = mpsc::channel();
    wal.barrier(Box::new(move |result| {
        let _ = done.send(result);
    }))?;
    told.recv().unwrap_or_else(|_| Err(io::Error::other("the log has failed")))
}
