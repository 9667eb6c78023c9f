//! Service accounts' tokens: JSON Web Tokens that this cluster's key signs (SA-2).

use api::{caller::Identity, meta};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    },
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{fmt, sync::Arc};

/// Who signs, and for whom a token is that names nobody else.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Bytes of a token at most: more is none of ours.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Another replica's clock may be so far ahead of this one's.
const SKEW_SECONDS: i64 = 60;
const ALGORITHM: &str = "ES256";
/// What is around the point of a P-256 key in the form that its id is a hash of
/// (SubjectPublicKeyInfo, RFC 5480).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Why a key cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is no PEM file of a private key.
    #[error("no private key in PEM: {0}")]
    Pem(rustls::pki_types::pem::Error),
    /// It is of another form.
    #[error("a key in PKCS#8 is needed (`BEGIN PRIVATE KEY`)")]
    Form,
    /// It is of another kind.
    #[error("a P-256 key is needed: {0}")]
    Curve(ring::error::KeyRejected),
}

/// Signs and verifies the tokens of service accounts; every replica must have the same.
#[derive(Clone)]
pub struct ServiceAccountKey(Arc<Key>);

struct Key {
    pair: EcdsaKeyPair,
    id: String,
}

impl fmt::Debug for ServiceAccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccountKey").field("id", &self.0.id).finish_non_exhaustive()
    }
}

/// What a token is bound to beside its service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bound {
    /// `pod`, `secret` or `node`.
    pub(crate) what: &'static str,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// What a token says, before anybody has looked whether it is still so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) audiences: Vec<String>,
    /// Of the token; empty if it has none.
    pub(crate) id: String,
    pub(crate) bound: Vec<Bound>,
    /// Seconds since the Unix epoch.
    pub(crate) not_before: i64,
    /// Seconds since the Unix epoch.
    pub(crate) expires: i64,
}

const BINDABLE: [&str; 3] = ["pod", "secret", "node"];

impl ServiceAccountKey {
    /// A private P-256 key in PKCS#8, as PEM.
    ///
    /// # Errors
    /// What is not such a key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(KeyError::Pem)?;
        let PrivateKeyDer::Pkcs8(der) = key else { return Err(KeyError::Form) };
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der.secret_pkcs8_der(), &random)
            .map_err(KeyError::Curve)?;
        let mut spki = SPKI_PREFIX.to_vec();
        spki.extend_from_slice(pair.public_key().as_ref());
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(&spki));
        Ok(Self(Arc::new(Key { pair, id })))
    }

    /// A token that says this; `None` if there is no randomness to sign with.
    pub(crate) fn sign(&self, claims: &Claims) -> Option<String> {
        let Claims { namespace, name, uid, audiences, id, bound, not_before, expires } = claims;
        let mut own = json!({
            "namespace": namespace, "serviceaccount": {"name": name, "uid": uid},
        });
        for Bound { what, name, uid } in bound {
            if let Some(own) = own.as_object_mut() {
                own.insert((*what).to_owned(), json!({"name": name, "uid": uid}));
            }
        }
        let payload = json!({
            "iss": ISSUER, "sub": access::service_account_user(namespace, name), "aud": audiences,
            "iat": not_before, "nbf": not_before, "exp": expires, "jti": id, "kubernetes.io": own,
        });
        let header = json!({"alg": ALGORITHM, "kid": self.0.id});
        let mut token =
            [header, payload].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature = self.0.pair.sign(&SystemRandom::new(), token.as_bytes()).ok()?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature.as_ref()));
        Some(token)
    }

    /// What a token says, if this key has signed it and it holds now.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn verify(&self, token: &str, now: i64) -> Result<Claims, &'static str> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("too long");
        }
        let (signed, signature) = token.rsplit_once('.').ok_or("no signature")?;
        let (header, payload) = signed.split_once('.').ok_or("not three parts")?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| "not in base64url");
        let header: Value = serde_json::from_slice(&decode(header)?).map_err(|_| "no header")?;
        let text = |value: &Value, key: &str| {
            value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        if text(&header, "alg") != ALGORITHM {
            return Err("another algorithm");
        }
        if text(&header, "kid") != self.0.id {
            return Err("another key");
        }
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.0.pair.public_key());
        public.verify(signed.as_bytes(), &decode(signature)?).map_err(|_| "a wrong signature")?;
        let payload: Value = serde_json::from_slice(&decode(payload)?).map_err(|_| "no claims")?;
        let time = |key: &str| payload.get(key).and_then(Value::as_i64);
        let (not_before, expires) = (time("nbf").ok_or("no start")?, time("exp").ok_or("no end")?);
        if text(&payload, "iss") != ISSUER {
            return Err("another issuer");
        }
        if expires <= now {
            return Err("expired");
        }
        if not_before > now + SKEW_SECONDS {
            return Err("not valid yet");
        }
        let own = payload.get("kubernetes.io").ok_or("no service account")?;
        let account = own.get("serviceaccount").ok_or("no service account")?;
        let audiences = payload.get("aud").and_then(Value::as_array);
        let audiences = audiences.into_iter().flatten().filter_map(Value::as_str);
        let bound = BINDABLE.into_iter().filter_map(|what| {
            let found = own.get(what)?;
            Some(Bound { what, name: text(found, "name"), uid: text(found, "uid") })
        });
        let claims = Claims {
            namespace: text(own, "namespace"),
            name: text(account, "name"),
            uid: text(account, "uid"),
            audiences: audiences.map(str::to_owned).collect(),
            id: text(&payload, "jti"),
            bound: bound.collect(),
            not_before,
            expires,
        };
        if text(&payload, "sub") != access::service_account_user(&claims.namespace, &claims.name) {
            return Err("another subject");
        }
        Ok(claims)
    }

    /// The public key, as `/openid/v1/jwks` has it.
    pub(crate) fn jwks(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let point = self.0.pair.public_key().as_ref();
        let half =
            |from: usize| URL_SAFE_NO_PAD.encode(point.get(from..from + 32).unwrap_or_default());
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.0.id, "crv": "P-256", "alg": ALGORITHM,
            "x": half(1), "y": half(33),
        }]})
    }
}

/// `/.well-known/openid-configuration`
pub(crate) fn discovery() -> Value {
    json!({
        "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
        "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
    })
}

/// Who shows a token that says this.
pub(crate) fn identity(claims: &Claims) -> Identity {
    let Claims { namespace, name, uid, id, bound, .. } = claims;
    let mut who = Identity {
        user: access::service_account_user(namespace, name),
        uid: uid.clone(),
        groups: access::service_account_groups(namespace),
        ..Identity::default()
    };
    let mut add = |key: &str, value: String| {
        who.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
    };
    for Bound { what, name, uid } in bound.iter().filter(|bound| bound.what != "secret") {
        add(&format!("{what}-name"), name.clone());
        add(&format!("{what}-uid"), uid.clone());
    }
    if !id.is_empty() {
        add("credential-id", format!("JTI={id}"));
    }
    who
}

/// Whether an object is the one with this uid, and not on its way out for so long that its tokens are over.
pub(crate) fn is_same(object: &Value, uid: &str, now: i64) -> bool {
    /// A Pod that ends may use its tokens for so long.
    const GRACE_SECONDS: i64 = 60;
    let over = meta::deletion_time(object).is_some_and(|at| at + GRACE_SECONDS < now);
    meta::uid(object) == uid && !over
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic in a test is its failure")]
mod tests {
    use super::*;

    fn key() -> ServiceAccountKey {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        ServiceAccountKey::from_pem(pair.serialize_pem().as_bytes()).unwrap()
    }

    fn claims() -> Claims {
        Claims {
            namespace: "ns".to_owned(),
            name: "robot".to_owned(),
            uid: "u".to_owned(),
            audiences: vec![ISSUER.to_owned()],
            id: "j".to_owned(),
            bound: vec![Bound { what: "pod", name: "p".to_owned(), uid: "pu".to_owned() }],
            not_before: 1000,
            expires: 2000,
        }
    }

    #[test]
    fn a_token_says_what_was_signed_while_it_holds_and_nothing_else() {
        // SA-2
        let (key, other) = (key(), key());
        let token = key.sign(&claims()).unwrap();
        assert_eq!(key.verify(&token, 1500), Ok(claims()));
        assert_eq!(key.verify(&token, 2000), Err("expired"));
        assert_eq!(key.verify(&token, 1000 - SKEW_SECONDS - 1), Err("not valid yet"));
        assert_eq!(other.verify(&token, 1500), Err("another key"));
        // The same id, another key's signature.
        let [header, payload, signature]: [&str; 3] =
            token.split('.').collect::<Vec<_>>().try_into().unwrap();
        let forged = other.sign(&claims()).unwrap();
        let forged_signature = forged.rsplit_once('.').unwrap().1;
        let forged = format!("{header}.{payload}.{forged_signature}");
        assert_eq!(key.verify(&forged, 1500), Err("a wrong signature"));
        let mut more = claims();
        more.name = "admin".to_owned();
        let more = key.sign(&more).unwrap();
        let more_payload = more.split('.').nth(1).unwrap();
        let swapped = format!("{header}.{more_payload}.{signature}");
        assert_eq!(key.verify(&swapped, 1500), Err("a wrong signature"));
        let none = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "kid": key.0.id}).to_string());
        assert_eq!(key.verify(&format!("{none}.{payload}."), 1500), Err("another algorithm"));
        for garbage in ["", ".", "..", "a.b.c", &"x".repeat(20_000), &token[..token.len() - 2]] {
            assert!(key.verify(garbage, 1500).is_err(), "{garbage}");
        }
    }

    #[test]
    fn a_published_key_is_the_one_that_signs() {
        let key = key();
        let jwks = key.jwks();
        let half =
            |name: &str| URL_SAFE_NO_PAD.decode(jwks["keys"][0][name].as_str().unwrap()).unwrap();
        let point = [vec![4], half("x"), half("y")].concat();
        let token = key.sign(&claims()).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        public.verify(signed.as_bytes(), &signature).unwrap();
        assert!(ServiceAccountKey::from_pem(b"x").is_err());
        let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let ed = ServiceAccountKey::from_pem(ed.serialize_pem().as_bytes());
        assert!(matches!(ed, Err(KeyError::Curve(_))));
    }
}
