//! Certificates are replaced before they expire: files are written, and whoever shows them follows the files.

use crate::{clock, kubeconfig, tls::Files};
use anyhow::Context as _;
use client::endpoints::Endpoints;
use pki::{Authority, Certificate, Moment};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::sleep;

/// Between two looks at the files, however long they are valid: somebody else may replace them, and clocks are
/// set.
const LOOK: Duration = Duration::from_secs(600);
/// Between two looks at certificates that are valid for seconds.
const LOOK_MIN: Duration = Duration::from_millis(200);
/// After a failure; sooner if the certificate is valid for less than half an hour.
const AGAIN: Duration = Duration::from_secs(60);

/// Who signs.
pub(crate) enum Signer {
    /// The authority, whose key this process has.
    Own(Arc<Authority>),
    /// A replica that has it.
    Replicas(Endpoints),
}

/// Where a certificate is kept, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    /// In PEM.
    Files(Files),
    /// A client's: both in one file, which may be a kubeconfig.
    Client(PathBuf),
}

impl Kept {
    fn path(&self) -> &Path {
        match self {
            Self::Files(files) => &files.certificate,
            Self::Client(path) => path,
        }
    }

    fn is_together(&self) -> bool {
        match self {
            Self::Files(files) => files.certificate == files.key,
            Self::Client(_) => true,
        }
    }

    /// The certificate, PEM.
    fn pem(&self) -> anyhow::Result<Vec<u8>> {
        let bytes = pki::read(self.path())?;
        match self {
            Self::Client(path) if !is_pem(&bytes) => {
                kubeconfig::certificate(&String::from_utf8_lossy(&bytes))
                    .with_context(|| format!("read {}", path.display()))
            }
            Self::Client(_) | Self::Files(_) => Ok(bytes),
        }
    }

    /// Takes up a new certificate, with its key where both are in one file.
    fn write(&self, certificate: &str, key: &str) -> anyhow::Result<()> {
        let path = self.path();
        if !self.is_together() {
            return Ok(pki::write_public(path, certificate.as_bytes())?);
        }
        let shown = format!("{certificate}{key}");
        let before = pki::read(path)?;
        let text = match self {
            Self::Client(_) if !is_pem(&before) => {
                kubeconfig::renewed(&String::from_utf8_lossy(&before), &shown)?
            }
            Self::Client(_) | Self::Files(_) => shown,
        };
        Ok(pki::write_secret(path, text.as_bytes())?)
    }
}

fn is_pem(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"-----BEGIN ")
}

/// Renews these for ever.
///
/// # Errors
/// Never: what fails is tried again.
pub(crate) async fn keep(all: Vec<Kept>, signer: Signer) -> anyhow::Result<()> {
    loop {
        let mut rest = LOOK;
        for kept in &all {
            rest = rest.min(look(kept, &signer).await);
        }
        sleep(rest.max(LOOK_MIN)).await;
    }
}

/// Until the next look at one of them.
async fn look(kept: &Kept, signer: &Signer) -> Duration {
    match read(kept, signer) {
        Ok(Some(found)) if found.renewal() > now() => found.renewal().since(now()),
        Ok(Some(found)) => match renew(kept, &found, signer).await {
            Ok(new) => {
                tracing::info!(
                    file = %kept.path().display(),
                    not_after = new.not_after.0,
                    "certificate renewed"
                );
                new.renewal().since(now())
            }
            Err(error) => {
                let file = kept.path().display();
                tracing::warn!(%file, not_after = found.not_after.0, "not renewed: {error:#}");
                AGAIN.min(found.lifetime() / 30)
            }
        },
        Ok(None) => LOOK,
        Err(error) => {
            tracing::warn!("{error:#}");
            AGAIN
        }
    }
}

fn now() -> Moment {
    clock::moment()
}

/// What is there; `None` if somebody else has signed it, and so is to renew it, or a client has taken it away.
fn read(kept: &Kept, signer: &Signer) -> anyhow::Result<Option<Certificate>> {
    if matches!(kept, Kept::Client(path) if !path.exists()) {
        return Ok(None);
    }
    let pem = kept.pem()?;
    match signer {
        Signer::Own(authority) => Ok(authority.of_own(&pem).ok()),
        Signer::Replicas(_) => {
            let origin = kept.path().display().to_string();
            Ok(Some(Certificate::from_pem(&pem, &origin)?))
        }
    }
}

async fn renew(kept: &Kept, old: &Certificate, signer: &Signer) -> anyhow::Result<Certificate> {
    let key = match kept {
        // Two files cannot be replaced at once: then the key stays.
        Kept::Files(files) if !kept.is_together() => {
            String::from_utf8(pki::read(&files.key)?).context("the key is not PEM")?
        }
        Kept::Files(_) | Kept::Client(_) => pki::new_key()?,
    };
    let certificate = match signer {
        Signer::Own(authority) => {
            let public = pki::Key::of_private(&key)?;
            authority.sign(&old.profile, &public, now(), old.lifetime())?
        }
        Signer::Replicas(endpoints) => {
            let old_pem = pki::certificate_pem(&kept.pem()?, "it")?;
            let request = pki::request(&key, &old.profile.common_name)?;
            client::certificates::renew(endpoints, &old_pem, &request).await?
        }
    };
    let new = Certificate::from_pem(certificate.as_bytes(), "the new certificate")?;
    let kept = kept.clone();
    world::blocking(move || kept.write(&certificate, &key)).await.context("write it")??;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pki::{Profile, Usage};

    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    const THEN: Moment = Moment(1_577_836_800);

    fn authority() -> Authority {
        Authority::create("kubernetes", THEN, CENTURY).unwrap()
    }

    #[tokio::test]
    async fn what_is_due_is_renewed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (authority(), authority());
        let profile =
            Profile { usage: Usage::PEER, ..Profile::server("r", vec!["127.0.0.1".to_owned()]) };
        let hour = Duration::from_secs(3600);
        let put = |name: &str, pem: &str| {
            let file = dir.path().join(name);
            pki::write_secret(&file, pem.as_bytes()).unwrap();
            file
        };
        let issue =
            |by: &Authority, at: Moment, lifetime| by.issue(&profile, at, lifetime).unwrap();
        let due = put("due", &issue(&own, now().before(hour), hour + hour / 4));
        let expired = put("expired", &issue(&own, THEN, hour));
        let fresh = put("fresh", &issue(&own, now(), hour));
        let foreign = put("foreign", &issue(&other, THEN, hour));
        let apart = issue(&own, THEN, hour);
        let at = apart.find("-----BEGIN PRIVATE").unwrap();
        let (certificate, key) = (put("crt", &apart[..at]), put("key", &apart[at..]));
        let signer = Signer::Own(Arc::new(own));
        let files = |certificate: &PathBuf, key: &PathBuf| {
            Kept::Files(Files { certificate: certificate.clone(), key: key.clone() })
        };
        for (kept, key, renewed) in [
            (files(&due, &due), &due, true),
            (files(&expired, &expired), &expired, true),
            (files(&fresh, &fresh), &fresh, false),
            (files(&foreign, &foreign), &foreign, false),
            (files(&certificate, &key), &key, true),
        ] {
            let certificate = kept.path();
            let before = pki::read(certificate).unwrap();
            let secret = pki::read(key).unwrap();
            let rest = look(&kept, &signer).await;
            let after = pki::read(certificate).unwrap();
            assert_eq!(before != after, renewed, "{}", certificate.display());
            assert!(rest > LOOK_MIN, "{}: {rest:?}", certificate.display());
            if !renewed {
                continue;
            }
            let old = Certificate::from_pem(&before, "old").unwrap();
            let new = Certificate::from_pem(&after, "new").unwrap();
            assert_eq!(new.profile, old.profile);
            assert_eq!(new.lifetime(), old.lifetime());
            assert!(new.renewal() > now());
            if kept.is_together() {
                assert_ne!(secret, after, "a new key");
            } else {
                assert_eq!(secret, pki::read(key).unwrap(), "the same key");
            }
            // It can be shown.
            let shown = pki::tls::Shown {
                chain: pki::tls::Pem::File(certificate.to_owned()),
                key: pki::tls::Pem::File(key.clone()),
            };
            pki::tls::server(shown, pki::tls::Clients::Unasked).unwrap();
        }
    }

    #[tokio::test]
    async fn a_clients_certificate_is_renewed_in_its_kubeconfig() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        let (own, other) = (authority(), authority());
        let profile = Profile::client("kubernetes-admin", &["system:masters"]);
        let hour = Duration::from_secs(3600);
        let write = |by: &Authority, at: Moment| {
            let shown = by.issue(&profile, at, hour).unwrap();
            let text = kubeconfig::kubeconfig("c", "https://r:6443", Some((by.pem(), &shown)));
            // Somebody has added to it.
            let text =
                text.replace("current-context: c", "current-context: c\npreferences: {a: b}");
            pki::write_secret(&path, text.as_bytes()).unwrap();
            text
        };
        let read = || String::from_utf8(pki::read(&path).unwrap()).unwrap();
        let kept = Kept::Client(path.clone());
        let foreign = write(&other, THEN);
        let fresh = write(&own, now());
        let own = Arc::new(own);
        let signer = Signer::Own(Arc::clone(&own));
        for text in [&foreign, &fresh] {
            pki::write_secret(&path, text.as_bytes()).unwrap();
            look(&kept, &signer).await;
            assert_eq!(read(), *text, "not due, or not ours");
        }
        let expired = write(&own, THEN);
        assert!(look(&kept, &signer).await > LOOK_MIN);
        let new = Certificate::from_pem(&kept.pem().unwrap(), "new").unwrap();
        assert_eq!(new.profile, profile);
        assert!(new.renewal() > now());
        let [(before, old_key), (after, new_key)] = [&expired, &read()].map(|text| {
            let mut config: serde_json::Value = serde_yaml_ng::from_str(text).unwrap();
            let user = config["users"][0]["user"].take();
            (config, user["client-key-data"].as_str().unwrap().to_owned())
        });
        assert_ne!(old_key, new_key);
        assert_eq!(before, after, "all else is as it was");
        // Who has taken it elsewhere is left in peace.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(look(&kept, &signer).await, LOOK);
    }
}
