//! What a certificate says.

use crate::PkiError;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::{fmt::Write as _, net::IpAddr, time::Duration};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

/// Seconds since the Unix epoch: the caller's clock, or a bound that a certificate names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

impl Moment {
    /// So much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(time.as_secs()).unwrap_or(i64::MAX)))
    }

    /// So much earlier.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(time.as_secs()).unwrap_or(i64::MAX)))
    }

    /// From `earlier` until this; zero if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or_default())
    }
}

/// What a certificate may be shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// By a server to its clients.
    pub server: bool,
    /// By a client to servers.
    pub client: bool,
}

impl Usage {
    /// Only by a server.
    pub const SERVER: Self = Self { server: true, client: false };
    /// Only by a client.
    pub const CLIENT: Self = Self { server: false, client: true };
    /// Both.
    pub const PEER: Self = Self { server: true, client: true };
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.server, self.client) {
            (true, true) => "server,client",
            (true, false) => "server",
            (false, true) => "client",
            (false, false) => "none",
        })
    }
}

/// Whom a certificate is for, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// `CN`: the user, where it is shown by a client.
    pub common_name: String,
    /// Each `O`: the user's groups.
    pub organizations: Vec<String>,
    /// DNS names and IP addresses of a server.
    pub hosts: Vec<String>,
    /// What for.
    pub usage: Usage,
}

impl Profile {
    /// A user.
    #[must_use]
    pub fn client(name: impl Into<String>, organizations: &[&str]) -> Self {
        Self {
            common_name: name.into(),
            organizations: organizations.iter().map(|name| (*name).to_owned()).collect(),
            hosts: Vec::new(),
            usage: Usage::CLIENT,
        }
    }

    /// A server.
    #[must_use]
    pub fn server(name: impl Into<String>, hosts: Vec<String>) -> Self {
        Self { common_name: name.into(), organizations: Vec::new(), hosts, usage: Usage::SERVER }
    }
}

/// A certificate as it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whom and what for.
    pub profile: Profile,
    /// `CN` of who has signed it.
    pub issuer: String,
    /// It signs others.
    pub is_authority: bool,
    /// Valid from then on.
    pub not_before: Moment,
    /// And up to then.
    pub not_after: Moment,
    /// SHA-256 over all of it, in hex.
    pub sha256: String,
}

impl Certificate {
    /// The first certificate in PEM; `origin` is for the error.
    ///
    /// # Errors
    /// There is none.
    pub fn from_pem(pem: &[u8], origin: &str) -> Result<Self, PkiError> {
        Self::from_der(&first(pem, origin)?, origin)
    }

    /// `origin` is for the error.
    ///
    /// # Errors
    /// It is no certificate.
    pub fn from_der(der: &[u8], origin: &str) -> Result<Self, PkiError> {
        let parsed = parse(der, origin)?;
        let text = |value: &str| value.to_owned();
        let name = |found: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
            found.and_then(|name| name.as_str().ok()).map(text).unwrap_or_default()
        };
        let usage = parsed.extended_key_usage().ok().flatten();
        let alternatives = parsed.subject_alternative_name().ok().flatten();
        let hosts = alternatives.iter().flat_map(|names| &names.value.general_names);
        let profile = Profile {
            common_name: name(parsed.subject().iter_common_name().next()),
            organizations: parsed
                .subject()
                .iter_organization()
                .filter_map(|name| name.as_str().ok())
                .map(text)
                .collect(),
            hosts: hosts.filter_map(host).collect(),
            usage: Usage {
                server: usage.as_ref().is_some_and(|usage| usage.value.server_auth),
                client: usage.as_ref().is_some_and(|usage| usage.value.client_auth),
            },
        };
        Ok(Self {
            profile,
            issuer: name(parsed.issuer().iter_common_name().next()),
            is_authority: parsed.is_ca(),
            not_before: Moment(parsed.validity().not_before.timestamp()),
            not_after: Moment(parsed.validity().not_after.timestamp()),
            sha256: hex(digest(&SHA256, der).as_ref()),
        })
    }

    /// From its beginning to its end.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.not_after.since(self.not_before)
    }

    /// When it should be replaced: after two thirds of its lifetime.
    #[must_use]
    pub fn renewal(&self) -> Moment {
        self.not_before.after(self.lifetime() * 2 / 3)
    }
}

/// Other names than these two are for no server.
fn host(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = name {
        return Some((*name).to_owned());
    }
    let GeneralName::IPAddress(bytes) = name else { return None };
    let v4: Option<[u8; 4]> = (*bytes).try_into().ok();
    let v6: Option<[u8; 16]> = (*bytes).try_into().ok();
    v4.map(IpAddr::from).or_else(|| v6.map(IpAddr::from)).map(|ip| ip.to_string())
}

/// The public key of an authority as kubeadm names it: `sha256:` and the hash of its
/// SubjectPublicKeyInfo, in hex.
///
/// # Errors
/// It is no certificate.
pub fn pin(der: &[u8]) -> Result<String, PkiError> {
    let parsed = parse(der, "the authority's certificate")?;
    Ok(format!("sha256:{}", hex(digest(&SHA256, parsed.public_key().raw).as_ref())))
}

/// As [`pin`], of the first certificate in PEM.
///
/// # Errors
/// There is none.
pub fn pin_of_pem(pem: &[u8], origin: &str) -> Result<String, PkiError> {
    pin(&first(pem, origin)?)
}

pub(crate) fn parse<'a>(der: &'a [u8], origin: &str) -> Result<X509Certificate<'a>, PkiError> {
    let parsed = X509Certificate::from_der(der);
    let (rest, parsed) =
        parsed.map_err(|error| PkiError::malformed(origin, format!("no certificate: {error}")))?;
    if !rest.is_empty() {
        return Err(PkiError::malformed(origin, "bytes behind the certificate"));
    }
    Ok(parsed)
}

/// The first certificate in PEM.
pub(crate) fn first(pem: &[u8], origin: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem)
        .map_err(|error| PkiError::malformed(origin, format!("no certificate in it: {error}")))
}

/// The first certificate in PEM, alone: without a key that may be beside it.
///
/// # Errors
/// There is none.
pub fn certificate_pem(pem: &[u8], origin: &str) -> Result<String, PkiError> {
    let der = first(pem, origin)?;
    let text = BASE64_STANDARD.encode(&der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let body = lines.fold(String::new(), |body, line| body + &line + "\n");
    Ok(format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
