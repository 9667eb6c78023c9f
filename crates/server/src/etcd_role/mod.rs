//! The drop-in role: a member of a group that takes etcd's flags and serves the etcd v3 API alone.
//!
//! No Kubernetes API, no controllers, and nothing is compacted unless the flags say so.

mod client_tls;
mod compaction;
mod flags;
mod quota;
mod settings;
mod table;
mod units;

pub use flags::{FlagError, Values, help, parse, parse_file};
pub use settings::EtcdConfig;

use crate::{client_name::name_client, clock, config::TlsConfig, memory, tls};
use anyhow::Context as _;
use client_tls::Own;
use etcd::auth::{AuthConfig, Clock};
use raft::{Member, RaftConfig, RaftStore};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{Cluster, Store};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::util::MapRequest;
use units::ListenUrl;
use world::net::TcpListener;

/// For the lead to be handed over.
const HANDOVER: Duration = Duration::from_secs(2);
/// Between two looks whether the group answers.
const LOOK: Duration = Duration::from_secs(5);
/// After a look that was answered at once, and not well.
const AGAIN: Duration = Duration::from_millis(20);
/// Bytes of one log segment.
const SEGMENT_BYTES: u64 = 64 << 20;

/// The version of etcd whose place it takes.
pub const ETCD_VERSION: &str = etcd::ETCD_VERSION;

/// What flags, or the file that they name, ask for.
///
/// # Errors
/// Names the flag or the file, and what is wrong with it.
pub fn settings(values: &Values) -> anyhow::Result<EtcdConfig> {
    let file = values.get("config-file");
    if file.is_empty() {
        return EtcdConfig::new(values);
    }
    let text =
        std::fs::read_to_string(file).with_context(|| format!("--config-file: read {file}"))?;
    let values = parse_file(&text).with_context(|| format!("--config-file: {file}"))?;
    EtcdConfig::new(&values)
}

/// Runs until `shutdown`; then hands over the lead and ends.
///
/// # Errors
/// It cannot start, its log has failed, or a part of it has ended.
pub async fn run(config: EtcdConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    config.check_data_dir()?;
    memory::take_huge_pages_if_large(&config.data_dir);
    let peers = bind(&config.peers).await.context("--listen-peer-urls")?;
    let mut listeners = Vec::new();
    for client in &config.clients {
        let listener = bind(client).await.context("--listen-client-urls")?;
        listeners.push(listener);
    }
    let tls = match &config.client_tls {
        None => None,
        Some(tls) => {
            Some(client_tls::config(tls, Own { hosts: config.hosts(), dir: &config.data_dir })?)
        }
    };
    let raft_config = raft_config(&config).await?;
    let id = raft_config.id;
    let store = RaftStore::start(raft_config, clock::store_clock(), peers).await?;
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let scope = CancellationToken::new();
    let clock = Clock::new(clock::store_clock());
    let door = etcd::Door::new(
        Arc::clone(&store) as Arc<dyn Store>,
        Arc::clone(&store) as Arc<dyn Cluster>,
        etcd::Config {
            auth: AuthConfig {
                token: config.tokens.clone(),
                bcrypt_cost: config.bcrypt_cost,
                ..AuthConfig::new(clock.clone())
            },
            max_request_bytes: config.max_request_bytes,
            max_txn_ops: config.max_txn_ops,
            watch_progress_interval: config.watch_progress_interval,
            lease_ttl_min_seconds: etcd::ttl_min_seconds(config.election),
            ..etcd::Config::new(clock)
        },
    );
    let door = MapRequest::new(door, name_client);
    let mut served = JoinSet::new();
    for (client, listener) in config.clients.iter().zip(listeners) {
        let tls = tls.clone().filter(|_| client.tls);
        served.spawn(listen::listen(listener, tls, door.clone(), scope.clone()));
    }
    {
        let (leadership, store) = (Cluster::leadership(&*store), Arc::clone(&store));
        let (scope, bytes) = (scope.clone(), config.quota_bytes);
        tasks.spawn(async move {
            scope.run_until_cancelled(quota::run(store, leadership, bytes)).await;
            Ok(())
        });
    }
    if let Some(keep) = config.compaction {
        let leadership = Cluster::leadership(&*store);
        let compactor = Arc::clone(&store) as Arc<dyn Store>;
        let scope = scope.clone();
        tasks.spawn(async move {
            scope.run_until_cancelled(compaction::run(compactor, leadership, keep)).await;
            Ok(())
        });
    }
    let mut failed = store.failed();
    tasks.spawn(async move {
        let failure = failed.wait_for(Option::is_some).await;
        let failure = failure.ok().and_then(|f| f.clone()).unwrap_or_default();
        anyhow::bail!(failure)
    });
    let ended = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ended = serve(&config, id, &*store, &mut tasks) => ended,
        Some(ended) = served.join_next() => {
            ended.map_err(Into::into).and_then(|()| Err(anyhow::anyhow!("a part has ended")))
        }
    };
    store.retire(HANDOVER).await;
    scope.cancel();
    // Each ends by itself, in a moment.
    while served.join_next().await.is_some() {}
    store.kill().await;
    tasks.shutdown().await;
    ended
}

/// Says when clients are answered, and returns when a part has ended.
async fn serve(
    config: &EtcdConfig,
    id: u64,
    store: &dyn Store,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let answered = async {
        while store.barrier(LOOK).await.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = answered => {
            tracing::info!(
                name = config.name,
                id = %format_args!("{id:x}"),
                urls = config.advertise_clients.join(","),
                "ready to serve client requests"
            );
        }
        ended = tasks.join_next() => return over(ended),
    }
    over(tasks.join_next().await)
}

fn over(ended: Option<Result<anyhow::Result<()>, tokio::task::JoinError>>) -> anyhow::Result<()> {
    match ended {
        Some(Ok(result)) => result.and_then(|()| Err(anyhow::anyhow!("a part has ended"))),
        Some(Err(error)) => Err(error.into()),
        None => Ok(()),
    }
}

async fn bind(url: &ListenUrl) -> anyhow::Result<TcpListener> {
    TcpListener::bind(url.address).await.with_context(|| format!("listen at {}", url.url))
}

/// Who this member is: as its disk says, or as the others say if it was added to them, or as the flags
/// do.
async fn raft_config(config: &EtcdConfig) -> anyhow::Result<RaftConfig> {
    let tls = config.peer_tls.as_ref().map(|files| {
        tls::peers(&TlsConfig {
            cert_file: files.certificate.clone(),
            key_file: files.key.clone(),
            client_ca_file: Some(files.authorities.clone()),
            client_organizations: Vec::new(),
        })
    });
    let tls = tls.transpose()?;
    let owner = raft::owner(&config.data_dir)
        .with_context(|| format!("read whose {} is", config.data_dir.display()))?;
    let own = Member {
        name: config.name.clone(),
        peer_urls: sorted(&config.advertise_peers),
        client_urls: config.advertise_clients.clone(),
        ..Member::default()
    };
    let (id, join, mut members) = match owner {
        // As in etcd, the flags of the first start do not matter any more.
        Some(owner) if owner.settled => (owner.member, true, BTreeMap::new()),
        Some(_) | None if config.join => {
            let members = others(config, tls.as_ref()).await?;
            let own = members.iter().find(|(_, m)| sorted(&m.peer_urls) == own.peer_urls);
            let (id, _) = own.with_context(|| {
                format!(
                    "--initial-cluster-state: no member was added with the peer URLs {}; say \
                     `etcdctl member add {} --peer-urls={}` first",
                    config.advertise_peers.join(","),
                    config.name,
                    config.advertise_peers.join(","),
                )
            })?;
            (*id, true, members)
        }
        Some(_) | None => {
            let member = |(name, urls): &(String, Vec<String>)| {
                let member =
                    Member { name: name.clone(), peer_urls: urls.clone(), ..Member::default() };
                (config.id_of(name), member)
            };
            (config.id(), false, config.members.iter().map(member).collect())
        }
    };
    members.insert(id, own);
    Ok(RaftConfig {
        id,
        join,
        token: config.token.clone(),
        data_dir: config.data_dir.clone(),
        members,
        timers: config.timers,
        snapshot_entries: config.snapshot_entries,
        segment_bytes: SEGMENT_BYTES,
        disk: raft::DiskConfig::default(),
        tls,
    })
}

/// The members of a group that exists, as one of them knows them.
async fn others(
    config: &EtcdConfig,
    tls: Option<&raft::PeerTls>,
) -> anyhow::Result<BTreeMap<u64, Member>> {
    let urls = config.members.iter().filter(|(name, _)| *name != config.name);
    let urls: Vec<String> = urls.flat_map(|(_, urls)| urls.clone()).collect();
    raft::look_up(&urls, tls, LOOK).await.context(
        "--initial-cluster-state=existing: no member in --initial-cluster says who is in the cluster",
    )
}

fn sorted(urls: &[String]) -> Vec<String> {
    let mut urls = urls.to_vec();
    urls.sort();
    urls
}
