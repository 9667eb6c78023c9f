//! Real machines: the first replica of a cluster, and those that join it.
//!
//! A directory is made beside its place, and gets its name when everything is in it: what fails leaves nothing
//! behind.

use crate::{
    clock,
    config::{
        AuthorityConfig, DiskConfig, HistoryConfig, ImagesConfig, MemberConfig, NodeConfig,
        NodesConfig, RaftConfig, ReplicaConfig, RuntimeKind, TimerProfile,
    },
    dev::certificates::{Issuer, Pki, api_hosts},
    kubeconfig::kubeconfig,
    telemetry::LogConfig,
};
use anyhow::{Context as _, bail, ensure};
use api::bootstrap::Token;
use client::{
    ClientError,
    endpoints::Endpoints,
    join::{self, NodeCertificates},
    transport::{Access, Tls},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

/// For tokens that `init` makes.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// What the kubeconfig calls the cluster.
const CLUSTER: &str = "trireme";
/// Its file.
const KUBECONFIG: &str = "kubeconfig";
/// For a replica to answer who joins; adding a member takes a round or two.
const JOIN_DEADLINE: Duration = Duration::from_secs(15);
/// For a connection to it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a machine is, and what it is called.
#[derive(Debug, Clone)]
pub struct Place {
    /// Made, with everything in it.
    pub data_dir: PathBuf,
    /// Address or DNS name by which the others reach it.
    pub advertise: Option<String>,
    /// The machine's own without it.
    pub name: Option<String>,
    /// Of a replica's API.
    pub api_port: u16,
    /// Of a replica's raft listener.
    pub raft_port: u16,
    /// Of a replica's etcd v3 API.
    pub etcd_port: u16,
    /// Of a node's own port.
    pub kubelet_port: u16,
}

/// How to come to a cluster.
#[derive(Debug, Clone)]
pub struct Invitation {
    /// `https://host:port` of a replica.
    pub server: String,
    /// `ID.SECRET`
    pub token: String,
    /// `sha256:…` of the authority's key.
    pub ca_hash: String,
}

/// What every replica of a cluster is configured with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Shared {
    cluster_token: String,
    profile: TimerProfile,
    nodes: NodesConfig,
    history: HistoryConfig,
}

impl Shared {
    pub(crate) fn of(config: &ReplicaConfig) -> Self {
        Self {
            cluster_token: config.cluster_token.clone(),
            profile: config.raft.profile,
            // Files are each machine's own.
            nodes: NodesConfig { tls: None, ..config.nodes.clone() },
            history: config.history.clone(),
        }
    }
}

/// The name of this machine as Kubernetes has names.
fn own_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("ask for the name of this machine")?;
    Ok(name.to_string_lossy().to_lowercase())
}

fn name_of(place: &Place) -> anyhow::Result<String> {
    let name = match &place.name {
        Some(name) => name.clone(),
        None => own_name()?,
    };
    if let Some(wrong) = api::names::subdomain(&name).first() {
        bail!("--name: {name:?} is no name: {wrong}");
    }
    Ok(name)
}

/// As it stands in a URL.
fn url(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("https://[{ip}]:{port}"),
        Ok(IpAddr::V4(_)) | Err(_) => format!("https://{host}:{port}"),
    }
}

/// Where to listen so that it is reached by that name.
fn listen(host: &str, port: u16) -> SocketAddr {
    SocketAddr::from((host.parse::<IpAddr>().unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port))
}

/// A directory on its way.
struct Making {
    aside: PathBuf,
    place: PathBuf,
    done: bool,
}

impl Making {
    fn begin(data_dir: &Path) -> anyhow::Result<Self> {
        let place = std::path::absolute(data_dir)
            .with_context(|| format!("resolve {}", data_dir.display()))?;
        let has_something = fs::read_dir(&place).is_ok_and(|mut entries| entries.next().is_some());
        ensure!(
            !has_something,
            "{} holds something already; choose another --data-dir",
            place.display()
        );
        let mut aside = place.file_name().context("--data-dir: names no directory")?.to_owned();
        aside.push(".new");
        let aside = place.with_file_name(aside);
        // What an attempt has left that was killed.
        if aside.exists() {
            fs::remove_dir_all(&aside).with_context(|| format!("remove {}", aside.display()))?;
        }
        fs::create_dir_all(&aside).with_context(|| format!("create {}", aside.display()))?;
        Ok(Self { aside, place, done: false })
    }

    /// Where it will be.
    fn place(&self) -> &Path {
        &self.place
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        Ok(pki::write_secret(&self.aside.join(name), text.as_bytes())?)
    }

    fn end(mut self) -> anyhow::Result<PathBuf> {
        fs::rename(&self.aside, &self.place)
            .with_context(|| format!("name it {}", self.place.display()))?;
        self.done = true;
        Ok(self.place.clone())
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_dir_all(&self.aside);
        }
    }
}

/// A replica's configuration; what it shows is in `dir`.
fn replica_config(
    dir: &Path,
    place: &Place,
    host: &str,
    id: u64,
    members: Vec<MemberConfig>,
    shared: Shared,
) -> ReplicaConfig {
    let pki = Pki::new(dir);
    ReplicaConfig {
        id,
        data_dir: dir.join("data"),
        join: members.len() > 1,
        members,
        cluster_token: shared.cluster_token,
        first_objects_file: None,
        api: pki.api(dir, listen(host, place.api_port)),
        etcd: Some(pki.etcd(dir, listen(host, place.etcd_port))),
        etcd_urls: vec![url(host, place.etcd_port)],
        raft: RaftConfig {
            listen: listen(host, place.raft_port),
            tls: Some(pki.raft(dir)),
            allow_plaintext: false,
            profile: shared.profile,
            snapshot_entries: 50_000,
            segment_bytes: 64 << 20,
        },
        nodes: NodesConfig { tls: Some(pki.to_nodes(dir)), ..shared.nodes },
        authority: Some(AuthorityConfig {
            renews: vec![pki.admin(), dir.join(KUBECONFIG)],
            ..pki.authority_config()
        }),
        history: shared.history,
        disk: DiskConfig::default(),
        faults: None,
        exit_with_parent: false,
        log: LogConfig::default(),
    }
}

/// Certificates, configuration, and what clients on this machine need.
fn furnish(
    making: &Making,
    config: &ReplicaConfig,
    name: &str,
    host: &str,
) -> anyhow::Result<Issuer> {
    let issuer = Issuer::open(Pki::new(&making.aside), pki::LIFETIME)?;
    let hosts = api_hosts(&[name, host], &config.nodes.first_service_ip());
    let mut peers = vec![name.to_owned()];
    if host != name {
        peers.push(host.to_owned());
    }
    issuer.replica(&making.aside, name, hosts, peers)?;
    making.write("config.toml", &toml::to_string(config).context("write configuration")?)?;
    let own = config.members.iter().find(|m| m.id == config.id).map(|m| m.client_url.as_str());
    let others = config.members.iter().filter(|m| m.id != config.id).map(|m| m.client_url.as_str());
    let urls: Vec<&str> = own.into_iter().chain(others).collect();
    making.write("endpoints", &(urls.join("\n") + "\n"))?;
    making.write("etcd-endpoints", &(config.etcd_urls.join("\n") + "\n"))?;
    let admin = issuer.admin()?;
    let tls = Some((issuer.authority().pem(), admin.as_str()));
    making
        .write(KUBECONFIG, &kubeconfig(CLUSTER, urls.first().copied().unwrap_or_default(), tls))?;
    Ok(issuer)
}

/// Makes the first replica of a new cluster; what to do then, for people.
///
/// # Errors
/// The directory is not empty, or something cannot be written: then there is nothing.
pub fn init(place: &Place) -> anyhow::Result<String> {
    let name = name_of(place)?;
    let host =
        place.advertise.clone().context("--advertise: by which address do others reach it?")?;
    let making = Making::begin(&place.data_dir)?;
    let member = MemberConfig {
        id: 1,
        name: name.clone(),
        peer_url: url(&host, place.raft_port),
        client_url: url(&host, place.api_port),
    };
    let shared = Shared {
        // Two clusters that are made alike are told apart.
        cluster_token: uuid::Uuid::new_v4().to_string(),
        profile: TimerProfile::Lan,
        nodes: NodesConfig::default(),
        history: HistoryConfig::default(),
    };
    let dir = making.place().to_owned();
    let mut config = replica_config(&dir, place, &host, 1, vec![member.clone()], shared);
    config.first_objects_file = Some(dir.join("first-objects.json"));
    let issuer = furnish(&making, &config, &name, &host)?;
    let expiration = clock::moment().after(TOKEN_LIFETIME).0;
    let (for_nodes, for_replicas) = (Token::of(&pki::random()?), Token::of(&pki::random()?));
    let objects = [
        for_nodes.object(false, Some(expiration), "made by trireme init, for nodes"),
        for_replicas.object(true, Some(expiration), "made by trireme init, for replicas"),
    ];
    let objects = serde_json::to_string(&objects).context("write the first tokens")?;
    making.write("first-objects.json", &objects)?;
    let hash = issuer.authority().pin()?;
    let dir = making.end()?;
    let join = |token: &Token, what: &str| {
        format!(
            "trireme join --data-dir /var/lib/trireme --server {} --token {} --ca-hash {hash} {what}",
            member.client_url,
            token.text()
        )
    };
    Ok(format!(
        "replica {name} is made; start it with\n  trireme server --config {config}\nand it is reached with\n  \
         kubectl --kubeconfig {kubeconfig} get nodes\nFurther machines join, within 24 hours, as a replica\n  \
         {replica}\nor as a node\n  {node}\nand later with what `trireme token create` prints.",
        config = dir.join("config.toml").display(),
        kubeconfig = dir.join(KUBECONFIG).display(),
        replica = join(&for_replicas, "--replica --advertise ADDRESS"),
        node = join(&for_nodes, "--node"),
    ))
}

/// The replica that invites, whose authority is pinned before the token is sent.
fn inviting(invitation: &Invitation) -> anyhow::Result<Endpoints> {
    ensure!(
        Token::parse(&invitation.token).is_some(),
        "--token: must read ID.SECRET, six and sixteen of a to z and 0 to 9"
    );
    let tls = pki::tls::pinned(&invitation.ca_hash).context("--ca-hash")?;
    let access = Access { tls: Some(Tls::new(tls)), token: Some(invitation.token.clone()) };
    let server = invitation.server.trim_end_matches('/').to_owned();
    access.check(&server).map_err(|error| anyhow::anyhow!("--server: {server:?}: {error}"))?;
    ensure!(server.starts_with("https://"), "--server: {server:?} must read https://HOST:PORT");
    Ok(Endpoints {
        connect_timeout: CONNECT_TIMEOUT,
        deadline: JOIN_DEADLINE,
        ..Endpoints::new(vec![server], access)
    })
}

fn refused(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Unreachable { attempts } => {
            let all: Vec<String> =
                attempts.iter().map(|a| format!("{}: {}", a.endpoint, a.error)).collect();
            anyhow::anyhow!("{}", all.join("; "))
        }
        // A replica does not say to strangers which of it.
        ClientError::Api(status) if status.code == 401 => anyhow::anyhow!(
            "the token is not taken: there is none of this id, its secret is another, or it has expired; \
             `trireme token list` on a replica shows them, `token create` makes one"
        ),
        ClientError::Api(status) if status.code == 403 => anyhow::anyhow!(
            "the token is for something else ({}); `trireme token create` makes one for nodes, with --replicas \
             one for replicas",
            status.message
        ),
        ClientError::Api(status) => anyhow::anyhow!("{}", status.message),
        other @ (ClientError::Unknown { .. } | ClientError::Decode { .. }) => other.into(),
    }
}

/// What was said over a pinned connection must be of who was pinned.
fn check_authority(pem: &str, invitation: &Invitation) -> anyhow::Result<()> {
    let found = pki::pin_of_pem(pem.as_bytes(), "the authority that was given")?;
    ensure!(
        found.eq_ignore_ascii_case(&invitation.ca_hash),
        "the authority that was given has the hash {found}"
    );
    Ok(())
}

/// Makes a node of this machine; what to do then, for people.
///
/// # Errors
/// In words what is wrong; then there is nothing.
pub async fn join_node(place: &Place, invitation: &Invitation) -> anyhow::Result<String> {
    let name = name_of(place)?;
    let inviting = inviting(invitation)?;
    let server = inviting.urls.first().cloned().unwrap_or_default();
    let host = match &place.advertise {
        Some(host) => host.clone(),
        None => towards(&server)?.to_string(),
    };
    // Replicas reach a node by the address that it listens at.
    let address: IpAddr =
        host.parse().with_context(|| format!("--advertise: {host:?} is no address"))?;
    let making = Making::begin(&place.data_dir)?;
    let (client_key, serving_key) = (pki::new_key()?, pki::new_key()?);
    let asked = join::Node {
        name: name.clone(),
        hosts: vec![name.clone(), host.clone()],
        client_request: pki::request(&client_key, &name)?,
        serving_request: pki::request(&serving_key, &name)?,
    };
    let given = join::node(&inviting, &server, asked).await.map_err(refused)?;
    let NodeCertificates { client, serving, authority, endpoints } = given;
    check_authority(&authority, invitation)?;
    let dir = making.place().to_owned();
    let pki = Pki::new(&dir);
    let config = NodeConfig {
        name: name.clone(),
        data_dir: dir.join("data"),
        endpoints,
        ca_file: Some(pki.authority()),
        cert_file: Some(Pki::node(&dir, &name)),
        key_file: None,
        renew_certificates: true,
        api: pki.kubelet(&dir, SocketAddr::from((address, place.kubelet_port))),
        runtime: RuntimeKind::Native,
        images: ImagesConfig::default(),
        labels: BTreeMap::new(),
        max_pods: 110,
        heartbeat: Duration::from_secs(10),
        count: 1,
        remove_pods_on_exit: false,
        exit_with_parent: false,
        log: LogConfig::default(),
    };
    crate::config::Check::check(&config)?;
    fs::create_dir(making.aside.join("pki")).context("create pki")?;
    making.write(&format!("pki/{name}.pem"), &(client + &client_key))?;
    making.write("pki/serving.pem", &(serving + &serving_key))?;
    making.write("pki/ca.crt", &authority)?;
    making.write("config.toml", &toml::to_string(&config).context("write configuration")?)?;
    let dir = making.end()?;
    Ok(format!(
        "node {name} is made; start it, as root, with\n  trireme kubelet --config {}",
        dir.join("config.toml").display()
    ))
}

/// This machine's address as that server sees it.
fn towards(server: &str) -> anyhow::Result<IpAddr> {
    let uri: http::Uri = server.parse().context("--server")?;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(443);
    let ask = || {
        let any: IpAddr = match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            Ok(IpAddr::V4(_)) | Err(_) => Ipv4Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        // Nothing is sent.
        socket.connect((host, port))?;
        socket.local_addr()
    };
    let found = ask().with_context(|| format!("find the way to {server}; say --advertise"))?;
    Ok(found.ip())
}

/// Makes a replica of this machine; what to do then, for people.
///
/// # Errors
/// In words what is wrong; then there is nothing here. If the cluster had made room already, asking again with the
/// same address goes on from there.
pub async fn join_replica(place: &Place, invitation: &Invitation) -> anyhow::Result<String> {
    let name = name_of(place)?;
    let inviting = inviting(invitation)?;
    let server = inviting.urls.first().cloned().unwrap_or_default();
    let host =
        place.advertise.clone().context("--advertise: by which address do others reach it?")?;
    let making = Making::begin(&place.data_dir)?;
    let peer_url = url(&host, place.raft_port);
    let given = join::replica(&inviting, &server, &name, &peer_url).await.map_err(refused)?;
    check_authority(&given.authority, invitation)?;
    let shared: Shared = toml::from_str(&given.shared_configuration)
        .context("what replicas are configured with: is this program of another version?")?;
    let own = MemberConfig {
        id: given.id,
        name: name.clone(),
        peer_url,
        client_url: url(&host, place.api_port),
    };
    // Who has not started yet cannot be asked for anything.
    let others = given.members.iter().filter(|m| m.id != given.id && !m.api_url.is_empty());
    let others = others.map(|m| MemberConfig {
        id: m.id,
        name: m.name.clone(),
        peer_url: m.peer_url.clone(),
        client_url: m.api_url.clone(),
    });
    let members = std::iter::once(own).chain(others).collect();
    let dir = making.place().to_owned();
    let config = replica_config(&dir, place, &host, given.id, members, shared);
    crate::config::Check::check(&config)?;
    fs::create_dir(making.aside.join("pki")).context("create pki")?;
    for (file, text) in [
        ("pki/ca.key", &given.authority_key),
        ("pki/ca.crt", &given.authority),
        ("pki/sa.key", &given.service_account_key),
    ] {
        making.write(file, text)?;
    }
    furnish(&making, &config, &name, &host)?;
    let dir = making.end()?;
    Ok(format!(
        "replica {name} is made, with the id {}; start it with\n  trireme server --config {}\nIt receives \
         the log, and votes when it holds all of it.",
        given.id,
        dir.join("config.toml").display()
    ))
}

/// Creates what a file says, once, as soon as somebody leads; then the file goes.
///
/// # Errors
/// It cannot be read, or is none.
pub(crate) async fn create_first(file: PathBuf, client: client::Client) -> anyhow::Result<()> {
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
    };
    let objects: Vec<serde_json::Value> =
        serde_json::from_slice(&text).with_context(|| format!("read {}", file.display()))?;
    let path = format!("/api/v1/namespaces/{}/secrets", api::bootstrap::NAMESPACE);
    for object in objects {
        let body = object.to_string().into_bytes();
        loop {
            let created: Result<serde_json::Value, _> =
                client.call(http::Method::POST, &path, Some(body.clone())).await;
            match created {
                Ok(_) => break,
                Err(ClientError::Api(status)) if status.is_already_exists() => break,
                // Nobody leads yet, or the namespace is not there.
                Err(error) => tracing::debug!(%error, "the first objects wait"),
            }
            tokio::time::sleep(FIRST_AGAIN).await;
        }
    }
    fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
}

/// Between two tries to create the first objects.
const FIRST_AGAIN: Duration = Duration::from_millis(200);
