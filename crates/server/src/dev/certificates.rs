//! The certificates of a dev cluster: one authority, and what it has signed for each process.

use crate::{
    clock,
    config::{ApiConfig, AuthorityConfig, ClientTlsConfig, ListenConfig, TlsConfig},
};
use anyhow::Context as _;
use pki::{Authority, LIFETIME_OF_AUTHORITY, Profile, Usage, names};
use std::{
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// The files below a cluster's directory.
#[derive(Debug, Clone)]
pub(crate) struct Pki {
    dir: PathBuf,
}

impl Pki {
    /// Of a cluster.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.join("pki") }
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    pub(crate) fn authority_key(&self) -> PathBuf {
        self.dir.join("ca.key")
    }

    pub(crate) fn service_account_key(&self) -> PathBuf {
        self.dir.join("sa.key")
    }

    /// Certificate and key of the administrator.
    pub(crate) fn admin(&self) -> PathBuf {
        self.dir.join("admin.pem")
    }

    /// What a replica shows to clients.
    pub(crate) fn server(replica_dir: &Path) -> PathBuf {
        replica_dir.join("pki").join("server.pem")
    }

    /// What a replica shows to other replicas, and to nodes.
    pub(crate) fn peer(replica_dir: &Path) -> PathBuf {
        replica_dir.join("pki").join("peer.pem")
    }

    /// What a node shows to replicas.
    pub(crate) fn node(node_dir: &Path, node: &str) -> PathBuf {
        node_dir.join("pki").join(format!("{node}.pem"))
    }

    /// What a node shows to who asks for logs and exec.
    pub(crate) fn serving(node_dir: &Path) -> PathBuf {
        node_dir.join("pki").join("serving.pem")
    }

    /// The API's listener of a replica.
    pub(crate) fn api(&self, replica_dir: &Path, listen: SocketAddr) -> ApiConfig {
        ApiConfig {
            listen,
            allow_plaintext: false,
            service_account_key_file: Some(self.service_account_key()),
            tls: Some(self.listener(Self::server(replica_dir), &[])),
            audit: None,
            limits: None,
        }
    }

    /// The etcd port of a replica: for administrators, since it shows and takes everything.
    pub(crate) fn etcd(&self, replica_dir: &Path, listen: SocketAddr) -> ListenConfig {
        let tls = Some(self.listener(Self::server(replica_dir), &[names::MASTERS]));
        ListenConfig { listen, tls, allow_plaintext: false }
    }

    /// The raft port of a replica: a node's certificate is of the same authority, and does not open it.
    pub(crate) fn raft(&self, replica_dir: &Path) -> TlsConfig {
        self.listener(Self::peer(replica_dir), &[names::REPLICAS])
    }

    /// What a replica shows to nodes.
    pub(crate) fn to_nodes(&self, replica_dir: &Path) -> ClientTlsConfig {
        let file = Self::peer(replica_dir);
        ClientTlsConfig { cert_file: file.clone(), key_file: file, ca_file: self.authority() }
    }

    /// The port of a node: for replicas alone. One authority signs for everybody, so that there is one to keep
    /// and to pin; what tells replicas from nodes is the organisation, which no node can have.
    pub(crate) fn kubelet(&self, node_dir: &Path, listen: SocketAddr) -> ListenConfig {
        let tls = Some(self.listener(Self::serving(node_dir), &[names::REPLICAS]));
        ListenConfig { listen, tls, allow_plaintext: false }
    }

    pub(crate) fn authority_config(&self) -> AuthorityConfig {
        let (cert_file, key_file) = (self.authority(), self.authority_key());
        AuthorityConfig { cert_file, key_file, renews: Vec::new() }
    }

    fn listener(&self, file: PathBuf, organizations: &[&str]) -> TlsConfig {
        TlsConfig {
            cert_file: file.clone(),
            key_file: file,
            client_ca_file: Some(self.authority()),
            client_organizations: organizations.iter().map(|name| (*name).to_owned()).collect(),
        }
    }
}

/// Signs what is not there, or soon will not be valid any more.
#[derive(Debug)]
pub(crate) struct Issuer {
    pki: Pki,
    authority: Authority,
    lifetime: Duration,
}

impl Issuer {
    /// The authority that is there, or a new one; so with the key for service accounts.
    ///
    /// # Errors
    /// Names the file that is wrong or cannot be written.
    pub(crate) fn open(pki: Pki, lifetime: Duration) -> anyhow::Result<Self> {
        private_dir(&pki.dir)?;
        let (certificate, key) = (pki.authority(), pki.authority_key());
        let authority =
            Authority::open(&certificate, &key, clock::moment(), LIFETIME_OF_AUTHORITY)?;
        let service_accounts = pki.service_account_key();
        if !service_accounts.exists() {
            pki::create_secret(&service_accounts, pki::new_key()?.as_bytes())?;
        }
        Ok(Self { pki, authority, lifetime })
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What a replica shows: to clients as `api_hosts`, to peers as `peer_hosts`.
    pub(crate) fn replica(
        &self,
        dir: &Path,
        name: &str,
        api_hosts: Vec<String>,
        peer_hosts: Vec<String>,
    ) -> anyhow::Result<()> {
        self.ensure(&Pki::server(dir), &Profile::server(names::API_SERVER, api_hosts))?;
        let peer = Profile {
            hosts: peer_hosts,
            usage: Usage::PEER,
            ..Profile::client(names::replica_user(name), &[names::REPLICAS])
        };
        self.ensure(&Pki::peer(dir), &peer)
    }

    /// What a node shows to replicas.
    pub(crate) fn node(&self, dir: &Path, node: &str) -> anyhow::Result<()> {
        let profile = Profile::client(names::node_user(node), &[names::NODES]);
        self.ensure(&Pki::node(dir, node), &profile)
    }

    /// What a node shows to who asks it for logs and exec.
    pub(crate) fn serving(&self, dir: &Path, node: &str, hosts: Vec<String>) -> anyhow::Result<()> {
        let profile = Profile {
            organizations: vec![names::NODES.to_owned()],
            ..Profile::server(names::node_user(node), hosts)
        };
        self.ensure(&Pki::serving(dir), &profile)
    }

    /// The administrator's; PEM of certificate and key.
    pub(crate) fn admin(&self) -> anyhow::Result<String> {
        let file = self.pki.admin();
        self.ensure(&file, &Profile::client(names::ADMIN, &[names::MASTERS]))?;
        std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    }

    fn ensure(&self, file: &Path, profile: &Profile) -> anyhow::Result<()> {
        let now = clock::moment();
        let kept = pki::read(file).ok().and_then(|pem| self.authority.check(&pem, now).ok());
        if kept.is_some_and(|kept| kept.profile == *profile && kept.renewal() > now) {
            return Ok(());
        }
        if let Some(dir) = file.parent() {
            private_dir(dir)?;
        }
        let pem = self.authority.issue(profile, now, self.lifetime)?;
        Ok(pki::write_secret(file, pem.as_bytes())?)
    }
}

fn private_dir(dir: &Path) -> anyhow::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).with_context(|| format!("create {}", dir.display()))
}

/// The names by which an API server is reached, beside those of its own machine: `service_ip` is the first
/// address of Services.
pub(crate) fn api_hosts(own: &[&str], service_ip: &str) -> Vec<String> {
    const EVERYWHERE: [&str; 7] = [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let mut hosts: Vec<String> = Vec::new();
    for host in own.iter().copied().chain(EVERYWHERE).chain([service_ip]) {
        if !hosts.iter().any(|known| known == host) {
            hosts.push(host.to_owned());
        }
    }
    hosts
}
