//! When to end: a signal, or the end of whoever started this process.

use anyhow::Context as _;
use tokio::{
    io::AsyncReadExt as _,
    signal::unix::{SignalKind, signal},
};

/// Returns at SIGINT or SIGTERM, or when standard input ends if `with_parent`.
///
/// # Errors
/// Signals cannot be listened to.
pub async fn asked_to_end(with_parent: bool) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen to SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen to SIGTERM")?;
    let parent = async {
        if !with_parent {
            std::future::pending::<()>().await;
        }
        let mut nothing = [0; 64];
        while tokio::io::stdin().read(&mut nothing).await.is_ok_and(|n| n > 0) {}
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = parent => {}
    }
    Ok(())
}
