//! The files of a dev cluster: a directory a process, ports that stay, a kubeconfig.

use super::DevOptions;
use crate::config::{
    DiskConfig, FaultsConfig, HistoryConfig, ImagesConfig, ListenConfig, MemberConfig, NodeConfig,
    NodesConfig, RaftConfig, ReplicaConfig, RuntimeKind, TimerProfile, read,
};
use crate::telemetry::LogConfig;
use anyhow::{Context as _, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

/// Where everything of one dev cluster is.
#[derive(Debug, Clone)]
pub struct Layout {
    dir: PathBuf,
    replicas: Vec<ReplicaConfig>,
    nodes: Vec<NodeConfig>,
}

/// Below the range from which the kernel takes ports for outgoing connections: a port that is free
/// while its process restarts must not be taken by chance.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

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
        let replicas = if dir.join("replica-1").join("config.toml").exists() {
            existing_replicas(&dir, options.replicas)?
        } else {
            new_replicas(&dir, options)?
        };
        let endpoints: Vec<String> = replicas
            .iter()
            .filter_map(|r| r.members.iter().find(|m| m.id == r.id))
            .map(|m| m.client_url.clone())
            .collect();
        let nodes = new_nodes(&dir, options, &endpoints);
        for replica in &replicas {
            write_config(&dir.join(format!("replica-{}", replica.id)), replica)?;
        }
        for node in &nodes {
            write_config(&dir.join(&node.name), node)?;
        }
        let first = endpoints.first().context("at least one replica")?;
        std::fs::write(dir.join("kubeconfig"), kubeconfig(first)).context("write kubeconfig")?;
        let lines = |urls: &[String]| urls.join("\n") + "\n";
        std::fs::write(dir.join("endpoints"), lines(&endpoints)).context("write endpoints")?;
        let etcd = replicas.iter().filter_map(|r| r.etcd.as_ref());
        let etcd: Vec<String> = etcd.map(|etcd| format!("http://{}", etcd.listen)).collect();
        std::fs::write(dir.join("etcd-endpoints"), lines(&etcd)).context("write etcd-endpoints")?;
        Ok(Self { dir, replicas, nodes })
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

    /// API URLs, by replica id.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.replicas.iter().map(|r| self.client_url(r.id)).collect()
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

    pub(super) fn client_url(&self, id: u64) -> String {
        self.replicas
            .iter()
            .flat_map(|r| &r.members)
            .find(|m| m.id == id)
            .map(|m| m.client_url.clone())
            .unwrap_or_default()
    }
}

fn existing_replicas(dir: &Path, wanted: u32) -> anyhow::Result<Vec<ReplicaConfig>> {
    let first: ReplicaConfig = read(&dir.join("replica-1").join("config.toml"))?;
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

fn new_replicas(dir: &Path, options: &DevOptions) -> anyhow::Result<Vec<ReplicaConfig>> {
    let count = options.replicas as usize;
    let ports = free_ports(3 * count)?;
    let (api_ports, ports) = ports.split_at(count);
    let (raft_ports, etcd_ports) = ports.split_at(count);
    let pod_cidr = free_pod_cidr()?;
    let members: Vec<MemberConfig> = (1u64..)
        .zip(api_ports.iter().zip(raft_ports))
        .map(|(id, (api, raft))| MemberConfig {
            id,
            name: format!("replica-{id}"),
            peer_url: format!("http://127.0.0.1:{raft}"),
            client_url: format!("http://127.0.0.1:{api}"),
        })
        .collect();
    Ok(members
        .iter()
        .zip(api_ports.iter().zip(raft_ports).zip(etcd_ports))
        .map(|(member, ((api, raft), etcd))| ReplicaConfig {
            id: member.id,
            data_dir: dir.join(&member.name).join("data"),
            members: members.clone(),
            join: false,
            cluster_token: String::new(),
            api: loopback(*api),
            etcd: Some(loopback(*etcd)),
            etcd_urls: Vec::new(),
            raft: RaftConfig {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, *raft)),
                tls: None,
                allow_plaintext: false,
                profile: TimerProfile::Lan,
                snapshot_entries: 50_000,
                segment_bytes: options.segment_bytes,
            },
            nodes: NodesConfig {
                silence: options.node_silence,
                pod_cidr: pod_cidr.clone(),
                ..NodesConfig::default()
            },
            history: HistoryConfig::default(),
            disk: DiskConfig::default(),
            // Nothing fails before the file is there.
            faults: options.faults.then(|| FaultsConfig {
                control: dir.join(&member.name).join("faults"),
                allow_faults: true,
            }),
            exit_with_parent: true,
            log: log_config(options),
        })
        .collect())
}

fn new_nodes(dir: &Path, options: &DevOptions, endpoints: &[String]) -> Vec<NodeConfig> {
    let node = |name: String, runtime, count, first: usize| NodeConfig {
        data_dir: dir.join(&name).join("data"),
        name,
        // Each begins with another replica, so that every replica has nodes to serve.
        endpoints: endpoints.iter().cycle().skip(first).take(endpoints.len()).cloned().collect(),
        ca_file: None,
        api: loopback(0),
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

fn loopback(port: u16) -> ListenConfig {
    ListenConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        tls: None,
        allow_plaintext: false,
        limits: None,
    }
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

fn kubeconfig(url: &str) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: trireme-dev\n\
         \x20 cluster:\n\
         \x20   server: {url}\n\
         contexts:\n\
         - name: trireme-dev\n\
         \x20 context:\n\
         \x20   cluster: trireme-dev\n\
         \x20   user: dev\n\
         users:\n\
         - name: dev\n\
         \x20 user: {{}}\n\
         current-context: trireme-dev\n"
    )
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
        assert_eq!(first.endpoints(), second.endpoints());
        assert_eq!(first.endpoints().len(), 3);
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
