//! Certificates are replaced before they expire: files are written, and whoever shows them follows the files.

use crate::{clock, tls::Files};
use anyhow::Context as _;
use client::endpoints::Endpoints;
use pki::{Authority, Certificate, Moment};
use std::{sync::Arc, time::Duration};
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

/// Renews these for ever.
///
/// # Errors
/// Never: what fails is tried again.
pub(crate) async fn keep(files: Vec<Files>, signer: Signer) -> anyhow::Result<()> {
    loop {
        let mut rest = LOOK;
        for files in &files {
            rest = rest.min(look(files, &signer).await);
        }
        sleep(rest.max(LOOK_MIN)).await;
    }
}

/// Until the next look at one of them.
async fn look(files: &Files, signer: &Signer) -> Duration {
    match read(files, signer) {
        Ok(Some(found)) if found.renewal() > now() => found.renewal().since(now()),
        Ok(Some(found)) => match renew(files, &found, signer).await {
            Ok(new) => {
                tracing::info!(
                    file = %files.certificate.display(),
                    not_after = new.not_after.0,
                    "certificate renewed"
                );
                new.renewal().since(now())
            }
            Err(error) => {
                let file = files.certificate.display();
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

/// What is there; `None` if somebody else has signed it, and so is to renew it.
fn read(files: &Files, signer: &Signer) -> anyhow::Result<Option<Certificate>> {
    let pem = pki::read(&files.certificate)?;
    match signer {
        Signer::Own(authority) => Ok(authority.of_own(&pem).ok()),
        Signer::Replicas(_) => {
            let origin = files.certificate.display().to_string();
            Ok(Some(Certificate::from_pem(&pem, &origin)?))
        }
    }
}

async fn renew(files: &Files, old: &Certificate, signer: &Signer) -> anyhow::Result<Certificate> {
    // Two files cannot be replaced at once: then the key stays.
    let together = files.certificate == files.key;
    let key = if together {
        pki::new_key()?
    } else {
        String::from_utf8(pki::read(&files.key)?).context("the key is not PEM")?
    };
    let certificate = match signer {
        Signer::Own(authority) => {
            let public = pki::Key::of_private(&key)?;
            authority.sign(&old.profile, &public, now(), old.lifetime())?
        }
        Signer::Replicas(endpoints) => {
            let old_pem = pki::certificate_pem(&pki::read(&files.certificate)?, "it")?;
            let request = pki::request(&key, &old.profile.common_name)?;
            client::certificates::renew(endpoints, &old_pem, &request).await?
        }
    };
    let new = Certificate::from_pem(certificate.as_bytes(), "the new certificate")?;
    let (path, bytes) = (files.certificate.clone(), certificate);
    let write = move || {
        if together {
            pki::write_secret(&path, (bytes + &key).as_bytes())
        } else {
            pki::write_public(&path, bytes.as_bytes())
        }
    };
    world::blocking(write).await.context("write it")??;
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
        for (certificate, key, renewed) in [
            (&due, &due, true),
            (&expired, &expired, true),
            (&fresh, &fresh, false),
            (&foreign, &foreign, false),
            (&certificate, &key, true),
        ] {
            let files = Files { certificate: certificate.clone(), key: key.clone() };
            let before = pki::read(certificate).unwrap();
            let secret = pki::read(key).unwrap();
            let rest = look(&files, &signer).await;
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
            if certificate == key {
                assert_ne!(secret, after, "a new key");
            } else {
                assert_eq!(secret, pki::read(key).unwrap(), "the same key");
            }
            // It can be shown.
            let shown = pki::tls::Shown {
                chain: pki::tls::Pem::File(certificate.clone()),
                key: pki::tls::Pem::File(key.clone()),
            };
            pki::tls::server(shown, pki::tls::Clients::Unasked).unwrap();
        }
    }
}
