//! A disk in memory, whose power can be cut.

use super::{Changes, Contents, NodeDisk, Records};
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::sleep;

/// One machine's disk. Clones see the same.
///
/// A change of records takes its time: half of it until an agent that is killed leaves it behind, and all of
/// it until a power cut does, too. Directories are there at once.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
    latency: Duration,
}

#[derive(Debug, Default)]
struct State {
    databases: BTreeMap<PathBuf, Database>,
    dirs: BTreeSet<PathBuf>,
}

#[derive(Debug, Default)]
struct Database {
    is_open: bool,
    /// As any process sees it.
    written: Contents,
    /// As it is after a power cut.
    synced: Contents,
}

impl MemoryDisk {
    /// An empty one, on which a change takes `latency`.
    #[must_use]
    pub fn new(latency: Duration) -> Self {
        Self { state: Arc::default(), latency }
    }

    /// The machine is switched off and on again: what was not synced is gone.
    pub fn power_cut(&self) {
        for database in self.state().databases.values_mut() {
            database.written = database.synced.clone();
        }
    }

    /// All records are found damaged by who opens them next, and moved aside.
    pub fn damage(&self) {
        for database in self.state().databases.values_mut() {
            database.written.clear();
            database.synced.clear();
        }
    }

    /// Directories that were made and not removed, in order.
    #[must_use]
    pub fn dirs(&self) -> Vec<PathBuf> {
        self.state().dirs.iter().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl NodeDisk for MemoryDisk {
    async fn open(&self, dir: &Path) -> (Box<dyn Records>, Contents) {
        let mut state = self.state();
        let database = state.databases.entry(dir.to_owned()).or_default();
        if std::mem::replace(&mut database.is_open, true) {
            return (Box::new(Nothing), Contents::new());
        }
        let found = database.written.clone();
        drop(state);
        (Box::new(Open { disk: self.clone(), dir: dir.to_owned() }), found)
    }

    fn make_volume(&self, dir: &Path) -> io::Result<()> {
        self.state().dirs.insert(dir.to_owned());
        Ok(())
    }

    fn remove(&self, dir: &Path) {
        self.state().dirs.retain(|made| !made.starts_with(dir));
    }
}

struct Open {
    disk: MemoryDisk,
    dir: PathBuf,
}

fn change(contents: &mut Contents, changes: &Changes) {
    for (key, change) in changes {
        match change {
            Some(record) => contents.insert(key.clone(), record.clone()),
            None => contents.remove(key),
        };
    }
}

impl Open {
    fn with(&self, work: impl FnOnce(&mut Database)) {
        if let Some(database) = self.disk.state().databases.get_mut(&self.dir) {
            work(database);
        }
    }
}

#[async_trait]
impl Records for Open {
    async fn apply(&mut self, changes: Changes) {
        let half = self.disk.latency / 2;
        if changes.is_empty() {
            return;
        }
        sleep(half).await;
        self.with(|database| change(&mut database.written, &changes));
        sleep(half).await;
        self.with(|database| change(&mut database.synced, &changes));
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.with(|database| database.is_open = false);
    }
}

/// Of who came second.
struct Nothing;

#[async_trait]
impl Records for Nothing {
    async fn apply(&mut self, _: Changes) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn memory_is_a_disk() {
        let disk = MemoryDisk::new(Duration::from_millis(4));
        crate::disk::suite::run(&disk, Path::new("/node")).await;
        assert_eq!(disk.dirs(), Vec::<PathBuf>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_killed_loses_what_was_not_written_and_a_power_cut_what_was_not_synced() {
        let dir = Path::new("/node/journal");
        // Milliseconds until the agent is killed: what is found by the next one, and after a power cut.
        for (killed, kept, durable) in [(1, false, false), (3, true, false), (5, true, true)] {
            let disk = MemoryDisk::new(Duration::from_millis(4));
            let (mut records, _) = disk.open(dir).await;
            let changes = Changes::from([("a".to_owned(), Some(vec![1]))]);
            let _ = timeout(Duration::from_millis(killed), records.apply(changes)).await;
            drop(records);
            let (records, found) = disk.open(dir).await;
            assert_eq!(!found.is_empty(), kept, "killed after {killed} ms");
            drop(records);
            disk.power_cut();
            assert_eq!(!disk.open(dir).await.1.is_empty(), durable, "cut after {killed} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_damaged_disk_keeps_nothing_and_works_on() {
        let (disk, dir) = (MemoryDisk::new(Duration::ZERO), Path::new("/node/journal"));
        let put = |key: &str| Changes::from([(key.to_owned(), Some(vec![1]))]);
        disk.open(dir).await.0.apply(put("a")).await;
        disk.damage();
        let (mut records, found) = disk.open(dir).await;
        assert_eq!(found, Contents::new());
        records.apply(put("b")).await;
        drop(records);
        assert_eq!(disk.open(dir).await.1.into_keys().collect::<Vec<_>>(), ["b"]);
    }
}
