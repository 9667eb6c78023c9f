//! What processes of this machine have used.

use anyhow::Context as _;
use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// Ticks of `/proc/PID/stat` in a second: the same on every Linux that userspace sees.
const TICKS_PER_SECOND: f64 = 100.0;
/// What `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;
const PAGE_BYTES: u64 = 4096;

/// CPU seconds, user and system, of all threads of a process, since it began.
///
/// # Errors
/// It does not run.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The name may hold spaces and parentheses; what follows the last one does not.
    let (_, rest) = text.rsplit_once(')').with_context(|| format!("read {path}"))?;
    let ticks: Vec<u64> =
        rest.split_whitespace().skip(11).take(2).filter_map(|t| t.parse().ok()).collect();
    Ok(ticks.iter().sum::<u64>() as f64 / TICKS_PER_SECOND)
}

/// CPU seconds of several processes.
///
/// # Errors
/// One does not run.
pub(crate) fn cpu_seconds_of(pids: &[u32]) -> anyhow::Result<f64> {
    pids.iter().map(|pid| cpu_seconds(*pid)).sum()
}

/// Bytes of a process that are in memory.
///
/// # Errors
/// It does not run.
pub(crate) fn rss_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/statm");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    Ok(pages.with_context(|| format!("read {path}"))? * PAGE_BYTES)
}

/// Bytes of disk that a directory takes, as `du` counts them.
///
/// # Errors
/// It cannot be read. A file that goes meanwhile is left out.
pub(crate) fn disk_bytes(dir: &Path) -> anyhow::Result<u64> {
    let mut left = vec![dir.to_owned()];
    let mut total = 0;
    while let Some(path) = left.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        total += metadata.blocks() * BLOCK_BYTES;
        if metadata.is_dir() {
            let entries =
                fs::read_dir(&path).with_context(|| format!("read {}", path.display()))?;
            left.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time_memory_and_disk() {
        let pid = std::process::id();
        let before = cpu_seconds(pid).unwrap();
        let mut sum = 0u64;
        while cpu_seconds(pid).unwrap() < before + 0.05 {
            sum = (0..100_000u64).fold(sum, |sum, i| std::hint::black_box(sum ^ i));
        }
        assert!((1 << 20..1 << 40).contains(&rss_bytes(pid).unwrap()));
        let dir = tempfile::tempdir().unwrap();
        let empty = disk_bytes(dir.path()).unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("below/file"), vec![1; 1 << 20]).unwrap();
        assert!(disk_bytes(dir.path()).unwrap() >= empty + (1 << 20));
    }
}
