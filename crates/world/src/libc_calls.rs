//! Chance and clocks: the two calls of the C library through which all of them come, ours and those of every
//! library in the process.
//!
//! Maps' hash keys, `rand`, UUIDs and the times of HTTP/2 streams are drawn and read deep inside of libraries that
//! offer no seam. So the symbols `getrandom` and `clock_gettime` are defined here, in front of the C library's. They
//! look at a thread-local: on a thread that a simulator has taken over they answer from its seed and its clocks, on
//! any other they pass the call on. What goes around the C library is not caught: `ring` (and with it TLS), which
//! makes the system call itself.
#![expect(
    unsafe_code,
    reason = "symbols of the C library have its types: pointers and lengths from callers"
)]

use std::{
    cell::Cell,
    ffi::{c_int, c_uint, c_void},
    marker::PhantomData,
    sync::atomic::{AtomicPtr, Ordering},
    time::Duration,
};

/// What the clocks of a thread say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clocks {
    /// Since some moment: `CLOCK_MONOTONIC` and its relatives.
    pub monotonic: Duration,
    /// Since the Unix epoch: `CLOCK_REALTIME`.
    pub wall: Duration,
}

// Without destructors and without lazy initialisation: they are asked before `main` and while threads end.
thread_local! {
    static CHANCE: Cell<Option<u64>> = const { Cell::new(None) };
    static CLOCKS: Cell<Option<Clocks>> = const { Cell::new(None) };
}

/// A thread whose chance and clocks are a simulator's.
#[derive(Debug)]
pub struct Seized {
    /// Stays on its thread.
    _here: PhantomData<*const ()>,
}

/// Takes over what is drawn and what clocks say on this thread until the returned value is dropped.
///
/// Libraries keep what they have drawn in thread-locals: the same seed gives the same only on threads that
/// have drawn nothing yet.
#[must_use]
pub fn take_over(seed: u64, clocks: Clocks) -> Seized {
    CHANCE.set(Some(seed));
    CLOCKS.set(Some(clocks));
    Seized { _here: PhantomData }
}

/// What the clocks say from now on, on a thread that was taken over.
pub fn set_clocks(clocks: Clocks) {
    if CLOCKS.get().is_some() {
        CLOCKS.set(Some(clocks));
    }
}

impl Drop for Seized {
    fn drop(&mut self) {
        CHANCE.set(None);
        CLOCKS.set(None);
    }
}

/// SplitMix64: one number, and the state behind it.
const fn next(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31), state)
}

/// As getrandom(2).
///
/// # Safety
/// `buffer` must be writable for `len` bytes, as for the function of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, flags: c_uint) -> isize {
    let Some(mut state) = CHANCE.get() else {
        // SAFETY: the caller's arguments, for the same call.
        let got = unsafe { libc::syscall(libc::SYS_getrandom, buffer, len, flags) };
        return isize::try_from(got).unwrap_or(-1);
    };
    if len > 0 {
        // SAFETY: the caller's buffer is writable for `len` bytes. It may be uninitialised: bytes are only written.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut(buffer.cast::<std::mem::MaybeUninit<u8>>(), len)
        };
        for piece in bytes.chunks_mut(8) {
            let (drawn, after) = next(state);
            state = after;
            for (to, from) in piece.iter_mut().zip(drawn.to_le_bytes()) {
                to.write(from);
            }
        }
    }
    CHANCE.set(Some(state));
    isize::try_from(len).unwrap_or(isize::MAX)
}

type ClockGettime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> c_int;

/// The C library's own, once it was looked up.
static CLOCK_GETTIME: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// As `clock_gettime(2)`.
///
/// # Safety
/// `time` must be writable, as for the function of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    if let Some(clocks) = CLOCKS.get() {
        let now = match clock {
            libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_TAI => clocks.wall,
            _ => clocks.monotonic,
        };
        let now = libc::timespec {
            tv_sec: now.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: now.subsec_nanos().into(),
        };
        // SAFETY: the caller's place for a time.
        unsafe { time.write(now) };
        return 0;
    }
    let mut real = CLOCK_GETTIME.load(Ordering::Relaxed);
    if real.is_null() {
        // SAFETY: a constant name; the next object that defines it is the C library.
        real = unsafe { libc::dlsym(libc::RTLD_NEXT, c"clock_gettime".as_ptr()) };
        if real.is_null() {
            // A C library that is linked in statically has no next one: the kernel is asked.
            // SAFETY: the caller's arguments, for the same call.
            let done = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
            return if done == 0 { 0 } else { -1 };
        }
        CLOCK_GETTIME.store(real, Ordering::Relaxed);
    }
    // SAFETY: a function of that name in the C library has that type.
    let real = unsafe { std::mem::transmute::<*mut c_void, ClockGettime>(real) };
    // SAFETY: the caller's arguments, for the same call.
    unsafe { real(clock, time) }
}
