//! What a replica's log and state hold, for those who check replicas against each other.

use crate::{
    store::RaftStore,
    types::{Entry, LogId, decode},
};
use openraft::{EntryPayload, async_runtime::watch::WatchReceiver as _};
use std::{io, sync::atomic::Ordering};
use store::{Command, state::State};

/// An entry that a replica took for committed.
#[derive(Debug, Clone, PartialEq)]
pub struct AppliedEntry {
    /// Position in the log.
    pub index: u64,
    /// Term in which it was proposed.
    pub term: u64,
    /// Of its bytes (FNV-1a).
    pub digest: u64,
    /// None in an entry of the consensus' own.
    pub commands: Vec<Command>,
}

/// A place in the log: later ones compare as greater, also where logs differ (raft §5.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LogEnd {
    /// Term of the entry there; 0 if there is none.
    pub term: u64,
    /// Its index; 0 if there is none.
    pub index: u64,
}

impl LogEnd {
    fn of(id: LogId) -> Self {
        Self { term: id.committed_leader_id().term, index: id.index }
    }
}

impl RaftStore {
    /// Entries that are applied here, from `first` on, as far as the log still has them. Blocks for those
    /// that memory does not hold. What came by way of a snapshot is left out: the log may have another
    /// leader's entries there, until it drops them.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn applied_entries(&self, first: u64) -> io::Result<Vec<AppliedEntry>> {
        let end = *self.core.applied.borrow() + 1;
        let first = first.max(self.core.applies_from.load(Ordering::Acquire));
        if first >= end {
            return Ok(Vec::new());
        }
        let bodies = self.core.wal.read(first, end, usize::MAX)?;
        let entries = bodies.iter().map(|body| {
            let Entry { log_id, payload } = decode(body)?;
            let LogEnd { term, index } = LogEnd::of(log_id);
            let commands = match payload {
                EntryPayload::Normal(batch) => batch.decode()?,
                EntryPayload::Blank | EntryPayload::Membership(_) => Vec::new(),
            };
            Ok(AppliedEntry { index, term, digest: fnv(body), commands })
        });
        entries.collect()
    }

    /// The whole state with the answers to requests, which readers do not see. O(answers).
    #[must_use]
    pub fn state(&self) -> State {
        self.core.hub.state()
    }

    /// Where the log ends. Blocks if memory does not hold the last entry.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log_end(&self) -> io::Result<LogEnd> {
        if let Some((_, last)) = self.core.wal.bounds()
            && let Some(body) = self.core.wal.read(last, last + 1, usize::MAX)?.first()
        {
            return Ok(LogEnd::of(decode::<Entry>(body)?.log_id));
        }
        match self.core.wal.marks().purged {
            Some((_, id)) => Ok(LogEnd::of(decode(&id)?)),
            None => Ok(LogEnd::default()),
        }
    }

    /// As a leader: by member, up to where each has said that it has the log on its disk. Empty for who
    /// does not lead.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<(u64, LogEnd)> {
        let metrics = self.core.raft.metrics();
        let now = metrics.borrow_watched();
        let members = now.replication.iter().flatten();
        members.filter_map(|(member, id)| Some((*member, LogEnd::of((*id)?)))).collect()
    }
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
