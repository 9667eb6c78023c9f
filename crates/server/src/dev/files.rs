//! The files of a dev cluster: a directory a process, ports that stay, a kubeconfig.

use super::{
    DevOptions,
    certificates::{Issuer, Pki, api_hosts},
};
use crate::config::{
    ApiConfig, DiskConfig, FaultsConfig, HistoryConfig, ImagesConfig, ListenConfig, MemberConfig,
    NodeConfig, NodesConfig, RaftConfig, ReplicaConfig, RuntimeKind, TimerProfile, read,
};
use crate::{clock, kubeconfig::kubeconfig, telemetry::LogConfig, tls};
use anyhow::{Context as _, bail, ensure};
use client::{endpoints::Endpoints, transport::Access};
use pki::{Certificate, Moment};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

/// Where one more replica listens.
#[derive(Debug)]
pub(super) struct Vacancy {
    api: SocketAddr,
    raft: SocketAddr,
    etcd: SocketAddr,
    scheme: &'static str,
}

impl Vacancy {
    /// By which members know it.
    pub(super) fn peer_url(&self) -> String {
        format!("{}://{}", self.scheme, self.raft)
    }
}

/// Where everything of one dev cluster is.
#[derive(Debug, Clone)]
pub struct Layout {
    dir: PathBuf,
    replicas: Vec<ReplicaConfig>,
    nodes: Vec<NodeConfig>,
    access: Access,
    /// When the administrator's certificate is to be renewed; `None` without TLS.
    admin_renewal: Option<Moment>,
}

/// Below the range from which the kernel takes ports for outgoing connections: a port that is free
/// while its process restarts must not be taken by chance.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// What the kubeconfig calls it.
const CLUSTER: &str = "trireme-dev";
/// On one machine, who does not answer by then hangs.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// After a renewal that has failed.
const AGAIN: Duration = Duration::from_secs(60);

/// Each node has a /24 of the Pods' /16, of which the first is left out.
const NODES_MAX: u32 = 255;

impl Layout {
    /// Writes the configuration of a new cluster, or reads the one that is there.
    ///
    /// # Errors
    /// The directory holds a cluster of another size, or cannot be written.
    pub(super) fn prepare(options: &DevOptions) -> anyhow::Result<Self> {
        ensure!(
            (1..=9).contains(&options.replicas),
            "--replicas: 1 to 9, not {}",
            options.replicas
        );
        let nodes = options.nodes.saturating_add(options.hollow);
        ensure!(
            nodes <= NODES_MAX,
            "--nodes and --hollow: {nodes} nodes, but there are ranges of Pod addresses for {NODES_MAX}"
        );
        std::fs::create_dir_all(&options.data_dir)
            .with_context(|| format!("create {}", options.data_dir.display()))?;
        let dir = options
            .data_dir
            .canonicalize()
            .with_context(|| format!("resolve {}", options.data_dir.display()))?;
        let pki = (!options.plaintext).then(|| Pki::new(&dir));
        let replicas = if dir.join("replica-1").join("config.toml").exists() {
            existing_replicas(&dir, options)?
        } else {
            new_replicas(&dir, options, pki.as_ref())?
        };
        let endpoints: Vec<String> = replicas
            .iter()
            .filter_map(|r| r.members.iter().find(|m| m.id == r.id))
            .map(|m| m.client_url.clone())
            .collect();
        let nodes = new_nodes(&dir, options, &endpoints, pki.as_ref());
        let access = Access::default();
        let mut layout = Self { dir, replicas, nodes, access, admin_renewal: None };
        layout.certify(options.certificate_lifetime, pki)?;
        let Self { dir, replicas, nodes, .. } = &layout;
        for replica in replicas {
            write_config(&dir.join(format!("replica-{}", replica.id)), replica)?;
        }
        for node in nodes {
            write_config(&dir.join(&node.name), node)?;
        }
        let lines = |urls: &[String]| urls.join("\n") + "\n";
        std::fs::write(dir.join("endpoints"), lines(&endpoints)).context("write endpoints")?;
        std::fs::write(dir.join("etcd-endpoints"), lines(&layout.etcd_urls()))
            .context("write etcd-endpoints")?;
        Ok(layout)
    }

    /// Where a replica could be that is not there yet: ports for API, raft and etcd's API.
    pub(super) fn vacancy(&self, address: Ipv4Addr) -> anyhow::Result<Vacancy> {
        let ports = free_ports(3)?;
        let [api, raft, etcd] = ports.as_slice() else { bail!("three ports") };
        let at = |port: u16| SocketAddr::from((address, port));
        let tls = self.replicas.iter().any(|replica| replica.api.tls.is_some());
        let scheme = if tls { "https" } else { "http" };
        Ok(Vacancy { api: at(*api), raft: at(*raft), etcd: at(*etcd), scheme })
    }

    /// Writes the configuration of a replica that the cluster has given this id, to join with an empty disk.
    pub(super) fn add_replica(
        &mut self,
        id: u64,
        at: &Vacancy,
        options: &DevOptions,
    ) -> anyhow::Result<()> {
        let first = self.replicas.first().context("at least one replica")?;
        let name = format!("replica-{id}");
        let dir = self.dir.join(&name);
        let pki = first.api.tls.as_ref().map(|_| Pki::new(&self.dir));
        let mut members = first.members.clone();
        members.push(MemberConfig {
            id,
            name: name.clone(),
            peer_url: at.peer_url(),
            client_url: format!("{}://{}", at.scheme, at.api),
        });
        let api = match &pki {
            Some(pki) => pki.api(&dir, at.api),
            None => ApiConfig { listen: at.api, ..first.api.clone() },
        };
        let etcd = match &pki {
            Some(pki) => pki.etcd(&dir, at.etcd),
            None => plaintext(at.etcd),
        };
        let config = ReplicaConfig {
            id,
            data_dir: options.disks.as_deref().unwrap_or(&self.dir).join(&name).join("data"),
            members,
            join: true,
            api,
            etcd: Some(etcd),
            raft: RaftConfig {
                listen: at.raft,
                tls: pki.as_ref().map(|pki| pki.raft(&dir)),
                ..first.raft.clone()
            },
            nodes: NodesConfig {
                tls: pki.as_ref().map(|pki| pki.to_nodes(&dir)),
                ..first.nodes.clone()
            },
            faults: first.faults.as_ref().map(|faults| FaultsConfig {
                control: dir.join("faults"),
                clock: faults.clock.as_ref().map(|_| dir.join("clock")),
                allow_faults: faults.allow_faults,
            }),
            ..first.clone()
        };
        if let Some(pki) = pki {
            self.certify_replica(&config, &Issuer::open(pki, options.certificate_lifetime)?)?;
        }
        write_config(&dir, &config)?;
        self.replicas.push(config);
        Ok(())
    }

    /// Forgets a replica that is not a member any more; its files stay.
    pub(super) fn remove_replica(&mut self, id: u64) {
        self.replicas.retain(|replica| replica.id != id);
    }

    fn certify_replica(&self, replica: &ReplicaConfig, issuer: &Issuer) -> anyhow::Result<()> {
        let member = replica.members.iter().find(|m| m.id == replica.id);
        let name = member.map(|m| m.name.clone()).unwrap_or_default();
        let address = replica.raft.listen.ip().to_string();
        let mut hosts = api_hosts(&[&name], &replica.nodes.first_service_ip());
        if !hosts.contains(&address) {
            hosts.push(address.clone());
        }
        issuer.replica(&self.replica_dir(replica.id), &name, hosts, vec![name.clone(), address])
    }

    /// Signs what is not there or soon not valid any more, and writes the administrator's kubeconfig.
    fn certify(&mut self, lifetime: Duration, pki: Option<Pki>) -> anyhow::Result<()> {
        let Some(pki) = pki else {
            let urls = self.endpoints().urls;
            let server = urls.first().context("at least one replica")?;
            let text = kubeconfig(CLUSTER, server, None);
            return Ok(pki::write_secret(&self.kubeconfig(), text.as_bytes())?);
        };
        let issuer = Issuer::open(pki.clone(), lifetime)?;
        for replica in &self.replicas {
            self.certify_replica(replica, &issuer)?;
        }
        for node in &self.nodes {
            let dir = self.node_dir(&node.name);
            for name in node.node_names() {
                issuer.node(&dir, &name)?;
            }
            if node.api.tls.is_some() {
                let hosts = vec![node.name.clone(), Ipv4Addr::LOCALHOST.to_string()];
                issuer.serving(&dir, &node.name, hosts)?;
            }
        }
        self.admin_renewal = Some(self.write_kubeconfig(&issuer)?);
        self.access = tls::access(&pki.authority(), &pki.admin())?;
        Ok(())
    }

    /// The administrator's certificate; when it is to be renewed.
    fn write_kubeconfig(&self, issuer: &Issuer) -> anyhow::Result<Moment> {
        let server = self.endpoints().urls.into_iter().next().context("at least one replica")?;
        let admin = issuer.admin()?;
        let text = kubeconfig(CLUSTER, &server, Some((issuer.authority().pem(), &admin)));
        pki::write_secret(&self.kubeconfig(), text.as_bytes())?;
        Ok(Certificate::from_pem(admin.as_bytes(), "the administrator's certificate")?.renewal())
    }

    /// Renews the administrator's certificate, and the kubeconfig with it, when it is time; the processes renew
    /// their own.
    pub(super) fn renew_admin(&mut self, lifetime: Duration) -> anyhow::Result<()> {
        let now = clock::moment();
        if self.admin_renewal.is_none_or(|due| due > now) {
            return Ok(());
        }
        // If it fails.
        self.admin_renewal = Some(now.after(AGAIN));
        let issuer = Issuer::open(Pki::new(&self.dir), lifetime)?;
        self.admin_renewal = Some(self.write_kubeconfig(&issuer)?);
        Ok(())
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// For `kubectl --kubeconfig`.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// API URLs, by replica id, and the administrator's way in.
    #[must_use]
    pub fn endpoints(&self) -> Endpoints {
        let urls = self.replicas.iter().map(|r| self.client_url(r.id)).collect();
        Endpoints { connect_timeout: CONNECT_TIMEOUT, ..Endpoints::new(urls, self.access.clone()) }
    }

    /// URLs of the etcd v3 API, by replica id.
    #[must_use]
    pub fn etcd_urls(&self) -> Vec<String> {
        let served = self.replicas.iter().filter_map(|r| r.etcd.as_ref());
        let urls = served.map(|etcd| {
            let scheme = if etcd.tls.is_some() { "https" } else { "http" };
            format!("{scheme}://{}", etcd.listen)
        });
        urls.collect()
    }

    /// A replica's directory.
    #[must_use]
    pub fn replica_dir(&self, id: u64) -> PathBuf {
        self.dir.join(format!("replica-{id}"))
    }

    /// A node's directory.
    #[must_use]
    pub fn node_dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn replica_ids(&self) -> Vec<u64> {
        self.replicas.iter().map(|r| r.id).collect()
    }

    /// Of the nodes that are processes of their own.
    #[must_use]
    pub fn node_names(&self) -> Vec<String> {
        self.nodes.iter().map(|n| n.name.clone()).collect()
    }

    /// The names that the API shows: those of hollow nodes are made by their process.
    pub(super) fn ready_node_names(&self) -> BTreeSet<String> {
        self.nodes.iter().flat_map(NodeConfig::node_names).collect()
    }

    /// URL of a replica's API; empty if there is no such replica.
    #[must_use]
    pub fn client_url(&self, id: u64) -> String {
        self.replicas
            .iter()
            .flat_map(|r| &r.members)
            .find(|m| m.id == id)
            .map(|m| m.client_url.clone())
            .unwrap_or_default()
    }
}

fn existing_replicas(dir: &Path, options: &DevOptions) -> anyhow::Result<Vec<ReplicaConfig>> {
    let wanted = options.replicas;
    let first: ReplicaConfig = read(&dir.join("replica-1").join("config.toml"))?;
    // Where a member is reached is in the log, with the scheme.
    let (has, way_out) = match (first.api.tls.is_some(), options.plaintext) {
        (true, false) | (false, true) => ("", ""),
        (false, false) => ("without TLS", "start it with --plaintext"),
        (true, true) => ("with TLS", "start it without --plaintext"),
    };
    ensure!(
        has.is_empty(),
        "{} holds a cluster {has}; {way_out}, or choose another --data-dir or remove it",
        dir.display()
    );
    ensure!(
        first.members.len() == wanted as usize,
        "{} holds a cluster of {} replicas, not {wanted}; choose another --data-dir or remove it",
        dir.display(),
        first.members.len()
    );
    first
        .members
        .iter()
        .map(|m| read(&dir.join(format!("replica-{}", m.id)).join("config.toml")))
        .collect()
}

fn new_replicas(
    dir: &Path,
    options: &DevOptions,
    pki: Option<&Pki>,
) -> anyhow::Result<Vec<ReplicaConfig>> {
    let scheme = if pki.is_some() { "https" } else { "http" };
    let count = options.replicas as usize;
    ensure!(
        options.places.is_empty() || options.places.len() == count,
        "{} places for {count} replicas",
        options.places.len()
    );
    let ports = free_ports(3 * count)?;
    let (api_ports, ports) = ports.split_at(count);
    let (raft_ports, etcd_ports) = ports.split_at(count);
    let address = |id: u64| {
        let index = usize::try_from(id.saturating_sub(1)).ok();
        let place = index.and_then(|index| options.places.get(index));
        place.map_or(Ipv4Addr::LOCALHOST, |place| place.address)
    };
    let at = |id: u64, port: u16| SocketAddr::from((address(id), port));
    let disks = options.disks.as_deref().unwrap_or(dir);
    let pod_cidr = free_pod_cidr()?;
    let members: Vec<MemberConfig> = (1u64..)
        .zip(api_ports.iter().zip(raft_ports))
        .map(|(id, (api, raft))| MemberConfig {
            id,
            name: format!("replica-{id}"),
            peer_url: format!("{scheme}://{}", at(id, *raft)),
            client_url: format!("{scheme}://{}", at(id, *api)),
        })
        .collect();
    Ok(members
        .iter()
        .zip(api_ports.iter().zip(raft_ports).zip(etcd_ports))
        .map(|(member, ((api, raft), etcd))| ReplicaConfig {
            id: member.id,
            data_dir: disks.join(&member.name).join("data"),
            members: members.clone(),
            join: false,
            cluster_token: String::new(),
            first_objects_file: None,
            api: pki.map_or_else(
                || ApiConfig {
                    listen: at(member.id, *api),
                    allow_plaintext: false,
                    service_account_key_file: None,
                    tls: None,
                    audit: None,
                    limits: None,
                },
                |pki| pki.api(&dir.join(&member.name), at(member.id, *api)),
            ),
            etcd: Some(pki.map_or_else(
                || plaintext(at(member.id, *etcd)),
                |pki| pki.etcd(&dir.join(&member.name), at(member.id, *etcd)),
            )),
            etcd_urls: Vec::new(),
            raft: RaftConfig {
                listen: at(member.id, *raft),
                tls: pki.map(|pki| pki.raft(&dir.join(&member.name))),
                allow_plaintext: false,
                profile: TimerProfile::Lan,
                snapshot_entries: 50_000,
                segment_bytes: options.segment_bytes,
            },
            nodes: NodesConfig {
                silence: options.node_silence,
                pod_cidr: pod_cidr.clone(),
                tls: pki.map(|pki| pki.to_nodes(&dir.join(&member.name))),
                ..NodesConfig::default()
            },
            authority: pki.map(Pki::authority_config),
            history: HistoryConfig::default(),
            disk: DiskConfig::default(),
            // Nothing fails before the file is there.
            faults: options.faults.then(|| FaultsConfig {
                control: dir.join(&member.name).join("faults"),
                clock: Some(dir.join(&member.name).join("clock")),
                allow_faults: true,
            }),
            exit_with_parent: true,
            log: log_config(options),
        })
        .collect())
}

fn new_nodes(
    dir: &Path,
    options: &DevOptions,
    endpoints: &[String],
    pki: Option<&Pki>,
) -> Vec<NodeConfig> {
    let node = |name: String, runtime, count, first: usize| NodeConfig {
        data_dir: dir.join(&name).join("data"),
        cert_file: pki.map(|_| Pki::node(&dir.join(&name), "{node}")),
        key_file: None,
        renew_certificates: true,
        // Hollow nodes serve nobody.
        api: match pki {
            Some(pki) if count == 1 && runtime == RuntimeKind::Native => {
                pki.kubelet(&dir.join(&name), loopback(0))
            }
            Some(_) | None => plaintext(loopback(0)),
        },
        name,
        // Each begins with another replica, so that every replica has nodes to serve.
        endpoints: endpoints.iter().cycle().skip(first).take(endpoints.len()).cloned().collect(),
        ca_file: pki.map(Pki::authority),
        runtime,
        images: ImagesConfig::default(),
        labels: BTreeMap::new(),
        max_pods: 110,
        heartbeat: (options.node_silence / 5).min(Duration::from_secs(10)),
        count,
        remove_pods_on_exit: true,
        exit_with_parent: true,
        log: log_config(options),
    };
    let mut nodes: Vec<NodeConfig> = (1..=options.nodes)
        .map(|n| node(format!("node-{n}"), options.runtime, 1, n as usize % endpoints.len().max(1)))
        .collect();
    if options.hollow > 0 {
        let name = if options.hollow == 1 { "hollow-1" } else { "hollow" };
        nodes.push(node(name.to_owned(), RuntimeKind::Fake, options.hollow, 0));
    }
    nodes
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn plaintext(listen: SocketAddr) -> ListenConfig {
    ListenConfig { listen, tls: None, allow_plaintext: false }
}

fn log_config(options: &DevOptions) -> LogConfig {
    LogConfig { filter: options.log_filter.clone(), ..LogConfig::default() }
}

fn write_config(dir: &Path, config: &impl serde::Serialize) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let path = dir.join("config.toml");
    let text = toml::to_string(config).context("write configuration")?;
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

/// Ports that nobody listens on; a random start keeps two clusters apart.
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let span = PORTS.end - PORTS.start;
    let seed = uuid::Uuid::new_v4().as_u128() % u128::from(span);
    let start = u16::try_from(seed).unwrap_or_default();
    let ports: Vec<u16> = (0..span)
        .map(|i| PORTS.start + (start + i) % span)
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .take(count)
        .collect();
    ensure!(ports.len() == count, "no {count} free ports in {PORTS:?} on 127.0.0.1");
    Ok(ports)
}

/// Second octets that a range of Pods is taken from: clear of the Services' 96 and of the 244 that a
/// configuration without a range means.
const POD_OCTETS: std::ops::Range<u8> = 128..244;

/// A /16 of which no Pod on this machine has an address: routes and veths of two clusters beside each
/// other must not meet.
fn free_pod_cidr() -> anyhow::Result<String> {
    let taken: BTreeSet<String> = std::fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|link| link.file_name().to_str()?.get(..7).map(str::to_owned))
        .collect();
    let span = POD_OCTETS.end - POD_OCTETS.start;
    let seed = uuid::Uuid::new_v4().as_u128() % u128::from(span);
    let start = u8::try_from(seed).unwrap_or_default();
    (0..span)
        .map(|i| {
            POD_OCTETS.start
                + u8::try_from((u16::from(start) + u16::from(i)) % u16::from(span))
                    .unwrap_or_default()
        })
        .find(|octet| !taken.contains(&format!("tri0a{octet:02x}")))
        .map(|octet| format!("10.{octet}.0.0/16"))
        .with_context(|| format!("every range of Pods in 10.{}.0.0/9 is in use", POD_OCTETS.start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(dir: &Path, replicas: u32) -> DevOptions {
        DevOptions { replicas, ..DevOptions::new(dir.to_owned()) }
    }

    #[test]
    fn a_cluster_started_again_keeps_its_ports() {
        let dir = tempfile::tempdir().unwrap();
        let first = Layout::prepare(&options(dir.path(), 3)).unwrap();
        let second = Layout::prepare(&options(dir.path(), 3)).unwrap();
        assert_eq!(first.endpoints().urls, second.endpoints().urls);
        assert_eq!(first.endpoints().urls.len(), 3);
        assert!(first.endpoints().urls.iter().all(|url| url.starts_with("https://")));
    }

    #[test]
    fn a_cluster_started_again_keeps_its_authority_and_renews_what_is_due() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        Layout::prepare(&options(dir.path(), 1)).unwrap();
        let files = [
            "pki/ca.crt",
            "pki/ca.key",
            "pki/sa.key",
            "pki/admin.pem",
            "replica-1/pki/server.pem",
            "replica-1/pki/peer.pem",
            "node-1/pki/node-1.pem",
            "node-2/pki/serving.pem",
            "kubeconfig",
        ];
        let first = files.map(read);
        for name in files.iter().skip(1) {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{name}");
        }
        Layout::prepare(&options(dir.path(), 1)).unwrap();
        assert!(files.map(read) == first);
        // As if two thirds of a year had passed.
        let pki = Pki::new(dir.path());
        let authority = pki::Authority::load(&pki.authority(), &pki.authority_key()).unwrap();
        let old = pki::Profile::client("kubernetes-admin", &["system:masters"]);
        let then = crate::clock::moment().before(Duration::from_secs(240));
        let due = authority.issue(&old, then, Duration::from_secs(300)).unwrap();
        pki::write_secret(&pki.admin(), due.as_bytes()).unwrap();
        Layout::prepare(&options(dir.path(), 1)).unwrap();
        assert_ne!(read("pki/admin.pem"), due.as_bytes());
        assert_ne!(read("kubeconfig"), first[8]);
        assert!(read("pki/ca.crt") == first[0]);
    }

    #[test]
    fn a_cluster_stays_with_tls_or_without() {
        let dir = tempfile::tempdir().unwrap();
        let plain = DevOptions { plaintext: true, ..options(dir.path(), 1) };
        let layout = Layout::prepare(&plain).unwrap();
        assert!(layout.endpoints().urls[0].starts_with("http://127.0.0.1:"));
        assert!(!dir.path().join("pki").exists());
        let error = Layout::prepare(&options(dir.path(), 1)).unwrap_err().to_string();
        assert!(error.contains("without TLS; start it with --plaintext"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        Layout::prepare(&options(dir.path(), 1)).unwrap();
        let plain = DevOptions { plaintext: true, ..options(dir.path(), 1) };
        let error = Layout::prepare(&plain).unwrap_err().to_string();
        assert!(error.contains("with TLS; start it without --plaintext"), "{error}");
    }

    #[test]
    fn no_more_nodes_than_there_are_ranges_for_their_pods() {
        let dir = tempfile::tempdir().unwrap();
        let with = |hollow| DevOptions { hollow, ..options(dir.path(), 1) };
        let error = Layout::prepare(&with(254)).unwrap_err().to_string();
        assert!(error.contains("256 nodes"), "{error}");
        let layout = Layout::prepare(&with(253)).unwrap();
        assert!(layout.ready_node_names().contains("hollow-253"));
        assert_eq!(layout.ready_node_names().len(), 255);
    }

    #[test]
    fn two_clusters_get_ranges_of_their_own_for_pods() {
        let range = || free_pod_cidr().unwrap();
        let drawn: BTreeSet<String> = (0..40).map(|_| range()).collect();
        assert!(drawn.len() > 1, "{drawn:?}");
        assert!(drawn.iter().all(|cidr| cidr.starts_with("10.") && cidr.ends_with(".0.0/16")));
    }

    #[test]
    fn a_directory_with_another_cluster_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Layout::prepare(&options(dir.path(), 3)).unwrap();
        let error = Layout::prepare(&options(dir.path(), 5)).unwrap_err().to_string();
        assert!(error.contains("holds a cluster of 3 replicas, not 5"), "{error}");
    }
}
