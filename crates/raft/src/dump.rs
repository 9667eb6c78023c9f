//! Reads the log of a replica that does not run.

use crate::{
    disk::RealDisk,
    identity,
    start::StartError,
    types::{Entry, LogId, decode},
    wal::{Wal, WalError},
};
use openraft::EntryPayload;
use std::{io, path::Path, sync::Arc};
use store::Command;

/// Entries read at a time.
const STEP: u64 = 256;

/// What part of the log there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPart {
    /// Entries up to this index are in a snapshot and not in the log any more; 0 if none is.
    pub purged: u64,
    /// Of the last entry that is known here to be committed. Later ones may be, too.
    pub committed: u64,
    /// Of the last entry.
    pub last: u64,
}

/// Shows every command in the log of a data directory that nobody uses, in order, with the index of
/// its entry and whether it is known to be committed. Cuts a torn end of the log, as a start does.
///
/// # Errors
/// [`StartError::InUse`], a log that is damaged, and whatever `show` fails with.
pub fn read_log(
    data_dir: &Path,
    mut show: impl FnMut(u64, bool, &Command) -> io::Result<()>,
) -> Result<LogPart, StartError> {
    let failed = |step: &str| {
        let step = step.to_owned();
        move |source| StartError::Io { step, source }
    };
    let dir = data_dir.join("log");
    if !dir.is_dir() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        return Err(failed(&format!("read {}", dir.display()))(source));
    }
    let _lock = identity::lock(&RealDisk, data_dir)?;
    let on_failure = Box::new(|error: &WalError| tracing::error!(%error, "the log has failed"));
    // The size of a segment matters only to who writes one.
    let wal = Wal::open(Arc::new(RealDisk), &dir, 64 << 20, on_failure)?;
    let marks = wal.marks();
    let committed: Option<LogId> = marks
        .committed
        .map(|id| decode(&id))
        .transpose()
        .map_err(failed("read what is committed"))?;
    let purged = marks.purged.map_or(0, |(index, _)| index);
    // What a snapshot holds was committed, whatever the last mark says.
    let committed = committed.map_or(0, |id| id.index).max(purged);
    let Some((first, last)) = wal.bounds() else {
        return Ok(LogPart { purged, committed, last: purged });
    };
    let mut next = first;
    while next <= last {
        let end = (next + STEP).min(last + 1);
        for body in wal.read(next, end, usize::MAX).map_err(failed("read the log"))? {
            let entry: Entry = decode(&body).map_err(failed("decode an entry"))?;
            let index = entry.log_id.index;
            if let EntryPayload::Normal(batch) = entry.payload {
                for command in batch.decode().map_err(failed("decode commands"))? {
                    show(index, index <= committed, &command).map_err(failed("show a command"))?;
                }
            }
        }
        next = end;
    }
    Ok(LogPart { purged, committed, last })
}
