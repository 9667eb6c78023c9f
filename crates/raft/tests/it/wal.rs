//! The log against a disk that forgets, tears and refuses.

use bytes::Bytes;
use raft::{
    disk::{Disk, DiskFile},
    wal::{Wal, WalError},
};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

/// A disk in memory: what was not synced is lost by [`MemoryDisk::power_cut`].
#[derive(Clone, Default)]
struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<PathBuf, MemoryFile>>>,
    sync_fails: Arc<AtomicBool>,
}

#[derive(Clone, Default)]
struct MemoryFile {
    sync_fails: Arc<AtomicBool>,
    content: Arc<Mutex<Content>>,
}

#[derive(Default)]
struct Content {
    synced: Vec<u8>,
    /// Writes since the last sync.
    pending: Vec<(u64, Vec<u8>)>,
}

fn overlay(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    bytes.resize(bytes.len().max(offset + data.len()), 0);
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

impl Content {
    fn all(&self) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for (offset, data) in &self.pending {
            overlay(&mut bytes, usize::try_from(*offset).unwrap(), data);
        }
        bytes
    }
}

impl MemoryDisk {
    /// Of every unsynced write, only the 512-byte sectors that `kept` names reach the disk.
    fn power_cut(&self, kept: impl Fn(usize) -> bool) {
        for file in self.files.lock().unwrap().values() {
            let mut content = file.content.lock().unwrap();
            for (offset, data) in std::mem::take(&mut content.pending) {
                for (i, sector) in data.chunks(512).enumerate().filter(|(i, _)| kept(*i)) {
                    let at = usize::try_from(offset).unwrap() + i * 512;
                    overlay(&mut content.synced, at, sector);
                }
            }
        }
    }

    fn flip(&self, path: &Path, offset: usize) {
        let files = self.files.lock().unwrap();
        files[path].content.lock().unwrap().synced[offset] ^= 0x10;
    }
}

impl Disk for MemoryDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = MemoryFile { sync_fails: Arc::clone(&self.sync_fails), ..MemoryFile::default() };
        self.files.lock().unwrap().insert(path.to_owned(), file.clone());
        Ok(Box::new(file))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = self.files.lock().unwrap().get(path).cloned();
        Ok(Box::new(file.ok_or(io::ErrorKind::NotFound)?))
    }
    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.files.lock().unwrap().keys().cloned().collect())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.lock().unwrap();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.lock().unwrap().remove(path);
        Ok(())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.content.lock().unwrap().pending.push((offset, bytes.to_vec()));
        Ok(())
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let all = self.content.lock().unwrap().all();
        let at = usize::try_from(offset).unwrap();
        let found = all.get(at..at + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(found);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let mut content = self.content.lock().unwrap();
        content.synced = content.all();
        content.pending.clear();
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.content.lock().unwrap().all().len() as u64)
    }
}

const SEGMENT: u64 = 64 << 10;

fn open(disk: &MemoryDisk) -> Result<Wal, WalError> {
    Wal::open(Arc::new(disk.clone()), Path::new("log"), SEGMENT, Box::new(|_| {}))
}

fn entry(index: u64) -> Bytes {
    Bytes::from(format!("entry {index} {}", "x".repeat(700)))
}

fn append(wal: &Wal, range: std::ops::RangeInclusive<u64>) -> mpsc::Receiver<io::Result<()>> {
    let (sender, done) = mpsc::channel();
    let entries = range.map(|i| (i, entry(i))).collect();
    wal.append(entries, Box::new(move |result| sender.send(result).unwrap())).unwrap();
    done
}

fn indexes(wal: &Wal) -> Vec<u64> {
    let Some((first, last)) = wal.bounds() else { return Vec::new() };
    let bodies = wal.read(first, last + 1, usize::MAX).unwrap();
    for (body, index) in bodies.iter().zip(first..) {
        assert_eq!(*body, entry(index));
    }
    (first..=last).collect()
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_whatever_was_torn() {
    for pattern in 0..16u32 {
        let disk = MemoryDisk::default();
        let wal = open(&disk).unwrap();
        append(&wal, 1..=5).recv().unwrap().unwrap();
        drop(wal);
        // The end of the log, as a write that was cut short leaves it.
        let half_written = open(&disk).unwrap();
        append(&half_written, 6..=9).recv().unwrap().unwrap();
        drop(half_written);
        let torn = MemoryDisk::default();
        for (path, file) in disk.files.lock().unwrap().iter() {
            let whole = file.content.lock().unwrap().all();
            let made = torn.create(path).unwrap();
            // Entries 6 to 9 lie behind the first 4 KiB: some of their sectors are missing.
            let boundary = 32 + 5 * (12 + 9 + entry(1).len()).next_multiple_of(8);
            let (kept, lost) = whole.split_at(boundary.min(whole.len()));
            made.write_at(kept, 0).unwrap();
            made.write_at(&vec![0; lost.len()], kept.len() as u64).unwrap();
            made.sync_data().unwrap();
            made.write_at(lost.get(..4 * 1024).unwrap_or(lost), kept.len() as u64).unwrap();
        }
        torn.power_cut(|sector| pattern >> (sector % 4) & 1 == 1);
        let recovered = open(&torn).unwrap();
        let found = indexes(&recovered);
        assert!(found.len() >= 5, "pattern {pattern:04b}: {found:?}");
        let next = found.last().unwrap() + 1;
        append(&recovered, next..=next + 2).recv().unwrap().unwrap();
        drop(recovered);
        let again = indexes(&open(&torn).unwrap());
        assert_eq!(again.last(), Some(&(next + 2)), "what follows a cut end is whole");
    }
}

#[test]
fn a_flipped_bit_in_what_was_synced_is_refused_by_file_and_offset() {
    let disk = MemoryDisk::default();
    let wal = open(&disk).unwrap();
    for i in 1..=20 {
        append(&wal, i..=i).recv().unwrap().unwrap();
    }
    drop(wal);
    let path = PathBuf::from("log/0000000000000001.wal");
    disk.flip(&path, 2000);
    let Err(error) = open(&disk) else { panic!("opened") };
    assert!(matches!(&error, WalError::Corrupt { path: p, .. } if *p == path), "{error}");
    assert!(error.to_string().contains("0000000000000001.wal is corrupt at offset"), "{error}");
    // The flip undone, everything is there.
    disk.flip(&path, 2000);
    assert_eq!(indexes(&open(&disk).unwrap()).len(), 20);
}

#[test]
fn votes_truncation_and_purges_survive_in_order_over_many_segments() {
    let disk = MemoryDisk::default();
    let wal = open(&disk).unwrap();
    let (sender, done) = mpsc::channel();
    let told = || -> raft::wal::Done {
        let sender = sender.clone();
        Box::new(move |result| sender.send(result).unwrap())
    };
    wal.save_vote(Bytes::from_static(b"vote 1"), told()).unwrap();
    append(&wal, 1..=300).recv().unwrap().unwrap();
    wal.truncate_after(Some(290), told()).unwrap();
    append(&wal, 291..=310).recv().unwrap().unwrap();
    wal.save_vote(Bytes::from_static(b"vote 2"), told()).unwrap();
    wal.save_committed(Bytes::from_static(b"committed")).unwrap();
    wal.purge(200, Bytes::from_static(b"purged"), told()).unwrap();
    drop(wal);
    assert!(done.try_iter().all(|result| result.is_ok()));
    let files = disk.files.lock().unwrap().len();
    assert!((2..5).contains(&files), "purged segments are removed, {files} are left");
    let wal = open(&disk).unwrap();
    assert_eq!(indexes(&wal), (201..=310).collect::<Vec<_>>());
    let marks = wal.marks();
    assert_eq!(marks.vote.as_deref(), Some(b"vote 2".as_slice()));
    assert_eq!(marks.committed.as_deref(), Some(b"committed".as_slice()));
    assert_eq!(marks.purged, Some((200, Bytes::from_static(b"purged"))));
}

#[test]
fn a_sync_that_fails_is_told_and_ends_the_log() {
    let disk = MemoryDisk::default();
    let (failed, failure) = mpsc::channel();
    let on_failure = Box::new(move |error: &WalError| failed.send(error.to_string()).unwrap());
    let wal = Wal::open(Arc::new(disk.clone()), Path::new("log"), SEGMENT, on_failure).unwrap();
    append(&wal, 1..=1).recv().unwrap().unwrap();
    disk.sync_fails.store(true, Ordering::SeqCst);
    assert!(append(&wal, 2..=2).recv().unwrap().is_err());
    assert!(failure.recv().unwrap().contains("write segment 1"));
    // Never tried again on the same file, even if the disk would now say yes.
    disk.sync_fails.store(false, Ordering::SeqCst);
    assert!(wal.append(vec![(3, entry(3))], Box::new(|_| {})).is_err());
}
