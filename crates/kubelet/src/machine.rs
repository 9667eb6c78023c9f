//! What a machine says of itself.

use std::{fs, thread};

/// The machine that a node is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// Stays with the machine; empty where it has none.
    pub id: String,
    /// Drawn at each boot.
    pub boot_id: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Cores that this process may use.
    pub cpus: usize,
    /// Memory in KiB.
    pub memory_kib: u64,
}

impl Machine {
    /// The machine that this process runs on; what cannot be read is empty.
    #[must_use]
    pub fn read() -> Self {
        Self {
            id: read("/etc/machine-id"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel: read("/proc/sys/kernel/osrelease"),
            cpus: thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_kib: memory_kib(&read("/proc/meminfo")).unwrap_or_default(),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn memory_kib(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_from_what_is_free() {
        // proc_meminfo(5)
        let text = "MemFree:          1024 kB\nMemTotal:       16384 kB\n";
        assert_eq!(memory_kib(text), Some(16384));
        assert_eq!(memory_kib(""), None);
    }
}
