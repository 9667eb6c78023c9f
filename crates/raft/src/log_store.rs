//! openraft's log over the [`Wal`].

use crate::{
    stages::Stages,
    types::{Entry, LogId, TypeConfig, Vote, decode, encode},
    wal::{Done, Wal},
};
use bytes::Bytes;
use openraft::{
    LogState, OptionalSend, RaftLogReader, entry::RaftEntry, storage::IOFlushed,
    storage::RaftLogStorage,
};
use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::Arc,
};
use tokio::sync::oneshot;

/// Bytes of entries that one replication message carries at most.
const READ_BYTES: usize = 2 << 20;

/// Log, vote and what is committed.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    wal: Arc<Wal>,
    stages: Arc<Stages>,
}

impl LogStore {
    pub(crate) fn new(wal: Arc<Wal>, stages: Arc<Stages>) -> Self {
        Self { wal, stages }
    }

    async fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let bodies = if self.wal.read_blocks(start, end) {
            let wal = Arc::clone(&self.wal);
            world::blocking(move || wal.read(start, end, bytes_max))
                .await
                .map_err(io::Error::other)??
        } else {
            self.wal.read(start, end, bytes_max)?
        };
        bodies.iter().map(|body| decode(body)).collect()
    }
}

/// Waits until what was given to the log before is durable.
///
/// # Errors
/// The log has failed.
pub(crate) async fn durable(wal: &Wal) -> io::Result<()> {
    told(|done| wal.barrier(done)).await
}

/// Writes and syncs something that changes nothing.
///
/// # Errors
/// The log has failed.
pub(crate) async fn probe(wal: &Wal) -> io::Result<()> {
    told(|done| wal.probe(done)).await
}

async fn told(write: impl FnOnce(Done) -> io::Result<()>) -> io::Result<()> {
    let (sender, receiver) = oneshot::channel();
    write(Box::new(move |result| {
        let _ = sender.send(result);
    }))?;
    receiver.await.unwrap_or_else(|_| Err(io::Error::other("the log has failed")))
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, usize::MAX).await
    }

    /// Entries from `start`, or none when that one is purged: a stream whose follower has moved on
    /// may still ask, and must not be given what does not follow the entry that it goes on from.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let entries = self.read(start, end, READ_BYTES).await?;
        let follow = entries.first().is_some_and(|first| first.index() == start);
        Ok(if follow { entries } else { Vec::new() })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.wal.marks().vote.map(|vote| decode(&vote)).transpose()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let last_purged_log_id: Option<LogId> =
            self.wal.marks().purged.map(|(_, id)| decode(&id)).transpose()?;
        let last = match self.wal.bounds() {
            None => None,
            Some((_, last)) => self.read(last, last + 1, usize::MAX).await?.pop(),
        };
        let last_log_id = last.map(|entry| entry.log_id()).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    /// Does not wait for the disk: a disk that hangs must not hold up what needs none, such as a
    /// heartbeat. Whatever a vote promises leaves this replica only after it is durable: see
    /// `PeerServer::vote` for the votes given, `Connection::vote` for those asked for, and
    /// `PeerServer::append` for what an earlier leader has sent. An entry is
    /// written behind the vote of the leader that it is from, so that it is never durable before it.
    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.wal.save_vote(Bytes::from(encode(vote)), Box::new(|_| {}))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        match committed {
            Some(id) => self.wal.save_committed(encode(&id).into()),
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.wal.marks().committed.map(|id| decode(&id)).transpose()
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> =
            entries.into_iter().map(|entry| (entry.index(), encode(&entry).into())).collect();
        let indexes: Vec<u64> = entries.iter().map(|(index, _)| *index).collect();
        for index in &indexes {
            self.stages.appended(*index);
        }
        let stages = Arc::clone(&self.stages);
        let written = move |result| {
            for index in indexes {
                stages.durable(index);
            }
            callback.io_completed(result);
        };
        self.wal.append(entries, Box::new(written))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        // What comes in place of these entries is written behind this record.
        self.wal.truncate_after(last.map(|id| id.index), Box::new(|_| {}))
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        // If it is lost, there are more entries than needed.
        self.wal.purge(log_id.index, encode(&log_id).into(), Box::new(|_| {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{disk::RealDisk, state_machine::StateMachine};
    use openraft::{
        StorageError,
        testing::log::{StoreBuilder, Suite},
    };
    use tempfile::TempDir;

    struct OnDisk;

    impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for OnDisk {
        async fn build(
            &self,
        ) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
            let dir = tempfile::tempdir().unwrap();
            for sub in ["log", "snapshots"] {
                std::fs::create_dir(dir.path().join(sub)).unwrap();
            }
            let on_failure = Box::new(|error: &crate::wal::WalError| panic!("{error}"));
            let log = dir.path().join("log");
            let wal = Wal::open(Arc::new(RealDisk), &log, 1 << 20, on_failure).unwrap();
            let snapshots = dir.path().join("snapshots");
            let machine = StateMachine::open(Arc::new(RealDisk), snapshots, None).unwrap();
            Ok((dir, LogStore::new(Arc::new(wal), Arc::default()), machine))
        }
    }

    fn id(index: u64) -> LogId {
        let leader = openraft::impls::leader_id_std::LeaderId { term: 1, voted_for: 1 };
        LogId::new(openraft::vote::RaftLeaderId::to_committed(&leader), index)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_replicated_follows_on_what_was_asked_for() {
        let (_dir, mut log, _) = OnDisk.build().await.unwrap();
        let entries = (1..=20).map(|index| Entry::new_blank(id(index)));
        log.append(entries, IOFlushed::noop()).await.unwrap();
        log.purge(id(10)).await.unwrap();
        let first = |entries: Vec<Entry>| entries.first().map(RaftEntry::index);
        assert_eq!(first(log.limited_get_log_entries(11, 21).await.unwrap()), Some(11));
        assert_eq!(first(log.limited_get_log_entries(5, 21).await.unwrap()), None);
        assert_eq!(first(log.try_get_log_entries(5..21).await.unwrap()), Some(11));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn openrafts_own_suite_passes_over_the_real_log() {
        Suite::test_all(OnDisk).await.unwrap();
    }
}
