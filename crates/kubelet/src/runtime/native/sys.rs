//! The system calls that have no safe wrapper.
#![allow(unsafe_code, reason = "the only place for it: each block says why it is sound")]

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

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
