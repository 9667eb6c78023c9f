//! How a node is reached where nobody can connect to it: it waits at every replica to be called, and connects.

use super::{BACKOFF_MIN, NodeSessionConfig, connect};
use crate::{
    proto::node::{Awaits, Carried, node_service_client::NodeServiceClient},
    transport::Bearer,
};
use futures::StreamExt as _;
use std::{collections::BTreeSet, future::pending, io, time::Duration};
use tokio::{
    io::DuplexStream,
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{service::interceptor::InterceptedService, transport::Channel};
use world::tunnel;

/// Between tries at one replica: others can be asked for the node meanwhile.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

type Client = NodeServiceClient<InterceptedService<Channel, Bearer>>;

/// Waits at all replicas there are, those that come later too, until `taken` has no receiver.
pub(super) async fn keep(config: NodeSessionConfig, taken: mpsc::Sender<DuplexStream>) {
    if !config.callable {
        return pending().await;
    }
    let (learned, mut endpoints) = mpsc::channel::<Vec<String>>(1);
    let mut known = BTreeSet::new();
    let mut tasks = JoinSet::new();
    let mut told = config.endpoints.clone();
    loop {
        for endpoint in told {
            if known.insert(endpoint.clone()) {
                let (config, learned, taken) = (config.clone(), learned.clone(), taken.clone());
                tasks.spawn(keep_at(config, endpoint, learned, taken));
            }
        }
        tokio::select! {
            next = endpoints.recv() => told = next.unwrap_or_default(),
            () = taken.closed() => return,
        }
    }
}

/// Waits at one replica.
async fn keep_at(
    config: NodeSessionConfig,
    endpoint: String,
    learned: mpsc::Sender<Vec<String>>,
    taken: mpsc::Sender<DuplexStream>,
) {
    let mut backoff = BACKOFF_MIN;
    // A connection ends by its own streams, not because the replica ends the waiting.
    let mut connections = JoinSet::new();
    loop {
        let waited = wait_at(&config, &endpoint, &learned, &taken, &mut connections);
        match waited.await {
            Ok(()) => backoff = BACKOFF_MIN,
            Err(error) => {
                tracing::debug!(node = config.node, endpoint, error, "not to be called from there");
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
        sleep(backoff).await;
    }
}

/// One stream of calls.
///
/// # Errors
/// It could not be opened.
async fn wait_at(
    config: &NodeSessionConfig,
    endpoint: &str,
    learned: &mpsc::Sender<Vec<String>>,
    taken: &mpsc::Sender<DuplexStream>,
    connections: &mut JoinSet<()>,
) -> Result<(), String> {
    let mut client = NodeServiceClient::new(connect(config, endpoint).await?);
    let awaits = Awaits { node: config.node.clone(), instance: config.instance.clone() };
    let calls = timeout(config.silence_max * 4, client.await_calls(awaits));
    let calls = calls.await.map_err(|e| e.to_string())?;
    let mut calls = calls.map_err(|status| status.message().to_owned())?.into_inner();
    while let Ok(Some(call)) = calls.message().await {
        if !call.endpoints.is_empty() {
            let _ = learned.send(call.endpoints).await;
        }
        if !call.id.is_empty() {
            while connections.try_join_next().is_some() {}
            let (client, taken) = (client.clone(), taken.clone());
            connections.spawn(async move {
                if let Err(error) = take(client, call.id, taken).await {
                    tracing::debug!(%error, "call");
                }
            });
        }
    }
    Ok(())
}

/// Takes a call, and carries its connection to its end.
async fn take(mut client: Client, id: String, taken: mpsc::Sender<DuplexStream>) -> io::Result<()> {
    let (outgoing, messages) = mpsc::channel(tunnel::MESSAGES);
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    outgoing.send(Carried { id, data: Vec::new() }).await.map_err(|_| gone())?;
    let answered = client.take_call(ReceiverStream::new(messages)).await;
    let incoming = answered.map_err(io::Error::other)?.into_inner();
    let incoming = incoming.map(|carried| carried.map(|c| c.data).map_err(io::Error::other));
    let (near, far) = tunnel::ends();
    taken.send(near).await.map_err(|_| gone())?;
    tunnel::carry(far, incoming, outgoing, |data| Carried { id: String::new(), data }).await
}
