//! What a simulator provides, and how it takes a thread over.

use crate::{
    libc_calls,
    net::{Connection, Listener},
};
use std::{
    cell::RefCell, fmt, io, marker::PhantomData, net::SocketAddr, pin::Pin, sync::Arc,
    time::Duration,
};

pub use libc_calls::{Clocks, Seized, set_clocks, take_over};

/// A connection that is being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send>>;

/// The machine that a simulated process runs on.
pub trait Host: fmt::Debug + Send + Sync {
    /// Connects to a listener of any machine.
    fn connect(&self, to: SocketAddr) -> Connecting;

    /// Listens on an address of this machine; port 0 is any that is free.
    ///
    /// # Errors
    /// `AddrInUse`, or `AddrNotAvailable` for an address that is not this machine's.
    fn bind(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>>;

    /// How long blocking work waits for a thread that carries it out.
    fn work_waits(&self) -> Duration;
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn Host>>> = const { RefCell::new(None) };
}

/// The machine that this thread is stepping; `None` in a real process.
#[must_use]
pub fn current() -> Option<Arc<dyn Host>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Makes this thread the given machine's until what is returned is dropped.
#[must_use]
pub fn enter(host: Arc<dyn Host>) -> Entered {
    let before = CURRENT.with_borrow_mut(|current| current.replace(host));
    Entered { before, _here: PhantomData }
}

/// The thread is a simulated machine's.
#[derive(Debug)]
pub struct Entered {
    before: Option<Arc<dyn Host>>,
    /// Stays on its thread.
    _here: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|current| *current = self.before.take());
    }
}
