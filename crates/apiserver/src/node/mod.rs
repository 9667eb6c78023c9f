//! The kubelets' sessions: Pods down, statuses up, on any replica.

mod index;
mod register;
mod session;

use crate::{
    proto::node::{
        FromNode, Refused, ToNode, from_node::Message as From, node_service_server::NodeService,
        to_node::Message as To,
    },
    registry::Registry,
    serve::Config,
};
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
}

impl NodeSessions {
    pub(crate) fn new(registry: Registry, cluster: Arc<dyn Cluster>, config: Config) -> Self {
        let index = Arc::new(PodIndex::new(registry.clone()));
        Self { registry, cluster, config: Arc::new(config), index }
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
        let mut incoming = request.into_inner();
        let (outgoing, answers) = mpsc::channel(QUEUE);
        let (registry, config) = (self.registry.clone(), Arc::clone(&self.config));
        let (index, cluster) = (Arc::clone(&self.index), Arc::clone(&self.cluster));
        #[expect(clippy::disallowed_methods, reason = "ends with the stream that it serves")]
        tokio::spawn(async move {
            let hello = match incoming.message().await {
                Ok(Some(FromNode { message: Some(From::Hello(hello)) })) => hello,
                Ok(_) | Err(_) => return,
            };
            let node = hello.node.clone();
            let parts = session::Parts {
                registry: &registry,
                cluster: &*cluster,
                config: &config,
                index: &index,
            };
            let ended = session::run(parts, hello, incoming, &outgoing).await;
            if let Err(status) = ended {
                tracing::info!(node, %status, "node session ends");
                let refused = Refused { code: status.code.into(), message: status.message };
                let _ = outgoing.send(to_node(To::Refused(refused))).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}
