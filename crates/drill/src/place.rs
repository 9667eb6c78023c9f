//! A part of this machine that is the drill's own: networks and mounts that go with its last process.

use anyhow::{Context as _, ensure};
use bench::leave_host;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};
use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// What can be done to a cluster here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// Networks, mounts and real containers.
    Own,
    /// Only what needs no root: processes, and disks and clocks that fail by file.
    Shared,
}

impl Ground {
    /// Why something is left out, for people; nothing where everything can be done.
    #[must_use]
    pub fn limits(self) -> Option<&'static str> {
        match self {
            Self::Own => None,
            Self::Shared => Some(
                "not root: replicas share this machine's network (no partitions, no power cuts), and nodes are \
                 hollow",
            ),
        }
    }
}

/// Moves this process to a network and mounts of its own, if it may. Before its second thread: those that run
/// already would stay behind.
///
/// # Errors
/// It is root, and yet may not; `ip` (package iproute2) is missing.
pub fn settle() -> anyhow::Result<Ground> {
    if !geteuid().is_root() {
        return Ok(Ground::Shared);
    }
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("keep mounts to ourselves")?;
    leave_host()?;
    Ok(Ground::Own)
}

/// For a file system that has ended to be let go of.
const RELEASED: Duration = Duration::from_secs(20);
/// Between two looks at what gives no notice.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes of a file system of its own for the replicas' disks.
const DISK_BYTES: u64 = 2 << 30;

/// A file system on a loop device, whose power can be cut.
#[derive(Debug)]
pub(crate) struct LoopDisk {
    device: String,
    at: PathBuf,
}

impl LoopDisk {
    /// Makes one below `dir` and mounts it.
    ///
    /// # Errors
    /// `mkfs.ext4` (package e2fsprogs) or `losetup` (package mount) is missing, or there is no loop device.
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        let image = dir.join("disk.image");
        let file = File::create(&image).with_context(|| format!("create {}", image.display()))?;
        file.set_len(DISK_BYTES).context("size the disk's image")?;
        let image = image.to_str().context("a path that is text")?.to_owned();
        run("mkfs.ext4", &["-q", "-F", &image])?;
        let device = run("losetup", &["-f", "--show", &image])?;
        let at = dir.join("disk");
        // From here on, dropping it gives the device back.
        let disk = Self { device, at };
        fs::create_dir_all(&disk.at).with_context(|| format!("create {}", disk.at.display()))?;
        disk.mount()?;
        Ok(disk)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    fn mount(&self) -> anyhow::Result<()> {
        let none: Option<&str> = None;
        let device = Path::new(&self.device);
        mount(Some(device), &self.at, Some("ext4"), MsFlags::empty(), none)
            .with_context(|| format!("mount {}", self.device))
    }

    /// Ends the file system where it stands: what has not been written to the device never will be.
    pub(crate) fn cut(&self) -> anyhow::Result<()> {
        nix::ioctl_read!(shutdown, b'X', 125, u32);
        let dir = File::open(&self.at).context("open the disk")?;
        // 2: the journal is not flushed either.
        let mut how = 2;
        #[expect(unsafe_code, reason = "no safe wrapper: reads the number that it is given")]
        unsafe { shutdown(dir.as_raw_fd(), &raw mut how) }.context("cut the power")?;
        Ok(())
    }

    /// Mounts what is left, when nobody has a file open there any more.
    ///
    /// # Errors
    /// It cannot be mounted, or somebody holds on to the file system that has ended.
    pub(crate) async fn restore(&self) -> anyhow::Result<()> {
        let until = Instant::now() + RELEASED;
        loop {
            umount2(&self.at, MntFlags::empty()).context("unmount the disk")?;
            self.mount()?;
            // A container that begins has a copy of all mounts until it has its own root: as long as one of this disk
            // is left anywhere, what is mounted is the file system that has ended.
            match self.write_something() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > until => {
                    return Err(error).context("write to the disk after its power is back");
                }
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    fn write_something(&self) -> io::Result<()> {
        let file = self.at.join("power-is-back");
        File::create(&file)?.sync_all()?;
        fs::remove_file(file)
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // One that is not mounted any more is only given back.
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        let _ = Command::new("losetup").args(["-d", &self.device]).output();
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("start {program}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), text.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What of a cluster below `dir` is still on this machine: processes, mounts, loop devices.
pub(crate) fn left_behind(dir: &Path) -> Vec<String> {
    let name = dir.to_string_lossy().into_owned();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut left: Vec<String> = mounts
        .lines()
        .filter(|line| line.contains(&name))
        .map(|line| format!("mount {line}"))
        .collect();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let cwd = fs::read_link(path.join("cwd")).unwrap_or_default();
        // One that has ended and is not reaped yet has no command line.
        if line.contains(&name) || cwd.starts_with(dir) {
            left.push(format!("process {} {line}", process.file_name().to_string_lossy()));
        }
    }
    for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let file = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        if file.contains(&name) {
            left.push(format!("loop device {}", device.file_name().to_string_lossy()));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;
    use tokio::time::timeout;

    #[test]
    fn a_process_that_is_left_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(left_behind(dir.path()), Vec::<String>::new());
        let mut child = Command::new("sleep")
            .arg("60")
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let left = left_behind(dir.path());
        child.kill().unwrap();
        child.wait().unwrap();
        // By its id: one that has just been started may not have its command line yet.
        let process = format!("process {} ", child.id());
        assert!(matches!(left.as_slice(), [one] if one.starts_with(&process)), "{left:?}");
        assert_eq!(left_behind(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn power_is_back_only_when_nobody_holds_on_to_what_has_ended() {
        // Of this thread alone.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let disk = LoopDisk::new(dir.path()).unwrap();
        let file = disk.path().join("synced");
        fs::write(&file, "synced").unwrap();
        File::open(&file).unwrap().sync_all().unwrap();
        let mounts = ["--mount", "--propagation", "private", "sleep", "60"];
        let mut holder = Command::new("unshare").args(mounts).spawn().unwrap();
        let its = format!("/proc/{}/comm", holder.id());
        while fs::read_to_string(&its).unwrap().trim() != "sleep" {
            std::thread::yield_now();
        }
        disk.cut().unwrap();
        assert!(disk.write_something().is_err());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut restored = Box::pin(disk.restore());
            let soon = timeout(Duration::from_millis(300), &mut restored).await;
            assert!(soon.is_err(), "{soon:?}");
            holder.kill().unwrap();
            holder.wait().unwrap();
            restored.await.unwrap();
        });
        assert_eq!(fs::read_to_string(&file).unwrap(), "synced");
    }
}
