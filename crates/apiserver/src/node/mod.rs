//! The kubelets' sessions: Pods down, statuses up, on any replica.

mod calls;
mod index;
mod register;
mod session;

pub(crate) use calls::Calls;
pub(crate) use index::pod_kind;

use crate::{
    guard::{Guard, Unsecured},
    proto::node::{
        Awaits, Call, Carried, FromNode, Refused, ToNode, from_node::Message as From,
        node_service_server::NodeService, to_node::Message as To,
    },
    registry::Registry,
    serve::Config,
};
use access::node;
use api::caller::Identity;
use futures::Stream;
use index::PodIndex;
use std::{pin::Pin, sync::Arc};
use store::Cluster;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Messages on their way to one node. A node that does not read ends its session and comes back.
const QUEUE: usize = 4096;

/// Accepts sessions.
pub(crate) struct NodeSessions {
    registry: Registry,
    cluster: Arc<dyn Cluster>,
    config: Arc<Config>,
    index: Arc<PodIndex>,
    guard: Arc<Guard>,
    calls: Arc<Calls>,
}

impl NodeSessions {
    pub(crate) fn new(
        registry: Registry,
        cluster: Arc<dyn Cluster>,
        config: Config,
        guard: Arc<Guard>,
        calls: Arc<Calls>,
    ) -> Self {
        let index = Arc::new(PodIndex::new(registry.clone()));
        Self { registry, cluster, config: Arc::new(config), index, guard, calls }
    }
}

/// Which node shows its certificate; `None` where nobody needs to.
fn own<T>(request: &Request<T>) -> Result<Option<String>, Status> {
    let who = request.extensions().get::<Identity>();
    let own = who.and_then(node::name).map(str::to_owned);
    if own.is_none() && request.extensions().get::<Unsecured>().is_none() {
        let user = who.map_or("", |who| who.user.as_str());
        return Err(Status::permission_denied(format!("user {user:?} is no node")));
    }
    Ok(own)
}

pub(crate) type Outgoing = mpsc::Sender<Result<ToNode, Status>>;

fn to_node(message: To) -> Result<ToNode, Status> {
    Ok(ToNode { message: Some(message) })
}

#[tonic::async_trait]
impl NodeService for NodeSessions {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ToNode, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<FromNode>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let own = own(&request)?;
        let mut incoming = request.into_inner();
        let (outgoing, answers) = mpsc::channel(QUEUE);
        let (registry, config) = (self.registry.clone(), Arc::clone(&self.config));
        let (index, guard) = (Arc::clone(&self.index), Arc::clone(&self.guard));
        let cluster = Arc::clone(&self.cluster);
        #[expect(clippy::disallowed_methods, reason = "ends with the stream that it serves")]
        tokio::spawn(async move {
            let hello = match incoming.message().await {
                Ok(Some(FromNode { message: Some(From::Hello(hello)) })) => hello,
                Ok(_) | Err(_) => return,
            };
            let node = hello.node.clone();
            let certified = own.is_some();
            let ended = if own.is_some_and(|own| own != node) {
                let message = format!("the certificate is not node {node:?}'s");
                Err(api::status::Status::new(403, "Forbidden", message))
            } else {
                let shared = session::Shared { registry, cluster, config, index, guard, certified };
                session::run(&shared, hello, incoming, &outgoing).await
            };
            if let Err(status) = ended {
                tracing::info!(node, %status, "node session ends");
                let refused = Refused { code: status.code.into(), message: status.message };
                let _ = outgoing.send(to_node(To::Refused(refused))).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    type AwaitCallsStream = ReceiverStream<Result<Call, Status>>;

    async fn await_calls(
        &self,
        request: Request<Awaits>,
    ) -> Result<Response<Self::AwaitCallsStream>, Status> {
        let own = own(&request)?;
        let Awaits { node, instance } = request.into_inner();
        if own.is_some_and(|own| own != node) {
            let message = format!("the certificate is not node {node:?}'s");
            return Err(Status::permission_denied(message));
        }
        if !register::is_held_by(&self.registry, &node, &instance) {
            // Before its first session, too.
            return Err(Status::failed_precondition(format!("node {node:?} is not held by you")));
        }
        let cluster = Arc::clone(&self.cluster);
        let config = Arc::clone(&self.config);
        let endpoints = move || session::endpoints(&*cluster, &config);
        let calls = Arc::clone(&self.calls).wait(node, endpoints);
        Ok(Response::new(ReceiverStream::new(calls)))
    }

    type TakeCallStream = ReceiverStream<Result<Carried, Status>>;

    async fn take_call(
        &self,
        request: Request<Streaming<Carried>>,
    ) -> Result<Response<Self::TakeCallStream>, Status> {
        let own = own(&request)?;
        let answer = self.calls.take(own.as_deref(), request.into_inner()).await?;
        Ok(Response::new(ReceiverStream::new(answer)))
    }
}
