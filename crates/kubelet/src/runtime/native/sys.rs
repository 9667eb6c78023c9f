//! The system calls that have no safe wrapper.
#![allow(unsafe_code, reason = "the only place for it: each block says why it is sound")]

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::{
    ffi::CStr,
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};
use tokio::io::unix::AsyncFd;

fn check(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whatever this process starts has no capability but those of `keep`, a bit a capability.
///
/// # Errors
/// As the kernel says.
pub(super) fn bound_capabilities(keep: u64) -> io::Result<()> {
    for capability in 0..=40u64 {
        if keep >> capability & 1 == 0 {
            // SAFETY: takes only integers.
            let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
            // The kernel may know fewer of them.
            if result < 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

/// Gives up every capability of this process but those of `keep`.
///
/// # Errors
/// As the kernel says: what it does not have cannot be kept.
pub(super) fn set_capabilities(keep: u64) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the mask")]
    let (low, high) = (keep as u32, (keep >> 32) as u32);
    let header: [u32; 2] = [0x2008_0522, 0];
    let sets: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: both arrays have the layout of version 3 of the call and outlive it.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) })
}

/// Forks. The child gets 0.
///
/// # Errors
/// As the kernel says.
pub(super) fn fork_single_threaded() -> io::Result<i32> {
    // SAFETY: called only in the shim and what it forked or started, which have one thread.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}

/// Blocks no signal and lets a broken pipe end the program, as programs expect to begin.
///
/// # Errors
/// As the kernel says.
pub(super) fn default_signals() -> io::Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler of ours is installed.
    unsafe { sigaction(Signal::SIGPIPE, &default) }?;
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Sets a handler that does nothing but an atomic store.
pub(super) fn set_handler(signal: nix::sys::signal::Signal, action: &nix::sys::signal::SigAction) {
    // SAFETY: the handlers passed here only store to an atomic, which a signal may interrupt.
    let _ = unsafe { nix::sys::signal::sigaction(signal, action) };
}

/// Sends bytes, and with the first of them open files.
///
/// # Errors
/// As the kernel says, or not all of it went.
pub(super) fn send_files(
    socket: impl AsFd,
    bytes: &[u8],
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let raw: Vec<RawFd> = files.iter().map(|file| file.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[][..] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL;
    let to = socket.as_fd().as_raw_fd();
    let sent = sendmsg::<()>(to, &[IoSlice::new(bytes)], rights, flags, None)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives bytes and the files that came with them; at most four.
///
/// # Errors
/// As the kernel says.
pub(super) fn receive_files(
    socket: impl AsFd,
    bytes: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let mut slices = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let from = socket.as_fd().as_raw_fd();
    let message = recvmsg::<()>(from, &mut slices, Some(&mut space), flags)?;
    let mut files = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just made them for this process, and nobody else knows them.
            files.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, files))
}

/// The other end of a terminal, from its file system's `ptmx`.
///
/// # Errors
/// As the kernel says: it is none.
pub(super) fn terminal_end(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    // SAFETY: the call reads one integer, which outlives it.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlocked) };
    check(result.into())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: takes only integers.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    check(result.into())?;
    // SAFETY: the kernel has just made it for this process, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// Its number in its file system.
///
/// # Errors
/// As the kernel says: it is none.
pub(super) fn terminal_number(master: BorrowedFd<'_>) -> io::Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: the call writes one integer, which outlives it.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &mut number) };
    check(result.into())?;
    Ok(number)
}

/// Makes a terminal the one that controls this session.
///
/// # Errors
/// As the kernel says: this process does not lead a session without one.
pub(super) fn control_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes only integers.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    check(result.into())
}

/// Tells a terminal its size.
///
/// # Errors
/// As the kernel says: it is none.
pub(super) fn resize(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call reads the size, which outlives it.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    check(result.into())
}

/// The size of a terminal: columns and rows.
///
/// # Errors
/// As the kernel says: it is none.
pub(super) fn size(terminal: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call writes the size, which outlives it.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    check(result.into())?;
    Ok((size.ws_col, size.ws_row))
}

/// To be told when there is something to read, or room to write.
///
/// # Errors
/// As the kernel says.
pub(super) fn watch(file: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: what is watched is owned by the watcher, which gives it out as shared only: it stays the
    // same open file until it is no longer watched.
    unsafe { AsyncFd::register(file) }.map_err(Into::into)
}

/// Sets an extended attribute of an open file or directory.
///
/// # Errors
/// As the kernel says.
pub(super) fn set_xattr(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: name and value outlive the call, and the length is the value's own.
    let result = unsafe {
        libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    check(result.into())
}

/// Reads an extended attribute of a path; its length.
///
/// # Errors
/// As the kernel says.
#[cfg(test)]
pub(super) fn get_xattr(path: &CStr, name: &CStr, value: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most the length of the value, which outlives the call.
    let result = unsafe {
        libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
