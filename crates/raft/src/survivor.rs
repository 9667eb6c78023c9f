//! What is left on a disk of a cluster that has lost its majority: looked at without changing it, and made
//! a cluster of its own.

use crate::{
    disk::{Disk as _, MemoryDisk, RealDisk},
    identity::{self, Standing},
    restore::{self, Founded, RestoreError, failed},
    snapshot,
    start::StartError,
    types::{Entry, LogId, Member, SnapshotMeta, StoredMembership, Vote, decode},
    wal::{Wal, WalError},
};
use openraft::EntryPayload;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use store::{Revision, state::State};

/// Entries read at a time.
const STEP: u64 = 256;

/// A replica's disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survivor {
    /// The data directory.
    pub dir: PathBuf,
    /// The cluster.
    pub cluster: u64,
    /// The member.
    pub member: u64,
    /// Why it can be no basis, whatever it holds: it never took part, or was removed.
    pub unfit: Option<&'static str>,
    /// Of its last vote.
    pub vote_term: u64,
    /// First and last index in the log, if it has entries.
    pub log: Option<(u64, u64)>,
    /// What its snapshot holds, up to this index; 0 without one.
    pub snapshot: u64,
    /// Known here to be committed, up to this index.
    pub committed: u64,
    /// Revision at `committed`.
    pub committed_revision: Revision,
    /// Term and index of the last entry, or of the snapshot behind which there is none.
    pub last: (u64, u64),
    /// Revision after the last entry.
    pub last_revision: Revision,
    /// Who is in the cluster, by its last entry.
    pub members: BTreeMap<u64, Member>,
    /// Those of them that vote.
    pub voters: BTreeSet<u64>,
    /// What on it is not what was written. A snapshot that another can stand in for is only that;
    /// anything else makes the disk useless.
    pub damage: Vec<String>,
    /// Whether everything from the snapshot to the last entry can be read.
    pub whole: bool,
}

impl Survivor {
    /// Whether a cluster can go on from it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.whole && self.unfit.is_none()
    }
}

/// Looks at a data directory that nobody uses; blocks. Reads everything and changes nothing.
///
/// # Errors
/// It is in use or nobody's, or cannot be read at all. That it is damaged is in the answer.
pub fn look(dir: &Path) -> Result<Survivor, StartError> {
    let _lock = identity::lock(&RealDisk, dir)?;
    inspect(dir).map(|(survivor, _)| survivor)
}

fn inspect(dir: &Path) -> Result<(Survivor, State), StartError> {
    let io = |step: &str| {
        let step = format!("{step} of {}", dir.display());
        move |source| StartError::Io { step, source }
    };
    let Some((cluster, member, standing)) = identity::look(dir).map_err(io("read the identity"))?
    else {
        let text = format!("{} is no replica's: it has no identity", dir.display());
        return Err(StartError::Identity(text));
    };
    let unfit = match standing {
        Standing::Blank => Some("it had not taken part yet"),
        Standing::Removed => Some("its member was removed"),
        Standing::Founder | Standing::Named | Standing::Planted => None,
    };
    let mut survivor =
        Survivor { dir: dir.to_owned(), cluster, member, unfit, ..Survivor::default() };
    let mut state = State::default();
    match read(dir, &mut survivor, &mut state) {
        Ok(()) => survivor.whole = true,
        Err(error) => survivor.damage.push(error),
    }
    Ok((survivor, state))
}

/// Everything that can be read, into `found` and `state`.
///
/// # Errors
/// Where it is damaged.
fn read(dir: &Path, found: &mut Survivor, state: &mut State) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let log = dir.join("log");
    let memory = Arc::new(MemoryDisk::default());
    for path in RealDisk.list(&log).map_err(|e| format!("list {}: {e}", log.display()))? {
        // A copy: opening a log cuts its end.
        let bytes = fs::read(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
        let copy = memory.create(&path).map_err(text)?;
        copy.write_at(&bytes, 0).and_then(|()| copy.sync_data()).map_err(text)?;
    }
    memory.sync_dir(&log).map_err(text)?;
    let on_failure = Box::new(|error: &WalError| tracing::error!(%error, "a copy has failed"));
    let wal = Wal::open(memory, &log, 16 << 20, on_failure).map_err(|e| e.to_string())?;
    let marks = wal.marks();
    let vote: Option<Vote> = marks.vote.map(|v| decode(&v)).transpose().map_err(text)?;
    found.vote_term = vote.map_or(0, |vote| vote.leader_id.term);
    let committed: Option<LogId> =
        marks.committed.map(|id| decode(&id)).transpose().map_err(text)?;
    found.log = wal.bounds();
    let purged = marks.purged.map(|(index, _)| index);
    if let Some((meta, taken)) = newest(&dir.join("snapshots"), &mut found.damage)? {
        let id = meta.last_log_id;
        (found.snapshot, found.last) =
            id.map_or((0, (0, 0)), |id| (id.index, (id.committed_leader_id().term, id.index)));
        note(found, &meta.last_membership);
        *state = taken;
    }
    if purged > Some(found.snapshot) {
        return Err(format!(
            "the log begins behind {}, and no snapshot reaches it",
            found.snapshot
        ));
    }
    // What a snapshot holds was committed, whatever the last mark says.
    found.committed = committed.map_or(0, |id| id.index).max(found.snapshot);
    found.committed_revision = state.view().revision();
    found.last_revision = found.committed_revision;
    let Some((first, last)) = found.log else { return Ok(()) };
    let mut next = first.max(found.snapshot + 1);
    if found.snapshot == 0 {
        next = first;
    }
    while next <= last {
        let end = (next + STEP).min(last + 1);
        for body in wal.read(next, end, usize::MAX).map_err(text)? {
            let entry: Entry = decode(&body).map_err(text)?;
            let id = entry.log_id;
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(group) => {
                    note(found, &StoredMembership::new(Some(id), group))
                }
                EntryPayload::Normal(batch) => {
                    for command in batch.decode().map_err(text)? {
                        state.apply(&command);
                    }
                }
            }
            found.last = (id.committed_leader_id().term, id.index);
            found.last_revision = state.view().revision();
            if id.index <= found.committed {
                found.committed_revision = found.last_revision;
            }
        }
        next = end;
    }
    // It is noted lazily, and can be ahead of a log only by entries that were lost with a power cut.
    found.committed = found.committed.min(found.last.1);
    Ok(())
}

fn note(found: &mut Survivor, group: &StoredMembership) {
    found.members = group.nodes().map(|(id, member)| (*id, member.clone())).collect();
    found.voters = group.voter_ids().collect();
}

/// The newest whole snapshot; those that are not are noted.
fn newest(dir: &Path, damage: &mut Vec<String>) -> Result<Option<(SnapshotMeta, State)>, String> {
    let listed = RealDisk.list(dir).map_err(|e| format!("list {}: {e}", dir.display()))?;
    for path in listed.into_iter().rev().filter(|path| snapshot::is_named(path)) {
        let read = fs::File::open(&path).and_then(|file| snapshot::read(&path, &file));
        match read {
            Ok(read) => return Ok(Some(read)),
            Err(error) => damage.push(error.to_string()),
        }
    }
    Ok(None)
}

/// Makes the disk of a survivor that of the only member of a new cluster, with everything that its log
/// holds, whether it is known to be committed or not; blocks. What was on it is moved into a directory
/// inside, which is answered, too.
///
/// `last` is what [`look`] said: a disk that has changed meanwhile is refused.
///
/// # Errors
/// It is not usable, or not the one that was looked at: then nothing is changed. If the disk refuses halfway,
/// what was on it is in that directory, and the replica does not start.
pub fn recover(
    dir: &Path,
    last: (u64, u64),
    revision_jump: u64,
) -> Result<(Survivor, Founded, PathBuf), RestoreError> {
    let refused = |text: String| RestoreError::Refused(text);
    let _lock = identity::lock(&RealDisk, dir).map_err(|error| refused(error.to_string()))?;
    let (survivor, mut state) = inspect(dir).map_err(|error| refused(error.to_string()))?;
    let shown = dir.display();
    if !survivor.is_usable() {
        let why = survivor.unfit.map(str::to_owned).or(survivor.damage.last().cloned());
        return Err(refused(format!("{shown} is of no use: {}", why.unwrap_or_default())));
    }
    if survivor.last != last {
        let (term, index) = survivor.last;
        return Err(refused(format!(
            "{shown} ends at {term}-{index}, not at {}-{}: make a new plan",
            last.0, last.1
        )));
    }
    let member = survivor.members.get(&survivor.member).cloned();
    let member = member
        .ok_or_else(|| refused(format!("{shown} does not know its own member's peer URL")))?;
    let aside = dir.join(format!("before-recovery-{:016x}-{}", survivor.cluster, last.1));
    let step = format!("move what is in {shown} aside");
    (|| {
        fs::create_dir(&aside)?;
        // First: without an identity what is left is refused.
        for name in ["identity", "log", "snapshots"] {
            fs::rename(dir.join(name), aside.join(name))?;
        }
        RealDisk.sync_dir(&aside)?;
        RealDisk.sync_dir(dir)
    })()
    .map_err(failed(step))?;
    let members = BTreeMap::from([(survivor.member, (member, dir.to_owned()))]);
    let term = survivor.vote_term.max(last.0);
    let founded = restore::found(&mut state, term, last.1, &members, revision_jump)?;
    Ok((survivor, founded, aside))
}
