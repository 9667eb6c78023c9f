//! What only the leader runs: scheduler and controllers, for as long as its epoch lasts.

use anyhow::Context as _;
use api::caller::{ControllerOrigin, Identity};
use apiserver::{ApiServer, Retention};
use client::{Body, Client, copies::Copies};
use std::{convert::Infallible, future::pending, time::Duration};
use store::{Epoch, Leadership};
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tower::util::BoxCloneSyncService;

/// Before what could not be made is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// The API server's router in this process.
pub(crate) type Door = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// Starts the leader's components whenever this replica leads and ends them when it does not (FEN-7,
/// FEN-8). Their writes carry the epoch, so it is safe, not only likely, that those of an earlier
/// one have no effect.
///
/// # Errors
/// A component ended by itself: the replica is better restarted than left without it.
pub(crate) async fn run(
    mut leadership: watch::Receiver<Leadership>,
    api: ApiServer,
    retention: Retention,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let door = api.door();
    loop {
        let current = *leadership.borrow_and_update();
        let Leadership::Leading { epoch } = current else {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                changed = leadership.changed() => changed.context("leadership is not told any more")?,
            }
            continue;
        };
        tracing::info!(%epoch, "leading: scheduler and controllers start");
        let scope = shutdown.child_token();
        let settings = controllers::Settings { root_ca: api.root_ca().map(str::to_owned) };
        let mut tasks = components(&door, settings, epoch, &scope);
        let (defaults, over) = (api.clone(), scope.clone());
        tasks.spawn(async move {
            over.run_until_cancelled(keep_defaults(&defaults)).await;
        });
        let (access, over) = (api.clone(), scope.clone());
        tasks.spawn(async move {
            over.run_until_cancelled(access.keep_access(epoch)).await;
        });
        let (history, over) = (api.clone(), scope.clone());
        tasks.spawn(async move {
            over.run_until_cancelled(history.keep_history(epoch, retention)).await;
        });
        let ended = tokio::select! {
            () = shutdown.cancelled() => None,
            changed = leadership.wait_for(|now| *now != current) => {
                changed.context("leadership is not told any more")?;
                None
            }
            ended = tasks.join_next() => ended,
        };
        scope.cancel();
        while tasks.join_next().await.is_some() {}
        tracing::info!(%epoch, "scheduler and controllers have ended");
        if let Some(ended) = ended {
            ended.context("a component of the leader ended by itself")?;
        }
    }
}

/// Sees to it that what is always there is there. Beside the others: in a cluster that is not new nothing is missing,
/// and a question for each would keep Pods waiting after every change of the lead.
async fn keep_defaults(api: &ApiServer) {
    while let Err(error) = api.ensure_defaults().await {
        tracing::warn!(%error, "the first namespaces are not there yet");
        sleep(AGAIN).await;
    }
    pending::<()>().await;
}

fn components(
    door: &Door,
    settings: controllers::Settings,
    epoch: Epoch,
    scope: &CancellationToken,
) -> JoinSet<()> {
    let client = |user: &str| {
        Client::in_process(
            door.clone(),
            Identity::new(user, &["system:masters"]),
            Some(ControllerOrigin { epoch: epoch.0 }),
        )
    };
    let mut tasks = JoinSet::new();
    let manager = client("system:kube-controller-manager");
    let copies = Copies::follow(&manager, &mut tasks, scope);
    let binder = client("system:kube-scheduler");
    tasks.spawn(scheduler::run(binder, copies.clone(), scope.child_token()));
    tasks.spawn(controllers::all(settings, manager, copies, scope.child_token()));
    tasks
}
