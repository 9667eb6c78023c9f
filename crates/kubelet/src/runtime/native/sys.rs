//! The system calls that have no safe wrapper.
#![allow(unsafe_code, reason = "the only place for it: each block says why it is sound")]

use std::io;

fn check(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes every capability but `keep` (a bit a capability) from this process and what it starts.
///
/// # Errors
/// As the kernel says.
pub(super) fn limit_capabilities(keep: u64) -> io::Result<()> {
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
    // SAFETY: called only in the container's init process, which has one thread.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}

/// Sets a handler that does nothing but an atomic store.
pub(super) fn set_handler(signal: nix::sys::signal::Signal, action: &nix::sys::signal::SigAction) {
    // SAFETY: the handlers passed here only store to an atomic, which a signal may interrupt.
    let _ = unsafe { nix::sys::signal::sigaction(signal, action) };
}
