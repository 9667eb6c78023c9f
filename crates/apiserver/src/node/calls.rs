//! Nodes that nobody can connect to: each waits at every replica to be called, and connects.

use crate::proto::node::{Call, Carried};
use futures::StreamExt as _;
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, timeout},
};
use tonic::{Status, Streaming};
use world::tunnel;

/// Calls that a node has not heard of yet.
const QUEUE: usize = 64;
/// For a node that takes a call to say which.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between looks whether there are other replicas.
const LOOK: Duration = Duration::from_secs(5);

type Outgoing = mpsc::Sender<Result<Carried, Status>>;

/// Who can be called, and who has not called back yet.
#[derive(Default)]
pub(crate) struct Calls {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<String, mpsc::Sender<Result<Call, Status>>>,
    /// By the call's id.
    called: BTreeMap<String, Called>,
}

struct Called {
    node: String,
    /// Where the connection is waited for.
    taken: oneshot::Sender<(Streaming<Carried>, Outgoing)>,
}

/// Forgets a call that nobody waits for any more.
struct Forget<'a> {
    calls: &'a Calls,
    id: String,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.calls.lock().called.remove(&self.id);
    }
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a node is told that waits to be called, in place of what it waited with before.
    pub(super) fn wait(
        self: Arc<Self>,
        node: String,
        endpoints: impl Fn() -> Vec<String> + Send + 'static,
    ) -> mpsc::Receiver<Result<Call, Status>> {
        let (calls, stream) = mpsc::channel(QUEUE);
        self.lock().waiting.insert(node.clone(), calls.clone());
        #[expect(clippy::disallowed_methods, reason = "ends with the stream that it serves")]
        tokio::spawn(async move {
            let mut look = interval(LOOK);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut told = Vec::new();
            loop {
                tokio::select! {
                    _ = look.tick() => {
                        let endpoints = endpoints();
                        if endpoints != told {
                            told.clone_from(&endpoints);
                            let _ = calls.send(Ok(Call { id: String::new(), endpoints })).await;
                        }
                    }
                    () = calls.closed() => break,
                }
            }
            let mut state = self.lock();
            if state.waiting.get(&node).is_some_and(|other| other.same_channel(&calls)) {
                state.waiting.remove(&node);
            }
        });
        stream
    }

    /// A connection that a node takes a call by; what is carried to it.
    pub(super) async fn take(
        &self,
        own: Option<&str>,
        mut incoming: Streaming<Carried>,
    ) -> Result<mpsc::Receiver<Result<Carried, Status>>, Status> {
        let nobody = || Status::not_found("nobody waits for this call");
        let first = timeout(PATIENCE, incoming.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("which call?"))??;
        let id = first.map(|first| first.id).unwrap_or_default();
        let waits = {
            let mut state = self.lock();
            let Called { node, .. } = state.called.get(&id).ok_or_else(nobody)?;
            if own.is_some_and(|own| own != node) {
                return Err(Status::permission_denied(format!("node {node:?} was called")));
            }
            state.called.remove(&id).map(|called| called.taken).ok_or_else(nobody)?
        };
        let (outgoing, answer) = mpsc::channel(tunnel::MESSAGES);
        waits.send((incoming, outgoing)).map_err(|_| nobody())?;
        Ok(answer)
    }

    /// A connection to a node's kubelet, which nobody has shaken hands on yet.
    ///
    /// # Errors
    /// It does not wait to be called here. Never ends where it does and does not answer.
    pub(crate) async fn call(&self, node: &str) -> io::Result<DuplexStream> {
        let here = || io::Error::new(io::ErrorKind::NotConnected, "it does not wait to be called");
        // Whoever takes the call must know it from the node's own stream.
        let id = uuid::Uuid::new_v4().to_string();
        let (waits, taken) = oneshot::channel();
        let waiting = {
            let mut state = self.lock();
            let waiting = state.waiting.get(node).cloned().ok_or_else(here)?;
            state.called.insert(id.clone(), Called { node: node.to_owned(), taken: waits });
            waiting
        };
        let _forget = Forget { calls: self, id: id.clone() };
        waiting.send(Ok(Call { id, endpoints: Vec::new() })).await.map_err(|_| here())?;
        let (incoming, outgoing) = taken.await.map_err(|_| here())?;
        let incoming = incoming.map(|carried| carried.map(|c| c.data).map_err(io::Error::other));
        let message = |data| Ok(Carried { id: String::new(), data });
        let (near, far) = tunnel::ends();
        #[expect(clippy::disallowed_methods, reason = "ends with the connection that it carries")]
        tokio::spawn(async move {
            if let Err(error) = tunnel::carry(far, incoming, outgoing, message).await {
                tracing::debug!(%error, "a connection that a node has taken");
            }
        });
        Ok(near)
    }
}
