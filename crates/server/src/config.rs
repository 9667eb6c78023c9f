//! Configuration files: TOML, every key with a default and a unit, a misspelt key an error with its line.

use crate::{limits::LimitsConfig, telemetry::LogConfig};
use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// One replica: `trireme server --config F`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ReplicaConfig {
    /// Raft member id, above 0. Never used again for another disk.
    pub id: u64,
    /// Log, vote, snapshots. One process at a time.
    pub data_dir: PathBuf,
    /// Every member of the first start, this one included, for ever as they were then; with `join`,
    /// this one and any that can be asked. Once there is a log, the members in it count.
    pub members: Vec<MemberConfig>,
    /// This member was added to a cluster that exists: begin with an empty disk and found nothing.
    #[serde(default)]
    pub join: bool,
    /// Tells clusters apart whose first members have the same ids and peer URLs.
    #[serde(default)]
    pub cluster_token: String,
    /// Secrets of `kube-system`, a JSON array, that are created once when the cluster begins; then the file is
    /// removed.
    #[serde(default)]
    pub first_objects_file: Option<PathBuf>,
    /// The Kubernetes API, and node and admin gRPC beside it.
    pub api: ApiConfig,
    /// The etcd v3 API, if it is to be served.
    #[serde(default)]
    pub etcd: Option<ListenConfig>,
    /// `http(s)://host:port` by which clients reach the etcd v3 API here; without it, where it listens.
    #[serde(default)]
    pub etcd_urls: Vec<String>,
    /// Raft traffic of the other replicas.
    pub raft: RaftConfig,
    /// What nodes get, and when they count as lost.
    #[serde(default)]
    pub nodes: NodesConfig,
    /// The cluster's authority with its key: with it, this replica signs for nodes, and renews those of its own
    /// certificates that this authority has signed.
    #[serde(default)]
    pub authority: Option<AuthorityConfig>,
    /// How long old revisions are kept.
    #[serde(default)]
    pub history: HistoryConfig,
    /// When the disk counts as hung or full.
    #[serde(default)]
    pub disk: DiskConfig,
    /// Failures of the disk on demand, for tests.
    #[serde(default)]
    pub faults: Option<FaultsConfig>,
    /// End when standard input does: whoever started this process is gone.
    #[serde(default)]
    pub exit_with_parent: bool,
    /// What is logged.
    #[serde(default)]
    pub log: LogConfig,
}

/// A replica's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct DiskConfig {
    /// What was written may wait for the disk so long; then this replica hands over the lead.
    #[serde(with = "humantime_serde")]
    pub stall: Duration,
    /// With fewer bytes free, writes that need room are refused; without it two log segments and a
    /// snapshot.
    pub reserve_bytes: Option<u64>,
    /// Bytes of log after which a snapshot is written, however few entries they are.
    pub snapshot_log_bytes: u64,
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self {
            stall: Duration::from_millis(500),
            reserve_bytes: None,
            snapshot_log_bytes: 64 << 20,
        }
    }
}

/// Failures on demand: see `raft::disk::Plan` for what the file may say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FaultsConfig {
    /// The file that says what fails; nothing while it is not there.
    pub control: PathBuf,
    /// A file that says by how many milliseconds this replica's clock is wrong, such as `-1500`; right while it is
    /// not there. The machine's own clock is never set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<PathBuf>,
    /// Without it a replica with faults does not start.
    #[serde(default)]
    pub allow_faults: bool,
}

/// Where a member is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MemberConfig {
    /// Raft member id.
    pub id: u64,
    /// For people.
    pub name: String,
    /// `http(s)://host:port` of its raft listener.
    pub peer_url: String,
    /// `http(s)://host:port` of its API listener.
    pub client_url: String,
}

/// The listener of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ApiConfig {
    /// `address:port`
    pub listen: SocketAddr,
    /// Serve without TLS beyond loopback. Anyone who reaches the port may then do anything.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// Signs and checks the tokens of service accounts: a private key, PEM, EC P-256; the same at all
    /// replicas.
    #[serde(default)]
    pub service_account_key_file: Option<PathBuf>,
    /// Certificates. Without them, only loopback is allowed. Clients may show one of `clientCaFile`, or none:
    /// then they need a token.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// Write requests down; not without it.
    #[serde(default)]
    pub audit: Option<AuditConfig>,
    /// What is done at once for clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsConfig>,
}

/// Where and how requests of the API are written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AuditConfig {
    /// The file: a line of JSON for each request. Older ones have `.1`, `.2`… behind their names.
    pub path: PathBuf,
    /// How much of each request.
    #[serde(default)]
    pub level: AuditLevel,
    /// Bytes of a file after which another one is begun.
    #[serde(default = "default_audit_bytes")]
    pub file_bytes_max: u64,
    /// Older files that are kept.
    #[serde(default = "default_audit_files")]
    pub files_max: usize,
}

const fn default_audit_bytes() -> u64 {
    100 << 20
}

const fn default_audit_files() -> usize {
    10
}

/// How much of a request is written down; of Secrets and tokens never more than `Metadata`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum AuditLevel {
    /// Nothing.
    None,
    /// Who, what, when, and what came of it.
    #[default]
    Metadata,
    /// The request's body, too.
    Request,
    /// The answer's, too.
    RequestResponse,
}

/// The cluster's authority, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AuthorityConfig {
    /// Its certificate.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// Files of clients that this replica renews beside its own, if this authority has signed them: a certificate with
    /// its key, PEM, or a kubeconfig that holds both.
    // Left out where there is none: a version that does not know of it reads the file, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renews: Vec<PathBuf>,
}

/// What a client shows, and whom it trusts, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClientTlsConfig {
    /// Certificate chain, the client's own first.
    pub cert_file: PathBuf,
    /// Its private key; may be in the same file.
    pub key_file: PathBuf,
    /// Authorities that sign the servers' certificates.
    pub ca_file: PathBuf,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ListenConfig {
    /// `address:port`
    pub listen: SocketAddr,
    /// Certificates. Without them, only loopback is allowed.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// Serve without TLS beyond loopback. Anyone who reaches the port may then do anything.
    #[serde(default)]
    pub allow_plaintext: bool,
}

/// Certificates of a listener, as PEM files; read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TlsConfig {
    /// Certificate chain, the server's own first.
    pub cert_file: PathBuf,
    /// Its private key; may be in the same file.
    pub key_file: PathBuf,
    /// Clients must show a certificate signed by one of these.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
    /// It must name one of these as its organisation (`O`); every one will do if there is none here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub client_organizations: Vec<String>,
}

/// The raft group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RaftConfig {
    /// `address:port` for the other replicas.
    pub listen: SocketAddr,
    /// Certificates.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// Serve without TLS beyond loopback.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// Timers.
    #[serde(default)]
    pub profile: TimerProfile,
    /// Log entries after which a snapshot is written and the log behind it dropped.
    #[serde(default = "default_snapshot_entries")]
    pub snapshot_entries: u64,
    /// Bytes of one log segment on disk; at least 1 MiB.
    #[serde(default = "default_segment_bytes")]
    pub segment_bytes: u64,
}

const fn default_snapshot_entries() -> u64 {
    50_000
}

const fn default_segment_bytes() -> u64 {
    64 << 20
}

/// How fast a silent leader is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TimerProfile {
    /// One machine room: a new leader in under 300 ms.
    #[default]
    Lan,
    /// Round trips up to 300 ms: a new leader in some seconds.
    Wan,
}

/// What the control plane does for nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct NodesConfig {
    /// Silence after which a node is `NotReady` (NOD-10), by the leader's own clock.
    #[serde(with = "humantime_serde")]
    pub silence: Duration,
    /// Each node gets a /24 of it for its Pods.
    pub pod_cidr: String,
    /// Addresses of Services.
    pub service_cidr: String,
    /// What is shown to nodes when they are asked for logs or exec, and who signs their certificates. Without it,
    /// they are asked without TLS.
    pub tls: Option<ClientTlsConfig>,
}

impl Default for NodesConfig {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(50),
            pod_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/16".to_owned(),
            tls: None,
        }
    }
}

impl NodesConfig {
    /// By which the API itself is a Service.
    pub(crate) fn first_service_ip(&self) -> String {
        let prefix = self.service_cidr.split(".0.0/").next().unwrap_or_default();
        format!("{prefix}.0.1")
    }
}

/// What is kept of the past: a watch can be resumed from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct HistoryConfig {
    /// Revisions of this age are kept.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// No more than so many, however young: they cost memory.
    pub revisions: u64,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self { retention: Duration::from_secs(300), revisions: 500_000 }
    }
}

/// One node: `trireme kubelet --config F`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeConfig {
    /// Node name.
    pub name: String,
    /// Images, Pod directories, records. One process at a time.
    pub data_dir: PathBuf,
    /// `http(s)://host:port` of any replicas; the others are learned.
    pub endpoints: Vec<String>,
    /// Authorities that sign the replicas' certificates, PEM: for `https` endpoints.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// What is shown to replicas, PEM. `{node}` in it stands for the node's name: each has its own.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// Its private key; without it, the key is in the same file.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// Before its certificates expire, ask a replica for new ones.
    #[serde(default = "default_renew")]
    pub renew_certificates: bool,
    /// Logs, exec and attach, asked for by the API servers.
    pub api: ListenConfig,
    /// How containers run.
    #[serde(default)]
    pub runtime: RuntimeKind,
    /// Where images come from.
    #[serde(default)]
    pub images: ImagesConfig,
    /// Labels beside the well-known ones.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Pods at most.
    #[serde(default = "default_max_pods")]
    pub max_pods: u32,
    /// Between heartbeats.
    #[serde(default = "default_heartbeat", with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Run this many nodes, named `‹name›-‹n›`, in this process; only with the fake runtime.
    #[serde(default = "default_hollow")]
    pub count: u32,
    /// When told to end, take every Pod down first. Without it they go on and are adopted by the
    /// next start.
    #[serde(default)]
    pub remove_pods_on_exit: bool,
    /// End when standard input does: whoever started this process is gone.
    #[serde(default)]
    pub exit_with_parent: bool,
    /// What is logged.
    #[serde(default)]
    pub log: LogConfig,
}

const fn default_renew() -> bool {
    true
}

const fn default_max_pods() -> u32 {
    110
}

const fn default_heartbeat() -> Duration {
    Duration::from_secs(10)
}

const fn default_hollow() -> u32 {
    1
}

/// Where a node's images come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ImagesConfig {
    /// `host` or `host:port` of registries that are talked to without TLS. Those on loopback
    /// always are.
    pub insecure_registries: Vec<String>,
}

/// How containers run on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RuntimeKind {
    /// Namespaces and cgroups of this kernel.
    #[default]
    Native,
    /// A script: nothing runs.
    Fake,
}

/// Reads and checks a configuration file.
///
/// # Errors
/// Names the file, and the key and line for a key that is misspelt or of the wrong type.
pub fn read<C: DeserializeOwned + Check>(path: &Path) -> anyhow::Result<C> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read configuration {}", path.display()))?;
    parse(&text).with_context(|| format!("configuration {}", path.display()))
}

/// Parses and checks a configuration.
///
/// # Errors
/// As [`read`], without the file's name.
pub fn parse<C: DeserializeOwned + Check>(text: &str) -> anyhow::Result<C> {
    // The message of a TOML error shows line, column and the line itself.
    let config: C =
        toml::from_str(text).map_err(|e| anyhow::anyhow!("{}", e.to_string().trim_end()))?;
    config.check()?;
    Ok(config)
}

/// What cannot be said by types.
pub trait Check {
    /// # Errors
    /// Names the key, its value and what would be right.
    fn check(&self) -> anyhow::Result<()>;
}

impl Check for ReplicaConfig {
    fn check(&self) -> anyhow::Result<()> {
        if let Some(limits) = &self.api.limits {
            limits.check()?;
        }
        ensure!(self.id > 0, "id: must be above 0");
        let ids: BTreeSet<u64> = self.members.iter().map(|m| m.id).collect();
        ensure!(ids.len() == self.members.len(), "members: two have the same id");
        ensure!(ids.contains(&self.id), "members: none has this replica's id {}", self.id);
        for (i, member) in self.members.iter().enumerate() {
            ensure!(member.id > 0, "members[{i}].id: must be above 0");
            check_url(&format!("members[{i}].peerUrl"), &member.peer_url)?;
            check_url(&format!("members[{i}].clientUrl"), &member.client_url)?;
        }
        for (i, url) in self.etcd_urls.iter().enumerate() {
            check_url(&format!("etcdUrls[{i}]"), url)?;
        }
        let tls = self.raft.tls.as_ref();
        ensure!(
            tls.is_none_or(|tls| tls.client_ca_file.is_some()),
            "raft.tls.clientCaFile: replicas must be able to tell each other from strangers"
        );
        for (i, member) in self.members.iter().enumerate() {
            let scheme = if tls.is_some() { "https://" } else { "http://" };
            ensure!(
                member.peer_url.starts_with(scheme),
                "members[{i}].peerUrl: {:?} must begin with {scheme}, raft.tls {}",
                member.peer_url,
                if tls.is_some() { "is given" } else { "is not given" },
            );
        }
        check_listener("api", self.api.listen, self.api.tls.is_some() || self.api.allow_plaintext)?;
        ensure!(
            self.api.audit.as_ref().is_none_or(|audit| audit.file_bytes_max >= 1 << 10),
            "api.audit.fileBytesMax: must be at least 1024"
        );
        ensure!(
            self.api.tls.iter().all(|tls| tls.client_organizations.is_empty()),
            "api.tls.clientOrganizations: clients of the API may come without a certificate, and what they may do \
             is for its authorisation to say"
        );
        if let Some(etcd) = &self.etcd {
            check_tls("etcd", etcd.tls.as_ref())?;
            check_listener("etcd", etcd.listen, etcd.tls.is_some() || etcd.allow_plaintext)?;
        }
        check_tls("raft", tls)?;
        check_listener(
            "raft",
            self.raft.listen,
            self.raft.tls.is_some() || self.raft.allow_plaintext,
        )?;
        ensure!(self.raft.segment_bytes >= 1 << 20, "raft.segmentBytes: must be at least 1048576");
        ensure!(
            self.faults.as_ref().is_none_or(|faults| faults.allow_faults),
            "faults.allowFaults: must be true for a replica whose disk fails on demand"
        );
        ensure!(
            self.disk.stall >= Duration::from_millis(50),
            "disk.stall: must be at least 50ms, is {:?}",
            self.disk.stall
        );
        ensure!(self.raft.snapshot_entries >= 100, "raft.snapshotEntries: must be at least 100");
        ensure!(
            self.nodes.silence >= Duration::from_secs(1),
            "nodes.silence: must be at least 1s, is {:?}",
            self.nodes.silence
        );
        Ok(())
    }
}

impl NodeConfig {
    /// The nodes of this process.
    #[must_use]
    pub fn node_names(&self) -> Vec<String> {
        match self.count {
            1 => vec![self.name.clone()],
            count => (1..=count).map(|n| format!("{}-{n}", self.name)).collect(),
        }
    }
}

impl Check for NodeConfig {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.name.is_empty(), "name: must not be empty");
        ensure!(!self.endpoints.is_empty(), "endpoints: at least one replica is needed");
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            check_url(&format!("endpoints[{i}]"), endpoint)?;
            ensure!(
                endpoint.starts_with("http://") || self.ca_file.is_some(),
                "endpoints[{i}]: {endpoint:?} needs caFile, the authority of the replicas' certificates"
            );
        }
        ensure!(
            self.cert_file.is_some() || self.key_file.is_none(),
            "keyFile: without certFile, there is nothing that it is the key of"
        );
        let each = |file: &PathBuf| file.to_string_lossy().contains(NODE);
        ensure!(
            self.count == 1 || self.cert_file.as_ref().is_none_or(each),
            "certFile: {} nodes need one each; name it with {NODE}",
            self.count
        );
        check_tls("api", self.api.tls.as_ref())?;
        check_listener("api", self.api.listen, self.api.tls.is_some() || self.api.allow_plaintext)?;
        let asks_nobody = self.api.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_none());
        ensure!(
            !asks_nobody || self.api.listen.ip().is_loopback(),
            "api.tls.clientCaFile: without it, whoever reaches {} runs commands in every Pod",
            self.api.listen
        );
        ensure!(self.count > 0, "count: at least one node");
        ensure!(
            self.count == 1 || self.runtime == RuntimeKind::Fake,
            "count: {} nodes in one process need runtime = \"fake\"",
            self.count
        );
        Ok(())
    }
}

/// Stands for a node's name in the names of its files.
const NODE: &str = "{node}";

/// A file of one node.
pub(crate) fn of_node(file: &Path, node: &str) -> PathBuf {
    PathBuf::from(file.to_string_lossy().replace(NODE, node))
}

fn check_tls(section: &str, tls: Option<&TlsConfig>) -> anyhow::Result<()> {
    ensure!(
        tls.is_none_or(|tls| tls.client_organizations.is_empty() || tls.client_ca_file.is_some()),
        "{section}.tls.clientOrganizations: without clientCaFile, clients show no certificate"
    );
    Ok(())
}

fn check_listener(section: &str, listen: SocketAddr, allowed: bool) -> anyhow::Result<()> {
    if !listen.ip().is_loopback() && !allowed {
        bail!(
            "{section}.listen: {listen} is not loopback; give {section}.tls, \
             or say {section}.allowPlaintext = true on a network you trust"
        );
    }
    Ok(())
}

fn check_url(key: &str, url: &str) -> anyhow::Result<()> {
    let uri: http::Uri = url.parse().with_context(|| format!("{key}: {url:?} is not a URL"))?;
    ensure!(
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.port_u16().is_some(),
        "{key}: {url:?} must read http://HOST:PORT or https://HOST:PORT"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICA: &str = r#"
id = 1
dataDir = "/var/lib/trireme"
[api]
listen = "127.0.0.1:6443"
[raft]
listen = "127.0.0.1:2380"
[[members]]
id = 1
name = "replica-1"
peerUrl = "http://127.0.0.1:2380"
clientUrl = "http://127.0.0.1:6443"
"#;

    #[test]
    fn a_minimal_file_gets_every_default() {
        let config: ReplicaConfig = parse(REPLICA).unwrap();
        assert_eq!(config.nodes, NodesConfig::default());
        assert_eq!(config.raft.profile, TimerProfile::Lan);
    }

    #[test]
    fn requests_are_written_down_if_a_file_is_named() {
        let text = REPLICA.replacen("[raft]", "[api.audit]\npath = \"a.log\"\n[raft]", 1);
        let audit = parse::<ReplicaConfig>(&text).unwrap().api.audit.unwrap();
        assert_eq!((audit.level, audit.files_max), (AuditLevel::Metadata, 10));
        let text = text.replacen("\"a.log\"", "\"a.log\"\nlevel = \"Everything\"", 1);
        let error = format!("{:#}", parse::<ReplicaConfig>(&text).unwrap_err());
        assert!(error.contains("unknown variant `Everything`"), "{error}");
    }

    #[test]
    fn a_wrong_file_is_refused_with_key_and_reason() {
        for (name, from, to, want) in [
            ("misspelt key", "dataDir", "datadir", "line 3"),
            ("wrong type", "id = 1\ndata", "id = \"one\"\ndata", "line 2"),
            (
                "unknown section key",
                "[raft]\n",
                "[raft]\nheartbeat = 3\n",
                "unknown field `heartbeat`",
            ),
            (
                "plaintext in the open",
                "127.0.0.1:6443\"\n[raft]",
                "0.0.0.0:6443\"\n[raft]",
                "api.listen",
            ),
            ("not a member", "id = 1\ndata", "id = 2\ndata", "none has this replica's id 2"),
            (
                "replicas that cannot be told from strangers",
                "[raft]\n",
                "[raft]\ntls = { certFile = \"c\", keyFile = \"k\" }\n",
                "raft.tls.clientCaFile",
            ),
            (
                "peers without TLS",
                "[raft]\n",
                "[raft]\ntls = { certFile = \"c\", keyFile = \"k\", clientCaFile = \"a\" }\n",
                "must begin with https://",
            ),
            (
                "faults by accident",
                "[raft]\n",
                "[faults]\ncontrol = \"f\"\n[raft]\n",
                "faults.allowFaults",
            ),
            (
                "an audit log of no bytes",
                "[raft]\n",
                "[api.audit]\npath = \"a\"\nfileBytesMax = 1\n[raft]\n",
                "api.audit.fileBytesMax",
            ),
            (
                "organisations without certificates",
                "[raft]\n",
                "[etcd]\nlisten = \"127.0.0.1:1\"\ntls = { certFile = \"c\", keyFile = \"k\", \
                 clientOrganizations = [\"o\"] }\n[raft]\n",
                "etcd.tls.clientOrganizations: without clientCaFile",
            ),
            (
                "organisations at the API",
                "[raft]\n",
                "tls = { certFile = \"c\", keyFile = \"k\", clientCaFile = \"a\", \
                 clientOrganizations = [\"o\"] }\n[raft]\n",
                "api.tls.clientOrganizations",
            ),
            ("not a URL", "http://127.0.0.1:2380", "127.0.0.1", "members[0].peerUrl"),
            (
                "no seats at all",
                "[raft]\n",
                "[api.limits]\npeople = 0\n[raft]\n",
                "api.limits.people: must be above 0",
            ),
            (
                "less than one body",
                "[raft]\n",
                "[api.limits]\nbodyBytes = 1000\n[raft]\n",
                "api.limits.bodyBytes",
            ),
            (
                "limits of another API",
                "[raft]\n",
                "[etcd]\nlisten = \"127.0.0.1:2379\"\n[etcd.limits]\n[raft]\n",
                "unknown field `limits`",
            ),
        ] {
            let text = REPLICA.replacen(from, to, 1);
            assert_ne!(text, REPLICA, "{name}");
            let error = format!("{:#}", parse::<ReplicaConfig>(&text).unwrap_err());
            assert!(error.contains(want), "{name}: {error}");
        }
    }

    #[test]
    fn many_nodes_in_one_process_need_the_fake_runtime() {
        let text = r#"
name = "hollow"
dataDir = "d"
endpoints = ["http://127.0.0.1:6443"]
count = 5
[api]
listen = "127.0.0.1:0"
"#;
        assert!(format!("{:#}", parse::<NodeConfig>(text).unwrap_err()).starts_with("count:"));
        let text = text.replace("count = 5", "count = 5\nruntime = \"fake\"");
        assert_eq!(parse::<NodeConfig>(&text).unwrap().count, 5);
    }
}
