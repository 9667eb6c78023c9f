//! The kubelets' sessions: Pods down, statuses up, on any replica.

mod index;
mod register;
mod session;

pub(crate) use index::pod_kind;

use crate::{
    guard::{Guard, Unsecured},
    proto::node::{
        FromNode, Refused, ToNode, from_node::Message as From, node_service_server::NodeService,
        to_node::Message as To,
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
}

impl NodeSessions {
    pub(crate) fn new(
        registry: Registry,
        cluster: Arc<dyn Cluster>,
        config: Config,
        guard: Arc<Guard>,
    ) -> Self {
        let index = Arc::new(PodIndex::new(registry.clone()));
        Self { registry, cluster, config: Arc::new(config), index, guard }
    }
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
        let who = request.extensions().get::<Identity>();
        let own = who.and_then(node::name).map(str::to_owned);
        if own.is_none() && request.extensions().get::<Unsecured>().is_none() {
            let user = who.map_or("", |who| who.user.as_str());
            return Err(Status::permission_denied(format!("user {user:?} is no node")));
        }
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
}
