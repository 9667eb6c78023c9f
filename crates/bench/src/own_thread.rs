//! A thread for work whose connections, and processes that end with it, must stay on it.

use anyhow::{Context as _, anyhow, bail};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

/// Runs `work` there.
///
/// Dropping the future drops it; the runtime waits for that when it is dropped.
///
/// # Errors
/// Those of `work`; it panicked.
pub(crate) async fn on_own_thread<T, F>(
    work: impl FnOnce() -> F + Send + 'static,
) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>>,
{
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let waits = tokio::task::spawn_blocking(move || {
        // Not the pool's own thread, which others use in its network afterwards.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, async {
                tokio::select! {
                    result = Box::pin(work()) => result,
                    () = stop.cancelled() => Err(anyhow!("interrupted")),
                }
            })
        })
        .join()
    });
    match waits.await.context("wait for the bench's thread")? {
        Ok(result) => result,
        Err(_) => bail!("the bench panicked"),
    }
}
