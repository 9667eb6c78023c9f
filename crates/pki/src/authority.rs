//! Who signs.

use crate::{
    Certificate, Moment, PkiError, Profile, certificate,
    certificate::{first, parse},
    files,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SerialNumber, SubjectPublicKeyInfo,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::CertificateDer;
use std::{path::Path, time::Duration};

/// Of what is signed, if nothing else is said: a year.
pub const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Of an authority: ten years.
pub const LIFETIME_OF_AUTHORITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The first of a certificate's lifetime is before it is signed, for whose clock is behind: so much, or a tenth
/// of it.
const EARLIER_MAX: Duration = Duration::from_secs(300);

/// A public key to sign for.
#[derive(Debug)]
pub struct Key(SubjectPublicKeyInfo);

impl Key {
    /// Of a certificate signing request, PEM: whoever made it holds the private key. Nothing else that it
    /// says counts.
    ///
    /// # Errors
    /// It is none, or its signature is wrong.
    pub fn of_request(pem: &str) -> Result<Self, PkiError> {
        let refused = |error: rcgen::Error| {
            PkiError::malformed("the certificate signing request", error.to_string())
        };
        let request = CertificateSigningRequestParams::from_pem(pem).map_err(refused)?;
        let key = request.public_key.subject_public_key_info();
        SubjectPublicKeyInfo::from_der(&key).map(Self).map_err(refused)
    }

    /// Of a private key, PEM.
    ///
    /// # Errors
    /// It is none.
    pub fn of_private(pem: &str) -> Result<Self, PkiError> {
        let refused =
            |error: rcgen::Error| PkiError::malformed("the private key", error.to_string());
        let pair = KeyPair::from_pem(pem).map_err(refused)?;
        SubjectPublicKeyInfo::from_der(&pair.subject_public_key_info()).map(Self).map_err(refused)
    }
}

/// A new private key, PEM (PKCS #8): EC P-256.
///
/// # Errors
/// There is no randomness.
pub fn new_key() -> Result<String, PkiError> {
    pair().map(|pair| pair.serialize_pem())
}

/// A certificate signing request, PEM, for a private key, PEM. The names are for people: whoever signs decides.
///
/// # Errors
/// It is no key.
pub fn request(key: &str, common_name: &str) -> Result<String, PkiError> {
    let refused = |error: rcgen::Error| unsigned(common_name, &error);
    let pair = KeyPair::from_pem(key).map_err(refused)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serialize_request(&pair).and_then(|request| request.pem()).map_err(refused)
}

fn pair() -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(|error| PkiError::malformed("a new key", error.to_string()))
}

fn unsigned(name: &str, problem: &impl ToString) -> PkiError {
    PkiError::Sign { name: name.to_owned(), problem: problem.to_string() }
}

/// A certificate that signs others, with its key.
pub struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    key: String,
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Authority").field(&self.certificate).finish()
    }
}

impl Authority {
    /// A new one, in memory.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn create(name: &str, now: Moment, lifetime: Duration) -> Result<Self, PkiError> {
        let key = pair()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        params.serial_number = Some(serial()?);
        let from = now.before(EARLIER_MAX.min(lifetime / 10));
        set_validity(&mut params, from, from.after(lifetime));
        let signed = params.self_signed(&key).map_err(|error| unsigned(name, &error))?;
        Self::new(&signed.pem(), &key.serialize_pem(), "the new authority", "its key")
    }

    /// The one in these files.
    ///
    /// # Errors
    /// Names the file that cannot be read, is no authority, or does not fit the other.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        let text = |path: &Path| {
            let bytes = files::read(path)?;
            String::from_utf8(bytes)
                .map_err(|_| PkiError::malformed(&path.display().to_string(), "no PEM"))
        };
        let (pem, secret) = (text(certificate)?, text(key)?);
        Self::new(&pem, &secret, &certificate.display().to_string(), &key.display().to_string())
    }

    /// # Errors
    /// As [`Authority::load`]; the files' names are for the error.
    pub fn new(pem: &str, key: &str, pem_origin: &str, key_origin: &str) -> Result<Self, PkiError> {
        let der = first(pem.as_bytes(), pem_origin)?;
        let certificate = Certificate::from_der(&der, pem_origin)?;
        if !certificate.is_authority {
            return Err(PkiError::malformed(pem_origin, "it is no authority's"));
        }
        let pair = KeyPair::from_pem(key)
            .map_err(|error| PkiError::malformed(key_origin, format!("no key: {error}")))?;
        if parse(&der, pem_origin)?.public_key().raw != pair.subject_public_key_info() {
            return Err(PkiError::Mismatch {
                certificate: pem_origin.to_owned(),
                key: key_origin.to_owned(),
            });
        }
        let issuer = Issuer::from_ca_cert_der(&der, pair)
            .map_err(|error| PkiError::malformed(pem_origin, error.to_string()))?;
        Ok(Self { pem: pem.to_owned(), der, key: key.to_owned(), certificate, issuer })
    }

    /// The one in these files, or a new one that is put there. What is there is never written over.
    ///
    /// # Errors
    /// As [`Authority::load`]; or a file cannot be written, or only one of the two is there.
    pub fn open(
        certificate: &Path,
        key: &Path,
        now: Moment,
        lifetime: Duration,
    ) -> Result<Self, PkiError> {
        if certificate.exists() || key.exists() {
            return Self::load(certificate, key);
        }
        let new = Self::create(crate::names::AUTHORITY, now, lifetime)?;
        // The key first: with a certificate alone, another start could not go on.
        files::create_secret(key, new.key.as_bytes())?;
        if let Err(error) = files::write_public(certificate, new.pem.as_bytes()) {
            // Nobody has signed with it.
            let _ = std::fs::remove_file(key);
            return Err(error);
        }
        Ok(new)
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its private key, PEM.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key
    }

    /// What its certificate says.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// See [`crate::pin`].
    ///
    /// # Errors
    /// Never for a certificate that could be read.
    pub fn pin(&self) -> Result<String, PkiError> {
        certificate::pin(&self.der)
    }

    /// A certificate, PEM; not valid longer than this authority.
    ///
    /// # Errors
    /// A name does not fit into a certificate.
    pub fn sign(
        &self,
        profile: &Profile,
        key: &Key,
        now: Moment,
        lifetime: Duration,
    ) -> Result<String, PkiError> {
        let refused = |error: rcgen::Error| unsigned(&profile.common_name, &error);
        let mut params = CertificateParams::new(profile.hosts.clone()).map_err(refused)?;
        params.distinguished_name = DistinguishedName::new();
        // rcgen keeps one value of a type: the others would be lost without a word.
        if profile.organizations.len() > 1 {
            return Err(unsigned(&profile.common_name, &"more than one organisation"));
        }
        for organization in &profile.organizations {
            params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
        }
        params.distinguished_name.push(DnType::CommonName, profile.common_name.as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let usages = [
            (profile.usage.server, ExtendedKeyUsagePurpose::ServerAuth),
            (profile.usage.client, ExtendedKeyUsagePurpose::ClientAuth),
        ];
        params.extended_key_usages =
            usages.into_iter().filter(|(wanted, _)| *wanted).map(|(_, usage)| usage).collect();
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        let from = now.before(EARLIER_MAX.min(lifetime / 10)).max(self.certificate.not_before);
        set_validity(&mut params, from, from.after(lifetime).min(self.certificate.not_after));
        params.signed_by(&key.0, &self.issuer).map(|signed| signed.pem()).map_err(refused)
    }

    /// A certificate with a new key, both PEM in one: what a file holds that is read at once.
    ///
    /// # Errors
    /// As [`Authority::sign`].
    pub fn issue(
        &self,
        profile: &Profile,
        now: Moment,
        lifetime: Duration,
    ) -> Result<String, PkiError> {
        let key = new_key()?;
        let certificate = self.sign(profile, &Key::of_private(&key)?, now, lifetime)?;
        Ok(certificate + &key)
    }

    /// Whether this authority has signed a certificate (PEM, the first in it), whenever; what it says.
    ///
    /// # Errors
    /// Another has signed it, or it signs others.
    pub fn of_own(&self, pem: &[u8]) -> Result<Certificate, PkiError> {
        let origin = "the certificate";
        let der = first(pem, origin)?;
        let found = Certificate::from_der(&der, origin)?;
        let refused =
            |problem| PkiError::Refused { name: found.profile.common_name.clone(), problem };
        let (signed, authority) = (parse(&der, origin)?, parse(&self.der, origin)?);
        if signed.verify_signature(Some(authority.public_key())).is_err() {
            return Err(refused("was not signed by this cluster's authority"));
        }
        if found.is_authority {
            return Err(refused("is an authority's"));
        }
        Ok(found)
    }

    /// As [`Authority::of_own`], for a certificate that is valid now.
    ///
    /// # Errors
    /// Or it is not valid now.
    pub fn check(&self, pem: &[u8], now: Moment) -> Result<Certificate, PkiError> {
        let found = self.of_own(pem)?;
        let refused =
            |problem| PkiError::Refused { name: found.profile.common_name.clone(), problem };
        if now > found.not_after {
            return Err(refused("has expired"));
        }
        if now < found.not_before {
            return Err(refused("is not valid yet"));
        }
        Ok(found)
    }
}

/// # Errors
/// There is no randomness.
pub fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|error| PkiError::malformed("random bytes", error.to_string()))?;
    Ok(bytes)
}

/// A positive number of 127 bits.
fn serial() -> Result<SerialNumber, PkiError> {
    let mut bytes: [u8; 16] = random()?;
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

/// The last second that a certificate can name.
const LAST: Moment = Moment(253_402_300_799);

fn set_validity(params: &mut CertificateParams, from: Moment, to: Moment) {
    // The type is of a crate that rcgen does not name: reached by counting from one.
    let date = |moment: Moment| {
        let seconds = u64::try_from(moment.min(LAST).0).unwrap_or_default();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    (params.not_before, params.not_after) = (date(from), date(to));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Usage;

    const NOW: Moment = Moment(1_795_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    /// Made a day ago.
    fn authority() -> Authority {
        Authority::create("kubernetes", NOW.before(HOUR * 24), LIFETIME_OF_AUTHORITY).unwrap()
    }

    fn text(error: &PkiError) -> String {
        error.to_string()
    }

    #[test]
    fn a_certificate_says_what_it_was_signed_for() {
        let authority = authority();
        for profile in [
            Profile::client("system:node:node-1", &["system:nodes"]),
            Profile::client("alice", &[]),
            Profile::server(
                "kube-apiserver",
                ["kubernetes.default.svc", "127.0.0.1", "::1", "10.96.0.1"]
                    .map(str::to_owned)
                    .into(),
            ),
            Profile {
                usage: Usage::PEER,
                hosts: vec!["replica-1".to_owned()],
                ..Profile::client("trireme:replica:replica-1", &["trireme:replicas"])
            },
        ] {
            let pem = authority.issue(&profile, NOW, HOUR).unwrap();
            let found = Certificate::from_pem(pem.as_bytes(), "it").unwrap();
            assert_eq!(found.profile, profile);
            assert_eq!((found.issuer.as_str(), found.is_authority), ("kubernetes", false));
            assert_eq!((found.not_before, found.lifetime()), (NOW.before(HOUR / 12), HOUR));
            assert_eq!(authority.check(pem.as_bytes(), NOW).unwrap(), found);
        }
    }

    #[test]
    fn it_is_due_after_two_thirds_of_its_lifetime() {
        let authority = authority();
        for (lifetime, renewal) in [(3600, 2400 - 300), (60, 40 - 6), (6, 4)] {
            let lifetime = Duration::from_secs(lifetime);
            let pem = authority.issue(&Profile::client("a", &[]), NOW, lifetime).unwrap();
            let found = Certificate::from_pem(pem.as_bytes(), "it").unwrap();
            assert_eq!(found.lifetime(), lifetime);
            assert_eq!(found.renewal(), NOW.after(Duration::from_secs(renewal)));
        }
    }

    #[test]
    fn nothing_outlives_its_authority() {
        let authority = Authority::create("kubernetes", NOW, HOUR).unwrap();
        let pem = authority.issue(&Profile::client("a", &[]), NOW, LIFETIME).unwrap();
        let found = Certificate::from_pem(pem.as_bytes(), "it").unwrap();
        assert_eq!(found.not_after, authority.certificate().not_after);
        let far = Authority::create("a", NOW, Duration::from_secs(u64::MAX)).unwrap();
        assert_eq!(far.certificate().not_after, LAST);
    }

    #[test]
    fn what_another_has_signed_is_refused_and_what_is_out_of_its_time() {
        let (authority, other) = (authority(), authority());
        let pem = authority.issue(&Profile::client("a", &[]), NOW, HOUR).unwrap();
        let foreign = other.issue(&Profile::client("a", &[]), NOW, HOUR).unwrap();
        let day = HOUR * 24;
        for (name, pem, at, want) in [
            ("foreign", foreign.as_str(), NOW, "was not signed by this cluster's authority"),
            ("the authority's own", authority.pem(), NOW, "is an authority's"),
            ("late", &pem, NOW.after(day), "has expired"),
            ("early", &pem, NOW.before(day), "is not valid yet"),
            ("none", "nothing", NOW, "no certificate in it"),
        ] {
            let error = text(&authority.check(pem.as_bytes(), at).unwrap_err());
            assert!(error.contains(want), "{name}: {error}");
        }
    }

    #[test]
    fn only_the_key_of_a_request_counts() {
        let authority = authority();
        let key = new_key().unwrap();
        let asked = request(&key, "system:masters").unwrap();
        let profile = Profile::client("system:node:a", &["system:nodes"]);
        let signed =
            authority.sign(&profile, &Key::of_request(&asked).unwrap(), NOW, HOUR).unwrap();
        assert_eq!(Certificate::from_pem(signed.as_bytes(), "it").unwrap().profile, profile);
        let der = first(signed.as_bytes(), "it").unwrap();
        let pair = KeyPair::from_pem(&key).unwrap();
        let found = parse(&der, "it").unwrap();
        assert_eq!(found.public_key().raw, pair.subject_public_key_info());
        // A request that somebody else could have made of a public key.
        let at = asked.len() / 2;
        let broken: String = asked
            .char_indices()
            .map(|(i, c)| if i == at { if c == 'A' { 'B' } else { 'A' } } else { c })
            .collect();
        for wrong in [broken.as_str(), "", "-----BEGIN CERTIFICATE REQUEST-----"] {
            let error = text(&Key::of_request(wrong).unwrap_err());
            assert!(error.contains("the certificate signing request"), "{error}");
        }
    }

    #[test]
    fn an_authority_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("ca.crt"), dir.path().join("ca.key"));
        let open = || Authority::open(&certificate, &key, NOW, HOUR);
        let pin = open().unwrap().pin().unwrap();
        assert_eq!(open().unwrap().pin().unwrap(), pin);
        assert!(pin.starts_with("sha256:") && pin.len() == 71, "{pin}");
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let others = authority();
        std::fs::write(&key, others.key_pem()).unwrap();
        let error = text(&open().unwrap_err());
        assert!(error.contains("is not of the key in"), "{error}");
        std::fs::remove_file(&key).unwrap();
        let error = text(&open().unwrap_err());
        assert!(error.contains("ca.key"), "{error}");
        assert!(!key.exists());
        let leaf = others.issue(&Profile::client("a", &[]), NOW, HOUR).unwrap();
        std::fs::write(&certificate, &leaf).unwrap();
        std::fs::write(&key, &leaf).unwrap();
        let error = text(&open().unwrap_err());
        assert!(error.contains("it is no authority's"), "{error}");
    }

    #[test]
    fn what_a_certificate_cannot_hold_is_an_error() {
        let authority = authority();
        let two = Profile::client("a", &["b", "c"]);
        let host = Profile::server("a", vec!["ü".to_owned()]);
        for profile in [two, host] {
            let error = text(&authority.issue(&profile, NOW, HOUR).unwrap_err());
            assert!(error.starts_with("sign for \"a\": "), "{error}");
        }
    }
}
