//! TLS for clients: certificates that are read again when their files change, and revocation.
//!
//! One configuration serves every listener, so that none can be reached around what another checks.

use super::settings::{CertificateSource, ClientTls, TlsVersion};
use anyhow::{Context as _, ensure};
use pki::Fresh;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime, pem::PemObject,
    },
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use std::{
    fmt::Debug,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// # Errors
/// Names the file that cannot be read or does not fit, or the flag.
pub(super) fn config(tls: &ClientTls, own: Own<'_>) -> anyhow::Result<Arc<ServerConfig>> {
    let mut provider = rustls::crypto::ring::default_provider();
    if !tls.suites.is_empty() {
        restrict(&mut provider, &tls.suites)?;
    }
    let provider = Arc::new(provider);
    let versions: Vec<_> = tls
        .versions
        .iter()
        .map(|version| match version {
            TlsVersion::V12 => &rustls::version::TLS12,
            TlsVersion::V13 => &rustls::version::TLS13,
        })
        .collect();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)?;
    let builder = match &tls.authorities {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let files: Vec<PathBuf> =
                std::iter::once(authorities).chain(&tls.revoked).cloned().collect();
            let (authorities, revoked) = (authorities.clone(), tls.revoked.clone());
            let provider = Arc::clone(&provider);
            let load = move || verifier(&authorities, revoked.as_deref(), &provider);
            builder.with_client_cert_verifier(Arc::new(Verifier(Fresh::new(files, load)?)))
        }
    };
    let mut server = match &tls.certificate {
        CertificateSource::Files { certificate, key } => {
            let files = vec![certificate.clone(), key.clone()];
            let (certificate, key) = (certificate.clone(), key.clone());
            let load = move || certified(&certificate, &key, &provider);
            builder.with_cert_resolver(Arc::new(Resolver(Fresh::new(files, load)?)))
        }
        CertificateSource::Own { years } => {
            let (certificate, key) = own.make(*years)?;
            builder.with_single_cert(vec![certificate], key).context("--auto-tls")?
        }
    };
    if tls.authorities.is_some() {
        // A session that is resumed would be held against no authority and no revocation.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    }
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}

/// TLS 1.3 has suites of its own, which are not chosen, as in Go.
fn restrict(provider: &mut CryptoProvider, names: &[String]) -> anyhow::Result<()> {
    let name = |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite());
    // Go knows these by shorter names, too.
    let wanted =
        |suite: &str| names.iter().any(|name| name == suite || suite == format!("{name}_SHA256"));
    for given in names {
        let known = provider.cipher_suites.iter().map(name);
        let mut known = known.map(|suite| suite.replace("TLS13_", "TLS_"));
        ensure!(
            known.any(|suite| suite == *given || suite == format!("{given}_SHA256")),
            "--cipher-suites: {given:?} is not supported; only suites with forward secrecy and AEAD are"
        );
    }
    provider.cipher_suites.retain(|suite| suite.tls13().is_some() || wanted(&name(suite)));
    Ok(())
}

/// A certificate of this member's own making.
pub(super) struct Own<'a> {
    /// What it is for: DNS names and addresses.
    pub(super) hosts: Vec<String>,
    /// The certificate is left there as `client-cert.pem` for clients to trust. Its key stays in memory.
    pub(super) dir: &'a Path,
}

impl Own<'_> {
    fn make(self, years: u32) -> anyhow::Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let mut params = rcgen::CertificateParams::new(self.hosts).context("--auto-tls")?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "trireme");
        let now = jiff::Timestamp::from_microsecond(
            i64::try_from(crate::clock::unix_micros()).unwrap_or_default(),
        )
        .context("--auto-tls: read the clock")?;
        let year = |add: u32| {
            let year = now.to_zoned(jiff::tz::TimeZone::UTC).year();
            i32::from(year) + i32::try_from(add).unwrap_or_default()
        };
        let today = now.to_zoned(jiff::tz::TimeZone::UTC);
        let (month, day) = (today.month().unsigned_abs(), today.day().unsigned_abs().min(28));
        params.not_before = rcgen::date_time_ymd(year(0), month, day);
        params.not_after = rcgen::date_time_ymd(year(years), month, day);
        let key = rcgen::KeyPair::generate().context("--auto-tls: make a key")?;
        let certificate = params.self_signed(&key).context("--auto-tls: make a certificate")?;
        fs::create_dir_all(self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        let file = self.dir.join("client-cert.pem");
        fs::write(&file, certificate.pem()).with_context(|| format!("write {}", file.display()))?;
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|e| anyhow::anyhow!("--auto-tls: {e}"))?;
        Ok((certificate.der().clone(), key))
    }
}

struct Resolver(Fresh<CertifiedKey>);

impl Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Resolver").field(&self.0).finish()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.get())
    }
}

struct Verifier(Fresh<Arc<dyn ClientCertVerifier>>);

impl Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Verifier").field(&self.0).finish()
    }
}

impl ClientCertVerifier for Verifier {
    /// None: a client then offers what it has, and the names may change.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.get().verify_client_cert(end_entity, intermediates, now);
        if let Err(Error::InvalidCertificate(CertificateError::Revoked)) = &verified {
            tracing::warn!("a client has shown a certificate that is revoked");
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.get().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.get().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.get().supported_verify_schemes()
    }
}

fn certificates(flag: &str, file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .with_context(|| format!("--{flag}: read {}", file.display()))
}

fn certified(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain = certificates("cert-file", certificate)?;
    let der = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("--key-file: read {}", key.display()))?;
    let certified = CertifiedKey::from_der(chain, der, provider);
    Ok(Arc::new(certified.with_context(|| {
        format!("--cert-file {} does not fit --key-file {}", certificate.display(), key.display())
    })?))
}

fn verifier(
    authorities: &Path,
    revoked: Option<&Path>,
    provider: &Arc<CryptoProvider>,
) -> anyhow::Result<Arc<Arc<dyn ClientCertVerifier>>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("trusted-ca-file", authorities)? {
        roots
            .add(certificate)
            .with_context(|| format!("--trusted-ca-file: use {}", authorities.display()))?;
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if let Some(file) = revoked {
        // Other authorities of the chain have lists of their own, which need not be here.
        builder = builder
            .with_crls(revocations(file)?)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status();
    }
    Ok(Arc::new(builder.build().context("--trusted-ca-file, --client-crl-file")?))
}

/// PEM, several in a file, or one in DER.
fn revocations(file: &Path) -> anyhow::Result<Vec<CertificateRevocationListDer<'static>>> {
    let bytes =
        fs::read(file).with_context(|| format!("--client-crl-file: read {}", file.display()))?;
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .with_context(|| format!("--client-crl-file: read {}", file.display()))?;
    if lists.is_empty() { Ok(vec![bytes.into()]) } else { Ok(lists) }
}
