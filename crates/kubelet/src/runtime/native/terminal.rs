//! Terminals of containers: each container has a file system of its own for them.

use super::{sys, within};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    mount::{MsFlags, mount},
    sys::statfs::{DEVPTS_SUPER_MAGIC, fstatfs},
};
use std::{
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::symlink,
    },
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

/// A new terminal: the end that is held, and the program's.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) master: OwnedFd,
    pub(super) end: OwnedFd,
}

/// Mounts the file system of a container's terminals below its `/dev`.
///
/// # Errors
/// As the kernel says.
pub(super) fn mount_below(dev: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    // 5 is the group `tty` nearly everywhere, and what other runtimes choose.
    let options = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount(Some("devpts"), &dev.join("pts"), Some("devpts"), flags, Some(options))?;
    symlink("pts/ptmx", dev.join("ptmx"))
}

/// Opens a new one of the container whose root is this.
///
/// # Errors
/// There is no such file system, or it gives none.
pub(super) fn open(root: &OwnedFd) -> io::Result<Terminal> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = within::open(root, Path::new("dev/pts/ptmx"), flags)?;
    // Whoever is root inside may have put something else there.
    if fstatfs(&master)?.filesystem_type() != DEVPTS_SUPER_MAGIC {
        return Err(io::Error::other("/dev/pts is not a file system of terminals"));
    }
    let end = sys::terminal_end(master.as_fd())?;
    Ok(Terminal { master, end })
}

/// Never waits from now on.
///
/// # Errors
/// As the kernel says.
pub(super) fn set_nonblocking(file: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// The end of a terminal that is held, for reading and writing. Dropping the last copy hangs it up.
#[derive(Debug, Clone)]
pub(super) struct Master(Arc<AsyncFd<OwnedFd>>);

impl Master {
    /// # Errors
    /// As the kernel says.
    pub(super) fn new(master: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&master)?;
        Ok(Self(Arc::new(sys::watch(master)?)))
    }

    pub(super) fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        sys::resize(self.0.get_ref().as_fd(), columns, rows)
    }
}

impl AsyncRead for Master {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let read = guard.try_io(|fd| Ok(nix::unistd::read(fd, buf.initialize_unfilled())?));
            match read {
                Ok(Ok(bytes)) => {
                    buf.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                // Nobody has the other end open: it is the end of the output.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Master {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(nix::unistd::write(fd, bytes)?)) {
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal has one stream for both directions: it stays open.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
