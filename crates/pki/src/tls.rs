//! TLS whose certificates follow their files: what is shown, and who is trusted, is looked up at each handshake.
//!
//! Connections that are open go on as they began. TLS 1.2 is the oldest that is spoken.

use crate::{Certificate, Fresh, PkiError, files};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring::default_provider},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where PEM comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file, read again when it changes.
    File(PathBuf),
    /// As it is.
    Bytes(Vec<u8>),
}

impl Pem {
    /// # Errors
    /// Names the file.
    pub fn read(&self) -> Result<Vec<u8>, PkiError> {
        match self {
            Self::File(path) => files::read(path),
            Self::Bytes(bytes) => Ok(bytes.clone()),
        }
    }

    fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Bytes(_) => None,
        }
    }

    fn origin(&self) -> String {
        self.file().map_or_else(|| "the data given".to_owned(), |path| path.display().to_string())
    }
}

/// What is shown to the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Certificate chain, its owner's own first.
    pub chain: Pem,
    /// Private key; may be in the same file.
    pub key: Pem,
}

impl Shown {
    /// Both in one file.
    #[must_use]
    pub fn in_file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { chain: Pem::File(path.clone()), key: Pem::File(path) }
    }

    fn files(&self) -> Vec<PathBuf> {
        let both = [&self.chain, &self.key];
        both.into_iter().filter_map(|pem| pem.file().map(Path::to_owned)).collect()
    }

    /// `behind` is sent after the chain.
    fn fresh(
        self,
        behind: Option<Pem>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Fresh<CertifiedKey>, PkiError> {
        let mut files = self.files();
        files.extend(behind.iter().flat_map(files_of));
        Fresh::new(files, move || certified(&self, behind.as_ref(), &provider))
    }
}

/// Which certificates a server wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clients {
    /// None, and takes none.
    Unasked,
    /// One of these authorities', or none: then the client must prove otherwise who it is.
    Offered {
        /// They sign the clients' certificates.
        authorities: Pem,
    },
    /// One of these authorities'; who has none is refused.
    Required {
        /// They sign the clients' certificates.
        authorities: Pem,
        /// The certificate must name one of these as an organisation; empty: every certificate will do.
        organizations: Vec<String>,
    },
}

/// For a server, HTTP/2 and HTTP/1.1.
///
/// # Errors
/// Names the file that cannot be read or does not fit.
pub fn server(shown: Shown, clients: Clients) -> Result<Arc<ServerConfig>, PkiError> {
    server_of(shown, None, clients)
}

/// As [`server`], and shows the authority's own certificate, too, so that who knows its hash alone can tell it: see
/// [`pinned`].
///
/// # Errors
/// As [`server`].
pub fn server_of(
    shown: Shown,
    authority: Option<Pem>,
    clients: Clients,
) -> Result<Arc<ServerConfig>, PkiError> {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| PkiError::malformed("TLS", error.to_string()))?;
    let asks = clients != Clients::Unasked;
    let builder = match clients {
        Clients::Unasked => builder.with_no_client_auth(),
        Clients::Offered { authorities } => builder.with_client_cert_verifier(Arc::new(
            OfClients::new(authorities, false, Vec::new(), Arc::clone(&provider))?,
        )),
        Clients::Required { authorities, organizations } => builder.with_client_cert_verifier(
            Arc::new(OfClients::new(authorities, true, organizations, Arc::clone(&provider))?),
        ),
    };
    let resolver = Resolver(shown.fresh(authority, provider)?);
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    if asks {
        // A session that is resumed would go on with a certificate that has expired since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// For a client that trusts servers of these authorities, and shows a certificate if it has one.
///
/// # Errors
/// Names the file that cannot be read or does not fit.
pub fn client(authorities: Pem, shown: Option<Shown>) -> Result<Arc<ClientConfig>, PkiError> {
    let provider = Arc::new(default_provider());
    let verifier = OfServers::new(authorities, Arc::clone(&provider))?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| PkiError::malformed("TLS", error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(shown) => {
            builder.with_client_cert_resolver(Arc::new(Resolver(shown.fresh(None, provider)?)))
        }
    };
    // So that each connection shows, and checks, what holds now.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// For a client that knows of a cluster only the hash of its authority's key, `sha256:…`: it trusts the authority that
/// has it, which the server must show.
///
/// # Errors
/// It is no such hash.
pub fn pinned(hash: &str) -> Result<Arc<ClientConfig>, PkiError> {
    let hex = hash.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(PkiError::malformed(hash, "must read sha256: and 64 hexadecimal digits"));
    }
    let provider = Arc::new(default_provider());
    let verifier = Pinned { pin: hash.to_ascii_lowercase(), provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| PkiError::malformed("TLS", error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn certified(
    shown: &Shown,
    behind: Option<&Pem>,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, PkiError> {
    let (chain_origin, key_origin) = (shown.chain.origin(), shown.key.origin());
    let mut chain = certificates(&shown.chain.read()?, &chain_origin)?;
    if let Some(behind) = behind {
        for certificate in certificates(&behind.read()?, &behind.origin())? {
            if !chain.contains(&certificate) {
                chain.push(certificate);
            }
        }
    }
    let key = PrivateKeyDer::from_pem_slice(&shown.key.read()?)
        .map_err(|error| PkiError::malformed(&key_origin, format!("no key in it: {error}")))?;
    CertifiedKey::from_der(chain, key, provider).map(Arc::new).map_err(|error| {
        if matches!(error, Error::InconsistentKeys(_)) {
            PkiError::Mismatch { certificate: chain_origin, key: key_origin }
        } else {
            PkiError::malformed(&key_origin, error.to_string())
        }
    })
}

fn certificates(pem: &[u8], origin: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| PkiError::malformed(origin, format!("not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(PkiError::malformed(origin, "no certificate in it"));
    }
    Ok(chain)
}

fn roots(authorities: &Pem) -> Result<Arc<RootCertStore>, PkiError> {
    let origin = authorities.origin();
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&authorities.read()?, &origin)? {
        roots.add(certificate).map_err(|error| PkiError::malformed(&origin, error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

fn files_of(pem: &Pem) -> Vec<PathBuf> {
    pem.file().map(Path::to_owned).into_iter().collect()
}

#[derive(Debug)]
struct Resolver(Fresh<CertifiedKey>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.get())
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.get())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct OfServers(Fresh<Arc<WebPkiServerVerifier>>);

impl OfServers {
    fn new(authorities: Pem, provider: Arc<CryptoProvider>) -> Result<Self, PkiError> {
        let files = files_of(&authorities);
        let load = move || {
            let roots = roots(&authorities)?;
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .build()
                .map(Arc::new)
                .map_err(|error| PkiError::malformed(&authorities.origin(), error.to_string()))
        };
        Fresh::new(files, load).map(Self)
    }
}

impl ServerCertVerifier for OfServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verifier = self.0.get();
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
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

#[derive(Debug)]
struct Pinned {
    pin: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_meant = |der: &&CertificateDer<'_>| {
            crate::pin(der).is_ok_and(|pin| pin == self.pin)
                && Certificate::from_der(der, "it").is_ok_and(|found| found.is_authority)
        };
        let authority = intermediates.iter().find(is_meant).ok_or_else(|| {
            Error::General(format!("the server shows no authority with the hash {}", self.pin))
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct OfClients {
    verifier: Fresh<Arc<dyn ClientCertVerifier>>,
    required: bool,
    organizations: Vec<String>,
}

impl OfClients {
    fn new(
        authorities: Pem,
        required: bool,
        organizations: Vec<String>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, PkiError> {
        let files = files_of(&authorities);
        let load = move || {
            let roots = roots(&authorities)?;
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .build()
                .map(Arc::new)
                .map_err(|error| PkiError::malformed(&authorities.origin(), error.to_string()))
        };
        Ok(Self { verifier: Fresh::new(files, load)?, required, organizations })
    }

    fn admits(&self, certificate: &CertificateDer<'_>) -> bool {
        self.organizations.is_empty()
            || Certificate::from_der(certificate, "a client").is_ok_and(|certificate| {
                let named = certificate.profile.organizations;
                named.iter().any(|name| self.organizations.contains(name))
            })
    }
}

impl ClientCertVerifier for OfClients {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

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
        let verified = self.verifier.get().verify_client_cert(end_entity, intermediates, now)?;
        if self.admits(end_entity) {
            Ok(verified)
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.get().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.get().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.get().supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, Moment, Profile, Usage, write_secret};
    use rustls::{ClientConnection, ServerConnection};
    use std::time::Duration;

    /// The year 2020: rustls asks the wall clock, which is somewhere behind it.
    const THEN: Moment = Moment(1_577_836_800);
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    const HOUR: Duration = Duration::from_secs(3600);

    fn authority() -> Authority {
        Authority::create("kubernetes", THEN, CENTURY).unwrap()
    }

    fn bytes(text: &str) -> Pem {
        Pem::Bytes(text.as_bytes().to_vec())
    }

    fn shown(pem: &str) -> Shown {
        Shown { chain: bytes(pem), key: bytes(pem) }
    }

    /// Shakes hands in memory; who the server has seen, or the error of whoever has given up.
    fn shake(
        client: &Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
        name: &str,
    ) -> Result<Option<String>, Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        let seen = server.peer_certificates().and_then(|chain| chain.first());
        let seen = seen.map(|der| Certificate::from_der(der, "it").unwrap().profile.common_name);
        Ok(seen)
    }

    fn server_profile() -> Profile {
        Profile::server("kube-apiserver", vec!["localhost".to_owned(), "127.0.0.1".to_owned()])
    }

    #[test]
    fn who_is_let_in_and_who_is_trusted() {
        let (own, other) = (authority(), authority());
        let issue = |by: &Authority, profile: &Profile| by.issue(profile, THEN, CENTURY).unwrap();
        let past = |by: &Authority, profile: &Profile| by.issue(profile, THEN, HOUR).unwrap();
        let node = Profile::client("system:node:a", &["system:nodes"]);
        let peer = Profile { usage: Usage::PEER, ..Profile::client("r", &["trireme:replicas"]) };
        let served = issue(&own, &server_profile());
        let trust = || bytes(own.pem());
        let required = |organizations: &[&str]| Clients::Required {
            authorities: trust(),
            organizations: organizations.iter().map(|o| (*o).to_owned()).collect(),
        };
        let offered = || Clients::Offered { authorities: trust() };
        let rows = [
            (
                "shows one",
                served.clone(),
                offered(),
                Some(issue(&own, &node)),
                "localhost",
                Ok(Some("system:node:a")),
            ),
            ("by address", served.clone(), offered(), None, "127.0.0.1", Ok(None)),
            (
                "needs none",
                served.clone(),
                Clients::Unasked,
                Some(issue(&own, &node)),
                "localhost",
                Ok(None),
            ),
            (
                "has none",
                served.clone(),
                required(&[]),
                None,
                "localhost",
                Err("NoCertificatesPresented"),
            ),
            (
                "is foreign",
                served.clone(),
                offered(),
                Some(issue(&other, &node)),
                "localhost",
                Err("BadSignature"),
            ),
            (
                "has expired",
                served.clone(),
                offered(),
                Some(past(&own, &node)),
                "localhost",
                Err("Expired"),
            ),
            (
                "is a server's",
                served.clone(),
                offered(),
                Some(served.clone()),
                "localhost",
                Err("InvalidPurpose"),
            ),
            (
                "has the organisation",
                served.clone(),
                required(&["trireme:replicas"]),
                Some(issue(&own, &peer)),
                "localhost",
                Ok(Some("r")),
            ),
            (
                "has another",
                served.clone(),
                required(&["trireme:replicas"]),
                Some(issue(&own, &node)),
                "localhost",
                Err("ApplicationVerificationFailure"),
            ),
            ("another server", served, offered(), None, "example.org", Err("NotValidForName")),
            (
                "a foreign server",
                issue(&other, &server_profile()),
                offered(),
                None,
                "localhost",
                Err("BadSignature"),
            ),
            (
                "an expired server",
                past(&own, &server_profile()),
                offered(),
                None,
                "localhost",
                Err("Expired"),
            ),
            (
                "a client as a server",
                issue(&own, &Profile { hosts: vec!["localhost".to_owned()], ..node.clone() }),
                offered(),
                None,
                "localhost",
                Err("InvalidPurpose"),
            ),
        ];
        for (name, serves, clients, shows, host, want) in rows {
            let server = server(shown(&serves), clients).unwrap();
            let client = client(trust(), shows.as_deref().map(shown)).unwrap();
            match (shake(&client, &server, host), want) {
                (Ok(seen), Ok(want)) => assert_eq!(seen.as_deref(), want, "{name}"),
                (Err(error), Err(want)) => {
                    assert!(format!("{error:?}").contains(want), "{name}: {error:?}");
                }
                (found, want) => panic!("{name}: {found:?}, not {want:?}"),
            }
        }
    }

    #[test]
    fn a_file_that_is_written_anew_counts_from_the_next_handshake_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let (first, second) = (authority(), authority());
        let put = |name: &str, pem: &str| write_secret(&file(name), pem.as_bytes()).unwrap();
        let user = |by: &Authority, name: &str| {
            by.issue(&Profile::client(name, &[]), THEN, CENTURY).unwrap()
        };
        let serving = |by: &Authority| by.issue(&server_profile(), THEN, CENTURY).unwrap();
        put("ca", first.pem());
        put("server", &serving(&first));
        put("client", &user(&first, "one"));
        let trust = || Pem::File(file("ca"));
        let server = server(
            Shown::in_file(file("server")),
            Clients::Required { authorities: trust(), organizations: Vec::new() },
        )
        .unwrap();
        let client = client(trust(), Some(Shown::in_file(file("client")))).unwrap();
        let seen = || shake(&client, &server, "localhost");
        assert_eq!(seen().unwrap().as_deref(), Some("one"));
        put("client", &user(&first, "two"));
        assert_eq!(seen().unwrap().as_deref(), Some("two"));
        // What does not fit is passed over.
        put("client", first.pem());
        assert_eq!(seen().unwrap().as_deref(), Some("two"));
        put("client", &user(&second, "three"));
        seen().unwrap_err();
        put("ca", &format!("{}{}", first.pem(), second.pem()));
        assert_eq!(seen().unwrap().as_deref(), Some("three"));
        put("ca", second.pem());
        seen().unwrap_err();
        put("server", &serving(&second));
        assert_eq!(seen().unwrap().as_deref(), Some("three"));
    }

    #[test]
    fn an_authority_can_be_known_by_its_hash_alone() {
        let (own, other) = (authority(), authority());
        let served = own.issue(&server_profile(), THEN, CENTURY).unwrap();
        let foreign = other.issue(&server_profile(), THEN, CENTURY).unwrap();
        let own_pin = own.pin().unwrap();
        for (name, serves, shows, pin, host, want) in [
            ("shown", &served, Some(own.pem()), own_pin.clone(), "localhost", Ok(())),
            (
                "upper case",
                &served,
                Some(own.pem()),
                own_pin.to_uppercase().replace("SHA", "sha"),
                "localhost",
                Ok(()),
            ),
            ("not shown", &served, None, own_pin.clone(), "localhost", Err("shows no authority")),
            (
                "another's hash",
                &served,
                Some(own.pem()),
                other.pin().unwrap(),
                "localhost",
                Err("shows no authority"),
            ),
            // Anybody can show an authority whose key somebody else has.
            (
                "not of it",
                &foreign,
                Some(own.pem()),
                own_pin.clone(),
                "localhost",
                Err("BadSignature"),
            ),
            (
                "another host",
                &served,
                Some(own.pem()),
                own_pin,
                "example.org",
                Err("NotValidForName"),
            ),
        ] {
            let server = server_of(shown(serves), shows.map(bytes), Clients::Unasked).unwrap();
            match (shake(&pinned(&pin).unwrap(), &server, host), want) {
                (Ok(_), Ok(())) => {}
                (Err(error), Err(want)) => {
                    assert!(format!("{error:?}").contains(want), "{name}: {error:?}");
                }
                (found, want) => panic!("{name}: {found:?}, not {want:?}"),
            }
        }
        for wrong in ["", "sha256:", "abc", &"g".repeat(71)] {
            pinned(wrong).unwrap_err();
        }
    }

    #[test]
    fn a_file_that_does_not_fit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, pem: &str| {
            std::fs::write(dir.path().join(name), pem).unwrap();
            Pem::File(dir.path().join(name))
        };
        let own = authority();
        let pem = own.issue(&server_profile(), THEN, CENTURY).unwrap();
        let other = own.issue(&server_profile(), THEN, CENTURY).unwrap();
        let key = |pem: &str| pem[pem.find("-----BEGIN PRIVATE").unwrap()..].to_owned();
        for (chain, secret, want) in [
            (file("a", &pem), file("b", &key(&other)), "is not of the key in"),
            (file("empty", ""), file("c", &pem), "empty: no certificate in it"),
            (file("d", &pem), file("keyless", own.pem()), "keyless: no key in it"),
            (Pem::File(dir.path().join("nowhere")), file("e", &pem), "nowhere"),
        ] {
            let error = server(Shown { chain, key: secret }, Clients::Unasked).unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
        }
    }
}
