//! TLS from a configuration's PEM files.

use crate::config::{ClientTlsConfig, NodeConfig, TlsConfig, of_node};
use anyhow::Context as _;
use client::transport::{Access, Tls};
use pki::tls::{Clients, Pem, Shown};
use raft::PeerTls;
use rustls::{ClientConfig, ServerConfig};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

fn file(path: &Path) -> Pem {
    Pem::File(path.to_owned())
}

fn shown(certificate: &Path, key: &Path) -> Shown {
    Shown { chain: file(certificate), key: file(key) }
}

/// A listener's TLS, for HTTP/2 and HTTP/1.1; clients must show a certificate if the configuration has an
/// authority for them.
///
/// # Errors
/// Names the file that cannot be read or does not fit.
pub(crate) fn server(config: &TlsConfig) -> anyhow::Result<Arc<ServerConfig>> {
    let clients = match &config.client_ca_file {
        None => Clients::Unasked,
        Some(authorities) => Clients::Required {
            authorities: file(authorities),
            organizations: config.client_organizations.clone(),
        },
    };
    Ok(pki::tls::server(shown(&config.cert_file, &config.key_file), clients)?)
}

/// As [`server`], but clients may have another way to prove who they are, and who joins may know the `authority` by
/// its hash alone.
///
/// # Errors
/// As [`server`].
pub(crate) fn api(
    config: &TlsConfig,
    authority: Option<&Path>,
) -> anyhow::Result<Arc<ServerConfig>> {
    let clients = match &config.client_ca_file {
        None => Clients::Unasked,
        Some(authorities) => Clients::Offered { authorities: file(authorities) },
    };
    let shown = shown(&config.cert_file, &config.key_file);
    Ok(pki::tls::server_of(shown, authority.map(file), clients)?)
}

/// What replicas show each other.
///
/// # Errors
/// Names the file that cannot be read, or the key that is missing.
pub(crate) fn peers(config: &TlsConfig) -> anyhow::Result<PeerTls> {
    let authorities =
        config.client_ca_file.as_deref().context("raft.tls.clientCaFile is missing")?;
    let shown = shown(&config.cert_file, &config.key_file);
    let client = pki::tls::client(file(authorities), Some(shown))?;
    Ok(PeerTls { client, server: server(config)? })
}

/// What is shown to nodes.
///
/// # Errors
/// Names the file that cannot be read or does not fit.
pub(crate) fn client(config: &ClientTlsConfig) -> anyhow::Result<Arc<ClientConfig>> {
    let shown = shown(&config.cert_file, &config.key_file);
    Ok(pki::tls::client(file(&config.ca_file), Some(shown))?)
}

/// A certificate and its key, which may be in the same file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What a node shows to replicas.
pub(crate) fn node_files(config: &NodeConfig, node: &str) -> Option<Files> {
    let certificate = of_node(config.cert_file.as_deref()?, node);
    let key = config.key_file.as_deref().map(|key| of_node(key, node));
    Some(Files { key: key.unwrap_or_else(|| certificate.clone()), certificate })
}

/// How a node talks to replicas.
///
/// # Errors
/// Names the file that cannot be read or does not fit.
pub(crate) fn node_access(config: &NodeConfig, node: &str) -> anyhow::Result<Access> {
    let Some(authorities) = &config.ca_file else { return Ok(Access::default()) };
    let files = node_files(config, node);
    let shown = files.map(|files| shown(&files.certificate, &files.key));
    let tls = pki::tls::client(file(authorities), shown).context("caFile, certFile, keyFile")?;
    Ok(Access { tls: Some(Tls::new(tls)), token: None })
}

/// An access that shows what is in one file.
///
/// # Errors
/// Names the file that cannot be read or does not fit.
pub(crate) fn access(authorities: &Path, shown: &Path) -> anyhow::Result<Access> {
    let tls = pki::tls::client(file(authorities), Some(Shown::in_file(shown)))?;
    Ok(Access { tls: Some(Tls::new(tls)), token: None })
}
