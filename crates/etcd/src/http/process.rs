//! What the kernel says of this process.

use std::{fs, time::Duration};

/// Of this process, now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    /// Seconds since 1970.
    pub(super) started_at: f64,
    pub(super) open_fds: u64,
    pub(super) max_fds: u64,
}

impl Usage {
    /// `None` where there is no `/proc`.
    pub(super) fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let booted = fs::read_to_string("/proc/stat").ok()?;
        let booted = booted.lines().find_map(|line| line.strip_prefix("btime "))?;
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let limit = limits.lines().find(|line| line.starts_with("Max open files"))?;
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
        let (page, ticks) = (u64::try_from(page).ok()?, u32::try_from(ticks).ok()?);
        let seconds = |ticks_of: u64| (Duration::from_secs(ticks_of) / ticks).as_secs_f64();
        // The name is in parentheses and may hold anything; what follows is numbers.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let field = |place: usize| fields.get(place)?.parse::<u64>().ok();
        Some(Self {
            cpu_seconds: seconds(field(11)? + field(12)?),
            resident_bytes: field(21)? * page,
            virtual_bytes: field(20)?,
            started_at: booted.parse::<f64>().ok()? + seconds(field(19)?),
            open_fds: fs::read_dir("/proc/self/fd").ok()?.count() as u64,
            max_fds: limit.split_whitespace().nth(3)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_something_of_everything() {
        let usage = Usage::read().unwrap();
        assert!(usage.resident_bytes > 1 << 20 && usage.virtual_bytes > usage.resident_bytes);
        assert!(usage.started_at > 1_600_000_000.0);
        assert!(usage.open_fds > 2 && usage.max_fds >= usage.open_fds);
    }
}
