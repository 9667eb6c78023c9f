//! What a kubelet keeps on its node's disk: records that outlive it, and the directories of Pods.
//!
//! [`FileDisk`] is a machine's own. [`MemoryDisk`] is one whose power can be cut, for tests and for
//! simulations. Both run the same suite.

mod files;
mod memory;

pub use files::FileDisk;
pub use memory::MemoryDisk;

use async_trait::async_trait;
use std::{collections::BTreeMap, fmt, io, path::Path};

/// Records by key.
pub type Contents = BTreeMap<String, Vec<u8>>;
/// Records by key; `None` for one that there is no longer to be.
pub type Changes = BTreeMap<String, Option<Vec<u8>>>;

/// The disk of a node, as far as its kubelet uses it itself. What containers write is the runtime's.
#[async_trait]
pub trait NodeDisk: Send + Sync + fmt::Debug {
    /// Opens the records at `dir`, and says what is in them. Where that cannot be, there is nothing in
    /// them, and nothing is kept: a node works without.
    async fn open(&self, dir: &Path) -> (Box<dyn Records>, Contents);

    /// Makes a directory that every user may write to, and those above it.
    ///
    /// # Errors
    /// As the disk says.
    fn make_volume(&self, dir: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it, as far as that can be done.
    fn remove(&self, dir: &Path);
}

/// Records that are open; nobody else can open them until this is dropped.
#[async_trait]
pub trait Records: Send {
    /// Makes changes durable, all of them or none, and returns when they are. Where the disk does not let
    /// us, they are given up.
    async fn apply(&mut self, changes: Changes);
}

#[cfg(test)]
mod suite {
    //! What every disk must do.

    use super::*;

    fn changes(all: &[(&str, Option<&[u8]>)]) -> Changes {
        let change = |(key, value): &(&str, Option<&[u8]>)| {
            ((*key).to_owned(), value.map(super::files::tests::record))
        };
        all.iter().map(change).collect()
    }

    fn contents(all: &[(&str, &[u8])]) -> Contents {
        let record =
            |(key, value): &(&str, &[u8])| ((*key).to_owned(), super::files::tests::record(value));
        all.iter().map(record).collect()
    }

    pub(super) async fn run(disk: &dyn NodeDisk, dir: &Path) {
        // S28: records outlive the agent.
        let at = dir.join("journal");
        let (mut records, found) = disk.open(&at).await;
        assert_eq!(found, Contents::new());
        records.apply(changes(&[("a/1", Some(b"x")), ("a/2", Some(b"y"))])).await;
        records.apply(changes(&[("a/1", None), ("a/2", Some(b"z")), ("never", None)])).await;
        records.apply(Changes::new()).await;
        // Who comes second gets nothing, and does no harm.
        let (mut second, found) = disk.open(&at).await;
        assert_eq!(found, Contents::new());
        second.apply(changes(&[("a/2", None), ("b", Some(b"w"))])).await;
        drop(second);
        drop(records);
        let (records, found) = disk.open(&at).await;
        assert_eq!(found, contents(&[("a/2", b"z")]));
        drop(records);
        let (_other, found) = disk.open(&dir.join("other")).await;
        assert_eq!(found, Contents::new(), "another database");

        let volume = dir.join("volumes/uid/volumes/cache");
        disk.make_volume(&volume).unwrap();
        disk.make_volume(&volume).unwrap();
        disk.remove(&dir.join("volumes/uid"));
        disk.remove(&dir.join("volumes/uid"));
    }
}
