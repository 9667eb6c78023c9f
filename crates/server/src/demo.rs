//! The demonstration.

use tokio_util::sync::CancellationToken;

/// Runs it.
///
/// # Errors
/// It cannot start.
pub async fn run(_say: impl FnMut(String), _stop: CancellationToken) -> anyhow::Result<bool> {
    Ok(false)
}
