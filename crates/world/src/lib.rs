//! What a process gets from outside: connections, blocking work, chance and clocks; real, or simulated
//! while the thread is stepping a simulated host.
//!
//! The code of the control plane asks here and does not know which it gets. A simulator puts its own
//! [`host::Host`] in the place of the operating system with [`host::enter`], and takes over what is drawn and what
//! clocks say on its thread with [`host::take_over`]. In production each way costs a look at a thread-local.

pub mod host;
mod libc_calls;
pub mod net;
pub mod tunnel;

use tokio::task::JoinError;

/// Whether this thread is stepping a simulated host.
#[must_use]
pub fn simulated() -> bool {
    host::current().is_some()
}

/// Does work that blocks the thread where that holds up nobody: on a thread of its own, or in simulation here and
/// now, after as long as the simulator says that it waits for its turn.
///
/// # Errors
/// The work panicked, or the runtime is ending.
pub async fn blocking<T, F>(work: F) -> Result<T, JoinError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let Some(host) = host::current() else { return tokio::task::spawn_blocking(work).await };
    let wait = host.work_waits();
    drop(host);
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    let done = work();
    // As after any other wait, others may come first.
    tokio::task::yield_now().await;
    Ok(done)
}

/// Runs a task that a simulated process has where a real one has a thread: until it ends by itself, or its
/// runtime does.
///
/// # Panics
/// Outside of a runtime.
pub fn spawn_in_simulation(task: impl Future<Output = ()> + Send + 'static) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a thread has no owner either; the simulated process is its owner"
    )]
    drop(tokio::spawn(task));
}
