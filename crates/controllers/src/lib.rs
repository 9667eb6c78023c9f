//! The leader's reconcilers, one file each.

mod node_lifecycle;

use client::Client;
use tokio_util::sync::CancellationToken;

/// Runs them all until `shutdown`, as long as the client's epoch lasts.
pub async fn all(client: Client, shutdown: CancellationToken) {
    node_lifecycle::run(client, shutdown).await;
}
