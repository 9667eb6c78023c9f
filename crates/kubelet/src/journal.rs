//! What a node must know after a restart of its agent and can learn from nobody else: records on disk.
//!
//! sled loses its whole database when the power goes, unless its files are synced after each flush
//! (ARCHITECTURE.md, "Dependencies"); and what it cannot read it may panic about. So nothing waits for
//! it, everything in it can be lost, and a damaged one is moved aside. Each record has a version and a
//! checksum of its own.

use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Of every record: what bincode writes has no room for fields to come.
const VERSION: u8 = 1;
/// For an agent that is ending to let go of the database.
const CLOSING: Duration = Duration::from_secs(1);
const CLOSING_STEP: Duration = Duration::from_millis(10);
/// Pages kept in memory; the records are few and small.
const CACHE_BYTES: u64 = 1 << 20;

/// A record, or that there is none any more.
type Change = Option<Vec<u8>>;

/// Records by key. Changes are written in the background, the latest of each key.
#[derive(Default)]
pub(crate) struct Journal {
    changes: Mutex<BTreeMap<String, Change>>,
    changed: Notify,
}

impl Journal {
    /// Keeps a record instead of the one that was there.
    pub(crate) fn put<R: Serialize>(&self, key: String, record: &R) {
        match encode(record) {
            Ok(bytes) => self.change(key, Some(bytes)),
            Err(error) => tracing::warn!(%error, key, "a record cannot be encoded"),
        }
    }

    /// Forgets a record.
    pub(crate) fn remove(&self, key: String) {
        self.change(key, None);
    }

    fn change(&self, key: String, change: Change) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).insert(key, change);
        self.changed.notify_one();
    }

    fn take(&self) -> BTreeMap<String, Change> {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes what changes until `shutdown`, and then the rest.
    pub(crate) async fn write(self: Arc<Self>, disk: Disk, shutdown: CancellationToken) {
        let mut disk = disk;
        loop {
            let last = tokio::select! {
                () = self.changed.notified() => false,
                () = shutdown.cancelled() => true,
            };
            let changes = self.take();
            let written = world::blocking(move || {
                disk.apply(changes);
                disk
            });
            match written.await {
                Ok(back) if !last => disk = back,
                Ok(_) => return,
                Err(error) => {
                    tracing::error!(%error, "the journal is lost; the node goes on without");
                    return;
                }
            }
        }
    }
}

/// The records as read when the agent started.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Found(BTreeMap<String, Vec<u8>>);

impl Found {
    /// Every record below a prefix that can be read, by the rest of its key.
    pub(crate) fn below<R: DeserializeOwned>(&self, prefix: &str) -> BTreeMap<String, R> {
        self.0
            .iter()
            .filter_map(|(key, bytes)| {
                let rest = key.strip_prefix(prefix)?;
                Some((rest.to_owned(), decode(bytes)?))
            })
            .collect()
    }
}

/// The database.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
    /// `None`: the disk does not let us.
    db: Option<sled::Db>,
    keys: BTreeSet<String>,
}

impl Disk {
    /// Opens the database; one that cannot be read is moved aside, and another one begun. Blocks.
    pub(crate) fn open(dir: &Path) -> (Self, Found) {
        for _ in 0..2 {
            match guarded(|| when_free(dir)) {
                Ok((db, found)) => {
                    let keys = found.0.keys().cloned().collect();
                    return (Self { dir: dir.to_owned(), db: Some(db), keys }, found);
                }
                // Nothing is wrong with it: another agent has it.
                Err(error) if is_in_use(&error) => {
                    tracing::error!(error, "the journal is in use");
                    break;
                }
                Err(error) => {
                    let aside = aside(dir);
                    tracing::warn!(error, aside = %aside.display(), "the journal is damaged");
                    if let Err(error) = fs::rename(dir, &aside) {
                        tracing::warn!(%error, "the journal cannot be moved aside");
                    }
                }
            }
        }
        tracing::error!(dir = %dir.display(), "no journal: a restart forgets what was under way");
        (Self { dir: dir.to_owned(), db: None, keys: BTreeSet::new() }, Found::default())
    }

    /// Makes changes durable, all of them or none. Blocks.
    fn apply(&mut self, changes: BTreeMap<String, Change>) {
        let Some(db) = &self.db else { return };
        let mut batch = sled::Batch::default();
        let mut any = false;
        for (key, change) in changes {
            match change {
                Some(bytes) => {
                    batch.insert(key.as_bytes(), bytes);
                    self.keys.insert(key);
                }
                // Put and forgotten before the disk was free.
                None if !self.keys.remove(&key) => continue,
                None => batch.remove(key.as_bytes()),
            }
            any = true;
        }
        if !any {
            return;
        }
        let written = guarded(|| {
            db.apply_batch(batch).and_then(|()| db.flush()).map_err(|e| e.to_string())?;
            sync(&self.dir).map_err(|e| e.to_string())
        });
        if let Err(error) = written {
            tracing::error!(error, "the journal cannot be written; the node goes on without");
            self.db = None;
        }
    }
}

/// What panics has failed.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("the database panicked".to_owned()))
}

fn is_in_use(error: &str) -> bool {
    error.contains("could not acquire lock")
}

/// As [`read_all`], once whoever has it has closed it: sled's own threads hold its lock for a moment after
/// the database was dropped.
fn when_free(dir: &Path) -> Result<(sled::Db, Found), String> {
    for _ in 0..CLOSING.as_millis() / CLOSING_STEP.as_millis() {
        match read_all(dir) {
            Err(error) if is_in_use(&error) => {}
            result => return result,
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "may block, and nobody tells of a file's lock"
        )]
        std::thread::sleep(CLOSING_STEP);
    }
    read_all(dir)
}

fn read_all(dir: &Path) -> Result<(sled::Db, Found), String> {
    let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    let db = config.open().map_err(|e| e.to_string())?;
    let mut found = BTreeMap::new();
    for entry in db.iter() {
        let (key, value) = entry.map_err(|e| e.to_string())?;
        let key = String::from_utf8(key.to_vec()).map_err(|e| e.to_string())?;
        if body(&value).is_none() {
            return Err(format!("record {key}: its checksum is wrong"));
        }
        found.insert(key, value.to_vec());
    }
    Ok((db, Found(found)))
}

/// sled's flush only starts the writing.
fn sync(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() {
            match File::open(&path) {
                Ok(file) => file.sync_data()?,
                // A snapshot that was replaced.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn aside(dir: &Path) -> PathBuf {
    let name = |n: u32| {
        let mut name = dir.as_os_str().to_owned();
        name.push(format!(".damaged-{n}"));
        PathBuf::from(name)
    };
    (0..u32::MAX).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(u32::MAX))
}

fn encode<R: Serialize>(record: &R) -> Result<Vec<u8>, bincode::Error> {
    let mut framed = vec![VERSION];
    bincode::serialize_into(&mut framed, record)?;
    let mut bytes = crc32fast::hash(&framed).to_le_bytes().to_vec();
    bytes.extend(framed);
    Ok(bytes)
}

/// Version and body, if the checksum is right.
fn body(bytes: &[u8]) -> Option<&[u8]> {
    let (checksum, framed) = bytes.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*checksum) == crc32fast::hash(framed)).then_some(framed)
}

/// A record of another version is as good as none.
fn decode<R: DeserializeOwned>(bytes: &[u8]) -> Option<R> {
    let (version, encoded) = body(bytes)?.split_first()?;
    if *version != VERSION {
        return None;
    }
    bincode::deserialize(encoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, SeekFrom, Write as _};

    async fn write(dir: &Path, changes: &[(&str, Option<&str>)]) {
        let (disk, _) = Disk::open(dir);
        let journal = Arc::new(Journal::default());
        for (key, value) in changes {
            match value {
                Some(value) => journal.put((*key).to_owned(), value),
                None => journal.remove((*key).to_owned()),
            }
        }
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        journal.write(disk, shutdown).await;
    }

    fn read(dir: &Path) -> BTreeMap<String, String> {
        Disk::open(dir).1.below("")
    }

    #[tokio::test]
    async fn records_outlive_the_agent() {
        // S28
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("journal");
        write(&dir, &[("a/1", Some("x")), ("a/2", Some("y")), ("b/1", Some("z"))]).await;
        write(&dir, &[("a/1", None), ("a/2", Some("w")), ("never", None)]).await;
        let want = [("2".to_owned(), "w".to_owned())];
        assert_eq!(Disk::open(&dir).1.below::<String>("a/"), want.into());
        assert_eq!(read(&dir).len(), 2);
    }

    #[tokio::test]
    async fn a_damaged_database_is_moved_aside() {
        // ARCHITECTURE.md: what is in sled can be lost
        type Damage = fn(&mut File, u64);
        let cases: [(&str, Damage); 4] = [
            ("emptied", |file, _| file.set_len(0).unwrap()),
            ("cut", |file, len| file.set_len(len / 2).unwrap()),
            ("flipped", |file, len| {
                for at in (0..len).step_by(97) {
                    file.seek(SeekFrom::Start(at)).unwrap();
                    file.write_all(&[0xa5]).unwrap();
                }
            }),
            ("overwritten", |file, len| {
                file.seek(SeekFrom::Start(0)).unwrap();
                file.write_all(&vec![0xff; usize::try_from(len).unwrap()]).unwrap();
            }),
        ];
        for (name, damage) in cases {
            for file in ["db", "conf"] {
                let dir = tempfile::tempdir().unwrap();
                let dir = dir.path().join("journal");
                let many: Vec<(String, String)> =
                    (0..50).map(|n| (format!("k{n}"), "v".repeat(200))).collect();
                let changes: Vec<(&str, Option<&str>)> =
                    many.iter().map(|(k, v)| (k.as_str(), Some(v.as_str()))).collect();
                write(&dir, &changes).await;
                let path = dir.join(file);
                let len = fs::metadata(&path).unwrap().len();
                damage(&mut File::options().write(true).open(&path).unwrap(), len);
                for value in read(&dir).values() {
                    assert_eq!(*value, "v".repeat(200), "{name} {file}: what is read is right");
                }
                write(&dir, &[("new", Some("n"))]).await;
                let new = read(&dir).remove("new");
                assert_eq!(new.as_deref(), Some("n"), "{name} {file}: it works on");
            }
        }
    }

    #[tokio::test]
    async fn a_database_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("journal");
        write(&dir, &[("a", Some("x"))]).await;
        let (first, _) = Disk::open(&dir);
        let (second, found) = Disk::open(&dir);
        assert!(second.db.is_none() && found == Found::default());
        drop(first);
        assert_eq!(read(&dir)["a"], "x");
    }

    #[test]
    fn a_record_with_a_wrong_checksum_or_version_is_none() {
        // storage.md: length, checksum, version
        let mut bytes = encode(&"x").unwrap();
        assert_eq!(decode::<String>(&bytes).as_deref(), Some("x"));
        bytes[6] ^= 1;
        assert_eq!(decode::<String>(&bytes), None);
        let other = [vec![VERSION + 1], bincode::serialize("x").unwrap()].concat();
        let framed = [crc32fast::hash(&other).to_le_bytes().to_vec(), other].concat();
        assert_eq!(decode::<String>(&framed), None);
        assert_eq!(decode::<String>(&[]), None);
    }
}
