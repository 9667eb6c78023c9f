//! The copies that all controllers share.

use api::{
    core::{
        ConfigMap, CustomResourceDefinition, EndpointSlice, Endpoints, Lease, Namespace, Node, Pod,
        ResourceQuota, Service, ServiceAccount,
    },
    k8s_openapi::{Metadata, Resource, apimachinery::pkg::apis::meta::v1::ObjectMeta},
};
use client::{Client, ListOptions, copies::Copies, informer::Informer};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone)]
pub(crate) struct Caches {
    pub(crate) nodes: Informer<Node>,
    /// Of the nodes that are heard.
    pub(crate) leases: Informer<Lease>,
    pub(crate) pods: Informer<Pod>,
    pub(crate) services: Informer<Service>,
    /// Only those that we make.
    pub(crate) slices: Informer<EndpointSlice>,
    pub(crate) endpoints: Informer<Endpoints>,
    pub(crate) namespaces: Informer<Namespace>,
    /// Only those that every namespace has.
    pub(crate) accounts: Informer<ServiceAccount>,
    /// Only those that every namespace has.
    pub(crate) root_cas: Informer<ConfigMap>,
    pub(crate) quotas: Informer<ResourceQuota>,
    pub(crate) definitions: Informer<CustomResourceDefinition>,
}

impl Caches {
    pub(crate) fn follow(
        client: &Client,
        copies: Copies,
        tasks: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) -> Self {
        let ours = format!("{}={}", crate::endpointslice::MANAGED_BY, crate::endpointslice::NAME);
        let slices = ListOptions { label_selector: ours, ..ListOptions::default() };
        let all = ListOptions::default;
        let named = |name: &str| {
            let field_selector = format!("metadata.name={name}");
            ListOptions { field_selector, ..ListOptions::default() }
        };
        let accounts = named(api::service_account::DEFAULT);
        let root_cas = named(api::service_account::ROOT_CA);
        let heard = Some("kube-node-lease".to_owned());
        Self {
            nodes: copies.nodes,
            leases: follow(client, heard, all(), tasks, shutdown),
            pods: copies.pods,
            services: follow(client, None, all(), tasks, shutdown),
            slices: follow(client, None, slices, tasks, shutdown),
            endpoints: follow(client, None, all(), tasks, shutdown),
            namespaces: follow(client, None, all(), tasks, shutdown),
            accounts: follow(client, None, accounts, tasks, shutdown),
            root_cas: follow(client, None, root_cas, tasks, shutdown),
            quotas: follow(client, None, all(), tasks, shutdown),
            definitions: follow(client, None, all(), tasks, shutdown),
        }
    }

    /// Returns once every copy is complete: nobody decides on half of the truth.
    pub(crate) async fn synced(&self) {
        self.nodes.synced().await;
        self.leases.synced().await;
        self.pods.synced().await;
        self.services.synced().await;
        self.slices.synced().await;
        self.endpoints.synced().await;
        self.namespaces.synced().await;
        self.accounts.synced().await;
        self.root_cas.synced().await;
        self.quotas.synced().await;
        self.definitions.synced().await;
    }
}

fn follow<K>(
    client: &Client,
    namespace: Option<String>,
    options: ListOptions,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> Informer<K>
where
    K: Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static,
{
    let (informer, follow) =
        Informer::new(client.clone(), namespace, options, shutdown.child_token());
    tasks.spawn(follow);
    informer
}
