//! Who asks: by a client certificate, or by a token.

use super::{
    Guard,
    tokens::{self, Claims, ISSUER},
};
use api::{
    bootstrap::{self, Token},
    caller::Identity,
    kinds::{self, Kind},
    meta,
};
use axum::http::{HeaderMap, HeaderValue, header};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use listen::PeerCertificates;
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// In place of a header, a browser's WebSocket names its token as a protocol that begins like this.
const PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Credentials that are not good; why, for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unauthenticated(pub(super) String);

fn unauthenticated<T>(why: impl Into<String>) -> Result<T, Unauthenticated> {
    Err(Unauthenticated(why.into()))
}

/// Certificates that are remembered; more are read anew.
const CERTIFICATES: usize = 4096;

/// What a certificate says.
#[derive(Debug)]
struct Certified {
    /// `None` if it names nobody.
    who: Option<Identity>,
    /// Seconds since the Unix epoch, both included.
    valid: RangeInclusive<i64>,
}

impl Certified {
    fn read(der: &[u8]) -> Result<Self, Unauthenticated> {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return unauthenticated("the certificate cannot be read");
        };
        let validity = certificate.validity();
        let valid = validity.not_before.timestamp()..=validity.not_after.timestamp();
        let subject = certificate.subject();
        let user = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        let Some(user) = user.filter(|user| !user.is_empty()) else {
            return Ok(Self { who: None, valid });
        };
        let groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
        let mut who = Identity::new(user, &groups.collect::<Vec<_>>());
        let mut id = "X509SHA256=".to_owned();
        for byte in Sha256::digest(der) {
            let _ = write!(id, "{byte:02x}");
        }
        who.extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![id]);
        Ok(Self { who: Some(who), valid })
    }
}

/// Certificates that requests have come with: each is read once, though each request looks whether it is
/// still valid, for connections outlive certificates.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    known: Mutex<BTreeMap<Vec<u8>, Arc<Certified>>>,
}

impl Certificates {
    /// The user that a verified certificate names; `None` if it names nobody.
    pub(super) fn certified(
        &self,
        shown: &PeerCertificates,
        now: i64,
    ) -> Result<Option<Identity>, Unauthenticated> {
        let Some(der) = shown.first() else { return Ok(None) };
        let found = self.read(der)?;
        if !found.valid.contains(&now) {
            return unauthenticated("the certificate has expired, or is not valid yet");
        }
        Ok(found.who.clone())
    }

    fn read(&self, der: &[u8]) -> Result<Arc<Certified>, Unauthenticated> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known().get(der) {
            return Ok(Arc::clone(found));
        }
        let read = Arc::new(Certified::read(der)?);
        let mut known = known();
        if known.len() >= CERTIFICATES {
            known.clear();
        }
        known.insert(der.to_vec(), Arc::clone(&read));
        Ok(read)
    }
}

/// Takes the token out of a request's headers, which nobody behind this is to see.
pub(super) fn take_token(headers: &mut HeaderMap) -> Result<Option<String>, Unauthenticated> {
    let named = headers.remove(header::AUTHORIZATION).and_then(|value| {
        let text = value.to_str().ok()?;
        let (scheme, token) = text.trim().split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
    });
    let offered: Vec<String> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(',').map(|protocol| protocol.trim().to_owned()))
        .collect();
    let hidden = offered.iter().find_map(|protocol| protocol.strip_prefix(PROTOCOL));
    let Some(hidden) = hidden else { return Ok(named) };
    let token = URL_SAFE_NO_PAD.decode(hidden).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let rest: Vec<&str> =
        offered.iter().map(String::as_str).filter(|p| !p.starts_with(PROTOCOL)).collect();
    if rest.is_empty() {
        return unauthenticated("a token as a protocol, and no other protocol");
    }
    match (token, HeaderValue::from_str(&rest.join(", "))) {
        (Some(token), Ok(rest)) => {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, rest);
            Ok(named.or(Some(token)))
        }
        _ => unauthenticated("the token in the protocol cannot be read"),
    }
}

fn kind(alias: &str) -> &'static Kind {
    kinds::by_alias(alias).expect("what tokens are bound to is served")
}

impl Guard {
    /// Who shows a token that is for one of `audiences`, and for which of them.
    ///
    /// # Errors
    /// It is none, or none any more.
    pub(super) async fn by_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<(Identity, Vec<String>), Unauthenticated> {
        let now = self.registry.now();
        if let Some(token) = Token::parse(token) {
            let own = vec![ISSUER.to_owned()];
            return Ok((self.bootstrapper(&token, now).await?, own));
        }
        let Some(key) = &self.key else {
            return unauthenticated("there is no key for service accounts");
        };
        let claims = key.verify(token, now).map_err(|why| Unauthenticated(why.to_owned()))?;
        let both: Vec<String> =
            claims.audiences.iter().filter(|own| audiences.contains(own)).cloned().collect();
        if both.is_empty() {
            return unauthenticated("the token is for others");
        }
        if let Err(first) = self.still_holds(&claims, now).await {
            // What it is for may have been made through another replica a moment ago.
            if self.registry.linearize().await.is_err() {
                return Err(first);
            }
            self.still_holds(&claims, now).await?;
        }
        Ok((tokens::identity(&claims), both))
    }

    /// Who shows a bootstrap token.
    async fn bootstrapper(&self, token: &Token, now: i64) -> Result<Identity, Unauthenticated> {
        let (secrets, name) = (kind("secrets"), bootstrap::secret_name(&token.id));
        let stored = async |at| self.registry.get(secrets, bootstrap::NAMESPACE, &name, at).await;
        let found = match stored("0").await {
            Ok(found) => Ok(found),
            // It may have been made through another replica a moment ago.
            Err(_) => stored("").await,
        };
        let found = found.map_err(|_| Unauthenticated("no such bootstrap token".to_owned()))?;
        bootstrap::identity(&found, token, now)
            .map_err(|why| Unauthenticated(format!("the bootstrap token {why}")))
    }

    /// Whether the service account, and what the token is bound to, are there, and not only namesakes.
    async fn still_holds(&self, claims: &Claims, now: i64) -> Result<(), Unauthenticated> {
        let account = kind("serviceaccounts");
        let found = self.registry.get(account, &claims.namespace, &claims.name, "0").await;
        if !found.is_ok_and(|found| meta::uid(&found) == claims.uid) {
            return unauthenticated("the service account is gone");
        }
        for bound in &claims.bound {
            let of = kind(bound.what);
            let namespace = if of.namespaced { claims.namespace.as_str() } else { "" };
            let found = self.registry.get(of, namespace, &bound.name, "0").await;
            if !found.is_ok_and(|found| tokens::is_same(&found, &bound.uid, now)) {
                return unauthenticated(format!(
                    "the {} that the token is bound to is gone",
                    bound.what
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic in a test is its failure")]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_in_a_header_or_hidden_among_protocols() {
        let hidden = format!("{PROTOCOL}{}", URL_SAFE_NO_PAD.encode("t"));
        for (name, pairs, want, left) in [
            ("none", vec![], Ok(None), None),
            ("header", vec![("authorization", "Bearer t".to_owned())], Ok(Some("t")), None),
            ("any case", vec![("authorization", "bearer  t ".to_owned())], Ok(Some("t")), None),
            ("another scheme", vec![("authorization", "Basic t".to_owned())], Ok(None), None),
            ("nothing in it", vec![("authorization", "Bearer ".to_owned())], Ok(None), None),
            (
                "protocol",
                vec![("sec-websocket-protocol", format!("{hidden}, v5.channel.k8s.io"))],
                Ok(Some("t")),
                Some("v5.channel.k8s.io"),
            ),
            ("alone", vec![("sec-websocket-protocol", hidden)], Err(()), None),
            (
                "unreadable",
                vec![("sec-websocket-protocol", format!("{PROTOCOL}!, v5.channel.k8s.io"))],
                Err(()),
                None,
            ),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(name, value.parse().unwrap());
            }
            let found = take_token(&mut headers);
            assert_eq!(found.as_ref().map(Option::as_deref).map_err(|_| ()), want, "{name}");
            if found.is_ok() {
                let rest = headers.get(header::SEC_WEBSOCKET_PROTOCOL);
                assert_eq!(rest.map(|rest| rest.to_str().unwrap()), left, "{name}");
                assert!(!headers.contains_key(header::AUTHORIZATION), "{name}");
            }
        }
    }
}
