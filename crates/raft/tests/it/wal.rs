//! The log against a disk that forgets, tears and refuses.

use bytes::Bytes;
use raft::{
    disk::{Disk as _, FaultDisk, Faults, MemoryDisk, Plan},
    wal::{Wal, WalError},
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

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

/// What a log holds after a power cut, and how far it had been acknowledged.
fn write_and_cut(disk: MemoryDisk, seed: u64, first: u64) -> (MemoryDisk, u64) {
    let wal = open(&disk).unwrap();
    let steps = 1 + seed % 40;
    let (mut next, mut acknowledged) = (first, first - 1);
    let mut waiting = Vec::new();
    for step in 0..steps {
        let last = next + (seed >> (step % 8)) % 7;
        waiting.push((last, append(&wal, next..=last)));
        next = last + 1;
        if (seed >> (step % 16)) & 3 == 0 {
            for (last, done) in waiting.drain(..) {
                done.recv().unwrap().unwrap();
                acknowledged = last;
            }
        }
    }
    let cut = disk.power_cut(seed);
    for (last, done) in waiting {
        if matches!(done.recv(), Ok(Ok(()))) {
            acknowledged = last;
        }
    }
    (cut, acknowledged)
}

#[test]
fn what_was_acknowledged_survives_power_cuts_whatever_was_torn() {
    for run in 0..60 {
        let mut disk = MemoryDisk::default();
        let mut first = 1;
        for cut in 0..10 {
            let seed = run * 7919 + cut * 104_729;
            let (after, acknowledged) = write_and_cut(disk, seed, first);
            let found = indexes(&open(&after).unwrap());
            let last = found.last().copied().unwrap_or_default();
            assert!(last >= acknowledged, "run {run}, cut {cut}: {last} of {acknowledged}");
            assert_eq!(found, (1..=last).collect::<Vec<_>>(), "run {run}, cut {cut}");
            (disk, first) = (after, last + 1);
        }
    }
}

#[test]
fn what_a_killed_process_left_unsynced_is_synced_before_it_counts() {
    for seed in 0..20 {
        let disk = MemoryDisk::default();
        let wal = open(&disk).unwrap();
        append(&wal, 1..=3).recv().unwrap().unwrap();
        drop(wal);
        // Written, and the process was killed before its sync.
        let path = PathBuf::from("log/0000000000000001.wal");
        let copy = disk.copy();
        let longer = open(&copy).unwrap();
        append(&longer, 4..=9).recv().unwrap().unwrap();
        drop(longer);
        let bytes = copy.read(&path).unwrap();
        disk.open(&path).unwrap().write_at(&bytes, 0).unwrap();
        let found = indexes(&open(&disk).unwrap());
        assert_eq!(found.len(), 9);
        let again = indexes(&open(&disk.power_cut(seed)).unwrap());
        assert_eq!(again, found, "seed {seed}: what was found once is there for good");
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
    // Also in the last of all: what was written behind it proves that it had been synced.
    for offset in [2000, 32 + 19 * 736 + 300] {
        let damaged = disk.copy();
        assert!(damaged.flip(&path, offset, 0x10));
        let Err(error) = open(&damaged) else { panic!("opened") };
        assert!(matches!(&error, WalError::Corrupt { path: p, .. } if *p == path), "{error}");
        let want = format!("corrupt at offset {}", 32 + (offset - 32) / 736 * 736);
        assert!(error.to_string().contains(&want), "{error}");
    }
    assert_eq!(indexes(&open(&disk).unwrap()).len(), 20);
}

#[test]
fn a_segment_that_is_missing_is_refused_by_name() {
    let disk = MemoryDisk::default();
    let wal = open(&disk).unwrap();
    append(&wal, 1..=300).recv().unwrap().unwrap();
    drop(wal);
    for missing in [1, 2] {
        let damaged = disk.copy();
        damaged.remove(Path::new(&format!("log/000000000000000{missing}.wal"))).unwrap();
        let Err(error) = open(&damaged) else { panic!("opened without segment {missing}") };
        let want = format!("000000000000000{missing}.wal is corrupt");
        assert!(error.to_string().contains(&want), "{error}");
    }
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
    let files = disk.files().len();
    assert!((2..5).contains(&files), "purged segments are removed, {files} are left");
    let wal = open(&disk).unwrap();
    assert_eq!(indexes(&wal), (201..=310).collect::<Vec<_>>());
    let marks = wal.marks();
    assert_eq!(marks.vote.as_deref(), Some(b"vote 2".as_slice()));
    assert_eq!(marks.committed.as_deref(), Some(b"committed".as_slice()));
    assert_eq!(marks.purged, Some((200, Bytes::from_static(b"purged"))));
}

fn over_faults() -> (Faults, Arc<FaultDisk>) {
    let faults = Faults::default();
    let disk = FaultDisk::new(Arc::new(MemoryDisk::default()), faults.clone());
    (faults, Arc::new(disk))
}

#[test]
fn a_write_or_sync_that_fails_is_told_and_ends_the_log() {
    for plan in [
        Plan { fail_sync: Some(1), ..Plan::default() },
        Plan { fail_write: Some(1), ..Plan::default() },
    ] {
        let (faults, disk) = over_faults();
        let (failed, failure) = mpsc::channel();
        let on_failure = Box::new(move |error: &WalError| failed.send(error.to_string()).unwrap());
        let wal = Wal::open(disk, Path::new("log"), SEGMENT, on_failure).unwrap();
        append(&wal, 1..=100).recv().unwrap().unwrap();
        faults.set(plan);
        // At once, or when the segment is wanted that was being made.
        let told = (101..1000).map(|i| append(&wal, i..=i).recv());
        assert!(told.into_iter().any(|told| !matches!(told, Ok(Ok(())))), "{plan:?}");
        let said = failure.recv().unwrap();
        assert!(said.contains("segment") && said.contains("Input/output error"), "{said}");
        // Never tried again on the same file, even if the disk would now say yes.
        assert!(wal.save_vote(Bytes::new(), Box::new(|_| {})).is_err(), "{plan:?}");
    }
}

#[test]
fn a_log_without_room_waits_and_goes_on_by_itself() {
    let (faults, disk) = over_faults();
    let wal =
        Wal::open(disk, Path::new("log"), SEGMENT, Box::new(|error| panic!("{error}"))).unwrap();
    append(&wal, 1..=10).recv().unwrap().unwrap();
    faults.set(Plan { full_after_bytes: Some(0), ..Plan::default() });
    // More than what is ready holds.
    let done = append(&wal, 11..=400);
    let early = done.recv_timeout(std::time::Duration::from_millis(300));
    assert_eq!(
        early.map_err(|e| e.to_string()).map(|r| r.is_ok()),
        Err("timed out waiting on channel".to_owned())
    );
    assert!(wal.counters().no_room());
    assert!(wal.counters().waiting() > std::time::Duration::from_millis(200));
    assert_eq!(wal.bounds(), Some((1, 400)), "everything can be read meanwhile");
    faults.set(Plan::default());
    done.recv().unwrap().unwrap();
    assert!(!wal.counters().no_room());
    assert_eq!(indexes(&wal).len(), 400);
}
