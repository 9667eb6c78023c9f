//! A machine's own disk: records in a database, directories as directories.
//!
//! sled loses its whole database when the power goes, unless its files are synced after each flush
//! (ARCHITECTURE.md, "Dependencies"); and what it cannot read it may panic about. So nothing waits for
//! it, and a damaged one is moved aside.

use super::{Changes, Contents, NodeDisk, Records};
use crate::journal::body;
use async_trait::async_trait;
use std::{
    collections::BTreeSet,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

/// For an agent that is ending to let go of the database.
const CLOSING: Duration = Duration::from_secs(1);
const CLOSING_STEP: Duration = Duration::from_millis(10);
/// Pages kept in memory; the records are few and small.
const CACHE_BYTES: u64 = 1 << 20;

/// Files, as the operating system keeps them.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileDisk;

#[async_trait]
impl NodeDisk for FileDisk {
    async fn open(&self, dir: &Path) -> (Box<dyn Records>, Contents) {
        let dir = dir.to_owned();
        match world::blocking(move || Database::open(&dir)).await {
            Ok((database, found)) => (Box::new(Files(Some(database))), found),
            Err(error) => {
                tracing::error!(%error, "no journal: a restart forgets what was under way");
                (Box::new(Files(None)), Contents::new())
            }
        }
    }

    fn make_volume(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, Permissions::from_mode(0o777))
    }

    fn remove(&self, dir: &Path) {
        let _ = fs::remove_dir_all(dir);
    }
}

/// `None` once it is lost.
struct Files(Option<Database>);

#[async_trait]
impl Records for Files {
    async fn apply(&mut self, changes: Changes) {
        let Some(mut database) = self.0.take() else { return };
        let written = world::blocking(move || {
            database.apply(changes);
            database
        });
        match written.await {
            Ok(database) => self.0 = Some(database),
            Err(error) => {
                tracing::error!(%error, "the journal is lost; the node goes on without");
            }
        }
    }
}

/// Blocks.
#[derive(Debug)]
struct Database {
    dir: PathBuf,
    /// `None`: the disk does not let us.
    db: Option<sled::Db>,
    keys: BTreeSet<String>,
}

impl Database {
    /// One that cannot be read is moved aside, and another one begun.
    fn open(dir: &Path) -> (Self, Contents) {
        for _ in 0..2 {
            match guarded(|| when_free(dir)) {
                Ok((db, found)) => {
                    let keys = found.keys().cloned().collect();
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
        (Self { dir: dir.to_owned(), db: None, keys: BTreeSet::new() }, Contents::new())
    }

    /// Makes changes durable, all of them or none.
    fn apply(&mut self, changes: Changes) {
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
fn when_free(dir: &Path) -> Result<(sled::Db, Contents), String> {
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

fn read_all(dir: &Path) -> Result<(sled::Db, Contents), String> {
    let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    let db = config.open().map_err(|e| e.to_string())?;
    let mut found = Contents::new();
    for entry in db.iter() {
        let (key, value) = entry.map_err(|e| e.to_string())?;
        let key = String::from_utf8(key.to_vec()).map_err(|e| e.to_string())?;
        if body(&value).is_none() {
            return Err(format!("record {key}: its checksum is wrong"));
        }
        found.insert(key, value.to_vec());
    }
    Ok((db, found))
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::journal::{Found, encode};
    use std::{
        collections::BTreeMap,
        io::{Seek as _, SeekFrom, Write as _},
    };

    /// As the journal frames it: what is not so framed is taken for damaged.
    pub(in crate::disk) fn record(value: &[u8]) -> Vec<u8> {
        encode(&value).unwrap()
    }

    #[tokio::test]
    async fn files_are_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        crate::disk::suite::run(&FileDisk, dir.path()).await;
        let left: Vec<_> = fs::read_dir(dir.path().join("volumes")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn every_user_may_write_to_a_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("a/b");
        FileDisk.make_volume(&volume).unwrap();
        let mode = fs::metadata(&volume).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o777);
    }

    fn write(dir: &Path, all: &[(String, String)]) {
        let changes = all.iter().map(|(k, v)| (k.clone(), Some(encode(v).unwrap()))).collect();
        Database::open(dir).0.apply(changes);
    }

    fn read(dir: &Path) -> BTreeMap<String, String> {
        Found(Database::open(dir).1).below("")
    }

    #[test]
    fn a_damaged_database_is_moved_aside() {
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
                write(&dir, &many);
                let path = dir.join(file);
                let len = fs::metadata(&path).unwrap().len();
                damage(&mut File::options().write(true).open(&path).unwrap(), len);
                for value in read(&dir).values() {
                    assert_eq!(*value, "v".repeat(200), "{name} {file}: what is read is right");
                }
                write(&dir, &[("new".to_owned(), "n".to_owned())]);
                let new = read(&dir).remove("new");
                assert_eq!(new.as_deref(), Some("n"), "{name} {file}: it works on");
            }
        }
    }
}
