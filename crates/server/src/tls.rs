//! Certificates from PEM files.

use crate::config::TlsConfig;
use anyhow::Context as _;
use raft::PeerTls;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{path::Path, sync::Arc};

/// A listener's TLS, for HTTP/2 and HTTP/1.1.
///
/// # Errors
/// Names the file that cannot be read or does not fit.
pub(crate) fn server(config: &TlsConfig) -> anyhow::Result<Arc<ServerConfig>> {
    let chain = certificates(&config.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&config.key_file)
        .with_context(|| format!("read private key {}", config.key_file.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &config.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).with_context(|| format!("use {}", file.display()))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut server = builder.with_single_cert(chain, key).with_context(|| {
        format!("use {} with {}", config.cert_file.display(), config.key_file.display())
    })?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}

/// What replicas show each other.
///
/// # Errors
/// Names the file that cannot be read, or the key that is missing.
pub(crate) fn peers(config: &TlsConfig) -> anyhow::Result<PeerTls> {
    let read =
        |file: &Path| std::fs::read(file).with_context(|| format!("read {}", file.display()));
    // What does not fit is better said here, by its file.
    server(config)?;
    let authorities =
        config.client_ca_file.as_deref().context("raft.tls.clientCaFile is missing")?;
    Ok(PeerTls {
        certificate: read(&config.cert_file)?,
        key: read(&config.key_file)?,
        authorities: read(authorities)?,
    })
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .with_context(|| format!("read certificates {}", file.display()))
}
