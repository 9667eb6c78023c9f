//! One replica, as its configuration says.

use crate::{
    assembly::{Parts, Port, Ports, Replica},
    clock,
    config::{AuditLevel, ReplicaConfig, TimerProfile},
    log_threads::LogThreads,
    machines::{self, Shared},
    memory,
    renewal::{self, Kept, Signer},
    tls::{self, Files},
};
use anyhow::Context as _;
use api::caller::Identity;
use apiserver::{AccessConfig, Retention, ServiceAccountKey};
use client::Client;
use raft::{
    DiskConfig, Member, RaftConfig, StartError, Timers,
    disk::{Disk, FaultDisk, Faults, RealDisk},
};
use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};
use tokio_util::sync::CancellationToken;
use world::net::TcpListener;

/// Runs until `shutdown`; then hands over the lead and ends.
///
/// # Errors
/// It cannot start, its log has failed, or a part of it has ended: it is better restarted.
pub async fn run(config: ReplicaConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    memory::take_huge_pages_if_large(&config.data_dir);
    let log = LogThreads::start().context("start threads")?;
    let ports = ports(&config, &log).await?;
    let parts = parts(&config)?;
    let wrong_clock = config.faults.as_ref().and_then(|faults| faults.clock.clone());
    if let Some(file) = &wrong_clock {
        // Before anything asks for the time.
        clock::read_error(file);
    }
    let authority = parts.api.pki.authority.clone();
    let started = Replica::start_on(&log.handle(), parts, ports).await;
    let mut replica = started.map_err(|error| way_out(error, &config))?;
    if let Some(file) = wrong_clock {
        replica.spawn(async move {
            clock::follow_error(file).await;
            Ok(())
        });
    }
    if let Some(authority) = authority {
        replica.spawn(renewal::keep(certificates(&config), Signer::Own(authority)));
    }
    if let Some(file) = config.first_objects_file.clone() {
        let who = Identity::new("system:apiserver", &["system:masters"]);
        let client = Client::in_process(replica.api().door(), who, None);
        replica.spawn(async move {
            machines::create_first(file, client).await?;
            std::future::pending().await
        });
    }
    tracing::info!(api = %config.api.listen, raft = %config.raft.listen, "serves");
    replica.run(shutdown).await
}

async fn ports(config: &ReplicaConfig, log: &LogThreads) -> anyhow::Result<Ports> {
    let raft = log.bind(config.raft.listen).await;
    let raft = raft.with_context(|| format!("listen on {}", config.raft.listen))?;
    let bind = async |address| {
        TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))
    };
    let api = bind(config.api.listen).await?;
    let etcd = match &config.etcd {
        Some(etcd) => {
            let listener = bind(etcd.listen).await?;
            Some(Port { listener, tls: etcd.tls.as_ref().map(tls::server).transpose()? })
        }
        None => None,
    };
    let authority = config.authority.as_ref().map(|files| files.cert_file.as_path());
    let tls = config.api.tls.as_ref().map(|tls| tls::api(tls, authority)).transpose()?;
    Ok(Ports { raft, api: Port { listener: api, tls }, etcd })
}

fn parts(config: &ReplicaConfig) -> anyhow::Result<Parts> {
    let pki = pki(config)?;
    let me = config.members.iter().find(|m| m.id == config.id).map(|m| m.name.clone());
    let api = apiserver::Config {
        name: me.unwrap_or_default(),
        endpoints: config.members.iter().map(|m| m.client_url.clone()).collect(),
        service_prefix: prefix("nodes.serviceCidr", &config.nodes.service_cidr)?,
        pod_prefix: prefix("nodes.podCidr", &config.nodes.pod_cidr)?,
        node_silence: config.nodes.silence,
        access: access(config)?,
        pki,
        limits: config.api.limits.clone().unwrap_or_default().limits(),
    };
    let retention =
        Retention { age: config.history.retention, revisions: config.history.revisions };
    Ok(Parts { raft: raft_config(config)?, api, retention, clock: clock::store_clock() })
}

/// As a configuration says of them.
pub(crate) fn members(config: &ReplicaConfig) -> BTreeMap<u64, Member> {
    let members = config.members.iter().map(|m| {
        let own = m.id == config.id;
        let member = Member {
            name: m.name.clone(),
            peer_urls: vec![m.peer_url.clone()],
            api_url: m.client_url.clone(),
            client_urls: if own { etcd_urls(config) } else { Vec::new() },
            ..Member::default()
        };
        (m.id, member)
    });
    members.collect()
}

/// Who may do what, and where it is written down.
fn access(config: &ReplicaConfig) -> anyhow::Result<AccessConfig> {
    let key = config.api.service_account_key_file.as_ref().map(|file| {
        let pem = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        ServiceAccountKey::from_pem(&pem).with_context(|| format!("use {}", file.display()))
    });
    let audit = config.api.audit.as_ref().map(|audit| apiserver::AuditConfig {
        path: audit.path.clone(),
        file_bytes_max: audit.file_bytes_max,
        files_max: audit.files_max,
        level: match audit.level {
            AuditLevel::None => apiserver::AuditLevel::None,
            AuditLevel::Metadata => apiserver::AuditLevel::Metadata,
            AuditLevel::Request => apiserver::AuditLevel::Request,
            AuditLevel::RequestResponse => apiserver::AuditLevel::RequestResponse,
        },
    });
    Ok(AccessConfig {
        enforce_without_tls: false,
        service_account_key: key.transpose().context("api.serviceAccountKeyFile")?,
        audit,
    })
}

/// What the API server shows to nodes, and signs with.
fn pki(config: &ReplicaConfig) -> anyhow::Result<apiserver::Pki> {
    let authority = config.authority.as_ref().map(|files| {
        pki::Authority::load(&files.cert_file, &files.key_file).context("authority").map(Arc::new)
    });
    let mut shown = Vec::new();
    let mut show =
        |name: &str, file: &std::path::Path| shown.push((name.to_owned(), file.to_owned()));
    if let Some(files) = &config.authority {
        show("authority", &files.cert_file);
    }
    for (name, tls) in [
        ("api", config.api.tls.as_ref()),
        ("etcd", config.etcd.as_ref().and_then(|etcd| etcd.tls.as_ref())),
        ("raft", config.raft.tls.as_ref()),
    ] {
        if let Some(tls) = tls {
            show(name, &tls.cert_file);
        }
    }
    if let Some(tls) = &config.nodes.tls {
        show("nodes", &tls.cert_file);
    }
    Ok(apiserver::Pki {
        kubelets: config.nodes.tls.as_ref().map(tls::client).transpose().context("nodes.tls")?,
        authority: authority.transpose()?,
        certificates: shown,
        service_account_key_file: config.api.service_account_key_file.clone(),
        shared_configuration: toml::to_string(&Shared::of(config))
            .context("what replicas share")?,
    })
}

/// What this replica renews, each once: what it shows, and what it keeps for clients.
fn certificates(config: &ReplicaConfig) -> Vec<Kept> {
    let listeners = [
        config.api.tls.as_ref(),
        config.etcd.as_ref().and_then(|etcd| etcd.tls.as_ref()),
        config.raft.tls.as_ref(),
    ];
    let files = |certificate: &std::path::Path, key: &std::path::Path| {
        Kept::Files(Files { certificate: certificate.to_owned(), key: key.to_owned() })
    };
    let listeners = listeners.into_iter().flatten().map(|tls| files(&tls.cert_file, &tls.key_file));
    let to_nodes = config.nodes.tls.iter().map(|tls| files(&tls.cert_file, &tls.key_file));
    let clients = config.authority.iter().flat_map(|authority| &authority.renews);
    let clients = clients.map(|path| Kept::Client(path.clone()));
    let mut each = Vec::new();
    for kept in listeners.chain(to_nodes).chain(clients) {
        if !each.contains(&kept) {
            each.push(kept);
        }
    }
    each
}

fn raft_config(config: &ReplicaConfig) -> anyhow::Result<RaftConfig> {
    let tls = config.raft.tls.as_ref().map(tls::peers).transpose()?;
    Ok(RaftConfig {
        id: config.id,
        join: config.join,
        token: config.cluster_token.clone(),
        data_dir: config.data_dir.clone(),
        members: members(config),
        timers: match config.raft.profile {
            TimerProfile::Lan => Timers::lan(),
            TimerProfile::Wan => Timers::wan(),
        },
        snapshot_entries: config.raft.snapshot_entries,
        segment_bytes: config.raft.segment_bytes,
        disk: disk_config(config),
        tls,
    })
}

/// Says what to do about a disk that is damaged.
fn way_out(error: StartError, config: &ReplicaConfig) -> anyhow::Error {
    if !error.is_damaged() {
        return error.into();
    }
    let others = config.members.iter().filter(|m| m.id != config.id);
    let server = others.map(|m| m.client_url.as_str()).next().unwrap_or("https://HOST:PORT");
    let scheme = if config.raft.tls.is_some() { "https" } else { "http" };
    anyhow::Error::from(error).context(format!(
        "replica {} must not start on a damaged disk; build it again from the others: move {} aside, \
         run `trireme cluster replace-member {} --peer-url {scheme}://HOST:PORT --server {server}` with the \
         address of the new one, and start that as it says",
        config.id,
        config.data_dir.display(),
        config.id,
    ))
}

fn disk_config(config: &ReplicaConfig) -> DiskConfig {
    let disk: Arc<dyn Disk> = match &config.faults {
        None => Arc::new(RealDisk),
        Some(faults) => {
            tracing::warn!(control = %faults.control.display(), "the disk fails on demand");
            let faults = Faults::controlled_by(faults.control.clone());
            Arc::new(FaultDisk::new(Arc::new(RealDisk), faults))
        }
    };
    DiskConfig {
        disk,
        stall: config.disk.stall,
        reserve_bytes: config.disk.reserve_bytes,
        snapshot_log_bytes: config.disk.snapshot_log_bytes,
    }
}

/// What clients of the etcd v3 API are told.
fn etcd_urls(config: &ReplicaConfig) -> Vec<String> {
    let listens = config.etcd.iter().filter(|etcd| !etcd.listen.ip().is_unspecified());
    if config.etcd_urls.is_empty() {
        let scheme = |tls: bool| if tls { "https" } else { "http" };
        listens.map(|etcd| format!("{}://{}", scheme(etcd.tls.is_some()), etcd.listen)).collect()
    } else {
        config.etcd_urls.clone()
    }
}

/// The first two bytes of a /16.
fn prefix(key: &str, cidr: &str) -> anyhow::Result<[u8; 2]> {
    let ip = cidr.strip_suffix(".0.0/16").map(|start| format!("{start}.0.0"));
    let ip: Option<Ipv4Addr> = ip.and_then(|ip| ip.parse().ok());
    let [a, b, _, _] =
        ip.with_context(|| format!("{key}: {cidr:?} must read A.B.0.0/16"))?.octets();
    Ok([a, b])
}
