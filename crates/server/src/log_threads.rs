//! Threads for the log and its peers alone. What the API does for a crowd of clients is hundreds of tasks that are
//! ready at once, and each round among members would wait behind them several times: in all of them, for every
//! write. Threads are given their turn by the kernel, and to one that has slept it gives it soon.

use std::io;
use tokio::runtime::{Builder, Handle, Runtime};

/// One to hear and answer peers while the other applies what is committed.
const THREADS: usize = 2;

/// They end when this is dropped.
pub(crate) struct LogThreads(Option<Runtime>);

impl LogThreads {
    /// # Errors
    /// The kernel gives no threads.
    pub(crate) fn start() -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).thread_name("log").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    pub(crate) fn handle(&self) -> Handle {
        self.0.as_ref().expect("it is taken when this is dropped").handle().clone()
    }
}

impl Drop for LogThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // The lead has been handed over; a disk that hangs is not waited for.
            runtime.shutdown_background();
        }
    }
}
